-- What have tenants used day by day and month by month, and what will it come to?

CREATE VIEW talkmeter.usage_daily AS
    SELECT d.tenant, d.day, d.units AS used
    FROM talkmeter.day_units AS d;
REVOKE ALL ON talkmeter.usage_daily FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage_daily IS
    'Net units of each local day of a tenant, by charge instant; a day without units has no row, or 0 if all were taken back';
COMMENT ON COLUMN talkmeter.usage_daily.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage_daily.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.usage_daily.used IS 'Units charged on that day by charge instant, net; 0 if all were taken back';

CREATE VIEW talkmeter.usage_history AS
    SELECT u.tenant, plan.name AS plan, u.period_start, u.period_end,
        u.included_used + u.pack_used + u.overage_units AS used,
        plan.included, u.included_used, u.pack_used, u.overage_units,
        pg_catalog.round(u.overage_amount, talkmeter.currency_digits(plan.currency)) AS overage, plan.currency,
        u.finalized_at, talkmeter.period_name(u.tenant, u.period_start, u.period_end) AS period
    FROM talkmeter.period AS u
    LEFT JOIN LATERAL (
        SELECT s.plan
        FROM talkmeter.subscription AS s
        WHERE s.tenant = u.tenant AND s.since < u.period_end AND s.plan IS NOT NULL
        ORDER BY s.subscription_id DESC
        LIMIT 1
    ) AS last ON true
    LEFT JOIN talkmeter.plan ON plan.name = last.plan
    WHERE u.period_end <= (SELECT clock.now FROM talkmeter.clock);
REVOKE ALL ON talkmeter.usage_history FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage_history IS
    'One row per tenant and month that is over and had units: what it used, net, with its last plan; its statement has the money line by line';
COMMENT ON COLUMN talkmeter.usage_history.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage_history.plan IS 'The last plan of the period';
COMMENT ON COLUMN talkmeter.usage_history.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.usage_history.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.usage_history.used IS 'Units, net';
COMMENT ON COLUMN talkmeter.usage_history.included IS 'Units that the plan includes per period';
COMMENT ON COLUMN talkmeter.usage_history.included_used IS 'Units paid by the allowance';
COMMENT ON COLUMN talkmeter.usage_history.pack_used IS 'Units paid by packs';
COMMENT ON COLUMN talkmeter.usage_history.overage_units IS 'Units paid as overage';
COMMENT ON COLUMN talkmeter.usage_history.overage IS 'What the overage units cost, rounded once';
COMMENT ON COLUMN talkmeter.usage_history.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.usage_history.finalized_at IS 'When its statement was frozen; null: it is not';
COMMENT ON COLUMN talkmeter.usage_history.period IS 'The name of the period: the year and month of its first local day, as 2026-03';

CREATE VIEW talkmeter.usage_projection AS
    SELECT u.tenant, u.period_start, u.period_end, u.used,
        p.units AS projected_used,
        u.overage_units + p.beyond AS projected_overage_units,
        pg_catalog.round(COALESCE(own.overage_amount, 0) + p.beyond * rate.mean,
            talkmeter.currency_digits(u.currency)) AS projected_overage,
        u.currency, u.period
    FROM talkmeter.usage AS u
    LEFT JOIN talkmeter.period AS own
        ON own.tenant = u.tenant AND own.period_start = u.period_start AND own.period_end = u.period_end
    CROSS JOIN LATERAL (
        SELECT pg_catalog.round(u.used * EXTRACT(epoch FROM u.period_end - u.period_start)
            / GREATEST(EXTRACT(epoch FROM (SELECT clock.now FROM talkmeter.clock) - u.period_start), 1))::bigint AS units
    ) AS whole
    CROSS JOIN LATERAL (
        SELECT whole.units, GREATEST(whole.units - u.used - u.included_remaining - u.pack_balance, 0) AS beyond
    ) AS p
    CROSS JOIN LATERAL (
        -- As its outcomes were so far; only a plan with rates by outcome needs the charges for that.
        SELECT COALESCE(CASE WHEN plan.rates IS NOT NULL THEN (
                SELECT pg_catalog.sum(c.units * CASE WHEN pg_catalog.jsonb_typeof(plan.rates -> c.outcome) = 'number'
                    THEN (plan.rates ->> c.outcome)::numeric ELSE plan.overage_rate END) / NULLIF(pg_catalog.sum(c.units), 0)
                FROM talkmeter.posting AS c
                WHERE c.tenant = u.tenant AND c.posted_period_start = u.period_start
                    AND c.period_start = u.period_start AND c.period_end = u.period_end) END, plan.overage_rate) AS mean
        FROM talkmeter.plan
        WHERE plan.name = u.plan
    ) AS rate;
