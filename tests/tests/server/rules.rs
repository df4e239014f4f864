//! Do rows of SQL meet the rules of parts and verdicts, of time that passes and of events that come late (rule 3)?

use postgres::error::SqlState;
use talkmeter_tests::{
    Database, Session, attach, create_messages, messages_mapping, metered, standing_charges, tell, told, traces,
};

/// A database in which the conversation `c` of `acme` has had these events, swept.
fn told_and_swept(policy: &str, story: &str) -> (Database, Session) {
    let (database, mut session) = told(policy, story);
    session.sweep("2026-04-01");
    (database, session)
}

/// Start, end, reason of the end, billable and reason against of each part, times of 2026-03-01 without the day.
fn outcomes(session: &mut Session) -> Vec<String> {
    let lines = session.table(
        "SELECT conversation, part, started_at, ended_at, end_reason, billable, not_billable_because
         FROM talkmeter.parts ORDER BY 1, 2",
    );
    lines.iter().map(|line| line.replace("2026-03-01 ", "").replace("+00", "")).collect()
}

/// How many units were charged.
fn charges(session: &mut Session) -> String {
    session.line("SELECT count(*) FROM talkmeter.charges")
}

// --- Ends ---

#[test]
fn the_50th_turn_ends_the_part_and_the_next_customer_message_opens_another() {
    let (_database, mut session) = metered("agent_red");
    let turn = |n: u32| format!("10:00:{n:02} customer_message, 10:00:{n:02} customer_message, 10:00:{n:02} ai_reply");
    let turns: Vec<String> = (1..=49).map(turn).collect();
    tell(&mut session, "acme", "c", &turns.join(", "));
    let turns = "SELECT part, status, turn_count, end_reason FROM talkmeter.parts ORDER BY part";
    // The clock on the wall is long past these parts, so they show as ended; no sweep has ended them.
    assert_eq!(session.lines(turns), ["1|ended|49|idle"]);
    tell(&mut session, "acme", "c", &turn(50));
    assert_eq!(session.lines(turns), ["1|ended|50|turn_limit"]);
    tell(&mut session, "acme", "c", "10:01 ai_reply, 10:02 staff_reply, 10:03 customer_message, 10:04 ai_reply");
    assert_eq!(session.lines(turns), ["1|ended|50|turn_limit", "2|ended|1|idle"]);
    let counted = session.line("SELECT string_agg(message_count::text, ' ' ORDER BY part) FROM talkmeter.parts");
    assert_eq!(counted, "150 2");
    assert_eq!(
        outcomes(&mut session)[..2],
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:01|10:00:50|turn_limit|t|"
        ]
    );
    assert_eq!(charges(&mut session), "2");
}

#[test]
fn a_gap_of_exactly_the_idle_timeout_continues_the_part() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 customer_message, 10:30 ai_reply");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|11:00:00|idle|t|"
        ]
    );
}

#[test]
fn a_gap_a_microsecond_longer_than_the_idle_timeout_ends_the_part() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 customer_message, 10:30:00.000001 ai_reply");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:30:00|idle|f|no_ai_reply"
        ]
    );
}

#[test]
fn three_quiet_hours_end_a_part_in_triage() {
    let (_database, mut session) = told_and_swept(
        "ai_resolution",
        "10:00 customer_message, 12:59:59.999999 ai_reply, 15:59:59.999999 customer_message",
    );
    let outcomes = outcomes(&mut session);
    assert_eq!(
        outcomes,
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|15:59:59.999999|quiet_review|t|",
            "c|2|15:59:59.999999|18:59:59.999999|quiet_review|f|no_ai_reply"
        ]
    );
}

