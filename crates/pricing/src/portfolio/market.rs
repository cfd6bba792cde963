//! Market factors today and in every scenario.

use std::collections::BTreeMap;

use tidemill_base::{Error, Result};

use super::conventions::{Conventions, Rule, named};
use super::formula::Formula;
use crate::curve::Curve;
use crate::dates::{DayCount, Tenor};
use crate::heston;

/// The market today (scenario 0) and in historical scenarios: scenario `i` applies to today's level of every factor the relative change
/// that it had from day `i - 1` to day `i` of the history.
#[derive(Debug, Clone)]
pub struct Market {
    pub(super) conventions: Conventions,
    names: Vec<String>,
    curves: BTreeMap<String, Curve>,
    spots: BTreeMap<String, Vec<f64>>,
    volatilities: BTreeMap<String, Vec<f64>>,
    pub(super) heston: Option<(heston::Model, Vec<f64>)>,
}

/// What stands between a currency and a length of time in the name of a discount factor: `USD_DF_6M`.
const DISCOUNT: &str = "_DF_";

impl Market {
    /// Reads conventions (JSON) and history: CSV with a column `date` and one for each factor, the last row being today.
    ///
    /// # Errors
    /// `Invalid`, naming factor and date, or the key of the conventions, for what is missing, not a number or not above zero.
    pub fn read(conventions: &str, history: &str) -> Result<Self> {
        let conventions = Conventions::read(conventions)?;
        let history = History::read(history)?;
        let factors = history.scenarios();
        let curves = curves(&conventions, &history.factors, &factors)?;
        let place = |name: &str| history.factors.iter().position(|f| f == name);
        let follow = |rule: &Rule| -> Result<Vec<f64>> {
            let formula = match rule {
                Rule::Number(x) => Formula::Number(*x),
                Rule::Formula(text) => Formula::parse(text, &place)?,
            };
            let values: Vec<f64> = (0..history.dates.len()).map(|s| formula.value(&|i| factors[i][s])).collect();
            match values.iter().position(|x| !(x.is_finite() && *x > 0.0)) {
                None => Ok(values),
                Some(s) => Err(Error::invalid(format!("is {} in scenario {s}; it must be a number above zero", values[s]))),
            }
        };
        let follow_all = |field: &str, rules: &BTreeMap<String, Rule>| -> Result<BTreeMap<String, Vec<f64>>> {
            rules
                .iter()
                .map(|(key, rule)| Ok((key.clone(), follow(rule).map_err(|e| e.context(format!("`{field}` of `{key}`")))?)))
                .collect()
        };
        let spots = follow_all("spot", &conventions.spot)?;
        let volatilities = follow_all("vol", &conventions.vol)?;
        let heston = match &conventions.heston {
            None => None,
            Some(h) => {
                let model = heston::Model { kappa: h.kappa, theta: h.theta, sigma: h.sigma, rho: h.rho };
                Some((model, follow(&h.v0).map_err(|e| e.context("`v0` of `heston`"))?))
            }
        };
        Ok(Self { conventions, names: history.names(), curves, spots, volatilities, heston })
    }

    /// How many scenarios there are, today included.
    pub const fn scenarios(&self) -> usize {
        self.names.len()
    }

    /// The day whose change makes a scenario; scenario 0 is today.
    ///
    /// # Panics
    /// When there are fewer scenarios.
    pub fn name(&self, scenario: usize) -> &str {
        &self.names[scenario]
    }

    pub(super) fn curve(&self, name: &str) -> Result<&Curve> {
        self.curves
            .get(name)
            .ok_or_else(|| Error::invalid(format!("there is no curve `{name}`; the history needs columns such as `{name}{DISCOUNT}6M`")))
    }

    /// Prices of an underlying, by scenario.
    ///
    /// # Errors
    /// `Invalid` when the conventions do not have it.
    pub fn spot(&self, underlying: &str) -> Result<&[f64]> {
        named(&self.spots, "spot", underlying).map(Vec::as_slice)
    }

    pub(super) fn volatility(&self, underlying: &str) -> Result<&[f64]> {
        named(&self.volatilities, "vol", underlying).map(Vec::as_slice)
    }
}

/// Levels of all factors on all days.
struct History {
    factors: Vec<String>,
    dates: Vec<String>,
    /// By factor and then by day.
    levels: Vec<Vec<f64>>,
}

impl History {
    fn read(text: &str) -> Result<Self> {
        let wrong = |e: csv::Error| Error::invalid(format!("the history cannot be read: {e}"));
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        let header = reader.headers().map_err(wrong)?.clone();
        if header.get(0) != Some("date") {
            return Err(Error::invalid("the first column of the history must be `date`"));
        }
        let factors: Vec<String> = header.iter().skip(1).map(str::to_owned).collect();
        let mut history = Self { levels: vec![Vec::new(); factors.len()], factors, dates: Vec::new() };
        for record in reader.records() {
            let record = record.map_err(wrong)?;
            let date = record.get(0).unwrap_or_default();
            for (i, text) in record.iter().skip(1).enumerate() {
                let level = text.parse().ok().filter(|x: &f64| x.is_finite() && *x > 0.0).ok_or_else(|| {
                    Error::invalid(format!("factor `{}` on {date} is `{text}`; it must be a number above zero", history.factors[i]))
                })?;
                history.levels[i].push(level);
            }
            history.dates.push(date.to_owned());
        }
        if history.dates.is_empty() {
            return Err(Error::invalid("the history has no rows; its last row is today"));
        }
        Ok(history)
    }

