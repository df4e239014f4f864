//! Is the bill exact among many clients, and the application's transaction never the meter's business, however it ends?

use postgres::error::SqlState;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;
use talkmeter_engine::draw_down::{Account, Pack, Plan, Subscription, Tier};
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::fold::{Conversation, Effect};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::part::{Opening, Part, Verdict};
use talkmeter_engine::period::Calendar;
use talkmeter_engine::presets;
use talkmeter_tests::{
    Database, Random, Session, assert_same_rows, attach, create_messages, messages_mapping, metered, micros, quoted,
    standing_charges, tell, traces,
};

const NOTHING: [&str; 0] = [];

/// The conversations that were metered, with messages counted.
fn counted(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation, sum(message_count) FROM talkmeter.parts GROUP BY 1 ORDER BY 1")
}

/// The rows in quarantine, with the beginning of what went wrong: for an error of ours its SQLSTATE.
fn quarantined(session: &mut Session) -> Vec<String> {
    session.lines("SELECT tenant, conversation, reason, left(detail, 5) FROM talkmeter.quarantine ORDER BY 1, 2")
}

// --- Eight clients ---

const CLIENTS: usize = 8;
const TENANTS: usize = 8;
/// Conversations to which every client writes, or to which one client writes.
const SHARED: usize = 20;
const OWN: usize = 3;

/// Few units included and in a pack, so that both run out on the way.
const INCLUDED: i64 = 10;
const PACK_SIZE: i64 = 5;

/// The table `messages` attached with that plan, and packs that every tenant bought at these times.
fn sold(purchases: &[&str]) -> (Database, Session) {
    let database = Database::fresh("eight_clients");
    let mut session = database.connect();
    session.run(&format!(
        r#"SELECT talkmeter.define_plan('{{"name": "small", "included": {INCLUDED}, "overage_rate": 0.04, "currency": "USD"}}');
           SELECT talkmeter.define_pack('{{"name": "small", "size": {PACK_SIZE}, "price": 1, "currency": "USD", "valid_for": "20 days"}}')"#
    ));
    create_messages(&mut session);
    attach(&mut session, "messages", "lutingenie", Some("small"), &messages_mapping());
    for time in purchases {
        session.run(&format!(
            "SELECT talkmeter.buy_pack('t' || n, 'small', purchased_at => {time}) FROM generate_series(0, {TENANTS} - 1) AS n"
        ));
    }
    (database, session)
}

/// One of the eight, and what it has to say next.
struct Writer {
    client: usize,
    random: Random,
    /// For each conversation of its own, the minute of its last message.
    minutes: [usize; OWN],
}

impl Writer {
    fn kind(&mut self) -> &'static str {
        ["exchange", "exchange", "exchange", "visit", "customer_message", "ai_reply"][self.random.below(6)]
    }

    fn row(&mut self, tenant: usize, conversation: usize, at: &str) -> String {
        let kind = self.kind();
        format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             VALUES ('t{tenant}', 'c{conversation}', {at}, '{kind}')"
        )
    }

    /// A message of now in any conversation.
    fn anywhere(&mut self) -> String {
        let conversation = self.random.below(SHARED);
        self.row(conversation % TENANTS, conversation, "clock_timestamp()")
    }

    /// The next message of a conversation that no other client writes to, up to six hours after the one before. Its
    /// tenant is that of others too.
    fn in_its_own(&mut self) -> String {
        let own = self.random.below(OWN);
        self.minutes[own] += 1 + self.random.below(360);
        let at = format!("'2026-01-10 00:00+00'::timestamptz + {} * interval '1 minute'", self.minutes[own]);
        self.row((self.client + own) % TENANTS, self.client * OWN + own, &at)
    }
}

/// Commits a transaction, trying again after a serialization failure if the level allows one; returns how often it did.
fn commit(session: &mut Session, level: &str, statements: &[String]) -> usize {
    for failures in 0..1_000 {
        let begin = format!("BEGIN ISOLATION LEVEL {level}");
        let done = std::iter::once(begin.as_str())
            .chain(statements.iter().map(String::as_str))
            .chain(["COMMIT"])
            .try_for_each(|statement| session.client.batch_execute(statement));
        match done {
            Ok(()) => return failures,
            Err(error) if level == "SERIALIZABLE" && error.code() == Some(&SqlState::T_R_SERIALIZATION_FAILURE) => {
                session.run("ROLLBACK");
            }
            Err(error) => panic!("{level}: {error}: {:?}\n{}", error.as_db_error(), statements.join(";\n")),
        }
    }
    panic!("{level}: always a serialization failure:\n{}", statements.join(";\n"));
}

/// Eight clients commit transactions of three single-row inserts at once. Any error fails the test, a deadlock too.
fn eight_clients(database: &Database, level: &str, transactions: usize, row: fn(&mut Writer) -> String) {
    let seed = Random::seeded().1;
    println!("TALKMETER_SEED={seed}");
    let failures = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let mut session = database.connect();
            let random = Random::new(seed.wrapping_add(client as u64));
            let mut writer = Writer { client, random, minutes: [0; OWN] };
            let failures = &failures;
            scope.spawn(move || {
                for _ in 0..transactions {
                    let rows = [row(&mut writer), row(&mut writer), row(&mut writer)];
                    failures.fetch_add(commit(&mut session, level, &rows), Ordering::Relaxed);
                }
            });
        }
    });
    println!("{level}: {} serialization failures", failures.into_inner());
    let rows = database.connect().line("SELECT count(*) FROM messages");
    assert_eq!(rows, (CLIENTS * transactions * 3).to_string());
}

fn kinds(kind: &str) -> Vec<Kind> {
    match kind {
        "exchange" => vec![Kind::CustomerMessage, Kind::AiReply],
        "visit" => vec![Kind::CustomerMessage, Kind::AiReply, Kind::Close],
        _ => vec![Kind::named(kind).expect("a kind")],
    }
}

fn instant(text: &str) -> Instant {
    Instant(text.parse().expect("microseconds"))
}

