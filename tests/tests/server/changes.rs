//! Is a row that is changed, deleted or held back metered as what it is, without rewriting what was billed (rules
//! 3.5, 3.7)?

use postgres::error::SqlState;
use talkmeter_tests::{
    Database, PLAN, Session, attach, create_messages, messages_mapping, metered, quoted, standing_charges, tell, told,
};

const NOTHING: [&str; 0] = [];

/// The parts, with messages counted and the time of the charge that stands, times of 2026-03-01 without the day.
fn billed(session: &mut Session) -> Vec<String> {
    let lines = session.table(
        "SELECT p.tenant, p.conversation, p.started_at, p.ended_at, p.message_count, p.not_billable_because, c.charged_at
         FROM talkmeter.parts AS p
         LEFT JOIN talkmeter.charges AS c ON (c.tenant, c.conversation, c.part) = (p.tenant, p.conversation, p.part)
             AND c.reverses IS NULL
             AND NOT EXISTS (SELECT FROM talkmeter.charges AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
         ORDER BY p.tenant, p.conversation, p.started_at",
    );
    lines.iter().map(|line| line.replace("2026-03-01 ", "").replace(":00+00", "")).collect()
}

fn quarantined(session: &mut Session) -> Vec<String> {
    session.lines("SELECT message_id, reason FROM talkmeter.quarantine ORDER BY 1, 2")
}

/// Each row of talkmeter's with where it lies and who wrote it: differs if anything was written.
fn rows_as_stored(session: &mut Session) -> Vec<String> {
    let tables =
        session.lines("SELECT relname FROM pg_class WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'r'");
    let rows = tables.iter().map(|table| format!("SELECT '{table}', ctid, xmin, xmax FROM talkmeter.{table}"));
    session.lines(&format!("{} ORDER BY 1, 2", rows.collect::<Vec<_>>().join(" UNION ALL ")))
}

fn retry(session: &mut Session) -> String {
    session.line("SELECT talkmeter.retry_quarantine()")
}

// --- A changed row is a removal and an addition ---

#[test]
fn a_changed_time_moves_the_event() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange");
    session.run("UPDATE messages SET created_at = '2026-03-01 09:50+00' WHERE id = 2");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|09:50|10:30|4||10:00"
        ]
    );
}

#[test]
fn a_changed_conversation_moves_the_event() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange");
    session.run("UPDATE messages SET conversation_id = 'd' WHERE id = 2");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00",
            "acme|d|10:10|10:40|2||10:10"
        ]
    );
}

#[test]
fn a_changed_tenant_moves_the_event() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("UPDATE messages SET tenant_id = 'other'");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "other|c|10:00|10:30|2||10:00"
        ]
    );
    let ledger = session.lines("SELECT tenant, charge_id, reverses, reason FROM talkmeter.charges ORDER BY 1, 2");
    assert_eq!(ledger, ["acme|1||", "acme|2|1|refold", "other|1||"]);
}

#[test]
fn a_changed_id_changes_the_order_at_one_instant() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:00 ai_reply");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00"
        ]
    );
    session.run("UPDATE messages SET id = 0 WHERE id = 2");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|1|no_ai_reply|"
        ]
    );
}

#[test]
fn a_changed_kind_makes_another_event_of_the_row() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:10 ai_reply");
    session.run("UPDATE messages SET kind = 'staff_reply' WHERE id = 2");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:40|2|no_ai_reply|"
        ]
    );
    session.run("UPDATE messages SET kind = 'ai_reply' WHERE id = 2");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:40|2||10:10"
        ]
    );
}

#[test]
fn a_row_that_was_several_events_becomes_one() {
    let (_database, mut session) = told("agent_red", "10:00 visit, 10:10 exchange");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:00|2||10:00",
            "acme|c|10:10|10:40|2||10:10"
        ]
    );
    session.run("UPDATE messages SET kind = 'customer_message' WHERE id = 1");
    // Its charge instant has moved within its period: the charge stays as posted.
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:40|3||10:00"
        ]
    );
}

#[test]
fn a_changed_column_of_an_excluded_rule_excludes_or_not() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("UPDATE messages SET excluded = true");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2|excluded|"
        ]
    );
    session.run("UPDATE messages SET excluded = false");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00"
        ]
    );
}

#[test]
fn a_row_that_becomes_nothing_to_the_meter_is_removed() {
    let database = Database::fresh("changes");
    let mut session = database.connect();
    create_messages(&mut session);
    let ignoring =
        messages_mapping().replacen(r#"{"kinds": ["#, r#"{"kinds": [{"when": {"kind": null}, "kind": "ignore"}, "#, 1);
    attach(&mut session, "messages", "agent_red", PLAN, &ignoring);
    tell(&mut session, "acme", "c", "10:00 exchange, 10:10 exchange");
    session.run("UPDATE messages SET kind = NULL WHERE id = 2");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00"
        ]
    );
    session.run("UPDATE messages SET kind = NULL WHERE id = 1");
    assert_eq!(
        billed(&mut session),
        ["tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at"]
    );
    session.run("UPDATE messages SET kind = 'exchange'");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:40|4||10:00"
        ]
    );
}

#[test]
fn two_rows_that_change_places_are_each_metered_as_what_they_are() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:10 ai_reply");
    session.run("UPDATE messages SET created_at = CASE id WHEN 1 THEN '2026-03-01 10:10+00' ELSE '2026-03-01 10:00+00' END::timestamptz");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:10|10:40|1|no_ai_reply|"
        ]
    );
}

#[test]
fn a_row_changed_several_times_in_one_transaction_is_metered_as_what_it_is_at_its_end() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:10 exchange");
    session.run(
        "UPDATE messages SET kind = 'error' WHERE id = 2;
         SAVEPOINT s;
         UPDATE messages SET conversation_id = 'd', kind = 'note';
         ROLLBACK TO SAVEPOINT s;
         UPDATE messages SET created_at = created_at - interval '5 minutes' WHERE id = 2;
         UPDATE messages SET kind = 'customer_message' WHERE id = 2;
         COMMIT",
    );
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:35|3||10:00"
        ]
    );
}

#[test]
fn a_change_that_is_taken_back_in_its_transaction_changes_nothing() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange");
    let before = billed(&mut session);
    session.run("BEGIN; UPDATE messages SET kind = 'note'; UPDATE messages SET kind = 'exchange'; COMMIT");
    session.run("BEGIN; UPDATE messages SET kind = 'note'; ROLLBACK");
    assert_eq!(billed(&mut session), before);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
}

