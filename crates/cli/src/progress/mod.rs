//! Progress on standard error: bars to people, a line every few seconds to logs, nothing when quiet.

mod count;
mod job;
mod rate;

pub(crate) use count::CountProgress;
pub(crate) use job::JobProgress;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Bars that move.
    Bars,
    /// A line every few seconds.
    Lines,
    /// Not at all.
    Silent,
}

/// Between two lines in a log.
const LINE_EVERY: std::time::Duration = std::time::Duration::from_secs(5);
