//! From a task to the command that runs it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use tidemill_base::Error;
use tidemill_batch::model::{FailureClass, TaskInput};
use tidemill_batch::spec::{Placeholder, Vars, expand_args};

use super::container;
use crate::floor::Assignment;
use crate::range::{OpenRange, failure};
use crate::stage::Kind;
use crate::work::Failure;

/// The name of an output whose stage does not name it.
const OUTPUT: &str = "output";
const INPUT_LIST: &str = "inputs.list";

/// Where a task writes its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Out {
    /// A file of this name in the output folder.
    File { path: PathBuf, name: String },
    /// Everything in this folder.
    Folder(PathBuf),
    /// Standard output, under this name.
    Stdout(String),
}

/// A command ready to be started, but for where its output goes.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) command: Command,
    /// As the user wrote it, for messages.
    pub(super) program: OsString,
    pub(super) out: Option<Out>,
    /// The engine and the container's name.
    pub(super) container: Option<(PathBuf, String)>,
}

/// Where programs are found on this machine, remembered.
#[derive(Debug)]
pub(crate) struct Programs {
    path: OsString,
    found: BTreeMap<OsString, PathBuf>,
}

impl Programs {
    pub(crate) fn new() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        Self { path, found: BTreeMap::new() }
    }

    pub(crate) fn path(&self) -> &OsStr {
        &self.path
    }

    /// The file behind a program's name. A name with a `/` is taken as it is.
    pub(crate) fn find(&mut self, program: &OsStr) -> Result<PathBuf, Failure> {
        if program.as_bytes().contains(&b'/') {
            return Ok(program.into());
        }
        if let Some(found) = self.found.get(program) {
            return Ok(found.clone());
        }
        let shown = program.to_string_lossy();
        let mut not_executable = None;
        for folder in std::env::split_paths(&self.path).filter(|f| f.is_absolute()) {
            let file = folder.join(program);
            match fs::metadata(&file) {
                Ok(m) if m.is_file() && m.permissions().mode() & 0o111 != 0 => {
                    self.found.insert(program.to_owned(), file.clone());
                    return Ok(file);
                }
                Ok(m) if m.is_file() => not_executable = Some(file),
                _ => {}
            }
        }
        Err(Failure::new(
            FailureClass::Start,
            match not_executable {
                Some(file) => format!("command `{shown}` is not executable: `{}`; set its executable bit", file.display()),
                None => format!("command `{shown}` was not found on the worker; install it there or give its full path"),
            },
        ))
    }
}

/// What a start that the system refused means.
pub(super) fn start_failure(program: &OsStr, e: &std::io::Error) -> Failure {
    let shown = program.to_string_lossy();
    let why = match e.raw_os_error() {
        Some(libc::ENOENT) => "was not found on the worker (or the interpreter in its first line was not)".to_owned(),
        Some(libc::EACCES) => "is not executable; set its executable bit".to_owned(),
        Some(libc::ENOEXEC) => "is neither a program for this machine nor a script with a `#!` line".to_owned(),
        Some(libc::E2BIG) => "has too long arguments; use `{inputs}`, a file that lists them".to_owned(),
        _ => format!("could not be started: {e}"),
    };
    Failure::new(FailureClass::Start, format!("command `{shown}` {why}"))
}

fn storage(folder: &Path, e: std::io::Error) -> Failure {
    failure(FailureClass::Storage, &Error::from(e).context(format!("write in the task's folder `{}`", folder.display())))
}

/// Makes ready what the task needs in `folder` and builds its command.
pub(super) fn plan(a: &Assignment, folder: &Path, programs: &mut Programs) -> Result<Plan, Failure> {
    let range = &*a.range;
    let stage = &range.stage;
    let start = |e: Error| failure(FailureClass::Start, &e);
    // Where the task sees its folder: a container has it elsewhere.
    let seen = if matches!(stage.kind, Kind::Container(_)) { Path::new(container::MOUNT) } else { folder };
    let mut vars = Vars::default();
    let index = fill_vars(&mut vars, a, folder, seen)?;
    let out = make_out(&mut vars, range, folder, seen)?;
    let mut env: Vec<(OsString, OsString)> = vec![
        ("HOME".into(), seen.into()),
        ("TMPDIR".into(), seen.into()),
        ("TIDEMILL_TASK".into(), a.task.to_string().into()),
        ("TIDEMILL_INDEX".into(), index.into()),
    ];
    if matches!(stage.kind, Kind::Shell(_)) {
        env.extend(vars.shell_env().into_iter().map(|(k, v)| (k.into(), v)));
    }
    for (name, template) in &stage.env {
        env.push((name.into(), template.expand(&vars).map_err(start)?));
    }
    let args = expand_args(&stage.argv, &vars).map_err(start)?;
    let credential = a.staged.as_ref().and_then(|s| s.credential.as_ref()).map(|c| c.env.clone()).unwrap_or_default();
    let all_env = range.base_env.iter().cloned().chain(credential).chain(env);
    let (mut command, program, container) = match &stage.kind {
        Kind::Container(spec) => {
            let image = stage.image.get().unwrap_or(&spec.image);
            let task =
                container::Task { spec, image, resources: &stage.definition.spec.resources, folder, range, task: a.task, run: a.run };
            let (command, engine, name) = container::command(&task, all_env, &args, programs)?;
            (command, engine.clone().into_os_string(), Some((engine, name)))
        }
        Kind::Shell(script) => {
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(script);
            command.env_clear().env("PATH", programs.path()).env("LANG", "C.UTF-8").envs(all_env);
            (command, "/bin/sh".into(), None)
        }
        Kind::Process | Kind::Noop | Kind::Engine => {
            let (program, rest) =
                args.split_first().ok_or_else(|| Failure::new(FailureClass::Start, "the command is empty: `{in}` stands for no file"))?;
            let mut command = Command::new(programs.find(program)?);
            command.args(rest).env_clear().env("PATH", programs.path()).env("LANG", "C.UTF-8").envs(all_env);
            (command, program.clone(), None)
        }
    };
    // An engine leaves a process of its own behind that watches over the container. It must not look as if it were the task's.
    command.current_dir(if container.is_some() { Path::new("/") } else { folder });
    Ok(Plan { command, program, out, container })
}

