-- Which tables of the application are metered, and which of their rows could not be.

CREATE TABLE talkmeter.installation (
    installation uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid()
);
REVOKE ALL ON talkmeter.installation FROM PUBLIC;
INSERT INTO talkmeter.installation DEFAULT VALUES;
COMMENT ON TABLE talkmeter.installation IS
    'Of which CREATE EXTENSION this is. Not dumped: a copy of the files has the same, as by pg_upgrade or CREATE DATABASE ... TEMPLATE, and a restored database another';
COMMENT ON COLUMN talkmeter.installation.installation IS 'Drawn at random by CREATE EXTENSION';

CREATE FUNCTION talkmeter.origin_of(relation regclass) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'origin_of_wrapper';
REVOKE ALL ON FUNCTION talkmeter.origin_of(regclass) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.origin_of(regclass) IS
    'Which table of which installation: differs after a restore, where column numbers mean nothing any more, and not in a copy of the files';

CREATE FUNCTION talkmeter.class_of(type oid) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'class_of_wrapper';
REVOKE ALL ON FUNCTION talkmeter.class_of(oid) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.class_of(oid) IS
    'What a type means to a mapping, under all domains: a column whose new type is of the same class is read as before';

CREATE TABLE talkmeter.source (
    source_id integer PRIMARY KEY,
    role text NOT NULL CHECK (role IN ('messages', 'status')),
    relation regclass,
    relation_origin text NOT NULL,
    relation_name text NOT NULL,
    members regclass[] NOT NULL,
    policy text CHECK ((policy IS NOT NULL) = (role = 'messages')),
    default_plan text COLLATE "C",
    mapping jsonb NOT NULL CHECK (pg_catalog.jsonb_typeof(mapping) = 'object'),
    columns jsonb NOT NULL CHECK (pg_catalog.jsonb_typeof(columns) = 'array'
        AND NOT pg_catalog.jsonb_path_exists(columns, '$[*] ? (@.type() != "object")')),
    strict boolean NOT NULL,
    starts_at timestamptz NOT NULL,
    mapped_since timestamptz NOT NULL DEFAULT '-infinity',
    attached_at timestamptz NOT NULL,
    attached_by name NOT NULL,
    detached_at timestamptz,
    row_mode boolean NOT NULL DEFAULT false,
    CHECK (relation IS NOT NULL OR detached_at IS NOT NULL),
    UNIQUE (relation, role)
);
REVOKE ALL ON talkmeter.source FROM PUBLIC;
COMMENT ON TABLE talkmeter.source IS 'Tables of the application that are, or once were, attached';
COMMENT ON COLUMN talkmeter.source.source_id IS 'Counts the tables in the order of their first attach; orders rows of one instant';
COMMENT ON COLUMN talkmeter.source.role IS
    'messages: its rows are events; status: a change of its status column makes a mark';
COMMENT ON COLUMN talkmeter.source.relation IS
    'The table; dumped by name. Null once it is dropped: a dump would hold its bare number, which is another table''s elsewhere';
COMMENT ON COLUMN talkmeter.source.relation_origin IS
    'The table''s origin_of when its columns were recorded';
COMMENT ON COLUMN talkmeter.source.relation_name IS 'The table''s schema and name when it was attached, quoted: tells a rename';
COMMENT ON COLUMN talkmeter.source.members IS
    'The table and its partitions when it was attached: a partition taken out since still has the trigger, and takes rows';
COMMENT ON COLUMN talkmeter.source.policy IS 'Policy of parts that a row of this table opens; "name@version" pins a version; null for a status table';
COMMENT ON COLUMN talkmeter.source.default_plan IS 'Plan of a tenant first charged through this table; null: its units wait';
COMMENT ON COLUMN talkmeter.source.mapping IS 'How a row becomes events, as it was given to attach';
COMMENT ON COLUMN talkmeter.source.columns IS
    'The columns that the mapping names: number, type and name at attach, brought up to date by the sweep';
