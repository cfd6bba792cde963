//! What `tests/fuzz` reaches of this crate.

use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::FileWriter;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Sql;
use tidemill_base::Result;

use crate::{run, statement};

/// An Arrow stream as an Arrow file.
pub fn arrow_file(stream: &[u8]) -> Result<Vec<u8>> {
    let wrong = |e: datafusion::arrow::error::ArrowError| tidemill_base::Error::invalid(e.to_string());
    let reader = StreamReader::try_new(stream, None).map_err(wrong)?;
    let mut writer = FileWriter::try_new(Vec::new(), &reader.schema()).map_err(wrong)?;
    for batch in reader {
        writer.write(&batch.map_err(wrong)?).map_err(wrong)?;
    }
    writer.finish().map_err(wrong)?;
    writer.into_inner().map_err(wrong)
}

/// The stack of the threads that statements are parsed and planned on, in bytes.
pub const STACK_BYTES: usize = run::STACK_BYTES;

/// What the check before planning says of a statement: the statement as it was understood, written anew.
pub fn check(sql: &str, max_bytes: usize) -> Result<String> {
    statement::bound(sql, max_bytes)?;
    statement::parse(sql).map(|statement| statement.to_string())
}

/// Whether a statement that the check has let through is, by its kind, one that changes something. The kinds are named here the
/// other way round than in the check, which has a list of what may run.
pub fn changes(sql: &str) -> Result<bool> {
    fn of(statement: &Statement) -> bool {
        match statement {
            Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => true,
            Statement::Explain(explain) => of(&explain.statement),
            Statement::Statement(sql) => match &**sql {
                Sql::Explain { statement, .. } => of(&Statement::Statement(statement.clone())),
                sql => matches!(
                    sql,
                    Sql::Insert(_)
                        | Sql::Update(_)
                        | Sql::Delete(_)
                        | Sql::Merge(_)
                        | Sql::CreateTable(_)
                        | Sql::CreateView(_)
                        | Sql::Drop { .. }
                        | Sql::Truncate(_)
                        | Sql::Copy { .. }
                        | Sql::Set(_)
                        | Sql::Call(_)
                        | Sql::Prepare { .. }
                        | Sql::Execute { .. }
                        | Sql::StartTransaction { .. }
                        | Sql::Commit { .. }
                        | Sql::Rollback { .. }
                ),
            },
        }
    }
    statement::parse(sql).map(|statement| of(&statement))
}
