//! Names on the way up, and places on the way down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

use tidemill_api::ResultFile;
use tidemill_base::{Error, Result};
use tidemill_batch::spec::check_output_name;

/// A name for each file, relative to the folder that all of them lie in. Files have different paths, so they get different
/// names, also when some are called the same. `Invalid` for a path that is not text.
pub(crate) fn object_names(files: &[PathBuf]) -> Result<Vec<String>> {
    let split: Vec<Vec<String>> = files.iter().map(|f| segments(f)).collect::<Result<_>>()?;
    let common = common_folders(&split);
    let names: Vec<String> = split.iter().map(|s| s[common..].join("/")).collect();
    let mut taken = BTreeSet::new();
    // `a/x` and `./a/x` are one file under two paths; only then can two names be the same.
    Ok(names.into_iter().enumerate().map(|(i, n)| if taken.insert(n.clone()) { n } else { format!("{i}/{n}") }).collect())
}

fn segments(path: &Path) -> Result<Vec<String>> {
    let mut out = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => {
                let text = name.to_str().filter(|t| !t.chars().any(|c| c.is_ascii_control()));
                let wrong = || Error::invalid(format!("the name {} cannot be an object's; rename the file", path.display()));
                out.push(text.ok_or_else(wrong)?.to_owned());
            }
            Component::ParentDir => out.push("up".to_owned()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok(out)
}

/// How many folders at the start all paths share.
fn common_folders(paths: &[Vec<String>]) -> usize {
    let Some(first) = paths.first() else { return 0 };
    let folders = first.len().saturating_sub(1);
    let shared = |p: &Vec<String>| first[..folders].iter().zip(&p[..p.len().saturating_sub(1)]).take_while(|(a, b)| a == b).count();
    paths.iter().map(shared).min().unwrap_or(0)
}

/// Where each result file goes, relative to the folder for all: its own name, or within a folder of its task when more than one
/// task has a file of that name. `Invalid` for a name that would leave the folder.
pub(crate) fn download_paths(files: &[ResultFile]) -> Result<Vec<PathBuf>> {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for file in files {
        check_output_name(&file.name).map_err(|e| e.context("a result file of the server"))?;
        *seen.entry(&file.name).or_default() += 1;
    }
    let stages: BTreeSet<u32> = files.iter().map(|f| f.stage).collect();
    Ok(files
        .iter()
        .map(|f| match seen.get(f.name.as_str()) {
            Some(1) if !is_folder_of_another(&seen, &f.name) => PathBuf::from(&f.name),
            _ if stages.len() > 1 => Path::new(&format!("stage-{}", f.stage)).join(format!("task-{:06}", f.task)).join(&f.name),
            _ => Path::new(&format!("task-{:06}", f.task)).join(&f.name),
        })
        .collect())
}

/// Whether another file's name needs this one to be a folder.
fn is_folder_of_another(names: &BTreeMap<&str, u32>, name: &str) -> bool {
    let inside = format!("{name}/");
    names.range(inside.as_str()..).next().is_some_and(|(next, _)| next.starts_with(&inside))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(files: &[&str]) -> Vec<String> {
        object_names(&files.iter().map(PathBuf::from).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn names_are_relative_to_the_folder_they_share() {
        assert_eq!(named(&["photos/a.jpg", "photos/b.jpg"]), ["a.jpg", "b.jpg"]);
        assert_eq!(named(&["/x/photos/2024/a.jpg", "/x/photos/2025/a.jpg"]), ["2024/a.jpg", "2025/a.jpg"]);
        assert_eq!(named(&["a.jpg"]), ["a.jpg"]);
        assert_eq!(named(&["a.jpg", "sub/a.jpg"]), ["a.jpg", "sub/a.jpg"]);
        assert_eq!(named(&["../a.jpg", "a.jpg"]), ["up/a.jpg", "a.jpg"]);
    }

    #[test]
    fn files_of_one_name_never_share_an_object() {
        let names = named(&["./a/x", "a/x", "/a/x"]);
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 3, "{names:?}");
    }

    #[test]
    fn a_name_that_no_object_can_have_is_refused() {
        assert!(object_names(&[PathBuf::from("a\nb")]).unwrap_err().message().contains("rename the file"));
    }

    fn result(task: u64, name: &str) -> ResultFile {
        ResultFile { stage: 0, task, name: name.to_owned(), bytes: 1, href: String::new() }
    }

    fn places(files: &[ResultFile]) -> Vec<String> {
        download_paths(files).unwrap().iter().map(|p| p.display().to_string()).collect()
    }

    #[test]
    fn results_of_one_name_go_to_folders_of_their_tasks() {
        assert_eq!(places(&[result(0, "a"), result(1, "b")]), ["a", "b"]);
        assert_eq!(places(&[result(0, "out"), result(1, "out"), result(2, "c")]), ["task-000000/out", "task-000001/out", "c"]);
        assert_eq!(places(&[result(0, "x"), result(1, "x/y")]), ["task-000000/x", "x/y"]);
    }

    #[test]
    fn a_name_that_leaves_the_folder_is_refused() {
        for name in ["../x", "/etc/passwd", "a/../../b"] {
            assert!(download_paths(&[result(0, name)]).is_err(), "{name}");
        }
    }
}
