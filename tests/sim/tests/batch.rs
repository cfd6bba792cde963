//! A thousand seeds and more: `TIDEMILL_SIM_SEEDS=N` for another number, `TIDEMILL_SIM_FIRST=N` for another beginning,
//! `TIDEMILL_SIM_SEED=N` for one of them alone.

use std::time::Duration;

use tidemill_blocks_test::sim;

#[test]
fn every_job_comes_to_its_end_with_every_task_counted_once() {
    // To look into a seed: `TIDEMILL_LOG=tidemill_batch=debug`.
    if let Ok(filter) = std::env::var("TIDEMILL_LOG") {
        tidemill_runtime::init_logs(&filter, tidemill_runtime::LogFormat::Text);
    }
    let seeds = std::env::var("TIDEMILL_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    sim::sweep(seeds, Duration::from_secs(4 * 3600), tidemill_sim::scenario);
}
