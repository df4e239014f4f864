-- In which databases may talkmeter be, and where does everything of it live?
\echo Use "CREATE EXTENSION talkmeter" to load this file. \quit

-- CREATE EXTENSION has pinned it already, by the control file; said again for those who read only this.
SET LOCAL search_path TO pg_catalog, pg_temp;

-- The library takes every text for UTF8. No database changes its encoding later, so nothing else asks for it.
DO $$
BEGIN
    IF pg_catalog.current_setting('server_encoding') <> 'UTF8' THEN
        RAISE feature_not_supported USING
            MESSAGE = 'talkmeter needs a database whose encoding is UTF8',
            DETAIL = pg_catalog.format('That of this one is %s, and cannot be changed.', pg_catalog.current_setting('server_encoding')),
            HINT = 'Make one: createdb -T template0 -E UTF8 --locale=C.UTF-8 NAME';
    END IF;
END
$$;

-- A schema of that name that somebody else made must stop the installation, not be adopted. Most likely it is the stub's.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'talkmeter') THEN
        RAISE duplicate_schema USING
            MESSAGE = 'schema "talkmeter" already exists',
            HINT = 'If it is that of the development stub: DROP SCHEMA talkmeter CASCADE, then try again.';
    END IF;
END
$$;
CREATE SCHEMA talkmeter;
REVOKE ALL ON SCHEMA talkmeter FROM PUBLIC;
COMMENT ON SCHEMA talkmeter IS
    'Meters and bills AI-support conversations in the transaction that writes their messages';
-- Which time is it to the meter?

CREATE VIEW talkmeter.clock AS
    SELECT pg_catalog.statement_timestamp() + o.clock_offset AS now, o.clock_offset
    FROM (
        -- In seconds alone, so that no zone's day is longer than another. Unset in a session that has not used the library;
        -- whoever sets it before that fools nobody but himself.
        SELECT pg_catalog.make_interval(secs => COALESCE(EXTRACT(epoch FROM
            NULLIF(pg_catalog.current_setting('talkmeter.clock_offset', true), '')::interval), 0)::float8) AS clock_offset
    ) AS o;
REVOKE ALL ON talkmeter.clock FROM PUBLIC;
COMMENT ON VIEW talkmeter.clock IS
    'The time by which messages are metered: that of the server, but for talkmeter.clock_offset. All views of what has passed by now read it';
COMMENT ON COLUMN talkmeter.clock.now IS 'The time of the statement, by that clock';
COMMENT ON COLUMN talkmeter.clock.clock_offset IS 'How far it is ahead of the server''s: talkmeter.clock_offset';
-- What is sold, and by which definition: policies, plans, packs on offer.

CREATE TABLE talkmeter.policy (
    name text COLLATE "C" NOT NULL CHECK (name <> '' AND pg_catalog.strpos(name, '@') = 0 AND pg_catalog.octet_length(name) <= 512),
    version integer NOT NULL CHECK (version > 0),
    label text NOT NULL,
    effective_from timestamptz NOT NULL,
    starts_on text[] NOT NULL,
    ends_on text[] NOT NULL,
    idle_timeout interval,
    quiet_review_after interval,
    max_duration interval,
    turn_limit integer,
    charge_on text NOT NULL CHECK (charge_on IN ('start', 'first_ai_reply', 'first_of', 'close')),
    charge_events text[] CHECK ((charge_on = 'first_of') = (charge_events IS NOT NULL)),
    outcomes jsonb,
    final_after interval,
    never_final boolean,
    once_per text CHECK (once_per = 'conversation'),
    staff_reply_blocks boolean NOT NULL,
    error_before_reply_waives boolean NOT NULL,
    exclude_prefixes text[] NOT NULL,
    retroactive boolean NOT NULL DEFAULT false,
    note text CHECK (pg_catalog.octet_length(note) <= 10000),
    defined_at timestamptz,
    defined_by name,
    shipped boolean NOT NULL DEFAULT false,
    PRIMARY KEY (name, version),
    CHECK (NOT retroactive OR note IS NOT NULL),
    CHECK (shipped OR num_nonnulls(defined_at, defined_by) = 2)
);
REVOKE ALL ON talkmeter.policy FROM PUBLIC;
COMMENT ON TABLE talkmeter.policy IS 'Definitions of the billable unit; a version is never changed, a new one is added';
COMMENT ON COLUMN talkmeter.policy.name IS 'Name of the policy; "name@version" elsewhere pins one version';
COMMENT ON COLUMN talkmeter.policy.version IS 'Counts within the name, from 1';
COMMENT ON COLUMN talkmeter.policy.label IS 'The vendor''s own name of the version, such as 1.0.0';
COMMENT ON COLUMN talkmeter.policy.effective_from IS 'Parts that open at or after this instant are judged by this version';
COMMENT ON COLUMN talkmeter.policy.starts_on IS 'Events that open a part when none is open: kinds, kind:tag, or message for any activity';
COMMENT ON COLUMN talkmeter.policy.ends_on IS 'Events that end the open part; one that opens it too is a part of its own';
COMMENT ON COLUMN talkmeter.policy.idle_timeout IS 'A gap longer than this since the last activity has ended the part; null: never';
COMMENT ON COLUMN talkmeter.policy.quiet_review_after IS
    'A gap of at least this since the last activity has ended a part that no staff answered; null: never';
COMMENT ON COLUMN talkmeter.policy.max_duration IS 'The part has ended so long after its start; null: never';
COMMENT ON COLUMN talkmeter.policy.turn_limit IS 'The part ends with the AI reply that completes this many turns; null: no limit';
COMMENT ON COLUMN talkmeter.policy.charge_on IS 'Charge instant: start, first_ai_reply, first_of (charge_events) or close (the end of the part)';
COMMENT ON COLUMN talkmeter.policy.charge_events IS 'The events at whose first a part is judged; null unless charge_on is first_of';
COMMENT ON COLUMN talkmeter.policy.outcomes IS
    'The rules by which a part is judged, in order: when or unless, outcome, units, voided_by; null: it is billable if the AI replied';
COMMENT ON COLUMN talkmeter.policy.final_after IS
    'How long after its end a part is final; until then an event may still change what is decided of it; null: at its end, or never';
COMMENT ON COLUMN talkmeter.policy.never_final IS 'A part is final when another one opens, and not before; null: no';
COMMENT ON COLUMN talkmeter.policy.once_per IS 'conversation: a part is not billable if an earlier one of its conversation is charged; null: each part is';
COMMENT ON COLUMN talkmeter.policy.staff_reply_blocks IS 'A visible staff reply makes the part not billable';
COMMENT ON COLUMN talkmeter.policy.error_before_reply_waives IS 'An error before the first AI reply makes the part not billable';
COMMENT ON COLUMN talkmeter.policy.exclude_prefixes IS
    'Conversation ids that start literally with one of these are recorded and never charged';
COMMENT ON COLUMN talkmeter.policy.retroactive IS
    'It was in force before it was defined, and its policy had judged parts by then: those keep the version that they opened under';
COMMENT ON COLUMN talkmeter.policy.note IS 'What was said when it was defined';
COMMENT ON COLUMN talkmeter.policy.defined_at IS 'When it was defined; null: it came with the extension';
COMMENT ON COLUMN talkmeter.policy.defined_by IS 'Who defined it; null: it came with the extension';
COMMENT ON COLUMN talkmeter.policy.shipped IS 'Installed by the extension, so not part of a dump';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.policy', 'WHERE NOT shipped');

CREATE TABLE talkmeter.plan (
    name text COLLATE "C" PRIMARY KEY CHECK (name <> '' AND pg_catalog.octet_length(name) <= 512),
    included bigint NOT NULL CHECK (included >= 0),
    overage_rate numeric NOT NULL CHECK (overage_rate >= 0 AND overage_rate < 1000000000),
    rates jsonb CHECK (pg_catalog.jsonb_typeof(rates) = 'object'),
    price numeric CHECK (price >= 0 AND price < 1000000000000),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    shipped boolean NOT NULL DEFAULT false
);
REVOKE ALL ON talkmeter.plan FROM PUBLIC;
COMMENT ON TABLE talkmeter.plan IS 'Plans: included units per period, overage rate, price per period';
COMMENT ON COLUMN talkmeter.plan.name IS 'Name of the plan';
COMMENT ON COLUMN talkmeter.plan.included IS 'Units per period before packs and overage; nothing rolls over';
COMMENT ON COLUMN talkmeter.plan.overage_rate IS
    'Price of one overage unit, exact, in the currency, if its outcome has none of its own';
COMMENT ON COLUMN talkmeter.plan.rates IS 'Prices of one overage unit by its outcome, exact numbers; null: no outcome has one of its own';
COMMENT ON COLUMN talkmeter.plan.price IS 'Price per period in the currency; null: not known to the meter';
COMMENT ON COLUMN talkmeter.plan.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.plan.shipped IS 'Installed by the extension, so not part of a dump';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.plan', 'WHERE NOT shipped');

CREATE TABLE talkmeter.pack_offer (
    name text COLLATE "C" PRIMARY KEY CHECK (name <> '' AND pg_catalog.octet_length(name) <= 512),
    size bigint NOT NULL CHECK (size BETWEEN 1 AND 1000000000000),
    price numeric NOT NULL CHECK (price >= 0 AND price < 1000000000000),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    valid_for interval,
    expiry text CHECK (expiry IN ('period', 'never')),
    shipped boolean NOT NULL DEFAULT false,
    CHECK (num_nonnulls(valid_for, expiry) = 1)
);
REVOKE ALL ON talkmeter.pack_offer FROM PUBLIC;
COMMENT ON TABLE talkmeter.pack_offer IS 'Packs of prepaid units that can be bought';
COMMENT ON COLUMN talkmeter.pack_offer.name IS 'Name of the pack';
COMMENT ON COLUMN talkmeter.pack_offer.size IS 'Units in the pack';
COMMENT ON COLUMN talkmeter.pack_offer.price IS 'Price of the pack in the currency';
COMMENT ON COLUMN talkmeter.pack_offer.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.pack_offer.valid_for IS 'Lifetime from the purchase on; a day of it is 24 hours; null: expiry says when it ends';
COMMENT ON COLUMN talkmeter.pack_offer.expiry IS
    'period: it lasts to the end of the billing month that holds its purchase; never: it does not expire; null: valid_for says how long it lasts';
COMMENT ON COLUMN talkmeter.pack_offer.shipped IS 'Installed by the extension, so not part of a dump';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.pack_offer', 'WHERE NOT shipped');
-- What is installed? The three published definitions of a billable unit, and what their vendors sell. LutinGénie prints no prices.

INSERT INTO talkmeter.policy (name, version, label, effective_from, starts_on, ends_on, idle_timeout,
    quiet_review_after, turn_limit, charge_on, staff_reply_blocks, error_before_reply_waives, exclude_prefixes, shipped)
VALUES
    ('lutingenie', 1, '1', '-infinity', '{customer_message}', '{close,resolve,new_topic}', '30 minutes',
        NULL, NULL, 'first_ai_reply', false, false, '{}', true),
    ('agent_red', 1, '1.0.0', '-infinity', '{customer_message}', '{close,escalate}', '30 minutes',
        NULL, 50, 'first_ai_reply', false, true, '{test_,admin_,health_,system_}', true),
    ('ai_resolution', 1, '1', '-infinity', '{customer_message,staff_reply,reopen}', '{close,resolve}', NULL,
        '3 hours', NULL, 'close', true, false, '{}', true);

INSERT INTO talkmeter.plan (name, included, overage_rate, price, currency, shipped)
VALUES
    ('agent_red/starter', 1000, 0.04, NULL, 'USD', true),
    ('agent_red/professional', 5000, 0.025, NULL, 'USD', true),
    ('agent_red/enterprise', 20000, 0.015, NULL, 'USD', true),
    ('ai_resolution/usage', 0, 0.99, NULL, 'USD', true);

INSERT INTO talkmeter.pack_offer (name, size, price, currency, valid_for, shipped)
VALUES
    ('agent_red/1000', 1000, 29, 'USD', '90 days', true),
    ('agent_red/5000', 5000, 99, 'USD', '90 days', true),
    ('agent_red/20000', 20000, 249, 'USD', '90 days', true);
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
        'mapping_broken', 'source_unreadable', 'internal_error', 'key_too_long', 'sealed', 'too_old', 'disabled')),
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
-- What happened in each conversation: its state, its parts and its marks.

-- One row per conversation: what a message of it changes. Updated with each message: room for HOT updates, no index but the key and one whose
-- columns change when a part opens or ends, and what changes comes last, because the log holds a changed row from its first changed byte on.
-- Only our code writes this and the next two: they have no CHECK, and verify looks for what it would say.
CREATE TABLE talkmeter.conversation (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    highest_part integer NOT NULL DEFAULT 0,
    last_mark bigint NOT NULL DEFAULT 0,
    sources integer[],
    charged_before boolean,
    current_part integer,
    source_id integer,
    policy text COLLATE "C",
    policy_version integer,
    first_event bytea,
    started_at timestamptz,
    first_ai_reply_at timestamptz,
    excluded boolean,
    error_before_reply boolean,
    seen bigint,
    opening_tag text,
    charged_at timestamptz,
    not_billable_because text,
    rule integer,
    outcome text,
    ended_at timestamptz,
    end_reason text,
    held_count bigint,
    timed boolean NOT NULL DEFAULT false,
    due_reason text,
    due_because text,
    due_outcome text,
    due_at timestamptz,
    due_end timestamptz,
    customer_waits boolean,
    turn_count integer,
    ai_replies bigint,
    staff_replies bigint,
    event_count bigint,
    message_count bigint,
    last_activity_at timestamptz,
    part_last_event bytea,
    last_event bytea NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, conversation)
) WITH (fillfactor = 85, autovacuum_vacuum_scale_factor = 0.05);
REVOKE ALL ON talkmeter.conversation FROM PUBLIC;
CREATE INDEX conversation_timed ON talkmeter.conversation (tenant, conversation) WHERE timed;
COMMENT ON TABLE talkmeter.conversation IS
    'How far each conversation is folded, and its current part: its last one, until that is final; whoever folds it writes this row, and so holds it';
COMMENT ON COLUMN talkmeter.conversation.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.conversation.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.conversation.highest_part IS 'The highest part number ever used';
COMMENT ON COLUMN talkmeter.conversation.last_mark IS 'The number of the last mark';
COMMENT ON COLUMN talkmeter.conversation.sources IS
    'The attached tables whose rows have been events of it: no other table is read for it; null: source_id alone, or none if that is null too';
COMMENT ON COLUMN talkmeter.conversation.charged_before IS 'A part before the current one is charged; without a current one, any part is; null: none';
COMMENT ON COLUMN talkmeter.conversation.current_part IS
    'The number of its current part, which is open, or has ended and is held; null: all are final, and the columns of the part are null';
COMMENT ON COLUMN talkmeter.conversation.source_id IS 'Of the current part: the attached table whose row opened it; if a mark did, that of the part before';
COMMENT ON COLUMN talkmeter.conversation.policy IS 'Of the current part: the policy by which it is judged';
COMMENT ON COLUMN talkmeter.conversation.policy_version IS 'Of the current part: the version in force when it opened';
COMMENT ON COLUMN talkmeter.conversation.first_event IS 'Of the current part: order key of the event that opened it';
COMMENT ON COLUMN talkmeter.conversation.started_at IS 'Of the current part: time of the event that opened it';
COMMENT ON COLUMN talkmeter.conversation.first_ai_reply_at IS 'Of the current part: time of its first AI reply';
COMMENT ON COLUMN talkmeter.conversation.excluded IS 'Of the current part: an excluded rule of the mapping matched one of its events';
COMMENT ON COLUMN talkmeter.conversation.error_before_reply IS 'Of the current part: a platform error came before its first AI reply';
COMMENT ON COLUMN talkmeter.conversation.seen IS 'Of the current part: which events that the outcomes of its policy ask for it saw, a bit each; null: none';
COMMENT ON COLUMN talkmeter.conversation.opening_tag IS 'Of the current part: the tag of the event that opened it, if an outcome of its policy asks for it';
COMMENT ON COLUMN talkmeter.conversation.charged_at IS 'Of the current part: its charge instant, once it is found billable';
COMMENT ON COLUMN talkmeter.conversation.not_billable_because IS 'Of the current part: the reason against, once it is judged';
COMMENT ON COLUMN talkmeter.conversation.rule IS 'Of the current part: the rule of the outcomes of its policy that decided, counted from 1; null: none did';
COMMENT ON COLUMN talkmeter.conversation.outcome IS 'Of the current part: the outcome, once it is judged by a rule that names one';
COMMENT ON COLUMN talkmeter.conversation.ended_at IS 'Of the current part: when it ended, if it is held; null: it is open';
COMMENT ON COLUMN talkmeter.conversation.end_reason IS 'Of the current part: why it ended, if it is held';
COMMENT ON COLUMN talkmeter.conversation.held_count IS 'Of the current part: events that it counted after its end; null: none';
COMMENT ON COLUMN talkmeter.conversation.timed IS 'Time alone will end the current part, or make it final';
COMMENT ON COLUMN talkmeter.conversation.due_reason IS 'Of the current part: the end reason that will be recorded then';
COMMENT ON COLUMN talkmeter.conversation.due_because IS 'Of the current part: the reason against that will be recorded then; null: billable';
COMMENT ON COLUMN talkmeter.conversation.due_outcome IS 'Of the current part: the outcome that will be recorded then; null: none';
COMMENT ON COLUMN talkmeter.conversation.due_at IS 'Of the current part: the first instant at which time has ended it, if no activity comes before, or at which it is final';
COMMENT ON COLUMN talkmeter.conversation.due_end IS 'Of the current part: the end that will be recorded then';
COMMENT ON COLUMN talkmeter.conversation.customer_waits IS 'Of the current part: a customer message waits for the AI reply that completes the turn';
COMMENT ON COLUMN talkmeter.conversation.turn_count IS 'Of the current part: complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.conversation.ai_replies IS 'Of the current part: AI replies that it counted';
COMMENT ON COLUMN talkmeter.conversation.staff_replies IS 'Of the current part: visible staff replies that it counted';
COMMENT ON COLUMN talkmeter.conversation.event_count IS 'Of the current part: events of every kind that it counted: if fewer are found later, it has lost rows and is sealed';
COMMENT ON COLUMN talkmeter.conversation.message_count IS 'Of the current part: activities that it counted';
COMMENT ON COLUMN talkmeter.conversation.last_activity_at IS 'Of the current part: time of its last activity, or of its opening if that was none';
COMMENT ON COLUMN talkmeter.conversation.part_last_event IS 'Order key of the last event that the part counted; null: that of the conversation';
COMMENT ON COLUMN talkmeter.conversation.last_event IS
    'Order key of the last event folded, or of the instant up to which time has ended its parts: an event is late if its key is not greater';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.conversation', '');

-- Written once, when a part is final; again only when it is folded again.
CREATE TABLE talkmeter.ended_part (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    charged_before boolean,
    source_id integer,
    policy text COLLATE "C" NOT NULL,
    policy_version integer NOT NULL,
    first_event bytea NOT NULL,
    started_at timestamptz NOT NULL,
    first_ai_reply_at timestamptz,
    excluded boolean NOT NULL,
    error_before_reply boolean NOT NULL,
    seen bigint,
    opening_tag text,
    charged_at timestamptz,
    not_billable_because text,
    rule integer,
    outcome text,
    ended_at timestamptz NOT NULL,
    end_reason text NOT NULL,
    final_at timestamptz,
    held_count bigint,
    customer_waits boolean NOT NULL,
    turn_count integer NOT NULL,
    ai_replies bigint NOT NULL,
    staff_replies bigint NOT NULL,
    event_count bigint NOT NULL,
    message_count bigint NOT NULL,
    last_activity_at timestamptz NOT NULL,
    last_event bytea NOT NULL,
    PRIMARY KEY (tenant, conversation, part)
);
REVOKE ALL ON talkmeter.ended_part FROM PUBLIC;
COMMENT ON TABLE talkmeter.ended_part IS 'The metered interactions that are final; read them through the view parts';
COMMENT ON COLUMN talkmeter.ended_part.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.ended_part.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.ended_part.part IS 'Number within the conversation, in the order found; a name that charges know it by';
COMMENT ON COLUMN talkmeter.ended_part.charged_before IS 'An earlier part of its conversation is charged; null: none';
COMMENT ON COLUMN talkmeter.ended_part.source_id IS 'The attached table whose row opened it; if a mark did, that of the part before';
COMMENT ON COLUMN talkmeter.ended_part.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.ended_part.policy_version IS 'The version in force when it opened';
COMMENT ON COLUMN talkmeter.ended_part.first_event IS 'Order key of the event that opened it';
COMMENT ON COLUMN talkmeter.ended_part.started_at IS 'Time of the event that opened it';
COMMENT ON COLUMN talkmeter.ended_part.first_ai_reply_at IS 'Time of its first AI reply';
COMMENT ON COLUMN talkmeter.ended_part.excluded IS 'An excluded rule of the mapping matched one of its events';
COMMENT ON COLUMN talkmeter.ended_part.error_before_reply IS 'A platform error came before its first AI reply';
COMMENT ON COLUMN talkmeter.ended_part.seen IS 'Which events that the outcomes of its policy ask for it saw, a bit each; null: none';
COMMENT ON COLUMN talkmeter.ended_part.opening_tag IS 'The tag of the event that opened it, if an outcome of its policy asks for it';
COMMENT ON COLUMN talkmeter.ended_part.charged_at IS 'Its charge instant, once it is found billable';
COMMENT ON COLUMN talkmeter.ended_part.not_billable_because IS 'The reason against, once it is judged';
COMMENT ON COLUMN talkmeter.ended_part.rule IS 'The rule of the outcomes of its policy that decided, counted from 1; null: none did';
COMMENT ON COLUMN talkmeter.ended_part.outcome IS 'The outcome, if it was judged by a rule that names one';
COMMENT ON COLUMN talkmeter.ended_part.customer_waits IS 'A customer message waits for the AI reply that completes the turn';
COMMENT ON COLUMN talkmeter.ended_part.turn_count IS 'Complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.ended_part.ai_replies IS 'AI replies that it counted';
COMMENT ON COLUMN talkmeter.ended_part.staff_replies IS 'Visible staff replies that it counted';
COMMENT ON COLUMN talkmeter.ended_part.event_count IS 'Events of every kind that it counted: if fewer are found later, it has lost rows and is sealed';
COMMENT ON COLUMN talkmeter.ended_part.message_count IS 'Activities that it counted';
COMMENT ON COLUMN talkmeter.ended_part.last_activity_at IS 'Time of its last activity, or of its opening if that was none';
COMMENT ON COLUMN talkmeter.ended_part.ended_at IS 'When it ended, by its own rule and not by when that was noticed';
COMMENT ON COLUMN talkmeter.ended_part.end_reason IS 'idle, quiet_review, max_duration, turn_limit or the name of the event that ended it';
COMMENT ON COLUMN talkmeter.ended_part.final_at IS 'When it became final, if its policy says that this is after its end; null: at its end';
COMMENT ON COLUMN talkmeter.ended_part.held_count IS 'Events that it counted after its end; null: none';
COMMENT ON COLUMN talkmeter.ended_part.last_event IS 'Order key of the last event that it counted';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.ended_part', '');

-- Without a condition of its own, so that whoever joins it finds its rows by the indexes of both tables.
CREATE VIEW talkmeter.part_or_none AS
    SELECT c.tenant, c.conversation, c.current_part AS part, c.charged_before, c.source_id, c.policy, c.policy_version, c.first_event,
        c.started_at, c.first_ai_reply_at, c.excluded, c.error_before_reply, c.seen, c.opening_tag, c.charged_at, c.not_billable_because,
        c.rule, c.outcome, c.ended_at, c.end_reason, NULL::timestamptz AS final_at, c.held_count, c.ended_at IS NOT NULL AS is_held, c.timed,
        c.due_reason, c.due_because, c.due_outcome, c.due_at, c.due_end, c.customer_waits, c.turn_count, c.ai_replies, c.staff_replies,
        c.event_count, c.message_count, c.last_activity_at, COALESCE(c.part_last_event, c.last_event) AS last_event
    FROM talkmeter.conversation AS c
    UNION ALL
    SELECT e.tenant, e.conversation, e.part, e.charged_before, e.source_id, e.policy, e.policy_version, e.first_event,
        e.started_at, e.first_ai_reply_at, e.excluded, e.error_before_reply, e.seen, e.opening_tag, e.charged_at, e.not_billable_because,
        e.rule, e.outcome, e.ended_at, e.end_reason, e.final_at, e.held_count, false, false,
        NULL::text, NULL::text, NULL::text, NULL::timestamptz, NULL::timestamptz, e.customer_waits, e.turn_count, e.ai_replies, e.staff_replies,
        e.event_count, e.message_count, e.last_activity_at, e.last_event
    FROM talkmeter.ended_part AS e;
REVOKE ALL ON talkmeter.part_or_none FROM PUBLIC;
COMMENT ON VIEW talkmeter.part_or_none IS 'As part, with a row of nulls for each conversation that has no current part';

CREATE VIEW talkmeter.part AS
    SELECT * FROM talkmeter.part_or_none WHERE part IS NOT NULL;
REVOKE ALL ON talkmeter.part FROM PUBLIC;
COMMENT ON VIEW talkmeter.part IS 'The metered interactions of each conversation, open and ended, with all that is known of them';

CREATE VIEW talkmeter.part_now AS
    SELECT p.*, p.ended_at IS NULL AND p.timed AND p.due_at <= (SELECT clock.now FROM talkmeter.clock) AS passed
    FROM talkmeter.part AS p;
REVOKE ALL ON talkmeter.part_now FROM PUBLIC;
COMMENT ON VIEW talkmeter.part_now IS 'Parts, and whether time has ended them although no sweep has written that down';

-- Append-only.
CREATE TABLE talkmeter.marked (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    mark bigint NOT NULL,
    kind text NOT NULL,
    occurred_at timestamptz NOT NULL,
    marked_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    marked_by name NOT NULL DEFAULT SESSION_USER,
    PRIMARY KEY (tenant, conversation, mark)
);
REVOKE ALL ON talkmeter.marked FROM PUBLIC;
COMMENT ON TABLE talkmeter.marked IS 'Events for which the application has no row of a message: those of mark and of status tables';
COMMENT ON COLUMN talkmeter.marked.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.marked.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.marked.mark IS 'Counts within the conversation, in the order in which they were made';
COMMENT ON COLUMN talkmeter.marked.kind IS 'The name of the event: its kind, or kind:tag';
COMMENT ON COLUMN talkmeter.marked.occurred_at IS 'When it happened';
COMMENT ON COLUMN talkmeter.marked.marked_at IS 'When it was recorded';
COMMENT ON COLUMN talkmeter.marked.marked_by IS 'Who recorded it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.marked', '');

CREATE TABLE talkmeter.sweep_failure (
    tenant text COLLATE "C" PRIMARY KEY,
    error_code text NOT NULL,
    error text NOT NULL,
    failed_since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
REVOKE ALL ON talkmeter.sweep_failure FROM PUBLIC;
COMMENT ON TABLE talkmeter.sweep_failure IS 'Tenants that the last sweep could not sweep; read by health';
COMMENT ON COLUMN talkmeter.sweep_failure.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.sweep_failure.error_code IS 'The SQLSTATE of the last failure';
COMMENT ON COLUMN talkmeter.sweep_failure.error IS 'The message of the last failure';
COMMENT ON COLUMN talkmeter.sweep_failure.failed_since IS 'When it failed first, since it last succeeded';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.sweep_failure', '');

CREATE TABLE talkmeter.sweeper (
    sweeper text CHECK (sweeper IN ('worker', 'session')),
    role text COLLATE "C",
    swept_at timestamptz,
    reconciled date,
    failed_since timestamptz,
    error_code text,
    error text,
    PRIMARY KEY (sweeper, role)
);
REVOKE ALL ON talkmeter.sweeper FROM PUBLIC;
COMMENT ON TABLE talkmeter.sweeper IS 'Who has swept this database; read it through the view sweepers';
COMMENT ON COLUMN talkmeter.sweeper.sweeper IS 'worker: a process of talkmeter''s; session: somebody who called sweep, by cron or by hand';
COMMENT ON COLUMN talkmeter.sweeper.role IS 'The role that logged in; empty for the worker';
COMMENT ON COLUMN talkmeter.sweeper.swept_at IS
    'When it swept last, noted every five minutes at most, and of the worker only where a sweep has written something';
COMMENT ON COLUMN talkmeter.sweeper.reconciled IS 'The last day that the worker has reconciled';
COMMENT ON COLUMN talkmeter.sweeper.failed_since IS 'When the worker failed first, since it last succeeded';
COMMENT ON COLUMN talkmeter.sweeper.error_code IS 'The SQLSTATE of its last failure';
COMMENT ON COLUMN talkmeter.sweeper.error IS 'The message of its last failure';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.sweeper', '');
-- Who changed what bills depend on, when, and how?

-- Append-only, like the ledger.
CREATE TABLE talkmeter.journaled (
    entry uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    by name NOT NULL DEFAULT SESSION_USER,
    transaction xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    call text NOT NULL,
    tenant text COLLATE "C",
    arguments jsonb NOT NULL,
    note text
);
REVOKE ALL ON talkmeter.journaled FROM PUBLIC;
CREATE INDEX journaled_at ON talkmeter.journaled (at);
COMMENT ON TABLE talkmeter.journaled IS 'Calls that changed money, definitions or rights; read them through the view journal';
COMMENT ON COLUMN talkmeter.journaled.entry IS 'Names the entry';
COMMENT ON COLUMN talkmeter.journaled.at IS 'When it was called';
COMMENT ON COLUMN talkmeter.journaled.by IS 'Who called it: the role that logged in';
COMMENT ON COLUMN talkmeter.journaled.transaction IS 'The transaction, by which entries that belong together are found';
COMMENT ON COLUMN talkmeter.journaled.call IS
    'The function, or the table that was changed by hand';
COMMENT ON COLUMN talkmeter.journaled.tenant IS 'The merchant concerned; null: all';
COMMENT ON COLUMN talkmeter.journaled.arguments IS
    'What it was called with, what came of it, and under "replaced" what was there before';
COMMENT ON COLUMN talkmeter.journaled.note IS 'What was said about it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.journaled', '');

