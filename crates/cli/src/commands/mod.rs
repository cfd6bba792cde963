//! The commands: one file each.

mod batch;
mod check;
mod completions;
mod config;
mod credentials;
pub(crate) mod engine;
mod example;
mod fleet;
mod grid;
mod queue;
mod serve;
mod sql;
mod token;
mod tour;
mod user;
mod worker;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tidemill_base::{Error, Result};
use tidemill_runtime::{LogFormat, init_logs};

use crate::context::Context;
use crate::exit::Exit;
use crate::output::Format;

/// Work arrives in peaks, is stored durably, and an elastic fleet of workers turns it into results.
#[derive(Debug, Parser)]
#[command(name = "tidemill", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "A server is found by --data, else by TIDEMILL_URL and TIDEMILL_TOKEN, else in the default data folder.\n\
Exit codes: 0 success, 1 something failed, 2 wrong usage or input, 3 server not reachable.")]
pub(crate) struct Cli {
    /// The data folder: where `serve` keeps everything, and where other commands find its server.
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How data is written to standard output.
    #[arg(long, short, global = true, value_enum, default_value_t, value_name = "FORM")]
    output: Format,
    /// What is logged to standard error, such as `info` or `tidemill_client=debug`.
    #[arg(long, global = true, env = "TIDEMILL_LOG", value_name = "FILTER", hide_env_values = true)]
    log: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start everything on this machine: interface, console, S3 endpoint, SQL, and a local elastic fleet.
    Serve(serve::Serve),
    /// Take tasks from a manager, or straight from the engines, and run them.
    Worker(worker::Worker),
    /// Run commands over many inputs.
    #[command(subcommand)]
    Batch(batch::Batch),
    /// Call functions on many small tasks, on warm engines.
    #[command(subcommand)]
    Grid(grid::Grid),
    /// Workers and groups of workers.
    #[command(subcommand)]
    Fleet(fleet::Fleet),
    /// Queues and dead letters.
    #[command(subcommand)]
    Queue(queue::Queue),
    /// Ask in SQL.
    Sql(sql::Sql),
    /// Show the settings of the server.
    Config(config::Config),
    /// See whether every engine of the configuration is there.
    Check(check::Check),
    /// Tokens that programs and people use.
    #[command(subcommand)]
    Token(token::Token),
    /// A temporary credential for S3 clients.
    Credentials(credentials::Credentials),
    /// Users and their roles.
    #[command(subcommand)]
    User(user::User),
    /// Run real jobs against a private server and look around.
    Tour(tour::Tour),
    /// Write shell completions to standard output.
    Completions(completions::Completions),
    /// Engines that workers start.
    #[command(subcommand, hide = true)]
    Engine(engine::Engine),
    /// The programs that the tour's tasks run.
    #[command(subcommand, hide = true)]
    Example(example::Example),
}

impl Cli {
    /// The engine that the process is to become. It takes the standard streams for itself, so nothing else may have been begun.
    pub(crate) const fn engine(&self) -> Option<engine::Engine> {
        match self.command {
            Command::Engine(engine) => Some(engine),
            _ => None,
        }
    }

    /// Does what was asked for.
    pub(crate) async fn run(self) -> Result<Exit> {
        if self.output == Format::Csv && !matches!(self.command, Command::Sql(_)) {
            return Err(Error::invalid("`--output csv` goes with `tidemill sql`; use table, json or quiet here"));
        }
        // The server has a setting for its logs and the worker is its child; both start them by themselves.
        if !matches!(self.command, Command::Serve(_) | Command::Worker(_)) {
            init_logs(self.log.as_deref().unwrap_or("error"), LogFormat::Text);
        }
        let cx = Context::new(self.data, self.output);
        match self.command {
            Command::Serve(c) => c.run(&cx, self.log).await,
            Command::Worker(c) => c.run(&cx, self.log).await,
            Command::Batch(c) => c.run(&cx).await,
            Command::Grid(c) => c.run(&cx).await,
            Command::Fleet(c) => c.run(&cx).await,
            Command::Queue(c) => c.run(&cx).await,
            Command::Sql(c) => c.run(&cx).await,
            Command::Config(c) => c.run(&cx),
            Command::Check(c) => c.run(&cx).await,
            Command::Token(c) => c.run(&cx).await,
            Command::Credentials(c) => c.run(&cx).await,
            Command::User(c) => c.run(&cx).await,
            Command::Tour(c) => c.run(&cx).await,
            Command::Completions(c) => c.run(),
            // Served before anything else was begun.
            Command::Engine(engine) => engine.serve().map(|()| Exit::Success),
            Command::Example(c) => c.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_the_documents_promise_parses() {
        for line in [
            "serve --data d --listen 127.0.0.1:8080 --workers 0..4 --slots 2",
            "worker --manager http://a:1 --slots 4",
            "worker --config prod.toml --manager http://a:1",
            "worker --drivers",
            "check --create --config prod.toml -o json",
            "batch run --input a*.jpg b.jpg --retries 2 --timeout 5m -- convert {in} -resize 50% {out}",
            "batch run --lines urls.txt --name n -- curl -o {out} {line}",
            "batch run --array -5-5 -- echo {index}",
            "batch run -- true",
            "batch submit job.toml --at +10m --token t --wait",
            "batch show j1 --output json",
            "batch logs j1 3 -f",
            "batch delete j1 j2 --detach",
            "credentials --prefix claims/2026 --for 30m --read-only --process",
            "fleet simulate --load burst --max 8",
            "sql 'SELECT 1' --output csv",
            "--data d config --defaults",
            "tour --keep",
            "grid run --module math:sqrt --range 1-1000 --results roots.jsonl",
            "grid run --engine pricing --name european --json - --results - --retries 2 --timeout 30s --memory 2GiB --param a=b",
            "grid run --module risk:value --csv trades.csv --setup market.json --detach",
            "grid results s1 --after 7 --output json",
            "grid priority s1 -5",
            "engine pricing",
        ] {
            let words = std::iter::once("tidemill").chain(line.split(' '));
            let words: Vec<String> = if line.starts_with("sql") {
                ["tidemill", "sql", "SELECT 1", "--output", "csv"].map(str::to_owned).to_vec()
            } else {
                words.map(str::to_owned).collect()
            };
            if let Err(e) = Cli::try_parse_from(words) {
                panic!("{line}: {e}");
            }
        }
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        for line in
            ["batch run --input a --array 1-2 -- true", "batch run --input a", "batch", "nonsense", "batch show", "grid run --range 1-2"]
        {
            let error = Cli::try_parse_from(std::iter::once("tidemill").chain(line.split(' '))).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[tokio::test]
    async fn csv_is_for_sql_alone() {
        let cli = Cli::try_parse_from(["tidemill", "-o", "csv", "batch", "list"]).unwrap();
        assert!(cli.run().await.unwrap_err().message().contains("tidemill sql"));
    }
}
