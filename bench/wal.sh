#!/usr/bin/env bash
# How much WAL does a metered message write?
#
# 8,000 single-row inserts of one client, counted by pg_waldump without images of full pages: those depend on when the last
# checkpoint was. About one message in nine charges.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

messages=8000

say "### WAL" "" "Per message of a transaction of its own, without full-page images; the tables have the advised index." "" \
    "| | records | bytes | records over bare | bytes over bare |" "|---|--:|--:|--:|--:|"

# Prints records and bytes between two places.
wal_between() {
    as_server "$TALKMETER_BIN/pg_waldump" --stats -p "$TALKMETER_DIR/data/pg_wal" -s "$1" -e "$2" |
        awk '/^Total/ { gsub(/\[[^]]*\]/, ""); print $2, $3 }'
}

fresh_database wal true
sql -c CHECKPOINT
for peer in "${peers[@]}"; do
    write_message_script "$peer"
    runs=$((runs + 1))
    from=$(sql -c "SELECT pg_current_wal_insert_lsn()")
    PGOPTIONS="-c synchronous_commit=off" "$TALKMETER_BIN/pgbench" -n -M prepared -c 1 -t "$messages" \
        -D n=0 -D round="$runs" -D tenants=200 -f "$TALKMETER_DIR/$peer.sql" wal >/dev/null 2>"$TALKMETER_DIR/pgbench.err" ||
        die "pgbench failed:" "$(cat "$TALKMETER_DIR/pgbench.err")"
    to=$(sql -c "SELECT pg_switch_wal()")
    # pg_waldump reads what is on the disk: the commit of this puts all before it there.
    sql -c "SELECT pg_logical_emit_message(true, 'bench', '')" >/dev/null
    read -r records bytes < <(wal_between "$from" "$to")
    [ "$peer" != bare ] || { bare_records=$records && bare_bytes=$bytes; }
    say "| $(what_peers_are "$peer") | $(calculate %.1f "$records / $messages") | $(calculate %.0f "$bytes / $messages") |\
 $(calculate %.1f "($records - $bare_records) / $messages") | $(calculate %.0f "($bytes - $bare_bytes) / $messages") |"
done
assert_metered wal
