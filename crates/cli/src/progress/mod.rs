//! Progress on standard error: bars to people, a line every few seconds to logs, nothing when quiet.

mod count;
mod job;
mod rate;

pub(crate) use count::CountProgress;
pub(crate) use job::JobProgress;

/// What is watched, by its id. Both are jobs to the server, but not to the person.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Subject<'a> {
    Job(&'a str),
    Session(&'a str),
}

impl<'a> Subject<'a> {
    pub(crate) const fn id(self) -> &'a str {
        match self {
            Self::Job(id) | Self::Session(id) => id,
        }
    }

    /// What the person calls it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Job(_) => "job",
            Self::Session(_) => "session",
        }
    }
}

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
