#!/usr/bin/env bash
# What does the first insert of a session cost more than the second?
#
# Every session reads the catalogue for its first insert, and whatever meters must get ready too. Sessions that last for one
# insert pay that each time.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
connections=30

say "### First insert of a session" "" "Milliseconds in psql, medians of $connections connections, asynchronous; the advised index." "" \
    "| | first | second | difference | over bare |" "|---|--:|--:|--:|--:|"

fresh_database session true
# The rows that the first insert ever would make are there.
for peer in "${peers[@]}"; do
    for sender in user bot; do
        sql -d session -c "INSERT INTO message_$peer (tenant_id, conversation_id, created_at, sender) VALUES ('t', 'c', now(), '$sender')"
    done
done
for ((connection = 0; connection < connections; connection++)); do
    for peer in "${peers[@]}"; do
        insert="INSERT INTO message_$peer (tenant_id, conversation_id, created_at, sender) VALUES ('t', 'c', clock_timestamp(), 'user');"
        say '\timing on' "$insert" "$insert" | PGOPTIONS="-c synchronous_commit=off" sql -d session |
            sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | paste -s -d ' ' >>"$TALKMETER_DIR/session.$peer"
    done
done
assert_metered session
for peer in "${peers[@]}"; do
    first=$(median <"$TALKMETER_DIR/session.$peer")
    second=$(awk '{ print $2 }' "$TALKMETER_DIR/session.$peer" | median)
    difference=$(awk '{ print $1 - $2 }' "$TALKMETER_DIR/session.$peer" | median)
    [ "$peer" != bare ] || bare=$difference
    say "| $(what_peers_are "$peer") | $(calculate %.2f "$first") | $(calculate %.2f "$second") | $(calculate %.2f "$difference") |\
 $(calculate %.2f "$difference - $bare") |"
done
