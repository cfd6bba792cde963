//! Wheels of a package, unpacked for Python.
//!
//! A wheel is a zip file whose members lie as they are to be imported (the binary distribution format of the Python Packaging Authority), so
//! the worker's Python unpacks it with its own library: that needs neither pip nor a network, and a dependency that is not among the wheels
//! is found when it is imported and named there. What belongs elsewhere than on the path (scripts, headers, data) is left out.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tidemill_base::{Error, Result};
use tidemill_grid::packages::{Manifest, hex};

use super::disk;

/// Unpacking takes no longer.
const LIMIT: Duration = Duration::from_secs(600);

/// Gets the target folder and the wheels as arguments.
const UNPACK: &str = r#"
import os, sys, sysconfig, zipfile
here = sysconfig.get_platform().replace("-", "_").replace(".", "_")
machine = here.rsplit("_", 1)[-1] if not here.endswith("x86_64") else "x86_64"
version = "%d%d" % sys.version_info[:2]
def fits(name):
    parts = name[:-4].split("-")
    if len(parts) < 5:
        sys.exit("%s is not named as wheels are: NAME-VERSION-PYTHON-ABI-PLATFORM.whl" % name)
    python, abi, platform = (p.split(".") for p in parts[-3:])
    stable = "abi3" in abi and any(p.startswith("cp3") and int(p[3:] or 0) <= sys.version_info[1] for p in python)
    if not (stable or any(p in ("py3", "py" + version, "cp" + version) for p in python)):
        sys.exit("%s is for another Python than this, which is %d.%d" % ((name,) + sys.version_info[:2]))
    if not any(p == "any" or p.endswith("_" + machine) for p in platform):
        sys.exit("%s is for another machine than this, which is %s" % (name, here))
target = sys.argv[1]
for path in sys.argv[2:]:
    fits(os.path.basename(path))
    with zipfile.ZipFile(path) as wheel:
        for member in wheel.infolist():
            top, _, rest = member.filename.partition("/")
            if top.endswith(".data"):
                kind, _, rest = rest.partition("/")
                if kind not in ("purelib", "platlib") or not rest:
                    continue
                member.filename = rest
            if not member.filename.endswith("/"):
                wheel.extract(member, target)
"#;

/// The folder to put on the path of this Python.
pub(super) async fn unpack(folder: &Path, manifest: &Manifest, python: &Path) -> Result<PathBuf> {
    let place = folder.join(format!("python-{}", key(python)));
    if place.is_dir() {
        return Ok(place);
    }
    let draft = folder.join("python-new");
    disk::remove(&draft);
    std::fs::create_dir_all(&draft).map_err(|e| Error::from(e).context(format!("make `{}`", draft.display())))?;
    let mut command = tokio::process::Command::new(python);
    command.args(["-I", "-c", UNPACK]).arg(&draft).args(manifest.wheels().map(|w| folder.join("files").join(&w.path)));
    command.stdin(Stdio::null()).kill_on_drop(true);
    let ended = tidemill_runtime::timeout(LIMIT, "unpacking its wheels", command.output()).await?;
    let ended = ended.map_err(|e| Error::from(e).context(format!("start `{}` to unpack its wheels", python.display())))?;
    if !ended.status.success() {
        disk::remove(&draft);
        let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        let last = said.lines().last().unwrap_or("it said nothing").to_owned();
        return Err(Error::invalid(format!("`{}` cannot unpack its wheels: {last}", python.display())));
    }
    std::fs::rename(&draft, &place).map_err(|e| Error::from(e).context(format!("make `{}`", place.display())))?;
    Ok(place)
}

/// Another Python gets a folder of its own.
fn key(python: &Path) -> String {
    let real = std::fs::canonicalize(python).unwrap_or_else(|_| python.to_owned());
    let text = format!("{}\n{}\n{}", python.display(), real.display(), disk::modified(&real));
    hex(&Sha256::digest(text))[..16].to_owned()
}
