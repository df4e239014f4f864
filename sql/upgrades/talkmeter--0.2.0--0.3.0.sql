-- What does 0.3.0 bring? Several servers are read as one, and tenants move between them.

ALTER TABLE talkmeter.quarantined
    DROP CONSTRAINT quarantined_reason_check,
    ADD CONSTRAINT quarantined_reason_check CHECK (reason IN ('null_key', 'no_kind', 'time_out_of_range', 'future', 'unknown_policy',
        'mapping_broken', 'source_unreadable', 'internal_error', 'key_too_long', 'sealed', 'too_old', 'disabled', 'moved'));
CREATE INDEX quarantined_moved ON talkmeter.quarantined (tenant) WHERE reason = 'moved';

CREATE TABLE talkmeter.tenant_move (
    tenant text COLLATE "C" PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('leaving', 'left', 'expected', 'arriving', 'arrived')),
    move uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    receipt uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    by name NOT NULL DEFAULT SESSION_USER,
    exported_at timestamptz,
    came_by uuid,
    came_with uuid,
    came_at timestamptz
);
REVOKE ALL ON talkmeter.tenant_move FROM PUBLIC;
COMMENT ON TABLE talkmeter.tenant_move IS 'Tenants that leave, or have left, for another server, and those that come, or have come, from one';
COMMENT ON COLUMN talkmeter.tenant_move.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.tenant_move.state IS
    'leaving or expected: its rows wait in quarantine; left: they do for good; arrived: they are metered; arriving: within an import only';
COMMENT ON COLUMN talkmeter.tenant_move.move IS 'Names the move on both servers';
COMMENT ON COLUMN talkmeter.tenant_move.receipt IS 'Names the last export: whoever knows it has its end';
COMMENT ON COLUMN talkmeter.tenant_move.since IS 'When it came into that state';
COMMENT ON COLUMN talkmeter.tenant_move.by IS 'Who called for it: the role that logged in';
COMMENT ON COLUMN talkmeter.tenant_move.exported_at IS 'When its books were last exported; where they arrived, when those were that did';
COMMENT ON COLUMN talkmeter.tenant_move.came_by IS 'The move by which the books came here, also while they are about to leave again; null: they never did';
COMMENT ON COLUMN talkmeter.tenant_move.came_with IS 'The receipt of that';
COMMENT ON COLUMN talkmeter.tenant_move.came_at IS 'When that was exported';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.tenant_move', '');

CREATE FUNCTION talkmeter.arrives_whole() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            IF EXISTS (SELECT FROM talkmeter.tenant_move AS m WHERE m.tenant = NEW.tenant AND m.state = 'arriving') THEN
                RAISE object_not_in_prerequisite_state USING
                    MESSAGE = format('the books of tenant "%s" have not come to their end', NEW.tenant),
                    HINT = 'Call talkmeter.import_tenant, which reads a document as a whole. Nothing was changed.';
            END IF;
            RETURN NULL;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.arrives_whole() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.arrives_whole() IS 'Trigger of talkmeter.tenant_move: no transaction commits a part of an import';
CREATE CONSTRAINT TRIGGER arrives_whole AFTER UPDATE ON talkmeter.tenant_move
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.state = 'arriving') EXECUTE FUNCTION talkmeter.arrives_whole();
-- Whatever role the session plays in replication.
ALTER TABLE talkmeter.tenant_move ENABLE ALWAYS TRIGGER arrives_whole;

CREATE VIEW talkmeter.moves AS
    SELECT m.tenant, m.state, m.since, m.by, m.exported_at,
        (SELECT count(*) FROM talkmeter.quarantined AS q WHERE q.reason = 'moved' AND q.tenant = m.tenant) AS waiting
    FROM talkmeter.tenant_move AS m;
REVOKE ALL ON talkmeter.moves FROM PUBLIC;
COMMENT ON VIEW talkmeter.moves IS 'Tenants on their way between servers, and those that have gone or come';
COMMENT ON COLUMN talkmeter.moves.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.moves.state IS
    'leaving or expected: its rows wait in quarantine until its books are where they go; left: it is metered elsewhere; arrived: here';
