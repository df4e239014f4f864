//! Does `simulate` say what another definition and plan would have cost, and what was billed if they are the same
//! (rule 5)?

use postgres::error::SqlState;
use std::collections::BTreeMap;
use talkmeter_tests::paid::{self, Charged, POLICIES, SOME_TENANTS};
use talkmeter_tests::{
    Database, Random, Session, assert_same_rows, attach, attach_irc_support, copy_batches, create_messages, expected,
    messages_mapping, records, tell, text,
};

const NOTHING: [&str; 0] = [];
const ALWAYS: &str = "'2000-01-01', '2026-08-01'";

// --- Under the same definition and plan ---

/// What the ledger says of a span, in the columns of [`simulated`].
fn billed(session: &mut Session, from: &str, to: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT c.tenant, count(*), count(*) FILTER (WHERE c.tier = 'included'), count(*) FILTER (WHERE c.tier = 'pack'),
             count(*) FILTER (WHERE c.tier = 'overage'), sum(c.amount), max(c.currency)
         FROM talkmeter.charges AS c
         WHERE c.charged_at >= '{from}' AND c.charged_at < '{to}' AND c.reverses IS NULL AND NOT EXISTS (
             SELECT FROM talkmeter.charges AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
         GROUP BY 1
         ORDER BY 1"
    ))
}

const WOULD_BE: &str = "tenant, units, included_units, pack_units, overage_units, amount, currency";
const WAS: &str = "tenant, billed_units, billed_included_units, billed_pack_units, billed_overage_units, billed_amount,
    billed_currency";

fn simulated(session: &mut Session, columns: &str, policy_and_plan: &str, span: &str) -> Vec<String> {
    session.lines(&format!("SELECT {columns} FROM talkmeter.simulate({policy_and_plan}, {span}) ORDER BY tenant"))
}

fn is_what_was_billed(session: &mut Session, policy_and_plan: &str, from: &str, to: &str) {
    let billed = billed(session, from, to);
    assert!(!billed.is_empty(), "{policy_and_plan}, {from}");
    session.run(&format!(
        "CREATE TEMPORARY TABLE simulated AS SELECT * FROM talkmeter.simulate({policy_and_plan}, '{from}', '{to}')"
    ));
    for columns in [WOULD_BE, WAS] {
        let found = session.lines(&format!("SELECT {columns} FROM simulated ORDER BY tenant"));
        assert_same_rows(&found, &billed);
    }
    let other = "SELECT * FROM simulated
                 WHERE units_difference <> 0 OR amount_difference IS DISTINCT FROM 0 OR unprovable <> 0";
    assert_eq!(session.lines(other), NOTHING, "{policy_and_plan}, {from}, {to}");
    session.run("DROP TABLE simulated");
    let parts = format!("SELECT * FROM talkmeter.simulate_parts({policy_and_plan}, '{from}', '{to}') LIMIT 3");
    assert_eq!(session.lines(&parts), NOTHING);
}

/// Spans that begin in the middle of a month and of a pack, one of two months or so, and a single instant.
fn each_span_is_what_was_billed(session: &mut Session, policy: &str) {
    let asked = format!("'{policy}', 'small'");
    is_what_was_billed(session, &asked, "2000-01-01", "2026-08-01");
    let mut at = |share: &str| {
        session
            .line(&format!("SELECT percentile_disc({share}) WITHIN GROUP (ORDER BY charged_at) FROM talkmeter.charges"))
    };
    let [early, middle, late] = ["0.1", "0.35", "0.6"].map(&mut at);
    is_what_was_billed(session, "NULL, NULL", &early, "2026-08-01");
    is_what_was_billed(session, &format!("'{policy}@1', NULL"), &middle, &late);
    let instant = session.line(&format!("SELECT '{middle}'::timestamptz + interval '1 microsecond'"));
    is_what_was_billed(session, &asked, &middle, &instant);
}

fn every_tier_paid(session: &mut Session) {
    let tiers = session.lines("SELECT tier FROM talkmeter.charges GROUP BY 1 HAVING count(*) > 30 ORDER BY 1");
    assert_eq!(tiers, ["included", "overage", "pack"]);
}

