//! Which tier pays for each unit, and what does that cost (rules 4.2, 4.3, 6)?

use postgres::error::SqlState;
use std::collections::BTreeMap;
use talkmeter_tests::{
    Database, Session, assert_same_rows, attach, attach_irc_support, copy_batches, create_messages, expected,
    messages_mapping, metered, records, tell, text,
};

// --- The sample data ---

fn draw_down(rows_per_transaction: usize) {
    let database = Database::fresh("draw_down");
    let mut session = database.connect();
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "sample", "included": 100, "overage_rate": 0.04, "currency": "USD"}');
           SELECT talkmeter.define_pack('{"name": "sample/50", "size": 50, "price": 5, "currency": "USD",
               "valid_for": "90 days"}')"#,
    );
    attach_irc_support(&mut session, "agent_red", Some("sample"));
    let mut first_rows = BTreeMap::new();
    for row in records("irc_support.csv.gz") {
        let first = first_rows.entry(row[1].to_owned()).or_insert_with(|| row[3].to_owned());
        if row[3] < **first {
            *first = row[3].to_owned();
        }
    }
    for (tenant, first) in first_rows {
        session.run(&format!(
            "SELECT talkmeter.buy_pack('{tenant}', 'sample/50', purchased_at => at)
             FROM date_trunc('month', '{first}'::timestamptz) AS period_start,
                 unnest(ARRAY[period_start, period_start + interval '720 hours']) AS at"
        ));
    }
    copy_batches(&mut session, "irc_support", &text("irc_support.csv.gz"), rows_per_transaction);
    let wanted = expected("draw_down.csv.gz");
    let charged = session.lines(
        r#"SELECT tenant, period_start, count(*), count(*) FILTER (WHERE tier = 'included'),
               count(*) FILTER (WHERE tier = 'pack'), count(*) FILTER (WHERE tier = 'overage'), round(sum(amount), 2)
           FROM talkmeter.charges
           GROUP BY tenant, period_start
           ORDER BY tenant COLLATE "C", period_start"#,
    );
    assert_same_rows(&charged, &wanted);
    let counted = session.lines(
        r#"SELECT tenant, period_start, included_used + pack_used + overage_units, included_used, pack_used,
               overage_units, round(overage_amount, 2)
           FROM talkmeter.period
           ORDER BY tenant COLLATE "C", period_start"#,
    );
    assert_same_rows(&counted, &wanted);
    let other_than_charged = session.lines(
        "SELECT tenant, pack_id, size - remaining, drawn
         FROM talkmeter.packs, LATERAL (
             SELECT count(*) AS drawn FROM talkmeter.charges AS c
             WHERE c.tenant = packs.tenant AND c.pack_id = packs.pack_id) AS c
         WHERE size - remaining <> drawn",
    );
    assert_eq!(other_than_charged, [""; 0]);
}

#[test]
fn charges_of_the_sample_data_by_one_copy() {
    draw_down(usize::MAX);
}

#[test]
fn charges_of_the_sample_data_in_batches_of_1000() {
    draw_down(1_000);
}

// --- The worked examples of rule 6 ---

/// The tiers of a tenant's charges with count, amount and periods.
fn tiers(session: &mut Session, tenant: &str) -> Vec<String> {
    session.table(&format!(
        "SELECT tier, count(*) AS units, sum(amount) AS amount, count(DISTINCT period_start) AS periods
         FROM talkmeter.charges WHERE tenant = '{tenant}' GROUP BY tier ORDER BY tier"
    ))
}

const USAGE: &str = "plan|from_the_1st|to_the_1st|used|included|included_used|included_remaining|pack_balance|pack_used|\
    overage_units|overage_rate|estimated_overage|currency";

