-- What does a database hold that a release leaves behind? A bit of everything, dated, so that telling it again gives the same books.
CREATE TABLE messages (id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz, kind text, customer text);
CREATE INDEX ON messages (tenant_id, conversation_id, created_at);
CREATE TABLE turns (id bigint, tenant_id text, conversation_id text, created_at timestamptz, kind text, PRIMARY KEY (id, tenant_id))
    PARTITION BY LIST (tenant_id);
CREATE TABLE turns_of_small PARTITION OF turns FOR VALUES IN ('small');
CREATE TABLE turns_of_others PARTITION OF turns DEFAULT;
CREATE INDEX ON turns (tenant_id, conversation_id, created_at);
CREATE TABLE tickets (id text PRIMARY KEY, tenant_id text, status text);

SELECT talkmeter.define_policy('{"name": "own", "starts_on": ["customer_message", "reopen"], "ends_on": ["close"], "charge_on": "close",
    "effective_from": "2026-01-01T00:00:00Z"}');
SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "price": 10, "currency": "EUR"}');
SELECT talkmeter.define_pack('{"name": "single", "size": 1, "price": 1, "currency": "EUR", "valid_for": "90 days"}');

-- Of tenant "small" all is dated; "other" waits for a plan.
SELECT talkmeter.attach('messages', policy => 'lutingenie',
    mapping => '{"customer": "customer", "kinds": [{"when": {"kind": "visit"}, "kind": ["customer_message", "ai_reply", "close"]},
        {"when": {"kind": "question"}, "kind": "customer_message"}, {"when": {"kind": "answer"}, "kind": "ai_reply"},
        {"when": {"kind": "staff"}, "kind": "staff_reply"}, {"when": {"kind": "note"}, "kind": "note"}]}');
SELECT talkmeter.attach('turns', policy => 'own',
    mapping => '{"kinds": [{"when": {"kind": "question"}, "kind": "customer_message"}, {"when": {"kind": "answer"}, "kind": "ai_reply"},
        {"when": {"kind": "end"}, "kind": "close"}]}');
SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}}');
SELECT talkmeter.subscribe('small', 'two', since => '2026-01-01', timezone => 'Europe/Berlin', anchor_day => 15);
SELECT talkmeter.buy_pack('small', 'single', 'order 1', '2026-01-10');
SELECT talkmeter.buy_pack('small', 'single', 'order 2', '2026-02-10');

INSERT INTO messages SELECT n, 'small', 'm' || n, timestamptz '2026-01-20 09:00+00' + n * interval '1 day', 'visit', 'c' || n % 3
    FROM generate_series(1, 40) AS n;
INSERT INTO turns SELECT n * 10 + s, 'small', 't' || n, timestamptz '2026-02-01 12:00+00' + n * interval '1 day' + s * interval '1 minute',
    (ARRAY['question', 'answer', 'end'])[s] FROM generate_series(1, 12) AS n, generate_series(1, 3) AS s;
INSERT INTO turns VALUES (1, 'other', 'w', '2026-02-03 10:00+00', 'question'), (2, 'other', 'w', '2026-02-03 10:01+00', 'answer'),
    (3, 'other', 'w', '2026-02-03 10:02+00', 'end');
-- Late, changed, gone, refused.
INSERT INTO messages VALUES (101, 'small', 'm1', '2026-01-21 08:59+00', 'staff', 'c1');
UPDATE messages SET kind = 'note' WHERE id = 5;
DELETE FROM messages WHERE id = 6;
INSERT INTO messages VALUES (102, NULL, 'nobody', '2026-02-01', 'visit'), (103, 'small', 'unheard', '2026-02-01', 'unheard of');
-- Open, with a mark, and one that is closed by its ticket.
INSERT INTO messages VALUES (104, 'small', 'open', '2026-03-05 10:00+00', 'question', 'c1'),
    (105, 'small', 'open', '2026-03-05 10:01+00', 'answer', 'c1');
SELECT talkmeter.mark('small', 'open', 'reopen', '2026-03-05 10:02+00');
INSERT INTO tickets VALUES ('m7', 'small', 'open');
UPDATE tickets SET status = 'done' WHERE id = 'm7';

SELECT talkmeter.credit('small', 3, 'sorry');
SELECT talkmeter.dispute('small', 4, 'not ours');
SELECT talkmeter.dispute('small', 7, 'nor this');
SELECT talkmeter.resolve_dispute('small', 2, 'credited', 'we looked');
SELECT talkmeter.report_external('small', '2026-02-02', 2);
SELECT talkmeter.reconcile('2026-02-02');
SELECT talkmeter.finalize('small', '2026-01-14 23:00+00');
CALL talkmeter.archive('2026-02-15 00:00+00');
