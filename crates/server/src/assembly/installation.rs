//! Whose engines these are. Two installations that share a bucket or a prefix by mistake would take each other's work; so the ledger has a
//! name for the installation, and what else is on engines has to bear the same one.

use object_store::path::Path;
use tidemill_base::{Env, Error, ErrorKind, Result};
use tidemill_batch::protocol::keys;
use tidemill_blocks::Blocks;
use tidemill_blocks::ledger::{Migration, Statement};
use tidemill_blocks::objects;
use tidemill_blocks::table::{Condition, Key, Write};

use crate::config::Plan;

const MIGRATIONS: &[Migration] =
    &[Migration { name: "server-001-installation", sql: "CREATE TABLE server_installation (what TEXT PRIMARY KEY, value TEXT NOT NULL)" }];
/// Among the systems' own objects.
const OBJECT: &str = "system/installation";
/// In the table of work in progress, beside the partitions of jobs.
const PARTITION: &str = "installation";

/// Marks what is on engines as this installation's. `Conflict` when another one's mark is there. For when the tables are there.
pub(super) async fn claim(blocks: &Blocks, plan: &Plan, env: &Env) -> Result<()> {
    let own = name(blocks, env).await?;
    if plan.objects.is_engine() {
        let path = Path::from(OBJECT);
        if !objects::put_new(blocks.objects.as_ref(), &path, own.clone()).await? {
            let found = objects::get(blocks.objects.as_ref(), &path).await?;
            let remedy = format!("remove the object `{OBJECT}` if that one is gone for good");
            compare("objects", &own, &found, &remedy)?;
        }
    }
    if plan.table.is_engine() {
        let key = Key::new(PARTITION, "");
        let mark = Write::put(key.clone(), own.clone(), Condition::Absent);
        match blocks.table.transact(keys::STATE_TABLE, vec![mark]).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::Conflict => {
                let found = blocks.table.get(keys::STATE_TABLE, &key).await?.map(|item| item.value).unwrap_or_default();
                compare("table", &own, &found, "use another prefix or schema")?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// The name that the ledger has for the installation; made up on the first start.
async fn name(blocks: &Blocks, env: &Env) -> Result<String> {
    blocks.ledger.migrate(MIGRATIONS).await?;
    let insert = "INSERT INTO server_installation (what, value) VALUES ('name', $1) ON CONFLICT (what) DO NOTHING";
    blocks.ledger.transact(vec![Statement::new(insert, vec![env.id("i").into()])]).await?;
    let rows = blocks.ledger.query("SELECT value FROM server_installation WHERE what = 'name'", vec![]).await?;
    let row = rows.first().ok_or_else(|| Error::corrupt("the ledger has lost the installation's name"))?;
    row.text(0).map(str::to_owned)
}

fn compare(what: &str, own: &str, found: &[u8], remedy: &str) -> Result<()> {
    if found == own.as_bytes() {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "the {what} belong to the installation `{}` and the ledger to `{own}`; give each installation a bucket, a prefix and a schema of its \
         own, or {remedy}",
        String::from_utf8_lossy(found).escape_debug()
    )))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tidemill_blocks_test::SqliteMemoryLedger;
    use tidemill_blocks_test::sim::memory_blocks;

    use super::*;
    use crate::config::DriversSection;

    #[tokio::test]
    async fn engines_of_another_installation_are_left_alone() {
        let env = Env::system();
        let plan = DriversSection { default: "postgres".to_owned(), ..DriversSection::default() }.plan().unwrap();
        let first = memory_blocks(&env).unwrap();
        first.table.ensure(keys::STATE_TABLE).await.unwrap();
        claim(&first, &plan, &env).await.unwrap();
        claim(&first, &plan, &env).await.unwrap();

        let other_ledger = || Arc::new(SqliteMemoryLedger::open().unwrap());
        let e = claim(&Blocks { ledger: other_ledger(), ..first.clone() }, &plan, &env).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Conflict && e.message().contains("objects belong"), "{e}");
        let fresh = objects_of_their_own(&first);
        let e = claim(&Blocks { ledger: other_ledger(), ..fresh }, &plan, &env).await.unwrap_err();
        assert!(e.kind() == ErrorKind::Conflict && e.message().contains("table belong"), "{e}");
    }

    fn objects_of_their_own(blocks: &Blocks) -> Blocks {
        Blocks { objects: tidemill_blocks::memory::objects(), ..blocks.clone() }
    }
}
