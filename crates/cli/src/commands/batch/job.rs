//! From the options of `batch run` to a job: as a command line, to be checked before anything is uploaded, and in the shape of a job
//! file, to be sent.

use clap::Args;
use serde_json::{Map, Value, json};
use tidemill_base::{ByteSize, Error, HumanDuration, Result, Timestamp};
use tidemill_batch::model::InputSpec;
use tidemill_batch::spec::{CommandInput, CommandLine, parse_array, parse_at};

use crate::commands::serve::key_value;

/// What a job is like, whatever it works on.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct JobOptions {
    /// The job's name [default: the program's].
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// How often a failed task is tried again.
    #[arg(long, value_name = "N")]
    pub(crate) retries: Option<u32>,
    /// How long a task may take, such as 5m.
    #[arg(long, value_name = "DURATION")]
    pub(crate) timeout: Option<HumanDuration>,
    /// CPUs that a task takes.
    #[arg(long, value_name = "N")]
    pub(crate) cpus: Option<u32>,
    /// Memory that a task may take, such as 512MiB.
    #[arg(long, value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// A named resource that a task takes, such as gpu=1.
    #[arg(long = "resource", value_name = "NAME=N", value_parser = key_value)]
    pub(crate) resources: Vec<(String, String)>,
    /// Higher goes first, -1000 to 1000.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "N")]
    pub(crate) priority: i32,
    /// The class of workers.
    #[arg(long)]
    pub(crate) class: Option<String>,
    /// A variable of the tasks.
    #[arg(long = "env", short, value_name = "K=V", value_parser = key_value)]
    pub(crate) env: Vec<(String, String)>,
    /// A label of the job.
    #[arg(long = "label", value_name = "K=V", value_parser = key_value)]
    pub(crate) labels: Vec<(String, String)>,
    /// Wait for this job to succeed.
    #[arg(long, value_name = "JOB")]
    pub(crate) after: Vec<String>,
    /// Start at this moment: 2026-01-31T22:00:00Z, or +10m.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Name of a task's output file, such as {name}.png [default: the input's, where there is one].
    #[arg(long, value_name = "NAME")]
    pub(crate) output_name: Option<String>,
    /// Standard output is the output file.
    #[arg(long)]
    pub(crate) stdout: bool,
    /// The command is a script of /bin/sh; placeholders are variables: "$in", "$out".
    #[arg(long)]
    pub(crate) shell: bool,
}

impl JobOptions {
    /// Checks what can be checked without a server. Errors speak of the command line.
    pub(crate) fn check(&self, input: CommandInput, argv: &[String], now: Timestamp) -> Result<()> {
        self.command_line(input, argv, now)?.into_job().map(drop)
    }

    pub(crate) fn command_line(&self, input: CommandInput, argv: &[String], now: Timestamp) -> Result<CommandLine> {
        Ok(CommandLine {
            input,
            argv: argv.to_vec(),
            shell: self.shell,
            name: self.name.clone(),
            retries: self.retries,
            timeout: self.timeout,
            cpus: self.cpus,
            memory: self.memory.map(ByteSize::bytes),
            resources: self.resources()?.into_iter().collect(),
            priority: self.priority,
            class: self.class.clone(),
            env: self.env.iter().cloned().collect(),
            output: self.output_name.clone(),
            stdout: self.stdout,
            labels: self.labels.iter().cloned().collect(),
            after: self.after.clone(),
            at: self.at.as_deref().map(|text| parse_at(text, now)).transpose().map_err(|e| e.context("--at"))?,
            ..CommandLine::default()
        })
    }

    fn resources(&self) -> Result<Vec<(String, u64)>> {
        let read = |(name, amount): &(String, String)| {
            let wrong = |_| Error::invalid(format!("--resource {name}={amount}: `{amount}` is not a whole number"));
            Ok((name.clone(), amount.parse().map_err(wrong)?))
        };
        self.resources.iter().map(read).collect()
    }

    /// The job in the shape of a job file.
    pub(crate) fn to_json(&self, input: &CommandInput, argv: &[String]) -> Result<Value> {
        let mut stage = Map::new();
        stage.insert("name".to_owned(), json!("run"));
        put_input(&mut stage, input);
        let command = if self.shell { json!(argv.join(" ")) } else { json!(argv) };
        stage.insert("command".to_owned(), command);
        let mut put = |key: &str, value: Value| {
            let given = !(value.is_null() || value == json!(false) || value == json!({}));
            if given {
                stage.insert(key.to_owned(), value);
            }
        };
        put("shell", json!(self.shell));
        put("cpus", json!(self.cpus));
        put("memory", json!(self.memory.map(ByteSize::bytes)));
        put("timeout", json!(self.timeout));
        put("retries", json!(self.retries));
        put("resources", self.resources()?.into_iter().collect());
        put("env", map(&self.env));
        let mut output = Map::new();
        output.extend(self.output_name.as_ref().map(|name| ("name".to_owned(), json!(name))));
        output.extend(self.stdout.then(|| ("stdout".to_owned(), json!(true))));
        put("output", Value::Object(output));
        let mut job = Map::new();
        job.insert("name".to_owned(), json!(self.name.clone().unwrap_or_else(|| program_name(argv))));
        job.extend(self.class.as_ref().map(|class| ("class".to_owned(), json!(class))));
        job.extend((self.priority != 0).then(|| ("priority".to_owned(), json!(self.priority))));
        job.extend((!self.labels.is_empty()).then(|| ("labels".to_owned(), map(&self.labels))));
        job.extend((!self.after.is_empty()).then(|| ("after".to_owned(), json!(self.after))));
        job.extend(self.at.as_ref().map(|at| ("at".to_owned(), json!(at))));
        job.insert("stage".to_owned(), json!([stage]));
        Ok(Value::Object(job))
    }
}

