/* How the numbers in a column are distributed, asked in SQL: a few dozen numbers come back, however many rows there are. */

import { ask, name, number, results } from './sql';

/** What is looked at. */
export interface Question {
  session: string;
  column: string;
  /** Sums of the column over the rows that have the same of this; empty: each row by itself. */
  by: string;
  /** Where the losses are: at the small numbers, as in profits and losses, or at the large ones. */
  losses: 'low' | 'high';
  /** The share of outcomes that a measure of risk leaves aside, such as 0.99. */
  level: number;
  /** Draw all of it, or leave out a thousandth at each end. */
  range: 'all' | 'middle';
}

/** Quantiles that are shown. */
export const SHARES = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];
/** A histogram has about so many bars. */
const BARS = 80;
/** What is left out at each end of the middle. */
const EDGE = 0.001;

export interface Summary {
  /** Values that are numbers, those that are none (NaN), and those that are missing. */
  values: number;
  nans: number;
  missing: number;
  least: number;
  most: number;
  mean: number | null;
  deviation: number | null;
  quantiles: (number | null)[];
  /** Value at risk and expected shortfall, as losses: positive when something is lost. */
  risk: number | null;
  shortfall: number | null;
  /** The edges of the middle. */
  low: number;
  high: number;
}

export interface Distribution {
  summary: Summary;
  /** Where the first bar begins, how wide a bar is, and how many values each holds. */
  from: number;
  width: number;
  counts: number[];
  /** Values outside of what is drawn. */
  below: number;
  above: number;
}

/** The statement that gives one column `v`. */
export function values(q: Question): string {
  const column = `CAST(${name(q.column)} AS DOUBLE)`;
  if (!q.by) return `SELECT ${column} AS v FROM ${results(q.session)}`;
  return `SELECT sum(${column}) AS v FROM ${results(q.session)} GROUP BY ${name(q.by)}`;
}

/** Neither missing, nor not-a-number, nor infinite. */
const FINITE = 'abs(v) <= 1.7976931348623157e308';

/** Profit or loss, so that losses are at the small numbers. */
const profit = (q: Question) => (q.losses === 'low' ? 'v' : '-v');

export function summarySql(q: Question): string {
  const shares = SHARES.map((p, i) => `  quantile_exact(v, ${p}) AS q${i},`);
  // 1 - 0.99 is not 0.01 in binary; the digits are what is meant.
  const rest = Number((1 - q.level).toFixed(10));
  return [
    `WITH x AS (${values(q)})`,
    'SELECT count(*) AS n, count(v) AS present, sum(CASE WHEN isnan(v) THEN 1 ELSE 0 END) AS nans,',
    `  min(CASE WHEN ${FINITE} THEN v END) AS least, max(CASE WHEN ${FINITE} THEN v END) AS most,`,
    '  avg(v) AS mean, stddev(v) AS deviation,',
    ...shares,
    `  quantile_exact(v, ${EDGE}) AS low, quantile_exact(v, ${1 - EDGE}) AS high,`,
    `  -quantile_exact(${profit(q)}, ${rest}) AS risk, expected_shortfall(${profit(q)}, ${q.level}) AS shortfall`,
    'FROM x',
  ].join('\n');
}

export function barsSql(q: Question, from: number, width: number, bars: number): string {
  const bar = `CAST(floor((v - ${number(from)}) / ${number(width)}) AS BIGINT)`;
  // The largest value of all belongs into the last bar, and rounding must not make bars of its own.
  const fit = `CASE WHEN ${bar} < 0 THEN -1 WHEN v > ${number(from + width * bars)} THEN ${bars} WHEN ${bar} >= ${bars} THEN ${bars - 1} ELSE ${bar} END`;
  return [`WITH x AS (${values(q)})`, `SELECT ${fit} AS bar, count(*) AS n`, `FROM x WHERE ${FINITE}`, 'GROUP BY 1 ORDER BY 1'].join('\n');
}

/** Bars that begin and end at round numbers and cover what lies between two. */
export function bars(least: number, most: number): { from: number; width: number; count: number } {
  if (!(most > least)) {
    const width = Math.abs(least) > 0 ? Math.abs(least) / 10 : 1;
    return { from: least - width / 2, width, count: 1 };
  }
  const wanted = (most - least) / BARS;
  const base = 10 ** Math.floor(Math.log10(wanted));
  const width = ([1, 2, 2.5, 5].find((f) => f * base >= wanted) ?? 10) * base;
  const from = Math.floor(least / width) * width;
  return { from, width, count: Math.max(1, Math.ceil((most - from) / width - 1e-9)) };
}

const real = (v: unknown): number | null => (typeof v === 'number' && Number.isFinite(v) ? v : null);

/** Asks for the distribution; `null` when there is no number in the column. */
export async function distribution(q: Question, signal: AbortSignal): Promise<Distribution | null> {
  const row = (await ask(summarySql(q), signal)).rows[0] ?? {};
  const [least, most] = [real(row.least), real(row.most)];
  if (least === null || most === null) return null;
  const nans = real(row.nans) ?? 0;
  const present = real(row.present) ?? 0;
  const summary: Summary = {
    values: present - nans, nans, missing: (real(row.n) ?? 0) - present, least, most,
    mean: real(row.mean), deviation: real(row.deviation), quantiles: SHARES.map((_, i) => real(row[`q${i}`])),
    risk: real(row.risk), shortfall: real(row.shortfall), low: real(row.low) ?? least, high: real(row.high) ?? most,
  };
  const drawn = q.range === 'middle' ? bars(summary.low, summary.high) : bars(least, most);
  const found = await ask(barsSql(q, drawn.from, drawn.width, drawn.count), signal);
  const counts: number[] = Array.from({ length: drawn.count }, () => 0);
  let [below, above] = [0, 0];
  for (const { bar, n } of found.rows as { bar: number; n: number }[]) {
    if (bar < 0) below = n;
    else if (bar >= drawn.count) above = n;
    else counts[bar] = n;
  }
  return { summary, from: drawn.from, width: drawn.width, counts, below, above };
}

/** The measures of risk in a statement of their own, for whoever wants to go on from there. */
export function riskSql(q: Question): string {
  const rest = Number((1 - q.level).toFixed(10));
  return [
    `WITH x AS (${values(q)})`,
    `SELECT count(v) AS "values", avg(v) AS mean, -quantile_exact(${profit(q)}, ${rest}) AS value_at_risk,`,
    `  expected_shortfall(${profit(q)}, ${q.level}) AS expected_shortfall`,
    'FROM x',
  ].join('\n');
}
