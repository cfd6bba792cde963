//! A stage as a worker uses it: its definition with the templates read, and what its tasks have in common.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::OnceLock;

use tidemill_base::{Error, Result};
use tidemill_batch::cut::StageDefinition;
use tidemill_batch::model::{
    ContainerSpec, EngineSpec, InputSpec, KeepSpec, OutputSpec, Resources, RetrySpec, RunSpec, SecretRef, StageSpec, SuccessSpec,
    UpstreamPolicy,
};
use tidemill_batch::spec::template::shell_variables;
use tidemill_batch::spec::{Placeholder, Template};

/// What a stage runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Noop,
    /// A program with its arguments.
    Process,
    /// A script for `/bin/sh -c`.
    Shell(String),
    Container(ContainerSpec),
    /// A function in a warm engine.
    Engine,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) definition: StageDefinition,
    pub(crate) kind: Kind,
    pub(crate) argv: Vec<Template>,
    pub(crate) env: Vec<(String, Template)>,
    pub(crate) out_name: Option<Template>,
    /// What the engine calls an image that was loaded from an archive.
    pub(crate) image: OnceLock<String>,
    used: BTreeSet<Placeholder>,
}

impl Stage {
    /// Reads the templates. `Invalid` when one is wrong, which the check at submit should have seen.
    pub(crate) fn new(definition: StageDefinition) -> Result<Self> {
        let spec = &definition.spec;
        let (kind, argv) = match &spec.run {
            RunSpec::Noop => (Kind::Noop, Vec::new()),
            RunSpec::Engine(_) => (Kind::Engine, Vec::new()),
            RunSpec::Command { argv, shell: true } => (Kind::Shell(argv.first().cloned().unwrap_or_default()), Vec::new()),
            RunSpec::Command { argv, shell: false } => (Kind::Process, Template::parse_all(argv)?),
            RunSpec::Container(container) => (Kind::Container(container.clone()), Template::parse_all(&container.argv)?),
        };
        let env = spec.env.iter().map(|(k, v)| Ok((k.clone(), Template::parse(v)?))).collect::<Result<Vec<_>>>()?;
        let out_name = spec.output.name.as_deref().map(Template::parse).transpose()?;
        let mut used: BTreeSet<_> = argv.iter().chain(env.iter().map(|(_, t)| t)).flat_map(Template::placeholders).collect();
        if let Kind::Shell(script) = &kind {
            used.extend(shell_variables(script));
        }
        if argv.is_empty() && kind == Kind::Process {
            return Err(Error::invalid(format!("stage `{}` has an empty command", spec.name)));
        }
        Ok(Self { kind, argv, env, out_name, image: OnceLock::new(), used, definition })
    }

    /// Stands for a stage whose definition cannot be used. Its tasks fail before anything is started.
    pub(crate) fn unusable() -> Self {
        let spec = StageSpec {
            name: String::new(),
            input: InputSpec::Array { first: 0, last: 0 },
            run: RunSpec::Noop,
            resources: Resources::default(),
            timeout: None,
            retry: RetrySpec::default(),
            success: SuccessSpec::default(),
            output: OutputSpec::default(),
            upstream: UpstreamPolicy::default(),
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            credentials: false,
            keep: KeepSpec::default(),
        };
        Self {
            definition: StageDefinition { job_name: String::new(), spec, total: 0, manifest: None, upstream: None },
            kind: Kind::Noop,
            argv: Vec::new(),
            env: Vec::new(),
            out_name: None,
            image: OnceLock::new(),
            used: BTreeSet::new(),
        }
    }

    /// The engine that its tasks run in, if they do.
    pub(crate) fn engine(&self) -> Option<&EngineSpec> {
        match &self.definition.spec.run {
            RunSpec::Engine(engine) => Some(engine),
            _ => None,
        }
    }

    /// Whether the command speaks of `placeholder`.
    pub(crate) fn uses(&self, placeholder: Placeholder) -> bool {
        self.used.contains(&placeholder)
    }

    /// Whether its tasks have a place to write output to.
    pub(crate) fn has_output_folder(&self) -> bool {
        self.uses(Placeholder::Out) || self.definition.spec.output.folder || self.out_name.is_some() && !self.definition.spec.output.stdout
    }
}

/// Looks up the values of a stage's secret variables on this machine. The error names the variable and where its value was looked
/// for, never the value.
pub(crate) fn resolve_secrets<'a>(
    secrets: impl IntoIterator<Item = (&'a String, &'a SecretRef)>,
    own_variables: &[String],
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Result<Vec<(OsString, OsString)>> {
    let mut out = Vec::new();
    for (name, reference) in secrets {
        let value = match reference {
            SecretRef::Env(source) if own_variables.iter().any(|own| source.starts_with(own.as_str())) => {
                return Err(Error::denied(format!("secret `{name}` asks for the worker's own variable `{source}`; name another one")));
            }
            SecretRef::Env(source) => lookup(source).ok_or_else(|| {
                Error::not_found(format!(
                    "secret `{name}`: the worker has no environment variable `{source}`; set it where the worker starts"
                ))
            })?,
            SecretRef::File(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|e| Error::from(e).context(format!("secret `{name}`: read the file `{path}` on the worker")))?;
                text.strip_suffix('\n').map_or(text.as_str(), |t| t.strip_suffix('\r').unwrap_or(t)).into()
            }
        };
        out.push((name.into(), value));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(name: &str, reference: SecretRef) -> Result<Vec<(OsString, OsString)>> {
        let secrets = BTreeMap::from([(name.to_owned(), reference)]);
        resolve_secrets(&secrets, &["TIDEMILL_".to_owned()], |source| (source == "DB").then(|| "hunter2".into()))
    }

    #[test]
    fn secrets_are_found_and_missing_ones_are_named_without_values() {
        assert_eq!(resolve("PW", SecretRef::Env("DB".into())).unwrap(), [("PW".into(), "hunter2".into())]);
        let e = resolve("PW", SecretRef::Env("NO".into())).unwrap_err();
        assert!(e.message().contains("`PW`") && e.message().contains("`NO`"), "{e}");
        let e = resolve("PW", SecretRef::Env("TIDEMILL_TOKEN".into())).unwrap_err();
        assert!(e.message().contains("worker's own"), "{e}");
        let (own, secrets) = (["AWS_".to_owned()], BTreeMap::from([("KEY".to_owned(), SecretRef::Env("AWS_SECRET_ACCESS_KEY".into()))]));
        let e = resolve_secrets(&secrets, &own, |_| Some("hunter2".into())).unwrap_err();
        assert!(e.message().contains("worker's own"), "what a worker on engines reaches them with is not for jobs: {e}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(resolve("PW", SecretRef::File(file.display().to_string())).unwrap()[0].1, "s3cret");
        let e = resolve("PW", SecretRef::File("/no/such/file".into())).unwrap_err();
        assert!(e.message().contains("/no/such/file"), "{e}");
    }
}
