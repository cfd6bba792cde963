//! Our queues' names as SQS's, and back.
//!
//! SQS takes 80 characters of `a-z A-Z 0-9 - _`. Ours have no capitals and may have dots, so a dot becomes `D`; the prefix and a
//! hyphen come first. What is then too long ends with `H` and 26 characters of a hash instead, and the whole name is kept in a tag
//! of the queue. Prefixes have no hyphen, so no two installations can mean the same queue.

use tidemill_base::Result;
use tidemill_blocks::queue::check_name;

/// SQS's limit.
const LONGEST: usize = 80;
/// Characters of the hash of a long name: 130 bits.
const HASH: usize = 26;
/// The tag that holds a long name whole.
pub(super) const NAME_TAG: &str = "tidemill-name";

/// SQS's name of our queue `name`.
pub(super) fn physical(prefix: &str, name: &str) -> Result<String> {
    check_name(name)?;
    let whole = format!("{prefix}-{}", name.replace('.', "D"));
    if whole.len() <= LONGEST {
        return Ok(whole);
    }
    Ok(format!("{}H{}", &whole[..LONGEST - HASH - 1], hash(name)))
}

/// Whether only a tag can tell what SQS's name stands for.
pub(super) fn is_cut(physical: &str) -> bool {
    physical.contains('H')
}

/// Our name of an SQS queue; `None` when it is not one of ours, or [`is_cut`].
pub(super) fn logical(prefix: &str, physical: &str) -> Option<String> {
    let name = physical.strip_prefix(prefix)?.strip_prefix('-')?;
    if is_cut(physical) {
        return None;
    }
    let name = name.replace('D', ".");
    check_name(&name).is_ok().then_some(name)
}

/// The last part of a queue's URL or ARN.
pub(super) fn last_part(of: &str) -> &str {
    of.rsplit(['/', ':']).next().unwrap_or(of)
}

fn hash(name: &str) -> String {
    const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
    blake3::hash(name.as_bytes()).as_bytes()[..HASH].iter().map(|b| char::from(DIGITS[usize::from(b % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for name in ["a", "batch.done", "a-b_c.d", "..", "x9"] {
            let there = physical("tidemill", name).unwrap();
            assert!(there.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)), "{there}");
            assert_eq!(logical("tidemill", &there).as_deref(), Some(name));
        }
    }

    #[test]
    fn no_two_names_meet() {
        let names = ["a.b", "a-b", "a_b", "adb", "a", "a-b.c"];
        let there: std::collections::BTreeSet<String> = names.iter().map(|n| physical("p", n).unwrap()).collect();
        assert_eq!(there.len(), names.len());
        assert!(physical("p", "aDb").is_err(), "a capital in one of our names would be taken for a dot");
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        let (a, b) = (physical("tidemill", &"x".repeat(80)).unwrap(), physical("tidemill", &"x".repeat(79)).unwrap());
        assert!(a != b && a.len() == LONGEST && is_cut(&a));
        assert_eq!(logical("tidemill", &a), None);
        assert!(!is_cut(&physical("tidemill", &"x".repeat(71)).unwrap()));
    }

    #[test]
    fn foreign_queues_are_not_ours() {
        for foreign in ["other-a", "tidemill2-a", "tidemill", "tidemill-A"] {
            assert_eq!(logical("tidemill", foreign), None, "{foreign}");
        }
    }
}
