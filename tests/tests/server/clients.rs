//! Do sixteen clients that charge eight tenants at once meet no error, and can what they were charged be drawn again?

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant as Clock;
use talkmeter_engine::draw_down::{Account, Pack, Plan, Subscription, Tier};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::period::Calendar;
use talkmeter_tests::{Database, Session, assert_same_rows, attach, create_messages, messages_mapping, micros};

const CLIENTS: usize = 16;
const TENANTS: usize = 8;
/// Rows of each client.
const ROWS: usize = 2_000;
const RATE: &str = "0.125";

/// Sixteen clients are enough for one server.
static SERVER: Mutex<()> = Mutex::new(());

#[test]
fn sixteen_clients_at_read_committed_meet_no_error_and_each_charge_can_be_drawn_again() {
    insert_at_once("read committed");
}

#[test]
fn sixteen_clients_at_repeatable_read_meet_no_error_and_each_charge_can_be_drawn_again() {
    insert_at_once("repeatable read");
}

fn insert_at_once(level: &str) {
    let _alone = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    // A month's allowance, and packs, in proportion: they run out on the way, and overage follows.
    let units = CLIENTS * ROWS / TENANTS;
    let (included, size) = (units / 10, units / 8);
    let (database, mut session) = metered(included, size);
    let started = Clock::now();
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let session = database.connect();
            scope.spawn(move || insert(session, level, client));
        }
    });
    println!("{CLIENTS} clients, {ROWS} rows each, at {level}: {:.1?}", started.elapsed());
    every_row_is_a_unit(&mut session);
    every_tier_was_used_up(&mut session);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
    the_ledger_can_be_replayed(&mut session, included);
}

/// A database whose tenants have three packs, each valid for some of the two months in which the units lie.
fn metered(included: usize, size: usize) -> (Database, Session) {
    let database = Database::fresh("clients");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(&format!(
        r#"SELECT talkmeter.define_plan('{{"name": "some", "included": {included}, "overage_rate": {RATE}, "currency": "EUR"}}'),
               talkmeter.define_pack('{{"name": "pack", "size": {size}, "price": 1, "currency": "EUR", "valid_for": "20 days"}}');
           SELECT talkmeter.buy_pack('tenant ' || n, 'pack', purchased_at => at::timestamptz)
           FROM generate_series(0, {TENANTS} - 1) AS n, unnest(ARRAY['2026-04-10', '2026-03-05', '2026-03-15']) AS at"#
    ));
    attach(&mut session, "messages", "lutingenie", Some("some"), &messages_mapping());
    (database, session)
}

/// Inserts rows, each of a conversation and a transaction of its own, for every tenant in turn and in no order of time.
fn insert(mut session: Session, level: &str, client: usize) {
    session.run(&format!("SET default_transaction_isolation = '{level}'"));
    let statement = "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
        VALUES ($1, $2, timestamptz '2026-03-01 00:00+00' + $3 * interval '1 minute', 'exchange')";
    let statement = session.client.prepare(statement).expect("a statement");
    for row in 0..ROWS {
        let tenant = format!("tenant {}", (client + row) % TENANTS);
        let conversation = format!("{client} {row}");
        // 61 days have 87,840 minutes.
        let minute = ((client * ROWS + row) * 7_919 % 87_840) as f64;
        let inserted = session.client.execute(&statement, &[&tenant, &conversation, &minute]);
        inserted.unwrap_or_else(|error| panic!("row {row} of client {client}: {error:?}"));
    }
}

fn every_row_is_a_unit(session: &mut Session) {
    let inserted = session.lines("SELECT tenant_id, count(*) FROM messages GROUP BY 1 ORDER BY 1");
    let charged = session.lines(
        "SELECT tenant, sum(CASE WHEN reverses IS NULL THEN 1 ELSE -1 END) FROM talkmeter.charges GROUP BY 1 ORDER BY 1",
    );
    assert_same_rows(&charged, &inserted);
    let conversations = "SELECT tenant_id, conversation_id FROM messages ORDER BY 1, 2";
    let charged = session.lines("SELECT tenant, conversation FROM talkmeter.charges ORDER BY 1, 2");
    assert_same_rows(&charged, &session.lines(conversations));
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
}

/// Otherwise nothing would have been contended for.
fn every_tier_was_used_up(session: &mut Session) {
    let tiers = session.line("SELECT count(DISTINCT (tenant, period_start, tier)) FROM talkmeter.charges");
    assert_eq!(tiers, (TENANTS * 2 * 3).to_string(), "tenants, months and tiers");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.packs WHERE remaining > 0"), "0");
}

// --- The ledger, drawn again ---

/// Draws each tenant's units one after the other, as `charge_id` counts them.
fn the_ledger_can_be_replayed(session: &mut Session, included: usize) {
    let mut accounts: BTreeMap<String, Account> = BTreeMap::new();
    for line in session.lines(&format!(
        "SELECT tenant, pack_id, size, {}, {} FROM talkmeter.packs ORDER BY tenant, packs.purchased_at, pack_id",
        micros("purchased_at"),
        micros("expires_at")
    )) {
        let fields: Vec<&str> = line.split('|').collect();
        let account = accounts.entry(fields[0].to_owned()).or_insert_with(|| on_plan(included));
        account.packs.push(pack(&fields[1..]));
    }
    let posted = session.lines(&format!(
        "SELECT tenant, charge_id, {}, tier, pack_id, amount, {} FROM talkmeter.charges ORDER BY tenant, charge_id",
        micros("charged_at"),
        micros("period_start")
    ));
    let drawn = |line: &String| {
        let fields: Vec<&str> = line.split('|').collect();
        let account = accounts.get_mut(fields[0]).expect("a tenant with packs");
        let drawn = account.draw(number(fields[2]), None).expect("a plan");
        let pack = match drawn.tier {
            Tier::Pack(id) => id.to_string(),
            _ => String::new(),
        };
        let (tier, amount, start) = (drawn.tier.name(), drawn.amount, drawn.period.start.0);
        format!("{}|{}|{}|{tier}|{pack}|{amount}|{start}", fields[0], fields[1], fields[2])
    };
    let drawn: Vec<String> = posted.iter().map(drawn).collect();
    assert_same_rows(&posted, &drawn);
}

/// An account on the plan of all, without beginning.
fn on_plan(included: usize) -> Account {
    let plan = Plan {
        name: "some".into(),
        included: included as i64,
        overage_rate: RATE.parse().expect("a rate"),
        rates: BTreeMap::new(),
        currency: "EUR".into(),
    };
    let subscription = Subscription { since: Instant::BEGINNING, plan: Some(plan), calendar: Calendar::utc(1) };
    Account { subscriptions: vec![subscription], ..Account::default() }
}

/// A pack that nobody has drawn from: its id, its size, from when and until when it pays.
fn pack(fields: &[&str]) -> Pack {
    let size = number(fields[1]).0;
    Pack {
        id: number(fields[0]).0,
        size,
        remaining: size,
        purchased_at: number(fields[2]),
        expires_at: number(fields[3]),
    }
}

fn number(text: &str) -> Instant {
    Instant(text.parse().expect("a number"))
}
