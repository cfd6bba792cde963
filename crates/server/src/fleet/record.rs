//! What the manager that scales writes down for the others: why each group is as large as it is, and its last hour.

use tidemill_api::ScalePoint;
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::ledger::{Ledger, Migration, Statement};

/// The table.
pub(super) const MIGRATIONS: &[Migration] = &[Migration {
    name: "fleet-001-scaling",
    sql: "CREATE TABLE fleet_scaling (group_name TEXT PRIMARY KEY, reason TEXT NOT NULL, history TEXT NOT NULL, at_us BIGINT NOT NULL)",
}];

/// A group, the reason for its size, and its chart.
pub(super) type Chart = (String, String, Vec<ScalePoint>);

/// Writes down what has changed.
pub(super) async fn write(ledger: &dyn Ledger, charts: &[Chart], now: Timestamp) -> Result<()> {
    let sql = "INSERT INTO fleet_scaling (group_name, reason, history, at_us) VALUES ($1, $2, $3, $4)
               ON CONFLICT (group_name) DO UPDATE SET reason = excluded.reason, history = excluded.history, at_us = excluded.at_us";
    let mut statements = Vec::with_capacity(charts.len());
    for (group, reason, history) in charts {
        let text = serde_json::to_string(history).map_err(|e| Error::internal("encode a chart").with_source(e))?;
        statements.push(Statement::new(sql, vec![group.as_str().into(), reason.as_str().into(), text.into(), now.into()]));
    }
    if statements.is_empty() { Ok(()) } else { ledger.transact(statements).await.map(drop) }
}

/// What was written down of a group.
pub(super) async fn read(ledger: &dyn Ledger, group: &str) -> Result<Option<(String, Vec<ScalePoint>)>> {
    let rows = ledger.query("SELECT reason, history FROM fleet_scaling WHERE group_name = $1", vec![group.into()]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let history = serde_json::from_str(row.text(1)?).map_err(|e| Error::corrupt("a chart does not decode").with_source(e))?;
    Ok(Some((row.text(0)?.to_owned(), history)))
}
