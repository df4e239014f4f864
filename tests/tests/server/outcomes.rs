//! What if a policy asks for tags and charges by what came of a part (rules 2.15, 3.8)?

use talkmeter_tests::{Database, PLAN, Session, attach, quoted};

const NOTHING: [&str; 0] = [];

const RESOLVED: &str = r#"{"name": "resolved", "effective_from": "2026-01-01 00:00+00", "starts_on": ["customer_message"],
    "ends_on": ["note:confirmed"], "idle_timeout": "1 hour", "charge_on": "close", "outcomes": [
        {"when": ["escalate", "staff_reply"], "outcome": "handed_over", "units": 0},
        {"when": "unanswered", "outcome": "unanswered", "units": 0},
        {"unless": "ai_reply:answer", "outcome": "no_answer", "units": 0},
        {"outcome": "resolution"}]}"#;

const MAPPING: &str = r#"{"occurred_at": "at", "kinds": [
    {"when": {"role": "user"}, "kind": "customer_message", "tag": ["channel", "meta->country"]},
    {"when": {"role": "assistant"}, "kind": "ai_reply", "tag": "intent"},
    {"when": {"role": "staff"}, "kind": "staff_reply"},
    {"when": {"role": "thanks"}, "kind": "note:confirmed"},
    {"when": {"role": "both"}, "kind": ["customer_message", {"ai_reply:answer": {"occurred_at": "answered_at"}}]}]}"#;

/// A table whose rows may have tags.
const TABLE: &str = "
    CREATE TABLE m (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id text DEFAULT 'acme',
        conversation_id text, at timestamptz, role text, intent text, channel text, meta jsonb, answered_at timestamptz);
    CREATE INDEX ON m (tenant_id, conversation_id, at)";

/// That table, attached under a policy.
fn attached(definition: &str) -> (Database, Session) {
    let database = Database::fresh("outcomes");
    let mut session = database.connect();
    session.run(TABLE);
    let name = definition.split('"').nth(3).expect("a name");
    session.run(&format!("SELECT talkmeter.define_policy({})", quoted(definition)));
    attach(&mut session, "m", name, PLAN, MAPPING);
    (database, session)
}

/// Rows of a conversation, each "minute role intent".
fn tell(session: &mut Session, conversation: &str, rows: &str) {
    let row = |row: &str| {
        let mut words = row.split_whitespace();
        let (minute, role) = (words.next().expect("a minute"), words.next().expect("a role"));
        let intent = words.next().map_or("NULL".to_owned(), quoted);
        format!(
            "({}, timestamptz '2026-03-01 12:00+00' + interval '{minute} minutes', '{role}', {intent})",
            quoted(conversation)
        )
    };
    let rows: Vec<String> = rows.split(", ").map(row).collect();
    session.run(&format!("INSERT INTO m (conversation_id, at, role, intent) VALUES {}", rows.join(", ")));
}

fn parts(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT concat_ws(' ', conversation, part, end_reason, units, COALESCE(outcome, '-'), COALESCE(not_billable_because, '-'),
             COALESCE(to_char(charged_at, 'HH24:MI'), '-'))
         FROM talkmeter.parts ORDER BY conversation, started_at, part",
    )
}

fn charged(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation, units FROM talkmeter.statement_units('acme', '2026-03') ORDER BY charge_id")
}

/// What is metered is what folding from the start makes of the rows.
fn is_sound(session: &mut Session) {
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    assert_eq!(session.lines("SELECT talkmeter.reconcile('2026-03-01')"), ["0"]);
}

#[test]
fn the_first_rule_that_holds_gives_the_outcome_and_whether_it_is_billed() {
    let (_database, mut session) = attached(RESOLVED);
    for (conversation, rows) in [
        ("answered", "0 user, 1 assistant answer"),
        ("confirmed", "0 user, 1 assistant answer, 2 thanks, 3 user"),
        ("greeted", "0 user, 1 assistant hi"),
        ("handed over", "0 user, 1 assistant answer, 2 staff"),
        ("waiting", "0 user, 1 assistant answer, 2 user"),
    ] {
        tell(&mut session, conversation, rows);
    }
    let told = [
        "answered 1 idle 1 resolution - 13:01",
        "confirmed 1 note:confirmed 1 resolution - 12:02",
        "confirmed 2 idle 0 unanswered unanswered -",
        "greeted 1 idle 0 no_answer no_answer -",
        "handed over 1 idle 0 handed_over handed_over -",
        "waiting 1 idle 0 unanswered unanswered -",
    ];
    assert_eq!(parts(&mut session), told, "time that has passed shows before any sweep");
    session.sweep("2026-03-02 00:00+00");
    assert_eq!(parts(&mut session), told);
    assert_eq!(charged(&mut session), ["confirmed|1", "answered|1"]);
    is_sound(&mut session);
}

