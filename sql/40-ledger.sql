-- Who pays for each unit: accounts, subscriptions, periods, packs and the charges themselves.

CREATE TABLE talkmeter.tenant_lock (
    tenant text COLLATE "C" PRIMARY KEY
);
REVOKE ALL ON talkmeter.tenant_lock FROM PUBLIC;
COMMENT ON TABLE talkmeter.tenant_lock IS 'One row per tenant, never updated: whoever draws for a tenant locks its row first';
COMMENT ON COLUMN talkmeter.tenant_lock.tenant IS 'The merchant who is billed';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.tenant_lock', '');

-- Updated with each charge: half a page is room for HOT updates until vacuum comes by. So are period and pack below.
CREATE TABLE talkmeter.account (
    tenant text COLLATE "C" PRIMARY KEY,
    last_charge_id bigint NOT NULL DEFAULT 0,
    last_pack_id bigint NOT NULL DEFAULT 0,
    last_subscription_id bigint NOT NULL DEFAULT 0,
    last_finalization bigint NOT NULL DEFAULT 0,
    first_day date,
    alert_channel text
) WITH (fillfactor = 50);
REVOKE ALL ON talkmeter.account FROM PUBLIC;
COMMENT ON TABLE talkmeter.account IS 'The counters of each tenant; they leave no gaps, which no sequence promises';
COMMENT ON COLUMN talkmeter.account.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.account.last_charge_id IS 'The charge_id given last';
COMMENT ON COLUMN talkmeter.account.last_pack_id IS 'The pack_id given last';
COMMENT ON COLUMN talkmeter.account.last_subscription_id IS 'The subscription_id given last';
COMMENT ON COLUMN talkmeter.account.last_finalization IS 'The number of the statement that was frozen last';
COMMENT ON COLUMN talkmeter.account.first_day IS 'The first local day of any charge: how far back a history reaches';
COMMENT ON COLUMN talkmeter.account.alert_channel IS 'Where the tenant is told of alerts: the channel in talkmeter.alerts';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.account', '');

CREATE TABLE talkmeter.subscription (
    tenant text COLLATE "C" NOT NULL,
    subscription_id bigint NOT NULL,
    since timestamptz NOT NULL,
    plan text COLLATE "C",
    timezone text NOT NULL,
    anchor_day integer NOT NULL CHECK (anchor_day BETWEEN 1 AND 31),
    policy text,
    subscribed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    subscribed_by name NOT NULL DEFAULT SESSION_USER,
    last_charge_id bigint NOT NULL,
    PRIMARY KEY (tenant, subscription_id)
);
REVOKE ALL ON talkmeter.subscription FROM PUBLIC;
COMMENT ON TABLE talkmeter.subscription IS
    'Which plan a tenant is on: at an instant, the one with the highest subscription_id whose since is not later';
COMMENT ON COLUMN talkmeter.subscription.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.subscription.subscription_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.subscription.since IS 'In force from this instant on; -infinity: without beginning';
COMMENT ON COLUMN talkmeter.subscription.plan IS 'The plan; null: cancelled';
COMMENT ON COLUMN talkmeter.subscription.timezone IS 'The zone in whose midnights periods start';
COMMENT ON COLUMN talkmeter.subscription.anchor_day IS 'The day of the month on which periods start, clamped to the month''s last day';
COMMENT ON COLUMN talkmeter.subscription.policy IS 'The policy for this tenant, "name" or "name@version"; null: that of the source';
COMMENT ON COLUMN talkmeter.subscription.subscribed_at IS 'When it was recorded';
COMMENT ON COLUMN talkmeter.subscription.subscribed_by IS 'Who recorded it';
COMMENT ON COLUMN talkmeter.subscription.last_charge_id IS
    'The charge_id given last when it was recorded: the charges after it know it. A clock may step back, the ledger does not';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.subscription', '');