/// Plans that include 0, 1 and 3 units and cost 0.25 a unit beyond them, one in another currency, and a pack of two.
fn shop(policy: &str, default_plan: Option<&str>) -> (Database, Session) {
    let database = Database::fresh("simulate");
    let mut session = database.connect();
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "none", "included": 0, "overage_rate": 0.25, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "one", "included": 1, "overage_rate": 0.25, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "three", "included": 3, "overage_rate": 0.25, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "euro", "included": 0, "overage_rate": 0.5, "currency": "EUR"}');
           SELECT talkmeter.define_pack('{"name": "pair", "size": 2, "price": 1, "currency": "USD", "valid_for": "90 days"}')"#,
    );
    create_messages(&mut session);
    attach(&mut session, "messages", policy, default_plan, &messages_mapping());
    (database, session)
}

#[test]
fn the_rules_under_the_policy_and_plan_in_force_are_what_was_billed() {
    for policy in POLICIES {
        let (_database, mut session) = paid::rules(policy, Charged::AllAtOnce);
        every_tier_paid(&mut session);
        each_span_is_what_was_billed(&mut session, policy);
    }
}

#[test]
fn real_conversations_under_the_policy_and_plan_in_force_are_what_was_billed() {
    for policy in POLICIES {
        let (_database, mut session) = paid::irc_support(policy, Charged::AllAtOnce);
        each_span_is_what_was_billed(&mut session, policy);
    }
}

/// Those of `ai_resolution` come late, after charges of later instants: its parts end by time, and a sweep finds that.
#[test]
fn charges_that_came_with_their_messages_are_simulated_as_they_came() {
    for policy in ["lutingenie", "agent_red"] {
        let (_database, mut session) = paid::rules(policy, Charged::InBatchesOf(200));
        every_tier_paid(&mut session);
        each_span_is_what_was_billed(&mut session, policy);
    }
}

/// They take what is left then, so other tiers may pay for them.
#[test]
fn messages_that_came_late_change_who_paid_and_never_what_is_charged() {
    let (mut random, seed) = Random::seeded();
    let policy = POLICIES[random.below(3)];
    println!("TALKMETER_SEED={seed}: {policy}");
    let (_database, mut session) = paid::rules(policy, Charged::InDisorder(seed));
    let wrong = format!(
        "SELECT * FROM talkmeter.simulate(NULL, NULL, {ALWAYS}) WHERE units_difference <> 0 OR unprovable <> 0"
    );
    assert_eq!(session.lines(&wrong), NOTHING);
    let differences = format!("SELECT DISTINCT difference FROM talkmeter.simulate_parts(NULL, NULL, {ALWAYS})");
    assert_eq!(session.lines(&differences), ["paid_otherwise"]);
}

#[test]
fn a_month_of_another_zone_and_anchor_day_with_changes_of_plan_is_what_was_billed() {
    let (_database, mut session) = shop("lutingenie", None);
    session.run(
        "SELECT talkmeter.subscribe('acme', 'one', '2026-01-31 12:00+00', 'America/New_York', anchor_day => 31);
         SELECT talkmeter.change_plan('acme', 'three', '2026-03-15');
         SELECT talkmeter.change_plan('acme', 'one', '2026-03-16');
         SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => at)
         FROM unnest(ARRAY['2026-03-10', '2026-04-20']::timestamptz[]) AS at",
    );
    // Each day at 02:00 UTC, which is the day before in New York.
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', at::text, at, 'exchange'
         FROM generate_series('2026-02-01 02:00+00', '2026-05-30 02:00+00', interval '1 day') AS at",
    );
    let subscribed = session.line("SELECT count(DISTINCT plan), count(DISTINCT period_start) FROM talkmeter.charges");
    assert_eq!(subscribed, "2|4");
    for from in ["2026-01-01", "2026-02-28", "2026-03-14", "2026-03-15", "2026-03-31 04:00+00", "2026-04-25"] {
        for to in ["2026-03-31 04:00+00", "2026-05-01", "2026-07-01"].iter().filter(|to| **to > from) {
            is_what_was_billed(&mut session, "NULL, NULL", from, to);
        }
    }
}

