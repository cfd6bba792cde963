//! Products with everything prepared that does not depend on the scenario.

use std::sync::Arc;

use tidemill_base::{Error, Result};

use super::Market;
use super::conventions::named;
use super::trades::Row;
use crate::american::finite_differences::{self as fd, Exercise, Grid, LANES};
use crate::curve::{Curve, Point};
use crate::dates::{DayCount, Roll, Tenor};
use crate::math::exp;
use crate::math::lanes::vectorised;
use crate::swap::{self, Swap};
use crate::terms::{Side, finite, positive};
use crate::{barrier, european, heston};

/// A trade's product for a quantity of one.
#[derive(Debug)]
pub(super) enum Product {
    Swap {
        currency: String,
        swap: Swap,
    },
    /// Delivery of the underlying against `strike`.
    Forward {
        at: Expiry,
        strike: f64,
    },
    European {
        at: Expiry,
        side: Side,
        strike: f64,
    },
    Barrier {
        at: Expiry,
        contract: barrier::Contract,
    },
    American {
        at: Expiry,
        side: Side,
        strike: f64,
        grid: Arc<Grid>,
        steps: Vec<Step>,
    },
    Heston {
        at: Expiry,
        side: Side,
        strike: f64,
        slice: Arc<heston::Slice>,
    },
}

/// An underlying and a time, placed on the curves.
#[derive(Debug)]
pub(super) struct Expiry {
    underlying: String,
    years: f64,
    discount: Leg,
    growth: Growth,
}

/// A point on a named curve.
#[derive(Debug)]
struct Leg {
    curve: String,
    point: Point,
}

/// What the holder of the underlying earns.
#[derive(Debug)]
enum Growth {
    Yield(f64),
    Curve(Leg),
}

/// A time step of an American option, on both curves.
#[derive(Debug)]
pub(super) struct Step {
    years: f64,
    discount: Point,
    growth: Option<Point>,
}

/// So few scenarios are faster one by one than in vectors that are mostly empty.
const FEW: usize = 3;

/// Tables that many trades share, kept while a portfolio is read.
#[derive(Debug, Default)]
pub(super) struct Tables {
    grid: Option<Arc<Grid>>,
    slices: Vec<(f64, Arc<heston::Slice>)>,
}

impl Product {
    pub(super) fn new(row: &Row<'_>, market: &Market, tables: &mut Tables) -> Result<Self> {
        let conventions = &market.conventions;
        if row.kind == "swap" {
            let (agreed, first_fixing) = conventions.swap(row.underlying)?;
            let contract = swap::Contract {
                pays_fixed: row.is("cp", row.cp, "P", "R")?,
                rate: row.number("k_pct", row.k_pct)?,
                length: row.tenor()?,
                first_fixing,
            };
            let swap = Swap::new(&contract, &agreed, conventions.asof, market.curve(row.underlying)?)?;
            return Ok(Self::Swap { currency: row.underlying.to_owned(), swap });
        }
        let at = Expiry::new(row.underlying, row.tenor()?, market)?;
        let today = market.spot(row.underlying)?[0];
        let strike = today * row.number("k_pct", row.k_pct)?;
        positive("k_pct", strike)?;
        if row.kind == "fxfwd" {
            return Ok(Self::Forward { at, strike });
        }
        let side = if row.is("cp", row.cp, "C", "P")? { Side::Call } else { Side::Put };
        market.volatility(row.underlying)?;
        if let Some(kind) = barrier_kind(row.kind) {
            let barrier = today * row.number("barrier_pct", row.barrier_pct)?;
            let contract = barrier::Contract { kind, side, strike, barrier, rebate: 0.0 };
            contract.check()?;
            return Ok(Self::Barrier { at, contract });
        }
        match row.kind {
            "european" => Ok(Self::European { at, side, strike }),
            "american" => {
                let grid = tables.grid(conventions.american_grid)?;
                let steps = at.steps(&grid, market)?;
                Ok(Self::American { at, side, strike, grid, steps })
            }
            "heston" => {
                let slice = tables.slice(market, at.years)?;
                Ok(Self::Heston { at, side, strike, slice })
            }
            other => Err(Error::invalid(format!(
                "`type` is `{other}`; known are european, american, heston, barrier_down_in, barrier_down_out, barrier_up_in, barrier_up_out, fxfwd and swap"
            ))),
        }
    }

