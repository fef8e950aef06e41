CREATE TABLE instance (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    stream_epoch INTEGER NOT NULL CHECK (stream_epoch > 0),
    created_at_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE device (
    user INTEGER NOT NULL,
    device TEXT NOT NULL,
    born_head INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    born_at_ms INTEGER NOT NULL,
    seen_at_ms INTEGER NOT NULL,
    PRIMARY KEY (user, device)
) STRICT, WITHOUT ROWID;
