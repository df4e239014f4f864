//! How long does a pack pay that lasts for its period, or for ever (rules 4.1.4, 4.3.12)?

use talkmeter_tests::{Database, Session, assert_sound, attach, create_messages, messages_mapping, tell};

const NONE: [&str; 0] = [];

/// A database with a plan that includes nothing, a pack that lasts for its period, and one that does not expire.
fn offers() -> (Database, Session) {
    let database = Database::fresh("lifetimes");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "none", "included": 0, "overage_rate": 1, "currency": "USD"}'),
               talkmeter.define_pack('{"name": "freddy/100", "size": 100, "price": 49, "currency": "USD", "valid_for": "period"}'),
               talkmeter.define_pack('{"name": "freddy/welcome", "size": 500, "price": 0, "currency": "USD", "valid_for": "never"}')"#,
    );
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    (database, session)
}

fn subscribe(session: &mut Session, since: &str, zone: &str, anchor_day: u8) {
    session.run(&format!("SELECT talkmeter.subscribe('acme', 'none', '{since}', '{zone}', {anchor_day})"));
}

fn buy(session: &mut Session, pack: &str, at: &str) {
    session.run(&format!("SELECT talkmeter.buy_pack('acme', '{pack}', purchased_at => '{at}')"));
}

/// A new conversation that is answered at `at`.
fn answer(session: &mut Session, at: &str) {
    let next = session.line("SELECT count(*) FROM messages");
    tell(session, "acme", &format!("c{next}"), &format!("{at} exchange"));
}

/// Who paid for each unit, in ledger order.
fn tiers(session: &mut Session) -> Vec<String> {
    session.lines("SELECT concat_ws(' ', tier, pack_id) FROM talkmeter.charges ORDER BY charge_id")
}

fn expiries(session: &mut Session) -> Vec<String> {
    session.lines("SELECT expires_at FROM talkmeter.packs ORDER BY pack_id")
}

#[test]
fn a_pack_for_the_period_pays_to_its_last_microsecond_and_not_in_the_next() {
    let (_database, mut session) = offers();
    subscribe(&mut session, "2026-01-01", "UTC", 1);
    buy(&mut session, "freddy/100", "2026-03-20 00:00+00");
    for at in ["2026-03-19 23:59:59.999999", "2026-03-20 00:00", "2026-03-31 23:59:59.999999", "2026-04-01 00:00"] {
        answer(&mut session, at);
    }
    assert_eq!(tiers(&mut session), ["overage", "pack 1", "pack 1", "overage"]);
    let lost = session.lines("SELECT pack, expired_unused, expires_at, expires_day FROM talkmeter.expired_packs");
    assert_eq!(lost, ["freddy/100|98|2026-04-01 00:00:00+00|2026-04-01"]);
    assert_sound(&mut session);
}

#[test]
fn the_period_is_that_of_the_zone_and_the_anchor_day_at_the_purchase() {
    let (_database, mut session) = offers();
    for (number, (zone, anchor_day, bought, expires)) in [
        // The clock goes forward on the 29th of March.
        ("Europe/Berlin", 1, "2026-03-20 00:00+00", "2026-03-31 22:00:00+00"),
        ("Europe/Berlin", 1, "2026-03-31 21:59:59.999999+00", "2026-03-31 22:00:00+00"),
        ("Europe/Berlin", 1, "2026-03-31 22:00+00", "2026-04-30 22:00:00+00"),
        ("America/New_York", 15, "2026-10-20 00:00+00", "2026-11-15 05:00:00+00"),
        // A month without a 31st begins on its last day.
        ("UTC", 31, "2026-02-01 00:00+00", "2026-02-28 00:00:00+00"),
        ("UTC", 31, "2026-02-28 00:00+00", "2026-03-31 00:00:00+00"),
        ("UTC", 31, "2026-04-29 23:59+00", "2026-04-30 00:00:00+00"),
        // There the midnight with which the 1st of October began was skipped.
        ("America/Asuncion", 1, "2023-09-15 00:00+00", "2023-10-01 04:00:00+00"),
    ]
    .into_iter()
    .enumerate()
    {
        session.run(&format!(
            "SELECT talkmeter.subscribe('t{number}', 'none', '2023-01-01', '{zone}', {anchor_day}),
                 talkmeter.buy_pack('t{number}', 'freddy/100', purchased_at => '{bought}')"
        ));
        let expiry = session.line(&format!("SELECT expires_at FROM talkmeter.packs WHERE tenant = 't{number}'"));
        assert_eq!(expiry, expires, "{zone}, from the {anchor_day}, bought at {bought}");
    }
    assert_sound(&mut session);
}

