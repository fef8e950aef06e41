//! The rows of the fault matrix. Each brings its fault about under load, waits for what must come back, and says what it saw.

use std::time::Duration;

use loadtest::client::Client;
use loadtest::frame::{Hello, ServerFrame};
use tokio::time::{Instant, sleep};

use crate::load::{Seen, under_load};
use crate::proxy::Proxy;
use crate::stand::Stand;

const GATEWAYS: [&str; 2] = ["gateway-1", "gateway-2"];
const USERS: u64 = 6;
/// Load before the fault and after it: enough that something is always on its way.
const BEFORE: Duration = Duration::from_millis(1500);

fn said(seen: &Seen, more: &str) -> String {
    format!(
        "{} sends, slowest {:.2?}, {} connections broke ({} with sends in flight){more}",
        seen.sends, seen.slowest, seen.closed, seen.cut
    )
}

/// The load alone: what the others are compared with.
pub(crate) async fn nothing(stand: &Stand) -> String {
    let seen = under_load(stand, &GATEWAYS, ("F0", USERS), sleep(Duration::from_secs(5))).await;
    assert_eq!(seen.closed, 0, "nothing happened, and connections broke");
    said(&seen, "")
}

pub(crate) async fn gateway_killed(stand: &Stand) -> String {
    let seen = under_load(stand, &GATEWAYS, ("F1", USERS), async {
        sleep(BEFORE).await;
        stand.does("kill", "gateway-1");
        sleep(BEFORE).await;
        stand.does("start", "gateway-1");
        sleep(BEFORE).await;
    })
    .await;
    assert!(seen.closed > 0, "the kill did not bite");
    said(&seen, "")
}

/// Kills whoever comes first to each of these places, and starts it again.
async fn killed_at(stand: &Stand, row: &str, places: &[&str], kind: &str) -> String {
    let seen = under_load(stand, &GATEWAYS, (row, USERS), async {
        for place in places {
            sleep(Duration::from_secs(1)).await;
            stand.halt_at(place);
            stand.until(&format!("somebody dies at {place}"), || stand.has_halted_at(place)).await;
            sleep(Duration::from_millis(500)).await;
            for number in 1..=2 {
                stand.does("start", &format!("{kind}-{number}"));
            }
        }
        sleep(BEFORE).await;
    })
    .await;
    said(&seen, &format!("; {} deaths", places.len()))
}

pub(crate) async fn routers_killed(stand: &Stand) -> String {
    killed_at(stand, "F2", &["router:read", "router:appending", "router:appended", "router:checkpoint"], "router").await
}

pub(crate) async fn owners_killed(stand: &Stand) -> String {
    killed_at(stand, "F3", &["storage:planned", "storage:committing", "storage:committed", "storage:pushed"], "storage").await
}

pub(crate) async fn broker_killed(stand: &Stand) -> String {
    let seen = under_load(stand, &GATEWAYS, ("F4", USERS), async {
        sleep(BEFORE).await;
        stand.does("kill", "kafka-1");
        sleep(BEFORE).await;
        stand.does("start", "kafka-1");
        sleep(BEFORE).await;
    })
    .await;
    said(&seen, "")
}

pub(crate) async fn redis_flushed(stand: &Stand) -> String {
    let url = stand.must(&["url", "redis-1"]);
    let seen = under_load(stand, &GATEWAYS, ("F6a", USERS), async {
        for _ in 0..3 {
            sleep(BEFORE).await;
            let done = std::process::Command::new("redis-cli").args(["-u", &url, "FLUSHALL"]).output().expect("redis-cli runs");
            assert!(done.status.success(), "FLUSHALL: {done:?}");
        }
        sleep(BEFORE).await;
    })
    .await;
    said(&seen, "; 3 flushes")
}

pub(crate) async fn redis_stands_still(stand: &Stand) -> String {
    let seen = under_load(stand, &GATEWAYS, ("F6b", USERS), async {
        sleep(BEFORE).await;
        stand.does("pause", "redis-1");
        sleep(Duration::from_secs(15)).await;
        let why = crate::stand::get(&stand.address("gateway-1"), "/metrics").map_or(0, |(status, _)| status);
        assert_eq!(why, 200, "the gateway answers");
        stand.does("resume", "redis-1");
        sleep(BEFORE).await;
    })
    .await;
    said(&seen, "")
}

