//! What does an overage unit cost whose outcome has a rate of its own, and who says so (rules 4.1.5, 4.3.3, 4.6.12)?

use talkmeter_tests::{Database, Session, assert_sound, attach, create_messages, messages_mapping, tell};

/// A plan of which qualifications cost 9.99 and all else 0.99, with nothing included.
const FIN: &str = r#"SELECT talkmeter.define_plan('{"name": "intercom/fin", "included": 0, "overage_rate": 0.99,
    "rates": {"qualification": 9.99}, "currency": "USD"}')"#;

fn fin() -> (Database, Session) {
    let database = Database::fresh("rates");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(FIN);
    (database, session)
}

/// A conversation that is answered at `at` and waits for a plan, with its outcome.
fn waits(session: &mut Session, conversation: &str, at: &str, outcome: &str) {
    tell(session, "acme", conversation, &format!("{at} exchange"));
    has_outcome(session, conversation, outcome);
}

/// A waiting unit and its part get an outcome, which their policy does not name.
fn has_outcome(session: &mut Session, conversation: &str, outcome: &str) {
    for table in ["unplanned_unit", "conversation", "ended_part"] {
        session
            .run(&format!("UPDATE talkmeter.{table} SET outcome = '{outcome}' WHERE conversation = '{conversation}'"));
    }
}

fn subscribe(session: &mut Session) {
    session.run("SELECT talkmeter.subscribe('acme', 'intercom/fin', '2026-01-01')");
}

/// A qualification and a resolution in two conversations, nothing included.
fn two_outcomes() -> (Database, Session) {
    let (database, mut session) = fin();
    waits(&mut session, "qualified", "2026-03-10 10:00", "qualification");
    waits(&mut session, "resolved", "2026-03-10 11:00", "resolution");
    subscribe(&mut session);
    (database, session)
}

fn ledger(session: &mut Session) -> Vec<String> {
    session
        .lines("SELECT conversation, tier, amount, outcome, reverses, reason FROM talkmeter.charges ORDER BY charge_id")
}

fn statement(session: &mut Session, month: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT kind, description, quantity, unit_price, amount FROM talkmeter.statement('acme', '{month}') ORDER BY line"
    ))
}

// --- Charges and statements ---

#[test]
fn a_qualification_and_a_resolution_cost_9_99_and_0_99_and_have_lines_of_their_own() {
    let (_database, mut session) = two_outcomes();
    assert_eq!(ledger(&mut session), ["qualified|overage|9.99|qualification||", "resolved|overage|0.99|resolution||"]);
    assert_eq!(
        statement(&mut session, "2026-03"),
        [
            "overage|units beyond allowance and packs: qualification|1|9.99|9.99",
            "overage|units beyond allowance and packs: resolution|1|0.99|0.99",
        ]
    );
    let units = session.lines(
        "SELECT line, conversation, amount, outcome FROM talkmeter.statement_units('acme', '2026-03') ORDER BY charge_id",
    );
    assert_eq!(units, ["1|qualified|9.99|qualification", "2|resolved|0.99|resolution"]);
    let period = "SELECT overage_units, overage_amount FROM talkmeter.period";
    assert_eq!(session.lines(period), ["2|10.98"]);
    assert_eq!(session.lines("SELECT overage, total FROM talkmeter.bills"), ["10.98|10.98"]);
    assert_eq!(
        session.lines("SELECT conversation, amount, outcome FROM talkmeter.audit_trail ORDER BY 1"),
        ["qualified|9.99|qualification", "resolved|0.99|resolution"]
    );
    assert_sound(&mut session);
}

#[test]
fn a_unit_without_an_outcome_costs_the_overage_rate_and_its_line_says_nothing_of_outcomes() {
    let (_database, mut session) = two_outcomes();
    tell(&mut session, "acme", "plain", "2026-03-11 10:00 exchange");
    assert_eq!(ledger(&mut session).last().map(String::as_str), Some("plain|overage|0.99|||"));
    assert_eq!(statement(&mut session, "2026-03")[0], "overage|units beyond allowance and packs|1|0.99|0.99");
    let units = "SELECT line FROM talkmeter.statement_units('acme', '2026-03') ORDER BY charge_id";
    assert_eq!(session.lines(units), ["2", "3", "1"]);
    assert_sound(&mut session);
}

