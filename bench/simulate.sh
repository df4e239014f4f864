#!/usr/bin/env bash
# Is it cheaper to ask what another policy would have charged than to count by hand?
#
# simulate() of a million messages against the query that a competent analyst writes for the same definition: sessions with
# 30 minutes of silence between them, charged at their first answer, per tenant and month.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-3}
rows=${ROWS:-1000000}

query="
    WITH gaps AS (
        SELECT tenant_id, conversation_id, id, created_at, sender,
            created_at - lag(created_at) OVER own > interval '30 minutes' AS is_new
        FROM message_talkmeter
        WINDOW own AS (PARTITION BY tenant_id, conversation_id ORDER BY created_at, id)
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE is_new) OVER (PARTITION BY tenant_id, conversation_id ORDER BY created_at, id) AS session
        FROM gaps
    ), charged AS (
        SELECT tenant_id, min(created_at) FILTER (WHERE sender = 'bot') AS charged_at
        FROM numbered
        GROUP BY tenant_id, conversation_id, session
        HAVING bool_or(sender = 'user') AND bool_or(sender = 'bot')
    ), monthly AS (
        SELECT tenant_id, date_trunc('month', charged_at, 'UTC') AS month, count(*) AS units
        FROM charged
        GROUP BY 1, 2
    )
    SELECT sum(units) FROM monthly"
simulation="SELECT sum(units) FROM talkmeter.simulate('agent_red', NULL, '2025-12-31', '2026-02-02')"

fresh_database simulate true
write_rows "$rows" 20 "$TALKMETER_DIR/rows"
sql -d simulate -c "COPY message_talkmeter FROM '$TALKMETER_DIR/rows'" -c 'VACUUM ANALYZE' -c CHECKPOINT
rm -f "$TALKMETER_DIR/rows"
assert_metered simulate

# Adds CPU and wall time, in milliseconds, of a statement to a file.
measure() {
    local before start end
    before=$(server_cpu)
    start=$(milliseconds)
    sql -d simulate -c "$2" >"$TALKMETER_DIR/simulate.answer.$1"
    end=$(milliseconds)
    say "$(($(server_cpu) - before)) $((end - start))" >>"$TALKMETER_DIR/simulate.$1"
    progress "simulate, $1: $(tail -n 1 "$TALKMETER_DIR/simulate.$1")"
}

for ((round = 1; round <= rounds; round++)); do
    measure query "$query"
    measure simulation "$simulation"
    cmp "$TALKMETER_DIR"/simulate.answer.{query,simulation} >&2 || die "the two count differently."
done
cpu() { median <"$TALKMETER_DIR/simulate.$1"; }
wall() { awk '{ print $2 }' "$TALKMETER_DIR/simulate.$1" | median; }
row() {
    say "| $2 | $(calculate %.2f "$(cpu "$1") / 1000") | $(calculate %.2f "$(cpu "$1") / $(cpu query)") |\
 $(calculate %.2f "$(wall "$1") / 1000") | $(calculate %.2f "$(wall "$1") / $(wall query)") |"
}
say "### simulate" "" "Of $(grouped "$rows") messages in 20-message conversations, with the advised index, caches warm, default work_mem." \
    "Both count $(grouped "$(cat "$TALKMETER_DIR/simulate.answer.query")") units. $rounds interleaved rounds, medians." "" \
    "| | CPU, s | ratio | wall, s | ratio |" "|---|--:|--:|--:|--:|"
row query "query with window functions"
row simulation "**talkmeter.simulate**"