CREATE TABLE talkmeter.period (
    tenant text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    included_used bigint NOT NULL,
    pack_used bigint NOT NULL,
    overage_units bigint NOT NULL,
    overage_amount numeric NOT NULL,
    alerted text[] NOT NULL DEFAULT '{}',
    finalized_at timestamptz,
    finalized_by name,
    finalization bigint,
    last_charge_id bigint,
    last_subscription_id bigint,
    last_pack_id bigint,
    digest bytea,
    PRIMARY KEY (tenant, period_start, period_end)
) WITH (fillfactor = 50);
REVOKE ALL ON talkmeter.period FROM PUBLIC;
CREATE UNIQUE INDEX period_finalization ON talkmeter.period (tenant, finalization) WHERE finalization IS NOT NULL;
COMMENT ON TABLE talkmeter.period IS 'What each billing month has used so far, net; opened by the first charge that it pays or lists';
COMMENT ON COLUMN talkmeter.period.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.period.period_start IS 'First instant of the period';
COMMENT ON COLUMN talkmeter.period.period_end IS 'First instant after the period';
COMMENT ON COLUMN talkmeter.period.included_used IS 'Units paid by the allowance';
COMMENT ON COLUMN talkmeter.period.pack_used IS 'Units paid by packs';
COMMENT ON COLUMN talkmeter.period.overage_units IS 'Units paid as overage';
COMMENT ON COLUMN talkmeter.period.overage_amount IS 'Sum of the rates of those units, exact';
COMMENT ON COLUMN talkmeter.period.alerted IS 'Kinds of the alerts that it has raised';
COMMENT ON COLUMN talkmeter.period.finalized_at IS 'When its statement was frozen; null: it is open';
COMMENT ON COLUMN talkmeter.period.finalized_by IS 'Who froze it';
COMMENT ON COLUMN talkmeter.period.finalization IS 'Counts the frozen statements of the tenant, in the order in which they were frozen';
COMMENT ON COLUMN talkmeter.period.last_charge_id IS 'The charge_id given last when it was frozen';
COMMENT ON COLUMN talkmeter.period.last_subscription_id IS 'The subscription_id given last when it was frozen';
COMMENT ON COLUMN talkmeter.period.last_pack_id IS 'The pack_id given last when it was frozen';
COMMENT ON COLUMN talkmeter.period.digest IS
    'The SHA-256 of its statement and its charges, chained to that of the statement that was frozen before: see talkmeter.evidence';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.period', '');

CREATE TABLE talkmeter.pack (
    tenant text COLLATE "C" NOT NULL,
    pack_id bigint NOT NULL,
    pack text COLLATE "C" NOT NULL,
    size bigint NOT NULL CHECK (size BETWEEN 1 AND 1000000000000),
    remaining bigint NOT NULL CHECK (remaining BETWEEN 0 AND size),
    -- NaN is greater than any number, so that a bound keeps it out.
    price numeric NOT NULL CHECK (price >= 0 AND price < 1000000000000),
    currency text NOT NULL,
    purchased_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    purchase_key text COLLATE "C" CHECK (pg_catalog.octet_length(purchase_key) <= 512),
    billed_at timestamptz NOT NULL,
    refunded_at timestamptz,
    refunded_by name,
    PRIMARY KEY (tenant, pack_id),
    UNIQUE (tenant, purchase_key),
    CHECK (purchased_at < expires_at),
    CHECK (purchased_at >= '0001-01-01 00:00+00' AND purchased_at < '10000-01-01 00:00+00'),
    CHECK (billed_at >= '0001-01-01 00:00+00' AND billed_at < '10000-01-01 00:00+00'),
    CHECK (refunded_at >= '0001-01-01 00:00+00' AND refunded_at < '10000-01-01 00:00+00')
) WITH (fillfactor = 50);
REVOKE ALL ON talkmeter.pack FROM PUBLIC;
COMMENT ON TABLE talkmeter.pack IS 'Packs that tenants bought; read them through the view packs';
COMMENT ON COLUMN talkmeter.pack.tenant IS 'The merchant who bought it';
COMMENT ON COLUMN talkmeter.pack.pack_id IS 'Counts within the tenant';
COMMENT ON COLUMN talkmeter.pack.pack IS 'Name of the pack on offer';
COMMENT ON COLUMN talkmeter.pack.size IS 'Units bought';
COMMENT ON COLUMN talkmeter.pack.remaining IS 'Units left';
COMMENT ON COLUMN talkmeter.pack.price IS 'Price paid in the currency';
COMMENT ON COLUMN talkmeter.pack.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.pack.purchased_at IS 'First instant at which it pays';
COMMENT ON COLUMN talkmeter.pack.expires_at IS
    'First instant at which it pays no more, fixed at purchase; infinity: it does not expire';
