//! One function for each product, from plain parameters to a value.

use serde_json::{Value, json};
use tidemill_base::{Error, Result};
use tidemill_pricing::american::finite_differences::{self, Exercise, Grid};
use tidemill_pricing::american::{approximations, bjerksund_stensland};
use tidemill_pricing::digital::{Payment, Touch};
use tidemill_pricing::{Side, Terms, barrier, barrier_american, digital, european, heston, longstaff_schwartz, lookback, math};

use crate::fields::Fields;

/// From the fields of a task to its answer.
pub(crate) type Function = fn(&Fields) -> Result<Value>;

/// The functions by their names.
pub(crate) const FUNCTIONS: &[(&str, Function)] = &[
    ("european", |f| number(european::value(&terms(f)?))),
    ("greeks", greeks),
    ("american", american),
    ("longstaff_schwartz", simulated),
    ("barrier", barrier),
    ("digital", digital),
    ("touch", touch),
    ("lookback", lookback),
    ("heston", heston),
    ("fx_forward", fx_forward),
];

/// Steps of price and time of a finite-difference grid when none are given.
const STEPS: u32 = 100;
/// Paths of a simulation when none are given.
const PATHS: u32 = 1 << 14;
/// Dates of exercise of a simulation when none are given.
const DATES: u32 = 50;

/// Runs one on a payload; the answer as JSON.
pub(crate) fn run(name: &str, function: Function, payload: &[u8]) -> Result<String> {
    let fields = Fields::read(payload)?;
    let answer = function(&fields).and_then(|answer| fields.end().map(|()| answer));
    answer.map(|value| value.to_string()).map_err(|e| e.context(name))
}

fn number(value: Result<f64>) -> Result<Value> {
    value.map(Value::from)
}

fn side(f: &Fields) -> Result<Side> {
    f.word("type", &[("call", Side::Call), ("put", Side::Put)], true)
}

/// Cost of carry: given, or the rate less the dividend.
fn carry(f: &Fields, rate: f64) -> Result<f64> {
    match (f.has("carry"), f.has("dividend")) {
        (true, true) => Err(Error::invalid("`carry` and `dividend` exclude each other; the carry is the rate less the dividend")),
        (true, false) => f.number("carry"),
        (false, _) => Ok(rate - f.number_or("dividend", 0.0)?),
    }
}

fn terms(f: &Fields) -> Result<Terms> {
    terms_with_strike(f, f.number("strike")?)
}

fn terms_with_strike(f: &Fields, strike: f64) -> Result<Terms> {
    let rate = f.number("rate")?;
    Ok(Terms {
        side: side(f)?,
        spot: f.number("spot")?,
        strike,
        rate,
        carry: carry(f, rate)?,
        volatility: f.number("volatility")?,
        years: f.number("years")?,
    })
}

fn greeks(f: &Fields) -> Result<Value> {
    let greeks = european::greeks(&terms(f)?)?;
    Ok(json!({"delta": greeks.delta, "gamma": greeks.gamma, "vega": greeks.vega}))
}

fn steps(f: &Fields) -> Result<(usize, usize)> {
    Ok((f.count_or("space_steps", STEPS)? as usize, f.count_or("time_steps", STEPS)? as usize))
}

fn american(f: &Fields) -> Result<Value> {
    type Method = fn(&Fields, &Terms) -> Result<f64>;
    let grid: Method = |f, terms| {
        let (space, time) = steps(f)?;
        finite_differences::value(terms, Exercise::American, &Grid::new(space, time)?)
    };
    let methods: [(&str, Method); 4] = [
        ("finite_differences", grid),
        ("barone_adesi_whaley", |_, terms| approximations::barone_adesi_whaley(terms)),
        ("ju_zhong", |_, terms| approximations::ju_zhong(terms)),
        ("bjerksund_stensland", |_, terms| bjerksund_stensland::value_1993(terms)),
    ];
    number(f.word("method", &methods, false)?(f, &terms(f)?))
}

fn simulated(f: &Fields) -> Result<Value> {
    let simulation = longstaff_schwartz::Simulation {
        paths: f.count_or("paths", PATHS)? as usize,
        dates: f.count_or("dates", DATES)? as usize,
        seed: f.count_or("seed", 0)?,
    };
    let estimate = longstaff_schwartz::value(&terms(f)?, &simulation)?;
    Ok(json!({"value": estimate.value, "standard_error": estimate.standard_error}))
}