#[test]
fn the_policy_in_force_is_the_one_that_judged_the_part() {
    let (_database, mut session) = shop("agent_red", Some("one"));
    tell(&mut session, "acme", "c", "10:00 customer_message, 10:05 error, 10:10 ai_reply, 10:20 close");
    tell(&mut session, "acme", "d", "10:00 visit");
    session.run("SELECT talkmeter.subscribe('acme', 'one', '2026-01-01', anchor_day => 1, policy => 'lutingenie')");
    is_what_was_billed(&mut session, "NULL, NULL", "2026-01-01", "2026-08-01");
}

#[test]
fn a_credited_part_is_never_charged_again() {
    let (_database, mut session) = shop("agent_red", Some("one"));
    for conversation in ["c", "d", "e"] {
        tell(&mut session, "acme", conversation, "10:00 visit");
    }
    session.run("SELECT talkmeter.credit('acme', 1, 'sorry'); SELECT talkmeter.credit('acme', 3, 'sorry')");
    // What is left of the rows makes no difference.
    session.run("DELETE FROM messages WHERE conversation_id = 'c'");
    let difference = format!("SELECT units_difference FROM talkmeter.simulate(NULL, NULL, {ALWAYS})");
    assert_eq!(session.line(&difference), "0");
    let parts =
        format!("SELECT * FROM talkmeter.simulate_parts(NULL, NULL, {ALWAYS}) WHERE difference <> 'paid_otherwise'");
    assert_eq!(session.lines(&parts), NOTHING);
}

// --- Under another policy ---

#[test]
fn another_policy_is_simulated_as_it_would_have_been_billed() {
    let mut sessions = POLICIES.map(|policy| (policy, paid::rules(policy, Charged::AllAtOnce)));
    let billed = sessions.each_mut().map(|(_, (_, session))| billed(session, "2000-01-01", "2026-08-01"));
    for (_, (_, session)) in &mut sessions {
        for (other, billed) in POLICIES.iter().zip(&billed) {
            let asked = format!("'{other}', NULL");
            assert_same_rows(&simulated(session, WOULD_BE, &asked, ALWAYS), billed);
        }
    }
}

/// Units of an expected file per tenant and month.
fn expected_units(policy: &str) -> Vec<String> {
    let mut units: BTreeMap<(String, String), u32> = BTreeMap::new();
    for part in expected(&format!("parts_{policy}.csv.gz")) {
        let columns: Vec<&str> = part.split('|').collect();
        if SOME_TENANTS.contains(&columns[0]) && columns[12] == "t" {
            *units.entry((columns[14][..7].to_owned(), columns[0].to_owned())).or_default() += 1;
        }
    }
    units.into_iter().map(|((month, tenant), units)| format!("{month}|{tenant}|{units}")).collect()
}

#[test]
fn the_units_of_another_policy_in_each_month_are_those_of_the_expected_file() {
    let (_database, mut session) = paid::irc_support("lutingenie", Charged::AllAtOnce);
    for policy in ["agent_red", "ai_resolution"] {
        let wanted = expected_units(policy);
        let months: Vec<String> = wanted.iter().map(|row| format!("('{}-01'::timestamptz)", &row[..7])).collect();
        let found = session.lines(&format!(
            r#"SELECT to_char(month, 'YYYY-MM'), s.tenant, s.units
               FROM (SELECT DISTINCT month FROM (VALUES {}) AS wanted (month)) AS months
               CROSS JOIN LATERAL talkmeter.simulate('{policy}', NULL, month, month + interval '1 month') AS s
               WHERE s.units > 0
               ORDER BY 1, s.tenant COLLATE "C""#,
            months.join(", ")
        ));
        assert!(wanted.len() > 10);
        assert_same_rows(&found, &wanted);
    }
}

