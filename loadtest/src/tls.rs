//! TLS to the server, where the url says `wss://`. A certificate must verify, by Mozilla's authorities or by those of a file; there is no
//! way around it, on loopback neither.

use std::io;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::client::ClientError;

/// A connection, plain or over TLS.
pub(crate) type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Who may have signed the server's certificate.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Authority {
    /// Certificates in PEM; none: Mozilla's.
    pem: Option<String>,
}

impl Authority {
    /// The authorities of a file in PEM, and nobody else.
    ///
    /// # Errors
    /// When it cannot be read or holds no certificate.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let pem = std::fs::read_to_string(file).with_context(|| format!("--ca {}", file.display()))?;
        let authority = Self { pem: Some(pem) };
        authority.roots().map_err(|why| anyhow::anyhow!("--ca {}: {why}", file.display()))?;
        Ok(authority)
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let Some(pem) = &self.pem else {
            return Ok(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| "is no good PEM".to_owned())?;
            roots.add(certificate).map_err(|why| why.to_string())?;
        }
        if roots.is_empty() { Err("holds no certificate (PEM)".to_owned()) } else { Ok(roots) }
    }

    fn config(&self) -> Result<ClientConfig, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().map_err(|why| why.to_string())?;
        let mut config = builder.with_root_certificates(self.roots()?).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // every connection pays its whole handshake, and keeps nothing for the next one
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// How one server is spoken to: shared by all connections to it.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// To the server of this name or address.
    pub(crate) fn new(authority: &Authority, host: &str) -> Result<Self, ClientError> {
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|_| ClientError::Certificate(format!("{host} is no name a certificate could be for")))?;
        let config = authority.config().map_err(ClientError::Certificate)?;
        Ok(Self { config: Arc::new(config), name })
    }

    /// The handshake over a connection.
    pub(crate) async fn over(&self, stream: TcpStream) -> Result<Wire, ClientError> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = Box::pin(connector.connect(self.name.clone(), stream)).await.map_err(|why| failed(&why))?;
        Ok(Wire::Right(Box::new(stream)))
    }
}

fn failed(why: &io::Error) -> ClientError {
    match why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => ClientError::Certificate(why.to_string()),
        Some(rustls::Error::InvalidMessage(_)) => ClientError::NoTls,
        _ => ClientError::Socket(format!("TLS: {why}")),
    }
}
