//! What the server still has at the end: a fresh device reads a whole mailbox, and history is read to its beginning.

use std::time::Duration;

use crate::client::{Client, ClientError, Target};
use crate::frame::{ClientFrame, Hello, ServerFrame};
use crate::record::{ClientId, Recorder, What};

/// Acknowledge this often while reading, as the contract asks.
const ACKNOWLEDGE_EVERY: u64 = 64;
/// A page was refused for rate or load: ask again after this at the least.
const RETRY_LEAST: Duration = Duration::from_millis(20);
/// So often is one page asked for.
const ATTEMPTS: u32 = 50;

/// Attaches `client`, a device the server has not seen, from cursor 0; records its whole mailbox and these
/// conversations. Returns the head of the mailbox.
///
/// # Errors
/// When the connection breaks or history is refused.
pub async fn read_back(
    target: &Target,
    client: &ClientId,
    conversations: &[String],
    recorder: &Recorder,
) -> Result<u64, ClientError> {
    let mut connection = Client::connect(target).await?;
    let welcome = connection.hello(Hello { device: &client.device, cursor: Some(0), epoch: None }).await?;
    recorder.note(client, What::Attach { cursor: Some(0), epoch: welcome.epoch });
    let head = read_mailbox(&mut connection, client, recorder).await?;
    for conversation in conversations {
        read_conversation(&mut connection, client, conversation, recorder).await?;
    }
    connection.close().await;
    recorder.note(client, What::Close { code: Some(1000), in_flight: 0, why: "read back".to_owned() });
    Ok(head)
}

async fn read_mailbox(connection: &mut Client, client: &ClientId, recorder: &Recorder) -> Result<u64, ClientError> {
    let mut last = 0;
    loop {
        match connection.next().await? {
            ServerFrame::Event(event) => {
                last = event.seq;
                recorder.note(client, What::Deliver { seq: event.seq, seen: event.into() });
                if last % ACKNOWLEDGE_EVERY == 0 {
                    connection.received(last).await?;
                }
            }
            ServerFrame::Live { head } => {
                recorder.note(client, What::Live { head });
                if last > 0 {
                    connection.received(last).await?;
                }
                return Ok(head);
            }
            ServerFrame::Resync(resync) => {
                let (reason, head, floor) = (resync.reason, resync.head, resync.floor);
                recorder.note(client, What::Resync { reason, head, floor });
                let hello = Hello { device: &client.device, cursor: Some(floor), epoch: None };
                connection.write(&ClientFrame::Hello(hello)).await?;
                recorder.note(client, What::Attach { cursor: Some(floor), epoch: resync.epoch });
            }
            ServerFrame::Error(error) => return Err(ClientError::Refused(error)),
            _ => {}
        }
    }
}

async fn read_conversation(
    connection: &mut Client,
    client: &ClientId,
    conversation: &str,
    recorder: &Recorder,
) -> Result<(), ClientError> {
    let mut before: Option<String> = None;
    let mut attempts = 0;
    loop {
        let page = match connection.history(conversation, before.as_deref()).await {
            Ok(page) => page,
            Err(ClientError::Refused(error)) if is_passing(&error.code) && attempts < ATTEMPTS => {
                attempts += 1;
                tokio::time::sleep(Duration::from_millis(error.retry_after_ms).max(RETRY_LEAST)).await;
                continue;
            }
            // A conversation without a message does not exist.
            Err(ClientError::Refused(error)) if error.code == "forbidden" => break,
            Err(error) => return Err(error),
        };
        for event in page.events {
            recorder.note(client, What::History { seen: event.into() });
        }
        before = page.before;
        if before.is_none() {
            break;
        }
    }
    recorder.note(client, What::HistoryEnd { conversation: conversation.to_owned() });
    Ok(())
}

fn is_passing(code: &str) -> bool {
    matches!(code, "rate" | "busy" | "unavailable")
}
