//! Lookback options: the payoff looks at the highest or lowest price on the way.
//!
//! Over the whole life: floating strike (Goldman, Sosin and Gatto 1979) and fixed strike (Conze and Viswanathan 1991); Haug (2007),
//! sections 4.15.1 and 4.15.2. Over a part of it: Heynen and Kat (1994); Haug (2007), sections 4.15.3 and 4.15.4.

use tidemill_base::{Error, Result};

use crate::math::bivariate::bivariate_cdf;
use crate::math::{cdf, exp, ln};
use crate::terms::{Side, Terms, at_least, number, positive};

/// An option that pays at expiry how far the price moved away from its extreme: the spot less the minimum for a call, the maximum
/// less the spot for a put. `terms.strike` is the extreme reached so far.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, or when `strike` is not an extreme that the spot can have left behind.
pub fn floating_strike(terms: &Terms) -> Result<f64> {
    check(terms)?;
    extreme_reached("strike", terms.strike, terms.side.other(), terms.spot)?;
    let forward = |t: &Terms| t.spot * exp((t.carry - t.rate) * t.years);
    let value = match terms.side {
        Side::Call => across_zero_carry(terms, |t| forward(t) - t.strike * t.discount() + beyond(Side::Put, t, t.strike)),
        Side::Put => across_zero_carry(terms, |t| t.strike * t.discount() - forward(t) + beyond(Side::Call, t, t.strike)),
    };
    number("value", at_least(value, 0.0))
}

/// An option on the extreme: a call pays the maximum less the strike, a put the strike less the minimum. `extreme` is the one
/// reached so far.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, or when `extreme` is not one that the spot can have left behind.
pub fn fixed_strike(terms: &Terms, extreme: f64) -> Result<f64> {
    check(terms)?;
    extreme_reached("extreme", extreme, terms.side, terms.spot)?;
    let sign = terms.side.sign();
    let certain = terms.side.payoff(extreme, terms.strike) * terms.discount();
    let level = if sign * (extreme - terms.strike) > 0.0 { extreme } else { terms.strike };
    let value = certain + across_zero_carry(terms, |t| beyond(t.side, t, level));
    number("value", at_least(value, 0.0))
}

/// A floating-strike option whose extreme is watched from now until `watched` years from now. A call pays the spot less `factor`
/// times the minimum, if that is positive; a put `factor` times the maximum less the spot. `terms.strike` is the extreme so far.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, for `watched` outside of the option's life, for a `factor` below one
/// for a call or above one for a put, or when `strike` is not an extreme that the spot can have left behind.
pub fn partial_floating_strike(terms: &Terms, watched: f64, factor: f64) -> Result<f64> {
    check(terms)?;
    within("watched", watched, terms.years)?;
    extreme_reached("strike", terms.strike, terms.side.other(), terms.spot)?;
    positive("factor", factor)?;
    if terms.side.sign() * (factor - 1.0) < 0.0 {
        return Err(Error::invalid(format!("`factor` is {factor}; it must be at least one for a call and at most one for a put")));
    }
    number("value", at_least(across_zero_carry(terms, |t| partial_floating(t, watched, factor)), 0.0))
}

/// A fixed-strike option whose extreme is watched from `from` years from now until expiry.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense or for `from` outside of the option's life.
pub fn partial_fixed_strike(terms: &Terms, from: f64) -> Result<f64> {
    check(terms)?;
    within("from", from, terms.years)?;
    number("value", at_least(across_zero_carry(terms, |t| partial_fixed(t, from)), 0.0))
}

fn check(terms: &Terms) -> Result<()> {
    terms.check()?;
    positive("volatility", terms.volatility)?;
    positive("years", terms.years)
}

fn within(field: &str, time: f64, years: f64) -> Result<()> {
    if time > 0.0 && time < years {
        return Ok(());
    }
    Err(Error::invalid(format!("`{field}` is {time}; it must lie between now (0) and expiry ({years})")))
}

/// `side` is the one whose extreme it is: a maximum for a call.
fn extreme_reached(field: &str, extreme: f64, side: Side, spot: f64) -> Result<()> {
    positive(field, extreme)?;
    if side.sign() * (extreme - spot) >= 0.0 {
        return Ok(());
    }
    let (word, wanted) = if side == Side::Call { ("maximum", "below") } else { ("minimum", "above") };
    Err(Error::invalid(format!("`{field}` is {extreme}; the {word} reached so far cannot lie {wanted} the spot {spot}")))
}

