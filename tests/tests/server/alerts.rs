//! When is a tenant told of its usage, and how often (rule 4.5)?

use postgres::fallible_iterator::FallibleIterator;
use std::thread;
use talkmeter_tests::{Database, Session, assert_sound, attach, create_messages, messages_mapping, quoted};

/// A database with plans and packs of several sizes, and `acme` on a plan in months that start on the 1st in UTC.
fn on_plan(plan: &str) -> (Database, Session) {
    let database = Database::fresh("alerts");
    let mut session = database.connect();
    create_messages(&mut session);
    for included in [0, 3, 5, 10, 20, 1_000] {
        session.run(&format!(
            r#"SELECT talkmeter.define_plan('{{"name": "{included} included", "included": {included},
                   "overage_rate": 0.125, "currency": "EUR"}}')"#
        ));
    }
    for size in [10, 20, 100] {
        session.run(&format!(
            r#"SELECT talkmeter.define_pack('{{"name": "pack of {size}", "size": {size}, "price": 1,
                   "currency": "EUR", "valid_for": "90 days"}}')"#
        ));
    }
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    subscribe(&mut session, "acme", plan, "UTC");
    (database, session)
}

fn subscribe(session: &mut Session, tenant: &str, plan: &str, zone: &str) {
    let tenant = quoted(tenant);
    session.run(&format!("SELECT talkmeter.subscribe({tenant}, '{plan}', '2025-01-01', '{zone}', 1)"));
}

/// So many new conversations that are answered at `at`, by one statement.
fn answered(tenant: &str, count: u32, at: &str) -> String {
    let tenant = quoted(tenant);
    format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT {tenant}, 'c' || count + n, '{at}+00', 'exchange'
         FROM generate_series(1, {count}) AS n, (SELECT count(*) FROM messages) AS m (count)"
    )
}

fn answer(session: &mut Session, count: u32, at: &str) {
    session.run(&answered("acme", count, at));
}

/// The kinds of the alerts that `acme` has.
fn raised(session: &mut Session) -> Vec<String> {
    session.lines("SELECT kind FROM talkmeter.alerts WHERE tenant = 'acme' ORDER BY period_start, kind")
}

fn buy(session: &mut Session, pack: &str, at: &str) {
    session.run(&format!("SELECT talkmeter.buy_pack('acme', '{pack}', purchased_at => '{at}')"));
}

const NONE: [&str; 0] = [];
const DAY: &str = "2026-03-10 12:00";

// --- The allowance ---

#[test]
fn eighty_percent_are_reached_at_eighty_and_not_below() {
    let (_database, mut session) = on_plan("10 included");
    answer(&mut session, 7, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_80"]);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_80"]);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
}

