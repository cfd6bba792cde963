//! Aggregates of risk: exact quantiles and expected shortfall, over all values of a group and not over a sketch of them.
//!
//! | call | what it is |
//! | --- | --- |
//! | `quantile_exact(x, p)` | the smallest value that at least a share `p` of the values do not exceed: the inverse of the empirical distribution, type 1 in Hyndman and Fan, "Sample Quantiles in Statistical Packages" (1996). It is always one of the values |
//! | `quantile_exact(x, p, 'linear')` | between two values where the quantile falls between them: type 7 there, what spreadsheets and NumPy give |
//! | `expected_shortfall(x, p)` | the mean loss in the worst share `1 - p` of the values, a value on the edge counted by its part; losses are positive, as value at risk is quoted (Acerbi and Tasche, "On the coherence of expected shortfall", 2002) |
//!
//! Nulls are left out, as by every aggregate. One not-a-number makes the answer not-a-number: a valuation that failed must not vanish from
//! a measure of risk. Values are added in their order of size, so that the answer does not depend on the order in which they came.

use std::mem::size_of;
use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, Float64Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type, Schema};
use datafusion::common::utils::SingleRowListArrayBuilder;
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Signature, TypeSignature, Volatility};
use datafusion::physical_plan::PhysicalExpr;

/// A share of a whole number of values is that number, whatever rounding has made of it.
const ROUNDING: f64 = 1e-9;

/// The aggregates, for an engine to register.
pub(crate) fn aggregates() -> [AggregateUDF; 2] {
    let two = TypeSignature::Exact(vec![DataType::Float64, DataType::Float64]);
    let three = TypeSignature::Exact(vec![DataType::Float64, DataType::Float64, DataType::Utf8]);
    let quantile = Signature::one_of(vec![two.clone(), three], Volatility::Immutable);
    let shortfall = Signature::one_of(vec![two], Volatility::Immutable);
    [Kind::Quantile, Kind::Shortfall].map(|kind| {
        let signature = if kind == Kind::Quantile { quantile.clone() } else { shortfall.clone() };
        AggregateUDF::new_from_impl(Ordered { kind, signature })
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Quantile,
    Shortfall,
}

/// An aggregate over the values in their order.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Ordered {
    kind: Kind,
    signature: Signature,
}

impl AggregateUDFImpl for Ordered {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Quantile => "quantile_exact",
            Kind::Shortfall => "expected_shortfall",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _kinds: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true)));
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "values"), list, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return Err(DataFusionError::Plan(format!("{}(DISTINCT ...) is refused: equal values count, each of them", self.name())));
        }
        let p = match args.exprs.get(1).map(constant).transpose()? {
            Some(ScalarValue::Float64(Some(p))) if (0.0..=1.0).contains(&p) => p,
            other => {
                let found = other.map_or_else(String::new, |v| v.to_string());
                return Err(DataFusionError::Plan(format!("{} takes a share between 0 and 1 and was given `{found}`", self.name())));
            }
        };
        let measure = match (self.kind, args.exprs.get(2).map(constant).transpose()?) {
            (Kind::Shortfall, _) => Measure::Shortfall,
            (Kind::Quantile, None) => Measure::Inverted,
            (Kind::Quantile, Some(word)) => match word.try_as_str().flatten() {
                Some("inverted_cdf") => Measure::Inverted,
                Some("linear") => Measure::Linear,
                _ => {
                    let known = "'inverted_cdf' and 'linear'";
                    return Err(DataFusionError::Plan(format!("quantile_exact knows the methods {known} and was given `{word}`")));
                }
            },
        };
        Ok(Box::new(Values { values: Vec::new(), p, measure }))
    }
}

