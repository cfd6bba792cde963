//! What can be lost: value at risk and expected shortfall of books, desks and the firm.
//!
//! Profits and losses are summed over trades in each scenario first; order statistics come last. Adding up the risk of parts is not
//! the risk of the whole, and expected shortfall at 97.5 % may lie below value at risk at 99 %.

use std::collections::BTreeMap;

use tidemill_base::{Error, Result};

use super::{Portfolio, Values};

/// Part of the worst scenarios that value at risk stands at the end of.
const TAIL_VALUE_AT_RISK: f64 = 0.01;
/// Part of the worst scenarios that expected shortfall is the mean of.
const TAIL_SHORTFALL: f64 = 0.025;

/// Losses are positive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measures {
    /// The loss that is reached in one scenario of a hundred: of 500 scenarios the fifth worst.
    pub value_at_risk: f64,
    /// The mean loss in the worst scenarios, 2.5 of a hundred: of 500 the worst twelve and half of the thirteenth.
    pub expected_shortfall: f64,
}

/// A book (`desk/book`), a desk, or the firm.
#[derive(Debug)]
pub struct Node {
    /// Its name; the firm's is [`FIRM`].
    pub name: String,
    /// Its measures, or the trade that could not be valued and the reason.
    pub measures: Result<Measures>,
}

/// Name of the node that holds everything.
pub const FIRM: &str = "FIRM";

/// Measures of every book, then of every desk, then of the firm.
///
/// # Errors
/// `Invalid` when `values` are not all trades of the portfolio under today's market and at least one scenario.
pub fn by_node(portfolio: &Portfolio, values: &Values) -> Result<Vec<Node>> {
    let all = portfolio.trades().len();
    if *values.trades() != (0..all) || values.scenarios().start != 0 || values.scenarios().len() < 2 {
        return Err(Error::invalid(format!(
            "risk needs all {all} trades, today (scenario 0) and at least one more scenario; trades {:?} and scenarios {:?} were given",
            values.trades(),
            values.scenarios()
        )));
    }
    let scenarios = values.scenarios().len() - 1;
    let mut books: BTreeMap<String, Sum> = BTreeMap::new();
    let mut desks: BTreeMap<String, Sum> = BTreeMap::new();
    let mut firm = Sum::new(scenarios);
    for (place, trade) in portfolio.trades().iter().enumerate() {
        let row = values.of(place).map_err(|e| e.to_string());
        let book = books.entry(format!("{}/{}", trade.desk, trade.book)).or_insert_with(|| Sum::new(scenarios));
        let desk = desks.entry(trade.desk.clone()).or_insert_with(|| Sum::new(scenarios));
        for sum in [book, desk, &mut firm] {
            sum.add(&row);
        }
    }
    let nodes = books.into_iter().chain(desks).chain([(FIRM.to_owned(), firm)]);
    Ok(nodes.map(|(name, sum)| Node { name, measures: sum.measures() }).collect())
}

/// Profit and loss by scenario, or the first trade that has none.
struct Sum {
    profit: Vec<f64>,
    failed: Option<String>,
}

impl Sum {
    fn new(scenarios: usize) -> Self {
        Self { profit: vec![0.0; scenarios], failed: None }
    }

    fn add(&mut self, row: &Result<&[f64], String>) {
        match row {
            Ok(row) => {
                for (sum, value) in self.profit.iter_mut().zip(&row[1..]) {
                    *sum += value - row[0];
                }
            }
            Err(reason) => {
                self.failed.get_or_insert_with(|| reason.clone());
            }
        }
    }

    fn measures(self) -> Result<Measures> {
        match self.failed {
            Some(reason) => Err(Error::invalid(reason)),
            None => Ok(measures(self.profit)),
        }
    }
}

/// Order statistics of profits and losses, one for each scenario.
///
/// # Panics
/// When there is none.
pub fn measures(mut profit: Vec<f64>) -> Measures {
    profit.sort_by(f64::total_cmp);
    let n = profit.len() as f64;
    // A hair less than the product, so that its rounding does not move it to the next scenario.
    let worst = |part: f64| part * n * (1.0 - 1e-12);
    let place = (worst(TAIL_VALUE_AT_RISK).ceil() as usize).max(1);
    let tail = TAIL_SHORTFALL * n;
    let whole = (tail * (1.0 + 1e-12)).floor() as usize;
    let rest = (tail - whole as f64).max(0.0);
    let sum: f64 = profit[..whole].iter().sum();
    Measures { value_at_risk: -profit[place - 1], expected_shortfall: -(sum + rest * profit[whole]) / tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_500_scenarios_the_fifth_worst_and_the_mean_of_twelve_and_a_half() {
        let got = measures((0..500).map(|i| f64::from((i * 7) % 500) - 400.0).collect());
        assert_eq!(got.value_at_risk, 396.0);
        let worst: f64 = (0..12).map(|i| 400.0 - f64::from(i)).sum();
        assert!((got.expected_shortfall - (worst + 0.5 * 388.0) / 12.5).abs() < 1e-12);
    }

    #[test]
    fn few_scenarios_still_have_a_worst_one() {
        let got = measures(vec![1.0, -3.0, 2.0]);
        assert_eq!(got, Measures { value_at_risk: 3.0, expected_shortfall: 3.0 });
    }

    #[test]
    fn a_whole_number_of_scenarios_needs_no_part_of_the_next() {
        let got = measures((0..1_000).map(|i| -f64::from(i)).collect());
        assert_eq!(got.value_at_risk, 990.0);
        assert!((got.expected_shortfall - 987.0).abs() < 1e-9);
    }
}
