//! `cargo xtask fuzz`: the targets of `tests/fuzz`, one or all, for as long as one likes.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::programs;
use crate::workspace::Workspace;

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    target: Option<String>,
    minutes: u64,
    seed: u64,
}

pub(crate) fn main(workspace: &Workspace, args: &[String]) -> Result<ExitCode> {
    let wanted = parse(args)?;
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--package", "tidemill-fuzz", "--test", "parsers", "--", "--show-output"]);
    // Tests are named by their module, so that `lines` alone would mean `job_lines` too.
    cargo.args(wanted.target.iter().map(|name| format!("::{name}")));
    cargo.env("TIDEMILL_FUZZ_SECONDS", (wanted.minutes * 60).to_string()).env("TIDEMILL_FUZZ_SEED", wanted.seed.to_string());
    programs::run(&mut cargo)?;
    Ok(ExitCode::SUCCESS)
}

fn parse(args: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { target: None, minutes: 1, seed: 0 };
    let mut args = args.iter();
    while let Some(option) = args.next() {
        let value = args.next().with_context(|| format!("{option} needs a value"))?;
        let number = || value.parse::<u64>().with_context(|| format!("{option} `{value}` is not a number"));
        match option.as_str() {
            "--target" => wanted.target = Some(value.clone()),
            "--minutes" => wanted.minutes = number()?,
            "--seed" => wanted.seed = number()?,
            other => bail!("`fuzz` has no option `{other}`; it has --target NAME, --minutes N and --seed N"),
        }
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Wanted> {
        parse(&text.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_have_values() {
        assert_eq!(parsed("").unwrap(), Wanted { target: None, minutes: 1, seed: 0 });
        let all = parsed("--seed 7 --target parts --minutes 30").unwrap();
        assert_eq!(all, Wanted { target: Some("parts".to_owned()), minutes: 30, seed: 7 });
        assert!(parsed("--target").is_err() && parsed("--minutes long").is_err() && parsed("--for 5").is_err());
    }
}