#[test]
fn a_change_of_the_clock_is_nothing_to_idle_and_quiet_times() {
    // In Berlin it was 03:00 after 01:59 on the 29th of March 2026, and 02:00 again after 02:59 on the 26th of October
    // 2025.
    for day in ["2026-03-29", "2025-10-26"] {
        let (_database, mut session) = metered("agent_red");
        session.run(
            "SET TimeZone = 'Europe/Berlin';
             SELECT talkmeter.subscribe('acme', 'agent_red/starter', '2025-01-01', 'Europe/Berlin'),
                 talkmeter.subscribe('other', 'agent_red/starter', '2025-01-01', 'Europe/Berlin',
                     policy => 'ai_resolution')",
        );
        tell(&mut session, "acme", "whole", &format!("{day} 00:45 exchange, {day} 01:15 exchange"));
        tell(&mut session, "acme", "split", &format!("{day} 00:45 exchange, {day} 01:15:00.000001 exchange"));
        tell(&mut session, "other", "quiet", &format!("{day} 00:10 customer_message, {day} 03:09:59.999999 ai_reply"));
        tell(&mut session, "other", "reviewed", &format!("{day} 00:10 customer_message, {day} 03:10 ai_reply"));
        session.sweep("now");
        let parts = session.lines(
            "SELECT conversation, ended_at - last_activity_at, ended_at - started_at FROM talkmeter.parts
             ORDER BY conversation, part",
        );
        let wanted = [
            "quiet|03:00:00|05:59:59.999999",
            "reviewed|03:00:00|03:00:00",
            "split|00:30:00|00:30:00",
            "split|00:30:00|00:30:00",
            "whole|00:30:00|01:00:00",
        ];
        assert_eq!(parts, wanted, "{day}");
    }
}

// --- Reasons against ---

/// A conversation whose id starts with `prefix` is recorded and not charged; ids that only look like it are.
fn is_never_charged(prefix: &str) {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", &format!("{prefix}1"), "10:00 exchange");
    tell(&mut session, "acme", prefix, "10:00 exchange");
    let recorded = session.lines("SELECT billable, not_billable_because FROM talkmeter.parts");
    assert_eq!(recorded, ["f|excluded_prefix", "f|excluded_prefix"]);
    assert_eq!(charges(&mut session), "0");
    let capital = prefix[..1].to_uppercase() + &prefix[1..];
    let wildcard = prefix.replace('_', "X");
    for alike in [capital, wildcard, format!(" {prefix}"), format!("x{prefix}"), prefix.replace('_', "")] {
        tell(&mut session, "acme", &format!("{alike}1"), "10:00 exchange");
    }
    assert_eq!(charges(&mut session), "5");
}

#[test]
fn prefix_test_is_never_charged() {
    is_never_charged("test_");
}

#[test]
fn prefix_admin_is_never_charged() {
    is_never_charged("admin_");
}

#[test]
fn prefix_health_is_never_charged() {
    is_never_charged("health_");
}

#[test]
fn prefix_system_is_never_charged() {
    is_never_charged("system_");
}

/// The only part is not billed for this reason, and nothing is charged.
fn is_not_billed_because(reason: &str, session: &mut Session) {
    let judged = session.lines("SELECT billable, not_billable_because, charged_at FROM talkmeter.parts");
    assert_eq!(judged, [format!("f|{reason}|")]);
    assert_eq!(charges(session), "0");
}

#[test]
fn an_excluded_row_makes_the_part_excluded() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind, excluded) VALUES
             ('acme', 'c', '2026-03-01 10:00+00', 'customer_message', false),
             ('acme', 'c', '2026-03-01 10:01+00', 'note', true),
             ('acme', 'c', '2026-03-01 10:02+00', 'ai_reply', false)",
    );
    is_not_billed_because("excluded", &mut session);
}

#[test]
fn a_row_excluded_only_after_the_charge_leaves_the_part_billed() {
    let (_database, mut session) = metered("lutingenie");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind, excluded) VALUES
             ('acme', 'c', '2026-03-01 10:00+00', 'exchange', false),
             ('acme', 'c', '2026-03-01 10:01+00', 'customer_message', true)",
    );
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:31:00|idle|t|"
        ]
    );
    assert_eq!(charges(&mut session), "1");
}