COMMENT ON COLUMN talkmeter.source.strict IS 'A row that cannot be metered raises an error instead of going to quarantine';
COMMENT ON COLUMN talkmeter.source.starts_at IS
    'Rows of before are no events: -infinity if the table was empty at its first attach, else the instant of that';
COMMENT ON COLUMN talkmeter.source.mapped_since IS
    'Rows of this time or later are read by this mapping and policy, earlier ones by those in earlier_mapping';
COMMENT ON COLUMN talkmeter.source.attached_at IS 'When it was attached last';
COMMENT ON COLUMN talkmeter.source.attached_by IS 'Who attached it last';
COMMENT ON COLUMN talkmeter.source.detached_at IS 'When it was detached; null while attached';
COMMENT ON COLUMN talkmeter.source.row_mode IS
    'Its triggers fire for each row, and also while logical replication applies it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.source', '');

CREATE TABLE talkmeter.earlier_mapping (
    source_id integer NOT NULL,
    since timestamptz NOT NULL,
    policy text NOT NULL,
    mapping jsonb NOT NULL CHECK (pg_catalog.jsonb_typeof(mapping) = 'object'),
    columns jsonb NOT NULL CHECK (pg_catalog.jsonb_typeof(columns) = 'array'
        AND NOT pg_catalog.jsonb_path_exists(columns, '$[*] ? (@.type() != "object")')),
    PRIMARY KEY (source_id, since)
);
REVOKE ALL ON talkmeter.earlier_mapping FROM PUBLIC;
COMMENT ON TABLE talkmeter.earlier_mapping IS 'Versions of mappings before the present one, by which rows of their time are still read';
COMMENT ON COLUMN talkmeter.earlier_mapping.source_id IS 'The table';
COMMENT ON COLUMN talkmeter.earlier_mapping.since IS
    'Rows of this time or later are read by it, up to the since of the next version; -infinity: all of before';
COMMENT ON COLUMN talkmeter.earlier_mapping.policy IS 'Policy of parts that a row of that time opens';
COMMENT ON COLUMN talkmeter.earlier_mapping.mapping IS 'How a row becomes events, as it was given';
COMMENT ON COLUMN talkmeter.earlier_mapping.columns IS
    'The columns that the mapping names: number, type and name when it was given, brought up to date by the sweep';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.earlier_mapping', '');

CREATE TABLE talkmeter.source_gap (
    source_id integer NOT NULL,
    from_time timestamptz NOT NULL,
    until_time timestamptz NOT NULL,
    because text NOT NULL CHECK (because IN ('detached', 'before_start')),
    PRIMARY KEY (source_id, from_time)
);
REVOKE ALL ON talkmeter.source_gap FROM PUBLIC;
COMMENT ON TABLE talkmeter.source_gap IS 'Spans of time of which rows are no events, until they are backfilled';
COMMENT ON COLUMN talkmeter.source_gap.source_id IS 'The table';
COMMENT ON COLUMN talkmeter.source_gap.from_time IS 'When it was detached, or from when on rows wait for a backfill';
COMMENT ON COLUMN talkmeter.source_gap.until_time IS 'When it was attached again; a row dated at this instant is an event';
COMMENT ON COLUMN talkmeter.source_gap.because IS
    'detached: the table was not attached meanwhile; before_start: the rows were there when it was first attached';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.source_gap', '');

CREATE FUNCTION talkmeter.is_source(relation regclass, relation_name text, relation_origin text) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp SET quote_all_identifiers = off
    AS $$
        SELECT EXISTS (
            SELECT FROM pg_class AS c
            JOIN pg_namespace AS n ON n.oid = c.relnamespace
            WHERE c.oid = is_source.relation AND (
                is_source.relation_origin = talkmeter.origin_of(is_source.relation)
                OR is_source.relation_name = format('%I.%I', n.nspname, c.relname)
                OR EXISTS (
                    SELECT FROM pg_trigger AS t
                    JOIN pg_proc AS p ON p.oid = t.tgfoid
                    WHERE t.tgrelid = c.oid AND p.pronamespace = 'talkmeter'::regnamespace AND starts_with(p.proname, 'on_'))))
    $$;
