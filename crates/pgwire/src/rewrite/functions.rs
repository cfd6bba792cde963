//! Functions that only PostgreSQL has: those about the server and the session are literals, those about the catalog expressions over it.

use tidemill_query::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, ObjectNamePart,
};

use super::{Facts, build, types};
use crate::catalog::{DATABASE, OWNER, PG_CATALOG};

/// The last part of a function's name, in lower case.
pub(super) fn last(name: &ObjectName) -> String {
    match name.0.last() {
        Some(ObjectNamePart::Identifier(ident)) => ident.value.to_lowercase(),
        _ => String::new(),
    }
}

/// Takes `pg_catalog.` away from a name.
pub(super) fn strip(name: &mut ObjectName) {
    if let [ObjectNamePart::Identifier(schema), ObjectNamePart::Identifier(_)] = name.0.as_slice()
        && schema.value.eq_ignore_ascii_case(PG_CATALOG)
    {
        name.0.remove(0);
    }
}

/// Rewrites a call, if it is to something that the engine does not have or that means something else there.
pub(super) fn call(expr: &mut Expr, facts: &Facts) {
    let Expr::Function(function) = expr else { return };
    strip(&mut function.name);
    if function.name.0.len() != 1 {
        return;
    }
    let name = last(&function.name);
    let args = arguments(function);
    if let Some(new) = about_session(&name, &args, facts).or_else(|| about_catalog(&name, &args, facts)).or_else(|| other(&name, args)) {
        *expr = new;
    }
}

/// The plain arguments of a call.
fn arguments(function: &Function) -> Vec<Expr> {
    let FunctionArguments::List(list) = &function.args else { return Vec::new() };
    let plain = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
        _ => None,
    };
    list.args.iter().filter_map(plain).collect()
}

fn about_session(name: &str, args: &[Expr], facts: &Facts) -> Option<Expr> {
    let setting = |at: usize| args.get(at).and_then(build::literal).and_then(|n| facts.settings.get(&n.to_lowercase()));
    Some(match name {
        "version" => build::text(&facts.version),
        "current_user" | "session_user" | "user" | "current_role" | "getpgusername" => build::text(&facts.user),
        "current_database" | "current_catalog" => build::text(DATABASE),
        "current_schema" => facts.names.path.first().map_or_else(build::null_text, |s| build::text(s)),
        "current_schemas" => {
            let system = args.first().is_some_and(|a| *a == build::boolean(true)).then_some(PG_CATALOG);
            build::array(system.into_iter().chain(facts.names.path.iter().map(String::as_str)).map(build::text).collect())
        }
        "current_setting" => setting(0).map_or_else(build::null_text, |v| build::text(v)),
        "set_config" => args.get(1).cloned().unwrap_or_else(build::null_text),
        "pg_backend_pid" => build::number(facts.process),
        "pg_is_in_recovery" | "pg_is_wal_replay_paused" | "pg_is_other_temp_schema" => build::boolean(false),
        "pg_my_temp_schema" | "txid_current" | "pg_conf_load_time" => build::number(0),
        "inet_server_addr" | "inet_client_addr" | "pg_postmaster_start_time" => build::null_text(),
        "inet_server_port" | "inet_client_port" => build::cast(build::null(), DataType::Integer(None)),
        _ => return None,
    })
}

