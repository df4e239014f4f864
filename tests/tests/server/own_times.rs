//! What becomes of a row whose question and answer have times of their own (rule 2.4.11)?

use talkmeter_tests::{Database, PLAN, Session, attach};

const NOTHING: [&str; 0] = [];

const MAPPING: &str = r#"{"kinds": [
    {"when": {"what": "question"}, "kind": "customer_message"},
    {"when": {"what": "both"}, "kind": ["customer_message", {"ai_reply": {"occurred_at": "updated_at"}}]}]}"#;

/// A table whose rows hold a question and its answer, with one column more, attached by this mapping.
fn attached_by(more: &str, mapping: &str) -> (Database, Session) {
    let database = Database::fresh("own_times");
    let mut session = database.connect();
    session.run(&format!(
        "CREATE TABLE m (id bigint PRIMARY KEY, tenant_id text DEFAULT 'acme', conversation_id text DEFAULT 'c',
             what text DEFAULT 'both', created_at timestamptz, updated_at timestamptz, {more});
         CREATE INDEX ON m (tenant_id, conversation_id)"
    ));
    attach(&mut session, "m", "lutingenie", PLAN, mapping);
    (database, session)
}

fn attached() -> (Database, Session) {
    attached_by("note text", MAPPING)
}

/// A row of a question and an answer; their times as SQL writes them.
fn insert(session: &mut Session, id: i64, asked: &str, answered: &str) {
    session.run(&format!("INSERT INTO m (id, created_at, updated_at) VALUES ({id}, {}, {})", at(asked), at(answered)));
}

/// A time of one day; none if it is empty.
fn at(time: &str) -> String {
    if time.is_empty() { "NULL".into() } else { format!("timestamptz '2026-03-01 {time}+00'") }
}

/// Of each part its first and its last activity, when its charge was made, messages and replies of the AI.
fn parts(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT concat_ws(' ', to_char(started_at, 'HH24:MI'), to_char(last_activity_at, 'HH24:MI'),
             COALESCE(to_char(charged_at, 'HH24:MI'), '-'), message_count, ai_replies)
         FROM talkmeter.parts ORDER BY started_at",
    )
}

fn held(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT concat_ws(' ', message_id, to_char(occurred_at, 'HH24:MI'), reason)
         FROM talkmeter.quarantine ORDER BY message_id, occurred_at, reason",
    )
}

/// What is metered is what folding from the start makes of the rows.
fn is_sound(session: &mut Session) {
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    assert_eq!(session.lines("SELECT talkmeter.reconcile('2026-03-01')"), ["0"]);
}

#[test]
fn an_answer_counts_at_its_own_time() {
    let (_database, mut session) = attached();
    insert(&mut session, 1, "10:00", "10:02");
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
    // Later than the timeout: it is of another part, which no answer opens.
    insert(&mut session, 2, "12:00", "14:00");
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1", "12:00 12:00 - 1 0"]);
    is_sound(&mut session);
}

