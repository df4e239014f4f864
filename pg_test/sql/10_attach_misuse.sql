-- What is misuse of attach and detach answered?
CREATE EXTENSION talkmeter;
\set VERBOSITY default
\set sqlstate '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
CREATE SCHEMA app;
CREATE TYPE app.mood AS ENUM ('good', 'bad');
CREATE TYPE app.pair AS (a integer, b integer);
CREATE DOMAIN app.short AS text CHECK (length(VALUE) < 100);
CREATE TABLE app.messages (
    id bigint PRIMARY KEY,
    tenant_id text NOT NULL,
    conversation_id app.short NOT NULL,
    created_at timestamptz NOT NULL,
    local_time timestamp,
    sender text,
    private boolean,
    message_type smallint,
    price numeric,
    mood app.mood,
    pair app.pair,
    extra jsonb,
    day date
);
CREATE TABLE app.loose (id bigint, tenant_id text, conversation_id text, created_at timestamptz, sender text);
CREATE TABLE app.partial (id bigint, tenant_id text, conversation_id text, created_at timestamptz, sender text);
CREATE UNIQUE INDEX ON app.partial (id) WHERE sender IS NOT NULL;
CREATE UNIQUE INDEX ON app.partial (tenant_id, id);
CREATE TABLE app.parted (id bigint, "Made At" timestamptz, tenant_id text, conversation_id text)
    PARTITION BY RANGE ("Made At");
CREATE VIEW app.seen AS SELECT * FROM app.messages;
CREATE MATERIALIZED VIEW app.kept AS SELECT * FROM app.messages;
CREATE TEMP TABLE passing (id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz);
CREATE FOREIGN DATA WRAPPER none;
CREATE SERVER nowhere FOREIGN DATA WRAPPER none;
CREATE FOREIGN TABLE app.remote (id bigint, tenant_id text, conversation_id text, created_at timestamptz) SERVER nowhere;
\set good '{"kinds": [{"when": {"sender": "user"}, "kind": "customer_message"}]}'

-- Tables that cannot be attached.
SELECT * FROM talkmeter.attach('app.seen', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.kept', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.remote', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('pg_temp.passing', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('pg_catalog.pg_class', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('talkmeter.ended_part', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages_pkey', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach(4::regclass, 'agent_red', :'good');
:sqlstate

-- No unique index on the message id.
SELECT * FROM talkmeter.attach('app.loose', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.partial', 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.parted', 'agent_red', '{"occurred_at": "Made At", "kinds": [{"kind": "note"}]}');
:sqlstate

SELECT * FROM talkmeter.attach('app.loose', 'agent_red', '{"message_id": ["conversation_id", "id"], "kinds": [{"kind": "note"}]}');
:sqlstate
-- Names that do not exist.
SELECT * FROM talkmeter.attach('app.messages', 'agent_rad', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red@7', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'good', 'agent_red/begginer');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"tenent": "x", "kinds": [{"kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"customer": "sendr", "kinds": [{"kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"sendr": "user"}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"kind": "costumer_message"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.parted', 'agent_red', '{"kinds": [{"kind": "note"}]}');
:sqlstate

-- Nulls.
SELECT * FROM talkmeter.attach(NULL, 'agent_red', :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', NULL, :'good');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', NULL);
:sqlstate

-- Rules of no sense.
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '[]');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"kind": "note"}, {"when": {"sender": "x"}, "kind": "error"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"sender": []}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"kind": ["note", "ignore"]}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"kind": "note"}], "excluded": [{"because": "test"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"kind": "note"}], "excluded": [{"when": {"sender": "x"}}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"tenant": {"konstant": "x"}, "kinds": [{"kind": "note"}]}');
:sqlstate

-- Types that do not serve.
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"tenant": "mood", "kinds": [{"kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"occurred_at": "day", "kinds": [{"kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"occurred_at": "local_time", "kinds": [{"kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"timezone": "UTC", "kinds": [{"kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"occurred_at": "local_time", "timezone": "Mars/Base", "kinds": [{"kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"safety_passed": "sender", "kinds": [{"kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"pair": "x"}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"day": "2026-01-01"}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"mood": "god"}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"message_type": 70000}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"message_type": "2"}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"private": "true"}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"sender": 1}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"private->x": "y"}, "kind": "note"}]}');
:sqlstate
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', '{"kinds": [{"when": {"extra->x": {"y": 1}}, "kind": "note"}]}');
:sqlstate

-- Nothing of all this left a trace.
SELECT * FROM talkmeter.sources;

