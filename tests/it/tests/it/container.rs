//! Tasks in containers, where there is an engine that works. The image is made from a tarball with nothing but busybox in it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use tidemill_it::{Options, Server, Worker, eventually, program, skipped, within};

/// What the image has, all of it busybox.
const TOOLS: [&str; 8] = ["sh", "cat", "echo", "sleep", "env", "id", "dd", "tail"];

/// Podman with an image of our own. The image goes when this is dropped.
struct Podman {
    folder: tempfile::TempDir,
    image: String,
    variables: Vec<(String, String)>,
}

impl Podman {
    /// Makes the image and tries it out. The error says why containers cannot be tested here.
    fn new() -> Result<Self, String> {
        if program("podman").is_none() {
            return Err("podman is not installed; `apt-get install podman busybox-static`".to_owned());
        }
        let busybox = program("busybox").ok_or("busybox is not installed; `apt-get install busybox-static`")?;
        let folder = tempfile::Builder::new().prefix("tidemill-podman-").tempdir().unwrap();
        let bin = folder.path().join("root/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy(busybox, bin.join("busybox")).unwrap();
        TOOLS.iter().for_each(|tool| symlink("busybox", bin.join(tool)).unwrap());
        // Two tests at once must not take each other's image away.
        let tag = folder.path().file_name().unwrap().to_string_lossy().to_lowercase();
        let mut podman = Self { image: format!("localhost/{tag}:1"), folder, variables: Vec::new() };
        let tarball = podman.folder.path().join("root.tar").to_string_lossy().into_owned();
        let root = podman.folder.path().join("root").to_string_lossy().into_owned();
        let packed = Command::new("tar").args(["-C", &root, "-cf", &tarball, "."]).output().unwrap();
        assert!(packed.status.success(), "{packed:?}");
        let imported = podman.call(&["import", &tarball, &podman.image]);
        if !imported.status.success() {
            return Err(format!("podman import: {}", String::from_utf8_lossy(&imported.stderr).trim()));
        }
        let plain = podman.try_out();
        if plain.is_err() {
            podman.configure();
            podman.try_out().map_err(|e| format!("podman does not run a container here: {e}"))?;
        }
        Ok(podman)
    }

    /// For machines that let nobody raise limits, or mix both generations of control groups.
    fn configure(&mut self) {
        let runtime = if program("runc").is_some() { "[engine]\nruntime = \"runc\"\n" } else { "" };
        let file = self.folder.path().join("containers.conf");
        fs::write(&file, format!("[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1000:1000\"]\n{runtime}")).unwrap();
        self.variables.push(("CONTAINERS_CONF".to_owned(), file.to_string_lossy().into_owned()));
    }

    fn try_out(&self) -> Result<(), String> {
        let out = self.call(&["run", "--rm", "--network", "none", "--memory", "67108864", "--cpus", "1", &self.image, "echo", "works"]);
        if out.stdout == b"works\n" { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).trim().to_owned()) }
    }

    fn call(&self, args: &[&str]) -> Output {
        Command::new("podman").args(args).envs(self.variables.iter().cloned()).output().unwrap()
    }

    /// The running containers of our image.
    fn running(&self) -> usize {
        let out = self.call(&["ps", "--quiet", "--filter", &format!("ancestor={}", self.image)]);
        String::from_utf8_lossy(&out.stdout).lines().count()
    }

    /// A worker that finds this podman as it is set up here.
    fn worker(&self, server: &Server, id: &str) -> Worker {
        let worker = Worker::start_with(server, id, self.scratch(server), &["--slots", "2"], &self.variables);
        let has_it = |w: &serde_json::Value| w["id"] == id && w["tools"].to_string().contains("podman");
        eventually("the worker has found podman", || server.workers().iter().any(has_it).then_some(()));
        worker
    }

    fn scratch(&self, server: &Server) -> PathBuf {
        server.folder().join("outside/boxes")
    }

    fn job(&self, rest: &str) -> String {
        format!("name = \"boxed\"\n[[stage]]\ncontainer = {{ image = \"{}\", engine = \"podman\" }}\n{rest}", self.image)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        drop(self.call(&["rmi", "--force", &self.image]));
    }
}

fn server() -> Server {
    Server::start(Options { workers: "0..0", ..Options::default() })
}

