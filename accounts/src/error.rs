//! What can go wrong in this crate. Clients see codes made of it, never the text of [`AccountsError::Unavailable`].

/// Errors of accounts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccountsError {
    /// The code is wrong, expired, used up, or was never asked for: one answer for all of it.
    #[error("the code is not valid")]
    BadCode,
    /// The refresh token is not good for anything.
    #[error("the session is not valid")]
    Unauthenticated,
    /// No such account, or no such device.
    #[error("there is no such thing")]
    NotFound,
    /// Too many; may be tried again after so many milliseconds.
    #[error("too many")]
    Rate {
        /// When it may be tried again, milliseconds from now.
        retry_after_ms: u64,
    },
    /// Codes cannot be brought to anybody: no delivery is set up.
    #[error("no delivery of codes is set up")]
    NoDelivery,
    /// Too many codes are on their way.
    #[error("too many codes are on their way")]
    Busy,
    /// The file cannot be opened or made.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// The database does not answer as it should.
    #[error("the account database: {0}")]
    Unavailable(String),
}

impl From<sqlx::Error> for AccountsError {
    fn from(why: sqlx::Error) -> Self {
        Self::Unavailable(why.to_string())
    }
}
