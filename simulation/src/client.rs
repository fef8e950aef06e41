//! A simulated device: sends with retries, keeps what it gets, acknowledges, goes and comes back. It checks at once what a client can check:
//! the first event behind its cursor is the next one, and no event is missing between.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use protocol::{ConversationId, DeviceName, MessageId, Seq, UserId};
use router::registry::NodeId;
use tokio::time::{Instant, sleep, sleep_until};

use crate::determinism::BEGAN_MS;
use crate::faults::{Book, Databases, Redis};
use crate::net::{Ask, Net, Say, Wire};
use crate::sim::Sim;

/// How often a client looks at what it has to do.
const LOOKS_EVERY: Duration = Duration::from_millis(40);
/// An answer that does not come in this time: send again.
const IMPATIENCE: Duration = Duration::from_secs(4);
/// Sends of one conversation that are sent again at once; what is behind them waits for the next time.
const RESENT_MAX: usize = 8;
/// That next time.
const RESENT_REST: Duration = Duration::from_millis(200);
/// An event whose hint may not be lost is with its device within this time.
const PATIENCE_MS: u64 = 5000;
/// A hint that may not be lost comes within this time.
const PROMPT_MS: u64 = 1500;

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
    /// How often it was sent.
    pub times: u32,
    /// Whether it was told once that nobody knows what has become of it.
    pub unknown: bool,
}

/// What a device has on its disk, and what it has ever sent.
#[derive(Debug, Default)]
pub struct Disk {
    /// Stream epoch of the events.
    pub epoch: Option<u64>,
    /// Events after seq 0, dense, each as it came.
    pub events: Vec<String>,
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

    /// A send has its answer. Returns whether it was told before that nobody knows; none: it had its answer already.
    fn settle(&mut self, id: MessageId, accepted: bool) -> Option<bool> {
        for waiting in self.unsettled.values_mut() {
            let Some(at) = waiting.iter().position(|index| self.sent[*index].id == id) else { continue };
            let sent = &mut self.sent[waiting.remove(at)?];
            sent.accepted |= accepted;
            return Some(sent.unknown);
        }
        None
    }

    fn count(&mut self, sent: &Sent) {
        let one = self.sent.iter_mut().rev().find(|one| one.id == sent.id && one.reuse == sent.reuse);
        one.map(|one| one.times += 1).unwrap_or_default();
    }

    /// A send without an answer is told something; its conversation.
    fn told(&mut self, id: MessageId, unknown: bool) -> Option<ConversationId> {
        let of = |waiting: &VecDeque<usize>| waiting.iter().copied().find(|index| self.sent[*index].id == id);
        let (conversation, index) = self.unsettled.iter().find_map(|(at, waiting)| Some((*at, of(waiting)?)))?;
        self.sent[index].unknown |= unknown;
        Some(conversation)
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
    /// Set while it is attached and has caught up.
    pub live: Mutex<Option<NodeId>>,
    around: Around,
}

/// What a device sees of its world; of the cluster it needs only the net, the rest is for checks.
#[derive(Clone)]
pub struct Around {
    /// Shared parts.
    pub sim: Arc<Sim>,
    /// Where gateways are.
    pub net: Arc<Net>,
    /// What was pushed.
    pub book: Arc<Book>,
    /// What was committed.
    pub databases: Arc<Databases>,
    /// What was entered.
    pub redis: Arc<Redis>,
}

/// One connection as the device sees it.
struct Talk {
    wire: Wire,
    /// The last event of this connection; none: there was none.
    last: Option<Seq>,
    live: Option<Seq>,
    live_ms: u64,
    /// Events that came after catch-up, and when.
    unhinted: VecDeque<(Seq, u64)>,
    acked: Seq,
    /// Conversations that wait before they are sent again from the oldest.
    resend_at: BTreeMap<ConversationId, Instant>,
    send_at: Instant,
    heard_at: Instant,
}

impl Device {
    /// A device that has never been connected.
    pub fn new(around: &Around, user: UserId, name: &str, peers: Vec<UserId>) -> Arc<Self> {
        let name = name.parse().unwrap_or_default();
        // who leaves the cursor to the server learns of another stream only by luck
        let knows_cursor = around.sim.weather.new_epoch || around.sim.below(3) > 0;
        let (disk, live, around) = (Mutex::default(), Mutex::default(), around.clone());
        Arc::new(Self { user, name, knows_cursor, peers, disk, live, around })
    }

