#!/usr/bin/env bash
# How many instructions does a metered insert take? The number to compare between revisions.
#
# A backend without a server executes prepared inserts under valgrind: 400 of them, then 1,200. The difference, divided by
# 800, leaves out the start and the first use of everything. It repeats to about one percent, however loaded the machine is.
# 20 tenants, 50 open conversations, about eight messages each, then the next 50; about one message in nine charges.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

command -v valgrind >/dev/null || die "valgrind is missing: run make setup."

# A backend without a server reads one statement a line.
write_inserts() {
    local peer=$1 count=$2 first=$3
    say "PREPARE message (text, text, timestamptz, text) AS INSERT INTO message_$peer (tenant_id, conversation_id, created_at,\
 sender, body) VALUES (\$1, \$2, \$3, \$4, '$body')"
    awk -v count="$count" -v first="$first" 'BEGIN {
        srand(7)
        for (n = 0; n < count; n++) {
            conversation = first + int(n / 400) * 50 + int(rand() * 50)
            at = sprintf("2026-01-01 %02d:%02d:%02d+00", int(n / 3600), int(n / 60) % 60, n % 60)
            printf "EXECUTE message (\047tenant-%d\047, \047conversation-%d\047, \047%s\047, \047%s\047)\n",
                conversation % 20, conversation, at, rand() < 0.5 ? "user" : "bot"
        }
    }'
}

# Prints the instructions of a backend that executes the standard input in database $1.
instructions() {
    as_server valgrind --tool=callgrind --callgrind-out-file="$TALKMETER_DIR/callgrind.out" --trace-children=no \
        "$TALKMETER_BIN/postgres" --single -D "$TALKMETER_DIR/data" -c fsync=off -c shared_buffers=64MB "$1" \
        >"$TALKMETER_DIR/instructions.out" 2>"$TALKMETER_DIR/instructions.err" ||
        die "valgrind failed:" "$(tail -n 20 "$TALKMETER_DIR/instructions.err")"
    if grep -m 3 ERROR "$TALKMETER_DIR/instructions.err" >&2; then die "an insert failed."; fi
    awk '/Collected/ { print $NF }' "$TALKMETER_DIR/instructions.err"
}

say "### Instructions" "" "User mode, per insert of one row in a transaction of its own." "" \
    "| index | | instructions | over bare | of what the row trigger adds |" "|---|---|--:|--:|--:|"

fresh_database instructions_false false
fresh_database instructions_true true
server_stop
for indexed in true false; do
    declare -A found=()
    for peer in "${peers[@]}"; do
        few=$(write_inserts "$peer" 400 1000000 | instructions "instructions_$indexed")
        many=$(write_inserts "$peer" 1200 2000000 | instructions "instructions_$indexed")
        found[$peer]=$(((many - few) / 800))
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