#[test]
fn a_visible_staff_reply_makes_an_ai_resolution_part_staff_replied() {
    let (_database, mut session) =
        told_and_swept("ai_resolution", "10:00 exchange, 10:01 staff_reply, 10:02 ai_reply, 10:03 resolve");
    is_not_billed_because("staff_replied", &mut session);
}

#[test]
fn a_note_of_staff_is_no_reply() {
    let (_database, mut session) = told_and_swept("ai_resolution", "10:00 exchange, 10:01 note, 10:02 close");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:02:00|close|t|"
        ]
    );
    assert_eq!(session.lines("SELECT charged_at FROM talkmeter.charges"), ["2026-03-01 10:02:00+00"]);
}

#[test]
fn an_error_before_the_reply_waives_an_agent_red_part() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 customer_message, 10:01 error, 10:02 ai_reply");
    is_not_billed_because("error_before_reply", &mut session);
}

#[test]
fn an_error_before_the_reply_leaves_a_lutingenie_part_billed_at_the_reply() {
    let (_database, mut session) = told_and_swept("lutingenie", "10:00 customer_message, 10:01 error, 10:02 ai_reply");
    assert_eq!(session.lines("SELECT charged_at FROM talkmeter.charges"), ["2026-03-01 10:02:00+00"]);
}

#[test]
fn an_error_after_the_reply_waives_nothing() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 exchange, 10:01 error");
    assert_eq!(charges(&mut session), "1");
}

#[test]
fn a_part_without_an_ai_reply_is_not_billed() {
    let (_database, mut session) =
        told_and_swept("agent_red", "10:00 customer_message, 10:01 staff_reply, 10:02 close");
    is_not_billed_because("no_ai_reply", &mut session);
}

#[test]
fn of_several_reasons_the_first_in_the_order_of_the_rules_is_given() {
    let (_database, mut session) = metered("agent_red");
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "all", "starts_on": ["customer_message"], "ends_on": ["close"],
               "charge_on": "close", "staff_reply_blocks": true, "error_before_reply_waives": true,
               "exclude_prefixes": ["test_"], "effective_from": "2000-01-01"}');
           SELECT talkmeter.subscribe('acme', 'agent_red/starter', since => '2026-01-01', policy => 'all')"#,
    );
    // Each conversation has one reason less than the one before.
    for (conversation, excluded, story) in [
        ("test_1", true, ["error", "staff_reply"]),
        ("c2", true, ["error", "staff_reply"]),
        ("c3", false, ["error", "staff_reply"]),
        ("c4", false, ["error", "note"]),
        ("c5", false, ["note", "note"]),
    ] {
        session.run(&format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind, excluded)
             SELECT 'acme', '{conversation}', '2026-03-01', kind, {excluded}
             FROM unnest('{{customer_message,{},close}}'::text[]) WITH ORDINALITY AS told (kind, place) ORDER BY place",
            story.join(",")
        ));
    }
    let reasons = session
        .lines("SELECT not_billable_because FROM talkmeter.parts ORDER BY conversation <> 'test_1', conversation");
    assert_eq!(reasons, ["excluded_prefix", "excluded", "staff_replied", "error_before_reply", "no_ai_reply"]);
}

// --- Time that passes ---

#[test]
fn parts_show_time_that_has_passed_before_any_sweep_while_charges_do_not() {
    let (_database, mut session) = metered("ai_resolution");
    tell(&mut session, "acme", "answered", "10:00 exchange");
    tell(&mut session, "acme", "unanswered", "10:00 customer_message");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', 'young', clock_timestamp() - interval '1 hour', 'exchange')",
    );
    let shown = "SELECT conversation, status, ended_at, end_reason, billable, not_billable_because, charged_at
                 FROM talkmeter.parts ORDER BY conversation";
    let passed = [
        "answered|ended|2026-03-01 13:00:00+00|quiet_review|t||2026-03-01 13:00:00+00",
        "unanswered|ended|2026-03-01 13:00:00+00|quiet_review|f|no_ai_reply|",
        "young|open|||f||",
    ];
    assert_eq!(session.lines(shown), passed);
    assert_eq!(charges(&mut session), "0");
    assert_eq!(session.line("SELECT talkmeter.sweep()"), "2");
    assert_eq!(session.lines(shown), passed);
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.charges"), ["answered"]);
}

