//! What if a charge is taken back by hand, or disputed (rule 4.6)?

use postgres::error::SqlState;
use std::thread;
use talkmeter_tests::{
    Database, Session, assert_sound, attach, create_messages, messages_mapping, standing_charges, tell,
};

const NOT_NOW: SqlState = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;
const UNKNOWN: SqlState = SqlState::UNDEFINED_OBJECT;
const NONE: [&str; 0] = [];

/// A database with a plan that includes one unit, a pack of one, and `acme` on that plan in UTC.
fn metered(policy: &str) -> (Database, Session) {
    let database = Database::fresh("disputes");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "one", "included": 1, "overage_rate": 0.125, "price": 10,
                   "currency": "EUR"}'),
               talkmeter.define_pack('{"name": "single", "size": 1, "price": 1, "currency": "EUR",
                   "valid_for": "90 days"}')"#,
    );
    attach(&mut session, "messages", policy, None, &messages_mapping());
    subscribe(&mut session, "acme", "UTC");
    (database, session)
}

fn subscribe(session: &mut Session, tenant: &str, zone: &str) {
    session.run(&format!("SELECT talkmeter.subscribe('{tenant}', 'one', '2025-01-01', '{zone}', 1)"));
}

/// The same with two packs and four charges: one is included, two are paid by a pack each, one is overage.
fn four_charges() -> (Database, Session) {
    let (database, mut session) = metered("lutingenie");
    session.run(
        "SELECT talkmeter.buy_pack('acme', 'single', purchased_at => '2026-02-01'),
             talkmeter.buy_pack('acme', 'single', purchased_at => '2026-02-02')",
    );
    for conversation in ["a", "b", "c", "d"] {
        tell(&mut session, "acme", conversation, "10:00 customer_message, 10:01 ai_reply");
    }
    let paid = ledger(&mut session, "charge_id, conversation, tier, pack_id");
    assert_eq!(paid, ["1|a|included|", "2|b|pack|1", "3|c|pack|2", "4|d|overage|"]);
    (database, session)
}

fn ledger(session: &mut Session, columns: &str) -> Vec<String> {
    session.lines(&format!("SELECT {columns} FROM talkmeter.charges WHERE tenant = 'acme' ORDER BY charge_id"))
}

fn credit(session: &mut Session, charge_id: u32) -> String {
    session.line(&format!("SELECT talkmeter.credit('acme', {charge_id}, 'sorry')"))
}

fn dispute(session: &mut Session, charge_id: u32) -> String {
    session.line(&format!("SELECT talkmeter.dispute('acme', {charge_id}, 'not ours')"))
}

fn resolve(session: &mut Session, dispute_id: u32, resolution: &str) {
    session.run(&format!("SELECT talkmeter.resolve_dispute('acme', {dispute_id}, '{resolution}', 'we looked')"));
}

/// What the only period has used: included, pack and overage units, and what these cost.
fn used(session: &mut Session) -> String {
    session.line("SELECT included_used, pack_used, overage_units, overage_amount FROM talkmeter.period")
}

// --- Credit ---

#[test]
fn a_credit_gives_the_unit_back_to_the_tier_and_the_pack_that_it_came_from() {
    for (charge, taken_back, left, packs) in [
        (1, "5|a|included||0|1|credit", "0|2|1|0.125", ["0", "0"]),
        (2, "5|b|pack|1|0|2|credit", "1|1|1|0.125", ["1", "0"]),
        (3, "5|c|pack|2|0|3|credit", "1|1|1|0.125", ["0", "1"]),
        (4, "5|d|overage||-0.125|4|credit", "1|2|0|0.000", ["0", "0"]),
    ] {
        let (_database, mut session) = four_charges();
        assert_eq!(credit(&mut session, charge), "5");
        let posted = ledger(&mut session, "charge_id, conversation, tier, pack_id, amount, reverses, reason");
        assert_eq!(posted[4..], [taken_back]);
        assert_eq!(used(&mut session), left);
        assert_eq!(session.lines("SELECT remaining FROM talkmeter.packs ORDER BY pack_id"), packs);
        assert_sound(&mut session);
    }
}

