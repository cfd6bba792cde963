//! Real processes.

use std::collections::BTreeMap;
use std::time::Duration;

use tidemill_batch::cut::{ManifestInfo, StageDefinition, UpstreamInfo, manifest};
use tidemill_batch::model::*;
use tidemill_batch::protocol::{Control, keys};
use tidemill_batch::service::FencedGrants;
use tidemill_blocks::grants::Grants;
use tidemill_blocks::objects;
use tidemill_runtime::{Stopwatch, sleep};

use super::rig::{Folded, JOB, Rig, command, shell, with_timeout};
use crate::Runners;

async fn fails(spec: StageSpec) -> TaskFailure {
    let folded = Rig::real().await.run_processes(spec, 1).await;
    folded.failed.get(&0).cloned().unwrap_or_else(|| panic!("did not fail: {folded:?}"))
}

fn only_file(folded: &Folded) -> &tidemill_batch::protocol::StoredFile {
    &folded.outputs[&0].files[0]
}

#[tokio::test]
async fn many_short_tasks_leave_statistics_and_nothing_else() {
    let rig = Rig::real().await;
    let folded = rig.run_processes(command(&["true"]), 300).await;
    assert_eq!(folded.succeeded, (0..300).collect::<Vec<_>>());
    assert!(folded.outputs.is_empty() && folded.failed.is_empty());
    assert!(folded.stats.values().all(|s| s.run_us > 100 && s.cpu_us > 0 && s.started_us > 0), "{:?}", folded.stats[&0]);
}

#[tokio::test]
async fn exit_codes_and_signals_are_told_apart() {
    let f = fails(shell("echo on the way >&2; exit 3")).await;
    assert_eq!((f.class, f.exit, f.signal), (FailureClass::Exit, Some(3), None));
    assert_eq!(f.message, "ended with exit code 3: on the way");
    let f = fails(shell("kill -11 $$")).await;
    assert_eq!((f.class, f.exit, f.signal), (FailureClass::Signal, None, Some(11)));
    let mut lenient = shell("exit 3");
    lenient.success.exit_codes = [3].into();
    assert_eq!(Rig::real().await.run_processes(lenient, 2).await.succeeded, [0, 1]);
}

#[tokio::test]
async fn a_command_that_cannot_start_is_named() {
    for (argv, words) in [
        ("no-such-program", "`no-such-program` was not found"),
        ("/no/such/file", "`/no/such/file` was not found"),
        ("/etc/passwd", "`/etc/passwd` is not executable"),
    ] {
        let f = fails(command(&[argv])).await;
        assert!(f.class == FailureClass::Start && f.message.contains(words), "{f:?}");
    }
}

#[tokio::test]
async fn a_timeout_ends_the_whole_group() {
    let rig = Rig::real().await;
    let mark = rig.scratch.path().join("alive");
    let script = format!("trap '' TERM; (trap '' TERM; sleep 3; touch '{}') & wait", mark.display());
    let watch = Stopwatch::start();
    let folded = rig.run_processes(with_timeout(shell(&script), Duration::from_millis(300)), 1).await;
    assert!(watch.elapsed() < Duration::from_millis(2500), "{:?}", watch.elapsed());
    assert_eq!(folded.failed[&0].class, FailureClass::Timeout);
    assert!(folded.failed[&0].message.contains("300ms"), "{}", folded.failed[&0].message);
    sleep(Duration::from_secs(4)).await;
    assert!(!mark.exists(), "a grandchild lived on");
}

#[tokio::test]
async fn children_left_behind_are_ended_and_do_not_write_into_the_next_log() {
    let rig = Rig::real().await;
    let script = "(while :; do echo noise; done) & echo task $index";
    let folded = rig.run_processes(shell(script), 6).await;
    assert_eq!(folded.succeeded.len(), 6);
    for task in 0..6 {
        let log = rig.content(folded.outputs[&task].stdout.as_ref().unwrap()).await;
        let own: Vec<_> = log.lines().filter(|l| l.starts_with("task")).collect();
        assert_eq!(own, [format!("task {}", task + 1)], "{}", &log[..log.len().min(100)]);
    }
}

