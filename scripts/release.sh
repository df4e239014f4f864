#!/usr/bin/env bash
# How is a release frozen? Its install script and a database that it leaves behind become files that nobody changes any more.
#
# Wants a build (make release makes it first). docs/adding.md has the steps before and after. Writes
#   sql/released/talkmeter--VERSION.sql   the install script
#   tests/released/VERSION.story.sql      what was done in a database
#   tests/released/VERSION.dump.sql       and the dump of it: what the upgrade is tried on
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
cd "$talkmeter_repo"

version=$(talkmeter_version)
script=sql/released/talkmeter--$version.sql
story=tests/released/$version.story.sql
dump=tests/released/$version.dump.sql

# --- What keeps it from being a release ---

[ -n "$version" ] || die "talkmeter.control names no default_version."
for file in Cargo.toml engine/Cargo.toml report/Cargo.toml tests/Cargo.toml; do
    grep -qxF "version = \"$version\"" "$file" || die "$file is not of version $version, which talkmeter.control names."
done
grep -qF "\"version\": \"$version\"" META.json || die "META.json is not of version $version, which talkmeter.control names."
grep -qE "^## \[?$version\]?" CHANGELOG.md || die "CHANGELOG.md has no section of $version."
for file in "$script" "$story" "$dump"; do
    [ ! -e "$file" ] || die "$file is there: $version is released already. The next one wants another version."
done
changed=$(git status --porcelain) || die "this is no clone of the repository."
[ -z "$changed" ] || die "there is something that is not committed:" "$changed"
[ -f "target/talkmeter--$version.sql" ] || die "talkmeter is not built yet: run make build."
cat sql/[0-9][0-9]-*.sql | cmp -s - "target/talkmeter--$version.sql" || die "the build is older than sql/: run make build."

# --- The release ---

told=$(mktemp -d)
trap 'rm -r "$told"' EXIT
# shellcheck disable=SC2016 # the shell inside expands it
scripts/with-cluster.sh -- bash -euo pipefail -c '
    "$TALKMETER_BIN/createdb" story
    sql=("$TALKMETER_BIN/psql" -X -q -v ON_ERROR_STOP=1 -o /dev/null -d story)
    "${sql[@]}" -c "CREATE EXTENSION talkmeter" -f tests/released/story.sql
    "$TALKMETER_BIN/pg_dump" --no-owner -d story | grep -Ev "^.(un)?restrict |^-- Dumped " >"$1/dump.sql"
' release "$told"
cp "target/talkmeter--$version.sql" "$script"
cp tests/released/story.sql "$story"
cp "$told/dump.sql" "$dump"
say "Release $version is in these files; commit them, and tag the commit v$version:" "  $script" "  $story" "  $dump"
