//! What clients saw: one entry for each thing that happened, in memory and, if wanted, as JSON lines in a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::frame::{Event, EventKind};

/// A device of a user: the one that saw something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ClientId {
    /// The user.
    pub user: u64,
    /// The device.
    pub device: Arc<str>,
}

impl ClientId {
    /// The device `device` of `user`.
    #[must_use]
    pub fn new(user: u64, device: &str) -> Self {
        Self { user, device: device.into() }
    }
}

impl std::fmt::Display for ClientId {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}/{}", self.user, self.device)
    }
}

impl From<ClientId> for String {
    fn from(client: ClientId) -> Self {
        client.to_string()
    }
}

impl TryFrom<String> for ClientId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (user, device) = text.split_once('/').ok_or_else(|| format!("{text} is not user/device"))?;
        let user = user.parse().map_err(|_| format!("{user} is no user"))?;
        Ok(Self::new(user, device))
    }
}

/// One line of a recording.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// Microseconds since the recording began, on one clock.
    pub t_us: u64,
    /// Who saw it.
    pub client: ClientId,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// The things that are recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// A send was decided. It is recorded once, whatever its attempts.
    Invoke {
        /// Its id.
        id: Uuid,
        /// The conversation by name.
        conversation: String,
        /// The body.
        text: String,
    },
    /// The answer `accepted`.
    Accepted {
        /// Its id.
        id: Uuid,
        /// The conversation the server named.
        conversation: String,
    },
    /// The answer `refused`.
    Refused {
        /// Its id.
        id: Uuid,
        /// Why.
        code: String,
        /// Whether it is settled by it.
        is_final: bool,
    },
    /// The answer `outcome_unknown`.
    Unknown {
        /// Its id.
        id: Uuid,
    },
    /// A hello was answered by welcome, or repeated after `resync`.
    Attach {
        /// The cursor that was given.
        cursor: Option<u64>,
        /// The epoch of the server.
        epoch: String,
    },
    /// The server said that everything up to `head` has been shown.
    Live {
        /// The newest `seq`.
        head: u64,
    },
    /// An event of the mailbox.
    Deliver {
        /// Its number in the mailbox.
        seq: u64,
        /// The event.
        #[serde(flatten)]
        seen: Seen,
    },
    /// A message read back from a conversation.
    History {
        /// The message.
        #[serde(flatten)]
        seen: Seen,
    },
    /// A conversation was read back to its beginning.
    HistoryEnd {
        /// The conversation by name.
        conversation: String,
    },
    /// The cursor could not be continued.
    Resync {
        /// Why.
        reason: String,
        /// The newest `seq`.
        head: u64,
        /// Where it can be continued.
        floor: u64,
    },
    /// The server asked to go.
    Move {
        /// When.
        after_ms: u64,
    },
    /// A connection ended.
    Close {
        /// The code, if one was said.
        code: Option<u16>,
        /// Sends that were unanswered then.
        in_flight: usize,
        /// In words.
        why: String,
    },
}

/// A message or a refusal as it was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What it is.
    pub event: EventKind,
    /// The conversation by name.
    pub conversation: String,
    /// Its place there.
    pub position: u64,
    /// The sender.
    pub from: Option<u64>,
    /// The sender's id.
    pub id: Uuid,
    /// The body.
    pub text: String,
}

impl From<Event> for Seen {
    fn from(event: Event) -> Self {
        let text = event.text().to_owned();
        let Event { event, conversation, position, from, id, .. } = event;
        Self { event, conversation, position, from, id, text }
    }
}

/// Takes the entries of many clients, on one clock.
#[derive(Debug, Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    log: Mutex<Log>,
}

#[derive(Debug)]
struct Log {
    entries: Vec<Entry>,
    file: Option<BufWriter<File>>,
    failure: Option<std::io::Error>,
}

impl Recorder {
    /// A recorder in memory.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::with(None)
    }

    /// A recorder in memory and in a file of JSON lines.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn to_file(path: &Path) -> std::io::Result<Self> {
        Ok(Self::with(Some(BufWriter::new(File::create(path)?))))
    }

    fn with(file: Option<BufWriter<File>>) -> Self {
        let log = Mutex::new(Log { entries: Vec::new(), file, failure: None });
        Self { shared: Arc::new(Shared { start: Instant::now(), log }) }
    }

    /// Records that `client` saw `what`, now.
    pub fn note(&self, client: &ClientId, what: What) {
        let mut log = self.lock();
        // The clock is read under the lock, so that entries are in the order of their times.
        let t_us = self.now_us();
        let entry = Entry { t_us, client: client.clone(), what };
        log.write(&entry);
        log.entries.push(entry);
    }

    /// A copy of everything so far, and the file brought to disk.
    ///
    /// # Errors
    /// When a line could not be written.
    pub fn recording(&self) -> std::io::Result<Vec<Entry>> {
        let mut log = self.lock();
        if let Some(failure) = log.failure.take() {
            return Err(failure);
        }
        if let Some(file) = log.file.as_mut() {
            file.flush()?;
        }
        Ok(log.entries.clone())
    }

    /// How many entries pass the test.
    pub fn count(&self, test: impl Fn(&Entry) -> bool) -> usize {
        self.count_from(0, test)
    }

    /// How many of the entries behind the first `from` pass the test.
    pub fn count_from(&self, from: usize, test: impl Fn(&Entry) -> bool) -> usize {
        self.lock().entries.iter().skip(from).filter(|entry| test(entry)).count()
    }

    /// How many entries there are.
    pub fn size(&self) -> usize {
        self.lock().entries.len()
    }

    /// Microseconds since the recording began: what an entry made now would say.
    #[must_use]
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.shared.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A panic elsewhere must not hide what was recorded until then.
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn write(&mut self, entry: &Entry) {
        let Some(file) = self.file.as_mut() else { return };
        let line = serde_json::to_writer(&mut *file, entry).map_err(std::io::Error::from);
        if let Err(failure) = line.and_then(|()| file.write_all(b"\n")) {
            self.failure.get_or_insert(failure);
        }
    }
}

/// Reads a recording back from its file.
///
/// # Errors
/// When the file cannot be read or a line is not an entry.
pub fn read(path: &Path) -> std::io::Result<Vec<Entry>> {
    let text = std::fs::read_to_string(path)?;
    text.lines().map(|line| serde_json::from_str(line).map_err(std::io::Error::from)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_memory_holds() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("recording.jsonl");
        let recorder = Recorder::to_file(&path).unwrap();
        let client = ClientId::new(42, "phone");
        let id = Uuid::now_v7();
        recorder.note(&client, What::Invoke { id, conversation: "d:42:43".to_owned(), text: "hi".to_owned() });
        let seen = Seen {
            event: EventKind::Message,
            conversation: "d:42:43".to_owned(),
            position: 7,
            from: Some(42),
            id,
            text: "hi".to_owned(),
        };
        recorder.note(&client, What::Deliver { seq: 1, seen });
        let memory = recorder.recording().unwrap();
        let file = read(&path).unwrap();
        assert_eq!(memory.len(), 2);
        assert!(memory.iter().zip(&file).all(|(a, b)| a.what == b.what && a.t_us == b.t_us && a.client == b.client));
    }
}
