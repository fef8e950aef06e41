//! `read`: everything in a conversation up to a position was read. Collected, then merged by the larger: nothing goes back, nothing is answered.

use protocol::frame::FrameError;
use protocol::{ConversationId, ErrorCode, Position, UserId};

use super::error;
use super::query::may_read;
use crate::connection::Client;
use crate::node::Gateway;
use crate::outbound::Frames;

/// When one that was one too many may come again, milliseconds.
pub(crate) const RETRY_MS: u64 = 1000;

impl Client {
    pub(super) fn read_mark(&mut self, conversation: ConversationId, position: Position, out: &mut Frames) {
        let Some(user) = self.who.as_ref().map(|who| who.user) else { return };
        let in_time = self.clocks.read_mark(self.node.wheel.now());
        let marked = if in_time { mark(&self.node, user, conversation, position) } else { Err(too_many()) };
        if let Err(why) = marked {
            let retry_after_ms = (why.code == ErrorCode::Rate).then_some(RETRY_MS);
            self.error(why, retry_after_ms, out);
        }
    }
}

/// A user has read a conversation up to here.
pub(crate) fn mark(node: &Gateway, user: UserId, conversation: ConversationId, position: Position) -> Result<(), FrameError> {
    may_read(user, conversation)?;
    node.receipts.read(user, conversation, position).map_err(|_| too_many())
}

fn too_many() -> FrameError {
    error(ErrorCode::Rate, None, "too many read marks")
}
