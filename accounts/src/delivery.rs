//! How a code comes to its owner. One implementation: the console, for development and for operators who hand codes out themselves. A provider of
//! text messages is another: it gets number, code and lifetime, may take its time, and says whether the message was taken.

use std::io::Write as _;

use async_trait::async_trait;

use crate::code::{Code, LIFETIME_MS};
use crate::phone::Phone;

/// Why a code was not delivered. Its text is logged, so it must hold neither number nor code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Undelivered(pub String);

/// Brings codes to their owners. Called beside the request that asked for the code, whose answer does not wait for it: so it says nothing of the number.
#[async_trait]
pub trait Delivery: Send + Sync {
    /// Brings a code to a number.
    ///
    /// # Errors
    /// [`Undelivered`]; the code stays good, and its owner may ask for another.
    async fn deliver(&self, phone: &Phone, code: &Code) -> Result<(), Undelivered>;
}

/// Prints codes on standard output, never in the log.
#[derive(Debug, Clone, Copy, Default)]
pub struct Console;

#[async_trait]
impl Delivery for Console {
    async fn deliver(&self, phone: &Phone, code: &Code) -> Result<(), Undelivered> {
        let minutes = LIFETIME_MS / 60_000;
        let line = format!("code for {}: {} (good for {minutes} minutes)\n", phone.as_str(), code.as_str());
        let mut out = std::io::stdout();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).map_err(|why| Undelivered(why.to_string()))
    }
}