#[test]
fn a_sweep_ends_what_is_due_by_its_instant_and_nothing_later() {
    let (_database, mut session) = metered("ai_resolution");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(session.sweep("2026-03-01 12:59:59.999999+00"), 0);
    assert_eq!(session.sweep("2026-03-01 13:00+00"), 1);
    assert_eq!(session.sweep("2026-03-01 13:00+00"), 0);
}

#[test]
fn unevaluated_lists_a_staffed_part_that_nobody_closes() {
    let (_database, mut session) = told_and_swept("ai_resolution", "10:00 exchange, 10:01 staff_reply");
    tell(&mut session, "acme", "in triage", "10:00 exchange");
    let unevaluated = "SELECT conversation, part, staff_replies FROM talkmeter.unevaluated";
    assert_eq!(session.lines(unevaluated), ["c|1|1"]);
    assert_eq!(session.lines("SELECT status FROM talkmeter.parts WHERE conversation = 'c'"), ["open"]);
    tell(&mut session, "acme", "c", "2026-03-09 10:00 close");
    assert_eq!(session.lines(unevaluated), [""; 0]);
    let closed = session.line("SELECT ended_at, not_billable_because FROM talkmeter.parts WHERE conversation = 'c'");
    assert_eq!(closed, "2026-03-09 10:00:00+00|staff_replied");
}

#[test]
fn a_sweep_into_the_future_is_refused() {
    let (_database, mut session) = metered("agent_red");
    for as_of in ["now() + interval '6 minutes'", "now() + interval '1 year'", "'infinity'", "'-infinity'"] {
        let code = session.refused(&format!("SELECT talkmeter.sweep({as_of})"));
        assert_eq!(code, SqlState::DATETIME_FIELD_OVERFLOW, "{as_of}");
    }
    // talkmeter.max_future is five minutes.
    assert_eq!(session.line("SELECT talkmeter.sweep(now() + interval '4 minutes')"), "0");
}

// --- Late events (rule 3.5) ---

/// The ledger: charge, part, instant, tier, amount, and which charge it takes back why.
fn ledger(session: &mut Session) -> Vec<String> {
    let lines = session.lines(
        "SELECT charge_id, part, charged_at, tier, amount, reverses, reason FROM talkmeter.charges ORDER BY tenant, charge_id",
    );
    lines.iter().map(|line| line.replace("2026-03-01 ", "").replace("+00", "")).collect()
}

/// Units used in each period and tier, and what is left of packs.
fn used(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT period_start::date, included_used, pack_used, overage_units, overage_amount,
             (SELECT string_agg(remaining::text, ' ' ORDER BY pack_id) FROM talkmeter.pack)
         FROM talkmeter.period ORDER BY 1",
    )
}

/// A database whose tenants get one unit a month, then draw packs, then pay 0.04.
fn metered_with_one_unit(policy: &str) -> (Database, Session) {
    let database = Database::fresh("rules");
    let mut session = database.connect();
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "one", "included": 1, "overage_rate": 0.04, "currency": "USD"}');
           SELECT talkmeter.define_pack('{"name": "one", "size": 1, "price": 1, "currency": "USD", "valid_for": "90 days"}')"#,
    );
    create_messages(&mut session);
    attach(&mut session, "messages", policy, Some("one"), &messages_mapping());
    (database, session)
}

const NOTHING: [&str; 0] = [];

fn reasons_in_quarantine(session: &mut Session) -> Vec<String> {
    session.lines("SELECT reason FROM talkmeter.quarantine")
}

