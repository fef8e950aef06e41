//! The relay on tokio-tungstenite, split into a sink and a stream, with buffers of 4 KiB.

use std::sync::Arc;

use futures_util::stream::SplitSink;
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::{Seats, WELCOME, accept, client_of};

type Writer = Mutex<SplitSink<WebSocketStream<TcpStream>, Message>>;

pub(super) async fn serve(listener: &TcpListener) -> anyhow::Result<()> {
    let seats = Seats::new();
    accept(listener, |stream| relay(stream, Arc::clone(&seats))).await
}

async fn relay(stream: TcpStream, seats: Arc<Seats<Writer>>) {
    let mut client = None;
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096).max_write_buffer_size(1 << 20);
    #[expect(clippy::result_large_err, reason = "the library's own signature")]
    let path = |request: &Request, answer: Response| -> Result<Response, ErrorResponse> {
        client = client_of(request.uri().path());
        Ok(answer)
    };
    let accepted = Box::pin(tokio_tungstenite::accept_hdr_async_with_config(stream, path, Some(config))).await;
    let (Ok(socket), Some(client)) = (accepted, client) else { return };
    let (writer, mut reader) = socket.split();
    let writer = Arc::new(Mutex::new(writer));
    seats.enter(client, &writer);
    if writer.lock().await.send(Message::binary(WELCOME)).await.is_ok() {
        while let Some(Ok(message)) = reader.next().await {
            if !matches!(message, Message::Text(_) | Message::Binary(_)) {
                continue;
            }
            if let Some(partner) = seats.partner(client) {
                // the partner's socket may have broken: that is not this one's
                drop(partner.lock().await.send(message).await);
            }
        }
    }
    seats.leave(client);
}
