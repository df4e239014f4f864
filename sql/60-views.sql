-- What people read. No view is granted to anybody at install.

CREATE VIEW talkmeter.policies AS
    SELECT name, version AS policy_version, label, effective_from, starts_on, ends_on, idle_timeout, quiet_review_after,
        turn_limit, charge_on, staff_reply_blocks, error_before_reply_waives, exclude_prefixes, retroactive, note, defined_at,
        defined_by
    FROM talkmeter.policy;
REVOKE ALL ON talkmeter.policies FROM PUBLIC;
COMMENT ON VIEW talkmeter.policies IS 'Every version of every policy';

CREATE VIEW talkmeter.plans AS
    SELECT name, included, overage_rate, price, currency
    FROM talkmeter.plan;
REVOKE ALL ON talkmeter.plans FROM PUBLIC;
COMMENT ON VIEW talkmeter.plans IS 'Plans that a tenant can be put on';

CREATE VIEW talkmeter.pack_offers AS
    SELECT name, size, price, currency, valid_for
    FROM talkmeter.pack_offer;
REVOKE ALL ON talkmeter.pack_offers FROM PUBLIC;
COMMENT ON VIEW talkmeter.pack_offers IS 'Packs that a tenant can buy';

CREATE VIEW talkmeter.sources AS
    SELECT relation AS source, policy, default_plan, strict, starts_at, attached_at, attached_by, mapping, role, row_mode
    FROM talkmeter.source
    WHERE detached_at IS NULL;
REVOKE ALL ON talkmeter.sources FROM PUBLIC;
COMMENT ON VIEW talkmeter.sources IS 'The attached tables';

CREATE VIEW talkmeter.mappings AS
    SELECT v.source, v.since, lead(v.since, 1, 'infinity') OVER (PARTITION BY v.source ORDER BY v.since) AS until_time,
        v.policy, v.mapping
    FROM (
        SELECT s.relation AS source, s.mapped_since AS since, s.policy, s.mapping
        FROM talkmeter.source AS s
        WHERE s.detached_at IS NULL AND s.role = 'messages'
        UNION ALL
        SELECT s.relation, e.since, e.policy, e.mapping
        FROM talkmeter.earlier_mapping AS e
        JOIN talkmeter.source AS s USING (source_id)
        WHERE s.detached_at IS NULL AND s.role = 'messages'
    ) AS v;
REVOKE ALL ON talkmeter.mappings FROM PUBLIC;
COMMENT ON VIEW talkmeter.mappings IS 'The versions of the mapping of each attached message table: which reads rows of which time';

CREATE VIEW talkmeter.source_gaps AS
    SELECT s.relation AS source, g.from_time, g.until_time, g.because
    FROM talkmeter.source_gap AS g
    JOIN talkmeter.source AS s USING (source_id)
    WHERE s.detached_at IS NULL;
REVOKE ALL ON talkmeter.source_gaps FROM PUBLIC;
COMMENT ON VIEW talkmeter.source_gaps IS 'Spans of time, of attached tables, whose rows are no events until they are backfilled';

CREATE VIEW talkmeter.quarantine AS
    SELECT s.relation AS source, q.message_id, q.tenant, q.conversation, q.occurred_at, q.reason, q.quarantined_at,
        q.detail, q.mark_kind,
        CASE q.reason
            WHEN 'null_key' THEN 'Give the row a tenant, conversation, message id and time: it leaves by itself.'
            WHEN 'no_kind' THEN 'Change the row so that a rule of kinds matches it, or give the table a mapping with a rule that does: remap().'
            WHEN 'time_out_of_range' THEN 'Change the time of the row, if it is wrong: it leaves by itself.'
            WHEN 'future' THEN 'The sweep meters it once its time has come.'
            WHEN 'unknown_policy' THEN 'Define a version of the policy that is in force at its time, then retry_quarantine().'
            WHEN 'mapping_broken' THEN 'Give the column its type back, then retry_quarantine(); or name the column in its place by remap().'
            WHEN 'source_unreadable' THEN 'See detail; sweeps try again, once the table can be read.'
            WHEN 'internal_error' THEN 'See detail; sweeps try again, and so does retry_quarantine().'
            WHEN 'key_too_long' THEN 'Keys are at most 512 bytes long: change the row, and it leaves by itself.'
            WHEN 'sealed' THEN 'Nothing: rows of its part were deleted, and what was metered stays as it is.'
            WHEN 'too_old' THEN 'If it is to count, let a superuser raise talkmeter.max_past for a retry_quarantine().'
            WHEN 'disabled' THEN 'Set talkmeter.enabled to on, then retry_quarantine().'
        END AS hint
    FROM talkmeter.quarantined AS q
    LEFT JOIN talkmeter.source AS s USING (source_id)
    -- What a change took away is listed only if there is nothing else of its row.
    WHERE q.removal IS NULL OR NOT EXISTS (
        SELECT FROM talkmeter.quarantined AS o
        WHERE o.source_id = q.source_id AND o.message_id = q.message_id
            AND pg_catalog.hashtextextended(o.message_id, 0) = pg_catalog.hashtextextended(q.message_id, 0)
            AND (o.removal IS NULL OR o.quarantine_id < q.quarantine_id));
