-- Which charges make up each line of a statement, and of which conversations are they?

CREATE FUNCTION talkmeter.units_of_statement(tenant text, period_start timestamptz)
    RETURNS TABLE (line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        WITH posted AS (
            SELECT c.*, CASE WHEN c.reason = 'credit' THEN 'credit' WHEN c.period_start <> own.period_start THEN 'late' ELSE c.tier END
                AS kind, own.period_end AS own_end
            FROM talkmeter.periods_starting(units_of_statement.tenant, units_of_statement.period_start) AS own
            JOIN talkmeter.posting AS c ON c.tenant = units_of_statement.tenant AND c.posted_period_start = own.period_start
                AND c.posted_period_end = own.period_end
        ), lines AS MATERIALIZED (
            SELECT own.period_end AS own_end, l.*
            FROM talkmeter.periods_starting(units_of_statement.tenant, units_of_statement.period_start) AS own
            CROSS JOIN LATERAL talkmeter.statement_of(units_of_statement.tenant, own.period_start, own.period_end) AS l
        )
        SELECT l.line, c.kind, c.charge_id, c.conversation, c.part, c.charged_at, p.started_at, p.ended_at, p.message_count, c.tier,
            c.units, c.amount, c.currency, c.reverses, c.reason, c.outcome
        FROM posted AS c
        LEFT JOIN lines AS l ON l.own_end = c.own_end AND l.kind = c.kind AND c.kind <> 'pack' AND l.currency = c.currency
            AND l.unit_price = abs(c.amount)
            AND (c.kind = 'included' OR l.description = concat_ws(': ',
                CASE WHEN c.kind = 'overage' THEN 'units beyond allowance and packs' ELSE c.tier END,
                CASE WHEN c.tier = 'overage' THEN c.outcome END))
            AND (c.kind IN ('included', 'overage') OR l.of_period_start = c.period_start)
        LEFT JOIN talkmeter.part AS p
            ON p.tenant = c.tenant AND p.conversation = c.conversation AND p.part = c.part
        ORDER BY l.line, c.charge_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.units_of_statement(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.units_of_statement(text, timestamptz) IS
    'The charges that a statement lists; no rows if no period starts then: statement_units says why';

CREATE FUNCTION talkmeter.statement_units(tenant text, period_start timestamptz)
    RETURNS TABLE (line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT u.*
        FROM talkmeter.known_period(statement_units.tenant, statement_units.period_start) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.units_of_statement(statement_units.tenant, own.period_start) AS u
        ORDER BY u.line, u.charge_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_units(text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_units(text, timestamptz) IS
    'Each charge that the statement of the period that starts then lists, with the line that it is part of, and the conversation. No line: a pack paid it, or it was taken back at the same price';

CREATE FUNCTION talkmeter.statement_units(tenant text, month date)
    RETURNS TABLE (line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE sql STABLE STRICT SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT u.*
        FROM talkmeter.periods_of_month(statement_units.tenant, statement_units.month) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.units_of_statement(statement_units.tenant, own.period_start) AS u
        ORDER BY own.period_start, u.line, u.charge_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_units(text, date) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_units(text, date) IS
    'The same of the period that starts in the month of that day, by the tenant''s own zone';

CREATE FUNCTION talkmeter.statement_units(tenant text, period text DEFAULT NULL)
    RETURNS TABLE (line integer, kind text, charge_id bigint, conversation text, part integer, charged_at timestamptz,
        started_at timestamptz, ended_at timestamptz, message_count bigint, tier text, units integer, amount numeric, currency text,
        reverses bigint, reason text, outcome text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        SELECT s.*
        FROM talkmeter.periods_named(statement_units.tenant, statement_units.period) AS own (period_start)
        CROSS JOIN LATERAL talkmeter.units_of_statement(statement_units.tenant, own.period_start) AS s
        ORDER BY own.period_start, s.line, s.charge_id
    $$;
REVOKE ALL ON FUNCTION talkmeter.statement_units(text, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.statement_units(text, text) IS
    'The same of a period by its name, 2026-03; by a day of the month in which it starts; by the instant at which it starts; or of the current one';
