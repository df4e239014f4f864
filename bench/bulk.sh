#!/usr/bin/env bash
# What does metering cost a COPY of many rows, in time and in memory?
#
#   make bench            1,000,000 rows; LONG=1 adds 10,000,000
#
# Runs inside scripts/with-cluster.sh. Rounds are interleaved, medians compared.
set -euo pipefail

rounds=${ROUNDS:-3}
file=$TALKMETER_DIR/bulk.csv

sql() { "$TALKMETER_BIN/psql" -X -q -At -v ON_ERROR_STOP=1 "$@"; }

# A stream of messages in time order: 1,000 conversations at a time, 20 messages each, over 200 tenants.
write_rows() {
    sql -c "COPY (
        SELECT i, 'tenant-' || (i % 1000) % 200, 'conversation-' || i / 20000 * 1000 + i % 1000,
            timestamptz '2026-01-01 00:00+00' + i * interval '1 millisecond',
            (ARRAY['user', 'bot'])[1 + i / 1000 % 2], repeat('what the customer wrote, or what was answered. ', 4)
        FROM generate_series(0, $1 - 1) AS i) TO '$file'"
}

fresh_database() {
    sql -c 'SET client_min_messages = warning' -c 'DROP DATABASE IF EXISTS bulk' -c 'CREATE DATABASE bulk'
    sql -d bulk <<'SQL'
CREATE EXTENSION talkmeter;
CREATE TABLE bare (id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz, sender text, body text);
CREATE TABLE metered (LIKE bare INCLUDING ALL);
SELECT * FROM talkmeter.attach('metered', 'agent_red', default_plan => 'agent_red/starter', mapping => '{
    "kinds": [{"when": {"sender": "user"}, "kind": "customer_message"}, {"when": {"sender": "bot"}, "kind": "ai_reply"}]}');
CHECKPOINT;
SQL
}

# Prints milliseconds and the largest private memory, in kB, of the backend that ran the COPY.
timed_copy() {
    local backend client peak=0 now start end
    coproc COPYING { sql -d bulk 2>&1; }
    # shellcheck disable=SC2153 # the shell names it after the coprocess
    client=$COPYING_PID
    echo 'SELECT pg_backend_pid();' >&"${COPYING[1]}"
    read -r backend <&"${COPYING[0]}"
    start=$(date +%s%N)
    echo "COPY $1 FROM '$file'; SELECT 'done'; \\q" >&"${COPYING[1]}"
    while ! read -r -t 0.05 _ <&"${COPYING[0]}"; do
        now=$(awk '/RssAnon/ { print $2 }' "/proc/$backend/status" 2>/dev/null || true)
        if [ "${now:-0}" -gt "$peak" ]; then peak=$now; fi
    done
    end=$(date +%s%N)
    wait "$client" || true
    echo "$(((end - start) / 1000000)) $peak"
}

median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }

measure() {
    local rows=$1 round bare=() metered=() bare_memory=() metered_memory=() time memory
    write_rows "$rows"
    for ((round = 1; round <= rounds; round++)); do
        fresh_database
        read -r time memory < <(timed_copy bare)
        bare+=("$time") bare_memory+=("$memory")
        read -r time memory < <(timed_copy metered)
        metered+=("$time") metered_memory+=("$memory")
    done
    rm -f "$file"
    awk -v rows="$rows" -v bare="$(printf '%s\n' "${bare[@]}" | median)" -v metered="$(printf '%s\n' "${metered[@]}" | median)" \
        -v low="$(printf '%s\n' "${bare_memory[@]}" | median)" -v high="$(printf '%s\n' "${metered_memory[@]}" | median)" \
        'BEGIN { printf "COPY of %d rows: bare %.1f s, metered %.1f s, ratio %.2f; private memory %.0f MB, %.0f MB above the bare one\n",
            rows, bare / 1000, metered / 1000, metered / bare, high / 1024, (high - low) / 1024 }'
}

measure 1000000
if [ -n "${LONG:-}" ]; then rounds=1 measure 10000000; fi
