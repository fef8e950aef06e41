//! What can go wrong in this crate.

/// Errors of the gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The port cannot be listened on.
    #[error("cannot listen on {address}: {why}")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why.
        why: std::io::Error,
    },
    /// Certificate or key cannot be used. Nothing of the key is in it.
    #[error("{key}: {}: {why}", file.display())]
    Tls {
        /// The key of the configuration.
        key: &'static str,
        /// The file it names.
        file: std::path::PathBuf,
        /// Why not.
        why: String,
    },
    /// A token that is not good for anything here. Clients see 401 or 4401 without the reason.
    #[error("the token is not valid: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
    /// A token whose claims contradict each other.
    #[error("the token's claims are not valid: {0}")]
    Claims(&'static str),
    /// The signing secret is unusable.
    #[error("the secret has {0} bytes; at least 32 are needed")]
    Secret(usize),
}
