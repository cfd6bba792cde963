// The console as a person uses it, in Chromium, against a server of its own.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, afterEach, before, test } from 'node:test';
import * as browser from './browser.mjs';
import { submit as send, user } from './demo.mjs';
import * as server from './server.mjs';

const BINARY = process.env.TIDEMILL_BIN;
const SHOTS = process.env.SHOTS;
/** How long a small job may take on a busy machine. */
const JOB_MS = 60_000;

let mill;
let chrome;
let page;

before(async () => {
  assert.ok(BINARY, 'TIDEMILL_BIN names the program to test');
  mill = await server.start(BINARY);
  chrome = await browser.open(mill.url);
  page = chrome.page;
});
after(async () => {
  await chrome?.close();
  await mill?.stop();
});

/** What the page showed when a test failed says more than the name of what it lacked. */
afterEach(async (t) => {
  if (SHOTS && !t.passed) await shot(`failed-${t.name.replaceAll(/\W+/g, '-').slice(0, 40)}`).catch(() => undefined);
});

const button = (name) => page.getByRole('button', { name, exact: true });
const heading = (name) => page.getByRole('heading', { name });
const jobState = () => page.locator('.facts .state');

async function shot(name) {
  if (SHOTS) await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}

/** Fills in the quick form and gives the id of the job. */
async function submit({ name, command, first = 1, last = 10, retries = 0 }) {
  await page.goto('/submit');
  await page.getByLabel('First number').fill(String(first));
  await page.getByLabel('Last number').fill(String(last));
  await page.getByLabel('Command').fill(command);
  await page.getByLabel('Name', { exact: true }).fill(name);
  await page.getByLabel('Retries').fill(String(retries));
  await button('Submit').click();
  await page.waitForURL(/\/jobs\/[^/]+$/);
  await heading(name).waitFor();
  return new URL(page.url()).pathname.split('/').pop();
}

const ended = (state, where = page) => where.locator('.facts .state').filter({ hasText: state }).waitFor({ timeout: JOB_MS });

test('a wrong token is refused in words, the right one lets in', async () => {
  await page.goto('/jobs');
  await page.getByLabel('Token').fill('tm_wrong');
  await button('Sign in').click();
  await page.getByRole('alert').getByText('not valid').waitFor();
  await page.getByLabel('Token').fill(mill.token);
  await page.keyboard.press('Enter');
  await heading('Jobs').waitFor();
  await page.getByText('No jobs yet').waitFor();
  const cookies = await chrome.context.cookies();
  assert.deepEqual(cookies.map((c) => [c.httpOnly, c.sameSite]), [[true, 'Strict']]);
  assert.equal(await page.evaluate(() => localStorage.length), 0, 'the token is kept nowhere else');
});

test('a job from the quick form is watched to its end, and its results and logs are there', async () => {
  const id = await submit({ name: 'squares', command: 'echo "hello $index"; sleep 0.2; echo $((index * index)) > "$out"', last: 20 });
  await page.getByRole('progressbar', { name: 'Progress of the job' }).waitFor();
  await ended('succeeded');
  await page.getByText('20 of 20 tasks settled').waitFor();
  await shot('job-done');

  await page.getByRole('link', { name: 'Results' }).click();
  const link = page.getByRole('link', { name: /^Download .* of task 6$/ });
  const [download] = await Promise.all([page.waitForEvent('download'), link.click()]);
  assert.equal(readFileSync(await download.path(), 'utf8'), '49\n');

  await page.getByRole('link', { name: 'Tasks' }).click();
  await page.getByRole('link', { name: 'Log of task 3, attempt 1' }).click();
  await page.getByLabel('Log text').getByText('hello 4').waitFor();
  await page.getByLabel('Stream').selectOption('stderr');
  await page.getByLabel('Log text').getByText('It wrote nothing').waitFor();

  await page.getByRole('link', { name: 'Report' }).click();
  await heading('Slowest attempts').waitFor();
  await shot('report');
  await page.getByRole('link', { name: 'Explain' }).click();
  await heading('Because').waitFor();
  await page.goto(`/jobs?state=succeeded`);
  await page.getByRole('link', { name: 'squares' }).waitFor();
  assert.equal(await page.getByText(id).count(), 1);
});

