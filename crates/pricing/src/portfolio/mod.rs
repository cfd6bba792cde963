//! A portfolio under many scenarios of the market: revaluation of everything in each, and what can be lost.
//!
//! [`Market`] holds the factors (spots, volatilities, discount factors) today and in every scenario; [`Portfolio`] holds the trades
//! with their schedules and tables ready. Both are read once and kept. [`Portfolio::value`] then gives the values of any block of
//! trades under any block of scenarios, always the same bits however the whole is cut. [`risk`] adds up and sorts.
//!
//! A trade that cannot be valued, because a field makes no sense or a formula gave no number, is a [`Failure`] with its name and the
//! reason, and so is every sum it belongs to. It never becomes a number.
//!
//! ```
//! use tidemill_pricing::portfolio::{Market, Portfolio, risk};
//!
//! let conventions = r#"{ "asof": "2018-12-28", "calendars": { "NYSE": ["2018-12-25", "2019-01-01"] },
//!     "option_calendar": "NYSE",
//!     "spot": { "SPX": "SPX" }, "vol": { "SPX": "VIX/100" }, "div_yield": { "SPX": 0.02 }, "discount": { "SPX": "USD" } }"#;
//! let history = "date,SPX,VIX,USD_DF_1Y\n2018-12-26,2467.70,30.41,0.9725\n2018-12-27,2488.83,29.96,0.9726\n2018-12-28,2485.74,28.34,0.9725\n";
//! let trades = "trade_id,desk,book,type,underlying,cp,k_pct,tenor,qty,barrier_pct\nT1,EQ,EQ-1,european,SPX,P,0.95,6M,100,\n";
//!
//! let market = Market::read(conventions, history)?;
//! let portfolio = Portfolio::read(trades, market.into())?;
//! let values = portfolio.value(0..1, 0..3)?;
//! assert_eq!(values.of(0)?.len(), 3); // Today and two scenarios.
//! let firm = risk::by_node(&portfolio, &values)?.pop().expect("the firm comes last");
//! assert!(firm.measures?.value_at_risk > 0.0);
//! # Ok::<(), tidemill_base::Error>(())
//! ```

mod conventions;
mod formula;
mod market;
mod product;
pub mod risk;
mod trades;
mod values;

pub use conventions::Conventions;
pub use market::Market;
pub use trades::{Portfolio, Trade};
pub use values::{Failure, Values};