#[test]
fn the_next_unit_takes_what_a_credit_gave_back_and_no_other_charge_moves() {
    for (charge, paid) in [(1, "included|"), (2, "pack|1"), (3, "pack|2"), (4, "overage|")] {
        let (_database, mut session) = four_charges();
        credit(&mut session, charge);
        tell(&mut session, "acme", "e", "11:00 exchange");
        assert_eq!(ledger(&mut session, "tier, pack_id")[5..], [paid]);
    }
}

#[test]
fn a_unit_goes_back_to_its_pack_also_when_that_has_expired_and_pays_nothing_there() {
    let (_database, mut session) = four_charges();
    credit(&mut session, 2);
    tell(&mut session, "acme", "included", "2026-06-01 10:00 exchange");
    tell(&mut session, "acme", "e", "2026-06-01 10:00 exchange");
    assert_eq!(ledger(&mut session, "conversation, tier")[5..], ["included|included", "e|overage"]);
    assert_eq!(session.lines("SELECT pack_id, expired_unused FROM talkmeter.expired_packs"), ["1|1"]);
    assert_sound(&mut session);
}

#[test]
fn units_taken_back_in_any_order_each_go_back_to_where_they_came_from() {
    for order in [[1, 2, 3, 4], [4, 3, 2, 1], [3, 1, 4, 2]] {
        let (_database, mut session) = four_charges();
        for charge in order {
            credit(&mut session, charge);
        }
        let taken_back = "SELECT c.charge_id
             FROM talkmeter.charges AS r
             JOIN talkmeter.charges AS c ON c.charge_id = r.reverses
             WHERE (c.tier, c.pack_id, c.amount) IS NOT DISTINCT FROM (r.tier, r.pack_id, -r.amount)
             ORDER BY r.charge_id";
        assert_eq!(session.lines(taken_back), order.map(|charge| charge.to_string()));
        assert_eq!(used(&mut session), "0|0|0|0.000");
        assert_eq!(session.lines("SELECT remaining FROM talkmeter.packs"), ["1", "1"]);
        assert_sound(&mut session);
    }
}

#[test]
fn units_that_one_statement_makes_unbillable_each_go_back_to_where_they_came_from() {
    let (_database, mut session) = four_charges();
    session.run("UPDATE messages SET kind = 'note' WHERE kind = 'ai_reply'");
    let reversed = ledger(&mut session, "charge_id, reverses, tier, pack_id, amount");
    let wanted = ["5|1|included||0", "6|2|pack|1|0", "7|3|pack|2|0", "8|4|overage||-0.125"];
    assert_eq!(reversed[4..], wanted);
    assert_eq!(used(&mut session), "0|0|0|0.000");
    assert_sound(&mut session);
}

#[test]
fn a_credit_mirrors_its_charge() {
    let (_database, mut session) = four_charges();
    credit(&mut session, 4);
    let same =
        "conversation, part, charged_at, period_start, posted_period_start, tier, pack_id, currency, plan, policy,
        policy_version";
    let all = ledger(&mut session, same);
    assert_eq!(all[4], all[3]);
}

#[test]
fn who_credited_and_why_is_recorded() {
    let (database, mut session) = four_charges();
    let clerk = database.role("clerk");
    session.run(&format!(
        "GRANT USAGE ON SCHEMA talkmeter TO {clerk};
         GRANT EXECUTE ON FUNCTION talkmeter.credit(text, bigint, text), talkmeter.dispute(text, bigint, text),
             talkmeter.resolve_dispute(text, bigint, text, text) TO {clerk}"
    ));
    let mut own = database.connect_as(&clerk);
    own.run("SELECT talkmeter.credit('acme', 1, 'test of ours')");
    own.run("SELECT talkmeter.dispute('acme', 2, 'not ours')");
    own.run("SELECT talkmeter.resolve_dispute('acme', 1, 'credited', 'looked')");
    let said = ledger(&mut session, "posted_by, note, reason");
    assert_eq!(said[3..], ["||".to_owned(), format!("{clerk}|test of ours|credit"), format!("{clerk}|looked|credit")]);
    let resolved = session.line("SELECT filed_by, reason, state, resolved_by, note FROM talkmeter.disputes");
    assert_eq!(resolved, format!("{clerk}|not ours|credited|{clerk}|looked"));
}

