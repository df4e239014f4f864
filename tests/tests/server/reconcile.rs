//! Does a day's reconciliation flag what differs, and nothing else (rule 4.6)?

use postgres::error::SqlState;
use talkmeter_tests::{Database, Session, assert_sound, attach, create_messages, messages_mapping, tell};

const NONE: [&str; 0] = [];
const FIRST: &str = "2026-03-01";
const SECOND: &str = "2026-03-02";
const BAD_DAY: SqlState = SqlState::DATETIME_FIELD_OVERFLOW;

/// A database with a plan that includes more than is used, and `acme` on it in UTC.
fn metered(policy: &str) -> (Database, Session) {
    let database = Database::fresh("reconcile");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "plenty", "included": 100000, "overage_rate": 1, "currency": "EUR"}')"#,
    );
    attach(&mut session, "messages", policy, None, &messages_mapping());
    subscribe(&mut session, "acme", "UTC");
    (database, session)
}

fn subscribe(session: &mut Session, tenant: &str, zone: &str) {
    session.run(&format!("SELECT talkmeter.subscribe('{tenant}', 'plenty', '2025-01-01', '{zone}', 1)"));
}

/// So many new conversations of `acme` on a day, each with a question and a reply.
fn units(session: &mut Session, day: &str, count: u32) {
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', 'c' || count + n, '{day} 12:00+00'::timestamptz + o * interval '1 minute', kind
         FROM (SELECT count(*) FROM messages) AS m (count), generate_series(1, {count}) AS n,
             unnest(ARRAY['customer_message', 'ai_reply']) WITH ORDINALITY AS k (kind, o)"
    ));
}

/// Does something to the messages of which the meter hears nothing.
fn unheard(session: &mut Session, work: impl FnOnce(&mut Session)) {
    session.run("ALTER TABLE messages DISABLE TRIGGER USER");
    work(session);
    session.run("ALTER TABLE messages ENABLE TRIGGER USER");
}

/// Makes so many replies notes of which the meter hears nothing: charged, and nothing to recount.
fn mute_replies(session: &mut Session, count: u32) {
    unheard(session, |session| {
        session.run(&format!(
            "UPDATE messages SET kind = 'note'
             WHERE id IN (SELECT id FROM messages WHERE kind = 'ai_reply' ORDER BY id LIMIT {count})"
        ));
    });
}

fn reconcile(session: &mut Session, day: &str) -> String {
    session.line(&format!("SELECT talkmeter.reconcile('{day}')"))
}

fn report(session: &mut Session, tenant: &str, day: &str, units: u32) {
    session.run(&format!("SELECT talkmeter.report_external('{tenant}', '{day}', {units})"));
}

/// What a day of `acme` was found to be: charged, recounted, unprovable, external, flagged.
fn found(session: &mut Session, day: &str) -> String {
    found_of(session, "acme", day)
}

fn found_of(session: &mut Session, tenant: &str, day: &str) -> String {
    session.line(&format!(
        "SELECT charged, recounted, unprovable, external, flagged FROM talkmeter.reconciliations
         WHERE tenant = '{tenant}' AND day = '{day}'"
    ))
}

/// The same after it was reconciled now.
fn reconciled(session: &mut Session, day: &str) -> String {
    reconcile(session, day);
    found(session, day)
}

/// Days of `acme` for which an alert was raised.
fn alerts(session: &mut Session) -> Vec<String> {
    session.lines("SELECT day FROM talkmeter.alerts WHERE tenant = 'acme' AND kind = 'reconcile' ORDER BY day")
}

// --- What is flagged ---

#[test]
fn equal_counts_are_not_flagged() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 7);
    report(&mut session, "acme", FIRST, 7);
    assert_eq!(reconcile(&mut session, FIRST), "0");
    assert_eq!(found(&mut session, FIRST), "7|7|0|7|f");
    assert_eq!(alerts(&mut session), NONE);
    assert_sound(&mut session);
}

#[test]
fn without_a_report_charges_and_recount_are_compared() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 3);
    assert_eq!(reconciled(&mut session, FIRST), "3|3|0||f");
    assert_eq!(reconciled(&mut session, SECOND), "0|0|0||f");
}

#[test]
fn exactly_five_percent_of_the_larger_are_not_flagged_and_a_unit_more_is() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 95);
    units(&mut session, SECOND, 100);
    for (day, reported, expected) in [
        (FIRST, 100, "95|95|0|100|f"),
        (FIRST, 101, "95|95|0|101|t"),
        (SECOND, 95, "100|100|0|95|f"),
        (SECOND, 94, "100|100|0|94|t"),
        // Five percent of the smaller one would be too little here.
        (SECOND, 105, "100|100|0|105|f"),
        (SECOND, 106, "100|100|0|106|t"),
    ] {
        report(&mut session, "acme", day, reported);
        assert_eq!(reconciled(&mut session, day), expected);
    }
}