test('a mistake in a job file is shown at its line, and put right there', async () => {
  await page.goto('/submit?as=file');
  const file = page.getByLabel('Job file', { exact: true }).and(page.getByRole('textbox'));
  await file.fill('name = "two"\n\n[[stage]]\narray = "1-4"\ncomand = ["true"]\n');
  await button('Submit').click();
  await page.getByRole('alert').getByText('comand').waitFor();
  assert.equal(await page.locator('.numbers .bad').textContent(), '5');
  await shot('submit-error');
  await file.fill('name = "two"\n\n[[stage]]\nname = "a"\narray = "1-4"\nshell = true\ncommand = "echo $index > $out"\n\n[[stage]]\nname = "b"\nfrom = "a"\nshell = true\ncommand = "cp $in $out"\n');
  await button('Submit').click();
  await heading('two').waitFor();
  await ended('succeeded');
  await page.getByRole('region', { name: 'Stage b' }).getByText('takes the output of a').waitFor();
  await page.getByText('8 of 8 tasks settled').waitFor();
});

test('a job that runs is paused, resumed, followed by its log and cancelled', async () => {
  const id = await submit({ name: 'long', command: 'for i in $(seq 600); do echo "tick $i of $index"; sleep 0.2; done', last: 40 });
  await page.getByRole('link', { name: /\d+ running$/ }).first().waitFor({ timeout: JOB_MS });
  await button('Priority').click();
  await page.getByLabel('Priority').fill('7');
  await button('Set').click();
  await page.getByText('priority 7', { exact: true }).waitFor();
  await page.getByText('Pace since this page was opened').waitFor();
  await shot('job-running');

  await page.getByRole('link', { name: /\d+ running$/ }).first().click();
  await page.getByRole('link', { name: /^Log of task \d+,/ }).first().click({ timeout: JOB_MS });
  const log = page.getByLabel('Log text');
  await log.getByText('tick 1 of').waitFor({ timeout: JOB_MS });
  const before = (await log.textContent()).length;
  await page.waitForFunction((n) => document.querySelector('pre[aria-label="Log text"]').textContent.length > n, before);
  await shot('log');

  await button('Pause').click();
  await ended('paused');
  await button('Resume').click();
  await ended('running');
  await button('Cancel').click();
  await button('Keep as it is').click();
  await button('Cancel').focus();
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'hidden' });
  assert.equal(await page.evaluate(() => document.activeElement?.textContent?.trim()), 'Cancel', 'the focus is back where it was');
  assert.equal(await jobState().textContent(), 'running');
  await button('Cancel').click();
  await button('Cancel the job').click();
  await ended('cancelled');
  await page.goto(`/jobs/${id}`);
  await page.getByText('40 of 40 tasks settled').waitFor();
});

test('what failed for good is told with class and message, read as dead letters and redriven', async () => {
  await submit({ name: 'broken', command: 'echo "no such luck" >&2; [ $index -gt 3 ] || exit 3', last: 6 });
  await ended('failed');
  await page.getByRole('link', { name: /^Tasks ?3 failed/ }).click();
  await page.getByRole('button', { name: 'failed 3' }).click();
  const rows = page.locator('tbody tr');
  await rows.nth(2).waitFor();
  assert.match(await rows.first().innerText(), /exit[\s\S]*3/);
  await shot('failed');

  await page.goto('/queues');
  const letters = page.getByRole('region', { name: /^Messages in/ });
  await letters.getByRole('listitem').nth(2).waitFor();
  await letters.getByRole('checkbox').first().check();
  await shot('queues');
  await button('Redrive 1 chosen').click();
  await page.getByRole('dialog').getByRole('button', { name: 'Redrive' }).click();
  await page.getByText('1 message redriven').waitFor();
});

test('files are uploaded and worked on, a task for each', async () => {
  await page.goto('/submit');
  await page.getByRole('radio', { name: /My files/ }).check();
  const text = (name, body) => ({ name, mimeType: 'text/plain', buffer: Buffer.from(body) });
  await page.getByLabel('Choose files').setInputFiles([text('a.txt', 'one\n'), text('b c.txt', 'two\nthree\n'), text('empty.txt', '')]);
  await page.getByText('3 of 3 files').waitFor();
  await page.getByLabel('Command').fill('wc -l < "$in" > "$out"');
  await page.getByLabel('Name', { exact: true }).fill('lines');
  await button('Submit').click();
  await heading('lines').waitFor();
  await ended('succeeded');
  await page.getByRole('link', { name: 'Results' }).click();
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: /^Download b c\.txt/ }).click()]);
  assert.equal(readFileSync(await download.path(), 'utf8').trim(), '2');
});

