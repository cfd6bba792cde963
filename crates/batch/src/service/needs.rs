//! The queues and tables that the batch system keeps its work in.

use tidemill_blocks::queue::QueueSettings;

use super::BatchSettings;
use crate::protocol::keys;

/// What has to be there for a manager to work. It makes what is missing; whoever sets engines up may want to know before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needs {
    /// Tables.
    pub tables: Vec<&'static str>,
    /// Queues, in an order in which they can be made.
    pub queues: Vec<(String, QueueSettings)>,
}

impl Needs {
    /// Everything, for the classes that the settings name. Classes that a job names first are made then.
    pub fn of(settings: &BatchSettings) -> Self {
        let mut needs = Self::shared();
        needs.queues.extend(settings.classes.iter().flat_map(|class| Self::queues_of(class, settings.max_receives)));
        needs
    }

    /// What all classes share.
    pub(super) fn shared() -> Self {
        let plain = |name: &str| (name.to_owned(), QueueSettings::default());
        // A leader that has just begun looks at the reports of everything that is out.
        let done = QueueSettings { recoverable: true, ..QueueSettings::default() };
        Self {
            tables: vec![keys::STATE_TABLE, keys::WORKER_TABLE, keys::CONTROL_TABLE],
            queues: vec![(keys::DONE_QUEUE.to_owned(), done), plain(keys::DEAD_QUEUE)],
        }
    }

    /// What one class needs of its own.
    pub(super) fn queues_of(class: &str, max_receives: u32) -> [(String, QueueSettings); 2] {
        let lost = keys::work_dead_queue(class);
        // It sends again what the ledger has as released and nobody has claimed.
        let settings = QueueSettings {
            max_receives: Some(max_receives),
            dead_letter: Some(lost.clone()),
            recoverable: true,
            ..QueueSettings::default()
        };
        [(lost, QueueSettings::default()), (keys::work_queue(class), settings)]
    }
}
