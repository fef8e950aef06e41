//! One WebSocket connection: connect, say hello, send, receive, close. It holds no state a reconnect would need.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Response, Uri, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message, Utf8Bytes};
use uuid::Uuid;

use crate::frame::{Body, ClientFrame, Encoding, ErrorFrame, Hello, Page, Send, ServerFrame, Welcome};
use crate::tls::{Authority, Tls, Wire};

/// What is read from the socket at once. Allocated eagerly, so small.
const READ_BUFFER: usize = 4096;
/// The write buffer is flushed beyond this.
const WRITE_BUFFER: usize = 16 * 1024;
/// The write buffer never exceeds this: two whole frames of 64 KiB.
const WRITE_BUFFER_MAX: usize = 160 * 1024;
/// A server frame is at most a page of full bodies.
const MESSAGE_MAX: usize = 4 << 20;
/// The ports of a source address: above those of services, all others.
const PORTS: (u16, u16) = (10_240, 65_535);
/// So many ports in a row may be taken.
const PORT_TRIES: u32 = 64;
/// Connecting and shaking hands must be over by then.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(20);

/// Why a connection could not be had, or ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is not `ws://host:port/path` or `wss://host:port/path`.
    #[error("bad url {0}")]
    Url(String),
    /// The server's certificate is not good for this name, by these authorities, at this time.
    #[error("the certificate does not verify: {0}")]
    Certificate(String),
    /// What answers does not speak TLS.
    #[error("no TLS is spoken there")]
    NoTls,
    /// The server answered the handshake with an HTTP error.
    #[error("HTTP {status}")]
    Http {
        /// The status.
        status: u16,
        /// What `Retry-After` said.
        retry_after: Option<Duration>,
    },
    /// The connection was closed, with a code if the server said one.
    #[error("closed {code:?} {reason}")]
    Closed {
        /// The close code.
        code: Option<u16>,
        /// The reason.
        reason: String,
    },
    /// The handshake took too long.
    #[error("no handshake within {HANDSHAKE_DEADLINE:?}")]
    Deadline,
    /// Something that is not in the contract arrived.
    #[error("a frame outside the contract: {0}")]
    Contract(String),
    /// An error in band where an answer was due.
    #[error("error {0:?}")]
    Refused(ErrorFrame),
    /// The socket failed.
    #[error("socket: {0}")]
    Socket(String),
}

impl ClientError {
    /// The close code, if the server said one.
    #[must_use]
    pub fn close_code(&self) -> Option<u16> {
        match self {
            Self::Closed { code, .. } => *code,
            _ => None,
        }
    }
}

/// A local address to connect from, whose ports are taken one after the other.
///
/// With thousands of bound sockets the kernel's search for a free port takes milliseconds for each: a reconnect storm
/// would measure that. Going round, a port comes again only after all the others.
#[derive(Debug)]
pub struct Source {
    address: Ipv4Addr,
    next: AtomicU32,
}

impl Source {
    /// The address, from a random port on.
    #[must_use]
    pub fn new(address: Ipv4Addr) -> Self {
        Self { address, next: AtomicU32::new(rand::random()) }
    }

    fn next(&self) -> SocketAddr {
        let port = u32::from(PORTS.0) + self.next.fetch_add(1, Ordering::Relaxed) % u32::from(PORTS.1 - PORTS.0);
        SocketAddr::from((self.address, u16::try_from(port).unwrap_or(PORTS.0)))
    }
}

/// Where to connect, as whom, and with which buffers.
#[derive(Debug, Clone)]
pub struct Target {
    url: String,
    address: SocketAddr,
    token: String,
    encoding: Encoding,
    read_buffer: usize,
    receive_buffer: Option<u32>,
    source: Option<Arc<Source>>,
    tls: Option<Tls>,
}

impl Target {
    /// A target on `ws://address:port/path`, or on `wss://` by Mozilla's authorities. The name is resolved here, once.
    ///
    /// # Errors
    /// When the address is not of this form or the name is not known.
    pub async fn resolve(url: &str) -> Result<Self, ClientError> {
        Self::resolve_by(url, &Authority::default()).await
    }

