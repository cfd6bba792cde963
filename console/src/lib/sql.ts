import { call } from './api';
import type { SqlAnswer } from './types';

/** A name as SQL reads it, whatever is in it. */
export const name = (text: string) => `"${text.replaceAll('"', '""')}"`;

/** A text as SQL reads it. */
export const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** A number as SQL reads it, with all its digits. */
export const number = (n: number) => `CAST('${n}' AS DOUBLE)`;

/** The rows of a session's results. */
export const results = (session: string) => `grid.${name(session)}`;

/** Runs a statement on the server. */
export const ask = (sql: string, signal?: AbortSignal) => call<SqlAnswer>('POST', '/sql', { body: { sql }, signal });

/** Whether a column of this type holds numbers. */
export const numeric = (type: string) => /int|float|double|decimal|real|number/i.test(type);

/** The page that shows a statement, ready to be run. */
export const page = (sql: string) => `/sql?query=${encodeURIComponent(sql)}`;
