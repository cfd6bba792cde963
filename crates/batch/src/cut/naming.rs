//! What files are called in a task's folder.

use std::collections::BTreeSet;

use crate::model::InputRef;
use crate::protocol::StoredFile;

/// The last segment of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `claims.csv` and 7 make `claims-000007.csv`.
pub(super) fn part_name(name: &str, part: u64) -> String {
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}-{part:06}.{extension}"),
        _ => format!("{name}-{part:06}"),
    }
}

/// Gives files of one name within a task names of their own: `2-a.csv`, `3-a.csv`.
pub(super) fn make_unique(files: &mut [InputRef]) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for file in files {
        let mut name = file.name.clone();
        let mut number = 1_u64;
        while !taken.insert(name.clone()) {
            number += 1;
            name = format!("{number}-{}", file.name);
        }
        file.name = name;
    }
}

/// The input files that an earlier stage's output files make, with names that are plain and unique. For workers of a stage that
/// streams or gathers: all files of the task's upstream tasks, in order.
pub fn input_refs<'a>(files: impl IntoIterator<Item = &'a StoredFile>) -> Vec<InputRef> {
    let mut refs: Vec<_> = files.into_iter().map(input_ref).collect();
    make_unique(&mut refs);
    refs
}

pub(super) fn input_ref(file: &StoredFile) -> InputRef {
    let name = file_name(&file.name).to_owned();
    InputRef { path: file.path.clone(), name, offset: file.offset, len: file.len, header: 0, whole: file.whole }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_unique() {
        let file = |name: &str| StoredFile { name: name.into(), path: "p".into(), offset: 1, len: 2, whole: false };
        let refs = input_refs(&[file("a/x.csv"), file("b/x.csv"), file("2-x.csv"), file("x.csv")]);
        assert_eq!(refs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["x.csv", "2-x.csv", "2-2-x.csv", "3-x.csv"]);
        assert_eq!(part_name("a b.tar.gz", 7), "a b.tar-000007.gz");
        assert_eq!((part_name(".env", 1).as_str(), part_name("x", 2).as_str()), (".env-000001", "x-000002"));
    }
}
