//! What can be refused before a job is accepted, whoever made it. Each error names the field, the reason and the next step.

use tidemill_base::{ByteSize, Error, ErrorKind, Result, Timestamp};
use tidemill_blocks::fleet::Offers;

use super::limits::{MAX_AFTER, MAX_LABELS, MAX_NAME_CHARS, MAX_STAGES};
use super::validate_stage::check_stage;
use super::{cron, suggest};
use crate::model::{ChainMode, InputSpec, JobSpec, Resources, StageSpec};

/// Checks a whole job: `Invalid` for what is wrong, `Exhausted` for what is too much.
pub fn validate(job: &JobSpec) -> Result<()> {
    check_label("name", &job.name)?;
    check_word("class", &job.class, false)?;
    if !(-1000..=1000).contains(&job.priority) {
        return Err(invalid("priority", format!("{} is out of range; give a number from -1000 to 1000", job.priority)));
    }
    at_most("after", job.after.len(), MAX_AFTER)?;
    if let Some(bad) = job.after.iter().find(|id| id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'))
    {
        return Err(invalid("after", format!("`{}` is not a job's id; `tidemill batch list` shows them", bad.escape_debug())));
    }
    check_times(job)?;
    at_most("labels", job.labels.len(), MAX_LABELS)?;
    for (key, value) in &job.labels {
        check_label("labels", key)?;
        if !value.is_empty() {
            check_label(&format!("labels.{key}"), value)?;
        }
    }
    at_most("stage", job.stages.len(), MAX_STAGES)?;
    if job.stages.is_empty() {
        return Err(invalid("stage", "the job has none; add a [[stage]]"));
    }
    for (number, stage) in job.stages.iter().enumerate() {
        check_name(stage, &job.stages[..number])?;
        let what = format!("stage `{}`", stage.name);
        check_chain(stage, &job.stages[..number]).map_err(|e| e.context(&what))?;
        check_stage(stage).map_err(|e| e.context(&what))?;
    }
    Ok(())
}

/// Refuses what no worker of the job's class could ever run. `offers` are the workers of the class, or what its group would
/// start; when there are none nothing is refused, since a worker may still come.
pub fn check_resources(job: &JobSpec, offers: &[Offers]) -> Result<()> {
    for stage in &job.stages {
        if !offers.is_empty() && !offers.iter().any(|o| stage.resources.fit(o)) {
            let why = misfit(&stage.resources, offers);
            return Err(invalid(
                &format!("stage `{}`: resources", stage.name),
                format!("{why} in class `{}`; ask for less, or submit to a class with larger workers", job.class),
            ));
        }
    }
    Ok(())
}

fn misfit(want: &Resources, offers: &[Offers]) -> String {
    let slots = offers.iter().map(|o| o.slots).max().unwrap_or(0);
    if want.cpus > slots {
        return format!("{} cpus asked for, the largest worker has {slots}", want.cpus);
    }
    let memory = offers.iter().map(|o| o.memory).max().unwrap_or(0);
    if want.memory > memory {
        return format!("{} of memory asked for, the largest worker has {}", ByteSize(want.memory), ByteSize(memory));
    }
    for (name, amount) in &want.named {
        match offers.iter().filter_map(|o| o.named.get(name)).max() {
            None => return format!("`{name}` asked for, no worker has it"),
            Some(most) if most < amount => return format!("{amount} of `{name}` asked for, the largest worker has {most}"),
            Some(_) => {}
        }
    }
    "each resource is there, but no single worker has all of them at once".to_owned()
}

fn check_times(job: &JobSpec) -> Result<()> {
    cron::zone(&job.timezone)?;
    let Some(line) = &job.cron else { return Ok(()) };
    if job.at.is_some() {
        return Err(invalid("cron", "excludes `at`; give one of them"));
    }
    cron::next_tick(line, &job.timezone, Timestamp::ZERO).map(drop)
}

fn check_name(stage: &StageSpec, before: &[StageSpec]) -> Result<()> {
    check_word("stage name", &stage.name, true)?;
    if before.iter().any(|s| s.name == stage.name) {
        return Err(invalid("stage name", format!("`{}` is there twice; give each stage its own", stage.name)));
    }
    Ok(())
}

fn check_chain(stage: &StageSpec, before: &[StageSpec]) -> Result<()> {
    let InputSpec::Stage { stage: from, mode } = &stage.input else { return Ok(()) };
    let Some(upstream) = before.iter().find(|s| s.name == *from) else {
        let names: Vec<_> = before.iter().map(|s| s.name.as_str()).collect();
        let hint = suggest::closest(from, names.iter().copied()).map(|n| format!("did you mean `{n}`? ")).unwrap_or_default();
        let list = if names.is_empty() { "this is the first stage".to_owned() } else { format!("there are {}", names.join(", ")) };
        return Err(invalid("from", format!("no earlier stage is called `{}`; {hint}{list}", from.escape_debug())));
    };
    let silent = upstream.output.name.is_none() && !upstream.output.folder;
    let takes_files = matches!(mode, ChainMode::Group { .. }) || super::validate_stage::uses_files(stage);
    if silent && takes_files {
        return Err(invalid("from", format!("stage `{from}` puts nothing out; let its command write `{{out}}`, or set its `output`")));
    }
    Ok(())
}

pub(super) fn invalid(field: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("{field}: {why}"))
}

pub(super) fn at_most(field: &str, count: usize, limit: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Exhausted, format!("{field}: {count} are more than the limit of {limit}")))
}

/// A word of `a-z 0-9 -`, and `_` where that is allowed, 1 to 40 characters.
fn check_word(field: &str, word: &str, underscore: bool) -> Result<()> {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || (underscore && b == b'_');
    if (1..=40).contains(&word.len()) && word.bytes().all(good) {
        return Ok(());
    }
    let letters = if underscore { "a-z, 0-9, - and _" } else { "a-z, 0-9 and -" };
    Err(invalid(field, format!("`{}` will not do; use 1 to 40 of {letters}", word.escape_debug())))
}

fn check_label(field: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        return Err(invalid(field, "is empty; give it a word or two"));
    }
    if text.chars().any(char::is_control) {
        return Err(invalid(field, format!("`{}` has control characters; leave them out", text.escape_debug())));
    }
    at_most(&format!("{field}: characters"), text.chars().count(), MAX_NAME_CHARS)
}
