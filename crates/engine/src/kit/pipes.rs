//! The two pipes of the protocol, moved out of everybody's way.

use std::fs::File;
use std::io::{self, Read, Write};

use bytes::BytesMut;
use rustix::event::{PollFd, PollFlags, Timespec};

/// Read at once, bytes.
const BLOCK: usize = 256 << 10;

/// Takes standard input and output; leaves /dev/null and standard error in their places.
pub(super) fn take() -> io::Result<(Input, Output)> {
    let input = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
    let output = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(io::stderr())?;
    let input = Input { pipe: input.into(), block: vec![0; BLOCK].into() };
    Ok((input, Output { pipe: output.into(), pid: std::process::id() }))
}

#[derive(Debug)]
pub(super) struct Input {
    pipe: File,
    block: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Output {
    pipe: File,
    /// A child that was forked and not replaced by another program must not speak for the engine.
    pid: u32,
}

impl Input {
    /// Whether there is something to read, or the input has ended.
    pub(super) fn is_readable(&self) -> io::Result<bool> {
        let mut wanted = [PollFd::new(&self.pipe, PollFlags::IN)];
        Ok(rustix::event::poll(&mut wanted, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? > 0)
    }

    /// Adds what comes to `to`; 0 at the end.
    pub(super) fn read(&mut self, to: &mut BytesMut) -> io::Result<usize> {
        loop {
            match self.pipe.read(&mut self.block) {
                Ok(n) => {
                    to.extend_from_slice(&self.block[..n]);
                    return Ok(n);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Output {
    pub(super) fn write(&mut self, from: &mut BytesMut) -> io::Result<()> {
        if std::process::id() != self.pid {
            return Err(io::Error::other("a forked child has returned from its task; it must exit by itself"));
        }
        self.pipe.write_all(from)?;
        from.clear();
        Ok(())
    }
}