CREATE VIEW talkmeter.journal AS
    SELECT j.at, j.by, j.call, j.tenant, j.arguments, j.note, j.transaction
    FROM talkmeter.journaled AS j;
REVOKE ALL ON talkmeter.journal FROM PUBLIC;
COMMENT ON VIEW talkmeter.journal IS
    'Every call that changed money, definitions or rights, and every change by hand of holidays and threshold';
COMMENT ON COLUMN talkmeter.journal.at IS 'When it was called';
COMMENT ON COLUMN talkmeter.journal.by IS 'Who called it: the role that logged in';
COMMENT ON COLUMN talkmeter.journal.call IS 'The function; holidays or threshold for a change by hand';
COMMENT ON COLUMN talkmeter.journal.tenant IS 'The merchant concerned; null: all';
COMMENT ON COLUMN talkmeter.journal.arguments IS
    'What it was called with and what came of it. replaced holds what was there before and is gone';
COMMENT ON COLUMN talkmeter.journal.note IS 'What was said about it: the note of a credit, the reason of a dispute';
COMMENT ON COLUMN talkmeter.journal.transaction IS 'The transaction, on the server that wrote it: entries of one belong together';

CREATE FUNCTION talkmeter.refuse_journal_change() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            RAISE EXCEPTION 'the journal is never changed'
                USING ERRCODE = 'object_not_in_prerequisite_state',
                    DETAIL = format('%s on talkmeter.journaled was refused.', TG_OP),
                    HINT = 'What is wrong in it stays, and is put right by what is done next.';
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.refuse_journal_change() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.refuse_journal_change() IS 'Trigger of talkmeter.journaled: nothing in it is changed or removed';
CREATE TRIGGER refuse_journal_change BEFORE UPDATE OR DELETE OR TRUNCATE ON talkmeter.journaled
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.refuse_journal_change();

CREATE FUNCTION talkmeter.journal_row() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            -- A restore brings the journal of these rows along. Only a superuser restores, and only one is believed.
            IF NOT current_setting('check_function_bodies')::boolean
                AND (SELECT r.rolsuper FROM pg_roles AS r WHERE r.rolname = SESSION_USER) THEN
                RETURN NULL;
            END IF;
            INSERT INTO talkmeter.journaled (call, arguments)
            VALUES (TG_TABLE_NAME, jsonb_strip_nulls(jsonb_build_object('operation', lower(TG_OP),
                'replaced', CASE WHEN TG_OP IN ('UPDATE', 'DELETE') THEN to_jsonb(OLD) END,
                'row', CASE WHEN TG_OP IN ('INSERT', 'UPDATE') THEN to_jsonb(NEW) END)));
            RETURN NULL;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.journal_row() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.journal_row() IS 'Trigger of the tables that are filled by hand: writes the journal';
-- Who pays for each unit: accounts, subscriptions, periods, packs and the charges themselves.

CREATE TABLE talkmeter.tenant_lock (
    tenant text COLLATE "C" PRIMARY KEY
);
REVOKE ALL ON talkmeter.tenant_lock FROM PUBLIC;
COMMENT ON TABLE talkmeter.tenant_lock IS 'One row per tenant, never updated: whoever draws for a tenant locks its row first';
COMMENT ON COLUMN talkmeter.tenant_lock.tenant IS 'The merchant who is billed';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.tenant_lock', '');

-- Updated with each charge: half a page is room for HOT updates until vacuum comes by. So are period and pack below.
CREATE TABLE talkmeter.account (
    tenant text COLLATE "C" PRIMARY KEY,
    last_charge_id bigint NOT NULL DEFAULT 0,
    last_pack_id bigint NOT NULL DEFAULT 0,
    last_subscription_id bigint NOT NULL DEFAULT 0,
    last_finalization bigint NOT NULL DEFAULT 0,
    first_day date,
    alert_channel text
) WITH (fillfactor = 50);
REVOKE ALL ON talkmeter.account FROM PUBLIC;
COMMENT ON TABLE talkmeter.account IS 'The counters of each tenant; they leave no gaps, which no sequence promises';
COMMENT ON COLUMN talkmeter.account.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.account.last_charge_id IS 'The charge_id given last';
COMMENT ON COLUMN talkmeter.account.last_pack_id IS 'The pack_id given last';
COMMENT ON COLUMN talkmeter.account.last_subscription_id IS 'The subscription_id given last';
COMMENT ON COLUMN talkmeter.account.last_finalization IS 'The number of the statement that was frozen last';
COMMENT ON COLUMN talkmeter.account.first_day IS 'The first local day of any charge: how far back a history reaches';
COMMENT ON COLUMN talkmeter.account.alert_channel IS 'Where the tenant is told of alerts: the channel in talkmeter.alerts';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.account', '');

CREATE TABLE talkmeter.subscription (
    tenant text COLLATE "C" NOT NULL,
    subscription_id bigint NOT NULL,
    since timestamptz NOT NULL,
    plan text COLLATE "C",
    timezone text NOT NULL,
    anchor_day integer NOT NULL CHECK (anchor_day BETWEEN 1 AND 31),
    policy text,
    subscribed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    subscribed_by name NOT NULL DEFAULT SESSION_USER,
    last_charge_id bigint NOT NULL,
    PRIMARY KEY (tenant, subscription_id)
);
REVOKE ALL ON talkmeter.subscription FROM PUBLIC;
COMMENT ON TABLE talkmeter.subscription IS
    'Which plan a tenant is on: at an instant, the one with the highest subscription_id whose since is not later';
COMMENT ON COLUMN talkmeter.subscription.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.subscription.subscription_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.subscription.since IS 'In force from this instant on; -infinity: without beginning';
COMMENT ON COLUMN talkmeter.subscription.plan IS 'The plan; null: cancelled';
COMMENT ON COLUMN talkmeter.subscription.timezone IS 'The zone in whose midnights periods start';
COMMENT ON COLUMN talkmeter.subscription.anchor_day IS 'The day of the month on which periods start, clamped to the month''s last day';
COMMENT ON COLUMN talkmeter.subscription.policy IS 'The policy for this tenant, "name" or "name@version"; null: that of the source';
COMMENT ON COLUMN talkmeter.subscription.subscribed_at IS 'When it was recorded';
COMMENT ON COLUMN talkmeter.subscription.subscribed_by IS 'Who recorded it';
COMMENT ON COLUMN talkmeter.subscription.last_charge_id IS
    'The charge_id given last when it was recorded: the charges after it know it. A clock may step back, the ledger does not';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.subscription', '');

CREATE TABLE talkmeter.period (
    tenant text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    included_used bigint NOT NULL,
    pack_used bigint NOT NULL,
    overage_units bigint NOT NULL,
    overage_amount numeric NOT NULL,
    alerted text[] NOT NULL DEFAULT '{}',
    finalized_at timestamptz,
    finalized_by name,
    finalization bigint,
    last_charge_id bigint,
    last_subscription_id bigint,
    last_pack_id bigint,
    digest bytea,
    PRIMARY KEY (tenant, period_start, period_end)
) WITH (fillfactor = 50);
REVOKE ALL ON talkmeter.period FROM PUBLIC;
CREATE UNIQUE INDEX period_finalization ON talkmeter.period (tenant, finalization) WHERE finalization IS NOT NULL;
COMMENT ON TABLE talkmeter.period IS 'What each billing month has used so far, net; opened by the first charge that it pays or lists';
COMMENT ON COLUMN talkmeter.period.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.period.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.period.period_end IS 'First instant after the period';
COMMENT ON COLUMN talkmeter.period.included_used IS 'Units paid by the allowance';
COMMENT ON COLUMN talkmeter.period.pack_used IS 'Units paid by packs';
COMMENT ON COLUMN talkmeter.period.overage_units IS 'Units paid as overage';
COMMENT ON COLUMN talkmeter.period.overage_amount IS 'Sum of the rates of those units, exact';
COMMENT ON COLUMN talkmeter.period.alerted IS 'Kinds of the alerts that it has raised';
COMMENT ON COLUMN talkmeter.period.finalized_at IS 'When its statement was frozen; null: it is open';
COMMENT ON COLUMN talkmeter.period.finalized_by IS 'Who froze it';
COMMENT ON COLUMN talkmeter.period.finalization IS 'Counts the frozen statements of the tenant, in the order in which they were frozen';
COMMENT ON COLUMN talkmeter.period.last_charge_id IS 'The charge_id given last when it was frozen';
COMMENT ON COLUMN talkmeter.period.last_subscription_id IS 'The subscription_id given last when it was frozen';
COMMENT ON COLUMN talkmeter.period.last_pack_id IS 'The pack_id given last when it was frozen';
COMMENT ON COLUMN talkmeter.period.digest IS
    'The SHA-256 of its statement and its charges, chained to that of the statement that was frozen before: see talkmeter.evidence';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.period', '');

CREATE TABLE talkmeter.pack (
    tenant text COLLATE "C" NOT NULL,
    pack_id bigint NOT NULL,
    pack text COLLATE "C" NOT NULL,
    size bigint NOT NULL CHECK (size BETWEEN 1 AND 1000000000000),
    remaining bigint NOT NULL CHECK (remaining BETWEEN 0 AND size),
    -- NaN is greater than any number, so that a bound keeps it out.
    price numeric NOT NULL CHECK (price >= 0 AND price < 1000000000000),
    currency text NOT NULL,
    purchased_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    purchase_key text COLLATE "C" CHECK (pg_catalog.octet_length(purchase_key) <= 512),
    billed_at timestamptz NOT NULL,
    refunded_at timestamptz,
    refunded_by name,
    PRIMARY KEY (tenant, pack_id),
    UNIQUE (tenant, purchase_key),
    CHECK (purchased_at < expires_at),
    CHECK (purchased_at >= '0001-01-01 00:00+00' AND purchased_at < '10000-01-01 00:00+00'),
    CHECK (billed_at >= '0001-01-01 00:00+00' AND billed_at < '10000-01-01 00:00+00'),
    CHECK (refunded_at >= '0001-01-01 00:00+00' AND refunded_at < '10000-01-01 00:00+00')
) WITH (fillfactor = 50);
REVOKE ALL ON talkmeter.pack FROM PUBLIC;
COMMENT ON TABLE talkmeter.pack IS 'Packs that tenants bought; read them through the view packs';
COMMENT ON COLUMN talkmeter.pack.tenant IS 'The merchant who bought it';
COMMENT ON COLUMN talkmeter.pack.pack_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.pack.pack IS 'Name of the pack on offer';
COMMENT ON COLUMN talkmeter.pack.size IS 'Units bought';
COMMENT ON COLUMN talkmeter.pack.remaining IS 'Units left';
COMMENT ON COLUMN talkmeter.pack.price IS 'Price paid in the currency';
COMMENT ON COLUMN talkmeter.pack.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.pack.purchased_at IS 'First instant at which it pays';
COMMENT ON COLUMN talkmeter.pack.expires_at IS
    'First instant at which it pays no more, fixed at purchase; infinity: it does not expire';
COMMENT ON COLUMN talkmeter.pack.purchase_key IS 'The buyer''s own name of the purchase: the same key twice is one purchase';
COMMENT ON COLUMN talkmeter.pack.billed_at IS
    'The instant whose period''s statement lists it: that of the purchase, unless that period was finalized when it was recorded';
COMMENT ON COLUMN talkmeter.pack.refunded_at IS 'When it was taken back, unused; null: it was not';
COMMENT ON COLUMN talkmeter.pack.refunded_by IS 'Who took it back';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.pack', '');

-- Append-only: a correction is a new row that names what it corrects.
CREATE TABLE talkmeter.charge (
    tenant text COLLATE "C" NOT NULL,
    charge_id bigint NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    charged_at timestamptz NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    posted_period_start timestamptz NOT NULL,
    posted_period_end timestamptz NOT NULL,
    tier text NOT NULL,
    pack_id bigint,
    amount numeric NOT NULL,
    currency text NOT NULL,
    plan text COLLATE "C" NOT NULL,
    policy text COLLATE "C" NOT NULL,
    policy_version integer NOT NULL,
    outcome text COLLATE "C",
    reverses bigint,
    reason text,
    note text,
    posted_by name,
    cause_source text,
    cause_message_id text,
    cause_at timestamptz,
    posted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (tenant, charge_id)
);
REVOKE ALL ON talkmeter.charge FROM PUBLIC;
CREATE INDEX charge_part ON talkmeter.charge (tenant, conversation, part);
CREATE INDEX charge_credited ON talkmeter.charge (tenant, conversation, part) WHERE reason = 'credit';
CREATE INDEX charge_posted ON talkmeter.charge (tenant, posted_period_start);
CREATE UNIQUE INDEX charge_reverses ON talkmeter.charge (tenant, reverses) WHERE reverses IS NOT NULL;
CREATE INDEX charge_late ON talkmeter.charge (posted_at)
    WHERE reverses IS NULL AND posted_at - charged_at > interval '35 days';
COMMENT ON TABLE talkmeter.charge IS 'The ledger: one row per billed unit, and one per unit taken back';
COMMENT ON COLUMN talkmeter.charge.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.charge.charge_id IS 'Counts within the tenant without gaps, in the order of the ledger';
COMMENT ON COLUMN talkmeter.charge.conversation IS 'The conversation of the part';
COMMENT ON COLUMN talkmeter.charge.part IS 'The part that is billed';
COMMENT ON COLUMN talkmeter.charge.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.charge.period_start IS 'The period of the charge instant, whose allowance pays';
COMMENT ON COLUMN talkmeter.charge.period_end IS 'First instant after that period';
COMMENT ON COLUMN talkmeter.charge.posted_period_start IS 'The period whose statement lists it';
COMMENT ON COLUMN talkmeter.charge.posted_period_end IS 'First instant after that period: two may start together';
COMMENT ON COLUMN talkmeter.charge.tier IS 'Who paid: included, pack or overage';
COMMENT ON COLUMN talkmeter.charge.pack_id IS 'The pack that paid';
COMMENT ON COLUMN talkmeter.charge.amount IS
    '0 for included and pack, the rate of its outcome for overage, minus the original for a reversal';
COMMENT ON COLUMN talkmeter.charge.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.charge.plan IS 'The plan in force at the charge instant';
COMMENT ON COLUMN talkmeter.charge.policy IS 'The policy by which the part was judged';
COMMENT ON COLUMN talkmeter.charge.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.charge.outcome IS 'The outcome of the part; null: its policy names none';
COMMENT ON COLUMN talkmeter.charge.reverses IS 'The charge_id taken back; null for a charge';
COMMENT ON COLUMN talkmeter.charge.reason IS
    'Why it was taken back: refold if a late or changed event changed the part, voided if an event did it as the policy says, credit if somebody did; null for a charge';
COMMENT ON COLUMN talkmeter.charge.note IS 'What was said of a credit';
COMMENT ON COLUMN talkmeter.charge.posted_by IS
    'Who took it back: by a credit, or by the session that brought the late or changed event; null for a charge';
COMMENT ON COLUMN talkmeter.charge.cause_source IS
    'The table of the late or changed event for which it was taken back, as it was called at attach; null for a mark or a credit';
COMMENT ON COLUMN talkmeter.charge.cause_message_id IS 'The message id of that event, or the number of a mark';
COMMENT ON COLUMN talkmeter.charge.cause_at IS 'The time of that event: the earliest change within the part; of voided the event that took the unit back';
COMMENT ON COLUMN talkmeter.charge.posted_at IS 'When the row was written';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.charge', '');

CREATE VIEW talkmeter.posting AS
    SELECT c.*, CASE WHEN c.reverses IS NULL THEN 1 ELSE -1 END AS units
    FROM talkmeter.charge AS c;
REVOKE ALL ON talkmeter.posting FROM PUBLIC;
COMMENT ON VIEW talkmeter.posting IS 'The rows of the ledger with their sign: 1 for a unit billed, -1 for one taken back';

CREATE VIEW talkmeter.standing_charge AS
    SELECT c.*
    FROM talkmeter.charge AS c
    WHERE c.reverses IS NULL AND NOT EXISTS (
        SELECT FROM talkmeter.charge AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id);
REVOKE ALL ON talkmeter.standing_charge FROM PUBLIC;
COMMENT ON VIEW talkmeter.standing_charge IS 'Charges that no other row of the ledger takes back';

CREATE TABLE talkmeter.unplanned_unit (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    charged_at timestamptz NOT NULL,
    policy text COLLATE "C" NOT NULL,
    policy_version integer NOT NULL,
    outcome text COLLATE "C",
    PRIMARY KEY (tenant, conversation, part)
);
REVOKE ALL ON talkmeter.unplanned_unit FROM PUBLIC;
COMMENT ON TABLE talkmeter.unplanned_unit IS 'Billable units at whose instant the tenant had no plan: they wait for subscribe';
COMMENT ON COLUMN talkmeter.unplanned_unit.tenant IS 'The merchant who will be billed';
COMMENT ON COLUMN talkmeter.unplanned_unit.conversation IS 'The conversation of the part';
COMMENT ON COLUMN talkmeter.unplanned_unit.part IS 'The billable part';
COMMENT ON COLUMN talkmeter.unplanned_unit.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.unplanned_unit.policy IS 'The policy by which the part was judged';
COMMENT ON COLUMN talkmeter.unplanned_unit.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.unplanned_unit.outcome IS 'The outcome of the part; null: its policy names none';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.unplanned_unit', '');

CREATE TABLE talkmeter.day_units (
    tenant text COLLATE "C" NOT NULL,
    day date NOT NULL,
    units bigint NOT NULL,
    PRIMARY KEY (tenant, day)
) WITH (fillfactor = 50);
REVOKE ALL ON talkmeter.day_units FROM PUBLIC;
COMMENT ON TABLE talkmeter.day_units IS 'Net units of each local day, by charge instant';
COMMENT ON COLUMN talkmeter.day_units.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.day_units.day IS 'The day in the zone of the tenant''s subscription at the charge instant';
COMMENT ON COLUMN talkmeter.day_units.units IS 'Charges less reversals';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.day_units', '');

CREATE TABLE talkmeter.threshold (
    kind text COLLATE "C" PRIMARY KEY CHECK (kind ~ '^[a-z0-9_]{1,63}$'),
    percent bigint NOT NULL CHECK (percent > 0),
    shipped boolean NOT NULL DEFAULT false
);
REVOKE ALL ON talkmeter.threshold FROM PUBLIC;
COMMENT ON TABLE talkmeter.threshold IS 'Shares of the allowance at which a tenant is told';
COMMENT ON COLUMN talkmeter.threshold.kind IS 'The kind of the alert';
COMMENT ON COLUMN talkmeter.threshold.percent IS 'Net units of the period, in percent of those included';
COMMENT ON COLUMN talkmeter.threshold.shipped IS 'Comes with the extension, so it is not dumped';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.threshold', 'WHERE NOT shipped');
INSERT INTO talkmeter.threshold (kind, percent, shipped) VALUES ('allowance_80', 80, true), ('allowance_100', 100, true);
CREATE TRIGGER journal_row AFTER INSERT OR UPDATE OR DELETE ON talkmeter.threshold
    FOR EACH ROW EXECUTE FUNCTION talkmeter.journal_row();
CREATE TRIGGER journal_truncate AFTER TRUNCATE ON talkmeter.threshold
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.journal_row();

CREATE TABLE talkmeter.alert (
    tenant text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    kind text COLLATE "C" NOT NULL,
    day date NOT NULL DEFAULT '-infinity',
    fired_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    detail text NOT NULL,
    muted boolean NOT NULL DEFAULT false,
    notified_at timestamptz,
    PRIMARY KEY (tenant, period_start, period_end, kind, day)
);
REVOKE ALL ON talkmeter.alert FROM PUBLIC;
CREATE INDEX alert_unsent ON talkmeter.alert (fired_at) WHERE notified_at IS NULL AND NOT muted;
COMMENT ON TABLE talkmeter.alert IS 'What tenants were, or are to be, told of their usage: each kind once per period';
COMMENT ON COLUMN talkmeter.alert.tenant IS 'The merchant who is told';
COMMENT ON COLUMN talkmeter.alert.period_start IS 'First instant of the period of the charge instant';
COMMENT ON COLUMN talkmeter.alert.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.alert.kind IS 'That of a threshold, pack_low, volume_spike or reconcile';
COMMENT ON COLUMN talkmeter.alert.day IS 'The flagged day of reconcile; -infinity for alerts that are raised once per period';
COMMENT ON COLUMN talkmeter.alert.fired_at IS 'When the charge that raised it was posted';
COMMENT ON COLUMN talkmeter.alert.detail IS 'The numbers behind it';
COMMENT ON COLUMN talkmeter.alert.muted IS 'Never sent';
COMMENT ON COLUMN talkmeter.alert.notified_at IS 'When a sweep sent it; null: not yet';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.alert', '');
-- What is backfilled, and what was counted without being charged.

CREATE TABLE talkmeter.backfill_run (
    source_id integer PRIMARY KEY,
    from_time timestamptz NOT NULL,
    until_time timestamptz NOT NULL,
    charges boolean NOT NULL,
    stage text NOT NULL CHECK (stage IN ('counting', 'posting', 'closing')),
    after_tenant text COLLATE "C",
    after_conversation text COLLATE "C",
    conversations bigint NOT NULL DEFAULT 0,
    started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    started_by name NOT NULL DEFAULT SESSION_USER
);
REVOKE ALL ON talkmeter.backfill_run FROM PUBLIC;
COMMENT ON TABLE talkmeter.backfill_run IS 'How far a backfill has come that is under way, or was interrupted; it goes on from here';
COMMENT ON COLUMN talkmeter.backfill_run.source_id IS 'The table';
COMMENT ON COLUMN talkmeter.backfill_run.from_time IS 'Rows of this time or later are metered';
COMMENT ON COLUMN talkmeter.backfill_run.until_time IS 'Rows of this time or later are not';
COMMENT ON COLUMN talkmeter.backfill_run.charges IS 'Whether the units that it finds are charged';
COMMENT ON COLUMN talkmeter.backfill_run.stage IS
    'counting: parts are made; posting: their units are charged, in the order of their instants; closing: whoever worked while it did is waited for';
COMMENT ON COLUMN talkmeter.backfill_run.after_tenant IS 'The tenant of the last conversation that was counted, in the order of keys';
COMMENT ON COLUMN talkmeter.backfill_run.after_conversation IS 'That conversation';
COMMENT ON COLUMN talkmeter.backfill_run.conversations IS 'How many conversations were counted';
COMMENT ON COLUMN talkmeter.backfill_run.started_at IS 'When it was begun';
COMMENT ON COLUMN talkmeter.backfill_run.started_by IS 'Who began it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.backfill_run', '');

CREATE TABLE talkmeter.uncharged_span (
    source_id integer NOT NULL,
    from_time timestamptz NOT NULL,
    until_time timestamptz NOT NULL,
    PRIMARY KEY (source_id, from_time)
);
REVOKE ALL ON talkmeter.uncharged_span FROM PUBLIC;
COMMENT ON TABLE talkmeter.uncharged_span IS 'Spans of time that were backfilled without being charged: units whose instants lie within wait';
COMMENT ON COLUMN talkmeter.uncharged_span.source_id IS 'The table';
COMMENT ON COLUMN talkmeter.uncharged_span.from_time IS 'First instant of the span';
COMMENT ON COLUMN talkmeter.uncharged_span.until_time IS 'First instant after it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.uncharged_span', '');

CREATE TABLE talkmeter.uncharged_unit (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    charged_at timestamptz NOT NULL,
    policy text COLLATE "C" NOT NULL,
    policy_version integer NOT NULL,
    outcome text COLLATE "C",
    default_plan text COLLATE "C",
    source_id integer NOT NULL,
    span_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, conversation, part)
);
REVOKE ALL ON talkmeter.uncharged_unit FROM PUBLIC;
CREATE INDEX uncharged_unit_due ON talkmeter.uncharged_unit (source_id, tenant, charged_at);
COMMENT ON TABLE talkmeter.uncharged_unit IS 'Billable units that wait for a backfill to charge them';
COMMENT ON COLUMN talkmeter.uncharged_unit.tenant IS 'The merchant who will be billed';
COMMENT ON COLUMN talkmeter.uncharged_unit.conversation IS 'The conversation of the part';
COMMENT ON COLUMN talkmeter.uncharged_unit.part IS 'The billable part';
COMMENT ON COLUMN talkmeter.uncharged_unit.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.uncharged_unit.policy IS 'The policy by which the part was judged';
COMMENT ON COLUMN talkmeter.uncharged_unit.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.uncharged_unit.outcome IS 'The outcome of the part; null: its policy names none';
COMMENT ON COLUMN talkmeter.uncharged_unit.default_plan IS 'The plan to which its source subscribes a tenant that has none';
COMMENT ON COLUMN talkmeter.uncharged_unit.source_id IS 'The table whose backfill charges it';
COMMENT ON COLUMN talkmeter.uncharged_unit.span_at IS
    'By which instant it belongs to a span: its own, or if the span ends before that, the last within';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.uncharged_unit', '');

CREATE VIEW talkmeter.waiting_unit AS
    SELECT u.tenant, u.conversation, u.part, u.charged_at, u.policy, u.policy_version, u.outcome FROM talkmeter.unplanned_unit AS u
    UNION ALL
    SELECT u.tenant, u.conversation, u.part, u.charged_at, u.policy, u.policy_version, u.outcome FROM talkmeter.uncharged_unit AS u;
REVOKE ALL ON talkmeter.waiting_unit FROM PUBLIC;
COMMENT ON VIEW talkmeter.waiting_unit IS 'Billable units that are not charged yet: they wait for a plan or for a backfill';
-- Where do the parts, charges and marks of old periods go? Into tables that inherit: whoever reads the first reads both.

CREATE SCHEMA talkmeter_archive;
COMMENT ON SCHEMA talkmeter_archive IS
    'What talkmeter.archive has moved aside of finalized periods; the tables of schema talkmeter show it too';

CREATE TABLE talkmeter_archive.ended_part (
    PRIMARY KEY (tenant, conversation, part)
) INHERITS (talkmeter.ended_part);
REVOKE ALL ON talkmeter_archive.ended_part FROM PUBLIC;
COMMENT ON TABLE talkmeter_archive.ended_part IS 'Parts that ended in finalized periods, moved here by archive';
SELECT pg_catalog.pg_extension_config_dump('talkmeter_archive.ended_part', '');

CREATE TABLE talkmeter_archive.marked (
    PRIMARY KEY (tenant, conversation, mark)
) INHERITS (talkmeter.marked);
REVOKE ALL ON talkmeter_archive.marked FROM PUBLIC;
COMMENT ON TABLE talkmeter_archive.marked IS 'Marks of finalized periods, moved here by archive';
SELECT pg_catalog.pg_extension_config_dump('talkmeter_archive.marked', '');

-- The same indexes as those of talkmeter.charge: a report finds its rows in either. No part of a credit that is here is charged
-- before its conversation has been fetched back.
CREATE TABLE talkmeter_archive.charge (
    PRIMARY KEY (tenant, charge_id)
) INHERITS (talkmeter.charge);
REVOKE ALL ON talkmeter_archive.charge FROM PUBLIC;
CREATE INDEX charge_part ON talkmeter_archive.charge (tenant, conversation, part);
CREATE INDEX charge_posted ON talkmeter_archive.charge (tenant, posted_period_start);
CREATE UNIQUE INDEX charge_reverses ON talkmeter_archive.charge (tenant, reverses) WHERE reverses IS NOT NULL;
CREATE INDEX charge_late ON talkmeter_archive.charge (posted_at)
    WHERE reverses IS NULL AND posted_at - charged_at > interval '35 days';
COMMENT ON TABLE talkmeter_archive.charge IS 'Entries of the ledger that finalized statements list, moved here by archive';
SELECT pg_catalog.pg_extension_config_dump('talkmeter_archive.charge', '');

-- A column means here what it means there.
DO $$
    DECLARE
        own record;
    BEGIN
        FOR own IN
            SELECT h.inhrelid::regclass AS heir, a.attname, pg_catalog.col_description(a.attrelid, a.attnum) AS comment
            FROM pg_catalog.pg_inherits AS h
            JOIN pg_catalog.pg_class AS c ON c.oid = h.inhrelid AND c.relnamespace = 'talkmeter_archive'::regnamespace
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = h.inhparent AND a.attnum > 0
        LOOP
            EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', own.heir, own.attname, own.comment);
        END LOOP;
    END
$$;

CREATE PROCEDURE talkmeter.archive(before timestamptz, batch integer DEFAULT 500)
    LANGUAGE c AS 'MODULE_PATHNAME', 'archive';
REVOKE ALL ON PROCEDURE talkmeter.archive(timestamptz, integer) FROM PUBLIC;
COMMENT ON PROCEDURE talkmeter.archive(timestamptz, integer) IS
    'Moves the ended parts, charges and marks of finalized periods that ended by then into schema talkmeter_archive; every view and function still shows them. Commits after so many conversations, and passes over those that somebody has locked. Not within a transaction';
-- Who does not agree with a charge, what was counted otherwise, and what was billed in the end.

-- Filled by its users.
CREATE TABLE talkmeter.holidays (
    day date PRIMARY KEY CHECK (day BETWEEN '0001-01-01' AND '9999-12-31'),
    name text NOT NULL CHECK (pg_catalog.octet_length(name) <= 512)
);
REVOKE ALL ON talkmeter.holidays FROM PUBLIC;
COMMENT ON TABLE talkmeter.holidays IS 'Days from Monday to Friday that are no business days: insert yours';
COMMENT ON COLUMN talkmeter.holidays.day IS 'The day';
COMMENT ON COLUMN talkmeter.holidays.name IS 'What it is called';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.holidays', '');
CREATE TRIGGER journal_row AFTER INSERT OR UPDATE OR DELETE ON talkmeter.holidays
    FOR EACH ROW EXECUTE FUNCTION talkmeter.journal_row();
CREATE TRIGGER journal_truncate AFTER TRUNCATE ON talkmeter.holidays
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.journal_row();

