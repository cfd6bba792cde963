//! The S3-compatible endpoint: any S3 client reaches the objects block through it.
//!
//! The first segment of an object's path is its bucket and the rest its key, so what a job writes through the block is what
//! `aws s3 ls` shows. The wire (requests, signatures, XML) is the `s3s` crate's; what s3s leaves to the backend is done here:
//! session tokens and their scopes, conditional writes, checksums over the whole body, listings, and multipart uploads that stay
//! valid over a restart because each part is an object of its own.
//!
//! Every request must be signed (version 4, header or presigned link). There are two kinds of credentials: temporary ones from
//! the grants block, which reach the prefixes they name, and static ones derived from API tokens ([`StaticKeys`]).
//!
//! ```no_run
//! # async fn example(
//! #     blocks: tidemill_blocks::Blocks, keys: std::sync::Arc<dyn tidemill_server::s3::StaticKeys>,
//! #     env: tidemill_base::Env, tasks: tidemill_runtime::Tasks,
//! # ) -> tidemill_base::Result<()> {
//! use tidemill_server::s3::{Settings, s3_service, serve};
//!
//! let service = s3_service(blocks.objects, blocks.grants, keys, env, Settings::default())?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:9000").await?;
//! serve(listener, service, &tasks).await
//! # }
//! ```

mod access;
mod attributes;
mod buckets;
mod checksums;
mod conditions;
mod errors;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod keys;
mod listing;
mod names;
mod object;
mod operations;
mod page;
mod query;
mod serve;
mod sweep;
mod transfer;
mod upload_lists;
mod uploads;

use std::sync::Arc;

use s3s::config::{S3Config, StaticConfigProvider};
use s3s::host::SingleDomain;
use s3s::service::{S3Service, S3ServiceBuilder};
use tidemill_base::{Env, Error, Result};
use tidemill_blocks::grants::Grants;
use tidemill_blocks::objects::Objects;

pub use access::{Action, Identity, Refusal, decide};
pub use buckets::{BUILT_IN_BUCKETS, ensure_bucket};
pub use keys::{StaticKey, StaticKeys};
pub use serve::{serve, serve_connection};
pub use sweep::sweep_uploads;

/// Requests with a body of XML (delete many, complete an upload of 10,000 parts) stay well below this, in bytes.
const MAX_XML_BYTES: usize = 8 << 20;
/// Forms (`POST` of a browser) are not taken; this keeps s3s from reading one before it is refused, in bytes.
const MAX_FORM_BYTES: usize = 16 << 10;

/// How the endpoint is reached.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The host name below which each bucket has its own (`bucket.s3.example.com`); `None`: buckets are in the path alone.
    pub domain: Option<String>,
}

/// What all operations work on.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    objects: Objects,
    env: Env,
}

/// The endpoint as a service for hyper and tower; [`serve`] runs it on a listener of its own. `Invalid`: the domain of the
/// settings is not a host name.
pub fn s3_service(objects: Objects, grants: Arc<dyn Grants>, keys: Arc<dyn StaticKeys>, env: Env, settings: Settings) -> Result<S3Service> {
    let mut builder = S3ServiceBuilder::new(Endpoint { objects, env });
    builder.set_auth(access::Secrets { grants: grants.clone(), keys: keys.clone() });
    builder.set_access(access::Gate { grants, keys });
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(limits()))));
    if let Some(domain) = &settings.domain {
        let host = SingleDomain::new(domain)
            .map_err(|e| Error::invalid(format!("`{domain}` is not a host name to put buckets under")).with_source(e))?;
        builder.set_host(host);
    }
    Ok(builder.build())
}

fn limits() -> S3Config {
    let mut config = S3Config::default();
    config.xml_max_body_size = MAX_XML_BYTES;
    config.post_object_max_file_size = 1;
    config.form_max_field_size = MAX_FORM_BYTES;
    config.form_max_fields_size = MAX_FORM_BYTES;
    config.form_max_parts = 32;
    config
}
