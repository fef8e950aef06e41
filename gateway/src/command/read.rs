//! `read`: everything in a conversation up to a position was read. Collected, then merged by the larger: nothing goes back, nothing is answered.

use protocol::{ConversationId, ErrorCode, Position};

use super::error;
use crate::connection::Client;
use crate::outbound::Frames;

/// When one that was one too many may come again, milliseconds.
const RETRY_MS: u64 = 1000;

impl Client {
    pub(super) fn read_mark(&mut self, conversation: ConversationId, position: Position, out: &mut Frames) {
        let Some(user) = self.who.as_ref().map(|who| who.user) else { return };
        if !conversation.has(user) {
            return self.error(error(ErrorCode::Forbidden, Some("conversation"), "not your conversation"), None, out);
        }
        let in_time = self.clocks.read_mark(self.node.wheel.now());
        if !in_time || self.node.receipts.read(user, conversation, position).is_err() {
            self.error(error(ErrorCode::Rate, None, "too many read marks"), Some(RETRY_MS), out);
        }
    }
}
