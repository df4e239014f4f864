-- What people read. No view is granted to anybody at install.

CREATE VIEW talkmeter.policies AS
    SELECT name, version AS policy_version, label, effective_from, starts_on, ends_on, idle_timeout, quiet_review_after,
        max_duration, turn_limit, charge_on, charge_events, outcomes,
        CASE WHEN never_final THEN 'forever' ELSE final_after::text END AS final_after, once_per,
        staff_reply_blocks, error_before_reply_waives, exclude_prefixes, retroactive, note, defined_at, defined_by
    FROM talkmeter.policy;
REVOKE ALL ON talkmeter.policies FROM PUBLIC;
COMMENT ON VIEW talkmeter.policies IS 'Every version of every policy';
COMMENT ON COLUMN talkmeter.policies.name IS 'Its name';
COMMENT ON COLUMN talkmeter.policies.policy_version IS 'Counts within the name';
COMMENT ON COLUMN talkmeter.policies.label IS 'The vendor''s own name of the version';
COMMENT ON COLUMN talkmeter.policies.effective_from IS 'Parts that open from then on are judged by it';
COMMENT ON COLUMN talkmeter.policies.starts_on IS 'Events that open a part';
COMMENT ON COLUMN talkmeter.policies.ends_on IS 'Events that end one';
COMMENT ON COLUMN talkmeter.policies.idle_timeout IS 'A longer gap has ended the part; null: never';
COMMENT ON COLUMN talkmeter.policies.quiet_review_after IS
    'A gap of at least this has ended a part that no staff has answered; null: never';
COMMENT ON COLUMN talkmeter.policies.max_duration IS 'It ends so long after its start; null: never';
COMMENT ON COLUMN talkmeter.policies.turn_limit IS 'Turns after which it ends; null: no limit';
COMMENT ON COLUMN talkmeter.policies.charge_on IS 'start, first_ai_reply, first_of (charge_events), or close: its end';
COMMENT ON COLUMN talkmeter.policies.charge_events IS 'The events at whose first it is judged; null unless charge_on is first_of';
COMMENT ON COLUMN talkmeter.policies.outcomes IS 'The rules by which it is judged, in order; null: it is billable if the AI replied';
COMMENT ON COLUMN talkmeter.policies.final_after IS
    'How long after its end an event may still change what is decided of it; forever: until another one opens; null: not at all';
COMMENT ON COLUMN talkmeter.policies.once_per IS 'conversation: it is not billable if an earlier part of its conversation is charged; null: each is';
COMMENT ON COLUMN talkmeter.policies.staff_reply_blocks IS 'A visible staff reply makes it not billable';
COMMENT ON COLUMN talkmeter.policies.error_before_reply_waives IS 'An error before the first AI reply makes it not billable';
COMMENT ON COLUMN talkmeter.policies.exclude_prefixes IS 'Conversations whose ids start with one of these are never charged';
COMMENT ON COLUMN talkmeter.policies.retroactive IS 'It was defined to be in force before, although its policy had judged parts';
COMMENT ON COLUMN talkmeter.policies.note IS 'What was said when it was defined';
COMMENT ON COLUMN talkmeter.policies.defined_at IS 'When it was defined; null: it came with the extension';
COMMENT ON COLUMN talkmeter.policies.defined_by IS 'Who defined it';

CREATE VIEW talkmeter.plans AS
    SELECT name, included, overage_rate, price, currency, rates
    FROM talkmeter.plan;
REVOKE ALL ON talkmeter.plans FROM PUBLIC;
COMMENT ON VIEW talkmeter.plans IS 'Plans that a tenant can be put on';
COMMENT ON COLUMN talkmeter.plans.name IS 'Its name';
COMMENT ON COLUMN talkmeter.plans.included IS 'Units that the plan includes per period';
COMMENT ON COLUMN talkmeter.plans.overage_rate IS 'Price of one overage unit, exact, if its outcome has none of its own';
COMMENT ON COLUMN talkmeter.plans.price IS 'Price per period; null: not known to the meter';
COMMENT ON COLUMN talkmeter.plans.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.plans.rates IS 'Prices of one overage unit by its outcome, exact; null: no outcome has one of its own';

