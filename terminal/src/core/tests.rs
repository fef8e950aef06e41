//! The core alone: what comes out for what goes in, in which order, and that no order of mishaps loses or doubles anything.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::frame::ServerFrame;

fn options() -> Options {
    Options {
        device: "terminal-1".into(),
        user: "42".parse().unwrap(),
        mark_read: false,
        once: false,
        wait_ms: None,
        follow: false,
        timeout_ms: 60_000,
    }
}

fn core(options: Options) -> Core {
    Core::new(options, Vec::new(), Mailbox::default(), 7)
}

fn frame(value: Value) -> ServerFrame {
    serde_json::from_value(value).unwrap()
}

fn id(number: u64) -> MessageId {
    format!("01932f6e-5c1e-7c3a-9d4e-{number:012x}").parse().unwrap()
}

fn welcome(in_flight: usize) -> ServerFrame {
    frame(json!({"type": "welcome", "user": "42", "epoch": "1", "heartbeat_s": 30, "limits": {"in_flight": in_flight}}))
}

fn live(head: u64) -> ServerFrame {
    frame(json!({"type": "live", "head": head}))
}

fn message(seq: u64, from: &str, number: u64) -> ServerFrame {
    frame(json!({"type": "event", "seq": seq, "event": "message", "conversation": "d:42:43", "position": (100 + seq).to_string(),
        "from": from, "id": id(number).to_string(), "kind": "text", "body": {"text": "hi"}, "at": "2026-11-21T09:00:01.123Z"}))
}

fn accepted(number: u64) -> ServerFrame {
    frame(json!({"type": "accepted", "id": id(number).to_string(), "conversation": "d:42:43"}))
}

fn refused(number: u64, code: &str, is_final: bool) -> ServerFrame {
    frame(json!({"type": "refused", "id": id(number).to_string(), "code": code, "retry_after_ms": 400, "final": is_final}))
}

fn receipt(member: &str, delivered: u64, read: u64, rev: u64) -> ServerFrame {
    frame(json!({"type": "receipt", "conversation": "d:42:43", "member": member, "delivered": delivered.to_string(),
        "read": read.to_string(), "rev": rev.to_string()}))
}

fn send(number: u64) -> Command {
    Command::Send { id: Some(id(number)), to: "u:43".into(), text: "hi".into(), reply_to: None }
}

/// Connected and caught up; what came out until then is dropped.
fn go_live(core: &mut Core, now: u64) {
    core.time(now);
    core.opened(now);
    core.frame(welcome(32), now);
    core.frame(live(0), now);
    core.outputs();
}

fn written(outputs: &[Output]) -> Vec<Value> {
    let frames = outputs.iter().filter_map(|output| if let Output::Write(frame) = output { Some(frame) } else { None });
    frames.map(|frame| serde_json::to_value(frame).unwrap()).collect()
}

fn sent(outputs: &[Output]) -> Vec<String> {
    written(outputs)
        .iter()
        .filter(|frame| frame["type"] == "send")
        .map(|frame| frame["id"].as_str().unwrap().to_owned())
        .collect()
}

fn finished(outputs: &[Output]) -> Option<Ending> {
    outputs.iter().find_map(|output| if let Output::Finish(ending) = output { Some(ending.clone()) } else { None })
}

fn at(outputs: &[Output], test: impl Fn(&Output) -> bool) -> usize {
    outputs.iter().position(test).unwrap_or_else(|| panic!("not in {outputs:?}"))
}

#[test]
fn a_message_is_kept_before_it_is_sent_and_dropped_when_accepted() {
    let mut core = core(options());
    go_live(&mut core, 0);
    core.command(send(1), 1);
    let outputs = core.outputs();
    let kept = at(&outputs, |output| matches!(output, Output::KeepMessage(_)));
    let wrote = at(&outputs, |output| matches!(output, Output::Write(ClientFrame::Send(_))));
    assert!(kept < wrote, "{outputs:?}");
    core.frame(accepted(1), 2);
    let outputs = core.outputs();
    at(&outputs, |output| matches!(output, Output::Show(Shown::Accepted { label: Some(1), .. })));
    at(&outputs, |output| matches!(output, Output::DropMessage(_)));
    assert_eq!(core.waiting(), 0);
}