#[test]
fn what_is_subscribed_to_later_does_not_move_the_expiry() {
    let (_database, mut session) = offers();
    subscribe(&mut session, "2026-01-01", "UTC", 1);
    buy(&mut session, "freddy/100", "2026-03-20 00:00+00");
    subscribe(&mut session, "2026-03-21", "Asia/Tokyo", 25);
    session.run("SELECT talkmeter.cancel('acme', '2026-03-22')");
    buy(&mut session, "freddy/100", "2026-03-23 00:00+00");
    let [first, second] = expiries(&mut session).try_into().expect("two packs");
    assert_eq!(first, "2026-04-01 00:00:00+00");
    let own = "SELECT period_end FROM talkmeter.period_at('acme', '2026-03-23 00:00+00')";
    assert_eq!(second, session.line(own), "a tenant that has cancelled keeps its months");
    assert_sound(&mut session);
}

#[test]
fn of_a_tenant_without_a_subscription_by_then_it_is_a_month_of_its_first_calendar_or_of_utc() {
    let (_database, mut session) = offers();
    buy(&mut session, "freddy/100", "2026-01-20 00:00+00");
    subscribe(&mut session, "2026-04-10", "Europe/Berlin", 5);
    // The first period is the whole month that holds its since.
    buy(&mut session, "freddy/100", "2026-04-06 00:00+00");
    buy(&mut session, "freddy/100", "2026-01-20 00:00+00");
    assert_eq!(expiries(&mut session), ["2026-02-01 00:00:00+00", "2026-05-04 22:00:00+00", "2026-02-04 23:00:00+00"]);
    assert_sound(&mut session);
}

#[test]
fn a_late_unit_is_paid_by_the_pack_of_its_own_period_also_if_that_is_finalized() {
    let (_database, mut session) = offers();
    subscribe(&mut session, "2026-01-01", "UTC", 1);
    buy(&mut session, "freddy/100", "2026-03-20 00:00+00");
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    answer(&mut session, "2026-04-02 10:00");
    answer(&mut session, "2026-03-31 10:00");
    assert_eq!(tiers(&mut session), ["overage", "pack 1"]);
    // One that is recorded when its period is finalized lasts to the end of that too, and is on a later statement.
    buy(&mut session, "freddy/100", "2026-03-25 00:00+00");
    assert_eq!(expiries(&mut session), ["2026-04-01 00:00:00+00"; 2]);
    assert_eq!(
        session.lines("SELECT quantity FROM talkmeter.statement('acme', '2026-03-01') WHERE kind = 'pack'"),
        ["1"]
    );
    assert_sound(&mut session);
}

#[test]
fn a_pack_that_never_expires_pays_at_any_time_and_each_view_says_so() {
    let (_database, mut session) = offers();
    subscribe(&mut session, "2026-01-01", "UTC", 1);
    buy(&mut session, "freddy/welcome", "2026-01-05 00:00+00");
    answer(&mut session, "2026-01-05 00:00");
    answer(&mut session, "2026-10-31 10:00");
    assert_eq!(tiers(&mut session), ["pack 1", "pack 1"]);
    assert_eq!(
        session.lines("SELECT remaining, expires_at, expires_day IS NULL FROM talkmeter.packs"),
        ["498|infinity|t"]
    );
    assert_eq!(session.lines("SELECT * FROM talkmeter.expired_packs"), NONE);
    assert_eq!(session.line("SELECT talkmeter.balance('acme')"), "498");
    assert_eq!(session.lines("SELECT pack_balance FROM talkmeter.usage"), ["498"]);
    assert_eq!(session.lines("SELECT projected_used FROM talkmeter.usage_projection"), ["0"]);
    session.run("SELECT talkmeter.finalize('acme', '2026-01-01')");
    let lines =
        session.lines("SELECT kind, description, quantity, amount FROM talkmeter.statement('acme', '2026-01-01')");
    assert_eq!(lines, ["pack|freddy/welcome|1|0.00"]);
    let simulated = session.lines("SELECT pack_units, overage_units FROM talkmeter.simulate('lutingenie')");
    assert_eq!(simulated, ["2|0"]);
    assert_sound(&mut session);
}

