//! Is what a transaction keeps metered once, and what it takes back not at all, at any isolation, among many clients?

use std::thread;
use talkmeter_tests::{
    Database, PLAN, Random, Session, assert_same_rows, attach, create_messages, messages_mapping, metered,
    standing_charges, tell, traces,
};

/// A conversation that leaves every kind of trace: a part, a charge, and a row in quarantine.
fn tell_all(session: &mut Session, conversation: &str) {
    tell(session, "acme", conversation, "10:00 exchange, 10:01 unheard_of");
}

/// The conversations that were metered, with messages counted.
fn counted(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation, sum(message_count) FROM talkmeter.parts GROUP BY 1 ORDER BY 1")
}

const NO_TRACE: [&str; 0] = [];

// --- Rollback ---

#[test]
fn a_rolled_back_transaction_leaves_no_trace() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell_all(&mut session, "c");
    session.run("ROLLBACK");
    assert_eq!(traces(&mut session), NO_TRACE);
    session.run("BEGIN");
    tell_all(&mut session, "c");
    session.run("SELECT talkmeter.flush(); ROLLBACK");
    assert_eq!(traces(&mut session), NO_TRACE);
    // Nor does it leave anything to the session's next transaction.
    tell_all(&mut session, "next");
    assert_eq!(counted(&mut session), ["next|2"]);
}

#[test]
fn a_transaction_that_failed_leaves_no_trace() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell_all(&mut session, "c");
    session.refused("SELECT 1 / 0");
    session.run("COMMIT");
    assert_eq!(traces(&mut session), NO_TRACE);
}

#[test]
fn a_rolled_back_savepoint_leaves_no_trace() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN; SAVEPOINT s");
    tell_all(&mut session, "c");
    session.run("ROLLBACK TO SAVEPOINT s; COMMIT");
    assert_eq!(traces(&mut session), NO_TRACE);
}

#[test]
fn a_block_of_a_function_that_failed_leaves_no_trace() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "DO $$ BEGIN
             INSERT INTO messages (tenant_id, conversation_id, kind)
             VALUES ('acme', 'c', 'exchange'), ('acme', 'c', 'unheard_of');
             RAISE division_by_zero;
         EXCEPTION WHEN division_by_zero THEN NULL;
         END $$",
    );
    assert_eq!(traces(&mut session), NO_TRACE);
}

/// A transaction of random savepoints, inserts and flushes, as SQL. Every kept row counts as one message or, without a
/// conversation, as one row in quarantine.
fn random_transaction(random: &mut Random, tenant: &str) -> String {
    let mut statements = vec!["BEGIN".to_owned()];
    let mut savepoints: Vec<usize> = Vec::new();
    let mut inserted = 0;
    let mut insert = |random: &mut Random| {
        inserted += 1;
        let conversation = ["'a'", "'b'", "'c'", "NULL"][random.below(4)];
        format!(
            "INSERT INTO messages \
             VALUES (DEFAULT, '{tenant}', {conversation}, '2026-03-01 10:00:00.{inserted:06}', 'customer_message')"
        )
    };
    for step in 0..4 + random.below(28) {
        match random.below(10) {
            0..3 => statements.push(insert(random)),
            3..5 => {
                savepoints.push(step);
                statements.push(format!("SAVEPOINT s{step}"));
            }
            5 => {
                let kept = random.below(savepoints.len() + 1);
                if let Some(released) = savepoints.get(kept).copied() {
                    savepoints.truncate(kept);
                    statements.push(format!("RELEASE SAVEPOINT s{released}"));
                }
            }
            6 => {
                let kept = random.below(savepoints.len() + 1);
                if let Some(target) = savepoints.get(kept).copied() {
                    savepoints.truncate(kept + 1);
                    statements.push(format!("ROLLBACK TO SAVEPOINT s{target}"));
                }
            }
            7..9 => statements.push("SELECT talkmeter.flush()".to_owned()),
            _ => statements.push(format!(
                "DO $$ BEGIN {}; BEGIN {}; PERFORM talkmeter.flush() WHERE {}; RAISE division_by_zero;\n\
                 EXCEPTION WHEN division_by_zero THEN NULL; END; END $$",
                insert(random),
                insert(random),
                random.below(2) == 0,
            )),
        }
    }
    statements.push(if random.below(8) == 0 { "ROLLBACK" } else { "COMMIT" }.to_owned());
    statements.join(";\n")
}

