//! What if a verdict comes after the end of a part, or is taken back (rule 3.9)?

use talkmeter_tests::{Database, PLAN, Session, attach, quoted};

const NOTHING: [&str; 0] = [];

/// A resolution is charged at the end, and taken back if the customer comes back, however late.
const FIN: &str = r#"{"name": "fin", "effective_from": "2026-01-01 00:00+00", "starts_on": ["customer_message"],
    "ends_on": ["close"], "idle_timeout": "24 hours", "charge_on": "close", "final_after": "forever",
    "outcomes": [
        {"when": "unanswered", "outcome": "unanswered", "units": 0},
        {"outcome": "resolution", "voided_by": "customer_message"}]}"#;

/// Only what is verified is charged, within 7 days after the end.
const VERIFIED: &str = r#"{"name": "verified", "effective_from": "2026-01-01 00:00+00", "starts_on": ["customer_message"],
    "ends_on": ["close"], "idle_timeout": "24 hours", "charge_on": "close", "final_after": "7 days",
    "outcomes": [
        {"when": "staff_reply", "outcome": "handed_over", "units": 0},
        {"when": "note:verified", "outcome": "verified", "voided_by": "note:complaint"},
        {"outcome": "contained", "units": 0}]}"#;

const MAPPING: &str = r#"{"occurred_at": "at", "kinds": [
    {"when": {"kind": "customer"}, "kind": "customer_message"}, {"when": {"kind": "ai"}, "kind": "ai_reply"},
    {"when": {"kind": "staff"}, "kind": "staff_reply"}, {"when": {"kind": "close"}, "kind": "close"},
    {"when": {"kind": "both"}, "kind": ["ai_reply", "customer_message"]},
    {"when": {"kind": "note"}, "kind": "note"}, {"when": {"kind": "verified"}, "kind": "note:verified"},
    {"when": {"kind": "complaint"}, "kind": "note:complaint"}]}"#;

/// A table, attached under a policy.
fn attached(definition: &str, default_plan: Option<&str>) -> (Database, Session) {
    let database = Database::fresh("held");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE m (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, tenant_id text DEFAULT 'acme',
             conversation_id text, at timestamptz, kind text);
         CREATE INDEX ON m (tenant_id, conversation_id, at)",
    );
    let name = definition.split('"').nth(3).expect("a name");
    session.run(&format!("SELECT talkmeter.define_policy({})", quoted(definition)));
    attach(&mut session, "m", name, default_plan, MAPPING);
    (database, session)
}

/// Rows of a conversation by one statement, each "day hour kind"; day 1 is 2026-03-01.
fn tell(session: &mut Session, conversation: &str, rows: &str) {
    let row = |row: &str| {
        let [day, time, kind] = row.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{row}") };
        let at = format!("timestamptz '2026-02-28 {time}+00' + interval '1 day' * {day}");
        format!("({}, {at}, '{kind}')", quoted(conversation))
    };
    let rows: Vec<String> = rows.split(", ").map(row).collect();
    session.run(&format!("INSERT INTO m (conversation_id, at, kind) VALUES {}", rows.join(", ")));
}

fn sweep(session: &mut Session, until: &str) -> String {
    session.line(&format!("SELECT talkmeter.sweep('{until}+00')"))
}

fn parts(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT concat_ws(' ', conversation, part, to_char(ended_at, 'DD HH24:MI'), end_reason, units,
             COALESCE(not_billable_because, outcome, '-'), '@ ' || to_char(charged_at, 'DD HH24:MI'), 'final ' || to_char(final_at, 'DD HH24:MI'))
         FROM talkmeter.parts ORDER BY conversation, started_at, part",
    )
}

/// Conversation and part, the charge that is taken back, why, and by which event.
fn ledger(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT concat_ws(' ', charge_id, conversation, part, 'back: ' || reverses, reason, to_char(cause_at, 'DD HH24:MI'))
         FROM talkmeter.charges ORDER BY charge_id",
    )
}

/// Units that are charged, net.
const USED: &str = "SELECT sum(CASE WHEN reverses IS NULL THEN 1 ELSE -1 END) FROM talkmeter.charges";

/// The message and the detail of the error that a statement raises.
fn error(session: &mut Session, sql: &str) -> (String, String) {
    let error = session.client.batch_execute(sql).expect_err(sql);
    let error = error.as_db_error().expect("an error of the server");
    (error.message().to_owned(), error.detail().unwrap_or_default().to_owned())
}

