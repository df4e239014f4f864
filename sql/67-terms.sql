-- By which definition is each tenant judged, and at which prices is it billed?

CREATE VIEW talkmeter.applied_policies AS
    SELECT own.tenant, p.name, p.version AS policy_version, pg_catalog.bool_or(own.is_current) AS in_force,
        pg_catalog.sum(own.units)::bigint AS units, p.label, p.effective_from, p.starts_on, p.ends_on, p.idle_timeout,
        p.quiet_review_after, p.max_duration, p.turn_limit, p.charge_on, p.charge_events, p.outcomes,
        CASE WHEN p.never_final THEN 'forever' ELSE p.final_after::text END AS final_after, p.once_per, p.staff_reply_blocks,
        p.error_before_reply_waives, p.exclude_prefixes, p.note
    FROM (
        SELECT c.tenant, c.policy AS name, c.policy_version AS version, c.units, false AS is_current
        FROM talkmeter.posting AS c
        UNION ALL
        SELECT a.tenant, newest.name, newest.version, 0, true
        FROM talkmeter.account AS a
        LEFT JOIN LATERAL (
            SELECT s.policy
            FROM talkmeter.subscription AS s
            WHERE s.tenant = a.tenant AND s.since <= (SELECT clock.now FROM talkmeter.clock)
            ORDER BY s.subscription_id DESC
            LIMIT 1
        ) AS own ON true
        CROSS JOIN LATERAL (
            -- Without one of its own a tenant is judged by that of the table that holds its messages: by this, if it can be only one.
            SELECT COALESCE(own.policy, pg_catalog.min(s.policy)) AS policy
            FROM talkmeter.source AS s
            WHERE s.detached_at IS NULL AND s.role = 'messages'
            HAVING own.policy IS NOT NULL OR pg_catalog.count(DISTINCT s.policy) = 1
        ) AS given
        CROSS JOIN LATERAL (
            SELECT p.name, p.version
            FROM talkmeter.policy AS p
            WHERE p.name = pg_catalog.split_part(given.policy, '@', 1)
                AND CASE WHEN pg_catalog.strpos(given.policy, '@') > 0
                    THEN p.version::text = pg_catalog.split_part(given.policy, '@', 2)
                    ELSE p.effective_from <= (SELECT clock.now FROM talkmeter.clock) END
            ORDER BY p.effective_from DESC, p.version DESC
            LIMIT 1
        ) AS newest
    ) AS own
    JOIN talkmeter.policy AS p ON p.name = own.name AND p.version = own.version
    GROUP BY own.tenant, p.name, p.version;
REVOKE ALL ON talkmeter.applied_policies FROM PUBLIC;
COMMENT ON VIEW talkmeter.applied_policies IS
    'Which versions of policies a tenant is judged by: those by which units of it were billed, and the one that a part which opens now is judged by';
COMMENT ON COLUMN talkmeter.applied_policies.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.applied_policies.name IS 'Its name';
COMMENT ON COLUMN talkmeter.applied_policies.policy_version IS 'Counts within the name';
COMMENT ON COLUMN talkmeter.applied_policies.in_force IS
    'Parts of the tenant that open now are judged by it; unknown, and so false, if attached tables have several policies and the tenant none of its own';
COMMENT ON COLUMN talkmeter.applied_policies.units IS 'Units of the tenant that were billed by it, net';
COMMENT ON COLUMN talkmeter.applied_policies.label IS 'The vendor''s own name of the version';
COMMENT ON COLUMN talkmeter.applied_policies.effective_from IS 'Parts that open from then on are judged by it';
COMMENT ON COLUMN talkmeter.applied_policies.starts_on IS 'Events that open a part';
COMMENT ON COLUMN talkmeter.applied_policies.ends_on IS 'Events that end one';
COMMENT ON COLUMN talkmeter.applied_policies.idle_timeout IS 'A longer gap has ended the part; null: never';
COMMENT ON COLUMN talkmeter.applied_policies.quiet_review_after IS
    'A gap of at least this has ended a part that no staff has answered; null: never';
