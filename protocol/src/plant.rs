//! Planted bugs. A checker is only worth something if it finds a bug that is there; so tests switch on, one at a time, a bug this design
//! could have had. Without the feature `plant` (every build but tests) [`planted`] is `false` and the compiler removes the branch.

/// A bug that a test can switch on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Bug {
    /// The commit cycle answers without fsync.
    NoFsync = 1,
    /// The sender is told `accepted` before its record is durable.
    AckBeforeDurable,
    /// A device reads its mailbox before it is registered.
    ReadBeforeRegister,
    /// Storage asks the registry before it commits.
    LookUpBeforeCommit,
    /// A commit by a stale owner is taken.
    NoFence,
    /// The router's checkpoint moves before all records up to it are reported durable.
    CheckpointBeforeReports,
    /// One owner's repeat drops the record for every owner.
    ConflictDropsForAll,
    /// A cursor is stored before the event is in the socket.
    CursorBeforeWrite,
    /// Storage steps over a hole in the chain.
    HoleSteppedOver,
    /// A cursor of another stream epoch is taken.
    CursorWithoutEpoch,
    /// A gateway takes pushes and hands none to its sessions.
    PushesLost,
    /// An owner goes on where its log was read to, not where the database says it was worked in to.
    GroupOffsetAsTruth,
    /// A commit whose answer was lost is taken for done.
    OutcomeGuessed,
    /// A send goes on to be submitted though the one before it in its conversation must come again.
    LaneWithoutFence,
    /// The follower's offset is saved before what it stands for is appended.
    FollowedBeforeTold,
    /// Heads are never compared.
    HeadsNotCompared,
    /// A shard's copy is of two moments: its rows of one, its checkpoint of a later one.
    MoveTorn,
}

impl Bug {
    /// Every bug with its name for the command line and the environment.
    pub const ALL: [(Self, &'static str); 17] = [
        (Self::NoFsync, "no_fsync"),
        (Self::AckBeforeDurable, "ack_before_durable"),
        (Self::ReadBeforeRegister, "read_before_register"),
        (Self::LookUpBeforeCommit, "look_up_before_commit"),
        (Self::NoFence, "no_fence"),
        (Self::CheckpointBeforeReports, "checkpoint_before_reports"),
        (Self::ConflictDropsForAll, "conflict_drops_for_all"),
        (Self::CursorBeforeWrite, "cursor_before_write"),
        (Self::HoleSteppedOver, "hole_stepped_over"),
        (Self::CursorWithoutEpoch, "cursor_without_epoch"),
        (Self::PushesLost, "pushes_lost"),
        (Self::GroupOffsetAsTruth, "group_offset_as_truth"),
        (Self::OutcomeGuessed, "outcome_guessed"),
        (Self::LaneWithoutFence, "lane_without_fence"),
        (Self::FollowedBeforeTold, "followed_before_told"),
        (Self::HeadsNotCompared, "heads_not_compared"),
        (Self::MoveTorn, "move_torn"),
    ];
}

#[cfg(feature = "plant")]
mod switch {
    use super::Bug;
    use std::cell::Cell;
    use std::sync::OnceLock;

    thread_local!(static HERE: Cell<Option<Bug>> = const { Cell::new(None) });

    /// Bug of the whole process, from `SWITCHBOARD_PLANT`.
    fn of_process() -> Option<Bug> {
        static FROM_ENV: OnceLock<Option<Bug>> = OnceLock::new();
        *FROM_ENV.get_or_init(|| {
            let name = std::env::var("SWITCHBOARD_PLANT").ok()?;
            Bug::ALL.iter().find(|(_, known)| *known == name).map(|(bug, _)| *bug)
        })
    }

    /// A place at which a fault test may want this process to die: it does, at once and without any farewell, when a file of that name lies in
    /// the folder `TEST_HALTS`. The file is taken away first, so that the next life passes.
    pub fn halt(place: &str) {
        if folder().is_some_and(|folder| std::fs::remove_file(folder.join(place)).is_ok()) {
            eprintln!("halted at {place}");
            std::process::abort();
        }
    }

    /// For how long a fault test wants everybody to wait at this place: 0, or the milliseconds in the file of that name.
    pub fn held(place: &str) -> u64 {
        let text = folder().and_then(|folder| std::fs::read_to_string(folder.join(place)).ok());
        text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }

    fn folder() -> Option<&'static std::path::PathBuf> {
        static FOLDER: OnceLock<Option<std::path::PathBuf>> = OnceLock::new();
        FOLDER.get_or_init(|| std::env::var_os("TEST_HALTS").map(Into::into)).as_ref()
    }

    /// Switches a bug on (or off) for this thread: a simulation runs on one.
    pub fn plant(bug: Option<Bug>) {
        HERE.set(bug);
    }

    /// Whether this bug is on.
    pub fn planted(bug: Bug) -> bool {
        HERE.get() == Some(bug) || of_process() == Some(bug)
    }
}

#[cfg(feature = "plant")]
pub use switch::{halt, held, plant, planted};

/// A place at which a fault test may want the process to die: never, in this build.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub const fn halt(_place: &str) {}

/// For how long everybody waits at this place, milliseconds: never, in this build.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub const fn held(_place: &str) -> u64 {
    0
}

/// Whether this bug is on: never, in this build.
#[cfg(not(feature = "plant"))]
#[inline(always)]
pub const fn planted(_bug: Bug) -> bool {
    false
}