    /// The same, whose certificate must be of these authorities.
    ///
    /// # Errors
    /// When the address is not of this form, the name is not known, or no certificate could be for it.
    pub async fn resolve_by(url: &str, authority: &Authority) -> Result<Self, ClientError> {
        let bad = || ClientError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().ok_or_else(bad)?.to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("ws") => (None, 80),
            Some("wss") => (Some(Tls::new(authority, &host)?), 443),
            _ => return Err(bad()),
        };
        let mut found = tokio::net::lookup_host((host, uri.port_u16().unwrap_or(port))).await.map_err(|_| bad())?;
        let address = found.next().ok_or_else(bad)?;
        Ok(Self {
            url: url.to_owned(),
            address,
            token: String::new(),
            encoding: Encoding::default(),
            read_buffer: READ_BUFFER,
            receive_buffer: None,
            source: None,
            tls,
        })
    }

    /// The same place with this user's token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: token.to_owned(), ..self.clone() }
    }

    /// The same place, its frames in this encoding.
    #[must_use]
    pub fn with_encoding(self, encoding: Encoding) -> Self {
        Self { encoding, ..self }
    }

    /// The same place, reading this many bytes at once.
    #[must_use]
    pub fn with_read_buffer(self, bytes: usize) -> Self {
        Self { read_buffer: bytes, ..self }
    }

    /// The same place from a local address with its own ports; `None`: the kernel chooses.
    #[must_use]
    pub fn from_source(self, source: Option<Arc<Source>>) -> Self {
        Self { source, ..self }
    }

    /// Whether it is on this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// The host of the url, as it was written.
    #[must_use]
    pub fn host(&self) -> String {
        let authority = self.authority();
        authority.rsplit_once(':').map_or_else(|| authority.clone(), |(host, _)| host.to_owned())
    }

    /// Host and port of the url, as they were written.
    #[must_use]
    pub fn authority(&self) -> String {
        let behind = self.url.split_once("://").map_or(self.url.as_str(), |(_, behind)| behind);
        behind.split('/').next().unwrap_or_default().to_owned()
    }

    /// Connects, over TLS if the url says so.
    pub(crate) async fn dial(&self) -> Result<Wire, ClientError> {
        let stream = dial(self).await.map_err(lost)?;
        stream.set_nodelay(true).map_err(lost)?;
        match &self.tls {
            None => Ok(Wire::Left(stream)),
            Some(tls) => tls.over(stream).await,
        }
    }

    /// The same place with this `SO_RCVBUF`.
    #[must_use]
    pub fn with_receive_buffer(self, bytes: u32) -> Self {
        Self { receive_buffer: Some(bytes), ..self }
    }
}

/// A connection that has been upgraded.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<Wire>,
    encoding: Encoding,
}

impl Client {
    /// Connects and upgrades, with the token in the `Authorization` header.
    ///
    /// # Errors
    /// When the server cannot be reached, refuses, or takes too long.
    pub async fn connect(target: &Target) -> Result<Self, ClientError> {
        tokio::time::timeout(HANDSHAKE_DEADLINE, Self::upgrade(target)).await.map_err(|_| ClientError::Deadline)?
    }

    async fn upgrade(target: &Target) -> Result<Self, ClientError> {
        let stream = target.dial().await?;
        let mut request = target.url.as_str().into_client_request().map_err(failed)?;
        let bearer = HeaderValue::from_str(&format!("Bearer {}", target.token));
        let bearer = bearer.map_err(|_| ClientError::Contract("a token that is no header value".to_owned()))?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let protocol = HeaderValue::from_static(target.encoding.subprotocol());
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
        let config = WebSocketConfig::default()
            .read_buffer_size(target.read_buffer)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(WRITE_BUFFER_MAX)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let (socket, _) =
            Box::pin(tokio_tungstenite::client_async_with_config(request, stream, Some(config))).await.map_err(failed)?;
        Ok(Self { socket, encoding: target.encoding })
    }

    /// Says hello and waits for the welcome.
    ///
    /// # Errors
    /// When the server answers with anything else, or the connection breaks.
    pub async fn hello(&mut self, hello: Hello<'_>) -> Result<Welcome, ClientError> {
        self.write(&ClientFrame::Hello(hello)).await?;
        match self.next().await? {
            ServerFrame::Welcome(welcome) => Ok(welcome),
            ServerFrame::Error(error) => Err(ClientError::Refused(error)),
            other => Err(ClientError::Contract(format!("{other:?} where a welcome was due"))),
        }
    }

    /// The next frame. Safe to cancel. Pings are answered on the way.
    ///
    /// # Errors
    /// When the connection ends or the frame is not in the contract.
    pub async fn next(&mut self) -> Result<ServerFrame, ClientError> {
        loop {
            match self.socket.next().await {
                Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => {
                    if message.is_text() != (self.encoding == Encoding::Json) {
                        return Err(ClientError::Contract(format!("in {}: {message:?}", self.encoding.name())));
                    }
                    return self.encoding.read(&message.into_data()).map_err(ClientError::Contract);
                }
                Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Err(failed(error)),
                None => return Err(closed(None)),
            }
        }
    }

