//! Queues and dead letters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A queue and its counts.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// Can be received now.
    pub ready: u64,
    /// Waiting for a delay to pass.
    pub delayed: u64,
    /// Under lease.
    pub in_flight: u64,
    /// Age of the oldest message.
    pub oldest_us: Option<u64>,
    /// Deliveries before a message is a dead letter.
    pub max_receives: Option<u32>,
    /// Where its dead letters go.
    pub dead_letter: Option<String>,
}

/// `GET /queues`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct QueueList {
    /// The queues by name.
    pub queues: Vec<Queue>,
}

/// A message in a dead-letter queue.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Its id.
    pub id: String,
    /// Its body: JSON when it is JSON, text when it is text, otherwise base64.
    #[schema(value_type = Object)]
    pub body: serde_json::Value,
    /// How often it was delivered.
    pub receives: u32,
    /// When it was first sent.
    pub sent_at: String,
    /// The queue it died in.
    pub died_in: Option<String>,
}

/// `GET /queues/{name}/messages`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterList {
    /// The messages.
    pub messages: Vec<DeadLetter>,
}

/// `POST /queues/{name}/redrive`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RedriveRequest {
    /// These messages; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
}

/// The answer to a redrive.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RedriveResponse {
    /// How many messages moved.
    pub moved: u64,
}
