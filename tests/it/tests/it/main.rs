//! What users rely on, checked from outside on the real binary: each module is a subject, each result is compared with a model that
//! knows nothing of the product.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests run in real time and may panic")]

mod access;
mod chain;
mod container;
mod control;
mod crashes;
mod cron;
mod deletion;
mod drain;
mod engines;
mod failures;
mod fairness;
mod first_use;
mod full_disk;
mod grid;
mod grid_client;
mod grid_data;
mod grid_engines;
mod grid_from;
mod grid_programs;
mod grid_risk;
mod grid_sql;
mod lease;
mod logs;
mod many;
mod pgwire;
mod refusals;
mod run;
mod s3;
mod scaling;
mod sql;
mod task_credentials;
mod traces;