#[test]
fn a_tag_that_is_another_one_is_metered_as_any_change_of_a_row() {
    let (_database, mut session) = attached(RESOLVED);
    tell(&mut session, "c", "0 user, 1 assistant hi, 2 thanks");
    assert_eq!(parts(&mut session), ["c 1 note:confirmed 0 no_answer no_answer -"]);
    session.run("UPDATE m SET intent = 'answer' WHERE role = 'assistant'");
    assert_eq!(parts(&mut session), ["c 1 note:confirmed 1 resolution - 12:02"]);
    session.run("UPDATE m SET channel = 'chat' WHERE role = 'user'");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1", "nobody asks for that tag");
    session.run("UPDATE m SET intent = NULL WHERE role = 'assistant'");
    assert_eq!(parts(&mut session), ["c 1 note:confirmed 0 no_answer no_answer -"]);
    assert_eq!(session.lines("SELECT reverses, reason FROM talkmeter.charges ORDER BY charge_id"), ["|", "1|refold"]);
    is_sound(&mut session);
}

#[test]
fn an_outcome_may_be_the_tag_of_the_opening_event() {
    let (_database, mut session) = attached(
        r#"{"name": "by_tag", "effective_from": "2026-01-01 00:00+00", "starts_on": ["customer_message"],
            "ends_on": ["customer_message"], "charge_on": "start", "outcomes": [{"outcome": "@tag"}]}"#,
    );
    session.run(
        r#"INSERT INTO m (conversation_id, at, role, channel, meta)
           SELECT 'c', timestamptz '2026-03-01 12:00+00' + interval '1 minute' * n, 'user', channel, meta::jsonb
           FROM (VALUES (1, 'sms', '{"country": "BR"}'), (2, 'sms', '{"country": null}'), (3, NULL, '{"country": "BR"}'),
               (4, 'sms', '{"country": ["BR"]}'), (5, 'sms', '{"country": 55}'), (6, repeat('s', 126), '{"country": "BR"}'),
               (7, repeat('s', 125), '{"country": "BR"}')) AS v (n, channel, meta)"#,
    );
    let outcomes = "SELECT left(outcome, 8), units, end_reason = 'customer_message' || COALESCE(':' || outcome, '')
                    FROM talkmeter.parts ORDER BY part";
    assert_eq!(
        session.lines(outcomes),
        ["sms:BR|1|t", "|1|t", "|1|t", "|1|t", "sms:55|1|t", "|1|t", "ssssssss|1|t"],
        "what is null, no scalar or too long is no tag"
    );
    is_sound(&mut session);
}

#[test]
fn an_event_with_a_time_of_its_own_has_its_own_tag() {
    let (_database, mut session) = attached(RESOLVED);
    session.run(
        "INSERT INTO m (conversation_id, at, role, answered_at)
         VALUES ('c', '2026-03-01 12:00+00', 'both', '2026-03-01 12:05+00')",
    );
    session.sweep("2026-03-02 00:00+00");
    assert_eq!(parts(&mut session), ["c 1 idle 1 resolution - 13:05"]);
    session.run("UPDATE m SET role = 'user'");
    assert_eq!(parts(&mut session), ["c 1 idle 0 unanswered unanswered -"]);
    is_sound(&mut session);
}

