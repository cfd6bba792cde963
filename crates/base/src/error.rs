//! One public error: what the caller must do (the kind), what happened (the message), and what lay underneath (the source).

use std::fmt;

/// What the caller should do about it. A new kind is added only when somebody would act differently on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The input is wrong. Change it; trying again unchanged will fail again.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// A condition did not hold: somebody else was first. Read again, then decide.
    Conflict,
    /// The caller may not do this. Use another credential.
    Denied,
    /// A limit was met (size, count, disk space, rate). Ask for less, or raise the limit named in the message.
    Exhausted,
    /// Not now: throttled, unreachable, shutting down. The same call may be made again after a pause; whether the first one took
    /// effect is not known.
    Unavailable,
    /// Stored data cannot be read back as it was written. An operator has to look.
    Corrupt,
    /// A bug in Tidemill. Report it.
    Internal,
}

impl ErrorKind {
    /// The word used on the wire and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Denied => "denied",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Corrupt => "corrupt",
            Self::Internal => "internal",
        }
    }

    /// The inverse of [`ErrorKind::as_str`]; an unknown word is `Internal`.
    pub fn from_word(word: &str) -> Self {
        match word {
            "invalid" => Self::Invalid,
            "not_found" => Self::NotFound,
            "conflict" => Self::Conflict,
            "denied" => Self::Denied,
            "exhausted" => Self::Exhausted,
            "unavailable" => Self::Unavailable,
            "corrupt" => Self::Corrupt,
            _ => Self::Internal,
        }
    }
}

/// The error of every block, system and edge. `Display` is a lower-case fragment that names the input, the reason and, where
/// there is one, the next step; it does not repeat the source.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The result of every block, system and edge.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident),* $(,)?) => {
        $( $(#[$doc])* pub fn $name(message: impl Into<String>) -> Self { Self::new(ErrorKind::$kind, message) } )*
    };
}

impl Error {
    /// An error of the given kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    constructors! {
        /// See [`ErrorKind::Invalid`].
        invalid => Invalid,
        /// See [`ErrorKind::NotFound`].
        not_found => NotFound,
        /// See [`ErrorKind::Conflict`].
        conflict => Conflict,
        /// See [`ErrorKind::Denied`].
        denied => Denied,
        /// See [`ErrorKind::Exhausted`].
        exhausted => Exhausted,
        /// See [`ErrorKind::Unavailable`].
        unavailable => Unavailable,
        /// See [`ErrorKind::Corrupt`].
        corrupt => Corrupt,
        /// See [`ErrorKind::Internal`].
        internal => Internal,
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Puts `context` before the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message = format!("{context}: {}", self.message);
        self
    }

    /// What the caller should do.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Message and causes on one line, for logs and for people.
    pub fn chain(&self) -> String {
        let mut out = self.message.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            out.push_str(": ");
            out.push_str(&cause.to_string());
            next = cause.source();
        }
        out
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| &**s as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let kind = match e.kind() {
            K::NotFound => ErrorKind::NotFound,
            K::PermissionDenied => ErrorKind::Denied,
            K::AlreadyExists => ErrorKind::Conflict,
            K::StorageFull | K::QuotaExceeded | K::FileTooLarge => ErrorKind::Exhausted,
            K::InvalidInput | K::InvalidFilename => ErrorKind::Invalid,
            K::InvalidData | K::UnexpectedEof => ErrorKind::Corrupt,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, "input or output failed").with_source(e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_a_limit_and_the_chain_names_it_once() {
        let e = Error::from(std::io::Error::from(std::io::ErrorKind::StorageFull)).context("write part 3");
        assert_eq!(e.kind(), ErrorKind::Exhausted);
        assert_eq!(e.to_string(), "write part 3: input or output failed");
        assert!(e.chain().ends_with("no storage space"), "{}", e.chain());
    }

    #[test]
    fn kinds_survive_the_wire() {
        for kind in [ErrorKind::Invalid, ErrorKind::Conflict, ErrorKind::Unavailable, ErrorKind::Exhausted] {
            assert_eq!(ErrorKind::from_word(kind.as_str()), kind);
        }
    }
}
