//! What tasks do to their engines, and engines to their tasks: crashes, loops, greed, children, long tasks among short ones; what engines are
//! given and what they are not.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_it::{Options, Outcome, Server, Worker, eventually, gone_within, is_root, processes_of, program, skipped, with_marker};

/// Functions that misbehave in every way that quant libraries do.
const JOBS: &str = r#"
import ctypes, os, subprocess, sys, time

def work(task):
    return globals()["do_" + task["do"]](task)

def do_double(task):
    return 2 * task["n"]

def do_nap(task):
    time.sleep(task["s"])
    return 2 * task["n"]

def do_wait(task):
    while not os.path.exists(task["until"]):
        time.sleep(0.01)
    return 2 * task["n"]

def do_exit(task):
    os._exit(3)

def do_abort(task):
    os.abort()

def do_null(task):
    ctypes.string_at(0)

def do_loop(task):
    while True:
        pass

def do_grow(task):
    hoard = [b"\1" * (1 << 20) for _ in range(1000)]
    time.sleep(60)

def do_raise(task):
    return inner(task)

def inner(task):
    raise ValueError("no price for %d" % task["n"])

def do_print(task):
    print("a word on the standard output", flush=True)
    os.write(1, b"and one past Python\n")
    return 2 * task["n"]

def do_children(task):
    subprocess.Popen(["sleep", "600"])
    subprocess.Popen(["setsid", "sleep", "600"])
    return 2 * task["n"]

def do_leave(task):
    do_children(task)
    os._exit(4)

def do_surroundings(task):
    with open("scratch.txt", "w") as f:
        f.write("mine")
    import sys
    return {
        "env": dict(os.environ), "path": sys.path, "cwd": os.getcwd(), "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(),
        "fds": {n: os.readlink("/proc/self/fd/" + n) for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n)},
    }
"#;

fn no_python(test: &str) -> bool {
    let missing = program("python3").is_none();
    if missing {
        skipped(test, "there is no python3");
    }
    missing
}

/// A server whose tests' functions lie in a folder that sessions name.
fn server(options: Options) -> Server {
    let server = Server::start(options);
    fs::create_dir_all(server.folder().join("modules")).unwrap();
    fs::write(server.folder().join("modules/jobs.py"), JOBS).unwrap();
    server
}

/// Runs tasks of `jobs.work` and returns what was said, and the lines of results by task: each task has one.
fn run(server: &Server, tasks: &[Value], more: &[&str]) -> (Outcome, BTreeMap<u64, Value>) {
    let path = format!("PYTHONPATH={}", server.folder().join("modules").display());
    let results = server.folder().join("results.jsonl");
    let mut call = vec!["grid", "run", "--module", "jobs:work", "--json", "-", "--env", &path, "--results", results.to_str().unwrap()];
    call.extend(more);
    let lines: Vec<String> = tasks.iter().map(Value::to_string).collect();
    let done = server.call(&call).stdin(lines.join("\n")).run();
    let mut found = BTreeMap::new();
    for line in fs::read_to_string(&results).unwrap_or_default().lines() {
        let value: Value = serde_json::from_str(line).unwrap();
        let twice = found.insert(value["task"].as_u64().unwrap(), value);
        assert!(twice.is_none(), "two results: {twice:?}");
    }
    (done, found)
}

/// `n` tasks that double their number, with some replaced.
fn doubles(n: u64, but: &[(u64, Value)]) -> Vec<Value> {
    let mut tasks: Vec<Value> = (0..n).map(|n| json!({"do": "double", "n": n})).collect();
    for (at, task) in but {
        tasks[usize::try_from(*at).unwrap()] = task.clone();
    }
    tasks
}

fn assert_doubles(results: &BTreeMap<u64, Value>, n: u64, but: &[u64]) {
    assert_eq!(results.len() as u64, n);
    for (task, result) in results.iter().filter(|(task, _)| !but.contains(task)) {
        assert_eq!(result["value"].as_u64(), Some(2 * task), "{result}");
    }
}