test('SQL runs, fails in words and is downloaded', async () => {
  await page.goto('/sql');
  await page.getByLabel('Query').fill("SELECT name, state FROM batch.jobs WHERE name IN ('squares', 'long') ORDER BY name");
  await page.keyboard.press('Control+Enter');
  await page.getByText('2 rows in').waitFor();
  assert.deepEqual(await page.locator('tbody tr').allInnerTexts(), ['long\tcancelled', 'squares\tsucceeded']);
  const [download] = await Promise.all([page.waitForEvent('download'), button('Download CSV').click()]);
  assert.deepEqual(readFileSync(await download.path(), 'utf8').trim().split(/\r?\n/), ['name,state', 'long,cancelled', 'squares,succeeded']);
  for (const example of await page.getByLabel('Example queries').locator('option:not([disabled])').allInnerTexts()) {
    await page.getByLabel('Example queries').selectOption({ label: example });
    await page.getByText(/rows? in/).or(page.getByRole('alert')).waitFor();
    assert.equal(await page.getByRole('alert').count(), 0, `${example}: ${await page.getByRole('alert').allInnerTexts()}`);
  }
  await page.getByLabel('Example queries').selectOption({ label: 'Slowest tasks' });
  await page.getByText('20 rows in').waitFor();
  await shot('sql');
  await page.getByLabel('Query').fill('SELECT nothing FROM batch.nowhere');
  await button('Run').click();
  await page.getByRole('alert').getByText('nowhere').waitFor();
});

test('workers are listed and drained, and a chart shows how many there were', async () => {
  await page.goto('/workers');
  await page.getByRole('img', { name: /^Workers of default, now alive \d+, wanted \d+$/ }).waitFor();
  await page.getByRole('img', { name: /^Backlog, now / }).waitFor();
  await page.getByRole('button', { name: /^Drain / }).first().waitFor({ timeout: JOB_MS });
  await shot('workers');
  await page.getByRole('button', { name: /^Drain / }).first().click();
  await page.getByRole('dialog').getByRole('button', { name: 'Drain' }).click();
  await page.getByText(/ drains$/).waitFor();
});

const MARKUP = '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>';

