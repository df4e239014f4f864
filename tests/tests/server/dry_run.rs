//! What does a dry run of `attach` show of a table, and what do its errors advise (rule 2.12)?

use talkmeter_tests::{Database, Session, quoted};

const MAPPING: &str = r#"{"kinds": [{"when": {"who": "user"}, "kind": "customer_message"},
    {"when": {"who": "both"}, "kind": ["customer_message", "ai_reply"]}, {"when": {"who": "cron"}, "kind": "ignore"}]}"#;

fn table(columns: &str) -> (Database, Session) {
    let database = Database::fresh("dry_run");
    let mut session = database.connect();
    session.run(&format!("CREATE TABLE m (tenant_id text, conversation_id text, who text, {columns})"));
    (database, session)
}

fn dry_run(session: &mut Session) -> Vec<String> {
    session.lines(&format!(
        "SELECT concat_ws(' ', message_id, to_char(occurred_at, 'HH24:MI'), kind)
         FROM talkmeter.attach('m', 'lutingenie', {}, dry_run => true)",
        quoted(MAPPING)
    ))
}

#[test]
fn rows_are_counted_by_what_they_are_those_that_no_rule_matches_first() {
    let (_database, mut session) = table("id int PRIMARY KEY, created_at timestamptz");
    session.run(
        "INSERT INTO m SELECT 'acme', 'c', who, id, '2026-03-01 00:00+00'
         FROM unnest(ARRAY['user', 'both', 'cron', 'user', 'user', 'both', 'new', 'new']) WITH ORDINALITY AS t (who, id);
         INSERT INTO m VALUES (NULL, 'c', 'user', 9, '2026-03-01 00:00+00'),
             ('acme', 'c', 'user', 10, '2999-01-01'), ('acme', 'c', 'user', 11, NULL)",
    );
    let wanted = [
        "no_kind: 2 rows",
        "null_key: 2 rows",
        "future: 1 row",
        "customer_message: 3 rows",
        "customer_message, ai_reply: 2 rows",
        "ignore: 1 row",
    ];
    assert_eq!(dry_run(&mut session)[..6], wanted);
}

#[test]
fn the_newest_rows_are_shown_in_the_order_of_time() {
    let (_database, mut session) = table("id int PRIMARY KEY, created_at timestamptz");
    session.run(
        "INSERT INTO m SELECT 'acme', 'c', 'user', id, timestamptz '2026-03-01 00:00+00' + id * interval '1 minute'
         FROM generate_series(59, 1, -1) AS id",
    );
    let shown = dry_run(&mut session);
    assert_eq!(shown[0], "customer_message: 59 rows");
    let wanted: Vec<String> = (40..60).map(|id| format!("{id} 00:{id} customer_message")).collect();
    assert_eq!(shown[1..], wanted);
}

#[test]
fn no_more_than_the_newest_100_000_rows_are_counted() {
    let (_database, mut session) = table("id int PRIMARY KEY, created_at timestamptz");
    session.run(
        "INSERT INTO m SELECT 'acme', 'c', CASE WHEN id <= 1000 THEN 'old' ELSE 'user' END, id, to_timestamp(id)
         FROM generate_series(1, 101000) AS id",
    );
    assert_eq!(dry_run(&mut session)[0], "customer_message: 100000 rows");
}

/// The error of an attempt to attach, with its detail and hint.
fn advice(session: &mut Session, more: &str) -> String {
    let mapping = MAPPING.replacen('{', &format!("{{{more}"), 1);
    let attach = format!("SELECT talkmeter.attach('m', 'lutingenie', {})", quoted(&mapping));
    let error = session.client.batch_execute(&attach).expect_err("an error");
    let error = error.as_db_error().expect("the server's");
    format!("{} {} {}", error.message(), error.detail().unwrap_or_default(), error.hint().unwrap_or_default())
}

#[test]
fn a_number_that_is_a_time_is_told_how_it_is_written() {
    let (_database, mut session) = table("id int PRIMARY KEY, created_at bigint");
    let told = advice(&mut session, "");
    assert!(told.contains(r#""occurred_at": {"column": "created_at", "epoch": "seconds"}"#), "{told}");
}

#[test]
fn a_table_without_a_time_is_told_to_have_one() {
    let (_database, mut session) = table("id int PRIMARY KEY");
    let told = advice(&mut session, "");
    assert!(told.contains("ADD COLUMN created_at timestamptz NOT NULL DEFAULT now()"), "{told}");
    session.run("ALTER TABLE m ADD sent_at timestamptz");
    let told = advice(&mut session, "");
    assert!(told.contains(r#"Add "occurred_at": "sent_at""#), "{told}");
}

#[test]
fn a_path_where_a_whole_column_is_wanted_is_told_to_be_one() {
    let (_database, mut session) = table("id int PRIMARY KEY, created_at timestamptz, extra jsonb");
    let told = advice(&mut session, r#""customer": "extra->by", "#);
    assert!(told.contains("a generated one"), "{told}");
}

#[test]
fn a_partial_unique_index_is_named_and_said_not_to_do() {
    let (_database, mut session) = table("id int PRIMARY KEY, created_at timestamptz, ref text");
    session.run("CREATE UNIQUE INDEX m_ref ON m (ref) WHERE who = 'user'");
    let told = advice(&mut session, r#""message_id": "ref", "#);
    assert!(told.contains("m_ref is partial: it covers some rows only"), "{told}");
    assert!(told.contains("CREATE UNIQUE INDEX ON public.m (ref); or name another column"), "{told}");
}
