//! Are the parts and the net charges of the sample data the same in whatever order its rows come, from several clients?
//!
//! Three orders of each file; at length, fifty. A seed, which is printed, decides an order with its policy and
//! isolation level, and TALKMETER_SEED is the first one's; only how commits interleave is left to chance.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Instant;
use talkmeter_tests::{
    Database, Random, Session, assert_same_rows, at_length, attach, attach_irc_support, create_messages, expected,
    messages_mapping, parts, quoted, standing_charges, text,
};

const NOTHING: [&str; 0] = [];
const CLIENTS: usize = 4;
const MOST_ROWS_PER_TRANSACTION: usize = 500;
/// One in so many transactions is followed by a sweep, after which more rows are late.
const TRANSACTIONS_PER_SWEEP: usize = 200;

const PLAN: Option<&str> = Some("small");

/// A file of data/ on its way into a table of its own.
struct Sample {
    table: &'static str,
    file: &'static str,
    /// The expected file of a policy begins with this.
    expected: &'static str,
    swept_to: &'static str,
    /// Units included per month, and bought by each tenant: so few that other tiers pay too.
    included: usize,
    bought: usize,
    create: fn(&mut Session, policy: &str),
}

const IRC_SUPPORT: Sample = Sample {
    table: "irc_support",
    file: "irc_support.csv.gz",
    expected: "parts",
    swept_to: "2026-01-01",
    included: 40,
    bought: 200,
    create: |session, policy| attach_irc_support(session, policy, PLAN),
};

const RULES: Sample = Sample {
    table: "messages",
    file: "rules.csv.gz",
    expected: "rules_parts",
    swept_to: "2026-08-01",
    included: 10,
    bought: 30,
    create: |session, policy| {
        create_messages(session);
        attach(session, "messages", policy, PLAN, &messages_mapping());
    },
};

impl Sample {
    fn expected_parts(&self, policy: &str) -> Vec<String> {
        expected(&format!("{}_{policy}.csv.gz", self.expected))
    }
}

// --- Orders ---

fn random_orders(sample: &Sample) {
    let orders = if at_length() { 50 } else { 3 };
    let first = Random::seeded().1;
    for seed in (first..).take(orders) {
        random_order(sample, seed);
    }
}

/// Six seeds in a row are each policy at each level.
fn random_order(sample: &Sample, seed: u64) {
    let policy = ["lutingenie", "agent_red", "ai_resolution"][(seed % 3) as usize];
    let level = ["READ COMMITTED", "REPEATABLE READ"][(seed % 2) as usize];
    println!("TALKMETER_SEED={seed}: {} by {policy}, {level}", sample.file);
    let database = Database::fresh("orders");
    let mut session = database.connect();
    prepare(&mut session, sample, policy);
    let started = Instant::now();
    load(&database, sample, level, seed);
    let loaded = started.elapsed();
    check(&mut session, sample, policy);
    let posted = session.lines("SELECT tier, count(*), count(reverses) FROM talkmeter.charges GROUP BY 1 ORDER BY 1");
    println!("  loaded in {loaded:.1?}, checked after {:.1?}; tier|rows|reversals: {posted:?}", started.elapsed());
}

fn prepare(session: &mut Session, sample: &Sample, policy: &str) {
    let Sample { included, bought, .. } = sample;
    session.run(&format!(
        r#"SELECT talkmeter.define_plan('{{"name": "small", "included": {included}, "overage_rate": 0.04, "currency": "USD"}}');
           SELECT talkmeter.define_pack('{{"name": "small", "size": {bought}, "price": 1, "currency": "USD", "valid_for": "9000 days"}}')"#
    ));
    (sample.create)(session, policy);
    let parts = sample.expected_parts(policy);
    let tenants: BTreeSet<&str> = parts.iter().map(|part| tenant(part)).collect();
    for tenant in tenants {
        let tenant = quoted(tenant);
        session.run(&format!("SELECT talkmeter.buy_pack({tenant}, 'small', purchased_at => '2004-01-01')"));
    }
}

