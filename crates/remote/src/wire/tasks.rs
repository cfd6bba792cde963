//! What a worker asks for tasks that it is about to run.

use tidemill_blocks::grants;

calls! { "tasks":
    /// The credential of one task, asked for under the claim of `worker` on `range` in `epoch`. The manager looks at the fence.
    IssueCredential("credential") -> grants::Credential { job: String, stage: u32, range: u64, epoch: u64, worker: String, task: u64 };
}
