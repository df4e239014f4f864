#!/usr/bin/env bash
# What does metering cost on this machine?
#
#   bench/run.sh [PART]...     inside scripts/with-cluster.sh; make bench does so (make bench PARTS="instructions single")
#
# Each part is a file beside this one that prints one table. They are written into docs/performance.md; of parts that did
# not run it keeps what it has. LONG=1 adds ten million rows. To shorten a run: ROUNDS, SECONDS_EACH (of a run of pgbench), ROWS (of a
# COPY), LEDGERS (numbers of charges: "10000 1000000"), CONVERSATIONS (of a month).
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

all=(instructions grown single wal size copy batches late hot servers session reports simulate verify attach move year)
page=$talkmeter_repo/docs/performance.md

# Where and when, in a line: of a table that is compared with another this is asked first.
origin() {
    local processor revision
    processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
    revision=$(git -C "$talkmeter_repo" rev-parse --short HEAD 2>/dev/null || say unknown)
    [ -z "$(git -C "$talkmeter_repo" status --porcelain 2>/dev/null -- . ':!docs/performance.md')" ] || revision+=", changed"
    say "${processor:-unknown processor}, $(nproc) cores; PostgreSQL $(sql -c "SHOW server_version" | cut -d ' ' -f 1);\
 a flush takes $(flush_time) µs; load average $(cut -d ' ' -f 1 /proc/loadavg) at the start; $(date -u +%F), revision $revision${long:+, LONG=1}."
}

# Replaces what stands between the marks of a part in the page by a file.
put_into_page() {
    if ! grep -qF "<!-- $1 -->" "$page" || ! grep -qF "<!-- end of $1 -->" "$page"; then die "$page has no place for $1."; fi
    awk -v part="$1" -v file="$2" '
        $0 == "<!-- end of " part " -->" { inside = 0 }
        !inside { print }
        $0 == "<!-- " part " -->" { inside = 1; while ((getline line < file) > 0) print line }' "$page" >"$TALKMETER_DIR/page.md"
    cat "$TALKMETER_DIR/page.md" >"$page"
}

parts=("$@")
[ $# -gt 0 ] || parts=("${all[@]}")
for part in "${parts[@]}"; do
    [[ " ${all[*]} " == *" $part "* ]] || die "there is no part $part. Parts: ${all[*]}"
done
for part in "${parts[@]}"; do
    from=$(origin)
    began=$SECONDS
    "$bench/$part.sh" | tee "$TALKMETER_DIR/table.md"
    say "" "*$from*" >>"$TALKMETER_DIR/table.md"
    put_into_page "$part" "$TALKMETER_DIR/table.md"
    say ""
    progress "$part took $((SECONDS - began)) s"
done
