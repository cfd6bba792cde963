//! Structured logs on stderr.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::MakeWriterExt;

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Libraries that log what callers do wrong as if it were an error of ours, or every notice of a server. Naming one in the filter
/// turns it on again.
const QUIET: &str = "s3s=off,tokio_postgres=warn";

fn with_quiet(filter: &str) -> String {
    format!("{QUIET},{filter}")
}

/// Sends logs to stderr. `filter` is in `tracing-subscriber`'s directive syntax, for example `info,tidemill_batch=debug`; a wrong
/// one falls back to `info`. Only the first call has an effect.
pub fn init_logs(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_new(with_quiet(filter)).unwrap_or_else(|_| EnvFilter::new(with_quiet("info")));
    let writer = std::io::stderr.with_max_level(tracing::Level::TRACE);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_target(true);
    let outcome = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // A second call is no error: tests in one process each ask for logs.
    drop(outcome);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing_subscriber::layer::SubscriberExt;

    #[test]
    fn a_client_s_mistake_is_not_our_error_unless_asked_for() {
        let shown = |filter: &str| {
            let filter = EnvFilter::try_new(with_quiet(filter)).unwrap();
            let subscriber = tracing_subscriber::registry().with(filter);
            tracing::subscriber::with_default(subscriber, || {
                let theirs = tracing::enabled!(target: "s3s::ops", tracing::Level::ERROR);
                assert!(!tracing::enabled!(target: "tokio_postgres::connection", tracing::Level::INFO));
                (theirs, tracing::enabled!(target: "tidemill_server", tracing::Level::INFO))
            })
        };
        assert_eq!(shown("info"), (false, true));
        assert_eq!(shown("debug"), (false, true));
        assert_eq!(shown("warn,s3s=error"), (true, false));
    }
}
