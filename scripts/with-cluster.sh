#!/usr/bin/env bash
# How do I run a command against a fresh, private PostgreSQL with talkmeter, and leave nothing behind?
#
#   scripts/with-cluster.sh [-c name=value]... -- COMMAND...
#
# COMMAND runs as you, finds the server through PGHOST, PGPORT, PGUSER and PGDATABASE, and gets
#   TALKMETER_DIR     the directory of it all (data/, log, tree/)
#   TALKMETER_BIN     psql, pg_ctl, pg_dump and so on of the private server
#   TALKMETER_RUN_AS  the user the server runs as, empty if it is you
# Its exit code is kept. `-- bash` gives a shell to play in. KEEP=1 keeps the directory for a look at it; TALKMETER_TMP
# is where to make it (default /tmp).
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

usage() { die "usage: scripts/with-cluster.sh [-c name=value]... -- COMMAND..."; }

settings=()
while [ "${1:-}" = -c ]; do
    [[ ${2:-} == *=* ]] || usage
    settings+=("$2")
    shift 2
done
if [ "${1:-}" != -- ] || [ $# -lt 2 ]; then usage; fi
shift

TALKMETER_DIR="" # set by cluster_create
child=""         # COMMAND, while it runs
code=0           # COMMAND's, once it has ended

# shellcheck disable=SC2317 # clean_up calls it
kill_with_children() {
    local children each
    read -ra children <"/proc/$1/task/$1/children"
    for each in "${children[@]}"; do kill_with_children "$each"; done
    kill "$1"
}

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    local exit_code=$?
    trap '' INT TERM HUP
    set +e
    [ -n "$TALKMETER_DIR" ] || exit "$exit_code"
    # Still there after a signal to this script alone.
    [ -z "$child" ] || kill_with_children "$child" 2>/dev/null
    cluster_stop
    if [ "$code" != 0 ]; then
        complain "the command failed with exit code $code; the end of the server's log:"
        tail -n 40 "$TALKMETER_DIR/log" >&2
    fi
    if [ "${KEEP:-}" = 1 ]; then
        complain "kept $TALKMETER_DIR (the server is stopped; its log is $TALKMETER_DIR/log). Remove it with rm -r."
    else
        cluster_destroy
    fi
    exit "$exit_code"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

cluster_create
cluster_start "${settings[@]}"
cluster_environment

# In the background, because bash answers a signal at once only while it waits; with a terminal's stdin and Ctrl-C all the same.
(trap - INT && exec "$@") <&0 &
child=$!
wait "$child" || code=$?
child=""
exit "$code"
