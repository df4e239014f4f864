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
