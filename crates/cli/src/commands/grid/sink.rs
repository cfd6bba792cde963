//! Where results are written to: a file of JSON lines, standard output, or a folder with a file for each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tidemill_base::{Error, Result};
use tidemill_client::TaskOutcome;

use super::outcome::{file, line};

/// Writes outcomes: in the order of their tasks, or as they come.
pub(crate) struct Sink {
    place: Place,
    /// With what came early; absent: as they come.
    early: Option<BTreeMap<u64, TaskOutcome>>,
    next: u64,
}

enum Place {
    Lines(Box<dyn Write + Send>, String),
    Folder(PathBuf),
}

impl std::fmt::Debug for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sink").field("next", &self.next).finish_non_exhaustive()
    }
}

impl Sink {
    /// `-` is standard output; what is a folder, or ends in a slash, is a folder; everything else a file of JSON lines.
    pub(crate) fn open(path: &Path, ordered: bool) -> Result<Self> {
        let about = |e: std::io::Error| Error::invalid(format!("results cannot be written to {}", path.display())).with_source(e);
        let place = if path == Path::new("-") {
            Place::Lines(Box::new(std::io::stdout()), "standard output".to_owned())
        } else if path.is_dir() || path.to_string_lossy().ends_with('/') {
            std::fs::create_dir_all(path).map_err(about)?;
            Place::Folder(path.to_owned())
        } else {
            Place::Lines(Box::new(BufWriter::with_capacity(256 << 10, File::create(path).map_err(about)?)), path.display().to_string())
        };
        Ok(Self { place, early: ordered.then(BTreeMap::new), next: 0 })
    }

    /// Takes what came together.
    pub(crate) fn take(&mut self, outcomes: Vec<TaskOutcome>) -> Result<()> {
        let Some(early) = &mut self.early else { return self.write(outcomes) };
        early.extend(outcomes.into_iter().map(|o| (o.task, o)));
        let mut ready = Vec::new();
        while let Some(outcome) = early.remove(&self.next) {
            self.next += 1;
            ready.push(outcome);
        }
        self.write(ready)
    }

    /// Writes what still waits for tasks that have no outcome: those of a session that was cancelled, or of one that goes on.
    pub(crate) fn finish(mut self) -> Result<()> {
        let rest = self.early.take().unwrap_or_default();
        self.write(rest.into_values().collect())?;
        match &mut self.place {
            Place::Lines(out, name) => out.flush().map_err(|e| Error::from(e).context(name.clone())),
            Place::Folder(_) => Ok(()),
        }
    }

    fn write(&mut self, outcomes: Vec<TaskOutcome>) -> Result<()> {
        match &mut self.place {
            Place::Lines(out, name) => {
                let text: String = outcomes.iter().map(line).collect();
                let wrote = out.write_all(text.as_bytes());
                wrote.map_err(|e| Error::from(e).context(format!("write results to {name}")))
            }
            Place::Folder(folder) => outcomes.iter().try_for_each(|outcome| {
                let (ending, bytes) = file(outcome);
                let path = folder.join(format!("{}.{ending}", outcome.task));
                std::fs::write(&path, bytes).map_err(|e| Error::from(e).context(path.display()))
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn outcomes(tasks: &[u64]) -> Vec<TaskOutcome> {
        tasks.iter().map(|t| TaskOutcome { task: *t, run_us: 1, ok: t % 2 == 0, bytes: Bytes::from("{}") }).collect()
    }

    #[test]
    fn lines_come_in_the_order_of_tasks_unless_they_need_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        let written = |ordered| {
            let mut sink = Sink::open(&path, ordered).unwrap();
            [&[2, 0][..], &[5, 1], &[4]].iter().for_each(|o| sink.take(outcomes(o)).unwrap());
            sink.finish().unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["task"].as_u64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(written(true), [0, 1, 2, 4, 5]);
        assert_eq!(written(false), [2, 0, 5, 1, 4]);
    }

    #[test]
    fn a_folder_has_a_file_for_each() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = Sink::open(folder.path(), true).unwrap();
        sink.take(outcomes(&[1, 0])).unwrap();
        sink.finish().unwrap();
        assert_eq!(std::fs::read(folder.path().join("0.json")).unwrap(), b"{}");
        assert!(folder.path().join("1.error.json").exists());
        assert!(Sink::open(&folder.path().join("none/x.jsonl"), true).unwrap_err().message().contains("cannot be written"));
    }
}
