//! The network between the parts, by processes of ours whose every link goes through a proxy.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::{BEFORE, Outcome, usual};
use crate::load::{Load, under_load};
use crate::proxy::{Proxy, Trouble};
use crate::seen::Seen;
use crate::stand::{Extra, Stand, free_port, get};

/// How long a part is cut off.
const CUT: Duration = Duration::from_secs(6);
/// And for longer than it takes until others take over.
const CUT_LONG: Duration = Duration::from_secs(40);
/// So many users that each partition and each virtual shard has some.
const EVERYWHERE: u64 = 24;
/// How long a link is bad.
const BAD: Duration = Duration::from_secs(8);
/// The second listener of a broker, and where its proxy is expected: `scripts/stand/kafka.py`.
const KAFKA_BEHIND: u16 = 4;
const KAFKA_BEFORE: u16 = 7;

/// A process of ours behind proxies, and the proxies by the name of what is behind them.
struct Behind {
    role: &'static str,
    proxies: Vec<(String, Proxy)>,
    address: String,
    /// In front of its link port; cut for a gateway only, to which much is pushed.
    _links: Option<Proxy>,
    _process: Extra,
}

/// Starts one more process of this role, whose links all go through proxies.
async fn behind_proxies(stand: &Stand, role: &'static str) -> Result<Behind> {
    let mut proxies = Vec::new();
    let mut config = std::fs::read_to_string(stand.config(&format!("{role}-1")))?;
    for kind in ["redis", "postgres"] {
        for name in stand.members(kind) {
            let url = stand.cluster(&["url", &name])?;
            let target = url.rsplit(['@', '/']).find(|part| part.contains(':')).context("host:port")?;
            let proxy = Proxy::before(target.parse()?).await?;
            config = config.replace(target, &proxy.address.to_string());
            proxies.push((name, proxy));
        }
    }
    // a broker tells its clients where brokers are: behind the proxies it has a listener that says the proxies
    for name in stand.members("kafka") {
        let target = stand.cluster(&["url", &name])?;
        let listener: std::net::SocketAddr = target.parse()?;
        let near = |above: u16| std::net::SocketAddr::from(([127, 0, 0, 1], listener.port() + above));
        let proxy = Proxy::at(near(KAFKA_BEFORE), near(KAFKA_BEHIND)).await?;
        config = config.replace(&target, &proxy.address.to_string());
        proxies.push((name, proxy));
    }
    let (listen, link) = (free_port()?, free_port()?);
    let links = Proxy::before(([127, 0, 0, 1], link).into()).await?;
    let own = stand.address(&format!("{role}-1"))?;
    config = config.replace(&format!("listen = \"{own}\""), &format!("listen = \"127.0.0.1:{listen}\""));
    config = config.replace(&format!("name = \"{role}-1\""), &format!("name = \"{role}-p\""));
    let line = config.lines().find(|line| line.starts_with("link = ")).context("a link address")?.to_owned();
    config = config.replace(&line, &format!("link = \"127.0.0.1:{link}\"\nadvertise = \"{}\"", links.address));
    let links = if role == "gateway" {
        proxies.push(("links".to_owned(), links));
        None
    } else {
        Some(links)
    };
    let process = stand.extra(&format!("{role}-p"), &config)?;
    stand.until(&format!("the {role} behind proxies is ready"), || process.is_ready(listen)).await?;
    Ok(Behind { role, proxies, address: format!("127.0.0.1:{listen}"), _links: links, _process: process })
}

impl Behind {
    /// Whether this process works on partitions.
    fn has_share(&self) -> bool {
        let Some((_, metrics)) = get(&self.address, "/metrics") else { return false };
        let values = metrics.lines().filter(|line| line.starts_with("switchboard_partitions_owned"));
        values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).any(|owned| owned > 0.0)
    }

    /// Where the load connects: here too, if this is a gateway.
    fn gateways(&self) -> [&str; 2] {
        ["gateway-2", if self.role == "gateway" { &self.address } else { "gateway-1" }]
    }
}

