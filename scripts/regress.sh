#!/usr/bin/env bash
# Does what a DBA sees still look as recorded in pg_test/expected?
#
#   scripts/with-cluster.sh -- scripts/regress.sh [--accept] [NAME...]
#
# Runs each of pg_test/sql/*.sql with pg_regress and each of pg_test/specs/*.spec with pg_isolation_regress, one after the
# other; NAMEs choose some. Every file starts from a new, empty database (roles are the cluster's: a file drops its own).
# --accept takes the results that differ over into pg_test/expected; read the diff first.
set -euo pipefail
# shellcheck source=scripts/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"

[ -n "${TALKMETER_BIN:-}" ] || die "no private server here. Run: scripts/with-cluster.sh -- scripts/regress.sh"

accept=false
if [ "${1:-}" = --accept ]; then
    accept=true
    shift
fi
chosen=("$@")

runners=$(runners_of "$TALKMETER_BIN/pg_config")
expected=$talkmeter_repo/pg_test/expected

# The server's user runs the tests, and may not be able to read the repository.
work=$TALKMETER_DIR/regress
rm -rf "$work"
mkdir "$work"
cp -r "$talkmeter_repo/pg_test" "$work/input"
mkdir -p "$work/input/expected"
give_to_server "$work"

passed=0 failed=0 accepted=0
# How pg_regress says of each test what came of it, up to 15 and since.
verdict='^(test|ok|not ok) '

# Runs test $2 with program $1 (below $runners).
run_test() {
    local program=$1 name=$2 out=$work/${1##*/}.$2
    # Without a file to compare with, the program would stop; with an empty one it shows what is new.
    [ -e "$work/input/expected/$name.out" ] || : >"$work/input/expected/$name.out"
    mkdir "$out"
    give_to_server "$work/input/expected/$name.out" "$out"

    if as_server "$runners/$program" --bindir="$TALKMETER_BIN" --host="$PGHOST" --port="$PGPORT" --user="$PGUSER" \
        --encoding=UTF8 --inputdir="$work/input" --outputdir="$out" "$name" >"$out/report" 2>&1; then
        passed=$((passed + 1))
        grep -E "$verdict" "$out/report"
        return
    fi
    failed=$((failed + 1))
    # No diff: the program could not even compare.
    if [ ! -s "$out/regression.diffs" ]; then
        cat "$out/report"
        return
    fi
    grep -E "$verdict" "$out/report"
    cat "$out/regression.diffs"
    # A test that lost its server has no result worth keeping.
    if $accept && ! grep -q 'test process exited' "$out/report"; then
        mkdir -p "$expected"
        cp "$out/results/$name.out" "$expected/$name.out"
        accepted=$((accepted + 1))
        say "accepted: pg_test/expected/$name.out"
    fi
}

# Runs the chosen tests among files $2... with program $1.
run_tests() {
    local program=$1 file name
    shift
    for file in "$@"; do
        name=${file##*/}
        name=${name%.*}
        if [ -e "$file" ] && [[ ${#chosen[@]} = 0 || " ${chosen[*]} " == *" $name "* ]]; then run_test "$program" "$name"; fi
    done
}

export LC_ALL=C # the order of the files
run_tests regress/pg_regress "$work"/input/sql/*.sql
run_tests isolation/pg_isolation_regress "$work"/input/specs/*.spec

say "regress: $passed passed, $failed failed"
[ $((passed + failed)) -gt 0 ] || die "no such test in pg_test: ${chosen[*]:-there is none at all}"
[ "$failed" = "$accepted" ]
