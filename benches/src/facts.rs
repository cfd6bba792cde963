//! What a number was measured on.

use std::process::Command;

use serde_json::{Value, json};

/// The machine, the commit and the compiler.
pub(crate) fn facts() -> Value {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ")).map_or("unknown", |(_, m)| m);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    json!({
        "cpu": model,
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "memory_gib": kib.map(|k| k >> 20),
        "kernel": line_of("uname", &["-sr"]),
        "rustc": line_of("rustc", &["--version"]),
        "commit": line_of("git", &["rev-parse", "--short=12", "HEAD"]),
    })
}

/// Work of others that waits for a processor: a number measured beside much of it says little.
pub(crate) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

/// The first line that a program prints, or `not there`.
pub(crate) fn line_of(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let text = output.ok().filter(|o| o.status.success()).map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    text.and_then(|t| t.lines().next().map(|l| l.trim().to_owned())).unwrap_or_else(|| "not there".to_owned())
}
