//! The example in `examples/risk`: 1,000 trades under 501 scenarios, against values made with QuantLib 1.44.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::LazyLock;

use tidemill_pricing::portfolio::{Market, Portfolio, Values, risk};

macro_rules! file {
    ($name:literal) => {
        include_str!(concat!("../../../examples/risk/", $name))
    };
}

static PORTFOLIO: LazyLock<Portfolio> = LazyLock::new(|| {
    let market = Market::read(file!("static.json"), file!("market_history.csv")).unwrap();
    Portfolio::read(file!("trades.csv"), market.into()).unwrap()
});

static VALUES: LazyLock<Values> = LazyLock::new(|| PORTFOLIO.value(0..1_000, 0..501).unwrap());

fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().skip(1).map(|line| line.split(',').collect())
}

/// How far a value for one unit may be off, and what it is measured in: its size, one unit of notional, or the spot.
fn tolerance(kind: &str, underlying: &str, right: f64) -> f64 {
    let spot = || PORTFOLIO.market().spot(underlying).unwrap()[0];
    match kind {
        "european" | "barrier_down_out" | "fxfwd" => 1e-9 * right.abs().max(1.0),
        "swap" => 1e-12,
        "heston" => 1e-7 * right.abs().max(1.0),
        "american" => 1e-3 * spot(),
        other => panic!("no tolerance for {other}"),
    }
}

#[test]
fn every_trade_today_and_in_the_worst_scenario() {
    assert_eq!(VALUES.failures(), []);
    let mut differing = String::new();
    let mut worst: BTreeMap<&str, f64> = BTreeMap::new();
    for ((i, expected), trade) in rows(file!("expected_base_npv.csv")).enumerate().zip(rows(file!("trades.csv"))) {
        assert_eq!(expected[0], trade[0]);
        let quantity: f64 = trade[8].parse().unwrap();
        for (scenario, column) in [(0, 1), (473, 2)] {
            let right = expected[column].parse::<f64>().unwrap() / quantity;
            let got = VALUES.of(i).unwrap()[scenario] / quantity;
            let off = (got - right).abs() / tolerance(trade[3], trade[4], right);
            let entry = worst.entry(trade[3]).or_default();
            *entry = entry.max(off);
            if off > 1.0 {
                writeln!(differing, "{} {}: {got} and not {right} in scenario {scenario}", trade[0], trade[3]).unwrap();
            }
        }
    }
    println!("largest differences, in parts of the tolerance: {worst:?}");
    assert!(differing.is_empty(), "\n{differing}");
    assert_eq!(worst.len(), 6);
}

#[test]
fn every_book_every_desk_and_the_firm() {
    let nodes = risk::by_node(&PORTFOLIO, &VALUES).unwrap();
    let mut differing = String::new();
    for (row, node) in rows(file!("expected_nodes.csv")).zip(&nodes) {
        assert_eq!(row[0], node.name);
        let got = node.measures.as_ref().unwrap();
        // American options are worth a little less or more on another grid, which is 0.2 % in the node that holds nothing else.
        let tolerance = if row[0].contains("AMER") || ["EQ", risk::FIRM].contains(&row[0]) { 3e-3 } else { 1e-9 };
        for (name, got, right) in [("value at risk", got.value_at_risk, row[1]), ("expected shortfall", got.expected_shortfall, row[2])] {
            let right: f64 = right.parse().unwrap();
            println!("{} {name}: {got} {:.1e}", row[0], got / right - 1.0);
            if (got / right - 1.0).abs() > tolerance {
                writeln!(differing, "{} {name}: {got} and not {right}", row[0]).unwrap();
            }
        }
    }
    assert!(differing.is_empty(), "\n{differing}");
    assert_eq!(nodes.len(), 21);
}

#[test]
fn a_poisoned_trade_fails_its_book_its_desk_and_the_firm_and_no_other() {
    let poisoned = file!("trades.csv").replacen("T00002,EQ,EQ-VAN-2,european,SPX,P,1.159", "T00002,EQ,EQ-VAN-2,european,SPX,P,NaN", 1);
    let market = Market::read(file!("static.json"), file!("market_history.csv")).unwrap();
    let portfolio = Portfolio::read(&poisoned, market.into()).unwrap();
    let values = portfolio.value(0..1_000, 0..3).unwrap();
    assert_eq!(values.failures().len(), 1);
    let failed: Vec<_> = risk::by_node(&portfolio, &values).unwrap().into_iter().filter(|n| n.measures.is_err()).collect();
    assert_eq!(failed.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["EQ/EQ-VAN-2", "EQ", risk::FIRM]);
    for node in failed {
        assert_eq!(node.measures.unwrap_err().to_string(), "trade `T00002`: `k_pct` is `NaN`; it must be a finite number");
    }
}

#[test]
fn blocks_have_the_same_bits_as_the_whole() {
    for (trades, scenarios) in [(0..10, 470..480), (640..660, 3..4), (995..1_000, 0..501), (500..501, 250..251)] {
        let block = PORTFOLIO.value(trades.clone(), scenarios.clone()).unwrap();
        for trade in trades {
            let whole = &VALUES.of(trade).unwrap()[scenarios.clone()];
            assert!(block.of(trade).unwrap().iter().zip(whole).all(|(a, b)| a.to_bits() == b.to_bits()), "trade {trade}");
        }
    }
}

/// The bits of all 501,000 values, folded (FNV-1a). They are the same with and without optimisation and with every vector unit; who
/// changes a formula changes this number, and who did not mean to finds out here.
#[test]
fn the_bits_are_the_same_everywhere() {
    let folded = VALUES
        .as_slice()
        .iter()
        .flat_map(|v| v.to_bits().to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    assert_eq!(folded, 0xead9_c876_ddaf_5bfe, "{folded:#018x}");
}
