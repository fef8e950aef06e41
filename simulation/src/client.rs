//! A simulated device: sends with retries, keeps what it gets, acknowledges, goes and comes back. It checks at once what a client can check:
//! the first event behind its cursor is the next one, and no event is missing between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::record::{Content, Event, EventBody};
use protocol::{ConversationId, DeviceName, ErrorCode, MessageId, Seq, UserId};
use tokio::time::{Instant, sleep, sleep_until};

use crate::net::{Ask, Net, Say, Wire};
use crate::sim::Sim;

/// The world's beginning on the wall, for ids: milliseconds since 1970.
const BEGAN_MS: u64 = 1_760_000_000_000;
/// How often a client looks at what it has to do.
const LOOKS_EVERY: Duration = Duration::from_millis(40);
/// An answer that does not come in this time: send again.
const IMPATIENCE: Duration = Duration::from_secs(4);

/// One attempt to say something: kept until it is settled, however often it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Its id.
    pub id: MessageId,
    /// Where to.
    pub conversation: ConversationId,
    /// What.
    pub text: String,
    /// Whether a gateway has said `accepted`.
    pub accepted: bool,
    /// Whether this is the id's second body.
    pub reuse: bool,
}

/// What a device has on its disk, and what it has ever sent.
#[derive(Debug, Default)]
pub struct Disk {
    /// Stream epoch of the events.
    pub epoch: Option<u64>,
    /// Events after seq 0, dense.
    pub events: Vec<Event>,
    /// Everything ever sent, in order.
    pub sent: Vec<Sent>,
    /// Not settled, by conversation, in order: indexes into `sent`.
    unsettled: BTreeMap<ConversationId, VecDeque<usize>>,
    /// The device is at its end: everything is settled, and it has attached once more after the world had healed.
    pub finished: bool,
}

impl Disk {
    /// The last seq stored.
    pub fn cursor(&self) -> Seq {
        self.events.len() as Seq
    }

    /// Whether every send is settled.
    pub fn is_settled(&self) -> bool {
        self.unsettled.values().all(VecDeque::is_empty)
    }

    fn queue(&mut self, sent: Sent) {
        self.unsettled.entry(sent.conversation).or_default().push_back(self.sent.len());
        self.sent.push(sent);
    }

    fn settle(&mut self, id: MessageId, accepted: bool) -> Option<ConversationId> {
        for (conversation, waiting) in &mut self.unsettled {
            let Some(at) = waiting.iter().position(|index| self.sent[*index].id == id) else { continue };
            if let Some(index) = waiting.remove(at) {
                self.sent[index].accepted |= accepted;
            }
            return Some(*conversation);
        }
        None
    }

    fn conversation_of(&self, id: MessageId) -> Option<ConversationId> {
        self.unsettled.iter().find(|(_, waiting)| waiting.iter().any(|index| self.sent[*index].id == id)).map(|(at, _)| *at)
    }
}

/// A device.
pub struct Device {
    /// Whose.
    pub user: UserId,
    /// Its name.
    pub name: DeviceName,
    /// Whether it knows its cursor, or leaves that to the server.
    pub knows_cursor: bool,
    /// Everybody it may write to.
    pub peers: Vec<UserId>,
    /// What survives everything.
    pub disk: Mutex<Disk>,
    sim: Arc<Sim>,
    net: Arc<Net>,
}

/// One connection as the device sees it.
struct Talk {
    wire: Wire,
    /// The last event of this connection; none: there was none.
    last: Option<Seq>,
    live: Option<Seq>,
    acked: Seq,
    /// Conversations that wait before they are sent again from the oldest.
    resend_at: BTreeMap<ConversationId, Instant>,
    send_at: Instant,
    heard_at: Instant,
}

impl Device {
    /// A device that has never been connected.
    pub fn new(sim: &Arc<Sim>, net: &Arc<Net>, user: UserId, name: &str, peers: Vec<UserId>) -> Arc<Self> {
        let name = name.parse().unwrap_or_default();
        let knows_cursor = sim.below(3) > 0;
        Arc::new(Self { user, name, knows_cursor, peers, disk: Mutex::default(), sim: Arc::clone(sim), net: Arc::clone(net) })
    }

    fn label(&self) -> String {
        format!("{}/{}", self.user, self.name)
    }

