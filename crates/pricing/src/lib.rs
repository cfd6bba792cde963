//! Values of the standard financial products: closed forms, finite differences, Monte Carlo.
//!
//! Pure computation: no input or output, no clock, no hidden randomness. The same inputs give the same bits on every machine and in
//! every grouping, because the functions of [`math`] use nothing but IEEE arithmetic; a computation that is repeated elsewhere can be
//! compared byte by byte. What makes no sense is an error that names the field, never a NaN.
//!
//! Rates are continuously compounded, per year; volatilities per square root of a year; times in years; values in the currency of the
//! strike.
//!
//! | product | where | source |
//! | --- | --- | --- |
//! | European | [`european`] | Black and Scholes 1973, Merton 1973, Black 1976 |
//! | American | [`american`] | Crank and Nicolson, Brennan and Schwartz 1977; Barone-Adesi and Whaley 1987; Bjerksund and Stensland 1993; Ju and Zhong 1999 |
//! | American, Bermudan by simulation | [`longstaff_schwartz`] | Longstaff and Schwartz 2001 |
//! | barrier | [`barrier`], with early exercise [`barrier_american`] | Merton 1973, Reiner and Rubinstein 1991 |
//! | digital, one-touch | [`digital`] | Reiner and Rubinstein 1991 |
//! | Heston | [`heston`] | Heston 1993, Lewis 2000, Albrecher et al. 2007, Andersen and Piterbarg 2007 |
//! | swap | [`swap`] | ISDA 2006 for dates |
//! | portfolio | [`portfolio`] | trades by rows, historical scenarios, value at risk and expected shortfall |
//! | lookback | [`lookback`] | Goldman, Sosin and Gatto 1979, Conze and Viswanathan 1991, Heynen and Kat 1994 |
//!
//! Formulas are in the notation of E. G. Haug, *The Complete Guide to Option Pricing Formulas*, second edition, 2007.
//!
//! ```
//! use tidemill_pricing::{Side, Terms, european};
//!
//! // Haug 2007, section 1.1.1: spot 60, strike 65, three months, rate 8 %, no yield, volatility 30 %.
//! let call = Terms::with_yield(Side::Call, 60.0, 65.0, (0.08, 0.0), 0.30, 0.25);
//! assert!((european::value(&call)? - 2.1334).abs() < 1e-4);
//! # Ok::<(), tidemill_base::Error>(())
//! ```

pub mod american;
pub mod barrier;
pub mod barrier_american;
pub mod curve;
pub mod dates;
pub mod digital;
pub mod european;
pub mod heston;
pub mod longstaff_schwartz;
pub mod lookback;
pub mod math;
pub mod portfolio;
pub mod swap;
mod terms;

pub use terms::{Side, Terms};
