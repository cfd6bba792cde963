//! Real S3 clients with a temporary credential for one prefix.

use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tidemill_it::{Options, Server, aws_command, skipped};

struct Client<'a> {
    aws: PathBuf,
    server: &'a Server,
    credential: Value,
}

impl Client<'_> {
    fn run(&self, args: &[&str]) -> (bool, String) {
        let word = |name: &str| self.credential[name].as_str().unwrap_or_else(|| panic!("{name} in {}", self.credential)).to_owned();
        let mut command = Command::new(&self.aws);
        command.args(args).args(["--endpoint-url", &self.server.s3_url().unwrap()]).current_dir(self.server.folder());
        command.env("AWS_ACCESS_KEY_ID", word("access_key")).env("AWS_SECRET_ACCESS_KEY", word("secret_key"));
        command.env("AWS_SESSION_TOKEN", word("session_token")).env("AWS_DEFAULT_REGION", "us-east-1").env("AWS_MAX_ATTEMPTS", "1");
        command.env("AWS_CONFIG_FILE", "/dev/null").env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
        let done = command.output().unwrap();
        (done.status.success(), format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr)))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let (ok, text) = self.run(args);
        assert!(ok, "aws {args:?}: {text}");
        text
    }

    #[track_caller]
    fn denied(&self, args: &[&str]) {
        let (ok, text) = self.run(args);
        assert!(!ok && (text.contains("AccessDenied") || text.contains("403")), "aws {args:?}: {text}");
    }

    /// The system's own bucket is not even there.
    #[track_caller]
    fn unknown(&self, args: &[&str]) {
        let (ok, text) = self.run(args);
        assert!(!ok && text.contains("NoSuchBucket"), "aws {args:?}: {text}");
    }
}

#[test]
fn a_credential_works_within_its_prefix_and_not_outside() {
    let Some(aws) = aws_command() else {
        return skipped("S3 clients", "no awscli; `cargo test -p tidemill-server --test s3_clients` installs it once");
    };
    let server = Server::start(Options { s3: true, ..Options::default() });
    server.http().put("/api/v1/objects/data/other/secret.txt", "not yours").is(201);
    let client = |wanted: Value| {
        let credential = server.http().post("/api/v1/credentials", &wanted).is(201).json();
        Client { aws: aws.clone(), server: &server, credential }
    };
    let mine = client(json!({"prefix": "data/mine"}));
    let content: Vec<u8> = (0..20_000_000_u32).map(|n| (n ^ (n >> 11)) as u8).collect();
    std::fs::write(server.folder().join("large.bin"), &content).unwrap();
    mine.ok(&["s3", "cp", "large.bin", "s3://data/mine/in/large.bin"]);
    assert!(mine.ok(&["s3", "ls", "s3://data/mine/in/"]).contains("20000000"));
    mine.ok(&["s3", "cp", "s3://data/mine/in/large.bin", "back.bin"]);
    assert!(std::fs::read(server.folder().join("back.bin")).unwrap() == content);
    mine.denied(&["s3api", "get-object", "--bucket", "data", "--key", "other/secret.txt", "stolen"]);
    mine.denied(&["s3api", "put-object", "--bucket", "data", "--key", "other/x", "--body", "back.bin"]);
    mine.denied(&["s3api", "put-object", "--bucket", "data", "--key", "mine2/x", "--body", "back.bin"]);
    mine.denied(&["s3api", "list-objects-v2", "--bucket", "data", "--prefix", "other/"]);
    mine.unknown(&["s3api", "list-objects-v2", "--bucket", "system"]);
    assert!(!server.folder().join("stolen").exists() || std::fs::read(server.folder().join("stolen")).unwrap().is_empty());

    let reader = client(json!({"prefix": "data/mine", "read_only": true}));
    reader.ok(&["s3", "cp", "s3://data/mine/in/large.bin", "back2.bin"]);
    reader.denied(&["s3api", "put-object", "--bucket", "data", "--key", "mine/y", "--body", "back.bin"]);
    reader.denied(&["s3api", "delete-object", "--bucket", "data", "--key", "mine/in/large.bin"]);
    server.http().post("/api/v1/credentials", &json!({"prefix": "system"})).is(403);
    server.http().post("/api/v1/credentials", &json!({"prefix": ""})).is(403);

    // What a client has put there is a job's input.
    let job = server.cli(&[
        "batch",
        "run",
        "--objects",
        "data/mine/in/*",
        "--stdout",
        "-o",
        "json",
        "--",
        "sh",
        "-c",
        "wc -c < \"$1\"",
        "sh",
        "{in}",
    ]);
    let id = job.ok().json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.cli(&["batch", "results", &id, "--cat"]).ok().word(), "20000000");
}

#[test]
fn one_line_sets_up_the_clients_of_a_shell_and_the_aws_tools_ask_by_themselves() {
    let Some(aws) = aws_command() else {
        return skipped("S3 clients", "no awscli; `cargo test -p tidemill-server --test s3_clients` installs it once");
    };
    let server = Server::start(Options { s3: true, ..Options::default() });
    server.http().put("/api/v1/objects/data/mine/a.txt", "hello").is(201);
    let shell = |script: &str| {
        let mut command = Command::new("/bin/sh");
        command.args(["-ec", script]).current_dir(server.folder()).env_clear().env("PATH", "/usr/bin:/bin").env("AWS", &aws);
        command.env("MILL", tidemill_it::binary()).env("DATA", server.data()).env("URL", server.s3_url().unwrap());
        let done = command.env("HOME", server.folder()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    };
    assert_eq!(
        shell("eval \"$($MILL --data $DATA credentials --prefix data/mine --for 10m)\"; $AWS s3 cp s3://data/mine/a.txt -"),
        "hello"
    );
    let config = "printf '[default]\ncredential_process = %s --data %s credentials --prefix data/mine --process\nregion = us-east-1\n\
                  endpoint_url = %s\n' $MILL $DATA $URL > config; export AWS_CONFIG_FILE=$PWD/config; $AWS s3 cp s3://data/mine/a.txt -";
    assert_eq!(shell(config), "hello");
}