/// Answered conversations of the current month, a row each, and what they were charged, used and left.
fn worked_example(conversations: u32, packs: u32) -> (Vec<String>, Vec<String>, String) {
    let database = Database::with_messages("example", "agent_red", Some("agent_red/starter"));
    let mut session = database.connect();
    for _ in 0..packs {
        session.run("SELECT talkmeter.buy_pack('acme', 'agent_red/1000', purchased_at => date_trunc('month', now()))");
    }
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', 'c' || n, date_trunc('month', now()), 'exchange' FROM generate_series(1, {conversations}) AS n"
    ));
    let usage = session.table(
        "SELECT plan, period_start = date_trunc('month', now()) AS from_the_1st,
             period_end = date_trunc('month', now()) + interval '1 month' AS to_the_1st, used, included, included_used,
             included_remaining, pack_balance, pack_used, overage_units, overage_rate,
             estimated_overage, currency
         FROM talkmeter.usage WHERE tenant = 'acme'",
    );
    (tiers(&mut session, "acme"), usage, session.line("SELECT talkmeter.balance('acme')"))
}

#[test]
fn worked_example_of_800_on_starter_is_800_included() {
    let (tiers, usage, balance) = worked_example(800, 0);
    assert_eq!(tiers, ["tier|units|amount|periods", "included|800|0|1"]);
    assert_eq!(usage, [USAGE, "agent_red/starter|t|t|800|1000|800|200|0|0|0|0.04|0.00|USD"]);
    assert_eq!(balance, "200");
}

#[test]
fn worked_example_of_1200_with_a_pack_is_1000_included_and_200_of_the_pack() {
    let (tiers, usage, balance) = worked_example(1_200, 1);
    assert_eq!(tiers, ["tier|units|amount|periods", "included|1000|0|1", "pack|200|0|1"]);
    assert_eq!(usage, [USAGE, "agent_red/starter|t|t|1200|1000|1000|0|800|200|0|0.04|0.00|USD"]);
    assert_eq!(balance, "800");
}

#[test]
fn worked_example_of_1500_without_packs_is_500_overage_for_20_dollars() {
    let (tiers, usage, balance) = worked_example(1_500, 0);
    assert_eq!(tiers, ["tier|units|amount|periods", "included|1000|0|1", "overage|500|20.00|1"]);
    assert_eq!(usage, [USAGE, "agent_red/starter|t|t|1500|1000|1000|0|0|0|500|0.04|20.00|USD"]);
    assert_eq!(balance, "0");
}

// --- Tiers ---

/// A database with a plan that includes two units and one that includes none, and a pack of one unit.
fn small_offers(default_plan: Option<&str>) -> (Database, Session) {
    let database = Database::fresh("tiers");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "currency": "EUR"}');
           SELECT talkmeter.define_plan('{"name": "none", "included": 0, "overage_rate": 1, "currency": "EUR"}');
           SELECT talkmeter.define_pack('{"name": "one", "size": 1, "price": 1, "currency": "EUR",
               "valid_for": "90 days"}')"#,
    );
    attach(&mut session, "messages", "lutingenie", default_plan, &messages_mapping());
    (database, session)
}

/// A new conversation that is answered at `at`.
fn answer(session: &mut Session, at: &str) {
    let next = session.line("SELECT count(*) FROM messages");
    tell(session, "acme", &format!("c{next}"), &format!("{at} exchange"));
}

/// Charges in ledger order.
fn ledger(session: &mut Session) -> Vec<String> {
    session
        .table("SELECT charge_id, tier, pack_id, amount, plan FROM talkmeter.charges WHERE tenant = 'acme' ORDER BY 1")
}

#[test]
fn the_allowance_pays_n_units_and_overage_the_next() {
    let (_database, mut session) = small_offers(Some("two"));
    answer(&mut session, "2026-03-01 00:00");
    answer(&mut session, "2026-03-31 23:59:59.999999");
    assert_eq!(ledger(&mut session), ["charge_id|tier|pack_id|amount|plan", "1|included||0|two", "2|included||0|two"]);
    answer(&mut session, "2026-03-15 12:00");
    assert_eq!(ledger(&mut session)[3..], ["3|overage||0.125|two"]);
    answer(&mut session, "2026-04-01 00:00");
    answer(&mut session, "2026-02-28 23:59:59.999999");
    assert_eq!(ledger(&mut session)[4..], ["4|included||0|two", "5|included||0|two"]);
    let periods = session.lines("SELECT period_start, count(*) FROM talkmeter.charges GROUP BY 1 ORDER BY 1");
    assert_eq!(periods, ["2026-02-01 00:00:00+00|1", "2026-03-01 00:00:00+00|3", "2026-04-01 00:00:00+00|1"]);
}

