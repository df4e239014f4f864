//! Does `explain` tell of each conversation what the meter made of it, and of each charge (rule 5)?

use postgres::error::SqlState;
use talkmeter_tests::paid::{self, Charged, POLICIES};
use talkmeter_tests::{Database, Random, Session, assert_same_rows, metered, tell, told};

const NOTHING: [&str; 0] = [];

// --- All conversations of the sample ---

/// Everything that `explain` says of every conversation, as the temporary table `told`.
fn tell_all(session: &mut Session) {
    session.run(
        "CREATE TEMPORARY TABLE told AS
         SELECT c.tenant, c.conversation, e.*
         FROM talkmeter.conversation AS c
         CROSS JOIN LATERAL talkmeter.explain(c.tenant, c.conversation) AS e;
         ANALYZE told",
    );
}

/// What is told of each part, in the columns of [`METERED`].
const TOLD: &str = "
    SELECT tenant, conversation, part,
        string_agg(occurred_at::text, ',') FILTER (WHERE effect = 'opened part ' || part),
        string_agg(occurred_at::text || split_part(effect, 'ended', 2), ',')
            FILTER (WHERE effect LIKE 'part ' || part || ' ended: %'),
        string_agg('open', ',') FILTER (WHERE effect = 'part ' || part || ' is open'),
        string_agg('billable', ',') FILTER (WHERE effect = 'part ' || part || ' is billable'),
        string_agg(split_part(effect, ': ', 2), ',') FILTER (WHERE effect LIKE 'part ' || part || ' is not billable: %'),
        count(*) FILTER (WHERE counted AND event IN ('customer_message', 'ai_reply', 'staff_reply')),
        count(*) FILTER (WHERE counted AND event = 'ai_reply'),
        count(*) FILTER (WHERE counted AND event = 'staff_reply')
    FROM told
    CROSS JOIN LATERAL (SELECT effect IN ('opened part ' || part, 'counted in part ' || part)) AS of_part (counted)
    WHERE part IS NOT NULL AND effect NOT LIKE 'charge %'
    GROUP BY 1, 2, 3
    ORDER BY 1, 2, 3";

/// Each charge that was taken back, and what took it back.
const TAKEN_BACK_TOLD: &str = "
    SELECT tenant, charge_id, conversation, part, occurred_at, tier, amount, effect, rule
    FROM told
    WHERE effect LIKE 'charge %'
    ORDER BY 1, 2";

const TAKEN_BACK: &str = "
    SELECT c.tenant, c.charge_id, c.conversation, c.part, c.charged_at, c.tier, c.amount,
        CASE WHEN c.reverses IS NULL THEN format('charge %s was taken back by charge %s', c.charge_id, r.charge_id)
            ELSE format('charge %s took back charge %s', c.charge_id, c.reverses) END,
        c.reason
    FROM talkmeter.charges AS c
    LEFT JOIN talkmeter.charges AS r ON r.tenant = c.tenant AND r.reverses = c.charge_id
    WHERE c.reverses IS NOT NULL OR r.charge_id IS NOT NULL
    ORDER BY 1, 2";

/// The reason against is the table's, because the view keeps it back until the part has ended.
const METERED: &str = "
    SELECT p.tenant, p.conversation, p.part, p.started_at, p.ended_at || ': ' || p.end_reason, NULLIF(p.status, 'ended'),
        CASE WHEN p.billable THEN 'billable' END, own.not_billable_because, p.message_count, p.ai_replies, p.staff_replies
    FROM talkmeter.parts AS p
    JOIN talkmeter.part AS own USING (tenant, conversation, part)
    ORDER BY 1, 2, 3";

/// Each standing charge is told once, with the line that says that its part is billable.
const CHARGES_TOLD: &str = "
    SELECT tenant, charge_id, conversation, part, occurred_at, tier, amount, currency
    FROM told
    WHERE effect = 'part ' || part || ' is billable'
    ORDER BY 1, 2";

