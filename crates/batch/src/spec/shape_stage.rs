//! The shape of one `[[stage]]` of a job file.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_base::{Error, Result};

use super::node::{Fields, Node, Value};
use super::shape::{count_map, only_with, text_map};
use crate::model::{
    Boundary, ChainMode, ContainerSpec, FailureClass, InputSpec, KeepSpec, OutputSpec, Resources, RetrySpec, RunSpec, SecretRef, StageSpec,
    SuccessSpec, UpstreamPolicy,
};

const STAGE: &[&str] = &[
    "name",
    "array",
    "objects",
    "lines",
    "parts",
    "from",
    "mode",
    "per-task",
    "key",
    "command",
    "shell",
    "noop",
    "container",
    "output",
    "cpus",
    "memory",
    "resources",
    "timeout",
    "retries",
    "retry",
    "success-codes",
    "upstream",
    "env",
    "secrets",
    "credentials",
    "keep",
];
const INPUTS: [&str; 5] = ["array", "objects", "lines", "parts", "from"];

/// Parts of large objects have this many bytes if nothing is said.
pub const DEFAULT_PART_BYTES: u64 = 8 << 20;

/// Reads stage number `number`, from 0.
pub(super) fn stage(node: &Node, number: usize) -> Result<StageSpec> {
    let f = node.fields("[[stage]]", STAGE)?;
    let resources = Resources {
        cpus: f.opt("cpus", Node::int)?.unwrap_or(1),
        memory: f.opt("memory", Node::size)?.unwrap_or(0),
        named: f.opt("resources", count_map)?.unwrap_or_default(),
    };
    let codes = f.opt("success-codes", codes)?;
    let upstream = [("require-all", UpstreamPolicy::RequireAll), ("take-what-succeeded", UpstreamPolicy::TakeWhatSucceeded)];
    only_with(&f, "upstream", f.get("from").is_some(), "`from`")?;
    Ok(StageSpec {
        name: f.text("name")?.unwrap_or_else(|| format!("stage-{}", number + 1)),
        input: input(&f)?,
        run: run(&f)?,
        resources,
        timeout: f.opt("timeout", Node::duration)?,
        retry: retry(&f)?,
        success: codes.map_or_else(SuccessSpec::default, |exit_codes| SuccessSpec { exit_codes }),
        output: f.opt("output", |n, _| output(n))?.unwrap_or_default(),
        upstream: f.opt("upstream", |n, k| n.word(k, &upstream))?.unwrap_or_default(),
        env: f.opt("env", text_map)?.unwrap_or_default(),
        secrets: f.opt("secrets", secrets)?.unwrap_or_default(),
        credentials: f.flag("credentials", false)?,
        keep: f.opt("keep", |n, _| keep(n))?.unwrap_or_default(),
    })
}

fn input(f: &Fields<'_>) -> Result<InputSpec> {
    let given: Vec<_> = INPUTS.into_iter().filter(|k| f.get(k).is_some()).collect();
    let [kind] = given.as_slice() else {
        let what = if given.is_empty() {
            "nothing says what it works on".to_owned()
        } else {
            format!("`{}` exclude each other", given.join("` and `"))
        };
        return Err(f.at.error(format!("{what}; give [[stage]] one of {}", INPUTS.join(", "))));
    };
    only_with(f, "mode", *kind == "from", "`from`")?;
    let per_task = f.opt("per-task", Node::int::<u64>)?;
    let node = f.need(kind, "")?;
    let spec = match *kind {
        "array" => array(node)?,
        "objects" => InputSpec::Objects { patterns: node.one_or_more_texts("objects")?, per_task: per_task.unwrap_or(1) },
        "lines" => {
            InputSpec::Lines { object: node.text("lines", "the name of a text object")?.to_owned(), per_task: per_task.unwrap_or(1) }
        }
        "parts" => parts(node)?,
        _ => InputSpec::Stage { stage: node.text("from", "the name of an earlier stage")?.to_owned(), mode: mode(f, per_task)? },
    };
    let grouped =
        matches!(spec, InputSpec::Objects { .. } | InputSpec::Lines { .. } | InputSpec::Stage { mode: ChainMode::Gather { .. }, .. });
    only_with(f, "per-task", grouped, "`objects`, `lines` and mode \"gather\"")?;
    only_with(f, "key", matches!(spec, InputSpec::Stage { mode: ChainMode::Group { .. }, .. }), "mode \"group\"")?;
    Ok(spec)
}

