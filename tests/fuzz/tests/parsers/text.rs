//! Small texts that people write: sizes, spans and points of time, names, patterns, placeholders.

use std::ffi::OsString;
use std::path::{Component, Path};

use tidemill_base::{ByteSize, HumanDuration, Timestamp, parse_duration};
use tidemill_batch::cut::Glob;
use tidemill_batch::fleet::Load;
use tidemill_batch::spec::template::{brace_in_script, shell_variables};
use tidemill_batch::spec::{
    CommandInput, CommandLine, Placeholder, Template, Vars, check_output_name, expand_args, next_tick, parse_array, parse_at,
};
use tidemill_fuzz::{Settings, fuzz, shape};

use crate::{refused, text};

/// 2026-01-31T12:00:00Z.
const NOW: Timestamp = Timestamp(1_769_860_800_000_000);

#[test]
fn sizes() {
    let settings = Settings { tokens: &["KiB", "MB", "T", ".5", "18446744073709551615", " "], runs: 60_000, ..Settings::default() };
    fuzz("sizes", settings, |input| {
        let text = text(input);
        let size = match text.parse::<ByteSize>() {
            Ok(size) => size.bytes(),
            Err(e) => return refused(&e),
        };
        // Whole numbers are exact, whatever their unit.
        let digits = text.trim().find(|c: char| !c.is_ascii_digit()).unwrap_or(text.trim().len());
        let (number, unit) = text.trim().split_at(digits);
        if let Ok(number) = number.parse::<u128>()
            && !unit.starts_with('.')
        {
            let unit = unit.trim().to_ascii_lowercase();
            let thousands = unit.len() == 2 && unit.ends_with('b');
            let power = "bkmgt".find(unit.chars().next().unwrap_or('b')).unwrap();
            let factor = if thousands { 1000_u128 } else { 1024 }.pow(u32::try_from(power).unwrap());
            assert_eq!(u128::from(size), number * factor);
        }
        // JSON carries the number, and a number is a size.
        let json = serde_json::to_string(&ByteSize(size)).unwrap();
        assert_eq!(serde_json::from_str::<ByteSize>(&json).unwrap(), ByteSize(size));
        shape(ByteSize(size))
    });
}

#[test]
fn durations() {
    let settings = Settings { tokens: &["us", "ms", "1h30m", "min", "d", "0.5", "."], runs: 60_000, ..Settings::default() };
    fuzz("durations", settings, |input| {
        let text = text(input);
        let read = match parse_duration(&text) {
            Ok(read) => read,
            Err(e) => return refused(&e),
        };
        // A job is stored as JSON: what is read there has to be what was written in the file.
        let json = serde_json::to_string(&HumanDuration(read)).unwrap();
        assert_eq!(serde_json::from_str::<HumanDuration>(&json).unwrap().0, read, "{json}");
        assert!(!HumanDuration(read).to_string().is_empty());
        shape(HumanDuration(read))
    });
}

#[test]
fn moments() {
    let tokens = &["+10m", "2026-01-31T22:00:00Z", "+01:00", "[Europe/Berlin]", "9999-12-31", "-009999", "T24:00", ".999999999"];
    fuzz("moments", Settings { tokens, ..Settings::default() }, |input| {
        let text = text(input);
        match parse_at(&text, NOW) {
            Ok(at) => {
                if text.starts_with('+') {
                    assert!(at >= NOW, "a wait that lies in the past");
                } else {
                    assert_eq!(parse_at(&at.rfc3339(), NOW).unwrap(), at, "it is shown as {at}");
                }
                shape(at)
            }
            Err(e) => refused(&e),
        }
    });
}

#[test]
fn cron() {
    let tokens = &["*/5", "@daily", "MON-FRI", "L", "#2", "W", "29 2", "JAN", "?", "\n0 0 1 1 *", "1-59/7", "Europe/Berlin", "\nUTC"];
    let settings = Settings { tokens, runs: 3_000, max_len: 200, ..Settings::default() };
    fuzz("cron", settings, |input| {
        let text = text(input);
        let (line, zone) = text.split_once('\n').unwrap_or((&text, "UTC"));
        let first = match next_tick(line, zone, NOW) {
            Ok(first) => first,
            Err(e) => return refused(&e),
        };
        assert!(first > NOW, "the next tick {first} is not after {NOW}");
        assert_eq!(first.micros() % 60_000_000, 0, "{first} is no whole minute");
        let second = std::time::Duration::from_secs(1);
        assert_eq!(next_tick(line, zone, first - second).unwrap(), first, "a tick is found from shortly before it");
        match next_tick(line, zone, first) {
            Ok(then) => assert!(then > first, "{then} is not after {first}"),
            Err(e) => assert!(e.message().contains("never"), "{e}"),
        }
        shape("ticks")
    });
}

