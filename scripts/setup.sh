#!/usr/bin/env bash
# What does this machine lack to build, try or test talkmeter? Installs it, where Debian's packages have it.
#
#   scripts/setup.sh [build|demo|test]     each wants what those before it want, and more; test is the default
#
# PG_CONFIG chooses the server to build for. Says nothing when all is there.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

purpose=${1:-test}
case $purpose in
build | demo | test) ;;
*) die "usage: scripts/setup.sh [build|demo|test]" ;;
esac

# --- Rust: never from Debian, whose compiler is too old ---

check_rust() {
    local needed found
    needed=$(sed -n 's/^rust-version *= *"\(.*\)"/\1/p' "$talkmeter_repo/Cargo.toml")
    PATH=${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH # where rustup puts it; this shell may not know yet
    if ! command -v cargo >/dev/null || ! found=$(rustc --version 2>/dev/null); then
        if [ -n "${SUDO_USER:-}" ]; then
            die "Rust is missing for user $(id -un), whom sudo gave the home $HOME." \
                "Run this without sudo, as the user who has Rust: it asks for sudo where it needs to."
        fi
        die "Rust is missing; talkmeter needs $needed or newer." "Install it with rustup (https://rustup.rs), then run this again."
    fi
    found=$(cut -d ' ' -f 2 <<<"$found")
    if [ "$(printf '%s\n' "$needed" "$found" | sort -V | head -n 1)" != "$needed" ]; then
        die "Rust $found ($(command -v rustc)) is too old; talkmeter needs $needed or newer." \
            "Install it with rustup (https://rustup.rs), or run: rustup update stable"
    fi
    # bindgen lays out what it writes with rustfmt; clippy is a step of the tests.
    want_component fmt rustfmt
    [ "$purpose" != test ] || want_component clippy "rustfmt clippy"
}

# Stops, naming the components $2 to add, unless cargo has the command $1.
want_component() {
    cargo "$1" --version >/dev/null 2>&1 ||
        die "Rust is there without 'cargo $1' (rustup's minimal profile)." "Run: rustup component add $2"
}

# --- Everything else ---

# bindgen loads libclang by itself and looks in these places.
have_libclang() {
    local dir
    # Not grep -q: it would end the pipe early, and pipefail take that for a failure.
    for dir in "${LIBCLANG_PATH:-}" /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu; do
        if [ -n "$dir" ] && compgen -G "$dir/libclang*.so*" | grep -E '/libclang(-[0-9.]+)?\.so' >/dev/null; then return; fi
    done
    ldconfig -p | grep -E '^\s*libclang(-[0-9.]+)?\.so' >/dev/null
}

# Notes package $1 as missing unless the test that follows it succeeds.
missing=()
want() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

# Sets missing to the packages that this machine lacks for the purpose.
look() {
    local pg_config="" bindir="" include="" pkglibdir="" major
    missing=()
    if [ -n "${PG_CONFIG:-}" ] || locate_pg_config >/dev/null; then
        pg_config=$(find_pg_config) || exit 1
        major=$(major_of "$pg_config")
        bindir=$("$pg_config" --bindir)
        include=$("$pg_config" --includedir-server)
        pkglibdir=$("$pg_config" --pkglibdir)
    else
        major=$(newest_packaged)
    fi
    want_of_the_server
    # Packages cannot complete a server that did not come from them.
    if [ ${#missing[@]} -gt 0 ] && [ -n "$bindir" ] && [ "$bindir" != "/usr/lib/postgresql/$major/bin" ]; then
        die "$pg_config describes a server in $bindir that lacks, by Debian's names: ${missing[*]}" \
            "Its headers are looked for in $include. Install these from where that server came from, or set PG_CONFIG to another server."
    fi
    want libclang-dev have_libclang
    want gcc command -v cc
    want libc6-dev test -f /usr/include/stdio.h
    want make command -v make
    [ "$purpose" != build ] || return 0
    want gzip command -v gzip
    if [ "$(id -u)" = 0 ]; then want util-linux command -v runuser; fi
    [ "$purpose" != demo ] || return 0
    want_of_the_tests
}

# What must fit the server that pg_config describes.
want_of_the_server() {
    [ "$purpose" = build ] || want "postgresql-$major" test -x "$bindir/initdb" -a -x "$bindir/postgres"
    want "postgresql-server-dev-$major" have_headers
    [ "$purpose" = test ] || return 0
    # What operators rewrite tables with; a test rewrites ours.
    want "postgresql-$major-repack" test -x "$bindir/pg_repack"
    # What sweeps elsewhere; a test starts it.
    want "postgresql-$major-cron" test -f "$pkglibdir/pg_cron.so"
}

# The server's headers, and what is packed with them: the programs that compare outputs.
have_headers() {
    local runners
    test -f "$include/postgres.h" || return 1
    [ "$purpose" = test ] || return 0
    runners=$(runners_of "$pg_config")
    test -x "$runners/regress/pg_regress" -a -x "$runners/isolation/pg_isolation_regress"
}

want_of_the_tests() {
    # What applications connect through; a test starts it.
    want pgbouncer test -x /usr/sbin/pgbouncer
    want shellcheck command -v shellcheck
    # What makes our package, and what finds fault with it.
    want dpkg-dev command -v dpkg-shlibdeps
    want lintian command -v lintian
    want valgrind command -v valgrind
    # What makes a bare Debian for a test; no user but root has its place on PATH.
    want debootstrap test -x /usr/sbin/debootstrap
    # What mends the servers of other majors, which come as Python packages.
    want patchelf command -v patchelf
    want python3-venv python3 -c 'import ensurepip, venv'
    # The clients of docs/clients.md, whose code the tests run. Debian's modules are known to Debian's python alone.
    want python3-psycopg /usr/bin/python3 -c 'import psycopg'
    want python3-psycopg2 /usr/bin/python3 -c 'import psycopg2'
    want python3-django /usr/bin/python3 -c 'import django'
    want ruby-activerecord ruby -e 'require "active_record"'
    want ruby-pg ruby -e 'require "pg"'
    want nodejs command -v node
    want npm command -v npm
    # What reads the dashboards and metrics of the tests.
    want prometheus command -v promtool
    want prometheus-sql-exporter command -v prometheus-sql-exporter
    # What looks at the page of talkmeter-report.
    want chromium command -v chromium
    want fonts-dejavu-core test -f /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf
}

# Sets as_admin to the command that lends root's rights: nothing, or sudo. Fails if there is no way.
become_admin() {
    as_admin=()
    [ "$(id -u)" != 0 ] || return 0
    command -v sudo >/dev/null || return 1
    if sudo -n true 2>/dev/null; then as_admin=(sudo -n); elif [ -t 0 ]; then as_admin=(sudo); else return 1; fi
}

install_missing() {
    # Debian starts a database cluster when a server is first installed, a pgbouncer, a Prometheus and its exporter; ours are
    # private, so all are switched off.
    # shellcheck disable=SC2016 # expanded by the shell that the administrator's rights are lent to
    "${as_admin[@]}" bash -euc '
        umask 022
        export DEBIAN_FRONTEND=noninteractive
        drop_in=/etc/postgresql-common/createcluster.d/talkmeter-setup.conf
        trap "rm -f $drop_in; rmdir -p --ignore-fail-on-non-empty ${drop_in%/*} 2>/dev/null || true" EXIT
        mkdir -p "${drop_in%/*}"
        echo "create_main_cluster = false" >"$drop_in"
        apt-get update
        apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=120 "$@"
        [ -d /run/systemd/system ] || exit 0
        for service in pgbouncer prometheus prometheus-sql-exporter; do
            if [[ " $* " == *" $service "* ]]; then systemctl disable --quiet --now "$service"; fi
        done
    ' setup "$@"
}

# A Python package, so it lives in a directory of this repository's and touches no other.
install_pgspot() {
    local into=$talkmeter_repo/target/pgspot wanted=$talkmeter_repo/scripts/pgspot.txt
    cmp -s "$wanted" "$into/installed.txt" && return
    rm -rf "$into"
    python3 -m venv "$into"
    "$into/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$wanted" ||
        die "could not install pgspot, which checks the install script (see scripts/pgspot.txt)." \
            "It comes from PyPI: if that cannot be reached from here, set PIP_INDEX_URL to what can, and run this again."
    cp "$wanted" "$into/installed.txt"
    say "Installed: pgspot, into target/pgspot"
}

# What tests need of npm, by the hashes of a lock file, into target/$1 as tests/$1 lists it: Debian's packages are those of its own
# node only.
install_of_npm() {
    local into=$talkmeter_repo/target/$1 from=$talkmeter_repo/tests/$1 what=$2
    cmp -s "$from/package-lock.json" "$into/installed.json" && return
    rm -rf "$into"
    mkdir -p "$into"
    cp "$from/package.json" "$from/package-lock.json" "$into/"
    npm ci --prefix "$into" --ignore-scripts --omit=optional --no-audit --no-fund --silent ||
        die "could not install $what, which tests run (see tests/$1/package.json)." \
            "It comes from npm: if that cannot be reached from here, set npm_config_registry to what can, and run this again."
    cp "$from/package-lock.json" "$into/installed.json"
    say "Installed: $what, into target/$1"
}

install_others() {
    [ "$purpose" = test ] || return 0
    install_pgspot
    install_of_npm clients node-postgres
    install_of_npm browser "puppeteer and axe"
}

check_rust
look
if [ ${#missing[@]} = 0 ]; then
    install_others
    exit
fi

command -v apt-get >/dev/null ||
    die "these are missing (by their Debian names): ${missing[*]}" "This system has no apt-get: install them with its own package manager."
say "Missing: ${missing[*]}"
become_admin || die "installing them needs an administrator. Ask for:" "  apt-get install --no-install-recommends ${missing[*]}"
wanted=("${missing[@]}")
install_missing "${wanted[@]}" || die "could not install: ${wanted[*]}" \
    "If the release has no PostgreSQL ${TALKMETER_PG_MAJORS// / or }, add the PostgreSQL project's own package repository and run this again."
look
[ ${#missing[@]} = 0 ] || die "still missing after the installation: ${missing[*]}"
say "Installed: ${wanted[*]}"
install_others