#[test]
fn a_charge_is_taken_back_once() {
    let (_database, mut session) = four_charges();
    credit(&mut session, 1);
    let again = "SELECT talkmeter.credit('acme', 1, 'sorry')";
    assert_eq!(session.refused(again), NOT_NOW);
    // Nor is a credit itself credited.
    assert_eq!(session.refused("SELECT talkmeter.credit('acme', 5, 'sorry')"), NOT_NOW);
    // Nor what a late row took back.
    session.run("UPDATE messages SET kind = 'note' WHERE conversation_id = 'b' AND kind = 'ai_reply'");
    assert_eq!(ledger(&mut session, "reverses, reason")[5..], ["2|refold"]);
    assert_eq!(session.refused("SELECT talkmeter.credit('acme', 2, 'sorry')"), NOT_NOW);
    assert_sound(&mut session);
}

#[test]
fn two_who_credit_one_charge_at_once_take_it_back_once() {
    let (database, mut session) = four_charges();
    let mut other = database.connect();
    let pid = other.pid();
    session.run("BEGIN");
    credit(&mut session, 1);
    let second = thread::spawn(move || other.refused("SELECT talkmeter.credit('acme', 1, 'sorry')"));
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    assert_eq!(second.join().expect("an answer"), NOT_NOW);
    assert_eq!(ledger(&mut session, "reverses")[4..], ["1"]);
}

#[test]
fn a_credit_is_rolled_back_with_its_transaction() {
    let (_database, mut session) = four_charges();
    session.run("BEGIN; SELECT talkmeter.credit('acme', 2, 'sorry'); ROLLBACK");
    assert_eq!(ledger(&mut session, "charge_id").len(), 4);
    assert_eq!(session.lines("SELECT remaining FROM talkmeter.packs"), ["0", "0"]);
    assert_sound(&mut session);
}

// --- A credited part is never charged again ---

/// Charges `a` of the conversation that this story tells, and credits it.
fn credited(policy: &str, story: &str) -> (Database, Session) {
    let (database, mut session) = metered(policy);
    tell(&mut session, "acme", "a", story);
    session.sweep("now");
    assert_eq!(ledger(&mut session, "conversation"), ["a"]);
    credit(&mut session, 1);
    (database, session)
}

/// Nothing of it is charged, and everything agrees.
fn assert_never_charged_again(session: &mut Session) {
    session.sweep("now");
    assert_eq!(ledger(session, "charge_id, reverses"), ["1|", "2|1"]);
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.unplanned"), NONE);
    assert_sound(session);
}

const EXCHANGE: &str = "00:10 customer_message, 00:11 ai_reply";

#[test]
fn a_credited_part_is_not_charged_again_when_a_late_row_extends_it() {
    let (_database, mut session) = credited("lutingenie", EXCHANGE);
    tell(&mut session, "acme", "a", "00:05 customer_message, 00:30 ai_reply");
    assert_never_charged_again(&mut session);
}

#[test]
fn a_credited_part_is_not_charged_again_when_its_instant_moves_to_another_period() {
    let (_database, mut session) = credited("lutingenie", EXCHANGE);
    tell(&mut session, "acme", "a", "2026-02-28 23:58 customer_message, 2026-02-28 23:59 ai_reply");
    let parts = session.lines("SELECT part, billable, charged_at FROM talkmeter.parts");
    assert_eq!(parts, ["1|t|2026-02-28 23:59:00+00"]);
    assert_never_charged_again(&mut session);
}

#[test]
fn a_credited_part_is_not_charged_again_when_it_was_unbillable_in_between() {
    let (_database, mut session) = credited("lutingenie", EXCHANGE);
    session.run("UPDATE messages SET kind = 'note' WHERE kind = 'ai_reply'");
    assert_eq!(session.lines("SELECT billable FROM talkmeter.parts"), ["f"]);
    session.run("UPDATE messages SET kind = 'ai_reply' WHERE kind = 'note'");
    assert_eq!(session.lines("SELECT billable FROM talkmeter.parts"), ["t"]);
    assert_never_charged_again(&mut session);
}