/// The formulas divide by the cost of carry, though the values are smooth through zero. Close to it they are taken from the cubic
/// through four carries on both sides, with an error below 1e-9 of the spot.
fn across_zero_carry(terms: &Terms, formula: impl Fn(&Terms) -> f64) -> f64 {
    let step = 5e-4 * terms.volatility * terms.volatility;
    let x = terms.carry / step;
    if x.abs() >= 1.0 {
        return formula(terms);
    }
    const NODES: [f64; 4] = [-3.0, -1.0, 1.0, 3.0];
    let weight = |i: usize| (0..4).filter(|j| *j != i).map(|j| (x - NODES[j]) / (NODES[i] - NODES[j])).product::<f64>();
    (0..4).map(|i| weight(i) * formula(&Terms { carry: NODES[i] * step, ..*terms })).sum()
}

/// Discounted expectation of how far the extreme goes beyond `level`, which it has not passed yet: above for a call, below for a put.
fn beyond(side: Side, terms: &Terms, level: f64) -> f64 {
    let Terms { spot, rate, carry, volatility, years, .. } = *terms;
    let sign = side.sign();
    let d1 = terms.d1(spot / level);
    let d2 = d1 - terms.deviation();
    let twice = 2.0 * carry / (volatility * volatility);
    let image = exp(-twice * ln(spot / level)) * cdf(sign * (d1 - 2.0 * carry * years.sqrt() / volatility));
    let discount = exp(-rate * years);
    let grown = exp(carry * years) * cdf(sign * d1);
    sign * discount * (spot * grown - level * cdf(sign * d2) + spot / twice * (grown - image))
}

/// Times and distances that Heynen and Kat's formulas share.
struct Partial {
    d1: f64,
    d2: f64,
    e1: f64,
    e2: f64,
    f1: f64,
    f2: f64,
    /// 2b√T/σ for the whole time and for the first part.
    drift: f64,
    drift_first: f64,
    /// Correlation of the price at the middle date with that at expiry, and of the second part with it.
    first: f64,
    second: f64,
    twice: f64,
    discount: f64,
    carried: f64,
    /// e^(-b (T - t)).
    back: f64,
    growth: f64,
}

impl Partial {
    fn of(terms: &Terms, middle: f64) -> Self {
        let Terms { spot, strike, rate, carry, volatility, years, .. } = *terms;
        let rest = years - middle;
        let d1 = terms.d1(spot / strike);
        let slope = carry + 0.5 * volatility * volatility;
        let e1 = slope * rest.sqrt() / volatility;
        let f1 = (ln(spot / strike) + slope * middle) / (volatility * middle.sqrt());
        Self {
            d1,
            d2: d1 - terms.deviation(),
            e1,
            e2: e1 - volatility * rest.sqrt(),
            f1,
            f2: f1 - volatility * middle.sqrt(),
            drift: 2.0 * carry * years.sqrt() / volatility,
            drift_first: 2.0 * carry * middle.sqrt() / volatility,
            first: (middle / years).sqrt(),
            second: (rest / years).sqrt(),
            twice: 2.0 * carry / (volatility * volatility),
            discount: exp(-rate * years),
            carried: exp((carry - rate) * years),
            back: exp(-carry * rest),
            growth: exp(carry * years),
        }
    }
}

fn partial_floating(terms: &Terms, watched: f64, factor: f64) -> f64 {
    let p = Partial::of(terms, watched);
    let phi = terms.side.sign();
    let (spot, extreme) = (terms.spot, terms.strike);
    let g1 = ln(factor) / terms.deviation();
    let g2 = ln(factor) / (terms.volatility * (terms.years - watched).sqrt());
    let both = |a: f64, b: f64, rho: f64| bivariate_cdf(phi * a, phi * b, rho);
    let image = exp(-p.twice * ln(spot / extreme)) * both(p.drift_first - p.f1, p.drift - p.d1 - g1, p.first);
    let grown = p.growth * exp(p.twice * ln(factor)) * both(-p.d1 - g1, p.e1 + g2, -p.second);
    let sum = spot * p.carried * cdf(phi * (p.d1 - g1)) - factor * extreme * p.discount * cdf(phi * (p.d2 - g1))
        + factor * spot * p.discount / p.twice * (image - grown)
        + spot * p.carried * both(g1 - p.d1, p.e1 - g2, -p.second)
        + factor * extreme * p.discount * both(-p.f2, p.d2 - g1, -p.first)
        - p.back * (1.0 + 1.0 / p.twice) * factor * spot * p.carried * cdf(phi * (p.e2 - g2)) * cdf(-phi * p.f1);
    phi * sum
}