/// The columns by which a part is compared: all but its number, which depends on the order in which parts were found.
fn shown(conversation: &str, part: &Part) -> String {
    let time = |time: Option<Instant>| time.map_or(String::new(), |instant| instant.0.to_string());
    let charged_at = match part.verdict {
        Some(Verdict::Billable(at)) => Some(at),
        _ => None,
    };
    format!(
        "{conversation}|{}|{}|{}|{}|{}|{}",
        time(Some(part.started_at)),
        time(part.end.as_ref().map(|end| end.at)),
        part.end.as_ref().map_or(String::new(), |end| end.reason.name().into_owned()),
        part.message_count,
        part.turn_count,
        time(charged_at),
    )
}

/// Fails unless the parts are those that the engine makes of the rows, in their order.
fn the_parts_are_those_of_folding_in_order(session: &mut Session) {
    let rows = session.lines(&format!(
        r#"SELECT conversation_id, {}, kind
           FROM messages
           ORDER BY conversation_id COLLATE "C", created_at, id"#,
        micros("created_at")
    ));
    let policy = presets::lutingenie();
    let mut folding: BTreeMap<&str, (Conversation, Vec<Effect>)> = BTreeMap::new();
    for row in &rows {
        let [conversation, at, kind] = row.split('|').collect::<Vec<_>>()[..] else { panic!("{row}") };
        let (state, effects) = folding.entry(conversation).or_default();
        for kind in kinds(kind) {
            let event = Event::named(kind.into(), instant(at));
            let opener = || Ok::<_, Infallible>(Some(Opening { policy: Arc::clone(&policy), source: None }));
            let Ok(()) = state.step(conversation, &[], &event, opener, effects);
        }
    }
    let mut wanted = Vec::new();
    for (conversation, (state, effects)) in &folding {
        let parts = effects.iter().filter_map(Effect::as_final).chain(&state.current);
        wanted.extend(parts.map(|part| shown(conversation, part)));
    }
    let found = session.lines(&format!(
        r#"SELECT conversation, {}, {}, end_reason, message_count, turn_count, {}
           FROM talkmeter.part ORDER BY conversation COLLATE "C", first_event"#,
        micros("started_at"),
        micros("ended_at"),
        micros("charged_at"),
    ));
    assert_same_rows(&found, &wanted);
}

fn each_billable_part_has_one_standing_charge(session: &mut Session) {
    // Not their instants: a charge whose instant moves inside its period stays as posted.
    let key = "tenant, conversation, part";
    let billable = session.lines(&format!("SELECT {key} FROM talkmeter.parts WHERE billable ORDER BY {key}"));
    assert_same_rows(&standing_charges(session, key), &billable);
}

/// A tenant's account before its first charge.
fn new_account(session: &mut Session, tenant: &str) -> Account {
    let packs = session.lines(&format!(
        "SELECT pack_id, {}, {} FROM talkmeter.packs WHERE tenant = '{tenant}' ORDER BY purchased_at, pack_id",
        micros("purchased_at"),
        micros("expires_at")
    ));
    let pack = |row: &String| {
        let fields: Vec<&str> = row.split('|').collect();
        Pack {
            id: fields[0].parse().expect("an id"),
            size: PACK_SIZE,
            remaining: PACK_SIZE,
            purchased_at: instant(fields[1]),
            expires_at: instant(fields[2]),
        }
    };
    let overage_rate = "0.04".parse().expect("a rate");
    let rates = BTreeMap::new();
    let plan = Plan { name: "small".into(), included: INCLUDED, overage_rate, rates, currency: "USD".into() };
    Account {
        subscriptions: vec![Subscription { since: Instant::BEGINNING, plan: Some(plan), calendar: Calendar::utc(1) }],
        packs: packs.iter().map(pack).collect(),
        used: BTreeMap::new(),
    }
}

/// Fails unless every tenant's charges are numbered without a gap, and drawing and giving them back again in the
/// order of these numbers gives the same tiers, packs and amounts, and leaves the same in periods and packs.
fn the_ledger_can_be_replayed(session: &mut Session) {
    let tenants = session.lines("SELECT DISTINCT tenant FROM talkmeter.charge ORDER BY 1");
    assert_eq!(tenants.len(), TENANTS);
    for tenant in &tenants {
        let mut account = new_account(session, tenant);
        let charges = session.lines(&format!(
            "SELECT {}, row_number() OVER (ORDER BY charge_id), tier, pack_id, amount, {}, reverses
             FROM talkmeter.charge WHERE tenant = '{tenant}' ORDER BY charge_id",
            micros("charged_at"),
            micros("period_start"),
        ));
        let ids = format!("SELECT charge_id FROM talkmeter.charge WHERE tenant = '{tenant}' ORDER BY 1");
        assert_same_rows(&session.lines(&ids), &(1..=charges.len()).map(|id| id.to_string()).collect::<Vec<_>>());
        let mut drawn = Vec::new();
        let replayed = charges.iter().map(|charge| {
            let [at, id, .., reverses] = charge.split('|').collect::<Vec<_>>()[..] else { panic!("{charge}") };
            let (period, tier, amount) = match reverses.parse::<usize>() {
                Ok(reversed) => {
                    let (period, tier, amount) = drawn[reversed - 1];
                    account.give_back(period, tier, amount);
                    (period, tier, (-amount).normalize())
                }
                Err(_) => {
                    let draw = account.draw(instant(at), None).expect("a plan");
                    (draw.period, draw.tier, draw.amount)
                }
            };
            drawn.push((period, tier, amount));
            let pack = match tier {
                Tier::Pack(id) => id.to_string(),
                _ => String::new(),
            };
            format!("{at}|{id}|{}|{pack}|{amount}|{}|{reverses}", tier.name(), period.start.0)
        });
        let replayed: Vec<_> = replayed.collect();
        assert_same_rows(&charges, &replayed);
        for tier in ["included", "pack", "overage"] {
            assert!(charges.iter().any(|charge| charge.contains(tier)), "{tenant} drew nothing from {tier}");
        }
        let packs = account.packs.iter().map(|pack| format!("{}|{}", pack.id, pack.remaining));
        let columns = "pack_id, remaining FROM talkmeter.packs";
        let found =
            session.lines(&format!("SELECT {columns} WHERE tenant = '{tenant}' ORDER BY purchased_at, pack_id"));
        assert_same_rows(&found, &packs.collect::<Vec<_>>());
        let used = account.used.values().map(|used| {
            let counts = (used.included_used, used.pack_used, used.overage_units, used.overage_amount);
            format!("{}|{}|{}|{}|{}", used.period.start.0, counts.0, counts.1, counts.2, counts.3)
        });
        let found = session.lines(&format!(
            "SELECT {}, included_used, pack_used, overage_units, overage_amount
             FROM talkmeter.period WHERE tenant = '{tenant}' ORDER BY period_start",
            micros("period_start")
        ));
        assert_same_rows(&found, &used.collect::<Vec<_>>());
    }
}

