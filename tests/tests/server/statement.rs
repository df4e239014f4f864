//! What does a statement list, and does it stay what it was (rule 4.6)?

use postgres::error::SqlState;
use talkmeter_tests::{Database, Session, assert_sound, attach, create_messages, messages_mapping, tell};

const MARCH: &str = "2026-03-01 00:00+00";
const APRIL: &str = "2026-04-01 00:00+00";

/// Plan `two` includes 2 units and costs 10, then 0.125 a unit; `five` includes 5 and costs 30. A `pair` is 2 units
/// for 7.
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
    session.table(&format!(
        "SELECT kind, description, quantity, amount, currency, of_period_start::date FROM talkmeter.statement('acme', '{start}')"
    ))
}

fn finalize(session: &mut Session, start: &str) {
    session.run(&format!("SELECT talkmeter.finalize('acme', '{start}')"));
}

#[test]
fn a_statement_lists_base_price_packs_and_overage_and_its_frozen_lines_are_the_same() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-05')");
    units(&mut session, "2026-03-10", 7);
    let lines = [
        "kind|description|quantity|amount|currency|of_period_start",
        "base|two|1|10.00|USD|",
        "included|units within the allowance|2|0.00|USD|",
        "pack|pair|1|7.00|USD|",
        "overage|units beyond allowance and packs|3|0.38|USD|",
    ];
    assert_eq!(statement(&mut session, MARCH), lines);
    finalize(&mut session, MARCH);
    assert_eq!(statement(&mut session, MARCH), lines);
    assert_sound(&mut session);
}

/// Frozen by a slip of the pen, it would be so for ever, and all months after it would be billed.
#[test]
fn a_month_before_the_first_that_is_billed_is_not_frozen() {
    let database = Database::with_messages("statement", "lutingenie", Some("agent_red/starter"));
    let mut session = database.connect();
    tell(&mut session, "acme", "c", "2026-03-10 12:00 exchange");
    let bills = "SELECT count(*) FROM talkmeter.bills WHERE tenant = 'acme'";
    let before = session.line(bills);
    for month in ["1990-01-01", "2026-02-01"] {
        let refused = session.refused(&format!("SELECT talkmeter.finalize('acme', '{month} 00:00+00')"));
        assert_eq!(refused, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{month}");
    }
    assert_eq!(session.line(bills), before);
    finalize(&mut session, MARCH);
    assert_sound(&mut session);
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
        [
            "kind|description|quantity|amount|currency|of_period_start",
            "base|two|1|10.00|USD|",
            "late|overage|1|0.13|USD|2026-03-01",
            "credit|overage|-1|-0.13|USD|2026-03-01"
        ]
    );
    assert_sound(&mut session);
}

#[test]
fn a_late_message_that_takes_back_a_unit_of_a_frozen_period_makes_a_late_line_of_the_open_one() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    units(&mut session, "2026-03-10", 2);
    tell(&mut session, "acme", "c", "2026-03-12 10:00 exchange, 2026-03-12 10:40 exchange");
    finalize(&mut session, MARCH);
    let frozen = statement(&mut session, MARCH);
    assert_eq!(frozen[3], "overage|units beyond allowance and packs|2|0.25|USD|");
    tell(&mut session, "acme", "c", "2026-03-12 10:20 customer_message");
    assert_eq!(statement(&mut session, MARCH), frozen);
    let open = session.line("SELECT period_start FROM talkmeter.usage");
    assert_eq!(
        statement(&mut session, &open),
        [
            "kind|description|quantity|amount|currency|of_period_start",
            "base|two|1|10.00|USD|",
            "late|overage|-1|-0.13|USD|2026-03-01"
        ]
    );
    assert_sound(&mut session);
}

#[test]
fn a_pack_recorded_after_its_period_was_frozen_is_on_the_open_statement() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    finalize(&mut session, MARCH);
    let frozen = statement(&mut session, MARCH);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-05')");
    assert_eq!(statement(&mut session, MARCH), frozen);
    assert_eq!(
        statement(&mut session, APRIL),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|"]
    );
    let open = session.line("SELECT period_start FROM talkmeter.usage");
    assert_eq!(
        statement(&mut session, &open),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|", "pack|pair|1|7.00|USD|"]
    );
    assert_sound(&mut session);
}

