//! Does metering go on while the application's schema changes (rules 2.6.3, 2.6.6 and 2.6.7)?

use talkmeter_tests::{Database, PLAN, Session, attach, create_messages, messages_mapping, metered, quoted, tell};

const NOTHING: [&str; 0] = [];

const MAPPING: &str =
    r#"{"kinds": [{"when": {"role": "c"}, "kind": "customer_message"}, {"when": {"role": "a"}, "kind": "ai_reply"}]}"#;

/// A table as an application has it before its migrations, with a conversation.
fn before() -> (Database, Session) {
    let database = Database::fresh("migrations");
    let mut session = database.connect();
    session.run(
        "CREATE TYPE role AS ENUM ('c', 'a', 'system');
         CREATE TYPE customers AS ENUM ('c');
         CREATE DOMAIN shop AS text;
         CREATE TABLE messages (id integer PRIMARY KEY, tenant_id varchar(255), conversation_id integer,
             created_at timestamptz(3), role varchar(20));
         CREATE INDEX ON messages (tenant_id, conversation_id, created_at)",
    );
    attach(&mut session, "messages", "lutingenie", PLAN, MAPPING);
    insert(&mut session, 1, 1, "10:00", "c");
    insert(&mut session, 2, 1, "10:10", "a");
    (database, session)
}

fn insert(session: &mut Session, id: i32, conversation: i32, time: &str, role: &str) {
    session.run(&format!("INSERT INTO messages VALUES ({id}, 't', {conversation}, '2026-03-01 {time}+00', '{role}')"));
}

fn quarantined(session: &mut Session) -> Vec<String> {
    session.lines("SELECT message_id, reason FROM talkmeter.quarantine ORDER BY 1")
}

fn counted(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation, message_count, billable FROM talkmeter.parts ORDER BY 1")
}

fn problems(session: &mut Session) -> Vec<String> {
    // The rows of these tests are old, and no part of theirs is swept.
    session.lines(
        "SELECT problem, object FROM talkmeter.health() WHERE problem NOT IN ('posted_late', 'sweep_stale') ORDER BY 1, 2",
    )
}

/// A conversation of after the migration, and a late row of the one of before.
fn goes_on(session: &mut Session, migration: &str) {
    insert(session, 3, 2, "11:00", "c");
    insert(session, 4, 2, "11:01", "a");
    insert(session, 5, 1, "10:05", "c");
    assert_eq!(counted(session), ["1|3|t", "2|2|t"], "{migration}");
    assert_eq!(quarantined(session), NOTHING, "{migration}");
    assert_eq!(problems(session), NOTHING, "{migration}");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(session), NOTHING, "{migration}, swept");
    session.run("UPDATE messages SET role = 'c' WHERE id = 4");
    assert_eq!(counted(session), ["1|3|t", "2|2|f"], "{migration}");
}

#[test]
fn a_type_that_widens_or_narrows_within_its_class_is_followed() {
    for column in [
        "id TYPE bigint",
        "id TYPE smallint",
        "conversation_id TYPE bigint",
        "tenant_id TYPE text",
        "tenant_id TYPE shop",
        "role TYPE varchar(200)",
        "role TYPE text",
        "role TYPE role USING role::role",
        "created_at TYPE timestamptz",
        "created_at TYPE timestamptz(0)",
    ] {
        let (_database, mut session) = before();
        session.run(&format!("ALTER TABLE messages ALTER {column}"));
        goes_on(&mut session, column);
    }
}

#[test]
fn a_text_may_become_an_enum_and_a_text_again() {
    let (_database, mut session) = before();
    for column in ["role TYPE role USING role::role", "role TYPE text", "role TYPE role USING role::role"] {
        session.run(&format!("ALTER TABLE messages ALTER {column}"));
    }
    goes_on(&mut session, "to and fro");
}

#[test]
fn an_enum_without_a_label_that_the_mapping_names_breaks_it() {
    let (_database, mut session) = before();
    session.run("UPDATE messages SET role = 'c'");
    session.run("ALTER TABLE messages ALTER role TYPE customers USING role::customers");
    insert(&mut session, 3, 2, "11:00", "c");
    assert_eq!(quarantined(&mut session), ["3|mapping_broken"]);
}

