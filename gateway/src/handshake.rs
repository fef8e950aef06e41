//! The upgrade (RFC 6455 section 4.2) and everything that can be wrong with it, answered in HTTP. What is right leaves as a connection task of
//! its own, so that nothing of HTTP stays in memory.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::body::Body;
use fastwebsockets::upgrade::{UpgradeFut, is_upgrade_request};
use hyper::body::Incoming;
use hyper::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, ORIGIN, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::{Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use protocol::CloseCode;
use protocol::codec::Encoding;
use tower::ServiceExt as _;

use crate::connection::{Client, Connection};
use crate::http::headers;
use crate::metrics;
use crate::node::Gateway;
use crate::stream::Stream;
use crate::token::Claims;

/// Longest request line that is looked at, bytes: beyond it 414.
const URI_BYTES_MAX: usize = 8 * 1024;
/// Sub-protocol entry that carries a token: browsers cannot set a header.
const BEARER_ENTRY: &str = "switchboard.bearer.";
const KEY: &str = "sec-websocket-key";
const VERSION: &str = "sec-websocket-version";
const PROTOCOL: &str = "sec-websocket-protocol";
/// Seconds after which a refused upgrade may be tried again.
const RETRY_S: u64 = 1;

/// The address a request is from ([`crate::forwarded`]), in the extensions of every request.
#[derive(Debug, Clone, Copy)]
pub struct ClientAddress(pub IpAddr);

/// Why there is no upgrade.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) why: &'static str,
    header: Option<(&'static str, HeaderValue)>,
}

const fn no(status: StatusCode, why: &'static str) -> Refusal {
    Refusal { status, why, header: None }
}

fn later(status: StatusCode, why: &'static str) -> Refusal {
    Refusal { status, why, header: Some((RETRY_AFTER.as_str(), HeaderValue::from(RETRY_S))) }
}

/// One request, answered with the headers that every answer has.
pub(crate) async fn route(
    request: Request<Incoming>,
    peer: SocketAddr,
    node: &Arc<Gateway>,
    routes: Router,
) -> Result<Response<Body>, std::convert::Infallible> {
    let hsts = headers::hsts(request.headers(), &node.config);
    let mut response = answer(request, peer, node, routes).await?;
    headers::secure(&mut response, hsts);
    Ok(response)
}

/// The socket path here, everything else to the HTTP routes.
async fn answer(
    request: Request<Incoming>,
    peer: SocketAddr,
    node: &Arc<Gateway>,
    routes: Router,
) -> Result<Response<Body>, std::convert::Infallible> {
    let address = node.config.trusted_proxies.client(peer.ip(), request.headers());
    let refused = match common(&request) {
        Err(refusal) => Err(refusal),
        Ok(()) if request.uri().path() == "/ws" && node.config.sockets => upgrade(request, address, node),
        #[cfg(feature = "echo")]
        Ok(()) if request.uri().path() == "/echo" => echo(request),
        Ok(()) => {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(ClientAddress(address));
            return routes.oneshot(request).await.map(last_of_its_connection);
        }
    };
    Ok(refused.unwrap_or_else(|refusal| {
        metrics::rejected(refusal.status.as_u16());
        tracing::debug!(status = refusal.status.as_u16(), why = refusal.why, "request refused");
        let mut response = Response::new(Body::from(format!("{}\n", refusal.why)));
        *response.status_mut() = refusal.status;
        if let Some((name, value)) = refusal.header {
            response.headers_mut().insert(name, value);
        }
        last_of_its_connection(response)
    }))
}

/// One request a connection: idle ones would hold descriptors. (An upgrade must not say so: clients want `Connection: Upgrade` alone.)
fn last_of_its_connection(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What no request may be.
fn common<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.uri().path_and_query().map_or(0, |uri| uri.as_str().len()) > URI_BYTES_MAX {
        return Err(no(StatusCode::URI_TOO_LONG, "the request line is too long"));
    }
    if request.version() == Version::HTTP_11 && only(headers, HOST.as_str()).is_none() {
        return Err(no(StatusCode::BAD_REQUEST, "one Host"));
    }
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    if lengths > 1 || (lengths == 1 && headers.contains_key(TRANSFER_ENCODING)) {
        return Err(no(StatusCode::BAD_REQUEST, "ambiguous body length"));
    }
    Ok(())
}

/// What a good upgrade asks for.
struct Wish {
    encoding: Encoding,
    /// Whether sub-protocols were offered, so that one is named in the answer.
    offered: bool,
    /// Of the token, if there is one. An error: the one in a sub-protocol entry is no good.
    claims: Result<Option<Claims>, ()>,
}

/// Everything that can be wrong with an upgrade, from the request alone.
fn judge<B>(request: &Request<B>, node: &Gateway) -> Result<Wish, Refusal> {
    if request.method() != Method::GET {
        let header = Some(("allow", HeaderValue::from_static("GET")));
        return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, why: "the socket path takes GET", header });
    }
    no_token_in_url(request.uri().query().unwrap_or_default())?;
    let headers = request.headers();
    check_upgrade(request)?;
    let (encoding, bearer) = subprotocol(headers)?;
    check_origin(headers, node)?;
    let claims = token(headers, bearer.as_deref(), node)?;
    Ok(Wish { encoding, offered: headers.contains_key(PROTOCOL), claims })
}

