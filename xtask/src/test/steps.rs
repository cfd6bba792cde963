//! The steps of a test run. Each does one thing, and can be repeated alone with `cargo xtask test --only NAME`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::conformance::{Conformance, PAGE};
use super::libtest::{self, Tally};
use crate::build::{self, Artifacts, TestBinary};
use crate::programs::{Watch, exists, kept, output, run};
use crate::stand_ins::{StandIns, client_path};
use crate::workspace::Workspace;
use crate::{generate, layers, setup};

/// How a step ended. An error from a step counts as one failure.
#[derive(Debug)]
pub(crate) enum Outcome {
    Done(Tally),
    /// Not run, and why.
    Skipped(String),
}

/// Seeds of the simulation when nothing else is asked for.
const SEEDS: &str = "1000";
/// A test program that takes longer hangs.
const PROGRAM_LIMIT: Duration = Duration::from_secs(40 * 60);
/// Packages whose integration tests hold drivers against the blocks' suites.
const DRIVER_PACKAGES: [&str; 5] = ["tidemill-blocks-test", "tidemill-embedded", "tidemill-server", "tidemill-postgres", "tidemill-aws"];
/// What the page about drivers was made on. PostgreSQL's own version is the machine's.
const ENGINES: &str = "PostgreSQL, ministack 1.5.33, moto 5.2.5";
/// Where the console is built to; the server embeds it.
const BUNDLE: &str = "crates/server/console-dist";
/// Vite, which builds the console, needs at least this Node.
const OLDEST_NODE: (u32, u32) = (20, 19);

/// What the steps share: the checkout, the build that several of them use, and the engines that tests speak to.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) workspace: &'a Workspace,
    install: bool,
    built: Option<Option<Artifacts>>,
    engines: Option<StandIns>,
    /// The folder of the Python that tests start, or why there is none.
    python: Option<std::result::Result<PathBuf, String>>,
    conformance: Conformance,
}

type Body = fn(&mut Run<'_>) -> Result<Outcome>;

/// A step's name, what it is for, and what it does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) purpose: &'static str,
    pub(crate) body: Body,
}

const fn step(name: &'static str, purpose: &'static str, body: Body) -> Step {
    Step { name, purpose, body }
}

/// All steps, cheap ones first.
pub(crate) const STEPS: &[Step] = &[
    step("fmt", "sources are formatted", fmt),
    step("layers", "crates use only what they may; manifests, sizes, words", check_layers),
    step("deny", "licences, advisories and sources of dependencies (cargo-deny)", deny),
    step("clippy", "lints, on all targets", clippy),
    step("unit", "unit, conformance and integration tests of every crate", unit),
    step("sim", "seeded simulation; TIDEMILL_SIM_SEEDS says how many seeds", sim),
    step("fuzz", "every parser over its corpus and mutations of it; TIDEMILL_FUZZ_SEED chooses them", fuzz),
    step("python", "the Python client: its types, and its tests against a server", python),
    step("it", "outside-in tests of the built program", outside_in),
    step("it-pg", "the same on PostgreSQL, with two managers and three workers", on_postgres),
    step("it-aws", "the same on ministack, with throttles, errors, lost and late answers, and messages given twice", on_aws),
    step("generated", "docs/reference is what the program says", generated),
    step("console", "the console's own tests; its committed bundle is what its sources give", console),
    step("browser", "the console in a real browser", browser),
];

impl<'a> Run<'a> {
    /// `install`: whether packages may be installed.
    pub(crate) fn new(workspace: &'a Workspace, install: bool) -> Self {
        Self { workspace, install, built: None, engines: None, python: None, conformance: Conformance::default() }
    }

    /// Starts the engines, once for all steps; they end with this value. Their variables, for test programs.
    fn engines(&mut self) -> Result<Vec<(&'static str, String)>> {
        if self.engines.is_none() {
            let up = StandIns::up(self.install)?;
            for missing in &up.missing {
                println!("    skipped: tests that need {missing}");
            }
            self.engines = Some(up);
        }
        Ok(self.engines.as_ref().map(|up| up.variables.clone()).unwrap_or_default())
    }

    /// The folder of a Python with what the client and engines need, made once for all steps.
    fn python(&mut self) -> std::result::Result<PathBuf, String> {
        let install = self.install;
        let made = || {
            let found = client_path(install).map_err(|e| format!("{e:#}"));
            found.inspect_err(|why| println!("    skipped: tests of engines in Python: {why}"))
        };
        self.python.get_or_insert_with(made).clone()
    }