fn barrier(f: &Fields) -> Result<Value> {
    use barrier::Kind;
    let kinds = [("down_in", Kind::DownIn), ("up_in", Kind::UpIn), ("down_out", Kind::DownOut), ("up_out", Kind::UpOut)];
    let kind = f.word("kind", &kinds, true)?;
    let (level, rebate) = (f.number("barrier")?, f.number_or("rebate", 0.0)?);
    if f.word("exercise", &[("european", true), ("american", false)], false)? {
        return number(barrier::value(kind, &terms(f)?, level, rebate));
    }
    number(barrier_american::value(kind, &terms(f)?, level, rebate, steps(f)?))
}

fn digital(f: &Fields) -> Result<Value> {
    #[derive(Clone, Copy)]
    enum Pays {
        Cash,
        Asset,
        Gap,
    }
    let terms = terms(f)?;
    number(match f.word("pays", &[("cash", Pays::Cash), ("asset", Pays::Asset), ("gap", Pays::Gap)], true)? {
        Pays::Cash => digital::cash_or_nothing(&terms, f.number("amount")?),
        Pays::Asset => digital::asset_or_nothing(&terms),
        Pays::Gap => digital::gap(&terms, f.number("amount")?),
    })
}

fn touch(f: &Fields) -> Result<Value> {
    let when = f.word("when", &[("at_hit", Touch::AtHit), ("at_expiry", Touch::AtExpiry), ("never", Touch::Never)], true)?;
    let payment = if f.has("cash") { Payment::Cash(f.number("cash")?) } else { Payment::Asset };
    number(digital::touch(&terms(f)?, when, payment))
}

fn lookback(f: &Fields) -> Result<Value> {
    if f.word("kind", &[("floating", true), ("fixed", false)], true)? {
        // The strike is the extreme that was reached so far.
        let terms = terms_with_strike(f, f.number_or("extreme", f.number("spot")?)?)?;
        return number(match (f.has("watched"), f.number_or("factor", 1.0)?) {
            (true, factor) => lookback::partial_floating_strike(&terms, f.number("watched")?, factor),
            (false, _) => lookback::floating_strike(&terms),
        });
    }
    let terms = terms(f)?;
    if f.has("from") {
        return number(lookback::partial_fixed_strike(&terms, f.number("from")?));
    }
    number(lookback::fixed_strike(&terms, f.number_or("extreme", terms.spot)?))
}

fn heston(f: &Fields) -> Result<Value> {
    let model = heston::Model { kappa: f.number("kappa")?, theta: f.number("theta")?, sigma: f.number("sigma")?, rho: f.number("rho")? };
    let (rate, years, strike) = (f.number("rate")?, f.number("years")?, f.number("strike")?);
    let forward = f.number("spot")? * math::exp(carry(f, rate)? * years);
    let slice = heston::Slice::new(&model, years)?;
    number(slice.value(side(f)?, forward, strike, math::exp(-rate * years), f.number("variance")?))
}