#[test]
fn tasks_that_end_their_engines_fail_alone_and_say_how() {
    if no_python("tasks_that_end_their_engines_fail_alone_and_say_how") {
        return;
    }
    let server = server(Options { workers: "2..2", slots: 1, ..Options::default() });
    let wicked = [(40, "exit"), (41, "raise"), (90, "abort"), (170, "null"), (230, "loop"), (290, "grow"), (291, "print"), (360, "leave")];
    let but: Vec<(u64, Value)> = wicked.iter().map(|(at, what)| (*at, json!({"do": what, "n": at}))).collect();
    let (done, results) = run(&server, &doubles(400, &but), &["--timeout", "12s", "--memory", "300MiB", "--retries", "1"]);
    let done = done.exits(1);
    assert!(done.stdout.contains("400 tasks: 393 succeeded, 7 failed"), "{done}");
    assert_doubles(&results, 400, &[40, 41, 90, 170, 230, 290, 360]);
    for (task, kind, words) in [
        (40, "crash", "ended with exit code 3"),
        (90, "crash", "ended by signal 6 (abort)"),
        (170, "crash", "ended by signal 11 (segmentation fault)"),
        (230, "timeout", "ran longer than its limit of 12s"),
        (290, "memory", "bytes of memory"),
        (360, "crash", "ended with exit code 4"),
    ] {
        let error = &results[&task]["error"];
        let message = error["message"].as_str().unwrap();
        assert_eq!(error["kind"], kind, "{error}");
        assert!(message.contains(words) && message.starts_with(&format!("task {task}, attempt 2: ")), "{error}");
    }
    let raised = &results[&41]["error"];
    let traceback = raised["traceback"].as_str().unwrap();
    assert!(raised["kind"].as_str().unwrap().contains("ValueError") && raised["message"] == "no price for 41", "{raised}");
    assert!(["Traceback (most recent call last)", "jobs.py", "in inner"].iter().all(|w| traceback.contains(w)), "{raised}");
}

#[test]
fn what_an_engine_has_started_ends_with_it_and_costs_nobody_anything() {
    if no_python("what_an_engine_has_started_ends_with_it_and_costs_nobody_anything") {
        return;
    }
    let server = server(Options { workers: "1..1", slots: 2, ..Options::default() });
    let mark = server.folder().display().to_string();
    let env = format!("MARK={mark}");
    let sleepers = || with_marker("MARK", &mark).into_iter().filter(|p| p.args().first().is_some_and(|a| a == "sleep")).collect::<Vec<_>>();
    let but = [(10, json!({"do": "children", "n": 10})), (60, json!({"do": "leave", "n": 60}))];
    let (done, results) = run(&server, &doubles(100, &but), &["--env", &env]);
    done.exits(1);
    assert_doubles(&results, 100, &[60]);
    // Those of engines that live are theirs; when the worker goes, so do they.
    let left = sleepers();
    assert!(left.len() <= 2, "{left:?}");
    for worker in server.worker_processes() {
        worker.signal(libc::SIGTERM);
    }
    gone_within(Duration::from_secs(60), "children of engines end with the worker", &left);
}

#[test]
fn engines_of_a_killed_worker_are_ended_when_it_starts_again() {
    if no_python("engines_of_a_killed_worker_are_ended_when_it_starts_again") {
        return;
    }
    let server = server(Options { workers: "0..0", company: false, ..Options::default() });
    let scratch = server.folder().join("scratch");
    let mut worker = Worker::start_in(&server, "w1", scratch.clone(), &["--slots", "2"]);
    let (done, _) = run(&server, &doubles(20, &[(3, json!({"do": "children", "n": 3}))]), &[]);
    done.ok();
    let engines = |what: &str| processes_of(&scratch).into_iter().filter(|p| p.args().iter().any(|a| a == what)).collect::<Vec<_>>();
    let (left, children) = (engines("tidemill.engine"), engines("600"));
    assert!(!left.is_empty() && children.len() == 2, "{left:?} {children:?}");
    // Engines end by themselves when their worker has gone; stopped, they cannot.
    left.iter().for_each(|p| p.signal(libc::SIGSTOP));
    worker.process.signal(libc::SIGKILL);
    worker.wait();
    let again = Worker::start_in(&server, "w1", scratch, &["--slots", "2"]);
    gone_within(Duration::from_secs(20), "what the killed worker has left ends", &[left, children].concat());
    let (done, results) = run(&server, &doubles(20, &[]), &[]);
    done.ok();
    assert_doubles(&results, 20, &[]);
    drop(again);
}

