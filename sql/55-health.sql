-- What is not as it should be?

CREATE FUNCTION talkmeter.is_indexed(relation regclass, conversation name[], tenant name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT EXISTS (
            SELECT FROM pg_index AS i
            JOIN pg_class AS c ON c.oid = i.indexrelid
            JOIN pg_am AS m ON m.oid = c.relam
            CROSS JOIN LATERAL (
                SELECT array_agg(a.attname ORDER BY k.ordinal) AS names
                FROM generate_series(0, i.indnkeyatts - 1) AS k (ordinal)
                LEFT JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[k.ordinal]
            ) AS indexed
            WHERE i.indrelid = is_indexed.relation AND i.indisvalid AND i.indpred IS NULL AND m.amname = 'btree'
                AND (indexed.names[:cardinality(conversation)] @> conversation
                    OR indexed.names[:cardinality(conversation) + 1] @> (conversation || is_indexed.tenant)))
    $$;
REVOKE ALL ON FUNCTION talkmeter.is_indexed(regclass, name[], name) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.is_indexed(regclass, name[], name) IS
    'Whether an index finds the rows of one conversation: its first columns are those that hold it, in any order, the tenant among them or not';

CREATE FUNCTION talkmeter.is_unique(relation regclass, message_id name[]) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        WITH partition_key AS (
            -- Of all levels: PostgreSQL demands that a unique index hold them.
            SELECT a.attname
            FROM pg_partition_tree(is_unique.relation) AS t
            JOIN pg_partitioned_table AS p ON p.partrelid = t.relid
            JOIN pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
        )
        SELECT (
            -- A table with a foreign partition can have no such index: then each other partition must have one.
            SELECT CASE WHEN bool_or(c.relkind = 'f') THEN NOT EXISTS (
                SELECT FROM pg_partition_tree(is_unique.relation) AS other
                JOIN pg_class AS oc ON oc.oid = other.relid
                WHERE CASE WHEN oc.relkind = 'r' THEN NOT talkmeter.is_unique(other.relid, is_unique.message_id) END) ELSE false END
            FROM pg_partition_tree(is_unique.relation) AS t
            JOIN pg_class AS c ON c.oid = t.relid
        ) OR EXISTS (
            SELECT FROM pg_index AS i
            WHERE i.indrelid = is_unique.relation AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
                AND (SELECT bool_or(a.attname = ANY (is_unique.message_id))
                        AND bool_and(a.attname = ANY (is_unique.message_id) OR a.attname IN (SELECT k.attname FROM partition_key AS k))
                     FROM generate_series(0, i.indnkeyatts - 1) AS n
                     JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n]))
    $$;
REVOKE ALL ON FUNCTION talkmeter.is_unique(regclass, name[]) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.is_unique(regclass, name[]) IS
    'Whether a unique index holds columns of the message id, and no others but those of the partition keys; of a table with a foreign partition, one on each of the others';