#[test]
fn a_row_that_is_deleted_and_inserted_again_in_one_transaction_stays_what_it_was() {
    let (_database, mut session) = told("agent_red", "10:00 close, 10:10 exchange, 10:20 exchange");
    let before = billed(&mut session);
    session.run(
        "BEGIN;
         CREATE TEMP TABLE kept ON COMMIT DROP AS SELECT * FROM messages WHERE id < 3;
         DELETE FROM messages;
         INSERT INTO messages SELECT * FROM kept;
         COMMIT",
    );
    assert_eq!(billed(&mut session), before);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn a_flush_between_changes_meters_each() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange");
    session.run(
        "BEGIN;
         UPDATE messages SET conversation_id = 'd' WHERE id = 2; SELECT talkmeter.flush();
         UPDATE messages SET conversation_id = 'e' WHERE id = 2; SELECT talkmeter.flush();
         COMMIT",
    );
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00",
            "acme|e|10:10|10:40|2||10:10"
        ]
    );
}

// --- Ways to change ---

#[test]
fn on_conflict_do_update_is_a_change() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange");
    session.run(
        "INSERT INTO messages VALUES (2, 'acme', 'c', '2026-03-01 10:10+00', 'exchange'),
             (3, 'acme', 'c', '2026-03-01 10:20+00', 'customer_message')
         ON CONFLICT (id) DO UPDATE SET kind = 'note'",
    );
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:50|3||10:00"
        ]
    );
}

#[test]
fn merge_changes_inserts_and_deletes() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange, 10:20 exchange");
    session.run(
        "MERGE INTO messages AS m
         USING (VALUES (1, 'kept'), (2, 'changed'), (3, 'deleted'), (4, 'new')) AS news (id, what) ON m.id = news.id
         WHEN MATCHED AND what = 'changed' THEN UPDATE SET kind = 'customer_message'
         WHEN MATCHED AND what = 'deleted' THEN DELETE
         WHEN NOT MATCHED THEN INSERT VALUES (news.id, 'acme', 'd', '2026-03-01 11:00+00', 'exchange')",
    );
    // The deleted row changes nothing that was metered, and the part that lost it is sealed, changes of it included.
    assert_eq!(billed(&mut session)[2..], ["acme|d|11:00|11:30|2||11:00"]);
    assert_eq!(session.line("SELECT ended_at FROM talkmeter.parts WHERE conversation = 'c'"), "2026-03-01 10:50:00+00");
}

#[test]
fn a_change_by_a_trigger_of_the_applications_is_one_although_the_update_names_other_columns() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange");
    session.run(
        "ALTER TABLE messages ADD body text;
         CREATE FUNCTION redact() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.kind := 'note'; RETURN NEW; END $$;
         CREATE TRIGGER redact BEFORE UPDATE ON messages FOR EACH ROW EXECUTE FUNCTION redact();
         UPDATE messages SET body = '' WHERE id = 2",
    );
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00"
        ]
    );
}

#[test]
fn a_generated_column_of_the_mapping_changes_with_the_column_that_it_is_made_of() {
    let database = Database::fresh("changes");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz,
             sent_as text, kind text GENERATED ALWAYS AS (lower(sent_as)) STORED, excluded boolean)",
    );
    attach(&mut session, "messages", "agent_red", PLAN, &messages_mapping());
    session.run(
        "INSERT INTO messages VALUES (1, 'acme', 'c', '2026-03-01 10:00+00', 'Exchange'),
             (2, 'acme', 'c', '2026-03-01 10:10+00', 'Exchange')",
    );
    for (change, count) in [
        ("UPDATE messages SET sent_as = 'Note' WHERE id = 2", 2),
        (
            "INSERT INTO messages VALUES (2, 'acme', 'c', '2026-03-01 10:10+00', '') ON CONFLICT (id)
             DO UPDATE SET sent_as = 'Exchange'",
            4,
        ),
        ("MERGE INTO messages USING (VALUES (2)) AS v (n) ON id = n WHEN MATCHED THEN UPDATE SET sent_as = 'Note'", 2),
    ] {
        session.run(change);
        assert_eq!(session.line("SELECT message_count FROM talkmeter.parts"), count.to_string(), "{change}");
    }
}

/// A table with a partition for each of two tenants.
fn partitioned() -> (Database, Session) {
    let database = Database::fresh("changes");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz, kind text,
             excluded boolean, PRIMARY KEY (id, tenant_id)) PARTITION BY LIST (tenant_id);
         CREATE TABLE a PARTITION OF messages FOR VALUES IN ('a');
         CREATE TABLE b (excluded boolean, kind text, created_at timestamptz, conversation_id text,
             tenant_id text NOT NULL, id bigint NOT NULL);
         ALTER TABLE messages ATTACH PARTITION b FOR VALUES IN ('b')",
    );
    attach(&mut session, "messages", "agent_red", PLAN, &messages_mapping());
    session.run(
        "INSERT INTO messages VALUES (1, 'a', 'c', '2026-03-01 10:00+00', 'exchange'),
             (2, 'a', 'c', '2026-03-01 10:10+00', 'exchange')",
    );
    (database, session)
}

#[test]
fn a_row_that_moves_to_another_partition_is_changed() {
    let (_database, mut session) = partitioned();
    session.run("UPDATE messages SET tenant_id = 'b' WHERE id = 2");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "a|c|10:00|10:30|2||10:00",
            "b|c|10:10|10:40|2||10:10"
        ]
    );
    // Directly, in a partition whose columns have another order.
    session.run("UPDATE b SET kind = 'customer_message'");
    assert_eq!(billed(&mut session)[2..], ["b|c|10:10|10:40|1|no_ai_reply|"]);
}

#[test]
fn a_row_that_a_trigger_keeps_from_the_other_partition_is_deleted_and_the_others_are_moved() {
    let (_database, mut session) = partitioned();
    session.run(
        "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql
             AS $$ BEGIN RETURN CASE NEW.id WHEN 1 THEN NULL ELSE NEW END; END $$;
         CREATE TRIGGER keep_out BEFORE INSERT ON b FOR EACH ROW EXECUTE FUNCTION keep_out();
         UPDATE messages SET conversation_id = 'c' || id",
    );
    let one_each = [
        "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
        "a|c1|10:00|10:30|2||10:00",
        "a|c2|10:10|10:40|2||10:10",
    ];
    assert_eq!(billed(&mut session), one_each);
    session.run("UPDATE messages SET tenant_id = 'b'");
    assert_eq!(session.lines("SELECT id FROM messages"), ["2"]);
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            one_each[1],
            "b|c2|10:10|10:40|2||10:10"
        ]
    );
}

#[test]
fn an_update_of_columns_that_the_mapping_does_not_name_writes_nothing() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange, 10:20 unheard_of");
    session.run("ALTER TABLE messages ADD body text");
    let before = rows_as_stored(&mut session);
    session.run("UPDATE messages SET body = 'x'");
    session.run("UPDATE messages SET created_at = created_at, kind = kind, id = id, body = 'y'");
    session.run("INSERT INTO messages (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET body = 'z'");
    assert_eq!(rows_as_stored(&mut session), before);
}

