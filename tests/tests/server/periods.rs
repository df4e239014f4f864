//! In which billing month does each charge lie, and on which plan (rule 4.2)?

use postgres::error::SqlState;
use std::thread;
use talkmeter_tests::{
    Database, Random, Session, assert_sound, attach, create_messages, instant, messages_mapping, tell,
};

const NO_PLAN_THEN: SqlState = SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE;

/// A database with plans, packs of two units, and the table `messages` without a default plan.
fn metered() -> (Database, Session) {
    let database = Database::fresh("periods");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "none", "included": 0, "overage_rate": 1, "currency": "EUR"}'),
               talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "currency": "EUR"}'),
               talkmeter.define_plan('{"name": "two, cheaper", "included": 2, "overage_rate": 0.1, "currency": "EUR"}'),
               talkmeter.define_plan('{"name": "five", "included": 5, "overage_rate": 0.5, "currency": "EUR"}'),
               talkmeter.define_plan('{"name": "nine dollars", "included": 9, "overage_rate": 0.1,
                   "currency": "USD"}'),
               talkmeter.define_pack('{"name": "pair", "size": 2, "price": 1, "currency": "EUR",
                   "valid_for": "90 days"}')"#,
    );
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    (database, session)
}

/// The same, with `acme` on a plan from 2026-01-01 on, in months that start on the 1st in UTC.
fn on_plan(plan: &str) -> (Database, Session) {
    let (database, mut session) = metered();
    subscribe(&mut session, plan, "2026-01-01", "UTC", 1);
    (database, session)
}

fn subscribe(session: &mut Session, plan: &str, since: &str, zone: &str, anchor_day: u32) {
    session.run(&format!("SELECT talkmeter.subscribe('acme', '{plan}', '{since}', '{zone}', {anchor_day})"));
}

/// A new conversation that is answered at `at`.
fn answer(session: &mut Session, at: &str) {
    let next = session.line("SELECT count(*) FROM messages");
    tell(session, "acme", &format!("c{next}"), &format!("{at} exchange"));
}

/// The period that holds an instant: `start|end`.
fn period(session: &mut Session, at: &str) -> String {
    let at = instant(at);
    session.lines(&format!("SELECT * FROM talkmeter.period_at('acme', {at})")).join(" and ")
}

/// Charges in ledger order.
fn ledger(session: &mut Session, columns: &str) -> Vec<String> {
    session.lines(&format!("SELECT {columns} FROM talkmeter.charges WHERE tenant = 'acme' ORDER BY charge_id"))
}

fn waiting(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation FROM talkmeter.unplanned WHERE tenant = 'acme' ORDER BY charged_at")
}

// --- Midnights ---

#[test]
fn a_period_starts_at_local_midnight_of_the_anchor_day() {
    for (zone, anchor_day, at, expected) in [
        ("UTC", 1, "2026-03-20 12:00", "2026-03-01 00:00:00+00|2026-04-01 00:00:00+00"),
        ("UTC", 15, "2026-03-14 23:59", "2026-02-15 00:00:00+00|2026-03-15 00:00:00+00"),
        ("Asia/Tokyo", 1, "2026-03-20 12:00", "2026-02-28 15:00:00+00|2026-03-31 15:00:00+00"),
        ("Asia/Kathmandu", 1, "2026-03-20 12:00", "2026-02-28 18:15:00+00|2026-03-31 18:15:00+00"),
        // Summer time begins in between.
        ("America/New_York", 1, "2026-03-20 12:00", "2026-03-01 05:00:00+00|2026-04-01 04:00:00+00"),
        ("Pacific/Kiritimati", 1, "2026-03-20 12:00", "2026-02-28 10:00:00+00|2026-03-31 10:00:00+00"),
        ("Pacific/Pago_Pago", 1, "2026-03-20 12:00", "2026-03-01 11:00:00+00|2026-04-01 11:00:00+00"),
        // It is the 1st already in Tokyo, and over New Year too.
        ("Asia/Tokyo", 1, "2025-12-31 15:00", "2025-12-31 15:00:00+00|2026-01-31 15:00:00+00"),
    ] {
        let (_database, mut session) = metered();
        subscribe(&mut session, "two", "2020-01-01", zone, anchor_day);
        assert_eq!(period(&mut session, at), expected, "{zone}, {anchor_day}, {at}");
    }
}

#[test]
fn without_an_anchor_day_it_is_the_local_day_of_since() {
    for (zone, since, anchor_day) in [
        ("UTC", "2026-03-01 23:00+00", "1"),
        ("Asia/Tokyo", "2026-03-01 23:00+00", "2"),
        ("America/New_York", "2026-03-01 03:00+00", "28"),
        ("UTC", "2026-01-31 12:00+00", "31"),
    ] {
        let (_database, mut session) = metered();
        session.run(&format!("SELECT talkmeter.subscribe('acme', 'two', since => '{since}', timezone => '{zone}')"));
        assert_eq!(session.line("SELECT anchor_day FROM talkmeter.subscription"), anchor_day, "{zone}, {since}");
    }
}

/// The starts of the periods of four years, a leap year among them, whose anchor day many months do not have.
#[test]
fn anchor_days_29_to_31_are_the_last_day_of_a_shorter_month_and_come_back() {
    let (_database, mut session) = metered();
    for anchor_day in 29..=31 {
        subscribe(&mut session, "two", "2020-01-01", "UTC", anchor_day);
        let other = session.lines(&format!(
            "SELECT month, wanted, period_start
             FROM generate_series('2027-01-01', '2030-12-01', interval '1 month') AS month,
                 LATERAL (SELECT extract(day FROM month + interval '1 month - 1 day')::integer) AS l (last_day),
                 LATERAL (SELECT month + (least({anchor_day}, last_day) - 1) * interval '1 day') AS w (wanted),
                 LATERAL talkmeter.period_at('acme', wanted) AS p
             WHERE p.period_start <> wanted
                 OR (SELECT b.period_end FROM talkmeter.period_at('acme', wanted - interval '1 us') AS b) <> wanted"
        ));
        assert_eq!(other, [""; 0], "anchor day {anchor_day}");
    }
}