/// For the fuzz target: the claims of a request that would be let in, or the status of its refusal.
#[cfg(feature = "fuzz")]
pub(crate) fn judged<B>(request: &Request<B>, node: &Gateway) -> Result<Option<Claims>, u16> {
    let wish = common(request).and_then(|()| judge(request, node));
    wish.map(|wish| wish.claims.ok().flatten()).map_err(|refusal| refusal.status.as_u16())
}

fn upgrade(mut request: Request<Incoming>, address: IpAddr, node: &Arc<Gateway>) -> Result<Response<Body>, Refusal> {
    let Wish { encoding, offered, claims } = judge(&request, node)?;
    let (mut response, upgraded) = shake(&mut request)?;
    admit(address, node)?;
    if offered {
        response.headers_mut().insert(PROTOCOL, HeaderValue::from_static(encoding.subprotocol()));
    }
    metrics::upgraded(encoding);
    let bad = claims.is_err();
    let mut client = Client::new(Arc::clone(node), address, encoding, claims.ok().flatten().map(Box::new));
    if bad {
        // a browser is not told the status of a failed handshake, so it gets a close code
        client.close_with(CloseCode::Unauthenticated);
    }
    let max = node.config.limits.frame_bytes;
    tokio::spawn(async move {
        if let Some((stream, early)) = taken(upgraded).await {
            tokio::spawn(Connection::new(stream, client, max, early));
        }
    });
    Ok(response)
}

fn shake<B>(request: &mut Request<B>) -> Result<(Response<Body>, UpgradeFut), Refusal> {
    let (response, upgraded) =
        fastwebsockets::upgrade::upgrade(request).map_err(|_| no(StatusCode::BAD_REQUEST, "not a WebSocket handshake"))?;
    Ok((response.map(|_| Body::empty()), upgraded))
}

/// The stream itself, out of hyper's hands, and what the client has sent already.
async fn taken(upgraded: UpgradeFut) -> Option<(Stream, Vec<u8>)> {
    let upgraded = upgraded.await.ok()?.into_inner().into_inner();
    let parts = upgraded.downcast::<TokioIo<Stream>>().ok()?;
    Some((parts.io.into_inner(), parts.read_buf.to_vec()))
}

/// The conformance tests' echo, over the same connection code.
#[cfg(feature = "echo")]
fn echo(mut request: Request<Incoming>) -> Result<Response<Body>, Refusal> {
    use crate::connection::echo::{Echo, MESSAGE_BYTES_MAX};
    check_upgrade(&request)?;
    let (response, upgraded) = shake(&mut request)?;
    tokio::spawn(async move {
        if let Some((stream, early)) = taken(upgraded).await {
            Connection::new(stream, Echo, MESSAGE_BYTES_MAX, early).await;
        }
    });
    Ok(response)
}

/// A token in a URL ends in logs. It is refused so that nobody gets used to it; its value is not logged here.
fn no_token_in_url(query: &str) -> Result<(), Refusal> {
    if is_token_in(query) {
        return Err(no(
            StatusCode::BAD_REQUEST,
            "no token in the URL: send it in a header, a sub-protocol entry or the first frame",
        ));
    }
    Ok(())
}

/// Whether a query seems to have a token in it, by a name or by its look.
pub(crate) fn is_token_in(query: &str) -> bool {
    let suspicious = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        const NAMES: [&str; 7] = ["token", "access_token", "refresh_token", "authorization", "bearer", "jwt", "auth"];
        NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)) || value.starts_with("eyJ")
    };
    query.split('&').any(suspicious)
}

/// The headers of RFC 6455 section 4.2.1.
fn check_upgrade<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.version() != Version::HTTP_11 {
        return Err(no(StatusCode::BAD_REQUEST, "an upgrade is HTTP/1.1"));
    }
    let body = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0") || headers.contains_key(TRANSFER_ENCODING);
    if body {
        return Err(no(StatusCode::BAD_REQUEST, "an upgrade has no body"));
    }
    if !is_upgrade_request(request) {
        let header = Some(("upgrade", HeaderValue::from_static("websocket")));
        return Err(Refusal { status: StatusCode::UPGRADE_REQUIRED, why: "this path speaks WebSocket", header });
    }
    if only(headers, VERSION) != Some("13") {
        let header = Some((VERSION, HeaderValue::from_static("13")));
        return Err(Refusal { status: StatusCode::UPGRADE_REQUIRED, why: "WebSocket version 13", header });
    }
    let sixteen_bytes = |key: &str| {
        let data = key.strip_suffix("==").unwrap_or_default();
        data.len() == 22 && data.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
    };
    if !only(headers, KEY).is_some_and(sixteen_bytes) {
        return Err(no(StatusCode::BAD_REQUEST, "one Sec-WebSocket-Key of 16 bytes in base64"));
    }
    Ok(())
}

