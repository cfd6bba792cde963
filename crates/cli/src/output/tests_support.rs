//! Values of the interface for tests of how they are shown.

use std::collections::BTreeMap;

use tidemill_api::{JobDetail, StageDetail, StageTimes, TaskCounts};

pub(crate) fn stage(name: &str, tasks: TaskCounts) -> StageDetail {
    StageDetail {
        stage: 0,
        name: name.to_owned(),
        state: "open".to_owned(),
        from: None,
        tasks,
        attempts: tasks.succeeded + tasks.failed,
        failed_attempts: tasks.failed,
        times: StageTimes::default(),
        peak_memory: 0,
        bytes_in: 0,
        bytes_out: 0,
        mean_us: 0.0,
        started_at: None,
        finished_at: None,
    }
}

pub(crate) fn job(state: &str, tasks: TaskCounts) -> JobDetail {
    JobDetail {
        id: "j1".to_owned(),
        name: "thumbs".to_owned(),
        user: "ann".to_owned(),
        class: "default".to_owned(),
        priority: 0,
        state: state.to_owned(),
        reason: String::new(),
        tasks,
        attempts: tasks.succeeded + tasks.failed,
        submitted_at: "2026-01-01T00:00:00Z".to_owned(),
        started_at: Some("2026-01-01T00:00:01Z".to_owned()),
        finished_at: Some("2026-01-01T00:00:11Z".to_owned()),
        after: Vec::new(),
        labels: BTreeMap::new(),
        cron: None,
        cron_parent: None,
        stages: vec![stage("run", tasks)],
        cost: 0.0,
        spec: serde_json::Value::Null,
    }
}
