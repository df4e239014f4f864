//! Can a conversation be forgotten, and the books still be proved (rule 4.7)?

use postgres::error::SqlState;
use sha2::{Digest, Sha256};
use talkmeter_tests::{Database, Session};

/// What nothing may hold once it is forgotten; ids of messages hold it too.
const SECRET: &str = "49170555";
const FEBRUARY: &str = "2026-02-01 00:00+00";

const MAPPING: &str = r#"{
    "customer": "customer",
    "kinds": [ {"when": {"sender": "customer"}, "kind": "customer_message"},
               {"when": {"sender": "ai"},       "kind": "ai_reply"} ] }"#;

/// A shop whose conversations are named after telephone numbers: one with the secret, of two parts in February and one in
/// March, and one of a test; two of others. A part of February was charged and taken back.
fn shop() -> (Database, Session) {
    let database = Database::fresh("forget");
    let mut session = database.connect();
    session.run(&format!(
        r#"CREATE TABLE messages (id text PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz, sender text,
               customer text);
           CREATE INDEX ON messages (tenant_id, conversation_id, created_at);
           SELECT talkmeter.define_plan('{{"name": "one", "included": 1, "overage_rate": 0.5, "price": 3, "currency": "USD"}}');
           SELECT * FROM talkmeter.attach('messages', policy => 'agent_red', mapping => '{MAPPING}');
           SELECT talkmeter.subscribe('acme', 'one', '2026-01-01', anchor_day => 1)"#
    ));
    for (conversation, customer, day) in [
        (SECRET, "ann", "2026-02-03 10:00"),
        (SECRET, "ann", "2026-02-03 12:00"),
        (&format!("test_{SECRET}"), "ann", "2026-02-04 12:00"),
        ("4711", "bob", "2026-02-05 10:00"),
        (SECRET, "ann", "2026-03-06 10:00"),
        ("4712", "bob", "2026-03-07 10:00"),
    ] {
        exchange(&mut session, conversation, customer, day);
    }
    // Between the two parts of February: they are one, and the second charge is taken back.
    exchange(&mut session, SECRET, "ann", "2026-02-03 10:25");
    for minute in ["10:50", "11:15", "11:40"] {
        exchange(&mut session, SECRET, "ann", &format!("2026-02-03 {minute}"));
    }
    session.run("SELECT talkmeter.sweep(); SELECT talkmeter.finalize('acme', '2026-02-01')");
    (database, session)
}

fn exchange(session: &mut Session, conversation: &str, customer: &str, at: &str) {
    session.run(&format!(
        "INSERT INTO messages
         SELECT concat_ws('-', '{conversation}', '{at}', sender), 'acme', '{conversation}', timestamptz '{at}+00' + after, sender,
             CASE sender WHEN 'customer' THEN '{customer}' END
         FROM (VALUES ('customer', interval '0'), ('ai', '1 minute')) AS said (sender, after)"
    ));
}

fn delete(session: &mut Session) {
    session.run(&format!("DELETE FROM messages WHERE conversation_id LIKE '%{SECRET}'"));
}

/// The tables of ours of which a row holds the secret, as text or as bytes.
fn who_knows(session: &mut Session) -> Vec<String> {
    let tables = session.lines(
        "SELECT c.oid::regclass FROM pg_class AS c
         WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND c.relkind = 'r'",
    );
    let bytes: String = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let knows = |table: &String| {
        session.line(&format!(
            "SELECT count(*) > 0 FROM ONLY {table} AS t WHERE t::text LIKE '%{SECRET}%' OR t::text LIKE '%{bytes}%'"
        )) == "t"
    };
    tables.into_iter().filter(knows).collect()
}

/// What may not change by forgetting.
fn books(session: &mut Session) -> Vec<String> {
    [
        "SELECT * FROM talkmeter.usage_monthly ORDER BY tenant, period",
        "SELECT * FROM talkmeter.bills ORDER BY tenant, period",
        "SELECT line, kind, charge_id, part, charged_at, started_at, ended_at, message_count, tier, units, amount, reverses, reason
         FROM talkmeter.statement_units('acme', date '2026-02-01') ORDER BY charge_id",
        "SELECT content, chained, digest FROM talkmeter.evidence('acme', '2026-02-01 00:00+00') ORDER BY line",
        "SELECT part, policy, status, started_at, ended_at, end_reason, billable, not_billable_because, charged_at,
             message_count, turn_count FROM talkmeter.parts ORDER BY started_at, part",
        "SELECT * FROM talkmeter.verify()",
    ]
    .iter()
    .flat_map(|query| session.lines(query))
    .collect()
}

