#!/usr/bin/env bash
# How long does verify() take over a million charges?
#
# 200 tenants with 5,000 parts each, two in a conversation, over four months: allowance, packs and overage, one charge in a
# hundred taken back, one tenant in ten with a second subscription, the first two months finalized. The rows are inserted
# straight into talkmeter's tables, in the order in which time would have brought them. For a measure of the machine,
# the same charges are counted and summed.
#
# Runs inside scripts/with-cluster.sh. Rounds are interleaved, medians compared.
set -euo pipefail

rounds=${ROUNDS:-3}
tenants=200
parts=5000

sql() { "$TALKMETER_BIN/psql" -X -q -At -v ON_ERROR_STOP=1 -d verify "$@"; }

prepare() {
    "$TALKMETER_BIN/psql" -X -q -c 'CREATE DATABASE verify'
    sql <<SQL
CREATE EXTENSION talkmeter;
SET work_mem = '256MB';

-- Unit n of each tenant, of part 1 or 2 of a conversation; 43 a day, some 1,300 a month, of which 1,000 are included.
CREATE UNLOGGED TABLE unit AS
SELECT 'tenant-' || t AS tenant, n AS charge_id, md5(t || '/' || (n + 1) / 2)::uuid::text AS conversation, 2 - n % 2 AS part,
    at, date_trunc('month', at, 'UTC') AS period_start, n % 100 = 0 AS is_reversed
FROM generate_series(1, $parts) AS n, generate_series(1, $tenants) AS t,
    LATERAL (SELECT timestamptz '2026-01-01 00:00+00' + n * interval '2000 seconds' + t * interval '1 second' AS at) AS o;

INSERT INTO talkmeter.subscription (tenant, subscription_id, since, plan, timezone, anchor_day, subscribed_at, last_charge_id)
SELECT 'tenant-' || t, 1, '-infinity'::timestamptz, 'agent_red/starter', 'UTC', 1, '2026-01-01'::timestamptz, 0
FROM generate_series(1, $tenants) AS t
UNION ALL
SELECT 'tenant-' || t, 2, '2026-02-01 00:00+00', 'agent_red/starter', 'UTC', 1, '2026-02-01 00:00+00', (31 * 86400 - t - 1) / 2000
FROM generate_series(10, $tenants, 10) AS t;

-- Two packs each, bought in January and in March.
SELECT talkmeter.define_pack('{"name": "200", "size": 200, "price": 9, "currency": "USD", "valid_for": "50 days"}');
INSERT INTO talkmeter.pack (tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at, billed_at)
SELECT 'tenant-' || t, k, '200', 200, 200, 9, 'USD', at, at + interval '1200 hours', at
FROM generate_series(1, $tenants) AS t, generate_series(1, 2) AS k,
    LATERAL (SELECT timestamptz '2026-01-02 00:00+00' + (k - 1) * interval '60 days' AS at) AS o;

INSERT INTO talkmeter.conversation (tenant, conversation, highest_part, last_event)
SELECT tenant, conversation, max(part), ''::bytea FROM unit GROUP BY tenant, conversation;

INSERT INTO talkmeter.part (tenant, conversation, part, source_id, first_event, last_event, policy, policy_version,
    started_at, first_ai_reply_at, last_activity_at, ended_at, end_reason, event_count, message_count, turn_count, ai_replies,
    staff_replies, customer_waits, excluded, error_before_reply, charged_at, not_billable_because, timed)
SELECT tenant, conversation, part, 1, timestamptz_send(at), timestamptz_send(at + interval '4 minutes'), 'agent_red', 1, at, at,
    at + interval '4 minutes', at + interval '5 minutes', 'close', 6, 5, 2, 2, 0, false, is_reversed, false,
    CASE WHEN NOT is_reversed THEN at END, CASE WHEN is_reversed THEN 'excluded' END, false
FROM unit ORDER BY at;

-- The first 1,000 of a month are included, a pack pays the next 200 of January and March.
CREATE UNLOGGED TABLE drawn AS
SELECT u.*, CASE WHEN place <= 1000 THEN 'included' WHEN is_paid THEN 'pack' ELSE 'overage' END AS tier,
    CASE WHEN is_paid THEN (extract(month FROM period_start) + 1) / 2 END AS pack_id
FROM (SELECT *, row_number() OVER (PARTITION BY tenant, period_start ORDER BY charge_id) AS place FROM unit) AS u,
    LATERAL (SELECT place BETWEEN 1001 AND 1200 AND extract(month FROM period_start) IN (1, 3) AS is_paid) AS o;

INSERT INTO talkmeter.charge (tenant, charge_id, conversation, part, charged_at, period_start, period_end,
    posted_period_start, posted_period_end, tier, pack_id, amount, currency, plan, policy, policy_version, reverses, reason,
    posted_at)
SELECT tenant, charge_id, conversation, part, at, period_start, period_end, period_start, period_end, tier, pack_id, amount,
    'USD', 'agent_red/starter', 'agent_red', 1, reverses, CASE WHEN reverses IS NOT NULL THEN 'refold' END, posted_at
FROM (
    SELECT tenant, charge_id, conversation, part, at, period_start, tier, pack_id, NULL::bigint AS reverses,
        CASE WHEN tier = 'overage' THEN 0.04 ELSE 0 END AS amount, at + interval '1 second' AS posted_at
    FROM drawn
    UNION ALL
    SELECT tenant, $parts + charge_id / 100, conversation, part, at, period_start, tier, pack_id, charge_id,
        CASE WHEN tier = 'overage' THEN -0.04 ELSE 0 END, at + interval '10 seconds'
    FROM drawn WHERE is_reversed
) AS c,
    LATERAL (SELECT (period_start AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC' AS period_end) AS o
ORDER BY posted_at;

INSERT INTO talkmeter.period (tenant, period_start, period_end, included_used, pack_used, overage_units, overage_amount)
SELECT tenant, period_start, period_end, sum(units) FILTER (WHERE tier = 'included'),
    COALESCE(sum(units) FILTER (WHERE tier = 'pack'), 0), COALESCE(sum(units) FILTER (WHERE tier = 'overage'), 0), sum(amount)
FROM talkmeter.charge, LATERAL (SELECT CASE WHEN reverses IS NULL THEN 1 ELSE -1 END AS units) AS o
GROUP BY tenant, period_start, period_end;
UPDATE talkmeter.pack AS k SET remaining = size - units
FROM (SELECT tenant, pack_id, sum(CASE WHEN reverses IS NULL THEN 1 ELSE -1 END) AS units FROM talkmeter.charge GROUP BY 1, 2) AS c
WHERE c.tenant = k.tenant AND c.pack_id = k.pack_id;
INSERT INTO talkmeter.day_units (tenant, day, units)
SELECT tenant, (charged_at AT TIME ZONE 'UTC')::date, sum(CASE WHEN reverses IS NULL THEN 1 ELSE -1 END)
FROM talkmeter.charge GROUP BY 1, 2;
INSERT INTO talkmeter.account (tenant, last_charge_id, last_pack_id, last_subscription_id, first_day)
SELECT tenant, max(charge_id), 2, (SELECT count(*) FROM talkmeter.subscription AS s WHERE s.tenant = c.tenant),
    min((charged_at AT TIME ZONE 'UTC')::date)
FROM talkmeter.charge AS c GROUP BY tenant;
INSERT INTO talkmeter.statement_line (tenant, period_start, period_end, line, kind, of_period_start, description, quantity,
    unit_price, amount, currency)
SELECT p.tenant, p.period_start, p.period_end, l.*
FROM talkmeter.period AS p, talkmeter.statement_lines(p.tenant, p.period_start, p.period_end) AS l
WHERE p.period_start < '2026-03-01';
UPDATE talkmeter.period SET finalized_at = '2026-04-30', finalized_by = 'bench' WHERE period_start < '2026-03-01';

DROP TABLE unit, drawn;
VACUUM ANALYZE;
CHECKPOINT;
SQL
}

# Prints the milliseconds of a statement that must return what is expected.
timed() {
    local start end found
    start=$(date +%s%N)
    found=$(sql -c "$1")
    end=$(date +%s%N)
    if [ -n "${2+wanted}" ] && [ "$found" != "$2" ]; then
        printf 'verify() of a sound state says:\n%s\n' "$(head -n 20 <<<"$found")" >&2
        return 1
    fi
    echo "$(((end - start) / 1000000))"
}

median() { sort -n "$TALKMETER_DIR/$1" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

prepare
for ((round = 1; round <= rounds; round++)); do
    timed 'SELECT count(*), sum(amount) FROM talkmeter.charge' >>"$TALKMETER_DIR/sum"
    timed 'SELECT * FROM talkmeter.verify()' '' >>"$TALKMETER_DIR/verify"
done
awk -v rows="$(sql -c 'SELECT count(*) FROM talkmeter.charge')" -v all="$(tr '\n' ' ' <"$TALKMETER_DIR/verify")" \
    -v verify="$(median verify)" -v sum="$(median sum)" 'BEGIN {
    printf "verify() of %d charges: %.1f s (ms of each round: %s); to count and sum them takes %.2f s, ratio %.0f\n",
        rows, verify / 1000, all, sum / 1000, verify / sum }'
