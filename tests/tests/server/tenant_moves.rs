//! Does a tenant move to another server whole, with the rows that come meanwhile, and never halfway (rule 4.8)?

use postgres::error::SqlState;
use std::io::{Read, Write};
use talkmeter_tests::{Database, Random, Session, assert_same_rows, assert_sound, at_length, metered, tell};

const NOTHING: [&str; 0] = [];

/// Tables with rows of tenants, but for quarantine.
const BOOKS: [&str; 20] = [
    "talkmeter.conversation",
    "talkmeter.ended_part",
    "talkmeter_archive.ended_part",
    "talkmeter.marked",
    "talkmeter_archive.marked",
    "talkmeter.account",
    "talkmeter.subscription",
    "talkmeter.period",
    "talkmeter.pack",
    "talkmeter.charge",
    "talkmeter_archive.charge",
    "talkmeter.unplanned_unit",
    "talkmeter.day_units",
    "talkmeter.alert",
    "talkmeter.dispute_count",
    "talkmeter.dispute_filed",
    "talkmeter.statement_line",
    "talkmeter.forgotten_subject",
    "talkmeter.external_count",
    "talkmeter.reconciliation",
];

fn books(session: &mut Session, tenant: &str) -> Vec<String> {
    BOOKS
        .iter()
        .flat_map(|table| {
            let rows =
                session.lines(&format!("SELECT b::text FROM ONLY {table} AS b WHERE b.tenant = '{tenant}' ORDER BY 1"));
            rows.into_iter().map(move |row| format!("{table}: {row}"))
        })
        .collect()
}

/// What a COPY TO gives.
pub fn copied(session: &mut Session, copy: &str) -> Result<Vec<u8>, postgres::Error> {
    let mut data = Vec::new();
    match session.client.copy_out(copy)?.read_to_end(&mut data) {
        Ok(_) => Ok(data),
        Err(error) => Err(of_server(error)),
    }
}

fn copy_in(session: &mut Session, copy: &str, data: &[u8]) -> Result<(), postgres::Error> {
    let mut writer = session.client.copy_in(copy)?;
    writer.write_all(data).map_err(of_server)?;
    writer.finish().map(drop)
}

/// The server's error behind one of reading or writing.
fn of_server(error: std::io::Error) -> postgres::Error {
    *error.into_inner().expect("an error of the server's").downcast().expect("an error of the server's")
}

/// The lines of a document, as COPY has them.
pub fn exported(session: &mut Session, tenant: &str) -> Result<Vec<u8>, postgres::Error> {
    copied(session, &format!("COPY (SELECT * FROM talkmeter.export_tenant('{tenant}')) TO STDOUT"))
}

/// Puts a document into a table of the session's.
pub fn load(session: &mut Session, document: &[u8]) -> Result<(), postgres::Error> {
    session.client.batch_execute(
        "DROP TABLE IF EXISTS document; CREATE TEMP TABLE document (line bigint, relation text, content text[])",
    )?;
    copy_in(session, "COPY document FROM STDIN", document)
}

/// Adds messages, unseen by the meter, but for those that are there.
pub fn copy_messages(session: &mut Session, rows: &[u8]) -> Result<(), postgres::Error> {
    session.client.batch_execute(
        "SET session_replication_role = replica; CREATE TEMP TABLE IF NOT EXISTS arrived (LIKE messages); TRUNCATE arrived",
    )?;
    copy_in(session, "COPY arrived FROM STDIN", rows)?;
    session.client.batch_execute(
        "INSERT INTO messages SELECT * FROM arrived ON CONFLICT DO NOTHING; RESET session_replication_role",
    )
}

fn document_of(session: &mut Session, tenant: &str) -> Vec<u8> {
    exported(session, tenant).expect("a document")
}

/// The receipt.
fn imported(session: &mut Session, document: &[u8]) -> String {
    load(session, document).expect("a table");
    session.line("SELECT talkmeter.import_tenant('document')")
}

/// What an application does.
fn carry_messages(from: &mut Session, to: &mut Session, tenant: &str) {
    let rows = copied(from, &format!("COPY (SELECT * FROM messages WHERE tenant_id = '{tenant}') TO STDOUT"));
    copy_messages(to, &rows.expect("a copy")).expect("a copy");
}

/// Two databases, as if of two servers.
fn two(policy: &str) -> (Database, Session, Database, Session) {
    let (old, from) = metered(policy);
    let (new, mut to) = metered(policy);
    to.run("SELECT setval('messages_id_seq', 1000)");
    (old, from, new, to)
}

/// All of a move of acme, with nobody else about.
fn moved(from: &mut Session, to: &mut Session) {
    to.run("SELECT talkmeter.expect_tenant('acme')");
    from.run("SELECT talkmeter.begin_move('acme')");
    ended(from, to);
}

