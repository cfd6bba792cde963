//! What is filled in when nothing is said: the names of outputs.

use std::collections::BTreeSet;

use super::template::{Placeholder, Template, shell_variables};
use crate::model::{ChainMode, InputSpec, JobSpec, RunSpec, StageSpec};

/// Fills in what the user left open.
pub fn fill(job: &mut JobSpec) {
    for stage in &mut job.stages {
        fill_output_name(stage);
    }
}

/// A stage that writes `{out}` and does not say what the file is called: after its input file, or `out` where that would not do.
fn fill_output_name(stage: &mut StageSpec) {
    if stage.output.name.is_some() || stage.output.folder {
        return;
    }
    let name = if stage.output.stdout {
        if one_file(&stage.input) { "{name}.out" } else { "out" }
    } else if uses(stage).contains(&Placeholder::Out) {
        if one_file(&stage.input) { "{file}" } else { "out" }
    } else {
        return;
    };
    stage.output.name = Some(name.to_owned());
}

/// Whether each task has just one input file, as far as one can know before the input is cut.
pub(super) const fn one_file(input: &InputSpec) -> bool {
    match input {
        InputSpec::Objects { per_task, .. } => *per_task == 1,
        InputSpec::Parts { .. } | InputSpec::Stage { mode: ChainMode::Stream, .. } => true,
        _ => false,
    }
}

/// The placeholders that command and environment speak of. What does not parse is left to validation.
pub(super) fn uses(stage: &StageSpec) -> BTreeSet<Placeholder> {
    let in_texts = |texts: &mut dyn Iterator<Item = &String>| -> BTreeSet<Placeholder> {
        texts.filter_map(|t| Template::parse(t).ok()).flat_map(|t| t.placeholders()).collect()
    };
    let mut used = in_texts(&mut stage.env.values());
    used.extend(match &stage.run {
        RunSpec::Command { argv, shell: true } => argv.iter().flat_map(|script| shell_variables(script)).collect(),
        RunSpec::Command { argv, shell: false } => in_texts(&mut argv.iter()),
        RunSpec::Container(container) => in_texts(&mut container.argv.iter()),
        RunSpec::Engine(_) | RunSpec::Noop => BTreeSet::new(),
    });
    used
}