REVOKE ALL ON talkmeter.quarantine FROM PUBLIC;
COMMENT ON VIEW talkmeter.quarantine IS 'Rows of attached tables, and marks, that could not be metered, why, and what helps';

CREATE VIEW talkmeter.parts AS
    SELECT p.tenant, p.conversation, p.part, p.policy, p.policy_version,
        CASE WHEN p.ended_at IS NULL AND NOT p.passed THEN 'open' ELSE 'ended' END AS status,
        p.started_at, p.first_ai_reply_at, p.last_activity_at,
        CASE WHEN p.passed THEN p.due_end ELSE p.ended_at END AS ended_at,
        CASE WHEN p.passed THEN p.due_reason ELSE p.end_reason END AS end_reason,
        p.charged_at IS NOT NULL OR p.passed AND p.due_because IS NULL AS billable,
        CASE WHEN p.passed THEN p.due_because WHEN p.ended_at IS NOT NULL THEN p.not_billable_because END
            AS not_billable_because,
        CASE WHEN p.passed AND p.due_because IS NULL THEN COALESCE(p.charged_at, p.due_end) ELSE p.charged_at END
            AS charged_at,
        p.message_count, p.turn_count, p.ai_replies, p.staff_replies
    FROM talkmeter.part_now AS p;
REVOKE ALL ON talkmeter.parts FROM PUBLIC;
COMMENT ON VIEW talkmeter.parts IS 'Every metered interaction; what time has ended shows as ended before any sweep';

CREATE VIEW talkmeter.unevaluated AS
    SELECT p.tenant, p.conversation, p.part, p.policy, p.policy_version, p.started_at, p.first_ai_reply_at,
        p.last_activity_at, p.message_count, p.turn_count, p.ai_replies, p.staff_replies
    FROM talkmeter.part AS p
    WHERE p.ended_at IS NULL AND NOT p.timed AND p.charged_at IS NULL AND p.not_billable_because IS NULL;
REVOKE ALL ON talkmeter.unevaluated FROM PUBLIC;
COMMENT ON VIEW talkmeter.unevaluated IS 'Open parts that time alone will never end, so that they wait for somebody to close them';

CREATE VIEW talkmeter.charges AS
    SELECT tenant, charge_id, conversation, part, charged_at, period_start, posted_period_start, tier, pack_id, amount,
        currency, plan, policy, policy_version, reverses, reason, posted_at, note, posted_by,
        cause_source, cause_message_id, cause_at
    FROM talkmeter.charge;
REVOKE ALL ON talkmeter.charges FROM PUBLIC;
COMMENT ON VIEW talkmeter.charges IS 'The ledger: one row per billed unit, and one per unit taken back';

CREATE VIEW talkmeter.packs AS
    SELECT tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at, purchase_key, refunded_at,
        refunded_by
    FROM talkmeter.pack;
REVOKE ALL ON talkmeter.packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.packs IS 'Packs that tenants bought, and what is left of them; a refunded one pays no more';

CREATE VIEW talkmeter.expired_packs AS
    SELECT tenant, pack_id, pack, size, remaining AS expired_unused, expires_at
    FROM talkmeter.pack
    WHERE remaining > 0 AND refunded_at IS NULL AND expires_at <= (SELECT clock.now FROM talkmeter.clock);
REVOKE ALL ON talkmeter.expired_packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.expired_packs IS 'Packs that expired before they were used up, and how many units were lost';

CREATE VIEW talkmeter.alerts AS
    SELECT e.tenant, e.period_start, e.kind, e.fired_at, e.detail, e.notified_at, e.muted,
        NULLIF(e.day, '-infinity') AS day, a.alert_channel AS channel
    FROM talkmeter.alert AS e
    LEFT JOIN talkmeter.account AS a ON a.tenant = e.tenant;
REVOKE ALL ON talkmeter.alerts FROM PUBLIC;
COMMENT ON VIEW talkmeter.alerts IS 'What tenants were, or are to be, told of their usage: each kind once per period';

CREATE VIEW talkmeter.unplanned AS
    SELECT tenant, conversation, part, charged_at, policy, policy_version
    FROM talkmeter.unplanned_unit;
