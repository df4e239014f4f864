-- What happened in each conversation: locks, state and parts.

CREATE TABLE talkmeter.conversation_lock (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    PRIMARY KEY (tenant, conversation)
);
REVOKE ALL ON talkmeter.conversation_lock FROM PUBLIC;
-- A row that is updated cannot be locked at REPEATABLE READ after somebody else's update; this one never is.
COMMENT ON TABLE talkmeter.conversation_lock IS
    'One row per conversation, never updated: whoever folds a conversation locks its row first';
COMMENT ON COLUMN talkmeter.conversation_lock.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.conversation_lock.conversation IS 'The application''s conversation id, unique within the tenant';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.conversation_lock', '');

-- Updated with each message: room for HOT updates, no index but the key, and what changes comes last, because the log
-- holds a changed row from its first changed byte on. Only our code writes this and the next two: they have
-- no CHECK, and verify looks for what it would say.
CREATE TABLE talkmeter.conversation (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    highest_part integer NOT NULL,
    last_mark bigint NOT NULL DEFAULT 0,
    sources integer[] NOT NULL DEFAULT '{}',
    last_event bytea NOT NULL,
    PRIMARY KEY (tenant, conversation)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
REVOKE ALL ON talkmeter.conversation FROM PUBLIC;
COMMENT ON TABLE talkmeter.conversation IS 'How far each conversation is folded';
COMMENT ON COLUMN talkmeter.conversation.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.conversation.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.conversation.highest_part IS 'The highest part number ever used';
COMMENT ON COLUMN talkmeter.conversation.last_event IS
    'Order key of the last event folded, or of the instant up to which time has ended its parts: an event is late if its key is not greater';
COMMENT ON COLUMN talkmeter.conversation.last_mark IS 'The number of the last mark';
COMMENT ON COLUMN talkmeter.conversation.sources IS
    'The attached tables whose rows have been events of it: no other table is read for it';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.conversation', '');

CREATE TABLE talkmeter.part (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    source_id integer,
    policy text COLLATE "C" NOT NULL,
    policy_version integer NOT NULL,
    first_event bytea NOT NULL,
    started_at timestamptz NOT NULL,
    first_ai_reply_at timestamptz,
    excluded boolean NOT NULL,
    error_before_reply boolean NOT NULL,
    charged_at timestamptz,
    not_billable_because text,
    ended_at timestamptz,
    end_reason text,
    timed boolean NOT NULL,
    due_reason text,
    due_because text,
    due_at timestamptz,
    due_end timestamptz,
    customer_waits boolean NOT NULL,
    turn_count integer NOT NULL,
    ai_replies bigint NOT NULL,
    staff_replies bigint NOT NULL,
    event_count bigint NOT NULL,
    message_count bigint NOT NULL,
    last_activity_at timestamptz NOT NULL,
    last_event bytea NOT NULL,
    PRIMARY KEY (tenant, conversation, part)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
REVOKE ALL ON talkmeter.part FROM PUBLIC;
-- Neither index holds a column that changes with each message, so that those updates stay HOT.
CREATE UNIQUE INDEX part_open ON talkmeter.part (tenant, conversation) WHERE ended_at IS NULL;
CREATE INDEX part_timed ON talkmeter.part (tenant, conversation) WHERE ended_at IS NULL AND timed;
COMMENT ON TABLE talkmeter.part IS 'The metered interactions of each conversation; read them through the view parts';
COMMENT ON COLUMN talkmeter.part.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.part.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.part.part IS 'Number within the conversation, in the order found; a name that charges know it by';
COMMENT ON COLUMN talkmeter.part.source_id IS 'The attached table whose row opened it; if a mark did, that of the part before';
COMMENT ON COLUMN talkmeter.part.first_event IS 'Order key of the event that opened it';
COMMENT ON COLUMN talkmeter.part.last_event IS 'Order key of the last event that it counted';
COMMENT ON COLUMN talkmeter.part.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.part.policy_version IS 'The version in force when it opened';
COMMENT ON COLUMN talkmeter.part.started_at IS 'Time of the event that opened it';
COMMENT ON COLUMN talkmeter.part.first_ai_reply_at IS 'Time of its first AI reply';
COMMENT ON COLUMN talkmeter.part.last_activity_at IS 'Time of its last activity, or of its opening if that was none';
COMMENT ON COLUMN talkmeter.part.ended_at IS 'When it ended, by its own rule and not by when that was noticed; null while open';
COMMENT ON COLUMN talkmeter.part.end_reason IS 'idle, quiet_review, turn_limit or the kind of the event that ended it';
COMMENT ON COLUMN talkmeter.part.event_count IS 'Events of every kind that it counted: if fewer are found later, it has lost rows and is sealed';
COMMENT ON COLUMN talkmeter.part.message_count IS 'Activities that it counted';
COMMENT ON COLUMN talkmeter.part.turn_count IS 'Complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.part.ai_replies IS 'AI replies that it counted';
COMMENT ON COLUMN talkmeter.part.staff_replies IS 'Visible staff replies that it counted';
COMMENT ON COLUMN talkmeter.part.customer_waits IS 'A customer message waits for the AI reply that completes the turn';
COMMENT ON COLUMN talkmeter.part.excluded IS 'An excluded rule of the mapping matched one of its events';
COMMENT ON COLUMN talkmeter.part.error_before_reply IS 'A platform error came before its first AI reply';
COMMENT ON COLUMN talkmeter.part.charged_at IS 'Its charge instant, once it is found billable';
COMMENT ON COLUMN talkmeter.part.not_billable_because IS 'The reason against, once it is judged';
COMMENT ON COLUMN talkmeter.part.timed IS 'Time alone will end it';
COMMENT ON COLUMN talkmeter.part.due_at IS 'The first instant at which time has ended it, if no activity comes before';
COMMENT ON COLUMN talkmeter.part.due_end IS 'The end that will be recorded then';
COMMENT ON COLUMN talkmeter.part.due_reason IS 'The end reason that will be recorded then';
COMMENT ON COLUMN talkmeter.part.due_because IS 'The reason against that will be recorded then; null: billable';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.part', '');

CREATE VIEW talkmeter.part_now AS
    SELECT p.*, p.ended_at IS NULL AND p.timed AND p.due_at <= pg_catalog.statement_timestamp() AS passed
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
COMMENT ON COLUMN talkmeter.marked.kind IS 'The kind of the event';
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