#[tokio::test]
async fn too_much_memory_is_out_of_memory() {
    let mut greedy = shell("python3 -c 'x = bytearray(300 << 20); import time; time.sleep(20)' & wait");
    greedy.resources.memory = 100 << 20;
    let watch = Stopwatch::start();
    let f = fails(greedy).await;
    assert_eq!(f.class, FailureClass::OutOfMemory, "{f:?}");
    assert!(f.message.contains("its limit is 104857600") && watch.elapsed() < Duration::from_secs(10), "{f:?}");
}

#[tokio::test]
async fn peak_memory_and_cpu_time_are_those_of_the_task() {
    let script = "python3 -c 'x = bytearray(200 << 20)\nfor i in range(3000000): pass'";
    let folded = Rig::real().await.run_processes(shell(script), 1).await;
    let stat = folded.stats[&0];
    assert!(stat.peak_memory > 200 << 20 && stat.peak_memory < 300 << 20, "{stat:?}");
    assert!(stat.cpu_us > 20_000 && stat.run_us >= stat.cpu_us / 2, "{stat:?}");
}

#[tokio::test]
async fn cancel_ends_running_tasks_long_before_they_would_end() {
    let rig = Rig::real().await;
    rig.stage(0, shell("trap '' TERM; sleep 30 & sleep 30")).await;
    let range = rig.release(0, 0, 5).await;
    let started = rig.start("w", &Runners::processes());
    rig.until("a start", async || rig.heartbeat("w").await.is_some_and(|b| b.running.len() == 2)).await;
    let watch = Stopwatch::start();
    rig.say(keys::control_job(JOB), Control::Cancel).await;
    let folded = rig.finished(0, range).await;
    assert!(watch.elapsed() < Duration::from_secs(15), "they sleep for 30 seconds: {:?}", watch.elapsed());
    assert_eq!(folded.cancelled, [0, 1, 2, 3, 4]);
    started.end().await;
}

#[tokio::test]
async fn the_environment_is_the_tasks_own() {
    let rig = Rig::real().await;
    let mut spec = shell("env; pwd; ls -A");
    spec.env = BTreeMap::from([("GREETING".into(), "task {task} of {stage}".into())]);
    spec.secrets = BTreeMap::from([("SECRET".into(), SecretRef::Env("PATH".into()))]);
    let folded = rig.run_processes(spec, 1).await;
    let log = rig.content(folded.outputs[&0].stdout.as_ref().unwrap()).await;
    let mut names: Vec<_> = log.lines().filter_map(|l| l.split_once('=')).map(|(k, _)| k).collect();
    names.sort_unstable();
    let ours = "GREETING HOME LANG PATH PWD SECRET TIDEMILL_ATTEMPT TIDEMILL_INDEX TIDEMILL_JOB TIDEMILL_STAGE TIDEMILL_TASK TMPDIR \
                attempt index job stage task";
    let mut want: Vec<_> = ours.split(' ').collect();
    want.sort_unstable();
    names.retain(|n| !matches!(*n, "_" | "OLDPWD" | "SHLVL"));
    assert_eq!(names, want);
    assert!(log.contains("GREETING=task 0 of s\n") && log.contains("TIDEMILL_INDEX=1\n"), "{log}");
    let home = log.lines().find_map(|l| l.strip_prefix("HOME=")).unwrap();
    assert!(log.ends_with(&format!("{home}\n")), "the folder is empty: {log}");
    let mut missing = command(&["true"]);
    missing.secrets = BTreeMap::from([("PW".into(), SecretRef::Env("NO_SUCH_VARIABLE".into()))]);
    let f = fails(missing).await;
    assert!(f.class == FailureClass::Start && f.message.contains("`PW`"), "{f:?}");
}

