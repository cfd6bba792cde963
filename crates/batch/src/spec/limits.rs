//! How large a job description may be. The limits are far above what people write; they keep one user from hurting the others.

/// Bytes of a job file.
pub const MAX_FILE_BYTES: usize = 1 << 20;
/// Stages of a job.
pub const MAX_STAGES: usize = 100;
/// Arguments of a command.
pub const MAX_ARGS: usize = 1000;
/// Bytes of one argument or environment value: what Linux takes.
pub const MAX_ARG_BYTES: usize = 128 * 1024 - 1;
/// Characters of a job's name, a label or an output name.
pub const MAX_NAME_CHARS: usize = 250;
/// Labels of a job.
pub const MAX_LABELS: usize = 64;
/// Environment variables of a stage, secrets included.
pub const MAX_ENV: usize = 500;
/// Input patterns of a stage.
pub const MAX_PATTERNS: usize = 1000;
/// Jobs that a job waits for.
pub const MAX_AFTER: usize = 100;
/// Tries of a task in all.
pub const MAX_ATTEMPTS: u32 = 100;
/// Tasks of a stage.
pub const MAX_TASKS: u64 = 1_000_000_000;
