//! Reading scenario files. A mistake names its line and what would be right.

use std::path::Path;

use super::{DEVICES_MAX, Scenario};

/// The scenarios that are in the program: name and text.
pub const BUILT_IN: &[(&str, &str)] = &[
    ("idle", include_str!("../../scenarios/idle.toml")),
    ("direct", include_str!("../../scenarios/direct.toml")),
    ("connect-storm", include_str!("../../scenarios/connect-storm.toml")),
    ("reconnect-storm", include_str!("../../scenarios/reconnect-storm.toml")),
    ("slow-readers", include_str!("../../scenarios/slow-readers.toml")),
    ("offline-drain", include_str!("../../scenarios/offline-drain.toml")),
    ("churn", include_str!("../../scenarios/churn.toml")),
    ("multi-device", include_str!("../../scenarios/multi-device.toml")),
    ("soak", include_str!("../../scenarios/soak.toml")),
    ("restart", include_str!("../../scenarios/restart.toml")),
    ("retry-storm", include_str!("../../scenarios/retry-storm.toml")),
    ("overload", include_str!("../../scenarios/overload.toml")),
];

/// A mistake in a scenario file.
#[derive(Debug, thiserror::Error)]
#[error("{file}{}: {what}", line.map(|line| format!(", line {line}")).unwrap_or_default())]
pub struct Mistake {
    /// The file, or the name of a built-in one.
    pub file: String,
    /// The line, counted from 1, if it is known.
    pub line: Option<usize>,
    /// What is wrong, and what would be right.
    pub what: String,
}

/// Loads a scenario by the name of a built-in one or by path.
///
/// # Errors
/// When there is none, or there is a mistake in it.
pub fn load(name_or_path: &str) -> Result<Scenario, Mistake> {
    if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
        return parse(text, name);
    }
    let text = std::fs::read_to_string(Path::new(name_or_path)).map_err(|error| {
        let names: Vec<_> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        let near = nearest(name_or_path, &names).map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default();
        let what = format!("no built-in scenario of this name{near}, and no such file: {error}. Built in: {}", names.join(", "));
        Mistake { file: name_or_path.to_owned(), line: None, what }
    })?;
    parse(&text, name_or_path)
}

/// Reads a scenario from its text.
///
/// # Errors
/// When there is a mistake in it.
pub fn parse(text: &str, file: &str) -> Result<Scenario, Mistake> {
    let scenario: Scenario = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| 1 + text.get(..span.start).unwrap_or_default().matches('\n').count());
        let advice = advice(error.message()).unwrap_or_default();
        Mistake { file: file.to_owned(), line, what: format!("{}{advice}", error.message().trim()) }
    })?;
    check(&scenario).map_err(|(key, what)| Mistake { file: file.to_owned(), line: line_of(text, key), what })?;
    Ok(scenario)
}

/// Checks what belongs together.
///
/// # Errors
/// The key at fault and what would be right.
pub fn check(scenario: &Scenario) -> Result<(), (&'static str, String)> {
    let wrong = |key: &'static str, what: &str| Err((key, format!("{key} {what}")));
    let positive = |rate: f64| rate > 0.0 && rate.is_finite();
    if scenario.sockets == 0 {
        return wrong("sockets", "must be at least 1");
    }
    if !(1..=DEVICES_MAX).contains(&scenario.devices) {
        return Err(("devices", format!("devices must be 1 to {DEVICES_MAX}")));
    }
    if !scenario.sockets.is_multiple_of(scenario.devices as usize) {
        let right = scenario.users().max(1) * scenario.devices as usize;
        return Err(("sockets", format!("sockets must be a multiple of devices: {right} would do")));
    }
    if scenario.connect.at_once == 0 || scenario.connect.rounds == 0 {
        return wrong("connect", "needs at_once and rounds of at least 1");
    }
    if scenario.connect.rate.is_some_and(|rate| !positive(rate)) {
        return wrong("connect.rate", "must be above 0");
    }
    if scenario.body.spread < 0.0 || scenario.body.least > scenario.body.most || scenario.body.most > 16 * 1024 {
        return wrong("body", "needs spread >= 0 and least <= most <= 16384");
    }
    if scenario.load.is_some() {
        check_load(scenario)?;
    }
    check_parts(scenario)
}

fn check_load(scenario: &Scenario) -> Result<(), (&'static str, String)> {
    let Some(load) = &scenario.load else { return Ok(()) };
    if load.rate.is_some() == load.think.is_some() {
        return Err(("load", "load needs either rate = 100 or think = \"30s\"".to_owned()));
    }
    if !scenario.rate().is_finite() || scenario.rate() <= 0.0 {
        return Err(("load.rate", "load.rate must be above 0".to_owned()));
    }
    if load.ramp_from.is_some_and(|from| !from.is_finite() || from < 0.0) {
        return Err(("load.ramp_from", "load.ramp_from must be 0 or above".to_owned()));
    }
    if load.unsettled == Some(0) {
        return Err(("load.unsettled", "load.unsettled must be at least 1".to_owned()));
    }
    if load.give_up.is_some_and(|after| after.0.is_zero()) {
        return Err(("load.give_up", "load.give_up must be above 0s".to_owned()));
    }
    if scenario.users() < 2 || (scenario.contacts.count == 1 && !scenario.users().is_multiple_of(2)) {
        return Err(("sockets", "sockets must give an even number of users, at least 2, who can write to each other".to_owned()));
    }
    if scenario.contacts.count == 0 || scenario.contacts.zipf < 0.0 {
        return Err(("contacts", "contacts needs count of at least 1 and zipf of at least 0".to_owned()));
    }
    Ok(())
}

