//! `conversations`: one's conversations with the last message of each.

use protocol::Position;

use super::query::Query;
use crate::connection::Client;
use crate::outbound::Frames;

impl Client {
    pub(super) fn conversations(&mut self, before: Option<Position>, limit: Option<u32>, out: &mut Frames) {
        if let Some((before, limit)) = self.page_bounds(before, limit, out) {
            self.ask(Query::Conversations(before, limit), out);
        }
    }
}
