//! Can a mapping be replaced while a table stays attached, for rows from some time on (rule 2.11)?

use postgres::error::SqlState;
use talkmeter_tests::{Database, PLAN, Session, attach, create_messages, quoted, standing_charges, tell};

const NOTHING: [&str; 0] = [];

/// A mapping of `messages` in which these senders answer; `more` is a rule before those.
fn mapping(bots: &str, more: &str) -> String {
    format!(
        r#"{{"kinds": [{more} {{"when": {{"kind": "customer_message"}}, "kind": "customer_message"}},
            {{"when": {{"kind": {bots}}}, "kind": "ai_reply"}}]}}"#
    )
}

fn one_bot() -> String {
    mapping(r#""bot""#, "")
}

fn two_bots() -> String {
    mapping(r#"["bot", "captain"]"#, "")
}

fn with_one_bot() -> (Database, Session) {
    let database = Database::fresh("remap");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", PLAN, &one_bot());
    (database, session)
}

fn remap(mapping: &str, more: &str) -> String {
    format!("SELECT * FROM talkmeter.remap('messages', {}{more})", quoted(mapping))
}

fn quarantined(session: &mut Session) -> Vec<String> {
    session.lines("SELECT message_id, reason FROM talkmeter.quarantine ORDER BY message_id::int")
}

fn counted(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation, message_count, billable FROM talkmeter.parts ORDER BY 1")
}

/// What was charged is what a recount gives, and all that is stored agrees.
fn agrees(session: &mut Session) {
    assert_eq!(
        session.lines(
            "SELECT units - billed_units, unprovable
             FROM talkmeter.simulate('lutingenie', NULL, '2020-01-01', now() + interval '1 day')
             WHERE units <> billed_units OR unprovable <> 0"
        ),
        NOTHING
    );
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn a_new_kind_of_sender_that_waits_is_metered_by_one_call() {
    let (_database, mut session) = with_one_bot();
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 captain");
    tell(&mut session, "acme", "d", "10:00 customer_message, 10:01 bot");
    assert_eq!(quarantined(&mut session), ["2|no_kind"]);
    session.run(&remap(&two_bots(), ""));
    assert_eq!(counted(&mut session), ["c|2|t", "d|2|t"]);
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(
        session.lines("SELECT since, until_time FROM talkmeter.mappings ORDER BY 1"),
        ["-infinity|2026-03-01 10:01:00+00", "2026-03-01 10:01:00+00|infinity"]
    );
    assert_eq!(session.line("SELECT starts_at FROM talkmeter.sources"), "-infinity");
    agrees(&mut session);
}

#[test]
fn a_row_is_read_by_the_version_of_its_own_time_whenever_it_comes() {
    let (_database, mut session) = with_one_bot();
    session.run(&remap(&two_bots(), ", since => '2026-03-01 12:00+00'"));
    tell(&mut session, "acme", "late", "12:00 captain, 11:50 customer_message, 11:59 captain, 11:59:30 bot");
    assert_eq!(quarantined(&mut session), ["3|no_kind"]);
    assert_eq!(counted(&mut session), ["late|3|t"]);
    // A change takes it over the border.
    session.run("UPDATE messages SET created_at = '2026-03-01 12:00:01+00' WHERE id = 3");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(counted(&mut session), ["late|4|t"]);
    agrees(&mut session);
    session.run("UPDATE messages SET created_at = '2026-03-01 11:59+00' WHERE id = 1");
    assert_eq!(quarantined(&mut session), ["1|no_kind"]);
}

#[test]
fn rows_of_before_stay_and_rows_from_then_on_are_read_anew() {
    let (_database, mut session) = with_one_bot();
    tell(&mut session, "acme", "before", "10:00 customer_message, 10:01 bot");
    tell(&mut session, "acme", "after", "12:00 customer_message, 12:01 bot");
    assert_eq!(standing_charges(&mut session, "conversation").len(), 2);
    // From noon on the bot's rows are notes.
    let notes = mapping(r#""captain""#, r#"{"when": {"kind": "bot"}, "kind": "note"},"#);
    session.run(&remap(&notes, ", since => '2026-03-01 12:00+00'"));
    assert_eq!(counted(&mut session), ["after|1|f", "before|2|t"]);
    assert_eq!(standing_charges(&mut session, "conversation"), ["before"]);
    assert_eq!(quarantined(&mut session), NOTHING);
    agrees(&mut session);
    // Given again, what was taken back is charged again.
    session.run(&remap(&one_bot(), ", since => '2026-03-01 12:00+00'"));
    assert_eq!(counted(&mut session), ["after|2|t", "before|2|t"]);
    agrees(&mut session);
}

#[test]
fn a_row_of_a_kind_that_the_new_version_does_not_know_is_no_event_until_one_does() {
    let (_database, mut session) = with_one_bot();
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 bot");
    session.run(&remap(&mapping(r#""captain""#, ""), ", since => '-infinity'"));
    assert_eq!(quarantined(&mut session), ["2|no_kind"]);
    assert_eq!(counted(&mut session), ["c|1|f"]);
    assert_eq!(standing_charges(&mut session, "conversation"), NOTHING);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.mappings"), "1");
    session.run(&remap(&two_bots(), ""));
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(counted(&mut session), ["c|2|t"]);
    agrees(&mut session);
}

#[test]
fn a_row_that_waits_for_a_policy_and_is_ignored_by_the_new_version_waits_no_more() {
    let database = Database::fresh("remap");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "late", "starts_on": ["customer_message"], "ends_on": [],
               "charge_on": "close", "effective_from": "2027-01-01 00:00+00"}')"#,
    );
    attach(&mut session, "messages", "late", PLAN, &one_bot());
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 customer_message");
    assert_eq!(quarantined(&mut session), ["1|unknown_policy", "2|unknown_policy"]);
    session.run(&remap(
        r#"{"kinds": [{"when": {"kind": "customer_message"}, "kind": "ignore"}]}"#,
        ", since => '-infinity'",
    ));
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn a_dry_run_says_what_would_change_and_changes_nothing() {
    let (_database, mut session) = with_one_bot();
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 captain, 10:02 captain");
    tell(&mut session, "acme", "d", "10:03 customer_message, 10:04 captain");
    tell(&mut session, "acme", "e", "10:05 customer_message, 10:06 bot");
    let of = "SELECT (SELECT array_agg(t.*::text ORDER BY t.*::text) FROM {} AS t)";
    let tables = ["part", "charge", "conversation", "quarantined", "source", "earlier_mapping", "journaled"];
    let mut all = || tables.map(|table| session.line(&of.replace("{}", &format!("talkmeter.{table}"))));
    let before = all();
    let dry = session.lines(&remap(&two_bots(), ", dry_run => true"));
    assert_eq!(
        dry,
        ["ai_reply|ai_reply|1|1||", "customer_message|customer_message|2|2||", "no_kind|ai_reply|3|2||", "||3|2|2|2"]
    );
    let mut all = || tables.map(|table| session.line(&of.replace("{}", &format!("talkmeter.{table}"))));
    assert_eq!(all(), before);
}

#[test]
fn the_key_columns_may_be_others() {
    let (_database, mut session) = with_one_bot();
    session.run("ALTER TABLE messages ADD thread text");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 bot");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, thread, created_at, kind) VALUES
             ('acme', 'c', 't1', '2026-03-01 12:00+00', 'customer_message'),
             ('acme', 'c', 't1', '2026-03-01 12:01+00', 'bot'),
             ('acme', 'c', 't2', '2026-03-01 12:02+00', 'customer_message')",
    );
    let threads = one_bot().replacen('{', r#"{"conversation": "thread", "#, 1);
    session.run(&remap(&threads, ", since => '2026-03-01 12:00+00'"));
    let parts = "SELECT conversation, message_count FROM talkmeter.parts ORDER BY started_at";
    assert_eq!(session.lines(parts), ["c|2", "t1|2", "t2|1"]);
    // A late row of either time finds its own conversation.
    tell(&mut session, "acme", "c", "10:00:30 bot");
    session.run(
        "INSERT INTO messages (tenant_id, thread, created_at, kind) VALUES ('acme', 't1', '2026-03-01 12:00:30+00', 'bot')",
    );
    assert_eq!(session.lines(parts), ["c|3", "t1|3", "t2|1"]);
    agrees(&mut session);
}

#[test]
fn a_lost_column_is_replaced_for_all_rows_that_it_read() {
    let (_database, mut session) = with_one_bot();
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 bot");
    session.run("ALTER TABLE messages ADD sort text; UPDATE messages SET sort = kind; ALTER TABLE messages DROP kind");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, sort)
         VALUES ('acme', 'c', '2026-03-01 10:02+00', 'bot'), ('acme', 'd', '2026-03-01 10:03+00', 'customer_message')",
    );
    assert_eq!(quarantined(&mut session), ["3|mapping_broken", "4|mapping_broken"]);
    session.run(&remap(&one_bot().replace(r#"{"when": {"kind""#, r#"{"when": {"sort""#), ""));
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(counted(&mut session), ["c|3|t", "d|1|f"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.mappings"), "1");
    agrees(&mut session);
}

#[test]
fn a_version_of_before_whose_column_is_lost_makes_its_rows_wait() {
    let (_database, mut session) = with_one_bot();
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 bot");
    session.run("ALTER TABLE messages ADD sort text");
    let sorted = r#"{"kinds": [{"when": {"sort": "bot"}, "kind": "ai_reply"}, {"kind": "customer_message"}]}"#;
    session.run(&remap(sorted, ", since => '2026-03-01 12:00+00'"));
    session.run("ALTER TABLE messages DROP kind");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, sort)
         VALUES ('acme', 'c', '2026-03-01 10:00:30+00', 'bot'), ('acme', 'd', '2026-03-01 12:00+00', NULL),
             ('acme', 'c', '2026-03-01 12:03+00', 'bot')",
    );
    assert_eq!(quarantined(&mut session), ["3|mapping_broken"]);
    assert_eq!(counted(&mut session), ["c|2|t", "d|1|f"]);
    // Read by the mapping of now, it is what it says.
    session.run(&remap(sorted, ", since => '-infinity'"));
    assert_eq!(quarantined(&mut session), NOTHING);
    agrees(&mut session);
}

#[test]
fn the_policy_is_that_of_the_version_in_whose_time_a_part_opens() {
    let (_database, mut session) = with_one_bot();
    session.run(&remap(&one_bot(), ", policy => 'agent_red', since => '2026-03-01 12:00+00'"));
    tell(&mut session, "acme", "c", "11:00 customer_message, 11:01 bot, 12:00 customer_message, 12:01 bot");
    let policies = "SELECT policy FROM talkmeter.parts ORDER BY started_at";
    assert_eq!(session.lines(policies), ["lutingenie", "agent_red"]);
    assert_eq!(
        session.line("SELECT policy, default_plan, strict FROM talkmeter.sources"),
        "agent_red|agent_red/starter|f"
    );
    session.run(&remap(&one_bot(), ", strict => true"));
    assert_eq!(session.line("SELECT policy, strict FROM talkmeter.sources"), "agent_red|t");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.mappings"), "2", "the same mapping is no version");
}

#[test]
fn a_table_that_is_attached_again_with_another_mapping_keeps_what_it_was_mapped_by() {
    let (_database, mut session) = with_one_bot();
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 bot, 10:02 captain");
    session.run("SELECT talkmeter.detach('messages')");
    attach(&mut session, "messages", "lutingenie", PLAN, &mapping(r#""captain""#, ""));
    assert_eq!(quarantined(&mut session), ["3|no_kind"]);
    assert_eq!(session.line("SELECT talkmeter.retry_quarantine()"), "1");
    assert_eq!(counted(&mut session), ["c|3|t"]);
    tell(&mut session, "acme", "c", "10:00:30 bot");
    assert_eq!(counted(&mut session), ["c|4|t"]);
    agrees(&mut session);
}

#[test]
fn writers_wait_for_a_remap_and_are_read_by_the_new_mapping() {
    let (database, mut session) = with_one_bot();
    session.run("BEGIN");
    session.run(&remap(&two_bots(), ""));
    let mut application = database.connect();
    let pid = application.pid();
    let writes = std::thread::spawn(move || {
        tell(&mut application, "acme", "c", "now customer_message, now captain");
    });
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    writes.join().expect("the application");
    assert_eq!(counted(&mut session), ["c|2|t"]);
    assert_eq!(quarantined(&mut session), NOTHING);
}

#[test]
fn what_cannot_be_mapped_anew_is_refused() {
    let (_database, mut session) = with_one_bot();
    for (call, code) in [
        (remap(&one_bot(), ", since => now() + interval '1 hour'"), SqlState::DATETIME_FIELD_OVERFLOW),
        (remap(r#"{"kinds": [{"when": {"nothing": 1}, "kind": "note"}]}"#, ""), SqlState::UNDEFINED_COLUMN),
        (remap(&one_bot(), ", policy => 'none'"), SqlState::UNDEFINED_OBJECT),
        (remap(&one_bot(), ", default_plan => 'none'"), SqlState::UNDEFINED_OBJECT),
        (remap(&one_bot(), ", dry_run => NULL"), SqlState::NULL_VALUE_NOT_ALLOWED),
        (
            "SET talkmeter.enabled = off; ".to_owned() + &remap(&one_bot(), ""),
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        ),
    ] {
        assert_eq!(session.refused(&call), code, "{call}");
        session.run("SET talkmeter.enabled = on");
    }
    session.run("SELECT talkmeter.detach('messages')");
    assert_eq!(session.refused(&remap(&one_bot(), "")), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
}

#[test]
fn the_journal_says_what_was_given() {
    let (_database, mut session) = with_one_bot();
    session.run(&remap(&two_bots(), ", since => '2026-03-01 12:00+00'"));
    assert_eq!(
        session.line(
            "SELECT call, arguments ->> 'source', arguments ->> 'since', arguments -> 'mapping' = (SELECT mapping FROM talkmeter.sources)
             FROM talkmeter.journal ORDER BY at DESC LIMIT 1"
        ),
        "remap|public.messages|2026-03-01T12:00:00+00:00|t"
    );
}