    /// Builds everything, once for all steps.
    fn artifacts(&mut self) -> Result<&Artifacts> {
        let built = self.built.get_or_insert_with(|| {
            let watch = Watch::start();
            let made = build::everything(self.workspace);
            println!("    built in {:.1} s", watch.elapsed().as_secs_f64());
            made.inspect_err(|e| println!("    {e:#}")).ok()
        });
        built.as_ref().context("the build failed; `cargo build --workspace --all-targets` repeats it")
    }

    /// Runs the test programs that `which` chooses.
    fn programs(&mut self, which: fn(&TestBinary) -> bool, environment: &[(&str, String)]) -> Result<Tally> {
        self.programs_with(which, environment, &[])
    }

    /// As [`Run::programs`], with these arguments.
    fn programs_with(&mut self, which: fn(&TestBinary) -> bool, environment: &[(&str, String)], args: &[&str]) -> Result<Tally> {
        let artifacts = self.artifacts()?.clone();
        let mut environment = environment.to_vec();
        environment.extend(self.python().ok().and_then(|folder| Some(("PATH", first_on_path(&folder)?))));
        let mut total = Tally::default();
        for test in artifacts.tests.iter().filter(|t| which(t)) {
            let ended = run_program(test, &artifacts, &environment, args)?;
            self.conformance.add(&test.package, &ended.output);
            total.add(ended.tally);
        }
        Ok(total)
    }

    /// Tests the drivers alone, and writes the page about them.
    pub(crate) fn drivers(&mut self) -> Result<Tally> {
        let engines = self.engines()?;
        let tally = self.programs(|t| t.kind == "test" && DRIVER_PACKAGES.contains(&t.package.as_str()), &engines)?;
        self.write_drivers()?;
        Ok(tally)
    }

    /// Writes the page about drivers, if it is the whole truth: no engine was missing, no behaviour failed.
    fn write_drivers(&self) -> Result<()> {
        let missing = self.engines.as_ref().map_or(&[][..], |up| &up.missing);
        if !missing.is_empty() || !self.conformance.is_clean() {
            println!("    {PAGE} is left as it is: not every driver was tested, or one failed");
            return Ok(());
        }
        let (file, page) = (self.workspace.root.join(PAGE), self.conformance.page(ENGINES));
        if std::fs::read_to_string(&file).unwrap_or_default() != page {
            std::fs::write(&file, page).with_context(|| format!("write {}", file.display()))?;
            println!("    {PAGE} was written anew; commit it");
        }
        Ok(())
    }
}

/// The search path with this folder before all others.
fn first_on_path(folder: &Path) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&path));
    std::env::join_paths(all).ok()?.into_string().ok()
}

/// What a test program wrote, and its result.
struct Ran {
    tally: Tally,
    output: String,
}

fn run_program(test: &TestBinary, artifacts: &Artifacts, environment: &[(&str, String)], args: &[&str]) -> Result<Ran> {
    let mut command = Command::new(&test.executable);
    command.arg("--show-output").args(args).current_dir(&test.folder).env("CARGO_MANIFEST_DIR", &test.folder);
    if let Some(binary) = artifacts.program("tidemill") {
        command.env("TIDEMILL_BIN", binary);
    }
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let watch = Watch::start();
    let ended = kept(&mut command, PROGRAM_LIMIT)?;
    let report = libtest::read(&ended.output, ended.success);
    if report.tally == Tally::default() {
        return Ok(Ran { tally: report.tally, output: ended.output });
    }
    if report.tally.failed > 0 {
        println!("{}", ended.output.trim_end());
    }
    println!("    {:<44} {:>7.1} s  {}", format!("{}::{}", test.package, test.target), watch.elapsed().as_secs_f64(), report.tally);
    for reason in &report.reasons {
        println!("      skipped: {reason}");
    }
    if report.tally.failed > 0 {
        println!("      repeat: {}", test.repeat());
    }
    Ok(Ran { tally: report.tally, output: ended.output })
}

fn passed() -> Result<Outcome> {
    Ok(Outcome::Done(Tally::PASSED))
}

fn fmt(run_: &mut Run<'_>) -> Result<Outcome> {
    run(run_.workspace.cargo().args(["fmt", "--all", "--check"])).context("`cargo fmt --all` mends it")?;
    passed()
}

fn check_layers(run_: &mut Run<'_>) -> Result<Outcome> {
    layers::check(run_.workspace)?;
    passed()
}

