//! European options where variance is a process of its own: Heston (1993).
//!
//! dS = (r - q) S dt + √v S dW, dv = κ (θ - v) dt + σ √v dZ, with correlation ρ between W and Z.
//!
//! - The characteristic function is written as by Albrecher, Mayer, Schoutens and Tistaert (2007), the "little trap": with the other
//!   root of the square the logarithm would cross its branch cut for long expiries.
//! - One integral, along the line of Lewis (2000) half-way between the measures of money and asset, of the difference to Black's
//!   formula with the mean variance as control variate (Andersen and Piterbarg 2010, section 9.4). The difference has no poles, so the
//!   trapezoidal rule converges exponentially: its error is e^(-2πd/h) where the integrand is analytic up to a distance d, which is
//!   where moments of the price become infinite (Andersen and Piterbarg 2007).
//! - What depends on the model and the expiry alone is tabulated once in a [`Slice`]. A value for another spot, strike, rate or
//!   variance now is a sum over this table.

use std::f64::consts::PI;

use tidemill_base::{Error, Result};

use crate::european::black;
use crate::math::lanes::vectorised;
use crate::math::{exp, ln, sin_cos};
use crate::terms::{Side, finite, not_negative, number, positive};

/// Parameters of the variance process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Model {
    /// Speed of return to the mean, per year.
    pub kappa: f64,
    /// Mean to which variance returns, per year: 0.04 is a volatility of 20 %.
    pub theta: f64,
    /// Volatility of variance.
    pub sigma: f64,
    /// Correlation of price and variance.
    pub rho: f64,
}

impl Model {
    /// # Errors
    /// `Invalid`, naming the field, when a number is not finite, `kappa` or `sigma` is not positive, `theta` is negative, or `rho` is
    /// not between -1 and 1.
    pub fn check(&self) -> Result<()> {
        positive("kappa", self.kappa)?;
        not_negative("theta", self.theta)?;
        positive("sigma", self.sigma)?;
        finite("rho", self.rho)?;
        if self.rho.abs() < 1.0 {
            return Ok(());
        }
        Err(Error::invalid(format!("`rho` is {}; it must be between -1 and 1", self.rho)))
    }

    /// Time at which the moment of order `p` of the price becomes infinite.
    fn explosion(&self, p: f64) -> f64 {
        let slope = self.rho * self.sigma * p - self.kappa;
        let square = slope * slope - self.sigma * self.sigma * (p * p - p);
        let root = square.abs().sqrt();
        if square < 0.0 {
            return 2.0 / root * libm::atan2(root, slope);
        }
        if slope < 0.0 { f64::INFINITY } else { ln((slope + root) / (slope - root)) / root }
    }

    /// How far from the line of integration the moments are finite at `years`, in the nearer direction.
    fn strip(&self, years: f64) -> f64 {
        let reach = |direction: f64| {
            // Moments between 0 and 1 are finite always.
            let finite = |distance: f64| self.explosion(0.5 + direction * distance) > years;
            let (mut inside, mut outside) = (0.5, 1.0);
            while finite(outside) && outside < 1e4 {
                inside = outside;
                outside *= 2.0;
            }
            for _ in 0..40 {
                let middle = 0.5 * (inside + outside);
                if finite(middle) { inside = middle } else { outside = middle }
            }
            inside
        };
        reach(1.0).min(reach(-1.0))
    }

    /// Exponents C and D of the characteristic function e^(C + D v) of the logarithm of price over forward, at `u - i/2`.
    fn exponents(&self, u: f64, years: f64) -> (Complex, Complex) {
        let Self { kappa, theta, sigma, rho } = *self;
        let variance = sigma * sigma;
        let q = u * u + 0.25;
        let a = Complex(kappa - 0.5 * rho * sigma, -rho * sigma * u);
        let d = (a * a + Complex(variance * q, 0.0)).sqrt();
        let sum = a + d;
        // a - d by its conjugate, which loses no digits where sigma is small.
        let slope = Complex(-q, 0.0) / sum;
        let g = slope * variance / sum;
        let decayed = (d * -years).exp();
        let rest = Complex(1.0, 0.0) - decayed;
        let one_less = Complex(1.0, 0.0) - g * decayed;
        let c = (slope * years - (g * rest / (Complex(1.0, 0.0) - g)).ln_1p() * (2.0 / variance)) * (kappa * theta);
        (c, slope * rest / one_less)
    }
}

/// The part of the integral is left out where the integrand is below e to this power.
const NEGLIGIBLE: f64 = -36.0;
/// Nodes summed side by side; also the step in which it is tried whether the rest can be left out.
const LANES: usize = 16;
/// Longest table. A variance so small that it needs a longer one is refused.
const MOST_NODES: usize = 1 << 15;

