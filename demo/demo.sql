-- What does talkmeter make of 218,120 real support messages? Run by `make demo` in an empty database, with the
-- variable `data` set to the path of the sample, data/irc_support.csv.
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE EXTENSION talkmeter;

\echo
\echo '1. The application has a table of messages.'
CREATE TABLE public.messages (
    id bigint PRIMARY KEY,
    tenant_id text NOT NULL,
    conversation_id text NOT NULL,
    created_at timestamptz NOT NULL,
    sender text NOT NULL,
    event text NOT NULL,
    author integer
);

\echo
\echo '2. The vendor sells 100 AI-handled conversations a month, 0.04 USD for each beyond, and packs of 50 for 1.50 USD.'
SELECT talkmeter.define_plan('{"name": "demo/100", "included": 100, "overage_rate": 0.04, "currency": "USD"}');
SELECT talkmeter.define_pack('{"name": "demo/50", "size": 50, "price": 1.50, "currency": "USD", "valid_for": "90 days"}');

\echo
\echo '3. The table is attached: from now on each message is metered in the transaction that writes it.'
SELECT * FROM talkmeter.attach('public.messages', policy => 'agent_red', default_plan => 'demo/100', mapping => '{
    "kinds": [ {"when": {"event": "close"},              "kind": "close"},
               {"when": {"event": ["join", "notice"]},   "kind": "system_message"},
               {"when": {"sender": "customer"},          "kind": "customer_message"},
               {"when": {"sender": "ai"},                "kind": "ai_reply"},
               {"when": {"sender": "staff"},             "kind": "staff_reply"} ]
}');

\echo
\echo '4. Two merchants buy packs.'
SELECT tenant, talkmeter.buy_pack(tenant, 'demo/50', key, at) AS pack_id
FROM (VALUES ('ubuntu-2005', 'first', timestamptz '2005-02-01 00:00+00'),
             ('ubuntu-2005', 'second', '2005-06-01 00:00+00'),
             ('ubuntu-2006', 'first', '2006-05-10 00:00+00')) AS purchase (tenant, key, at);

\echo
\echo '5. The messages arrive, all of fifteen years in one COPY.'
\timing on
COPY public.messages FROM :'data' WITH (FORMAT csv, HEADER);
\timing off

\echo
\echo '6. Time passes: what has been idle for 30 minutes has ended.'
SELECT talkmeter.sweep() AS ended;

\echo
\echo 'What each merchant used and owes, over all months:'
SELECT m.tenant, m.messages, p.parts, c.billed, c.included, c.pack, c.overage, c.owed_for_overage, k.paid_for_packs
FROM (SELECT tenant_id AS tenant, count(*) AS messages FROM public.messages GROUP BY 1) AS m
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
SELECT period_start::date AS month, count(*) AS used,
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
\echo 'Look around: talkmeter.parts, talkmeter.charges, talkmeter.usage, talkmeter.packs; \\dv talkmeter.* lists the rest.'
\echo 'Or write a message of your own and see its charge:'
\echo '  INSERT INTO messages VALUES (1000001, ''acme'', ''c1'', now(), ''customer'', ''message''),'
\echo '                              (1000002, ''acme'', ''c1'', now(), ''ai'', ''message'');'
\echo '  SELECT * FROM talkmeter.charges WHERE tenant = ''acme'';'
\echo '  SELECT * FROM talkmeter.usage WHERE tenant = ''acme'';'