fn the_bill_is_exact(session: &mut Session) {
    the_parts_are_those_of_folding_in_order(session);
    each_billable_part_has_one_standing_charge(session);
    the_ledger_can_be_replayed(session);
}

/// Every client writes to every conversation. A row may be overtaken by a later one of another client; the bill is that
/// of the rows in their order all the same.
fn shared_conversations(level: &str, transactions: usize) {
    let (database, mut session) = sold(&["now() - interval '1 day'", "now() - interval '2 days'"]);
    eight_clients(&database, level, transactions, Writer::anywhere);
    assert_eq!(session.lines("SELECT reason, message_id, detail FROM talkmeter.quarantine"), NOTHING);
    let refolded = session.line("SELECT count(*) FROM talkmeter.charges WHERE reason = 'refold'");
    println!("{level}: {refolded} charges taken back");
    the_bill_is_exact(&mut session);
}

#[test]
fn shared_conversations_at_read_committed_meet_no_error_and_are_billed_exactly() {
    shared_conversations("READ COMMITTED", 300);
}

#[test]
fn shared_conversations_at_repeatable_read_meet_no_error_and_are_billed_exactly() {
    shared_conversations("REPEATABLE READ", 300);
}

#[test]
fn shared_conversations_at_serializable_meet_only_serialization_failures_and_are_billed_exactly() {
    shared_conversations("SERIALIZABLE", 100);
}

/// Each client has conversations of its own, but every tenant is that of several. So nothing is late, and no charge is
/// taken back.
fn shared_tenants(level: &str, transactions: usize) {
    let (database, mut session) = sold(&["'2026-01-01'", "'2026-01-20'", "'2026-01-20'", "'2026-02-15'"]);
    eight_clients(&database, level, transactions, Writer::in_its_own);
    assert_eq!(session.lines("SELECT reason, message_id, detail FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(session.lines("SELECT charge_id FROM talkmeter.charges WHERE reverses IS NOT NULL"), NOTHING);
    the_bill_is_exact(&mut session);
}

#[test]
fn shared_tenants_at_read_committed_meet_no_error_and_are_billed_exactly() {
    shared_tenants("READ COMMITTED", 300);
}

#[test]
fn shared_tenants_at_repeatable_read_meet_no_error_and_are_billed_exactly() {
    shared_tenants("REPEATABLE READ", 300);
}

#[test]
fn shared_tenants_at_serializable_meet_only_serialization_failures_and_are_billed_exactly() {
    shared_tenants("SERIALIZABLE", 150);
}

// --- Ways to insert ---

/// A function `say(conversation)` that inserts an exchange.
fn create_say(session: &mut Session) {
    session.run(
        "CREATE FUNCTION say(conversation text) RETURNS text LANGUAGE sql AS $$
             INSERT INTO public.messages (tenant_id, conversation_id, kind)
             VALUES ('acme', conversation, 'exchange') RETURNING conversation_id
         $$",
    );
}

#[test]
fn rows_inserted_by_refreshing_a_materialized_view_are_metered() {
    let (_database, mut session) = metered("lutingenie");
    create_say(&mut session);
    session.run("CREATE MATERIALIZED VIEW said AS SELECT say('c') AS conversation WITH NO DATA");
    session.run("REFRESH MATERIALIZED VIEW said");
    assert_eq!(counted(&mut session), ["c|2"]);
    session.run("CREATE UNIQUE INDEX ON said (conversation)");
    session.run("REFRESH MATERIALIZED VIEW CONCURRENTLY said");
    assert_eq!(counted(&mut session), ["c|4"]);
}

#[test]
fn rows_inserted_by_a_cursor_that_is_held_over_the_commit_are_metered() {
    let (_database, mut session) = metered("lutingenie");
    create_say(&mut session);
    session.run(
        "BEGIN;
         DECLARE held CURSOR WITH HOLD FOR SELECT say('c' || n) FROM generate_series(1, 3) AS n",
    );
    assert_eq!(session.line("SELECT count(*) FROM messages"), "0");
    // The commit runs the query.
    session.run("COMMIT");
    assert_eq!(session.lines("FETCH ALL FROM held"), ["c1", "c2", "c3"]);
    assert_eq!(counted(&mut session), ["c1|2", "c2|2", "c3|2"]);
}

#[test]
fn rows_inserted_in_blocks_of_a_function_are_metered_if_their_block_succeeds() {
    let (_database, mut session) = metered("lutingenie");
    create_say(&mut session);
    session.run(
        "CREATE FUNCTION say_much() RETURNS void LANGUAGE plpgsql AS $$
         BEGIN
             FOR n IN 1..300 LOOP
                 PERFORM say('outer' || n % 10);
                 BEGIN
                     PERFORM say('block' || n % 10);
                     BEGIN
                         PERFORM say('inner' || n % 10);
                         IF n % 3 = 0 THEN RAISE division_by_zero; END IF;
                     EXCEPTION WHEN division_by_zero THEN PERFORM say('handler' || n % 10);
                     END;
                     IF n % 5 = 0 THEN RAISE division_by_zero; END IF;
                 EXCEPTION WHEN division_by_zero THEN NULL;
                 END;
             END LOOP;
         END $$;
         SELECT say_much()",
    );
    let rows = session.lines("SELECT conversation_id, 2 * count(*) FROM messages GROUP BY 1 ORDER BY 1");
    assert_eq!(session.line("SELECT count(*) FROM messages"), "780");
    assert_same_rows(&counted(&mut session), &rows);
}

/// A foreign key of the messages that is checked at commit.
fn metered_with_tickets() -> (Database, Session) {
    let (database, mut session) = metered("lutingenie");
    session.run(
        "CREATE TABLE tickets (id text PRIMARY KEY);
         ALTER TABLE messages ADD FOREIGN KEY (conversation_id) REFERENCES tickets DEFERRABLE INITIALLY DEFERRED",
    );
    (database, session)
}

#[test]
fn constraints_set_immediate_neither_meter_early_nor_twice() {
    let (_database, mut session) = metered_with_tickets();
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run("INSERT INTO tickets VALUES ('c'); SET CONSTRAINTS ALL IMMEDIATE");
    assert_eq!(traces(&mut session), NOTHING);
    tell(&mut session, "acme", "c", "10:01 exchange");
    session.run("COMMIT");
    assert_eq!(counted(&mut session), ["c|4"]);
}

#[test]
fn a_deferred_constraint_that_fails_the_commit_leaves_no_trace() {
    let (_database, mut session) = metered_with_tickets();
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(session.refused("COMMIT"), SqlState::FOREIGN_KEY_VIOLATION);
    assert_eq!(traces(&mut session), NOTHING);
    session.run("INSERT INTO tickets VALUES ('c')");
    tell(&mut session, "acme", "c", "10:01 exchange");
    assert_eq!(counted(&mut session), ["c|2"]);
}

/// In this role the server fires no ordinary trigger: rows are those of another server, which has metered them.
#[test]
fn rows_inserted_as_a_replica_are_not_metered() {
    let (_database, mut session) = metered("lutingenie");
    session.run("SET session_replication_role = replica");
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(traces(&mut session), NOTHING);
    session.run("RESET session_replication_role");
    tell(&mut session, "acme", "c", "10:01 exchange");
    assert_eq!(counted(&mut session), ["c|2"]);
}

#[test]
fn rows_inserted_before_a_session_became_a_replica_are_metered() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "c", "10:00 exchange");
    session.run("SET LOCAL session_replication_role = replica; COMMIT");
    assert_eq!(counted(&mut session), ["c|2"]);
}

