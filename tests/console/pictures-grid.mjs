// Pictures of the grid's pages, with a risk run as a desk has it over night: SHOTS=folder node pictures-grid.mjs. PICTURES=folder writes those few that
// the documentation shows. It takes about two minutes.

import assert from 'node:assert/strict';
import * as browser from './browser.mjs';
import { WIDE, camera, folder } from './camera.mjs';
import * as grid from './grid.mjs';
import * as server from './server.mjs';
import { user } from './demo.mjs';

const BINARY = process.env.TIDEMILL_BIN;
const SHOTS = folder('SHOTS');
const PICTURES = folder('PICTURES');
/** The run is looked at when so many of its tasks are done. */
const SEEN = Number(process.env.SEEN ?? 0.62);
/** A page says how fast it goes from what it has seen. */
const PACE_MS = 4000;
const TRADES = 60;
const SCENARIOS = Number(process.env.SCENARIOS ?? 1000);

assert.ok(BINARY, 'TIDEMILL_BIN names the program');
assert.ok(SHOTS || PICTURES, 'SHOTS or PICTURES names a folder');

const mill = await server.start(BINARY, ['--workers', '1..2', '--slots', '2']);
const chrome = await browser.open(mill.url, { viewport: WIDE });
const page = chrome.page;
const { look, keep, all } = camera(page);

/** What has been there before the run. */
async function past(token) {
  const done = await grid.risk(mill, 'what-if-rates-up', { trades: 20, scenarios: 100, milliseconds: 1 }, { token });
  const curves = await grid.open(mill, grid.expressions('bootstrap-curves', { labels: { desk: 'rates' } }), Array.from({ length: 240 }, (_, n) => `{"tenor": ${n}, "rate": 0.02 + ${n} / 20000}`));
  const fitted = await grid.risk(mill, 'calibration', { trades: 30, scenarios: 12, milliseconds: 1, without_volatility: [4, 9, 21] }, { token });
  const waiting = await grid.open(mill, grid.expressions('intraday-pricer', { priority: 10, labels: { desk: 'fx' } }), ['{"npv": 1.25}', '{"npv": 1.5}'], { close: false, token });
  for (const id of [done, curves, fitted]) await grid.reaches(mill, id, grid.over);
  await grid.caller(mill)('POST', `/grid/sessions/${curves}/archive`, { delete: false });
  return { done, curves, fitted, waiting };
}

try {
  await page.goto('/grid');
  await page.getByLabel('Token').fill(mill.token);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Grid' }).waitFor();
  if (SHOTS) await all(SHOTS, 'grid-empty', '/grid');
  const token = await user(mill, 'risk', 'user');
  const before = await past(token);
  const data = { trades: TRADES, scenarios: SCENARIOS, milliseconds: 1.5, without_volatility: [17] };
  const run = await grid.risk(mill, 'overnight-var', data, { token, close: false, session: { priority: 5 } });
  await page.goto(`/grid/${run}`);
  await grid.reaches(mill, run, (s) => s.tasks.succeeded >= SEEN * TRADES * SCENARIOS, 600_000);
  if (PICTURES) {
    await page.waitForTimeout(PACE_MS);
    await look(`/grid/${run}`);
    await keep(PICTURES, 'session');
  }
  if (SHOTS) {
    const pages = { grid: '/grid', overview: '/', session: `/grid/${run}`, engines: `/grid/${run}/engines`, tasks: `/grid/${run}/tasks`, explain: `/grid/${run}/explain` };
    for (const [name, path] of Object.entries(pages)) await all(SHOTS, `grid-${name}`, path);
  }
  await grid.caller(mill)('POST', `/grid/sessions/${run}/close`);
  await grid.reaches(mill, run, grid.over, 600_000);
  const histogram = `/grid/${run}/results?by=scenario`;
  const drawn = () => page.getByRole('img', { name: /values from/ }).waitFor();
  if (PICTURES) {
    await page.goto(histogram);
    await drawn();
    await look(`/grid/${run}/results`, 'dark');
    const shown = await page.getByRole('region', { name: 'Distribution' }).boundingBox();
    await keep(PICTURES, 'histogram', WIDE.width, Math.ceil(shown.y + shown.height) + 14);
  }
  if (SHOTS) {
    const open = async () => {
      await page.getByRole('region', { name: 'Failures by message' }).locator('summary').first().click();
      await page.getByLabel(/^Traceback/).waitFor();
    };
    await all(SHOTS, 'grid-histogram', histogram, drawn);
    await all(SHOTS, 'grid-histogram-rows', `/grid/${run}/results?range=middle`, drawn);
    await all(SHOTS, 'grid-failures', `/grid/${before.fitted}/failures`, open);
    await all(SHOTS, 'grid-done', `/grid/${before.done}`);
    await all(SHOTS, 'grid-task', `/grid/${before.fitted}/tasks?task=34`);
    await all(SHOTS, 'grid-archives', '/grid/archives');
    await all(SHOTS, 'grid-missing', '/grid/j0none');
  }
  assert.deepEqual(chrome.errors, []);
} finally {
  await chrome.close();
  await mill.stop();
}
