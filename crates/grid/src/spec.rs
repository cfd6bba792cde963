//! What a session is asked to be, and the job that it becomes.

use std::collections::BTreeMap;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use tidemill_base::{Error, HumanDuration, Result, RetryPolicy};
use tidemill_batch::model::{
    EngineSpec, FailureClass, FunctionRef, InputSpec, JobSpec, KeepSpec, OutputSpec, PackagePin, Resources, RetrySpec, RunSpec, StageSpec,
    SuccessSpec, Terms, UpstreamPolicy,
};

use crate::packages::{check_name, check_version, parse_reference};
use crate::terms::{Budget, IDLE_TIMEOUT, Limit, OnAbandon, terms};

/// The longest name of a session, function or parameter, in bytes.
const MAX_NAME: usize = 200;
/// The most parameters, variables and packages, each.
const MAX_LIST: usize = 100;

/// What runs a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// `module:function`, which the engine imports.
    Module(String),
    /// A name that the engine has given to one of its functions.
    Name(String),
    /// As cloudpickle packed it. The bytes are kept beside the session: see [`Stored`].
    Packed,
}

/// What is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Tries in all for a task whose function fails, 1 to 20. What is lost with its worker is always tried again.
    pub attempts: u32,
    /// The pause before the second try; it doubles from try to try.
    pub pause: HumanDuration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 1, pause: HumanDuration(std::time::Duration::from_millis(200)) }
    }
}

/// A session to open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SessionSpec {
    /// For people.
    pub name: String,
    /// The kind of engine: `python`, `pricing`, or another that workers know.
    pub engine: String,
    /// What runs a task.
    pub function: Function,
    /// Makes what is kept warm; its data is in [`Stored::setup`].
    pub setup_function: Option<Function>,
    /// How payloads are encoded: `pickle`, `json`, `arrow` or `bytes`.
    pub input: String,
    /// How results are.
    pub output: String,
    /// The class of workers.
    pub class: String,
    /// Higher goes first, -1000 to 1000.
    pub priority: i32,
    /// One task's limit of time.
    pub timeout: Option<HumanDuration>,
    /// One engine's limit of memory, bytes; 0: none.
    pub memory: u64,
    /// What is tried again.
    pub retry: Retry,
    /// Variables in the environment of engines. Sessions with the same engine, packages and variables share its processes.
    pub env: BTreeMap<String, String>,
    /// Free for user and engine to agree on.
    pub parameters: BTreeMap<String, String>,
    /// Packages of files: pins, or `name@version`, or `name` for the newest version when the session is opened.
    #[serde(deserialize_with = "pins")]
    pub packages: Vec<PackagePin>,
    /// For people and for searching.
    pub labels: BTreeMap<String, String>,
    /// It is closed when there was nothing to do in it, and nobody submitted or read, for so long; `never`, or 0, for a session that waits.
    pub idle_timeout: Limit,
    /// Its client submits, reads, or says that it is there, at least so often while it is open; `never`: it need not.
    pub keep_alive: Limit,
    /// What happens when it does not: everything is cancelled, or the session is closed.
    pub on_abandon: OnAbandon,
    /// How much may be done.
    pub budget: Budget,
}

/// A package as people write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Named {
    Reference(String),
    Pin {
        name: String,
        #[serde(default)]
        version: String,
        #[serde(default)]
        digest: String,
    },
}

fn pins<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PackagePin>, D::Error> {
    let named: Vec<Named> = Vec::deserialize(from)?;
    let pin = |n| match n {
        Named::Reference(text) => parse_reference(&text).map_err(D::Error::custom),
        Named::Pin { name, version, digest } => Ok(PackagePin { name, version, digest }),
    };
    named.into_iter().map(pin).collect()
}

impl Default for SessionSpec {
    fn default() -> Self {
        Self {
            name: "session".to_owned(),
            engine: "python".to_owned(),
            function: Function::Packed,
            setup_function: None,
            input: "pickle".to_owned(),
            output: "pickle".to_owned(),
            class: "default".to_owned(),
            priority: 0,
            timeout: None,
            memory: 0,
            retry: Retry::default(),
            env: BTreeMap::new(),
            parameters: BTreeMap::new(),
            packages: Vec::new(),
            labels: BTreeMap::new(),
            idle_timeout: Limit(Some(IDLE_TIMEOUT)),
            keep_alive: Limit(None),
            on_abandon: OnAbandon::default(),
            budget: Budget::default(),
        }
    }
}

