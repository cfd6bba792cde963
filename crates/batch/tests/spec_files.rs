//! Job files, good and bad: what they become, and the exact words they are refused with.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic anywhere")]

use std::time::Duration;

use tidemill_base::{ErrorKind, Timestamp};
use tidemill_batch::model::*;
use tidemill_batch::spec::{check_resources, from_json, from_toml};
use tidemill_blocks::fleet::Offers;

const NOW: Timestamp = Timestamp(1_700_000_000_000_000);

/// A job with one stage, whose lines begin at line 3.
fn one_stage(lines: &str) -> String {
    format!("name = \"n\"\n[[stage]]\n{lines}")
}

fn refused(text: &str) -> String {
    let e = from_toml(text, NOW).expect_err(text);
    assert_eq!(e.kind(), ErrorKind::Invalid, "{e:?}");
    e.to_string()
}

const FULL: &str = r#"
name = "claims"
class = "big"
priority = 10
after = ["j0001"]
at = "+10m"
timezone = "Europe/Berlin"
labels = { team = "claims", month = "2026-01" }

[[stage]]
name = "price"
parts = { objects = ["claims/2026/**/*.csv"], size = "4MiB", boundary = "csv", header = true }
command = ["price", "--rates", "r.json", "{in}", "{out}"]
output = { name = "{name}.out.csv", optional = true }
cpus = 2
memory = "512MiB"
resources = { gpu = 1 }
timeout = "5m"
success-codes = [0, 3]
env = { MODE = "batch {index}" }
secrets = { TOKEN = "env:PRICE_TOKEN", KEY = "file:/run/key" }
credentials = true
keep = { outputs = false }

[stage.retry]
attempts = 5
base = "2s"
cap = 60
on = ["exit", "lost-worker", "out_of_memory"]
never-exit-codes = [2]
attempts-by-class = { lost-worker = 9 }

[[stage]]
name = "sum"
from = "price"
mode = "group"
key = "^([a-z]+)-"
upstream = "take-what-succeeded"
command = "cat \"$inputs\" | xargs cat | sort > \"$out\""
shell = true
output = "{key}.csv"
retries = 0

[[stage]]
from = "sum"
mode = "gather"
per-task = 10
container = { image = "debian:13", engine = "podman", network = true }
command = ["cat", "{in}"]
output = { stdout = true }
"#;

#[test]
fn a_full_job_file_becomes_what_it_says() {
    let job = from_toml(FULL, NOW).unwrap();
    assert_eq!((job.class.as_str(), job.priority, job.after.as_slice()), ("big", 10, &["j0001".to_owned()][..]));
    assert_eq!(job.at, Some(NOW + Duration::from_secs(600)));
    assert_eq!(job.labels["team"], "claims");
    let [price, sum, last] = job.stages.as_slice() else { panic!("{} stages", job.stages.len()) };
    let patterns = vec!["claims/2026/**/*.csv".to_owned()];
    assert_eq!(price.input, InputSpec::Parts { patterns, bytes: 4 << 20, boundary: Boundary::Csv, header: true });
    assert_eq!((price.resources.cpus, price.resources.memory, price.resources.named["gpu"]), (2, 512 << 20, 1));
    assert_eq!(price.timeout.unwrap().0, Duration::from_secs(300));
    assert_eq!(price.success.exit_codes, [0, 3].into());
    assert_eq!(price.secrets["KEY"], SecretRef::File("/run/key".into()));
    assert_eq!((price.keep, price.credentials), (KeepSpec { outputs: false, logs: true }, true));
    assert_eq!(price.output, OutputSpec { name: Some("{name}.out.csv".into()), folder: false, stdout: false, optional: true });
    let retry = &price.retry;
    assert_eq!((retry.policy.attempts, retry.policy.base.0, retry.policy.cap.0), (5, Duration::from_secs(2), Duration::from_secs(60)));
    assert_eq!(retry.classes, [FailureClass::Exit, FailureClass::LostWorker, FailureClass::OutOfMemory].into());
    assert_eq!(retry.attempts_by_class[&FailureClass::LostWorker], 9);
    assert_eq!(sum.input, InputSpec::Stage { stage: "price".into(), mode: ChainMode::Group { key: "^([a-z]+)-".into() } });
    assert_eq!((sum.upstream, sum.retry.policy.attempts), (UpstreamPolicy::TakeWhatSucceeded, 1));
    assert!(matches!(&sum.run, RunSpec::Command { argv, shell: true } if argv.len() == 1));
    assert_eq!((last.name.as_str(), last.output.name.as_deref()), ("stage-3", Some("out")));
    assert!(matches!(&last.run, RunSpec::Container(c) if c.image == "debian:13" && c.engine == "podman" && c.network));
}