#[test]
fn eighty_percent_of_three_are_reached_by_the_third_unit() {
    let (_database, mut session) = on_plan("3 included");
    answer(&mut session, 2, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
}

#[test]
fn eighty_percent_of_five_are_four() {
    let (_database, mut session) = on_plan("5 included");
    answer(&mut session, 3, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_80"]);
}

#[test]
fn an_allowance_of_nothing_is_never_reached() {
    let (_database, mut session) = on_plan("0 included");
    answer(&mut session, 50, DAY);
    assert_eq!(raised(&mut session), NONE);
}

#[test]
fn a_jump_from_70_to_105_percent_in_one_statement_raises_both() {
    let (_database, mut session) = on_plan("20 included");
    answer(&mut session, 14, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 7, DAY);
    let alerts = session.lines("SELECT kind, detail, notified_at FROM talkmeter.alerts ORDER BY kind");
    assert_eq!(alerts, ["allowance_100|20 of 20 included units used|", "allowance_80|16 of 20 included units used|"]);
}

#[test]
fn of_alerts_that_one_statement_raises_the_lower_threshold_comes_first() {
    let (_database, mut session) = on_plan("20 included");
    session.run("INSERT INTO talkmeter.threshold (kind, percent) VALUES ('allowance_90', 90)");
    answer(&mut session, 21, DAY);
    let order = "SELECT kind FROM talkmeter.alert ORDER BY fired_at, ctid";
    assert_eq!(session.lines(order), ["allowance_80", "allowance_90", "allowance_100"]);
}

#[test]
fn an_alert_belongs_to_the_period_of_the_charge_instant() {
    let (_database, mut session) = on_plan("3 included");
    answer(&mut session, 3, "2026-04-01 00:00");
    answer(&mut session, 3, "2026-03-31 23:59:59.999999");
    let periods = session.lines("SELECT DISTINCT period_start FROM talkmeter.alerts ORDER BY 1");
    assert_eq!(periods, ["2026-03-01 00:00:00+00", "2026-04-01 00:00:00+00"]);
    assert_eq!(raised(&mut session).len(), 4);
    assert_sound(&mut session);
}

#[test]
fn a_refund_and_a_second_crossing_raise_nothing() {
    let (_database, mut session) = on_plan("5 included");
    answer(&mut session, 4, DAY);
    let first = session.lines("SELECT * FROM talkmeter.alerts");
    session.run("SELECT talkmeter.credit('acme', 1, 'sorry'), talkmeter.credit('acme', 2, 'sorry')");
    answer(&mut session, 2, DAY);
    assert_eq!(session.line("SELECT included_used FROM talkmeter.period"), "4");
    assert_eq!(session.lines("SELECT * FROM talkmeter.alerts"), first);
    assert_sound(&mut session);
}

#[test]
fn what_a_refund_makes_free_does_not_count() {
    let (_database, mut session) = on_plan("5 included");
    answer(&mut session, 3, DAY);
    session.run("SELECT talkmeter.credit('acme', 1, 'sorry')");
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_80"]);
}

#[test]
fn a_part_that_turns_out_unbillable_leaves_the_alert_that_it_raised() {
    let (_database, mut session) = on_plan("3 included");
    answer(&mut session, 3, DAY);
    session.run("UPDATE messages SET kind = 'note' WHERE id = 1");
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
    session.run("UPDATE messages SET kind = 'exchange' WHERE id = 1");
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
    assert_sound(&mut session);
}

#[test]
fn the_next_period_raises_its_own() {
    let (_database, mut session) = on_plan("3 included");
    answer(&mut session, 3, "2026-03-10 12:00");
    answer(&mut session, 3, "2026-04-10 12:00");
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80", "allowance_100", "allowance_80"]);
}

#[test]
fn after_an_upgrade_the_new_allowance_is_measured_and_what_was_raised_stays() {
    let (_database, mut session) = on_plan("5 included");
    answer(&mut session, 4, "2026-03-10 12:00");
    assert_eq!(raised(&mut session), ["allowance_80"]);
    session.run("SELECT talkmeter.change_plan('acme', '10 included', '2026-03-11')");
    answer(&mut session, 5, "2026-03-12 12:00");
    assert_eq!(raised(&mut session), ["allowance_80"]);
    answer(&mut session, 1, "2026-03-12 12:00");
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
}

#[test]
fn a_smaller_allowance_is_measured_with_the_next_unit() {
    let (_database, mut session) = on_plan("10 included");
    answer(&mut session, 4, "2026-03-10 12:00");
    session.run("SELECT talkmeter.subscribe('acme', '5 included', '2026-03-11', 'UTC', 1)");
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, "2026-03-11 12:00");
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
}

#[test]
fn units_that_packs_and_overage_pay_count_as_used() {
    let (_database, mut session) = on_plan("5 included");
    buy(&mut session, "pack of 100", "2026-03-01");
    session.run("INSERT INTO talkmeter.threshold (kind, percent) VALUES ('allowance_200', 200)");
    answer(&mut session, 9, DAY);
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_200", "allowance_80"]);
}

#[test]
fn a_tenants_alerts_are_its_own() {
    let (_database, mut session) = on_plan("5 included");
    subscribe(&mut session, "other", "5 included", "UTC");
    answer(&mut session, 3, DAY);
    session.run(&answered("other", 4, DAY));
    assert_eq!(raised(&mut session), NONE);
    assert_eq!(session.lines("SELECT tenant, kind FROM talkmeter.alerts"), ["other|allowance_80"]);
}

#[test]
fn a_threshold_of_ones_own_is_as_good_as_those_shipped() {
    let (_database, mut session) = on_plan("10 included");
    session.run("INSERT INTO talkmeter.threshold (kind, percent) VALUES ('allowance_50', 50)");
    answer(&mut session, 4, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_50"]);
    assert_eq!(session.line("SELECT detail FROM talkmeter.alerts"), "5 of 10 included units used");
    // One that is added later tells of what is used already with the next charge.
    session.run("INSERT INTO talkmeter.threshold (kind, percent) VALUES ('allowance_20', 20)");
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_20", "allowance_50"]);
    assert_sound(&mut session);
}

// --- Packs ---

#[test]
fn a_pack_is_low_below_a_tenth_and_not_at_it() {
    let (_database, mut session) = on_plan("0 included");
    buy(&mut session, "pack of 20", "2026-03-01");
    answer(&mut session, 18, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["pack_low"]);
    assert_eq!(session.line("SELECT detail FROM talkmeter.alerts"), "1 of 20 units left in packs");
}

#[test]
fn a_pack_of_ten_is_low_when_it_is_empty() {
    let (_database, mut session) = on_plan("0 included");
    buy(&mut session, "pack of 10", "2026-03-01");
    answer(&mut session, 9, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["pack_low"]);
}

#[test]
fn of_several_packs_the_units_and_the_sizes_are_summed() {
    let (_database, mut session) = on_plan("0 included");
    buy(&mut session, "pack of 10", "2026-03-01");
    buy(&mut session, "pack of 20", "2026-03-02");
    // The first is empty, and the second far from it.
    answer(&mut session, 10, DAY);
    assert_eq!(raised(&mut session), NONE);
    // The first had no unit any more, so its size does not count: two of twenty are left, then one.
    answer(&mut session, 18, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["pack_low"]);
    assert_eq!(session.line("SELECT detail FROM talkmeter.alerts"), "1 of 20 units left in packs");
}

#[test]
fn the_pack_that_paid_its_last_unit_counts_with_its_size() {
    let (_database, mut session) = on_plan("0 included");
    buy(&mut session, "pack of 100", "2026-03-01");
    buy(&mut session, "pack of 10", "2026-03-02");
    // 11 of 110 is a tenth; 10 of 110 is less.
    answer(&mut session, 99, DAY);
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, DAY);
    assert_eq!(session.line("SELECT detail FROM talkmeter.alerts"), "10 of 110 units left in packs");
}

#[test]
fn a_pack_that_has_expired_at_the_charge_instant_does_not_count() {
    let (_database, mut session) = on_plan("0 included");
    buy(&mut session, "pack of 100", "2025-12-01");
    buy(&mut session, "pack of 10", "2026-03-01");
    answer(&mut session, 10, DAY);
    assert_eq!(session.lines("SELECT detail FROM talkmeter.alerts"), ["0 of 10 units left in packs"]);
}

#[test]
fn a_pack_that_is_bought_after_the_charge_instant_does_not_count() {
    let (_database, mut session) = on_plan("0 included");
    buy(&mut session, "pack of 10", "2026-03-01");
    buy(&mut session, "pack of 100", "2026-03-11");
    answer(&mut session, 10, DAY);
    assert_eq!(raised(&mut session), ["pack_low"]);
}

#[test]
fn a_refunded_pack_does_not_count() {
    let (_database, mut session) = on_plan("0 included");
    buy(&mut session, "pack of 10", "2026-03-01");
    buy(&mut session, "pack of 100", "2026-03-02");
    session.run("SELECT talkmeter.refund_pack('acme', 2)");
    answer(&mut session, 10, DAY);
    assert_eq!(raised(&mut session), ["pack_low"]);
}

#[test]
fn only_a_charge_that_drew_a_pack_tells_that_it_is_low() {
    let (_database, mut session) = on_plan("5 included");
    buy(&mut session, "pack of 20", "2026-03-01");
    session.run("DELETE FROM talkmeter.threshold");
    answer(&mut session, 5 + 19, "2026-03-10 12:00");
    assert_eq!(raised(&mut session), ["pack_low"]);
    // In April the allowance pays first, and the pack's last unit only then.
    answer(&mut session, 5, "2026-04-10 12:00");
    assert_eq!(raised(&mut session), ["pack_low"]);
    answer(&mut session, 1, "2026-04-10 12:00");
    assert_eq!(raised(&mut session), ["pack_low", "pack_low"]);
}

#[test]
fn a_new_pack_that_runs_low_in_the_same_period_is_not_told_again() {
    let (_database, mut session) = on_plan("0 included");
    for at in ["2026-03-01", "2026-03-10"] {
        buy(&mut session, "pack of 10", at);
        answer(&mut session, 10, DAY);
    }
    assert_eq!(raised(&mut session), ["pack_low"]);
    assert_eq!(session.line("SELECT sum(remaining) FROM talkmeter.packs"), "0");
}

#[test]
fn expiry_alone_raises_nothing() {
    let (_database, mut session) = on_plan("1000 included");
    buy(&mut session, "pack of 10", "2025-01-01");
    answer(&mut session, 1, DAY);
    session.sweep("now");
    assert_eq!(session.lines("SELECT expired_unused FROM talkmeter.expired_packs"), ["10"]);
    assert_eq!(raised(&mut session), NONE);
}

#[test]
fn overage_without_any_pack_raises_nothing() {
    let (_database, mut session) = on_plan("0 included");
    answer(&mut session, 10, DAY);
    assert_eq!(raised(&mut session), NONE);
}

// --- Days ---

/// One unit on each of these days of March, at noon.
fn one_on_each(session: &mut Session, days: impl IntoIterator<Item = u32>) {
    for day in days {
        answer(session, 1, &format!("2026-03-{day:02} 12:00"));
    }
}

#[test]
fn a_day_of_more_than_twice_the_mean_of_the_seven_before_is_a_spike() {
    let (_database, mut session) = on_plan("1000 included");
    one_on_each(&mut session, 1..=8);
    answer(&mut session, 2, "2026-03-09 12:00");
    // Exactly twice is none.
    assert_eq!(raised(&mut session), NONE);
    answer(&mut session, 1, "2026-03-09 23:59:59.999999");
    assert_eq!(raised(&mut session), ["volume_spike"]);
    assert_eq!(session.line("SELECT detail FROM talkmeter.alerts"), "3 units on the day, 7 on the seven days before");
}

#[test]
fn a_spike_needs_a_history_from_before_those_seven_days() {
    let (_database, mut session) = on_plan("1000 included");
    one_on_each(&mut session, 2..=8);
    answer(&mut session, 50, "2026-03-09 12:00");
    assert_eq!(raised(&mut session), NONE);
    // The day after has one.
    answer(&mut session, 50, "2026-03-10 12:00");
    assert_eq!(raised(&mut session), ["volume_spike"]);
}

#[test]
fn a_mean_of_nothing_is_no_measure() {
    let (_database, mut session) = on_plan("1000 included");
    one_on_each(&mut session, [1]);
    answer(&mut session, 50, "2026-03-09 12:00");
    assert_eq!(raised(&mut session), NONE);
}

#[test]
fn days_without_a_charge_count_as_none_in_the_mean() {
    let (_database, mut session) = on_plan("1000 included");
    one_on_each(&mut session, [1, 5]);
    // The mean is a seventh.
    answer(&mut session, 1, "2026-03-09 12:00");
    assert_eq!(raised(&mut session), ["volume_spike"]);
}

#[test]
fn a_spike_is_told_once_per_period() {
    let (_database, mut session) = on_plan("1000 included");
    one_on_each(&mut session, 1..=8);
    answer(&mut session, 10, "2026-03-09 12:00");
    answer(&mut session, 100, "2026-03-10 12:00");
    assert_eq!(raised(&mut session), ["volume_spike"]);
    answer(&mut session, 300, "2026-04-01 00:00");
    // The mean of the days before it is of March.
    answer(&mut session, 1, "2026-03-31 12:00");
    answer(&mut session, 10, "2026-04-01 00:00");
    assert_eq!(raised(&mut session), ["volume_spike", "volume_spike"]);
}

#[test]
fn refunds_lower_the_day_that_is_measured() {
    let (_database, mut session) = on_plan("1000 included");
    one_on_each(&mut session, 1..=8);
    answer(&mut session, 2, "2026-03-09 12:00");
    session.run("SELECT talkmeter.credit('acme', 9, 'sorry')");
    answer(&mut session, 1, "2026-03-09 12:00");
    assert_eq!(raised(&mut session), NONE);
    assert_sound(&mut session);
}

#[test]
fn one_statement_over_many_days_measures_each_day() {
    let (_database, mut session) = on_plan("1000 included");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', day || '/' || n, '2026-03-01 12:00+00'::timestamptz + day * interval '1 day', 'exchange'
         FROM generate_series(0, 8) AS day, generate_series(1, CASE day WHEN 8 THEN 3 ELSE 1 END) AS n",
    );
    assert_eq!(raised(&mut session), ["volume_spike"]);
}