COMMENT ON COLUMN talkmeter.moves.since IS 'When it came into that state';
COMMENT ON COLUMN talkmeter.moves.by IS 'Who called for it: the role that logged in';
COMMENT ON COLUMN talkmeter.moves.exported_at IS 'When its books were last exported; where they have arrived, when those were that did';
COMMENT ON COLUMN talkmeter.moves.waiting IS 'Rows and marks that wait in quarantine as moved';

CREATE OR REPLACE VIEW talkmeter.quarantine AS
    SELECT s.relation AS source, q.message_id, q.tenant, q.conversation, q.occurred_at, q.reason, q.quarantined_at,
        q.detail, q.mark_kind,
        CASE q.reason
            WHEN 'null_key' THEN 'Give the row a tenant, conversation, message id and time: it leaves by itself.'
            WHEN 'no_kind' THEN 'Change the row so that a rule of kinds matches it, or give the table a mapping with a rule that does: remap().'
            WHEN 'time_out_of_range' THEN 'Change the time of the row, if it is wrong: it leaves by itself.'
            WHEN 'future' THEN 'The sweep meters it once its time has come.'
            WHEN 'unknown_policy' THEN 'Define a version of the policy that is in force at its time, then retry_quarantine().'
            WHEN 'mapping_broken' THEN 'Give the column its type back, then retry_quarantine(); or name the column in its place by remap().'
            WHEN 'source_unreadable' THEN 'See detail; sweeps try again, once the table can be read.'
            WHEN 'internal_error' THEN 'See detail; sweeps try again, and so does retry_quarantine().'
            WHEN 'key_too_long' THEN 'Keys are at most 512 bytes long: change the row, and it leaves by itself.'
            WHEN 'sealed' THEN 'Nothing: rows of its part were deleted, and what was metered stays as it is.'
            WHEN 'too_old' THEN 'If it is to count, let a superuser raise talkmeter.max_past for a retry_quarantine().'
            WHEN 'disabled' THEN 'Set talkmeter.enabled to on, then retry_quarantine().'
            WHEN 'moved' THEN 'Its tenant is on its way: it is metered where the books are, see moves. Delete it here once the tenant has left.'
        END AS hint
    FROM talkmeter.quarantined AS q
    LEFT JOIN talkmeter.source AS s USING (source_id)
    -- What a change took away is listed only if there is nothing else of its row.
    WHERE q.removal IS NULL OR NOT EXISTS (
        SELECT FROM talkmeter.quarantined AS o
        WHERE o.source_id = q.source_id AND o.message_id = q.message_id
            AND pg_catalog.hashtextextended(o.message_id, 0) = pg_catalog.hashtextextended(q.message_id, 0)
            AND (o.removal IS NULL OR o.quarantine_id < q.quarantine_id));

CREATE OR REPLACE FUNCTION talkmeter.health(prepared_for interval DEFAULT '5 minutes', unswept_for interval DEFAULT '15 minutes')
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

-- Another server can read a view, and call nothing.
CREATE VIEW talkmeter.findings AS
    SELECT h.problem, h.object, h.detail, h.hint
    FROM talkmeter.health() AS h;
REVOKE ALL ON talkmeter.findings FROM PUBLIC;
COMMENT ON VIEW talkmeter.findings IS 'What health() says, as a view, which other servers can read';
COMMENT ON COLUMN talkmeter.findings.problem IS 'What is wrong, by its name';
COMMENT ON COLUMN talkmeter.findings.object IS 'What it is about';
COMMENT ON COLUMN talkmeter.findings.detail IS 'What was found';
COMMENT ON COLUMN talkmeter.findings.hint IS 'What to do';

