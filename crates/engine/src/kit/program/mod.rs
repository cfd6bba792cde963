//! Programs that know nothing of engines: for each task they are started anew, read files and write files.

mod files;
mod rows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Call, Handler, Kit, Opening};
use crate::session::{Format, TaskError};
use crate::wire::Start;

/// So much of what a failed program has said stands in the message, characters.
const SAID: usize = 400;
/// The folders of a task that a program reads and writes; they are made when the command names them.
const INPUTS: &str = "{inputs}";
const OUTPUTS: &str = "{outputs}";

/// The engine that runs other programs: its one function is [`program`], under the name `run`.
pub fn programs(name: &str, version: &str) -> Kit {
    Kit::new(name, version).function("run", program)
}

/// A function for [`Kit::function`] that starts a program for each task.
///
/// The session's parameter `command` has one argument a line, or is a JSON array of them. In each argument these words stand for paths:
///
/// | word | what is there |
/// | --- | --- |
/// | `{in}` | a file with the task's payload |
/// | `{inputs}` | a folder with the task's files: the payload is a JSON object of file names and contents |
/// | `{out}` | a file that the program writes: the result |
/// | `{outputs}` | a folder that the program writes to. The parameter `out` says which file in it is the result; without it, all are, as a JSON object of file names and contents |
/// | `{data}` | a file with the session's set-up data |
/// | `{package:NAME}` | the folder of a package |
/// | `{dir}` | the task's own folder, in which the program is started. The results that the task depends on are in it as `dependency-0` and so on |
///
/// Without `{out}` and `{outputs}` the result is what the program writes to standard output. The parameters `in` and `out` name the files, for
/// programs that look at a suffix (else they are `in` and `out`).
///
/// With the output `json`, a file `*.csv` becomes an array with an object for each row, so that SQL reads it as rows: what is written like a JSON number
/// is one, digit for digit, an empty field is null, and anything else is text. With the input `json`, an array of objects is written to a file `*.csv`
/// as rows with a header line. A file of another name holds the text, or the JSON, that it is given.
///
/// A program that ends with another code than 0 fails its task with the class `exit`; the end of its standard error is in the message, and all of it in
/// the traceback.
pub fn program(opening: &Opening<'_>) -> Result<impl Handler + use<>, TaskError> {
    let parameters = &opening.session.parameters;
    let scratch = PathBuf::from(&opening.start.scratch);
    let argv = arguments(opening.parameter("command")?)?;
    let names = |word: &str| argv.iter().any(|a| a.contains(word));
    let input = if names(INPUTS) { Input::Folder } else { Input::File(named(parameters.get("in"), "in")?) };
    let output = match (names(OUTPUTS), names("{out}")) {
        (true, true) => return Err(invalid("`command` names both `{out}` and `{outputs}`; the result is in one of them")),
        (true, false) => match parameters.get("out") {
            Some(_) => Output::FileOfFolder(named(parameters.get("out"), "out")?),
            None => Output::Folder,
        },
        (false, true) => Output::File(named(parameters.get("out"), "out")?),
        (false, false) => Output::Said,
    };
    let formats = (opening.session.input, opening.session.output);
    if matches!(input, Input::Folder) && formats.0 != Format::Json {
        return Err(invalid("`{inputs}` takes its files from a JSON object; open the session with the input `json`, or use `{in}`"));
    }
    if matches!(output, Output::Folder) && formats.1 != Format::Json {
        return Err(invalid(
            "`{outputs}` gives all files as a JSON object; open the session with the output `json`, or name one with the parameter `out`",
        ));
    }
    let data = keep_data(&scratch, opening.data())?;
    let argv = argv.into_iter().map(|a| fixed(a, &data, opening.start)).collect::<Result<_, _>>()?;
    Ok(Program { argv, scratch, input, output, formats })
}

/// What a program is given.
#[derive(Debug)]
enum Input {
    File(String),
    Folder,
}

/// Where its result is.
#[derive(Debug)]
enum Output {
    File(String),
    FileOfFolder(String),
    Folder,
    Said,
}

#[derive(Debug)]
struct Program {
    argv: Vec<String>,
    scratch: PathBuf,
    input: Input,
    output: Output,
    formats: (Format, Format),
}

fn invalid(message: &str) -> TaskError {
    TaskError::new("invalid", message)
}

fn arguments(command: &str) -> Result<Vec<String>, TaskError> {
    let argv: Vec<String> = match command.trim_start().starts_with('[') {
        true => serde_json::from_str(command).map_err(|e| invalid(&format!("the parameter `command` is no JSON array of strings: {e}")))?,
        false => command.lines().map(str::to_owned).collect(),
    };
    match argv.first().is_some_and(|program| !program.is_empty()) {
        true => Ok(argv),
        false => Err(invalid("the parameter `command` is empty; give it one argument a line, or a JSON array of them")),
    }
}

