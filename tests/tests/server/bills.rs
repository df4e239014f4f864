//! What does a month come to, and a day (rules 5.15 to 5.17)?

use talkmeter_tests::{Database, Session, assert_same_rows, attach, create_messages, messages_mapping, tell};

/// `berlin` on a plan with a price, in its own zone, from the middle of January on; nothing in March, a pack that is
/// late, a credit, a frozen January. `plain` on a plan without a price, and `left`, which was cancelled.
fn shop() -> (Database, Session) {
    let database = Database::fresh("bills");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "price": 10, "currency": "EUR"}');
           SELECT talkmeter.define_plan('{"name": "free", "included": 1, "overage_rate": 1, "currency": "USD"}');
           SELECT talkmeter.define_pack('{"name": "pair", "size": 2, "price": 7, "currency": "USD", "valid_for": "20 days"}');
           SELECT talkmeter.subscribe('berlin', 'two', '2026-01-15 12:00+01', anchor_day => 1, timezone => 'Europe/Berlin');
           SELECT talkmeter.subscribe('plain', 'free', '2026-01-01', anchor_day => 1);
           SELECT talkmeter.subscribe('left', 'two', '2026-01-01', anchor_day => 1);
           SELECT talkmeter.cancel('left', '2026-02-10');
           SELECT talkmeter.buy_pack('berlin', 'pair', purchased_at => '2026-02-28 23:30+00')"#,
    );
    for (month, count) in [("01", 4), ("02", 3), ("04", 1)] {
        for number in 0..count {
            for tenant in ["berlin", "plain"] {
                tell(&mut session, tenant, &format!("{month} {number}"), &format!("2026-{month}-20 23:30 exchange"));
            }
        }
    }
    session.run(
        "SELECT talkmeter.credit('berlin', 4, 'goodwill'); SELECT talkmeter.finalize('berlin', '2025-12-31 23:00+00')",
    );
    (database, session)
}

#[test]
fn usage_monthly_has_no_hole_and_months_are_named_by_the_tenants_own_calendar() {
    let (_database, mut session) = shop();
    let months = "SELECT period, first_day, used FROM talkmeter.usage_monthly
        WHERE tenant = 'berlin' AND period < '2026-06' ORDER BY period_start";
    assert_eq!(
        session.lines(months),
        [
            "2026-01|2026-01-01|3",
            "2026-02|2026-02-01|3",
            "2026-03|2026-03-01|0",
            "2026-04|2026-04-01|1",
            "2026-05|2026-05-01|0"
        ]
    );
    let last = "SELECT bool_and(period_start <= now()), max(period_end) > now() FROM talkmeter.usage_monthly";
    assert_eq!(session.line(last), "t|t");
    let left = "SELECT period FROM talkmeter.usage_monthly WHERE tenant = 'left' ORDER BY 1";
    assert_eq!(session.lines(left), ["2026-01", "2026-02"]);
}

#[test]
fn a_bill_is_the_sum_of_its_statement_frozen_or_not() {
    let (_database, mut session) = shop();
    session.run("SELECT talkmeter.credit('berlin', 7, 'late goodwill')");
    let bills = "SELECT tenant, period, status, base, packs, overage, credits, total, currency FROM talkmeter.bills
        WHERE period < '2026-05' ORDER BY tenant, period, currency";
    assert_eq!(
        session.lines(bills),
        [
            "berlin|2026-01|finalized|10.00|0|0.25|-0.13|10.12|EUR",
            "berlin|2026-02|over|10.00|0|0.13|-0.13|10.00|EUR",
            "berlin|2026-03|over|10.00|0|0|0|10.00|EUR",
            "berlin|2026-03|over|0|7.00|0|0|7.00|USD",
            "berlin|2026-04|over|10.00|0|0|0|10.00|EUR",
            "left|2026-01|over|10.00|0|0|0|10.00|EUR",
            "left|2026-02|over|10.00|0|0|0|10.00|EUR",
            "plain|2026-01|over|0|0|3.00|0|3.00|USD",
            "plain|2026-02|over|0|0|2.00|0|2.00|USD",
            "plain|2026-04|over|0|0|0|0|0.00|USD",
        ]
    );
    let by_statement = session.lines(
        "SELECT m.tenant, m.period, l.currency, sum(l.amount)
         FROM talkmeter.usage_monthly AS m, talkmeter.statement(m.tenant, m.period_start) AS l GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    );
    let bills = session.lines("SELECT tenant, period, currency, total FROM talkmeter.bills ORDER BY 1, 2, 3");
    assert_same_rows(&bills, &by_statement);
}

