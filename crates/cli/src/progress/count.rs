//! Progress of files that are counted: uploads and downloads.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tidemill_client::Progress;
use tidemill_runtime::Stopwatch;

use super::{LINE_EVERY, Style};
use crate::human;
use crate::output::note;

/// So many files out of so many.
#[derive(Debug)]
pub(crate) struct CountProgress {
    style: Style,
    what: &'static str,
    total: u64,
    done: u64,
    bytes: Progress,
    bar: Option<ProgressBar>,
    started: Stopwatch,
    told: Duration,
}

impl CountProgress {
    /// `what` is the verb: `uploading`.
    pub(crate) fn new(style: Style, what: &'static str, total: u64, bytes: Progress) -> Self {
        let bar = (style == Style::Bars).then(|| {
            let bar = ProgressBar::new(total);
            let template = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} files {msg}");
            bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
            bar.set_prefix(what);
            bar
        });
        Self { style, what, total, done: 0, bytes, bar, started: Stopwatch::start(), told: Duration::ZERO }
    }

    /// One more is done.
    pub(crate) fn one_done(&mut self) {
        self.done += 1;
        let elapsed = self.started.elapsed();
        if let Some(bar) = &self.bar {
            bar.set_message(self.message(elapsed));
            bar.set_position(self.done);
        } else if self.style == Style::Lines && elapsed.saturating_sub(self.told) >= LINE_EVERY {
            self.told = elapsed;
            note(&format!("{}: {} of {} files, {}", self.what, human::count(self.done), human::count(self.total), self.message(elapsed)));
        }
    }

    fn message(&self, elapsed: Duration) -> String {
        let bytes = self.bytes.bytes();
        let per_second = bytes as f64 / elapsed.as_secs_f64().max(0.001);
        format!("{}, {}/s", human::bytes(bytes), human::bytes(per_second as u64))
    }

    /// Takes the bar away and says what came of it.
    pub(crate) fn finish(self, sentence: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.style != Style::Silent {
            let elapsed = self.started.elapsed();
            note(&format!(
                "{sentence}: {}, {} in {}",
                human::plural(self.done, "file"),
                human::bytes(self.bytes.bytes()),
                human::span(elapsed)
            ));
        }
    }
}
