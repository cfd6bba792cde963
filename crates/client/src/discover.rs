//! Which server is meant when nobody says so: the environment's, else the one of a data folder on this machine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};

use crate::Client;
use crate::error::with_hint;

/// What a running server writes to `<data>/server.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFile {
    /// Where it listens.
    pub url: String,
    /// Its process.
    #[serde(default)]
    pub pid: u32,
}

/// A server that was found. The token does not print.
#[derive(Clone)]
pub struct Found {
    /// Its URL.
    pub url: String,
    /// The token to ask it with; may be empty.
    pub token: String,
    /// Certificates in PEM to trust.
    pub ca: Option<Vec<u8>>,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Found {
    /// A client for it. Nothing is sent yet.
    pub fn connect(&self) -> Result<Client> {
        Client::new(&self.url, self.token.clone(), self.ca.as_deref())
    }
}

/// Looks for a server in a given environment.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    vars: BTreeMap<String, String>,
}

impl Discovery {
    /// In the environment of this process.
    pub fn from_env() -> Self {
        Self { vars: std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect() }
    }

    /// In an environment of these variables.
    pub fn with_vars<K: Into<String>, V: Into<String>>(vars: impl IntoIterator<Item = (K, V)>) -> Self {
        Self { vars: vars.into_iter().map(|(k, v)| (k.into(), v.into())).collect() }
    }

    fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(String::as_str).filter(|v| !v.is_empty())
    }

    /// The data folder when none is named: `$TIDEMILL_DATA`, else `$XDG_DATA_HOME/tidemill`, else `~/.local/share/tidemill`, else
    /// `tidemill-data` in the working folder.
    pub fn default_data(&self) -> PathBuf {
        if let Some(data) = self.var("TIDEMILL_DATA") {
            return PathBuf::from(data);
        }
        let absolute = |name: &str| self.var(name).map(PathBuf::from).filter(|p| p.is_absolute());
        if let Some(base) = absolute("XDG_DATA_HOME") {
            return base.join("tidemill");
        }
        absolute("HOME").map_or_else(|| PathBuf::from("tidemill-data"), |home| home.join(".local/share/tidemill"))
    }

    /// Finds the server: with `data` the one of that folder; else `TIDEMILL_URL` with `TIDEMILL_TOKEN`; else the one of the default
    /// data folder. `TIDEMILL_CA` names a file of certificates to trust. `Unavailable` when no server has written there.
    pub fn find(&self, data: Option<&Path>) -> Result<Found> {
        match (data, self.var("TIDEMILL_URL")) {
            (Some(data), _) => self.in_folder(data),
            (None, Some(url)) => {
                let token = self.var("TIDEMILL_TOKEN").unwrap_or_default().to_owned();
                Ok(Found { url: url.to_owned(), token, ca: self.ca(None)? })
            }
            (None, None) => self.in_folder(&self.default_data()),
        }
    }

    fn in_folder(&self, data: &Path) -> Result<Found> {
        let file = data.join("server.json");
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let error = Error::unavailable(format!("no server has been started with the data folder {}", data.display()));
                let next = format!(
                    "start one with `tidemill serve --data {}`, or set TIDEMILL_URL and TIDEMILL_TOKEN to reach one elsewhere",
                    data.display()
                );
                return Err(with_hint(error, next));
            }
            Err(e) => return Err(Error::from(e).context(file.display())),
        };
        let server: ServerFile = serde_json::from_str(&text)
            .map_err(|e| Error::corrupt(format!("{} is not what a server writes", file.display())).with_source(e))?;
        let token = match self.var("TIDEMILL_TOKEN") {
            Some(token) => token.to_owned(),
            None => read_token(&data.join("admin-token"))?,
        };
        Ok(Found { url: server.url, token, ca: self.ca(Some(data))? })
    }

    /// The file that `TIDEMILL_CA` names, else the certificate that the server of this folder generated.
    fn ca(&self, data: Option<&Path>) -> Result<Option<Vec<u8>>> {
        if let Some(file) = self.var("TIDEMILL_CA") {
            return fs::read(file).map(Some).map_err(|e| Error::from(e).context(format!("TIDEMILL_CA {file}")));
        }
        Ok(data.and_then(|d| fs::read(d.join("tls/cert.pem")).ok()))
    }
}

fn read_token(file: &Path) -> Result<String> {
    fs::read_to_string(file).map(|t| t.trim().to_owned()).map_err(|e| {
        let error = Error::from(e).context(format!("the token in {}", file.display()));
        with_hint(error, "only the user who runs the server may read it; ask for a token of your own and set TIDEMILL_TOKEN")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint;
    use tidemill_base::ErrorKind;

    fn folder(url: &str, token: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("server.json"), format!(r#"{{"url":"{url}","pid":7,"version":"9"}}"#)).unwrap();
        fs::write(folder.path().join("admin-token"), format!("{token}\n")).unwrap();
        folder
    }

    #[test]
    fn a_named_folder_comes_first_then_the_environment_then_the_default_folder() {
        let (named, default) = (folder("http://a:1", "tm_a"), folder("http://b:2", "tm_b"));
        let vars = [("TIDEMILL_URL", "http://c:3".to_owned()), ("TIDEMILL_DATA", default.path().display().to_string())];
        let both = Discovery::with_vars(vars.clone());
        let found = both.find(Some(named.path())).unwrap();
        assert_eq!((found.url.as_str(), found.token.as_str()), ("http://a:1", "tm_a"));
        assert_eq!(both.find(None).unwrap().url, "http://c:3");
        let found = Discovery::with_vars(vars[1..].to_vec()).find(None).unwrap();
        assert_eq!((found.url.as_str(), found.token.as_str()), ("http://b:2", "tm_b"));
    }

    #[test]
    fn the_default_folder_follows_the_usual_variables() {
        let at = |vars: &[(&str, &str)]| Discovery::with_vars(vars.iter().copied()).default_data();
        assert_eq!(at(&[("TIDEMILL_DATA", "d"), ("HOME", "/h")]), PathBuf::from("d"));
        assert_eq!(at(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), PathBuf::from("/x/tidemill"));
        assert_eq!(at(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]), PathBuf::from("/h/.local/share/tidemill"));
        assert_eq!(at(&[]), PathBuf::from("tidemill-data"));
    }

    #[test]
    fn an_empty_folder_names_the_command_that_fills_it() {
        let empty = tempfile::tempdir().unwrap();
        let error = Discovery::default().find(Some(empty.path())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(hint(&error).is_some_and(|h| h.contains("tidemill serve --data")));
    }
}
