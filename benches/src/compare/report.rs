//! The table, and the same as JSON.

use std::fmt;

use serde_json::{Value, json};

use super::Compare;
use super::peer::reference::Reference;
use super::peer::{Durability, Peer};
use crate::meter;

/// What one turn gave.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    /// Anonymous memory of an idle connection, bytes.
    pub(crate) memory_b: f64,
    /// Processor time of a connection's way in, microseconds.
    pub(crate) setup_us: f64,
    /// Connections a second.
    pub(crate) setup_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    /// Processor seconds of the server for a million messages.
    pub(crate) cpu_s: f64,
    /// Answers to senders for each message.
    pub(crate) confirmed: f64,
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { memory_b, setup_us, p50_ms, p99_ms, cpu_s, .. } = self;
        write!(
            f,
            "{memory_b:.0} B and {setup_us:.0} us a connection, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms, {cpu_s:.1} CPU s a million"
        )
    }
}

/// A column: its key, its name, its value.
type Column = (&'static str, &'static str, usize, fn(&Figures) -> f64);

const COLUMNS: [Column; 7] = [
    ("memory_b", "idle B/conn", 0, |f| f.memory_b),
    ("setup_us", "set-up CPU us", 0, |f| f.setup_us),
    ("setup_per_s", "set-up/s", 0, |f| f.setup_per_s),
    ("p50_ms", "p50 ms", 2, |f| f.p50_ms),
    ("p99_ms", "p99 ms", 2, |f| f.p99_ms),
    ("p999_ms", "p99.9 ms", 2, |f| f.p999_ms),
    ("cpu_s", "CPU s/million", 1, |f| f.cpu_s),
];

/// One line of the table.
pub(crate) struct Row {
    pub(crate) name: String,
    durability: Durability,
    remarks: &'static str,
    /// None: figures of another day.
    pub(crate) peer: Option<Box<dyn Peer>>,
    pub(crate) figures: Vec<Figures>,
}

impl Row {
    /// A peer that will be run.
    pub(crate) fn of(peer: impl Peer + 'static) -> Self {
        let (name, durability, remarks) = (peer.name(), peer.durability(), peer.remarks());
        Self { name, durability, remarks, peer: Some(Box::new(peer)), figures: Vec::new() }
    }

    /// One that is quoted.
    pub(crate) fn quoted(from: &Reference) -> Self {
        let figures = Figures {
            memory_b: from.memory_b,
            setup_us: from.setup_us,
            setup_per_s: from.setup_per_s,
            p50_ms: from.p50_ms,
            p99_ms: from.p99_ms,
            p999_ms: f64::NAN,
            cpu_s: from.cpu_s,
            confirmed: f64::NAN,
        };
        let remarks = "reference, NOT measured in this run: 1,000 sockets, 1,000/s, 200 bytes, another generator, 2026-11-21";
        Self { name: from.name.into(), durability: from.durability, remarks, peer: None, figures: vec![figures] }
    }

    fn values(&self, pick: fn(&Figures) -> f64) -> Vec<f64> {
        self.figures.iter().map(pick).collect()
    }

    /// Round by round against another, the middle one. None where one of the two was not measured, or nothing was to be divided by.
    fn ratio(&self, to: &Self, pick: fn(&Figures) -> f64) -> Option<f64> {
        if self.peer.is_none() || to.peer.is_none() {
            return None;
        }
        let ratios: Vec<_> = self.values(pick).into_iter().zip(to.values(pick)).map(|(one, other)| one / other).collect();
        Some(meter::median(ratios)).filter(|ratio| ratio.is_finite())
    }
}

/// The one all are compared with: Switchboard if it takes part, else the first.
fn base(rows: &[Row]) -> Option<&Row> {
    rows.iter().find(|row| row.name == "Switchboard").or(rows.first())
}

fn shown(value: f64, digits: usize) -> String {
    if value.is_nan() { "-".into() } else { format!("{value:.digits$}") }
}

/// `median (lowest to highest)`.
fn spread(values: &[f64], digits: usize) -> String {
    let median = shown(meter::median(values.to_vec()), digits);
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if values.len() < 2 { median } else { format!("{median} ({low:.digits$} to {high:.digits$})") }
}

/// A table with columns of equal width, in Markdown.
fn table(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<_> = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        out += &format!("| {} |\n", cells.join(" | "));
        if number == 0 {
            out += &format!("|{}\n", widths.iter().map(|width| "-".repeat(width + 2) + "|").collect::<String>());
        }
    }
    out
}