/// The expected file counts each month; all of them are simulated in one go.
#[test]
fn the_tiers_of_another_policy_and_plan_are_those_of_the_expected_draw_down() {
    let database = Database::fresh("simulate");
    let mut session = database.connect();
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "sample", "included": 100, "overage_rate": 0.04, "currency": "USD"}');
           SELECT talkmeter.define_pack('{"name": "sample", "size": 50, "price": 1, "currency": "USD", "valid_for": "90 days"}')"#,
    );
    attach_irc_support(&mut session, "ai_resolution", Some("ai_resolution/usage"));
    let tenants = ["ubuntu-2010", "ubuntu-2011"];
    for tenant in tenants {
        let first = records("irc_support.csv.gz").iter().find(|row| &row[1] == tenant).expect("a row")[3].to_owned();
        session.run(&format!(
            "SELECT talkmeter.buy_pack('{tenant}', 'sample', purchased_at => at)
             FROM date_trunc('month', '{first}'::timestamptz) AS period_start,
                 unnest(ARRAY[period_start, period_start + interval '720 hours']) AS at"
        ));
    }
    let all = text("irc_support.csv.gz");
    let wanted = |row: &&str| tenants.iter().any(|tenant| row.split(',').nth(1) == Some(tenant));
    let rows: Vec<&str> = all.lines().take(1).chain(all.lines().filter(wanted)).collect();
    copy_batches(&mut session, "irc_support", &rows.join("\n"), usize::MAX);
    session.sweep("2026-01-01");
    let columns = "tenant, units, included_units, pack_units, overage_units, round(amount, 2)";
    let found = simulated(&mut session, columns, "'agent_red', 'sample'", ALWAYS);
    assert_same_rows(&found, &yearly(&tenants));
}

/// The sums of the expected draw-down of some tenants, whose money is all overage at 0.04.
fn yearly(tenants: &[&str]) -> Vec<String> {
    let rows = expected("draw_down.csv.gz");
    let of = |tenant: &&str| {
        let mut sums = [0; 4];
        for row in rows.iter().filter(|row| row.split('|').next() == Some(tenant)) {
            for (sum, column) in sums.iter_mut().zip(row.split('|').skip(2)) {
                *sum += column.parse::<u32>().expect("a number");
            }
        }
        let [units, included, pack, overage] = sums;
        assert!(pack > 0 && overage > 0);
        format!("{tenant}|{units}|{included}|{pack}|{overage}|{}.{:02}", overage * 4 / 100, overage * 4 % 100)
    };
    tenants.iter().map(of).collect()
}

#[test]
fn parts_that_would_be_added_or_removed_are_listed_with_what_they_cost_and_what_was_billed() {
    let (_database, mut session) = shop("agent_red", Some("one"));
    // Only the second is charged: agent_red waives what began with an error, and ai_resolution what staff answered.
    tell(&mut session, "acme", "a", "10:00 customer_message, 10:05 error, 10:10 ai_reply, 10:20 close");
    tell(&mut session, "acme", "b", "11:00 exchange, 11:10 staff_reply, 11:20 close");
    tell(&mut session, "acme", "c", "12:00 visit");
    let parts = "SELECT * FROM talkmeter.simulate_parts('ai_resolution', 'euro', '2026-01-01', '2026-08-01')";
    assert_eq!(
        session.lines(parts),
        [
            "acme|a|2026-03-01 10:00:00+00|added|2026-03-01 10:20:00+00|overage|0.5|EUR|||||",
            "acme|b|2026-03-01 11:00:00+00|removed|||||1|2026-03-01 11:00:00+00|included|0|USD",
            "acme|c|2026-03-01 12:00:00+00|paid_otherwise|2026-03-01 12:00:00+00|overage|0.5|EUR|1|2026-03-01 12:00:00+00|overage|0.25|USD",
        ]
    );
    // Amounts of two currencies have no difference.
    let sums = "SELECT * FROM talkmeter.simulate('ai_resolution', 'euro', '2026-01-01', '2026-08-01')";
    assert_eq!(session.lines(sums), ["acme|2|0|0|2|1.0|EUR|0|2|1|0|1|0.25|USD|0|"]);
}