fn about_catalog(name: &str, args: &[Expr], facts: &Facts) -> Option<Expr> {
    let first = || args.first().cloned().unwrap_or_else(build::null);
    Some(match name {
        "pg_get_userbyid" => build::text(OWNER),
        "pg_encoding_to_char" => build::text("UTF8"),
        "pg_char_to_encoding" => build::number(6),
        "format_type" => types::format_type(first()),
        "to_regtype" => match args.first().and_then(build::literal) {
            Some(text) => types::type_number(text).unwrap_or_else(build::null),
            None => build::null(),
        },
        "to_regclass" => match args.first().and_then(build::literal) {
            Some(text) => build::number(facts.names.oid_of(text)),
            None => build::null(),
        },
        "pg_table_is_visible" => visible(first(), facts),
        n if n.starts_with("pg_") && n.ends_with("_is_visible") => build::boolean(true),
        n if n.starts_with("has_") && n.ends_with("_privilege") => build::boolean(grants(name, args)),
        "pg_has_role" => build::boolean(true),
        "row_security_active" | "pg_relation_is_publishable" => build::boolean(false),
        "pg_relation_is_updatable" | "pg_column_is_updatable" => build::number(0),
        "pg_total_relation_size"
        | "pg_relation_size"
        | "pg_table_size"
        | "pg_indexes_size"
        | "pg_database_size"
        | "pg_tablespace_size"
        | "pg_stat_get_numscans"
        | "pg_stat_get_live_tuples" => build::cast(build::number(0), DataType::BigInt(None)),
        "pg_size_pretty" => build::text("0 bytes"),
        "obj_description"
        | "col_description"
        | "shobj_description"
        | "pg_get_expr"
        | "pg_get_viewdef"
        | "pg_get_indexdef"
        | "pg_get_constraintdef"
        | "pg_get_functiondef"
        | "pg_get_triggerdef"
        | "pg_get_ruledef"
        | "pg_get_partkeydef"
        | "pg_get_serial_sequence"
        | "pg_get_function_result"
        | "pg_get_function_arguments"
        | "pg_get_function_identity_arguments"
        | "pg_tablespace_location"
        | "pg_get_statisticsobjdef_columns" => build::null_text(),
        _ => return None,
    })
}

/// Functions of the engine under other names, and those that meet lists which are texts here.
fn other(name: &str, args: Vec<Expr>) -> Option<Expr> {
    Some(match (name, args.as_slice()) {
        // Lists of rights and options: there are none.
        ("array_to_string" | "array_length" | "array_upper" | "array_lower" | "cardinality" | "unnest", [list, ..])
            if is_unused_list(list) =>
        {
            if name == "array_to_string" {
                build::null_text()
            } else {
                build::cast(build::null(), DataType::BigInt(None))
            }
        }
        ("array_upper", [list, ..]) => build::call("array_length", vec![list.clone()]),
        ("array_lower", [_, ..]) => build::number(1),
        ("quote_ident", [text]) => quote_ident(text),
        ("bool_or" | "bool_and" | "pg_typeof", _) => return None,
        ("json_build_object" | "jsonb_build_object" | "row_to_json" | "to_json" | "to_jsonb", _) => build::null_text(),
        _ => return None,
    })
}

fn is_unused_list(expr: &Expr) -> bool {
    match expr {
        // What ARRAY(SELECT ...) over a table that is always empty has become.
        Expr::Value(_) => build::literal(expr) == Some("{}"),
        Expr::BinaryOp { left, .. } => is_unused_list(left),
        expr => build::column_name(expr).is_some_and(|c| ["acl", "options", "config"].iter().any(|end| c.to_lowercase().ends_with(end))),
    }
}

/// All tables can be named without their schema but those that have one of the same name before them.
fn visible(oid: Expr, facts: &Facts) -> Expr {
    let list: Vec<Expr> = facts.names.shadowed().into_iter().map(build::number).collect();
    if list.is_empty() { build::boolean(true) } else { Expr::InList { expr: Box::new(oid), list, negated: true } }
}

/// Everybody who is here may read everything and change nothing. The right is the last argument.
fn grants(name: &str, args: &[Expr]) -> bool {
    let right = args.last().and_then(build::literal).unwrap_or("select").to_lowercase();
    let writes = ["insert", "update", "delete", "truncate", "references", "trigger", "create", "temp", "temporary"];
    let schema_usage = name.contains("schema") || name.contains("database");
    !right.split(',').any(|r| writes.iter().any(|w| r.trim().starts_with(w))) || (schema_usage && right == "usage")
}

/// The name as it stands, or between quotes where it has to.
fn quote_ident(text: &Expr) -> Expr {
    use tidemill_query::sqlparser::ast::helpers::attached_token::AttachedToken;
    use tidemill_query::sqlparser::ast::{BinaryOperator, CaseWhen};
    let binary = |left: Expr, op: BinaryOperator, right: Expr| Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) };
    let plain = binary(text.clone(), BinaryOperator::PGRegexMatch, build::text("^[a-z_][a-z0-9_]*$"));
    let doubled = build::call("replace", vec![text.clone(), build::text("\""), build::text("\"\"")]);
    let quoted = binary(binary(build::text("\""), BinaryOperator::StringConcat, doubled), BinaryOperator::StringConcat, build::text("\""));
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition: plain, result: text.clone() }],
        else_result: Some(Box::new(quoted)),
    }
}
