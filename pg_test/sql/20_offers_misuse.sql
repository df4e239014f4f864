-- What is misuse of policies, plans, packs, subscriptions and the sweep answered?
CREATE EXTENSION talkmeter;
\set sqlstate '\\echo SQLSTATE :LAST_ERROR_SQLSTATE'
SET timezone = 'UTC';

-- Policies.
SELECT talkmeter.define_policy('[]');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "stars_on": ["customer_message"]}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x"}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x@1", "starts_on": ["customer_message"], "ends_on": [], "charge_on": "close"}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["customer"], "ends_on": [], "charge_on": "close"}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["customer_message"], "ends_on": [], "charge_on": "closed"}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "starts_on": [], "ends_on": [], "charge_on": "close"}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["reopen"], "ends_on": [], "charge_on": ["clothes"]}');
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["reopen"], "ends_on": [], "charge_on": "close",
    "outcomes": [{"outcome": "resolution"}, {"when": "note", "outcome": "noted"}]}');
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["reopen"], "ends_on": [], "charge_on": "close",
    "outcomes": [{"when": "note:", "outcome": "noted"}, {"outcome": "resolution"}]}');
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["reopen"], "ends_on": [], "charge_on": "close",
    "outcomes": [{"outcome": "resolution", "units": 2}]}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["reopen"], "ends_on": [], "charge_on": "close", "idle_timeout": "1 month"}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["reopen"], "ends_on": [], "charge_on": "close", "idle_timeout": "soon"}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["reopen"], "ends_on": [], "charge_on": "close", "turn_limit": 0}');
:sqlstate
SELECT talkmeter.define_policy('{"name": "x", "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "close",
    "idle_timeout": "72 hours", "label": "first", "exclude_prefixes": ["demo-"], "effective_from": "2026-01-01 00:00+00"}');
SELECT talkmeter.define_policy('{"name": "agent_red", "label": "2.0.0", "starts_on": ["customer_message"], "ends_on": ["close"],
    "charge_on": "first_ai_reply", "idle_timeout": "1 hour", "effective_from": "2027-01-01 00:00+00"}');
SELECT name, policy_version, label, effective_from, idle_timeout, exclude_prefixes FROM talkmeter.policies
WHERE name IN ('x', 'agent_red') ORDER BY name, policy_version;

-- Plans.
SELECT talkmeter.define_plan('{"name": "p", "included": -1, "overage_rate": 0.1, "currency": "USD"}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "p", "included": 1, "overage_rate": -0.1, "currency": "USD"}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "p", "included": 1, "overage_rate": "much", "currency": "USD"}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "p", "included": 1, "overage_rate": 0.1, "currency": "dollars"}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "p", "included": 1, "overage_rate": 0.1, "currency": "USD", "prize": 1}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "agent_red/starter", "included": 1, "overage_rate": 0.1, "currency": "USD"}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "p", "included": 1, "overage_rate": 0.10, "price": 1e1, "currency": "KWD"}');
SELECT talkmeter.define_plan('{"name": "q", "included": 0, "overage_rate": 0.99, "currency": "USD", "rates": {"": 1}}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "q", "included": 0, "overage_rate": 0.99, "currency": "USD", "rates": {"sale": -1}}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "q", "included": 0, "overage_rate": 0.99, "currency": "USD", "rates": [1]}');
:sqlstate
SELECT talkmeter.define_plan('{"name": "p/by outcome", "included": 0, "overage_rate": 0.99, "currency": "USD", "rates": {"sale": 9.990, "save": "0.5"}}');
SELECT * FROM talkmeter.plans WHERE name LIKE 'p%' ORDER BY name;

