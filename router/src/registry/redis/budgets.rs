//! Budgets of users' rates: one key for each user and rate, in the slot of the user's entries. It is gone when all is paid.

use std::time::Duration;

use async_trait::async_trait;
use protocol::UserId;

use super::{RedisRegistry, parsed};
use crate::members::Role;
use crate::registry::{Budgets, Rate, RegistryError};

#[async_trait]
impl Budgets for RedisRegistry {
    fn gateways(&self) -> usize {
        self.members.view().live(Role::Gateway).len().max(1)
    }

    async fn charge(&self, rate: Rate, within: Duration, used: &[(UserId, u32)]) -> Result<Vec<Duration>, RegistryError> {
        let each_us = 1_000_000 / u64::from(rate.per_s.max(1));
        let within_us = u64::try_from(within.as_micros()).unwrap_or(u64::MAX);
        let call = |(user, used): &(UserId, u32)| {
            let amounts = [each_us * u64::from(*used), within_us, each_us * u64::from(rate.burst)];
            (format!("{}:{}", self.key(*user), rate.name), amounts.map(|us| us.to_string()).to_vec())
        };
        let calls: Vec<_> = used.iter().map(call).collect();
        let answers = self.link.scripts(&self.scripts.charge, &calls).await?;
        answers.into_iter().map(|answer| parsed(answer).map(Duration::from_micros)).collect()
    }
}
