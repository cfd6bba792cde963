//! What the drivers need of the account, tried with requests that change nothing.

use aws_sdk_dynamodb::types::{StreamViewType, TableDescription};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_blocks::check::{Finding, Found};

use crate::connect::Aws;
use crate::error::error;
use crate::table::describe;

impl Aws {
    /// Looks for everything that the drivers need: who we are to AWS, the queue and the table service, what is wrong with tables of
    /// ours that are there, the bucket, and the role if one is set. With `create` a missing bucket is made; queues and tables are
    /// made by those who keep something in them.
    pub async fn check(&self, create: bool) -> Vec<Finding> {
        let (mut out, known) = self.who().await;
        if !known {
            // Everything else would say the same again.
            return out;
        }
        out.push(finding("SQS queues", self.queues().await.map(|n| format!("{n} of ours"))));
        match self.tables().await {
            Ok(names) => {
                out.push(Finding::new("DynamoDB tables", Found::Ready, format!("{} of ours", names.len())));
                for name in names {
                    out.extend(self.table_trouble(&name).await);
                }
            }
            Err(e) => out.push(finding("DynamoDB tables", Err(e))),
        }
        out.extend(self.check_objects(create).await);
        if self.inner.settings.role_arn.is_some() {
            out.extend(self.check_grants().await);
        }
        out
    }

    /// The account and the role that the credentials are of; whether there are any.
    async fn who(&self) -> (Vec<Finding>, bool) {
        let sts = aws_sdk_sts::config::Builder::from(&self.inner.config).interceptor(self.inner.calls.counting("sts")).build();
        let asked = aws_sdk_sts::Client::from_conf(sts).get_caller_identity().send().await;
        let who = asked.map_err(|e| error("ask AWS who we are", e)).map(|who| who.arn.unwrap_or_default());
        let known = who.is_ok();
        (vec![finding("AWS credentials", who)], known)
    }

    /// How many queues have our prefix, a thousand at most.
    async fn queues(&self) -> Result<usize> {
        let asked = self.inner.sqs.list_queues().queue_name_prefix(format!("{}-", self.inner.settings.prefix)).max_results(1000);
        let got = asked.send().await.map_err(|e| error("list queues", e))?;
        Ok(got.queue_urls.unwrap_or_default().len())
    }

    /// The tables with our prefix.
    async fn tables(&self) -> Result<Vec<String>> {
        let prefix = self.inner.table_name("");
        let (mut out, mut from) = (Vec::new(), None);
        loop {
            let got = self.inner.dynamo.list_tables().set_exclusive_start_table_name(from).send().await;
            let got = got.map_err(|e| error("list tables", e))?;
            out.extend(got.table_names.unwrap_or_default().into_iter().filter(|name| name.starts_with(&prefix)));
            from = got.last_evaluated_table_name;
            if from.is_none() {
                return Ok(out);
            }
        }
    }

    /// What is wrong with a table of ours; nothing, as a rule.
    async fn table_trouble(&self, name: &str) -> Option<Finding> {
        let what = format!("DynamoDB table {name}");
        match describe(&self.inner, name).await {
            Ok(Some(table)) => trouble(&table).map(|why| Finding::new(what, Found::Missing, why)),
            Ok(None) => None,
            Err(e) => Some(finding(&what, Err(e))),
        }
    }
}

/// What a table lacks that somebody else has made: a template, or a person.
fn trouble(table: &TableDescription) -> Option<String> {
    let keys: Vec<(&str, &str)> = table.key_schema().iter().map(|k| (k.attribute_name(), k.key_type().as_str())).collect();
    if keys != [("p", "HASH"), ("s", "RANGE")] {
        return Some("its keys are not `p` and `s`; remove it and let Tidemill make it, or set another `prefix`".to_owned());
    }
    let stream = table.stream_specification().filter(|s| s.stream_enabled());
    match stream.and_then(|s| s.stream_view_type()) {
        Some(StreamViewType::NewAndOldImages) => None,
        Some(other) => Some(format!("its stream has `{other}` and needs `NEW_AND_OLD_IMAGES`; disable it, then enable it anew so")),
        None => Some("it has no stream; enable one with `NEW_AND_OLD_IMAGES`, or nothing that follows the table will work".to_owned()),
    }
}

fn finding(what: &str, seen: Result<String>) -> Finding {
    match seen {
        Ok(note) => Finding::new(what, Found::Ready, note),
        Err(e) => Finding::new(what, found(&e), e.chain()),
    }
}

fn found(e: &Error) -> Found {
    match e.kind() {
        ErrorKind::Denied => Found::Denied,
        ErrorKind::NotFound => Found::Missing,
        _ => Found::Unreachable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::types::{KeySchemaElement, KeyType, StreamSpecification};

    fn table(keys: [&str; 2], stream: Option<StreamViewType>) -> TableDescription {
        let key = |name: &str, kind| KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap();
        let stream = stream.map(|view| StreamSpecification::builder().stream_enabled(true).stream_view_type(view).build().unwrap());
        let table = TableDescription::builder().key_schema(key(keys[0], KeyType::Hash)).key_schema(key(keys[1], KeyType::Range));
        table.set_stream_specification(stream).build()
    }

    #[test]
    fn tables_that_others_made_are_looked_at() {
        assert_eq!(trouble(&table(["p", "s"], Some(StreamViewType::NewAndOldImages))), None);
        assert!(trouble(&table(["id", "s"], None)).unwrap().contains("keys"));
        assert!(trouble(&table(["p", "s"], None)).unwrap().contains("no stream"));
        assert!(trouble(&table(["p", "s"], Some(StreamViewType::KeysOnly))).unwrap().contains("KEYS_ONLY"));
    }
}