CREATE TABLE talkmeter.dispute_count (
    tenant text COLLATE "C" PRIMARY KEY,
    last_dispute_id bigint NOT NULL DEFAULT 0
);
REVOKE ALL ON talkmeter.dispute_count FROM PUBLIC;
COMMENT ON TABLE talkmeter.dispute_count IS
    'One row per tenant: whoever files or resolves a dispute, or credits a charge, locks it first; messages never wait for it';
COMMENT ON COLUMN talkmeter.dispute_count.tenant IS 'The merchant who disputes';
COMMENT ON COLUMN talkmeter.dispute_count.last_dispute_id IS 'The dispute_id given last; they leave no gaps';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.dispute_count', '');

CREATE TABLE talkmeter.dispute_filed (
    tenant text COLLATE "C" NOT NULL,
    dispute_id bigint NOT NULL CHECK (dispute_id > 0),
    charge_id bigint NOT NULL,
    reason text NOT NULL,
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'credited', 'rejected')),
    filed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    filed_by name NOT NULL DEFAULT SESSION_USER,
    due_at timestamptz NOT NULL,
    note text,
    resolved_at timestamptz,
    resolved_by name,
    PRIMARY KEY (tenant, dispute_id),
    CHECK ((state = 'open') = (resolved_at IS NULL))
);
REVOKE ALL ON talkmeter.dispute_filed FROM PUBLIC;
CREATE UNIQUE INDEX dispute_open ON talkmeter.dispute_filed (tenant, charge_id) WHERE state = 'open';
COMMENT ON TABLE talkmeter.dispute_filed IS 'Disputes; read them through the view disputes';
COMMENT ON COLUMN talkmeter.dispute_filed.tenant IS 'The merchant who disputes';
COMMENT ON COLUMN talkmeter.dispute_filed.dispute_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.dispute_filed.charge_id IS 'The charge';
COMMENT ON COLUMN talkmeter.dispute_filed.reason IS 'What the merchant says';
COMMENT ON COLUMN talkmeter.dispute_filed.state IS 'open, credited or rejected';
COMMENT ON COLUMN talkmeter.dispute_filed.filed_at IS 'When it was filed';
COMMENT ON COLUMN talkmeter.dispute_filed.filed_by IS 'Who filed it';
COMMENT ON COLUMN talkmeter.dispute_filed.due_at IS 'The end of the 10th business day after the day of filing, in the tenant''s zone';
COMMENT ON COLUMN talkmeter.dispute_filed.note IS 'What was said when it was resolved';
COMMENT ON COLUMN talkmeter.dispute_filed.resolved_at IS 'When it was resolved';
COMMENT ON COLUMN talkmeter.dispute_filed.resolved_by IS 'Who resolved it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.dispute_filed', '');

CREATE TABLE talkmeter.statement_line (
    tenant text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    line integer NOT NULL CHECK (line > 0),
    kind text NOT NULL,
    of_period_start timestamptz,
    description text NOT NULL,
    quantity bigint NOT NULL,
    unit_price numeric CHECK (abs(unit_price) < 1000000000000),
    amount numeric NOT NULL CHECK (abs(amount) < 1e27),
    currency text NOT NULL,
    PRIMARY KEY (tenant, period_start, period_end, line)
);
REVOKE ALL ON talkmeter.statement_line FROM PUBLIC;
COMMENT ON TABLE talkmeter.statement_line IS 'The lines of finalized statements; read them through the function statement';
COMMENT ON COLUMN talkmeter.statement_line.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.statement_line.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.statement_line.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.statement_line.line IS 'Place on the statement';
COMMENT ON COLUMN talkmeter.statement_line.kind IS 'base, included, pack, pack_refund, overage, late or credit';
COMMENT ON COLUMN talkmeter.statement_line.of_period_start IS 'The period that a late charge or a credit belongs to';
COMMENT ON COLUMN talkmeter.statement_line.description IS 'What it is for';
COMMENT ON COLUMN talkmeter.statement_line.quantity IS 'How many';
COMMENT ON COLUMN talkmeter.statement_line.unit_price IS 'Price of one, exact; null where units of several prices are meant';
COMMENT ON COLUMN talkmeter.statement_line.amount IS 'Rounded once, half away from zero, to the currency''s digits';
COMMENT ON COLUMN talkmeter.statement_line.currency IS 'ISO 4217 code';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.statement_line', '');

CREATE TABLE talkmeter.external_count (
    tenant text COLLATE "C" NOT NULL,
    day date NOT NULL,
    units bigint NOT NULL CHECK (units >= 0),
    reported_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    reported_by name NOT NULL DEFAULT SESSION_USER,
    PRIMARY KEY (tenant, day)
);
REVOKE ALL ON talkmeter.external_count FROM PUBLIC;
COMMENT ON TABLE talkmeter.external_count IS 'What somebody else has counted';
COMMENT ON COLUMN talkmeter.external_count.tenant IS 'The merchant';
COMMENT ON COLUMN talkmeter.external_count.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.external_count.units IS 'The units';
COMMENT ON COLUMN talkmeter.external_count.reported_at IS 'When it was reported';
COMMENT ON COLUMN talkmeter.external_count.reported_by IS 'Who reported it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.external_count', '');

CREATE TABLE talkmeter.reconciliation (
    tenant text COLLATE "C" NOT NULL,
    day date NOT NULL,
    charged bigint NOT NULL,
    recounted bigint NOT NULL,
    unprovable bigint NOT NULL,
    external bigint,
    flagged boolean NOT NULL,
    reconciled_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    reviewed_by name,
    reviewed_at timestamptz,
    PRIMARY KEY (tenant, day)
);
REVOKE ALL ON talkmeter.reconciliation FROM PUBLIC;
COMMENT ON TABLE talkmeter.reconciliation IS 'Days that were reconciled; read them through the view reconciliations';
COMMENT ON COLUMN talkmeter.reconciliation.tenant IS 'The merchant';
COMMENT ON COLUMN talkmeter.reconciliation.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.reconciliation.charged IS 'Charges less reversals by charge instant, credits aside';
COMMENT ON COLUMN talkmeter.reconciliation.recounted IS 'Units that the messages which are there now give';
COMMENT ON COLUMN talkmeter.reconciliation.unprovable IS 'Charged units of conversations of which rows are gone';
COMMENT ON COLUMN talkmeter.reconciliation.external IS 'What was reported; null: nothing';
COMMENT ON COLUMN talkmeter.reconciliation.flagged IS 'Two of charged, recounted plus unprovable, and external are more than 5 % apart';
COMMENT ON COLUMN talkmeter.reconciliation.reconciled_at IS 'When it was counted last';
COMMENT ON COLUMN talkmeter.reconciliation.reviewed_by IS 'Who has looked at it';
COMMENT ON COLUMN talkmeter.reconciliation.reviewed_at IS 'When; null again if the counts have changed since';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.reconciliation', '');
-- What is left of a conversation that the books were told to forget?

-- The evidence of a frozen statement names each charge's conversation by a digest. Of one that was forgotten the digest is all that is left.
CREATE TABLE talkmeter.forgotten_subject (
    tenant text COLLATE "C" NOT NULL,
    charge_id bigint NOT NULL,
    digest bytea NOT NULL,
    PRIMARY KEY (tenant, charge_id)
);
REVOKE ALL ON talkmeter.forgotten_subject FROM PUBLIC;
COMMENT ON TABLE talkmeter.forgotten_subject IS
    'Charges of frozen statements whose conversation was forgotten: with the digest of what it was called, their evidence stays what it was';
COMMENT ON COLUMN talkmeter.forgotten_subject.tenant IS 'The merchant who was billed';
COMMENT ON COLUMN talkmeter.forgotten_subject.charge_id IS 'The charge';
COMMENT ON COLUMN talkmeter.forgotten_subject.digest IS 'The SHA-256 of the subject in its evidence';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.forgotten_subject', '');

CREATE TABLE talkmeter.forgetting (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, conversation)
);
REVOKE ALL ON talkmeter.forgetting FROM PUBLIC;
COMMENT ON TABLE talkmeter.forgetting IS
    'Conversations that the transaction which wrote the row forgets when it commits: it removes the row then, so that nobody else ever sees one';
COMMENT ON COLUMN talkmeter.forgetting.tenant IS 'The merchant';
COMMENT ON COLUMN talkmeter.forgetting.conversation IS 'The conversation';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.forgetting', '');

CREATE FUNCTION talkmeter.forget_noted() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'forget_noted_wrapper';
REVOKE ALL ON FUNCTION talkmeter.forget_noted() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.forget_noted() IS 'Forgets the conversations that this transaction has noted in talkmeter.forgetting';

CREATE FUNCTION talkmeter.forget_at_commit() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            PERFORM talkmeter.forget_noted();
            RETURN NULL;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.forget_at_commit() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.forget_at_commit() IS 'Trigger of talkmeter.forgetting: calls forget_noted when the transaction commits';
CREATE CONSTRAINT TRIGGER forget_at_commit AFTER INSERT ON talkmeter.forgetting
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION talkmeter.forget_at_commit();
-- No row outlives its transaction, whatever role the session plays in replication.
ALTER TABLE talkmeter.forgetting ENABLE ALWAYS TRIGGER forget_at_commit;

