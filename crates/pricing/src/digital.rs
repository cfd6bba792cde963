//! Digital (binary) options: what is paid depends only on whether a level is reached.
//!
//! At expiry: cash or nothing, asset or nothing and gap options (Reiner and Rubinstein 1991b; Haug 2007, sections 4.19.1 to 4.19.3).
//! On the way: one-touch and no-touch options with payment when the level is touched or at expiry (Haug 2007, section 4.19.5, binary
//! barrier options 1 to 12).

use tidemill_base::{Error, Result};

use crate::barrier::{State, touched};
use crate::math::{cdf, exp, ln};
use crate::terms::{Terms, at_least, finite, not_negative, number, positive};

/// Pays `cash` at expiry if the option is in the money then.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense.
pub fn cash_or_nothing(terms: &Terms, cash: f64) -> Result<f64> {
    finite("cash", cash)?;
    let (_, d2) = moneyness(terms)?;
    number("value", cash * terms.discount() * cdf(terms.side.sign() * d2))
}

/// Pays the asset at expiry if the option is in the money then.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense.
pub fn asset_or_nothing(terms: &Terms) -> Result<f64> {
    let (d1, _) = moneyness(terms)?;
    number("value", terms.discount() * terms.forward() * cdf(terms.side.sign() * d1))
}

/// Pays the asset less `payment` (or the other way round for a put) at expiry if the option is in the money then, as measured by the
/// strike. The value may be negative.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense.
pub fn gap(terms: &Terms, payment: f64) -> Result<f64> {
    finite("payment", payment)?;
    let sign = terms.side.sign();
    Ok(sign * (asset_or_nothing(terms)? - cash_or_nothing(terms, payment)?))
}

fn moneyness(terms: &Terms) -> Result<(f64, f64)> {
    terms.check()?;
    positive("volatility", terms.volatility)?;
    positive("years", terms.years)?;
    let d1 = terms.d1(terms.spot / terms.strike);
    Ok((d1, d1 - terms.deviation()))
}

/// What a touch option pays.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payment {
    /// A fixed amount of money.
    Cash(f64),
    /// The asset itself.
    Asset,
}

/// When and for what a touch option pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Touch {
    /// At once when the level is touched.
    AtHit,
    /// At expiry, if the level was touched before.
    AtExpiry,
    /// At expiry, if the level was never touched.
    Never,
}

/// Value of an option that pays when a level is touched, or when it is not. The strike of `terms` is the level; a call has it above
/// the spot and a put below, and a spot already there has touched it.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, and for a payment at the touch under a rate so negative that the
/// formula has no real root.
pub fn touch(terms: &Terms, touch: Touch, payment: Payment) -> Result<f64> {
    terms.check()?;
    positive("volatility", terms.volatility)?;
    positive("years", terms.years)?;
    if let Payment::Cash(cash) = payment {
        not_negative("cash", cash)?;
    }
    let (spot, level, sign) = (terms.spot, terms.strike, terms.side.sign());
    if sign * (spot - level) >= 0.0 {
        return Ok(already_touched(terms, touch, payment));
    }
    let state = State { spot, forward: terms.forward(), discount: terms.discount(), deviation: terms.deviation() };
    let over = ln(level / spot);
    let value = match (touch, payment) {
        (Touch::AtHit, Payment::Cash(cash)) => cash * at_hit(terms, state, over)?,
        // At the touch the asset is worth the level.
        (Touch::AtHit, Payment::Asset) => level * at_hit(terms, state, over)?,
        (Touch::AtExpiry, Payment::Cash(cash)) => cash * at_expiry(terms, over, false, 1.0),
        (Touch::AtExpiry, Payment::Asset) => at_expiry(terms, over, true, 1.0),
        (Touch::Never, Payment::Cash(cash)) => cash * at_expiry(terms, over, false, -1.0),
        (Touch::Never, Payment::Asset) => at_expiry(terms, over, true, -1.0),
    };
    number("value", at_least(value, 0.0))
}

