//! What the closed forms have in common: the terms of an option on one asset, and the checks every input goes through.

use tidemill_base::{Error, Result};

use crate::math::{exp, ln};

/// Whether the holder may buy or sell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The right to buy.
    Call,
    /// The right to sell.
    Put,
}

impl Side {
    /// 1 for a call, -1 for a put: the φ of the papers.
    #[inline(always)]
    pub const fn sign(self) -> f64 {
        match self {
            Self::Call => 1.0,
            Self::Put => -1.0,
        }
    }

    /// What exercise at spot `spot` pays.
    #[inline(always)]
    pub const fn payoff(self, spot: f64, strike: f64) -> f64 {
        let gain = self.sign() * (spot - strike);
        if gain < 0.0 { 0.0 } else { gain }
    }

    /// The other right.
    pub const fn other(self) -> Self {
        match self {
            Self::Call => Self::Put,
            Self::Put => Self::Call,
        }
    }
}

/// An option on an asset that follows geometric Brownian motion.
///
/// Cost of carry as in Haug (2007): `carry` is the rate less the yield for a stock, zero for a future, the rate less the foreign
/// rate for a currency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Call or put.
    pub side: Side,
    /// Price of the asset now.
    pub spot: f64,
    /// Strike price.
    pub strike: f64,
    /// Riskless rate, continuously compounded, per year.
    pub rate: f64,
    /// Cost of carry, continuously compounded, per year.
    pub carry: f64,
    /// Volatility per square root of a year: 0.2 is 20 %.
    pub volatility: f64,
    /// Time to expiry in years.
    pub years: f64,
}

impl Terms {
    /// The terms of an option on an asset with a continuous yield.
    pub const fn with_yield(side: Side, spot: f64, strike: f64, (rate, dividend): (f64, f64), volatility: f64, years: f64) -> Self {
        Self { side, spot, strike, rate, carry: rate - dividend, volatility, years }
    }

    /// # Errors
    /// `Invalid`, naming the field, when a number is not finite, when spot or strike is not positive, or when volatility or time is
    /// negative.
    pub fn check(&self) -> Result<()> {
        positive("spot", self.spot)?;
        positive("strike", self.strike)?;
        finite("rate", self.rate)?;
        finite("carry", self.carry)?;
        not_negative("volatility", self.volatility)?;
        not_negative("years", self.years)
    }

    /// The price at which the asset can be sold for delivery at expiry.
    #[inline(always)]
    pub fn forward(&self) -> f64 {
        self.spot * exp(self.carry * self.years)
    }

    /// Value now of one unit of money at expiry.
    #[inline(always)]
    pub fn discount(&self) -> f64 {
        exp(-self.rate * self.years)
    }

    /// Standard deviation of the logarithm of the price at expiry.
    #[inline(always)]
    pub fn deviation(&self) -> f64 {
        self.volatility * self.years.sqrt()
    }

    /// Yield of the asset: rate less cost of carry.
    #[inline(always)]
    pub const fn dividend(&self) -> f64 {
        self.rate - self.carry
    }

    /// The d₁ of Black, Scholes and Merton for another spot or barrier in the place of `spot / strike`.
    #[inline(always)]
    pub(crate) fn d1(&self, ratio: f64) -> f64 {
        let deviation = self.deviation();
        (ln(ratio) + self.carry * self.years) / deviation + 0.5 * deviation
    }
}

/// Refuses NaN and infinity.
pub(crate) fn finite(field: &str, value: f64) -> Result<()> {
    if value.is_finite() { Ok(()) } else { Err(refused(field, value, "a finite number")) }
}

/// Refuses what is not finite and above zero.
pub(crate) fn positive(field: &str, value: f64) -> Result<()> {
    if value.is_finite() && value > 0.0 { Ok(()) } else { Err(refused(field, value, "a number above zero")) }
}

/// Refuses what is not finite or below zero.
pub(crate) fn not_negative(field: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 { Ok(()) } else { Err(refused(field, value, "zero or more")) }
}

fn refused(field: &str, value: f64, wanted: &str) -> Error {
    Error::invalid(format!("`{field}` is {value}; it must be {wanted}"))
}

/// A result that must be a number: where rounding or overflow made it none, the caller is told and not handed NaN.
pub(crate) fn number(what: &str, value: f64) -> Result<f64> {
    if value.is_finite() {
        Ok(value)
    } else {
        Err(Error::invalid(format!("the {what} is {value} for these terms; they are outside of what floating point can carry")))
    }
}

/// The larger of a value and its floor. Unlike `f64::max` it lets NaN through: a value that is none must not become the floor.
#[inline(always)]
pub(crate) const fn at_least(value: f64, floor: f64) -> f64 {
    if value < floor { floor } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_does_not_hide_that_a_value_is_none() {
        assert_eq!((at_least(1.0, 2.0), at_least(3.0, 2.0)), (2.0, 3.0));
        assert!(at_least(f64::NAN, 2.0).is_nan());
    }

    #[test]
    fn each_field_is_named_when_it_is_wrong() {
        let good = Terms::with_yield(Side::Call, 100.0, 90.0, (0.05, 0.02), 0.2, 1.0);
        assert!(good.check().is_ok());
        let bad = [
            ("spot", Terms { spot: f64::NAN, ..good }),
            ("strike", Terms { strike: 0.0, ..good }),
            ("rate", Terms { rate: f64::INFINITY, ..good }),
            ("carry", Terms { carry: f64::NAN, ..good }),
            ("volatility", Terms { volatility: -0.1, ..good }),
            ("years", Terms { years: -1.0, ..good }),
        ];
        for (field, terms) in bad {
            let message = terms.check().unwrap_err().to_string();
            assert!(message.starts_with(&format!("`{field}` is ")), "{message}");
        }
    }
}
