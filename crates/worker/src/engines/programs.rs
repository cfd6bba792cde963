//! Which program is which kind of engine on this worker.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_base::{Error, Result};
use tidemill_engine::{EngineSpec, User};

use super::packages::OnDisk;

/// The kit for Python, as it is in the source tree: a worker needs nothing installed beside Python itself.
/// The package's own `__init__.py` is among it, so that this kit comes before one that somebody has installed beside the client.
const PYTHON_KIT: &[(&str, &str)] = &[
    ("tidemill/__init__.py", include_str!("../../../../python/tidemill/__init__.py")),
    ("tidemill/engine/__init__.py", include_str!("../../../../python/tidemill/engine/__init__.py")),
    ("tidemill/engine/__main__.py", include_str!("../../../../python/tidemill/engine/__main__.py")),
    ("tidemill/engine/_frames.py", include_str!("../../../../python/tidemill/engine/_frames.py")),
    ("tidemill/engine/_held.py", include_str!("../../../../python/tidemill/engine/_held.py")),
    ("tidemill/engine/_serve.py", include_str!("../../../../python/tidemill/engine/_serve.py")),
    ("tidemill/engine/_session.py", include_str!("../../../../python/tidemill/engine/_session.py")),
    ("tidemill/engine/_surroundings.py", include_str!("../../../../python/tidemill/engine/_surroundings.py")),
    ("tidemill/engine/_versions.py", include_str!("../../../../python/tidemill/engine/_versions.py")),
    ("tidemill/engine/payload.py", include_str!("../../../../python/tidemill/engine/payload.py")),
];

/// Where Python looks for modules.
const PYTHON_PATH: &str = "PYTHONPATH";

/// The programs that this worker starts engines from.
#[derive(Debug, Clone, Default)]
pub struct EnginePrograms {
    /// Python, with the libraries that functions need; `None`: the first `python3` on the path.
    pub python: Option<PathBuf>,
    /// Other kinds of engines by their names: a program and its arguments.
    pub others: BTreeMap<String, Vec<OsString>>,
    /// Who engines run as; `None`: whoever the worker is. Needs a worker that is root.
    pub user: Option<User>,
}

impl EnginePrograms {
    /// How an engine of this kind is started, with the session's packages. `NotFound` says what the worker lacks.
    pub(crate) async fn engine(&self, kind: &str, packages: &[Arc<OnDisk>], scratch: &Path) -> Result<EngineSpec> {
        Ok(EngineSpec { user: self.user, ..self.program(kind, packages, scratch).await? })
    }

    async fn program(&self, kind: &str, packages: &[Arc<OnDisk>], scratch: &Path) -> Result<EngineSpec> {
        if kind == "python" {
            let mut spec = self.python(scratch)?;
            let mut path = vec![scratch.join("kit")];
            for package in packages {
                path.extend(package.python_path(&spec.program).await?);
            }
            let path = std::env::join_paths(path).map_err(|e| {
                Error::invalid(format!("the folder `{}` has a colon in its name, which Python's path cannot hold", scratch.display()))
                    .with_source(e)
            })?;
            spec.env.insert(PYTHON_PATH.into(), path);
            return Ok(spec);
        }
        if let Some([program, args @ ..]) = self.others.get(kind).map(Vec::as_slice) {
            let mut spec = EngineSpec::new(PathBuf::from(program), scratch.join(kind));
            spec.args = args.into();
            return Ok(spec);
        }
        if let Some(package) = packages.iter().find(|p| p.manifest.name == kind) {
            return packaged(package, scratch);
        }
        let known: Vec<&str> = std::iter::once("python").chain(self.others.keys().map(String::as_str)).collect();
        Err(Error::not_found(format!(
            "this worker has no engine `{kind}`; it has {}, and a session that pins a package `{kind}` may use the engine in that",
            known.join(", ")
        )))
    }