#[test]
fn a_task_in_a_container_sees_its_input_its_limits_and_nothing_of_the_machine() {
    let podman = match Podman::new() {
        Ok(podman) => podman,
        Err(why) => return skipped("container tasks", &why),
    };
    let server = server();
    let worker = podman.worker(&server, "boxes");
    for name in ["a", "b"] {
        server.http().put(&format!("/api/v1/objects/data/{name}.txt"), format!("{name} in the container")).is(201);
    }
    let script = r#"command = ["sh", "-c", 'test ! -e /etc/hostname || test ! -s /etc/shadow || exit 9; echo "$WORD $HOME" >&2; cat "$1" > "$2"', "sh", "{in}", "{out}"]"#;
    let id =
        server.submit(&podman.job(&format!("objects = [\"data/*.txt\"]\nmemory = \"64MiB\"\nenv = {{ WORD = \"hello\" }}\n{script}\n")));
    let ended = server.ended(&id);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{}", server.cli(&["batch", "logs", &id]));
    let results = server.results(&id);
    assert_eq!((&results["a.txt"][..], &results["b.txt"][..]), (&b"a in the container"[..], &b"b in the container"[..]));
    let log = server.cli(&["batch", "logs", &id, "0", "--stream", "stderr"]).ok();
    assert!(log.stdout.starts_with("hello /task"), "{log}");
    // What fails in a container is told as it is told of a process.
    let id = server.submit(&podman.job("array = \"1-1\"\nretries = 0\ncommand = [\"sh\", \"-c\", \"echo broken >&2; exit 3\"]\n"));
    assert_eq!(server.ended(&id)["state"], "failed");
    let failure = &server.sql(&format!("SELECT class, exit_code, message FROM batch.failures WHERE job = '{id}'"))[0];
    assert_eq!((&failure["class"], &failure["exit_code"]), (&"exit".into(), &3.into()), "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("broken"), "{failure}");
    let id = server.submit(&podman.job("array = \"1-1\"\ncommand = [\"no-such-program\"]\n"));
    server.ended(&id);
    let failure = &server.sql(&format!("SELECT class, message FROM batch.failures WHERE job = '{id}'"))[0];
    assert_eq!(failure["class"], "start", "{failure}");
    assert!(failure["message"].as_str().unwrap().contains("no-such-program"), "{failure}");
    assert_eq!(podman.running(), 0);
    assert!(worker.process.is_alive());
}

#[test]
fn an_image_archive_among_the_objects_is_loaded_by_the_worker() {
    let podman = match Podman::new() {
        Ok(podman) => podman,
        Err(why) => return skipped("container images from objects", &why),
    };
    let archive = podman.folder.path().join("image.tar").to_string_lossy().into_owned();
    let saved = podman.call(&["save", "--output", &archive, &podman.image]);
    assert!(saved.status.success(), "{saved:?}");
    // Now nobody but the archive has it.
    assert!(podman.call(&["rmi", "--force", &podman.image]).status.success());
    let server = server();
    let _worker = podman.worker(&server, "boxes");
    server.http().put("/api/v1/objects/images/box.tar", fs::read(archive).unwrap()).is(201);
    let job =
        podman.job("array = \"1-3\"\ncommand = [\"sh\", \"-c\", 'echo $1 > $2', \"sh\", \"{index}\", \"{out}\"]\noutput = \"{index}\"\n");
    let id = server.submit(&job.replace(&podman.image, "images/box.tar"));
    let ended = server.ended(&id);
    assert_eq!(ended["state"], "succeeded", "{ended}\n{}", server.cli(&["batch", "logs", &id]));
    assert_eq!(server.results(&id)["3"], b"3\n");
}

#[test]
fn containers_end_with_their_task_and_with_their_worker() {
    let podman = match Podman::new() {
        Ok(podman) => podman,
        Err(why) => return skipped("the end of containers", &why),
    };
    let server = server();
    let worker = podman.worker(&server, "boxes");
    let deaf = "command = [\"sh\", \"-c\", \"trap '' TERM; sleep 600; sleep 600\"]\n";
    let gone = |what: &str| within(Duration::from_secs(20), what, || (podman.running() == 0).then_some(())).1;
    let id = server.submit(&podman.job(&format!("array = \"1-2\"\n{deaf}")));
    eventually("both containers run", || (podman.running() == 2).then_some(()));
    server.cli(&["batch", "cancel", &id]).ok();
    println!("cancel: containers were gone after {:?}", gone("the containers of a cancelled job end"));
    assert_eq!(server.ended(&id)["tasks"]["cancelled"], 2);
    let id = server.submit(&podman.job(&format!("array = \"1-1\"\ntimeout = \"3s\"\nretries = 0\n{deaf}")));
    assert_eq!(server.ended(&id)["state"], "failed");
    gone("the container of a task that took too long ends");
    let failure = &server.sql(&format!("SELECT class FROM batch.failures WHERE job = '{id}'"))[0];
    assert_eq!(failure["class"], "timeout");
    // A container belongs to its engine and not to the worker: when the worker is started again, it ends it.
    let id = server.submit(&podman.job(&format!("array = \"1-1\"\n{deaf}")));
    eventually("the container runs", || (podman.running() == 1).then_some(()));
    server.cli(&["batch", "pause", &id]).ok();
    drop(worker);
    let _again = podman.worker(&server, "boxes");
    gone("the container of a killed worker ends");
    server.cli(&["batch", "cancel", &id]).ok();
}

#[test]
fn a_container_task_without_an_engine_says_what_is_missing() {
    let server = server();
    // A search path on which there is no engine, whatever the machine has.
    let empty = server.folder().join("no-programs").to_string_lossy().into_owned();
    let scratch = server.folder().join("outside/bare");
    let _worker = Worker::start_with(&server, "bare", scratch, &["--slots", "1"], &[("PATH".to_owned(), empty)]);
    let id = server
        .submit("name = \"boxed\"\n[[stage]]\narray = \"1-1\"\nretries = 0\ncontainer = { image = \"busybox\" }\ncommand = [\"true\"]\n");
    let job = server.ended(&id);
    assert_eq!(job["state"], "failed", "{job}");
    let failures = server.sql(&format!("SELECT class, message FROM batch.failures WHERE job = '{id}'"));
    assert_eq!(failures[0]["class"], "start", "{failures:?}");
    assert!(failures[0]["message"].as_str().unwrap().contains("podman"), "{failures:?}");
}