#[test]
fn the_unit_after_the_allowance_is_the_packs_and_the_one_after_the_pack_is_overage() {
    let paid = ["included|", "included|", "pack|1", "overage|"];
    for (statements, units) in [(4, 1), (1, 4)] {
        let (_database, mut session) = small_offers(Some("two"));
        session.run("SELECT talkmeter.buy_pack('acme', 'one', purchased_at => '2026-02-20')");
        for statement in 0..statements {
            session.run(&format!(
                "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
                 SELECT 'acme', '{statement}/' || n, '2026-03-01 10:00+00', 'exchange'
                 FROM generate_series(1, {units}) AS n"
            ));
        }
        let tiers = session.lines("SELECT tier, pack_id FROM talkmeter.charges ORDER BY charge_id");
        assert_eq!(tiers, paid, "{statements} statements of {units} units");
    }
}

#[test]
fn of_two_clients_that_race_for_the_last_unit_one_gets_it() {
    for (end, paid) in [("COMMIT", ["included", "included", "overage"].as_slice()), ("ROLLBACK", &["included"; 2])] {
        let (database, mut first) = small_offers(Some("two"));
        let mut second = database.connect();
        answer(&mut first, "2026-03-01 10:00");
        let pid = second.pid();
        first.run("BEGIN");
        tell(&mut first, "acme", "first", "11:00 exchange");
        first.run("SELECT talkmeter.flush()");
        let raced = std::thread::spawn(move || tell(&mut second, "acme", "second", "10:30 exchange"));
        first.wait_until_blocked(pid);
        first.run(end);
        raced.join().expect("the application is not held up");
        assert_eq!(first.lines("SELECT tier FROM talkmeter.charges ORDER BY charge_id"), paid, "{end}");
        assert_eq!(first.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
    }
}

#[test]
fn a_pack_pays_from_its_purchase_to_the_microsecond_before_it_expires() {
    for (at, paid) in [
        ("2026-01-10 11:59:59.999999", "overage"),
        ("2026-01-10 12:00:00", "pack"),
        // 90 times 24 hours later.
        ("2026-04-10 11:59:59.999999", "pack"),
        ("2026-04-10 12:00:00", "overage"),
    ] {
        let (_database, mut session) = small_offers(Some("none"));
        session.run("SELECT talkmeter.buy_pack('acme', 'one', purchased_at => '2026-01-10 12:00+00')");
        answer(&mut session, at);
        assert_eq!(session.line("SELECT tier FROM talkmeter.charges"), paid, "at {at}");
    }
}

#[test]
fn a_pack_that_begins_or_expires_in_mid_conversation_pays_if_the_charge_instant_is_in_its_life() {
    // It lives from the 10th of January to the 10th of April, 12:00.
    let start = "2026-01-10 11:50 customer_message, 2026-01-10 11:55";
    let end = "2026-04-10 11:50 customer_message, 2026-04-10 11:55";
    for (policy, story, paid) in [
        ("lutingenie", format!("{start} note, 2026-01-10 12:05 ai_reply"), "pack"),
        ("lutingenie", format!("{start} ai_reply, 2026-01-10 12:05 ai_reply"), "overage"),
        ("lutingenie", format!("{end} ai_reply, 2026-04-10 12:05 ai_reply"), "pack"),
        ("lutingenie", format!("{end} note, 2026-04-10 12:05 ai_reply"), "overage"),
        ("ai_resolution", format!("{start} ai_reply, 2026-01-10 12:05 close"), "pack"),
        ("ai_resolution", format!("{end} ai_reply, 2026-04-10 12:05 close"), "overage"),
    ] {
        let (_database, mut session) = small_offers(None);
        session.run(&format!(
            "SELECT talkmeter.subscribe('acme', 'none', '2026-01-01', policy => '{policy}'),
                 talkmeter.buy_pack('acme', 'one', purchased_at => '2026-01-10 12:00+00')"
        ));
        tell(&mut session, "acme", "c", &story);
        assert_eq!(session.lines("SELECT tier FROM talkmeter.charges"), [paid], "{policy}: {story}");
    }
}

#[test]
fn the_days_of_a_pack_have_24_hours_also_over_a_change_of_the_clock() {
    let (_database, mut session) = small_offers(None);
    session.run(
        "SET TimeZone = 'Europe/Berlin';
         SELECT talkmeter.subscribe('acme', 'none', '2025-01-01', 'Europe/Berlin', 1),
             talkmeter.buy_pack('acme', 'one', purchased_at => '2026-02-01 12:00'),
             talkmeter.buy_pack('acme', 'one', purchased_at => '2025-09-01 12:00')",
    );
    let expiries = "SELECT expires_at::timestamp FROM talkmeter.packs ORDER BY pack_id";
    assert_eq!(session.lines(expiries), ["2026-05-02 13:00:00", "2025-11-30 11:00:00"]);
}

#[test]
fn of_packs_bought_at_one_instant_the_lower_id_pays_first_also_if_another_expires_sooner() {
    let (_database, mut session) = small_offers(Some("none"));
    session.run(
        r#"SELECT talkmeter.define_pack('{"name": "short", "size": 1, "price": 1, "currency": "EUR",
               "valid_for": "10 days"}')"#,
    );
    for (day, packs) in [("2026-03-01", ["one", "short"]), ("2026-05-01", ["short", "one"])] {
        for pack in packs {
            session.run(&format!("SELECT talkmeter.buy_pack('acme', '{pack}', purchased_at => '{day}')"));
        }
        answer(&mut session, &format!("{day} 10:00"));
    }
    // Of March's packs nothing is left in May: one is used up, and the other has expired.
    assert_eq!(ledger(&mut session), ["charge_id|tier|pack_id|amount|plan", "1|pack|1|0|none", "2|pack|3|0|none"]);
}