#[test]
fn one_unit_against_none_is_flagged() {
    let (_database, mut session) = metered("lutingenie");
    report(&mut session, "acme", FIRST, 1);
    assert_eq!(reconciled(&mut session, FIRST), "0|0|0|1|t");
}

#[test]
fn charges_and_recount_are_flagged_alone() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 100);
    mute_replies(&mut session, 6);
    report(&mut session, "acme", FIRST, 97);
    assert_eq!(reconciled(&mut session, FIRST), "100|94|0|97|t");
}

#[test]
fn charges_and_report_are_flagged_alone() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 100);
    mute_replies(&mut session, 3);
    report(&mut session, "acme", FIRST, 94);
    assert_eq!(reconciled(&mut session, FIRST), "100|97|0|94|t");
}

#[test]
fn recount_and_report_are_flagged_alone() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 97);
    unheard(&mut session, |session| units(session, FIRST, 3));
    report(&mut session, "acme", FIRST, 94);
    assert_eq!(reconciled(&mut session, FIRST), "97|100|0|94|t");
}

#[test]
fn messages_that_were_never_metered_are_found() {
    let (_database, mut session) = metered("lutingenie");
    unheard(&mut session, |session| units(session, FIRST, 2));
    assert_eq!(reconcile(&mut session, FIRST), "1");
    assert_eq!(found(&mut session, FIRST), "0|2|0||t");
    // They were only looked at.
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "0");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.parts"), "0");
}

// --- Rows that are gone, credits ---

#[test]
fn units_whose_rows_are_gone_are_unprovable_and_not_missing() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 10);
    session
        .run("DELETE FROM messages WHERE conversation_id IN (SELECT DISTINCT conversation_id FROM messages LIMIT 3)");
    assert_eq!(reconciled(&mut session, FIRST), "10|7|3||f");
    session.run("TRUNCATE messages");
    assert_eq!(reconciled(&mut session, FIRST), "10|0|10||f");
    // What somebody else has counted is compared with both together.
    report(&mut session, "acme", FIRST, 7);
    assert_eq!(reconciled(&mut session, FIRST), "10|0|10|7|t");
}

#[test]
fn a_conversation_that_has_lost_one_row_proves_none_of_its_units() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "10:00 exchange, 12:00 exchange, 12:05 customer_message");
    session.run("DELETE FROM messages WHERE kind = 'customer_message'");
    assert_eq!(reconciled(&mut session, FIRST), "2|0|2||f");
}

#[test]
fn rows_of_a_table_that_is_gone_are_unprovable() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 4);
    session.run("DROP TABLE messages");
    assert_eq!(reconciled(&mut session, FIRST), "4|0|4||f");
}

#[test]
fn a_credit_leaves_the_day_as_it_was() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 4);
    session.run("SELECT talkmeter.credit('acme', 1, 'goodwill'), talkmeter.credit('acme', 2, 'goodwill')");
    assert_eq!(reconciled(&mut session, FIRST), "4|4|0||f");
}

#[test]
fn a_charge_that_a_late_row_took_back_is_charged_no_more() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 4);
    session.run("UPDATE messages SET kind = 'note' WHERE id = (SELECT max(id) FROM messages)");
    assert_eq!(reconciled(&mut session, FIRST), "3|3|0||f");
}

// --- Which day ---

#[test]
fn the_day_is_that_of_the_tenants_zone() {
    let (_database, mut session) = metered("lutingenie");
    for (tenant, zone) in [("york", "America/New_York"), ("tokyo", "Asia/Tokyo"), ("kathmandu", "Asia/Kathmandu")] {
        subscribe(&mut session, tenant, zone);
    }
    for tenant in ["acme", "york", "tokyo", "kathmandu"] {
        // The last instant of a day, and the first of the next, of UTC and of each zone.
        tell(&mut session, tenant, "utc", "2026-03-01 23:59:59.999999 exchange, 2026-03-02 00:00 note");
        tell(&mut session, tenant, "york", "2026-03-02 04:59:59.999999 exchange");
        tell(&mut session, tenant, "york, next", "2026-03-02 05:00 exchange");
        tell(&mut session, tenant, "tokyo", "2026-03-01 14:59:59.999999 exchange");
        tell(&mut session, tenant, "tokyo, next", "2026-03-01 15:00 exchange");
        tell(&mut session, tenant, "kathmandu", "2026-03-01 18:14:59.999999 exchange");
        tell(&mut session, tenant, "kathmandu, next", "2026-03-01 18:15 exchange");
    }
    assert_eq!(reconcile(&mut session, FIRST), "0");
    assert_eq!(reconcile(&mut session, SECOND), "0");
    for (tenant, first, second) in [("acme", 5, 2), ("york", 6, 1), ("tokyo", 1, 6), ("kathmandu", 3, 4)] {
        assert_eq!(found_of(&mut session, tenant, FIRST), format!("{first}|{first}|0||f"), "{tenant}");
        assert_eq!(found_of(&mut session, tenant, SECOND), format!("{second}|{second}|0||f"), "{tenant}");
    }
}

