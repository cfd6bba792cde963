//! Our conditions as DynamoDB's condition expressions.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use tidemill_base::Timestamp;
use tidemill_blocks::table::{Condition, Item};

use super::item::{is_live, number, second};

const LIVE: &str = "(attribute_not_exists(x) OR x > :now)";
const GONE: &str = "(attribute_not_exists(v) OR x <= :now)";

/// An expression and the values it names.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Expression {
    pub(super) text: String,
    pub(super) values: HashMap<String, AttributeValue>,
}

/// What must hold for a write under `condition`. `version` is that of a put: it must be above the one that is overwritten.
/// `None`: nothing must hold.
pub(super) fn expression(condition: Condition, version: Option<u64>, now: Timestamp) -> Option<Expression> {
    let mut values = HashMap::new();
    let grows = version.filter(|_| !matches!(condition, Condition::Version(_))).map(|v| {
        values.insert(":new".to_owned(), number(v));
        "(attribute_not_exists(v) OR v < :new)"
    });
    let asked = match condition {
        Condition::Any => None,
        Condition::Absent => Some(GONE.to_owned()),
        Condition::Present => Some(format!("attribute_exists(v) AND {LIVE}")),
        Condition::Version(v) => {
            values.insert(":was".to_owned(), number(v));
            Some(format!("v = :was AND {LIVE}"))
        }
    };
    if asked.is_some() {
        values.insert(":now".to_owned(), number(second(now)));
    }
    let text = match (asked, grows) {
        (None, None) => return None,
        (Some(asked), None) => asked,
        (None, Some(grows)) => grows.to_owned(),
        (Some(asked), Some(grows)) => format!("{asked} AND {grows}"),
    };
    Some(Expression { text, values })
}

/// Whether `condition` itself holds for what is stored; if so and DynamoDB refused the write, the version was too low.
pub(super) fn holds(condition: Condition, stored: Option<&Item>, now: Timestamp) -> bool {
    condition.holds(stored.filter(|i| is_live(i, now)).map(|i| i.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(5_900_000);

    #[test]
    fn conditions_become_expressions() {
        let text = |c, v| expression(c, v, NOW).map(|e| e.text);
        assert_eq!(text(Condition::Any, None), None);
        assert_eq!(text(Condition::Any, Some(9)).unwrap(), "(attribute_not_exists(v) OR v < :new)");
        assert_eq!(text(Condition::Absent, None).unwrap(), GONE);
        assert_eq!(text(Condition::Version(3), Some(9)).unwrap(), format!("v = :was AND {LIVE}"));
        assert!(text(Condition::Present, Some(9)).unwrap().ends_with("AND (attribute_not_exists(v) OR v < :new)"));
    }

    #[test]
    fn every_value_that_is_given_is_used() {
        // DynamoDB refuses an expression with values that it does not name.
        for condition in [Condition::Any, Condition::Absent, Condition::Present, Condition::Version(1)] {
            for version in [None, Some(2)] {
                let Some(e) = expression(condition, version, NOW) else { continue };
                assert!(e.values.keys().all(|name| e.text.contains(name.as_str())), "{e:?}");
            }
        }
    }

    #[test]
    fn the_second_that_has_begun_counts() {
        let e = expression(Condition::Absent, None, NOW).unwrap();
        assert_eq!(e.values[":now"], AttributeValue::N("5".to_owned()));
    }
}
