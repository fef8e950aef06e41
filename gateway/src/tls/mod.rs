//! TLS 1.3 by rustls, from certificate and key files that may change while the server runs.
//!
//! One configuration serves every connection; only the certificate in it is exchanged, so a new one holds for the next handshake and a
//! connection that stands keeps what it has. No session is resumed and no early data taken: a client that comes back sees the certificate
//! that is in force, nodes share no ticket keys, and nothing can be replayed (docs/decisions/0009).

mod files;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::config::TlsConfig;
use crate::error::GatewayError;
use crate::metrics;
use crate::node::now_ms;
use crate::stream::Stream;
use files::{Identity, Marks};

/// How often the files are looked at. A change counts when two looks agree on it, so it is in force within two of them.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// What is encrypted and not yet taken by the kernel, of one connection, bytes: one record.
const WAITING_BYTES_MAX: usize = 16 * 1024;
/// Of a request in the clear so much is read, so that its sender gets the answer and no reset.
const CLEAR_BYTES_MAX: u64 = 64 * 1024;
/// The only protocol above: WebSockets are upgraded from it.
const ALPN: &[u8] = b"http/1.1";
const SPEAKS_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 45\r\nconnection: close\r\n\r\n\
    this port speaks TLS: use https:// or wss://\n";

/// The certificate in force. rustls asks for it at each handshake; names that clients ask for make no difference.
#[derive(Debug)]
struct InForce(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for InForce {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read()))
    }
}

/// What was seen of the files.
#[derive(Debug)]
struct Looked {
    /// At the last reading, good or not.
    read: Marks,
    /// At the last look, if that was something else.
    changing: Option<Marks>,
}

/// TLS of a listener.
pub struct Tls {
    config: TlsConfig,
    acceptor: TlsAcceptor,
    in_force: Arc<InForce>,
    looked: Mutex<Looked>,
}

impl Tls {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// [`GatewayError::Tls`] names the key of the configuration, the file, and what is wrong with it.
    pub fn load(config: &TlsConfig) -> Result<Self, GatewayError> {
        let read = Marks::of(config);
        let Identity { certified, valid_s } = Identity::read(config)?;
        metrics::certificate_ends(*valid_s.end());
        let now_s = now_ms() / 1000;
        if !valid_s.contains(&now_s) {
            tracing::error!(file = %config.certificate.display(), "the certificate is not valid at this time: clients will refuse it");
        }
        if files::is_readable_by_all(&config.key) {
            tracing::warn!(file = %config.key.display(), "every user of this machine can read the private key: chmod 600, or 640");
        }
        let in_force = Arc::new(InForce(RwLock::new(certified)));
        Ok(Self {
            config: config.clone(),
            acceptor: acceptor(Arc::clone(&in_force) as _),
            in_force,
            looked: Mutex::new(Looked { read, changing: None }),
        })
    }

    /// The handshake. Who speaks HTTP in the clear is told so and gets no stream. The caller sets the deadline.
    ///
    /// # Errors
    /// When there is none, with the alert sent where the protocol has one.
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<Option<Stream>> {
        let mut first = [0];
        // a TLS record never begins with a letter, a method of HTTP always does
        if stream.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
            answer_in_the_clear(stream).await?;
            return Ok(None);
        }
        let accepted = self.acceptor.accept_with(stream, |session| session.set_buffer_limit(Some(WAITING_BYTES_MAX)));
        Ok(Some(Stream::Tls(Box::new(accepted.await?))))
    }

    /// Looks after the files for ever: what has changed and stands still is read.
    pub async fn follow(self: Arc<Self>) {
        let mut every = tokio::time::interval(LOOK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let this = Arc::clone(&self);
            // a file system may take its time
            let _ = tokio::task::spawn_blocking(move || this.look()).await;
        }
    }

    /// Certificate and key are two files, and neither is written in one moment: a change is read when it is the same at two looks.
    fn look(&self) {
        let now = Marks::of(&self.config);
        let settled = {
            let mut looked = self.looked.lock();
            let changed = (now != looked.read).then_some(now);
            let settled = changed.is_some() && changed == looked.changing;
            looked.changing = changed;
            settled
        };
        if settled {
            self.reload();
        }
    }

    /// Reads the files now. What is no good is refused, told and counted, and the certificate in force stays. Blocks on the files.
    pub fn reload(&self) {
        let marks = Marks::of(&self.config);
        *self.looked.lock() = Looked { read: marks, changing: None };
        match Identity::read(&self.config).and_then(|new| new.valid_now(&self.config, now_ms() / 1000)) {
            Ok(Identity { certified, valid_s }) => {
                *self.in_force.0.write() = certified;
                metrics::certificate_ends(*valid_s.end());
                metrics::certificate_read("done");
                tracing::info!(file = %self.config.certificate.display(), ends_s = *valid_s.end(), "the certificate was read again");
            }
            Err(why) => {
                metrics::certificate_read("refused");
                tracing::error!(%why, "the new certificate is refused, the old one stays in force");
            }
        }
    }
}

fn acceptor(in_force: Arc<dyn ResolvesServerCert>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has suites of TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(in_force);
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    TlsAcceptor::from(Arc::new(config))
}

async fn answer_in_the_clear(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(SPEAKS_TLS).await?;
    stream.shutdown().await?;
    // unread bytes would make the kernel reset the connection, and the answer with it
    tokio::io::copy(&mut stream.take(CLEAR_BYTES_MAX), &mut tokio::io::sink()).await.map(drop)
}

#[cfg(test)]
mod tests;