#[test]
fn another_type_breaks_the_mapping_and_rows_are_listed_by_their_ids() {
    for (column, back) in [
        ("id TYPE text", "id TYPE integer USING id::integer"),
        ("conversation_id TYPE text", "conversation_id TYPE integer USING conversation_id::integer"),
        ("created_at TYPE timestamp", "created_at TYPE timestamptz"),
        ("role TYPE char(20)", "role TYPE varchar(20)"),
    ] {
        let (_database, mut session) = before();
        session.run("SET TimeZone = 'UTC'");
        session.run(&format!("ALTER TABLE messages ALTER {column}"));
        insert(&mut session, 3, 1, "10:20", "a");
        assert_eq!(quarantined(&mut session), ["3|mapping_broken"], "{column}");
        assert_eq!(
            problems(&mut session),
            ["mapping_broken|public.messages", "quarantine|public.messages"],
            "{column}"
        );
        session.run(&format!("ALTER TABLE messages ALTER {back}"));
        assert_eq!(session.line("SELECT talkmeter.retry_quarantine()"), "1", "{column}");
        assert_eq!(counted(&mut session), ["1|3|t"], "{column}");
        assert_eq!(problems(&mut session), NOTHING, "{column}");
    }
}

#[test]
fn a_mapping_that_is_broken_by_another_type_is_mended_by_a_remap() {
    let (_database, mut session) = before();
    session.run("ALTER TABLE messages ALTER conversation_id TYPE text");
    insert(&mut session, 3, 2, "11:00", "c");
    insert(&mut session, 4, 2, "11:01", "a");
    assert_eq!(quarantined(&mut session), ["3|mapping_broken", "4|mapping_broken"]);
    session.run(&format!("SELECT talkmeter.remap('messages', {})", quoted(MAPPING)));
    assert_eq!(quarantined(&mut session), NOTHING);
    insert(&mut session, 5, 1, "10:05", "c");
    assert_eq!(counted(&mut session), ["1|3|t", "2|2|t"]);
    assert_eq!(problems(&mut session), NOTHING);
}

#[test]
fn a_column_that_the_mapping_does_not_name_may_come_and_go() {
    for change in [
        "ADD extra text",
        "ADD extra text NOT NULL DEFAULT 'x'",
        "ADD extra integer, ADD other integer; ALTER TABLE messages ALTER extra TYPE text, DROP other",
        "ADD extra integer; ALTER TABLE messages RENAME extra TO other; ALTER TABLE messages DROP other",
    ] {
        let (_database, mut session) = before();
        session.run(&format!("ALTER TABLE messages {change}"));
        goes_on(&mut session, change);
    }
}

#[test]
fn a_column_that_the_mapping_names_is_dropped_with_a_remap_before_or_after() {
    let remap = |arguments: &str| {
        format!("SELECT talkmeter.remap('messages', {}{arguments})", quoted(&MAPPING.replace("role", "author")))
    };
    for (steps, waits) in [
        (["ALTER TABLE messages DROP role".to_owned(), remap("")], "1"),
        ([remap(", since => '-infinity'"), "ALTER TABLE messages DROP role".to_owned()], "0"),
    ] {
        let (_database, mut session) = before();
        session.run("ALTER TABLE messages ADD author text; UPDATE messages SET author = role");
        session.run(&steps[0]);
        session.run("INSERT INTO messages (id, tenant_id, conversation_id, created_at, author) VALUES (3, 't', 2, '2026-03-01 11:00+00', 'c')");
        assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), waits, "{steps:?}");
        session.run(&steps[1]);
        insert(&mut session, 4, 2, "11:01", "a");
        insert(&mut session, 5, 1, "10:05", "c");
        assert_eq!(counted(&mut session), ["1|3|t", "2|2|t"], "{steps:?}");
        assert_eq!(quarantined(&mut session), NOTHING, "{steps:?}");
        assert_eq!(problems(&mut session), NOTHING, "{steps:?}");
    }
}