    fn sim(&self) -> &Sim {
        &self.around.sim
    }

    /// Its name in the trace.
    pub fn label(&self) -> String {
        format!("{}/{}", self.user, self.name)
    }

    /// Lives until it is finished.
    pub async fn live(self: Arc<Self>) {
        let (sim, mut before) = (&self.around.sim, None);
        loop {
            let healed = sim.is_healed();
            let last_time = sim.is_last_call();
            if let Some(wire) = self.around.net.connect(self.user, &self.name) {
                if before.replace(wire.node).is_some_and(|before| before != wire.node) {
                    sim.saw("device came back at another gateway");
                }
                // when all is well it stays, so that what was missed must heal by itself
                let until = if healed { Duration::from_secs(600) } else { sim.up_to_ms(sim.weather.stay_ms) };
                let complete = self.talk(wire, Instant::now() + until, last_time).await;
                *self.live.lock() = None;
                sim.note(|| format!("{} leaves at {}", self.label(), self.disk.lock().cursor()));
                if last_time && complete {
                    self.disk.lock().finished = true;
                    return;
                }
            }
            sleep(if sim.is_healed() { Duration::from_millis(200) } else { sim.up_to_ms(sim.weather.stay_ms / 2) }).await;
        }
    }

    /// One connection. True: catch-up was complete.
    async fn talk(&self, wire: Wire, until: Instant, last_time: bool) -> bool {
        let now = Instant::now();
        let mut talk = Talk {
            wire,
            last: None,
            live: None,
            live_ms: 0,
            unhinted: VecDeque::new(),
            acked: 0,
            resend_at: BTreeMap::new(),
            send_at: now,
            heard_at: now,
        };
        self.hello(&talk).await;
        self.resend_all(&mut talk);
        loop {
            let said = tokio::select! {
                biased;
                said = talk.wire.says.recv() => said,
                () = sleep_until(until) => return false,
                () = sleep(LOOKS_EVERY) => {
                    self.act(&mut talk).await;
                    self.check_hints(&mut talk);
                    if self.sim().is_last_call() && (!last_time || talk.live.is_some()) {
                        return last_time;
                    }
                    continue;
                }
            };
            match said {
                Some(Say::Closed(code)) => {
                    self.closed(code);
                    return false;
                }
                Some(say) => self.hear(&mut talk, say).await,
                None => return false,
            }
        }
    }

    fn closed(&self, code: u16) {
        self.sim().note(|| format!("{} is closed with {code}", self.label()));
        match code {
            4410 => self.sim().saw("session closed: its stream is another one now (4410)"),
            4409 => self.sim().saw("session closed: the device is elsewhere (4409)"),
            4408 => self.sim().saw("session closed: too slow (4408)"),
            4401 => self.sim().saw("session closed: hello came too late (4401)"),
            1000 | 4429 => {}
            code => self.sim().wrong(format!("{} is closed with {code}", self.label())),
        }
    }

    async fn hello(&self, talk: &Talk) {
        let (epoch, cursor) = {
            let disk = self.disk.lock();
            (disk.epoch, self.knows_cursor.then(|| disk.cursor()))
        };
        self.sim().note(|| format!("{} says hello to {} at {cursor:?} of {epoch:?}", self.label(), talk.wire.node.node));
        drop(talk.wire.asks.send(Ask::Hello { epoch, cursor }).await);
    }

