//! Metrics of accounts, listed in `docs/metrics.md`. None has a label that names a person.

use metrics::{counter, gauge};

/// Something happened to a code: `asked`, `delivered`, `undelivered`.
pub fn code(what: &'static str) {
    counter!("switchboard_codes_total", "what" => what).increment(1);
}

/// A code came back: `right`, `wrong` (whatever was wrong with it), `again` (an answer that was lost).
pub fn verified(what: &'static str) {
    counter!("switchboard_code_tries_total", "what" => what).increment(1);
}

/// A limit was met, by its name.
pub fn limited(what: &'static str) {
    counter!("switchboard_account_limits_total", "what" => what).increment(1);
}

/// A session turned one step on, or not: `next`, `again`, `reuse`, `refused`.
pub fn refreshed(what: &'static str) {
    counter!("switchboard_refreshes_total", "what" => what).increment(1);
}

/// A session ended.
pub fn ended(why: &'static str) {
    counter!("switchboard_sessions_ended_total", "why" => why).increment(1);
}

/// Sessions that have ended and whose tokens have not expired.
pub fn revoked(count: usize) {
    gauge!("switchboard_revoked_sessions").set(count as f64);
}

/// An ended session was forgotten before its tokens expired, for want of room.
pub fn forgotten() {
    counter!("switchboard_revoked_forgotten_total").increment(1);
}
