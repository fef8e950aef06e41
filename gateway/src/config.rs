//! What a gateway can be told, with defaults. Time limits that must nest are checked here, before a port opens.

use std::path::PathBuf;
use std::time::Duration;

use protocol::limits::Limits;
use serde::{Deserialize, Deserializer};

use crate::forwarded::TrustedProxies;

/// Settings of one gateway: the section `[gateway]` of the configuration, and what stands elsewhere in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Limits told to clients; a section of its own.
    #[serde(skip)]
    pub limits: Limits,
    /// Ping interval; a peer silent for two of them is dead.
    #[serde(deserialize_with = "duration")]
    pub heartbeat: Duration,
    /// From accept to a complete request head.
    #[serde(deserialize_with = "duration")]
    pub request_deadline: Duration,
    /// From upgrade to a good `hello`.
    #[serde(deserialize_with = "duration")]
    pub hello_deadline: Duration,
    /// How long a socket may take no data.
    #[serde(deserialize_with = "duration")]
    pub stall_deadline: Duration,
    /// How long a send may be without report before its sender is told so.
    #[serde(deserialize_with = "duration")]
    pub report_deadline: Duration,
    /// How long an expired token still serves.
    #[serde(deserialize_with = "duration")]
    pub token_grace: Duration,
    /// Sockets in all.
    pub sockets_max: usize,
    /// Sockets of one address.
    pub sockets_per_ip: u32,
    /// Sockets of one user.
    pub sockets_per_user: usize,
    /// Upgrades a second, and at once.
    pub handshakes_per_s: u32,
    /// Upgrades of one address a second; twice as many at once.
    pub handshakes_per_ip: u32,
    /// Requests of the HTTP API by one address a second; twice as many at once.
    pub requests_per_address: u32,
    /// Requests of the HTTP API by one user a second; twice as many at once.
    pub requests_per_user: u32,
    /// Proxies whose `X-Forwarded-For` is believed, so that limits by address count clients and not them.
    pub trusted_proxies: TrustedProxies,
    /// Origins that browsers may come from, exactly as they send them. In development mode the page's own origin too.
    pub origins: Vec<String>,
    /// Certificate and key: with them the port speaks TLS, without them it is plain.
    pub tls: Option<TlsConfig>,
    /// What this node is called, for people and for its canaries' devices; unique in a cluster.
    #[serde(skip)]
    pub name: String,
    /// Canaries: each goes through a mailbox of its own.
    #[serde(skip)]
    pub canaries: u16,
    /// Whether clients are served: false in a process that only routes or stores.
    #[serde(skip)]
    pub sockets: bool,
    /// Development mode: tokens for the asking, on a loopback address only.
    #[serde(skip)]
    pub dev: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            heartbeat: Duration::from_secs(30),
            request_deadline: Duration::from_secs(5),
            hello_deadline: Duration::from_secs(10),
            stall_deadline: Duration::from_secs(20),
            report_deadline: Duration::from_secs(5),
            token_grace: Duration::from_secs(60),
            sockets_max: 100_000,
            sockets_per_ip: 20_000,
            sockets_per_user: 32,
            handshakes_per_s: 20_000,
            handshakes_per_ip: 5_000,
            requests_per_address: 100,
            requests_per_user: 30,
            trusted_proxies: TrustedProxies::default(),
            origins: Vec::new(),
            tls: None,
            name: String::new(),
            canaries: 1,
            sockets: true,
            dev: false,
        }
    }
}

