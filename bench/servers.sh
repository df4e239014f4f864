#!/usr/bin/env bash
# Does a message cost more where tenants are dealt out over several servers?
#
# One, two and three servers on this machine, each with its share of 200 tenants and 4 clients of its own that send to it alone. They share
# the machine's cores, so the CPU time of a message is what tells, and not how many there are a second.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-3}

compared=(bare talkmeter)
for peer in "${compared[@]}"; do write_message_script "$peer"; done
fresh_database servers true
server_stop
ports=("$PGPORT" $((PGPORT + 1)) $((PGPORT + 2)))
places=(data data2 data3)
for number in 1 2; do
    as_server cp -a "$TALKMETER_DIR/data" "$TALKMETER_DIR/${places[$number]}"
    as_server "$TALKMETER_BIN/pg_ctl" start -D "$TALKMETER_DIR/${places[$number]}" -o "-p ${ports[$number]}" \
        -l "$TALKMETER_DIR/log${places[$number]}" -s -w -t 600
done
server_start
stop_copies() {
    local number
    for number in 1 2; do
        as_server "$TALKMETER_BIN/pg_ctl" stop -D "$TALKMETER_DIR/${places[$number]}" -m immediate -s -w -t 60
    done
}
trap stop_copies EXIT

# Of the first $1 servers together, in milliseconds.
cpu_of() {
    local number sum=0
    for ((number = 0; number < $1; number++)); do sum=$((sum + $(cpu_of_server "${places[$number]}"))); done
    say "$sum"
}

# Adds messages per second and CPU time per message, in microseconds, of so many servers: measure PEER SERVERS
measure() {
    local number before after
    local running=()
    before=$(cpu_of "$2")
    for ((number = 0; number < $2; number++)); do
        PGPORT=${ports[$number]} PGOPTIONS="-c synchronous_commit=off" "$TALKMETER_BIN/pgbench" -n -M prepared -c 4 -j 2 -T "$seconds" \
            -D n=0 -D round="$runs" -D tenants=$((200 / $2)) -f "$TALKMETER_DIR/$1.sql" servers >"$TALKMETER_DIR/servers.out.$number" &
        running+=($!)
    done
    wait "${running[@]}"
    after=$(cpu_of "$2")
    for ((number = 0; number < $2; number++)); do cat "$TALKMETER_DIR/servers.out.$number"; done |
        awk -v cpu=$((after - before)) '/^number of transactions actually/ { n += $NF } /^tps/ { tps += $3 }
            END { printf "%.1f %.1f\n", tps, cpu * 1000 / n }' >>"$TALKMETER_DIR/servers.$1.$2"
}

for ((round = 1; round <= rounds; round++)); do
    for peer in "${compared[@]}"; do
        for servers in 1 2 3; do
            runs=$((runs + 1))
            measure "$peer" "$servers"
        done
    done
    progress "several servers: round $round"
done
assert_metered servers

say "### Several servers" "" "4 clients for each, single rows, asynchronous, the advised index; $rounds interleaved rounds of $seconds s," \
    "medians. All on this machine's cores." "" "| servers | | messages per second | CPU of a message, µs | to one server |" "|--:|---|--:|--:|--:|"
cpu() { awk '{ print $2 }' "$TALKMETER_DIR/servers.$1.$2" | median; }
for servers in 1 2 3; do
    title=$servers
    for peer in "${compared[@]}"; do
        say "| $title | $(what_peers_are "$peer") | $(grouped "$(median <"$TALKMETER_DIR/servers.$peer.$servers")") |\
 $(calculate %.0f "$(cpu "$peer" "$servers")") | $(calculate %.2f "$(cpu "$peer" "$servers") / $(cpu "$peer" 1)") |"
        title=""
    done
done
