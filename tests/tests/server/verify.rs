//! Does `verify` name each kind of damage, and nothing in books that are sound (docs/money.md, "Is it sound?")?

use postgres::error::SqlState;
use talkmeter_tests::standby::Standby;
use talkmeter_tests::{Database, Session, attach, create_messages, messages_mapping, tell};

const NONE: [&str; 0] = [];

/// What verify() names: problem, tenant, object.
fn problems(session: &mut Session) -> Vec<String> {
    let mut problems = session.lines("SELECT problem, tenant, object FROM talkmeter.verify()");
    problems.sort_unstable();
    problems
}

// --- Books with everything in them ---

/// Four tenants: `acme` in dollars and UTC, `bravo` in yen and New York, `carl` without a plan, `dana` who has moved.
pub fn books() -> (Database, Session) {
    let database = Database::fresh("verify");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "three", "included": 3, "overage_rate": 0.125, "price": 10, "currency": "USD"}'),
               talkmeter.define_plan('{"name": "dollars", "included": 9, "overage_rate": 0.125, "price": 10, "currency": "USD"}'),
               talkmeter.define_plan('{"name": "none", "included": 0, "overage_rate": 7, "price": 300, "currency": "JPY"}'),
               talkmeter.define_plan('{"name": "some", "included": 2, "overage_rate": 7, "price": 500, "currency": "JPY"}'),
               talkmeter.define_pack('{"name": "pair", "size": 2, "price": 5, "currency": "USD", "valid_for": "90 days"}')"#,
    );
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    february_of_acme(&mut session);
    march_of_acme(&mut session);
    march_of_bravo(&mut session);
    tell(&mut session, "carl", "waits", "10:00 exchange");
    march_of_dana(&mut session);
    assert_has_everything(&mut session);
    (database, session)
}

/// A month that is finalized, with a unit that came late and a credit after that.
fn february_of_acme(session: &mut Session) {
    session.run("SELECT talkmeter.subscribe('acme', 'three', '2026-01-01', anchor_day => 1)");
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-02-01')");
    for (conversation, day) in [("f1", 3), ("f2", 3), ("f3", 4), ("f4", 4), ("f5", 5), ("f6", 5), ("f7", 6)] {
        tell(session, "acme", conversation, &format!("2026-02-0{day} 12:00 exchange, 2026-02-0{day} 12:05 close"));
    }
    session.run("SELECT talkmeter.finalize('acme', '2026-02-01')");
    tell(session, "acme", "f8", "2026-02-07 12:00 exchange");
    session.run("SELECT talkmeter.credit('acme', 7, 'goodwill')");
}

/// A month with alerts, refolds that took charges back, disputes, marks, a pack that was refunded and a flagged day.
fn march_of_acme(session: &mut Session) {
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-01')");
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', 'mistake', '2026-03-01'), talkmeter.refund_pack('acme', 3)");
    for number in 1..=7 {
        tell(session, "acme", &format!("m{number}"), &format!("2026-03-10 1{number}:00 exchange"));
    }
    // One is not billable after all; another has two parts, and the late row makes them one.
    session.run("UPDATE messages SET kind = 'customer_message' WHERE conversation_id = 'm2'");
    tell(session, "acme", "two", "2026-03-11 10:00 exchange, 2026-03-11 10:45 exchange");
    tell(session, "acme", "two", "2026-03-11 10:20 staff_reply");
    tell(session, "acme", "parts", "2026-03-12 10:00 exchange, 2026-03-12 12:00 exchange");
    session.run("SELECT talkmeter.mark('acme', 'parts', 'note', '2026-03-12 12:01+00')");
    session.run(
        "SELECT talkmeter.dispute('acme', 'm1', 1, 'not ours'), talkmeter.dispute('acme', 'm3', 1, 'not ours'),
             talkmeter.dispute('acme', 'm4', 1, 'not ours');
         SELECT talkmeter.resolve_dispute('acme', 2, 'credited'), talkmeter.resolve_dispute('acme', 3, 'rejected')",
    );
    session.run("SELECT talkmeter.report_external('acme', '2026-03-10', 99), talkmeter.reconcile('2026-03-10')");
}

/// A month with an upgrade, units of an evening that is already the next day in UTC, and one after the cancelling.
fn march_of_bravo(session: &mut Session) {
    session.run("SELECT talkmeter.subscribe('bravo', 'none', '2026-01-01', 'America/New_York', 1)");
    tell(session, "bravo", "b1", "2026-03-11 02:00 exchange");
    session.run("SELECT talkmeter.change_plan('bravo', 'some', '2026-03-12')");
    tell(session, "bravo", "b2", "2026-03-13 02:00 exchange");
    session.run("SELECT talkmeter.cancel('bravo', '2026-03-20')");
    tell(session, "bravo", "b3", "2026-03-21 02:00 exchange");
}

/// A month in New York, before the next that is in Tokyo, and a unit that was taken back since.
fn march_of_dana(session: &mut Session) {
    session.run("SELECT talkmeter.subscribe('dana', 'some', '2026-01-01', 'America/New_York', 1)");
    tell(session, "dana", "d1", "2026-03-11 02:00 exchange");
    tell(session, "dana", "d2", "2026-03-11 02:00 exchange");
    session.run("SELECT talkmeter.subscribe('dana', 'some', '2026-03-12', 'Asia/Tokyo', 1)");
    tell(session, "dana", "d3", "2026-03-11 02:00 exchange");
    session.run("UPDATE messages SET kind = 'note' WHERE conversation_id = 'd2'");
}

