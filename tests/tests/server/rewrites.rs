//! Is nothing lost, charged twice or misread when a table changes while the meter waits for it?
//!
//! A rewrite gives every row a new transaction: a snapshot that is older than the lock sees an empty table.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use talkmeter_tests::{
    Database, PLAN, Random, Session, assert_same_rows, at_length, metered, standing_charges, tell, variable,
};

const NOTHING: [&str; 0] = [];

/// Rewrites every row of the table.
fn rewrite(table: &str) -> String {
    format!(
        "ALTER TABLE {table} ADD COLUMN rewritten uuid DEFAULT gen_random_uuid();
         ALTER TABLE {table} DROP COLUMN rewritten"
    )
}

/// Does `waiting` while another session holds the table, makes the change and commits.
fn while_changed(
    database: &Database,
    table: &str,
    change: &str,
    mut waiter: Session,
    waiting: impl FnOnce(&mut Session) + Send + 'static,
) -> Session {
    let (mut session, mut changer) = (database.connect(), database.connect());
    changer.run(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
    let pid = waiter.pid();
    let work: JoinHandle<Session> = thread::spawn(move || {
        waiting(&mut waiter);
        waiter
    });
    session.wait_until_blocked(pid);
    changer.run(&format!("{change}; COMMIT"));
    work.join().expect("the waiter")
}

/// A session that has made its plans.
fn warmed(database: &Database) -> Session {
    let mut session = database.connect();
    for round in 0..3 {
        tell(&mut session, "warm", &format!("warm {round}"), "10:00 exchange");
        tell(&mut session, "warm", &format!("warm {round}"), "09:59 note");
        session.run("SELECT talkmeter.retry_quarantine(), talkmeter.sweep()");
    }
    session
}

#[test]
fn a_migration_of_the_attached_table_makes_a_retry_forget_no_row() {
    let (database, mut session) = metered("lutingenie");
    let waiter = warmed(&database);
    session.run("SET talkmeter.enabled = off");
    for conversation in 0..100 {
        tell(&mut session, "acme", &format!("c{conversation}"), "10:00 exchange");
    }
    let retry = |waiter: &mut Session| {
        assert_eq!(waiter.line("SELECT talkmeter.retry_quarantine()"), "100");
    };
    while_changed(&database, "messages", &rewrite("messages"), waiter, retry);
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges WHERE tenant = 'acme'"), "100");
}

#[test]
fn a_migration_of_the_attached_table_makes_a_sweep_forget_no_row_that_was_ahead_of_the_clock() {
    let (database, mut session) = metered("lutingenie");
    let waiter = warmed(&database);
    session.run(
        "SET talkmeter.max_future = 0;
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', 'c' || n, clock_timestamp() + interval '2 s', 'exchange' FROM generate_series(1, 20) AS n",
    );
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine WHERE reason = 'future'"), "20");
    session.run("SELECT pg_sleep(2.1)");
    while_changed(&database, "messages", &rewrite("messages"), waiter, |waiter| waiter.run("SELECT talkmeter.sweep()"));
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges WHERE tenant = 'acme'"), "20");
}

#[test]
fn a_migration_of_the_attached_table_seals_no_late_mark() {
    let (database, mut session) = metered("lutingenie");
    let waiter = warmed(&database);
    tell(&mut session, "acme", "c", "10:00 exchange, 10:20 exchange");
    let mark = |waiter: &mut Session| waiter.run("SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 10:10+00')");
    while_changed(&database, "messages", &rewrite("messages"), waiter, mark);
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(standing_charges(&mut session, "part").len(), 5, "three to warm up, and two parts");
}

/// Gives every row a new transaction without a trigger's knowing, as a reload by hand does.
const RELOAD: &str = "
    SET LOCAL session_replication_role = replica;
    CREATE TEMP TABLE kept ON COMMIT DROP AS TABLE messages;
    TRUNCATE messages;
    INSERT INTO messages SELECT * FROM kept";

/// Works that read the attached table, each with what comes before it.
const WORKS: [(&str, &str, &str); 5] = [
    ("retry", "", "SELECT talkmeter.retry_quarantine()"),
    ("sweep", "", "SELECT talkmeter.sweep()"),
    ("mark", "", "SELECT talkmeter.mark('acme', 'c1', 'close', '2026-03-01 10:10+00')"),
    ("reconcile", "", "SELECT talkmeter.reconcile('2026-03-01')"),
    (
        "commit",
        "BEGIN; INSERT INTO others (tenant_id, conversation_id, created_at, kind)
             SELECT 'acme', 'c' || n, '2026-03-01 09:00+00', 'exchange' FROM generate_series(1, 20) AS n",
        "COMMIT",
    ),
];

/// Conversations with rows in two tables, rows in quarantine that can be metered by now, and what all works find.
fn readable(session: &mut Session) {
    session.run("CREATE TABLE others (LIKE messages INCLUDING ALL)");
    let mapping = talkmeter_tests::messages_mapping();
    talkmeter_tests::attach(session, "others", "lutingenie", PLAN, &mapping);
    session.run("SET talkmeter.max_future = 0");
    for n in 1..=20 {
        tell(session, "acme", &format!("c{n}"), "10:00 exchange, 10:20 exchange");
        session.run(&format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             VALUES ('acme', 'f{n}', clock_timestamp() + interval '1 s', 'exchange');
             INSERT INTO others (tenant_id, conversation_id, created_at, kind)
             VALUES ('acme', 'c{n}', '2026-03-01 10:21+00', 'exchange')"
        ));
    }
    session.run("SET talkmeter.enabled = off");
    tell(session, "acme", "d", "10:00 exchange, 11:00 exchange");
    session.run("RESET talkmeter.enabled; SELECT pg_sleep(1.1)");
}

