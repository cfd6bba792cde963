//! Roles and scopes: what a token may do, before anything else is asked.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tidemill_base::{Error, Result};

/// What somebody may do. `admin`, `operator`, `user` and `viewer` each include the next; `worker` stands apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// For machines: takes work and reports it, and nothing else.
    Worker,
    /// Looks at everything, changes nothing.
    Viewer,
    /// Submits and manages work of their own.
    User,
    /// Manages everybody's work, queues and the fleet.
    Operator,
    /// Everything, users and tokens included.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Admin, Self::Operator, Self::User, Self::Viewer, Self::Worker];

    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether it includes `other`. Nobody but an administrator is a worker as well.
    pub fn includes(self, other: Self) -> bool {
        match (self, other) {
            (Self::Admin, _) | (Self::Worker, Self::Worker) => true,
            (Self::Worker, _) | (_, Self::Worker) => false,
            (mine, theirs) => mine >= theirs,
        }
    }

    /// Whether its holder may have or hand out tokens of the role `other`. Operators run the fleet, so they make tokens for workers.
    pub fn may_hold(self, other: Self) -> bool {
        self.includes(other) || (self == Self::Operator && other == Self::Worker)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;
    fn from_str(word: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|r| r.as_str() == word)
            .ok_or_else(|| Error::invalid(format!("role `{}` is none of admin, operator, user, viewer, worker", word.escape_debug())))
    }
}

/// The scope that covers every other.
pub const EVERYTHING: &str = "*";

/// Checks a scope's shape: `*`, or words of `a-z 0-9 - _ . /` joined by `:`, such as `batch` or `files:reports`.
pub fn check_scope(scope: &str) -> Result<()> {
    let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_./".contains(&b));
    if scope == EVERYTHING || (scope.len() <= 200 && scope.split(':').all(word)) {
        Ok(())
    } else {
        Err(Error::invalid(format!("scope `{}` is neither `*` nor words joined by `:`, such as `batch`", scope.escape_debug())))
    }
}

/// Whether one of `held` covers `wanted`: by whole words, so that `batch` covers `batch:submit` and not `batches`.
pub fn covers(held: &[String], wanted: &str) -> bool {
    held.iter().any(|h| h == EVERYTHING || wanted == h || wanted.strip_prefix(h.as_str()).is_some_and(|rest| rest.starts_with(':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_nest_and_workers_stand_apart() {
        assert!(Role::Admin.includes(Role::Worker) && Role::Operator.includes(Role::User));
        assert!(!Role::Viewer.includes(Role::User) && !Role::Operator.includes(Role::Worker) && !Role::Worker.includes(Role::Viewer));
        assert!(Role::Operator.may_hold(Role::Worker) && !Role::User.may_hold(Role::Worker));
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert!("root".parse::<Role>().unwrap_err().message().contains("`root`"));
    }

    #[test]
    fn scopes_cover_by_whole_words() {
        let held = vec!["batch".to_owned(), "files:reports".to_owned()];
        assert!(covers(&held, "batch:submit") && covers(&held, "files:reports") && covers(&[EVERYTHING.to_owned()], "sql"));
        assert!(!covers(&held, "batches") && !covers(&held, "files") && !covers(&held, "sql"));
        assert!(check_scope("batch:*").is_err() && check_scope("").is_err() && check_scope("files:a/b").is_ok());
    }
}