#[test]
fn a_late_row_leaves_the_parts_before_it_and_other_conversations_untouched() {
    let (_database, mut session) = told("agent_red", "08:00 exchange, 10:00 exchange");
    tell(&mut session, "acme", "d", "10:00 exchange");
    let untouched =
        "SELECT conversation, part, ctid, xmin FROM talkmeter.ended_part WHERE (conversation, part) <> ('c', 2)
        UNION ALL
        SELECT conversation, current_part, ctid, xmin FROM talkmeter.conversation WHERE conversation <> 'c' ORDER BY 1, 2";
    let before = session.lines(untouched);
    tell(&mut session, "acme", "c", "09:59 exchange");
    assert_eq!(session.lines(untouched), before);
    assert_eq!(billed(&mut session)[2], "acme|c|09:59|10:30|4||10:00");
}

#[test]
fn a_row_that_waits_for_a_policy_and_becomes_another_event_before_a_sealed_part_is_listed_once() {
    let database = Database::fresh("sealed_once");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "own", "starts_on": ["customer_message"], "ends_on": ["close"],
            "charge_on": "first_ai_reply", "effective_from": "2026-03-01T09:00:00Z"}')"#,
    );
    attach(&mut session, "messages", "own", None, &messages_mapping());
    tell(&mut session, "acme", "c", "08:00 customer_message, 12:00 exchange");
    session.run("DELETE FROM messages WHERE kind = 'exchange'; BEGIN");
    tell(&mut session, "acme", "c", "10:00 customer_message");
    session.run("UPDATE messages SET kind = 'exchange' WHERE created_at = '2026-03-01 08:00+00'; COMMIT");
    let listed =
        "SELECT to_char(occurred_at AT TIME ZONE 'UTC', 'HH24:MI'), reason FROM talkmeter.quarantine ORDER BY 1";
    assert_eq!(session.lines(listed), ["08:00|sealed", "10:00|sealed"]);
}

// --- Deleted rows ---

/// Two parts of a conversation, each of two rows.
const TWO_PARTS: &str = "10:00 exchange, 10:10 exchange, 11:00 exchange, 11:10 exchange";

/// What takes rows away leaves the bill as it is, and no row in quarantine.
fn leaves_the_bill(database: (Database, Session), statement: &str) {
    let (_database, mut session) = database;
    let before = rows_as_stored(&mut session);
    session.run(statement);
    assert_eq!(rows_as_stored(&mut session), before, "{statement}");
    // Also when the next row comes, and it goes on.
    let billed_before = session.lines("SELECT charge_id FROM talkmeter.charges ORDER BY 1");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.lines("SELECT charge_id FROM talkmeter.charges ORDER BY 1"), billed_before);
}

#[test]
fn delete_leaves_the_bill() {
    leaves_the_bill(told("agent_red", TWO_PARTS), "DELETE FROM messages");
}

fn an_update_and_then(end: &str) {
    for change in ["created_at = '2026-03-01 12:00+00', conversation_id = 'd'", "tenant_id = 'bolt'"] {
        let (_database, mut session) = told("agent_red", "10:00 exchange");
        let before = billed(&mut session);
        session.run(&format!("BEGIN; UPDATE messages SET {change}; {end} messages; COMMIT"));
        assert_eq!(billed(&mut session), before, "{change}");
    }
}

#[test]
fn a_row_deleted_in_the_transaction_that_changed_it_leaves_the_bill() {
    an_update_and_then("DELETE FROM");
}

#[test]
fn a_row_truncated_in_the_transaction_that_changed_it_leaves_the_bill() {
    an_update_and_then("TRUNCATE");
}

#[test]
fn truncate_leaves_the_bill() {
    leaves_the_bill(told("agent_red", TWO_PARTS), "TRUNCATE messages");
}

#[test]
fn a_cascade_leaves_the_bill() {
    let (database, mut session) = told("agent_red", TWO_PARTS);
    session.run(
        "CREATE TABLE threads (id text PRIMARY KEY); INSERT INTO threads VALUES ('c');
         ALTER TABLE messages ADD FOREIGN KEY (conversation_id) REFERENCES threads ON DELETE CASCADE",
    );
    leaves_the_bill((database, session), "DELETE FROM threads");
}

#[test]
fn a_dropped_partition_leaves_the_bill() {
    leaves_the_bill(partitioned(), "DROP TABLE a");
}

#[test]
fn a_detached_partition_leaves_the_bill() {
    leaves_the_bill(partitioned(), "ALTER TABLE messages DETACH PARTITION a");
}

#[test]
fn a_truncated_partition_leaves_the_bill() {
    leaves_the_bill(partitioned(), "TRUNCATE a");
}

#[test]
fn rows_whose_keys_become_invalid_count_as_deleted() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange");
    let before = billed(&mut session);
    session.run("UPDATE messages SET conversation_id = NULL WHERE id = 2");
    assert_eq!(billed(&mut session), before);
    assert_eq!(quarantined(&mut session), ["2|null_key"]);
}

// --- Sealed parts ---

/// The conversation `c` of two parts, of which the first has lost a row.
fn sealed() -> (Database, Session) {
    let (database, mut session) = told("agent_red", TWO_PARTS);
    session.run("DELETE FROM messages WHERE id = 1");
    (database, session)
}

#[test]
fn a_row_whose_kind_becomes_unknown_is_no_event_any_more_whatever_it_becomes_then() {
    for ways in [vec!["note"], vec!["robot"], vec!["robot", "note"], vec!["robot", "drone", "robot"]] {
        for together in [false, true] {
            let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:01 ai_reply");
            let changes = ways.iter().map(|kind| format!("UPDATE messages SET kind = '{kind}' WHERE id = 2"));
            let changes: Vec<String> = changes.collect();
            match together {
                true => session.run(&changes.join("; ")),
                false => changes.iter().for_each(|change| session.run(change)),
            }
            let told = format!("{ways:?}, together: {together}");
            assert_eq!(session.lines("SELECT billable FROM talkmeter.parts"), ["f"], "{told}");
            assert_eq!(standing_charges(&mut session, "charge_id"), NOTHING, "{told}");
            let waits: &[&str] = if ways.last() == Some(&"note") { &[] } else { &["2|no_kind"] };
            assert_eq!(quarantined(&mut session), waits, "{told}");
            session.run("UPDATE messages SET kind = 'ai_reply' WHERE id = 2");
            assert_eq!(standing_charges(&mut session, "charge_id").len(), 1, "{told}");
            assert_eq!(quarantined(&mut session), NOTHING, "{told}");
        }
    }
}