/// Damage to what is not there would be none.
fn assert_has_everything(session: &mut Session) {
    let charges = session.line(
        "SELECT string_agg(DISTINCT tier, ' '), string_agg(DISTINCT reason, ' '), string_agg(DISTINCT currency, ' '),
             count(*) FILTER (WHERE posted_period_start <> period_start)
         FROM talkmeter.charges",
    );
    assert_eq!(charges, "included overage pack|credit refold|JPY USD|2");
    let disputes = session.line("SELECT string_agg(state, ' ' ORDER BY dispute_id) FROM talkmeter.disputes");
    assert_eq!(disputes, "open credited rejected");
    let alerts = session.line("SELECT string_agg(DISTINCT kind, ' ' ORDER BY kind) FROM talkmeter.alerts");
    assert_eq!(alerts, "allowance_100 allowance_80 pack_low reconcile volume_spike");
    let unplanned = session.lines("SELECT tenant FROM talkmeter.unplanned ORDER BY 1");
    assert_eq!(unplanned, ["bravo", "carl"]);
}

#[test]
fn sound_books_have_no_problem() {
    let (_database, mut session) = books();
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NONE);
}

#[test]
fn a_clock_that_stepped_back_is_no_damage() {
    let (_database, mut session) = books();
    // As if the clock had been ahead by a day when these were recorded.
    session.run(
        "UPDATE talkmeter.subscription SET subscribed_at = subscribed_at + interval '1 day';
         UPDATE talkmeter.charge SET posted_at = posted_at - interval '1 day' WHERE posted_period_start > '2026-02-01'",
    );
    assert_eq!(problems(&mut session), NONE);
}

#[test]
fn an_empty_database_has_no_problem() {
    let database = Database::fresh("verify");
    let mut session = database.connect();
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NONE);
}

// --- Damage ---

/// What was done, how, and all that verify() names of it. One damage may be seen from two sides.
type Damage = (&'static str, &'static str, &'static [&'static str]);

/// Does each damage in a transaction of its own that is rolled back, and shows all that were seen otherwise.
fn assert_named(damages: &[Damage]) {
    let (_database, mut session) = books();
    let mut failures = Vec::new();
    for (name, sql, expected) in damages {
        session.run("BEGIN");
        session.run(sql);
        let found = problems(&mut session);
        session.run("ROLLBACK");
        if found != *expected {
            failures.push(format!("{name}:\n  found    {found:?}\n  expected {expected:?}"));
        }
    }
    assert!(failures.is_empty(), "{} of {} damages:\n{}", failures.len(), damages.len(), failures.join("\n"));
    assert_eq!(problems(&mut session), NONE, "after all was rolled back");
}

