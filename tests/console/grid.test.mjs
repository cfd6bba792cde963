// The console's pages of the grid, in Chromium, with sessions whose tasks are run by real engines.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import * as browser from './browser.mjs';
import { submit as submitJob, user } from './demo.mjs';
import * as grid from './grid.mjs';
import * as server from './server.mjs';

const BINARY = process.env.TIDEMILL_BIN;
const SHOTS = process.env.SHOTS;
/** How long a small session may take on a busy machine. */
const SESSION_MS = 120_000;

let mill;
let chrome;
let page;
let call;

before(async () => {
  assert.ok(BINARY, 'TIDEMILL_BIN names the program to test');
  mill = await server.start(BINARY);
  chrome = await browser.open(mill.url);
  page = chrome.page;
  page.setDefaultTimeout(SESSION_MS);
  call = grid.caller(mill);
});
after(async () => {
  await chrome?.close();
  await mill?.stop();
});
afterEach(async (t) => {
  if (SHOTS && !t.passed) await shot(`failed-${t.name.replaceAll(/\W+/g, '-').slice(0, 40)}`).catch(() => undefined);
});

const button = (name) => page.getByRole('button', { name, exact: true });
const heading = (name) => page.getByRole('heading', { name, exact: true });
const figure = (label) => page.locator('.figure').filter({ has: page.getByText(label, { exact: true }) }).locator('.value');
const stateIs = (state) => page.locator('.facts .state').filter({ hasText: state }).waitFor();
const answer = (name) => page.getByRole('dialog').getByRole('button', { name, exact: true }).click();

async function shot(name) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}

test('who has no token is asked for one, and a wrong one is refused', async () => {
  await page.goto('/grid');
  await page.getByLabel('Token').fill('tm_wrong');
  await button('Sign in').click();
  await page.getByRole('alert').getByText('not valid').waitFor();
  await page.getByLabel('Token').fill(mill.token);
  await page.keyboard.press('Enter');
  await heading('Grid').waitFor();
});

test('a grid without sessions and without archives says how to come by them', async () => {
  await page.getByText('No sessions yet').waitFor();
  await page.getByText('with Grid(name="overnight") as grid:').waitFor();
  await page.getByRole('link', { name: 'Archives' }).click();
  await page.getByText('Nothing is archived').waitFor();
  await page.goto('/grid/j0nosuchsession');
  await page.getByRole('alert').getByText('There is no session j0nosuchsession').waitFor();
});

/** What the session `risk` of 20 trades in 50 scenarios has made, asked of the server. */
let risk;
const TRADES = 20;
const SCENARIOS = 50;
const LOST = [3, 11];

test('a session is listed with its counts, and its page has course, engines and versions', async () => {
  const data = { trades: TRADES, scenarios: SCENARIOS, milliseconds: 1, without_volatility: LOST };
  risk = await grid.risk(mill, 'overnight', data, { session: { priority: 3 } });
  await page.goto('/grid');
  await page.getByRole('link', { name: 'overnight' }).click();
  await heading('overnight').waitFor();
  await page.getByText('desk=equities').waitFor();
  await page.getByText('priority 3', { exact: true }).waitFor();
  await stateIs('failed');
  await page.getByText('1,000 of 1,000 tasks settled').waitFor();
  await page.getByRole('progressbar', { name: 'Progress of the session' }).waitFor();
  await page.getByRole('img', { name: /^Tasks done, now succeeded 900, failed 100$/ }).waitFor();
  await page.getByRole('img', { name: /^Tasks per second, now / }).waitFor();
  assert.match(await figure('Tasks per second').textContent(), /^[\d.,]+k?$/);
  await figure('Warm engines').filter({ hasText: /^[1-4]$/ }).waitFor();
  await shot('grid-session');

  await page.getByRole('link', { name: 'Engines', exact: true }).click();
  const engines = page.getByRole('region', { name: 'Engines', exact: true });
  await engines.getByRole('heading', { name: /^\d+ engines?, [1-4] warm$/ }).waitFor();
  await engines.getByText(/^tidemill-python .*, python 3.*, risk 2026\.11/).first().waitFor();
  const made = page.getByRole('region', { name: 'What made the results' });
  await made.getByRole('row').filter({ hasText: /python 3.*, risk 2026\.11/ }).first().waitFor();
  await shot('grid-engines');

  await page.goto('/grid?state=failed');
  const row = page.getByRole('row').filter({ hasText: risk });
  assert.match(await row.innerText(), /900 of 1,000/);
  assert.match(await row.innerText(), /100 failed/);
  await page.getByLabel('State').selectOption('succeeded');
  await page.getByText('No session fits').waitFor();
});

