//! The wire between a client and a gateway: WebSocket frames over a stream in memory, to the gateway's own connection. In order, slow, cut at
//! any moment with what is on it; and the other side learns late.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use gateway::Gateway;
use gateway::connection::{Client, Connection};
use gateway::token::Claims;
use parking_lot::Mutex;
use protocol::codec::Encoding;
use protocol::{ConversationId, DeviceName, MessageId, Seq, UserId};
use router::registry::NodeId;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::determinism::BEGAN_MS;
use crate::node::Node;
use crate::process::Process;
use crate::sim::Sim;

/// Frames on the wire, each way.
const WIRE_MAX: usize = 1024;
/// Bytes in a socket's buffers: few, so that they fill.
const SOCKET_BYTES: usize = 16 * 1024;
/// A gateway may learn this late that its client has gone.
const HALF_OPEN_MS: u64 = 12_000;

/// What a client says.
#[derive(Debug, Clone)]
pub enum Ask {
    /// Attach with this cursor.
    Hello {
        /// Stream epoch of the cursor.
        epoch: Option<u64>,
        /// Last seq stored; none: the server knows.
        cursor: Option<Seq>,
    },
    /// A message.
    Send(MessageId, ConversationId, String),
    /// Stored up to here.
    Received(Seq),
}

/// What a gateway says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// Hello was good; cursors belong to this epoch, as far as is known.
    Welcome(u64),
    /// An event: its seq, and the whole of it as it came.
    Event(Seq, String),
    /// Catch-up is done up to here.
    Live(Seq),
    /// A send is durable.
    Accepted(MessageId),
    /// A send is not taken: why, and whether for good.
    Refused(MessageId, String, bool),
    /// The cursor is no good in this epoch: why.
    Resync(u64, String),
    /// The connection is closed with this code.
    Closed(u16),
    /// Anything else, for the trace.
    Other(String),
}

/// A client's end of a wire; dropped, the wire is cut.
pub struct Wire {
    /// The gateway.
    pub node: NodeId,
    /// To the gateway.
    pub asks: mpsc::Sender<Ask>,
    /// From the gateway.
    pub says: mpsc::Receiver<Say>,
}

/// Where clients find gateways.
pub struct Net {
    sim: Arc<Sim>,
    nodes: Mutex<BTreeMap<u16, Arc<Node>>>,
}

impl Net {
    /// A net without gateways.
    pub fn new(sim: &Arc<Sim>) -> Arc<Self> {
        Arc::new(Self { sim: Arc::clone(sim), nodes: Mutex::default() })
    }

    /// A gateway takes connections.
    pub fn enter(&self, node: &Arc<Node>) {
        self.nodes.lock().insert(node.id.node, Arc::clone(node));
    }

    /// A gateway has died.
    pub fn leave(&self, node: &Node) {
        let mut nodes = self.nodes.lock();
        if nodes.get(&node.id.node).is_some_and(|there| there.id == node.id) {
            nodes.remove(&node.id.node);
        }
    }

    /// A wire to one of the gateways, if one lives.
    pub fn connect(&self, user: UserId, device: &DeviceName) -> Option<Wire> {
        let node = {
            let nodes = self.nodes.lock();
            let at = usize::try_from(self.sim.below(nodes.len() as u64)).ok()?;
            Arc::clone(nodes.values().nth(at)?)
        };
        let gateway = node.gateway.as_ref()?;
        let (theirs, ours) = duplex(SOCKET_BYTES);
        let claims = Claims::new(user, Some(device.clone()), (BEGAN_MS + self.sim.now_ms()) / 1000);
        node.process.spawn(serve(Arc::clone(gateway), theirs, claims));
        let (asks, from_client) = mpsc::channel(WIRE_MAX);
        let (to_client, says) = mpsc::channel(WIRE_MAX);
        let (pongs, pongs_out) = mpsc::channel(16);
        let (read, write) = split(ours);
        tokio::spawn(carry_asks(Arc::clone(&self.sim), Arc::clone(&node.process), (from_client, pongs_out), write));
        tokio::spawn(carry_says(Arc::clone(&self.sim), Arc::clone(&node.process), read, (to_client, pongs)));
        Some(Wire { node: node.id, asks, says })
    }
}

/// The gateway's side of a connection, from the upgrade on.
async fn serve(gateway: Arc<Gateway>, stream: DuplexStream, claims: Claims) {
    gateway.sockets.fetch_add(1, Ordering::Relaxed);
    let frame_bytes = gateway.config.limits.frame_bytes;
    let client = Client::new(gateway, IpAddr::V4(Ipv4Addr::LOCALHOST), Encoding::Json, Some(Box::new(claims)));
    Connection::new(stream, client, frame_bytes, Vec::new()).await;
}

