//! The file that holds the master key.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind as IoKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use tidemill_base::{Env, Error, Result};

const KEY_BYTES: usize = 32;

/// The key in the file at `path`; when there is none, a fresh one is written there first, readable by its owner alone.
///
/// When two processes come at once, one file wins whole and both return its key. `Denied`: others than the owner may read the
/// file. `Corrupt`: it does not hold 64 hexadecimal digits.
pub fn load_or_create_key(path: impl AsRef<Path>, env: &Env) -> Result<[u8; 32]> {
    let path = path.as_ref();
    let outcome = match load(path) {
        Err(e) if is_missing(&e) => create(path, env).and_then(|()| load(path)),
        other => other,
    };
    outcome.map_err(|e| e.context(format!("key file {}", path.display())))
}

fn is_missing(e: &Error) -> bool {
    e.kind() == tidemill_base::ErrorKind::NotFound
}

fn load(path: &Path) -> Result<[u8; 32]> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Error::denied(format!("others may read it (mode {mode:03o}); run `chmod 600 {}`", path.display())));
    }
    let mut text = String::new();
    file.take(1024).read_to_string(&mut text)?;
    let mut key = [0; KEY_BYTES];
    hex::decode_to_slice(text.trim_end(), &mut key).map_err(|_| {
        Error::corrupt("it does not hold 64 hexadecimal digits; restore it, or remove it and every credential issued so far ends")
    })?;
    Ok(key)
}

/// Written under another name, synced, then linked to its own: the link fails when somebody was first, and no reader ever sees
/// half a key.
fn create(path: &Path, env: &Env) -> Result<()> {
    let part = part_name(path, env);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    let written = file.write_all(format!("{}\n", hex::encode(&env.secret(KEY_BYTES).0)).as_bytes()).and_then(|()| file.sync_all());
    let linked = written.and_then(|()| std::fs::hard_link(&part, path));
    std::fs::remove_file(&part)?;
    match linked {
        Err(e) if e.kind() != IoKind::AlreadyExists => Err(e.into()),
        _ => {
            let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
            File::open(folder)?.sync_all()?;
            Ok(())
        }
    }
}

fn part_name(path: &Path, env: &Env) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.{:x}", std::process::id(), env.random_u64()));
    PathBuf::from(name)
}