/// A charge whose instant has moved within its period stays as posted; told is the instant of its part.
const CHARGES: &str = "
    SELECT c.tenant, c.charge_id, c.conversation, c.part, p.charged_at, c.tier, c.amount, c.currency
    FROM talkmeter.charges AS c
    JOIN talkmeter.parts AS p USING (tenant, conversation, part)
    WHERE c.reverses IS NULL AND NOT EXISTS (
        SELECT FROM talkmeter.charges AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
    ORDER BY 1, 2";

/// What every row of the source did, in the order of time and id.
const EVENTS_TOLD: &str = "
    SELECT tenant, conversation, occurred_at, message_id
    FROM told
    WHERE effect ~ '^(opened part|counted in part|without effect|waits)'
    ORDER BY tenant, conversation, step";

fn check(session: &mut Session, table: &str) {
    tell_all(session);
    let metered = session.lines(METERED);
    assert!(metered.len() > 500);
    assert_same_rows(&session.lines(TOLD), &metered);
    let charges = session.lines(CHARGES);
    assert!(["|included|", "|pack|", "|overage|"].iter().all(|tier| charges.iter().any(|row| row.contains(tier))));
    assert_same_rows(&session.lines(CHARGES_TOLD), &charges);
    assert_same_rows(&session.lines(TAKEN_BACK_TOLD), &session.lines(TAKEN_BACK));
    let events = format!(
        r#"SELECT tenant_id, conversation_id, created_at, id
           FROM {table}
           ORDER BY tenant_id COLLATE "C", conversation_id COLLATE "C", created_at, id"#
    );
    assert_same_rows(&session.lines(EVENTS_TOLD), &session.lines(&events));
    steps_are_sound(session, table);
}

fn steps_are_sound(session: &mut Session, table: &str) {
    let misnumbered = "
        SELECT tenant, conversation, count(*), max(step)
        FROM told
        GROUP BY 1, 2
        HAVING count(*) <> max(step) OR min(step) <> 1 OR count(DISTINCT step) <> count(*)";
    assert_eq!(session.lines(misnumbered), NOTHING);
    let sources = "SELECT DISTINCT source FROM told WHERE message_id IS NOT NULL";
    assert_eq!(session.lines(sources), [table]);
    // That a charge was taken back has its reason with the charge that took it back.
    let unexplained =
        "SELECT * FROM told WHERE rule IS NULL AND effect NOT LIKE 'charge % was taken back by %' LIMIT 5";
    assert_eq!(session.lines(unexplained), NOTHING);
    let unruled = "
        SELECT t.* FROM told AS t
        JOIN talkmeter.parts AS p USING (tenant, conversation, part)
        WHERE t.effect LIKE 'opened part %'
            AND t.rule NOT LIKE 'starts_on of ' || p.policy || '@' || p.policy_version || ' holds ' || t.event || '%'";
    assert_eq!(session.lines(unruled), NOTHING);
}

#[test]
fn every_conversation_of_the_rules_is_told_as_it_was_metered() {
    for policy in POLICIES {
        let (_database, mut session) = paid::rules(policy, Charged::InBatchesOf(500));
        check(&mut session, "messages");
    }
}

#[test]
fn conversations_whose_rows_came_late_are_told_under_the_numbers_that_charges_know() {
    let (mut random, seed) = Random::seeded();
    let policy = POLICIES[random.below(3)];
    println!("TALKMETER_SEED={seed}: {policy}");
    let (_database, mut session) = paid::rules(policy, Charged::InDisorder(seed));
    check(&mut session, "messages");
    let reversed = session.line("SELECT count(*) > 0 FROM talkmeter.charges WHERE reverses IS NOT NULL");
    assert_eq!(reversed, "t");
}

#[test]
fn real_conversations_are_told_as_they_were_metered() {
    for policy in POLICIES {
        let (_database, mut session) = paid::irc_support(policy, Charged::AllAtOnce);
        check(&mut session, "irc_support");
    }
}

// --- One conversation ---

/// The steps of a conversation; times of 2026-03-01 without the day.
fn steps(session: &mut Session, conversation: &str, columns: &str) -> Vec<String> {
    let lines = session.lines(&format!("SELECT {columns} FROM talkmeter.explain('acme', '{conversation}')"));
    lines.iter().map(|line| line.replace("2026-03-01 ", "").replace(":00+00", "")).collect()
}

fn effects(session: &mut Session, conversation: &str) -> Vec<String> {
    steps(session, conversation, "occurred_at, message_id, effect, charge_id, tier, amount")
}

#[test]
fn a_row_that_an_excluded_rule_matched_says_why() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:05 note, 10:10 ai_reply");
    session.run("UPDATE messages SET excluded = true WHERE id = 2");
    assert_eq!(
        steps(&mut session, "c", "step, occurred_at, event, effect, rule")[..4],
        [
            "1|10:00|customer_message|opened part 1|starts_on of agent_red@1 holds customer_message",
            "2|10:05|note|counted in part 1|note is no activity: the clocks run on; an excluded rule matched: test",
            "3|10:10|ai_reply|counted in part 1|ai_reply is activity, and completes turn 1",
            "4|10:10|ai_reply|part 1 is not billable: excluded|an excluded rule of the mapping matched one of its events up to its first AI reply",
        ]
    );
}

