//! `tidemill serve`.

use std::path::PathBuf;

use clap::Args;
use tidemill_base::{ByteSize, Result};
use tidemill_runtime::init_logs;
use tidemill_server::{ServeOptions, serve};

use crate::context::Context;
use crate::exit::Exit;

/// Start everything on this machine. It is ready when `GET /readyz` answers 200; SIGTERM and Ctrl-C drain it.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address and port of the interface and the console [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Address and port of the S3 endpoint [default: none].
    #[arg(long, value_name = "ADDRESS")]
    s3_listen: Option<String>,
    /// Address and port of the SQL endpoint, PostgreSQL's protocol [default: none].
    #[arg(long, value_name = "ADDRESS")]
    sql_listen: Option<String>,
    /// Local workers: the fewest and the most, or one number for just so many.
    #[arg(long, value_name = "MIN..MAX")]
    workers: Option<String>,
    /// Tasks that one local worker runs at once [default: as many as the machine has processors].
    #[arg(long, value_name = "N")]
    slots: Option<u32>,
    /// Memory that one local worker offers to tasks [default: three quarters of the machine's].
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Certificate chain in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Generate a certificate into the data folder, once.
    #[arg(long, conflicts_with = "tls_cert")]
    tls_generate: bool,
    /// Listen beyond this machine without TLS: only behind a proxy that speaks it.
    #[arg(long)]
    insecure: bool,
    /// A configuration file [default: tidemill.toml in the data folder, if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Any other setting by its name: `--set limits.max-body=64MiB`; `tidemill config --defaults` lists them.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    settings: Vec<(String, String)>,
}

pub(super) fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or_else(|| format!("`{text}` is not KEY=VALUE"))?;
    if key.is_empty() { Err(format!("`{text}` has no name before the =")) } else { Ok((key.to_owned(), value.to_owned())) }
}

/// Flags as the last layer. Without a configuration file or variable that could name another, the data folder is the one where
/// other commands look for the server.
pub(super) fn options(cx: &Context, config: Option<PathBuf>, flags: Vec<(String, String)>) -> ServeOptions {
    let elsewhere = config.is_some() || std::env::var_os("TIDEMILL_SERVER_DATA").is_some();
    let data = if elsewhere { cx.data.clone() } else { Some(cx.data_folder()) };
    ServeOptions { config, data, flags }
}

impl Serve {
    pub(crate) async fn run(self, cx: &Context, log: Option<String>) -> Result<Exit> {
        let options = options(cx, self.config.clone(), self.flags(log));
        let config = options.config()?;
        init_logs(&config.log.filter, config.log.parsed_format()?);
        serve(options).await.map(|()| Exit::Success)
    }

    fn flags(self, log: Option<String>) -> Vec<(String, String)> {
        let path = |p: PathBuf| p.to_string_lossy().into_owned();
        let given = [
            ("server.listen", self.listen),
            ("server.s3-listen", self.s3_listen),
            ("server.sql-listen", self.sql_listen),
            ("server.insecure", self.insecure.then(|| "true".to_owned())),
            ("fleet.workers", self.workers),
            ("fleet.slots", self.slots.map(|n| n.to_string())),
            ("fleet.memory", self.memory.map(|m| m.bytes().to_string())),
            ("tls.cert", self.tls_cert.map(path)),
            ("tls.key", self.tls_key.map(path)),
            ("tls.generate", self.tls_generate.then(|| "true".to_owned())),
            ("log.filter", log),
        ];
        let named = given.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
        named.chain(self.settings).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        serve: Serve,
    }

    fn config(line: &str) -> Result<tidemill_server::config::ServerConfig> {
        let only = Only::try_parse_from(std::iter::once("serve").chain(line.split_whitespace())).unwrap();
        let cx = Context::new(Some(PathBuf::from("/nowhere/mill")), Format::Table);
        options(&cx, None, only.serve.flags(None)).config()
    }

    #[test]
    fn flags_reach_the_settings() {
        let c = config("--listen 127.0.0.1:0 --workers 1..3 --slots 2 --memory 1GiB --tls-generate --set limits.requests-per-second=7")
            .unwrap();
        assert_eq!((c.server.listen.as_str(), c.fleet.workers.as_str(), c.fleet.slots), ("127.0.0.1:0", "1..3", 2));
        assert_eq!((c.fleet.memory, c.tls.generate, c.limits.requests_per_second), (ByteSize(1 << 30), true, 7));
        assert_eq!(c.server.data, PathBuf::from("/nowhere/mill"));
    }

    #[test]
    fn a_setting_that_is_not_there_is_named() {
        assert!(config("--set limits.nonsense=1").unwrap_err().message().contains("limits.nonsense"));
        assert!(key_value("nothing").unwrap_err().contains("KEY=VALUE"));
    }
}
