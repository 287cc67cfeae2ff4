//! The transport: listeners, TLS, HTTP/2 connections and the one thread that drives them.

pub mod answer;
pub mod budget;
pub mod connection;
pub mod event;
pub mod io;
pub mod listener;
pub mod mailbox;
pub mod payload;
pub mod server;
pub mod socket;
pub mod stream;
pub mod tls;
