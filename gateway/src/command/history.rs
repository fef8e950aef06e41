//! `history`: a page of a conversation, newest first.

use protocol::{ConversationId, Position};

use super::query::{Query, may_read};
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
        let Some(user) = self.who.as_ref().map(|who| who.user) else { return };
        if let Err(why) = may_read(user, conversation) {
            return self.error(why, None, out);
        }
        if let Some((before, limit)) = self.page_bounds(before, limit, out) {
            self.ask(Query::History(conversation, before, limit), out);
        }
    }
}