/// The value of an argument that is the same for all rows.
fn constant(argument: &Arc<dyn PhysicalExpr>) -> Result<ScalarValue> {
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    match argument.evaluate(&nothing) {
        Ok(ColumnarValue::Scalar(value)) => Ok(value),
        _ => Err(DataFusionError::Plan(format!("`{argument}` has to be a constant: a share between 0 and 1, or the name of a method"))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Inverted,
    Linear,
    Shortfall,
}

/// All values of a group.
#[derive(Debug)]
struct Values {
    values: Vec<f64>,
    p: f64,
    measure: Measure,
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let Some(values) = values.first() else { return Ok(()) };
        let values = values.as_primitive::<Float64Type>();
        if values.null_count() == 0 {
            self.values.extend_from_slice(values.values());
        } else {
            self.values.extend(values.iter().flatten());
        }
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(measure(&mut self.values, self.p, self.measure)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = Float64Array::from(std::mem::take(&mut self.values));
        Ok(vec![SingleRowListArrayBuilder::new(Arc::new(values)).build_list_scalar()])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let Some(states) = states.first() else { return Ok(()) };
        for state in states.as_list::<i32>().iter().flatten() {
            self.update_batch(&[state])?;
        }
        Ok(())
    }
}

fn measure(values: &mut [f64], p: f64, measure: Measure) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    if values.iter().any(|v| v.is_nan()) {
        return Some(f64::NAN);
    }
    values.sort_unstable_by(f64::total_cmp);
    match measure {
        Measure::Inverted => Some(inverted(values, p)),
        Measure::Linear => Some(linear(values, p)),
        Measure::Shortfall => Some(shortfall(values, p)),
    }
}

/// Of sorted values, at least one.
fn inverted(sorted: &[f64], p: f64) -> f64 {
    let n = sorted.len() as f64;
    let rank = (n * p * (1.0 - ROUNDING)).ceil().clamp(1.0, n);
    sorted[rank as usize - 1]
}

fn linear(sorted: &[f64], p: f64) -> f64 {
    let at = (sorted.len() - 1) as f64 * p;
    let below = at.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (at - at.floor()) * (sorted[above] - sorted[below])
}

fn shortfall(sorted: &[f64], p: f64) -> f64 {
    let tail = sorted.len() as f64 * (1.0 - p);
    if tail <= ROUNDING {
        return -sorted[0];
    }
    let whole = (tail.floor() as usize).min(sorted.len());
    let edge = sorted.get(whole).map_or(0.0, |v| (tail - tail.floor()) * v);
    -(sorted[..whole].iter().sum::<f64>() + edge) / tail
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1 to 10, not in order.
    fn ten() -> Vec<f64> {
        vec![3.0, 10.0, 1.0, 7.0, 5.0, 9.0, 2.0, 8.0, 6.0, 4.0]
    }

    #[test]
    fn quantiles_are_those_computed_by_hand() {
        let inverted = |p| measure(&mut ten(), p, Measure::Inverted).unwrap();
        // The share of values up to 3 is 0.3: three are 30 % of ten, and a little more than 30 % takes the fourth.
        assert_eq!([0.0, 0.1, 0.11, 0.3, 0.31, 0.5, 0.95, 1.0].map(inverted), [1.0, 1.0, 2.0, 3.0, 4.0, 5.0, 10.0, 10.0]);
        let linear = |p| measure(&mut ten(), p, Measure::Linear).unwrap();
        // Place 9 p from 0: 4.5 lies between 5 and 6, 2.25 a quarter of the way from 3 to 4.
        assert_eq!([0.0, 0.25, 0.5, 1.0].map(linear), [1.0, 3.25, 5.5, 10.0]);
        assert_eq!(measure(&mut [], 0.5, Measure::Inverted), None);
    }

    #[test]
    fn shares_that_are_whole_numbers_of_values_are_not_moved_by_rounding() {
        for n in 1..2_000_usize {
            let sorted: Vec<f64> = (1..=n).map(|v| v as f64).collect();
            for k in [1, n.div_ceil(3), n] {
                let p = k as f64 / n as f64;
                assert_eq!(inverted(&sorted, p), k as f64, "{k} of {n}");
            }
        }
    }

    #[test]
    fn the_shortfall_of_500_takes_twelve_and_a_half() {
        // Losses 500, 499, ... 1: the 12 worst are 500 to 489, their sum 12 * 494.5 = 5934, half of the 13th is 244.
        let mut pnl: Vec<f64> = (1..=500).map(|v| -f64::from(v)).collect();
        let es = measure(&mut pnl, 0.975, Measure::Shortfall).unwrap();
        assert!((es - (5934.0 + 244.0) / 12.5).abs() < 1e-9, "{es}");
        // Value at risk at 99 % is the fifth worst of 500.
        assert_eq!(measure(&mut pnl, 0.01, Measure::Inverted), Some(-496.0));
        let few = |p| measure(&mut ten(), p, Measure::Shortfall).unwrap();
        // All of them; the worst two; less than one value is the worst value.
        assert!((few(0.0) + 5.5).abs() < 1e-12 && (few(0.8) + 1.5).abs() < 1e-9 && (few(0.99) + 1.0).abs() < 1e-9);
        assert_eq!(few(1.0), -1.0);
    }

    #[test]
    fn a_value_that_is_none_does_not_vanish() {
        for m in [Measure::Inverted, Measure::Linear, Measure::Shortfall] {
            assert!(measure(&mut [1.0, f64::NAN, 3.0], 0.1, m).unwrap().is_nan());
        }
    }
}
