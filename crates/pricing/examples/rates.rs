//! Values per second of every product, on one core. Run with `cargo run --release -p tidemill-pricing --example rates`.
//!
//! European, barrier and Heston options are valued as a risk run does it: one contract in many states of the market.

#![allow(clippy::disallowed_methods, reason = "a program that measures needs the clock; the library has none")]

use std::hint::black_box;
use std::time::Instant;

use tidemill_base::Result;
use tidemill_pricing::american::approximations;
use tidemill_pricing::american::finite_differences::{self, Exercise, Grid, LANES, Market};
use tidemill_pricing::{Side, Terms, barrier, european, heston, longstaff_schwartz};

const STATES: usize = 512;

fn main() -> Result<()> {
    let spot: Vec<f64> = (0..STATES).map(|i| 80.0 + 0.1 * i as f64).collect();
    let forward: Vec<f64> = spot.iter().map(|s| 1.02 * s).collect();
    let discount = vec![0.97; STATES];
    let deviation: Vec<f64> = (0..STATES).map(|i| 0.1 + 0.0005 * i as f64).collect();
    let variance: Vec<f64> = deviation.iter().map(|d| d * d).collect();
    let mut out = vec![0.0; STATES];

    report("European", STATES, || {
        european::values(Side::Call, 100.0, european::States { forward: &forward, discount: &discount, deviation: &deviation }, &mut out);
        black_box(&mut out);
    });
    let contract = barrier::Contract { kind: barrier::Kind::DownOut, side: Side::Call, strike: 100.0, barrier: 75.0, rebate: 0.0 };
    for (name, rebate) in [("barrier", 0.0), ("barrier with rebate", 3.0)] {
        report(name, STATES, || {
            let states = barrier::States { spot: &spot, forward: &forward, discount: &discount, deviation: &deviation };
            barrier::values(&barrier::Contract { rebate, ..contract }, states, &mut out);
            black_box(&mut out);
        });
    }
    let model = heston::Model { kappa: 3.0, theta: 0.04, sigma: 0.5, rho: -0.7 };
    for (name, years) in [("Heston, 2 months", 1.0 / 6.0), ("Heston, 1 year", 1.0)] {
        let slice = heston::Slice::new(&model, years)?;
        report(name, STATES, || {
            slice.values(Side::Put, 100.0, heston::States { forward: &forward, discount: &discount, variance: &variance }, &mut out);
            black_box(&mut out);
        });
    }
    report("Heston, tables for 1 year", 1, || {
        black_box(heston::Slice::new(&model, black_box(1.0)).is_ok());
    });
    american()
}

fn american() -> Result<()> {
    let terms = Terms::with_yield(Side::Put, 100.0, 100.0, (0.05, 0.02), 0.2, 1.0);
    let grid = Grid::new(100, 100)?;
    let market = Market::<LANES>::flat(&grid, &terms);
    report("American, 100 x 100 points", LANES, || {
        black_box(finite_differences::values(Side::Put, 100.0, Exercise::American, &grid, &market));
    });
    report("American, 100 x 100 points, one at a time", 1, || {
        black_box(finite_differences::value(&terms, Exercise::American, &grid).is_ok());
    });
    let simulation = longstaff_schwartz::Simulation { paths: 50_000, dates: 50, seed: 1 };
    report("American, Longstaff-Schwartz, 50,000 x 50", 1, || {
        black_box(longstaff_schwartz::value(&terms, &simulation).is_ok());
    });
    report("American, Ju and Zhong", 1, || {
        black_box(approximations::ju_zhong(&black_box(terms)).is_ok());
    });
    Ok(())
}

/// Repeats `work`, which makes `values` of them, for about a second, and prints the best tenth of a second.
fn report(name: &str, values: usize, mut work: impl FnMut()) {
    let mut best = 0.0_f64;
    for _ in 0..10 {
        let start = Instant::now();
        let mut times = 0;
        while start.elapsed().as_secs_f64() < 0.1 {
            work();
            times += 1;
        }
        best = best.max((times * values) as f64 / start.elapsed().as_secs_f64());
    }
    println!("{name:<45} {best:>14.0} values/s");
}
