//! Does a table that is attached again go on as the same source (rules 2.7.4 to 2.7.7)?

use talkmeter_tests::{Database, PLAN, Session, attach, messages_mapping, metered, parts, tell};

const NOTHING: [&str; 0] = [];

/// `customer_message` and, as far as the mapping goes, two kinds of answerers.
const ONE_BOT: &str = r#"{"kinds": [{"when": {"kind": "customer_message"}, "kind": "customer_message"},
    {"when": {"kind": "bot"}, "kind": "ai_reply"}]}"#;
const TWO_BOTS: &str = r#"{"kinds": [{"when": {"kind": "customer_message"}, "kind": "customer_message"},
    {"when": {"kind": ["bot", "captain"]}, "kind": "ai_reply"}]}"#;

fn detach(session: &mut Session) {
    session.run("SELECT talkmeter.detach('messages')");
}

fn attach_again(session: &mut Session) {
    attach(session, "messages", "lutingenie", PLAN, &messages_mapping());
}

fn quarantined(session: &mut Session) -> Vec<String> {
    session.lines("SELECT message_id, reason FROM talkmeter.quarantine ORDER BY 1")
}

/// A day with a unit of before the gap, a row that lies in it, and a unit of after it.
fn with_gap() -> (Database, Session) {
    let (database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "before", "now exchange");
    detach(&mut session);
    tell(&mut session, "acme", "before", "now ai_reply");
    tell(&mut session, "acme", "within", "now exchange");
    attach_again(&mut session);
    tell(&mut session, "acme", "after", "now exchange");
    (database, session)
}

#[test]
fn the_start_stays_and_the_span_between_is_listed() {
    let (_database, mut session) = with_gap();
    assert_eq!(session.line("SELECT starts_at FROM talkmeter.sources"), "-infinity");
    assert_eq!(
        session.lines(
            "SELECT g.source, g.until_time = s.attached_at, g.from_time < g.until_time,
                 g.from_time <= m.created_at AND m.created_at < g.until_time
             FROM talkmeter.source_gaps AS g JOIN talkmeter.sources AS s USING (source)
             CROSS JOIN messages AS m WHERE m.conversation_id = 'within'"
        ),
        ["messages|t|t|t"]
    );
}

