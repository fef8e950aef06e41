//! What every [`Registry`] must do. Each implementation's tests call [`run`] with a maker of empty registries.

use protocol::{DeviceName, UserId};

use super::{NodeId, Registration, Registry};

const ONE: NodeId = NodeId { node: 1, boot: 11 };
const TWO: NodeId = NodeId { node: 2, boot: 22 };

fn user(number: u64) -> UserId {
    UserId::from_stored(number)
}

fn device(name: &str) -> DeviceName {
    name.parse().expect("the suite's names are valid")
}

async fn nodes_of(registry: &impl Registry, number: u64) -> Vec<NodeId> {
    let found = registry.nodes(&[user(number)]).await.expect("a healthy registry answers");
    found.first().expect("one answer for each user").to_vec()
}

async fn register(registry: &impl Registry, name: &str, node: NodeId) -> (Registration, Option<Registration>) {
    let entered = registry.register(user(1), &device(name), node).await.expect("a healthy registry answers");
    (entered.registration, entered.replaced)
}

async fn deregister(registry: &impl Registry, name: &str, registration: Registration) -> bool {
    registry.deregister(user(1), &device(name), registration).await.expect("a healthy registry answers")
}

/// Runs the whole suite; each part gets a registry of its own.
///
/// # Panics
/// When the implementation breaks the contract.
pub async fn run<R: Registry>(make: impl AsyncFn() -> R) {
    an_entry_is_seen_until_it_is_removed(&make().await).await;
    the_newest_wins_and_an_old_goodbye_does_nothing(&make().await).await;
    devices_and_users_are_apart(&make().await).await;
    no_more_devices_than_a_user_may_have(&make().await).await;
    a_buried_boot_is_void(&make().await).await;
    racing_attaches_leave_one_winner(&make().await).await;
    what_was_forgotten_is_entered_again_as_it_was(&make().await).await;
    a_newer_entry_is_not_entered_over(&make().await).await;
}

async fn an_entry_is_seen_until_it_is_removed(registry: &impl Registry) {
    assert!(nodes_of(registry, 1).await.is_empty());
    let (mine, replaced) = register(registry, "phone", ONE).await;
    assert_eq!((mine.node, replaced), (ONE, None));
    assert_eq!(nodes_of(registry, 1).await, [ONE]);
    assert!(deregister(registry, "phone", mine).await);
    assert!(!deregister(registry, "phone", mine).await, "removed once");
    assert!(nodes_of(registry, 1).await.is_empty());
}

async fn the_newest_wins_and_an_old_goodbye_does_nothing(registry: &impl Registry) {
    let (old, _) = register(registry, "phone", ONE).await;
    let (new, replaced) = register(registry, "phone", TWO).await;
    assert_eq!(replaced, Some(old), "who attaches learns whom to close");
    assert!(new.counter > old.counter);
    assert!(!deregister(registry, "phone", old).await, "a late goodbye of the old connection");
    assert_eq!(nodes_of(registry, 1).await, [TWO]);
    let (again, replaced) = register(registry, "phone", TWO).await;
    assert_eq!(replaced, Some(new), "also on the same node");
    assert!(!deregister(registry, "phone", new).await);
    assert!(deregister(registry, "phone", again).await);
    let (later, _) = register(registry, "phone", ONE).await;
    assert!(later.counter > again.counter, "the counter outlives the entry");
}

async fn devices_and_users_are_apart(registry: &impl Registry) {
    let (phone, _) = register(registry, "phone", ONE).await;
    register(registry, "laptop", ONE).await;
    register(registry, "tablet", TWO).await;
    registry.register(user(2), &device("phone"), TWO).await.expect("a healthy registry answers");
    let found = registry.nodes(&[user(3), user(2), user(1)]).await.expect("a healthy registry answers");
    let mut sorted: Vec<Vec<NodeId>> = found.iter().map(|nodes| nodes.to_vec()).collect();
    sorted.iter_mut().for_each(|nodes| nodes.sort_unstable());
    assert_eq!(sorted, [vec![], vec![TWO], vec![ONE, TWO]], "in the order asked, each node once");
    assert!(
        !registry.deregister(user(2), &device("phone"), phone).await.expect("a healthy registry answers"),
        "another user's entry"
    );
    assert!(!deregister(registry, "laptop", phone).await, "another device's entry");
    assert!(deregister(registry, "phone", phone).await);
    let mut left = nodes_of(registry, 1).await;
    left.sort_unstable();
    assert_eq!(left, [ONE, TWO], "the laptop is still on the node");
}

