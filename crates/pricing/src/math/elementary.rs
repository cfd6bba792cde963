//! `exp`, `ln` and `sin_cos` without branches.

/// ln 2 in two parts; the first has 21 trailing zero bits, so that a whole number below 2²¹ times it is exact.
const LN2_HI: f64 = f64::from_bits(0x3fe6_2e42_fee0_0000);
const LN2_LO: f64 = 1.908_214_929_270_587_7e-10;
/// Adding this rounds a number below 2⁵¹ in size to a whole one, which then stands in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0;

/// Above this `exp` overflows to infinity.
const EXP_MAX: f64 = 709.4;
/// Below this `exp` gives zero: subnormal results are flushed, they are worth less than the branches they cost.
const EXP_MIN: f64 = -708.0;

/// eˣ to 1 unit in the last place or so; zero below -708, infinity above 709.4.
#[inline(always)]
pub fn exp(x: f64) -> f64 {
    exp_of_sum(x, 0.0)
}

/// eˣ⁺ʸ for a `y` that is tiny beside one: carries what rounding took from a product in `x`.
#[inline(always)]
pub fn exp_of_sum(x: f64, y: f64) -> f64 {
    // Comparisons in this form let NaN through.
    let clamped = if x > EXP_MAX { EXP_MAX } else { x };
    let clamped = if clamped < EXP_MIN { EXP_MIN } else { clamped };
    let shifted = clamped * std::f64::consts::LOG2_E + ROUNDER;
    let k = shifted - ROUNDER;
    let r = ((clamped - k * LN2_HI) - k * LN2_LO) + y;
    // The series of eʳ; with |r| <= ln 2 / 2 the first term left out is below 5e-18.
    let r2 = r * r;
    let r4 = r2 * r2;
    let p01 = 1.0 / 2.0 + r * (1.0 / 6.0);
    let p23 = 1.0 / 24.0 + r * (1.0 / 120.0);
    let p45 = 1.0 / 720.0 + r * (1.0 / 5_040.0);
    let p67 = 1.0 / 40_320.0 + r * (1.0 / 362_880.0);
    let p89 = 1.0 / 3_628_800.0 + r * (1.0 / 39_916_800.0);
    let pab = 1.0 / 479_001_600.0 + r * (1.0 / 6_227_020_800.0);
    let tail = (p01 + r2 * p23) + r4 * ((p45 + r2 * p67) + r4 * (p89 + r2 * pab));
    let mantissa = 1.0 + (r + r2 * tail);
    let scale = f64::from_bits((shifted.to_bits().wrapping_add(1_023)) << 52);
    let value = mantissa * scale;
    let value = if x > EXP_MAX { f64::INFINITY } else { value };
    if x < EXP_MIN { 0.0 } else { value }
}

/// The natural logarithm to 1 unit in the last place or so, for normal numbers; of zero -∞, of less NaN.
#[inline(always)]
pub fn ln(x: f64) -> f64 {
    // Bits of √½, rounded: the mantissa is taken from [√½, √2), where the series is shortest.
    const ROOT_HALF: u64 = 0x3fe6_a09e_0000_0000;
    let raised = x.to_bits().wrapping_add(0x3ff0_0000_0000_0000 - ROOT_HALF);
    // The exponent becomes a float by standing in the mantissa of 2⁵².
    let k = f64::from_bits((raised >> 52) | 0x4330_0000_0000_0000) - (4_503_599_627_370_496.0 + 1_023.0);
    let m = f64::from_bits((raised & 0x000f_ffff_ffff_ffff).wrapping_add(ROOT_HALF));
    // ln m = 2 artanh(s) with s = (m - 1) / (m + 1), |s| <= 0.172; the first term left out is below 1e-18.
    let f = m - 1.0;
    let s = f / (2.0 + f);
    let z = s * s;
    let z2 = z * z;
    let z4 = z2 * z2;
    let p01 = 2.0 / 3.0 + z * (2.0 / 5.0);
    let p23 = 2.0 / 7.0 + z * (2.0 / 9.0);
    let p45 = 2.0 / 11.0 + z * (2.0 / 13.0);
    let p67 = 2.0 / 15.0 + z * (2.0 / 17.0);
    let p89 = 2.0 / 19.0 + z * (2.0 / 21.0);
    let p = (p01 + z2 * p23) + z4 * ((p45 + z2 * p67) + z4 * p89);
    // 2s = f - s f: adding the small part to f, which is exact, keeps the last bit near one.
    let value = k * LN2_HI + (f - (s * f - (s * (z * p) + k * LN2_LO)));
    let value = if x == f64::INFINITY { x } else { value };
    let value = if x < f64::MIN_POSITIVE { f64::NEG_INFINITY } else { value };
    if x >= 0.0 { value } else { f64::NAN }
}

/// xʸ for positive `x`, to a relative error of about |y ln x| units in the last place.
#[inline(always)]
pub fn powf(x: f64, y: f64) -> f64 {
    exp(y * ln(x))
}