/// The value of a header that stands exactly once.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?;
    values.next().is_none().then(|| first.to_str().ok()).flatten()
}

/// The encoding and, beside it, a browser's token.
fn subprotocol(headers: &HeaderMap) -> Result<(Encoding, Option<String>), Refusal> {
    let mut offered = false;
    let (mut encoding, mut bearer) = (None, None);
    for value in headers.get_all(PROTOCOL) {
        let entries = value.to_str().map_err(|_| no(StatusCode::BAD_REQUEST, "unreadable sub-protocol"))?;
        for entry in entries.split(',').map(str::trim) {
            offered = true;
            if let Some(known) = Encoding::of_subprotocol(entry) {
                // the client's first choice
                encoding.get_or_insert(known);
            } else if let Some(token) = entry.strip_prefix(BEARER_ENTRY) {
                bearer = Some(token.to_owned());
            }
        }
    }
    match encoding {
        Some(encoding) => Ok((encoding, bearer)),
        None if offered => Err(no(StatusCode::BAD_REQUEST, "the sub-protocol is switchboard.v1.json or switchboard.v1.proto")),
        None => Ok((Encoding::default(), None)),
    }
}

/// Exactly an allowed origin, or none (no browser). In development mode also the page's own, on a loopback name.
fn check_origin(headers: &HeaderMap, node: &Gateway) -> Result<(), Refusal> {
    if !headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let origin = only(headers, ORIGIN.as_str()).unwrap_or_default();
    let own = || {
        let host = only(headers, HOST.as_str()).unwrap_or_default();
        node.config.dev && crate::http::is_loopback_host(host) && node.config.is_own_origin(origin, host)
    };
    if node.config.origins.iter().any(|allowed| allowed == origin) || own() {
        return Ok(());
    }
    Err(no(StatusCode::FORBIDDEN, "origin not allowed"))
}

/// The token of the handshake. In a header it must be good; in a sub-protocol entry a bad one is `Ok(Err)` and answered by a close code.
fn token(headers: &HeaderMap, bearer: Option<&str>, node: &Gateway) -> Result<Result<Option<Claims>, ()>, Refusal> {
    if headers.contains_key(AUTHORIZATION) {
        let unauthorized = || Refusal {
            status: StatusCode::UNAUTHORIZED,
            why: "the token is not valid",
            header: Some(("www-authenticate", HeaderValue::from_static("Bearer"))),
        };
        let token = bearer_in(headers).ok_or_else(unauthorized)?;
        return node.tokens.verify(token).map(|claims| Ok(Some(claims))).map_err(|_| unauthorized());
    }
    Ok(bearer.map(|token| node.tokens.verify(token).map_err(|_| ())).transpose())
}

/// The credential of the one `Authorization` header.
pub(crate) fn bearer_in(headers: &HeaderMap) -> Option<&str> {
    only(headers, AUTHORIZATION.as_str()).and_then(bearer_of)
}

/// The credential of the scheme `Bearer`, whose name has no case (RFC 9110 section 11.1).
fn bearer_of(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Room for one more socket, or stream. It is taken: a [`Client`] gives it back.
pub(crate) fn admit(address: IpAddr, node: &Gateway) -> Result<(), Refusal> {
    if node.is_draining() {
        return Err(later(StatusCode::SERVICE_UNAVAILABLE, "draining"));
    }
    if !node.limiter.handshake_of(address) {
        return Err(later(StatusCode::TOO_MANY_REQUESTS, "too many handshakes of this address at once"));
    }
    if !node.limiter.handshake() {
        return Err(later(StatusCode::SERVICE_UNAVAILABLE, "too many handshakes at once"));
    }
    if !node.limiter.socket(address) {
        return Err(later(StatusCode::TOO_MANY_REQUESTS, "too many sockets of this address"));
    }
    if node.sockets.fetch_add(1, Ordering::Relaxed) >= node.config.sockets_max {
        node.sockets.fetch_sub(1, Ordering::Relaxed);
        node.limiter.socket_gone(address);
        return Err(later(StatusCode::SERVICE_UNAVAILABLE, "the node is full"));
    }
    Ok(())
}
