-- What does talkmeter make of 218,120 real support messages? Run by `make demo` in an empty database, with the variables
-- `data`, the path of the sample, data/irc_support.csv, and `mapping`, the text of data/irc_support.mapping.json.
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION talkmeter;

\echo
\echo '1. The application has a table of messages.'
\ir ../data/irc_support.sql

\echo
\echo '2. The vendor sells 60 AI-handled conversations a month, 0.04 USD for each beyond, and packs of 50 for 1.50 USD.'
SELECT talkmeter.define_plan('{"name": "demo/60", "included": 60, "overage_rate": 0.04, "currency": "USD"}');
SELECT talkmeter.define_pack('{"name": "demo/50", "size": 50, "price": 1.50, "currency": "USD", "valid_for": "90 days"}');

\echo
\echo '3. The table is attached: from now on each message is metered in the transaction that writes it.'
-- Who helped is read as the AI, and each of its replies as an answer: a definition that asks for one (step 9) finds it by its tag.
SELECT * FROM talkmeter.attach('irc_support', policy => 'agent_red', default_plan => 'demo/60',
    mapping => replace(:'mapping', '"kind": "ai_reply"', '"kind": "ai_reply:answer"')::jsonb);

-- The times of each merchant are moved by whole days, so that times of day stay and the last message is of yesterday: at
-- 22:56 at the latest, so every conversation has ended by today. A month that begins two weeks ago holds the same messages
-- on whatever day this runs; that of the calendar would be empty on the 1st.
\set QUIET on
CREATE TEMPORARY TABLE sample (LIKE irc_support);
COPY sample FROM :'data' WITH (FORMAT csv, HEADER);
CREATE TEMPORARY TABLE merchant AS
SELECT tenant_id AS tenant, (current_date - 1 - max(created_at)::date) * interval '1 day' AS shift, min(created_at) AS first
FROM sample GROUP BY 1;
\set QUIET off

\echo
\echo '4. The merchants have subscribed, and three of them buy packs. Their months begin on the day that it was two weeks ago.'
SELECT count(talkmeter.subscribe(tenant, 'demo/60', first + shift, anchor_day => extract(day FROM current_date - 14)::int))
    AS merchants
FROM merchant;
SELECT tenant, talkmeter.buy_pack(tenant, 'demo/50', key, at + shift) AS pack_id
FROM (VALUES ('ubuntu-2005', 'first', timestamptz '2005-02-01 00:00+00'),
             ('ubuntu-2005', 'second', '2005-12-01 00:00+00'),
             ('ubuntu-2006', 'first', '2006-05-10 00:00+00'),
             ('ubuntu-2010', 'first', '2010-10-20 00:00+00')) AS purchase (tenant, key, at)
JOIN merchant USING (tenant)
ORDER BY tenant, pack_id;

\echo
\echo '5. The messages arrive, all of them in one statement. A merchant is named after where and when people really'
\echo '   wrote; the times are moved, so that the last message of each is of yesterday.'
\timing on
INSERT INTO irc_support
SELECT id, tenant_id, conversation_id, created_at + shift, sender, event, author
FROM sample JOIN merchant ON tenant = tenant_id
ORDER BY created_at + shift, id;
\timing off

\echo
\echo '6. Yesterday the vendor tried the AI in the names of two merchants. Conversations whose names begin with test_ or'
\echo '   admin_ are recorded and not billed: the definition says so.'
INSERT INTO irc_support
SELECT 300000 + row_number() OVER (), tenant, conversation, current_date - 1 + at, sender, 'message'
FROM (VALUES ('ubuntu-2014'), ('ubuntu-2018')) AS tried (tenant),
    (VALUES ('test_refund'), ('test_login'), ('admin_check')) AS named (conversation),
    (VALUES (time '12:00', 'customer'), ('12:01', 'ai')) AS said (at, sender);

\echo
\echo '7. Time passes: what has been idle for 30 minutes has ended, and alerts are sent.'
SELECT talkmeter.sweep() AS ended;

\echo
\echo 'What each merchant has used of its month so far:'
SELECT tenant, period_start::date AS from, period_end::date AS until, used, included_used AS included, pack_used AS pack,
    overage_units AS overage, estimated_overage AS owed
FROM talkmeter.usage
WHERE used > 0
ORDER BY used DESC, tenant;