pub(crate) async fn redis_killed(stand: &Stand) -> String {
    let seen = under_load(stand, &GATEWAYS, ("F6c", USERS), async {
        sleep(BEFORE).await;
        stand.does("kill", "redis-1");
        sleep(BEFORE).await;
        stand.does("start", "redis-1");
        sleep(BEFORE).await;
    })
    .await;
    said(&seen, "")
}

pub(crate) async fn database_killed(stand: &Stand) -> String {
    let seen = under_load(stand, &GATEWAYS, ("F7", USERS), async {
        sleep(BEFORE).await;
        stand.does("kill", "postgres-a");
        sleep(Duration::from_secs(3)).await;
        stand.does("start", "postgres-a");
        sleep(BEFORE).await;
    })
    .await;
    said(&seen, "")
}

/// A frozen owner is taken over from; when it goes on, the database refuses what it still wants to write.
pub(crate) async fn owner_stands_still(stand: &Stand) -> String {
    let fenced = || stand.metric("storage-1", "switchboard_partitions_ended_total", "why=\"taken\"");
    let before = fenced();
    let seen = under_load(stand, &GATEWAYS, ("F8", USERS), async {
        sleep(BEFORE).await;
        stand.does("pause", "storage-1");
        sleep(Duration::from_secs(6)).await;
        stand.does("resume", "storage-1");
        sleep(Duration::from_secs(4)).await;
    })
    .await;
    let refused = fenced() - before;
    assert!(refused > 0.0, "nobody was fenced: the standstill did not bite\n{}", stand.log("storage-1"));
    said(&seen, &format!("; {refused} partitions taken from the frozen one"))
}

/// Each process ends by SIGTERM and comes back: no send fails, and its work goes on elsewhere at once.
pub(crate) async fn rolling(stand: &Stand) -> String {
    let mut worst = Vec::new();
    for name in ["storage-1", "router-1", "gateway-1", "storage-2", "router-2", "gateway-2"] {
        let seen = under_load(stand, &GATEWAYS, ("F17", USERS), async {
            sleep(Duration::from_millis(500)).await;
            stand.does("restart", name);
            stand.ready(name).await;
            sleep(Duration::from_secs(4)).await;
        })
        .await;
        assert_eq!(seen.cut, 0, "{name}: a drain cuts nobody with sends in flight");
        worst.push(format!("{name} {:.2?}", seen.slowest));
    }
    format!("slowest while it was replaced: {}", worst.join(", "))
}

pub(crate) async fn shards_move(stand: &Stand) -> String {
    let shards = [0_u16, 3, 7, 11];
    let mut pauses = Vec::new();
    let mut killed = 0;
    let seen = under_load(stand, &GATEWAYS, ("F22", USERS), async {
        sleep(BEFORE).await;
        for (at, shard) in shards.iter().enumerate() {
            let to = if stand.database_of(*shard) == "a" { "b" } else { "a" };
            if at % 2 == 1 {
                let place = ["move:copied", "move:moved"][at / 2 % 2];
                stand.halt_at(place);
                let (ok, _) = stand.admin(&["shard", "move", &shard.to_string(), "--to", to]);
                killed += u32::from(!ok && stand.has_halted_at(place));
            }
            let (ok, said) = stand.admin(&["shard", "move", &shard.to_string(), "--to", to]);
            assert!(ok, "shard {shard} to {to}: {said}");
            assert_eq!(stand.database_of(*shard), to);
            pauses.push(said.rsplit("paused for ").next().unwrap_or_default().trim().to_owned());
        }
        sleep(BEFORE).await;
    })
    .await;
    assert_eq!(killed, 2, "a mover was to be killed twice");
    said(&seen, &format!("; {} moves, paused {}; {killed} movers killed", shards.len(), pauses.join(", ")))
}

/// A third storage process and a third router take their share and give it back.
pub(crate) async fn join_and_leave(stand: &Stand) -> String {
    let mut took = Duration::ZERO;
    let owned = |name: &str| stand.metric(name, "switchboard_partitions_owned", "");
    let seen = under_load(stand, &GATEWAYS, ("J1", USERS), async {
        sleep(BEFORE).await;
        let began = Instant::now();
        stand.does("add", "storage");
        stand.does("add", "router");
        for name in ["storage-3", "router-3"] {
            stand.until(&format!("{name} has a share"), || owned(name) > 0.0).await;
        }
        took = began.elapsed();
        sleep(BEFORE).await;
        for name in ["storage-3", "router-3"] {
            stand.does("remove", name);
        }
        sleep(BEFORE).await;
    })
    .await;
    stand.until("everything is owned again", || (owned("storage-1") + owned("storage-2") - 24.0).abs() < 0.5).await;
    said(&seen, &format!("; the new ones had their share after {took:.1?}"))
}