#[test]
fn an_event_is_shown_then_the_cursor_kept_then_it_is_acknowledged() {
    let mut core = core(options());
    go_live(&mut core, 0);
    core.frame(message(1, "43", 9), 1);
    let outputs = core.outputs();
    let shown = at(&outputs, |output| matches!(output, Output::Show(Shown::Message { own: false, .. })));
    let kept = at(&outputs, |output| matches!(output, Output::KeepMailbox(mailbox) if mailbox.cursor == Some(1)));
    assert!(shown < kept && written(&outputs).is_empty(), "{outputs:?}");
    core.time(core.deadline(1).unwrap());
    assert_eq!(written(&core.outputs()), [json!({"type": "received", "seq": 1})]);
    core.frame(message(1, "43", 9), 300);
    assert!(!core.outputs().iter().any(|output| matches!(output, Output::Show(Shown::Message { .. }))), "once on the screen");
}

#[test]
fn a_restart_resumes_with_its_cursor_and_sends_what_waits_under_the_same_id() {
    let mut first = core(options());
    go_live(&mut first, 0);
    first.frame(message(1, "43", 9), 1);
    first.command(send(1), 2);
    let outputs = first.outputs();
    let kept =
        outputs.iter().filter_map(|output| if let Output::KeepMessage(entry) = output { Some(entry.clone()) } else { None });
    let mailbox = outputs
        .iter()
        .rev()
        .find_map(|output| if let Output::KeepMailbox(mailbox) = output { Some(mailbox.clone()) } else { None });
    let mut second = Core::new(options(), kept.collect(), mailbox.unwrap(), 8);
    second.time(0);
    second.opened(0);
    let hello = &written(&second.outputs())[0];
    assert_eq!((&hello["cursor"], &hello["epoch"], &hello["rev"]), (&json!(1), &json!("1"), &json!("0")));
    second.frame(welcome(32), 1);
    assert_eq!(sent(&second.outputs()), [id(1).to_string()]);
}

#[test]
fn a_refusal_for_now_sends_everything_again_in_order_after_the_hint() {
    let mut core = core(options());
    go_live(&mut core, 0);
    for number in 1..=3 {
        core.command(send(number), 1);
    }
    core.outputs();
    core.frame(refused(1, "rate", false), 2);
    core.frame(refused(2, "fenced", false), 2);
    core.frame(refused(3, "fenced", false), 2);
    assert!(sent(&core.outputs()).is_empty());
    core.time(401);
    assert!(sent(&core.outputs()).is_empty(), "not before the server's hint");
    let due = core.deadline(402).unwrap();
    core.time(due);
    assert_eq!(sent(&core.outputs()), [1, 2, 3].map(|number| id(number).to_string()));
}

#[test]
fn a_final_refusal_is_told_and_makes_the_run_fail() {
    let mut core = core(options());
    go_live(&mut core, 0);
    core.command(send(1), 1);
    core.frame(refused(1, "too_large", true), 2);
    core.command(Command::End { hurry: None }, 3);
    let outputs = core.outputs();
    at(&outputs, |output| matches!(output, Output::Show(Shown::Refused { code, .. }) if code == "too_large"));
    assert_eq!(finished(&outputs), Some(Ending::Refused(1)));
}

#[test]
fn the_end_of_the_input_waits_for_accepted_and_gives_up_in_time() {
    let mut core = core(options());
    core.command(send(1), 0);
    core.command(Command::End { hurry: None }, 0);
    go_live(&mut core, 10);
    assert_eq!(finished(&core.outputs()), None);
    core.time(59_999);
    assert_eq!(finished(&core.outputs()), None);
    core.time(60_000);
    assert_eq!(finished(&core.outputs()), Some(Ending::NotAccepted(1)));
}