fn check_parts(scenario: &Scenario) -> Result<(), (&'static str, String)> {
    let shares = [
        ("cut.share", scenario.cut.as_ref().map(|cut| cut.share)),
        ("slow.share", scenario.slow.as_ref().map(|slow| slow.share)),
        ("offline.share", scenario.offline.as_ref().map(|offline| offline.share)),
        ("retry.share", scenario.retry.as_ref().map(|retry| retry.share)),
    ];
    for (key, share) in shares {
        if share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err((key, format!("{key} is a share: between 0 and 1, such as 0.1 for a tenth")));
        }
    }
    if let Some(surge) = &scenario.surge {
        if !surge.factor.is_finite() || surge.factor <= 0.0 {
            return Err(("surge.factor", "surge.factor must be above 0, such as 3.0 for three times the rate".to_owned()));
        }
        if surge.after.0 + surge.lasts.0 > scenario.duration.0 {
            return Err(("surge.lasts", "surge.after and surge.lasts must fit into duration".to_owned()));
        }
        if scenario.load.is_none() {
            return Err(("surge", "surge needs a [load]".to_owned()));
        }
    }
    if scenario.cut.as_ref().is_some_and(|cut| cut.every.0.is_zero()) {
        return Err(("cut.every", "cut.every must be above 0s".to_owned()));
    }
    if scenario.churn.as_ref().is_some_and(|churn| !churn.rate.is_finite() || churn.rate <= 0.0) {
        return Err(("churn.rate", "churn.rate must be above 0".to_owned()));
    }
    if scenario.retry.as_ref().is_some_and(|retry| !(2..=8).contains(&retry.copies)) {
        return Err(("retry.copies", "retry.copies must be 2 to 8".to_owned()));
    }
    if scenario.offline.as_ref().is_some_and(|offline| offline.share >= 1.0) {
        return Err(("offline.share", "offline.share must be below 1: somebody has to write".to_owned()));
    }
    if scenario.fault.as_ref().is_some_and(|fault| fault.every.is_some_and(|every| every.0.is_zero())) {
        return Err(("fault.every", "fault.every must be above 0s".to_owned()));
    }
    Ok(())
}

/// The line of `key` or `table.key`, counted from 1; that of the table if the key is not there.
fn line_of(text: &str, key: &str) -> Option<usize> {
    let (table, key) = key.split_once('.').unwrap_or(("", key));
    let (mut inside, mut header) = (String::new(), None);
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            inside = name.0.trim().to_owned();
            if inside == table || (table.is_empty() && inside == key) {
                header = Some(index + 1);
            }
        } else if inside == table && line.split_once('=').is_some_and(|(name, _)| name.trim() == key) {
            return Some(index + 1);
        }
    }
    header
}

/// For an unknown key the known one that was probably meant.
fn advice(message: &str) -> Option<String> {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let unknown = quoted.next().filter(|_| message.starts_with("unknown"))?;
    let known: Vec<_> = quoted.collect();
    nearest(unknown, &known).map(|name| format!(" (did you mean `{name}`?)"))
}

fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|name| (distance(word, name), *name)).min()?;
    (near.0 <= 1 + word.len() / 3).then_some(near.1)
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<_> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = i;
        let mut left = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row.get(j + 1).copied().unwrap_or_default();
            let cost = (corner + usize::from(x != *y)).min(above + 1).min(left + 1);
            corner = above;
            if let Some(cell) = row.get_mut(j) {
                *cell = left;
            }
            left = cost;
        }
        if let Some(cell) = row.last_mut() {
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"x\"\nabout = \"y\"\nsockets = 10\nduration = \"5s\"\n\n[load]\nrate = 10\n";

    #[test]
    fn the_built_in_ones_are_right() {
        for (name, text) in BUILT_IN {
            let scenario = parse(text, name).unwrap_or_else(|mistake| panic!("{mistake}"));
            assert_eq!(&scenario.name, name);
        }
    }

    #[test]
    fn a_mistake_has_a_line_and_a_remedy() {
        let says = |from: &str, to: &str| parse(&GOOD.replace(from, to), "my.toml").unwrap_err().to_string();
        assert!(parse(GOOD, "my.toml").is_ok());
        let unknown = says("rate = 10", "rat = 10");
        assert!(unknown.starts_with("my.toml, line 7: ") && unknown.contains("did you mean `rate`?"), "{unknown}");
        let unit = says("\"5s\"", "\"5\"");
        assert!(unit.starts_with("my.toml, line 4: ") && unit.contains("write 5ms, 5s or 5m"), "{unit}");
        let zero = says("rate = 10", "rate = 0");
        assert!(zero.starts_with("my.toml, line 7: ") && zero.contains("above 0"), "{zero}");
        let neither = says("rate = 10", "");
        assert!(neither.starts_with("my.toml, line 6: ") && neither.contains("think = \"30s\""), "{neither}");
        let devices = says("sockets = 10", "devices = 3\nsockets = 10");
        assert!(devices.starts_with("my.toml, line 4: ") && devices.contains("9 would do"), "{devices}");
        let syntax = says("rate = 10", "rate 10");
        assert!(syntax.starts_with("my.toml, line 7: "), "{syntax}");
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let mistake = load("reconect-storm").unwrap_err().to_string();
        assert!(mistake.contains("did you mean `reconnect-storm`?"), "{mistake}");
    }
}
