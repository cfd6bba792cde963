//! An engine that breaks the protocol in a way chosen by its argument. For the tests of the host.

use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use tidemill_base::{Error, Result};
use tidemill_engine::wire::{Frames, FromEngine, FromHost, HEADER_BYTES, Hello, Opened, PROTOCOL, ResultColumns};
use tidemill_engine::{Outcome, TaskResult};

fn main() -> Result<()> {
    let how = std::env::args().nth(1).ok_or_else(|| Error::invalid("say how to misbehave"))?;
    let mut rogue = Rogue { how, frames: Frames::new(1 << 20), out: BytesMut::new() };
    match rogue.how.as_str() {
        "talks-first" => rogue.raw(b"Welcome to the legacy pricing library!\n")?,
        "dies-early" => {
            eprintln!("cannot find the licence file");
            std::process::exit(3);
        }
        _ => {}
    }
    while let Some(message) = rogue.next()? {
        rogue.answer(message)?;
    }
    Ok(())
}

struct Rogue {
    how: String,
    frames: Frames,
    out: BytesMut,
}

impl Rogue {
    fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes)?;
        Ok(stdout.flush()?)
    }

    fn say(&mut self, what: &FromEngine) -> Result<()> {
        what.encode(&mut self.out);
        let bytes = self.out.split();
        self.raw(&bytes)
    }

    fn next(&mut self) -> Result<Option<FromHost>> {
        loop {
            if let Some(frame) = self.frames.next_frame()? {
                return FromHost::decode(frame).map(Some);
            }
            let mut block = [0; 4096];
            let n = std::io::stdin().read(&mut block)?;
            if n == 0 {
                return Ok(None);
            }
            self.frames.buffer().extend_from_slice(&block[..n]);
        }
    }

    fn answer(&mut self, message: FromHost) -> Result<()> {
        match message {
            FromHost::Start(_) => self.hello(),
            FromHost::Open(open) => match self.how.as_str() {
                "opens-another" => self.say(&FromEngine::Opened(Opened { session: open.number + 1, took_us: 0, loaded: Vec::new() })),
                "talks-later" => self.raw(b"Warning: curve is flat\n"),
                _ => self.say(&FromEngine::Opened(Opened { session: open.number, took_us: 0, loaded: Vec::new() })),
            },
            FromHost::Run(run) => {
                let ids: Vec<u64> = run.tasks.iter().map(|t| t.id).collect();
                self.run(run.session, &ids)
            }
            FromHost::Close(_) | FromHost::Cancel(..) | FromHost::Ping(_) => Ok(()),
        }
    }

    fn hello(&mut self) -> Result<()> {
        match self.how.as_str() {
            "silent" => return Ok(()),
            "not-hello" => return self.say(&FromEngine::Pong(1)),
            _ => {}
        }
        let protocol = if self.how == "newer" { PROTOCOL + 8 } else { PROTOCOL };
        self.say(&FromEngine::Hello(Hello {
            protocol,
            pid: std::process::id(),
            kit: "rogue".into(),
            kit_version: "0".into(),
            language: "rust".into(),
            loaded: Vec::new(),
        }))
    }

    fn run(&mut self, session: u32, ids: &[u64]) -> Result<()> {
        let outcome = |task| Outcome { task, run_us: 1, result: TaskResult::Value(Bytes::from_static(b"v")) };
        let results = |ids: &[u64]| FromEngine::Results(ResultColumns { session, outcomes: ids.iter().copied().map(outcome).collect() });
        match self.how.as_str() {
            "wrong-task" => self.say(&results(&[ids[0] + 1000])),
            "out-of-order" => self.say(&results(&[ids[1], ids[0]])),
            "twice" => {
                self.say(&results(&ids[..1]))?;
                self.say(&results(&ids[..1]))
            }
            "oversized" => self.raw(&[0xff, 0xff, 0xff, 0x7f, 0x84]),
            "cut-short" => {
                self.say(&results(&ids[..1]))?;
                results(&ids[1..]).encode(&mut self.out);
                let half = self.out.split_to(HEADER_BYTES + 7);
                self.raw(&half)?;
                std::process::exit(0);
            }
            "closes-stdout" => {
                self.say(&results(&ids[..1]))?;
                // Everything that writes here fails from now on, and the host sees the end of the stream.
                rustix::stdio::dup2_stdout(std::io::stderr()).map_err(std::io::Error::from)?;
                loop {
                    std::thread::park();
                }
            }
            _ => self.say(&results(ids)),
        }
    }
}
