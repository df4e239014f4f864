#!/usr/bin/env bash
# What does metering cost a COPY of many rows, in CPU, time, WAL and memory?
#
# A million messages in time order, 20 or 5 in each conversation; LONG=1: ten million too. With the index that talkmeter
# advises on all tables, and without. The row trigger is left out: it takes minutes.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

file=$TALKMETER_DIR/rows

say "### COPY" "" "In time order, 200 tenants, 1,000 conversations at a time. CPU is the server's, memory the largest private memory of the" \
    "backend, WAL with full-page images. Medians of interleaved rounds." "" \
    "| rows, messages per conversation, index | | rounds | CPU, s | ratio | wall, s | ratio | WAL, MB | memory, MB |" \
    "|---|---|--:|--:|--:|--:|--:|--:|--:|"

# Prints milliseconds and the largest private memory, in kB, of the backend that copies the file into table $1.
timed_copy() {
    local backend client output peak=0 now start code
    coproc COPYING { sql -d copy; }
    # shellcheck disable=SC2153 # the shell names it after the coprocess
    client=$COPYING_PID
    # A copy: the shell closes its own as soon as psql has ended, read or not.
    exec {output}<&"${COPYING[0]}"
    say 'SELECT pg_backend_pid();' >&"${COPYING[1]}"
    read -r backend <&"$output"
    start=$(milliseconds)
    say "COPY $1 FROM '$file'; SELECT 'done'; \\q" >&"${COPYING[1]}"
    while true; do
        code=0
        read -r -t 0.05 _ <&"$output" || code=$?
        # Beyond 128: nothing has come yet.
        [ "$code" -gt 128 ] || break
        now=$(awk '/RssAnon/ { print $2 }' "/proc/$backend/status" 2>/dev/null || true)
        if [ "${now:-0}" -gt "$peak" ]; then peak=$now; fi
    done
    say "$(($(milliseconds) - start)) $peak"
    exec {output}<&-
    wait "$client" || die "COPY failed."
}

# configuration ROWS PER INDEXED ROUNDS PEER...
configuration() {
    local rows=$1 per=$2 indexed=$3 times=$4 round peer before place wal cpu title bare_cpu bare_time time memory
    local results=$TALKMETER_DIR/copy
    shift 4
    rm -f "$results".*
    for ((round = 1; round <= times; round++)); do
        fresh_database copy "$indexed"
        for peer in "$@"; do
            sql -c CHECKPOINT
            place=$(sql -c 'SELECT pg_current_wal_lsn()')
            before=$(server_cpu)
            timed_copy "message_$peer" >"$results"
            cpu=$(($(server_cpu) - before))
            wal=$(sql -c "SELECT pg_current_wal_lsn() - '$place'::pg_lsn")
            say "$cpu $(cat "$results") $wal" >>"$results.$peer"
            progress "COPY, $rows rows, $per per conversation, index $indexed, $peer: $(tail -n 1 "$results.$peer")"
        done
        assert_metered copy
    done
    title="$(grouped "$rows"), $per, $(index_named "$indexed")"
    for peer in "$@"; do
        cpu=$(median <"$results.$peer")
        time=$(awk '{ print $2 }' "$results.$peer" | median)
        memory=$(awk '{ print $3 }' "$results.$peer" | median)
        wal=$(awk '{ print $4 }' "$results.$peer" | median)
        [ "$peer" != bare ] || { bare_cpu=$cpu && bare_time=$time; }
        say "| $title | $(what_peers_are "$peer") | $times | $(calculate %.1f "$cpu / 1000") | $(calculate %.2f "$cpu / $bare_cpu") |\
 $(calculate %.1f "$time / 1000") | $(calculate %.2f "$time / $bare_time") | $(calculate %.0f "$wal / 1e6") |\
 $(calculate %.0f "$memory / 1024") |"
        title=""
    done
}

measure() {
    local rows=$1 times=$2 per
    for per in 20 5; do
        write_rows "$rows" "$per" "$file"
        configuration "$rows" "$per" true "$times" bare empty floor talkmeter
        configuration "$rows" "$per" false "$times" bare talkmeter
        rm -f "$file"
    done
}

measure "${ROWS:-1000000}" "${rounds:-2}"
[ -z "$long" ] || measure 10000000 1
sql -c 'DROP DATABASE copy'