#[test]
fn a_late_event_extends_its_part() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 exchange");
    tell(&mut session, "acme", "c", "10:20 customer_message");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:50:00|idle|t|"
        ]
    );
    assert_eq!(session.line("SELECT message_count, turn_count FROM talkmeter.parts"), "3|1");
    assert_eq!(ledger(&mut session), ["1|1|10:00:00|included|0||"]);
    assert_eq!(reasons_in_quarantine(&mut session), NOTHING);
}

#[test]
fn a_late_row_among_others_of_one_statement_is_counted_with_them() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:10 ai_reply");
    tell(&mut session, "acme", "c", "10:20 customer_message, 10:05 customer_message, 10:15 ai_reply");
    assert_eq!(
        session.line("SELECT message_count, turn_count, last_activity_at FROM talkmeter.parts"),
        "5|1|2026-03-01 10:20:00+00"
    );
    assert_eq!(reasons_in_quarantine(&mut session), NOTHING);
}

#[test]
fn a_late_first_message_starts_its_part_earlier() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 exchange");
    tell(&mut session, "acme", "c", "09:50 customer_message");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|09:50:00|10:30:00|idle|t|"
        ]
    );
    assert_eq!(ledger(&mut session), ["1|1|10:00:00|included|0||"]);
}

#[test]
fn a_late_first_message_gives_the_replies_after_it_a_part() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 ai_reply, 10:01 error, 10:02 ai_reply");
    assert_eq!(
        outcomes(&mut session),
        ["conversation|part|started_at|ended_at|end_reason|billable|not_billable_because"]
    );
    tell(&mut session, "acme", "c", "09:50 customer_message");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|09:50:00|10:32:00|idle|t|"
        ]
    );
    assert_eq!(ledger(&mut session), ["1|1|10:00:00|included|0||"]);
}

#[test]
fn a_late_event_merges_parts_and_the_later_charge_goes_back_to_the_rate_it_was_charged_at() {
    let (_database, mut session) = metered_with_one_unit("agent_red");
    tell(&mut session, "acme", "c", "10:00 exchange, 10:40 exchange");
    assert_eq!(used(&mut session), ["2026-03-01|1|0|1|0.04|"]);
    tell(&mut session, "acme", "c", "10:20 customer_message");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|11:10:00|idle|t|"
        ]
    );
    assert_eq!(
        ledger(&mut session),
        ["1|1|10:00:00|included|0||", "2|2|10:40:00|overage|0.04||", "3|2|10:40:00|overage|-0.04|2|refold"]
    );
    assert_eq!(used(&mut session), ["2026-03-01|1|0|0|0.00|"]);
}

#[test]
fn a_unit_that_is_taken_back_goes_back_to_its_pack_and_the_next_one_draws_it() {
    let (_database, mut session) = metered_with_one_unit("agent_red");
    session.run("SELECT talkmeter.buy_pack('acme', 'one', purchased_at => '2026-02-20')");
    tell(&mut session, "acme", "c", "10:00 exchange, 10:40 exchange");
    assert_eq!(used(&mut session), ["2026-03-01|1|1|0|0|0"]);
    tell(&mut session, "acme", "c", "10:20 customer_message");
    assert_eq!(used(&mut session), ["2026-03-01|1|0|0|0|1"]);
    assert_eq!(
        session.line("SELECT tier, pack_id, amount, reverses FROM talkmeter.charges WHERE reason = 'refold'"),
        "pack|1|0|2"
    );
    tell(&mut session, "acme", "d", "11:00 exchange");
    assert_eq!(used(&mut session), ["2026-03-01|1|1|0|0|0"]);
}

#[test]
fn a_unit_that_is_taken_back_goes_back_to_the_allowance_and_later_charges_are_not_tiered_anew() {
    let (_database, mut session) = metered_with_one_unit("ai_resolution");
    tell(&mut session, "acme", "c", "10:00 exchange, 10:10 close");
    tell(&mut session, "acme", "d", "10:00 exchange, 10:20 close");
    tell(&mut session, "acme", "c", "10:05 staff_reply");
    assert_eq!(used(&mut session), ["2026-03-01|0|0|1|0.04|"]);
    tell(&mut session, "acme", "e", "10:00 exchange, 10:30 close");
    assert_eq!(used(&mut session), ["2026-03-01|1|0|1|0.04|"]);
}