CREATE VIEW talkmeter.pack_offers AS
    SELECT name, size, price, currency, COALESCE(valid_for::text, expiry) AS valid_for
    FROM talkmeter.pack_offer;
REVOKE ALL ON talkmeter.pack_offers FROM PUBLIC;
COMMENT ON VIEW talkmeter.pack_offers IS 'Packs that a tenant can buy';
COMMENT ON COLUMN talkmeter.pack_offers.name IS 'Its name';
COMMENT ON COLUMN talkmeter.pack_offers.size IS 'Units';
COMMENT ON COLUMN talkmeter.pack_offers.price IS 'Its price';
COMMENT ON COLUMN talkmeter.pack_offers.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.pack_offers.valid_for IS
    'Lifetime from the purchase on, a day is 24 hours; period: to the end of the billing month that holds the purchase; or never';

CREATE VIEW talkmeter.sources AS
    SELECT relation AS source, policy, default_plan, strict, starts_at, attached_at, attached_by, mapping, role, row_mode
    FROM talkmeter.source
    WHERE detached_at IS NULL;
REVOKE ALL ON talkmeter.sources FROM PUBLIC;
COMMENT ON VIEW talkmeter.sources IS 'The attached tables';
COMMENT ON COLUMN talkmeter.sources.source IS 'The table';
COMMENT ON COLUMN talkmeter.sources.policy IS 'The policy of parts that its rows open; null for a status table';
COMMENT ON COLUMN talkmeter.sources.default_plan IS 'The plan of tenants first charged through it; null: their units wait';
COMMENT ON COLUMN talkmeter.sources.strict IS 'A row that cannot be metered is an error';
COMMENT ON COLUMN talkmeter.sources.starts_at IS 'Rows dated before it are ignored; -infinity if the table was empty at its first attach';
COMMENT ON COLUMN talkmeter.sources.attached_at IS 'When it was attached last';
COMMENT ON COLUMN talkmeter.sources.attached_by IS 'Who attached it';
COMMENT ON COLUMN talkmeter.sources.mapping IS 'The newest version, as it was given to attach or remap';
COMMENT ON COLUMN talkmeter.sources.role IS 'messages or status';
COMMENT ON COLUMN talkmeter.sources.row_mode IS 'Its triggers fire for each row, and also while logical replication applies it';

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
COMMENT ON COLUMN talkmeter.mappings.source IS 'The table';
COMMENT ON COLUMN talkmeter.mappings.since IS 'Rows dated this or later are read by it; -infinity: all of before';
COMMENT ON COLUMN talkmeter.mappings.until_time IS 'Rows dated this or later are read by the next version; infinity for the newest';
COMMENT ON COLUMN talkmeter.mappings.policy IS 'The policy of parts that its rows open';
COMMENT ON COLUMN talkmeter.mappings.mapping IS 'As it was given to attach or remap';

CREATE VIEW talkmeter.source_gaps AS
    SELECT s.relation AS source, g.from_time, g.until_time, g.because
    FROM talkmeter.source_gap AS g
    JOIN talkmeter.source AS s USING (source_id)
    WHERE s.detached_at IS NULL;
REVOKE ALL ON talkmeter.source_gaps FROM PUBLIC;
COMMENT ON VIEW talkmeter.source_gaps IS 'Spans of time, of attached tables, whose rows are no events until they are backfilled';
COMMENT ON COLUMN talkmeter.source_gaps.source IS 'The table';
COMMENT ON COLUMN talkmeter.source_gaps.from_time IS 'When it was detached; or from when on rows wait that were there before the attach';
COMMENT ON COLUMN talkmeter.source_gaps.until_time IS
    'When it was attached again; or up to when rows wait that were there before the attach';