#[test]
fn after_an_error_in_a_transaction_the_next_statement_is_metered_alone() {
    let (_database, mut session) = metered("lutingenie");
    session.run("BEGIN");
    tell(&mut session, "acme", "explicit", "10:00 exchange");
    session.refused("SELECT 1 / 0");
    session.refused("SELECT talkmeter.flush()");
    session.run("ROLLBACK");
    tell(&mut session, "acme", "after", "10:00 exchange");
    assert_eq!(counted(&mut session), ["after|2"]);
    // Several statements in one message to the server are one transaction too.
    session.refused(
        "INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', 'implicit', 'exchange'); SELECT 1 / 0",
    );
    tell(&mut session, "acme", "after", "10:01 exchange");
    assert_eq!(counted(&mut session), ["after|4"]);
}

// --- More rows than memory holds ---

/// Inserts messages whose events take more than 8 MB, into conversations of their own with long ids; of some the first
/// message is written to a file before the second comes.
fn tell_much(session: &mut Session, name: &str) {
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', rpad('{name} ' || n % 18000, 500, '.'), '2026-03-01'::timestamptz + n * interval '1 ms',
             'customer_message'
         FROM generate_series(1, 22000) AS n"
    ));
}

fn by_name(conversation: &str, count: &str, from: &str) -> String {
    format!("SELECT split_part({conversation}, ' ', 1), {count} FROM {from} GROUP BY 1 ORDER BY 1")
}

