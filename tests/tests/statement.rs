//! What does a statement list, and does it stay what it was (SPEC 4.6)?

use talkmeter_tests::{Database, Session, attach, create_messages, messages_mapping, tell};

const MARCH: &str = "2026-03-01 00:00+00";
const APRIL: &str = "2026-04-01 00:00+00";

/// Plan `two` includes 2 units and costs 10, then 0.125 a unit; `five` includes 5 and costs 30. A `pair` is 2 units for 7.
fn shop() -> (Database, Session) {
    let database = Database::fresh("statement");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "price": 10, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "five", "included": 5, "overage_rate": 0.1, "price": 30, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "yen", "included": 0, "overage_rate": 0.5, "currency": "JPY"}');
           SELECT talkmeter.define_plan('{"name": "dinar", "included": 0, "overage_rate": 0.0005, "currency": "KWD"}');
           SELECT talkmeter.define_pack('{"name": "pair", "size": 2, "price": 7, "currency": "USD", "valid_for": "20 days"}')"#,
    );
    (database, session)
}

fn subscribe(session: &mut Session, plan: &str, since: &str, anchor_day: u32) {
    session.run(&format!("SELECT talkmeter.subscribe('acme', '{plan}', '{since}', anchor_day => {anchor_day})"));
}

/// So many conversations, each one unit, on a day.
fn units(session: &mut Session, day: &str, count: usize) {
    for number in 0..count {
        tell(session, "acme", &format!("{day} {number}"), &format!("{day} 12:00 exchange"));
    }
}

fn statement(session: &mut Session, start: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT kind, description, quantity, amount, currency, of_period_start::date FROM talkmeter.statement('acme', '{start}')"
    ))
}

fn finalize(session: &mut Session, start: &str) {
    session.run(&format!("SELECT talkmeter.finalize('acme', '{start}')"));
}

fn is_sound(session: &mut Session) {
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn a_statement_lists_base_price_packs_and_overage_and_its_frozen_lines_are_the_same() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-05')");
    units(&mut session, "2026-03-10", 7);
    let lines =
        ["base|two|1|10.00|USD|", "pack|pair|1|7.00|USD|", "overage|units beyond allowance and packs|3|0.38|USD|"];
    assert_eq!(statement(&mut session, MARCH), lines);
    finalize(&mut session, MARCH);
    assert_eq!(statement(&mut session, MARCH), lines);
    is_sound(&mut session);
}

#[test]
fn what_comes_after_finalization_is_listed_by_the_open_period_and_names_its_own() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    units(&mut session, "2026-03-10", 3);
    finalize(&mut session, MARCH);
    let frozen = statement(&mut session, MARCH);
    units(&mut session, "2026-03-11", 1);
    session.run("SELECT talkmeter.credit('acme', 3, 'goodwill')");
    assert_eq!(statement(&mut session, MARCH), frozen);
    let open = session.line("SELECT period_start FROM talkmeter.usage");
    assert_eq!(
        statement(&mut session, &open),
        ["base|two|1|10.00|USD|", "late|overage|1|0.13|USD|2026-03-01", "credit|overage|-1|-0.13|USD|2026-03-01"]
    );
    is_sound(&mut session);
}

#[test]
fn an_amount_has_the_digits_of_its_currency_and_is_rounded_once_half_away_from_zero() {
    for (plan, amount) in [("yen", "2|JPY"), ("dinar", "0.002|KWD"), ("two", "0.13|USD")] {
        let (_database, mut session) = shop();
        subscribe(&mut session, plan, MARCH, 1);
        units(&mut session, "2026-03-10", 3);
        let found = session.line(&format!(
            "SELECT amount, currency FROM talkmeter.statement('acme', '{MARCH}') WHERE kind = 'overage'"
        ));
        assert_eq!(found, amount, "{plan}");
    }
}

#[test]
fn charges_of_periods_that_start_together_are_each_on_one_statement() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", "2026-02-01", 30);
    units(&mut session, "2026-03-01", 3);
    subscribe(&mut session, "two", "2026-03-05", 31);
    units(&mut session, "2026-03-06", 4);
    finalize(&mut session, "2026-02-28");
    finalize(&mut session, "2026-02-28");
    let overage = "SELECT sum(quantity) FROM talkmeter.statement('acme', '2026-02-28') WHERE kind = 'overage'";
    assert_eq!(session.line(overage), "3");
    is_sound(&mut session);
}

#[test]
fn a_subscription_with_another_anchor_day_bills_no_base_price_and_no_pack_twice() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    subscribe(&mut session, "five", "2026-03-20", 20);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-25')");
    assert_eq!(statement(&mut session, MARCH), ["base|two|1|10.00|USD|"]);
    assert_eq!(statement(&mut session, "2026-03-20"), ["base|five|1|30.00|USD|", "pack|pair|1|7.00|USD|"]);
}

#[test]
fn a_pack_bought_before_the_first_period_is_on_its_statement() {
    let (_database, mut session) = shop();
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-03')");
    subscribe(&mut session, "two", "2026-04-02", 1);
    assert_eq!(statement(&mut session, APRIL), ["base|two|1|10.00|USD|", "pack|pair|1|7.00|USD|"]);
    assert_eq!(statement(&mut session, "2026-05-01"), ["base|two|1|10.00|USD|"]);
}

#[test]
fn a_pack_refunded_in_a_later_period_is_on_both_statements_and_one_of_the_same_on_none() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-05')");
    session.run("SELECT talkmeter.refund_pack('acme', 1)");
    assert_eq!(statement(&mut session, MARCH), ["base|two|1|10.00|USD|", "pack|pair|1|7.00|USD|"]);
    let open = session.line("SELECT period_start FROM talkmeter.usage");
    assert_eq!(statement(&mut session, &open), ["base|two|1|10.00|USD|", "pack_refund|pair|-1|-7.00|USD|"]);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair'); SELECT talkmeter.refund_pack('acme', 2)");
    assert_eq!(statement(&mut session, &open), ["base|two|1|10.00|USD|", "pack_refund|pair|-1|-7.00|USD|"]);
}