#[test]
fn the_last_acknowledgement_goes_out_before_the_end() {
    let mut core = core(options());
    core.command(Command::End { hurry: None }, 0);
    core.time(0);
    core.opened(0);
    core.frame(welcome(32), 0);
    core.frame(message(1, "43", 9), 0);
    assert_eq!(finished(&core.outputs()), None, "what was missed is taken first");
    core.frame(live(1), 0);
    let outputs = core.outputs();
    let acknowledged = at(&outputs, |output| matches!(output, Output::Write(ClientFrame::Received { seq: 1 })));
    let closed = at(&outputs, |output| *output == Output::Close);
    let finish = at(&outputs, |output| *output == Output::Finish(Ending::Done));
    assert!(acknowledged < closed && closed < finish, "{outputs:?}");
}

#[test]
fn once_takes_one_message_and_leaves_the_next_for_the_next_run() {
    let mut core = core(Options { once: true, ..options() });
    core.command(Command::End { hurry: None }, 0);
    go_live(&mut core, 0);
    core.frame(message(1, "42", 1), 1);
    assert_eq!(finished(&core.outputs()), None, "one's own does not count");
    core.frame(message(2, "43", 2), 1);
    core.frame(message(3, "43", 3), 1);
    let outputs = core.outputs();
    assert_eq!(finished(&outputs), Some(Ending::Done));
    let last =
        outputs.iter().rev().find_map(|output| if let Output::KeepMailbox(mailbox) = output { mailbox.cursor } else { None });
    assert_eq!(last, Some(2));
}

#[test]
fn wait_with_once_says_that_nothing_came() {
    let mut core = core(Options { once: true, wait_ms: Some(5_000), ..options() });
    core.command(Command::End { hurry: None }, 0);
    go_live(&mut core, 0);
    core.time(4_999);
    assert_eq!(finished(&core.outputs()), None);
    core.time(5_000);
    assert_eq!(finished(&core.outputs()), Some(Ending::NothingCame));
}

#[test]
fn a_refused_token_is_refreshed_at_once_and_then_with_patience_until_the_session_is_over() {
    let mut core = core(options());
    go_live(&mut core, 0);
    core.lost(&Loss::Closed(Some(4401)), 5);
    at(&core.outputs(), |output| *output == Output::Connect { refresh: true });
    for _ in 0..20 {
        core.lost(&Loss::Http { status: 401, retry_after_ms: 0 }, 6);
    }
    assert_eq!(finished(&core.outputs()), None, "a proxy may say so too");
    let due = core.deadline(6).unwrap();
    assert!(due > 6, "not at once");
    core.time(due);
    at(&core.outputs(), |output| *output == Output::Connect { refresh: true });
    core.lost(&Loss::SignedOut, due);
    assert_eq!(finished(&core.outputs()), Some(Ending::SignedOut));
}

#[test]
fn close_codes_are_followed() {
    let ended = |code| {
        let mut core = core(options());
        go_live(&mut core, 0);
        core.lost(&Loss::Closed(Some(code)), 1);
        finished(&core.outputs())
    };
    assert_eq!(ended(4409), Some(Ending::Elsewhere));
    assert!(matches!(ended(4426), Some(Ending::Unable(_))));
    assert!(matches!(ended(4400), Some(Ending::Unable(_))));
    for again in [1000, 1001, 4408, 4410, 4429, 4500] {
        assert_eq!(ended(again), None, "{again}");
    }
    let mut core = core(options());
    core.time(0);
    core.lost(&Loss::Http { status: 503, retry_after_ms: 9_000 }, 0);
    assert!(core.deadline(0).unwrap() >= 9_000, "the server's hint");
}

