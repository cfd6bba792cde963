//! Table on DynamoDB.
