//! Discount curves in many scenarios at once: log-linear between dates, that is, with a constant forward rate.

use tidemill_base::{Error, Result};

use crate::math::exp;
use crate::math::lanes::vectorised;

/// Discount factors at fixed times, for every scenario.
#[derive(Debug, Clone)]
pub struct Curve {
    name: String,
    /// Years from now, rising from zero.
    times: Vec<f64>,
    /// By time and then by scenario.
    logs: Vec<Vec<f64>>,
}

/// A time on a [`Curve`]: between which of its times it lies, and where.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    left: usize,
    weight: f64,
}

impl Curve {
    /// A curve through the discount factors `discounts[i]`, one for each scenario, at `times[i]` years from now.
    ///
    /// # Errors
    /// `Invalid` when times do not rise from above zero, when there is none, when rows differ in length, or when a discount factor is
    /// not a number above zero.
    pub fn new(name: &str, times: &[f64], discounts: &[Vec<f64>]) -> Result<Self> {
        let scenarios = discounts.first().map_or(0, Vec::len);
        if scenarios == 0 || discounts.len() != times.len() || discounts.iter().any(|row| row.len() != scenarios) {
            return Err(Error::invalid(format!("curve `{name}` needs one discount factor for each time and scenario, and at least one")));
        }
        let mut before = 0.0;
        for &time in times {
            if !(time > before && time.is_finite()) {
                return Err(Error::invalid(format!("times of curve `{name}` must rise from above zero; {time} follows {before}")));
            }
            before = time;
        }
        for (row, time) in discounts.iter().zip(times) {
            if let Some(wrong) = row.iter().find(|d| !(d.is_finite() && **d > 0.0)) {
                return Err(Error::invalid(format!(
                    "a discount factor of curve `{name}` at {time} years is {wrong}; it must be above zero"
                )));
            }
        }
        let logs =
            std::iter::once(vec![0.0; scenarios]).chain(discounts.iter().map(|row| row.iter().map(|d| crate::math::ln(*d)).collect()));
        Ok(Self { name: name.to_owned(), times: std::iter::once(0.0).chain(times.iter().copied()).collect(), logs: logs.collect() })
    }

    /// Where `years` from now lies on the curve.
    ///
    /// # Errors
    /// `Invalid` for a time in the past or after the end of the curve: nothing is known there.
    pub fn point(&self, years: f64) -> Result<Point> {
        let last = self.times.len() - 1;
        if !(years >= 0.0 && years <= self.times[last]) {
            return Err(Error::invalid(format!(
                "curve `{}` reaches from now to {} years; {years} was asked for",
                self.name, self.times[last]
            )));
        }
        let left = self.times.partition_point(|t| *t <= years).saturating_sub(1).min(last - 1);
        Ok(Point { left, weight: (years - self.times[left]) / (self.times[left + 1] - self.times[left]) })
    }

    /// Logarithm of the discount factor at a point in one scenario.
    #[inline(always)]
    pub fn log_discount(&self, point: Point, scenario: usize) -> f64 {
        let (a, b) = (self.logs[point.left][scenario], self.logs[point.left + 1][scenario]);
        a + (b - a) * point.weight
    }

    /// Logarithms of the discount factors at a point, in the scenarios from `first` on.
    ///
    /// # Panics
    /// When there are fewer scenarios.
    pub fn log_discounts(&self, point: Point, first: usize, out: &mut [f64]) {
        let range = first..first + out.len();
        let (a, b) = (&self.logs[point.left][range.clone()], &self.logs[point.left + 1][range]);
        for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
            *out = a + (b - a) * point.weight;
        }
    }

    /// Discount factors at a point, in the scenarios from `first` on.
    ///
    /// # Panics
    /// When there are fewer scenarios.
    pub fn discounts(&self, point: Point, first: usize, out: &mut [f64]) {
        self.log_discounts(point, first, out);
        vectorised(
            #[inline(always)]
            || {
                for x in out.iter_mut() {
                    *x = exp(*x);
                }
            },
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve() -> Curve {
        Curve::new("USD", &[1.0, 2.0], &[vec![0.97, 0.99], vec![0.93, 1.01]]).unwrap()
    }

    fn discount(c: &Curve, years: f64, scenario: usize) -> f64 {
        let mut out = [0.0];
        c.discounts(c.point(years).unwrap(), scenario, &mut out);
        out[0]
    }

    #[test]
    fn forward_rates_are_constant_between_dates() {
        let c = curve();
        assert_eq!(discount(&c, 0.0, 0), 1.0);
        assert!((discount(&c, 1.0, 0) - 0.97).abs() < 1e-15);
        assert!((discount(&c, 2.0, 1) - 1.01).abs() < 1e-15);
        assert!((discount(&c, 1.5, 0) - (0.97_f64 * 0.93).sqrt()).abs() < 1e-15);
        assert!((discount(&c, 0.5, 1) - 0.99_f64.sqrt()).abs() < 1e-15);
    }

    #[test]
    fn nothing_is_known_outside() {
        assert!(curve().point(2.01).unwrap_err().to_string().contains("curve `USD` reaches from now to 2 years; 2.01"));
        assert!(curve().point(-0.1).is_err() && curve().point(f64::NAN).is_err());
    }

    #[test]
    fn wrong_discount_factors_are_named() {
        let message = |r: Result<Curve>| r.unwrap_err().to_string();
        assert!(message(Curve::new("X", &[1.0], &[vec![f64::NAN]])).contains("at 1 years is NaN"));
        assert!(message(Curve::new("X", &[1.0], &[vec![-0.5]])).contains("at 1 years is -0.5"));
        assert!(message(Curve::new("X", &[1.0, 1.0], &[vec![1.0], vec![1.0]])).contains("must rise"));
        assert!(Curve::new("X", &[], &[]).is_err());
    }
}
