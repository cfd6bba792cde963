import { untrack } from 'svelte';
import { ApiError } from './api';

/** The time, once a second, for everything relative to it. */
class Clock {
  now = $state(Date.now());
  constructor() {
    setInterval(() => (this.now = Date.now()), 1000);
  }
}
export const clock = new Clock();

/** Something read from the server, and again from time to time. */
export class Live<T> {
  data = $state.raw<T | undefined>(undefined);
  error = $state.raw<ApiError | null>(null);
  again: () => void = () => {};
}

/**
 * Reads with `load` now, again when what `load` depends on changes, and then every `period` milliseconds (0: never) while the
 * page is looked at. The last good data stays while a later read fails.
 */
export function live<T>(load: (signal: AbortSignal) => Promise<T>, period: (data: T | undefined) => number): Live<T> {
  const it = new Live<T>();
  $effect(() => {
    const stop = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const take = async (reading: Promise<T>) => {
      try {
        const data = await reading;
        if (stop.signal.aborted) return;
        it.data = data;
        it.error = null;
      } catch (e) {
        if (stop.signal.aborted) return;
        it.error = ApiError.of(e);
      }
      const wait = untrack(() => period(it.data));
      if (wait > 0) timer = setTimeout(turn, wait);
    };
    const turn = () => {
      clearTimeout(timer);
      if (document.hidden) timer = setTimeout(turn, 1000);
      else void take(untrack(() => load(stop.signal)));
    };
    it.again = turn;
    void take(load(stop.signal));
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  });
  return it;
}
