//! Receipts, typing and presence over raw sockets against the real binary: what a sender sees, what one's other devices see, what is there after a
//! `kill -9`, and what strangers do not get.

#[path = "raw/mod.rs"]
mod raw;
#[path = "support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use raw::{Raw, Server};
use serde_json::{Value, json};

const ANN: u64 = 11;
const BOB: u64 = 12;
const EVE: u64 = 13;
const CHAT: &str = "d:11:12";
/// Longer than coalescing and debounce together.
const SOON: Duration = Duration::from_secs(8);

/// A client that keeps every frame it was sent.
struct Client {
    raw: Raw,
    frames: Vec<Value>,
}

fn number(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("a decimal string: {value}"))
}

impl Client {
    fn attach(server: &Server, user: u64, device: &str, more: &str) -> Self {
        let mut raw = Raw::upgrade(server.address(), &[]);
        raw.patience(2 * SOON);
        raw.text(&format!(r#"{{"type":"hello","token":"{}","device":"{device}"{more}}}"#, server.token(user)));
        let mut client = Self { raw, frames: Vec::new() };
        client.next("live", |_| true);
        client
    }

    fn say(&mut self, frame: Value) {
        self.raw.text(&frame.to_string());
    }

    /// The next frame of this type for which this holds, of those that came and were not asked for yet.
    fn next(&mut self, kind: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let wanted = |frame: &Value| frame["type"] == kind && wanted(frame);
        if let Some(at) = self.frames.iter().position(wanted) {
            return self.frames.remove(at);
        }
        loop {
            let Some((0x81, payload)) = self.raw.frame() else { panic!("no {kind} comes behind {:#?}", self.frames) };
            let frame: Value = serde_json::from_slice(&payload).expect("frames are JSON");
            if wanted(&frame) {
                return frame;
            }
            self.frames.push(frame);
        }
    }

    /// What came until an answer to a ping did, and is not asked for yet.
    fn so_far(&mut self, kind: &str) -> Vec<Value> {
        self.say(json!({ "type": "ping" }));
        self.next("pong", |_| true);
        self.frames.iter().filter(|frame| frame["type"] == kind).cloned().collect()
    }

    /// Sends, and returns the position.
    fn send(&mut self, to: u64) -> u64 {
        let id = uuid::Uuid::now_v7().to_string();
        self.say(json!({ "type": "send", "id": id, "to": format!("u:{to}"), "kind": "text", "body": { "text": "hi" } }));
        self.next("accepted", |frame| frame["id"] == id);
        let event = self.next("event", |frame| frame["id"] == id);
        self.say(json!({ "type": "received", "seq": event["seq"] }));
        number(&event["position"])
    }

    /// Takes the event at this position and acknowledges it.
    fn store(&mut self, position: u64) -> u64 {
        let event = self.next("event", |frame| number(&frame["position"]) == position);
        self.say(json!({ "type": "received", "seq": event["seq"] }));
        event["seq"].as_u64().expect("a seq")
    }

    fn read(&mut self, position: u64) {
        self.say(json!({ "type": "read", "conversation": CHAT, "position": position.to_string() }));
    }

    /// The receipt that tells of this member at least so far: delivered, read. And its revision.
    fn receipt(&mut self, member: u64, delivered: u64, read: u64) -> u64 {
        let of = member.to_string();
        let reached =
            |frame: &Value| frame["member"] == of && number(&frame["delivered"]) >= delivered && number(&frame["read"]) >= read;
        number(&self.next("receipt", reached)["rev"])
    }

    /// The one conversation of the list.
    fn listed(&mut self) -> Value {
        self.say(json!({ "type": "conversations" }));
        self.next("conversations", |_| true)["conversations"][0].clone()
    }
}

#[test]
fn ticks_come_survive_a_kill_and_being_offline_and_never_go_back() {
    let mut server = Server::start();
    let mut ann = Client::attach(&server, ANN, "phone", r#","cursor":0"#);
    let mut bob = Client::attach(&server, BOB, "phone", r#","cursor":0"#);
    let mut tablet = Client::attach(&server, BOB, "tablet", r#","cursor":0"#);
    let positions: Vec<_> = (0..3).map(|_| ann.send(BOB)).collect();
    assert_eq!(bob.listed()["unread"], 3);

    // delivered: by one device, up to what it acknowledged
    bob.store(positions[0]);
    bob.store(positions[1]);
    let rev = ann.receipt(BOB, positions[1], 0);
    assert_eq!(ann.listed()["receipts"], json!([{ "member": "12", "delivered": positions[1].to_string(), "read": "0" }]));

    // read: told to the sender and to the reader's other device, which counts alike
    bob.read(positions[1]);
    let read = ann.receipt(BOB, positions[1], positions[1]);
    assert!(read > rev);
    tablet.receipt(BOB, 0, positions[1]);
    for device in [&mut bob, &mut tablet] {
        let listed = device.listed();
        assert_eq!((&listed["unread"], number(&listed["read"])), (&json!(1), positions[1]));
    }
    // never back
    bob.read(positions[0]);
    bob.read(1);

    // while Ann is away: Bob reads the rest, on the other device; the server is killed in between
    drop(ann);
    tablet.store(positions[2]);
    tablet.read(u64::MAX);
    tablet.receipt(BOB, 0, positions[2]);
    server = server.restarted();
    let mut ann = Client::attach(&server, ANN, "phone", &format!(r#","rev":"{read}""#));
    // what was delivered may have died with the server; what was read was confirmed before
    ann.receipt(BOB, positions[1], positions[2]);
    assert_eq!(number(&ann.listed()["receipts"][0]["read"]), positions[2], "beyond the newest message means that message");
    let mut bob = Client::attach(&server, BOB, "phone", r#","cursor":3"#);
    let newest = ann.receipt(BOB, positions[2], positions[2]);
    let mut again = Client::attach(&server, ANN, "laptop", &format!(r#","rev":"{newest}""#));
    let mut fresh = Client::attach(&server, ANN, "desktop", "");
    let mut all = Client::attach(&server, ANN, "watch", r#","rev":"0""#);
    all.receipt(BOB, positions[2], positions[2]);
    assert_eq!(again.so_far("receipt"), Vec::<Value>::new(), "what one has is not told again");
    assert_eq!(fresh.so_far("receipt"), Vec::<Value>::new(), "without a revision nothing is");
    assert_eq!(bob.listed()["unread"], 0);
    // and everything still works
    let fourth = again.send(BOB);
    bob.store(fourth);
    ann.receipt(BOB, fourth, positions[2]);
    assert_eq!(bob.listed()["unread"], 1);
}

#[test]
fn what_a_device_had_by_its_own_account_counts_as_delivered() {
    let server = Server::start();
    let mut ann = Client::attach(&server, ANN, "phone", r#","cursor":0"#);
    let positions: Vec<_> = (0..5).map(|_| ann.send(BOB)).collect();
    // it stored three of them on another connection, and lost its acknowledgements
    let mut bob = Client::attach(&server, BOB, "phone", r#","cursor":3"#);
    ann.receipt(BOB, positions[2], 0);
    assert_eq!(number(&ann.listed()["receipts"][0]["delivered"]), positions[2]);
    // acknowledging one acknowledges all before it
    bob.next("event", |frame| frame["seq"] == 5);
    bob.say(json!({ "type": "received", "seq": 5 }));
    ann.receipt(BOB, positions[4], 0);
    // one's own messages are not delivered to oneself
    let own = bob.send(ANN);
    bob.say(json!({ "type": "received", "seq": 6 }));
    ann.store(own);
    bob.receipt(ANN, own, 0);
    assert!(ann.so_far("receipt").is_empty());
}

/// The acknowledgement is in, the receipt not yet: a kill in between loses nothing that the next attach does not tell.
#[test]
fn a_receipt_lost_in_a_crash_heals() {
    let mut server = Server::start();
    let mut ann = Client::attach(&server, ANN, "phone", r#","cursor":0"#);
    let mut bob = Client::attach(&server, BOB, "phone", r#","cursor":0"#);
    let mut newest = 0;
    for _ in 0..4 {
        newest = ann.send(BOB);
        let seq = bob.store(newest);
        bob.read(newest);
        // at once: most of these receipts are never written
        server = server.restarted();
        bob = Client::attach(&server, BOB, "phone", &format!(r#","cursor":{seq}"#));
        // as the protocol asks of it: the mark again, since no receipt has confirmed it
        bob.read(newest);
        ann = Client::attach(&server, ANN, "phone", r#","rev":"0""#);
        ann.receipt(BOB, newest, newest);
    }
    assert_eq!(bob.listed()["unread"], 0);
    assert!(newest > 0);
}

#[test]
fn typing_is_shown_to_the_other_and_stored_nowhere() {
    let server = Server::start();
    let mut ann = Client::attach(&server, ANN, "phone", r#","cursor":0"#);
    let mut other_ann = Client::attach(&server, ANN, "laptop", r#","cursor":0"#);
    let mut bobs = ["phone", "tablet"].map(|device| Client::attach(&server, BOB, device, r#","cursor":0"#));
    let mut eve = Client::attach(&server, EVE, "phone", "");
    let typing = || json!({ "type": "typing", "to": "u:12" });
    // to strangers nothing is told
    ann.say(typing());
    server.wait_until("dropped", || server.counter("switchboard_drops_total{what=\"typing\",why=\"stranger\"}") == 1);
    ann.send(BOB);
    let dropped = || server.counter("switchboard_drops_total{what=\"typing\",why=\"rate\"}");
    // the first one that is passed on is at most three seconds away, and so is the next
    let end = Instant::now() + SOON;
    while !bobs[0].so_far("typing").iter().any(|frame| *frame == json!({ "type": "typing", "conversation": CHAT, "from": "11" }))
    {
        assert!(Instant::now() < end, "typing is never told");
        ann.say(typing());
        std::thread::sleep(Duration::from_millis(50));
    }
    let told = bobs[0].so_far("typing").len();
    bobs[1].next("typing", |_| true);
    let before = dropped();
    for _ in 0..20 {
        ann.say(typing());
    }
    ann.so_far("pong");
    server.wait_until("dropped", || dropped() >= before + 19);
    assert!(bobs[0].so_far("typing").len() <= told + 1, "one each three seconds");
    assert!(other_ann.so_far("typing").is_empty() && eve.so_far("typing").is_empty());
    // nothing of it is in the mailbox
    let mut again = Client::attach(&server, BOB, "watch", r#","cursor":0"#);
    assert!(again.so_far("typing").is_empty());
    let event = again.next("event", |_| true);
    again.say(json!({ "type": "received", "seq": event["seq"] }));
    assert!(again.so_far("event").is_empty());
}

#[test]
fn presence_is_told_to_who_watches_and_knows_one() {
    let mut server = Server::start();
    let mut ann = Client::attach(&server, ANN, "phone", r#","cursor":0"#);
    ann.send(BOB);
    let watch = json!({ "type": "watch", "users": ["12", "13", "99999"] });
    // offline, never seen; strangers and nobody are the same: nothing
    ann.say(watch.clone());
    let presence =
        |client: &mut Client, online: bool| client.next("presence", |frame| frame["user"] == "12" && frame["online"] == online);
    assert_eq!(presence(&mut ann, false), json!({ "type": "presence", "user": "12", "online": false }));
    let phone = Client::attach(&server, BOB, "phone", "");
    assert_eq!(presence(&mut ann, true), json!({ "type": "presence", "user": "12", "online": true }));
    let tablet = Client::attach(&server, BOB, "tablet", "");
    let eve = Client::attach(&server, EVE, "phone", "");
    // the device goes and another stays; it goes and comes back within the debounce
    drop(phone);
    let phone = Client::attach(&server, BOB, "phone", "");
    drop((phone, tablet, eve));
    let left = Instant::now();
    let offline = presence(&mut ann, false);
    assert!(left.elapsed() > Duration::from_secs(4), "after the debounce");
    assert!(offline["last_seen"].as_str().is_some_and(|at| at.ends_with(":00.000Z")), "to the minute: {offline}");
    assert!(ann.so_far("presence").is_empty(), "nothing in between, and nothing of strangers");
    // asked again, also after a restart, it is known when they were there
    server = server.restarted();
    let mut ann = Client::attach(&server, ANN, "phone", "");
    ann.say(watch);
    assert_eq!(presence(&mut ann, false)["last_seen"], offline["last_seen"]);
    // replaced by nothing: nothing more is told
    ann.say(json!({ "type": "watch", "users": [] }));
    server.wait_until("unwatched", || server.counter("switchboard_watches") == 0);
    let _bob = Client::attach(&server, BOB, "phone", "");
    assert!(ann.so_far("presence").is_empty());
}

/// What a chatty receiver costs in fsyncs: its receipts ride along, and alone they are a few commits a second.
#[test]
fn receipts_cost_few_commits_however_many_there_are() {
    let server = Server::start_with(&[("SWITCHBOARD_LIMITS__SENDS_PER_S", "5000"), ("SWITCHBOARD_LIMITS__SENDS_BURST", "5000")]);
    let mut ann = Client::attach(&server, ANN, "phone", r#","cursor":0"#);
    let mut bob = Client::attach(&server, BOB, "phone", r#","cursor":0"#);
    let began = Instant::now();
    let mut newest = 0;
    for round in 1..=300 {
        newest = ann.send(BOB);
        bob.store(newest);
        // nobody may read a hundred times a second
        if round % 10 == 0 {
            bob.read(newest);
        }
    }
    ann.receipt(BOB, newest, newest);
    let seconds = began.elapsed().as_secs() + 1;
    let (commits, changed) =
        (server.counter("switchboard_receipt_commits_total"), server.counter("switchboard_receipts_changed_total"));
    println!(
        "300 messages, each acknowledged, every tenth read, in {seconds} s: {commits} commits for receipts alone, {changed} rows changed"
    );
    // ten hand-overs of reads a second, one of deliveries; each changes at most two rows for the one conversation
    assert!(commits <= 11 * seconds, "{commits} commits in {seconds} s");
    assert!(changed <= 2 * 11 * seconds, "{changed} rows in {seconds} s");
    assert!(server.counter("switchboard_marks_total") > 0);
}
