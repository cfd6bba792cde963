//! Progress of a job or a session: a bar for each stage, with rate and time left.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tidemill_api::{JobDetail, StageDetail, TaskCounts};
use tidemill_base::Error;
use tidemill_runtime::Stopwatch;

use super::rate::Rate;
use super::{LINE_EVERY, Style};
use crate::human;
use crate::output::note;

/// Shows a job as it changes.
#[derive(Debug)]
pub(crate) struct JobProgress {
    style: Style,
    /// What the person calls it.
    word: &'static str,
    bars: MultiProgress,
    stages: Vec<(Rate, Option<ProgressBar>)>,
    started: Stopwatch,
    told: Option<Duration>,
    last: String,
}

/// Tasks of a stage that are over, however they ended.
pub(crate) const fn settled(tasks: &TaskCounts) -> u64 {
    tasks.succeeded + tasks.failed + tasks.cancelled + tasks.skipped
}

impl JobProgress {
    pub(crate) fn new(style: Style, word: &'static str) -> Self {
        Self { style, word, bars: MultiProgress::new(), stages: Vec::new(), started: Stopwatch::start(), told: None, last: String::new() }
    }

    /// The job is like this now.
    pub(crate) fn update(&mut self, job: &JobDetail) {
        let at = self.started.elapsed();
        while self.stages.len() < job.stages.len() {
            self.stages.push((Rate::default(), (self.style == Style::Bars).then(|| self.bars.add(new_bar()))));
        }
        for (stage, (rate, bar)) in job.stages.iter().zip(&mut self.stages) {
            rate.note(at, settled(&stage.tasks));
            if let Some(bar) = bar {
                bar.set_prefix(human::one_line(&stage.name, 16));
                bar.set_length(stage.tasks.total);
                bar.set_message(message(stage, rate));
                bar.set_position(settled(&stage.tasks));
            }
        }
        if self.style == Style::Lines && self.told.is_none_or(|t| at.saturating_sub(t) >= LINE_EVERY) {
            self.tell(job, at);
        }
    }

    fn tell(&mut self, job: &JobDetail, at: Duration) {
        let line = self.line(job);
        self.told = Some(at);
        if line != self.last {
            note(&line);
            self.last = line;
        }
    }

    /// `session s1 running: tasks 3/10 2 running`.
    fn line(&self, job: &JobDetail) -> String {
        let open = job.stages.iter().zip(&self.stages).filter(|(s, _)| s.state != "blocked" && s.state != "done");
        let parts: Vec<String> = open
            .map(|(stage, (rate, _))| {
                let (done, total) = (human::count(settled(&stage.tasks)), human::count(stage.tasks.total));
                format!("{} {done}/{total} {}", stage.name, message(stage, rate))
            })
            .collect();
        let why = if job.reason.is_empty() { String::new() } else { format!(" ({})", job.reason) };
        let line = format!("{} {} {}{why}: {}", self.word, job.id, job.state, parts.join("; "));
        line.trim_end_matches([':', ' ']).to_owned()
    }

    /// The server cannot be reached for now.
    pub(crate) fn lost(&self, why: &Error) {
        self.say(&format!("lost the server ({}); the {} goes on, trying to reach it again", why.message(), self.word));
    }

    /// Says something without breaking the bars.
    fn say(&self, text: &str) {
        match self.style {
            Style::Bars => self.bars.suspend(|| note(text)),
            Style::Lines => note(text),
            Style::Silent => {}
        }
    }

    /// Leaves the bars as they are and goes to the next line.
    pub(crate) fn finish(self) {
        for bar in self.stages.into_iter().filter_map(|(_, bar)| bar) {
            bar.abandon();
        }
    }
}

fn new_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = ProgressStyle::with_template("{prefix:>16} [{bar:30}] {pos}/{len} {msg}");
    bar.set_style(template.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}

/// What is said beside the counts: `3 running, 2 failed, 120/s, 8s left`.
fn message(stage: &StageDetail, rate: &Rate) -> String {
    let t = &stage.tasks;
    let mut parts = Vec::new();
    for (n, word) in
        [(t.running, "running"), (t.retrying, "retrying"), (t.failed, "failed"), (t.skipped, "skipped"), (t.cancelled, "cancelled")]
    {
        if n > 0 {
            parts.push(format!("{} {word}", human::count(n)));
        }
    }
    let remaining = t.total.saturating_sub(settled(t));
    if remaining > 0 {
        let speed = rate.per_second();
        if speed > 0.0 {
            parts.push(human::rate(speed));
        }
        if let Some(seconds) = rate.seconds_for(remaining) {
            parts.push(format!("{} left", human::left(seconds)));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests_support::{job, stage};

    #[test]
    fn a_session_is_called_one() {
        let mut progress = JobProgress::new(Style::Silent, "session");
        let tasks = TaskCounts { total: 10, succeeded: 3, running: 2, waiting: 5, ..TaskCounts::default() };
        let session = job("running", tasks);
        progress.update(&session);
        assert_eq!(progress.line(&session), "session j1 running: run 3/10 2 running");
        let ended = JobDetail { stages: Vec::new(), ..session };
        assert_eq!(progress.line(&ended), "session j1 running");
    }

    #[test]
    fn the_message_tells_rate_time_left_and_failures() {
        let mut rate = Rate::default();
        rate.note(Duration::ZERO, 0);
        rate.note(Duration::from_secs(2), 40);
        let tasks = TaskCounts { total: 100, succeeded: 38, failed: 2, running: 4, waiting: 56, ..TaskCounts::default() };
        assert_eq!(message(&stage("run", tasks), &rate), "4 running, 2 failed, 20.0/s, 3s left");
        let done = TaskCounts { total: 100, succeeded: 100, ..TaskCounts::default() };
        assert_eq!(message(&stage("run", done), &rate), "");
    }
}
