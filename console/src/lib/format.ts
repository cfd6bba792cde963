/* Numbers and times as people read them. */

const whole = new Intl.NumberFormat('en');
const exactTime = new Intl.DateTimeFormat('en-GB', { dateStyle: 'medium', timeStyle: 'long' });

/** `1234567` as `1,234,567`. */
export function count(n: number): string {
  return whole.format(n);
}

/** `1 task`, `2 tasks`. */
export function plural(n: number, one: string, many = `${one}s`): string {
  return `${count(n)} ${n === 1 ? one : many}`;
}

/** Large numbers short: `12.3k`, `4.5M`. */
export function short(n: number): string {
  for (const [size, unit] of [[1e9, 'G'], [1e6, 'M'], [1e4, 'k']] as const) {
    if (n >= size) return `${digits(n / (unit === 'k' ? 1e3 : size))}${unit}`;
  }
  return Number.isInteger(n) ? count(n) : digits(n);
}

/** Three significant digits at most, without trailing zeros. */
export function digits(n: number): string {
  if (n === 0 || !Number.isFinite(n)) return '0';
  const places = Math.max(0, Math.min(3, 2 - Math.floor(Math.log10(Math.abs(n)))));
  return String(Number(n.toFixed(places)));
}

const measured = new Intl.NumberFormat('en', { maximumSignificantDigits: 7 });

/** A number that somebody has worked out, to seven digits; beside others as large as `scale`, to as many places as those have. */
export function value(n: number, scale = 0): string {
  const size = Math.abs(n);
  if (size < scale * 1e-4) {
    const places = Math.min(20, Math.max(0, 6 - Math.floor(Math.log10(scale))));
    return new Intl.NumberFormat('en', { maximumFractionDigits: places }).format(n).replace(/^-0$/, '0');
  }
  return size !== 0 && (size >= 1e12 || size < 1e-4) ? n.toExponential(4) : measured.format(n);
}

/** How numbers are written on an axis that reaches to `top` with marks `step` apart: no more digits than tell them apart. */
export function axis(top: number, step: number): (n: number) => string {
  const size = Math.max(Math.abs(top), step);
  const unit = ([[1e9, 'G'], [1e6, 'M'], [1e3, 'k']] as const).find(([u]) => size >= u && step >= u / 100);
  if (unit) return (n) => (n === 0 ? '0' : `${Number((n / unit[0]).toFixed(2))}${unit[1]}`);
  if (step < 1e-6) return (n) => (n === 0 ? '0' : n.toExponential(2));
  const plain = new Intl.NumberFormat('en', { maximumFractionDigits: Math.max(0, Math.ceil(-Math.log10(step)) + 1) });
  return (n) => plain.format(n === 0 ? 0 : n);
}

/** Bytes in powers of 1024. */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let unit = 0;
  while (n >= 1024 && unit + 1 < units.length) {
    n /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? count(n) : digits(n)} ${units[unit]}`;
}

/** A span given in microseconds. */
export function duration(us: number): string {
  if (us === 0) return '0 s';
  if (us < 1000) return `${Math.round(us)} µs`;
  const ms = us / 1000;
  if (ms < 999.5) return `${digits(ms)} ms`;
  const s = ms / 1000;
  if (s < 59.95) return `${digits(s)} s`;
  return parts(Math.round(s));
}

function parts(s: number): string {
  const [d, h, m, rest] = [Math.floor(s / 86400), Math.floor(s / 3600) % 24, Math.floor(s / 60) % 60, s % 60];
  if (d > 0) return h > 0 ? `${d} d ${h} h` : `${d} d`;
  if (h > 0) return m > 0 ? `${h} h ${m} min` : `${h} h`;
  return rest > 0 ? `${m} min ${rest} s` : `${m} min`;
}

/** A share of one as percent. `99.95` is not `100 %`: only what is complete says so. */
export function percent(share: number): string {
  const p = share * 100;
  if (p > 99 && p < 100) return `${Math.min(99.9, Number(p.toFixed(1)))} %`;
  return `${p < 10 && p > 0 ? digits(Number(p.toFixed(1))) : Math.round(p)} %`;
}

/** How long ago, or in how long, from `now` in milliseconds. */
export function relative(at: string, now: number): string {
  const ms = now - Date.parse(at);
  if (Number.isNaN(ms)) return at;
  const s = Math.round(Math.abs(ms) / 1000);
  if (s < 2) return 'now';
  const text = s < 60 ? `${s} s` : s < 3600 ? `${Math.round(s / 60)} min` : s < 86400 ? `${Math.round(s / 3600)} h` : `${Math.round(s / 86400)} d`;
  return ms >= 0 ? `${text} ago` : `in ${text}`;
}

/** A moment in full, in the reader's own zone. */
export function exact(at: string): string {
  const time = new Date(at);
  return Number.isNaN(time.getTime()) ? at : exactTime.format(time);
}

/** The time of day, for axes. */
export function clock(ms: number, withSeconds: boolean): string {
  return new Date(ms).toLocaleTimeString('en-GB', withSeconds ? {} : { hour: '2-digit', minute: '2-digit' });
}

/** From start to end, or to now, in microseconds. */
export function span(from: string | null, to: string | null, now: number): number | null {
  if (!from) return null;
  return Math.max(0, (to ? Date.parse(to) : now) - Date.parse(from)) * 1000;
}

/** Money in the configured currency, which has no name here. */
export function money(n: number): string {
  return n !== 0 && Math.abs(n) < 0.01 ? n.toPrecision(2) : n.toFixed(2);
}

/** `out_of_memory` as `out of memory`. */
export function words(name: string): string {
  return name.replaceAll('_', ' ');
}