REVOKE ALL ON talkmeter.usage_projection FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage_projection IS
    'What the current period comes to if it goes on as it went so far: units, of them overage, and its money; no pack is expected to be bought or to expire, and outcomes to be as they were';
COMMENT ON COLUMN talkmeter.usage_projection.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage_projection.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.usage_projection.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.usage_projection.used IS 'Units so far, net';
COMMENT ON COLUMN talkmeter.usage_projection.projected_used IS 'Units at the end';
COMMENT ON COLUMN talkmeter.usage_projection.projected_overage_units IS 'Units of them in overage';
COMMENT ON COLUMN talkmeter.usage_projection.projected_overage IS 'Their cost, rounded once';
COMMENT ON COLUMN talkmeter.usage_projection.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.usage_projection.period IS 'The name of the period: the year and month of its first local day, as 2026-03';

CREATE FUNCTION talkmeter.audit_of(tenant text, conversation text, first bytea, last bytea)
    RETURNS TABLE (customer text, stages text[], models text[], safety_passed boolean)
    LANGUAGE c STABLE PARALLEL UNSAFE ROWS 1 COST 10000 AS 'MODULE_PATHNAME', 'audit_of_wrapper';
REVOKE ALL ON FUNCTION talkmeter.audit_of(text, text, bytea, bytea) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.audit_of(text, text, bytea, bytea) IS
    'What audit_trail shows of the rows of a part, from its first event to its last: the first customer, stages and models in the order in which they were first seen, and whether all safety checks were passed';

