//! The steps themselves, on vectors of the machine's width.
//!
//! Nodes hang together along the grid, markets do not: so a vector holds one node of several markets. The compiler would lay vectors
//! along the grid and gather, hence the explicit ones.

use pulp::{Simd, WithSimd};

use super::{COMPACT, Exercise, Grid, HALVED, Market, Pivot, steps_done, whole_steps};
use crate::math::{exp, ln};

/// One solution, run with the vectors it is given.
pub(super) struct Task<'a, const N: usize> {
    pub(super) sign: f64,
    pub(super) strike: f64,
    pub(super) exercise: Exercise,
    pub(super) grid: &'a Grid,
    pub(super) market: &'a Market<N>,
}

impl<const N: usize> WithSimd for Task<'_, N> {
    type Output = [f64; N];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f64; N] {
        Solver::new(self.sign, self.strike, self.grid, self.market).run(simd, self.exercise)
    }
}

/// The value on the grid, with index 0 deepest in the money: at the lowest price for a put, at the highest for a call.
struct Solver<'a, const N: usize> {
    sign: f64,
    strike: f64,
    grid: &'a Grid,
    market: &'a Market<N>,
    /// Price at each node, up to the growth of the moving frame, with the sign of the payoff.
    signed_price: Vec<[f64; N]>,
    value: Vec<[f64; N]>,
    work: Vec<[f64; N]>,
    /// The value at node 0 is `edge.0 * signed_price - sign * edge.1`: what exercise gave last, carried on without exercise.
    edge: ([f64; N], [f64; N]),
}

/// What exercise is worth: `slope * signed_price - offset`.
struct Obstacle<const N: usize> {
    slope: [f64; N],
    offset: [f64; N],
}