    /// Lives until it is finished.
    pub async fn live(self: Arc<Self>) {
        loop {
            let healed = self.sim.is_healed();
            let last_time = self.sim.is_last_call();
            if let Some(wire) = self.net.connect() {
                let until = if healed { Duration::from_secs(5) } else { self.sim.up_to_ms(self.sim.weather.stay_ms) };
                let complete = self.talk(wire, Instant::now() + until, last_time).await;
                self.sim.note(|| format!("{} leaves at {}", self.label(), self.disk.lock().cursor()));
                if last_time && complete {
                    self.disk.lock().finished = true;
                    return;
                }
            }
            sleep(if healed { Duration::from_millis(200) } else { self.sim.up_to_ms(self.sim.weather.stay_ms / 2) }).await;
        }
    }

    /// One connection. True: catch-up was complete.
    async fn talk(&self, wire: Wire, until: Instant, last_time: bool) -> bool {
        let now = Instant::now();
        let mut talk = Talk { wire, last: None, live: None, acked: 0, resend_at: BTreeMap::new(), send_at: now, heard_at: now };
        self.hello(&talk).await;
        self.resend_all(&mut talk);
        loop {
            let said = tokio::select! {
                biased;
                said = talk.wire.says.recv() => said,
                () = sleep_until(until) => return false,
                () = sleep(LOOKS_EVERY) => {
                    self.act(&mut talk).await;
                    if talk.live.is_some() && last_time {
                        return true;
                    }
                    continue;
                }
            };
            match said {
                Some(say) => self.hear(&mut talk, say).await,
                None => return false,
            }
        }
    }

    async fn hello(&self, talk: &Talk) {
        let (epoch, cursor) = {
            let disk = self.disk.lock();
            (disk.epoch, self.knows_cursor.then(|| disk.cursor()))
        };
        self.sim.note(|| format!("{} says hello at {cursor:?} of {epoch:?}", self.label()));
        let ask = Ask::Hello { who: (self.user, self.name.clone()), epoch, cursor };
        drop(talk.wire.asks.send(ask).await);
    }

    async fn hear(&self, talk: &mut Talk, say: Say) {
        talk.heard_at = Instant::now();
        match say {
            Say::Welcome(epoch) => self.welcome(epoch),
            Say::Event(event) => self.event(talk, event),
            Say::Live(head) => {
                if self.disk.lock().cursor() != head {
                    self.sim.wrong(format!(
                        "gap: {} is told it is live at {head} and has {}",
                        self.label(),
                        self.disk.lock().cursor()
                    ));
                }
                talk.live = Some(head);
            }
            Say::Accepted(id) => {
                self.disk.lock().settle(id, true);
                self.sim.note(|| format!("{} is told {id} is accepted", self.label()));
            }
            Say::Refused(id, code) if code.retryable() => self.again(talk, id, code),
            Say::Unknown(id) => self.again(talk, id, ErrorCode::OutcomeUnknown),
            Say::Refused(id, code) => {
                self.disk.lock().settle(id, false);
                self.sim.wrong(format!("a good send was refused for good: {}", code.name()));
            }
            Say::Resync(epoch) => {
                self.sim.saw("cursor of another epoch: resync");
                {
                    let mut disk = self.disk.lock();
                    disk.events.clear();
                    disk.epoch = Some(epoch);
                }
                self.hello(talk).await;
            }
        }
    }

    fn welcome(&self, epoch: u64) {
        let mut disk = self.disk.lock();
        if !self.knows_cursor && disk.epoch.is_some_and(|mine| mine != epoch) {
            // who leaves the cursor to the server begins anew with a new stream
            disk.events.clear();
        }
        disk.epoch = Some(epoch);
    }

    fn event(&self, talk: &mut Talk, event: Event) {
        let mut disk = self.disk.lock();
        let (seq, cursor) = (event.seq, disk.cursor());
        let wrong = |what: &str| self.sim.wrong(format!("gap: {} gets {seq} {what}; it has {cursor}", self.label()));
        match talk.last {
            Some(last) if seq != last + 1 => wrong(&format!("behind {last}")),
            None if self.knows_cursor && seq != cursor + 1 => wrong("first"),
            None if seq > cursor + 1 => wrong("first"),
            _ => {}
        }
        talk.last = Some(seq);
        if seq == cursor + 1 {
            self.sim.note(|| format!("{} stores {seq} {}", self.label(), summary(&event)));
            disk.events.push(event);
        } else if seq >= 1 && seq <= cursor && disk.events[seq as usize - 1] != event {
            self.sim.wrong(format!("{} gets another event as {seq}", self.label()));
        } else {
            self.sim.saw("event sent again after a lost acknowledgement");
        }
    }

