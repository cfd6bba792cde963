//! Connections that must not go back to the pool as they are.

use deadpool_postgres::Object;

/// Closes a connection instead of giving it back.
pub(crate) fn discard(client: Object) {
    drop(Object::take(client));
}

/// A connection with a transaction open between two messages. Dropped before the transaction has ended, as it is when the caller gives
/// up, the connection is closed and the server rolls back.
#[derive(Debug)]
pub(crate) struct Open(Option<Object>);

impl Open {
    pub(crate) const fn new(client: Object) -> Self {
        Self(Some(client))
    }

    pub(crate) fn client(&self) -> &Object {
        self.0.as_ref().expect("it is there until the transaction has ended, which takes this away")
    }

    /// The connection, its transaction over.
    pub(crate) fn ended(mut self) -> Object {
        self.0.take().expect("it is there until the transaction has ended, which takes this away")
    }

    /// Rolls back; the connection, unless it is broken.
    pub(crate) async fn roll_back(self) -> Option<Object> {
        let rolled_back = self.client().batch_execute("ROLLBACK").await;
        rolled_back.is_ok().then(|| self.ended())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            discard(client);
        }
    }
}