COMMENT ON COLUMN talkmeter.pack.purchase_key IS 'The buyer''s own name of the purchase: the same key twice is one purchase';
COMMENT ON COLUMN talkmeter.pack.billed_at IS
    'The instant whose period''s statement lists it: that of the purchase, unless that period was finalized when it was recorded';
COMMENT ON COLUMN talkmeter.pack.refunded_at IS 'When it was taken back, unused; null: it was not';
COMMENT ON COLUMN talkmeter.pack.refunded_by IS 'Who took it back';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.pack', '');

-- Append-only: a correction is a new row that names what it corrects.
CREATE TABLE talkmeter.charge (
    tenant text COLLATE "C" NOT NULL,
    charge_id bigint NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    charged_at timestamptz NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    posted_period_start timestamptz NOT NULL,
    posted_period_end timestamptz NOT NULL,
    tier text NOT NULL,
    pack_id bigint,
    amount numeric NOT NULL,
    currency text NOT NULL,
    plan text COLLATE "C" NOT NULL,
    policy text COLLATE "C" NOT NULL,
    policy_version integer NOT NULL,
    outcome text COLLATE "C",
    reverses bigint,
    reason text,
    note text,
    posted_by name,
    cause_source text,
    cause_message_id text,
    cause_at timestamptz,
    posted_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (tenant, charge_id)
);
REVOKE ALL ON talkmeter.charge FROM PUBLIC;
CREATE INDEX charge_part ON talkmeter.charge (tenant, conversation, part);
CREATE INDEX charge_credited ON talkmeter.charge (tenant, conversation, part) WHERE reason = 'credit';
CREATE INDEX charge_posted ON talkmeter.charge (tenant, posted_period_start);
CREATE UNIQUE INDEX charge_reverses ON talkmeter.charge (tenant, reverses) WHERE reverses IS NOT NULL;
CREATE INDEX charge_late ON talkmeter.charge (posted_at)
    WHERE reverses IS NULL AND posted_at - charged_at > interval '35 days';
COMMENT ON TABLE talkmeter.charge IS 'The ledger: one row per billed unit, and one per unit taken back';
COMMENT ON COLUMN talkmeter.charge.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.charge.charge_id IS 'Counts within the tenant without gaps, in the order of the ledger';
COMMENT ON COLUMN talkmeter.charge.conversation IS 'The conversation of the part';
COMMENT ON COLUMN talkmeter.charge.part IS 'The part that is billed';
COMMENT ON COLUMN talkmeter.charge.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.charge.period_start IS 'The period of the charge instant, whose allowance pays';
COMMENT ON COLUMN talkmeter.charge.period_end IS 'First instant after that period';
COMMENT ON COLUMN talkmeter.charge.posted_period_start IS 'The period whose statement lists it';
COMMENT ON COLUMN talkmeter.charge.posted_period_end IS 'First instant after that period: two may start together';
COMMENT ON COLUMN talkmeter.charge.tier IS 'Who paid: included, pack or overage';
COMMENT ON COLUMN talkmeter.charge.pack_id IS 'The pack that paid';
COMMENT ON COLUMN talkmeter.charge.amount IS
    '0 for included and pack, the rate of its outcome for overage, minus the original for a reversal';