    /// Values in the scenarios from `first` on. NaN where a formula gives no number.
    pub(super) fn values(&self, market: &Market, first: usize, out: &mut [f64]) -> Result<()> {
        match self {
            Self::Swap { currency, swap } => swap.values(market.curve(currency)?, first, out),
            Self::Forward { at, strike } => {
                let states = at.states(market, first, out.len())?;
                for (i, out) in out.iter_mut().enumerate() {
                    *out = states.discount[i] * (states.forward[i] - strike);
                }
            }
            Self::European { at, side, strike } => {
                let states = at.states(market, first, out.len())?;
                let deviation = at.deviations(market, first, out.len())?;
                european::values(
                    *side,
                    *strike,
                    european::States { forward: &states.forward, discount: &states.discount, deviation: &deviation },
                    out,
                );
            }
            Self::Barrier { at, contract } => {
                let states = at.states(market, first, out.len())?;
                let deviation = at.deviations(market, first, out.len())?;
                let spot = &market.spot(&at.underlying)?[first..first + out.len()];
                let states = barrier::States { spot, forward: &states.forward, discount: &states.discount, deviation: &deviation };
                barrier::values(contract, states, out);
            }
            Self::American { at, side, strike, grid, steps } => {
                for (i, part) in out.chunks_mut(LANES).enumerate() {
                    let first = first + i * LANES;
                    if part.len() > FEW {
                        let lanes = at.lanes::<LANES>(market, steps, first, part.len())?;
                        let values = fd::values(*side, *strike, Exercise::American, grid, &lanes);
                        part.copy_from_slice(&values[..part.len()]);
                        continue;
                    }
                    for (scenario, out) in (first..).zip(part) {
                        let lanes = at.lanes::<1>(market, steps, scenario, 1)?;
                        [*out] = fd::values(*side, *strike, Exercise::American, grid, &lanes);
                    }
                }
            }
            Self::Heston { at, side, strike, slice } => {
                let states = at.states(market, first, out.len())?;
                let (_, variance) = market.heston.as_ref().ok_or_else(no_heston)?;
                let variance = &variance[first..first + out.len()];
                slice.values(*side, *strike, heston::States { forward: &states.forward, discount: &states.discount, variance }, out);
            }
        }
        Ok(())
    }
}

fn no_heston() -> Error {
    Error::invalid("the conventions have no `heston`, which holds the parameters of that model")
}

fn barrier_kind(name: &str) -> Option<barrier::Kind> {
    match name {
        "barrier_down_in" => Some(barrier::Kind::DownIn),
        "barrier_up_in" => Some(barrier::Kind::UpIn),
        "barrier_down_out" => Some(barrier::Kind::DownOut),
        "barrier_up_out" => Some(barrier::Kind::UpOut),
        _ => None,
    }
}

impl Tables {
    fn grid(&mut self, (space, time): (usize, usize)) -> Result<Arc<Grid>> {
        if let Some(grid) = &self.grid {
            return Ok(Arc::clone(grid));
        }
        let grid = Arc::new(Grid::new(space, time).map_err(|e| e.context("`american_grid` of the conventions"))?);
        self.grid = Some(Arc::clone(&grid));
        Ok(grid)
    }

    fn slice(&mut self, market: &Market, years: f64) -> Result<Arc<heston::Slice>> {
        if let Some((_, slice)) = self.slices.iter().find(|(t, _)| *t == years) {
            return Ok(Arc::clone(slice));
        }
        let (model, _) = market.heston.as_ref().ok_or_else(no_heston)?;
        let slice = Arc::new(heston::Slice::new(model, years)?);
        self.slices.push((years, Arc::clone(&slice)));
        Ok(slice)
    }
}

/// Forward prices and discount factors to expiry.
struct States {
    forward: Vec<f64>,
    discount: Vec<f64>,
}

impl Expiry {
    fn new(underlying: &str, tenor: Tenor, market: &Market) -> Result<Self> {
        let conventions = &market.conventions;
        let name = conventions
            .option_calendar
            .as_deref()
            .ok_or_else(|| Error::invalid("the conventions have no `option_calendar`, by which expiries are adjusted"))?;
        let date = conventions.calendar(name)?.adjust(tenor.after(conventions.asof, 1)?, Roll::Following)?;
        let years = DayCount::Actual365Fixed.fraction(conventions.asof, date);
        positive("tenor", years)?;
        let leg = |curve: &str| -> Result<Leg> { Ok(Leg { curve: curve.to_owned(), point: market.curve(curve)?.point(years)? }) };
        let growth = match conventions.yield_curve.get(underlying) {
            Some(curve) => Growth::Curve(leg(curve)?),
            None => {
                let dividend = *named(&conventions.div_yield, "div_yield", underlying)?;
                finite("div_yield", dividend)?;
                Growth::Yield(dividend)
            }
        };
        let discount = leg(named(&conventions.discount, "discount", underlying)?)?;
        Ok(Self { underlying: underlying.to_owned(), years, discount, growth })
    }

