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
