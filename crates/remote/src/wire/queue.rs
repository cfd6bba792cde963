//! The calls of the queue block, one for each method of its trait.

use std::time::Duration;

use tidemill_blocks::queue as block;

calls! { "queue":
    /// `Queue::ensure`.
    Ensure("ensure") -> () { queue: String, settings: block::QueueSettings };
    /// `Queue::send`.
    Send("send") -> Vec<block::MessageId> { queue: String, messages: Vec<block::NewMessage> };
    /// `Queue::receive`.
    Receive("receive") -> Vec<block::Delivery> { queue: String, how: block::Receive } parked for |call| call.how.wait;
    /// `Queue::ack`.
    Ack("ack") -> Vec<block::ReceiptOutcome> { queue: String, receipts: Vec<block::Receipt> };
    /// `Queue::extend`.
    Extend("extend") -> Vec<block::ReceiptOutcome> { queue: String, receipts: Vec<block::Receipt>, lease: Duration };
    /// `Queue::stats`.
    Stats("stats") -> block::QueueStats { queue: String };
    /// `Queue::list`.
    List("list") -> Vec<block::QueueInfo> {};
    /// `Queue::browse`.
    Browse("browse") -> Vec<block::Browsed> { queue: String, max: usize };
    /// `Queue::redrive`.
    Redrive("redrive") -> u64 { from: String, which: block::Redrive, to: Option<String> };
    /// `Queue::purge`.
    Purge("purge") -> u64 { queue: String };
}