#[test]
fn a_server_that_moves_is_left_when_it_owes_nothing() {
    let mut core = core(options());
    go_live(&mut core, 0);
    core.command(send(1), 1);
    core.frame(frame(json!({"type": "move", "after_ms": 100})), 2);
    core.command(send(2), 3);
    assert_eq!(sent(&core.outputs()), [id(1).to_string()], "nothing new is sent there");
    core.time(150);
    assert!(!core.outputs().contains(&Output::Close), "an answer is owed");
    core.frame(accepted(1), 160);
    let outputs = core.outputs();
    let closed = at(&outputs, |output| *output == Output::Close);
    assert!(closed < at(&outputs, |output| matches!(output, Output::Connect { refresh: false })));
    core.opened(200);
    core.frame(welcome(32), 200);
    assert_eq!(sent(&core.outputs()), [id(2).to_string()]);
}

#[test]
fn silence_ends_a_connection() {
    let mut core = core(options());
    go_live(&mut core, 0);
    core.time(30_000);
    assert_eq!(written(&core.outputs()), [json!({"type": "ping"})]);
    core.time(60_000);
    let outputs = core.outputs();
    at(&outputs, |output| *output == Output::Close);
    at(&outputs, |output| matches!(output, Output::Show(Shown::Offline { .. })));
}

#[test]
fn a_read_mark_is_said_again_until_it_is_confirmed() {
    let mut core = core(options());
    go_live(&mut core, 0);
    let read = Command::Read { conversation: "d:42:43".into(), position: Position::from_stored(101) };
    let said = json!({"type": "read", "conversation": "d:42:43", "position": "101"});
    core.command(read, 1);
    assert_eq!(written(&core.outputs()), std::slice::from_ref(&said));
    core.lost(&Loss::Closed(None), 2);
    core.time(core.deadline(2).unwrap());
    core.opened(600);
    core.frame(welcome(32), 600);
    core.frame(live(0), 600);
    assert!(written(&core.outputs()).contains(&said));
    core.frame(receipt("42", 0, 101, 5), 601);
    core.lost(&Loss::Closed(None), 602);
    core.time(40_000);
    core.opened(40_000);
    core.frame(welcome(32), 40_000);
    core.frame(live(0), 40_000);
    let frames = written(&core.outputs());
    assert!(!frames.contains(&said));
    assert_eq!(frames[0]["rev"], "5");
}

fn read_in(number: u64) -> Command {
    Command::Read { conversation: format!("d:42:{number}"), position: Position::from_stored(101) }
}

fn marks(outputs: &[Output]) -> usize {
    written(outputs).iter().filter(|frame| frame["type"] == "read").count()
}

#[test]
fn read_marks_that_nobody_confirms_are_paced_and_said_once_a_connection() {
    let mut core = core(options());
    for number in 100..400 {
        core.command(read_in(number), 0);
    }
    for start in [0, 100_000] {
        core.time(start);
        core.opened(start);
        core.frame(welcome(32), start);
        core.frame(live(0), start);
        let (mut now, mut said) = (start, marks(&core.outputs()));
        assert!((1..=40).contains(&said), "{said} at once");
        for _ in 0..60 {
            now = core.deadline(now).unwrap().max(now);
            core.time(now);
            core.frame(frame(json!({"type": "pong"})), now);
            let more = marks(&core.outputs());
            said += more;
            assert!(said as u64 <= 40 + 40 * (now - start) / 1000, "{said} at {now}");
            if said == 300 && now > start + 20_000 {
                break;
            }
        }
        assert_eq!(said, 300, "each once");
        core.lost(&Loss::Closed(None), start + 60_000);
        core.outputs();
    }
}

#[test]
fn a_new_mark_does_not_wait_for_old_ones_and_a_run_waits_only_for_its_own() {
    let mut core = core(Options { timeout_ms: 500, ..options() });
    for number in 100..400 {
        core.mailbox.read(&format!("d:42:{number}"), Position::from_stored(101));
    }
    go_live(&mut core, 0);
    core.command(read_in(43), 1);
    core.command(Command::End { hurry: None }, 2);
    let outputs = core.outputs();
    assert_eq!(marks(&outputs), 1);
    assert_eq!(finished(&outputs), Some(Ending::Done), "the old ones are kept for the next connection");
}

