#!/usr/bin/env bash
# Does the extension that a running server has installed answer as recorded in pg_test/expected?
#
#   scripts/installcheck.sh        (make installcheck)
#
# Asks, as a superuser, the server that PGHOST, PGPORT and PGUSER name, else the one that PG_CONFIG's psql finds; root asks
# with the rights of the server's user. The files of pg_test/sql run with pg_regress, one after the other, in a database that
# is made for each and dropped at the end; those that make databases themselves are left out. A role regress_clerk comes and
# goes. Nothing else of the server is touched.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

pg_config=$(find_pg_config) || exit 1
bindir=$("$pg_config" --bindir)
runner=$(runners_of "$pg_config")/regress/pg_regress
[ -x "$runner" ] || die "no pg_regress in ${runner%/*}: it comes with the server's headers (Debian: postgresql-server-dev)."
version=$(talkmeter_version)

as_user=()
user=$(server_user)
[ -z "$user" ] || as_user=(runuser -u "$user" --)
export PGCONNECT_TIMEOUT=10
# What this server sets for its own databases must not decide here.
export PGOPTIONS="${PGOPTIONS:-} -c talkmeter.enabled=on -c client_min_messages=notice"
database=talkmeter_installcheck_$$
role=regress_clerk

# Prints the rows of a query.
ask() {
    (cd / && "${as_user[@]}" "$bindir/psql" -X -w -q -At -v ON_ERROR_STOP=1 -d postgres -c "$1" </dev/null)
}

look() {
    local said lines
    if ! said=$(ask "SELECT 1" 2>&1); then
        mapfile -t lines <<<"$said"
        die "cannot ask the server:" "${lines[@]/#/  }" "Set PGHOST, PGPORT and PGUSER to a server that runs and a superuser of it."
    fi
    [ "$(ask "SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user")" = t ] ||
        die "$(ask "SELECT current_user") is no superuser there, and CREATE EXTENSION needs one: set PGUSER to one."
    said=$(ask "SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'talkmeter'")
    [ -n "$said" ] || die "talkmeter is not installed on that server: install a package, or run make install."
    [ "$said" = "$version" ] || die "that server has talkmeter $said installed; the tests here are those of $version."
    said=$(ask "SELECT 'role ' || rolname FROM pg_catalog.pg_roles WHERE rolname = '$role'
        UNION ALL SELECT 'database ' || datname FROM pg_catalog.pg_database WHERE datname = '$database'")
    [ -z "$said" ] || die "that server has a ${said%%$'\n'*}, which the tests would make and drop: drop or rename it first."
    say "installcheck: $(ask "SELECT pg_catalog.split_part(pg_catalog.version(), ' on ', 1)"), talkmeter $version"
}

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    local exit_code=$?
    trap '' INT TERM HUP
    set +e
    if $begun; then
        ask "DROP DATABASE IF EXISTS $database WITH (FORCE)" 2>/dev/null
        # Was not there before; a file that was interrupted has not dropped it.
        ask "DROP ROLE IF EXISTS $role" 2>/dev/null
    fi
    [ -z "$work" ] || rm -rf "$work"
    exit "$exit_code"
}

begun=false
work=""
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

look
begun=true
# The server's user runs the tests, and may not be able to read the repository.
work=$(mktemp -d "${TALKMETER_TMP:-/tmp}/talkmeter-installcheck.XXXXXX")
cp -r "$talkmeter_repo/pg_test/sql" "$talkmeter_repo/pg_test/expected" "$work/"
[ -z "$user" ] || chown -R "$user:" "$work"

passed=0 failed=0
cd "$work"
export LC_ALL=C # the order of the files
for file in sql/*.sql; do
    if grep -q '^CREATE DATABASE' "$file"; then continue; fi
    name=${file##*/}
    name=${name%.sql}
    if "${as_user[@]}" "$runner" --bindir="$bindir" --dbname="$database" --no-locale --encoding=UTF8 \
        --inputdir=. --outputdir=. "$name" >report 2>&1 </dev/null; then
        passed=$((passed + 1))
        say "ok      $name"
        continue
    fi
    failed=$((failed + 1))
    say "not ok  $name"
    # No differences: the program could not even compare.
    if [ -s regression.diffs ]; then cat regression.diffs; else cat report; fi
done
say "installcheck: $passed passed, $failed failed"
[ "$failed" = 0 ]