#[test]
fn arrays() {
    fuzz("arrays", Settings { tokens: &["-", "9223372036854775807", "-9223372036854775808"], ..Settings::default() }, |input| {
        let text = text(input);
        match parse_array(&text) {
            Ok(tidemill_batch::model::InputSpec::Array { first, last }) => {
                assert_eq!(parse_array(&format!("{first}-{last}")).unwrap(), parse_array(&text).unwrap());
                let job = CommandLine { input: CommandInput::Array(first, last), argv: vec!["true".into()], ..CommandLine::default() };
                let count = i128::from(last) - i128::from(first) + 1;
                assert_eq!(job.into_job().is_ok(), (1..=1_000_000_000).contains(&count), "{count} tasks");
                shape(first < last)
            }
            Ok(other) => panic!("an array became {other:?}"),
            Err(e) => refused(&e),
        }
    });
}

#[test]
fn templates() {
    let tokens = &["{in}", "{{in}}", "{{{name}}}", "{out", "line}", "{", "}", "${in}", "$name", "{index}", "{}", "{nope}"];
    fuzz("templates", Settings { tokens, ..Settings::default() }, |input| {
        let text = text(input);
        let mut vars = Vars::default();
        vars.set_inputs(["a.jpg"]);
        for placeholder in Placeholder::ALL.iter().filter(|p| **p != Placeholder::In) {
            vars.set(*placeholder, format!("<{}>", placeholder.as_str()));
        }
        // Whatever the text, written literally it comes out as it is.
        let literal = Template::parse(&written_literally(&text)).unwrap();
        assert_eq!(literal.expand(&vars).unwrap(), OsString::from(&*text));
        assert!(literal.placeholders().is_empty());
        let (before, after) = text.split_at(text.floor_char_boundary(text.len() / 2));
        let around = format!("{} {{file}} {}", written_literally(before), written_literally(after));
        assert_eq!(Template::parse(&around).unwrap().expand_text(&vars).unwrap(), format!("{before} <file> {after}"));
        let (_, _) = (shell_variables(&text), brace_in_script(&text));
        let template = match Template::parse(&text) {
            Ok(template) => template,
            Err(e) => return refused(&e),
        };
        let used = template.placeholders();
        let out = template.expand_text(&vars).unwrap();
        if used.is_empty() {
            assert_eq!(Template::parse(&written_literally(&out)).unwrap(), template);
        }
        for placeholder in &used {
            assert!(out.contains(if *placeholder == Placeholder::In { "a.jpg" } else { placeholder.as_str() }));
        }
        // A value is one argument, whatever is in it.
        vars.set(Placeholder::Line, "; rm -rf ~ {in} \"").set_inputs(["x y", "z"]);
        if let Ok(args) = expand_args(std::slice::from_ref(&template), &vars) {
            assert_eq!(args.len(), if template.is_just(Placeholder::In) { 2 } else { 1 });
        }
        shape(format_args!("{used:?}"))
    });
}

/// The text with the braces of each `{word}` written so that they stand for themselves: a pair more for each.
fn written_literally(text: &str) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('{') {
        let open = rest[at..].len() - rest[at..].trim_start_matches('{').len();
        let after = &rest[at + open..];
        let word = after.len() - after.trim_start_matches(|c: char| c.is_ascii_lowercase() || c == '_').len();
        let close = after[word..].len() - after[word..].trim_start_matches('}').len();
        let pairs = if word > 0 { open.min(close) } else { 0 };
        out.push_str(&rest[..at + open]);
        out.push_str(&"{".repeat(pairs));
        out.push_str(&after[..word + close]);
        out.push_str(&"}".repeat(pairs));
        rest = &after[word + close..];
    }
    out + rest
}

#[test]
fn globs() {
    let tokens = &["**", "*", "?", "/", "**/", "/**", "b/", "\n", "[", "{a,b}", "\\"];
    let settings = Settings { tokens, runs: 1_500, max_len: 120, memory: 16 << 20, ..Settings::default() };
    fuzz("globs", settings, |input| {
        let text = text(input);
        let (pattern, name) = text.split_once('\n').unwrap_or((&text, "b/x/y.csv"));
        let glob = match Glob::new(pattern) {
            Ok(glob) => glob,
            Err(e) => return refused(&e),
        };
        let matches = glob.matches(name);
        // A pattern is matched step by step here, the slow way.
        let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
        let stars = pattern.iter().filter(|c| **c == '*').count();
        if stars <= 6 {
            assert_eq!(matches, matches_slowly(&pattern, &name, true), "{pattern:?} {name:?}");
        }
        if matches {
            let listed: String = name.into_iter().collect();
            assert!(listed == glob.prefix() || listed.starts_with(&format!("{}/", glob.prefix())) || glob.prefix().is_empty());
        }
        shape(format_args!("{matches} {}", "*".repeat(stars.min(7))))
    });
}

