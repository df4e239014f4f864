//! What have tenants used by day and month, what will it come to, and is asking as cheap with a million charges (rule
//! 5)?

use talkmeter_tests::{Database, Session, at_length, attach, create_messages, messages_mapping, tell};

const NOTHING: [&str; 0] = [];

/// Plans in three currencies, and a pack of 30 units.
fn shop() -> (Database, Session) {
    let database = Database::fresh("usage");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "one", "included": 1, "overage_rate": 0.125, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "three", "included": 3, "overage_rate": 0.1, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "fifty", "included": 50, "overage_rate": 0.04, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "120", "included": 120, "overage_rate": 0.04, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "thousand", "included": 1000, "overage_rate": 0.04, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "fine", "included": 0, "overage_rate": 0.004, "currency": "USD"}');
           SELECT talkmeter.define_plan('{"name": "yen", "included": 0, "overage_rate": 0.5, "currency": "JPY"}');
           SELECT talkmeter.define_pack('{"name": "thirty", "size": 30, "price": 1, "currency": "USD", "valid_for": "90 days"}')"#,
    );
    (database, session)
}

fn subscribe(session: &mut Session, tenant: &str, plan: &str, zone: &str) {
    session.run(&format!(
        "SELECT talkmeter.subscribe('{tenant}', '{plan}', '2026-01-01 12:00', '{zone}', anchor_day => 1)"
    ));
}

/// One unit at each of these times.
fn units(session: &mut Session, tenant: &str, times: &[&str]) {
    for time in times {
        tell(session, tenant, time, &format!("{time} exchange"));
    }
}

// --- usage_daily ---

fn daily(session: &mut Session) -> Vec<String> {
    session.lines("SELECT tenant, day, used FROM talkmeter.usage_daily ORDER BY 1, 2")
}

#[test]
fn a_day_is_that_of_the_tenants_zone() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "east", "one", "Asia/Tokyo");
    subscribe(&mut session, "utc", "one", "UTC");
    subscribe(&mut session, "west", "one", "America/New_York");
    for tenant in ["east", "utc", "west"] {
        units(
            &mut session,
            tenant,
            &["2026-03-01 23:59:59", "2026-03-02 00:00", "2026-03-02 04:59:59", "2026-03-02 05:00"],
        );
    }
    // A day of 23 hours, then one of 24.
    units(&mut session, "west", &["2026-03-08 05:00", "2026-03-09 03:59:59", "2026-03-09 04:00"]);
    assert_eq!(
        daily(&mut session),
        [
            "east|2026-03-02|4",
            "utc|2026-03-01|1",
            "utc|2026-03-02|3",
            "west|2026-03-01|3",
            "west|2026-03-02|1",
            "west|2026-03-08|2",
            "west|2026-03-09|1",
        ]
    );
}

#[test]
fn a_unit_that_was_taken_back_is_taken_from_the_day_of_its_charge_instant() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "acme", "one", "UTC");
    units(&mut session, "acme", &["2026-03-01 10:00", "2026-03-01 11:00", "2026-03-02 10:00"]);
    session.run("SELECT talkmeter.credit('acme', 1, 'sorry'), talkmeter.credit('acme', 3, 'sorry')");
    assert_eq!(daily(&mut session), ["acme|2026-03-01|1", "acme|2026-03-02|0"]);
}

#[test]
fn a_charge_that_moves_to_another_day_of_its_period_stays_as_posted() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "acme", "one", "UTC");
    tell(&mut session, "acme", "c", "2026-03-01 23:50 customer_message, 2026-03-02 00:10 ai_reply");
    assert_eq!(daily(&mut session), ["acme|2026-03-02|1"]);
    tell(&mut session, "acme", "c", "2026-03-01 23:55 ai_reply");
    assert_eq!(session.line("SELECT charged_at FROM talkmeter.charges"), "2026-03-02 00:10:00+00");
    assert_eq!(daily(&mut session), ["acme|2026-03-02|1"]);
}

// --- usage_history ---

const HISTORY: &str = "
    SELECT tenant, plan, period_start, period_end, used, included, included_used, pack_used, overage_units, overage, currency
    FROM talkmeter.usage_history
    ORDER BY tenant, period_start";

