//! Crossgate's native part: what is per byte and per frame. It knows no policy.
//!
//! With the feature `python` this is the extension module `gateway._native`; without it everything but the
//! bindings builds, which is what the fuzz targets and `cargo test` use.

pub mod chunks;
pub mod grpc;
pub mod load;
pub mod protobuf;
pub mod request;
pub mod transport;

#[cfg(feature = "python")]
mod python;