#[test]
fn a_row_whose_time_moves_into_the_future_is_an_event_again_once_that_has_come() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:01 ai_reply");
    session.run("UPDATE messages SET created_at = '2100-01-01' WHERE id = 2");
    assert_eq!(session.lines("SELECT message_count, billable FROM talkmeter.parts"), ["1|f"]);
    assert_eq!(quarantined(&mut session), ["2|future"]);
    session.run("UPDATE messages SET created_at = '2026-03-01 10:02+00' WHERE id = 2");
    assert_eq!(session.lines("SELECT message_count, billable FROM talkmeter.parts"), ["2|t"]);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn a_row_that_becomes_unknown_and_is_then_deleted_in_one_transaction_leaves_the_bill() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:01 ai_reply");
    session.run("UPDATE messages SET kind = 'robot' WHERE id = 2; DELETE FROM messages WHERE id = 2");
    assert_eq!(session.lines("SELECT message_count, billable FROM talkmeter.parts"), ["2|t"]);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn a_row_of_a_sealed_part_that_becomes_another_event_is_listed_and_not_followed() {
    let changes = ["kind = 'note'", "excluded = true", "kind = 'visit'"];
    for change in changes {
        let (_database, mut session) = sealed();
        let before = session.lines("SELECT p.*::text FROM talkmeter.parts AS p");
        session.run(&format!("UPDATE messages SET {change} WHERE id = (SELECT min(id) FROM messages)"));
        assert_eq!(session.lines("SELECT p.*::text FROM talkmeter.parts AS p"), before, "{change}");
        let id = session.line("SELECT min(id) FROM messages");
        assert_eq!(quarantined(&mut session), [format!("{id}|sealed")], "{change}");
        assert_eq!(retry(&mut session), "0", "{change}");
        session.run(&format!("DELETE FROM messages WHERE id = {id}"));
        assert_eq!(quarantined(&mut session), NOTHING, "{change}");
    }
}

#[test]
fn a_row_of_a_sealed_part_that_is_changed_and_changed_back_in_one_transaction_is_not_listed() {
    let (_database, mut session) = sealed();
    let id = session.line("SELECT min(id) FROM messages");
    session.run(&format!(
        "UPDATE messages SET excluded = true WHERE id = {id}; UPDATE messages SET excluded = false WHERE id = {id}"
    ));
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn a_late_row_not_after_the_last_activity_of_a_sealed_part_is_quarantined() {
    for late in ["08:00 exchange", "10:05 customer_message", "10:09:59.999999 note", "10:10 ai_reply"] {
        let (_database, mut session) = sealed();
        let before = billed(&mut session);
        tell(&mut session, "acme", "c", late);
        assert_eq!(quarantined(&mut session), ["5|sealed"], "{late}");
        assert_eq!(billed(&mut session), before, "{late}");
        // Nor by trying again.
        assert_eq!(retry(&mut session), "0");
        assert_eq!(quarantined(&mut session), ["5|sealed"], "{late}");
        assert_eq!(billed(&mut session), before, "{late}");
    }
}

#[test]
fn a_late_row_after_the_last_activity_of_the_last_sealed_part_is_metered() {
    let (_database, mut session) = sealed();
    tell(&mut session, "acme", "c", "10:10:00.000001 customer_message");
    tell(&mut session, "acme", "c", "11:05 customer_message");
    tell(&mut session, "acme", "c", "10:20 error");
    assert_eq!(quarantined(&mut session), NOTHING);
    let counts = session.lines("SELECT part, message_count FROM talkmeter.parts ORDER BY 1");
    assert_eq!(counts, ["1|5", "2|5"]);
}

#[test]
fn a_late_row_may_merge_a_part_into_the_sealed_one_before_it() {
    let (_database, mut session) = sealed();
    tell(&mut session, "acme", "c", "10:35 customer_message");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|11:40|9||10:00"
        ]
    );
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn a_sealed_part_keeps_what_it_counted_when_its_other_rows_change() {
    let (_database, mut session) = sealed();
    session.run("UPDATE messages SET created_at = created_at + interval '1 minute' WHERE id = 3");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:40|4||10:00",
            "acme|c|11:01|11:40|4||11:00"
        ]
    );
}

#[test]
fn a_change_of_a_row_that_was_no_event_does_not_unseal_a_part() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 exchange");
    session.run(
        "DELETE FROM messages WHERE id = 2;
         CREATE TABLE mails (LIKE messages INCLUDING ALL);
         INSERT INTO mails VALUES (1, 'acme', 'c', '2026-03-01 10:05+00', 'exchange')",
    );
    attach(&mut session, "mails", "agent_red", PLAN, &messages_mapping());
    let before = billed(&mut session);
    // It is of before the start of its table.
    session.run("UPDATE mails SET kind = 'customer_message'");
    assert_eq!(billed(&mut session), before);
}

#[test]
fn rows_of_a_sealed_part_are_not_missed_in_another_conversation() {
    let (_database, mut session) = sealed();
    tell(&mut session, "acme", "d", "10:00 exchange");
    tell(&mut session, "acme", "d", "09:50 exchange");
    assert_eq!(quarantined(&mut session), NOTHING);
}

// --- Leaving quarantine ---

#[test]
fn a_row_mended_by_update_leaves_quarantine_and_is_metered() {
    for (reason, broken, mend) in [
        ("null_key", "tenant_id = NULL", "tenant_id = 'acme'"),
        ("null_key", "created_at = NULL", "created_at = '2026-03-01 09:50+00'"),
        ("no_kind", "kind = 'unheard_of'", "kind = 'exchange'"),
        ("time_out_of_range", "created_at = 'infinity'", "created_at = '2026-03-01 09:50+00'"),
        ("future", "created_at = now() + interval '1 hour'", "created_at = '2026-03-01 09:50+00'"),
        ("key_too_long", "conversation_id = repeat('x', 513)", "conversation_id = 'c'"),
    ] {
        let (_database, mut session) = told("agent_red", "10:00 exchange");
        session.run(&format!(
            "CREATE TABLE draft (LIKE messages);
             INSERT INTO draft VALUES (2, 'acme', 'c', '2026-03-01 09:50+00', 'exchange', false);
             UPDATE draft SET {broken};
             INSERT INTO messages SELECT * FROM draft"
        ));
        assert_eq!(quarantined(&mut session), [format!("2|{reason}")], "{broken}");
        // Another change leaves it where it is, once.
        for excluded in [true, false] {
            session.run(&format!("UPDATE messages SET excluded = {excluded} WHERE id = 2"));
            assert_eq!(quarantined(&mut session), [format!("2|{reason}")], "{broken}");
        }
        session.run(&format!("UPDATE messages SET {mend} WHERE id = 2"));
        assert_eq!(quarantined(&mut session), NOTHING, "{broken}");
        assert_eq!(
            billed(&mut session),
            [
                "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
                "acme|c|09:50|10:30|4||10:00"
            ],
            "{broken}"
        );
    }
}

