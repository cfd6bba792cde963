//! What was answered is found again, whatever happened in between.
//!
//! The crashes are real: this test program starts itself again as a child that works on a data folder and says on its output what it
//! has been answered; the child is killed with SIGKILL, and the folder is opened.

#![allow(clippy::unwrap_used, reason = "a test ends where something fails")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path as FilePath;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use object_store::path::Path;
use tempfile::TempDir;
use tidemill_base::{Env, ErrorKind};
use tidemill_blocks::objects;
use tidemill_blocks::queue::{NewMessage, QueueSettings, Receipt, ReceiptOutcome, Receive};
use tidemill_blocks::table::{Condition, Key, Write, sort_u64};
use tidemill_embedded::Embedded;
use tidemill_runtime::{Stopwatch, sleep};

const FOLDER: &str = "TIDEMILL_TEST_CHILD_FOLDER";
const LEASE: Duration = Duration::from_secs(600);

/// Starts this program again to run just the test `role`, on `folder`.
fn child(role: &str, folder: &FilePath) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", role, "--nocapture"]).env(FOLDER, folder).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The folder, when this process is the child.
fn given() -> Option<std::path::PathBuf> {
    std::env::var_os(FOLDER).map(Into::into)
}

/// What the child said until it was killed after saying `lines` lines.
fn kill_after(lines: usize, mut child: Child) -> Vec<String> {
    let mut said = Vec::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        // The test runner talks as well, at times on the same line.
        if let Some((_, rest)) = line.split_once("said ") {
            said.push(rest.to_owned());
        }
        if said.len() == lines {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(said.len() >= lines, "the child ended by itself after {} lines", said.len());
    said
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "said {what}").unwrap();
    out.flush().unwrap();
}

fn key(n: u64) -> Key {
    Key::new("p", sort_u64(n))
}

fn large(n: u64) -> Vec<u8> {
    n.to_le_bytes().repeat(5000)
}

/// The child: sends, writes and puts from many tasks at once until it is killed.
#[tokio::test(flavor = "multi_thread")]
async fn child_works_on_everything() {
    let Some(folder) = given() else { return };
    let embedded = Embedded::open(&folder, Env::system()).unwrap();
    embedded.queue().ensure("q", QueueSettings::default()).await.unwrap();
    embedded.table().ensure("t").await.unwrap();
    let work = |lane: u64| {
        let (queue, table, store) = (embedded.queue(), embedded.table(), embedded.objects());
        async move {
            for n in (lane..).step_by(8) {
                queue.send("q", vec![NewMessage::now(n.to_string())]).await.unwrap();
                say(&format!("sent {n}"));
                let version = table.transact("t", vec![Write::put(key(n), n.to_string(), Condition::Absent)]).await.unwrap()[0];
                say(&format!("wrote {n} {version}"));
                objects::put(store.as_ref(), &Path::from(format!("small/{n}")), n.to_string()).await.unwrap();
                say(&format!("put small/{n}"));
                objects::put(store.as_ref(), &Path::from(format!("large/{n}")), large(n)).await.unwrap();
                say(&format!("put large/{n}"));
            }
        }
    };
    futures::future::join_all((0..8).map(work)).await;
}

