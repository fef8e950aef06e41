-- commit_batch for several shards at once: those that wait at the same time share a transaction and its fsync. One that fails fails all, and the
-- caller then tries each alone. The rows of the shards are locked in one order, so that two calls never wait for each other.
CREATE FUNCTION commit_shards(
    p_shard integer[], p_owner_epoch bigint[], p_offset bigint[], p_next_offset bigint[], p_fingerprint bigint[],
    k_shard integer[], k_owner bigint[], k_sender bigint[], k_seq bigint[], k_position bigint[], k_id bytea[], k_conversation bytea[],
    k_refused bytea[], k_hash bytea[],
    m_shard integer[], m_refs integer[], m_position bigint[], m_conversation bytea[], m_record bytea[],
    b_shard integer[], b_owner bigint[], b_seq bigint[], b_position bigint[], b_at_ms bigint[], b_conversation bytea[], b_refusal bytea[],
    h_shard integer[], h_owner bigint[], h_before bigint[], h_after bigint[], h_at_ms bigint[],
    c_shard integer[], c_owner bigint[], c_seq bigint[], c_position bigint[], c_conversation bytea[],
    w_shard integer[], w_partition integer[], w_epoch integer[], w_next bigint[], w_digest bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    are_moving integer[];
    known bigint;
    fresh bigint;
    note bigint;
BEGIN
    IF cardinality(p_shard) > 1 THEN
        PERFORM 1 FROM shard s WHERE s.shard = ANY (p_shard) ORDER BY s.shard FOR NO KEY UPDATE;
    END IF;
    WITH moved AS (
        UPDATE shard s SET next_offset = t.next_offset, fingerprint = t.fingerprint
            FROM unnest(p_shard, p_owner_epoch, p_offset, p_next_offset, p_fingerprint)
                AS t(shard, owner_epoch, at_offset, next_offset, fingerprint)
            WHERE s.shard = t.shard AND s.owner_epoch = t.owner_epoch AND s.next_offset = t.at_offset AND s.state = 'open'
            RETURNING s.shard, s.moving
    ) SELECT count(*), array_agg(m.shard) FILTER (WHERE m.moving) INTO known, are_moving FROM moved m;
    IF known <> cardinality(p_shard) THEN
        RAISE EXCEPTION 'a shard of % is not at the expected checkpoint', p_shard USING ERRCODE = 'SB001';
    END IF;
    IF cardinality(k_owner) > 0 THEN
        -- a known key is a unique violation, and that is the end of the whole call
        INSERT INTO identity_key (shard, owner, sender, seq, position, id, conversation, refused, body_hash)
            SELECT * FROM unnest(k_shard, k_owner, k_sender, k_seq, k_position, k_id, k_conversation, k_refused, k_hash);
    END IF;
    IF cardinality(h_owner) > 0 THEN
        -- dense: each mailbox is exactly where this batch begins
        UPDATE head h SET head = t.after, oldest_ms = coalesce(h.oldest_ms, t.at_ms)
            FROM unnest(h_shard, h_owner, h_before, h_after, h_at_ms) AS t(shard, owner, before, after, at_ms)
            WHERE h.shard = t.shard AND h.owner = t.owner AND h.head = t.before;
        GET DIAGNOSTICS known = ROW_COUNT;
        fresh := 0;
        IF known < cardinality(h_owner) THEN
            INSERT INTO head (shard, owner, head, floor, oldest_ms)
                SELECT t.shard, t.owner, t.after, 0, t.at_ms
                FROM unnest(h_shard, h_owner, h_before, h_after, h_at_ms) AS t(shard, owner, before, after, at_ms) WHERE t.before = 0
                ON CONFLICT DO NOTHING;
            GET DIAGNOSTICS fresh = ROW_COUNT;
        END IF;
        IF known + fresh <> cardinality(h_owner) THEN
            RAISE EXCEPTION 'a mailbox of a shard of % is not where the batch begins', p_shard USING ERRCODE = 'SB001';
        END IF;
        INSERT INTO mailbox (shard, owner, seq, position, at_ms, conversation, refusal)
            SELECT * FROM unnest(b_shard, b_owner, b_seq, b_position, b_at_ms, b_conversation, b_refusal);
    END IF;
    IF cardinality(m_refs) > 0 THEN
        -- the same message may come to another mailbox of the shard in a later batch
        INSERT INTO message AS m (shard, refs, position, conversation, record)
            SELECT * FROM unnest(m_shard, m_refs, m_position, m_conversation, m_record)
            ON CONFLICT (shard, conversation, position) DO UPDATE SET refs = m.refs + excluded.refs WHERE m.record = excluded.record;
        GET DIAGNOSTICS known = ROW_COUNT;
        IF known <> cardinality(m_refs) THEN
            RAISE EXCEPTION 'another body has a position of this batch' USING ERRCODE = 'SB002';
        END IF;
        INSERT INTO conversation (shard, owner, last_seq, last_position, conversation)
            SELECT * FROM unnest(c_shard, c_owner, c_seq, c_position, c_conversation)
            ON CONFLICT (shard, owner, conversation) DO UPDATE
            SET last_seq = excluded.last_seq, last_position = excluded.last_position;
    END IF;
    IF cardinality(w_partition) > 0 THEN
        INSERT INTO high_water (shard, partition, epoch, next_offset, digest)
            SELECT * FROM unnest(w_shard, w_partition, w_epoch, w_next, w_digest)
            ON CONFLICT (shard, partition, epoch) DO UPDATE SET next_offset = excluded.next_offset, digest = excluded.digest;
    END IF;
    IF are_moving IS NOT NULL THEN
        INSERT INTO move_mailbox (shard, owner, first_seq, last_seq)
            SELECT t.shard, t.owner, t.before + 1, t.after FROM unnest(h_shard, h_owner, h_before, h_after) AS t(shard, owner, before, after)
            WHERE t.shard = ANY (are_moving);
        note := nextval(pg_get_serial_sequence('move_mailbox', 'n'));
        INSERT INTO move_key (shard, owner, sender, seq, position, id, conversation, refused, body_hash, n)
            SELECT t.*, note
            FROM unnest(k_shard, k_owner, k_sender, k_seq, k_position, k_id, k_conversation, k_refused, k_hash)
                AS t(shard, owner, sender, seq, position, id, conversation, refused, body_hash)
            WHERE t.shard = ANY (are_moving);
    END IF;
END $$;
