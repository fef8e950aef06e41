//! Memory under hostile input: what the table costs, what it costs many times over, and what is left when the attackers have gone.

use crate::raw::{Raw, Server, client_frame};
use crate::{Deed, Setting, perform, rows};

const MIB: u64 = 1 << 20;
/// How often the table is gone through.
const PASSES: usize = 10;
/// Sockets that hold a message that is not finished, and its bytes.
const HALVES: u64 = 200;
const HALF: usize = 60_000;
/// Sockets that claim a length of 2^63-1, and those that send heads of 20 MB, all at once.
const CLAIMS: usize = 300;

/// What the allocator may keep of what it has given back, and of what the store caches meanwhile.
const SLACK: u64 = 32 * MIB;

/// One pass over all rows that need no other server. The most memory seen.
fn pass(server: &Server) -> u64 {
    let mut most = 0;
    for row in rows(server).iter().filter(|row| row.on == Setting::Plain && !matches!(row.deed, Deed::Scene(_))) {
        perform(row, server);
        most = most.max(server.memory());
    }
    most
}

/// Messages that are never finished, each as long as it may be.
fn halves(server: &Server) -> Vec<Raw> {
    let half = client_frame(0x01, &[b' '; HALF]);
    let hold = |user| {
        let mut raw = Raw::upgrade(server.address(), &[]);
        let (token, device) = (server.token(user % 90 + 1), user / 90);
        raw.text(&format!(r#"{{"type":"hello","token":"{token}","device":"half-{device}"}}"#));
        raw.until("\"live\"");
        raw.write(&half).expect("open");
        raw
    };
    (0..HALVES).map(hold).collect()
}

/// Lengths that are only claimed, all open at once.
fn claims(server: &Server) {
    let claim = [vec![0x81, 0xff], (u64::MAX >> 1).to_be_bytes().to_vec(), vec![0; 4]].concat();
    let mut all: Vec<_> = (0..CLAIMS).map(|_| Raw::upgrade(server.address(), &[])).collect();
    for raw in &mut all {
        raw.write(&claim).expect("open");
    }
    for raw in &mut all {
        assert_eq!(raw.close_code(), Some(1009));
    }
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let server = Server::start_with(Setting::Plain.settings());
    let mut witness = server.witness();
    let sockets = server.counter("switchboard_sockets");
    pass(&server);
    let quiet = server.memory();

    let most = (0..PASSES).map(|_| pass(&server)).max().unwrap_or(0);
    witness.chat();
    claims(&server);
    let claimed = server.memory();
    let held = halves(&server);
    let received = HALVES * HALF as u64;
    server
        .wait_until("all halves have arrived", || server.counter("switchboard_socket_bytes_total{direction=\"in\"}") > received);
    witness.chat();
    let holding = server.memory();
    drop(held);
    server.wait_until("the attackers are gone", || server.counter("switchboard_sockets") == sockets);
    server.wait_until("the allocator has given back what they cost", || server.memory() < quiet + SLACK);
    witness.chat();
    let after = server.memory();
    println!(
        "memory, MiB: after one pass {}, most of {PASSES} passes {}, after {CLAIMS} claimed lengths {}, holding {HALVES} unfinished messages {}, after {}",
        quiet / MIB,
        most / MIB,
        claimed / MIB,
        holding / MIB,
        after / MIB
    );
    assert!(most < quiet + SLACK, "the table costs {} MiB more, many times over", (most - quiet) / MIB);
    assert!(claimed < quiet + SLACK, "claimed lengths cost {} MiB", (claimed - quiet) / MIB);
    // a message is held in one buffer that doubles, so at most twice its length
    assert!(holding < quiet + 2 * received + SLACK, "unfinished messages cost {} MiB", (holding - quiet) / MIB);
}
