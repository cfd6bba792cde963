//! Puts the parts together: who is owed how much, and what was rejected and why.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use csv::{Reader, StringRecord, Writer};
use tidemill_base::{Error, Result};

use super::generate::Expected;
use super::price::csv_error;
use super::tables::{money, parse_money};

/// Sums for one provider, cents.
#[derive(Debug, Default, Clone, Copy)]
struct Sums {
    claims: u64,
    allowed: i64,
    paid: i64,
    patient: i64,
}

/// Reads the files that `list` names, one to a line, and writes `providers.csv`, `rejects.csv` and `totals.csv` into the folder `out`.
/// The totals are what the tour compares with what it knows.
pub(crate) fn summarise(list: &Path, out: &Path) -> Result<Expected> {
    let text = fs::read_to_string(list).map_err(|e| Error::from(e).context(list.display()))?;
    let (mut providers, mut totals) = (BTreeMap::<String, Sums>::new(), Expected::default());
    fs::create_dir_all(out).map_err(|e| Error::from(e).context(out.display()))?;
    let mut rejects = create(out, "rejects.csv", &["claim_id", "part", "record", "reason"])?;
    for file in text.lines().filter(|l| !l.is_empty()).map(PathBuf::from) {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.split_once('-').map(|(kind, _)| kind) {
            Some("priced") => add_priced(&file, &mut providers, &mut totals)?,
            Some("rejects") => add_rejects(&file, &mut rejects, &mut totals)?,
            _ => return Err(Error::invalid(format!("{} is neither priced claims nor rejects", file.display()))),
        }
    }
    rejects.flush()?;
    write_providers(out, &providers)?;
    let mut csv = create(out, "totals.csv", &["records", "rejected", "paid", "patient"])?;
    let row = [totals.records.to_string(), totals.bad().to_string(), money(totals.paid), money(totals.patient)];
    csv.write_record(&row).map_err(csv_error)?;
    csv.flush()?;
    Ok(totals)
}

fn create(out: &Path, name: &str, columns: &[&str]) -> Result<Writer<File>> {
    let path = out.join(name);
    let mut csv = Writer::from_writer(File::create(&path).map_err(|e| Error::from(e).context(path.display()))?);
    csv.write_record(columns).map_err(csv_error)?;
    Ok(csv)
}

fn rows(file: &Path, mut each: impl FnMut(&StringRecord) -> Result<()>) -> Result<()> {
    let opened = File::open(file).map_err(|e| Error::from(e).context(file.display()))?;
    let (mut reader, mut row) = (Reader::from_reader(opened), StringRecord::new());
    while reader.read_record(&mut row).map_err(csv_error)? {
        each(&row)?;
    }
    Ok(())
}

fn add_priced(file: &Path, providers: &mut BTreeMap<String, Sums>, totals: &mut Expected) -> Result<()> {
    rows(file, |row| {
        let amount = |i: usize| {
            let text = row.get(i).unwrap_or_default();
            parse_money(text).ok_or_else(|| Error::invalid(format!("{}: `{text}` is no amount", file.display())))
        };
        let sums = providers.entry(row.get(1).unwrap_or_default().to_owned()).or_default();
        let (allowed, paid, patient) = (amount(2)?, amount(3)?, amount(4)?);
        *sums = Sums { claims: sums.claims + 1, allowed: sums.allowed + allowed, paid: sums.paid + paid, patient: sums.patient + patient };
        totals.records += 1;
        totals.paid += paid;
        totals.patient += patient;
        Ok(())
    })
}

fn add_rejects(file: &Path, rejects: &mut Writer<File>, totals: &mut Expected) -> Result<()> {
    rows(file, |row| {
        totals.records += 1;
        *totals.rejected.entry(row.get(3).unwrap_or_default().to_owned()).or_default() += 1;
        rejects.write_record(row).map_err(csv_error)
    })
}

fn write_providers(out: &Path, providers: &BTreeMap<String, Sums>) -> Result<()> {
    let mut csv = create(out, "providers.csv", &["provider", "claims", "allowed", "paid", "patient"])?;
    for (name, s) in providers {
        csv.write_record([name, &s.claims.to_string(), &money(s.allowed), &money(s.paid), &money(s.patient)]).map_err(csv_error)?;
    }
    csv.flush().map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tour::claims::{generate, price_file};

    #[test]
    fn pricing_and_adding_up_come_to_what_was_generated() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let expected = generate(File::create(at("claims.csv")).unwrap(), 10_000, 3).unwrap();
        let counts = price_file(&at("claims.csv"), &at("parts"), 0).unwrap();
        assert_eq!(counts.priced + counts.rejected, 10_000);
        assert_eq!(counts.rejected, expected.bad());
        let list: Vec<String> = fs::read_dir(at("parts")).unwrap().map(|e| e.unwrap().path().display().to_string()).collect();
        fs::write(at("list"), list.join("\n")).unwrap();
        assert_eq!(summarise(&at("list"), &at("out")).unwrap(), expected);
        let totals = fs::read_to_string(at("out").join("totals.csv")).unwrap();
        assert_eq!(
            totals.lines().nth(1).unwrap(),
            format!("10000,{},{},{}", expected.bad(), money(expected.paid), money(expected.patient))
        );
        let rejects = fs::read_to_string(at("out").join("rejects.csv")).unwrap();
        assert_eq!(u64::try_from(rejects.lines().count()).unwrap(), expected.bad() + 1);
    }

    #[test]
    fn a_file_that_does_not_belong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("list"), "/x/other.csv\n").unwrap();
        let error = summarise(&folder.path().join("list"), &folder.path().join("out")).unwrap_err();
        assert!(error.message().contains("/x/other.csv"), "{error}");
    }
}
