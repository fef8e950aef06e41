//! The message half of the HTTP API, and the stream of events, over real sockets against the real binary.

#[path = "../accounts/api.rs"]
mod api;
mod hints;
mod addresses;
mod http;
#[path = "../raw/mod.rs"]
mod raw;
mod stream;
mod streams;
#[path = "../support/mod.rs"]
mod support;
