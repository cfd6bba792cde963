import { ApiError } from './api';

/** A short word on what was done. Failures stay until they are closed. */
export interface Note {
  id: number;
  text: string;
  error: ApiError | null;
}

class Notes {
  list = $state<Note[]>([]);
  private last = 0;

  say(text: string): void {
    const id = this.add(text, null);
    setTimeout(() => this.close(id), 5000);
  }

  fail(text: string, e: unknown): void {
    this.add(text, ApiError.of(e));
  }

  close(id: number): void {
    this.list = this.list.filter((n) => n.id !== id);
  }

  private add(text: string, error: ApiError | null): number {
    this.last += 1;
    this.list = [...this.list.slice(-3), { id: this.last, text, error }];
    return this.last;
  }
}

export const notes = new Notes();

/** Does something and says how it went. Gives whether it went well. */
export async function attempt(what: string, done: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    notes.say(done);
    return true;
  } catch (e) {
    notes.fail(`${what} did not work`, e);
    return false;
  }
}