#[test]
fn a_changed_event_splits_its_part_and_each_new_part_gets_the_next_number() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 exchange, 10:25 exchange, 10:50 exchange");
    assert_eq!(ledger(&mut session), ["1|1|10:00:00|included|0||"]);
    session.run("UPDATE messages SET created_at = '2026-03-01 12:00+00' WHERE id = 2");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:30:00|idle|t|",
            "c|2|10:50:00|11:20:00|idle|t|",
            "c|3|12:00:00|12:30:00|idle|t|"
        ]
    );
    assert_eq!(
        ledger(&mut session),
        ["1|1|10:00:00|included|0||", "2|2|10:50:00|included|0||", "3|3|12:00:00|included|0||"]
    );
}

#[test]
fn a_late_end_splits_its_part() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 exchange, 10:10 exchange");
    tell(&mut session, "acme", "c", "10:05 close");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:05:00|close|t|",
            "c|2|10:10:00|10:40:00|idle|t|"
        ]
    );
    assert_eq!(ledger(&mut session), ["1|1|10:00:00|included|0||", "2|2|10:10:00|included|0||"]);
}

#[test]
fn a_late_staff_reply_makes_a_billed_ai_resolution_part_unbillable() {
    let (_database, mut session) = told_and_swept("ai_resolution", "10:00 exchange, 10:10 close");
    tell(&mut session, "acme", "c", "10:05 staff_reply");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:10:00|close|f|staff_replied"
        ]
    );
    assert_eq!(ledger(&mut session), ["1|1|10:10:00|included|0||", "2|1|10:10:00|included|0|1|refold"]);
}

#[test]
fn a_late_error_makes_a_billed_agent_red_part_unbillable() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 customer_message, 10:10 ai_reply");
    tell(&mut session, "acme", "c", "10:05 error");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:40:00|idle|f|error_before_reply"
        ]
    );
    assert_eq!(ledger(&mut session), ["1|1|10:10:00|included|0||", "2|1|10:10:00|included|0|1|refold"]);
}

#[test]
fn a_late_reply_makes_an_unbillable_part_billable() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 customer_message, 10:10 error, 10:20 ai_reply");
    assert_eq!(ledger(&mut session), NOTHING);
    tell(&mut session, "acme", "c", "10:05 ai_reply");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:50:00|idle|t|"
        ]
    );
    assert_eq!(ledger(&mut session), ["1|1|10:05:00|included|0||"]);
}

#[test]
fn a_part_that_is_billable_again_is_charged_again() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 customer_message, 10:10 ai_reply");
    tell(&mut session, "acme", "c", "10:05 error");
    tell(&mut session, "acme", "c", "10:04 ai_reply");
    assert_eq!(ledger(&mut session)[2..], ["3|1|10:04:00|included|0||"]);
    assert_eq!(used(&mut session), ["2026-03-01|1|0|0|0|"]);
}

#[test]
fn a_charge_whose_instant_moves_inside_its_period_stays_as_posted() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 customer_message, 10:10 ai_reply");
    tell(&mut session, "acme", "c", "10:05 ai_reply");
    assert_eq!(session.line("SELECT charged_at FROM talkmeter.parts"), "2026-03-01 10:05:00+00");
    assert_eq!(ledger(&mut session), ["1|1|10:10:00|included|0||"]);
}

