//! The session policy of a credential: what a role may do, narrowed to prefixes and verbs.

use serde_json::{Value, json};
use tidemill_base::{Error, Result, Timestamp};
use tidemill_blocks::grants::{Scope, Verbs};

/// STS takes no longer ones.
const MAX_CHARACTERS: usize = 2048;

/// Where the scopes' prefixes lie.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// `aws`, or `aws-cn`, `aws-us-gov` for accounts apart.
    pub(super) partition: &'a str,
    pub(super) bucket: &'a str,
    /// What keys begin with before the prefix; empty or without a slash at its end.
    pub(super) key_prefix: &'a str,
}

/// The policy as text. After `until`, if there is one, it allows nothing.
pub(super) fn policy(place: Place<'_>, scopes: &[Scope], until: Option<Timestamp>) -> Result<String> {
    let mut statements = Vec::new();
    // One statement for all scopes with the same verbs, since the length is limited.
    let mut seen: Vec<Verbs> = Vec::new();
    for scope in scopes {
        let verbs = Verbs { list: false, ..scope.verbs };
        if seen.contains(&verbs) {
            continue;
        }
        seen.push(verbs);
        let actions = actions(verbs);
        if !actions.is_empty() {
            let alike = scopes.iter().filter(|s| Verbs { list: false, ..s.verbs } == verbs);
            let resources: Vec<String> = alike.flat_map(|s| keys(place, &s.prefix)).map(|k| arn(place, &format!("/{k}"))).collect();
            statements.push(statement(json!(actions), json!(resources), conditions(None, until)));
        }
    }
    let listed: Vec<&Scope> = scopes.iter().filter(|s| s.verbs.list).collect();
    if !listed.is_empty() {
        // Only what lies below: names that begin with `a/b` are also those of `a/bc`.
        let prefixes: Vec<String> = listed.iter().map(|s| below(place, &s.prefix)).collect();
        let everything = prefixes.iter().any(|p| p == "*");
        let within = (!everything).then_some(prefixes);
        statements.push(statement(json!("s3:ListBucket"), json!(arn(place, "")), conditions(within, until)));
    }
    let text = json!({ "Version": "2012-10-17", "Statement": statements }).to_string();
    let characters = text.chars().count();
    if characters > MAX_CHARACTERS {
        return Err(Error::invalid(format!(
            "the scopes take a session policy of {characters} characters, and STS takes {MAX_CHARACTERS}; ask for fewer or shorter prefixes, \
             or for several credentials"
        )));
    }
    Ok(text)
}