    /// By factor: its level today, and then in every scenario.
    fn scenarios(&self) -> Vec<Vec<f64>> {
        let shifted = |levels: &Vec<f64>| {
            let today = levels[levels.len() - 1];
            std::iter::once(today).chain(levels.windows(2).map(|w| today * w[1] / w[0])).collect()
        };
        self.levels.iter().map(shifted).collect()
    }

    fn names(&self) -> Vec<String> {
        let today = self.dates[self.dates.len() - 1].clone();
        std::iter::once(today).chain(self.dates.iter().skip(1).cloned()).collect()
    }
}

/// Collects the discount factors of each currency, whose dates are counted from the day of valuation and not adjusted.
fn curves(conventions: &Conventions, names: &[String], factors: &[Vec<f64>]) -> Result<BTreeMap<String, Curve>> {
    let mut found: BTreeMap<&str, Vec<(f64, Vec<f64>)>> = BTreeMap::new();
    for (name, levels) in names.iter().zip(factors) {
        if let Some((currency, tenor)) = name.split_once(DISCOUNT) {
            let date = Tenor::parse(tenor).and_then(|t| t.after(conventions.asof, 1)).map_err(|e| e.context(format!("factor `{name}`")))?;
            let years = DayCount::Actual365Fixed.fraction(conventions.asof, date);
            found.entry(currency).or_default().push((years, levels.clone()));
        }
    }
    let mut curves = BTreeMap::new();
    for (currency, mut points) in found {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (times, discounts): (Vec<f64>, Vec<Vec<f64>>) = points.into_iter().unzip();
        curves.insert(currency.to_owned(), Curve::new(currency, &times, &discounts)?);
    }
    Ok(curves)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONVENTIONS: &str = r#"{"asof": "2018-12-28", "calendars": {}, "spot": {"EURUSD": "1/USDEUR"}, "vol": {"EURUSD": 0.07}}"#;
    const HISTORY: &str =
        "date,USDEUR,USD_DF_1Y,USD_DF_6M\n2018-12-26,0.8,0.97,0.98\n2018-12-27,0.9,0.97,0.99\n2018-12-28,0.875,0.96,0.98\n";

    #[test]
    fn a_scenario_is_todays_level_times_the_change_of_a_day() {
        let market = Market::read(CONVENTIONS, HISTORY).unwrap();
        assert_eq!(market.scenarios(), 3);
        assert_eq!((market.name(0), market.name(1)), ("2018-12-28", "2018-12-27"));
        assert_eq!(market.spot("EURUSD").unwrap(), [1.0 / 0.875, 1.0 / (0.875 * 0.9 / 0.8), 1.0 / (0.875 * 0.875 / 0.9)]);
        assert_eq!(market.volatility("EURUSD").unwrap(), [0.07; 3]);
        let half_year = market.curve("USD").unwrap().point(182.0 / 365.0).unwrap();
        let mut discounts = [0.0; 3];
        market.curve("USD").unwrap().discounts(half_year, 0, &mut discounts);
        for (got, right) in discounts.iter().zip([0.98, 0.98 * 0.99 / 0.98, 0.98 * 0.98 / 0.99]) {
            assert!((got - right).abs() < 1e-15);
        }
    }

    #[test]
    fn a_poisoned_factor_is_named_with_its_date() {
        for bad in ["NaN", "0", "-1", "", "x"] {
            let history = HISTORY.replace("2018-12-27,0.9", &format!("2018-12-27,{bad}"));
            let message = Market::read(CONVENTIONS, &history).unwrap_err().to_string();
            assert!(message.contains(&format!("factor `USDEUR` on 2018-12-27 is `{bad}`")), "{message}");
        }
    }

    #[test]
    fn rules_and_curves_that_are_missing_are_named() {
        let message = |conventions: &str, history: &str| Market::read(conventions, history).unwrap_err().to_string();
        assert!(message(&CONVENTIONS.replace("1/USDEUR", "1/X"), HISTORY).contains("`spot` of `EURUSD`: formula `1/X`"));
        assert!(message(CONVENTIONS, "date,A\n").contains("no rows"));
        assert!(message(CONVENTIONS, "day,A\n").contains("`date`"));
        assert!(message(CONVENTIONS, &HISTORY.replace("_6M", "_6X")).contains("factor `USD_DF_6X`: `6X`"));
        let market = Market::read(CONVENTIONS, HISTORY).unwrap();
        assert!(market.curve("GBP").unwrap_err().to_string().contains("GBP_DF_6M"));
        assert!(market.spot("SPX").unwrap_err().to_string().contains("`SPX`"));
    }
}