/// All that a work may have changed.
fn found(session: &mut Session) -> Vec<String> {
    let parts = session.lines(
        "SELECT tenant, conversation, message_count, charged_at IS NULL FROM talkmeter.parts ORDER BY 1, 2, part",
    );
    let listed = session
        .lines("SELECT tenant, conversation, reason FROM talkmeter.quarantine ORDER BY 1, 2, 3, message_id::int");
    let days = session.lines(
        "SELECT tenant, day, charged, recounted, unprovable, flagged FROM talkmeter.reconciliations ORDER BY 1, 2",
    );
    [parts, listed, days, standing_charges(session, "tenant, conversation, tier")].concat()
}

#[test]
fn a_rewrite_and_a_reload_of_the_attached_table_change_nothing_of_what_waits_for_it() {
    for (work, before, statement) in WORKS {
        let after = |change: Option<&str>| {
            let (database, mut session) = metered("lutingenie");
            let mut waiter = warmed(&database);
            readable(&mut session);
            waiter.run(before);
            match change {
                Some(change) => {
                    drop(while_changed(&database, "messages", change, waiter, |waiter| waiter.run(statement)))
                }
                None => waiter.run(statement),
            }
            assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING, "{work}");
            found(&mut session)
        };
        let expected = after(None);
        assert_same_rows(&after(Some(&rewrite("messages"))), &expected);
        assert_same_rows(&after(Some(RELOAD)), &expected);
    }
}

/// Tells what cannot be metered, makes the change while a retry waits for the table, and says what is listed then.
fn listed_after_a_retry_that_met(change: &str) -> (Vec<String>, Database, Session) {
    let (database, mut session) = metered("lutingenie");
    let waiter = warmed(&database);
    session.run("SET talkmeter.enabled = off");
    tell(&mut session, "acme", "c", "10:00 exchange");
    let retry = |waiter: &mut Session| assert_eq!(waiter.line("SELECT talkmeter.retry_quarantine()"), "0");
    while_changed(&database, "messages", change, waiter, retry);
    let listed = session.lines("SELECT reason FROM talkmeter.quarantine");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges WHERE tenant <> 'warm'"), "0");
    (listed, database, session)
}

#[test]
fn a_table_that_takes_the_name_of_the_attached_one_while_it_is_waited_for_is_not_read() {
    let (listed, ..) = listed_after_a_retry_that_met(
        "ALTER TABLE messages RENAME TO moved;
         CREATE TABLE messages (LIKE moved);
         INSERT INTO messages SELECT * FROM moved;
         UPDATE messages SET tenant_id = 'somebody else'",
    );
    assert_eq!(listed, ["disabled"]);
}

