//! The WebSocket: frames in, frames out, and why it ended.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, header};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as Failure, Message};

use crate::core::Loss;
use crate::error::Error;
use crate::frame::{ClientFrame, SUBPROTOCOL, ServerFrame};
use crate::wire::{Place, Wire};

/// The handshake must be over by then.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(20);
/// A frame must be written by then.
const WRITE_DEADLINE: Duration = Duration::from_secs(20);
/// The other end may take this long to say goodbye.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(2);
/// Longest frame that is taken, bytes: a page of full texts, escaped.
const MESSAGE_MAX: usize = 4 << 20;

/// An open connection.
pub(crate) struct Socket(WebSocketStream<Wire>);

impl From<Error> for Loss {
    fn from(error: Error) -> Self {
        match error {
            Error::Untrusted(why) => Self::Untrusted(why),
            Error::Refused { status, retry_after_ms, .. } => Self::Http { status, retry_after_ms },
            other => Self::Broken(other.to_string()),
        }
    }
}

fn lost(failure: Failure) -> Loss {
    match failure {
        Failure::Http(answer) => {
            let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            Loss::Http { status: answer.status().as_u16(), retry_after_ms: seconds.unwrap_or(0).min(3600) * 1000 }
        }
        Failure::ConnectionClosed | Failure::AlreadyClosed => Loss::Closed(None),
        other => Loss::Broken(other.to_string()),
    }
}

impl Socket {
    /// Connects and upgrades; the token is in the header.
    pub(crate) async fn open(place: &Place, token: &str) -> Result<Self, Loss> {
        let late = |_| Loss::Broken("no handshake in time".into());
        tokio::time::timeout(HANDSHAKE_DEADLINE, Box::pin(Self::upgrade(place, token))).await.map_err(late)?
    }

    async fn upgrade(place: &Place, token: &str) -> Result<Self, Loss> {
        let (wire, _) = place.dial().await?;
        // TLS, if any, is in the wire already; the scheme is only read for its port
        let url = format!("ws://{}{}", place.authority(), place.path("/ws"));
        let mut request = url.into_client_request().map_err(lost)?;
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| Loss::SignedOut)?;
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        let config = WebSocketConfig::default()
            .read_buffer_size(16 * 1024)
            .write_buffer_size(0)
            .max_write_buffer_size(1 << 20)
            .max_message_size(Some(MESSAGE_MAX))
            .max_frame_size(Some(MESSAGE_MAX));
        let opened = tokio_tungstenite::client_async_with_config(request, wire, Some(config)).await;
        Ok(Self(opened.map_err(lost)?.0))
    }

    /// What comes next; nothing: it lives (a ping, or a frame this client does not understand). Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Option<ServerFrame>, Loss> {
        match self.0.next().await {
            Some(Ok(Message::Text(text))) => Ok(serde_json::from_str(&text).ok()),
            Some(Ok(Message::Close(frame))) => Err(Loss::Closed(frame.map(|frame| u16::from(frame.code)))),
            Some(Ok(_)) => Ok(None),
            Some(Err(failure)) => Err(lost(failure)),
            None => Err(Loss::Closed(None)),
        }
    }

    /// Writes one frame and flushes it.
    pub(crate) async fn write(&mut self, frame: &ClientFrame) -> Result<(), Loss> {
        let text = serde_json::to_string(frame).map_err(|why| Loss::Broken(why.to_string()))?;
        let written = tokio::time::timeout(WRITE_DEADLINE, self.0.send(Message::text(text))).await;
        written.map_err(|_| Loss::Broken("the server takes no data".into()))?.map_err(lost)
    }

    /// Says goodbye (1000), and waits shortly for the answer: so what was written has been read.
    pub(crate) async fn close(mut self) {
        let goodbye = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        let closed = async {
            if self.0.close(Some(goodbye)).await.is_ok() {
                while let Some(Ok(_)) = self.0.next().await {}
            }
        };
        // it may be gone already: waiting longer would tell nothing
        let _ = tokio::time::timeout(GOODBYE_DEADLINE, closed).await;
    }
}