#[test]
fn of_any_nesting_of_savepoints_and_flushes_the_rows_that_stay_are_metered() {
    let (_database, mut session) = metered("lutingenie");
    session.run("CREATE INDEX ON messages (tenant_id)");
    let (mut random, seed) = Random::seeded();
    for number in 0..1_000 {
        let tenant = format!("run {number}");
        let transaction = random_transaction(&mut random, &tenant);
        session.run(&transaction);
        let rows = session.lines(&format!(
            "SELECT coalesce(conversation_id, 'in quarantine'), count(*) FROM messages WHERE tenant_id = '{tenant}'
             GROUP BY 1 ORDER BY 1"
        ));
        let metered = session.lines(&format!(
            "SELECT conversation, sum(message_count) FROM talkmeter.part WHERE tenant = '{tenant}' GROUP BY 1
             UNION ALL
             SELECT 'in quarantine', count(*) FROM talkmeter.quarantined WHERE tenant = '{tenant}' HAVING count(*) > 0
             ORDER BY 1"
        ));
        let known = session
            .lines(&format!("SELECT conversation FROM talkmeter.conversation WHERE tenant = '{tenant}' ORDER BY 1"));
        let conversations: Vec<_> = rows.iter().filter(|row| !row.starts_with("in ")).map(|row| &row[..1]).collect();
        assert!(
            metered == rows && known == conversations,
            "TALKMETER_SEED={seed} transaction {number}:\n{transaction}
rows    {rows:?}\nmetered {metered:?}\nknown   {known:?}"
        );
    }
}

// --- Flush ---

#[test]
fn after_flush_a_transaction_sees_its_own_messages() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(counted(&mut session), [""; 0]);
    session.run("SELECT talkmeter.flush()");
    assert_eq!(counted(&mut session), ["c|2"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
}

#[test]
fn flush_twice_and_more_rows_after_it_meter_each_row_once() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run("SELECT talkmeter.flush(); SELECT talkmeter.flush()");
    tell(&mut session, "acme", "c", "10:01 exchange");
    session.run("SELECT talkmeter.flush()");
    tell(&mut session, "acme", "c", "10:02 exchange");
    session.run("COMMIT");
    assert_eq!(counted(&mut session), ["c|6"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
}

#[test]
fn rows_of_before_a_savepoint_are_metered_although_their_flush_was_rolled_back() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "before", "10:00 exchange");
    session.run("SAVEPOINT s");
    tell(&mut session, "acme", "inside", "10:00 exchange");
    session.run("SELECT talkmeter.flush(); ROLLBACK TO SAVEPOINT s");
    tell(&mut session, "acme", "after", "10:00 exchange");
    session.run("COMMIT");
    assert_eq!(counted(&mut session), ["after|2", "before|2"]);
}

#[test]
fn rows_flushed_in_a_released_savepoint_go_with_the_one_around_it() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "before", "10:00 exchange");
    session.run("SAVEPOINT outer_one");
    tell(&mut session, "acme", "outer", "10:00 exchange");
    session.run("SAVEPOINT inner_one");
    tell(&mut session, "acme", "inner", "10:00 exchange");
    session.run("SELECT talkmeter.flush(); RELEASE SAVEPOINT inner_one; ROLLBACK TO SAVEPOINT outer_one; COMMIT");
    assert_eq!(session.lines("SELECT conversation_id FROM messages"), ["before"]);
    assert_eq!(counted(&mut session), ["before|2"]);
}

/// Rows that are more than the meter holds in memory, of 100 conversations of their own.
const MANY: usize = 200_000;

