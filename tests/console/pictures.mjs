// Takes pictures of every page with data as a real installation has it: SHOTS=folder node pictures.mjs. PICTURES=folder writes those
// few that the README shows. It takes about four minutes, since the chart of the workers needs something to show.

import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import * as browser from './browser.mjs';
import { WIDE, camera, folder } from './camera.mjs';
import * as demo from './demo.mjs';
import * as server from './server.mjs';

const BINARY = process.env.TIDEMILL_BIN;
const SHOTS = folder('SHOTS');
const PICTURES = folder('PICTURES');
/** The first wave of jobs comes and goes in this time, so that the fleet has grown and shrunk before the second. */
const PAST_MS = Number(process.env.PAST_SECONDS ?? 100) * 1000;
/** Into the second wave its jobs are watched from the middle. */
const PRESENT_MS = Number(process.env.PRESENT_SECONDS ?? 60) * 1000;

assert.ok(BINARY, 'TIDEMILL_BIN names the program');
assert.ok(SHOTS || PICTURES, 'SHOTS or PICTURES names a folder');

const mill = await server.start(BINARY, demo.SERVER);
const chrome = await browser.open(mill.url, { viewport: WIDE });
const page = chrome.page;

const { look, keep, all } = camera(page);

try {
  await page.goto('/');
  await page.getByLabel('Token').waitFor();
  if (SHOTS) await keep(SHOTS, 'sign-in');
  await page.getByLabel('Token').fill(mill.token);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  if (SHOTS) {
    await look('/');
    await keep(SHOTS, 'empty-overview');
    await look('/queues');
    await keep(SHOTS, 'empty-queues');
  }
  const past = await demo.past(mill);
  await sleep(PAST_MS);
  const jobs = { ...past, ...(await demo.present(mill, past.tokens)) };
  // The pace of a job is drawn from when its page was opened.
  await page.goto(`/jobs/${jobs.etl}`);
  await sleep(PRESENT_MS);

  if (PICTURES) {
    await look(`/jobs/${jobs.etl}`);
    await keep(PICTURES, 'job');
    await look('/workers');
    await keep(PICTURES, 'workers');
    await look('/', 'dark');
    await keep(PICTURES, 'overview');
  }
  if (SHOTS) {
    const failed = `/jobs/${jobs.ingest}`;
    const first = await fetch(`${mill.url}/api/v1/batch/jobs/${jobs.render}/tasks?state=running`, { headers: { authorization: `Bearer ${mill.token}` } });
    const task = (await first.json()).tasks[0]?.task ?? 0;
    const pages = {
      overview: '/', jobs: '/jobs', job: `/jobs/${jobs.etl}`, 'job-failed': failed, 'job-done': `/jobs/${jobs.thumbs}`, tasks: `/jobs/${jobs.render}/tasks`,
      'tasks-failed': `${failed}/tasks?state=failed`, log: `/jobs/${jobs.render}/logs/0/${task}`, results: `/jobs/${jobs.thumbs}/results`,
      report: `/jobs/${jobs.render}/report`, explain: `/jobs/${jobs.sweep}/explain`, definition: `/jobs/${jobs.etl}/definition`,
      submit: '/submit', 'submit-file': '/submit?as=file', workers: '/workers', queues: '/queues', sql: '/sql', missing: '/jobs/none',
    };
    const run = () => page.getByRole('button', { name: 'Run', exact: true }).click();
    for (const [name, path] of Object.entries(pages)) await all(SHOTS, name, path, name === 'sql' ? run : undefined);
  }
  assert.deepEqual(chrome.errors, []);
} finally {
  await chrome.close();
  await mill.stop();
}
