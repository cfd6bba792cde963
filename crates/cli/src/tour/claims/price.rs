//! Checks and prices one part of a claims file.

use std::fs::{self, File};
use std::path::Path;

use csv::{ReaderBuilder, StringRecord, Writer};
use tidemill_base::{Error, Result};

use super::COLUMNS;
use super::tables::{FEES, PLANS, lookup, money, parse_money};

/// A claim that is in order, and what it is worth, in cents.
#[derive(Debug, PartialEq, Eq)]
struct Priced {
    allowed: i64,
    paid: i64,
}

/// How many claims of a part were in order, and how many were not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) priced: u64,
    pub(crate) rejected: u64,
}

pub(super) fn csv_error(error: csv::Error) -> Error {
    match error.kind() {
        csv::ErrorKind::Io(_) => Error::unavailable("a CSV file cannot be read or written").with_source(error),
        _ => Error::invalid("this is not CSV").with_source(error),
    }
}

/// Prices the claims of `input` into `priced-PART.csv` and `rejects-PART.csv` in the folder `out`. A claim that is not in order is no
/// error: it is rejected with its reason. `Invalid` when the file is no claims file at all.
pub(crate) fn price_file(input: &Path, out: &Path, part: u64) -> Result<Counts> {
    let about = |path: &Path| {
        let shown = path.display().to_string();
        move |e: std::io::Error| Error::from(e).context(shown)
    };
    fs::create_dir_all(out).map_err(about(out))?;
    let (priced_path, rejects_path) = (out.join(format!("priced-{part:06}.csv")), out.join(format!("rejects-{part:06}.csv")));
    let reader = File::open(input).map_err(about(input))?;
    let mut claims = ReaderBuilder::new().flexible(true).from_reader(reader);
    let header = claims.headers().map_err(csv_error)?;
    if header != &StringRecord::from(COLUMNS.to_vec()) {
        return Err(Error::invalid(format!("{} does not begin with the columns {}", input.display(), COLUMNS.join(","))));
    }
    let mut priced = Writer::from_writer(File::create(&priced_path).map_err(about(&priced_path))?);
    let mut rejects = Writer::from_writer(File::create(&rejects_path).map_err(about(&rejects_path))?);
    priced.write_record(["claim_id", "provider", "allowed", "paid", "patient"]).map_err(csv_error)?;
    rejects.write_record(["claim_id", "part", "record", "reason"]).map_err(csv_error)?;
    let mut counts = Counts { priced: 0, rejected: 0 };
    let mut claim = StringRecord::new();
    while claims.read_record(&mut claim).map_err(csv_error)? {
        match price(&claim) {
            Ok(p) => {
                counts.priced += 1;
                priced
                    .write_record([&claim[0], &claim[1], &money(p.allowed), &money(p.paid), &money(p.allowed - p.paid)])
                    .map_err(csv_error)?;
            }
            Err(reason) => {
                counts.rejected += 1;
                let record = counts.priced + counts.rejected;
                rejects.write_record([claim.get(0).unwrap_or(""), &part.to_string(), &record.to_string(), reason]).map_err(csv_error)?;
            }
        }
    }
    priced.flush()?;
    rejects.flush()?;
    Ok(counts)
}

fn price(claim: &StringRecord) -> std::result::Result<Priced, &'static str> {
    if claim.len() != COLUMNS.len() {
        return Err("record does not have 8 fields");
    }
    if claim[1].is_empty() {
        return Err("provider is missing");
    }
    claim[2].parse::<jiff::civil::Date>().map_err(|_| "service date is no date")?;
    let fee = lookup(&FEES, &claim[3]).ok_or("procedure is not known")?;
    let units: i64 = claim[4].parse().ok().filter(|u| (1..=100).contains(u)).ok_or("units are no number from 1 to 100")?;
    let charge = parse_money(&claim[5]).ok_or("charge is no amount")?;
    let percent = lookup(&PLANS, &claim[6]).ok_or("plan is not known")?;
    let allowed = charge.min(fee * units);
    Ok(Priced { allowed, paid: (allowed * percent + 50) / 100 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(fields: [&str; 8]) -> StringRecord {
        StringRecord::from(fields.to_vec())
    }

    #[test]
    fn a_claim_is_worth_no_more_than_allowed_and_half_a_cent_goes_to_the_plan() {
        let good = ["C1", "PR1", "2025-03-01", "P100", "2", "100.00", "bronze", ""];
        assert_eq!(price(&claim(good)), Ok(Priced { allowed: 9_000, paid: 5_400 }));
        let cheap = ["C1", "PR1", "2025-03-01", "P100", "2", "0.05", "gold", ""];
        assert_eq!(price(&claim(cheap)), Ok(Priced { allowed: 5, paid: 4 }));
        let half = ["C1", "PR1", "2025-03-01", "P100", "1", "0.05", "silver", ""];
        assert_eq!(price(&claim(half)), Ok(Priced { allowed: 5, paid: 4 }));
    }

    #[test]
    fn each_kind_of_mistake_has_its_reason() {
        let good = ["C1", "PR1", "2025-03-01", "P100", "2", "100.00", "bronze", ""];
        for (field, value, reason) in [
            (1, "", "provider is missing"),
            (2, "2025-02-30", "service date is no date"),
            (3, "P999", "procedure is not known"),
            (4, "0", "units are no number from 1 to 100"),
            (5, "-1.00", "charge is no amount"),
            (6, "tin", "plan is not known"),
        ] {
            let mut bad = good;
            bad[field] = value;
            assert_eq!(price(&claim(bad)), Err(reason));
        }
        assert_eq!(price(&StringRecord::from(vec!["C1"])), Err("record does not have 8 fields"));
    }

    #[test]
    fn a_file_of_another_kind_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x.csv");
        fs::write(&file, "a,b\n1,2\n").unwrap();
        assert!(price_file(&file, &folder.path().join("out"), 0).unwrap_err().message().contains("claim_id,provider"));
    }
}
