-- How are several servers read as one? Each has its own tenants; a database that reaches all of them by postgres_fdw shows them together.

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
