//! Valuing blocks of trades under blocks of scenarios.

use std::ops::Range;

use tidemill_base::{Error, Result};

use super::{Portfolio, Trade};

/// Values of a block of trades under a block of scenarios, in the currency of each trade's strike, quantity included.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    trades: Range<usize>,
    scenarios: Range<usize>,
    /// By trade and then by scenario; NaN in the rows of trades that failed.
    values: Vec<f64>,
    failures: Vec<Failure>,
}

/// A trade that could not be valued, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Place of the trade in the portfolio.
    pub trade: usize,
    /// Its name.
    pub id: String,
    /// The field or formula, and what is wrong with it.
    pub reason: String,
}

impl Portfolio {
    /// Values of the trades in `trades` under the scenarios in `scenarios`, of which 0 is today.
    ///
    /// A value has the same bits in whatever block it is asked for. Trades that cannot be valued are among [`Values::failures`].
    ///
    /// # Errors
    /// `Invalid` when a range goes beyond the portfolio or the market.
    pub fn value(&self, trades: Range<usize>, scenarios: Range<usize>) -> Result<Values> {
        within("trades", &trades, self.trades.len())?;
        within("scenarios", &scenarios, self.market.scenarios())?;
        let width = scenarios.len();
        let mut values = vec![0.0; trades.len() * width];
        let mut failures = Vec::new();
        for (place, row) in trades.clone().zip(values.chunks_mut(width.max(1))) {
            let trade = &self.trades[place];
            if let Err(reason) = self.value_trade(trade, scenarios.start, row) {
                row.fill(f64::NAN);
                failures.push(Failure { trade: place, id: trade.id.clone(), reason });
            }
        }
        Ok(Values { trades, scenarios, values, failures })
    }

    fn value_trade(&self, trade: &Trade, first: usize, out: &mut [f64]) -> Result<(), String> {
        let product = trade.product.as_ref().map_err(Clone::clone)?;
        product.values(&self.market, first, out).map_err(|e| e.to_string())?;
        for (i, value) in out.iter_mut().enumerate() {
            *value *= trade.quantity;
            if !value.is_finite() {
                return Err(format!("the value is {value} in scenario {} ({})", first + i, self.market.name(first + i)));
            }
        }
        Ok(())
    }
}

fn within(what: &str, range: &Range<usize>, len: usize) -> Result<()> {
    if range.start <= range.end && range.end <= len {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} {}..{} were asked for; there are {len}", range.start, range.end)))
}

impl Values {
    /// The trades that were valued.
    pub const fn trades(&self) -> &Range<usize> {
        &self.trades
    }

    /// The scenarios in which they were valued.
    pub const fn scenarios(&self) -> &Range<usize> {
        &self.scenarios
    }

    /// Values of one trade, by scenario.
    ///
    /// # Errors
    /// `Invalid` when the trade failed, with its name and the reason, or does not belong to the block.
    pub fn of(&self, trade: usize) -> Result<&[f64]> {
        if let Some(failure) = self.failures.iter().find(|f| f.trade == trade) {
            return Err(failure.error());
        }
        if !self.trades.contains(&trade) {
            return Err(Error::invalid(format!("trade {trade} is not in the block {}..{}", self.trades.start, self.trades.end)));
        }
        let width = self.scenarios.len();
        let row = trade - self.trades.start;
        Ok(&self.values[row * width..(row + 1) * width])
    }

    /// All values, by trade and then by scenario; NaN in the rows of trades that failed.
    pub fn as_slice(&self) -> &[f64] {
        &self.values
    }

    /// The trades that could not be valued.
    pub fn failures(&self) -> &[Failure] {
        &self.failures
    }
}

impl Failure {
    /// The failure as an error that names the trade.
    pub fn error(&self) -> Error {
        Error::invalid(format!("trade `{}`: {}", self.id, self.reason))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::portfolio::Market;

    const CONVENTIONS: &str = r#"{ "asof": "2018-12-28", "calendars": { "NYSE": ["2018-12-25", "2019-01-01", "2021-12-24"] },
        "option_calendar": "NYSE", "spot": { "SPX": "SPX" }, "vol": { "SPX": "VIX/100" }, "div_yield": { "SPX": 0.02 },
        "discount": { "SPX": "USD" }, "heston": { "kappa": 3, "theta": 0.04, "sigma": 0.5, "rho": -0.7, "v0": "(VIX/100)^2" },
        "swaps": { "USD": { "calendar": "NYSE", "first_fixing": 0.028, "fixed_every": "1Y", "fixed_day_count": "30/360",
        "floating_every": "3M", "floating_day_count": "Act/360" } } }"#;
    const HEADER: &str = "trade_id,desk,book,type,underlying,cp,k_pct,tenor,qty,barrier_pct\n";
    const GOOD: &str = "A,D,B,european,SPX,P,0.95,6M,100,\nB,D,B,barrier_down_out,SPX,C,1.0,6M,-3,0.7\n\
        C,D,B,american,SPX,P,1.05,1Y,2,\nD,D,B,heston,SPX,C,1.0,6M,1,\nE,D,B,swap,USD,R,0.03,1Y,1000,\nF,D,B,fxfwd,SPX,C,1.0,3M,1,\n";

