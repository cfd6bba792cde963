//! Fetching ahead for tasks that read files, and storing the large files of tasks that have run.

use std::path::PathBuf;
use std::sync::Arc;

use tidemill_base::{ErrorKind, Result};
use tidemill_batch::model::{FailureClass, TaskInput};
use tidemill_batch::protocol::StoredFile;
use tidemill_runtime::{Kind, Stopwatch, sleep};

use super::Node;
use crate::range::{self, OpenRange, Part, Staged, Unstored, Upload};
use crate::runner::remove_all;
use crate::staging;
use crate::work::{Failure, PendingFile, PendingOutput, Verdict};

impl Node {
    /// Starts as many fetches as keep the slots supplied.
    pub(super) fn fetch_ahead(self: &Arc<Self>, range: &Arc<OpenRange>) {
        let ahead = usize::try_from(self.settings.offers.slots).unwrap_or(1).saturating_mul(2) + 2;
        while let Some(stale) = range.take_stale(self.env.now()) {
            self.stage_in(range, stale.task, Some(stale));
        }
        while let Some(task) = range.take_to_stage(ahead) {
            self.stage_in(range, task, None);
        }
    }

    /// Fetches what a task needs; for one that has its files already, a new credential.
    fn stage_in(self: &Arc<Self>, range: &Arc<OpenRange>, task: u64, have: Option<Staged>) {
        let (node, range) = (self.clone(), range.clone());
        self.tasks.spawn("stage in", Kind::Request, async move {
            let outcome = node.fetch(&range, task, have).await;
            range.staged(task, outcome);
            node.runner.nudge();
            Ok(())
        });
    }

    async fn fetch(&self, range: &OpenRange, task: u64, have: Option<Staged>) -> Result<Staged, Failure> {
        let _permit = self.transfers.acquire().await;
        let mut staged = match have {
            Some(staged) => staged,
            None => self.fetch_files(range, task).await?,
        };
        if range.stage.definition.spec.credentials {
            let credential = self.credential(range, task).await.inspect_err(|_| remove_all(&staged.folder))?;
            staged.credential = Some(credential);
        }
        Ok(staged)
    }

    async fn fetch_files(&self, range: &OpenRange, task: u64) -> Result<Staged, Failure> {
        let files = match range.input(task)? {
            TaskInput::Files { files, .. } => files,
            _ if range.stage.definition.spec.credentials => Vec::new(),
            _ => return Err(Failure::new(FailureClass::Input, "the task gets no files although others of its range do")),
        };
        let item = &range.item;
        let folder = self.folder(format!("{}-{}-{}-{}-{task}", item.job, item.stage, item.range, range.epoch));
        let outcome = staging::fetch(&self.blocks.objects, task, folder.clone(), &files).await;
        if outcome.is_err() {
            remove_all(&folder);
        }
        outcome
    }

    fn folder(&self, name: String) -> PathBuf {
        // Tasks see this path in their arguments wherever they stand, so it must not be relative.
        let scratch = std::path::absolute(&self.settings.scratch).unwrap_or_else(|_| self.settings.scratch.clone());
        scratch.join("staged").join(name)
    }

    /// Stores what tasks have left to be stored.
    pub(super) fn store_all(self: &Arc<Self>, range: &Arc<OpenRange>) {
        let unstored = std::mem::take(&mut range.lock().unstored);
        for one in unstored {
            let (node, range) = (self.clone(), range.clone());
            self.tasks.spawn("stage out", Kind::Request, async move {
                node.store(&range, one).await;
                Ok(())
            });
        }
    }

    async fn store(&self, range: &OpenRange, mut one: Unstored) {
        let watch = Stopwatch::start();
        let _permit = self.transfers.acquire().await;
        for upload in std::mem::take(&mut one.uploads) {
            if let Err(failure) = self.store_one(range, &upload, &mut one.output).await {
                if one.verdict == Verdict::Succeeded {
                    one.verdict = Verdict::Failed(failure);
                    one.output.files.clear();
                }
                break;
            }
        }
        one.output.files.sort_by(|a, b| name_of(a).cmp(name_of(b)));
        one.stat.stage_out_us = u64::try_from(watch.elapsed().as_micros()).unwrap_or(u64::MAX);
        one.leftovers.iter().for_each(|l| if l.is_dir() { remove_all(l) } else { drop(std::fs::remove_file(l)) });
        range.settle(one.stat, one.verdict, one.output);
    }

    async fn store_one(&self, range: &OpenRange, upload: &Upload, output: &mut PendingOutput) -> Result<(), Failure> {
        range.lock().written.push(upload.target.clone());
        let mut tries = 0;
        loop {
            match staging::store(self.blocks.objects.as_ref(), &upload.source, upload.offset, upload.len, &upload.target).await {
                Ok(()) => break,
                // What has been computed is kept until it can be stored, or somebody else has computed it.
                Err(e) if e.kind() == ErrorKind::Unavailable && range.kill() == range::Kill::No => {
                    tries += 1;
                    tracing::warn!(error = %e.chain(), "could not store an output, trying again");
                    sleep(self.settings.retry.delay(tries, &self.env)).await;
                }
                Err(e) => return Err(range::failure(FailureClass::Storage, &e)),
            }
        }
        let path = upload.target.to_string();
        let file = PendingFile::Stored(StoredFile { name: upload.name.clone(), path, offset: 0, len: upload.len, whole: true });
        match upload.part {
            Part::File => output.files.push(file),
            Part::Stdout => output.stdout = Some(file),
            Part::Stderr => output.stderr = Some(file),
        }
        Ok(())
    }
}

fn name_of(file: &PendingFile) -> &str {
    match file {
        PendingFile::Small { name, .. } => name,
        PendingFile::Stored(stored) => &stored.name,
    }
}
