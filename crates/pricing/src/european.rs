//! European options: Black and Scholes (1973), Merton (1973), with the cost of carry of Haug (2007), section 1.1.6.

use tidemill_base::Result;

use crate::math::lanes::vectorised;
use crate::math::{cdf, exp, ln};
use crate::terms::{Side, Terms, number};

/// Value of a European option, in the currency of its strike.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense ([`Terms::check`]).
pub fn value(terms: &Terms) -> Result<f64> {
    terms.check()?;
    number("value", black(terms.side.sign(), terms.forward(), terms.strike, terms.discount(), terms.deviation()))
}

/// Black's formula (1976): `discount` times the expected payoff of a lognormal price with mean `forward` whose logarithm has the
/// standard deviation `deviation`; `sign` is [`Side::sign`].
#[inline(always)]
pub fn black(sign: f64, forward: f64, strike: f64, discount: f64, deviation: f64) -> f64 {
    let d1 = ln(forward / strike) / deviation + 0.5 * deviation;
    let d2 = d1 - deviation;
    let value = sign * (forward * cdf(sign * d1) - strike * cdf(sign * d2));
    // What is left of a worthless option after cancellation may be a rounding below zero.
    let value = if value < 0.0 { 0.0 } else { value };
    let certain = sign * (forward - strike);
    let certain = if certain < 0.0 { 0.0 } else { certain };
    discount * if deviation == 0.0 { certain } else { value }
}

/// One European option in many states of the market. All slices are as long as `out`.
#[derive(Debug, Clone, Copy)]
pub struct States<'a> {
    /// Forward price of the asset for delivery at expiry.
    pub forward: &'a [f64],
    /// Value now of one unit of money at expiry.
    pub discount: &'a [f64],
    /// Standard deviation of the logarithm of the price at expiry.
    pub deviation: &'a [f64],
}

/// Values of one option in many states of the market, by [`black`].
///
/// Inputs are not checked here: where one is NaN so is the value.
///
/// # Panics
/// When a slice of `states` is shorter than `out`.
pub fn values(side: Side, strike: f64, states: States<'_>, out: &mut [f64]) {
    let n = out.len();
    let (forward, discount, deviation) = (&states.forward[..n], &states.discount[..n], &states.deviation[..n]);
    vectorised(
        #[inline(always)]
        || {
            for i in 0..n {
                out[i] = black(side.sign(), forward[i], strike, discount[i], deviation[i]);
            }
        },
    );
}

/// What a hedger asks for first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Greeks {
    /// Change of the value with the spot.
    pub delta: f64,
    /// Change of delta with the spot.
    pub gamma: f64,
    /// Change of the value with the volatility, for a change of one (100 %).
    pub vega: f64,
}

