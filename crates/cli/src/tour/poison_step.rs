//! What happens to inputs that no attempt gets through: tried again, then set aside and named.

use serde_json::{Value, json};
use tidemill_base::{Error, Result};
use tidemill_client::{LogQuery, TaskFilter};

use super::{Done, Stage};
use crate::human;

const TASKS: u64 = 40;
const POISON: [u64; 3] = [7, 13, 31];
const ATTEMPTS: u32 = 3;

/// Runs tasks of which three cannot succeed, and shows what became of them.
pub(crate) async fn run(stage: &Stage) -> Result<Done> {
    stage.title(&format!("3. Failures: {TASKS} records, three of them poison"));
    let (job, took) = stage.run(job()).await?;
    let filter = TaskFilter { state: Some("failed".to_owned()), limit: Some(10), ..TaskFilter::default() };
    let dead = stage.client.tasks(&job.id, &filter).await?.tasks;
    for task in &dead {
        let log = stage.client.logs(&job.id, &LogQuery { task: task.task, ..LogQuery::default() }).await?;
        let said = human::one_line(&String::from_utf8_lossy(&log.bytes), 60);
        let exit = task.exit.map(|code| format!(" with exit code {code}")).unwrap_or_default();
        stage.say(&format!("set aside: task {}{exit} after {} attempts; it said: {said}", task.task, task.attempt));
    }
    let mut named: Vec<u64> = dead.iter().map(|t| t.task).collect();
    named.sort_unstable();
    if named != POISON || job.tasks.succeeded != TASKS - 3 || dead.iter().any(|t| t.attempt != ATTEMPTS) {
        return Err(Error::internal(format!("the tasks set aside are {named:?} and should be {POISON:?}, after {ATTEMPTS} attempts each")));
    }
    stage.say(&format!("checked: the other {} succeeded; `tidemill batch retry {}` would try the three again", TASKS - 3, job.id));
    let amount = format!("{TASKS} records, 3 set aside");
    Ok(Done { what: "failures".to_owned(), job, took, amount, results: None })
}

fn job() -> Value {
    let cases: Vec<String> = POISON.iter().map(u64::to_string).collect();
    let script = format!("case \"$index\" in {}) echo \"record $index is poison\" >&2; exit 3;; esac", cases.join("|"));
    json!({
        "name": "poison",
        "stage": [{
            "name": "check",
            "array": format!("0-{}", TASKS - 1),
            "shell": true,
            "command": script,
            "retry": {"attempts": ATTEMPTS, "base": "100ms", "cap": "300ms"},
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::Timestamp;

    #[test]
    fn the_job_is_one_that_the_server_takes() {
        let spec = tidemill_batch::spec::from_json(&job().to_string(), Timestamp::ZERO).unwrap();
        assert_eq!(spec.stages[0].retry.policy.attempts, ATTEMPTS);
    }
}
