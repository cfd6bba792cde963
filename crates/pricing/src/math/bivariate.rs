//! The bivariate normal distribution.

use std::f64::consts::{FRAC_PI_2, PI};
use std::sync::LazyLock;

use super::elementary::{exp, sin_cos};
use super::normal::cdf;
use super::quadrature::gauss_legendre;

static RULE: LazyLock<Vec<(f64, f64)>> = LazyLock::new(|| gauss_legendre(24));

/// Probability that two standard normal variables with correlation `rho` are below `a` and `b`; absolute error about 1e-14.
///
/// The integral over the correlation (Plackett 1954) in the angle of Drezner and Wesolowsky (1990). Near correlation one the
/// integrand may change quickly, so the angle is cut into panels that halve towards the end.
pub fn bivariate_cdf(a: f64, b: f64, rho: f64) -> f64 {
    if !(a.is_finite() && b.is_finite()) {
        return at_infinity(a, b);
    }
    if rho >= 1.0 {
        return cdf(a.min(b));
    }
    if rho <= -1.0 {
        return (cdf(a) - cdf(-b)).max(0.0);
    }
    let end = libm::asin(rho);
    let mut integral = 0.0;
    let mut from = 0.0_f64;
    // While the rest is far from the singular end one panel does it.
    while (end - from).abs() > 0.5 * (FRAC_PI_2 - from.abs()) {
        let to = from + 0.5 * (FRAC_PI_2 - from.abs()).copysign(end);
        integral += panel(a, b, from, to);
        from = to;
    }
    integral += panel(a, b, from, end);
    (cdf(a) * cdf(b) + integral / (2.0 * PI)).clamp(0.0, 1.0)
}

fn at_infinity(a: f64, b: f64) -> f64 {
    match (a, b) {
        _ if a.is_nan() || b.is_nan() => f64::NAN,
        (f64::NEG_INFINITY, _) | (_, f64::NEG_INFINITY) => 0.0,
        (f64::INFINITY, _) => cdf(b),
        _ => cdf(a),
    }
}

fn panel(a: f64, b: f64, from: f64, to: f64) -> f64 {
    let (middle, half) = (0.5 * (from + to), 0.5 * (to - from));
    let sum: f64 = RULE
        .iter()
        .map(|(x, w)| {
            let (s, c) = sin_cos(middle + half * x);
            w * exp(-(a * a + b * b - 2.0 * a * b * s) / (2.0 * c * c))
        })
        .sum();
    half * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quadrant_probability_is_known_in_closed_form() {
        for i in -99..=99 {
            let rho = f64::from(i) * 0.01;
            let right = 0.25 + rho.asin() / (2.0 * PI);
            assert!((bivariate_cdf(0.0, 0.0, rho) - right).abs() < 1e-15, "{rho}");
        }
    }

    #[test]
    fn the_other_variable_can_be_summed_out() {
        for (a, b, rho) in [(0.3, -0.7, 0.6), (-1.2, 0.4, -0.95), (1.0, 1.001, 0.9999), (-2.0, -2.0, 0.99)] {
            let both = bivariate_cdf(a, b, rho) + bivariate_cdf(a, -b, -rho);
            assert!((both - cdf(a)).abs() < 1e-13, "{a} {b} {rho}: {both}");
        }
    }

    #[test]
    fn full_correlation_and_infinity_are_limits() {
        assert!((bivariate_cdf(0.3, 0.9, 1.0) - cdf(0.3)).abs() < 1e-16);
        assert!((bivariate_cdf(0.3, 0.9, 1.0 - 1e-13) - cdf(0.3)).abs() < 1e-12);
        assert!((bivariate_cdf(0.3, 0.9, -1.0) - (cdf(0.3) - cdf(-0.9))).abs() < 1e-16);
        assert_eq!(bivariate_cdf(f64::INFINITY, 0.2, 0.5), cdf(0.2));
        assert_eq!(bivariate_cdf(0.2, f64::NEG_INFINITY, 0.5), 0.0);
    }
}
