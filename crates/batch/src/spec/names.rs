//! Names of objects and outputs as people write them.

use tidemill_base::Result;

use super::limits::MAX_NAME_CHARS;
use super::validate::{at_most, invalid};

/// An input pattern: a bucket without wildcards, then segments with or without them.
pub(super) fn check_pattern(field: &str, pattern: &str) -> Result<()> {
    check_segments(field, pattern)?;
    let bucket = pattern.split('/').next().unwrap_or_default();
    if bucket.contains(['*', '?']) {
        return Err(invalid(
            field,
            format!("`{}` has a wildcard in its first segment, which is the bucket; name the bucket", pattern.escape_debug()),
        ));
    }
    Ok(())
}

/// The name of one object, which is no pattern.
pub(super) fn check_plain_object(field: &str, name: &str) -> Result<()> {
    check_segments(field, name)?;
    if name.contains(['*', '?']) {
        return Err(invalid(field, format!("`{}` is a pattern; name one object", name.escape_debug())));
    }
    Ok(())
}

fn check_segments(field: &str, name: &str) -> Result<()> {
    let shown = name.escape_debug();
    if name.starts_with("system/") {
        return Err(invalid(field, format!("`{shown}` is in the bucket `system`, which is the program's own; name a bucket of yours")));
    }
    if let Some((scheme, rest)) = name.split_once("://") {
        let scheme = scheme.escape_debug();
        return Err(invalid(field, format!("`{shown}` begins with `{scheme}://`; write bucket and path only: `{}`", rest.escape_debug())));
    }
    if name.starts_with('/') {
        return Err(invalid(field, format!("`{shown}` begins with /; objects are named by bucket and path, like `photos/2025/a.jpg`")));
    }
    if !name.contains('/') {
        return Err(invalid(field, format!("`{shown}` names a bucket only; write bucket and path, like `photos/2025/a.jpg`")));
    }
    if let Some(bad) = name.split('/').find(|s| s.is_empty() || *s == "." || *s == "..") {
        return Err(invalid(field, format!("`{shown}` has the segment `{bad}`, which no object's name has; leave it out")));
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return Err(invalid(field, format!("`{shown}` has control characters, which no object's name has")));
    }
    Ok(())
}

/// Checks the name of an output file: a relative path that stays where it is put, without control characters. Workers check every
/// name with this before they write or store anything under it.
pub fn check_output_name(name: &str) -> Result<()> {
    let shown = name.escape_debug();
    if name.starts_with('/') {
        return Err(invalid("output name", format!("`{shown}` is absolute; give a name relative to the task's output folder")));
    }
    if let Some(bad) = name.split('/').find(|s| s.is_empty() || *s == "." || *s == "..") {
        let what = if bad.is_empty() { "an empty segment".to_owned() } else { format!("the segment `{bad}`") };
        return Err(invalid("output name", format!("`{shown}` has {what}; give a plain name, or folders separated by single /")));
    }
    if name.chars().any(|c| c.is_ascii_control()) {
        return Err(invalid("output name", format!("`{shown}` has control characters, which object stores do not take")));
    }
    at_most("output name: characters", name.chars().count(), 4 * MAX_NAME_CHARS)
}
