//! American and Bermudan options by finite differences: Crank and Nicolson on a grid, any number of markets side by side.
//!
//! The equation of Black and Scholes is turned into the heat equation (Wilmott, Howison and Dewynne 1995, chapter 5): the price is
//! followed in the logarithm of the forward, in units of its standard deviation, and the value in units of money at expiry. Rates and
//! yields, which may change along the way, are then no longer in the equation but only in the exercise value. So one grid serves
//! every spot, rate and volatility, the matrix is the same for all of them and is factorised once, and markets can be solved in the
//! lanes of a vector unit.
//!
//! - In space the scheme is the compact one (Crandall 1955): where the value is smooth its error falls with the fourth power of the
//!   step, for the same tridiagonal system. The nodes next to the kink of the payoff are corrected so that sums over the grid are right.
//! - The first two steps are four implicit half steps (Rannacher 1984), which damp what the kink leaves.
//! - Early exercise is a linear complementarity problem, solved exactly in each step by Brennan and Schwartz (1977): eliminate
//!   towards the exercise region, then substitute away from it and keep the larger of continuation and exercise. Where rates and
//!   yields are such that the exercise region does not reach to the end of the grid, the step is solved first and compared after.

use tidemill_base::{Error, Result};

use crate::math::lanes;
use crate::terms::{Side, Terms, number, positive};

mod solver;

/// A good number of markets to be solved side by side: two or more of every machine's vectors, so that one can wait for the other.
pub const LANES: usize = 16;
/// So many of the steps nearest to expiry are halved and implicit.
const HALVED: usize = 4;
/// The weight of the second difference in the mass matrix of the compact scheme (Crandall 1955), whose error in the price falls with
/// the fourth power of the step where the value is smooth, for the same tridiagonal system.
const COMPACT: f64 = 1.0 / 12.0;
/// How far the grid reaches to each side, in standard deviations at expiry.
const WIDTH: f64 = 4.0;

/// Points of the grid and of time.
#[derive(Debug, Clone)]
pub struct Grid {
    time_steps: usize,
    /// Reciprocal pivots and multipliers of the elimination, for the inner nodes.
    pivots: Vec<Pivot>,
    /// `dt / (4 dx²)` of the heat equation.
    ratio: f64,
    spacing: f64,
}

#[derive(Debug, Clone, Copy)]
struct Pivot {
    /// One over the pivot.
    inverse: f64,
    /// What the row nearer to the exercise region takes of this one's right side.
    multiplier: f64,
}

impl Grid {
    /// A grid of `space_steps` steps of the price and `time_steps` steps of time.
    ///
    /// # Errors
    /// `Invalid` when there are fewer than four steps, more than a million, or when the number of space steps is odd, so that no node
    /// would lie at the spot.
    pub fn new(space_steps: usize, time_steps: usize) -> Result<Self> {
        for (name, steps) in [("space_steps", space_steps), ("time_steps", time_steps)] {
            if !(4..=1_000_000).contains(&steps) {
                return Err(Error::invalid(format!("`{name}` is {steps}; it must be between 4 and a million")));
            }
        }
        if !space_steps.is_multiple_of(2) {
            return Err(Error::invalid(format!("`space_steps` is {space_steps}; it must be even, so that a node lies at the spot")));
        }
        let spacing = 2.0 * WIDTH / space_steps as f64;
        let ratio = 1.0 / (4.0 * time_steps as f64 * spacing * spacing);
        let implicit = ratio - COMPACT;
        let mut pivots = vec![Pivot { inverse: 0.0, multiplier: 0.0 }; space_steps + 1];
        let mut above = 0.0;
        for pivot in pivots[1..space_steps].iter_mut().rev() {
            let inverse = 1.0 / (1.0 + 2.0 * implicit - implicit * implicit * above);
            *pivot = Pivot { inverse, multiplier: implicit * inverse };
            above = inverse;
        }
        Ok(Self { time_steps, pivots, ratio, spacing })
    }