COMMENT ON COLUMN talkmeter.source_gaps.because IS 'detached, or before_start';

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
            WHEN 'moved' THEN 'Its tenant is on its way: it is metered where the books are, see moves. Delete it here once the tenant has left.'
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
COMMENT ON COLUMN talkmeter.quarantine.source IS 'The attached table; null for a mark';
COMMENT ON COLUMN talkmeter.quarantine.message_id IS 'Its message id, as far as it can be read as text, or the number of the mark';
COMMENT ON COLUMN talkmeter.quarantine.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.quarantine.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.quarantine.occurred_at IS 'Its time, if it has one that can be metered';
COMMENT ON COLUMN talkmeter.quarantine.reason IS 'Why it could not be metered';
COMMENT ON COLUMN talkmeter.quarantine.quarantined_at IS 'When it was put into quarantine';
COMMENT ON COLUMN talkmeter.quarantine.detail IS 'What went wrong, where the reason does not say it all';
COMMENT ON COLUMN talkmeter.quarantine.mark_kind IS 'The kind of a mark that waits; null for a row';
COMMENT ON COLUMN talkmeter.quarantine.hint IS 'What helps';

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
        p.message_count, p.turn_count, p.ai_replies, p.staff_replies,
        talkmeter.local_day(p.tenant, p.started_at) AS started_day,
        CASE WHEN p.passed THEN p.due_outcome WHEN p.ended_at IS NOT NULL OR p.charged_at IS NOT NULL THEN p.outcome END AS outcome,
        CASE WHEN p.charged_at IS NOT NULL OR p.passed AND p.due_because IS NULL THEN 1
            WHEN p.passed OR p.ended_at IS NOT NULL THEN 0 END AS units,
        CASE WHEN p.passed THEN p.due_end + (
                SELECT CASE WHEN v.never_final THEN NULL
                    ELSE pg_catalog.make_interval(secs => COALESCE(extract(epoch FROM v.final_after), 0)::float8) END
                FROM talkmeter.policy AS v
                WHERE v.name = p.policy AND v.version = p.policy_version)
            WHEN p.is_held THEN p.due_at ELSE COALESCE(p.final_at, p.ended_at) END AS final_at
    FROM talkmeter.part_now AS p;
REVOKE ALL ON talkmeter.parts FROM PUBLIC;
COMMENT ON VIEW talkmeter.parts IS 'Every metered interaction; what time has ended shows as ended before any sweep';
COMMENT ON COLUMN talkmeter.parts.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.parts.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.parts.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.parts.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.parts.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.parts.status IS 'open or ended';
COMMENT ON COLUMN talkmeter.parts.started_at IS 'Time of the event that opened it';
COMMENT ON COLUMN talkmeter.parts.first_ai_reply_at IS 'Time of its first AI reply; null: none';
COMMENT ON COLUMN talkmeter.parts.last_activity_at IS 'Time of its last message, or of its opening';
COMMENT ON COLUMN talkmeter.parts.ended_at IS 'Its logical end, not when a sweep or a later event found that; null while open';
COMMENT ON COLUMN talkmeter.parts.end_reason IS 'The end reason; null while open';
COMMENT ON COLUMN talkmeter.parts.billable IS 'Whether it is a unit; false until its charge instant';
COMMENT ON COLUMN talkmeter.parts.not_billable_because IS 'The reason against; null if it is billable, and until it has ended';
COMMENT ON COLUMN talkmeter.parts.charged_at IS 'Its charge instant; null if it is not billable';
COMMENT ON COLUMN talkmeter.parts.message_count IS 'Messages of customer, AI and staff';
COMMENT ON COLUMN talkmeter.parts.turn_count IS 'Complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.parts.ai_replies IS 'AI replies';
COMMENT ON COLUMN talkmeter.parts.staff_replies IS 'Visible staff replies';
COMMENT ON COLUMN talkmeter.parts.started_day IS 'The day on which it began in the tenant''s zone';
COMMENT ON COLUMN talkmeter.parts.outcome IS 'What came of it, in the words of its policy; null if that names none, and until it is judged';
COMMENT ON COLUMN talkmeter.parts.units IS 'How many units it is: 1 or 0; null until it is judged';
COMMENT ON COLUMN talkmeter.parts.final_at IS 'From when on no event changes what was decided of it, unless it comes late; null while open, and if that is when another part opens';

