//! For programs: one JSON object a line. `docs/terminal.md` lists them.

use serde::Serialize;
use serde_json::{Value, json};

use crate::core::Shown;
use crate::escape;
use crate::frame::Event;

/// The line, or nothing for what only people are shown.
pub(crate) fn line(shown: &Shown) -> Option<String> {
    let value = match shown {
        Shown::Connecting => json!({"type": "state", "state": "connecting"}),
        Shown::Online => json!({"type": "state", "state": "online"}),
        Shown::Offline { why, retry_in_ms } => {
            json!({"type": "state", "state": "offline", "why": why, "retry_in_ms": retry_in_ms})
        }
        Shown::Queued { id, to, .. } => json!({"type": "queued", "id": id, "to": to}),
        Shown::Accepted { id, conversation, .. } => json!({"type": "accepted", "id": id, "conversation": conversation}),
        Shown::Refused { id, code, field, .. } => json!({"type": "refused", "id": id, "code": code, "field": field}),
        Shown::Message { event, own, .. } => message(event, *own),
        Shown::Receipt(receipt) => tagged("receipt", receipt),
        Shown::Typing(typing) => tagged("typing", typing),
        Shown::Presence(presence) => tagged("presence", presence),
        Shown::Page(page) => tagged("page", page),
        Shown::Conversations(conversations) => tagged("conversations", conversations),
        Shown::Resync(resync) => {
            json!({"type": "resync", "reason": resync.reason, "epoch": resync.epoch, "floor": resync.floor, "head": resync.head})
        }
        Shown::Error { code, message, field } => json!({"type": "error", "code": code, "message": message, "field": field}),
        Shown::Ticked { .. } | Shown::Read { .. } => return None,
    };
    Some(written(value))
}

/// A line of one's own making.
pub(crate) fn written(mut value: Value) -> String {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    escape::json(&value.to_string())
}

fn tagged<T: Serialize>(kind: &str, what: &T) -> Value {
    let mut value = serde_json::to_value(what).unwrap_or_default();
    value["type"] = json!(kind);
    value
}

fn message(event: &Event, own: bool) -> Value {
    json!({
        "type": "message", "seq": event.seq, "conversation": event.conversation, "position": event.position, "from": event.from,
        "id": event.id, "kind": event.kind, "text": event.body.as_ref().map(|body| &body.text), "reply_to": event.reply_to,
        "at": event.at, "own": own,
    })
}