#[test]
fn a_late_unit_takes_what_is_unspent_of_what_was_valid_at_its_instant_and_moves_no_other() {
    let (_database, mut session) = small_offers(Some("none"));
    session.run(
        "SELECT talkmeter.buy_pack('acme', 'one', purchased_at => '2026-01-01'),
             talkmeter.buy_pack('acme', 'one', purchased_at => '2026-02-01')",
    );
    answer(&mut session, "2026-03-10 10:00");
    answer(&mut session, "2026-05-10 10:00");
    assert_eq!(ledger(&mut session), ["charge_id|tier|pack_id|amount|plan", "1|pack|1|0|none", "2|overage||1|none"]);
    // The second pack expired on the 2nd of May: for these it has not yet, or was not bought yet.
    answer(&mut session, "2026-01-31 23:59:59.999999");
    answer(&mut session, "2026-03-01 10:00");
    answer(&mut session, "2026-03-02 10:00");
    assert_eq!(ledger(&mut session)[3..], ["3|overage||1|none", "4|pack|2|0|none", "5|overage||1|none"]);
    assert_eq!(
        ledger(&mut session)[..3],
        ["charge_id|tier|pack_id|amount|plan", "1|pack|1|0|none", "2|overage||1|none"]
    );
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

#[test]
fn the_oldest_pack_pays_first_and_none_goes_below_zero() {
    let (_database, mut session) = small_offers(Some("none"));
    session.run(
        "SELECT talkmeter.buy_pack('acme', 'one', purchased_at => at::timestamptz)
         FROM unnest(ARRAY['2026-02-01', '2026-01-01', '2026-02-01']) WITH ORDINALITY AS bought (at, place)
         ORDER BY place",
    );
    for _ in 0..4 {
        answer(&mut session, "2026-03-01 10:00");
    }
    assert_eq!(
        ledger(&mut session),
        [
            "charge_id|tier|pack_id|amount|plan",
            "1|pack|2|0|none",
            "2|pack|1|0|none",
            "3|pack|3|0|none",
            "4|overage||1|none"
        ]
    );
    assert_eq!(session.lines("SELECT remaining FROM talkmeter.packs"), ["0"; 3]);
}

#[test]
fn a_pack_bought_late_does_not_reach_back() {
    let (_database, mut session) = small_offers(Some("none"));
    answer(&mut session, "2026-03-01 10:00");
    session.run("SELECT talkmeter.buy_pack('acme', 'one', purchased_at => '2026-03-01 11:00+00')");
    answer(&mut session, "2026-03-01 10:59:59.999999");
    answer(&mut session, "2026-03-01 11:00");
    assert_eq!(
        ledger(&mut session),
        ["charge_id|tier|pack_id|amount|plan", "1|overage||1|none", "2|overage||1|none", "3|pack|1|0|none"]
    );
}

#[test]
fn one_purchase_key_is_one_purchase() {
    let (_database, mut session) = small_offers(Some("none"));
    let buy = |tenant: &str| format!("SELECT talkmeter.buy_pack('{tenant}', 'one', purchase_key => 'order 7')");
    assert_eq!(session.line(&buy("acme")), "1");
    assert_eq!(session.line(&buy("acme")), "1");
    assert_eq!(session.line(&buy("other")), "1");
    assert_eq!(
        session.lines("SELECT tenant, pack_id, remaining FROM talkmeter.packs ORDER BY 1"),
        ["acme|1|1", "other|1|1"]
    );
    session.run(
        r#"SELECT talkmeter.define_pack('{"name": "else", "size": 1, "price": 1, "currency": "EUR",
               "valid_for": "1 day"}')"#,
    );
    let code = session.refused("SELECT talkmeter.buy_pack('acme', 'else', purchase_key => 'order 7')");
    assert_eq!(code, SqlState::UNIQUE_VIOLATION);
    // Without a key each call is a purchase.
    session.run("SELECT talkmeter.buy_pack('acme', 'one'), talkmeter.buy_pack('acme', 'one')");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.packs WHERE tenant = 'acme'"), "3");
}

