// A private server for a test: its own folder, its own port, gone afterwards.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const START_MS = 60_000;
const STOP_MS = 30_000;

/** Starts `tidemill serve` and waits until it is ready. */
export async function start(binary, options = ['--workers', '1..2', '--slots', '2']) {
  const data = mkdtempSync(join(tmpdir(), 'tidemill-console-'));
  let running = run(binary, data, '127.0.0.1:0', options);
  const url = await running.ready();
  return {
    url,
    token: readFileSync(join(data, 'admin-token'), 'utf8').trim(),
    /** Ends the server and keeps what it knew. */
    down: () => running.end(),
    /** Starts it again where it was. */
    async up() {
      running = run(binary, data, new URL(url).host, options);
      await running.ready();
    },
    async stop() {
      await running.end();
      rmSync(data, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

/** One process of the server. */
function run(binary, data, listen, options) {
  const child = spawn(binary, ['serve', '--data', data, '--listen', listen, ...options], { stdio: ['ignore', 'pipe', 'pipe'] });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (log = (log + text).slice(-20_000)));
  const gone = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));

  async function end() {
    child.kill('SIGTERM');
    const late = sleep(STOP_MS, 'late', { ref: false });
    if ((await Promise.race([gone, late])) === 'late') child.kill('SIGKILL');
    await gone;
  }

  /** Its address, once it answers. */
  async function ready() {
    const until = Date.now() + START_MS;
    const file = join(data, 'server.json');
    while (child.exitCode === null && Date.now() < until) {
      const told = existsSync(file) ? JSON.parse(readFileSync(file, 'utf8')) : undefined;
      // A predecessor's file is there until this process writes its own.
      if (told?.pid === child.pid && (await fetch(`${told.url}/readyz`).catch(() => undefined))?.ok) return told.url;
      await sleep(100);
    }
    await end();
    throw new Error(`the server did not get ready; it said:\n${log}`);
  }
  return { end, ready };
}
