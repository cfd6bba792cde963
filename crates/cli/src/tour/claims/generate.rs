//! Makes a claims file, and knows what has to come out of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use tidemill_base::{Env, ManualClock, Result};

use super::COLUMNS;
use super::tables::{FEES, PLANS, money};

/// One record in so many is wrong.
const ONE_BAD_IN: u64 = 250;
const PROVIDERS: u64 = 120;
const NOTES: [&str; 6] = [
    "",
    "follow-up",
    "referred, see letter",
    "patient said \"much better\"",
    "two visits\nsecond on the same day",
    "by phone,\r\n\"no charge\" for the call",
];

/// What has to come out, added up while the records were made and not by reading them back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// Records, bad ones included.
    pub(crate) records: u64,
    /// Rejected records by reason.
    pub(crate) rejected: BTreeMap<String, u64>,
    /// What plans pay, cents.
    pub(crate) paid: i64,
    /// What patients pay, cents.
    pub(crate) patient: i64,
}

impl Expected {
    /// All rejected records.
    pub(crate) fn bad(&self) -> u64 {
        self.rejected.values().sum()
    }
}

struct Draw(Env);

impl Draw {
    fn below(&self, n: u64) -> u64 {
        self.0.random_below(n)
    }

    fn index(&self, len: usize) -> usize {
        usize::try_from(self.below(u64::try_from(len).unwrap_or(1))).unwrap_or(0)
    }
}

/// Writes `records` claims that follow from `seed`.
pub(crate) fn generate(out: impl Write, records: u64, seed: u64) -> Result<Expected> {
    let draw = Draw(Env::seeded(Arc::new(ManualClock::default()), seed));
    let mut csv = csv::WriterBuilder::new().flexible(true).from_writer(out);
    let mut expected = Expected { records, ..Expected::default() };
    csv.write_record(COLUMNS).map_err(super::price::csv_error)?;
    for number in 0..records {
        let bad = draw.below(ONE_BAD_IN) == 0;
        let fields = record(&draw, number, bad, &mut expected);
        csv.write_record(&fields).map_err(super::price::csv_error)?;
    }
    csv.flush()?;
    Ok(expected)
}

fn record(draw: &Draw, number: u64, bad: bool, expected: &mut Expected) -> Vec<String> {
    let (procedure, fee) = FEES[draw.index(FEES.len())];
    let (plan, percent) = PLANS[draw.index(PLANS.len())];
    let units = i64::try_from(1 + draw.below(4)).unwrap_or(1);
    // Providers ask for between half and one and a half of what is allowed.
    let charge = fee * units * i64::try_from(50 + draw.below(101)).unwrap_or(100) / 100;
    let date = format!("2025-{:02}-{:02}", 1 + draw.below(12), 1 + draw.below(28));
    let mut fields = vec![
        format!("C{number:08}"),
        format!("PR{:04}", draw.below(PROVIDERS)),
        date,
        procedure.to_owned(),
        units.to_string(),
        money(charge),
        plan.to_owned(),
        NOTES[draw.index(NOTES.len())].to_owned(),
    ];
    if bad {
        *expected.rejected.entry(spoil(draw, &mut fields).to_owned()).or_default() += 1;
    } else {
        let allowed = charge.min(fee * units);
        // Half a cent is paid by the plan.
        let paid = (allowed * percent + 50) / 100;
        expected.paid += paid;
        expected.patient += allowed - paid;
    }
    fields
}

/// Makes a record wrong, and returns the reason that it has to be rejected for.
fn spoil(draw: &Draw, fields: &mut Vec<String>) -> &'static str {
    match draw.below(6) {
        0 => {
            "2025-02-30".clone_into(&mut fields[2]);
            "service date is no date"
        }
        1 => {
            "P999".clone_into(&mut fields[3]);
            "procedure is not known"
        }
        2 => {
            "two".clone_into(&mut fields[4]);
            "units are no number from 1 to 100"
        }
        3 => {
            fields[5].insert(0, '-');
            "charge is no amount"
        }
        4 => {
            fields[1].clear();
            "provider is missing"
        }
        _ => {
            fields.truncate(5);
            "record does not have 8 fields"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_file_with_every_kind_of_trouble() {
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        let expected = generate(&mut a, 20_000, 7).unwrap();
        assert_eq!(generate(&mut b, 20_000, 7).unwrap(), expected);
        assert_eq!(a, b);
        assert_ne!(generate(&mut c, 20_000, 8).unwrap(), expected);
        assert_eq!(expected.rejected.len(), 6, "{:?}", expected.rejected);
        let text = String::from_utf8(a).unwrap();
        assert!(text.contains("\"two visits\nsecond"), "line breaks within quotes");
        assert!(text.contains("\"\"much better\"\""), "quotes within quotes");
    }
}