test('failures are grouped by message whatever their numbers, with the traceback of each', async () => {
  await page.goto(`/grid/${risk}/failures`);
  await heading('100 tasks failed for good').waitFor();
  const groups = page.getByRole('region', { name: 'Failures by message' }).getByRole('listitem');
  assert.equal(await groups.count(), 1);
  await groups.first().getByText(/has no volatility at strike/).click();
  const traceback = page.getByLabel(/^Traceback of task \d+$/);
  await traceback.getByText('risk.py').first().waitFor();
  assert.match(await traceback.textContent(), /Traceback[\s\S]+line \d+, in value[\s\S]+ValueError: trade 3 has no volatility/);
  await page.getByRole('group', { name: 'Tasks of this group' }).getByRole('button', { name: '11', exact: true }).click();
  await page.getByLabel('Traceback of task 11').getByText('trade 11').waitFor();
  await shot('grid-failures');
  await button('Retry task 11').click();
  await page.getByText('Task 11 is tried again').waitFor();
  await grid.reaches(mill, risk, (s) => s.attempts > 1000 && grid.over(s));
});

/** The smallest value that a share `p` of the values do not exceed, and the mean of the worst losses, by their definitions. */
const quantile = (sorted, p) => sorted[Math.max(0, Math.ceil(p * sorted.length - 1e-9) - 1)];
function shortfall(sorted, p) {
  const tail = (1 - p) * sorted.length;
  const whole = Math.floor(tail + 1e-9);
  const sum = sorted.slice(0, whole).reduce((a, b) => a + b, 0) + Math.max(0, tail - whole) * (sorted[whole] ?? 0);
  return -sum / tail;
}
const shown = (n) => new Intl.NumberFormat('en', { maximumSignificantDigits: 7 }).format(n);
const measure = (name) => page.locator('.figures dl dt').filter({ hasText: new RegExp(`^${name}`) }).locator('xpath=following-sibling::dd[1]');

test('the histogram of a column, row by row and summed by another, has the measures of risk by their definitions', async () => {
  const rows = await grid.sql(mill, `SELECT scenario, pnl FROM grid."${risk}"`);
  assert.equal(rows.length, (TRADES - LOST.length) * SCENARIOS);
  const each = rows.map((r) => r.pnl).sort((a, b) => a - b);
  await page.goto(`/grid/${risk}/results`);
  await page.getByRole('img', { name: /^pnl: 900 values from / }).waitFor();
  assert.equal(await page.getByLabel('Column').inputValue(), 'pnl', 'an amount is more likely wanted than a number of something');
  assert.equal(await measure('Value at risk 99 %').textContent(), shown(-quantile(each, 0.01)));
  assert.equal(await measure('Expected shortfall 99 %').textContent(), shown(shortfall(each, 0.99)));
  assert.equal(await measure('Smallest').textContent(), shown(each[0]));
  assert.equal(await measure('Largest').textContent(), shown(each.at(-1)));
  await page.getByText('The bars as a table').click();
  const counts = await page.locator('figure ~ details tbody tr td:nth-child(3)').allTextContents();
  assert.equal(counts.reduce((sum, n) => sum + Number(n.replaceAll(',', '')), 0), 900, 'every value is in a bar');

  const sums = new Map();
  for (const r of rows) sums.set(r.scenario, (sums.get(r.scenario) ?? 0) + r.pnl);
  const total = [...sums.values()].sort((a, b) => a - b);
  await page.getByLabel('Taken').selectOption('scenario');
  await page.getByLabel('Confidence').selectOption('0.975');
  await page.getByRole('img', { name: /^pnl, summed by scenario: 50 values from / }).waitFor();
  assert.equal(await measure('Value at risk 97.5 %').textContent(), shown(-quantile(total, 0.025)));
  assert.equal(await measure('Expected shortfall 97.5 %').textContent(), shown(shortfall(total, 0.975)));
  assert.equal(new URL(page.url()).search, '?by=scenario&level=0.975', 'the picture has an address');
  await shot('grid-histogram');

  await page.getByLabel('Losses are').selectOption('high');
  await page.getByLabel('Confidence').selectOption('0.99');
  const losses = total.map((v) => -v).sort((a, b) => a - b);
  await page.waitForFunction((want) => document.querySelector('.figures dd')?.textContent === want, shown(-quantile(losses, 0.01)));
  await page.locator('.figures').getByRole('link', { name: 'Open in SQL' }).click();
  await heading('SQL').waitFor();
  assert.match(await page.getByLabel('Query').inputValue(), /GROUP BY "scenario"[\s\S]+expected_shortfall\(-v, 0\.99\)/);
  assert.equal(await page.getByRole('table').count(), 0, 'a statement from a link is not run by itself');
  await button('Run').click();
  await page.getByText('1 row in').waitFor();
});

