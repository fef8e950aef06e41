//! What accounts can be told, with defaults. Limits by number are kept in the database, the others in memory.

/// Limits and lifetimes: the section `[accounts]` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Whether numbers without an account may make one.
    pub open: bool,
    /// Codes for one number in an hour.
    pub codes_per_hour: u32,
    /// Codes for one number in a day.
    pub codes_per_day: u32,
    /// Seconds between two codes for one number.
    pub code_pause_s: u64,
    /// Codes a second for all numbers together: what a flood can cost.
    pub codes_per_s: u32,
    /// Codes asked for by one address in an hour.
    pub codes_per_address: u32,
    /// Codes asked for by one device of an address in an hour.
    pub codes_per_device: u32,
    /// Tries of codes by one address in an hour.
    pub tries_per_address: u32,
    /// Tries of codes by one device of an address in an hour.
    pub tries_per_device: u32,
    /// Numbers one user may look up in an hour.
    pub lookups_per_hour: u32,
    /// Days after which a session that was not refreshed is gone.
    pub refresh_days: u64,
    /// Devices of one user; one more ends the session of the one not seen for longest.
    pub devices_max: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            open: true,
            codes_per_hour: 5,
            codes_per_day: 10,
            code_pause_s: 30,
            codes_per_s: 10,
            codes_per_address: 20,
            codes_per_device: 10,
            tries_per_address: 60,
            tries_per_device: 30,
            lookups_per_hour: 60,
            refresh_days: 60,
            devices_max: 32,
        }
    }
}

impl Config {
    /// Defaults of development mode: whoever tries things out, or tests them, comes from one address.
    pub fn development() -> Self {
        Self {
            codes_per_hour: 1_000,
            codes_per_day: 1_000,
            code_pause_s: 1,
            codes_per_s: 1_000,
            codes_per_address: 100_000,
            codes_per_device: 100_000,
            tries_per_address: 100_000,
            tries_per_device: 100_000,
            lookups_per_hour: 10_000,
            ..Self::default()
        }
    }

    /// What is wrong, by key, or nothing.
    ///
    /// # Errors
    /// The key and what it must be.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let need = |good: bool, key, what: &str| if good { Ok(()) } else { Err((key, what.to_owned())) };
        let counts = [
            ("accounts.codes_per_hour", self.codes_per_hour),
            ("accounts.codes_per_s", self.codes_per_s),
            ("accounts.codes_per_address", self.codes_per_address),
            ("accounts.codes_per_device", self.codes_per_device),
            ("accounts.tries_per_address", self.tries_per_address),
            ("accounts.tries_per_device", self.tries_per_device),
            ("accounts.lookups_per_hour", self.lookups_per_hour),
        ];
        for (key, count) in counts {
            need((1..=1_000_000).contains(&count), key, "from 1 to 1000000")?;
        }
        let codes = self.codes_per_hour..=1_000;
        need(codes.contains(&self.codes_per_day), "accounts.codes_per_day", "from accounts.codes_per_hour to 1000")?;
        need(self.code_pause_s <= 3600, "accounts.code_pause_s", "at most 3600")?;
        need((8..=365).contains(&self.refresh_days), "accounts.refresh_days", "from 8 to 365: above the 7 days of a token")?;
        need((1..=256).contains(&self.devices_max), "accounts.devices_max", "from 1 to 256")
    }
}
