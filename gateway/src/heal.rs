//! A lost hint heals: every ten seconds, and at once when a link from storage broke, the heads of all mailboxes with a session here are asked of
//! the store, and each session hears how far its mailbox goes. Pushes are hints; this is why losing one is a delay and nothing else.
//!
//! And when the registry may have forgotten, every session is entered again as it was, paced; so it is every few minutes, whatever happened. Who
//! learns by it that the device has attached elsewhere is closed.

use std::collections::HashMap;
use std::time::Duration;

use protocol::plant::{Bug, planted};
use protocol::{CloseCode, UserId};
use router::registry::{Registered, Registration, RegistryError};
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::deliver::{Entered, UNREGISTERED};
use crate::metrics;
use crate::node::Gateway;
use crate::outbox::Answer;

/// How often heads are compared when nothing calls for it.
const EVERY: Duration = Duration::from_secs(10);
/// After a comparison that a link called for: links that break all the time must not ask the databases all the time.
const LINK_REST: Duration = Duration::from_secs(1);
/// Mailboxes asked for at once.
const BATCH: usize = 2_000;
/// Between the batches of one comparison.
const PACE: Duration = Duration::from_millis(20);

/// How often sessions are entered into the registry again when nothing calls for it.
const ENTER_EVERY: Duration = Duration::from_secs(300);
/// Sessions entered by one call.
const ENTER_BATCH: usize = 256;
/// Between two tries while the registry does not answer.
const ENTER_RETRY: Duration = Duration::from_secs(1);

/// Compares, and enters again, for ever.
pub async fn run(node: &Gateway) {
    tokio::join!(compare_for_ever(node), enter_for_ever(node));
}

async fn enter_for_ever(node: &Gateway) {
    if node.ports.links.is_none() {
        return; // one process: its registry lives and dies with it
    }
    loop {
        tokio::select! {
            biased;
            () = sleep(ENTER_EVERY) => {}
            () = node.sessions.registry_forgot.notified() => {}
        }
        while let Err(why) = enter(node).await {
            tracing::debug!(%why, "sessions could not be entered again and will be");
            sleep(ENTER_RETRY).await;
        }
    }
}

/// Enters every session again as it was; who attached while the registry did not answer, for the first time.
async fn enter(node: &Gateway) -> Result<(), RegistryError> {
    let entered = node.sessions.entered();
    let (unregistered, registered): (Vec<_>, Vec<_>) = entered.into_iter().partition(|one| one.counter == UNREGISTERED);
    for batch in registered.chunks(ENTER_BATCH) {
        let ours = |one: &Entered| Registration { node: node.node, counter: one.counter };
        let entries: Vec<_> = batch.iter().map(|one| (one.user, one.device.clone(), ours(one))).collect();
        let stand = node.ports.registry.register_all(&entries).await;
        let stands = batch.iter().zip(stand.iter().flatten());
        for (one, stands) in stands.filter(|(one, stands)| **stands != ours(one)) {
            if stands.node == node.node {
                // of an attach whose answer did not come
                one.outbox.answer(Answer::Registered(*stands));
            } else {
                // the device is at another node now
                one.outbox.close(CloseCode::Superseded);
            }
        }
        // who left meanwhile: its entry was perhaps put back behind it
        batch.iter().filter(|one| one.outbox.is_gone()).for_each(|one| node.sessions.doubt(one.user));
        stand?;
        sleep(PACE).await;
    }
    for one in &unregistered {
        let registered = node.ports.registry.register(one.user, &one.device, node.node).await;
        if let Ok(Registered { registration, .. }) = registered {
            one.outbox.answer(Answer::Registered(registration));
        }
        if one.outbox.is_gone() {
            node.sessions.doubt(one.user);
        }
        registered?;
    }
    metrics::entered(registered.len() + unregistered.len());
    // what was pushed while there were no entries went nowhere
    node.sessions.links_broke.notify_one();
    Ok(())
}

async fn compare_for_ever(node: &Gateway) {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every.tick().await;
    loop {
        let why = tokio::select! {
            biased;
            _ = every.tick() => "time",
            () = node.sessions.links_broke.notified() => "link",
        };
        metrics::compared(why);
        compare(node).await;
        if why == "link" {
            sleep(LINK_REST).await;
        }
    }
}

/// Tells every session of this node how far its mailbox goes.
async fn compare(node: &Gateway) {
    if planted(Bug::HeadsNotCompared) {
        return;
    }
    let mut outboxes: HashMap<UserId, Vec<_>> = HashMap::new();
    for one in node.sessions.entered() {
        outboxes.entry(one.user).or_default().push(one.outbox);
    }
    let users: Vec<_> = outboxes.keys().copied().collect();
    for users in users.chunks(BATCH) {
        match node.ports.store.newest(users).await {
            Ok(places) => {
                let found = users.iter().zip(places).filter_map(|(user, place)| Some((user, place?)));
                for (user, place) in found {
                    outboxes.get(user).into_iter().flatten().for_each(|outbox| outbox.newest(place));
                }
            }
            Err(why) => tracing::warn!(%why, mailboxes = users.len(), "heads could not be compared and will be"),
        }
        sleep(PACE).await;
    }
}