#[test]
fn damage_to_charges_is_named() {
    assert_named(&[
        (
            "the last charge is deleted",
            "DELETE FROM talkmeter.charge WHERE tenant = 'bravo' AND charge_id = 2",
            &[
                "charge_ids_have_gaps|bravo|charges",
                "days_differ_from_charges|bravo|day 2026-03-12",
                "part_without_charge|bravo|part 1 of b2",
                "period_differs_from_charges|bravo|period from 2026-03-01 05:00:00+00 to 2026-04-01 04:00:00+00",
            ],
        ),
        (
            "all charges are deleted, and with them all that counts them but the account",
            "DELETE FROM talkmeter.charge WHERE tenant = 'bravo';
             DELETE FROM talkmeter.period WHERE tenant = 'bravo';
             DELETE FROM talkmeter.alert WHERE tenant = 'bravo';
             DELETE FROM talkmeter.conversation WHERE tenant = 'bravo' AND conversation <> 'b3';
             DELETE FROM talkmeter.day_units WHERE tenant = 'bravo'",
            &["charges_are_missing|bravo|charges"],
        ),
        (
            "a charge is numbered anew",
            "UPDATE talkmeter.charge SET charge_id = 99 WHERE tenant = 'bravo' AND charge_id = 2",
            &["charge_ids_have_gaps|bravo|charges"],
        ),
        (
            "a charge costs more",
            "UPDATE talkmeter.charge SET amount = 8 WHERE tenant = 'bravo' AND charge_id = 1;
             UPDATE talkmeter.period SET overage_amount = 8 WHERE tenant = 'bravo'",
            &["amount_is_not_the_rate|bravo|charge 1"],
        ),
        (
            "a charge is in another currency",
            "UPDATE talkmeter.charge SET currency = 'USD' WHERE tenant = 'bravo' AND charge_id = 1",
            &["amount_is_not_the_rate|bravo|charge 1"],
        ),
        (
            "a charge is of a plan that nobody knows",
            "UPDATE talkmeter.charge SET plan = 'unheard of' WHERE tenant = 'bravo' AND charge_id = 1",
            &["charge_of_unknown_plan|bravo|charge 1"],
        ),
        (
            "a plan is gone that a subscription names",
            "UPDATE talkmeter.subscription SET plan = 'unheard of' WHERE tenant = 'bravo' AND subscription_id = 1",
            &["charge_of_other_plan|bravo|charge 1", "plan_is_missing|bravo|subscription 1"],
        ),
        (
            "a charge is of a plan that was not in force yet",
            "UPDATE talkmeter.charge SET plan = 'some' WHERE tenant = 'bravo' AND charge_id = 1",
            &["charge_of_other_plan|bravo|charge 1"],
        ),
        (
            "a charge and its part are of a policy that nobody knows",
            "UPDATE talkmeter.charge SET policy_version = 7 WHERE tenant = 'bravo' AND charge_id = 1;
             UPDATE talkmeter.conversation SET policy_version = 7 WHERE tenant = 'bravo' AND conversation = 'b1'",
            &["charge_of_unknown_policy|bravo|charge 1", "part_of_unknown_policy|bravo|part 1 of b1"],
        ),
        (
            "a charge is of another policy than its part",
            "UPDATE talkmeter.charge SET policy = 'agent_red' WHERE tenant = 'bravo' AND charge_id = 1",
            &["charge_differs_from_part|bravo|charge 1"],
        ),
        (
            "a charge is of another outcome than its part",
            "UPDATE talkmeter.charge SET outcome = 'another' WHERE tenant = 'bravo' AND charge_id = 1",
            &["charge_differs_from_part|bravo|charge 1"],
        ),
        (
            "a charge is of another part",
            "UPDATE talkmeter.charge SET conversation = 'b1' WHERE tenant = 'bravo' AND charge_id = 2",
            &["part_is_charged_twice|bravo|part 1 of b1", "part_without_charge|bravo|part 1 of b2"],
        ),
        (
            "a charge is of an instant outside its period",
            "UPDATE talkmeter.charge SET charged_at = '2026-04-02' WHERE tenant = 'bravo' AND charge_id = 2",
            &[
                "charge_outside_its_period|bravo|charge 2",
                "days_differ_from_charges|bravo|day 2026-03-12",
                "days_differ_from_charges|bravo|day 2026-04-01",
            ],
        ),
        (
            "a charge is of another tier",
            "UPDATE talkmeter.charge SET tier = 'included', amount = 0 WHERE tenant = 'acme' AND charge_id = 16",
            &["period_differs_from_charges|acme|period from 2026-03-01 00:00:00+00 to 2026-04-01 00:00:00+00"],
        ),
        (
            "a charge was paid by another pack",
            "UPDATE talkmeter.charge SET pack_id = 1 WHERE tenant = 'acme' AND charge_id = 13",
            &["pack_differs_from_charges|acme|pack 1", "pack_differs_from_charges|acme|pack 2"],
        ),
        (
            "a charge was paid by a pack that nobody bought",
            "UPDATE talkmeter.charge SET pack_id = 9 WHERE tenant = 'acme' AND pack_id = 2;
             UPDATE talkmeter.pack SET remaining = 2 WHERE tenant = 'acme' AND pack_id = 2",
            &["pack_is_missing|acme|pack 9"],
        ),
        (
            "a charge is on the statement of another period",
            "UPDATE talkmeter.charge SET posted_period_start = '2026-05-01', posted_period_end = '2026-06-01'
             WHERE tenant = 'acme' AND charge_id = 16",
            &["posted_elsewhere|acme|charge 16"],
        ),
        (
            "a late charge is on a statement that is no period's",
            "UPDATE talkmeter.charge SET posted_period_start = posted_period_start + interval '1 day'
             WHERE tenant = 'acme' AND charge_id = 8",
            &["posted_in_no_period|acme|charge 8"],
        ),
        (
            "a late charge is on the statement that was frozen before",
            "UPDATE talkmeter.charge SET posted_period_start = period_start, posted_period_end = period_end
             WHERE tenant = 'acme' AND charge_id = 8",
            &[
                "evidence_differs|acme|period from 2026-02-01 00:00:00+00 to 2026-03-01 00:00:00+00",
                "posted_after_finalization|acme|charge 8",
                "statement_differs_from_ledger|acme|period from 2026-02-01 00:00:00+00 to 2026-03-01 00:00:00+00",
            ],
        ),
    ]);
}