CREATE FUNCTION talkmeter.columns_of(key jsonb, usual text) RETURNS text[]
    LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT CASE jsonb_typeof(key)
            WHEN 'array' THEN ARRAY(SELECT jsonb_array_elements_text(key))
            WHEN 'object' THEN ARRAY(SELECT jsonb_array_elements_text(COALESCE(key -> 'first_of', jsonb_build_array(key -> 'column'))))
            ELSE ARRAY[COALESCE(key #>> '{}', usual)] END
    $$;
REVOKE ALL ON FUNCTION talkmeter.columns_of(jsonb, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.columns_of(jsonb, text) IS 'The columns that a key of a mapping names, or the usual one if it is left out';

CREATE VIEW talkmeter.sweepers AS
    SELECT COALESCE(s.sweeper, w.sweeper) AS sweeper, s.role, w.pid, s.swept_at, s.reconciled, s.failed_since, s.error_code, s.error
    FROM talkmeter.sweeper AS s
    FULL JOIN (
        -- The lock by which a launcher shows which database it serves. SQL can take none that ends with this number.
        SELECT 'worker'::text AS sweeper, l.pid
        FROM pg_catalog.pg_locks AS l
        JOIN pg_catalog.pg_database AS d ON d.oid = l.database
        WHERE l.locktype = 'advisory' AND l.classid = 1 AND l.objsubid = 77 AND l.granted AND d.datname = pg_catalog.current_database()
    ) AS w ON w.sweeper = s.sweeper;
REVOKE ALL ON talkmeter.sweepers FROM PUBLIC;
COMMENT ON VIEW talkmeter.sweepers IS
    'Who sweeps this database: the worker, with the process that starts it while it serves this database, and roles that called sweep';
COMMENT ON COLUMN talkmeter.sweepers.sweeper IS 'worker, or session: somebody who called sweep, by cron or by hand';
COMMENT ON COLUMN talkmeter.sweepers.role IS 'The role that logged in; empty for the worker';
COMMENT ON COLUMN talkmeter.sweepers.pid IS 'The process that starts the worker, while it serves this database';
COMMENT ON COLUMN talkmeter.sweepers.swept_at IS
    'When it swept last, noted every five minutes at most; of the worker only where a sweep has written something';
COMMENT ON COLUMN talkmeter.sweepers.reconciled IS 'The last day that the worker has reconciled';
COMMENT ON COLUMN talkmeter.sweepers.failed_since IS 'When the worker failed first, since it last succeeded; null: it does not fail';
COMMENT ON COLUMN talkmeter.sweepers.error_code IS 'The SQLSTATE of its last failure';
COMMENT ON COLUMN talkmeter.sweepers.error IS 'The message of its last failure';

CREATE VIEW talkmeter.unswept AS
    SELECT p.tenant, p.conversation, p.part, p.due_at
    FROM talkmeter.part AS p
    WHERE p.ended_at IS NULL AND p.timed AND p.due_at <= (SELECT clock.now FROM talkmeter.clock);
REVOKE ALL ON talkmeter.unswept FROM PUBLIC;
COMMENT ON VIEW talkmeter.unswept IS
    'Parts that time has ended and that no sweep has found yet. Reports show them as ended; what they cost is charged by the sweep';
COMMENT ON COLUMN talkmeter.unswept.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.unswept.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.unswept.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.unswept.due_at IS 'The first instant at which a sweep could have found it';

CREATE FUNCTION talkmeter.health(prepared_for interval DEFAULT '5 minutes', unswept_for interval DEFAULT '15 minutes')
    RETURNS TABLE (problem text, object text, detail text, hint text)
    -- Names and types are compared as text, which that setting changes.
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    SET quote_all_identifiers = off
    AS $$
        WITH attached AS (
            SELECT s.*, c.oid AS found
            FROM talkmeter.source AS s
            LEFT JOIN pg_class AS c ON c.oid = s.relation AND talkmeter.is_source(s.relation, s.relation_name, s.relation_origin)
            WHERE s.detached_at IS NULL
        ), member AS (
            -- The attached table and, if it is partitioned, every partition: an insert fires the trigger of the one it names.
            SELECT a.source_id, a.found AS relid FROM attached AS a WHERE a.found IS NOT NULL
            UNION
            SELECT a.source_id, t.relid FROM attached AS a CROSS JOIN LATERAL pg_partition_tree(a.found) AS t
        ), wanted AS (
            SELECT m.relid, f.name AS function, ('talkmeter.' || f.name)::regproc::oid AS function_oid,
                f.name IN ('on_insert', 'on_status_insert') AS inserts, a.row_mode
            FROM member AS m
            JOIN attached AS a USING (source_id)
            CROSS JOIN LATERAL unnest(CASE a.role
                WHEN 'messages' THEN ARRAY['on_insert', 'on_update', 'on_delete', 'on_truncate']
                ELSE ARRAY['on_status_insert', 'on_status_update'] END) AS f (name)
            -- Of a foreign table nobody is told that it was truncated.
            WHERE f.name <> 'on_truncate' OR (SELECT c.relkind FROM pg_class AS c WHERE c.oid = m.relid) <> 'f'
        )
        SELECT 'metering_off', 'talkmeter.enabled', 'Messages are inserted unmetered.',
            'Set talkmeter.enabled to on.'
        WHERE current_setting('talkmeter.enabled', true) IN ('off', 'false', 'no', '0')
        UNION ALL
        SELECT 'clock_offset', 'talkmeter.clock_offset',
            format('To the meter it is %s: it is %s ahead of the server''s clock.', k.now, k.clock_offset),
            'If this is no rehearsal, RESET talkmeter.clock_offset, and see ALTER DATABASE and ALTER ROLE ... RESET.'
        FROM talkmeter.clock AS k
        WHERE k.clock_offset <> interval '0'
        UNION ALL
        SELECT 'owner_not_superuser', r.rolname::text,
            'The role owns the extension and is no superuser: metering goes on, but nothing can be attached or detached.',
            format('ALTER ROLE %1$I SUPERUSER; or give what it owns here to a superuser: REASSIGN OWNED BY %1$I TO ...;', r.rolname)
        FROM pg_namespace AS n
        JOIN pg_roles AS r ON r.oid = n.nspowner
        WHERE n.nspname = 'talkmeter' AND NOT r.rolsuper
        UNION ALL
        SELECT 'table_dropped', a.relation_name,
            CASE WHEN c.oid IS NULL THEN 'The attached table does not exist any more; what was metered stays.'
                ELSE format('The attached table was dropped before the dump that this database was restored from; '
                    '%s has its number here, and is not read.', a.relation) END,
            CASE WHEN c.oid IS NULL THEN 'SELECT talkmeter.detach(' || a.relation::oid || ');'
                ELSE format('SELECT talkmeter.detach(%L);', a.relation) END
        FROM attached AS a
        LEFT JOIN pg_class AS c ON c.oid = a.relation
        WHERE a.found IS NULL
        UNION ALL
        SELECT 'table_swapped', a.relation_name,
            format('The attached table is called %s now, and %s is another table, which is not metered.', a.relation,
                a.relation_name),
            'If the application inserts into that one, attach it too; this one goes on. If it does not, rename it.'
        FROM attached AS a
        JOIN pg_class AS c ON c.oid = a.found
        JOIN pg_namespace AS n ON n.oid = c.relnamespace
        -- Whatever stands in relation_name; to_regclass fails if it is no name.
        JOIN pg_namespace AS os ON true
        JOIN pg_class AS o ON o.relnamespace = os.oid AND format('%I.%I', os.nspname, o.relname) = a.relation_name
        WHERE format('%I.%I', n.nspname, c.relname) <> a.relation_name
            AND NOT EXISTS (SELECT FROM attached AS other WHERE other.found = o.oid AND other.role = a.role)
        UNION ALL
        SELECT 'trigger_missing', w.relid::regclass::text,
            format('%s Without trigger: %s.',
                CASE WHEN bool_or(w.inserts) THEN 'Inserts into it are not metered.'
                    ELSE 'Changes of its rows are not followed.' END,
                string_agg(w.function, ', ' ORDER BY w.function)),
            CASE WHEN EXISTS (SELECT FROM attached AS a WHERE a.found = w.relid)
                -- As attach makes them, but without the gap that a detach leaves. The last words are a comment, so that it
                -- can be run as it is, and name nothing: a name may have a line break in it.
                THEN string_agg(concat(
                        format('CREATE TRIGGER %s AFTER %s ON %s', made.name, made.event, w.relid::regclass),
                        CASE WHEN made.by_statement AND made.event <> 'TRUNCATE' THEN concat(' REFERENCING',
                            CASE WHEN made.event <> 'INSERT' THEN ' OLD TABLE AS talkmeter_old' END,
                            CASE WHEN made.event <> 'DELETE' THEN ' NEW TABLE AS talkmeter_new' END) END,
                        format(' FOR EACH %s EXECUTE FUNCTION talkmeter.%s();', CASE WHEN made.by_statement THEN 'STATEMENT' ELSE 'ROW' END,
                            w.function),
                        CASE WHEN w.row_mode THEN format(' ALTER TABLE %s ENABLE ALWAYS TRIGGER %s;', w.relid::regclass, made.name) END),
                    ' ' ORDER BY w.function) || ' -- By a superuser.' || CASE WHEN bool_or(w.function = 'on_insert')
                    THEN ' Rows that came meanwhile are found by talkmeter.gaps(source), as not_seen, and metered by '
                        'CALL talkmeter.backfill(source, from_time, to_time).'
                    ELSE '' END
                ELSE 'The next sweep adds it: SELECT talkmeter.sweep();' END
        FROM wanted AS w
        CROSS JOIN LATERAL (
            SELECT e.event, 'talkmeter' || substr(w.function, 3) AS name, NOT w.row_mode OR e.event = 'TRUNCATE' AS by_statement
            FROM upper(substring(w.function FROM '[^_]*$')) AS e (event)
        ) AS made
        WHERE NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = w.relid AND t.tgfoid = w.function_oid)
        GROUP BY w.relid
        UNION ALL
        SELECT 'partition_taken_out', m.relid::text,
            'It was a partition when its table was attached; inserts into it are not metered any more.',
            string_agg(format('DROP TRIGGER %I ON %s;', t.tgname, m.relid), ' ' ORDER BY t.tgname)
        FROM attached AS a
        CROSS JOIN LATERAL unnest(a.members) AS m (relid)
        JOIN pg_trigger AS t ON t.tgrelid = m.relid
        WHERE a.found IS NOT NULL AND m.relid::oid NOT IN (SELECT relid FROM member)
            AND t.tgfoid IN (
                SELECT p.oid FROM pg_proc AS p
                WHERE p.pronamespace = 'talkmeter'::regnamespace AND starts_with(p.proname, 'on_'))
        GROUP BY m.relid
        UNION ALL
        SELECT 'not_attached', t.tgrelid::regclass::text,
            'It has triggers of talkmeter''s and is not attached: its rows are not metered.',
            format('Attach it, or: %s', string_agg(format('DROP TRIGGER %I ON %s;', t.tgname, t.tgrelid::regclass), ' '
                ORDER BY t.tgname))
        FROM pg_trigger AS t
        JOIN pg_proc AS f ON f.oid = t.tgfoid AND f.pronamespace = 'talkmeter'::regnamespace
            AND starts_with(f.proname, 'on_')
        WHERE NOT t.tgisinternal AND t.tgrelid <> 'talkmeter.source'::regclass
            AND t.tgrelid NOT IN (SELECT relid FROM member)
            AND t.tgrelid NOT IN (SELECT m::oid FROM attached AS a CROSS JOIN unnest(a.members) AS m)
        GROUP BY t.tgrelid
        UNION ALL
        SELECT 'trigger_disabled', t.tgrelid::regclass::text,
            CASE WHEN w.inserts THEN 'Inserts into it are ' ELSE 'Changes of its rows are ' END
                || CASE WHEN t.tgenabled = 'R' AND w.inserts THEN 'metered in replica role only.'
                    WHEN t.tgenabled = 'R' THEN 'followed in replica role only.'
                    WHEN t.tgenabled = 'O' AND w.inserts THEN 'not metered while logical replication applies them.'
                    WHEN t.tgenabled = 'O' THEN 'not followed while logical replication applies them.'
                    WHEN w.inserts THEN 'not metered.' ELSE 'not followed.' END,
            format('ALTER TABLE %s ENABLE %sTRIGGER %I;', t.tgrelid::regclass, CASE WHEN w.row_mode THEN 'ALWAYS ' END, t.tgname)
        FROM wanted AS w
        JOIN pg_trigger AS t ON t.tgrelid = w.relid AND t.tgfoid = w.function_oid
        WHERE t.tgenabled IN ('D', 'R') OR w.row_mode AND t.tgenabled = 'O'
        UNION ALL
        SELECT 'index_missing', a.relation::text,
            'No index finds the rows of one conversation: a late or changed row makes the whole table be read.',
            (SELECT string_agg(format('CREATE INDEX ON %s (%s);', a.relation, concat_ws(', ', quote_ident(k.tenant), i.names,
                    quote_ident(k.occurred_at))), ' ' ORDER BY i.names)
             FROM unnest(CASE WHEN a.mapping -> 'conversation' ? 'first_of' THEN k.quoted
                 ELSE ARRAY[array_to_string(k.quoted, ', ')] END) AS i (names))
        FROM attached AS a
        CROSS JOIN LATERAL (
            -- The names that the columns have now of those that the mapping names.
            SELECT max(c.attname) FILTER (WHERE kept.mapped = ANY (talkmeter.columns_of(a.mapping -> 'tenant', 'tenant_id'))) AS tenant,
                array_agg(c.attname ORDER BY own.ordinal) FILTER (WHERE own.ordinal IS NOT NULL) AS conversation,
                array_agg(quote_ident(c.attname) ORDER BY own.ordinal) FILTER (WHERE own.ordinal IS NOT NULL) AS quoted,
                max(c.attname) FILTER (WHERE kept.mapped = ANY (talkmeter.columns_of(a.mapping -> 'occurred_at', 'created_at')))
                    AS occurred_at
            FROM jsonb_to_recordset(a.columns) AS kept (name text, mapped text, number smallint)
            JOIN pg_attribute AS c ON c.attrelid = a.found AND NOT c.attisdropped
                AND CASE WHEN a.relation_origin = talkmeter.origin_of(a.relation) THEN c.attnum = kept.number ELSE c.attname = kept.name END
            CROSS JOIN LATERAL (
                SELECT array_position(talkmeter.columns_of(a.mapping -> 'conversation', 'conversation_id'), kept.mapped) AS ordinal
            ) AS own
        ) AS k
        WHERE a.role = 'messages' AND k.conversation IS NOT NULL
            AND NOT CASE WHEN a.mapping -> 'conversation' ? 'first_of'
                THEN (SELECT bool_and(talkmeter.is_indexed(a.relation, ARRAY[own.name], k.tenant))
                      FROM unnest(k.conversation) AS own (name))
                ELSE talkmeter.is_indexed(a.relation, k.conversation, k.tenant) END
        UNION ALL
        SELECT 'not_unique', a.relation::text,
            format('No unique index covers the message id, %s "%s": a message that comes twice would be metered twice.',
                CASE cardinality(id.columns) WHEN 1 THEN 'column' ELSE 'columns' END, array_to_string(id.columns, '", "')),
            'Create a unique index on it, with the columns of the partition key if there is one.'
        FROM attached AS a
        CROSS JOIN LATERAL (
            SELECT array_agg(c.attname) AS columns
            FROM jsonb_to_recordset(a.columns) AS kept (name text, number smallint, message_id boolean)
            JOIN pg_attribute AS c ON c.attrelid = a.found AND NOT c.attisdropped
                AND CASE WHEN a.relation_origin = talkmeter.origin_of(a.relation) THEN c.attnum = kept.number ELSE c.attname = kept.name END
            WHERE kept.message_id
        ) AS id
        WHERE a.role = 'messages' AND id.columns IS NOT NULL AND NOT talkmeter.is_unique(a.relation, id.columns)
        UNION ALL
        SELECT 'child_not_metered', i.inhrelid::regclass::text,
            format('It inherits from %s, and is a table of its own to PostgreSQL: rows inserted into it are not metered.',
                a.relation),
            'Insert into the attached table, or attach it too if its rows are messages.'
        FROM attached AS a
        CROSS JOIN LATERAL (
            -- Those of a table that is attached too are its own.
            WITH RECURSIVE heir AS (
                SELECT h.inhrelid FROM pg_inherits AS h
                WHERE h.inhparent = a.found
                    AND NOT EXISTS (SELECT FROM attached AS other WHERE other.found = h.inhrelid AND other.role = a.role)
                UNION
                SELECT h.inhrelid FROM heir JOIN pg_inherits AS h ON h.inhparent = heir.inhrelid
                WHERE NOT EXISTS (SELECT FROM attached AS other WHERE other.found = h.inhrelid AND other.role = a.role)
            )
            SELECT heir.inhrelid FROM heir
        ) AS i
        JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE NOT c.relispartition
        UNION ALL
        SELECT 'unlogged', c.oid::regclass::text,
            'A crash empties it. What was charged for its rows stays, and rows that are sent again are not metered if they are late.',
            format('If its rows are to outlive a crash: ALTER TABLE %s SET LOGGED;', c.oid::regclass)
        FROM pg_class AS c
        WHERE c.relpersistence = 'u' AND c.oid IN (
            SELECT m.relid FROM member AS m JOIN attached AS a USING (source_id) WHERE a.role = 'messages')
        UNION ALL
        SELECT 'mapping_broken', a.relation::text,
            format('Column "%s" (%s), which the mapping%s names, was dropped or has another type.',
                kept.name, kept.type, ' of rows before ' || v.until_time),
            CASE WHEN a.role = 'status' THEN
                    'Changes go to quarantine. Detach the table and attach it again with a mapping of the columns that it has.'
                WHEN v.until_time IS NULL THEN
                    'Rows go to quarantine. Give the table a mapping of the columns that it has: talkmeter.remap().'
                ELSE 'Rows of that time go to quarantine. If the present mapping reads them too: talkmeter.remap() with since => ''-infinity''.' END
        FROM attached AS a
        CROSS JOIN LATERAL (
            SELECT a.columns, NULL::timestamptz AS until_time
            UNION ALL
            SELECT e.columns, lead(e.since, 1, a.mapped_since) OVER (ORDER BY e.since)
            FROM talkmeter.earlier_mapping AS e
            WHERE e.source_id = a.source_id
        ) AS v
        CROSS JOIN LATERAL jsonb_to_recordset(v.columns) AS kept (name text, number smallint, type text, class text)
        WHERE a.found IS NOT NULL AND NOT EXISTS (
            SELECT FROM pg_attribute AS c
            WHERE c.attrelid = a.found AND NOT c.attisdropped AND talkmeter.class_of(c.atttypid) = kept.class
                AND CASE WHEN a.relation_origin = talkmeter.origin_of(a.relation) THEN c.attnum = kept.number ELSE c.attname = kept.name END)
        UNION ALL
        SELECT 'mapping_broken', a.relation::text,
            format('The server does not know the time zone "%s" of the mapping any more.', a.mapping ->> 'timezone'),
            'Rows go to quarantine. Install the zone (Debian: tzdata-legacy), or map the table by another name of it: talkmeter.remap().'
        FROM attached AS a
        WHERE a.columns @> '[{"type": "timestamp without time zone"}]'
            AND a.mapping ->> 'timezone' NOT IN (SELECT z.name FROM pg_timezone_names AS z)
        UNION ALL
        SELECT CASE WHEN q.reason = 'disabled' THEN 'gap' ELSE 'quarantine' END,
            COALESCE(s.relation::text, s.relation_name, 'source ' || q.source_id),
            format('%s rows could not be metered: %s. The last one came at %s; %s came in the last 24 hours.',
                q.all_rows, q.reason, q.newest, q.recent_rows),
            'See talkmeter.quarantine, whose column hint says what helps; then SELECT talkmeter.retry_quarantine();'
        FROM (
            SELECT source_id, reason, count(*) AS all_rows, max(quarantined_at) AS newest,
                count(*) FILTER (WHERE quarantined_at > statement_timestamp() - interval '24 hours') AS recent_rows
            FROM talkmeter.quarantined
            WHERE removal IS NULL AND reason <> 'moved'
            GROUP BY source_id, reason
        ) AS q
        LEFT JOIN talkmeter.source AS s USING (source_id)
        UNION ALL
        SELECT CASE m.state WHEN 'left' THEN 'tenant_has_left' ELSE 'move_unfinished' END, m.tenant,
            CASE m.state
                WHEN 'left' THEN format('It is metered elsewhere since %s, and %s rows or marks came here.', m.since, m.waiting)
                ELSE format('It is %s since %s, and %s rows or marks wait.', m.state, m.since, m.waiting) END,
            CASE m.state
                WHEN 'left' THEN 'Send its statements to the server that has it; copy these messages there, and delete them here.'
                WHEN 'leaving' THEN format('Go on with the move, or: SELECT talkmeter.cancel_move(%L);', m.tenant)
                ELSE format('Import its books, or: SELECT talkmeter.cancel_move(%L);', m.tenant) END
        FROM talkmeter.moves AS m
        WHERE m.state = 'left' AND m.waiting > 0
            OR m.state IN ('leaving', 'expected') AND m.since < statement_timestamp() - interval '1 hour'
        UNION ALL
        SELECT 'reader_dropped', r.role_name::text,
            format('It read %s, and reads nothing: the role is gone, was renamed, or its rights were taken back.',
                string_agg(format('%L', r.tenant), ', ' ORDER BY r.tenant)),
            'The sweep forgets it. If it is to read again, call talkmeter.grant_tenant.'
        FROM talkmeter.tenant_reader AS r
        WHERE NOT talkmeter.is_reader(r.role, r.role_name)
        GROUP BY r.role_name
        UNION ALL
        SELECT 'nobody_sweeps', 'talkmeter.sweep',
            CASE WHEN l.swept_at IS NULL THEN 'No worker serves this database, and it was never swept.'
                ELSE format('No worker serves this database. It was swept last by %s, at %s.', l.who, l.swept_at) END,
            'Preload talkmeter, or SELECT talkmeter.start_worker(); or call talkmeter.sweep() once a minute from cron.'
        FROM (
            SELECT max(w.swept_at) AS swept_at, bool_or(w.pid IS NOT NULL) AS is_served,
                (array_agg(COALESCE(NULLIF(w.role, ''), 'the worker') ORDER BY w.swept_at DESC NULLS LAST))[1] AS who
            FROM talkmeter.sweepers AS w
        ) AS l
        WHERE NOT pg_is_in_recovery() AND l.is_served IS NOT TRUE
            -- When it was swept is noted every five minutes at most.
            AND (l.swept_at < statement_timestamp() - GREATEST(unswept_for, interval '10 minutes')) IS NOT FALSE
            AND EXISTS (SELECT FROM attached AS a WHERE a.attached_at < (SELECT clock.now FROM talkmeter.clock) - unswept_for)
        UNION ALL
        SELECT 'worker_failed', 'process ' || w.pid,
            format('The worker cannot sweep since %s: %s (SQLSTATE %s).', w.failed_since, w.error, w.error_code),
            'It tries again by itself, ever more seldom, up to every ten minutes. What it can sweep is swept.'
        FROM talkmeter.sweepers AS w
        WHERE w.pid IS NOT NULL AND w.error IS NOT NULL
        UNION ALL
        SELECT 'sweep_stale', 'talkmeter.part',
            format('%s parts have ended by time and are not swept, the oldest since %s.', p.parts, p.oldest),
            COALESCE('The worker serves this database (process ' || (SELECT min(w.pid) FROM talkmeter.sweepers AS w)
                || '): see the log of the server, and pg_stat_activity for who holds what it waits for.',
                'Run SELECT talkmeter.sweep() at least once a minute.')
        FROM (
            SELECT count(*) AS parts, min(u.due_at) AS oldest
            FROM talkmeter.unswept AS u
            WHERE u.due_at < (SELECT clock.now FROM talkmeter.clock) - unswept_for
        ) AS p
        WHERE p.parts > 0
        UNION ALL
        SELECT 'sweep_failed', f.tenant, format('Its parts are not ended since %s: %s (SQLSTATE %s).', f.failed_since, f.error, f.error_code),
            'All other tenants are swept. When the cause is gone, the next sweep ends what is due of this one.'
        FROM talkmeter.sweep_failure AS f
        UNION ALL
        SELECT 'backfill_unfinished', COALESCE(s.relation::text, s.relation_name),
            format('It was begun at %s by %s, and nobody is at it. What it has counted is not charged yet.', r.started_at, r.started_by),
            format('CALL talkmeter.backfill(%L, %L, %L, charge => %s);', COALESCE(s.relation::text, s.relation_name), r.from_time,
                r.until_time, r.charges)
        FROM talkmeter.backfill_run AS r
        JOIN talkmeter.source AS s USING (source_id)
        WHERE NOT EXISTS (
            SELECT FROM pg_locks AS l
            WHERE l.locktype = 'object' AND l.classid = 'talkmeter.backfill_run'::regclass AND l.objid = r.source_id::oid
                AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()) AND l.granted)
        UNION ALL
        SELECT 'posted_late', l.tenant,
            format('%s units were posted more than 35 days after their charge instants, the last at %s, the oldest of %s. '
                'Each drew the allowance of its own period.', l.units, l.last, l.oldest),
            'If these times are wrong, correct the rows; talkmeter.max_past sends rows that come too late to quarantine.'
        FROM (
            SELECT c.tenant, count(*) AS units, max(c.posted_at) AS last, min(c.charged_at) AS oldest
            FROM talkmeter.charge AS c
            WHERE c.reverses IS NULL AND c.posted_at - c.charged_at > interval '35 days'
                AND c.posted_at > (SELECT clock.now FROM talkmeter.clock) - interval '35 days'
            GROUP BY c.tenant
        ) AS l
        UNION ALL
        SELECT 'ahead_of_clock', w.tenant,
            format('%s is dated %s, which is ahead of the server''s clock.', w.what, w.at),
            'If the clock was wrong then, what was recorded with it keeps its time: see talkmeter.charges and talkmeter.journal.'
        FROM (
            SELECT c.tenant, format('Charge %s', c.charge_id) AS what, c.posted_at AS at
            FROM talkmeter.account AS a
            JOIN talkmeter.charge AS c ON c.tenant = a.tenant AND c.charge_id = a.last_charge_id
            UNION ALL
            SELECT s.tenant, format('Subscription %s', s.subscription_id), s.subscribed_at FROM talkmeter.subscription AS s
            UNION ALL
            SELECT k.tenant, format('Pack %s', k.pack_id), k.purchased_at FROM talkmeter.pack AS k
            UNION ALL
            SELECT p.tenant, format('The statement of the period from %s', p.period_start), p.finalized_at
            FROM talkmeter.period AS p
            WHERE p.finalization IS NOT NULL
        ) AS w
        WHERE w.at > (SELECT clock.now FROM talkmeter.clock) + COALESCE(current_setting('talkmeter.max_future', true), '5min')::interval
        UNION ALL
        SELECT 'notification_queue_full', 'talkmeter_alerts',
            format('The queue of NOTIFY is %s %% full, so alerts are not sent.', round(100 * u.usage)),
            'See in pg_stat_activity who listens and does not read, or holds a transaction open: end it.'
        FROM (SELECT pg_notification_queue_usage()::numeric AS usage) AS u
        WHERE u.usage >= 0.9 AND EXISTS (SELECT FROM talkmeter.alert AS a WHERE a.notified_at IS NULL AND NOT a.muted)
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
                    AND held.relation = 'talkmeter.conversation'::regclass)
    $$;
REVOKE ALL ON FUNCTION talkmeter.health(interval, interval) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.health(interval, interval) IS
    'Everything that is not as it should be, one row each, with what to do; no rows: all is well. A prepared transaction is reported after prepared_for, a due part after unswept_for';
