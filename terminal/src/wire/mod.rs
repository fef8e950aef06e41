//! The ways to the server: one place, one TLS configuration, HTTP for the account and a WebSocket for the conversation.

pub(crate) mod http;
pub(crate) mod socket;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::http::Uri;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::error::Error;

/// A connection must stand by then, TLS included.
const DIAL_DEADLINE: Duration = Duration::from_secs(15);

/// A connection, plain or over TLS.
pub(crate) type Wire = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// Where the server is, and how it is spoken to.
#[derive(Clone)]
pub(crate) struct Place {
    host: String,
    port: u16,
    /// What stands before `/ws` and `/v1`, without a slash at its end.
    prefix: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Place {
    /// Reads the url and, over TLS, the authorities: those of the file, or those of the system.
    pub(crate) fn new(url: &str, ca: Option<&Path>) -> Result<Self, Error> {
        let bad = || Error::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?.trim_matches(['[', ']']).to_owned();
        if uri.query().is_some() || uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(bad());
        }
        let (secure, port) = match uri.scheme_str() {
            Some("http" | "ws") => (false, 80),
            Some("https" | "wss") => (true, 443),
            _ => return Err(bad()),
        };
        let tls = if secure {
            let name = ServerName::try_from(host.clone()).map_err(|_| bad())?;
            Some((Arc::new(config(ca)?), name))
        } else {
            None
        };
        let prefix = uri.path().trim_end_matches('/');
        let prefix = prefix.strip_suffix("/ws").unwrap_or(prefix).to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(port), prefix, tls })
    }

    /// Whether what is said can be read on the way.
    pub(crate) fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// Host and port, as a header and a folder write them.
    pub(crate) fn authority(&self) -> String {
        if self.host.contains(':') { format!("[{}]:{}", self.host, self.port) } else { format!("{}:{}", self.host, self.port) }
    }

    /// A path of the server.
    pub(crate) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// Connects. And whether the other end is this machine.
    pub(crate) async fn dial(&self) -> Result<(Wire, bool), Error> {
        let dial = async {
            let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
            stream.set_nodelay(true)?;
            let loopback = stream.peer_addr()?.ip().to_canonical().is_loopback();
            let Some((config, name)) = &self.tls else { return Ok((Wire::Left(stream), loopback)) };
            let connector = TlsConnector::from(Arc::clone(config));
            let stream = Box::pin(connector.connect(name.clone(), stream)).await?;
            Ok((Wire::Right(Box::new(stream)), loopback))
        };
        let late = |_| Error::Unreachable(format!("{}: no connection within {} s", self.authority(), DIAL_DEADLINE.as_secs()));
        tokio::time::timeout(DIAL_DEADLINE, dial).await.map_err(late)?.map_err(|why: std::io::Error| self.failed(&why))
    }

    fn failed(&self, why: &std::io::Error) -> Error {
        match why.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(rustls::Error::InvalidCertificate(why)) => Error::Untrusted(why.to_string()),
            _ => Error::Unreachable(format!("{}: {why}", self.authority())),
        }
    }
}

fn config(ca: Option<&Path>) -> Result<ClientConfig, Error> {
    let roots = match ca {
        Some(file) => read(file)?,
        None => system()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(|why| Error::Authorities(why.to_string()))?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn read(file: &Path) -> Result<RootCertStore, Error> {
    let pem = std::fs::read(file).map_err(Error::file("--ca", file))?;
    let bad = |why: String| Error::File { what: "--ca", path: file.to_owned(), why };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| bad("no good PEM".into()))?;
        roots.add(certificate).map_err(|why| bad(why.to_string()))?;
    }
    if roots.is_empty() { Err(bad("no certificate in it".into())) } else { Ok(roots) }
}

fn system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // a certificate of the system that cannot be read is one authority less, not a reason to end
    let (good, _) = roots.add_parsable_certificates(found.certs);
    if good == 0 {
        return Err(Error::Authorities("this machine has no authorities for TLS: give their file with --ca".into()));
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_place() {
        let place = |url| Place::new(url, None).map(|place| (place.authority(), place.path("/v1")));
        assert_eq!(place("http://127.0.0.1:8080").unwrap(), ("127.0.0.1:8080".into(), "/v1".into()));
        assert_eq!(place("ws://localhost:9/ws").unwrap(), ("localhost:9".into(), "/v1".into()));
        assert_eq!(place("http://[::1]:9/chat/").unwrap(), ("[::1]:9".into(), "/chat/v1".into()));
        for bad in ["", "localhost:8080", "ftp://x", "http://", "http://a@b", "http://x?token=1"] {
            assert!(Place::new(bad, None).is_err(), "{bad}");
        }
    }
}
