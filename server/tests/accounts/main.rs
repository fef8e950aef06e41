//! Accounts over real HTTP and WebSockets, against the real binary.

mod api;
mod guessing;
mod hostile;
mod life;
mod openapi;
#[path = "../raw/mod.rs"]
mod raw;
#[path = "../support/mod.rs"]
mod support;
