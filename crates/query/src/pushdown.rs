//! From a statement's conditions to what a [`Source`](crate::Source) can skip by.
//!
//! Only conditions that every matching row must satisfy are taken, and only widened, never narrowed: what is not understood is left
//! to the engine, which filters again in any case.

use std::collections::BTreeSet;

use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::InList;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator};

use crate::Scan;

/// Narrows `scan` by conditions that are all true of every row wanted.
pub(crate) fn narrow(scan: &mut Scan, filters: &[Expr]) {
    for filter in filters {
        narrow_by(scan, filter);
    }
}

fn narrow_by(scan: &mut Scan, filter: &Expr) {
    if let Some((column, words)) = words_of(filter) {
        scan.narrow_words(column, words);
        return;
    }
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            narrow_by(scan, left);
            narrow_by(scan, right);
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let found = match (column_of(left), bound_of(right), column_of(right), bound_of(left)) {
                (Some(column), Some(bound), _, _) => Some((column, *op, bound)),
                (_, _, Some(column), Some(bound)) => op.swap().map(|op| (column, op, bound)),
                _ => None,
            };
            if let Some((column, low, high)) = found.and_then(|(column, op, bound)| bound.range(op).map(|(l, h)| (column, l, h))) {
                scan.narrow_range(column, low, high);
            }
        }
        Expr::Between(between) if !between.negated => {
            if let (Some(column), Some(low), Some(high)) = (column_of(&between.expr), bound_of(&between.low), bound_of(&between.high)) {
                scan.narrow_range(column, low.floor, high.ceil);
            }
        }
        _ => {}
    }
}

/// `column = 'word'`, `column IN ('word', ...)`, and any of these joined by OR on one column.
fn words_of(filter: &Expr) -> Option<(&str, BTreeSet<String>)> {
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) => {
            let (column, word) = match (column_of(left), word_of(right)) {
                (Some(column), Some(word)) => (column, word),
                _ => (column_of(right)?, word_of(left)?),
            };
            Some((column, BTreeSet::from([word.to_owned()])))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            let (column, mut words) = words_of(left)?;
            let (other, more) = words_of(right)?;
            words.extend(more);
            (column == other).then_some((column, words))
        }
        Expr::InList(InList { expr, list, negated: false }) => {
            let words: Option<BTreeSet<String>> = list.iter().map(|e| word_of(e).map(str::to_owned)).collect();
            Some((column_of(expr)?, words?))
        }
        _ => None,
    }
}

/// The column itself, or a time column cast to another unit, which keeps the order.
fn column_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Column(column) => Some(column.name()),
        Expr::Cast(cast) if cast.field.data_type().is_temporal() => match &*cast.expr {
            Expr::Column(column) => Some(column.name()),
            _ => None,
        },
        _ => None,
    }
}

fn word_of(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(w)) | ScalarValue::LargeUtf8(Some(w)) | ScalarValue::Utf8View(Some(w)), _) => Some(w),
        _ => None,
    }
}

/// A literal as the whole numbers (or microseconds) around it.
#[derive(Clone, Copy)]
struct Bound {
    floor: i64,
    ceil: i64,
}

impl Bound {
    const fn exact(v: i64) -> Self {
        Self { floor: v, ceil: v }
    }

    /// The values `v` with `v op self`, both ends included.
    fn range(self, op: Operator) -> Option<(i64, i64)> {
        let Self { floor, ceil } = self;
        match op {
            Operator::Eq => Some((floor, ceil)),
            Operator::Gt if floor == ceil => Some((floor.saturating_add(1), i64::MAX)),
            Operator::Gt | Operator::GtEq => Some((floor, i64::MAX)),
            Operator::Lt if floor == ceil => Some((i64::MIN, ceil.saturating_sub(1))),
            Operator::Lt | Operator::LtEq => Some((i64::MIN, ceil)),
            _ => None,
        }
    }
}

fn bound_of(expr: &Expr) -> Option<Bound> {
    let Expr::Literal(value, _) = expr else { return None };
    match value {
        ScalarValue::Int64(Some(v)) | ScalarValue::TimestampMicrosecond(Some(v), _) => Some(Bound::exact(*v)),
        ScalarValue::UInt64(Some(v)) => i64::try_from(*v).ok().map(Bound::exact),
        ScalarValue::TimestampSecond(Some(v), _) => v.checked_mul(1_000_000).map(Bound::exact),
        ScalarValue::TimestampMillisecond(Some(v), _) => v.checked_mul(1_000).map(Bound::exact),
        ScalarValue::TimestampNanosecond(Some(v), _) => {
            let floor = v.div_euclid(1_000);
            Some(Bound { floor, ceil: floor + i64::from(v.rem_euclid(1_000) != 0) })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::prelude::{col, lit};

    fn scan(filters: &[Expr]) -> Scan {
        let mut scan = Scan::new(Vec::new(), None);
        narrow(&mut scan, filters);
        scan
    }

    #[test]
    fn equality_in_and_or_on_one_column_become_words() {
        let s = scan(&[col("job").eq(lit("a")).or(col("job").in_list(vec![lit("b"), lit("c")], false)), lit("b").eq(col("job"))]);
        assert_eq!(s.words("job").map(|w| w.iter().map(String::as_str).collect::<Vec<_>>()), Some(vec!["b"]));
        assert!(s.wants("job", "b") && !s.wants("job", "a") && s.wants("other", "a"));
        let nothing = scan(&[
            col("job").eq(lit("a")).or(col("task").eq(lit("b"))),
            col("job").not_eq(lit("a")),
            col("job").in_list(vec![lit("a")], true),
            col("job").in_list(vec![lit("a"), col("task")], false),
        ]);
        assert_eq!(nothing, Scan::default(), "a condition that is not understood rules nothing out");
    }

    #[test]
    fn comparisons_become_closed_ranges_and_finer_literals_widen() {
        let s = scan(&[col("n").gt(lit(5_i64)).and(lit(9_i64).gt_eq(col("n")))]);
        assert_eq!(s.range("n"), Some((6, 9)));
        assert!(s.overlaps("n", 9, 20) && !s.overlaps("n", 10, 20) && s.overlaps("m", 10, 20));
        let nanos = |v| lit(ScalarValue::TimestampNanosecond(Some(v), None));
        let s = scan(&[col("t").gt(nanos(1_500)), col("t").lt(nanos(9_500))]);
        assert_eq!(s.range("t"), Some((1, 10)));
        let s = scan(&[col("t").eq(lit(1_i64)), col("t").eq(lit(2_i64))]);
        assert!(!s.overlaps("t", i64::MIN, i64::MAX), "an impossible range overlaps nothing");
        assert_eq!(scan(&[col("n").not_eq(lit(5_i64)), col("n").gt(lit(1.5))]), Scan::default());
        assert_eq!(scan(&[col("n").between(lit(2_i64), lit(3_i64))]).range("n"), Some((2, 3)));
    }
}
