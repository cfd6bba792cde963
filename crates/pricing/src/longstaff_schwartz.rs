//! American and Bermudan options by simulation: Longstaff and Schwartz (2001).
//!
//! Going back from expiry, the value of waiting is estimated on each date by a regression, over the paths that are in the money, of
//! what they earn later on a cubic of the price; a path is exercised where that is less than exercise pays. The strategy is not quite
//! the best one, which makes the value too low, and it is fitted to the paths it is tried on, which makes it too high; with many paths
//! the first remains, of the order of a thousandth.
//!
//! Paths come from a Sobol sequence with Owen scrambling (Burley 2020), as many dimensions as dates, turned into Brownian paths by the
//! bridge (Caflisch and Moskowitz 1995), which gives the well-spread first dimensions the most to say.

use tidemill_base::{Error, Result};

use crate::math::inverse::inverse_cdf_in_place;
use crate::math::lanes::vectorised;
use crate::math::{exp, ln};
use crate::terms::{Side, Terms, at_least, number, positive};

/// How to simulate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Simulation {
    /// Number of paths.
    pub paths: usize,
    /// Dates at which the holder may exercise, evenly spaced, the last one being expiry.
    pub dates: usize,
    /// Seed of the scrambling: the same seed gives the same bits.
    pub seed: u32,
}

/// The outcome of a simulation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// Mean of what the paths earn, discounted.
    pub value: f64,
    /// Standard error the mean would have if the paths were independent. Scrambled Sobol paths do better, by a factor of three or so.
    pub standard_error: f64,
}

/// Paths that are made together: their normal numbers fit into the cache.
const BLOCK: usize = 64;
/// Numbers that are summed side by side.
const LANES: usize = 16;
/// With fewer paths in the money there is no regression and no exercise on that date.
const FEWEST: f64 = 32.0;
/// Constant, linear, quadratic and cubic.
const BASIS: usize = 4;

/// Value of a put or call that may be exercised on each of the dates.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, fewer than 100 paths or more than 2²⁶, and no date or more than 4,096.
pub fn value(terms: &Terms, simulation: &Simulation) -> Result<Estimate> {
    terms.check()?;
    positive("volatility", terms.volatility)?;
    positive("years", terms.years)?;
    let Simulation { paths, dates, .. } = *simulation;
    if !(100..=1 << 26).contains(&paths) {
        return Err(Error::invalid(format!("`paths` is {paths}; it must be between 100 and {}", 1 << 26)));
    }
    if !(1..=4_096).contains(&dates) {
        return Err(Error::invalid(format!("`dates` is {dates}; it must be between 1 and 4096")));
    }
    let prices = simulate(terms, simulation);
    let estimate = exercise(terms, &prices);
    number("value", estimate.value)?;
    Ok(estimate)
}

/// Prices over the strike, by date and then by path. The number of paths is rounded up to whole blocks; [`Prices::paths`] count.
struct Prices {
    paths: usize,
    by_date: Vec<Vec<f64>>,
}

fn simulate(terms: &Terms, simulation: &Simulation) -> Prices {
    let Simulation { paths, dates, seed } = *simulation;
    let bridge = Bridge::new(dates);
    let padded = paths.next_multiple_of(BLOCK);
    let mut by_date = vec![vec![0.0; padded]; dates];
    let mut normals = vec![[0.0; BLOCK]; dates];
    let mut path = vec![[0.0; BLOCK]; dates];
    let step = terms.years / dates as f64;
    let start = ln(terms.spot / terms.strike);
    let drift = (terms.carry - 0.5 * terms.volatility * terms.volatility) * step;
    let scale = terms.volatility * step.sqrt();
    for first in (0..padded).step_by(BLOCK) {
        sobol(first, seed, &mut normals);
        vectorised(
            #[inline(always)]
            || {
                for row in &mut normals {
                    inverse_cdf_in_place(row);
                }
                bridge.build(&normals, &mut path);
                for (date, (row, out)) in path.iter().zip(&mut by_date).enumerate() {
                    let mean = start + drift * (date + 1) as f64;
                    for (w, out) in row.iter().zip(&mut out[first..first + BLOCK]) {
                        *out = exp(mean + scale * w);
                    }
                }
            },
        );
    }
    Prices { paths, by_date }
}

