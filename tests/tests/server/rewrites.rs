//! Is nothing lost, charged twice or misread when a table changes while the meter waits for it?
//!
//! A rewrite gives every row a new transaction: a snapshot that is older than the lock sees an empty table.

use std::thread::{self, JoinHandle};
use talkmeter_tests::{Database, Session, metered, standing_charges, tell};

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
const OWN: [&str; 14] = [
    "conversation_lock",
    "conversation",
    "part",
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
