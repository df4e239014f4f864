# shellcheck shell=bash disable=SC2034
# What do all parts of the benchmark need? Databases with the peers, runs of pgbench, CPU time, medians.
#
# A part is a file beside this one. It sources this file, inside scripts/with-cluster.sh, and prints one table. What is set here and
# not used is for the parts.
set -euo pipefail
bench=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=scripts/cluster.sh
. "$bench/../scripts/cluster.sh"
[ -n "${TALKMETER_DIR:-}" ] || die "the benchmark runs on a private server: use make bench, or scripts/with-cluster.sh."

peers=(bare empty floor plpgsql talkmeter)
rounds=${ROUNDS:-}         # empty: each part has its own default
seconds=${SECONDS_EACH:-3} # of each run of pgbench
long=${LONG:+1}
# 185 characters, as a customer may write and a model answer.
text=$(printf 'what the customer wrote, or what was answered. %.0s' 1 2 3 4)
body=${text:0:185}

what_peers_are() {
    case $1 in
    bare) say "not metered" ;;
    empty) say "empty statement trigger" ;;
    floor) say "floor (C, one state row)" ;;
    plpgsql) say "PL/pgSQL row trigger" ;;
    talkmeter) say "**talkmeter**" ;;
    esac
}

commit_named() { if [ "$1" = on ]; then say durable; else say asynchronous; fi; }
index_named() { if [ "$1" = true ]; then say advised; else say none; fi; }

sql() { "$TALKMETER_BIN/psql" -X -q -At -v ON_ERROR_STOP=1 "$@"; }
progress() { printf '  %s\n' "$*" >&2; }

# --- Numbers ---

# Of the first column of the standard input.
median() { sort -n | awk '{ all[NR] = $1 } END { print (NR % 2) ? all[(NR + 1) / 2] : (all[NR / 2] + all[NR / 2 + 1]) / 2 }'; }

milliseconds() { say $(($(date +%s%N) / 1000000)); }

# Evaluates an expression of awk and prints it in a format: calculate %.2f 1/3
calculate() { awk "BEGIN { s = sprintf(\"$1\", $2); if (s + 0 == 0) sub(/^-/, \"\", s); print s }"; }

# 1234567 as 1,234,567.
grouped() { awk -v n="$1" 'BEGIN { s = sprintf("%d", n + 0.5); while (match(s, /[0-9][0-9][0-9][0-9]($|,)/))
    s = substr(s, 1, RSTART) "," substr(s, RSTART + 1); print s }'; }

# Does the server have processes that serve somebody, or are just ending?
has_sessions() {
    local children child
    read -ra children <"/proc/$1/task/$1/children" || true
    for child in "${children[@]}"; do
        # One that ends has lost its title already, and is not yet in the sum.
        grep -aEqs 'checkpointer|background writer|walwriter|launcher' "/proc/$child/cmdline" || return 0
    done
    return 1
}

# CPU time that the server's ended processes have used, in milliseconds. A session counts once it has ended, so a run is
# measured from outside: before it begins, and when all its sessions are gone.
server_cpu() { cpu_of_server data; }

# The same of the server that has its data there.
cpu_of_server() {
    local postmaster
    postmaster=$(head -n 1 "$TALKMETER_DIR/$1/postmaster.pid")
    while has_sessions "$postmaster"; do sleep 0.02; done
    # After the name, which may hold blanks: the state is field 1, cutime and cstime are 14 and 15.
    sed 's/^.*) //' "/proc/$postmaster/stat" | awk -v tick="$(getconf CLK_TCK)" '{ printf "%d\n", ($14 + $15) * 1000 / tick }'
}

# --- The server ---

server_stop() { as_server "$TALKMETER_BIN/pg_ctl" stop -D "$TALKMETER_DIR/data" -m fast -s -w -t 600; }
server_start() { as_server "$TALKMETER_BIN/pg_ctl" start -D "$TALKMETER_DIR/data" -l "$TALKMETER_DIR/log" -s -w -t 600; }

# Starts the server with a disk that takes a millisecond more to make a write durable.
server_start_on_slow_disk() {
    local library=$TALKMETER_DIR/slow_flush.so
    cc -O2 -Wall -fPIC -shared -o "$library" "$bench/slow_flush.c" -ldl
    chmod 755 "$library"
    as_server env LD_PRELOAD="$library" \
        "$TALKMETER_BIN/pg_ctl" start -D "$TALKMETER_DIR/data" -l "$TALKMETER_DIR/log" -s -w -t 600
}