#[test]
fn a_midnight_that_the_clock_skips_is_the_first_instant_after_the_gap() {
    for (zone, anchor_day, start) in [
        ("Asia/Beirut", 31, "2024-03-30 22:00:00+00"),
        ("Africa/Cairo", 26, "2024-04-25 22:00:00+00"),
        ("America/Santiago", 7, "2025-09-07 04:00:00+00"),
        ("America/Havana", 9, "2025-03-09 05:00:00+00"),
        // A whole day was skipped in Samoa.
        ("Pacific/Apia", 30, "2011-12-30 10:00:00+00"),
    ] {
        let (_database, mut session) = metered();
        subscribe(&mut session, "two", "2010-01-01", zone, anchor_day);
        answer(&mut session, &start.replace("+00", ""));
        session.run(&format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             SELECT 'acme', 'before', '{start}'::timestamptz - interval '1 us', 'exchange'"
        ));
        let starts = ledger(&mut session, &format!("period_start = '{start}', period_start < '{start}'"));
        assert_eq!(starts, ["t|f", "f|t"], "{zone}");
    }
}

#[test]
fn of_a_midnight_that_occurs_twice_the_earlier_one_counts() {
    let (_database, mut session) = metered();
    // In Havana the clock went from 01:00 back to 00:00.
    subscribe(&mut session, "two", "2025-01-01", "America/Havana", 2);
    for at in ["2025-11-02 03:59:59.999999", "2025-11-02 04:00", "2025-11-02 04:59:59.999999", "2025-11-02 05:00"] {
        answer(&mut session, at);
    }
    let first = "2025-10-02 04:00:00+00";
    let second = "2025-11-02 04:00:00+00";
    assert_eq!(ledger(&mut session, "period_start"), [first, second, second, second]);
}

#[test]
fn an_hour_that_occurs_twice_before_midnight_belongs_to_the_day_before() {
    let (_database, mut session) = metered();
    // In São Paulo the clock went from 00:00 back to 23:00.
    subscribe(&mut session, "two", "2018-01-01", "America/Sao_Paulo", 18);
    for at in ["2018-02-18 02:00", "2018-02-18 02:59:59.999999", "2018-02-18 03:00"] {
        answer(&mut session, at);
    }
    let (first, second) = ("2018-01-18 02:00:00+00", "2018-02-18 03:00:00+00");
    assert_eq!(ledger(&mut session, "period_start"), [first, first, second]);
}

#[test]
fn a_period_is_half_open_to_the_microsecond() {
    let (_database, mut session) = on_plan("two");
    for at in ["2026-03-31 23:59:59.999999", "2026-03-31 23:59:59.999999", "2026-03-31 23:59:59.999999"] {
        answer(&mut session, at);
    }
    answer(&mut session, "2026-04-01 00:00");
    let paid = ledger(&mut session, "tier, period_start, posted_period_start");
    let (march, april) = ("2026-03-01 00:00:00+00", "2026-04-01 00:00:00+00");
    assert_eq!(
        paid,
        [
            format!("included|{march}|{march}"),
            format!("included|{march}|{march}"),
            format!("overage|{march}|{march}"),
            format!("included|{april}|{april}"),
        ]
    );
}

#[test]
fn a_conversation_that_spans_two_periods_is_one_unit_of_the_period_of_its_charge_instant() {
    let (march, april) = ("2026-03-01 00:00:00+00", "2026-04-01 00:00:00+00");
    let last = "2026-03-31 23:59:59.999999";
    for (policy, story, wanted) in [
        ("lutingenie", format!("{last} exchange, 2026-04-01 00:00 exchange, 2026-04-01 00:10 close"), march),
        ("lutingenie", format!("{last} customer_message, 2026-04-01 00:00 ai_reply"), april),
        ("ai_resolution", format!("2026-03-31 23:50 exchange, {last} close"), march),
        ("ai_resolution", "2026-03-31 23:50 exchange, 2026-04-01 00:00 close".to_owned(), april),
        // Three quiet hours end it.
        ("ai_resolution", "2026-03-31 21:00 exchange".to_owned(), april),
    ] {
        let (_database, mut session) = metered();
        session.run(&format!("SELECT talkmeter.subscribe('acme', 'two', '2026-01-01', 'UTC', 1, '{policy}')"));
        tell(&mut session, "acme", "c", &story);
        session.sweep("now");
        assert_eq!(ledger(&mut session, "period_start"), [wanted], "{policy}: {story}");
        assert_sound(&mut session);
    }
}

#[test]
fn a_long_transaction_is_charged_by_the_time_of_its_messages_and_numbered_when_it_commits() {
    let (database, mut session) = on_plan("two");
    let mut long = database.connect();
    long.run("BEGIN");
    answer(&mut long, "2026-03-31 23:59:59.999999");
    tell(&mut session, "acme", "short", "2026-04-01 00:00 exchange");
    long.run("COMMIT");
    let (march, april) = ("2026-03-01 00:00:00+00", "2026-04-01 00:00:00+00");
    assert_eq!(
        ledger(&mut session, "charge_id, conversation, period_start"),
        [format!("1|short|{april}"), format!("2|c0|{march}")]
    );
    assert_eq!(ledger(&mut session, "posted_at = max(posted_at) OVER ()"), ["f", "t"]);
}

#[test]
fn two_charges_at_once_around_the_end_of_a_period_are_each_in_that_of_their_instant() {
    let (database, mut session) = on_plan("two");
    let mut other = database.connect();
    let pid = other.pid();
    session.run("BEGIN");
    tell(&mut session, "acme", "first", "2026-04-01 00:00 exchange");
    session.run("SELECT talkmeter.flush()");
    let late = thread::spawn(move || {
        let last = "2026-03-31 23:59:59.999999 exchange";
        tell(&mut other, "acme", "last", last);
    });
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    late.join().expect("the application is not held up");
    assert_eq!(
        ledger(&mut session, "conversation, period_start, tier"),
        ["first|2026-04-01 00:00:00+00|included", "last|2026-03-01 00:00:00+00|included"]
    );
    assert_sound(&mut session);
}