CREATE VIEW talkmeter.unevaluated AS
    SELECT p.tenant, p.conversation, p.part, p.policy, p.policy_version, p.started_at, p.first_ai_reply_at,
        p.last_activity_at, p.message_count, p.turn_count, p.ai_replies, p.staff_replies,
        talkmeter.local_day(p.tenant, p.started_at) AS started_day
    FROM talkmeter.part AS p
    WHERE p.ended_at IS NULL AND NOT p.timed AND p.charged_at IS NULL AND p.not_billable_because IS NULL;
REVOKE ALL ON talkmeter.unevaluated FROM PUBLIC;
COMMENT ON VIEW talkmeter.unevaluated IS 'Open parts that time alone will never end, so that they wait for somebody to close them';
COMMENT ON COLUMN talkmeter.unevaluated.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.unevaluated.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.unevaluated.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.unevaluated.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.unevaluated.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.unevaluated.started_at IS 'Time of the event that opened it';
COMMENT ON COLUMN talkmeter.unevaluated.first_ai_reply_at IS 'Time of its first AI reply; null: none';
COMMENT ON COLUMN talkmeter.unevaluated.last_activity_at IS 'Time of its last message, or of its opening';
COMMENT ON COLUMN talkmeter.unevaluated.message_count IS 'Messages of customer, AI and staff';
COMMENT ON COLUMN talkmeter.unevaluated.turn_count IS 'Complete turns: an AI reply after at least one customer message';
COMMENT ON COLUMN talkmeter.unevaluated.ai_replies IS 'AI replies';
COMMENT ON COLUMN talkmeter.unevaluated.staff_replies IS 'Visible staff replies';
COMMENT ON COLUMN talkmeter.unevaluated.started_day IS 'The day on which it began in the tenant''s zone';

CREATE VIEW talkmeter.charges AS
    SELECT tenant, charge_id, conversation, part, charged_at, period_start, posted_period_start, tier, pack_id, amount,
        currency, plan, policy, policy_version, reverses, reason, posted_at, note, posted_by,
        cause_source, cause_message_id, cause_at,
        talkmeter.local_day(tenant, charged_at, charge_id) AS charged_day,
        talkmeter.period_name(tenant, period_start, period_end) AS period,
        talkmeter.period_name(tenant, posted_period_start, posted_period_end) AS posted_period, outcome
    FROM talkmeter.charge;
REVOKE ALL ON talkmeter.charges FROM PUBLIC;
COMMENT ON VIEW talkmeter.charges IS 'The ledger: one row per billed unit, and one per unit taken back';
COMMENT ON COLUMN talkmeter.charges.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.charges.charge_id IS 'Counts within the tenant without gaps, in the order of the ledger';
COMMENT ON COLUMN talkmeter.charges.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.charges.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.charges.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.charges.period_start IS 'The period of the charge instant, whose allowance pays';
COMMENT ON COLUMN talkmeter.charges.posted_period_start IS 'The period whose statement lists it';
COMMENT ON COLUMN talkmeter.charges.tier IS 'Who paid: included, pack or overage';
COMMENT ON COLUMN talkmeter.charges.pack_id IS 'The pack that paid; null for the other tiers';
COMMENT ON COLUMN talkmeter.charges.amount IS
    '0 for included and pack, the rate of its outcome for overage, minus the original for a reversal; exact';