#[test]
fn json_of_the_same_shape_becomes_the_same_job() {
    let value: toml::Value = toml::from_str(FULL).unwrap();
    let json = serde_json::to_string(&value).unwrap();
    assert_eq!(from_json(&json, NOW).unwrap(), from_toml(FULL, NOW).unwrap());
    // What is stored is the checked job; it survives the way there and back.
    let job = from_toml(FULL, NOW).unwrap();
    assert_eq!(serde_json::from_slice::<JobSpec>(&serde_json::to_vec(&job).unwrap()).unwrap(), job);
}

#[test]
fn short_forms_and_defaults() {
    let job = from_toml(&one_stage("array = \"-3-5\"\ncommand = [\"echo\", \"{index}\"]\n"), NOW).unwrap();
    let stage = &job.stages[0];
    assert_eq!(stage.input, InputSpec::Array { first: -3, last: 5 });
    assert_eq!(
        (job.class.as_str(), job.timezone.as_str(), stage.name.as_str(), stage.output.name.as_deref()),
        ("default", "UTC", "stage-1", None)
    );
    assert_eq!((stage.resources.cpus, stage.retry.policy.attempts), (1, 3));
    let job = from_toml(&one_stage("objects = \"b/*.jpg\"\ncommand = [\"convert\", \"{in}\", \"{out}\"]"), NOW).unwrap();
    assert_eq!(job.stages[0].output.name.as_deref(), Some("{file}"));
    let at = format!("at = 2026-01-31T22:00:00+01:00\n{}", one_stage("array = \"1-1\"\nnoop = true"));
    assert_eq!(from_toml(&at, NOW).unwrap().at.unwrap().rfc3339(), "2026-01-31T21:00:00Z");
    let job = from_json(r#"{"name":"n","at":null,"stage":[{"lines":"b/l","per-task":2,"noop":true}]}"#, NOW).unwrap();
    assert_eq!(job.stages[0].input, InputSpec::Lines { object: "b/l".into(), per_task: 2 });
}

#[test]
fn mistakes_of_the_file_are_refused_with_line_and_column() {
    let cases = [
        ("name = ", "line 1, column 8: this is not TOML: string values must be quoted, expected literal string"),
        (
            "array = \"1-2\"\ncomand = [\"x\"]",
            "line 4, column 1: unknown key `comand` in [[stage]]; did you mean `command`? known keys: name,",
        ),
        ("array = \"1-2\"\nper_task = 2", "line 4, column 1: unknown key `per_task` in [[stage]]; did you mean `per-task`?"),
        ("array = 5", "line 3, column 9: `array` must be a range of numbers such as \"1-100\", not a whole number"),
        ("array = \"1..5\"", "line 3, column 9: `1..5` is not a range of numbers; write it like `1-100`"),
        ("command = [\"x\"]", "line 2, column 1: nothing says what it works on; give [[stage]] one of array, objects, lines, parts, from"),
        ("array = \"1-2\"\nlines = \"b/l\"", "line 2, column 1: `array` and `lines` exclude each other; give [[stage]] one of"),
        ("array = \"1-2\"\nmode = \"stream\"", "line 4, column 8: `mode` goes with `from` only; leave it out"),
        (
            "array = \"1-2\"\nper-task = 3",
            "line 4, column 12: `per-task` goes with `objects`, `lines` and mode \"gather\" only; leave it out",
        ),
        ("array = \"1-2\"", "line 2, column 1: [[stage]] has no `command`; write it like `command = [\"convert\", \"{in}\", \"{out}\"]`"),
        ("array = \"1-2\"\ncommand = \"ls\"", "line 4, column 11: `command` is a list of arguments: [\"convert\","),
        ("array = \"1-2\"\ncommand = [\"ls\", 3]", "line 4, column 18: `command` must be a list of strings, not a whole number"),
        ("array = \"1-2\"\nnoop = true\ntimeout = \"soon\"", "line 5, column 11: `soon` is not a duration; write it like `90s` or `1h30m`"),
        ("array = \"1-2\"\nnoop = true\nmemory = \"5QB\"", "line 5, column 10: size `5QB` has an unknown unit; write it like `512MiB`"),
        ("array = \"1-2\"\nnoop = true\ncpus = -1", "line 5, column 8: `cpus` cannot be -1"),
        (
            "array = \"1-2\"\nnoop = true\nretries = 1\n[stage.retry]\nattempts = 2",
            "line 6, column 1: `retry` goes with a stage without `retries` only",
        ),
        (
            "array = \"1-2\"\nnoop = true\nretry = { on = [\"exit\", \"sick\"] }",
            "line 5, column 25: `sick` is no class of failure; there are exit, signal,",
        ),
        (
            "array = \"1-2\"\nnoop = true\nsecrets = { TOKEN = \"hunter2\" }",
            "line 5, column 21: secret `TOKEN` must say where the worker finds it:",
        ),
        (
            "array = \"1-2\"\nnoop = true\nkeep = { logz = true }",
            "line 5, column 10: unknown key `logz` in keep; did you mean `logs`? known keys: outputs, logs",
        ),
        (
            "from = \"x\"\nmode = \"heap\"\nnoop = true",
            "line 4, column 8: `mode` must be one of \"stream\", \"gather\", \"group\", not \"heap\"",
        ),
        ("from = \"x\"\nmode = \"group\"\nnoop = true", "line 2, column 1: [[stage]] has no `key`; write it like `key = "),
        (
            "array = \"1-2\"\nshell = true\ncontainer = { image = \"x\" }",
            "line 5, column 13: `shell` does not go with `container`; write the shell out:",
        ),
        ("\"é\" = 1\narray = \"1-2\"", "line 3, column 1: unknown key `é` in [[stage]]; known keys:"),
        ("array = \"1-2\"\nnoop = true\nenv = { \"é\" = 1 }", "line 5, column 15: `env.é` must be a string, not a whole number"),
    ];
    for (lines, want) in cases {
        let text = if lines.starts_with("name") { lines.to_owned() } else { one_stage(lines) };
        let got = refused(&text);
        assert!(got.starts_with(want), "{lines:?}\n  said {got}\n  want {want}");
    }
    assert!(!refused(&one_stage("array = \"1-2\"\nnoop = true\nsecrets = { T = \"hunter2\" }")).contains("hunter2"));
    assert_eq!(
        refused("[[stage]]\narray = \"1-2\"\nnoop = true"),
        "line 1, column 1: the job has no `name`; write it like `name = \"thumbnails\"`"
    );
    assert_eq!(refused("name = \"x\""), "line 1, column 1: the job has no `stage`; write it like `[[stage]]`");
    let at = refused(&format!("at = \"2026-01-31\"\n{}", one_stage("array = \"1-2\"\nnoop = true")));
    assert_eq!(
        at,
        "line 1, column 6: `2026-01-31` is not a moment; write it with its offset like `2026-01-31T22:00:00Z`, or `+10m` for in ten minutes"
    );
}

#[test]
fn mistakes_of_json_are_refused_with_a_pointer() {
    for (json, want) in [
        (
            r#"{"name":"n","stage":[{"array":"1-2","comand":["x"]}]}"#,
            "/stage/0/comand: unknown key `comand` in [[stage]]; did you mean `command`?",
        ),
        (r#"{"name":7,"stage":[{"array":"1-2","noop":true}]}"#, "/name: `name` must be a string, not a whole number"),
        (r#"{"name":"n","stage":[{"array":"1-2","command":["x",7]}]}"#, "/stage/0/command/1: `command` must be a list of strings"),
        (r#"{"name":"n","labels":{"a/b~c":1},"stage":[]}"#, "/labels/a~1b~0c: `labels.a/b~c` must be a string"),
        (r#"{"name":"n"}"#, "at the top: the job has no `stage`"),
        (r#"[1]"#, "at the top: `the job` must be a table, not a list"),
        ("{\"name\": \n nope}", "line 2, column 3: this is not JSON: expected ident"),
        (r#"{"name":"n","priority":99999999999999999999,"stage":[]}"#, "/priority: "),
    ] {
        let got = from_json(json, NOW).unwrap_err().to_string();
        assert!(got.starts_with(want), "{json}\n  said {got}\n  want {want}");
    }
}

#[test]
fn what_makes_no_sense_is_refused_with_stage_and_field() {
    let array = "array = \"1-2\"\n";
    let objects = "objects = \"b/*\"\n";
    let cases = [
        (format!("{array}command = []"), "stage `stage-1`: command: is empty; give the program"),
        (format!("{array}command = [\"cat\", \"{{in}}\"]"), "stage `stage-1`: command: `{in}` is not given by an array; use `{index}`"),
        (
            format!("{objects}command = [\"cat\", \"{{line}}\"]"),
            "stage `stage-1`: command: `{line}` is not given by objects; it goes with `lines`",
        ),
        (
            format!("{objects}command = [\"cat\", \"{{key}}\"]"),
            "stage `stage-1`: command: `{key}` is not given by objects; it goes with mode \"group\"",
        ),
        (
            "lines = \"b/l\"\ncommand = [\"cat\", \"{in}\"]".into(),
            "stage `stage-1`: command: `{in}` is not given by lines; use `{line}`, or `{inputs}`",
        ),
        (
            format!("{objects}command = [\"cat\", \"{{nam}}\"]"),
            "stage `stage-1`: command: `{nam}` is not a placeholder; did you mean `{name}`? there are {in},",
        ),
        (
            format!("{objects}per-task = 3\ncommand = [\"cat\", \"-i{{in}}\"]"),
            "stage `stage-1`: command: `{in}` in `-i{in}` may stand for several files here; write it as",
        ),
        (
            format!("{objects}command = \"cat {{in}}\"\nshell = true"),
            "stage `stage-1`: command: `{in}` is not filled in within a shell script; write \"$in\" with its quotes",
        ),
        (format!("{array}command = \"cat $in\"\nshell = true"), "stage `stage-1`: command: `{in}` is not given by an array"),
        (format!("{array}noop = true\ncpus = 0"), "stage `stage-1`: cpus: is 0; a task takes at least 1"),
        (
            format!("{array}noop = true\ntimeout = 0"),
            "stage `stage-1`: timeout: is zero; give the longest time a task may take, or leave it out",
        ),
        (format!("{array}noop = true\nretry = {{ attempts = 0 }}"), "stage `stage-1`: retry.attempts: 0 tries will not do; give 1 to 100"),
        (format!("{array}noop = true\nretry = {{ base = \"10m\" }}"), "stage `stage-1`: retry.base: 10m00s is longer than `cap`, 5m00s"),
        (
            format!("{array}noop = true\nretry = {{ attempts-by-class = {{ input = 4 }} }}"),
            "stage `stage-1`: retry.attempts-by-class.input: this class is not among",
        ),
        (
            format!("{array}noop = true\nsuccess-codes = [256]"),
            "stage `stage-1`: success-codes: 256 is not an exit code; they go from 0 to 255",
        ),
        (format!("{array}noop = true\nsuccess-codes = []"), "stage `stage-1`: success-codes: is empty"),
        (
            format!("{array}noop = true\nenv = {{ \"A=B\" = \"x\" }}"),
            "stage `stage-1`: env: `A=B` cannot be a variable's name; use letters, digits and _",
        ),
        (
            format!("{array}noop = true\nsecrets = {{ A = \"file:key\" }}"),
            "stage `stage-1`: secrets.A: `file:` is followed by an absolute path on the worker",
        ),
        (
            format!("{array}noop = true\nenv = {{ A = \"x\" }}\nsecrets = {{ A = \"env:B\" }}"),
            "stage `stage-1`: env.A: is among `secrets` too; keep one of them",
        ),
        (format!("{array}noop = true\nresources = {{ gpu = 0 }}"), "stage `stage-1`: resources: `gpu` = 0 will not do"),
        (format!("{array}noop = true\nupstream = \"require-all\""), "line 5, column 12: `upstream` goes with `from` only"),
        (
            format!("{array}command = [\"x\", \"{{out}}\"]\noutput = \"../x\""),
            "stage `stage-1`: output name: `../x` has the segment `..`; give a plain name",
        ),
        (
            format!("{array}command = [\"x\", \"{{out}}\"]\noutput = \"/x\""),
            "stage `stage-1`: output name: `/x` is absolute; give a name relative",
        ),
        (
            format!("{array}command = [\"x\", \"{{out}}\"]\noutput = \"a//{{index}}\""),
            "stage `stage-1`: output name: `a//{index}` has an empty segment",
        ),
        (
            format!("{array}command = [\"x\", \"{{out}}\"]\noutput = \"{{name}}\""),
            "stage `stage-1`: output: `{name}` is not given by an array; use `{index}`",
        ),
        (
            format!("{array}command = [\"x\", \"{{out}}\"]\noutput = \"{{out}}.x\""),
            "stage `stage-1`: output: `{out}` is a path on the worker and no part of a name",
        ),
        (
            format!("{array}command = [\"x\"]\noutput = \"x\""),
            "stage `stage-1`: output: nothing says how it is written; put `{out}` into the command",
        ),
        (
            format!("{array}command = [\"x\", \"{{out}}\"]\noutput = {{ stdout = true }}"),
            "stage `stage-1`: output: `stdout` makes standard output the output file",
        ),
        (
            format!("{array}command = [\"x\", \"{{out}}\"]\noutput = {{ folder = true, name = \"a\" }}"),
            "stage `stage-1`: output: `folder` takes every file",
        ),
        ("array = \"5-1\"\nnoop = true".into(), "stage `stage-1`: array: 5-1 is empty; write the smaller number first"),
        (
            "objects = \"b*/x\"\nnoop = true".into(),
            "stage `stage-1`: objects: `b*/x` has a wildcard in its first segment, which is the bucket",
        ),
        ("objects = \"b\"\nnoop = true".into(), "stage `stage-1`: objects: `b` names a bucket only; write bucket and path"),
        ("objects = \"/b/x\"\nnoop = true".into(), "stage `stage-1`: objects: `/b/x` begins with /; objects are named by bucket and path"),
        (
            "objects = \"s3://b/x\"\nnoop = true".into(),
            "stage `stage-1`: objects: `s3://b/x` begins with `s3://`; write bucket and path only: `b/x`",
        ),
        ("objects = \"b/../x\"\nnoop = true".into(), "stage `stage-1`: objects: `b/../x` has the segment `..`, which no object's name has"),
        (
            "objects = \"b/a\\nb\"\nnoop = true".into(),
            "stage `stage-1`: objects: `b/a\\nb` has control characters, which no object's name has",
        ),
        ("objects = []\nnoop = true".into(), "stage `stage-1`: objects: is empty; give a pattern"),
        ("objects = \"b/x\"\nper-task = 0\nnoop = true".into(), "stage `stage-1`: per-task: is 0; give at least 1"),
        ("lines = \"b/*.txt\"\nnoop = true".into(), "stage `stage-1`: lines: `b/*.txt` is a pattern; name one object"),
        ("parts = { objects = \"b/x\", size = 0 }\nnoop = true".into(), "stage `stage-1`: parts.size: is zero"),
        (
            "parts = { objects = \"b/x\", boundary = \"byte\", header = true }\nnoop = true".into(),
            "stage `stage-1`: parts.header: does not go with boundary \"byte\"",
        ),
        ("from = \"other\"\nnoop = true".into(), "stage `stage-1`: from: no earlier stage is called `other`; this is the first stage"),
        (format!("name = \"A b\"\n{array}noop = true"), "stage name: `A b` will not do; use 1 to 40 of a-z, 0-9, - and _"),
    ];
    for (lines, want) in cases {
        let got = refused(&one_stage(&lines));
        assert!(got.starts_with(want), "{lines}\n  said {got}\n  want {want}");
    }
}

#[test]
fn the_program_s_own_bucket_is_no_input() {
    for input in ["objects = \"system/tls/*\"", "lines = \"system/tls/key.pem\"", "parts = { objects = \"system/**\", size = \"1MiB\" }"] {
        let got = refused(&one_stage(&format!("{input}\nnoop = true")));
        assert!(got.contains("is in the bucket `system`, which is the program's own"), "{got}");
    }
}

#[test]
fn stages_that_do_not_fit_together_are_refused() {
    let two = |first: &str, second: &str| {
        refused(&format!("{}\n[[stage]]\n{second}", one_stage(&format!("name = \"one\"\narray = \"1-2\"\n{first}"))))
    };
    for (first, second, want) in [
        ("noop = true", "name = \"one\"\narray = \"1-2\"\nnoop = true", "stage name: `one` is there twice; give each stage its own"),
        (
            "noop = true",
            "from = \"on\"\nnoop = true",
            "stage `stage-2`: from: no earlier stage is called `on`; did you mean `one`? there are one",
        ),
        (
            "noop = true",
            "from = \"one\"\ncommand = [\"cat\", \"{in}\"]",
            "stage `stage-2`: from: stage `one` puts nothing out; let its command write `{out}`",
        ),
        (
            "noop = true",
            "from = \"one\"\nmode = \"group\"\nkey = \"(a)\"\nnoop = true",
            "stage `stage-2`: from: stage `one` puts nothing out",
        ),
        (
            "command = [\"x\", \"{out}\"]",
            "from = \"one\"\nmode = \"group\"\nkey = \"a\"\nnoop = true",
            "stage `stage-2`: key: `a` has 0 capture groups and not one; write",
        ),
        (
            "command = [\"x\", \"{out}\"]",
            "from = \"one\"\nmode = \"group\"\nkey = \"(a\"\nnoop = true",
            "stage `stage-2`: key: `(a` is not a regular expression: unclosed group",
        ),
        (
            "noop = true",
            "from = \"one\"\nupstream = \"take-what-succeeded\"\nnoop = true",
            "stage `stage-2`: upstream: \"take-what-succeeded\" goes with mode",
        ),
    ] {
        let got = two(first, second);
        assert!(got.starts_with(want), "{second}\n  said {got}\n  want {want}");
    }
    for (line, want) in [
        ("priority = 1001", "priority: 1001 is out of range; give a number from -1000 to 1000"),
        ("class = \"Big\"", "class: `Big` will not do; use 1 to 40 of a-z, 0-9 and -"),
        ("cron = \"* *\"", "cron: `* *` cannot be read: it has 2 fields and not five"),
        ("cron = \"0 2 * * *\"\ntimezone = \"Berlin\"", "timezone: `Berlin` is not known; write an IANA name"),
        ("cron = \"0 2 * * *\"\nat = \"+1h\"", "cron: excludes `at`; give one of them"),
        ("after = [\"my job\"]", "after: `my job` is not a job's id; `tidemill batch list` shows them"),
        ("labels = { \" \" = \"x\" }", "labels: is empty; give it a word or two"),
    ] {
        let got = refused(&format!("{line}\n{}", one_stage("array = \"1-2\"\nnoop = true")));
        assert!(got.starts_with(want), "{line}\n  said {got}\n  want {want}");
    }
}

#[test]
fn too_much_is_refused_with_the_limit() {
    let job = |lines: String| from_toml(&one_stage(&lines), NOW).unwrap_err();
    let args = vec!["\"x\""; 1001].join(",");
    let env: String = (0..501).map(|i| format!("V{i} = \"\"\n")).collect();
    let stages: String = (0..100).map(|_| "[[stage]]\narray = \"1-2\"\nnoop = true\n").collect();
    for (e, want) in [
        (job(format!("array = \"1-2\"\ncommand = [{args}]")), "stage `stage-1`: command: arguments: 1001 are more than the limit of 1000"),
        (
            job(format!("array = \"1-2\"\ncommand = [\"{}\"]", "x".repeat(131_072))),
            "stage `stage-1`: command: bytes of an argument: 131072 are more",
        ),
        (
            job(format!("array = \"1-2\"\nnoop = true\n[stage.env]\n{env}")),
            "stage `stage-1`: env: variables: 501 are more than the limit of 500",
        ),
        (job(format!("array = \"1-2\"\nnoop = true\n{stages}")), "stage: 101 are more than the limit of 100"),
        (
            job("array = \"1-1000000001\"\nnoop = true".into()),
            "stage `stage-1`: array: tasks: 1000000001 are more than the limit of 1000000000",
        ),
        (job("#".repeat(1 << 20)), "the job file has 1048597 bytes, the limit is 1048576; put long lists into an object and use `lines`"),
    ] {
        assert_eq!(e.kind(), ErrorKind::Exhausted, "{e}");
        assert!(e.to_string().starts_with(want), "said {e}\nwant {want}");
    }
    assert!(from_toml(&one_stage("array = \"1-1000000000\"\nnoop = true"), NOW).is_ok());
}

#[test]
fn resources_that_no_worker_has_are_refused_with_what_the_largest_has() {
    let offer =
        |slots, memory, gpu: u64| Offers { slots, memory, named: if gpu > 0 { [("gpu".to_owned(), gpu)].into() } else { [].into() } };
    let offers = [offer(8, 4 << 30, 0), offer(2, 16 << 30, 2)];
    let check =
        |needs: &str| check_resources(&from_toml(&one_stage(&format!("array = \"1-2\"\nnoop = true\n{needs}")), NOW).unwrap(), &offers);
    for good in ["cpus = 8", "memory = \"16GiB\"\ncpus = 2", "resources = { gpu = 2 }"] {
        check(good).unwrap();
    }
    for (needs, why) in [
        ("cpus = 9", "9 cpus asked for, the largest worker has 8"),
        ("memory = \"17GiB\"", "17 GiB of memory asked for, the largest worker has 16 GiB"),
        ("resources = { gpu = 3 }", "3 of `gpu` asked for, the largest worker has 2"),
        ("resources = { tpu = 1 }", "`tpu` asked for, no worker has it"),
        ("cpus = 8\nresources = { gpu = 1 }", "each resource is there, but no single worker has all of them at once"),
    ] {
        let want = format!("stage `stage-1`: resources: {why} in class `default`; ask for less, or submit to a class with larger workers");
        assert_eq!(check(needs).unwrap_err().to_string(), want);
    }
    check_resources(&from_toml(&one_stage("array = \"1-2\"\nnoop = true\ncpus = 99"), NOW).unwrap(), &[]).unwrap();
}

#[test]
fn any_bytes_are_read_or_refused_and_never_panic() {
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..3000 {
        let mut bytes = FULL.as_bytes().to_vec();
        for _ in 0..rng.usize(1..6) {
            let at = rng.usize(..bytes.len());
            match rng.u8(0..3) {
                0 => bytes[at] = rng.u8(32..127),
                1 => drop(bytes.drain(at..(at + rng.usize(0..20)).min(bytes.len()))),
                _ => bytes.insert(at, *rng.choice(b"{}[]\"='\n,").unwrap()),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        if let Err(e) = from_toml(&text, NOW) {
            assert!(matches!(e.kind(), ErrorKind::Invalid | ErrorKind::Exhausted), "{e:?}");
            assert!(!e.to_string().contains('\n'), "{e}");
        }
        let _ = from_json(&text, NOW);
    }
}
