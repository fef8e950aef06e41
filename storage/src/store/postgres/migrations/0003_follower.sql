-- How far the follower of a shard's log has come (notifications).
CREATE TABLE follower (
    shard    integer PRIMARY KEY,
    followed bigint NOT NULL
) WITH (fillfactor = 50);
