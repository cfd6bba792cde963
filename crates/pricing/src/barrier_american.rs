//! Barrier options that may be exercised early, by finite differences: Crank and Nicolson in the logarithm of the price, with the barrier
//! on the edge of the grid.
//!
//! A knock-out option is an American one whose value at the barrier is the rebate, or what exercise just before gives. A knock-in option cannot be exercised before the
//! barrier is touched: it is a European claim that at the barrier becomes an American option, whose value there is solved first.

use tidemill_base::{Error, Result};

use crate::american::finite_differences::{self as american, Exercise, Grid};
use crate::barrier::{Contract, Kind};
use crate::math::{exp, ln};
use crate::terms::{Side, Terms, at_least, number, positive};

/// How far the grid reaches from spot and barrier, in standard deviations at expiry.
const WIDTH: f64 = 6.0;
/// Points of the option that begins at the barrier.
const INNER: usize = 200;

/// Value of a barrier option that may be exercised at any time: while it lives if knocked out by the barrier, once it lives if knocked
/// in. The rebate is paid as in [`crate::barrier::Contract`]. The error falls with the square of the steps.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense, for zero volatility or time, and for fewer than 10 or more than 10,000
/// steps of price or time.
pub fn value(kind: Kind, terms: &Terms, barrier: f64, rebate: f64, (space_steps, time_steps): (usize, usize)) -> Result<f64> {
    terms.check()?;
    positive("volatility", terms.volatility)?;
    positive("years", terms.years)?;
    let contract = Contract { kind, side: terms.side, strike: terms.strike, barrier, rebate };
    contract.check()?;
    for (name, steps) in [("space_steps", space_steps), ("time_steps", time_steps)] {
        if !(10..=10_000).contains(&steps) {
            return Err(Error::invalid(format!("`{name}` is {steps}; it must be between 10 and 10000")));
        }
    }
    let inner = Grid::new(INNER, INNER)?;
    if kind.touched(terms.spot, barrier) {
        return if kind.is_in() { american::value(terms, Exercise::American, &inner) } else { Ok(rebate) };
    }
    let mut solver = Solver::new(&contract, terms, space_steps, time_steps);
    number("value", solver.run(&inner)?)
}

struct Solver<'a> {
    contract: &'a Contract,
    terms: &'a Terms,
    step: f64,
    /// The barrier comes first.
    prices: Vec<f64>,
    values: Vec<f64>,
    spacing: f64,
    /// Where the spot lies, in steps from the barrier.
    place: f64,
    time_steps: usize,
}

/// One time step: `below, here, above` of the operator, times half the step.
struct Bands {
    below: f64,
    here: f64,
    above: f64,
}

impl<'a> Solver<'a> {
    fn new(contract: &'a Contract, terms: &'a Terms, space_steps: usize, time_steps: usize) -> Self {
        let away = if contract.kind.is_down() { 1.0 } else { -1.0 };
        let distance = (ln(terms.spot / contract.barrier)).abs();
        // The spot on a node, as close to the wanted number of steps as that allows.
        let reach = distance + WIDTH * terms.deviation();
        let before = (distance / reach * space_steps as f64).round().max(2.0);
        let spacing = distance / before;
        let nodes = (reach / spacing).ceil() as usize + 1;
        let prices: Vec<f64> = (0..nodes).map(|i| contract.barrier * exp(away * spacing * i as f64)).collect();
        let beyond_barrier = contract.kind.is_in();
        let values = prices
            .iter()
            .enumerate()
            .map(|(i, price)| if beyond_barrier && i > 0 { contract.rebate } else { average(contract, *price, spacing) })
            .collect();
        Self { contract, terms, step: terms.years / time_steps as f64, prices, values, spacing: away * spacing, place: before, time_steps }
    }

    fn run(&mut self, inner: &Grid) -> Result<f64> {
        // Rannacher: four implicit half steps, then whole ones half implicit.
        let halves = (1..=4).map(|i| (0.5 * self.step, 1.0, 0.5 * f64::from(i) * self.step));
        let wholes = (3..=self.time_steps).map(|i| (self.step, 0.5, i as f64 * self.step));
        let schedule: Vec<(f64, f64, f64)> = halves.chain(wholes).collect();
        for (step, implicit, left) in schedule {
            let near = self.at_barrier(left, inner)?;
            let far = self.far_away(left);
            self.advance(step, implicit, near, far);
        }
        Ok(self.values[self.place as usize])
    }

    /// The value at the barrier with `left` years to expiry.
    fn at_barrier(&self, left: f64, inner: &Grid) -> Result<f64> {
        let Contract { kind, side, strike, barrier, rebate } = *self.contract;
        if !kind.is_in() {
            // Rather than lose the option for a smaller rebate, its holder exercises just before.
            return Ok(rebate.max(side.payoff(barrier, strike)));
        }
        american::value(&Terms { spot: self.contract.barrier, years: left, ..*self.terms }, Exercise::American, inner)
    }

    /// The value at the other end, where the barrier is out of reach.
    fn far_away(&self, left: f64) -> f64 {
        let price = self.prices[self.prices.len() - 1];
        if self.contract.kind.is_in() {
            return self.contract.rebate * exp(-self.terms.rate * left);
        }
        let sign = self.contract.side.sign();
        let later = sign * (price * exp(-self.terms.dividend() * left) - self.contract.strike * exp(-self.terms.rate * left));
        at_least(later, self.contract.side.payoff(price, self.contract.strike))
    }