#[test]
fn damage_to_what_was_taken_back_is_named() {
    assert_named(&[
        (
            "a reversal takes back less than it cost",
            "UPDATE talkmeter.charge SET amount = -0.1 WHERE tenant = 'acme' AND charge_id = 20;
             UPDATE talkmeter.period SET overage_amount = 0.525 WHERE tenant = 'acme' AND overage_units = 4",
            &["reversal_is_no_mirror|acme|charge 20"],
        ),
        (
            "a reversal takes back what is not there",
            "UPDATE talkmeter.charge SET reverses = 99 WHERE tenant = 'acme' AND charge_id = 17",
            &["charge_without_part|acme|charge 11", "reversal_is_no_mirror|acme|charge 17"],
        ),
        (
            "a reversal takes back another charge",
            "UPDATE talkmeter.charge SET reverses = 10 WHERE tenant = 'acme' AND charge_id = 17",
            &[
                "charge_without_part|acme|charge 11",
                "part_without_charge|acme|part 1 of m1",
                "reversal_is_no_mirror|acme|charge 17",
            ],
        ),
        (
            "a reversal is a charge",
            "UPDATE talkmeter.charge SET reverses = NULL, reason = NULL WHERE tenant = 'acme' AND charge_id = 17",
            &[
                "charge_is_impossible|acme|charge 17",
                "charge_without_part|acme|charge 11",
                "charge_without_part|acme|charge 17",
                "days_differ_from_charges|acme|day 2026-03-10",
                "more_than_included|acme|period from 2026-03-01 00:00:00+00 to 2026-04-01 00:00:00+00",
                "part_is_charged_twice|acme|part 1 of m2",
                "period_differs_from_charges|acme|period from 2026-03-01 00:00:00+00 to 2026-04-01 00:00:00+00",
            ],
        ),
        (
            "a credit is a reversal like any other",
            "UPDATE talkmeter.charge SET reason = 'refold' WHERE tenant = 'acme' AND charge_id = 23",
            &["dispute_is_wrong|acme|dispute 2", "part_without_charge|acme|part 1 of m3"],
        ),
        (
            "a credited part is charged again",
            "UPDATE talkmeter.charge SET conversation = 'm3' WHERE tenant = 'acme' AND charge_id = 14",
            &["credited_part_is_charged|acme|charge 14", "part_without_charge|acme|part 1 of m5"],
        ),
        (
            "a dispute is about a charge that is not there",
            "UPDATE talkmeter.dispute_filed SET charge_id = 99 WHERE dispute_id = 3",
            &["dispute_is_wrong|acme|dispute 3"],
        ),
        (
            "a dispute is about a reversal",
            "UPDATE talkmeter.dispute_filed SET charge_id = 17 WHERE dispute_id = 3",
            &["dispute_is_wrong|acme|dispute 3"],
        ),
        (
            "a dispute is credited, and its charge is not",
            "UPDATE talkmeter.dispute_filed SET state = 'credited' WHERE dispute_id = 3",
            &["dispute_is_wrong|acme|dispute 3"],
        ),
        (
            "a dispute is open again, and its charge was credited",
            "UPDATE talkmeter.dispute_filed SET state = 'open', resolved_at = NULL WHERE dispute_id = 2",
            &["dispute_is_wrong|acme|dispute 2"],
        ),
        (
            "a dispute is deleted",
            "DELETE FROM talkmeter.dispute_filed WHERE dispute_id = 2",
            &["dispute_ids_have_gaps|acme|disputes"],
        ),
    ]);
}

