//! Job files in both forms.

use tidemill_base::Timestamp;
use tidemill_batch::model::{JobSpec, RunSpec};
use tidemill_batch::spec::{Template, fill, from_json, from_toml, next_tick, validate};
use tidemill_fuzz::{Settings, fuzz, shape};

use crate::{refused, text};

const NOW: Timestamp = Timestamp(1_769_860_800_000_000);

const TOKENS: &[&str] = &[
    "[[stage]]\n",
    "array = \"1-9\"\n",
    "objects",
    "lines",
    "parts",
    "from",
    "mode",
    "\"gather\"",
    "\"group\"",
    "\"stream\"",
    "key",
    "per-task",
    "command",
    "shell",
    "noop",
    "container",
    "output",
    "retries",
    "retry",
    "secrets",
    "env",
    "cron",
    "timezone",
    "at",
    "labels",
    "true",
    "\"{in}\"",
    "{out}",
    "{{",
    "500us",
    "1.5h",
    "\"\"\"",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-0",
    "[",
    "{",
    "}",
    "]",
    "null",
];

#[test]
fn job_toml() {
    let settings = Settings { runs: 3_000, memory: 8 << 20, memory_per_byte: 2048, tokens: TOKENS, ..Settings::default() };
    fuzz("job_toml", settings, |input| {
        let text = text(input);
        match from_toml(&text, NOW) {
            Ok(job) => accepted(&job),
            Err(e) => {
                // Somebody has to find the place in a file of a thousand lines.
                let place = e.chain();
                assert!(place.starts_with("line ") || place.contains('`') || place.contains(": "), "{place}");
                refused(&e)
            }
        }
    });
}

#[test]
fn job_json() {
    let settings = Settings { runs: 3_000, memory: 8 << 20, memory_per_byte: 2048, tokens: TOKENS, ..Settings::default() };
    fuzz("job_json", settings, |input| {
        let text = text(input);
        let outcome = from_json(&text, NOW);
        // The same document as TOML is the same job, and is refused when the other is. TOML has no null and no number above i64.
        if let Ok(serde_json::Value::Object(document)) = serde_json::from_str(&text)
            && let Ok(toml) = toml::to_string(&document)
        {
            match (&outcome, from_toml(&toml, NOW)) {
                (Ok(json), Ok(toml)) => assert_eq!(*json, toml),
                (Err(_), Err(_)) => {}
                (json, other) => panic!("as JSON {json:?}, as TOML {other:?}\n{toml}"),
            }
        }
        outcome.map_or_else(|e| refused(&e), |job| accepted(&job))
    });
}

/// What every job that was accepted keeps to.
fn accepted(job: &JobSpec) -> u64 {
    validate(job).unwrap();
    let mut filled = job.clone();
    fill(&mut filled);
    assert_eq!(filled, *job, "filling in what is open a second time changes it");
    // The ledger keeps it as JSON.
    let stored = serde_json::to_string(job).unwrap();
    let back: JobSpec = serde_json::from_str(&stored).unwrap();
    assert_eq!(back, *job, "{stored}");
    validate(&back).unwrap();
    if let Some(cron) = &job.cron {
        next_tick(cron, &job.timezone, NOW).unwrap();
    }
    for stage in &job.stages {
        for template in stage.env.values().chain(&stage.output.name) {
            Template::parse(template).unwrap();
        }
        if let RunSpec::Command { argv, shell: false } = &stage.run {
            Template::parse_all(argv).unwrap();
        }
    }
    shape(format_args!("{} {:?}", "i".repeat(job.stages.len().min(3)), job.stages.first().map(|s| std::mem::discriminant(&s.input))))
}