#[test]
fn two_buyers_with_one_purchase_key_at_once_make_one_purchase() {
    let (database, mut first) = small_offers(Some("none"));
    let mut second = database.connect();
    let buy = "SELECT talkmeter.buy_pack('acme', 'one', purchase_key => 'order 7')";
    let pid = second.pid();
    first.run("BEGIN");
    assert_eq!(first.line(buy), "1");
    let bought = std::thread::spawn(move || second.line(buy));
    first.wait_until_blocked(pid);
    first.run("COMMIT");
    assert_eq!(bought.join().expect("the second buyer"), "1");
    assert_eq!(first.line("SELECT count(*) FROM talkmeter.packs"), "1");
}

// --- Plans ---

#[test]
fn units_without_a_plan_wait_and_subscribe_posts_those_since_in_the_order_of_their_instants() {
    let (_database, mut session) = small_offers(None);
    for at in ["2026-03-04 10:00", "2026-03-02 10:00", "2026-03-03 10:00", "2026-03-01 10:00"] {
        answer(&mut session, at);
    }
    assert_eq!(ledger(&mut session), ["charge_id|tier|pack_id|amount|plan"]);
    let waiting =
        "SELECT conversation, part, charged_at, policy, policy_version FROM talkmeter.unplanned ORDER BY charged_at";
    assert_eq!(session.lines(waiting).len(), 4);
    session.run("SELECT talkmeter.subscribe('acme', 'two', since => '2026-03-02 10:00+00', anchor_day => 1)");
    assert_eq!(session.lines(waiting), ["c3|1|2026-03-01 10:00:00+00|lutingenie|1"]);
    let posted = session.lines("SELECT charge_id, conversation, tier FROM talkmeter.charges ORDER BY 1");
    assert_eq!(posted, ["1|c1|included", "2|c2|included", "3|c0|overage"]);
    // A unit of before the first subscription still waits; a later one with an earlier `since` takes it.
    answer(&mut session, "2026-02-01 10:00");
    assert_eq!(session.lines(waiting).len(), 2);
    session.run("SELECT talkmeter.subscribe('acme', 'none', since => '2026-01-01', anchor_day => 1)");
    assert_eq!(session.lines(waiting), [""; 0]);
    assert_eq!(ledger(&mut session)[4..], ["4|overage||1|none", "5|overage||1|none"]);
}

