#!/usr/bin/env bash
# What does a year cost, and does the next month cost more than the first?
#
# Twelve months of 20,000 conversations each (LONG=1: 1,000,000; CONVERSATIONS says otherwise) of 200 tenants: a question and an
# answer, an allowance and overage. After each month comes what an operator does: a sweep, VACUUM, and the month before is
# finalized. At the end the whole year is moved aside, and read once more.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
per_month=${CONVERSATIONS:-20000}
[ -z "$long" ] || per_month=${CONVERSATIONS:-1000000}
per_commit=20000
shown=(1 6 12)
results=$TALKMETER_DIR/year

year() { sql -d year "$@"; }

# Prints the milliseconds that a command takes.
timed() {
    local start
    start=$(milliseconds)
    "$@" >/dev/null
    say $(($(milliseconds) - start))
}

wal_since() { sql -c "SELECT pg_current_wal_insert_lsn() - '$1'::pg_lsn"; }

schemas="'talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace"

own_tables() {
    year -c "SELECT c.oid::regclass FROM pg_class AS c WHERE c.relnamespace IN ($schemas) AND c.relkind = 'r' ORDER BY 1"
}

# own_bytes SCHEMAS
own_bytes() {
    year -c "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class AS c WHERE c.relnamespace IN ($1) AND c.relkind = 'r'"
}

# The conversations of month $1, in time order, some to a commit.
write_month() {
    local first
    for ((first = 0; first < per_month; first += per_commit)); do
        say "INSERT INTO message_talkmeter (tenant_id, conversation_id, created_at, sender)
            SELECT 'tenant-' || n % 200, 'conversation-$1-' || n, timestamptz '2025-01-01 00:00+00' + interval '$(($1 - 1)) months'
                + n * (interval '27 days' / $per_month) + m * interval '1 minute', (ARRAY['user', 'bot'])[1 + m]
            FROM generate_series($first, least($first + $per_commit, $per_month) - 1) AS n, generate_series(0, 1) AS m;"
    done | PGOPTIONS="-c synchronous_commit=off" year
}

finalize_month() {
    year -c "SELECT talkmeter.finalize(tenant, period_start) FROM talkmeter.usage_history
        WHERE period_start = timestamptz '2025-01-01 00:00+00' + interval '$(($1 - 1)) months' ORDER BY tenant"
}

vacuum() { own_tables | sed 's/.*/VACUUM (ANALYZE) &;/' | year; }

# A dump without the application's messages.
dump() { "$TALKMETER_BIN/pg_dump" -Fc -Z1 -d year --exclude-table-data='public.*' -f "$results.dump"; }

restore() {
    sql -c 'DROP DATABASE IF EXISTS year_restored' -c 'CREATE DATABASE year_restored'
    "$TALKMETER_BIN/pg_restore" -d year_restored "$results.dump" 2>"$results.restore" ||
        die "pg_restore failed:" "$(head -n 5 "$results.restore")"
}

# note MONTH WHAT VALUE
note() {
    say "$3" >"$results.$2.$1"
    progress "year, month $1, $2: $3"
}

# read_it MONTH
read_it() {
    local start
    start=$(milliseconds)
    [ -z "$(year -c 'SELECT * FROM talkmeter.verify()')" ] || die "verify() finds something."
    note "$1" verify $(($(milliseconds) - start))
    note "$1" usage "$(milliseconds_of year 'SELECT count(*), sum(used) FROM talkmeter.usage_history' 3)"
    note "$1" balance "$(milliseconds_of year "SELECT talkmeter.balance('tenant-7')")"
}

fresh_database year true
year -c "SELECT talkmeter.subscribe('tenant-' || t, 'agent_red/starter', since => '2025-01-01', anchor_day => 1)
    FROM generate_series(0, 199) AS t" >/dev/null
before=0
for ((month = 1; month <= 12; month++)); do
    place=$(sql -c 'SELECT pg_current_wal_insert_lsn()')
    note "$month" insert "$(timed write_month "$month")"
    note "$month" wal "$(wal_since "$place")"
    note "$month" sweep "$(timed year -c 'CALL talkmeter.sweep_batches()')"
    [ "$month" = 1 ] || note "$month" finalize "$(timed finalize_month $((month - 1)))"
    place=$(sql -c 'SELECT pg_current_wal_insert_lsn()')
    note "$month" vacuum "$(timed vacuum)"
    note "$month" vacuum_wal "$(wal_since "$place")"
    now=$(own_bytes "$schemas")
    note "$month" bytes $((now - before))
    before=$now
    if [[ " ${shown[*]} " == *" $month "* ]]; then
        read_it "$month"
        note "$month" dump "$(timed dump)"
        note "$month" dump_bytes "$(stat -c %s "$results.dump")"
    fi
done
assert_metered year
note 12 restore "$(timed restore)"
finalize_month 12 >/dev/null
place=$(sql -c 'SELECT pg_current_wal_insert_lsn()')
note 12 archive "$(timed year -c "CALL talkmeter.archive('2026-01-01')")"
note 12 archive_wal "$(wal_since "$place")"
[ "$(year -c 'SELECT count(*) FROM ONLY talkmeter.charge')" = 0 ] || die "archive() has left charges."
year -c 'VACUUM FULL talkmeter.ended_part' -c 'VACUUM FULL talkmeter.charge'
vacuum
note archived left "$(own_bytes "'talkmeter'::regnamespace")"
read_it archived
sql -c 'DROP DATABASE year_restored' -c 'DROP DATABASE year'

title=""
for month in "${shown[@]}"; do title+=" month $month |"; done
title+=" moved aside |"
say "### A year" "" "Twelve months of $(grouped "$per_month") conversations each, of 200 tenants, a question and an answer in each." "" \
    "| |$title" "|---|--:|--:|--:|--:|"
# row NAME WHAT FORMAT DIVISOR
row() {
    local line="| $1 |" month
    for month in "${shown[@]}" archived; do
        if [ -f "$results.$2.$month" ]; then line+=" $(calculate "$3" "$(cat "$results.$2.$month") / $4") |"; else line+=" |"; fi
    done
    say "$line"
}
row "inserts, s" insert %.1f 1000
row "WAL of the inserts, with that of the messages, MB" wal %.0f 1e6
row "sweep, s" sweep %.1f 1000
row "finalize the month before, 200 tenants, s" finalize %.1f 1000
row "VACUUM of all tables, s" vacuum %.1f 1000
row "WAL of VACUUM, MB" vacuum_wal %.0f 1e6
row "disk that the month added, MB" bytes %.0f 1e6
row "verify, s" verify %.1f 1000
row "usage of all tenants and months, ms" usage %.1f 1
row "balance of a tenant, ms" balance %.1f 1
row "pg_dump without messages, s" dump %.1f 1000
row "its size, MB" dump_bytes %.0f 1e6
row "pg_restore, s" restore %.1f 1000
row "archive of the year, s" archive %.1f 1000
row "its WAL, MB" archive_wal %.0f 1e6
row "disk without the archive, MB" left %.0f 1e6