impl<'a, const N: usize> Solver<'a, N> {
    #[inline(always)]
    fn new(sign: f64, strike: f64, grid: &'a Grid, market: &'a Market<N>) -> Self {
        let nodes = grid.nodes();
        let mut signed_price = vec![[0.0; N]; nodes];
        let mut value = vec![[0.0; N]; nodes];
        let middle: [f64; N] = std::array::from_fn(|lane| {
            let forward = ln(market.spot[lane]) + market.log_yield[lane] - market.log_discount[lane];
            forward - 0.5 * market.deviation[lane] * market.deviation[lane]
        });
        for i in 0..nodes {
            let steps = i as f64 - 0.5 * (nodes - 1) as f64;
            for lane in 0..N {
                let cell = market.deviation[lane] * grid.spacing;
                let x = middle[lane] - sign * steps * cell;
                let price = exp(x);
                signed_price[i][lane] = sign * price;
                value[i][lane] = payoff(sign, strike, price, x, cell);
            }
        }
        Self { sign, strike, grid, market, signed_price, value, work: vec![[0.0; N]; nodes], edge: ([1.0; N], [strike; N]) }
    }

    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S, exercise: Exercise) -> [f64; N] {
        let steps = self.market.to_expiry.len();
        let connected = self.exercise_region_reaches_the_edge();
        for step in 0..steps {
            let half = step < HALVED;
            let exercised = match exercise {
                Exercise::American => true,
                Exercise::Bermudan(every) => step + 1 < steps && whole_steps(step).is_some_and(|done| done.is_multiple_of(every)),
            };
            let obstacle = self.obstacle(step);
            let (near, far) = self.move_edge(&obstacle, if half { 0.5 } else { 1.0 }, exercised);
            self.eliminate(simd, if half { COMPACT } else { COMPACT + self.grid.ratio }, &far);
            let last = self.grid.nodes() - 1;
            (self.value[0], self.value[last]) = (near, far);
            if exercised && connected {
                self.substitute_exercising(simd, &obstacle);
            } else {
                self.substitute(simd);
                if exercised {
                    self.compare(&obstacle);
                }
            }
        }
        let middle = (self.grid.nodes() - 1) / 2;
        // The payoff put right at its kink lies a trace below zero on one side, and so may what is far out of the money.
        std::array::from_fn(|lane| not_below_zero(self.value[middle][lane]) * exp(self.market.log_discount[lane]))
    }

    /// A put is exercised at low prices if money earns interest, a call at high ones if the asset has a yield. If that is turned
    /// round for a time, the region where exercise is best may be a band.
    fn exercise_region_reaches_the_edge(&self) -> bool {
        let earns = |(discount, dividend): &([f64; N], [f64; N])| if self.sign < 0.0 { *discount } else { *dividend };
        let mut before = [0.0; N];
        self.market.to_expiry.iter().all(|entry| {
            let now = earns(entry);
            let falls = now.iter().zip(&before).all(|(now, before)| now <= before);
            before = now;
            falls
        })
    }

    /// What exercise is worth at the end of a step.
    #[inline(always)]
    fn obstacle(&self, step: usize) -> Obstacle<N> {
        let (log_discount, log_yield) = &self.market.to_expiry[step];
        let fraction = steps_done(step) / self.grid.time_steps as f64;
        let mut obstacle = Obstacle { slope: [0.0; N], offset: [0.0; N] };
        for lane in 0..N {
            let variance = self.market.deviation[lane] * self.market.deviation[lane];
            obstacle.slope[lane] = exp(0.5 * variance * fraction - log_yield[lane]);
            obstacle.offset[lane] = self.sign * self.strike * exp(-log_discount[lane]);
        }
        obstacle
    }

    /// Moves the value at the ends of the grid to the end of the step, and gives it for both ends. At the far one the option is
    /// worthless, unless the whole grid is in the money.
    #[inline(always)]
    fn move_edge(&mut self, obstacle: &Obstacle<N>, part: f64, exercised: bool) -> ([f64; N], [f64; N]) {
        let last = self.grid.nodes() - 1;
        let (mut near, mut far) = ([0.0; N], [0.0; N]);
        for lane in 0..N {
            let variance = self.market.deviation[lane] * self.market.deviation[lane];
            let grown = self.edge.0[lane] * exp(0.5 * variance * part / self.grid.time_steps as f64);
            let carried = self.sign * self.edge.1[lane];
            let price = self.signed_price[0][lane];
            let wait = !exercised || grown * price - carried >= obstacle.slope[lane] * price - obstacle.offset[lane];
            let (slope, offset) = if wait { (grown, carried) } else { (obstacle.slope[lane], obstacle.offset[lane]) };
            self.edge.0[lane] = slope;
            self.edge.1[lane] = self.sign * offset;
            near[lane] = not_below_zero(slope * price - offset);
            far[lane] = not_below_zero(slope * self.signed_price[last][lane] - offset);
        }
        (near, far)
    }

    /// Makes the right side, whose explicit part has the weight `ratio`, and eliminates from the far end towards the edge.
    #[inline(always)]
    fn eliminate<S: Simd>(&mut self, simd: S, ratio: f64, far: &[f64; N]) {
        let last = self.grid.nodes() - 1;
        let keep = simd.splat_f64s(1.0 - 2.0 * ratio);
        let explicit = simd.splat_f64s(ratio);
        let mut multiplier = self.grid.ratio - COMPACT;
        let mut before = *far;
        for i in (1..last).rev() {
            let times = simd.splat_f64s(multiplier);
            let below = vectors::<S, N>(&self.value[i - 1]);
            let here = vectors::<S, N>(&self.value[i]);
            let above = vectors::<S, N>(&self.value[i + 1]);
            let before = S::as_mut_simd_f64s(&mut before).0;
            let out = S::as_mut_simd_f64s(&mut self.work[i]).0;
            for k in 0..out.len() {
                let neighbours = simd.mul_f64s(explicit, simd.add_f64s(below[k], above[k]));
                let right = simd.add_f64s(simd.mul_f64s(keep, here[k]), neighbours);
                let sum = simd.add_f64s(right, simd.mul_f64s(times, before[k]));
                out[k] = sum;
                before[k] = sum;
            }
            multiplier = self.grid.pivots[i].multiplier;
        }
    }

    /// Substitutes from the edge outwards.
    #[inline(always)]
    fn substitute<S: Simd>(&mut self, simd: S) {
        let mut before = self.value[0];
        for i in 1..self.grid.nodes() - 1 {
            let Pivot { inverse, multiplier } = self.grid.pivots[i];
            let (inverse, multiplier) = (simd.splat_f64s(inverse), simd.splat_f64s(multiplier));
            let right = vectors::<S, N>(&self.work[i]);
            let before = S::as_mut_simd_f64s(&mut before).0;
            let out = S::as_mut_simd_f64s(&mut self.value[i]).0;
            for k in 0..out.len() {
                let wait = simd.add_f64s(simd.mul_f64s(inverse, right[k]), simd.mul_f64s(multiplier, before[k]));
                out[k] = wait;
                before[k] = wait;
            }
        }
    }

    /// The same, with the larger of waiting and exercise at each node.
    #[inline(always)]
    fn substitute_exercising<S: Simd>(&mut self, simd: S, obstacle: &Obstacle<N>) {
        let slope = vectors::<S, N>(&obstacle.slope);
        let offset = vectors::<S, N>(&obstacle.offset);
        let mut before = self.value[0];
        for i in 1..self.grid.nodes() - 1 {
            let Pivot { inverse, multiplier } = self.grid.pivots[i];
            let (inverse, multiplier) = (simd.splat_f64s(inverse), simd.splat_f64s(multiplier));
            let right = vectors::<S, N>(&self.work[i]);
            let price = vectors::<S, N>(&self.signed_price[i]);
            let before = S::as_mut_simd_f64s(&mut before).0;
            let out = S::as_mut_simd_f64s(&mut self.value[i]).0;
            for k in 0..out.len() {
                let wait = simd.add_f64s(simd.mul_f64s(inverse, right[k]), simd.mul_f64s(multiplier, before[k]));
                let take = simd.sub_f64s(simd.mul_f64s(slope[k], price[k]), offset[k]);
                let better = simd.select_f64s(simd.greater_than_or_equal_f64s(wait, take), wait, take);
                out[k] = better;
                before[k] = better;
            }
        }
    }

    #[inline(always)]
    fn compare(&mut self, obstacle: &Obstacle<N>) {
        for (out, price) in self.value.iter_mut().zip(&self.signed_price) {
            for lane in 0..N {
                let take = obstacle.slope[lane] * price[lane] - obstacle.offset[lane];
                out[lane] = if out[lane] >= take { out[lane] } else { take };
            }
        }
    }
}

