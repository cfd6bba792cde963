//! `tidemill grid package`.

use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tidemill_api::{PackageDetail, PackageEngine, PackageFile, PackageList, PackageManifest, PackageSummary, PublishPackageResponse};
use tidemill_base::{Error, Result};
use tidemill_client::{Client, Progress};

use crate::context::Context;
use crate::exit::Exit;
use crate::human;
use crate::output::{Align, TextTable, View, note, to_json};
use crate::progress::CountProgress;

/// How often a push begins again when files that were there have gone meanwhile.
const TRIES: u32 = 3;

/// Folders of files that engines get: calendars, curves, libraries, whole engines.
#[derive(Debug, Subcommand)]
pub(crate) enum Package {
    /// Publish files as a version of a package. A version never changes; the same again is no error.
    Push(Push),
    /// List versions, each package's newest last.
    List(List),
    /// Show a version and its files.
    Show(Named),
    /// Fetch a version into a folder.
    Pull(Pull),
    /// Delete a version that no live session uses.
    Delete(Named),
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// The package.
    name: String,
    /// The version: any word that it does not have yet.
    // `version` itself is what `--version` is known by.
    #[arg(id = "package-version", value_name = "VERSION")]
    version: String,
    /// Files by their own names, and folders by what is in them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// The program among the files that is an engine: sessions may then name the package as their engine.
    #[arg(long, value_name = "PATH")]
    engine: Option<String>,
    /// An argument of that program; `{package}` becomes the package's folder.
    #[arg(long = "engine-arg", value_name = "ARG", requires = "engine", allow_hyphen_values = true)]
    engine_args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Of this package only.
    name: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// NAME@VERSION; the newest version where none is named.
    package: String,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// NAME@VERSION; the newest version where none is named.
    package: String,
    /// The folder that gets the files.
    folder: PathBuf,
}

struct Pushed(String, PublishPackageResponse);
struct Packages(PackageList);
struct Shown(PackageDetail);

impl Package {
    pub(crate) async fn run(self, cx: &Context) -> Result<Exit> {
        let client = cx.client()?;
        match self {
            Self::Push(c) => c.run(cx, &client).await?,
            Self::List(c) => cx.show(&Packages(client.packages(c.name.as_deref()).await?))?,
            Self::Show(c) => cx.show(&Shown(find(&client, &c.package).await?))?,
            Self::Pull(c) => c.run(cx, &client).await?,
            Self::Delete(c) => {
                let (name, version) = c
                    .package
                    .split_once('@')
                    .ok_or_else(|| Error::invalid(format!("`{}` names no version; say which one with NAME@VERSION", c.package)))?;
                client.delete_package(name, version).await?;
                note(&format!("package {} is deleted", c.package));
            }
        }
        Ok(Exit::Success)
    }
}

/// A version as people name it.
async fn find(client: &Client, reference: &str) -> Result<PackageDetail> {
    if let Some((name, version)) = reference.split_once('@') {
        return client.package(name, version).await;
    }
    let newest = client.packages(Some(reference)).await?.packages.pop();
    let newest =
        newest.ok_or_else(|| Error::not_found(format!("there is no package `{reference}`; `tidemill grid package list` shows all")))?;
    client.package(&newest.name, &newest.version).await
}

impl Push {
    async fn run(self, cx: &Context, client: &Client) -> Result<()> {
        let label = format!("{}@{}", self.name, self.version);
        let found = collect(&self.paths)?;
        let files = found.iter().map(|(path, file)| describe(path, file)).collect::<Result<Vec<_>>>()?;
        let engine = self.engine.map(|program| PackageEngine { program, args: self.engine_args });
        let manifest = PackageManifest { name: self.name, version: self.version, files, engine };
        let mut tries = 0;
        loop {
            let answer = client.publish_package(&manifest).await?;
            if answer.published {
                return cx.show(&Pushed(label, answer));
            }
            tries += 1;
            if tries > TRIES {
                return Err(Error::unavailable(format!("the files of {label} do not stay on the server; try again")));
            }
            let bytes = Progress::default();
            let mut progress = CountProgress::new(cx.progress(), "uploading", answer.missing.len() as u64, bytes.clone());
            for sha256 in &answer.missing {
                let at = manifest.files.iter().position(|f| f.sha256 == *sha256);
                let (_, file) =
                    at.and_then(|at| found.get(at)).ok_or_else(|| Error::internal("the server misses a file that was not named"))?;
                client.put_package_file(sha256, file, &bytes).await?;
                progress.one_done();
            }
            progress.finish(&format!("uploaded the files of {label}"));
        }
    }
}

/// The files of the arguments: their paths in the package, and where they are.
fn collect(paths: &[PathBuf]) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for path in paths {
        let about = |e: std::io::Error| Error::from(e).context(path.display());
        if std::fs::metadata(path).map_err(about)?.is_dir() {
            walk(path, "", &mut found)?;
        } else {
            let name = path.file_name().and_then(|n| n.to_str());
            let name = name.ok_or_else(|| Error::invalid(format!("`{}` has no name in UTF-8", path.display())))?;
            found.push((name.to_owned(), path.clone()));
        }
    }
    Ok(found)
}

fn walk(folder: &Path, below: &str, found: &mut Vec<(String, PathBuf)>) -> Result<()> {
    let about = |e: std::io::Error| Error::from(e).context(folder.display());
    let mut entries = std::fs::read_dir(folder).map_err(about)?.collect::<std::io::Result<Vec<_>>>().map_err(about)?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name();
        let name = name.to_str().ok_or_else(|| Error::invalid(format!("`{}` has no name in UTF-8", entry.path().display())))?;
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        // What Python makes beside its modules is for one machine.
        if name == "__pycache__" {
            continue;
        }
        if std::fs::metadata(entry.path()).map_err(about)?.is_dir() {
            // A link to a folder may lead back to where it is.
            if entry.file_type().map_err(about)?.is_symlink() {
                return Err(Error::invalid(format!("`{}` is a link to a folder; name that folder itself", entry.path().display())));
            }
            walk(&entry.path(), &path, found)?;
        } else {
            found.push((path, entry.path()));
        }
    }
    Ok(())
}