#[test]
fn the_days_of_a_month_come_to_its_bills() {
    let (_database, mut session) = shop();
    let days = "SELECT day, base, packs, overage, total, currency FROM talkmeter.revenue_daily
        WHERE tenant = 'berlin' AND day < '2026-04-01' ORDER BY day, currency";
    assert_eq!(
        session.lines(days),
        [
            "2026-01-01|10.00|0|0|10.00|EUR",
            "2026-01-21|0|0|0.125|0.125|EUR",
            "2026-02-01|10.00|0|0|10.00|EUR",
            "2026-02-21|0|0|0.125|0.125|EUR",
            "2026-03-01|10.00|0|0|10.00|EUR",
            "2026-03-01|0|7|0|7|USD",
        ]
    );
    let differs = "SELECT b.tenant, b.period, b.total, sum(r.total)
        FROM talkmeter.bills AS b
        LEFT JOIN talkmeter.revenue_daily AS r ON r.tenant = b.tenant AND r.currency = b.currency
            AND to_char(r.day, 'YYYY-MM') = b.period
        GROUP BY b.tenant, b.period, b.total HAVING abs(b.total - sum(r.total)) > 0.01";
    assert_eq!(session.lines(differs), [""; 0]);
}

#[test]
fn a_pack_that_was_bought_or_given_back_on_no_plan_is_on_the_bill_of_its_month() {
    let (_database, mut session) = shop();
    session.run(
        "SELECT talkmeter.buy_pack('left', 'pair', purchased_at => '2026-05-05'),
             talkmeter.buy_pack('left', 'pair', purchased_at => '2026-05-06');
         SELECT talkmeter.refund_pack('left', 2)",
    );
    let bills =
        "SELECT period, base, packs, total, currency FROM talkmeter.bills WHERE tenant = 'left' ORDER BY period_start";
    let mut bills = session.lines(bills);
    let refunded = bills.pop().expect("the current month");
    assert!(refunded.ends_with("|0|-7.00|-7.00|USD"), "{refunded}");
    assert_eq!(bills, ["2026-01|10.00|0|10.00|EUR", "2026-02|10.00|0|10.00|EUR", "2026-05|0|14.00|14.00|USD"]);
    let unlike = "SELECT * FROM talkmeter.bills AS b WHERE tenant = 'left' AND total <> (SELECT sum(s.amount)
        FROM talkmeter.statement(b.tenant, b.period_start) AS s WHERE s.currency = b.currency)";
    assert_eq!(session.lines(unlike), [""; 0]);
    let sums = "SELECT (SELECT sum(packs) FROM talkmeter.revenue_daily WHERE tenant = 'left')
        = (SELECT sum(packs) FROM talkmeter.bills WHERE tenant = 'left')";
    assert_eq!(session.line(sums), "t");
}

#[test]
fn a_tenant_reads_its_own_bills_and_months() {
    let (database, mut session) = shop();
    let reader = database.role("reader");
    session.run(&format!("SELECT talkmeter.grant_tenant('{reader}', 'plain')"));
    let mut reader = database.connect_as(&reader);
    let bills = "SELECT DISTINCT tenant FROM talkmeter.my_bills UNION SELECT tenant FROM talkmeter.my_usage_monthly";
    assert_eq!(reader.lines(bills), ["plain"]);
}