#[test]
fn a_pack_is_on_the_statement_of_the_period_of_its_purchase_to_the_microsecond() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", "2026-02-01", 1);
    session.run(
        "SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => at::timestamptz)
         FROM unnest(ARRAY['2026-02-28 23:59:59.999999+00', '2026-03-01 00:00+00', '2026-03-31 23:59:59.999999+00',
             '2026-04-01 00:00+00', '2026-04-30 23:59:59.999999+00', '2026-05-01 00:00+00']) AS at",
    );
    for (start, packs) in [("2026-02-01", "1|7.00"), (MARCH, "2|14.00"), (APRIL, "2|14.00"), ("2026-05-01", "1|7.00")] {
        let lines = statement(&mut session, start);
        assert_eq!(lines[2..], [format!("pack|pair|{packs}|USD|")], "from {start}");
    }
}

#[test]
fn nothing_changes_a_frozen_statement() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-05')");
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-20')");
    units(&mut session, "2026-03-10", 6);
    session.run("SELECT talkmeter.credit('acme', 5, 'goodwill')");
    finalize(&mut session, MARCH);
    let whole = format!("SELECT l::text FROM talkmeter.statement('acme', '{MARCH}') AS l");
    let frozen = session.lines(&whole);
    assert_eq!(frozen.len(), 5);
    for change in [
        "SELECT talkmeter.refund_pack('acme', 2)",
        "INSERT INTO messages VALUES (100, 'acme', 'late', '2026-03-31', 'exchange')",
        "UPDATE messages SET kind = 'note' WHERE id = 6",
        "UPDATE messages SET created_at = '2026-04-02' WHERE id = 1",
        "SELECT talkmeter.credit('acme', 2, 'goodwill')",
        "SELECT talkmeter.dispute('acme', 3, 'not ours'), talkmeter.resolve_dispute('acme', 1, 'credited')",
        "SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-06')",
        "SELECT talkmeter.change_plan('acme', 'five', '2026-03-10')",
        "SELECT talkmeter.cancel('acme', '2026-03-12')",
        "SELECT talkmeter.subscribe('acme', 'two', '2026-03-11', anchor_day => 1)",
        "SELECT talkmeter.reconcile('2026-03-10')",
        "DELETE FROM messages WHERE id = 2",
        "TRUNCATE messages",
        "SELECT talkmeter.sweep()",
    ] {
        session.run(change);
        assert_eq!(session.lines(&whole), frozen, "{change}");
    }
    let again = session.refused(&format!("SELECT talkmeter.finalize('acme', '{MARCH}')"));
    assert_eq!(again, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_sound(&mut session);
}

/// Units of March that were posted before, and those that come while it is being frozen.
fn of_march(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT conversation, posted_period_start = period_start FROM talkmeter.charges
         WHERE tenant = 'acme' ORDER BY charge_id",
    )
}

