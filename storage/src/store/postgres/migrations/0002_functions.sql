-- One call is one statement and one transaction: no transaction ever waits for a client, so a frozen owner holds no lock. Inside, each
-- statement sees what was committed before it began (READ COMMITTED, VOLATILE), which is why the row of the shard is locked first: whatever is
-- read behind it is as the writer before has left it.
-- SB001: fenced. SB002: the body at a position is another one.

CREATE FUNCTION acquire_shard(p_shard integer, OUT owner_epoch bigint, OUT next_offset bigint, OUT fingerprint bigint,
    OUT stream_epoch bigint, OUT w_partition integer[], OUT w_epoch integer[], OUT w_next bigint[], OUT w_digest bigint[])
RETURNS SETOF record LANGUAGE plpgsql AS $$
#variable_conflict use_column
BEGIN
    UPDATE shard s SET owner_epoch = s.owner_epoch + 1 WHERE s.shard = p_shard AND s.state = 'open'
        RETURNING s.owner_epoch, s.next_offset, s.fingerprint, s.stream_epoch
        INTO acquire_shard.owner_epoch, acquire_shard.next_offset, acquire_shard.fingerprint, acquire_shard.stream_epoch;
    IF NOT FOUND THEN RETURN; END IF;
    SELECT array_agg(w.partition), array_agg(w.epoch), array_agg(w.next_offset), array_agg(w.digest)
        INTO acquire_shard.w_partition, acquire_shard.w_epoch, acquire_shard.w_next, acquire_shard.w_digest
        FROM high_water w WHERE w.shard = p_shard;
    RETURN NEXT;
END $$;