fn already_touched(terms: &Terms, touch: Touch, payment: Payment) -> f64 {
    match (touch, payment) {
        (Touch::AtHit, Payment::Cash(cash)) => cash,
        (Touch::AtHit, Payment::Asset) => terms.spot,
        (Touch::AtExpiry, Payment::Cash(cash)) => cash * terms.discount(),
        (Touch::AtExpiry, Payment::Asset) => terms.spot * exp((terms.carry - terms.rate) * terms.years),
        (Touch::Never, _) => 0.0,
    }
}

fn at_hit(terms: &Terms, state: State, over: f64) -> Result<f64> {
    let variance = terms.volatility * terms.volatility;
    let mu = terms.carry / variance - 0.5;
    if mu * mu + 2.0 * terms.rate / variance < 0.0 {
        return Err(Error::invalid(format!("`rate` is {}: too negative for a payment when the level is touched", terms.rate)));
    }
    Ok(touched(-terms.side.sign(), state, over))
}

/// Discounted expectation of one unit, or of the asset, where the level was touched (`image` 1) or was not (`image` -1).
fn at_expiry(terms: &Terms, over: f64, asset: bool, image: f64) -> f64 {
    let deviation = terms.deviation();
    let variance = deviation * deviation;
    // Measured in units of the asset, the drift of its logarithm is higher by the variance.
    let drift = terms.carry * terms.years + if asset { 0.5 } else { -0.5 } * variance;
    let unit = if asset { terms.discount() * terms.forward() } else { terms.discount() };
    // Towards the level is up for a call; the part that ends beyond it has touched it, its image has come back.
    let towards = terms.side.sign() * image;
    let beyond = cdf(towards * (drift - over) / deviation);
    let returned = exp(2.0 * drift * over / variance) * cdf(-terms.side.sign() * (over + drift) / deviation);
    unit * (beyond + image * returned)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::european;
    use crate::terms::Side;

    fn any_terms() -> impl Strategy<Value = Terms> {
        let side = prop_oneof![Just(Side::Call), Just(Side::Put)];
        (side, 50.0..150.0, 0.02..0.6, 0.001..0.1, -0.05..0.1, 0.08..0.5, 0.05..3.0).prop_map(
            |(side, spot, distance, rate, carry, volatility, years)| {
                let strike = spot * (1.0 + side.sign() * distance);
                Terms { side, spot, strike, rate, carry, volatility, years }
            },
        )
    }

    proptest! {
        #[test]
        fn an_option_is_the_asset_less_cash(terms in any_terms()) {
            let difference = gap(&terms, terms.strike).unwrap();
            prop_assert!((difference - european::value(&terms).unwrap()).abs() < 1e-11 * terms.spot);
        }

        #[test]
        fn touched_or_never_touched_is_certain(terms in any_terms()) {
            let sum = |payment| {
                touch(&terms, Touch::AtExpiry, payment).unwrap() + touch(&terms, Touch::Never, payment).unwrap()
            };
            prop_assert!((sum(Payment::Cash(10.0)) - 10.0 * terms.discount()).abs() < 1e-11);
            prop_assert!((sum(Payment::Asset) - terms.discount() * terms.forward()).abs() < 1e-11 * terms.spot);
        }

        #[test]
        fn earlier_payment_is_worth_more_when_rates_are_positive(terms in any_terms()) {
            let hit = touch(&terms, Touch::AtHit, Payment::Cash(1.0)).unwrap();
            let later = touch(&terms, Touch::AtExpiry, Payment::Cash(1.0)).unwrap();
            let only_at_end = cash_or_nothing(&terms, 1.0).unwrap();
            prop_assert!(hit >= later - 1e-13 && later >= only_at_end - 1e-13 && hit <= 1.0 + 1e-13);
        }
    }

    #[test]
    fn a_level_that_drift_carries_the_price_over_is_touched() {
        let terms = Terms::with_yield(Side::Call, 2.33, 2.37, (0.43, 0.07), 0.005, 0.19);
        assert!(touch(&terms, Touch::Never, Payment::Cash(100.0)).unwrap() < 1e-10);
    }
}