COMMENT ON COLUMN talkmeter.charges.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.charges.plan IS 'The plan in force at the charge instant';
COMMENT ON COLUMN talkmeter.charges.policy IS 'The policy by which the part was judged';
COMMENT ON COLUMN talkmeter.charges.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.charges.reverses IS 'The charge that it takes back; null for a charge';
COMMENT ON COLUMN talkmeter.charges.reason IS
    'Why it was taken back: refold (a late, changed or marked event), voided (an event, as the policy says) or credit; null for a charge';
COMMENT ON COLUMN talkmeter.charges.posted_at IS 'When the row was written';
COMMENT ON COLUMN talkmeter.charges.note IS 'The note of a credit';
COMMENT ON COLUMN talkmeter.charges.posted_by IS
    'Who took it back: by a credit, or as the session that brought the late or changed event; null for a charge';
COMMENT ON COLUMN talkmeter.charges.cause_source IS
    'The table of the late or changed event, as it was called at attach; null for a mark, and for a credit';
COMMENT ON COLUMN talkmeter.charges.cause_message_id IS 'The message id of the late or changed event, or the number of a mark';
COMMENT ON COLUMN talkmeter.charges.cause_at IS 'The time of that event: the first change within the part; of voided the event that took the unit back';
COMMENT ON COLUMN talkmeter.charges.charged_day IS 'The day of the charge instant in the tenant''s zone';
COMMENT ON COLUMN talkmeter.charges.period IS 'The name of the period of the charge instant: the year and month of its first local day, as 2026-03';
COMMENT ON COLUMN talkmeter.charges.posted_period IS 'The name of the period whose statement lists it';
COMMENT ON COLUMN talkmeter.charges.outcome IS 'The outcome of the part; null: its policy names none';

CREATE VIEW talkmeter.packs AS
    SELECT tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at, purchase_key, refunded_at,
        refunded_by, talkmeter.local_day(tenant, purchased_at) AS purchased_day,
        CASE WHEN expires_at < '10000-01-01 00:00+00' THEN talkmeter.local_day(tenant, expires_at) END AS expires_day
    FROM talkmeter.pack;
REVOKE ALL ON talkmeter.packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.packs IS 'Packs that tenants bought, and what is left of them; a refunded one pays no more';
COMMENT ON COLUMN talkmeter.packs.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.packs.pack_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.packs.pack IS 'Name of the pack';
COMMENT ON COLUMN talkmeter.packs.size IS 'Units bought';
COMMENT ON COLUMN talkmeter.packs.remaining IS 'Units left';
COMMENT ON COLUMN talkmeter.packs.price IS 'What it cost';
COMMENT ON COLUMN talkmeter.packs.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.packs.purchased_at IS 'First instant at which it pays';
COMMENT ON COLUMN talkmeter.packs.expires_at IS 'First instant at which it pays no more; infinity: it does not expire';
COMMENT ON COLUMN talkmeter.packs.purchase_key IS 'The buyer''s own name of the purchase';
COMMENT ON COLUMN talkmeter.packs.refunded_at IS 'When it was taken back, unused; null: it was not';
COMMENT ON COLUMN talkmeter.packs.refunded_by IS 'Who took it back';
COMMENT ON COLUMN talkmeter.packs.purchased_day IS 'The day of the purchase in the tenant''s zone';
COMMENT ON COLUMN talkmeter.packs.expires_day IS 'The day in which it expires in the tenant''s zone; null: never, or after the year 9999';

CREATE VIEW talkmeter.expired_packs AS
    SELECT tenant, pack_id, pack, size, remaining AS expired_unused, expires_at,
        talkmeter.local_day(tenant, expires_at) AS expires_day
    FROM talkmeter.pack
    WHERE remaining > 0 AND refunded_at IS NULL AND expires_at <= (SELECT clock.now FROM talkmeter.clock);
