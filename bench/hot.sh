#!/usr/bin/env bash
# What does it cost if all messages are of one tenant?
#
# A tenant's lock spans the flush of the commit, so its charging commits are bounded by one per flush; one message in nine
# charges. 8 clients. Without waiting for the disk, the lock is held for as long as the charge takes.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-3}

say "### One busy tenant" "" "8 clients, single rows, the advised index; $rounds interleaved rounds of $seconds s, medians." "" \
    "| commit | | 200 tenants, per second | one tenant, per second | ratio | CPU, µs: 200 tenants | one tenant |" "|---|---|--:|--:|--:|--:|--:|"

compared=(bare plpgsql talkmeter)
cpu() { calculate %.0f "$(awk '{ print $2 }' "$TALKMETER_DIR/hot.$1.$2" | median)"; }
for peer in "${compared[@]}"; do write_message_script "$peer"; done
for commit in off on; do
    rm -f "$TALKMETER_DIR"/hot.*
    fresh_database hot true
    for ((round = 1; round <= rounds; round++)); do
        for peer in "${compared[@]}"; do
            for tenants in 200 1; do
                runs=$((runs + 1))
                PGOPTIONS="-c synchronous_commit=$commit" run_script hot "$peer" 8 "$tenants" >>"$TALKMETER_DIR/hot.$peer.$tenants"
            done
        done
        progress "one busy tenant, synchronous_commit $commit: round $round"
    done
    assert_metered hot
    title=$(commit_named "$commit")
    for peer in "${compared[@]}"; do
        many=$(median <"$TALKMETER_DIR/hot.$peer.200") one=$(median <"$TALKMETER_DIR/hot.$peer.1")
        say "| $title | $(what_peers_are "$peer") | $(grouped "$many") | $(grouped "$one") | $(calculate %.2f "$one / $many") |\
 $(cpu "$peer" 200) | $(cpu "$peer" 1) |"
        title=""
    done
done
say "" "A flush of the disk takes $(flush_time) µs."