#[test]
fn what_is_forgotten_is_nowhere_and_the_books_are_what_they_were() {
    for archived in [false, true] {
        let (_database, mut session) = shop();
        let marked = format!("SELECT talkmeter.mark('acme', '{SECRET}', 'close', '2026-03-06 11:00+00')");
        session.run(&marked);
        if archived {
            session.run("CALL talkmeter.archive('2026-03-01')");
            assert!(who_knows(&mut session).contains(&"talkmeter_archive.charge".to_owned()));
        }
        delete(&mut session);
        let before = books(&mut session);
        assert!(before.len() > 25, "{before:#?}");
        for conversation in [SECRET.to_owned(), format!("test_{SECRET}")] {
            let forgotten = session.line(&format!("SELECT talkmeter.forget_conversation('acme', '{conversation}')"));
            assert!(forgotten.starts_with("forgotten:") && forgotten.len() == 46, "{forgotten}");
        }
        assert_eq!(who_knows(&mut session), [""; 0], "archived: {archived}");
        assert_eq!(books(&mut session), before, "archived: {archived}");
        let entries = "SELECT by = session_user, tenant, arguments -> 'parts', arguments -> 'entries'
            FROM talkmeter.journal WHERE call = 'forget_conversation' ORDER BY at";
        assert_eq!(session.lines(entries), ["t|acme|2|4", "t|acme|1|0"]);
    }
}

