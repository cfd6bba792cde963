//! What the kernel says about a process.

use std::fs;

/// The largest resident set that a process has had, MiB. Zero when it is gone.
pub(crate) fn peak_mib(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kib = text.lines().find_map(|l| l.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

/// CPU seconds that a process and its waited-for children have used.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold blanks; fields are counted behind it. Linux counts in hundredths of a second.
    let fields: Vec<&str> = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    fields.iter().skip(11).take(4).filter_map(|n| n.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Processes that a process has started, and those that they have.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let parent = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<u32>().ok()
    };
    let all: Vec<(u32, u32)> =
        entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let (mut found, mut next) = (Vec::new(), vec![pid]);
    while let Some(pid) = next.pop() {
        let children = all.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child);
        next.extend(children.clone());
        found.extend(children);
    }
    found
}

/// Processes of this user that have `variable` in their environment and `word` as their first argument.
pub(crate) fn processes(variable: &str, word: &str) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let ours = |pid: &u32| {
        let has = |file: &str, at: Option<usize>, want: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            let mut parts = bytes.split(|b| *b == 0);
            at.map_or_else(|| parts.any(|p| p == want.as_bytes()), |at| bytes.split(|b| *b == 0).nth(at) == Some(want.as_bytes()))
        };
        has("cmdline", Some(1), word) && has("environ", None, variable)
    };
    pids.filter(ours).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        assert!(peak_mib(std::process::id()) > 1.0);
        assert!(cpu_seconds(std::process::id()) >= 0.0);
        assert_eq!(peak_mib(u32::MAX), 0.0);
        let child = std::process::Command::new("sleep").arg("5").spawn();
        let mut child = child.unwrap();
        assert!(descendants(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(processes("NO_SUCH_VARIABLE=1", "worker"), Vec::<u32>::new());
    }
}
