//! What every answer of HTTP says to browsers, whoever made it: applied in one place, as the last thing before the wire
//! (`handshake::route`), so that no route can forget it. What a route has set itself stays.

use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};

use crate::config::Config;

/// A page of ours: its own scripts, styles, images and sockets, nothing of others, and in nobody's frame.
const OF_PAGES: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                        base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Anything else, should a browser show it as a page.
const OF_DATA: &str = "default-src 'none'; frame-ancestors 'none'";

const EVERYWHERE: [(HeaderName, &str); 6] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    // answers carry tokens, names and messages; what may be kept says so itself
    (header::CACHE_CONTROL, "no-store"),
];

/// What browsers are told about coming by HTTPS only: nothing over a plain port (RFC 6797 section 7.2), and nothing under a loopback name,
/// where it would bar every other server of the developer's machine.
pub(crate) fn hsts(request: &HeaderMap, config: &Config) -> Option<HeaderValue> {
    let max_age = config.tls.as_ref()?.hsts.as_secs();
    let host = request.get(header::HOST)?.to_str().ok()?;
    if max_age == 0 || super::is_loopback_host(host) {
        return None;
    }
    HeaderValue::try_from(format!("max-age={max_age}")).ok()
}

/// Completes an answer. The switch of protocols is none: nothing of it is shown.
pub(crate) fn secure(response: &mut Response<Body>, hsts: Option<HeaderValue>) {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let headers = response.headers_mut();
    let page = headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"));
    let policy = [(header::CONTENT_SECURITY_POLICY, if page { OF_PAGES } else { OF_DATA })];
    for (name, value) in EVERYWHERE.into_iter().chain(policy) {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if let Some(hsts) = hsts {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::TlsConfig;

    fn asked(host: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::HOST, HeaderValue::from_static(host))])
    }

    fn tls(hsts: Duration) -> Config {
        Config { tls: Some(TlsConfig { hsts, ..TlsConfig::default() }), ..Config::default() }
    }

    #[test]
    fn hsts_comes_over_tls_only_and_not_under_loopback_names() {
        let year = "max-age=31536000";
        let config = tls(TlsConfig::default().hsts);
        assert_eq!(hsts(&asked("chat.example.org"), &config).unwrap(), year);
        assert_eq!(hsts(&asked("localhost:8443"), &config), None);
        assert_eq!(hsts(&asked("chat.example.org"), &Config::default()), None);
        assert_eq!(hsts(&asked("chat.example.org"), &tls(Duration::ZERO)), None);
    }

    #[test]
    fn every_answer_is_completed_and_what_a_route_says_stays() {
        let mut data = Response::new(Body::empty());
        secure(&mut data, None);
        for (name, value) in EVERYWHERE {
            assert_eq!(data.headers()[&name], value);
        }
        assert_eq!(data.headers()[header::CONTENT_SECURITY_POLICY], OF_DATA);
        assert!(!data.headers().contains_key(header::STRICT_TRANSPORT_SECURITY));

        let mut page = Response::new(Body::empty());
        page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        page.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        secure(&mut page, Some(HeaderValue::from_static("max-age=1")));
        assert_eq!(page.headers()[header::CONTENT_SECURITY_POLICY], OF_PAGES);
        assert_eq!(page.headers()[header::CACHE_CONTROL], "no-cache");
        assert_eq!(page.headers()[header::STRICT_TRANSPORT_SECURITY], "max-age=1");
    }

    #[test]
    fn an_upgrade_stays_as_it_is() {
        let mut upgrade = Response::new(Body::empty());
        *upgrade.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        secure(&mut upgrade, Some(HeaderValue::from_static("max-age=1")));
        assert!(upgrade.headers().is_empty());
    }
}