#[test]
fn charges_that_were_taken_back_are_listed_after_the_events_with_what_took_them_back() {
    let (_database, mut session) = told("ai_resolution", "10:00 exchange, 10:10 close, 11:00 visit");
    tell(&mut session, "acme", "c", "10:05 staff_reply");
    session.run("SELECT talkmeter.credit('acme', 2, 'sorry')");
    let columns = "occurred_at, part, effect, rule, charge_id, tier, amount, currency, event, message_id";
    let told = steps(&mut session, "c", columns);
    assert_eq!(
        told[told.len() - 4..],
        [
            "10:10|1|charge 1 was taken back by charge 3||1|included|0|USD||",
            "11:00|2|charge 2 was taken back by charge 4||2|included|0|USD||",
            "10:10|1|charge 3 took back charge 1|refold|3|included|0|USD||",
            "11:00|2|charge 4 took back charge 2|credit: sorry|4|included|0|USD||",
        ]
    );
    // A credited part stays billable, and no charge of it stands.
    let verdicts = "SELECT effect, rule, charge_id FROM talkmeter.explain('acme', 'c') WHERE effect ~ 'billable'";
    assert_eq!(
        session.lines(verdicts),
        [
            "part 1 is not billable: staff_replied|staff_reply_blocks, and it holds a reply by staff|",
            "part 2 is billable|charge_on of ai_resolution@1 is close, and nothing is against it|",
        ]
    );
}

#[test]
fn rows_in_quarantine_are_listed_last_with_what_helps() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 what, 10:20 note, 10:05 whatever");
    let effects = effects(&mut session, "c");
    assert_eq!(
        effects[effects.len() - 2..],
        ["10:05|4|in quarantine: no_kind|||", "10:10|2|in quarantine: no_kind|||"]
    );
    let hint = session.line("SELECT source, rule FROM talkmeter.explain('acme', 'c') WHERE message_id = '4'");
    assert!(hint.starts_with("messages|Change the row"), "{hint}");
    tell(&mut session, "acme", "quarantined only", "10:00 what");
    assert_eq!(self::effects(&mut session, "quarantined only"), ["10:00|5|in quarantine: no_kind|||"]);
}

#[test]
fn events_that_no_policy_can_judge_wait_and_the_rest_is_told() {
    let (_database, mut session) = metered("agent_red");
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "late", "label": "1", "effective_from": "2026-03-01 11:00+00",
               "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "first_ai_reply",
               "staff_reply_blocks": false, "error_before_reply_waives": false, "exclude_prefixes": []}');
           SELECT talkmeter.subscribe('acme', 'agent_red/starter', '2026-01-01', policy => 'late')"#,
    );
    tell(&mut session, "acme", "c", "10:00 exchange, 12:00 exchange");
    assert_eq!(
        effects(&mut session, "c"),
        [
            "10:00|1|waits for a policy|||",
            "10:00|1|waits for a policy|||",
            "12:00|2|opened part 1|||",
            "12:00|2|counted in part 1|||",
            "12:00|2|part 1 is billable|1|included|0",
            "||part 1 is open|||",
            "10:00|1|in quarantine: unknown_policy|||",
        ]
    );
}

#[test]
fn a_conversation_that_lost_rows_is_told_as_it_was_metered() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:05 ai_reply, 10:10 note, 11:00 visit");
    session.run("DELETE FROM messages WHERE id IN (1, 3)");
    tell(&mut session, "acme", "c", "11:10 note");
    let told = steps(&mut session, "c", "occurred_at, event, message_id, effect, rule, charge_id");
    let billable = "charge_on of agent_red@1 is first_ai_reply, and nothing is against it";
    let idle = "idle_timeout of agent_red@1: 0:30:00 after the last activity";
    for line in [
        "10:00|||opened part 1|2 of its 3 events are gone; what was metered stays|".to_owned(),
        "10:05|ai_reply|2|counted in part 1|as it was metered|".to_owned(),
        format!("10:35|||part 1 ended: idle|{idle}|"),
        format!("10:05|||part 1 is billable|{billable}|1"),
        "11:00|customer_message|4|opened part 2|as it was metered|".to_owned(),
        "11:00|close|4|counted in part 2|as it was metered|".to_owned(),
        "11:00|||part 2 ended: close|ends_on of agent_red@1 holds close|".to_owned(),
        format!("11:00|||part 2 is billable|{billable}|2"),
    ] {
        assert!(told.contains(&line), "{line} is missing in {told:#?}");
    }
    let last =
        "11:10|note|5|without effect|no part counted it; rows of the conversation are gone, so it is not folded again|";
    assert_eq!(told.last().expect("steps"), last);
}

