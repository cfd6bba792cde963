//! The checks of one stage.

use std::collections::BTreeSet;

use tidemill_base::Result;

use super::defaults::{one_file, uses};
use super::limits::{MAX_ARG_BYTES, MAX_ARGS, MAX_ATTEMPTS, MAX_ENV, MAX_PATTERNS, MAX_TASKS};
use super::names::{check_pattern, check_plain_object};
use super::output::check_output;
use super::template::{Placeholder, Template, brace_in_script};
use super::validate::{at_most, invalid};
use crate::model::{Boundary, ChainMode, InputSpec, Resources, RetrySpec, RunSpec, SecretRef, StageSpec, UpstreamPolicy};

/// Whether the stage speaks of input files.
pub(super) fn uses_files(stage: &StageSpec) -> bool {
    use Placeholder::{File, In, Inputs, Name};
    uses(stage).iter().any(|p| matches!(p, In | File | Name | Inputs))
}

pub(super) fn check_stage(stage: &StageSpec) -> Result<()> {
    check_input(&stage.input)?;
    check_run(stage)?;
    check_env(stage)?;
    check_output(stage)?;
    check_needs(&stage.resources)?;
    if stage.timeout.is_some_and(|t| t.0.is_zero()) {
        return Err(invalid("timeout", "is zero; give the longest time a task may take, or leave it out"));
    }
    check_retry(&stage.retry)?;
    if stage.success.exit_codes.is_empty() {
        return Err(invalid("success-codes", "is empty, so nothing could ever succeed; give exit codes, or leave it out"));
    }
    check_codes("success-codes", &stage.success.exit_codes)?;
    let streams = !matches!(&stage.input, InputSpec::Stage { mode: ChainMode::Gather { .. } | ChainMode::Group { .. }, .. });
    if streams && stage.upstream == UpstreamPolicy::TakeWhatSucceeded {
        return Err(invalid(
            "upstream",
            "\"take-what-succeeded\" goes with mode \"gather\" or \"group\"; a streamed task without its input is skipped anyway",
        ));
    }
    Ok(())
}

fn check_input(input: &InputSpec) -> Result<()> {
    let patterns = |field: &str, patterns: &[String]| -> Result<()> {
        at_most(field, patterns.len(), MAX_PATTERNS)?;
        if patterns.is_empty() {
            return Err(invalid(field, "is empty; give a pattern such as \"bucket/folder/*.csv\""));
        }
        patterns.iter().try_for_each(|p| check_pattern(field, p))
    };
    let at_least_one = |per_task: u64| if per_task == 0 { Err(invalid("per-task", "is 0; give at least 1")) } else { Ok(()) };
    match input {
        InputSpec::Submitted { .. } => Ok(()),
        InputSpec::Array { first, last } if last < first => {
            Err(invalid("array", format!("{first}-{last} is empty; write the smaller number first")))
        }
        InputSpec::Array { first, last } => {
            let count = usize::try_from(last.abs_diff(*first)).unwrap_or(usize::MAX).saturating_add(1);
            at_most("array: tasks", count, MAX_TASKS as usize)
        }
        InputSpec::Stage { mode: ChainMode::Stream | ChainMode::Gather { per_task: None }, .. } => Ok(()),
        InputSpec::Objects { patterns: list, per_task } => patterns("objects", list).and_then(|()| at_least_one(*per_task)),
        InputSpec::Lines { object, per_task } => check_plain_object("lines", object).and_then(|()| at_least_one(*per_task)),
        InputSpec::Parts { patterns: list, bytes, boundary, header } => {
            patterns("parts.objects", list)?;
            if *bytes == 0 {
                return Err(invalid("parts.size", "is zero; give a size such as \"8MiB\""));
            }
            if *header && *boundary == Boundary::Byte {
                return Err(invalid("parts.header", "does not go with boundary \"byte\", which knows no records; use \"line\" or \"csv\""));
            }
            Ok(())
        }
        InputSpec::Stage { mode: ChainMode::Gather { per_task: Some(n) }, .. } => at_least_one(*n),
        InputSpec::Stage { mode: ChainMode::Group { key }, .. } => key_regex(key).map(drop),
    }
}