#[test]
fn a_row_that_is_written_while_the_answer_streams_is_charged_when_the_answer_comes() {
    let (_database, mut session) = attached();
    insert(&mut session, 1, "10:00", "");
    assert_eq!(parts(&mut session), ["10:00 10:00 - 1 0"]);
    assert_eq!(held(&mut session), ["1 null_key"]);
    let detail = session.line("SELECT detail FROM talkmeter.quarantine");
    assert_eq!(detail, r#"It is the event "ai_reply", which has a time of its own."#);
    for minute in 1..=3 {
        session.run(&format!("UPDATE m SET updated_at = {}", at(&format!("10:0{minute}"))));
        assert_eq!(held(&mut session), NOTHING);
        assert_eq!(parts(&mut session), [format!("10:00 10:0{minute} 10:0{minute} 2 1")]);
    }
    is_sound(&mut session);
}

#[test]
fn an_answer_that_loses_its_time_stays_metered_and_waits() {
    let (_database, mut session) = attached();
    insert(&mut session, 1, "10:00", "10:02");
    session.run("UPDATE m SET updated_at = NULL");
    assert_eq!(held(&mut session), ["1 null_key"]);
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
    session.run("DELETE FROM m");
    assert_eq!(held(&mut session), NOTHING);
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
}

#[test]
fn a_question_without_a_time_waits_and_its_answer_counts() {
    let (_database, mut session) = attached();
    session.run(&format!("INSERT INTO m (id, what, created_at) VALUES (1, 'question', {})", at("10:00")));
    insert(&mut session, 2, "", "10:02");
    assert_eq!(held(&mut session), ["2 null_key"]);
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
    session.run(&format!("UPDATE m SET created_at = {} WHERE id = 2", at("10:01")));
    assert_eq!(held(&mut session), NOTHING);
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 3 1"]);
    is_sound(&mut session);
}

#[test]
fn an_answer_after_a_late_row_is_found_again_though_its_question_is_older() {
    let (_database, mut session) = attached();
    insert(&mut session, 1, "10:00", "10:25");
    insert(&mut session, 2, "10:50", "10:51");
    // Between them: what is folded again begins with the answer, not with its question.
    session.run(&format!("INSERT INTO m (id, what, created_at) VALUES (3, 'question', {})", at("10:26")));
    assert_eq!(parts(&mut session), ["10:00 10:51 10:25 5 2"]);
    is_sound(&mut session);
}

#[test]
fn at_one_instant_the_answer_comes_after_its_question() {
    let (_database, mut session) = attached();
    insert(&mut session, 1, "10:00", "10:00");
    assert_eq!(parts(&mut session), ["10:00 10:00 10:00 2 1"]);
    is_sound(&mut session);
}

#[test]
fn a_row_that_is_refused_as_a_whole_is_held_once_and_gives_both_when_it_can_be_metered() {
    let (_database, mut session) = attached();
    session.run(&format!(
        "INSERT INTO m (id, what, created_at, updated_at) VALUES (1, 'unknown', {}, {})",
        at("10:00"),
        at("10:02")
    ));
    assert_eq!(held(&mut session), ["1 10:00 no_kind"]);
    session.run("UPDATE m SET what = 'both'");
    assert_eq!(held(&mut session), NOTHING);
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
    session.run("UPDATE m SET tenant_id = NULL");
    assert_eq!(held(&mut session), ["1 10:00 null_key"]);
    session.run("UPDATE m SET tenant_id = 'acme'; DELETE FROM m");
    assert_eq!(held(&mut session), NOTHING);
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
}

#[test]
fn rows_that_came_while_disabled_give_both_events_when_they_are_retried() {
    let (_database, mut session) = attached();
    session.run("SET talkmeter.enabled = off");
    insert(&mut session, 1, "10:00", "10:02");
    session.run("RESET talkmeter.enabled");
    assert_eq!(held(&mut session), ["1 disabled"]);
    // Neither counts meanwhile, whatever else is folded.
    insert(&mut session, 2, "10:04", "10:05");
    insert(&mut session, 3, "09:58", "09:59");
    assert_eq!(parts(&mut session), ["09:58 10:05 09:59 4 2"]);
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(held(&mut session), NOTHING);
    assert_eq!(parts(&mut session), ["09:58 10:05 09:59 6 3"]);
    is_sound(&mut session);
}

#[test]
fn a_table_that_took_both_for_one_moment_is_mapped_anew() {
    let one = MAPPING.replace(r#"{"ai_reply": {"occurred_at": "updated_at"}}"#, r#""ai_reply""#);
    let (_database, mut session) = attached_by("note text", &one);
    insert(&mut session, 1, "10:00", "10:02");
    insert(&mut session, 2, "10:10", "");
    assert_eq!(parts(&mut session), ["10:00 10:10 10:00 4 2"]);
    let remap = |mapping: &str| format!("SELECT talkmeter.remap('m', $${mapping}$$, since => '2026-01-01')");
    session.run(&remap(MAPPING));
    assert_eq!(held(&mut session), ["2 null_key"]);
    assert_eq!(parts(&mut session), ["10:00 10:10 10:02 3 1"]);
    session.run(&format!("UPDATE m SET updated_at = {} WHERE id = 2", at("10:11")));
    assert_eq!(parts(&mut session), ["10:00 10:11 10:02 4 2"]);
    session.run(&remap(&one));
    assert_eq!(parts(&mut session), ["10:00 10:10 10:00 4 2"]);
    assert_eq!(held(&mut session), NOTHING);
    is_sound(&mut session);
}

#[test]
fn an_answer_of_the_future_waits_until_then_and_its_question_does_not() {
    let (_database, mut session) = attached();
    session.run(
        "INSERT INTO m (id, created_at, updated_at)
         VALUES (1, statement_timestamp(), statement_timestamp() + interval '2 hours')",
    );
    let reasons = "SELECT reason FROM talkmeter.quarantine";
    assert_eq!(session.lines(reasons), ["future"]);
    let replies = "SELECT concat_ws(' ', message_count, ai_replies) FROM talkmeter.parts";
    assert_eq!(session.lines(replies), ["1 0"]);
    session.run("UPDATE m SET updated_at = created_at");
    assert_eq!(session.lines(reasons), NOTHING);
    assert_eq!(session.lines(replies), ["2 1"]);
}

#[test]
fn explain_tells_each_event_at_its_time_and_what_waits() {
    let (_database, mut session) = attached();
    insert(&mut session, 1, "10:00", "10:02");
    insert(&mut session, 2, "10:05", "");
    let told = session.lines(
        "SELECT concat_ws(' ', to_char(occurred_at, 'HH24:MI'), message_id, event, split_part(effect, ':', 1))
         FROM talkmeter.explain('acme', 'c') WHERE message_id IS NOT NULL",
    );
    let wanted = [
        "10:00 1 customer_message opened part 1",
        "10:02 1 ai_reply counted in part 1",
        "10:02 1 ai_reply part 1 is billable",
        "10:05 2 customer_message counted in part 1",
        "2 in quarantine",
    ];
    assert_eq!(told, wanted);
}

#[test]
fn a_row_that_waits_as_a_whole_gives_all_its_events_when_only_its_own_time_changes() {
    let mapping = r#"{"kinds": [{"kind": [{"customer_message": {"occurred_at": "created_at"}}, {"ai_reply": {"occurred_at":
        "updated_at"}}]}], "occurred_at": "seen_at"}"#;
    let (_database, mut session) = attached_by("seen_at timestamptz", mapping);
    session.run("SET talkmeter.enabled = off");
    insert(&mut session, 1, "10:00", "10:02");
    session.run(&format!("UPDATE m SET seen_at = {}; RESET talkmeter.enabled", at("10:00")));
    assert_eq!(held(&mut session), ["1 disabled"]);
    session.run(&format!("UPDATE m SET seen_at = {}", at("10:03")));
    assert_eq!(held(&mut session), NOTHING);
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
    is_sound(&mut session);
}