/// The clients insert their shares of the shuffled rows at once, so that a conversation's rows come from all of them.
fn load(database: &Database, sample: &Sample, level: &'static str, seed: u64) {
    let text = text(sample.file);
    let (heading, rows) = text.split_once('\n').expect("a heading");
    let mut rows: Vec<&str> = rows.lines().collect();
    shuffle(&mut rows, &mut Random::new(seed));
    thread::scope(|scope| {
        for (share, number) in rows.chunks(rows.len().div_ceil(CLIENTS)).zip(1..) {
            let random = Random::new(seed.wrapping_add(number << 32));
            let mut client = Client { session: database.connect(), random, sample, heading, level };
            scope.spawn(move || client.insert(share));
        }
    });
    let loaded = database.connect().line(&format!("SELECT count(*) FROM {}", sample.table));
    assert_eq!(loaded, rows.len().to_string());
}

fn shuffle<T>(items: &mut [T], random: &mut Random) {
    for last in (1..items.len()).rev() {
        items.swap(last, random.below(last + 1));
    }
}

/// One of the clients. An error of any statement fails the test, at REPEATABLE READ too.
struct Client<'a> {
    session: Session,
    random: Random,
    sample: &'a Sample,
    heading: &'a str,
    level: &'static str,
}

impl Client<'_> {
    fn insert(&mut self, mut rows: &[&str]) {
        while !rows.is_empty() {
            let transaction = self.some_of(&mut rows);
            self.transaction(transaction);
            if self.random.below(TRANSACTIONS_PER_SWEEP) == 0 {
                self.session.sweep(self.sample.swept_to);
            }
        }
    }

    /// Takes a random number of rows off the front.
    fn some_of<'r, 's>(&mut self, rows: &mut &'s [&'r str]) -> &'s [&'r str] {
        let count = 1 + self.random.below(rows.len().min(MOST_ROWS_PER_TRANSACTION));
        let (taken, left) = rows.split_at(count);
        *rows = left;
        taken
    }

    fn transaction(&mut self, mut rows: &[&str]) {
        self.session.run(&format!("BEGIN ISOLATION LEVEL {}", self.level));
        while !rows.is_empty() {
            let statement = self.some_of(&mut rows);
            match self.random.below(2) {
                0 => self.copy(statement),
                _ => self.insert_values(statement),
            }
        }
        self.session.run("COMMIT");
    }

    fn copy(&mut self, rows: &[&str]) {
        let copy = format!("COPY {} ({}) FROM STDIN (FORMAT csv)", self.sample.table, self.heading);
        self.session.copy_in(&copy, (rows.join("\n") + "\n").as_bytes());
    }

    fn insert_values(&mut self, rows: &[&str]) {
        let value = |field: &str| if field.is_empty() { "NULL".to_owned() } else { quoted(field) };
        // Nothing in these files is quoted.
        let row = |row: &&str| format!("({})", row.split(',').map(value).collect::<Vec<_>>().join(", "));
        let values = rows.iter().map(row).collect::<Vec<_>>().join(", ");
        self.session.run(&format!("INSERT INTO {} ({}) VALUES {values}", self.sample.table, self.heading));
    }
}

// --- What must hold ---

fn check(session: &mut Session, sample: &Sample, policy: &str) {
    session.sweep(sample.swept_to);
    assert_eq!(session.sweep(sample.swept_to), 0, "parts that a second sweep ended");
    let wanted = sample.expected_parts(policy);
    assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine LIMIT 5"), NOTHING);
    assert_same_rows(&unnumbered(parts(session, "true")), &unnumbered(wanted.clone()));
    net_charges_are_the_billable_parts_of_each_month(session, &wanted);
    each_billable_part_has_one_standing_charge(session);
    each_reversal_mirrors_a_charge(session);
    charge_ids_have_no_gap(session);
    periods_and_packs_hold_what_is_net(session);
}

fn tenant(row: &str) -> &str {
    row.split('|').next().unwrap_or_default()
}

/// Parts without their numbers, which are names and depend on the order.
fn unnumbered(parts: Vec<String>) -> Vec<String> {
    let without = |row: String| {
        let mut fields: Vec<&str> = row.split('|').collect();
        fields.remove(2);
        fields.join("|")
    };
    let mut parts: Vec<String> = parts.into_iter().map(without).collect();
    parts.sort();
    parts
}