/// One load for each link, while something happens to it. A worker has its share of the partitions before.
async fn each_link(stand: &Stand, row: &str, behind: &Behind, (trouble, how_long): (Trouble, Duration)) -> Result<Vec<Seen>> {
    let mut stretches = Vec::new();
    let gateways = behind.gateways();
    for (name, proxy) in &behind.proxies {
        if behind.role != "gateway" {
            stand.until(&format!("the {} behind proxies has a share", behind.role), || behind.has_share()).await?;
        }
        let before = proxy.touched();
        let seen = under_load(stand, Load { gateways: &gateways, users: EVERYWHERE, ..usual(row) }, async {
            sleep(BEFORE).await;
            stand.fault(format!("{} and {name}: {trouble:?} for {how_long:?}", behind.role));
            proxy.make(trouble);
            sleep(how_long).await;
            proxy.make(Trouble::None);
            sleep(BEFORE).await;
            Ok(())
        })
        .await?;
        ensure!(proxy.touched() > before, "nothing went between {} and {name}", behind.role);
        stretches.push(seen);
    }
    Ok(stretches)
}

/// From the log, from Redis, from each database, and from the owners that push to it.
pub(crate) async fn gateway_cut_off(stand: &Stand) -> Result<Outcome> {
    let behind = behind_proxies(stand, "gateway").await?;
    Ok(Outcome { seen: each_link(stand, "F10", &behind, (Trouble::Cut, CUT)).await?, more: String::new() })
}

/// A router and an owner, link after link.
async fn cut_workers(stand: &Stand, row: &str, how_long: Duration) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    for role in ["router", "storage"] {
        let behind = behind_proxies(stand, role).await?;
        seen.extend(each_link(stand, row, &behind, (Trouble::Cut, how_long)).await?);
    }
    stand.all_ready().await?;
    Ok(seen)
}

pub(crate) async fn workers_cut_off(stand: &Stand) -> Result<Outcome> {
    Ok(Outcome { seen: cut_workers(stand, "F10w", CUT).await?, more: String::new() })
}

/// For so long that others must take over: nobody waits until the link is back.
pub(crate) async fn workers_cut_off_long(stand: &Stand) -> Result<Outcome> {
    let seen = cut_workers(stand, "F10l", CUT_LONG).await?;
    let longest = seen.iter().map(|seen| seen.slowest).max().unwrap_or_default();
    ensure!(longest < CUT_LONG / 2, "a message waited for {longest:?}: nobody took over");
    Ok(Outcome { seen, more: String::new() })
}

/// Slow and lossy, sliced into bytes, reset once a second.
pub(crate) async fn bad_links(stand: &Stand) -> Result<Outcome> {
    let mut seen = Vec::new();
    for role in ["gateway", "storage"] {
        let behind = behind_proxies(stand, role).await?;
        for trouble in [Trouble::Slow, Trouble::Sliced] {
            seen.extend(each_link(stand, "F12", &behind, (trouble, BAD)).await?);
        }
        let gateways = behind.gateways();
        let touched = || behind.proxies.iter().map(|(_, proxy)| proxy.touched()).sum::<u64>();
        let before = touched();
        let reset = under_load(stand, Load { gateways: &gateways, users: EVERYWHERE, ..usual("F12") }, async {
            sleep(BEFORE).await;
            for _ in 0..BAD.as_secs() {
                stand.fault(format!("every connection of the {role} is reset"));
                for (_, proxy) in &behind.proxies {
                    proxy.reset();
                }
                sleep(Duration::from_secs(1)).await;
            }
            Ok(())
        });
        seen.push(reset.await?);
        ensure!(touched() > before, "no connection of the {role} was reset");
    }
    stand.all_ready().await?;
    Ok(Outcome { seen, more: String::new() })
}