test('what people and programs write is text on every page', async () => {
  const file = `name = ${JSON.stringify(MARKUP)}
[[stage]]
name = "run"
array = "1-1"
shell = true
retries = 0
command = ${JSON.stringify(`printf '\\033[31mred\\033[0m \\000 ${MARKUP.replaceAll("'", '')}\\n'; echo '${MARKUP}' >&2; exit 9`)}
`;
  const id = await send(mill, file);
  await page.goto(`/jobs/${id}`);
  await ended('failed');
  assert.equal(await page.getByRole('heading', { level: 1 }).textContent(), MARKUP);
  await page.getByRole('link', { name: /^Tasks/ }).click();
  await page.getByRole('button', { name: 'failed 1' }).click();
  await page.getByRole('cell', { name: MARKUP }).waitFor();
  await page.goto(`/jobs/${id}/logs/0/0`);
  await page.getByLabel('Log text').getByText(`red ␀ ${MARKUP}`).waitFor();
  await page.goto('/jobs');
  await page.getByRole('link', { name: MARKUP }).waitFor();
  await page.goto('/queues');
  await page.getByRole('listitem').filter({ hasText: MARKUP }).waitFor();
  await page.goto('/sql');
  await page.getByLabel('Query').fill(`SELECT name FROM batch.jobs WHERE id = '${id}'`);
  await button('Run').click();
  await page.getByRole('cell', { name: MARKUP }).waitFor();
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  await page.goto(`/jobs/none?state=${encodeURIComponent(MARKUP)}`);
  await page.getByRole('alert').waitFor();
  assert.equal(await page.evaluate(() => window.hacked), undefined);
});

test('whoever may only look is offered no more, and gets no more', async () => {
  const token = await user(mill, 'vera', 'viewer');
  const id = await send(mill, 'name = "watched"\n[[stage]]\nname = "run"\narray = "1-4"\nshell = true\ncommand = "sleep 60"\n');
  const other = await browser.open(mill.url);
  try {
    await other.page.goto(`/jobs/${id}`);
    await other.page.getByLabel('Token').fill(token);
    await other.page.keyboard.press('Enter');
    await other.page.getByRole('heading', { name: 'watched' }).waitFor();
    for (const name of ['Cancel', 'Pause', 'Priority']) assert.equal(await other.page.getByRole('button', { name, exact: true }).count(), 0, name);
    assert.equal(await other.page.getByRole('link', { name: 'Submit' }).count(), 0);
    await other.page.goto('/submit');
    await other.page.getByText('Your role is viewer').waitFor();
    assert.equal(await other.page.getByRole('button', { name: 'Submit', exact: true }).count(), 0);
    for (const [path, action] of [['/workers', /^Drain/], ['/queues', /^Redrive/]]) {
      await other.page.goto(path);
      await other.page.getByRole('table').waitFor();
      assert.equal(await other.page.getByRole('button', { name: action }).count(), 0, path);
    }
    const status = await other.page.evaluate((to) => fetch(to, { method: 'POST' }).then((r) => r.status), `/api/v1/batch/jobs/${id}/cancel`);
    assert.equal(status, 403);
    assert.deepEqual(other.errors, []);
  } finally {
    await other.close();
    await page.goto(`/jobs/${id}`);
    await button('Cancel').click();
    await button('Cancel the job').click();
    await ended('cancelled');
  }
});

test('a page that is open while the server starts anew goes on by itself', async () => {
  const id = await send(mill, 'name = "enduring"\n[[stage]]\nname = "run"\narray = "1-40"\nshell = true\ncommand = "sleep 0.5"\n');
  await page.goto(`/jobs/${id}`);
  await ended('running');
  await mill.down();
  await page.getByRole('alert').getByText('cannot be reached').waitFor({ timeout: JOB_MS });
  await shot('unreachable');
  await mill.up();
  await page.getByRole('alert').waitFor({ state: 'hidden', timeout: JOB_MS });
  await ended('succeeded');
  await page.getByText('40 of 40 tasks settled').waitFor();
});

const PAGES = ['/', '/jobs', '/submit', '/submit?as=file', '/workers', '/queues', '/sql'];

test('every page has its own address, fits a phone, and names all that can be used', async () => {
  await page.setViewportSize({ width: 390, height: 844 });
  const job = await page.request.get('/api/v1/batch/jobs?limit=1').then((r) => r.json());
  const parts = ['', '/tasks', '/results', '/report', '/explain', '/definition'].map((p) => `/jobs/${job.jobs[0].id}${p}`);
  for (const path of [...PAGES, ...parts]) {
    await page.goto(path);
    await page.getByRole('heading', { level: 1 }).waitFor();
    await page.waitForLoadState('load');
    await page.waitForTimeout(300);
    const found = await page.evaluate(() => {
      const named = (e) => e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim() || e.title;
      const controls = [...document.querySelectorAll('button, a, input, select, textarea, [role=progressbar]')];
      return { over: document.documentElement.scrollWidth - innerWidth, nameless: controls.filter((e) => !named(e)).map((e) => e.outerHTML) };
    });
    assert.deepEqual(found, { over: 0, nameless: [] }, path);
  }
  await page.setViewportSize({ width: 1280, height: 860 });
});

test('files are cached for ever or asked for again, under a strict content policy', async () => {
  const index = await page.request.get('/jobs/any/tasks');
  assert.equal(index.headers()['cache-control'], 'no-cache');
  const policy = index.headers()['content-security-policy'];
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe|https?:|\*/);
  const script = /src="(\/assets\/[^"]+\.js)"/.exec(await index.text())[1];
  const asset = await page.request.get(script);
  assert.match(asset.headers()['cache-control'], /immutable/);
  assert.match(asset.headers()['content-type'], /^text\/javascript/);
  const again = await page.request.get('/', { headers: { 'if-none-match': index.headers().etag } });
  assert.equal(again.status(), 304);
  const missing = await page.request.get('/api/v1/nothing');
  assert.equal(missing.status(), 404);
  assert.equal((await missing.json()).error.kind, 'not_found');
});

test('the session works for this page alone, and the token is nowhere to be found', async () => {
  const stolen = await page.request.post('/api/v1/batch/jobs', { headers: { origin: 'http://elsewhere.example' }, data: {} });
  assert.ok([401, 403].includes(stolen.status()), `another site got ${stolen.status()}`);
  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie, document.documentElement.outerHTML]));
  assert.ok(!kept.includes(mill.token));
  assert.deepEqual([...chrome.asked].filter((url) => url.includes(mill.token)), []);
  const before = chrome.errors.length;
  await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'window.hacked = 3';
    document.body.append(script);
  });
  assert.equal(await page.evaluate(() => window.hacked), undefined, 'a script in the page itself does not run');
  await page.waitForTimeout(100);
  const told = chrome.errors.splice(before);
  assert.ok(told.length > 0 && told.every((e) => /Content Security Policy/.test(e)), String(told));
});

test('the page went nowhere else, and only refused what it should', async () => {
  const held = await chrome.context.cookies();
  await button('Sign out').click();
  await page.getByLabel('Token').waitFor();
  const cookie = held.map((c) => `${c.name}=${c.value}`).join('; ');
  assert.equal((await fetch(`${mill.url}/api/v1/session`, { headers: { cookie } })).status, 401, 'the old cookie is worth nothing');
  assert.deepEqual(chrome.errors, []);
  assert.deepEqual(chrome.foreign, []);
  const expected = ['401 GET /api/v1/session', '401 POST /api/v1/session', '400 POST /api/v1/batch/jobs', '400 POST /api/v1/sql', '404 GET /api/v1/batch/jobs/none', '404 GET /api/v1/batch/jobs/none/events'];
  assert.deepEqual([...new Set(chrome.refused)].filter((r) => !expected.includes(r)), []);
});