    /// Times, as fractions of the option's life before expiry, at which [`Market`] wants discount factors: the ends of all steps, the
    /// first two of which are halved, in the order in which they are solved. The last is 1, now.
    pub fn times(&self) -> Vec<f64> {
        let step = 1.0 / self.time_steps as f64;
        (0..self.time_steps + HALVED / 2).map(|i| steps_done(i) * step).collect()
    }

    const fn nodes(&self) -> usize {
        self.pivots.len()
    }
}

/// Time steps, in whole ones, that lie behind at the end of the one with this index.
fn steps_done(index: usize) -> f64 {
    if index < HALVED { 0.5 * (index + 1) as f64 } else { (index + 1 - HALVED / 2) as f64 }
}

/// The same where it is a whole number.
const fn whole_steps(index: usize) -> Option<usize> {
    match index {
        0..HALVED if index.is_multiple_of(2) => None,
        0..HALVED => Some(index.div_ceil(2)),
        _ => Some(index + 1 - HALVED / 2),
    }
}

/// When the holder may exercise before expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exercise {
    /// At any time.
    American,
    /// At the end of every so many time steps of the grid, counted back from expiry, but not now.
    Bermudan(usize),
}

/// `N` states of the market in which one option is valued.
#[derive(Debug, Clone)]
pub struct Market<const N: usize> {
    /// Price of the asset now.
    pub spot: [f64; N],
    /// Standard deviation of the logarithm of the price at expiry, above zero.
    pub deviation: [f64; N],
    /// Logarithm of the discount factor from now to expiry.
    pub log_discount: [f64; N],
    /// Logarithm of the price now, in units of the asset, of one unit of it at expiry: what the yield takes.
    pub log_yield: [f64; N],
    /// For each of [`Grid::times`], logarithms of the discount factor and of the yield's factor from then to expiry.
    pub to_expiry: Vec<([f64; N], [f64; N])>,
}

impl<const N: usize> Market<N> {
    /// A market with constant rates, the same in all lanes.
    pub fn flat(grid: &Grid, terms: &Terms) -> Self {
        let log_discount = -terms.rate * terms.years;
        let log_yield = -terms.dividend() * terms.years;
        let to_expiry = grid.times().into_iter().map(|part| ([log_discount * part; N], [log_yield * part; N])).collect();
        Self {
            spot: [terms.spot; N],
            deviation: [terms.deviation(); N],
            log_discount: [log_discount; N],
            log_yield: [log_yield; N],
            to_expiry,
        }
    }

    fn is_finite(&self, lane: usize) -> bool {
        let now = [&self.spot, &self.deviation, &self.log_discount, &self.log_yield];
        now.iter().all(|x| x[lane].is_finite()) && self.to_expiry.iter().all(|(a, b)| a[lane].is_finite() && b[lane].is_finite())
    }
}

/// Value of an option that may be exercised early, with constant rates. The error falls with the square of the steps; with 100 steps each
/// way it is about 5e-5 of the spot times [`Terms::deviation`], at worst five times as much.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense.
pub fn value(terms: &Terms, exercise: Exercise, grid: &Grid) -> Result<f64> {
    terms.check()?;
    positive("volatility", terms.volatility)?;
    if terms.years == 0.0 {
        return Ok(terms.side.payoff(terms.spot, terms.strike));
    }
    number("value", values(terms.side, terms.strike, exercise, grid, &Market::<1>::flat(grid, terms))[0])
}