fn deny(run_: &mut Run<'_>) -> Result<Outcome> {
    let Some(program) = setup::cargo_deny() else {
        return Ok(Outcome::Skipped("cargo-deny is not here; `cargo xtask setup` gets it".to_owned()));
    };
    let cargo_deny = |what: &[&str]| {
        let mut command = run_.workspace.program(&program, ".");
        command.args(["--log-level", "error", "check", "--hide-inclusion-graph"]).args(what);
        command
    };
    run(&mut cargo_deny(&["bans", "licenses", "sources"]))?;
    // Advisories alone need the network: their list is fetched anew each time.
    let ended = kept(&mut cargo_deny(&["advisories"]), PROGRAM_LIMIT)?;
    if ended.success {
        return passed();
    }
    if ended.output.contains("failed to fetch advisory database") {
        println!("    skipped: the list of advisories cannot be fetched here");
        return Ok(Outcome::Done(Tally { skipped: 1, ..Tally::PASSED }));
    }
    bail!("advisories:\n{}", ended.output.trim_end())
}

fn clippy(run_: &mut Run<'_>) -> Result<Outcome> {
    run(run_.workspace.cargo().args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))?;
    passed()
}

fn unit(run_: &mut Run<'_>) -> Result<Outcome> {
    let engines = run_.engines()?;
    let tally = run_.programs(|t| !matches!(t.package.as_str(), "tidemill-it" | "tidemill-sim" | "tidemill-fuzz"), &engines)?;
    anyhow::ensure!(tally.ran() > 0, "no test ran");
    run_.write_drivers()?;
    Ok(Outcome::Done(tally))
}

fn sim(run_: &mut Run<'_>) -> Result<Outcome> {
    let seeds = std::env::var("TIDEMILL_SIM_SEEDS").unwrap_or_else(|_| SEEDS.to_owned());
    let tally = run_.programs(|t| t.package == "tidemill-sim", &[("TIDEMILL_SIM_SEEDS", seeds)])?;
    Ok(counted(tally, "tests/sim"))
}

fn fuzz(run_: &mut Run<'_>) -> Result<Outcome> {
    Ok(counted(run_.programs(|t| t.package == "tidemill-fuzz", &[])?, "tests/fuzz"))
}

fn python(run_: &mut Run<'_>) -> Result<Outcome> {
    let folder = match run_.python() {
        Ok(folder) => folder,
        Err(why) => return Ok(Outcome::Skipped(why)),
    };
    let binary = run_.artifacts()?.program("tidemill").context("the build made no `tidemill`")?.clone();
    let in_client = |args: &[&str]| {
        let mut command = run_.workspace.program(&folder.join("python3").to_string_lossy(), "python");
        command.args(args).env("TIDEMILL_BIN", &binary).env("PYTHONDONTWRITEBYTECODE", "1");
        command.envs(first_on_path(&folder).map(|path| ("PATH", path)));
        kept(&mut command, PROGRAM_LIMIT)
    };
    let typed = in_client(&["-m", "mypy", "--cache-dir", "/dev/null"])?;
    anyhow::ensure!(typed.success, "types of the Python client:\n{}", typed.output.trim_end());
    let mut tally = Tally::PASSED;
    // Those of the kit run with the crate of engines.
    let ended = in_client(&["-m", "unittest", "discover", "-s", "tests", "-p", "test_[!e]*.py"])?;
    let tested = libtest::read_unittest(&ended.output, ended.success);
    if tested.failed > 0 {
        println!("{}", ended.output.trim_end());
    }
    anyhow::ensure!(tested.ran() > 0, "no test of the Python client ran");
    tally.add(tested);
    Ok(Outcome::Done(tally))
}

fn outside_in(run_: &mut Run<'_>) -> Result<Outcome> {
    let engines = run_.engines()?;
    Ok(counted(run_.programs(|t| t.package == "tidemill-it", &engines)?, "tests/it"))
}

fn on_postgres(run_: &mut Run<'_>) -> Result<Outcome> {
    on_engines(run_, "postgres", &["TIDEMILL_TEST_POSTGRES"])
}

fn on_aws(run_: &mut Run<'_>) -> Result<Outcome> {
    on_engines(run_, "aws", &["TIDEMILL_TEST_POSTGRES", "TIDEMILL_TEST_MINISTACK"])
}

