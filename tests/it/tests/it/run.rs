//! `tidemill batch run`: what goes in, what comes out, how it ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tidemill_it::{Call, Options, Server};

/// Every file below a folder by its relative name.
fn files_in(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                found.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    found
}

#[test]
fn an_array_of_a_hundred_numbers_is_computed_and_downloaded() {
    let server = Server::start(Options::default());
    let done = server.cli(&[
        "batch",
        "run",
        "--array",
        "1-100",
        "--name",
        "squares",
        "--output-name",
        "{index}.txt",
        "--results",
        "squares",
        "-o",
        "json",
        "--",
        "awk",
        "BEGIN{print ARGV[1] * ARGV[1] > ARGV[2]}",
        "{index}",
        "{out}",
    ]);
    let job = done.ok().json();
    let want: BTreeMap<String, Vec<u8>> = (1..=100_u64).map(|n| (format!("{n}.txt"), format!("{}\n", n * n).into_bytes())).collect();
    assert_eq!(files_in(&server.folder().join("squares")), want);

    let id = job["id"].as_str().unwrap();
    let shown = server.cli(&["batch", "show", id, "--output", "json"]).ok().json();
    assert_eq!(
        (shown["state"].as_str(), shown["name"].as_str(), shown["user"].as_str()),
        (Some("succeeded"), Some("squares"), Some("admin"))
    );
    for (word, count) in [("total", 100), ("succeeded", 100), ("failed", 0), ("running", 0), ("waiting", 0), ("retrying", 0)] {
        assert_eq!(shown["tasks"][word], count, "{word}");
    }
    assert_eq!(shown["attempts"], 100);
    assert_eq!(shown["stages"].as_array().unwrap().len(), 1);
    assert_eq!(shown["stages"][0]["bytes_out"].as_u64().unwrap(), want.values().map(|v| v.len() as u64).sum::<u64>());
    for time in ["submitted_at", "started_at", "finished_at"] {
        assert!(shown[time].as_str().is_some_and(|t| t.ends_with('Z')), "{time}: {shown}");
    }
    assert_eq!(server.results(id), want);
}

#[test]
fn files_of_any_name_go_in_and_come_out_and_no_shell_reads_them() {
    let server = Server::start(Options::default());
    let names = [
        "plain.txt",
        "with space.txt",
        " leading and trailing ",
        "; touch pwned",
        "$(touch pwned).txt",
        "`touch pwned`",
        "| touch pwned &",
        "-rf",
        "--help",
        "it's \"quoted\".txt",
        "back\\slash\\n.txt",
        "line\u{2028}separator",
        "m\u{fc}hle \u{6c34}\u{8eca} \u{1f30a}.txt",
        "100%.txt",
        "a+b=c&d?e#f.txt",
        "{in}",
        "{{out}}",
        "*.txt",
        "[a-z].txt",
        "sub folder/deep er/plain.txt",
        ".not hidden when named",
    ];
    let input = server.folder().join("in");
    let mut want = BTreeMap::new();
    for (n, name) in names.iter().enumerate() {
        let file = input.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        // Bytes that are no text, among them newlines and zeros.
        let content: Vec<u8> = (0..=255_u8).cycle().skip(n).take(300 + n).collect();
        fs::write(&file, &content).unwrap();
        let base = name.rsplit('/').next().unwrap();
        let expected = [format!("3|{base}|").into_bytes(), content].concat();
        want.insert((*name).to_owned(), expected);
    }
    let inputs: Vec<String> = names.iter().map(|n| input.join(n).to_string_lossy().into_owned()).collect();
    let script = "printf '%s|%s|' \"$#\" \"$2\" > \"$3\" && cat \"$1\" >> \"$3\"";
    let mut args = vec!["batch", "run", "--results", "out", "--input"];
    args.extend(inputs.iter().map(String::as_str));
    args.extend(["--", "sh", "-c", script, "sh", "{in}", "{file}", "{out}"]);
    server.cli(&args).ok();
    let mut got = files_in(&server.folder().join("out"));
    // Two inputs are called plain.txt: their results lie in folders of their tasks.
    let plain: Vec<String> = got.keys().filter(|k| k.ends_with("/plain.txt")).cloned().collect();
    assert_eq!(plain.len(), 2, "{:?}", got.keys());
    let mut twins: Vec<Vec<u8>> = plain.iter().map(|k| got.remove(k).unwrap()).collect();
    let mut want_twins = vec![want.remove("plain.txt").unwrap(), want.remove("sub folder/deep er/plain.txt").unwrap()];
    twins.sort();
    want_twins.sort();
    assert!(twins == want_twins, "the twins differ");
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
    assert!(got == want, "contents differ: {:?}", got.iter().filter(|(k, v)| want[*k] != **v).map(|(k, _)| k).collect::<Vec<_>>());
    assert!(files_in(server.folder()).keys().all(|k| !k.ends_with("pwned") || k.starts_with("in/") || k.starts_with("out/")));
}

