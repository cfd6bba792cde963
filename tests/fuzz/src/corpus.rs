//! What is mutated: the committed corpus, and what gave an answer of a new shape since.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Found inputs kept at once; a new one takes the place of the oldest.
const MAX_FOUND: usize = 1_000;

/// A file of the corpus.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) file: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

/// Everything that may be mutated.
#[derive(Debug)]
pub(crate) struct Pool {
    entries: Vec<Entry>,
    found: Vec<Vec<u8>>,
    oldest: usize,
    shapes: BTreeSet<u64>,
}

impl Pool {
    /// The files in `folder`, which need not be there when there are `examples`. A target without either is a mistake: random bytes
    /// get nowhere.
    pub(crate) fn load(folder: &Path, examples: &[Vec<u8>]) -> Self {
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        files.sort();
        let read = |file: PathBuf| {
            let bytes = std::fs::read(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            Entry { file, bytes }
        };
        let named = |(number, bytes): (usize, &Vec<u8>)| Entry { file: format!("example {number}").into(), bytes: bytes.clone() };
        let entries: Vec<Entry> = files.into_iter().map(read).chain(examples.iter().enumerate().map(named)).collect();
        assert!(!entries.is_empty(), "{} holds no examples; add some", folder.display());
        Self { entries, found: Vec::new(), oldest: 0, shapes: BTreeSet::new() }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Keeps an input whose answer has a shape not seen before.
    pub(crate) fn offer(&mut self, shape: u64, input: Vec<u8>) {
        if !self.shapes.insert(shape) {
            return;
        }
        if self.found.len() < MAX_FOUND {
            self.found.push(input);
        } else {
            self.found[self.oldest] = input;
            self.oldest = (self.oldest + 1) % MAX_FOUND;
        }
    }

    /// How many shapes there were.
    pub(crate) fn shapes(&self) -> usize {
        self.shapes.len()
    }

    /// One of all inputs, committed ones and found ones alike.
    pub(crate) fn any(&self, rng: &mut fastrand::Rng) -> &[u8] {
        // Committed examples stay half of the choice, however many shapes were found.
        if self.found.is_empty() || rng.bool() {
            &self.entries[rng.usize(..self.entries.len())].bytes
        } else {
            &self.found[rng.usize(..self.found.len())]
        }
    }
}