#[test]
fn a_pack_that_expires_after_the_last_year_that_is_metered_shows_beside_the_others() {
    let (_database, mut session) = offers();
    session.run(
        r#"SELECT talkmeter.define_pack('{"name": "long", "size": 1, "price": 1, "currency": "USD", "valid_for": "3000000 days"}')"#,
    );
    buy(&mut session, "long", "2026-01-05 00:00+00");
    buy(&mut session, "freddy/100", "9999-12-31 23:00+00");
    assert_eq!(
        session.lines("SELECT pack, expires_at, expires_day FROM talkmeter.packs ORDER BY pack_id"),
        ["long|10239-09-26 00:00:00+00|", "freddy/100|10000-01-01 00:00:00+00|"]
    );
    assert_sound(&mut session);
}

#[test]
fn what_is_on_offer_and_what_a_bill_says_name_the_lifetime() {
    let (_database, mut session) = offers();
    subscribe(&mut session, "2026-01-01", "UTC", 1);
    buy(&mut session, "freddy/100", "2026-01-05 00:00+00");
    buy(&mut session, "freddy/welcome", "2026-01-05 00:00+00");
    let offered = session.lines("SELECT valid_for FROM talkmeter.pack_offers WHERE name LIKE 'freddy%' ORDER BY name");
    assert_eq!(offered, ["period", "never"]);
    let prices = session.lines("SELECT name, valid_for FROM talkmeter.prices WHERE kind = 'pack' ORDER BY name");
    assert_eq!(prices, ["freddy/100|period", "freddy/welcome|never"]);
    let told = session.lines(
        "SELECT detail FROM talkmeter.bill_file('acme', '2026-01') WHERE section = 'price' AND detail LIKE 'pack%' ORDER BY item",
    );
    assert_eq!(told, ["pack of 100 units, lasts until its period ends", "pack of 500 units, does not expire"]);
}

#[test]
fn one_that_is_nearly_used_up_is_told_of() {
    let (_database, mut session) = offers();
    subscribe(&mut session, "2026-01-01", "UTC", 1);
    session.run(
        r#"SELECT talkmeter.define_pack('{"name": "one", "size": 1, "price": 1, "currency": "USD", "valid_for": "never"}');
           SELECT talkmeter.buy_pack('acme', 'one', purchased_at => '2026-01-05')"#,
    );
    answer(&mut session, "2026-02-05 00:00");
    assert_eq!(session.lines("SELECT kind FROM talkmeter.alerts WHERE kind = 'pack_low'"), ["pack_low"]);
}

#[test]
fn verify_names_a_pack_that_lasts_longer_than_its_offer_says() {
    let (_database, mut session) = offers();
    subscribe(&mut session, "2026-01-01", "UTC", 1);
    buy(&mut session, "freddy/100", "2026-01-05 00:00+00");
    buy(&mut session, "freddy/welcome", "2026-01-05 00:00+00");
    session.run(
        "UPDATE talkmeter.pack SET expires_at = 'infinity' WHERE pack_id = 1;
         UPDATE talkmeter.pack SET expires_at = '2027-01-01' WHERE pack_id = 2",
    );
    let problems = session.lines("SELECT problem, object FROM talkmeter.verify() ORDER BY 2");
    assert_eq!(problems, ["pack_differs_from_offer|pack 1", "pack_differs_from_offer|pack 2"]);
}