/// The regular expression of a grouping stage: it has just one capture group.
pub(crate) fn key_regex(key: &str) -> Result<regex::Regex> {
    let compiled = regex::RegexBuilder::new(key).size_limit(1 << 20).build();
    let regex = compiled.map_err(|e| {
        // The message of the crate is drawn over several lines; its last one says what is wrong.
        let text = e.to_string();
        let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        invalid("key", format!("`{}` is not a regular expression: {why}", key.escape_debug()))
    })?;
    match regex.captures_len() - 1 {
        1 => Ok(regex),
        n => {
            let key = key.escape_debug();
            Err(invalid(
                "key",
                format!("`{key}` has {n} capture groups and not one; write what tasks have in common in ( ), other groups as (?: )"),
            ))
        }
    }
}

fn check_run(stage: &StageSpec) -> Result<()> {
    let argv = match &stage.run {
        RunSpec::Engine(_) | RunSpec::Noop => return Ok(()),
        RunSpec::Command { argv, .. } => argv,
        RunSpec::Container(c) => {
            if c.image.is_empty() || c.image.chars().any(|ch| ch.is_whitespace() || ch.is_control()) {
                return Err(invalid(
                    "container.image",
                    format!("`{}` is not an image; write it like `docker.io/library/debian:13`", c.image.escape_debug()),
                ));
            }
            if !["", "podman", "docker"].contains(&c.engine.as_str()) {
                return Err(invalid("container.engine", format!("`{}` is not known; use podman or docker", c.engine.escape_debug())));
            }
            &c.argv
        }
    };
    at_most("command: arguments", argv.len(), MAX_ARGS)?;
    argv.iter().try_for_each(|arg| check_argument("command", arg))?;
    if matches!(stage.run, RunSpec::Container(_)) && argv.is_empty() {
        return Ok(());
    }
    if argv.first().is_none_or(|program| program.trim().is_empty()) {
        return Err(invalid("command", "is empty; give the program and its arguments like [\"convert\", \"{in}\", \"{out}\"]"));
    }
    if let RunSpec::Command { argv, shell: true } = &stage.run {
        if let Some(p) = argv.iter().find_map(|script| brace_in_script(script)) {
            return Err(invalid(
                "command",
                format!("`{p}` is not filled in within a shell script; write \"${}\" with its quotes", p.as_str()),
            ));
        }
        return uses(stage).into_iter().try_for_each(|p| check_given("command", p, &stage.input));
    }
    argv.iter().try_for_each(|arg| check_template("command", arg, &stage.input, true))
}

fn check_argument(field: &str, arg: &str) -> Result<()> {
    if arg.contains('\0') {
        return Err(invalid(field, format!("`{}` holds a zero byte, which no program can be given", arg.escape_debug())));
    }
    at_most(&format!("{field}: bytes of an argument"), arg.len(), MAX_ARG_BYTES)
}

fn check_template(field: &str, text: &str, input: &InputSpec, own_argument: bool) -> Result<()> {
    let template = Template::parse(text).map_err(|e| e.context(field))?;
    let used = template.placeholders();
    let glued = used.contains(&Placeholder::In) && !(own_argument && template.is_just(Placeholder::In));
    used.into_iter().try_for_each(|p| check_given(field, p, input))?;
    if glued && !one_file(input) {
        let text = text.escape_debug();
        let alone = if own_argument { "write it as an argument of its own, or " } else { "" };
        return Err(invalid(
            field,
            format!("`{{in}}` in `{text}` may stand for several files here; {alone}use `{{inputs}}`, a file that lists them"),
        ));
    }
    Ok(())
}

/// Refuses a placeholder that this kind of input does not give.
pub(super) fn check_given(field: &str, placeholder: Placeholder, input: &InputSpec) -> Result<()> {
    use Placeholder::{File, In, Inputs, Key, Line, Name};
    let lines = matches!(input, InputSpec::Lines { .. });
    let (given, next) = match placeholder {
        In | File | Name => (
            !lines && !matches!(input, InputSpec::Array { .. }),
            if lines { "use `{line}`, or `{inputs}`, a file that holds the lines" } else { "use `{index}`" },
        ),
        Inputs => (!matches!(input, InputSpec::Array { .. }), "use `{index}`"),
        Line => (lines, "it goes with `lines`"),
        Key => (matches!(input, InputSpec::Stage { mode: ChainMode::Group { .. }, .. }), "it goes with mode \"group\""),
        _ => return Ok(()),
    };
    if given { Ok(()) } else { Err(invalid(field, format!("`{placeholder}` is not given by {}; {next}", kind(input)))) }
}