test('values that are no numbers, one value alone and results that only Python reads are told as what they are', async () => {
  const odd = await grid.open(mill, grid.expressions('odd'), ['{"x": 5, "name": "a"}', '{"x": 5, "name": "b"}', '{"x": None, "name": "c"}']);
  await grid.reaches(mill, odd, grid.over);
  await page.goto(`/grid/${odd}/results`);
  await page.getByRole('img', { name: /^x: 2 values from .* in 1 bars/ }).waitFor();
  assert.equal(await measure('Missing').textContent(), '1');
  const words = await grid.open(mill, grid.expressions('words'), ['"one"', '"two"']);
  await grid.reaches(mill, words, grid.over);
  await page.goto(`/grid/${words}/results`);
  await page.getByText('No column holds numbers').waitFor();
  await page.getByRole('cell', { name: 'one', exact: true }).waitFor();
  const pickled = await grid.open(mill, grid.expressions('pickled', { output: 'pickle' }), ['1']);
  await grid.reaches(mill, pickled, grid.over);
  await page.goto(`/grid/${pickled}/results`);
  await page.getByRole('alert').getByText('as pickle, which only Python reads').waitFor();
  const none = await grid.open(mill, grid.expressions('none'), ['1/0']);
  await grid.reaches(mill, none, grid.over);
  await page.goto(`/grid/${none}/results`);
  await page.getByText('No results yet').waitFor();
});

test('one task is shown with what it was given and what came of it, and the slowest are listed', async () => {
  const id = await grid.open(mill, grid.expressions('uneven'), ['7 * 6', '__import__("time").sleep(0.3) or "slept"', '{}["missing"]']);
  await grid.reaches(mill, id, grid.over);
  await page.goto(`/grid/${id}/tasks`);
  const slowest = page.getByRole('region', { name: 'Slowest tasks' });
  await slowest.getByRole('row').nth(1).waitFor();
  await slowest.getByRole('link', { name: '1', exact: true }).click();
  await page.getByLabel('Result of task 1').getByText('slept').waitFor();
  await page.getByLabel('Input of task 1').getByText('sleep(0.3)').waitFor();
  await page.getByLabel('Task number').fill('2');
  await page.keyboard.press('Enter');
  await page.getByLabel('Traceback of task 2').getByText('KeyError').waitFor();
  await shot('grid-task');
  await page.getByLabel('Task number').fill('99');
  await button('Show').click();
  await page.getByText('There is no task 99').waitFor();
  await page.goto(`/jobs/${id}/logs/0/1`);
  await page.waitForURL(`${mill.url}/grid/${id}/tasks?task=1`);
});