/// What is left of the move of acme that has begun.
fn ended(from: &mut Session, to: &mut Session) {
    carry_messages(from, to, "acme");
    let receipt = imported(to, &document_of(from, "acme"));
    from.run(&format!("SELECT talkmeter.end_move('acme', '{receipt}')"));
}

/// Something in every table.
const DEALINGS: &str = "
    SELECT talkmeter.buy_pack('acme', 'agent_red/1000', purchased_at => '2026-03-01 00:00+00'),
        talkmeter.credit('acme', 1, 'by hand'), talkmeter.mark('acme', 'a', 'note', '2026-03-01 10:02+00');
    SELECT talkmeter.sweep();
    SELECT talkmeter.dispute('acme', 3, 'why'), talkmeter.report_external('acme', '2026-03-01', 2), talkmeter.reconcile('2026-03-01');
    SELECT talkmeter.finalize('acme', '2026-03-01'), talkmeter.set_alert_channel('acme', 'acme');
    DELETE FROM messages WHERE conversation_id = 'gone';
    SELECT talkmeter.forget_conversation('acme', 'gone')";

#[test]
fn all_books_of_a_tenant_move_and_nothing_of_it_stays() {
    let (_old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message, 10:01 ai_reply");
    tell(&mut from, "acme", "b", "11:00 customer_message, 11:01 ai_reply, 2026-04-20 9:00 customer_message");
    tell(&mut from, "acme", "gone", "12:00 customer_message, 12:01 ai_reply");
    tell(&mut from, "acme", "none \"\\\n{,}", "12:00 staff_reply, 12:01 customer_message");
    tell(&mut from, "bolt", "a", "10:00 customer_message, 10:01 ai_reply");
    from.run(DEALINGS);
    from.run("CALL talkmeter.archive('2026-04-01')");
    tell(&mut from, "acme", "c", "2026-04-20 10:00 customer_message");
    tell(&mut from, "acme", "d", "2026-04-20 10:00 customer_message, 2026-04-20 10:01 ai_reply");
    from.run("SELECT talkmeter.mark('acme', 'c', 'note', '2026-04-20 10:00:30+00')");
    let (before, of_bolt) = (books(&mut from, "acme"), books(&mut from, "bolt"));
    for table in BOOKS.iter().filter(|table| **table != "talkmeter.unplanned_unit") {
        assert!(before.iter().any(|row| row.starts_with(&format!("{table}: "))), "nothing in {table}");
    }
    moved(&mut from, &mut to);
    assert_same_rows(&books(&mut to, "acme"), &before);
    assert_eq!(books(&mut from, "acme"), NOTHING);
    assert_same_rows(&books(&mut from, "bolt"), &of_bolt);
    assert_sound(&mut to);
    assert_sound(&mut from);
    assert_eq!(from.line("SELECT tenant, state, waiting FROM talkmeter.moves"), "acme|left|0");
    assert_eq!(to.line("SELECT tenant, state, waiting FROM talkmeter.moves"), "acme|arrived|0");
    // It goes on: the next message is of the part that was open, the next charge has the next number.
    tell(&mut to, "acme", "c", "2026-04-20 10:10 ai_reply");
    tell(&mut to, "acme", "b", "11:02 customer_message");
    assert_eq!(to.lines("SELECT part, turn_count FROM talkmeter.parts WHERE conversation = 'c'"), ["1|1"]);
    assert_eq!(to.line("SELECT max(charge_id) - count(*) FROM talkmeter.charges WHERE tenant = 'acme'"), "0");
    assert_sound(&mut to);
}

/// Every table of ours that has a tenant is moved, or is known not to be.
#[test]
fn a_table_with_a_tenant_is_of_the_books_or_stays_for_a_reason() {
    const STAY: [&str; 8] = [
        "talkmeter.forgetting",
        "talkmeter.journaled",
        "talkmeter.quarantined",
        "talkmeter.sweep_failure",
        "talkmeter.tenant_lock",
        "talkmeter.tenant_move",
        "talkmeter.tenant_reader",
        "talkmeter.uncharged_unit",
    ];
    let (_database, mut session) = metered("agent_red");
    let mut found = session.lines(
        "SELECT c.oid::regclass FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant'
         WHERE c.relkind = 'r' AND c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace)",
    );
    found.sort();
    let mut known: Vec<&str> = BOOKS.iter().chain(&STAY).copied().collect();
    known.sort_unstable();
    assert_eq!(found, known);
}

