//! The command line's reference: the help of every command, found by asking the program.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::clean;
use crate::programs::output;

/// A page with a section for each command.
pub(super) fn reference(program: &Path) -> Result<String> {
    let mut page = String::from("# Command line\n\nMade by `cargo xtask generate` from the program's own help.\n");
    describe(program, &mut Vec::new(), &mut page)?;
    Ok(page)
}

fn describe(program: &Path, path: &mut Vec<String>, page: &mut String) -> Result<()> {
    let help = output(clean(Command::new(program)).args(path.iter()).arg("--help"))?;
    let title = std::iter::once("tidemill").chain(path.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    let help: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    page.push_str(&format!("\n## `{title}`\n\n```text\n{}\n```\n", help.join("\n")));
    for command in subcommands(&help) {
        path.push(command);
        describe(program, path, page)?;
        path.pop();
    }
    Ok(())
}

/// The names in the `Commands:` section; `help` itself says nothing new.
fn subcommands(help: &[&str]) -> Vec<String> {
    let section = help.iter().skip_while(|l| **l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let entries = section.filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    entries.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_from_help() {
        let help = "Usage: tidemill <COMMAND>\n\nCommands:\n  serve   Starts everything\n          on one machine\n  worker  Takes tasks\n  help    Print this\n\nOptions:\n  -h, --help";
        assert_eq!(subcommands(&help.lines().collect::<Vec<_>>()), ["serve", "worker"]);
        assert!(subcommands(&["Usage: tidemill serve"]).is_empty());
    }
}
