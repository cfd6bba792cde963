//! Prints the OpenAPI document of the public interface: `cargo run -p tidemill-server --example openapi > docs/reference/openapi.json`.

use std::io::Write as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut text = tidemill_server::openapi().to_pretty_json()?;
    text.push('\n');
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}