#[test]
fn a_credited_part_is_not_charged_again_when_the_time_of_all_its_rows_is_corrected() {
    let (_database, mut session) = credited("lutingenie", EXCHANGE);
    session.run("UPDATE messages SET created_at = created_at + interval '5 minutes'");
    assert_never_charged_again(&mut session);
}

#[test]
fn a_credited_part_is_not_charged_again_when_it_is_closed_again() {
    let (_database, mut session) = credited("ai_resolution", "10:00 customer_message, 10:01 ai_reply, 10:05 close");
    // Its close is taken back, it goes on, and is closed again.
    session.run("UPDATE messages SET kind = 'note' WHERE kind = 'close'");
    tell(&mut session, "acme", "a", "10:10 customer_message, 10:11 ai_reply");
    tell(&mut session, "acme", "a", "10:20 close");
    let parts = session.lines("SELECT part, billable, ended_at FROM talkmeter.parts");
    assert_eq!(parts, ["1|t|2026-03-01 10:20:00+00"]);
    assert_never_charged_again(&mut session);
}

#[test]
fn a_credited_part_is_not_charged_again_when_time_ends_it_later() {
    let (_database, mut session) = credited("ai_resolution", "10:00 customer_message, 10:01 ai_reply");
    tell(&mut session, "acme", "a", "12:00 customer_message, 12:01 ai_reply");
    let parts = session.lines("SELECT part, billable, ended_at FROM talkmeter.parts");
    assert_eq!(parts, ["1|t|2026-03-01 15:01:00+00"]);
    assert_never_charged_again(&mut session);
}

#[test]
fn a_credited_part_does_not_wait_for_a_plan() {
    let (_database, mut session) = credited("lutingenie", EXCHANGE);
    session.run("SELECT talkmeter.cancel('acme', '2025-06-01')");
    tell(&mut session, "acme", "a", "2026-02-28 23:58 customer_message, 2026-02-28 23:59 ai_reply");
    session.run("SELECT talkmeter.subscribe('acme', 'one', '2025-06-01', anchor_day => 1)");
    assert_never_charged_again(&mut session);
}

#[test]
fn the_next_part_of_the_conversation_is_charged() {
    let (_database, mut session) = credited("lutingenie", EXCHANGE);
    tell(&mut session, "acme", "a", "10:00 exchange");
    assert_eq!(standing_charges(&mut session, "conversation, part"), ["a|2"]);
    assert_sound(&mut session);
}

#[test]
fn a_credited_part_that_a_late_row_bridges_to_a_charged_one_leaves_that_charge() {
    let (_database, mut session) = credited("lutingenie", EXCHANGE);
    tell(&mut session, "acme", "a", "01:00 exchange");
    tell(&mut session, "acme", "a", "00:35 customer_message");
    assert_eq!(session.lines("SELECT part, message_count FROM talkmeter.parts"), ["2|5"]);
    assert_eq!(ledger(&mut session, "part, reverses"), ["1|", "1|1", "2|"]);
    assert_sound(&mut session);
}

// --- Disputes ---

#[test]
fn a_dispute_is_filed_by_charge_or_by_part() {
    let (_database, mut session) = four_charges();
    assert_eq!(dispute(&mut session, 4), "1");
    assert_eq!(session.line("SELECT talkmeter.dispute('acme', 'a', 1, 'a test')"), "2");
    let filed = "SELECT dispute_id, charge_id, conversation, part, reason, state, overdue, resolved_at, note
        FROM talkmeter.disputes ORDER BY 1";
    assert_eq!(session.lines(filed), ["1|4|d|1|not ours|open|f||", "2|1|a|1|a test|open|f||"]);
    assert_sound(&mut session);
}

#[test]
fn by_part_the_charge_that_stands_is_meant() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "a", EXCHANGE);
    // Charged anew in another period.
    tell(&mut session, "acme", "a", "2026-02-28 23:58 customer_message, 2026-02-28 23:59 ai_reply");
    assert_eq!(ledger(&mut session, "charge_id, reverses"), ["1|", "2|1", "3|"]);
    session.run("SELECT talkmeter.dispute('acme', 'a', 1, 'not ours')");
    assert_eq!(session.line("SELECT charge_id FROM talkmeter.disputes"), "3");
}