# The disk's own pace: microseconds to make one 8 kB write durable.
flush_time() {
    local found=$TALKMETER_DIR/flush_time
    if [ ! -f "$found" ]; then
        as_server "$TALKMETER_BIN/pg_test_fsync" -s 1 -f "$TALKMETER_DIR/data/flush" 2>/dev/null |
            awk '/fdatasync/ && /usecs/ { printf "%.0f\n", $(NF - 1); exit }' >"$found"
    fi
    cat "$found"
}

# --- Databases ---

peers_library() {
    local library=$TALKMETER_DIR/peers.so
    if [ ! -f "$library" ]; then
        cc -O2 -Wall -fPIC -shared -I"$("$(find_pg_config)" --includedir-server)" -o "$library" "$bench/floor.c"
        chmod 755 "$library"
    fi
    say "$library"
}

# Makes database $1 anew, with a table of each peer; $2: have the tables the index that talkmeter advises?
fresh_database() {
    local template=peers_indexed_$2 library
    library=$(peers_library)
    if [ "$(sql -c "SELECT count(*) FROM pg_database WHERE datname = '$template'")" = 0 ]; then
        sql -c "CREATE DATABASE $template"
        sql -d "$template" -v library="$library" -v indexed="$2" -f "$bench/peers.sql"
    fi
    sql -c "SET client_min_messages = warning" -c "DROP DATABASE IF EXISTS $1"
    sql -c "CREATE DATABASE $1 TEMPLATE $template"
}

# Stops with what talkmeter could not meter in database $1: then the numbers would be of another work.
assert_metered() {
    local lost
    lost=$(sql -d "$1" -c 'SELECT count(*) FROM talkmeter.quarantined')
    [ "$lost" = 0 ] || die "$lost rows are in quarantine: the measurement is void."
}

# --- Single rows ---

# Writes a script for pgbench that inserts a message into the table of peer $1. Each client has 50 open conversations, of
# about eight messages each, then the next 50; user or bot by chance. So about one message in nine charges a unit.
write_message_script() {
    cat >"$TALKMETER_DIR/$1.sql" <<SQL
\set n :n + 1
\set conversation :round * 100000000 + :client_id * 1000000 + :n / 400 * 50 + random(0, 49)
\set tenant :conversation % :tenants
\set bot random(0, 1)
INSERT INTO message_$1 (tenant_id, conversation_id, created_at, sender, body)
VALUES ('tenant-' || :tenant, 'conversation-' || :conversation, clock_timestamp(), CASE WHEN :bot = 1 THEN 'bot' ELSE 'user' END,
    '$body');
SQL
}

# Each run has conversations of its own.
runs=0

# Runs a script: run_script DATABASE SCRIPT CLIENTS TENANTS ARGUMENT... Prints transactions per second, and CPU time of the
# server per transaction in microseconds.
run_script() {
    local database=$1 script=$2 clients=$3 tenants=$4 before after
    shift 4
    before=$(server_cpu)
    "$TALKMETER_BIN/pgbench" -n -M prepared -c "$clients" -j "$clients" -T "$seconds" -D n=0 -D round="$runs" -D tenants="$tenants" \
        -f "$TALKMETER_DIR/$script.sql" "$@" "$database" >"$TALKMETER_DIR/pgbench.out" 2>"$TALKMETER_DIR/pgbench.err" ||
        die "pgbench failed:" "$(cat "$TALKMETER_DIR/pgbench.err")"
    after=$(server_cpu)
    awk -v cpu=$((after - before)) '/^number of transactions actually/ { n = $NF } /^tps/ { tps = $3 }
        /^number of failed transactions: [1-9]/ { exit 1 } END { printf "%.1f %.1f\n", tps, cpu * 1000 / n }' "$TALKMETER_DIR/pgbench.out"
}

# --- One table, attached or not ---

# shellcheck disable=SC2034 # for the parts
message_table="CREATE TABLE message (
        id bigserial PRIMARY KEY, tenant_id text NOT NULL, conversation_id text NOT NULL, created_at timestamptz NOT NULL,
        sender text NOT NULL, body text)"
# shellcheck disable=SC2034 # for the parts
message_mapping='{"kinds": [ {"when": {"sender": "user"}, "kind": "customer_message"}, {"kind": "ai_reply"} ] }'

# --- Many rows ---

