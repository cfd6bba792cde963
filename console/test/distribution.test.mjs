import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createServer } from 'vite';

let vite;
let dist;
let sql;
let counts;

before(async () => {
  vite = await createServer({ server: { middlewareMode: true, watch: null, hmr: false, ws: false }, appType: 'custom', logLevel: 'error' });
  dist = await vite.ssrLoadModule('/src/lib/distribution.ts');
  sql = await vite.ssrLoadModule('/src/lib/sql.ts');
  counts = await vite.ssrLoadModule('/src/lib/counts.ts');
});
after(() => vite.close());

test('names and texts are quoted, whatever is in them', () => {
  assert.equal(sql.name('a "b"'), '"a ""b"""');
  assert.equal(sql.literal("it's"), "'it''s'");
  assert.equal(sql.results('j1"; DROP'), 'grid."j1""; DROP"');
});

test('bars begin and end at round numbers, and all values are between', () => {
  for (const [least, most] of [[0, 1], [-1234.5, 987], [1e-9, 3e-9], [99.999, 100.001], [-5e11, 2e12], [3, 1003], [-1, 0]]) {
    const { from, width, count } = dist.bars(least, most);
    const to = from + width * count;
    const slack = width * 1e-6;
    assert.ok(from <= least + slack && to >= most - slack, `${least} to ${most}: ${from} to ${to}`);
    assert.ok(from > least - width - slack && to < most + width + slack, `${least} to ${most}: ${from} to ${to}`);
    assert.ok(count >= 30 && count <= 85, `${least} to ${most}: ${count} bars`);
    const digits = width / 10 ** Math.floor(Math.log10(width) + 1e-9);
    assert.ok([1, 2, 2.5, 5].some((d) => Math.abs(d - digits) < 1e-6), `${width} is no round number`);
  }
});

test('one value for all has one bar around it', () => {
  for (const v of [0, 7, -3.5]) {
    const { from, width, count } = dist.bars(v, v);
    assert.ok(count === 1 && from < v && v < from + width, `${v}`);
  }
});

test('a statement asks for what was chosen', () => {
  const q = { session: 'j1', column: 'p"l', by: '', losses: 'low', level: 0.99, range: 'all' };
  assert.equal(dist.values(q), 'SELECT CAST("p""l" AS DOUBLE) AS v FROM grid."j1"');
  assert.match(dist.values({ ...q, by: 'scenario' }), /^SELECT sum\(CAST\("p""l" AS DOUBLE\)\) AS v FROM grid."j1" GROUP BY "scenario"$/);
  assert.match(dist.summarySql(q), /-quantile_exact\(v, 0\.01\) AS risk, expected_shortfall\(v, 0\.99\)/);
  assert.match(dist.summarySql({ ...q, losses: 'high', level: 0.975 }), /-quantile_exact\(-v, 0\.025\) AS risk, expected_shortfall\(-v, 0\.975\)/);
});

test('a session is known among jobs by what it runs', () => {
  const job = (run) => ({ spec: { stages: [{ run }] } });
  assert.equal(counts.isSession(job({ engine: { engine: 'python' } })), true);
  for (const run of [{ command: { argv: [] } }, 'noop', undefined]) assert.equal(counts.isSession(job(run)), false);
  assert.equal(counts.isSession({ spec: null }), false);
});
