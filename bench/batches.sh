#!/usr/bin/env bash
# What does metering cost an application that inserts a thousand rows per transaction?
#
# 50 new conversations of 20 messages in one INSERT, one client, asynchronous commit.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-3}

say "### Batches of 1,000 rows" "" "50 new conversations of 20 messages in one INSERT, one client, asynchronous; the advised index." \
    "$rounds interleaved rounds of $seconds s, medians." "" "| | ms | ratio | CPU, ms | ratio |" "|---|--:|--:|--:|--:|"

fresh_database batches true
for peer in "${peers[@]}"; do
    cat >"$TALKMETER_DIR/batch_$peer.sql" <<SQL
\set n :n + 1
INSERT INTO message_$peer (tenant_id, conversation_id, created_at, sender, body)
SELECT 'tenant-' || c % 10 * 20 + :n % 20, 'conversation-' || :round * 10000000 + :n * 50 + c,
    timestamptz '2026-01-01 00:00+00' + :n * interval '1 minute' + m * interval '1 second',
    CASE m % 2 WHEN 0 THEN 'user' ELSE 'bot' END, '$body'
FROM generate_series(0, 19) AS m, generate_series(0, 49) AS c;
SQL
done
for ((round = 1; round <= rounds; round++)); do
    for peer in "${peers[@]}"; do
        runs=$((runs + 1))
        PGOPTIONS="-c synchronous_commit=off" run_script batches "batch_$peer" 1 200 >>"$TALKMETER_DIR/batches.$peer"
    done
    progress "batches: round $round"
done
assert_metered batches
for peer in "${peers[@]}"; do
    time=$(calculate %.3f "1000 / $(median <"$TALKMETER_DIR/batches.$peer")")
    cpu=$(awk '{ print $2 / 1000 }' "$TALKMETER_DIR/batches.$peer" | median)
    [ "$peer" != bare ] || { bare_time=$time && bare_cpu=$cpu; }
    say "| $(what_peers_are "$peer") | $(calculate %.1f "$time") | $(calculate %.2f "$time / $bare_time") | $(calculate %.1f "$cpu") |\
 $(calculate %.2f "$cpu / $bare_cpu") |"
done
