//! Does a merchant's whole month come out right, from its first message to a statement that nothing changes any more?

use talkmeter_tests::{Database, Session, attach, create_messages, messages_mapping, tell};

const NONE: [&str; 0] = [];
const ZONE: &str = "Europe/Berlin";

/// The last month of `acme` that is over: its statement is to be followed by that of the current one.
struct Month {
    _database: Database,
    session: Session,
    start: String,
    /// The local day on which it starts.
    first_day: String,
    days: u32,
    /// The month after it, which is not over.
    next_start: String,
}

/// `small` includes 6 units and `large` 9; a `trio` is 3 units that live for 5 days.
fn offers(session: &mut Session) {
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "small", "included": 6, "overage_rate": 0.125, "price": 10,
                   "currency": "USD"}'),
               talkmeter.define_plan('{"name": "large", "included": 9, "overage_rate": 0.115, "price": 30,
                   "currency": "USD"}'),
               talkmeter.define_pack('{"name": "trio", "size": 3, "price": 7, "currency": "USD",
                   "valid_for": "5 days"}')"#,
    );
}

/// The merchant subscribes to `small` for months that start on the 31st, at the start of the one that is over now.
fn subscribed() -> Month {
    let database = Database::fresh("month");
    let mut session = database.connect();
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    offers(&mut session);
    session.run(&format!("SELECT talkmeter.subscribe('other', 'small', now() - interval '1 year', '{ZONE}', 31)"));
    let bounds = session.line(
        "SELECT last.period_start, last.period_end FROM talkmeter.period_at('other', now()) AS this,
             talkmeter.period_at('other', this.period_start - interval '1 us') AS last",
    );
    let (start, next_start) = bounds.split_once('|').expect("two columns");
    session.run(&format!("SELECT talkmeter.subscribe('acme', 'small', '{start}', '{ZONE}', anchor_day => 31)"));
    let local = |at: &str| format!("('{at}'::timestamptz AT TIME ZONE '{ZONE}')::date");
    let first_day = session.line(&format!("SELECT {}", local(start)));
    let days = session.line(&format!("SELECT {} - {}", local(next_start), local(start)));
    let days = days.parse().expect("a number of days");
    Month { start: start.to_owned(), next_start: next_start.to_owned(), first_day, days, session, _database: database }
}

impl Month {
    /// A local time of the day that comes `days` after the first, in UTC, as stories tell it.
    fn at(&mut self, days: u32, time: &str) -> String {
        let local = format!("('{}'::date + {days} + time '{time}') AT TIME ZONE '{ZONE}'", self.first_day);
        self.session.line(&format!("SELECT to_char({local} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"))
    }

    /// So many conversations that are answered at a time, each with a name of its own.
    fn answered_at(&mut self, at: &str, count: u32) {
        for _ in 0..count {
            let next = self.session.line("SELECT count(*) FROM messages");
            tell(&mut self.session, "acme", &format!("c{next}"), &format!("{at} exchange"));
        }
    }

    fn answered(&mut self, days: u32, count: u32) {
        let noon = self.at(days, "12:00");
        self.answered_at(&noon, count);
    }

    fn buy(&mut self, days: u32) {
        let at = self.at(days, "00:00");
        self.session.run(&format!("SELECT talkmeter.buy_pack('acme', 'trio', purchased_at => '{at}+00')"));
    }

    /// The tiers, packs and amounts of the charges that came after the first `skipped`.
    fn paid(&mut self, skipped: usize) -> Vec<String> {
        let charges =
            "SELECT tier, pack_id, amount FROM talkmeter.charges WHERE tenant = 'acme' ORDER BY charge_id OFFSET";
        self.session.lines(&format!("{charges} {skipped}"))
    }

    fn statement(&mut self, start: &str) -> Vec<String> {
        self.session.lines(&format!(
            "SELECT kind, of_period_start = '{}', description, quantity, unit_price, amount, currency
             FROM talkmeter.statement('acme', '{start}')",
            self.start
        ))
    }
}

// --- What happens in the month ---

/// All tiers pay: 6 units are included, packs pay 5, one pack expires, and 4 are overage.
fn on_the_small_plan(month: &mut Month) {
    let start = month.at(0, "00:00");
    month.answered_at(&start, 1);
    month.answered(1, 5);
    month.buy(3);
    month.answered(4, 2);
    let expiry = "SELECT to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') FROM talkmeter.packs";
    let expiry = month.session.line(expiry);
    month.answered_at(&expiry, 1);
    assert_eq!(month.session.lines("SELECT pack_id, expired_unused FROM talkmeter.expired_packs"), ["1|1"]);
    month.buy(9);
    month.answered(9, 6);
    let paid = month.paid(0);
    assert_eq!(paid[..6], ["included||0"; 6]);
    assert_eq!(paid[6..9], ["pack|1|0", "pack|1|0", "overage||0.125"]);
    assert_eq!(paid[9..], ["pack|2|0", "pack|2|0", "pack|2|0", "overage||0.125", "overage||0.125", "overage||0.125"]);
}

