//! Placeholders in commands, environment values and output names.
//!
//! The rule for braces is one sentence: **a word of `a-z` and `_` in single braces is a placeholder, every other brace is itself.**
//! So JSON (`{"a":{"b":1}}`), awk (`{print $1}`), `find -exec {}` and `${HOME}` pass as they are. A word that is no placeholder is
//! refused, since it is nearly always a typing error; `{{word}}` writes `{word}` literally, and `{{{name}}}` writes a value in
//! braces.
//!
//! A template is filled in argument by argument. No shell ever reads the result, so that a file called `; rm -rf ~` is just a file.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt;

use tidemill_base::{Error, Result};

use super::suggest;

macro_rules! placeholders {
    ($($(#[$doc:meta])* $name:ident = $word:literal),* $(,)?) => {
        /// Something of a task that a template can speak of.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Placeholder { $( $(#[$doc])* $name, )* }

        impl Placeholder {
            /// All of them.
            pub const ALL: &[Self] = &[$( Self::$name, )*];

            /// The word between the braces; also the variable's name in a shell script.
            pub const fn as_str(self) -> &'static str {
                match self { $( Self::$name => $word, )* }
            }
        }
    };
}

placeholders! {
    /// Path of the input file. Alone in an argument it becomes one argument for each input.
    In = "in",
    /// Path of the output file, or of the output folder.
    Out = "out",
    /// Name of the first input file without its last extension.
    Name = "name",
    /// Name of the first input file.
    File = "file",
    /// The task's line.
    Line = "line",
    /// The task's number in an array; the number of the task, from 0, for other inputs.
    Index = "index",
    /// Path of a file that lists the inputs (paths, or the task's lines), one to a line.
    Inputs = "inputs",
    /// What the inputs of a grouped task have in common.
    Key = "key",
    /// The job's id.
    Job = "job",
    /// The stage's name.
    Stage = "stage",
    /// The number of the task, from 0.
    Task = "task",
    /// Which try this is, from 1.
    Attempt = "attempt",
}

impl Placeholder {
    /// The inverse of [`Placeholder::as_str`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.as_str() == word)
    }

    /// All of them as people write them: `{in}, {out}, ...`.
    pub fn list() -> String {
        Self::ALL.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(Placeholder),
}

/// A checked text with placeholders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    pieces: Vec<Piece>,
}

/// What the placeholders of one task stand for. A name that is a path may be any bytes, hence `OsString`.
#[derive(Debug, Clone, Default)]
pub struct Vars {
    values: BTreeMap<Placeholder, OsString>,
    inputs: Vec<OsString>,
}

impl Vars {
    /// Says what `placeholder` stands for. `{in}` is set with [`Vars::set_inputs`].
    pub fn set(&mut self, placeholder: Placeholder, value: impl Into<OsString>) -> &mut Self {
        self.values.insert(placeholder, value.into());
        self
    }

    /// Says which files `{in}` stands for; also sets `{file}` and `{name}` from the first of them.
    pub fn set_inputs<I: Into<OsString>>(&mut self, inputs: impl IntoIterator<Item = I>) -> &mut Self {
        self.inputs = inputs.into_iter().map(Into::into).collect();
        if let Some(first) = self.inputs.first().map(std::path::Path::new) {
            let file = first.file_name().unwrap_or(first.as_os_str()).to_owned();
            let name = first.file_stem().unwrap_or(first.as_os_str()).to_owned();
            self.values.insert(Placeholder::File, file);
            self.values.insert(Placeholder::Name, name);
        }
        self
    }

    /// The value of a placeholder. `{in}` has one only when there is just one input. `Invalid` otherwise.
    pub fn get(&self, placeholder: Placeholder) -> Result<&OsStr> {
        if placeholder == Placeholder::In {
            return match self.inputs.as_slice() {
                [one] => Ok(one),
                [] => Err(Error::invalid("`{in}` has no value: the task has no input files")),
                many => Err(Error::invalid(format!(
                    "`{{in}}` stands for {} files here; write it as an argument of its own, or use `{{inputs}}`, a file that lists them",
                    many.len()
                ))),
            };
        }
        let value = self.values.get(&placeholder).map(OsString::as_os_str);
        value.ok_or_else(|| Error::invalid(format!("`{placeholder}` has no value for this task")))
    }

    /// The variables that a shell script finds the values in: `$in` (several inputs are separated by newlines), `$out`, `$name`...
    pub fn shell_env(&self) -> Vec<(&'static str, OsString)> {
        let mut env: Vec<_> = self.values.iter().map(|(p, v)| (p.as_str(), v.clone())).collect();
        if !self.inputs.is_empty() {
            env.push((Placeholder::In.as_str(), self.inputs.join(OsStr::new("\n"))));
        }
        env
    }
}