CREATE VIEW talkmeter.definitions AS
    SELECT 'version'::text AS kind, e.extname::text AS name, pg_catalog.to_jsonb(e.extversion) AS definition
    FROM pg_catalog.pg_extension AS e
    WHERE e.extname = 'talkmeter'
    UNION ALL
    -- Who defined it, when, and what was said of it may differ.
    SELECT 'policy', p.name || '@' || p.policy_version, pg_catalog.to_jsonb(p) - '{note,defined_at,defined_by}'::text[]
    FROM talkmeter.policies AS p
    UNION ALL
    SELECT 'plan', p.name, pg_catalog.to_jsonb(p)
    FROM talkmeter.plans AS p
    UNION ALL
    SELECT 'pack', o.name, pg_catalog.to_jsonb(o)
    FROM talkmeter.pack_offers AS o
    UNION ALL
    SELECT 'threshold', t.kind, pg_catalog.to_jsonb(t.percent)
    FROM talkmeter.threshold AS t
    UNION ALL
    SELECT 'holiday', pg_catalog.to_char(h.day, 'YYYY-MM-DD'), pg_catalog.to_jsonb(h.name)
    FROM talkmeter.holidays AS h
    UNION ALL
    -- The books know a table by its number.
    SELECT 'table', s.relation_name, pg_catalog.jsonb_build_object('number', s.source_id, 'role', s.role, 'policy', s.policy,
        'default_plan', s.default_plan, 'mapping', s.mapping)
    FROM talkmeter.source AS s
    WHERE s.detached_at IS NULL;
REVOKE ALL ON talkmeter.definitions FROM PUBLIC;
COMMENT ON VIEW talkmeter.definitions IS
    'All by which tenants are judged and billed here, to be compared with other servers: where one row differs, so do bills';
COMMENT ON COLUMN talkmeter.definitions.kind IS 'version, policy, plan, pack, threshold, holiday or table';
COMMENT ON COLUMN talkmeter.definitions.name IS 'Its name; a policy''s with its version behind @, a table''s with its schema';
COMMENT ON COLUMN talkmeter.definitions.definition IS 'All that it says';

-- A name and a comment alone are not to be trusted: whoever may make schemas can give both.
CREATE FUNCTION talkmeter.fleet_schemas(schema text) RETURNS SETOF oid
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT n.oid
        FROM pg_catalog.pg_namespace AS n
        WHERE pg_catalog.obj_description(n.oid, 'pg_namespace') = 'Made by talkmeter.fleet for ' || schema
            AND pg_catalog.pg_has_role(n.nspowner, 'USAGE')
    $$;
