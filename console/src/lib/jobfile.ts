/* Writes the job file of the quick form, so that what is sent can be seen, kept and changed. */

export interface Quick {
  name: string;
  command: string;
  input: 'array' | 'files' | 'objects' | 'lines';
  first: number;
  last: number;
  /** Objects or patterns, one to a line. */
  objects: string;
  /** Where the chosen files were uploaded to. */
  prefix: string;
  perTask: number;
  retries: number;
  timeout: string;
  cpus: number;
  memory: string;
  priority: number;
}

/** A string of TOML. Its escapes are those of JSON, but for the delete character. */
export function quoted(text: string): string {
  return JSON.stringify(text).replaceAll('\u007f', '\\u007f');
}

/** The job's name when none is given: its program. */
export function defaultName(command: string): string {
  const program = command.trim().split(/\s+/)[0]?.split('/').pop() ?? '';
  return program.replace(/[^\p{L}\p{N}._-]/gu, '').slice(0, 60) || 'job';
}

function input(q: Quick): string[] {
  const perTask = q.perTask > 1 ? [`per-task = ${q.perTask}`] : [];
  const names = q.objects.split('\n').map((l) => l.trim()).filter(Boolean);
  switch (q.input) {
    case 'array':
      return [`array = ${quoted(`${q.first}-${q.last}`)}`];
    case 'files':
      return [`objects = [${quoted(`${q.prefix || 'uploads/…'}/*`)}]`, ...perTask];
    case 'objects':
      return [`objects = [${names.map(quoted).join(', ')}]`, ...perTask];
    case 'lines':
      return [`lines = ${quoted(names[0] ?? '')}`, ...perTask];
  }
}

/** The job file. */
export function jobFile(q: Quick): string {
  const lines = [`name = ${quoted(q.name.trim() || defaultName(q.command))}`];
  if (q.priority !== 0) lines.push(`priority = ${q.priority}`);
  lines.push('', '[[stage]]', 'name = "run"', ...input(q), 'shell = true', `command = ${quoted(q.command)}`);
  if (q.retries !== 2) lines.push(`retries = ${q.retries}`);
  if (q.timeout.trim()) lines.push(`timeout = ${quoted(q.timeout.trim())}`);
  if (q.cpus !== 1) lines.push(`cpus = ${q.cpus}`);
  if (q.memory.trim()) lines.push(`memory = ${quoted(q.memory.trim())}`);
  return `${lines.join('\n')}\n`;
}

/** The line that an error speaks of: `line 3, column 5: ...`. */
export function errorLine(message: string): number | null {
  const found = /\bline (\d+), column \d+/.exec(message);
  return found ? Number(found[1]) : null;
}

/** A token that makes sending the same thing twice harmless. */
export function clientToken(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, '0')).join('');
}