#[test]
fn default_plan_subscribes_a_tenant_by_its_first_charge() {
    let (_database, mut session) = small_offers(Some("two"));
    tell(&mut session, "acme", "unanswered", "10:00 customer_message");
    let subscriptions = "SELECT tenant, since, plan, timezone, anchor_day FROM talkmeter.subscription ORDER BY tenant";
    assert_eq!(session.lines(subscriptions), [""; 0]);
    answer(&mut session, "2026-03-01 10:00");
    assert_eq!(session.lines(subscriptions), ["acme|-infinity|two|UTC|1"]);
    // Who has chosen a plan keeps it, also for units of before it: they wait.
    session.run("SELECT talkmeter.subscribe('other', 'none', since => '2026-03-01')");
    tell(&mut session, "other", "c1", "10:00 exchange");
    tell(&mut session, "other", "c2", "2026-02-01 10:00 exchange");
    assert_eq!(session.lines("SELECT plan FROM talkmeter.charges WHERE tenant = 'other'"), ["none"]);
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.unplanned"), ["c2"]);
}

#[test]
fn a_second_subscribe_replaces_the_first_from_its_since() {
    let (_database, mut session) = small_offers(None);
    session.run(
        "SELECT talkmeter.subscribe('acme', 'two', since => '2026-01-01', anchor_day => 1);
         SELECT talkmeter.subscribe('acme', 'none', since => '2026-03-10 12:00+00', anchor_day => 1)",
    );
    for at in ["2026-03-10 12:00", "2026-03-10 11:59:59.999999"] {
        answer(&mut session, at);
    }
    assert_eq!(ledger(&mut session), ["charge_id|tier|pack_id|amount|plan", "1|overage||1|none", "2|included||0|two"]);
}

// --- Policies of tenants ---

#[test]
fn a_policy_of_the_subscription_goes_before_that_of_the_source() {
    let (_database, mut session) = small_offers(None);
    session.run("SELECT talkmeter.subscribe('acme', 'two', since => '2026-03-01 12:00+00', policy => 'ai_resolution')");
    tell(&mut session, "acme", "before", "11:59:59.999999 exchange");
    tell(&mut session, "acme", "after", "12:00 exchange");
    tell(&mut session, "other", "c", "12:00 exchange");
    let policies =
        session.lines("SELECT tenant, conversation, policy, policy_version FROM talkmeter.parts ORDER BY 1, 2");
    assert_eq!(policies, ["acme|after|ai_resolution|1", "acme|before|lutingenie|1", "other|c|lutingenie|1"]);
}

#[test]
fn a_pinned_version_stays_where_the_name_moves_on() {
    let (_database, mut session) = small_offers(None);
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "agent_red", "label": "2.0.0",
               "effective_from": "2026-03-01T12:00:00Z", "starts_on": ["customer_message"], "ends_on": ["close"],
               "charge_on": "first_ai_reply"}');
           SELECT talkmeter.subscribe('pinned', 'two', since => '2026-01-01', policy => 'agent_red@1');
           SELECT talkmeter.subscribe('named', 'two', since => '2026-01-01', policy => 'agent_red')"#,
    );
    for tenant in ["pinned", "named"] {
        tell(&mut session, tenant, "test_1", "11:59:59.999999 exchange");
        tell(&mut session, tenant, "test_2", "12:00 exchange");
    }
    let judged = session
        .lines("SELECT tenant, conversation, policy, policy_version, billable FROM talkmeter.parts ORDER BY 1, 2");
    assert_eq!(
        judged,
        [
            "named|test_1|agent_red|1|f",
            "named|test_2|agent_red|2|t",
            "pinned|test_1|agent_red|1|f",
            "pinned|test_2|agent_red|1|f"
        ]
    );
    let code = session.refused("SELECT talkmeter.subscribe('acme', 'two', policy => 'agent_red@9')");
    assert_eq!(code, SqlState::UNDEFINED_OBJECT);
}

#[test]
fn a_part_that_is_open_when_its_policy_changes_is_judged_by_the_version_of_its_opening() {
    let (_database, mut session) = small_offers(None);
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "agent_red", "label": "2.0.0",
               "effective_from": "2026-03-01T12:00:00Z", "starts_on": ["customer_message"], "ends_on": ["close"],
               "charge_on": "close"}');
           SELECT talkmeter.subscribe('acme', 'two', since => '2026-01-01', policy => 'agent_red')"#,
    );
    let story = "12:05 ai_reply, 12:10 close";
    tell(&mut session, "acme", "before", &format!("11:59:59.999999 customer_message, {story}"));
    tell(&mut session, "acme", "after", &format!("12:00 customer_message, {story}"));
    let charged = session
        .lines("SELECT conversation, policy_version, charged_at::time FROM talkmeter.charges ORDER BY charge_id");
    assert_eq!(charged, ["before|1|12:05:00", "after|2|12:10:00"]);
    let parts = session.lines("SELECT conversation, policy_version FROM talkmeter.parts ORDER BY 1 DESC");
    assert_eq!(parts, ["before|1", "after|2"]);
}

