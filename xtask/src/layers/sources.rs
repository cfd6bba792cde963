//! What holds for the sources themselves: how long files and functions may get, words that must not stay, and that every crate says
//! what it is.
//!
//! The limits are a ratchet. What is longer is listed in [`LONGER`] with the length it has, and may only shrink; some things want
//! to be long, but they should not grow unseen.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const FILE_LINES: usize = 600;
const FUNCTION_LINES: usize = 100;

/// Longer than the limits, and no longer than this: `path`, or `path::function`.
const LONGER: &[(&str, usize)] = &[
    // Every reason a job can wait for, each told as a story.
    ("crates/batch/src/explain/tests/held.rs::jobs_that_have_not_started_or_are_held", 107),
    ("crates/batch/src/explain/tests/capacity.rs::work_that_nobody_takes", 132),
    ("crates/batch/src/explain/tests/failed.rs::tasks_that_failed_or_wait_for_others", 146),
    // One table of what is refused, and the words it is refused with.
    ("crates/batch/tests/spec_files.rs::what_makes_no_sense_is_refused_with_stage_and_field", 125),
];

/// Written in two parts so that this file does not find itself.
const WORDS: &[(&str, &str)] = &[
    (concat!("TO", "DO"), "do it, or open an issue"),
    (concat!("FIX", "ME"), "mend it, or open an issue"),
    (concat!("XX", "X"), "say what is wrong, in an issue"),
    (concat!("to", "do!("), "finish it"),
    (concat!("un", "implemented!("), "finish it, or answer `Unsupported`"),
    (concat!("d", "bg!("), "remove it"),
    (concat!("#[ig", "nore]"), "a test that cannot run prints `SKIPPED name: why`"),
];

/// Kinds of files that are looked at.
const KINDS: [&str; 8] = ["rs", "toml", "md", "py", "ts", "svelte", "sh", "yaml"];
/// Folders that hold no sources of ours.
const NOT_OURS: [&str; 5] = ["target", "node_modules", "dist", "__pycache__", "fixtures"];

/// A source file, its path relative to the checkout.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// All sources of the checkout.
pub(crate) fn read(root: &Path) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if name.starts_with('.') || NOT_OURS.contains(&name.as_str()) {
                continue;
            }
            // Links are passed over: what they lead to is elsewhere, or is looked at where it lies.
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() && path.extension().and_then(|e| e.to_str()).is_some_and(|e| KINDS.contains(&e)) {
                found.push(source(root, path)?);
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn source(root: &Path, path: PathBuf) -> Result<Source> {
    let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
    Ok(Source { path, text })
}

/// What is wrong with one file.
pub(crate) fn violations(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    words(source, &mut found);
    if source.path.ends_with(".rs") {
        lengths(source, LONGER, &mut found);
        if is_crate_top(&source.path) && !source.text.starts_with("//! ") {
            found.push(format!("{}: begin with a `//!` comment that says what the crate is, and why", source.path));
        }
    }
    found
}

fn is_crate_top(path: &str) -> bool {
    path.ends_with("src/lib.rs") || path.ends_with("src/main.rs")
}

fn words(source: &Source, found: &mut Vec<String>) {
    for (number, line) in source.text.lines().enumerate() {
        for (word, instead) in WORDS.iter().filter(|(word, _)| has_word(line, word)) {
            found.push(format!("{}:{}: `{word}`: {instead}", source.path, number + 1));
        }
    }
}

/// Whether `word` stands in the line by itself and not inside a longer one.
fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back().is_some_and(part_of_word);
        let after = line[at + word.len()..].chars().next().is_some_and(part_of_word);
        !(before && word.starts_with(part_of_word) || after && word.ends_with(part_of_word))
    })
}

fn lengths(source: &Source, longer: &[(&str, usize)], found: &mut Vec<String>) {
    let allowed = |name: &str, limit: usize| longer.iter().find(|(n, _)| *n == name).map_or(limit, |(_, lines)| *lines);
    let lines = source.text.lines().count();
    if lines > allowed(&source.path, FILE_LINES) {
        found.push(format!(
            "{}: {lines} lines, at most {}; cut it by what a reader looks for",
            source.path,
            allowed(&source.path, FILE_LINES)
        ));
    }
    for (function, line, lines) in functions(&source.text) {
        let limit = allowed(&format!("{}::{function}", source.path), FUNCTION_LINES);
        if lines > limit {
            found.push(format!("{}:{line}: `{function}` has {lines} lines, at most {limit}", source.path));
        }
    }
}

