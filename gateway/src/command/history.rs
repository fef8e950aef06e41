//! `history`: a page of a conversation, newest first.

use protocol::{ConversationId, ErrorCode, Position};

use super::error;
use super::query::Query;
use crate::connection::Client;
use crate::outbound::Frames;

impl Client {
    pub(super) fn history(
        &mut self,
        conversation: ConversationId,
        before: Option<Position>,
        limit: Option<u32>,
        out: &mut Frames,
    ) {
        if !self.who.as_ref().is_some_and(|who| conversation.has(who.user)) {
            return self.error(error(ErrorCode::Forbidden, Some("conversation"), "not your conversation"), None, out);
        }
        if let Some((before, limit)) = self.page_bounds(before, limit, out) {
            self.ask(Query::History(conversation, before, limit), out);
        }
    }
}
