//! `typing`: told to the other member's sessions, and forgotten. Not to strangers: nothing was ever said in that conversation.

use std::sync::Arc;

use protocol::frame::{FrameError, Recipient};
use protocol::limits::TYPING_EVERY_S;
use protocol::{ConversationId, ErrorCode, UserId};
use router::expand::owners;

use super::error;
use crate::connection::Client;
use crate::metrics;
use crate::node::Gateway;
use crate::outbound::Frames;
use crate::wheel::Tick;

/// Conversations one writes in at the same time; more are dropped.
const CONVERSATIONS_MAX: usize = 8;

/// When typing was last passed on, by conversation.
#[derive(Debug, Default)]
pub(crate) struct Typed(Vec<(ConversationId, Tick)>);

impl Typed {
    /// Whether it is passed on now. Forgets those that may be passed on again.
    fn passes(&mut self, conversation: ConversationId, now: Tick) -> bool {
        self.0.retain(|(_, at)| now.saturating_sub(*at) < TYPING_EVERY_S);
        let full = self.0.len() >= CONVERSATIONS_MAX;
        if full || self.0.iter().any(|(known, _)| *known == conversation) {
            return false;
        }
        self.0.push((conversation, now));
        true
    }
}

impl Client {
    pub(super) fn typing(&mut self, to: Recipient, out: &mut Frames) {
        let Some(from) = self.who.as_ref().map(|who| who.user) else { return };
        let conversation = match conversation_of(from, to) {
            Ok(conversation) => conversation,
            Err(why) => return self.error(why, None, out),
        };
        if !self.typed.get_or_insert_default().passes(conversation, self.node.wheel.now()) {
            metrics::dropped("typing", "rate");
            return self.grumble();
        }
        let node = Arc::clone(&self.node);
        tokio::spawn(async move { tell(&node, conversation, from).await });
    }
}

/// Where somebody writes.
pub(crate) fn conversation_of(from: UserId, to: Recipient) -> Result<ConversationId, FrameError> {
    match to {
        Recipient::User(user) => Ok(ConversationId::direct(from, user)),
        Recipient::Conversation(conversation) if conversation.has(from) => Ok(conversation),
        Recipient::Conversation(_) => Err(error(ErrorCode::BadRecipient, Some("to"), "not your conversation")),
    }
}

/// Tells the other members.
pub(crate) async fn tell(node: &Gateway, conversation: ConversationId, from: UserId) {
    for other in owners(conversation).into_iter().filter(|member| *member != from) {
        tell_one(node, conversation, from, other).await;
    }
}

async fn tell_one(node: &Gateway, conversation: ConversationId, from: UserId, to: UserId) {
    match node.ports.store.last_positions(to, &[conversation]).await {
        Ok(last) if last.iter().any(Option::is_some) => node.sessions.typing(to, conversation, from),
        Ok(_) => metrics::dropped("typing", "stranger"),
        Err(why) => {
            tracing::debug!(%why, "typing is not passed on");
            metrics::dropped("typing", "store");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(other: u64) -> ConversationId {
        ConversationId::direct(UserId::from_stored(1), UserId::from_stored(other))
    }

    #[test]
    fn one_each_three_seconds_a_conversation_and_a_few_conversations() {
        let mut typed = Typed::default();
        assert!(typed.passes(with(2), 10));
        assert!(typed.passes(with(3), 11));
        assert!(!typed.passes(with(2), 12));
        assert!(typed.passes(with(2), 13));
        assert!(!typed.passes(with(3), 13));
        for other in 10..10 + CONVERSATIONS_MAX as u64 {
            typed.passes(with(other), 20);
        }
        assert!(!typed.passes(with(99), 21));
        assert_eq!(typed.0.len(), CONVERSATIONS_MAX);
        assert!(typed.passes(with(99), 23));
    }
}