async fn no_more_devices_than_a_user_may_have(registry: &impl Registry) {
    let within = async |name: &str, node| {
        let entered = registry.register_within(user(1), &device(name), node, 2).await.expect("a healthy registry answers");
        entered.map(|entered| (entered.registration, entered.replaced))
    };
    let (phone, _) = within("phone", ONE).await.expect("the first");
    let (laptop, _) = within("laptop", TWO).await.expect("the second, elsewhere");
    assert_eq!(within("tablet", ONE).await, None, "the third");
    assert!(!deregister(registry, "tablet", Registration { counter: laptop.counter + 1, ..phone }).await, "it has left nothing");
    let (moved, replaced) = within("phone", TWO).await.expect("one that is here is none more");
    assert_eq!(replaced, Some(phone));
    assert!(deregister(registry, "laptop", laptop).await);
    let (tablet, _) = within("tablet", ONE).await.expect("in place of one that has gone");
    assert_eq!(within("laptop", TWO).await, None);
    let other = registry.register_within(user(2), &device("phone"), ONE, 2).await.expect("a healthy registry answers");
    assert!(other.is_some(), "another user's are not counted");
    register(registry, "laptop", TWO).await;
    assert_eq!(within("watch", ONE).await, None, "also when there are more than may be");
    // counters do not matter: of one that was ahead all the same
    assert!(deregister(registry, "tablet", tablet).await);
    let ahead = Registration { counter: moved.counter + 1_000_000, ..tablet };
    assert_eq!(restore_all(registry, &[(user(1), device("tablet"), ahead)]).await, [ahead]);
    assert_eq!(within("watch", ONE).await, None);
    registry.bury(TWO).await.expect("a healthy registry answers");
    assert!(within("watch", ONE).await.is_some(), "those of a dead boot are in nobody's way");
}

async fn a_buried_boot_is_void(registry: &impl Registry) {
    let (dead, _) = register(registry, "phone", ONE).await;
    register(registry, "laptop", TWO).await;
    registry.bury(ONE).await.expect("a healthy registry answers");
    registry.bury(ONE).await.expect("twice is once");
    assert_eq!(nodes_of(registry, 1).await, [TWO]);
    let reborn = NodeId { boot: 12, ..ONE };
    let (alive, _) = register(registry, "phone", reborn).await;
    assert!(!deregister(registry, "phone", dead).await, "the dead boot's goodbye");
    assert!(deregister(registry, "phone", alive).await, "the next boot of the node is another");
}

async fn racing_attaches_leave_one_winner(registry: &impl Registry) {
    let phone = device("phone");
    let (one, two) = tokio::join!(registry.register(user(1), &phone, ONE), registry.register(user(1), &phone, TWO));
    let (one, two) = (one.expect("a healthy registry answers"), two.expect("a healthy registry answers"));
    let (winner, loser) = if one.registration.counter > two.registration.counter { (one, two) } else { (two, one) };
    assert_eq!((winner.replaced, loser.replaced), (Some(loser.registration), None), "the winner learns of the loser");
    assert_eq!(nodes_of(registry, 1).await, [winner.registration.node]);
    assert!(!deregister(registry, "phone", loser.registration).await);
    assert!(deregister(registry, "phone", winner.registration).await);
}

async fn restore_all(registry: &impl Registry, entries: &[(UserId, DeviceName, Registration)]) -> Vec<Registration> {
    registry.register_all(entries).await.expect("a healthy registry answers")
}

async fn what_was_forgotten_is_entered_again_as_it_was(registry: &impl Registry) {
    let (mine, _) = register(registry, "phone", ONE).await;
    let entry = (user(1), device("phone"), mine);
    assert_eq!(restore_all(registry, std::slice::from_ref(&entry)).await, [mine], "it stands: nothing changes");
    // gone, as from a registry that lost it
    assert!(deregister(registry, "phone", mine).await);
    let other = Registration { node: TWO, counter: mine.counter + 1 };
    let entries = [entry, (user(2), device("phone"), other), (user(2), device("laptop"), other)];
    assert_eq!(restore_all(registry, &entries).await, [mine, other, other], "in the order asked");
    assert_eq!((nodes_of(registry, 1).await, nodes_of(registry, 2).await), (vec![ONE], vec![TWO]));
    assert_eq!(restore_all(registry, &[]).await, []);
    let (next, replaced) = register(registry, "phone", TWO).await;
    assert_eq!(replaced, Some(mine), "exactly as it was");
    assert!(next.counter > other.counter, "also a counter that came back from outside is outgrown");
}

async fn a_newer_entry_is_not_entered_over(registry: &impl Registry) {
    let (old, _) = register(registry, "phone", ONE).await;
    let (new, _) = register(registry, "phone", TWO).await;
    assert_eq!(
        restore_all(registry, &[(user(1), device("phone"), old)]).await,
        [new],
        "the old session learns that it is superseded"
    );
    assert_eq!(nodes_of(registry, 1).await, [TWO]);
    assert!(deregister(registry, "phone", new).await);
    assert_eq!(restore_all(registry, &[(user(1), device("phone"), old)]).await, [old]);
    assert_eq!(restore_all(registry, &[(user(1), device("phone"), new)]).await, [new], "over an older one");
    let twin = Registration { node: NodeId { boot: new.node.boot + 1, ..ONE }, ..new };
    assert_eq!(
        restore_all(registry, &[(user(1), device("phone"), twin)]).await,
        [twin],
        "of two with one counter the greater boot wins"
    );
    assert_eq!(restore_all(registry, &[(user(1), device("phone"), new)]).await, [twin], "in whatever order they come");
}