/// Two workers of one engine each, ten thousand short tasks, and one that goes on until all others are done: whatever the worker that runs it
/// holds behind it goes to the other.
#[test]
fn what_waits_behind_a_long_task_is_run_by_another_worker() {
    if no_python("what_waits_behind_a_long_task_is_run_by_another_worker") {
        return;
    }
    let server = server(Options { workers: "2..2", slots: 1, company: false, ..Options::default() });
    let path = format!("PYTHONPATH={}", server.folder().join("modules").display());
    let go = server.folder().join("go");
    for (n, long) in [(10_000, 137), (10_000, 4_000)] {
        let tasks: Vec<Value> = (0..n)
            .map(|n| if n == long { json!({"do": "wait", "until": go, "n": n}) } else { json!({"do": "nap", "s": 0.0005, "n": n}) })
            .collect();
        let lines: Vec<String> = tasks.iter().map(Value::to_string).collect();
        let call = ["grid", "run", "--module", "jobs:work", "--json", "-", "--env", &path, "--detach"];
        let id = server.call(&call).stdin(lines.join("\n")).run().ok().word().to_owned();
        let session = || server.cli(&["grid", "show", &id, "-o", "json"]).ok().json();
        eventually("all but the long task are done", || Some(session()["tasks"]["succeeded"].as_u64()? + 1 == n).filter(|all| *all));
        assert_eq!(session()["state"], "running");
        fs::write(&go, "").unwrap();
        server.cli(&["grid", "watch", &id]).ok();
        // One result each, and no attempt that counted beside it.
        let ended = session();
        assert_eq!((&ended["tasks"]["succeeded"], &ended["attempts"]), (&json!(n), &json!(n)), "{ended}");
        let call = ["grid", "results", &id, "--to", "long.jsonl"];
        server.cli(&call).ok();
        let text = fs::read_to_string(server.folder().join("long.jsonl")).unwrap();
        let results: BTreeMap<u64, Value> =
            text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()).map(|v| (v["task"].as_u64().unwrap(), v)).collect();
        assert_eq!(text.lines().count() as u64, n);
        assert_doubles(&results, n, &[]);
        fs::remove_file(&go).unwrap();
        fs::remove_file(server.folder().join("long.jsonl")).unwrap();
    }
}

/// What `jobs.do_surroundings` says of the engine it runs in.
fn surroundings(server: &Server, more: &[&str]) -> Value {
    let (done, results) = run(server, &[json!({"do": "surroundings"})], more);
    done.ok();
    results[&0]["value"].clone()
}