    /// A send must come again, and everything behind it in its conversation, in order.
    fn again(&self, talk: &mut Talk, id: MessageId, code: ErrorCode) {
        let Some(conversation) = self.disk.lock().conversation_of(id) else { return };
        self.sim.saw(match code {
            ErrorCode::Fenced => "send fenced behind one that must come again",
            ErrorCode::OutcomeUnknown => "send with an unknown outcome came again",
            _ => "send refused and came again",
        });
        talk.resend_at
            .entry(conversation)
            .or_insert_with(|| Instant::now() + Duration::from_millis(100) + self.sim.up_to_ms(400));
    }

    fn resend_all(&self, talk: &mut Talk) {
        let now = Instant::now();
        for (conversation, waiting) in &self.disk.lock().unsettled {
            if !waiting.is_empty() {
                talk.resend_at.insert(*conversation, now);
            }
        }
    }

    /// What a client does from time to time.
    async fn act(&self, talk: &mut Talk) {
        let now = Instant::now();
        // what came over this wire; an older connection's events are none of its business
        let cursor = talk.last.unwrap_or(0);
        if cursor > talk.acked && (self.sim.is_healed() || self.sim.below(4) == 0) {
            talk.acked = cursor;
            drop(talk.wire.asks.send(Ask::Received(cursor)).await);
        }
        if now >= talk.send_at && !self.sim.is_healed() {
            talk.send_at = now + self.sim.up_to_ms(2 * self.sim.weather.send_ms);
            self.say_something(talk).await;
        }
        if talk.heard_at.elapsed() > IMPATIENCE && !self.disk.lock().is_settled() {
            talk.heard_at = now;
            self.resend_all(talk);
        }
        let due: Vec<_> = talk.resend_at.iter().filter(|(_, at)| **at <= now).map(|(conversation, _)| *conversation).collect();
        for conversation in due {
            talk.resend_at.remove(&conversation);
            let sends: Vec<_> = {
                let disk = self.disk.lock();
                disk.unsettled.get(&conversation).into_iter().flatten().map(|index| disk.sent[*index].clone()).collect()
            };
            for sent in sends {
                self.send(talk, &sent).await;
            }
        }
    }

    async fn say_something(&self, talk: &Talk) {
        let to = self.peers[self.sim.below(self.peers.len() as u64) as usize];
        let mut sent = Sent {
            id: self.new_id(),
            conversation: ConversationId::direct(self.user, to),
            text: format!("{} {}", self.label(), self.disk.lock().sent.len()),
            accepted: false,
            reuse: false,
        };
        if self.sim.strikes(self.sim.weather.reuse) {
            let disk = self.disk.lock();
            let reused = |id| disk.sent.iter().any(|one| one.reuse && one.id == id);
            let fit = |one: &&Sent| one.accepted && !reused(one.id);
            if let Some(old) = disk.sent.iter().rev().find(fit) {
                (sent.id, sent.conversation, sent.reuse) = (old.id, old.conversation, true);
            }
        }
        self.sim.note(|| format!("{} says {} to {} as {}", self.label(), sent.text, sent.conversation, sent.id));
        self.disk.lock().queue(sent.clone());
        if !talk.resend_at.contains_key(&sent.conversation) {
            self.send(talk, &sent).await;
        }
    }

    async fn send(&self, talk: &Talk, sent: &Sent) {
        drop(talk.wire.asks.send(Ask::Send(sent.id, sent.conversation, sent.text.clone())).await);
    }

    fn new_id(&self) -> MessageId {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&(BEGAN_MS + self.sim.now_ms()).to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(0x7000 | (self.sim.bits() & 0xfff) as u16).to_be_bytes());
        bytes[8..].copy_from_slice(&(self.sim.bits() >> 2 | 1 << 63).to_be_bytes());
        MessageId::from_stored(&bytes).expect("16 bytes are an id")
    }
}

/// An event in a line of the trace.
pub fn summary(event: &Event) -> String {
    match &event.body {
        EventBody::Message(message) => {
            let Content::Text(text) = &message.record.content;
            format!("\"{text}\" at {}", message.position)
        }
        EventBody::Refused(refusal) => format!("refusal of {}: {}", refusal.identity.id, refusal.code.name()),
    }
}
