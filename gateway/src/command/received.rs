//! `received`: the client has stored everything up to a seq. The window opens; the cursor goes to the store with the next batch.

use protocol::{CloseCode, Seq};

use crate::connection::Client;

impl Client {
    pub(super) fn received(&mut self, seq: Seq) {
        // before the session begins there is nothing to acknowledge here: the cursor came with hello
        let (Some(session), Some(who)) = (&mut self.session, &self.who) else { return };
        match session.received(seq) {
            Ok(true) => {
                self.node.cursors.acknowledged(who.user, &who.device, session.acked());
                self.node.receipts.acknowledged(who.user, session.acked());
            }
            Ok(false) => {
                self.node.metrics.stale_acks.increment(1);
                self.grumble();
            }
            Err(_) => self.close_with(CloseCode::BadRequest),
        }
    }
}