#[test]
fn renames_of_table_schema_and_columns_are_followed_and_no_problem() {
    for rename in [
        "ALTER TABLE messages RENAME TO notes; SET search_path = public",
        "CREATE SCHEMA app; ALTER TABLE messages SET SCHEMA app; SET search_path = app",
        "CREATE SCHEMA app; ALTER TABLE messages SET SCHEMA app; ALTER SCHEMA app RENAME TO own; SET search_path = own",
        "ALTER TABLE messages RENAME conversation_id TO thread; ALTER TABLE messages RENAME kind TO sort",
    ] {
        let (_database, mut session) = metered("lutingenie");
        tell(&mut session, "acme", "c", "10:00 customer_message, 10:10 ai_reply");
        session.run(rename);
        assert_eq!(problems(&mut session), NOTHING, "{rename}");
        session.run("SELECT talkmeter.sweep()");
        assert_eq!(problems(&mut session), NOTHING, "{rename}, swept");
        let table = session.line("SELECT source FROM talkmeter.sources");
        session.run(&format!("INSERT INTO {table} VALUES (9, 'acme', 'c', '2026-03-01 10:05+00', 'customer_message')"));
        assert_eq!(counted(&mut session), ["c|3|t"], "{rename}");
        assert_eq!(quarantined(&mut session), NOTHING, "{rename}");
        let named = "SELECT relation_name = format('%I.%I', relnamespace::regnamespace, relname)
                     FROM talkmeter.source JOIN pg_class AS c ON c.oid = relation";
        assert_eq!(session.line(named), "t", "{rename}");
    }
}

#[test]
fn a_table_that_takes_the_name_of_the_attached_one_is_named_until_it_is_attached_too() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:10 ai_reply");
    session.run("ALTER TABLE messages RENAME TO old_messages");
    create_messages(&mut session);
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), ["table_swapped|public.messages"]);
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    assert_eq!(problems(&mut session), NOTHING);
    tell(&mut session, "acme", "c", "10:05 customer_message");
    assert_eq!(counted(&mut session), ["c|3|t"], "rows of both are read");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(
        session.lines("SELECT relation_name FROM talkmeter.source ORDER BY 1"),
        ["public.messages", "public.old_messages"]
    );
    assert_eq!(problems(&mut session), NOTHING);
}

#[test]
fn a_partition_that_was_added_gets_its_triggers_from_the_next_sweep() {
    let database = Database::fresh("migrations");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz,
             kind text, excluded boolean DEFAULT false, PRIMARY KEY (id, created_at))
             PARTITION BY RANGE (created_at);
         CREATE TABLE march PARTITION OF messages FOR VALUES FROM ('2026-03-01') TO ('2026-04-01');
         CREATE INDEX ON messages (tenant_id, conversation_id, created_at)",
    );
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    session.run("ALTER EVENT TRIGGER talkmeter_partitions DISABLE");
    session.run(
        "CREATE TABLE april PARTITION OF messages FOR VALUES FROM ('2026-04-01') TO ('2026-05-01');
         CREATE TABLE may PARTITION OF messages FOR VALUES FROM ('2026-05-01') TO ('2026-06-01') PARTITION BY RANGE (created_at);
         CREATE TABLE rest PARTITION OF may DEFAULT;
         CREATE TABLE june (LIKE messages INCLUDING ALL);
         ALTER TABLE messages ATTACH PARTITION june FOR VALUES FROM ('2026-06-01') TO ('2026-07-01')",
    );
    let missing = ["april", "june", "may", "rest"].map(|table| format!("trigger_missing|public.{table}"));
    assert_eq!(problems(&mut session), missing);
    session.run(&session_hint(&mut database.connect()));
    assert_eq!(problems(&mut session), NOTHING);
    for (table, month) in [("april", 4), ("may", 5), ("rest", 5), ("june", 6), ("messages", 6)] {
        session.run(&format!(
            "INSERT INTO {table} VALUES ({}, 'acme', '{table}', '2026-0{month}-10', 'exchange', false)",
            table.len()
        ));
    }
    let all = ["april|2|t", "june|2|t", "may|2|t", "messages|2|t", "rest|2|t"];
    assert_eq!(counted(&mut session), all);
    session.run("SELECT talkmeter.detach('messages')");
    assert_eq!(problems(&mut session), NOTHING, "none of its triggers is left");
}