#[test]
fn savepoints_keep_and_take_back_more_rows_than_memory_holds() {
    let (database, _) = metered("lutingenie");
    let (mut session, heard) = database.connect_heard();
    session.run("BEGIN");
    tell_much(&mut session, "kept");
    session.run("SAVEPOINT outer_one");
    tell_much(&mut session, "released");
    session.run("SAVEPOINT inner_one");
    tell_much(&mut session, "lost");
    session.run("ROLLBACK TO SAVEPOINT inner_one");
    tell_much(&mut session, "again");
    session.run("RELEASE SAVEPOINT outer_one; SAVEPOINT flushed");
    tell_much(&mut session, "flushed");
    session.run("SELECT talkmeter.flush()");
    tell_much(&mut session, "unflushed");
    session.run("ROLLBACK TO SAVEPOINT flushed");
    tell_much(&mut session, "last");
    session.run("COMMIT");
    let rows = session.lines(&by_name("conversation_id", "count(*)", "messages"));
    assert_eq!(rows, ["again|22000", "kept|22000", "last|22000", "released|22000"]);
    assert_same_rows(&session.lines(&by_name("conversation", "sum(message_count)", "talkmeter.parts")), &rows);
    assert_eq!(session.lines("SELECT DISTINCT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(*heard.lock().expect("a list"), NOTHING, "what the server complained about");
}

#[test]
fn an_error_of_the_meters_with_more_rows_than_memory_holds_puts_each_into_quarantine() {
    let (database, mut other) = metered("lutingenie");
    other.run("ALTER TABLE talkmeter.conversation ADD CHECK (conversation NOT LIKE 'zzz%')");
    let (mut session, heard) = database.connect_heard();
    session.run("BEGIN");
    tell_much(&mut session, "many");
    session.run("SAVEPOINT released");
    // The last of all in the order in which they are folded.
    tell_much(&mut session, "zzz");
    session.run("RELEASE SAVEPOINT released; COMMIT");
    let rows = session.lines(&by_name("conversation", "count(*)", "talkmeter.quarantine"));
    assert_eq!(rows, ["many|22000", "zzz|22000"]);
    assert_eq!(counted(&mut session), NOTHING);
    let heard = heard.lock().expect("a list").join("\n");
    assert!(heard.starts_with("WARNING: talkmeter could not meter this transaction"), "{heard}");
    assert_eq!(heard.lines().count(), 1, "what the server complained about:\n{heard}");
}

/// A transaction whose messages need no temporary space, and whose 10,000 units take more of it than there may be.
fn tell_units_beyond_temporary_space(session: &mut Session) {
    session.run("SET work_mem = '64MB'; SET temp_file_limit = '1MB'; BEGIN");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', rpad('long ' || n, 400, '.'), '2026-03-01'::timestamptz + m * interval '1 min',
             (ARRAY['customer_message', 'ai_reply'])[m]
         FROM generate_series(1, 10000) AS n, generate_series(1, 2) AS m",
    );
}

#[test]
fn too_little_temporary_space_for_the_units_of_a_commit_puts_each_row_into_quarantine() {
    let (database, _) = metered("lutingenie");
    let (mut session, heard) = database.connect_heard();
    tell_units_beyond_temporary_space(&mut session);
    session.run("COMMIT; RESET temp_file_limit");
    let rows = session.lines(&by_name("conversation", "count(*)", "talkmeter.quarantine"));
    assert_eq!(rows, ["long|20000"]);
    assert_eq!(
        session.line("SELECT DISTINCT reason, left(detail, 5) FROM talkmeter.quarantine"),
        "internal_error|53400"
    );
    let heard = heard.lock().expect("a list").join("\n");
    assert!(heard.starts_with("WARNING: talkmeter could not meter this transaction: temporary file size"), "{heard}");
    assert_eq!(session.line("SELECT talkmeter.retry_quarantine()"), "20000");
    assert_same_rows(&session.lines(&by_name("conversation", "sum(message_count)", "talkmeter.parts")), &rows);
}

#[test]
fn too_little_temporary_space_fails_the_commit_of_a_strict_source() {
    let (_database, mut session) = metered("lutingenie");
    session.run("UPDATE talkmeter.source SET strict = true");
    tell_units_beyond_temporary_space(&mut session);
    assert_eq!(session.refused("COMMIT"), SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    assert_eq!(traces(&mut session), NOTHING);
}

// --- Errors of ours ---

/// Makes every charge of the tenant `broken` an error.
fn break_tenant(session: &mut Session) {
    session.run("ALTER TABLE talkmeter.charge ADD CONSTRAINT whole CHECK (tenant <> 'broken')");
}

fn tell_both(session: &mut Session) {
    tell(session, "whole", "c", "10:00 exchange");
    tell(session, "broken", "c", "10:00 exchange");
}

#[test]
fn an_error_of_the_meters_is_a_warning_and_a_quarantine_but_none_of_the_applications() {
    let (database, _) = metered("lutingenie");
    let (mut session, heard) = database.connect_heard();
    break_tenant(&mut session);
    session.run("BEGIN");
    tell_both(&mut session);
    session.run("COMMIT");
    assert_eq!(session.line("SELECT count(*) FROM messages"), "2");
    assert_eq!(quarantined(&mut session), ["broken|c|internal_error|23514", "whole|c|internal_error|23514"]);
    assert_eq!(counted(&mut session), NOTHING);
    assert_eq!(
        *heard.lock().expect("a list"),
        [
            "WARNING: talkmeter could not meter this transaction: new row for relation \"charge\" violates check constraint \"whole\""
        ]
    );
}

#[test]
fn an_error_of_the_meters_in_words_that_the_client_cannot_hold_is_a_warning_in_others() {
    let (database, _) = metered("lutingenie");
    let (mut session, heard) = database.connect_heard();
    session.run("ALTER TABLE talkmeter.charge ADD CONSTRAINT \"€ 账单\" CHECK (tenant <> 'broken')");
    session.run("SET client_encoding = 'LATIN1'");
    tell(&mut session, "broken", "c", "10:00 exchange");
    session.run("SET client_encoding = 'UTF8'");
    let violated = "new row for relation \"charge\" violates check constraint";
    assert_eq!(
        session.line("SELECT reason, detail FROM talkmeter.quarantine"),
        format!("internal_error|23514: {violated} \"€ 账单\"")
    );
    assert_eq!(
        *heard.lock().expect("a list"),
        [format!("WARNING: talkmeter could not meter this transaction: {violated} \"? ??\"")]
    );
}

#[test]
fn after_an_error_of_the_meters_later_transactions_are_metered() {
    let (_database, mut session) = metered("lutingenie");
    break_tenant(&mut session);
    session.run("BEGIN");
    tell_both(&mut session);
    session.run("COMMIT");
    tell(&mut session, "whole", "c", "10:01 exchange");
    assert_eq!(counted(&mut session), ["c|2"]);
    session.run("ALTER TABLE talkmeter.charge DROP CONSTRAINT whole");
    tell(&mut session, "broken", "d", "10:01 exchange");
    assert_eq!(counted(&mut session), ["c|2", "d|2"]);
}

#[test]
fn what_an_error_of_the_meters_kept_is_metered_by_sweeps_as_far_as_it_can_be() {
    let (_database, mut session) = metered("lutingenie");
    break_tenant(&mut session);
    session.run("BEGIN");
    tell_both(&mut session);
    session.run("COMMIT; SELECT talkmeter.sweep('2026-03-02')");
    assert_eq!(quarantined(&mut session), ["broken|c|internal_error|23514"]);
    assert_eq!(standing_charges(&mut session, "tenant"), ["whole"]);
    session.run("ALTER TABLE talkmeter.charge DROP CONSTRAINT whole; SELECT talkmeter.sweep('2026-03-02')");
    assert_eq!(quarantined(&mut session), NOTHING);
    assert_eq!(standing_charges(&mut session, "tenant"), ["broken", "whole"]);
}

#[test]
fn a_sweep_tries_a_hundred_entries_again_and_the_next_one_others() {
    let (_database, mut session) = metered("lutingenie");
    break_tenant(&mut session);
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'broken', n, '2026-03-01 10:00+00', 'exchange' FROM generate_series(1, 250) AS n",
    );
    session.run("ALTER TABLE talkmeter.charge DROP CONSTRAINT whole");
    let mut sweeps = 0;
    while !quarantined(&mut session).is_empty() {
        session.run("SELECT talkmeter.sweep('2026-03-02')");
        sweeps += 1;
        assert!(sweeps < 100, "{} entries are left", quarantined(&mut session).len());
    }
    assert!(sweeps >= 3, "{sweeps} sweeps for 250 entries");
    assert_eq!(standing_charges(&mut session, "tenant").len(), 250);
}

#[test]
fn what_waits_for_a_table_that_was_locked_is_metered_by_a_sweep() {
    let (database, mut session) = metered("lutingenie");
    session.run("CREATE TABLE others (LIKE messages INCLUDING ALL)");
    attach(&mut session, "others", "lutingenie", None, &messages_mapping());
    session.run(
        "INSERT INTO others (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', 'c', '2026-03-01 10:00+00', 'exchange')",
    );
    let mut holder = database.connect();
    holder.run("BEGIN; LOCK TABLE others");
    session.run("SET talkmeter.source_lock_timeout = '10ms'");
    tell(&mut session, "acme", "c", "09:50 customer_message");
    session.run("SELECT talkmeter.sweep('2026-03-02')");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), ["source_unreadable"]);
    holder.run("COMMIT");
    session.run("SELECT talkmeter.sweep('2026-03-02')");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(counted(&mut session), ["c|3"]);
}

