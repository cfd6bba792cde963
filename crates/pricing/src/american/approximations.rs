//! The quadratic approximations: Barone-Adesi and Whaley (1987), and Ju and Zhong (1999), who correct its error for times between
//! very short and very long.
//!
//! Both write the value as that of the European option plus a premium for early exercise, and find the spot from which on exercise
//! is best.

use tidemill_base::{Error, Result};

use crate::european::black;
use crate::math::roots::ridders;
use crate::math::{cdf, exp, ln, pdf, powf};
use crate::terms::{Terms, at_least, number, positive};

/// Value by Barone-Adesi and Whaley (1987), with the cost of carry of Haug (2007), section 3.1.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, and when rate and yield are both negative so that exercise is best
/// within a band, which the approximation does not know.
pub fn barone_adesi_whaley(terms: &Terms) -> Result<f64> {
    let Some(early) = Early::of(terms)? else { return crate::european::value(terms) };
    if early.exercised(terms.spot) {
        return Ok(terms.side.payoff(terms.spot, terms.strike));
    }
    let premium = early.premium * powf(terms.spot / early.boundary, early.lambda);
    number("value", early.european(terms.spot) + premium)
}

/// Value by Ju and Zhong (1999).
///
/// # Errors
/// As [`barone_adesi_whaley`].
pub fn ju_zhong(terms: &Terms) -> Result<f64> {
    let Some(early) = Early::of(terms)? else { return crate::european::value(terms) };
    if early.exercised(terms.spot) {
        return Ok(terms.side.payoff(terms.spot, terms.strike));
    }
    let Early { lambda, boundary, premium, alpha, beta, h, .. } = early;
    let sign = terms.side.sign();
    let root = ((beta - 1.0) * (beta - 1.0) + 4.0 * alpha / h).sqrt();
    let lambda_slope = -sign * alpha / (h * h * root);
    let width = 2.0 * lambda + beta - 1.0;
    // How the European option at the boundary changes with h, which stands for time.
    let d1 = terms.d1(boundary / terms.strike);
    let d2 = d1 - terms.deviation();
    let grown = exp(terms.carry * terms.years);
    let by_h = (boundary * pdf(d1) * terms.volatility * grown / (2.0 * terms.years.sqrt())
        - sign * terms.dividend() * boundary * cdf(sign * d1) * grown)
        / terms.rate
        + sign * terms.strike * cdf(sign * d2);
    let b = (1.0 - h) * alpha * lambda_slope / (2.0 * width);
    let c = -(1.0 - h) * alpha / width * (by_h / premium + 1.0 / h + lambda_slope / width);
    let distance = ln(terms.spot / boundary);
    let chi = distance * (b * distance + c);
    let waiting = early.european(terms.spot);
    let value = waiting + premium * powf(terms.spot / boundary, lambda) / (1.0 - chi);
    // Close to the boundary, and where the rate is tiny, the correction can fall short of what the holder can always have.
    number("value", at_least(at_least(value, waiting), sign * (terms.spot - terms.strike)))
}

/// What both approximations share: the boundary of early exercise and the premium there.
struct Early {
    terms: Terms,
    alpha: f64,
    beta: f64,
    /// 1 - e^(-rT).
    h: f64,
    lambda: f64,
    boundary: f64,
    premium: f64,
}

impl Early {
    /// `None` when the option is never exercised early.
    fn of(terms: &Terms) -> Result<Option<Self>> {
        terms.check()?;
        if never_early(terms)? || terms.years == 0.0 {
            return Ok(None);
        }
        positive("volatility", terms.volatility)?;
        let sign = terms.side.sign();
        let variance = terms.volatility * terms.volatility;
        let h = -libm::expm1(-terms.rate * terms.years);
        let (alpha, beta) = (2.0 * terms.rate / variance, 2.0 * terms.carry / variance);
        // α / h has a limit where the rate is zero.
        let ratio = if terms.rate == 0.0 { 2.0 / (variance * terms.years) } else { alpha / h };
        let lambda = 0.5 * (-(beta - 1.0) + sign * ((beta - 1.0) * (beta - 1.0) + 4.0 * ratio).sqrt());
        let early = Self { terms: *terms, alpha, beta, h, lambda, boundary: f64::NAN, premium: f64::NAN };
        let boundary = early.boundary()?;
        let premium = sign * (boundary - terms.strike) - early.european(boundary);
        Ok(Some(Self { boundary, premium, ..early }))
    }

    fn european(&self, spot: f64) -> f64 {
        let t = Terms { spot, ..self.terms };
        black(t.side.sign(), t.forward(), t.strike, t.discount(), t.deviation())
    }

    fn exercised(&self, spot: f64) -> bool {
        self.terms.side.sign() * (spot - self.boundary) >= 0.0
    }

