-- What is misuse of backfill and gaps answered?
CREATE EXTENSION talkmeter;
\set VERBOSITY default
\set sqlstate '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
CREATE SCHEMA app;
CREATE TABLE app.messages (
    id bigint PRIMARY KEY,
    tenant_id text,
    conversation_id text,
    created_at timestamptz,
    sender text
);
CREATE INDEX ON app.messages (tenant_id, conversation_id, created_at);
\set mapping '{"kinds": [{"when": {"sender": "user"}, "kind": "customer_message"}, {"when": {"sender": "bot"}, "kind": "ai_reply"}]}'
INSERT INTO app.messages VALUES (1, 'acme', 'c', '2026-03-01 10:00+00', 'user'), (2, 'acme', 'c', '2026-03-01 10:01+00', 'bot'),
    (3, 'acme', 'd', '2026-03-02 10:00+00', 'nobody');

-- A table that is not attached, or not at all.
CALL talkmeter.backfill('app.messages', '-infinity', now());
:sqlstate
SELECT * FROM talkmeter.gaps('app.messages');
:sqlstate
CALL talkmeter.backfill('pg_catalog.pg_class', '-infinity', now());
:sqlstate

-- A start that is to come.
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'mapping', since => '2999-01-01');
:sqlstate

-- Spans that are none, and other arguments.
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'mapping', strict => true);
CALL talkmeter.backfill('app.messages', now(), '-infinity');
:sqlstate
CALL talkmeter.backfill('app.messages', '2999-01-01', 'infinity');
:sqlstate
CALL talkmeter.backfill('app.messages', NULL, now());
:sqlstate
CALL talkmeter.backfill('app.messages', '-infinity', now(), batch => 0);
:sqlstate
BEGIN;
CALL talkmeter.backfill('app.messages', '-infinity', now());
:sqlstate
ROLLBACK;

-- A strict table ends it where a row cannot be metered; what was begun is charged, or goes on so.
CALL talkmeter.backfill('app.messages', '-infinity', '2026-04-01', batch => 1);
:sqlstate
CALL talkmeter.backfill('app.messages', '-infinity', '2026-04-01', charge => false);
:sqlstate
SELECT problem, object, hint FROM talkmeter.health() WHERE problem = 'backfill_unfinished';
UPDATE app.messages SET sender = 'user' WHERE id = 3;
CALL talkmeter.backfill('app.messages', '-infinity', '2026-04-01');
SELECT conversation, part, charged_at, tier FROM talkmeter.charges;
SELECT conversation, part, charged_at FROM talkmeter.unplanned;
SELECT conversation, part, message_count FROM talkmeter.parts ORDER BY 1;
SELECT problem FROM talkmeter.health() WHERE problem = 'backfill_unfinished';
