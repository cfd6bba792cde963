//! One run of a target: its panic caught, its time and memory held against the limits.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use tidemill_runtime::Stopwatch;

use crate::watchdog::Watchdog;
use crate::{Settings, memory};

/// Why an input failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Tells one mistake from another: the place of the panic, or the limit.
    place: String,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, at {}", self.message, self.place)
    }
}

/// The shape of an answer: its text without numbers, and without what is between its first and its last quote, which comes from the
/// input. Inputs that give another shape have got to another place in the code.
pub fn shape(answer: impl fmt::Display) -> u64 {
    let text = answer.to_string();
    let quotes = ['`', '"'];
    let (before, after) = match (text.find(quotes), text.rfind(quotes)) {
        (Some(first), Some(last)) => (&text[..first], &text[last..]),
        _ => (text.as_str(), ""),
    };
    let kept: Vec<u8> = before.bytes().chain(after.bytes()).filter(|b| !b.is_ascii_digit()).collect();
    hash(&kept)
}

/// FNV-1a: small, and the same on every machine.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// Runs a target.
pub(crate) struct Executor<F> {
    settings: Settings,
    body: F,
    watchdog: Watchdog,
    /// Whether each input is written to a file before it is run, for those that take the whole program with them.
    trace: Option<&'static str>,
}

impl<F: FnMut(&[u8]) -> u64> Executor<F> {
    pub(crate) fn new(name: &'static str, settings: Settings, body: F) -> Self {
        hook();
        let watchdog = Watchdog::start(name, settings.time * 6);
        let trace = std::env::var_os("TIDEMILL_FUZZ_TRACE").map(|_| name);
        Self { settings, body, watchdog, trace }
    }

    /// The shape of the answer to `input`, or what it broke.
    pub(crate) fn run(&mut self, input: &[u8]) -> Result<u64, Failure> {
        let (shape, took, peak) = self.once(input)?;
        // A machine that does other things is slow now and then; an input that is slow is so each time.
        if took > self.settings.time && self.once(input)?.1 > self.settings.time {
            let message = format!("it took {took:?} where {:?} is the limit", self.settings.time);
            return Err(Failure { place: "the limit on time".to_owned(), message });
        }
        let limit = self.settings.memory + self.settings.memory_per_byte * input.len();
        // What is made once and kept, such as a table of regular expressions, is no fault of this input.
        if peak > limit && self.once(input)?.2 > limit {
            let message = format!("{} bytes of input made it hold {peak} bytes where {limit} is the limit", input.len());
            return Err(Failure { place: "the limit on memory".to_owned(), message });
        }
        Ok(shape)
    }

    fn once(&mut self, input: &[u8]) -> Result<(u64, Duration, usize), Failure> {
        self.watchdog.begin(input);
        if let Some(name) = self.trace {
            crate::trace(name, input);
        }
        RUNS.set(true);
        let watch = Stopwatch::start();
        let body = &mut self.body;
        let (outcome, peak) = memory::measured(|| catch_unwind(AssertUnwindSafe(|| body(input))));
        let took = watch.elapsed();
        RUNS.set(false);
        self.watchdog.end();
        let lost = || Failure { place: "an unknown place".to_owned(), message: "it panicked".to_owned() };
        outcome.map(|shape| (shape, took, peak)).map_err(|_| PANIC.take().unwrap_or_else(lost))
    }

    /// A smaller input that fails in the same place, found by leaving out pieces for as long as `tries` last.
    pub(crate) fn shrink(&mut self, input: Vec<u8>, failure: &Failure, mut tries: u32) -> Vec<u8> {
        let mut best = input;
        let mut piece = best.len() / 2;
        // Without the second run that the limits take, smaller inputs would pass for lack of patience.
        while piece > 0 && tries > 0 {
            let mut at = 0;
            while at < best.len() && tries > 0 {
                tries -= 1;
                let mut smaller = best.clone();
                smaller.drain(at..(at + piece).min(best.len()));
                match self.run(&smaller) {
                    Err(other) if other.place == failure.place => best = smaller,
                    _ => at += piece,
                }
            }
            piece /= 2;
        }
        best
    }
}

thread_local! {
    /// Whether this thread runs a target, whose panics are expected and not printed.
    static RUNS: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<Option<Failure>> = const { RefCell::new(None) };
}

/// Keeps a target's panic with its place, instead of printing each of the hundreds that shrinking makes.
fn hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !RUNS.get() {
                return usual(info);
            }
            let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            let message = info.payload_as_str().unwrap_or("it panicked without words").to_owned();
            PANIC.set(Some(Failure { place, message }));
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_kept_with_its_place_and_shrunk() {
        let body = |input: &[u8]| {
            assert!(!input.windows(2).any(|w| w == b"ab"), "it holds `ab`");
            0
        };
        let mut executor = Executor::new("test", Settings::default(), body);
        assert_eq!(executor.run(b"axb"), Ok(0));
        let failure = executor.run(b"----ab----").unwrap_err();
        assert!(failure.to_string().starts_with("it holds `ab`, at "), "{failure}");
        assert_eq!(executor.shrink(b"----ab----ab".to_vec(), &failure, 1000), b"ab");
    }

    #[test]
    fn memory_and_time_are_limited() {
        let settings = Settings { memory: 1000, memory_per_byte: 10, time: Duration::from_millis(20), ..Settings::default() };
        let body = |input: &[u8]| {
            let watch = Stopwatch::start();
            while input == b"slow" && watch.elapsed() < Duration::from_millis(30) {}
            std::hint::black_box(vec![0_u8; input.len() * if input == b"large" { 1000 } else { 1 }]);
            0
        };
        let mut executor = Executor::new("test", settings, body);
        assert_eq!(executor.run(b"small"), Ok(0));
        assert_eq!(executor.run(b"slow").unwrap_err().place, "the limit on time");
        assert_eq!(executor.run(b"large").unwrap_err().place, "the limit on memory");
    }

    #[test]
    fn shapes_leave_out_what_comes_from_the_input() {
        assert_eq!(shape("line 3: `x` is wrong"), shape("line 44: `yy` is wrong"));
        assert_ne!(shape("line 3: `x` is wrong"), shape("line 3: `x` is long"));
    }
}