#[test]
fn the_history_has_each_month_that_is_over_and_had_units_and_not_the_current_one() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "acme", "one", "America/New_York");
    session.run("SELECT talkmeter.buy_pack('acme', 'thirty', purchased_at => '2026-05-02 10:30+00')");
    units(&mut session, "acme", &["2026-03-01 04:59", "2026-03-01 05:00", "2026-03-02 10:00", "2026-03-03 10:00"]);
    units(&mut session, "acme", &["2026-05-01 10:00", "2026-05-02 10:00", "2026-05-02 11:00"]);
    tell(&mut session, "acme", "current", "now exchange");
    let history = [
        "acme|one|2026-02-01 05:00:00+00|2026-03-01 05:00:00+00|1|1|1|0|0|0.00|USD",
        // Two units of 0.125 are 0.25; one in May is rounded.
        "acme|one|2026-03-01 05:00:00+00|2026-04-01 04:00:00+00|3|1|1|0|2|0.25|USD",
        "acme|one|2026-05-01 04:00:00+00|2026-06-01 04:00:00+00|3|1|1|1|1|0.13|USD",
    ];
    assert_eq!(session.lines(HISTORY), history);
    assert_eq!(session.line("SELECT used FROM talkmeter.usage"), "1");
}

#[test]
fn the_history_is_net_and_has_the_last_plan_of_each_month_and_who_closed_it() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "acme", "one", "UTC");
    units(&mut session, "acme", &["2026-03-01 10:00", "2026-03-02 10:00"]);
    session.run("SELECT talkmeter.change_plan('acme', 'three', '2026-03-03')");
    units(&mut session, "acme", &["2026-03-04 10:00", "2026-04-01 10:00"]);
    session.run("SELECT talkmeter.credit('acme', 2, 'sorry'); SELECT talkmeter.cancel('acme', '2026-04-20')");
    assert_eq!(
        session.lines(HISTORY),
        [
            "acme|three|2026-03-01 00:00:00+00|2026-04-01 00:00:00+00|2|3|2|0|0|0.00|USD",
            "acme|three|2026-04-01 00:00:00+00|2026-05-01 00:00:00+00|1|3|1|0|0|0.00|USD",
        ]
    );
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    let finalized = "SELECT finalized_at IS NOT NULL FROM talkmeter.usage_history ORDER BY period_start";
    assert_eq!(session.lines(finalized), ["t", "f"]);
}

#[test]
fn the_money_of_a_month_has_the_digits_of_its_currency() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "acme", "yen", "UTC");
    units(&mut session, "acme", &["2026-03-01 10:00", "2026-03-02 10:00", "2026-03-03 10:00"]);
    assert_eq!(session.lines("SELECT overage, currency FROM talkmeter.usage_history"), ["2|JPY"]);
    let billed = "SELECT amount FROM talkmeter.statement('acme', '2026-03-01') WHERE kind = 'overage'";
    assert_eq!(session.line(billed), "2");
}

#[test]
fn a_month_that_nobody_used_has_no_row() {
    let (_database, mut session) = shop();
    subscribe(&mut session, "acme", "one", "UTC");
    for view in ["usage_history", "usage_daily"] {
        assert_eq!(session.lines(&format!("SELECT * FROM talkmeter.{view}")), NOTHING);
    }
}

// --- usage_projection ---

/// A tenant whose month began 15 days ago, and this many units of yesterday.
fn half_a_month(session: &mut Session, tenant: &str, plan: &str, units: u32) {
    session.run(&format!(
        "SELECT talkmeter.subscribe('{tenant}', '{plan}', now() - interval '15 days',
             anchor_day => extract(day FROM now() - interval '15 days')::integer);
         INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT '{tenant}', n::text, now() - interval '1 day', 'exchange'
         FROM generate_series(1, {units}) AS n"
    ));
}

/// Units of the whole month, by the share of it that has passed.
const WHOLE: &str = "round(used / (extract(epoch FROM statement_timestamp() - period_start)
    / extract(epoch FROM period_end - period_start)))";

#[test]
fn half_a_month_of_units_comes_to_twice_as_many() {
    let (_database, mut session) = shop();
    half_a_month(&mut session, "acme", "thousand", 100);
    let projected = session.line(&format!(
        "SELECT used, projected_used = {WHOLE}, projected_used BETWEEN 170 AND 210, projected_overage_units, projected_overage,
             currency
         FROM talkmeter.usage_projection"
    ));
    assert_eq!(projected, "100|t|t|0|0.00|USD");
}

