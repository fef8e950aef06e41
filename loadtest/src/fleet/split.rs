//! A run is split by users: who writes to whom stays in one crew.

use anyhow::{Context, Result, ensure};

use super::{Plan, sources};
use crate::crew::Job;

/// The jobs of a run: each crew gets a share of the users and the same share of every rate.
///
/// # Errors
/// When there are fewer users than crews need, or than tokens are there for.
pub fn split(plan: &Plan) -> Result<Vec<Job>> {
    let crews = if plan.agents.is_empty() { plan.workers.max(1) } else { plan.agents.len() };
    let (users, devices) = (plan.scenario.users(), plan.scenario.devices as usize);
    let pairs = users / 2;
    let need = plan.scenario.load.is_some();
    ensure!(!need || pairs >= crews, "{users} users are too few for {crews} workers: each needs two who can write to each other");
    ensure!(users >= crews, "{users} users are too few for {crews} workers");
    ensure!(plan.accounts.len() >= users, "{users} users need as many tokens, there are {}", plan.accounts.len());
    let run: u32 = rand::random();
    let mut jobs = Vec::new();
    let mut first = 0;
    for crew in 0..crews {
        // Pairs are never split; an odd user goes to the last crew.
        let end = if crew + 1 == crews {
            users
        } else if need {
            pairs * (crew + 1) / crews * 2
        } else {
            users * (crew + 1) / crews
        };
        let accounts = plan.accounts.get(first..end).context("an account for every user")?.to_vec();
        let sockets = (end - first) * devices;
        let mut scenario = plan.scenario.clone();
        scale(&mut scenario, sockets, plan.scenario.sockets);
        let first_stream = u32::try_from(first * devices)?;
        let sources = if plan.spread_sources && plan.agents.is_empty() { sources(crew, sockets) } else { Vec::new() };
        let phase = as_f64(crew) / as_f64(crews);
        let (urls, authority) = (plan.urls.clone(), plan.authority.clone());
        jobs.push(Job { scenario, accounts, urls, authority, sources, run, first_stream, phase });
        first = end;
    }
    Ok(jobs)
}

/// Counts and rates of a part of the sockets.
fn scale(scenario: &mut crate::scenario::Scenario, sockets: usize, of: usize) {
    let share = as_f64(sockets) / as_f64(of);
    scenario.sockets = sockets;
    scenario.connect.at_once = (scenario.connect.at_once * sockets).div_ceil(of).max(1);
    let rates = [
        scenario.connect.rate.as_mut(),
        scenario.churn.as_mut().map(|churn| &mut churn.rate),
        scenario.load.as_mut().and_then(|load| load.rate.as_mut()),
    ];
    rates.into_iter().flatten().for_each(|rate| *rate *= share);
    if let Some(from) = scenario.load.as_mut().and_then(|load| load.ramp_from.as_mut()) {
        *from *= share;
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of sockets and crews")]
fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::load;
    use crate::tokens::Account;

    fn plan(workers: usize) -> Plan {
        let accounts = (1..=1000).map(|user| Account { user, token: user.to_string() }).collect();
        Plan {
            scenario: load("churn").unwrap(),
            urls: vec!["ws://127.0.0.1:1/ws".to_owned()],
            authority: crate::tls::Authority::default(),
            accounts,
            workers,
            agents: Vec::new(),
            agent_token: String::new(),
            servers: Vec::new(),
            find_servers: false,
            fault_command: None,
            spread_sources: true,
        }
    }

    #[test]
    fn parts_make_the_whole() {
        let jobs = split(&plan(3)).unwrap();
        let whole = load("churn").unwrap();
        assert_eq!(jobs.iter().map(|job| job.scenario.sockets).sum::<usize>(), whole.sockets);
        let rate: f64 = jobs.iter().map(|job| job.scenario.rate()).sum();
        assert!((rate - whole.rate()).abs() < 1e-6, "{rate}");
        let mut users: Vec<_> = jobs.iter().flat_map(|job| job.accounts.iter().map(|account| account.user)).collect();
        users.dedup();
        assert_eq!(users, (1..=1000).collect::<Vec<_>>());
        assert!(jobs.iter().all(|job| job.accounts.len() % 2 == 0), "pairs stay together");
        assert!(
            jobs.windows(2).all(|pair| pair[0].first_stream as usize + pair[0].scenario.sockets == pair[1].first_stream as usize)
        );
        assert_ne!(jobs[0].sources, jobs[1].sources);
    }

    #[test]
    fn too_few_users_are_refused() {
        let mut plan = plan(3);
        plan.scenario.sockets = 4;
        assert!(split(&plan).unwrap_err().to_string().contains("too few for 3 workers"));
    }
}
