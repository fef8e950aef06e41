//! Echo in place of a client, for conformance tests of the connection code (builds with the feature `echo` only).

use std::task::Context;

use fastwebsockets::OpCode;
use protocol::CloseCode;
use protocol::codec::Encoding;

use super::Handler;
use crate::outbound::{Frames, Framing};

/// Largest message echoed: the conformance suite sends 16 MiB.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Sends back what comes.
#[derive(Debug, Default)]
pub struct Echo;

impl Handler for Echo {
    /// It has no frames of its own.
    fn framing(&self) -> Framing {
        Framing::WebSocket(Encoding::default())
    }

    fn wake(&mut self, _cx: &mut Context<'_>, _out: &mut Frames) {}

    fn message(&mut self, text: bool, payload: &[u8], out: &mut Frames) -> Result<(), CloseCode> {
        out.raw(if text { OpCode::Text } else { OpCode::Binary }, payload);
        Ok(())
    }

    fn ping(&mut self) -> Result<bool, CloseCode> {
        Ok(true)
    }

    fn heard(&mut self, _bytes: usize, _completed: bool, _mid_message: bool) {}
    fn settle(&mut self, _out: &mut Frames) {}
    fn written(&mut self, _all: bool, _bytes: usize) {}

    fn wants_close(&mut self) -> Option<CloseCode> {
        None
    }

    fn closing(&mut self) {}

    fn gave_up(&self) -> bool {
        false
    }
}
