import { ApiError, BASE, get } from './api';
import { Pace, ended } from './counts';
import type { JobDetail } from './types';

/** A job as it goes, told by the server's events. */
export class Follow {
  job = $state.raw<JobDetail | undefined>(undefined);
  error = $state.raw<ApiError | null>(null);
  curve = $state.raw<{ times: number[]; rates: number[] }>({ times: [], rates: [] });
  rate = $state<number | null>(null);
  stageRates = $state.raw<(number | null)[]>([]);

  private pace = new Pace();
  private source: EventSource | undefined;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private beat: ReturnType<typeof setInterval> | undefined;
  private closed = false;

  constructor(private id: string) {}

  /** Starts to follow, or starts anew: after its end a job can be retried. */
  start = (): void => {
    this.source?.close();
    clearTimeout(this.timer);
    clearInterval(this.beat);
    const source = new EventSource(`${BASE}/batch/jobs/${encodeURIComponent(this.id)}/events`);
    this.source = source;
    source.onmessage = (e: MessageEvent<string>) => {
      this.error = null;
      this.take(JSON.parse(e.data) as JobDetail);
    };
    // An event source does not say why it failed, and its own attempts would go on for ever after a job's end.
    source.onerror = () => {
      source.close();
      if (!this.closed && !(this.job && ended(this.job.state))) void this.ask();
    };
    // Events come with changes. That nothing changes is news as well: the rate falls.
    this.beat = setInterval(() => {
      if (this.job && !ended(this.job.state)) this.measure(this.job);
    }, 1000);
  };

  stop = (): void => {
    this.closed = true;
    this.source?.close();
    clearTimeout(this.timer);
    clearInterval(this.beat);
  };

  private async ask(): Promise<void> {
    try {
      this.take(await get<JobDetail>(`/batch/jobs/${encodeURIComponent(this.id)}`));
      this.error = null;
    } catch (e) {
      this.error = ApiError.of(e);
      if (this.error.kind === 'not_found' || this.error.status === 401) return;
    }
    if (!this.closed && !(this.job && ended(this.job.state))) this.timer = setTimeout(this.start, 2000);
  }

  private take(job: JobDetail): void {
    this.job = job;
    this.measure(job);
    if (ended(job.state)) {
      this.source?.close();
      clearInterval(this.beat);
    }
  }

  private measure(job: JobDetail): void {
    this.pace.add(job, Date.now());
    this.curve = this.pace.curve();
    this.rate = this.pace.rate();
    this.stageRates = job.stages.map((_, i) => this.pace.rate(i));
  }
}