#[tokio::test]
async fn a_folder_is_clean_for_each_task() {
    let rig = Rig::real().await;
    let script = "ls -A; mkdir -p deep/er; touch deep/er/x .hidden; chmod 000 deep/er";
    let folded = rig.run_processes(shell(script), 5).await;
    assert!(folded.succeeded.len() == 5 && folded.outputs.is_empty(), "{folded:?}");
    let left = std::fs::read_dir(rig.scratch.path().join("w/slots/0")).unwrap().count();
    assert_eq!(left, 3, "one folder and two logs");
}

#[tokio::test]
async fn outputs_small_and_large_are_stored() {
    let rig = Rig::real().await;
    let mut spec = shell("echo small > \"$out/b x.txt\"; mkdir \"$out/d\"; head -c 3000000 /dev/zero | tr '\\0' z > \"$out/d/ü\n.bin\"");
    spec.output.folder = true;
    let folded = rig.run_processes(spec, 2).await;
    assert_eq!(folded.succeeded, [0, 1], "{:?}", folded.failed);
    for task in 0..2 {
        let files = &folded.outputs[&task].files;
        assert_eq!(files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["b x.txt", "d/ü\n.bin"]);
        assert_eq!((files[0].whole, files[1].whole, files[1].len), (false, true, 3_000_000));
        assert_eq!(rig.content(&files[0]).await, "small\n");
        let large = objects::get(rig.blocks.objects.as_ref(), &objects::parse_path(&files[1].path).unwrap()).await.unwrap();
        assert!(large.len() == 3_000_000 && large.iter().all(|b| *b == b'z'));
        assert_eq!(folded.stats[&task].bytes_out, 3_000_006);
        assert!(folded.stats[&task].stage_out_us > 0);
    }
    assert_eq!(std::fs::read_dir(rig.scratch.path().join("w/uploads")).unwrap().count(), 0);
}

#[tokio::test]
async fn one_output_file_may_be_named_and_standard_output_may_be_it() {
    let rig = Rig::real().await;
    let mut spec = command(&["cp", "/etc/hostname", "{out}"]);
    spec.output.name = Some("host-{index}.txt".into());
    let folded = rig.run_processes(spec, 1).await;
    assert_eq!(only_file(&folded).name, "host-1.txt");

    for (bytes, whole) in [(10, false), (200_000, true)] {
        let rig = Rig::real().await;
        let mut spec = shell(&format!("head -c {bytes} /dev/zero | tr '\\0' a; echo log >&2"));
        (spec.output.stdout, spec.output.name) = (true, Some("o.txt".into()));
        let folded = rig.run_processes(spec, 1).await;
        let file = only_file(&folded);
        assert_eq!((file.name.as_str(), file.len, file.whole), ("o.txt", bytes, whole));
        assert_eq!(rig.content(file).await, "a".repeat(usize::try_from(bytes).unwrap()));
        assert!(folded.outputs[&0].stdout.is_none());
        assert_eq!(rig.content(folded.outputs[&0].stderr.as_ref().unwrap()).await, "log\n");
    }
}

#[tokio::test]
async fn outputs_that_are_missing_or_lead_elsewhere_are_refused() {
    let mut spec = command(&["true"]);
    spec.output.name = Some("x.txt".into());
    let f = fails(spec.clone()).await;
    assert!(f.class == FailureClass::Output && f.message.contains("`x.txt`"), "{f:?}");
    spec.output.optional = true;
    assert_eq!(Rig::real().await.run_processes(spec, 1).await.succeeded, [0]);

    let mut link = shell("ln -s /etc/passwd \"$out\"");
    link.output.name = Some("x.txt".into());
    let f = fails(link).await;
    assert!(f.class == FailureClass::Output && f.message.contains("leads out"), "{f:?}");
    let mut folder = shell("rmdir \"$out\"; ln -s /etc \"$out\"");
    folder.output.folder = true;
    let f = fails(folder).await;
    assert!(f.class == FailureClass::Output && f.message.contains("leads out"), "{f:?}");
    let mut name = command(&["true"]);
    name.output.name = Some("../x".into());
    let f = fails(name).await;
    assert!(f.class == FailureClass::Output && f.message.contains("leads out"), "{f:?}");
}