#[test]
fn a_day_is_the_tenants_own() {
    let (_database, mut session) = on_plan("1000 included");
    session.run("SELECT talkmeter.subscribe('acme', '1000 included', '2024-12-01', 'Asia/Tokyo', 1)");
    one_on_each(&mut session, 1..=8);
    // In Tokyo these are two days; in UTC it is one, with four units.
    answer(&mut session, 2, "2026-03-09 14:59:59.999999");
    answer(&mut session, 2, "2026-03-09 15:00");
    assert_eq!(raised(&mut session), NONE);
    let days = session.lines("SELECT day, units FROM talkmeter.day_units WHERE day >= '2026-03-09' ORDER BY day");
    assert_eq!(days, ["2026-03-09|2", "2026-03-10|2"]);
    // The day lasts until 15:00 in UTC.
    answer(&mut session, 1, "2026-03-09 00:00");
    assert_eq!(raised(&mut session), ["volume_spike"]);
}

#[test]
fn a_day_of_23_or_25_hours_is_one_day() {
    // In Berlin midnight was at 23:00 in UTC before the 29th of March, and at 22:00 after it; in October the other way
    // round.
    for (before, first, last, after) in [
        ("2026-03-28 22:59:59.999999", "2026-03-28 23:00", "2026-03-29 21:59:59.999999", "2026-03-29 22:00"),
        ("2025-10-25 21:59:59.999999", "2025-10-25 22:00", "2025-10-26 22:59:59.999999", "2025-10-26 23:00"),
    ] {
        let (_database, mut session) = on_plan("1000 included");
        session.run("SELECT talkmeter.subscribe('acme', '1000 included', '2024-12-01', 'Europe/Berlin', 1)");
        session.run(&format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             SELECT 'acme', 'day ' || n, '{first}+00'::timestamptz + interval '12 hours' - n * interval '24 hours',
                 'exchange'
             FROM generate_series(1, 8) AS n"
        ));
        for at in [before, first, last, after, after] {
            answer(&mut session, 1, at);
        }
        let days = session.lines("SELECT units FROM talkmeter.day_units ORDER BY day DESC LIMIT 3");
        assert_eq!(days, ["2", "2", "2"], "around {first}");
        // The mean before that day is 8 in 7 days: its third unit is more than twice as many.
        assert_eq!(raised(&mut session), NONE, "around {first}");
        answer(&mut session, 1, last);
        assert_eq!(raised(&mut session), ["volume_spike"], "around {first}");
    }
}