/// Everything about one model and one time to expiry that does not depend on the state of the market.
#[derive(Debug, Clone)]
pub struct Slice {
    model: Model,
    years: f64,
    /// Strikes whose logarithm is further from that of the forward are refused.
    reach: f64,
    nodes: Vec<Node>,
}

/// [`LANES`] nodes of the integral.
#[derive(Debug, Clone, Copy)]
struct Node {
    u: [f64; LANES],
    weight: [f64; LANES],
    c: [[f64; LANES]; 2],
    d: [[f64; LANES]; 2],
}

impl Slice {
    /// Tabulates the characteristic function.
    ///
    /// # Errors
    /// `Invalid`, naming the field, for a model that makes no sense or a time that is not positive.
    pub fn new(model: &Model, years: f64) -> Result<Self> {
        model.check()?;
        positive("years", years)?;
        let reach = 4.0 + 6.0 * (model.theta * years).sqrt();
        let strip = model.strip(years);
        let step = 2.0 * PI * strip / (reach * strip - NEGLIGIBLE);
        let mut nodes = Vec::new();
        while nodes.len() * LANES < MOST_NODES {
            let node = Node::new(model, years, step, nodes.len() * LANES);
            nodes.push(node);
            if node.c[0][LANES - 1] < NEGLIGIBLE {
                break;
            }
        }
        Ok(Self { model: *model, years, reach, nodes })
    }

    /// Value of a European option, given the forward price for delivery at expiry, the value now of one unit of money then, and the
    /// variance now.
    ///
    /// # Errors
    /// `Invalid`, naming the field, for inputs that make no sense, for a strike further from the forward than a factor of 50 or so,
    /// and for a variance so small that the integral does not converge.
    pub fn value(&self, side: Side, forward: f64, strike: f64, discount: f64, variance: f64) -> Result<f64> {
        positive("forward", forward)?;
        positive("strike", strike)?;
        positive("discount", discount)?;
        not_negative("variance", variance)?;
        if ln(forward / strike).abs() > self.reach {
            return Err(Error::invalid(format!("`strike` is {strike}; that is too far from the forward {forward} for the integral")));
        }
        let value = self.one(side.sign(), forward, strike, discount, variance);
        if value.is_nan() {
            return Err(Error::invalid(format!(
                "`variance` is {variance}: too small for the integral to converge within {} years",
                self.years
            )));
        }
        number("value", value)
    }

    /// Values of one option in many states of the market; all slices are as long as `out`.
    ///
    /// Where [`Slice::value`] would give an error the value is NaN.
    ///
    /// # Panics
    /// When a slice of `states` is shorter than `out`.
    pub fn values(&self, side: Side, strike: f64, states: States<'_>, out: &mut [f64]) {
        let n = out.len();
        let (forward, discount, variance) = (&states.forward[..n], &states.discount[..n], &states.variance[..n]);
        vectorised(
            #[inline(always)]
            || {
                for i in 0..n {
                    out[i] = self.one(side.sign(), forward[i], strike, discount[i], variance[i]);
                }
            },
        );
    }

    #[inline(always)]
    fn one(&self, sign: f64, forward: f64, strike: f64, discount: f64, variance: f64) -> f64 {
        let Model { kappa, theta, .. } = self.model;
        // The mean of the variance over the whole time, which Black's formula is given.
        let mean = theta * self.years + (variance - theta) * -libm::expm1(-kappa * self.years) / kappa;
        let x = ln(forward / strike);
        // NaN is not within reach either.
        let within = x.abs() <= self.reach;
        let Some(sum) = (if within { self.sum(x, variance, mean) } else { None }) else { return f64::NAN };
        let correction = discount * (forward * strike).sqrt() / PI * sum;
        let value = black(sign, forward, strike, discount, mean.sqrt()) + correction;
        if value < 0.0 { 0.0 } else { value }
    }

    /// `None` when the table ends before the integrand has become negligible.
    #[inline(always)]
    fn sum(&self, x: f64, variance: f64, mean: f64) -> Option<f64> {
        let mut sums = [0.0; LANES];
        for node in &self.nodes {
            for (lane, sum) in sums.iter_mut().enumerate() {
                let u = node.u[lane];
                let gauss = exp(-0.5 * mean * (u * u + 0.25)) * sin_cos(u * x).1;
                let size = exp(node.c[0][lane] + node.d[0][lane] * variance);
                let angle = node.c[1][lane] + node.d[1][lane] * variance + u * x;
                *sum += node.weight[lane] * (gauss - size * sin_cos(angle).1);
            }
            let last = node.u[LANES - 1];
            let left = (node.c[0][LANES - 1] + node.d[0][LANES - 1] * variance).max(-0.5 * mean * last * last);
            if left < NEGLIGIBLE {
                return Some(sums.iter().sum());
            }
        }
        None
    }
}