#[tokio::test]
async fn logs_are_kept_to_their_end_and_dropped_when_not_wanted() {
    let rig = Rig::real().await;
    rig.stage(0, shell("seq 1 2000000; echo done >&2")).await;
    let range = rig.release(0, 0, 1).await;
    let mut settings = rig.settings("w");
    settings.log_bytes = 1 << 20;
    let started = rig.start_with(settings, &Runners::processes(), rig.blocks.clone());
    let folded = rig.finished(0, range).await;
    let stdout = folded.outputs[&0].stdout.as_ref().unwrap();
    assert_eq!((stdout.len, stdout.whole), (1 << 20, true));
    assert!(rig.content(stdout).await.ends_with("1999999\n2000000\n"));
    started.end().await;

    let mut quiet = shell("echo noise; exit $((index - 1))");
    quiet.keep.logs = false;
    let folded = Rig::real().await.run_processes(quiet, 2).await;
    assert!(!folded.outputs.contains_key(&0), "it succeeded");
    assert!(folded.outputs[&1].stdout.is_some() && !folded.outputs[&1].ok, "it failed");
}

#[tokio::test]
async fn the_log_of_a_running_task_can_be_read_and_goes_with_it() {
    let rig = Rig::real().await;
    rig.stage(0, shell("echo first; sleep 3; echo second; sleep 1")).await;
    let range = rig.release(0, 0, 1).await;
    let started = rig.start("w", &Runners::processes());
    let path = keys::live_log(JOB, 0, 0, "stdout");
    let read = async || objects::get_opt(rig.blocks.objects.as_ref(), &path).await.unwrap();
    rig.until("a live log", async || read().await.is_some_and(|b| b == "first\n")).await;
    assert!(!rig.fold(0, range).await.finished);
    rig.finished(0, range).await;
    rig.until("its removal", async || read().await.is_none()).await;
    started.end().await;
}

async fn listed(rig: &Rig, inputs: &[TaskInput]) -> ManifestInfo {
    let mut writer = manifest::Writer::new(&rig.blocks.objects, JOB, 0);
    for input in inputs {
        writer.push(input).await.unwrap();
    }
    writer.finish().await.unwrap()
}

async fn run_listed(rig: &Rig, spec: StageSpec, inputs: &[TaskInput]) -> Folded {
    let info = listed(rig, inputs).await;
    let total = inputs.len() as u64;
    rig.define(0, StageDefinition { job_name: "t".into(), spec, total, manifest: Some(info), upstream: None }).await;
    let range = rig.release(0, 0, total).await;
    let started = rig.start("w", &Runners::processes());
    let folded = rig.finished(0, range).await;
    started.end().await;
    folded
}

fn file(path: &str, name: &str) -> InputRef {
    InputRef { path: path.into(), name: name.into(), offset: 0, len: 0, header: 0, whole: true }
}

#[tokio::test]
async fn inputs_are_fetched_under_their_names_however_odd() {
    let rig = Rig::real().await;
    for i in 0..40 {
        objects::put(rig.blocks.objects.as_ref(), &object_store::path::Path::from(format!("b/{i}")), format!("content {i}\n"))
            .await
            .unwrap();
    }
    let names = ["a b.txt", "new\nline.txt", "ünï.txt", "../../up.txt", "-rf.txt", "$(touch x);.txt", "'q\".txt", "*.txt"];
    let input = |i: usize| {
        let files =
            vec![file(&format!("b/{i}"), names[i % names.len()]), file(&format!("b/{}", (i + 1) % 40), "same"), file("b/0", "same")];
        TaskInput::Files { files, key: None }
    };
    let mut inputs: Vec<_> = (0..40).map(input).collect();
    inputs.push(TaskInput::Files { files: vec![file("b/none", "x")], key: None });
    let mut spec = command(&["sh", "-c", "cat \"$@\"; ls -A . in; basename \"$1\"", "sh", "{in}"]);
    spec.output.stdout = true;
    let folded = run_listed(&rig, spec, &inputs).await;
    assert_eq!(folded.succeeded.len(), 40, "{:?}", folded.failed);
    assert!(folded.failed[&40].class == FailureClass::Input && folded.failed[&40].message.contains("`b/none`"), "{:?}", folded.failed);
    for i in 0..40_usize {
        let text = rig.content(&folded.outputs[&(i as u64)].files[0]).await;
        assert!(text.starts_with(&format!("content {i}\ncontent {}\ncontent 0\n", (i + 1) % 40)), "{text}");
        assert!(text.contains(".:\nin\n") && text.contains("same\nsame-2\n"), "{text}");
        assert!(folded.stats[&(i as u64)].bytes_in >= 30 && folded.stats[&(i as u64)].stage_in_us > 0);
    }
    let staged = std::fs::read_dir(rig.scratch.path().join("w/staged")).unwrap().count();
    assert_eq!(staged, 0, "task folders are removed");
}