#[test]
fn a_row_of_the_future_opens_no_period_and_prolongs_no_part() {
    let (_database, mut session) = on_plan("two");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', 'c', now() - interval '20 minutes', 'exchange'),
             ('acme', 'c', now() + interval '6 minutes', 'exchange'),
             ('acme', 'd', now() + interval '40 days', 'exchange')",
    );
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), ["future", "future"]);
    assert_eq!(session.lines("SELECT conversation, message_count FROM talkmeter.parts"), ["c|2"]);
    let periods = "SELECT p.period_start = n.period_start
         FROM talkmeter.period AS p, talkmeter.period_at('acme', now() - interval '20 minutes') AS n";
    assert_eq!(session.lines(periods), ["t"]);
    assert_sound(&mut session);
}

// --- The allowance of a period ---

#[test]
fn the_first_period_is_the_whole_anchor_month_with_its_full_allowance() {
    let (_database, mut session) = metered();
    subscribe(&mut session, "two", "2026-03-31 23:00+00", "UTC", 1);
    assert_eq!(period(&mut session, "2026-03-31 23:30"), "2026-03-01 00:00:00+00|2026-04-01 00:00:00+00");
    assert_eq!(period(&mut session, "2026-03-01 00:00"), "2026-03-01 00:00:00+00|2026-04-01 00:00:00+00");
    for _ in 0..3 {
        answer(&mut session, "2026-03-31 23:30");
    }
    assert_eq!(ledger(&mut session, "tier"), ["included", "included", "overage"]);
    // There is none before it.
    assert_eq!(period(&mut session, "2026-02-28 23:59:59.999999"), "");
}

#[test]
fn the_allowance_resets_at_each_start_and_nothing_rolls_over() {
    let (_database, mut session) = on_plan("two");
    for at in ["2026-02-10 00:00", "2026-03-10 00:00", "2026-03-11 00:00", "2026-03-12 00:00", "2026-04-01 00:00"] {
        answer(&mut session, at);
    }
    assert_eq!(ledger(&mut session, "tier"), ["included", "included", "included", "overage", "included"]);
}

#[test]
fn a_period_that_was_opened_keeps_its_instants_when_the_rules_of_the_zone_change() {
    let (_database, mut session) = on_plan("two");
    answer(&mut session, "2026-03-10 00:00");
    // As if the zone had been two hours behind when the period was opened.
    session.run("UPDATE talkmeter.period SET period_start = '2026-03-01 02:00+00', period_end = '2026-04-01 02:00+00'");
    let (march, april) =
        ("2026-03-01 02:00:00+00|2026-04-01 02:00:00+00", "2026-04-01 02:00:00+00|2026-05-01 00:00:00+00");
    for (at, expected) in [
        ("2026-03-01 01:59:59.999999", "2026-02-01 00:00:00+00|2026-03-01 02:00:00+00"),
        ("2026-03-01 02:00", march),
        ("2026-04-01 01:59:59.999999", march),
        ("2026-04-01 02:00", april),
        ("2026-05-01 00:00", "2026-05-01 00:00:00+00|2026-06-01 00:00:00+00"),
    ] {
        assert_eq!(period(&mut session, at), expected, "{at}");
    }
    answer(&mut session, "2026-04-01 01:00");
    answer(&mut session, "2026-04-01 03:00");
    let (march, april) = ("2026-03-01 02:00:00+00", "2026-04-01 02:00:00+00");
    assert_eq!(ledger(&mut session, "period_start")[1..], [march, april]);
}

// --- A second subscription ---

#[test]
fn a_second_subscription_replaces_the_first_from_its_since() {
    let (_database, mut session) = on_plan("two");
    subscribe(&mut session, "none", "2026-03-10 12:00+00", "UTC", 1);
    answer(&mut session, "2026-03-10 11:59:59.999999");
    answer(&mut session, "2026-03-10 12:00");
    assert_eq!(ledger(&mut session, "plan, tier"), ["two|included", "none|overage"]);
    // One that begins before it replaces it too: the last word counts.
    subscribe(&mut session, "five", "2026-02-01", "UTC", 1);
    answer(&mut session, "2026-03-10 12:00");
    answer(&mut session, "2026-01-31 23:59");
    assert_eq!(ledger(&mut session, "plan, tier")[2..], ["five|included", "two|included"]);
}

#[test]
fn what_was_charged_stays_under_the_plan_that_was_in_force_when_it_was_posted() {
    let (_database, mut session) = on_plan("two");
    answer(&mut session, "2026-03-10 00:00");
    let before = ledger(&mut session, "*");
    subscribe(&mut session, "none", "2026-01-01", "UTC", 1);
    assert_eq!(ledger(&mut session, "*"), before);
    assert_sound(&mut session);
}

#[test]
fn the_new_plans_allowance_is_less_what_the_period_has_used() {
    let (_database, mut session) = on_plan("two");
    for _ in 0..2 {
        answer(&mut session, "2026-03-10 00:00");
    }
    subscribe(&mut session, "five", "2026-03-15", "UTC", 1);
    for _ in 0..4 {
        answer(&mut session, "2026-03-20 00:00");
    }
    assert_eq!(ledger(&mut session, "tier")[2..], ["included", "included", "included", "overage"]);
}

#[test]
fn two_subscriptions_at_once_are_one_after_the_other() {
    let (database, mut session) = metered();
    let clients = (0..8).map(|client| {
        let mut own = database.connect();
        thread::spawn(move || {
            own.line(&format!("SELECT talkmeter.subscribe('acme', 'two', '2026-01-0{}')", client + 1))
        })
    });
    let mut ids: Vec<String> = clients.collect::<Vec<_>>().into_iter().map(|own| own.join().expect("an id")).collect();
    ids.sort();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6", "7", "8"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.subscription"), "8");
}

// --- A new zone ---

#[test]
fn a_new_zone_takes_effect_at_the_next_start() {
    for (zone, end_of_april) in [
        ("Asia/Tokyo", "2026-04-30 15:00:00+00"),
        ("America/New_York", "2026-05-01 04:00:00+00"),
        ("Pacific/Kiritimati", "2026-04-30 10:00:00+00"),
        ("Pacific/Pago_Pago", "2026-05-01 11:00:00+00"),
    ] {
        let (_database, mut session) = on_plan("two");
        subscribe(&mut session, "two", "2026-03-10", zone, 1);
        let march = "2026-03-01 00:00:00+00|2026-04-01 00:00:00+00";
        assert_eq!(period(&mut session, "2026-03-31 23:59:59.999999"), march, "{zone}");
        assert_eq!(
            period(&mut session, "2026-04-01 00:00"),
            format!("2026-04-01 00:00:00+00|{end_of_april}"),
            "{zone}"
        );
        let may = period(&mut session, &end_of_april.replace("+00", ""));
        assert!(may.starts_with(end_of_april), "{zone}: {may}");
    }
}

