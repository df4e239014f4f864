#!/usr/bin/env bash
# Does a newcomer get on with README's commands, on a Debian 12 that has nothing but git, make and Rust?
#
#   scripts/bare-root.sh [--tests]     root only; 3 GB of disk, about ten minutes; with --tests `make test` too, 5 GB and half an hour more
#
# Makes such a Debian in a temporary folder (TALKMETER_TMP, default /tmp) with two users: ann, who may use sudo, and ben,
# who may not. What they clone is what is committed. Where packages, crates and their certificates come from is taken over
# from this machine. All mounts and processes are in namespaces that end with this script; then the folder is removed.
# KEEP=1 keeps it.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

release=bookworm
major=15 # of that release
mark=.talkmeter-bare-root

# --- Making the root ---

# Prints where this machine's apt gets the release from; nothing if it gets another one, and debootstrap knows better.
mirror() {
    # shellcheck disable=SC2016 # apt expands it
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 2>/dev/null |
        awk -v release="$release" '$2 == release { print $1; exit }'
}

# Copies what is there of the paths, at the same places.
take_over() {
    local path
    for path in "$@"; do
        if [ -e "$path" ]; then
            mkdir -p "$root${path%/*}"
            cp -rL "$path" "$root${path%/*}/"
        fi
    done
}

# The names of the variables that say how to reach the outside.
ways_out() {
    compgen -e | grep -E '(^|_)(proxy|PROXY)$|CERT|CA_BUNDLE|CAINFO|^PIP_|^npm_config_|^CARGO_(HTTP|NET|REGISTRIES|SOURCE)' || true
}

