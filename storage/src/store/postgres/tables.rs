//! The tables of a shard, as a move copies them: everything once, and what commits have added since.

use super::shards::LOCK;

/// One table.
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: &'static str,
    /// The rows to copy again, `{s}` the shard, `{from}` (excluded) and `{to}` the notes, `{since}` a time.
    changed: &'static str,
    /// When the row is there already.
    conflict: &'static str,
}

/// New mailbox rows, by the notes. The notes lead (that is what OFFSET 0 is for): whatever the planner believes of a table whose rows have just
/// arrived, each note costs one look-up.
macro_rules! new_rows {
    () => {
        "move_mailbox v CROSS JOIN LATERAL (SELECT * FROM mailbox m WHERE m.shard = v.shard AND m.owner = v.owner \
         AND m.seq BETWEEN v.first_seq AND v.last_seq OFFSET 0) b WHERE v.shard = {s} AND v.n > {from} AND v.n <= {to}"
    };
}

/// All tables.
pub(super) const TABLES: [Table; 8] = [
    Table {
        name: "message",
        columns: "shard, refs, position, conversation, record",
        changed: concat!(
            "(SELECT DISTINCT b.conversation, b.position FROM ",
            new_rows!(),
            " AND b.refusal IS NULL) d CROSS JOIN LATERAL (SELECT * FROM message m WHERE m.shard = {s} AND m.conversation = d.conversation \
             AND m.position = d.position OFFSET 0) t"
        ),
        conflict: "(shard, conversation, position) DO UPDATE SET refs = excluded.refs",
    },
    Table {
        name: "mailbox",
        columns: "shard, owner, seq, position, at_ms, conversation, refusal",
        changed: concat!("(SELECT b.* FROM ", new_rows!(), ") t"),
        conflict: "(shard, owner, seq) DO NOTHING",
    },
    Table {
        name: "identity_key",
        columns: "shard, owner, sender, seq, position, id, conversation, refused, body_hash",
        changed: "move_key t WHERE t.shard = {s} AND t.n > {from} AND t.n <= {to}",
        conflict: "(shard, id, owner, sender, conversation, refused) DO NOTHING",
    },
    Table {
        name: "head",
        columns: "shard, owner, head, floor, oldest_ms",
        changed: "(SELECT DISTINCT v.owner FROM move_mailbox v WHERE v.shard = {s} AND v.n > {from} AND v.n <= {to}) d \
                  CROSS JOIN LATERAL (SELECT * FROM head h WHERE h.shard = {s} AND h.owner = d.owner OFFSET 0) t",
        conflict: "(shard, owner) DO UPDATE SET head = excluded.head, floor = excluded.floor, oldest_ms = excluded.oldest_ms",
    },
    Table {
        name: "conversation",
        columns: "shard, owner, last_seq, last_position, conversation",
        changed: concat!(
            "(SELECT DISTINCT b.owner, b.conversation FROM ",
            new_rows!(),
            ") d CROSS JOIN LATERAL (SELECT * FROM conversation c WHERE c.shard = {s} AND c.owner = d.owner \
             AND c.conversation = d.conversation OFFSET 0) t"
        ),
        conflict: "(shard, owner, conversation) DO UPDATE SET last_seq = excluded.last_seq, last_position = excluded.last_position",
    },
    Table {
        name: "high_water",
        columns: "shard, partition, epoch, next_offset, digest",
        changed: "high_water t WHERE t.shard = {s}",
        conflict: "(shard, partition, epoch) DO UPDATE SET next_offset = excluded.next_offset, digest = excluded.digest",
    },
    Table {
        name: "follower",
        columns: "shard, followed",
        changed: "follower t WHERE t.shard = {s}",
        conflict: "(shard) DO UPDATE SET followed = excluded.followed",
    },
    Table {
        name: "device",
        columns: "shard, owner, epoch, seq, seen_at, device",
        changed: "device t WHERE t.shard = {s} AND t.seen_at >= '{since}'",
        conflict: "(shard, owner, device) DO UPDATE SET epoch = excluded.epoch, seq = excluded.seq, seen_at = excluded.seen_at",
    },
];

/// Notes of a move, at its source.
pub(super) const NOTES: [&str; 2] = ["move_mailbox", "move_key"];

/// Which rows to copy again.
pub(super) struct Range<'a> {
    pub(super) shard: u16,
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) since: &'a str,
}

impl Table {
    pub(super) fn copy_all_out(&self, shard: u16) -> String {
        format!("COPY (SELECT {} FROM {} WHERE shard = {shard}) TO STDOUT (FORMAT binary)", self.columns, self.name)
    }

    pub(super) fn copy_all_in(&self) -> String {
        format!("COPY {} ({}) FROM STDIN (FORMAT binary)", self.name, self.columns)
    }

    pub(super) fn copy_changed_out(&self, range: &Range<'_>) -> String {
        let columns: Vec<_> = self.columns.split(", ").map(|column| format!("t.{column}")).collect();
        let changed = self.changed.replace("{s}", &range.shard.to_string()).replace("{from}", &range.from.to_string());
        let changed = changed.replace("{to}", &range.to.to_string()).replace("{since}", range.since);
        format!("COPY (SELECT {} FROM {changed}) TO STDOUT (FORMAT binary)", columns.join(", "))
    }

    pub(super) fn stage(&self) -> String {
        format!("CREATE TEMP TABLE IF NOT EXISTS staged_{0} (LIKE {0}) ON COMMIT DELETE ROWS", self.name)
    }

    pub(super) fn copy_staged_in(&self) -> String {
        format!("COPY staged_{} ({}) FROM STDIN (FORMAT binary)", self.name, self.columns)
    }

    pub(super) fn take_staged(&self) -> String {
        let Self { name, columns, conflict, .. } = self;
        format!("INSERT INTO {name} ({columns}) SELECT {columns} FROM staged_{name} ON CONFLICT {conflict}")
    }

    pub(super) fn count(&self, shard: u16) -> String {
        format!("SELECT count(*) FROM {} WHERE shard = {shard}", self.name)
    }
}

/// Deletes some rows of a shard.
pub(super) fn delete_some(table: &str, shard: u16) -> String {
    format!("DELETE FROM {table} WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE shard = {shard} LIMIT 5000))")
}

/// Keeps retention, and other moves, from a shard for as long as the session lives.
pub(super) fn lock(shard: u16) -> String {
    format!("SELECT pg_try_advisory_lock({LOCK}, {shard})")
}