/// Points of the sequence from `first` on, by dimension and then by point, strictly between 0 and 1.
fn sobol(first: usize, seed: u32, out: &mut [[f64; BLOCK]]) {
    /// Points of one scrambled sequence; beyond, and beyond its dimensions, others with seeds of their own follow.
    const LONGEST: usize = 1 << 16;
    const SETS: usize = sobol_burley::NUM_DIMENSION_SETS_4D as usize;
    /// Half of the distance between the floats the sequence is made of, so that none is 0.
    const HALF: f64 = 1.0 / 33_554_432.0;
    for (set, rows) in out.chunks_mut(4).enumerate() {
        for i in 0..BLOCK {
            let point = first + i;
            let sequence = (point / LONGEST * 64 + set / SETS) as u32;
            let seed = seed ^ sequence.wrapping_mul(0x9e37_79b9);
            let four = sobol_burley::sample_4d((point % LONGEST) as u32, (set % SETS) as u32, seed);
            for (row, x) in rows.iter_mut().zip(four) {
                row[i] = f64::from(x) + HALF;
            }
        }
    }
}

/// The order in which a path is built: the end first, then the middle of the longest gap, and so on.
struct Bridge {
    steps: Vec<Bend>,
}

/// A point between two that are known (or between the start, at zero, and one that is known).
struct Bend {
    at: usize,
    left: Option<usize>,
    right: Option<usize>,
    left_weight: f64,
    right_weight: f64,
    deviation: f64,
}

impl Bridge {
    /// For `dates` times 1, 2, 3 ...
    fn new(dates: usize) -> Self {
        let mut steps =
            vec![Bend { at: dates - 1, left: None, right: None, left_weight: 0.0, right_weight: 0.0, deviation: (dates as f64).sqrt() }];
        // Gaps by their ends, as times; 0 is the start.
        let mut gaps = std::collections::VecDeque::from([(0, dates)]);
        while let Some((from, to)) = gaps.pop_front() {
            if to - from < 2 {
                continue;
            }
            let middle = from.midpoint(to);
            let (before, after, whole) = ((middle - from) as f64, (to - middle) as f64, (to - from) as f64);
            steps.push(Bend {
                at: middle - 1,
                left: from.checked_sub(1),
                right: Some(to - 1),
                left_weight: after / whole,
                right_weight: before / whole,
                deviation: (before * after / whole).sqrt(),
            });
            gaps.push_back((from, middle));
            gaps.push_back((middle, to));
        }
        Self { steps }
    }

    #[inline(always)]
    fn build(&self, normals: &[[f64; BLOCK]], path: &mut [[f64; BLOCK]]) {
        for (step, normal) in self.steps.iter().zip(normals) {
            let known = |at: Option<usize>| at.map_or([0.0; BLOCK], |i| path[i]);
            let (left, right) = (known(step.left), known(step.right));
            let out = &mut path[step.at];
            for i in 0..BLOCK {
                out[i] = step.left_weight * left[i] + step.right_weight * right[i] + step.deviation * normal[i];
            }
        }
    }
}

/// Backward over the dates. All amounts are in units of the strike.
fn exercise(terms: &Terms, prices: &Prices) -> Estimate {
    let dates = prices.by_date.len();
    let step = terms.years / dates as f64;
    let discount = exp(-terms.rate * step);
    let mut earned: Vec<f64> = prices.by_date[dates - 1].iter().map(|x| terms.side.payoff(*x, 1.0)).collect();
    for date in (0..dates - 1).rev() {
        let deviation = terms.volatility * ((date + 1) as f64 * step).sqrt();
        backward(terms.side, &prices.by_date[date], prices.paths, deviation, discount, &mut earned);
    }
    let n = prices.paths as f64;
    let counted = &mut earned[..prices.paths];
    counted.iter_mut().for_each(|x| *x *= discount * terms.strike);
    let mean = counted.iter().sum::<f64>() / n;
    let square = counted.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0);
    Estimate { value: at_least(mean, terms.side.payoff(terms.spot, terms.strike)), standard_error: (square / n).sqrt() }
}