#[test]
fn a_pinned_version_stays_the_one_that_it_names() {
    let (_database, mut session) = shop("agent_red", Some("one"));
    session.run(
        r#"SELECT talkmeter.define_policy('{"name": "agent_red", "label": "2", "effective_from": "2026-03-01 11:00+00",
               "starts_on": ["customer_message"], "ends_on": ["close"], "charge_on": "first_ai_reply",
               "staff_reply_blocks": false, "error_before_reply_waives": false, "exclude_prefixes": []}')"#,
    );
    // The first version waives both, the second none.
    for (conversation, hour) in [("a", 10), ("b", 12)] {
        let story = format!("{hour}:00 customer_message, {hour}:05 error, {hour}:10 ai_reply, {hour}:20 close");
        tell(&mut session, "acme", conversation, &story);
    }
    for (policy, units) in [("agent_red", "1|1|0"), ("agent_red@1", "0|1|-1"), ("agent_red@2", "2|1|1")] {
        let asked = format!("'{policy}', NULL");
        let found = simulated(&mut session, "units, billed_units, units_difference", &asked, ALWAYS);
        assert_eq!(found, [units], "{policy}");
    }
}

// --- Under another plan ---

#[test]
fn another_plan_changes_tiers_and_money_only() {
    let (_database, mut session) = paid::rules("lutingenie", Charged::AllAtOnce);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "all", "included": 1000000, "overage_rate": 1, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "none", "included": 0, "overage_rate": 0.5, "currency": "USD"}')"#,
    );
    let differs = |condition: &str, plan: &str| {
        format!(
            "SELECT * FROM talkmeter.simulate(NULL, '{plan}', {ALWAYS})
             WHERE units_difference <> 0 OR units <> included_units + pack_units + overage_units OR NOT ({condition})"
        )
    };
    let all = "included_units = units AND amount = 0 AND amount_difference = -billed_amount AND units > 0";
    let none = "included_units = 0 AND amount = 0.5 * overage_units AND amount_difference = amount - billed_amount
        AND pack_units >= billed_pack_units AND overage_units > billed_overage_units";
    assert_eq!(session.lines(&differs(all, "all")), NOTHING);
    assert_eq!(session.lines(&differs(none, "none")), NOTHING);
    let tenants = session.lines(&format!("SELECT tenant FROM talkmeter.simulate(NULL, 'none', {ALWAYS})"));
    assert_eq!(tenants, session.lines("SELECT DISTINCT tenant FROM talkmeter.charges ORDER BY 1"));
    let kinds = format!(
        "SELECT difference, count(*) = (SELECT count(*) FROM talkmeter.charges WHERE tier <> 'included')
         FROM talkmeter.simulate_parts(NULL, 'all', {ALWAYS}) GROUP BY 1"
    );
    assert_eq!(session.lines(&kinds), ["paid_otherwise|t"]);
}

#[test]
fn packs_really_bought_are_drawn_as_they_were_when_the_span_began() {
    let (_database, mut session) = shop("lutingenie", None);
    session.run(
        "SELECT talkmeter.subscribe('acme', 'one', '2026-01-01', anchor_day => 1);
         SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-02');
         SELECT talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-04');
         SELECT talkmeter.refund_pack('acme', talkmeter.buy_pack('acme', 'pair', purchased_at => '2026-03-01'))",
    );
    // Billed: 1st included, 2nd overage, then two from each pack, and overage again.
    for day in ["01 09", "01 10", "02 10", "03 10", "04 10", "05 10", "06 10"] {
        tell(&mut session, "acme", day, &format!("2026-03-{day}:00 exchange"));
    }
    let columns = "units, included_units, pack_units, overage_units, amount, amount_difference";
    for (plan, from, found) in [
        ("one", "2026-03-01", "7|1|4|2|0.50|0.00"),
        ("three", "2026-03-01", "7|3|4|0|0|-0.50"),
        ("none", "2026-03-01", "7|0|4|3|0.75|0.25"),
        // One of the allowance was used before, whatever the plan.
        ("one", "2026-03-02", "5|0|4|1|0.25|0.00"),
        ("three", "2026-03-02", "5|2|3|0|0|-0.25"),
        // And one of the first pack.
        ("one", "2026-03-02 11:00", "4|0|3|1|0.25|0.00"),
        ("three", "2026-03-02 11:00", "4|2|2|0|0|-0.25"),
        ("none", "2026-03-04", "3|0|2|1|0.25|0.00"),
    ] {
        let span = format!("'{from}', '2026-04-01'");
        let asked = format!("NULL, '{plan}'");
        assert_eq!(simulated(&mut session, columns, &asked, &span), [found], "{plan} from {from}");
    }
}

