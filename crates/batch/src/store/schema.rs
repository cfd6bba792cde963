//! The tables.

use tidemill_blocks::ledger::Migration;

/// Batch's tables, in the order of their making.
pub const MIGRATIONS: &[Migration] = &[JOBS, DELETIONS, SWEEPS, SESSIONS, TERMS, UPLOADS];

const JOBS: Migration = Migration {
    name: "batch-001-jobs",
    sql: "
CREATE TABLE batch_jobs (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, user_name TEXT NOT NULL, class TEXT NOT NULL, priority BIGINT NOT NULL,
    state TEXT NOT NULL, wanted TEXT NOT NULL, reason TEXT NOT NULL, cut BIGINT NOT NULL, spec TEXT NOT NULL, client_token TEXT, cron_parent TEXT,
    submitted_us BIGINT NOT NULL, start_after_us BIGINT NOT NULL, started_us BIGINT, finished_us BIGINT);
CREATE UNIQUE INDEX batch_jobs_token ON batch_jobs (user_name, client_token);
CREATE INDEX batch_jobs_state ON batch_jobs (state);
CREATE TABLE batch_stages (
    job TEXT NOT NULL, stage BIGINT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, total BIGINT NOT NULL,
    pending BYTEA NOT NULL, skipped_runs BYTEA NOT NULL, next_range BIGINT NOT NULL,
    succeeded BIGINT NOT NULL, failed BIGINT NOT NULL, cancelled BIGINT NOT NULL, skipped BIGINT NOT NULL, retrying BIGINT NOT NULL,
    outstanding BIGINT NOT NULL, attempts BIGINT NOT NULL, failed_attempts BIGINT NOT NULL,
    wait_us BIGINT NOT NULL, stage_in_us BIGINT NOT NULL, run_us BIGINT NOT NULL, stage_out_us BIGINT NOT NULL, wasted_us BIGINT NOT NULL,
    cpu_us BIGINT NOT NULL, peak_memory BIGINT NOT NULL, bytes_in BIGINT NOT NULL, bytes_out BIGINT NOT NULL, mean_us DOUBLE PRECISION NOT NULL,
    started_us BIGINT, finished_us BIGINT, PRIMARY KEY (job, stage));
CREATE TABLE batch_ranges (
    job TEXT NOT NULL, stage BIGINT NOT NULL, range_id BIGINT NOT NULL, start_task BIGINT NOT NULL, len BIGINT NOT NULL,
    attempt BIGINT NOT NULL, released_us BIGINT NOT NULL, folded_seq BIGINT NOT NULL, settled BYTEA NOT NULL, finished BIGINT NOT NULL,
    flushed_seq BIGINT NOT NULL,
    PRIMARY KEY (job, stage, range_id));
CREATE TABLE batch_exceptions (
    job TEXT NOT NULL, stage BIGINT NOT NULL, task BIGINT NOT NULL, attempts BIGINT NOT NULL, class TEXT NOT NULL,
    exit_code BIGINT, signal BIGINT, message TEXT NOT NULL, worker TEXT NOT NULL, state TEXT NOT NULL, due_us BIGINT, at_us BIGINT NOT NULL,
    PRIMARY KEY (job, stage, task));
CREATE TABLE batch_segments (
    job TEXT NOT NULL, path TEXT NOT NULL, task_rows BIGINT NOT NULL, bytes BIGINT NOT NULL, at_us BIGINT NOT NULL, PRIMARY KEY (job, path));
CREATE TABLE batch_commands (
    id TEXT PRIMARY KEY, job TEXT NOT NULL, kind TEXT NOT NULL, body TEXT NOT NULL, by_user TEXT NOT NULL, at_us BIGINT NOT NULL)",
};

const DELETIONS: Migration = Migration {
    name: "batch-002-deletions",
    sql: "
CREATE TABLE batch_deletions (
    job TEXT PRIMARY KEY, by_user TEXT NOT NULL, at_us BIGINT NOT NULL, begun BIGINT NOT NULL, remains TEXT NOT NULL,
    removed BIGINT NOT NULL, total BIGINT NOT NULL);
CREATE INDEX batch_jobs_finished ON batch_jobs (finished_us)",
};

const SWEEPS: Migration = Migration {
    name: "batch-003-sweeps",
    sql: "
CREATE TABLE batch_sweeps (job TEXT PRIMARY KEY, ended_us BIGINT NOT NULL, due_us BIGINT NOT NULL, again BIGINT NOT NULL)",
};

const SESSIONS: Migration = Migration {
    name: "batch-004-sessions",
    sql: "
ALTER TABLE batch_jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'job';
ALTER TABLE batch_jobs ADD COLUMN closed BIGINT NOT NULL DEFAULT 0;
ALTER TABLE batch_stages ADD COLUMN session BYTEA;
CREATE TABLE batch_submissions (
    job TEXT NOT NULL, n BIGINT NOT NULL, first_task BIGINT NOT NULL, task_count BIGINT NOT NULL, needy BIGINT NOT NULL, token TEXT NOT NULL,
    body BYTEA, object TEXT, bytes BIGINT NOT NULL, at_us BIGINT NOT NULL, PRIMARY KEY (job, n));
CREATE UNIQUE INDEX batch_submissions_first ON batch_submissions (job, first_task);
CREATE UNIQUE INDEX batch_submissions_token ON batch_submissions (job, token);
CREATE TABLE batch_completions (
    job TEXT NOT NULL, n BIGINT NOT NULL, stage BIGINT NOT NULL, range_id BIGINT NOT NULL, seq BIGINT NOT NULL, succeeded BYTEA NOT NULL,
    dead BYTEA NOT NULL, at_us BIGINT NOT NULL, PRIMARY KEY (job, n))",
};

const TERMS: Migration = Migration {
    name: "batch-005-terms",
    sql: "
ALTER TABLE batch_jobs ADD COLUMN task_limit BIGINT;
ALTER TABLE batch_jobs ADD COLUMN seen_us BIGINT;
ALTER TABLE batch_completions ADD COLUMN cancelled BYTEA",
};

const UPLOADS: Migration = Migration {
    name: "batch-006-uploads",
    sql: "
CREATE TABLE batch_uploads (job TEXT NOT NULL, upload TEXT NOT NULL, PRIMARY KEY (job, upload));
CREATE INDEX batch_uploads_upload ON batch_uploads (upload)",
};