#[test]
fn marks_that_are_not_said_in_time_are_no_failure() {
    let mut core = core(Options { timeout_ms: 500, ..options() });
    go_live(&mut core, 0);
    for number in 100..200 {
        core.command(read_in(number), 0);
    }
    core.command(Command::End { hurry: None }, 0);
    assert_eq!(finished(&core.outputs()), None, "60 are not said yet");
    core.time(500);
    assert_eq!(finished(&core.outputs()), Some(Ending::Done));
}

#[test]
fn a_mark_that_was_one_too_many_is_no_failure_and_the_rest_waits() {
    let mut core = core(options());
    go_live(&mut core, 0);
    let rate = || frame(json!({"type": "error", "code": "rate", "message": "too many", "retry_after_ms": 3000}));
    core.command(read_in(43), 0);
    core.frame(rate(), 1);
    core.command(read_in(44), 2);
    core.time(3000);
    assert_eq!(marks(&core.outputs()), 1, "only the first");
    core.time(core.deadline(3000).unwrap());
    core.command(Command::End { hurry: None }, 3002);
    let outputs = core.outputs();
    assert_eq!((marks(&outputs), finished(&outputs)), (1, Some(Ending::Done)));

    let mut other = self::core(options());
    go_live(&mut other, 0);
    other.frame(rate(), 1);
    other.command(Command::End { hurry: None }, 2);
    assert_eq!(finished(&other.outputs()), Some(Ending::Refused(1)), "it meant something else");
}

#[test]
fn ticks_follow_whatever_order_they_come_in() {
    let mut core = core(options());
    go_live(&mut core, 0);
    core.command(send(1), 1);
    core.frame(receipt("43", 101, 0, 5), 2);
    core.frame(accepted(1), 3);
    let ticked = |outputs: &[Output]| -> Vec<Tick> {
        let shown = outputs
            .iter()
            .filter_map(|output| if let Output::Show(Shown::Ticked { tick, .. }) = output { Some(*tick) } else { None });
        shown.collect()
    };
    assert!(ticked(&core.outputs()).is_empty(), "its place is not known");
    core.frame(message(1, "42", 1), 4);
    assert_eq!(ticked(&core.outputs()), [Tick::Delivered]);
    core.frame(receipt("43", 101, 101, 6), 5);
    core.frame(receipt("43", 101, 0, 7), 6);
    assert_eq!(ticked(&core.outputs()), [Tick::Read], "and never back");
}

#[test]
fn a_full_outbox_takes_no_more_input() {
    let mut core = core(options());
    for number in 0..outbox::OUTBOX_MAX as u64 {
        assert!(core.takes_input());
        core.command(send(number), 0);
    }
    assert!(!core.takes_input());
    go_live(&mut core, 0);
    core.frame(accepted(0), 1);
    assert!(core.takes_input());
}

#[test]
fn a_page_that_was_asked_for_is_asked_for_again_on_the_next_connection() {
    let mut core = core(options());
    core.command(Command::Conversations(List { before: None, limit: 20 }), 0);
    core.command(Command::End { hurry: None }, 0);
    core.time(0);
    for now in [0, 40_000] {
        core.time(now);
        core.opened(now);
        core.frame(welcome(32), now);
        core.frame(live(0), now);
        let outputs = core.outputs();
        assert!(written(&outputs).iter().any(|frame| frame["type"] == "conversations"));
        assert_eq!(finished(&outputs), None);
        if now == 0 {
            core.lost(&Loss::Closed(None), now);
        }
    }
    core.frame(frame(json!({"type": "conversations", "conversations": [], "before": null})), 40_001);
    assert_eq!(finished(&core.outputs()), Some(Ending::Done));
}

/// A server that keeps what it accepts, by id; its answers may be lost, it may refuse for now, and it may be killed.
#[derive(Debug, Default)]
struct Server {
    log: Vec<String>,
    answers: VecDeque<ServerFrame>,
}