/// Value of one unit of foreign currency, bought for `strike` at the end, in the currency of the strike.
fn fx_forward(f: &Fields) -> Result<Value> {
    let (rate, foreign, years) = (f.number("rate")?, f.number("foreign_rate")?, f.number("years")?);
    let value = f.number("spot")? * math::exp(-foreign * years) - f.number("strike")? * math::exp(-rate * years);
    if years < 0.0 || !value.is_finite() {
        return Err(Error::invalid(format!(
            "the value is {value} for `years` {years}; give years from 0 on and rates that are no larger than a few"
        )));
    }
    Ok(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(name: &str, payload: Value) -> Result<Value> {
        let (_, function) = FUNCTIONS.iter().find(|(n, _)| *n == name).unwrap();
        run(name, *function, payload.to_string().as_bytes()).map(|text| serde_json::from_str(&text).unwrap())
    }

    fn with(extra: Value) -> Value {
        let mut all = json!({"type": "call", "spot": 100, "strike": 90, "rate": 0.08, "dividend": 0.04, "volatility": 0.25, "years": 0.5});
        all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        all
    }

    fn close(got: Result<Value>, want: f64, tolerance: f64) {
        let got = got.unwrap();
        assert!((got.as_f64().unwrap() - want).abs() <= tolerance, "{got} and not {want}");
    }

    /// Values printed by E. G. Haug, The Complete Guide to Option Pricing Formulas, 2007, in the order of its chapters.
    #[test]
    fn published_values() {
        let option = |side: &str, spot: f64, strike: f64, rate: f64, dividend: f64, volatility: f64, years: f64| json!({"type": side, "spot": spot, "strike": strike, "rate": rate, "dividend": dividend, "volatility": volatility, "years": years});
        close(call("european", option("call", 60.0, 65.0, 0.08, 0.0, 0.30, 0.25)), 2.1334, 1e-4);
        close(call("european", option("put", 100.0, 95.0, 0.10, 0.05, 0.20, 0.50)), 2.4648, 1e-4);
        close(call("barrier", with(json!({"kind": "down_out", "barrier": 95, "rebate": 3}))), 9.0246, 1e-4);
        close(call("barrier", with(json!({"kind": "down_in", "barrier": 95, "rebate": 3}))), 7.7627, 1e-4);
        let mut digital = option("put", 100.0, 80.0, 0.06, 0.06, 0.35, 0.75);
        digital.as_object_mut().unwrap().extend([("pays".to_owned(), json!("cash")), ("amount".to_owned(), json!(10))]);
        close(call("digital", digital), 2.6710, 1e-4);
    }

    #[test]
    fn methods_agree_with_each_other() {
        let grid = call("american", with(json!({"type": "put"}))).unwrap().as_f64().unwrap();
        let european = call("european", with(json!({"type": "put"}))).unwrap().as_f64().unwrap();
        for method in ["barone_adesi_whaley", "ju_zhong", "bjerksund_stensland"] {
            // Approximations of an early exercise that is worth something, but no more than 2 % here.
            let got = call("american", with(json!({"type": "put", "method": method}))).unwrap().as_f64().unwrap();
            assert!(
                got >= european && (got / grid - 1.0).abs() < 0.02,
                "{method}: {got}, and {grid} on the grid, {european} without exercise"
            );
        }
        let simulated = call("longstaff_schwartz", with(json!({"type": "put"}))).unwrap();
        close(Ok(simulated["value"].clone()), grid, 0.03);
        let flat = json!({"variance": 0.0625, "kappa": 2, "theta": 0.0625, "sigma": 1e-4, "rho": 0});
        let mut heston = with(flat);
        heston.as_object_mut().unwrap().remove("volatility");
        let european = call("european", with(json!({}))).unwrap().as_f64().unwrap();
        close(call("heston", heston), european, 1e-5);
        close(call("barrier", with(json!({"kind": "down_out", "barrier": 1, "exercise": "american"}))), european, 0.05);
        close(call("fx_forward", json!({"spot": 1.2, "strike": 1.1, "rate": 0, "foreign_rate": 0, "years": 2})), 0.1, 1e-12);
        let carried = json!({"type": "call", "spot": 100, "strike": 90, "rate": 0.08, "carry": 0.04, "volatility": 0.25, "years": 0.5});
        close(call("european", carried), european, 0.0);
        assert!(call("greeks", with(json!({}))).unwrap()["delta"].as_f64().unwrap() > 0.5);
        for (kind, more) in
            [("floating", json!({})), ("fixed", json!({})), ("floating", json!({"watched": 0.2})), ("fixed", json!({"from": 0.1}))]
        {
            let mut payload = with(more);
            payload["kind"] = json!(kind);
            if kind == "floating" {
                payload.as_object_mut().unwrap().remove("strike");
            }
            assert!(call("lookback", payload).unwrap().as_f64().unwrap() > 5.0);
        }
        for when in ["at_hit", "at_expiry", "never"] {
            let touched = call("touch", with(json!({"type": "put", "when": when, "cash": 10}))).unwrap();
            assert!((0.0..10.0).contains(&touched.as_f64().unwrap()), "{when}: {touched}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field() {
        let cases = [
            ("european", with(json!({"spot": "high"})), "`spot` is `\"high\"`; it must be a number"),
            ("european", with(json!({"spot": null})), "`spot` is missing"),
            ("european", with(json!({"spot": -1})), "`spot` is -1"),
            ("european", with(json!({"type": "straddle"})), "`type` is `\"straddle\"`; it must be one of call, put"),
            ("european", with(json!({"volatilty": 0.3})), "`volatilty` is not a field here; there are strike, rate, type"),
            ("european", with(json!({"carry": 0.1})), "`carry` and `dividend` exclude each other"),
            ("american", with(json!({"space_steps": 1.5})), "`space_steps` is `1.5`; it must be a whole number"),
            ("american", with(json!({"method": "binomial"})), "`method` is `\"binomial\"`; it must be one of finite_differences"),
            ("barrier", with(json!({"kind": "down_out"})), "`barrier` is missing"),
            ("longstaff_schwartz", with(json!({"paths": 5})), "`paths` is 5"),
            ("heston", with(json!({})), "`kappa` is missing"),
            ("european", json!([1]), "this one is `[1]`"),
        ];
        for (name, payload, want) in cases {
            let error = call(name, payload).unwrap_err();
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
