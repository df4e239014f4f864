-- What is not as it should be?

CREATE FUNCTION talkmeter.health(prepared_for interval DEFAULT '5 minutes', unswept_for interval DEFAULT '15 minutes')
    RETURNS TABLE (problem text, object text, detail text, hint text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        WITH attached AS (
            SELECT s.*, c.oid AS found
            FROM talkmeter.source AS s
            LEFT JOIN pg_class AS c ON c.oid = s.relation
            WHERE s.detached_at IS NULL
        ), member AS (
            -- The attached table and, if it is partitioned, every partition: an insert fires the trigger of the one it names.
            SELECT a.source_id, a.found AS relid FROM attached AS a WHERE a.found IS NOT NULL
            UNION
            SELECT a.source_id, t.relid FROM attached AS a CROSS JOIN LATERAL pg_partition_tree(a.found) AS t
        )
        SELECT 'metering_off', 'talkmeter.enabled', 'Messages are inserted unmetered.',
            'Set talkmeter.enabled to on.'
        WHERE current_setting('talkmeter.enabled', true) IN ('off', 'false', 'no', '0')
        UNION ALL
        SELECT 'table_dropped', a.relation_name, 'The attached table does not exist any more; what was metered stays.',
            'SELECT talkmeter.detach(' || a.relation::oid || ');'
        FROM attached AS a
        WHERE a.found IS NULL
        UNION ALL
        SELECT CASE WHEN to_regclass(a.relation_name) IS NULL THEN 'table_renamed' ELSE 'table_swapped' END,
            a.relation_name,
            format('The attached table is called %s now', a.relation)
                || CASE WHEN to_regclass(a.relation_name) IS NULL THEN '.'
                    ELSE format(', and %s is another table, which is not metered.', a.relation_name) END,
            'If this is meant, detach the table and attach the one that the application inserts into.'
        FROM attached AS a
        JOIN pg_class AS c ON c.oid = a.found
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE format('%I.%I', n.nspname, c.relname) <> a.relation_name
        UNION ALL
        SELECT 'trigger_missing', m.relid::regclass::text, 'Inserts into it are not metered.',
            'Detach the table and attach it again.'
        FROM member AS m
        WHERE NOT EXISTS (
            SELECT FROM pg_trigger AS t
            WHERE t.tgrelid = m.relid AND t.tgfoid = 'talkmeter.on_insert'::regproc)
        UNION ALL
        SELECT 'partition_taken_out', m.relid::text,
            'It was a partition when its table was attached; inserts into it are not metered any more.',
            format('DROP TRIGGER talkmeter_insert ON %s;', m.relid)
        FROM attached AS a
        CROSS JOIN LATERAL unnest(a.members) AS m (relid)
        WHERE a.found IS NOT NULL AND m.relid::oid NOT IN (SELECT relid FROM member)
            AND EXISTS (
                SELECT FROM pg_trigger AS t
                WHERE t.tgrelid = m.relid AND t.tgfoid = 'talkmeter.on_insert'::regproc)
        UNION ALL
        SELECT 'trigger_disabled', t.tgrelid::regclass::text,
            CASE t.tgenabled WHEN 'R' THEN 'Inserts into it are metered in replica role only.'
                ELSE 'Inserts into it are not metered.' END,
            format('ALTER TABLE %s ENABLE TRIGGER %I;', t.tgrelid::regclass, t.tgname)
        FROM member AS m
        JOIN pg_trigger AS t ON t.tgrelid = m.relid
        WHERE t.tgfoid = 'talkmeter.on_insert'::regproc AND t.tgenabled IN ('D', 'R')
        UNION ALL
        SELECT 'mapping_broken', a.relation::text,
            format('Column "%s" (%s), which the mapping names, was dropped or has another type.',
                kept.name, kept.type),
            'Rows go to quarantine. Detach the table and attach it again with a mapping of the columns that it has.'
        FROM attached AS a
        CROSS JOIN LATERAL jsonb_to_recordset(a.columns) AS kept (name text, number smallint, type text)
        WHERE a.found IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_attribute AS c
            WHERE c.attrelid = a.found AND NOT c.attisdropped AND format_type(c.atttypid, NULL) = kept.type
                AND CASE WHEN a.relation_origin = talkmeter.origin_of(a.relation) THEN c.attnum = kept.number ELSE c.attname = kept.name END)
        UNION ALL
        SELECT CASE WHEN q.reason = 'disabled' THEN 'gap' ELSE 'quarantine' END,
            COALESCE(s.relation::text, 'source ' || q.source_id),
            format('%s rows could not be metered: %s. The last one came at %s; %s came in the last 24 hours.',
                q.all_rows, q.reason, q.newest, q.recent_rows),
            'See talkmeter.quarantine.'
        FROM (
            SELECT source_id, reason, count(*) AS all_rows, max(quarantined_at) AS newest,
                count(*) FILTER (WHERE quarantined_at > statement_timestamp() - interval '24 hours') AS recent_rows
            FROM talkmeter.quarantined
            GROUP BY source_id, reason
        ) AS q
        LEFT JOIN talkmeter.source AS s USING (source_id)
        UNION ALL
        SELECT 'sweep_stale', 'talkmeter.part',
            format('%s parts have ended by time and are not swept, the oldest since %s.', p.parts, p.oldest),
            'Run SELECT talkmeter.sweep() at least once a minute.'
        FROM (
            SELECT count(*) AS parts, min(due_at) AS oldest
            FROM talkmeter.part
            WHERE ended_at IS NULL AND timed AND due_at < statement_timestamp() - unswept_for
        ) AS p
        WHERE p.parts > 0
        UNION ALL
        SELECT 'transaction_prepared', x.gid,
            format('Prepared at %s by %s; until it ends it holds the conversations and tenants that it metered.',
                x.prepared, x.owner),
            format('COMMIT PREPARED %1$L; or ROLLBACK PREPARED %1$L;', x.gid)
        FROM pg_prepared_xacts AS x
        WHERE x.database = current_database()
            AND x.prepared <= statement_timestamp() - prepared_for
            AND EXISTS (
                -- A prepared transaction has no process; its locks share a virtual transaction with that on its own id.
                SELECT FROM pg_locks AS own
                JOIN pg_locks AS held USING (virtualtransaction)
                WHERE own.transactionid = x.transaction AND own.pid IS NULL AND held.pid IS NULL
                    AND held.relation = 'talkmeter.conversation_lock'::regclass)
    $$;
REVOKE ALL ON FUNCTION talkmeter.health(interval, interval) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.health(interval, interval) IS
    'Everything that is not as it should be, one row each, with what to do; no rows: all is well. A prepared transaction is reported after prepared_for, a due part after unswept_for';
