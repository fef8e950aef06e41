-- Everything of a virtual shard carries its number first, so that a shard can be read, moved and dropped by the front of each primary key.
-- Numbers are bigint: users, seqs, offsets and positions below 2^63 as they are (larger ones are refused before they get here); digests and
-- fingerprints bit by bit. Ids and hashes are bytea, which sorts like the bytes.

CREATE TABLE cluster (
    one            boolean PRIMARY KEY DEFAULT true CHECK (one),
    cluster_id     text NOT NULL,
    virtual_shards integer NOT NULL CHECK (virtual_shards BETWEEN 1 AND 65535),
    ready          boolean NOT NULL DEFAULT false,   -- every shard has its place; from then on none is ever made anew
    created_at     timestamptz NOT NULL DEFAULT now()
);

-- The truth about where a shard is: 'open' in exactly one database. Every statement that reads or writes a shard looks at this row.
CREATE TABLE shard (
    shard        integer PRIMARY KEY,
    state        text NOT NULL CHECK (state IN ('open', 'copying', 'moved')),
    map_version  bigint NOT NULL DEFAULT 1,   -- grows by one with each change of state
    owner_epoch  bigint NOT NULL DEFAULT 0,
    next_offset  bigint NOT NULL DEFAULT 0,
    fingerprint  bigint NOT NULL DEFAULT 0,
    stream_epoch bigint NOT NULL DEFAULT 1,
    moving       boolean NOT NULL DEFAULT false,   -- commits note in move_mailbox and move_key what they add
    moved_to     text,
    move_token   text,      -- of a copy: which move it belongs to
    copied       bigint     -- of a copy: the last note that is in it; null until the first pass is complete
) WITH (fillfactor = 50);   -- updated by each commit: room for heap-only updates

CREATE TABLE high_water (
    shard       integer NOT NULL,
    partition   integer NOT NULL,
    epoch       integer NOT NULL,
    next_offset bigint NOT NULL,
    digest      bigint NOT NULL,
    PRIMARY KEY (shard, partition, epoch)
) WITH (fillfactor = 50);

-- A body once for all mailboxes of the shard; refs counts the mailbox rows that need it.
CREATE TABLE message (
    shard        integer NOT NULL,
    refs         integer NOT NULL,
    position     bigint NOT NULL,
    conversation bytea NOT NULL,
    record       bytea NOT NULL,
    PRIMARY KEY (shard, conversation, position)
);

CREATE TABLE mailbox (
    shard        integer NOT NULL,
    owner        bigint NOT NULL,
    seq          bigint NOT NULL,
    position     bigint NOT NULL,
    at_ms        bigint NOT NULL,
    conversation bytea NOT NULL,
    refusal      bytea,
    PRIMARY KEY (shard, owner, seq)
);

-- oldest_ms is the time of the event behind the floor: what retention looks for. It changes seldom, so that updates stay heap-only.
CREATE TABLE head (
    shard     integer NOT NULL,
    owner     bigint NOT NULL,
    head      bigint NOT NULL,
    floor     bigint NOT NULL DEFAULT 0,
    oldest_ms bigint,
    PRIMARY KEY (shard, owner)
) WITH (fillfactor = 70);
CREATE INDEX head_oldest ON head (shard, oldest_ms);

-- The id leads, because its first bytes are its time: new keys go to one end of the index, and retention takes them from the other.
CREATE TABLE identity_key (
    shard        integer NOT NULL,
    owner        bigint NOT NULL,
    sender       bigint NOT NULL,
    seq          bigint,
    position     bigint NOT NULL,
    id           bytea NOT NULL,
    conversation bytea NOT NULL,
    refused      bytea NOT NULL,   -- empty: the message itself
    body_hash    bytea NOT NULL,
    PRIMARY KEY (shard, id, owner, sender, conversation, refused)
);

-- No index on last_seq: it would make each message an index entry, to save a rare reader the sorting of one owner's conversations.
CREATE TABLE conversation (
    shard         integer NOT NULL,
    owner         bigint NOT NULL,
    last_seq      bigint NOT NULL,
    last_position bigint NOT NULL,
    conversation  bytea NOT NULL,
    PRIMARY KEY (shard, owner, conversation)
) WITH (fillfactor = 70);

CREATE TABLE device (
    shard   integer NOT NULL,
    owner   bigint NOT NULL,
    epoch   bigint NOT NULL,
    seq     bigint NOT NULL,
    seen_at timestamptz NOT NULL DEFAULT now(),
    device  text NOT NULL,
    PRIMARY KEY (shard, owner, device)
) WITH (fillfactor = 70);

-- What commits added to a shard while it is copied to another database. One order: the row of the shard is locked while n is drawn.
CREATE TABLE move_mailbox (
    n         bigint GENERATED ALWAYS AS IDENTITY,
    shard     integer NOT NULL,
    owner     bigint NOT NULL,
    first_seq bigint NOT NULL,
    last_seq  bigint NOT NULL,
    PRIMARY KEY (shard, n)
);
CREATE TABLE move_key (LIKE identity_key);
ALTER TABLE move_key ADD COLUMN n bigint NOT NULL;
CREATE INDEX move_key_n ON move_key (shard, n);
