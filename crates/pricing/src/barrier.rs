//! European options with one barrier, watched continuously: Merton (1973), Reiner and Rubinstein (1991), in the form of Haug (2007),
//! section 4.17.1.
//!
//! All eight types are sums of the same six terms, which Haug calls A to F; `Plan` holds the signs.

use tidemill_base::{Error, Result};

use crate::math::lanes::vectorised;
use crate::math::{cdf, exp, ln};
use crate::terms::{Side, Terms, not_negative, number, positive};

/// Where the barrier lies and what touching it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Below the spot; touching it begins the option.
    DownIn,
    /// Above the spot; touching it begins the option.
    UpIn,
    /// Below the spot; touching it ends the option.
    DownOut,
    /// Above the spot; touching it ends the option.
    UpOut,
}

impl Kind {
    /// Whether the barrier lies below.
    pub const fn is_down(self) -> bool {
        matches!(self, Self::DownIn | Self::DownOut)
    }

    /// Whether touching the barrier begins the option.
    pub const fn is_in(self) -> bool {
        matches!(self, Self::DownIn | Self::UpIn)
    }

    /// Whether a price of `spot` is at the barrier or beyond.
    #[inline(always)]
    pub fn touched(self, spot: f64, barrier: f64) -> bool {
        if self.is_down() { spot <= barrier } else { spot >= barrier }
    }
}

/// A barrier option but for the state of the market.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contract {
    /// Type of the barrier.
    pub kind: Kind,
    /// Call or put.
    pub side: Side,
    /// Strike price.
    pub strike: f64,
    /// Level of the barrier.
    pub barrier: f64,
    /// Paid when a knock-out option ends, at once; or at expiry when a knock-in option never began.
    pub rebate: f64,
}

impl Contract {
    /// # Errors
    /// `Invalid`, naming the field, when strike or barrier is not positive or the rebate is negative.
    pub fn check(&self) -> Result<()> {
        positive("strike", self.strike)?;
        positive("barrier", self.barrier)?;
        not_negative("rebate", self.rebate)
    }
}

/// Value of a barrier option whose barrier has not been touched before now. `terms.spot` at or beyond the barrier touches it now.
///
/// # Errors
/// `Invalid`, naming the field, for terms that make no sense; for zero volatility; and when a knock-out rebate meets a rate so
/// negative that the formula has no real root.
pub fn value(kind: Kind, terms: &Terms, barrier: f64, rebate: f64) -> Result<f64> {
    terms.check()?;
    positive("volatility", terms.volatility)?;
    let contract = Contract { kind, side: terms.side, strike: terms.strike, barrier, rebate };
    contract.check()?;
    if terms.years == 0.0 {
        return Ok(at_expiry(&contract, terms.spot));
    }
    if !kind.is_in() && rebate > 0.0 {
        let variance = terms.volatility * terms.volatility;
        let mu = terms.carry / variance - 0.5;
        if mu * mu + 2.0 * terms.rate / variance < 0.0 {
            return Err(Error::invalid(format!("`rate` is {}: too negative for a rebate paid when the barrier is touched", terms.rate)));
        }
    }
    let mut out = [0.0];
    let states =
        States { spot: &[terms.spot], forward: &[terms.forward()], discount: &[terms.discount()], deviation: &[terms.deviation()] };
    values(&contract, states, &mut out);
    number("value", out[0])
}

fn at_expiry(contract: &Contract, spot: f64) -> f64 {
    let begun = contract.kind.touched(spot, contract.barrier) == contract.kind.is_in();
    if begun { contract.side.payoff(spot, contract.strike) } else { contract.rebate }
}

/// One barrier option in many states of the market. All slices are as long as the values asked for.
#[derive(Debug, Clone, Copy)]
pub struct States<'a> {
    /// Price of the asset now.
    pub spot: &'a [f64],
    /// Forward price of the asset for delivery at expiry.
    pub forward: &'a [f64],
    /// Value now of one unit of money at expiry.
    pub discount: &'a [f64],
    /// Standard deviation of the logarithm of the price at expiry, above zero.
    pub deviation: &'a [f64],
}