/// Discounts what the paths earn to a date, estimates the value of waiting there and exercises where it is less than the payoff.
fn backward(side: Side, prices: &[f64], paths: usize, deviation: f64, discount: f64, earned: &mut [f64]) {
    let sign = side.sign();
    let scale = 1.0 / deviation;
    let sums = vectorised(
        #[inline(always)]
        || {
            for x in earned.iter_mut() {
                *x *= discount;
            }
            Sums::of(sign, scale, &prices[..paths], earned)
        },
    );
    let Some([c0, c1, c2, c3]) = sums.regression() else { return };
    vectorised(
        #[inline(always)]
        || {
            for (x, earned) in prices.iter().zip(earned.iter_mut()) {
                let z = (x - 1.0) * scale;
                let wait = c0 + z * (c1 + z * (c2 + z * c3));
                let payoff = sign * (x - 1.0);
                *earned = if payoff > 0.0 && payoff > wait { payoff } else { *earned };
            }
        },
    );
}

/// Sums over the paths in the money, of powers of the price and of their products with what is earned.
struct Sums {
    powers: [f64; 2 * BASIS - 1],
    products: [f64; BASIS],
}

impl Sums {
    /// The price is measured from the strike in standard deviations, so that its powers stay of the size of one.
    #[inline(always)]
    fn of(sign: f64, scale: f64, prices: &[f64], earned: &[f64]) -> Self {
        let mut powers = [[0.0; LANES]; 2 * BASIS - 1];
        let mut products = [[0.0; LANES]; BASIS];
        let (whole, rest) = prices.as_chunks::<LANES>();
        let (earned_whole, earned_rest) = earned[..prices.len()].as_chunks::<LANES>();
        let mut padded = ([1.0; LANES], [0.0; LANES]);
        padded.0[..rest.len()].copy_from_slice(rest);
        padded.1[..rest.len()].copy_from_slice(earned_rest);
        for (x, y) in whole.iter().zip(earned_whole).chain([(&padded.0, &padded.1)]) {
            for lane in 0..LANES {
                let distance = x[lane] - 1.0;
                let z = distance * scale;
                // One in the money and zero outside, so that no path is branched over. A price at the strike is outside.
                let mut power = if sign * distance > 0.0 { 1.0 } else { 0.0 };
                for k in 0..2 * BASIS - 1 {
                    powers[k][lane] += power;
                    if k < BASIS {
                        products[k][lane] += power * y[lane];
                    }
                    power *= z;
                }
            }
        }
        Self { powers: powers.map(|lanes| lanes.iter().sum()), products: products.map(|lanes| lanes.iter().sum()) }
    }