/// Where the parts of a session lie that are too large for its row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// The packed function.
    pub function: Option<String>,
    /// The packed function that makes what is kept warm.
    pub setup_function: Option<String>,
    /// The data that it is made from.
    pub setup: Option<String>,
}

impl SessionSpec {
    /// Checks what can be checked without a worker. `Invalid` names the field, the reason and what would do.
    pub fn check(&self) -> Result<()> {
        let wrong = |field: &str, why: String| Err(Error::invalid(format!("session: `{field}` {why}")));
        if self.name.is_empty() || self.name.len() > MAX_NAME {
            return wrong("name", format!("has {} bytes; give it 1 to {MAX_NAME}", self.name.len()));
        }
        if self.engine.is_empty() || !self.engine.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            return wrong("engine", format!("is `{}`; use letters, digits, - _ and .", self.engine.escape_debug()));
        }
        for (field, word) in [("input", &self.input), ("output", &self.output)] {
            if !["pickle", "json", "arrow", "bytes"].contains(&word.as_str()) {
                return wrong(field, format!("is `{}`; use pickle, json, arrow or bytes", word.escape_debug()));
            }
        }
        for (field, function) in [("function", Some(&self.function)), ("setup_function", self.setup_function.as_ref())] {
            match function {
                Some(Function::Module(name)) if !name.contains(':') || name.len() > MAX_NAME => {
                    return wrong(field, format!("is `{}`; write it as `module:function`", name.escape_debug()));
                }
                Some(Function::Name(name)) if name.is_empty() || name.len() > MAX_NAME => {
                    return wrong(field, format!("has a name of {} bytes; give it 1 to {MAX_NAME}", name.len()));
                }
                _ => {}
            }
        }
        if !(1..=20).contains(&self.retry.attempts) {
            return wrong("retry.attempts", format!("is {}; use 1 to 20", self.retry.attempts));
        }
        for (field, len) in [
            ("env", self.env.len()),
            ("parameters", self.parameters.len()),
            ("packages", self.packages.len()),
            ("labels", self.labels.len()),
        ] {
            if len > MAX_LIST {
                return wrong(field, format!("has {len} entries; at most {MAX_LIST} are allowed"));
            }
        }
        for (at, package) in self.packages.iter().enumerate() {
            check_name(&package.name).map_err(|e| e.context("session: `packages`"))?;
            if !package.version.is_empty() {
                check_version(&package.version).map_err(|e| e.context("session: `packages`"))?;
            }
            if self.packages[..at].iter().any(|p| p.name == package.name) {
                return wrong("packages", format!("has `{}` twice; a session has one version of each", package.name));
            }
        }
        self.terms()?;
        if self.env.keys().any(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return wrong("env", "has a name that is empty or holds `=`".to_owned());
        }
        Ok(())
    }

    fn terms(&self) -> Result<Terms> {
        terms(self.idle_timeout, self.keep_alive, self.on_abandon, &self.budget)
    }

    /// The job that it becomes. What does not pass [`SessionSpec::check`] has no limits.
    pub fn to_job(&self, stored: &Stored) -> JobSpec {
        let function = |function: &Function, object: &Option<String>| match function {
            Function::Module(name) => FunctionRef::Module(name.clone()),
            Function::Name(name) => FunctionRef::Name(name.clone()),
            Function::Packed => FunctionRef::Packed(object.clone().unwrap_or_default()),
        };
        let run = RunSpec::Engine(EngineSpec {
            engine: self.engine.clone(),
            function: function(&self.function, &stored.function),
            setup_function: self.setup_function.as_ref().map(|f| function(f, &stored.setup_function)),
            setup: stored.setup.clone(),
            input: self.input.clone(),
            output: self.output.clone(),
            parameters: self.parameters.clone(),
            packages: self.packages.clone(),
        });
        let stage = StageSpec {
            name: "tasks".to_owned(),
            input: InputSpec::Submitted { terms: Box::new(self.terms().unwrap_or_default()) },
            run,
            resources: Resources { cpus: 1, memory: self.memory, named: BTreeMap::new() },
            timeout: self.timeout,
            retry: self.retry_spec(),
            success: SuccessSpec::default(),
            output: OutputSpec::default(),
            upstream: UpstreamPolicy::default(),
            env: self.env.clone(),
            secrets: BTreeMap::new(),
            credentials: false,
            keep: KeepSpec::default(),
        };
        JobSpec {
            name: self.name.clone(),
            class: self.class.clone(),
            priority: self.priority,
            after: Vec::new(),
            at: None,
            cron: None,
            timezone: "UTC".to_owned(),
            labels: self.labels.clone(),
            stages: vec![stage],
        }
    }

    fn retry_spec(&self) -> RetrySpec {
        let attempts = self.retry.attempts;
        // A worker or a store that is lost is not the task's fault: those are tried again whatever the session says.
        let forgiving = attempts.max(4);
        RetrySpec {
            policy: RetryPolicy { attempts, base: self.retry.pause, cap: HumanDuration(std::time::Duration::from_secs(60)) },
            classes: [
                FailureClass::Error,
                FailureClass::Signal,
                FailureClass::OutOfMemory,
                FailureClass::Timeout,
                FailureClass::LostWorker,
                FailureClass::Storage,
            ]
            .into(),
            never_exit_codes: Default::default(),
            attempts_by_class: [(FailureClass::LostWorker, forgiving), (FailureClass::Storage, forgiving)].into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_are_named_with_what_would_do() {
        let good = SessionSpec::default;
        good().check().unwrap();
        for (spec, field) in [
            (SessionSpec { name: String::new(), ..good() }, "`name`"),
            (SessionSpec { engine: "a b".into(), ..good() }, "`engine`"),
            (SessionSpec { input: "xml".into(), ..good() }, "`input`"),
            (SessionSpec { function: Function::Module("risk".into()), ..good() }, "`module:function`"),
            (SessionSpec { function: Function::Name(String::new()), ..good() }, "`function`"),
            (SessionSpec { retry: Retry { attempts: 0, ..Retry::default() }, ..good() }, "`retry.attempts`"),
            (SessionSpec { env: [("A=B".to_owned(), String::new())].into(), ..good() }, "`env`"),
        ] {
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(field), "{error}");
        }
    }

    #[test]
    fn packages_are_named_in_every_way() {
        let text = r#"{"packages": ["calendars@2026", "curves", {"name": "lib", "version": "1", "digest": "ab"}]}"#;
        let spec: SessionSpec = serde_json::from_str(text).unwrap();
        let pin =
            |name: &str, version: &str, digest: &str| PackagePin { name: name.into(), version: version.into(), digest: digest.into() };
        assert_eq!(spec.packages, [pin("calendars", "2026", ""), pin("curves", "", ""), pin("lib", "1", "ab")]);
        spec.check().unwrap();
        assert!(serde_json::from_str::<SessionSpec>(r#"{"packages": ["../x"]}"#).unwrap_err().to_string().contains("../x"));
        let twice: SessionSpec = serde_json::from_str(r#"{"packages": ["a@1", "a@2"]}"#).unwrap();
        assert!(twice.check().unwrap_err().message().contains("`a` twice"));
    }

    #[test]
    fn what_is_lost_with_a_worker_is_tried_again_and_what_a_function_says_is_not_unless_asked() {
        let job = SessionSpec::default().to_job(&Stored { function: Some("jobs/x/function".into()), ..Stored::default() });
        let stage = &job.stages[0];
        assert!(job.is_session());
        assert_eq!(stage.retry.policy.attempts, 1);
        assert_eq!(stage.retry.attempts_by_class[&FailureClass::LostWorker], 4);
        let RunSpec::Engine(engine) = &stage.run else { panic!("{:?}", stage.run) };
        assert_eq!(engine.function, FunctionRef::Packed("jobs/x/function".into()));
    }
}