#[test]
fn a_charge_whose_instant_moves_to_another_period_is_reversed_and_posted_again() {
    let (_database, mut session) =
        told_and_swept("agent_red", "2026-02-28 23:50 customer_message, 2026-03-01 00:05 ai_reply");
    assert_eq!(used(&mut session), ["2026-03-01|1|0|0|0|"]);
    tell(&mut session, "acme", "c", "2026-02-28 23:55 ai_reply");
    let periods = session
        .lines("SELECT charge_id, charged_at, period_start::date, reverses, reason FROM talkmeter.charges ORDER BY 1");
    assert_eq!(
        periods,
        [
            "1|2026-03-01 00:05:00+00|2026-03-01||",
            "2|2026-03-01 00:05:00+00|2026-03-01|1|refold",
            "3|2026-02-28 23:55:00+00|2026-02-01||"
        ]
    );
    assert_eq!(used(&mut session), ["2026-02-01|1|0|0|0|", "2026-03-01|0|0|0|0|"]);
}

#[test]
fn a_unit_that_waits_for_a_plan_is_forgotten_if_its_part_is_merged_or_unbillable() {
    let database = Database::with_messages("rules", "agent_red", None);
    let mut session = database.connect();
    tell(&mut session, "acme", "c", "10:00 exchange, 10:40 exchange");
    tell(&mut session, "acme", "d", "10:00 customer_message, 10:10 ai_reply");
    let waiting = "SELECT conversation, part, charged_at::time FROM talkmeter.unplanned ORDER BY 1, 2";
    assert_eq!(session.lines(waiting), ["c|1|10:00:00", "c|2|10:40:00", "d|1|10:10:00"]);
    tell(&mut session, "acme", "c", "10:20 note, 10:20 customer_message");
    tell(&mut session, "acme", "d", "10:05 error");
    assert_eq!(session.lines(waiting), ["c|1|10:00:00"]);
    // One whose instant moves waits at the new one.
    tell(&mut session, "acme", "c", "09:50 exchange");
    assert_eq!(session.lines(waiting), ["c|1|09:50:00"]);
    session.run("SELECT talkmeter.subscribe('acme', 'agent_red/starter', since => '2026-01-01')");
    assert_eq!(ledger(&mut session), ["1|1|09:50:00|included|0||"]);
}

// Numbers.

#[test]
fn of_merged_parts_the_number_of_the_oldest_standing_charge_stays() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:40 exchange, 11:20 exchange");
    assert_eq!(ledger(&mut session), ["1|2|10:40:00|included|0||", "2|3|11:20:00|included|0||"]);
    tell(&mut session, "acme", "c", "10:20 customer_message, 11:00 customer_message");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|2|10:00:00|11:50:00|idle|t|"
        ]
    );
    assert_eq!(ledger(&mut session)[2..], ["3|3|11:20:00|included|0|2|refold"]);
}

#[test]
fn of_merged_parts_without_a_charge_the_earliest_number_stays() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 customer_message, 10:40 customer_message");
    tell(&mut session, "acme", "c", "10:20 customer_message");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|11:10:00|idle|f|no_ai_reply"
        ]
    );
}

#[test]
fn a_retired_number_is_never_used_again() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 exchange, 10:40 exchange");
    tell(&mut session, "acme", "c", "10:20 customer_message");
    session.run("UPDATE messages SET tenant_id = 'other' WHERE id = 3");
    assert_eq!(
        session.lines("SELECT tenant, part, started_at::time FROM talkmeter.parts ORDER BY 1, 3"),
        ["acme|1|10:00:00", "acme|3|10:40:00", "other|1|10:20:00"]
    );
    assert_eq!(
        session.lines("SELECT charge_id, part, reverses FROM talkmeter.charges WHERE tenant = 'acme' ORDER BY 1"),
        ["1|1|", "2|2|", "3|2|2", "4|3|"]
    );
}

#[test]
fn a_part_found_before_others_gets_the_next_number() {
    let (_database, mut session) = told_and_swept("agent_red", "10:00 exchange");
    tell(&mut session, "acme", "c", "08:00 exchange");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|10:30:00|idle|t|",
            "c|2|08:00:00|08:30:00|idle|t|"
        ]
    );
    assert_eq!(ledger(&mut session), ["1|1|10:00:00|included|0||", "2|2|08:00:00|included|0||"]);
}