#[test]
fn allowance_and_packs_pay_for_any_outcome_and_their_lines_name_none() {
    let (_database, mut session) = fin();
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "one", "included": 1, "overage_rate": 0.99, "rates": {"qualification": 9.99},
               "currency": "USD"}'),
               talkmeter.define_pack('{"name": "single", "size": 1, "price": 5, "currency": "USD", "valid_for": "never"}'),
               talkmeter.buy_pack('acme', 'single', purchased_at => '2026-03-01')"#,
    );
    for (hour, outcome) in [(10, "qualification"), (11, "qualification"), (12, "resolution"), (13, "qualification")] {
        waits(&mut session, &format!("c{hour}"), &format!("2026-03-10 {hour}:00"), outcome);
    }
    session.run("SELECT talkmeter.subscribe('acme', 'one', '2026-03-01')");
    let paid = session.lines("SELECT tier, amount, outcome FROM talkmeter.charges ORDER BY charge_id");
    assert_eq!(
        paid,
        ["included|0|qualification", "pack|0|qualification", "overage|0.99|resolution", "overage|9.99|qualification"]
    );
    assert_eq!(
        statement(&mut session, "2026-03"),
        [
            "included|units within the allowance|1|0|0.00",
            "pack|single|1|5|5.00",
            "overage|units beyond allowance and packs: qualification|1|9.99|9.99",
            "overage|units beyond allowance and packs: resolution|1|0.99|0.99",
        ]
    );
    assert_sound(&mut session);
}

#[test]
fn a_charge_whose_part_has_another_outcome_by_now_is_taken_back_and_posted_anew() {
    let (_database, mut session) = two_outcomes();
    // The policy names no outcome: folded again for an earlier reply, the part has none. Else the charge would stay.
    tell(&mut session, "acme", "qualified", "2026-03-10 09:59 exchange");
    assert_eq!(
        ledger(&mut session)[2..],
        ["qualified|overage|-9.99|qualification|1|refold", "qualified|overage|0.99|||"]
    );
    assert_eq!(
        statement(&mut session, "2026-03"),
        [
            "overage|units beyond allowance and packs|1|0.99|0.99",
            "overage|units beyond allowance and packs: resolution|1|0.99|0.99",
        ]
    );
    assert_eq!(session.lines("SELECT overage_units, overage_amount FROM talkmeter.period"), ["2|1.98"]);
    assert_sound(&mut session);
}

#[test]
fn late_units_and_credits_have_a_line_for_each_outcome() {
    let (_database, mut session) = two_outcomes();
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    let frozen = statement(&mut session, "2026-03");
    session.run(
        "SELECT talkmeter.cancel('acme', '2026-01-01')
         FROM (SELECT talkmeter.credit('acme', 1, 'goodwill'), talkmeter.credit('acme', 2, 'goodwill')) AS credited",
    );
    waits(&mut session, "late", "2026-03-12 10:00", "qualification");
    waits(&mut session, "too late", "2026-03-12 11:00", "resolution");
    subscribe(&mut session);
    let current =
        "SELECT kind, description, quantity, unit_price, amount FROM talkmeter.statement('acme') ORDER BY line";
    assert_eq!(
        session.lines(current),
        [
            "late|overage: qualification|1|9.99|9.99",
            "late|overage: resolution|1|0.99|0.99",
            "credit|overage: qualification|-1|9.99|-9.99",
            "credit|overage: resolution|-1|0.99|-0.99",
        ]
    );
    let units = "SELECT line, conversation, units FROM talkmeter.statement_units('acme') ORDER BY charge_id";
    assert_eq!(session.lines(units), ["3|qualified|-1", "4|resolved|-1", "1|late|1", "2|too late|1"]);
    assert_eq!(statement(&mut session, "2026-03"), frozen);
    assert_sound(&mut session);
}

// --- By a policy that names outcomes ---

