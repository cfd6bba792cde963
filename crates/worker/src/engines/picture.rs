//! What the worker says of its engines, for people who look at a session.

use tidemill_batch::protocol::{EngineBeat, EngineCounts, PoolBeat};
use tidemill_engine::EngineStatus;

use super::route::words;
use super::{Engines, Warm};

impl Engines {
    /// Its pools as they are now, without those that are of no more use.
    pub(crate) fn picture(&self) -> Vec<PoolBeat> {
        self.retire();
        self.pools().iter().map(|(key, warm)| pool(key.lines().next().unwrap_or_default(), warm)).collect()
    }

    /// What has become of engines and packages since the worker started.
    pub(crate) fn counts(&self) -> EngineCounts {
        let [stopped, crashed, timed_out, out_of_memory, not_started, cancelled] = self.tally.ended();
        let (package_hits, packages_fetched, package_bytes) = self.packages.counts();
        EngineCounts {
            started: self.tally.started(),
            stopped,
            crashed,
            timed_out,
            out_of_memory,
            not_started,
            cancelled,
            stolen: self.tally.stolen(),
            package_hits,
            packages_fetched,
            package_bytes,
        }
    }
}

fn pool(kind: &str, warm: &Warm) -> PoolBeat {
    // A slot that opens a session holds the list while it reads the session's data; the next beat says more.
    let sessions = warm.sessions.try_lock().map(|s| s.clone()).unwrap_or_default();
    let mut out = PoolBeat { kind: kind.to_owned(), jobs: sessions.iter().map(|(job, _)| job.clone()).collect(), ..PoolBeat::default() };
    for engine in warm.pool.status().engines {
        let beat = beat(engine, &sessions, &mut out.versions);
        out.engines.push(beat);
    }
    out
}

fn beat(engine: EngineStatus, sessions: &[(String, u32)], versions: &mut Vec<String>) -> EngineBeat {
    let mut version = |text: String| {
        let at = versions.iter().position(|v| *v == text).unwrap_or_else(|| {
            versions.push(text);
            versions.len() - 1
        });
        u32::try_from(at).unwrap_or(u32::MAX)
    };
    let (mut warm, mut running) = (Vec::new(), None);
    for (at, (_, number)) in (0_u32..).zip(sessions) {
        running = running.or(engine.running.filter(|(session, _)| session == number).map(|(_, task)| (at, task)));
        if let Some(record) = engine.sessions.get(number) {
            warm.push((at, version(words(record))));
        }
    }
    EngineBeat {
        version: engine.record.as_ref().map(|record| version(words(record))),
        id: engine.id,
        pid: engine.pid,
        memory: engine.resident,
        running,
        in_hand: engine.in_hand as u64,
        finished: engine.finished,
        replaced: engine.replaced,
        last_loss: engine.last_loss,
        warm,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use tidemill_engine::EngineRecord;

    use super::*;

    fn record(version: &str) -> Arc<EngineRecord> {
        let hello = serde_json::json!({"protocol": 1, "pid": 7, "kit": "kit", "kit_version": version, "language": "", "loaded": []});
        let record = serde_json::json!({"id": "engine-1", "hello": hello, "loaded": [], "packages": []});
        Arc::new(serde_json::from_value(record).unwrap())
    }

    #[test]
    fn an_engine_is_warm_for_the_sessions_that_it_has_opened_and_each_version_is_told_once() {
        let sessions = [("a".to_owned(), 4), ("b".to_owned(), 9), ("c".to_owned(), 2)];
        let mut versions = Vec::new();
        let warm = EngineStatus {
            id: "engine-1".into(),
            finished: 12,
            running: Some((2, 77)),
            record: Some(record("1")),
            sessions: BTreeMap::from([(2, record("2")), (4, record("1"))]),
            ..EngineStatus::default()
        };
        let first = beat(warm.clone(), &sessions, &mut versions);
        assert_eq!((first.finished, first.warm.as_slice(), first.version), (12, [(0, 0), (2, 1)].as_slice(), Some(0)));
        assert_eq!(first.running, Some((2, 77)));
        let cold = EngineStatus { sessions: BTreeMap::new(), running: Some((3, 1)), ..warm };
        assert_eq!(beat(cold.clone(), &sessions, &mut versions).running, None, "a session that the worker has let go of");
        assert_eq!(beat(cold, &sessions, &mut versions).warm, []);
        assert_eq!(beat(EngineStatus::default(), &sessions, &mut versions).version, None);
        assert_eq!(versions, ["kit 1", "kit 2"]);
    }
}