impl Template {
    /// Reads a template. `Invalid` for a word in braces that is no placeholder; the error lists those there are.
    pub fn parse(text: &str) -> Result<Self> {
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('{') {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            let Some(group) = Group::at_start(rest) else {
                let braces = rest.len() - rest.trim_start_matches('{').len();
                literal.push_str(&rest[..braces]);
                rest = &rest[braces..];
                continue;
            };
            rest = &rest[group.len()..];
            let pairs = group.open.min(group.close);
            let literal_pairs = pairs / 2;
            literal.extend(std::iter::repeat_n('{', group.open - pairs + literal_pairs));
            if pairs % 2 == 1 {
                let placeholder = Placeholder::from_word(group.word).ok_or_else(|| unknown(group.word))?;
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
                pieces.push(Piece::Value(placeholder));
            } else {
                literal.push_str(group.word);
            }
            literal.extend(std::iter::repeat_n('}', literal_pairs + group.close - pairs));
        }
        literal.push_str(rest);
        pieces.push(Piece::Text(literal));
        pieces.retain(|p| !matches!(p, Piece::Text(t) if t.is_empty()));
        Ok(Self { pieces })
    }

    /// Reads several.
    pub fn parse_all<'a>(texts: impl IntoIterator<Item = &'a String>) -> Result<Vec<Self>> {
        texts.into_iter().map(|t| Self::parse(t)).collect()
    }

    /// The placeholders it speaks of.
    pub fn placeholders(&self) -> BTreeSet<Placeholder> {
        let values = self.pieces.iter().filter_map(|p| if let Piece::Value(v) = p { Some(*v) } else { None });
        values.collect()
    }

    /// Whether it is this placeholder and nothing else.
    pub fn is_just(&self, placeholder: Placeholder) -> bool {
        self.pieces == [Piece::Value(placeholder)]
    }

    /// Fills it in. `Invalid` when a placeholder has no value, or `{in}` more than one.
    pub fn expand(&self, vars: &Vars) -> Result<OsString> {
        let mut out = OsString::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push(text),
                Piece::Value(placeholder) => out.push(vars.get(*placeholder)?),
            }
        }
        Ok(out)
    }

    /// Fills it in where only text will do, as in the name of an object.
    pub fn expand_text(&self, vars: &Vars) -> Result<String> {
        self.expand(vars)?.into_string().map_err(|raw| Error::invalid(format!("`{}` is not UTF-8", raw.to_string_lossy().escape_debug())))
    }
}

/// Fills in a whole command. `{in}` alone in an argument becomes one argument for each input, none when there are none.
pub fn expand_args(args: &[Template], vars: &Vars) -> Result<Vec<OsString>> {
    let mut out = Vec::with_capacity(args.len());
    for arg in args {
        if arg.is_just(Placeholder::In) {
            out.extend(vars.inputs.iter().cloned());
        } else {
            out.push(arg.expand(vars)?);
        }
    }
    Ok(out)
}

/// The placeholders that a shell script reads as variables: `$in`, `${in}`. What `sh` itself would make of quotes is not looked
/// at, so a name in single quotes counts too.
pub fn shell_variables(script: &str) -> BTreeSet<Placeholder> {
    let after_dollar = script.split('$').skip(1).filter_map(|rest| {
        let rest = rest.strip_prefix('{').unwrap_or(rest);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        Placeholder::from_word(&rest[..end])
    });
    after_dollar.collect()
}

/// The first placeholder written as `{in}` in a shell script, where it would not be filled in. `${in}` is the shell's own.
pub fn brace_in_script(script: &str) -> Option<Placeholder> {
    let starts = script.match_indices('{').map(|(at, _)| at);
    starts
        .filter(|at| !script[..*at].ends_with('$'))
        .find_map(|at| Group::at_start(&script[at..]).and_then(|g| Placeholder::from_word(g.word)))
}

/// `{`s, a word, `}`s.
struct Group<'a> {
    open: usize,
    word: &'a str,
    close: usize,
}

impl<'a> Group<'a> {
    fn at_start(text: &'a str) -> Option<Self> {
        let after = text.trim_start_matches('{');
        let word = &after[..after.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(after.len())];
        let tail = &after[word.len()..];
        let close = tail.len() - tail.trim_start_matches('}').len();
        (!word.is_empty() && close > 0).then_some(Self { open: text.len() - after.len(), word, close })
    }

    const fn len(&self) -> usize {
        self.open + self.word.len() + self.close
    }
}

