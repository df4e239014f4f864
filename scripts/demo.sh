#!/usr/bin/env bash
# How do I try talkmeter on sample data, on a private server that stays until I stop it?
#
#   scripts/demo.sh start|stop|status      (make demo and make demo-stop)
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
cd "$talkmeter_repo"

merchant=ubuntu-2014
page=target/demo.html
record=target/demo # holds the cluster's directory
sample=data/irc_support.csv.gz
mapping=data/irc_support.mapping.json

# Takes up the recorded cluster. Fails if there is none, or only what a reboot left of it.
attach_demo() {
    [ -f "$record" ] && cluster_attach "$(cat "$record")"
}

how_to_connect() {
    say "" "  $("$(find_pg_config)" --bindir)/psql -h $TALKMETER_DIR -p 5432 -U postgres -d demo" "" "Stop and remove it with: make demo-stop"
}

# shellcheck disable=SC2317 # the trap calls it
give_up() {
    trap "" INT TERM HUP
    complain "the demo did not start; nothing of it is left."
    if [ -n "${TALKMETER_DIR:-}" ]; then
        cluster_stop || true
        cluster_destroy || true
    fi
    rm -f "$record"
}

start() {
    local file
    if attach_demo && cluster_is_running; then
        complain "the demo is already running in $TALKMETER_DIR. Connect with:"
        how_to_connect >&2
        exit 1
    fi
    stop >/dev/null # what a reboot may have left
    for file in demo/demo.sql "$sample" data/irc_support.sql "$mapping"; do
        [ -r "$file" ] || die "$file is missing: is this a full copy of the repository?"
    done

    TALKMETER_DIR=""
    trap give_up EXIT
    trap 'exit 130' INT TERM HUP
    say "Starting a private PostgreSQL ..."
    cluster_create
    cluster_start
    cluster_environment
    mkdir -p target
    say "$TALKMETER_DIR" >"$record"

    # The server reads it.
    gzip -dc "$sample" >"$TALKMETER_DIR/irc_support.csv"
    chmod 644 "$TALKMETER_DIR/irc_support.csv"
    "$TALKMETER_BIN/createdb" demo
    "$TALKMETER_BIN/psql" -X -P pager=off -v ON_ERROR_STOP=1 -v data="$TALKMETER_DIR/irc_support.csv" \
        -v mapping="$(cat "$mapping")" -d demo -f demo/demo.sql
    PATH=$TALKMETER_BIN:$PATH PGDATABASE=demo target/talkmeter-report "$merchant" --output "$page" >/dev/null
    trap - EXIT
    say "" "The page of one merchant, $merchant, for a browser:" "" "  $talkmeter_repo/$page" "" "The demo is running. Connect with:"
    how_to_connect
}

stop() {
    if ! attach_demo; then
        say "no demo is running."
    else
        cluster_stop
        cluster_destroy
        say "the demo is stopped and removed."
    fi
    rm -f "$record" "$page"
}

status() {
    if attach_demo && cluster_is_running; then
        say "The demo is running. Connect with:"
        how_to_connect
    else
        say "no demo is running. Start it with: make demo"
    fi
}

case ${1:-} in
start | stop | status) "$1" ;;
*) die "usage: scripts/demo.sh start|stop|status" ;;
esac
