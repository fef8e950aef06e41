//! Every planted bug is found: by the checker that is there for it, within 1,000 seeds. The first that finds it is printed.

use protocol::plant::Bug;
use simulation::run;

const SEEDS: u64 = 1000;

/// The first seed that finds the bug, by a finding that begins so.
fn found(bug: Bug, by: &str) {
    let finds = |seed: &u64| run(*seed, Some(bug), false).wrong.iter().any(|wrong| wrong.starts_with(by));
    let seed = (0..SEEDS).find(finds).unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS} seeds as \"{by}\""));
    println!("{bug:?}: seed {seed}, \"{by}\"");
}

#[test]
fn ack_before_durable_is_found() {
    found(Bug::AckBeforeDurable, "lost:");
}

#[test]
fn read_before_register_is_found() {
    found(Bug::ReadBeforeRegister, "silent:");
}

#[test]
fn look_up_before_commit_is_found() {
    found(Bug::LookUpBeforeCommit, "silent:");
}

#[test]
fn no_fence_is_found() {
    found(Bug::NoFence, "a stale owner's commit was taken");
    found(Bug::NoFence, "lost:");
}

#[test]
fn checkpoint_before_reports_is_found() {
    found(Bug::CheckpointBeforeReports, "router checkpoint");
}

#[test]
fn conflict_drops_for_all_is_found() {
    found(Bug::ConflictDropsForAll, "lost:");
}

#[test]
fn cursor_before_write_is_found() {
    found(Bug::CursorBeforeWrite, "queue:");
    found(Bug::CursorBeforeWrite, "gap:");
}

#[test]
fn hole_stepped_over_is_found() {
    found(Bug::HoleSteppedOver, "lost:");
}

#[test]
fn cursor_without_epoch_is_found() {
    found(Bug::CursorWithoutEpoch, "lost:");
}

#[test]
fn pushes_lost_is_found() {
    found(Bug::PushesLost, "late:");
}

#[test]
fn group_offset_as_truth_is_found() {
    found(Bug::GroupOffsetAsTruth, "lost:");
}

#[test]
fn outcome_guessed_is_found() {
    found(Bug::OutcomeGuessed, "lost:");
}

#[test]
fn lane_without_fence_is_found() {
    found(Bug::LaneWithoutFence, "order:");
}

#[test]
fn followed_before_told_is_found() {
    found(Bug::FollowedBeforeTold, "unnotified:");
}

#[test]
fn heads_not_compared_is_found() {
    found(Bug::HeadsNotCompared, "late:");
}

#[test]
fn move_torn_is_found() {
    found(Bug::MoveTorn, "lost:");
}