/// The outside-in suite once more, with managers and workers that share engines. Tests that have engines of their own are not repeated.
fn on_engines(run_: &mut Run<'_>, drivers: &str, needed: &[&str]) -> Result<Outcome> {
    let mut environment = run_.engines()?;
    if let Some(missing) = needed.iter().find(|n| environment.iter().all(|(name, _)| name != *n)) {
        return Ok(Outcome::Skipped(format!("{missing} names no engine; `cargo xtask stand-ins up` says why")));
    }
    environment.push(("TIDEMILL_IT_DRIVERS", drivers.to_owned()));
    let tally = run_.programs_with(|t| t.package == "tidemill-it" && t.kind == "test", &environment, &["--skip", "engines::"])?;
    Ok(counted(tally, "tests/it"))
}

fn counted(tally: Tally, folder: &str) -> Outcome {
    match tally == Tally::default() {
        true => Outcome::Skipped(format!("{folder} holds no tests")),
        false => Outcome::Done(tally),
    }
}

fn generated(run_: &mut Run<'_>) -> Result<Outcome> {
    let workspace = run_.workspace;
    let missing = generate::check(workspace, run_.artifacts()?)?;
    match missing.is_empty() {
        true => passed(),
        false => Ok(Outcome::Done(Tally { skipped: missing.len() as u64, ..Tally::PASSED })),
    }
}

fn console(run_: &mut Run<'_>) -> Result<Outcome> {
    let workspace = run_.workspace;
    if !workspace.has("console/package.json") {
        return Ok(Outcome::Skipped("there is no console".to_owned()));
    }
    if let Some(why) = no_node() {
        return Ok(Outcome::Skipped(why));
    }
    run(&mut npm(workspace, "console", &["ci", "--no-audit", "--no-fund"]))?;
    let mut tally = node_tests(npm(workspace, "console", &["run", "check"]))?;
    anyhow::ensure!(tally.ran() > 0, "no test of the console ran");
    let committed = files(&workspace.root.join(BUNDLE))?;
    run(&mut npm(workspace, "console", &["run", "build"]))?;
    tally.add(Tally::PASSED);
    if files(&workspace.root.join(BUNDLE))? != committed {
        bail!("{BUNDLE} was not what console/ gives; it has been built anew, commit it");
    }
    Ok(Outcome::Done(tally))
}

fn browser(run_: &mut Run<'_>) -> Result<Outcome> {
    let workspace = run_.workspace;
    if !workspace.has("tests/console/package.json") {
        return Ok(Outcome::Skipped("there are no browser tests".to_owned()));
    }
    if let Some(why) = no_node() {
        return Ok(Outcome::Skipped(why));
    }
    let Some(chromium) = setup::chromium() else {
        return Ok(Outcome::Skipped("there is no Chromium; `apt-get install chromium` gets it".to_owned()));
    };
    let binary = run_.artifacts()?.program("tidemill").context("the build made no `tidemill`")?.clone();
    run(&mut npm(workspace, "tests/console", &["ci", "--no-audit", "--no-fund"]))?;
    let mut test = npm(workspace, "tests/console", &["test"]);
    test.env("TIDEMILL_BIN", binary).env("CHROMIUM_BIN", chromium);
    let tally = node_tests(test)?;
    anyhow::ensure!(tally.ran() > 0, "no test ran");
    Ok(Outcome::Done(tally))
}

fn npm(workspace: &Workspace, folder: &str, args: &[&str]) -> Command {
    let mut npm = workspace.program("npm", folder);
    npm.arg("--silent").args(args);
    npm
}

/// Runs Node's tests; what they wrote is shown when one has failed.
fn node_tests(mut command: Command) -> Result<Tally> {
    let ended = kept(&mut command, PROGRAM_LIMIT)?;
    let tally = libtest::read_node(&ended.output, ended.success);
    if tally.failed > 0 {
        println!("{}", ended.output.trim_end());
    }
    Ok(tally)
}

/// All files below a folder with their contents.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let contents = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                found.insert(path, contents);
            }
        }
    }
    Ok(found)
}

/// Why the console cannot be built here.
fn no_node() -> Option<String> {
    if !exists("node") || !exists("npm") {
        return Some("node and npm are not here; `apt-get install nodejs npm` gets them".to_owned());
    }
    let version = output(Command::new("node").arg("--version")).unwrap_or_default();
    let mut numbers = version.trim().trim_start_matches('v').split('.').map_while(|n| n.parse().ok());
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (found < OLDEST_NODE).then(|| format!("node {} is older than {}.{}", version.trim(), OLDEST_NODE.0, OLDEST_NODE.1))
}
