//! The relay on fastwebsockets: hyper's handshake, its reader, and a frame written into one buffer, with one system call.

use std::convert::Infallible;
use std::sync::Arc;

use fastwebsockets::{Frame, OpCode, Payload, Role, WebSocket};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

use super::{Seats, WELCOME, accept, client_of};

type Writer = Mutex<OwnedWriteHalf>;
type Body = String;

pub(super) async fn serve(listener: &TcpListener) -> anyhow::Result<()> {
    let seats = Seats::new();
    accept(listener, |stream| {
        let seats = Arc::clone(&seats);
        async move {
            let service = service_fn(move |request| {
                let answer = upgrade(request, &seats);
                async move { Ok::<_, Infallible>(answer) }
            });
            // who does not finish its handshake is no concern of a measurement
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await);
        }
    })
    .await
}

fn upgrade(mut request: Request<Incoming>, seats: &Arc<Seats<Writer>>) -> Response<Body> {
    let refused = || {
        let mut answer = Response::new(Body::new());
        *answer.status_mut() = StatusCode::BAD_REQUEST;
        answer
    };
    let Some(client) = client_of(request.uri().path()) else { return refused() };
    let Ok((answer, upgraded)) = fastwebsockets::upgrade::upgrade(&mut request) else { return refused() };
    let seats = Arc::clone(seats);
    tokio::spawn(async move {
        let Ok(socket) = upgraded.await else { return };
        let Ok(parts) = socket.into_inner().into_inner().downcast::<TokioIo<TcpStream>>() else { return };
        relay(parts.io.into_inner(), client, &seats).await;
    });
    answer.map(|_| Body::new())
}

async fn relay(stream: TcpStream, client: u64, seats: &Seats<Writer>) {
    let (reader, writer) = stream.into_split();
    let writer = Arc::new(Mutex::new(writer));
    seats.enter(client, &writer);
    if write(&writer, OpCode::Binary, WELCOME).await.is_ok() {
        // the reader answers nothing by itself, so what it would write goes nowhere
        let mut socket = WebSocket::after_handshake(tokio::io::join(reader, tokio::io::sink()), Role::Server);
        socket.set_auto_close(false);
        socket.set_auto_pong(false);
        while let Ok(frame) = socket.read_frame().await {
            let done = match frame.opcode {
                OpCode::Close => break,
                OpCode::Ping => write(&writer, OpCode::Pong, &frame.payload).await,
                OpCode::Pong => Ok(()),
                opcode => match seats.partner(client) {
                    // the partner's socket broke, not this one
                    Some(partner) => write(&partner, opcode, &frame.payload).await.or(Ok(())),
                    None => Ok(()),
                },
            };
            if done.is_err() {
                break;
            }
        }
    }
    seats.leave(client);
}

async fn write(writer: &Writer, opcode: OpCode, payload: &[u8]) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(payload.len() + 14);
    let mut frame = Frame::new(true, opcode, None, Payload::Borrowed(payload));
    let bytes = frame.write(&mut buffer);
    writer.lock().await.write_all(bytes).await
}
