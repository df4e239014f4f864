#!/usr/bin/env bash
# What does a message cost that comes late, against one in order?
#
# One client inserts single messages into a table of a million rows that has the index that README asks for: conversations
# of 20 messages, in two parts with two hours of silence between them. A late message lies in the middle of the first part,
# which counts it; a late note lies in the silence and changes nothing. Either makes its conversation be folded again. The
# same in order into a table that is not metered shows what of it is the insert itself. Commits do not wait for the disk:
# each would wait as long, and the ratios be smaller.
#
# Runs inside scripts/with-cluster.sh. The kinds are interleaved transaction by transaction, medians of all rounds compared.
set -euo pipefail

seconds=${SECONDS_EACH:-10}
rounds=${ROUNDS:-3}
conversations=50000
kinds=(bare in_order late note)

sql() { "$TALKMETER_BIN/psql" -X -q -At -v ON_ERROR_STOP=1 -d late "$@"; }

prepare() {
    "$TALKMETER_BIN/psql" -X -q -c 'CREATE DATABASE late'
    sql <<SQL
CREATE EXTENSION talkmeter;
CREATE TABLE bare (id bigserial PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz, sender text, body text);
CREATE INDEX ON bare (tenant_id, conversation_id, created_at);
CREATE TABLE metered (LIKE bare INCLUDING ALL);
SELECT FROM talkmeter.attach('metered', 'agent_red', default_plan => 'agent_red/starter', mapping => '{
    "kinds": [{"when": {"sender": "user"}, "kind": "customer_message"}, {"when": {"sender": "bot"}, "kind": "ai_reply"},
              {"when": {"sender": "note"}, "kind": "note"}]}');
-- In time order: 1,000 conversations at a time over 200 tenants, a message of each every two minutes.
INSERT INTO metered (tenant_id, conversation_id, created_at, sender, body)
SELECT 'tenant-' || slot % 200, 'conversation-' || round * 1000 + slot,
    timestamptz '2026-01-01 00:00+00' + round * interval '3 hours' + n * interval '2 minutes'
        + CASE WHEN n < 12 THEN interval '0' ELSE interval '2 hours' END + slot * interval '1 millisecond',
    (ARRAY['user', 'bot'])[1 + n % 2], repeat('what the customer wrote, or what was answered. ', 4)
FROM generate_series(0, $conversations / 1000 - 1) AS round, generate_series(0, 19) AS n, generate_series(0, 999) AS slot
ORDER BY round, n, slot;
INSERT INTO bare SELECT * FROM metered ORDER BY id;
DO 'BEGIN PERFORM setval(''bare_id_seq'', 100000000); END';
VACUUM ANALYZE;
CHECKPOINT;
SQL
    message bare bare user 159
    message in_order metered user 159
    message late metered user 11
    message note metered note 90
}

# A script that inserts a message so many minutes after the beginning of its conversation, each a microsecond later than
# the last.
message() {
    cat >"$TALKMETER_DIR/$1.sql" <<SQL
\set n :n + 1
\set conversation random(0, $conversations - 1)
\set tenant :conversation % 1000 % 200
\set minute :conversation / 1000 * 180 + $4
INSERT INTO $2 (tenant_id, conversation_id, created_at, sender, body)
VALUES ('tenant-' || :tenant, 'conversation-' || :conversation,
    timestamptz '2026-01-01 00:00:01+00' + :minute * interval '1 minute' + :n * interval '1 microsecond', '$3', 'a message');
SQL
}

# Adds the microseconds of each transaction to a file of its kind.
run() {
    local log=$TALKMETER_DIR/latencies kind scripts=()
    for kind in "${kinds[@]}"; do scripts+=(-f "$TALKMETER_DIR/$kind.sql"); done
    PGOPTIONS='-c synchronous_commit=off' "$TALKMETER_BIN/pgbench" -n -M prepared -c 1 -T "$seconds" -D n="$1" \
        "${scripts[@]}" -l --log-prefix="$log" late >"$TALKMETER_DIR/pgbench.out" 2>&1 ||
        { cat "$TALKMETER_DIR/pgbench.out" >&2; return 1; }
    for kind in "${!kinds[@]}"; do
        awk -v kind="$kind" '$4 == kind { print $3 }' "$log".* >>"$TALKMETER_DIR/${kinds[kind]}"
    done
    rm "$log".*
}

median() { sort -n "$TALKMETER_DIR/$1" | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

prepare
rows=$(sql -c 'SELECT sum(message_count) FROM talkmeter.part')
for ((round = 0; round < rounds; round++)); do run "$((round * 10000000))"; done
awk -v rows="$rows" -v bare="$(median bare)" -v in_order="$(median in_order)" -v late="$(median late)" -v note="$(median note)" 'BEGIN {
    printf "single-row inserts into %d rows: not metered %d us, in order %d us, late %d us, ratio %.2f; late note %d us, ratio %.2f\n",
        rows, bare, in_order, late, late / in_order, note, note / in_order }'
counted=$((rows + $(cat "$TALKMETER_DIR/in_order" "$TALKMETER_DIR/late" | wc -l)))
sql -c "SELECT 'each counted once: ' || (sum(message_count) = $counted) FROM talkmeter.part" \
    -c "SELECT 'quarantined: ' || count(*) FROM talkmeter.quarantined"
