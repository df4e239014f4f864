-- What does the page of a tenant show? One document, read in one snapshot; all its values are the views' own.
--
-- Variables: tenant; asked, a month by its name, as 2026-03, or by its first day, or empty for the newest; newest, how many conversations to
-- explain; most, how many rows of each list to show.

SELECT m.*
FROM (SELECT) AS always
LEFT JOIN LATERAL (
    SELECT own.period, own.period_start, own.period_end, own.first_day,
        round(extract(epoch FROM own.period_end - own.period_start) / 86400)::int AS days,
        -- Two months may have one name, where the day on which they begin was moved.
        CASE WHEN EXISTS (
            SELECT FROM :usage_monthly AS o
            WHERE o.tenant = own.tenant AND o.period = own.period AND o.period_start <> own.period_start
        ) THEN to_char(own.first_day, 'YYYY-MM-DD') ELSE own.period END AS own_name
    FROM :usage_monthly AS own
    WHERE own.tenant = :'tenant' AND (:'asked' IN ('', own.period) OR :'asked' = to_char(own.first_day, 'YYYY-MM-DD'))
    ORDER BY own.period_start DESC
    LIMIT 1
) AS m ON true \gset
\if :{?period_start}
\else
    SELECT jsonb_build_object('refused', CASE WHEN EXISTS (SELECT FROM :usage_monthly AS m WHERE m.tenant = :'tenant')
        THEN 'no_such_period' ELSE 'no_such_tenant' END);
    \q
\endif

SELECT count(*) > 1 AS is_ambiguous, string_agg(to_char(m.first_day, 'YYYY-MM-DD'), ', ' ORDER BY m.period_start) AS first_days
FROM :usage_monthly AS m
WHERE m.tenant = :'tenant' AND m.period = :'asked' \gset
\if :is_ambiguous
    SELECT jsonb_build_object('refused', 'ambiguous', 'detail', :'first_days');
    \q
\endif

\if :reads_all
    \set explained 'talkmeter.explain(n.tenant, n.conversation)'
    \set stated 'talkmeter.statement(b.tenant, b.period_start)'
\else
    \set explained '(SELECT * FROM talkmeter.my_explain(n.conversation) AS all_of_them WHERE all_of_them.tenant = n.tenant)'
    \set stated '(SELECT * FROM talkmeter.my_statement(b.period_start) AS all_of_them WHERE all_of_them.tenant = b.tenant)'
\endif

WITH
    own_parts AS MATERIALIZED (
        SELECT p.*
        FROM :parts AS p
        WHERE p.tenant = :'tenant' AND p.started_at >= :'period_start' AND p.started_at < :'period_end'
    ),
    own_bills AS MATERIALIZED (SELECT b.* FROM :bills AS b WHERE b.tenant = :'tenant'),
    day AS (
        SELECT :'first_day'::date + n AS day, COALESCE(d.used, 0) AS used,
            -- Whole days of the month that are over, and the one that is going on, in the tenant's own calendar.
            CASE WHEN n < extract(epoch FROM now() - :'period_start'::timestamptz) / 86400
                THEN round(avg(COALESCE(d.used, 0)) OVER (ORDER BY n ROWS 6 PRECEDING), 1) END AS average
        FROM generate_series(-6, :days - 1) AS n
        LEFT JOIN :usage_daily AS d ON d.tenant = :'tenant' AND d.day = :'first_day'::date + n
    ),
    newest AS (
        SELECT p.tenant, p.conversation, max(p.started_at) AS started_at
        FROM own_parts AS p
        GROUP BY p.tenant, p.conversation
        ORDER BY max(p.started_at) DESC, p.conversation
        LIMIT :newest
    )
