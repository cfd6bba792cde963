//! The values printed in the books and papers, row by row. `oracle/README.md` names the sources and what the columns mean.

#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers included")]

use std::fmt::Write as _;

use tidemill_base::Result;
use tidemill_pricing::american::finite_differences::{self, Exercise, Grid};
use tidemill_pricing::american::{approximations, bjerksund_stensland};
use tidemill_pricing::{Side, Terms, barrier, barrier_american, digital, european, longstaff_schwartz, lookback};

/// The lines of a file below its heading, with the number each has in the file.
fn rows(text: &str) -> Vec<(usize, Vec<&str>)> {
    text.lines().enumerate().skip(1).map(|(i, line)| (i + 1, line.split(',').collect())).collect()
}

fn float(text: &str) -> f64 {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn side(text: &str) -> Side {
    match text {
        "Call" => Side::Call,
        "Put" => Side::Put,
        other => panic!("neither Call nor Put: {other}"),
    }
}

/// Columns `type, strike, s, q, r, t, v`.
fn terms(row: &[&str]) -> Terms {
    let n = |i: usize| float(row[i]);
    Terms::with_yield(side(row[0]), n(2), n(1), (n(4), n(3)), n(6), n(5))
}

/// One unit of the last digit that is printed: some of the values were cut and not rounded, and some come from a normal distribution
/// with six good digits, which was usual then.
fn printed(text: &str) -> f64 {
    let digits = text.split_once('.').map_or(0, |(_, decimals)| decimals.len());
    1.000_001 * 10_f64.powi(-i32::try_from(digits).unwrap())
}

/// What differs, all of it and not the first row only.
#[derive(Default)]
struct Report {
    rows: usize,
    differing: String,
}

impl Report {
    fn row(&mut self, line: usize, got: Result<f64>, right: f64, tolerance: f64) {
        self.rows += 1;
        match got {
            Ok(got) if (got - right).abs() <= tolerance => {}
            Ok(got) => writeln!(self.differing, "line {line}: {got} and not {right}, off by {:.1e}", got - right).unwrap(),
            Err(e) => writeln!(self.differing, "line {line}: {e}").unwrap(),
        }
    }

    #[track_caller]
    fn finish(self, rows: usize) {
        assert!(self.differing.is_empty(), "\n{}", self.differing);
        assert_eq!(self.rows, rows, "rows that were checked");
    }
}

#[test]
fn european_values_of_haug() {
    let mut report = Report::default();
    for (line, row) in rows(include_str!("oracle/european_haug.csv")) {
        report.row(line, european::value(&terms(&row)), float(row[7]), printed(row[7]));
    }
    report.finish(43);
}

/// The printed values lie up to 0.0028 above the solution of the paper's own equation, which is what is computed here, to all digits:
/// 21 of 37 rows agree to the last digit printed. (The true value of line 4, the worst one, is 10.0105; printed is 10.0089, and the
/// equation gives 10.0061.)
#[test]
fn american_values_of_barone_adesi_and_whaley() {
    let mut report = Report::default();
    let mut to_the_last_digit = 0;
    for (line, row) in rows(include_str!("oracle/american_baw_haug.csv")) {
        let got = approximations::barone_adesi_whaley(&terms(&row));
        to_the_last_digit += usize::from(got.as_ref().is_ok_and(|v| (v - float(row[7])).abs() <= printed(row[7])));
        report.row(line, got, float(row[7]), 3e-3);
    }
    report.finish(37);
    assert_eq!(to_the_last_digit, 21);
}

/// Lines 2 and 3 are from Haug's book. Lines 4 to 9 were made with other programs, some with other approximations, to try what tiny
/// and huge volatilities do, and hold to 5e-5. Lines 10 and 11 are from the table of Ju and Zhong.
#[test]
fn american_values_of_bjerksund_and_stensland() {
    let mut report = Report::default();
    for (line, row) in rows(include_str!("oracle/american_bjerksund_haug.csv")) {
        match line {
            2 | 3 => report.row(line, bjerksund_stensland::value_1993(&terms(&row)), float(row[7]), printed(row[7])),
            4..=9 => report.row(line, bjerksund_stensland::value_1993(&terms(&row)), float(row[7]), 5e-5),
            _ => report.row(line, approximations::ju_zhong(&terms(&row)), float(row[7]), printed(row[7])),
        }
    }
    report.finish(10);
}

#[test]
fn american_values_of_ju_and_zhong() {
    let mut report = Report::default();
    for (line, row) in rows(include_str!("oracle/american_ju.csv")) {
        report.row(line, approximations::ju_zhong(&terms(&row)), float(row[7]), printed(row[7]));
    }
    report.finish(46);
}

fn kind(text: &str) -> barrier::Kind {
    match text {
        "DownIn" => barrier::Kind::DownIn,
        "UpIn" => barrier::Kind::UpIn,
        "DownOut" => barrier::Kind::DownOut,
        "UpOut" => barrier::Kind::UpOut,
        other => panic!("no type of barrier: {other}"),
    }
}

#[test]
fn european_barrier_values_of_haug() {
    let mut report = Report::default();
    for (line, row) in rows(include_str!("oracle/barrier_haug.csv")) {
        if row[4] == "european" {
            let n = |i: usize| float(row[i]);
            let terms = Terms::with_yield(side(row[3]), n(6), n(5), (n(8), n(7)), n(10), n(9));
            report.row(line, barrier::value(kind(row[0]), &terms, n(1), n(2)), n(11), printed(row[11]));
        }
    }
    report.finish(72);
}

/// The file has no column for the kind; its rows come in this order.
fn digital_of(row: usize, terms: &Terms, touched: bool) -> Result<f64> {
    use digital::{Payment::*, Touch::*};
    let at_expiry = if touched { AtExpiry } else { Never };
    match row {
        0 => digital::cash_or_nothing(terms, 10.0),
        1 => digital::asset_or_nothing(terms),
        2 => digital::gap(terms, 57.0),
        3..=10 => digital::touch(terms, AtHit, Cash(15.0)),
        11..=18 => digital::touch(terms, AtHit, Asset),
        19..=25 => digital::touch(terms, at_expiry, Cash(15.0)),
        26..=35 => digital::touch(terms, at_expiry, Asset),
        other => panic!("row {other} is not known"),
    }
}

#[test]
fn digital_values_of_haug() {
    let mut report = Report::default();
    for (i, (line, row)) in rows(include_str!("oracle/digital_haug.csv")).into_iter().enumerate() {
        // Some values are printed as a product with a discount factor.
        let (right, tolerance) = match row[7].split_once("*std::exp(") {
            Some((amount, rest)) => (float(amount) * float(rest.trim_end_matches(')')).exp(), 1e-12),
            None => (float(row[7]), printed(row[7]).min(float(row[8]).max(1e-14))),
        };
        report.row(line, digital_of(i, &terms(&row), row[9] == "true"), right, tolerance);
    }
    report.finish(36);
}

/// Columns: type, strike (0 where it floats), extreme so far, s, q, r, t, v, factor, watched time (0: the whole life), value, tolerance.
fn lookback_of(row: &[&str]) -> Result<f64> {
    let n = |i: usize| float(row[i]);
    let (strike, extreme, factor, time) = (n(1), n(2), n(8), n(9));
    let with = |strike: f64| Terms::with_yield(side(row[0]), n(3), strike, (n(5), n(4)), n(7), n(6));
    match (strike == 0.0, time == 0.0) {
        (true, true) => lookback::floating_strike(&with(extreme)),
        (false, true) => lookback::fixed_strike(&with(strike), extreme),
        (true, false) => lookback::partial_floating_strike(&with(extreme), time, factor),
        (false, false) => lookback::partial_fixed_strike(&with(strike), time),
    }
}

#[test]
fn lookback_values_of_haug() {
    let mut report = Report::default();
    for (line, row) in rows(include_str!("oracle/lookback_fixed_float.csv")) {
        report.row(line, lookback_of(&row), float(row[10]), printed(row[10]));
    }
    report.finish(115);
}

/// Table 1 of Longstaff and Schwartz: puts that can be exercised 50 times a year, strike 40, rate 6 %, by their finite differences.
/// With two years and volatility 40 % theirs are off by up to 0.0052 (for spot 44 two other grids give 5.641 and 5.642 where 5.647 is
/// printed); elsewhere by 0.0013 at most.
#[test]
fn bermudan_values_of_longstaff_and_schwartz() {
    let mut report = Report::default();
    for (line, row) in rows(include_str!("oracle/longstaff_schwartz_2001_table1_fd.csv")) {
        let n = |i: usize| float(row[i]);
        let terms = Terms::with_yield(Side::Put, n(0), 40.0, (0.06, 0.0), n(1), n(2));
        let steps = 50 * row[2].parse::<usize>().unwrap();
        let grid = Grid::new(1_000, 8 * steps).unwrap();
        let tolerance = if (n(1), n(2)) == (0.4, 2.0) { 5.3e-3 } else { 1.3e-3 };
        report.row(line, finite_differences::value(&terms, Exercise::Bermudan(8), &grid), n(3), tolerance);
    }
    report.finish(20);
}

/// The same by simulation, within 0.025. In the last line the strategy itself loses 0.02: the paper has 5.622 there by simulation too.
#[test]
fn bermudan_values_of_longstaff_and_schwartz_by_simulation() {
    let mut report = Report::default();
    for (line, row) in rows(include_str!("oracle/longstaff_schwartz_2001_table1_fd.csv")) {
        let n = |i: usize| float(row[i]);
        let terms = Terms::with_yield(Side::Put, n(0), 40.0, (0.06, 0.0), n(1), n(2));
        let dates = 50 * row[2].parse::<usize>().unwrap();
        let simulation = longstaff_schwartz::Simulation { paths: 32_768, dates, seed: 1 };
        report.row(line, longstaff_schwartz::value(&terms, &simulation).map(|e| e.value), n(3), 0.025);
    }
    report.finish(20);
}

/// The printed values come from a binomial tree and are off by up to 0.004, some knock-ins below the European option.
///
/// Where an option in the money would be lost at the barrier for nothing, its holder exercises just before. A tree cannot, the nodes lie
/// too far apart, and gives too little, by 0.5 in the worst line; with more steps it comes up slowly (line 81: 3.393 with 400 steps, 3.576
/// with 1,000, 3.683 with 2,000). Those lines must lie above the print, and not move when the grid gets finer.
#[test]
fn american_barrier_values_of_haug() {
    let mut report = Report::default();
    for (line, row) in rows(include_str!("oracle/barrier_haug.csv")) {
        if row[4] == "american" {
            let n = |i: usize| float(row[i]);
            let terms = Terms::with_yield(side(row[3]), n(6), n(5), (n(8), n(7)), n(10), n(9));
            let at = |grid| barrier_american::value(kind(row[0]), &terms, n(1), n(2), grid);
            if matches!(line, 74 | 80 | 81 | 84 | 85) {
                let (coarse, fine) = (at((400, 200)).unwrap(), at((800, 400)));
                let above = fine.as_ref().is_ok_and(|fine| (0.05..0.55).contains(&(fine - n(11))));
                assert!(above, "line {line}: {fine:?}");
                report.row(line, fine, coarse, 2e-3);
            } else {
                report.row(line, at((800, 400)), n(11), 4e-3);
            }
        }
    }
    report.finish(24);
}