fn fill_vars(vars: &mut Vars, a: &Assignment, folder: &Path, seen: &Path) -> Result<String, Failure> {
    let range = &*a.range;
    let mut index = a.task.to_string();
    let mut listed: Vec<OsString> = Vec::new();
    match range.input(a.task)? {
        TaskInput::Payload => {}
        TaskInput::Index(n) => index = n.to_string(),
        TaskInput::Lines(lines) => {
            listed.extend(lines.split('\n').map(OsString::from));
            vars.set(Placeholder::Line, lines);
        }
        TaskInput::Files { key, .. } => {
            let paths = a.staged.as_ref().map(|s| s.inputs.as_slice()).unwrap_or_default();
            listed.extend(paths.iter().map(|p| seen.join(p.strip_prefix(folder).unwrap_or(p)).into_os_string()));
            vars.set_inputs(listed.iter().cloned());
            if let Some(key) = key {
                vars.set(Placeholder::Key, key);
            }
        }
    }
    if range.stage.uses(Placeholder::Inputs) {
        let path = folder.join(INPUT_LIST);
        let mut text = listed.join(OsStr::new("\n")).into_encoded_bytes();
        text.push(b'\n');
        fs::write(&path, text).map_err(|e| storage(folder, e))?;
        vars.set(Placeholder::Inputs, seen.join(INPUT_LIST));
    }
    vars.set(Placeholder::Index, index.clone())
        .set(Placeholder::Task, a.task.to_string())
        .set(Placeholder::Job, range.item.job.clone())
        .set(Placeholder::Stage, range.stage.definition.spec.name.clone())
        .set(Placeholder::Attempt, range.item.attempt.to_string());
    Ok(index)
}

fn make_out(vars: &mut Vars, range: &OpenRange, folder: &Path, seen: &Path) -> Result<Option<Out>, Failure> {
    let stage = &range.stage;
    let output = &stage.definition.spec.output;
    let name = stage.out_name.as_ref().map(|t| t.expand_text(vars).and_then(check_name)).transpose();
    let name = name.map_err(|e| failure(FailureClass::Output, &e.context("the output's name")))?;
    let stdout = output.stdout.then(|| Out::Stdout(name.clone().unwrap_or_else(|| "stdout".to_owned())));
    if !stage.has_output_folder() {
        return Ok(stdout);
    }
    let outside = folder.join("out");
    fs::create_dir_all(&outside).map_err(|e| storage(folder, e))?;
    if output.folder {
        vars.set(Placeholder::Out, seen.join("out"));
        return Ok(Some(Out::Folder(outside)));
    }
    let name = name.unwrap_or_else(|| OUTPUT.to_owned());
    let path = outside.join(&name);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|e| storage(folder, e))?;
    }
    vars.set(Placeholder::Out, seen.join("out").join(&name));
    Ok(Some(stdout.unwrap_or(Out::File { path, name })))
}

/// A name that stays within the output folder.
fn check_name(name: String) -> tidemill_base::Result<String> {
    let fits = !name.is_empty() && !name.contains('\0') && Path::new(&name).components().all(|c| matches!(c, Component::Normal(_)));
    if fits { Ok(name) } else { Err(Error::invalid(format!("`{}` leads out of the output folder", name.escape_debug()))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_names_stay_in_the_folder() {
        for good in ["a", "a b/c\n.txt", "ü", "..a"] {
            assert!(check_name(good.into()).is_ok(), "{good}");
        }
        for bad in ["", "..", "a/../../b", "/etc/passwd", "./a", "a\0"] {
            assert!(check_name(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn programs_are_found_or_named() {
        let mut programs = Programs::new();
        assert!(programs.find(OsStr::new("sh")).unwrap().is_absolute());
        let e = programs.find(OsStr::new("no-such-program")).unwrap_err();
        assert!(e.class == FailureClass::Start && e.message.contains("`no-such-program` was not found"), "{e:?}");
    }
}