/// The bytes of a number that are read as a text would be any memory of the process.
#[test]
fn a_column_that_gets_another_type_while_it_is_waited_for_is_not_read() {
    let (listed, _database, mut session) =
        listed_after_a_retry_that_met("ALTER TABLE messages ALTER COLUMN kind TYPE bigint USING length(kind)");
    assert_eq!(listed, ["disabled"]);
    session.run("ALTER TABLE messages ALTER COLUMN kind TYPE text USING 'exchange'; SET talkmeter.enabled = on");
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges WHERE tenant = 'acme'"), "1");
}

/// What a commit reads and writes.
const OWN: [&str; 13] = [
    "conversation",
    "ended_part",
    "marked",
    "quarantined",
    "tenant_lock",
    "account",
    "subscription",
    "plan",
    "period",
    "pack",
    "day_units",
    "charge",
    "threshold",
];

/// Tells a conversation that had a part and a charge of another, and one that is late.
fn tell_more(waiter: &mut Session) {
    waiter.run(
        "BEGIN; SET LOCAL lock_timeout = '60s';
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES
             ('acme', 'c', '2026-03-01 12:00+00', 'exchange'), ('acme', 'c', '2026-03-01 09:59+00', 'customer_message'),
             ('acme', 'new', '2026-03-01 12:00+00', 'exchange'), ('acme', 'bad', '2026-03-01 12:00+00', 'unheard of');
         SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 12:01+00');
         COMMIT",
    );
}

#[test]
fn a_rewrite_of_any_own_table_loses_no_message_and_charges_none_twice() {
    for table in OWN {
        let (database, mut session) = metered("lutingenie");
        session.run("SELECT talkmeter.buy_pack('acme', 'agent_red/1000')");
        tell(&mut session, "acme", "c", "10:00 exchange");
        let waiter = warmed(&database);
        let table = format!("talkmeter.{table}");
        while_changed(&database, &table, &rewrite(&table), waiter, tell_more);
        let parts = "SELECT conversation, part, message_count FROM talkmeter.parts WHERE tenant = 'acme' ORDER BY 1, 2";
        assert_eq!(session.lines(parts), ["c|1|3", "c|2|2", "new|1|2"], "{table}");
        let charged = "SELECT count(*) FROM talkmeter.charges WHERE tenant = 'acme'";
        assert_eq!(session.line(charged), "3", "{table}");
        assert_eq!(session.lines("SELECT message_id, reason FROM talkmeter.quarantine").len(), 1, "{table}");
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING, "{table}");
    }
}

// --- Under load ---

/// Tables of ours that a work writes.
const WRITTEN: [&str; 11] = [
    "quarantined",
    "conversation",
    "ended_part",
    "marked",
    "tenant_lock",
    "account",
    "subscription",
    "period",
    "charge",
    "day_units",
    "alert",
];

/// Who writes meanwhile.
const WRITERS: usize = 4;

/// One transaction of a writer: messages of a few conversations in any order of time, so that most come late; some
/// change, some cannot be metered.
fn write(session: &mut Session, random: &mut Random) {
    let mut sql = "BEGIN;".to_owned();
    for _ in 0..1 + random.below(3) {
        let (tenant, conversation) = (random.below(3), random.below(40));
        let second = random.below(86_400);
        let kind = ["customer_message", "ai_reply", "exchange", "note", "unheard_of"][random.below(5)];
        sql += &format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             VALUES ('t{tenant}', 'c{conversation}', '2026-03-01 00:00+00'::timestamptz + interval '{second} s', '{kind}');"
        );
    }
    if random.below(4) == 0 {
        let kind = ["customer_message", "ai_reply", "note"][random.below(3)];
        let id = random.below(500);
        sql += &format!("UPDATE messages SET kind = '{kind}' WHERE id = {id} AND kind IN ('unheard_of', 'note');");
    }
    session.run(&(sql + "COMMIT"));
}

