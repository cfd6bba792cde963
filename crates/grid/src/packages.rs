//! Packages: named, versioned folders of files that engines get read-only: holiday calendars, curves, boot data, wheels, whole engines.
//!
//! A version says for good what is in it: its manifest holds the SHA-256 of every file, and its digest is the SHA-256 of the manifest. A
//! session pins digests when it is opened, so that nothing that is published later reaches it, and each result can be made again. Files
//! are kept once however many versions hold them.
//!
//! | object | what |
//! | --- | --- |
//! | `packages/NAME/VERSION.json` | a [`Stored`] manifest, written once |
//! | `packages/blobs/SHA256` | a file's bytes |
//! | `packages/deleting/ID` | somebody is removing bytes that no manifest names: see [`Packages::delete`] |

mod store;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_batch::model::PackagePin;

pub use store::{Packages, blob_path};

/// The most files in a package.
pub const MAX_FILES: usize = 10_000;
/// The largest file, bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 30;
/// The largest package, bytes.
pub const MAX_BYTES: u64 = 32 << 30;
/// The longest name and version, bytes.
const MAX_NAME: usize = 100;
/// The longest path of a file, bytes.
const MAX_PATH: usize = 400;
/// The most arguments of an engine, and the bytes of each.
const MAX_ARGS: (usize, usize) = (100, 4096);
/// Names that mean something else below `packages/`.
const RESERVED: [&str; 2] = ["blobs", "deleting"];

/// What a version of a package is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1 to 100 of letters, digits, `-`, `_` and `.`, the first of them a letter or a digit.
    pub name: String,
    /// Likewise; `+` is allowed too. As its publisher counts them: nothing is read into it.
    pub version: String,
    /// The files, in order of their paths.
    pub files: Vec<PackageFile>,
    /// The engine that it holds, if it does: sessions may then name the package as their engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<PackageEngine>,
}

/// A file of a package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageFile {
    /// Below the package's folder, parts divided by `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Of its content, in lower-case hexadecimal digits.
    pub sha256: String,
    /// Whether it is a program.
    #[serde(default)]
    pub executable: bool,
}

/// An engine in a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackageEngine {
    /// The path of its program among the files.
    pub program: String,
    /// Its arguments; `{package}` in them becomes the package's folder.
    #[serde(default)]
    pub args: Vec<String>,
}

/// A manifest as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stored {
    /// What was published.
    pub manifest: Manifest,
    /// When.
    pub published_at: Timestamp,
    /// By whom.
    pub published_by: String,
}

impl Stored {
    /// What a session that uses it pins.
    pub fn pin(&self) -> Result<PackagePin> {
        let (name, version) = (self.manifest.name.clone(), self.manifest.version.clone());
        Ok(PackagePin { name, version, digest: self.manifest.digest()? })
    }
}

impl Manifest {
    /// Puts the files in order and checks everything. `Invalid` names the package, what is wrong and what would do.
    pub fn checked(mut self) -> Result<Self> {
        check_name(&self.name)?;
        check_version(&self.version)?;
        self.files.sort();
        let label = format!("package {}@{}", self.name, self.version);
        let wrong = |why: String| Err(Error::invalid(format!("{label}: {why}")));
        if self.files.is_empty() || self.files.len() > MAX_FILES {
            return wrong(format!("has {} files; 1 to {MAX_FILES} are allowed, so put many small ones into an archive", self.files.len()));
        }
        let (mut total, mut before) = (0_u64, BTreeSet::new());
        for file in &self.files {
            check_path(&file.path).map_err(|e| e.context(&label))?;
            if file.size > MAX_FILE_BYTES {
                return wrong(format!("`{}` has {} bytes; at most {MAX_FILE_BYTES} are allowed", file.path, file.size));
            }
            if !is_sha256(&file.sha256) {
                return wrong(format!("`{}` has no SHA-256 of 64 lower-case hexadecimal digits", file.path));
            }
            total = total.saturating_add(file.size);
            if !before.insert(file.path.as_str()) {
                return wrong(format!("`{}` is there twice", file.path));
            }
        }
        if let Some(file) = self.files.iter().find(|f| parents(&f.path).any(|folder| before.contains(folder))) {
            return wrong(format!("`{}` lies below a path that is a file itself", file.path));
        }
        if total > MAX_BYTES {
            return wrong(format!("has {total} bytes; at most {MAX_BYTES} are allowed"));
        }
        if let Some(engine) = &self.engine {
            let program = self.files.iter().find(|f| f.path == engine.program);
            if !program.is_some_and(|f| f.executable) {
                return wrong(format!("its engine's program `{}` is not among its executable files", engine.program.escape_debug()));
            }
            if engine.args.len() > MAX_ARGS.0 || engine.args.iter().any(|a| a.len() > MAX_ARGS.1 || a.contains('\0')) {
                return wrong(format!("its engine has more than {} arguments, or one of more than {} bytes", MAX_ARGS.0, MAX_ARGS.1));
            }
        }
        Ok(self)
    }

    /// SHA-256 of the manifest as JSON, files in order, without spaces. The manifest must be a checked one.
    pub fn digest(&self) -> Result<String> {
        let text = serde_json::to_vec(self).map_err(|e| Error::internal("write a manifest as JSON").with_source(e))?;
        Ok(hex(&Sha256::digest(text)))
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }

    /// Its wheels: what Python installs.
    pub fn wheels(&self) -> impl Iterator<Item = &PackageFile> {
        self.files.iter().filter(|f| f.path.ends_with(".whl"))
    }
}

fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).unwrap_or_default();
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// Whether it is a SHA-256 as manifests have it.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn word(what: &str, text: &str, more: &str) -> Result<()> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b) || more.as_bytes().contains(&b);
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && text.len() <= MAX_NAME && text.bytes().all(good) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is no {what} of a package; use 1 to {MAX_NAME} of letters, digits, - _ .{}{more} and begin with a letter or a digit",
        text.escape_debug(),
        if more.is_empty() { "" } else { " " }
    )))
}

/// `Invalid` for what cannot be a package's name.
pub fn check_name(name: &str) -> Result<()> {
    word("name", name, "")?;
    if RESERVED.contains(&name) {
        return Err(Error::invalid(format!("`{name}` is the grid's own word and no name of a package; take another")));
    }
    Ok(())
}

/// `Invalid` for what cannot be a version.
pub fn check_version(version: &str) -> Result<()> {
    word("version", version, "+")
}

/// `Invalid` for a path that could lead out of the package's folder, or that some system could not hold.
pub fn check_path(path: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid(format!("`{}` is no path of a file in a package: {why}", path.escape_debug())));
    if path.is_empty() || path.len() > MAX_PATH {
        return bad(&format!("it has {} bytes, and 1 to {MAX_PATH} are allowed", path.len()));
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return bad("it holds a backslash or a control character");
    }
    if path.split('/').any(|part| part.is_empty() || part == "." || part == ".." || part.len() > 255) {
        return bad("each part between slashes has 1 to 255 bytes and is neither `.` nor `..`");
    }
    Ok(())
}

/// Reads `NAME@VERSION`, or `NAME` for the newest version there is, as a pin without a digest.
pub fn parse_reference(text: &str) -> Result<PackagePin> {
    let (name, version) = text.split_once('@').unwrap_or((text, ""));
    check_name(name)?;
    if text.contains('@') {
        check_version(version)?;
    }
    Ok(PackagePin { name: name.to_owned(), version: version.to_owned(), digest: String::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> PackageFile {
        PackageFile { path: path.into(), size: 3, sha256: hex(&Sha256::digest(path)), executable: false }
    }

    fn manifest(paths: &[&str]) -> Manifest {
        Manifest { name: "calendars".into(), version: "2026-01".into(), files: paths.iter().map(|p| file(p)).collect(), engine: None }
    }

    #[test]
    fn the_digest_is_of_the_content_and_not_of_the_order() {
        let one = manifest(&["b.csv", "a/x.csv"]).checked().unwrap();
        let two = manifest(&["a/x.csv", "b.csv"]).checked().unwrap();
        assert_eq!(one.digest().unwrap(), two.digest().unwrap());
        let mut three = two.clone();
        three.files[0].executable = true;
        assert_ne!(two.digest().unwrap(), three.digest().unwrap());
        assert_eq!(one.bytes(), 6);
        // Written down once and for all: a digest that changes would orphan every package there is.
        let text = r#"{"name":"n","version":"1","files":[{"path":"a","size":0,"sha256":"","executable":false}]}"#;
        let fixed: Manifest = serde_json::from_str(text).unwrap();
        assert_eq!(fixed.digest().unwrap(), hex(&Sha256::digest(text)));
    }

    #[test]
    fn nothing_leads_out_of_the_folder() {
        for path in ["", "/a", "a/", "a//b", "../a", "a/../b", "./a", "a\\b", "a\0b", "a\nb", &"x".repeat(256), &"x/".repeat(300)] {
            assert!(check_path(path).is_err(), "{path:?}");
        }
        for path in ["a", "a/b.c", ".hidden", "..a/b", "Feiertage/Zürich 2026.csv"] {
            check_path(path).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_named() {
        let wrong = |m: Manifest, word: &str| {
            let e = m.checked().unwrap_err();
            assert!(e.message().contains(word), "{e}");
        };
        wrong(manifest(&[]), "0 files");
        wrong(manifest(&["a", "a"]), "twice");
        wrong(manifest(&["a", "a/b"]), "`a/b` lies below");
        wrong(Manifest { name: "blobs".into(), ..manifest(&["a"]) }, "own word");
        wrong(Manifest { name: ".x".into(), ..manifest(&["a"]) }, "`.x`");
        wrong(Manifest { version: "1@2".into(), ..manifest(&["a"]) }, "`1@2`");
        let mut large = manifest(&["a"]);
        large.files[0].size = MAX_FILE_BYTES + 1;
        wrong(large, "at most");
        let mut unsure = manifest(&["a"]);
        unsure.files[0].sha256 = "ABC".into();
        wrong(unsure, "SHA-256");
        let engine = Some(PackageEngine { program: "bin/price".into(), args: Vec::new() });
        wrong(Manifest { engine: engine.clone(), ..manifest(&["bin/price"]) }, "`bin/price` is not among its executable files");
        let mut good = Manifest { engine, ..manifest(&["bin/price"]) };
        good.files[0].executable = true;
        good.checked().unwrap();
    }

    #[test]
    fn references_name_a_version_or_none() {
        let pin = parse_reference("calendars@2026-01+a").unwrap();
        assert_eq!((pin.name.as_str(), pin.version.as_str(), pin.digest.as_str()), ("calendars", "2026-01+a", ""));
        assert_eq!(parse_reference("calendars").unwrap().version, "");
        assert!(parse_reference("calendars@").is_err() && parse_reference("@1").is_err());
    }
}