# apt, certificates, names of hosts, and the files that those variables name.
configure_network() {
    local name
    take_over /etc/resolv.conf /etc/hosts /etc/ssl/certs /usr/local/share/ca-certificates /etc/pip.conf /usr/etc/npmrc
    take_over /etc/apt/apt.conf /etc/apt/apt.conf.d /etc/apt/auth.conf /etc/apt/auth.conf.d
    if [ -n "$(mirror)" ]; then
        rm -f "$root/etc/apt/sources.list"
        take_over /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/preferences.d
        take_over /etc/apt/trusted.gpg /etc/apt/trusted.gpg.d /etc/apt/keyrings /usr/share/keyrings
    fi
    for name in $(ways_out); do
        case ${!name} in
        /*) [ -e "$root${!name}" ] || take_over "${!name}" ;;
        esac
    done
}

home() { say "$root/home/$1"; }

# A user with Rust where rustup puts it, and with this machine's crates.
add_user() {
    local home cargo=${CARGO_HOME:-$HOME/.cargo} part
    home=$(home "$1")
    chroot "$root" useradd --create-home --shell /bin/bash "$1"
    mkdir -p "$home/.cargo/registry"
    ln -s /opt/rust/bin "$home/.cargo/bin"
    for part in config.toml registry/index registry/cache; do
        [ ! -e "$cargo/$part" ] || cp -rL "$cargo/$part" "$home/.cargo/$part"
    done
    [ ! -f "$HOME/.npmrc" ] || cp "$HOME/.npmrc" "$home/.npmrc"
    chroot "$root" chown -R "$1:" "/home/$1"
}

# Rust as in rustup's minimal profile; its libraries are mounted later.
add_rust() {
    local from
    from=$(PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH rustc --print sysroot) || die "Rust is missing."
    mkdir -p "$root/opt/rust/bin" "$root/opt/rust/lib"
    cp "$from/bin/cargo" "$from/bin/rustc" "$from/bin/rustdoc" "$root/opt/rust/bin/"
    say "$from" >"$root/opt/rust/from"
}

add_component() { # PROGRAM...
    local program
    for program in "$@"; do cp "$(cat "$root/opt/rust/from")/bin/$program" "$root/opt/rust/bin/"; done
}

make_root() {
    local mirror
    mirror=$(mirror)
    say "Making a Debian of release $release in $root ..."
    # sudo is what the two users differ in.
    debootstrap --variant=minbase --include=git,make,sudo "$release" "$root" ${mirror:+"$mirror"} >"$top/debootstrap.log" 2>&1 || {
        tail -n 20 "$top/debootstrap.log" >&2
        die "debootstrap failed."
    }
    rm -rf "$root"/var/cache/apt/archives/*.deb
    configure_network
    add_rust
    add_user ann
    add_user ben
    say 'ann ALL=(ALL) NOPASSWD: ALL' "Defaults env_keep += \"$(ways_out | tr '\n' ' ')\"" >"$root/etc/sudoers.d/ann"
    chmod 440 "$root/etc/sudoers.d/ann"
    # A file, because git clones no repository that belongs to another user.
    git -C "$talkmeter_repo" bundle create --quiet "$root/srv/talkmeter.bundle" HEAD
}

# --- Living in it ---

# Runs a command as that user in a login shell without a terminal; what it prints goes to $top/said, its exit code to code.
as() { # USER COMMAND
    local name environment=()
    for name in $(ways_out); do environment+=("$name=${!name}"); done
    code=0
    chroot "$root" runuser -u "$1" -- env -i HOME="/home/$1" USER="$1" SHELL=/bin/bash TERM=dumb "${environment[@]}" \
        bash -lc "cd; $2" </dev/null >"$top/said" 2>&1 || code=$?
}

# Fails unless the last command ended with that code and said each of the texts.
expect() { # CODE TEXT...
    local wanted=$1 text
    shift
    [ "$code" = "$wanted" ] || fail "it ended with $code, not with $wanted"
    for text in "$@"; do
        grep -qF -- "$text" "$top/said" || fail "it did not say: $text"
    done
}

expect_silence_of() {
    if grep -qwF -- "$1" "$top/said"; then fail "it spoke of: $1"; fi
}

fail() {
    tail -n 60 "$top/said" >&2
    die "$step: $1 (the end of what it said is above)."
}

step() {
    step=$1
    say "== $step"
}

# shellcheck disable=SC2016 # dpkg expands it
packages() { chroot "$root" dpkg-query -W -f '${Package}\n' | sort; }
megabytes() { du -smx "$root" | cut -f 1; }

# Prints the packages that the last command named after that text.
named_after() { sed -n "s/.*$1//p" "$top/said" | tr ' ' '\n' | sort; }

who_has_no_rustfmt() {
    step "ann, without rustfmt: make demo"
    as ann "git clone --quiet --config advice.detachedHead=false /srv/talkmeter.bundle && cd talkmeter && make demo"
    expect 2 "without 'cargo fmt'" "Run: rustup component add rustfmt"
    [ "$(packages)" = "$bare" ] || fail "it installed something"
    add_component rustfmt cargo-fmt
    step "ann, without clippy: make test"
    as ann "cd talkmeter && make test"
    expect 2 "without 'cargo clippy'" "Run: rustup component add rustfmt clippy"
    [ "$(packages)" = "$bare" ] || fail "it installed something"
}

who_may_not_use_sudo() {
    local target
    as ben "git clone --quiet --config advice.detachedHead=false /srv/talkmeter.bundle"
    for target in build demo; do
        step "ben: make $target"
        as ben "cd talkmeter && make $target"
        expect 2 "installing them needs an administrator. Ask for:" "apt-get install --no-install-recommends "
        expect_silence_of npm
        expect_silence_of valgrind
    done
    asked_for=$(named_after "apt-get install --no-install-recommends ")
    [ "$(packages)" = "$bare" ] || fail "it installed something"
}

who_may_use_sudo() {
    local before seconds=$SECONDS connect count
    before=$(megabytes)
    step "ann: make demo"
    as ann "cd talkmeter && make demo"
    expect 0 "The demo is running. Connect with:" "Stop and remove it with: make demo-stop"
    # What apt says before that is its own.
    if sed -n '/^Starting a private PostgreSQL/,$p' "$top/said" | grep -qE 'WARNING|ERROR'; then fail "the demo warns"; fi
    [ "$(named_after "Installed: ")" = "$asked_for" ] || fail "ben was told to ask for other packages: ${asked_for//$'\n'/ }"
    [ -z "$(ls "$root/var/lib/postgresql/$major" 2>/dev/null)" ] || fail "a cluster of Debian's was made"
    count=$(comm -13 <(say "$bare") <(packages) | wc -l)
    say "   $((SECONDS - seconds)) s; $count packages; $(($(megabytes) - before)) MB, of them" \
        "   $(du -sm "$(home ann)/talkmeter/target" | cut -f 1) MB built"

    connect=$(sed -n 's|^  \(/.*/psql -h .*\)|\1|p' "$top/said")
    step "ben: what he was told to ask for is all that was missing"
    as ben "cd talkmeter && scripts/setup.sh demo"
    expect 0
    [ ! -s "$top/said" ] || fail "it has something to say"

    step "ann: queries of the demo, make demo again, make demo-stop"
    as ann "$connect -XAtc 'SELECT count(*) FROM irc_support WHERE id < 300000; SELECT count(*) > 5000 FROM talkmeter.charges'"
    expect 0
    [ "$(cat "$top/said")" = $'218120\nt' ] || fail "the demo has other messages"
    as ann "cd talkmeter && make demo"
    expect 2 "the demo is already running in"
    as ann "cd talkmeter && make demo-stop"
    expect 0 "the demo is stopped and removed."
    as ann "ls -d /tmp/talkmeter.*"
    expect 2 "No such file"
}

