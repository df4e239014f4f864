#!/usr/bin/env bash
# How long does it take to attach to a table that is in use, to catch up with its history, and to be rid of it all again?
#
# Each step by itself, in a copy of a database that has never had talkmeter. The rows are those of bench/copy.sh.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-3}
rows=${ROWS:-1000000}
conversations=$(((rows + 19) / 20))

write_rows "$rows" 20 "$TALKMETER_DIR/rows"
sql -c "CREATE DATABASE unmetered" -c "DROP DATABASE IF EXISTS attach"
sql -d unmetered -c "$message_table" \
    -c "COPY message FROM '$TALKMETER_DIR/rows'" \
    -c "CREATE INDEX ON message (tenant_id, conversation_id, created_at)" -c "VACUUM ANALYZE"
rm -f "$TALKMETER_DIR/rows"

# The milliseconds of a statement go to a file that is named after the step.
measure() {
    local start
    start=$(milliseconds)
    PGOPTIONS="-c client_min_messages=warning" sql -d attach -c "$2" >/dev/null
    say $(($(milliseconds) - start)) >>"$TALKMETER_DIR/attach.$1"
    progress "attach, $1: $(tail -n 1 "$TALKMETER_DIR/attach.$1") ms"
}

for ((round = 1; round <= rounds; round++)); do
    sql -c "CREATE DATABASE attach TEMPLATE unmetered" -c CHECKPOINT
    measure create "CREATE EXTENSION talkmeter"
    measure attach "SELECT talkmeter.attach('message', policy => 'agent_red', default_plan => 'agent_red/starter', since => '-infinity',
        mapping => '$message_mapping')"
    measure backfill "CALL talkmeter.backfill('message', '-infinity', now())"
    assert_metered attach
    found=$(sql -d attach -c "SELECT count(*) FROM talkmeter.charges")
    [ "$found" = "$conversations" ] || die "$found charges of $conversations conversations: the measurement is void."
    measure detach "SELECT talkmeter.detach('message')"
    measure drop "DROP EXTENSION talkmeter"
    sql -c "DROP DATABASE attach"
done

say "### Attach and back out" "" "A table of $(grouped "$rows") messages with the advised index, 20 in each of $(grouped "$conversations")\
 conversations; $rounds rounds, medians." "" "| | s |" "|---|--:|"
row() { say "| $2 | $(calculate %.2f "$(median <"$TALKMETER_DIR/attach.$1") / 1000") |"; }
row create "CREATE EXTENSION"
row attach "attach: from now on what is inserted is metered"
row backfill "backfill of all of it, while the application may write"
row detach "detach"
row drop "DROP EXTENSION, with the books of all these conversations"