#[test]
fn disputes_are_counted_within_the_tenant() {
    let (_database, mut session) = four_charges();
    subscribe(&mut session, "other", "UTC");
    tell(&mut session, "other", "a", "10:00 exchange");
    dispute(&mut session, 1);
    assert_eq!(session.line("SELECT talkmeter.dispute('other', 1, 'not ours')"), "1");
    session.run("SELECT talkmeter.resolve_dispute('other', 1, 'credited')");
    assert_eq!(
        session.lines("SELECT tenant, state FROM talkmeter.disputes ORDER BY 1"),
        ["acme|open", "other|credited"]
    );
}

/// The end of the 10th business day after that of filing, by another way.
const DUE: &str = "(SELECT (business_day + 1)::timestamp AT TIME ZONE zone
     FROM (SELECT (filed_at AT TIME ZONE zone)::date AS filed) AS f, generate_series(1, 60) AS n,
         LATERAL (SELECT filed + n AS business_day) AS d
     WHERE extract(isodow FROM business_day) < 6 AND business_day NOT IN (SELECT day FROM talkmeter.holidays)
     ORDER BY n OFFSET 9 LIMIT 1)";

#[test]
fn a_dispute_is_due_at_the_end_of_the_tenth_business_day_in_the_tenants_zone() {
    for zone in ["UTC", "Asia/Tokyo", "America/New_York", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        let (_database, mut session) = metered("lutingenie");
        session.run(&format!("SELECT talkmeter.subscribe('acme', 'one', '2024-12-01', '{zone}', 1)"));
        tell(&mut session, "acme", "a", "10:00 exchange");
        dispute(&mut session, 1);
        let due = session
            .line(&format!("SELECT due_at = {DUE}, due_at FROM talkmeter.disputes, (SELECT '{zone}') AS z (zone)"));
        assert!(due.starts_with("t|"), "{zone}: {due}");
        // At least two weekends lie in between.
        let days = session.line(&format!(
            "SELECT (due_at AT TIME ZONE '{zone}')::date - (filed_at AT TIME ZONE '{zone}')::date BETWEEN 13 AND 15
             FROM talkmeter.disputes"
        ));
        assert_eq!(days, "t", "{zone}");
    }
}

#[test]
fn holidays_put_it_off_unless_they_are_on_a_weekend() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "a", "10:00 exchange");
    tell(&mut session, "acme", "b", "10:00 exchange");
    let due = |session: &mut Session, conversation: &str| {
        session.run(&format!("SELECT talkmeter.dispute('acme', '{conversation}', 1, 'not ours')"));
        session.line(&format!(
            "SELECT due_at = {DUE}, due_at FROM talkmeter.disputes, (SELECT 'UTC') AS z (zone)
             WHERE conversation = '{conversation}'"
        ))
    };
    let (without, weekends) = (due(&mut session, "a"), "extract(isodow FROM day) >= 6");
    session.run(&format!(
        "INSERT INTO talkmeter.holidays
         SELECT day, 'a weekend' FROM generate_series(current_date, current_date + 30, interval '1 day') AS day
         WHERE {weekends}"
    ));
    session.run("SELECT talkmeter.resolve_dispute('acme', 1, 'rejected')");
    session.run("DELETE FROM talkmeter.dispute_filed");
    assert_eq!(due(&mut session, "a"), without);
    session.run(&format!(
        "INSERT INTO talkmeter.holidays
         SELECT day, 'a holiday' FROM generate_series(current_date + 1, current_date + 30, interval '3 days') AS day
         WHERE NOT {weekends}"
    ));
    let with = due(&mut session, "b");
    assert!(with.starts_with("t|") && with > without, "{with} with holidays, {without} without");
}

#[test]
fn a_charge_has_one_open_dispute() {
    let (_database, mut session) = four_charges();
    dispute(&mut session, 1);
    for again in ["talkmeter.dispute('acme', 1, 'again')", "talkmeter.dispute('acme', 'a', 1, 'again')"] {
        assert_eq!(session.refused(&format!("SELECT {again}")), NOT_NOW, "{again}");
    }
    // Once it is rejected, there may be another.
    resolve(&mut session, 1, "rejected");
    assert_eq!(dispute(&mut session, 1), "2");
}