    /// Writes one frame and flushes it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn write(&mut self, frame: &ClientFrame<'_>) -> Result<(), ClientError> {
        self.feed(frame).await?;
        self.flush().await
    }

    /// Writes one frame into the buffer; [`Client::flush`] brings it out.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn feed(&mut self, frame: &ClientFrame<'_>) -> Result<(), ClientError> {
        let bytes = self.encoding.write(frame).map_err(ClientError::Contract)?;
        let message = match self.encoding {
            Encoding::Json => {
                Message::Text(Utf8Bytes::try_from(bytes).map_err(|error| ClientError::Contract(error.to_string()))?)
            }
            Encoding::Proto => Message::binary(bytes),
        };
        self.socket.feed(message).await.map_err(failed)
    }

    /// Brings out what was fed.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        self.socket.flush().await.map_err(failed)
    }

    /// Feeds one text message; [`Client::flush`] brings it out.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn feed_text(&mut self, id: Uuid, to: &str, text: &str) -> Result<(), ClientError> {
        self.feed(&ClientFrame::Send(Send { id, to, kind: "text", body: Body { text } })).await
    }

    /// Acknowledges every event up to `seq`.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn received(&mut self, seq: u64) -> Result<(), ClientError> {
        self.write(&ClientFrame::Received { seq }).await
    }

    /// Reads one page of a conversation; other frames that come meanwhile are dropped.
    ///
    /// # Errors
    /// When the server refuses or the connection is gone.
    pub async fn history(&mut self, conversation: &str, before: Option<&str>) -> Result<Page, ClientError> {
        self.write(&ClientFrame::History { conversation, before, limit: 100 }).await?;
        loop {
            match self.next().await? {
                ServerFrame::Page(page) => return Ok(page),
                ServerFrame::Error(error) => return Err(ClientError::Refused(error)),
                _ => {}
            }
        }
    }

    /// Cuts the connection off without a word, and without leaving its port waiting: a storm needs it again at once.
    pub fn cut(self) {
        // If it cannot be set the port waits; the connection is gone all the same.
        let _ = match self.socket.get_ref() {
            Wire::Left(stream) => stream.set_zero_linger(),
            Wire::Right(stream) => stream.get_ref().0.set_zero_linger(),
        };
    }

    /// Says goodbye with code 1000 and waits shortly for the answer.
    pub async fn close(mut self) {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        if self.socket.close(Some(goodbye)).await.is_ok() {
            let answer = async { while let Some(Ok(_)) = self.socket.next().await {} };
            // The server may be gone already: waiting longer would tell nothing.
            let _ = tokio::time::timeout(Duration::from_secs(1), answer).await;
        }
    }
}

/// Connects; from a source address, by its next port that is free.
async fn dial(target: &Target) -> std::io::Result<TcpStream> {
    let mut tries = 0;
    loop {
        tries += 1;
        let socket = if target.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = target.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        let Some(source) = target.source.as_ref().filter(|_| target.address.is_ipv4()) else {
            return socket.connect(target.address).await;
        };
        // A port that waits after a close may be used again.
        socket.set_reuseaddr(true)?;
        let connected = match socket.bind(source.next()) {
            Ok(()) => socket.connect(target.address).await,
            Err(error) => Err(error),
        };
        match connected {
            Err(error) if tries < PORT_TRIES && matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::AddrNotAvailable) => {}
            connected => return connected,
        }
    }
}

fn closed(frame: Option<CloseFrame>) -> ClientError {
    match frame {
        Some(frame) => ClientError::Closed { code: Some(frame.code.into()), reason: frame.reason.to_string() },
        None => ClientError::Closed { code: None, reason: String::new() },
    }
}

fn lost(error: std::io::Error) -> ClientError {
    failed(tungstenite::Error::Io(error))
}

fn failed(error: tungstenite::Error) -> ClientError {
    match error {
        tungstenite::Error::Http(response) => refused(&response),
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => closed(None),
        other => ClientError::Socket(other.to_string()),
    }
}

fn refused(response: &Response<Option<Vec<u8>>>) -> ClientError {
    let seconds = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    ClientError::Http { status: response.status().as_u16(), retry_after: seconds.map(Duration::from_secs) }
}
