//! Measures how long it takes to cut a large text file into a task a line, and how much memory.
//!
//! `cargo run --release -p tidemill-batch --example cut_lines -- 10000000`

use std::io::Write;
use std::sync::Arc;

use tidemill_base::{Error, Result};
use tidemill_batch::cut::{self, Cutting, Limits, Progress, Reader};
use tidemill_batch::model::InputSpec;
use tidemill_blocks::objects::Objects;
use tidemill_runtime::Stopwatch;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let lines: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("in"))?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(folder.path().join("in/lines"))?);
    for n in 0..lines {
        writeln!(file, "claim-{n} 2026-01-31 open")?;
    }
    file.into_inner().map_err(|e| Error::from(e.into_error()))?;

    let local = object_store::local::LocalFileSystem::new_with_prefix(folder.path());
    let store: Objects = Arc::new(local.map_err(|e| Error::internal("open folder").with_source(e))?);
    let mut told = Progress::default();
    let mut progress = |p| told = p;
    let mut cutting = Cutting { objects: &store, job: "j", stage: 0, limits: Limits::default(), progress: &mut progress };
    let watch = Stopwatch::start();
    let result = cut::cut(&InputSpec::Lines { object: "in/lines".into(), per_task: 1 }, &mut cutting).await?;
    let took = watch.elapsed();
    let info = result.manifest.ok_or_else(|| Error::internal("lines give a manifest"))?;
    let last = Reader::default().get(&store, "j", 0, &info, info.entries - 1).await?;

    println!(
        "{} tasks from {} bytes in {took:.2?}: {:.0} tasks a second",
        info.entries,
        told.bytes,
        info.entries as f64 / took.as_secs_f64()
    );
    println!("{} chunks, {} bytes, {} runs; the last task gets {last:?}", info.chunks, info.bytes, info.runs.len());
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or("peak memory not known"));
    Ok(())
}