/// What the verbs are called on objects.
fn actions(verbs: Verbs) -> Vec<&'static str> {
    let mut all = Vec::new();
    if verbs.read {
        all.push("s3:GetObject");
    }
    if verbs.write {
        all.extend(["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]);
    }
    if verbs.delete {
        all.push("s3:DeleteObject");
    }
    all
}

fn statement(actions: Value, resources: Value, conditions: Value) -> Value {
    let mut statement = json!({ "Effect": "Allow", "Action": actions, "Resource": resources });
    if conditions.as_object().is_some_and(|c| !c.is_empty()) {
        statement["Condition"] = conditions;
    }
    statement
}

fn conditions(prefixes: Option<Vec<String>>, until: Option<Timestamp>) -> Value {
    let mut all = json!({});
    if let Some(prefixes) = prefixes {
        all["StringLike"] = json!({ "s3:prefix": prefixes });
    }
    if let Some(until) = until {
        // Whole seconds, rounded down: rather too early than too late.
        let at = Timestamp::from_millis(until.millis() / 1000 * 1000);
        all["DateLessThan"] = json!({ "aws:CurrentTime": at.rfc3339() });
    }
    all
}

fn arn(place: Place<'_>, rest: &str) -> String {
    format!("arn:{}:s3:::{}{rest}", place.partition, place.bucket)
}

/// The keys that a prefix covers by whole segments: itself and what lies below.
fn keys(place: Place<'_>, prefix: &str) -> Vec<String> {
    match root(place, prefix).as_str() {
        "" => vec!["*".to_owned()],
        root => vec![root.to_owned(), format!("{root}/*")],
    }
}

fn below(place: Place<'_>, prefix: &str) -> String {
    match root(place, prefix).as_str() {
        "" => "*".to_owned(),
        root => format!("{root}/*"),
    }
}

/// The prefix as a key, without a slash at its end, and with the characters that mean something in a policy made to mean themselves.
fn root(place: Place<'_>, prefix: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    let joined = match (place.key_prefix.is_empty(), prefix.is_empty()) {
        (true, _) => prefix.to_owned(),
        (false, true) => place.key_prefix.to_owned(),
        (false, false) => format!("{}/{prefix}", place.key_prefix),
    };
    joined.chars().fold(String::new(), |mut out, c| {
        match c {
            '*' | '?' | '$' => out.extend(['$', '{', c, '}']),
            c => out.push(c),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'_> = Place { partition: "aws", bucket: "b", key_prefix: "" };

    fn scope(prefix: &str, verbs: Verbs) -> Scope {
        Scope { prefix: prefix.to_owned(), verbs }
    }

    fn parsed(place: Place<'_>, scopes: &[Scope], until: Option<Timestamp>) -> Value {
        serde_json::from_str(&policy(place, scopes, until).expect("a policy")).expect("JSON")
    }

    #[test]
    fn verbs_become_actions_on_whole_segments() {
        let found = parsed(PLACE, &[scope("jobs/j1/in", Verbs::READ), scope("jobs/j1/out/", Verbs::WRITE)], None);
        let expected = json!([
            { "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/jobs/j1/in", "arn:aws:s3:::b/jobs/j1/in/*"] },
            { "Effect": "Allow", "Action": ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
              "Resource": ["arn:aws:s3:::b/jobs/j1/out", "arn:aws:s3:::b/jobs/j1/out/*"] },
            { "Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b",
              "Condition": { "StringLike": { "s3:prefix": ["jobs/j1/in/*"] } } },
        ]);
        assert_eq!(found["Statement"], expected);
    }

    #[test]
    fn scopes_with_the_same_verbs_share_a_statement() {
        let found = parsed(PLACE, &[scope("a", Verbs::ALL), scope("b", Verbs::ALL)], None);
        assert_eq!(found["Statement"].as_array().map(Vec::len), Some(2));
        assert_eq!(found["Statement"][0]["Resource"].as_array().map(Vec::len), Some(4));
        let delete = Verbs { read: false, write: false, delete: true, list: false };
        assert_eq!(parsed(PLACE, &[scope("a", delete)], None)["Statement"][0]["Action"], json!(["s3:DeleteObject"]));
        let list = Verbs { read: false, write: false, delete: false, list: true };
        assert_eq!(parsed(PLACE, &[scope("a", list)], None)["Statement"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_key_prefix_and_the_empty_prefix_are_kept_apart() {
        let place = Place { partition: "aws-cn", key_prefix: "team/t1", ..PLACE };
        let found = parsed(place, &[scope("", Verbs::READ)], None);
        assert_eq!(found["Statement"][0]["Resource"], json!(["arn:aws-cn:s3:::b/team/t1", "arn:aws-cn:s3:::b/team/t1/*"]));
        assert_eq!(found["Statement"][1]["Condition"]["StringLike"]["s3:prefix"], json!(["team/t1/*"]));
        let all = parsed(PLACE, &[scope("", Verbs::READ)], None);
        assert_eq!((&all["Statement"][0]["Resource"], all["Statement"][1].get("Condition")), (&json!(["arn:aws:s3:::b/*"]), None));
    }

    #[test]
    fn names_with_wildcards_mean_themselves() {
        let found = parsed(PLACE, &[scope("a*/b?/${aws:username}", Verbs::READ)], None);
        let expected = "a${*}/b${?}/${$}{aws:username}";
        assert_eq!(found["Statement"][0]["Resource"][0], format!("arn:aws:s3:::b/{expected}"));
        assert_eq!(found["Statement"][1]["Condition"]["StringLike"]["s3:prefix"][0], format!("{expected}/*"));
    }

    #[test]
    fn an_earlier_end_is_in_every_statement() {
        let found = parsed(PLACE, &[scope("a", Verbs::READ)], Some(Timestamp::from_millis(1_700_000_000_999)));
        for statement in found["Statement"].as_array().expect("statements") {
            assert_eq!(statement["Condition"]["DateLessThan"]["aws:CurrentTime"], "2023-11-14T22:13:20Z");
        }
    }

    #[test]
    fn what_sts_would_not_take_is_refused_with_the_number() {
        let scopes: Vec<Scope> = (0..8).map(|n| scope(&format!("{}{n}", "long/".repeat(30)), Verbs::READ)).collect();
        let e = policy(PLACE, &scopes, None).expect_err("too long");
        assert_eq!(e.kind(), tidemill_base::ErrorKind::Invalid);
        assert!(e.message().contains("2048") && e.message().contains("fewer or shorter"), "{e}");
        let job = "jobs/j01h2xcejqtf2nbrexx3vqjhp41/stages/extract/tasks";
        let usual: Vec<Scope> = (0..8).map(|n| scope(&format!("{job}/{n}"), Verbs::READ)).collect();
        assert!(policy(PLACE, &usual[..5], None).is_ok(), "a task's usual scopes fit");
    }
}
