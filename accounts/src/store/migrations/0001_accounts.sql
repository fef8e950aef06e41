CREATE TABLE user (
    id INTEGER PRIMARY KEY CHECK (id > 0),
    phone TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL,
    about TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL
) STRICT;

-- The newest code of each number that asked within a day. The number itself is not here: most never become a user.
CREATE TABLE challenge (
    number BLOB PRIMARY KEY,
    salt BLOB NOT NULL,
    hash BLOB NOT NULL,
    made_at_ms INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    asked BLOB NOT NULL,            -- times of the last day's codes, 8 bytes each
    used_at_ms INTEGER,
    used_sid BLOB,
    used_new INTEGER,
    used_key BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX challenge_made ON challenge (made_at_ms);

CREATE TABLE session (
    sid BLOB PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES user (id),
    device TEXT NOT NULL,
    label TEXT NOT NULL,
    number INTEGER NOT NULL,        -- of the newest refresh token
    turned_at_ms INTEGER NOT NULL,
    turned_key BLOB,
    refresh_until_ms INTEGER NOT NULL,
    access_until_ms INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    seen_at_ms INTEGER NOT NULL,
    ended_at_ms INTEGER,
    ended_why TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX session_device ON session (user, device) WHERE ended_at_ms IS NULL;
CREATE INDEX session_ended ON session (ended_at_ms) WHERE ended_at_ms IS NOT NULL;
CREATE INDEX session_refresh_until ON session (refresh_until_ms);

CREATE TABLE answer (
    key BLOB PRIMARY KEY,
    caller BLOB NOT NULL,
    asked BLOB NOT NULL,            -- keyed hash of the body
    status INTEGER NOT NULL,
    body BLOB,
    at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX answer_at ON answer (at_ms);