COMMENT ON COLUMN talkmeter.charge.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.charge.plan IS 'The plan in force at the charge instant';
COMMENT ON COLUMN talkmeter.charge.policy IS 'The policy by which the part was judged';
COMMENT ON COLUMN talkmeter.charge.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.charge.outcome IS 'The outcome of the part; null: its policy names none';
COMMENT ON COLUMN talkmeter.charge.reverses IS 'The charge_id taken back; null for a charge';
COMMENT ON COLUMN talkmeter.charge.reason IS
    'Why it was taken back: refold if a late or changed event changed the part, voided if an event did it as the policy says, credit if somebody did; null for a charge';
COMMENT ON COLUMN talkmeter.charge.note IS 'What was said of a credit';
COMMENT ON COLUMN talkmeter.charge.posted_by IS
    'Who took it back: by a credit, or by the session that brought the late or changed event; null for a charge';
COMMENT ON COLUMN talkmeter.charge.cause_source IS
    'The table of the late or changed event for which it was taken back, as it was called at attach; null for a mark or a credit';
COMMENT ON COLUMN talkmeter.charge.cause_message_id IS 'The message id of that event, or the number of a mark';
COMMENT ON COLUMN talkmeter.charge.cause_at IS 'The time of that event: the earliest change within the part; of voided the event that took the unit back';
COMMENT ON COLUMN talkmeter.charge.posted_at IS 'When the row was written';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.charge', '');

CREATE VIEW talkmeter.posting AS
    SELECT c.*, CASE WHEN c.reverses IS NULL THEN 1 ELSE -1 END AS units
    FROM talkmeter.charge AS c;
REVOKE ALL ON talkmeter.posting FROM PUBLIC;
COMMENT ON VIEW talkmeter.posting IS 'The rows of the ledger with their sign: 1 for a unit billed, -1 for one taken back';

CREATE VIEW talkmeter.standing_charge AS
    SELECT c.*
    FROM talkmeter.charge AS c
    WHERE c.reverses IS NULL AND NOT EXISTS (
        SELECT FROM talkmeter.charge AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id);
REVOKE ALL ON talkmeter.standing_charge FROM PUBLIC;
COMMENT ON VIEW talkmeter.standing_charge IS 'Charges that no other row of the ledger takes back';

CREATE TABLE talkmeter.unplanned_unit (
    tenant text COLLATE "C" NOT NULL,
    conversation text COLLATE "C" NOT NULL,
    part integer NOT NULL,
    charged_at timestamptz NOT NULL,
    policy text COLLATE "C" NOT NULL,
    policy_version integer NOT NULL,
    outcome text COLLATE "C",
    PRIMARY KEY (tenant, conversation, part)
);
REVOKE ALL ON talkmeter.unplanned_unit FROM PUBLIC;
COMMENT ON TABLE talkmeter.unplanned_unit IS 'Billable units at whose instant the tenant had no plan: they wait for subscribe';
COMMENT ON COLUMN talkmeter.unplanned_unit.tenant IS 'The merchant who will be billed';
COMMENT ON COLUMN talkmeter.unplanned_unit.conversation IS 'The conversation of the part';
COMMENT ON COLUMN talkmeter.unplanned_unit.part IS 'The billable part';
COMMENT ON COLUMN talkmeter.unplanned_unit.charged_at IS 'Its charge instant';
COMMENT ON COLUMN talkmeter.unplanned_unit.policy IS 'The policy by which the part was judged';
COMMENT ON COLUMN talkmeter.unplanned_unit.policy_version IS 'Its version';
COMMENT ON COLUMN talkmeter.unplanned_unit.outcome IS 'The outcome of the part; null: its policy names none';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.unplanned_unit', '');

