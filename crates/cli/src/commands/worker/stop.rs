//! What ends a worker: signals, and word that its machine will be taken away.

use tidemill_base::Result;
use tidemill_runtime::{Kind, Tasks};
use tidemill_server::assembly::instance_notice;
use tokio::signal::unix::{SignalKind, signal};

/// The first signal drains, the second closes.
pub(super) fn follow_signals(tasks: &Tasks) -> Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("signals", Kind::Request, async move {
        loop {
            tokio::select! {
                biased;
                () = shutdown.closing() => return Ok(()),
                _ = term.recv() => {}
                _ = interrupt.recv() => {}
            }
            if shutdown.phase().is_running() {
                tracing::info!("asked to stop: finishing what runs; a second signal stops at once");
                shutdown.drain();
            } else {
                shutdown.close();
            }
        }
    });
    Ok(())
}

/// Drains when the instance is told that it will be taken away.
pub(super) fn follow_notices(tasks: &Tasks) {
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("notices", Kind::Request, async move {
        tokio::select! {
            biased;
            () = shutdown.draining() => Ok(()),
            told = instance_notice() => {
                tracing::warn!(reason = told?, "this machine will be taken away: finishing what runs");
                shutdown.drain();
                Ok(())
            }
        }
    });
}
