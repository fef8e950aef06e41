//! The bare relays: a frame goes to the partner's socket as it is. No account, no answer.

use super::{Dialect, Seen, Session};
use crate::compare::websocket::{BINARY, Opening};

pub(crate) struct Relay;

impl Dialect for Relay {
    fn opening(&self, client: usize) -> Opening {
        Opening { path: format!("/{client}"), ..Opening::default() }
    }

    fn opcode(&self) -> u8 {
        BINARY
    }

    fn session(&self, _client: usize) -> Box<dyn Session> {
        Box::new(Open)
    }

    fn send(&self, _to: usize, _due: u64, body: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(body.as_bytes());
    }
}

struct Open;

impl Session for Open {
    /// The relay says `.` when the partner may write.
    fn hello(&mut self) -> Option<Vec<u8>> {
        None
    }

    fn take(&mut self, payload: &[u8], seen: &mut Seen) -> anyhow::Result<()> {
        if payload == crate::relay::WELCOME {
            seen.ready = true;
        } else {
            seen.delivered.extend(super::due(payload));
        }
        Ok(())
    }
}