/// Nine units are included from now on, three more than were used.
fn upgraded(month: &mut Month) {
    let noon = month.at(15, "12:00");
    let since =
        month.session.line(&format!("SELECT talkmeter.change_plan('acme', 'large', '{noon}+00') = '{noon}+00'"));
    assert_eq!(since, "t");
    month.answered(15, 5);
    assert_eq!(month.paid(15), ["included||0", "included||0", "included||0", "overage||0.115", "overage||0.115"]);
}

/// A conversation that looked like two until a message between them arrived.
fn reversed_by_a_late_message(month: &mut Month) {
    let [first, between, second] = ["10:00", "10:20", "10:40"].map(|time| month.at(17, time));
    tell(&mut month.session, "acme", "slow", &format!("{first} exchange, {second} exchange"));
    tell(&mut month.session, "acme", "slow", &format!("{between} customer_message"));
    assert_eq!(month.paid(20), ["overage||0.115", "overage||0.115", "overage||-0.115"]);
}

/// One dispute takes an overage unit back, another takes nothing back, and a unit of the second pack is a gift.
fn disputed_and_credited(month: &mut Month) {
    month.session.run(
        "SELECT talkmeter.dispute('acme', 9, 'spam'), talkmeter.dispute('acme', 1, 'too expensive'),
             talkmeter.resolve_dispute('acme', 1, 'credited', 'it was'),
             talkmeter.resolve_dispute('acme', 2, 'rejected', 'it was not'), talkmeter.credit('acme', 10, 'goodwill')",
    );
    assert_eq!(month.paid(23), ["overage||-0.125", "pack|2|0"]);
    let packs = "SELECT pack_id, remaining FROM talkmeter.packs WHERE tenant = 'acme' ORDER BY 1";
    assert_eq!(month.session.lines(packs), ["1|1", "2|1"]);
}

fn alerted(month: &mut Month) {
    month.session.sweep("now");
    let alerts = month.session.lines(
        "SELECT kind, detail, notified_at IS NOT NULL FROM talkmeter.alerts WHERE tenant = 'acme' ORDER BY fired_at",
    );
    let wanted = [
        "allowance_80|5 of 6 included units used|t",
        "allowance_100|6 of 6 included units used|t",
        "volume_spike|1 units on the day, 3 on the seven days before|t",
        "pack_low|0 of 3 units left in packs|t",
    ];
    assert_eq!(alerts, wanted);
}

/// What is charged on each day of the month is what its messages give; credits are aside.
fn reconciled(month: &mut Month, units: u32) {
    for day in 0..month.days {
        let day = format!("'{}'::date + {day}", month.first_day);
        assert_eq!(month.session.line(&format!("SELECT talkmeter.reconcile({day})")), "0", "{day}");
    }
    let reconciled = month.session.line(
        "SELECT count(*), sum(charged), sum(recounted), sum(unprovable), bool_or(flagged)
         FROM talkmeter.reconciliations WHERE tenant = 'acme'",
    );
    assert_eq!(reconciled, format!("{}|{units}|{units}|0|f", month.days));
}

// --- What the statement says ---

