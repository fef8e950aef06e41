//! A batch of pushes as frames and back. A body that stands for several owners in a row is encoded once.

use bytes::Bytes;
use protocol::UserId;
use protocol::record::{Event, EventBody};

use super::frame::{FRAME_MAX, Garbage, Kind, Pushes, encode};
use crate::push::Push;

/// A frame is closed when its bodies have this many bytes.
const CUT_BYTES: usize = 128 * 1024;
/// Most rows of a frame.
const ROWS_MAX: usize = 4096;
/// Most bytes a row takes beside its body, with the tags around it.
const ROW_BYTES: usize = 48;
/// Longest body: with everything around it one frame holds it.
const BODY_MAX: usize = FRAME_MAX - CUT_BYTES - ROWS_MAX * ROW_BYTES - 1024;

/// Some pushes, encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    /// How many.
    pub(super) pushes: usize,
    /// The frame without length and counter.
    pub(super) frame: Bytes,
}

fn same(one: &EventBody, other: &EventBody) -> bool {
    match (one, other) {
        (EventBody::Message(one), EventBody::Message(other)) => std::sync::Arc::ptr_eq(one, other),
        (EventBody::Refused(one), EventBody::Refused(other)) => std::sync::Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// Frames of a batch, in its order. Returns also how many pushes have a body that no frame holds; they are left out.
pub(super) fn seal(pushes: &[Push]) -> (Vec<Sealed>, usize) {
    let (mut frames, mut too_long) = (Vec::with_capacity(1), 0);
    let (mut rows, mut bytes) = (Pushes::default(), 0);
    let mut last: Option<&EventBody> = None;
    for Push { owner, epoch, event } in pushes {
        if rows.owners.len() == ROWS_MAX || bytes > CUT_BYTES {
            frames.push(close(&mut rows, &mut bytes));
            last = None;
        }
        if !last.is_some_and(|last| same(last, &event.body)) {
            let body = event.body.encode();
            if body.len() > BODY_MAX {
                too_long += 1;
                continue;
            }
            bytes += body.len();
            rows.bodies.push(body);
            last = Some(&event.body);
        }
        rows.owners.push(owner.get());
        rows.epochs.push(*epoch);
        rows.seqs.push(event.seq);
        // at most ROWS_MAX
        rows.of.push(rows.bodies.len() as u32 - 1);
    }
    if !rows.owners.is_empty() {
        frames.push(close(&mut rows, &mut bytes));
    }
    (frames, too_long)
}

fn close(rows: &mut Pushes, bytes: &mut usize) -> Sealed {
    *bytes = 0;
    let rows = std::mem::take(rows);
    Sealed { pushes: rows.owners.len(), frame: encode(Kind::Pushes(rows)) }
}

/// Pushes of a frame. Returns also how many have a body that this build cannot read: a newer build's, or damaged; they are left out, and their
/// owners hear of them by their heads.
pub(super) fn open(frame: &Pushes) -> Result<(Vec<Push>, usize), Garbage> {
    let rows = frame.owners.len();
    let even = frame.epochs.len() == rows && frame.seqs.len() == rows && frame.of.len() == rows;
    if !even || rows > ROWS_MAX || frame.bodies.len() > rows {
        return Err(Garbage);
    }
    let bodies: Vec<_> = frame.bodies.iter().map(|body| EventBody::decode(body).ok()).collect();
    let (mut pushes, mut unread) = (Vec::with_capacity(rows), 0);
    for row in 0..rows {
        let of = usize::try_from(frame.of[row]).map_err(|_| Garbage)?;
        match bodies.get(of).ok_or(Garbage)? {
            None => unread += 1,
            Some(body) => pushes.push(Push {
                owner: UserId::from_stored(frame.owners[row]),
                epoch: frame.epochs[row],
                event: Event { seq: frame.seqs[row], body: body.clone() },
            }),
        }
    }
    Ok((pushes, unread))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use protocol::record::{BodyHash, Content, Identity, Message, Record, Refusal};
    use protocol::{ConversationId, ErrorCode, MessageId, Position};

    use super::*;
    use crate::link::frame::{Cutter, write};

    fn body(number: u8, length: usize, refused: bool) -> EventBody {
        let (one, other) = (UserId::from_stored(1), UserId::from_stored(number.into()));
        let id = MessageId::from_stored(&[number; 16]).unwrap();
        let identity = Identity { sender: one, conversation: ConversationId::direct(one, other), id };
        let position = Position::new(1, number.into());
        if refused {
            let (code, body_hash) = (ErrorCode::IdReused, BodyHash(u128::MAX));
            return EventBody::Refused(Arc::new(Refusal { identity, position, body_hash, code, at_ms: 3 }));
        }
        let record = Record { identity, content: Content::Text("x".repeat(length)), reply_to: None, at_ms: 9 };
        EventBody::Message(Arc::new(Message::new(record, position)))
    }

    pub(in crate::link) fn push(number: u8) -> Push {
        Push { owner: UserId::from_stored(5), epoch: 1, event: Event { seq: number.into(), body: body(number, 10, false) } }
    }

    fn tuple(push: &Push) -> (UserId, u64, Event) {
        (push.owner, push.epoch, push.event.clone())
    }

    fn there_and_back(frames: &[Sealed]) -> Vec<(UserId, u64, Event)> {
        let mut stream = Vec::new();
        for sealed in frames {
            write(&mut stream, 1, &sealed.frame);
        }
        let mut cutter = Cutter::new();
        cutter.trust();
        cutter.feed(&stream);
        let mut heard = Vec::new();
        while let Some(frame) = cutter.next().unwrap() {
            let Some(Kind::Pushes(pushes)) = frame.kind else { panic!("only pushes were sent") };
            let (pushes, unread) = open(&pushes).unwrap();
            assert_eq!(unread, 0);
            heard.extend(pushes.iter().map(tuple));
        }
        heard
    }

    proptest! {
        #[test]
        fn batches_come_as_they_were(rows in proptest::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), 1..9_u8, any::<bool>()), 0..60)) {
            let bodies: Vec<_> = (0..9).flat_map(|number| [body(number, 50_000, false), body(number, 0, true)]).collect();
            let pushes: Vec<_> = rows.into_iter().map(|(owner, epoch, seq, number, refused)| {
                let body = bodies[usize::from(number) * 2 + usize::from(refused)].clone();
                Push { owner: UserId::from_stored(owner), epoch, event: Event { seq, body } }
            }).collect();
            let (frames, too_long) = seal(&pushes);
            prop_assert_eq!(too_long, 0);
            prop_assert_eq!(frames.iter().map(|frame| frame.pushes).sum::<usize>(), pushes.len());
            prop_assert!(frames.iter().all(|frame| frame.frame.len() < FRAME_MAX / 2));
            prop_assert_eq!(there_and_back(&frames), pushes.iter().map(tuple).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_body_goes_once_for_all_who_get_it() {
        let body = body(1, 10_000, false);
        let to = |owner| Push { owner: UserId::from_stored(owner), epoch: 1, event: Event { seq: owner, body: body.clone() } };
        let (frames, _) = seal(&(1..=100).map(to).collect::<Vec<_>>());
        assert_eq!(frames.len(), 1);
        assert!(frames[0].frame.len() < 11_000, "{}", frames[0].frame.len());
    }

    #[test]
    fn the_longest_body_fits_and_a_longer_one_is_left_out() {
        let long =
            |length| Push { owner: UserId::from_stored(2), epoch: 1, event: Event { seq: 1, body: body(1, length, false) } };
        let (frames, too_long) = seal(&[push(1), long(BODY_MAX - 200), long(BODY_MAX), push(2)]);
        assert_eq!(too_long, 1);
        assert_eq!(there_and_back(&frames).len(), 3);
    }

    #[test]
    fn columns_that_do_not_fit_are_garbage() {
        let good =
            Pushes { bodies: vec![body(1, 3, false).encode()], owners: vec![1], epochs: vec![1], seqs: vec![1], of: vec![0] };
        assert_eq!(open(&good).unwrap().0.len(), 1);
        assert!(open(&Pushes { of: vec![1], ..good.clone() }).is_err());
        assert!(open(&Pushes { seqs: vec![], ..good.clone() }).is_err());
        assert!(open(&Pushes { bodies: vec![Bytes::new(); 2], ..good.clone() }).is_err());
        let (pushes, unread) = open(&Pushes { bodies: vec![Bytes::from_static(b"\xff")], ..good }).unwrap();
        assert_eq!((pushes.len(), unread), (0, 1));
    }
}
