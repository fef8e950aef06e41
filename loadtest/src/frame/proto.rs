//! The frames in Protobuf. Only the types are shared with the server: they are generated from the published `.proto`, as anybody's would be. What
//! is put into them and taken out is written here again.

use prost::Message as _;
use uuid::Uuid;

use super::{
    ClientFrame, Conversations, ErrorFrame, Event, EventKind, Limits, Page, Receipt, Refused, Resync, ServerFrame, Summary, Text,
    Welcome,
};
use v1::client_frame as client;
use v1::server_frame as server;

#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, dead_code, unreachable_pub, reason = "generated; not all of it is used")]
#[path = "../../../protocol/src/codec/proto/v1.rs"]
mod v1;

/// A client's frame.
///
/// # Errors
/// When a number is none.
pub(super) fn write(frame: &ClientFrame<'_>) -> Result<Vec<u8>, String> {
    let frame = match frame {
        ClientFrame::Hello(hello) => client::Frame::Hello(client::Hello {
            device: Some(hello.device.to_owned()),
            cursor: hello.cursor,
            epoch: hello.epoch.map(number).transpose()?,
            ..client::Hello::default()
        }),
        ClientFrame::Send(send) => client::Frame::Send(client::Send {
            id: send.id.as_bytes().to_vec(),
            to: Some(match send.to.strip_prefix("u:") {
                Some(user) => client::send::To::User(number(user)?),
                None => client::send::To::Conversation(send.to.to_owned()),
            }),
            body: Some(client::send::Body::Text(send.body.text.to_owned())),
            reply_to: None,
        }),
        ClientFrame::Read { conversation, position } => {
            client::Frame::Read(client::Read { conversation: (*conversation).to_owned(), position: number(position)? })
        }
        ClientFrame::Received { seq } => client::Frame::Received(client::Received { seq: *seq }),
        ClientFrame::History { conversation, before, limit } => client::Frame::History(client::History {
            conversation: (*conversation).to_owned(),
            before: before.map(number).transpose()?,
            limit: Some(*limit),
        }),
        ClientFrame::Conversations { before, limit } => {
            client::Frame::Conversations(client::Conversations { before: before.map(number).transpose()?, limit: Some(*limit) })
        }
        ClientFrame::Ping => client::Frame::Ping(client::Ping {}),
    };
    Ok(v1::ClientFrame { frame: Some(frame) }.encode_to_vec())
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number of 64 bits"))
}

/// A server's frame.
///
/// # Errors
/// When it is not in the contract.
pub(super) fn read(bytes: &[u8]) -> Result<ServerFrame, String> {
    let frame = v1::ServerFrame::decode(bytes).map_err(|error| error.to_string())?.frame;
    Ok(match frame {
        Some(server::Frame::Event(event)) => ServerFrame::Event(to_event(event)?),
        Some(server::Frame::Accepted(server::Accepted { id, conversation })) => {
            ServerFrame::Accepted { id: to_id(&id)?, conversation }
        }
        Some(server::Frame::Welcome(welcome)) => ServerFrame::Welcome(to_welcome(welcome)?),
        Some(server::Frame::Live(server::Live { head })) => ServerFrame::Live { head },
        Some(server::Frame::Refused(refused)) => ServerFrame::Refused(Refused {
            id: to_id(&refused.id)?,
            code: to_code(refused.code)?,
            retry_after_ms: refused.retry_after_ms.unwrap_or_default(),
            is_final: refused.r#final,
        }),
        Some(server::Frame::Error(error)) => ServerFrame::Error(ErrorFrame {
            code: to_code(error.code)?,
            field: error.field,
            message: Some(error.message),
            id: error.id.as_deref().map(to_id).transpose()?,
            retry_after_ms: error.retry_after_ms.unwrap_or_default(),
        }),
        Some(server::Frame::Resync(resync)) => ServerFrame::Resync(Resync {
            epoch: resync.epoch.to_string(),
            head: resync.head,
            floor: resync.floor,
            reason: to_reason(resync.reason)?,
        }),
        Some(server::Frame::Page(page)) => ServerFrame::Page(Page {
            conversation: page.conversation,
            events: page.events.into_iter().map(to_event).collect::<Result<_, _>>()?,
            before: page.before.map(|before| before.to_string()),
        }),
        Some(server::Frame::Conversations(list)) => ServerFrame::Conversations(Conversations {
            conversations: list.conversations.into_iter().map(to_summary).collect::<Result<_, _>>()?,
            before: list.before.map(|before| before.to_string()),
        }),
        Some(server::Frame::Move(server::Move { after_ms })) => ServerFrame::Move { after_ms },
        Some(server::Frame::Reauth(_)) => ServerFrame::Reauth,
        Some(server::Frame::Pong(_)) => ServerFrame::Pong,
        Some(server::Frame::Receipt(v1::Receipt { conversation, member, delivered, read, rev })) => {
            ServerFrame::Receipt(Receipt { conversation, member, delivered, read, rev })
        }
        Some(server::Frame::Typing(_) | server::Frame::Presence(_)) | None => ServerFrame::Other,
    })
}

fn to_welcome(welcome: server::Welcome) -> Result<Welcome, String> {
    let limits = welcome.limits.ok_or("a welcome without limits")?;
    Ok(Welcome {
        user: welcome.user,
        device: welcome.device,
        epoch: welcome.epoch.to_string(),
        limits: Limits {
            sends_per_s: limits.sends_per_s,
            sends_burst: limits.sends_burst,
            in_flight: limits.in_flight as usize,
            window_events: limits.window_events.into(),
            page_events: limits.page_events,
        },
    })
}

fn to_event(event: v1::Event) -> Result<Event, String> {
    let (kind, from, body, code) = match event.event {
        Some(v1::event::Event::Message(message)) => {
            let body = message.body.map(|v1::event::message::Body::Text(text)| Text { text });
            (EventKind::Message, Some(message.sender), body, None)
        }
        Some(v1::event::Event::Refused(refused)) => (EventKind::Refused, None, None, Some(to_code(refused.code)?)),
        None => (EventKind::Other, None, None, None),
    };
    let id = to_id(&event.id)?;
    Ok(Event { seq: event.seq, event: kind, conversation: event.conversation, position: event.position, from, id, body, code })
}

fn to_summary(summary: server::Summary) -> Result<Summary, String> {
    let last = summary.last.ok_or("a conversation without its last message")?;
    Ok(Summary { conversation: summary.conversation, last: to_event(last)?, unread: summary.unread })
}

fn to_id(bytes: &[u8]) -> Result<Uuid, String> {
    Uuid::from_slice(bytes).map_err(|_| format!("an id of {} bytes", bytes.len()))
}

/// The name in JSON: behind the prefix, in lower case. 0 is never said; what is newer than this client has no name.
fn to_code(code: i32) -> Result<String, String> {
    match v1::ErrorCode::try_from(code) {
        Ok(v1::ErrorCode::Unspecified) => Err("an error without a code".to_owned()),
        Ok(known) => Ok(known.as_str_name().trim_start_matches("ERROR_CODE_").to_lowercase()),
        Err(_) => Ok(format!("code {code}")),
    }
}

fn to_reason(reason: i32) -> Result<String, String> {
    match v1::ResyncReason::try_from(reason) {
        Ok(v1::ResyncReason::Unspecified) => Err("a resync without a reason".to_owned()),
        Ok(known) => Ok(known.as_str_name().trim_start_matches("RESYNC_REASON_").to_lowercase()),
        Err(_) => Ok(format!("reason {reason}")),
    }
}
