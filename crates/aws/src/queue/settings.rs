//! A queue's settings as SQS's attributes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName as Name;
use tidemill_base::{Error, Result};
use tidemill_blocks::queue::{QueueSettings, QueueStats};

/// SQS's bounds for the age at which messages are dropped.
const RETENTION: std::ops::RangeInclusive<u64> = 60..=14 * 24 * 3600;
/// SQS's highest count of receives before a message dies.
const MAX_RECEIVES: u32 = 1000;
/// What SQS takes since August 2025. Said expressly, since queues made before have 256 KiB.
const MAX_MESSAGE: &str = "1048576";

/// A queue's attributes.
pub(super) type Attributes = HashMap<Name, String>;

/// Checks what SQS and the block ask of settings.
pub(super) fn check(queue: &str, settings: &QueueSettings) -> Result<()> {
    match settings.max_receives {
        Some(n) if !(1..=MAX_RECEIVES).contains(&n) => {
            return Err(Error::invalid(format!(
                "queue `{queue}` cannot have max_receives {n}; take 1 to {MAX_RECEIVES}, or none for no limit"
            )));
        }
        _ => {}
    }
    if settings.dead_letter.as_deref() == Some(queue) {
        return Err(Error::invalid(format!("queue `{queue}` cannot be its own dead-letter queue; name another")));
    }
    if settings.max_receives.is_some() != settings.dead_letter.is_some() {
        return Err(Error::invalid(format!(
            "queue `{queue}`: SQS takes max_receives and dead_letter together or not at all; set both or neither"
        )));
    }
    if !RETENTION.contains(&settings.retention.as_secs()) {
        return Err(Error::invalid(format!(
            "queue `{queue}` cannot keep messages for {:?}; SQS takes 60 s to 14 days",
            settings.retention
        )));
    }
    Ok(())
}

/// The attributes for `settings`; `dead` is the ARN of the dead-letter queue.
pub(super) fn attributes(settings: &QueueSettings, dead: Option<&str>) -> BTreeMap<&'static str, (Name, String)> {
    let redrive = match (settings.max_receives, dead) {
        (Some(n), Some(arn)) => serde_json::json!({ "deadLetterTargetArn": arn, "maxReceiveCount": n }).to_string(),
        // Said expressly, to take away one that is there.
        _ => String::new(),
    };
    BTreeMap::from([
        ("redrive", (Name::RedrivePolicy, redrive)),
        ("retention", (Name::MessageRetentionPeriod, settings.retention.as_secs().to_string())),
        ("size", (Name::MaximumMessageSize, MAX_MESSAGE.to_owned())),
    ])
}

/// Where dead messages go: the ARN, and after how many receives.
pub(super) fn redrive(found: &Attributes) -> Option<(String, u32)> {
    let policy: serde_json::Value = serde_json::from_str(found.get(&Name::RedrivePolicy)?).ok()?;
    let count = &policy["maxReceiveCount"];
    // SQS writes a number, and took a text of old.
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some((policy["deadLetterTargetArn"].as_str()?.to_owned(), u32::try_from(count).ok()?))
}

/// The age at which messages are dropped.
pub(super) fn retention(found: &Attributes) -> Duration {
    let seconds = found.get(&Name::MessageRetentionPeriod).and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(*RETENTION.end()))
}

/// Counts; the age is not among SQS's attributes.
pub(super) fn stats(found: &Attributes) -> QueueStats {
    let count = |name| found.get(&name).and_then(|n| n.parse().ok()).unwrap_or(0);
    QueueStats {
        ready: count(Name::ApproximateNumberOfMessages),
        delayed: count(Name::ApproximateNumberOfMessagesDelayed),
        in_flight: count(Name::ApproximateNumberOfMessagesNotVisible),
        oldest_age: None,
    }
}

/// Whether the queue is as the attributes say already.
pub(super) fn same(found: &Attributes, wanted: &BTreeMap<&'static str, (Name, String)>) -> bool {
    let asked = Attributes::from_iter(wanted.values().cloned());
    let plain = |name| found.get(&name).is_none_or(|have| Some(have) == asked.get(&name));
    redrive(found) == redrive(&asked) && plain(Name::MessageRetentionPeriod) && plain(Name::MaximumMessageSize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mortal(n: u32) -> QueueSettings {
        QueueSettings { max_receives: Some(n), dead_letter: Some("dead".to_owned()), ..QueueSettings::default() }
    }

    #[test]
    fn settings_are_checked() {
        assert!(check("q", &QueueSettings::default()).is_ok() && check("q", &mortal(3)).is_ok());
        assert!(check("q", &mortal(0)).is_err() && check("q", &mortal(1001)).is_err());
        assert!(check("dead", &mortal(3)).is_err());
        assert!(check("q", &QueueSettings { dead_letter: None, ..mortal(3) }).is_err());
        assert!(check("q", &QueueSettings { retention: Duration::from_secs(59), ..QueueSettings::default() }).is_err());
    }

    #[test]
    fn attributes_come_back() {
        let wanted = attributes(&mortal(3), Some("arn:aws:sqs:eu-central-1:1:tidemill-dead"));
        let found = Attributes::from_iter(wanted.values().cloned());
        assert_eq!(redrive(&found), Some(("arn:aws:sqs:eu-central-1:1:tidemill-dead".to_owned(), 3)));
        assert_eq!(retention(&found), Duration::from_secs(14 * 24 * 3600));
        assert!(same(&found, &wanted));
        assert!(!same(&found, &attributes(&QueueSettings::default(), None)));
        assert!(same(&Attributes::new(), &attributes(&QueueSettings::default(), None)));
    }
}
