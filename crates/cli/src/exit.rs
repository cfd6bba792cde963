//! How the program ends, and what it says when that is not well.

use std::process::ExitCode;

use tidemill_base::{Error, ErrorKind};

/// How the program ends. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything that was asked for came true.
    Success = 0,
    /// Something failed: a task, or the server refused.
    Failed = 1,
    /// The command or its input is wrong.
    Usage = 2,
    /// The server cannot be reached.
    Unreachable = 3,
    /// Ctrl-C, as shells count it.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// How an error ends the program.
pub(crate) const fn of(error: &Error) -> Exit {
    match error.kind() {
        ErrorKind::Invalid => Exit::Usage,
        ErrorKind::Unavailable => Exit::Unreachable,
        _ => Exit::Failed,
    }
}

/// The error as it is shown: what happened, then the next step.
pub(crate) fn text(error: &Error) -> String {
    let hint = tidemill_client::hint(error);
    let mut out = format!("error: {}", error.message());
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if hint != Some(cause_text.as_str()) {
            out.push_str(": ");
            out.push_str(&cause_text);
        }
        next = cause.source();
    }
    if let Some(hint) = hint {
        out.push_str("\n hint: ");
        out.push_str(hint);
    }
    out
}

/// Says what went wrong, on standard error, and how that ends the program.
pub(crate) fn report(error: &Error) -> Exit {
    // Whoever reads our output has gone: nobody is left to tell.
    if is_broken_pipe(error) {
        return Exit::Success;
    }
    crate::output::note(&text(error));
    of(error)
}

fn is_broken_pipe(error: &Error) -> bool {
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) {
            return true;
        }
        next = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_end_the_program_as_scripts_expect() {
        assert_eq!(of(&Error::invalid("x")), Exit::Usage);
        assert_eq!(of(&Error::unavailable("x")), Exit::Unreachable);
        for error in [Error::not_found("x"), Error::conflict("x"), Error::denied("x"), Error::internal("x"), Error::exhausted("x")] {
            assert_eq!(of(&error), Exit::Failed);
        }
        assert_eq!((Exit::Success as u8, Exit::Failed as u8, Exit::Usage as u8, Exit::Unreachable as u8), (0, 1, 2, 3));
    }

    #[test]
    fn an_error_is_shown_with_its_causes() {
        let error = Error::from(std::io::Error::other("no such device")).context("read a.csv");
        assert_eq!(text(&error), "error: read a.csv: input or output failed: no such device");
    }

    #[tokio::test]
    async fn the_next_step_has_a_line_of_its_own() {
        let error = tidemill_client::Client::new("http://127.0.0.1:1", "t", None).unwrap().overview().await.unwrap_err();
        let shown = text(&error);
        assert!(shown.starts_with("error: cannot reach the server at http://127.0.0.1:1"), "{shown}");
        assert!(shown.ends_with("\n hint: start one with `tidemill serve`"), "{shown}");
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let error = Error::from(std::io::Error::from(std::io::ErrorKind::BrokenPipe)).context("standard output");
        assert_eq!(report(&error), Exit::Success);
    }
}