CREATE TABLE talkmeter.day_units (
    tenant text COLLATE "C" NOT NULL,
    day date NOT NULL,
    units bigint NOT NULL,
    PRIMARY KEY (tenant, day)
) WITH (fillfactor = 50);
REVOKE ALL ON talkmeter.day_units FROM PUBLIC;
COMMENT ON TABLE talkmeter.day_units IS 'Net units of each local day, by charge instant';
COMMENT ON COLUMN talkmeter.day_units.tenant IS 'The merchant who is billed';
COMMENT ON COLUMN talkmeter.day_units.day IS 'The day in the zone of the tenant''s subscription at the charge instant';
COMMENT ON COLUMN talkmeter.day_units.units IS 'Charges less reversals';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.day_units', '');

CREATE TABLE talkmeter.threshold (
    kind text COLLATE "C" PRIMARY KEY CHECK (kind ~ '^[a-z0-9_]{1,63}$'),
    percent bigint NOT NULL CHECK (percent > 0),
    shipped boolean NOT NULL DEFAULT false
);
REVOKE ALL ON talkmeter.threshold FROM PUBLIC;
COMMENT ON TABLE talkmeter.threshold IS 'Shares of the allowance at which a tenant is told';
COMMENT ON COLUMN talkmeter.threshold.kind IS 'The kind of the alert';
COMMENT ON COLUMN talkmeter.threshold.percent IS 'Net units of the period, in percent of those included';
COMMENT ON COLUMN talkmeter.threshold.shipped IS 'Comes with the extension, so it is not dumped';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.threshold', 'WHERE NOT shipped');
INSERT INTO talkmeter.threshold (kind, percent, shipped) VALUES ('allowance_80', 80, true), ('allowance_100', 100, true);
CREATE TRIGGER journal_row AFTER INSERT OR UPDATE OR DELETE ON talkmeter.threshold
    FOR EACH ROW EXECUTE FUNCTION talkmeter.journal_row();
CREATE TRIGGER journal_truncate AFTER TRUNCATE ON talkmeter.threshold
    FOR EACH STATEMENT EXECUTE FUNCTION talkmeter.journal_row();

CREATE TABLE talkmeter.alert (
    tenant text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL,
    period_end timestamptz NOT NULL,
    kind text COLLATE "C" NOT NULL,
    day date NOT NULL DEFAULT '-infinity',
    fired_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    detail text NOT NULL,
    muted boolean NOT NULL DEFAULT false,
    notified_at timestamptz,
    PRIMARY KEY (tenant, period_start, period_end, kind, day)
);
REVOKE ALL ON talkmeter.alert FROM PUBLIC;
CREATE INDEX alert_unsent ON talkmeter.alert (fired_at) WHERE notified_at IS NULL AND NOT muted;
COMMENT ON TABLE talkmeter.alert IS 'What tenants were, or are to be, told of their usage: each kind once per period';
COMMENT ON COLUMN talkmeter.alert.tenant IS 'The merchant who is told';
COMMENT ON COLUMN talkmeter.alert.period_start IS 'First instant of the period of the charge instant';
COMMENT ON COLUMN talkmeter.alert.period_end IS 'First instant after it';
COMMENT ON COLUMN talkmeter.alert.kind IS 'That of a threshold, pack_low, volume_spike or reconcile';
COMMENT ON COLUMN talkmeter.alert.day IS 'The flagged day of reconcile; -infinity for alerts that are raised once per period';
COMMENT ON COLUMN talkmeter.alert.fired_at IS 'When the charge that raised it was posted';
COMMENT ON COLUMN talkmeter.alert.detail IS 'The numbers behind it';
COMMENT ON COLUMN talkmeter.alert.muted IS 'Never sent';
COMMENT ON COLUMN talkmeter.alert.notified_at IS 'When a sweep sent it; null: not yet';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.alert', '');
