//! Figures of peers, quoted where no binary of theirs is given: measured on 2026-11-21 on a machine of 2 vCPU (Intel Xeon, Debian 12), quiet,
//! one round, with another generator of the same kind, server and generator on a processor each. Good for an order of magnitude, not for a
//! ratio.

use super::Durability;

/// What was measured then, at 200 bytes, 1,000 sockets and 1,000 messages a second; memory and set-up with 10,000 sockets.
pub(crate) struct Reference {
    pub(crate) name: &'static str,
    pub(crate) durability: Durability,
    pub(crate) memory_b: f64,
    pub(crate) setup_us: f64,
    pub(crate) setup_per_s: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) cpu_s: f64,
}

/// Centrifugo 6.9.1 in memory, JSON. Memory 45 to 52 KB.
pub(crate) const CENTRIFUGO: Reference = Reference {
    name: "Centrifugo 6.9.1 JSON",
    durability: Durability::Memory,
    memory_b: 45_000.0,
    setup_us: 157.0,
    setup_per_s: 6150.0,
    p50_ms: 0.193,
    p99_ms: 0.537,
    cpu_s: 157.0,
};

/// WuKongIM v3 beta (August 2026): a durable commit with group commit of 500 µs; each delivery is encrypted.
pub(crate) const WUKONGIM: Reference = Reference {
    name: "WuKongIM v3 beta",
    durability: Durability::Fsync,
    memory_b: 7900.0,
    setup_us: 333.0,
    setup_per_s: 2950.0,
    p50_ms: 7.85,
    p99_ms: 123.0,
    cpu_s: 683.0,
};