impl Config {
    /// What is wrong, by key, or nothing.
    ///
    /// # Errors
    /// The key and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        self.limits.check()?;
        let need = |good: bool, key, what: &str| if good { Ok(()) } else { Err((key, what.to_owned())) };
        let whole = |time: Duration| time.as_secs() >= 1 && time.subsec_nanos() == 0;
        need(whole(self.heartbeat) && self.heartbeat.as_secs() <= 60, "gateway.heartbeat", "whole seconds from 1s to 60s")?;
        need(self.stall_deadline < self.heartbeat * 2, "gateway.stall_deadline", "below two heartbeats")?;
        need(whole(self.stall_deadline), "gateway.stall_deadline", "whole seconds from 1s")?;
        need(whole(self.hello_deadline), "gateway.hello_deadline", "whole seconds from 1s")?;
        need(whole(self.report_deadline), "gateway.report_deadline", "whole seconds from 1s")?;
        need(self.sockets_max > 0, "gateway.sockets_max", "at least 1")?;
        need(self.sockets_per_ip > 0, "gateway.sockets_per_ip", "at least 1")?;
        need(self.sockets_per_user > 0, "gateway.sockets_per_user", "at least 1")?;
        need(self.handshakes_per_s > 0, "gateway.handshakes_per_s", "at least 1")?;
        need(self.handshakes_per_ip > 0, "gateway.handshakes_per_ip", "at least 1")?;
        need(self.requests_per_address > 0, "gateway.requests_per_address", "at least 1")?;
        need(self.requests_per_user > 0, "gateway.requests_per_user", "at least 1")?;
        let as_sent =
            "origins as browsers send them: https://chat.example.org, in small letters, without a path and without the port 443";
        need(self.origins.iter().all(|origin| is_as_sent(origin)), "gateway.origins", as_sent)?;
        let Some(tls) = &self.tls else { return Ok(()) };
        need(!tls.certificate.as_os_str().is_empty(), "gateway.tls.certificate", "a file: the certificate of gateway.tls.key")?;
        need(!tls.key.as_os_str().is_empty(), "gateway.tls.key", "a file: the key of gateway.tls.certificate")
    }

    /// Whether an origin is that of our own page under this `Host`.
    pub(crate) fn is_own_origin(&self, origin: &str, host: &str) -> bool {
        let scheme = if self.tls.is_some() { "https://" } else { "http://" };
        origin.strip_prefix(scheme) == Some(host)
    }
}

/// Certificate and key of the listener: the section `[gateway.tls]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// Certificate chain in PEM, the server's own first.
    pub certificate: PathBuf,
    /// Its private key in PEM, not encrypted.
    pub key: PathBuf,
    /// How long browsers shall come by HTTPS only; zero: they are not told to.
    #[serde(deserialize_with = "duration")]
    pub hsts: Duration,
}

impl Default for TlsConfig {
    fn default() -> Self {
        Self { certificate: PathBuf::new(), key: PathBuf::new(), hsts: Duration::from_secs(365 * 24 * 3600) }
    }
}

/// Whether it is an origin as browsers write it (RFC 6454 section 6.1): one that is not can never be equal to what comes.
fn is_as_sent(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    let usual_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    !host.is_empty()
        && !host.ends_with(usual_port)
        && !host.bytes().any(|byte| byte.is_ascii_uppercase() || matches!(byte, b'/' | b'?' | b'#' | b'@' | b'*') || byte <= b' ')
}

/// Reads a time such as `30s` or `500ms`.
///
/// # Errors
/// When it is none.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|time| Duration::try_from(time).ok());
    parsed.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not a time such as \"30s\" or \"500ms\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_that_no_browser_sends_is_refused() {
        let check = |origin: &str| Config { origins: vec![origin.to_owned()], ..Config::default() }.check();
        for good in [
            "https://chat.example.org",
            "http://127.0.0.1:8080",
            "https://chat.example.org:8443",
            "https://xn--bcher-kva.example",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "chat.example.org",
            "https://",
            "https://chat.example.org/",
            "https://chat.example.org/chat",
            "https://Chat.example.org",
            "https://chat.example.org:443",
            "http://chat.example.org:80",
            "https://*.example.org",
            "wss://chat.example.org",
            "null",
        ] {
            assert_eq!(check(bad).unwrap_err().0, "gateway.origins", "{bad}");
        }
    }

    #[test]
    fn certificate_and_key_come_together() {
        let tls = TlsConfig { certificate: "a".into(), ..TlsConfig::default() };
        assert_eq!(Config { tls: Some(tls), ..Config::default() }.check().unwrap_err().0, "gateway.tls.key");
        let tls = TlsConfig { key: "a".into(), ..TlsConfig::default() };
        assert_eq!(Config { tls: Some(tls), ..Config::default() }.check().unwrap_err().0, "gateway.tls.certificate");
    }
}
