import type { ErrorBody } from './types';

/** The base path of the interface. */
export const BASE = '/api/v1';

/** What the server, or the way to it, refused. */
export class ApiError extends Error {
  constructor(
    readonly kind: string,
    message: string,
    readonly status = 0,
    readonly hint?: string,
    readonly requestId?: string,
  ) {
    super(message);
  }

  static of(e: unknown): ApiError {
    if (e instanceof ApiError) return e;
    return new ApiError('internal', e instanceof Error ? e.message : String(e));
  }
}

/** Told when the server does not know us any more. */
let signedOut: () => void = () => {};
export function onSignedOut(then: () => void): void {
  signedOut = then;
}

export interface Options {
  body?: unknown;
  /** Sent as it is, with this content type. */
  text?: { type: string; body: string };
  accept?: string;
  signal?: AbortSignal;
}

/** Calls the interface and gives the response, or throws an `ApiError`. */
export async function request(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers: Record<string, string> = { accept: options.accept ?? 'application/json' };
  let body: string | undefined;
  if (options.text) {
    headers['content-type'] = options.text.type;
    body = options.text.body;
  } else if (options.body !== undefined) {
    headers['content-type'] = 'application/json';
    body = JSON.stringify(options.body);
  }
  let response: Response;
  try {
    response = await fetch(BASE + path, { method, headers, body, signal: options.signal, credentials: 'same-origin' });
  } catch (e) {
    if (e instanceof DOMException && e.name === 'AbortError') throw e;
    throw unreachable();
  }
  if (!response.ok) throw failure(response.status, await response.text().catch(() => ''));
  return response;
}

/** Calls the interface and reads JSON. */
export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const response = await request(method, path, options);
  const text = await response.text();
  return (text ? JSON.parse(text) : undefined) as T;
}

export const get = <T>(path: string, signal?: AbortSignal) => call<T>('GET', path, { signal });

/** A query string of what is not empty. */
export function query(values: Record<string, string | number | null | undefined>): string {
  const params = new URLSearchParams();
  for (const [key, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== '') params.set(key, String(value));
  }
  const text = params.toString();
  return text ? `?${text}` : '';
}

/** A body to upload; `progress` is told the bytes sent so far. */
export function upload(path: string, file: Blob, progress: (sent: number) => void, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const sending = new XMLHttpRequest();
    sending.open('PUT', `${BASE}/objects/${path.split('/').map(encodeURIComponent).join('/')}`);
    sending.upload.onprogress = (e) => progress(e.loaded);
    sending.onload = () => (sending.status < 300 ? resolve() : reject(failure(sending.status, sending.responseText)));
    sending.onerror = () => reject(unreachable());
    sending.onabort = () => reject(new DOMException('stopped', 'AbortError'));
    signal.addEventListener('abort', () => sending.abort());
    sending.send(file);
  });
}

function unreachable(): ApiError {
  return new ApiError('unavailable', 'the server cannot be reached', 0, 'check that `tidemill serve` is running; this page tries again by itself');
}

function failure(status: number, text: string): ApiError {
  let body: ErrorBody = { kind: 'internal', message: `the server answered with status ${status}` };
  try {
    body = (JSON.parse(text) as { error?: ErrorBody }).error ?? body;
  } catch {
    // Something in between answered; its status says what there is to say.
  }
  if (status === 401) signedOut();
  return new ApiError(body.kind, body.message, status, body.hint, body.request_id);
}