test('a session that runs is paused, resumed, made more urgent, closed, retried and cancelled', async () => {
  const tasks = Array.from({ length: 4000 }, (_, n) => `__import__("time").sleep(0.02) or ${n}`);
  const id = await grid.open(mill, grid.expressions('steered'), ['1/0', ...tasks], { close: false });
  await page.goto(`/grid/${id}`);
  await stateIs('running');
  await page.getByText('takes tasks', { exact: true }).waitFor();
  await page.waitForFunction(() => /about .* left/.test(document.body.innerText));
  await figure('Bundle now').filter({ hasText: /^[\d,]+$/ }).waitFor();
  await shot('grid-running');

  await button('Priority').click();
  await page.getByLabel('Priority').fill('7');
  await button('Set').click();
  await page.getByText('priority 7', { exact: true }).waitFor();
  await button('Pause').click();
  await stateIs('paused');
  await button('Resume').click();
  await stateIs('running');
  await page.getByRole('link', { name: 'Tasks' }).click();
  await page.getByRole('region', { name: 'Running now' }).getByRole('row').nth(1).waitFor();

  await button('Retry failed').click();
  await answer('Retry');
  await page.getByText('Failed tasks are tried again').waitFor();
  await grid.reaches(mill, id, (s) => s.tasks.failed === 1 && s.attempts > s.tasks.succeeded + 1);
  await button('Close').click();
  await answer('Keep as it is');
  await button('Close').click();
  await answer('Close the session');
  await page.getByText('closed: ends with its tasks').waitFor();
  assert.equal(await button('Close').count(), 0);

  await button('Cancel').focus();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  assert.equal(await page.evaluate(() => document.activeElement?.textContent?.trim()), 'Cancel', 'the focus is back where it was');
  await button('Cancel').click();
  await answer('Cancel the session');
  await stateIs('cancelled');
  const end = await grid.reaches(mill, id, grid.over);
  assert.equal(end.priority, 7);
  assert.ok(end.tasks.cancelled > 0 && end.tasks.succeeded > 0);
});

test('a session that has not ended is drawn while results come', async () => {
  const id = await grid.open(mill, grid.expressions('growing'), ['{"x": 1.5}', '{"x": 2.5}'], { close: false });
  await page.goto(`/grid/${id}/results`);
  await page.getByRole('img', { name: /^x: 2 values from / }).waitFor();
  await page.goto(`/grid/${id}`);
  await page.getByText('waits for tasks').waitFor();
  await page.goto(`/grid/${id}/results`);
  await page.getByRole('img', { name: /^x: 2 values from / }).waitFor();
  await grid.submit(mill, id, ['{"x": 9.5}']);
  await page.getByRole('img', { name: /^x: 3 values from .* to 9\.\d/ }).waitFor();
  await call('POST', `/grid/sessions/${id}/cancel`);
});

test('an archived session is brought back, run once more, and its archive removed', async () => {
  const id = await grid.open(mill, grid.expressions('yearly'), ['{"x": 1}', '{"x": 2}', '{"x": 4}']);
  await grid.reaches(mill, id, grid.over);
  await page.goto(`/grid/${id}`);
  await button('Archive').click();
  await answer('Archive');
  await page.getByText('Archived', { exact: true }).waitFor();
  await call('DELETE', `/grid/sessions/${id}`);
  await page.getByText('yearly is in the archive').waitFor();
  await page.getByRole('link', { name: 'All archives' }).click();
  const row = page.getByRole('row').filter({ hasText: id });
  await row.getByText('archived', { exact: true }).waitFor();
  await shot('grid-archives');
  await button('Restore yearly').click();
  await row.getByText('restored', { exact: true }).waitFor();
  await row.getByRole('link', { name: id }).click();
  await page.getByRole('img', { name: /^x: 3 values from / }).waitFor();
  await page.goto('/grid/archives');
  await button('Run yearly once more').click();
  await answer('Run it');
  await page.waitForURL(/\/grid\/[^/]+$/);
  await stateIs('succeeded');
  assert.equal(await heading('yearly').count(), 1);
  await page.getByText('3 of 3 tasks settled').waitFor();
  await page.goto('/grid/archives');
  await button('Remove the archive of yearly').click();
  await answer('Remove it');
  await page.getByText('Nothing is archived').waitFor();
});

test('a session that is deleted while its page is open is said to be gone', async () => {
  const id = await grid.open(mill, grid.expressions('fleeting'), ['1', '2']);
  await grid.reaches(mill, id, grid.over);
  await page.goto(`/grid/${id}`);
  await stateIs('succeeded');
  await call('DELETE', `/grid/sessions/${id}`);
  await page.getByRole('alert').getByText('This session is gone').waitFor();
  assert.equal(await button('Archive').count(), 0);
  await shot('grid-gone');
});

const MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>';

