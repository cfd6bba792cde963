import type { JobDetail, TaskCounts } from './types';

/** The order in which counts are shown. */
export const COUNT_ORDER = ['succeeded', 'failed', 'retrying', 'running', 'cancelled', 'skipped', 'waiting'] as const;

/** Tasks that will not run any more. */
export function settled(t: TaskCounts): number {
  return t.succeeded + t.failed + t.cancelled + t.skipped;
}

/** Whether a job has come to its end. */
export function ended(state: string): boolean {
  return state === 'succeeded' || state === 'failed' || state === 'cancelled';
}

/** Whether a job's tasks are calls in engines, which have a page of their own. */
export function isSession(job: Pick<JobDetail, 'spec'>): boolean {
  const spec = job.spec as { stages?: { run?: unknown }[] } | null;
  const run = spec?.stages?.[0]?.run;
  return typeof run === 'object' && run !== null && 'engine' in run;
}

/** A moment and how many tasks had settled by then, all of them and by stage. */
export interface Sample {
  at: number;
  settled: number;
  stages: number[];
}

/** Looks back over this many milliseconds for the rate. */
const WINDOW = 20_000;

/** Remembers what was settled when, and tells how fast it goes. */
export class Pace {
  samples: Sample[] = [];

  /** Takes note of a job, or of a session, which has no stages. */
  add(job: { tasks: TaskCounts; stages?: { tasks: TaskCounts }[] }, at: number): void {
    this.samples.push({ at, settled: settled(job.tasks), stages: (job.stages ?? []).map((s) => settled(s.tasks)) });
    // One sample a second is enough for what lies back further than the window.
    if (this.samples.length > 1200) this.samples = this.samples.filter((_, i) => i % 2 === 0 || i > 600);
  }

  /** Tasks settled per second at each sample after the first, over the two seconds before it. */
  curve(): { times: number[]; rates: number[] } {
    const times: number[] = [];
    const rates: number[] = [];
    let from = 0;
    this.samples.forEach((s, i) => {
      while (from + 1 < i && s.at - (this.samples[from + 1]?.at ?? s.at) >= 2000) from += 1;
      const before = this.samples[from];
      if (!before || s.at - before.at < 500) return;
      times.push(s.at);
      rates.push(Math.max(0, s.settled - before.settled) / ((s.at - before.at) / 1000));
    });
    return { times, rates };
  }

  /** Tasks settled per second lately: over all stages, or of one. `null` until that can be said. */
  rate(stage?: number): number | null {
    const last = this.samples.at(-1);
    if (!last) return null;
    const first = this.samples.find((s) => s.at >= last.at - WINDOW);
    if (!first || last.at - first.at < 1500) return null;
    const of = (s: Sample) => (stage === undefined ? s.settled : (s.stages[stage] ?? 0));
    return Math.max(0, of(last) - of(first)) / ((last.at - first.at) / 1000);
  }
}