impl Node {
    fn new(model: &Model, years: f64, step: f64, first: usize) -> Self {
        let mut node = Self { u: [0.0; LANES], weight: [0.0; LANES], c: [[0.0; LANES]; 2], d: [[0.0; LANES]; 2] };
        for lane in 0..LANES {
            let u = (first + lane) as f64 * step;
            let (c, d) = model.exponents(u, years);
            let share = if first + lane == 0 { 0.5 } else { 1.0 };
            node.u[lane] = u;
            node.weight[lane] = share * step / (u * u + 0.25);
            (node.c[0][lane], node.c[1][lane]) = (c.0, c.1);
            (node.d[0][lane], node.d[1][lane]) = (d.0, d.1);
        }
        node
    }
}

/// States of the market for [`Slice::values`].
#[derive(Debug, Clone, Copy)]
pub struct States<'a> {
    /// Forward price of the asset for delivery at expiry.
    pub forward: &'a [f64],
    /// Value now of one unit of money at expiry.
    pub discount: &'a [f64],
    /// Variance now, per year.
    pub variance: &'a [f64],
}

#[derive(Debug, Clone, Copy)]
struct Complex(f64, f64);

impl std::ops::Add for Complex {
    type Output = Self;
    fn add(self, o: Self) -> Self {
        Self(self.0 + o.0, self.1 + o.1)
    }
}

impl std::ops::Sub for Complex {
    type Output = Self;
    fn sub(self, o: Self) -> Self {
        Self(self.0 - o.0, self.1 - o.1)
    }
}

impl std::ops::Mul for Complex {
    type Output = Self;
    fn mul(self, o: Self) -> Self {
        Self(self.0 * o.0 - self.1 * o.1, self.0 * o.1 + self.1 * o.0)
    }
}

impl std::ops::Mul<f64> for Complex {
    type Output = Self;
    fn mul(self, o: f64) -> Self {
        Self(self.0 * o, self.1 * o)
    }
}

impl std::ops::Div for Complex {
    type Output = Self;
    fn div(self, o: Self) -> Self {
        let size = o.0 * o.0 + o.1 * o.1;
        Self((self.0 * o.0 + self.1 * o.1) / size, (self.1 * o.0 - self.0 * o.1) / size)
    }
}

impl Complex {
    /// The root with a real part that is not negative.
    fn sqrt(self) -> Self {
        let size = libm::hypot(self.0, self.1);
        let larger = (0.5 * (size + self.0.abs())).sqrt();
        let smaller = if larger == 0.0 { 0.0 } else { 0.5 * self.1.abs() / larger };
        let (re, im) = if self.0 >= 0.0 { (larger, smaller) } else { (smaller, larger) };
        Self(re, im.copysign(self.1))
    }

    fn exp(self) -> Self {
        let (s, c) = sin_cos(self.1);
        let size = exp(self.0);
        Self(size * c, size * s)
    }

