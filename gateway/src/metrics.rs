//! Metrics of the gateway. Handles are made once; names follow the Prometheus conventions and are listed in `docs/metrics.md`.

use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge, histogram};
use protocol::codec::Encoding;
use protocol::{CloseCode, ErrorCode};

/// Handles of what is counted per message or per socket.
pub struct Metrics {
    /// Open WebSockets.
    pub sockets: Gauge,
    /// Attached sessions.
    pub sessions: Gauge,
    /// Sends that arrived.
    pub sends: Counter,
    /// Sends told accepted, repeats included.
    pub accepted: Counter,
    /// Events written to sockets.
    pub events: Counter,
    /// Receipts, typing and presence written to sockets.
    pub hints: Counter,
    /// Bytes read from WebSockets.
    pub bytes_in: Counter,
    /// Bytes written to WebSockets.
    pub bytes_out: Counter,
    /// Reads of the store by sessions that were behind.
    pub catch_up_reads: Counter,
    /// Acknowledgements that went backwards.
    pub stale_acks: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            sockets: gauge!("switchboard_sockets"),
            sessions: gauge!("switchboard_sessions"),
            sends: counter!("switchboard_sends_total"),
            accepted: counter!("switchboard_accepted_total"),
            events: counter!("switchboard_events_written_total"),
            hints: counter!("switchboard_hints_written_total"),
            bytes_in: counter!("switchboard_socket_bytes_total", "direction" => "in"),
            bytes_out: counter!("switchboard_socket_bytes_total", "direction" => "out"),
            catch_up_reads: counter!("switchboard_catch_up_reads_total"),
            stale_acks: counter!("switchboard_stale_acks_total"),
        }
    }
}

/// A send was refused or a frame answered with an error.
pub fn refused(code: ErrorCode) {
    counter!("switchboard_refused_total", "code" => code.name()).increment(1);
}

/// The server closed a connection.
pub fn closed(code: CloseCode) {
    counter!("switchboard_closed_total", "code" => code.number().to_string()).increment(1);
}

/// A connection ended without a close frame of ours.
pub fn ended(why: &'static str) {
    counter!("switchboard_ended_total", "why" => why).increment(1);
}

/// A connection was upgraded, its frames in this encoding.
pub fn upgraded(encoding: Encoding) {
    counter!("switchboard_upgrades_total", "encoding" => encoding.name()).increment(1);
}

/// A request became a stream of server-sent events.
pub fn streamed() {
    counter!("switchboard_streams_total").increment(1);
}

/// A request was refused before the upgrade.
pub fn rejected(status: u16) {
    counter!("switchboard_http_rejected_total", "status" => status.to_string()).increment(1);
}

/// A user has used more of a rate than it has in the whole cluster.
pub fn overdrawn(rate: &'static str) {
    counter!("switchboard_rates_overdrawn_total", "rate" => rate).increment(1);
}

/// Something was dropped on purpose.
pub fn dropped(what: &'static str, why: &'static str) {
    counter!("switchboard_drops_total", "what" => what, "why" => why).increment(1);
}

/// More or fewer users are watched.
pub fn watches(change: f64) {
    gauge!("switchboard_watches").increment(change);
}

/// The heads of all sessions' mailboxes are compared, because it is time or because a link broke.
pub fn compared(why: &'static str) {
    counter!("switchboard_head_comparisons_total", "why" => why).increment(1);
}

/// Sessions were entered into the registry again.
pub fn entered(sessions: usize) {
    counter!("switchboard_sessions_entered_again_total").increment(sessions as u64);
}

/// When the certificate in force ends, seconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "a time in seconds")]
pub fn certificate_ends(at_s: u64) {
    gauge!("switchboard_tls_certificate_expiry_seconds").set(at_s as f64);
}

/// The certificate was read again: done, or refused.
pub fn certificate_read(outcome: &'static str) {
    counter!("switchboard_tls_reloads_total", "outcome" => outcome).increment(1);
}

/// A request of the HTTP API was answered. The route is a path of the document, never a client's text.
pub fn answered((method, route): (&'static str, &str), status: u16, took: Duration) {
    let (route, status) = (route.to_owned(), status.to_string());
    counter!("switchboard_http_answers_total", "method" => method, "route" => route.clone(), "status" => status).increment(1);
    histogram!("switchboard_http_seconds", "method" => method, "route" => route).record(took.as_secs_f64());
}