#[test]
fn a_name_with_a_newline_is_refused_before_anything_is_uploaded() {
    let server = Server::start(Options { workers: "0..0", ..Options::default() });
    fs::write(server.folder().join("a\nb"), "x").unwrap();
    server.cli(&["batch", "run", "--input", "a*", "--", "cat", "{in}"]).exits(2).says("rename the file");
    assert_eq!(server.http().get("/api/v1/batch/jobs").json()["jobs"].as_array().unwrap().len(), 0);
}

#[test]
fn lines_become_arguments_as_they_are() {
    let server = Server::start(Options::default());
    let lines = [
        "one",
        "",
        "two words",
        "  spaces  ",
        "; touch pwned",
        "$HOME `id` \"q\" 'q'",
        "\u{6c34}\u{8eca}",
        "{line}",
        "-n",
        "last without newline",
    ];
    let script = "printf '%s|%s' \"$#\" \"$1\" > \"$2\"";
    let run = |file: &str, out: &str| {
        ["batch", "run", "--lines", file, "--output-name", "{index}", "--results", out, "--", "sh", "-c", script, "sh", "{line}", "{out}"]
            .map(str::to_owned)
    };
    let want: BTreeMap<String, Vec<u8>> = lines.iter().enumerate().map(|(n, l)| (n.to_string(), format!("2|{l}").into_bytes())).collect();
    fs::write(server.folder().join("lines.txt"), lines.join("\n")).unwrap();
    server.cli(&run("lines.txt", "from-file")).ok();
    assert_eq!(files_in(&server.folder().join("from-file")), want);
    // The same from standard input, with the line ends of another system.
    server.call(&run("-", "from-stdin")).stdin(lines.join("\r\n")).run().ok();
    assert_eq!(files_in(&server.folder().join("from-stdin")), want);
}

#[test]
fn exit_codes_are_those_that_scripts_rely_on() {
    let server = Server::start(Options::default());
    server.cli(&["batch", "run", "--", "true"]).exits(0);
    let failed =
        server.cli(&["batch", "run", "--retries", "0", "--array", "1-4", "-o", "json", "--", "sh", "-c", "test $1 != 3", "sh", "{index}"]);
    let job = failed.exits(1).json();
    assert_eq!((job["state"].as_str(), &job["tasks"]["succeeded"], &job["tasks"]["failed"]), (Some("failed"), &3.into(), &1.into()));
    assert_eq!(job["failures"][0]["task"], 2, "the task of number 3 is named: {job}");
    assert_eq!(job["failures"][0]["exit"], 1);
    server.cli(&["batch", "run"]).exits(2);
    server.cli(&["batch", "run", "--input", "none/*.jpg", "--", "true"]).exits(2).says("none/*.jpg");
    server.cli(&["batch", "run", "--", "echo", "{nmae}"]).exits(2).says("{name}");
    server.cli(&["batch", "show", "j-not-there"]).exits(1).says("j-not-there");
    let nobody = Call::new(&["batch", "run", "--", "true"]).env("TIDEMILL_URL", "http://127.0.0.1:1").env("TIDEMILL_TOKEN", "tm_x").run();
    nobody.exits(3).says("http://127.0.0.1:1").says("hint");
    let nowhere = server.folder().join("nowhere").to_string_lossy().into_owned();
    Call::new(&["--data", &nowhere, "batch", "list"]).run().exits(3);
}
