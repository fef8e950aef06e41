//! Fuzz targets: every parser that bytes of the network or of a log reach, and whole sessions, each as a plain function of bytes that panics when
//! something is wrong. `gateway/tests/fuzz` replays the corpus against them and mutates it a while; `scripts/fuzz` hands them to cargo-fuzz.
//!
//! A target is one line in [`TARGETS`], one file in `fuzz_targets/` and one folder in `corpus/`.

pub mod handshake;
pub mod messages;
pub mod records;
pub mod session;

/// A target.
pub type Target = fn(&[u8]);

/// All of them, by the name of their corpus.
pub const TARGETS: [(&str, Target); 11] = [
    ("handshake", handshake::upgrade),
    ("token", handshake::token),
    ("frame_reader", messages::frames),
    ("client_frame", messages::client_frame),
    ("client_frame_proto", messages::client_frame_proto),
    ("names", messages::names),
    ("log_record", records::log_record),
    ("checkpoint", records::checkpoint),
    ("link_frames", storage::link::fuzz::frames),
    ("link_handshake", storage::link::fuzz::handshake),
    ("session", session::session),
];

/// Inputs to begin with, one of each kind that matters: target, name, bytes.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let all = [handshake::seeds(), messages::seeds(), records::seeds(), storage::link::fuzz::seeds(), session::seeds()];
    all.into_iter().flatten().collect()
}