/// Values of one option in `N` states of the market, which do not see each other: a lane has the same bits whatever the others hold
/// and however many there are.
///
/// Inputs are not checked here: where one is NaN so is the value.
///
/// # Panics
/// When `market.to_expiry` does not have one entry for each of [`Grid::times`].
pub fn values<const N: usize>(side: Side, strike: f64, exercise: Exercise, grid: &Grid, market: &Market<N>) -> [f64; N] {
    assert_eq!(market.to_expiry.len(), grid.time_steps + HALVED / 2, "one entry for each of Grid::times");
    let task = solver::Task { sign: side.sign(), strike, exercise, grid, market };
    let values = if N.is_multiple_of(LANES) { lanes::dispatch(task) } else { lanes::scalar(task) };
    // Comparing waiting with exercise picks the one that is a number where the other is none, so that has to be looked at by itself.
    std::array::from_fn(|lane| if market.is_finite(lane) { values[lane] } else { f64::NAN })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::american::approximations::barone_adesi_whaley;
    use crate::european;

    fn put(spot: f64, rate: f64, dividend: f64) -> Terms {
        Terms::with_yield(Side::Put, spot, 100.0, (rate, dividend), 0.2, 1.0)
    }

    fn american(terms: &Terms, steps: usize) -> f64 {
        value(terms, Exercise::American, &Grid::new(steps, steps).unwrap()).unwrap()
    }

    /// Without exercise the grid must give what the formula gives.
    fn never(terms: &Terms, steps: usize) -> f64 {
        value(terms, Exercise::Bermudan(usize::MAX), &Grid::new(steps, steps).unwrap()).unwrap()
    }

    #[test]
    fn the_error_falls_with_the_square_of_the_steps() {
        for terms in [put(95.0, 0.05, 0.01), Terms { side: Side::Call, ..put(103.0, 0.02, 0.06) }] {
            let right = european::value(&terms).unwrap();
            let errors = [50, 100, 200, 400].map(|steps| (never(&terms, steps) - right).abs());
            assert!(errors[1] < 2e-4, "{errors:?}");
            assert!(errors[3] < errors[0] / 40.0, "{errors:?}");
        }
    }

    #[test]
    fn american_values_converge_and_are_right() {
        // Andersen, Lake and Offengenden's method at high precision: 6.660686 for r 5 %, q 2 %, volatility 20 %, one year, at the money.
        let terms = put(100.0, 0.05, 0.02);
        let [coarse, fine] = [100, 800].map(|steps| american(&terms, steps));
        assert!((fine - 6.660_686).abs() < 2e-4, "{fine}");
        assert!((coarse - 6.660_686).abs() < 2e-3, "{coarse}");
    }

    #[test]
    fn far_out_of_the_money_it_is_not_below_zero() {
        let terms = Terms::with_yield(
            Side::Call,
            68.536_425_071_018_56,
            100.0,
            (0.0, -0.022_450_044_844_663_473),
            0.146_633_859_882_806_08,
            0.393_906_733_110_488_9,
        );
        let v = american(&terms, 100);
        assert!((0.0..1e-3).contains(&v), "{v}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_below_the_payoff_nor_the_european_option(spot in 50.0..180.0, rate in -0.03..0.1, dividend in -0.03..0.1, volatility in 0.05..0.8, years in 0.05..4.0, is_call in any::<bool>()) {
            let side = if is_call { Side::Call } else { Side::Put };
            let terms = Terms::with_yield(side, spot, 100.0, (rate, dividend), volatility, years);
            let v = american(&terms, 100);
            prop_assert!(v >= side.payoff(spot, 100.0) - 1e-9);
            prop_assert!(v >= european::value(&terms).unwrap() - 1e-3 * spot);
        }

        #[test]
        fn puts_and_calls_are_the_same_with_asset_and_money_exchanged(spot in 60.0..160.0, rate in 0.0..0.1, dividend in 0.0..0.1) {
            let call = Terms::with_yield(Side::Call, spot, 100.0, (rate, dividend), 0.25, 1.0);
            let put = Terms::with_yield(Side::Put, 100.0, spot, (dividend, rate), 0.25, 1.0);
            prop_assert!((american(&call, 200) - american(&put, 200)).abs() < 3e-5 * spot);
        }
    }

    #[test]
    fn without_anything_to_gain_it_is_the_european_option() {
        let call = Terms { side: Side::Call, ..put(100.0, 0.05, 0.0) };
        assert!((american(&call, 100) - never(&call, 100)).abs() < 1e-9);
        let negative = put(100.0, -0.02, 0.01);
        assert!((american(&negative, 100) - never(&negative, 100)).abs() < 1e-9);
    }

    #[test]
    fn more_dates_of_exercise_are_worth_more() {
        let terms = put(95.0, 0.06, 0.0);
        let grid = Grid::new(400, 400).unwrap();
        let with = |exercise| value(&terms, exercise, &grid).unwrap();
        let [never, four, eighty, always] =
            [Exercise::Bermudan(400), Exercise::Bermudan(100), Exercise::Bermudan(5), Exercise::American].map(with);
        assert!(never < four && four < eighty && eighty < always, "{never} {four} {eighty} {always}");
        assert!(always - eighty < 2e-2, "{always} {eighty}");
    }

    #[test]
    fn deep_in_the_money_it_is_exercised_now_and_far_out_it_is_worthless() {
        assert!((american(&put(30.0, 0.05, 0.0), 100) - 70.0).abs() < 1e-9);
        assert!(american(&put(900.0, 0.05, 0.0), 100) < 1e-9);
        // Deeper in the money than the grid reaches, but not exercised: worth its forward.
        let call = Terms { side: Side::Call, ..put(900.0, 0.05, 0.0) };
        assert!((american(&call, 100) - european::value(&call).unwrap()).abs() < 1e-4 * 900.0);
    }

    #[test]
    fn a_band_of_exercise_between_two_boundaries_is_found() {
        // With a yield below a negative rate a put is exercised only between two prices.
        let terms = Terms::with_yield(Side::Put, 70.0, 100.0, (-0.005, -0.02), 0.1, 5.0);
        assert!(barone_adesi_whaley(&terms).is_err());
        let coarse = american(&terms, 200);
        assert!((coarse - american(&terms, 800)).abs() < 2e-3, "{coarse}");
        assert!(coarse > european::value(&terms).unwrap() + 1e-2);
    }

    #[test]
    fn lanes_do_not_see_each_other() {
        let grid = Grid::new(100, 100).unwrap();
        let alone = Market::<LANES>::flat(&grid, &put(100.0, 0.05, 0.02));
        let single = value(&put(100.0, 0.05, 0.02), Exercise::American, &grid).unwrap();
        let mut mixed = alone.clone();
        for lane in 1..LANES {
            mixed.spot[lane] = 80.0 + lane as f64;
            mixed.deviation[lane] = 0.1 + 0.02 * lane as f64;
        }
        let a = values(Side::Put, 100.0, Exercise::American, &grid, &alone);
        let b = values(Side::Put, 100.0, Exercise::American, &grid, &mixed);
        assert_eq!(a[0].to_bits(), b[0].to_bits());
        assert_eq!(a[0].to_bits(), single.to_bits());
        assert_eq!(a[0].to_bits(), a[LANES - 1].to_bits());
    }

    #[test]
    fn what_is_no_number_stays_in_its_lane_and_is_seen() {
        let grid = Grid::new(100, 100).unwrap();
        let good = Market::<LANES>::flat(&grid, &put(100.0, 0.05, 0.02));
        let poison: [fn(&mut Market<LANES>); 4] = [
            |m| m.spot[3] = f64::NAN,
            |m| m.deviation[3] = f64::NAN,
            |m| m.log_discount[3] = f64::NAN,
            |m| m.to_expiry[40].1[3] = f64::NAN,
        ];
        let right = values(Side::Put, 100.0, Exercise::American, &grid, &good);
        for poison in poison {
            let mut market = good.clone();
            poison(&mut market);
            let got = values(Side::Put, 100.0, Exercise::American, &grid, &market);
            assert!(got[3].is_nan());
            assert!((0..LANES).filter(|lane| *lane != 3).all(|lane| got[lane].to_bits() == right[lane].to_bits()));
        }
    }

    #[test]
    fn grids_that_make_no_sense_are_named() {
        assert!(Grid::new(101, 100).unwrap_err().to_string().contains("`space_steps` is 101"));
        assert!(Grid::new(100, 2).unwrap_err().to_string().contains("`time_steps` is 2"));
    }
}