fn net_charges_are_the_billable_parts_of_each_month(session: &mut Session, parts: &[String]) {
    let mut billable: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for part in parts {
        let charged_at = part.split('|').next_back().unwrap_or_default();
        if !charged_at.is_empty() {
            *billable.entry((tenant(part), &charged_at[..7])).or_default() += 1;
        }
    }
    let wanted = billable.iter().map(|((tenant, month), count)| format!("{tenant}|{month}|{count}"));
    let net = session.lines(
        r#"SELECT tenant, to_char(charged_at, 'YYYY-MM') AS month, count(*) - 2 * count(reverses) AS net
           FROM talkmeter.charges
           GROUP BY tenant, month
           HAVING count(*) <> 2 * count(reverses)
           ORDER BY tenant COLLATE "C", 2"#,
    );
    assert_same_rows(&net, &wanted.collect::<Vec<_>>());
}

/// By month: an instant that moves inside its period stays as it was posted.
fn each_billable_part_has_one_standing_charge(session: &mut Session) {
    let columns = "tenant, conversation, part, policy, policy_version, to_char(charged_at, 'YYYY-MM')";
    let billable = session.lines(&format!("SELECT {columns} FROM talkmeter.parts WHERE billable ORDER BY 1, 2, 3"));
    assert_same_rows(&standing_charges(session, columns), &billable);
}

fn each_reversal_mirrors_a_charge(session: &mut Session) {
    let unlike = session.lines(
        "SELECT r.*
         FROM talkmeter.charges AS r
         LEFT JOIN talkmeter.charges AS c ON c.tenant = r.tenant AND c.charge_id = r.reverses AND c.reverses IS NULL
         WHERE r.reverses IS NOT NULL
             AND (c.charge_id IS NULL OR c.charge_id >= r.charge_id
                 OR (r.conversation, r.part, r.charged_at, r.period_start, r.tier, r.pack_id, r.amount, r.currency,
                     r.plan, r.policy, r.policy_version)
                 IS DISTINCT FROM (c.conversation, c.part, c.charged_at, c.period_start, c.tier, c.pack_id, -c.amount,
                     c.currency, c.plan, c.policy, c.policy_version))
         LIMIT 5",
    );
    assert_eq!(unlike, NOTHING);
    let twice = session.lines(
        "SELECT tenant, reverses FROM talkmeter.charges
         WHERE reverses IS NOT NULL GROUP BY 1, 2 HAVING count(*) > 1 LIMIT 5",
    );
    assert_eq!(twice, NOTHING);
    let reversals = session.line("SELECT count(*) > 0 FROM talkmeter.charges WHERE reverses IS NOT NULL");
    assert_eq!(reversals, "t", "an order that takes no charge back tries too little");
}

fn charge_ids_have_no_gap(session: &mut Session) {
    let gaps = session.lines(
        "SELECT tenant, count(*), min(charge_id), max(charge_id) FROM talkmeter.charges
         GROUP BY tenant HAVING min(charge_id) <> 1 OR max(charge_id) <> count(*)",
    );
    assert_eq!(gaps, NOTHING);
}

fn periods_and_packs_hold_what_is_net(session: &mut Session) {
    let net = |tier: &str| format!("sum(CASE WHEN reverses IS NULL THEN 1 ELSE -1 END) FILTER (WHERE tier = '{tier}')");
    let unlike = session.lines(&format!(
        "SELECT p.*, c.*
         FROM talkmeter.period AS p
         FULL JOIN (
             SELECT tenant, period_start, coalesce({}, 0) AS included, coalesce({}, 0) AS pack,
                 coalesce({}, 0) AS overage, sum(amount) AS amount
             FROM talkmeter.charges GROUP BY 1, 2) AS c USING (tenant, period_start)
         WHERE (p.included_used, p.pack_used, p.overage_units, p.overage_amount)
             IS DISTINCT FROM (c.included, c.pack, c.overage, c.amount)
         LIMIT 5",
        net("included"),
        net("pack"),
        net("overage"),
    ));
    assert_eq!(unlike, NOTHING);
    let unlike = session.lines(&format!(
        "SELECT p.tenant, p.pack_id, p.size - p.remaining, c.drawn
         FROM talkmeter.packs AS p
         LEFT JOIN (SELECT tenant, pack_id, {} AS drawn FROM talkmeter.charges GROUP BY 1, 2) AS c USING (tenant, pack_id)
         WHERE p.size - p.remaining <> coalesce(c.drawn, 0)
         LIMIT 5",
        net("pack"),
    ));
    assert_eq!(unlike, NOTHING);
}

#[test]
fn irc_support_in_random_orders() {
    random_orders(&IRC_SUPPORT);
}

#[test]
fn rules_in_random_orders() {
    random_orders(&RULES);
}
