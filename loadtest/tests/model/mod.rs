//! A small server that keeps the contract in memory, and can be told to break it: the tests of the tests.

#![allow(dead_code, reason = "each test file uses its part of it")]

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use loadtest::frame::{direct_name, members};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// What the model does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    /// Nothing.
    Nothing,
    /// Nothing either, but now and then it breaks a connection instead of answering a send it took, as a kill would.
    Cuts,
    /// It accepts a message now and then and forgets it.
    Loss,
    /// It cuts too, and takes a repeated id for a new message.
    Double,
    /// It skips an event on the wire now and then.
    Hole,
    /// After some sends it puts everything off for half a second.
    Overload,
}

/// How often an answer is cut off.
const SELDOM_CUT: usize = 41;
/// How often a planted fault strikes, and how often a send is refused for the moment.
const SELDOM: usize = 37;
/// After so many sends it is overloaded, for so long.
const OVERLOADED_AFTER: usize = 100;
const OVERLOADED_FOR: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
struct Store {
    mailboxes: BTreeMap<u64, Vec<Value>>,
    conversations: BTreeMap<String, Vec<Value>>,
    known: HashMap<(u64, String), String>,
    sends: usize,
    overloaded_since: Option<Instant>,
    fenced: HashMap<(u64, String), String>,
}

/// The model.
#[derive(Debug)]
pub(crate) struct Model {
    store: Mutex<Store>,
    plant: Plant,
    refuses: bool,
    changed: Notify,
    /// Connections of an older generation are cut without a word.
    generation: watch::Sender<u32>,
    /// Connections of an older generation are told to move.
    moved: watch::Sender<u32>,
}

impl Model {
    /// Starts it on a free port. The token of user 7 is `7`.
    pub(crate) async fn start(plant: Plant, refuses: bool) -> (Arc<Self>, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let model = Arc::new(Self {
            store: Mutex::default(),
            plant,
            refuses,
            changed: Notify::new(),
            generation: watch::Sender::new(0),
            moved: watch::Sender::new(0),
        });
        let server = Arc::clone(&model);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(Arc::clone(&server).connection(stream));
            }
        });
        (model, address)
    }

    /// Cuts every connection, as a kill would.
    pub(crate) fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// Tells every connection to move.
    pub(crate) fn ask_to_move(&self) {
        self.moved.send_modify(|moved| *moved += 1);
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        let (mut generation, mut moved) = (self.generation.subscribe(), self.moved.subscribe());
        let mut user = 0;
        #[expect(clippy::result_large_err, reason = "the callback's type is tungstenite's")]
        let accept = |request: &Request, mut response: Response| {
            let token = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
            user = token.trim_start_matches("Bearer ").parse().unwrap_or_default();
            response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("switchboard.v1.json"));
            Ok(response)
        };
        let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, accept).await else { return };
        let mut session = Session { user, socket, next: None, unacknowledged: 0 };
        loop {
            let changed = self.changed.notified();
            if session.push(&self).await.is_err() {
                return;
            }
            tokio::select! {
                biased;
                _ = generation.changed() => return,
                _ = moved.changed() => session.say(&json!({"type": "move", "after_ms": 50})).await,
                message = session.socket.next() => match message {
                    Some(Ok(Message::Text(text))) => {
                        let frame: Value = serde_json::from_str(&text).expect("clients write JSON");
                        if session.on_frame(&self, &frame).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(_)) => {}
                    _ => return,
                },
                () = changed => {}
            }
        }
    }

    fn cuts_now(&self) -> bool {
        matches!(self.plant, Plant::Cuts | Plant::Double) && self.store().sends.is_multiple_of(SELDOM_CUT)
    }

    /// Takes one send: the answer.
    fn take(&self, user: u64, frame: &Value) -> Value {
        let mut store = self.store();
        let (id, to) = (frame["id"].as_str().expect("an id").to_owned(), frame["to"].as_str().expect("a recipient"));
        let conversation = to.strip_prefix("u:").map_or(to.to_owned(), |other| direct_name(user, other.parse().expect("a user")));
        store.sends += 1;
        let strikes = store.sends.is_multiple_of(SELDOM);
        let lane = (user, conversation.clone());
        let fenced = store.fenced.get(&lane).cloned();
        if fenced.as_ref().is_some_and(|fence| *fence != id) {
            return json!({"type": "refused", "id": id, "code": "fenced", "retry_after_ms": 1, "final": false});
        }
        if self.plant == Plant::Overload
            && store.sends > OVERLOADED_AFTER
            && store.overloaded_since.get_or_insert_with(Instant::now).elapsed() < OVERLOADED_FOR
        {
            store.fenced.insert(lane, id.clone());
            return json!({"type": "refused", "id": id, "code": "busy", "retry_after_ms": 200, "final": false});
        }
        if self.refuses && strikes && fenced.is_none() {
            store.fenced.insert(lane, id.clone());
            return json!({"type": "refused", "id": id, "code": "rate", "retry_after_ms": 5, "final": false});
        }
        store.fenced.remove(&lane);
        let lost = self.plant == Plant::Loss && strikes;
        let known = store.known.insert((user, id.clone()), conversation.clone()).is_some() && self.plant != Plant::Double;
        if !known && !lost {
            store.append(user, &conversation, frame);
            drop(store);
            self.changed.notify_waiters();
        }
        json!({"type": "accepted", "id": id, "conversation": conversation})
    }
}

