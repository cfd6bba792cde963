//! What is agreed and not traded: calendars, models, which factor means what.

use std::collections::BTreeMap;

use jiff::civil::Date;
use serde::Deserialize;
use tidemill_base::{Error, Result};

use crate::dates::{Calendar, DayCount, Tenor};
use crate::swap;

/// Conventions of a portfolio, read from JSON. Underlyings and currencies are keys of the maps.
#[derive(Debug, Clone, Deserialize)]
pub struct Conventions {
    /// The day of valuation.
    pub asof: Date,
    /// Holidays by calendar.
    pub calendars: BTreeMap<String, Vec<Date>>,
    /// Calendar by which expiries are adjusted, to the following business day.
    pub option_calendar: Option<String>,
    /// Price of each underlying, as a formula of factors.
    #[serde(default)]
    pub spot: BTreeMap<String, Rule>,
    /// Volatility of each underlying.
    #[serde(default)]
    pub vol: BTreeMap<String, Rule>,
    /// Continuous yield of each underlying that has a constant one.
    #[serde(default)]
    pub div_yield: BTreeMap<String, f64>,
    /// For the other underlyings, the curve their yield comes from: of a currency, its own.
    #[serde(default)]
    pub yield_curve: BTreeMap<String, String>,
    /// The curve that discounts payments on each underlying.
    #[serde(default)]
    pub discount: BTreeMap<String, String>,
    /// Swaps by currency; the curve has the same name.
    #[serde(default)]
    pub swaps: BTreeMap<String, SwapConventions>,
    /// Model of stochastic variance.
    pub heston: Option<HestonConventions>,
    /// Steps of price and time for American options.
    #[serde(default = "hundred_by_hundred")]
    pub american_grid: (usize, usize),
}

const fn hundred_by_hundred() -> (usize, usize) {
    (100, 100)
}

/// A number, or a formula of factors such as `1.15*VIX/100`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Rule {
    /// The same in all scenarios.
    Number(f64),
    /// Follows factors.
    Formula(String),
}

/// Conventions of swaps in one currency.
#[derive(Debug, Clone, Deserialize)]
pub struct SwapConventions {
    /// Calendar of all dates.
    pub calendar: String,
    /// The floating rate fixed on the day of valuation.
    pub first_fixing: f64,
    /// Time between fixed payments, as `1Y`.
    pub fixed_every: String,
    /// Day count of the fixed rate, as `30/360`.
    pub fixed_day_count: String,
    /// Time between floating payments, as `3M`.
    pub floating_every: String,
    /// Day count of the floating rate, as `Act/360`.
    pub floating_day_count: String,
}

/// Parameters of Heston's model; the variance now may follow factors.
#[derive(Debug, Clone, Deserialize)]
pub struct HestonConventions {
    /// Speed of return to the mean.
    pub kappa: f64,
    /// Mean variance.
    pub theta: f64,
    /// Volatility of variance.
    pub sigma: f64,
    /// Correlation of price and variance.
    pub rho: f64,
    /// Variance now.
    pub v0: Rule,
}

impl Conventions {
    /// Reads JSON. Keys that are not known are passed over: the same file may serve other engines.
    ///
    /// # Errors
    /// `Invalid` with line and column when the text is not JSON or a field is missing or of the wrong kind.
    pub fn read(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|e| Error::invalid(format!("conventions cannot be read: {e}")))
    }

    pub(super) fn calendar(&self, name: &str) -> Result<Calendar> {
        let holidays = self.calendars.get(name).ok_or_else(|| {
            let known: Vec<&str> = self.calendars.keys().map(String::as_str).collect();
            Error::invalid(format!("`calendars` of the conventions has no `{name}`; there are: {}", known.join(", ")))
        })?;
        Ok(Calendar::new(name, holidays.iter().copied()))
    }

    pub(super) fn swap(&self, currency: &str) -> Result<(swap::Conventions, f64)> {
        let found = named(&self.swaps, "swaps", currency)?;
        let conventions = swap::Conventions {
            calendar: self.calendar(&found.calendar)?,
            fixed_every: Tenor::parse(&found.fixed_every)?,
            fixed_day_count: DayCount::parse(&found.fixed_day_count)?,
            floating_every: Tenor::parse(&found.floating_every)?,
            floating_day_count: DayCount::parse(&found.floating_day_count)?,
        };
        Ok((conventions, found.first_fixing))
    }
}

/// What the conventions say about `key`.
pub(super) fn named<'a, T>(map: &'a BTreeMap<String, T>, field: &str, key: &str) -> Result<&'a T> {
    map.get(key).ok_or_else(|| Error::invalid(format!("`{field}` of the conventions says nothing about `{key}`")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_unknown_is_named() {
        let message = |json: &str| Conventions::read(json).unwrap_err().to_string();
        assert!(message("{").contains("line 1"));
        assert!(message(r#"{"asof": "2018-12-28"}"#).contains("`calendars`"));
        let conventions = Conventions::read(r#"{"asof": "2018-12-28", "calendars": {"NYSE": []}, "unknown": 1}"#).unwrap();
        assert_eq!(conventions.american_grid, (100, 100));
        assert!(conventions.calendar("LSE").unwrap_err().to_string().contains("no `LSE`; there are: NYSE"));
        assert!(conventions.swap("USD").unwrap_err().to_string().contains("`swaps` of the conventions says nothing about `USD`"));
    }
}
