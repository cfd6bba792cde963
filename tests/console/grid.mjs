// Sessions of the grid over HTTP, as any client makes them: see docs/reference/grid-streams.md.

import assert from 'node:assert/strict';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

/** Where `risk.py` is: engines on this machine find it there. */
const HERE = fileURLToPath(new URL('.', import.meta.url));

/** Calls of one person. The body is JSON, or bytes. */
export function caller(mill, token = mill.token) {
  return async (method, path, body) => {
    const bytes = body instanceof Uint8Array;
    const response = await fetch(`${mill.url}/api/v1${path}`, {
      method,
      headers: { authorization: `Bearer ${token}`, 'content-type': bytes ? 'application/octet-stream' : 'application/json' },
      body: body === undefined || bytes ? body : JSON.stringify(body),
    });
    const text = await response.text();
    assert.ok(response.ok, `${method} ${path}: ${text}`);
    return text ? JSON.parse(text) : undefined;
  };
}

/** Tasks as they are submitted: their lengths, then their payloads one after the other. */
export function submission(values) {
  const payloads = values.map((v) => Buffer.from(JSON.stringify(v)));
  const head = Buffer.alloc(12 + 4 * payloads.length);
  head.write('TMS1');
  head.writeUInt32LE(payloads.length, 4);
  payloads.forEach((p, i) => head.writeUInt32LE(p.length, 12 + 4 * i));
  return Buffer.concat([head, ...payloads]);
}

const TASKS_AT_ONCE = 100_000;

/** Opens a session, hands it tasks and, unless told otherwise, closes it; gives its id. */
export async function open(mill, session, tasks, { close = true, token = mill.token, setup } = {}) {
  const call = caller(mill, token);
  const packed = setup === undefined ? undefined : Buffer.from(JSON.stringify(setup)).toString('base64');
  const { id } = await call('POST', '/grid/sessions', { session: { engine: 'python', input: 'json', output: 'json', ...session }, setup: packed });
  await submit(mill, id, tasks, token);
  if (close) await call('POST', `/grid/sessions/${id}/close`);
  return id;
}

export async function submit(mill, id, tasks, token = mill.token) {
  for (let at = 0; at < tasks.length; at += TASKS_AT_ONCE) {
    await caller(mill, token)('POST', `/grid/sessions/${id}/tasks`, submission(tasks.slice(at, at + TASKS_AT_ONCE)));
  }
}

/** A session whose tasks are expressions in Python. */
export const expressions = (name, more = {}) => ({ name, function: { module: 'builtins:eval' }, ...more });

/** A session of `risk.py`: a task for each trade in each scenario. */
export function risk(mill, name, data, options = {}) {
  const session = {
    name, function: { module: 'risk:value' }, setup_function: { module: 'risk:load' }, env: { PYTHONPATH: HERE },
    labels: { desk: 'equities', 'as-of': '2026-11-20' }, ...options.session,
  };
  const tasks = [];
  for (let scenario = 0; scenario < data.scenarios; scenario += 1) {
    for (let trade = 0; trade < data.trades; trade += 1) tasks.push([trade, scenario]);
  }
  return open(mill, session, tasks, { setup: { seed: 7, ...data }, ...options });
}

/** Waits until a session has come so far, and gives it. */
export async function reaches(mill, id, far, ms = 120_000) {
  const until = Date.now() + ms;
  for (;;) {
    const session = await caller(mill)('GET', `/grid/sessions/${id}`);
    if (far(session)) return session;
    assert.ok(Date.now() < until, `session ${id} stays as it is: ${JSON.stringify(session)}`);
    await sleep(100);
  }
}

export const over = (session) => ['succeeded', 'failed', 'cancelled'].includes(session.state);

/** Rows of a statement. */
export const sql = async (mill, text) => (await caller(mill)('POST', '/sql', { sql: text })).rows;
