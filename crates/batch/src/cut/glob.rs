//! Patterns over object names: `*` and `?` within a segment, `**` across segments, everything else is itself. So a name with
//! brackets or braces needs no escaping.

use regex::Regex;
use tidemill_base::{Error, Result};

/// A pattern, ready to match.
#[derive(Debug, Clone)]
pub struct Glob {
    pattern: String,
    prefix: String,
    regex: Option<Regex>,
}

impl Glob {
    /// Reads a pattern; see the module for what it may hold.
    pub fn new(pattern: &str) -> Result<Self> {
        let wild = pattern.find(['*', '?']);
        let prefix = wild.map_or(pattern, |at| pattern[..at].rfind('/').map_or("", |slash| &pattern[..slash]));
        let regex = wild.map(|_| compile(pattern)).transpose()?;
        Ok(Self { pattern: pattern.to_owned(), prefix: prefix.to_owned(), regex })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.pattern
    }

    /// The whole segments before the first wildcard: what to list. The name itself when there is no wildcard.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it names one object and has no wildcard.
    pub const fn is_plain(&self) -> bool {
        self.regex.is_none()
    }

    /// Whether a name matches.
    pub fn matches(&self, name: &str) -> bool {
        self.regex.as_ref().map_or(self.pattern == name, |r| r.is_match(name))
    }
}

fn compile(pattern: &str) -> Result<Regex> {
    // A regular expression and not a matcher that tries and goes back: its time is linear in the name whatever the pattern.
    let mut text = String::from(r"(?s)\A");
    let segments: Vec<&str> = pattern.split('/').collect();
    for (i, segment) in segments.iter().enumerate() {
        let last = i + 1 == segments.len();
        match (*segment, last) {
            ("**", true) => text.push_str(".+"),
            ("**", false) => text.push_str("(?:.+/)?"),
            _ => {
                push_segment(&mut text, segment);
                if !last {
                    text.push('/');
                }
            }
        }
    }
    text.push_str(r"\z");
    let bad = |e| Error::invalid(format!("pattern `{}` is too complicated; use fewer wildcards", pattern.escape_debug())).with_source(e);
    regex::RegexBuilder::new(&text).size_limit(4 << 20).build().map_err(bad)
}

fn push_segment(text: &mut String, segment: &str) {
    let mut rest = segment;
    while let Some(c) = rest.chars().next() {
        let stars = rest.len() - rest.trim_start_matches('*').len();
        let taken = match (c, stars) {
            ('*', 1) => {
                text.push_str("[^/]*");
                1
            }
            ('*', _) => {
                text.push_str(".*");
                stars
            }
            ('?', _) => {
                text.push_str("[^/]");
                1
            }
            _ => {
                text.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
                c.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_what_the_pattern_says_and_nothing_else() {
        for (pattern, yes, no) in [
            (
                "b/*.csv",
                &["b/a.csv", "b/.csv", "b/a b.csv", "b/ü\u{1F600}.csv", "b/a\nb.csv"][..],
                &["b/x/a.csv", "b/a.csv2", "c/a.csv", "b/a.CSV"][..],
            ),
            ("b/**/*.csv", &["b/a.csv", "b/x/a.csv", "b/x/y/a.csv"], &["b/a.txt", "ba.csv"]),
            ("b/**", &["b/a", "b/x/y"], &["b", "c/a"]),
            ("b/a**z", &["b/az", "b/a/x/z"], &["b/a"]),
            ("b/?.x", &["b/a.x", "b/é.x"], &["b/.x", "b/ab.x"]),
            ("b/[1].{x}", &["b/[1].{x}"], &["b/1.x"]),
            ("b/a+(b)|c*", &["b/a+(b)|c", "b/a+(b)|cd"], &["b/aa"]),
            ("b/*/c/*", &["b/x/c/d"], &["b/c/d", "b/x/y/c/d"]),
        ] {
            let glob = Glob::new(pattern).unwrap();
            assert!(yes.iter().all(|n| glob.matches(n)), "{pattern} misses one of {yes:?}");
            assert!(!no.iter().any(|n| glob.matches(n)), "{pattern} takes one of {no:?}");
        }
    }

    #[test]
    fn lists_under_the_whole_segments_before_the_first_wildcard() {
        for (pattern, prefix) in [("b/a*", "b"), ("b/x/y/*.c", "b/x/y"), ("b/x/y?/z", "b/x"), ("b/x", "b/x"), ("b/**/x", "b")] {
            assert_eq!(Glob::new(pattern).unwrap().prefix(), prefix, "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_is_quick() {
        let glob = Glob::new(&format!("b/{}x", "*a".repeat(200))).unwrap();
        assert!(!glob.matches(&format!("b/{}", "a".repeat(5000))));
    }
}
