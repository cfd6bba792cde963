// A private server for a test: its own folder, its own port, gone afterwards.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const START_MS = 60_000;
const STOP_MS = 30_000;

/** Starts `tidemill serve` and waits until it is ready. */
export async function start(binary) {
  const data = mkdtempSync(join(tmpdir(), 'tidemill-console-'));
  const child = spawn(binary, ['serve', '--data', data, '--listen', '127.0.0.1:0', '--workers', '1..2', '--slots', '2'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let log = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text) => (log = (log + text).slice(-20_000)));
  const gone = new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)));

  async function stop() {
    child.kill('SIGTERM');
    const late = sleep(STOP_MS, 'late', { ref: false });
    if ((await Promise.race([gone, late])) === 'late') child.kill('SIGKILL');
    rmSync(data, { recursive: true, force: true, maxRetries: 5 });
  }

  const until = Date.now() + START_MS;
  for (;;) {
    if (child.exitCode !== null || Date.now() > until) {
      await stop();
      throw new Error(`the server did not get ready; it said:\n${log}`);
    }
    const file = join(data, 'server.json');
    if (existsSync(file)) {
      const { url } = JSON.parse(readFileSync(file, 'utf8'));
      const ready = await fetch(`${url}/readyz`).catch(() => undefined);
      if (ready?.ok) return { url, token: readFileSync(join(data, 'admin-token'), 'utf8').trim(), stop, log: () => log };
    }
    await sleep(100);
  }
}
