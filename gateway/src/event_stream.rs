//! From a request of HTTP to a stream of server-sent events. The handler makes the client and answers as ever; here the answer is taken out of HTTP's
//! hands together with the socket, its head is written, and its body is a [`Connection`] like any other: the same task, the same memory, the same
//! deadlines. The body ends with the connection (RFC 9112 section 6.3), so it needs no chunks and passes proxies that speak HTTP/1.0.

use std::sync::Arc;

use axum::body::Body;
use hyper::Response;
use hyper::header::{CONNECTION, CONTENT_LENGTH, DATE, HeaderValue};
use parking_lot::Mutex;

use crate::connection::{Client, Connection};
use crate::stream::Stream;

/// The client of an answer that becomes a stream, in the answer's extensions.
#[derive(Clone)]
pub(crate) struct Streams(Arc<Mutex<Option<Box<Client>>>>);

impl Streams {
    /// Marks an answer.
    pub(crate) fn new(client: Client) -> Self {
        Self(Arc::new(Mutex::new(Some(Box::new(client)))))
    }
}

/// An answer that leaves HTTP.
pub(crate) struct Leaving {
    head: Vec<u8>,
    client: Box<Client>,
}

impl Leaving {
    /// Of an answer that was marked; any other is given back.
    pub(crate) fn of(mut response: Response<Body>) -> Result<Self, Box<Response<Body>>> {
        let Some(Streams(client)) = response.extensions_mut().remove() else { return Err(response.into()) };
        let client = client.lock().take();
        client.map(|client| Self { head: head(response), client }).ok_or_else(|| Response::new(Body::empty()).into())
    }

    /// Writes and serves until it ends. `early`: bytes the client sent behind its request.
    pub(crate) fn into_connection(self, stream: Stream, early: Vec<u8>) -> Connection<Stream, Client> {
        Connection::behind(self.head, stream, *self.client, 0, early)
    }
}

/// The head of an answer as it stands on the line.
fn head(mut response: Response<Body>) -> Vec<u8> {
    let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let headers = response.headers_mut();
    headers.extend(HeaderValue::try_from(now).ok().map(|now| (DATE, now)));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    // of the empty body that it had before
    headers.remove(CONTENT_LENGTH);
    let mut head = format!("HTTP/1.1 {}\r\n", response.status()).into_bytes();
    for (name, value) in response.headers() {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}