#[test]
fn marks_and_status_columns_have_tags_which_also_quarantine_keeps() {
    let (_database, mut session) = attached(
        r#"{"name": "marked", "effective_from": "2026-01-01 00:00+00", "starts_on": ["customer_message"],
            "ends_on": ["close:by_ai"], "idle_timeout": "1 hour", "charge_on": ["note:verified", "note:csat"],
            "outcomes": [{"when": "note:csat", "outcome": "rated"}, {"outcome": "verified"}]}"#,
    );
    session.run(
        "CREATE TABLE talks (id text PRIMARY KEY, tenant_id text DEFAULT 'acme', status text, set_at timestamptz);
         SELECT talkmeter.attach_status('talks',
             '{\"status\": {\"rated\": \"note:csat\", \"done\": \"close:by_ai\"}, \"occurred_at\": \"set_at\"}');
         INSERT INTO talks VALUES ('b', 'acme', 'open'), ('c', 'acme', 'open')",
    );
    for conversation in ["a", "b", "c", "d"] {
        tell(&mut session, conversation, "0 user, 1 assistant");
    }
    session.run("SELECT talkmeter.mark('acme', 'a', 'note:verified', '2026-03-01 12:02+00')");
    session.run("SELECT talkmeter.mark('acme', 'a', 'close', '2026-03-01 12:03+00')");
    session.run("SELECT talkmeter.mark('acme', 'a', 'close:by_ai', '2026-03-01 12:04+00')");
    session.run("UPDATE talks SET status = 'rated', set_at = '2026-03-01 12:05+00' WHERE id = 'b'");
    session.run("UPDATE talks SET status = 'rated', set_at = 'infinity' WHERE id = 'c'");
    let held = "SELECT conversation, mark_kind, reason FROM talkmeter.quarantine";
    assert_eq!(session.lines(held), ["c|note:csat|time_out_of_range"]);
    session.run("UPDATE talks SET set_at = '2026-03-01 12:06+00' WHERE id = 'c'");
    session.sweep("2026-03-02 00:00+00");
    let told = [
        "a 1 close:by_ai 1 verified - 12:02",
        "b 1 idle 1 rated - 12:05",
        "c 1 idle 1 rated - 12:06",
        "d 1 idle 0 - not_reached -",
    ];
    assert_eq!(parts(&mut session), told);
    let marks = "SELECT conversation, kind FROM talkmeter.marked ORDER BY conversation, mark";
    assert_eq!(session.lines(marks), ["a|note:verified", "a|close", "a|close:by_ai", "b|note:csat", "c|note:csat"]);
    is_sound(&mut session);
    for wrong in ["ai_reply:answer", "note:", "nota:x"] {
        session.refused(&format!("SELECT talkmeter.mark('acme', 'a', '{wrong}')"));
    }
}

#[test]
fn a_mark_that_waits_is_made_with_its_tag() {
    let (_database, mut session) = attached(RESOLVED);
    // Nothing can be metered while a table of ours is another one.
    session.run("ALTER TABLE talkmeter.conversation DROP CONSTRAINT conversation_pkey");
    session.run("SELECT talkmeter.mark('acme', 'c', 'note:confirmed', '2026-03-01 12:02+00')");
    session.run("ALTER TABLE talkmeter.conversation ADD PRIMARY KEY (tenant, conversation)");
    let held = "SELECT mark_kind, reason FROM talkmeter.quarantine";
    assert_eq!(session.lines(held), ["note:confirmed|internal_error"]);
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(session.lines("SELECT kind FROM talkmeter.marked"), ["note:confirmed"]);
}

#[test]
fn a_part_has_ended_so_long_after_its_start_whatever_comes_then() {
    let (_database, mut session) = attached(
        r#"{"name": "day", "effective_from": "2026-01-01 00:00+00", "starts_on": ["customer_message"], "ends_on": [],
            "max_duration": "1 hour", "charge_on": "start", "outcomes": [{"outcome": "conversation"}]}"#,
    );
    tell(&mut session, "c", "0 user, 59 user, 60 user, 119 assistant, 121 assistant");
    let told = ["c 1 max_duration 1 conversation - 12:00", "c 2 max_duration 1 conversation - 13:00"];
    assert_eq!(parts(&mut session), told);
    tell(&mut session, "c", "1 assistant");
    assert_eq!(parts(&mut session), told, "what comes late moves no end");
    session.sweep("2026-03-02 00:00+00");
    is_sound(&mut session);
    session.run("UPDATE m SET at = at + interval '10 minutes' WHERE id = 1");
    let moved = ["c 1 max_duration 1 conversation - 12:10", "c 2 max_duration 1 conversation - 13:59"];
    assert_eq!(parts(&mut session)[..1], moved[..1]);
    is_sound(&mut session);
}

