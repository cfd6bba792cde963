//! Drivers for AWS: the blocks of `tidemill-blocks` on SQS, DynamoDB, S3, STS and EC2 Auto Scaling.
//!
//! Why it is a crate: the SDKs are heavy, and nothing but these drivers should wait for them or know their types. Every request
//! that a driver makes is counted ([`Aws::calls`]), so that what a job costs by list price can be told, and pinned by a test.
//!
//! ```no_run
//! # async fn example() -> tidemill_base::Result<()> {
//! use tidemill_aws::{Aws, AwsSettings};
//! use tidemill_base::Env;
//! use tidemill_blocks::queue::{NewMessage, QueueSettings};
//!
//! let aws = Aws::connect(AwsSettings { bucket: "our-tidemill".to_owned(), ..AwsSettings::default() }, Env::system()).await?;
//! let queue = aws.queue();
//! queue.ensure("mail", QueueSettings::default()).await?;
//! queue.send("mail", vec![NewMessage::now("hello")]).await?;
//! println!("{:.6} USD so far", aws.calls().list_price_usd());
//! # Ok(()) }
//! ```

mod calls;
mod check;
mod connect;
mod error;
pub mod fleet;
pub mod grants;
pub mod objects;
pub mod queue;
pub mod table;

pub use calls::{Bill, Calls, Count};
pub use connect::{Aws, AwsSettings};
