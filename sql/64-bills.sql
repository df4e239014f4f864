-- What has each month brought in, tenant by tenant and day by day?

CREATE FUNCTION talkmeter.months_of(tenant text)
    RETURNS TABLE (period text, first_day date, period_start timestamptz, period_end timestamptz)
    LANGUAGE c STABLE STRICT PARALLEL UNSAFE ROWS 12 AS 'MODULE_PATHNAME', 'months_of_wrapper';
REVOKE ALL ON FUNCTION talkmeter.months_of(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.months_of(text) IS
    'The billing months of a tenant, from its first to the current one: those in which it was on a plan, had units, or bought a pack or gave one back';

CREATE VIEW talkmeter.usage_monthly AS
    SELECT a.tenant, m.period, m.first_day, m.period_start, m.period_end,
        COALESCE(u.included_used + u.pack_used + u.overage_units, 0) AS used,
        COALESCE(u.included_used, 0) AS included_used, COALESCE(u.pack_used, 0) AS pack_used,
        COALESCE(u.overage_units, 0) AS overage_units
    FROM talkmeter.account AS a
    CROSS JOIN LATERAL talkmeter.months_of(a.tenant) AS m
    LEFT JOIN talkmeter.period AS u
        ON u.tenant = a.tenant AND u.period_start = m.period_start AND u.period_end = m.period_end;
REVOKE ALL ON talkmeter.usage_monthly FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage_monthly IS
    'One row per tenant and billing month, from its first to the current one, also if it used nothing';
COMMENT ON COLUMN talkmeter.usage_monthly.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage_monthly.period IS 'The year and month of its first day, as 2026-03';
COMMENT ON COLUMN talkmeter.usage_monthly.first_day IS 'Its first day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.usage_monthly.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.usage_monthly.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.usage_monthly.used IS 'Units, net';
COMMENT ON COLUMN talkmeter.usage_monthly.included_used IS 'Units paid by the allowance';
COMMENT ON COLUMN talkmeter.usage_monthly.pack_used IS 'Units paid by packs';
COMMENT ON COLUMN talkmeter.usage_monthly.overage_units IS 'Units paid as overage';

-- A month is asked for its lines only if its statement may list something.
CREATE VIEW talkmeter.billed_line AS
    SELECT a.tenant, m.period, m.first_day, m.period_start, m.period_end, own.finalized_at, l.kind, l.amount, l.currency
    FROM talkmeter.account AS a
    CROSS JOIN LATERAL talkmeter.months_of(a.tenant) AS m
    LEFT JOIN talkmeter.period AS own
        ON own.tenant = a.tenant AND own.period_start = m.period_start AND own.period_end = m.period_end
    CROSS JOIN LATERAL (
        SELECT s.kind, s.amount, s.currency
        FROM talkmeter.statement_line AS s
        WHERE own.finalized_at IS NOT NULL AND s.tenant = a.tenant AND s.period_start = m.period_start
            AND s.period_end = m.period_end
        UNION ALL
        SELECT o.kind, o.amount, o.currency
        FROM talkmeter.statement_lines(CASE WHEN own.finalized_at IS NULL THEN a.tenant END, m.period_start, m.period_end) AS o
    ) AS l
    WHERE own.tenant IS NOT NULL
        OR EXISTS (
            SELECT FROM talkmeter.subscription AS s
            JOIN talkmeter.plan AS p ON p.name = s.plan
            WHERE s.tenant = a.tenant AND s.since < m.period_end AND p.price IS NOT NULL)
        -- One that was bought before the first month is on its statement.
        OR EXISTS (
            SELECT FROM talkmeter.pack AS k
            WHERE k.tenant = a.tenant AND (k.billed_at < m.period_end OR k.refunded_at < m.period_end)
                AND (k.billed_at >= m.period_start OR k.refunded_at >= m.period_start
                    OR NOT EXISTS (
                        SELECT FROM talkmeter.subscription AS s WHERE s.tenant = a.tenant AND s.since < m.period_start)));
REVOKE ALL ON talkmeter.billed_line FROM PUBLIC;
COMMENT ON VIEW talkmeter.billed_line IS 'The lines of the statements of all months of tenants, frozen or as the ledger has them now';

CREATE VIEW talkmeter.bills AS
    SELECT l.tenant, l.period, l.period_start, l.period_end,
        CASE WHEN l.finalized_at IS NOT NULL THEN 'finalized'
            WHEN l.period_end <= (SELECT clock.now FROM talkmeter.clock) THEN 'over' ELSE 'running' END AS status,
        COALESCE(pg_catalog.sum(l.amount) FILTER (WHERE l.kind = 'base'), 0) AS base,
        COALESCE(pg_catalog.sum(l.amount) FILTER (WHERE l.kind IN ('pack', 'pack_refund')), 0) AS packs,
        COALESCE(pg_catalog.sum(l.amount) FILTER (WHERE l.kind IN ('overage', 'late')), 0) AS overage,
        COALESCE(pg_catalog.sum(l.amount) FILTER (WHERE l.kind = 'credit'), 0) AS credits,
        pg_catalog.sum(l.amount) AS total, l.currency, l.finalized_at
    FROM talkmeter.billed_line AS l
    GROUP BY l.tenant, l.period, l.period_start, l.period_end, l.finalized_at, l.currency;
REVOKE ALL ON talkmeter.bills FROM PUBLIC;
COMMENT ON VIEW talkmeter.bills IS
    'One row per tenant, billing month and currency: what its statement comes to, frozen or as the ledger has it now; a month without a line has no row';
COMMENT ON COLUMN talkmeter.bills.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.bills.period IS 'The year and month of its first day in the tenant''s zone, as 2026-03';
COMMENT ON COLUMN talkmeter.bills.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.bills.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.bills.status IS 'running, over, or finalized if its statement is frozen';
COMMENT ON COLUMN talkmeter.bills.base IS 'The price of the plan';
COMMENT ON COLUMN talkmeter.bills.packs IS 'Packs bought, less those refunded';
COMMENT ON COLUMN talkmeter.bills.overage IS 'Overage, with what came late for earlier periods';
COMMENT ON COLUMN talkmeter.bills.credits IS 'What was credited, 0 or less';
COMMENT ON COLUMN talkmeter.bills.total IS 'The sum of the statement''s lines';
COMMENT ON COLUMN talkmeter.bills.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.bills.finalized_at IS 'When its statement was frozen; null: it is not';

CREATE VIEW talkmeter.revenue_daily AS
    SELECT r.tenant, r.day, pg_catalog.sum(r.base) AS base, pg_catalog.sum(r.packs) AS packs,
        pg_catalog.sum(r.overage) AS overage, pg_catalog.sum(r.base + r.packs + r.overage) AS total, r.currency
    FROM (
        SELECT c.tenant, talkmeter.local_day(c.tenant, c.charged_at, c.charge_id) AS day, 0::numeric AS base, 0::numeric AS packs,
            c.amount AS overage, c.currency
        FROM talkmeter.charge AS c
        WHERE c.amount <> 0
        UNION ALL
        SELECT k.tenant, talkmeter.local_day(k.tenant, k.billed_at), 0, k.price, 0, k.currency
        FROM talkmeter.pack AS k
        WHERE k.refunded_at IS NULL
        UNION ALL
        SELECT l.tenant, l.first_day, l.amount, 0, 0, l.currency
        FROM talkmeter.billed_line AS l
        WHERE l.kind = 'base'
    ) AS r
    GROUP BY r.tenant, r.day, r.currency;
REVOKE ALL ON talkmeter.revenue_daily FROM PUBLIC;
COMMENT ON VIEW talkmeter.revenue_daily IS
    'What each local day of a tenant has brought in, exact: overage by charge instant, net of what was taken back; packs that were not refunded by their purchase; the base price on the first day of its period';
COMMENT ON COLUMN talkmeter.revenue_daily.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.revenue_daily.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.revenue_daily.base IS 'The price of the plan, on the first day of its period';
COMMENT ON COLUMN talkmeter.revenue_daily.packs IS 'The price of packs that were bought and not refunded';
COMMENT ON COLUMN talkmeter.revenue_daily.overage IS 'Overage by charge instant, less what was taken back';
COMMENT ON COLUMN talkmeter.revenue_daily.total IS 'The sum of the three';
COMMENT ON COLUMN talkmeter.revenue_daily.currency IS 'ISO 4217 code';