#[test]
fn allowance_and_packs_that_are_left_pay_first() {
    let (_database, mut session) = shop();
    half_a_month(&mut session, "overage already", "fifty", 100);
    half_a_month(&mut session, "allowance left", "120", 100);
    session.run("SELECT talkmeter.buy_pack('allowance and pack left', 'thirty')");
    half_a_month(&mut session, "allowance and pack left", "120", 100);
    session.run("SELECT talkmeter.buy_pack('pack begun', 'thirty', purchased_at => now() - interval '2 days')");
    half_a_month(&mut session, "pack begun", "fifty", 60);
    let wrong = session.lines(&format!(
        "SELECT p.*, whole
         FROM talkmeter.usage_projection AS p
         CROSS JOIN LATERAL (SELECT {WHOLE}::bigint AS whole) AS w
         CROSS JOIN LATERAL (
             SELECT CASE tenant WHEN 'overage already' THEN whole - 50
                 WHEN 'allowance left' THEN whole - 120
                 WHEN 'allowance and pack left' THEN whole - 150
                 WHEN 'pack begun' THEN whole - 80 END AS overage_units) AS o
         WHERE projected_overage_units IS DISTINCT FROM overage_units
             OR projected_overage IS DISTINCT FROM overage_units * 0.04
             OR projected_used IS DISTINCT FROM whole"
    ));
    assert_eq!(wrong, NOTHING);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.usage_projection"), "4");
}

#[test]
fn without_units_nothing_is_expected_and_without_a_plan_nobody_is_listed() {
    let (_database, mut session) = shop();
    half_a_month(&mut session, "acme", "one", 0);
    session.run("SELECT talkmeter.buy_pack('unplanned', 'thirty')");
    let projected = "SELECT tenant, used, projected_used, projected_overage_units, projected_overage FROM talkmeter.usage_projection";
    assert_eq!(session.lines(projected), ["acme|0|0|0|0.00"]);
}

#[test]
fn projected_money_is_rounded_once() {
    let (_database, mut session) = shop();
    for units in 1..20 {
        half_a_month(&mut session, &units.to_string(), "fine", units);
    }
    let wrong = "SELECT tenant, projected_overage_units, projected_overage FROM talkmeter.usage_projection
                 WHERE projected_overage <> round(projected_overage_units * 0.004, 2)";
    assert_eq!(session.lines(wrong), NOTHING);
}

// --- What asking costs ---

/// So many parts, each with its charge, written straight into the tables: half of them of one big tenant, the others of
/// many small ones, four each.
fn fill(session: &mut Session, parts: u32) {
    session.run(&format!(
        "CREATE TEMPORARY TABLE unit AS
         SELECT CASE WHEN n % 2 = 0 THEN 'big' ELSE 'small ' || n / 8 END AS tenant, n::text AS conversation,
             date_trunc('month', now(), 'UTC') - (n % 24) * interval '1 month' AS period_start
         FROM generate_series(1, {parts}) AS n;
         INSERT INTO talkmeter.account (tenant, last_charge_id, last_pack_id, last_subscription_id)
         SELECT tenant, count(*), 1, 1 FROM unit GROUP BY 1;
         INSERT INTO talkmeter.subscription (tenant, subscription_id, since, plan, timezone, anchor_day, last_charge_id)
         SELECT tenant, 1, '2020-01-01', 'three', 'UTC', 1, 0 FROM talkmeter.account;
         INSERT INTO talkmeter.pack (tenant, pack_id, pack, size, remaining, price, currency, purchased_at, expires_at,
             billed_at)
         SELECT tenant, 1, 'thirty', 30, 30, 1, 'USD', now() - interval '1 day', now() + interval '1 day', now()
         FROM talkmeter.account;
         INSERT INTO talkmeter.conversation (tenant, conversation, highest_part, last_event)
         SELECT tenant, conversation, 1, '' FROM unit;
         INSERT INTO talkmeter.ended_part (tenant, conversation, part, first_event, last_event, policy, policy_version, started_at,
             first_ai_reply_at, last_activity_at, ended_at, end_reason, event_count, message_count, turn_count, ai_replies,
             staff_replies, customer_waits, excluded, error_before_reply, charged_at)
         SELECT tenant, conversation, 1, '\\x8000000000000000', '\\x8000000000000000', 'lutingenie', 1,
             period_start, period_start, period_start, period_start, 'close', 3, 2, 1, 1, 0, false, false, false, period_start
         FROM unit;
         INSERT INTO talkmeter.charge (tenant, charge_id, conversation, part, charged_at, period_start, period_end,
             posted_period_start, posted_period_end, tier, amount, currency, plan, policy, policy_version)
         SELECT tenant, row_number() OVER (PARTITION BY tenant), conversation, 1, period_start, period_start,
             period_start + interval '1 month', period_start, period_start + interval '1 month', 'overage', 0.1, 'USD', 'three',
             'lutingenie', 1
         FROM unit;
         INSERT INTO talkmeter.period (tenant, period_start, period_end, included_used, pack_used, overage_units,
             overage_amount)
         SELECT tenant, period_start, period_start + interval '1 month', 0, 0, count(*), count(*) * 0.1
         FROM unit
         GROUP BY 1, 2;
         INSERT INTO talkmeter.day_units (tenant, day, units)
         SELECT tenant, period_start::date, count(*) FROM unit GROUP BY 1, 2"
    ));
    session.run("VACUUM ANALYZE");
}

