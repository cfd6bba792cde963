//! Credentials that tasks get for themselves.

use std::path::{Path, PathBuf};

use tidemill_it::{Options, Server, Worker, aws_command, on_engines, skipped};

/// Writes to its own folder and reads it back, then tries the other task's, another job's and its own job's definition. What it was
/// given goes to a file outside of all records, for the test to look for.
const SCRIPT: &str = r#"
set -e
umask 077
printf '%s\n%s\n' "$AWS_SECRET_ACCESS_KEY" "$AWS_SESSION_TOKEN" > "$SEEN/$TIDEMILL_TASK"
echo "mine $TIDEMILL_TASK" > note
"$AWS" s3 cp note "$TIDEMILL_PREFIX/note" > log
"$AWS" s3 cp "$TIDEMILL_PREFIX/note" back >> log
"$AWS" s3 ls "$TIDEMILL_PREFIX/" | grep -q note
cat back
base="${TIDEMILL_PREFIX%/*}"
job="${base%/tasks/*}"
refused() {
    if "$AWS" s3 cp "$1" "$2" > denied 2>&1; then echo "reached $1 $2"; exit 9; fi
    grep -qE 'AccessDenied|NoSuchBucket|403' denied || { cat denied; exit 8; }
}
refused note "$base/$((1 - TIDEMILL_TASK))/note"
refused "$base/$((1 - TIDEMILL_TASK))/note" stolen
refused "$job/definition/0.json" stolen
refused note s3://jobs/other/note
"#;

pub(crate) fn job_file(aws: &Path, seen: &Path) -> String {
    format!(
        "name = \"own\"\n[[stage]]\nname = \"s\"\narray = \"0-1\"\nshell = true\ncommand = '''{SCRIPT}'''\n\
         credentials = true\nretries = 0\ntimeout = \"5m\"\nenv = {{ AWS = \"{}\", SEEN = \"{}\", AWS_MAX_ATTEMPTS = \"1\" }}\n",
        aws.display(),
        seen.display()
    )
}

/// Whether the bytes occur in any file below the folder.
fn found_in(folder: &Path, needle: &[u8]) -> Option<PathBuf> {
    for entry in std::fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            if let Some(found) = found_in(&path, needle) {
                return Some(found);
            }
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|w| w == needle)) {
            return Some(path);
        }
    }
    None
}

#[test]
fn a_task_reaches_its_own_folder_alone_and_its_secret_is_written_nowhere() {
    let Some(aws) = aws_command() else {
        return skipped("S3 clients", "no awscli; `cargo test -p tidemill-server --test s3_clients` installs it once");
    };
    let server = Server::start(Options { s3: true, workers: "0..0", ..Options::default() });
    let _worker = Worker::start(&server, "w1", &["--slots", "2"]);
    let seen = server.folder().join("seen");
    std::fs::create_dir(&seen).unwrap();
    let id = server.submit(&job_file(&aws, &seen));
    let job = server.ended(&id);
    assert_eq!(job["state"], "succeeded", "{job}\n{}", server.cli(&["batch", "logs", &id, "0"]));
    for task in ["0", "1"] {
        assert!(server.cli(&["batch", "logs", &id, task]).ok().stdout.contains(&format!("mine {task}")));
    }
    assert_eq!(server.sql("SELECT count(*) AS n FROM batch.tasks")[0]["n"], 2);
    let mut secrets = Vec::new();
    for task in ["0", "1"] {
        let text = std::fs::read_to_string(seen.join(task)).unwrap();
        secrets.extend(text.lines().map(str::to_owned));
    }
    secrets.sort();
    secrets.dedup();
    assert_eq!(secrets.len(), 4, "each task has its own");
    std::fs::remove_dir_all(&seen).unwrap();
    // Objects, table, queue, ledger, the logs of server and workers, statistics: all of it lies below the folder of the test.
    for secret in &secrets {
        assert_eq!(found_in(server.folder(), secret.as_bytes()), None);
    }
}

#[test]
fn without_an_s3_endpoint_such_a_task_fails_with_the_reason() {
    let server = Server::start(Options::default());
    let id = server.submit("name = \"own\"\n[[stage]]\nname = \"s\"\narray = \"0-0\"\ncommand = [\"true\"]\ncredentials = true\n");
    assert_eq!(server.ended(&id)["state"], "failed");
    let tasks = server.http().get(&format!("/api/v1/batch/jobs/{id}/tasks?state=failed")).is(200).json().to_string();
    // A worker that speaks to the engines issues credentials itself, and says what it lacks for that.
    assert!(tasks.contains("--s3-listen") || on_engines() && tasks.contains("start it where grants are set up"), "{tasks}");
}
