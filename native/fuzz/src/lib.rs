//! What must hold for any bytes at all, for libFuzzer and for `cargo test`.
//!
//! `cargo +nightly fuzz run request` (or `framing`) mutates for as long as it is left alone;
//! `cargo test --release --no-default-features` does so for a few seconds on a stable toolchain.

mod differential;
mod framing;
mod plain;
pub mod schema;

pub use differential::check_request;
pub use framing::check_framing;