/// Walks from period to period, over every instant at which one ends.
fn assert_no_hole_and_no_overlap(session: &mut Session, from: &str, to: &str, told: &str) {
    let mut at = from.to_owned();
    let mut before = String::new();
    while at.as_str() < to {
        let held = session.lines(&format!(
            "SELECT period_start, period_end, period_end - interval '1 us' FROM talkmeter.period_at('acme', '{at}')"
        ));
        assert_eq!(held.len(), 1, "a hole at {at}\n{told}");
        let (start, rest) = held[0].split_once('|').expect("columns");
        let (end, last) = rest.split_once('|').expect("columns");
        assert!(
            before.is_empty() || start == before,
            "a period starts at {start}, that before ends at {before}\n{told}"
        );
        assert!(start < end, "{start} to {end}\n{told}");
        let again = session.line(&format!("SELECT * FROM talkmeter.period_at('acme', '{last}')"));
        assert_eq!(again, format!("{start}|{end}"), "at {last}\n{told}");
        before = end.to_owned();
        end.clone_into(&mut at);
    }
}

const ZONES: [&str; 10] = [
    "UTC",
    "Asia/Tokyo",
    "America/New_York",
    "Europe/Berlin",
    "Pacific/Kiritimati",
    "Pacific/Pago_Pago",
    "America/Havana",
    "Asia/Kathmandu",
    "Pacific/Auckland",
    "America/Santiago",
];

/// So many hours after the beginning of the walk, in SQL.
fn hour(hours: usize) -> String {
    format!("timestamptz '2025-01-01 00:30+00' + interval '{hours} hours'")
}

/// Subscriptions in random zones, each with an anchor day of its own, one after the other, and charges in between.
fn random_moves(random: &mut Random, session: &mut Session) -> String {
    let mut moves = Vec::new();
    let mut since = 0;
    let mut zone = "";
    let answered = |at: usize| {
        let at = hour(at);
        format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             SELECT 'acme', 'c' || count(*), {at}, 'exchange' FROM messages"
        )
    };
    for _ in 0..2 + random.below(4) {
        // Within one zone another anchor day makes months of its own, which may overlap.
        let others: Vec<&str> = ZONES.iter().copied().filter(|other| *other != zone).collect();
        zone = others[random.below(others.len())];
        let (at, anchor_day) = (hour(since), 1 + random.below(31));
        moves.push(format!("SELECT talkmeter.subscribe('acme', 'two', {at}, '{zone}', {anchor_day})"));
        let next = since + 24 * random.below(75);
        moves.extend((0..random.below(3)).map(|_| answered(since + random.below(next - since + 1))));
        since = next;
    }
    // And some that are late.
    moves.extend((0..3).map(|_| answered(random.below(since + 1))));
    moves.iter().for_each(|sql| session.run(sql));
    moves.join("\n")
}

#[test]
fn changes_of_the_zone_leave_no_hole_and_no_overlap() {
    let (mut random, seed) = Random::seeded();
    for run in 0..30 {
        let (_database, mut session) = metered();
        let told = format!("TALKMETER_SEED={seed}, run {run}\n{}", random_moves(&mut random, &mut session));
        let first = session.line(
            "SELECT p.period_start FROM talkmeter.subscription AS s, talkmeter.period_at('acme', s.since) AS p
             ORDER BY p.period_start LIMIT 1",
        );
        assert_no_hole_and_no_overlap(&mut session, &first, "2026-06-01", &told);
        assert_no_period_overlaps(&mut session, &told);
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0], "{told}");
        assert_eq!(session.lines(NAMED_OTHERWISE), [""; 0], "{told}");
        assert_eq!(session.lines(DATED_OTHERWISE), [""; 0], "{told}");
    }
}

/// Months that two views call by different names.
const NAMED_OTHERWISE: &str = "
    SELECT h.period_start, h.period, m.period
    FROM talkmeter.usage_history AS h JOIN talkmeter.usage_monthly AS m USING (tenant, period_start, period_end)
    WHERE h.period <> m.period
    UNION ALL
    SELECT c.period_start, c.period, m.period
    FROM talkmeter.charges AS c JOIN talkmeter.usage_monthly AS m USING (tenant, period_start)
    WHERE c.period <> m.period OR c.posted_period <> m.period";

/// Days whose charges come to another figure than the day's.
const DATED_OTHERWISE: &str = "
    SELECT d.day, d.used, c.used
    FROM talkmeter.usage_daily AS d
    FULL JOIN (
        SELECT c.tenant, c.charged_day AS day, count(*) FILTER (WHERE c.reverses IS NULL) - count(c.reverses) AS used
        FROM talkmeter.charges AS c GROUP BY 1, 2
    ) AS c USING (tenant, day)
    WHERE d.used IS DISTINCT FROM c.used";

#[test]
fn until_a_new_zone_takes_effect_days_are_those_of_the_old_one_to_whoever_counts_them() {
    let (_database, mut session) = metered();
    subscribe(&mut session, "two", "2026-01-01", "America/New_York", 15);
    subscribe(&mut session, "none", "2026-07-05 14:31", "UTC", 5);
    // Evenings in New York. That of August is after the period.
    answer(&mut session, "2026-07-14 02:30");
    answer(&mut session, "2026-08-14 02:30");
    let days = ["2026-07-13", "2026-08-14"];
    assert_eq!(session.lines("SELECT day FROM talkmeter.usage_daily ORDER BY 1"), days);
    assert_eq!(session.lines("SELECT day FROM talkmeter.revenue_daily WHERE overage > 0 ORDER BY 1"), days);
    assert_sound(&mut session);
}