#[test]
fn a_row_without_an_id_mended_by_update_leaves_quarantine() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run(
        "ALTER TABLE messages DROP CONSTRAINT messages_pkey, ALTER id DROP IDENTITY, ALTER id DROP NOT NULL;
         INSERT INTO messages VALUES (NULL, 'acme', 'c', '2026-03-01 09:50+00', 'exchange'),
             (NULL, 'acme', 'd', '2026-03-01 09:50+00', 'exchange')",
    );
    assert_eq!(quarantined(&mut session), ["|null_key", "|null_key"]);
    session.run("UPDATE messages SET id = 2 WHERE id IS NULL AND conversation_id = 'c'");
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.quarantine"), ["d"]);
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|09:50|10:30|4||10:00"
        ]
    );
}

#[test]
fn a_row_that_is_mended_in_the_transaction_that_inserts_it_was_never_in_quarantine() {
    let (_database, mut session) = metered("agent_red");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 unheard_of");
    session.run("UPDATE messages SET kind = 'exchange'; COMMIT");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00"
        ]
    );
}

#[test]
fn retry_meters_the_rows_of_a_gap() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("SET talkmeter.enabled = off");
    tell(&mut session, "acme", "c", "10:40 exchange, 10:20 customer_message, 10:50 unheard_of");
    assert_eq!(quarantined(&mut session), ["2|disabled", "3|disabled", "4|disabled"]);
    session.run("RESET talkmeter.enabled");
    assert_eq!(retry(&mut session), "2");
    assert_eq!(session.lines("SELECT message_id FROM talkmeter.quarantine"), ["4"]);
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|11:10|5||10:00"
        ]
    );
}

#[test]
fn a_row_of_a_gap_is_no_event_until_it_is_tried_again() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("SET talkmeter.enabled = off");
    tell(&mut session, "acme", "c", "10:20 customer_message");
    session.run("RESET talkmeter.enabled");
    // Folds the conversation again.
    tell(&mut session, "acme", "c", "09:50 customer_message");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|09:50|10:30|3||10:00"
        ]
    );
    assert_eq!(retry(&mut session), "1");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|09:50|10:50|4||10:00"
        ]
    );
}

#[test]
fn a_metered_row_that_is_changed_in_a_gap_is_what_it_is_once_tried_again() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 customer_message");
    session.run("SET talkmeter.enabled = off; UPDATE messages SET kind = 'note' WHERE id = 2; RESET talkmeter.enabled");
    assert_eq!(quarantined(&mut session), ["2|disabled"]);
    assert_eq!(retry(&mut session), "1");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00"
        ]
    );
}

#[test]
fn the_sweep_meters_a_row_of_the_future_once_its_time_has_come() {
    let (_database, mut session) = metered("agent_red");
    session.run("SET talkmeter.max_future = 0");
    session.run("INSERT INTO messages VALUES (1, 'acme', 'c', clock_timestamp() + interval '1 second', 'exchange')");
    session.run("RESET talkmeter.max_future");
    assert_eq!(quarantined(&mut session), ["1|future"]);
    session.run("SELECT talkmeter.sweep(now() - interval '1 second')");
    assert_eq!(quarantined(&mut session), ["1|future"]);
    session.run("SET talkmeter.enabled = off; SELECT talkmeter.sweep(now() + interval '10 seconds')");
    assert_eq!(quarantined(&mut session), ["1|future"], "metering is off");
    session.run("RESET talkmeter.enabled");
    session.run("SELECT talkmeter.sweep(now() + interval '10 seconds')");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(session.line("SELECT message_count FROM talkmeter.parts"), "2");
}

/// A database in which the row 7 of `visits` is two events: the one has ended a part, the other waits for a policy.
fn half_waiting() -> (Database, Session) {
    let (database, mut session) = metered("agent_red");
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "own", "starts_on": ["customer_message"], "ends_on": ["ai_reply"],
               "charge_on": "close", "effective_from": "2026-03-02T00:00:00Z"}');
           CREATE TABLE calls (id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz);
           SELECT FROM talkmeter.attach('calls', 'own@1', '{"kinds": [{"kind": "customer_message"}]}');
           CREATE TABLE visits (LIKE calls INCLUDING ALL);
           SELECT FROM talkmeter.attach('visits', 'own', '{"kinds": [{"kind": ["ai_reply", "close"]}]}');
           INSERT INTO calls VALUES (1, 'acme', 'c', '2026-03-01 10:00+00');
           INSERT INTO visits VALUES (7, 'acme', 'c', '2026-03-01 10:05+00')"#,
    );
    (database, session)
}

#[test]
fn a_row_of_which_one_event_waits_takes_the_others_along_when_it_leaves() {
    let (_database, mut session) = half_waiting();
    session.run("UPDATE visits SET conversation_id = 'd'");
    let parts = session.lines("SELECT conversation, status, message_count FROM talkmeter.parts");
    assert_eq!(parts, ["c|open|1"]);
}

#[test]
fn a_row_of_several_events_stays_in_quarantine_until_none_of_them_waits() {
    let (_database, mut session) = half_waiting();
    assert_eq!(quarantined(&mut session), ["7|unknown_policy"]);
    assert_eq!(retry(&mut session), "0");
    assert_eq!(quarantined(&mut session), ["7|unknown_policy"]);
}

/// A version of the policy `own` that is in force from an instant on.
fn define_own(session: &mut Session, from: &str) {
    session.run(&format!(
        r#"SELECT talkmeter.define_policy('{{"name": "own", "starts_on": ["customer_message"], "ends_on": ["close"],
            "charge_on": "first_ai_reply", "effective_from": "{from}", "retroactive": true, "note": "a test"}}')"#
    ));
}

/// A conversation that began a day before the policy of its tenant was in force, and goes on after.
fn before_its_policy() -> (Database, Session) {
    let (database, mut session) = metered("agent_red");
    define_own(&mut session, "2026-03-02T00:00:00Z");
    session.run("SELECT talkmeter.subscribe('acme', 'agent_red/starter', since => '2026-01-01', policy => 'own')");
    tell(&mut session, "acme", "c", "10:00 exchange, 2026-03-02 10:00 exchange");
    (database, session)
}

#[test]
fn a_row_that_waited_for_a_policy_before_a_sealed_part_stays_in_quarantine() {
    let (_database, mut session) = before_its_policy();
    session.run("DELETE FROM messages WHERE id = 2");
    define_own(&mut session, "2026-01-01T00:00:00Z");
    retry(&mut session);
    // Once, although the row is two events.
    assert_eq!(quarantined(&mut session), ["1|sealed"]);
}

