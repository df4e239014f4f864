-- What is sold, and by which definition: policies, plans, packs on offer.

CREATE TABLE talkmeter.policy (
    name text COLLATE "C" NOT NULL CHECK (name <> '' AND pg_catalog.strpos(name, '@') = 0 AND pg_catalog.octet_length(name) <= 512),
    version integer NOT NULL CHECK (version > 0),
    label text NOT NULL,
    effective_from timestamptz NOT NULL,
    starts_on text[] NOT NULL,
    ends_on text[] NOT NULL,
    idle_timeout interval,
    quiet_review_after interval,
    max_duration interval,
    turn_limit integer,
    charge_on text NOT NULL CHECK (charge_on IN ('start', 'first_ai_reply', 'first_of', 'close')),
    charge_events text[] CHECK ((charge_on = 'first_of') = (charge_events IS NOT NULL)),
    outcomes jsonb,
    final_after interval,
    never_final boolean,
    once_per text CHECK (once_per = 'conversation'),
    staff_reply_blocks boolean NOT NULL,
    error_before_reply_waives boolean NOT NULL,
    exclude_prefixes text[] NOT NULL,
    retroactive boolean NOT NULL DEFAULT false,
    note text CHECK (pg_catalog.octet_length(note) <= 10000),
    defined_at timestamptz,
    defined_by name,
    shipped boolean NOT NULL DEFAULT false,
    PRIMARY KEY (name, version),
    CHECK (NOT retroactive OR note IS NOT NULL),
    CHECK (shipped OR num_nonnulls(defined_at, defined_by) = 2)
);
REVOKE ALL ON talkmeter.policy FROM PUBLIC;
COMMENT ON TABLE talkmeter.policy IS 'Definitions of the billable unit; a version is never changed, a new one is added';
COMMENT ON COLUMN talkmeter.policy.name IS 'Name of the policy; "name@version" elsewhere pins one version';
COMMENT ON COLUMN talkmeter.policy.version IS 'Counts within the name, from 1';
COMMENT ON COLUMN talkmeter.policy.label IS 'The vendor''s own name of the version, such as 1.0.0';
COMMENT ON COLUMN talkmeter.policy.effective_from IS 'Parts that open at or after this instant are judged by this version';
COMMENT ON COLUMN talkmeter.policy.starts_on IS 'Events that open a part when none is open: kinds, kind:tag, or message for any activity';
COMMENT ON COLUMN talkmeter.policy.ends_on IS 'Events that end the open part; one that opens it too is a part of its own';
COMMENT ON COLUMN talkmeter.policy.idle_timeout IS 'A gap longer than this since the last activity has ended the part; null: never';
COMMENT ON COLUMN talkmeter.policy.quiet_review_after IS
    'A gap of at least this since the last activity has ended a part that no staff answered; null: never';
COMMENT ON COLUMN talkmeter.policy.max_duration IS 'The part has ended so long after its start; null: never';
COMMENT ON COLUMN talkmeter.policy.turn_limit IS 'The part ends with the AI reply that completes this many turns; null: no limit';
COMMENT ON COLUMN talkmeter.policy.charge_on IS 'Charge instant: start, first_ai_reply, first_of (charge_events) or close (the end of the part)';
COMMENT ON COLUMN talkmeter.policy.charge_events IS 'The events at whose first a part is judged; null unless charge_on is first_of';
COMMENT ON COLUMN talkmeter.policy.outcomes IS
    'The rules by which a part is judged, in order: when or unless, outcome, units, voided_by; null: it is billable if the AI replied';
COMMENT ON COLUMN talkmeter.policy.final_after IS
    'How long after its end a part is final; until then an event may still change what is decided of it; null: at its end, or never';
COMMENT ON COLUMN talkmeter.policy.never_final IS 'A part is final when another one opens, and not before; null: no';
COMMENT ON COLUMN talkmeter.policy.once_per IS 'conversation: a part is not billable if an earlier one of its conversation is charged; null: each part is';
COMMENT ON COLUMN talkmeter.policy.staff_reply_blocks IS 'A visible staff reply makes the part not billable';
COMMENT ON COLUMN talkmeter.policy.error_before_reply_waives IS 'An error before the first AI reply makes the part not billable';
COMMENT ON COLUMN talkmeter.policy.exclude_prefixes IS
    'Conversation ids that start literally with one of these are recorded and never charged';
