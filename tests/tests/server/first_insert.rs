//! What does the first insert of a session wait for? For no statement of ours: to plan a few takes longer than all else.

use std::sync::{Arc, Mutex};
use talkmeter_tests::{Database, PLAN, attach};

/// Statements that the session has executed since it was asked last, those within others too.
fn executed(heard: &Arc<Mutex<Vec<String>>>) -> Vec<String> {
    let told = std::mem::take(&mut *heard.lock().expect("a list"));
    let texts = told.iter().filter_map(|line| line.split_once("Query Text:"));
    texts.map(|(_, text)| text.lines().next().unwrap_or_default().trim().to_owned()).collect()
}

/// A partitioned table with columns of every sort, the earlier rows of which wait for a backfill, and whose mapping has
/// a version before.
fn rich_table() -> Database {
    let database = Database::fresh("first_insert");
    let mut session = database.connect();
    session.run(
        "CREATE TYPE who AS ENUM ('user', 'bot');
         CREATE DOMAIN shop AS varchar(40);
         CREATE TABLE messages (id uuid DEFAULT gen_random_uuid(), tenant_id shop, conversation_id uuid,
             created_at timestamp, sender who, meta jsonb, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
         CREATE TABLE messages_2026 PARTITION OF messages FOR VALUES FROM ('2026-01-01') TO ('2030-01-01');
         CREATE INDEX ON messages (tenant_id, conversation_id, created_at);
         INSERT INTO messages (tenant_id, created_at, sender) VALUES ('acme', '2026-01-01', 'user')",
    );
    let mapping = r#"{"timezone": "Europe/Berlin", "kinds": [{"when": {"sender": "user"}, "kind": "customer_message"},
        {"when": {"sender": "bot"}, "kind": "ai_reply"}]}"#;
    attach(&mut session, "messages", "agent_red", PLAN, mapping);
    let with_notes = mapping.replace("]}", r#", {"when": {"meta->note": true}, "kind": "note"}]}"#);
    session.run(&format!("SELECT talkmeter.remap('messages', '{with_notes}', since => clock_timestamp())"));
    database
}

#[test]
fn the_first_insert_of_a_session_plans_no_statement_of_ours() {
    let database = rich_table();
    for table in ["messages", "messages_2026"] {
        let (mut session, heard) = database.connect_heard();
        session.run(
            "LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
             SET client_min_messages = log",
        );
        executed(&heard);
        let statement = format!("INSERT INTO {table} (tenant_id, conversation_id, created_at, sender)");
        session.run(&format!(
            "{statement}
             VALUES ('acme', md5('c')::uuid, now() AT TIME ZONE 'Europe/Berlin', 'user')"
        ));
        assert_eq!(executed(&heard), [statement]);
        // That statements of ours would have been heard.
        session.run("SELECT talkmeter.retry_quarantine()");
        assert!(executed(&heard).len() > 1, "nothing is heard");
    }
    let mut session = database.connect();
    assert_eq!(session.lines("SELECT message_count FROM talkmeter.parts"), ["2"]);
}