fn tell_many(session: &mut Session, name: &str) {
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', '{name} ' || n % 100, '2026-03-01'::timestamptz + n * interval '1 millisecond', 'ai_reply'
         FROM generate_series(1, {MANY}) AS n"
    ));
}

#[test]
fn savepoints_take_back_more_rows_than_memory_holds() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', name || n, '2026-03-01', 'customer_message'
         FROM unnest(ARRAY['kept ', 'lost ', 'again ', 'flushed ', 'last ']) AS name, generate_series(0, 99) AS n;
         BEGIN",
    );
    tell_many(&mut session, "kept");
    session.run("SAVEPOINT one");
    tell_many(&mut session, "lost");
    session.run("ROLLBACK TO SAVEPOINT one");
    tell_many(&mut session, "again");
    session.run("SAVEPOINT two");
    tell_many(&mut session, "flushed");
    session.run("SELECT talkmeter.flush(); ROLLBACK TO SAVEPOINT two");
    tell_many(&mut session, "last");
    session.run("PREPARE TRANSACTION 'many'");
    session.run("COMMIT PREPARED 'many'");
    let replies = session
        .lines("SELECT split_part(conversation, ' ', 1), sum(ai_replies) FROM talkmeter.parts GROUP BY 1 ORDER BY 1");
    assert_eq!(replies, ["again|200000", "flushed|0", "kept|200000", "last|200000", "lost|0"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "300");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), [""; 0]);
}

// --- What costs nothing ---

#[test]
fn a_statement_that_inserts_no_row_costs_nothing() {
    let (database, _) = metered("lutingenie");
    // A session that has not met the extension yet, then one that has.
    let mut session = database.connect();
    for _ in 0..2 {
        session.run(
            "BEGIN;
             INSERT INTO messages (tenant_id, conversation_id, kind) SELECT 'acme', 'c', 'exchange' WHERE false;
             SELECT talkmeter.flush()",
        );
        assert_eq!(session.line("SELECT pg_current_xact_id_if_assigned()"), "");
        session.run("COMMIT");
        assert_eq!(traces(&mut session), NO_TRACE);
    }
}

#[test]
fn rows_that_are_ignored_leave_no_trace() {
    let database = Database::fresh("ignored");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", PLAN, r#"{"kinds": [{"kind": "ignore"}]}"#);
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(traces(&mut session), NO_TRACE);
}

#[test]
fn reports_write_nothing() {
    let (_database, mut session) = metered("lutingenie");
    tell_all(&mut session, "c");
    session.run("BEGIN READ ONLY");
    let views = session.lines("SELECT viewname FROM pg_views WHERE schemaname = 'talkmeter'");
    assert!(views.len() > 5);
    for view in views {
        session.run(&format!("SELECT * FROM talkmeter.{view}"));
    }
    session.run("SELECT talkmeter.balance('acme')");
    assert_eq!(session.line("SELECT pg_current_xact_id_if_assigned()"), "");
}

// --- Ways to commit ---

#[test]
fn a_prepared_transaction_is_metered_when_it_is_committed() {
    let (database, mut session) = metered("lutingenie");
    let mut other = database.connect();
    session.run("BEGIN");
    tell_all(&mut session, "c");
    session.run("PREPARE TRANSACTION 'one'");
    assert_eq!(traces(&mut other), NO_TRACE);
    // The session's next transaction is another.
    tell(&mut session, "other", "c2", "10:00 exchange");
    assert_eq!(counted(&mut other), ["c2|2"]);
    other.run("COMMIT PREPARED 'one'");
    assert_eq!(counted(&mut session), ["c|2", "c2|2"]);
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), ["no_kind"]);
}

#[test]
fn a_prepared_transaction_that_is_rolled_back_leaves_no_trace() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell_all(&mut session, "c");
    session.run("PREPARE TRANSACTION 'two'");
    session.run("ROLLBACK PREPARED 'two'");
    assert_eq!(traces(&mut session), NO_TRACE);
}

