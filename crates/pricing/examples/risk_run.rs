//! The example in `examples/risk`: 1,000 trades under 501 scenarios, and what the firm can lose.
//! Run with `cargo run --release -p tidemill-pricing --example risk_run`, with a folder as argument for other data.

#![allow(clippy::disallowed_methods, reason = "a program that measures needs the clock; the library has none")]

use std::path::PathBuf;
use std::time::Instant;

use tidemill_base::Result;
use tidemill_pricing::portfolio::{Market, Portfolio, risk};

fn main() -> Result<()> {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/risk");
    let folder = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| shipped.to_owned()));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).map_err(|e| tidemill_base::Error::from(e).context(name));
    let start = Instant::now();
    let market = Market::read(&read("static.json")?, &read("market_history.csv")?)?;
    let portfolio = Portfolio::read(&read("trades.csv")?, market.into())?;
    let ready = start.elapsed();
    let values = portfolio.value(0..portfolio.trades().len(), 0..portfolio.market().scenarios())?;
    let valued = start.elapsed();
    for failure in values.failures() {
        println!("{}", failure.error());
    }
    for node in risk::by_node(&portfolio, &values)? {
        match node.measures {
            Ok(m) => println!("{:<14} {:>14.2} {:>14.2}", node.name, m.value_at_risk, m.expected_shortfall),
            Err(e) => println!("{:<14} {e}", node.name),
        }
    }
    println!("read in {ready:.1?}, valued in {:.1?}, all in {:.1?}, on one core", valued - ready, start.elapsed());
    Ok(())
}