    fn python(&self, scratch: &Path) -> Result<EngineSpec> {
        let python = self.python.clone().or_else(|| on_path("python3")).ok_or_else(|| {
            Error::not_found("this worker has no Python; install python3, or name one with `--python` (`tidemill grid python` makes one)")
        })?;
        let kit = scratch.join("kit");
        for (name, text) in PYTHON_KIT {
            let file = kit.join(name);
            if std::fs::read_to_string(&file).is_ok_and(|there| there == *text) {
                continue;
            }
            let write = || {
                std::fs::create_dir_all(file.parent().unwrap_or(&kit))?;
                std::fs::write(&file, text)
            };
            write().map_err(|e| Error::from(e).context(format!("write the kit for Python to `{}`", file.display())))?;
        }
        let mut spec = EngineSpec::new(python, scratch.join("python"));
        spec.args = ["-m", "tidemill.engine"].map(OsString::from).into();
        // Of a virtual environment the program is a link that stays as it is; this file is new with each.
        let environment = spec.program.parent().and_then(Path::parent).map(|folder| folder.join("pyvenv.cfg"));
        spec.watched.extend(environment.filter(|file| file.is_file()));
        Ok(spec)
    }
}

/// The engine that a package holds.
fn packaged(package: &OnDisk, scratch: &Path) -> Result<EngineSpec> {
    let manifest = &package.manifest;
    let Some(engine) = &manifest.engine else {
        let (name, version) = (&manifest.name, &manifest.version);
        return Err(Error::not_found(format!("package {name}@{version} holds no engine; publish a version with `--engine PROGRAM`")));
    };
    let folder = package.files();
    let mut spec = EngineSpec::new(folder.join(&engine.program), scratch.join(&manifest.name));
    let folder = folder.to_string_lossy();
    spec.args = engine.args.iter().map(|a| a.replace("{package}", &folder).into()).collect();
    Ok(spec)
}

/// Gives an engine the variables of a session. Its `PYTHONPATH` comes behind what the kit and the packages need and does not replace it.
/// `Invalid` when a folder of the path cannot be part of one.
pub(super) fn give(spec: &mut EngineSpec, variables: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in variables {
        let name = OsString::from(name);
        let value = match spec.env.get(&name) {
            Some(own) if name == PYTHON_PATH => {
                let both = std::env::split_paths(own).chain(std::env::split_paths(value));
                std::env::join_paths(both).map_err(|e| Error::invalid(format!("PYTHONPATH={value}")).with_source(e))?
            }
            _ => value.into(),
        };
        spec.env.insert(name, value);
    }
    Ok(())
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kit_is_whole() {
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../python");
        for entry in std::fs::read_dir(tree.join("tidemill/engine")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let inside = format!("tidemill/engine/{name}");
            assert!(!name.ends_with(".py") || PYTHON_KIT.iter().any(|(path, _)| *path == inside), "workers do not get {inside}");
        }
    }

    #[test]
    fn a_session_adds_to_the_path_of_the_kit_and_sets_other_variables() {
        let mut spec = EngineSpec::new("python3", "/scratch");
        spec.env.insert(PYTHON_PATH.into(), "/scratch/kit:/packages/a".into());
        let variables = [("PYTHONPATH", "/opt/model:/opt/curves"), ("OMP_NUM_THREADS", "4")];
        give(&mut spec, &variables.map(|(k, v)| (k.to_owned(), v.to_owned())).into()).unwrap();
        let read = |name: &str| spec.env[&OsString::from(name)].to_str().unwrap().to_owned();
        assert_eq!(
            (read("PYTHONPATH").as_str(), read("OMP_NUM_THREADS").as_str()),
            ("/scratch/kit:/packages/a:/opt/model:/opt/curves", "4")
        );
        // An engine that is not ours has no path to keep.
        let mut spec = EngineSpec::new("ore", "/scratch");
        give(&mut spec, &[("PYTHONPATH".to_owned(), "/opt/model".to_owned())].into()).unwrap();
        assert_eq!(spec.env[&OsString::from("PYTHONPATH")], "/opt/model");
    }
}
