//! `conversations`: one's conversations with the last message of each.

use std::sync::Arc;

use protocol::Position;
use protocol::frame::ServerFrame;

use crate::connection::Client;
use crate::outbound::Frames;

impl Client {
    pub(super) fn conversations(&mut self, before: Option<Position>, limit: Option<u32>, out: &mut Frames) {
        let Some(owner) = self.who.as_ref().map(|who| who.user) else { return };
        let Some((before, limit)) = self.page_bounds(before, limit, out) else { return };
        let store = Arc::clone(&self.node.ports.store);
        self.query(async move {
            let page = store.conversations(owner, before, limit).await?;
            Ok(ServerFrame::Conversations { last: page.messages, before: page.before })
        });
    }
}