/// Units at the edges of a day in New York, and how many of them each of three days has.
fn at_the_edges(instants: &[&str], days: [(&str, u32); 3]) {
    let (_database, mut session) = metered("lutingenie");
    subscribe(&mut session, "york", "America/New_York");
    for at in instants {
        tell(&mut session, "york", at, &format!("{at} exchange"));
    }
    for (day, count) in days {
        reconcile(&mut session, day);
        assert_eq!(found_of(&mut session, "york", day), format!("{count}|{count}|0||f"), "{day}");
    }
}

#[test]
fn a_day_on_which_the_clock_is_put_forward_has_23_hours() {
    at_the_edges(
        &["2026-03-08 04:59:59.999999", "2026-03-08 05:00", "2026-03-09 03:59:59.999999", "2026-03-09 04:00"],
        [("2026-03-07", 1), ("2026-03-08", 2), ("2026-03-09", 1)],
    );
}

#[test]
fn a_day_on_which_the_clock_is_put_back_has_25_hours() {
    at_the_edges(
        &["2025-11-02 03:59:59.999999", "2025-11-02 04:00", "2025-11-03 04:59:59.999999", "2025-11-03 05:00"],
        [("2025-11-01", 1), ("2025-11-02", 2), ("2025-11-03", 1)],
    );
}

#[test]
fn a_unit_counts_on_the_day_of_its_charge_instant() {
    let (_database, mut session) = metered("lutingenie");
    // The question is of the first day, the reply of the second; posted they were today.
    tell(&mut session, "acme", "c", "2026-03-01 23:50 customer_message, 2026-03-02 00:05 ai_reply");
    assert_eq!(reconciled(&mut session, FIRST), "0|0|0||f");
    assert_eq!(reconciled(&mut session, SECOND), "1|1|0||f");
    let posted = session.line("SELECT talkmeter.charges.posted_at::date > '2026-03-02' FROM talkmeter.charges");
    assert_eq!(posted, "t");
}

#[test]
fn a_unit_that_is_charged_on_close_counts_on_the_day_on_which_it_ended() {
    let (_database, mut session) = metered("ai_resolution");
    tell(&mut session, "acme", "closed", "2026-03-01 23:50 exchange, 2026-03-02 00:05 close");
    // Nobody closes this one: three quiet hours end it, whenever that is noticed.
    tell(&mut session, "acme", "quiet", "2026-03-01 23:00 exchange");
    assert_eq!(reconciled(&mut session, FIRST), "0|0|0||f");
    assert_eq!(reconciled(&mut session, SECOND), "2|2|0||f");
}

#[test]
fn a_charge_whose_instant_has_moved_counts_where_its_part_says() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "2026-03-01 23:50 customer_message, 2026-03-02 00:05 ai_reply");
    tell(&mut session, "acme", "c", "2026-03-01 23:55 ai_reply");
    assert_eq!(session.line("SELECT charged_at FROM talkmeter.charges"), "2026-03-02 00:05:00+00");
    assert_eq!(reconciled(&mut session, FIRST), "1|1|0||f");
    assert_eq!(reconciled(&mut session, SECOND), "0|0|0||f");
}

#[test]
fn a_part_is_recounted_under_the_policy_that_it_opened_under() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 1);
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "lutingenie", "effective_from": "2020-01-01T00:00:00Z", "retroactive": true, "note": "a test",
               "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "close"}')"#,
    );
    assert_eq!(reconciled(&mut session, FIRST), "1|1|0||f");
}

#[test]
fn a_unit_that_waits_for_a_plan_is_neither_charged_nor_recounted() {
    let (_database, mut session) = metered("lutingenie");
    session.run(&format!("SELECT talkmeter.cancel('acme', '{FIRST}')"));
    units(&mut session, SECOND, 1);
    assert_eq!(reconciled(&mut session, SECOND), "0|0|0||f");
}

