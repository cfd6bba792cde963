//! Prints the page about metrics: `cargo run -p tidemill-server --example metrics > docs/reference/metrics.md`.

use std::io::Write as _;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(tidemill_server::metrics::reference().as_bytes())
}