#[test]
fn the_zone_of_the_session_is_nothing_to_the_days() {
    for (own, tenants) in [
        ("Etc/GMT+12", "Pacific/Kiritimati"),
        ("Pacific/Pago_Pago", "Pacific/Kiritimati"),
        ("Pacific/Kiritimati", "Pacific/Pago_Pago"),
        ("Asia/Tokyo", "America/New_York"),
    ] {
        let (_database, mut session) = on_plan("1000 included");
        session.run(&format!("SELECT talkmeter.subscribe('acme', '1000 included', '2024-12-01', '{tenants}', 1)"));
        session.run(&format!("SET TimeZone = '{own}'"));
        for hour in 0..24 {
            answer(&mut session, 1, &format!("2026-03-09 {hour:02}:30"));
        }
        let days = session.lines("SELECT day, units FROM talkmeter.day_units ORDER BY day");
        let charged = session.lines(&format!(
            "SELECT (charged_at AT TIME ZONE '{tenants}')::date, count(*) FROM talkmeter.charges GROUP BY 1 ORDER BY 1"
        ));
        assert_eq!(days, charged, "session in {own}, tenant in {tenants}");
    }
}

// --- Transactions ---

#[test]
fn an_alert_is_rolled_back_with_the_charge_that_raised_it() {
    let (_database, mut session) = on_plan("3 included");
    session.run("BEGIN");
    answer(&mut session, 3, DAY);
    session.run("SELECT talkmeter.flush()");
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
    session.run("ROLLBACK");
    assert_eq!(raised(&mut session), NONE);
    session.run("BEGIN");
    answer(&mut session, 2, DAY);
    session.run("SAVEPOINT s");
    answer(&mut session, 1, DAY);
    session.run("SELECT talkmeter.flush(); ROLLBACK TO SAVEPOINT s; COMMIT");
    assert_eq!(raised(&mut session), NONE);
    // It is still to be told.
    answer(&mut session, 1, DAY);
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
    assert_sound(&mut session);
}