/// Functions with the line they begin at and how many they have. Relies on the sources being formatted: a body ends with a brace
/// at the indentation of its `fn`.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let Some(open) = (start..lines.len()).find(|&i| lines[i].ends_with(['{', ';', '}'])) else { continue };
        if !lines[open].ends_with('{') {
            continue;
        }
        let closes = |l: &str| l.len() - l.trim_start().len() == indent && l.trim_start().starts_with('}');
        if let Some(end) = (open + 1..lines.len()).find(|&i| closes(lines[i])) {
            found.push((name, start + 1, end - start + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    loop {
        let word = words.next()?;
        match word {
            "fn" => return words.next().map(|name| name.split(['(', '<']).next().unwrap_or(name).to_owned()),
            "async" | "const" | "unsafe" | "extern" => {}
            word if word.starts_with("pub") || word == "\"C\"" || word.ends_with(')') => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rust(path: &str, text: &str) -> Source {
        Source { path: path.to_owned(), text: text.to_owned() }
    }

    fn long_function(lines: usize) -> String {
        format!(
            "//! Doc.\n\nimpl X {{\n    pub(crate) async fn carry(\n        &self,\n    ) {{\n{}    }}\n}}\n",
            "        work();\n".repeat(lines)
        )
    }

    #[test]
    fn words_that_must_not_stay_are_found_with_their_line() {
        for (word, _) in WORDS {
            let found = violations(&rust("src/a.rs", &format!("//! Doc.\n// {word} x\n")));
            assert_eq!(found.len(), 1, "{word}: {found:?}");
            assert!(found[0].starts_with(&format!("src/a.rs:2: `{word}`")), "{found:?}");
        }
        let inside = rust("src/a.rs", concat!("mktemp /tmp/x.", "XX", "XX", "XX; METHO", "DOLOGY; my_to", "do"));
        assert_eq!(violations(&inside), Vec::<String>::new());
    }

    #[test]
    fn a_long_file_is_found() {
        let found = violations(&rust("src/a.rs", &"//! Doc.\n".repeat(FILE_LINES + 1)));
        assert_eq!(found, ["src/a.rs: 601 lines, at most 600; cut it by what a reader looks for"]);
        assert!(violations(&rust("src/a.rs", &"//! Doc.\n".repeat(FILE_LINES))).is_empty());
    }

    #[test]
    fn a_long_function_is_found() {
        assert!(violations(&rust("src/a.rs", &long_function(FUNCTION_LINES - 4))).is_empty());
        let found = violations(&rust("src/a.rs", &long_function(FUNCTION_LINES - 3)));
        assert_eq!(found, ["src/a.rs:4: `carry` has 101 lines, at most 100"]);
    }

    #[test]
    fn what_is_listed_may_shrink_but_not_grow() {
        let longer = [("src/a.rs::carry", 120)];
        let check = |lines| {
            let mut found = Vec::new();
            lengths(&rust("src/a.rs", &long_function(lines)), &longer, &mut found);
            found
        };
        assert!(check(116).is_empty());
        assert_eq!(check(117), ["src/a.rs:4: `carry` has 121 lines, at most 120"]);
    }

    #[test]
    fn short_forms_have_no_body_to_measure() {
        let text =
            "trait T {\n    fn a(&self);\n    fn b(&self) {}\n    fn c(&self) -> u8 { 1 }\n    fn d(&self) {\n        x();\n    }\n}\n";
        assert_eq!(functions(text), [("d".to_owned(), 5, 3)]);
    }

    #[test]
    fn a_crate_says_what_it_is() {
        let found = violations(&rust("crates/x/src/lib.rs", "pub mod a;\n"));
        assert!(found.len() == 1 && found[0].contains("begin with"), "{found:?}");
        assert!(violations(&rust("crates/x/src/a.rs", "pub mod b;\n")).is_empty());
    }
}
