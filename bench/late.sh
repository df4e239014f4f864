#!/usr/bin/env bash
# What does a message cost that comes late, against one in order?
#
# One client inserts single messages into a table of a million rows that has the index that docs/start.md asks for: conversations
# of 20 messages, in two parts with two hours of silence between them. A late message lies in the middle of the first part,
# which counts it; a late note lies in the silence and changes nothing. Either makes its conversation be folded again. The
# same in order into a table that is not metered shows what of it is the insert itself. Commits do not wait for the disk:
# each would wait as long, and the ratios be smaller.
#
# The kinds are interleaved transaction by transaction, medians of all rounds compared.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-3}
conversations=$((${ROWS:-1000000} / 20))
kinds=(bare in_order late note)

prepare() {
    fresh_database late true
    sql -d late <<SQL
-- In time order: 1,000 conversations at a time over 200 tenants, a message of each every two minutes.
INSERT INTO message_talkmeter (tenant_id, conversation_id, created_at, sender, body)
SELECT 'tenant-' || slot % 200, 'conversation-' || round * 1000 + slot,
    timestamptz '2026-01-01 00:00+00' + round * interval '3 hours' + n * interval '2 minutes'
        + CASE WHEN n < 12 THEN interval '0' ELSE interval '2 hours' END + slot * interval '1 millisecond',
    (ARRAY['user', 'bot'])[1 + n % 2], '$body'
FROM generate_series(0, $conversations / 1000 - 1) AS round, generate_series(0, 19) AS n, generate_series(0, 999) AS slot
ORDER BY round, n, slot;
INSERT INTO message_bare SELECT * FROM message_talkmeter ORDER BY id;
DO 'BEGIN PERFORM setval(''message_bare_id_seq'', 100000000); END';
VACUUM ANALYZE;
CHECKPOINT;
SQL
    write_script bare message_bare user 159
    write_script in_order message_talkmeter user 159
    write_script late message_talkmeter user 11
    write_script note message_talkmeter note 90
}

# A script that inserts a message so many minutes after the beginning of its conversation, each a microsecond later than
# the last.
write_script() {
    cat >"$TALKMETER_DIR/late_$1.sql" <<SQL
\set n :n + 1
\set conversation random(0, $conversations - 1)
\set tenant :conversation % 1000 % 200
\set minute :conversation / 1000 * 180 + $4
INSERT INTO $2 (tenant_id, conversation_id, created_at, sender, body)
VALUES ('tenant-' || :tenant, 'conversation-' || :conversation,
    timestamptz '2026-01-01 00:00:01+00' + :minute * interval '1 minute' + :n * interval '1 microsecond', '$3', '$body');
SQL
}

# Adds the microseconds of each transaction to a file of its kind.
run() {
    local log=$TALKMETER_DIR/latencies kind scripts=()
    for kind in "${kinds[@]}"; do scripts+=(-f "$TALKMETER_DIR/late_$kind.sql"); done
    PGOPTIONS='-c synchronous_commit=off' "$TALKMETER_BIN/pgbench" -n -M prepared -c 1 -T $((2 * seconds)) -D n="$1" \
        "${scripts[@]}" -l --log-prefix="$log" late >"$TALKMETER_DIR/pgbench.out" 2>"$TALKMETER_DIR/pgbench.err" ||
        die "pgbench failed:" "$(cat "$TALKMETER_DIR/pgbench.err")"
    for kind in "${!kinds[@]}"; do
        awk -v kind="$kind" '$4 == kind { print $3 }' "$log".* >>"$TALKMETER_DIR/late.${kinds[kind]}"
    done
    rm "$log".*
}

prepare
rows=$(sql -d late -c 'SELECT sum(message_count) FROM talkmeter.part')
for ((round = 0; round < rounds; round++)); do
    run "$((round * 10000000))"
    progress "late messages: round $((round + 1))"
done
assert_metered late
counted=$((rows + $(cat "$TALKMETER_DIR/late.in_order" "$TALKMETER_DIR/late.late" | wc -l)))
[ "$(sql -d late -c 'SELECT sum(message_count) FROM talkmeter.part')" = "$counted" ] || die "a late message was not counted once."

say "### Late messages" "" "Single rows into a table of $(grouped "$rows"), one client, asynchronous, the advised index." \
    "Medians of transactions, which are interleaved. The last line is computed from those above it." "" "| | µs | ratio |" "|---|--:|--:|"
in_order=$(median <"$TALKMETER_DIR/late.in_order")
late=$(median <"$TALKMETER_DIR/late.late")
row() { say "| $1 | $(calculate %.0f "$2") | $(calculate %.2f "($2) / $in_order") |"; }
row "not metered, in order" "$(median <"$TALKMETER_DIR/late.bare")"
row "**talkmeter**, in order" "$in_order"
row "talkmeter, late: the part counts it" "$late"
row "talkmeter, late: a note that changes nothing" "$(median <"$TALKMETER_DIR/late.note")"
row "talkmeter, one in a hundred late" "(99 * $in_order + $late) / 100"
