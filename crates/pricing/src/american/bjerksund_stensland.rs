//! Bjerksund and Stensland (1993): the value of exercising at a fixed level, which is a lower bound in closed form.
//!
//! In the form of Haug (2007), section 3.2; puts by exchanging asset and money.

use tidemill_base::Result;

use super::approximations::never_early;
use crate::european::{self, black};
use crate::math::{cdf, exp, ln};
use crate::terms::{Side, Terms, at_least, number, positive};

/// Value by Bjerksund and Stensland (1993).
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, and when rate and yield are both negative so that exercise is best
/// within a band, which the approximation does not know.
pub fn value_1993(terms: &Terms) -> Result<f64> {
    terms.check()?;
    if never_early(terms)? || terms.years == 0.0 {
        return european::value(terms);
    }
    positive("volatility", terms.volatility)?;
    let call = match terms.side {
        Side::Call => *terms,
        Side::Put => Terms {
            side: Side::Call,
            spot: terms.strike,
            strike: terms.spot,
            rate: terms.rate - terms.carry,
            carry: -terms.carry,
            ..*terms
        },
    };
    number("value", value_of_call(&call))
}

fn value_of_call(t: &Terms) -> f64 {
    let Terms { spot, strike, rate, carry, volatility, years, .. } = *t;
    let variance = volatility * volatility;
    let slope = 0.5 - carry / variance;
    let beta = slope + (slope * slope + 2.0 * rate / variance).sqrt();
    let infinite = beta / (beta - 1.0) * strike;
    let immediate = strike.max(rate / (rate - carry) * strike);
    let h = -(carry * years + 2.0 * t.deviation()) * immediate / (infinite - immediate);
    let trigger = immediate + (infinite - immediate) * -libm::expm1(h);
    // Waiting for the end is a bound from below as well: above the trigger, which is not the true boundary, it can be worth more than
    // exercise, and below it the closed form can miss it by its rounding.
    let waiting = black(1.0, t.forward(), strike, t.discount(), t.deviation());
    if spot >= trigger {
        return at_least(waiting, spot - strike);
    }
    let gain = trigger - strike;
    let part = |gamma: f64, level: f64| part(t, gamma, level, trigger);
    // Powers are taken of spot / trigger, where they cannot overflow.
    let value = gain * (exp(beta * ln(spot / trigger)) - part(beta, trigger)) + trigger * (part(1.0, trigger) - part(1.0, strike))
        - strike * (part(0.0, trigger) - part(0.0, strike));
    at_least(at_least(value, waiting), spot - strike)
}

/// Discounted expectation of (price / trigger)^`gamma`, where the price ends below `level` and never reached `trigger`.
fn part(t: &Terms, gamma: f64, level: f64, trigger: f64) -> f64 {
    let Terms { spot, rate, carry, volatility, years, .. } = *t;
    let variance = volatility * volatility;
    let growth = (-rate + gamma * carry + 0.5 * gamma * (gamma - 1.0) * variance) * years;
    let deviation = t.deviation();
    let d = -(ln(spot / level) + (carry + (gamma - 0.5) * variance) * years) / deviation;
    let kappa = 2.0 * carry / variance + 2.0 * gamma - 1.0;
    let over = ln(trigger / spot);
    exp(growth - gamma * over) * (cdf(d) - exp(kappa * over) * cdf(d - 2.0 * over / deviation))
}
