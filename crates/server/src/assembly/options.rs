//! What the command line says about serving, as the last layer of the configuration.

use std::path::PathBuf;

use tidemill_base::{Error, Result};
use tidemill_runtime::Layers;

use crate::config::ServerConfig;

/// Flags of `tidemill serve`; what is `None` is left to the file, the environment and the defaults.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// A configuration file; `None`: `tidemill.toml` in the data folder, if it is there.
    pub config: Option<PathBuf>,
    /// The data folder.
    pub data: Option<PathBuf>,
    /// Keys and values, by their names in the configuration: `("server.listen", "127.0.0.1:8080")`.
    pub flags: Vec<(String, String)>,
}

impl ServeOptions {
    /// All layers merged.
    pub fn config(&self) -> Result<ServerConfig> {
        self.layers()?.build()
    }

    /// The layers, for `tidemill config`.
    pub fn layers(&self) -> Result<Layers> {
        let mut layers = Layers::defaults(&ServerConfig::default())?;
        if let Some((name, text)) = self.file()? {
            layers = layers.file(&name, &text)?;
        }
        layers = layers.env(std::env::vars())?;
        if let Some(data) = &self.data {
            layers = layers.flag("server.data", &data.to_string_lossy())?;
        }
        for (key, value) in &self.flags {
            layers = layers.flag(key, value)?;
        }
        Ok(layers)
    }

    fn file(&self) -> Result<Option<(String, String)>> {
        let (path, must) = match (&self.config, &self.data) {
            (Some(path), _) => (path.clone(), true),
            (None, Some(data)) => (data.join("tidemill.toml"), false),
            (None, None) => return Ok(None),
        };
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path.display().to_string(), text))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must => Ok(None),
            Err(e) => Err(Error::from(e).context(format!("read {}", path.display()))),
        }
    }
}