#[test]
fn damage_to_parts_is_named() {
    assert_named(&[
        (
            "a billed part is deleted",
            "DELETE FROM talkmeter.ended_part WHERE tenant = 'acme' AND conversation = 'm1'",
            &["charge_without_part|acme|charge 10"],
        ),
        (
            "a billed part is not billable",
            "UPDATE talkmeter.ended_part SET charged_at = NULL, not_billable_because = 'excluded'
             WHERE tenant = 'acme' AND conversation = 'm1'",
            &["charge_without_part|acme|charge 10", "part_charged_before_is_wrong|acme|part 1 of m1"],
        ),
        (
            "a part that was not billable is",
            "UPDATE talkmeter.ended_part SET charged_at = started_at, first_ai_reply_at = started_at, ai_replies = 1,
                 not_billable_because = NULL
             WHERE tenant = 'acme' AND conversation = 'm2'",
            &["part_charged_before_is_wrong|acme|part 1 of m2", "part_without_charge|acme|part 1 of m2"],
        ),
        (
            "a part is charged at another instant than its policy says",
            "UPDATE talkmeter.ended_part SET charged_at = charged_at + interval '1 minute'
             WHERE tenant = 'acme' AND conversation = 'm1'",
            &["part_is_impossible|acme|part 1 of m1"],
        ),
        (
            "a part is of the next month",
            "UPDATE talkmeter.ended_part SET charged_at = '2026-04-01', first_ai_reply_at = '2026-04-01'
             WHERE tenant = 'acme' AND conversation = 'm1'",
            &["charge_differs_from_part|acme|charge 10"],
        ),
        (
            "a part has more replies than messages",
            "UPDATE talkmeter.ended_part SET ai_replies = 7 WHERE tenant = 'acme' AND conversation = 'm1'",
            &["part_is_impossible|acme|part 1 of m1"],
        ),
        (
            "a part is billable and is not",
            "UPDATE talkmeter.ended_part SET not_billable_because = 'excluded' WHERE tenant = 'acme' AND conversation = 'm1'",
            &["part_is_impossible|acme|part 1 of m1"],
        ),
        (
            "a conversation has no open part, and knows what that counted",
            "UPDATE talkmeter.conversation SET message_count = 1 WHERE tenant = 'acme' AND conversation = 'm1'",
            &["conversation_is_impossible|acme|conversation m1"],
        ),
        (
            "time will end a part, and nobody knows when",
            "UPDATE talkmeter.conversation SET timed = true, due_at = NULL WHERE tenant = 'carl'",
            &["part_is_impossible|carl|part 1 of waits"],
        ),
        (
            "a part is held whose policy holds none",
            "UPDATE talkmeter.ended_part SET held_count = 1 WHERE tenant = 'acme' AND conversation = 'm1'",
            &["part_is_impossible|acme|part 1 of m1"],
        ),
        (
            "a part is final after its end whose policy says at its end",
            "UPDATE talkmeter.ended_part SET final_at = ended_at WHERE tenant = 'acme' AND conversation = 'm1'",
            &["part_is_impossible|acme|part 1 of m1"],
        ),
        (
            "a part was decided by a rule that its policy does not have",
            "UPDATE talkmeter.ended_part SET rule = 1 WHERE tenant = 'acme' AND conversation = 'm1'",
            &["part_is_impossible|acme|part 1 of m1"],
        ),
        (
            "a part says that one before it is charged",
            "UPDATE talkmeter.ended_part SET charged_before = true WHERE tenant = 'acme' AND conversation = 'm2'",
            &["part_charged_before_is_wrong|acme|part 1 of m2"],
        ),
        (
            "a conversation has forgotten that it is charged",
            "UPDATE talkmeter.conversation SET charged_before = NULL WHERE tenant = 'acme' AND conversation = 'm1'",
            &["part_charged_before_is_wrong|acme|part 1 of m1"],
        ),
        (
            "a conversation has counted fewer than no marks",
            "UPDATE talkmeter.conversation SET last_mark = -1 WHERE tenant = 'acme' AND conversation = 'm1'",
            &["conversation_is_impossible|acme|conversation m1"],
        ),
        (
            "a mark is of no kind",
            "UPDATE talkmeter.marked SET kind = 'sigh' WHERE tenant = 'acme' AND conversation = 'parts'",
            &["mark_is_impossible|acme|mark 1 of parts"],
        ),
        (
            "a charge is for a reason although it takes nothing back",
            "UPDATE talkmeter.charge SET reason = 'credit' WHERE tenant = 'acme' AND conversation = 'm1'",
            &["charge_is_impossible|acme|charge 10"],
        ),
        (
            "a period is finalized by nobody",
            "UPDATE talkmeter.period SET finalized_by = NULL WHERE tenant = 'acme' AND finalized_at IS NOT NULL",
            &[
                "evidence_differs|acme|period from 2026-02-01 00:00:00+00 to 2026-03-01 00:00:00+00",
                "period_is_impossible|acme|period from 2026-02-01 00:00:00+00 to 2026-03-01 00:00:00+00",
            ],
        ),
        (
            "a part that has ended was never judged",
            "UPDATE talkmeter.ended_part SET not_billable_because = NULL WHERE tenant = 'acme' AND conversation = 'm2'",
            &["part_is_not_judged|acme|part 1 of m2"],
        ),
        (
            "a part begins before the one before it has ended",
            "UPDATE talkmeter.ended_part AS p SET last_event = o.last_event
             FROM talkmeter.part AS o
             WHERE p.tenant = 'acme' AND p.conversation = 'parts' AND p.part = 1
                 AND o.tenant = p.tenant AND o.conversation = p.conversation AND o.part = 2",
            &["parts_overlap|acme|part 2 of parts"],
        ),
        (
            "a conversation has forgotten how many parts it had",
            "UPDATE talkmeter.conversation SET highest_part = 1 WHERE tenant = 'acme' AND conversation = 'parts'",
            &["part_number_is_unknown|acme|part 2 of parts"],
        ),
        (
            "a conversation is deleted",
            "DELETE FROM talkmeter.conversation WHERE tenant = 'acme' AND conversation = 'parts'",
            &[
                "mark_number_is_unknown|acme|mark 1 of parts",
                "part_number_is_unknown|acme|part 1 of parts",
                "part_number_is_unknown|acme|part 2 of parts",
            ],
        ),
        (
            "a conversation has forgotten its marks",
            "UPDATE talkmeter.conversation SET last_mark = 0 WHERE tenant = 'acme' AND conversation = 'parts'",
            &["mark_number_is_unknown|acme|mark 1 of parts"],
        ),
        (
            "a unit that waits is deleted",
            "DELETE FROM talkmeter.unplanned_unit WHERE tenant = 'carl'",
            &["part_without_charge|carl|part 1 of waits"],
        ),
        (
            "a unit that waits is of another instant",
            "UPDATE talkmeter.unplanned_unit SET charged_at = charged_at + interval '1 day' WHERE tenant = 'carl'",
            &["waiting_unit_is_wrong|carl|part 1 of waits"],
        ),
        (
            "a unit waits, and is charged",
            "INSERT INTO talkmeter.unplanned_unit (tenant, conversation, part, charged_at, policy, policy_version)
             SELECT tenant, conversation, part, charged_at, policy, policy_version FROM talkmeter.part
             WHERE tenant = 'acme' AND conversation = 'f1'",
            &["waiting_unit_has_a_plan|acme|part 1 of f1", "waiting_unit_is_wrong|acme|part 1 of f1"],
        ),
        (
            "a unit waits, and its part is not there",
            "DELETE FROM talkmeter.conversation WHERE tenant = 'carl'",
            &["waiting_unit_is_wrong|carl|part 1 of waits"],
        ),
    ]);
}