// --- What cannot be folded, and who has no plan ---

#[test]
fn units_of_conversations_that_lost_rows_stay_as_billed_and_are_counted_as_unprovable() {
    let (_database, mut session) = shop("agent_red", Some("three"));
    for conversation in ["a", "b", "c"] {
        tell(&mut session, "acme", conversation, "10:00 exchange, 10:05 staff_reply, 10:10 close, 12:00 visit");
    }
    session.run("DELETE FROM messages WHERE conversation_id = 'a' AND kind = 'exchange'");
    session.run("DELETE FROM messages WHERE conversation_id = 'b'");
    // Without staff's part; those of `a` and `b` can no more be told to have one.
    let columns = "units, unprovable, billed_units";
    assert_eq!(simulated(&mut session, columns, "'ai_resolution', NULL", ALWAYS), ["5|4|6"]);
    assert_eq!(simulated(&mut session, columns, "NULL, NULL", ALWAYS), ["6|4|6"]);
    let removed =
        format!("SELECT conversation, difference FROM talkmeter.simulate_parts('ai_resolution', NULL, {ALWAYS})");
    assert_eq!(session.lines(&removed), ["c|removed"]);
}

#[test]
fn a_tenant_without_a_subscription_is_drawn_under_the_plan_that_is_asked_for() {
    let (_database, mut session) = shop("lutingenie", None);
    for day in 1..=3 {
        tell(&mut session, "acme", &day.to_string(), &format!("2026-03-0{day} 10:00 exchange"));
    }
    tell(&mut session, "acme", "4", "2026-04-01 00:00 exchange");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.unplanned"), "4");
    let found = simulated(&mut session, "*", "NULL, 'one'", ALWAYS);
    assert_eq!(found, ["acme|4|2|0|2|0.50|USD|0|0|0|0|0|0||4|0.50"]);
    assert_eq!(simulated(&mut session, "*", "NULL, NULL", ALWAYS), NOTHING);
}

// --- Errors and effects ---

#[test]
fn what_cannot_be_simulated_is_an_error_that_says_why() {
    let (_database, mut session) = shop("agent_red", Some("one"));
    tell(&mut session, "acme", "c", "10:00 exchange");
    let (from, to) = ("'2026-03-01'", "'2026-04-01'");
    let out_of_range = SqlState::DATETIME_FIELD_OVERFLOW;
    for (arguments, code, message) in [
        (format!("'nobody', NULL, {from}, {to}"), SqlState::UNDEFINED_OBJECT, "policy \"nobody\" does not exist"),
        (
            format!("'agent_red@9', NULL, {from}, {to}"),
            SqlState::UNDEFINED_OBJECT,
            "policy \"agent_red@9\" does not exist",
        ),
        (format!("NULL, 'nothing', {from}, {to}"), SqlState::UNDEFINED_OBJECT, "plan \"nothing\" does not exist"),
        (
            format!("NULL, NULL, {from}, {from}"),
            SqlState::INVALID_PARAMETER_VALUE,
            "\"from_time\" is not before \"to_time\"",
        ),
        (
            format!("NULL, NULL, {to}, {from}"),
            SqlState::INVALID_PARAMETER_VALUE,
            "\"from_time\" is not before \"to_time\"",
        ),
        (
            format!("NULL, NULL, '-infinity', {to}"),
            out_of_range.clone(),
            "\"from_time\" is not an instant of the years 1 to 9999",
        ),
        (
            format!("NULL, NULL, {from}, 'infinity'"),
            out_of_range,
            "\"to_time\" is not an instant of the years 1 to 9999",
        ),
        ("NULL, tenant => 'nobody'".to_owned(), SqlState::UNDEFINED_OBJECT, "nothing is known of tenant \"nobody\""),
    ] {
        for function in ["simulate", "simulate_parts"] {
            let asked = format!("SELECT * FROM talkmeter.{function}({arguments})");
            let error = session.client.batch_execute(&asked).expect_err(&asked);
            let error = error.as_db_error().expect("the server's error");
            assert_eq!((error.code(), error.message()), (&code, message), "{asked}");
        }
    }
}

