//! The one binary, `tidemill`: the server, the worker, and the commands that speak to a server.
//!
//! Why so many small files: a command is one file with its arguments and what it does; it hands what it found to an
//! [`output::Output`], so that every command answers as a table, as JSON and quietly, and nothing else writes to standard output.
//!
//! ```console
//! $ tidemill serve --data mill --listen 127.0.0.1:8080 &
//! $ tidemill --data mill batch run --input 'photos/*.jpg' -- convert {in} -resize 50% {out}
//! ```

mod commands;
mod context;
mod exit;
mod human;
mod output;
mod progress;
mod tour;
mod transfer;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use crate::commands::Cli;
use crate::exit::Exit;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Some(engine) = cli.engine() {
        return engine.serve().map_or_else(|e| exit::report(&e), |()| Exit::Success).into();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return exit::report(&tidemill_base::Error::from(e).context("start the runtime")).into(),
    };
    let exit = match runtime.block_on(cli.run()) {
        Ok(exit) => exit,
        Err(e) => exit::report(&e),
    };
    // A blocked read of standard input must not keep the program from ending.
    runtime.shutdown_background();
    Exit::into(exit)
}
