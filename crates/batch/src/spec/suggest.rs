//! "Did you mean": the closest of a few known words.

/// The known word closest to `word`, if one is close: a third of its letters wrong at most, and at least one may be.
pub(crate) fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |w: &str| w.to_ascii_lowercase().replace('_', "-");
    let word = plain(word);
    let near = known.into_iter().map(|k| (distance(&word, &plain(k)), k)).min_by_key(|(d, _)| *d)?;
    (near.0 <= (word.chars().count() / 3).max(1)).then_some(near.1)
}

/// How many letters must be added, dropped, changed or swapped with their neighbour to come from one to the other.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_meant_and_nothing_far() {
        let known = ["command", "container", "per-task", "timeout", "key"];
        assert_eq!(closest("comand", known), Some("command"));
        assert_eq!(closest("per_task", known), Some("per-task"));
        assert_eq!(closest("tiemout", known), Some("timeout"));
        assert_eq!(closest("kye", known), Some("key"));
        assert_eq!(closest("colour", known), None);
        assert_eq!((distance("", "abc"), distance("ab", "ba"), distance("é", "e")), (3, 1, 1));
    }
}
