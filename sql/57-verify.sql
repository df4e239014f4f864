-- Do parts, charges, packs, periods, alerts and statements agree with one another?

CREATE FUNCTION talkmeter.verify()
    RETURNS TABLE (problem text, tenant text, object text, detail text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        WITH reversed AS (
            SELECT r.tenant, r.reverses AS charge_id, r.charge_id AS by, r.reason
            FROM talkmeter.charge AS r
            WHERE r.reverses IS NOT NULL
        ), standing AS (
            SELECT c.tenant, c.charge_id, c.conversation, c.part, c.charged_at, c.period_start, c.period_end, c.policy,
                c.policy_version
            FROM talkmeter.charge AS c
            LEFT JOIN reversed AS r ON r.tenant = c.tenant AND r.charge_id = c.charge_id
            WHERE c.reverses IS NULL AND r.charge_id IS NULL
        ), credited AS (
            SELECT DISTINCT c.tenant, c.conversation, c.part FROM talkmeter.charge AS c WHERE c.reason = 'credit'
        ), net AS (
            SELECT c.tenant, c.period_start, c.period_end,
                sum(CASE WHEN c.tier = 'included' THEN u.units ELSE 0 END) AS included_used,
                sum(CASE WHEN c.tier = 'pack' THEN u.units ELSE 0 END) AS pack_used,
                sum(CASE WHEN c.tier = 'overage' THEN u.units ELSE 0 END) AS overage_units,
                sum(c.amount) AS overage_amount, max(p.included) AS most_included
            FROM talkmeter.charge AS c
            CROSS JOIN LATERAL (SELECT CASE WHEN c.reverses IS NULL THEN 1 ELSE -1 END AS units) AS u
            JOIN talkmeter.plan AS p ON p.name = c.plan
            GROUP BY c.tenant, c.period_start, c.period_end
        ), drawn AS (
            SELECT c.tenant, c.pack_id, sum(CASE WHEN c.reverses IS NULL THEN 1 ELSE -1 END) AS units,
                min(c.charged_at) AS first, max(c.charged_at) AS last
            FROM talkmeter.charge AS c
            WHERE c.pack_id IS NOT NULL
            GROUP BY c.tenant, c.pack_id
        ), counted AS (
            SELECT c.tenant, count(*) AS rows, min(c.charge_id) AS first, max(c.charge_id) AS last,
                sum(CASE WHEN c.reverses IS NULL THEN 1 ELSE -1 END) AS units
            FROM talkmeter.charge AS c
            GROUP BY c.tenant
        )
        SELECT 'charge_ids_have_gaps', c.tenant, 'charges',
            format('%s rows from %s to %s; the account counts %s.', c.rows, c.first, c.last, a.last_charge_id)
        FROM counted AS c
        LEFT JOIN talkmeter.account AS a ON a.tenant = c.tenant
        WHERE c.first <> 1 OR c.last <> c.rows OR a.last_charge_id IS DISTINCT FROM c.last
        UNION ALL
        SELECT 'charges_are_missing', a.tenant, 'charges', format('The account counts %s, and there is none.', a.last_charge_id)
        FROM talkmeter.account AS a
        WHERE a.last_charge_id > 0 AND NOT EXISTS (SELECT FROM counted AS c WHERE c.tenant = a.tenant)
        UNION ALL
        SELECT 'reversal_is_no_mirror', r.tenant, format('charge %s', r.charge_id),
            CASE WHEN c.charge_id IS NULL THEN format('It takes back charge %s, which is not there.', r.reverses)
                ELSE format('It differs from charge %s, which it takes back.', r.reverses) END
        FROM talkmeter.charge AS r
        LEFT JOIN talkmeter.charge AS c ON c.tenant = r.tenant AND c.charge_id = r.reverses
        WHERE r.reverses IS NOT NULL AND (c.charge_id IS NULL OR c.reverses IS NOT NULL OR c.charge_id >= r.charge_id
            OR (c.conversation, c.part, c.charged_at, c.period_start, c.period_end, c.tier, c.currency, c.plan, c.policy,
                c.policy_version, -c.amount) <> (r.conversation, r.part, r.charged_at, r.period_start, r.period_end, r.tier,
                r.currency, r.plan, r.policy, r.policy_version, r.amount)
            OR c.pack_id IS DISTINCT FROM r.pack_id)
        UNION ALL
        SELECT 'amount_is_not_the_rate', c.tenant, format('charge %s', c.charge_id),
            format('It costs %s; the rate of plan %s is %s %s.', c.amount, c.plan, p.overage_rate, p.currency)
        FROM talkmeter.charge AS c
        JOIN talkmeter.plan AS p ON p.name = c.plan
        WHERE c.reverses IS NULL
            AND (c.amount <> CASE WHEN c.tier = 'overage' THEN p.overage_rate ELSE 0 END OR c.currency <> p.currency)
        UNION ALL
        SELECT 'part_is_charged_twice', s.tenant, format('part %s of %s', s.part, s.conversation),
            format('Charges %s stand.', string_agg(s.charge_id::text, ', ' ORDER BY s.charge_id))
        FROM standing AS s
        GROUP BY s.tenant, s.conversation, s.part
        HAVING count(*) > 1
        UNION ALL
        SELECT 'charge_without_part', s.tenant, format('charge %s', s.charge_id),
            format('Part %s of %s is not there, or is not billable.', s.part, s.conversation)
        FROM standing AS s
        LEFT JOIN talkmeter.part AS p
            ON p.tenant = s.tenant AND p.conversation = s.conversation AND p.part = s.part AND p.charged_at IS NOT NULL
        WHERE p.part IS NULL
        UNION ALL
        SELECT 'charge_differs_from_part', s.tenant, format('charge %s', s.charge_id),
            format('Part %s of %s is charged at %s under %s@%s.', p.part, p.conversation, p.charged_at, p.policy,
                p.policy_version)
        FROM standing AS s
        JOIN talkmeter.part AS p ON p.tenant = s.tenant AND p.conversation = s.conversation AND p.part = s.part
        WHERE p.charged_at < s.period_start OR p.charged_at >= s.period_end
            OR (p.policy, p.policy_version) <> (s.policy, s.policy_version)
        UNION ALL
        SELECT 'part_without_charge', p.tenant, format('part %s of %s', p.part, p.conversation),
            format('It is billable since %s, and neither charged, nor waiting for a plan, nor credited.', p.charged_at)
        FROM talkmeter.part AS p
        LEFT JOIN standing AS s ON s.tenant = p.tenant AND s.conversation = p.conversation AND s.part = p.part
        LEFT JOIN talkmeter.unplanned_unit AS u
            ON u.tenant = p.tenant AND u.conversation = p.conversation AND u.part = p.part
        LEFT JOIN credited AS c ON c.tenant = p.tenant AND c.conversation = p.conversation AND c.part = p.part
        WHERE p.charged_at IS NOT NULL AND s.part IS NULL AND u.part IS NULL AND c.part IS NULL
        UNION ALL
        SELECT 'waiting_unit_is_wrong', u.tenant, format('part %s of %s', u.part, u.conversation),
            'It waits for a plan, but is charged already, or not billable, or of another instant.'
        FROM talkmeter.unplanned_unit AS u
        LEFT JOIN talkmeter.part AS p ON p.tenant = u.tenant AND p.conversation = u.conversation AND p.part = u.part
        LEFT JOIN standing AS s ON s.tenant = u.tenant AND s.conversation = u.conversation AND s.part = u.part
        WHERE p.charged_at IS DISTINCT FROM u.charged_at OR s.part IS NOT NULL
        UNION ALL
        SELECT 'parts_overlap', p.tenant, format('part %s of %s', p.part, p.conversation),
            'It begins before the part before it has ended.'
        FROM (
            SELECT o.tenant, o.conversation, o.part, o.first_event,
                lag(o.last_event) OVER w AS before, lag(o.ended_at IS NULL) OVER w AS before_is_open
            FROM talkmeter.part AS o
            WINDOW w AS (PARTITION BY o.tenant, o.conversation ORDER BY o.first_event)
        ) AS p
        WHERE p.before >= p.first_event OR p.before_is_open
        UNION ALL
        SELECT 'part_is_not_judged', p.tenant, format('part %s of %s', p.part, p.conversation),
            'It has ended, and is neither billable nor not.'
        FROM talkmeter.part AS p
        WHERE p.ended_at IS NOT NULL AND p.charged_at IS NULL AND p.not_billable_because IS NULL
        UNION ALL
        SELECT 'part_number_is_unknown', p.tenant, format('part %s of %s', p.part, p.conversation),
            'Its conversation has not counted so far.'
        FROM talkmeter.part AS p
        LEFT JOIN talkmeter.conversation AS c ON c.tenant = p.tenant AND c.conversation = p.conversation
        WHERE c.highest_part IS NULL OR c.highest_part < p.part
        UNION ALL
        SELECT 'period_differs_from_charges', COALESCE(p.tenant, n.tenant),
            format('period from %s to %s', COALESCE(p.period_start, n.period_start), COALESCE(p.period_end, n.period_end)),
            format('It counts %s included, %s pack and %s overage units of %s; the charges are %s, %s and %s of %s.',
                p.included_used, p.pack_used, p.overage_units, p.overage_amount, n.included_used, n.pack_used,
                n.overage_units, n.overage_amount)
        FROM talkmeter.period AS p
        FULL JOIN net AS n ON n.tenant = p.tenant AND n.period_start = p.period_start AND n.period_end = p.period_end
        WHERE (COALESCE(p.included_used, 0), COALESCE(p.pack_used, 0), COALESCE(p.overage_units, 0),
                COALESCE(p.overage_amount, 0))
            <> (COALESCE(n.included_used, 0), COALESCE(n.pack_used, 0), COALESCE(n.overage_units, 0),
                COALESCE(n.overage_amount, 0))
        UNION ALL
        SELECT 'more_than_included', n.tenant, format('period from %s to %s', n.period_start, n.period_end),
            format('%s units were included; no plan of its charges includes more than %s.', n.included_used, n.most_included)
        FROM net AS n
        WHERE n.included_used > n.most_included
        UNION ALL
        SELECT 'periods_overlap', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            'Another period of the same months begins within it.'
        FROM talkmeter.period AS p
        JOIN talkmeter.period AS o
            ON o.tenant = p.tenant AND o.period_start > p.period_start AND o.period_start < p.period_end
        -- Two subscriptions with other anchor days make months of their own.
        WHERE (SELECT count(DISTINCT s.anchor_day) FROM talkmeter.subscription AS s WHERE s.tenant = p.tenant) = 1
        UNION ALL
        SELECT 'pack_differs_from_charges', k.tenant, format('pack %s', k.pack_id),
            format('%s of %s units are left; its charges are %s, from %s to %s.', k.remaining, k.size,
                COALESCE(d.units, 0), d.first, d.last)
        FROM talkmeter.pack AS k
        LEFT JOIN drawn AS d ON d.tenant = k.tenant AND d.pack_id = k.pack_id
        WHERE k.size - k.remaining <> COALESCE(d.units, 0) OR d.first < k.purchased_at OR d.last >= k.expires_at
            OR (k.refunded_at IS NOT NULL AND k.remaining <> k.size)
        UNION ALL
        SELECT 'pack_is_missing', d.tenant, format('pack %s', d.pack_id), format('%s units were drawn from it.', d.units)
        FROM drawn AS d
        LEFT JOIN talkmeter.pack AS k ON k.tenant = d.tenant AND k.pack_id = d.pack_id
        WHERE k.pack_id IS NULL
        UNION ALL
        SELECT 'days_differ_from_charges', COALESCE(d.tenant, c.tenant), 'day_units',
            format('The days count %s units, the charges are %s.', COALESCE(d.units, 0), COALESCE(c.units, 0))
        FROM (SELECT o.tenant, sum(o.units) AS units FROM talkmeter.day_units AS o GROUP BY o.tenant) AS d
        FULL JOIN counted AS c ON c.tenant = d.tenant
        WHERE COALESCE(d.units, 0) <> COALESCE(c.units, 0)
        UNION ALL
        SELECT 'alerts_differ_from_period', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            format('It has raised %s; the alerts are %s.', p.alerted, a.kinds)
        FROM talkmeter.period AS p
        LEFT JOIN (
            SELECT o.tenant, o.period_start, o.period_end, array_agg(o.kind ORDER BY o.kind) AS kinds
            FROM talkmeter.alert AS o
            WHERE o.day = '-infinity'
            GROUP BY o.tenant, o.period_start, o.period_end
        ) AS a ON a.tenant = p.tenant AND a.period_start = p.period_start AND a.period_end = p.period_end
        WHERE (SELECT COALESCE(array_agg(k ORDER BY k COLLATE "C"), '{}') FROM unnest(p.alerted) AS k)
            <> COALESCE(a.kinds, '{}')
        UNION ALL
        SELECT 'posted_after_finalization', c.tenant, format('charge %s', c.charge_id),
            format('It is on the statement of the period from %s, which was finalized before.', c.posted_period_start)
        FROM talkmeter.period AS p
        JOIN talkmeter.charge AS c ON c.tenant = p.tenant AND c.posted_period_start = p.period_start
            AND c.posted_period_end = p.period_end
        WHERE p.finalized_at < c.posted_at
        UNION ALL
        SELECT 'posted_in_no_period', c.tenant, format('charge %s', c.charge_id),
            format('No statement lists the period from %s to %s.', c.posted_period_start, c.posted_period_end)
        FROM talkmeter.charge AS c
        WHERE (c.posted_period_start, c.posted_period_end) <> (c.period_start, c.period_end)
            AND NOT EXISTS (
                SELECT FROM talkmeter.period_at(c.tenant, c.posted_period_start) AS p
                WHERE p.period_start = c.posted_period_start AND p.period_end = c.posted_period_end)
        UNION ALL
        SELECT 'charge_outside_its_period', c.tenant, format('charge %s', c.charge_id),
            format('Its instant %s is not in the period from %s to %s.', c.charged_at, c.period_start, c.period_end)
        FROM talkmeter.charge AS c
        WHERE c.charged_at < c.period_start OR c.charged_at >= c.period_end
        UNION ALL
        SELECT 'statement_line_is_wrong', l.tenant, format('line %s of the period from %s', l.line, l.period_start),
            CASE WHEN p.finalized_at IS NULL THEN 'It is frozen, and its period is not finalized.'
                ELSE 'Its amount is not its quantity times its price.' END
        FROM talkmeter.statement_line AS l
        LEFT JOIN talkmeter.period AS p ON p.tenant = l.tenant AND p.period_start = l.period_start
            AND p.period_end = l.period_end
        WHERE p.finalized_at IS NULL
            OR l.amount <> round(l.quantity * l.unit_price, talkmeter.currency_digits(l.currency))
        UNION ALL
        SELECT 'statement_differs_from_ledger', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            -- The base price may follow a subscription that was backdated since.
            'Its frozen lines are not those of its charges and packs.'
        FROM talkmeter.period AS p
        WHERE p.finalized_at IS NOT NULL AND EXISTS (
            (SELECT l.kind, l.of_period_start, l.description, l.quantity, l.amount, l.currency
             FROM talkmeter.statement_line AS l
             WHERE l.tenant = p.tenant AND l.period_start = p.period_start AND l.period_end = p.period_end
                 AND l.kind <> 'base'
             EXCEPT
             SELECT l.kind, l.of_period_start, l.description, l.quantity, l.amount, l.currency
             FROM talkmeter.statement_lines(p.tenant, p.period_start, p.period_end) AS l
             WHERE l.kind <> 'base')
            UNION ALL
            (SELECT l.kind, l.of_period_start, l.description, l.quantity, l.amount, l.currency
             FROM talkmeter.statement_lines(p.tenant, p.period_start, p.period_end) AS l
             WHERE l.kind <> 'base'
             EXCEPT
             SELECT l.kind, l.of_period_start, l.description, l.quantity, l.amount, l.currency
             FROM talkmeter.statement_line AS l
             WHERE l.tenant = p.tenant AND l.period_start = p.period_start AND l.period_end = p.period_end
                 AND l.kind <> 'base'))
        UNION ALL
        SELECT 'dispute_is_wrong', d.tenant, format('dispute %s', d.dispute_id),
            CASE WHEN c.charge_id IS NULL THEN format('Charge %s is not there.', d.charge_id)
                ELSE format('It is credited, and charge %s was not.', d.charge_id) END
        FROM talkmeter.dispute_filed AS d
        LEFT JOIN talkmeter.charge AS c ON c.tenant = d.tenant AND c.charge_id = d.charge_id
        LEFT JOIN reversed AS r ON r.tenant = d.tenant AND r.charge_id = d.charge_id
        WHERE c.charge_id IS NULL OR (d.state = 'credited' AND r.reason IS DISTINCT FROM 'credit')
    $$;
REVOKE ALL ON FUNCTION talkmeter.verify() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.verify() IS
    'Every row at which parts, charges, packs, periods, alerts and statements do not agree; no rows: the books are sound. Reads only';