#[test]
fn damage_to_accounts_is_named() {
    assert_named(&[
        (
            "a tenant is to be charged under a number again",
            "UPDATE talkmeter.account SET last_charge_id = last_charge_id - 1 WHERE tenant = 'acme'",
            &["charge_ids_have_gaps|acme|charges"],
        ),
        (
            "a tenant is to buy a pack under a number again",
            "UPDATE talkmeter.account SET last_pack_id = last_pack_id - 1 WHERE tenant = 'acme'",
            &["pack_ids_have_gaps|acme|packs"],
        ),
        (
            "a number of a subscription is left out",
            "UPDATE talkmeter.account SET last_subscription_id = 9 WHERE tenant = 'acme'",
            &["subscription_ids_have_gaps|acme|subscriptions"],
        ),
        (
            "a tenant is to dispute under a number again",
            "UPDATE talkmeter.dispute_count SET last_dispute_id = 0 WHERE tenant = 'acme'",
            &["dispute_ids_have_gaps|acme|disputes"],
        ),
        (
            "disputes are counted that nobody filed",
            "INSERT INTO talkmeter.dispute_count VALUES ('bravo', 1)",
            &["disputes_are_missing|bravo|disputes"],
        ),
        (
            "the first day is another one",
            "UPDATE talkmeter.account SET first_day = '2026-01-01' WHERE tenant = 'acme'",
            &["first_day_differs_from_charges|acme|first_day"],
        ),
        (
            "an account is deleted",
            "DELETE FROM talkmeter.account WHERE tenant = 'bravo'",
            &["charge_ids_have_gaps|bravo|charges", "subscription_ids_have_gaps|bravo|subscriptions"],
        ),
        (
            "an account and its subscriptions are deleted",
            "DELETE FROM talkmeter.account WHERE tenant = 'dana'; DELETE FROM talkmeter.subscription WHERE tenant = 'dana'",
            &[
                "charge_ids_have_gaps|dana|charges",
                "charge_of_other_plan|dana|charge 1",
                "charge_of_other_plan|dana|charge 2",
                "charge_of_other_plan|dana|charge 3",
            ],
        ),
        (
            "the subscription is deleted under which an early charge was posted",
            "DELETE FROM talkmeter.subscription WHERE tenant = 'bravo' AND subscription_id = 1",
            &["charge_of_other_plan|bravo|charge 1", "subscription_ids_have_gaps|bravo|subscriptions"],
        ),
        (
            "a subscription is to another plan",
            "UPDATE talkmeter.subscription SET plan = 'none' WHERE tenant = 'bravo' AND subscription_id = 2",
            &["charge_of_other_plan|bravo|charge 2"],
        ),
        (
            "a subscription begins later",
            "UPDATE talkmeter.subscription SET since = '2026-03-14' WHERE tenant = 'bravo' AND subscription_id = 2",
            &["charge_of_other_plan|bravo|charge 2"],
        ),
        (
            "a cancelling is deleted",
            "DELETE FROM talkmeter.subscription WHERE tenant = 'bravo' AND subscription_id = 3;
             UPDATE talkmeter.account SET last_subscription_id = 2 WHERE tenant = 'bravo'",
            &["waiting_unit_has_a_plan|bravo|part 1 of b3"],
        ),
    ]);
}

#[test]
fn damage_to_packs_periods_and_days_is_named() {
    assert_named(&[
        (
            "a pack has units left again",
            "UPDATE talkmeter.pack SET remaining = 1 WHERE tenant = 'acme' AND pack_id = 2",
            &["pack_differs_from_charges|acme|pack 2"],
        ),
        (
            "a pack is bigger",
            "UPDATE talkmeter.pack SET size = 3, remaining = 1 WHERE tenant = 'acme' AND pack_id = 2",
            &["pack_differs_from_offer|acme|pack 2"],
        ),
        (
            "a pack is cheaper",
            "UPDATE talkmeter.pack SET price = 4 WHERE tenant = 'acme' AND pack_id = 2",
            &["pack_differs_from_offer|acme|pack 2"],
        ),
        (
            "a pack lasts longer",
            "UPDATE talkmeter.pack SET expires_at = expires_at + interval '1 day' WHERE tenant = 'acme' AND pack_id = 2",
            &["pack_differs_from_offer|acme|pack 2"],
        ),
        (
            "a pack was bought after it had paid",
            "UPDATE talkmeter.pack SET purchased_at = '2026-03-20', expires_at = '2026-06-18', billed_at = '2026-03-20'
             WHERE tenant = 'acme' AND pack_id = 2",
            &["pack_differs_from_charges|acme|pack 2"],
        ),
        (
            "a pack that paid is refunded",
            "UPDATE talkmeter.pack SET refunded_at = now() WHERE tenant = 'acme' AND pack_id = 2",
            &["pack_differs_from_charges|acme|pack 2"],
        ),
        (
            "a pack is on the statement of another month",
            "UPDATE talkmeter.pack SET billed_at = '2026-06-01' WHERE tenant = 'acme' AND pack_id = 2",
            &["pack_is_billed_elsewhere|acme|pack 2"],
        ),
        (
            "a pack that was never drawn is deleted",
            "DELETE FROM talkmeter.pack WHERE tenant = 'acme' AND pack_id = 3",
            &["pack_ids_have_gaps|acme|packs"],
        ),
        (
            "a period has used less",
            "UPDATE talkmeter.period SET included_used = included_used - 1 WHERE tenant = 'bravo'",
            &["period_differs_from_charges|bravo|period from 2026-03-01 05:00:00+00 to 2026-04-01 04:00:00+00"],
        ),
        (
            "the overage of a period costs less",
            "UPDATE talkmeter.period SET overage_amount = 6 WHERE tenant = 'bravo'",
            &["period_differs_from_charges|bravo|period from 2026-03-01 05:00:00+00 to 2026-04-01 04:00:00+00"],
        ),
        (
            "a period is deleted",
            "DELETE FROM talkmeter.period WHERE tenant = 'bravo'",
            &[
                "alert_of_nothing|bravo|alert allowance_100 of the period from 2026-03-01 05:00:00+00",
                "alert_of_nothing|bravo|alert allowance_80 of the period from 2026-03-01 05:00:00+00",
                "period_differs_from_charges|bravo|period from 2026-03-01 05:00:00+00 to 2026-04-01 04:00:00+00",
            ],
        ),
        (
            "a plan includes less than was given",
            "UPDATE talkmeter.plan SET included = 2 WHERE name = 'three'",
            &["more_than_included|acme|period from 2026-02-01 00:00:00+00 to 2026-03-01 00:00:00+00"],
        ),
        (
            "a period begins within another",
            "INSERT INTO talkmeter.period (tenant, period_start, period_end, included_used, pack_used, overage_units,
                 overage_amount)
             VALUES ('acme', '2026-03-15', '2026-04-15', 0, 0, 0, 0)",
            &["periods_overlap|acme|period from 2026-03-01 00:00:00+00 to 2026-04-01 00:00:00+00"],
        ),
        (
            "units are moved to another day",
            "UPDATE talkmeter.day_units SET units = units - 1 WHERE tenant = 'acme' AND day = '2026-03-10';
             UPDATE talkmeter.day_units SET units = units + 1 WHERE tenant = 'acme' AND day = '2026-03-11'",
            &["days_differ_from_charges|acme|day 2026-03-10", "days_differ_from_charges|acme|day 2026-03-11"],
        ),
        (
            "units of an evening in New York are those of a day in UTC",
            "UPDATE talkmeter.day_units SET day = '2026-03-11' WHERE tenant = 'bravo' AND day = '2026-03-10'",
            &["days_differ_from_charges|bravo|day 2026-03-10", "days_differ_from_charges|bravo|day 2026-03-11"],
        ),
        (
            "a day has units, and no charge",
            "INSERT INTO talkmeter.day_units (tenant, day, units) VALUES ('carl', '2026-03-01', 1)",
            &["days_differ_from_charges|carl|day 2026-03-01"],
        ),
    ]);
}

