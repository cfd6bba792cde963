//! `tidemill tour`.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tidemill_base::{Error, Result};
use tidemill_runtime::Stopwatch;
use tokio::signal::unix::{SignalKind, signal};

use super::sql::Answer;
use super::worker::processors;
use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, Format, TextTable, View, note, to_json};
use crate::tour::{Done, PrivateServer, Stage, claims, media, poison, risk};

/// What is asked in SQL at the end.
const QUERY: &str = "SELECT j.name, t.stage_number AS stage, t.class AS ended, count(*) AS attempts, round(avg(t.run_us) / 1000.0, 1) AS mean_ms \
FROM batch.tasks t JOIN batch.jobs j ON j.id = t.job GROUP BY j.name, t.stage_number, t.class ORDER BY j.name, stage, ended";

/// Run real jobs against a private server: claims, pictures, inputs that fail, and a portfolio's risk. Takes less than a minute.
#[derive(Debug, Args)]
pub(crate) struct Tour {
    /// Keep the data folder.
    #[arg(long)]
    keep: bool,
    /// How many claims to make.
    #[arg(long, default_value_t = 300_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    claims: u64,
    /// How many pictures to make.
    #[arg(long, default_value_t = 24, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=500))]
    pictures: u32,
    /// The most workers.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
}

/// What the tour did.
struct Summary {
    steps: Vec<Done>,
    took: Duration,
    /// Whether the results will still be there.
    kept: bool,
}

impl Tour {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let program = std::env::current_exe().map_err(|e| Error::from(e).context("find this program"))?;
        let temporary = cx.data.is_none();
        let data = cx.data.clone().unwrap_or_else(|| std::env::temp_dir().join(cx.env.id("tidemill-tour-")));
        let data = std::path::absolute(&data).map_err(|e| Error::from(e).context(data.display()))?;
        if !temporary && data.join("server.json").exists() {
            let what = format!("a server is using the data folder {}", data.display());
            return Err(Error::invalid(format!("{what}; the tour starts one of its own, so give it another folder, or none")));
        }
        note(&format!("Starting a private server in {}", data.display()));
        let slots = processors().clamp(1, 8);
        let server = PrivateServer::start(&program, &data, self.workers, slots).await?;
        let program_text = program.to_string_lossy().into_owned();
        // Whoever stops the tour stops its server too.
        let outcome = tokio::select! {
            biased;
            outcome = self.visit(cx, &server, &data, &program_text) => outcome,
            told = stop_signal() => told.map(|()| Exit::Interrupted),
        };
        let stopped = server.stop().await;
        let keep = self.keep || !temporary;
        match (&outcome, keep) {
            (Ok(_), false) => std::fs::remove_dir_all(&data).map_err(|e| Error::from(e).context(format!("remove {}", data.display())))?,
            _ => note(&format!("everything is kept in {}", data.display())),
        }
        outcome.and_then(|exit| stopped.map(|()| exit))
    }

    async fn visit(&self, cx: &Context, server: &PrivateServer, data: &std::path::Path, program: &str) -> Result<Exit> {
        let folder = data.join("tour");
        std::fs::create_dir_all(&folder).map_err(|e| Error::from(e).context(folder.display()))?;
        let client = server.client.clone();
        note(&format!("Console: {}  (sign in with the token in {})", client.url(), data.join("admin-token").display()));
        let started = Stopwatch::start();
        let stage = Stage { client, env: cx.env.clone(), style: cx.progress(), folder, program: program.to_owned() };
        let mut steps = vec![claims(&stage, self.claims).await?];
        steps.extend(media(&stage, self.pictures).await?);
        steps.push(poison(&stage).await?);
        steps.push(risk(&stage).await?);
        stage.title("5. SQL over what happened");
        stage.say(QUERY);
        let answer = Answer(stage.client.sql(QUERY).await?);
        stage.title("");
        if cx.format == Format::Table {
            cx.show(&answer)?;
        }
        let stays = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        let kept = self.keep || cx.data.is_some();
        cx.show(&Summary { steps, took: started.elapsed(), kept: kept || stays })?;
        if stays {
            note(&format!("\nThe console is open at {}. Press Enter to end the tour.", stage.client.url()));
            wait_for_person().await;
        }
        Ok(Exit::Success)
    }
}

async fn stop_signal() -> Result<()> {
    let mut term = signal(SignalKind::terminate())?;
    tokio::select! {
        biased;
        _ = term.recv() => {}
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    Ok(())
}

/// Until Enter, the end of input, or Ctrl-C.
async fn wait_for_person() {
    // A thread of its own, which the end of the program does not wait for.
    let enter = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        _ = enter => {}
    }
}

impl View for Summary {
    fn table(&self) -> String {
        let columns = [
            ("STEP", Align::Left),
            ("JOB", Align::Left),
            ("TASKS", Align::Right),
            ("ATTEMPTS", Align::Right),
            ("FAILED", Align::Right),
            ("TOOK", Align::Right),
            ("THROUGHPUT", Align::Left),
        ];
        let mut table = TextTable::new("nothing was done", &columns);
        for s in &self.steps {
            let t = &s.job.tasks;
            let numbers = [human::count(t.total), human::count(s.job.attempts), human::count(t.failed), human::span(s.took)];
            table.row([s.what.clone(), s.job.id.clone()].into_iter().chain(numbers).chain([s.amount.clone()]));
        }
        let mut out = format!("\n{}\nThe tour took {}.\n", table.render(), human::span(self.took));
        for (step, folder) in self.steps.iter().filter_map(|s| Some((s, s.results.as_ref()?))).filter(|_| self.kept) {
            out.push_str(&format!("results of {}: {}\n", step.what, folder.display()));
        }
        if !self.kept {
            out.push_str("The data folder is removed now; `tidemill tour --keep` leaves it, with all results.\n");
        }
        out
    }

    fn json(&self) -> Value {
        let steps: Vec<Value> = self
            .steps
            .iter()
            .map(|s| {
                let results: Option<PathBuf> = s.results.clone().filter(|_| self.kept);
                json!({"step": s.what, "job": s.job.id, "state": s.job.state, "tasks": to_json(&s.job.tasks), "attempts": s.job.attempts,
                    "seconds": s.took.as_secs_f64(), "amount": s.amount, "results": results})
            })
            .collect();
        json!({"steps": steps, "seconds": self.took.as_secs_f64()})
    }

    fn quiet(&self) -> String {
        self.steps.iter().map(|s| s.job.id.clone()).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests_support::job;
    use tidemill_api::TaskCounts;

    #[test]
    fn the_summary_tells_counts_rates_and_where_the_results_are() {
        let tasks = TaskCounts { total: 27, succeeded: 27, ..TaskCounts::default() };
        let step = Done {
            what: "claims".into(),
            job: job("succeeded", tasks),
            took: Duration::from_secs(4),
            amount: "300,000 claims, 75,000/s".into(),
            results: Some("/t/claims".into()),
        };
        let summary = Summary { steps: vec![step], took: Duration::from_secs(20), kept: true };
        let table = summary.table();
        assert!(table.contains("claims  j1      27        27       0    4s  300,000 claims, 75,000/s"), "{table}");
        assert!(table.contains("results of claims: /t/claims"), "{table}");
        assert!(!Summary { kept: false, ..summary }.table().contains("/t/claims"));
    }
}