    async fn hear(&self, talk: &mut Talk, say: Say) {
        talk.heard_at = Instant::now();
        match say {
            Say::Welcome(epoch) => drop(self.disk.lock().epoch.get_or_insert(epoch)),
            Say::Event(seq, event) => self.event(talk, seq, event),
            Say::Live(head) => {
                let cursor = self.disk.lock().cursor();
                // whose cursor the server keeps gets again what it has, when that was set back with the mailbox
                if cursor < head || cursor > head && self.knows_cursor {
                    self.sim().wrong(format!("gap: {} is told it is live at {head} and has {cursor}", self.label()));
                }
                talk.live = Some(head);
                talk.live_ms = self.sim().now_ms();
                *self.live.lock() = Some(talk.wire.node);
            }
            Say::Accepted(id) => {
                if self.disk.lock().settle(id, true).is_some_and(|told| told) {
                    self.sim().saw("send told unknown was accepted late");
                }
                self.sim().note(|| format!("{} is told {id} is accepted", self.label()));
            }
            Say::Refused(id, code, false) => self.again(talk, id, &code),
            Say::Refused(id, code, true) => {
                self.disk.lock().settle(id, false);
                self.sim().wrong(format!("a good send was refused for good: {code}"));
            }
            Say::Resync(epoch, reason) => self.resync(talk, epoch, &reason).await,
            Say::Closed(_) => {}
            Say::Other(what) => self.sim().note(|| format!("{} hears {what}", self.label())),
        }
    }

    async fn resync(&self, talk: &mut Talk, epoch: u64, reason: &str) {
        self.sim().note(|| format!("{} must resync: {reason}", self.label()));
        match reason {
            "epoch" => self.sim().saw("cursor of another epoch: resync"),
            reason => self.sim().wrong(format!("resync: {} has done nothing wrong and is told {reason}", self.label())),
        }
        {
            let mut disk = self.disk.lock();
            disk.events.clear();
            disk.epoch = Some(epoch);
        }
        (talk.last, talk.acked) = (None, 0);
        self.hello(talk).await;
    }

    fn event(&self, talk: &mut Talk, seq: Seq, event: String) {
        let mut disk = self.disk.lock();
        let cursor = disk.cursor();
        let wrong = |what: &str| self.sim().wrong(format!("gap: {} gets {seq} {what}; it has {cursor}", self.label()));
        match talk.last {
            Some(last) if seq != last + 1 => wrong(&format!("behind {last}")),
            None if self.knows_cursor && seq != cursor + 1 => wrong("first"),
            None if seq > cursor + 1 => wrong("first"),
            _ => {}
        }
        talk.last = Some(seq);
        if talk.live.is_some() {
            self.check_prompt(talk, seq);
            talk.unhinted.push_back((seq, self.sim().now_ms()));
        }
        if seq == cursor + 1 {
            self.sim().note(|| format!("{} stores {seq} {event}", self.label()));
            disk.events.push(event);
        } else if seq >= 1 && seq <= cursor && disk.events[seq as usize - 1] != event {
            self.sim().wrong(format!("{} gets another event as {seq}", self.label()));
        } else {
            self.sim().saw("event sent again after a lost acknowledgement");
        }
    }

    /// Where nothing loses hints, nobody waits for the comparison of heads.
    fn check_prompt(&self, talk: &Talk, seq: Seq) {
        let (sim, committed) = (self.sim(), &self.around.databases.committed);
        let ceased = self.around.redis.ceased_at(self.user, &self.name, talk.wire.node);
        let Some(at_ms) = committed.at_ms(self.user, seq).filter(|_| ceased.is_none_or(|ceased_ms| ceased_ms < talk.live_ms))
        else {
            return;
        };
        let waited_ms = sim.now_ms() - at_ms.max(talk.live_ms);
        if sim.weather.hints_are_safe && waited_ms > PATIENCE_MS {
            sim.wrong(format!("late: {} waited {waited_ms} ms for event {seq}, and nothing had lost its hint", self.label()));
        }
    }

    /// Where nothing loses hints, every event that came after catch-up must have been pushed to its gateway: otherwise a look-up came too early,
    /// or a registration too late, and only luck has healed it.
    fn check_hints(&self, talk: &mut Talk) {
        let (sim, around, node) = (self.sim(), &self.around, talk.wire.node);
        let now_ms = sim.now_ms();
        while let Some((seq, at_ms)) = talk.unhinted.front().copied().filter(|(_, at_ms)| at_ms + PROMPT_MS < now_ms) {
            talk.unhinted.pop_front();
            // whose entry was taken over by an older connection is not to hear
            let entered = around.redis.ceased_at(self.user, &self.name, node).is_none_or(|ceased_ms| ceased_ms < talk.live_ms);
            if sim.weather.hints_are_safe && entered && !around.book.was_hinted(node, self.user, seq) {
                sim.wrong(format!(
                    "silent: event {seq} of {}, which came at {at_ms} ms, was never pushed, and nothing had lost its hint",
                    self.label()
                ));
            }
        }
    }