/// What was escalated is a qualification, and what was answered otherwise a resolution.
const POLICY: &str = r#"SELECT talkmeter.define_policy('{"name": "fin", "effective_from": "2026-01-01T00:00:00Z",
    "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "close",
    "outcomes": [{"when": "escalate", "outcome": "qualification"}, {"unless": "ai_reply", "outcome": "no_answer", "units": 0},
        {"outcome": "resolution"}]}')"#;

/// Three conversations that are judged by it.
fn by_policy() -> (Database, Session) {
    let database = Database::fresh("rates");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(FIN);
    session.run(POLICY);
    attach(&mut session, "messages", "fin", Some("intercom/fin"), &messages_mapping());
    tell(
        &mut session,
        "acme",
        "qualified",
        "2026-03-10 10:00 exchange, 2026-03-10 10:05 escalate, 2026-03-10 10:10 close",
    );
    tell(&mut session, "acme", "resolved", "2026-03-10 11:00 exchange, 2026-03-10 11:10 close");
    tell(&mut session, "acme", "unanswered", "2026-03-10 12:00 customer_message, 2026-03-10 12:10 close");
    (database, session)
}

#[test]
fn a_unit_that_waits_for_a_backfill_keeps_its_outcome() {
    let database = Database::fresh("rates");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(FIN);
    session.run(POLICY);
    tell(&mut session, "acme", "old", "2026-03-10 10:00 exchange, 2026-03-10 10:05 escalate, 2026-03-10 10:10 close");
    attach(&mut session, "messages", "fin", Some("intercom/fin"), &messages_mapping());
    session.run("CALL talkmeter.backfill('messages', '2026-03-01', '2026-04-01', charge => false)");
    assert_eq!(session.lines("SELECT conversation, outcome FROM talkmeter.uncharged"), ["old|qualification"]);
    assert_sound(&mut session);
    session.run("CALL talkmeter.backfill('messages', '2026-03-01', '2026-04-01')");
    assert_eq!(ledger(&mut session), ["old|overage|9.99|qualification||"]);
    assert_sound(&mut session);
}

#[test]
fn the_outcome_that_a_policy_names_is_that_of_the_charge() {
    let (_database, mut session) = by_policy();
    assert_eq!(ledger(&mut session), ["qualified|overage|9.99|qualification||", "resolved|overage|0.99|resolution||"]);
    let simulated = "SELECT units, amount, amount_difference FROM talkmeter.simulate('fin', 'intercom/fin')";
    assert_eq!(session.lines(simulated), ["2|10.98|0.00"]);
    assert_sound(&mut session);
}

#[test]
fn a_late_event_by_which_a_part_has_another_outcome_has_its_charge_posted_anew() {
    let (_database, mut session) = by_policy();
    tell(&mut session, "acme", "resolved", "2026-03-10 11:05 escalate");
    assert_eq!(
        ledger(&mut session)[2..],
        ["resolved|overage|-0.99|resolution|2|refold", "resolved|overage|9.99|qualification||"]
    );
    // Its charge instant is what it was.
    tell(&mut session, "acme", "qualified", "2026-03-10 10:06 note");
    assert_eq!(ledger(&mut session).len(), 4);
    assert_eq!(
        statement(&mut session, "2026-03"),
        ["overage|units beyond allowance and packs: qualification|2|9.99|19.98"]
    );
    assert_sound(&mut session);
}

// --- What people read ---

