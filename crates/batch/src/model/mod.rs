//! What batch is about: jobs, stages, tasks, their inputs, outcomes and statistics. Plain data, no behaviour beyond itself.

mod columns;
mod input;
mod job;
mod outcome;
mod stage;
mod terms;

pub use columns::{TaskColumns, TaskStat};
pub use input::{Boundary, ChainMode, InputRef, InputSpec, TaskInput};
pub use job::{JobSpec, JobState, StageState, Wanted};
pub use outcome::{FailureClass, TaskFailure};
pub use stage::{
    ContainerSpec, EngineSpec, FunctionRef, KeepSpec, OutputSpec, PackagePin, Resources, RetrySpec, RunSpec, SecretRef, StageSpec,
    SuccessSpec, UpstreamPolicy,
};
pub use terms::{Budget, OnAbandon, OnBudget, Terms};
