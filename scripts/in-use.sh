#!/usr/bin/env bash
# Which servers that can be reached from here would miss talkmeter's files? `make uninstall` asks before it removes them.
#
# Ends with 1 if there is one, and says what to do first. Asks the servers with a socket in the usual directories (as root
# with the rights of the server's user) and the one that PGHOST, PGPORT or PGSERVICE name. PG_CONFIG says whose files are
# meant: a server that runs from elsewhere does not miss them. Gives no password, and waits for nobody long.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

pg_config=$(find_pg_config) || exit 1
psql=$("$pg_config" --bindir)/psql
[ -x "$psql" ] || psql=$(command -v psql) || die "no psql to ask the servers with; make uninstall FORCE=1 asks none."
files=$(realpath -m "$("$pg_config" --pkglibdir)")

as_user=()
user=$(server_user)
[ -z "$user" ] || as_user=(runuser -u "$user" --)
export PGCONNECT_TIMEOUT=5 PGOPTIONS="-c statement_timeout=10s -c lock_timeout=5s"
cd / # the server's user may not be able to read this directory

# Prints the rows of query $2 in database $1 of the server that the environment names.
ask() {
    "${as_user[@]}" timeout 30 "$psql" -X -w -q -At -v ON_ERROR_STOP=1 -d "$1" -c "$2" </dev/null
}

in_use=() # what would miss the files, as text

# Looks into the server that the environment names; $1 is what to call it.
look_into() {
    local server=$1 any=postgres databases database said
    if ! databases=$(ask "$any" "$of_databases" 2>&1) && ! { any=template1 && databases=$(ask "$any" "$of_databases" 2>&1); }; then
        complain "nobody knows what $server has: ${databases##*$'\n'}"
        return
    fi
    # Only a superuser is told. Of whom nothing is known, that one may be of this installation.
    said=$(ask "$any" "SELECT setting FROM pg_catalog.pg_config WHERE name = 'PKGLIBDIR'" 2>/dev/null) || said=$files
    [ "$(realpath -m "$said")" = "$files" ] || return 0

    said=$(ask "$any" "SELECT setting FROM pg_catalog.pg_settings WHERE name = 'shared_preload_libraries'" 2>/dev/null) || said=""
    [[ $said != *talkmeter* ]] || in_use+=("$server: shared_preload_libraries has it, and no start would succeed")
    while IFS= read -r database; do
        said=$(ask "$database" "$of_extension" 2>/dev/null) || said=""
        [ -n "$said" ] || continue
        # Who has no rights there learns of the extension alone.
        said=$(ask "$database" "$of_tables" 2>/dev/null) || said=""
        in_use+=("$server, database $database: ${said:-the extension, no table attached that could be seen}")
    done <<<"$databases"
}
of_databases="SELECT datname FROM pg_catalog.pg_database WHERE datallowconn ORDER BY 1"
of_extension="SELECT extname FROM pg_catalog.pg_extension WHERE extname = 'talkmeter'"
of_tables="SELECT 'attached: ' || pg_catalog.string_agg(DISTINCT source::text, ', ') FROM talkmeter.sources"

if [ -n "${PGHOST:-}${PGPORT:-}${PGSERVICE:-}" ]; then look_into "the server that PGHOST, PGPORT or PGSERVICE name"; fi
unset PGSERVICE PGDATABASE PGUSER PGHOSTADDR
for socket in /var/run/postgresql/.s.PGSQL.* /tmp/.s.PGSQL.*; do
    [ -S "$socket" ] || continue
    export PGHOST=${socket%/*} PGPORT=${socket##*.}
    look_into "the server at $socket"
done

[ ${#in_use[@]} -gt 0 ] || exit 0
complain "not removed, because it is in use:" "${in_use[@]/#/  }" \
    "Without its files an INSERT into an attached table fails. So, in each of these databases:" \
    "  1. SELECT talkmeter.detach(source) FROM talkmeter.sources;" \
    "  2. DROP EXTENSION talkmeter;     -- and with it all that was metered" \
    "and then, with talkmeter taken out of shared_preload_libraries and the server started anew:" \
    "  3. make uninstall                # with FORCE=1 nobody is asked, and the files are removed"
exit 1