fn session_hint(session: &mut Session) -> String {
    let hint = session.line("SELECT DISTINCT hint FROM talkmeter.health() WHERE problem = 'trigger_missing'");
    hint.split_once(": ").expect("a statement").1.to_owned()
}

#[test]
fn a_partition_into_which_somebody_inserts_is_left_to_a_later_sweep() {
    let database = Database::fresh("migrations");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz,
             kind text, excluded boolean DEFAULT false, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
         CREATE INDEX ON messages (tenant_id, conversation_id)",
    );
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    session.run("ALTER EVENT TRIGGER talkmeter_partitions DISABLE");
    session.run("CREATE TABLE march PARTITION OF messages FOR VALUES FROM ('2026-03-01') TO ('2026-04-01')");
    let mut application = database.connect();
    application.run("BEGIN; INSERT INTO march VALUES (1, 'acme', 'c', '2026-03-01', 'note', false)");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), ["trigger_missing|public.march"]);
    application.run("COMMIT");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), NOTHING);
}

#[test]
fn a_trigger_that_was_dropped_comes_back_without_the_start_being_lost() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:10 ai_reply");
    session.run("DROP TRIGGER talkmeter_update ON messages");
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(problems(&mut session), ["trigger_missing|public.messages"], "no sweep attaches a table");
    session.run("BEGIN; SELECT talkmeter.detach('messages')");
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    session.run("COMMIT");
    assert_eq!(problems(&mut session), NOTHING);
    tell(&mut session, "acme", "c", "10:05 customer_message");
    assert_eq!(counted(&mut session), ["c|3|t"]);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn attach_says_of_an_unlogged_table_that_a_crash_empties_it_and_of_no_other() {
    let database = Database::fresh("migrations");
    let (mut session, heard) = database.connect_heard();
    create_messages(&mut session);
    for (change, is_told) in [
        ("", false),
        ("ALTER TABLE messages SET UNLOGGED", true),
        (
            "DROP TABLE messages;
             CREATE TABLE messages (id bigint, tenant_id text, conversation_id text, created_at timestamptz,
                 kind text, excluded boolean, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
             CREATE INDEX ON messages (tenant_id, conversation_id);
             CREATE UNLOGGED TABLE rest PARTITION OF messages DEFAULT",
            true,
        ),
    ] {
        session.run(change);
        attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
        let told = std::mem::take(&mut *heard.lock().expect("no other thread"));
        let expected = "WARNING: table public.messages is UNLOGGED: a crash empties it";
        assert_eq!(told.iter().any(|line| line == expected), is_told, "{change}: {told:?}");
        session.run("SELECT talkmeter.detach('messages')");
    }
}

#[test]
fn a_copy_of_the_database_goes_on_by_columns_and_tables_that_were_renamed_since_the_last_sweep() {
    let database = Database::with_messages("migrations", "lutingenie", PLAN);
    let mut session = database.connect();
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:10 ai_reply");
    session.run("ALTER TABLE messages RENAME kind TO sort; ALTER TABLE messages RENAME TO letters");
    drop(session);
    for strategy in ["wal_log", "file_copy"] {
        let copy = database.copy(strategy);
        let mut session = copy.connect();
        session.run(
            "INSERT INTO letters (tenant_id, conversation_id, created_at, sort)
             VALUES ('acme', 'c', '2026-03-01 10:05+00', 'customer_message')",
        );
        assert_eq!(counted(&mut session), ["c|3|t"], "{strategy}");
        assert_eq!(quarantined(&mut session), NOTHING);
        assert_eq!(problems(&mut session), NOTHING);
        session.run("SELECT talkmeter.sweep()");
        assert_eq!(
            session.line("SELECT relation_name, columns @> '[{\"name\": \"sort\"}]' FROM talkmeter.source"),
            "public.letters|t"
        );
    }
}