fn map(pairs: &[(String, String)]) -> Value {
    pairs.iter().cloned().collect()
}

fn put_input(stage: &mut Map<String, Value>, input: &CommandInput) {
    let mut put = |key: &str, value: Value| stage.insert(key.to_owned(), value);
    match input {
        CommandInput::Once => {
            put("array", json!("0-0"));
        }
        CommandInput::Array(first, last) => {
            put("array", json!(format!("{first}-{last}")));
        }
        CommandInput::Objects { patterns, per_task } => {
            put("objects", json!(patterns));
            put("per-task", json!(per_task));
        }
        CommandInput::Lines { object, per_task } => {
            put("lines", json!(object));
            put("per-task", json!(per_task));
        }
    }
}

/// As [`CommandLine::into_job`] names it.
fn program_name(argv: &[String]) -> String {
    let program = argv.first().and_then(|a| a.split_whitespace().next()).unwrap_or("run");
    let short = program.rsplit('/').next().filter(|s| !s.is_empty()).unwrap_or(program);
    short.chars().take(60).collect()
}

/// Reads `--array`.
pub(crate) fn array(text: &str) -> Result<CommandInput> {
    match parse_array(text).map_err(|e| e.context("--array"))? {
        InputSpec::Array { first, last } => Ok(CommandInput::Array(first, last)),
        other => Err(Error::internal(format!("an array was read as {other:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_batch::spec::from_json;

    fn same_both_ways(options: &JobOptions, input: CommandInput, words: &str) {
        let argv: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let now = Timestamp::from_millis(1_767_225_600_000);
        let sent = options.to_json(&input, &argv).unwrap().to_string();
        let checked = options.command_line(input, &argv, now).unwrap().into_job().unwrap();
        assert_eq!(from_json(&sent, now).unwrap(), checked, "{sent}");
    }

    #[test]
    fn what_is_sent_is_what_was_checked() {
        let full = JobOptions {
            name: Some("thumbs".into()),
            retries: Some(2),
            timeout: Some("90s".parse().unwrap()),
            cpus: Some(2),
            memory: Some(ByteSize(512 << 20)),
            resources: vec![("gpu".into(), "1".into())],
            priority: -5,
            class: Some("large".into()),
            env: vec![("MODE".into(), "fast".into())],
            labels: vec![("team".into(), "media".into())],
            after: vec!["j1".into()],
            at: Some("+10m".into()),
            output_name: Some("{name}.png".into()),
            ..JobOptions::default()
        };
        let photos = CommandInput::Objects { patterns: vec!["uploads/u1/**".into()], per_task: 1 };
        same_both_ways(&full, photos.clone(), "convert {in} {out}");
        same_both_ways(&JobOptions::default(), photos.clone(), "convert {in} {out}");
        same_both_ways(&JobOptions::default(), CommandInput::Once, "/usr/bin/true");
        same_both_ways(&JobOptions::default(), CommandInput::Array(-5, -1), "echo {index}");
        let lines = CommandInput::Lines { object: "uploads/u1/urls.txt".into(), per_task: 3 };
        same_both_ways(&JobOptions::default(), lines, "sh -c fetch {inputs}");
        same_both_ways(&JobOptions { stdout: true, ..JobOptions::default() }, photos.clone(), "wc {in}");
        same_both_ways(&JobOptions { shell: true, ..JobOptions::default() }, photos, "wc < \"$in\" > \"$out\"");
    }

    #[test]
    fn wrong_options_are_named() {
        let argv = ["true".to_owned()];
        let check = |options: JobOptions| options.check(CommandInput::Once, &argv, Timestamp::ZERO).unwrap_err().to_string();
        assert!(check(JobOptions { at: Some("soon".into()), ..JobOptions::default() }).starts_with("--at: `soon`"));
        let gpu = vec![("gpu".into(), "many".into())];
        assert!(check(JobOptions { resources: gpu, ..JobOptions::default() }).contains("`many`"));
        assert!(array("ten").unwrap_err().message().starts_with("--array: `ten`"));
    }
}