#[test]
fn a_procedure_that_commits_is_metered_commit_by_commit() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "CREATE PROCEDURE talk() LANGUAGE plpgsql AS $$
         BEGIN
             FOR n IN 1..4 LOOP
                 INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', 'c' || n, 'exchange');
                 IF n % 2 = 0 THEN ROLLBACK; ELSE COMMIT; END IF;
             END LOOP;
         END $$",
    );
    session.run("CALL talk()");
    assert_eq!(counted(&mut session), ["c1|2", "c3|2"]);
}

#[test]
fn rows_of_a_deferred_trigger_are_metered() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "CREATE TABLE tickets (id text);
         CREATE FUNCTION answer() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', NEW.id, 'exchange');
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER answer AFTER INSERT ON tickets DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION answer()",
    );
    session.run("INSERT INTO tickets VALUES ('c1'), ('c2')");
    assert_eq!(counted(&mut session), ["c1|2", "c2|2"]);
}

#[test]
fn a_table_attached_and_filled_in_one_transaction_is_metered() {
    let database = Database::fresh("attached");
    let mut session = database.connect();
    for end in ["ROLLBACK", "COMMIT"] {
        session.run("BEGIN");
        create_messages(&mut session);
        attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
        tell(&mut session, "acme", "c", "10:00 exchange");
        session.run(end);
    }
    assert_eq!(counted(&mut session), ["c|2"]);
}

/// What a transaction may do after its last message, none of which is the meter's business.
fn commits_after(statement: &str) {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run(statement);
    session.run("COMMIT");
    assert_eq!(counted(&mut session), ["c|2"]);
}

/// A transaction that takes its own rows away commits, and has metered nothing.
fn never_were(statement: &str) {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange, 10:01 visit");
    session.run(statement);
    session.run("COMMIT");
    assert_eq!(counted(&mut session), NO_TRACE);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "0");
    // Only its own: of rows that were taken away, those of after are metered.
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:02 exchange");
    session.run(statement);
    tell(&mut session, "acme", "c", "10:03 exchange");
    session.run("COMMIT");
    assert_eq!(counted(&mut session), ["c|2"]);
}

#[test]
fn a_transaction_that_becomes_read_only_commits() {
    commits_after("SET TRANSACTION READ ONLY");
}

#[test]
fn a_transaction_that_drops_the_table_commits() {
    commits_after("DROP TABLE messages");
}

#[test]
fn a_transaction_that_detaches_the_table_commits() {
    commits_after("SELECT talkmeter.detach('messages')");
}

#[test]
fn rows_that_their_transaction_truncates_never_were() {
    never_were("TRUNCATE messages");
}

#[test]
fn rows_that_their_transaction_deletes_never_were() {
    never_were("DELETE FROM messages");
}

#[test]
fn a_transaction_that_drops_the_extension_commits() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run("SELECT talkmeter.detach('messages'); DROP EXTENSION talkmeter; COMMIT");
    assert_eq!(session.line("SELECT count(*) FROM messages"), "1");
}

// --- Isolation and concurrency ---

#[test]
fn messages_are_metered_at_every_isolation_level() {
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let (database, mut session) = metered("lutingenie");
        let mut other = database.connect();
        // The other commits into the same conversation, and charges the same tenant, after our snapshot was taken.
        session.run(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM messages"));
        if level != "SERIALIZABLE" {
            tell(&mut other, "acme", "c", "10:00 exchange");
            tell(&mut other, "acme", "d", "10:00 exchange");
        }
        tell(&mut session, "acme", "c", "10:01 exchange");
        tell(&mut session, "acme", "e", "10:01 exchange");
        session.run("COMMIT");
        let wanted: &[&str] = if level == "SERIALIZABLE" { &["c|2", "e|2"] } else { &["c|4", "d|2", "e|2"] };
        assert_eq!(counted(&mut session), wanted, "{level}");
        let ids = session.line("SELECT string_agg(charge_id::text, ' ' ORDER BY charge_id) FROM talkmeter.charges");
        assert_eq!(ids, if level == "SERIALIZABLE" { "1 2" } else { "1 2 3" }, "{level}");
    }
}

