//! What uploads leave behind when nobody goes on with them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt as _;
use object_store::ObjectMeta;
use object_store::path::Path;
use tidemill_base::{Env, Result};
use tidemill_blocks::objects::{self, Objects};

use super::names::SYSTEM;

/// Removes uploads (and staged objects) that nothing was added to for `idle`. For a housekeeper to call now and then; returns how
/// many objects went.
pub async fn sweep_uploads(store: &Objects, env: &Env, idle: Duration) -> Result<u64> {
    let limit = (env.now() - idle).micros();
    let mut by_upload: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
    for folder in [Path::from(format!("{SYSTEM}/multipart")), Path::from(format!("{SYSTEM}/staging"))] {
        let mut all = store.list(Some(&folder));
        while let Some(meta) = all.next().await {
            let meta = meta.map_err(|e| objects::error("list", &folder, e))?;
            by_upload.entry(owner_of(&meta.location)).or_default().push(meta);
        }
    }
    let mut removed = 0;
    for metas in by_upload.into_values().filter(|metas| metas.iter().all(|m| m.last_modified.timestamp_micros() < limit)) {
        for meta in metas {
            objects::delete(store.as_ref(), &meta.location).await?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Objects that go together: those of one upload, or one staged object.
fn owner_of(path: &Path) -> String {
    path.as_ref().splitn(5, '/').take(4).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sweeping_takes_idle_uploads_whole_and_leaves_the_others() {
        use tidemill_base::Clock as _;
        let store: Objects = std::sync::Arc::new(object_store::memory::InMemory::new());
        for path in ["system/multipart/b/u1/upload", "system/multipart/b/u1/00001", "system/staging/s1", "photos/a"] {
            objects::put(store.as_ref(), &path.into(), "x").await.unwrap();
        }
        // The store stamps its objects with the machine's clock.
        let (env, clock) = Env::manual(tidemill_base::SystemClock.now(), 1);
        assert_eq!(sweep_uploads(&store, &env, Duration::from_secs(3600)).await.unwrap(), 0);
        clock.advance(Duration::from_secs(7200));
        assert_eq!(sweep_uploads(&store, &env, Duration::from_secs(3600)).await.unwrap(), 3);
        assert!(objects::get_opt(store.as_ref(), &"photos/a".into()).await.unwrap().is_some());
    }
}
