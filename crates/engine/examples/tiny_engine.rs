//! A small engine on the Rust kit: what the tests of the host misuse, and an example of how to write one.
//!
//! Its functions take a payload of words: `echo TEXT`, `sleep MILLISECONDS`, `work MICROSECONDS` (busy), `print TEXT`, `panic`, `abort`,
//! `exit CODE`, `env`, `user`, `pid`, `calls`, `grow MEGABYTES` (and keep them), `hang`, `big BYTES`, `sum` (of the dependencies), `child` (leaves one running).

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::Duration;

use tidemill_engine::TaskError;
use tidemill_engine::kit::{Call, Kit, Opening, program};
use tidemill_runtime::Stopwatch;

fn main() -> tidemill_base::Result<()> {
    Kit::new("tiny", "1.0").library("words", "2.1").function("words", words).function("noop", noop).function("program", program).serve()
}

fn noop(_: &Opening<'_>) -> Result<impl FnMut(Call<'_>) -> Result<Vec<u8>, TaskError> + use<>, TaskError> {
    Ok(|_: Call<'_>| Ok(Vec::new()))
}

fn words(opening: &Opening<'_>) -> Result<impl FnMut(Call<'_>) -> Result<Vec<u8>, TaskError> + use<>, TaskError> {
    if opening.data() == b"refuse" {
        return Err(TaskError::new("Refused", "the data says so"));
    }
    if opening.data() == b"abort" {
        std::process::abort();
    }
    let prefix = String::from_utf8_lossy(opening.data()).into_owned();
    let (mut calls, mut kept) = (0_u64, Vec::new());
    Ok(move |call: Call<'_>| {
        calls += 1;
        let (word, rest) = call.text()?.split_once(' ').unwrap_or((call.text()?, ""));
        let number = || rest.parse::<u64>().map_err(|_| TaskError::new("NotANumber", format!("`{rest}` is not a number")));
        match word {
            "echo" => return Ok(format!("{prefix}{rest}").into_bytes()),
            "calls" => return Ok(calls.to_string().into_bytes()),
            "env" => return Ok(std::env::vars().map(|(k, v)| format!("{k}={v}\n")).collect::<String>().into_bytes()),
            "user" => return Ok(std::fs::metadata("/proc/self").map_or(0, |m| m.uid()).to_string().into_bytes()),
            "pid" => return Ok(std::process::id().to_string().into_bytes()),
            "sleep" => sleep(Duration::from_millis(number()?)),
            "work" => {
                let (watch, most) = (Stopwatch::start(), Duration::from_micros(number()?));
                while watch.elapsed() < most {}
            }
            "print" => println!("{rest}"),
            "panic" => return Err(TaskError::new("unreached", panicking(rest))),
            "abort" => std::process::abort(),
            "exit" => std::process::exit(i32::try_from(number()?).unwrap_or(1)),
            "grow" => kept.push(vec![1_u8; usize::try_from(number()?).unwrap_or(0) << 20]),
            "hang" => loop {
                sleep(Duration::from_secs(1));
            },
            "flood" => loop {
                let _full = std::io::stderr().write_all(&[b'x'; 4096]);
            },
            "big" => return Ok(vec![7; usize::try_from(number()?).unwrap_or(0)]),
            "sum" => {
                let numbers = call.dependencies.iter().map(|d| String::from_utf8_lossy(d).parse::<i64>().unwrap_or(0));
                return Ok(numbers.sum::<i64>().to_string().into_bytes());
            }
            "child" => {
                let child = Command::new("sleep").arg("300").spawn().map_err(|e| TaskError::new("start", e.to_string()))?;
                return Ok(child.id().to_string().into_bytes());
            }
            _ => return Err(TaskError::new("Unknown", format!("there is no word `{word}`"))),
        }
        Ok(word.as_bytes().to_vec())
    })
}

fn panicking(why: &str) -> String {
    assert!(why.is_empty() && !why.is_empty(), "asked to panic: {why}");
    String::new()
}

#[expect(clippy::disallowed_methods, reason = "an engine's task blocks")]
fn sleep(d: Duration) {
    std::thread::sleep(d);
}