impl Server {
    fn take(&mut self, send: &str, mishap: u8) {
        let answer = match mishap {
            0 => json!({"type": "refused", "id": send, "code": "rate", "retry_after_ms": 10, "final": false}),
            1 => json!({"type": "error", "code": "outcome_unknown", "id": send, "retry_after_ms": 10}),
            _ => json!({"type": "accepted", "id": send, "conversation": "d:42:43"}),
        };
        // an unknown outcome may be a message
        if mishap != 0 && !self.log.iter().any(|known| known == send) {
            self.log.push(send.to_owned());
        }
        self.answers.push_back(frame(answer));
    }
}

proptest! {
    /// Whatever is refused, lost or killed on the way, the server has every message once in the end, and the client knows.
    #[test]
    fn everything_sent_arrives_once(steps in prop::collection::vec((0u8..12, 0u8..6), 1..120)) {
        let (mut core, mut disk, mut mailbox) = (core(options()), BTreeMap::new(), Mailbox::default());
        let (mut server, mut now, mut next, mut open) = (Server::default(), 0, 0, false);
        let settling = std::iter::repeat_n((9u8, 5u8), 2_000);
        for (step, mishap) in steps.into_iter().chain(settling) {
            now += 50;
            match step {
                0..=3 if core.takes_input() && next < 60 => {
                    core.command(send(next), now);
                    next += 1;
                }
                4 if open => {
                    open = false;
                    server.answers.clear();
                    core.lost(&Loss::Closed(Some(4500)), now);
                }
                5 => {
                    // killed: what is on disk is all there is
                    core = Core::new(options(), disk.values().cloned().collect(), mailbox.clone(), now);
                    open = false;
                    server.answers.clear();
                    core.time(now);
                }
                _ => {}
            }
            core.time(now);
            while let Some(answer) = server.answers.pop_front() {
                core.frame(answer, now);
            }
            for output in core.outputs() {
                match output {
                    Output::Connect { .. } => open = true,
                    Output::KeepMessage(entry) => drop(disk.insert(entry.number, entry)),
                    Output::DropMessage(entry) => drop(disk.remove(&entry.number)),
                    Output::KeepMailbox(kept) => mailbox = kept,
                    Output::Write(ClientFrame::Send(sent)) => {
                        prop_assert!(disk.values().any(|entry| entry.id == sent.id), "kept before it is sent");
                        server.take(&sent.id.to_string(), mishap);
                    }
                    Output::Write(ClientFrame::Hello(_)) => server.answers.extend([welcome(4), live(0)]),
                    Output::Close => open = false,
                    _ => {}
                }
                if open && core.link == Link::Dialing {
                    core.opened(now);
                    core.time(now);
                }
            }
            prop_assert!(core.waiting() <= outbox::OUTBOX_MAX);
        }
        prop_assert_eq!(core.waiting(), 0, "everything is settled");
        prop_assert!(disk.is_empty());
        let all: std::collections::BTreeSet<_> = (0..next).map(|number| id(number).to_string()).collect();
        prop_assert_eq!(server.log.len(), all.len(), "each once");
        prop_assert_eq!(server.log.iter().cloned().collect::<std::collections::BTreeSet<_>>(), all);
    }

    /// However events are repeated after reconnects, each is shown once and in order, and the kept cursor is never ahead of the screen.
    #[test]
    fn every_event_is_shown_once(jumps in prop::collection::vec(1u64..20, 1..60)) {
        let mut core = core(options());
        go_live(&mut core, 0);
        let (mut screen, mut newest) = (Vec::new(), 0_u64);
        for jump in jumps {
            // the server goes on from somewhere before what was seen, as after a reconnect
            let from = newest.saturating_sub(jump) + 1;
            for seq in from..=newest + 2 {
                core.frame(message(seq, "43", seq), 1);
                for output in core.outputs() {
                    match output {
                        Output::Show(Shown::Message { event, .. }) => screen.push(event.seq.unwrap()),
                        Output::KeepMailbox(kept) => prop_assert_eq!(kept.cursor, screen.last().copied()),
                        _ => {}
                    }
                }
            }
            newest += 2;
        }
        prop_assert_eq!(screen, (1..=newest).collect::<Vec<_>>());
    }
}
