//! A small fuzzer for everything that reads bytes or text from outside, on stable Rust and in the time of a test.
//!
//! A target is a function over bytes that panics when what it promises does not hold: that what was read comes back when it is
//! written, that two ways of reading agree, that the answer is no larger than the question allows. [`fuzz`] runs it over the
//! committed corpus first and then over mutations of it, which follow from a seed alone, so that a run can be repeated. What gave
//! an answer of a new [`shape`] is mutated further. An input that fails is made smaller, written to a file, and printed with the
//! line that runs it again.
//!
//! Why not one of the known fuzzers: those that follow coverage need a nightly compiler, and what they offer on stable is random
//! bytes, which no parser of text lets in. A corpus of real examples and a dictionary get deeper in the same seconds.
//!
//! ```no_run
//! use tidemill_fuzz::{Settings, fuzz, shape};
//!
//! fuzz("numbers", Settings { tokens: &["-", "9223372036854775807"], ..Settings::default() }, |input| {
//!     let text = String::from_utf8_lossy(input);
//!     let Ok(number) = text.parse::<i64>() else { return shape("no number") };
//!     assert_eq!(number.to_string().parse(), Ok(number));
//!     shape("a number")
//! });
//! ```

mod corpus;
mod execute;
mod memory;
mod mutate;
mod watchdog;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tidemill_runtime::Stopwatch;

pub use execute::shape;

use corpus::Pool;
use execute::{Executor, Failure};
use mutate::Mutator;

/// Where inputs that failed are written, below the system's folder for temporary files.
const FAILURES: &str = "tidemill-fuzz";
/// How often a failing input is tried smaller.
const SHRINKS: u32 = 2_000;

/// How a target is run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Mutations, unless `TIDEMILL_FUZZ_RUNS` or `TIDEMILL_FUZZ_SECONDS` say otherwise: what takes a few seconds in a debug build.
    pub runs: u64,
    /// No input is longer, in bytes.
    pub max_len: usize,
    /// Words that mean something to the parser.
    pub tokens: &'static [&'static str],
    /// Examples beside those in the corpus folder: encoded values, which would be out of date in a file.
    pub examples: Vec<Vec<u8>>,
    /// An input may make the target hold this many bytes at once ...
    pub memory: usize,
    /// ... and this many more for each of its own bytes.
    pub memory_per_byte: usize,
    /// No input may take longer.
    pub time: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            runs: 20_000,
            max_len: 4096,
            tokens: &[],
            examples: Vec::new(),
            memory: 4 << 20,
            memory_per_byte: 256,
            time: Duration::from_secs(5),
        }
    }
}

/// Runs a target. Panics with what went wrong and where the input lies.
///
/// `TIDEMILL_FUZZ_SEED` (0) chooses the mutations, `TIDEMILL_FUZZ_RUNS` how many, `TIDEMILL_FUZZ_SECONDS` how long instead, and
/// `TIDEMILL_FUZZ_REPLAY` names one file to run and nothing else. With `TIDEMILL_FUZZ_TRACE` each input is written to a file before it is
/// run: when one takes the whole program with it (a stack that overflows), that file holds it.
pub fn fuzz(name: &'static str, settings: Settings, body: impl FnMut(&[u8]) -> u64) {
    let mut executor = Executor::new(name, settings.clone(), body);
    if let Some(file) = std::env::var_os("TIDEMILL_FUZZ_REPLAY") {
        return replay(&mut executor, Path::new(&file));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut pool = Pool::load(&folder, &settings.examples);
    for entry in pool.entries() {
        if let Err(failure) = executor.run(&entry.bytes) {
            panic!("{name}: {} fails: {failure}\n  repeat: {}", entry.file.display(), repeat(name, &entry.file));
        }
    }
    let seed: u64 = number("TIDEMILL_FUZZ_SEED").unwrap_or(0);
    let runs = number("TIDEMILL_FUZZ_RUNS").unwrap_or(settings.runs);
    let mut mutator = Mutator::new(seed, name, settings);
    let seconds = number("TIDEMILL_FUZZ_SECONDS").map(Duration::from_secs);
    let watch = Stopwatch::start();
    let mut done = 0;
    while seconds.map_or(done < runs, |limit| watch.elapsed() < limit) {
        let input = mutator.next(&pool);
        done += 1;
        match executor.run(&input) {
            Ok(shape) => pool.offer(shape, input),
            Err(failure) => report(&mut executor, name, seed, done, input, &failure),
        }
    }
    let seconds = watch.elapsed().as_secs_f64();
    println!("{name}: {done} runs in {seconds:.1} s, seed {seed}, {} shapes of answers", pool.shapes());
}

fn replay<F: FnMut(&[u8]) -> u64>(executor: &mut Executor<F>, file: &Path) {
    let input = std::fs::read(file).unwrap_or_else(|e| panic!("TIDEMILL_FUZZ_REPLAY: {}: {e}", file.display()));
    match executor.run(&input) {
        Ok(_) => println!("{}: passes", file.display()),
        Err(failure) => panic!("{}: {failure}", file.display()),
    }
}

fn report<F: FnMut(&[u8]) -> u64>(executor: &mut Executor<F>, name: &str, seed: u64, done: u64, input: Vec<u8>, failure: &Failure) -> ! {
    let small = executor.shrink(input, failure, SHRINKS);
    let file = save(name, &small);
    panic!(
        "{name}: run {done} of seed {seed} fails: {failure}\n  input, {} bytes: \"{}\"\n  repeat: {}\n  keep it: cp {} tests/fuzz/corpus/{name}/",
        small.len(),
        small.escape_ascii(),
        repeat(name, &file),
        file.display(),
    );
}

fn repeat(name: &str, file: &Path) -> String {
    format!("TIDEMILL_FUZZ_REPLAY={} cargo test -p tidemill-fuzz --test parsers -- ::{name}", file.display())
}

/// Writes an input that failed to a file named after it.
fn save(name: &str, input: &[u8]) -> PathBuf {
    write(&format!("{name}-{:016x}", execute::hash(input)), input)
}

/// Writes the input that is run next.
fn trace(name: &str, input: &[u8]) {
    write(&format!("{name}-last"), input);
}

fn write(name: &str, input: &[u8]) -> PathBuf {
    let folder = std::env::temp_dir().join(FAILURES);
    let file = folder.join(name);
    let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&file, input));
    if let Err(e) = written {
        eprintln!("{}: {e}", file.display());
    }
    file
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is `{text}` and not a number")))
}