    fn advance(&mut self, step: f64, implicit: f64, near: f64, far: f64) {
        let variance = self.terms.volatility * self.terms.volatility;
        let drift = self.terms.carry - 0.5 * variance;
        let (second, first) = (0.5 * variance / (self.spacing * self.spacing), 0.5 * drift / self.spacing);
        let bands =
            Bands { below: step * (second - first), here: -step * (2.0 * second + self.terms.rate), above: step * (second + first) };
        let last = self.prices.len() - 1;
        let explicit = 1.0 - implicit;
        let v = &self.values;
        let mut right: Vec<f64> =
            (1..last).map(|i| v[i] + explicit * (bands.below * v[i - 1] + bands.here * v[i] + bands.above * v[i + 1])).collect();
        right[0] += implicit * bands.below * near;
        right[last - 2] += implicit * bands.above * far;
        (self.values[0], self.values[last]) = (near, far);
        self.solve(&bands, implicit, right);
    }

    /// Brennan and Schwartz (1977): eliminate towards the exercise region, which lies at low prices for a put and at high ones for a
    /// call, and substitute away from it.
    fn solve(&mut self, bands: &Bands, implicit: f64, mut right: Vec<f64>) {
        let n = right.len();
        let (below, here, above) = (-implicit * bands.below, 1.0 - implicit * bands.here, -implicit * bands.above);
        let mut pivots = vec![here; n];
        // Exercise next to the barrier end: for a put above a barrier below, and for a call below a barrier above.
        let towards_barrier = self.contract.kind.is_down() == (self.contract.side == Side::Put);
        if towards_barrier {
            for i in (0..n - 1).rev() {
                let factor = above / pivots[i + 1];
                pivots[i] -= factor * below;
                right[i] -= factor * right[i + 1];
            }
            let mut before = 0.0;
            for i in 0..n {
                before = self.settle(i + 1, (right[i] - below * before) / pivots[i]);
            }
        } else {
            for i in 1..n {
                let factor = below / pivots[i - 1];
                pivots[i] -= factor * above;
                right[i] -= factor * right[i - 1];
            }
            let mut before = 0.0;
            for i in (0..n).rev() {
                before = self.settle(i + 1, (right[i] - above * before) / pivots[i]);
            }
        }
    }

    fn settle(&mut self, node: usize, wait: f64) -> f64 {
        let exercised = if self.contract.kind.is_in() {
            wait
        } else {
            at_least(wait, self.contract.side.payoff(self.prices[node], self.contract.strike))
        };
        self.values[node] = exercised;
        exercised
    }
}

/// The payoff at a node, and its average over the cell in the one that holds the kink.
fn average(contract: &Contract, price: f64, cell: f64) -> f64 {
    let (sign, strike) = (contract.side.sign(), contract.strike);
    let (x, kink) = (ln(price), ln(strike));
    if (x - kink).abs() >= 0.5 * cell {
        return contract.side.payoff(price, strike);
    }
    let end = x + sign * 0.5 * cell;
    (exp(end) - strike - strike * (end - kink)) / cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{barrier, european};

    fn terms(side: Side, strike: f64) -> Terms {
        Terms::with_yield(side, 100.0, strike, (0.08, 0.04), 0.25, 0.5)
    }

    const GRID: (usize, usize) = (400, 400);

    #[test]
    fn early_exercise_is_worth_something_and_never_less() {
        for side in [Side::Call, Side::Put] {
            for (kind, level) in [(Kind::DownOut, 90.0), (Kind::UpOut, 112.0)] {
                for strike in [90.0, 100.0, 110.0] {
                    let t = terms(side, strike);
                    let early = value(kind, &t, level, 0.0, GRID).unwrap();
                    let late = barrier::value(kind, &t, level, 0.0).unwrap();
                    let vanilla = american::value(&t, Exercise::American, &Grid::new(400, 400).unwrap()).unwrap();
                    assert!(early >= late - 1e-3 && early <= vanilla + 2e-3, "{side:?} {kind:?} {strike}: {late} {early} {vanilla}");
                }
            }
        }
    }

    #[test]
    fn a_barrier_out_of_reach_does_nothing() {
        let t = terms(Side::Put, 105.0);
        let right = american::value(&t, Exercise::American, &Grid::new(800, 800).unwrap()).unwrap();
        let got = value(Kind::UpOut, &t, 300.0, 5.0, GRID).unwrap();
        assert!((got - right).abs() < 3e-3, "{got} and not {right}");
    }

    #[test]
    fn without_anything_to_gain_it_is_the_european_barrier_option() {
        // A call on an asset without yield is never exercised.
        let t = Terms::with_yield(Side::Call, 100.0, 95.0, (0.05, 0.0), 0.3, 1.0);
        for (kind, rebate) in [(Kind::DownOut, 0.0), (Kind::DownIn, 0.0), (Kind::DownIn, 4.0)] {
            let right = barrier::value(kind, &t, 85.0, rebate).unwrap();
            let errors = [100, 200, 400].map(|n| (value(kind, &t, 85.0, rebate, (n, n)).unwrap() - right).abs());
            assert!(errors[2] < 3e-3 && errors[2] < errors[0], "{kind:?}: {errors:?}");
        }
    }

    #[test]
    fn touched_now_and_wrong_inputs() {
        let t = terms(Side::Call, 100.0);
        assert_eq!(value(Kind::DownOut, &t, 100.0, 3.0, GRID).unwrap(), 3.0);
        assert!((value(Kind::DownIn, &t, 100.0, 3.0, GRID).unwrap() - european::value(&t).unwrap()).abs() < 0.05);
        assert!(value(Kind::DownIn, &t, 95.0, 3.0, (5, 100)).unwrap_err().to_string().contains("`space_steps` is 5"));
        assert!(value(Kind::DownIn, &t, f64::NAN, 3.0, GRID).unwrap_err().to_string().contains("`barrier`"));
    }
}