#[test]
fn two_clients_that_cross_at_once_raise_it_once() {
    let (database, mut session) = on_plan("20 included");
    let clients: Vec<_> = (0..8)
        .map(|client| {
            let mut own = database.connect();
            thread::spawn(move || {
                for n in 0..5 {
                    own.run(&format!(
                        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
                         VALUES ('acme', '{client}/{n}', '{DAY}+00', 'exchange')"
                    ));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("the application is not held up"));
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
    assert_sound(&mut session);
}

/// Hears what is sent from now on.
fn listen(database: &Database) -> Session {
    let mut listener = database.connect();
    listener.run("LISTEN talkmeter_alerts");
    listener
}

/// How often it was woken. A session hears what was committed before its own last statement.
fn woken(listener: &mut Session) -> usize {
    listener.run("SELECT 1");
    let mut sent = listener.client.notifications();
    let payloads: Vec<String> = sent.iter().map(|sent| Ok(sent.payload().to_owned())).collect().expect("a connection");
    assert!(payloads.iter().all(String::is_empty), "a notification says something: {payloads:?}");
    payloads.len()
}

/// What was sent, in order.
fn sent(session: &mut Session) -> Vec<String> {
    session.lines("SELECT tenant || ' ' || kind FROM talkmeter.alerts WHERE notified_at IS NOT NULL ORDER BY 1")
}

#[test]
fn the_applications_own_transaction_sends_nothing() {
    let (database, mut session) = on_plan("3 included");
    let mut listener = listen(&database);
    answer(&mut session, 3, DAY);
    assert_eq!(woken(&mut listener), 0);
    assert_eq!(session.lines("SELECT DISTINCT notified_at IS NULL FROM talkmeter.alerts"), ["t"]);
}

#[test]
fn a_transaction_that_raises_an_alert_can_be_prepared() {
    let (database, mut session) = on_plan("3 included");
    let mut listener = listen(&database);
    session.run("BEGIN");
    answer(&mut session, 3, DAY);
    let name = database.name();
    session.run(&format!("PREPARE TRANSACTION '{name}'"));
    assert_eq!(raised(&mut session), NONE);
    session.run(&format!("COMMIT PREPARED '{name}'"));
    assert_eq!(raised(&mut session), ["allowance_100", "allowance_80"]);
    assert_eq!(woken(&mut listener), 0);
    session.sweep("now");
    assert_eq!((woken(&mut listener), sent(&mut session).len()), (1, 2));
}

// --- The sweep sends ---

#[test]
fn the_sweep_wakes_once_without_a_word_and_the_alerts_say_what_it_is_about() {
    let (database, mut session) = on_plan("3 included");
    session.run("SELECT talkmeter.set_alert_channel('acme', '#billing \"eu\"')");
    answer(&mut session, 3, DAY);
    let mut listener = listen(&database);
    session.sweep("now");
    assert_eq!(woken(&mut listener), 1);
    assert_eq!(
        session.lines(
            "SELECT tenant, kind, period_start, detail, channel, notified_at > fired_at FROM talkmeter.alerts ORDER BY kind"
        ),
        [
            "acme|allowance_100|2026-03-01 00:00:00+00|3 of 3 included units used|#billing \"eu\"|t",
            "acme|allowance_80|2026-03-01 00:00:00+00|3 of 3 included units used|#billing \"eu\"|t"
        ]
    );
    session.sweep("now");
    assert_eq!(woken(&mut listener), 0);
}

#[test]
fn a_channel_is_that_of_now_and_may_be_none() {
    let (_database, mut session) = on_plan("3 included");
    answer(&mut session, 3, DAY);
    for (channel, shown) in [("NULL", ""), ("'one'", "one"), ("'two'", "two")] {
        session.run(&format!("SELECT talkmeter.set_alert_channel('acme', {channel})"));
        assert_eq!(session.lines("SELECT DISTINCT channel FROM talkmeter.alerts"), [shown]);
    }
}

#[test]
fn a_muted_alert_is_never_sent() {
    let (database, mut session) = on_plan("3 included");
    let mut listener = listen(&database);
    answer(&mut session, 3, DAY);
    session.run("UPDATE talkmeter.alert SET muted = true WHERE kind = 'allowance_80'");
    session.sweep("now");
    assert_eq!(woken(&mut listener), 1);
    assert_eq!(sent(&mut session), ["acme allowance_100"]);
}

#[test]
fn what_a_rolled_back_sweep_sent_is_sent_by_the_next() {
    let (database, mut session) = on_plan("3 included");
    let mut listener = listen(&database);
    answer(&mut session, 3, DAY);
    session.run("BEGIN; SELECT talkmeter.sweep(); ROLLBACK");
    assert_eq!(woken(&mut listener), 0);
    session.sweep("now");
    assert_eq!((woken(&mut listener), sent(&mut session).len()), (1, 2));
}

#[test]
fn two_sweeps_at_once_send_each_alert_once_and_do_not_wait_for_each_other() {
    let (database, mut session) = on_plan("3 included");
    let (mut listener, mut second) = (listen(&database), database.connect());
    // Parts that have ended: those that time is to end would be locked by the first sweep.
    session.run(&answered("acme", 3, DAY).replace("exchange", "visit"));
    second.run("SET statement_timeout = '20s'");
    session.run("BEGIN; SELECT talkmeter.sweep()");
    second.sweep("now");
    assert_eq!(woken(&mut listener), 0);
    session.run("COMMIT");
    assert_eq!((woken(&mut listener), sent(&mut session).len()), (1, 2));
    second.sweep("now");
    assert_eq!(woken(&mut listener), 0);
}

#[test]
fn among_many_sweeps_and_many_tenants_nothing_is_lost_and_nothing_sent_twice() {
    const TENANTS: u32 = 1_200;
    let (database, mut session) = on_plan("3 included");
    let mut listener = listen(&database);
    session.run(&format!(
        "SELECT talkmeter.subscribe('t' || n, '3 included', '2025-01-01', 'UTC', 1) FROM generate_series(1, {TENANTS}) AS n"
    ));
    let sweepers: Vec<_> = (0..3)
        .map(|_| {
            let mut own = database.connect();
            thread::spawn(move || (0..20).for_each(|_| _ = own.sweep("now")))
        })
        .collect();
    for part in 0..4 {
        session.run(&format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             SELECT 't' || t, 'c' || n, '{DAY}+00', 'exchange'
             FROM generate_series(1, {TENANTS}) AS t, generate_series(1, 3) AS n WHERE t % 4 = {part}"
        ));
    }
    sweepers.into_iter().for_each(|sweeper| sweeper.join().expect("a sweep"));
    session.sweep("now");
    assert!(woken(&mut listener) > 0);
    assert_eq!(sent(&mut session).len(), 2 * TENANTS as usize);
}

#[test]
fn the_longest_names_and_channels_keep_nobody_from_being_told() {
    let (database, mut session) = on_plan("3 included");
    let mut listener = listen(&database);
    let tenant = "\u{1}".repeat(512);
    session.run(&format!("SELECT talkmeter.set_alert_channel({}, repeat(chr(1), 512))", quoted(&tenant)));
    subscribe(&mut session, &tenant, "3 included", "UTC");
    session.run(&answered(&tenant, 3, DAY));
    answer(&mut session, 3, DAY);
    session.sweep("now");
    assert_eq!(woken(&mut listener), 1);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.alerts WHERE notified_at IS NOT NULL"), "4");
}

/// How full the server says that the queue of NOTIFY is. The planner takes the answer into each statement that it makes.
fn queue_is(session: &mut Session, share: &str) {
    session.run(&format!(
        "CREATE OR REPLACE FUNCTION pg_catalog.pg_notification_queue_usage() RETURNS double precision LANGUAGE sql
         AS 'SELECT {share}::double precision'"
    ));
}

#[test]
fn while_the_queue_of_notify_is_nearly_full_sweeps_go_on_alerts_wait_and_health_says_so() {
    let (database, mut session) = on_plan("3 included");
    let mut listener = listen(&database);
    answer(&mut session, 3, DAY);
    queue_is(&mut session, "0.95");
    let problems = "SELECT problem FROM talkmeter.health() WHERE problem = 'notification_queue_full'";
    assert_eq!(session.lines(problems), ["notification_queue_full"]);
    database.connect().sweep("now");
    assert_eq!((woken(&mut listener), sent(&mut session).len()), (0, 0));
    queue_is(&mut session, "0.89");
    assert_eq!(session.lines(problems), [""; 0]);
    database.connect().sweep("now");
    assert_eq!((woken(&mut listener), sent(&mut session).len()), (1, 2));
}