fn named(given: Option<&String>, usual: &str) -> Result<String, TaskError> {
    let name = given.map_or(usual, String::as_str);
    files::check(name).map_err(|_| invalid("`in` and `out` name files in the task's own folder, without a path"))?;
    Ok(name.to_owned())
}

/// Sessions share the engine but each has its own data.
fn keep_data(scratch: &Path, data: &[u8]) -> Result<PathBuf, TaskError> {
    let file = scratch.join("session-data");
    let file = (0_u32..).map(|n| file.with_extension(n.to_string())).find(|f| !f.exists()).unwrap_or(file);
    write(&file, data)?;
    Ok(file)
}

/// Fills in what is the same for all tasks.
fn fixed(argument: String, data: &Path, start: &Start) -> Result<String, TaskError> {
    let mut argument = argument.replace("{data}", &data.to_string_lossy());
    while let Some((before, rest)) = argument.split_once("{package:") {
        let Some((name, after)) = rest.split_once('}') else { break };
        argument = format!("{before}{}{after}", super::package(start, name)?.display());
    }
    Ok(argument)
}

impl Handler for Program {
    fn run(&mut self, call: Call<'_>) -> Result<Vec<u8>, TaskError> {
        let folder = self.scratch.join(format!("task-{}", call.task));
        fs::create_dir_all(&folder).map_err(|e| failed("make the folder", &folder, &e))?;
        let result = self.run_in(&folder, call);
        fs::remove_dir_all(&folder).map_err(|e| failed("remove the folder", &folder, &e))?;
        result
    }
}

impl Program {
    fn run_in(&self, folder: &Path, call: Call<'_>) -> Result<Vec<u8>, TaskError> {
        let (inputs, outputs) = (folder.join("inputs"), folder.join("outputs"));
        let (input, output) = match (&self.input, &self.output) {
            (Input::File(input), Output::File(output)) => (folder.join(input), folder.join(output)),
            (Input::File(input), _) => (folder.join(input), PathBuf::new()),
            (Input::Folder, Output::File(output)) => (PathBuf::new(), folder.join(output)),
            (Input::Folder, _) => (PathBuf::new(), PathBuf::new()),
        };
        match self.input {
            Input::File(_) => files::write_payload(&input, call.payload, self.formats.0)?,
            Input::Folder => files::write_folder(&inputs, call.payload)?,
        }
        if matches!(self.output, Output::Folder | Output::FileOfFolder(_)) {
            fs::create_dir(&outputs).map_err(|e| failed("make the folder", &outputs, &e))?;
        }
        for (i, dependency) in call.dependencies.iter().enumerate() {
            write(&folder.join(format!("dependency-{i}")), dependency)?;
        }
        let places = [("{in}", &input), ("{out}", &output), (INPUTS, &inputs), (OUTPUTS, &outputs), ("{dir}", &folder.to_owned())];
        let fill = |argument: &String| places.iter().fold(argument.clone(), |a, (name, path)| a.replace(name, &path.to_string_lossy()));
        let said = start(&self.argv.iter().map(fill).collect::<Vec<_>>(), folder)?;
        match &self.output {
            Output::File(_) => files::read_result(&output, self.formats.1),
            Output::FileOfFolder(name) => files::read_result(&outputs.join(name), self.formats.1),
            Output::Folder => files::read_folder(&outputs),
            Output::Said => files::as_result("standard output", said, self.formats.1),
        }
    }
}

/// Runs it to its end; what it wrote to standard output.
fn start(argv: &[String], folder: &Path) -> Result<Vec<u8>, TaskError> {
    let ended = Command::new(&argv[0]).args(&argv[1..]).current_dir(folder).stdin(Stdio::null()).output();
    let ended =
        ended.map_err(|e| TaskError::new("start", format!("`{}` was not started: {e}; is it installed on the worker?", argv[0])))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    eprint!("{said}");
    if ended.status.success() {
        return Ok(ended.stdout);
    }
    let last: String = said.trim().lines().next_back().unwrap_or_default().chars().take(SAID).collect();
    let error = TaskError::new("exit", format!("`{}` ended with {}: {last}", argv[0], ended.status));
    Err(TaskError { traceback: said.into_owned(), ..error })
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), TaskError> {
    fs::write(file, bytes).map_err(|e| failed("write", file, &e))
}

fn failed(what: &str, file: &Path, e: &std::io::Error) -> TaskError {
    TaskError::new("storage", format!("{what} `{}`: {e}", file.display()))
}