#[test]
fn an_error_of_the_meters_lets_a_transaction_be_prepared() {
    let (_database, mut session) = metered("lutingenie");
    break_tenant(&mut session);
    session.run("BEGIN");
    tell_both(&mut session);
    session.run("PREPARE TRANSACTION 'broken'");
    session.run("COMMIT PREPARED 'broken'");
    assert_eq!(quarantined(&mut session), ["broken|c|internal_error|23514", "whole|c|internal_error|23514"]);
}

#[test]
fn an_error_of_the_meters_in_flush_lets_the_transaction_go_on() {
    let (_database, mut session) = metered("lutingenie");
    break_tenant(&mut session);
    session.run("BEGIN");
    tell(&mut session, "broken", "before", "10:00 exchange");
    session.run("SAVEPOINT s");
    tell(&mut session, "broken", "inside", "10:00 exchange");
    session.run("SELECT talkmeter.flush(); ROLLBACK TO SAVEPOINT s");
    tell(&mut session, "whole", "after", "10:00 exchange");
    session.run("SELECT talkmeter.flush()");
    tell(&mut session, "whole", "last", "10:00 exchange");
    session.run("COMMIT");
    assert_eq!(quarantined(&mut session), ["broken|before|internal_error|23514", "whole|after|internal_error|23514"]);
    assert_eq!(counted(&mut session), ["last|2"]);
}

#[test]
fn an_error_of_the_meters_fails_the_commit_of_a_strict_source_and_leaves_no_trace() {
    let (_database, mut session) = metered("lutingenie");
    let mapping = quoted(&messages_mapping());
    session.run(&format!(
        "CREATE TABLE strict_messages (LIKE messages INCLUDING ALL);
         SELECT talkmeter.attach('strict_messages', 'lutingenie', {mapping}, 'agent_red/starter', strict => true)"
    ));
    break_tenant(&mut session);
    let strictly = "INSERT INTO strict_messages (tenant_id, conversation_id, kind) VALUES";
    session.run("BEGIN");
    tell_both(&mut session);
    session.run(&format!("{strictly} ('whole', 'strict', 'exchange')"));
    assert_eq!(session.refused("COMMIT"), SqlState::CHECK_VIOLATION);
    assert_eq!(session.line("SELECT count(*) FROM messages"), "0");
    assert_eq!(traces(&mut session), NOTHING);
    session.run(&format!("{strictly} ('whole', 'strict', 'exchange')"));
    assert_eq!(counted(&mut session), ["strict|2"]);
}

// --- Errors that pass through ---

/// A session that holds conversation `c`, and another with a message of it whose commit will wait for the first.
fn holder_and_waiter(database: &Database) -> (Session, Session) {
    let (mut holder, mut waiter) = (database.connect(), database.connect());
    holder.run("BEGIN");
    tell(&mut holder, "acme", "c", "10:00 exchange");
    holder.run("SELECT talkmeter.flush()");
    waiter.run("BEGIN");
    tell(&mut waiter, "acme", "c", "10:01 exchange");
    tell(&mut waiter, "other", "d", "10:01 exchange");
    (holder, waiter)
}

#[test]
fn a_commit_can_be_cancelled_while_it_waits() {
    let (database, mut session) = metered("lutingenie");
    let (mut holder, mut waiter) = holder_and_waiter(&database);
    let pid = waiter.pid();
    let waiting = thread::spawn(move || {
        let code = waiter.refused("COMMIT");
        (waiter, code)
    });
    session.wait_until_blocked(pid);
    session.run(&format!("SELECT pg_cancel_backend({pid})"));
    let (mut waiter, code) = waiting.join().expect("the waiter");
    assert_eq!(code, SqlState::QUERY_CANCELED);
    // Nothing is left of it, and nothing is held: also not the second conversation.
    tell(&mut session, "other", "d", "10:00 exchange");
    holder.run("COMMIT");
    assert_eq!(session.line("SELECT count(*) FROM messages"), "2");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    tell(&mut waiter, "acme", "c", "10:02 exchange");
    assert_eq!(counted(&mut session), ["c|4", "d|2"]);
}

#[test]
fn a_session_can_be_terminated_while_its_commit_waits() {
    let (database, mut session) = metered("lutingenie");
    let (mut holder, mut waiter) = holder_and_waiter(&database);
    let pid = waiter.pid();
    let waiting = thread::spawn(move || waiter.client.batch_execute("COMMIT"));
    session.wait_until_blocked(pid);
    assert_eq!(session.line(&format!("SELECT pg_terminate_backend({pid}, 60000)")), "t");
    waiting.join().expect("the waiter").expect_err("the connection is gone");
    holder.run("COMMIT");
    assert_eq!(session.line("SELECT count(*) FROM messages"), "1");
    tell(&mut session, "acme", "c", "10:02 exchange");
    assert_eq!(counted(&mut session), ["c|4"]);
}

/// Only flush() lets a transaction wait for the application while it holds a conversation.
#[test]
fn a_deadlock_with_a_lock_of_the_applications_fails_the_commit() {
    let (database, mut session) = metered("lutingenie");
    session.run("CREATE TABLE stock (item int PRIMARY KEY); INSERT INTO stock VALUES (1)");
    let (mut holder, mut waiter) = holder_and_waiter(&database);
    waiter.run("SELECT * FROM stock FOR UPDATE");
    // Who waits last finds the deadlock.
    holder.run("SET LOCAL deadlock_timeout = '1h'");
    waiter.run("SET LOCAL deadlock_timeout = '10ms'");
    let pid = holder.pid();
    let holding = thread::spawn(move || holder.run("SELECT * FROM stock FOR UPDATE; COMMIT"));
    session.wait_until_blocked(pid);
    assert_eq!(waiter.refused("COMMIT"), SqlState::T_R_DEADLOCK_DETECTED);
    holding.join().expect("the holder");
    assert_eq!(counted(&mut session), ["c|2"]);
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
}

// --- The order of locks ---