/// The vectors that make up the lanes; a number of lanes that does not divide is run with scalars.
#[inline(always)]
fn vectors<S: Simd, const N: usize>(lanes: &[f64; N]) -> &[S::f64s] {
    S::as_simd_f64s(lanes).0
}

#[inline(always)]
fn not_below_zero(x: f64) -> f64 {
    if x < 0.0 { 0.0 } else { x }
}

/// The payoff at a `price` whose logarithm is `x`, on a grid with steps of `cell`.
///
/// Sums over a grid take a kink for smooth; what they are wrong by is known (Euler and Maclaurin), and is put right at the two nodes
/// on both sides of the kink, so that integrals of the payoff are exact to the third power of the step.
#[inline(always)]
fn payoff(sign: f64, strike: f64, price: f64, x: f64, cell: f64) -> f64 {
    // Steps from the kink into the money.
    let depth = sign * (x - ln(strike)) / cell;
    let plain = sign * (price - strike);
    let (inside, outside) = ((0.0..1.0).contains(&depth), (-1.0..0.0).contains(&depth));
    let part = if inside { depth } else { depth + 1.0 };
    let second = part * part - part + 1.0 / 6.0;
    let third = part * (part - 0.5) * (part - 1.0);
    let zeroth_moment = strike * cell * (0.5 * second + sign * cell * third / 6.0);
    let first_moment = strike * cell * third / 3.0;
    let correction = if inside { (1.0 - part) * zeroth_moment + first_moment } else { part * zeroth_moment - first_moment };
    not_below_zero(plain) + if inside || outside { correction } else { 0.0 }
}
