#!/usr/bin/env bash
# Does an insert cost more when there are many messages already?
#
# Instructions per insert, as in instructions.sh, into tables of 10,000 and of 1,000,000 messages (LONG=1: 10,000,000), of 20 in
# each conversation, metered as they came.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

many=${ROWS:-1000000}
[ -z "$long" ] || many=10000000

say "### An insert among many" "" "Instructions per insert, as above, when the table holds that many messages; the advised index." "" \
    "| | 10,000 messages | $(grouped "$many") messages | ratio |" "|---|--:|--:|--:|"

for rows in 10000 "$many"; do
    fresh_database "grown_$rows" true
    write_rows "$rows" 20 "$TALKMETER_DIR/rows"
    for peer in bare talkmeter; do
        sql -d "grown_$rows" -c "COPY message_$peer FROM '$TALKMETER_DIR/rows'" -c "ANALYZE message_$peer" \
            -c "SELECT setval(pg_get_serial_sequence('message_$peer', 'id'), $rows)" >/dev/null
    done
    rm -f "$TALKMETER_DIR/rows"
    assert_metered "grown_$rows"
done
sql -c CHECKPOINT
server_stop
declare -A found=()
for peer in bare talkmeter; do
    for rows in 10000 "$many"; do
        found[$peer$rows]=$(instructions_per_insert "$peer" "grown_$rows")
        progress "grown, $rows rows, $peer: ${found[$peer$rows]}"
    done
done
server_start
for rows in 10000 "$many"; do
    found[over$rows]=$((${found[talkmeter$rows]} - ${found[bare$rows]}))
    sql -c "DROP DATABASE grown_$rows"
done
row() {
    say "| $2 | $(grouped "${found[${1}10000]}") | $(grouped "${found[$1$many]}") |\
 $(calculate %.2f "${found[$1$many]} / ${found[${1}10000]}") |"
}
row bare "not metered"
row talkmeter "**talkmeter**"
row over "talkmeter over bare"