/// Does `disturb` while clients write, and says how many transactions they committed. An error of theirs fails the test.
fn while_clients_write(database: &Database, disturb: impl FnOnce()) -> usize {
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    let (stop, written) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..WRITERS {
            let mut own = Random::new(random.below(usize::MAX) as u64);
            let (stop, written) = (&stop, &written);
            scope.spawn(move || {
                let mut session = database.connect();
                while !stop.load(Ordering::Relaxed) {
                    write(&mut session, &mut own);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // They stop also if it fails.
        let stopped = std::panic::catch_unwind(std::panic::AssertUnwindSafe(disturb));
        stop.store(true, Ordering::Relaxed);
        stopped.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    written.into_inner()
}

const PARTS: &str = "
    SELECT tenant, conversation, started_at, ended_at, message_count, billable, charged_at FROM talkmeter.parts
    ORDER BY tenant, conversation, started_at";

/// The books are those of the same rows in another database, where nothing happened but one INSERT of them all.
fn equal_the_fold_of_the_rows(database: &Database) {
    let mut session = database.connect();
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.lines("SELECT DISTINCT reason FROM talkmeter.quarantine"), ["no_kind"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    let rows = session.lines("SELECT tenant_id, conversation_id, created_at, kind, id FROM messages ORDER BY id");
    let other = Database::with_messages("fold", "lutingenie", PLAN);
    let mut folded = other.connect();
    let mut copy = rows.join("\n");
    copy.push('\n');
    folded.copy_in(
        "COPY messages (tenant_id, conversation_id, created_at, kind, id) FROM STDIN (DELIMITER '|')",
        copy.as_bytes(),
    );
    folded.run("SELECT talkmeter.sweep()");
    assert_same_rows(&session.lines(PARTS), &folded.lines(PARTS));
    // A charge stays as it was posted if its instant moves within its period, so instants and numbers may differ.
    let standing = "tenant, conversation, tier";
    assert_same_rows(&standing_charges(&mut session, standing), &standing_charges(&mut folded, standing));
    let quarantined = "SELECT message_id FROM talkmeter.quarantine ORDER BY 1";
    assert_same_rows(&session.lines(quarantined), &folded.lines(quarantined));
}

#[test]
fn own_tables_are_reindexed_clustered_and_rewritten_under_load_and_nobody_fails() {
    let (database, _session) = metered("lutingenie");
    let mut operator = database.connect();
    let rounds = if at_length() { 10 } else { 2 };
    let written = while_clients_write(&database, || {
        for _ in 0..rounds {
            for table in WRITTEN {
                operator.run(&format!("REINDEX TABLE talkmeter.{table}"));
                operator.run(&format!("VACUUM FULL talkmeter.{table}"));
                operator.run(&rewrite(&format!("talkmeter.{table}")));
            }
            operator.run("REINDEX TABLE messages");
            operator.run(&rewrite("messages"));
        }
    });
    println!("{written} transactions");
    equal_the_fold_of_the_rows(&database);
}

/// Says that it is over, also if it fails.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_attached_table_is_rewritten_and_reloaded_under_load_and_all_works_go_on() {
    let (database, mut session) = metered("lutingenie");
    session.run("CREATE INDEX ON messages (kind)");
    let (mut operator, mut works) = (database.connect(), database.connect());
    let rounds = if at_length() { 100 } else { 8 };
    let written = while_clients_write(&database, || {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _stops = Stops(&stop);
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    works.run("SELECT talkmeter.retry_quarantine()");
                    works.run("SELECT talkmeter.sweep()");
                    works.run("SELECT talkmeter.reconcile('2026-03-01')");
                    works.run("SELECT talkmeter.mark('t1', 'c1', 'note', '2026-03-01 10:00+00')");
                }
            });
            for round in 0..rounds {
                let change = if round % 2 == 0 { rewrite("messages") } else { RELOAD.to_owned() };
                operator.run(&format!("BEGIN; LOCK TABLE messages IN ACCESS EXCLUSIVE MODE; {change}; COMMIT"));
            }
        });
    });
    println!("{written} transactions");
    equal_the_fold_of_the_rows(&database);
}

#[test]
fn pg_repack_of_each_own_table_under_load_loses_and_doubles_nothing() {
    let (database, mut session) = metered("lutingenie");
    session.run("CREATE EXTENSION pg_repack");
    let rounds = if at_length() { 40 } else { 2 };
    let written = while_clients_write(&database, || {
        for _ in 0..rounds {
            for table in WRITTEN.map(|table| format!("talkmeter.{table}")).iter().chain(&["public.messages".to_owned()])
            {
                repack(&database, table);
            }
        }
    });
    println!("{written} transactions");
    equal_the_fold_of_the_rows(&database);
}

fn repack(database: &Database, table: &str) {
    let program = format!("{}/pg_repack", variable("TALKMETER_BIN"));
    let run = Command::new(program)
        .args(["--no-order", "--no-kill-backend", "--wait-timeout=600", "-d", database.name(), "-t", table])
        .output()
        .expect("pg_repack");
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("repacking table"), "{table}: {said}");
}