#[test]
fn a_charge_that_waits_for_the_freeze_is_late() {
    let (database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    let mut other = database.connect();
    let pid = other.pid();
    session.run("BEGIN");
    finalize(&mut session, MARCH);
    let charged = std::thread::spawn(move || tell(&mut other, "acme", "c", "2026-03-31 23:59:59.999999 exchange"));
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    charged.join().expect("the application is not held up");
    assert_eq!(of_march(&mut session), ["c|f"]);
    assert_eq!(
        statement(&mut session, MARCH),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|"]
    );
    assert_sound(&mut session);
}

#[test]
fn a_charge_that_the_freeze_waits_for_is_on_the_frozen_statement() {
    let (database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    units(&mut session, "2026-03-10", 2);
    let mut other = database.connect();
    let pid = other.pid();
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "2026-03-31 23:59:59.999999 exchange");
    session.run("SELECT talkmeter.flush()");
    let frozen = std::thread::spawn(move || finalize(&mut other, MARCH));
    session.wait_until_blocked(pid);
    session.run("COMMIT");
    frozen.join().expect("a statement");
    assert_eq!(of_march(&mut session)[2..], ["c|t"]);
    let lines = statement(&mut session, MARCH);
    assert_eq!(
        lines[2..],
        ["included|units within the allowance|2|0.00|USD|", "overage|units beyond allowance and packs|1|0.13|USD|"]
    );
    assert_sound(&mut session);
}

// --- Which month is meant ---

/// The month of Berlin that begins at the end of the day before in London.
fn berliner() -> (Database, Session) {
    let (database, mut session) = shop();
    session.run(
        "SELECT talkmeter.subscribe('acme', 'two', '2026-02-28 23:00+00', anchor_day => 1, timezone => 'Europe/Berlin')",
    );
    units(&mut session, "2026-03-10", 3);
    (database, session)
}

#[test]
fn a_date_is_the_month_of_the_tenants_own_calendar() {
    let (_database, mut session) = berliner();
    let kinds = "SELECT kind, quantity FROM talkmeter.statement('acme', date '2026-03-01')";
    assert_eq!(session.lines(kinds), ["base|1", "included|2", "overage|1"]);
    session.run("SET timezone = 'America/Los_Angeles'");
    assert_eq!(session.lines(&kinds.replace("01'", "31'")), ["base|1", "included|2", "overage|1"]);
    session.run("SELECT talkmeter.finalize('acme', '2026-02-28 23:00+00')");
    assert_eq!(session.lines(kinds), ["base|1", "included|2", "overage|1"]);
}

#[test]
fn a_month_that_is_no_period_is_refused_and_the_error_says_which_one_was_meant() {
    let (_database, mut session) = berliner();
    let mut refused = |asked: &str| {
        let error = session.client.batch_execute(&format!("SELECT * FROM talkmeter.statement({asked})"));
        let error = error.expect_err(asked);
        let error = error.as_db_error().expect("the server's error");
        let told = [Some(error.message()), error.detail(), error.hint()];
        (error.code().clone(), told.map(|text| text.unwrap_or_default().to_owned()))
    };
    let (code, [message, detail, _]) = refused("'acme', timestamptz '2026-03-01 00:00+00'");
    assert_eq!(code, SqlState::INVALID_PARAMETER_VALUE);
    assert_eq!(message, "no period of tenant \"acme\" starts at 2026-03-01T00:00:00+00:00");
    assert_eq!(
        detail,
        "The period that holds it starts at 2026-02-28T23:00:00+00:00 and ends at 2026-03-31T22:00:00+00:00."
    );
    let (code, [message, detail, _]) = refused("'acme', date '2026-01-15'");
    assert_eq!(code, SqlState::UNDEFINED_OBJECT);
    assert_eq!(message, "tenant \"acme\" was on no plan at 2026-01-01T00:00:00+00:00");
    assert_eq!(detail, "Its first subscription began at 2026-02-28T23:00:00+00:00.");
    let (code, [message, _, hint]) = refused("'acne', date '2026-03-15'");
    assert_eq!(code, SqlState::UNDEFINED_OBJECT);
    assert_eq!(message, "tenant \"acne\" was never on a plan");
    assert_eq!(hint, "Perhaps you meant \"acme\". SELECT tenant FROM talkmeter.usage lists all.");
}

#[test]
fn a_reader_of_several_tenants_gets_the_statements_of_those_that_have_that_period() {
    let (database, mut session) = berliner();
    session.run("SELECT talkmeter.subscribe('other', 'five', '2026-03-01', anchor_day => 1)");
    let reader = database.role("reader");
    session.run(&format!(
        "SELECT talkmeter.grant_tenant('{reader}', 'acme'), talkmeter.grant_tenant('{reader}', 'other')"
    ));
    let mut reader = database.connect_as(&reader);
    let lines = "SELECT tenant, kind FROM talkmeter.my_statement(timestamptz '2026-03-01')";
    assert_eq!(reader.lines(lines), ["other|base"]);
}

#[test]
fn the_base_price_is_that_of_the_last_plan_of_the_period() {
    let base = |session: &mut Session, start: &str| statement(session, start)[1..].join(" and ");
    for (first, second, march, april) in [
        (
            "two",
            "SELECT talkmeter.change_plan('acme', 'five', '2026-03-31 23:59:59.999999+00')",
            "five|1|30",
            "five|1|30",
        ),
        ("five", "SELECT talkmeter.change_plan('acme', 'two', '2026-03-10')", "five|1|30", "two|1|10"),
        ("two", "SELECT talkmeter.change_plan('acme', 'five', '2026-04-01')", "two|1|10", "five|1|30"),
        ("two", "SELECT talkmeter.cancel('acme', '2026-03-10')", "two|1|10", ""),
        ("two", "SELECT talkmeter.cancel('acme', '2026-04-01 00:00:00.000001+00')", "two|1|10", "two|1|10"),
    ] {
        let (_database, mut session) = shop();
        subscribe(&mut session, first, MARCH, 1);
        session.run(second);
        let priced = |line: &str| if line.is_empty() { String::new() } else { format!("base|{line}.00|USD|") };
        assert_eq!(base(&mut session, MARCH), priced(march), "March: {second}");
        assert_eq!(base(&mut session, APRIL), priced(april), "April: {second}");
    }
}

#[test]
fn a_pack_is_billed_at_its_price_and_overage_at_the_exact_rate() {
    let (_database, mut session) = shop();
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "tiny", "included": 0, "overage_rate": 0.015, "currency": "USD"}')"#,
    );
    subscribe(&mut session, "tiny", MARCH, 1);
    session.run(
        "SELECT talkmeter.buy_pack('acme', pack, purchased_at => '2026-03-20')
         FROM unnest(ARRAY['agent_red/1000', 'agent_red/5000', 'agent_red/5000', 'agent_red/20000']) AS pack",
    );
    units(&mut session, "2026-03-10", 3);
    units(&mut session, "2026-03-21", 7);
    // 5,000 units for 99 are 0.0198 a unit, and 20,000 for 249 are 0.01245; three units of 0.015 are 0.045.
    assert_eq!(
        statement(&mut session, MARCH),
        [
            "kind|description|quantity|amount|currency|of_period_start",
            "pack|agent_red/1000|1|29.00|USD|",
            "pack|agent_red/20000|1|249.00|USD|",
            "pack|agent_red/5000|2|198.00|USD|",
            "overage|units beyond allowance and packs|3|0.05|USD|"
        ]
    );
    assert_eq!(session.line("SELECT sum(amount) FROM talkmeter.charges"), "0.045");
}

