//! The table's calls.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tidemill_base::Result;
use tidemill_blocks::table::FeedPage;
use tidemill_remote::wire::table as wire;

use super::{Edge, call};

pub(super) fn routes(router: Router<Arc<Edge>>) -> Router<Arc<Edge>> {
    let router = call(router, |edge, who, c: wire::Ensure| async move {
        edge.reach.table(&who, &c.table)?;
        edge.blocks.table.ensure(&c.table).await
    });
    let router = call(router, |edge, who, c: wire::Get| async move {
        edge.reach.table(&who, &c.table)?;
        edge.blocks.table.get(&c.table, &c.key).await
    });
    let router = call(router, |edge, who, c: wire::GetMany| async move {
        edge.reach.table(&who, &c.table)?;
        edge.blocks.table.get_many(&c.table, &c.keys).await
    });
    let router = call(router, |edge, who, c: wire::Transact| async move {
        edge.reach.table(&who, &c.table)?;
        edge.blocks.table.transact(&c.table, c.writes).await
    });
    let router = call(router, |edge, who, c: wire::WriteMany| async move {
        edge.reach.table(&who, &c.table)?;
        edge.blocks.table.write_many(&c.table, c.writes).await
    });
    let router = call(router, |edge, who, c: wire::Range| async move {
        edge.reach.table(&who, &c.table)?;
        edge.blocks.table.range(&c.table, c.range).await
    });
    let router = call(router, |edge, who, c: wire::FeedEnd| async move {
        edge.reach.table(&who, &c.table)?;
        edge.blocks.table.feed_end(&c.table).await
    });
    call(router, |edge, who, c: wire::Feed| async move {
        edge.reach.table(&who, &c.table)?;
        feed(&edge, c).await
    })
}

/// Follows the feed; draining ends the wait. Dropping a read halfway costs nothing.
async fn feed(edge: &Edge, c: wire::Feed) -> Result<FeedPage> {
    let table = &edge.blocks.table;
    tokio::select! {
        biased;
        page = table.feed(&c.table, &c.after, c.max, c.wait) => page,
        () = edge.shutdown.draining() => table.feed(&c.table, &c.after, c.max, Duration::ZERO).await,
    }
}