#[test]
fn two_who_dispute_one_charge_at_once_file_one_dispute() {
    let (database, mut session) = four_charges();
    let mut other = database.connect();
    let pid = other.pid();
    session.run("BEGIN");
    dispute(&mut session, 1);
    let second = thread::spawn(move || other.refused("SELECT talkmeter.dispute('acme', 'a', 1, 'me too')"));
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    assert_eq!(second.join().expect("an answer"), NOT_NOW);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.disputes"), "1");
}

#[test]
fn a_dispute_that_is_not_committed_holds_up_no_message_and_no_pack_of_its_tenant() {
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let (database, mut session) = four_charges();
        let mut other = database.connect();
        other.run(&format!("BEGIN ISOLATION LEVEL {level}"));
        dispute(&mut other, 1);
        session.run("SET lock_timeout = '5s'");
        tell(&mut session, "acme", "e", "11:00 exchange");
        // The disputed charge itself is taken back by a change.
        session.run("UPDATE messages SET kind = 'note' WHERE conversation_id = 'a' AND kind = 'ai_reply'");
        session.run("SELECT talkmeter.buy_pack('acme', 'single', purchased_at => '2026-02-03')");
        let last = &ledger(&mut session, "conversation, reverses")[4..];
        assert_eq!(last, ["e|", "a|1"], "{level}");
        other.run("COMMIT");
        resolve(&mut session, 1, "rejected");
        assert_sound(&mut session);
    }
}

#[test]
fn a_credit_waits_for_a_dispute_that_is_not_committed_and_is_refused_then() {
    let levels = [
        ("READ COMMITTED", NOT_NOW),
        ("REPEATABLE READ", NOT_NOW),
        ("SERIALIZABLE", SqlState::T_R_SERIALIZATION_FAILURE),
    ];
    for (level, state) in levels {
        let (database, mut session) = four_charges();
        let mut other = database.connect();
        let pid = other.pid();
        session.run("BEGIN");
        dispute(&mut session, 1);
        other.run(&format!("BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM talkmeter.disputes"));
        let second = thread::spawn(move || other.refused("SELECT talkmeter.credit('acme', 1, 'sorry')"));
        session.wait_until_blocked(pid);
        // Whoever waits has not locked the tenant either.
        tell(&mut session, "acme", "e", "11:00 exchange");
        session.run("COMMIT");
        assert_eq!(second.join().expect("an answer"), state, "{level}");
        assert_sound(&mut session);
    }
}

#[test]
fn what_is_not_billed_cannot_be_disputed() {
    let (_database, mut session) = four_charges();
    tell(&mut session, "acme", "unanswered", "10:00 customer_message");
    credit(&mut session, 2);
    for (call, state) in [
        ("dispute('acme', 99, 'not ours')", UNKNOWN),
        ("dispute('other', 1, 'not ours')", UNKNOWN),
        ("dispute('acme', 'unanswered', 1, 'not ours')", UNKNOWN),
        ("dispute('acme', 'a', 2, 'not ours')", UNKNOWN),
        ("dispute('acme', 'unheard of', 1, 'not ours')", UNKNOWN),
        ("dispute('acme', 'b', 1, 'not ours')", UNKNOWN),
        // A charge that was taken back, and what took it back.
        ("dispute('acme', 2, 'not ours')", NOT_NOW),
        ("dispute('acme', 5, 'not ours')", NOT_NOW),
    ] {
        assert_eq!(session.refused(&format!("SELECT talkmeter.{call}")), state, "{call}");
    }
    assert_eq!(session.lines("SELECT * FROM talkmeter.disputes"), NONE);
}

#[test]
fn a_disputed_charge_counts_until_it_is_credited() {
    let (_database, mut session) = four_charges();
    dispute(&mut session, 4);
    assert_eq!(used(&mut session), "1|2|1|0.125");
    resolve(&mut session, 1, "credited");
    assert_eq!(used(&mut session), "1|2|0|0.000");
}