#[tokio::test]
async fn lines_are_arguments_and_lists_never_a_shells_business() {
    let rig = Rig::real().await;
    let lines = ["plain", "two words", "$(id) `id` ; rm -rf ~", "a\nb", ""];
    let inputs: Vec<_> = lines.iter().map(|l| TaskInput::Lines((*l).to_owned())).collect();
    let mut spec = command(&["sh", "-c", "printf '%s|' \"$1\"; cat \"$2\"", "sh", "{line}", "{inputs}"]);
    spec.output.stdout = true;
    let folded = run_listed(&rig, spec, &inputs).await;
    for (i, line) in (0..).zip(lines) {
        assert_eq!(rig.content(&folded.outputs[&i].files[0]).await, format!("{line}|{line}\n"));
    }
}

#[tokio::test]
async fn stages_stream_and_gather_what_an_earlier_one_put_out() {
    let rig = Rig::real().await;
    let mut first = shell("[ \"$index\" != 3 ] || exit 1; echo part $index");
    (first.output.stdout, first.output.name) = (true, Some("part.txt".into()));
    rig.stage(0, first).await;
    for (stage, mode) in [(1, ChainMode::Stream), (2, ChainMode::Gather { per_task: Some(4) })] {
        let mut spec = command(&["cat", "{in}"]);
        spec.input = InputSpec::Stage { stage: "s".into(), mode: mode.clone() };
        spec.output.stdout = true;
        let upstream = Some(UpstreamInfo { stage: 0, mode, total: 6 });
        rig.define(stage, StageDefinition { job_name: "t".into(), spec, total: 6, manifest: None, upstream }).await;
    }
    let started = rig.start("w", &Runners::processes());
    let range = rig.release(0, 0, 6).await;
    assert_eq!(rig.finished(0, range).await.failed.len(), 1);
    let streamed = rig.release(1, 0, 6).await;
    let streamed = rig.finished(1, streamed).await;
    assert_eq!(streamed.succeeded, [0, 1, 3, 4, 5]);
    assert_eq!(streamed.failed[&2].class, FailureClass::Input, "{:?}", streamed.failed);
    assert_eq!(rig.content(&streamed.outputs[&5].files[0]).await, "part 6\n");
    let gathered = rig.release(2, 0, 2).await;
    let gathered = rig.finished(2, gathered).await;
    assert_eq!(rig.content(&gathered.outputs[&0].files[0]).await, "part 1\npart 2\npart 4\n");
    assert_eq!(rig.content(&gathered.outputs[&1].files[0]).await, "part 5\npart 6\n");
    started.end().await;
}

