//! Is what is too large, too long or no number refused where it is defined, and does no sum overflow (rule 4.1)?

use postgres::error::SqlState;
use talkmeter_tests::{Database, metered, tell};

#[test]
fn an_allowance_without_end_and_packs_give_a_balance_without_error() {
    let database = Database::fresh("limits");
    let mut session = database.connect();
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "unlimited", "included": 9223372036854775807, "overage_rate": 0,
               "currency": "USD"}');
           SELECT talkmeter.define_pack('{"name": "huge", "size": 1000000000000, "price": 0, "currency": "USD",
               "valid_for": "9 days"}');
           SELECT talkmeter.subscribe('u', 'unlimited');
           SELECT talkmeter.buy_pack('u', 'huge');
           SELECT talkmeter.buy_pack('u', 'huge')"#,
    );
    assert_eq!(session.line("SELECT talkmeter.balance('u')"), "9223372036854775807");
    assert_eq!(session.line("SELECT pack_balance FROM talkmeter.usage"), "2000000000000");
}

#[test]
fn what_cannot_be_summed_or_named_is_refused_where_it_is_defined() {
    let database = Database::fresh("limits");
    let mut session = database.connect();
    let long = "x".repeat(513);
    let pack = |name: &str, size: i64| {
        format!(
            r#"SELECT talkmeter.define_pack('{{"name": "{name}", "size": {size}, "price": 1, "currency": "EUR",
                "valid_for": "9 days"}}')"#
        )
    };
    for wrong in [
        pack("p", 1_000_000_000_001),
        pack(&long, 1),
        format!(
            r#"SELECT talkmeter.define_plan('{{"name": "{long}", "included": 1, "overage_rate": 1, "currency": "EUR"}}')"#
        ),
        format!(
            r#"SELECT talkmeter.define_policy('{{"name": "{long}", "starts_on": ["customer_message"], "ends_on": [],
                "charge_on": "close"}}')"#
        ),
    ] {
        assert_eq!(session.refused(&wrong), SqlState::INVALID_PARAMETER_VALUE, "{wrong}");
    }
    session
        .run("SELECT talkmeter.subscribe('acme', 'agent_red/starter'), talkmeter.buy_pack('acme', 'agent_red/1000')");
    for wrong in [
        format!("INSERT INTO talkmeter.threshold (kind, percent) VALUES ('{long}', 1)"),
        "INSERT INTO talkmeter.holidays VALUES ('infinity', 'never')".to_owned(),
        "UPDATE talkmeter.pack SET price = 'NaN'".to_owned(),
        "UPDATE talkmeter.plan SET overage_rate = 'NaN'".to_owned(),
    ] {
        assert_eq!(session.refused(&wrong), SqlState::CHECK_VIOLATION, "{wrong}");
    }
}

#[test]
fn a_dispute_is_due_within_two_years_however_many_holidays_there_are() {
    let (_database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:01 ai_reply");
    session.run(
        "INSERT INTO talkmeter.holidays SELECT day, 'off' FROM generate_series(now(), now() + interval '9 years', '1 day') AS day",
    );
    session.run("SELECT talkmeter.dispute('acme', 1, 'not ours')");
    assert_eq!(session.line("SELECT due_at < now() + interval '2 years' FROM talkmeter.disputes"), "t");
}

#[test]
fn a_name_that_is_too_long_is_refused_before_it_is_compared_with_those_that_are_known() {
    let database = Database::fresh("limits");
    let mut session = database.connect();
    session.run("SET statement_timeout = '10s'");
    let long = "repeat('x', 50000000)";
    for call in [
        format!("simulate({long}, NULL, '2026-01-01', '2026-02-01')"),
        format!("simulate(NULL, {long}, '2026-01-01', '2026-02-01')"),
        format!("subscribe('acme', {long})"),
        format!("subscribe('acme', 'agent_red/starter', timezone => {long})"),
        format!("change_plan('acme', {long})"),
        format!("buy_pack('acme', {long})"),
    ] {
        let code = session.refused(&format!("SELECT talkmeter.{call}"));
        assert_eq!(code, SqlState::STRING_DATA_RIGHT_TRUNCATION, "{call}");
    }
    for call in [
        format!("mark('acme', 'c', {long})"),
        format!("define_policy(jsonb_build_object({long}, 1))"),
        format!("define_plan(jsonb_build_object('name', {long}))"),
        format!("define_pack(jsonb_build_object({long}, 1))"),
    ] {
        assert_eq!(session.refused(&format!("SELECT talkmeter.{call}")), SqlState::INVALID_PARAMETER_VALUE, "{call}");
    }
}
