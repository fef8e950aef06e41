//! Both ends of a link without sockets, handshake and clocks, for the simulation: the queue, the frames and the counters are the real ones.

use protocol::{DeviceName, UserId};
use router::consume::Rewind;

use super::batch::{open, seal};
use super::frame::{Cutter, Frame, Kind, WireSuperseded};
use super::queue::Queue;
use super::track::{Gap, Track};
use crate::push::Push;

/// The sending end.
#[derive(Debug)]
pub struct Sending(Queue);

impl Sending {
    /// A link that is down, with room for so many pushes and bytes.
    pub fn new(pushes_max: usize, bytes_max: usize) -> Self {
        Self(Queue::new(pushes_max, bytes_max))
    }

    /// The link stands: counting begins again.
    pub fn up(&mut self) {
        self.0.up();
    }

    /// The link broke. Returns how many pushes are lost.
    pub fn down(&mut self) -> usize {
        self.0.down()
    }

    /// Offers pushes; returns how many were dropped.
    pub fn push(&mut self, pushes: &[Push]) -> usize {
        if self.0.admits(pushes.len()).is_err() {
            return pushes.len();
        }
        let (frames, mut lost) = seal(pushes);
        for sealed in frames {
            let pushes = sealed.pushes;
            lost += if self.0.offer(sealed).is_err() { pushes } else { 0 };
        }
        lost
    }

    /// A request to rewind; says whether there was room.
    pub fn rewind(&mut self, rewind: Rewind) -> bool {
        self.0.ask(rewind)
    }

    /// A session to close; says whether there was room.
    pub fn supersede(&mut self, user: UserId, device: &DeviceName, counter: u64) -> bool {
        self.0.supersede(WireSuperseded { user: user.get(), device: device.as_str().to_owned(), counter })
    }

    /// What goes into the socket next, at most about so many bytes.
    pub fn take(&mut self, enough: usize) -> Vec<u8> {
        let mut buffer = Vec::new();
        self.0.take(&mut buffer, enough);
        buffer
    }

    /// A sign of life.
    pub fn beat(&mut self) -> Vec<u8> {
        let mut buffer = Vec::new();
        self.0.beat(&mut buffer);
        buffer
    }
}

/// What bytes of a link say.
#[derive(Debug, Default)]
pub struct Heard {
    /// Events for sessions here.
    pub pushes: Vec<Push>,
    /// Requests for routers here.
    pub rewinds: Vec<Rewind>,
    /// Sessions to close: whose, which device, up to which counter.
    pub superseded: Vec<(UserId, DeviceName, u64)>,
    /// Something may have been missed: because the link is new, or because frames were dropped.
    pub gaps: Vec<&'static str>,
}

/// The receiving end.
#[derive(Debug)]
pub struct Receiving {
    cutter: Cutter,
    track: Track,
}

impl Default for Receiving {
    fn default() -> Self {
        let mut cutter = Cutter::new();
        cutter.trust();
        Self { cutter, track: Track::default() }
    }
}

impl Receiving {
    /// Whether anything has come: then its end is a gap.
    pub const fn opened(&self) -> bool {
        self.track.opened()
    }

    /// Bytes came. None: they are no frames.
    pub fn hear(&mut self, bytes: &[u8]) -> Option<Heard> {
        self.cutter.feed(bytes);
        let mut heard = Heard::default();
        while let Some(frame) = self.cutter.next().ok()? {
            self.take(frame, &mut heard)?;
        }
        Some(heard)
    }

    fn take(&mut self, frame: Frame, heard: &mut Heard) -> Option<()> {
        let gap = match frame.kind? {
            Kind::Pushes(pushes) => {
                let gap = self.track.pushes(frame.counter);
                heard.pushes.extend(open(&pushes).ok()?.0);
                gap
            }
            Kind::Rewinds(rewinds) => {
                heard.rewinds.extend(rewinds.rewinds.iter().filter_map(super::frame::WireRewind::rewind));
                None
            }
            Kind::Supersedes(frame) => {
                for one in &frame.superseded {
                    heard.superseded.push((UserId::from_stored(one.user), one.device.parse().ok()?, one.counter));
                }
                None
            }
            Kind::Beat(_) => self.track.beat(frame.counter),
            _ => return None,
        };
        heard.gaps.extend(gap.map(|gap| match gap {
            Gap::New => "new",
            Gap::Counter => "counter",
        }));
        Some(())
    }
}
