//! Parts of statements that can have no rows, because they read a table that never has any.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use tidemill_query::sqlparser::ast::{
    Expr, Function, FunctionArguments, GroupByExpr, Ident, JoinOperator, ObjectName, Query, Select, SelectItem, SetExpr, SetOperator,
    TableFactor, TableWithJoins, Visit, Visitor,
};
use tidemill_query::sqlparser::ast::{With, helpers::attached_token::AttachedToken};

use super::names::{self, Place};
use super::{build, functions};
use crate::catalog;

/// Names that WITH gives, and whether there are no rows in them. They go before tables of the same name.
pub(super) type Given = BTreeMap<String, bool>;

/// Functions that make one row of none.
const AGGREGATES: &[&str] = &[
    "count",
    "sum",
    "min",
    "max",
    "avg",
    "array_agg",
    "string_agg",
    "bool_and",
    "bool_or",
    "every",
    "json_agg",
    "jsonb_agg",
    "json_object_agg",
];

/// A query without rows becomes one that says so at once, with the same columns, as texts.
pub(super) fn simplify(query: &mut Query, given: &Given) {
    if !is_empty(query, given) {
        return;
    }
    let Some(items) = first_select(&query.body).map(|s| s.projection.as_slice()) else { return };
    let Some(names) = items.iter().map(names::of_item).collect::<Option<Vec<String>>>() else { return };
    let mut used = BTreeSet::new();
    let named = |name: String| {
        let mut unique = name.clone();
        let mut n = 2;
        while !used.insert(unique.clone()) {
            unique = format!("{name}_{n}");
            n += 1;
        }
        SelectItem::ExprWithAlias { expr: build::null_text(), alias: Ident::with_quote('"', unique) }
    };
    let projection = names.into_iter().map(named).collect();
    let SetExpr::Select(mut select) = SetExpr::Select(Box::new(blank())) else { return };
    (select.projection, select.selection) = (projection, Some(build::boolean(false)));
    *query.body = SetExpr::Select(select);
    (query.with, query.order_by, query.limit_clause, query.fetch) = (None, None, None, None);
}

/// A SELECT of nothing.
fn blank() -> Select {
    use tidemill_query::sqlparser::ast::SelectFlavor;
    Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: Vec::new(),
        exclude: None,
        into: None,
        from: Vec::new(),
        lateral_views: Vec::new(),
        prewhere: None,
        selection: None,
        connect_by: Vec::new(),
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}

/// Subqueries without rows as what they are worth.
pub(super) fn simplify_expr(expr: &mut Expr, given: &Given) {
    match expr {
        Expr::Subquery(query) if is_empty(query, given) => *expr = build::null_text(),
        Expr::Exists { subquery, negated } if is_empty(subquery, given) => *expr = build::boolean(*negated),
        Expr::InSubquery { subquery, negated, .. } if is_empty(subquery, given) => *expr = build::boolean(*negated),
        Expr::Function(Function { name, args: FunctionArguments::Subquery(query), .. })
            if functions::last(name) == "array" && is_empty(query, given) =>
        {
            *expr = build::text("{}");
        }
        _ => {}
    }
}

/// A subquery of one value over the catalog finds one row at most there; the planner wants that said by an aggregate.
pub(super) fn aggregate(query: &mut Query) {
    let SetExpr::Select(select) = &mut *query.body else { return };
    let plain = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty()) && !aggregates(&select.projection);
    if !plain || !select.from.iter().all(|t| of_catalog(&t.relation)) || select.from.is_empty() {
        return;
    }
    if let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] = select.projection.as_mut_slice() {
        let inner = std::mem::replace(item, build::null());
        *item = build::call("max", vec![inner]);
        (query.order_by, query.limit_clause, query.fetch) = (None, None, None);
    }
}

fn of_catalog(table: &TableFactor) -> bool {
    matches!(table, TableFactor::Table { name, .. } if matches!(names::place(name), Some(Place::Catalog(..))))
}

fn first_select(body: &SetExpr) -> Option<&Select> {
    match body {
        SetExpr::Select(select) => Some(select),
        SetExpr::Query(query) => first_select(&query.body),
        SetExpr::SetOperation { left, .. } => first_select(left),
        _ => None,
    }
}

fn is_empty(query: &Query, known: &Given) -> bool {
    let mut known = known.clone();
    if let Some(With { cte_tables, .. }) = &query.with {
        for cte in cte_tables {
            let empty = is_empty(&cte.query, &known);
            known.insert(cte.alias.name.value.to_lowercase(), empty);
        }
    }
    body_is_empty(&query.body, &known)
}

fn body_is_empty(body: &SetExpr, known: &Given) -> bool {
    match body {
        SetExpr::Select(select) => select_is_empty(select, known),
        SetExpr::Query(query) => is_empty(query, known),
        SetExpr::SetOperation { left, op, right, .. } => match op {
            SetOperator::Union => body_is_empty(left, known) && body_is_empty(right, known),
            SetOperator::Intersect => body_is_empty(left, known) || body_is_empty(right, known),
            SetOperator::Except | SetOperator::Minus => body_is_empty(left, known),
        },
        _ => false,
    }
}

fn select_is_empty(select: &Select, known: &Given) -> bool {
    let grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(by, _) => !by.is_empty(),
    };
    select.from.iter().any(|table| from_is_empty(table, known)) && (grouped || (!aggregates(&select.projection) && select.having.is_none()))
}

fn from_is_empty(from: &TableWithJoins, known: &Given) -> bool {
    let mut empty = table_is_empty(&from.relation, known);
    for join in &from.joins {
        let joined = table_is_empty(&join.relation, known);
        empty = match &join.join_operator {
            JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) => empty || joined,
            JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => empty,
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) => joined,
            JoinOperator::FullOuter(_) => empty && joined,
            _ => false,
        };
    }
    empty
}

fn table_is_empty(table: &TableFactor, known: &Given) -> bool {
    match table {
        TableFactor::Table { name, .. } => named_is_empty(name, known),
        TableFactor::Derived { subquery, .. } => is_empty(subquery, known),
        TableFactor::NestedJoin { table_with_joins, .. } => from_is_empty(table_with_joins, known),
        _ => false,
    }
}

fn named_is_empty(name: &ObjectName, known: &Given) -> bool {
    let parts = names::parts(name);
    if let [one] = parts.as_slice()
        && let Some(empty) = known.get(one)
    {
        return *empty;
    }
    match names::place(name) {
        Some(Place::Catalog(schema, table)) => catalog::is_always_empty(schema, &table),
        _ => false,
    }
}

/// Whether an aggregate stands in what is selected, which gives a row even of none.
fn aggregates(items: &[SelectItem]) -> bool {
    let of_item = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => expr.visit(&mut Aggregates { inside: 0 }).is_break(),
        _ => false,
    };
    items.iter().any(of_item)
}

/// Stops at the first aggregate that is not one of a subquery.
struct Aggregates {
    inside: usize,
}

impl Visitor for Aggregates {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.inside += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.inside -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        let found = matches!(expr, Expr::Function(f) if f.over.is_none() && AGGREGATES.contains(&functions::last(&f.name).as_str()));
        if found && self.inside == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}
