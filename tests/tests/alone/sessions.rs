//! Does a session that lives for long stay as small as it was, whatever it meters?
//!
//! 2,000 transactions and 50 tables; at length, 200,000 and 2,000.

use crate::alone;
use std::fs::read_to_string;
use talkmeter_tests::{Database, Session, at_length, attach, messages_mapping};

/// Private memory in kB by which a session may grow once it is warm, however long it lives.
const BOUND: u64 = 3 * 1024;

/// The private memory in kB of the process that serves a session.
fn memory(session: &mut Session) -> u64 {
    let status = read_to_string(format!("/proc/{}/status", session.pid())).expect("the session's process");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a size");
    line.trim().strip_suffix(" kB").and_then(|kb| kb.parse().ok()).expect("kB")
}

/// Does `each` so many times, after a tenth of that to get warm, and says by how many kB the session has grown.
fn growth(database: &Database, rounds: usize, mut each: impl FnMut(&mut Session, usize)) -> u64 {
    let mut session = database.connect();
    let warm = rounds / 10;
    (0..warm).for_each(|round| each(&mut session, round));
    let before = memory(&mut session);
    (warm..warm + rounds).for_each(|round| each(&mut session, round));
    let after = memory(&mut session);
    println!("{rounds} rounds: {before} kB, then {after} kB");
    after.saturating_sub(before)
}

/// One of many kinds of small transactions.
fn transact(session: &mut Session, round: usize) {
    let conversation = round / 5;
    let insert = |time: &str, kind: &str| {
        format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             VALUES ('t{}', 'c{conversation}', '2026-03-01 {time}+00', '{kind}')",
            conversation % 50
        )
    };
    session.run(&match round % 20 {
        0 | 5 | 10 | 15 => insert("10:00", "exchange"),
        1 | 6 | 11 | 16 => insert("10:05", "exchange"),
        2 => insert("10:02", "customer_message"),
        3 => insert("10:06", "unheard_of"),
        4 => format!(
            "UPDATE messages SET kind = 'note' WHERE conversation_id = 'c{conversation}' AND kind = 'unheard_of'"
        ),
        7 => format!(
            "BEGIN; {}; SAVEPOINT s; {}; ROLLBACK TO s; COMMIT",
            insert("10:07", "note"),
            insert("10:08", "close")
        ),
        8 => format!("BEGIN; {}; ROLLBACK", insert("10:07", "close")),
        9 => format!(
            "SELECT talkmeter.mark('t{}', 'c{conversation}', 'close', '2026-03-01 10:09+00')",
            conversation % 50
        ),
        12 => format!("BEGIN; {}; SELECT talkmeter.flush(); COMMIT", insert("10:07", "exchange")),
        13 => format!("DELETE FROM messages WHERE conversation_id = 'c{conversation}'"),
        14 => insert("10:01", "exchange"),
        17 => format!("BEGIN; {}; SELECT 1 FROM talkmeter.usage LIMIT 1; COMMIT", insert("10:07", "visit")),
        _ => insert("11:00", "exchange"),
    });
}

#[test]
fn a_session_that_commits_many_small_transactions_does_not_grow() {
    let _alone = alone();
    let database = Database::with_messages("sessions", "agent_red", Some("agent_red/starter"));
    let mut session = database.connect();
    session.run("CREATE INDEX ON messages (conversation_id)");
    let rounds = if at_length() { 200_000 } else { 2_000 };
    let grown = growth(&database, rounds, transact);
    assert!(grown <= BOUND, "{grown} kB");
    let metered = session.line("SELECT count(*) > 100 FROM talkmeter.charges WHERE reverses IS NULL");
    assert_eq!(metered, "t");
}

#[test]
fn a_session_that_attaches_many_tables_and_detaches_them_does_not_grow() {
    let _alone = alone();
    let database = Database::fresh("sessions");
    let rounds = if at_length() { 2_000 } else { 50 };
    let columns = "(id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz, kind text,
        excluded boolean NOT NULL DEFAULT false)";
    let cycle = |session: &mut Session, round: usize, is_attached: bool| {
        let table = format!("messages_{round}");
        session.run(&format!("CREATE TABLE {table} {columns}; CREATE INDEX ON {table} (conversation_id)"));
        if is_attached {
            attach(session, &table, "agent_red", Some("agent_red/starter"), &messages_mapping());
        }
        // The second is late: the conversation is read again, by statements that name the table.
        for (id, minute) in [(1, 5), (2, 0)] {
            session.run(&format!(
                "INSERT INTO {table} VALUES ({id}, 'acme', 'c{round}', '2026-03-01 10:0{minute}+00', 'exchange')"
            ));
        }
        session.run(&format!("ALTER TABLE {table} RENAME TO {table}_old"));
        session
            .run(&format!("INSERT INTO {table}_old VALUES (3, 'acme', 'c{round}', '2026-03-01 10:01+00', 'exchange')"));
        if is_attached {
            session.run(&format!("SELECT talkmeter.detach('{table}_old')"));
        }
        session.run(&format!("DROP TABLE {table}_old"));
    };
    // The server's own cache of the catalog grows with each table that is created and dropped.
    let bare = growth(&database, rounds, |session, round| cycle(session, round, false));
    let grown = growth(&database, rounds, |session, round| cycle(session, round, true));
    assert!(grown <= bare + BOUND, "{grown} kB, {bare} kB of tables that are not attached");
    let mut session = database.connect();
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.parts WHERE message_count <> 6"), "0");
}
