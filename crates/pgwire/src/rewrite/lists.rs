//! Members of arrays, and patterns with an escape character of their own.

use tidemill_query::sqlparser::ast::{BinaryOperator, Expr, Value, ValueWithSpan};

use super::{build, types};

/// `x = ANY(ARRAY[...])` as `x IN (...)`: the planner brings the values to the type of x in a list, and not in an array.
pub(super) fn member(expr: &mut Expr) {
    let (left, right, op, any) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, right, compare_op, true),
        Expr::AllOp { left, compare_op, right } => (left, right, compare_op, false),
        _ => return,
    };
    types::array_literal(right);
    let negated = match (any, &op) {
        (true, BinaryOperator::Eq) => false,
        (false, BinaryOperator::NotEq) => true,
        _ => return,
    };
    let left = || Box::new((**left).clone());
    let new = match values(right) {
        Some([]) => build::boolean(negated),
        Some(list) => Expr::InList { expr: left(), list: list.to_vec(), negated },
        None if types::is_parameter(right) => {
            // For describing alone, where the parameter has no value yet: its type is that of an array of what x is compared with.
            let element = build::call("array_element", vec![(**right).clone(), build::number(1)]);
            Expr::BinaryOp { left: left(), op: BinaryOperator::Eq, right: Box::new(element) }
        }
        None => return,
    };
    *expr = new;
}

/// The elements of an array that is written out.
fn values(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Array(array) => Some(&array.elem),
        Expr::Cast { expr, .. } | Expr::Nested(expr) => values(expr),
        _ => None,
    }
}

/// `LIKE pattern ESCAPE '/'` as a pattern with backslashes, the one escape that the engine knows.
pub(super) fn escape(pattern: &mut Expr, escape: &mut Option<ValueWithSpan>) {
    let Some(ValueWithSpan { value: Value::SingleQuotedString(own), .. }) = escape else { return };
    if own == "\\" {
        return;
    }
    let backslash = || build::text("\\");
    let kept = build::call("replace", vec![std::mem::replace(pattern, build::null()), backslash(), build::text("\\\\")]);
    *pattern = if own.is_empty() { kept } else { build::call("replace", vec![kept, build::text(own), backslash()]) };
    *escape = None;
}