#[test]
fn a_conversation_of_which_all_rows_are_gone_is_told_from_its_parts() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:10 close");
    session.run("TRUNCATE messages");
    assert_eq!(
        effects(&mut session, "c"),
        ["10:00||opened part 1|||", "10:00||part 1 is billable|1|included|0", "10:10||part 1 ended: close|||"]
    );
}

#[test]
fn time_that_has_passed_ends_a_part_also_in_a_conversation_that_lost_rows() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:05 note, 10:10 ai_reply");
    session.run("DELETE FROM messages WHERE id = 2");
    assert_eq!(session.line("SELECT status, end_reason FROM talkmeter.parts"), "ended|idle");
    assert!(effects(&mut session, "c").contains(&"10:40||part 1 ended: idle|||".to_owned()));
}

#[test]
fn a_part_is_told_under_the_policy_that_it_stores() {
    let story = "10:00 customer_message, 10:05 staff_reply, 10:10 ai_reply, 10:20 close";
    for change in [
        "SELECT talkmeter.subscribe('acme', 'agent_red/starter', '2026-01-01', policy => 'ai_resolution')",
        r#"SELECT talkmeter.define_policy('{"name": "agent_red", "label": "2", "effective_from": "2026-02-01", "retroactive": true, "note": "a test",
               "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "close", "staff_reply_blocks": true,
               "error_before_reply_waives": false, "exclude_prefixes": []}')"#,
    ] {
        let (_database, mut session) = told("agent_red", story);
        session.run(change);
        assert_eq!(session.line("SELECT policy, policy_version, billable FROM talkmeter.parts"), "agent_red|1|t");
        let verdict = "SELECT effect, charge_id FROM talkmeter.explain('acme', 'c') WHERE effect ~ 'billable'";
        assert_eq!(session.line(verdict), "part 1 is billable|1", "{change}");
    }
}

#[test]
fn a_part_that_lost_a_later_row_is_opened_before_anything_is_counted_in_it() {
    let (_database, mut session) = told("agent_red", "10:00 customer_message, 10:05 note, 10:10 ai_reply, 10:20 close");
    session.run("DELETE FROM messages WHERE id = 2");
    assert_eq!(effects(&mut session, "c")[0], "10:00|1|opened part 1|||");
}

#[test]
fn parts_have_the_numbers_that_charges_know_them_by() {
    let (_database, mut session) = told("agent_red", "10:00 exchange, 10:50 exchange");
    // Merges both parts, and then another one begins within what was the first.
    tell(&mut session, "acme", "c", "10:25 exchange");
    tell(&mut session, "acme", "c", "10:15 close");
    let opened = "SELECT occurred_at, part, effect FROM talkmeter.explain('acme', 'c') WHERE effect ~ 'opened'";
    assert_eq!(
        session.lines(opened),
        ["2026-03-01 10:00:00+00|1|opened part 1", "2026-03-01 10:25:00+00|3|opened part 3"]
    );
    let charged = "SELECT part, charge_id FROM talkmeter.explain('acme', 'c') WHERE effect ~ 'is billable'";
    assert_eq!(session.lines(charged), ["1|1", "3|4"]);
}

#[test]
fn a_billable_part_without_a_plan_says_that_it_is_not_charged_yet() {
    let database = Database::with_messages("explain", "agent_red", None);
    let mut session = database.connect();
    tell(&mut session, "acme", "c", "10:00 exchange");
    let verdict = "SELECT rule, charge_id FROM talkmeter.explain('acme', 'c') WHERE effect ~ 'is billable'";
    assert!(session.line(verdict).contains("; not charged yet: "));
    session.run("SELECT talkmeter.subscribe('acme', 'agent_red/starter', '2026-01-01')");
    assert!(!session.line(verdict).contains("not charged"));
    assert!(session.line(verdict).ends_with("|1"));
}