#[test]
fn each_tenant_has_a_day_of_its_own() {
    let (_database, mut session) = metered("lutingenie");
    subscribe(&mut session, "other", "UTC");
    units(&mut session, FIRST, 2);
    tell(&mut session, "other", "c1", "10:00 exchange");
    report(&mut session, "other", FIRST, 5);
    // Somebody else may know of a tenant that no message has named.
    report(&mut session, "unmetered", FIRST, 3);
    assert_eq!(reconcile(&mut session, FIRST), "2");
    assert_eq!(found(&mut session, FIRST), "2|2|0||f");
    assert_eq!(found_of(&mut session, "other", FIRST), "1|1|0|5|t");
    assert_eq!(found_of(&mut session, "unmetered", FIRST), "0|0|0|3|t");
}

// --- What is kept ---

#[test]
fn a_flagged_day_raises_one_alert_however_often_it_is_reconciled() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 2);
    units(&mut session, SECOND, 2);
    report(&mut session, "acme", FIRST, 9);
    for _ in 0..2 {
        assert_eq!(reconcile(&mut session, FIRST), "1");
        assert_eq!(alerts(&mut session), [FIRST]);
    }
    // Another day of the same month has one of its own.
    report(&mut session, "acme", SECOND, 9);
    reconcile(&mut session, SECOND);
    assert_eq!(alerts(&mut session), [FIRST, SECOND]);
    let detail = session.line("SELECT period_start, detail FROM talkmeter.alerts WHERE day = '2026-03-01'");
    assert_eq!(detail, "2026-03-01 00:00:00+00|2 charged, 2 recounted, 0 unprovable, 9 reported");
    assert_sound(&mut session);
}

#[test]
fn a_day_that_agrees_in_the_end_is_not_flagged_any_more_and_its_alert_stays() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 2);
    report(&mut session, "acme", FIRST, 9);
    assert_eq!(reconciled(&mut session, FIRST), "2|2|0|9|t");
    report(&mut session, "acme", FIRST, 2);
    assert_eq!(reconciled(&mut session, FIRST), "2|2|0|2|f");
    // Flagged once more, it is the same day.
    report(&mut session, "acme", FIRST, 8);
    assert_eq!(reconciled(&mut session, FIRST), "2|2|0|8|t");
    assert_eq!(alerts(&mut session), [FIRST]);
    assert_sound(&mut session);
}

#[test]
fn a_day_that_is_reconciled_twice_is_one_row_with_the_last_counts() {
    let (_database, mut session) = metered("lutingenie");
    units(&mut session, FIRST, 2);
    assert_eq!(reconciled(&mut session, FIRST), "2|2|0||f");
    let first = session.line("SELECT reconciled_at FROM talkmeter.reconciliations");
    units(&mut session, FIRST, 1);
    report(&mut session, "acme", FIRST, 3);
    assert_eq!(reconciled(&mut session, FIRST), "3|3|0|3|f");
    let later = session.line(&format!("SELECT reconciled_at > '{first}' FROM talkmeter.reconciliations"));
    assert_eq!(later, "t");
}

#[test]
fn a_later_report_replaces_an_earlier_one() {
    let (_database, mut session) = metered("lutingenie");
    report(&mut session, "acme", FIRST, 5);
    report(&mut session, "acme", FIRST, 0);
    assert_eq!(reconciled(&mut session, FIRST), "0|0|0|0|f");
}

#[test]
fn a_review_names_who_looked_and_holds_as_long_as_the_counts_do() {
    let (database, mut session) = metered("lutingenie");
    let auditor = database.role("auditor");
    session.run(&format!(
        "GRANT USAGE ON SCHEMA talkmeter TO {auditor};
         GRANT EXECUTE ON FUNCTION talkmeter.review(text, date) TO {auditor}"
    ));
    let reviewed =
        "SELECT reviewed_by, reviewed_at >= reconciled_at, reviewed_at IS NULL FROM talkmeter.reconciliations";
    units(&mut session, FIRST, 2);
    report(&mut session, "acme", FIRST, 9);
    reconcile(&mut session, FIRST);
    assert_eq!(session.line(reviewed), "||t");
    database.connect_as(&auditor).run("SELECT talkmeter.review('acme', '2026-03-01')");
    assert_eq!(session.line(reviewed), format!("{auditor}|t|f"));
    // The same counts again are what was looked at.
    reconcile(&mut session, FIRST);
    assert_eq!(session.line(reviewed), format!("{auditor}|f|f"));
    units(&mut session, FIRST, 1);
    assert_eq!(reconciled(&mut session, FIRST), "3|3|0|9|t");
    assert_eq!(session.line(reviewed), "||t");
}

