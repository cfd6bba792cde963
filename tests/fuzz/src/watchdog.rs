//! Ends a run that does not end by itself, with its input kept.

use std::io::Write as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use tidemill_runtime::Stopwatch;

enum Word {
    Begin(Vec<u8>),
    End,
}

/// Watches one target. A run that takes far longer than its limit cannot be stopped from inside, so the whole program is ended; the
/// input lies in a file by then.
pub(crate) struct Watchdog(Sender<Word>);

impl Watchdog {
    pub(crate) fn start(name: &'static str, limit: Duration) -> Self {
        let (sender, words) = channel();
        std::thread::spawn(move || {
            let mut running: Option<(Vec<u8>, Stopwatch)> = None;
            loop {
                match words.recv_timeout(Duration::from_secs(1)) {
                    Ok(Word::Begin(input)) => running = Some((input, Stopwatch::start())),
                    Ok(Word::End) => running = None,
                    Err(RecvTimeoutError::Disconnected) => return,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if let Some((input, watch)) = &running
                    && watch.elapsed() > limit
                {
                    let file = crate::save(name, input);
                    let said =
                        format!("{name}: an input has run for {limit:?} and does not end\n  repeat: {}\n", crate::repeat(name, &file));
                    // Not by `eprintln`, which the test harness keeps until the end of a test that does not end.
                    let _ = std::io::stderr().write_all(said.as_bytes());
                    std::process::exit(101);
                }
            }
        });
        Self(sender)
    }

    pub(crate) fn begin(&self, input: &[u8]) {
        let _ = self.0.send(Word::Begin(input.to_vec()));
    }

    pub(crate) fn end(&self) {
        let _ = self.0.send(Word::End);
    }
}
