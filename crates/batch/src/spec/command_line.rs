//! A job of one stage from the options of `tidemill batch run`.

use std::collections::BTreeMap;

use tidemill_base::{HumanDuration, Result, Timestamp};

use super::{DEFAULT_CLASS, defaults, parse_secret, validate};
use crate::model::{InputSpec, JobSpec, KeepSpec, OutputSpec, Resources, RetrySpec, RunSpec, StageSpec, SuccessSpec, UpstreamPolicy};

/// What the command works on. Files of the user's machine have been uploaded before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum CommandInput {
    /// Nothing: one task.
    #[default]
    Once,
    /// Objects, by pattern or name.
    Objects {
        /// Names or patterns.
        patterns: Vec<String>,
        /// Objects to a task.
        per_task: u64,
    },
    /// The lines of an object.
    Lines {
        /// Its name.
        object: String,
        /// Lines to a task.
        per_task: u64,
    },
    /// The numbers from the first to the last.
    Array(i64, i64),
}

/// The options of a command line. `Default` is what holds when an option is not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// What it works on.
    pub input: CommandInput,
    /// Program and arguments; with `shell` the words of a script, joined by spaces.
    pub argv: Vec<String>,
    /// Whether `argv` is a script of `/bin/sh`.
    pub shell: bool,
    /// The job's name; the program's if not given.
    pub name: Option<String>,
    /// How often a failed task is tried again.
    pub retries: Option<u32>,
    /// How long a task may take.
    pub timeout: Option<HumanDuration>,
    /// Slots a task takes.
    pub cpus: Option<u32>,
    /// Bytes of memory a task may take.
    pub memory: Option<u64>,
    /// Named resources.
    pub resources: BTreeMap<String, u64>,
    /// Higher goes first.
    pub priority: i32,
    /// The class of workers.
    pub class: Option<String>,
    /// Environment of the task.
    pub env: BTreeMap<String, String>,
    /// Variables and where the worker finds their values: `env:NAME`, `file:/path`.
    pub secrets: BTreeMap<String, String>,
    /// The name of the output file.
    pub output: Option<String>,
    /// Standard output is the output file.
    pub stdout: bool,
    /// Labels of the job.
    pub labels: BTreeMap<String, String>,
    /// Jobs it waits for.
    pub after: Vec<String>,
    /// When it starts; see [`super::parse_at`].
    pub at: Option<Timestamp>,
    /// On which cron line it starts.
    pub cron: Option<String>,
    /// The zone of the cron line.
    pub timezone: Option<String>,
}

impl CommandLine {
    /// The job: completed and checked, with one stage called `run`. Errors as of [`super::validate`].
    pub fn into_job(self) -> Result<JobSpec> {
        let mut job = JobSpec {
            name: self.job_name(),
            class: self.class.clone().unwrap_or_else(|| DEFAULT_CLASS.to_owned()),
            priority: self.priority,
            after: self.after.clone(),
            at: self.at,
            cron: self.cron.clone(),
            timezone: self.timezone.clone().unwrap_or_else(|| "UTC".to_owned()),
            labels: self.labels.clone(),
            stages: vec![self.stage()?],
        };
        defaults::fill(&mut job);
        validate(&job)?;
        Ok(job)
    }

    fn job_name(&self) -> String {
        let program = self.argv.first().and_then(|a| a.split_whitespace().next()).unwrap_or("run");
        let short = program.rsplit('/').next().filter(|s| !s.is_empty()).unwrap_or(program);
        self.name.clone().unwrap_or_else(|| short.chars().take(60).collect())
    }

    fn stage(self) -> Result<StageSpec> {
        let input = match self.input {
            CommandInput::Once => InputSpec::Array { first: 0, last: 0 },
            CommandInput::Objects { patterns, per_task } => InputSpec::Objects { patterns, per_task },
            CommandInput::Lines { object, per_task } => InputSpec::Lines { object, per_task },
            CommandInput::Array(first, last) => InputSpec::Array { first, last },
        };
        let argv = if self.shell { vec![self.argv.join(" ")] } else { self.argv };
        let mut retry = RetrySpec::default();
        if let Some(retries) = self.retries {
            retry.policy.attempts = retries.saturating_add(1);
        }
        let secrets = self.secrets.iter().map(|(k, v)| Ok((k.clone(), parse_secret(k, v)?))).collect::<Result<_>>()?;
        Ok(StageSpec {
            name: "run".to_owned(),
            input,
            run: RunSpec::Command { argv, shell: self.shell },
            resources: Resources { cpus: self.cpus.unwrap_or(1), memory: self.memory.unwrap_or(0), named: self.resources },
            timeout: self.timeout,
            retry,
            success: SuccessSpec::default(),
            output: OutputSpec { name: self.output, stdout: self.stdout, ..OutputSpec::default() },
            upstream: UpstreamPolicy::default(),
            env: self.env,
            secrets,
            credentials: false,
            keep: KeepSpec::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    fn output_of(line: CommandLine) -> Option<String> {
        line.into_job().unwrap().stages[0].output.name.clone()
    }

    #[test]
    fn outputs_are_named_after_their_input_where_there_is_one() {
        let photos = CommandInput::Objects { patterns: vec!["b/*.jpg".into()], per_task: 1 };
        let convert = CommandLine { input: photos.clone(), argv: words("convert {in} {out}"), ..CommandLine::default() };
        assert_eq!(output_of(convert.clone()).as_deref(), Some("{file}"));
        assert_eq!(output_of(CommandLine { output: Some("{name}.png".into()), ..convert.clone() }).as_deref(), Some("{name}.png"));
        let many = CommandInput::Objects { patterns: vec!["b/*.jpg".into()], per_task: 5 };
        assert_eq!(output_of(CommandLine { input: many, ..convert }).as_deref(), Some("out"));
        let count = CommandLine { input: photos, argv: words("wc {in}"), ..CommandLine::default() };
        assert_eq!(output_of(count.clone()), None);
        assert_eq!(output_of(CommandLine { stdout: true, ..count }).as_deref(), Some("{name}.out"));
        let script = CommandLine { argv: words("date > \"$out\""), shell: true, ..CommandLine::default() };
        assert_eq!(output_of(script).as_deref(), Some("out"));
    }

    #[test]
    fn the_job_is_named_after_its_program_and_checked() {
        let line = CommandLine { argv: words("/usr/bin/true"), retries: Some(2), ..CommandLine::default() };
        let job = line.clone().into_job().unwrap();
        assert_eq!((job.name.as_str(), job.class.as_str(), job.stages[0].retry.policy.attempts), ("true", "default", 3));
        assert_eq!(job.stages[0].input, InputSpec::Array { first: 0, last: 0 });
        let e = CommandLine { argv: words("cat {in}"), ..line }.into_job().unwrap_err();
        assert_eq!(e.to_string(), "stage `run`: command: `{in}` is not given by an array; use `{index}`");
        let e = CommandLine::default().into_job().unwrap_err();
        assert!(e.to_string().starts_with("stage `run`: command: is empty; give the program"), "{e}");
    }
}