#[test]
fn a_row_that_waited_moved_to_another_tenant_and_was_deleted_waits_no_more() {
    for kind in ["close", "note", "customer_message"] {
        let (_database, mut session) = before_its_policy();
        session.run(&format!(
            "INSERT INTO messages VALUES (9, 'bolt', 'c', '2026-03-01 10:05+00', '{kind}');
             UPDATE messages SET tenant_id = 'acme' WHERE id = 9"
        ));
        session.run("DELETE FROM messages WHERE id = 9");
        session.run("SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 09:00+00')");
        let listed = session.lines("SELECT reason FROM talkmeter.quarantine WHERE message_id = '9'");
        assert_eq!(listed, NOTHING, "{kind}");
    }
}

#[test]
fn a_row_that_no_policy_can_judge_is_metered_once_one_is_defined_that_was_in_force() {
    let (_database, mut session) = before_its_policy();
    assert_eq!(quarantined(&mut session), ["1|unknown_policy"]);
    assert_eq!(retry(&mut session), "0");
    assert_eq!(quarantined(&mut session), ["1|unknown_policy"]);
    define_own(&mut session, "2026-01-01T00:00:00Z");
    assert_eq!(retry(&mut session), "1");
    assert_eq!(quarantined(&mut session), NOTHING);
    // Version 2 was in force when the part opened, which nothing has ended.
    let parts = session.lines("SELECT policy_version, started_at, message_count FROM talkmeter.parts");
    assert_eq!(parts, ["2|2026-03-01 10:00:00+00|4"]);
}

#[test]
fn rows_of_an_internal_error_are_metered_once_its_cause_is_gone() {
    let (_database, mut session) = metered("agent_red");
    session.run("ALTER TABLE talkmeter.charge ADD CONSTRAINT whole CHECK (tenant <> 'acme')");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run("SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 10:20')");
    session.run("COMMIT");
    let kept = "SELECT message_id, reason, mark_kind FROM talkmeter.quarantine ORDER BY mark_kind NULLS FIRST";
    assert_eq!(session.lines(kept), ["1|internal_error|", "|internal_error|close"]);
    session.run("ALTER TABLE talkmeter.charge DROP CONSTRAINT whole");
    assert_eq!(retry(&mut session), "2");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:20|2||10:00"
        ]
    );
}

#[test]
fn a_change_that_met_an_internal_error_is_metered_once_its_cause_is_gone() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:10 customer_message");
    session.run("ALTER TABLE talkmeter.charge ADD CONSTRAINT whole CHECK (tenant <> 'acme')");
    session.run("UPDATE messages SET kind = 'ai_reply' WHERE id = 2");
    assert_eq!(quarantined(&mut session), ["2|internal_error"]);
    session.run("ALTER TABLE talkmeter.charge DROP CONSTRAINT whole");
    assert_eq!(retry(&mut session), "1");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:40|2||10:10"
        ]
    );
}

/// A row of the conversation `c` changed while the mapping is broken is metered as what it is, once that is mended.
fn is_followed_over_a_broken_mapping((_database, mut session): (Database, Session)) {
    session.run("ALTER TABLE messages ALTER kind TYPE char(40)");
    session.run("UPDATE messages SET kind = 'visit' WHERE id = 2");
    assert_eq!(quarantined(&mut session), ["2|mapping_broken"]);
    session.run("ALTER TABLE messages ALTER kind TYPE text");
    assert_eq!(retry(&mut session), "1");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(session.lines("SELECT message_count, end_reason FROM talkmeter.parts"), ["4|close"]);
}

#[test]
fn a_row_changed_while_its_mapping_was_broken_is_what_it_is_once_that_is_mended() {
    is_followed_over_a_broken_mapping(told("agent_red", "10:00 exchange, 10:10 exchange"));
}

#[test]
fn a_row_of_a_partition_changed_while_its_mapping_was_broken_is_what_it_is_once_that_is_mended() {
    is_followed_over_a_broken_mapping(partitioned());
}

#[test]
fn a_row_that_leaves_its_conversation_while_another_mapping_is_broken_has_left_it_once_that_is_mended() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:40 exchange");
    session.run("CREATE TABLE mails (LIKE messages INCLUDING ALL)");
    attach(&mut session, "mails", "agent_red", PLAN, &messages_mapping());
    session.run("ALTER TABLE mails ALTER kind TYPE char(40)");
    session.run("UPDATE messages SET conversation_id = 'd' WHERE id = 2");
    session.run("ALTER TABLE mails ALTER kind TYPE text");
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|10:00|10:30|2||10:00",
            "acme|d|10:40|11:10|2||10:40"
        ]
    );
    tell(&mut session, "acme", "c", "09:50 customer_message");
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn rows_inserted_while_the_mapping_was_broken_are_metered_once_it_is_mended() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("ALTER TABLE messages ALTER kind TYPE char(40)");
    tell(&mut session, "acme", "c", "10:10 customer_message, 09:50 customer_message");
    assert_eq!(quarantined(&mut session), ["2|mapping_broken", "3|mapping_broken"]);
    assert_eq!(retry(&mut session), "0");
    session.run("ALTER TABLE messages ALTER kind TYPE text");
    assert_eq!(retry(&mut session), "2");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|c|09:50|10:40|4||10:00"
        ]
    );
}

#[test]
fn a_row_of_before_the_start_is_no_event_and_stays_so() {
    let database = Database::fresh("changes");
    let mut session = database.connect();
    create_messages(&mut session);
    tell(&mut session, "acme", "c", "10:00 exchange");
    attach(&mut session, "messages", "agent_red", PLAN, &messages_mapping());
    tell(&mut session, "acme", "c", "now exchange, 10:10 exchange");
    let kept =
        "SELECT message_id, reason, detail LIKE 'The table held rows when it was attached%' FROM talkmeter.quarantine";
    assert_eq!(session.lines(kept), ["3|time_out_of_range|t"]);
    assert_eq!(retry(&mut session), "0");
    assert_eq!(session.lines("SELECT message_count FROM talkmeter.parts"), ["2"]);
    // One that is moved to after it becomes one.
    session.run("UPDATE messages SET created_at = clock_timestamp() WHERE id = 1");
    assert_eq!(session.lines("SELECT message_count FROM talkmeter.parts"), ["4"]);
}