/// What is metered is what folding from the start makes of the rows.
fn is_sound(session: &mut Session) {
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    let days = "SELECT sum(talkmeter.reconcile(day::date))
                FROM generate_series(timestamp '2026-03-01', timestamp '2026-04-10', interval '1 day') AS day";
    assert_eq!(session.lines(days), ["0"]);
}

#[test]
fn a_verdict_that_comes_while_the_part_is_held_is_charged_when_it_comes() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 1 09:05 close");
    assert_eq!(parts(&mut session), ["c 1 01 09:05 close 0 contained final 08 09:05"]);
    tell(&mut session, "c", "2 10:00 ai, 2 11:00 note");
    assert_eq!(parts(&mut session), ["c 1 01 09:05 close 0 contained final 08 09:05"]);
    let counts = "SELECT message_count, ai_replies, turn_count FROM talkmeter.parts";
    assert_eq!(session.lines(counts), ["2|1|1"], "what comes after the end is no message of the part");
    session.run("SELECT talkmeter.mark('acme', 'c', 'note:verified', '2026-03-04 12:00+00')");
    assert_eq!(parts(&mut session), ["c 1 01 09:05 close 1 verified @ 04 12:00 final 08 09:05"]);
    assert_eq!(ledger(&mut session), ["1 c 1"]);
    is_sound(&mut session);
}

#[test]
fn at_the_instant_at_which_a_part_is_final_it_is_too_late() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    tell(&mut session, "late", "1 09:00 customer, 1 09:05 close, 8 09:05 verified");
    tell(&mut session, "in_time", "1 09:00 customer, 1 09:05 close, 8 09:04:59.999999 verified");
    assert_eq!(
        parts(&mut session),
        [
            "in_time 1 01 09:05 close 1 verified @ 08 09:04 final 08 09:05",
            "late 1 01 09:05 close 0 contained final 08 09:05"
        ]
    );
    is_sound(&mut session);
}

#[test]
fn a_sweep_ends_a_part_once_and_makes_it_final_without_a_word() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai");
    let told = "c 1 02 09:01 idle 0 contained final 09 09:01";
    assert_eq!(parts(&mut session), [told], "time that has passed shows before any sweep");
    let stored = |session: &mut Session| session.line("SELECT count(*) FROM talkmeter.ended_part");
    assert_eq!([sweep(&mut session, "2026-03-02 09:02"), stored(&mut session)], ["1", "0"]);
    assert_eq!(parts(&mut session), [told]);
    assert_eq!([sweep(&mut session, "2026-03-09 09:00:59"), stored(&mut session)], ["0", "0"]);
    assert_eq!([sweep(&mut session, "2026-03-09 09:01"), stored(&mut session)], ["0", "1"]);
    assert_eq!(parts(&mut session), [told]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.conversation WHERE timed"), "0");
    tell(&mut session, "d", "1 09:00 customer, 1 09:01 ai");
    assert_eq!([sweep(&mut session, "2026-03-20 00:00"), stored(&mut session)], ["1", "2"], "both at once");
    is_sound(&mut session);
}