test('what people and functions write is text on every page', async () => {
  const tasks = [`{"<b>x</b>": 1.5, "text": ${JSON.stringify(MARKUP)}}`, `__import__("builtins").exec(${JSON.stringify(`raise ValueError('${MARKUP.replaceAll("'", '')}')`)})`];
  const id = await grid.open(mill, grid.expressions(MARKUP, { labels: { '<i>a</i>': MARKUP } }), tasks);
  await grid.reaches(mill, id, grid.over);
  await page.goto('/grid');
  await page.getByRole('link', { name: MARKUP }).waitFor();
  await page.goto(`/grid/${id}`);
  await heading(MARKUP).waitFor();
  await page.goto(`/grid/${id}/results`);
  await page.getByRole('img', { name: /^<b>x<\/b>: 1 values/ }).waitFor();
  await page.getByRole('cell', { name: MARKUP }).waitFor();
  await page.goto(`/grid/${id}/failures`);
  await page.getByRole('listitem').getByText(MARKUP).click();
  await page.getByLabel('Traceback of task 1').getByText(MARKUP).first().waitFor();
  await page.goto(`/grid/${encodeURIComponent(MARKUP)}`);
  await page.getByRole('alert').getByText(MARKUP).first().waitFor();
  assert.equal(await page.evaluate(() => window.hacked), undefined);
});

test('the SQL page has examples about the newest session, and all of them run', async () => {
  await page.goto('/sql');
  const examples = page.getByLabel('Example queries');
  await examples.locator('option', { hasText: 'Results of the newest session' }).waitFor({ state: 'attached' });
  for (const example of await examples.locator('optgroup[label="Grid"] option').allInnerTexts()) {
    await examples.selectOption({ label: example });
    await page.getByText(/rows? in/).or(page.getByRole('alert')).waitFor();
    assert.equal(await page.getByRole('alert').count(), 0, `${example}: ${await page.getByRole('alert').allInnerTexts()}`);
  }
  await page.getByLabel('Query').fill(`SELECT book, count(*) AS n, expected_shortfall(pnl, 0.975) > 0 AS lost FROM grid."${risk}" GROUP BY book ORDER BY book`);
  await page.keyboard.press('Control+Enter');
  await page.getByText('4 rows in').waitFor();
  assert.deepEqual(await page.locator('tbody tr').allInnerTexts(), ['EQ-EXO-1\t250\ttrue', 'EQ-VAN-1\t250\ttrue', 'EQ-VAN-2\t250\ttrue', 'FX-1\t150\ttrue']);
});

test('whoever may only look is offered nothing else, and a cookie that is refused leads to the token', async () => {
  const token = await user(mill, 'vera', 'viewer');
  const other = await browser.open(mill.url);
  try {
    const look = other.page;
    await look.goto(`/grid/${risk}`);
    await look.getByLabel('Token').fill(token);
    await look.keyboard.press('Enter');
    await look.getByRole('heading', { name: 'overnight' }).waitFor();
    await look.getByText('tasks settled').waitFor();
    for (const name of ['Cancel', 'Pause', 'Priority', 'Close', 'Retry failed', 'Archive']) {
      assert.equal(await look.getByRole('button', { name, exact: true }).count(), 0, name);
    }
    const status = await look.evaluate((to) => fetch(to, { method: 'POST' }).then((r) => r.status), `/api/v1/grid/sessions/${risk}/cancel`);
    assert.equal(status, 403);
    await look.goto('/grid');
    await look.getByRole('link', { name: 'overnight' }).waitFor();
    await other.context.clearCookies();
    await look.getByLabel('Token').waitFor();
    assert.deepEqual(other.errors, []);
  } finally {
    await other.close();
  }
});

/** Everything that the pages of a session ask of the server may be so long, whatever its number of tasks. */
const MOST_BYTES = 300_000;
const MANY = 60_000;

test('a session of many tasks is looked at without its tasks coming to the browser', async () => {
  const id = await grid.open(mill, grid.expressions('many'), Array.from({ length: MANY }, (_, n) => `{"x": ${n % 1000}, "group": ${n % 7}}`));
  await grid.reaches(mill, id, grid.over);
  let bytes = 0;
  const asked = [];
  const take = async (response) => {
    if (!response.url().includes('/api/v1/')) return;
    const sizes = await response.request().sizes().catch(() => ({ responseBodySize: 0 }));
    const length = (await response.body().catch(() => Buffer.alloc(0))).length || sizes.responseBodySize;
    bytes += length;
    asked.push(`${length} ${response.url()}`);
  };
  page.on('response', take);
  await page.goto('/grid');
  await page.getByRole('link', { name: 'many', exact: true }).waitFor();
  await page.goto(`/grid/${id}`);
  await page.getByText('60,000 of 60,000 tasks settled').waitFor();
  await page.getByRole('img', { name: /^Tasks done/ }).waitFor();
  await page.goto(`/grid/${id}/results?column=x`);
  await page.getByRole('img', { name: /^x: 60,000 values from 0 to / }).waitFor();
  assert.equal(await measure('Value at risk 99 %').textContent(), shown(-9), 'exact, and not of a sample');
  await page.getByLabel('Taken').selectOption('group');
  await page.getByRole('img', { name: /^x, summed by group: 7 values/ }).waitFor();
  for (const [tab, there] of [['engines', 'What made the results'], ['tasks', 'Slowest tasks']]) {
    await page.goto(`/grid/${id}/${tab}`);
    await page.getByRole('region', { name: there }).getByRole('row').nth(1).waitFor();
  }
  page.off('response', take);
  assert.ok(bytes > 0 && bytes < MOST_BYTES, `${bytes} bytes:\n${asked.join('\n')}`);
  assert.equal(asked.filter((a) => /\/grid\/sessions\/[^/]+\/results/.test(a)).length, 0);
});

test('a page that is open while the server starts anew goes on by itself', async () => {
  const id = await grid.open(mill, grid.expressions('enduring'), Array.from({ length: 200 }, (_, n) => `__import__("time").sleep(0.1) or ${n}`));
  await page.goto(`/grid/${id}`);
  await stateIs('running');
  await mill.down();
  await page.getByRole('alert').getByText('cannot be reached').first().waitFor();
  await mill.up();
  await page.getByRole('alert').first().waitFor({ state: 'hidden' });
  await stateIs('succeeded');
  await page.getByText('200 of 200 tasks settled').waitFor();
});

test('every page has its own address, fits a phone, and names all that can be used', async () => {
  const parts = ['', '/results', '/failures', '/engines', '/tasks', '/tasks?task=3', '/explain'].map((p) => `/grid/${risk}${p}`);
  await page.setViewportSize({ width: 390, height: 844 });
  for (const path of ['/', '/grid', '/grid/archives', '/sql', ...parts]) {
    await page.goto(path);
    await page.getByRole('heading', { level: 1 }).waitFor();
    await page.waitForLoadState('networkidle');
    const found = await page.evaluate(() => {
      const named = (e) => e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim() || e.title;
      const controls = [...document.querySelectorAll('button, a, input, select, textarea, summary, [role=progressbar], [role=img]')];
      const levels = [...document.querySelectorAll('h1, h2, h3')].map((h) => Number(h.tagName[1]));
      const wrong = [...document.querySelectorAll('[id]')].map((e) => e.id).filter((id, i, all) => all.indexOf(id) !== i);
      return { over: document.documentElement.scrollWidth - innerWidth, nameless: controls.filter((e) => !named(e)).map((e) => e.outerHTML), first: levels[0], wrong };
    });
    assert.deepEqual(found, { over: 0, nameless: [], first: 1, wrong: [] }, path);
  }
  await page.setViewportSize({ width: 1280, height: 860 });
});

test('jobs are counted without sessions, and the overview has the newest sessions', async () => {
  await submitJob(mill, 'name = "job"\n[[stage]]\nname = "run"\narray = "1-1"\ncommand = ["true"]\n');
  await page.goto('/');
  await heading('Recent sessions of the grid').waitFor();
  await page.getByRole('link', { name: 'enduring' }).waitFor();
  await page.goto('/jobs');
  await page.getByRole('link', { name: 'job', exact: true }).waitFor();
  assert.equal(await page.locator('tbody tr').count(), 1);
});

test('the pages asked nothing of other hosts, and only were refused what they should', async () => {
  assert.deepEqual(chrome.errors, []);
  assert.deepEqual(chrome.foreign, []);
  const expected = /^(401 (GET|POST) \/api\/v1\/session|404 GET \/api\/v1\/grid\/(sessions|archives)\/[^/]+|400 POST \/api\/v1\/sql)$/;
  assert.deepEqual([...new Set(chrome.refused)].filter((r) => !expected.test(r)), []);
});