    fn states(&self, market: &Market, first: usize, n: usize) -> Result<States> {
        let spot = &market.spot(&self.underlying)?[first..first + n];
        let mut discount = vec![0.0; n];
        market.curve(&self.discount.curve)?.discounts(self.discount.point, first, &mut discount);
        let mut forward = match &self.growth {
            Growth::Yield(q) => vec![exp(-q * self.years); n],
            Growth::Curve(leg) => {
                let mut kept = vec![0.0; n];
                market.curve(&leg.curve)?.discounts(leg.point, first, &mut kept);
                kept
            }
        };
        for i in 0..n {
            forward[i] = spot[i] * forward[i] / discount[i];
        }
        Ok(States { forward, discount })
    }

    fn deviations(&self, market: &Market, first: usize, n: usize) -> Result<Vec<f64>> {
        let root = self.years.sqrt();
        Ok(market.volatility(&self.underlying)?[first..first + n].iter().map(|v| v * root).collect())
    }

    /// Places the time steps of `grid` on the curves.
    fn steps(&self, grid: &Grid, market: &Market) -> Result<Vec<Step>> {
        let discount = market.curve(&self.discount.curve)?;
        let growth = match &self.growth {
            Growth::Yield(_) => None,
            Growth::Curve(leg) => Some(market.curve(&leg.curve)?),
        };
        let step = |before_expiry: f64| {
            let years = (1.0 - before_expiry) * self.years;
            Ok(Step { years, discount: discount.point(years)?, growth: growth.map(|c| c.point(years)).transpose()? })
        };
        grid.times().into_iter().map(step).collect()
    }

    /// `n` scenarios as the finite differences want them; the last one is repeated in the lanes that are left.
    fn lanes<const N: usize>(&self, market: &Market, steps: &[Step], first: usize, n: usize) -> Result<fd::Market<N>> {
        let spot = market.spot(&self.underlying)?;
        let volatility = market.volatility(&self.underlying)?;
        let discount = market.curve(&self.discount.curve)?;
        let growth = match &self.growth {
            Growth::Yield(q) => Kept::Yield(*q),
            Growth::Curve(leg) => Kept::Curve(market.curve(&leg.curve)?, leg.point),
        };
        let scenarios: [usize; N] = std::array::from_fn(|lane| first + lane.min(n - 1));
        let root = self.years.sqrt();
        let log_discount = scenarios.map(|s| discount.log_discount(self.discount.point, s));
        let log_yield = scenarios.map(|s| growth.to(self.years, None, s));
        let mut to_expiry = vec![([0.0; N], [0.0; N]); steps.len()];
        vectorised(
            #[inline(always)]
            || {
                for (step, out) in steps.iter().zip(&mut to_expiry) {
                    for lane in 0..N {
                        out.0[lane] = log_discount[lane] - discount.log_discount(step.discount, scenarios[lane]);
                        out.1[lane] = log_yield[lane] - growth.to(step.years, step.growth, scenarios[lane]);
                    }
                }
            },
        );
        Ok(fd::Market {
            spot: scenarios.map(|s| spot[s]),
            deviation: scenarios.map(|s| volatility[s] * root),
            log_discount,
            log_yield,
            to_expiry,
        })
    }
}

/// [`Growth`] with the curve at hand.
enum Kept<'a> {
    Yield(f64),
    Curve(&'a Curve, Point),
}

impl Kept<'_> {
    /// Logarithm of what is kept of the asset after `years`; `point` is that time on the curve, or none for expiry.
    #[inline(always)]
    fn to(&self, years: f64, point: Option<Point>, scenario: usize) -> f64 {
        match self {
            Self::Yield(q) => -q * years,
            Self::Curve(curve, expiry) => curve.log_discount(point.unwrap_or(*expiry), scenario),
        }
    }
}