fn unknown(word: &str) -> Error {
    let words: Vec<_> = Placeholder::ALL.iter().map(|p| p.as_str()).collect();
    let hint = suggest::closest(word, words).map(|w| format!("did you mean `{{{w}}}`? ")).unwrap_or_default();
    Error::invalid(format!(
        "`{{{word}}}` is not a placeholder; {hint}there are {}; for the literal text write `{{{{{word}}}}}`",
        Placeholder::list()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> Vars {
        let mut v = Vars::default();
        v.set_inputs(["/t/a b.tar.gz"]).set(Placeholder::Out, "/t/out").set(Placeholder::Index, "7");
        v
    }

    fn expanded(text: &str) -> String {
        Template::parse(text).unwrap().expand_text(&vars()).unwrap()
    }

    #[test]
    fn fills_in_words_and_leaves_every_other_brace() {
        for (text, want) in [
            ("{in}", "/t/a b.tar.gz"),
            ("--to={out}/x", "--to=/t/out/x"),
            ("{name}-{index}.jpg", "a b.tar-7.jpg"),
            ("{file}", "a b.tar.gz"),
            ("{{in}}", "{in}"),
            ("{{{index}}}", "{7}"),
            ("{{{{index}}}}", "{{index}}"),
            (r#"{"a":{"b":{index}}}"#, r#"{"a":{"b":7}}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{"b":1}}"#),
            ("{print $1}", "{print $1}"),
            ("${HOME} {} {a,b} {1..3} {IN} {in ", "${HOME} {} {a,b} {1..3} {IN} {in "),
            ("}}{{", "}}{{"),
            ("{{ x }}", "{{ x }}"),
            ("é{index}ü", "é7ü"),
            ("", ""),
        ] {
            assert_eq!(expanded(text), want, "{text}");
        }
    }

    #[test]
    fn a_word_that_is_no_placeholder_is_refused_with_help() {
        assert_eq!(
            Template::parse("x {nmae}").unwrap_err().to_string(),
            "`{nmae}` is not a placeholder; did you mean `{name}`? there are {in}, {out}, {name}, {file}, {line}, {index}, {inputs}, {key}, \
             {job}, {stage}, {task}, {attempt}; for the literal text write `{{nmae}}`"
        );
        assert!(Template::parse("{print}").unwrap_err().to_string().contains("`{{print}}`"));
    }

    #[test]
    fn in_alone_is_one_argument_an_input() {
        let mut v = vars();
        v.set_inputs(["a", "b c", "-rf"]);
        let args = Template::parse_all(&["cat".to_owned(), "{in}".to_owned(), "{out}".to_owned()]).unwrap();
        assert_eq!(expand_args(&args, &v).unwrap(), ["cat", "a", "b c", "-rf", "/t/out"]);
        let glued = Template::parse("-i{in}").unwrap().expand(&v).unwrap_err();
        assert_eq!(
            glued.to_string(),
            "`{in}` stands for 3 files here; write it as an argument of its own, or use `{inputs}`, a file that lists them"
        );
        v.set_inputs(Vec::<OsString>::new());
        assert_eq!(expand_args(&args, &v).unwrap(), ["cat", "/t/out"]);
        let missing = Template::parse("{line}").unwrap().expand(&v).unwrap_err();
        assert_eq!(missing.to_string(), "`{line}` has no value for this task");
    }

    #[test]
    fn names_that_are_not_utf8_pass_through_arguments_and_are_refused_in_text() {
        use std::os::unix::ffi::OsStringExt;
        let raw = OsString::from_vec(vec![b'a', 0xff]);
        let mut v = Vars::default();
        v.set_inputs([raw.clone()]);
        let t = Template::parse("{in}").unwrap();
        assert_eq!(t.expand(&v).unwrap(), raw);
        assert!(t.expand_text(&v).unwrap_err().to_string().contains("is not UTF-8"));
    }

    #[test]
    fn reads_a_shell_script() {
        let script = "gzip <\"$in\" >\"${out}\"; echo ${HOME} $1 $index2 | awk '{print}'";
        assert_eq!(shell_variables(script), [Placeholder::In, Placeholder::Out].into());
        assert_eq!(brace_in_script(script), None);
        assert_eq!(brace_in_script("cat {in}"), Some(Placeholder::In));
    }

    #[test]
    fn any_text_is_literal_template_or_refused_and_values_are_never_read_again() {
        let mut rng = fastrand::Rng::with_seed(11);
        let bits = ["{", "}", "in", "name", "x", "$", " ", "é", "{in}", "{{out}}", "\n", "\"", "{index}", "{bogus}"];
        let mut v = vars();
        v.set(Placeholder::Index, "{out}{{name}}");
        for _ in 0..20_000 {
            let text: String = (0..rng.usize(0..12)).map(|_| bits[rng.usize(..bits.len())]).collect();
            let Ok(template) = Template::parse(&text) else {
                let words: Vec<_> = text.split(['{', '}']).filter(|w| !w.is_empty()).collect();
                assert!(words.iter().any(|w| Placeholder::from_word(w).is_none()), "{text:?} has no unknown word");
                continue;
            };
            let out = template.expand_text(&v).unwrap();
            if template.placeholders().is_empty() {
                assert_eq!(out.replace(['{', '}'], ""), text.replace(['{', '}'], ""), "{text:?}");
            }
            if template.placeholders().contains(&Placeholder::Index) {
                assert!(out.contains("{out}{{name}}"), "{text:?} gave {out:?}");
            }
        }
    }
}