    /// Where the value leaves the payoff without a kink.
    fn boundary(&self) -> Result<f64> {
        let Terms { side, strike, carry, rate, years, .. } = self.terms;
        let sign = side.sign();
        let gap = |spot: f64| {
            let slope = 1.0 - exp((carry - rate) * years) * cdf(sign * self.terms.d1(spot / strike));
            sign * (spot - strike) - self.european(spot) - sign * slope * spot / self.lambda
        };
        // Beyond the strike, and so far that exercise is best.
        let mut far = strike;
        for _ in 0..200 {
            far *= if sign > 0.0 { 2.0 } else { 0.5 };
            if gap(far) > 0.0 {
                break;
            }
        }
        ridders(gap, strike, far)
            .ok_or_else(|| Error::invalid("the boundary of early exercise cannot be found for these terms; use finite differences"))
    }
}

/// Whether waiting is always best.
///
/// # Errors
/// `Invalid` when exercise is best within a band of prices, between two boundaries: the approximations know one boundary.
pub(crate) fn never_early(terms: &Terms) -> Result<bool> {
    // A put is a call with asset and money exchanged, and so are rate and yield.
    let (earned, paid) = match terms.side {
        crate::Side::Call => (terms.dividend(), terms.rate),
        crate::Side::Put => (terms.rate, terms.dividend()),
    };
    if earned < 0.0 && paid < earned {
        return Err(Error::invalid(format!(
            "rate {} and yield {} make exercise best within a band of prices, which this approximation does not know; use finite differences",
            terms.rate,
            terms.dividend()
        )));
    }
    Ok(earned <= 0.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Side;
    use crate::european;

    fn any_terms() -> impl Strategy<Value = Terms> {
        let side = prop_oneof![Just(Side::Call), Just(Side::Put)];
        (side, 60.0..150.0, 0.001..0.12, 0.0..0.12, 0.1..0.6, 0.02..3.0).prop_map(|(side, spot, rate, dividend, volatility, years)| {
            Terms::with_yield(side, spot, 100.0, (rate, dividend), volatility, years)
        })
    }

    type Method = fn(&Terms) -> Result<f64>;
    const METHODS: [Method; 3] = [barone_adesi_whaley, ju_zhong, super::super::bjerksund_stensland::value_1993];

    proptest! {
        #[test]
        fn never_below_the_european_option_nor_the_payoff(terms in any_terms()) {
            let floor = european::value(&terms).unwrap().max(terms.side.payoff(terms.spot, terms.strike));
            for method in METHODS {
                prop_assert!(method(&terms).unwrap() >= floor - 1e-5 * terms.spot, "{}", method(&terms).unwrap() - floor);
            }
        }

        #[test]
        fn the_approximations_agree_with_each_other(terms in any_terms()) {
            let [a, b, c] = METHODS.map(|method| method(&terms).unwrap());
            prop_assert!((a - b).abs() < 0.02 * terms.spot && (b - c).abs() < 0.02 * terms.spot, "{a} {b} {c}");
        }
    }

    #[test]
    fn a_little_above_the_trigger_it_is_worth_what_waiting_for_the_end_is() {
        let terms = Terms { carry: -0.012, ..Terms::with_yield(Side::Call, 144.3, 100.0, (0.001, 0.0), 0.56, 0.139) };
        let waiting = european::value(&terms).unwrap();
        assert!(waiting > 44.3 + 0.1, "{waiting}");
        for method in METHODS {
            assert!(method(&terms).unwrap() >= waiting);
        }
    }

    #[test]
    fn a_correction_does_not_fall_short_of_waiting_for_the_end() {
        let terms = Terms { carry: -0.002_843, ..Terms::with_yield(Side::Call, 110.171, 100.0, (0.001, 0.0), 0.422_3, 0.02) };
        assert!(ju_zhong(&terms).unwrap() >= european::value(&terms).unwrap());
    }

    #[test]
    fn without_anything_to_gain_there_is_no_early_exercise() {
        let call = Terms::with_yield(Side::Call, 100.0, 90.0, (0.05, 0.0), 0.2, 1.0);
        let put = Terms::with_yield(Side::Put, 100.0, 110.0, (0.0, 0.03), 0.2, 1.0);
        for method in METHODS {
            assert_eq!(method(&call).unwrap(), european::value(&call).unwrap());
            assert_eq!(method(&put).unwrap(), european::value(&put).unwrap());
        }
    }

    #[test]
    fn a_band_of_exercise_is_refused_with_the_way_out() {
        let put = Terms::with_yield(Side::Put, 100.0, 110.0, (-0.01, -0.03), 0.2, 1.0);
        for method in METHODS {
            assert!(method(&put).unwrap_err().to_string().contains("use finite differences"));
        }
    }

    #[test]
    fn far_in_the_money_exercise_is_immediate() {
        let put = Terms::with_yield(Side::Put, 20.0, 100.0, (0.05, 0.0), 0.2, 1.0);
        for method in METHODS {
            assert_eq!(method(&put).unwrap(), 80.0);
        }
    }
}
