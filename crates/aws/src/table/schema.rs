//! Making tables: on-demand billing, a stream with both images, and expiry by `x`.

use std::time::Duration;

use aws_sdk_dynamodb::operation::describe_table::DescribeTableError;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType, StreamSpecification, StreamViewType,
    TableDescription, TableStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use tidemill_base::{Error, ErrorKind, Result};
use tidemill_runtime::{Stopwatch, sleep};

use super::item::{EXPIRY, PARTITION, SORT};
use crate::connect::Inner;
use crate::error::error;

/// A new table takes seconds; one that takes longer than this has a reason that somebody should look at.
const MADE_WITHIN: Duration = Duration::from_secs(120);

/// The table as DynamoDB describes it; `None` when it is not there.
pub(crate) async fn describe(inner: &Inner, physical: &str) -> Result<Option<TableDescription>> {
    match inner.dynamo.describe_table().table_name(physical).send().await {
        Ok(got) => Ok(got.table),
        Err(e) if matches!(e.as_service_error(), Some(DescribeTableError::ResourceNotFoundException(_))) => Ok(None),
        Err(e) => Err(error(format!("describe DynamoDB table `{physical}`"), e)),
    }
}

/// Makes the table unless it is there, and waits until it can be used. Whether it was made.
pub(crate) async fn ensure(inner: &Inner, physical: &str) -> Result<bool> {
    let found = describe(inner, physical).await?;
    let made = found.is_none();
    if made {
        create(inner, physical).await?;
    }
    if !found.as_ref().is_some_and(is_active) {
        wait(inner, physical).await?;
    }
    expire(inner, physical).await?;
    Ok(made)
}

fn is_active(table: &TableDescription) -> bool {
    table.table_status() == Some(&TableStatus::Active)
}

async fn create(inner: &Inner, physical: &str) -> Result<()> {
    let made = |e: aws_sdk_dynamodb::error::BuildError| Error::internal("a table's schema lacks a field").with_source(e);
    let mut asked = inner.dynamo.create_table().table_name(physical).billing_mode(BillingMode::PayPerRequest);
    for (name, kind, of) in [(PARTITION, KeyType::Hash, ScalarAttributeType::S), (SORT, KeyType::Range, ScalarAttributeType::B)] {
        asked = asked
            .attribute_definitions(AttributeDefinition::builder().attribute_name(name).attribute_type(of).build().map_err(made)?)
            .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(kind).build().map_err(made)?);
    }
    let stream = StreamSpecification::builder().stream_enabled(true).stream_view_type(StreamViewType::NewAndOldImages);
    let asked = asked.stream_specification(stream.build().map_err(made)?);
    match asked.send().await {
        Ok(_) => Ok(()),
        // Somebody else makes it at the same time.
        Err(e) if e.as_service_error().is_some_and(|e| e.is_resource_in_use_exception()) => Ok(()),
        Err(e) => Err(error(format!("create DynamoDB table `{physical}`"), e)),
    }
}

async fn wait(inner: &Inner, physical: &str) -> Result<()> {
    let waited = Stopwatch::start();
    let mut pause = Duration::from_millis(50);
    loop {
        if describe(inner, physical).await?.as_ref().is_some_and(is_active) {
            return Ok(());
        }
        if waited.elapsed() > MADE_WITHIN {
            return Err(Error::unavailable(format!(
                "DynamoDB table `{physical}` is not active after {MADE_WITHIN:?}; look at it in the console"
            )));
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(2));
    }
}

/// Turns on DynamoDB's own removal of expired items. Without it they would be paid for for ever, though never returned.
async fn expire(inner: &Inner, physical: &str) -> Result<()> {
    let found = inner.dynamo.describe_time_to_live().table_name(physical).send().await;
    let found = found.map_err(|e| error(format!("look at the expiry of DynamoDB table `{physical}`"), e))?;
    let status = found.time_to_live_description.and_then(|d| d.time_to_live_status);
    if matches!(status, Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)) {
        return Ok(());
    }
    let mut attempt = 0;
    loop {
        let how = TimeToLiveSpecification::builder().attribute_name(EXPIRY).enabled(true).build();
        let how = how.map_err(|e| Error::internal("a table's expiry lacks a field").with_source(e))?;
        let Err(e) = inner.dynamo.update_time_to_live().table_name(physical).time_to_live_specification(how).send().await else {
            return Ok(());
        };
        let e = error(format!("set the expiry of DynamoDB table `{physical}`"), e);
        // Somebody else has set it in between; DynamoDB takes no second word for an hour.
        if e.kind() == ErrorKind::Invalid && ["already", "multiple times"].iter().any(|said| e.message().contains(said)) {
            return Ok(());
        }
        attempt += 1;
        if e.kind() != ErrorKind::Unavailable || !inner.pause(attempt).await {
            return Err(e);
        }
    }
}