/// The lines of the statement of a period, from the charges that it lists, the packs and what the plans cost.
fn recomputed(month: &mut Month, start: &str, end: &str) -> Vec<String> {
    // Half away from zero, without the server's own rounding.
    let cents = |amount: &str| format!("(sign({amount}) * floor(abs({amount}) * 100 + 0.5) / 100)::numeric(20, 2)");
    month.session.lines(&format!(
        "WITH listed AS (
             SELECT *, period_start = '{own}' AS of_month, abs(amount) AS rate,
                 CASE WHEN reverses IS NULL THEN 1 ELSE -1 END AS units
             FROM talkmeter.charges WHERE tenant = 'acme' AND posted_period_start = '{start}'
         ), line AS (
             SELECT 1 AS place, 'base' AS kind, NULL::boolean AS of_month, name AS description, 1 AS quantity,
                 price AS unit_price, price AS amount
             FROM talkmeter.plans
             WHERE name = (SELECT plan FROM talkmeter.charges WHERE tenant = 'acme' ORDER BY charged_at DESC LIMIT 1)
             UNION ALL
             SELECT 2, 'included', NULL, 'units within the allowance', sum(units), rate, sum(amount) FROM listed
             WHERE period_start = '{start}' AND tier = 'included' AND reason IS DISTINCT FROM 'credit' GROUP BY rate
             UNION ALL
             SELECT 3, 'pack', NULL, pack, count(*), price, sum(price) FROM talkmeter.packs
             WHERE tenant = 'acme' AND purchased_at >= '{start}' AND purchased_at < '{end}' GROUP BY pack, price
             UNION ALL
             SELECT 4, 'overage', NULL, 'units beyond allowance and packs', sum(units), rate, sum(amount) FROM listed
             WHERE period_start = '{start}' AND tier = 'overage' AND reason IS DISTINCT FROM 'credit' GROUP BY rate
             UNION ALL
             SELECT 5, 'late', of_month, tier, sum(units), rate, sum(amount) FROM listed
             WHERE period_start <> '{start}' AND reason IS DISTINCT FROM 'credit' GROUP BY of_month, tier, rate
             UNION ALL
             SELECT 6, 'credit', of_month, tier, sum(units), rate, sum(amount) FROM listed
             WHERE reason = 'credit' GROUP BY of_month, tier, rate
         )
         SELECT kind, of_month, description, quantity, unit_price, {amount}, 'USD' FROM line
         ORDER BY place, description COLLATE \"C\", unit_price",
        own = month.start,
        amount = cents("amount"),
    ))
}

fn billed(month: &mut Month) {
    let start = month.start.clone();
    let statement = month.statement(&start);
    assert_eq!(
        statement,
        [
            "base||large|1|30|30.00|USD",
            "included||units within the allowance|9|0|0.00|USD",
            "pack||trio|2|7|14.00|USD",
            "overage||units beyond allowance and packs|3|0.115|0.35|USD",
            "overage||units beyond allowance and packs|4|0.125|0.50|USD",
            "credit|t|overage|-1|0.125|-0.13|USD",
            "credit|t|pack|-1|0|0.00|USD",
        ]
    );
    let end = month.next_start.clone();
    assert_eq!(recomputed(month, &start, &end), statement);
}

/// The statement, and the rows that hold it, as the server writes them.
fn bytes_of_the_statement(month: &mut Month) -> Vec<String> {
    month.session.lines(&format!(
        "SELECT encode(convert_to(l::text, 'UTF8'), 'hex') FROM talkmeter.statement('acme', '{0}') AS l
         UNION ALL
         (SELECT l::text FROM talkmeter.statement_line AS l
          WHERE tenant = 'acme' AND period_start = '{0}' ORDER BY line)",
        month.start
    ))
}

/// A unit that the second pack pays, whose unit was given back, one that is overage, and one that is taken back.
fn late_after_the_freeze(month: &mut Month) {
    month.answered(10, 1);
    month.answered(20, 1);
    month.session.run("UPDATE messages SET kind = 'note' WHERE tenant_id = 'acme' AND conversation_id = 'c14'");
    let [.., charge, again, reversal] = &month.paid(25)[..] else { panic!("three postings") };
    assert_eq!([charge, again, reversal], ["pack|2|0", "overage||0.115", "overage||-0.125"]);
    let next = month.next_start.clone();
    let statement = month.statement(&next);
    assert_eq!(
        statement,
        [
            "base||large|1|30|30.00|USD",
            "late|t|overage|1|0.115|0.12|USD",
            "late|t|overage|-1|0.125|-0.13|USD",
            "late|t|pack|1|0|0.00|USD",
        ]
    );
    assert_eq!(recomputed(month, &next, "infinity"), statement);
}

fn is_sound(month: &mut Month) {
    assert_eq!(month.session.lines("SELECT * FROM talkmeter.verify()"), NONE);
}

#[test]
fn a_month_from_the_first_message_to_a_frozen_statement_and_what_comes_late() {
    let mut month = subscribed();
    on_the_small_plan(&mut month);
    upgraded(&mut month);
    reversed_by_a_late_message(&mut month);
    disputed_and_credited(&mut month);
    alerted(&mut month);
    reconciled(&mut month, 21);
    is_sound(&mut month);
    billed(&mut month);
    let before = month.statement(&month.start.clone());
    month.session.run(&format!("SELECT talkmeter.finalize('acme', '{}')", month.start));
    assert_eq!(month.statement(&month.start.clone()), before);
    let frozen = bytes_of_the_statement(&mut month);
    late_after_the_freeze(&mut month);
    reconciled(&mut month, 22);
    assert_eq!(bytes_of_the_statement(&mut month), frozen);
    is_sound(&mut month);
}