#[tokio::test]
async fn each_task_with_credentials_gets_them_for_a_folder_of_its_own() {
    let mut rig = Rig::real().await;
    let issuer = std::sync::Arc::new(tidemill_blocks::memory::MemoryGrants::new(rig.env.clone()));
    let (table, objects) = (rig.blocks.table.clone(), rig.blocks.objects.clone());
    rig.blocks.grants = Some(std::sync::Arc::new(FencedGrants::new(issuer.clone(), table, objects, rig.env.clone())));
    let mut spec = shell("env");
    spec.credentials = true;
    let folded = rig.run_processes(spec.clone(), 3).await;
    let mut keys = std::collections::BTreeSet::new();
    for task in 0..3 {
        let log = rig.content(folded.outputs[&task].stdout.as_ref().unwrap()).await;
        let value =
            |name: &str| log.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).unwrap_or_else(|| panic!("{name}")).to_owned();
        assert_eq!(value("TIDEMILL_PREFIX"), format!("s3://jobs/j1/tasks/0/{task}"));
        assert_eq!(value("AWS_REGION"), "us-east-1");
        let granted = issuer.verify(&value("AWS_ACCESS_KEY_ID"), &value("AWS_SESSION_TOKEN")).unwrap();
        let [scope] = granted.scopes.as_slice() else { panic!("{granted:?}") };
        assert!(scope.covers(&format!("jobs/j1/tasks/0/{task}/x")) && !scope.covers(&format!("jobs/j1/tasks/0/{}/x", task + 1)));
        keys.insert(value("AWS_SECRET_ACCESS_KEY"));
    }
    assert_eq!(keys.len(), 3);
    let f = fails(spec).await;
    assert!(f.class == FailureClass::Start && f.message.contains("credentials"), "{f:?}");
}

#[tokio::test]
async fn containers_get_limits_a_name_and_secrets_that_do_not_show() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::real().await;
    let engine = rig.scratch.path().join("engine");
    std::fs::write(&engine, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nenv >&2\n").unwrap();
    std::fs::set_permissions(&engine, std::fs::Permissions::from_mode(0o755)).unwrap();
    let container = |engine: &str| {
        let argv = vec!["tool".into(), "--to={out}".into()];
        let mut s =
            super::rig::spec(RunSpec::Container(ContainerSpec { image: "img:1".into(), argv, engine: engine.into(), network: false }));
        (s.output.optional, s.resources.memory) = (true, 64 << 20);
        s.secrets = BTreeMap::from([("TOKEN".into(), SecretRef::File("/etc/hostname".into()))]);
        s
    };
    let secret = std::fs::read_to_string("/etc/hostname").unwrap();
    let folded = rig.run_processes(container(engine.to_str().unwrap()), 1).await;
    let args = rig.content(folded.outputs[&0].stdout.as_ref().unwrap()).await;
    let args: Vec<_> = args.lines().collect();
    assert!(args.starts_with(&["run", "--rm", "--name"]) && args.ends_with(&["img:1", "tool", "--to=/task/out/output"]), "{args:?}");
    for pair in [["--network", "none"], ["--memory", "67108864"], ["--cpus", "1"], ["--env", "TOKEN"], ["--env", "HOME=/task"]] {
        assert!(args.windows(2).any(|w| w == pair), "{pair:?} in {args:?}");
    }
    let seen = rig.content(folded.outputs[&0].stderr.as_ref().unwrap()).await;
    assert!(seen.contains(&format!("TOKEN={}", secret.trim_end())), "the engine's client passes it on");
    let f = fails(container("no-such-engine")).await;
    assert!(f.class == FailureClass::Start && f.message.contains("has no no-such-engine"), "{f:?}");
}

#[tokio::test]
async fn what_a_killed_worker_left_running_ends_when_the_next_one_starts() {
    use std::os::unix::process::CommandExt;
    let rig = Rig::real().await;
    let home = rig.settings("w").scratch.join("slots/0/0");
    std::fs::create_dir_all(&home).unwrap();
    let home = std::fs::canonicalize(home).unwrap();
    let mut orphan = std::process::Command::new("sleep").arg("60").env("HOME", &home).process_group(0).spawn().unwrap();
    let mut other = std::process::Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
    let started = rig.start("w", &Runners::processes());
    rig.until("its end", async || orphan.try_wait().unwrap().is_some()).await;
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
    started.end().await;
}