#[test]
fn the_bill_of_one_file_names_rates_and_outcomes() {
    let (_database, mut session) = two_outcomes();
    let told = session.lines(
        "SELECT section, detail FROM talkmeter.bill_file('acme', '2026-03') WHERE section IN ('price', 'statement', 'unit')",
    );
    assert_eq!(
        told,
        [
            "price|plan of 0 units, one more costs 0.99, of outcome qualification 9.99",
            "statement|units beyond allowance and packs: qualification",
            "statement|units beyond allowance and packs: resolution",
            "unit|part 1, charge 1, overage, qualification, 2 messages",
            "unit|part 1, charge 2, overage, resolution, 2 messages",
        ]
    );
    for view in ["plans WHERE name = 'intercom/fin'", "prices"] {
        let rates = session.lines(&format!("SELECT overage_rate, rates FROM talkmeter.{view}"));
        assert_eq!(rates, [r#"0.99|{"qualification": 9.99}"#], "{view}");
    }
}

#[test]
fn a_period_that_goes_on_comes_to_what_its_outcomes_cost_on_the_average() {
    let (_database, mut session) = fin();
    waits(&mut session, "qualified", "now", "qualification");
    waits(&mut session, "resolved", "now", "resolution");
    // The period has begun today.
    session.run(
        "SELECT talkmeter.subscribe('acme', 'intercom/fin', date_trunc('day', now(), 'UTC') - interval '1 month',
             anchor_day => extract(day FROM now() AT TIME ZONE 'UTC')::int)",
    );
    assert_eq!(session.lines("SELECT overage_units, estimated_overage FROM talkmeter.usage"), ["2|10.98"]);
    let projected = session.line(
        "SELECT projected_overage_units > 2, projected_overage = round(projected_overage_units * 5.49, 2)
         FROM talkmeter.usage_projection",
    );
    assert_eq!(projected, "t|t");
}

// --- Evidence, the archive, verify ---

#[test]
fn evidence_has_the_outcome_of_a_charge_and_of_one_without_what_it_always_had() {
    let (_database, mut session) = two_outcomes();
    tell(&mut session, "acme", "plain", "2026-03-11 10:00 exchange");
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    let contents = session.lines(
        "SELECT (SELECT string_agg(k, ' ') FROM (SELECT json_object_keys(content::json) AS k) AS keys),
             content::json ->> 'outcome'
         FROM talkmeter.evidence('acme', '2026-03-01') WHERE content::json ->> 'charge_id' IS NOT NULL ORDER BY line",
    );
    let always = "charge_id subject part charged_at period_start period_end tier pack_id amount currency plan policy \
        policy_version reverses reason note posted_by posted_at cause_source cause_at";
    assert_eq!(
        contents,
        [format!("{always} outcome|qualification"), format!("{always} outcome|resolution"), format!("{always}|"),]
    );
    assert_sound(&mut session);
    session.run("UPDATE talkmeter.charge SET outcome = NULL WHERE charge_id = 2");
    let problems = session.lines("SELECT problem FROM talkmeter.verify() WHERE problem = 'evidence_differs'");
    assert_eq!(problems, ["evidence_differs"]);
}

#[test]
fn what_is_archived_keeps_its_outcome() {
    let (_database, mut session) = two_outcomes();
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    let (before, listed) = (ledger(&mut session), statement(&mut session, "2026-03"));
    session.run("CALL talkmeter.archive('2026-04-01')");
    let moved = "SELECT outcome FROM talkmeter_archive.charge ORDER BY charge_id";
    assert_eq!(session.lines(moved), ["qualification", "resolution"]);
    assert_eq!((ledger(&mut session), statement(&mut session, "2026-03")), (before, listed));
    assert_sound(&mut session);
}

#[test]
fn verify_names_what_costs_another_rate_than_that_of_its_outcome() {
    let other_rate = |charge: u8| format!("amount_is_not_the_rate|charge {charge}");
    let no_mirror = "reversal_is_no_mirror|charge 3".to_owned();
    let (_database, mut session) = two_outcomes();
    session.run("SELECT talkmeter.credit('acme', 1, 'goodwill')");
    assert_sound(&mut session);
    for (damage, problems) in [
        ("charge SET outcome = 'resolution' WHERE charge_id = 1", vec![other_rate(1), no_mirror.clone()]),
        ("charge SET outcome = NULL WHERE charge_id = 1", vec![other_rate(1), no_mirror.clone()]),
        ("charge SET outcome = 'resolution' WHERE charge_id = 3", vec![no_mirror]),
        ("plan SET rates = NULL", vec![other_rate(1)]),
        (r#"plan SET rates = '{"resolution": 1}'"#, vec![other_rate(1), other_rate(2)]),
    ] {
        session.run(&format!("BEGIN; UPDATE talkmeter.{damage}"));
        assert_eq!(session.lines("SELECT problem, object FROM talkmeter.verify() ORDER BY 2"), problems, "{damage}");
        session.run("ROLLBACK");
    }
}
