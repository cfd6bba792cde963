//! HTTP edges, sessions and roles, console, S3 endpoint, SQL endpoint; assembly of drivers.

pub mod s3;