/// Everybody waits between registering and reading, and between commit and look-up, while clients are cut off again and again.
pub(crate) async fn attach_elsewhere(stand: &Stand) -> String {
    let seen = under_load(stand, &GATEWAYS, ("A1", USERS), async {
        for (registered, unpushed) in [(200, 0), (0, 200), (150, 150)] {
            stand.hold_at("attach:registered", registered);
            stand.hold_at("storage:unpushed", unpushed);
            for gateway in GATEWAYS {
                sleep(Duration::from_millis(700)).await;
                stand.does("kill", gateway);
                sleep(Duration::from_millis(700)).await;
                stand.does("start", gateway);
            }
        }
        stand.hold_at("attach:registered", 0);
        stand.hold_at("storage:unpushed", 0);
        sleep(BEFORE).await;
    })
    .await;
    assert!(seen.closed > 0, "nobody was cut off");
    said(&seen, "")
}

/// A third gateway behind proxies is cut off from its database, from Redis, and from the storage owners that push to it.
pub(crate) async fn partitioned(stand: &Stand) -> String {
    let address =
        |name: &str| stand.must(&["url", name]).rsplit(['@', '/']).find(|part| part.contains(':')).unwrap_or_default().to_owned();
    let mut proxies = Vec::new();
    let mut config = std::fs::read_to_string(stand.config("gateway-1")).expect("a configuration");
    for name in ["redis-1", "postgres-a", "postgres-b"] {
        let target = address(name);
        let proxy = Proxy::before(target.parse().expect("host:port")).await;
        config = config.replace(&target, &proxy.address.to_string());
        proxies.push((name, proxy));
    }
    let (listen, link) = (free_port(), free_port());
    let pushes = Proxy::before(([127, 0, 0, 1], link).into()).await;
    let own = stand.address("gateway-1");
    config = config.replace(&format!("listen = \"{own}\""), &format!("listen = \"127.0.0.1:{listen}\""));
    config = config.replace("name = \"gateway-1\"", "name = \"gateway-p\"");
    let links = config.lines().find(|line| line.starts_with("link = ")).expect("a link address").to_owned();
    config = config.replace(&links, &format!("link = \"127.0.0.1:{link}\"\nadvertise = \"{}\"", pushes.address));
    proxies.push(("links", pushes));
    let gateway = stand.extra("gateway-p", &config);
    stand.until("the gateway behind proxies is ready", || gateway.is_ready(listen)).await;

    let at = format!("127.0.0.1:{listen}");
    let mut worst = Vec::new();
    for (name, proxy) in &proxies {
        let row = format!("F10-{name}");
        let seen = under_load(stand, &["gateway-2", &at], (&row, USERS), async {
            sleep(BEFORE).await;
            proxy.cut(true);
            sleep(Duration::from_secs(6)).await;
            proxy.cut(false);
            sleep(BEFORE).await;
        })
        .await;
        worst.push(format!("{name} {:.2?}", seen.slowest));
    }
    drop(gateway);
    format!("slowest with 6 s cut off from {}", worst.join(", "))
}

pub(crate) fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port()
}

/// One device at two gateways: the newer closes the older at once, and what is sent then comes to the newer.
pub(crate) async fn one_device_twice(stand: &Stand) -> String {
    let account = stand.accounts(1).remove(0);
    let targets = stand.targets(&GATEWAYS).await;
    let attach = async |at: usize| {
        let mut client = Client::connect(&targets[at].with_token(&account.token)).await.expect("it connects");
        client.hello(Hello { device: "phone", cursor: Some(0), epoch: None }).await.expect("it is welcome");
        while !matches!(client.next().await.expect("it attaches"), ServerFrame::Live { .. }) {}
        client
    };
    let mut older = attach(0).await;
    let mut slowest = Duration::ZERO;
    for round in 1..=6 {
        let newer = attach(round % 2).await;
        let began = Instant::now();
        let closed = tokio::time::timeout(Duration::from_secs(5), async {
            loop {
                if let Err(why) = older.next().await {
                    return why.close_code();
                }
            }
        });
        assert_eq!(closed.await.expect("the older one is closed"), Some(4409));
        slowest = slowest.max(began.elapsed());
        older = newer;
    }
    format!("6 times, the older one was closed within {slowest:.2?}")
}