const fn kind(input: &InputSpec) -> &'static str {
    match input {
        InputSpec::Array { .. } => "an array",
        InputSpec::Objects { .. } => "objects",
        InputSpec::Lines { .. } => "lines",
        InputSpec::Parts { .. } => "parts of objects",
        InputSpec::Submitted { .. } => "submissions",
        InputSpec::Stage { .. } => "this way of taking an earlier stage's outputs",
    }
}

fn check_env(stage: &StageSpec) -> Result<()> {
    at_most("env: variables", stage.env.len() + stage.secrets.len(), MAX_ENV)?;
    let shell = matches!(stage.run, RunSpec::Command { shell: true, .. });
    for (field, name) in stage.env.keys().map(|k| ("env", k)).chain(stage.secrets.keys().map(|k| ("secrets", k))) {
        if !is_variable(name) {
            return Err(invalid(field, format!("`{}` cannot be a variable's name; use letters, digits and _", name.escape_debug())));
        }
        if shell && Placeholder::from_word(name).is_some() {
            return Err(invalid(field, format!("`{name}` is what the script finds the placeholder's value in; choose another name")));
        }
    }
    for (name, value) in &stage.env {
        let field = format!("env.{name}");
        if stage.secrets.contains_key(name) {
            return Err(invalid(&field, "is among `secrets` too; keep one of them"));
        }
        check_argument(&field, value)?;
        check_template(&field, value, &stage.input, false)?;
    }
    for (name, secret) in &stage.secrets {
        // The values are not repeated: somebody may have written the secret itself.
        let (good, what) = match secret {
            SecretRef::Env(variable) => (is_variable(variable), "`env:` is followed by the name of a variable on the worker"),
            SecretRef::File(path) => {
                (path.starts_with('/') && !path.contains('\0'), "`file:` is followed by an absolute path on the worker")
            }
        };
        if !good {
            return Err(invalid(&format!("secrets.{name}"), what));
        }
    }
    Ok(())
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn check_needs(needs: &Resources) -> Result<()> {
    if needs.cpus == 0 {
        return Err(invalid("cpus", "is 0; a task takes at least 1"));
    }
    for (name, amount) in &needs.named {
        let good = !name.is_empty() && name.len() <= 40 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !good || *amount == 0 {
            let name = name.escape_debug();
            return Err(invalid(
                "resources",
                format!("`{name}` = {amount} will not do; use a name of letters, digits, - and _, and at least 1 of it"),
            ));
        }
    }
    Ok(())
}

fn check_retry(retry: &RetrySpec) -> Result<()> {
    let tries = |field: &str, n: u32| {
        if (1..=MAX_ATTEMPTS).contains(&n) {
            Ok(())
        } else {
            Err(invalid(field, format!("{n} tries will not do; give 1 to {MAX_ATTEMPTS}, the first one included")))
        }
    };
    tries("retry.attempts", retry.policy.attempts)?;
    if retry.policy.base.0 > retry.policy.cap.0 {
        return Err(invalid("retry.base", format!("{} is longer than `cap`, {}", retry.policy.base, retry.policy.cap)));
    }
    check_codes("retry.never-exit-codes", &retry.never_exit_codes)?;
    for (class, n) in &retry.attempts_by_class {
        let field = format!("retry.attempts-by-class.{}", class.as_str().replace('_', "-"));
        tries(&field, *n)?;
        if *n > 1 && !retry.classes.contains(class) {
            return Err(invalid(&field, "this class is not among those tried again; add it to `retry.on`"));
        }
    }
    Ok(())
}

fn check_codes(field: &str, codes: &BTreeSet<i32>) -> Result<()> {
    codes
        .iter()
        .find(|c| !(0..=255).contains(*c))
        .map_or(Ok(()), |c| Err(invalid(field, format!("{c} is not an exit code; they go from 0 to 255"))))
}