REVOKE ALL ON FUNCTION talkmeter.is_source(regclass, text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.is_source(regclass, text, text) IS
    'Whether the table is there that was attached: another one has its number after a restore, if it was dropped before the dump';

CREATE TABLE talkmeter.quarantined (
    quarantine_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    source_id integer NOT NULL,
    message_id text COLLATE "C",
    tenant text COLLATE "C",
    conversation text COLLATE "C",
    occurred_at timestamptz,
    event integer CHECK (event BETWEEN 0 AND 100),
    reason text NOT NULL CHECK (reason IN ('null_key', 'no_kind', 'time_out_of_range', 'future', 'unknown_policy',
        'mapping_broken', 'source_unreadable', 'internal_error', 'key_too_long', 'sealed', 'too_old', 'disabled', 'moved')),
    detail text,
    mark_kind text,
    removal bytea,
    counted boolean NOT NULL DEFAULT false,
    quarantined_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
REVOKE ALL ON talkmeter.quarantined FROM PUBLIC;
-- A message id may be longer than an index can hold.
CREATE INDEX quarantined_message ON talkmeter.quarantined (source_id, pg_catalog.hashtextextended(message_id, 0));
CREATE INDEX quarantined_future ON talkmeter.quarantined (occurred_at) WHERE reason = 'future';
CREATE INDEX quarantined_failed ON talkmeter.quarantined (quarantine_id) WHERE reason IN ('internal_error', 'source_unreadable');
CREATE INDEX quarantined_moved ON talkmeter.quarantined (tenant) WHERE reason = 'moved';
-- Rows without a message id are told apart by the rest, of which any may be null.
CREATE INDEX quarantined_nameless ON talkmeter.quarantined (source_id, (COALESCE(tenant, '')), (COALESCE(conversation, '')),
    (COALESCE(occurred_at, '-infinity'))) WHERE message_id IS NULL AND removal IS NULL;
COMMENT ON TABLE talkmeter.quarantined IS 'Rows that could not be metered; the rows themselves are in the application''s table';
COMMENT ON COLUMN talkmeter.quarantined.quarantine_id IS 'Names the entry';
COMMENT ON COLUMN talkmeter.quarantined.source_id IS 'The attached table; 0 for a mark that was made by function';
COMMENT ON COLUMN talkmeter.quarantined.message_id IS
    'The row''s message id, or the number of the mark; null if it has none or could not be read';
COMMENT ON COLUMN talkmeter.quarantined.tenant IS 'The row''s tenant, if it could be read';
COMMENT ON COLUMN talkmeter.quarantined.conversation IS 'The row''s conversation, if it could be read';
COMMENT ON COLUMN talkmeter.quarantined.occurred_at IS 'The row''s time, or that of its event, if it has one that can be metered';
COMMENT ON COLUMN talkmeter.quarantined.event IS
    'Which event of the row, from 1 on, if that has a time of its own; 0 are those that have the time of the row; null is the row as a whole';
COMMENT ON COLUMN talkmeter.quarantined.reason IS 'Why it could not be metered';
COMMENT ON COLUMN talkmeter.quarantined.detail IS 'What went wrong, where the reason does not say it all';
COMMENT ON COLUMN talkmeter.quarantined.mark_kind IS 'The kind of a mark that waits here to be made; null for a row';
COMMENT ON COLUMN talkmeter.quarantined.removal IS
    'Order key of an event that a change took away, which is still to be told; null for a row as it is now';
COMMENT ON COLUMN talkmeter.quarantined.counted IS
    'The row was metered as it was before, and goes on to be an event until it is looked at again';
COMMENT ON COLUMN talkmeter.quarantined.quarantined_at IS 'When it was put here';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.quarantined', '');