#[test]
fn a_mapping_that_is_replaced_reads_a_row_without_a_time_whose_answer_was_metered() {
    let (_database, mut session) = attached();
    session.run(&format!("INSERT INTO m (id, what, created_at) VALUES (1, 'question', {})", at("10:00")));
    insert(&mut session, 2, "", "10:02");
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
    let asks = MAPPING.replace(
        r#"["customer_message", {"ai_reply": {"occurred_at": "updated_at"}}]"#,
        r#"{"customer_message": {"occurred_at": "updated_at"}}"#,
    );
    session.run(&format!("SELECT talkmeter.remap('m', $${asks}$$, since => '2026-01-01')"));
    assert_eq!(held(&mut session), NOTHING);
    assert_eq!(parts(&mut session), ["10:00 10:02 - 2 0"]);
    is_sound(&mut session);
}

#[test]
fn an_event_that_waits_stays_while_the_version_of_its_time_cannot_be_read() {
    let (_database, mut session) = attached();
    insert(&mut session, 1, "10:00", "");
    let one = MAPPING.replace(r#"{"ai_reply": {"occurred_at": "updated_at"}}"#, r#""ai_reply""#);
    session.run(&format!("SELECT talkmeter.remap('m', $${one}$$, since => '2026-03-02')"));
    session.run("ALTER TABLE m ALTER updated_at TYPE text; SELECT talkmeter.retry_quarantine()");
    assert_eq!(held(&mut session), ["1 null_key"]);
    session.run("ALTER TABLE m ALTER updated_at TYPE timestamptz USING updated_at::timestamptz");
    session.run(&format!("UPDATE m SET updated_at = {}", at("10:02")));
    assert_eq!(held(&mut session), NOTHING);
    assert_eq!(parts(&mut session), ["10:00 10:02 10:02 2 1"]);
    is_sound(&mut session);
}