#[test]
fn what_no_text_can_hold_is_no_tag() {
    let database = Database::fresh("outcomes_nul");
    let mut session = database.connect();
    session.run(&format!(
        r#"{TABLE}; ALTER TABLE m ADD said json;
           SELECT talkmeter.define_policy('{{"name": "by_tag", "effective_from": "2026-01-01 00:00+00",
               "starts_on": ["customer_message"], "ends_on": [], "charge_on": "start", "outcomes": [{{"outcome": "@tag"}}]}}')"#
    ));
    let mapping = r#"{"occurred_at": "at", "kinds": [{"kind": "customer_message", "tag": "said->intent"}]}"#;
    attach(&mut session, "m", "by_tag", PLAN, mapping);
    session.run(
        r#"INSERT INTO m (conversation_id, at, said)
           VALUES ('c', '2026-03-01', '{"intent": "a\u0000b"}'), ('d', '2026-03-01', '{"intent": "a\ud800"}')"#,
    );
    assert_eq!(session.lines("SELECT outcome, units FROM talkmeter.parts ORDER BY conversation"), ["|1", "|1"]);
    is_sound(&mut session);
}

/// What folds the rows of old, once read whole and once by conversation, knows their tags.
#[test]
fn a_backfill_a_simulation_and_a_recount_know_tags() {
    let database = Database::fresh("outcomes_of_old");
    let mut session = database.connect();
    session.run(TABLE);
    for n in 0..20 {
        let reply = if n % 2 == 0 { "assistant answer" } else { "assistant hi" };
        tell(&mut session, &format!("c{n:02}"), &format!("{n} user, {} {reply}", n + 1));
    }
    session.run(&format!("SELECT talkmeter.define_policy({})", quoted(RESOLVED)));
    attach(&mut session, "m", "resolved", PLAN, MAPPING);
    session.run("CALL talkmeter.backfill('m', '2026-01-01', now())");
    session.sweep("2026-03-02 00:00+00");
    let outcomes = "SELECT outcome, count(*), sum(units) FROM talkmeter.parts GROUP BY 1 ORDER BY 1";
    assert_eq!(session.lines(outcomes), ["no_answer|10|0", "resolution|10|10"]);
    is_sound(&mut session);
    let simulated = "SELECT units, billed_units FROM talkmeter.simulate('resolved', NULL, '2026-03-01', '2026-04-01')";
    assert_eq!(session.lines(simulated), ["10|10"]);
    let narrow =
        "SELECT units, billed_units FROM talkmeter.simulate('resolved', NULL, '2026-03-01 13:01', '2026-03-01 13:02')";
    assert_eq!(session.lines(narrow), ["1|1"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.gaps('m')"), NOTHING);
}

#[test]
fn a_simulation_takes_a_policy_that_was_not_in_force_yet_by_its_first_version() {
    let (_database, mut session) = attached(RESOLVED);
    tell(&mut session, "c", "0 user, 1 assistant answer, 2 thanks");
    tell(&mut session, "d", "0 user, 1 assistant hi, 2 thanks");
    for version in [r#"{"outcome": "answered"}"#, r#"{"when": "ai_reply:hi", "outcome": "greeted", "units": 0}, {}"#] {
        session.run(&format!(
            r#"SELECT talkmeter.define_policy('{{"name": "later", "starts_on": ["customer_message"],
                   "ends_on": ["note:confirmed"], "charge_on": "close", "outcomes": [{version}]}}')"#
        ));
    }
    let units = |session: &mut Session, policy: &str| {
        session.line(&format!("SELECT units FROM talkmeter.simulate('{policy}', NULL, '2026-03-01', '2026-04-01')"))
    };
    assert_eq!(units(&mut session, "later"), "2");
    assert_eq!(units(&mut session, "later@2"), "1");
}

#[test]
fn an_explanation_names_the_rule_that_decided_and_the_selector_that_held() {
    let (_database, mut session) = attached(RESOLVED);
    tell(&mut session, "c", "0 user, 1 assistant answer, 2 thanks");
    tell(&mut session, "d", "0 user, 1 assistant hi, 2 thanks");
    let told = |session: &mut Session, conversation: &str| {
        session.lines(&format!(
            "SELECT concat_ws(' | ', event, effect, rule) FROM talkmeter.explain('acme', '{conversation}')
             WHERE effect LIKE '%billable%' OR effect LIKE '%ended%'"
        ))
    };
    assert_eq!(
        told(&mut session, "c"),
        [
            "note:confirmed | part 1 ended: note:confirmed | ends_on of resolved@1 holds note:confirmed",
            "note:confirmed | part 1 is billable: resolution | charge_on of resolved@1 is close; rule 4 of its \
             outcomes, for all others",
        ]
    );
    assert_eq!(
        told(&mut session, "d")[1],
        "note:confirmed | part 1 is not billable: no_answer | rule 3 of its outcomes, unless ai_reply:answer of resolved@1"
    );
}