REVOKE ALL ON talkmeter.unplanned FROM PUBLIC;
COMMENT ON VIEW talkmeter.unplanned IS 'Billable units that wait until their tenant is subscribed to a plan';

CREATE VIEW talkmeter.uncharged AS
    SELECT u.tenant, u.conversation, u.part, u.charged_at, u.policy, u.policy_version, s.relation AS source
    FROM talkmeter.uncharged_unit AS u
    LEFT JOIN talkmeter.source AS s USING (source_id);
REVOKE ALL ON talkmeter.uncharged FROM PUBLIC;
COMMENT ON VIEW talkmeter.uncharged IS 'Billable units that a backfill has counted and not charged: it is under way, or was called with charge => false';

CREATE VIEW talkmeter.usage AS
    SELECT a.tenant, s.plan, period.period_start, period.period_end,
        COALESCE(used.included_used + used.pack_used + used.overage_units, 0) AS used,
        plan.included,
        COALESCE(used.included_used, 0) AS included_used,
        GREATEST(plan.included - COALESCE(used.included_used, 0), 0) AS included_remaining,
        packs.balance AS pack_balance,
        COALESCE(used.pack_used, 0) AS pack_used,
        COALESCE(used.overage_units, 0) AS overage_units,
        plan.overage_rate,
        pg_catalog.round(COALESCE(used.overage_amount, 0), talkmeter.currency_digits(plan.currency))
            AS estimated_overage,
        plan.currency
    FROM talkmeter.account AS a
    CROSS JOIN LATERAL (
        SELECT subscription.plan
        FROM talkmeter.subscription
        WHERE subscription.tenant = a.tenant AND subscription.since <= (SELECT clock.now FROM talkmeter.clock)
        ORDER BY subscription.subscription_id DESC
        LIMIT 1
    ) AS s
    JOIN talkmeter.plan ON plan.name = s.plan
    CROSS JOIN LATERAL talkmeter.period_at(a.tenant, (SELECT clock.now FROM talkmeter.clock)) AS period
    LEFT JOIN talkmeter.period AS used
        ON used.tenant = a.tenant AND used.period_start = period.period_start
        AND used.period_end = period.period_end
    CROSS JOIN LATERAL (
        SELECT COALESCE(pg_catalog.sum(pack.remaining), 0)::bigint AS balance
        FROM talkmeter.pack
        WHERE pack.tenant = a.tenant AND pack.refunded_at IS NULL
            AND pack.purchased_at <= (SELECT clock.now FROM talkmeter.clock)
            AND (SELECT clock.now FROM talkmeter.clock) < pack.expires_at
    ) AS packs;
REVOKE ALL ON talkmeter.usage FROM PUBLIC;
COMMENT ON VIEW talkmeter.usage IS
    'One row per tenant on a plan: what the current period has used, what is left, and its overage so far, rounded as a statement would';

CREATE FUNCTION talkmeter.balance(tenant text) RETURNS bigint
    LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
        -- An allowance beyond any use is no reason for an error.
        SELECT LEAST(usage.included_remaining::numeric + usage.pack_balance, 9223372036854775807)::bigint
        FROM talkmeter.usage
        WHERE usage.tenant = balance.tenant
    $$;
REVOKE ALL ON FUNCTION talkmeter.balance(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.balance(text) IS
    'Units that a tenant has left before overage: allowance of the current period and unexpired packs; null without a plan';

CREATE VIEW talkmeter.disputes AS
    SELECT d.tenant, d.dispute_id, d.charge_id, c.conversation, c.part, d.reason, d.state, d.filed_at, d.filed_by,
        d.due_at, d.state = 'open' AND d.due_at <= (SELECT clock.now FROM talkmeter.clock) AS overdue, d.resolved_at,
        d.resolved_by, d.note
    FROM talkmeter.dispute_filed AS d
    JOIN talkmeter.charge AS c USING (tenant, charge_id);
REVOKE ALL ON talkmeter.disputes FROM PUBLIC;
COMMENT ON VIEW talkmeter.disputes IS 'Disputes, those that should have been resolved by now with overdue';

CREATE VIEW talkmeter.reconciliations AS
    SELECT tenant, day, charged, recounted, unprovable, external, flagged, reconciled_at, reviewed_by, reviewed_at
    FROM talkmeter.reconciliation;
REVOKE ALL ON talkmeter.reconciliations FROM PUBLIC;
COMMENT ON VIEW talkmeter.reconciliations IS
    'What was charged on a local day, what a recount of the messages gives, and what somebody else reported; flagged: two of them are more than 5 % apart';