#[test]
fn damage_to_what_people_were_told_is_named() {
    const EVIDENCE: &str = "evidence_differs|acme|period from 2026-02-01 00:00:00+00 to 2026-03-01 00:00:00+00";
    const FEBRUARY: &str =
        "statement_differs_from_ledger|acme|period from 2026-02-01 00:00:00+00 to 2026-03-01 00:00:00+00";
    assert_named(&[
        (
            "an alert is deleted",
            "DELETE FROM talkmeter.alert WHERE tenant = 'bravo' AND kind = 'allowance_80'",
            &["alerts_differ_from_period|bravo|period from 2026-03-01 05:00:00+00 to 2026-04-01 04:00:00+00"],
        ),
        (
            "a period has forgotten its alerts",
            "UPDATE talkmeter.period SET alerted = '{}' WHERE tenant = 'bravo'",
            &["alerts_differ_from_period|bravo|period from 2026-03-01 05:00:00+00 to 2026-04-01 04:00:00+00"],
        ),
        (
            "an alert is of a period that does not exist",
            "INSERT INTO talkmeter.alert (tenant, period_start, period_end, kind, detail)
             VALUES ('bravo', '2026-07-01', '2026-08-01', 'allowance_80', '')",
            &["alert_of_nothing|bravo|alert allowance_80 of the period from 2026-07-01 00:00:00+00"],
        ),
        (
            "an alert is of a day that was never reconciled",
            "UPDATE talkmeter.alert SET day = '2026-03-11' WHERE kind = 'reconcile'",
            &[
                "alert_of_nothing|acme|alert reconcile of the period from 2026-03-01 00:00:00+00",
                "reconciliation_is_wrong|acme|day 2026-03-10",
            ],
        ),
        (
            "a day is not flagged any more",
            "UPDATE talkmeter.reconciliation SET flagged = false WHERE tenant = 'acme' AND day = '2026-03-10'",
            &["reconciliation_is_wrong|acme|day 2026-03-10"],
        ),
        (
            "a day is flagged, and its counts agree",
            "UPDATE talkmeter.reconciliation SET external = NULL WHERE tenant = 'acme' AND day = '2026-03-10'",
            &["reconciliation_is_wrong|acme|day 2026-03-10"],
        ),
        (
            "a line of a frozen statement costs less",
            "UPDATE talkmeter.statement_line SET amount = 0.2 WHERE kind = 'overage'",
            &[EVIDENCE, FEBRUARY, "statement_line_is_wrong|acme|line 4 of the period from 2026-02-01 00:00:00+00"],
        ),
        (
            "a line of a frozen statement has more units, at their price",
            "UPDATE talkmeter.statement_line SET quantity = 4, amount = 0.5 WHERE kind = 'overage'",
            &[EVIDENCE, FEBRUARY],
        ),
        (
            "a line of a frozen statement is deleted",
            "DELETE FROM talkmeter.statement_line WHERE kind = 'overage'",
            &[EVIDENCE, FEBRUARY],
        ),
        (
            "a line is added to a frozen statement",
            "INSERT INTO talkmeter.statement_line (tenant, period_start, period_end, line, kind, description, quantity,
                 unit_price, amount, currency)
             VALUES ('acme', '2026-02-01', '2026-03-01', 9, 'credit', 'included', -1, 1, -1, 'USD')",
            &[EVIDENCE, FEBRUARY],
        ),
        (
            "the base price of a frozen statement is lower",
            "UPDATE talkmeter.statement_line SET unit_price = 8, amount = 8 WHERE kind = 'base'",
            &[EVIDENCE, FEBRUARY, "statement_line_is_wrong|acme|line 1 of the period from 2026-02-01 00:00:00+00"],
        ),
        (
            "the base price of a frozen statement is that of another plan",
            "UPDATE talkmeter.statement_line SET description = 'dollars' WHERE kind = 'base'",
            &[EVIDENCE, FEBRUARY],
        ),
        (
            "the base price of a frozen statement is gone",
            "DELETE FROM talkmeter.statement_line WHERE kind = 'base'",
            &[EVIDENCE, FEBRUARY],
        ),
        (
            "a price of a frozen statement is lower, and a later subscription was backdated",
            "SELECT talkmeter.subscribe('acme', 'dollars', '2026-02-20', anchor_day => 1);
             UPDATE talkmeter.statement_line SET unit_price = 8, amount = 8 WHERE kind = 'base'",
            &[EVIDENCE, "statement_line_is_wrong|acme|line 1 of the period from 2026-02-01 00:00:00+00"],
        ),
        (
            "a statement is frozen, and its period is not",
            "UPDATE talkmeter.period SET finalized_at = NULL, finalized_by = NULL, finalization = NULL, last_charge_id = NULL,
                 last_subscription_id = NULL, last_pack_id = NULL, digest = NULL",
            &[
                "finalizations_are_missing|acme|finalizations",
                "posted_elsewhere|acme|charge 8",
                "posted_elsewhere|acme|charge 9",
                "statement_line_is_wrong|acme|line 1 of the period from 2026-02-01 00:00:00+00",
                "statement_line_is_wrong|acme|line 2 of the period from 2026-02-01 00:00:00+00",
                "statement_line_is_wrong|acme|line 3 of the period from 2026-02-01 00:00:00+00",
                "statement_line_is_wrong|acme|line 4 of the period from 2026-02-01 00:00:00+00",
            ],
        ),
        (
            "a period was finalized before it was over",
            "INSERT INTO talkmeter.period (tenant, period_start, period_end, included_used, pack_used, overage_units,
                 overage_amount, finalized_at, finalized_by, finalization, last_charge_id, last_subscription_id,
                 last_pack_id, digest)
             VALUES ('acme', '2026-05-01', '2026-06-01', 0, 0, 0, 0, '2026-05-20', 'nobody', 2, 0, 0, 0, '')",
            &[
                "evidence_differs|acme|period from 2026-05-01 00:00:00+00 to 2026-06-01 00:00:00+00",
                "finalization_ids_have_gaps|acme|finalizations",
                "finalized_before_its_end|acme|period from 2026-05-01 00:00:00+00 to 2026-06-01 00:00:00+00",
            ],
        ),
    ]);
}