fn describe(path: &str, file: &Path) -> Result<PackageFile> {
    let about = |e: std::io::Error| Error::from(e).context(file.display());
    let (sha256, size) = digest(file)?;
    let executable = std::fs::metadata(file).map_err(about)?.permissions().mode() & 0o111 != 0;
    Ok(PackageFile { path: path.to_owned(), size, sha256, executable })
}

fn digest(file: &Path) -> Result<(String, u64)> {
    let about = |e: std::io::Error| Error::from(e).context(file.display());
    let mut opened = std::fs::File::open(file).map_err(about)?;
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 256 << 10]);
    loop {
        let n = opened.read(&mut buffer).map_err(about)?;
        if n == 0 {
            return Ok((format!("{:x}", hash.finalize()), size));
        }
        hash.update(&buffer[..n]);
        size += n as u64;
    }
}

impl Pull {
    async fn run(self, cx: &Context, client: &Client) -> Result<()> {
        let package = find(client, &self.package).await?;
        let label = format!("{}@{}", package.summary.name, package.summary.version);
        let bytes = Progress::default();
        let mut progress = CountProgress::new(cx.progress(), "downloading", package.contents.len() as u64, bytes.clone());
        for file in &package.contents {
            if !Path::new(&file.path).components().all(|c| matches!(c, Component::Normal(_))) {
                return Err(Error::corrupt(format!("`{}` of {label} leads out of the folder", file.path)));
            }
            let place = self.folder.join(&file.path);
            if let Some(parent) = place.parent() {
                std::fs::create_dir_all(parent).map_err(|e| Error::from(e).context(format!("make the folder {}", parent.display())))?;
            }
            client.download(&format!("/objects/packages/blobs/{}", file.sha256), &place, &bytes).await?;
            if digest(&place)?.0 != file.sha256 {
                let what = "is not what was published; try again, and if it stays so, restore the server's objects from a copy";
                return Err(Error::corrupt(format!("`{}` of {label} {what}", file.path)));
            }
            let mode = if file.executable { 0o755 } else { 0o644 };
            let set = std::fs::set_permissions(&place, std::fs::Permissions::from_mode(mode));
            set.map_err(|e| Error::from(e).context(place.display()))?;
            progress.one_done();
        }
        progress.finish(&format!("{label} is in {}", self.folder.display()));
        Ok(())
    }
}

impl View for Pushed {
    fn table(&self) -> String {
        let what = if self.1.existing { "was published before with the same files" } else { "is published" };
        format!("package {} {what}\n", self.0)
    }

    fn json(&self) -> Value {
        json!({"package": self.0, "digest": self.1.digest, "existing": self.1.existing})
    }

    fn quiet(&self) -> String {
        self.1.digest.clone()
    }
}

impl View for Packages {
    fn table(&self) -> String {
        let columns = [
            ("PACKAGE", Align::Left),
            ("VERSION", Align::Left),
            ("FILES", Align::Right),
            ("SIZE", Align::Right),
            ("ENGINE", Align::Left),
            ("PUBLISHED", Align::Left),
            ("BY", Align::Left),
        ];
        let mut table = TextTable::new("no packages", &columns);
        for p in &self.0.packages {
            let engine = if p.engine { "yes" } else { "" }.to_owned();
            let (name, version) = (p.name.clone(), p.version.clone());
            table.row([
                name,
                version,
                human::count(p.files),
                human::bytes(p.bytes),
                engine,
                p.published_at.clone(),
                p.published_by.clone(),
            ]);
        }
        table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.packages.iter().map(reference).collect::<Vec<_>>().join("\n")
    }
}

fn reference(p: &PackageSummary) -> String {
    format!("{}@{}", p.name, p.version)
}

impl View for Shown {
    fn table(&self) -> String {
        let p = &self.0.summary;
        let mut text = format!("package {}, published {} by {}\ndigest {}\n", reference(p), p.published_at, p.published_by, p.digest);
        if let Some(engine) = &self.0.program {
            text.push_str(&format!("engine {} {}\n", engine.program, engine.args.join(" ")));
        }
        let mut table = TextTable::new("no files", &[("FILE", Align::Left), ("SIZE", Align::Right), ("SHA-256", Align::Left)]);
        for f in &self.0.contents {
            table.row([f.path.clone(), human::bytes(f.size), f.sha256.clone()]);
        }
        text + &table.render()
    }

    fn json(&self) -> Value {
        to_json(&self.0)
    }

    fn quiet(&self) -> String {
        self.0.summary.digest.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_their_files_and_files_their_names() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let file = folder.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "x").unwrap();
        };
        for path in ["lib/b.csv", "lib/sub/a.csv", "lib/__pycache__/a.pyc", "one.whl"] {
            write(path);
        }
        let found = collect(&[folder.path().join("lib"), folder.path().join("one.whl")]).unwrap();
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["b.csv", "sub/a.csv", "one.whl"]);
        let file = describe("b.csv", &found[0].1).unwrap();
        assert_eq!(file.sha256, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
        assert!(file.size == 1 && !file.executable);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("lib/loop")).unwrap();
        assert!(collect(&[folder.path().join("lib")]).unwrap_err().message().contains("loop"));
    }
}