COMMENT ON COLUMN talkmeter.policy.retroactive IS
    'It was in force before it was defined, and its policy had judged parts by then: those keep the version that they opened under';
COMMENT ON COLUMN talkmeter.policy.note IS 'What was said when it was defined';
COMMENT ON COLUMN talkmeter.policy.defined_at IS 'When it was defined; null: it came with the extension';
COMMENT ON COLUMN talkmeter.policy.defined_by IS 'Who defined it; null: it came with the extension';
COMMENT ON COLUMN talkmeter.policy.shipped IS 'Installed by the extension, so not part of a dump';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.policy', 'WHERE NOT shipped');

CREATE TABLE talkmeter.plan (
    name text COLLATE "C" PRIMARY KEY CHECK (name <> '' AND pg_catalog.octet_length(name) <= 512),
    included bigint NOT NULL CHECK (included >= 0),
    overage_rate numeric NOT NULL CHECK (overage_rate >= 0 AND overage_rate < 1000000000),
    rates jsonb CHECK (pg_catalog.jsonb_typeof(rates) = 'object'),
    price numeric CHECK (price >= 0 AND price < 1000000000000),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    shipped boolean NOT NULL DEFAULT false
);
REVOKE ALL ON talkmeter.plan FROM PUBLIC;
COMMENT ON TABLE talkmeter.plan IS 'Plans: included units per period, overage rate, price per period';
COMMENT ON COLUMN talkmeter.plan.name IS 'Name of the plan';
COMMENT ON COLUMN talkmeter.plan.included IS 'Units per period before packs and overage; nothing rolls over';
COMMENT ON COLUMN talkmeter.plan.overage_rate IS
    'Price of one overage unit, exact, in the currency, if its outcome has none of its own';
COMMENT ON COLUMN talkmeter.plan.rates IS 'Prices of one overage unit by its outcome, exact numbers; null: no outcome has one of its own';
COMMENT ON COLUMN talkmeter.plan.price IS 'Price per period in the currency; null: not known to the meter';
COMMENT ON COLUMN talkmeter.plan.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.plan.shipped IS 'Installed by the extension, so not part of a dump';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.plan', 'WHERE NOT shipped');

CREATE TABLE talkmeter.pack_offer (
    name text COLLATE "C" PRIMARY KEY CHECK (name <> '' AND pg_catalog.octet_length(name) <= 512),
    size bigint NOT NULL CHECK (size BETWEEN 1 AND 1000000000000),
    price numeric NOT NULL CHECK (price >= 0 AND price < 1000000000000),
    currency text NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    valid_for interval,
    expiry text CHECK (expiry IN ('period', 'never')),
    shipped boolean NOT NULL DEFAULT false,
    CHECK (num_nonnulls(valid_for, expiry) = 1)
);
REVOKE ALL ON talkmeter.pack_offer FROM PUBLIC;
COMMENT ON TABLE talkmeter.pack_offer IS 'Packs of prepaid units that can be bought';
COMMENT ON COLUMN talkmeter.pack_offer.name IS 'Name of the pack';
COMMENT ON COLUMN talkmeter.pack_offer.size IS 'Units in the pack';
COMMENT ON COLUMN talkmeter.pack_offer.price IS 'Price of the pack in the currency';
COMMENT ON COLUMN talkmeter.pack_offer.currency IS 'ISO 4217 code';
COMMENT ON COLUMN talkmeter.pack_offer.valid_for IS 'Lifetime from the purchase on; a day of it is 24 hours; null: expiry says when it ends';
COMMENT ON COLUMN talkmeter.pack_offer.expiry IS
    'period: it lasts to the end of the billing month that holds its purchase; never: it does not expire; null: valid_for says how long it lasts';
COMMENT ON COLUMN talkmeter.pack_offer.shipped IS 'Installed by the extension, so not part of a dump';
SELECT pg_catalog.pg_extension_config_dump('talkmeter.pack_offer', 'WHERE NOT shipped');