#[test]
fn a_zone_that_is_rolled_back_tells_no_day_any_more_within_one_statement_either() {
    let (_database, mut session) = on_plan("two");
    let day = "talkmeter.local_day('acme', '2026-11-15 02:00+00'::timestamptz)";
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        session.run("DROP TABLE IF EXISTS seen; CREATE TABLE seen (step int, day date)");
        session.run(&format!(
            "BEGIN ISOLATION LEVEL {isolation};
             DO $$
                 DECLARE
                     within date;
                 BEGIN
                     BEGIN
                         PERFORM talkmeter.subscribe('acme', 'two', '2026-10-01', 'America/New_York', 1);
                         within := {day};
                         RAISE division_by_zero;
                     EXCEPTION WHEN division_by_zero THEN NULL;
                     END;
                     INSERT INTO seen VALUES (1, within), (2, {day});
                 END
             $$;
             COMMIT"
        ));
        assert_eq!(session.lines("SELECT * FROM seen ORDER BY step"), ["1|2026-11-14", "2|2026-11-15"], "{isolation}");
    }
}

fn assert_no_period_overlaps(session: &mut Session, told: &str) {
    let overlapping = session.lines(
        "SELECT a.period_start, a.period_end, b.period_start, b.period_end FROM talkmeter.period AS a
         JOIN talkmeter.period AS b ON (b.period_start, b.period_end) > (a.period_start, a.period_end)
             AND b.period_start < a.period_end",
    );
    assert_eq!(overlapping, [""; 0], "{told}");
}

// --- Units without a plan ---

#[test]
fn units_before_the_first_since_wait_although_they_are_in_its_period() {
    let (_database, mut session) = metered();
    answer(&mut session, "2026-03-10 11:59:59.999999");
    answer(&mut session, "2026-03-10 12:00");
    subscribe(&mut session, "two", "2026-03-10 12:00+00", "UTC", 1);
    assert_eq!(waiting(&mut session), ["c0"]);
    assert_eq!(ledger(&mut session, "conversation, period_start"), ["c1|2026-03-01 00:00:00+00"]);
    assert_sound(&mut session);
}

#[test]
fn subscribe_posts_what_waited_in_the_order_of_instants_each_in_its_own_period() {
    let (_database, mut session) = metered();
    for at in ["2026-04-02 00:00", "2026-03-03 00:00", "2026-03-01 00:00", "2026-03-02 00:00", "2026-04-01 00:00"] {
        answer(&mut session, at);
    }
    subscribe(&mut session, "two", "2026-03-01", "UTC", 1);
    assert_eq!(
        ledger(&mut session, "conversation, tier, period_start::date"),
        [
            "c2|included|2026-03-01",
            "c3|included|2026-03-01",
            "c1|overage|2026-03-01",
            "c4|included|2026-04-01",
            "c0|included|2026-04-01"
        ]
    );
    assert_eq!(waiting(&mut session), [""; 0]);
    assert_sound(&mut session);
}

#[test]
fn a_part_that_is_taken_back_while_it_waits_waits_no_more() {
    let (_database, mut session) = metered();
    answer(&mut session, "2026-03-10 00:00");
    session.run("UPDATE messages SET kind = 'note'");
    assert_eq!(waiting(&mut session), [""; 0]);
    subscribe(&mut session, "two", "2026-03-01", "UTC", 1);
    assert_eq!(ledger(&mut session, "*"), [""; 0]);
    assert_sound(&mut session);
}

// --- Other plans ---

/// Changes the plan of `acme`, and returns from when on.
fn change_plan(session: &mut Session, plan: &str, at: &str) -> String {
    session.line(&format!("SELECT talkmeter.change_plan('acme', '{plan}', '{at}')"))
}

#[test]
fn an_upgrade_works_at_once() {
    let (_database, mut session) = on_plan("two");
    assert_eq!(change_plan(&mut session, "five", "2026-03-10 12:00+00"), "2026-03-10 12:00:00+00");
    answer(&mut session, "2026-03-10 11:59:59.999999");
    answer(&mut session, "2026-03-10 12:00");
    assert_eq!(ledger(&mut session, "plan"), ["two", "five"]);
}

#[test]
fn as_many_units_at_a_lower_rate_are_an_upgrade() {
    let (_database, mut session) = on_plan("two");
    assert_eq!(change_plan(&mut session, "two, cheaper", "2026-03-10"), "2026-03-10 00:00:00+00");
    // More units are one even if each costs more beyond them.
    assert_eq!(change_plan(&mut session, "five", "2026-03-11"), "2026-03-11 00:00:00+00");
}

#[test]
fn a_downgrade_waits_for_the_next_period() {
    let (_database, mut session) = on_plan("five");
    for plan in ["none", "two", "five"] {
        assert_eq!(change_plan(&mut session, plan, "2026-03-10"), "2026-04-01 00:00:00+00", "{plan}");
    }
    change_plan(&mut session, "none", "2026-03-10");
    answer(&mut session, "2026-03-31 23:59:59.999999");
    answer(&mut session, "2026-04-01 00:00");
    assert_eq!(ledger(&mut session, "plan, tier"), ["five|included", "none|overage"]);
}

#[test]
fn as_many_units_at_a_higher_rate_are_a_downgrade() {
    let (_database, mut session) = on_plan("two, cheaper");
    assert_eq!(change_plan(&mut session, "two", "2026-03-10"), "2026-04-01 00:00:00+00");
}

#[test]
fn a_downgrade_waits_for_the_tenants_own_next_midnight() {
    let (_database, mut session) = metered();
    subscribe(&mut session, "five", "2026-01-01", "Asia/Tokyo", 31);
    assert_eq!(change_plan(&mut session, "two", "2026-02-10"), "2026-02-27 15:00:00+00");
}

#[test]
fn a_plan_in_another_currency_waits_for_the_next_period() {
    let (_database, mut session) = on_plan("two");
    assert_eq!(change_plan(&mut session, "nine dollars", "2026-03-10"), "2026-04-01 00:00:00+00");
    answer(&mut session, "2026-03-31 00:00");
    answer(&mut session, "2026-04-01 00:00");
    assert_eq!(ledger(&mut session, "plan, currency"), ["two|EUR", "nine dollars|USD"]);
}

