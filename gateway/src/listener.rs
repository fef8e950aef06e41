//! Accept: own loop with its own deadlines, because a request head must be complete within seconds of the accept, not of its first byte.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::error::Elapsed;

use crate::error::GatewayError;
use crate::event_stream::Leaving;
use crate::handshake;
use crate::metrics;
use crate::node::Gateway;
use crate::stream::Stream;
use crate::tls::Tls;

/// Longest request head, bytes: beyond it 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields: beyond it 431.
const HEADERS_MAX: usize = 100;
/// Connections waiting to be accepted.
const BACKLOG: i32 = 4096;
/// Unacknowledged data of a peer that is gone is given up after this.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);
/// Connections that speak HTTP at once; more wait to be accepted.
const HTTP_CONNECTIONS_MAX: usize = 4096;
/// After an accept that failed for want of something (descriptors).
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Binds the port.
///
/// # Errors
/// [`GatewayError::Listen`] names the address.
pub fn bind(address: SocketAddr) -> Result<TcpListener, GatewayError> {
    let listen = || {
        let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listen().map_err(|why| GatewayError::Listen { address, why })
}

/// Accepts until `shutdown` is done; with `tls` every connection must speak it. Connections outlive it; the drain ends them. A place is taken
/// before the accept, so that what is too much waits in the kernel.
pub async fn run(
    listener: TcpListener,
    node: Arc<Gateway>,
    routes: Router,
    tls: Option<Arc<Tls>>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX));
    let mut failing_since = None;
    tokio::pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut shutdown => return,
            next = next => next,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Some(since) = failing_since.take() {
                    tracing::info!(after = ?Instant::elapsed(&since), "accepting again");
                }
                let (node, routes, tls) = (Arc::clone(&node), routes.clone(), tls.clone());
                tokio::spawn(async move {
                    let accepted = Instant::now();
                    if let Some(stream) = greet(stream, tls.as_deref(), node.config.request_deadline).await {
                        serve(stream, accepted, peer, node, routes).await;
                    }
                    drop(place);
                });
            }
            Err(why) => {
                metrics::ended("accept_error");
                if failing_since.is_none() {
                    tracing::error!(%why, "accept fails");
                    failing_since = Some(Instant::now());
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// What HTTP is spoken over: the TCP connection as soon as there is a byte, and TLS over it. One deadline for both.
async fn greet(stream: TcpStream, tls: Option<&Tls>, deadline: Duration) -> Option<Stream> {
    let by = tokio::time::Instant::now() + deadline;
    let options = socket2::SockRef::from(&stream);
    let set = stream.set_nodelay(true).and_then(|()| options.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT)));
    if let Err(why) = set {
        tracing::debug!(%why, "socket options");
    }
    if !matches!(tokio::time::timeout_at(by, stream.readable()).await, Ok(Ok(()))) {
        metrics::ended("no_request");
        return None;
    }
    let Some(tls) = tls else { return Some(Stream::Plain(stream)) };
    match tokio::time::timeout_at(by, Box::pin(tls.accept(stream))).await {
        Ok(Ok(Some(stream))) => return Some(stream),
        Ok(Ok(None)) => metrics::ended("tls_missing"),
        Ok(Err(why)) => {
            tracing::debug!(%why, "TLS handshake failed");
            metrics::ended("tls_error");
        }
        Err(_) => metrics::ended("tls_deadline"),
    }
    None
}

/// One connection as long as it speaks HTTP: one request, under a deadline for all of it. An upgrade takes the stream away from here, and so does an
/// answer that becomes a stream of events.
async fn serve(stream: Stream, accepted: Instant, peer: SocketAddr, node: Arc<Gateway>, routes: Router) {
    let deadline = node.config.request_deadline;
    let (leave, mut leaving) = mpsc::channel(1);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let answer = handshake::route(request, peer, &node, routes.clone());
        let leave = leave.clone();
        async move {
            match Leaving::of(answer.await?) {
                Err(response) => Ok(*response),
                Ok(leaves) => {
                    let _ = leave.try_send(leaves);
                    // HTTP is left without an answer of its own
                    std::future::pending::<Result<_, Infallible>>().await
                }
            }
        }
    });
    let mut served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(deadline.saturating_sub(accepted.elapsed()).max(Duration::from_millis(1)))
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let leaves = tokio::select! {
        served = tokio::time::timeout(deadline * 2, &mut served) => return ended(served),
        Some(leaves) = leaving.recv() => leaves,
    };
    if let Some(parts) = served.into_parts() {
        tokio::spawn(leaves.into_connection(parts.io.into_inner(), parts.read_buf.to_vec()));
    }
}

/// Counts how a connection of HTTP has ended, if not well.
fn ended(served: Result<hyper::Result<()>, Elapsed>) {
    match served {
        Ok(Ok(())) => {}
        Ok(Err(why)) => {
            tracing::debug!(%why, "HTTP connection ended");
            metrics::ended("http_error");
        }
        Err(_) => metrics::ended("http_deadline"),
    }
}