async fn check(folder: &FilePath, said: &[String]) {
    let embedded = Embedded::open(folder, Env::system()).unwrap();
    let (queue, table, store) = (embedded.queue(), embedded.table(), embedded.objects());
    let waiting: BTreeSet<String> =
        queue.browse("q", usize::MAX).await.unwrap().into_iter().map(|m| String::from_utf8(m.body.into()).unwrap()).collect();
    for line in said {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["sent", n] => assert!(waiting.contains(n), "message {n} was answered and is lost"),
            ["wrote", n, version] => {
                let item = table.get("t", &key(n.parse().unwrap())).await.unwrap();
                let item = item.unwrap_or_else(|| panic!("item {n} was answered and is lost"));
                assert_eq!((String::from_utf8_lossy(&item.value).as_ref(), item.version.to_string().as_str()), (n, version));
            }
            ["put", path] => {
                let bytes = objects::get(store.as_ref(), &Path::from(path)).await.unwrap_or_else(|e| panic!("{path} was answered: {e:?}"));
                let n: u64 = path.split('/').next_back().unwrap().parse().unwrap();
                let expected = if path.starts_with("small") { n.to_string().into_bytes() } else { large(n) };
                assert_eq!(bytes, expected);
            }
            _ => panic!("the child said `{line}`"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_survives_sigkill() {
    for lines in [150, 501] {
        let folder = TempDir::new().unwrap();
        let said = kill_after(lines, child("child_works_on_everything", folder.path()).spawn().unwrap());
        // The second opening reads what the first one has put in order.
        check(folder.path(), &said).await;
        check(folder.path(), &said).await;
    }
}

/// The child: leases, acknowledges, and waits to be killed.
#[tokio::test(flavor = "multi_thread")]
async fn child_holds_leases() {
    let Some(folder) = given() else { return };
    let embedded = Embedded::open(&folder, Env::system()).unwrap();
    let queue = embedded.queue();
    queue.ensure("q", QueueSettings::default()).await.unwrap();
    queue.send("q", (0..10).map(|n| NewMessage::now(n.to_string())).collect()).await.unwrap();
    let held = queue.receive("q", Receive::up_to(6, LEASE)).await.unwrap();
    queue.ack("q", &[held[0].receipt.clone()]).await.unwrap();
    queue.extend("q", &[held[1].receipt.clone()], Duration::ZERO).await.unwrap();
    for delivery in &held[2..] {
        say(&delivery.receipt.0);
    }
    sleep(LEASE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_survive_sigkill() {
    let folder = TempDir::new().unwrap();
    let held = kill_after(4, child("child_holds_leases", folder.path()).spawn().unwrap());
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let queue = embedded.queue();
    let rest = queue.receive("q", Receive::up_to(100, LEASE)).await.unwrap();
    let seen: Vec<_> = rest.iter().map(|d| (d.body[0] - b'0', d.receives)).collect();
    assert_eq!(seen, [(1, 2), (6, 1), (7, 1), (8, 1), (9, 1)], "the four held ones must wait, the acknowledged one is gone");
    let receipts: Vec<Receipt> = held.into_iter().map(Receipt).collect();
    assert_eq!(queue.ack("q", &receipts).await.unwrap(), [ReceiptOutcome::Done; 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_crash_left_over_are_swept_and_no_others() {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    objects::put(embedded.objects().as_ref(), &Path::from("kept"), large(1)).await.unwrap();
    drop(embedded);
    let shelf = folder.path().join("objects/ab");
    std::fs::create_dir_all(&shelf).unwrap();
    let (orphan, foreign) = (shelf.join("ab00000000000001"), shelf.join("notes.txt"));
    std::fs::write(&orphan, b"written, but never named").unwrap();
    std::fs::write(&foreign, b"not ours").unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let watch = Stopwatch::start();
    while orphan.exists() {
        assert!(watch.elapsed() < Duration::from_secs(5), "the orphan is still there");
        sleep(Duration::from_millis(5)).await;
    }
    assert!(foreign.exists());
    assert_eq!(objects::get(embedded.objects().as_ref(), &Path::from("kept")).await.unwrap(), large(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_the_same_time_share_syncs_and_a_lone_one_does_not_wait() {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let queue = embedded.queue();
    queue.ensure("q", QueueSettings::default()).await.unwrap();
    let before = embedded.counters();
    let sends = (0..400).map(|n: u32| {
        let queue = queue.clone();
        async move { queue.send("q", vec![NewMessage::now(n.to_string())]).await.unwrap() }
    });
    futures::future::join_all(sends).await;
    let shared = embedded.counters().syncs - before.syncs;
    assert!(shared <= 100, "400 sends at once took {shared} syncs");
    assert!(shared >= 1, "nothing was synced");
    let before = embedded.counters();
    for _ in 0..20 {
        queue.send("q", vec![NewMessage::now("x")]).await.unwrap();
        queue.receive("q", Receive::up_to(1, LEASE)).await.unwrap();
    }
    let after = embedded.counters();
    assert_eq!((after.syncs - before.syncs, after.groups - before.groups), (20, 40), "a send is synced, a receive is not");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_refused_and_free_after_closing() {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let e = Embedded::open(folder.path(), Env::system()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.message().contains("in use by another process") && e.message().contains(folder.path().to_str().unwrap()), "{e}");
    embedded.queue().ensure("q", QueueSettings::default()).await.unwrap();
    let queue = embedded.queue();
    embedded.close();
    let e = queue.send("q", vec![NewMessage::now("late")]).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable);
    assert!(e.message().contains("closed"), "{e}");
    drop((queue, embedded));
    Embedded::open(folder.path(), Env::system()).unwrap();
}

/// The child: may not write files beyond the size that its shell allows, as on a full disk.
#[tokio::test(flavor = "multi_thread")]
async fn child_meets_a_limit() {
    let Some(folder) = given() else { return };
    let embedded = Embedded::open(&folder, Env::system()).unwrap();
    let queue = embedded.queue();
    for _ in 0..200 {
        // Noise, since the journal would compress anything else.
        match queue.send("q", vec![NewMessage::now(Env::system().secret(100_000).0)]).await {
            Ok(_) => say("sent"),
            Err(e) => {
                say(&format!("refused {:?} {}", e.kind(), e.message()));
                break;
            }
        }
    }
    let e = queue.send("q", vec![NewMessage::now("small")]).await.unwrap_err();
    say(&format!("refused {:?} {}", e.kind(), e.message()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_said_and_nothing_more_is_promised() {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    embedded.queue().ensure("q", QueueSettings::default()).await.unwrap();
    drop(embedded);
    // The kernel then answers EFBIG instead of sending a signal, which is handled as ENOSPC is.
    let program = std::env::current_exe().unwrap();
    let script = format!("trap '' XFSZ; ulimit -f 2000; exec '{}' --exact child_meets_a_limit --nocapture", program.display());
    let output = Command::new("sh").args(["-c", &script]).env(FOLDER, folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Vec<&str> = text.lines().filter_map(|l| l.split_once("said ").map(|(_, rest)| rest)).collect();
    let sent = said.iter().filter(|l| **l == "sent").count();
    assert_eq!(said.len(), sent + 2, "{text}");
    for refusal in &said[sent..] {
        assert!(refusal.starts_with("refused Exhausted") && refusal.contains("make room on the disk"), "{refusal}");
    }
    // With room again, all that was answered is there.
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    let found = embedded.queue().stats("q").await.unwrap().ready;
    assert!(found >= sent as u64, "{sent} were answered, {found} found");
    embedded.queue().send("q", vec![NewMessage::now("goes on")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_named() {
    let folder = TempDir::new().unwrap();
    let embedded = Embedded::open(folder.path(), Env::system()).unwrap();
    embedded.queue().ensure("q", QueueSettings::default()).await.unwrap();
    embedded.queue().send("q", vec![NewMessage::now("x".repeat(3000))]).await.unwrap();
    drop(embedded);
    let journal = std::fs::read_dir(folder.path().join("store"))
        .unwrap()
        .map(|f| f.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "jnl"))
        .expect("there is a journal");
    let mut bytes = std::fs::read(&journal).unwrap();
    let at = bytes.windows(100).position(|w| w == [b'x'; 100]).expect("the message is in the journal");
    bytes[at] = b'y';
    std::fs::write(&journal, bytes).unwrap();
    let e = Embedded::open(folder.path(), Env::system()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt, "{e:?}");
    assert!(e.message().contains(folder.path().join("store").to_str().unwrap()), "{e}");
}