REVOKE ALL ON talkmeter.expired_packs FROM PUBLIC;
COMMENT ON VIEW talkmeter.expired_packs IS 'Packs that expired before they were used up, and how many units were lost';
COMMENT ON COLUMN talkmeter.expired_packs.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.expired_packs.pack_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.expired_packs.pack IS 'Name of the pack';
COMMENT ON COLUMN talkmeter.expired_packs.size IS 'Units bought';
COMMENT ON COLUMN talkmeter.expired_packs.expired_unused IS 'Units that expired unused';
COMMENT ON COLUMN talkmeter.expired_packs.expires_at IS 'First instant at which it pays no more';
COMMENT ON COLUMN talkmeter.expired_packs.expires_day IS 'The day in which it expired in the tenant''s zone';

CREATE VIEW talkmeter.alerts AS
    SELECT e.tenant, e.period_start, e.kind, e.fired_at, e.detail, e.notified_at, e.muted,
        NULLIF(e.day, '-infinity') AS day, a.alert_channel AS channel,
        talkmeter.period_name(e.tenant, e.period_start, e.period_end) AS period
    FROM talkmeter.alert AS e
    LEFT JOIN talkmeter.account AS a ON a.tenant = e.tenant;
REVOKE ALL ON talkmeter.alerts FROM PUBLIC;
COMMENT ON VIEW talkmeter.alerts IS 'What tenants were, or are to be, told of their usage: each kind once per period';
COMMENT ON COLUMN talkmeter.alerts.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.alerts.period_start IS 'The period of the charge instant; of reconcile the start of the day';
COMMENT ON COLUMN talkmeter.alerts.kind IS 'The kind of alert';
COMMENT ON COLUMN talkmeter.alerts.fired_at IS 'When it was raised';
COMMENT ON COLUMN talkmeter.alerts.detail IS 'The numbers behind it';
COMMENT ON COLUMN talkmeter.alerts.notified_at IS 'When a sweep woke the listeners for it; null: not yet';
COMMENT ON COLUMN talkmeter.alerts.muted IS 'Never sent';
COMMENT ON COLUMN talkmeter.alerts.day IS 'The flagged day of reconcile; null for the others';
COMMENT ON COLUMN talkmeter.alerts.channel IS 'What set_alert_channel set for the tenant';
COMMENT ON COLUMN talkmeter.alerts.period IS 'The name of the period: the year and month of its first local day, as 2026-03';

CREATE VIEW talkmeter.unplanned AS
    SELECT tenant, conversation, part, charged_at, policy, policy_version,
        talkmeter.local_day(tenant, charged_at) AS charged_day, outcome
    FROM talkmeter.unplanned_unit;
REVOKE ALL ON talkmeter.unplanned FROM PUBLIC;
COMMENT ON VIEW talkmeter.unplanned IS 'Billable units that wait until their tenant is subscribed to a plan';
COMMENT ON COLUMN talkmeter.unplanned.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.unplanned.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.unplanned.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.unplanned.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.unplanned.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.unplanned.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.unplanned.charged_day IS 'The day of the charge instant in the tenant''s zone';
COMMENT ON COLUMN talkmeter.unplanned.outcome IS 'The outcome of the part; null: its policy names none';

CREATE VIEW talkmeter.uncharged AS
    SELECT u.tenant, u.conversation, u.part, u.charged_at, u.policy, u.policy_version, s.relation AS source,
        talkmeter.local_day(u.tenant, u.charged_at) AS charged_day, u.outcome
    FROM talkmeter.uncharged_unit AS u
    LEFT JOIN talkmeter.source AS s USING (source_id);
