#!/usr/bin/env bash
# How many bytes on disk does a metered conversation take?
#
# After a COPY of 250,000 messages and a VACUUM: the tables with a row for each, divided by the number of conversations.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

messages=250000

# Prints relation, heap, indexes: bytes per conversation.
sizes() {
    sql -d size -F ' ' -c "
        SELECT relname, round(pg_table_size(oid)::numeric / $1), round(pg_indexes_size(oid)::numeric / $1)
        FROM pg_class
        WHERE relkind = 'r' AND (relnamespace = 'talkmeter'::regnamespace AND reltuples >= $1 / 2
            OR oid = 'message_talkmeter'::regclass)
        ORDER BY relnamespace <> 'talkmeter'::regnamespace, 2 DESC"
}

say "### Bytes on disk" "" "Per conversation with one part and one charge, after a COPY. The table of messages has 185-byte bodies and the advised" \
    "index; it is no part of the sum." "" "| messages per conversation | table | heap | indexes | both | per message |" \
    "|--:|---|--:|--:|--:|--:|"
for per in 20 5; do
    fresh_database size true
    write_rows "$messages" "$per" "$TALKMETER_DIR/rows"
    sql -d size -c "COPY message_talkmeter FROM '$TALKMETER_DIR/rows'" -c 'VACUUM ANALYZE'
    rm -f "$TALKMETER_DIR/rows"
    assert_metered size
    sizes $((messages / per)) | awk -v per="$per" '
        function row(name, heap, indexes) {
            printf "| %s | %s | %d | %d | %d | %.0f |\n", title, name, heap, indexes, heap + indexes, (heap + indexes) / per
            title = ""
        }
        BEGIN { title = per }
        $1 != "message_talkmeter" { row($1, $2, $3); heap += $2; indexes += $3; next }
        { row("**all of talkmeter**", heap, indexes); row("(messages)", $2, $3) }'
done