#[test]
fn after_an_upgrade_what_remains_is_the_new_allowance_less_the_included_units() {
    let (_database, mut session) = on_plan("two");
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-01')");
    for _ in 0..5 {
        answer(&mut session, "2026-03-05 00:00");
    }
    change_plan(&mut session, "five", "2026-03-10");
    for _ in 0..4 {
        answer(&mut session, "2026-03-15 00:00");
    }
    let paid = ledger(&mut session, "tier, amount");
    // Pack and overage units do not count against the new allowance, and the overage already billed stands.
    assert_eq!(paid[..5], ["included|0", "included|0", "pack|0", "pack|0", "overage|0.125"]);
    assert_eq!(paid[5..], ["included|0", "included|0", "included|0", "overage|0.5"]);
    assert_sound(&mut session);
}

#[test]
fn a_downgrade_below_what_was_used_takes_nothing_back() {
    let (_database, mut session) = on_plan("five");
    for _ in 0..4 {
        answer(&mut session, "2026-03-05 00:00");
    }
    change_plan(&mut session, "two", "2026-03-10");
    answer(&mut session, "2026-03-15 00:00");
    assert_eq!(ledger(&mut session, "tier"), ["included"; 5]);
}

#[test]
fn the_last_change_wins() {
    let (_database, mut session) = on_plan("two");
    change_plan(&mut session, "none", "2026-03-10");
    change_plan(&mut session, "two, cheaper", "2026-03-11");
    answer(&mut session, "2026-03-20 00:00");
    answer(&mut session, "2026-04-20 00:00");
    assert_eq!(ledger(&mut session, "plan"), ["two, cheaper", "two, cheaper"]);
    // To be taken back, a downgrade is followed by the plan that is.
    change_plan(&mut session, "none", "2026-05-10");
    change_plan(&mut session, "two, cheaper", "2026-05-11");
    answer(&mut session, "2026-06-20 00:00");
    assert_eq!(ledger(&mut session, "plan")[2..], ["two, cheaper"]);
}

#[test]
fn of_two_changes_at_one_instant_the_later_call_holds() {
    for (first, second) in [("five", "two, cheaper"), ("two, cheaper", "five")] {
        let (_database, mut session) = on_plan("two");
        // Each holds from that instant on, the larger and the smaller.
        session.run(&format!("SELECT talkmeter.subscribe('acme', '{first}', '2026-03-10', 'UTC', 1)"));
        session.run(&format!("SELECT talkmeter.subscribe('acme', '{second}', '2026-03-10', 'UTC', 1)"));
        answer(&mut session, "2026-03-09 23:59:59.999999");
        answer(&mut session, "2026-03-10 00:00");
        assert_eq!(ledger(&mut session, "plan"), ["two", second]);
    }
    let (_database, mut session) = on_plan("five");
    // The downgrade is overruled by what is said after it of the same instant.
    change_plan(&mut session, "none", "2026-03-10");
    assert_eq!(change_plan(&mut session, "five", "2026-03-10"), "2026-04-01 00:00:00+00");
    answer(&mut session, "2026-04-01 00:00");
    assert_eq!(ledger(&mut session, "plan"), ["five"]);
}

#[test]
fn the_rate_is_that_of_the_charge_instant_however_late_the_unit_comes() {
    let (_database, mut session) = on_plan("two");
    change_plan(&mut session, "two, cheaper", "2026-03-10 12:00+00");
    for at in ["2026-03-01 00:00", "2026-03-02 00:00", "2026-03-10 12:00", "2026-03-10 11:59:59.999999"] {
        answer(&mut session, at);
    }
    assert_eq!(ledger(&mut session, "plan, tier, amount")[2..], ["two, cheaper|overage|0.1", "two|overage|0.125"]);
    // What is taken back gives back what it had cost.
    session.run("UPDATE messages SET kind = 'note' WHERE conversation_id = 'c3'");
    assert_eq!(ledger(&mut session, "amount, reverses")[4..], ["-0.125|4"]);
    assert_eq!(session.line("SELECT overage_units, overage_amount FROM talkmeter.period"), "1|0.100");
    assert_sound(&mut session);
}

#[test]
fn a_change_of_the_plan_keeps_zone_anchor_day_and_policy() {
    let (_database, mut session) = metered();
    session.run(
        "SELECT talkmeter.subscribe('acme', 'two', '2026-01-01', 'Asia/Tokyo', 15, 'agent_red@1'),
             talkmeter.change_plan('acme', 'five', '2026-03-10'), talkmeter.change_plan('acme', 'two', '2026-03-11')",
    );
    let terms = "SELECT timezone, anchor_day, policy FROM talkmeter.subscription";
    assert_eq!(session.lines(terms), ["Asia/Tokyo|15|agent_red@1"; 3]);
    let march = "2026-02-14 15:00:00+00|2026-03-14 15:00:00+00";
    assert_eq!(period(&mut session, "2026-03-10 00:00"), march);
}

#[test]
fn a_plan_changes_only_where_there_is_one() {
    let (_database, mut session) = on_plan("two");
    assert_eq!(session.refused("SELECT talkmeter.change_plan('other', 'five')"), NO_PLAN_THEN);
    assert_eq!(session.refused("SELECT talkmeter.change_plan('acme', 'five', '2025-12-31')"), NO_PLAN_THEN);
    session.run("SELECT talkmeter.cancel('acme', '2026-03-10')");
    assert_eq!(session.refused("SELECT talkmeter.change_plan('acme', 'five', '2026-03-10')"), NO_PLAN_THEN);
}

#[test]
fn a_change_that_overrules_a_cancelling_posts_the_units_that_waited() {
    let (_database, mut session) = on_plan("two");
    session.run("SELECT talkmeter.cancel('acme', '2026-03-10')");
    answer(&mut session, "2026-03-12 00:00");
    assert_eq!(waiting(&mut session), ["c0"]);
    change_plan(&mut session, "five", "2026-03-05");
    // The plan is in force at the unit's instant now; one that comes later is charged.
    answer(&mut session, "2026-03-12 00:00");
    assert_eq!(waiting(&mut session), [""; 0]);
    assert_eq!(ledger(&mut session, "plan"), ["five", "five"]);
}

// --- Cancelling ---

