#!/usr/bin/env bash
# Does everything work? Runs all tests, cheapest first, and counts at the end what passed.
#
# Wants a build (make test makes it first). LONG=1: tests with chance or size in them run at length, several hours.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
cd "$talkmeter_repo"

log=target/test.log
mkdir -p target
: >"$log"

step() {
    printf '\n== %s\n' "$1"
    shift
    "$@" 2>&1 | tee -a "$log"
}

build=() # of the engine
shown=()
if [ "${LONG:-}" = 1 ]; then
    export TALKMETER_LONG=1
    # What is folded in a minute says something of a release build only.
    build=(--release)
    # How far they have come, and the seeds.
    shown=(-- --nocapture)
fi

step "house: floors, manners, lints" scripts/house.sh
step "engine: the rules, without a server" \
    cargo test --locked "${build[@]}" -p talkmeter-engine "${shown[@]}"
step "regress: what a DBA sees" \
    scripts/with-cluster.sh -c max_prepared_transactions=20 -- scripts/regress.sh
mapfile -t scripts < <(compgen -G "target/talkmeter--*.sql" | grep -v -e "--.*--")
step "pgspot: no object of the install script can be bent by a search path" target/pgspot/bin/pgspot "${scripts[@]}"
mapfile -t scripts < <(compgen -G "target/talkmeter--*--*.sql")
if [ ${#scripts[@]} -gt 0 ]; then
    # The server itself lets an extension's script replace nothing but what is the extension's (PS002, PS015).
    step "pgspot: nor one of an upgrade" target/pgspot/bin/pgspot --ignore PS002 --ignore PS015 "${scripts[@]}"
fi
step "server: concurrency, crashes, dump and restore, big loads" \
    scripts/server-tests.sh --test server --test alone "${shown[@]}"
own=$(major_of "$(find_pg_config)")
for major in $TALKMETER_PG_MAJORS; do
    [ "$major" != "$own" ] || continue
    step "PostgreSQL $major: what meters, and what a DBA sees" scripts/major.sh "$major"
done

printf '\n'
awk '/^test result: ok\./ { rust += $4 } /^regress: / { regress += $2 }
    END { printf "test: all passed (%d Rust tests, %d regress files)\n", rust, regress }' "$log"