#[test]
fn a_row_that_waits_is_metered_by_the_mapping_that_is_given_anew() {
    let database = Database::fresh("reattach");
    let mut session = database.connect();
    talkmeter_tests::create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", PLAN, ONE_BOT);
    tell(&mut session, "acme", "c", "now customer_message, now captain");
    assert_eq!(quarantined(&mut session), ["2|no_kind"]);
    detach(&mut session);
    attach(&mut session, "messages", "lutingenie", PLAN, TWO_BOTS);
    assert_eq!(session.line("SELECT talkmeter.retry_quarantine()"), "1");
    assert_eq!(session.lines("SELECT billable, message_count FROM talkmeter.parts"), ["t|2"]);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn rows_of_before_are_events_when_their_conversation_is_read_again() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:10 ai_reply");
    detach(&mut session);
    attach_again(&mut session);
    tell(&mut session, "acme", "c", "10:05 customer_message");
    assert_eq!(session.lines("SELECT part, message_count FROM talkmeter.parts"), ["1|3"]);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn what_did_not_count_is_not_counted_when_its_conversation_is_read_again() {
    let (_database, mut session) = with_gap();
    let counted = ["after|2", "before|2"];
    let parts = "SELECT conversation, message_count FROM talkmeter.parts ORDER BY 1";
    assert_eq!(session.lines(parts), counted);
    // A late mark makes each conversation be folded again.
    session.run(
        "SELECT talkmeter.mark('acme', c, 'note', now() - interval '1 minute') FROM unnest(ARRAY['before', 'within', 'after']) AS c",
    );
    assert_eq!(session.lines(parts), counted);
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn recounts_and_simulations_leave_out_what_lies_in_a_gap() {
    let (_database, mut session) = with_gap();
    assert_eq!(
        session.lines(
            "SELECT units, unprovable, billed_units
             FROM talkmeter.simulate('lutingenie', NULL, now() - interval '1 day', now() + interval '1 day')"
        ),
        ["2|0|2"]
    );
    assert_eq!(
        session.lines("SELECT DISTINCT effect FROM talkmeter.explain('acme', 'within')"),
        ["nothing of this conversation is metered"],
        "rows in a gap are no events"
    );
}

#[test]
fn a_row_dated_into_a_gap_is_refused_with_its_span() {
    let (_database, mut session) = with_gap();
    session.run(
        "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind)
         SELECT 77, 'acme', 'late', g.from_time, 'exchange' FROM talkmeter.source_gaps AS g",
    );
    assert_eq!(quarantined(&mut session), ["77|time_out_of_range"]);
    assert_eq!(
        session.line("SELECT detail LIKE 'The table was detached from % until %' FROM talkmeter.quarantine"),
        "t"
    );
    // Changed to the instant of the attach, it is an event.
    session.run("UPDATE messages SET created_at = (SELECT until_time FROM talkmeter.source_gaps) WHERE id = 77");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(parts(&mut session, "conversation = 'late'").len(), 1);
}

#[test]
fn changes_within_a_gap_are_none_and_a_row_that_leaves_it_comes_anew() {
    let (_database, mut session) = with_gap();
    session.run("UPDATE messages SET kind = 'note' WHERE conversation_id = 'within'");
    assert_eq!(quarantined(&mut session), NOTHING);
    session.run("UPDATE messages SET kind = 'exchange', created_at = now() WHERE conversation_id = 'within'");
    assert_eq!(parts(&mut session, "conversation = 'within'").len(), 1);
}

#[test]
fn several_gaps_and_a_dump_keep_each() {
    let (_database, mut session) = with_gap();
    detach(&mut session);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.source_gaps"), "0", "listed of attached tables");
    tell(&mut session, "acme", "second", "now exchange");
    attach_again(&mut session);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.source_gaps"), "2");
    session.run("UPDATE messages SET excluded = true WHERE conversation_id IN ('within', 'second')");
    assert_eq!(session.lines("SELECT DISTINCT conversation FROM talkmeter.parts ORDER BY 1"), ["after", "before"]);
    assert_eq!(
        session.line(
            "SELECT 'talkmeter.source_gap'::regclass = ANY (extconfig) FROM pg_extension WHERE extname = 'talkmeter'"
        ),
        "t"
    );
}

#[test]
fn a_status_table_has_no_gap() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "CREATE TABLE tickets (conversation_id text PRIMARY KEY, tenant_id text, status text);
         INSERT INTO tickets VALUES ('c', 'acme', 'open')",
    );
    let attach = r#"SELECT talkmeter.attach_status('tickets', '{"status": {"closed": "close"}, "column": "status"}')"#;
    session.run(attach);
    session.run("SELECT talkmeter.detach('tickets')");
    session.run(attach);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.source_gaps"), "0");
}

#[test]
fn a_table_is_attached_for_its_messages_or_for_its_statuses_and_the_error_says_for_which() {
    let database = Database::with_messages("both", "lutingenie", None);
    let mut session = database.connect();
    let status = r#"SELECT talkmeter.attach_status('messages', '{"status": {"gone": "close"}, "column": "kind"}')"#;
    let refused = session.client.query(status, &[]).expect_err("it is attached for messages");
    let error = refused.as_db_error().expect("an error of the server's");
    assert_eq!(error.message(), "table public.messages is attached already");
    assert_eq!(error.detail(), Some("It is attached through public.messages, for messages."));
    assert!(error.hint().is_some_and(|hint| hint.contains("a table of its own")), "{:?}", error.hint());
}
