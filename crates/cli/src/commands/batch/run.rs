//! `tidemill batch run`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::Args;
use tidemill_base::{Error, Result};
use tidemill_batch::spec::CommandInput;
use tidemill_client::Client;

use super::closing::{Closing, close};
use super::job::{JobOptions, array};
use super::submit::{Submitted, submit};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::note;
use crate::progress::Subject;
use crate::transfer::{LocalFile, expand, object_names, upload};
use crate::watch::{Watched, watch};

/// Run a command over files, lines or numbers, and wait for it.
///
/// Placeholders in the command: {in} {out} {name} {file} {line} {index}. Input files are uploaded; each task gets its own as {in} and
/// leaves its result at {out}.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tidemill batch run --input 'photos/*.jpg' --results small -- convert {in} -resize 50% {out}\n  \
tidemill batch run --lines urls.txt --retries 3 -- curl -sfo {out} {line}\n  \
tidemill batch run --array 1-100 -- ./simulate --seed {index}")]
pub(crate) struct Run {
    /// Files to work on, one a task: patterns, names, or a list made by the shell.
    #[arg(long, short, num_args = 1.., value_name = "GLOB", group = "what")]
    input: Vec<String>,
    /// Objects that are in the store already, such as photos/2025/**.
    #[arg(long, num_args = 1.., value_name = "PATTERN", group = "what")]
    objects: Vec<String>,
    /// A text file whose lines to work on, one a task; `-` is standard input.
    #[arg(long, value_name = "FILE", group = "what")]
    lines: Option<PathBuf>,
    /// Numbers to work on, one a task: 1-100.
    #[arg(long, value_name = "A-B", group = "what", allow_hyphen_values = true)]
    array: Option<String>,
    /// Files or lines to a task.
    #[arg(long, default_value_t = 1, value_name = "N")]
    per_task: u64,
    #[command(flatten)]
    options: JobOptions,
    /// Print the job's id and do not wait.
    #[arg(long, conflicts_with = "results")]
    detach: bool,
    /// Download the results into this folder when the job has ended.
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<String>,
}

/// Input of this machine, before it is uploaded.
enum Local {
    Nothing(CommandInput),
    Files(Vec<LocalFile>),
    Lines(Vec<u8>),
}

impl Run {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let local = self.local()?;
        // Whatever is wrong with the command is said before the first byte is uploaded.
        self.options.check(self.input_at(&local, "uploads/new"), &self.command, cx.env.now())?;
        let client = cx.client()?;
        let prefix = self.upload(cx, &client, &local).await?;
        let job = self.options.to_json(&self.input_at(&local, &prefix), &self.command)?;
        let submitted = submit(cx, &client, job).await?;
        if self.detach {
            return cx.show(&Submitted(submitted)).map(|()| Exit::Success);
        }
        let id = submitted.id;
        note(&format!("job {id}"));
        match watch(&client, Subject::Job(&id), cx.progress()).await? {
            Watched::Ended(job) => close(cx, &client, *job, self.results.as_deref()).await,
            Watched::Interrupted => Ok(Closing::interrupted(cx, &id)),
        }
    }

    fn local(&self) -> Result<Local> {
        if !self.input.is_empty() {
            let files = expand(&self.input)?;
            let names = object_names(&files)?;
            return Ok(Local::Files(files.into_iter().zip(names).map(|(path, name)| LocalFile { path, name }).collect()));
        }
        if let Some(file) = &self.lines {
            return read_lines(file).map(Local::Lines);
        }
        Ok(Local::Nothing(match &self.array {
            Some(text) => array(text)?,
            None if self.objects.is_empty() => CommandInput::Once,
            None => CommandInput::Objects { patterns: self.objects.clone(), per_task: self.per_task },
        }))
    }

    /// What the job works on, when the local input lies under `prefix`.
    fn input_at(&self, local: &Local, prefix: &str) -> CommandInput {
        match local {
            Local::Nothing(input) => input.clone(),
            Local::Files(_) => CommandInput::Objects { patterns: vec![format!("{prefix}/**")], per_task: self.per_task },
            Local::Lines(_) => CommandInput::Lines { object: format!("{prefix}/lines.txt"), per_task: self.per_task },
        }
    }

    async fn upload(&self, cx: &Context, client: &Client, local: &Local) -> Result<String> {
        match local {
            Local::Nothing(_) => Ok(String::new()),
            Local::Files(files) => upload(client, &cx.env, files, cx.progress()).await,
            Local::Lines(text) => {
                let prefix = client.new_upload().await?.prefix.trim_end_matches('/').to_owned();
                client.put_object(&format!("{prefix}/lines.txt"), text.clone()).await?;
                Ok(prefix)
            }
        }
    }
}

fn read_lines(file: &Path) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map(drop)
    } else {
        std::fs::read(file).map(|content| text = content)
    };
    read.map_err(|e| Error::invalid(format!("--lines {} cannot be read", file.display())).with_source(e))?;
    if text.iter().all(u8::is_ascii_whitespace) {
        return Err(Error::invalid(format!("--lines {} has no lines", file.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use tidemill_base::ErrorKind;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        run: Run,
    }

    fn parse(words: &[&str]) -> Run {
        Only::try_parse_from(std::iter::once("run").chain(words.iter().copied())).unwrap().run
    }

    #[test]
    fn files_are_uploaded_under_names_that_keep_their_folders() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["2024/a.jpg", "2025/a.jpg"] {
            let file = folder.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, name).unwrap();
        }
        let run = parse(&["--input", &format!("{}/*/*.jpg", folder.path().display()), "--", "convert", "{in}", "{out}"]);
        let Local::Files(files) = run.local().unwrap() else { panic!("files") };
        assert_eq!(files.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["2024/a.jpg", "2025/a.jpg"]);
        let CommandInput::Objects { patterns, .. } = run.input_at(&Local::Files(files), "uploads/u1") else { panic!("objects") };
        assert_eq!(patterns, ["uploads/u1/**"]);
    }

    #[tokio::test]
    async fn what_is_wrong_is_said_before_a_server_is_looked_for() {
        let cx = Context::new(Some(PathBuf::from("/nowhere")), crate::output::Format::Table);
        for (words, want) in [
            (&["--input", "/nowhere/*.jpg", "--", "true"][..], "`/nowhere/*.jpg` matches no file"),
            (&["--array", "1-3", "--", "cat", "{in}"][..], "`{in}` is not given by an array"),
            (&["--array", "9-1", "--", "true"][..], "is empty"),
            (&["--lines", "/nowhere/list", "--", "true"][..], "--lines /nowhere/list cannot be read"),
            (&["--", "echo", "{nmae}"][..], "nmae"),
        ] {
            let error = parse(words).run(&cx).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{words:?}: {error}");
            assert!(error.message().contains(want), "{words:?}: {error}");
        }
        let error = parse(&["--", "true"]).run(&cx).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}
