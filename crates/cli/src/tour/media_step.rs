//! Media: pictures that a program of others makes smaller and turns into another format.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tidemill_base::{Error, Result};

use super::image::picture;
use super::{Done, Stage};
use crate::human;
use crate::transfer::{LocalFile, all_results, download, upload};

const WIDTH: u32 = 480;
const HEIGHT: u32 = 320;
/// What a JPEG file begins with.
const JPEG: [u8; 3] = [0xFF, 0xD8, 0xFF];

/// Makes `pictures` pictures and converts them. `None` when ImageMagick is not there, which is said.
pub(crate) async fn run(stage: &Stage, pictures: u32) -> Result<Option<Done>> {
    stage.title(&format!("2. Media: make {} pictures smaller, as JPEG", human::count(pictures.into())));
    let Some(convert) = find_convert() else {
        stage.say(
            "skipped: ImageMagick (`magick` or `convert`) is not on the PATH; install it with `apt install imagemagick` or `brew install imagemagick`",
        );
        return Ok(None);
    };
    let from = stage.folder.join("pictures");
    std::fs::create_dir_all(&from)?;
    let mut files = Vec::new();
    for number in 0..pictures {
        let name = format!("mandelbrot-{number:03}.ppm");
        let path = from.join(&name);
        std::fs::write(&path, picture(number, WIDTH, HEIGHT)).map_err(|e| Error::from(e).context(path.display()))?;
        files.push(LocalFile { path, name });
    }
    let prefix = upload(&stage.client, &stage.env, &files, stage.style).await?;
    let (job, took) = stage.run(job(&convert, &prefix)).await?;
    stage.expect_success(&job)?;
    let folder = stage.folder.join("small-pictures");
    let results = all_results(&stage.client, &job.id, None).await?;
    download(&stage.client, &stage.env, &results, &folder, stage.style).await?;
    for number in 0..pictures {
        let path = folder.join(format!("mandelbrot-{number:03}.jpg"));
        let content = std::fs::read(&path).map_err(|e| Error::from(e).context(path.display()))?;
        if !content.starts_with(&JPEG) {
            return Err(Error::internal(format!("{} is no JPEG file", path.display())));
        }
    }
    stage.say(&format!("checked: {} JPEG files, one for each picture", human::count(pictures.into())));
    let amount = format!("{} pictures, {}", human::count(pictures.into()), human::rate(f64::from(pictures) / took.as_secs_f64()));
    Ok(Some(Done { what: "media".to_owned(), job, took, amount, results: Some(folder) }))
}

fn job(convert: &str, prefix: &str) -> Value {
    json!({
        "name": "pictures",
        "stage": [{
            "name": "shrink",
            "objects": format!("{prefix}/*.ppm"),
            "command": [convert, "{in}", "-resize", "50%", "{out}"],
            "output": "{name}.jpg",
            "retries": 1,
        }],
    })
}

/// ImageMagick's program, by its path: `magick` since version 7, `convert` before. Other programs are called `convert` too, so it is
/// asked what it is.
fn find_convert() -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let places = ["magick", "convert"].into_iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    places.filter(|file| file.is_file()).find(|file| is_image_magick(file)).and_then(|file| file.to_str().map(str::to_owned))
}

fn is_image_magick(program: &Path) -> bool {
    let answer = Command::new(program).arg("-version").stdin(Stdio::null()).output();
    answer.is_ok_and(|a| a.status.success() && String::from_utf8_lossy(&a.stdout).starts_with("Version: ImageMagick"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidemill_base::Timestamp;

    #[test]
    fn the_job_is_one_that_the_server_takes() {
        tidemill_batch::spec::from_json(&job("/usr/bin/magick", "uploads/u1").to_string(), Timestamp::ZERO).unwrap();
    }

    #[test]
    fn another_program_of_that_name_is_not_taken_for_it() {
        assert!(!is_image_magick(Path::new("/bin/echo")));
        assert!(!is_image_magick(Path::new("/nowhere/convert")));
    }
}