#[test]
fn a_disputed_unit_counts_for_alerts_and_on_the_statement_until_it_is_credited() {
    let (_database, mut session) = four_charges();
    session
        .run("INSERT INTO talkmeter.threshold (kind, percent) VALUES ('allowance_500', 500), ('allowance_600', 600)");
    dispute(&mut session, 4);
    tell(&mut session, "acme", "e", "11:00 exchange");
    let kinds = "SELECT kind FROM talkmeter.alerts WHERE kind IN ('allowance_500', 'allowance_600') ORDER BY 1";
    assert_eq!(session.lines(kinds), ["allowance_500"]);
    let overage = "SELECT kind, quantity, amount FROM talkmeter.statement('acme', '2026-03-01')
         WHERE kind IN ('overage', 'credit') ORDER BY line";
    assert_eq!(session.lines(overage), ["overage|2|0.25"]);
    resolve(&mut session, 1, "credited");
    assert_eq!(session.lines(overage), ["overage|2|0.25", "credit|-1|-0.13"]);
    // Now it counts no more: the next unit is the fifth again.
    tell(&mut session, "acme", "f", "11:00 exchange");
    assert_eq!(session.lines(kinds), ["allowance_500"]);
    tell(&mut session, "acme", "g", "11:00 exchange");
    assert_eq!(session.lines(kinds), ["allowance_500", "allowance_600"]);
}

#[test]
fn a_dispute_that_is_credited_takes_the_charge_back() {
    let (_database, mut session) = four_charges();
    dispute(&mut session, 3);
    resolve(&mut session, 1, "credited");
    let posted = ledger(&mut session, "conversation, tier, pack_id, reverses, reason, note");
    assert_eq!(posted[4..], ["c|pack|2|3|credit|we looked"]);
    let resolved = session.line("SELECT state, note, resolved_at >= filed_at, overdue FROM talkmeter.disputes");
    assert_eq!(resolved, "credited|we looked|t|f");
    // The part is never charged again.
    tell(&mut session, "acme", "c", "10:05 ai_reply, 2026-02-28 23:00 exchange");
    session.run("UPDATE messages SET kind = 'note' WHERE conversation_id = 'c' AND kind = 'ai_reply'");
    session.run("UPDATE messages SET kind = 'ai_reply' WHERE conversation_id = 'c' AND kind = 'note'");
    assert!(!standing_charges(&mut session, "conversation, part").contains(&"c|1".to_owned()));
    assert_sound(&mut session);
}

#[test]
fn a_dispute_that_is_rejected_lets_the_charge_stand() {
    let (_database, mut session) = four_charges();
    let before = ledger(&mut session, "*");
    dispute(&mut session, 3);
    resolve(&mut session, 1, "rejected");
    assert_eq!(ledger(&mut session, "*"), before);
    assert_eq!(session.line("SELECT state, note, overdue FROM talkmeter.disputes"), "rejected|we looked|f");
    assert_sound(&mut session);
}

#[test]
fn an_open_dispute_is_overdue_once_its_day_is_over() {
    let (_database, mut session) = four_charges();
    dispute(&mut session, 1);
    dispute(&mut session, 2);
    session.run("UPDATE talkmeter.dispute_filed SET due_at = now() - interval '1 second'");
    resolve(&mut session, 2, "rejected");
    let overdue = session.lines("SELECT dispute_id, overdue FROM talkmeter.disputes ORDER BY 1");
    assert_eq!(overdue, ["1|t", "2|f"]);
    // It can still be resolved.
    resolve(&mut session, 1, "credited");
    assert_eq!(session.lines("SELECT dispute_id FROM talkmeter.disputes WHERE overdue"), NONE);
}

#[test]
fn a_charge_that_is_disputed_is_not_credited_past_the_dispute() {
    let (_database, mut session) = four_charges();
    dispute(&mut session, 1);
    assert_eq!(session.refused("SELECT talkmeter.credit('acme', 1, 'sorry')"), NOT_NOW);
    resolve(&mut session, 1, "rejected");
    credit(&mut session, 1);
    assert_sound(&mut session);
}

#[test]
fn a_dispute_about_a_charge_that_a_late_row_took_back_has_nothing_to_credit() {
    let (_database, mut session) = four_charges();
    dispute(&mut session, 1);
    session.run("UPDATE messages SET kind = 'note' WHERE conversation_id = 'a' AND kind = 'ai_reply'");
    assert_eq!(ledger(&mut session, "reverses, reason")[4..], ["1|refold"]);
    assert_eq!(session.refused("SELECT talkmeter.resolve_dispute('acme', 1, 'credited')"), NOT_NOW);
    resolve(&mut session, 1, "rejected");
    assert_sound(&mut session);
}