    /// Coefficients of the least squares, by Cholesky's decomposition of the normal equations.
    fn regression(&self) -> Option<[f64; BASIS]> {
        if self.powers[0] < FEWEST {
            return None;
        }
        let mut lower = [[0.0; BASIS]; BASIS];
        let mut solution = [0.0; BASIS];
        for i in 0..BASIS {
            for j in 0..=i {
                let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
                let rest = self.powers[i + j] - known;
                // What rounding leaves of a dependent column is no information.
                if i == j && rest <= 1e-12 * self.powers[2 * i] {
                    return None;
                }
                lower[i][j] = if i == j { rest.sqrt() } else { rest / lower[j][j] };
            }
            let known: f64 = (0..i).map(|k| lower[i][k] * solution[k]).sum();
            solution[i] = (self.products[i] - known) / lower[i][i];
        }
        for i in (0..BASIS).rev() {
            let known: f64 = (i + 1..BASIS).map(|k| lower[k][i] * solution[k]).sum();
            solution[i] = (solution[i] - known) / lower[i][i];
        }
        Some(solution)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::american::finite_differences::{self, Exercise, Grid};
    use crate::european;

    const PUT: Terms = Terms::with_yield(Side::Put, 36.0, 40.0, (0.06, 0.0), 0.2, 1.0);

    fn simulation(paths: usize, dates: usize) -> Simulation {
        Simulation { paths, dates, seed: 7 }
    }

    #[test]
    fn one_date_is_the_european_option() {
        for side in [Side::Call, Side::Put] {
            let terms = Terms { side, ..PUT };
            let estimate = value(&terms, &simulation(32_768, 1)).unwrap();
            let right = european::value(&terms).unwrap().max(terms.side.payoff(36.0, 40.0));
            assert!((estimate.value - right).abs() < 1e-3, "{} and not {right}", estimate.value);
        }
    }

    #[test]
    fn paths_have_the_moments_of_the_process() {
        let prices = simulate(&PUT, &simulation(65_536, 12));
        for (date, row) in prices.by_date.iter().enumerate() {
            let t = (date + 1) as f64 / 12.0;
            let logs: Vec<f64> = row.iter().map(|x| x.ln()).collect();
            let mean = logs.iter().sum::<f64>() / logs.len() as f64;
            let variance = logs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / logs.len() as f64;
            assert!((mean - (0.9_f64.ln() + 0.04 * t)).abs() < 1e-4, "{date}: {mean}");
            assert!((variance / (0.04 * t) - 1.0).abs() < 5e-3, "{date}: {variance}");
        }
        // Increments are independent.
        let (a, b) = (&prices.by_date[3], &prices.by_date[7]);
        let products: f64 = a.iter().zip(b).map(|(a, b)| ((a / 0.9).ln() - 0.04 * 4.0 / 12.0) * ((b / a).ln() - 0.04 * 4.0 / 12.0)).sum();
        assert!((products / a.len() as f64).abs() < 1e-4);
    }

    #[test]
    fn a_bermudan_option_is_worth_what_the_grid_says() {
        let grid = Grid::new(800, 400).unwrap();
        let right = finite_differences::value(&PUT, Exercise::Bermudan(8), &grid).unwrap();
        let estimate = value(&PUT, &simulation(50_000, 50)).unwrap();
        assert!((estimate.value - right).abs() < 8e-3, "{} and not {right}", estimate.value);
        assert!(estimate.standard_error > 0.0 && estimate.standard_error < 0.02);
    }

    #[test]
    fn seeds_are_different_and_repeatable() {
        let with = |seed| value(&PUT, &Simulation { seed, ..simulation(5_000, 10) }).unwrap().value;
        assert_eq!(with(1).to_bits(), with(1).to_bits());
        assert!(with(1) != with(2) && (with(1) - with(2)).abs() < 0.05);
    }

    #[test]
    fn more_paths_and_dates_than_one_sequence_has() {
        let estimate = value(&PUT, &simulation(70_000, 260)).unwrap();
        assert!((estimate.value - 4.485).abs() < 0.02, "{}", estimate.value);
    }

    #[test]
    fn bridges_visit_every_date_once() {
        for dates in [1, 2, 3, 50, 257] {
            let mut at: Vec<usize> = Bridge::new(dates).steps.iter().map(|s| s.at).collect();
            at.sort_unstable();
            assert_eq!(at, (0..dates).collect::<Vec<_>>());
        }
    }

    #[test]
    fn regressions_find_the_polynomial() {
        let prices: Vec<f64> = (0..999).map(|i| 0.5 + f64::from(i) * 0.001).collect();
        let earned: Vec<f64> = prices.iter().map(|x| 1.0 - 2.0 * (x - 1.0) + 3.0 * (x - 1.0).powi(2) + 0.5 * (x - 1.0).powi(3)).collect();
        let found = Sums::of(-1.0, 1.0, &prices, &earned).regression().unwrap();
        for (got, right) in found.iter().zip([1.0, -2.0, 3.0, 0.5]) {
            assert!((got - right).abs() < 1e-8, "{found:?}");
        }
        assert_eq!(Sums::of(-1.0, 1.0, &prices[490..], &earned[490..]).regression(), None);
        assert_eq!(Sums::of(-1.0, 1.0, &[0.7; 100], &[1.0; 100]).regression(), None);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let message = |s: Simulation| value(&PUT, &s).unwrap_err().to_string();
        assert!(message(simulation(10, 5)).contains("`paths` is 10"));
        assert!(message(simulation(1_000, 0)).contains("`dates` is 0"));
    }
}
