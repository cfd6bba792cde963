//! Building the index of every queue from what is stored.

use tidemill_base::{Error, Result};

use super::index::Ready;
use super::records::{self, QueueRecord};
use super::state::{One, Queues};
use crate::store::{Space, Store, View};

/// Reads every queue. Bodies are not read.
pub(super) fn recover(store: &Store) -> Result<Queues> {
    let view = store.snapshot();
    let mut queues = Queues::default();
    for entry in view.range(Space::Queues, b"", &[0xff]) {
        let (name, stored) = entry?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let record: QueueRecord = postcard::from_bytes(&stored).map_err(|e| {
            Error::corrupt(format!("the settings of queue `{name}` in {} cannot be read", store.path().display())).with_source(e)
        })?;
        let one = recover_one(&view, record).map_err(|e| e.context(format!("queue `{name}` in {}", store.path().display())))?;
        queues.by_name.insert(name, one);
    }
    Ok(queues)
}

fn recover_one(view: &View, record: QueueRecord) -> Result<One> {
    let queue = record.queue;
    let low = match view.get(Space::Meta, &records::low_key(queue))? {
        None => 0,
        Some(stored) => <[u8; 8]>::try_from(&*stored)
            .map(u64::from_be_bytes)
            .map_err(|_| Error::corrupt(format!("the low mark has {} bytes instead of 8", stored.len())))?,
    };
    let mut one = One::new(queue, record.settings);
    let (from, until) = (records::from_number(queue, low), records::from_number(queue + 1, 0));
    // Both run by number, so they are merged as they come. A lease without a message is the trace of one that is gone.
    let mut leases = view.range(Space::Leases, &from, &until).peekable();
    for key in view.keys(Space::Messages, &from, &until) {
        let (number, arrived_at) = records::parse_message_key(&key?)?;
        let mut lease = None;
        while let Some(Ok((key, value))) =
            leases.next_if(|l| l.as_ref().is_ok_and(|(key, _)| key.as_ref() <= &*records::from_number(queue, number)))
        {
            let (of, parked) = records::parse_lease(&key, &value, arrived_at)?;
            lease = (of == number).then_some(parked);
        }
        if let Some(Err(_)) = leases.peek() {
            leases.next().transpose()?;
        }
        match lease {
            Some(parked) => one.index.park(number, parked),
            None => one.index.add(Ready::fresh(number, arrived_at)),
        }
    }
    Ok(one)
}