-- Packs.
SELECT talkmeter.define_pack('{"name": "k", "size": 0, "price": 1, "currency": "USD", "valid_for": "90 days"}');
:sqlstate
SELECT talkmeter.define_pack('{"name": "k", "size": 1, "price": 1, "currency": "USD", "valid_for": "3 months"}');
:sqlstate
SELECT talkmeter.define_pack('{"name": "k", "size": 1, "price": 1, "currency": "USD", "valid_for": "0 days"}');
:sqlstate
SELECT talkmeter.define_pack('{"name": "agent_red/1000", "size": 1, "price": 1, "currency": "USD", "valid_for": "1 day"}');
:sqlstate
SELECT talkmeter.define_pack('{"name": "k", "size": 10, "price": "1.50", "currency": "USD", "valid_for": "1 day 12 hours"}');
SELECT talkmeter.define_pack('{"name": "k/period", "size": 1, "price": 1, "currency": "USD", "valid_for": "Period"}');
:sqlstate
SELECT talkmeter.define_pack('{"name": "k/period", "size": 1, "price": 1, "currency": "USD", "valid_for": 90}');
:sqlstate
SELECT talkmeter.define_pack('{"name": "k/period", "size": 1, "price": 1, "currency": "USD", "valid_for": "period"}');
SELECT talkmeter.define_pack('{"name": "k/never", "size": 1, "price": 0, "currency": "USD", "valid_for": "never"}');
SELECT * FROM talkmeter.pack_offers WHERE name LIKE 'k%' ORDER BY name;

-- Subscriptions and purchases.
SELECT talkmeter.subscribe('acme', 'q');
:sqlstate
SELECT talkmeter.subscribe(NULL, 'p');
:sqlstate
SELECT talkmeter.subscribe(repeat('x', 513), 'p');
:sqlstate
SELECT talkmeter.subscribe('acme', 'p', timezone => 'Europe/Pari');
:sqlstate
SELECT talkmeter.subscribe('acme', 'p', anchor_day => 32);
:sqlstate
SELECT talkmeter.subscribe('acme', 'p', since => 'infinity');
:sqlstate
SELECT talkmeter.subscribe('acme', 'p', policy => 'agent_red@3');
:sqlstate
SELECT talkmeter.subscribe('acme', 'p', since => '2026-01-31 10:00+00', policy => 'agent_red@2');
SELECT since, plan, timezone, anchor_day, policy FROM talkmeter.subscription;
SELECT talkmeter.buy_pack('acme', 'l');
:sqlstate
SELECT talkmeter.buy_pack('acme', 'k', 'order-1', '2026-02-01 00:00+00');
SELECT talkmeter.buy_pack('acme', 'k', 'order-1');
SELECT talkmeter.buy_pack('acme', 'agent_red/1000', 'order-1');
:sqlstate
SELECT talkmeter.buy_pack('acme', 'k', purchased_at => '2026-02-02 00:00+00');
SELECT * FROM talkmeter.packs;
SELECT talkmeter.balance('nobody');

-- Periods of months that are too short for the anchor day.
SELECT * FROM talkmeter.period_at('acme', '2026-02-28 12:00+00');
SELECT * FROM talkmeter.period_at('nobody', '2026-02-28 12:00+00');
SELECT talkmeter.period_at('acme', 'infinity');
:sqlstate
SELECT talkmeter.change_plan('nobody', 'p');
:sqlstate
SELECT talkmeter.cancel('nobody');
:sqlstate
SELECT talkmeter.refund_pack('acme', 99);
:sqlstate
SELECT talkmeter.credit('acme', 1, 'no such charge');
:sqlstate
SELECT talkmeter.dispute('acme', 'c', 1, 'no such part');
:sqlstate
SELECT talkmeter.resolve_dispute('acme', 1, 'forgotten');
:sqlstate
SELECT talkmeter.finalize('acme', '2026-02-01');
:sqlstate
SELECT talkmeter.reconcile('infinity');
:sqlstate
SELECT talkmeter.reconcile(current_date + 2);
:sqlstate
SELECT talkmeter.report_external('acme', '2026-02-01', -1);
:sqlstate
SELECT talkmeter.review('acme', '2026-02-01');
:sqlstate
SELECT talkmeter.currency_digits(code) FROM unnest('{USD,JPY,KWD}'::text[]) AS code;

-- The sweep does not run ahead of the clock.
SELECT talkmeter.sweep(now() + interval '6 minutes');
:sqlstate
SELECT talkmeter.sweep('infinity');
:sqlstate
SELECT talkmeter.sweep(now() + interval '4 minutes');

-- Settings belong to superusers, and misspelt ones are refused.
SHOW talkmeter.max_future;
SET talkmeter.max_futur = 1;
:sqlstate
CREATE ROLE regress_clerk;
SET ROLE regress_clerk;
SET talkmeter.max_future = '1 day';
:sqlstate
RESET ROLE;
DROP ROLE regress_clerk;
