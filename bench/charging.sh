#!/usr/bin/env bash
# What does metering cost small transactions, and what does one busy tenant cost?
#
# 8 clients insert single messages, one in eight of which charges a unit: into a table that is not metered, into one that is
# with 200 tenants, and into one with a single tenant. A tenant's lock spans the flush of the commit, so its charging
# commits are bounded by one per flush; the flush time of the disk is printed beside the ratios.
#
# Runs inside scripts/with-cluster.sh, with fsync on. Rounds are interleaved, medians compared.
set -euo pipefail

seconds=${SECONDS_EACH:-10}
rounds=${ROUNDS:-3}

sql() { "$TALKMETER_BIN/psql" -X -q -At -v ON_ERROR_STOP=1 -d charging "$@"; }

prepare() {
    "$TALKMETER_BIN/psql" -X -q -c 'CREATE DATABASE charging'
    sql <<'SQL'
CREATE EXTENSION talkmeter;
CREATE TABLE bare (id bigserial PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz, sender text, body text);
CREATE TABLE metered (LIKE bare INCLUDING ALL);
SELECT * FROM talkmeter.attach('metered', 'agent_red', default_plan => 'agent_red/starter', mapping => '{
    "kinds": [{"when": {"sender": "user"}, "kind": "customer_message"}, {"when": {"sender": "bot"}, "kind": "ai_reply"}]}');
SQL
    # A conversation of eight messages, then the next one.
    cat >"$TALKMETER_DIR/message.sql" <<'SQL'
\set n :n + 1
\set conversation :round * 100000000 + :client_id * 1000000 + :n / 8
\set tenant (:client_id * 25 + :n / 8) % :tenants
INSERT INTO :table (tenant_id, conversation_id, created_at, sender, body)
VALUES ('tenant-' || :tenant, 'conversation-' || :conversation, clock_timestamp(), CASE WHEN :n % 2 = 0 THEN 'user' ELSE 'bot' END, 'a message');
SQL
}

# Prints transactions per second.
run() {
    "$TALKMETER_BIN/pgbench" -n -c 8 -j 2 -T "$seconds" -D n=7 -D round="$1" -D table="$2" -D tenants="$3" \
        -f "$TALKMETER_DIR/message.sql" charging 2>"$TALKMETER_DIR/pgbench.err" |
        awk '/^tps/ { print int($3) } /failed transactions: [1-9]/ { exit 1 }'
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

# The disk's own pace: microseconds to make one 8 kB write durable.
flush_time() {
    local runner=()
    if [ -n "${TALKMETER_RUN_AS:-}" ]; then runner=(runuser -u "$TALKMETER_RUN_AS" --); fi
    (cd / && "${runner[@]}" "$TALKMETER_BIN/pg_test_fsync" -s 1 -f "$TALKMETER_DIR/data/flush") 2>/dev/null |
        awk '/fdatasync/ && /usecs/ { print $(NF - 1); exit }'
}

prepare
for ((round = 1; round <= rounds; round++)); do
    run "$round" bare 200 >>"$TALKMETER_DIR/bare"
    run "$round" metered 200 >>"$TALKMETER_DIR/many"
    run "$((round + rounds))" metered 1 >>"$TALKMETER_DIR/one"
done
bare=$(median <"$TALKMETER_DIR/bare") many=$(median <"$TALKMETER_DIR/many") one=$(median <"$TALKMETER_DIR/one")
awk -v bare="$bare" -v many="$many" -v one="$one" -v flush="$(flush_time)" 'BEGIN {
    printf "single-row inserts, 8 clients, one in eight charges: not metered %d/s; 200 tenants %d/s, ratio %.2f; one tenant %d/s, " \
        "%.2f of 200 tenants; a flush takes %s us\n",
        bare, many, many / bare, one, one / many, flush }'
sql -c "SELECT 'quarantined: ' || count(*) FROM talkmeter.quarantined" -c "SELECT 'charges without gap: ' || bool_and(n = last)
    FROM (SELECT count(*) AS n, max(charge_id) AS last FROM talkmeter.charge GROUP BY tenant) AS t"
