-- Do parts, charges, packs, periods, alerts and statements agree with one another?

CREATE FUNCTION talkmeter.show_progress(work text, done bigint, total bigint, unit text) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'show_progress_wrapper';
REVOKE ALL ON FUNCTION talkmeter.show_progress(text, bigint, bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.show_progress(text, bigint, bigint, text) IS
    'Shows in talkmeter.progress how far a statement of talkmeter''s own has come; true';

CREATE FUNCTION talkmeter.verify()
    RETURNS TABLE (problem text, tenant text, object text, detail text)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    SET work_mem = '64MB' SET jit = off
    AS $$
        WITH reversed AS (
            SELECT r.tenant, r.reverses AS charge_id, r.charge_id AS by, r.reason, r.conversation, r.part
            FROM talkmeter.charge AS r
            WHERE r.reverses IS NOT NULL
        ), term AS MATERIALIZED (
            -- What a tenant with a single subscription is on need not be looked up for each charge.
            SELECT s.tenant, count(*) > 1 AS has_many, min(s.since) AS since, min(s.plan) AS plan,
                min(s.timezone) AS timezone, min(s.timezone) <> max(s.timezone) AS has_moved,
                -- The server's own time zones may be older than the ones that days were counted by.
                bool_and(s.timezone = 'UTC' OR s.timezone IN (SELECT z.name FROM pg_timezone_names AS z)) AS is_known
            FROM talkmeter.subscription AS s
            GROUP BY s.tenant
        ), total AS MATERIALIZED (
            SELECT c.tenant, c.period_start, c.period_end, c.tier, c.pack_id, c.plan, c.day, sum(c.units) AS units,
                sum(c.amount) AS amount, min(c.charged_at) AS first, max(c.charged_at) AS last,
                count(*) AS rows, min(c.charge_id) AS first_id, max(c.charge_id) AS last_id,
                count(*) FILTER (WHERE c.units > 0) AS charges
            FROM (
                SELECT o.*,
                    -- A later subscription moves no unit to another day, and a new zone waits for the end of the period.
                    CASE WHEN NOT t.is_known THEN NULL
                        WHEN t.has_moved THEN talkmeter.local_day(o.tenant, o.charged_at, o.charge_id)
                        ELSE (o.charged_at AT TIME ZONE t.timezone)::date END AS day
                FROM talkmeter.posting AS o
                LEFT JOIN term AS t ON t.tenant = o.tenant
                -- Hides from the planner that the day comes of the instant: it would expect as many days as instants.
                OFFSET 0
            ) AS c
            GROUP BY c.tenant, c.period_start, c.period_end, c.tier, c.pack_id, c.plan, c.day
        ), net AS (
            SELECT t.tenant, t.period_start, t.period_end,
                COALESCE(sum(t.units) FILTER (WHERE t.tier = 'included'), 0) AS included_used,
                COALESCE(sum(t.units) FILTER (WHERE t.tier = 'pack'), 0) AS pack_used,
                COALESCE(sum(t.units) FILTER (WHERE t.tier = 'overage'), 0) AS overage_units,
                sum(t.amount) AS overage_amount, max(p.included) AS most_included
            FROM total AS t
            LEFT JOIN talkmeter.plan AS p ON p.name = t.plan
            GROUP BY t.tenant, t.period_start, t.period_end
        ), drawn AS (
            SELECT t.tenant, t.pack_id, sum(t.units) AS units, min(t.first) AS first, max(t.last) AS last
            FROM total AS t
            WHERE t.pack_id IS NOT NULL
            GROUP BY t.tenant, t.pack_id
        ), unmirrored AS MATERIALIZED (
            SELECT r.tenant, r.charge_id, r.reverses, r.conversation, c.conversation AS other, c.charge_id IS NULL AS is_missing
            FROM talkmeter.charge AS r
            LEFT JOIN talkmeter.charge AS c ON c.tenant = r.tenant AND c.charge_id = r.reverses
            WHERE r.reverses IS NOT NULL AND (c.charge_id IS NULL OR c.reverses IS NOT NULL OR c.charge_id >= r.charge_id
                OR (c.conversation, c.part, c.charged_at, c.period_start, c.period_end, c.tier, c.currency, c.plan, c.policy,
                    c.policy_version, -c.amount) <> (r.conversation, r.part, r.charged_at, r.period_start, r.period_end,
                    r.tier, r.currency, r.plan, r.policy, r.policy_version, r.amount)
                OR c.pack_id IS DISTINCT FROM r.pack_id OR c.outcome IS DISTINCT FROM r.outcome)
        ), standing AS NOT MATERIALIZED (
            SELECT c.tenant, c.conversation, c.part, c.charge_id, c.charged_at, c.period_start, c.period_end, c.policy,
                c.policy_version, c.outcome, hashtext(c.conversation) & 63 AS drawer
            FROM talkmeter.standing_charge AS c
        ), credited AS MATERIALIZED (
            SELECT DISTINCT r.tenant, r.conversation, r.part FROM reversed AS r WHERE r.reason = 'credit'
        ), judged AS NOT MATERIALIZED (
            SELECT p.tenant, p.conversation, p.part, p.charged_at, p.policy, p.policy_version, p.outcome,
                hashtext(p.conversation) & 63 AS drawer, v.name IS NULL AS is_of_no_policy,
                p.ended_at IS NOT NULL AND p.charged_at IS NULL AND p.not_billable_because IS NULL AS is_not_judged,
                CASE WHEN v.final_after IS NOT NULL OR v.never_final
                        THEN p.charged_at < CASE v.charge_on WHEN 'close' THEN p.ended_at ELSE p.started_at END
                            OR p.charged_at > p.final_at OR p.final_at < p.ended_at
                            OR (p.ended_at IS NULL OR p.is_held) <> (p.final_at IS NULL) OR (p.ended_at IS NULL AND p.held_count > 0)
                        ELSE p.charged_at <> CASE v.charge_on WHEN 'close' THEN p.ended_at
                                WHEN 'first_ai_reply' THEN p.first_ai_reply_at WHEN 'start' THEN p.started_at ELSE p.charged_at END
                            OR (v.charge_on = 'first_of' AND (p.charged_at < p.started_at OR p.charged_at > p.ended_at))
                            OR p.is_held OR p.held_count > 0 OR p.final_at IS NOT NULL END
                    OR p.rule < 1 OR p.rule > COALESCE(pg_catalog.jsonb_array_length(v.outcomes), 0)
                    OR (p.charged_at IS NOT NULL AND v.outcomes IS NOT NULL
                        AND (p.rule IS NULL OR v.outcomes -> (p.rule - 1) -> 'units' = '0'))
                    OR p.held_count < 1 OR (p.is_held AND p.timed = COALESCE(v.never_final, false))
                    OR (p.outcome IS NOT NULL AND p.charged_at IS NULL AND p.not_billable_because IS DISTINCT FROM p.outcome)
                    OR p.last_activity_at < p.started_at OR p.ended_at < p.last_activity_at
                    OR p.first_event > p.last_event OR p.event_count < p.message_count::float8 + COALESCE(p.held_count, 0)
                    OR p.message_count < p.ai_replies::float8 + p.staff_replies OR p.turn_count > p.ai_replies
                    OR (p.ai_replies = 0) <> (p.first_ai_reply_at IS NULL)
                    OR p.part < 1 OR (p.ended_at IS NULL) <> (p.end_reason IS NULL)
                    OR (p.charged_at IS NOT NULL AND p.not_billable_because IS NOT NULL)
                    OR p.timed <> (p.due_at IS NOT NULL)
                    OR p.message_count IS NULL OR p.last_activity_at IS NULL OR p.customer_waits IS NULL AS is_impossible
            FROM talkmeter.part AS p
            LEFT JOIN talkmeter.policy AS v ON v.name = p.policy AND v.version = p.policy_version
        ), doubtful AS MATERIALIZED (
            -- To compare each part with its charge takes long. So they are put into drawers, by tenant and conversation, and
            -- only those are looked into whose charges less reversals, in number and in sum, are not those of their parts.
            SELECT tenant, drawer
            FROM (
                SELECT o.tenant, o.drawer, sum(o.sign) AS units, sum(o.sign * o.number) AS sum
                FROM (
                    SELECT b.tenant, hashtext(b.conversation) & 63 AS drawer,
                        b.units AS sign, hash_record_extended(
                            ROW (b.conversation, b.part, b.charged_at, b.policy, b.policy_version, b.outcome), 0) >> 1 AS number
                    FROM talkmeter.posting AS b
                    -- As above: there are few drawers.
                    OFFSET 0
                ) AS o
                GROUP BY o.tenant, o.drawer
            ) AS c
            FULL JOIN (
                SELECT o.tenant, o.drawer, count(o.number) AS units, sum(o.number) AS sum, bool_or(o.is_wrong) AS is_wrong
                FROM (
                    SELECT j.tenant, j.drawer, j.is_of_no_policy OR j.is_not_judged OR j.is_impossible AS is_wrong,
                        CASE WHEN j.charged_at IS NOT NULL THEN hash_record_extended(
                            ROW (j.conversation, j.part, j.charged_at, j.policy, j.policy_version, j.outcome), 0) >> 1 END AS number
                    FROM judged AS j
                    OFFSET 0
                ) AS o
                GROUP BY o.tenant, o.drawer
            ) AS p USING (tenant, drawer)
            WHERE COALESCE(c.units, 0) <> COALESCE(p.units, 0) OR COALESCE(c.sum, 0) <> COALESCE(p.sum, 0) OR p.is_wrong
            UNION
            SELECT m.tenant, hashtext(o.conversation) & 63
            FROM unmirrored AS m
            CROSS JOIN LATERAL (VALUES (m.conversation), (m.other)) AS o (conversation)
            UNION
            SELECT k.tenant, hashtext(k.conversation) & 63 FROM credited AS k
            UNION
            SELECT u.tenant, hashtext(u.conversation) & 63 FROM talkmeter.waiting_unit AS u
        )
        -- What is numbered within its tenant has no gaps, and its account knows the last number.
        SELECT CASE WHEN n.rows IS NULL THEN a.what || 's_are_missing' ELSE n.what || '_ids_have_gaps' END,
            COALESCE(n.tenant, a.tenant), COALESCE(n.what, a.what) || 's',
            format('%s rows from %s to %s; the account counts %s.', COALESCE(n.rows, 0), n.first, n.last, a.last)
        FROM (
            SELECT t.tenant, 'charge' AS what, sum(t.rows) AS rows, min(t.first_id) AS first, max(t.last_id) AS last
            FROM total AS t GROUP BY t.tenant
            UNION ALL
            SELECT k.tenant, 'pack', count(*), min(k.pack_id), max(k.pack_id) FROM talkmeter.pack AS k GROUP BY k.tenant
            UNION ALL
            SELECT s.tenant, 'subscription', count(*), min(s.subscription_id), max(s.subscription_id)
            FROM talkmeter.subscription AS s GROUP BY s.tenant
            UNION ALL
            SELECT d.tenant, 'dispute', count(*), min(d.dispute_id), max(d.dispute_id)
            FROM talkmeter.dispute_filed AS d GROUP BY d.tenant
            UNION ALL
            SELECT p.tenant, 'finalization', count(*), min(p.finalization), max(p.finalization)
            FROM talkmeter.period AS p WHERE p.finalization IS NOT NULL GROUP BY p.tenant
        ) AS n
        FULL JOIN (
            SELECT o.tenant, c.what, c.last
            FROM talkmeter.account AS o
            CROSS JOIN LATERAL (VALUES ('charge', o.last_charge_id), ('pack', o.last_pack_id),
                ('subscription', o.last_subscription_id), ('finalization', o.last_finalization)) AS c (what, last)
            WHERE c.last <> 0
            UNION ALL
            SELECT d.tenant, 'dispute', d.last_dispute_id FROM talkmeter.dispute_count AS d WHERE d.last_dispute_id <> 0
        ) AS a ON a.tenant = n.tenant AND a.what = n.what
        WHERE n.rows IS NULL OR n.first <> 1 OR n.last <> n.rows OR a.last IS DISTINCT FROM n.last
        UNION ALL
        SELECT NULL, NULL, NULL, NULL FROM talkmeter.show_progress('verify', 0, 26, 'checks') AS shown WHERE NOT shown
        UNION ALL
        SELECT 'reversal_is_no_mirror', r.tenant, format('charge %s', r.charge_id),
            CASE WHEN r.is_missing THEN format('It takes back charge %s, which is not there.', r.reverses)
                ELSE format('It differs from charge %s, which it takes back.', r.reverses) END
        FROM unmirrored AS r
        UNION ALL
        -- All that a charge itself, its plan, its policy and its periods tell.
        SELECT w.problem, c.tenant, format('charge %s', c.charge_id), w.detail
        FROM (
            SELECT b.*, own_rate.rate, p.currency AS plan_currency, f.plan AS plan_in_force,
                p.name IS NULL AS is_of_no_plan, v.name IS NULL AS is_of_no_policy,
                p.name IS NOT NULL AND b.reverses IS NULL AND f.plan IS DISTINCT FROM b.plan AS is_of_other_plan,
                b.reverses IS NULL AND (b.currency <> p.currency
                    OR b.amount <> CASE WHEN b.tier = 'overage' THEN own_rate.rate ELSE 0 END) AS is_of_other_rate,
                b.charged_at < b.period_start OR b.charged_at >= b.period_end AS is_outside,
                b.tier NOT IN ('included', 'pack', 'overage') OR (b.tier = 'pack') <> (b.pack_id IS NOT NULL)
                    OR (b.reverses IS NULL) <> (b.reason IS NULL) OR b.reason NOT IN ('refold', 'voided', 'credit')
                    OR (b.cause_at IS NOT NULL AND COALESCE(b.reason, 'credit') = 'credit') AS is_impossible,
                o.last_charge_id < b.charge_id AS is_frozen,
                (b.posted_period_start, b.posted_period_end) <> (b.period_start, b.period_end)
                    AND (own.last_charge_id < b.charge_id) IS NOT TRUE AS is_elsewhere
            FROM talkmeter.charge AS b
            LEFT JOIN talkmeter.plan AS p ON p.name = b.plan
            CROSS JOIN LATERAL (
                SELECT CASE WHEN jsonb_typeof(p.rates -> b.outcome) = 'number' THEN (p.rates ->> b.outcome)::numeric
                    ELSE p.overage_rate END AS rate
            ) AS own_rate
            LEFT JOIN talkmeter.policy AS v ON v.name = b.policy AND v.version = b.policy_version
            LEFT JOIN term AS t ON t.tenant = b.tenant
            LEFT JOIN talkmeter.period AS own ON own.tenant = b.tenant AND own.period_start = b.period_start
                AND own.period_end = b.period_end
            LEFT JOIN talkmeter.period AS o ON o.tenant = b.tenant AND o.period_start = b.posted_period_start
                AND o.period_end = b.posted_period_end
            CROSS JOIN LATERAL (
                SELECT CASE WHEN NOT t.has_many THEN CASE WHEN t.since <= b.charged_at THEN t.plan END ELSE (
                    SELECT s.plan FROM talkmeter.subscription AS s
                    WHERE s.tenant = b.tenant AND s.since <= b.charged_at AND s.last_charge_id < b.charge_id
                    ORDER BY s.subscription_id DESC
                    LIMIT 1) END AS plan
            ) AS f
        ) AS c
        CROSS JOIN LATERAL (
            VALUES (c.is_of_no_plan, 'charge_of_unknown_plan', format('There is no plan %s.', c.plan)),
                (c.is_of_no_policy, 'charge_of_unknown_policy',
                    format('There is no policy %s@%s.', c.policy, c.policy_version)),
                (c.is_of_other_plan, 'charge_of_other_plan',
                    format('It is of plan %s; in force at its instant %s was %s.', c.plan, c.charged_at,
                        COALESCE(c.plan_in_force, 'none'))),
                (c.is_of_other_rate, 'amount_is_not_the_rate', format('It costs %s %s; the rate of plan %s is %s %s.',
                    c.amount, c.currency, concat_ws(' for ', c.plan, c.outcome), c.rate, c.plan_currency)),
                (c.is_outside, 'charge_outside_its_period', format('Its instant %s is not in the period from %s to %s.',
                    c.charged_at, c.period_start, c.period_end)),
                (c.is_impossible, 'charge_is_impossible',
                    'Its tier, its pack, what it takes back or why: they are not of one charge.'),
                (c.is_frozen, 'posted_after_finalization',
                    format('It is on the statement of the period from %s, which was finalized before.', c.posted_period_start)),
                (c.is_elsewhere, 'posted_elsewhere', format(
                    'It is on the statement of the period from %s; its own, from %s, was not finalized when it was posted.',
                    c.posted_period_start, c.period_start))
        ) AS w (is_so, problem, detail)
        WHERE w.is_so AND (c.is_of_no_plan OR c.is_of_no_policy OR c.is_of_other_plan OR c.is_of_other_rate OR c.is_outside
            OR c.is_impossible OR c.is_frozen OR c.is_elsewhere)
        UNION ALL
        SELECT 'posted_in_no_period', c.tenant, format('charge %s', c.charge_id),
            format('No statement lists the period from %s to %s.', c.posted_period_start, c.posted_period_end)
        FROM talkmeter.charge AS c
        WHERE (c.tenant, c.posted_period_start, c.posted_period_end) IN (
            SELECT l.tenant, l.posted_period_start, l.posted_period_end
            FROM (
                SELECT DISTINCT o.tenant, o.posted_period_start, o.posted_period_end
                FROM talkmeter.charge AS o
                WHERE (o.posted_period_start, o.posted_period_end) <> (o.period_start, o.period_end)
            ) AS l
            -- Outside the years that can be metered there is no period to ask for.
            WHERE CASE WHEN l.posted_period_start >= '0001-01-01 00:00+00' AND l.posted_period_start < '10000-01-01 00:00+00'
                THEN NOT EXISTS (
                    SELECT FROM talkmeter.period_at(l.tenant, l.posted_period_start) AS p
                    WHERE p.period_start = l.posted_period_start AND p.period_end = l.posted_period_end)
                ELSE true END
            AND NOT EXISTS (
                -- It was opened before another subscription divided the months anew.
                SELECT FROM talkmeter.period AS p
                WHERE p.tenant = l.tenant AND p.period_start = l.posted_period_start AND p.period_end = l.posted_period_end))
            AND (c.posted_period_start, c.posted_period_end) <> (c.period_start, c.period_end)
        UNION ALL
        SELECT 'part_is_charged_twice', s.tenant, format('part %s of %s', s.part, s.conversation),
            format('Charges %s stand.', string_agg(s.charge_id::text, ', ' ORDER BY s.charge_id))
        FROM standing AS s
        WHERE (s.tenant, s.drawer) IN (SELECT d.tenant, d.drawer FROM doubtful AS d)
        GROUP BY s.tenant, s.conversation, s.part
        HAVING count(*) > 1
        UNION ALL
        -- Each billable part has one charge that stands, or waits for a plan or a backfill, or was credited; no other part has any.
        SELECT w.problem, a.tenant, w.object, w.detail
        FROM (
            SELECT tenant, conversation, part, s.charge_id, p.charged_at, p.policy, p.policy_version, p.is_of_no_policy,
                p.is_not_judged, p.is_impossible,
                s.charge_id IS NOT NULL AND p.charged_at IS NULL AS has_no_part,
                p.charged_at < s.period_start OR p.charged_at >= s.period_end
                    OR (p.policy, p.policy_version) <> (s.policy, s.policy_version)
                    OR (s.charge_id IS NOT NULL AND p.charged_at IS NOT NULL AND s.outcome IS DISTINCT FROM p.outcome)
                    AS is_of_other_part,
                s.charge_id IS NOT NULL AND k.part IS NOT NULL AS is_credited,
                s.charge_id IS NULL AND p.charged_at IS NOT NULL AND u.charged_at IS NULL AND k.part IS NULL AS has_no_charge,
                u.charged_at IS NOT NULL
                    AND (s.charge_id IS NOT NULL OR p.charged_at IS DISTINCT FROM u.charged_at
                        OR (u.policy, u.policy_version) <> (p.policy, p.policy_version) OR u.outcome IS DISTINCT FROM p.outcome)
                    AS waits_wrongly
            FROM (
                SELECT * FROM standing AS o WHERE (o.tenant, o.drawer) IN (SELECT d.tenant, d.drawer FROM doubtful AS d)
            ) AS s
            FULL JOIN (
                SELECT * FROM judged AS o WHERE (o.tenant, o.drawer) IN (SELECT d.tenant, d.drawer FROM doubtful AS d)
            ) AS p USING (tenant, conversation, part)
            FULL JOIN talkmeter.waiting_unit AS u USING (tenant, conversation, part)
            LEFT JOIN credited AS k USING (tenant, conversation, part)
        ) AS a
        CROSS JOIN LATERAL (
            SELECT format('charge %s', a.charge_id) AS charge, format('part %s of %s', a.part, a.conversation) AS part
        ) AS o
        CROSS JOIN LATERAL (
            VALUES (a.has_no_part, 'charge_without_part', o.charge,
                    format('Part %s of %s is not there, or is not billable.', a.part, a.conversation)),
                (a.is_of_other_part, 'charge_differs_from_part', o.charge, format('Part %s of %s is charged at %s under %s@%s.',
                    a.part, a.conversation, a.charged_at, a.policy, a.policy_version)),
                (a.is_credited, 'credited_part_is_charged', o.charge,
                    format('Part %s of %s was credited.', a.part, a.conversation)),
                (a.has_no_charge, 'part_without_charge', o.part,
                    format('It is billable since %s, and neither charged, nor waiting for a plan or a backfill, nor credited.', a.charged_at)),
                (a.waits_wrongly, 'waiting_unit_is_wrong', o.part,
                    'It waits for a plan or a backfill, but is charged already, or not billable, or of another instant, policy or outcome.'),
                (a.is_not_judged, 'part_is_not_judged', o.part, 'It has ended, and is neither billable nor not.'),
                (a.is_impossible, 'part_is_impossible', o.part,
                    'Its times, its counts or its charge instant are none that any messages would give.'),
                (a.is_of_no_policy, 'part_of_unknown_policy', o.part,
                    format('There is no policy %s@%s.', a.policy, a.policy_version))
        ) AS w (is_so, problem, object, detail)
        WHERE w.is_so AND (a.has_no_part OR a.is_of_other_part OR a.is_credited OR a.has_no_charge OR a.waits_wrongly
            OR a.is_not_judged OR a.is_impossible OR a.is_of_no_policy)
        UNION ALL
        SELECT 'waiting_unit_has_a_plan', u.tenant, format('part %s of %s', u.part, u.conversation),
            format('It waits for a plan, and at its instant %s one is in force.', u.charged_at)
        FROM talkmeter.unplanned_unit AS u
        WHERE (
            SELECT s.plan FROM talkmeter.subscription AS s
            WHERE s.tenant = u.tenant AND s.since <= u.charged_at
            ORDER BY s.subscription_id DESC
            LIMIT 1) IS NOT NULL
        UNION ALL
        SELECT w.problem, p.tenant, format('part %s of %s', p.part, p.conversation), w.detail
        FROM (
            SELECT o.tenant, o.conversation, o.part, o.before >= o.first_event OR o.before_is_open AS overlaps,
                o.was_charged <> o.charged_before OR (o.is_last AND c.highest_part > 0 AND c.current_part IS NULL
                    AND COALESCE(c.charged_before, false) <> (o.was_charged OR o.is_charged)) AS is_of_other_past,
                c.highest_part IS NULL OR c.highest_part < o.part AS is_unknown
            FROM (
                SELECT e.tenant, e.conversation, e.part, e.first_event, lag(e.last_event) OVER w AS before,
                    lag(e.ended_at IS NULL OR e.is_held) OVER w AS before_is_open,
                    lead(e.part) OVER w IS NULL AS is_last, e.charged_at IS NOT NULL AS is_charged,
                    COALESCE(e.charged_before, false) AS charged_before, COALESCE(bool_or(e.charged_at IS NOT NULL) OVER (
                        w ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS was_charged
                FROM talkmeter.part AS e
                -- A number is sorted faster than two texts.
                WINDOW w AS (PARTITION BY hashtextextended(e.conversation, 0), e.tenant, e.conversation ORDER BY e.first_event)
            ) AS o
            LEFT JOIN talkmeter.conversation AS c ON c.tenant = o.tenant AND c.conversation = o.conversation
        ) AS p
        CROSS JOIN LATERAL (
            VALUES (p.overlaps, 'parts_overlap', 'It begins before the part before it has ended.'),
                (p.is_unknown, 'part_number_is_unknown', 'Its conversation has not counted so far.'),
                (p.is_of_other_past, 'part_charged_before_is_wrong',
                    'It, or its conversation, says other than the parts before whether one of them is charged.')
        ) AS w (is_so, problem, detail)
        WHERE w.is_so AND (p.overlaps OR p.is_unknown OR p.is_of_other_past)
        UNION ALL
        SELECT 'conversation_is_impossible', c.tenant, format('conversation %s', c.conversation),
            format('It has counted %s parts and %s marks, and its current part is %s.', c.highest_part, c.last_mark,
                COALESCE(c.current_part::text, 'none'))
        FROM talkmeter.conversation AS c
        WHERE c.highest_part < 0 OR c.last_mark < 0
            OR c.current_part IS NULL AND (c.timed OR c.policy IS NOT NULL OR c.message_count IS NOT NULL OR c.ended_at IS NOT NULL)
        UNION ALL
        SELECT 'mark_is_impossible', m.tenant, format('mark %s of %s', m.mark, m.conversation),
            format('Its kind is %s.', m.kind)
        FROM talkmeter.marked AS m
        WHERE m.mark < 1 OR pg_catalog.split_part(m.kind, ':', 1) NOT IN ('note', 'system_message', 'error', 'close', 'resolve',
            'escalate', 'new_topic', 'reopen')
        UNION ALL
        SELECT 'mark_number_is_unknown', m.tenant, format('mark %s of %s', max(m.mark), m.conversation),
            'Its conversation has not counted so far.'
        FROM talkmeter.marked AS m
        LEFT JOIN talkmeter.conversation AS c ON c.tenant = m.tenant AND c.conversation = m.conversation
        GROUP BY m.tenant, m.conversation, c.last_mark
        HAVING max(m.mark) > COALESCE(c.last_mark, 0)
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
            OR p.tenant IS NULL
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
        SELECT NULL, NULL, NULL, NULL FROM talkmeter.show_progress('verify', 10, 26, 'checks') AS shown WHERE NOT shown
        UNION ALL
        SELECT 'period_is_impossible', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            'It ends before it begins, or is finalized in part.'
        FROM talkmeter.period AS p
        WHERE p.period_start >= p.period_end OR num_nonnulls(p.finalized_at, p.finalized_by, p.finalization,
            p.last_charge_id, p.last_subscription_id, p.last_pack_id, p.digest) NOT IN (0, 7)
        UNION ALL
        SELECT 'finalized_before_its_end', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            format('It was finalized at %s.', p.finalized_at)
        FROM talkmeter.period AS p
        WHERE p.finalized_at < p.period_end
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
        SELECT 'pack_differs_from_offer', k.tenant, format('pack %s', k.pack_id),
            format('%s units for %s %s until %s; %s is %s units for %s %s, for %s from %s on.', k.size, k.price, k.currency,
                k.expires_at, o.name, o.size, o.price, o.currency, COALESCE(o.valid_for::text, o.expiry), k.purchased_at)
        FROM talkmeter.pack AS k
        JOIN talkmeter.pack_offer AS o ON o.name = k.pack
        WHERE (k.size, k.price, k.currency) <> (o.size, o.price, o.currency)
            OR CASE o.expiry
                WHEN 'never' THEN k.expires_at <> 'infinity'
                -- A subscription that was made since may have divided the months anew; no month is longer than this.
                WHEN 'period' THEN extract(epoch FROM k.expires_at) - extract(epoch FROM k.purchased_at) > 47 * 86400
                -- Numbers hold whatever the columns do.
                ELSE extract(epoch FROM k.expires_at) - extract(epoch FROM k.purchased_at) <> extract(epoch FROM o.valid_for) END
        UNION ALL
        SELECT 'pack_is_billed_elsewhere', k.tenant, format('pack %s', k.pack_id),
            format('It was bought at %s, and is on the statement of %s.', k.purchased_at, k.billed_at)
        FROM talkmeter.pack AS k
        WHERE k.billed_at <> k.purchased_at AND NOT EXISTS (
            SELECT FROM talkmeter.period AS p
            -- Its own period, or the first one if it was bought before, had been frozen.
            WHERE p.tenant = k.tenant AND p.period_end > k.purchased_at AND p.last_pack_id < k.pack_id
                AND (p.period_start <= k.purchased_at
                    OR NOT EXISTS (SELECT FROM talkmeter.period_at(k.tenant, k.purchased_at))))
        UNION ALL
        SELECT 'days_differ_from_charges', COALESCE(d.tenant, c.tenant), format('day %s', COALESCE(d.day, c.day)),
            format('It counts %s units, the charges are %s.', COALESCE(d.units, 0), COALESCE(c.units, 0))
        FROM talkmeter.day_units AS d
        FULL JOIN (
            SELECT t.tenant, t.day, sum(t.units) AS units FROM total AS t WHERE t.day IS NOT NULL GROUP BY t.tenant, t.day
        ) AS c ON c.tenant = d.tenant AND c.day = d.day
        WHERE COALESCE(d.units, 0) <> COALESCE(c.units, 0) AND (c.tenant IS NOT NULL
            OR NOT EXISTS (SELECT FROM total AS t WHERE t.tenant = d.tenant AND t.day IS NULL))
        UNION ALL
        SELECT 'first_day_differs_from_charges', t.tenant, 'first_day',
            format('The account says %s, the first charge is of %s.', a.first_day, t.day)
        FROM (
            SELECT o.tenant, min(o.day) AS day FROM total AS o WHERE o.charges > 0
            GROUP BY o.tenant HAVING bool_and(o.day IS NOT NULL)
        ) AS t
        JOIN talkmeter.account AS a ON a.tenant = t.tenant
        WHERE a.first_day IS DISTINCT FROM t.day
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
        SELECT NULL, NULL, NULL, NULL FROM talkmeter.show_progress('verify', 20, 26, 'checks') AS shown WHERE NOT shown
        UNION ALL
        SELECT 'alert_of_nothing', a.tenant, format('alert %s of the period from %s', a.kind, a.period_start),
            CASE WHEN a.day = '-infinity' THEN 'There is no such period.'
                ELSE format('Day %s was never reconciled.', a.day) END
        FROM talkmeter.alert AS a
        LEFT JOIN talkmeter.period AS p ON p.tenant = a.tenant AND p.period_start = a.period_start
            AND p.period_end = a.period_end
        LEFT JOIN talkmeter.reconciliation AS r ON r.tenant = a.tenant AND r.day = a.day
        WHERE CASE WHEN a.day = '-infinity' THEN p.tenant IS NULL ELSE a.kind <> 'reconcile' OR r.tenant IS NULL END
        UNION ALL
        SELECT 'reconciliation_is_wrong', r.tenant, format('day %s', r.day),
            CASE WHEN r.flagged THEN 'It is flagged, and its counts agree or nobody was told.'
                ELSE 'It is not flagged, and its counts differ.' END
        FROM talkmeter.reconciliation AS r
        LEFT JOIN talkmeter.alert AS a ON a.tenant = r.tenant AND a.day = r.day AND a.kind = 'reconcile'
        WHERE (r.flagged AND a.tenant IS NULL) OR r.flagged IS DISTINCT FROM (
            SELECT bool_or(abs(x.a - x.b) * 100.0 > 5.0 * GREATEST(x.a, x.b))
            FROM (VALUES (r.charged::numeric, r.recounted::numeric + r.unprovable), (r.charged, r.external),
                (r.recounted::numeric + r.unprovable, r.external)) AS x (a, b))
        UNION ALL
        SELECT 'statement_line_is_wrong', l.tenant, format('line %s of the period from %s', l.line, l.period_start),
            CASE WHEN p.finalized_at IS NULL THEN 'It is frozen, and its period is not finalized.'
                WHEN l.kind = 'base' THEN 'It is the price of no plan.'
                ELSE 'Its amount is not its quantity times its price.' END
        FROM talkmeter.statement_line AS l
        LEFT JOIN talkmeter.period AS p ON p.tenant = l.tenant AND p.period_start = l.period_start
            AND p.period_end = l.period_end
        WHERE p.finalized_at IS NULL
            OR l.amount IS DISTINCT FROM round(l.quantity * l.unit_price, talkmeter.currency_digits(l.currency))
            OR l.kind = 'base' AND NOT EXISTS (
                SELECT FROM talkmeter.plan AS o
                WHERE o.name = l.description AND o.price = l.unit_price AND o.currency = l.currency AND l.quantity = 1)
        UNION ALL
        SELECT 'statement_differs_from_ledger', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            'Its frozen lines are not those of its plan, its charges and its packs.'
        FROM talkmeter.period AS p
        CROSS JOIN LATERAL (
            -- A subscription that was backdated since may have changed the base price, and with it the place of the others.
            SELECT NOT EXISTS (
                SELECT FROM talkmeter.subscription AS s
                WHERE s.tenant = p.tenant AND s.since < p.period_end AND s.subscription_id > p.last_subscription_id) AS with_base
        ) AS o
        WHERE p.finalized_at IS NOT NULL AND (
            SELECT array_agg((CASE WHEN o.with_base THEN l.line END, l.kind, l.of_period_start, l.description, l.quantity,
                trim_scale(l.unit_price), l.amount, l.currency)::text ORDER BY l.line)
            FROM talkmeter.statement_line AS l
            WHERE l.tenant = p.tenant AND l.period_start = p.period_start AND l.period_end = p.period_end
                AND (o.with_base OR l.kind <> 'base')
        ) IS DISTINCT FROM (
            SELECT array_agg((CASE WHEN o.with_base THEN l.line END, l.kind, l.of_period_start, l.description, l.quantity,
                trim_scale(l.unit_price), l.amount, l.currency)::text ORDER BY l.line)
            FROM talkmeter.statement_lines(p.tenant, p.period_start, p.period_end) AS l
            WHERE o.with_base OR l.kind <> 'base'
        )
        UNION ALL
        SELECT 'evidence_differs', p.tenant, format('period from %s to %s', p.period_start, p.period_end),
            'Its statement and its charges are not those that were frozen, or the statement frozen before is another.'
        FROM talkmeter.period AS p
        WHERE p.digest <> (
            SELECT talkmeter.chain(e.content ORDER BY e.line)
            FROM talkmeter.evidence_lines(p.tenant, p.period_start, p.period_end) AS e)
        UNION ALL
        -- No unique index spans both tables.
        SELECT 'is_there_twice', w.tenant, w.object, 'It is in schema talkmeter, and in talkmeter_archive too.'
        FROM (
            SELECT e.tenant, format('part %s of %s', e.part, e.conversation) AS object
            FROM ONLY talkmeter.ended_part AS e
            JOIN talkmeter_archive.ended_part AS a ON a.tenant = e.tenant AND a.conversation = e.conversation AND a.part = e.part
            UNION ALL
            SELECT c.tenant, format('charge %s', c.charge_id)
            FROM ONLY talkmeter.charge AS c
            JOIN talkmeter_archive.charge AS a ON a.tenant = c.tenant AND a.charge_id = c.charge_id
            UNION ALL
            SELECT m.tenant, format('mark %s of %s', m.mark, m.conversation)
            FROM ONLY talkmeter.marked AS m
            JOIN talkmeter_archive.marked AS a ON a.tenant = m.tenant AND a.conversation = m.conversation AND a.mark = m.mark
        ) AS w
        UNION ALL
        -- No foreign key says so: a parallel restore loads the tables in any order.
        SELECT 'plan_is_missing', n.tenant, n.object, format('There is no plan %s.', n.plan)
        FROM (
            SELECT s.tenant, format('subscription %s', s.subscription_id) AS object, s.plan FROM talkmeter.subscription AS s
            UNION ALL
            SELECT NULL, format('default plan of %s', s.relation), s.default_plan FROM talkmeter.source AS s
        ) AS n
        WHERE n.plan IS NOT NULL AND NOT EXISTS (SELECT FROM talkmeter.plan AS o WHERE o.name = n.plan)
        UNION ALL
        SELECT 'dispute_is_wrong', d.tenant, format('dispute %s', d.dispute_id),
            CASE WHEN c.charge_id IS NULL THEN format('Charge %s is not there.', d.charge_id)
                WHEN c.reverses IS NOT NULL THEN format('Charge %s takes another one back.', d.charge_id)
                WHEN d.state = 'credited' THEN format('It is credited, and charge %s was not.', d.charge_id)
                ELSE format('It is open, and charge %s was credited.', d.charge_id) END
        FROM talkmeter.dispute_filed AS d
        LEFT JOIN talkmeter.charge AS c ON c.tenant = d.tenant AND c.charge_id = d.charge_id
        LEFT JOIN reversed AS r ON r.tenant = d.tenant AND r.charge_id = d.charge_id
        WHERE c.charge_id IS NULL OR c.reverses IS NOT NULL
            OR CASE d.state WHEN 'credited' THEN r.reason IS DISTINCT FROM 'credit' WHEN 'open' THEN r.reason = 'credit' END
    $$;
REVOKE ALL ON FUNCTION talkmeter.verify() FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.verify() IS
    'Every row at which parts, charges, packs, periods, alerts and statements do not agree; no rows: the books are sound. Reads only';
