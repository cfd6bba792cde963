//! Claims: one large file, cut into parts, priced, put together, and checked against what is known to be right.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;

use serde_json::{Value, json};
use tidemill_base::{Error, Result};

use super::claims::{Expected, generate, money};
use super::{Done, Stage};
use crate::human;
use crate::transfer::{LocalFile, all_results, download, upload};

/// The same claims every time.
const SEED: u64 = 20_250_101;
/// A part has about so many bytes.
const PART: &str = "1MiB";

/// Makes `records` claims, runs them, and compares.
pub(crate) async fn run(stage: &Stage, records: u64) -> Result<Done> {
    stage.title(&format!("1. Claims: price {} made-up insurance claims", human::count(records)));
    let file = stage.folder.join("claims.csv");
    let expected = make(&file, records)?;
    let bytes = std::fs::metadata(&file)?.len();
    stage.say(&format!("{} ({}), {} of them bad on purpose", file.display(), human::bytes(bytes), human::count(expected.bad())));
    let local = LocalFile { path: file, name: "claims.csv".to_owned() };
    let prefix = upload(&stage.client, &stage.env, &[local], stage.style).await?;
    let (job, took) = stage.run(job(&stage.program, &prefix)).await?;
    stage.expect_success(&job)?;
    let folder = stage.folder.join("claims");
    let files = all_results(&stage.client, &job.id, None).await?;
    download(&stage.client, &stage.env, &files, &folder, stage.style).await?;
    check(&folder, &expected)?;
    stage.say(&format!(
        "checked: {} records, {} rejected, {} paid by plans and {} by patients, just what was added up while the claims were made",
        human::count(expected.records),
        human::count(expected.bad()),
        money(expected.paid),
        money(expected.patient)
    ));
    let amount = format!("{} claims, {}/s", human::count(records), human::count((records as f64 / took.as_secs_f64()) as u64));
    Ok(Done { what: "claims".to_owned(), job, took, amount, results: Some(folder) })
}

fn make(file: &Path, records: u64) -> Result<Expected> {
    let opened = File::create(file).map_err(|e| Error::from(e).context(file.display()))?;
    let mut out = BufWriter::new(opened);
    let expected = generate(&mut out, records, SEED)?;
    out.flush()?;
    Ok(expected)
}

/// Two stages: each part of the file by itself, then all of them together.
fn job(program: &str, prefix: &str) -> Value {
    json!({
        "name": "claims",
        "stage": [
            {
                "name": "price",
                "parts": {"objects": format!("{prefix}/claims.csv"), "size": PART, "boundary": "csv", "header": true},
                "command": [program, "example", "claims-price", "{in}", "{out}", "--part", "{task}"],
                "output": {"folder": true},
                "retries": 2,
            },
            {
                "name": "summary",
                "from": "price",
                "mode": "gather",
                "command": [program, "example", "claims-summary", "{inputs}", "{out}"],
                "output": {"folder": true},
                "retries": 2,
            },
        ],
    })
}

/// Compares the totals, and the reasons of all rejects, with what is known.
fn check(folder: &Path, expected: &Expected) -> Result<()> {
    let read = |name: &str| {
        let path = folder.join(name);
        csv::Reader::from_path(&path).map_err(|e| Error::internal(format!("{} cannot be read", path.display())).with_source(e))
    };
    let wrong = |e: csv::Error| Error::internal("a result of the claims run is no CSV").with_source(e);
    let row = read("totals.csv")?.records().next().transpose().map_err(wrong)?.unwrap_or_default();
    let want = [expected.records.to_string(), expected.bad().to_string(), money(expected.paid), money(expected.patient)];
    if row.iter().ne(want.iter().map(String::as_str)) {
        let got: Vec<&str> = row.iter().collect();
        return Err(Error::internal(format!("the totals are {} and should be {}", got.join(", "), want.join(", "))));
    }
    let mut reasons = std::collections::BTreeMap::<String, u64>::new();
    for reject in read("rejects.csv")?.records() {
        *reasons.entry(reject.map_err(wrong)?.get(3).unwrap_or_default().to_owned()).or_default() += 1;
    }
    if reasons == expected.rejected {
        return Ok(());
    }
    Err(Error::internal(format!("the rejects are {reasons:?} and should be {:?}", expected.rejected)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tour::claims::{price_file, summarise};
    use tidemill_base::Timestamp;

    #[test]
    fn the_job_is_one_that_the_server_takes() {
        let spec = tidemill_batch::spec::from_json(&job("/bin/tidemill", "uploads/u1").to_string(), Timestamp::ZERO).unwrap();
        assert_eq!(spec.stages.len(), 2);
    }

    #[test]
    fn the_check_finds_a_cent() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut expected = make(&at("claims.csv"), 2_000).unwrap();
        price_file(&at("claims.csv"), &at("parts"), 0).unwrap();
        let list = ["priced-000000.csv", "rejects-000000.csv"].map(|n| at("parts").join(n).display().to_string());
        std::fs::write(at("list"), list.join("\n")).unwrap();
        summarise(&at("list"), &at("out")).unwrap();
        check(&at("out"), &expected).unwrap();
        expected.paid += 1;
        assert!(check(&at("out"), &expected).unwrap_err().message().starts_with("the totals are"));
    }
}