    /// A send must come again, and everything behind it in its conversation, in order.
    fn again(&self, talk: &mut Talk, id: MessageId, code: &str) {
        let Some(conversation) = self.disk.lock().told(id, code == "outcome_unknown") else { return };
        self.sim().saw(match code {
            "fenced" => "send fenced behind one that must come again",
            "outcome_unknown" => "send with an unknown outcome came again",
            "rate" => "send refused for its rate",
            "busy" => "send refused: too many on their way",
            _ => "send refused and came again",
        });
        talk.resend_at
            .entry(conversation)
            .or_insert_with(|| Instant::now() + Duration::from_millis(100) + self.sim().up_to_ms(400));
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
        if cursor > talk.acked && (self.sim().is_healed() || self.sim().below(4) == 0) {
            talk.acked = cursor;
            drop(talk.wire.asks.send(Ask::Received(cursor)).await);
        }
        if now >= talk.send_at && !self.sim().is_healed() {
            talk.send_at = now + self.sim().up_to_ms(2 * self.sim().weather.send_ms);
            self.say_something(talk).await;
        }
        if talk.heard_at.elapsed() > IMPATIENCE && !self.disk.lock().is_settled() {
            talk.heard_at = now;
            self.resend_all(talk);
        }
        let due: Vec<_> = talk.resend_at.iter().filter(|(_, at)| **at <= now).map(|(conversation, _)| *conversation).collect();
        for conversation in due {
            talk.resend_at.remove(&conversation);
            let (sends, all) = {
                let disk = self.disk.lock();
                let waiting = disk.unsettled.get(&conversation).into_iter().flatten();
                let sends: Vec<_> = waiting.clone().take(RESENT_MAX).map(|index| disk.sent[*index].clone()).collect();
                (sends, waiting.count() <= RESENT_MAX)
            };
            if !all {
                // nothing new goes before what waits
                talk.resend_at.insert(conversation, now + RESENT_REST);
            }
            for sent in sends {
                self.send(talk, &sent).await;
            }
        }
    }

    async fn say_something(&self, talk: &Talk) {
        let to = self.peers[self.sim().below(self.peers.len() as u64) as usize];
        let mut sent = Sent {
            id: self.new_id(),
            conversation: ConversationId::direct(self.user, to),
            text: format!("{} {}", self.label(), self.disk.lock().sent.len()),
            accepted: false,
            reuse: false,
            times: 0,
            unknown: false,
        };
        if self.sim().strikes(self.sim().weather.reuse) {
            let disk = self.disk.lock();
            let reused = |id| disk.sent.iter().any(|one| one.reuse && one.id == id);
            // an answer names only the id: a late one of the first body would pass for one of the second
            let fit = |one: &&Sent| one.accepted && one.times == 1 && !reused(one.id);
            if let Some(old) = disk.sent.iter().rev().find(fit) {
                (sent.id, sent.conversation, sent.reuse) = (old.id, old.conversation, true);
            }
        }
        self.sim().note(|| format!("{} says {} to {} as {}", self.label(), sent.text, sent.conversation, sent.id));
        self.disk.lock().queue(sent.clone());
        if !talk.resend_at.contains_key(&sent.conversation) {
            self.send(talk, &sent).await;
        }
    }

    async fn send(&self, talk: &Talk, sent: &Sent) {
        self.disk.lock().count(sent);
        drop(talk.wire.asks.send(Ask::Send(sent.id, sent.conversation, sent.text.clone())).await);
    }

    fn new_id(&self) -> MessageId {
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&(BEGAN_MS + self.sim().now_ms()).to_be_bytes()[2..]);
        bytes[6..8].copy_from_slice(&(0x7000 | (self.sim().bits() & 0xfff) as u16).to_be_bytes());
        bytes[8..].copy_from_slice(&(self.sim().bits() >> 2 | 1 << 63).to_be_bytes());
        MessageId::from_stored(&bytes).expect("16 bytes are an id")
    }
}