/// Tells two tenants of 12,000 conversations, the first tenant's first or last, by more events than one chunk holds.
fn tell_two_tenants(session: &mut Session, name: &str, first: &str, second: &str) {
    for tenant in [first, second] {
        session.run(&format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             SELECT '{tenant}', '{name} ' || n, '2026-03-01'::timestamptz + n * interval '1 s', 'exchange'
             FROM generate_series(1, 6000) AS n"
        ));
    }
}

fn is_whole(session: &mut Session) {
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    let charged =
        "SELECT tenant, count(*) FROM talkmeter.charges WHERE conversation ~ 'early|late' GROUP BY 1 ORDER BY 1";
    assert_eq!(session.lines(charged), ["acme|12000", "bolt|12000"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

/// Rule 4.4.2. If one chunk were drawn before the next is folded, the waiting commit would hold its tenants, and the
/// second could not commit.
#[test]
fn a_commit_of_several_chunks_locks_no_tenant_before_its_last_conversation() {
    let (database, mut session) = metered("lutingenie");
    let [mut holder, mut waiter, mut other] = [(); 3].map(|()| database.connect());
    holder.run("BEGIN");
    tell(&mut holder, "bolt", "held", "10:00 customer_message");
    holder.run("SELECT talkmeter.flush()");
    waiter.run("BEGIN");
    tell_two_tenants(&mut waiter, "early", "acme", "bolt");
    // In the order of the keys it comes after those, in the second chunk.
    tell(&mut waiter, "bolt", "held", "10:01 exchange");
    let pid = waiter.pid();
    let waiting = thread::spawn(move || waiter.run("COMMIT"));
    session.wait_until_blocked(pid);
    other.run("BEGIN; SET LOCAL lock_timeout = '30s'");
    tell_two_tenants(&mut other, "late", "bolt", "acme");
    other.run("COMMIT");
    assert_eq!(session.line("SELECT count(DISTINCT tenant) FROM talkmeter.charges"), "2", "the second did not wait");
    holder.run("COMMIT");
    waiting.join().expect("the waiter");
    is_whole(&mut session);
}

#[test]
fn two_commits_of_several_chunks_over_the_same_tenants_in_opposite_order_both_succeed() {
    let (database, mut session) = metered("lutingenie");
    let start = Arc::new(Barrier::new(2));
    let commits = [("early", "acme", "bolt"), ("late", "bolt", "acme")].map(|(name, first, second)| {
        let (mut session, start) = (database.connect(), Arc::clone(&start));
        thread::spawn(move || {
            session.run("BEGIN");
            tell_two_tenants(&mut session, name, first, second);
            // The same conversations of both tenants at the end of either.
            for tenant in [first, second] {
                tell(&mut session, tenant, "shared", "10:00 customer_message");
            }
            start.wait();
            session.run("COMMIT");
        })
    });
    commits.into_iter().for_each(|commit| commit.join().expect("no error of either"));
    is_whole(&mut session);
}

/// Defines the policy "own", or its next version, in force from an instant on.
fn define_own(since: &str) -> String {
    format!(
        r#"SELECT talkmeter.define_policy('{{"name": "own", "starts_on": ["customer_message"], "ends_on": ["close"],
            "charge_on": "first_ai_reply", "effective_from": "{since}"}}')"#
    )
}

/// An entry of quarantine is taken out by who changes its row, before conversations are locked, and by who folds its
/// conversation again, after that. The second must not wait for the first.
#[test]
fn a_change_of_a_row_in_quarantine_and_a_late_row_of_its_conversation_both_commit() {
    let database = Database::fresh("quarantine_order");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(&define_own("2026-06-01T00:00:00Z"));
    attach(&mut session, "messages", "own", Some("agent_red/starter"), &messages_mapping());
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), ["unknown_policy"]);
    session.run(&define_own("2026-01-01T00:00:00Z"));
    let [mut holder, mut changer, mut teller] = [(); 3].map(|()| database.connect());
    holder.run("BEGIN");
    tell(&mut holder, "acme", "a", "10:00 note");
    holder.run("SELECT talkmeter.flush()");
    changer.run("BEGIN; UPDATE messages SET kind = 'visit' WHERE conversation_id = 'c'");
    tell(&mut changer, "acme", "a", "10:01 note");
    let pid = changer.pid();
    let changing = thread::spawn(move || changer.run("COMMIT"));
    session.wait_until_blocked(pid);
    let telling = thread::spawn(move || tell(&mut teller, "acme", "c", "09:50 customer_message"));
    thread::sleep(Duration::from_millis(200));
    holder.run("COMMIT");
    changing.join().expect("the change");
    telling.join().expect("the late row");
    assert_eq!(counted(&mut session), ["c|3"]);
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

/// A row that the switch kept in quarantine, and a session that changes its time while another's retry, which meters
/// it as it was, is still open. That ends as `end` says.
fn changed_while_it_is_retried(end: &str) -> (Database, Session) {
    let (database, mut session) = metered("lutingenie");
    session.run("SET talkmeter.enabled = off");
    tell(&mut session, "acme", "c", "10:00 exchange");
    let (mut changer, heard) = database.connect_heard();
    let mut holder = database.connect();
    holder.run("BEGIN; SELECT talkmeter.retry_quarantine()");
    changer.run("SET lock_timeout = '100ms'; UPDATE messages SET created_at = '2026-03-01 11:00+00'");
    let heard = heard.lock().expect("a list").join("\n");
    assert!(heard.starts_with("WARNING: talkmeter could not meter this transaction: canceling statement"), "{heard}");
    holder.run(end);
    session.run("RESET talkmeter.enabled");
    (database, session)
}