/// Values of one barrier option in many states of the market.
///
/// Inputs are not checked here: where one is NaN so is the value.
///
/// # Panics
/// When a slice of `states` is shorter than `out`.
pub fn values(contract: &Contract, states: States<'_>, out: &mut [f64]) {
    let plan = Plan::of(contract);
    out.fill(0.0);
    for (coefficient, term) in plan.terms {
        if coefficient != 0.0 {
            add(contract, &plan, term, coefficient, states, out);
        }
    }
    settle(contract, states, out);
}

/// Adds one of the six terms to all states. One loop for each keeps every loop free of branches.
fn add(contract: &Contract, plan: &Plan, term: Term, coefficient: f64, states: States<'_>, out: &mut [f64]) {
    match term {
        Term::A => each(states, out, |s| coefficient * plain(contract, plan, s, ln(s.spot / contract.strike))),
        Term::B => each(states, out, |s| coefficient * plain(contract, plan, s, ln(s.spot / contract.barrier))),
        Term::C => each(states, out, |s| {
            let over = ln(contract.barrier / s.spot);
            coefficient * mirrored(contract, plan, s, over, over + ln(contract.barrier / contract.strike))
        }),
        Term::D => each(states, out, |s| {
            let over = ln(contract.barrier / s.spot);
            coefficient * mirrored(contract, plan, s, over, over)
        }),
        Term::E => each(states, out, |s| coefficient * contract.rebate * never_touched(plan, s, ln(contract.barrier / s.spot))),
        Term::F => each(states, out, |s| coefficient * contract.rebate * touched(plan.eta, s, ln(contract.barrier / s.spot))),
    }
}

/// One state, with the drift over the whole time in place of a rate and a time.
#[derive(Clone, Copy)]
pub(crate) struct State {
    pub(crate) spot: f64,
    pub(crate) forward: f64,
    pub(crate) discount: f64,
    pub(crate) deviation: f64,
}

impl State {
    /// Haug's (1 + μ) σ√T.
    #[inline(always)]
    fn shift(self) -> f64 {
        ln(self.forward / self.spot) / self.deviation + 0.5 * self.deviation
    }

    /// Haug's μ.
    #[inline(always)]
    fn mu(self) -> f64 {
        ln(self.forward / self.spot) / (self.deviation * self.deviation) - 0.5
    }
}

#[inline(always)]
fn each(states: States<'_>, out: &mut [f64], f: impl Fn(State) -> f64) {
    let n = out.len();
    let States { spot, forward, discount, deviation } = states;
    let (spot, forward, discount, deviation) = (&spot[..n], &forward[..n], &discount[..n], &deviation[..n]);
    vectorised(
        #[inline(always)]
        || {
            for i in 0..n {
                out[i] += f(State { spot: spot[i], forward: forward[i], discount: discount[i], deviation: deviation[i] });
            }
        },
    );
}

/// Haug's A and B.
#[inline(always)]
fn plain(contract: &Contract, plan: &Plan, s: State, log_ratio: f64) -> f64 {
    let x = log_ratio / s.deviation + s.shift();
    let phi = plan.phi;
    phi * s.discount * (s.forward * cdf(phi * x) - contract.strike * cdf(phi * (x - s.deviation)))
}

/// Haug's C and D: the image of the option behind the barrier.
#[inline(always)]
fn mirrored(contract: &Contract, plan: &Plan, s: State, over: f64, log_ratio: f64) -> f64 {
    let y = log_ratio / s.deviation + s.shift();
    let weight = exp(2.0 * s.mu() * over);
    let square = exp(2.0 * over);
    let eta = plan.eta;
    plan.phi * s.discount * weight * (s.forward * square * cdf(eta * y) - contract.strike * cdf(eta * (y - s.deviation)))
}

/// Haug's E for a rebate of one: discounted probability that the barrier is not touched.
#[inline(always)]
fn never_touched(plan: &Plan, s: State, over: f64) -> f64 {
    let x2 = s.shift() - over / s.deviation;
    let y2 = s.shift() + over / s.deviation;
    let eta = plan.eta;
    s.discount * (cdf(eta * (x2 - s.deviation)) - exp(2.0 * s.mu() * over) * cdf(eta * (y2 - s.deviation)))
}