#[test]
fn misuse_is_refused_with_the_state_that_says_why() {
    let (_database, mut session) = four_charges();
    dispute(&mut session, 1);
    dispute(&mut session, 2);
    resolve(&mut session, 2, "rejected");
    let null = SqlState::NULL_VALUE_NOT_ALLOWED;
    for (call, state) in [
        ("credit(NULL, 1, 'sorry')", null.clone()),
        ("credit('acme', NULL, 'sorry')", null.clone()),
        ("credit('acme', 1, NULL)", null.clone()),
        ("credit('acme', 99, 'sorry')", UNKNOWN),
        ("credit('acme', 0, 'sorry')", UNKNOWN),
        ("credit('other', 1, 'sorry')", UNKNOWN),
        ("dispute(NULL, 1, 'not ours')", null.clone()),
        ("dispute('acme', NULL::bigint, 'not ours')", null.clone()),
        ("dispute('acme', 1, NULL)", null.clone()),
        ("dispute('acme', NULL, 1, 'not ours')", null.clone()),
        ("dispute('acme', 'a', NULL, 'not ours')", null.clone()),
        ("dispute('acme', 'a', 1, NULL)", null.clone()),
        ("resolve_dispute(NULL, 1, 'rejected')", null.clone()),
        ("resolve_dispute('acme', NULL, 'rejected')", null.clone()),
        ("resolve_dispute('acme', 1, NULL)", null.clone()),
        ("resolve_dispute('acme', 1, 'open')", SqlState::INVALID_PARAMETER_VALUE),
        ("resolve_dispute('acme', 1, 'Credited')", SqlState::INVALID_PARAMETER_VALUE),
        ("resolve_dispute('acme', 99, 'credited')", UNKNOWN),
        ("resolve_dispute('other', 1, 'credited')", UNKNOWN),
        ("resolve_dispute('acme', 2, 'credited')", NOT_NOW),
        ("resolve_dispute('acme', 2, 'rejected')", NOT_NOW),
    ] {
        assert_eq!(session.refused(&format!("SELECT talkmeter.{call}")), state, "{call}");
    }
    assert_eq!(ledger(&mut session, "charge_id").len(), 4);
}

// --- After the statement ---

#[test]
fn a_charge_of_a_finalized_period_is_credited_in_the_open_one() {
    let (_database, mut session) = four_charges();
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    let frozen = session.lines("SELECT * FROM talkmeter.statement('acme', '2026-03-01')");
    credit(&mut session, 1);
    dispute(&mut session, 4);
    resolve(&mut session, 1, "credited");
    let posted = ledger(
        &mut session,
        "period_start, posted_period_start = (SELECT p.period_start FROM talkmeter.period_at('acme', now()) AS p)",
    );
    assert_eq!(posted[3..], ["2026-03-01 00:00:00+00|f", "2026-03-01 00:00:00+00|t", "2026-03-01 00:00:00+00|t"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.statement('acme', '2026-03-01')"), frozen);
    let lines = session.lines(
        "SELECT kind, of_period_start, description, quantity, unit_price, amount
         FROM talkmeter.period_at('acme', now()) AS p, talkmeter.statement('acme', p.period_start)",
    );
    assert_eq!(
        lines,
        [
            "base||one|1|10|10.00",
            "credit|2026-03-01 00:00:00+00|included|-1|0|0.00",
            "credit|2026-03-01 00:00:00+00|overage|-1|0.125|-0.13"
        ]
    );
    assert_sound(&mut session);
}

#[test]
fn a_credit_of_a_finalized_period_gives_its_allowance_back_to_that_period() {
    let (_database, mut session) = four_charges();
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    credit(&mut session, 1);
    tell(&mut session, "acme", "late", "12:00 exchange");
    let last = ledger(&mut session, "tier, period_start, posted_period_start > '2026-03-31'");
    assert_eq!(last[5..], ["included|2026-03-01 00:00:00+00|t"]);
    assert_sound(&mut session);
}
