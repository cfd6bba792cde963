//! Blocks of a portfolio that is kept warm.

use std::fmt::Write as _;
use std::ops::Range;

use serde::Deserialize;
use serde_json::{Value, json};
use tidemill_base::{Error, Result};
use tidemill_engine::kit::{Call, Handler, Opening};
use tidemill_engine::{Format, TaskError};
use tidemill_pricing::portfolio::{Market, Portfolio, Values};

use crate::{refused, takes_json};

/// The session's set-up data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Data {
    /// Conventions and constants, as text or as they are.
    #[serde(rename = "static")]
    conventions: Value,
    /// Market factors by day, CSV.
    market_history: String,
    /// Trades, CSV.
    trades: String,
}

/// A task: from and up to but without; all if left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Block {
    trades: Option<[usize; 2]>,
    scenarios: Option<[usize; 2]>,
    /// Whether the answer is a row for each value.
    rows: bool,
}

/// Opens `value`.
pub(crate) fn open(opening: &Opening<'_>) -> Result<impl Handler + use<>, TaskError> {
    takes_json(opening)?;
    let write: fn(&Portfolio, &Values, bool) -> Result<Vec<u8>> = match opening.session.output {
        Format::Json => |portfolio, values, rows| if rows { as_rows(portfolio, values) } else { Ok(as_json(values)) },
        Format::Raw => |_, values, _| Ok(as_bytes(values)),
        _ => {
            return Err(TaskError::new(
                "invalid",
                "`value` answers in JSON or in bytes; open the session with the output `json` or `bytes`",
            ));
        }
    };
    let portfolio = read(opening.data()).map_err(|e| refused(&e))?;
    Ok(move |call: Call<'_>| {
        let answer = value(&portfolio, call.payload).and_then(|(values, rows)| write(&portfolio, &values, rows));
        answer.map_err(|e| refused(&e))
    })
}