/// `*` and `?` within a segment, `**` alone in a segment for any number of them, `**` beside other things for anything at all.
fn matches_slowly(pattern: &[char], name: &[char], at_start: bool) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', '*', '/', rest @ ..] if at_start => {
            matches_slowly(rest, name, true)
                || (1..name.len()).filter(|at| name[*at] == '/').any(|at| matches_slowly(rest, &name[at + 1..], true))
        }
        ['*', '*'] if at_start => !name.is_empty(),
        ['*', '*', ..] => {
            let stars = pattern.iter().take_while(|c| **c == '*').count();
            (0..=name.len()).any(|at| matches_slowly(&pattern[stars..], &name[at..], false))
        }
        ['*', rest @ ..] => {
            let segment = name.iter().take_while(|c| **c != '/').count();
            (0..=segment).any(|at| matches_slowly(rest, &name[at..], false))
        }
        ['?', rest @ ..] => name.first().is_some_and(|c| *c != '/') && matches_slowly(rest, &name[1..], false),
        [c, rest @ ..] => name.first() == Some(c) && matches_slowly(rest, &name[1..], *c == '/'),
    }
}

#[test]
fn output_names() {
    let tokens = &["../", "./", "//", "/", "\0", "..", "a/b", "\u{202e}"];
    fuzz("output_names", Settings { tokens, ..Settings::default() }, |input| {
        let name = text(input);
        match check_output_name(&name) {
            Ok(()) => {
                // Joined to a folder it stays in there, and the object store takes it as it is.
                let parts: Vec<_> = Path::new(&*name).components().collect();
                assert!(!parts.is_empty() && parts.iter().all(|c| matches!(c, Component::Normal(_))), "{parts:?}");
                assert_eq!(object_store::path::Path::parse(&*name).unwrap().as_ref(), &*name);
                shape("i".repeat(parts.len().min(3)))
            }
            Err(e) => refused(&e),
        }
    });
}

#[test]
fn scopes() {
    use tidemill_server::auth::{EVERYTHING, Role, check_scope, covers};
    fuzz("scopes", Settings { tokens: &["*", ":", "batch", "files:", "admin", "worker"], ..Settings::default() }, |input| {
        let text = text(input);
        let (held, wanted) = text.split_once('\n').unwrap_or((&text, "batch:submit"));
        if let Ok(role) = text.parse::<Role>() {
            assert_eq!(role.as_str(), &*text);
        }
        if let Err(e) = check_scope(held) {
            return refused(&e);
        }
        let words = |scope: &str| scope.split(':').map(str::to_owned).collect::<Vec<_>>();
        let expected = held == EVERYTHING || words(wanted).starts_with(&words(held));
        assert_eq!(covers(&[held.to_owned()], wanted), expected);
        shape(expected)
    });
}

#[test]
fn queue_names() {
    use tidemill_blocks::{queue, table};
    fuzz("queue_names", Settings { tokens: &["batch.work.", "..", "A", "-"], runs: 40_000, ..Settings::default() }, |input| {
        let name = text(input);
        let good = !name.is_empty() && name.len() <= 80 && name.chars().all(|c| "abcdefghijklmnopqrstuvwxyz0123456789-_.".contains(c));
        assert_eq!(queue::check_name(&name).is_ok(), good);
        assert_eq!(table::check_name(&name).is_ok(), good);
        shape(good)
    });
}

#[test]
fn loads() {
    fuzz("loads", Settings { tokens: &[",", "\n", "inf", "nan", "1e308", "-0", "at,tasks,each"], ..Settings::default() }, |input| {
        match Load::from_csv(&text(input)) {
            Ok(load) => {
                assert!(load.0.windows(2).all(|w| w[0].at_s <= w[1].at_s));
                assert!(load.0.iter().all(|a| a.at_s.is_finite() && a.at_s >= 0.0 && a.task_s.is_finite() && a.task_s >= 0.0));
                let again: String = load.0.iter().map(|a| format!("{},{},{}\n", a.at_s, a.tasks, a.task_s)).collect();
                assert_eq!(Load::from_csv(&again).unwrap(), load);
                shape("i".repeat(load.0.len().min(3)))
            }
            Err(e) => refused(&e),
        }
    });
}
