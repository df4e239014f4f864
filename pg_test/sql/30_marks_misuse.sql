-- What is misuse of mark, attach_status and retry_quarantine answered?
CREATE EXTENSION talkmeter;
\set VERBOSITY default
\set sqlstate '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
CREATE TYPE state AS ENUM ('open', 'done');
CREATE TABLE tickets (
    id text PRIMARY KEY,
    tenant_id text,
    status text,
    state state,
    number integer,
    closed boolean,
    local_time timestamp,
    day date,
    updated_at timestamptz
);
CREATE TABLE letters (number integer PRIMARY KEY, status text);
CREATE VIEW seen AS SELECT * FROM tickets;

-- Marks that cannot be.
SELECT talkmeter.mark('acme', 'c', 'customer_message');
:sqlstate
SELECT talkmeter.mark('acme', 'c', 'ignore');
:sqlstate
SELECT talkmeter.mark('acme', 'c', 'resolved');
:sqlstate
SELECT talkmeter.mark(NULL, 'c', 'close');
:sqlstate
SELECT talkmeter.mark('acme', NULL, 'close');
:sqlstate
SELECT talkmeter.mark('acme', 'c', NULL);
:sqlstate
SELECT talkmeter.mark(repeat('x', 513), 'c', 'close');
:sqlstate
SELECT talkmeter.mark('acme', repeat('x', 513), 'close');
:sqlstate
SELECT talkmeter.mark('acme', 'c', 'close', clock_timestamp() + interval '6 minutes');
:sqlstate
SELECT talkmeter.mark('acme', 'c', 'close', 'infinity');
:sqlstate
SELECT talkmeter.mark('acme', 'c', 'close', '0001-12-31 00:00+00 BC');
:sqlstate

-- Tables that cannot be attached.
SELECT talkmeter.attach_status('seen', '{"status": {"done": "close"}}');
:sqlstate
SELECT talkmeter.attach_status('talkmeter.ended_part', '{"status": {"done": "close"}}');
:sqlstate
SELECT talkmeter.attach_status(NULL, '{"status": {"done": "close"}}');
:sqlstate
SELECT talkmeter.attach_status('tickets', NULL);
:sqlstate

-- Mappings of no sense.
SELECT talkmeter.attach_status('tickets', '[]');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {}}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": "status"}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"states": {"done": "close"}}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "ai_reply"}}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "closed"}}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": ["close", "note"]}}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}, "column": "statos"}');
:sqlstate
SELECT talkmeter.attach_status('letters', '{"status": {"done": "close"}}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}, "conversation": "ticket_id"}');
:sqlstate

-- Types that do not serve.
SELECT talkmeter.attach_status('tickets', '{"status": {"dune": "close"}, "column": "state"}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}, "column": "number"}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}, "column": "closed"}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}, "conversation": "closed"}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}, "occurred_at": "day"}');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}, "occurred_at": "local_time"}');
:sqlstate

-- Nothing of all this left a trace.
SELECT * FROM talkmeter.sources;
SELECT * FROM talkmeter.marked;
SELECT * FROM talkmeter.quarantine;

-- Attached twice, detached twice.
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}, "occurred_at": "updated_at"}');
SELECT source, policy, mapping, role FROM talkmeter.sources;
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}}');
:sqlstate
DROP EXTENSION talkmeter;
:sqlstate
SELECT talkmeter.detach('tickets');
SELECT talkmeter.detach('tickets');
:sqlstate

-- The triggers on a table that is not attached.
CREATE TRIGGER forged AFTER INSERT ON tickets REFERENCING NEW TABLE AS rows
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.on_status_insert();
INSERT INTO tickets VALUES ('d', 'acme', 'done');
:sqlstate
DROP TRIGGER forged ON tickets;
CREATE TRIGGER forged AFTER UPDATE ON tickets FOR EACH ROW EXECUTE FUNCTION talkmeter.on_status_update();
INSERT INTO tickets VALUES ('c', 'acme', 'done');
UPDATE tickets SET status = 'open';
:sqlstate
DROP TRIGGER forged ON tickets;
SELECT talkmeter.on_status_insert();
:sqlstate
SELECT talkmeter.on_status_update();
:sqlstate

-- Rights: EXECUTE is granted to nobody, and who attaches must own the table besides.
CREATE ROLE regress_clerk;
GRANT USAGE ON SCHEMA talkmeter TO regress_clerk;
SET ROLE regress_clerk;
SELECT talkmeter.mark('acme', 'c', 'close');
:sqlstate
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}}');
:sqlstate
SELECT talkmeter.retry_quarantine();
:sqlstate
RESET ROLE;
GRANT EXECUTE ON FUNCTION talkmeter.mark, talkmeter.attach_status, talkmeter.retry_quarantine TO regress_clerk;
SET ROLE regress_clerk;
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}}');
:sqlstate
SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 10:00+00');
SELECT talkmeter.retry_quarantine();
SELECT * FROM talkmeter.marked;
:sqlstate
RESET ROLE;
-- A mark of a conversation that no message has told waits for one.
SELECT tenant, conversation, kind, marked_by FROM talkmeter.marked;
SELECT message_id, tenant, conversation, reason, detail, hint FROM talkmeter.quarantine;

DROP EXTENSION talkmeter;
DROP ROLE regress_clerk;