fn read(data: &[u8]) -> Result<Portfolio> {
    if data.is_empty() {
        let what = r#"{"static": ..., "market_history": "...", "trades": "..."}"#;
        return Err(Error::invalid(format!("`value` needs a portfolio; give the session the set-up data {what}")));
    }
    let data: Data = serde_json::from_slice(data).map_err(|e| Error::invalid(format!("the set-up data does not read: {e}")))?;
    let conventions = match data.conventions {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let market = Market::read(&conventions, &data.market_history)?;
    Portfolio::read(&data.trades, market.into())
}

fn value(portfolio: &Portfolio, payload: &[u8]) -> Result<(Values, bool)> {
    let block: Block = serde_json::from_slice(payload).map_err(|e| {
        Error::invalid(format!("the task does not read: {e}; write it as {{\"trades\": [0, 10], \"scenarios\": [0, 501]}}"))
    })?;
    let range = |given: Option<[usize; 2]>, all: usize| -> Range<usize> { given.map_or(0..all, |[from, to]| from..to) };
    let (trades, scenarios) = (portfolio.trades().len(), portfolio.market().scenarios());
    let values = portfolio.value(range(block.trades, trades), range(block.scenarios, scenarios))?;
    Ok((values, block.rows))
}

fn as_bytes(values: &Values) -> Vec<u8> {
    values.as_slice().iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn as_json(values: &Values) -> Vec<u8> {
    let failures: Vec<Value> = values.failures().iter().map(|f| json!({"trade": f.trade, "id": f.id, "reason": f.reason})).collect();
    let (t, s) = (values.trades(), values.scenarios());
    let head = format!(
        r#"{{"trades":[{},{}],"scenarios":[{},{}],"failures":{},"values":["#,
        t.start,
        t.end,
        s.start,
        s.end,
        Value::from(failures)
    );
    let mut out = head;
    for (i, trade) in t.clone().enumerate() {
        out.push_str(if i > 0 { "," } else { "" });
        match values.of(trade) {
            Ok(row) => {
                for (j, v) in row.iter().enumerate() {
                    // Rust writes as few digits as bring the same number back; none of these is infinite.
                    write!(out, "{}{v:?}", if j > 0 { ',' } else { '[' }).unwrap_or_default();
                }
                out.push_str(if row.is_empty() { "[]" } else { "]" });
            }
            Err(_) => out.push_str("null"),
        }
    }
    out.push_str("]}");
    out.into_bytes()
}

/// One object for each value: what SQL adds up. A trade that cannot be valued must not vanish from a sum, so that it fails the task.
fn as_rows(portfolio: &Portfolio, values: &Values) -> Result<Vec<u8>> {
    let mut out = String::from("[");
    for trade in values.trades().clone() {
        let of = &portfolio.trades()[trade];
        let head = json!({"trade": of.id, "desk": of.desk, "book": of.book}).to_string();
        let head = head.trim_end_matches('}');
        for (scenario, v) in values.scenarios().clone().zip(values.of(trade)?) {
            out.push_str(if out.len() > 1 { "," } else { "" });
            write!(out, r#"{head},"scenario":{scenario},"value":{v:?}}}"#).unwrap_or_default();
        }
    }
    out.push(']');
    Ok(out.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATIC: &str = r#"{ "asof": "2018-12-28", "calendars": { "NYSE": ["2018-12-25", "2019-01-01"] }, "option_calendar": "NYSE",
        "spot": { "SPX": "SPX" }, "vol": { "SPX": "VIX/100" }, "div_yield": { "SPX": 0.02 }, "discount": { "SPX": "USD" } }"#;
    const HISTORY: &str =
        "date,SPX,VIX,USD_DF_1Y\n2018-12-26,2467.70,30.41,0.9725\n2018-12-27,2488.83,29.96,0.9726\n2018-12-28,2485.74,28.34,0.9725\n";
    const TRADES: &str = "trade_id,desk,book,type,underlying,cp,k_pct,tenor,qty,barrier_pct\n\
        T1,EQ,E1,european,SPX,P,0.95,6M,100,\nT2,EQ,E1,european,SPX,P,none,6M,1,\nT3,EQ,E1,european,SPX,C,1.0,3M,-1,\n";

    fn portfolio(conventions: Value) -> Portfolio {
        read(json!({"static": conventions, "market_history": HISTORY, "trades": TRADES}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_block_in_json_and_in_bytes_is_the_same() {
        let p = portfolio(json!(STATIC));
        let (whole, _) = value(&p, b"{}").unwrap();
        let json: Value = serde_json::from_slice(&as_json(&whole)).unwrap();
        assert_eq!((&json["trades"], &json["scenarios"]), (&json!([0, 3]), &json!([0, 3])));
        assert_eq!((&json["values"][1], &json["failures"][0]["id"]), (&Value::Null, &json!("T2")));
        assert!(json["failures"][0]["reason"].as_str().unwrap().contains("`k_pct`"));
        let bytes = as_bytes(&whole);
        let number = |i: usize| f64::from_le_bytes(bytes[8 * i..8 * i + 8].try_into().unwrap());
        assert_eq!((number(2), number(6)), (json["values"][0][2].as_f64().unwrap(), json["values"][2][0].as_f64().unwrap()));
        assert!(number(3).is_nan() && bytes.len() == 72);
        let p = portfolio(serde_json::from_str(STATIC).unwrap());
        let (part, rows) = value(&p, br#"{"trades": [2, 3], "scenarios": [1, 2], "rows": true}"#).unwrap();
        let row: Value = serde_json::from_slice(&as_rows(&p, &part).unwrap()).unwrap();
        assert_eq!((rows, row), (true, json!([{"trade": "T3", "desk": "EQ", "book": "E1", "scenario": 1, "value": number(7)}])));
        assert!(as_rows(&p, &whole).unwrap_err().to_string().contains("`k_pct`"));
        assert_eq!(part.as_slice(), [number(7)]);
        assert_eq!(
            as_json(&value(&p, br#"{"trades": [0, 1], "scenarios": [1, 1]}"#).unwrap().0),
            br#"{"trades":[0,1],"scenarios":[1,1],"failures":[],"values":[[]]}"#
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_what_would_do() {
        for (data, want) in
            [("", "needs a portfolio"), ("{}", "missing field `static`"), (r#"{"static": {}, "market": 1}"#, "unknown field `market`")]
        {
            let error = read(data.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
        let p = portfolio(json!(STATIC));
        for (payload, want) in
            [("7", "write it as"), (r#"{"trade": [0, 1]}"#, "unknown field `trade`"), (r#"{"trades": [0, 9]}"#, "there are 3")]
        {
            let error = value(&p, payload.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}