#[test]
fn a_customer_who_comes_back_takes_the_unit_back() {
    let (_database, mut session) = attached(FIN, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai");
    sweep(&mut session, "2026-03-05 00:00");
    assert_eq!(parts(&mut session), ["c 1 02 09:01 idle 1 resolution @ 02 09:01"], "final when another part opens");
    tell(&mut session, "c", "30 09:00 customer");
    sweep(&mut session, "2026-04-05 00:00");
    assert_eq!(parts(&mut session), ["c 1 02 09:01 idle 0 voided final 30 09:00", "c 2 31 09:00 idle 0 unanswered"]);
    assert_eq!(ledger(&mut session), ["1 c 1", "2 c 1 back: 1 voided 30 09:00"]);
    let cause = "SELECT cause_source, cause_message_id FROM talkmeter.charges WHERE reverses IS NOT NULL";
    assert_eq!(session.lines(cause), ["public.m|3"]);
    is_sound(&mut session);
}

#[test]
fn what_one_transaction_charges_and_takes_back_leaves_no_entry() {
    let (_database, mut session) = attached(FIN, PLAN);
    let history = "1 09:00 customer, 1 09:01 ai, 3 09:00 customer, 3 09:01 ai, 3 09:02 close, 4 09:00 customer";
    tell(&mut session, "c", history);
    assert_eq!(ledger(&mut session), NOTHING);
    session.run("BEGIN");
    tell(&mut session, "d", "1 09:00 customer, 1 09:01 ai, 1 09:02 close");
    session.run("SELECT talkmeter.flush()");
    tell(&mut session, "d", "1 09:02 customer");
    session.run("COMMIT");
    assert_eq!(ledger(&mut session), ["1 d 1", "2 d 1 back: 1 voided 01 09:02"], "unless it was written between");
    is_sound(&mut session);
}

/// More events than are held in memory together, so that the charge and what takes it back are found apart.
#[test]
fn a_unit_is_taken_back_whose_conversation_fills_more_than_a_chunk() {
    let (_database, mut session) = attached(FIN, PLAN);
    session.run(
        "INSERT INTO m (conversation_id, at, kind)
         SELECT 'c', timestamptz '2026-03-01 00:00+00' + interval '1 second' * n,
             CASE n % 4 WHEN 0 THEN 'customer' WHEN 1 THEN 'ai' WHEN 2 THEN 'close' ELSE 'note' END
         FROM generate_series(0, 79999) AS n",
    );
    assert_eq!(session.line("SELECT sum(units), count(*) FROM talkmeter.parts"), "1|20000");
    assert_eq!(session.line(USED), "1");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn the_message_that_took_a_unit_back_is_changed_away_and_the_unit_stands_again() {
    let (_database, mut session) = attached(FIN, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai");
    sweep(&mut session, "2026-03-05 00:00");
    tell(&mut session, "c", "6 09:00 customer, 6 09:01 ai");
    sweep(&mut session, "2026-03-08 00:00");
    assert_eq!(
        parts(&mut session),
        ["c 1 02 09:01 idle 0 voided final 06 09:00", "c 2 07 09:01 idle 1 resolution @ 07 09:01"]
    );
    session.run("UPDATE m SET kind = 'note' WHERE id = 3");
    assert_eq!(
        parts(&mut session),
        ["c 1 02 09:01 idle 1 resolution @ 02 09:01"],
        "its end alone does not say that it is over"
    );
    assert_eq!(session.line(USED), "1");
    is_sound(&mut session);
    session.run("UPDATE m SET kind = 'customer' WHERE id = 3");
    assert_eq!(session.line("SELECT sum(units) FROM talkmeter.parts"), "1");
    is_sound(&mut session);
}

#[test]
fn a_late_event_finds_the_part_as_it_was_held_then() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 1 09:02 close");
    sweep(&mut session, "2026-03-20 00:00");
    tell(&mut session, "c", "15 09:00 customer, 15 09:01 ai, 15 09:02 close");
    tell(&mut session, "c", "3 10:00 verified");
    assert_eq!(
        parts(&mut session),
        ["c 1 01 09:02 close 1 verified @ 03 10:00 final 08 09:02", "c 2 15 09:02 close 0 contained final 22 09:02"]
    );
    tell(&mut session, "c", "3 09:00 staff");
    assert_eq!(parts(&mut session)[0], "c 1 01 09:02 close 0 handed_over final 08 09:02", "it came before the verdict");
    tell(&mut session, "c", "9 10:00 verified");
    assert_eq!(parts(&mut session)[0], "c 1 01 09:02 close 0 handed_over final 08 09:02", "it came when all was over");
    is_sound(&mut session);
}

#[test]
fn a_unit_is_taken_back_for_good() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:02 close, 2 10:00 verified, 2 11:00 complaint, 2 12:00 verified");
    assert_eq!(parts(&mut session), ["c 1 01 09:02 close 0 voided final 08 09:02"]);
    tell(&mut session, "open", "1 09:00 customer, 1 10:00 complaint, 1 11:00 verified, 1 12:00 close");
    assert_eq!(
        parts(&mut session)[1],
        "open 1 01 12:00 close 1 verified @ 01 12:00 final 08 12:00",
        "what came before the charge instant takes nothing back"
    );
    is_sound(&mut session);
}

#[test]
fn a_unit_of_a_finalized_period_is_given_back_in_the_open_one() {
    let (_database, mut session) = attached(FIN, None);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "fin", "included": 0, "overage_rate": 0.99, "currency": "USD"}');
           SELECT talkmeter.subscribe('acme', 'fin', '2026-01-01');
           SELECT set_config('talkmeter.clock_offset',
               extract(epoch FROM timestamptz '2026-04-06 12:00+00' - now())::int8 || 's', false)"#,
    );
    tell(&mut session, "c", "2 09:00 customer, 2 09:01 ai");
    sweep(&mut session, "2026-04-01 00:00");
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    tell(&mut session, "c", "37 10:00 customer, 37 10:01 ai");
    let statement = |session: &mut Session, month: &str| {
        session.lines(&format!(
            "SELECT kind, description, quantity, amount FROM talkmeter.statement('acme', '{month}') ORDER BY line"
        ))
    };
    assert_eq!(statement(&mut session, "2026-03"), ["overage|units beyond allowance and packs: resolution|1|0.99"]);
    assert_eq!(statement(&mut session, "2026-04"), ["late|overage: resolution|-1|-0.99"]);
    let listed = "SELECT conversation, units, amount, reason FROM talkmeter.statement_units('acme', '2026-04')";
    assert_eq!(session.lines(listed), ["c|-1|-0.99|voided"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn a_unit_that_waits_for_a_plan_or_a_backfill_is_forgotten_when_it_is_taken_back() {
    let (_database, mut session) = attached(FIN, None);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 1 09:02 close");
    assert_eq!(session.lines("SELECT conversation, outcome FROM talkmeter.unplanned"), ["c|resolution"]);
    tell(&mut session, "c", "2 09:00 customer");
    assert_eq!(session.lines("SELECT * FROM talkmeter.unplanned"), NOTHING);
    session.run("SELECT talkmeter.subscribe('acme', 'agent_red/starter', '2026-01-01')");
    assert_eq!(ledger(&mut session), NOTHING);
    is_sound(&mut session);
}

#[test]
fn once_per_conversation_the_first_unit_that_stands_counts() {
    let once = FIN.replace("\"final_after\"", "\"once_per\": \"conversation\", \"final_after\"");
    let once = once.replace("\"voided_by\": \"customer_message\"", "\"voided_by\": \"note:complaint\"");
    let (_database, mut session) = attached(&once, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 1 09:02 close");
    tell(&mut session, "c", "2 09:00 customer, 2 09:01 ai, 2 09:02 close");
    tell(&mut session, "c", "3 09:00 customer, 3 09:01 ai, 3 09:02 close");
    let told = |session: &mut Session| {
        session.lines("SELECT part, COALESCE(not_billable_because, outcome) FROM talkmeter.parts ORDER BY 1")
    };
    assert_eq!(told(&mut session), ["1|resolution", "2|already_charged", "3|already_charged"]);
    tell(&mut session, "c", "1 10:00 complaint");
    assert_eq!(told(&mut session), ["1|voided", "2|resolution", "3|already_charged"], "the next one has it then");
    is_sound(&mut session);
    session.run("SELECT talkmeter.credit('acme', charge_id, 'so be it') FROM talkmeter.charges WHERE part = 2");
    tell(&mut session, "c", "4 09:00 customer, 4 09:01 ai, 4 09:02 close");
    assert_eq!(told(&mut session)[3], "4|already_charged", "a credit is no second chance");
    is_sound(&mut session);
}

#[test]
fn a_deleted_verdict_seals_what_it_decided() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:02 close, 4 10:00 verified");
    session.run("DELETE FROM m WHERE kind = 'verified'");
    tell(&mut session, "c", "2 10:00 note");
    let told = "c 1 01 09:02 close 1 verified @ 04 10:00 final 08 09:02";
    assert_eq!(parts(&mut session), [told]);
    assert_eq!(session.lines("SELECT message_id, reason FROM talkmeter.quarantine"), ["4|sealed"]);
    let simulated = "SELECT units, unprovable FROM talkmeter.simulate('verified', NULL, '2026-03-01', '2026-04-01')";
    assert_eq!(session.line(simulated), "1|1");
    tell(&mut session, "c", "5 10:00 complaint");
    assert_eq!(parts(&mut session), ["c 1 01 09:02 close 0 voided final 08 09:02"], "what comes after it is metered");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn what_is_held_is_not_archived_and_can_be_forgotten() {
    let (_database, mut session) = attached(FIN, PLAN);
    session.run("ALTER TABLE m ALTER id RESTART WITH 1234567890");
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 1 09:02 close, 1 09:03 note");
    let places = "SELECT count(*) FROM talkmeter.conversation
        WHERE concat_ws(' ', first_event, part_last_event, last_event) ~ '499602d'";
    tell(&mut session, "d", "1 09:00 customer, 1 09:01 ai, 1 09:02 close, 2 09:00 customer, 2 09:02 close");
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    session.run("CALL talkmeter.archive('2026-04-02')");
    let archived = "SELECT conversation, part FROM talkmeter_archive.ended_part";
    assert_eq!(session.lines(archived), ["d|1"]);
    assert_eq!(session.lines("SELECT conversation FROM talkmeter_archive.charge"), NOTHING);
    assert_eq!(session.line(places), "2");
    session.run("DELETE FROM m WHERE conversation_id = 'c'; SELECT talkmeter.forget_conversation('acme', 'c')");
    let forgotten =
        "SELECT part, units, conversation LIKE 'forgotten:%' FROM talkmeter.parts WHERE conversation <> 'd'";
    assert_eq!(session.lines(forgotten), ["1|1|t"]);
    assert_eq!(session.line(places), "1", "only that of the other conversation: no id of a message is left");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    tell(&mut session, "c", "3 09:00 customer");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn an_explanation_tells_what_was_noted_what_took_the_unit_back_and_until_when() {
    let (_database, mut session) = attached(FIN, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 1 09:02 close, 1 10:00 note, 4 09:00 customer");
    let told =
        "SELECT concat_ws(' | ', event, effect, rule) FROM talkmeter.explain('acme', 'c') ORDER BY step OFFSET 2";
    assert_eq!(
        session.lines(told),
        [
            "close | counted in part 1 | close is no activity: the clocks run on",
            "close | part 1 ended: close | ends_on of fin@1 holds close",
            "close | part 1 is billable: resolution | charge_on of fin@1 is close; rule 2 of its outcomes, for all others",
            "note | noted for part 1 | final_after of fin@1 is forever: it is held until another part opens",
            "customer_message | part 1 is not billable: voided | voided_by of rule 2, resolution, of the outcomes of fin@1 \
             holds customer_message",
            "customer_message | part 1 is final | another part opens",
            "customer_message | opened part 2 | starts_on of fin@1 holds customer_message",
            "part 2 ended: idle | idle_timeout of fin@1: 24:00:00 after the last activity",
            "part 2 is not billable: unanswered | rule 1 of its outcomes, when unanswered of fin@1",
            "part 2 is held | final_after of fin@1 is forever: it is held until another part opens",
        ]
    );
}

#[test]
fn a_simulation_knows_what_is_taken_back() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    session.run(&format!("SELECT talkmeter.define_policy({})", quoted(FIN)));
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 10 09:00 customer, 10 09:01 ai");
    tell(&mut session, "d", "1 09:00 customer, 1 09:01 ai");
    let units = |session: &mut Session, policy: &str| {
        session.line(&format!(
            "SELECT units FROM talkmeter.simulate('{policy}', 'agent_red/starter', '2026-03-01', '2026-04-01')"
        ))
    };
    assert_eq!(units(&mut session, "fin"), "2");
    let first_days =
        "SELECT sum(units) FROM talkmeter.simulate('fin', 'agent_red/starter', '2026-03-01', '2026-03-05')";
    assert_eq!(session.line(first_days), "1", "what takes it back may come after the span");
    session.run("SELECT talkmeter.mark('acme', 'd', 'note:verified', '2026-03-09 09:00+00')");
    assert_eq!(units(&mut session, "verified"), "1");
    is_sound(&mut session);
}

#[test]
fn rows_of_old_are_held_as_those_of_now() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    session.run("SELECT talkmeter.detach('m')");
    tell(&mut session, "c", "1 09:00 customer, 1 09:02 close, 4 10:00 verified");
    tell(&mut session, "d", "1 09:00 customer, 1 09:02 close, 2 10:00 verified, 3 10:00 complaint");
    attach(&mut session, "m", "verified", PLAN, MAPPING);
    session.run("CALL talkmeter.backfill('m', '2026-01-01', now())");
    assert_eq!(
        parts(&mut session),
        ["c 1 01 09:02 close 1 verified @ 04 10:00 final 08 09:02", "d 1 01 09:02 close 0 voided final 08 09:02"]
    );
    assert_eq!(ledger(&mut session), ["1 c 1"]);
    is_sound(&mut session);
}

#[test]
fn a_dispute_about_a_unit_that_was_taken_back_can_only_be_rejected() {
    let (_database, mut session) = attached(FIN, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 1 09:02 close");
    session.run("SELECT talkmeter.dispute('acme', 1, 'we were not helped')");
    tell(&mut session, "c", "2 09:00 customer");
    let (message, detail) = error(&mut session, "SELECT talkmeter.resolve_dispute('acme', 1, 'credited', 'sorry')");
    assert_eq!(message, "charge 1 of tenant \"acme\" does not stand");
    assert_eq!(detail, "Charge 2 took it back.");
    session.run("SELECT talkmeter.resolve_dispute('acme', 1, 'rejected', 'taken back already')");
    assert_eq!(session.lines("SELECT state FROM talkmeter.disputes"), ["rejected"]);
    is_sound(&mut session);
}

/// A part of `c` that is held, and another table, of which no policy is known until the 20th.
fn held_with_a_stranger() -> (Database, Session) {
    let (database, mut session) = attached(VERIFIED, PLAN);
    session.run(&format!(
        "CREATE TABLE other (LIKE m INCLUDING ALL);
         SELECT talkmeter.define_policy({})",
        quoted(&FIN.replace("2026-01-01", "2026-03-20"))
    ));
    attach(&mut session, "other", "fin", PLAN, MAPPING);
    tell(&mut session, "c", "1 09:00 customer, 1 09:02 close");
    (database, session)
}

#[test]
fn what_nobody_can_judge_waits_until_its_policy_says_whether_it_opens_a_part() {
    let (_database, mut session) = held_with_a_stranger();
    session.run(
        "INSERT INTO other (conversation_id, at, kind)
         VALUES ('c', '2026-03-02 10:00+00', 'verified'), ('c', '2026-03-02 11:00+00', 'customer')",
    );
    let waiting = "SELECT reason, to_char(occurred_at, 'HH24:MI') FROM talkmeter.quarantine ORDER BY 2";
    assert_eq!(session.lines(waiting), ["unknown_policy|10:00", "unknown_policy|11:00"]);
    tell(&mut session, "c", "3 10:00 verified");
    session.run("DELETE FROM m WHERE kind = 'customer'");
    tell(&mut session, "c", "1 09:01 note");
    assert_eq!(
        session.lines("SELECT reason FROM talkmeter.quarantine ORDER BY 1"),
        ["sealed", "unknown_policy", "unknown_policy"],
        "they stand for no row that is gone"
    );
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn a_policy_that_comes_to_be_known_opens_the_part_that_makes_the_held_one_final() {
    let (_database, mut session) = held_with_a_stranger();
    session.run("INSERT INTO other (conversation_id, at, kind) VALUES ('c', '2026-03-02 10:00+00', 'verified')");
    session.run(&format!(
        "SELECT talkmeter.define_policy({}); SELECT talkmeter.retry_quarantine()",
        quoted(&FIN.replace(r#""starts_on": ["customer_message"]"#, r#""starts_on": ["note"]"#))
    ));
    assert_eq!(
        parts(&mut session),
        ["c 1 01 09:02 close 0 contained final 02 10:00", "c 2 03 10:00 idle 1 resolution @ 03 10:00"]
    );
    is_sound(&mut session);
}

#[test]
fn a_row_whose_events_wait_stands_for_no_row_that_is_gone() {
    let (_database, mut session) = held_with_a_stranger();
    session.run("INSERT INTO other (conversation_id, at, kind) VALUES ('c', '2026-03-02 10:00+00', 'both')");
    tell(&mut session, "c", "1 10:00 note, 3 10:00 verified");
    assert_eq!(parts(&mut session), ["c 1 01 09:02 close 1 verified @ 03 10:00 final 08 09:02"]);
    assert_eq!(session.line("SELECT event_count FROM talkmeter.part"), "4");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), ["unknown_policy"]);
    is_sound(&mut session);
}

#[test]
fn what_was_credited_and_is_then_taken_back_is_no_difference() {
    let (_database, mut session) = attached(FIN, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:01 ai, 1 09:02 close");
    session.run("SELECT talkmeter.credit('acme', 1, 'so be it')");
    is_sound(&mut session);
    tell(&mut session, "c", "2 09:00 customer");
    assert_eq!(ledger(&mut session), ["1 c 1", "2 c 1 back: 1 credit"]);
    is_sound(&mut session);
    session.run("UPDATE m SET kind = 'note' WHERE at >= '2026-03-02'");
    assert_eq!(session.line("SELECT units FROM talkmeter.parts"), "1", "it is billable again, and stays credited");
    assert_eq!(ledger(&mut session), ["1 c 1", "2 c 1 back: 1 credit"]);
    is_sound(&mut session);
}

#[test]
fn the_cause_is_the_event_that_took_the_unit_back_also_when_another_one_came_late() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:02 close, 3 10:00 complaint, 4 10:00 verified");
    assert_eq!(ledger(&mut session), ["1 c 1"], "it was no unit yet when the complaint came");
    tell(&mut session, "c", "2 10:00 verified");
    assert_eq!(ledger(&mut session), ["1 c 1", "2 c 1 back: 1 voided 03 10:00"]);
    let cause = "SELECT cause_source, cause_message_id FROM talkmeter.charges WHERE reverses IS NOT NULL";
    assert_eq!(session.lines(cause), ["public.m|3"]);
    is_sound(&mut session);
}

#[test]
fn what_a_hand_has_changed_of_a_held_part_is_found() {
    let (_database, mut session) = attached(VERIFIED, PLAN);
    tell(&mut session, "c", "1 09:00 customer, 1 09:02 close, 2 10:00 verified");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    for change in [
        "rule = NULL",
        "rule = 1",
        "held_count = -1",
        "held_count = 9",
        "ended_at = NULL",
        "timed = false, due_at = NULL",
        "charged_at = ended_at - interval '1 s'",
    ] {
        session.run(&format!("BEGIN; UPDATE talkmeter.conversation SET {change}"));
        let found = session.lines("SELECT DISTINCT problem FROM talkmeter.verify() WHERE problem LIKE 'part%'");
        assert_eq!(found, ["part_is_impossible"], "{change}");
        session.run("ROLLBACK");
    }
}

#[test]
fn a_definition_that_makes_no_sense_is_refused() {
    let (_database, mut session) = attached(FIN, PLAN);
    for (was, is, message) in [
        ("\"forever\"", "\"for ever\"", "\"final_after\" is no interval: \"for ever\""),
        ("\"forever\"", "\"1 month\"", "\"final_after\" is 1 month, and months have no length of their own"),
        ("\"forever\"", "\"0 days\"", "policy \"fin\" makes no sense: \"final_after\" is not positive"),
        (
            "\"final_after\": \"forever\",",
            "",
            "policy \"fin\" makes no sense: \"voided_by\" is never reached: a part is charged at its end, and final then; \
             say \"final_after\"",
        ),
        (
            "\"units\": 0}",
            "\"units\": 0, \"voided_by\": \"close\"}",
            "rule 1 of \"outcomes\" has \"voided_by\", and units 0",
        ),
        (
            "\"voided_by\": \"customer_message\"",
            "\"voided_by\": \"customer\"",
            "unknown kind \"customer\" in \"voided_by\" of rule 2 of \"outcomes\"",
        ),
        (
            "\"voided_by\": \"customer_message\"",
            "\"voided_by\": []",
            "\"voided_by\" of rule 2 of \"outcomes\" is an empty list",
        ),
        ("\"charge_on\"", "\"once_per\": \"day\", \"charge_on\"", "unknown \"once_per\": \"day\""),
    ] {
        let definition = FIN.replacen(was, is, 1);
        assert_ne!(definition, FIN, "{was}");
        let define = format!("SELECT talkmeter.define_policy({})", quoted(&definition));
        assert_eq!(error(&mut session, &define).0, message);
    }
    let shown =
        "SELECT final_after, once_per FROM talkmeter.policies WHERE name IN ('fin', 'lutingenie') ORDER BY name";
    assert_eq!(session.lines(shown), ["forever|", "|"]);
}
