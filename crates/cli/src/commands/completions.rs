//! `tidemill completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};
use tidemill_base::Result;

use super::Cli;
use crate::exit::Exit;
use crate::output::write_bytes;

/// Write shell completions to standard output, for example `tidemill completions bash > ~/.local/share/bash-completion/completions/tidemill`.
#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// For which shell.
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<Exit> {
        let mut script = Vec::new();
        generate(self.shell, &mut Cli::command(), "tidemill", &mut script);
        write_bytes(&script).map(|()| Exit::Success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_learns_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            generate(shell, &mut Cli::command(), "tidemill", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("worker") && script.contains("batch"), "{shell}");
        }
    }
}
