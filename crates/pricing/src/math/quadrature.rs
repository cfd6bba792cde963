//! Gauss-Legendre quadrature.

use std::f64::consts::PI;

use super::elementary::sin_cos;

/// Abscissas and weights of the Gauss-Legendre rule of `n` points on `[-1, 1]`; exact for polynomials up to degree `2n - 1`.
///
/// The zeros of the Legendre polynomial by Newton's method from Tricomi's first guess.
pub fn gauss_legendre(n: usize) -> Vec<(f64, f64)> {
    (0..n)
        .map(|i| {
            let guess = PI * (i as f64 + 0.75) / (n as f64 + 0.5);
            let mut x = sin_cos(guess).1;
            let mut slope = 1.0;
            // Quadratic convergence from an error of 1e-3 or less: four steps are enough, the fifth only polishes.
            for _ in 0..5 {
                let (value, derivative) = legendre(n, x);
                slope = derivative;
                x -= value / derivative;
            }
            (x, 2.0 / ((1.0 - x * x) * slope * slope))
        })
        .collect()
}

/// The Legendre polynomial of degree `n` and its slope.
fn legendre(n: usize, x: f64) -> (f64, f64) {
    let (mut before, mut current) = (1.0, x);
    for k in 2..=n {
        let k = k as f64;
        (before, current) = (current, ((2.0 * k - 1.0) * x * current - (k - 1.0) * before) / k);
    }
    if n == 0 {
        return (1.0, 0.0);
    }
    (current, n as f64 * (before - x * current) / (1.0 - x * x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polynomials_of_the_highest_degree_are_exact() {
        for n in [2, 7, 20, 64] {
            let rule = gauss_legendre(n);
            assert!((rule.iter().map(|(_, w)| w).sum::<f64>() - 2.0).abs() < 1e-13, "{n}");
            let degree = i32::try_from(2 * n - 2).unwrap();
            let integral: f64 = rule.iter().map(|(x, w)| w * x.powi(degree)).sum();
            assert!((integral - 2.0 / (f64::from(degree) + 1.0)).abs() < 1e-13, "{n}: {integral}");
        }
    }
}
