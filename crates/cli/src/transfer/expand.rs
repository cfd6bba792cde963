//! Patterns over files of this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern, glob_with};
use tidemill_base::{Error, Result};

/// Wildcards do not match a leading dot, as in a shell.
const OPTIONS: MatchOptions = MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// The files that the patterns name, each once, in order of their names. A pattern that is the name of a file is that file, whatever
/// characters it has, so that a list made by the shell works too; the name of a folder stands for the files in it. `Invalid` for a
/// pattern that names nothing.
pub(crate) fn expand(patterns: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = BTreeSet::new();
    for pattern in patterns {
        let before = files.len();
        let found = matches(pattern)?;
        if found.is_empty() {
            let next = "check the spelling and the working folder; quote the pattern so that it reaches tidemill as it is";
            return Err(Error::invalid(format!("the input `{pattern}` matches no file; {next}")));
        }
        files.extend(found);
        tracing::debug!(pattern, files = files.len() - before, "input expanded");
    }
    Ok(files.into_iter().collect())
}

fn matches(pattern: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(pattern);
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let text = if path.is_dir() { format!("{}/*", Pattern::escape(pattern.trim_end_matches('/'))) } else { pattern.to_owned() };
    let found = glob_with(&text, OPTIONS).map_err(|e| Error::invalid(format!("the input `{pattern}` is not a pattern: {}", e.msg)))?;
    let mut files = Vec::new();
    for entry in found {
        let file = entry.map_err(|e| {
            let what = format!("the input `{pattern}`: {}", e.path().display());
            Error::from(std::io::Error::from(e.error().kind())).context(what)
        })?;
        if file.is_file() {
            files.push(file);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tidemill_base::ErrorKind;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, name).unwrap();
        }
        folder
    }

    fn names(folder: &Path, patterns: &[&str]) -> Result<Vec<String>> {
        let patterns: Vec<String> = patterns.iter().map(|p| format!("{}/{p}", folder.display())).collect();
        let files = expand(&patterns)?;
        Ok(files.iter().map(|f| f.strip_prefix(folder).unwrap().display().to_string()).collect())
    }

    #[test]
    fn patterns_folders_and_plain_names_are_files_once_and_in_order() {
        let f = folder(&["b.jpg", "a.jpg", "odd[1].jpg", "c.txt", ".hidden.jpg", "sub/d.jpg"]);
        let at = |patterns: &[&str]| names(f.path(), patterns).unwrap();
        assert_eq!(at(&["*.jpg"]), ["a.jpg", "b.jpg", "odd[1].jpg"]);
        assert_eq!(at(&["a.jpg", "*.jpg", "odd[1].jpg"]), ["a.jpg", "b.jpg", "odd[1].jpg"]);
        assert_eq!(at(&["**/*.jpg"]), ["a.jpg", "b.jpg", "odd[1].jpg", "sub/d.jpg"]);
        assert_eq!(at(&["sub"]), ["sub/d.jpg"]);
    }

    #[test]
    fn what_matches_nothing_is_named() {
        let f = folder(&["a.jpg"]);
        let error = names(f.path(), &["*.jpg", "*.png"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.message().contains("*.png` matches no file"), "{error}");
        assert!(expand(&["a***b".to_owned()]).unwrap_err().message().contains("is not a pattern"));
    }
}
