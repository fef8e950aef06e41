//! `history`: a page of a conversation, newest first.

use std::sync::Arc;

use protocol::frame::ServerFrame;
use protocol::{ConversationId, ErrorCode, Position};

use super::error;
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
        let Some(reader) = self.who.as_ref().map(|who| who.user) else { return };
        if !conversation.has(reader) {
            return self.error(error(ErrorCode::Forbidden, Some("conversation"), "not your conversation"), None, out);
        }
        let Some((before, limit)) = self.page_bounds(before, limit, out) else { return };
        let store = Arc::clone(&self.node.ports.store);
        self.query(async move {
            let page = store.history(reader, conversation, before, limit).await?;
            Ok(ServerFrame::Page { conversation, messages: page.messages, before: page.before })
        });
    }
}