#[test]
fn a_rolled_back_reconciliation_leaves_no_row_and_no_alert() {
    let (_database, mut session) = metered("lutingenie");
    report(&mut session, "acme", FIRST, 9);
    session.run("BEGIN");
    assert_eq!(reconcile(&mut session, FIRST), "1");
    session.run("ROLLBACK");
    assert_eq!(session.lines("SELECT * FROM talkmeter.reconciliations"), NONE);
    assert_eq!(alerts(&mut session), NONE);
}

// --- A day that is not over ---

/// The day that it is now in a zone.
fn today(session: &mut Session, zone: &str) -> String {
    session.line(&format!("SELECT (now() AT TIME ZONE '{zone}')::date"))
}

#[test]
fn a_day_that_is_not_over_is_refused() {
    for zone in ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        let database = Database::fresh("reconcile");
        let mut session = database.connect();
        session.run(
            r#"SELECT talkmeter.define_plan('{"name": "plenty", "included": 100000, "overage_rate": 1, "currency": "EUR"}')"#,
        );
        subscribe(&mut session, "acme", zone);
        let today = today(&mut session, zone);
        for day in [format!("'{today}'"), format!("'{today}'::date + 1"), format!("'{today}'::date + 400")] {
            let refused = session.client.batch_execute(&format!("SELECT talkmeter.reconcile({day})"));
            let state = refused.as_ref().err().and_then(|error| error.code());
            assert_eq!(state, Some(&BAD_DAY), "{day} in {zone}, where it is {today}");
        }
        session.run(&format!("SELECT talkmeter.reconcile('{today}'::date - 1)"));
        assert_eq!(session.line("SELECT count(*) FROM talkmeter.reconciliations"), "1", "{zone}");
    }
}

#[test]
fn a_day_that_is_over_for_one_tenant_only_is_reconciled_for_that_one() {
    let (_database, mut session) = metered("lutingenie");
    subscribe(&mut session, "east", "Pacific/Kiritimati");
    subscribe(&mut session, "west", "Pacific/Pago_Pago");
    // 25 hours lie between them: what was yesterday in the east is not over in the west.
    let yesterday = session.line("SELECT (now() AT TIME ZONE 'Pacific/Kiritimati')::date - 1");
    reconcile(&mut session, &yesterday);
    let done = session.lines("SELECT tenant FROM talkmeter.reconciliations WHERE tenant <> 'acme' ORDER BY 1");
    assert_eq!(done, ["east"]);
}

// --- Misuse ---

#[test]
fn misuse_is_refused_with_the_state_that_says_why() {
    let (_database, mut session) = metered("lutingenie");
    reconcile(&mut session, FIRST);
    let null = SqlState::NULL_VALUE_NOT_ALLOWED;
    for (call, state) in [
        ("reconcile(NULL)", null.clone()),
        ("reconcile('infinity')", BAD_DAY),
        ("reconcile('-infinity')", BAD_DAY),
        ("reconcile('4000-01-01 BC')", BAD_DAY),
        ("reconcile('20000-01-01')", BAD_DAY),
        ("reconcile(current_date + 2)", BAD_DAY),
        ("report_external(NULL, '2026-03-01', 1)", null.clone()),
        ("report_external('acme', NULL, 1)", null.clone()),
        ("report_external('acme', '2026-03-01', NULL)", null.clone()),
        ("report_external('acme', '2026-03-01', -1)", SqlState::INVALID_PARAMETER_VALUE),
        ("report_external('acme', 'infinity', 1)", BAD_DAY),
        ("report_external(repeat('x', 513), '2026-03-01', 1)", SqlState::STRING_DATA_RIGHT_TRUNCATION),
        ("review(NULL, '2026-03-01')", null.clone()),
        ("review('acme', NULL)", null.clone()),
        ("review('unheard of', '2026-03-01')", SqlState::UNDEFINED_OBJECT),
        ("review('acme', '2026-03-02')", SqlState::UNDEFINED_OBJECT),
        ("review('acme', 'infinity')", BAD_DAY),
    ] {
        assert_eq!(session.refused(&format!("SELECT talkmeter.{call}")), state, "{call}");
    }
    assert_eq!(found(&mut session, FIRST), "0|0|0||f");
}

#[test]
fn the_largest_report_is_compared_too() {
    let (_database, mut session) = metered("lutingenie");
    session.run(&format!("SELECT talkmeter.report_external('acme', '{FIRST}', {})", i64::MAX));
    assert_eq!(reconciled(&mut session, FIRST), format!("0|0|0|{}|t", i64::MAX));
    assert_sound(&mut session);
}
