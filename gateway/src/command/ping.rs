//! `ping`: for clients that cannot send WebSocket pings.

use protocol::frame::ServerFrame;

use crate::connection::Client;
use crate::node::now_ms;
use crate::outbound::Frames;

impl Client {
    pub(super) fn application_ping(&mut self, out: &mut Frames) {
        self.grumble();
        out.server(&ServerFrame::Pong { now_ms: now_ms() });
    }
}
