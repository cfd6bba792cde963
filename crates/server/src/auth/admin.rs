//! The first start: an administrator whose token lies in the data folder, readable by its owner alone.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use tidemill_base::{Error, ErrorKind, Result};

use super::{Auth, Role, Secret};

/// The file's name within the data folder.
pub const ADMIN_TOKEN_FILE: &str = "admin-token";
const ADMIN: &str = "admin";

impl Auth {
    /// Sees to it that `<data>/admin-token` holds a token that works, and returns its path. Whoever may write the data folder may
    /// do anything anyhow, so a token that is missing or has been revoked is made anew.
    pub async fn ensure_admin_token(&self, data: &Path) -> Result<PathBuf> {
        let path = data.join(ADMIN_TOKEN_FILE);
        match fs::read_to_string(&path) {
            Ok(text) if self.authenticate(text.trim()).await.is_ok_and(|p| p.role == Role::Admin) => return Ok(path),
            Ok(_) => tracing::warn!(file = %path.display(), "the token there is not valid any more, writing a new one"),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::from(e).context(format!("read {}", path.display()))),
        }
        match self.create_user(ADMIN, Role::Admin).await {
            Err(e) if e.kind() != ErrorKind::Conflict => return Err(e),
            _ => {}
        }
        let (_, token) = self.create_token(ADMIN, Role::Admin, &[], None).await?;
        write_private(&path, &token).map_err(|e| Error::from(e).context(format!("write {}", path.display())))?;
        Ok(path)
    }
}

/// Writes the token so that the file is never there half-written or readable by others.
pub(crate) fn write_private(path: &Path, token: &Secret) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    match fs::remove_file(&draft) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    writeln!(file, "{}", token.expose())?;
    file.sync_all()?;
    fs::rename(&draft, path)
}
