/* The wire types of `crates/api`. Times are RFC 3339 text, spans microseconds (`_us`), sizes bytes. */

export interface Principal {
  user: string;
  role: 'worker' | 'viewer' | 'user' | 'operator' | 'admin';
  scopes: string[];
}

export interface ErrorBody {
  kind: string;
  message: string;
  hint?: string;
  request_id?: string;
}

export interface TaskCounts {
  total: number;
  succeeded: number;
  failed: number;
  running: number;
  waiting: number;
  retrying: number;
  cancelled: number;
  skipped: number;
}

export interface JobSummary {
  id: string;
  name: string;
  user: string;
  class: string;
  priority: number;
  state: string;
  reason: string;
  tasks: TaskCounts;
  submitted_at: string;
  started_at: string | null;
  finished_at: string | null;
}

export interface JobList {
  jobs: JobSummary[];
  next: string | null;
}

export interface StageTimes {
  wait_us: number;
  stage_in_us: number;
  run_us: number;
  stage_out_us: number;
  wasted_us: number;
  cpu_us: number;
}

export interface StageDetail {
  stage: number;
  name: string;
  state: string;
  from: string | null;
  tasks: TaskCounts;
  attempts: number;
  failed_attempts: number;
  times: StageTimes;
  peak_memory: number;
  bytes_in: number;
  bytes_out: number;
  mean_us: number;
  started_at: string | null;
  finished_at: string | null;
}

export interface JobDetail extends JobSummary {
  attempts: number;
  after: string[];
  labels: Record<string, string>;
  cron: string | null;
  cron_parent: string | null;
  stages: StageDetail[];
  cost: number;
  spec: unknown;
}

export interface TaskRow {
  stage: number;
  task: number;
  attempt: number;
  state: string;
  class: string | null;
  exit: number | null;
  message: string | null;
  worker: string;
  started_at: string | null;
  wait_us: number;
  stage_in_us: number;
  run_us: number;
  stage_out_us: number;
  cpu_us: number;
  peak_memory: number;
}

export interface TaskList {
  tasks: TaskRow[];
  next: string | null;
}

export interface ResultFile {
  stage: number;
  task: number;
  name: string;
  bytes: number;
  href: string;
}

export interface FileList {
  files: ResultFile[];
  next: string | null;
}

export interface Explanation {
  subject: string;
  state: string;
  because: string[];
  next: string[];
}

export interface Percentiles {
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

export interface JobReport {
  job: JobSummary;
  stages: {
    name: string;
    tasks: TaskCounts;
    attempts: number;
    wait_us: Percentiles;
    run_us: Percentiles;
    peak_memory: Percentiles;
    cpu_efficiency: number;
    rate: number;
  }[];
  slowest: { stage: string; task: number; attempt: number; run_us: number; worker: string }[];
  waste: { cause: string; attempts: number; slot_us: number }[];
  cost: { price_per_slot_hour: number; slot_hours: number; total: number; wasted: number };
}

export interface Worker {
  id: string;
  class: string;
  host: string;
  version: string;
  state: string;
  slots: number;
  memory: number;
  named: Record<string, number>;
  started_at: string;
  heard_at: string;
  /** Slots in use; not all of what runs is named. */
  busy: number;
  running: { job: string; stage: number; task: number; attempt: number; started_at: string; memory: number }[];
  tasks_done: number;
  busy_us: number;
  cpu_us: number;
  tools: string[];
}

export interface Group {
  name: string;
  min: number;
  max: number;
  desired: number;
  members: number;
  reason: string;
  history: { at: string; members: number; desired: number; backlog: number }[];
}

export interface Queue {
  name: string;
  ready: number;
  delayed: number;
  in_flight: number;
  oldest_us: number | null;
  max_receives: number | null;
  dead_letter: string | null;
}

export interface DeadLetter {
  id: string;
  body: unknown;
  receives: number;
  sent_at: string;
  died_in: string | null;
}

export interface SqlAnswer {
  columns: { name: string; type: string }[];
  rows: Record<string, unknown>[];
}

export interface Overview {
  version: string;
  started_at: string;
  jobs: Record<string, number>;
  tasks_waiting: number;
  tasks_running: number;
  workers: number;
  slots: number;
  slots_busy: number;
  dead: number;
  recent: JobSummary[];
}

export interface SessionDetail {
  id: string;
  name: string;
  user: string;
  engine: string;
  function: string;
  class: string;
  priority: number;
  state: string;
  reason: string;
  open: boolean;
  tasks: TaskCounts;
  /** Tasks in the bundle that was released last and is still out. */
  bundle: number;
  /** Engines that hold its state now. */
  engines: number;
  attempts: number;
  deliveries: number;
  run_seconds: number;
  mean_seconds: number;
  cost: number;
  labels: Record<string, string>;
  opened_at: string;
  started_at: string | null;
  finished_at: string | null;
}

export interface SessionList {
  sessions: SessionDetail[];
  next: string | null;
}

export interface SessionProgress {
  from: string;
  step_us: number;
  before: number;
  succeeded: number[];
  failed: number[];
}

export interface FailureGroup {
  class: string;
  message: string;
  tasks: number;
  examples: number[];
  worker: string;
  last_at: string;
}

export interface SessionFailures {
  tasks: number;
  more: boolean;
  groups: FailureGroup[];
}

export interface TaskFailure {
  task: number;
  kind: string;
  message: string;
  traceback: string;
  attempt: number;
  run_us: number;
  made_by: string;
}

export interface SessionEngine {
  worker: string;
  host: string;
  id: string;
  pid: number;
  state: 'starting' | 'cold' | 'warm';
  versions: string;
  memory: number;
  /** The task of the session that it runs. */
  running: number | null;
  in_hand: number;
  finished: number;
  replaced: number;
  last_loss: string | null;
  heard_at: string;
}

export interface ArchiveDetail {
  session: string;
  state: string;
  tasks: number;
  records: number;
  parts: number;
  bytes: number;
  archived_at: string;
  due_at: string | null;
  readable_until: string | null;
  facts: Partial<SessionDetail>;
}
