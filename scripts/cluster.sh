# shellcheck shell=bash
# How do we run PostgreSQL with talkmeter without touching a server that is already on this machine?
#
# PostgreSQL finds its share/ and lib/ relative to its own executable. So a private tree holds copies of the programs
# (symlinks would be resolved back to the originals), links to everything else, and talkmeter's files as real files.
# Nothing outside the tree is written, and nobody but the server's user and root can reach its socket.
#
# Sourcing this file runs nothing. The functions work on these, which cluster_create sets:
#   TALKMETER_DIR     the cluster's directory: tree/, data/, log, and the socket
#   TALKMETER_BIN     the private tree's programs
#   TALKMETER_RUN_AS  the user that the server runs as; empty = the invoking user

cluster_mark=.talkmeter-cluster
talkmeter_repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

say() { printf '%s\n' "$@"; }
complain() { printf 'talkmeter: %s\n' "$@" >&2; }
die() {
    complain "$@"
    exit 1
}

# --- Which PostgreSQL? ---

# The releases that the extension is built for.
TALKMETER_PG_MAJORS="15 16 17 18"

is_supported() { [[ " $TALKMETER_PG_MAJORS " == *" $1 "* ]]; }

# Prints the major release of the server that pg_config $1 describes.
major_of() { "$1" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/'; }

# Prints the newest supported release that Debian's packages have here, which is the one to install where there is none.
newest_packaged() {
    # The oldest, if there are no lists of packages yet.
    local major newest=${TALKMETER_PG_MAJORS%% *}
    for major in $TALKMETER_PG_MAJORS; do
        if [ -n "$(apt-cache madison "postgresql-server-dev-$major" 2>/dev/null)" ]; then newest=$major; fi
    done
    say "$newest"
}

refuse_pg_config() { # WHY
    die "$1" "Set PG_CONFIG to the server's pg_config, for example /usr/lib/postgresql/$(newest_packaged)/bin/pg_config."
}

# Prints a pg_config that answers: $PG_CONFIG, else the one on PATH, else the newest of Debian's. Fails if there is none.
locate_pg_config() {
    local candidate version
    if [ -n "${PG_CONFIG:-}" ]; then
        if ! candidate=$(command -v "$PG_CONFIG") || ! version=$("$candidate" --version 2>/dev/null </dev/null); then
            refuse_pg_config "PG_CONFIG=$PG_CONFIG does not run."
        fi
        # Other programs have a --version too.
        [[ $version == "PostgreSQL "[0-9]* ]] ||
            refuse_pg_config "PG_CONFIG=$PG_CONFIG is no pg_config: asked for its version it says \"${version%%$'\n'*}\"."
        say "$(cd "$(dirname "$candidate")" && pwd)/$(basename "$candidate")"
        return
    fi
    # Debian's pg_config on PATH is a wrapper that fails when no development package is installed: then look further.
    for candidate in "$(command -v pg_config)" "$(compgen -G '/usr/lib/postgresql/*/bin/pg_config' | sort -V | tail -n 1)"; do
        if [ -n "$candidate" ] && "$candidate" --version >/dev/null 2>&1; then
            say "$candidate"
            return
        fi
    done
    return 1
}

# Prints where the programs that compare outputs lie, which come with the headers of the server that pg_config $1 describes.
runners_of() {
    local pgxs
    pgxs=$("$1" --pgxs)
    say "${pgxs%/makefiles/*}/test"
}

# Prints the version of these sources.
talkmeter_version() { sed -n "s/^default_version *= *'\(.*\)'.*/\1/p" "$talkmeter_repo/talkmeter.control"; }

# Prints where the build for the server that pg_config $1 describes lies: those of several releases lie beside each other.
build_for() { say "$talkmeter_repo/target/pg$(major_of "$1")/talkmeter.so"; }

# Prints the pg_config of a supported server, or stops.
find_pg_config() {
    local pg_config major
    pg_config=$(locate_pg_config) || {
        [ -n "${PG_CONFIG:-}" ] || complain "no pg_config found: run make build, which installs Debian's, or set PG_CONFIG to a server's."
        exit 1
    }
    major=$(major_of "$pg_config")
    is_supported "$major" ||
        refuse_pg_config "$pg_config belongs to PostgreSQL $major; talkmeter supports PostgreSQL ${TALKMETER_PG_MAJORS// /, }."
    say "$pg_config"
}

# --- Who runs the server? ---

# PostgreSQL refuses to run as root; root lends it another user.
server_user() {
    [ "$(id -u)" = 0 ] || return 0
    if id postgres >/dev/null 2>&1; then say postgres; else say nobody; fi
}

# Runs a command as the server's user. The environment is made anew: PGPORT, PGTZ and the like would change the server,
# and RUST_BACKTRACE would put stack traces into its error messages. Not in the caller's directory: it may be unreadable.
as_server() {
    local command=(env -i PATH="$PATH" HOME="$TALKMETER_DIR" LC_ALL=C "$@")
    [ -z "$TALKMETER_RUN_AS" ] || command=(runuser -u "$TALKMETER_RUN_AS" -- "${command[@]}")
    (cd "$TALKMETER_DIR" && "${command[@]}")
}

# Hands files over to the server's user.
give_to_server() {
    [ -z "$TALKMETER_RUN_AS" ] || chown -hR "$TALKMETER_RUN_AS:" "$@"
}

# --- The private tree ---

# Links, or copies, the entries of directory $1 into directory $2, except talkmeter's own (an installed copy must not win over the
# one just built) and extension/ (a real directory in the tree).
link_entries() {
    local entry entries=()
    for entry in "$1"/*; do
        case ${entry##*/} in
        talkmeter* | extension) ;;
        *) entries+=("$entry") ;;
        esac
    done
    mkdir -p "$2"
    case $1 in
    # One that the tests loaded (scripts/server.sh): the server's user may not be able to read the repository.
    "$talkmeter_repo"/*) cp -a "${entries[@]}" "$2/" ;;
    *) ln -s "${entries[@]}" "$2/" ;;
    esac
}

# Builds the tree of the server that pg_config $1 describes, laid out below tree/ as the original is below /.
make_tree() {
    local tree=$TALKMETER_DIR/tree bindir sharedir pkglibdir program
    bindir=$("$1" --bindir)
    sharedir=$("$1" --sharedir)
    pkglibdir=$("$1" --pkglibdir)

    mkdir -p "$tree$bindir"
    # By name, because elsewhere than on Debian bindir may be /usr/bin.
    for program in postgres initdb pg_ctl pg_config psql createdb dropdb pg_isready pgbench \
        pg_test_fsync vacuumdb reindexdb pg_dump pg_dumpall pg_restore pg_basebackup pg_receivewal pg_recvlogical \
        pg_rewind pg_checksums pg_controldata pg_resetwal pg_waldump pg_amcheck pg_upgrade pg_verifybackup pg_repack; do
        if [ -e "$bindir/$program" ]; then cp -L "$bindir/$program" "$tree$bindir/"; fi
    done
    [ -x "$tree$bindir/postgres" ] || die "no server programs in $bindir: run make demo, which installs them."

    link_entries "$pkglibdir" "$tree$pkglibdir"
    link_entries "$sharedir" "$tree$sharedir"
    link_entries "$sharedir/extension" "$tree$sharedir/extension"

    # With their modes: they may have been built under a umask that keeps the server's user out.
    if ! install -m 755 "$(build_for "$1")" "$tree$pkglibdir/talkmeter.so" ||
        ! install -m 644 -t "$tree$sharedir/extension" "$talkmeter_repo/talkmeter.control" "$talkmeter_repo"/target/talkmeter--*.sql; then
        die "talkmeter is not built yet for PostgreSQL $(major_of "$1"): run make build${PG_CONFIG:+ PG_CONFIG=$PG_CONFIG}."
    fi
}

# --- A cluster's life ---

# Makes the directory, in it the tree and a database cluster that is not running yet.
cluster_create() {
    local pg_config old_umask top=${TALKMETER_TMP:-/tmp}
    pg_config=$(find_pg_config) || exit 1
    TALKMETER_RUN_AS=$(server_user)
    # Not TMPDIR: it is often closed to the server's user, and a socket's path must stay under 100 characters.
    TALKMETER_DIR=$(mktemp -d "$top/talkmeter.XXXXXX") || die "cannot make a directory in $top: set TALKMETER_TMP to another one."
    TALKMETER_DIR=$(cd "$TALKMETER_DIR" && pwd -P)
    TALKMETER_BIN=$TALKMETER_DIR/tree$("$pg_config" --bindir)
    say "$TALKMETER_BIN" >"$TALKMETER_DIR/$cluster_mark"
    [ ${#TALKMETER_DIR} -le 80 ] || die "$TALKMETER_DIR is too long for a socket's path: set TALKMETER_TMP to a shorter directory."

    old_umask=$(umask)
    umask 022
    make_tree "$pg_config"
    umask "$old_umask"
    # Only the directory itself: the programs stay the invoking user's.
    [ -z "$TALKMETER_RUN_AS" ] || chown "$TALKMETER_RUN_AS:" "$TALKMETER_DIR"

    as_server "$TALKMETER_BIN/postgres" --version >/dev/null ||
        die "cannot run programs in $top${TALKMETER_RUN_AS:+ as user $TALKMETER_RUN_AS} (mounted noexec?): set TALKMETER_TMP to another directory."
    as_server "$TALKMETER_BIN/initdb" -D data --no-locale -E UTF8 -A trust -U postgres --no-sync >/dev/null || die "initdb failed."
}

# shellcheck disable=SC2120 # without settings is fine
# Starts the server; arguments are settings, name=value. They go to postgresql.conf so that they survive a restart.
cluster_start() {
    local setting value
    for setting in "listen_addresses=" "unix_socket_directories=$TALKMETER_DIR" "port=5432" "$@"; do
        value=${setting#*=}
        value=${value//\\/\\\\}
        say "${setting%%=*} = '${value//\'/\'\'}'"
    done >>"$TALKMETER_DIR/data/postgresql.conf"
    if ! as_server "$TALKMETER_BIN/pg_ctl" start -D "$TALKMETER_DIR/data" -l "$TALKMETER_DIR/log" -s -w -t 60; then
        tail -n 20 "$TALKMETER_DIR/log" >&2
        die "the private server did not start; its log is above."
    fi
}

# Points a client's environment at the server, and away from any other: PGSERVICE would win over PGHOST.
cluster_environment() {
    local name
    for name in "${!PG@}"; do
        case $name in
        PG_CONFIG | PGRX_*) ;;
        *) unset "$name" ;;
        esac
    done
    export TALKMETER_DIR TALKMETER_BIN TALKMETER_RUN_AS
    export PGHOST=$TALKMETER_DIR PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
}

# Takes up a cluster that an earlier run made in directory $1. Fails if it is gone.
cluster_attach() {
    local owner
    [ -d "$1" ] || return 1
    owner=$(stat -c %U "$1")
    TALKMETER_RUN_AS=""
    if [ "$owner" != "$(id -un)" ]; then
        [ "$(id -u)" = 0 ] || die "the private server in $1 belongs to user $owner: become root (sudo) for this."
        TALKMETER_RUN_AS=$owner
    fi
    [ -f "$1/$cluster_mark" ] || return 1
    TALKMETER_DIR=$1
    TALKMETER_BIN=$(cat "$1/$cluster_mark")
}

# Does the server run? After a reboot its process number may be anybody's, so ask which program that process runs.
cluster_is_running() {
    local pid
    pid=$(head -n 1 "$TALKMETER_DIR/data/postmaster.pid" 2>/dev/null) || return 1
    [ "$(as_server readlink "/proc/$pid/exe")" = "$TALKMETER_BIN/postgres" ]
}

cluster_stop() {
    if cluster_is_running; then
        as_server "$TALKMETER_BIN/pg_ctl" stop -D "$TALKMETER_DIR/data" -m immediate -s -w -t 60
    fi
}

# Removes the directory, and nothing that cluster_create did not make.
cluster_destroy() {
    if [ ! -f "$TALKMETER_DIR/$cluster_mark" ]; then
        complain "$TALKMETER_DIR is not a directory of ours: left alone."
        return 1
    fi
    # A client that is just ending may still write there.
    rm -rf "$TALKMETER_DIR" 2>/dev/null || { sleep 1 && rm -rf "$TALKMETER_DIR"; }
}
