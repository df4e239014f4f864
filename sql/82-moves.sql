-- How does a tenant move to another server? Its books go line by line; until they are there, its rows wait in quarantine.

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