#[test]
fn lines_of_several_currencies_stand_side_by_side_and_nothing_is_converted() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "yen", MARCH, 1);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-05')");
    units(&mut session, "2026-03-10", 5);
    // Another currency begins with a period.
    assert_eq!(session.line("SELECT talkmeter.change_plan('acme', 'five', '2026-03-11')"), "2026-04-01 00:00:00+00");
    units(&mut session, "2026-03-12", 1);
    units(&mut session, "2026-04-10", 6);
    let overage = "overage|units beyond allowance and packs";
    assert_eq!(
        statement(&mut session, MARCH),
        [
            "kind|description|quantity|amount|currency|of_period_start".to_owned(),
            "pack|pair|1|7.00|USD|".to_owned(),
            format!("{overage}|4|2|JPY|")
        ]
    );
    assert_eq!(
        statement(&mut session, APRIL),
        [
            "kind|description|quantity|amount|currency|of_period_start".to_owned(),
            "base|five|1|30.00|USD|".to_owned(),
            "included|units within the allowance|5|0.00|USD|".to_owned(),
            format!("{overage}|1|0.10|USD|")
        ]
    );
}

/// Overage and credits of the statement of the current period, and what `usage` says of them.
fn overage_and_estimate(session: &mut Session) -> (String, String) {
    let billed = session.line(
        "SELECT sum(l.amount) FROM talkmeter.usage AS u, talkmeter.statement(u.tenant, u.period_start) AS l
         WHERE l.kind IN ('overage', 'credit')",
    );
    (billed, session.line("SELECT estimated_overage FROM talkmeter.usage"))
}

/// So many conversations of the current period, `seconds` after its start, each one unit.
fn units_of_now(session: &mut Session, seconds: u32, count: u32) {
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', '{seconds}/' || n, date_trunc('month', now()) + interval '{seconds} seconds', 'exchange'
         FROM generate_series(1, {count}) AS n"
    ));
}