SELECT jsonb_build_object(
    'tenant', :'tenant',
    'period', :'period',
    'own_name', :'own_name',
    'period_start', :'period_start',
    'period_end', :'period_end',
    'first_day', :'first_day',
    'last_day', :'first_day'::date + :days - 1,
    'read_at', to_char(now(), 'YYYY-MM-DD HH24:MI:SSOF'),
    'zone', current_setting('TimeZone'),
    'month', (
        SELECT to_jsonb(m) FROM :usage_monthly AS m WHERE m.tenant = :'tenant' AND m.period_start = :'period_start'
    ),
    'current', (
        SELECT to_jsonb(u) || jsonb_build_object('overage_rate', u.overage_rate::text, 'estimated_overage', u.estimated_overage::text)
        FROM :usage AS u WHERE u.tenant = :'tenant' AND u.period_start = :'period_start'
    ),
    'included', COALESCE(
        (SELECT u.included FROM :usage AS u WHERE u.tenant = :'tenant' AND u.period_start = :'period_start'),
        (SELECT h.included FROM :usage_history AS h WHERE h.tenant = :'tenant' AND h.period_start = :'period_start')
    ),
    'projection', (
        SELECT to_jsonb(p) || jsonb_build_object('projected_overage', p.projected_overage::text)
        FROM :usage_projection AS p WHERE p.tenant = :'tenant' AND p.period_start = :'period_start'
    ),
    'days', (SELECT jsonb_agg(jsonb_build_object('day', d.day, 'used', d.used, 'average', d.average::text) ORDER BY d.day)
        FROM day AS d WHERE d.day >= :'first_day'),
    'not_billed', (
        SELECT COALESCE(jsonb_agg(jsonb_build_object('reason', r.reason, 'parts', r.parts) ORDER BY r.parts DESC, r.reason), '[]')
        FROM (
            SELECT p.not_billable_because AS reason, count(*) AS parts
            FROM own_parts AS p
            WHERE p.not_billable_because IS NOT NULL
            GROUP BY p.not_billable_because
        ) AS r
    ),
    'parts', (
        SELECT jsonb_build_object('all', count(*), 'billable', count(*) FILTER (WHERE p.billable),
            'open', count(*) FILTER (WHERE p.status = 'open' AND NOT p.billable))
        FROM own_parts AS p
    ),
    'alerts', (
        SELECT jsonb_build_object('more', GREATEST(count(*) - :most, 0), 'rows', COALESCE(
            jsonb_agg(jsonb_build_object('kind', a.kind, 'fired_at', a.fired_at, 'muted', a.muted,
                'notified_at', a.notified_at) ORDER BY a.fired_at, a.kind) FILTER (WHERE a.newest <= :most), '[]'))
        FROM (
            SELECT own.*, row_number() OVER (ORDER BY own.fired_at DESC, own.kind) AS newest
            FROM :alerts AS own
            WHERE own.tenant = :'tenant' AND own.period_start >= :'period_start' AND own.period_start < :'period_end'
        ) AS a
    ),
    'packs', (
        SELECT jsonb_build_object('more', GREATEST(count(*) - :most, 0), 'rows', COALESCE(jsonb_agg(jsonb_build_object('pack', p.pack, 'size', p.size, 'remaining', p.remaining,
            'price', p.price::text, 'currency', p.currency, 'purchased_day', p.purchased_day, 'expires_day', p.expires_day,
            'refunded', p.refunded_at IS NOT NULL) ORDER BY p.purchased_at, p.pack_id) FILTER (WHERE p.newest <= :most), '[]'))
        FROM (
            SELECT own.*, row_number() OVER (ORDER BY own.purchased_at DESC, own.pack_id DESC) AS newest
            FROM :packs AS own
            WHERE own.tenant = :'tenant' AND own.purchased_at < :'period_end' AND own.expires_at > :'period_start'
        ) AS p
    ),
    'disputes', (
        SELECT jsonb_build_object('more', GREATEST(count(*) - :most, 0), 'rows', COALESCE(
            jsonb_agg(jsonb_build_object('charge_id', d.charge_id, 'conversation', d.conversation,
                'reason', d.reason, 'state', d.state, 'due_day', d.due_day) ORDER BY d.dispute_id) FILTER (WHERE d.newest <= :most), '[]'))
        FROM (
            SELECT own.*, row_number() OVER (ORDER BY own.dispute_id DESC) AS newest
            FROM :disputes AS own
            WHERE own.tenant = :'tenant'
                AND (own.state = 'open' OR own.filed_at >= :'period_start' AND own.filed_at < :'period_end')
        ) AS d
    ),
    'statement', (
        SELECT COALESCE(jsonb_agg(jsonb_build_object('line', s.line, 'kind', s.kind, 'description', s.description,
            'quantity', s.quantity, 'unit_price', s.unit_price::text, 'amount', s.amount::text, 'currency', s.currency)
            ORDER BY s.line), '[]')
        FROM (SELECT DISTINCT b.tenant, b.period_start FROM own_bills AS b WHERE b.period_start = :'period_start') AS b
        CROSS JOIN LATERAL :stated AS s
    ),
    'totals', (
        SELECT COALESCE(jsonb_agg(jsonb_build_object('status', b.status, 'total', b.total::text, 'currency', b.currency)
            ORDER BY b.currency), '[]')
        FROM own_bills AS b WHERE b.period_start = :'period_start'
    ),
    'history', (
        SELECT jsonb_agg(to_jsonb(h) || jsonb_build_object('bills', (
                SELECT COALESCE(jsonb_agg(jsonb_build_object('status', b.status, 'total', b.total::text, 'currency', b.currency)
                    ORDER BY b.currency), '[]')
                FROM own_bills AS b WHERE b.period_start = h.period_start)) ORDER BY h.period_start)
        FROM (
            SELECT m.period, m.first_day, m.period_start, m.used, m.included_used, m.pack_used, m.overage_units
            FROM :usage_monthly AS m
            WHERE m.tenant = :'tenant' AND m.period_start <= :'period_start'
            ORDER BY m.period_start DESC
            LIMIT 12
        ) AS h
    ),
    'conversations', (
        SELECT COALESCE(jsonb_agg(jsonb_build_object(
            'conversation', n.conversation,
            'parts', (
                SELECT jsonb_build_object('more', GREATEST(count(*) - :most, 0), 'rows', jsonb_agg(jsonb_build_object('part', p.part, 'started_at', p.started_at, 'ended_at', p.ended_at,
                    'status', p.status, 'billable', p.billable, 'not_billable_because', p.not_billable_because,
                    'message_count', p.message_count, 'outcome', p.outcome) ORDER BY p.started_at, p.part) FILTER (WHERE p.newest <= :most))
                FROM (
                    SELECT own.*, row_number() OVER (ORDER BY own.started_at DESC, own.part DESC) AS newest
                    FROM own_parts AS own
                    WHERE own.conversation = n.conversation
                ) AS p
            ),
            'steps', (
                SELECT jsonb_build_object('more', GREATEST(count(*) - :most, 0), 'rows', COALESCE(jsonb_agg(jsonb_build_object('step', e.step, 'occurred_at', e.occurred_at, 'event', e.event,
                    'message_id', e.message_id, 'effect', e.effect, 'rule', e.rule, 'charge_id', e.charge_id, 'tier', e.tier,
                    'amount', e.amount::text, 'currency', e.currency) ORDER BY e.step) FILTER (WHERE e.step <= :most), '[]'))
                FROM :explained AS e
            )
        ) ORDER BY n.started_at DESC, n.conversation), '[]')
        FROM newest AS n
    )
);
COMMIT;
