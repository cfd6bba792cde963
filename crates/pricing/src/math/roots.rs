//! Roots of functions of one variable.

/// Ridders' method (1979) between two points where `f` has different signs: never leaves the bracket, and doubles the digits about
/// every second step. Stops when the bracket is within a few units in the last place of the root.
///
/// `None` when the signs are the same or a value is NaN.
pub fn ridders(f: impl Fn(f64) -> f64, mut a: f64, mut b: f64) -> Option<f64> {
    let (mut fa, mut fb) = (f(a), f(b));
    if fa == 0.0 {
        return Some(a);
    }
    if fb == 0.0 {
        return Some(b);
    }
    if fa.is_nan() || fb.is_nan() || (fa > 0.0) == (fb > 0.0) {
        return None;
    }
    // Bisection alone would need about a thousand halvings in the worst case of floats; Ridders' steps need a dozen.
    for _ in 0..200 {
        let middle = 0.5 * (a + b);
        let fm = f(middle);
        let spread = (fm * fm - fa * fb).sqrt();
        if fm == 0.0 || spread == 0.0 {
            return Some(middle);
        }
        let x = middle + (middle - a) * fm.copysign(fm * (fa - fb)) / spread;
        let fx = f(x);
        if fx == 0.0 {
            return Some(x);
        }
        if fx.is_nan() {
            return None;
        }
        if (fm > 0.0) != (fx > 0.0) {
            (a, fa, b, fb) = (middle, fm, x, fx);
        } else if (fa > 0.0) != (fx > 0.0) {
            (b, fb) = (x, fx);
        } else {
            (a, fa) = (x, fx);
        }
        if (b - a).abs() <= 4.0 * f64::EPSILON * a.abs().max(b.abs()) {
            return Some(if fa.abs() < fb.abs() { a } else { b });
        }
    }
    Some(if fa.abs() < fb.abs() { a } else { b })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_are_found_to_the_last_digits() {
        assert!((ridders(|x| x * x - 2.0, 0.0, 10.0).unwrap() - 2.0_f64.sqrt()).abs() < 1e-15);
        assert!((ridders(|x| x.exp() - 1e-5, -100.0, 10.0).unwrap() - 1e-5_f64.ln()).abs() < 1e-13);
        assert!(ridders(|x| (x - 1.0).powi(9), 0.0, 2.5).unwrap() - 1.0 < 1e-2);
        assert_eq!(ridders(|x| x, 0.0, 1.0), Some(0.0));
    }

    #[test]
    fn without_a_change_of_sign_there_is_none() {
        assert_eq!(ridders(|x| x * x + 1.0, -1.0, 1.0), None);
        assert_eq!(ridders(|_| f64::NAN, -1.0, 1.0), None);
    }
}