REVOKE ALL ON talkmeter.uncharged FROM PUBLIC;
COMMENT ON VIEW talkmeter.uncharged IS 'Billable units that a backfill has counted and not charged: it is under way, or was called with charge => false';
COMMENT ON COLUMN talkmeter.uncharged.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.uncharged.conversation IS 'The application''s conversation id, unique within the tenant';
COMMENT ON COLUMN talkmeter.uncharged.part IS 'Number within the conversation; charges know the part by it';
COMMENT ON COLUMN talkmeter.uncharged.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.uncharged.policy IS 'The policy by which it is judged';
COMMENT ON COLUMN talkmeter.uncharged.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.uncharged.source IS 'The table whose backfill charges it';
COMMENT ON COLUMN talkmeter.uncharged.charged_day IS 'The day of the charge instant in the tenant''s zone';
COMMENT ON COLUMN talkmeter.uncharged.outcome IS 'The outcome of the part; null: its policy names none';

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
        plan.currency,
        talkmeter.period_name(a.tenant, period.period_start, period.period_end) AS period
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
COMMENT ON COLUMN talkmeter.usage.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.usage.plan IS 'The plan in force now';
COMMENT ON COLUMN talkmeter.usage.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.usage.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.usage.used IS 'Units of the period, net: included_used + pack_used + overage_units';
COMMENT ON COLUMN talkmeter.usage.included IS 'Units that the plan includes per period';
COMMENT ON COLUMN talkmeter.usage.included_used IS 'Units paid by the allowance';
COMMENT ON COLUMN talkmeter.usage.included_remaining IS 'Units left of the allowance';
COMMENT ON COLUMN talkmeter.usage.pack_balance IS 'Units left in packs that are valid now';
COMMENT ON COLUMN talkmeter.usage.pack_used IS 'Units paid by packs';
COMMENT ON COLUMN talkmeter.usage.overage_units IS 'Units paid as overage';
COMMENT ON COLUMN talkmeter.usage.overage_rate IS 'Price of one overage unit now, exact, if its outcome has none of its own';
COMMENT ON COLUMN talkmeter.usage.estimated_overage IS 'What the overage units cost so far, rounded once';
COMMENT ON COLUMN talkmeter.usage.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.usage.period IS 'The name of the period: the year and month of its first local day, as 2026-03';

CREATE FUNCTION talkmeter.balance(tenant text) RETURNS bigint
    LANGUAGE sql STABLE STRICT PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$
        -- An allowance beyond any use is no reason for an error.
        SELECT LEAST(own.included_remaining::numeric + own.pack_balance, 9223372036854775807)::bigint
        FROM (
            SELECT usage.included_remaining, usage.pack_balance
            FROM talkmeter.usage
            WHERE usage.tenant = balance.tenant
            UNION ALL
            -- What its first charge will find, if that can be only one thing.
            SELECT plan.included, packs.balance
            FROM (
                SELECT min(s.default_plan) AS name
                FROM talkmeter.source AS s
                WHERE s.detached_at IS NULL
                HAVING count(DISTINCT s.default_plan) = 1
            ) AS given
            JOIN talkmeter.plan ON plan.name = given.name
            CROSS JOIN LATERAL (
                SELECT COALESCE(sum(pack.remaining), 0)::bigint AS balance
                FROM talkmeter.pack
                WHERE pack.tenant = balance.tenant AND pack.refunded_at IS NULL
                    AND pack.purchased_at <= (SELECT clock.now FROM talkmeter.clock)
                    AND (SELECT clock.now FROM talkmeter.clock) < pack.expires_at
            ) AS packs
            WHERE NOT EXISTS (SELECT FROM talkmeter.subscription AS s WHERE s.tenant = balance.tenant)
                AND NOT EXISTS (SELECT FROM talkmeter.waiting_unit AS w WHERE w.tenant = balance.tenant)
        ) AS own
    $$;
REVOKE ALL ON FUNCTION talkmeter.balance(text) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.balance(text) IS
    'Units that a tenant has left before overage: allowance of the current period and unexpired packs. Before its first charge, those that it would have by the one default plan of attached tables. Null without a plan';

-- What a driver sends for a number or a uuid; a text and an untyped string mean the other one.
CREATE FUNCTION talkmeter.balance(tenant anyelement) RETURNS bigint
    LANGUAGE sql STABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET jit = off
    AS $$ SELECT talkmeter.balance(tenant::text) $$;
