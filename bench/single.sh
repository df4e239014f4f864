#!/usr/bin/env bash
# What does metering cost an application that inserts one message per transaction?
#
# Prepared statements; 1, 4 and 8 clients that do not wait for the disk, and 8 that do. Clients share the cores with the
# server, so the ratio of CPU time says more than that of throughput, and on a loaded machine only that counts.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-5}

say "### Single rows" "" "200 tenants, one INSERT per transaction, $rounds interleaved rounds of $seconds s, medians." \
    "CPU is the server's per transaction. \"Asynchronous\" is \`synchronous_commit = off\`." "" \
    "| clients, commit, index | | per second | ratio | to the row trigger | CPU, µs | ratio | over bare, µs |" "|---|---|--:|--:|--:|--:|--:|--:|"

# configuration CLIENTS COMMIT INDEXED [WHERE]
configuration() {
    local clients=$1 commit=$2 indexed=$3 peer round title bare_tps bare_cpu trigger_tps tps cpu results=$TALKMETER_DIR/single
    title="$1, $(commit_named "$commit")${4:-}, $(index_named "$indexed")"
    rm -f "$results".*
    fresh_database single "$indexed"
    # Not counted: who comes first in a new database touches memory and files for the others too.
    for peer in "${peers[@]}"; do
        runs=$((runs + 1))
        seconds=1 PGOPTIONS="-c synchronous_commit=off" run_script single "$peer" "$clients" 200 >/dev/null
    done
    for ((round = 1; round <= rounds; round++)); do
        for peer in "${peers[@]}"; do
            runs=$((runs + 1))
            PGOPTIONS="-c synchronous_commit=$commit" run_script single "$peer" "$clients" 200 >>"$results.$peer"
        done
        progress "single rows, $title: round $round"
    done
    assert_metered single
    bare_tps=$(median <"$results.bare") trigger_tps=$(median <"$results.plpgsql")
    bare_cpu=$(awk '{ print $2 }' "$results.bare" | median)
    for peer in "${peers[@]}"; do
        tps=$(median <"$results.$peer")
        cpu=$(awk '{ print $2 }' "$results.$peer" | median)
        say "| $title | $(what_peers_are "$peer") | $(grouped "$tps") | $(calculate %.2f "$tps / $bare_tps") |\
 $(calculate %.2f "$tps / $trigger_tps") | $(calculate %.0f "$cpu") | $(calculate %.2f "$cpu / $bare_cpu") | $(calculate %.0f "$cpu - $bare_cpu") |"
        title=""
    done
}

for peer in "${peers[@]}"; do write_message_script "$peer"; done
configuration 1 off true
configuration 4 off true
configuration 8 off true
configuration 8 on true
configuration 8 off false
server_stop
server_start_on_slow_disk
configuration 8 on true " on a slow disk"
server_stop
server_start
say "" "A flush of the disk takes $(flush_time) µs, and a millisecond more on the slow disk, which is this one behind \`bench/slow_flush.c\`."