fn partial_fixed(terms: &Terms, from: f64) -> f64 {
    let p = Partial::of(terms, from);
    let phi = terms.side.sign();
    let (spot, strike) = (terms.spot, terms.strike);
    let both = |a: f64, b: f64, rho: f64| bivariate_cdf(phi * a, phi * b, rho);
    let image = exp(-p.twice * ln(spot / strike)) * both(p.d1 - p.drift, p.drift_first - p.f1, -p.first);
    let grown = p.growth * both(p.e1, p.d1, p.second);
    let sum = spot * p.carried * cdf(phi * p.d1) - strike * p.discount * cdf(phi * p.d2) + spot * p.discount / p.twice * (grown - image)
        - spot * p.carried * both(-p.e1, p.d1, -p.second)
        - strike * p.discount * both(p.f2, -p.d2, -p.first)
        + p.back * (1.0 - 1.0 / p.twice) * spot * p.carried * cdf(phi * p.f1) * cdf(-phi * p.e2);
    phi * sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::european;

    fn terms(side: Side, strike: f64, carry: f64) -> Terms {
        Terms { side, spot: 100.0, strike, rate: 0.06, carry, volatility: 0.25, years: 1.0 }
    }

    /// Discounted expectation of how far the maximum goes beyond `level`, from the distribution of the maximum (reflection).
    fn maximum_beyond(t: &Terms, level: f64) -> f64 {
        let (sd, drift) = (t.deviation(), (t.carry - 0.5 * t.volatility * t.volatility) * t.years);
        let n = 40_000;
        let width = 10.0 * sd;
        let sum: f64 = (0..n)
            .map(|i| {
                let x = level * ((f64::from(i) + 0.5) * width / f64::from(n)).exp();
                let y = (x / t.spot).ln();
                x * (cdf((drift - y) / sd) + (2.0 * drift * y / (sd * sd)).exp() * cdf(-(y + drift) / sd))
            })
            .sum();
        t.discount() * sum * width / f64::from(n)
    }

    #[test]
    fn the_maximum_has_the_distribution_that_reflection_gives() {
        for carry in [-0.05, -1e-6, 0.0, 1e-5, 0.03, 0.1] {
            let t = terms(Side::Call, 110.0, carry);
            let right = maximum_beyond(&t, 110.0);
            let got = fixed_strike(&t, 100.0).unwrap();
            assert!((got - right).abs() < 1e-6, "carry {carry}: {got} and not {right}");
        }
    }

    #[test]
    fn values_are_smooth_through_zero_carry() {
        for side in [Side::Call, Side::Put] {
            let at = |carry: f64| {
                let t = terms(side, 100.0, carry);
                [
                    floating_strike(&t).unwrap(),
                    fixed_strike(&t, 100.0).unwrap(),
                    partial_floating_strike(&t, 0.4, 1.0).unwrap(),
                    partial_fixed_strike(&t, 0.4).unwrap(),
                ]
            };
            let h = 1e-4;
            let (a, b, c) = (at(-h), at(0.0), at(h));
            for i in 0..4 {
                assert!((a[i] + c[i] - 2.0 * b[i]).abs() < 1e-5, "{side:?} {i}: {} {} {}", a[i], b[i], c[i]);
            }
        }
    }

    #[test]
    fn watching_almost_all_or_almost_nothing_are_limits() {
        for side in [Side::Call, Side::Put] {
            let t = terms(side, 100.0, 0.04);
            let all = floating_strike(&t).unwrap();
            assert!((partial_floating_strike(&t, 1.0 - 1e-9, 1.0).unwrap() - all).abs() < 1e-2, "{side:?}");
            assert!((partial_floating_strike(&t, 1e-10, 1.0).unwrap() - european::value(&t).unwrap()).abs() < 1e-3, "{side:?}");
            assert!((partial_fixed_strike(&t, 1e-9).unwrap() - fixed_strike(&t, 100.0).unwrap()).abs() < 1e-2, "{side:?}");
            assert!((partial_fixed_strike(&t, 1.0 - 1e-10).unwrap() - european::value(&t).unwrap()).abs() < 1e-3, "{side:?}");
        }
    }

    #[test]
    fn a_lookback_is_worth_more_than_the_plain_option() {
        for side in [Side::Call, Side::Put] {
            for strike in [80.0, 100.0, 120.0] {
                let t = terms(side, strike, 0.04);
                assert!(fixed_strike(&t, 100.0).unwrap() > european::value(&t).unwrap());
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let t = terms(Side::Call, 100.0, 0.04);
        let message = |r: Result<f64>| r.unwrap_err().to_string();
        assert!(message(fixed_strike(&t, 99.0)).contains("`extreme` is 99"));
        assert!(message(floating_strike(&Terms { strike: 101.0, ..t })).contains("`strike` is 101"));
        assert!(message(partial_fixed_strike(&t, 1.0)).contains("`from` is 1"));
        assert!(message(partial_floating_strike(&t, 0.5, 0.9)).contains("`factor` is 0.9"));
        assert!(message(partial_floating_strike(&t, f64::NAN, 1.0)).contains("`watched` is NaN"));
    }
}