CREATE FUNCTION commit_batch(
    p_shard integer, p_owner_epoch bigint, p_offset bigint, p_next_offset bigint, p_fingerprint bigint,
    k_owner bigint[], k_sender bigint[], k_seq bigint[], k_position bigint[], k_id bytea[], k_conversation bytea[], k_refused bytea[],
    k_hash bytea[],
    m_refs integer[], m_position bigint[], m_conversation bytea[], m_record bytea[],
    b_owner bigint[], b_seq bigint[], b_position bigint[], b_at_ms bigint[], b_conversation bytea[], b_refusal bytea[],
    h_owner bigint[], h_before bigint[], h_after bigint[], h_at_ms bigint[],
    c_owner bigint[], c_seq bigint[], c_position bigint[], c_conversation bytea[],
    w_partition integer[], w_epoch integer[], w_next bigint[], w_digest bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    is_moving boolean;
    known bigint;
    fresh bigint;
    note bigint;
BEGIN
    UPDATE shard SET next_offset = p_next_offset, fingerprint = p_fingerprint
        WHERE shard = p_shard AND owner_epoch = p_owner_epoch AND next_offset = p_offset AND state = 'open'
        RETURNING moving INTO is_moving;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'shard % is not at the expected checkpoint', p_shard USING ERRCODE = 'SB001';
    END IF;
    IF cardinality(k_owner) > 0 THEN
        -- a known key is a unique violation, and that is the end of the whole call
        INSERT INTO identity_key (shard, owner, sender, seq, position, id, conversation, refused, body_hash)
            SELECT p_shard, * FROM unnest(k_owner, k_sender, k_seq, k_position, k_id, k_conversation, k_refused, k_hash);
    END IF;
    IF cardinality(h_owner) > 0 THEN
        -- dense: each mailbox is exactly where this batch begins
        UPDATE head h SET head = t.after, oldest_ms = coalesce(h.oldest_ms, t.at_ms)
            FROM unnest(h_owner, h_before, h_after, h_at_ms) AS t(owner, before, after, at_ms)
            WHERE h.shard = p_shard AND h.owner = t.owner AND h.head = t.before;
        GET DIAGNOSTICS known = ROW_COUNT;
        fresh := 0;
        IF known < cardinality(h_owner) THEN
            INSERT INTO head (shard, owner, head, floor, oldest_ms)
                SELECT p_shard, t.owner, t.after, 0, t.at_ms
                FROM unnest(h_owner, h_before, h_after, h_at_ms) AS t(owner, before, after, at_ms) WHERE t.before = 0
                ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS fresh = ROW_COUNT;
        END IF;
        IF known + fresh <> cardinality(h_owner) THEN
            RAISE EXCEPTION 'a mailbox of shard % is not where the batch begins', p_shard USING ERRCODE = 'SB001';
        END IF;
        INSERT INTO mailbox (shard, owner, seq, position, at_ms, conversation, refusal)
            SELECT p_shard, * FROM unnest(b_owner, b_seq, b_position, b_at_ms, b_conversation, b_refusal);
    END IF;
    IF cardinality(m_refs) > 0 THEN
        -- the same message may come to another mailbox of the shard in a later batch
        INSERT INTO message AS m (shard, refs, position, conversation, record)
            SELECT p_shard, * FROM unnest(m_refs, m_position, m_conversation, m_record)
            ON CONFLICT (shard, conversation, position) DO UPDATE SET refs = m.refs + excluded.refs WHERE m.record = excluded.record;
        GET DIAGNOSTICS known = ROW_COUNT;
        IF known <> cardinality(m_refs) THEN
            RAISE EXCEPTION 'another body has a position of this batch' USING ERRCODE = 'SB002';
        END IF;
        INSERT INTO conversation (shard, owner, last_seq, last_position, conversation)
            SELECT p_shard, * FROM unnest(c_owner, c_seq, c_position, c_conversation)
            ON CONFLICT (shard, owner, conversation) DO UPDATE
            SET last_seq = excluded.last_seq, last_position = excluded.last_position;
    END IF;
    IF cardinality(w_partition) > 0 THEN
        INSERT INTO high_water (shard, partition, epoch, next_offset, digest)
            SELECT p_shard, * FROM unnest(w_partition, w_epoch, w_next, w_digest)
            ON CONFLICT (shard, partition, epoch) DO UPDATE SET next_offset = excluded.next_offset, digest = excluded.digest;
    END IF;
    IF is_moving THEN
        INSERT INTO move_mailbox (shard, owner, first_seq, last_seq)
            SELECT p_shard, t.owner, t.before + 1, t.after FROM unnest(h_owner, h_before, h_after) AS t(owner, before, after);
        note := nextval(pg_get_serial_sequence('move_mailbox', 'n'));
        INSERT INTO move_key (shard, owner, sender, seq, position, id, conversation, refused, body_hash, n)
            SELECT p_shard, t.*, note FROM unnest(k_owner, k_sender, k_seq, k_position, k_id, k_conversation, k_refused, k_hash) AS t;
    END IF;
END $$;

-- A step of retention: at most p_owners mailboxes, at most p_events of each. Nothing while another node or a move works on the shard.
CREATE FUNCTION retain_events(p_shard integer, p_before_ms bigint, p_owners integer, p_events integer,
    OUT events bigint, OUT messages bigint) LANGUAGE plpgsql AS $$
DECLARE
    owners bigint[];
    uptos bigint[];
BEGIN
    events := 0;
    messages := 0;
    IF NOT pg_try_advisory_xact_lock(1397899075, p_shard) THEN RETURN; END IF;
    IF NOT EXISTS (SELECT 1 FROM head h WHERE h.shard = p_shard AND h.oldest_ms < p_before_ms) THEN RETURN; END IF;
    -- commits wait behind this, some milliseconds
    PERFORM 1 FROM shard s WHERE s.shard = p_shard AND s.state = 'open' FOR NO KEY UPDATE;
    IF NOT FOUND THEN RETURN; END IF;
    SELECT array_agg(h.owner), array_agg(coalesce(newer.seq - 1, least(h.floor + p_events, h.head))) INTO owners, uptos
        FROM (SELECT o.owner, o.floor, o.head FROM head o WHERE o.shard = p_shard AND o.oldest_ms < p_before_ms
              ORDER BY o.oldest_ms LIMIT p_owners) AS h
        LEFT JOIN LATERAL (
            SELECT f.seq FROM (SELECT b.seq, b.at_ms FROM mailbox b WHERE b.shard = p_shard AND b.owner = h.owner AND b.seq > h.floor
                               ORDER BY b.seq LIMIT p_events) AS f
            WHERE f.at_ms >= p_before_ms ORDER BY f.seq LIMIT 1) AS newer ON true;
    WITH gone AS (
        DELETE FROM mailbox b USING unnest(owners, uptos) AS t(owner, upto)
            WHERE b.shard = p_shard AND b.owner = t.owner AND b.seq <= t.upto
            RETURNING b.conversation, b.position, b.refusal IS NULL AS has_message
    ), counted AS (
        SELECT g.conversation, g.position, count(*)::integer AS n FROM gone g WHERE g.has_message GROUP BY 1, 2
    ), needless AS (
        DELETE FROM message m USING counted c
            WHERE m.shard = p_shard AND m.conversation = c.conversation AND m.position = c.position AND m.refs <= c.n RETURNING 1
    ), needed AS (
        UPDATE message m SET refs = m.refs - c.n FROM counted c
            WHERE m.shard = p_shard AND m.conversation = c.conversation AND m.position = c.position AND m.refs > c.n RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM needless) INTO events, messages;
    UPDATE head h SET floor = t.upto, oldest_ms = (
            SELECT b.at_ms FROM mailbox b WHERE b.shard = p_shard AND b.owner = t.owner AND b.seq = t.upto + 1)
        FROM unnest(owners, uptos) AS t(owner, upto) WHERE h.shard = p_shard AND h.owner = t.owner;
    DELETE FROM conversation c USING unnest(owners, uptos) AS t(owner, upto)
        WHERE c.shard = p_shard AND c.owner = t.owner AND c.last_seq <= t.upto;
END $$;

CREATE FUNCTION retain_keys(p_shard integer, p_before bytea, p_keys integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1397899075, p_shard) THEN RETURN 0; END IF;
    PERFORM 1 FROM shard s WHERE s.shard = p_shard AND s.state = 'open' FOR KEY SHARE;
    IF NOT FOUND THEN RETURN 0; END IF;
    DELETE FROM identity_key WHERE ctid = ANY (ARRAY(
        SELECT k.ctid FROM identity_key k WHERE k.shard = p_shard AND k.id < p_before ORDER BY k.id LIMIT p_keys));
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;

CREATE FUNCTION retain_devices(p_shard integer, p_days integer) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    gone bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(1397899075, p_shard) THEN RETURN 0; END IF;
    PERFORM 1 FROM shard s WHERE s.shard = p_shard AND s.state = 'open' FOR KEY SHARE;
    IF NOT FOUND THEN RETURN 0; END IF;
    DELETE FROM device d WHERE d.shard = p_shard AND d.seen_at < now() - make_interval(days => p_days);
    GET DIAGNOSTICS gone = ROW_COUNT;
    RETURN gone;
END $$;
