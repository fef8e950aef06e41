//! `watch`: whose presence this connection wants to hear of, in place of those before. Of users with whom one shares no conversation nothing is told,
//! as of those who do not exist. One set is looked up at a time; of those that come meanwhile only the last counts.

use std::sync::Arc;

use protocol::frame::FrameError;
use protocol::{ConversationId, ErrorCode, UserId};
use storage::store::StoreError;

use super::error;
use crate::connection::Client;
use crate::metrics;
use crate::node::Gateway;
use crate::outbound::Frames;
use crate::outbox::Answer;
use crate::presence::{Watch, elsewhere};

/// The watches of a connection.
#[derive(Debug, Default)]
pub(crate) struct Watching {
    /// Those in force.
    users: Vec<UserId>,
    under_way: bool,
    /// Those that come next.
    asked: Option<Vec<UserId>>,
}

impl Client {
    pub(super) fn watch(&mut self, users: Vec<UserId>, out: &mut Frames) {
        match self.watch_these(users) {
            Ok(()) => self.grumble(),
            Err(why) => self.error(why, None, out),
        }
    }

    /// Hears of these from now on.
    pub(super) fn watch_these(&mut self, mut users: Vec<UserId>) -> Result<(), FrameError> {
        let max = self.node.config.limits.watch_users as usize;
        if users.len() > max {
            return Err(error(ErrorCode::TooMany, Some("users"), &format!("at most {max}")));
        }
        users.sort_unstable();
        users.dedup();
        self.watching.get_or_insert_default().asked = Some(users);
        self.next_watch();
        Ok(())
    }

    /// Looks the next set up, if none is under way.
    fn next_watch(&mut self) {
        let (Some(watching), Some(who)) = (&mut self.watching, &self.who) else { return };
        if watching.under_way {
            return;
        }
        let Some(users) = watching.asked.take() else {
            if watching.users.is_empty() {
                self.watching = None;
            }
            return;
        };
        watching.under_way = true;
        let (node, outbox, user) = (Arc::clone(&self.node), Arc::clone(&self.outbox), who.user);
        tokio::spawn(async move {
            let found = look_up(&node, user, &users).await;
            outbox.answer(Answer::Watched(found.unwrap_or_else(|why| {
                tracing::debug!(%user, %why, "presence cannot be told now");
                metrics::dropped("watch", "store");
                Vec::new()
            })));
        });
    }

    /// The set is looked up: it is in force now.
    pub(crate) fn watched(&mut self, watches: &[Watch]) {
        let Some(watching) = &mut self.watching else { return };
        self.node.presences.unwatch(&self.outbox, &watching.users);
        self.outbox.forget_presence();
        watching.users = watches.iter().map(|watch| watch.user).collect();
        watching.under_way = false;
        self.node.presences.watch(&self.outbox, watches);
        self.next_watch();
    }

    /// The connection ends.
    pub(crate) fn unwatch(&mut self) {
        if let Some(watching) = self.watching.take() {
            self.node.presences.unwatch(&self.outbox, &watching.users);
        }
    }
}

/// Of these users those with whom one shares a conversation, with what is known of them.
async fn look_up(node: &Gateway, user: UserId, users: &[UserId]) -> Result<Vec<Watch>, StoreError> {
    let conversations: Vec<_> = users.iter().map(|other| ConversationId::direct(user, *other)).collect();
    let last = node.ports.store.last_positions(user, &conversations).await?;
    let shared: Vec<_> = users.iter().zip(last).filter_map(|(other, last)| last.map(|_| *other)).collect();
    let seen = node.ports.store.last_seen(&shared).await?;
    let there = elsewhere(node, &shared).await.unwrap_or_else(|| vec![false; shared.len()]);
    let watch = |((user, last_seen_ms), elsewhere)| Watch { user, last_seen_ms, elsewhere };
    Ok(shared.into_iter().zip(seen).zip(there).map(watch).collect())
}