// --- The balance ---

/// Null, as it is shown.
const ON_NO_PLAN: &str = "";

fn balance(session: &mut Session, tenant: &str) -> String {
    session.line(&format!("SELECT talkmeter.balance({tenant})"))
}

/// Rule 5.9.
#[test]
fn the_balance_before_the_first_charge_is_what_that_will_find() {
    let (_database, mut session) = metered("lutingenie");
    assert_eq!(balance(&mut session, "'new'"), "1000");
    session.run("SELECT talkmeter.buy_pack('new', 'agent_red/1000'), talkmeter.set_alert_channel('new', 'x')");
    assert_eq!(balance(&mut session, "'new'"), "2000");
    tell(&mut session, "new", "c", "now exchange");
    assert_eq!(balance(&mut session, "'new'"), "1999");
    // Whoever has left, or will come, is on no plan by default.
    session.run("SELECT talkmeter.cancel('new'), talkmeter.subscribe('to come', 'agent_red/starter', '9000-01-01')");
    assert_eq!(balance(&mut session, "'new'"), ON_NO_PLAN);
    assert_eq!(balance(&mut session, "'to come'"), ON_NO_PLAN);
}

#[test]
fn without_one_default_plan_there_is_no_balance_before_the_first_charge() {
    let (_database, mut session) = metered("lutingenie");
    session
        .run("CREATE TABLE planless (LIKE messages INCLUDING ALL); CREATE TABLE other (LIKE messages INCLUDING ALL)");
    attach(&mut session, "planless", "lutingenie", None, &messages_mapping());
    assert_eq!(balance(&mut session, "'new'"), "1000", "that names none says nothing else");
    session.run(
        "INSERT INTO planless (tenant_id, conversation_id, created_at, kind) VALUES ('early', 'c', now(), 'exchange')",
    );
    assert_eq!(balance(&mut session, "'early'"), ON_NO_PLAN, "its unit waits for a plan");
    attach(&mut session, "other", "lutingenie", Some("agent_red/professional"), &messages_mapping());
    assert_eq!(balance(&mut session, "'new'"), ON_NO_PLAN);
    session.run("SELECT talkmeter.detach('messages')");
    assert_eq!(balance(&mut session, "'new'"), "5000");
    session.run("SELECT talkmeter.detach('other')");
    assert_eq!(balance(&mut session, "'new'"), ON_NO_PLAN);
}

#[test]
fn the_tenant_of_a_balance_is_of_any_type_that_a_key_has() {
    let database = Database::fresh("keys");
    let mut session = database.connect();
    session.run(
        "CREATE DOMAIN shop AS text; CREATE DOMAIN number AS bigint;
         SELECT talkmeter.subscribe(key, 'agent_red/starter') FROM unnest(ARRAY['42', '00000000-0000-0000-0000-000000000000']) AS key",
    );
    for key in [
        "42",
        "42::smallint",
        "42::bigint",
        "42::numeric",
        "'42'",
        "'42'::text",
        "'42'::varchar",
        "'42'::char(5)",
        "'42'::name",
        "'42'::shop",
        "42::number",
        "'00000000-0000-0000-0000-000000000000'::uuid",
        "tenant => 42",
        "tenant => '42'",
    ] {
        assert_eq!(balance(&mut session, key), "1000", "{key}");
    }
    for key in ["43", "NULL", "NULL::int"] {
        assert_eq!(balance(&mut session, key), ON_NO_PLAN, "{key}");
    }
    // As a driver sends it that leaves types to the server, and one that says them.
    let by_type = session.client.query_one("SELECT talkmeter.balance($1)", &[&"42"]).expect("a balance");
    assert_eq!(by_type.get::<_, i64>(0), 1000);
    let by_number = session.client.query_one("SELECT talkmeter.balance($1::int4)", &[&42_i32]).expect("a balance");
    assert_eq!(by_number.get::<_, i64>(0), 1000);
}