#[test]
fn an_engine_gets_what_its_session_says_and_nothing_of_its_worker() {
    if no_python("an_engine_gets_what_its_session_says_and_nothing_of_its_worker") {
        return;
    }
    let server = server(Options { workers: "0..0", company: false, ..Options::default() });
    let scratch = server.folder().join("scratch");
    let secrets = [("DATABASE_PASSWORD".to_owned(), "hunter2".to_owned()), ("TIDEMILL_TOKEN_OF_TEST".to_owned(), "hunter2".to_owned())];
    let _worker = Worker::start_with(&server, "w1", scratch.clone(), &["--slots", "1"], &secrets);
    // Whoever has started the worker may have left it more than it needs; that goes no further.
    let said = surroundings(&server, &["--env", "CURVES=eur"]);
    let env = said["env"].as_object().unwrap();
    assert!(!said.to_string().contains("hunter2") && !env.keys().any(|k| k.starts_with("TIDEMILL_")), "{said}");
    assert_eq!(env["CURVES"], "eur");
    // The session's path is there, and the kit's before it.
    let path: Vec<&str> = said["path"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    let at = |what: &str| path.iter().position(|p| p.ends_with(what)).unwrap_or_else(|| panic!("no {what} in {path:?}"));
    assert!(at("engines/kit") < at("/modules"), "{path:?}");
    // A folder of its own, and none of the worker's files, sockets and pipes.
    let cwd = said["cwd"].as_str().unwrap();
    assert!(cwd.starts_with(scratch.join("w1/engines/python").to_str().unwrap()) && env["HOME"] == cwd && env["TMPDIR"] == cwd, "{said}");
    let open = said["fds"].as_object().unwrap();
    let strange: Vec<_> =
        open.iter().filter(|(_, to)| !["pipe:", "/dev/null"].iter().any(|w| to.as_str().unwrap().starts_with(w))).collect();
    assert!(strange.is_empty() && open.len() <= 7, "{open:?}");
}

#[test]
fn engines_run_as_the_user_that_their_worker_was_told() {
    if no_python("engines_run_as_the_user_that_their_worker_was_told") {
        return;
    }
    let server = server(Options { workers: "0..0", company: false, ..Options::default() });
    let open = |folder: &std::path::Path| {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let scratch = server.folder().join("scratch");
    let refused = tidemill_it::Call::new(&["worker", "--engine-user", "no-such-user", "--id", "w0", "--manager", server.url()]).run();
    refused.exits(1).says("no user `no-such-user`");
    // Root's own Python may lie where nobody else can go.
    let python = "/usr/bin/python3";
    if !is_root() || !std::path::Path::new(python).exists() {
        return skipped(
            "engines_run_as_the_user_that_their_worker_was_told",
            "only root can start engines as somebody else, and they need a Python that all can run",
        );
    }
    open(server.folder());
    let _worker = Worker::start_in(&server, "w1", scratch, &["--slots", "1", "--engine-user", "65534:65534", "--python", python]);
    let said = surroundings(&server, &[]);
    assert_eq!((&said["uid"], &said["gid"], &said["groups"]), (&json!(65534), &json!(65534), &json!([])), "{said}");
    let (done, results) = run(&server, &doubles(50, &[(7, json!({"do": "exit", "n": 7}))]), &["--timeout", "5s", "--memory", "300MiB"]);
    done.exits(1);
    assert_doubles(&results, 50, &[7]);
}

#[test]
fn a_worker_without_python_says_so() {
    let server = server(Options { workers: "0..0", company: false, ..Options::default() });
    let path = [("PATH".to_owned(), server.folder().join("nothing").display().to_string())];
    let _worker = Worker::start_with(&server, "w1", server.folder().join("scratch"), &["--slots", "1"], &path);
    let (done, results) = run(&server, &doubles(3, &[]), &[]);
    let done = done.exits(1);
    assert!(done.stdout.contains("this worker has no Python; install python3"), "{done}");
    assert!(results.values().all(|r| r["error"]["message"].as_str().unwrap().contains("tidemill grid python")), "{results:?}");
}

/// Writes a wheel of one module, as `pip` takes it, without a network.
const WHEEL: &str = r#"
import base64, hashlib, sys, zipfile
folder, name, version, text = sys.argv[1:]
info = f"{name}-{version}.dist-info"
files = {
    f"{name}.py": text,
    f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
    f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}
digest = lambda t: base64.urlsafe_b64encode(hashlib.sha256(t.encode()).digest()).rstrip(b"=").decode()
record = "".join(f"{n},sha256={digest(t)},{len(t.encode())}\n" for n, t in files.items())
with zipfile.ZipFile(f"{folder}/{name}-{version}-py3-none-any.whl", "w") as z:
    for n, t in [*files.items(), (f"{info}/RECORD", record + f"{info}/RECORD,,\n")]:
        z.writestr(n, t)
"#;

#[test]
fn a_python_made_from_requirements_and_wheels_is_what_engines_run() {
    let test = "a_python_made_from_requirements_and_wheels_is_what_engines_run";
    let has = |module: &str| {
        std::process::Command::new("python3").args(["-c", &format!("import {module}")]).output().is_ok_and(|o| o.status.success())
    };
    if no_python(test) || !(has("venv") && has("ensurepip")) {
        return skipped(test, "python3 lacks venv or ensurepip");
    }
    let mut server = server(Options { workers: "1..1", slots: 1, company: false, ..Options::default() });
    let folder = server.folder().to_owned();
    let wheel = |version: &str, text: &str| {
        let args = ["-c", WHEEL, folder.to_str().unwrap(), "tide_curves", version, text];
        assert!(std::process::Command::new("python3").args(args).status().unwrap().success());
        fs::write(folder.join("requirements.txt"), format!("tide_curves=={version}\n")).unwrap();
    };
    let data = server.data().display().to_string();
    let make = |server: &Server| server.call(&["grid", "python", "--data", &data, "-r", "requirements.txt", "--wheels", "."]).run();
    let value = |server: &Server| {
        let done = server.cli(&["grid", "run", "--module", "tide_curves:value", "--range", "7-7", "--results", "-"]).ok();
        serde_json::from_str::<Value>(done.stdout.trim()).unwrap()["value"].clone()
    };
    wheel("1.0", "def value(x):\n    return x + 1\n");
    assert!(make(&server).ok().stdout.contains("python/bin/python3"));
    // Requirements that cannot be met change nothing.
    let before = fs::read_link(server.data().join("python")).unwrap();
    fs::write(folder.join("requirements.txt"), "no_such_library==9\n").unwrap();
    make(&server).exits(2).says("no_such_library");
    assert_eq!(fs::read_link(server.data().join("python")).unwrap(), before);
    server.terminate();
    server.restart();
    assert_eq!(value(&server), json!(8));
    // A newer one takes its place: engines that are warm are replaced, and nobody starts anything again.
    wheel("2.0", "def value(x):\n    return x + 2\n");
    make(&server).ok();
    eventually("engines run the new version", || (value(&server) == json!(9)).then_some(()));
}