#[test]
fn each_problem_says_what_is_wrong_with_what() {
    let (_database, mut session) = books();
    session.run("BEGIN; UPDATE talkmeter.charge SET amount = 8 WHERE tenant = 'bravo' AND charge_id = 1");
    session.run("UPDATE talkmeter.day_units SET units = 3 WHERE tenant = 'bravo' AND day = '2026-03-10'");
    session.run("DELETE FROM talkmeter.ended_part WHERE tenant = 'acme' AND conversation = 'm1'");
    let mut details =
        session.lines("SELECT object, detail FROM talkmeter.verify() WHERE problem <> 'period_differs_from_charges'");
    details.sort_unstable();
    assert_eq!(
        details,
        [
            "charge 10|Part 1 of m1 is not there, or is not billable.",
            "charge 1|It costs 8 JPY; the rate of plan none is 7 JPY.",
            "day 2026-03-10|It counts 3 units, the charges are 1.",
        ]
    );
}

// --- Where it runs ---

#[test]
fn a_read_only_transaction_may_verify() {
    let (_database, mut session) = books();
    session.run("BEGIN READ ONLY; SELECT * FROM talkmeter.verify(); COMMIT");
}

#[test]
fn whoever_may_call_it_sees_problems_without_a_right_to_the_tables() {
    let (database, mut session) = books();
    let auditor = database.role("auditor");
    session.run(&format!("GRANT USAGE ON SCHEMA talkmeter TO {auditor}"));
    let mut own = database.connect_as(&auditor);
    assert_eq!(own.refused("SELECT * FROM talkmeter.verify()"), SqlState::INSUFFICIENT_PRIVILEGE);
    session.run(&format!("GRANT EXECUTE ON FUNCTION talkmeter.verify() TO {auditor}"));
    session.run("UPDATE talkmeter.account SET first_day = NULL WHERE tenant = 'acme'");
    assert_eq!(problems(&mut own), ["first_day_differs_from_charges|acme|first_day"]);
}

#[test]
fn a_hot_standby_verifies_what_its_primary_has_written() {
    let (database, mut session) = books();
    let standby = Standby::of_now();
    let mut reader = standby.connect(&database);
    assert_eq!(reader.line("SELECT pg_is_in_recovery()"), "t");
    assert_eq!(problems(&mut reader), NONE);
    session.run("UPDATE talkmeter.pack SET remaining = 1 WHERE tenant = 'acme' AND pack_id = 2");
    Standby::wait_for(&mut session, &mut reader);
    assert_eq!(problems(&mut reader), ["pack_differs_from_charges|acme|pack 2"]);
}
