//! Accounts of an embedded server: the section `[accounts]`, opening them beside the gateway, and `switchboard user` for operators.

use std::path::PathBuf;
use std::sync::Arc;

use accounts::delivery::{Console, Delivery};
use accounts::session::Why;
use accounts::store::Store;
use accounts::store::sessions::{self, Which};
use accounts::store::users;
use accounts::{Accounts, Config, Parts};
use anyhow::{Context as _, bail, ensure};
use gateway::Gateway;
use gateway::node::now_ms;
use serde::Deserialize;
use tracing::info;

use crate::args::User;
use crate::config::Settings;
use crate::secret;

const FILE: &str = "accounts.sqlite";

/// How codes come to their owners.
#[derive(Debug, Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Deliver {
    /// Printed on standard output.
    Console,
    /// Not at all: nobody can log in by a code.
    None,
}

/// `[accounts]`, as it is written. What is not set depends on the mode.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Written {
    file: Option<PathBuf>,
    delivery: Option<Deliver>,
    open: Option<bool>,
    codes_per_hour: Option<u32>,
    codes_per_day: Option<u32>,
    code_pause_s: Option<u64>,
    codes_per_s: Option<u32>,
    codes_per_address: Option<u32>,
    codes_per_device: Option<u32>,
    tries_per_address: Option<u32>,
    tries_per_device: Option<u32>,
    lookups_per_hour: Option<u32>,
    refresh_days: Option<u64>,
    devices_max: Option<u32>,
}

/// `[accounts]`, in force.
#[derive(Debug, Clone)]
pub(crate) struct Section {
    pub(crate) file: Option<PathBuf>,
    pub(crate) delivery: Deliver,
    pub(crate) config: Config,
}

impl Written {
    /// Fills in what is not set.
    pub(crate) fn decide(self, dev: bool) -> Section {
        let base = if dev { Config::development() } else { Config::default() };
        let config = Config {
            open: self.open.unwrap_or(base.open),
            codes_per_hour: self.codes_per_hour.unwrap_or(base.codes_per_hour),
            codes_per_day: self.codes_per_day.unwrap_or(base.codes_per_day),
            code_pause_s: self.code_pause_s.unwrap_or(base.code_pause_s),
            codes_per_s: self.codes_per_s.unwrap_or(base.codes_per_s),
            codes_per_address: self.codes_per_address.unwrap_or(base.codes_per_address),
            codes_per_device: self.codes_per_device.unwrap_or(base.codes_per_device),
            tries_per_address: self.tries_per_address.unwrap_or(base.tries_per_address),
            tries_per_device: self.tries_per_device.unwrap_or(base.tries_per_device),
            lookups_per_hour: self.lookups_per_hour.unwrap_or(base.lookups_per_hour),
            refresh_days: self.refresh_days.unwrap_or(base.refresh_days),
            devices_max: self.devices_max.unwrap_or(base.devices_max),
        };
        let delivery = self.delivery.unwrap_or(if dev { Deliver::Console } else { Deliver::None });
        Section { file: self.file, delivery, config }
    }
}

impl Section {
    /// For people.
    pub(crate) fn summary(&self, in_cluster: bool) -> String {
        if in_cluster {
            return "none in a cluster yet: tokens are made by `switchboard token`, or by a service of yours".to_owned();
        }
        let codes = match self.delivery {
            Deliver::Console => "codes are printed on standard output",
            Deliver::None => "codes are not delivered, so nobody can log in by one (accounts.delivery)",
        };
        let open = if self.config.open { "registration is open" } else { "registration is closed" };
        format!("{open}; {codes}")
    }
}

fn path(settings: &Settings) -> PathBuf {
    settings.accounts.file.clone().unwrap_or_else(|| settings.data.join(FILE))
}

/// Opens the accounts and gives them to the gateway, whose tokens heed sessions that have ended.
pub(crate) async fn open(settings: &Settings, gateway: &Arc<Gateway>) -> anyhow::Result<Arc<Accounts>> {
    let sessions = Arc::clone(&gateway.sessions);
    let delivery: Option<Arc<dyn Delivery>> = match settings.accounts.delivery {
        Deliver::Console => Some(Arc::new(Console)),
        Deliver::None => None,
    };
    if delivery.is_none() {
        info!("codes are not delivered (accounts.delivery): nobody can log in by one");
    }
    let parts = Parts {
        config: settings.accounts.config.clone(),
        keys: secret::keys(settings)?,
        delivery,
        shows_codes: settings.gateway.dev,
        revoked: Arc::clone(gateway.tokens.revoked()),
        on_end: Arc::new(move |user| sessions.look_again(user)),
    };
    let accounts = Arc::new(Accounts::open(&path(settings), parts, now_ms()).await.context("accounts.file")?);
    ensure!(gateway.accounts.set(Arc::clone(&accounts)).is_ok(), "the gateway has accounts already");
    Ok(accounts)
}

/// `switchboard user`: writes into the file beside a running server, which looks at it every second.
pub(crate) fn user(settings: &Settings, command: &User) -> anyhow::Result<()> {
    if settings.cluster.is_some() {
        bail!("there are no accounts in a cluster yet");
    }
    let path = path(settings);
    ensure!(path.exists(), "there are no accounts at {}: a server makes them at its first start", path.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime")?;
    runtime.block_on(async {
        let store = Store::open(&path).await?;
        let done = match command {
            User::Show { user } => show(&store, user).await,
            User::Revoke { user, device } => {
                let which = device.as_ref().map_or(Which::User(*user), |device| Which::Device(*user, device));
                let ended = sessions::end(store.writer(), which, Why::Operator, now_ms()).await?;
                ensure!(!ended.is_empty(), "user {user} has no such session");
                println!("{} sessions ended; a running server closes their sockets within seconds", ended.len());
                Ok(())
            }
        };
        store.close().await;
        done
    })
}

async fn show(store: &Store, wanted: &str) -> anyhow::Result<()> {
    let profile = if wanted.starts_with('+') {
        users::by_phone(store.readers(), &wanted.parse()?).await?
    } else {
        users::by_id(store.readers(), wanted.parse()?).await?
    };
    let profile = profile.context("there is no such account")?;
    println!("user   {}\nname   {:?}\nabout  {:?}", profile.user, profile.name, profile.about);
    for one in sessions::devices(store.readers(), profile.user, now_ms()).await? {
        println!("device {} {:?}, last seen {}", one.device, one.label, gateway::http::v1::time(one.seen_ms));
    }
    Ok(())
}