// Late after a sweep.

#[test]
fn an_event_of_before_an_end_that_a_sweep_recorded_moves_the_end() {
    let (_database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(session.sweep("2026-03-01 12:00+00"), 1);
    // Between last activity and end; then exactly at the end, which continues the part.
    for (late, end) in [("10:15 customer_message", "10:45:00"), ("10:45 customer_message", "11:15:00")] {
        tell(&mut session, "acme", "c", late);
        assert_eq!(
            outcomes(&mut session),
            [
                "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because".to_owned(),
                format!("c|1|10:00:00|{end}|idle|t|")
            ]
        );
    }
    // After the end, although before the instant of the sweep.
    tell(&mut session, "acme", "c", "11:15:00.000001 exchange");
    assert_eq!(outcomes(&mut session)[2..], ["c|2|11:15:00.000001|11:45:00.000001|idle|t|"]);
    assert_eq!(reasons_in_quarantine(&mut session), NOTHING);
}

#[test]
fn a_charge_of_a_swept_end_that_a_late_event_moves_is_taken_back_until_time_has_passed_the_new_end() {
    let (_database, mut session) = metered("ai_resolution");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(session.sweep("2026-03-01 13:00+00"), 1);
    assert_eq!(standing_charges(&mut session, "part, charged_at::time"), ["1|13:00:00"]);
    tell(&mut session, "acme", "c", "12:00 customer_message");
    assert_eq!(standing_charges(&mut session, "part"), NOTHING);
    assert_eq!(session.sweep("2026-03-01 14:59+00"), 0);
    assert_eq!(session.sweep("2026-03-01 15:00+00"), 1);
    assert_eq!(standing_charges(&mut session, "part, charged_at::time"), ["1|15:00:00"]);
}

#[test]
fn an_event_at_the_end_of_a_quiet_review_that_a_sweep_recorded_opens_the_next_part() {
    let (_database, mut session) = metered("ai_resolution");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(session.sweep("2026-03-01 13:00+00"), 1);
    // No activity, so the end stays.
    tell(&mut session, "acme", "c", "12:59:59.999999 note");
    assert_eq!(
        outcomes(&mut session),
        [
            "conversation|part|started_at|ended_at|end_reason|billable|not_billable_because",
            "c|1|10:00:00|13:00:00|quiet_review|t|"
        ]
    );
    tell(&mut session, "acme", "c", "13:00 exchange");
    assert_eq!(outcomes(&mut session)[2..], ["c|2|13:00:00|16:00:00|quiet_review|t|"]);
    assert_eq!(reasons_in_quarantine(&mut session), NOTHING);
}

// What comes first.

#[test]
fn at_one_instant_the_id_decides_whatever_came_first() {
    let (_database, mut session) = metered("agent_red");
    session.run("INSERT INTO messages VALUES (9, 'acme', 'c', '2026-03-01 10:00+00', 'ai_reply')");
    session.run("INSERT INTO messages VALUES (8, 'acme', 'c', '2026-03-01 10:00+00', 'customer_message')");
    session.run("INSERT INTO messages VALUES (18, 'acme', 'd', '2026-03-01 10:00+00', 'ai_reply')");
    session.run("INSERT INTO messages VALUES (19, 'acme', 'd', '2026-03-01 10:00+00', 'customer_message')");
    assert_eq!(session.lines("SELECT conversation, ai_replies FROM talkmeter.parts ORDER BY 1"), ["c|1", "d|0"]);
    assert_eq!(reasons_in_quarantine(&mut session), NOTHING);
}

#[test]
fn an_event_without_effect_leaves_no_part() {
    let (_database, mut session) =
        told_and_swept("agent_red", "10:00 ai_reply, 10:01 staff_reply, 10:02 close, 10:03 note");
    assert_eq!(traces(&mut session), ["conversation|1"]);
    tell(&mut session, "acme", "c", "09:00 ai_reply, 09:01 close");
    assert_eq!(traces(&mut session), ["conversation|1"]);
}