    fn portfolio(trades: &str) -> Portfolio {
        let mut history = "date,SPX,VIX,USD_DF_1Y,USD_DF_2Y\n".to_owned();
        for day in 1..40 {
            let x = f64::from(day) * 0.7;
            history += &format!("2018-11-{day},{},{},{},0.94\n", 2500.0 + 50.0 * x.sin(), 25.0 + 5.0 * x.cos(), 0.97 + 0.001 * x.sin());
        }
        let market = Market::read(CONVENTIONS, &history).unwrap();
        Portfolio::read(&format!("{HEADER}{trades}"), Arc::new(market)).unwrap()
    }

    #[test]
    fn blocks_of_any_shape_have_the_same_bits() {
        let p = portfolio(GOOD);
        let n = p.market().scenarios();
        let whole = p.value(0..6, 0..n).unwrap();
        assert!(whole.failures().is_empty(), "{:?}", whole.failures());
        for (by_trade, by_scenario) in [(1, 1), (2, 7), (6, 16), (4, 17)] {
            for a in (0..6).step_by(by_trade) {
                for s in (0..n).step_by(by_scenario) {
                    let (b, t) = ((a + by_trade).min(6), (s + by_scenario).min(n));
                    let block = p.value(a..b, s..t).unwrap();
                    for trade in a..b {
                        let (part, right) = (block.of(trade).unwrap(), &whole.of(trade).unwrap()[s..t]);
                        let bits = |x: &[f64]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                        assert_eq!(bits(part), bits(right), "trade {trade}, scenarios {s}..{t}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_poisoned_trade_is_named_with_its_field_and_spares_its_neighbours() {
        let cases = [
            ("X,D,B,european,SPX,P,NaN,6M,100,", "`k_pct` is `NaN`"),
            ("X,D,B,european,SPX,P,-1,6M,100,", "`k_pct` is -"),
            ("X,D,B,european,SPX,P,0.9,6M,inf,", "`qty` is `inf`"),
            ("X,D,B,european,SPX,P,0.9,6M,,", "`qty` is ``"),
            ("X,D,B,european,SPX,Q,0.9,6M,1,", "`cp` is `Q`"),
            ("X,D,B,european,GBP,P,0.9,6M,1,", "`GBP`"),
            ("X,D,B,european,SPX,P,0.9,6Q,1,", "`tenor`: `6Q`"),
            ("X,D,B,european,SPX,P,0.9,5Y,1,", "`NYSE`"),
            ("X,D,B,european,SPX,P,0.9,30M,1,", "curve `USD`"),
            ("X,D,B,asian,SPX,P,0.9,6M,1,", "`type` is `asian`"),
            ("X,D,B,barrier_up_in,SPX,P,0.9,6M,1,", "`barrier_pct` is ``"),
            ("X,D,B,swap,USD,C,0.03,1Y,1,", "`cp` is `C`"),
            ("X,D,B,swap,EUR,P,0.03,1Y,1,", "`swaps`"),
            ("A,D,B,european,SPX,P,0.9,6M,1,", "`trade_id` is `A`"),
            (",D,B,european,SPX,P,0.9,6M,1,", "`trade_id` is empty"),
        ];
        for (row, reason) in cases {
            let values = portfolio(&format!("{GOOD}{row}\n")).value(0..7, 0..3).unwrap();
            assert_eq!(values.failures().len(), 1, "{row}: {:?}", values.failures());
            assert!(values.failures()[0].reason.contains(reason), "{row}: {:?}", values.failures());
            assert_eq!(values.failures()[0].trade, 6);
            assert!(values.of(6).unwrap_err().to_string().starts_with("trade `"));
            assert!(values.of(5).is_ok() && values.as_slice()[18..].iter().all(|v| v.is_nan()));
        }
    }

    #[test]
    fn a_value_that_is_no_number_is_a_failure_with_its_scenario() {
        let values = portfolio("X,D,B,european,SPX,C,1.0,6M,1e308,\n").value(0..1, 2..4).unwrap();
        assert!(values.failures()[0].reason.contains("the value is inf in scenario 2 (2018-11-3)"), "{:?}", values.failures());
    }

    #[test]
    fn ranges_beyond_the_end_and_missing_columns_are_refused() {
        let p = portfolio(GOOD);
        assert!(p.value(0..7, 0..1).unwrap_err().to_string().contains("trades 0..7 were asked for; there are 6"));
        assert!(p.value(0..1, 0..100).unwrap_err().to_string().contains("scenarios 0..100"));
        assert!(p.value(2..2, 0..1).unwrap().as_slice().is_empty());
        assert!(p.value(0..1, 1..2).unwrap().of(3).is_err());
        let market = Arc::clone(&p.market);
        assert!(Portfolio::read("trade_id,desk\n", market).unwrap_err().to_string().contains("no column `book`"));
    }
}