#[test]
fn without_bounds_all_is_simulated_and_with_a_tenant_only_what_is_of_it() {
    let (_database, mut session) = talkmeter_tests::metered("agent_red");
    for (tenant, conversation) in [("acme", "a"), ("acme", "b"), ("other", "c")] {
        tell(&mut session, tenant, conversation, "10:00 exchange");
    }
    let all = session.lines("SELECT tenant, units, billed_units FROM talkmeter.simulate('lutingenie') ORDER BY tenant");
    assert_eq!(all, ["acme|2|2", "other|1|1"]);
    let one =
        "SELECT tenant, units, billed_units, units_difference FROM talkmeter.simulate('lutingenie', tenant => 'acme')";
    assert_eq!(session.lines(one), ["acme|2|2|0"]);
    let parts = "SELECT DISTINCT tenant, difference
        FROM talkmeter.simulate_parts(NULL, 'ai_resolution/usage', tenant => 'other')";
    assert_eq!(session.lines(parts), ["other|paid_otherwise"]);
}

/// Each row of talkmeter's with where it lies and who wrote it: differs if anything was written.
fn rows_as_stored(session: &mut Session) -> Vec<String> {
    let tables =
        session.lines("SELECT relname FROM pg_class WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'r'");
    let rows = tables.iter().map(|table| format!("SELECT '{table}', ctid, xmin, xmax FROM talkmeter.{table}"));
    session.lines(&format!("{} ORDER BY 1, 2", rows.collect::<Vec<_>>().join(" UNION ALL ")))
}

#[test]
fn nothing_is_written_and_nothing_locked() {
    let (_database, mut session) = paid::rules("lutingenie", Charged::AllAtOnce);
    let before = rows_as_stored(&mut session);
    session.run(&format!(
        "BEGIN READ ONLY;
         SELECT * FROM talkmeter.simulate('ai_resolution', 'agent_red/starter', {ALWAYS});
         SELECT * FROM talkmeter.simulate_parts('agent_red', NULL, {ALWAYS})"
    ));
    // That on `progress` says that this is long work of ours, and holds nobody up.
    let held = "SELECT mode FROM pg_locks
        WHERE pid = pg_backend_pid() AND locktype NOT IN ('virtualxid')
            AND relation IS DISTINCT FROM 'talkmeter.progress'::regclass
        GROUP BY 1";
    assert_eq!(session.lines(held), ["AccessShareLock"]);
    assert_eq!(session.line("SELECT pg_current_xact_id_if_assigned()"), "");
    session.run("COMMIT");
    assert!(!before.is_empty());
    assert_same_rows(&rows_as_stored(&mut session), &before);
}

// --- Speed ---

/// A table of many conversations with this index; how often it and its index are read by `call`.
fn reads(index: &str, call: &str) -> (u32, u32) {
    let database = Database::fresh("speed");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(&format!("DROP INDEX messages_tenant_id_conversation_id_created_at_idx; {index}"));
    attach(&mut session, "messages", "agent_red", Some("agent_red/starter"), &messages_mapping());
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', 'c' || n, timestamptz '2026-03-01 10:00+00' + n * interval '1 min', 'exchange'
         FROM generate_series(1, 6000) AS n;
         ANALYZE messages",
    );
    session.sweep("2026-03-20");
    // What a session has read and not yet reported is shown as read by its transaction.
    let mut session = database.connect();
    session.run(&format!("BEGIN; {call}"));
    let scans =
        "SELECT sum(seq_scan), COALESCE(sum(idx_scan), 0) FROM pg_stat_xact_user_tables WHERE relname = 'messages'";
    let line = session.line(scans);
    let (whole, by_index) = line.split_once('|').expect("two numbers");
    (whole.parse().expect("a number"), by_index.parse().expect("a number"))
}

