//! Scripts of `peers/grid/`, in the peers' environment.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::peers;
use crate::recorder::home;

/// From PyPI: the peers, what lets functions travel, and the library of the revaluation.
const PACKAGES: [&str; 4] = ["ray", "dask[distributed]", "cloudpickle", "QuantLib"];
const MODULES: &str = "ray, distributed, cloudpickle, QuantLib";

/// A Python that has the peers and QuantLib.
pub(super) struct Python {
    program: PathBuf,
    /// Where the client and the example's portfolio are imported from.
    path: String,
}

/// What a script printed last.
pub(super) struct Answer(Value);

impl Python {
    pub(super) fn find() -> Result<Self> {
        let root = home().parent().context("the benches lie in the project's folder")?;
        let folders = [root.join("python"), root.join("examples/risk")];
        let path = std::env::join_paths(folders)?.to_string_lossy().into_owned();
        Ok(Self { program: peers::environment(&PACKAGES, MODULES)?, path })
    }

    /// The environment of a server whose engines are to run on this Python: they take the first on the path.
    pub(super) fn for_engines(&self) -> Result<Vec<(String, String)>> {
        let folder = self.program.parent().context("a program lies in a folder")?.to_path_buf();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let all = std::env::join_paths(std::iter::once(folder).chain(std::env::split_paths(&path)))?;
        Ok(vec![("PATH".to_owned(), all.to_string_lossy().into_owned())])
    }

    /// Runs a script; `TIDEMILL_DATA` says where its server is.
    pub(super) fn run(&self, script: &str, args: &[&str], data: Option<&std::path::Path>) -> Result<Answer> {
        let mut command = Command::new(&self.program);
        command.arg("-B").arg(home().join("peers/grid").join(script)).args(args);
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("TIDEMILL_")) {
            command.env_remove(name);
        }
        command.env("PYTHONPATH", &self.path).env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::null());
        if let Some(data) = data {
            command.env("TIDEMILL_DATA", data);
        }
        let output = command.output().with_context(|| format!("{command:?}"))?;
        let error = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("{script} {}: {}", args.join(" "), error.lines().last().unwrap_or("it failed and said nothing"));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let last = text.lines().last().with_context(|| format!("{script} printed nothing"))?;
        Ok(Answer(serde_json::from_str(last).with_context(|| last.to_owned())?))
    }
}

impl Answer {
    pub(super) fn number(&self, key: &str) -> Result<f64> {
        self.0[key].as_f64().with_context(|| format!("the script printed no `{key}`: {}", self.0))
    }

    pub(super) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    pub(super) fn value(&self, key: &str) -> &Value {
        &self.0[key]
    }

    /// Tasks a second.
    pub(super) fn rate(&self) -> Result<f64> {
        Ok(self.number("count")? / self.number("seconds")?)
    }
}
