#!/usr/bin/env bash
# How long does a tenant's metering stop while it moves, and how long does all of it take?
#
# A tenant of a hundred thousand conversations, between two databases of this server. A dump is a COPY of its messages to a file.
set -euo pipefail
# shellcheck source=bench/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
rounds=${rounds:-3}
conversations=${CONVERSATIONS:-100000}

# Makes a database $1 with an attached table, like that of bench/attach.sh.
make_server() {
    sql -c "DROP DATABASE IF EXISTS $1" -c "CREATE DATABASE $1"
    PGOPTIONS="-c client_min_messages=warning" sql -d "$1" -c "CREATE EXTENSION talkmeter" -c "$message_table" \
        -c "CREATE INDEX ON message (tenant_id, conversation_id, created_at)" \
        -c "SELECT talkmeter.attach('message', policy => 'agent_red', default_plan => 'agent_red/starter',
            mapping => '$message_mapping')" >/dev/null
}

# The milliseconds since $2 go to a file that is named after the step $1.
passed() {
    say $(($(milliseconds) - $2)) >>"$TALKMETER_DIR/move.$1"
    progress "move, $1: $(tail -n 1 "$TALKMETER_DIR/move.$1") ms"
}

make_server move_old
sql -d move_old -c "INSERT INTO message (tenant_id, conversation_id, created_at, sender, body)
    SELECT 'acme', 'conversation-' || c, timestamptz '2026-01-01 00:00+00' + c * interval '10 s' + m * interval '20 s',
        (ARRAY['user', 'bot'])[1 + m % 2], '$body'
    FROM generate_series(0, $conversations - 1) AS c, generate_series(0, 19) AS m" \
    -c "SELECT talkmeter.sweep()" -c "VACUUM ANALYZE" >/dev/null
assert_metered move_old

for ((round = 1; round <= rounds; round++)); do
    make_server move_new
    sql -c CHECKPOINT
    start=$(milliseconds)
    sql -d move_old -c "COPY (SELECT * FROM message WHERE tenant_id = 'acme') TO STDOUT" >"$TALKMETER_DIR/messages"
    passed dump "$start"
    start=$(milliseconds)
    PGOPTIONS="-c session_replication_role=replica" sql -d move_new -c "COPY message FROM STDIN" <"$TALKMETER_DIR/messages" >/dev/null
    passed load "$start"
    rm -f "$TALKMETER_DIR/messages"
    sql -d move_new -c "CREATE UNLOGGED TABLE books (line bigint, relation text, content text[])"
    start=$(milliseconds)
    sql -d move_new -c "SELECT talkmeter.expect_tenant('acme')" >/dev/null
    sql -d move_old -c "SELECT talkmeter.begin_move('acme')" >/dev/null
    sql -d move_old -c "COPY (SELECT * FROM talkmeter.export_tenant('acme')) TO STDOUT" |
        sql -d move_new -c "COPY books FROM STDIN" >/dev/null
    passed export "$start"
    imported=$(milliseconds)
    sql -d move_new -c "SELECT talkmeter.import_tenant('books')" >/dev/null
    passed import "$imported"
    passed stop "$start"
    [ "$(sql -d move_new -c "SELECT count(*) FROM talkmeter.charges")" = "$conversations" ] || die "not all charges have come."
    sql -d move_old -c "SELECT talkmeter.cancel_move('acme')" >/dev/null
done

dump=$(median <"$TALKMETER_DIR/move.dump")
say "### Moving a tenant" "" "A tenant of $(grouped "$conversations") conversations with 20 messages, a part and a charge each;\
 $rounds rounds, medians." "" "| | s | dumps |" "|---|--:|--:|"
row() {
    local took
    took=$(median <"$TALKMETER_DIR/move.$1")
    say "| $2 | $(calculate %.1f "$took / 1000") | $(calculate %.1f "$took / $dump") |"
}
row dump "a dump of its messages"
row load "copying them in, unseen by the triggers"
row export "\`begin_move\`, and its books exported and copied over"
row import "\`import_tenant\`"
row stop "**its metering stops**, in all"