REVOKE ALL ON FUNCTION talkmeter.balance(anyelement) FROM PUBLIC;
COMMENT ON FUNCTION talkmeter.balance(anyelement) IS 'The same for a tenant whose key is a number or a uuid: balance(42)';

CREATE VIEW talkmeter.disputes AS
    SELECT d.tenant, d.dispute_id, d.charge_id, c.conversation, c.part, d.reason, d.state, d.filed_at, d.filed_by,
        d.due_at, d.state = 'open' AND d.due_at <= (SELECT clock.now FROM talkmeter.clock) AS overdue, d.resolved_at,
        d.resolved_by, d.note,
        -- It ends when that day does.
        talkmeter.local_day(d.tenant, d.due_at - interval '1 microsecond') AS due_day
    FROM talkmeter.dispute_filed AS d
    JOIN talkmeter.charge AS c USING (tenant, charge_id);
REVOKE ALL ON talkmeter.disputes FROM PUBLIC;
COMMENT ON VIEW talkmeter.disputes IS 'Disputes, those that should have been resolved by now with overdue';
COMMENT ON COLUMN talkmeter.disputes.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.disputes.dispute_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.disputes.charge_id IS 'The charge';
COMMENT ON COLUMN talkmeter.disputes.conversation IS 'The conversation of the charge';
COMMENT ON COLUMN talkmeter.disputes.part IS 'The part that is charged';
COMMENT ON COLUMN talkmeter.disputes.reason IS 'What the merchant says';
COMMENT ON COLUMN talkmeter.disputes.state IS 'open, credited or rejected';
COMMENT ON COLUMN talkmeter.disputes.filed_at IS 'When it was filed';
COMMENT ON COLUMN talkmeter.disputes.filed_by IS 'Who filed it';
COMMENT ON COLUMN talkmeter.disputes.due_at IS 'The end of the 10th business day after the day of filing';
COMMENT ON COLUMN talkmeter.disputes.overdue IS 'Open, and due';
COMMENT ON COLUMN talkmeter.disputes.resolved_at IS 'When it was resolved';
COMMENT ON COLUMN talkmeter.disputes.resolved_by IS 'Who resolved it';
COMMENT ON COLUMN talkmeter.disputes.note IS 'The note of the resolution';
COMMENT ON COLUMN talkmeter.disputes.due_day IS 'The last day on which it is to be resolved, in the tenant''s zone';

CREATE VIEW talkmeter.reconciliations AS
    SELECT tenant, day, charged, recounted, unprovable, external, flagged, reconciled_at, reviewed_by, reviewed_at
    FROM talkmeter.reconciliation;
REVOKE ALL ON talkmeter.reconciliations FROM PUBLIC;
COMMENT ON VIEW talkmeter.reconciliations IS
    'What was charged on a local day, what a recount of the messages gives, and what somebody else reported; flagged: two of them are more than 5 % apart';
COMMENT ON COLUMN talkmeter.reconciliations.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.reconciliations.day IS 'The day in the tenant''s zone';
COMMENT ON COLUMN talkmeter.reconciliations.charged IS 'Units by charge instant, credits aside';
COMMENT ON COLUMN talkmeter.reconciliations.recounted IS 'Units by a recount of the messages that exist now';
COMMENT ON COLUMN talkmeter.reconciliations.unprovable IS
    'Charged units of conversations that have lost rows, or whose rows cannot be read';
COMMENT ON COLUMN talkmeter.reconciliations.external IS 'What was reported; null: nothing';
COMMENT ON COLUMN talkmeter.reconciliations.flagged IS
    'Whether two of charged, recounted + unprovable and external differ by more than 5 % of the larger';
COMMENT ON COLUMN talkmeter.reconciliations.reconciled_at IS 'When it was counted last';
COMMENT ON COLUMN talkmeter.reconciliations.reviewed_by IS 'Who has looked at it';
COMMENT ON COLUMN talkmeter.reconciliations.reviewed_at IS 'When somebody has looked at it';