COMMENT ON COLUMN talkmeter.applied_policies.max_duration IS 'It ends so long after its start; null: never';
COMMENT ON COLUMN talkmeter.applied_policies.turn_limit IS 'Turns after which it ends; null: no limit';
COMMENT ON COLUMN talkmeter.applied_policies.charge_on IS 'start, first_ai_reply, first_of (charge_events), or close: its end';
COMMENT ON COLUMN talkmeter.applied_policies.charge_events IS 'The events at whose first it is judged; null unless charge_on is first_of';
COMMENT ON COLUMN talkmeter.applied_policies.outcomes IS 'The rules by which it is judged, in order; null: it is billable if the AI replied';
COMMENT ON COLUMN talkmeter.applied_policies.final_after IS
    'How long after its end an event may still change what is decided of it; forever: until another one opens; null: not at all';
COMMENT ON COLUMN talkmeter.applied_policies.once_per IS 'conversation: it is not billable if an earlier part of its conversation is charged; null: each is';
COMMENT ON COLUMN talkmeter.applied_policies.staff_reply_blocks IS 'A visible staff reply makes it not billable';
COMMENT ON COLUMN talkmeter.applied_policies.error_before_reply_waives IS 'An error before the first AI reply makes it not billable';
COMMENT ON COLUMN talkmeter.applied_policies.exclude_prefixes IS 'Conversations whose ids start with one of these are never charged';
COMMENT ON COLUMN talkmeter.applied_policies.note IS 'What was said when it was defined';

CREATE VIEW talkmeter.prices AS
    SELECT s.tenant, 'plan' AS kind, p.name, pg_catalog.min(s.since) AS since, p.included AS units, p.overage_rate, p.price,
        p.currency, NULL::text AS valid_for, p.rates
    FROM talkmeter.subscription AS s
    JOIN talkmeter.plan AS p ON p.name = s.plan
    GROUP BY s.tenant, p.name
    UNION ALL
    SELECT k.tenant, 'pack', k.pack, pg_catalog.min(k.purchased_at), k.size, NULL, k.price, k.currency,
        COALESCE(o.valid_for::text, o.expiry), NULL
    FROM talkmeter.pack AS k
    JOIN talkmeter.pack_offer AS o ON o.name = k.pack
    GROUP BY k.tenant, k.pack, k.size, k.price, k.currency, o.valid_for, o.expiry;
REVOKE ALL ON talkmeter.prices FROM PUBLIC;
COMMENT ON VIEW talkmeter.prices IS 'The prices at which each tenant is billed: the plans that it was, is or will be on, and the packs that it bought';
COMMENT ON COLUMN talkmeter.prices.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.prices.kind IS 'plan or pack';
COMMENT ON COLUMN talkmeter.prices.name IS 'Its name';
COMMENT ON COLUMN talkmeter.prices.since IS 'When the tenant was put on the plan first, -infinity: without beginning; or bought such a pack first';
COMMENT ON COLUMN talkmeter.prices.units IS 'Units that the plan includes per period, or that the pack holds';
COMMENT ON COLUMN talkmeter.prices.overage_rate IS
    'Price of one overage unit, exact, if its outcome has none of its own; null for a pack';
COMMENT ON COLUMN talkmeter.prices.price IS 'Price of the plan per period, null: not known to the meter; or of the pack';
COMMENT ON COLUMN talkmeter.prices.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.prices.valid_for IS
    'Lifetime of the pack from its purchase on, a day is 24 hours; period: to the end of the billing month that holds the purchase; or never; null for a plan';
COMMENT ON COLUMN talkmeter.prices.rates IS
    'Prices of one overage unit by its outcome, exact; null for a pack, and if no outcome has one of its own';
