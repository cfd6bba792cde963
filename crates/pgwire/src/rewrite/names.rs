//! Names of tables and columns.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_query::sqlparser::ast::{
    DataType, Expr, Ident, ObjectName, ObjectNamePart, OrderBy, OrderByKind, Query, SelectItem, SetExpr, Statement, TableAlias, TableFactor,
};

use super::functions;
use crate::catalog::{self, DATABASE, INFORMATION, PG_CATALOG, Relation, table_oid};

/// Stands between a column's name and a number where two columns would have one name, which the engine does not allow and PostgreSQL does.
pub(crate) const TWICE: char = '\u{1f}';

/// Where tables are: by their names, in the order in which schemas are looked through.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    tables: BTreeMap<String, Vec<String>>,
    pub(crate) path: Vec<String>,
}

/// What a table's name says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A table of the catalog: the engine's schema and the name.
    Catalog(&'static str, String),
    /// A table named without a schema.
    Bare(String),
}

impl Names {
    /// `path` is the order of schemas, the rest follows.
    pub(crate) fn new(relations: &[Relation], path: &[String]) -> Self {
        let mut order: Vec<String> = path.to_vec();
        for relation in relations {
            if !order.contains(&relation.schema) {
                order.push(relation.schema.clone());
            }
        }
        let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for schema in &order {
            for relation in relations.iter().filter(|r| r.schema == *schema) {
                tables.entry(relation.name.clone()).or_default().push(schema.clone());
            }
        }
        order.retain(|schema| relations.iter().any(|r| r.schema == *schema));
        Self { tables, path: order }
    }

    /// The schema in which a table without one is found.
    pub(super) fn schema_of(&self, table: &str) -> Option<&str> {
        self.tables.get(table)?.first().map(String::as_str)
    }

    /// Numbers of the tables that cannot be reached without their schema, since one before them has the same name.
    pub(super) fn shadowed(&self) -> Vec<u32> {
        self.tables.iter().flat_map(|(table, schemas)| schemas.iter().skip(1).map(|s| table_oid(s, table))).collect()
    }

    /// The number of the table that `text`, a name as in SQL, speaks of.
    pub(super) fn oid_of(&self, text: &str) -> u32 {
        let parts: Vec<String> = text.split('.').map(|p| p.trim().trim_matches('"').to_owned()).collect();
        match parts.as_slice() {
            [.., schema, table] => table_oid(schema, table),
            [table] if catalog::exists(PG_CATALOG, table) => table_oid(PG_CATALOG, table),
            [table] => table_oid(self.schema_of(table).unwrap_or_default(), table),
            [] => 0,
        }
    }

    /// The names of all tables by their numbers, with the schema where it has to be said.
    pub(super) fn all(&self) -> Vec<(u32, String)> {
        let each = |(table, schemas): (&String, &Vec<String>)| -> Vec<(u32, String)> {
            let named = |(i, schema): (usize, &String)| {
                let name = if i == 0 { table.clone() } else { format!("{schema}.{table}") };
                (table_oid(schema, table), name)
            };
            schemas.iter().enumerate().map(named).collect()
        };
        self.tables.iter().flat_map(each).collect()
    }

    /// Says where a table of the catalog, or one without a schema, is. `hidden` are names that WITH gives.
    pub(super) fn table(&self, factor: &mut TableFactor, hidden: impl Fn(&str) -> bool) {
        let (name, args, alias) = match factor {
            TableFactor::Table { name, args, alias, .. } => (name, args, alias),
            TableFactor::Function { name, .. } => return functions::strip(name),
            _ => return,
        };
        match place(name) {
            Some(Place::Catalog(_, table)) if name.0.len() == 1 && hidden(&table) => {}
            Some(Place::Catalog(schema, table)) => {
                *args = None;
                if schema == INFORMATION && alias.is_none() {
                    *alias = Some(TableAlias { explicit: true, name: Ident::new(table.clone()), columns: Vec::new(), at: None });
                }
                *name = ObjectName::from(vec![Ident::new(schema), Ident::new(table)]);
            }
            _ if args.is_some() => functions::strip(name),
            Some(Place::Bare(table)) if !hidden(&table) => {
                if let Some(schema) = self.schema_of(&table) {
                    name.0.insert(0, ObjectNamePart::Identifier(Ident::new(schema)));
                }
            }
            _ => {}
        }
    }
}

/// The parts of a name; unquoted ones in lower case, as the engine takes them.
pub(super) fn parts(name: &ObjectName) -> Vec<String> {
    let plain = |part: &ObjectNamePart| match part {
        ObjectNamePart::Identifier(ident) if ident.quote_style.is_some() => ident.value.clone(),
        ObjectNamePart::Identifier(ident) => ident.value.to_lowercase(),
        ObjectNamePart::Function(f) => f.to_string(),
    };
    name.0.iter().map(plain).collect()
}

pub(super) fn place(name: &ObjectName) -> Option<Place> {
    let parts = parts(name);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let parts = if let [DATABASE, rest @ ..] = parts.as_slice()
        && !rest.is_empty()
    {
        rest
    } else {
        parts.as_slice()
    };
    match parts {
        [PG_CATALOG, table] if catalog::exists(PG_CATALOG, table) => Some(Place::Catalog(PG_CATALOG, (*table).to_owned())),
        ["information_schema", table] if catalog::exists(INFORMATION, table) => Some(Place::Catalog(INFORMATION, (*table).to_owned())),
        [table] if catalog::exists(PG_CATALOG, table) => Some(Place::Catalog(PG_CATALOG, (*table).to_owned())),
        [table] => Some(Place::Bare((*table).to_owned())),
        _ => None,
    }
}