#[test]
fn after_a_cancelling_units_wait() {
    let (_database, mut session) = on_plan("two");
    session.run("SELECT talkmeter.cancel('acme', '2026-03-10 12:00+00')");
    answer(&mut session, "2026-03-10 11:59:59.999999");
    answer(&mut session, "2026-03-10 12:00");
    answer(&mut session, "2026-05-01 00:00");
    assert_eq!(ledger(&mut session, "conversation"), ["c0"]);
    assert_eq!(waiting(&mut session), ["c1", "c2"]);
    // A late one of before it is charged.
    answer(&mut session, "2026-03-01 00:00");
    assert_eq!(ledger(&mut session, "conversation"), ["c0", "c3"]);
    assert_sound(&mut session);
}

#[test]
fn packs_survive_changes_of_the_plan_and_cancelling() {
    let (_database, mut session) = on_plan("none");
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-01')");
    answer(&mut session, "2026-03-05 00:00");
    session.run("SELECT talkmeter.cancel('acme', '2026-03-10')");
    answer(&mut session, "2026-03-12 00:00");
    let packs = "SELECT remaining, expires_at FROM talkmeter.packs";
    assert_eq!(session.lines(packs), ["1|2026-05-30 00:00:00+00"]);
    subscribe(&mut session, "none", "2026-03-10", "UTC", 1);
    assert_eq!(ledger(&mut session, "tier, pack_id"), ["pack|1", "pack|1"]);
    assert_eq!(session.lines(packs), ["0|2026-05-30 00:00:00+00"]);
}