REVOKE ALL ON FUNCTION talkmeter.fleet_schemas(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.fleet_schemas(text) IS 'The schemas that fleet has made for its caller';

CREATE FUNCTION talkmeter.fleet_clear(schema text, servers text[], views text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        DECLARE
            names text;
            own record;
        BEGIN
            SELECT string_agg(quote_ident(n.nspname), ', ') INTO names
            FROM pg_namespace AS n
            WHERE n.nspname IN (SELECT schema UNION ALL SELECT schema || '_' || unnest(servers))
                AND NOT n.oid IN (SELECT talkmeter.fleet_schemas(schema));
            IF names IS NOT NULL THEN
                RAISE duplicate_schema USING
                    MESSAGE = format('schema %s is there, and talkmeter.fleet has not made it for you', names),
                    HINT = 'Give the views a schema of another name: talkmeter.fleet(servers, schema => ''...'').';
            END IF;
            FOR own IN
                SELECT * FROM (VALUES (1, 'v', 'VIEW'), (2, 'f', 'FOREIGN TABLE')) AS k (place, kind, word) ORDER BY k.place
            LOOP
                SELECT string_agg(format('%I.%I', n.nspname, c.relname), ', ') INTO names
                FROM talkmeter.fleet_schemas(schema) AS m (oid)
                JOIN pg_namespace AS n ON n.oid = m.oid
                JOIN pg_class AS c ON c.relnamespace = n.oid AND c.relkind = own.kind::"char" AND c.relname = ANY (views);
                IF names IS NOT NULL THEN
                    EXECUTE format('DROP %s %s', own.word, names);
                END IF;
            END LOOP;
            SELECT string_agg(quote_ident(n.nspname), ', ') INTO names
            FROM talkmeter.fleet_schemas(schema) AS m (oid)
            JOIN pg_namespace AS n ON n.oid = m.oid;
            IF names IS NOT NULL THEN
                EXECUTE format('DROP SCHEMA %s', names);
            END IF;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.fleet_clear(text, text[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.fleet_clear(text, text[], text[]) IS
    'Removes what fleet has made, unless something of somebody''s is there or depends on it';

CREATE FUNCTION talkmeter.fleet_server(server text, schema text, views text[]) RETURNS void
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        DECLARE
            own constant text := schema || '_' || server;
            view_name text;
            columns text;
        BEGIN
            IF NOT EXISTS (
                SELECT FROM pg_foreign_server AS s
                JOIN pg_foreign_data_wrapper AS w ON w.oid = s.srvfdw
                WHERE s.srvname = server AND w.fdwname = 'postgres_fdw'
            ) THEN
                RAISE undefined_object USING
                    MESSAGE = format('there is no server %I of postgres_fdw', server),
                    HINT = format('CREATE SERVER %I FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host ''...'', dbname ''...''); '
                        'CREATE USER MAPPING FOR %I SERVER %I OPTIONS (user ''...'', password ''...'');', server, current_user, server);
            END IF;
            IF octet_length(own) > 63 THEN
                RAISE name_too_long USING
                    MESSAGE = format('schema "%s" would have a name of more than 63 bytes', own),
                    HINT = 'Give the views a schema of a shorter name, or the server one.';
            END IF;
            EXECUTE format('CREATE SCHEMA %I', own);
            EXECUTE format('COMMENT ON SCHEMA %I IS %L', own, 'Made by talkmeter.fleet for ' || schema);
            FOREACH view_name IN ARRAY views LOOP
                SELECT string_agg(format('%I %s%s', a.attname, format_type(a.atttypid, a.atttypmod),
                        CASE a.attcollation WHEN '"C"'::regcollation THEN ' COLLATE "C"' END), ', ' ORDER BY a.attnum)
                INTO STRICT columns
                FROM pg_attribute AS a
                WHERE a.attrelid = format('talkmeter.%I', view_name)::regclass AND a.attnum > 0 AND NOT a.attisdropped
                    -- A table of there is none here.
                    AND a.atttypid <> 'regclass'::regtype;
                EXECUTE format('CREATE FOREIGN TABLE %I.%I (%s) SERVER %I OPTIONS (schema_name ''talkmeter'', table_name %L)',
                    own, view_name, columns, server, view_name);
            END LOOP;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.fleet_server(text, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.fleet_server(text, text, text[]) IS 'Makes the foreign tables by which fleet reads one server';

CREATE FUNCTION talkmeter.fleet_union(servers text[], schema text, query text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT pg_catalog.string_agg(pg_catalog.format(query, s.server, schema || '_' || s.server), ' UNION ALL ' ORDER BY s.server)
        FROM (SELECT DISTINCT pg_catalog.unnest(servers) AS server) AS s
    $$;
REVOKE ALL ON FUNCTION talkmeter.fleet_union(text[], text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.fleet_union(text[], text, text) IS 'A query of each server''s foreign tables, put together, for the views of fleet';

CREATE FUNCTION talkmeter.fleet(servers text[], schema text DEFAULT 'fleet') RETURNS SETOF text
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp
    AS $$
        DECLARE
            views constant text[] := ARRAY['alerts', 'bills', 'charges', 'definitions', 'disputes', 'findings', 'moves', 'packs', 'parts', 'plans',
                'policies', 'quarantine', 'revenue_daily', 'unswept', 'usage', 'usage_daily', 'usage_history', 'usage_monthly'];
            own record;
        BEGIN
            IF COALESCE(array_ndims(servers), 0) <> 1 OR EXISTS (SELECT FROM unnest(servers) AS s (server) WHERE s.server IS NULL)
                OR octet_length(COALESCE(schema, '')) NOT BETWEEN 1 AND 63
            THEN
                RAISE invalid_parameter_value USING
                    MESSAGE = 'servers and a schema must be named',
                    HINT = 'SELECT talkmeter.fleet(''{shard1,shard2}''); with the servers as pg_foreign_server has them.';
            END IF;
            PERFORM talkmeter.fleet_clear(schema, servers, views || '{units,revenue,tenants,health}'::text[]);
            EXECUTE format('CREATE SCHEMA %I', schema);
            EXECUTE format('COMMENT ON SCHEMA %I IS %L', schema, 'Made by talkmeter.fleet for ' || schema);
            PERFORM talkmeter.fleet_server(s.server, schema, views)
            FROM (SELECT DISTINCT unnest(servers) AS server ORDER BY 1) AS s;
            FOR own IN
                SELECT v.name, talkmeter.fleet_union(servers, schema, format('SELECT %%L::text AS server, v.* FROM %%I.%I AS v', v.name)) AS query
                FROM unnest(views) AS v (name)
                UNION ALL
                -- Added up on each server.
                SELECT 'units', talkmeter.fleet_union(servers, schema, 'SELECT %L::text AS server, v.day, sum(v.used)::bigint AS units
                    FROM %I.usage_daily AS v GROUP BY v.day')
                UNION ALL
                SELECT 'revenue', talkmeter.fleet_union(servers, schema, 'SELECT %L::text AS server, v.day, v.currency, sum(v.total) AS total
                    FROM %I.revenue_daily AS v GROUP BY v.day, v.currency')
                UNION ALL
                SELECT 'tenants', talkmeter.fleet_union(servers, schema, 'SELECT %L::text AS server, v.tenant FROM %I.usage AS v')
                UNION ALL
                SELECT 'health', format('SELECT f.server, f.problem, f.object, f.detail, f.hint FROM %1$I.findings AS f
                    UNION ALL
                    SELECT NULL, ''definitions_differ'', d.kind || '' '' || d.name,
                        CASE count(DISTINCT d.definition) WHEN 1 THEN ''It is only on '' ELSE ''It is not the same on '' END
                            || string_agg(d.server, '', '' ORDER BY d.server) || ''.'',
                        ''Define it on every server in the same way; a policy with the same effective_from.''
                    FROM %1$I.definitions AS d
                    GROUP BY d.kind, d.name
                    HAVING count(DISTINCT d.definition) > 1 OR count(*) < %2$s
                    UNION ALL
                    SELECT NULL, ''tenant_on_several_servers'', t.tenant,
                        ''It has books on '' || string_agg(t.server, '', '' ORDER BY t.server) || '', and an allowance on each.'',
                        ''Send all its statements to one server. If it has moved, call end_move where it was.''
                    FROM %1$I.tenants AS t
                    GROUP BY t.tenant
                    HAVING count(*) > 1', schema, (SELECT count(DISTINCT s.server) FROM unnest(servers) AS s (server)))
            LOOP
                EXECUTE format('CREATE VIEW %I.%I AS %s', schema, own.name, own.query);
                RETURN QUERY SELECT format('%I.%I', schema, own.name);
            END LOOP;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.fleet(text[], text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.fleet(text[], text) IS
    'Makes a schema of views over the named servers of postgres_fdw, anew if it is there, and returns their names. With the caller''s rights';

CREATE FUNCTION talkmeter.rules_of_source(source_id integer) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT jsonb_build_object(
            'source_id', s.source_id,
            'table', s.relation_name,
            'role', s.role,
            'policy', s.policy,
            'default_plan', s.default_plan,
            'mapping', s.mapping,
            'mapped_since', s.mapped_since,
            'earlier', (
                SELECT jsonb_agg(jsonb_build_array(e.since, e.policy, e.mapping) ORDER BY e.since)
                FROM talkmeter.earlier_mapping AS e
                WHERE e.source_id = s.source_id),
            'starts_at', s.starts_at,
            'gaps', (
                SELECT jsonb_agg(jsonb_build_array(g.from_time, g.until_time) ORDER BY g.from_time)
                FROM talkmeter.source_gap AS g
                WHERE g.source_id = s.source_id),
            'uncharged', (
                SELECT jsonb_agg(jsonb_build_array(u.from_time, u.until_time) ORDER BY u.from_time)
                FROM talkmeter.uncharged_span AS u
                WHERE u.source_id = s.source_id))
        FROM talkmeter.source AS s
        WHERE s.source_id = rules_of_source.source_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.rules_of_source(integer) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.rules_of_source(integer) IS 'How the rows of an attached table become events, and which of them do';

CREATE FUNCTION talkmeter.move_head(tenant text) RETURNS jsonb
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT jsonb_build_object(
            'tenant', m.tenant,
            'move', m.move,
            'receipt', m.receipt,
            'exported_at', m.exported_at,
            'first', (SELECT min(p.started_at) FROM talkmeter.part AS p WHERE p.tenant = m.tenant),
            'definitions', (SELECT jsonb_agg(to_jsonb(d)) FROM talkmeter.definitions AS d WHERE d.kind <> 'table'),
            'sources', (
                SELECT jsonb_agg(talkmeter.rules_of_source(s.source_id) ORDER BY s.source_id)
                FROM talkmeter.source AS s
                WHERE s.source_id IN (
                    SELECT unnest(c.sources || c.source_id) FROM talkmeter.conversation AS c WHERE c.tenant = m.tenant
                    UNION ALL
                    SELECT e.source_id FROM talkmeter.ended_part AS e WHERE e.tenant = m.tenant
                    UNION ALL
                    SELECT q.source_id FROM talkmeter.quarantined AS q WHERE q.tenant = m.tenant)))
        FROM talkmeter.tenant_move AS m
        WHERE m.tenant = move_head.tenant
    $$;
REVOKE ALL ON FUNCTION talkmeter.move_head(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.move_head(text) IS
    'The first line of a tenant''s document: among others what must be the same where its books go, for its bills to be the same';

CREATE FUNCTION talkmeter.move_differences(head jsonb) RETURNS TABLE (difference text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH there AS (
            SELECT d.kind, d.name, d.definition
            FROM jsonb_to_recordset(head -> 'definitions') AS d (kind text, name text, definition jsonb)
        ), here AS (
            SELECT d.kind, d.name, d.definition FROM talkmeter.definitions AS d WHERE d.kind <> 'table'
        ), span AS (
            -- Rows that are no events, or are never charged, though they may be of the tenant's parts.
            SELECT t.rules, h.rules AS own, k.key, g.span
            FROM jsonb_array_elements(NULLIF(head -> 'sources', 'null')) AS t (rules)
            CROSS JOIN LATERAL talkmeter.rules_of_source((t.rules ->> 'source_id')::integer) AS h (rules)
            CROSS JOIN (VALUES ('gaps'), ('uncharged')) AS k (key)
            CROSS JOIN LATERAL (
                SELECT s.span FROM jsonb_array_elements(NULLIF(h.rules -> k.key, 'null')) AS s (span)
                WHERE (s.span ->> 1)::timestamptz > (head ->> 'first')::timestamptz
                EXCEPT
                SELECT s.span FROM jsonb_array_elements(NULLIF(t.rules -> k.key, 'null')) AS s (span)
            ) AS g
        )
        SELECT format('%s %s is %s.', initcap(kind), name,
            CASE WHEN t.definition IS NULL THEN 'only here' WHEN h.definition IS NULL THEN 'only there' ELSE 'another here' END)
        FROM there AS t
        FULL JOIN here AS h USING (kind, name)
        WHERE t.definition IS DISTINCT FROM h.definition
        UNION ALL
        SELECT d.difference
        FROM jsonb_array_elements(NULLIF(head -> 'sources', 'null')) AS t (rules)
        CROSS JOIN LATERAL talkmeter.rules_of_source((t.rules ->> 'source_id')::integer) AS h (rules)
        CROSS JOIN LATERAL (
            SELECT CASE
                WHEN h.rules IS NULL OR (h.rules ->> 'table', h.rules ->> 'role') <> (t.rules ->> 'table', t.rules ->> 'role') THEN
                    format('Table %s was attached there as number %s, and here that is %s.', t.rules ->> 'table',
                        t.rules ->> 'source_id', COALESCE(h.rules ->> 'table', 'none'))
                WHEN (h.rules - '{starts_at,gaps,uncharged}'::text[]) <> (t.rules - '{starts_at,gaps,uncharged}'::text[]) THEN
                    format('Table %s has another mapping, policy or default plan here.', t.rules ->> 'table')
                WHEN (h.rules ->> 'starts_at')::timestamptz
                        > GREATEST((t.rules ->> 'starts_at')::timestamptz, (head ->> 'first')::timestamptz) THEN
                    format('Rows of table %s are events here from %s on, and those of the tenant begin before.', t.rules ->> 'table',
                        h.rules ->> 'starts_at')
            END AS difference
        ) AS d
        WHERE d.difference IS NOT NULL
        UNION ALL
        SELECT format('Rows of table %s from %s to %s are %s here.', s.rules ->> 'table', s.span ->> 0, s.span ->> 1,
            CASE s.key WHEN 'gaps' THEN 'no events' ELSE 'not charged' END)
        FROM span AS s
    $$;
REVOKE ALL ON FUNCTION talkmeter.move_differences(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.move_differences(jsonb) IS
    'What keeps this server from judging and billing a tenant as the one did that wrote the first line of its document';

CREATE FUNCTION talkmeter.begin_move(tenant text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'begin_move_wrapper';
REVOKE ALL ON FUNCTION talkmeter.begin_move(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.begin_move(text) IS
    'The tenant is about to leave this server: from the commit on its rows wait in quarantine as moved, and calls that would change its books are errors';

CREATE FUNCTION talkmeter.expect_tenant(tenant text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'expect_tenant_wrapper';
REVOKE ALL ON FUNCTION talkmeter.expect_tenant(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.expect_tenant(text) IS
    'The tenant is about to come to this server: from the commit on its rows wait in quarantine as moved, until its books are here';

CREATE FUNCTION talkmeter.export_tenant(tenant text) RETURNS TABLE (line bigint, relation text, content text[])
    LANGUAGE c VOLATILE PARALLEL UNSAFE
    SET datestyle = 'ISO, YMD' SET timezone = 'UTC' SET bytea_output = 'hex'
    AS 'MODULE_PATHNAME', 'export_tenant_wrapper';
REVOKE ALL ON FUNCTION talkmeter.export_tenant(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.export_tenant(text) IS
    'All books of a tenant that is leaving, as lines for COPY: a first one that says what they are, then rows of tables, at most 1,000 each, then one that says end';

CREATE FUNCTION talkmeter.import_begin(head jsonb) RETURNS TABLE (tenant text, since timestamptz)
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET datestyle = 'ISO, YMD' SET timezone = 'UTC' AS 'MODULE_PATHNAME', 'import_begin_wrapper';
REVOKE ALL ON FUNCTION talkmeter.import_begin(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.import_begin(jsonb) IS
    'Checks the first line of a document. since: the books are here already, and only what came into quarantine later is new';

CREATE FUNCTION talkmeter.import_rows(tenant text, relation text, content text[]) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET datestyle = 'ISO, YMD' SET timezone = 'UTC' AS 'MODULE_PATHNAME', 'import_rows_wrapper';
REVOKE ALL ON FUNCTION talkmeter.import_rows(text, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.import_rows(text, text, text[]) IS 'Takes over rows of a tenant into one table of the books';

CREATE FUNCTION talkmeter.import_end(head jsonb) RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE SET datestyle = 'ISO, YMD' SET timezone = 'UTC' AS 'MODULE_PATHNAME', 'import_end_wrapper';
REVOKE ALL ON FUNCTION talkmeter.import_end(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.import_end(jsonb) IS 'From now on the tenant is metered here, beginning with what waits in quarantine';

-- The document is read with the rights of the caller, who may have a view for it.
CREATE FUNCTION talkmeter.import_tenant(document regclass) RETURNS uuid
    LANGUAGE plpgsql VOLATILE SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, YMD' SET timezone = 'UTC'
    AS $$
        DECLARE
            head jsonb;
            own record;
            known record;
            lines bigint := 0;
            has_ended boolean := false;
        BEGIN
            IF document IS NULL OR (
                SELECT count(*) FROM pg_attribute AS a
                WHERE a.attrelid = document AND NOT a.attisdropped AND a.attname IN ('line', 'relation', 'content')) < 3
            THEN
                RAISE invalid_parameter_value USING
                    MESSAGE = format('%s has no lines of a document', COALESCE(document::text, 'null')),
                    HINT = 'CREATE TABLE ... (line bigint, relation text, content text[]); and copy into it what talkmeter.export_tenant returned.';
            END IF;
            FOR own IN EXECUTE format('SELECT d.line, d.relation, d.content FROM %s AS d ORDER BY d.line', document) LOOP
                lines := lines + 1;
                IF own.line IS DISTINCT FROM lines OR has_ended OR (own.relation = 'move') IS DISTINCT FROM (lines = 1) THEN
                    RAISE invalid_parameter_value USING
                        MESSAGE = format('line %s of the document is missing, or there is another', lines),
                        HINT = 'Load what one call of talkmeter.export_tenant returned, into an empty table. Nothing was changed.';
                END IF;
                IF lines = 1 THEN
                    head := own.content[1]::jsonb;
                    SELECT b.tenant, b.since INTO STRICT known FROM talkmeter.import_begin(head) AS b;
                ELSIF own.relation = 'end' THEN
                    has_ended := true;
                ELSIF known.since IS NULL THEN
                    PERFORM talkmeter.import_rows(known.tenant, own.relation, own.content);
                ELSIF own.relation = 'talkmeter.quarantined' THEN
                    PERFORM talkmeter.import_rows(known.tenant, own.relation, ARRAY(
                        SELECT r.entry FROM unnest(own.content) AS r (entry)
                        WHERE (r.entry::talkmeter.quarantined).quarantined_at > known.since));
                END IF;
            END LOOP;
            IF NOT has_ended THEN
                RAISE invalid_parameter_value USING
                    MESSAGE = format('the document has %s lines, and no end', lines),
                    HINT = 'Load all that talkmeter.export_tenant returned. Nothing was changed.';
            END IF;
            RETURN talkmeter.import_end(head);
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.import_tenant(regclass) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.import_tenant(regclass) IS
    'Takes over a tenant''s books from a table of the lines that export_tenant returned on another server; from the commit on the tenant is metered here. Returns the receipt for end_move there';

CREATE FUNCTION talkmeter.end_move(tenant text, receipt uuid) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'end_move_wrapper';
REVOKE ALL ON FUNCTION talkmeter.end_move(text, uuid) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.end_move(text, uuid) IS
    'Removes the books of a tenant that has left, given the receipt that import_tenant returned where they are now';

CREATE FUNCTION talkmeter.cancel_move(tenant text) RETURNS uuid
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'cancel_move_wrapper';
REVOKE ALL ON FUNCTION talkmeter.cancel_move(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.cancel_move(text) IS
    'The tenant stays, or does not come after all: what waits of it is metered. Returns the receipt by which end_move removes a copy of its books, as after a split by a replica';