CREATE VIEW talkmeter.audited AS
    -- A cell that begins with one of these is a formula to a spreadsheet.
    SELECT p.tenant, pg_catalog.regexp_replace(p.conversation, '^([=+@\t\r\n-])', '''\1') AS conversation, p.part,
        pg_catalog.regexp_replace(seen.customer, '^([=+@\t\r\n-])', '''\1') AS customer, p.started_at, p.first_ai_reply_at,
        p.last_activity_at,
        CASE WHEN p.passed THEN p.due_end ELSE p.ended_at END AS ended_at,
        CASE WHEN p.passed THEN p.due_reason ELSE p.end_reason END AS end_reason,
        COALESCE(p.charged_at, p.due_end) AS charged_at, p.message_count, p.turn_count, p.ai_replies, p.staff_replies,
        seen.stages, seen.models, seen.safety_passed, c.charge_id, c.tier, c.amount, c.currency,
        c.taken_back, pg_catalog.regexp_replace(p.policy, '^([=+@\t\r\n-])', '''\1') AS policy, p.policy_version,
        talkmeter.local_day(p.tenant, COALESCE(p.charged_at, p.due_end), c.charge_id) AS charged_day,
        pg_catalog.regexp_replace(c.outcome, '^([=+@\t\r\n-])', '''\1') AS outcome
    FROM talkmeter.part_now AS p
    CROSS JOIN LATERAL talkmeter.audit_of(p.tenant, p.conversation, p.first_event, p.last_event) AS seen
    LEFT JOIN LATERAL (
        SELECT own.charge_id, own.tier, own.amount, own.currency, own.outcome, EXISTS (
            SELECT FROM talkmeter.charge AS r WHERE r.tenant = own.tenant AND r.reverses = own.charge_id) AS taken_back
        FROM talkmeter.charge AS own
        WHERE own.tenant = p.tenant AND own.conversation = p.conversation AND own.part = p.part AND own.reverses IS NULL
        ORDER BY own.charge_id DESC
        LIMIT 1
    ) AS c ON true
    WHERE p.charged_at IS NOT NULL OR p.passed AND p.due_because IS NULL;
REVOKE ALL ON talkmeter.audited FROM PUBLIC;
COMMENT ON VIEW talkmeter.audited IS
    'The rows of audit_trail with the name of the tenant as it is: what is joined with other views by tenant';

-- In two halves, so that a condition on the tenant finds its parts by index, also where the name shown is not the name.
CREATE VIEW talkmeter.audit_trail AS
    SELECT a.*
    FROM talkmeter.audited AS a
    WHERE a.tenant !~ '^[=+@\t\r\n-]'
    UNION ALL
    SELECT '''' || a.tenant, a.conversation, a.part, a.customer, a.started_at, a.first_ai_reply_at, a.last_activity_at,
        a.ended_at, a.end_reason, a.charged_at, a.message_count, a.turn_count, a.ai_replies, a.staff_replies, a.stages,
        a.models, a.safety_passed, a.charge_id, a.tier, a.amount, a.currency, a.taken_back, a.policy, a.policy_version, a.charged_day,
        a.outcome
    FROM talkmeter.audited AS a
    WHERE a.tenant LIKE '=%' OR a.tenant LIKE '+%' OR a.tenant LIKE '@%' OR a.tenant LIKE '-%'
        OR a.tenant LIKE E'\t%' OR a.tenant LIKE E'\r%' OR a.tenant LIKE E'\n%';
REVOKE ALL ON talkmeter.audit_trail FROM PUBLIC;
COMMENT ON VIEW talkmeter.audit_trail IS
    'Billable parts with who asked, which stages and models answered, whether safety was passed, and the charge. Made for COPY ... CSV HEADER: text that a spreadsheet would take for a formula has an apostrophe before it';
COMMENT ON COLUMN talkmeter.audit_trail.tenant IS
    'The merchant who is billed; with an apostrophe before it if it begins with =, +, -, @, a tab or a line end. The same holds for conversation, customer, policy and outcome';
COMMENT ON COLUMN talkmeter.audit_trail.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.audit_trail.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.audit_trail.customer IS 'The first customer of its customer messages that is not null';
COMMENT ON COLUMN talkmeter.audit_trail.started_at IS 'Time of the event that opened it';
COMMENT ON COLUMN talkmeter.audit_trail.first_ai_reply_at IS 'Time of its first AI reply; null: none';
COMMENT ON COLUMN talkmeter.audit_trail.last_activity_at IS 'Time of its last message, or of its opening';
COMMENT ON COLUMN talkmeter.audit_trail.ended_at IS 'When it ended; null while open, or before a sweep';
COMMENT ON COLUMN talkmeter.audit_trail.end_reason IS 'As in parts';
COMMENT ON COLUMN talkmeter.audit_trail.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.audit_trail.message_count IS 'Messages of customer, AI and staff';
COMMENT ON COLUMN talkmeter.audit_trail.turn_count IS 'Complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.audit_trail.ai_replies IS 'AI replies';
COMMENT ON COLUMN talkmeter.audit_trail.staff_replies IS 'Visible staff replies';
COMMENT ON COLUMN talkmeter.audit_trail.stages IS 'Each stage of its rows once, in the order in which they were first seen';
COMMENT ON COLUMN talkmeter.audit_trail.models IS 'Each model of its AI replies once, likewise';
COMMENT ON COLUMN talkmeter.audit_trail.safety_passed IS 'False if any row says so; null if none says anything';
COMMENT ON COLUMN talkmeter.audit_trail.charge_id IS 'Its last charge; null if it waits for a plan';
COMMENT ON COLUMN talkmeter.audit_trail.tier IS 'Who paid: included, pack or overage';
COMMENT ON COLUMN talkmeter.audit_trail.amount IS 'What it cost, exact';
COMMENT ON COLUMN talkmeter.audit_trail.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.audit_trail.taken_back IS 'Whether that charge was taken back';
COMMENT ON COLUMN talkmeter.audit_trail.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.audit_trail.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.audit_trail.charged_day IS 'The day of the charge instant in the tenant''s zone';
COMMENT ON COLUMN talkmeter.audit_trail.outcome IS 'The outcome for which it was charged; null: its policy names none';