const INDEX: &str =
    "CREATE INDEX ON messages (tenant_id, conversation_id, created_at); CREATE INDEX ON messages (created_at)";

#[test]
fn without_an_index_a_table_of_many_conversations_is_read_a_few_times() {
    let (whole, _) =
        reads("", "SELECT FROM talkmeter.simulate('agent_red', 'agent_red/starter', '2026-03-01', '2026-03-20')");
    assert!(whole <= 4, "read {whole} times");
    let (whole, _) = reads("", "SELECT talkmeter.reconcile('2026-03-03')");
    assert!(whole <= 4, "read {whole} times");
}

#[test]
fn with_an_index_few_conversations_of_a_table_of_many_are_read_by_it() {
    let span = "'2026-03-03 10:00', '2026-03-03 10:05'";
    let (whole, by_index) =
        reads(INDEX, &format!("SELECT FROM talkmeter.simulate('agent_red', 'agent_red/starter', {span})"));
    assert_eq!(whole, 0);
    assert!(by_index > 0);
}

// --- A table that is read as a whole ---

/// How many times this session has looked something up in the messages by an index so far.
fn looked_up(session: &mut Session) -> i64 {
    session.run("SELECT pg_stat_force_next_flush()");
    let count = "SELECT sum(idx_scan) FROM pg_stat_user_tables WHERE relname LIKE 'messages%'";
    session.line(count).parse().expect("a count")
}

#[test]
fn a_table_that_is_read_as_a_whole_gives_what_its_conversations_give_one_by_one() {
    let (_database, mut session) = shop("agent_red", Some("one"));
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'tenant ' || n % 3, 'c' || n, '2026-03-01'::timestamptz + n * interval '1 hour' + m * interval '20 min',
             CASE WHEN (n + m) % 7 = 6 THEN 'error' WHEN m % 2 = 0 THEN 'customer_message' ELSE 'ai_reply' END
         FROM generate_series(1, 1500) AS n, generate_series(0, 4) AS m;
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('tenant 0', 'c3', '2026-03-20', 'unheard_of'), ('tenant 1', NULL, '2026-03-20', 'ai_reply');
         SELECT talkmeter.mark('tenant ' || n % 3, 'c' || n, 'new_topic', '2026-03-01'::timestamptz + n * interval '1 hour 5 min')
         FROM generate_series(1, 1500, 50) AS n;
         UPDATE messages SET kind = 'ai_reply' WHERE id % 31 = 0;
         DELETE FROM messages WHERE id % 97 = 0;
         SELECT talkmeter.sweep()",
    );
    let spans = ["'2026-03-01', '2026-06-01'", "'2026-03-11 07:30', '2026-04-02'", "'0001-01-02', '9999-01-01'"];
    let asked = ["NULL, NULL", "'agent_red', 'three'", "'lutingenie', 'none'"];
    let answers = |session: &mut Session| {
        let mut all = Vec::new();
        for (span, asked) in spans.iter().flat_map(|span| asked.map(|asked| (span, asked))) {
            all.extend(session.lines(&format!("SELECT * FROM talkmeter.simulate({asked}, {span}) ORDER BY 1")));
            all.extend(
                session.lines(&format!("SELECT * FROM talkmeter.simulate_parts({asked}, {span}) ORDER BY 1, 2, 3")),
            );
        }
        all
    };
    let before = looked_up(&mut session);
    let one_by_one = answers(&mut session);
    assert!(one_by_one.len() > 50, "{}", one_by_one.len());
    let between = looked_up(&mut session);
    assert!(between > before, "the server knows nothing of the table, and so expects little in the spans");
    session.run("ANALYZE messages");
    assert_same_rows(&answers(&mut session), &one_by_one);
    assert_eq!(looked_up(&mut session), between, "looked up by index");
}