#[test]
fn a_month_that_is_cancelled_and_taken_up_again_has_one_allowance() {
    let (_database, mut session) = on_plan("two");
    answer(&mut session, "2026-03-05 00:00");
    session.run("SELECT talkmeter.cancel('acme', '2026-03-10')");
    answer(&mut session, "2026-03-12 00:00");
    subscribe(&mut session, "two", "2026-03-11", "UTC", 1);
    answer(&mut session, "2026-03-20 00:00");
    assert_eq!(ledger(&mut session, "tier"), ["included", "included", "overage"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.period"), "1");
}

#[test]
fn only_who_is_on_a_plan_can_be_cancelled() {
    let (_database, mut session) = on_plan("two");
    assert_eq!(session.refused("SELECT talkmeter.cancel('other')"), NO_PLAN_THEN);
    assert_eq!(session.refused("SELECT talkmeter.cancel('acme', '2025-12-31')"), NO_PLAN_THEN);
    session.run("SELECT talkmeter.cancel('acme')");
    assert_eq!(session.refused("SELECT talkmeter.cancel('acme')"), NO_PLAN_THEN);
    assert_eq!(session.lines("SELECT tenant FROM talkmeter.usage"), [""; 0]);
}

// --- Packs that are taken back ---

#[test]
fn a_pack_that_is_refunded_pays_no_more() {
    let (_database, mut session) = on_plan("none");
    session.run(
        "SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-01'),
             talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-02'), talkmeter.refund_pack('acme', 1)",
    );
    for _ in 0..3 {
        answer(&mut session, "2026-03-05 00:00");
    }
    assert_eq!(ledger(&mut session, "tier, pack_id"), ["pack|2", "pack|2", "overage|"]);
    assert_sound(&mut session);
}

#[test]
fn only_a_pack_of_which_no_unit_was_used_can_be_refunded_and_only_once() {
    let (_database, mut session) = on_plan("none");
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-01')");
    answer(&mut session, "2026-03-05 00:00");
    let refund = "SELECT talkmeter.refund_pack('acme', 1)";
    assert_eq!(session.refused(refund), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    // Its unit is given back: now it is unused.
    session.run("SELECT talkmeter.credit('acme', 1, 'sorry')");
    session.run(refund);
    assert_eq!(session.refused(refund), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(session.refused("SELECT talkmeter.refund_pack('acme', 2)"), SqlState::UNDEFINED_OBJECT);
    assert_eq!(session.refused("SELECT talkmeter.refund_pack('other', 1)"), SqlState::UNDEFINED_OBJECT);
    assert_sound(&mut session);
}

#[test]
fn a_unit_that_its_refunded_pack_had_paid_is_not_given_back_to_it() {
    let (_database, mut session) = on_plan("none");
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-01')");
    answer(&mut session, "2026-03-05 00:00");
    // The unit goes back, the pack is refunded, and the unit comes again: nothing is left to pay it.
    session.run("UPDATE messages SET kind = 'note'");
    session.run("SELECT talkmeter.refund_pack('acme', 1)");
    session.run("UPDATE messages SET kind = 'exchange'");
    assert_eq!(ledger(&mut session, "tier, reverses"), ["pack|", "pack|1", "overage|"]);
    assert_sound(&mut session);
}

#[test]
fn a_purchase_and_a_refund_at_once_leave_the_pack_used_or_refunded_and_not_both() {
    let (database, mut session) = on_plan("none");
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-01')");
    let mut other = database.connect();
    let pid = other.pid();
    session.run("BEGIN");
    session.run("SELECT talkmeter.refund_pack('acme', 1)");
    let charged = thread::spawn(move || answer(&mut other, "2026-03-05 00:00"));
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    charged.join().expect("the application is not held up");
    assert_eq!(ledger(&mut session, "tier"), ["overage"]);
    assert_sound(&mut session);
}

// --- Misuse ---

#[test]
fn misuse_is_refused_with_the_state_that_says_why() {
    let (_database, mut session) = on_plan("two");
    for (call, state) in [
        ("subscribe(NULL, 'two')", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("subscribe('acme', NULL)", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("subscribe('acme', 'two', timezone => NULL)", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("subscribe('acme', 'tow')", SqlState::UNDEFINED_OBJECT),
        ("subscribe('acme', 'two', 'infinity')", SqlState::DATETIME_FIELD_OVERFLOW),
        ("subscribe('acme', 'two', '-infinity')", SqlState::DATETIME_FIELD_OVERFLOW),
        ("subscribe('acme', 'two', '12000-01-01')", SqlState::DATETIME_FIELD_OVERFLOW),
        ("subscribe('acme', 'two', timezone => 'europe/berlin')", SqlState::INVALID_PARAMETER_VALUE),
        ("subscribe('acme', 'two', timezone => '+01')", SqlState::INVALID_PARAMETER_VALUE),
        ("subscribe('acme', 'two', timezone => '')", SqlState::INVALID_PARAMETER_VALUE),
        ("subscribe('acme', 'two', anchor_day => 0)", SqlState::INVALID_PARAMETER_VALUE),
        ("subscribe('acme', 'two', anchor_day => 32)", SqlState::INVALID_PARAMETER_VALUE),
        ("subscribe('acme', 'two', policy => 'agent_blue')", SqlState::UNDEFINED_OBJECT),
        ("subscribe(repeat('x', 513), 'two')", SqlState::STRING_DATA_RIGHT_TRUNCATION),
        ("change_plan(NULL, 'two')", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("change_plan('acme', NULL)", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("change_plan('acme', 'tow')", SqlState::UNDEFINED_OBJECT),
        ("change_plan('acme', 'two', 'infinity')", SqlState::DATETIME_FIELD_OVERFLOW),
        ("cancel(NULL)", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("cancel('acme', '-infinity')", SqlState::DATETIME_FIELD_OVERFLOW),
        ("buy_pack('acme', 'piar')", SqlState::UNDEFINED_OBJECT),
        ("buy_pack(NULL, 'pair')", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("buy_pack('acme', 'pair', purchased_at => 'infinity')", SqlState::DATETIME_FIELD_OVERFLOW),
        ("buy_pack('acme', 'pair', repeat('x', 513))", SqlState::STRING_DATA_RIGHT_TRUNCATION),
        ("refund_pack(NULL, 1)", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("refund_pack('acme', NULL)", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("period_at('acme', 'infinity')", SqlState::DATETIME_FIELD_OVERFLOW),
    ] {
        assert_eq!(session.refused(&format!("SELECT talkmeter.{call}")), state, "{call}");
    }
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.subscription"), "1");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.packs"), "0");
}

#[test]
fn a_misspelt_zone_or_plan_is_answered_with_the_names_that_are_near() {
    let (_database, mut session) = metered();
    for (call, near) in [
        ("subscribe('acme', 'two', timezone => 'europe/berlin')", "Europe/Berlin"),
        ("subscribe('acme', 'fife')", "five"),
        ("buy_pack('acme', 'piar')", "pair"),
    ] {
        let error = session.client.batch_execute(&format!("SELECT talkmeter.{call}")).expect_err(call);
        let hint = error.as_db_error().and_then(|error| error.hint()).unwrap_or_default().to_owned();
        assert!(hint.contains(near), "{call}: {hint}");
    }
}

#[test]
fn a_new_zone_divides_days_from_the_next_period_on() {
    let (_database, mut session) = on_plan("five");
    subscribe(&mut session, "five", "2026-03-10", "Asia/Tokyo", 1);
    for at in ["2026-03-09 20:00", "2026-03-20 20:00", "2026-05-20 20:00"] {
        answer(&mut session, at);
    }
    assert_eq!(
        session.lines("SELECT day, used FROM talkmeter.usage_daily ORDER BY day"),
        ["2026-03-09|1", "2026-03-20|1", "2026-05-21|1"]
    );
    for day in ["2026-03-09", "2026-03-10", "2026-03-20", "2026-03-21", "2026-05-20", "2026-05-21"] {
        session.run(&format!("SELECT talkmeter.reconcile('{day}')"));
    }
    assert_eq!(
        session
            .lines("SELECT day, recounted FROM talkmeter.reconciliations WHERE charged + recounted > 0 ORDER BY day"),
        ["2026-03-09|1", "2026-03-20|1", "2026-05-21|1"]
    );
}

#[test]
fn a_zone_cannot_change_before_a_month_that_was_opened() {
    let (_database, mut session) = on_plan("five");
    answer(&mut session, "2026-05-20 12:00");
    let at = |since: &str| format!("SELECT talkmeter.subscribe('acme', 'five', '{since}', 'Asia/Tokyo', 1)");
    assert_eq!(session.refused(&at("2026-03-10")), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    session.run(&at("2026-05-01"));
}

#[test]
fn a_month_that_lists_a_late_unit_is_opened_and_no_other_anchor_day_divides_it_anew() {
    let (_database, mut session) = on_plan("none");
    let now = session.line("SELECT date_trunc('month', now(), 'UTC')");
    let day = |months: &str| format!("(SELECT date_trunc('month', now(), 'UTC') {months})");
    let subscribe = |since: &str, anchor_day: u32| {
        format!(
            "SELECT talkmeter.subscribe('acme', 'none', {since}, timezone => 'Europe/Berlin', anchor_day => {anchor_day})"
        )
    };
    answer(&mut session, "2026-01-10 12:00");
    session.run("SELECT talkmeter.finalize('acme', '2026-01-01')");
    session.run(&subscribe(&day("- interval '1 month'"), 15));
    answer(&mut session, "2026-01-11 12:00");
    let listed = session.line("SELECT posted_period_start FROM talkmeter.charges WHERE charge_id = 2");
    assert_eq!(listed, now);
    session.run(&subscribe(&day(""), 1));
    let lines = session.lines(&format!("SELECT kind, quantity FROM talkmeter.statement('acme', '{listed}')"));
    assert_eq!(lines, ["late|1"]);
    assert_sound(&mut session);
}

#[test]
fn another_anchor_day_is_refused_where_its_months_would_overlap_a_frozen_one() {
    let database = Database::with_messages("frozen_anchor", "lutingenie", None);
    let mut session = database.connect();
    session.run(
        "SELECT talkmeter.subscribe('acme', 'agent_red/starter', '2026-01-01', anchor_day => 1);
         SELECT talkmeter.buy_pack('acme', 'agent_red/1000', purchased_at => '2026-04-11');
         SELECT talkmeter.finalize('acme', '2026-04-01')",
    );
    let subscribe = |since: &str, anchor_day: i32| {
        format!("SELECT talkmeter.subscribe('acme', 'agent_red/starter', '{since}', anchor_day => {anchor_day})")
    };
    let refused =
        session.client.query(&subscribe("2026-02-12", 5), &[]).expect_err("its April would list the pack again");
    let error = refused.as_db_error().expect("an error of the server's");
    assert_eq!(error.code().code(), "55000");
    assert_eq!(error.detail(), Some("Its last finalized month ends at 2026-05-01T00:00:00+00:00."));
    session.run(&subscribe("2026-02-12", 1));
    session.run(&subscribe("2026-05-01", 5));
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}