\echo 'What they were told of this month:'
SELECT tenant, string_agg(kind, ', ' ORDER BY fired_at, kind) AS alerts
FROM talkmeter.alerts JOIN talkmeter.usage USING (tenant, period_start)
GROUP BY 1 ORDER BY 1;

\echo 'What each merchant used and owes, over all months:'
SELECT m.tenant, m.messages, p.parts, c.billed, c.included, c.pack, c.overage, c.owed_for_overage, k.paid_for_packs
FROM (SELECT tenant_id AS tenant, count(*) AS messages FROM irc_support GROUP BY 1) AS m
LEFT JOIN (SELECT tenant, count(*) AS parts FROM talkmeter.parts GROUP BY 1) AS p USING (tenant)
LEFT JOIN (
    SELECT tenant, count(*) AS billed,
        count(*) FILTER (WHERE tier = 'included') AS included,
        count(*) FILTER (WHERE tier = 'pack') AS pack,
        count(*) FILTER (WHERE tier = 'overage') AS overage,
        round(sum(amount), 2) AS owed_for_overage
    FROM talkmeter.charges GROUP BY 1
) AS c USING (tenant)
LEFT JOIN (SELECT tenant, sum(price) AS paid_for_packs FROM talkmeter.packs GROUP BY 1) AS k USING (tenant)
ORDER BY m.tenant;

\echo 'The months of one of them:'
SELECT period_start::date AS from, count(*) AS used,
    count(*) FILTER (WHERE tier = 'included') AS included,
    count(*) FILTER (WHERE tier = 'pack') AS pack,
    count(*) FILTER (WHERE tier = 'overage') AS overage,
    round(sum(amount), 2) AS owed
FROM talkmeter.charges
WHERE tenant = 'ubuntu-2005'
GROUP BY 1 ORDER BY 1;

\echo 'Why conversations were not billed:'
SELECT not_billable_because, count(*) FROM talkmeter.parts WHERE NOT billable GROUP BY 1 ORDER BY 2 DESC;

\echo
\echo '8. A merchant disputes its two latest charges. The vendor credits one, and has ten business days for the other.'
\set QUIET on
SELECT max(charge_id) AS latest, min(charge_id) AS before
FROM (SELECT charge_id FROM talkmeter.charges WHERE tenant = 'ubuntu-2014' ORDER BY charge_id DESC LIMIT 2) AS charge
\gset
\set QUIET off
SELECT talkmeter.dispute('ubuntu-2014', :before, 'the answer was wrong') AS filed,
    talkmeter.dispute('ubuntu-2014', :latest, 'a person had answered before') AS filed_too;
SELECT talkmeter.resolve_dispute('ubuntu-2014', 1, 'credited', 'agreed on the phone');
SELECT dispute_id, conversation, reason, state, due_at, note
FROM talkmeter.disputes
ORDER BY dispute_id;

\echo 'Its bill, as this month stands:'
SELECT line, kind, description, quantity, unit_price, amount, s.currency
FROM talkmeter.usage AS u, talkmeter.statement(tenant, period_start) AS s
WHERE tenant = 'ubuntu-2014';

\echo
\echo '9. What would another vendor have charged for these very conversations? Intercom counts a resolution for Fin: an answer after'
\echo '   which the customer asks no more for 24 hours, and does not come back. Its definition is in the folder definitions.'
\o /dev/null
\ir ../definitions/intercom.sql
\o
\timing on
SELECT tenant, units, amount, billed_units, billed_amount
FROM talkmeter.simulate('intercom_fin', 'intercom/fin')
ORDER BY tenant;
\timing off

\echo 'Look around: talkmeter.parts, talkmeter.charges, talkmeter.alerts, talkmeter.packs; \\dv talkmeter.* lists the rest.'
\echo 'Or write a message of your own and see its charge:'
\echo '  INSERT INTO irc_support VALUES (1000001, ''acme'', ''c1'', now(), ''customer'', ''message''),'
\echo '                                 (1000002, ''acme'', ''c1'', now(), ''ai'', ''message'');'
\echo '  SELECT * FROM talkmeter.charges WHERE tenant = ''acme'';'
\echo '  SELECT * FROM talkmeter.usage WHERE tenant = ''acme'';'
