import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { createServer } from 'vite';

let vite;
let format;
let jobfile;
let counts;
let plain;

before(async () => {
  vite = await createServer({ server: { middlewareMode: true, watch: null, hmr: false, ws: false }, appType: 'custom', logLevel: 'error' });
  format = await vite.ssrLoadModule('/src/lib/format.ts');
  jobfile = await vite.ssrLoadModule('/src/lib/jobfile.ts');
  ({ plain } = await vite.ssrLoadModule('/src/lib/plain.ts'));
  counts = await vite.ssrLoadModule('/src/lib/counts.ts');
});
after(() => vite.close());

test('spans, sizes and shares read well at every magnitude', () => {
  for (const [us, want] of [
    [0, '0 s'], [1, '1 µs'], [999, '999 µs'], [1500, '1.5 ms'], [999_400, '999 ms'], [999_600, '1 s'], [12_340_000, '12.3 s'],
    [59_960_000, '1 min'], [61_000_000, '1 min 1 s'], [3_600_000_000, '1 h'], [5_400_000_000, '1 h 30 min'], [90_000_000_000, '1 d 1 h'],
  ]) assert.equal(format.duration(us), want);
  for (const [n, want] of [[0, '0 B'], [1023, '1,023 B'], [1024, '1 KiB'], [1_500_000, '1.43 MiB'], [5 * 2 ** 40, '5 TiB']]) {
    assert.equal(format.bytes(n), want);
  }
  for (const [share, want] of [[0, '0 %'], [0.004, '0.4 %'], [0.5, '50 %'], [0.99999, '99.9 %'], [1, '100 %']]) {
    assert.equal(format.percent(share), want);
  }
});

test('times are told relative to now, before and after', () => {
  const now = Date.parse('2026-01-01T12:00:00Z');
  assert.equal(format.relative('2026-01-01T11:59:59.500Z', now), 'now');
  assert.equal(format.relative('2026-01-01T11:59:18Z', now), '42 s ago');
  assert.equal(format.relative('2026-01-01T14:00:00Z', now), 'in 2 h');
  assert.equal(format.relative('soon', now), 'soon');
});

test('the quick form writes a job file whatever is typed into it', () => {
  const quick = { name: '', command: 'echo "a\\b"\tü\n', input: 'array', first: -1, last: 3, objects: '', prefix: '', perTask: 1, retries: 2, timeout: '', cpus: 1, memory: '', priority: 0 };
  const text = jobfile.jobFile(quick);
  assert.match(text, /^name = "echo"\n\n\[\[stage\]\]\nname = "run"\narray = "-1-3"\nshell = true\n/);
  assert.match(text, /command = "echo \\"a\\\\b\\"\\tü\\n"\n$/);
  const full = jobfile.jobFile({ ...quick, input: 'objects', objects: 'a/*.csv\n\n b/c ', perTask: 4, retries: 0, timeout: '90s', cpus: 2, memory: '1GiB', priority: 7 });
  for (const line of ['priority = 7', 'objects = ["a/*.csv", "b/c"]', 'per-task = 4', 'retries = 0', 'timeout = "90s"', 'cpus = 2', 'memory = "1GiB"']) {
    assert.ok(full.includes(`\n${line}\n`), line);
  }
  assert.equal(jobfile.errorLine('line 7, column 3: this is not TOML'), 7);
  assert.equal(jobfile.errorLine('no stage'), null);
});

test('a log shows as text what a terminal would follow', () => {
  for (const [written, want] of [
    ['plain\ttext\n', 'plain\ttext\n'],
    ['\x1b[1;31mred\x1b[0m\n', 'red\n'],
    ['\x1b]0;a title\x07after', 'after'],
    ['10 %\r50 %\r100 %\ndone\r\n', '100 %\ndone\n'],
    ['waiting\r', 'waiting'],
    ['a\0b\x07c\x7f', 'a␀b␇c␡'],
    ['safe\u202etxt.exe', 'safe�txt.exe'],
  ]) assert.equal(plain(written), want, JSON.stringify(written));
});

test('the pace is that of the last seconds, and unknown at first', () => {
  const pace = new counts.Pace();
  const job = (succeeded) => {
    const tasks = { total: 1000, succeeded, failed: 0, cancelled: 0, skipped: 0 };
    return { tasks, stages: [{ tasks }] };
  };
  pace.add(job(0), 0);
  assert.equal(pace.rate(), null);
  for (let s = 1; s <= 60; s += 1) pace.add(job(s <= 30 ? s * 10 : 300 + (s - 30) * 2), s * 1000);
  assert.equal(pace.rate(), 2);
  assert.equal(pace.rate(0), 2);
  const { times, rates } = pace.curve();
  assert.equal(times.length, rates.length);
  assert.deepEqual([rates[5], rates.at(-1)], [10, 2]);
});

test('numbers that were worked out keep their digits, and marks of an axis only those that they need', () => {
  for (const [n, want] of [[0, '0'], [-1234567.891, '-1,234,568'], [0.00012345678, '0.0001234568'], [3e-7, '3.0000e-7'], [2e15, '2.0000e+15'], [12.5, '12.5']]) {
    assert.equal(format.value(n), want);
  }
  for (const [n, scale, want] of [[4.7111e-5, 5881, '0'], [-3e-9, 5881, '0'], [0.0123456, 500, '0.0123'], [12.5, 5881, '12.5'], [1e-5, 3e-5, '1.0000e-5']]) {
    assert.equal(format.value(n, scale), want);
  }
  for (const [top, step, all] of [
    [1500, 500, { 0: '0', 1500: '1.5k', '-500': '-0.5k' }], [2e6, 5e5, { 2000000: '2M', 500000: '0.5M' }], [1, 0.25, { 0.25: '0.25', 1: '1' }],
    [1_000_000, 100, { 999900: '999.9k', 1000000: '1000k' }], [40, 20, { '-40': '-40', 20: '20' }], [3e-8, 1e-8, { 0: '0', 2e-8: '2.00e-8' }],
  ]) {
    for (const [n, want] of Object.entries(all)) assert.equal(format.axis(top, step)(Number(n)), want, `${n} of ${top} by ${step}`);
  }
});
