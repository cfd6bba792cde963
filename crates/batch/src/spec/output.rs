//! How a stage's output is named: the check at submit, and the name itself on the worker.

use tidemill_base::{Error, Result};

use super::defaults::uses;
use super::names::check_output_name;
use super::template::{Placeholder, Template, Vars};
use super::validate::invalid;
use super::validate_stage::check_given;
use crate::model::{OutputSpec, RunSpec, StageSpec};

/// The name of a task's output file, from the placeholders' values. `None` when none is expected, or when the output is a folder.
/// `Invalid` when the values make a name that would leave the folder: `../x`, `/x`.
pub fn output_name(spec: &OutputSpec, vars: &Vars) -> Result<Option<String>> {
    let Some(name) = spec.name.as_ref().filter(|_| !spec.folder) else { return Ok(None) };
    let name = Template::parse(name)?.expand_text(vars)?;
    check_output_name(&name)?;
    Ok(Some(name))
}

pub(super) fn check_output(stage: &StageSpec) -> Result<()> {
    let OutputSpec { name, folder, stdout, .. } = &stage.output;
    let writes_out = uses(stage).contains(&Placeholder::Out);
    if *folder && name.is_some() {
        return Err(invalid("output", "`folder` takes every file under the name the task gave it; leave `name` out"));
    }
    if *folder && *stdout {
        return Err(invalid("output", "`folder` and `stdout` exclude each other; give one of them"));
    }
    if *stdout && writes_out {
        return Err(invalid("output", "`stdout` makes standard output the output file; leave `{out}` out of the command, or `stdout`"));
    }
    if let Some(name) = name {
        check_name_template(name, stage)?;
    }
    let expected = name.is_some() || *folder;
    let noop = matches!(stage.run, RunSpec::Noop);
    if expected && noop {
        return Err(invalid("output", "a `noop` stage puts nothing out; leave it out"));
    }
    if expected && !*stdout && !writes_out {
        let written = if matches!(stage.run, RunSpec::Command { shell: true, .. }) { "\"$out\"" } else { "`{out}`" };
        return Err(invalid("output", format!("nothing says how it is written; put {written} into the command, or set `output.stdout`")));
    }
    Ok(())
}

fn check_name_template(name: &str, stage: &StageSpec) -> Result<()> {
    let template = Template::parse(name).map_err(|e| e.context("output"))?;
    let mut example = Vars::default();
    for placeholder in template.placeholders() {
        if matches!(placeholder, Placeholder::In | Placeholder::Out | Placeholder::Inputs) {
            let next = "use `{name}` or `{file}`";
            return Err(invalid("output", format!("`{placeholder}` is a path on the worker and no part of a name; {next}")));
        }
        check_given("output", placeholder, &stage.input)?;
        example.set(placeholder, "x");
    }
    let text = template.expand_text(&example).map_err(|e| e.context("output"))?;
    // The error speaks of the template and not of the example.
    check_output_name(&text)
        .map_err(|e| Error::new(e.kind(), e.message().replacen(&format!("`{text}`"), &format!("`{}`", name.escape_debug()), 1)))
}