impl Store {
    fn append(&mut self, user: u64, conversation: &str, frame: &Value) {
        let messages = self.conversations.entry(conversation.to_owned()).or_default();
        let message = json!({"event": "message", "conversation": conversation, "position": (messages.len() + 1).to_string(),
            "from": user.to_string(), "id": frame["id"], "kind": "text", "body": frame["body"], "at": "2026-11-21T09:00:00.000Z"});
        messages.push(message.clone());
        let mut users = members(conversation).expect("a direct conversation").to_vec();
        users.dedup();
        for user in users {
            self.mailboxes.entry(user).or_default().push(message.clone());
        }
    }
}

struct Session {
    user: u64,
    socket: WebSocketStream<TcpStream>,
    /// The index of the next event to show; `None` before hello.
    next: Option<usize>,
    unacknowledged: usize,
}

impl Session {
    async fn say(&mut self, frame: &Value) {
        // A client that is gone shows at the next read.
        let _ = self.socket.send(Message::text(frame.to_string())).await;
    }

    async fn push(&mut self, model: &Model) -> Result<(), ()> {
        let Some(next) = self.next else { return Ok(()) };
        let room = 256 - self.unacknowledged.min(256);
        let events: Vec<_> = {
            let store = model.store();
            let mailbox = store.mailboxes.get(&self.user).map_or(&[][..], Vec::as_slice);
            mailbox.iter().skip(next).take(room).cloned().collect()
        };
        for (index, mut event) in events.into_iter().enumerate() {
            let seq = next + index + 1;
            self.next = Some(seq);
            self.unacknowledged += 1;
            if model.plant == Plant::Hole && seq % SELDOM == 0 {
                continue;
            }
            event["type"] = json!("event");
            event["seq"] = json!(seq);
            self.socket.feed(Message::text(event.to_string())).await.map_err(drop)?;
        }
        self.socket.flush().await.map_err(drop)
    }

    /// An error cuts the connection.
    async fn on_frame(&mut self, model: &Model, frame: &Value) -> Result<(), ()> {
        match frame["type"].as_str().unwrap_or_default() {
            "hello" => self.hello(model, frame).await,
            "send" => {
                let answer = model.take(self.user, frame);
                if model.cuts_now() {
                    return Err(());
                }
                self.say(&answer).await;
            }
            "received" => {
                let seq = usize::try_from(frame["seq"].as_u64().expect("a seq")).expect("fits");
                self.unacknowledged = self.next.unwrap_or_default().saturating_sub(seq);
            }
            "history" => {
                let conversation = frame["conversation"].as_str().expect("a conversation");
                let page = page(&model.store(), conversation, frame["before"].as_str());
                self.say(&page).await;
            }
            _ => {}
        }
        Ok(())
    }

    async fn hello(&mut self, model: &Model, frame: &Value) {
        let head = model.store().mailboxes.get(&self.user).map_or(0, Vec::len);
        self.say(&json!({"type": "welcome", "user": self.user.to_string(), "device": frame["device"], "epoch": "1",
            "limits": {"in_flight": 32, "sends_per_s": 50}}))
            .await;
        let cursor = frame["cursor"].as_u64().map_or(head, |cursor| usize::try_from(cursor).expect("fits"));
        self.next = Some(cursor);
        while self.next.is_some_and(|next| next < head) {
            self.unacknowledged = 0;
            if self.push(model).await.is_err() {
                return;
            }
        }
        let head = self.next.unwrap_or(head);
        self.say(&json!({"type": "live", "head": head})).await;
    }
}

/// Small pages, so that there are many.
fn page(store: &Store, conversation: &str, before: Option<&str>) -> Value {
    let messages = store.conversations.get(conversation).map_or(&[][..], Vec::as_slice);
    let end = before.map_or(messages.len(), |before| before.parse::<usize>().expect("a position") - 1);
    let start = end.saturating_sub(10);
    let before = (start > 0).then(|| (start + 1).to_string());
    json!({"type": "page", "conversation": conversation, "events": messages[start..end], "before": before})
}