/// Haug's F for a rebate of one: value of one unit of money when the barrier is touched.
#[inline(always)]
pub(crate) fn touched(eta: f64, s: State, over: f64) -> f64 {
    let mu = s.mu();
    let lambda = (mu * mu - 2.0 * ln(s.discount) / (s.deviation * s.deviation)).sqrt();
    let z = over / s.deviation + lambda * s.deviation;
    exp((mu + lambda) * over) * cdf(eta * z) + exp((mu - lambda) * over) * cdf(eta * (z - 2.0 * lambda * s.deviation))
}

/// What touching now means, and no value below zero from rounding.
fn settle(contract: &Contract, states: States<'_>, out: &mut [f64]) {
    let vanilla = |i: usize| {
        crate::european::black(contract.side.sign(), states.forward[i], contract.strike, states.discount[i], states.deviation[i])
    };
    for (i, value) in out.iter_mut().enumerate() {
        if contract.kind.touched(states.spot[i], contract.barrier) {
            *value = if contract.kind.is_in() { vanilla(i) } else { contract.rebate };
        } else if *value < 0.0 {
            *value = 0.0;
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Term {
    A,
    B,
    C,
    D,
    E,
    F,
}

/// Haug's table: which terms make up which type, and the signs φ and η in them.
#[derive(Debug)]
struct Plan {
    phi: f64,
    eta: f64,
    terms: [(f64, Term); 6],
}

impl Plan {
    fn of(contract: &Contract) -> Self {
        use Kind::{DownIn, DownOut, UpIn, UpOut};
        use Side::{Call, Put};
        let above = contract.strike > contract.barrier;
        let rebate = f64::from(u8::from(contract.rebate > 0.0));
        let [a, b, c, d, e, f] = match (contract.kind, contract.side, above) {
            (DownIn, Call, true) | (UpIn, Put, false) => [0.0, 0.0, 1.0, 0.0, 1.0, 0.0],
            (DownIn, Call, false) | (UpIn, Put, true) => [1.0, -1.0, 0.0, 1.0, 1.0, 0.0],
            (UpIn, Call, true) | (DownIn, Put, false) => [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            (UpIn, Call, false) | (DownIn, Put, true) => [0.0, 1.0, -1.0, 1.0, 1.0, 0.0],
            (DownOut, Call, true) | (UpOut, Put, false) => [1.0, 0.0, -1.0, 0.0, 0.0, 1.0],
            (DownOut, Call, false) | (UpOut, Put, true) => [0.0, 1.0, 0.0, -1.0, 0.0, 1.0],
            (UpOut, Call, true) | (DownOut, Put, false) => [0.0, 0.0, 0.0, 0.0, 0.0, 1.0],
            (UpOut, Call, false) | (DownOut, Put, true) => [1.0, -1.0, 1.0, -1.0, 0.0, 1.0],
        };
        Self {
            phi: contract.side.sign(),
            eta: if contract.kind.is_down() { 1.0 } else { -1.0 },
            terms: [(a, Term::A), (b, Term::B), (c, Term::C), (d, Term::D), (e * rebate, Term::E), (f * rebate, Term::F)],
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::european;

    fn any_case() -> impl Strategy<Value = (Terms, f64, bool)> {
        let side = prop_oneof![Just(Side::Call), Just(Side::Put)];
        (side, 50.0..150.0, 0.6..1.6, 0.0..0.12, -0.04..0.12, 0.08..0.6, 0.05..3.0, 0.7..0.99, any::<bool>()).prop_map(
            |(side, spot, moneyness, rate, carry, volatility, years, distance, down)| {
                let terms = Terms { side, spot, strike: spot * moneyness, rate, carry, volatility, years };
                (terms, if down { spot * distance } else { spot / distance }, down)
            },
        )
    }

    const fn kinds(down: bool) -> (Kind, Kind) {
        if down { (Kind::DownIn, Kind::DownOut) } else { (Kind::UpIn, Kind::UpOut) }
    }

    proptest! {
        #[test]
        fn in_and_out_make_the_option_without_barrier((terms, barrier, down) in any_case()) {
            let (kind_in, kind_out) = kinds(down);
            let sum = value(kind_in, &terms, barrier, 0.0).unwrap() + value(kind_out, &terms, barrier, 0.0).unwrap();
            prop_assert!((sum - european::value(&terms).unwrap()).abs() < 1e-11 * terms.spot);
        }

        #[test]
        fn rebates_add_value_up_to_their_size((terms, barrier, down) in any_case(), rebate in 0.1..20.0) {
            let (kind_in, kind_out) = kinds(down);
            for kind in [kind_in, kind_out] {
                let without = value(kind, &terms, barrier, 0.0).unwrap();
                let with = value(kind, &terms, barrier, rebate).unwrap();
                prop_assert!(with >= without - 1e-12 && with <= without + rebate * (1.0 + 1e-12));
            }
        }

        #[test]
        fn a_barrier_further_away_is_touched_less_often((terms, barrier, down) in any_case(), step in 0.5..1.0) {
            let (_, kind_out) = kinds(down);
            let further = if down { barrier * step } else { barrier / step };
            let near = value(kind_out, &terms, barrier, 0.0).unwrap();
            let far = value(kind_out, &terms, further, 0.0).unwrap();
            prop_assert!(far >= near - 1e-11 * terms.spot);
        }
    }

    #[test]
    fn a_barrier_out_of_reach_does_nothing() {
        let terms = Terms::with_yield(Side::Put, 100.0, 105.0, (0.03, 0.01), 0.2, 1.0);
        let vanilla = european::value(&terms).unwrap();
        assert!((value(Kind::DownOut, &terms, 1.0, 7.0).unwrap() - vanilla).abs() < 1e-12);
        assert!((value(Kind::UpOut, &terms, 1e4, 7.0).unwrap() - vanilla).abs() < 1e-12);
    }

    #[test]
    fn the_barrier_at_the_spot_is_touched() {
        let terms = Terms::with_yield(Side::Call, 100.0, 90.0, (0.08, 0.04), 0.25, 0.5);
        assert_eq!(value(Kind::DownOut, &terms, 100.0, 3.0).unwrap(), 3.0);
        assert_eq!(value(Kind::DownIn, &terms, 100.0, 3.0).unwrap(), european::value(&terms).unwrap());
        assert!((value(Kind::DownOut, &terms, 100.0 - 1e-9, 3.0).unwrap() - 3.0).abs() < 1e-6);
    }

    #[test]
    fn at_expiry_there_is_the_payoff_or_the_rebate() {
        let terms = Terms::with_yield(Side::Call, 100.0, 90.0, (0.08, 0.04), 0.25, 0.0);
        assert_eq!(value(Kind::DownOut, &terms, 95.0, 3.0).unwrap(), 10.0);
        assert_eq!(value(Kind::DownIn, &terms, 95.0, 3.0).unwrap(), 3.0);
        assert_eq!(value(Kind::UpIn, &terms, 95.0, 3.0).unwrap(), 10.0);
        assert_eq!(value(Kind::UpOut, &terms, 95.0, 3.0).unwrap(), 3.0);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let terms = Terms::with_yield(Side::Call, 100.0, 90.0, (0.08, 0.04), 0.25, 0.5);
        let message = |r: Result<f64>| r.unwrap_err().to_string();
        assert!(message(value(Kind::DownIn, &terms, f64::NAN, 0.0)).contains("`barrier` is NaN"));
        assert!(message(value(Kind::DownIn, &terms, 95.0, -1.0)).contains("`rebate` is -1"));
        assert!(message(value(Kind::DownIn, &Terms { volatility: 0.0, ..terms }, 95.0, 0.0)).contains("`volatility` is 0"));
        let negative = Terms { rate: -0.2, carry: 0.03, ..terms };
        assert!(message(value(Kind::DownOut, &negative, 95.0, 1.0)).contains("`rate` is -0.2"));
    }
}