# Writes a file of $1 messages in time order, $2 in each conversation, as an archive would have them: 1,000 conversations at
# a time, over 200 tenants. The server writes it, so it can read it.
write_rows() {
    sql -c "COPY (
        SELECT i, 'tenant-' || (i % 1000) % 200, 'conversation-' || i / (1000 * $2) * 1000 + i % 1000,
            timestamptz '2026-01-01 00:00+00' + i * interval '1 millisecond',
            (ARRAY['user', 'bot'])[1 + i / 1000 % $2 % 2], '$body'
        FROM generate_series(0, $1 - 1) AS i) TO '$3'"
}

# --- A ledger ---

# Makes a database ledger_$1 with $1 charges, unless a part before has made it: 200 tenants over 90 days up to now, allowance,
# a pack and overage, two parts in each conversation, one charge in 200 credited, the months that are over but the last
# finalized. All of it comes about as it does in use: by messages and calls.
make_ledger() {
    local database=ledger_$1 units=$(($1 / 200))
    [ "$(sql -c "SELECT count(*) FROM pg_database WHERE datname = '$database'")" = 0 ] || return 0
    progress "making a ledger of $1 charges"
    fresh_database "$database" true
    sql -d "$database" >/dev/null <<SQL
SELECT now() - interval '90 days' AS since \gset
SELECT talkmeter.define_pack('{"name": "200", "size": 200, "price": 9, "currency": "USD", "valid_for": "50 days"}');
SELECT talkmeter.subscribe('tenant-' || t, 'agent_red/starter', since => :'since', anchor_day => 1) FROM generate_series(0, 199) AS t;
SELECT talkmeter.buy_pack('tenant-' || t, '200', purchased_at => :'since') FROM generate_series(0, 199) AS t;
INSERT INTO message_talkmeter (tenant_id, conversation_id, created_at, sender, body)
SELECT 'tenant-' || t, 'conversation-' || t || '-' || n % ($units / 2),
    :'since'::timestamptz + n * interval '89 days' / $units + t * interval '1 millisecond' + m * interval '1 minute',
    (ARRAY['user', 'bot'])[1 + m], 'a message'
FROM generate_series(0, $units - 1) AS n, generate_series(0, 199) AS t, generate_series(0, 1) AS m
ORDER BY n, m, t;
SELECT talkmeter.credit(tenant, charge_id, 'as a courtesy') FROM talkmeter.charges WHERE charge_id % 200 = 0;
SELECT talkmeter.finalize(tenant, period_start) FROM (
    SELECT DISTINCT tenant, period_start FROM talkmeter.usage_history WHERE period_end <= now() - interval '1 month'
    ORDER BY period_start, tenant) AS over;
VACUUM ANALYZE;
CHECKPOINT;
SQL
    assert_metered "$database"
}

# Prints the median of milliseconds that a statement takes in a session that has run it once: milliseconds_of DATABASE SQL [TIMES]
milliseconds_of() {
    local n
    {
        say "$2;" '\timing on'
        for ((n = 0; n < ${3:-9}; n++)); do say "$2;"; done
    } | sql -d "$1" | sed -n 's/^Time: \([0-9.]*\) ms.*/\1/p' | median
}

# --- Instructions ---

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
    command -v valgrind >/dev/null || die "valgrind is missing: run make setup."
    as_server valgrind --tool=callgrind --callgrind-out-file="$TALKMETER_DIR/callgrind.out" --trace-children=no \
        "$TALKMETER_BIN/postgres" --single -D "$TALKMETER_DIR/data" -c fsync=off -c shared_buffers=64MB "$1" \
        >"$TALKMETER_DIR/instructions.out" 2>"$TALKMETER_DIR/instructions.err" ||
        die "valgrind failed:" "$(tail -n 20 "$TALKMETER_DIR/instructions.err")"
    if grep -m 3 ERROR "$TALKMETER_DIR/instructions.err" >&2; then die "an insert failed."; fi
    awk '/Collected/ { print $NF }' "$TALKMETER_DIR/instructions.err"
}

# Prints the instructions of an insert into the table of peer $1 in database $2, while the server is stopped. A backend without
# a server executes prepared inserts under valgrind: 400 of them, then 1,200. The difference, divided by 800, leaves out the
# start and the first use of everything.
instructions_per_insert() {
    local few many
    few=$(write_inserts "$1" 400 1000000 | instructions "$2")
    many=$(write_inserts "$1" 1200 2000000 | instructions "$2")
    say $(((many - few) / 800))
}