#[test]
fn the_digest_can_be_computed_anew_and_a_forgotten_charge_that_is_changed_is_named() {
    let (_database, mut session) = shop();
    let subject = format!(
        "SELECT bool_and(encode(sha256(subject::bytea), 'hex') = content::json ->> 'subject'), count(subject) FROM
         talkmeter.evidence('acme', '{FEBRUARY}')"
    );
    assert_eq!(session.line(&subject), "t|4");
    delete(&mut session);
    session.run(&format!("SELECT talkmeter.forget_conversation('acme', '{SECRET}')"));
    assert_eq!(session.line(&subject), "t|1", "of what is not forgotten the subject is there");
    let lines = session.lines(&format!("SELECT content FROM talkmeter.evidence('acme', '{FEBRUARY}') ORDER BY line"));
    let mut chained = Vec::new();
    for line in &lines {
        chained = Sha256::new().chain_update(&chained).chain_update(line).finalize().to_vec();
    }
    let digest = session.line(&format!("SELECT DISTINCT digest FROM talkmeter.evidence('acme', '{FEBRUARY}')"));
    assert_eq!(digest, chained.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    for tampering in [
        "UPDATE talkmeter.charge SET charged_at = charged_at + interval '1 us' WHERE charge_id = 1",
        "UPDATE talkmeter.charge SET part = 7 WHERE charge_id = 1",
        "UPDATE talkmeter.forgotten_subject SET digest = sha256('') WHERE charge_id = 1",
    ] {
        session.run(&format!("BEGIN; {tampering}"));
        let found = session.lines("SELECT DISTINCT problem FROM talkmeter.verify() WHERE problem = 'evidence_differs'");
        session.run("ROLLBACK");
        assert_eq!(found, ["evidence_differs"], "{tampering}");
    }
}

#[test]
fn what_is_not_over_not_deleted_or_not_known_is_refused_and_stays() {
    let (_database, mut session) = shop();
    let before = books(&mut session);
    let mut refused = |conversation: &str| {
        let call = format!("SELECT talkmeter.forget_conversation('acme', '{conversation}')");
        let error = session.client.query(&call, &[]).expect_err("refused");
        let error = error.as_db_error().expect("an error of the server's");
        (error.code().clone(), error.message().to_owned(), error.detail().unwrap_or_default().to_owned())
    };
    let (code, message, detail) = refused(SECRET);
    assert_eq!(code, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(message, format!("conversation \"{SECRET}\" of tenant \"acme\" still has messages"));
    assert_eq!(detail, "Table public.messages holds 14 of its rows.");
    let (code, message, _) = refused("4713");
    assert_eq!(code, SqlState::UNDEFINED_OBJECT);
    assert_eq!(message, "nothing is known of conversation \"4713\" of tenant \"acme\"");
    assert_eq!(books(&mut session), before);
    let open = "INSERT INTO messages VALUES ('open', 'acme', 'open', now(), 'customer'); DELETE FROM messages WHERE id = 'open'";
    for statement in open.split("; ") {
        session.run(statement);
    }
    let message =
        session.client.query("SELECT talkmeter.forget_conversation('acme', 'open')", &[]).expect_err("refused");
    let message = message.as_db_error().expect("an error of the server's").message().to_owned();
    assert_eq!(message, "conversation \"open\" of tenant \"acme\" is not over");
}

#[test]
fn a_customer_is_forgotten_with_the_messages_or_not_at_all() {
    let (_database, mut session) = shop();
    let before = books(&mut session);
    let found = "SELECT talkmeter.forget_customer('acme', 'ann')";
    let conversations = [SECRET.to_owned(), format!("test_{SECRET}")];
    assert_eq!(session.lines(&format!("BEGIN; {found}")), conversations);
    session.run("DELETE FROM messages WHERE customer = 'ann'");
    let refused = session.client.batch_execute("COMMIT").expect_err("answers to the customer are there");
    assert_eq!(refused.code(), Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE));
    assert_eq!(books(&mut session), before);
    assert_eq!(session.lines(&format!("BEGIN; {found}")), conversations);
    delete(&mut session);
    session.run("COMMIT");
    assert_eq!(who_knows(&mut session), [""; 0]);
    assert_eq!(books(&mut session), before);
    assert_eq!(session.lines(found), [""; 0]);
    assert_eq!(session.lines("SELECT talkmeter.forget_customer('other', 'bob')"), [""; 0]);
}

#[test]
fn where_a_backfill_was_interrupted_nothing_is_left_either_and_it_goes_on_and_counts_none_twice() {
    for conversation in ["a", SECRET] {
        let (database, mut session) = shop();
        session.run(&format!(
            "CREATE TABLE older (LIKE messages INCLUDING ALL);
             INSERT INTO older SELECT concat_ws('-', c, s), 'acme', c, timestamptz '2026-02-20 10:00+00' + after, s, 'zoe'
             FROM (VALUES ('{conversation}'), ('b'), ('c')) AS told (c), (VALUES ('customer', interval '0'), ('ai', '1 min')) AS said (s, after);
             SELECT * FROM talkmeter.attach('older', policy => 'agent_red', mapping => '{MAPPING}')"
        ));
        let mut other = database.connect();
        other.run("BEGIN; SELECT talkmeter.mark('acme', 'b', 'note', '2026-02-20'); SELECT talkmeter.flush()");
        session.run("SET lock_timeout = 200");
        let call = "CALL talkmeter.backfill('older', '2026-02-01', '2026-03-01', batch => 1)";
        assert_eq!(session.refused(call), SqlState::LOCK_NOT_AVAILABLE);
        other.run("ROLLBACK");
        let after = "SELECT after_conversation FROM talkmeter.backfill_run";
        assert_eq!(session.line(after), conversation);
        session.run(&format!("DELETE FROM older WHERE conversation_id = '{conversation}'"));
        delete(&mut session);
        session
            .run(&format!("SELECT talkmeter.sweep(); SELECT talkmeter.forget_conversation('acme', '{conversation}')"));
        assert!(!session.lines(after).contains(&conversation.to_owned()));
        session.run(call);
        let charged = "SELECT conversation, count(*) FROM talkmeter.charges WHERE charged_at::date = '2026-02-20' AND
            conversation NOT LIKE 'forgotten:%' GROUP BY 1 ORDER BY 1";
        assert_eq!(session.lines(charged), ["b|1", "c|1"], "{conversation}");
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
        if conversation == SECRET {
            let test = format!("SELECT talkmeter.forget_conversation('acme', 'test_{SECRET}')");
            session.run(&test);
            assert_eq!(who_knows(&mut session), [""; 0]);
        }
    }
}

#[test]
fn a_table_whose_mapping_is_broken_is_named_to_who_forgets() {
    let (_database, mut session) = shop();
    delete(&mut session);
    session.run(&format!(
        "CREATE TABLE broken (LIKE messages INCLUDING ALL);
         SELECT * FROM talkmeter.attach('broken', policy => 'agent_red', mapping => '{MAPPING}');
         ALTER TABLE broken DROP COLUMN sender"
    ));
    for call in [format!("forget_conversation('acme', '{SECRET}')"), "forget_customer('acme', 'ann')".to_owned()] {
        let refused = session.client.query(&format!("SELECT talkmeter.{call}"), &[]).expect_err("refused");
        let detail = refused.as_db_error().and_then(|error| error.detail()).unwrap_or_default().to_owned();
        assert_eq!(detail, "Table public.broken: Column \"sender\" (text) was dropped or has another type.");
    }
}

#[test]
fn an_id_that_comes_again_is_that_of_a_new_conversation() {
    let (_database, mut session) = shop();
    delete(&mut session);
    session.run(&format!("SELECT talkmeter.forget_conversation('acme', '{SECRET}')"));
    exchange(&mut session, SECRET, "ann", "2026-04-01 10:00");
    let parts = format!("SELECT part, message_count, billable FROM talkmeter.parts WHERE conversation = '{SECRET}'");
    assert_eq!(session.lines(&parts), ["1|2|t"]);
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
    let forgotten = "SELECT DISTINCT conversation FROM talkmeter.parts WHERE conversation LIKE 'forgotten:%'";
    let tombstone = session.line(forgotten);
    let events = format!("SELECT count(*) FROM talkmeter.explain('acme', '{tombstone}') WHERE message_id IS NOT NULL");
    assert_eq!(session.line(&events), "0");
    session.run("SELECT talkmeter.reconcile('2026-03-06')");
    let day = "SELECT charged, recounted, unprovable, flagged FROM talkmeter.reconciliations WHERE day = '2026-03-06'";
    assert_eq!(session.lines(day), ["1|0|1|f"]);
}

#[test]
fn a_roll_back_forgets_nothing_and_several_are_forgotten_at_once() {
    let (_database, mut session) = shop();
    delete(&mut session);
    session.run(&format!("BEGIN; SELECT talkmeter.forget_conversation('acme', '{SECRET}'); ROLLBACK"));
    assert!(!who_knows(&mut session).is_empty());
    session.run(
        "BEGIN; SELECT talkmeter.forget_customer('acme', 'bob'); DELETE FROM messages WHERE conversation_id LIKE '47%'",
    );
    session.run("COMMIT");
    let left = "SELECT count(*) FILTER (WHERE conversation LIKE '47%'), count(DISTINCT conversation)
        FROM talkmeter.parts";
    assert_eq!(session.line(left), "0|4");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.forgetting"), "0");
}

#[test]
fn of_two_who_forget_a_conversation_at_once_the_second_finds_nothing() {
    let (database, mut session) = shop();
    delete(&mut session);
    let forget = format!("SELECT talkmeter.forget_conversation('acme', '{SECRET}')");
    session.run(&format!("BEGIN; {forget}"));
    let mut second = database.connect();
    let pid = second.pid();
    let waiting = std::thread::spawn(move || second.refused(&forget));
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    assert_eq!(waiting.join().expect("no panic"), SqlState::UNDEFINED_OBJECT);
    let left = format!("SELECT count(*) FROM talkmeter.conversation WHERE conversation = '{SECRET}'");
    assert_eq!(session.line(&left), "0");
    let forgotten = "SELECT count(*) FROM talkmeter.conversation WHERE conversation LIKE 'forgotten:%'";
    assert_eq!(session.line(forgotten), "1");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn a_message_that_is_inserted_meanwhile_begins_a_new_conversation() {
    let (database, mut session) = shop();
    delete(&mut session);
    session.run(&format!("BEGIN; SELECT talkmeter.forget_conversation('acme', '{SECRET}')"));
    let mut second = database.connect();
    let pid = second.pid();
    let waiting = std::thread::spawn(move || exchange(&mut second, SECRET, "ann", "2026-04-01 10:00"));
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    waiting.join().expect("no panic");
    let parts = format!("SELECT part, message_count FROM talkmeter.parts WHERE conversation = '{SECRET}'");
    assert_eq!(session.lines(&parts), ["1|2"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn a_session_that_plays_a_replica_forgets_at_its_commit_as_well() {
    let (_database, mut session) = shop();
    session.run("SET session_replication_role = replica; BEGIN; SELECT talkmeter.forget_customer('acme', 'ann')");
    delete(&mut session);
    session.run("COMMIT");
    assert_eq!(who_knows(&mut session), [""; 0]);
}

#[test]
fn a_row_in_quarantine_that_is_there_is_a_message_and_one_that_is_deleted_is_nothing() {
    let (_database, mut session) = shop();
    let without_time = format!("INSERT INTO messages VALUES ('no time', 'acme', '{SECRET}', NULL, 'customer', 'ann')");
    session.run(&without_time);
    session.run(&format!("DELETE FROM messages WHERE conversation_id LIKE '%{SECRET}' AND created_at IS NOT NULL"));
    let forget = format!("SELECT talkmeter.forget_conversation('acme', '{SECRET}')");
    assert_eq!(session.refused(&forget), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "1");
    session.run(&format!("BEGIN; DELETE FROM messages WHERE id = 'no time'; {forget}; COMMIT"));
    // All that was known of it is its row in quarantine, which leaves with the row.
    session.run("INSERT INTO messages VALUES ('odd', 'acme', 'strange', '2026-03-01 10:00+00', 'nobody', 'eve')");
    session
        .run("BEGIN; SELECT talkmeter.forget_customer('acme', 'eve'); DELETE FROM messages WHERE id = 'odd'; COMMIT");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.conversation WHERE conversation = 'strange'"), "0");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}