/// Reads `1-100`; both ends may be negative.
pub fn parse_array(text: &str) -> Result<InputSpec> {
    let bad = || Error::invalid(format!("`{}` is not a range of numbers; write it like `1-100`", text.escape_debug()));
    let text = text.trim();
    let dash = text.char_indices().skip(1).find(|(_, c)| *c == '-').map(|(at, _)| at).ok_or_else(bad)?;
    let number = |t: &str| t.trim().parse::<i64>().map_err(|_| bad());
    Ok(InputSpec::Array { first: number(&text[..dash])?, last: number(&text[dash + 1..])? })
}

fn array(node: &Node) -> Result<InputSpec> {
    node.at.locate(parse_array(node.text("array", "a range of numbers such as \"1-100\"")?))
}

fn parts(node: &Node) -> Result<InputSpec> {
    let f = node.fields("parts", &["objects", "size", "boundary", "header"])?;
    let boundaries = [("line", Boundary::Line), ("csv", Boundary::Csv), ("byte", Boundary::Byte)];
    Ok(InputSpec::Parts {
        patterns: f.need("objects", "objects = \"bucket/*.csv\"")?.one_or_more_texts("objects")?,
        bytes: f.opt("size", Node::size)?.unwrap_or(DEFAULT_PART_BYTES),
        boundary: f.opt("boundary", |n, k| n.word(k, &boundaries))?.unwrap_or(Boundary::Line),
        header: f.flag("header", false)?,
    })
}

fn mode(f: &Fields<'_>, per_task: Option<u64>) -> Result<ChainMode> {
    let words = [("stream", 's'), ("gather", 'g'), ("group", 'k')];
    match f.opt("mode", |n, k| n.word(k, &words))?.unwrap_or('s') {
        'g' => Ok(ChainMode::Gather { per_task }),
        'k' => Ok(ChainMode::Group { key: f.need("key", "key = \"^([a-z]+)-\"")?.text("key", "a regular expression")?.to_owned() }),
        _ => Ok(ChainMode::Stream),
    }
}

fn run(f: &Fields<'_>) -> Result<RunSpec> {
    let shell = f.flag("shell", false)?;
    if f.flag("noop", false)? {
        for key in ["command", "shell", "container"] {
            only_with(f, key, false, "a stage that is not `noop`")?;
        }
        return Ok(RunSpec::Noop);
    }
    if let Some(node) = f.get("container") {
        if shell {
            return Err(node.at.error(
                "`shell` does not go with `container`; write the shell out: command = [\"sh\", \"-c\", \"gzip <\\\"$1\\\" >\\\"$2\\\"\", \"sh\", \"{in}\", \"{out}\"]",
            ));
        }
        let argv = f.opt("command", Node::texts)?.unwrap_or_default();
        return container(node, argv);
    }
    let node = f.need("command", "command = [\"convert\", \"{in}\", \"{out}\"]")?;
    let argv = match (&node.value, shell) {
        (Value::Text(script), true) => vec![script.clone()],
        (Value::Text(_), false) => {
            let what = "`command` is a list of arguments: [\"convert\", \"{in}\", \"{out}\"]; for a script of /bin/sh add `shell = true` and write placeholders as \"$in\"";
            return Err(node.at.error(what));
        }
        (_, true) => return Err(node.wrong("command", "one string when `shell` is set")),
        (_, false) => node.texts("command")?,
    };
    Ok(RunSpec::Command { argv, shell })
}

fn container(node: &Node, argv: Vec<String>) -> Result<RunSpec> {
    let f = node.fields("container", &["image", "engine", "network"])?;
    Ok(RunSpec::Container(ContainerSpec {
        image: f.need("image", "image = \"debian:13\"")?.text("image", "a string")?.to_owned(),
        argv,
        engine: f.opt("engine", |n, k| n.word(k, &[("podman", "podman"), ("docker", "docker")]))?.unwrap_or_default().to_owned(),
        network: f.flag("network", false)?,
    }))
}

