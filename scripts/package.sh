#!/usr/bin/env bash
# How does a build become what others install: a package of Debian's kind, or an archive for those without apt?
#
#   scripts/package.sh deb|tar        (make deb, make package)
#
# One for each major of PostgreSQL; PG_CONFIG chooses. PACKAGES is the directory to put the result into (target/packages),
# DEBFULLNAME and DEBEMAIL are whoever maintains it. The same sources and the same library give the same bytes.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
cd "$talkmeter_repo"
umask 022

packages=${PACKAGES:-target/packages}
pg_config=$(find_pg_config) || exit 1
major=$(major_of "$pg_config")
library=$(build_for "$pg_config")
version=$(talkmeter_version)
if [ ! -f "$library" ] || [ ! -f "target/talkmeter--$version.sql" ]; then die "talkmeter is not built yet: run make build."; fi

# When it was made: nothing in it depends on the day of the build.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || stat -c %Y talkmeter.control)}
export SOURCE_DATE_EPOCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null || die "no $1 here: it is in Debian's package $2."
}

# Copies what a server loads into directories $1 and $2, and what people read into $3.
stage() {
    local libdir=$1 extdir=$2 docdir=$3
    need strip binutils
    install -D -m 644 "$library" "$libdir/talkmeter.so"
    strip --strip-unneeded "$libdir/talkmeter.so"
    install -D -m 644 -t "$extdir" talkmeter.control target/talkmeter--*.sql
    # In the order of the repository, so that links between pages lead somewhere; the sample data stays behind.
    install -D -m 644 -t "$docdir" README.md
    install -D -m 644 -t "$docdir/docs" docs/*.md docs/*.png
    install -D -m 644 -t "$docdir/dashboards/grafana" dashboards/grafana/*.json
    install -D -m 644 -t "$docdir/dashboards/prometheus" dashboards/prometheus/*.yml
    install -D -m 644 -t "$docdir/definitions" definitions/*.sql
    install -D -m 644 -t "$docdir/dev" dev/talkmeter_stub.sql
}

# --- Debian ---

maintainer="${DEBFULLNAME:-the talkmeter authors} <${DEBEMAIL:-talkmeter@authors.invalid}>"

# Prints what the library $1 needs of the system, as Debian's names.
needed_packages() {
    mkdir -p "$work/source/debian"
    printf 'Source: talkmeter\n\nPackage: %s\nArchitecture: any\n' "$package" >"$work/source/debian/control"
    (cd "$work/source" && dpkg-shlibdeps -O "-e$1") | sed -n 's/^shlibs:Depends=//p'
}

copyright() {
    cat <<END
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: talkmeter

Files: *
Copyright: $(sed -n 's/^Copyright (c) //p' LICENSE)
License: PostgreSQL
$(sed -n '/^Permission to use/,$p' LICENSE | sed 's/^$/./; s/^/ /')
END
}

# Debian's own changelog; CHANGELOG.md is talkmeter's.
changelog() {
    cat <<END
talkmeter ($version-1) unstable; urgency=medium

  * Version $version.

 -- $maintainer  $(date -u -d "@$SOURCE_DATE_EPOCH" -R)
END
}

control() { # SIZE DEPENDS
    cat <<END
Package: $package
Source: talkmeter
Version: $version-1
Architecture: $architecture
Maintainer: $maintainer
Installed-Size: $1
Depends: postgresql-$major, $2
Section: database
Priority: optional
Description: meters and bills AI-support conversations inside PostgreSQL $major
 talkmeter reads an application's table of messages by triggers. The
 transaction that writes the messages also writes the charges for the
 conversations that an AI handled, and takes them back when messages come
 late, change or go.
 .
 The extension is made in a database with CREATE EXTENSION talkmeter.
END
}

make_deb() {
    local root=$work/root package=postgresql-$major-talkmeter architecture libdir docdir size depends
    need dpkg-shlibdeps dpkg-dev
    architecture=$(dpkg --print-architecture)
    # Where Debian and PGDG have them, whatever server the build was for.
    libdir=$root/usr/lib/postgresql/$major/lib
    docdir=$root/usr/share/doc/$package
    mkdir -p "$root/DEBIAN"
    stage "$libdir" "$root/usr/share/postgresql/$major/extension" "$docdir"
    depends=$(needed_packages "$libdir/talkmeter.so")
    [ -n "$depends" ] || die "dpkg-shlibdeps does not know what the library needs."
    copyright >"$docdir/copyright"
    changelog | gzip -9n >"$docdir/changelog.Debian.gz"
    [ ! -f CHANGELOG.md ] || gzip -9nc CHANGELOG.md >"$docdir/changelog.gz"
    size=$(du -sk --apparent-size "$root" | cut -f 1)
    (cd "$root" && find usr -type f -print0 | LC_ALL=C sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
    control "$size" "$depends" >"$root/DEBIAN/control"
    dpkg-deb --root-owner-group -Zxz --build "$root" "$packages/${package}_$version-1_$architecture.deb" >/dev/null
    say "$packages/${package}_$version-1_$architecture.deb"
}

# --- An archive ---

instructions() {
    local libc
    libc=$(objdump -T "$1" | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
    cat <<END
talkmeter $version for PostgreSQL $major, on Linux $(uname -m) with glibc ${libc#GLIBC_} or newer

To install, in this directory, as whoever may write to the server's directories (mostly root), with the server's own pg_config:

    install -m 755 lib/talkmeter.so "\$(pg_config --pkglibdir)/"
    install -m 644 extension/* "\$(pg_config --sharedir)/extension/"

Then, as a superuser, in a database encoded in UTF8:

    CREATE EXTENSION talkmeter;

To remove it, first in each database that has it:

    SELECT talkmeter.detach(source) FROM talkmeter.sources;
    DROP EXTENSION talkmeter;

and then, once it is out of shared_preload_libraries too:

    rm "\$(pg_config --pkglibdir)/talkmeter.so" "\$(pg_config --sharedir)"/extension/talkmeter{.control,--*.sql}

doc/README.md says what it is, doc/docs/operations.md how it is run.
END
}

make_tar() {
    local name root
    name=talkmeter-$version-pg$major-linux-$(uname -m)
    root=$work/$name
    stage "$root/lib" "$root/extension" "$root/doc"
    install -m 644 LICENSE "$root/"
    install -m 644 -t "$root/doc" CHANGELOG.md
    instructions "$root/lib/talkmeter.so" >"$root/INSTALL"
    tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -cf - "$name" |
        gzip -9n >"$packages/$name.tar.gz"
    say "$packages/$name.tar.gz"
}

mkdir -p "$packages"
case ${1:-} in
deb) make_deb ;;
tar) make_tar ;;
*) die "usage: scripts/package.sh deb|tar" ;;
esac
