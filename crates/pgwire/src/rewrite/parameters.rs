//! Values for `$1`, `$2` ...

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use tidemill_base::{Error, Result};
use tidemill_query::sqlparser::ast::{CastKind, DataType, Expr, LimitClause, Query, Statement, Value, VisitMut, VisitorMut};

use crate::error::SqlError;
use crate::value::{Parameter, PgType, literal};

/// What is known of a statement's parameters.
#[derive(Debug, Clone)]
pub(crate) enum Parameters {
    /// Their types by number, 0 where they are not known, for describing; with a place for those that the statement itself says.
    Types(Vec<u32>, Arc<Mutex<BTreeMap<usize, u32>>>),
    /// Nothing and nothing can be found out: each is a text.
    Texts,
    /// Their values.
    Values(Vec<Parameter>),
}

impl Parameters {
    /// Puts them into the statement.
    pub(super) fn put_into(&self, statement: &mut Statement) -> Result<()> {
        match VisitMut::visit(statement, &mut Put(self)) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(e) => Err(e),
        }
    }

    fn replaced(&self, expr: &Expr) -> Result<Option<Expr>> {
        let Some(number) = parameter(expr) else { return Ok(None) };
        let missing = || Error::invalid(format!("there is no parameter {expr}; parameters are $1, $2 and so on, each with a value"));
        let index = number.checked_sub(1).ok_or_else(missing)?;
        match self {
            Self::Values(values) => {
                let parameter = values.get(index).ok_or_else(missing)?;
                literal(number, parameter).map(Some).map_err(|e: SqlError| Error::invalid(e.message))
            }
            Self::Texts => Ok(Some(cast(expr, DataType::Text))),
            Self::Types(types, _) => Ok(types.get(index).and_then(|oid| declared(*oid)).map(|kind| cast(expr, kind))),
        }
    }
}

struct Put<'a>(&'a Parameters);

impl VisitorMut for Put<'_> {
    type Break = Error;

    /// What limits a query is a number, which the planner does not say of a parameter there.
    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if let (Parameters::Types(..), Some(LimitClause::LimitOffset { limit, offset, .. })) = (self.0, &mut query.limit_clause) {
            for expr in limit.iter_mut().chain(offset.as_mut().map(|o| &mut o.value)) {
                if parameter(expr).is_some() {
                    *expr = cast(expr, DataType::BigInt(None));
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// What a parameter is cast to is its type; the planner does not say so.
    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let (Parameters::Types(_, found), Expr::Cast { expr, data_type, .. }) = (self.0, &*expr)
            && let (Some(number), Some(oid)) = (parameter(expr), number_of(data_type))
        {
            found.lock().unwrap_or_else(PoisonError::into_inner).entry(number).or_insert(oid);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match self.0.replaced(expr) {
            Ok(None) => {}
            Ok(Some(new)) => *expr = new,
            Err(e) => return ControlFlow::Break(e),
        }
        ControlFlow::Continue(())
    }
}

/// The number of a parameter, 0 when it has none.
fn parameter(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(name) = &value.value else { return None };
    Some(name.strip_prefix('$').and_then(|n| n.parse().ok()).unwrap_or(0))
}

/// The number of a type as a statement writes it.
fn number_of(kind: &DataType) -> Option<u32> {
    let text = kind.to_string();
    match text.strip_suffix("[]") {
        Some(element) => PgType::by_name(element).map(|t| t.array),
        None => PgType::by_name(text.split('(').next()?).map(|t| t.oid),
    }
}

fn cast(expr: &Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr.clone()), data_type, array: false, format: None }
}

/// The type that a client said a parameter has, where the engine has to know.
fn declared(oid: u32) -> Option<DataType> {
    use tidemill_query::sqlparser::ast::{ExactNumberInfo, TimezoneInfo};
    if PgType::by_array(oid).is_some() {
        return None;
    }
    Some(match oid {
        16 => DataType::Boolean,
        21 => DataType::SmallInt(None),
        23 => DataType::Integer(None),
        20 | 26 => DataType::BigInt(None),
        700 => DataType::Real,
        701 => DataType::DoublePrecision,
        1700 => DataType::Decimal(ExactNumberInfo::PrecisionAndScale(38, 10)),
        1082 => DataType::Date,
        1114 => DataType::Timestamp(None, TimezoneInfo::None),
        1184 => DataType::Timestamp(None, TimezoneInfo::WithTimeZone),
        19 | 25 | 1042 | 1043 => DataType::Text,
        _ => return None,
    })
}