#[test]
fn what_comes_meanwhile_waits_on_both_servers_and_is_metered_once_where_the_books_are() {
    let (_old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message, 10:01 ai_reply");
    to.run("SELECT talkmeter.expect_tenant('acme')");
    from.run("SELECT talkmeter.begin_move('acme')");
    // Still sent to the old server, then to the new one. A part that time has ended waits as well.
    tell(&mut from, "acme", "a", "10:02 customer_message");
    from.run("UPDATE messages SET created_at = created_at + interval '1 second' WHERE id = 2");
    from.run("SELECT talkmeter.mark('acme', 'a', 'close', '2026-03-01 10:03+00')");
    tell(&mut from, "bolt", "a", "10:00 customer_message, 10:01 ai_reply");
    assert_eq!(from.line("SELECT talkmeter.sweep('2026-03-02')"), "1");
    carry_messages(&mut from, &mut to, "acme");
    tell(&mut to, "acme", "a", "10:04 customer_message, 10:05 ai_reply");
    assert_eq!(to.lines("SELECT * FROM talkmeter.parts"), NOTHING);
    let waiting = "SELECT reason, count(*) FROM talkmeter.quarantine GROUP BY reason";
    assert_eq!(from.lines(waiting), ["moved|3"]);
    assert_eq!(to.lines(waiting), ["moved|2"]);
    let document = document_of(&mut from, "acme");
    let receipt = imported(&mut to, &document);
    from.run(&format!("SELECT talkmeter.end_move('acme', '{receipt}')"));
    for session in [&mut from, &mut to] {
        assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
        assert_sound(session);
    }
    let parts = "SELECT part, message_count, end_reason FROM talkmeter.parts WHERE tenant = 'acme' ORDER BY part";
    assert_eq!(to.lines(parts), ["1|3|close", "2|2|idle"]);
    assert_eq!(to.line("SELECT count(*) FROM talkmeter.charges"), "2");
    assert_eq!(to.lines("SELECT kind FROM talkmeter.marked"), ["close"]);
}

#[test]
fn rows_that_come_after_the_export_keep_the_move_open_until_they_are_taken_over_too() {
    let (_old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message");
    to.run("SELECT talkmeter.expect_tenant('acme')");
    from.run("SELECT talkmeter.begin_move('acme')");
    from.run("SELECT talkmeter.mark('acme', 'a', 'note', '2026-03-01 10:00:30+00')");
    carry_messages(&mut from, &mut to, "acme");
    let first = document_of(&mut from, "acme");
    let receipt = imported(&mut to, &first);
    tell(&mut from, "acme", "a", "10:01 ai_reply");
    from.run("SELECT talkmeter.mark('acme', 'a', 'note', '2026-03-01 10:02+00')");
    let end = |receipt: &str| format!("SELECT talkmeter.end_move('acme', '{receipt}')");
    assert_eq!(from.refused(&end(&receipt)), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    carry_messages(&mut from, &mut to, "acme");
    let second = document_of(&mut from, "acme");
    assert_eq!(from.refused(&end(&receipt)), SqlState::INVALID_PARAMETER_VALUE);
    let receipt = imported(&mut to, &second);
    // Again, and the one of before: nothing is new in them.
    assert_eq!(imported(&mut to, &second), receipt);
    from.run(&end(&receipt));
    from.run(&end(&receipt));
    assert_eq!(to.lines("SELECT message_count FROM talkmeter.parts"), ["2"]);
    assert_eq!(to.line("SELECT count(*) FROM talkmeter.marked"), "2");
    assert_eq!(to.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
    assert_sound(&mut to);
    // Whatever still comes to the old server is said.
    tell(&mut from, "acme", "a", "10:05 ai_reply");
    assert_eq!(
        from.lines("SELECT problem, object FROM talkmeter.health() WHERE object = 'acme'"),
        ["tenant_has_left|acme"]
    );
    from.run("SELECT talkmeter.retry_quarantine(), talkmeter.sweep()");
    assert_eq!(from.line("SELECT waiting FROM talkmeter.moves"), "1");
    from.run("DELETE FROM messages WHERE tenant_id = 'acme'");
    assert_eq!(from.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
}

#[test]
fn what_would_change_the_books_of_a_tenant_on_its_way_is_refused_on_both_sides() {
    let (_old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message, 10:01 ai_reply");
    to.run("SELECT talkmeter.expect_tenant('acme')");
    from.run("SELECT talkmeter.begin_move('acme')");
    let calls = [
        "SELECT talkmeter.buy_pack('acme', 'agent_red/1000')",
        "SELECT talkmeter.subscribe('acme', 'agent_red/starter')",
        "SELECT talkmeter.credit('acme', 1, 'x')",
        "SELECT talkmeter.dispute('acme', 1, 'x')",
        "SELECT talkmeter.finalize('acme', '2026-03-01')",
        "SELECT talkmeter.report_external('acme', '2026-03-01', 1)",
        "SELECT talkmeter.set_alert_channel('acme', 'x')",
    ];
    for call in calls {
        assert_eq!(from.refused(call), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{call}");
        assert_eq!(to.refused(call), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{call}");
    }
    from.run("DELETE FROM messages");
    assert_eq!(
        from.refused("SELECT talkmeter.forget_conversation('acme', 'a')"),
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
    );
    let backfill = "CALL talkmeter.backfill('messages', '2026-01-01', '2026-02-01')";
    assert_eq!(from.refused(backfill), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    from.run("SELECT talkmeter.reconcile('2026-03-01')");
    assert_eq!(from.line("SELECT count(*) FROM talkmeter.reconciliation"), "0");
}

#[test]
fn steps_out_of_their_order_are_refused_and_change_nothing() {
    let (_old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message, 10:01 ai_reply");
    let refused = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    assert_eq!(from.refused("SELECT talkmeter.begin_move('acm')"), SqlState::UNDEFINED_OBJECT);
    assert_eq!(from.refused("SELECT * FROM talkmeter.export_tenant('acme')"), refused);
    assert_eq!(from.refused("SELECT talkmeter.expect_tenant('acme')"), refused);
    assert_eq!(from.refused("SELECT talkmeter.cancel_move('acme')"), refused);
    assert_eq!(from.refused("SELECT talkmeter.end_move('acme', gen_random_uuid())"), refused);
    from.run("SELECT talkmeter.begin_move('acme'); SELECT talkmeter.begin_move('acme')");
    assert_eq!(from.refused("SELECT talkmeter.end_move('acme', gen_random_uuid())"), SqlState::INVALID_PARAMETER_VALUE);
    let document = document_of(&mut from, "acme");
    load(&mut to, &document).expect("a table");
    let import = "SELECT talkmeter.import_tenant('document')";
    assert_eq!(to.refused(import), refused);
    to.run("SELECT talkmeter.expect_tenant('acme'); SELECT talkmeter.expect_tenant('acme')");
    // A document that was cut, mended by hand, or is of two.
    for spoil in [
        "DELETE FROM document WHERE relation = 'end'",
        "DELETE FROM document WHERE line = 3",
        "INSERT INTO document SELECT * FROM document WHERE line = 2",
        "UPDATE document SET content = ARRAY[replace(content[1], 'acme', 'bolt')] WHERE relation = 'talkmeter.account'",
        "UPDATE document SET relation = 'talkmeter.policy' WHERE line = 3",
        "TRUNCATE document",
    ] {
        to.run("BEGIN");
        to.run(spoil);
        assert_eq!(to.refused(import), SqlState::INVALID_PARAMETER_VALUE, "{spoil}");
        to.run("ROLLBACK");
    }
    assert_eq!(books(&mut to, "acme"), NOTHING);
    to.run(import);
    // It is on both now, and metered on the new one.
    assert_eq!(to.refused("SELECT talkmeter.expect_tenant('acme')"), refused);
    tell(&mut to, "acme", "b", "10:00 customer_message, 10:01 ai_reply");
    assert_eq!(to.line("SELECT count(*) FROM talkmeter.charges"), "2");
    // Another move's document.
    to.run("UPDATE document SET content = ARRAY[(content[1]::jsonb || jsonb_build_object('move', gen_random_uuid()))::text] WHERE line = 1");
    assert_eq!(to.refused(import), refused);
}

#[test]
fn a_server_that_would_judge_or_bill_otherwise_takes_nothing() {
    let (_old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message, 10:01 ai_reply");
    from.run("SELECT talkmeter.begin_move('acme')");
    to.run("SELECT talkmeter.expect_tenant('acme')");
    carry_messages(&mut from, &mut to, "acme");
    let document = document_of(&mut from, "acme");
    load(&mut to, &document).expect("a table");
    let plan = r#"SELECT talkmeter.define_plan('{"name": "p", "included": 1, "overage_rate": 1, "currency": "USD"}')"#;
    let mapping = "UPDATE talkmeter.source SET mapping = mapping - 'excluded'";
    for differ in [
        plan,
        mapping,
        "UPDATE talkmeter.source SET relation_name = 'public.other'",
        "UPDATE talkmeter.source SET starts_at = '2026-03-02'",
        "INSERT INTO talkmeter.source_gap VALUES (1, '2026-03-05', '2026-03-06', 'detached')",
        "INSERT INTO talkmeter.threshold VALUES ('own', 50)",
    ] {
        to.run("BEGIN");
        to.run(differ);
        assert_eq!(
            to.refused("SELECT talkmeter.import_tenant('document')"),
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "{differ}"
        );
        to.run("ROLLBACK");
    }
    to.run("SELECT talkmeter.import_tenant('document')");
}

#[test]
fn messages_that_wait_must_be_where_the_books_go() {
    let (_old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message");
    from.run("SELECT talkmeter.begin_move('acme')");
    to.run("SELECT talkmeter.expect_tenant('acme')");
    carry_messages(&mut from, &mut to, "acme");
    tell(&mut from, "acme", "a", "10:01 ai_reply");
    let document = document_of(&mut from, "acme");
    load(&mut to, &document).expect("a table");
    assert_eq!(to.refused("SELECT talkmeter.import_tenant('document')"), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(books(&mut to, "acme"), NOTHING);
    carry_messages(&mut from, &mut to, "acme");
    to.run("SELECT talkmeter.import_tenant('document')");
    assert_eq!(to.lines("SELECT message_count FROM talkmeter.parts"), ["2"]);
}

#[test]
fn a_move_that_is_cancelled_leaves_the_tenant_where_it_was() {
    let (_old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message");
    from.run("SELECT talkmeter.begin_move('acme')");
    to.run("SELECT talkmeter.expect_tenant('acme')");
    tell(&mut from, "acme", "a", "10:01 ai_reply");
    tell(&mut to, "acme", "b", "10:02 customer_message, 10:03 ai_reply");
    for session in [&mut from, &mut to] {
        session.run("SELECT talkmeter.cancel_move('acme')");
        assert_eq!(
            session.lines("SELECT tenant FROM talkmeter.quarantine UNION SELECT tenant FROM talkmeter.moves"),
            NOTHING
        );
        assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
        assert_sound(session);
    }
}

#[test]
fn a_tenant_comes_back_to_the_server_that_it_left() {
    let (_old, mut from, _new, mut to) = two("lutingenie");
    tell(&mut from, "acme", "a", "10:00 exchange");
    moved(&mut from, &mut to);
    tell(&mut to, "acme", "a", "10:10 exchange");
    from.run("DELETE FROM messages WHERE tenant_id = 'acme'");
    moved(&mut to, &mut from);
    tell(&mut from, "acme", "a", "10:20 exchange");
    assert_eq!(from.lines("SELECT turn_count FROM talkmeter.parts"), ["3"]);
    assert_eq!(from.lines("SELECT state FROM talkmeter.moves"), ["arrived"]);
    assert_eq!(to.lines("SELECT state FROM talkmeter.moves"), ["left"]);
    assert_sound(&mut from);
}

/// As of a split by a replica, which has all books.
#[test]
fn a_copy_of_the_books_is_removed_by_the_receipt_of_the_server_that_keeps_them() {
    let (old, mut from) = metered("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message, 10:01 ai_reply");
    from.run("SELECT talkmeter.begin_move('acme')");
    drop(from);
    let new = old.copy("file_copy");
    let (mut from, mut to) = (old.connect(), new.connect());
    let receipt = to.line("SELECT talkmeter.cancel_move('acme')");
    from.run(&format!("SELECT talkmeter.end_move('acme', '{receipt}')"));
    assert_eq!(books(&mut from, "acme"), NOTHING);
    tell(&mut to, "acme", "a", "10:02 customer_message, 10:03 ai_reply");
    assert_eq!(to.lines("SELECT turn_count FROM talkmeter.parts"), ["2"]);
    assert_sound(&mut to);
}

#[test]
fn a_transaction_that_began_before_the_move_is_of_the_books_that_move() {
    let (old, mut from, _new, mut to) = two("agent_red");
    tell(&mut from, "acme", "a", "10:00 customer_message");
    let mut open = old.connect();
    open.run("BEGIN");
    tell(&mut open, "acme", "a", "10:01 ai_reply");
    open.run("SELECT talkmeter.flush()");
    let mut noted = old.connect();
    noted.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM messages");
    tell(&mut noted, "acme", "b", "10:05 customer_message");
    to.run("SELECT talkmeter.expect_tenant('acme')");
    from.run("SELECT talkmeter.begin_move('acme')");
    let exporter = old.connect();
    let export = std::thread::spawn(move || {
        let mut exporter = exporter;
        document_of(&mut exporter, "acme")
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!export.is_finished(), "who has metered and not committed is waited for");
    // It only noted a row, and meters at its commit: too late, and too late for this document.
    noted.run("COMMIT");
    open.run("COMMIT");
    let document = export.join().expect("no panic");
    carry_messages(&mut from, &mut to, "acme");
    let receipt = imported(&mut to, &document);
    let end = format!("SELECT talkmeter.end_move('acme', '{receipt}')");
    assert_eq!(from.refused(&end), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    ended(&mut from, &mut to);
    assert_eq!(to.lines("SELECT conversation, message_count FROM talkmeter.parts ORDER BY 1"), ["a|2", "b|1"]);
    assert_eq!(to.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
    assert_sound(&mut to);
}

/// The tenant acme with one session, leaving one database and expected in the other.
fn on_its_way(policy: &str) -> (Database, Session, Database, Session) {
    let (old, mut from, new, mut to) = two(policy);
    tell(&mut from, "acme", "c", "10:00 customer_message, 10:01 ai_reply");
    to.run("SELECT talkmeter.expect_tenant('acme')");
    from.run("SELECT talkmeter.begin_move('acme')");
    (old, from, new, to)
}

#[test]
fn what_a_transaction_that_has_not_ended_has_put_into_quarantine_is_waited_for() {
    let (old, mut from, _new, mut to) = on_its_way("agent_red");
    from.run("BEGIN");
    tell(&mut from, "acme", "f", "now bogus");
    from.run("PREPARE TRANSACTION 'moves'");
    let exporter = old.connect();
    let export = std::thread::spawn(move || {
        let mut exporter = exporter;
        document_of(&mut exporter, "acme")
    });
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!export.is_finished());
    // Nobody else waits.
    tell(&mut from, "acme", "c", "10:02 customer_message");
    from.run("COMMIT PREPARED 'moves'");
    let document = export.join().expect("no panic");
    carry_messages(&mut from, &mut to, "acme");
    let receipt = imported(&mut to, &document);
    let end = format!("SELECT talkmeter.end_move('acme', '{receipt}')");
    // The message of meanwhile is of the next document.
    assert_eq!(from.refused(&end), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    ended(&mut from, &mut to);
    assert_eq!(to.lines("SELECT reason FROM talkmeter.quarantine"), ["no_kind"]);
    assert_eq!(to.lines("SELECT message_count FROM talkmeter.parts"), ["3"]);
}

#[test]
fn a_row_that_waits_and_is_in_the_books_already_is_metered_once_and_seals_nothing() {
    let (_old, mut from, _new, mut to) = on_its_way("agent_red");
    // As in row mode, or by an application that knows no other way.
    let rows = copied(&mut from, "COPY messages TO STDOUT").expect("a copy");
    copy_in(&mut to, "COPY messages FROM STDIN", &rows).expect("a copy");
    assert_eq!(to.line("SELECT waiting FROM talkmeter.moves"), "2");
    let receipt = imported(&mut to, &document_of(&mut from, "acme"));
    from.run(&format!("SELECT talkmeter.end_move('acme', '{receipt}')"));
    assert_eq!(to.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
    tell(&mut to, "acme", "c", "10:00:30 customer_message");
    assert_eq!(to.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(to.lines("SELECT message_count FROM talkmeter.parts"), ["3"]);
    assert_sound(&mut to);
}

#[test]
fn a_message_that_is_changed_after_its_export_takes_its_charge_back_where_it_was_metered() {
    let (_old, mut from, _new, mut to) = on_its_way("agent_red");
    tell(&mut from, "acme", "f", "10:00 customer_message, 10:01 ai_reply");
    carry_messages(&mut from, &mut to, "acme");
    let document = document_of(&mut from, "acme");
    imported(&mut to, &document);
    assert_eq!(to.line("SELECT count(*) FROM talkmeter.charges"), "2");
    let change = "UPDATE messages SET kind = 'staff_reply' WHERE id = 4";
    from.run(change);
    to.run(&format!("SET session_replication_role = replica; {change}; RESET session_replication_role"));
    ended(&mut from, &mut to);
    assert_eq!(to.lines("SELECT charge_id, reverses FROM talkmeter.charges ORDER BY 1"), ["1|", "2|", "3|2"]);
    assert_eq!(to.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
    assert_sound(&mut to);
}

#[test]
fn each_step_is_a_transaction_of_its_own() {
    let (old, mut from) = metered("agent_red");
    tell(&mut from, "acme", "c", "10:00 customer_message, 10:01 ai_reply");
    let export = "SELECT * FROM talkmeter.export_tenant('acme')";
    let both = format!("BEGIN; SELECT talkmeter.begin_move('acme'); {export}");
    assert_eq!(from.refused(&both), SqlState::ACTIVE_SQL_TRANSACTION);
    from.run("ROLLBACK; SELECT talkmeter.begin_move('acme')");
    let metered = "BEGIN; INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('bolt', 'c', 'exchange')";
    assert_eq!(from.refused(&format!("{metered}; {export}")), SqlState::ACTIVE_SQL_TRANSACTION);
    from.run("ROLLBACK");
    old.connect().run(export);
}

#[test]
fn marks_of_one_instant_keep_their_order_and_one_of_the_moment_comes_after_its_messages() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "x", "10:00 customer_message, 10:01 ai_reply");
    session.run("SELECT talkmeter.begin_move('acme')");
    for conversation in 0..8 {
        let mark = |kind: &str| format!("talkmeter.mark('acme', 'm{conversation}', '{kind}', '2026-03-01 10:05+00')");
        tell(&mut session, "acme", &format!("m{conversation}"), "10:00 customer_message, 10:01 ai_reply");
        session.run(&format!("SELECT {}, {}, {}", mark("escalate"), mark("resolve"), mark("close")));
    }
    session.run(
        "BEGIN;
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES
             ('acme', 'h', clock_timestamp() + interval '2 s', 'customer_message'),
             ('acme', 'h', clock_timestamp() + interval '2 s', 'ai_reply');
         SELECT talkmeter.mark('acme', 'h', 'close');
         COMMIT;
         SELECT talkmeter.cancel_move('acme')",
    );
    let kinds = "SELECT DISTINCT string_agg(kind, ',' ORDER BY mark) FROM talkmeter.marked WHERE conversation ~ '^m' GROUP BY conversation";
    assert_eq!(session.lines(kinds), ["escalate,resolve,close"]);
    assert_eq!(session.lines("SELECT end_reason FROM talkmeter.parts WHERE conversation = 'h'"), ["close"]);
    assert_sound(&mut session);
}

#[test]
fn what_came_in_time_is_metered_however_long_the_move_takes() {
    let (database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "now customer_message");
    session.run("SELECT talkmeter.begin_move('acme')");
    tell(&mut session, "acme", "c", "now ai_reply");
    session.run("SELECT talkmeter.mark('acme', 'c', 'note')");
    session.run(&format!("ALTER DATABASE {} SET talkmeter.max_past = '1 s'", database.name()));
    std::thread::sleep(std::time::Duration::from_millis(1_200));
    let mut later = database.connect();
    later.run("SELECT talkmeter.cancel_move('acme')");
    assert_eq!(later.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(later.lines("SELECT message_count FROM talkmeter.parts"), ["2"]);
}

#[test]
fn rows_of_which_no_tenant_is_known_keep_a_move_from_its_beginning_and_its_end() {
    let (_old, mut from, _new, mut to) = on_its_way("agent_red");
    carry_messages(&mut from, &mut to, "acme");
    let receipt = imported(&mut to, &document_of(&mut from, "acme"));
    from.run("SET talkmeter.enabled = off");
    tell(&mut from, "acme", "c", "10:02 customer_message");
    from.run("RESET talkmeter.enabled");
    let end = format!("SELECT talkmeter.end_move('acme', '{receipt}')");
    assert_eq!(from.refused(&end), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    from.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(from.line("SELECT waiting FROM talkmeter.moves"), "1");
    ended(&mut from, &mut to);
    assert_eq!(to.lines("SELECT message_count FROM talkmeter.parts"), ["3"]);
}

#[test]
fn a_transaction_that_put_rows_aside_and_then_takes_one_out_is_not_the_victim_of_an_import() {
    let (_old, mut from, new, mut to) = on_its_way("agent_red");
    carry_messages(&mut from, &mut to, "acme");
    tell(&mut to, "acme", "c", "10:02 customer_message");
    let mut open = new.connect();
    open.run("BEGIN");
    tell(&mut open, "acme", "c", "10:03 customer_message");
    open.run("SELECT talkmeter.flush()");
    let document = document_of(&mut from, "acme");
    let importer = std::thread::spawn(move || imported(&mut to, &document));
    std::thread::sleep(std::time::Duration::from_millis(200));
    open.run("UPDATE messages SET created_at = created_at + interval '1 s' WHERE id = 1001; COMMIT");
    let receipt = importer.join().expect("no panic");
    from.run(&format!("SELECT talkmeter.end_move('acme', '{receipt}')"));
    let mut to = new.connect();
    to.run("SELECT talkmeter.sweep('2026-03-01 10:10+00')");
    assert_eq!(to.lines("SELECT message_count FROM talkmeter.parts"), ["4"]);
    assert_eq!(to.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
}

#[test]
fn nobody_writes_into_books_but_by_a_whole_document() {
    let (_old, mut from, _new, mut to) = on_its_way("agent_red");
    let document = document_of(&mut from, "acme");
    load(&mut to, &document).expect("a table");
    let rows =
        "SELECT talkmeter.import_rows('acme', relation, content) FROM document WHERE relation = 'talkmeter.account'";
    let refused = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
    assert_eq!(from.refused("SELECT talkmeter.import_rows('acme', 'talkmeter.account', '{}')"), refused);
    assert_eq!(to.refused(rows), refused);
    let head = "SELECT content[1]::jsonb FROM document WHERE line = 1";
    assert_eq!(to.refused(&format!("SELECT talkmeter.import_end(({head}))")), refused);
    to.run(&format!("BEGIN; SELECT talkmeter.import_begin(({head})); {rows}"));
    assert_eq!(to.refused("COMMIT"), refused);
    assert_eq!(books(&mut to, "acme"), NOTHING);
}

#[test]
fn a_tenant_that_nearly_left_again_still_takes_what_is_left_where_it_came_from() {
    let (_old, mut from, _new, mut to) = on_its_way("agent_red");
    carry_messages(&mut from, &mut to, "acme");
    let first = document_of(&mut from, "acme");
    imported(&mut to, &first);
    to.run("SELECT talkmeter.begin_move('acme')");
    to.run("SELECT talkmeter.cancel_move('acme')");
    tell(&mut from, "acme", "c", "10:02 customer_message");
    ended(&mut from, &mut to);
    assert_eq!(to.lines("SELECT message_count FROM talkmeter.parts"), ["3"]);
    // What was exported first says nothing new.
    imported(&mut to, &first);
    assert_eq!(to.lines("SELECT state FROM talkmeter.moves"), ["arrived"]);
    assert_eq!(to.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
}

#[test]
fn however_many_tenants_are_expected_one_statement_finds_room_for_its_locks() {
    let (_database, mut session) = metered("agent_red");
    session.run("SELECT count(talkmeter.expect_tenant('t' || n)) FROM generate_series(1, 20000) AS n");
    session.run("INSERT INTO messages (tenant_id, conversation_id, kind) SELECT 't' || n, 'c', 'exchange' FROM generate_series(1, 20000) AS n");
    assert_eq!(session.lines("SELECT DISTINCT reason FROM talkmeter.quarantine"), ["moved"]);
}

#[test]
fn a_message_that_is_changed_and_then_deleted_while_it_waits_keeps_its_charge() {
    let (_old, mut from, _new, mut to) = on_its_way("agent_red");
    from.run("UPDATE messages SET created_at = created_at + interval '1 s' WHERE id = 2");
    from.run("DELETE FROM messages WHERE id = 2");
    assert_eq!(from.line("SELECT waiting FROM talkmeter.moves"), "0");
    ended(&mut from, &mut to);
    assert_eq!(to.lines("SELECT charge_id, reverses FROM talkmeter.charges"), ["1|"]);
    assert_sound(&mut to);
}

/// One thing that an application does to a conversation of acme, at random.
fn doing(random: &mut Random, id: usize) -> String {
    const KINDS: [&str; 8] =
        ["customer_message", "ai_reply", "staff_reply", "exchange", "visit", "note", "escalate", "reopen"];
    const MARKS: [&str; 4] = ["close", "escalate", "note", "new_topic"];
    let conversation = random.below(3);
    // Different instants, so that no order of arrival tells events apart.
    let at = format!(
        "timestamptz '2026-03-01 10:00+00' + {} * interval '1 s' + {id} * interval '1 ms'",
        random.below(9_000)
    );
    match random.below(10) {
        0..6 => {
            let kind = KINDS[random.below(KINDS.len())];
            format!(
                "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES ({id}, 'acme', 'c{conversation}', {at}, '{kind}')"
            )
        }
        6 | 7 => {
            let kind = KINDS[random.below(KINDS.len())];
            format!("UPDATE messages SET kind = '{kind}' WHERE id = {}", random.below(id + 1))
        }
        8 => format!("UPDATE messages SET created_at = {at} WHERE id = {}", random.below(id + 1)),
        _ => format!("SELECT talkmeter.mark('acme', 'c{conversation}', '{}', {at})", MARKS[random.below(MARKS.len())]),
    }
}

#[test]
fn whatever_happens_while_a_tenant_moves_is_metered_as_if_it_had_not() {
    const RUNS: usize = 12;
    let (mut random, seed) = Random::seeded();
    let runs = if at_length() { 20 * RUNS } else { RUNS };
    for run in 0..runs {
        let policy = ["agent_red", "ai_resolution", "lutingenie"][run % 3];
        let plan = "SELECT talkmeter.subscribe('acme', 'agent_red/starter', since => '2026-01-01 00:00+00')";
        let (_staying, mut stays) = metered(policy);
        let (_moving, mut moves) = metered(policy);
        let mut story = Vec::new();
        stays.run(plan);
        moves.run(plan);
        for id in 0..40 {
            let doing = doing(&mut random, id);
            stays.run(&doing);
            moves.run(&doing);
            story.push(doing);
            if id > 5 && random.below(8) == 0 {
                let state = moves.lines("SELECT state FROM talkmeter.moves");
                let call = if state.is_empty() { "begin_move" } else { "cancel_move" };
                moves.run(&format!("SELECT talkmeter.{call}('acme')"));
                story.push(call.to_owned());
            }
        }
        if !moves.lines("SELECT state FROM talkmeter.moves").is_empty() {
            moves.run("SELECT talkmeter.cancel_move('acme')");
        }
        let parts = "SELECT conversation, started_at, ended_at, end_reason, message_count, turn_count, staff_replies, charged_at,
            not_billable_because FROM talkmeter.parts ORDER BY conversation, started_at";
        // A charge keeps the instant at which it was posted: its part says what it is by now.
        let charged = "SELECT conversation, p.charged_at FROM talkmeter.standing_charge AS c
            JOIN talkmeter.parts AS p USING (tenant, conversation, part) ORDER BY 1, 2";
        let context = || format!("TALKMETER_SEED={seed}, run {run}, {policy}:\n{}", story.join(";\n"));
        for query in [parts, charged, "SELECT reason, message_id FROM talkmeter.quarantine ORDER BY 1, 2"] {
            let [wanted, found] = [&mut stays, &mut moves].map(|session| {
                session.run("SELECT talkmeter.sweep()");
                session.lines(query)
            });
            assert_eq!(found, wanted, "{}", context());
        }
        assert_sound(&mut moves);
    }
}