/// Prints it for people.
pub(crate) fn print(compare: &Compare, rows: &[Row]) {
    println!(
        "{} sockets, {} messages/s of {} bytes for {:?} after {:?}, {} idle; {} rounds in turns, median (lowest to highest); load {}\n",
        compare.sockets,
        compare.rate,
        compare.bytes,
        compare.duration,
        compare.warmup,
        compare.clients(),
        compare.rounds,
        meter::load()
    );
    let heads = ["peer", "durability"].into_iter().chain(COLUMNS.map(|(_, name, ..)| name));
    let mut lines = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| {
        let mark = if row.peer.is_some() { "" } else { " *" };
        let cells = COLUMNS.map(|(_, _, digits, pick)| spread(&row.values(pick), digits));
        [format!("{}{mark}", row.name), row.durability.name().into()].into_iter().chain(cells).collect()
    }));
    println!("{}", table(&lines));
    if let Some(base) = base(rows).filter(|base| base.peer.is_some()) {
        println!(
            "Times {}: round by round, median. Compare only rows of the same durability; across, the difference is what durability costs.\n",
            base.name
        );
        let heads = ["peer", "durability"].into_iter().chain(COLUMNS.map(|(_, name, ..)| name));
        let mut lines = vec![heads.map(str::to_owned).collect::<Vec<_>>()];
        lines.extend(rows.iter().filter(|row| row.peer.is_some()).map(|row| {
            let cells = COLUMNS.map(|(.., pick)| row.ratio(base, pick).map_or("-".into(), |ratio| format!("{ratio:.2}")));
            let other = if row.durability == base.durability { "" } else { " (other)" };
            [row.name.clone(), format!("{}{other}", row.durability.name())].into_iter().chain(cells).collect()
        }));
        println!("{}", table(&lines));
    }
    for row in rows {
        let mark = if row.peer.is_some() { "" } else { " *" };
        let confirmed = meter::median(row.values(|f| f.confirmed));
        let answered =
            if confirmed.is_nan() { String::new() } else { format!("; {confirmed:.2} answers to the sender a message") };
        println!("{}{mark}: {}{answered}", row.name, row.remarks);
    }
}

/// Everything, each round.
pub(crate) fn json(compare: &Compare, rows: &[Row]) -> Value {
    let base = base(rows);
    let rows = rows.iter().map(|row| {
        let figures = COLUMNS.map(|(key, _, _, pick)| {
            let values = row.values(pick);
            let ratio = base.and_then(|base| row.ratio(base, pick));
            (key.to_owned(), json!({ "median": meter::median(values.clone()), "rounds": values, "ratio": ratio }))
        });
        json!({
            "peer": row.name, "durability": row.durability.name(), "measured": row.peer.is_some(), "remarks": row.remarks,
            "answers_a_message": meter::median(row.values(|f| f.confirmed)), "figures": Value::Object(figures.into_iter().collect()),
        })
    });
    json!({
        "sockets": compare.sockets, "idle": compare.clients(), "rate": compare.rate, "bytes": compare.bytes,
        "seconds": compare.duration.as_secs_f64(), "warmup_s": compare.warmup.as_secs_f64(), "rounds": compare.rounds,
        "load": meter::load(), "ratio_to": base.map(|base| base.name.clone()), "peers": rows.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::peer::reference;

    fn figures(cpu_s: f64) -> Figures {
        Figures { memory_b: 1.0, setup_us: 1.0, setup_per_s: 1.0, p50_ms: 1.0, p99_ms: 1.0, p999_ms: 1.0, cpu_s, confirmed: 1.0 }
    }

    fn row(cpu_s: &[f64]) -> Row {
        let peer = crate::compare::peer::ejabberd::Ejabberd;
        Row { figures: cpu_s.iter().map(|cpu_s| figures(*cpu_s)).collect(), ..Row::of(peer) }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // a round in which the machine was ten times slower for both changes nothing
        let (one, base) = (row(&[2.0, 20.0, 4.0]), row(&[1.0, 10.0, 2.0]));
        assert_eq!(one.ratio(&base, |f| f.cpu_s), Some(2.0));
        assert_eq!(row(&[1.0]).ratio(&row(&[0.0]), |f| f.cpu_s), None);
        assert_eq!(Row::quoted(&reference::WUKONGIM).ratio(&base, |f| f.cpu_s), None, "not of this run");
    }

    #[test]
    fn the_middle_is_shown_with_its_bounds() {
        assert_eq!(spread(&[3.0, 1.0, 2.0], 1), "2.0 (1.0 to 3.0)");
        assert_eq!(spread(&[3.0], 1), "3.0");
        assert_eq!(spread(&[f64::NAN], 1), "-");
    }
}