fn is_metered_as_it_is(session: &mut Session) {
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(session.line("SELECT started_at, message_count FROM talkmeter.parts"), "2026-03-01 11:00:00+00|2");
    assert_eq!(standing_charges(session, "conversation"), ["c"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn a_row_that_is_changed_while_a_retry_meters_it_commits_in_spite_of_a_lock_timeout() {
    let (_database, mut session) = changed_while_it_is_retried("COMMIT");
    is_metered_as_it_is(&mut session);
}

#[test]
fn a_row_that_is_changed_while_a_retry_looks_at_it_in_vain_commits_in_spite_of_a_lock_timeout() {
    let (_database, mut session) = changed_while_it_is_retried("ROLLBACK");
    is_metered_as_it_is(&mut session);
}

#[test]
fn a_row_that_is_mended_while_a_retry_looks_at_it_is_metered_once() {
    let (database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "11:00 unheard_of");
    let mut holder = database.connect();
    holder.run("BEGIN; SELECT talkmeter.retry_quarantine()");
    session.run("SET lock_timeout = '100ms'; UPDATE messages SET kind = 'exchange'");
    holder.run("COMMIT");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine ORDER BY 1"), ["internal_error", "no_kind"]);
    is_metered_as_it_is(&mut session);
}

#[test]
fn no_statement_waits_for_who_holds_quarantine_as_a_whole() {
    let (database, mut session) = metered("lutingenie");
    tell(&mut session, "acme", "c", "10:00 exchange, 11:00 unheard_of");
    let mut holder = database.connect();
    holder.run("BEGIN; LOCK TABLE talkmeter.quarantined IN ACCESS EXCLUSIVE MODE");
    session.run("SET lock_timeout = '100ms'; BEGIN");
    tell(&mut session, "acme", "c", "10:01 exchange, 11:01 unheard_of");
    session.run("UPDATE messages SET created_at = created_at + interval '1 s'; DELETE FROM messages WHERE id < 3");
    holder.run("COMMIT");
    session.run("COMMIT");
    assert_eq!(counted(&mut session), ["c|4"]);
    assert_eq!(session.lines("SELECT message_id FROM talkmeter.quarantine"), ["4"]);
}

// --- Replication ---

#[test]
fn a_publication_for_all_tables_fails_no_work_at_the_publisher() {
    let database = Database::with_messages("published", "ai_resolution", None);
    let mut session = database.connect();
    session.run("CREATE TABLE keyless (n int); INSERT INTO keyless VALUES (1)");
    session.run("CREATE PUBLICATION everything FOR ALL TABLES");
    // This is what a table without replica identity would be answered.
    assert_eq!(session.refused("UPDATE keyless SET n = 2"), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    tell(&mut session, "acme", "c", "10:00 exchange");
    tell(&mut session, "acme", "c", "10:01 exchange, 10:02 close");
    tell(&mut session, "acme", "d", "10:00 exchange, 10:01 unheard_of");
    session.run("UPDATE messages SET created_at = created_at - interval '1 minute' WHERE conversation_id = 'd'");
    session.run("SELECT talkmeter.mark('acme', 'd', 'note', '2026-03-01 10:00')");
    assert_eq!(session.sweep("2026-03-02"), 1);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.unplanned"), "2");
    session.run("SELECT talkmeter.buy_pack('acme', 'agent_red/1000', 'key', '2026-03-01')");
    session.run("SELECT talkmeter.subscribe('acme', 'ai_resolution/usage', '2026-01-01')");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.unplanned"), "0");
    assert_eq!(session.line("SELECT remaining FROM talkmeter.packs"), "998");
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "own", "included": 1, "overage_rate": 1, "currency": "USD"}');
           SELECT talkmeter.detach('messages')"#,
    );
    attach(&mut session, "messages", "lutingenie", Some("own"), &messages_mapping());
    // A table that held rows when it was attached is metered from then on.
    tell(&mut session, "new", "e", "now visit");
    assert_eq!(
        session.lines("SELECT tenant, charge_id, conversation, tier FROM talkmeter.charges ORDER BY 1, 2"),
        ["acme|1|c|pack", "acme|2|d|pack", "new|1|e|included"]
    );
}

// --- Commits that lock nothing first ---

/// The holder has written the conversation and does `end` when the other waits for its row.
fn while_a_row_is_waited_for(isolation: &str, end: impl FnOnce(&mut Session, &mut Session)) -> (Database, Session) {
    let (database, mut session) = metered("agent_red");
    tell(&mut session, "acme", "c", "10:00 exchange");
    let [mut holder, mut teller] = [(); 2].map(|()| database.connect());
    holder.run("BEGIN");
    tell(&mut holder, "acme", "c", "10:01 exchange");
    holder.run("SELECT talkmeter.flush()");
    teller.run(&format!("SET default_transaction_isolation = '{isolation}'"));
    let pid = teller.pid();
    let telling = thread::spawn(move || tell(&mut teller, "acme", "c", "10:02 exchange"));
    session.wait_until_blocked(pid);
    end(&mut session, &mut holder);
    telling.join().expect("the other message");
    (database, session)
}

#[test]
fn a_commit_that_finds_its_conversation_changed_goes_on_from_there() {
    for isolation in ["read committed", "repeatable read"] {
        let (_database, mut session) = while_a_row_is_waited_for(isolation, |_, holder| holder.run("COMMIT"));
        assert_eq!(counted(&mut session), ["c|6"], "{isolation}");
        assert_eq!(session.line("SELECT turn_count FROM talkmeter.parts"), "3", "{isolation}");
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING, "{isolation}");
        assert_eq!(quarantined(&mut session), NOTHING, "{isolation}");
    }
}

#[test]
fn a_commit_that_finds_its_conversation_as_it_was_goes_on_from_there() {
    let (_database, mut session) = while_a_row_is_waited_for("read committed", |_, holder| holder.run("ROLLBACK"));
    assert_eq!(counted(&mut session), ["c|4"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

/// Whoever has waited is judged by what is in force when he need not wait any more.
#[test]
fn a_policy_that_is_defined_while_a_commit_waits_is_the_one_that_judges() {
    let database = Database::fresh("policy_while_waiting");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(&define_own("2026-01-01T00:00:00Z"));
    attach(&mut session, "messages", "own", Some("agent_red/starter"), &messages_mapping());
    tell(&mut session, "acme", "c", "10:00 exchange, 10:01 close");
    let [mut holder, mut teller] = [(); 2].map(|()| database.connect());
    holder.run("BEGIN");
    tell(&mut holder, "acme", "c", "10:02 note");
    holder.run("SELECT talkmeter.flush()");
    let pid = teller.pid();
    let since =
        session.line("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '2 s', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')");
    let insert = format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', 'c', '{since}'::timestamptz + interval '1 s', 'customer_message')"
    );
    let telling = thread::spawn(move || teller.run(&insert));
    session.wait_until_blocked(pid);
    session.run(&define_own(&since));
    holder.run("ROLLBACK");
    telling.join().expect("the message");
    let versions = session.lines("SELECT part, policy_version FROM talkmeter.parts ORDER BY 1");
    assert_eq!(versions, ["1|1", "2|2"]);
}