-- A dry run shows what the first rows would give, and changes nothing.
INSERT INTO app.messages (id, tenant_id, conversation_id, created_at, sender, private, extra) VALUES
    (3, 'acme', 'c1', '2026-01-01 10:02:00+00', 'bot', false, '{"campaign": 7}'),
    (1, 'acme', 'c1', '2026-01-01 10:00:00+00', 'user', false, '{"campaign": {"id": "x"}}'),
    (2, 'acme', 'c1', '2026-01-01 10:01:00+00', 'bot', true, NULL),
    (4, 'acme', 'c2', '2026-01-01 11:00:00+00', NULL, NULL, NULL),
    (5, 'acme', 'c2', '2026-01-01 11:00:00+00', 'alien', NULL, NULL);
SET timezone = 'UTC';
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', dry_run => true, mapping => '{
    "kinds": [{"when": {"private": true},                       "kind": "note"},
              {"when": {"sender": "user"},                      "kind": ["customer_message", "ai_reply"]},
              {"when": {"sender": ["bot", "robot"]},            "kind": "ai_reply"},
              {"when": {"sender": null},                        "kind": "ignore"}],
    "excluded": [{"when": {"extra->campaign": 7.0}, "because": "campaign"}]}');
SELECT * FROM talkmeter.sources;

-- Attached twice, detached twice.
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'good', 'agent_red/starter');
SELECT source, policy, default_plan, strict, starts_at > '2026-01-01' AS has_start, mapping FROM talkmeter.sources;
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'good');
:sqlstate
SELECT talkmeter.detach('app.messages');
SELECT talkmeter.detach('app.messages');
:sqlstate
SELECT * FROM talkmeter.sources;

-- The trigger on a table that is not attached.
CREATE TRIGGER forged AFTER INSERT ON app.messages REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_insert();
INSERT INTO app.messages (id, tenant_id, conversation_id, created_at) VALUES (60, 'x', 'y', now());
:sqlstate
DROP TRIGGER forged ON app.messages;
CREATE TRIGGER forged AFTER INSERT ON app.messages FOR EACH ROW EXECUTE FUNCTION talkmeter.on_insert();
INSERT INTO app.messages (id, tenant_id, conversation_id, created_at) VALUES (6, 'x', 'y', now());
:sqlstate
DROP TRIGGER forged ON app.messages;
CREATE TRIGGER forged AFTER UPDATE ON app.messages REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_update();
UPDATE app.messages SET sender = sender;
:sqlstate
DROP TRIGGER forged ON app.messages;
CREATE TRIGGER forged AFTER DELETE ON app.messages FOR EACH ROW EXECUTE FUNCTION talkmeter.on_delete();
DELETE FROM app.messages;
:sqlstate
DROP TRIGGER forged ON app.messages;
CREATE TRIGGER forged BEFORE TRUNCATE ON app.messages EXECUTE FUNCTION talkmeter.on_truncate();
TRUNCATE app.messages;
:sqlstate
DROP TRIGGER forged ON app.messages;
SELECT talkmeter.on_insert();
:sqlstate
SELECT talkmeter.on_update();
:sqlstate
SELECT talkmeter.on_delete();
:sqlstate
SELECT talkmeter.on_truncate();
:sqlstate

-- Rights: EXECUTE is granted to nobody, and ownership is asked for besides.
CREATE ROLE regress_clerk;
SET ROLE regress_clerk;
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'good');
:sqlstate
RESET ROLE;
GRANT USAGE ON SCHEMA talkmeter, app TO regress_clerk;
GRANT SELECT ON app.messages TO regress_clerk;
GRANT EXECUTE ON FUNCTION talkmeter.attach, talkmeter.detach TO regress_clerk;
SET ROLE regress_clerk;
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'good');
:sqlstate
RESET ROLE;
ALTER TABLE app.messages OWNER TO regress_clerk;
SET ROLE regress_clerk;
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'good');
INSERT INTO app.messages (id, tenant_id, conversation_id, created_at, sender) VALUES (6, 'x', 'y', now(), 'user');
SELECT * FROM talkmeter.ended_part;
:sqlstate
SELECT talkmeter.detach('app.messages');
RESET ROLE;
SELECT tenant, conversation, status FROM talkmeter.parts;

-- An extension in use is not dropped by accident; one that is detached goes, and takes nothing of the application's.
SELECT * FROM talkmeter.attach('app.messages', 'agent_red', :'good');
DROP EXTENSION talkmeter;
:sqlstate
SELECT talkmeter.detach('app.messages');
DROP EXTENSION talkmeter;
SELECT count(*) FROM app.messages;

REVOKE USAGE ON SCHEMA app FROM regress_clerk;
DROP SCHEMA app CASCADE;
DROP FOREIGN DATA WRAPPER none CASCADE;
DROP ROLE regress_clerk;
