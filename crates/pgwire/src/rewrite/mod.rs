//! PostgreSQL's words in the engine's: names of types, functions and tables of the catalog, and the values of parameters.
//!
//! A statement is changed as a tree, between the engine's parser and its planner, on the engine's threads. So it has passed the engine's
//! limits on size and depth, and what comes of it has to pass the check that it only reads. Functions that tell about the server or the
//! session become literals; those about the catalog become expressions over its tables. Where a statement reads a table that is always empty
//! (there are no indexes or constraints here) the part that can have no rows is taken out before it is planned: such parts are what tools
//! write with the means that only PostgreSQL has.

mod build;
mod empty;
mod functions;
mod lists;
mod names;
mod parameters;
mod types;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tidemill_base::Result;
use tidemill_query::Rewrite;
use tidemill_query::sqlparser::ast::{BinaryOperator, Expr, FunctionArguments, Query, Statement, TableFactor, VisitMut, VisitorMut};

pub(crate) use self::names::{Names, TWICE};
pub(crate) use self::parameters::Parameters;

/// What literals are made from.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) user: String,
    /// `PostgreSQL 15.0 (Tidemill ...)`.
    pub(crate) version: String,
    pub(crate) process: u32,
    /// The session's settings by name.
    pub(crate) settings: BTreeMap<String, String>,
    pub(crate) names: Names,
}

/// The change that a statement of a session goes through.
pub(crate) fn rewrite(facts: Arc<Facts>, parameters: Parameters) -> Arc<Rewrite> {
    Arc::new(move |statement: &mut Statement| -> Result<()> {
        parameters.put_into(statement)?;
        names::columns(statement);
        let mut changes = Changes { facts: &facts, hidden: Vec::new() };
        // The visitor breaks nowhere.
        let _ = VisitMut::visit(statement, &mut changes);
        Ok(())
    })
}

struct Changes<'a> {
    facts: &'a Facts,
    /// Names that WITH gives, a list for each query that is being visited; they go before tables of the same name.
    hidden: Vec<Vec<String>>,
}

impl Changes<'_> {
    /// The names that hold here. Whether one has no rows was looked at where it was given.
    fn given(&self) -> empty::Given {
        self.hidden.iter().flatten().map(|name| (name.clone(), false)).collect()
    }
}

impl VisitorMut for Changes<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        empty::simplify(query, &self.given());
        let given = query.with.iter().flat_map(|w| &w.cte_tables).map(|cte| cte.alias.name.value.to_lowercase()).collect();
        self.hidden.push(given);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.hidden.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, table: &mut TableFactor) -> ControlFlow<()> {
        let hidden = |name: &str| self.hidden.iter().flatten().any(|h| h == name);
        self.facts.names.table(table, hidden);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } | Expr::Function(_)) {
            empty::simplify_expr(expr, &self.given());
        }
        match expr {
            Expr::Subquery(query) => empty::aggregate(query),
            Expr::Function(f) => {
                if let FunctionArguments::Subquery(query) = &mut f.args
                    && functions::last(&f.name) == "array"
                {
                    *expr = build::array_of(query);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Collate { expr: inner, .. } => *expr = std::mem::replace(inner, build::null()),
            Expr::BinaryOp { left, op, right } => operator(left, op, right),
            Expr::AnyOp { .. } | Expr::AllOp { .. } => lists::member(expr),
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => lists::escape(pattern, escape_char),
            Expr::CompoundIdentifier(parts) => names::column(parts),
            Expr::Cast { .. } => types::cast(expr, self.facts),
            Expr::Function(_) => functions::call(expr, self.facts),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `OPERATOR(pg_catalog.~)` as `~`; and a function's number compared with 0, which here is its name compared with `-`.
fn operator(left: &mut Expr, op: &mut BinaryOperator, right: &mut Expr) {
    if let BinaryOperator::PGCustomBinaryOperator(parts) = op
        && let Some(plain) = parts.last().and_then(|symbol| build::operator(symbol))
    {
        *op = plain;
    }
    let compares = matches!(op, BinaryOperator::Eq | BinaryOperator::NotEq);
    let of_function = |e: &Expr| build::column_name(e).is_some_and(|c| matches!(c, "typreceive" | "typsend" | "typinput" | "typoutput"));
    if compares && of_function(left) && build::is_number(right, "0") {
        *right = build::text("-");
    }
}