/// First-order sensitivities (Haug 2007, chapter 2).
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, and for zero volatility or time, where they do not exist.
pub fn greeks(terms: &Terms) -> Result<Greeks> {
    terms.check()?;
    crate::terms::positive("volatility", terms.volatility)?;
    crate::terms::positive("years", terms.years)?;
    let d1 = terms.d1(terms.spot / terms.strike);
    let carried = exp((terms.carry - terms.rate) * terms.years);
    let density = crate::math::pdf(d1);
    let sign = terms.side.sign();
    Ok(Greeks {
        delta: sign * carried * cdf(sign * d1),
        gamma: carried * density / (terms.spot * terms.deviation()),
        vega: terms.spot * carried * density * terms.years.sqrt(),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_terms() -> impl Strategy<Value = Terms> {
        let side = prop_oneof![Just(Side::Call), Just(Side::Put)];
        (side, 1.0..1_000.0, 0.3..3.0, -0.05..0.2, -0.05..0.2, 0.01..1.5, 0.01..10.0).prop_map(
            |(side, spot, moneyness, rate, carry, volatility, years)| Terms {
                side,
                spot,
                strike: spot * moneyness,
                rate,
                carry,
                volatility,
                years,
            },
        )
    }

    proptest! {
        #[test]
        fn puts_and_calls_keep_parity(terms in any_terms()) {
            let call = value(&Terms { side: Side::Call, ..terms }).unwrap();
            let put = value(&Terms { side: Side::Put, ..terms }).unwrap();
            let forward = terms.discount() * (terms.forward() - terms.strike);
            prop_assert!((call - put - forward).abs() < 1e-13 * (terms.forward() + terms.strike));
        }

        #[test]
        fn values_lie_between_their_bounds(terms in any_terms()) {
            let v = value(&terms).unwrap();
            let bound = match terms.side { Side::Call => terms.forward(), Side::Put => terms.strike } * terms.discount();
            let intrinsic = terms.discount() * terms.side.payoff(terms.forward(), terms.strike);
            prop_assert!(v >= intrinsic - 1e-13 * bound && v <= bound * (1.0 + 1e-14));
        }

        #[test]
        fn more_volatility_is_worth_more(terms in any_terms(), more in 1.0..2.0) {
            let v = value(&terms).unwrap();
            let higher = value(&Terms { volatility: terms.volatility * more, ..terms }).unwrap();
            prop_assert!(higher >= v - 1e-12 * terms.spot);
        }

        #[test]
        fn greeks_are_slopes(terms in any_terms()) {
            let g = greeks(&terms).unwrap();
            let at = |spot: f64, volatility: f64| value(&Terms { spot, volatility, ..terms }).unwrap();
            let (ds, dv) = (1e-4 * terms.spot, 1e-4 * terms.volatility);
            let (s, v) = (terms.spot, terms.volatility);
            let delta = (at(s + ds, v) - at(s - ds, v)) / (2.0 * ds);
            let vega = (at(s, v + dv) - at(s, v - dv)) / (2.0 * dv);
            prop_assert!((g.delta - delta).abs() < 1e-4, "{} {}", g.delta, delta);
            prop_assert!((g.vega - vega).abs() < 1e-4 * s, "{} {}", g.vega, vega);
            let gamma = (greeks(&Terms { spot: s + ds, ..terms }).unwrap().delta - greeks(&Terms { spot: s - ds, ..terms }).unwrap().delta) / (2.0 * ds);
            prop_assert!((g.gamma - gamma).abs() * s < 1e-3, "{} {}", g.gamma, gamma);
        }
    }

    #[test]
    fn without_time_or_volatility_it_is_the_discounted_payoff() {
        let base = Terms { side: Side::Call, spot: 100.0, strike: 100.0, rate: 0.05, carry: 0.03, volatility: 0.2, years: 1.0 };
        let none = Terms { volatility: 0.0, ..base };
        assert!((value(&none).unwrap() - none.discount() * (none.forward() - 100.0)).abs() < 1e-13);
        assert_eq!(value(&Terms { years: 0.0, ..base }).unwrap(), 0.0);
        assert_eq!(value(&Terms { years: 0.0, spot: 107.0, ..base }).unwrap(), 7.0);
    }

    #[test]
    fn many_states_are_the_same_bits_as_one_by_one_in_blocks_of_any_size() {
        let n = 37;
        let forward: Vec<f64> = (0..n).map(|i| 80.0 + f64::from(i)).collect();
        let discount = vec![0.97; forward.len()];
        let deviation: Vec<f64> = (0..n).map(|i| 0.05 + 0.01 * f64::from(i)).collect();
        let right: Vec<f64> = (0..forward.len()).map(|i| black(1.0, forward[i], 100.0, discount[i], deviation[i])).collect();
        for block in [1, 3, 8, 37] {
            let mut out = vec![0.0; forward.len()];
            for (b, part) in out.chunks_mut(block).enumerate() {
                let range = b * block..b * block + part.len();
                let states = States { forward: &forward[range.clone()], discount: &discount[range.clone()], deviation: &deviation[range] };
                values(Side::Call, 100.0, states, part);
            }
            assert_eq!(out, right, "blocks of {block}");
        }
    }
}
