//! Credentials of tasks on workers that speak to the engines themselves: issued by the worker, checked by whoever holds the objects.

use std::path::Path;
use std::process::Command;

use tidemill_it::{Engine, Options, Server, Worker, aws_command, skipped};

use super::on_engines;
use crate::task_credentials::job_file;

on_engines! {
    a_task_on_engines_reaches_its_own_folder_alone
}

/// Makes a role that may do everything in the bucket, and answers its name in full: what a credential reaches of that is for the grant to say.
fn make_role(aws: &Path, engine: &Engine) -> String {
    let value = |name: &str| engine.variables.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap();
    let (endpoint, bucket) = (value("TIDEMILL_AWS_ENDPOINT"), value("TIDEMILL_AWS_BUCKET"));
    let call = |args: &[&str]| {
        let mut command = Command::new(aws);
        command.args(["--endpoint-url", &endpoint, "--region", "us-east-1"]).args(args).envs(engine.variables.iter().cloned());
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    let trust = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}"#;
    call(&["iam", "create-role", "--role-name", &bucket, "--assume-role-policy-document", trust]);
    let reach = format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"s3:*","Resource":["arn:aws:s3:::{bucket}","arn:aws:s3:::{bucket}/*"]}}]}}"#
    );
    call(&["iam", "put-role-policy", "--role-name", &bucket, "--policy-name", "objects", "--policy-document", &reach]);
    format!("arn:aws:iam::000000000000:role/{bucket}")
}

fn a_task_on_engines_reaches_its_own_folder_alone(engine: &Engine) {
    let Some(aws) = aws_command() else {
        return skipped("S3 clients", "no awscli; `cargo test -p tidemill-server --test s3_clients` installs it once");
    };
    let sts = engine.driver == "aws";
    let engine = match sts {
        true => engine.with("TIDEMILL_DRIVERS_GRANTS", "aws").with("TIDEMILL_AWS_ROLE_ARN", &make_role(&aws, engine)),
        false => engine.clone(),
    };
    engine.prepare();
    let server = Server::start(Options { s3: !sts, workers: "0..0", variables: engine.variables.clone(), ..Options::default() });
    // What we sign ourselves is for our own endpoint, and the worker has to be told where that is.
    let engine = server.s3_url().map_or_else(|| engine.clone(), |url| engine.with("TIDEMILL_SERVER_S3_URL", &url));
    let _worker = Worker::start_on_engines(&server, "direct-1", &["--slots", "2"], &engine.variables);
    let seen = server.folder().join("seen");
    std::fs::create_dir(&seen).unwrap();
    let id = server.submit(&job_file(&aws, &seen));
    let job = server.ended(&id);
    assert_eq!(job["state"], "succeeded", "{job}\n{}", server.cli(&["batch", "logs", &id, "0"]));
    for task in ["0", "1"] {
        assert!(server.cli(&["batch", "logs", &id, task]).ok().stdout.contains(&format!("mine {task}")));
    }
}
