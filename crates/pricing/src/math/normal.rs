//! The normal distribution.

use super::elementary::{exp, exp_of_sum};

/// 1 / √2π.
pub const INV_SQRT_2PI: f64 = 0.398_942_280_401_432_7;

/// Beyond this the lower tail is below the smallest normal number.
const FAR: f64 = 39.0;

/// `(t + 5) Φ(-t) exp(t²/2)` for `t` in `[0, 39]`, as a polynomial in `v = (49 t - 195) / (39 (t + 5))`, which runs over `[-1, 1]`.
///
/// Chebyshev interpolation in 60 digits, cut where the next term is below 6e-18 and written in powers. The function is smooth and
/// changes by a factor of six only, so one polynomial serves from the middle to the far tail with a relative error below 6e-16,
/// where the usual rational approximations (Cody 1969; Hart 1968) have regions and so branches.
const TAIL: [f64; 25] = [
    0.851_689_644_558_836_4,
    -0.701_226_008_664_366,
    0.483_989_895_749_796_3,
    -0.277_218_472_103_767_5,
    0.128_670_065_135_439_63,
    -0.045_972_932_975_237_22,
    0.011_065_377_990_236_179,
    -0.000_862_748_623_567_033_6,
    -0.000_524_351_471_203_847_1,
    0.000_193_227_589_165_457_97,
    4.471_114_248_418_576e-6,
    -1.780_994_625_225_551e-5,
    1.856_475_429_233_644_6e-6,
    1.584_508_977_421_388_8e-6,
    -2.951_123_784_434_146_5e-7,
    -1.607_361_263_632_303_8e-7,
    3.480_121_496_325_06e-8,
    1.920_597_416_844_889e-8,
    -3.470_593_108_761_953_5e-9,
    -2.517_450_738_812_461e-9,
    2.524_009_557_312_243e-10,
    3.035_586_562_291_761_6e-10,
    -4.412_228_682_664_805e-12,
    -2.307_023_610_334_947e-11,
    -1.176_117_176_671_325_5e-12,
];

/// Density of the standard normal distribution.
#[inline(always)]
pub fn pdf(x: f64) -> f64 {
    INV_SQRT_2PI * exp(-0.5 * x * x)
}

/// Probability that a standard normal variable is below `x`, to a few units in the last place of the smaller tail.
#[inline(always)]
pub fn cdf(x: f64) -> f64 {
    let lower = lower_tail(x.abs());
    if x > 0.0 { 1.0 - lower } else { lower }
}

/// Φ(-t) for `t >= 0`.
#[inline(always)]
fn lower_tail(t: f64) -> f64 {
    let t = if t > FAR { FAR } else { t };
    let inverse = 1.0 / (t + 5.0);
    let v = (t * 49.0 - 195.0) * inverse * (1.0 / 39.0);
    // The square is split so that its rounding does not cost digits far out: the upper half of t has an exact square.
    let upper = f64::from_bits(t.to_bits() & 0xffff_ffff_f800_0000);
    let gauss = exp_of_sum(-0.5 * upper * upper, -0.5 * (t - upper) * (t + upper));
    polynomial(v) * inverse * gauss
}

/// Estrin's scheme: short chains keep the lanes of a vector unit busy.
#[inline(always)]
fn polynomial(v: f64) -> f64 {
    let c = &TAIL;
    let v2 = v * v;
    let v4 = v2 * v2;
    let v8 = v4 * v4;
    let four = |i: usize| (c[i] + v * c[i + 1]) + v2 * (c[i + 2] + v * c[i + 3]);
    let eight = |i: usize| four(i) + v4 * four(i + 4);
    eight(0) + v8 * (eight(8) + v8 * (eight(16) + v8 * c[24]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Φ in 16 digits, from 40-digit arithmetic.
    const TABLE: [(f64, f64); 9] = [
        (-37.0, 5.725_571_222_524_577e-300),
        (-20.0, 2.753_624_118_606_233_7e-89),
        (-8.0, 6.220_960_574_271_784e-16),
        (-5.0, 2.866_515_718_791_939e-7),
        (-2.5, 0.006_209_665_325_776_132),
        (-1.0, 0.158_655_253_931_457_05),
        (-0.1, 0.460_172_162_722_971),
        (0.7, 0.758_036_347_776_927),
        (3.0, 0.998_650_101_968_369_9),
    ];

    #[test]
    fn the_distribution_is_right_from_the_middle_to_the_far_tail() {
        for (x, right) in TABLE {
            assert!((cdf(x) / right - 1.0).abs() < 2e-15, "cdf({x}) = {:e} and not {right:e}", cdf(x));
        }
        assert!((cdf(0.0) - 0.5).abs() < 1e-16);
        assert!(cdf(-1e300) < 1e-300 && cdf(1e300) == 1.0);
        assert!(cdf(f64::NEG_INFINITY) < 1e-300 && cdf(f64::INFINITY) == 1.0);
        assert!(cdf(f64::NAN).is_nan());
    }

    #[test]
    fn it_is_monotone_and_symmetric() {
        let mut last = 0.0;
        for i in -4_000..4_000 {
            let x = f64::from(i) * 0.002;
            assert!(cdf(x) >= last, "at {x}");
            assert!((cdf(x) + cdf(-x) - 1.0).abs() < 3e-16, "at {x}");
            last = cdf(x);
        }
    }

    #[test]
    fn the_density_is_its_slope() {
        for i in -50..50 {
            let x = f64::from(i) * 0.1;
            let slope = (cdf(x + 1e-5) - cdf(x - 1e-5)) / 2e-5;
            assert!((pdf(x) - slope).abs() < 1e-10, "at {x}");
        }
    }
}
