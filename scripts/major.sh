#!/usr/bin/env bash
# Does talkmeter do on another major of PostgreSQL what it does on this machine's?
#
#   scripts/major.sh 15|16|17|18
#
# Loads a server of it (scripts/server.sh) and builds for it. Then come what a DBA sees, and of the tests against a server
# those that meter most: the sample data, the demo, the definitions of vendors, other products' tables, any order, commits; and the packages.
# LONG=1: all of them.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
cd "$talkmeter_repo"

PG_CONFIG=$(scripts/server.sh "${1:-}")
export PG_CONFIG
say "$("$PG_CONFIG" --version): compiling ..."
make --no-print-directory build PROFILE=checks
scripts/with-cluster.sh -c max_prepared_transactions=20 -- scripts/regress.sh

# The memory of a bulk load, and what pg_upgrade makes of a server of the oldest release. Not of Debian's: 15.20 gives columns
# an option that others do not know.
new=$PG_CONFIG
# shellcheck disable=SC2016 # expanded by the shell that has the older server
PG_CONFIG=$(scripts/server.sh 15) scripts/with-cluster.sh -- bash -c \
    'TALKMETER_OLD_BIN=$TALKMETER_BIN PG_CONFIG=$0 exec scripts/server-tests.sh --test alone -- pg_upgrade bulk::' "$new"

if [ "${LONG:-}" = 1 ]; then
    # What tests of these start, or ask for, is packed for Debian's own servers only.
    exec scripts/server-tests.sh --no-fail-fast --test server --test alone -- --skip pg_repack_of --skip a_cron_beside --skip bare_root:: \
        --skip a_target_asks_for_no_package
fi
exec scripts/server-tests.sh --test server -- \
    sample:: demo:: definitions:: products:: any_order:: protocol:: held:: dump:: limits:: packages::