CREATE FUNCTION talkmeter.forget_conversation(tenant text, conversation text) RETURNS text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'forget_conversation_wrapper';
REVOKE ALL ON FUNCTION talkmeter.forget_conversation(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.forget_conversation(text, text) IS
    'Replaces the id of a conversation whose messages are deleted, and the ids of its messages, wherever the books hold them, and returns what stands there now. Charges, statements and evidence stay provable';

CREATE FUNCTION talkmeter.forget_customer(tenant text, customer text) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'forget_customer_wrapper';
REVOKE ALL ON FUNCTION talkmeter.forget_customer(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.forget_customer(text, text) IS
    'Finds the conversations in which attached tables name a customer, returns them, and has them forgotten when the transaction commits: delete their messages in it';
-- What the DBA and the application call.

CREATE FUNCTION talkmeter.on_insert() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_insert';
REVOKE ALL ON FUNCTION talkmeter.on_insert() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_insert() IS
    'Trigger of attached tables: notes the events of inserted rows. Refuses tables that attach does not know';

CREATE FUNCTION talkmeter.on_update() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_update';
REVOKE ALL ON FUNCTION talkmeter.on_update() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_update() IS
    'Trigger of attached tables: notes the events of rows before and after a change of a mapped column';

CREATE FUNCTION talkmeter.on_delete() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_delete';
REVOKE ALL ON FUNCTION talkmeter.on_delete() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_delete() IS
    'Trigger of attached tables: forgets the events of rows that the same transaction had inserted; what was metered stays';

CREATE FUNCTION talkmeter.on_truncate() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_truncate';
REVOKE ALL ON FUNCTION talkmeter.on_truncate() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_truncate() IS
    'Trigger of attached tables: forgets the events of rows that the same transaction had inserted; what was metered stays';

CREATE FUNCTION talkmeter.on_status_insert() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_status_insert';
REVOKE ALL ON FUNCTION talkmeter.on_status_insert() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_status_insert() IS 'Trigger of status tables: marks conversations that are inserted as ended';

CREATE FUNCTION talkmeter.on_status_update() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'on_status_update';
REVOKE ALL ON FUNCTION talkmeter.on_status_update() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_status_update() IS 'Trigger of status tables: marks conversations whose status has changed';

CREATE FUNCTION talkmeter.look_up() RETURNS trigger
    LANGUAGE c AS 'MODULE_PATHNAME', 'look_up';
REVOKE ALL ON FUNCTION talkmeter.look_up() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.look_up() IS
    'BEFORE INSERT trigger for an application''s own table: fills a column with what another table knows. Arguments: column to fill, own column, then for each table to look into its name, its key and its value';

CREATE FUNCTION talkmeter.refuse_restore_with_triggers() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            -- The triggers know a restore by what pg_dump and pg_restore set.
            IF current_setting('check_function_bodies')::boolean AND EXISTS (
                SELECT FROM pg_trigger AS t
                WHERE t.tgfoid IN ('talkmeter.on_insert'::regproc, 'talkmeter.on_status_insert'::regproc) AND t.tgenabled <> 'D'
                    AND t.tgrelid IN (SELECT NEW.relation UNION ALL SELECT p.relid FROM pg_partition_tree(NEW.relation) AS p)
            ) THEN
                RAISE EXCEPTION 'the table % has a trigger of talkmeter''s already', NEW.relation
                    USING ERRCODE = 'object_not_in_prerequisite_state',
                        DETAIL = 'Its rows would be metered again while they are restored.',
                        HINT = 'Restore schema and data in one pass, or the data with --disable-triggers.';
            END IF;
            RETURN NEW;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.refuse_restore_with_triggers() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.refuse_restore_with_triggers() IS
    'Trigger of talkmeter.source: a restore of data alone, with triggers on, would meter old messages again';
CREATE TRIGGER refuse_restore_with_triggers BEFORE INSERT ON talkmeter.source
    FOR EACH ROW EXECUTE FUNCTION talkmeter.refuse_restore_with_triggers();

CREATE FUNCTION talkmeter.attach(source regclass, policy text, mapping jsonb, default_plan text DEFAULT NULL,
        dry_run boolean DEFAULT false, strict boolean DEFAULT false, since timestamptz DEFAULT NULL, row_mode boolean DEFAULT false)
    RETURNS TABLE (message_id text, tenant text, conversation text, occurred_at timestamptz, kind text, excluded text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'attach_wrapper';
REVOKE ALL ON FUNCTION talkmeter.attach(regclass, text, jsonb, text, boolean, boolean, timestamptz, boolean) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.attach(regclass, text, jsonb, text, boolean, boolean, timestamptz, boolean) IS
    'Meters a message table from now on. With dry_run: changes nothing, returns its first 20 rows with the events each would give. With strict: a row that cannot be metered raises an error. With since: rows that are there already, of that time or later, wait for the backfill that a notice names. With row_mode: fires per row, also while logical replication applies it. Needs ownership of the table';

CREATE FUNCTION talkmeter.adopt_partitions(source regclass) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'adopt_partitions_wrapper';
REVOKE ALL ON FUNCTION talkmeter.adopt_partitions(regclass) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.adopt_partitions(regclass) IS
    'Gives the partitions of an attached table the triggers that they lack, as the sweep does';

CREATE FUNCTION talkmeter.remap(source regclass, mapping jsonb, policy text DEFAULT NULL, default_plan text DEFAULT NULL,
        strict boolean DEFAULT NULL, since timestamptz DEFAULT NULL, dry_run boolean DEFAULT false)
    RETURNS TABLE (before text, after text, rows bigint, conversations bigint, parts bigint, charges bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'remap_wrapper';
REVOKE ALL ON FUNCTION talkmeter.remap(regclass, jsonb, text, text, boolean, timestamptz, boolean) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.remap(regclass, jsonb, text, text, boolean, timestamptz, boolean) IS
    'Maps an attached message table anew, for rows of since or later; by default since the oldest row that waits in quarantine for a rule or a column, else from now on. Meters again what is read otherwise, and what waited. With dry_run: changes nothing, returns how rows are read before and after, and how many parts and charges would change. Needs ownership of the table';

CREATE FUNCTION talkmeter.detach(source regclass) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'detach_wrapper';
REVOKE ALL ON FUNCTION talkmeter.detach(regclass) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.detach(regclass) IS
    'Stops metering a table; what was metered stays. Needs ownership of the table';

CREATE FUNCTION talkmeter.attach_status(source regclass, mapping jsonb)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'attach_status_wrapper';
REVOKE ALL ON FUNCTION talkmeter.attach_status(regclass, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.attach_status(regclass, jsonb) IS
    'From now on marks a conversation when its status column changes. Mapping: "status" (an object from value to kind), "column" (that of the status), "tenant", "conversation", "occurred_at". Needs ownership of the table';

CREATE FUNCTION talkmeter.mark(tenant text, conversation text, kind text, at timestamptz DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'mark_wrapper';
REVOKE ALL ON FUNCTION talkmeter.mark(text, text, text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.mark(text, text, text, timestamptz) IS
    'Records an event for which the application has no row: any kind but customer_message, ai_reply and staff_reply. It counts when the transaction commits; without "at" it is of this moment';

CREATE FUNCTION talkmeter.retry_quarantine() RETURNS bigint
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'retry_quarantine_wrapper';
REVOKE ALL ON FUNCTION talkmeter.retry_quarantine() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.retry_quarantine() IS
    'Meters the rows of quarantine that can now be metered, and returns how many left it';

CREATE FUNCTION talkmeter.flush() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'flush_wrapper';
REVOKE ALL ON FUNCTION talkmeter.flush() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.flush() IS
    'Folds and charges this transaction''s rows now instead of at commit; holds their conversations and tenants until the transaction ends';

CREATE FUNCTION talkmeter.sweep(as_of timestamptz DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'sweep_wrapper';
REVOKE ALL ON FUNCTION talkmeter.sweep(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.sweep(timestamptz) IS
    'Ends every part that time has ended by as_of, or by now, stamped with its logical end, and returns how many';

CREATE PROCEDURE talkmeter.sweep_batches(as_of timestamptz DEFAULT NULL,
        batch integer DEFAULT 1000)
    LANGUAGE c AS 'MODULE_PATHNAME', 'sweep_batches';
REVOKE ALL ON PROCEDURE talkmeter.sweep_batches(timestamptz, integer) FROM PUBLIC;
COMMENT ON PROCEDURE talkmeter.sweep_batches(timestamptz, integer) IS
    'Does what sweep does and commits after so many conversations: to catch up when much is due. Not within a transaction';

CREATE FUNCTION talkmeter.start_worker() RETURNS TABLE (started boolean, pid integer)
    LANGUAGE c VOLATILE PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'start_worker_wrapper';
REVOKE ALL ON FUNCTION talkmeter.start_worker() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.start_worker() IS
    'Starts a worker that sweeps and reconciles this database until the server restarts, unless one does; returns whether it was started, and the process that runs';

CREATE FUNCTION talkmeter.define_policy(definition jsonb) RETURNS integer
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'define_policy_wrapper';
REVOKE ALL ON FUNCTION talkmeter.define_policy(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.define_policy(jsonb) IS
    'Adds a policy, or the next version of one, and returns its version. Keys: the columns of talkmeter.policies but policy_version';

CREATE FUNCTION talkmeter.define_plan(definition jsonb) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'define_plan_wrapper';
REVOKE ALL ON FUNCTION talkmeter.define_plan(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.define_plan(jsonb) IS
    'Adds a plan. Keys: name, included (units per period), overage_rate (per unit), rates (per unit, by outcome, may be left out), price (per period, may be left out), currency';

CREATE FUNCTION talkmeter.define_pack(definition jsonb) RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'define_pack_wrapper';
REVOKE ALL ON FUNCTION talkmeter.define_pack(jsonb) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.define_pack(jsonb) IS
    'Adds a pack on offer. Keys: name, size (units), price, currency, valid_for (an interval of days or less; period: to the end of the billing month of the purchase; never)';

CREATE FUNCTION talkmeter.subscribe(tenant text, plan text, since timestamptz DEFAULT NULL,
        timezone text DEFAULT 'UTC', anchor_day integer DEFAULT NULL, policy text DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'subscribe_wrapper';
REVOKE ALL ON FUNCTION talkmeter.subscribe(text, text, timestamptz, text, integer, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.subscribe(text, text, timestamptz, text, integer, text) IS
    'Puts a tenant on a plan from since on, posts the units that waited for it, and returns the subscription_id';

CREATE FUNCTION talkmeter.buy_pack(tenant text, pack text, purchase_key text DEFAULT NULL,
        purchased_at timestamptz DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'buy_pack_wrapper';
REVOKE ALL ON FUNCTION talkmeter.buy_pack(text, text, text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.buy_pack(text, text, text, timestamptz) IS
    'Records the purchase of a pack and returns its pack_id; the same purchase_key twice is one purchase';

CREATE FUNCTION talkmeter.refund_pack(tenant text, pack_id bigint) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'refund_pack_wrapper';
REVOKE ALL ON FUNCTION talkmeter.refund_pack(text, bigint) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.refund_pack(text, bigint) IS
    'Takes back a pack of which no unit was used: it pays no more, and its price is on no statement';

CREATE FUNCTION talkmeter.change_plan(tenant text, plan text, at timestamptz DEFAULT NULL)
    RETURNS timestamptz
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'change_plan_wrapper';
REVOKE ALL ON FUNCTION talkmeter.change_plan(text, text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.change_plan(text, text, timestamptz) IS
    'Puts a tenant on another plan and returns from when on: an upgrade (more included units, or as many at lower rates, in the same currency) at once, anything else from the next period on. The last change wins';

CREATE FUNCTION talkmeter.cancel(tenant text, at timestamptz DEFAULT NULL) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'cancel_wrapper';
REVOKE ALL ON FUNCTION talkmeter.cancel(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.cancel(text, timestamptz) IS
    'Takes a tenant off its plan from an instant on: its units wait in talkmeter.unplanned, its packs stay';

CREATE FUNCTION talkmeter.set_alert_channel(tenant text, channel text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'set_alert_channel_wrapper';
REVOKE ALL ON FUNCTION talkmeter.set_alert_channel(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.set_alert_channel(text, text) IS
    'Sets what the notifications of a tenant carry as its channel; null: nothing';

CREATE FUNCTION talkmeter.period_at(tenant text, at timestamptz)
    RETURNS TABLE (period_start timestamptz, period_end timestamptz)
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'period_at_wrapper';
REVOKE ALL ON FUNCTION talkmeter.period_at(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.period_at(text, timestamptz) IS
    'The billing month of a tenant that holds an instant; no row if it had no subscription by then';

CREATE FUNCTION talkmeter.local_day(tenant text, at timestamptz, charge_id bigint DEFAULT NULL) RETURNS date
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'local_day_wrapper';
REVOKE ALL ON FUNCTION talkmeter.local_day(text, timestamptz, bigint) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.local_day(text, timestamptz, bigint) IS
    'The day of a tenant that holds an instant, by the subscriptions that were made before an entry of its ledger; null: by all';

CREATE FUNCTION talkmeter.period_name(tenant text, period_start timestamptz, period_end timestamptz) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'period_name_wrapper';
REVOKE ALL ON FUNCTION talkmeter.period_name(text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.period_name(text, timestamptz, timestamptz) IS
    'What a billing month of a tenant is called: the year and month of its first local day, as 2026-03';

CREATE FUNCTION talkmeter.currency_digits(currency text) RETURNS integer
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'currency_digits_wrapper';
REVOKE ALL ON FUNCTION talkmeter.currency_digits(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.currency_digits(text) IS 'Digits after the point of a currency, by its ISO 4217 code';

CREATE FUNCTION talkmeter.conversation_key(VARIADIC parts text[]) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'conversation_key_wrapper';
REVOKE ALL ON FUNCTION talkmeter.conversation_key(text[]) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.conversation_key(text[]) IS
    'The conversation, or the message id, that several columns make: what they hold, joined by /, with %25 for % and %2F for / in it; null if one is null';

CREATE FUNCTION talkmeter.credit(tenant text, charge_id bigint, note text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'credit_wrapper';
REVOKE ALL ON FUNCTION talkmeter.credit(text, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.credit(text, bigint, text) IS
    'Takes back a charge by hand and returns the charge_id of the entry that does: the unit goes back to its tier and pack, and its part is never charged again';

CREATE FUNCTION talkmeter.dispute(tenant text, charge_id bigint, reason text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'dispute_wrapper';
REVOKE ALL ON FUNCTION talkmeter.dispute(text, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.dispute(text, bigint, text) IS
    'Files a dispute about a charge and returns its dispute_id; due at the end of the 10th business day in the tenant''s zone';

CREATE FUNCTION talkmeter.dispute(tenant text, conversation text, part integer, reason text) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'dispute_part_wrapper';
REVOKE ALL ON FUNCTION talkmeter.dispute(text, text, integer, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.dispute(text, text, integer, text) IS
    'Files a dispute about the standing charge of a part and returns its dispute_id';

CREATE FUNCTION talkmeter.resolve_dispute(tenant text, dispute_id bigint, resolution text, note text DEFAULT NULL)
    RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'resolve_dispute_wrapper';
REVOKE ALL ON FUNCTION talkmeter.resolve_dispute(text, bigint, text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.resolve_dispute(text, bigint, text, text) IS
    'Ends a dispute: credited takes the charge back, rejected lets it stand';

CREATE FUNCTION talkmeter.finalize(tenant text, period_start timestamptz) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'finalize_wrapper';
REVOKE ALL ON FUNCTION talkmeter.finalize(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.finalize(text, timestamptz) IS
    'Sweeps the tenant, then freezes the statement of a period that is over; what is posted for it later is listed by the period that is open then';

CREATE FUNCTION talkmeter.reconcile(day date) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'reconcile_wrapper';
REVOKE ALL ON FUNCTION talkmeter.reconcile(date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.reconcile(date) IS
    'Sweeps, compares for each tenant what was charged on a local day with a recount of the messages and with report_external, records it in reconciliations, and returns how many are flagged';

CREATE FUNCTION talkmeter.report_external(tenant text, day date, units bigint) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'report_external_wrapper';
REVOKE ALL ON FUNCTION talkmeter.report_external(text, date, bigint) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.report_external(text, date, bigint) IS
    'Notes what somebody else has counted on a tenant''s local day; a later report replaces an earlier one';

CREATE FUNCTION talkmeter.review(tenant text, day date) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'review_wrapper';
REVOKE ALL ON FUNCTION talkmeter.review(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.review(text, date) IS 'Notes that somebody has looked at a tenant''s reconciled day';

CREATE FUNCTION talkmeter.reset_for_tests() RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'reset_for_tests_wrapper';
REVOKE ALL ON FUNCTION talkmeter.reset_for_tests() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.reset_for_tests() IS
    'For a database of tests: removes all that was metered, bought and charged; definitions, attached tables and the journal stay. By a superuser, and not where a statement is frozen';
-- What does a tenant owe for a billing month?

CREATE FUNCTION talkmeter.statement_lines(tenant text, period_start timestamptz, period_end timestamptz)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH base AS (
            -- The last plan of this period: an upgrade counts for the whole of it. A subscription with another anchor day
            -- has periods of its own.
            SELECT p.name, p.price, p.currency
            FROM (
                SELECT s.plan
                FROM talkmeter.subscription AS s
                CROSS JOIN LATERAL talkmeter.period_at(s.tenant, GREATEST(s.since, statement_lines.period_start)) AS own
                WHERE s.tenant = statement_lines.tenant AND s.since < statement_lines.period_end AND s.plan IS NOT NULL
                    AND own.period_start = statement_lines.period_start AND own.period_end = statement_lines.period_end
                    -- One that was cancelled before the period began is none of it.
                    AND NOT EXISTS (
                        SELECT FROM talkmeter.subscription AS later
                        WHERE later.tenant = s.tenant AND later.subscription_id > s.subscription_id
                            AND later.since <= GREATEST(s.since, statement_lines.period_start))
                ORDER BY s.subscription_id DESC
                LIMIT 1
            ) AS last
            JOIN talkmeter.plan AS p ON p.name = last.plan
            WHERE p.price IS NOT NULL
        ), bought AS (
            -- Each pack is on one statement: that of the period of its purchase, or of the first if it was bought before.
            SELECT k.pack_id, k.pack, k.price, k.currency, k.refunded_at
            FROM talkmeter.pack AS k
            LEFT JOIN LATERAL talkmeter.period_at(k.tenant, k.billed_at) AS own ON true
            WHERE k.tenant = statement_lines.tenant AND k.billed_at < statement_lines.period_end
                AND CASE WHEN own.period_start IS NULL THEN NOT EXISTS (
                        SELECT FROM talkmeter.subscription AS s WHERE s.tenant = k.tenant AND s.since < statement_lines.period_start)
                    ELSE own.period_start = statement_lines.period_start AND own.period_end = statement_lines.period_end END
        ), posted AS (
            SELECT c.period_start, c.tier, c.currency, c.reason, abs(c.amount) AS rate, c.amount, c.units,
                -- What allowance and packs pay costs the same, whatever its outcome.
                CASE WHEN c.tier = 'overage' THEN c.outcome END AS outcome
            FROM talkmeter.posting AS c
            WHERE c.tenant = statement_lines.tenant AND c.posted_period_start = statement_lines.period_start
                AND c.posted_period_end = statement_lines.period_end
        ), lines AS (
            SELECT 1 AS rank, 'base' AS kind, NULL::timestamptz AS of_period_start, b.name AS description,
                1::bigint AS quantity, b.price AS unit_price, b.price AS amount, b.currency
            FROM base AS b
            UNION ALL
            SELECT 2, 'included', NULL, 'units within the allowance', sum(c.units), c.rate, sum(c.amount), c.currency
            FROM posted AS c
            WHERE c.period_start = statement_lines.period_start AND c.tier = 'included' AND c.reason IS DISTINCT FROM 'credit'
            GROUP BY c.rate, c.currency
            HAVING sum(c.units) <> 0
            UNION ALL
            SELECT 3, 'pack', NULL, k.pack, count(*), k.price, sum(k.price), k.currency
            FROM bought AS k
            WHERE k.refunded_at IS NULL OR k.refunded_at >= statement_lines.period_end
            GROUP BY k.pack, k.price, k.currency
            UNION ALL
            SELECT 4, 'pack_refund', NULL, k.pack, -count(*), k.price, -sum(k.price), k.currency
            FROM talkmeter.pack AS k
            CROSS JOIN LATERAL talkmeter.period_at(k.tenant, k.refunded_at) AS own
            WHERE k.tenant = statement_lines.tenant AND k.billed_at < statement_lines.period_start
                AND own.period_start = statement_lines.period_start AND own.period_end = statement_lines.period_end
                -- One that no statement has listed is not paid back.
                AND NOT EXISTS (SELECT FROM bought AS b WHERE b.pack_id = k.pack_id)
            GROUP BY k.pack, k.price, k.currency
            UNION ALL
            SELECT 5, 'overage', NULL, concat_ws(': ', 'units beyond allowance and packs', c.outcome), sum(c.units), c.rate,
                sum(c.amount), c.currency
            FROM posted AS c
            WHERE c.period_start = statement_lines.period_start AND c.tier = 'overage' AND c.reason IS DISTINCT FROM 'credit'
            GROUP BY c.outcome, c.rate, c.currency
            HAVING sum(c.units) <> 0
            UNION ALL
            SELECT 6, 'late', c.period_start, concat_ws(': ', c.tier, c.outcome), sum(c.units), c.rate, sum(c.amount), c.currency
            FROM posted AS c
            WHERE c.period_start <> statement_lines.period_start AND c.reason IS DISTINCT FROM 'credit'
            GROUP BY c.period_start, c.tier, c.outcome, c.rate, c.currency
            HAVING sum(c.units) <> 0
            UNION ALL
            SELECT 7, 'credit', c.period_start, concat_ws(': ', c.tier, c.outcome), sum(c.units), c.rate, sum(c.amount), c.currency
            FROM posted AS c
            WHERE c.reason = 'credit'
            GROUP BY c.period_start, c.tier, c.outcome, c.rate, c.currency
        )
        SELECT row_number() OVER (ORDER BY l.rank, l.of_period_start, l.description COLLATE "C", l.unit_price,
                l.currency COLLATE "C")::integer,
            l.kind, l.of_period_start, l.description, l.quantity::bigint, l.unit_price,
            round(l.amount, talkmeter.currency_digits(l.currency)), l.currency
        FROM lines AS l
        ORDER BY 1
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_lines(text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_lines(text, timestamptz, timestamptz) IS
    'The lines of a statement as the ledger has them now; read talkmeter.statement instead, which knows what is frozen';

CREATE FUNCTION talkmeter.periods_starting(tenant text, start timestamptz)
    RETURNS TABLE (period_start timestamptz, period_end timestamptz)
    LANGUAGE sql STABLE STRICT ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT p.period_start, p.period_end
        FROM talkmeter.period AS p
        WHERE p.tenant = periods_starting.tenant AND p.period_start = periods_starting.start
        UNION
        SELECT own.period_start, own.period_end
        FROM talkmeter.period_at(periods_starting.tenant, periods_starting.start) AS own
        WHERE own.period_start = periods_starting.start
        UNION
        -- A subscription that is made within a month of its own begins with the whole of it.
        SELECT own.period_start, own.period_end
        FROM talkmeter.subscription AS s
        CROSS JOIN LATERAL talkmeter.period_at(s.tenant, s.since) AS own
        WHERE s.tenant = periods_starting.tenant AND s.since > periods_starting.start
            AND s.since < periods_starting.start + interval '62 days' AND own.period_start = periods_starting.start
    $$;
REVOKE ALL ON FUNCTION talkmeter.periods_starting(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.periods_starting(text, timestamptz) IS
    'The billing months of a tenant that start at an instant: at most one, unless its anchor day was changed from one to another that both fall on the last day of a month';

CREATE FUNCTION talkmeter.statement_of(tenant text, period_start timestamptz, period_end timestamptz)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE STRICT ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH frozen AS (
            SELECT FROM talkmeter.period AS p
            WHERE p.tenant = statement_of.tenant AND p.period_start = statement_of.period_start
                AND p.period_end = statement_of.period_end AND p.finalized_at IS NOT NULL
        )
        SELECT s.line, s.kind, s.of_period_start, s.description, s.quantity, s.unit_price, s.amount, s.currency
        FROM talkmeter.statement_line AS s
        WHERE s.tenant = statement_of.tenant AND s.period_start = statement_of.period_start
            AND s.period_end = statement_of.period_end AND EXISTS (SELECT FROM frozen)
        UNION ALL
        SELECT l.*
        FROM talkmeter.statement_lines(statement_of.tenant, statement_of.period_start, statement_of.period_end) AS l
        WHERE NOT EXISTS (SELECT FROM frozen)
        ORDER BY 1
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_of(text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_of(text, timestamptz, timestamptz) IS
    'The lines of the statement of one period, frozen or as the ledger has them now';

CREATE FUNCTION talkmeter.statement_of(tenant text, period_start timestamptz)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE STRICT ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT l.*
        FROM talkmeter.periods_starting(statement_of.tenant, statement_of.period_start) AS own
        CROSS JOIN LATERAL talkmeter.statement_of(statement_of.tenant, own.period_start, own.period_end) AS l
        ORDER BY own.period_end, l.line
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_of(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_of(text, timestamptz) IS
    'The lines of a statement; no rows if no period starts then: statement says why';

CREATE FUNCTION talkmeter.known_period(tenant text, period_start timestamptz) RETURNS timestamptz
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'known_period_wrapper';
REVOKE ALL ON FUNCTION talkmeter.known_period(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.known_period(text, timestamptz) IS
    'The instant, if a billing month of the tenant starts then; else an error that says which month holds it';

CREATE FUNCTION talkmeter.periods_of_month(tenant text, month date) RETURNS SETOF timestamptz
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'periods_of_month_wrapper';
REVOKE ALL ON FUNCTION talkmeter.periods_of_month(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.periods_of_month(text, date) IS
    'When the billing months start that start in a month of the tenant''s own calendar; an error if there is none';

CREATE FUNCTION talkmeter.statement(tenant text, period_start timestamptz)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE STRICT ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.known_period(statement.tenant, statement.period_start) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.statement_of(statement.tenant, own.period_start) AS s
        ORDER BY s.line
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement(text, timestamptz) IS
    'The lines of the statement of the period that starts then: frozen if it is finalized, else as the ledger has them now. Each amount is rounded once; the total is their sum';

CREATE FUNCTION talkmeter.statement(tenant text, month date)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE STRICT ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.periods_of_month(statement.tenant, statement.month) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.statement_of(statement.tenant, own.period_start) AS s
        ORDER BY own.period_start, s.line
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement(text, date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone: statement(tenant, date ''2026-03-01'')';

CREATE FUNCTION talkmeter.instant_meant(period text) RETURNS timestamptz
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'instant_meant_wrapper';
REVOKE ALL ON FUNCTION talkmeter.instant_meant(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.instant_meant(text) IS
    'The instant that a text is, by the clock of the session; else an error that says how periods are named';

CREATE FUNCTION talkmeter.month_meant(tenant text, period text) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT CASE
            WHEN month_meant.period ~ '^ *(?!0000)\d{4}-(0[1-9]|1[0-2]) *$' THEN btrim(month_meant.period)
            -- A day at whose first instant a period starts, by the clock of the session, is that one.
            WHEN month_meant.period ~ '^ *\d{4}-\d{2}-\d{2} *$' AND NOT EXISTS (
                SELECT FROM talkmeter.periods_starting(month_meant.tenant, talkmeter.instant_meant(month_meant.period)))
            THEN left(btrim(month_meant.period), 7) END
    $$;
REVOKE ALL ON FUNCTION talkmeter.month_meant(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.month_meant(text, text) IS
    'The name of the month that a text means, by its name or a day of it; null if it means an instant';

-- An untyped text is taken for this one: as what it looks like.
CREATE FUNCTION talkmeter.periods_named(tenant text, period text) RETURNS SETOF timestamptz
    LANGUAGE sql STABLE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH own AS (
            SELECT talkmeter.month_meant(periods_named.tenant, periods_named.period) AS month
        )
        SELECT m.period_start
        FROM own
        CROSS JOIN LATERAL talkmeter.periods_of_month(periods_named.tenant, (own.month || '-01')::date) AS m (period_start)
        UNION ALL
        SELECT talkmeter.known_period(periods_named.tenant, talkmeter.instant_meant(periods_named.period))
        FROM own
        WHERE own.month IS NULL AND periods_named.period IS NOT NULL
        UNION ALL
        SELECT COALESCE(
            (SELECT p.period_start FROM talkmeter.period_at(periods_named.tenant, (SELECT clock.now FROM talkmeter.clock)) AS p),
            talkmeter.known_period(periods_named.tenant, (SELECT clock.now FROM talkmeter.clock)))
        WHERE periods_named.period IS NULL
    $$;
REVOKE ALL ON FUNCTION talkmeter.periods_named(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.periods_named(text, text) IS
    'When the periods start that a text means: a name such as 2026-03, a day, an instant; null: the current one. An error if there is none';

CREATE FUNCTION talkmeter.statement(tenant text, period text DEFAULT NULL)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.periods_named(statement.tenant, statement.period) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.statement_of(statement.tenant, own.period_start) AS s
        ORDER BY own.period_start, s.line
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement(text, text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';
-- What proves that a frozen statement, and the charges that it lists, are what they were?

CREATE FUNCTION talkmeter.chain_link(digest bytea, content text) RETURNS bytea
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'chain_link_wrapper';
REVOKE ALL ON FUNCTION talkmeter.chain_link(bytea, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.chain_link(bytea, text) IS 'The SHA-256 of a digest, 32 bytes or none, followed by the bytes of a line';

CREATE AGGREGATE talkmeter.chain(content text) (
    SFUNC = talkmeter.chain_link,
    STYPE = bytea,
    INITCOND = ''
);
REVOKE ALL ON FUNCTION talkmeter.chain(text) FROM PUBLIC;
COMMENT ON AGGREGATE talkmeter.chain(text) IS 'The SHA-256 over lines, each of which is hashed after the digest of those before it';

CREATE FUNCTION talkmeter.subject_of(conversation text, cause_message_id text) RETURNS text
    LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'subject_of_wrapper';
REVOKE ALL ON FUNCTION talkmeter.subject_of(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.subject_of(text, text) IS 'What a charge is for, as evidence names it by its digest';

CREATE FUNCTION talkmeter.evidence_lines(tenant text, period_start timestamptz, period_end timestamptz)
    RETURNS TABLE (line bigint, content text, subject text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    SET timezone = 'UTC'
    AS $$
        WITH frozen AS (
            SELECT p.*
            FROM talkmeter.period AS p
            WHERE p.tenant = evidence_lines.tenant AND p.period_start = evidence_lines.period_start
                AND p.period_end = evidence_lines.period_end AND p.finalization IS NOT NULL
        )
        SELECT 0::bigint, row_to_json(o)::text, NULL::text
        FROM (
            SELECT p.tenant, p.period_start, p.period_end, p.finalization, encode(before.digest, 'hex') AS chained_to,
                p.finalized_at, p.finalized_by, p.last_charge_id, p.last_subscription_id, p.last_pack_id
            FROM frozen AS p
            LEFT JOIN talkmeter.period AS before ON before.tenant = p.tenant
                AND before.finalization = CASE WHEN p.finalization > 1 THEN p.finalization - 1 END
        ) AS o
        UNION ALL
        SELECT s.line, row_to_json(o)::text, NULL
        FROM frozen AS p
        JOIN talkmeter.statement_line AS s USING (tenant, period_start, period_end)
        CROSS JOIN LATERAL (
            SELECT s.line, s.kind, s.of_period_start, s.description, s.quantity, s.unit_price, s.amount, s.currency
        ) AS o
        UNION ALL
        -- No statement has as many lines. What a charge is for is there by a digest: it can be forgotten, and the rest still proved.
        -- An outcome comes last: what names none is proved by what it always was.
        SELECT 2147483647 + LEAST(c.charge_id, 9223372034707292160),
            CASE WHEN c.outcome IS NULL THEN row_to_json(o)::text
                ELSE concat(left(row_to_json(o)::text, -1), ',"outcome":', to_json(c.outcome), '}') END, subject.content
        FROM frozen AS p
        JOIN talkmeter.charge AS c ON c.tenant = p.tenant AND c.posted_period_start = p.period_start
            AND c.posted_period_end = p.period_end
        LEFT JOIN talkmeter.forgotten_subject AS f ON f.tenant = c.tenant AND f.charge_id = c.charge_id
        CROSS JOIN LATERAL (
            SELECT CASE WHEN f.digest IS NULL THEN talkmeter.subject_of(c.conversation, c.cause_message_id) END AS content
        ) AS subject
        CROSS JOIN LATERAL (
            SELECT c.charge_id, encode(COALESCE(f.digest, sha256(convert_to(subject.content, 'UTF8'))), 'hex') AS subject, c.part,
                c.charged_at, c.period_start, c.period_end, c.tier, c.pack_id, c.amount, c.currency, c.plan, c.policy,
                c.policy_version, c.reverses, c.reason, c.note, c.posted_by, c.posted_at, c.cause_source, c.cause_at
        ) AS o
    $$;
REVOKE ALL ON FUNCTION talkmeter.evidence_lines(text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.evidence_lines(text, timestamptz, timestamptz) IS
    'What the digest of a frozen period is made of, in the order of line: the period itself, then its statement, then the charges that it lists; subject is what a charge is for, null if that was forgotten';

CREATE FUNCTION talkmeter.evidence(tenant text, period_start timestamptz)
    RETURNS TABLE (finalization bigint, line bigint, content text, subject text, chained text, digest text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT p.finalization, row_number() OVER own, e.content, e.subject, encode(talkmeter.chain(e.content) OVER own, 'hex'),
            encode(p.digest, 'hex')
        FROM talkmeter.period AS p
        CROSS JOIN LATERAL talkmeter.evidence_lines(p.tenant, p.period_start, p.period_end) AS e
        WHERE p.tenant = evidence.tenant AND p.period_start = evidence.period_start AND p.finalization IS NOT NULL
        WINDOW own AS (PARTITION BY p.finalization ORDER BY e.line)
        ORDER BY 1, 2
    $$;
REVOKE ALL ON FUNCTION talkmeter.evidence(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.evidence(text, timestamptz) IS
    'The digest of a frozen period, and line by line what to compute it anew from: chained is the SHA-256 of the 32 bytes of chained on the line before, none before the first, followed by content; on the last line it is the digest, or something was changed since. The content of a charge names its subject, conversation and message, by a SHA-256; the subject is null if it was forgotten. No rows: the period is not finalized';
-- Which charges make up each line of a statement, and of which conversations are they?

CREATE FUNCTION talkmeter.units_of_statement(tenant text, period_start timestamptz)
    RETURNS TABLE (line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH posted AS (
            SELECT c.*, CASE WHEN c.reason = 'credit' THEN 'credit' WHEN c.period_start <> own.period_start THEN 'late' ELSE c.tier END
                AS kind, own.period_end AS own_end
            FROM talkmeter.periods_starting(units_of_statement.tenant, units_of_statement.period_start) AS own
            JOIN talkmeter.posting AS c ON c.tenant = units_of_statement.tenant AND c.posted_period_start = own.period_start
                AND c.posted_period_end = own.period_end
        ), lines AS MATERIALIZED (
            SELECT own.period_end AS own_end, l.*
            FROM talkmeter.periods_starting(units_of_statement.tenant, units_of_statement.period_start) AS own
            CROSS JOIN LATERAL talkmeter.statement_of(units_of_statement.tenant, own.period_start, own.period_end) AS l
        )
        SELECT l.line, c.kind, c.charge_id, c.conversation, c.part, c.charged_at, p.started_at, p.ended_at, p.message_count, c.tier,
            c.units, c.amount, c.currency, c.reverses, c.reason, c.outcome
        FROM posted AS c
        LEFT JOIN lines AS l ON l.own_end = c.own_end AND l.kind = c.kind AND c.kind <> 'pack' AND l.currency = c.currency
            AND l.unit_price = abs(c.amount)
            AND (c.kind = 'included' OR l.description = concat_ws(': ',
                CASE WHEN c.kind = 'overage' THEN 'units beyond allowance and packs' ELSE c.tier END,
                CASE WHEN c.tier = 'overage' THEN c.outcome END))
            AND (c.kind IN ('included', 'overage') OR l.of_period_start = c.period_start)
        LEFT JOIN talkmeter.part AS p
            ON p.tenant = c.tenant AND p.conversation = c.conversation AND p.part = c.part
        ORDER BY l.line, c.charge_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.units_of_statement(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.units_of_statement(text, timestamptz) IS
    'The charges that a statement lists; no rows if no period starts then: statement_units says why';

CREATE FUNCTION talkmeter.statement_units(tenant text, period_start timestamptz)
    RETURNS TABLE (line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT u.*
        FROM talkmeter.known_period(statement_units.tenant, statement_units.period_start) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.units_of_statement(statement_units.tenant, own.period_start) AS u
        ORDER BY u.line, u.charge_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_units(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_units(text, timestamptz) IS
    'Each charge that the statement of the period that starts then lists, with the line that it is part of, and the conversation. No line: a pack paid it, or it was taken back at the same price';

CREATE FUNCTION talkmeter.statement_units(tenant text, month date)
    RETURNS TABLE (line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT u.*
        FROM talkmeter.periods_of_month(statement_units.tenant, statement_units.month) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.units_of_statement(statement_units.tenant, own.period_start) AS u
        ORDER BY own.period_start, u.line, u.charge_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_units(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_units(text, date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.statement_units(tenant text, period text DEFAULT NULL)
    RETURNS TABLE (line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.periods_named(statement_units.tenant, statement_units.period) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.units_of_statement(statement_units.tenant, own.period_start) AS s
        ORDER BY own.period_start, s.line, s.charge_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_units(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_units(text, text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';
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
            WHERE removal IS NULL
            GROUP BY source_id, reason
        ) AS q
        LEFT JOIN talkmeter.source AS s USING (source_id)
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
-- Do parts, charges, packs, periods, alerts and statements agree with one another?

CREATE FUNCTION talkmeter.show_progress(work text, done bigint, total bigint, unit text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'show_progress_wrapper';
REVOKE ALL ON FUNCTION talkmeter.show_progress(text, bigint, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.show_progress(text, bigint, bigint, text) IS
    'Shows in talkmeter.progress how far a statement of talkmeter''s own has come; true';

CREATE FUNCTION talkmeter.verify()
    RETURNS TABLE (problem text, tenant text, object text, detail text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    SET work_mem = '64MB' SET jit = off
    AS $$
        WITH reversed AS (
            SELECT r.tenant, r.reverses AS charge_id, r.charge_id AS by, r.reason, r.conversation, r.part
            FROM talkmeter.charge AS r
            WHERE r.reverses IS NOT NULL
        ), term AS MATERIALIZED (
            -- What a tenant with a single subscription is on need not be looked up for each charge.
            SELECT s.tenant, count(*) > 1 AS has_many, min(s.since) AS since, min(s.plan) AS plan,
                min(s.timezone) AS timezone, min(s.timezone) <> max(s.timezone) AS has_moved,
                -- The server's own time zones may be older than the ones that days were counted by.
                bool_and(s.timezone = 'UTC' OR s.timezone IN (SELECT z.name FROM pg_timezone_names AS z)) AS is_known
            FROM talkmeter.subscription AS s
            GROUP BY s.tenant
        ), total AS MATERIALIZED (
            SELECT c.tenant, c.period_start, c.period_end, c.tier, c.pack_id, c.plan, c.day, sum(c.units) AS units,
                sum(c.amount) AS amount, min(c.charged_at) AS first, max(c.charged_at) AS last,
                count(*) AS rows, min(c.charge_id) AS first_id, max(c.charge_id) AS last_id,
                count(*) FILTER (WHERE c.units > 0) AS charges
            FROM (
                SELECT o.*,
                    -- A later subscription moves no unit to another day, and a new zone waits for the end of the period.
                    CASE WHEN NOT t.is_known THEN NULL
                        WHEN t.has_moved THEN talkmeter.local_day(o.tenant, o.charged_at, o.charge_id)
                        ELSE (o.charged_at AT TIME ZONE t.timezone)::date END AS day
                FROM talkmeter.posting AS o
                LEFT JOIN term AS t ON t.tenant = o.tenant
                -- Hides from the planner that the day comes of the instant: it would expect as many days as instants.
                OFFSET 0
            ) AS c
            GROUP BY c.tenant, c.period_start, c.period_end, c.tier, c.pack_id, c.plan, c.day
        ), net AS (
            SELECT t.tenant, t.period_start, t.period_end,
                COALESCE(sum(t.units) FILTER (WHERE t.tier = 'included'), 0) AS included_used,
                COALESCE(sum(t.units) FILTER (WHERE t.tier = 'pack'), 0) AS pack_used,
                COALESCE(sum(t.units) FILTER (WHERE t.tier = 'overage'), 0) AS overage_units,
                sum(t.amount) AS overage_amount, max(p.included) AS most_included
            FROM total AS t
            LEFT JOIN talkmeter.plan AS p ON p.name = t.plan
            GROUP BY t.tenant, t.period_start, t.period_end
        ), drawn AS (
            SELECT t.tenant, t.pack_id, sum(t.units) AS units, min(t.first) AS first, max(t.last) AS last
            FROM total AS t
            WHERE t.pack_id IS NOT NULL
            GROUP BY t.tenant, t.pack_id
        ), unmirrored AS MATERIALIZED (
            SELECT r.tenant, r.charge_id, r.reverses, r.conversation, c.conversation AS other, c.charge_id IS NULL AS is_missing
            FROM talkmeter.charge AS r
            LEFT JOIN talkmeter.charge AS c ON c.tenant = r.tenant AND c.charge_id = r.reverses
            WHERE r.reverses IS NOT NULL AND (c.charge_id IS NULL OR c.reverses IS NOT NULL OR c.charge_id >= r.charge_id
                OR (c.conversation, c.part, c.charged_at, c.period_start, c.period_end, c.tier, c.currency, c.plan, c.policy,
                    c.policy_version, -c.amount) <> (r.conversation, r.part, r.charged_at, r.period_start, r.period_end,
                    r.tier, r.currency, r.plan, r.policy, r.policy_version, r.amount)
                OR c.pack_id IS DISTINCT FROM r.pack_id OR c.outcome IS DISTINCT FROM r.outcome)
        ), standing AS NOT MATERIALIZED (
            SELECT c.tenant, c.conversation, c.part, c.charge_id, c.charged_at, c.period_start, c.period_end, c.policy,
                c.policy_version, c.outcome, hashtext(c.conversation) & 63 AS drawer
            FROM talkmeter.standing_charge AS c
        ), credited AS MATERIALIZED (
            SELECT DISTINCT r.tenant, r.conversation, r.part FROM reversed AS r WHERE r.reason = 'credit'
        ), judged AS NOT MATERIALIZED (
            SELECT p.tenant, p.conversation, p.part, p.charged_at, p.policy, p.policy_version, p.outcome,
                hashtext(p.conversation) & 63 AS drawer, v.name IS NULL AS is_of_no_policy,
                p.ended_at IS NOT NULL AND p.charged_at IS NULL AND p.not_billable_because IS NULL AS is_not_judged,
                CASE WHEN v.final_after IS NOT NULL OR v.never_final
                        THEN p.charged_at < CASE v.charge_on WHEN 'close' THEN p.ended_at ELSE p.started_at END
                            OR p.charged_at > p.final_at OR p.final_at < p.ended_at
                            OR (p.ended_at IS NULL OR p.is_held) <> (p.final_at IS NULL) OR (p.ended_at IS NULL AND p.held_count > 0)
                        ELSE p.charged_at <> CASE v.charge_on WHEN 'close' THEN p.ended_at
                                WHEN 'first_ai_reply' THEN p.first_ai_reply_at WHEN 'start' THEN p.started_at ELSE p.charged_at END
                            OR (v.charge_on = 'first_of' AND (p.charged_at < p.started_at OR p.charged_at > p.ended_at))
                            OR p.is_held OR p.held_count > 0 OR p.final_at IS NOT NULL END
                    OR p.rule < 1 OR p.rule > COALESCE(pg_catalog.jsonb_array_length(v.outcomes), 0)
                    OR (p.charged_at IS NOT NULL AND v.outcomes IS NOT NULL
                        AND (p.rule IS NULL OR v.outcomes -> (p.rule - 1) -> 'units' = '0'))
                    OR p.held_count < 1 OR (p.is_held AND p.timed = COALESCE(v.never_final, false))
                    OR (p.outcome IS NOT NULL AND p.charged_at IS NULL AND p.not_billable_because IS DISTINCT FROM p.outcome)
                    OR p.last_activity_at < p.started_at OR p.ended_at < p.last_activity_at
                    OR p.first_event > p.last_event OR p.event_count < p.message_count::float8 + COALESCE(p.held_count, 0)
                    OR p.message_count < p.ai_replies::float8 + p.staff_replies OR p.turn_count > p.ai_replies
                    OR (p.ai_replies = 0) <> (p.first_ai_reply_at IS NULL)
                    OR p.part < 1 OR (p.ended_at IS NULL) <> (p.end_reason IS NULL)
                    OR (p.charged_at IS NOT NULL AND p.not_billable_because IS NOT NULL)
                    OR p.timed <> (p.due_at IS NOT NULL)
                    OR p.message_count IS NULL OR p.last_activity_at IS NULL OR p.customer_waits IS NULL AS is_impossible
            FROM talkmeter.part AS p
            LEFT JOIN talkmeter.policy AS v ON v.name = p.policy AND v.version = p.policy_version
        ), doubtful AS MATERIALIZED (
            -- To compare each part with its charge takes long. So they are put into drawers, by tenant and conversation, and
            -- only those are looked into whose charges less reversals, in number and in sum, are not those of their parts.
            SELECT tenant, drawer
            FROM (
                SELECT o.tenant, o.drawer, sum(o.sign) AS units, sum(o.sign * o.number) AS sum
                FROM (
                    SELECT b.tenant, hashtext(b.conversation) & 63 AS drawer,
                        b.units AS sign, hash_record_extended(
                            ROW (b.conversation, b.part, b.charged_at, b.policy, b.policy_version, b.outcome), 0) >> 1 AS number
                    FROM talkmeter.posting AS b
                    -- As above: there are few drawers.
                    OFFSET 0
                ) AS o
                GROUP BY o.tenant, o.drawer
            ) AS c
            FULL JOIN (
                SELECT o.tenant, o.drawer, count(o.number) AS units, sum(o.number) AS sum, bool_or(o.is_wrong) AS is_wrong
                FROM (
                    SELECT j.tenant, j.drawer, j.is_of_no_policy OR j.is_not_judged OR j.is_impossible AS is_wrong,
                        CASE WHEN j.charged_at IS NOT NULL THEN hash_record_extended(
                            ROW (j.conversation, j.part, j.charged_at, j.policy, j.policy_version, j.outcome), 0) >> 1 END AS number
                    FROM judged AS j
                    OFFSET 0
                ) AS o
                GROUP BY o.tenant, o.drawer
            ) AS p USING (tenant, drawer)
            WHERE COALESCE(c.units, 0) <> COALESCE(p.units, 0) OR COALESCE(c.sum, 0) <> COALESCE(p.sum, 0) OR p.is_wrong
            UNION
            SELECT m.tenant, hashtext(o.conversation) & 63
            FROM unmirrored AS m
            CROSS JOIN LATERAL (VALUES (m.conversation), (m.other)) AS o (conversation)
            UNION
            SELECT k.tenant, hashtext(k.conversation) & 63 FROM credited AS k
            UNION
            SELECT u.tenant, hashtext(u.conversation) & 63 FROM talkmeter.waiting_unit AS u
        )
        -- What is numbered within its tenant has no gaps, and its account knows the last number.
        SELECT CASE WHEN n.rows IS NULL THEN a.what || 's_are_missing' ELSE n.what || '_ids_have_gaps' END,
            COALESCE(n.tenant, a.tenant), COALESCE(n.what, a.what) || 's',
            format('%s rows from %s to %s; the account counts %s.', COALESCE(n.rows, 0), n.first, n.last, a.last)
        FROM (
            SELECT t.tenant, 'charge' AS what, sum(t.rows) AS rows, min(t.first_id) AS first, max(t.last_id) AS last
            FROM total AS t GROUP BY t.tenant
            UNION ALL
            SELECT k.tenant, 'pack', count(*), min(k.pack_id), max(k.pack_id) FROM talkmeter.pack AS k GROUP BY k.tenant
            UNION ALL
            SELECT s.tenant, 'subscription', count(*), min(s.subscription_id), max(s.subscription_id)
            FROM talkmeter.subscription AS s GROUP BY s.tenant
            UNION ALL
            SELECT d.tenant, 'dispute', count(*), min(d.dispute_id), max(d.dispute_id)
            FROM talkmeter.dispute_filed AS d GROUP BY d.tenant
            UNION ALL
            SELECT p.tenant, 'finalization', count(*), min(p.finalization), max(p.finalization)
            FROM talkmeter.period AS p WHERE p.finalization IS NOT NULL GROUP BY p.tenant
        ) AS n
        FULL JOIN (
            SELECT o.tenant, c.what, c.last
            FROM talkmeter.account AS o
            CROSS JOIN LATERAL (VALUES ('charge', o.last_charge_id), ('pack', o.last_pack_id),
                ('subscription', o.last_subscription_id), ('finalization', o.last_finalization)) AS c (what, last)
            WHERE c.last <> 0
            UNION ALL
            SELECT d.tenant, 'dispute', d.last_dispute_id FROM talkmeter.dispute_count AS d WHERE d.last_dispute_id <> 0
        ) AS a ON a.tenant = n.tenant AND a.what = n.what
        WHERE n.rows IS NULL OR n.first <> 1 OR n.last <> n.rows OR a.last IS DISTINCT FROM n.last
        UNION ALL
        SELECT NULL, NULL, NULL, NULL FROM talkmeter.show_progress('verify', 0, 26, 'checks') AS shown WHERE NOT shown
        UNION ALL
        SELECT 'reversal_is_no_mirror', r.tenant, format('charge %s', r.charge_id),
            CASE WHEN r.is_missing THEN format('It takes back charge %s, which is not there.', r.reverses)
                ELSE format('It differs from charge %s, which it takes back.', r.reverses) END
        FROM unmirrored AS r
        UNION ALL
        -- All that a charge itself, its plan, its policy and its periods tell.
        SELECT w.problem, c.tenant, format('charge %s', c.charge_id), w.detail
        FROM (
            SELECT b.*, own_rate.rate, p.currency AS plan_currency, f.plan AS plan_in_force,
                p.name IS NULL AS is_of_no_plan, v.name IS NULL AS is_of_no_policy,
                p.name IS NOT NULL AND b.reverses IS NULL AND f.plan IS DISTINCT FROM b.plan AS is_of_other_plan,
                b.reverses IS NULL AND (b.currency <> p.currency
                    OR b.amount <> CASE WHEN b.tier = 'overage' THEN own_rate.rate ELSE 0 END) AS is_of_other_rate,
                b.charged_at < b.period_start OR b.charged_at >= b.period_end AS is_outside,
                b.tier NOT IN ('included', 'pack', 'overage') OR (b.tier = 'pack') <> (b.pack_id IS NOT NULL)
                    OR (b.reverses IS NULL) <> (b.reason IS NULL) OR b.reason NOT IN ('refold', 'voided', 'credit')
                    OR (b.cause_at IS NOT NULL AND COALESCE(b.reason, 'credit') = 'credit') AS is_impossible,
                o.last_charge_id < b.charge_id AS is_frozen,
                (b.posted_period_start, b.posted_period_end) <> (b.period_start, b.period_end)
                    AND (own.last_charge_id < b.charge_id) IS NOT TRUE AS is_elsewhere
            FROM talkmeter.charge AS b
            LEFT JOIN talkmeter.plan AS p ON p.name = b.plan
            CROSS JOIN LATERAL (
                SELECT CASE WHEN jsonb_typeof(p.rates -> b.outcome) = 'number' THEN (p.rates ->> b.outcome)::numeric
                    ELSE p.overage_rate END AS rate
            ) AS own_rate
            LEFT JOIN talkmeter.policy AS v ON v.name = b.policy AND v.version = b.policy_version
            LEFT JOIN term AS t ON t.tenant = b.tenant
            LEFT JOIN talkmeter.period AS own ON own.tenant = b.tenant AND own.period_start = b.period_start
                AND own.period_end = b.period_end
            LEFT JOIN talkmeter.period AS o ON o.tenant = b.tenant AND o.period_start = b.posted_period_start
                AND o.period_end = b.posted_period_end
            CROSS JOIN LATERAL (
                SELECT CASE WHEN NOT t.has_many THEN CASE WHEN t.since <= b.charged_at THEN t.plan END ELSE (
                    SELECT s.plan FROM talkmeter.subscription AS s
                    WHERE s.tenant = b.tenant AND s.since <= b.charged_at AND s.last_charge_id < b.charge_id
                    ORDER BY s.subscription_id DESC
                    LIMIT 1) END AS plan
            ) AS f
        ) AS c
        CROSS JOIN LATERAL (
            VALUES (c.is_of_no_plan, 'charge_of_unknown_plan', format('There is no plan %s.', c.plan)),
                (c.is_of_no_policy, 'charge_of_unknown_policy',
                    format('There is no policy %s@%s.', c.policy, c.policy_version)),
                (c.is_of_other_plan, 'charge_of_other_plan',
                    format('It is of plan %s; in force at its instant %s was %s.', c.plan, c.charged_at,
                        COALESCE(c.plan_in_force, 'none'))),
                (c.is_of_other_rate, 'amount_is_not_the_rate', format('It costs %s %s; the rate of plan %s is %s %s.',
                    c.amount, c.currency, concat_ws(' for ', c.plan, c.outcome), c.rate, c.plan_currency)),
                (c.is_outside, 'charge_outside_its_period', format('Its instant %s is not in the period from %s to %s.',
                    c.charged_at, c.period_start, c.period_end)),
                (c.is_impossible, 'charge_is_impossible',
                    'Its tier, its pack, what it takes back or why: they are not of one charge.'),
                (c.is_frozen, 'posted_after_finalization',
                    format('It is on the statement of the period from %s, which was finalized before.', c.posted_period_start)),
                (c.is_elsewhere, 'posted_elsewhere', format(
                    'It is on the statement of the period from %s; its own, from %s, was not finalized when it was posted.',
                    c.posted_period_start, c.period_start))
        ) AS w (is_so, problem, detail)
        WHERE w.is_so AND (c.is_of_no_plan OR c.is_of_no_policy OR c.is_of_other_plan OR c.is_of_other_rate OR c.is_outside
            OR c.is_impossible OR c.is_frozen OR c.is_elsewhere)
        UNION ALL
        SELECT 'posted_in_no_period', c.tenant, format('charge %s', c.charge_id),
            format('No statement lists the period from %s to %s.', c.posted_period_start, c.posted_period_end)
        FROM talkmeter.charge AS c
        WHERE (c.tenant, c.posted_period_start, c.posted_period_end) IN (
            SELECT l.tenant, l.posted_period_start, l.posted_period_end
            FROM (
                SELECT DISTINCT o.tenant, o.posted_period_start, o.posted_period_end
                FROM talkmeter.charge AS o
                WHERE (o.posted_period_start, o.posted_period_end) <> (o.period_start, o.period_end)
            ) AS l
            -- Outside the years that can be metered there is no period to ask for.
            WHERE CASE WHEN l.posted_period_start >= '0001-01-01 00:00+00' AND l.posted_period_start < '10000-01-01 00:00+00'
                THEN NOT EXISTS (
                    SELECT FROM talkmeter.period_at(l.tenant, l.posted_period_start) AS p
                    WHERE p.period_start = l.posted_period_start AND p.period_end = l.posted_period_end)
                ELSE true END
            AND NOT EXISTS (
                -- It was opened before another subscription divided the months anew.
                SELECT FROM talkmeter.period AS p
                WHERE p.tenant = l.tenant AND p.period_start = l.posted_period_start AND p.period_end = l.posted_period_end))
            AND (c.posted_period_start, c.posted_period_end) <> (c.period_start, c.period_end)
        UNION ALL
        SELECT 'part_is_charged_twice', s.tenant, format('part %s of %s', s.part, s.conversation),
            format('Charges %s stand.', string_agg(s.charge_id::text, ', ' ORDER BY s.charge_id))
        FROM standing AS s
        WHERE (s.tenant, s.drawer) IN (SELECT d.tenant, d.drawer FROM doubtful AS d)
        GROUP BY s.tenant, s.conversation, s.part
        HAVING count(*) > 1
        UNION ALL
        -- Each billable part has one charge that stands, or waits for a plan or a backfill, or was credited; no other part has any.
        SELECT w.problem, a.tenant, w.object, w.detail
        FROM (
            SELECT tenant, conversation, part, s.charge_id, p.charged_at, p.policy, p.policy_version, p.is_of_no_policy,
                p.is_not_judged, p.is_impossible,
                s.charge_id IS NOT NULL AND p.charged_at IS NULL AS has_no_part,
                p.charged_at < s.period_start OR p.charged_at >= s.period_end
                    OR (p.policy, p.policy_version) <> (s.policy, s.policy_version)
                    OR (s.charge_id IS NOT NULL AND p.charged_at IS NOT NULL AND s.outcome IS DISTINCT FROM p.outcome)
                    AS is_of_other_part,
                s.charge_id IS NOT NULL AND k.part IS NOT NULL AS is_credited,
                s.charge_id IS NULL AND p.charged_at IS NOT NULL AND u.charged_at IS NULL AND k.part IS NULL AS has_no_charge,
                u.charged_at IS NOT NULL
                    AND (s.charge_id IS NOT NULL OR p.charged_at IS DISTINCT FROM u.charged_at
                        OR (u.policy, u.policy_version) <> (p.policy, p.policy_version) OR u.outcome IS DISTINCT FROM p.outcome)
                    AS waits_wrongly
            FROM (
                SELECT * FROM standing AS o WHERE (o.tenant, o.drawer) IN (SELECT d.tenant, d.drawer FROM doubtful AS d)
            ) AS s
            FULL JOIN (
                SELECT * FROM judged AS o WHERE (o.tenant, o.drawer) IN (SELECT d.tenant, d.drawer FROM doubtful AS d)
            ) AS p USING (tenant, conversation, part)
            FULL JOIN talkmeter.waiting_unit AS u USING (tenant, conversation, part)
            LEFT JOIN credited AS k USING (tenant, conversation, part)
        ) AS a
        CROSS JOIN LATERAL (
            SELECT format('charge %s', a.charge_id) AS charge, format('part %s of %s', a.part, a.conversation) AS part
        ) AS o
        CROSS JOIN LATERAL (
            VALUES (a.has_no_part, 'charge_without_part', o.charge,
                    format('Part %s of %s is not there, or is not billable.', a.part, a.conversation)),
                (a.is_of_other_part, 'charge_differs_from_part', o.charge, format('Part %s of %s is charged at %s under %s@%s.',
                    a.part, a.conversation, a.charged_at, a.policy, a.policy_version)),
                (a.is_credited, 'credited_part_is_charged', o.charge,
                    format('Part %s of %s was credited.', a.part, a.conversation)),
                (a.has_no_charge, 'part_without_charge', o.part,
                    format('It is billable since %s, and neither charged, nor waiting for a plan or a backfill, nor credited.', a.charged_at)),
                (a.waits_wrongly, 'waiting_unit_is_wrong', o.part,
                    'It waits for a plan or a backfill, but is charged already, or not billable, or of another instant, policy or outcome.'),
                (a.is_not_judged, 'part_is_not_judged', o.part, 'It has ended, and is neither billable nor not.'),
                (a.is_impossible, 'part_is_impossible', o.part,
                    'Its times, its counts or its charge instant are none that any messages would give.'),
                (a.is_of_no_policy, 'part_of_unknown_policy', o.part,
                    format('There is no policy %s@%s.', a.policy, a.policy_version))
        ) AS w (is_so, problem, object, detail)
        WHERE w.is_so AND (a.has_no_part OR a.is_of_other_part OR a.is_credited OR a.has_no_charge OR a.waits_wrongly
            OR a.is_not_judged OR a.is_impossible OR a.is_of_no_policy)
        UNION ALL
        SELECT 'waiting_unit_has_a_plan', u.tenant, format('part %s of %s', u.part, u.conversation),
            format('It waits for a plan, and at its instant %s one is in force.', u.charged_at)
        FROM talkmeter.unplanned_unit AS u
        WHERE (
            SELECT s.plan FROM talkmeter.subscription AS s
            WHERE s.tenant = u.tenant AND s.since <= u.charged_at
            ORDER BY s.subscription_id DESC
            LIMIT 1) IS NOT NULL
        UNION ALL
        SELECT w.problem, p.tenant, format('part %s of %s', p.part, p.conversation), w.detail
        FROM (
            SELECT o.tenant, o.conversation, o.part, o.before >= o.first_event OR o.before_is_open AS overlaps,
                o.was_charged <> o.charged_before OR (o.is_last AND c.highest_part > 0 AND c.current_part IS NULL
                    AND COALESCE(c.charged_before, false) <> (o.was_charged OR o.is_charged)) AS is_of_other_past,
                c.highest_part IS NULL OR c.highest_part < o.part AS is_unknown
            FROM (
                SELECT e.tenant, e.conversation, e.part, e.first_event, lag(e.last_event) OVER w AS before,
                    lag(e.ended_at IS NULL OR e.is_held) OVER w AS before_is_open,
                    lead(e.part) OVER w IS NULL AS is_last, e.charged_at IS NOT NULL AS is_charged,
                    COALESCE(e.charged_before, false) AS charged_before, COALESCE(bool_or(e.charged_at IS NOT NULL) OVER (
                        w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS was_charged
                FROM talkmeter.part AS e
                -- A number is sorted faster than two texts.
                WINDOW w AS (PARTITION BY hashtextextended(e.conversation, 0), e.tenant, e.conversation ORDER BY e.first_event)
            ) AS o
            LEFT JOIN talkmeter.conversation AS c ON c.tenant = o.tenant AND c.conversation = o.conversation
        ) AS p
        CROSS JOIN LATERAL (
            VALUES (p.overlaps, 'parts_overlap', 'It begins before the part before it has ended.'),
                (p.is_unknown, 'part_number_is_unknown', 'Its conversation has not counted so far.'),
                (p.is_of_other_past, 'part_charged_before_is_wrong',
                    'It, or its conversation, says other than the parts before whether one of them is charged.')
        ) AS w (is_so, problem, detail)
        WHERE w.is_so AND (p.overlaps OR p.is_unknown OR p.is_of_other_past)
        UNION ALL
        SELECT 'conversation_is_impossible', c.tenant, format('conversation %s', c.conversation),
            format('It has counted %s parts and %s marks, and its current part is %s.', c.highest_part, c.last_mark,
                COALESCE(c.current_part::text, 'none'))
        FROM talkmeter.conversation AS c
        WHERE c.highest_part < 0 OR c.last_mark < 0
            OR c.current_part IS NULL AND (c.timed OR c.policy IS NOT NULL OR c.message_count IS NOT NULL OR c.ended_at IS NOT NULL)
        UNION ALL
        SELECT 'mark_is_impossible', m.tenant, format('mark %s of %s', m.mark, m.conversation),
            format('Its kind is %s.', m.kind)
        FROM talkmeter.marked AS m
        WHERE m.mark < 1 OR pg_catalog.split_part(m.kind, ':', 1) NOT IN ('note', 'system_message', 'error', 'close', 'resolve',
            'escalate', 'new_topic', 'reopen')
        UNION ALL
        SELECT 'mark_number_is_unknown', m.tenant, format('mark %s of %s', max(m.mark), m.conversation),
            'Its conversation has not counted so far.'
        FROM talkmeter.marked AS m
        LEFT JOIN talkmeter.conversation AS c ON c.tenant = m.tenant AND c.conversation = m.conversation
        GROUP BY m.tenant, m.conversation, c.last_mark
        HAVING max(m.mark) > COALESCE(c.last_mark, 0)
        UNION ALL
        SELECT 'period_differs_from_charges', COALESCE(p.tenant, n.tenant),
            format('period from %s to %s', COALESCE(p.period_start, n.period_start), COALESCE(p.period_end, n.period_end)),
            format('It counts %s included, %s pack and %s overage units of %s; the charges are %s, %s and %s of %s.',
                p.included_used, p.pack_used, p.overage_units, p.overage_amount, n.included_used, n.pack_used,
                n.overage_units, n.overage_amount)
        FROM talkmeter.period AS p
        FULL JOIN net AS n ON n.tenant = p.tenant AND n.period_start = p.period_start AND n.period_end = p.period_end
        WHERE (COALESCE(p.included_used, 0), COALESCE(p.pack_used, 0), COALESCE(p.overage_units, 0),
                COALESCE(p.overage_amount, 0))
            <> (COALESCE(n.included_used, 0), COALESCE(n.pack_used, 0), COALESCE(n.overage_units, 0),
                COALESCE(n.overage_amount, 0))
            OR p.tenant IS NULL
        UNION ALL
        SELECT 'more_than_included', n.tenant, format('period from %s to %s', n.period_start, n.period_end),
            format('%s units were included; no plan of its charges includes more than %s.', n.included_used, n.most_included)
        FROM net AS n
        WHERE n.included_used > n.most_included
        UNION ALL
        SELECT 'periods_overlap', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            'Another period of the same months begins within it.'
        FROM talkmeter.period AS p
        JOIN talkmeter.period AS o
            ON o.tenant = p.tenant AND o.period_start > p.period_start AND o.period_start < p.period_end
        -- Two subscriptions with other anchor days make months of their own.
        WHERE (SELECT count(DISTINCT s.anchor_day) FROM talkmeter.subscription AS s WHERE s.tenant = p.tenant) = 1
        UNION ALL
        SELECT NULL, NULL, NULL, NULL FROM talkmeter.show_progress('verify', 10, 26, 'checks') AS shown WHERE NOT shown
        UNION ALL
        SELECT 'period_is_impossible', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            'It ends before it begins, or is finalized in part.'
        FROM talkmeter.period AS p
        WHERE p.period_start >= p.period_end OR num_nonnulls(p.finalized_at, p.finalized_by, p.finalization,
            p.last_charge_id, p.last_subscription_id, p.last_pack_id, p.digest) NOT IN (0, 7)
        UNION ALL
        SELECT 'finalized_before_its_end', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            format('It was finalized at %s.', p.finalized_at)
        FROM talkmeter.period AS p
        WHERE p.finalized_at < p.period_end
        UNION ALL
        SELECT 'pack_differs_from_charges', k.tenant, format('pack %s', k.pack_id),
            format('%s of %s units are left; its charges are %s, from %s to %s.', k.remaining, k.size,
                COALESCE(d.units, 0), d.first, d.last)
        FROM talkmeter.pack AS k
        LEFT JOIN drawn AS d ON d.tenant = k.tenant AND d.pack_id = k.pack_id
        WHERE k.size - k.remaining <> COALESCE(d.units, 0) OR d.first < k.purchased_at OR d.last >= k.expires_at
            OR (k.refunded_at IS NOT NULL AND k.remaining <> k.size)
        UNION ALL
        SELECT 'pack_is_missing', d.tenant, format('pack %s', d.pack_id), format('%s units were drawn from it.', d.units)
        FROM drawn AS d
        LEFT JOIN talkmeter.pack AS k ON k.tenant = d.tenant AND k.pack_id = d.pack_id
        WHERE k.pack_id IS NULL
        UNION ALL
        SELECT 'pack_differs_from_offer', k.tenant, format('pack %s', k.pack_id),
            format('%s units for %s %s until %s; %s is %s units for %s %s, for %s from %s on.', k.size, k.price, k.currency,
                k.expires_at, o.name, o.size, o.price, o.currency, COALESCE(o.valid_for::text, o.expiry), k.purchased_at)
        FROM talkmeter.pack AS k
        JOIN talkmeter.pack_offer AS o ON o.name = k.pack
        WHERE (k.size, k.price, k.currency) <> (o.size, o.price, o.currency)
            OR CASE o.expiry
                WHEN 'never' THEN k.expires_at <> 'infinity'
                -- A subscription that was made since may have divided the months anew; no month is longer than this.
                WHEN 'period' THEN extract(epoch FROM k.expires_at) - extract(epoch FROM k.purchased_at) > 47 * 86400
                -- Numbers hold whatever the columns do.
                ELSE extract(epoch FROM k.expires_at) - extract(epoch FROM k.purchased_at) <> extract(epoch FROM o.valid_for) END
        UNION ALL
        SELECT 'pack_is_billed_elsewhere', k.tenant, format('pack %s', k.pack_id),
            format('It was bought at %s, and is on the statement of %s.', k.purchased_at, k.billed_at)
        FROM talkmeter.pack AS k
        WHERE k.billed_at <> k.purchased_at AND NOT EXISTS (
            SELECT FROM talkmeter.period AS p
            -- Its own period, or the first one if it was bought before, had been frozen.
            WHERE p.tenant = k.tenant AND p.period_end > k.purchased_at AND p.last_pack_id < k.pack_id
                AND (p.period_start <= k.purchased_at
                    OR NOT EXISTS (SELECT FROM talkmeter.period_at(k.tenant, k.purchased_at))))
        UNION ALL
        SELECT 'days_differ_from_charges', COALESCE(d.tenant, c.tenant), format('day %s', COALESCE(d.day, c.day)),
            format('It counts %s units, the charges are %s.', COALESCE(d.units, 0), COALESCE(c.units, 0))
        FROM talkmeter.day_units AS d
        FULL JOIN (
            SELECT t.tenant, t.day, sum(t.units) AS units FROM total AS t WHERE t.day IS NOT NULL GROUP BY t.tenant, t.day
        ) AS c ON c.tenant = d.tenant AND c.day = d.day
        WHERE COALESCE(d.units, 0) <> COALESCE(c.units, 0) AND (c.tenant IS NOT NULL
            OR NOT EXISTS (SELECT FROM total AS t WHERE t.tenant = d.tenant AND t.day IS NULL))
        UNION ALL
        SELECT 'first_day_differs_from_charges', t.tenant, 'first_day',
            format('The account says %s, the first charge is of %s.', a.first_day, t.day)
        FROM (
            SELECT o.tenant, min(o.day) AS day FROM total AS o WHERE o.charges > 0
            GROUP BY o.tenant HAVING bool_and(o.day IS NOT NULL)
        ) AS t
        JOIN talkmeter.account AS a ON a.tenant = t.tenant
        WHERE a.first_day IS DISTINCT FROM t.day
        UNION ALL
        SELECT 'alerts_differ_from_period', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            format('It has raised %s; the alerts are %s.', p.alerted, a.kinds)
        FROM talkmeter.period AS p
        LEFT JOIN (
            SELECT o.tenant, o.period_start, o.period_end, array_agg(o.kind ORDER BY o.kind) AS kinds
            FROM talkmeter.alert AS o
            WHERE o.day = '-infinity'
            GROUP BY o.tenant, o.period_start, o.period_end
        ) AS a ON a.tenant = p.tenant AND a.period_start = p.period_start AND a.period_end = p.period_end
        WHERE (SELECT COALESCE(array_agg(k ORDER BY k COLLATE "C"), '{}') FROM unnest(p.alerted) AS k)
            <> COALESCE(a.kinds, '{}')
        UNION ALL
        SELECT NULL, NULL, NULL, NULL FROM talkmeter.show_progress('verify', 20, 26, 'checks') AS shown WHERE NOT shown
        UNION ALL
        SELECT 'alert_of_nothing', a.tenant, format('alert %s of the period from %s', a.kind, a.period_start),
            CASE WHEN a.day = '-infinity' THEN 'There is no such period.'
                ELSE format('Day %s was never reconciled.', a.day) END
        FROM talkmeter.alert AS a
        LEFT JOIN talkmeter.period AS p ON p.tenant = a.tenant AND p.period_start = a.period_start
            AND p.period_end = a.period_end
        LEFT JOIN talkmeter.reconciliation AS r ON r.tenant = a.tenant AND r.day = a.day
        WHERE CASE WHEN a.day = '-infinity' THEN p.tenant IS NULL ELSE a.kind <> 'reconcile' OR r.tenant IS NULL END
        UNION ALL
        SELECT 'reconciliation_is_wrong', r.tenant, format('day %s', r.day),
            CASE WHEN r.flagged THEN 'It is flagged, and its counts agree or nobody was told.'
                ELSE 'It is not flagged, and its counts differ.' END
        FROM talkmeter.reconciliation AS r
        LEFT JOIN talkmeter.alert AS a ON a.tenant = r.tenant AND a.day = r.day AND a.kind = 'reconcile'
        WHERE (r.flagged AND a.tenant IS NULL) OR r.flagged IS DISTINCT FROM (
            SELECT bool_or(abs(x.a - x.b) * 100.0 > 5.0 * GREATEST(x.a, x.b))
            FROM (VALUES (r.charged::numeric, r.recounted::numeric + r.unprovable), (r.charged, r.external),
                (r.recounted::numeric + r.unprovable, r.external)) AS x (a, b))
        UNION ALL
        SELECT 'statement_line_is_wrong', l.tenant, format('line %s of the period from %s', l.line, l.period_start),
            CASE WHEN p.finalized_at IS NULL THEN 'It is frozen, and its period is not finalized.'
                WHEN l.kind = 'base' THEN 'It is the price of no plan.'
                ELSE 'Its amount is not its quantity times its price.' END
        FROM talkmeter.statement_line AS l
        LEFT JOIN talkmeter.period AS p ON p.tenant = l.tenant AND p.period_start = l.period_start
            AND p.period_end = l.period_end
        WHERE p.finalized_at IS NULL
            OR l.amount IS DISTINCT FROM round(l.quantity * l.unit_price, talkmeter.currency_digits(l.currency))
            OR l.kind = 'base' AND NOT EXISTS (
                SELECT FROM talkmeter.plan AS o
                WHERE o.name = l.description AND o.price = l.unit_price AND o.currency = l.currency AND l.quantity = 1)
        UNION ALL
        SELECT 'statement_differs_from_ledger', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            'Its frozen lines are not those of its plan, its charges and its packs.'
        FROM talkmeter.period AS p
        CROSS JOIN LATERAL (
            -- A subscription that was backdated since may have changed the base price, and with it the place of the others.
            SELECT NOT EXISTS (
                SELECT FROM talkmeter.subscription AS s
                WHERE s.tenant = p.tenant AND s.since < p.period_end AND s.subscription_id > p.last_subscription_id) AS with_base
        ) AS o
        WHERE p.finalized_at IS NOT NULL AND (
            SELECT array_agg((CASE WHEN o.with_base THEN l.line END, l.kind, l.of_period_start, l.description, l.quantity,
                trim_scale(l.unit_price), l.amount, l.currency)::text ORDER BY l.line)
            FROM talkmeter.statement_line AS l
            WHERE l.tenant = p.tenant AND l.period_start = p.period_start AND l.period_end = p.period_end
                AND (o.with_base OR l.kind <> 'base')
        ) IS DISTINCT FROM (
            SELECT array_agg((CASE WHEN o.with_base THEN l.line END, l.kind, l.of_period_start, l.description, l.quantity,
                trim_scale(l.unit_price), l.amount, l.currency)::text ORDER BY l.line)
            FROM talkmeter.statement_lines(p.tenant, p.period_start, p.period_end) AS l
            WHERE o.with_base OR l.kind <> 'base'
        )
        UNION ALL
        SELECT 'evidence_differs', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            'Its statement and its charges are not those that were frozen, or the statement frozen before is another.'
        FROM talkmeter.period AS p
        WHERE p.digest <> (
            SELECT talkmeter.chain(e.content ORDER BY e.line)
            FROM talkmeter.evidence_lines(p.tenant, p.period_start, p.period_end) AS e)
        UNION ALL
        -- No unique index spans both tables.
        SELECT 'is_there_twice', w.tenant, w.object, 'It is in schema talkmeter, and in talkmeter_archive too.'
        FROM (
            SELECT e.tenant, format('part %s of %s', e.part, e.conversation) AS object
            FROM ONLY talkmeter.ended_part AS e
            JOIN talkmeter_archive.ended_part AS a ON a.tenant = e.tenant AND a.conversation = e.conversation AND a.part = e.part
            UNION ALL
            SELECT c.tenant, format('charge %s', c.charge_id)
            FROM ONLY talkmeter.charge AS c
            JOIN talkmeter_archive.charge AS a ON a.tenant = c.tenant AND a.charge_id = c.charge_id
            UNION ALL
            SELECT m.tenant, format('mark %s of %s', m.mark, m.conversation)
            FROM ONLY talkmeter.marked AS m
            JOIN talkmeter_archive.marked AS a ON a.tenant = m.tenant AND a.conversation = m.conversation AND a.mark = m.mark
        ) AS w
        UNION ALL
        -- No foreign key says so: a parallel restore loads the tables in any order.
        SELECT 'plan_is_missing', n.tenant, n.object, format('There is no plan %s.', n.plan)
        FROM (
            SELECT s.tenant, format('subscription %s', s.subscription_id) AS object, s.plan FROM talkmeter.subscription AS s
            UNION ALL
            SELECT NULL, format('default plan of %s', s.relation), s.default_plan FROM talkmeter.source AS s
        ) AS n
        WHERE n.plan IS NOT NULL AND NOT EXISTS (SELECT FROM talkmeter.plan AS o WHERE o.name = n.plan)
        UNION ALL
        SELECT 'dispute_is_wrong', d.tenant, format('dispute %s', d.dispute_id),
            CASE WHEN c.charge_id IS NULL THEN format('Charge %s is not there.', d.charge_id)
                WHEN c.reverses IS NOT NULL THEN format('Charge %s takes another one back.', d.charge_id)
                WHEN d.state = 'credited' THEN format('It is credited, and charge %s was not.', d.charge_id)
                ELSE format('It is open, and charge %s was credited.', d.charge_id) END
        FROM talkmeter.dispute_filed AS d
        LEFT JOIN talkmeter.charge AS c ON c.tenant = d.tenant AND c.charge_id = d.charge_id
        LEFT JOIN reversed AS r ON r.tenant = d.tenant AND r.charge_id = d.charge_id
        WHERE c.charge_id IS NULL OR c.reverses IS NOT NULL
            OR CASE d.state WHEN 'credited' THEN r.reason IS DISTINCT FROM 'credit' WHEN 'open' THEN r.reason = 'credit' END
    $$;
REVOKE ALL ON FUNCTION talkmeter.verify() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.verify() IS
    'Every row at which parts, charges, packs, periods, alerts and statements do not agree; no rows: the books are sound. Reads only';
-- What people read. No view is granted to anybody at install.

CREATE VIEW talkmeter.policies AS
    SELECT name, version AS policy_version, label, effective_from, starts_on, ends_on, idle_timeout, quiet_review_after,
        max_duration, turn_limit, charge_on, charge_events, outcomes,
        CASE WHEN never_final THEN 'forever' ELSE final_after::text END AS final_after, once_per,
        staff_reply_blocks, error_before_reply_waives, exclude_prefixes, retroactive, note, defined_at, defined_by
    FROM talkmeter.policy;
REVOKE ALL ON talkmeter.policies FROM PUBLIC;
COMMENT ON VIEW talkmeter.policies IS 'Every version of every policy';
COMMENT ON COLUMN talkmeter.policies.name IS 'Its name';
COMMENT ON COLUMN talkmeter.policies.policy_version IS 'Counts within the name';
COMMENT ON COLUMN talkmeter.policies.label IS 'The vendor''s own name of the version';
COMMENT ON COLUMN talkmeter.policies.effective_from IS 'Parts that open from then on are judged by it';
COMMENT ON COLUMN talkmeter.policies.starts_on IS 'Events that open a part';
COMMENT ON COLUMN talkmeter.policies.ends_on IS 'Events that end one';
COMMENT ON COLUMN talkmeter.policies.idle_timeout IS 'A longer gap has ended the part; null: never';
COMMENT ON COLUMN talkmeter.policies.quiet_review_after IS
    'A gap of at least this has ended a part that no staff has answered; null: never';
COMMENT ON COLUMN talkmeter.policies.max_duration IS 'It ends so long after its start; null: never';
COMMENT ON COLUMN talkmeter.policies.turn_limit IS 'Turns after which it ends; null: no limit';
COMMENT ON COLUMN talkmeter.policies.charge_on IS 'start, first_ai_reply, first_of (charge_events), or close: its end';
COMMENT ON COLUMN talkmeter.policies.charge_events IS 'The events at whose first it is judged; null unless charge_on is first_of';
COMMENT ON COLUMN talkmeter.policies.outcomes IS 'The rules by which it is judged, in order; null: it is billable if the AI replied';
COMMENT ON COLUMN talkmeter.policies.final_after IS
    'How long after its end an event may still change what is decided of it; forever: until another one opens; null: not at all';
COMMENT ON COLUMN talkmeter.policies.once_per IS 'conversation: it is not billable if an earlier part of its conversation is charged; null: each is';
COMMENT ON COLUMN talkmeter.policies.staff_reply_blocks IS 'A visible staff reply makes it not billable';
COMMENT ON COLUMN talkmeter.policies.error_before_reply_waives IS 'An error before the first AI reply makes it not billable';
COMMENT ON COLUMN talkmeter.policies.exclude_prefixes IS 'Conversations whose ids start with one of these are never charged';
COMMENT ON COLUMN talkmeter.policies.retroactive IS 'It was defined to be in force before, although its policy had judged parts';
COMMENT ON COLUMN talkmeter.policies.note IS 'What was said when it was defined';
COMMENT ON COLUMN talkmeter.policies.defined_at IS 'When it was defined; null: it came with the extension';
COMMENT ON COLUMN talkmeter.policies.defined_by IS 'Who defined it';

CREATE VIEW talkmeter.plans AS
    SELECT name, included, overage_rate, price, currency, rates
    FROM talkmeter.plan;
REVOKE ALL ON talkmeter.plans FROM PUBLIC;
COMMENT ON VIEW talkmeter.plans IS 'Plans that a tenant can be put on';
COMMENT ON COLUMN talkmeter.plans.name IS 'Its name';
COMMENT ON COLUMN talkmeter.plans.included IS 'Units that the plan includes per period';
COMMENT ON COLUMN talkmeter.plans.overage_rate IS 'Price of one overage unit, exact, if its outcome has none of its own';
COMMENT ON COLUMN talkmeter.plans.price IS 'Price per period; null: not known to the meter';
COMMENT ON COLUMN talkmeter.plans.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.plans.rates IS 'Prices of one overage unit by its outcome, exact; null: no outcome has one of its own';

CREATE VIEW talkmeter.pack_offers AS
    SELECT name, size, price, currency, COALESCE(valid_for::text, expiry) AS valid_for
    FROM talkmeter.pack_offer;
REVOKE ALL ON talkmeter.pack_offers FROM PUBLIC;
COMMENT ON VIEW talkmeter.pack_offers IS 'Packs that a tenant can buy';
COMMENT ON COLUMN talkmeter.pack_offers.name IS 'Its name';
COMMENT ON COLUMN talkmeter.pack_offers.size IS 'Units';
COMMENT ON COLUMN talkmeter.pack_offers.price IS 'Its price';
COMMENT ON COLUMN talkmeter.pack_offers.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.pack_offers.valid_for IS
    'Lifetime from the purchase on, a day is 24 hours; period: to the end of the billing month that holds the purchase; or never';

CREATE VIEW talkmeter.sources AS
    SELECT relation AS source, policy, default_plan, strict, starts_at, attached_at, attached_by, mapping, role, row_mode
    FROM talkmeter.source
    WHERE detached_at IS NULL;
REVOKE ALL ON talkmeter.sources FROM PUBLIC;
COMMENT ON VIEW talkmeter.sources IS 'The attached tables';
COMMENT ON COLUMN talkmeter.sources.source IS 'The table';
COMMENT ON COLUMN talkmeter.sources.policy IS 'The policy of parts that its rows open; null for a status table';
COMMENT ON COLUMN talkmeter.sources.default_plan IS 'The plan of tenants first charged through it; null: their units wait';
COMMENT ON COLUMN talkmeter.sources.strict IS 'A row that cannot be metered is an error';
COMMENT ON COLUMN talkmeter.sources.starts_at IS 'Rows dated before it are ignored; -infinity if the table was empty at its first attach';
COMMENT ON COLUMN talkmeter.sources.attached_at IS 'When it was attached last';
COMMENT ON COLUMN talkmeter.sources.attached_by IS 'Who attached it';
COMMENT ON COLUMN talkmeter.sources.mapping IS 'The newest version, as it was given to attach or remap';
COMMENT ON COLUMN talkmeter.sources.role IS 'messages or status';
COMMENT ON COLUMN talkmeter.sources.row_mode IS 'Its triggers fire for each row, and also while logical replication applies it';

CREATE VIEW talkmeter.mappings AS
    SELECT v.source, v.since, lead(v.since, 1, 'infinity') OVER (PARTITION BY v.source ORDER BY v.since) AS until_time,
        v.policy, v.mapping
    FROM (
        SELECT s.relation AS source, s.mapped_since AS since, s.policy, s.mapping
        FROM talkmeter.source AS s
        WHERE s.detached_at IS NULL AND s.role = 'messages'
        UNION ALL
        SELECT s.relation, e.since, e.policy, e.mapping
        FROM talkmeter.earlier_mapping AS e
        JOIN talkmeter.source AS s USING (source_id)
        WHERE s.detached_at IS NULL AND s.role = 'messages'
    ) AS v;
REVOKE ALL ON talkmeter.mappings FROM PUBLIC;
COMMENT ON VIEW talkmeter.mappings IS 'The versions of the mapping of each attached message table: which reads rows of which time';
COMMENT ON COLUMN talkmeter.mappings.source IS 'The table';
COMMENT ON COLUMN talkmeter.mappings.since IS 'Rows dated this or later are read by it; -infinity: all of before';
COMMENT ON COLUMN talkmeter.mappings.until_time IS 'Rows dated this or later are read by the next version; infinity for the newest';
COMMENT ON COLUMN talkmeter.mappings.policy IS 'The policy of parts that its rows open';
COMMENT ON COLUMN talkmeter.mappings.mapping IS 'As it was given to attach or remap';

CREATE VIEW talkmeter.source_gaps AS
    SELECT s.relation AS source, g.from_time, g.until_time, g.because
    FROM talkmeter.source_gap AS g
    JOIN talkmeter.source AS s USING (source_id)
    WHERE s.detached_at IS NULL;
REVOKE ALL ON talkmeter.source_gaps FROM PUBLIC;
COMMENT ON VIEW talkmeter.source_gaps IS 'Spans of time, of attached tables, whose rows are no events until they are backfilled';
COMMENT ON COLUMN talkmeter.source_gaps.source IS 'The table';
COMMENT ON COLUMN talkmeter.source_gaps.from_time IS 'When it was detached; or from when on rows wait that were there before the attach';
COMMENT ON COLUMN talkmeter.source_gaps.until_time IS
    'When it was attached again; or up to when rows wait that were there before the attach';
COMMENT ON COLUMN talkmeter.source_gaps.because IS 'detached, or before_start';

CREATE VIEW talkmeter.quarantine AS
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
        END AS hint
    FROM talkmeter.quarantined AS q
    LEFT JOIN talkmeter.source AS s USING (source_id)
    -- What a change took away is listed only if there is nothing else of its row.
    WHERE q.removal IS NULL OR NOT EXISTS (
        SELECT FROM talkmeter.quarantined AS o
        WHERE o.source_id = q.source_id AND o.message_id = q.message_id
            AND pg_catalog.hashtextextended(o.message_id, 0) = pg_catalog.hashtextextended(q.message_id, 0)
            AND (o.removal IS NULL OR o.quarantine_id < q.quarantine_id));
REVOKE ALL ON talkmeter.quarantine FROM PUBLIC;
COMMENT ON VIEW talkmeter.quarantine IS 'Rows of attached tables, and marks, that could not be metered, why, and what helps';
COMMENT ON COLUMN talkmeter.quarantine.source IS 'The attached table; null for a mark';
COMMENT ON COLUMN talkmeter.quarantine.message_id IS 'Its message id, as far as it can be read as text, or the number of the mark';
COMMENT ON COLUMN talkmeter.quarantine.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.quarantine.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.quarantine.occurred_at IS 'Its time, if it has one that can be metered';
COMMENT ON COLUMN talkmeter.quarantine.reason IS 'Why it could not be metered';
COMMENT ON COLUMN talkmeter.quarantine.quarantined_at IS 'When it was put into quarantine';
COMMENT ON COLUMN talkmeter.quarantine.detail IS 'What went wrong, where the reason does not say it all';
COMMENT ON COLUMN talkmeter.quarantine.mark_kind IS 'The kind of a mark that waits; null for a row';
COMMENT ON COLUMN talkmeter.quarantine.hint IS 'What helps';

CREATE VIEW talkmeter.parts AS
    SELECT p.tenant, p.conversation, p.part, p.policy, p.policy_version,
        CASE WHEN p.ended_at IS NULL AND NOT p.passed THEN 'open' ELSE 'ended' END AS status,
        p.started_at, p.first_ai_reply_at, p.last_activity_at,
        CASE WHEN p.passed THEN p.due_end ELSE p.ended_at END AS ended_at,
        CASE WHEN p.passed THEN p.due_reason ELSE p.end_reason END AS end_reason,
        p.charged_at IS NOT NULL OR p.passed AND p.due_because IS NULL AS billable,
        CASE WHEN p.passed THEN p.due_because WHEN p.ended_at IS NOT NULL THEN p.not_billable_because END
            AS not_billable_because,
        CASE WHEN p.passed AND p.due_because IS NULL THEN COALESCE(p.charged_at, p.due_end) ELSE p.charged_at END
            AS charged_at,
        p.message_count, p.turn_count, p.ai_replies, p.staff_replies,
        talkmeter.local_day(p.tenant, p.started_at) AS started_day,
        CASE WHEN p.passed THEN p.due_outcome WHEN p.ended_at IS NOT NULL OR p.charged_at IS NOT NULL THEN p.outcome END AS outcome,
        CASE WHEN p.charged_at IS NOT NULL OR p.passed AND p.due_because IS NULL THEN 1
            WHEN p.passed OR p.ended_at IS NOT NULL THEN 0 END AS units,
        CASE WHEN p.passed THEN p.due_end + (
                SELECT CASE WHEN v.never_final THEN NULL
                    ELSE pg_catalog.make_interval(secs => COALESCE(extract(epoch FROM v.final_after), 0)::float8) END
                FROM talkmeter.policy AS v
                WHERE v.name = p.policy AND v.version = p.policy_version)
            WHEN p.is_held THEN p.due_at ELSE COALESCE(p.final_at, p.ended_at) END AS final_at
    FROM talkmeter.part_now AS p;
REVOKE ALL ON talkmeter.parts FROM PUBLIC;
COMMENT ON VIEW talkmeter.parts IS 'Every metered interaction; what time has ended shows as ended before any sweep';
COMMENT ON COLUMN talkmeter.parts.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.parts.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.parts.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.parts.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.parts.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.parts.status IS 'open or ended';
COMMENT ON COLUMN talkmeter.parts.started_at IS 'Time of the event that opened it';
COMMENT ON COLUMN talkmeter.parts.first_ai_reply_at IS 'Time of its first AI reply; null: none';
COMMENT ON COLUMN talkmeter.parts.last_activity_at IS 'Time of its last message, or of its opening';
COMMENT ON COLUMN talkmeter.parts.ended_at IS 'Its logical end, not when a sweep or a later event found that; null while open';
COMMENT ON COLUMN talkmeter.parts.end_reason IS 'The end reason; null while open';
COMMENT ON COLUMN talkmeter.parts.billable IS 'Whether it is a unit; false until its charge instant';
COMMENT ON COLUMN talkmeter.parts.not_billable_because IS 'The reason against; null if it is billable, and until it has ended';
COMMENT ON COLUMN talkmeter.parts.charged_at IS 'Its charge instant; null if it is not billable';
COMMENT ON COLUMN talkmeter.parts.message_count IS 'Messages of customer, AI and staff';
COMMENT ON COLUMN talkmeter.parts.turn_count IS 'Complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.parts.ai_replies IS 'AI replies';
COMMENT ON COLUMN talkmeter.parts.staff_replies IS 'Visible staff replies';
COMMENT ON COLUMN talkmeter.parts.started_day IS 'The day on which it began in the tenant''s zone';
COMMENT ON COLUMN talkmeter.parts.outcome IS 'What came of it, in the words of its policy; null if that names none, and until it is judged';
COMMENT ON COLUMN talkmeter.parts.units IS 'How many units it is: 1 or 0; null until it is judged';
COMMENT ON COLUMN talkmeter.parts.final_at IS 'From when on no event changes what was decided of it, unless it comes late; null while open, and if that is when another part opens';

CREATE VIEW talkmeter.unevaluated AS
    SELECT p.tenant, p.conversation, p.part, p.policy, p.policy_version, p.started_at, p.first_ai_reply_at,
        p.last_activity_at, p.message_count, p.turn_count, p.ai_replies, p.staff_replies,
        talkmeter.local_day(p.tenant, p.started_at) AS started_day
    FROM talkmeter.part AS p
    WHERE p.ended_at IS NULL AND NOT p.timed AND p.charged_at IS NULL AND p.not_billable_because IS NULL;
REVOKE ALL ON talkmeter.unevaluated FROM PUBLIC;
COMMENT ON VIEW talkmeter.unevaluated IS 'Open parts that time alone will never end, so that they wait for somebody to close them';
COMMENT ON COLUMN talkmeter.unevaluated.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.unevaluated.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.unevaluated.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.unevaluated.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.unevaluated.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.unevaluated.started_at IS 'Time of the event that opened it';
COMMENT ON COLUMN talkmeter.unevaluated.first_ai_reply_at IS 'Time of its first AI reply; null: none';
COMMENT ON COLUMN talkmeter.unevaluated.last_activity_at IS 'Time of its last message, or of its opening';
COMMENT ON COLUMN talkmeter.unevaluated.message_count IS 'Messages of customer, AI and staff';
COMMENT ON COLUMN talkmeter.unevaluated.turn_count IS 'Complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.unevaluated.ai_replies IS 'AI replies';
COMMENT ON COLUMN talkmeter.unevaluated.staff_replies IS 'Visible staff replies';
COMMENT ON COLUMN talkmeter.unevaluated.started_day IS 'The day on which it began in the tenant''s zone';

CREATE VIEW talkmeter.charges AS
    SELECT tenant, charge_id, conversation, part, charged_at, period_start, posted_period_start, tier, pack_id, amount,
        currency, plan, policy, policy_version, reverses, reason, posted_at, note, posted_by,
        cause_source, cause_message_id, cause_at,
        talkmeter.local_day(tenant, charged_at, charge_id) AS charged_day,
        talkmeter.period_name(tenant, period_start, period_end) AS period,
        talkmeter.period_name(tenant, posted_period_start, posted_period_end) AS posted_period, outcome
    FROM talkmeter.charge;
REVOKE ALL ON talkmeter.charges FROM PUBLIC;
COMMENT ON VIEW talkmeter.charges IS 'The ledger: one row per billed unit, and one per unit taken back';
COMMENT ON COLUMN talkmeter.charges.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.charges.charge_id IS 'Counts within the tenant without gaps, in the order of the ledger';
COMMENT ON COLUMN talkmeter.charges.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.charges.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.charges.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.charges.period_start IS 'The period of the charge instant, whose allowance pays';
COMMENT ON COLUMN talkmeter.charges.posted_period_start IS 'The period whose statement lists it';
COMMENT ON COLUMN talkmeter.charges.tier IS 'Who paid: included, pack or overage';
COMMENT ON COLUMN talkmeter.charges.pack_id IS 'The pack that paid; null for the other tiers';
COMMENT ON COLUMN talkmeter.charges.amount IS
    '0 for included and pack, the rate of its outcome for overage, minus the original for a reversal; exact';
COMMENT ON COLUMN talkmeter.charges.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.charges.plan IS 'The plan in force at the charge instant';
COMMENT ON COLUMN talkmeter.charges.policy IS 'The policy by which the part was judged';
COMMENT ON COLUMN talkmeter.charges.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.charges.reverses IS 'The charge that it takes back; null for a charge';
COMMENT ON COLUMN talkmeter.charges.reason IS
    'Why it was taken back: refold (a late, changed or marked event), voided (an event, as the policy says) or credit; null for a charge';
COMMENT ON COLUMN talkmeter.charges.posted_at IS 'When the row was written';
COMMENT ON COLUMN talkmeter.charges.note IS 'The note of a credit';
COMMENT ON COLUMN talkmeter.charges.posted_by IS
    'Who took it back: by a credit, or as the session that brought the late or changed event; null for a charge';
COMMENT ON COLUMN talkmeter.charges.cause_source IS
    'The table of the late or changed event, as it was called at attach; null for a mark, and for a credit';
COMMENT ON COLUMN talkmeter.charges.cause_message_id IS 'The message id of the late or changed event, or the number of a mark';
COMMENT ON COLUMN talkmeter.charges.cause_at IS 'The time of that event: the first change within the part; of voided the event that took the unit back';
COMMENT ON COLUMN talkmeter.charges.charged_day IS 'The day of the charge instant in the tenant''s zone';
COMMENT ON COLUMN talkmeter.charges.period IS 'The name of the period of the charge instant: the year and month of its first local day, as 2026-03';
COMMENT ON COLUMN talkmeter.charges.posted_period IS 'The name of the period whose statement lists it';
COMMENT ON COLUMN talkmeter.charges.outcome IS 'The outcome of the part; null: its policy names none';

CREATE VIEW talkmeter.packs AS
    SELECT tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at, purchase_key, refunded_at,
        refunded_by, talkmeter.local_day(tenant, purchased_at) AS purchased_day,
        CASE WHEN expires_at < '10000-01-01 00:00+00' THEN talkmeter.local_day(tenant, expires_at) END AS expires_day
    FROM talkmeter.pack;
REVOKE ALL ON talkmeter.packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.packs IS 'Packs that tenants bought, and what is left of them; a refunded one pays no more';
COMMENT ON COLUMN talkmeter.packs.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.packs.pack_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.packs.pack IS 'Name of the pack';
COMMENT ON COLUMN talkmeter.packs.size IS 'Units bought';
COMMENT ON COLUMN talkmeter.packs.remaining IS 'Units left';
COMMENT ON COLUMN talkmeter.packs.price IS 'What it cost';
COMMENT ON COLUMN talkmeter.packs.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.packs.purchased_at IS 'First instant at which it pays';
COMMENT ON COLUMN talkmeter.packs.expires_at IS 'First instant at which it pays no more; infinity: it does not expire';
COMMENT ON COLUMN talkmeter.packs.purchase_key IS 'The buyer''s own name of the purchase';
COMMENT ON COLUMN talkmeter.packs.refunded_at IS 'When it was taken back, unused; null: it was not';
COMMENT ON COLUMN talkmeter.packs.refunded_by IS 'Who took it back';
COMMENT ON COLUMN talkmeter.packs.purchased_day IS 'The day of the purchase in the tenant''s zone';
COMMENT ON COLUMN talkmeter.packs.expires_day IS 'The day in which it expires in the tenant''s zone; null: never, or after the year 9999';

CREATE VIEW talkmeter.expired_packs AS
    SELECT tenant, pack_id, pack, size, remaining AS expired_unused, expires_at,
        talkmeter.local_day(tenant, expires_at) AS expires_day
    FROM talkmeter.pack
    WHERE remaining > 0 AND refunded_at IS NULL AND expires_at <= (SELECT clock.now FROM talkmeter.clock);
REVOKE ALL ON talkmeter.expired_packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.expired_packs IS 'Packs that expired before they were used up, and how many units were lost';
COMMENT ON COLUMN talkmeter.expired_packs.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.expired_packs.pack_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.expired_packs.pack IS 'Name of the pack';
COMMENT ON COLUMN talkmeter.expired_packs.size IS 'Units bought';
COMMENT ON COLUMN talkmeter.expired_packs.expired_unused IS 'Units that expired unused';
COMMENT ON COLUMN talkmeter.expired_packs.expires_at IS 'First instant at which it pays no more';
COMMENT ON COLUMN talkmeter.expired_packs.expires_day IS 'The day in which it expired in the tenant''s zone';

CREATE VIEW talkmeter.alerts AS
    SELECT e.tenant, e.period_start, e.kind, e.fired_at, e.detail, e.notified_at, e.muted,
        NULLIF(e.day, '-infinity') AS day, a.alert_channel AS channel,
        talkmeter.period_name(e.tenant, e.period_start, e.period_end) AS period
    FROM talkmeter.alert AS e
    LEFT JOIN talkmeter.account AS a ON a.tenant = e.tenant;
REVOKE ALL ON talkmeter.alerts FROM PUBLIC;
COMMENT ON VIEW talkmeter.alerts IS 'What tenants were, or are to be, told of their usage: each kind once per period';
COMMENT ON COLUMN talkmeter.alerts.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.alerts.period_start IS 'The period of the charge instant; of reconcile the start of the day';
COMMENT ON COLUMN talkmeter.alerts.kind IS 'The kind of alert';
COMMENT ON COLUMN talkmeter.alerts.fired_at IS 'When it was raised';
COMMENT ON COLUMN talkmeter.alerts.detail IS 'The numbers behind it';
COMMENT ON COLUMN talkmeter.alerts.notified_at IS 'When a sweep woke the listeners for it; null: not yet';
COMMENT ON COLUMN talkmeter.alerts.muted IS 'Never sent';
COMMENT ON COLUMN talkmeter.alerts.day IS 'The flagged day of reconcile; null for the others';
COMMENT ON COLUMN talkmeter.alerts.channel IS 'What set_alert_channel set for the tenant';
COMMENT ON COLUMN talkmeter.alerts.period IS 'The name of the period: the year and month of its first local day, as 2026-03';

CREATE VIEW talkmeter.unplanned AS
    SELECT tenant, conversation, part, charged_at, policy, policy_version,
        talkmeter.local_day(tenant, charged_at) AS charged_day, outcome
    FROM talkmeter.unplanned_unit;
REVOKE ALL ON talkmeter.unplanned FROM PUBLIC;
COMMENT ON VIEW talkmeter.unplanned IS 'Billable units that wait until their tenant is subscribed to a plan';
COMMENT ON COLUMN talkmeter.unplanned.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.unplanned.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.unplanned.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.unplanned.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.unplanned.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.unplanned.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.unplanned.charged_day IS 'The day of the charge instant in the tenant''s zone';
COMMENT ON COLUMN talkmeter.unplanned.outcome IS 'The outcome of the part; null: its policy names none';

CREATE VIEW talkmeter.uncharged AS
    SELECT u.tenant, u.conversation, u.part, u.charged_at, u.policy, u.policy_version, s.relation AS source,
        talkmeter.local_day(u.tenant, u.charged_at) AS charged_day, u.outcome
    FROM talkmeter.uncharged_unit AS u
    LEFT JOIN talkmeter.source AS s USING (source_id);
REVOKE ALL ON talkmeter.uncharged FROM PUBLIC;
COMMENT ON VIEW talkmeter.uncharged IS 'Billable units that a backfill has counted and not charged: it is under way, or was called with charge => false';
COMMENT ON COLUMN talkmeter.uncharged.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.uncharged.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.uncharged.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.uncharged.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.uncharged.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.uncharged.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.uncharged.source IS 'The table whose backfill charges it';
COMMENT ON COLUMN talkmeter.uncharged.charged_day IS 'The day of the charge instant in the tenant''s zone';
COMMENT ON COLUMN talkmeter.uncharged.outcome IS 'The outcome of the part; null: its policy names none';

CREATE VIEW talkmeter.usage AS
    SELECT a.tenant, s.plan, period.period_start, period.period_end,
        COALESCE(used.included_used + used.pack_used + used.overage_units, 0) AS used,
        plan.included,
        COALESCE(used.included_used, 0) AS included_used,
        GREATEST(plan.included - COALESCE(used.included_used, 0), 0) AS included_remaining,
        packs.balance AS pack_balance,
        COALESCE(used.pack_used, 0) AS pack_used,
        COALESCE(used.overage_units, 0) AS overage_units,
        plan.overage_rate,
        pg_catalog.round(COALESCE(used.overage_amount, 0), talkmeter.currency_digits(plan.currency))
            AS estimated_overage,
        plan.currency,
        talkmeter.period_name(a.tenant, period.period_start, period.period_end) AS period
    FROM talkmeter.account AS a
    CROSS JOIN LATERAL (
        SELECT subscription.plan
        FROM talkmeter.subscription
        WHERE subscription.tenant = a.tenant AND subscription.since <= (SELECT clock.now FROM talkmeter.clock)
        ORDER BY subscription.subscription_id DESC
        LIMIT 1
    ) AS s
    JOIN talkmeter.plan ON plan.name = s.plan
    CROSS JOIN LATERAL talkmeter.period_at(a.tenant, (SELECT clock.now FROM talkmeter.clock)) AS period
    LEFT JOIN talkmeter.period AS used
        ON used.tenant = a.tenant AND used.period_start = period.period_start
        AND used.period_end = period.period_end
    CROSS JOIN LATERAL (
        SELECT COALESCE(pg_catalog.sum(pack.remaining), 0)::bigint AS balance
        FROM talkmeter.pack
        WHERE pack.tenant = a.tenant AND pack.refunded_at IS NULL
            AND pack.purchased_at <= (SELECT clock.now FROM talkmeter.clock)
            AND (SELECT clock.now FROM talkmeter.clock) < pack.expires_at
    ) AS packs;
REVOKE ALL ON talkmeter.usage FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage IS
    'One row per tenant on a plan: what the current period has used, what is left, and its overage so far, rounded as a statement would';
COMMENT ON COLUMN talkmeter.usage.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage.plan IS 'The plan in force now';
COMMENT ON COLUMN talkmeter.usage.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.usage.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.usage.used IS 'Units of the period, net: included_used + pack_used + overage_units';
COMMENT ON COLUMN talkmeter.usage.included IS 'Units that the plan includes per period';
COMMENT ON COLUMN talkmeter.usage.included_used IS 'Units paid by the allowance';
COMMENT ON COLUMN talkmeter.usage.included_remaining IS 'Units left of the allowance';
COMMENT ON COLUMN talkmeter.usage.pack_balance IS 'Units left in packs that are valid now';
COMMENT ON COLUMN talkmeter.usage.pack_used IS 'Units paid by packs';
COMMENT ON COLUMN talkmeter.usage.overage_units IS 'Units paid as overage';
COMMENT ON COLUMN talkmeter.usage.overage_rate IS 'Price of one overage unit now, exact, if its outcome has none of its own';
COMMENT ON COLUMN talkmeter.usage.estimated_overage IS 'What the overage units cost so far, rounded once';
COMMENT ON COLUMN talkmeter.usage.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.usage.period IS 'The name of the period: the year and month of its first local day, as 2026-03';

CREATE FUNCTION talkmeter.balance(tenant text) RETURNS bigint
    LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        -- An allowance beyond any use is no reason for an error.
        SELECT LEAST(own.included_remaining::numeric + own.pack_balance, 9223372036854775807)::bigint
        FROM (
            SELECT usage.included_remaining, usage.pack_balance
            FROM talkmeter.usage
            WHERE usage.tenant = balance.tenant
            UNION ALL
            -- What its first charge will find, if that can be only one thing.
            SELECT plan.included, packs.balance
            FROM (
                SELECT min(s.default_plan) AS name
                FROM talkmeter.source AS s
                WHERE s.detached_at IS NULL
                HAVING count(DISTINCT s.default_plan) = 1
            ) AS given
            JOIN talkmeter.plan ON plan.name = given.name
            CROSS JOIN LATERAL (
                SELECT COALESCE(sum(pack.remaining), 0)::bigint AS balance
                FROM talkmeter.pack
                WHERE pack.tenant = balance.tenant AND pack.refunded_at IS NULL
                    AND pack.purchased_at <= (SELECT clock.now FROM talkmeter.clock)
                    AND (SELECT clock.now FROM talkmeter.clock) < pack.expires_at
            ) AS packs
            WHERE NOT EXISTS (SELECT FROM talkmeter.subscription AS s WHERE s.tenant = balance.tenant)
                AND NOT EXISTS (SELECT FROM talkmeter.waiting_unit AS w WHERE w.tenant = balance.tenant)
        ) AS own
    $$;
REVOKE ALL ON FUNCTION talkmeter.balance(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.balance(text) IS
    'Units that a tenant has left before overage: allowance of the current period and unexpired packs. Before its first charge, those that it would have by the one default plan of attached tables. Null without a plan';

-- What a driver sends for a number or a uuid; a text and an untyped string mean the other one.
CREATE FUNCTION talkmeter.balance(tenant anyelement) RETURNS bigint
    LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$ SELECT talkmeter.balance(tenant::text) $$;
REVOKE ALL ON FUNCTION talkmeter.balance(anyelement) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.balance(anyelement) IS 'The same for a tenant whose key is a number or a uuid: balance(42)';

CREATE VIEW talkmeter.disputes AS
    SELECT d.tenant, d.dispute_id, d.charge_id, c.conversation, c.part, d.reason, d.state, d.filed_at, d.filed_by,
        d.due_at, d.state = 'open' AND d.due_at <= (SELECT clock.now FROM talkmeter.clock) AS overdue, d.resolved_at,
        d.resolved_by, d.note,
        -- It ends when that day does.
        talkmeter.local_day(d.tenant, d.due_at - interval '1 microsecond') AS due_day
    FROM talkmeter.dispute_filed AS d
    JOIN talkmeter.charge AS c USING (tenant, charge_id);
REVOKE ALL ON talkmeter.disputes FROM PUBLIC;
COMMENT ON VIEW talkmeter.disputes IS 'Disputes, those that should have been resolved by now with overdue';
COMMENT ON COLUMN talkmeter.disputes.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.disputes.dispute_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.disputes.charge_id IS 'The charge';
COMMENT ON COLUMN talkmeter.disputes.conversation IS 'The conversation of the charge';
COMMENT ON COLUMN talkmeter.disputes.part IS 'The part that is charged';
COMMENT ON COLUMN talkmeter.disputes.reason IS 'What the merchant says';
COMMENT ON COLUMN talkmeter.disputes.state IS 'open, credited or rejected';
COMMENT ON COLUMN talkmeter.disputes.filed_at IS 'When it was filed';
COMMENT ON COLUMN talkmeter.disputes.filed_by IS 'Who filed it';
COMMENT ON COLUMN talkmeter.disputes.due_at IS 'The end of the 10th business day after the day of filing';
COMMENT ON COLUMN talkmeter.disputes.overdue IS 'Open, and due';
COMMENT ON COLUMN talkmeter.disputes.resolved_at IS 'When it was resolved';
COMMENT ON COLUMN talkmeter.disputes.resolved_by IS 'Who resolved it';
COMMENT ON COLUMN talkmeter.disputes.note IS 'The note of the resolution';
COMMENT ON COLUMN talkmeter.disputes.due_day IS 'The last day on which it is to be resolved, in the tenant''s zone';

CREATE VIEW talkmeter.reconciliations AS
    SELECT tenant, day, charged, recounted, unprovable, external, flagged, reconciled_at, reviewed_by, reviewed_at
    FROM talkmeter.reconciliation;
REVOKE ALL ON talkmeter.reconciliations FROM PUBLIC;
COMMENT ON VIEW talkmeter.reconciliations IS
    'What was charged on a local day, what a recount of the messages gives, and what somebody else reported; flagged: two of them are more than 5 % apart';
COMMENT ON COLUMN talkmeter.reconciliations.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.reconciliations.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.reconciliations.charged IS 'Units by charge instant, credits aside';
COMMENT ON COLUMN talkmeter.reconciliations.recounted IS 'Units by a recount of the messages that exist now';
COMMENT ON COLUMN talkmeter.reconciliations.unprovable IS
    'Charged units of conversations that have lost rows, or whose rows cannot be read';
COMMENT ON COLUMN talkmeter.reconciliations.external IS 'What was reported; null: nothing';
COMMENT ON COLUMN talkmeter.reconciliations.flagged IS
    'Whether two of charged, recounted + unprovable and external differ by more than 5 % of the larger';
COMMENT ON COLUMN talkmeter.reconciliations.reconciled_at IS 'When it was counted last';
COMMENT ON COLUMN talkmeter.reconciliations.reviewed_by IS 'Who has looked at it';
COMMENT ON COLUMN talkmeter.reconciliations.reviewed_at IS 'When somebody has looked at it';
-- Why was a conversation billed, or not?

CREATE FUNCTION talkmeter.explain(tenant text, conversation text)
    RETURNS TABLE (step integer, occurred_at timestamptz, event text, source regclass, message_id text, part integer,
        effect text, rule text, charge_id bigint, tier text, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'explain_wrapper';
REVOKE ALL ON FUNCTION talkmeter.explain(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.explain(text, text) IS
    'Each event of a conversation in order, the part it fell in, what it did and the rule that said so, with the charge of a billable part; then what was taken back, then rows in quarantine. If nothing of it is metered, one line says so, step 0, and which one may be meant';

CREATE FUNCTION talkmeter.explain_json(tenant text, conversation text) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT jsonb_build_object(
            'tenant', explain_json.tenant, 'conversation', explain_json.conversation,
            'parts', COALESCE((
                SELECT jsonb_agg(jsonb_strip_nulls(to_jsonb(p)) - 'tenant' - 'conversation' ORDER BY p.started_at, p.part)
                FROM talkmeter.parts AS p
                WHERE p.tenant = explain_json.tenant AND p.conversation = explain_json.conversation), '[]'),
            'steps', COALESCE((
                SELECT jsonb_agg(jsonb_strip_nulls(to_jsonb(e)) ORDER BY e.step)
                FROM talkmeter.explain(explain_json.tenant, explain_json.conversation) AS e
                WHERE e.step > 0), '[]'))
    $$;
REVOKE ALL ON FUNCTION talkmeter.explain_json(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.explain_json(text, text) IS
    'The parts of a conversation and the steps of explain, as one json document without nulls';
-- What have tenants used day by day and month by month, and what will it come to?

CREATE VIEW talkmeter.usage_daily AS
    SELECT d.tenant, d.day, d.units AS used
    FROM talkmeter.day_units AS d;
REVOKE ALL ON talkmeter.usage_daily FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage_daily IS
    'Net units of each local day of a tenant, by charge instant; a day without units has no row, or 0 if all were taken back';
COMMENT ON COLUMN talkmeter.usage_daily.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage_daily.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.usage_daily.used IS 'Units charged on that day by charge instant, net; 0 if all were taken back';

CREATE VIEW talkmeter.usage_history AS
    SELECT u.tenant, plan.name AS plan, u.period_start, u.period_end,
        u.included_used + u.pack_used + u.overage_units AS used,
        plan.included, u.included_used, u.pack_used, u.overage_units,
        pg_catalog.round(u.overage_amount, talkmeter.currency_digits(plan.currency)) AS overage, plan.currency,
        u.finalized_at, talkmeter.period_name(u.tenant, u.period_start, u.period_end) AS period
    FROM talkmeter.period AS u
    LEFT JOIN LATERAL (
        SELECT s.plan
        FROM talkmeter.subscription AS s
        WHERE s.tenant = u.tenant AND s.since < u.period_end AND s.plan IS NOT NULL
        ORDER BY s.subscription_id DESC
        LIMIT 1
    ) AS last ON true
    LEFT JOIN talkmeter.plan ON plan.name = last.plan
    WHERE u.period_end <= (SELECT clock.now FROM talkmeter.clock);
REVOKE ALL ON talkmeter.usage_history FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage_history IS
    'One row per tenant and month that is over and had units: what it used, net, with its last plan; its statement has the money line by line';
COMMENT ON COLUMN talkmeter.usage_history.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage_history.plan IS 'The last plan of the period';
COMMENT ON COLUMN talkmeter.usage_history.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.usage_history.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.usage_history.used IS 'Units, net';
COMMENT ON COLUMN talkmeter.usage_history.included IS 'Units that the plan includes per period';
COMMENT ON COLUMN talkmeter.usage_history.included_used IS 'Units paid by the allowance';
COMMENT ON COLUMN talkmeter.usage_history.pack_used IS 'Units paid by packs';
COMMENT ON COLUMN talkmeter.usage_history.overage_units IS 'Units paid as overage';
COMMENT ON COLUMN talkmeter.usage_history.overage IS 'What the overage units cost, rounded once';
COMMENT ON COLUMN talkmeter.usage_history.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.usage_history.finalized_at IS 'When its statement was frozen; null: it is not';
COMMENT ON COLUMN talkmeter.usage_history.period IS 'The name of the period: the year and month of its first local day, as 2026-03';

CREATE VIEW talkmeter.usage_projection AS
    SELECT u.tenant, u.period_start, u.period_end, u.used,
        p.units AS projected_used,
        u.overage_units + p.beyond AS projected_overage_units,
        pg_catalog.round(COALESCE(own.overage_amount, 0) + p.beyond * rate.mean,
            talkmeter.currency_digits(u.currency)) AS projected_overage,
        u.currency, u.period
    FROM talkmeter.usage AS u
    LEFT JOIN talkmeter.period AS own
        ON own.tenant = u.tenant AND own.period_start = u.period_start AND own.period_end = u.period_end
    CROSS JOIN LATERAL (
        SELECT pg_catalog.round(u.used * EXTRACT(epoch FROM u.period_end - u.period_start)
            / GREATEST(EXTRACT(epoch FROM (SELECT clock.now FROM talkmeter.clock) - u.period_start), 1))::bigint AS units
    ) AS whole
    CROSS JOIN LATERAL (
        SELECT whole.units, GREATEST(whole.units - u.used - u.included_remaining - u.pack_balance, 0) AS beyond
    ) AS p
    CROSS JOIN LATERAL (
        -- As its outcomes were so far; only a plan with rates by outcome needs the charges for that.
        SELECT COALESCE(CASE WHEN plan.rates IS NOT NULL THEN (
                SELECT pg_catalog.sum(c.units * CASE WHEN pg_catalog.jsonb_typeof(plan.rates -> c.outcome) = 'number'
                    THEN (plan.rates ->> c.outcome)::numeric ELSE plan.overage_rate END) / NULLIF(pg_catalog.sum(c.units), 0)
                FROM talkmeter.posting AS c
                WHERE c.tenant = u.tenant AND c.posted_period_start = u.period_start
                    AND c.period_start = u.period_start AND c.period_end = u.period_end) END, plan.overage_rate) AS mean
        FROM talkmeter.plan
        WHERE plan.name = u.plan
    ) AS rate;
REVOKE ALL ON talkmeter.usage_projection FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage_projection IS
    'What the current period comes to if it goes on as it went so far: units, of them overage, and its money; no pack is expected to be bought or to expire, and outcomes to be as they were';
COMMENT ON COLUMN talkmeter.usage_projection.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage_projection.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.usage_projection.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.usage_projection.used IS 'Units so far, net';
COMMENT ON COLUMN talkmeter.usage_projection.projected_used IS 'Units at the end';
COMMENT ON COLUMN talkmeter.usage_projection.projected_overage_units IS 'Units of them in overage';
COMMENT ON COLUMN talkmeter.usage_projection.projected_overage IS 'Their cost, rounded once';
COMMENT ON COLUMN talkmeter.usage_projection.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.usage_projection.period IS 'The name of the period: the year and month of its first local day, as 2026-03';

CREATE FUNCTION talkmeter.audit_of(tenant text, conversation text, first bytea, last bytea)
    RETURNS TABLE (customer text, stages text[], models text[], safety_passed boolean)
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1 COST 10000 AS 'MODULE_PATHNAME', 'audit_of_wrapper';
REVOKE ALL ON FUNCTION talkmeter.audit_of(text, text, bytea, bytea) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.audit_of(text, text, bytea, bytea) IS
    'What audit_trail shows of the rows of a part, from its first event to its last: the first customer, stages and models in the order in which they were first seen, and whether all safety checks were passed';

CREATE VIEW talkmeter.audited AS
    -- A cell that begins with one of these is a formula to a spreadsheet.
    SELECT p.tenant, pg_catalog.regexp_replace(p.conversation, '^([=+@\t\r\n-])', '''\1') AS conversation, p.part,
        pg_catalog.regexp_replace(seen.customer, '^([=+@\t\r\n-])', '''\1') AS customer, p.started_at, p.first_ai_reply_at,
        p.last_activity_at,
        CASE WHEN p.passed THEN p.due_end ELSE p.ended_at END AS ended_at,
        CASE WHEN p.passed THEN p.due_reason ELSE p.end_reason END AS end_reason,
        COALESCE(p.charged_at, p.due_end) AS charged_at, p.message_count, p.turn_count, p.ai_replies, p.staff_replies,
        seen.stages, seen.models, seen.safety_passed, c.charge_id, c.tier, c.amount, c.currency,
        c.taken_back, pg_catalog.regexp_replace(p.policy, '^([=+@\t\r\n-])', '''\1') AS policy, p.policy_version,
        talkmeter.local_day(p.tenant, COALESCE(p.charged_at, p.due_end), c.charge_id) AS charged_day,
        pg_catalog.regexp_replace(c.outcome, '^([=+@\t\r\n-])', '''\1') AS outcome
    FROM talkmeter.part_now AS p
    CROSS JOIN LATERAL talkmeter.audit_of(p.tenant, p.conversation, p.first_event, p.last_event) AS seen
    LEFT JOIN LATERAL (
        SELECT own.charge_id, own.tier, own.amount, own.currency, own.outcome, EXISTS (
            SELECT FROM talkmeter.charge AS r WHERE r.tenant = own.tenant AND r.reverses = own.charge_id) AS taken_back
        FROM talkmeter.charge AS own
        WHERE own.tenant = p.tenant AND own.conversation = p.conversation AND own.part = p.part AND own.reverses IS NULL
        ORDER BY own.charge_id DESC
        LIMIT 1
    ) AS c ON true
    WHERE p.charged_at IS NOT NULL OR p.passed AND p.due_because IS NULL;
REVOKE ALL ON talkmeter.audited FROM PUBLIC;
COMMENT ON VIEW talkmeter.audited IS
    'The rows of audit_trail with the name of the tenant as it is: what is joined with other views by tenant';

-- In two halves, so that a condition on the tenant finds its parts by index, also where the name shown is not the name.
CREATE VIEW talkmeter.audit_trail AS
    SELECT a.*
    FROM talkmeter.audited AS a
    WHERE a.tenant !~ '^[=+@\t\r\n-]'
    UNION ALL
    SELECT '''' || a.tenant, a.conversation, a.part, a.customer, a.started_at, a.first_ai_reply_at, a.last_activity_at,
        a.ended_at, a.end_reason, a.charged_at, a.message_count, a.turn_count, a.ai_replies, a.staff_replies, a.stages,
        a.models, a.safety_passed, a.charge_id, a.tier, a.amount, a.currency, a.taken_back, a.policy, a.policy_version, a.charged_day,
        a.outcome
    FROM talkmeter.audited AS a
    WHERE a.tenant LIKE '=%' OR a.tenant LIKE '+%' OR a.tenant LIKE '@%' OR a.tenant LIKE '-%'
        OR a.tenant LIKE E'\t%' OR a.tenant LIKE E'\r%' OR a.tenant LIKE E'\n%';
REVOKE ALL ON talkmeter.audit_trail FROM PUBLIC;
COMMENT ON VIEW talkmeter.audit_trail IS
    'Billable parts with who asked, which stages and models answered, whether safety was passed, and the charge. Made for COPY ... CSV HEADER: text that a spreadsheet would take for a formula has an apostrophe before it';
COMMENT ON COLUMN talkmeter.audit_trail.tenant IS
    'The merchant who is billed; with an apostrophe before it if it begins with =, +, -, @, a tab or a line end. The same holds for conversation, customer, policy and outcome';
COMMENT ON COLUMN talkmeter.audit_trail.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.audit_trail.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.audit_trail.customer IS 'The first customer of its customer messages that is not null';
COMMENT ON COLUMN talkmeter.audit_trail.started_at IS 'Time of the event that opened it';
COMMENT ON COLUMN talkmeter.audit_trail.first_ai_reply_at IS 'Time of its first AI reply; null: none';
COMMENT ON COLUMN talkmeter.audit_trail.last_activity_at IS 'Time of its last message, or of its opening';
COMMENT ON COLUMN talkmeter.audit_trail.ended_at IS 'When it ended; null while open, or before a sweep';
COMMENT ON COLUMN talkmeter.audit_trail.end_reason IS 'As in parts';
COMMENT ON COLUMN talkmeter.audit_trail.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.audit_trail.message_count IS 'Messages of customer, AI and staff';
COMMENT ON COLUMN talkmeter.audit_trail.turn_count IS 'Complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.audit_trail.ai_replies IS 'AI replies';
COMMENT ON COLUMN talkmeter.audit_trail.staff_replies IS 'Visible staff replies';
COMMENT ON COLUMN talkmeter.audit_trail.stages IS 'Each stage of its rows once, in the order in which they were first seen';
COMMENT ON COLUMN talkmeter.audit_trail.models IS 'Each model of its AI replies once, likewise';
COMMENT ON COLUMN talkmeter.audit_trail.safety_passed IS 'False if any row says so; null if none says anything';
COMMENT ON COLUMN talkmeter.audit_trail.charge_id IS 'Its last charge; null if it waits for a plan';
COMMENT ON COLUMN talkmeter.audit_trail.tier IS 'Who paid: included, pack or overage';
COMMENT ON COLUMN talkmeter.audit_trail.amount IS 'What it cost, exact';
COMMENT ON COLUMN talkmeter.audit_trail.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.audit_trail.taken_back IS 'Whether that charge was taken back';
COMMENT ON COLUMN talkmeter.audit_trail.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.audit_trail.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.audit_trail.charged_day IS 'The day of the charge instant in the tenant''s zone';
COMMENT ON COLUMN talkmeter.audit_trail.outcome IS 'The outcome for which it was charged; null: its policy names none';
-- What has each month brought in, tenant by tenant and day by day?

CREATE FUNCTION talkmeter.months_of(tenant text)
    RETURNS TABLE (period text, first_day date, period_start timestamptz, period_end timestamptz)
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE ROWS 12 AS 'MODULE_PATHNAME', 'months_of_wrapper';
REVOKE ALL ON FUNCTION talkmeter.months_of(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.months_of(text) IS
    'The billing months of a tenant, from its first to the current one: those in which it was on a plan, had units, or bought a pack or gave one back';

CREATE VIEW talkmeter.usage_monthly AS
    SELECT a.tenant, m.period, m.first_day, m.period_start, m.period_end,
        COALESCE(u.included_used + u.pack_used + u.overage_units, 0) AS used,
        COALESCE(u.included_used, 0) AS included_used, COALESCE(u.pack_used, 0) AS pack_used,
        COALESCE(u.overage_units, 0) AS overage_units
    FROM talkmeter.account AS a
    CROSS JOIN LATERAL talkmeter.months_of(a.tenant) AS m
    LEFT JOIN talkmeter.period AS u
        ON u.tenant = a.tenant AND u.period_start = m.period_start AND u.period_end = m.period_end;
REVOKE ALL ON talkmeter.usage_monthly FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage_monthly IS
    'One row per tenant and billing month, from its first to the current one, also if it used nothing';
COMMENT ON COLUMN talkmeter.usage_monthly.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage_monthly.period IS 'The year and month of its first day, as 2026-03';
COMMENT ON COLUMN talkmeter.usage_monthly.first_day IS 'Its first day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.usage_monthly.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.usage_monthly.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.usage_monthly.used IS 'Units, net';
COMMENT ON COLUMN talkmeter.usage_monthly.included_used IS 'Units paid by the allowance';
COMMENT ON COLUMN talkmeter.usage_monthly.pack_used IS 'Units paid by packs';
COMMENT ON COLUMN talkmeter.usage_monthly.overage_units IS 'Units paid as overage';

-- A month is asked for its lines only if its statement may list something.
CREATE VIEW talkmeter.billed_line AS
    SELECT a.tenant, m.period, m.first_day, m.period_start, m.period_end, own.finalized_at, l.kind, l.amount, l.currency
    FROM talkmeter.account AS a
    CROSS JOIN LATERAL talkmeter.months_of(a.tenant) AS m
    LEFT JOIN talkmeter.period AS own
        ON own.tenant = a.tenant AND own.period_start = m.period_start AND own.period_end = m.period_end
    CROSS JOIN LATERAL (
        SELECT s.kind, s.amount, s.currency
        FROM talkmeter.statement_line AS s
        WHERE own.finalized_at IS NOT NULL AND s.tenant = a.tenant AND s.period_start = m.period_start
            AND s.period_end = m.period_end
        UNION ALL
        SELECT o.kind, o.amount, o.currency
        FROM talkmeter.statement_lines(CASE WHEN own.finalized_at IS NULL THEN a.tenant END, m.period_start, m.period_end) AS o
    ) AS l
    WHERE own.tenant IS NOT NULL
        OR EXISTS (
            SELECT FROM talkmeter.subscription AS s
            JOIN talkmeter.plan AS p ON p.name = s.plan
            WHERE s.tenant = a.tenant AND s.since < m.period_end AND p.price IS NOT NULL)
        -- One that was bought before the first month is on its statement.
        OR EXISTS (
            SELECT FROM talkmeter.pack AS k
            WHERE k.tenant = a.tenant AND (k.billed_at < m.period_end OR k.refunded_at < m.period_end)
                AND (k.billed_at >= m.period_start OR k.refunded_at >= m.period_start
                    OR NOT EXISTS (
                        SELECT FROM talkmeter.subscription AS s WHERE s.tenant = a.tenant AND s.since < m.period_start)));
REVOKE ALL ON talkmeter.billed_line FROM PUBLIC;
COMMENT ON VIEW talkmeter.billed_line IS 'The lines of the statements of all months of tenants, frozen or as the ledger has them now';

CREATE VIEW talkmeter.bills AS
    SELECT l.tenant, l.period, l.period_start, l.period_end,
        CASE WHEN l.finalized_at IS NOT NULL THEN 'finalized'
            WHEN l.period_end <= (SELECT clock.now FROM talkmeter.clock) THEN 'over' ELSE 'running' END AS status,
        COALESCE(pg_catalog.sum(l.amount) FILTER (WHERE l.kind = 'base'), 0) AS base,
        COALESCE(pg_catalog.sum(l.amount) FILTER (WHERE l.kind IN ('pack', 'pack_refund')), 0) AS packs,
        COALESCE(pg_catalog.sum(l.amount) FILTER (WHERE l.kind IN ('overage', 'late')), 0) AS overage,
        COALESCE(pg_catalog.sum(l.amount) FILTER (WHERE l.kind = 'credit'), 0) AS credits,
        pg_catalog.sum(l.amount) AS total, l.currency, l.finalized_at
    FROM talkmeter.billed_line AS l
    GROUP BY l.tenant, l.period, l.period_start, l.period_end, l.finalized_at, l.currency;
REVOKE ALL ON talkmeter.bills FROM PUBLIC;
COMMENT ON VIEW talkmeter.bills IS
    'One row per tenant, billing month and currency: what its statement comes to, frozen or as the ledger has it now; a month without a line has no row';
COMMENT ON COLUMN talkmeter.bills.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.bills.period IS 'The year and month of its first day in the tenant''s zone, as 2026-03';
COMMENT ON COLUMN talkmeter.bills.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.bills.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.bills.status IS 'running, over, or finalized if its statement is frozen';
COMMENT ON COLUMN talkmeter.bills.base IS 'The price of the plan';
COMMENT ON COLUMN talkmeter.bills.packs IS 'Packs bought, less those refunded';
COMMENT ON COLUMN talkmeter.bills.overage IS 'Overage, with what came late for earlier periods';
COMMENT ON COLUMN talkmeter.bills.credits IS 'What was credited, 0 or less';
COMMENT ON COLUMN talkmeter.bills.total IS 'The sum of the statement''s lines';
COMMENT ON COLUMN talkmeter.bills.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.bills.finalized_at IS 'When its statement was frozen; null: it is not';

CREATE VIEW talkmeter.revenue_daily AS
    SELECT r.tenant, r.day, pg_catalog.sum(r.base) AS base, pg_catalog.sum(r.packs) AS packs,
        pg_catalog.sum(r.overage) AS overage, pg_catalog.sum(r.base + r.packs + r.overage) AS total, r.currency
    FROM (
        SELECT c.tenant, talkmeter.local_day(c.tenant, c.charged_at, c.charge_id) AS day, 0::numeric AS base, 0::numeric AS packs,
            c.amount AS overage, c.currency
        FROM talkmeter.charge AS c
        WHERE c.amount <> 0
        UNION ALL
        SELECT k.tenant, talkmeter.local_day(k.tenant, k.billed_at), 0, k.price, 0, k.currency
        FROM talkmeter.pack AS k
        WHERE k.refunded_at IS NULL
        UNION ALL
        SELECT l.tenant, l.first_day, l.amount, 0, 0, l.currency
        FROM talkmeter.billed_line AS l
        WHERE l.kind = 'base'
    ) AS r
    GROUP BY r.tenant, r.day, r.currency;
REVOKE ALL ON talkmeter.revenue_daily FROM PUBLIC;
COMMENT ON VIEW talkmeter.revenue_daily IS
    'What each local day of a tenant has brought in, exact: overage by charge instant, net of what was taken back; packs that were not refunded by their purchase; the base price on the first day of its period';
COMMENT ON COLUMN talkmeter.revenue_daily.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.revenue_daily.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.revenue_daily.base IS 'The price of the plan, on the first day of its period';
COMMENT ON COLUMN talkmeter.revenue_daily.packs IS 'The price of packs that were bought and not refunded';
COMMENT ON COLUMN talkmeter.revenue_daily.overage IS 'Overage by charge instant, less what was taken back';
COMMENT ON COLUMN talkmeter.revenue_daily.total IS 'The sum of the three';
COMMENT ON COLUMN talkmeter.revenue_daily.currency IS 'ISO 4217 code';
-- What would have been charged under another definition and plan?

CREATE FUNCTION talkmeter.simulate(policy text, plan text DEFAULT NULL, from_time timestamptz DEFAULT NULL,
    to_time timestamptz DEFAULT NULL, tenant text DEFAULT NULL)
    RETURNS TABLE (tenant text, units bigint, included_units bigint, pack_units bigint, overage_units bigint,
        amount numeric, currency text, unprovable bigint, billed_units bigint, billed_included_units bigint,
        billed_pack_units bigint, billed_overage_units bigint, billed_amount numeric, billed_currency text,
        units_difference bigint, amount_difference numeric)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'simulate_wrapper';
REVOKE ALL ON FUNCTION talkmeter.simulate(text, text, timestamptz, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.simulate(text, text, timestamptz, timestamptz, text) IS
    'Per tenant, or of one, what the parts charged from from_time on and before to_time (null: without begin, without end) would have cost under another policy and plan (null: those in force) with the packs really bought, beside what was billed, net. Writes nothing. unprovable: units of conversations of which rows are gone, taken as they were billed';

CREATE FUNCTION talkmeter.simulate_parts(policy text, plan text DEFAULT NULL, from_time timestamptz DEFAULT NULL,
    to_time timestamptz DEFAULT NULL, tenant text DEFAULT NULL)
    RETURNS TABLE (tenant text, conversation text, started_at timestamptz, difference text, charged_at timestamptz,
        tier text, amount numeric, currency text, billed_part integer, billed_at timestamptz, billed_tier text,
        billed_amount numeric, billed_currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'simulate_parts_wrapper';
REVOKE ALL ON FUNCTION talkmeter.simulate_parts(text, text, timestamptz, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.simulate_parts(text, text, timestamptz, timestamptz, text) IS
    'Each part that simulate would charge and was not billed (added), the other way round (removed), or that another tier or amount would pay (paid_otherwise)';
-- How far has long work come?

CREATE FUNCTION talkmeter.working()
    RETURNS TABLE (pid integer, database name, usename name, work text, done bigint, total bigint, unit text,
        started_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT a.pid, a.datname, a.usename, m.found[1], m.found[2]::bigint, m.found[3]::bigint, m.found[4], a.query_start
        FROM pg_stat_activity AS a
        CROSS JOIN LATERAL regexp_match(a.query, '^/\* talkmeter\.(\w+): (\d{1,18}) of (\d{1,18}) ([a-z ]+) \*/') AS m (found)
        WHERE a.datname = current_database() AND a.state = 'active' AND m.found IS NOT NULL
            -- Anybody can write such a comment; only our work locks the view so.
            AND EXISTS (
                SELECT FROM pg_locks AS l
                WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.relation = to_regclass('talkmeter.progress')::oid
                    AND l.database = a.datid AND l.mode = 'RowShareLock' AND l.granted)
    $$;
REVOKE ALL ON FUNCTION talkmeter.working() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.working() IS 'The rows of talkmeter.progress';

CREATE VIEW talkmeter.progress AS
    SELECT w.pid, w.database, w.usename, w.work, w.done, w.total, w.unit, w.started_at
    FROM talkmeter.working() AS w;
REVOKE ALL ON talkmeter.progress FROM PUBLIC;
COMMENT ON VIEW talkmeter.progress IS
    'Long work of talkmeter that is going on in this database: which function, how much of it is done, and since when';
COMMENT ON COLUMN talkmeter.progress.pid IS 'The server process';
COMMENT ON COLUMN talkmeter.progress.database IS 'The database, always this one';
COMMENT ON COLUMN talkmeter.progress.usename IS 'Who called it';
COMMENT ON COLUMN talkmeter.progress.work IS 'archive, backfill, gaps, reconcile, retry_quarantine, simulate or verify';
COMMENT ON COLUMN talkmeter.progress.done IS 'How many are done';
COMMENT ON COLUMN talkmeter.progress.total IS 'How many there are in all';
COMMENT ON COLUMN talkmeter.progress.unit IS 'What is counted';
COMMENT ON COLUMN talkmeter.progress.started_at IS 'When the statement began';
-- How does what was never counted come to be metered?

CREATE PROCEDURE talkmeter.backfill(source regclass, from_time timestamptz, to_time timestamptz,
        charge boolean DEFAULT true, batch integer DEFAULT 500)
    LANGUAGE c AS 'MODULE_PATHNAME', 'backfill';
REVOKE ALL ON PROCEDURE talkmeter.backfill(regclass, timestamptz, timestamptz, boolean, integer) FROM PUBLIC;
COMMENT ON PROCEDURE talkmeter.backfill(regclass, timestamptz, timestamptz, boolean, integer) IS
    'Meters the rows of an attached table of from_time or later, and before to_time, that were never counted; commits after so many conversations, and goes on where it was interrupted. With charge => false: counts parts, and leaves their units in uncharged. Not within a transaction. Needs ownership of the table';

CREATE FUNCTION talkmeter.gaps(source regclass)
    RETURNS TABLE (from_time timestamptz, to_time timestamptz, because text, events bigint)
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'gaps_wrapper';
REVOKE ALL ON FUNCTION talkmeter.gaps(regclass) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.gaps(regclass) IS
    'Spans of time in which rows of an attached table are events by its mapping and were never counted: what backfill would meter. Reads the whole table. Needs ownership of the table';
-- By which definition is each tenant judged, and at which prices is it billed?

CREATE VIEW talkmeter.applied_policies AS
    SELECT own.tenant, p.name, p.version AS policy_version, pg_catalog.bool_or(own.is_current) AS in_force,
        pg_catalog.sum(own.units)::bigint AS units, p.label, p.effective_from, p.starts_on, p.ends_on, p.idle_timeout,
        p.quiet_review_after, p.max_duration, p.turn_limit, p.charge_on, p.charge_events, p.outcomes,
        CASE WHEN p.never_final THEN 'forever' ELSE p.final_after::text END AS final_after, p.once_per, p.staff_reply_blocks,
        p.error_before_reply_waives, p.exclude_prefixes, p.note
    FROM (
        SELECT c.tenant, c.policy AS name, c.policy_version AS version, c.units, false AS is_current
        FROM talkmeter.posting AS c
        UNION ALL
        SELECT a.tenant, newest.name, newest.version, 0, true
        FROM talkmeter.account AS a
        LEFT JOIN LATERAL (
            SELECT s.policy
            FROM talkmeter.subscription AS s
            WHERE s.tenant = a.tenant AND s.since <= (SELECT clock.now FROM talkmeter.clock)
            ORDER BY s.subscription_id DESC
            LIMIT 1
        ) AS own ON true
        CROSS JOIN LATERAL (
            -- Without one of its own a tenant is judged by that of the table that holds its messages: by this, if it can be only one.
            SELECT COALESCE(own.policy, pg_catalog.min(s.policy)) AS policy
            FROM talkmeter.source AS s
            WHERE s.detached_at IS NULL AND s.role = 'messages'
            HAVING own.policy IS NOT NULL OR pg_catalog.count(DISTINCT s.policy) = 1
        ) AS given
        CROSS JOIN LATERAL (
            SELECT p.name, p.version
            FROM talkmeter.policy AS p
            WHERE p.name = pg_catalog.split_part(given.policy, '@', 1)
                AND CASE WHEN pg_catalog.strpos(given.policy, '@') > 0
                    THEN p.version::text = pg_catalog.split_part(given.policy, '@', 2)
                    ELSE p.effective_from <= (SELECT clock.now FROM talkmeter.clock) END
            ORDER BY p.effective_from DESC, p.version DESC
            LIMIT 1
        ) AS newest
    ) AS own
    JOIN talkmeter.policy AS p ON p.name = own.name AND p.version = own.version
    GROUP BY own.tenant, p.name, p.version;
REVOKE ALL ON talkmeter.applied_policies FROM PUBLIC;
COMMENT ON VIEW talkmeter.applied_policies IS
    'Which versions of policies a tenant is judged by: those by which units of it were billed, and the one that a part which opens now is judged by';
COMMENT ON COLUMN talkmeter.applied_policies.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.applied_policies.name IS 'Its name';
COMMENT ON COLUMN talkmeter.applied_policies.policy_version IS 'Counts within the name';
COMMENT ON COLUMN talkmeter.applied_policies.in_force IS
    'Parts of the tenant that open now are judged by it; unknown, and so false, if attached tables have several policies and the tenant none of its own';
COMMENT ON COLUMN talkmeter.applied_policies.units IS 'Units of the tenant that were billed by it, net';
COMMENT ON COLUMN talkmeter.applied_policies.label IS 'The vendor''s own name of the version';
COMMENT ON COLUMN talkmeter.applied_policies.effective_from IS 'Parts that open from then on are judged by it';
COMMENT ON COLUMN talkmeter.applied_policies.starts_on IS 'Events that open a part';
COMMENT ON COLUMN talkmeter.applied_policies.ends_on IS 'Events that end one';
COMMENT ON COLUMN talkmeter.applied_policies.idle_timeout IS 'A longer gap has ended the part; null: never';
COMMENT ON COLUMN talkmeter.applied_policies.quiet_review_after IS
    'A gap of at least this has ended a part that no staff has answered; null: never';
COMMENT ON COLUMN talkmeter.applied_policies.max_duration IS 'It ends so long after its start; null: never';
COMMENT ON COLUMN talkmeter.applied_policies.turn_limit IS 'Turns after which it ends; null: no limit';
COMMENT ON COLUMN talkmeter.applied_policies.charge_on IS 'start, first_ai_reply, first_of (charge_events), or close: its end';
COMMENT ON COLUMN talkmeter.applied_policies.charge_events IS 'The events at whose first it is judged; null unless charge_on is first_of';
COMMENT ON COLUMN talkmeter.applied_policies.outcomes IS 'The rules by which it is judged, in order; null: it is billable if the AI replied';
COMMENT ON COLUMN talkmeter.applied_policies.final_after IS
    'How long after its end an event may still change what is decided of it; forever: until another one opens; null: not at all';
COMMENT ON COLUMN talkmeter.applied_policies.once_per IS 'conversation: it is not billable if an earlier part of its conversation is charged; null: each is';
COMMENT ON COLUMN talkmeter.applied_policies.staff_reply_blocks IS 'A visible staff reply makes it not billable';
COMMENT ON COLUMN talkmeter.applied_policies.error_before_reply_waives IS 'An error before the first AI reply makes it not billable';
COMMENT ON COLUMN talkmeter.applied_policies.exclude_prefixes IS 'Conversations whose ids start with one of these are never charged';
COMMENT ON COLUMN talkmeter.applied_policies.note IS 'What was said when it was defined';

CREATE VIEW talkmeter.prices AS
    SELECT s.tenant, 'plan' AS kind, p.name, pg_catalog.min(s.since) AS since, p.included AS units, p.overage_rate, p.price,
        p.currency, NULL::text AS valid_for, p.rates
    FROM talkmeter.subscription AS s
    JOIN talkmeter.plan AS p ON p.name = s.plan
    GROUP BY s.tenant, p.name
    UNION ALL
    SELECT k.tenant, 'pack', k.pack, pg_catalog.min(k.purchased_at), k.size, NULL, k.price, k.currency,
        COALESCE(o.valid_for::text, o.expiry), NULL
    FROM talkmeter.pack AS k
    JOIN talkmeter.pack_offer AS o ON o.name = k.pack
    GROUP BY k.tenant, k.pack, k.size, k.price, k.currency, o.valid_for, o.expiry;
REVOKE ALL ON talkmeter.prices FROM PUBLIC;
COMMENT ON VIEW talkmeter.prices IS 'The prices at which each tenant is billed: the plans that it was, is or will be on, and the packs that it bought';
COMMENT ON COLUMN talkmeter.prices.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.prices.kind IS 'plan or pack';
COMMENT ON COLUMN talkmeter.prices.name IS 'Its name';
COMMENT ON COLUMN talkmeter.prices.since IS 'When the tenant was put on the plan first, -infinity: without beginning; or bought such a pack first';
COMMENT ON COLUMN talkmeter.prices.units IS 'Units that the plan includes per period, or that the pack holds';
COMMENT ON COLUMN talkmeter.prices.overage_rate IS
    'Price of one overage unit, exact, if its outcome has none of its own; null for a pack';
COMMENT ON COLUMN talkmeter.prices.price IS 'Price of the plan per period, null: not known to the meter; or of the pack';
COMMENT ON COLUMN talkmeter.prices.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.prices.valid_for IS
    'Lifetime of the pack from its purchase on, a day is 24 hours; period: to the end of the billing month that holds the purchase; or never; null for a plan';
COMMENT ON COLUMN talkmeter.prices.rates IS
    'Prices of one overage unit by its outcome, exact; null for a pack, and if no outcome has one of its own';
-- What does one file say of a bill: its definition, its prices, its lines, its units, its total, its digest?

CREATE FUNCTION talkmeter.bill_file_of(tenant text, period_start timestamptz)
    RETURNS TABLE (section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    SET intervalstyle = 'postgres'
    AS $$
        WITH own AS MATERIALIZED (
            SELECT o.period_start, o.period_end, f.finalized_at, f.finalization, encode(f.digest, 'hex') AS digest,
                COALESCE(s.timezone, 'UTC') AS zone,
                CASE WHEN f.finalized_at IS NOT NULL THEN 'finalized'
                    WHEN o.period_end <= (SELECT clock.now FROM talkmeter.clock) THEN 'over' ELSE 'running' END AS status
            FROM talkmeter.periods_starting(bill_file_of.tenant, bill_file_of.period_start) AS o
            LEFT JOIN talkmeter.period AS f
                ON f.tenant = bill_file_of.tenant AND f.period_start = o.period_start AND f.period_end = o.period_end
            LEFT JOIN LATERAL (
                SELECT s.timezone
                FROM talkmeter.subscription AS s
                WHERE s.tenant = bill_file_of.tenant AND s.since < o.period_end
                ORDER BY s.subscription_id DESC
                LIMIT 1
            ) AS s ON true
        ), lines AS MATERIALIZED (
            SELECT o.zone, l.*
            FROM own AS o
            CROSS JOIN LATERAL talkmeter.statement_of(bill_file_of.tenant, o.period_start, o.period_end) AS l
        ), file AS (
            SELECT 1 AS rank, 'bill' AS section, NULL::integer AS line, NULL::timestamptz AS at, o.zone, b.item, b.detail,
                NULL::bigint AS quantity, NULL::numeric AS unit_price, NULL::numeric AS amount, NULL::text AS currency, b.place
            FROM own AS o
            CROSS JOIN LATERAL (
                VALUES (1, 'tenant', bill_file_of.tenant), (2, 'time zone', o.zone),
                    (3, 'from', to_char(o.period_start AT TIME ZONE o.zone, 'YYYY-MM-DD HH24:MI:SS')),
                    (4, 'before', to_char(o.period_end AT TIME ZONE o.zone, 'YYYY-MM-DD HH24:MI:SS')), (5, 'status', o.status),
                    (6, 'finalized', to_char(o.finalized_at AT TIME ZONE o.zone, 'YYYY-MM-DD HH24:MI:SS')),
                    (7, 'number in the chain', o.finalization::text), (8, 'digest', o.digest)
            ) AS b (place, item, detail)
            WHERE b.detail IS NOT NULL
            UNION ALL
            SELECT 2, 'definition', NULL, NULL, NULL, concat(d.policy, '@', d.policy_version, ' ', k.key), k.value, NULL, NULL, NULL,
                NULL, NULL
            FROM (
                SELECT DISTINCT c.policy, c.policy_version
                FROM own AS o
                JOIN talkmeter.charge AS c ON c.tenant = bill_file_of.tenant AND c.posted_period_start = o.period_start
                    AND c.posted_period_end = o.period_end
            ) AS d
            JOIN talkmeter.policies AS p ON p.name = d.policy AND p.policy_version = d.policy_version
            CROSS JOIN LATERAL jsonb_each_text(
                jsonb_strip_nulls(to_jsonb(p)) - ARRAY['name', 'policy_version', 'defined_at', 'defined_by', 'retroactive']) AS k
            UNION ALL
            SELECT 3, 'price', NULL, r.since, o.zone, r.name, concat_ws(', ', r.kind || ' of ' || r.units || ' units',
                'one more costs ' || r.overage_rate, (
                    SELECT string_agg(format('of outcome %s %s', o.key, o.value), ', ' ORDER BY o.key COLLATE "C")
                    FROM jsonb_each_text(r.rates) AS o), CASE r.valid_for WHEN 'period' THEN 'lasts until its period ends'
                    WHEN 'never' THEN 'does not expire' ELSE 'lasts ' || r.valid_for END), NULL, r.price, NULL, r.currency, NULL
            FROM own AS o
            JOIN talkmeter.prices AS r ON r.tenant = bill_file_of.tenant AND r.since < o.period_end
            UNION ALL
            SELECT 4, 'statement', l.line, l.of_period_start, l.zone, l.kind, l.description, l.quantity, l.unit_price, l.amount,
                l.currency, NULL
            FROM lines AS l
            UNION ALL
            SELECT 5, 'total', NULL, NULL, NULL, 'total', NULL, NULL, NULL, sum(l.amount), l.currency, NULL
            FROM lines AS l
            GROUP BY l.currency
            UNION ALL
            SELECT 6, 'unit', u.line, u.charged_at, o.zone, u.conversation, concat_ws(', ', 'part ' || u.part,
                'charge ' || u.charge_id, u.tier, u.outcome, u.message_count || ' messages', 'takes back ' || u.reverses), u.units, NULL,
                u.amount, u.currency, u.charge_id
            FROM (SELECT DISTINCT ON (o.period_start) o.* FROM own AS o) AS o
            CROSS JOIN LATERAL talkmeter.units_of_statement(bill_file_of.tenant, o.period_start) AS u
        )
        -- What a spreadsheet would take for a formula has an apostrophe before it.
        SELECT f.section, f.line, date_trunc('second', NULLIF(f.at, '-infinity') AT TIME ZONE f.zone),
            regexp_replace(f.item, '^([=+@\t\r\n-])', '''\1'), regexp_replace(f.detail, '^([=+@\t\r\n-])', '''\1'), f.quantity,
            f.unit_price, f.amount, f.currency
        FROM file AS f
        ORDER BY f.rank, f.line, f.place, f.item, f.at, f.currency
    $$;
REVOKE ALL ON FUNCTION talkmeter.bill_file_of(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.bill_file_of(text, timestamptz) IS 'The rows of bill_file; none if no period starts then: bill_file says why';

CREATE FUNCTION talkmeter.bill_file(tenant text, period_start timestamptz)
    RETURNS TABLE (section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT f.*
        FROM talkmeter.known_period(bill_file.tenant, bill_file.period_start) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.bill_file_of(bill_file.tenant, own.period_start) AS f
    $$;
REVOKE ALL ON FUNCTION talkmeter.bill_file(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.bill_file(text, timestamptz) IS
    'All of a bill as rows for one file, safe to open in a spreadsheet: the period, the definition, the prices, the lines of the statement, the total, each unit. Times are local to the tenant';

CREATE FUNCTION talkmeter.bill_file(tenant text, month date)
    RETURNS TABLE (section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT f.*
        FROM talkmeter.periods_of_month(bill_file.tenant, bill_file.month) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.bill_file_of(bill_file.tenant, own.period_start) AS f
    $$;
REVOKE ALL ON FUNCTION talkmeter.bill_file(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.bill_file(text, date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.bill_file(tenant text, period text DEFAULT NULL)
    RETURNS TABLE (section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.periods_named(bill_file.tenant, bill_file.period) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.bill_file_of(bill_file.tenant, own.period_start) AS s
    $$;
REVOKE ALL ON FUNCTION talkmeter.bill_file(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.bill_file(text, text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';
-- What may tenants read? Their own rows, and no others.

CREATE TABLE talkmeter.tenant_reader (
    role oid NOT NULL,
    role_name name NOT NULL,
    tenant text COLLATE "C" NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    granted_by name NOT NULL DEFAULT SESSION_USER,
    PRIMARY KEY (tenant, role_name)
);
REVOKE ALL ON talkmeter.tenant_reader FROM PUBLIC;
COMMENT ON TABLE talkmeter.tenant_reader IS 'Which role reads the rows of which tenant; written by grant_tenant';
COMMENT ON COLUMN talkmeter.tenant_reader.role IS
    'The number of the role, whose heirs read too; 0 if no role had the name when the row was restored';
COMMENT ON COLUMN talkmeter.tenant_reader.role_name IS
    'The role''s name when it was granted: tells another role that has its number, as after a restore elsewhere';
COMMENT ON COLUMN talkmeter.tenant_reader.tenant IS 'The merchant whose rows it reads';
COMMENT ON COLUMN talkmeter.tenant_reader.granted_at IS 'When it was granted';
COMMENT ON COLUMN talkmeter.tenant_reader.granted_by IS 'Who granted it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.tenant_reader', '');

CREATE FUNCTION talkmeter.number_reader() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
    AS $$
        BEGIN
            NEW.role := COALESCE((SELECT r.oid FROM pg_roles AS r WHERE r.rolname = NEW.role_name), 0);
            RETURN NEW;
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.number_reader() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.number_reader() IS
    'Trigger of talkmeter.tenant_reader: a server into which it is restored has other numbers, and may not have the role';
CREATE TRIGGER number_reader BEFORE INSERT ON talkmeter.tenant_reader
    FOR EACH ROW EXECUTE FUNCTION talkmeter.number_reader();

CREATE FUNCTION talkmeter.is_reader(role oid, role_name name) RETURNS boolean
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT EXISTS (SELECT FROM pg_roles AS a WHERE a.oid = is_reader.role AND a.rolname = is_reader.role_name)
            -- DROP OWNED BY and REVOKE take this back, and leave our row.
            AND EXISTS (
                SELECT FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS granted
                WHERE p.oid = 'talkmeter.own_tenants()'::regprocedure AND granted.grantee = is_reader.role)
    $$;
REVOKE ALL ON FUNCTION talkmeter.is_reader(oid, name) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.is_reader(oid, name) IS
    'Whether a role that grant_tenant named is there, by number and name, and still has what was granted';

CREATE FUNCTION talkmeter.create_roles(prefix text DEFAULT 'talkmeter', adopt boolean DEFAULT false) RETURNS SETOF text
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'create_roles_wrapper';
REVOKE ALL ON FUNCTION talkmeter.create_roles(text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.create_roles(text, boolean) IS
    'Creates the roles prefix_admin (everything), prefix_analyst (reads all), prefix_application (balance, mark, flush) and prefix_tenant (the views my_...), as far as they are missing, and grants them what they are for in this database. None can log in. A role that others can already be, by logging in or as a member, is refused unless adopt is true';

CREATE FUNCTION talkmeter.grant_tenant(role text, tenant text) RETURNS void
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'grant_tenant_wrapper';
REVOKE ALL ON FUNCTION talkmeter.grant_tenant(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.grant_tenant(text, text) IS
    'Lets a role read the rows of a tenant, and of no other, through the views my_...; a role may have several tenants';

CREATE FUNCTION talkmeter.revoke_tenant(role text, tenant text) RETURNS boolean
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'revoke_tenant_wrapper';
REVOKE ALL ON FUNCTION talkmeter.revoke_tenant(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.revoke_tenant(text, text) IS
    'Takes back what grant_tenant gave, and says whether there was anything';

CREATE FUNCTION talkmeter.own_tenants() RETURNS SETOF text
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_tenants_wrapper';
REVOKE ALL ON FUNCTION talkmeter.own_tenants() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_tenants() IS 'The tenants whose rows both the role that calls and the session''s role read';

CREATE FUNCTION talkmeter.is_own(tenant text) RETURNS boolean
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'is_own_wrapper';
REVOKE ALL ON FUNCTION talkmeter.is_own(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.is_own(text) IS
    'Whether both the role that calls and the session''s role read the rows of a tenant; asked of each row as it is fetched';

-- What a function reads shows in no plan, and no condition of the reader's is evaluated within it.

CREATE FUNCTION talkmeter.own_usage() RETURNS SETOF talkmeter.usage
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage() IS 'The rows of talkmeter.my_usage';
CREATE VIEW talkmeter.my_usage WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage IS 'What the own tenants'' current periods have used: see usage';

CREATE FUNCTION talkmeter.own_usage_daily() RETURNS SETOF talkmeter.usage_daily
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage_daily() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage_daily() IS 'The rows of talkmeter.my_usage_daily';
CREATE VIEW talkmeter.my_usage_daily WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage_daily() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage_daily FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage_daily IS 'Net units of each local day of the own tenants: see usage_daily';

CREATE FUNCTION talkmeter.own_usage_history() RETURNS SETOF talkmeter.usage_history
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage_history() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage_history() IS 'The rows of talkmeter.my_usage_history';
CREATE VIEW talkmeter.my_usage_history WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage_history() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage_history FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage_history IS 'Months of the own tenants that are over: see usage_history';

CREATE FUNCTION talkmeter.own_usage_monthly() RETURNS SETOF talkmeter.usage_monthly
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage_monthly() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage_monthly() IS 'The rows of talkmeter.my_usage_monthly';
CREATE VIEW talkmeter.my_usage_monthly WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage_monthly() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage_monthly FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage_monthly IS 'The months of the own tenants, from their first on: see usage_monthly';

CREATE FUNCTION talkmeter.own_bills() RETURNS SETOF talkmeter.bills
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_bills() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_bills() IS 'The rows of talkmeter.my_bills';
CREATE VIEW talkmeter.my_bills WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_bills() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_bills FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_bills IS 'What the months of the own tenants come to: see bills';

CREATE FUNCTION talkmeter.own_usage_projection() RETURNS SETOF talkmeter.usage_projection
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_usage_projection() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_usage_projection() IS 'The rows of talkmeter.my_usage_projection';
CREATE VIEW talkmeter.my_usage_projection WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_usage_projection() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_usage_projection FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_usage_projection IS 'What the own tenants'' current periods come to: see usage_projection';

CREATE FUNCTION talkmeter.own_parts() RETURNS SETOF talkmeter.parts
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_parts() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_parts() IS 'The rows of talkmeter.my_parts';
CREATE VIEW talkmeter.my_parts WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_parts() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_parts FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_parts IS 'Every metered interaction of the own tenants: see parts';

CREATE FUNCTION talkmeter.own_audit_trail() RETURNS SETOF talkmeter.audited
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_audit_trail() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_audit_trail() IS
    'The rows of talkmeter.my_audit_trail, with the name of the tenant as it is';
CREATE VIEW talkmeter.my_audit_trail WITH (security_barrier) AS
    SELECT pg_catalog.regexp_replace(v.tenant, '^([=+@\t\r\n-])', '''\1') AS tenant, v.conversation, v.part,
        v.customer, v.started_at, v.first_ai_reply_at, v.last_activity_at, v.ended_at, v.end_reason, v.charged_at,
        v.message_count, v.turn_count, v.ai_replies, v.staff_replies, v.stages, v.models, v.safety_passed, v.charge_id,
        v.tier, v.amount, v.currency, v.taken_back, v.policy, v.policy_version, v.charged_day, v.outcome
    FROM talkmeter.own_audit_trail() AS v
    WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_audit_trail FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_audit_trail IS 'Billable parts of the own tenants: see audit_trail';

CREATE FUNCTION talkmeter.own_charges() RETURNS SETOF talkmeter.charges
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_charges() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_charges() IS 'The rows of talkmeter.my_charges';
CREATE VIEW talkmeter.my_charges WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_charges() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_charges FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_charges IS 'The ledger of the own tenants: see charges';

CREATE FUNCTION talkmeter.own_packs() RETURNS SETOF talkmeter.packs
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_packs() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_packs() IS 'The rows of talkmeter.my_packs';
CREATE VIEW talkmeter.my_packs WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_packs() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_packs IS 'Packs that the own tenants bought: see packs';

CREATE FUNCTION talkmeter.own_expired_packs() RETURNS SETOF talkmeter.expired_packs
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_expired_packs() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_expired_packs() IS 'The rows of talkmeter.my_expired_packs';
CREATE VIEW talkmeter.my_expired_packs WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_expired_packs() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_expired_packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_expired_packs IS 'Packs of the own tenants that expired before they were used up: see expired_packs';

CREATE FUNCTION talkmeter.own_alerts() RETURNS SETOF talkmeter.alerts
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_alerts() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_alerts() IS 'The rows of talkmeter.my_alerts';
CREATE VIEW talkmeter.my_alerts WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_alerts() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_alerts FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_alerts IS 'What the own tenants were, or are to be, told of their usage: see alerts';

CREATE FUNCTION talkmeter.own_disputes() RETURNS SETOF talkmeter.disputes
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_disputes() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_disputes() IS 'The rows of talkmeter.my_disputes';
CREATE VIEW talkmeter.my_disputes WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_disputes() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_disputes FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_disputes IS 'Disputes of the own tenants: see disputes';

CREATE FUNCTION talkmeter.own_unplanned() RETURNS SETOF talkmeter.unplanned
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_unplanned() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_unplanned() IS 'The rows of talkmeter.my_unplanned';
CREATE VIEW talkmeter.my_unplanned WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_unplanned() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_unplanned FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_unplanned IS 'Billable units of the own tenants that wait for a plan: see unplanned';

CREATE FUNCTION talkmeter.own_uncharged() RETURNS SETOF talkmeter.uncharged
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_uncharged() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_uncharged() IS 'The rows of talkmeter.my_uncharged';
CREATE VIEW talkmeter.my_uncharged WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_uncharged() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_uncharged FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_uncharged IS 'Billable units of the own tenants that wait for a backfill that charges them: see uncharged';

CREATE FUNCTION talkmeter.own_reconciliations() RETURNS SETOF talkmeter.reconciliations
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_reconciliations() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_reconciliations() IS 'The rows of talkmeter.my_reconciliations';
CREATE VIEW talkmeter.my_reconciliations WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_reconciliations() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_reconciliations FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_reconciliations IS 'Days of the own tenants that were counted again: see reconciliations';

CREATE FUNCTION talkmeter.own_policy() RETURNS SETOF talkmeter.applied_policies
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_policy() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_policy() IS 'The rows of talkmeter.my_policy';
CREATE VIEW talkmeter.my_policy WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_policy() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_policy FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_policy IS 'The definitions by which the own tenants are judged: see applied_policies';

CREATE FUNCTION talkmeter.own_prices() RETURNS SETOF talkmeter.prices
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'own_rows';
REVOKE ALL ON FUNCTION talkmeter.own_prices() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.own_prices() IS 'The rows of talkmeter.my_prices';
CREATE VIEW talkmeter.my_prices WITH (security_barrier) AS
    SELECT v.* FROM talkmeter.own_prices() AS v WHERE talkmeter.is_own(v.tenant);
REVOKE ALL ON talkmeter.my_prices FROM PUBLIC;
COMMENT ON VIEW talkmeter.my_prices IS 'The prices at which the own tenants are billed: see prices';

CREATE FUNCTION talkmeter.my_balance() RETURNS TABLE (tenant text, balance bigint)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_balance';
REVOKE ALL ON FUNCTION talkmeter.my_balance() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_balance() IS 'Units that each own tenant has left before overage';

CREATE FUNCTION talkmeter.my_statement(period_start timestamptz)
    RETURNS TABLE (tenant text, line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement';
REVOKE ALL ON FUNCTION talkmeter.my_statement(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement(timestamptz) IS
    'The statement of each own tenant for the period that starts then; an error if none has one';

CREATE FUNCTION talkmeter.my_statement(month date)
    RETURNS TABLE (tenant text, line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_of_month';
REVOKE ALL ON FUNCTION talkmeter.my_statement(date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement(date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.my_statement_units(period_start timestamptz)
    RETURNS TABLE (tenant text, line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_units';
REVOKE ALL ON FUNCTION talkmeter.my_statement_units(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement_units(timestamptz) IS
    'Each charge that the statement of each own tenant lists for the period that starts then: see statement_units';

CREATE FUNCTION talkmeter.my_statement_units(month date)
    RETURNS TABLE (tenant text, line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_units_of_month';
REVOKE ALL ON FUNCTION talkmeter.my_statement_units(date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement_units(date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.my_bill_file(period_start timestamptz)
    RETURNS TABLE (tenant text, section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_bill_file';
REVOKE ALL ON FUNCTION talkmeter.my_bill_file(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_bill_file(timestamptz) IS
    'All of the bill of each own tenant for the period that starts then, as rows for one file: see bill_file';

CREATE FUNCTION talkmeter.my_bill_file(month date)
    RETURNS TABLE (tenant text, section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_bill_file_of_month';
REVOKE ALL ON FUNCTION talkmeter.my_bill_file(date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_bill_file(date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.my_statement(period text DEFAULT NULL)
    RETURNS TABLE (tenant text, line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_named';
REVOKE ALL ON FUNCTION talkmeter.my_statement(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement(text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';

CREATE FUNCTION talkmeter.my_statement_units(period text DEFAULT NULL)
    RETURNS TABLE (tenant text, line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_statement_units_named';
REVOKE ALL ON FUNCTION talkmeter.my_statement_units(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_statement_units(text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';

CREATE FUNCTION talkmeter.my_bill_file(period text DEFAULT NULL)
    RETURNS TABLE (tenant text, section text, line integer, local_time timestamp, item text, detail text, quantity bigint, unit_price numeric,
        amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_bill_file_named';
REVOKE ALL ON FUNCTION talkmeter.my_bill_file(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_bill_file(text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';

CREATE FUNCTION talkmeter.my_evidence(period_start timestamptz)
    RETURNS TABLE (tenant text, finalization bigint, line bigint, content text, subject text, chained text, digest text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_evidence';
REVOKE ALL ON FUNCTION talkmeter.my_evidence(timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_evidence(timestamptz) IS
    'What proves the frozen statement of each own tenant for the period that starts then: see evidence';

CREATE FUNCTION talkmeter.my_explain(conversation text)
    RETURNS TABLE (tenant text, step integer, occurred_at timestamptz, event text, source regclass, message_id text,
        part integer, effect text, rule text, charge_id bigint, tier text, amount numeric, currency text)
    LANGUAGE c STABLE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_explain';
REVOKE ALL ON FUNCTION talkmeter.my_explain(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_explain(text) IS 'Why a conversation of an own tenant was billed, or not: see explain';

CREATE FUNCTION talkmeter.my_dispute(charge_id bigint, reason text, tenant text DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'my_dispute_wrapper';
REVOKE ALL ON FUNCTION talkmeter.my_dispute(bigint, text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.my_dispute(bigint, text, text) IS
    'Files a dispute about a charge of an own tenant, and returns its id: see dispute';

-- A column of a tenant's view means what it means in the view of all tenants.
DO $$
    DECLARE
        own record;
    BEGIN
        FOR own IN
            SELECT v.oid::regclass AS view, a.attname, pg_catalog.col_description(a.attrelid, a.attnum) AS comment
            FROM pg_catalog.pg_class AS v
            JOIN pg_catalog.pg_class AS o ON o.relnamespace = v.relnamespace AND o.relkind = 'v'
                AND (v.relname = 'my_' || o.relname
                    OR (v.relname, o.relname) IN (('audited', 'audit_trail'), ('my_policy', 'applied_policies')))
            JOIN pg_catalog.pg_attribute AS a ON a.attrelid = o.oid AND a.attnum > 0
            WHERE v.relnamespace = 'talkmeter'::regnamespace AND v.relkind = 'v'
        LOOP
            EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', own.view, own.attname, own.comment);
        END LOOP;
    END
$$;
COMMENT ON COLUMN talkmeter.audited.tenant IS 'The merchant who is billed; no apostrophe before it';
-- How does a partition that is added to an attached table come by its triggers at once?

-- It calls the library only where an attached table is concerned: other sessions need not load it.
CREATE FUNCTION talkmeter.on_table_ddl() RETURNS event_trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        DECLARE
            attached regclass;
        BEGIN
            -- As pg_dump and pg_restore have it: a restore brings the triggers by itself.
            IF NOT current_setting('check_function_bodies')::boolean THEN
                RETURN;
            END IF;
            FOR attached IN
                SELECT DISTINCT s.relation
                FROM pg_event_trigger_ddl_commands() AS d
                CROSS JOIN LATERAL pg_partition_ancestors(d.objid) AS a (relid)
                JOIN talkmeter.source AS s ON s.relation = a.relid
                WHERE d.classid = 'pg_class'::regclass AND s.detached_at IS NULL
            LOOP
                PERFORM talkmeter.adopt_partitions(attached);
            END LOOP;
        EXCEPTION
            -- A lock that is not to be had in time. The sweep tries again.
            WHEN lock_not_available OR deadlock_detected OR serialization_failure THEN
                RETURN;
            WHEN OTHERS THEN
                RAISE WARNING 'talkmeter could not see to partitions that were added: %', SQLERRM
                    USING ERRCODE = SQLSTATE, HINT = 'The next sweep tries again; see talkmeter.health().';
        END
    $$;
REVOKE ALL ON FUNCTION talkmeter.on_table_ddl() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.on_table_ddl() IS
    'Event trigger: a partition that is added to an attached table gets its triggers. No error of it fails the statement';

-- The last object of this script: what comes before does not fire it.
CREATE EVENT TRIGGER talkmeter_partitions ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'CREATE SCHEMA')
    EXECUTE FUNCTION talkmeter.on_table_ddl();
COMMENT ON EVENT TRIGGER talkmeter_partitions IS
    'Gives a partition that is added to an attached table its triggers; disabled, the next sweep does';