/// π/2 in three parts of 33 bits; a multiple below 2²⁰ of the first two is exact.
const PIO2_1: f64 = 1.570_796_326_734_125_6;
const PIO2_2: f64 = 6.077_100_506_303_966e-11;
const PIO2_3: f64 = 2.022_266_248_795_950_6e-21;

/// Sine and cosine, to an absolute error of about 1e-16 while |x| is below a million.
#[inline(always)]
pub fn sin_cos(x: f64) -> (f64, f64) {
    let shifted = x * std::f64::consts::FRAC_2_PI + ROUNDER;
    let k = shifted - ROUNDER;
    let quadrant = shifted.to_bits();
    let r = ((x - k * PIO2_1) - k * PIO2_2) - k * PIO2_3;
    let z = r * r;
    let z2 = z * z;
    let z4 = z2 * z2;
    // Both series end where the next term is below 1e-19 on |r| <= π/4.
    let s01 = -1.0 / 6.0 + z * (1.0 / 120.0);
    let s23 = -1.0 / 5_040.0 + z * (1.0 / 362_880.0);
    let s45 = -1.0 / 39_916_800.0 + z * (1.0 / 6_227_020_800.0);
    let s67 = -1.0 / 1_307_674_368_000.0 + z * (1.0 / 355_687_428_096_000.0);
    let sine = r + (r * z) * ((s01 + z2 * s23) + z4 * (s45 + z2 * s67));
    let c01 = 1.0 / 24.0 - z * (1.0 / 720.0);
    let c23 = 1.0 / 40_320.0 - z * (1.0 / 3_628_800.0);
    let c45 = 1.0 / 479_001_600.0 - z * (1.0 / 87_178_291_200.0);
    let c6 = 1.0 / 20_922_789_888_000.0;
    let cosine = (1.0 - 0.5 * z) + z2 * ((c01 + z2 * c23) + z4 * (c45 + z2 * c6));
    let odd = quadrant & 1 == 1;
    let (s, c) = (if odd { cosine } else { sine }, if odd { sine } else { cosine });
    let sign_s = (quadrant & 2) << 62;
    let sign_c = (quadrant.wrapping_add(1) & 2) << 62;
    (f64::from_bits(s.to_bits() ^ sign_s), f64::from_bits(c.to_bits() ^ sign_c))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Distance in units in the last place of `right`.
    fn ulps(got: f64, right: f64) -> f64 {
        let unit = f64::from_bits(right.abs().to_bits() + 1) - right.abs();
        (got - right).abs() / unit
    }

    #[test]
    fn exp_is_right_to_the_last_place_over_its_range() {
        for i in -70_000..70_000 {
            let x = f64::from(i) * 0.0101;
            assert!(ulps(exp(x), x.exp()) <= 2.0, "exp({x}) = {} and not {}", exp(x), x.exp());
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-1e9), 0.0);
        assert_eq!(exp(f64::NEG_INFINITY), 0.0);
        assert_eq!(exp(1e9), f64::INFINITY);
        assert!(exp(f64::NAN).is_nan());
    }

    #[test]
    fn what_rounding_took_can_be_added_to_an_exponent() {
        let (x, lost) = (20.0, 3e-15);
        let right = 20.0_f64.exp() * (1.0 + lost);
        assert!(ulps(exp_of_sum(x, lost), right) <= 2.0);
    }

    #[test]
    fn ln_is_right_to_the_last_place_over_its_range() {
        for i in -300_000..300_000 {
            let x = (f64::from(i) * 0.00236).exp();
            assert!(ulps(ln(x), x.ln()) <= 2.0, "ln({x}) = {} and not {}", ln(x), x.ln());
        }
        for i in -10_000..10_000 {
            let x = 1.0 + f64::from(i) * 1e-9;
            assert!(ulps(ln(x), x.ln()) <= 2.0, "ln({x}) = {} and not {}", ln(x), x.ln());
        }
        assert_eq!(ln(1.0), 0.0);
        assert_eq!(ln(0.0), f64::NEG_INFINITY);
        assert_eq!(ln(f64::INFINITY), f64::INFINITY);
        assert!(ln(-1.0).is_nan() && ln(f64::NAN).is_nan());
    }

    #[test]
    fn sine_and_cosine_are_right_far_from_zero() {
        for i in -200_000..200_000 {
            let x = f64::from(i) * 0.0517;
            let (s, c) = sin_cos(x);
            assert!((s - x.sin()).abs() < 3e-16 && (c - x.cos()).abs() < 3e-16, "at {x}: {s} {c}");
        }
        assert!(sin_cos(f64::NAN).0.is_nan());
    }

    #[test]
    fn powers_of_positive_numbers() {
        assert!((powf(2.0, 10.0) - 1_024.0).abs() < 1e-11);
        assert!((powf(0.9, -300.0) / 0.9_f64.powf(-300.0) - 1.0).abs() < 1e-13);
    }
}