fn output(node: &Node) -> Result<OutputSpec> {
    if let Value::Text(name) = &node.value {
        return Ok(OutputSpec { name: Some(name.clone()), ..OutputSpec::default() });
    }
    if !matches!(node.value, Value::Table(_)) {
        return Err(node.wrong("output", "a file name such as \"{name}.jpg\", or a table"));
    }
    let f = node.fields("output", &["name", "folder", "stdout", "optional"])?;
    Ok(OutputSpec {
        name: f.text("name")?,
        folder: f.flag("folder", false)?,
        stdout: f.flag("stdout", false)?,
        optional: f.flag("optional", false)?,
    })
}

fn retry(f: &Fields<'_>) -> Result<RetrySpec> {
    let mut spec = RetrySpec::default();
    if let Some(retries) = f.opt("retries", Node::int::<u32>)? {
        only_with(f, "retry", false, "a stage without `retries`")?;
        spec.policy.attempts = retries.saturating_add(1);
    }
    let Some(node) = f.get("retry") else { return Ok(spec) };
    let r = node.fields("retry", &["attempts", "base", "cap", "on", "never-exit-codes", "attempts-by-class"])?;
    spec.policy.attempts = r.opt("attempts", Node::int)?.unwrap_or(spec.policy.attempts);
    spec.policy.base = r.opt("base", Node::duration)?.unwrap_or(spec.policy.base);
    spec.policy.cap = r.opt("cap", Node::duration)?.unwrap_or(spec.policy.cap);
    spec.classes = r.opt("on", classes)?.unwrap_or(spec.classes);
    spec.never_exit_codes = r.opt("never-exit-codes", codes)?.unwrap_or_default();
    spec.attempts_by_class = r.opt("attempts-by-class", attempts_by_class)?.unwrap_or_default();
    Ok(spec)
}

fn class(word: &str) -> Result<FailureClass> {
    FailureClass::from_word(&word.replace('-', "_")).ok_or_else(|| {
        let list = FailureClass::ALL.map(|c| c.as_str().replace('_', "-")).join(", ");
        Error::invalid(format!("`{}` is no class of failure; there are {list}", word.escape_debug()))
    })
}

fn classes(node: &Node, key: &str) -> Result<BTreeSet<FailureClass>> {
    let list = node.list(key, "a list of failure classes")?;
    list.iter().map(|n| n.at.locate(class(n.text(key, "a list of failure classes")?))).collect()
}

fn attempts_by_class(node: &Node, key: &str) -> Result<BTreeMap<FailureClass, u32>> {
    let entries = node.entries(key, "a table from failure classes to numbers")?;
    entries.iter().map(|e| Ok((e.at.locate(class(&e.key))?, e.node.int(&format!("{key}.{}", e.key))?))).collect()
}

fn codes(node: &Node, key: &str) -> Result<BTreeSet<i32>> {
    node.list(key, "a list of exit codes")?.iter().map(|n| n.int(key)).collect()
}

fn secrets(node: &Node, key: &str) -> Result<BTreeMap<String, SecretRef>> {
    let entries = node.entries(key, "a table such as { TOKEN = \"env:NAME\" }")?;
    let read = |n: &Node, variable: &str| n.at.locate(parse_secret(variable, n.text(&format!("{key}.{variable}"), "a string")?));
    entries.iter().map(|e| Ok((e.key.clone(), read(&e.node, &e.key)?))).collect()
}

/// Reads `env:NAME` or `file:/path`. The error does not repeat the text: it may be the secret itself.
pub fn parse_secret(variable: &str, text: &str) -> Result<SecretRef> {
    match text.split_once(':') {
        Some(("env", name)) => Ok(SecretRef::Env(name.to_owned())),
        Some(("file", path)) => Ok(SecretRef::File(path.to_owned())),
        _ => Err(Error::invalid(format!(
            "secret `{variable}` must say where the worker finds it: \"env:NAME\" or \"file:/path\"; the secret itself does not belong in a job"
        ))),
    }
}

fn keep(node: &Node) -> Result<KeepSpec> {
    let f = node.fields("keep", &["outputs", "logs"])?;
    Ok(KeepSpec { outputs: f.flag("outputs", true)?, logs: f.flag("logs", true)? })
}
