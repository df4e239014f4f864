-- What does a tenant owe for a billing month?

CREATE FUNCTION talkmeter.statement_lines(tenant text, period_start timestamptz, period_end timestamptz)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH base AS (
            -- The last plan of this period: an upgrade counts for the whole of it. A subscription with another anchor day
            -- has periods of its own.
            SELECT p.name, p.price, p.currency
            FROM (
                SELECT s.plan
                FROM talkmeter.subscription AS s
                CROSS JOIN LATERAL talkmeter.period_at(s.tenant, GREATEST(s.since, statement_lines.period_start)) AS own
                WHERE s.tenant = statement_lines.tenant AND s.since < statement_lines.period_end AND s.plan IS NOT NULL
                    AND own.period_start = statement_lines.period_start AND own.period_end = statement_lines.period_end
                    -- One that was cancelled before the period began is none of it.
                    AND NOT EXISTS (
                        SELECT FROM talkmeter.subscription AS later
                        WHERE later.tenant = s.tenant AND later.subscription_id > s.subscription_id
                            AND later.since <= GREATEST(s.since, statement_lines.period_start))
                ORDER BY s.subscription_id DESC
                LIMIT 1
            ) AS last
            JOIN talkmeter.plan AS p ON p.name = last.plan
            WHERE p.price IS NOT NULL
        ), bought AS (
            -- Each pack is on one statement: that of the period of its purchase, or of the first if it was bought before.
            SELECT k.pack_id, k.pack, k.price, k.currency, k.refunded_at
            FROM talkmeter.pack AS k
            LEFT JOIN LATERAL talkmeter.period_at(k.tenant, k.billed_at) AS own ON true
            WHERE k.tenant = statement_lines.tenant AND k.billed_at < statement_lines.period_end
                AND CASE WHEN own.period_start IS NULL THEN NOT EXISTS (
                        SELECT FROM talkmeter.subscription AS s WHERE s.tenant = k.tenant AND s.since < statement_lines.period_start)
                    ELSE own.period_start = statement_lines.period_start AND own.period_end = statement_lines.period_end END
        ), posted AS (
            SELECT c.period_start, c.tier, c.currency, c.reason, abs(c.amount) AS rate, c.amount, c.units,
                -- What allowance and packs pay costs the same, whatever its outcome.
                CASE WHEN c.tier = 'overage' THEN c.outcome END AS outcome
            FROM talkmeter.posting AS c
            WHERE c.tenant = statement_lines.tenant AND c.posted_period_start = statement_lines.period_start
                AND c.posted_period_end = statement_lines.period_end
        ), lines AS (
            SELECT 1 AS rank, 'base' AS kind, NULL::timestamptz AS of_period_start, b.name AS description,
                1::bigint AS quantity, b.price AS unit_price, b.price AS amount, b.currency
            FROM base AS b
            UNION ALL
            SELECT 2, 'included', NULL, 'units within the allowance', sum(c.units), c.rate, sum(c.amount), c.currency
            FROM posted AS c
            WHERE c.period_start = statement_lines.period_start AND c.tier = 'included' AND c.reason IS DISTINCT FROM 'credit'
            GROUP BY c.rate, c.currency
            HAVING sum(c.units) <> 0
            UNION ALL
            SELECT 3, 'pack', NULL, k.pack, count(*), k.price, sum(k.price), k.currency
            FROM bought AS k
            WHERE k.refunded_at IS NULL OR k.refunded_at >= statement_lines.period_end
            GROUP BY k.pack, k.price, k.currency
            UNION ALL
            SELECT 4, 'pack_refund', NULL, k.pack, -count(*), k.price, -sum(k.price), k.currency
            FROM talkmeter.pack AS k
            CROSS JOIN LATERAL talkmeter.period_at(k.tenant, k.refunded_at) AS own
            WHERE k.tenant = statement_lines.tenant AND k.billed_at < statement_lines.period_start
                AND own.period_start = statement_lines.period_start AND own.period_end = statement_lines.period_end
                -- One that no statement has listed is not paid back.
                AND NOT EXISTS (SELECT FROM bought AS b WHERE b.pack_id = k.pack_id)
            GROUP BY k.pack, k.price, k.currency
            UNION ALL
            SELECT 5, 'overage', NULL, concat_ws(': ', 'units beyond allowance and packs', c.outcome), sum(c.units), c.rate,
                sum(c.amount), c.currency
            FROM posted AS c
            WHERE c.period_start = statement_lines.period_start AND c.tier = 'overage' AND c.reason IS DISTINCT FROM 'credit'
            GROUP BY c.outcome, c.rate, c.currency
            HAVING sum(c.units) <> 0
            UNION ALL
            SELECT 6, 'late', c.period_start, concat_ws(': ', c.tier, c.outcome), sum(c.units), c.rate, sum(c.amount), c.currency
            FROM posted AS c
            WHERE c.period_start <> statement_lines.period_start AND c.reason IS DISTINCT FROM 'credit'
            GROUP BY c.period_start, c.tier, c.outcome, c.rate, c.currency
            HAVING sum(c.units) <> 0
            UNION ALL
            SELECT 7, 'credit', c.period_start, concat_ws(': ', c.tier, c.outcome), sum(c.units), c.rate, sum(c.amount), c.currency
            FROM posted AS c
            WHERE c.reason = 'credit'
            GROUP BY c.period_start, c.tier, c.outcome, c.rate, c.currency
        )
        SELECT row_number() OVER (ORDER BY l.rank, l.of_period_start, l.description COLLATE "C", l.unit_price,
                l.currency COLLATE "C")::integer,
            l.kind, l.of_period_start, l.description, l.quantity::bigint, l.unit_price,
            round(l.amount, talkmeter.currency_digits(l.currency)), l.currency
        FROM lines AS l
        ORDER BY 1
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_lines(text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_lines(text, timestamptz, timestamptz) IS
    'The lines of a statement as the ledger has them now; read talkmeter.statement instead, which knows what is frozen';

CREATE FUNCTION talkmeter.periods_starting(tenant text, start timestamptz)
    RETURNS TABLE (period_start timestamptz, period_end timestamptz)
    LANGUAGE sql STABLE STRICT ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        SELECT p.period_start, p.period_end
        FROM talkmeter.period AS p
        WHERE p.tenant = periods_starting.tenant AND p.period_start = periods_starting.start
        UNION
        SELECT own.period_start, own.period_end
        FROM talkmeter.period_at(periods_starting.tenant, periods_starting.start) AS own
        WHERE own.period_start = periods_starting.start
        UNION
        -- A subscription that is made within a month of its own begins with the whole of it.
        SELECT own.period_start, own.period_end
        FROM talkmeter.subscription AS s
        CROSS JOIN LATERAL talkmeter.period_at(s.tenant, s.since) AS own
        WHERE s.tenant = periods_starting.tenant AND s.since > periods_starting.start
            AND s.since < periods_starting.start + interval '62 days' AND own.period_start = periods_starting.start
    $$;
REVOKE ALL ON FUNCTION talkmeter.periods_starting(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.periods_starting(text, timestamptz) IS
    'The billing months of a tenant that start at an instant: at most one, unless its anchor day was changed from one to another that both fall on the last day of a month';

CREATE FUNCTION talkmeter.statement_of(tenant text, period_start timestamptz, period_end timestamptz)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE STRICT ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH frozen AS (
            SELECT FROM talkmeter.period AS p
            WHERE p.tenant = statement_of.tenant AND p.period_start = statement_of.period_start
                AND p.period_end = statement_of.period_end AND p.finalized_at IS NOT NULL
        )
        SELECT s.line, s.kind, s.of_period_start, s.description, s.quantity, s.unit_price, s.amount, s.currency
        FROM talkmeter.statement_line AS s
        WHERE s.tenant = statement_of.tenant AND s.period_start = statement_of.period_start
            AND s.period_end = statement_of.period_end AND EXISTS (SELECT FROM frozen)
        UNION ALL
        SELECT l.*
        FROM talkmeter.statement_lines(statement_of.tenant, statement_of.period_start, statement_of.period_end) AS l
        WHERE NOT EXISTS (SELECT FROM frozen)
        ORDER BY 1
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_of(text, timestamptz, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_of(text, timestamptz, timestamptz) IS
    'The lines of the statement of one period, frozen or as the ledger has them now';

CREATE FUNCTION talkmeter.statement_of(tenant text, period_start timestamptz)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE STRICT ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT l.*
        FROM talkmeter.periods_starting(statement_of.tenant, statement_of.period_start) AS own
        CROSS JOIN LATERAL talkmeter.statement_of(statement_of.tenant, own.period_start, own.period_end) AS l
        ORDER BY own.period_end, l.line
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_of(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_of(text, timestamptz) IS
    'The lines of a statement; no rows if no period starts then: statement says why';

CREATE FUNCTION talkmeter.known_period(tenant text, period_start timestamptz) RETURNS timestamptz
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'known_period_wrapper';
REVOKE ALL ON FUNCTION talkmeter.known_period(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.known_period(text, timestamptz) IS
    'The instant, if a billing month of the tenant starts then; else an error that says which month holds it';

CREATE FUNCTION talkmeter.periods_of_month(tenant text, month date) RETURNS SETOF timestamptz
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE ROWS 1 AS 'MODULE_PATHNAME', 'periods_of_month_wrapper';
REVOKE ALL ON FUNCTION talkmeter.periods_of_month(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.periods_of_month(text, date) IS
    'When the billing months start that start in a month of the tenant''s own calendar; an error if there is none';

CREATE FUNCTION talkmeter.statement(tenant text, period_start timestamptz)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE STRICT ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.known_period(statement.tenant, statement.period_start) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.statement_of(statement.tenant, own.period_start) AS s
        ORDER BY s.line
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement(text, timestamptz) IS
    'The lines of the statement of the period that starts then: frozen if it is finalized, else as the ledger has them now. Each amount is rounded once; the total is their sum';

CREATE FUNCTION talkmeter.statement(tenant text, month date)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE STRICT ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.periods_of_month(statement.tenant, statement.month) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.statement_of(statement.tenant, own.period_start) AS s
        ORDER BY own.period_start, s.line
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement(text, date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone: statement(tenant, date ''2026-03-01'')';

CREATE FUNCTION talkmeter.instant_meant(period text) RETURNS timestamptz
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'instant_meant_wrapper';
REVOKE ALL ON FUNCTION talkmeter.instant_meant(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.instant_meant(text) IS
    'The instant that a text is, by the clock of the session; else an error that says how periods are named';

CREATE FUNCTION talkmeter.month_meant(tenant text, period text) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT CASE
            WHEN month_meant.period ~ '^ *(?!0000)\d{4}-(0[1-9]|1[0-2]) *$' THEN btrim(month_meant.period)
            -- A day at whose first instant a period starts, by the clock of the session, is that one.
            WHEN month_meant.period ~ '^ *\d{4}-\d{2}-\d{2} *$' AND NOT EXISTS (
                SELECT FROM talkmeter.periods_starting(month_meant.tenant, talkmeter.instant_meant(month_meant.period)))
            THEN left(btrim(month_meant.period), 7) END
    $$;
REVOKE ALL ON FUNCTION talkmeter.month_meant(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.month_meant(text, text) IS
    'The name of the month that a text means, by its name or a day of it; null if it means an instant';

-- An untyped text is taken for this one: as what it looks like.
CREATE FUNCTION talkmeter.periods_named(tenant text, period text) RETURNS SETOF timestamptz
    LANGUAGE sql STABLE ROWS 1 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH own AS (
            SELECT talkmeter.month_meant(periods_named.tenant, periods_named.period) AS month
        )
        SELECT m.period_start
        FROM own
        CROSS JOIN LATERAL talkmeter.periods_of_month(periods_named.tenant, (own.month || '-01')::date) AS m (period_start)
        UNION ALL
        SELECT talkmeter.known_period(periods_named.tenant, talkmeter.instant_meant(periods_named.period))
        FROM own
        WHERE own.month IS NULL AND periods_named.period IS NOT NULL
        UNION ALL
        SELECT COALESCE(
            (SELECT p.period_start FROM talkmeter.period_at(periods_named.tenant, (SELECT clock.now FROM talkmeter.clock)) AS p),
            talkmeter.known_period(periods_named.tenant, (SELECT clock.now FROM talkmeter.clock)))
        WHERE periods_named.period IS NULL
    $$;
REVOKE ALL ON FUNCTION talkmeter.periods_named(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.periods_named(text, text) IS
    'When the periods start that a text means: a name such as 2026-03, a day, an instant; null: the current one. An error if there is none';

CREATE FUNCTION talkmeter.statement(tenant text, period text DEFAULT NULL)
    RETURNS TABLE (line integer, kind text, of_period_start timestamptz, description text, quantity bigint,
        unit_price numeric, amount numeric, currency text)
    LANGUAGE sql STABLE ROWS 6 SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.periods_named(statement.tenant, statement.period) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.statement_of(statement.tenant, own.period_start) AS s
        ORDER BY own.period_start, s.line
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement(text, text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';
