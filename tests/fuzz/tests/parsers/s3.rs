//! The S3 endpoint, request by request, without a socket: what is signed, what was forged, how bodies and ranges are read.

mod client;
mod forged;
mod listing;
mod read;
mod request;