#[test]
fn a_row_that_is_gone_leaves_quarantine_by_itself() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 unheard_of");
    session.run("DELETE FROM messages");
    assert_eq!(quarantined(&mut session), NOTHING);
    tell(&mut session, "acme", "c", "10:00 unheard_of");
    session.run("TRUNCATE messages");
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn truncate_empties_quarantine_of_the_rows_of_its_table() {
    let (_database, mut session) = metered("agent_red");
    session.run(
        "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind)
         VALUES (1, 'acme', 'c', '2026-03-01 10:00+00', 'unheard_of'), (2, NULL, 'c', '2026-03-01 10:00+00', 'exchange')",
    );
    assert_eq!(quarantined(&mut session), ["1|no_kind", "2|null_key"]);
    session.run(
        "BEGIN;
         TRUNCATE messages;
         INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind)
         VALUES (1, 'acme', 'd', '2026-03-01 10:00+00', 'exchange'), (2, NULL, 'c', '2026-03-01 10:00+00', 'exchange');
         COMMIT",
    );
    assert_eq!(quarantined(&mut session), ["2|null_key"]);
    assert_eq!(
        billed(&mut session),
        [
            "tenant|conversation|started_at|ended_at|message_count|not_billable_because|charged_at",
            "acme|d|10:00|10:30|2||10:00"
        ]
    );
}

#[test]
fn a_strict_source_raises_for_a_changed_row_too() {
    let database = Database::fresh("changes");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(&format!(
        "SELECT talkmeter.attach('messages', 'agent_red', {}, strict => true, default_plan => 'agent_red/starter')",
        quoted(&messages_mapping())
    ));
    tell(&mut session, "acme", "c", "10:00 exchange, 10:10 exchange");
    let before = billed(&mut session);
    for (change, code) in [
        ("conversation_id = NULL", SqlState::NOT_NULL_VIOLATION),
        ("kind = 'unheard_of'", SqlState::CHECK_VIOLATION),
        ("created_at = now() + interval '1 day'", SqlState::DATETIME_FIELD_OVERFLOW),
    ] {
        assert_eq!(session.refused(&format!("UPDATE messages SET {change} WHERE id = 2")), code, "{change}");
    }
    assert_eq!(billed(&mut session), before);
    assert_eq!(standing_charges(&mut session, "part"), ["1"]);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn rows_of_a_table_that_inherits_are_no_events_when_they_are_changed_through_the_attached_one() {
    let (_database, mut session) = told("agent_red", "10:00 note");
    session.run(
        "CREATE TABLE kid () INHERITS (messages);
         INSERT INTO kid (id, tenant_id, conversation_id, created_at, kind)
             VALUES (100, 'acme', 'of the kid', '2026-03-01 10:00+00', 'note');
         UPDATE messages SET kind = 'exchange'",
    );
    assert_eq!(session.lines("SELECT conversation, message_count FROM talkmeter.parts"), ["c|2"]);
    session.run("UPDATE messages SET created_at = created_at + interval '1 min'; DELETE FROM messages WHERE id = 100");
    assert_eq!(session.lines("SELECT conversation, message_count FROM talkmeter.parts"), ["c|2"]);
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
}

// --- What a charge was taken back for ---

/// What is said of the charges that were taken back.
fn causes(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT conversation, part, reason, posted_by, cause_source, cause_message_id, cause_at FROM talkmeter.charges
         WHERE reverses IS NOT NULL ORDER BY charge_id",
    )
}

#[test]
fn a_reversal_names_the_late_row_and_the_session_that_brought_it() {
    let (database, mut session) = told("agent_red", "10:00 exchange, 10:40 exchange");
    let role = database.role("late");
    session.run(&format!("GRANT INSERT ON messages TO {role}"));
    tell(&mut database.connect_as(&role), "acme", "c", "10:20 customer_message");
    let id = session.line("SELECT max(id) FROM messages");
    let expected = format!("c|2|refold|{role}|public.messages|{id}|2026-03-01 10:20:00+00");
    assert_eq!(causes(&mut session), [expected]);
}

#[test]
fn a_reversal_names_the_changed_row_by_the_place_that_it_left() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:01 ai_reply");
    session.run("UPDATE messages SET kind = 'note' WHERE id = 2");
    let by = session.line("SELECT session_user");
    assert_eq!(causes(&mut session), [format!("c|1|refold|{by}|public.messages|2|2026-03-01 10:01:00+00")]);
}

#[test]
fn a_reversal_names_a_late_mark_by_its_number() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:01 ai_reply");
    session.run("SELECT talkmeter.mark('acme', 'c', 'error', '2026-03-01 10:00:30+00')");
    let by = session.line("SELECT session_user");
    assert_eq!(causes(&mut session), [format!("c|1|refold|{by}||1|2026-03-01 10:00:30+00")]);
}

#[test]
fn a_credit_names_who_gave_it_and_no_event() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("SELECT talkmeter.credit('acme', 1, 'goodwill')");
    let by = session.line("SELECT session_user");
    assert_eq!(causes(&mut session), [format!("c|1|credit|{by}|||")]);
}

// --- What comes later than max_past admits ---

/// A part of long ago, and the setting that keeps others away.
fn limited() -> (Database, Session) {
    let (database, mut session) = told("agent_red", "10:00 exchange");
    session.run("SET talkmeter.max_past = '1d'");
    (database, session)
}

#[test]
fn a_row_that_comes_too_late_waits_until_a_superuser_admits_it() {
    let (_database, mut session) = limited();
    tell(&mut session, "acme", "d", "11:00 exchange");
    tell(&mut session, "acme", "e", "now exchange");
    assert_eq!(quarantined(&mut session), ["2|too_old"]);
    assert_eq!(standing_charges(&mut session, "conversation"), ["c", "e"]);
    assert_eq!(retry(&mut session), "0");
    session.run("RESET talkmeter.max_past");
    assert_eq!(retry(&mut session), "1");
    assert_eq!(standing_charges(&mut session, "conversation"), ["c", "d", "e"]);
}

#[test]
fn a_row_that_comes_too_late_is_no_event_to_a_conversation_that_is_folded_again_by_the_same_commit() {
    let (_database, mut session) = limited();
    session.run(
        "BEGIN;
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'c', '2026-03-01 09:50+00', 'exchange');
         UPDATE messages SET kind = 'visit' WHERE id = 1;
         COMMIT",
    );
    assert_eq!(quarantined(&mut session), ["2|too_old"]);
    let parts = session.lines("SELECT to_char(started_at, 'HH24:MI'), end_reason FROM talkmeter.parts");
    assert_eq!(parts, ["10:00|close"]);
}

