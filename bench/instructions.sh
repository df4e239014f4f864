#!/usr/bin/env bash
# How many instructions does a metered insert take? The number to compare between revisions.
#
# A backend without a server executes prepared inserts under valgrind: 400 of them, then 1,200. The difference, divided by
# 800, leaves out the start and the first use of everything. It repeats to about one percent, however loaded the machine is.
# 20 tenants, 50 open conversations, about eight messages each, then the next 50; about one message in nine charges.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

say "### Instructions" "" "User mode, per insert of one row in a transaction of its own." "" \
    "| index | | instructions | over bare | of what the row trigger adds |" "|---|---|--:|--:|--:|"

fresh_database instructions_false false
fresh_database instructions_true true
server_stop
for indexed in true false; do
    declare -A found=()
    for peer in "${peers[@]}"; do
        found[$peer]=$(instructions_per_insert "$peer" "instructions_$indexed")
        progress "instructions, index $indexed, $peer: ${found[$peer]}"
    done
    title=$(index_named "$indexed")
    for peer in "${peers[@]}"; do
        over=$((${found[$peer]} - found[bare]))
        say "| $title | $(what_peers_are "$peer") | $(grouped "${found[$peer]}") | $(grouped "$over") |\
 $(calculate %.2f "$over / (${found[plpgsql]} - ${found[bare]})") |"
        title=""
    done
done
server_start
for indexed in true false; do assert_metered "instructions_$indexed"; done