/// A client's frame: masked, as it must be, with a mask of zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        long => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(long).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

fn text_of(ask: &Ask) -> String {
    let value = match ask {
        Ask::Hello { epoch, cursor } => {
            let mut hello = json!({"type": "hello"});
            if let Some(cursor) = cursor {
                hello["cursor"] = json!(cursor);
                if let Some(epoch) = epoch {
                    hello["epoch"] = json!(epoch.to_string());
                }
            }
            hello
        }
        Ask::Send(id, to, text) => {
            json!({"type": "send", "id": id.to_string(), "to": to.to_string(), "kind": "text", "body": {"text": text}})
        }
        Ask::Received(seq) => json!({"type": "received", "seq": seq}),
    };
    value.to_string()
}

type FromClient = (mpsc::Receiver<Ask>, mpsc::Receiver<Vec<u8>>);

async fn carry_asks(sim: Arc<Sim>, process: Arc<Process>, (mut from, mut pongs): FromClient, mut to: WriteHalf<DuplexStream>) {
    loop {
        let bytes = tokio::select! {
            biased;
            ask = from.recv() => match ask {
                Some(ask) => frame(1, text_of(&ask).as_bytes()),
                None => break,
            },
            Some(pong) = pongs.recv() => pong,
        };
        sleep(sim.delay()).await;
        if !process.lives_on().await || to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // the client has gone; the gateway's end stays open for a while
    if sim.below(3) == 0 && !sim.is_healed() {
        sim.saw("half-open connection");
        sleep(sim.up_to_ms(HALF_OPEN_MS)).await;
    }
    drop(to.shutdown().await);
}

/// Cuts a server's frames out of what has arrived: opcode and payload.
fn cut(buffer: &mut Vec<u8>) -> Option<(u8, Vec<u8>)> {
    let (first, second) = (*buffer.first()?, *buffer.get(1)?);
    let (head, length) = match second {
        126 => (4, usize::from(u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?]))),
        127 => (10, usize::try_from(u64::from_be_bytes(buffer.get(2..10)?.try_into().ok()?)).ok()?),
        short => (2, usize::from(short)),
    };
    if buffer.len() < head + length {
        return None;
    }
    let rest = buffer.split_off(head + length);
    let payload = std::mem::replace(buffer, rest).split_off(head);
    Some((first & 0x0f, payload))
}

async fn carry_says(
    sim: Arc<Sim>,
    process: Arc<Process>,
    mut from: ReadHalf<DuplexStream>,
    (to, pongs): (mpsc::Sender<Say>, mpsc::Sender<Vec<u8>>),
) {
    let (mut buffer, mut is_cut) = (Vec::new(), false);
    loop {
        while let Some((opcode, payload)) = cut(&mut buffer) {
            if is_cut {
                continue; // into the void: the gateway believes it is written
            }
            if !process.lives_on().await {
                return;
            }
            let say = match opcode {
                1 => said(&payload),
                8 => Some(Say::Closed(payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code)))),
                9 => {
                    drop(pongs.try_send(frame(10, &payload)));
                    None
                }
                _ => None,
            };
            let Some(say) = say else { continue };
            tokio::select! {
                biased;
                () = to.closed() => is_cut = true,
                () = sleep(sim.delay()) => is_cut = to.send(say).await.is_err(),
            }
        }
        match timeout(Duration::from_secs(600), from.read_buf(&mut buffer)).await {
            Ok(Ok(bytes)) if bytes > 0 => {}
            _ => break,
        }
    }
}

/// What a frame says.
fn said(payload: &[u8]) -> Option<Say> {
    let frame: Value = serde_json::from_slice(payload).ok()?;
    let number = |name: &str| frame[name].as_u64();
    let text = |name: &str| frame[name].as_str();
    let id = || text("id").and_then(|id| id.parse::<MessageId>().ok());
    Some(match text("type")? {
        "welcome" => Say::Welcome(text("epoch")?.parse().ok()?),
        "event" => Say::Event(number("seq")?, String::from_utf8_lossy(payload).into_owned()),
        "live" => Say::Live(number("head")?),
        "accepted" => Say::Accepted(id()?),
        "refused" => Say::Refused(id()?, text("code")?.to_owned(), frame["final"].as_bool()?),
        "error" if id().is_some() => Say::Refused(id()?, text("code")?.to_owned(), false),
        "resync" => Say::Resync(text("epoch")?.parse().ok()?, text("reason")?.to_owned()),
        _ => Say::Other(String::from_utf8_lossy(payload).into_owned()),
    })
}