/// Usage and balance of a big tenant and of a small one, and all views of the small one.
fn questions(session: &mut Session) -> Vec<String> {
    let mut questions = session.lines(
        "SELECT format('SELECT count(v) FROM talkmeter.%I AS v WHERE tenant = %L', c.relname, 'small 7')
         FROM pg_class AS c
         JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attname = 'tenant'
         WHERE c.relnamespace = 'talkmeter'::regnamespace AND c.relkind = 'v' AND c.relname NOT LIKE 'my\\_%'
         ORDER BY c.relname",
    );
    assert!(questions.len() >= 14, "{questions:?}");
    questions.push("SELECT * FROM talkmeter.usage WHERE tenant = 'big'".to_owned());
    questions.extend(["big", "small 7"].map(|tenant| format!("SELECT talkmeter.balance('{tenant}')")));
    questions
}

/// What a question costs.
#[derive(Debug)]
struct Cost {
    /// Rows of talkmeter's tables that it read, also those that functions read for it.
    read: u32,
    /// Rows that the nodes of its plan gave or threw away.
    planned: u32,
    buffers: u32,
}

fn costs(session: &mut Session) -> Vec<(String, Cost)> {
    session.run(
        r#"CREATE FUNCTION pg_temp.plan(query text) RETURNS jsonb LANGUAGE plpgsql AS $$
               DECLARE plan json;
               BEGIN
                   EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) ' || query INTO plan;
                   RETURN plan->0->'Plan';
               END
           $$"#,
    );
    let questions = questions(session);
    questions.into_iter().map(|question| (question.clone(), cost(session, &question))).collect()
}

fn cost(session: &mut Session, question: &str) -> Cost {
    // The first answer of a session reads the catalogs.
    assert_eq!(session.lines(question).len(), 1, "{question}");
    // What was read before is counted here until it has been reported.
    session.run("SELECT pg_stat_force_next_flush()");
    session.run(&format!("BEGIN; {question}"));
    let read = session.line(
        "SELECT sum(COALESCE(seq_tup_read, 0) + COALESCE(idx_tup_fetch, 0))
         FROM pg_stat_xact_user_tables
         WHERE schemaname = 'talkmeter'",
    );
    session.run("ROLLBACK");
    let planned = session.line(&format!(
        r#"SELECT sum(((node->>'Actual Rows')::numeric + COALESCE((node->>'Rows Removed by Filter')::numeric, 0))
                   * (node->>'Actual Loops')::numeric)::integer,
               max((plan->>'Shared Hit Blocks')::integer + (plan->>'Shared Read Blocks')::integer)
           FROM pg_temp.plan($question${question}$question$) AS plan,
               jsonb_path_query(plan, 'strict $.** ? (exists(@."Node Type"))') AS node"#
    ));
    let (planned, buffers) = planned.split_once('|').expect("two numbers");
    let number = |text: &str| text.parse().expect("a number");
    Cost { read: number(&read), planned: number(planned), buffers: number(buffers) }
}

#[test]
fn what_is_asked_of_a_tenant_reads_as_few_rows_of_many_as_of_few() {
    let many = if at_length() { 1_000_000 } else { 200_000 };
    let [few, many] = [20_000, many].map(|parts| {
        let (_database, mut session) = shop();
        fill(&mut session, parts);
        costs(&mut session)
    });
    assert!(few.iter().any(|(_, cost)| cost.read > 0), "what is read is counted");
    for ((question, few), (_, many)) in few.iter().zip(&many) {
        println!("{question}\n  few:  {few:?}\n  many: {many:?}");
        // Each of the tenant's months, of seven years by now, is asked for what its statement lists.
        let is_of_all_months = ["bills", "billed_line", "revenue_daily"].iter().any(|view| question.contains(view));
        assert!(few.read < if is_of_all_months { 3_000 } else { 40 }, "{question}");
        assert!(many.read <= few.read, "{question}");
        // A plan of more rows may have a node more or less.
        assert!(many.planned <= few.planned + 10, "{question}");
        // An index of more rows may be a level or two deeper, for each of some look-ups.
        let deeper = if is_of_all_months { 250 } else { 25 };
        assert!(many.buffers <= few.buffers + deeper, "{question}");
    }
}
