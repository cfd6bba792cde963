//! The inverse of the normal distribution (Wichura 1988, algorithm AS 241, PPND16).

use super::elementary::ln;

/// Half of the width of the middle region, in probability.
const MIDDLE: f64 = 0.425;

/// The `x` below which a standard normal variable is with probability `p`, to about 1e-15 of its size.
///
/// `p` of 0 and 1 give -∞ and ∞; outside of `[0, 1]` the answer is NaN.
#[inline]
pub fn inverse_cdf(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= MIDDLE { middle(q) } else { tail(p, q) }
}

/// Replaces probabilities by quantiles: the middle, 85 % of uniform numbers, in vector code, and then the rest one by one.
#[inline(always)]
pub(crate) fn inverse_cdf_in_place(values: &mut [f64]) {
    const CHUNK: usize = 64;
    for chunk in values.chunks_mut(CHUNK) {
        let mut saved = [0.0; CHUNK];
        let saved = &mut saved[..chunk.len()];
        saved.copy_from_slice(chunk);
        for x in chunk.iter_mut() {
            *x = middle(*x - 0.5);
        }
        for (x, p) in chunk.iter_mut().zip(saved.iter()) {
            let q = *p - 0.5;
            if q.abs() > MIDDLE {
                *x = tail(*p, q);
            }
        }
    }
}

#[inline(always)]
fn middle(q: f64) -> f64 {
    const A: [f64; 8] = [
        3.387_132_872_796_366_5,
        1.331_416_678_917_843_8e2,
        1.971_590_950_306_551_3e3,
        1.373_169_376_550_946e4,
        4.592_195_393_154_987e4,
        6.726_577_092_700_87e4,
        3.343_057_558_358_813e4,
        2.509_080_928_730_122_7e3,
    ];
    const B: [f64; 8] = [
        1.0,
        4.231_333_070_160_091e1,
        6.871_870_074_920_579e2,
        5.394_196_021_424_751e3,
        2.121_379_430_158_659_7e4,
        3.930_789_580_009_271e4,
        2.872_908_573_572_194_3e4,
        5.226_495_278_852_854e3,
    ];
    let r = 0.180_625 - q * q;
    q * ratio(&A, &B, r)
}

fn tail(p: f64, q: f64) -> f64 {
    const C: [f64; 8] = [
        1.423_437_110_749_683_5,
        4.630_337_846_156_545,
        5.769_497_221_460_691,
        3.647_848_324_763_204_5,
        1.270_458_252_452_368_4,
        2.417_807_251_774_506e-1,
        2.272_384_498_926_918_4e-2,
        7.745_450_142_783_414e-4,
    ];
    const D: [f64; 8] = [
        1.0,
        2.053_191_626_637_759,
        1.676_384_830_183_803_8,
        6.897_673_349_851e-1,
        1.481_039_764_274_800_8e-1,
        1.519_866_656_361_645_7e-2,
        5.475_938_084_995_345e-4,
        1.050_750_071_644_416_9e-9,
    ];
    const E: [f64; 8] = [
        6.657_904_643_501_103,
        5.463_784_911_164_114,
        1.784_826_539_917_291_3,
        2.965_605_718_285_048_7e-1,
        2.653_218_952_657_612_4e-2,
        1.242_660_947_388_078_4e-3,
        2.711_555_568_743_487_6e-5,
        2.010_334_399_292_288_1e-7,
    ];
    const F: [f64; 8] = [
        1.0,
        5.998_322_065_558_88e-1,
        1.369_298_809_227_358e-1,
        1.487_536_129_085_061_5e-2,
        7.868_691_311_456_133e-4,
        1.846_318_317_510_054_8e-5,
        1.421_511_758_316_446e-7,
        2.044_263_103_389_939_8e-15,
    ];
    let smaller = if q < 0.0 { p } else { 1.0 - p };
    if smaller == 0.0 {
        return f64::INFINITY.copysign(q);
    }
    // The logarithm of less than zero is NaN, and so is the answer.
    let r = (-ln(smaller)).sqrt();
    let x = if r <= 5.0 { ratio(&C, &D, r - 1.6) } else { ratio(&E, &F, r - 5.0) };
    x.copysign(q)
}

#[inline(always)]
fn ratio(numerator: &[f64; 8], denominator: &[f64; 8], r: f64) -> f64 {
    let r2 = r * r;
    let r4 = r2 * r2;
    let eight = |c: &[f64; 8]| ((c[0] + r * c[1]) + r2 * (c[2] + r * c[3])) + r4 * ((c[4] + r * c[5]) + r2 * (c[6] + r * c[7]));
    eight(numerator) / eight(denominator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::math::cdf;

    #[test]
    fn it_undoes_the_distribution_in_all_regions() {
        for i in -3_700..830 {
            let x = f64::from(i) * 0.01;
            let p = cdf(x);
            // Near one a probability has few digits left of its distance to one.
            let slack = 2e-15 * (1.0 + x.abs()) + if x > 0.0 { 2e-16 / crate::math::pdf(x) } else { 0.0 };
            assert!((inverse_cdf(p) - x).abs() < slack, "at {x}: {}", inverse_cdf(p));
        }
        assert_eq!(inverse_cdf(0.5), 0.0);
    }

    #[test]
    fn the_ends_are_infinite_and_outside_is_nothing() {
        assert_eq!(inverse_cdf(0.0), f64::NEG_INFINITY);
        assert_eq!(inverse_cdf(1.0), f64::INFINITY);
        assert!(inverse_cdf(-0.1).is_nan() && inverse_cdf(1.1).is_nan() && inverse_cdf(f64::NAN).is_nan());
    }

    #[test]
    fn many_at_once_are_the_same_bits_as_one_by_one() {
        let single: Vec<f64> = (1..1_000).map(|i| inverse_cdf(f64::from(i) / 1_000.0)).collect();
        let mut many: Vec<f64> = (1..1_000).map(|i| f64::from(i) / 1_000.0).collect();
        inverse_cdf_in_place(&mut many);
        assert_eq!(single, many);
    }
}