#[test]
fn the_estimate_of_the_current_period_is_what_its_statement_says() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    units_of_now(&mut session, 0, 3);
    assert_eq!(overage_and_estimate(&mut session), ("0.13".to_owned(), "0.13".to_owned()));
    units_of_now(&mut session, 1, 2);
    assert_eq!(overage_and_estimate(&mut session), ("0.38".to_owned(), "0.38".to_owned()));
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
    assert_sound(&mut session);
}

#[test]
fn a_subscription_with_another_anchor_day_bills_no_base_price_and_no_pack_twice() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    subscribe(&mut session, "five", "2026-03-20", 20);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-25')");
    assert_eq!(
        statement(&mut session, MARCH),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|"]
    );
    assert_eq!(
        statement(&mut session, "2026-03-20"),
        [
            "kind|description|quantity|amount|currency|of_period_start",
            "base|five|1|30.00|USD|",
            "pack|pair|1|7.00|USD|"
        ]
    );
}

#[test]
fn a_pack_bought_before_the_first_period_is_on_its_statement() {
    let (_database, mut session) = shop();
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-03')");
    subscribe(&mut session, "two", "2026-04-02", 1);
    assert_eq!(
        statement(&mut session, APRIL),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|", "pack|pair|1|7.00|USD|"]
    );
    assert_eq!(
        statement(&mut session, "2026-05-01"),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|"]
    );
}

#[test]
fn a_pack_refunded_in_a_later_period_is_on_both_statements_and_one_of_the_same_on_none() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-05')");
    session.run("SELECT talkmeter.refund_pack('acme', 1)");
    assert_eq!(
        statement(&mut session, MARCH),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|", "pack|pair|1|7.00|USD|"]
    );
    let open = session.line("SELECT period_start FROM talkmeter.usage");
    assert_eq!(
        statement(&mut session, &open),
        [
            "kind|description|quantity|amount|currency|of_period_start",
            "base|two|1|10.00|USD|",
            "pack_refund|pair|-1|-7.00|USD|"
        ]
    );
    session.run("SELECT talkmeter.buy_pack('acme', 'pair'); SELECT talkmeter.refund_pack('acme', 2)");
    assert_eq!(
        statement(&mut session, &open),
        [
            "kind|description|quantity|amount|currency|of_period_start",
            "base|two|1|10.00|USD|",
            "pack_refund|pair|-1|-7.00|USD|"
        ]
    );
}

#[test]
fn the_first_month_of_a_subscription_with_another_anchor_day_has_a_statement() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    subscribe(&mut session, "five", "2026-03-20", 15);
    let first = "2026-03-15 00:00+00";
    assert_eq!(
        statement(&mut session, first),
        ["kind|description|quantity|amount|currency|of_period_start", "base|five|1|30.00|USD|"]
    );
    units(&mut session, "2026-03-21", 7);
    let lines = [
        "kind|description|quantity|amount|currency|of_period_start",
        "base|five|1|30.00|USD|",
        "included|units within the allowance|5|0.00|USD|",
        "overage|units beyond allowance and packs|2|0.20|USD|",
    ];
    assert_eq!(statement(&mut session, first), lines);
    finalize(&mut session, first);
    assert_eq!(statement(&mut session, first), lines);
    assert_sound(&mut session);
}

#[test]
fn a_pack_that_no_statement_has_listed_is_not_paid_back() {
    let (_database, mut session) = shop();
    session.run(
        "SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => now() - interval '40 days');
         SELECT talkmeter.subscribe('acme', 'two', now(), anchor_day => 1);
         SELECT talkmeter.refund_pack('acme', 1)",
    );
    let now = session.line("SELECT period_start FROM talkmeter.usage");
    assert_eq!(
        statement(&mut session, &now),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|"]
    );
}

#[test]
fn a_pack_of_before_the_first_period_recorded_after_that_was_frozen_is_on_the_open_statement() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "two", MARCH, 1);
    finalize(&mut session, MARCH);
    session.run("SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-02-10')");
    let now = session.line("SELECT period_start FROM talkmeter.usage");
    assert_eq!(
        statement(&mut session, &now),
        ["kind|description|quantity|amount|currency|of_period_start", "base|two|1|10.00|USD|", "pack|pair|1|7.00|USD|"]
    );
    assert_sound(&mut session);
}