    /// ln (1 + z), with full precision for small z.
    fn ln_1p(self) -> Self {
        let size = 0.5 * libm::log1p(self.0 * (2.0 + self.0) + self.1 * self.1);
        Self(size, libm::atan2(self.1, 1.0 + self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lewis, Option Valuation under Stochastic Volatility II (2016), spot 100, rate 1 %, yield 2 %, one year: strikes with put and call.
    #[test]
    fn the_reference_values_of_lewis() {
        let model = Model { kappa: 4.0, theta: 0.25, sigma: 1.0, rho: -0.5 };
        let slice = Slice::new(&model, 1.0).unwrap();
        let (forward, discount) = (100.0 * (-0.01_f64).exp(), (-0.01_f64).exp());
        for (strike, put, call) in [
            (80.0, 7.958_878_113_256_768, 26.774_758_743_998_854),
            (90.0, 12.017_966_707_346_305, 20.933_349_000_596_71),
            (100.0, 17.055_270_961_270_11, 16.070_154_917_028_835),
            (110.0, 23.017_825_898_442_8, 12.132_211_516_709_845),
            (120.0, 29.811_026_202_682_473, 9.024_913_483_457_836),
        ] {
            let value = |side| slice.value(side, forward, strike, discount, 0.04).unwrap();
            assert!((value(Side::Put) - put).abs() < 1e-11, "{strike}: {} and not {put}", value(Side::Put));
            assert!((value(Side::Call) - call).abs() < 1e-11, "{strike}: {} and not {call}", value(Side::Call));
        }
    }

    /// Ten years with a volatility of variance of 1 and correlation -0.8: the case in which the other root of the square goes wrong.
    /// Against the first published integral in its plain form, with a million points.
    #[test]
    fn long_expiries_do_not_cross_the_branch_cut() {
        let model = Model { kappa: 0.5, theta: 0.04, sigma: 1.0, rho: -0.8 };
        let slice = Slice::new(&model, 10.0).unwrap();
        for strike in [0.5, 1.0, 1.7] {
            let x: f64 = (1.0_f64 / strike).ln();
            let h = 4e-4;
            let sum: f64 = (0..1_000_000)
                .map(|j| {
                    let u = (f64::from(j) + 0.5) * h;
                    let (c, d) = model.exponents(u, 10.0);
                    h * (c.0 + d.0 * 0.04).exp() * (c.1 + d.1 * 0.04 + u * x).cos() / (u * u + 0.25)
                })
                .sum();
            let right = 1.0 - strike.sqrt() / PI * sum;
            let got = slice.value(Side::Call, 1.0, strike, 1.0, 0.04).unwrap();
            assert!((got - right).abs() < 1e-8, "{strike}: {got} and not {right}");
        }
    }

    #[test]
    fn variance_that_hardly_moves_gives_blacks_formula() {
        let model = Model { kappa: 2.0, theta: 0.09, sigma: 1e-5, rho: 0.3 };
        let slice = Slice::new(&model, 1.5).unwrap();
        let mean = 0.09 * 1.5 + (0.04 - 0.09) * (1.0 - (-3.0_f64).exp()) / 2.0;
        for strike in [70.0, 100.0, 140.0] {
            let got = slice.value(Side::Put, 100.0, strike, 0.95, 0.04).unwrap();
            assert!((got - black(-1.0, 100.0, strike, 0.95, mean.sqrt())).abs() < 1e-4, "{strike}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn values_keep_parity_and_bounds_and_fall_with_the_strike(
            kappa in 0.2..6.0, theta in 0.01..0.3, sigma in 0.05..1.2, rho in -0.95..0.5, years in 0.1..5.0, variance in 0.01..0.4, strike in 60.0..160.0,
        ) {
            let slice = Slice::new(&Model { kappa, theta, sigma, rho }, years).unwrap();
            let at = |side, strike: f64| slice.value(side, 100.0, strike, 0.9, variance).unwrap();
            let (call, put) = (at(Side::Call, strike), at(Side::Put, strike));
            prop_assert!((call - put - 0.9 * (100.0 - strike)).abs() < 1e-9);
            prop_assert!(call >= 0.9 * (100.0 - strike).max(0.0) - 1e-9 && call <= 90.0);
            let (lower, higher) = (at(Side::Call, strike * 0.98), at(Side::Call, strike * 1.02));
            prop_assert!(lower >= call - 1e-9 && call >= higher - 1e-9);
            prop_assert!(lower + higher - 2.0 * call >= -1e-8, "convex in the strike");
        }
    }

    #[test]
    fn many_states_are_the_same_bits_as_one_by_one() {
        let slice = Slice::new(&Model { kappa: 3.0, theta: 0.04, sigma: 0.5, rho: -0.7 }, 0.5).unwrap();
        let forward: Vec<f64> = (0..37).map(|i| 80.0 + f64::from(i)).collect();
        let variance: Vec<f64> = (0..37).map(|i| 0.01 + 0.003 * f64::from(i)).collect();
        let discount = vec![0.98; 37];
        let mut out = vec![0.0; 37];
        slice.values(Side::Put, 100.0, States { forward: &forward, discount: &discount, variance: &variance }, &mut out);
        for i in 0..37 {
            assert_eq!(out[i].to_bits(), slice.value(Side::Put, forward[i], 100.0, 0.98, variance[i]).unwrap().to_bits());
        }
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let model = Model { kappa: 3.0, theta: 0.04, sigma: 0.5, rho: -0.7 };
        let message = |r: Result<f64>| r.unwrap_err().to_string();
        assert!(Slice::new(&Model { rho: -1.0, ..model }, 1.0).unwrap_err().to_string().contains("`rho` is -1"));
        assert!(Slice::new(&Model { kappa: f64::NAN, ..model }, 1.0).unwrap_err().to_string().contains("`kappa` is NaN"));
        let slice = Slice::new(&model, 1.0).unwrap();
        assert!(message(slice.value(Side::Call, f64::NAN, 1.0, 1.0, 0.04)).contains("`forward` is NaN"));
        assert!(message(slice.value(Side::Call, 100.0, 0.01, 1.0, 0.04)).contains("`strike` is 0.01"));
        let still = Slice::new(&Model { theta: 0.0, ..model }, 0.01).unwrap();
        assert!(message(still.value(Side::Call, 100.0, 100.0, 1.0, 0.0)).contains("`variance` is 0"));
    }
}