#[test]
fn two_first_messages_of_a_conversation_at_once_at_repeatable_read_both_commit() {
    let (database, mut first) = metered("lutingenie");
    let mut second = database.connect();
    for session in [&mut first, &mut second] {
        session.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM messages");
    }
    tell(&mut first, "acme", "c", "10:00 exchange");
    tell(&mut second, "acme", "c", "10:01 exchange");
    // Holds the conversation and the tenant until its commit.
    first.run("SELECT talkmeter.flush()");
    let pid = second.pid();
    let committed = thread::spawn(move || second.run("COMMIT"));
    first.wait_until_blocked(pid);
    first.run("COMMIT");
    committed.join().expect("the second commit");
    assert_eq!(counted(&mut first), ["c|4"]);
    assert_eq!(first.line("SELECT count(*) FROM talkmeter.charges"), "1");
}

#[test]
fn an_open_transaction_delays_nobody() {
    let (database, mut first) = metered("lutingenie");
    let mut second = database.connect();
    first.run("BEGIN");
    tell(&mut first, "acme", "c", "10:01 exchange");
    second.run("SET lock_timeout = '10s'");
    tell(&mut second, "acme", "c", "10:00 exchange");
    first.run("COMMIT");
    assert_eq!(counted(&mut first), ["c|4"]);
}

/// Eight clients, transactions of three rows, twenty conversations of eight tenants in any order.
fn eight_clients(level: &str) {
    const CLIENTS: u64 = 8;
    const TRANSACTIONS: usize = 150;
    let (database, mut session) = metered("lutingenie");
    let seed = Random::seeded().1;
    println!("TALKMETER_SEED={seed}");
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut session = database.connect();
            let mut random = Random::new(seed.wrapping_add(client));
            scope.spawn(move || {
                session.run(&format!("SET default_transaction_isolation = '{level}'"));
                for _ in 0..TRANSACTIONS {
                    session.run("BEGIN");
                    for _ in 0..3 {
                        let conversation = random.below(20);
                        let kind = if random.below(3) == 0 { "visit" } else { "exchange" };
                        session.run(&format!(
                            "INSERT INTO messages (tenant_id, conversation_id, kind)
                             VALUES ('t{}', 'c{conversation}', '{kind}')",
                            conversation % 8
                        ));
                    }
                    session.run("COMMIT");
                }
            });
        }
    });
    assert_eq!(session.lines("SELECT DISTINCT reason FROM talkmeter.quarantine"), NO_TRACE);
    let lost =
        session.line("SELECT 2 * (SELECT count(*) FROM messages) - (SELECT sum(message_count) FROM talkmeter.parts)");
    assert_eq!(lost, "0", "messages not counted");
    let rows = session.line("SELECT count(*) FROM messages");
    assert_eq!(rows, (CLIENTS as usize * TRANSACTIONS * 3).to_string());
    let gaps = session.lines(
        "SELECT tenant FROM talkmeter.charges GROUP BY tenant
         HAVING min(charge_id) <> 1 OR max(charge_id) <> count(*) OR count(DISTINCT charge_id) <> count(*)",
    );
    assert_eq!(gaps, [""; 0], "tenants whose charge ids have gaps");
    // Not their instants: a charge whose instant moves inside its period stays as posted.
    let key = "tenant, conversation, part";
    let billable = session.lines(&format!("SELECT {key} FROM talkmeter.parts WHERE billable ORDER BY {key}"));
    assert!(billable.len() > 20);
    assert_same_rows(&standing_charges(&mut session, key), &billable);
}

#[test]
fn eight_clients_at_read_committed_meet_no_error_and_lose_nothing() {
    eight_clients("read committed");
}

#[test]
fn eight_clients_at_repeatable_read_meet_no_error_and_lose_nothing() {
    eight_clients("repeatable read");
}
