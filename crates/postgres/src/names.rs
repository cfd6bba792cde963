//! The numbers behind names of queues and tables. Neither is ever removed, so what is known once stays true.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tidemill_base::Result;

use crate::error::from_pg;
use crate::link::{Block, Link};

/// Numbers that have been asked for before.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<BTreeMap<String, i32>>);

impl Names {
    /// The number that `sql` answers for `name`, if there is one.
    pub(crate) async fn find(&self, link: &Link, block: Block, sql: &str, name: &str) -> Result<Option<i32>> {
        if let Some(id) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(Some(*id));
        }
        let rows = link.read(block, sql, &[&name]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let id = row.try_get(0).map_err(from_pg)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), id);
        Ok(Some(id))
    }
}