#[test]
fn a_mark_is_told_with_its_number_and_without_a_source() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run("SELECT talkmeter.mark('acme', 'c', 'close', '2026-03-01 10:10+00')");
    let marked = "SELECT event, source, message_id, effect FROM talkmeter.explain('acme', 'c') WHERE event = 'close'";
    assert_eq!(session.lines(marked), ["close||1|counted in part 1", "close||1|part 1 ended: close"]);
}

#[test]
fn an_open_part_says_what_will_end_it() {
    let (_database, mut session) = metered("ai_resolution");
    tell(&mut session, "acme", "c", "now exchange, now staff_reply");
    let last = "SELECT occurred_at, effect, rule FROM talkmeter.explain('acme', 'c') ORDER BY step DESC LIMIT 1";
    assert_eq!(session.line(last), "|part 1 is open|close or resolve ends it; time alone does not");
}

#[test]
fn of_a_conversation_that_nobody_knows_one_line_says_so_and_which_one_may_be_meant() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    tell(&mut session, "acme", "#ubuntu/10001", "10:00 exchange");
    for (tenant, conversation, rule) in [
        ("acme", "10001", "perhaps \"#ubuntu/10001\" is meant"),
        ("acme", "#ubuntu/1001", "perhaps \"#ubuntu/10001\" is meant"),
        ("acme", "d", ""),
        ("other", "c", ""),
        ("acme", "", ""),
    ] {
        let all = format!("SELECT * FROM talkmeter.explain('{tenant}', '{conversation}')");
        assert_eq!(session.lines(&all), [format!("0||||||nothing of this conversation is metered|{rule}||||")]);
        let document = format!("SELECT talkmeter.explain_json('{tenant}', '{conversation}')");
        let empty = format!(r#"{{"parts": [], "steps": [], "tenant": "{tenant}", "conversation": "{conversation}"}}"#);
        assert_eq!(session.line(&document), empty);
    }
}

#[test]
fn a_tenant_or_conversation_that_is_null_is_an_error() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    for function in ["explain", "explain_json"] {
        for arguments in ["NULL, 'c'", "'acme', NULL", "NULL, NULL"] {
            let code = session.refused(&format!("SELECT * FROM talkmeter.{function}({arguments})"));
            assert_eq!(code, SqlState::NULL_VALUE_NOT_ALLOWED, "{function}({arguments})");
        }
    }
}

#[test]
fn the_document_holds_the_same_parts_and_steps_and_no_nulls() {
    let (_database, mut session) = told("ai_resolution", "10:00 exchange, 10:10 close, 10:20 what, 11:00 visit");
    tell(&mut session, "acme", "c", "10:05 staff_reply");
    let steps = session.lines("SELECT * FROM talkmeter.explain('acme', 'c') ORDER BY step");
    let of_document = "
        SELECT e.*
        FROM talkmeter.explain_json('acme', 'c') AS document,
            jsonb_populate_recordset(NULL::record_of_explain, document->'steps') AS e";
    session.run(
        "CREATE TEMPORARY TABLE record_of_explain AS SELECT * FROM talkmeter.explain('acme', 'c') WITH NO DATA;
         CREATE TEMPORARY TABLE record_of_parts AS SELECT * FROM talkmeter.parts WITH NO DATA",
    );
    assert_eq!(session.lines(of_document), steps);
    let parts = session.lines(
        "SELECT p.part, p.policy, p.policy_version, p.status, p.started_at, p.ended_at, p.end_reason, p.billable,
             p.not_billable_because, p.charged_at
         FROM talkmeter.explain_json('acme', 'c') AS document,
             jsonb_populate_recordset(NULL::record_of_parts, document->'parts') AS p",
    );
    let metered = "SELECT part, policy, policy_version, status, started_at, ended_at, end_reason, billable,
                       not_billable_because, charged_at
                   FROM talkmeter.parts ORDER BY started_at";
    assert_eq!(parts, session.lines(metered));
    assert_eq!(parts.len(), 2);
    let nulls = "SELECT jsonb_path_exists(talkmeter.explain_json('acme', 'c'), 'strict $.** ? (@ == null)')";
    assert_eq!(session.line(nulls), "f");
}

#[test]
fn a_transaction_that_may_only_read_can_ask() {
    let (_database, mut session) = told("agent_red", "10:00 exchange");
    session.run(
        "BEGIN READ ONLY;
         SELECT * FROM talkmeter.explain('acme', 'c');
         SELECT talkmeter.explain_json('acme', 'c');
         COMMIT",
    );
}