#[test]
fn a_metered_row_stays_an_event_when_it_is_changed_however_old_it_is() {
    let (_database, mut session) = limited();
    session.run("UPDATE messages SET kind = 'customer_message' WHERE id = 1");
    assert_eq!(standing_charges(&mut session, "conversation"), NOTHING);
    session.run("UPDATE messages SET kind = 'exchange' WHERE id = 1");
    assert_eq!(standing_charges(&mut session, "conversation"), ["c"]);
    session.run("DELETE FROM messages");
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn no_update_admits_a_row_that_came_too_late() {
    let (_database, mut session) = limited();
    tell(&mut session, "acme", "d", "11:00 customer_message");
    session.run("UPDATE messages SET kind = 'exchange' WHERE id = 2");
    session.run(
        "BEGIN;
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'd', '2026-03-01 12:00+00', 'note');
         UPDATE messages SET kind = 'exchange' WHERE id = 3;
         COMMIT",
    );
    assert_eq!(quarantined(&mut session), ["2|too_old", "3|too_old"]);
    session.run("UPDATE messages SET created_at = now() WHERE id = 2; DELETE FROM messages WHERE id = 3");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(standing_charges(&mut session, "conversation"), ["c", "d"]);
}

#[test]
fn a_mark_of_too_long_ago_is_an_error_of_the_call() {
    let (_database, mut session) = limited();
    let refused = session.refused("SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 10:05+00')");
    assert_eq!(refused, SqlState::DATETIME_FIELD_OVERFLOW);
}

#[test]
fn a_strict_table_refuses_a_row_that_comes_too_late() {
    let database = Database::fresh("strict");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(&format!(
        "SELECT talkmeter.attach('messages', 'agent_red', strict => true, mapping => {}); SET talkmeter.max_past = '1d'",
        quoted(&messages_mapping())
    ));
    let insert = "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
                  VALUES ('acme', 'c', '2026-03-01 10:00+00', 'exchange')";
    assert_eq!(session.refused(insert), SqlState::DATETIME_FIELD_OVERFLOW);
}

// --- A version that reaches back ---

/// By it no part is billable.
fn define_backdated(keys: &str) -> String {
    format!(
        r#"SELECT talkmeter.define_policy('{{"name": "agent_red", "effective_from": "2001-01-01T00:00:00Z", {keys}
            "starts_on": ["customer_message"], "ends_on": ["close"], "idle_timeout": "30 minutes",
            "charge_on": "first_ai_reply", "exclude_prefixes": ["c"]}}')"#
    )
}

#[test]
fn a_version_that_reaches_back_over_parts_must_say_so_and_why() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    let silent = define_backdated("");
    assert_eq!(session.refused(&silent), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    let unfounded = define_backdated(r#""retroactive": true,"#);
    assert_eq!(session.refused(&unfounded), SqlState::INVALID_PARAMETER_VALUE);
    session.run(&define_backdated(r#""retroactive": true, "note": "as agreed","#));
    let by = session.line("SELECT session_user");
    let recorded = "SELECT policy_version, retroactive, note, defined_by, defined_at <= now() FROM talkmeter.policies
                    WHERE name = 'agent_red' ORDER BY 1 DESC LIMIT 1";
    assert_eq!(session.line(recorded), format!("2|t|as agreed|{by}|t"));
    let journaled = "SELECT note, by FROM talkmeter.journal WHERE call = 'define_policy'";
    assert_eq!(session.line(journaled), format!("as agreed|{by}"));
}

#[test]
fn a_version_that_reaches_back_needs_no_word_where_its_policy_has_judged_nothing() {
    let (_database, mut session) = metered("agent_red");
    session.run(&define_backdated(""));
    let defined = "SELECT policy_version, retroactive FROM talkmeter.policies WHERE name = 'agent_red' ORDER BY 1";
    assert_eq!(session.lines(defined), ["1|f", "2|f"]);
}

#[test]
fn a_part_that_begins_with_the_same_event_keeps_its_version_when_it_is_folded_again() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run(&define_backdated(r#""retroactive": true, "note": "as agreed","#));
    tell(&mut session, "acme", "c", "09:59 note, 10:05 note, 10:10 exchange");
    let parts = "SELECT to_char(started_at, 'HH24:MI'), policy_version, billable FROM talkmeter.parts ORDER BY 1";
    assert_eq!(session.lines(parts), ["10:00|1|t"]);
    // What is new in the past is judged by what is in force there by now.
    tell(&mut session, "acme", "c", "08:00 exchange");
    assert_eq!(session.lines(parts), ["08:00|2|f", "10:00|1|t"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn a_mark_whose_part_comes_to_stand_after_one_of_another_source_takes_the_version_of_that() {
    let (_database, mut session) = metered("agent_red");
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "own", "effective_from": "-infinity", "starts_on": ["note", "system_message"],
               "ends_on": ["close"], "charge_on": "close", "idle_timeout": "30 minutes"}');
           SELECT talkmeter.define_policy('{"name": "own", "effective_from": "2026-01-01T00:00:00Z", "starts_on": ["note"],
               "ends_on": ["close"], "charge_on": "close", "idle_timeout": "30 minutes", "retroactive": true, "note": "a test"}');
           CREATE TABLE pinned (LIKE messages INCLUDING ALL)"#,
    );
    session.run("SELECT talkmeter.detach('messages')");
    attach(&mut session, "pinned", "own@1", PLAN, &messages_mapping());
    session.run("CREATE TABLE newest (LIKE messages INCLUDING ALL)");
    attach(&mut session, "newest", "own", PLAN, &messages_mapping());
    session.run(
        "INSERT INTO pinned (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'c', '2026-03-01 10:00+00', 'note');
         SELECT talkmeter.mark('acme', 'c', 'system_message', '2026-03-01 12:00+00')",
    );
    let parts = "SELECT started_at, policy_version FROM talkmeter.parts ORDER BY 1";
    assert_eq!(session.lines(parts), ["2026-03-01 10:00:00+00|1", "2026-03-01 12:00:00+00|1"]);
    session.run(
        "INSERT INTO newest (tenant_id, conversation_id, created_at, kind) VALUES ('acme', 'c', '2026-03-01 11:00+00', 'note')",
    );
    assert_eq!(session.lines(parts), ["2026-03-01 10:00:00+00|1", "2026-03-01 11:00:00+00|2"]);
}

#[test]
fn a_row_that_goes_to_and_fro_between_what_counts_and_what_does_not_is_what_it_is_at_the_end() {
    for count in 1..=5 {
        let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:01 robot");
        let changes = (0..count).map(|change| ["ai_reply", "robot"][change % 2]);
        let changes: Vec<String> =
            changes.map(|kind| format!("UPDATE messages SET kind = '{kind}' WHERE id = 2")).collect();
        session.run(&changes.join("; "));
        let (parts, waits): (_, &[&str]) = if count % 2 == 1 { ("2|t", &[]) } else { ("1|f", &["2|no_kind"]) };
        assert_eq!(session.lines("SELECT message_count, billable FROM talkmeter.parts"), [parts], "{count} changes");
        assert_eq!(quarantined(&mut session), waits, "{count} changes");
    }
}