/// A column of `information_schema.tables` is one of `tables`, since the table itself is elsewhere.
pub(super) fn column(parts: &mut Vec<Ident>) {
    if parts.len() == 3 && parts[0].value.eq_ignore_ascii_case("information_schema") {
        parts.remove(0);
    }
}

/// Gives the columns of an answer the names that PostgreSQL gives them.
pub(super) fn columns(statement: &mut Statement) {
    if let Statement::Query(query) = statement {
        name_items(query);
    }
}

fn name_items(query: &mut Query) {
    let mut body = &mut *query.body;
    loop {
        match body {
            SetExpr::Select(select) => {
                let distinct = select.distinct.is_some();
                for (expr, alias) in name_each(&mut select.projection) {
                    // What is ordered by has to be what is selected, and the planner does not see through the name.
                    if distinct && let Some(OrderBy { kind: OrderByKind::Expressions(keys), .. }) = &mut query.order_by {
                        keys.iter_mut().filter(|key| key.expr == expr).for_each(|key| key.expr = Expr::Identifier(alias.clone()));
                    }
                }
                return;
            }
            SetExpr::Query(query) => body = &mut query.body,
            SetExpr::SetOperation { left, .. } => body = left,
            _ => return,
        }
    }
}

/// Gives each expression without a name one, and a column that is selected twice another. The engine has each name once, PostgreSQL as often
/// as one likes; a star may hold any.
fn name_each(items: &mut [SelectItem]) -> Vec<(Expr, Ident)> {
    let is_star = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let star = items.iter().any(is_star);
    let is_column = |expr: &Expr| matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
    let given = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(expr) if is_column(expr) => of_item(item),
        _ => None,
    };
    let mut taken: BTreeSet<String> = items.iter().filter_map(given).collect();
    let mut columns: Vec<Expr> = Vec::new();
    let mut named = Vec::new();
    for item in items {
        let (SelectItem::UnnamedExpr(expr), Some(name)) = (&*item, of_item(item)) else { continue };
        if is_column(expr) && !star && !columns.contains(expr) {
            columns.push(expr.clone());
            continue;
        }
        let mut unique = if star || is_column(expr) { format!("{name}{TWICE}1") } else { name.clone() };
        let mut n = 2;
        while !taken.insert(unique.clone()) {
            unique = format!("{name}{TWICE}{n}");
            n += 1;
        }
        let (expr, alias) = (expr.clone(), Ident::with_quote('"', unique));
        named.push((expr.clone(), alias.clone()));
        *item = SelectItem::ExprWithAlias { expr, alias };
    }
    named
}

/// The name that PostgreSQL gives what is selected; `None` for a star.
pub(super) fn of_item(item: &SelectItem) -> Option<String> {
    match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(alias.value.clone()),
        SelectItem::UnnamedExpr(expr) => Some(of_expr(expr).unwrap_or_else(|| "?column?".to_owned())),
        _ => None,
    }
}

fn of_expr(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(ident.value.clone()),
        Expr::CompoundIdentifier(parts) => parts.last().map(|p| p.value.clone()),
        Expr::Function(f) => Some(functions::last(&f.name)),
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => of_expr(inner),
        Expr::Cast { expr: inner, data_type, .. } => of_expr(inner).filter(|n| n != "case").or_else(|| type_name(data_type)),
        Expr::Case { .. } => Some("case".to_owned()),
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Extract { .. } => Some("extract".to_owned()),
        Expr::Substring { .. } => Some("substring".to_owned()),
        Expr::Position { .. } => Some("position".to_owned()),
        Expr::Trim { .. } => Some("btrim".to_owned()),
        Expr::Ceil { .. } => Some("ceil".to_owned()),
        Expr::Floor { .. } => Some("floor".to_owned()),
        Expr::Array(_) => Some("array".to_owned()),
        Expr::Interval(_) => Some("interval".to_owned()),
        Expr::Subquery(query) => match &*query.body {
            SetExpr::Select(select) => select.projection.first().and_then(of_item),
            _ => None,
        },
        _ => None,
    }
}

fn type_name(kind: &DataType) -> Option<String> {
    let name = kind.to_string().to_lowercase();
    let plain = name.split('(').next().unwrap_or_default();
    crate::value::PgType::by_name(plain).map(|t| t.name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_query::{TableSchema, Type};

    fn names() -> Names {
        let relation = |schema: &str, name: &str| Relation {
            schema: schema.into(),
            name: name.into(),
            columns: TableSchema::new(&[("id", Type::Text)]),
        };
        let relations = [relation("batch", "jobs"), relation("batch", "tasks"), relation("fleet", "workers"), relation("grid", "tasks")];
        Names::new(&relations, &["batch".to_owned(), "nowhere".to_owned()])
    }

    #[test]
    fn tables_are_found_along_the_path_and_those_behind_others_are_not() {
        let names = names();
        assert_eq!(names.path, ["batch", "fleet", "grid"]);
        assert_eq!((names.schema_of("workers"), names.schema_of("tasks")), (Some("fleet"), Some("batch")));
        assert_eq!(names.shadowed(), [table_oid("grid", "tasks")]);
        assert_eq!(names.oid_of("\"grid\".tasks"), table_oid("grid", "tasks"));
        assert_eq!(names.oid_of("pg_class"), table_oid(PG_CATALOG, "pg_class"));
    }
}
