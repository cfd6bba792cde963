//! Disks that are full: a small file system in memory, mounted for the test.

use std::path::{Path, PathBuf};
use std::process::Command;

use tidemill_it::{Options, Server, Worker, eventually, is_root, on_engines, skipped};

/// A mounted file system of so many MiB; unmounted when dropped.
struct Small {
    folder: tempfile::TempDir,
    mounted: bool,
}

impl Small {
    fn mount(test: &str, mib: u32) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("tidemill-small-").tempdir().unwrap();
        if !is_root() {
            skipped(test, "mounting a small file system takes root");
            return None;
        }
        let size = format!("size={mib}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tidemill-it"]).arg(folder.path()).output().unwrap();
        if !mount.status.success() {
            skipped(test, &format!("mount: {}", String::from_utf8_lossy(&mount.stderr).trim()));
            return None;
        }
        Some(Self { folder, mounted: true })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("inside")
    }

    fn fill(&self) -> PathBuf {
        let filler = self.folder.path().join("filler");
        drop(Command::new("dd").args(["if=/dev/zero", "bs=64k"]).arg(format!("of={}", filler.display())).output().unwrap());
        filler
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        if self.mounted {
            drop(Command::new("umount").arg("-l").arg(self.folder.path()).status());
        }
    }
}

fn echo(server: &Server, text: &str) {
    assert_eq!(server.cli(&["batch", "run", "--stdout", "-o", "json", "--", "echo", text]).ok().json()["tasks"]["succeeded"], 1);
}

#[test]
fn a_task_on_a_full_scratch_disk_fails_with_the_reason_and_the_worker_goes_on() {
    let Some(small) = Small::mount("full scratch disk", 24) else { return };
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    let worker = Worker::start_in(&server, "small", small.path(), &["--slots", "1"]);
    let fill = ["batch", "run", "--retries", "0", "-o", "json", "--", "dd", "if=/dev/zero", "of={out}", "bs=1M", "count=100"];
    let job = server.cli(&fill).exits(1).json();
    let logs = server.cli(&["batch", "logs", job["id"].as_str().unwrap()]).ok();
    assert!(logs.stdout.contains("No space left"), "the log of the task says it: {logs}");
    // Its folder has been cleared, so that the next task has room.
    echo(&server, "after");
    // An input that does not fit is the input's failure, said as such.
    server.http().put("/api/v1/objects/data/large.bin", vec![7_u8; 40 << 20]).is(201);
    let job =
        server.cli(&["batch", "run", "--retries", "0", "--objects", "data/large.bin", "-o", "json", "--", "true", "{in}"]).exits(1).json();
    let message = job["failures"][0]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.to_lowercase().contains("space"), "{job}");
    echo(&server, "after that");
    assert!(worker.process.is_alive());
}

#[test]
fn a_server_on_a_full_disk_refuses_by_name_loses_nothing_and_recovers_by_itself() {
    if on_engines() {
        return skipped("full data disk", "what is kept lies on engines");
    }
    let Some(small) = Small::mount("full data disk", 160) else { return };
    let mut server = Server::start(Options { data: Some(small.path()), ..Options::default() });
    let kept: Vec<u8> = (0..2_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    server.http().put("/api/v1/objects/data/kept.bin", kept.clone()).is(201);
    echo(&server, "before");
    let jobs = |server: &Server| server.http().get("/api/v1/batch/jobs").is(200).json()["jobs"].as_array().unwrap().len();
    assert_eq!(jobs(&server), 1);
    let filler = small.fill();
    let refused = server.http().put("/api/v1/objects/data/more.bin", vec![1_u8; 8 << 20]);
    assert!((500..600).contains(&refused.status) || refused.status == 429, "{} {}", refused.status, refused.text());
    let error = refused.json();
    let words = error["error"].to_string().to_lowercase();
    assert!(words.contains("space") || words.contains("full"), "the reason is named: {error}");
    // Reading goes on.
    assert!(server.http().get("/api/v1/objects/data/kept.bin").is(200).bytes == kept);
    // A submit is either refused, or durable; never half of it.
    let submitted = server.call(&["batch", "run", "--detach", "--", "true"]).run();
    std::fs::remove_file(filler).unwrap();
    server.anonymous().get("/livez").is(200);
    if submitted.code == Some(0) {
        assert_eq!(server.ended(submitted.word())["state"], "succeeded");
    }
    eventually("work goes on when there is room again", || (server.cli(&["batch", "run", "--", "true"]).code == Some(0)).then_some(()));
    let known = jobs(&server);
    server.kill9();
    server.restart();
    assert_eq!(jobs(&server), known, "every job that was acknowledged is known after a crash");
    assert!(server.http().get("/api/v1/objects/data/kept.bin").is(200).bytes == kept);
    server.http().get("/api/v1/objects/data/more.bin").is(404);
    assert!(Path::new(server.data()).exists());
}
