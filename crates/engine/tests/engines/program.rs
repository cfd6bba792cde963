//! Programs that read a file and write a file for each task, behind the adapter of the Rust kit.

use tidemill_engine::{Format, Function, PoolSettings, Session, SetUp, Task};

use crate::support::{block_on, error, place, rig, value};

fn session(command: &[&str]) -> Session {
    let mut session = Session::new(Function::Named("program".into()));
    (session.input, session.output) = (Format::Raw, Format::Raw);
    session.parameters.insert("command".into(), command.join("\n"));
    session
}

#[test]
fn a_program_of_files_is_an_engine() {
    block_on(async {
        let mut session =
            session(&["sh", "-c", "test -s \"$1\" || exit 4; cat \"$3\" \"$1\" > \"$2\"; echo said >&2", "sh", "{in}", "{out}", "{data}"]);
        session.set_up = SetUp { function: None, data: Some("model: ".into()) };
        session.parameters.insert("in".into(), "trade.xml".into());
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(2), session);
        rig.submit((0..20).map(|id| Task::new(id, if id == 7 { String::new() } else { format!("trade {id}") })).collect()).await;
        let had = rig.collect(20).await;
        for outcome in &had {
            if outcome.task == 7 {
                assert!(error(outcome).class == "exit" && error(outcome).message.contains("exit status: 4"), "{outcome:?}");
            } else {
                assert_eq!(value(outcome), format!("model: trade {}", outcome.task));
            }
        }
        rig.end().await;
    });
}

#[test]
fn a_program_that_prints_needs_no_file() {
    block_on(async {
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(1), session(&["sort", "{in}"]));
        rig.submit(vec![Task::new(0, "b\na\n")]).await;
        assert_eq!(value(&rig.collect(1).await[0]), "a\nb\n");
        rig.end().await;
    });
}

#[test]
fn a_command_that_makes_no_sense_is_refused() {
    block_on(async {
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(1), session(&["no-such-program", "{in}"]));
        rig.submit(vec![Task::new(0, "x")]).await;
        let had = rig.collect(1).await;
        assert!(error(&had[0]).message.contains("`no-such-program` was not started"), "{had:?}");
        let mut without = session(&[]);
        without.parameters.clear();
        let second = rig.pool.open(without);
        rig.pool.submit(second, vec![Task::new(0, "x")]).await.unwrap();
        let batch = rig.batch().await;
        assert!(error(&batch.outcomes[0]).message.contains("no parameter `command`"), "{batch:?}");
        rig.end().await;
    });
}

/// A program that copies a folder to a folder, with a file about it.
const COPIES: &str = "cp \"$1\"/* \"$2\"; cat dependency-* > \"$2/needed.txt\" 2>/dev/null; printf 'n,share\\n1,0.25\\n' > \"$2/more.csv\"";

fn folders(parameters: &[(&str, &str)]) -> Session {
    let mut session = session(&["sh", "-c", COPIES, "sh", "{inputs}", "{outputs}"]);
    (session.input, session.output) = (Format::Json, Format::Json);
    session.parameters.extend(parameters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    session
}

const FILES: &str = r#"{"trades.csv":[{"id":7,"price":1.50},{"id":8}],"ore.xml":"<ORE/>","setup.json":{"base":"EUR"}}"#;

#[test]
fn a_program_of_folders_is_an_engine() {
    block_on(async {
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(1), folders(&[]));
        let mut task = Task::new(0, FILES);
        task.dependencies = ["one ", "two"].map(Into::into).into();
        rig.submit(vec![task]).await;
        let json = r#"{"more.csv":[{"n":1,"share":0.25}],"needed.txt":"one two","ore.xml":"<ORE/>","setup.json":{"base":"EUR"},"trades.csv":[{"id":7,"price":1.5},{"id":8,"price":null}]}"#;
        assert_eq!(value(&rig.collect(1).await[0]), json);
        rig.end().await;
    });
}

#[test]
fn one_file_of_a_folder_is_the_result_as_rows() {
    block_on(async {
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(1), folders(&[("out", "more.csv")]));
        rig.submit(vec![Task::new(0, FILES), Task::new(1, r#"{"../x":""}"#), Task::new(2, "7")]).await;
        for outcome in rig.collect(3).await {
            match outcome.task {
                0 => assert_eq!(value(&outcome), r#"[{"n":1,"share":0.25}]"#),
                1 => assert!(error(&outcome).message.contains("`../x` is no name"), "{outcome:?}"),
                _ => assert!(error(&outcome).message.contains("no JSON object of file names"), "{outcome:?}"),
            }
        }
        rig.end().await;
    });
}

#[test]
fn what_a_program_of_folders_cannot_be_told_is_refused() {
    block_on(async {
        let mut raw = folders(&[]);
        (raw.input, raw.output) = (Format::Raw, Format::Raw);
        let mut rig = rig(place("tiny_engine"), PoolSettings::new(1), raw);
        rig.submit(vec![Task::new(0, "x")]).await;
        assert!(error(&rig.collect(1).await[0]).message.contains("open the session with the input `json`"));
        for (name, text, want) in [
            ("command", "[1]", "no JSON array of strings"),
            ("out", "../x", "without a path"),
            ("command", "cp\n{out}\n{outputs}", "names both"),
        ] {
            let session = rig.pool.open(folders(&[(name, text)]));
            rig.pool.submit(session, vec![Task::new(0, "{}")]).await.unwrap();
            let batch = rig.batch().await;
            assert!(error(&batch.outcomes[0]).message.contains(want), "{batch:?}");
        }
        rig.end().await;
    });
}
