//! One stage of a job: what runs for each task, with what, how often, and what counts as success.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidemill_base::{HumanDuration, RetryPolicy};
use tidemill_blocks::fleet::Offers;

use super::{FailureClass, InputSpec};

/// A stage, checked and with all defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageSpec {
    /// Unique within the job; `a-z 0-9 - _`.
    pub name: String,
    /// What it is cut into tasks from.
    pub input: InputSpec,
    /// What runs for each task.
    pub run: RunSpec,
    /// What a task needs while it runs.
    pub resources: Resources,
    /// A task that runs longer is killed and has failed with [`FailureClass::Timeout`].
    pub timeout: Option<HumanDuration>,
    /// What is tried again.
    pub retry: RetrySpec,
    /// What counts as success.
    pub success: SuccessSpec,
    /// What becomes of the files that a task writes.
    pub output: OutputSpec,
    /// What happens when tasks of the stage it takes its input from have failed.
    pub upstream: UpstreamPolicy,
    /// Environment of the task; placeholders are filled in.
    pub env: BTreeMap<String, String>,
    /// Environment variables whose values are looked up on the worker and never stored.
    pub secrets: BTreeMap<String, SecretRef>,
    /// Gives each task a temporary credential for a folder of its own (`AWS_...` variables).
    pub credentials: bool,
    /// What is kept after the job's end.
    pub keep: KeepSpec,
}

/// What runs for each task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RunSpec {
    /// A process. The arguments are handed over as they are; no shell is involved unless `shell` is set.
    Command {
        /// Program and arguments with placeholders.
        argv: Vec<String>,
        /// Runs `argv[0]` as a script of `/bin/sh -c`, the placeholders as variables `$in`, `$out`, `$name`, `$line`, `$index`.
        shell: bool,
    },
    /// A process in a container.
    Container(ContainerSpec),
    /// A function that a warm engine calls with the task's payload.
    Engine(EngineSpec),
    /// Nothing: measures Tidemill itself.
    Noop,
}

/// A function, the engine that holds it, and what is kept warm for it between tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EngineSpec {
    /// The kind of engine: `python`, `rust`, or the name of a package that holds one.
    pub engine: String,
    /// What it calls.
    pub function: FunctionRef,
    /// Makes what is kept warm from `setup`, once in each engine; without it the data itself is kept.
    pub setup_function: Option<FunctionRef>,
    /// The object with what is handed to each engine once for the session: curves, a portfolio.
    pub setup: Option<String>,
    /// How payloads are encoded: `pickle`, `json`, `arrow` or `bytes`.
    pub input: String,
    /// How results are, likewise.
    pub output: String,
    /// Free for user and engine to agree on.
    pub parameters: BTreeMap<String, String>,
    /// Packages of files that must be there, in the versions and with the contents that the session began with.
    pub packages: Vec<PackagePin>,
}

impl EngineSpec {
    /// The objects that it names.
    pub fn objects(&self) -> impl Iterator<Item = &String> {
        let packed = [Some(&self.function), self.setup_function.as_ref()].into_iter().flatten().filter_map(|f| match f {
            FunctionRef::Packed(object) => Some(object),
            _ => None,
        });
        packed.chain(&self.setup)
    }
}

/// What an engine calls for each task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FunctionRef {
    /// By the name that the engine itself has given it.
    Name(String),
    /// `module:function`, which the engine imports.
    Module(String),
    /// As it was packed by the client: the object that holds it.
    Packed(String),
}

/// A package of files in one version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackagePin {
    /// Its name.
    pub name: String,
    /// Its version, as its publisher calls it.
    pub version: String,
    /// The hash of its manifest, which holds those of its files.
    pub digest: String,
}

/// A container to run a task in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    /// Image reference, or the path of an image archive in objects.
    pub image: String,
    /// Program and arguments with placeholders.
    pub argv: Vec<String>,
    /// `podman`, `docker`, or empty for whichever the worker has.
    pub engine: String,
    /// Whether it may use the network.
    pub network: bool,
}

/// What a task needs while it runs. A request that no worker of the class could ever meet is refused at submit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Resources {
    /// Slots it takes, at least 1.
    pub cpus: u32,
    /// Bytes of memory; a task that takes more is killed and has failed with [`FailureClass::OutOfMemory`]. Zero: no limit.
    pub memory: u64,
    /// Named resources and how much of each.
    pub named: BTreeMap<String, u64>,
}

impl Resources {
    /// Whether a worker that offers this could run the task, with nothing else running.
    pub fn fit(&self, offers: &Offers) -> bool {
        let named = |(name, n): (&String, &u64)| offers.named.get(name).copied().unwrap_or(0) >= *n;
        self.cpus <= offers.slots && self.memory <= offers.memory && self.named.iter().all(named)
    }
}

impl Default for Resources {
    fn default() -> Self {
        Self { cpus: 1, memory: 0, named: BTreeMap::new() }
    }
}

/// What is tried again, how often and how far apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetrySpec {
    /// Tries in all, and the pauses between them.
    pub policy: RetryPolicy,
    /// The classes that are tried again.
    pub classes: BTreeSet<FailureClass>,
    /// Exit codes that are never tried again.
    pub never_exit_codes: BTreeSet<i32>,
    /// Tries in all for classes that differ from `policy.attempts`.
    pub attempts_by_class: BTreeMap<FailureClass, u32>,
}

impl Default for RetrySpec {
    fn default() -> Self {
        Self {
            policy: RetryPolicy { attempts: 3, base: HumanDuration(Duration::from_secs(1)), cap: HumanDuration(Duration::from_secs(300)) },
            classes: [
                FailureClass::Exit,
                FailureClass::Signal,
                FailureClass::OutOfMemory,
                FailureClass::Timeout,
                FailureClass::LostWorker,
                FailureClass::Storage,
            ]
            .into(),
            never_exit_codes: BTreeSet::new(),
            attempts_by_class: BTreeMap::new(),
        }
    }
}

/// What counts as success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuccessSpec {
    /// Exit codes that do.
    pub exit_codes: BTreeSet<i32>,
}

impl Default for SuccessSpec {
    fn default() -> Self {
        Self { exit_codes: [0].into() }
    }
}

/// What becomes of the files that a task writes. Every file in `{out}` (when it is a folder) or named by a placeholder is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub struct OutputSpec {
    /// The name of the file behind `{out}`, with placeholders: `{name}.jpg`. `None` and no `{out}` anywhere: no output is expected.
    pub name: Option<String>,
    /// `{out}` is a folder and everything in it is output.
    pub folder: bool,
    /// Standard output is the output file.
    pub stdout: bool,
    /// A task that did not write its output has succeeded all the same.
    pub optional: bool,
}

/// Where the value of a secret variable is found on the worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SecretRef {
    /// In the worker's environment variable of that name.
    Env(String),
    /// In the file of that path, without a newline at its end.
    File(String),
}

/// What happens when tasks of the stage before have failed for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamPolicy {
    /// Tasks whose input is missing are skipped; a gathering stage does not start at all.
    #[default]
    RequireAll,
    /// A gathering or grouping stage runs on what succeeded.
    TakeWhatSucceeded,
}

/// What is kept after the job's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeepSpec {
    /// The outputs of this stage. If not, they are dropped once every task of the job has succeeded.
    pub outputs: bool,
    /// Standard output and error of tasks that succeeded. Those of failed tasks are always kept.
    pub logs: bool,
}

impl Default for KeepSpec {
    fn default() -> Self {
        Self { outputs: true, logs: true }
    }
}
