//! The bundled engine of the grid, `pricing`: what `tidemill-pricing` can value, as functions that take JSON.
//!
//! Why it is there: the grid is of use before anybody has written an engine. Why it is a crate of its own: the library knows nothing of
//! engines, and only the program that is started as one needs both.
//!
//! A product is a function on its parameters, and answers with its value as a number:
//!
//! | function | beside the terms | answer |
//! | --- | --- | --- |
//! | `european` | | value |
//! | `greeks` | | `delta`, `gamma`, `vega` of the European |
//! | `american` | `method`: `finite_differences`, `barone_adesi_whaley`, `ju_zhong`, `bjerksund_stensland`; `space_steps`, `time_steps` | value |
//! | `longstaff_schwartz` | `paths`, `dates`, `seed` | `value`, `standard_error` |
//! | `barrier` | `kind`: `down_in`, `up_in`, `down_out`, `up_out`; `barrier`, `rebate`; `exercise`: `european`, `american` | value |
//! | `digital` | `pays`: `cash`, `asset`, `gap`; `amount` | value |
//! | `touch` | `when`: `at_hit`, `at_expiry`, `never`; `cash`, or the asset itself; the strike is the level | value |
//! | `lookback` | `kind`: `floating`, `fixed`; `extreme`; `watched`, `factor`, `from` | value |
//! | `heston` | `variance`, `kappa`, `theta`, `sigma`, `rho` in the place of `volatility` | value |
//! | `fx_forward` | `spot`, `strike`, `rate`, `foreign_rate`, `years` alone | value |
//!
//! The terms are `type` (`call` or `put`), `spot`, `strike`, `rate`, `dividend` (0 if not given) or `carry`, `volatility`, `years`, in the
//! units of [`tidemill_pricing`].
//!
//! ```json
//! {"type": "call", "spot": 60, "strike": 65, "rate": 0.08, "volatility": 0.3, "years": 0.25}
//! ```
//!
//! `value` revalues a portfolio. The session's set-up data is `{"static": ..., "market_history": "...", "trades": "..."}` with the texts of
//! the three files that [`tidemill_pricing::portfolio`] reads; it is kept warm. A task names a block, `{"trades": [0, 10], "scenarios": [0, 501]}`,
//! each from and up to but without; what is left out is all. In a session with output `json` the answer is `trades`, `scenarios`, `values` (a
//! row for each trade, `null` for one that cannot be valued) and `failures` with their reasons; with `"rows": true` in the task it is an object with
//! `trade`, `desk`, `book`, `scenario` and `value` for each value, which SQL adds up, and a trade that cannot be valued fails the task. With output
//! `bytes` it is the values alone, as 64-bit little-endian numbers by trade and then by scenario, NaN where there is none.

mod block;
mod fields;
mod products;

use tidemill_base::{Error, Result};
use tidemill_engine::kit::{Call, Kit, Opening};
use tidemill_engine::{Format, TaskError};

/// The name under which workers know the engine.
pub const NAME: &str = "pricing";

/// Serves the host on the standard streams until it has nothing more. Call it first of all in `main`: it takes the streams away.
pub fn serve() -> Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    let mut kit = Kit::new("tidemill-pricing", version).function("value", block::open);
    for (name, function) in products::FUNCTIONS {
        kit = kit.function(name, move |opening: &Opening<'_>| {
            takes_json(opening)?;
            if opening.session.output != Format::Json {
                return Err(TaskError::new("invalid", format!("`{name}` answers in JSON; open the session with the output `json`")));
            }
            Ok(move |call: Call<'_>| products::run(name, *function, call.payload).map(String::into_bytes).map_err(|e| refused(&e)))
        });
    }
    kit.serve()
}

fn takes_json(opening: &Opening<'_>) -> Result<(), TaskError> {
    if opening.session.input == Format::Json {
        return Ok(());
    }
    Err(TaskError::new("invalid", "this engine takes its tasks in JSON; open the session with the input `json`"))
}

fn refused(error: &Error) -> TaskError {
    TaskError::new("invalid", error.chain())
}
