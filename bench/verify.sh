#!/usr/bin/env bash
# How long does verify() take over a million charges?
#
# The ledger is the one of which bench/reports.sh asks. For a measure of the machine, the same charges are counted and summed.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-3}
charges=${LEDGERS:-1000000}
charges=${charges##* }

make_ledger "$charges"
database=ledger_$charges

# Prints the milliseconds of a statement, which must answer $2 if that is given.
timed() {
    local start found
    start=$(milliseconds)
    found=$(sql -d "$database" -c "$1")
    [ -z "${2+wanted}" ] || [ "$found" = "$2" ] || die "verify() of a sound ledger says:" "$(head -n 20 <<<"$found")"
    say $(($(milliseconds) - start))
}

for ((round = 1; round <= rounds; round++)); do
    timed 'SELECT count(*), sum(amount) FROM talkmeter.charge' >>"$TALKMETER_DIR/verify.sum"
    timed 'SELECT * FROM talkmeter.verify()' '' >>"$TALKMETER_DIR/verify.verify"
    progress "verify: $(tail -n 1 "$TALKMETER_DIR/verify.verify") ms"
done
sum=$(median <"$TALKMETER_DIR/verify.sum") verify=$(median <"$TALKMETER_DIR/verify.verify")
say "### verify" "" "Of $(grouped "$charges") charges and their reversals, in 200 ledgers; $rounds rounds, medians." "" \
    "| | s | ratio |" "|---|--:|--:|" \
    "| count and sum of all charges | $(calculate %.2f "$sum / 1000") | 1 |" \
    "| **talkmeter.verify** | $(calculate %.1f "$verify / 1000") | $(calculate %.0f "$verify / ($sum + 0.001)") |"
