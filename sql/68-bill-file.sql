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