who_has_a_server() {
    local hint
    step "ann: a server of her own"
    as ann "sudo pg_createcluster $major main --start && sudo -u postgres createdb mydb"
    expect 0
    # A Debian without a locale makes databases of SQL_ASCII.
    as ann "cd talkmeter && make build && sudo make install && sudo -u postgres psql -d mydb -c 'CREATE EXTENSION talkmeter'"
    hint="createdb -T template0 -E UTF8 --locale=C.UTF-8"
    expect 1 "HINT:  Make one: $hint NAME"
    as ann "sudo -u postgres dropdb mydb && sudo -u postgres $hint mydb"
    expect 0
    as ann "cd talkmeter && sudo -u postgres psql -d mydb -c 'CREATE EXTENSION talkmeter'"
    expect 0 "CREATE EXTENSION"
    as ann "cd talkmeter && sudo make uninstall"
    expect 2 "database mydb: the extension"
    as ann "cd talkmeter && sudo -u postgres psql -d mydb -c 'DROP EXTENSION talkmeter' && sudo make uninstall"
    expect 0
    who_takes_the_package
    as ann "sudo pg_dropcluster --stop $major main"
    expect 0
}

who_takes_the_package() {
    local package=postgresql-$major-talkmeter
    step "ann: a package"
    as ann "cd talkmeter && make deb"
    expect 2 "it is in Debian's package dpkg-dev"
    as ann "sudo apt-get install -y --no-install-recommends dpkg-dev && cd talkmeter && make deb"
    expect 0 "target/packages/${package}_"
    as ann "cd talkmeter && sudo apt-get install -y ./target/packages/${package}_*.deb && sudo make installcheck"
    expect 0 "5 passed, 0 failed"
    as ann "cd talkmeter && sudo make install"
    expect 2 "belongs to the package $package"
    as ann "sudo apt-get remove -y $package && find /usr -name 'talkmeter*' -printf 'left: %p\n'"
    expect 0
    expect_silence_of "left"
}

who_runs_the_tests() {
    local seconds=$SECONDS
    step "ann: make test"
    add_component cargo-clippy clippy-driver
    as ann "cd talkmeter && make test"
    expect 0 "test: all passed"
    say "   $((SECONDS - seconds)) s"
}

live() {
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mount --bind "$(cat "$root/opt/rust/from")/lib" "$root/opt/rust/lib"
    mount -o remount,bind,ro "$root/opt/rust/lib"
    bare=$(packages)
    who_has_no_rustfmt
    who_may_not_use_sudo
    who_may_use_sudo
    who_has_a_server
    [ "$1" != --tests ] || who_runs_the_tests
    say "bare-root: README's commands work"
}

# --- From outside ---

# shellcheck disable=SC2317 # the trap calls it
clean_up() {
    local exit_code=$?
    trap '' INT TERM HUP
    set +e
    # By force, for unshare waits for its child whatever else it is told.
    [ -z "$inside" ] || { kill -KILL "$inside" && wait "$inside"; } 2>/dev/null
    if [ "${KEEP:-}" = 1 ]; then
        complain "kept $top; nothing is mounted in it. Remove it with rm -r."
    else
        # Nothing is mounted here: it was in the namespaces. If it were, this would not follow it.
        # Processes that are just ending may still write there.
        rm -rf --one-file-system "$top" 2>/dev/null || { sleep 2 && rm -rf --one-file-system "$top"; }
    fi
    exit "$exit_code"
}

from_outside() {
    [ "$(id -u)" = 0 ] || die "making a Debian in a folder needs root: run this with sudo -E."
    command -v debootstrap >/dev/null || die "debootstrap is missing: run make setup."
    inside=""
    top=$(mktemp -d "${TALKMETER_TMP:-/tmp}/talkmeter-bare.XXXXXX")
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    touch "$top/$mark"
    # The first process of namespaces of its own: when it ends, so does all that it has started and mounted. It is killed
    # with unshare. In the background, because bash answers a signal at once only while it waits.
    unshare --mount --mount-proc --pid --ipc --fork --kill-child --propagation private -- "$0" --inside "$top" "${1:-}" &
    inside=$!
    wait "$inside"
    inside=""
}

case ${1:-} in
"" | --tests) from_outside "${1:-}" ;;
--inside)
    top=$2
    root=$top/root
    [ -f "$top/$mark" ] || die "usage: scripts/bare-root.sh [--tests]"
    make_root
    live "${3:-}"
    ;;
*) die "usage: scripts/bare-root.sh [--tests]" ;;
esac
