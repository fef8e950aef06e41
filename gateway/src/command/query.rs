//! Pages of the store: one under way for each connection, a few wait, in the order they were asked. The next begins only when the socket has
//! taken what came before, so that who asks and does not read costs one page of memory.

use std::collections::VecDeque;
use std::sync::Arc;

use protocol::frame::{Conversation, FrameError, ServerFrame};
use protocol::{ConversationId, ErrorCode, Position, UserId};
use storage::store::{Standing, Store, StoreError};

use super::error;
use crate::connection::Client;
use crate::outbound::Frames;
use crate::outbox::Answer;

/// Pages a connection may wait for.
const QUERIES_MAX: usize = 4;
/// When one more may be asked for, milliseconds.
const RETRY_MS: u64 = 200;

/// A page that was asked for, its bounds checked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Query {
    /// Messages of a conversation.
    History(ConversationId, Position, u32),
    /// Conversations.
    Conversations(Position, u32),
}

/// The pages a connection waits for.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    waiting: VecDeque<Query>,
    under_way: bool,
}

impl Client {
    /// The bounds of a page, checked; or the error is answered.
    pub(super) fn page_bounds(
        &mut self,
        before: Option<Position>,
        limit: Option<u32>,
        out: &mut Frames,
    ) -> Option<(Position, u32)> {
        let bounds = bounds(before, limit, self.node.config.limits.page_events);
        bounds.map_err(|why| self.error(why, None, out)).ok()
    }

    /// Queues a query, or refuses it.
    pub(super) fn ask(&mut self, query: Query, out: &mut Frames) {
        let queries = self.queries.get_or_insert_default();
        if queries.waiting.len() + usize::from(queries.under_way) >= QUERIES_MAX {
            return self.error(error(ErrorCode::Busy, None, "wait for the pages asked for before"), Some(RETRY_MS), out);
        }
        queries.waiting.push_back(query);
    }

    /// A page has come.
    pub(crate) fn page(&mut self, page: &ServerFrame, out: &mut Frames) {
        out.server(page);
        if let Some(queries) = &mut self.queries {
            queries.under_way = false;
        }
    }

    /// Begins the next query, if none is under way. Called when the socket has taken everything.
    pub(crate) fn next_query(&mut self) {
        let (Some(queries), Some(who)) = (&mut self.queries, &self.who) else { return };
        if queries.under_way {
            return;
        }
        let Some(query) = queries.waiting.pop_front() else {
            self.queries = None;
            return;
        };
        queries.under_way = true;
        let (store, outbox, user) = (Arc::clone(&self.node.ports.store), Arc::clone(&self.outbox), who.user);
        tokio::spawn(async move {
            let page = answer(&*store, user, query).await.unwrap_or_else(|why| {
                tracing::warn!(%user, %why, "a page could not be read");
                let error = error(ErrorCode::Unavailable, None, "the store does not answer");
                ServerFrame::Error { error, retry_after_ms: Some(1000) }
            });
            outbox.answer(Answer::Page(Box::new(page)));
        });
    }
}

/// The bounds of a page, checked.
pub(crate) fn bounds(before: Option<Position>, limit: Option<u32>, max: u32) -> Result<(Position, u32), FrameError> {
    const DEFAULT: u32 = 50;
    let limit = limit.unwrap_or(DEFAULT.min(max));
    if !(1..=max).contains(&limit) {
        return Err(error(ErrorCode::BadField, Some("limit"), &format!("from 1 to {max}")));
    }
    Ok((before.unwrap_or(Position::MAX), limit))
}

/// Whether a user may read a conversation.
pub(crate) fn may_read(user: UserId, conversation: ConversationId) -> Result<(), FrameError> {
    let mine = conversation.has(user);
    if mine { Ok(()) } else { Err(error(ErrorCode::Forbidden, Some("conversation"), "not your conversation")) }
}

/// Reads a page.
pub(crate) async fn answer(store: &dyn Store, user: UserId, query: Query) -> Result<ServerFrame, StoreError> {
    match query {
        Query::History(conversation, before, limit) => {
            let page = store.history(user, conversation, before, limit).await?;
            Ok(ServerFrame::Page { conversation, messages: page.messages, before: page.before })
        }
        Query::Conversations(before, limit) => {
            let page = store.conversations(user, before, limit).await?;
            let names: Vec<_> = page.messages.iter().map(|last| last.record.identity.conversation).collect();
            let standings = store.standings(user, &names).await?;
            let one = |(last, standing): (_, Standing)| Conversation {
                last,
                unread: standing.unread,
                read: standing.read,
                receipts: standing.others,
            };
            let conversations = page.messages.into_iter().zip(standings).map(one).collect();
            Ok(ServerFrame::Conversations { conversations, before: page.before })
        }
    }
}
