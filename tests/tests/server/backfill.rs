//! Does a backfill meter what was never counted as if it had been metered live (rule 2.13)?

use postgres::error::SqlState;
use std::thread;
use talkmeter_tests::{
    Database, PLAN, Random, Session, assert_same_rows, at_length, attach, create_messages, messages_mapping, quoted,
    standing_charges, tell,
};

const NOTHING: [&str; 0] = [];
const TENANTS: [&str; 3] = ["acme", "bravo", "carl"];
const POLICIES: [&str; 3] = ["lutingenie", "agent_red", "ai_resolution"];
const KINDS: [&str; 10] = [
    "customer_message",
    "customer_message",
    "exchange",
    "exchange",
    "exchange",
    "ai_reply",
    "staff_reply",
    "note",
    "close",
    "error",
];

/// Meters all that is there.
const ALL: &str = "CALL talkmeter.backfill('messages', '-infinity', 'infinity')";

/// A message: id, tenant, conversation, time and kind as SQL.
struct Row {
    at: String,
    values: String,
}

/// Messages of some weeks in which a month ends, in the order of their times, no two of one instant.
fn random_rows(random: &mut Random, count: usize) -> Vec<Row> {
    let mut minutes = 0;
    let row = |id: usize| {
        let longest = if random.below(3) == 0 { 900 } else { 25 };
        minutes += 1 + random.below(longest);
        let at = format!("'2026-03-20 10:00+00'::timestamptz + interval '{minutes} min'");
        let (tenant, conversation) = (TENANTS[random.below(3)], random.below(3));
        let kind = KINDS[random.below(KINDS.len())];
        Row { values: format!("({id}, '{tenant}', 'c{conversation}', {at}, '{kind}')"), at }
    };
    (1..=count).map(row).collect()
}

fn insert(session: &mut Session, rows: &[Row]) {
    if !rows.is_empty() {
        let values: Vec<&str> = rows.iter().map(|row| row.values.as_str()).collect();
        session.run(&format!(
            "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES {}",
            values.join(", ")
        ));
    }
}

/// A database with a plan of few units, of which each tenant has bought a pack, and an empty table.
fn with_small_plan(name: &str) -> (Database, Session) {
    let database = Database::fresh(name);
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"ALTER TABLE messages ALTER id RESTART 1000;
           SELECT talkmeter.define_plan('{"name": "small", "included": 3, "overage_rate": 0.04, "currency": "USD"}');
           SELECT talkmeter.define_pack('{"name": "small", "size": 4, "price": 1, "currency": "USD", "valid_for": "90 days"}')"#,
    );
    for tenant in TENANTS {
        session.run(&format!("SELECT talkmeter.buy_pack('{tenant}', 'small', purchased_at => '2026-03-21')"));
    }
    (database, session)
}

fn attach_small(session: &mut Session, policy: &str) {
    attach(session, "messages", policy, Some("small"), &messages_mapping());
}

/// Rows metered as they came, each after the time before it had passed.
fn live(policy: &str, rows: &[Row]) -> (Database, Session) {
    let (database, mut session) = with_small_plan("live");
    attach_small(&mut session, policy);
    for row in rows {
        session.run(&format!("SELECT talkmeter.sweep({})", row.at));
        insert(&mut session, std::slice::from_ref(row));
    }
    (database, session)
}

const PARTS: &str = "SELECT * FROM talkmeter.parts ORDER BY tenant, conversation, part";
const CHARGES: &str = "SELECT tenant, charge_id, conversation, part, charged_at, period_start, posted_period_start, tier,
    pack_id, amount, currency, plan, policy, policy_version, reverses, reason FROM talkmeter.charges ORDER BY tenant, charge_id";

fn assert_same_parts(found: &mut Session, expected: &mut Session) {
    assert_same_rows(&found.lines(PARTS), &expected.lines(PARTS));
}

fn assert_same(found: &mut Session, expected: &mut Session) {
    for session in [&mut *found, &mut *expected] {
        session.run("SELECT talkmeter.sweep()");
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    }
    assert_same_parts(found, expected);
    assert_same_rows(&found.lines(CHARGES), &expected.lines(CHARGES));
    assert_eq!(found.lines("SELECT * FROM talkmeter.gaps('messages')"), NOTHING);
    assert_eq!(found.lines("SELECT * FROM talkmeter.uncharged"), NOTHING);
    assert_eq!(found.lines("SELECT * FROM talkmeter.backfill_run"), NOTHING);
}

// --- The result ---

#[test]
fn what_was_there_before_is_metered_as_if_live_with_its_tiers() {
    let (first, runs) = (Random::seeded().1, if at_length() { 100 } else { 6 });
    for seed in first..first + runs {
        println!("TALKMETER_SEED={seed}");
        let mut random = Random::new(seed);
        let policy = POLICIES[seed as usize % 3];
        let rows = random_rows(&mut random, 120);
        let (_live, mut expected) = live(policy, &rows);
        let (_database, mut session) = with_small_plan("backfill");
        insert(&mut session, &rows);
        attach_small(&mut session, policy);
        assert_eq!(session.lines("SELECT * FROM talkmeter.parts"), NOTHING);
        session
            .run(&format!("CALL talkmeter.backfill('messages', '-infinity', now(), batch => {})", 1 + random.below(4)));
        assert_eq!(session.lines("SELECT kind FROM talkmeter.alerts WHERE NOT muted"), NOTHING);
        assert_same(&mut session, &mut expected);
        assert_eq!(session.line("SELECT starts_at FROM talkmeter.sources"), "-infinity");
    }
}

/// Some before the attach, some by a replica, some while the switch is off, some while it is detached, others as ever.
fn insert_by_all_ways(session: &mut Session, policy: &str, rows: &[Row]) {
    insert(session, &rows[..20]);
    attach_small(session, policy);
    // As if it had been attached then, and again later.
    session.run(&format!("UPDATE talkmeter.source SET starts_at = {}", rows[20].at));
    insert(session, &rows[20..50]);
    session.run("SET session_replication_role = replica");
    insert(session, &rows[50..60]);
    session.run("RESET session_replication_role");
    insert(session, &rows[60..70]);
    session.run("SET talkmeter.enabled = off");
    insert(session, &rows[70..80]);
    session.run("SET talkmeter.enabled = on");
    session.run("SELECT talkmeter.detach('messages')");
    insert(session, &rows[80..100]);
    attach_small(session, policy);
    let span = format!("from_time = {}, until_time = {}", rows[80].at, rows[100].at);
    session.run(&format!("UPDATE talkmeter.source_gap SET {span}"));
    insert(session, &rows[100..]);
}

#[test]
fn what_came_before_between_and_unseen_gives_the_parts_and_units_of_live_metering() {
    let (first, runs) = (Random::seeded().1, if at_length() { 100 } else { 6 });
    for seed in first..first + runs {
        println!("TALKMETER_SEED={seed}");
        let mut random = Random::new(seed);
        let policy = POLICIES[seed as usize % 3];
        let rows = random_rows(&mut random, 120);
        let (_live, mut expected) = live(policy, &rows);
        let (_database, mut session) = with_small_plan("backfill");
        insert_by_all_ways(&mut session, policy, &rows);
        // All at once, or bit by bit.
        if random.below(2) == 0 {
            session.run(ALL);
        } else {
            for at in [10, 30, 55, 85, 110] {
                session.run(&format!(
                    "CALL talkmeter.backfill('messages', {}, {}, batch => 2)",
                    rows[at - 10].at,
                    rows[at].at
                ));
            }
            session.run(ALL);
        }
        for session in [&mut session, &mut expected] {
            session.run("SELECT talkmeter.sweep()");
            assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
        }
        let parts =
            "SELECT tenant, conversation, policy, status, started_at, first_ai_reply_at, last_activity_at, ended_at,
            end_reason, billable, not_billable_because, charged_at, message_count, turn_count, ai_replies, staff_replies
            FROM talkmeter.parts ORDER BY tenant, conversation, started_at";
        assert_same_rows(&session.lines(parts), &expected.lines(parts));
        let units = |session: &mut Session| {
            session.line("SELECT count(*) FILTER (WHERE reverses IS NULL) - count(reverses) FROM talkmeter.charges")
        };
        assert_eq!(units(&mut session), units(&mut expected));
        assert_eq!(session.lines("SELECT * FROM talkmeter.gaps('messages')"), NOTHING);
        assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    }
}

#[test]
fn what_is_asked_for_again_is_counted_no_second_time() {
    let rows = random_rows(&mut Random::new(7), 120);
    let (_live, mut expected) = live("agent_red", &rows);
    let (_database, mut session) = with_small_plan("backfill");
    insert(&mut session, &rows);
    attach_small(&mut session, "agent_red");
    for _ in 0..3 {
        session.run(ALL);
    }
    assert_same(&mut session, &mut expected);
}

#[test]
fn a_table_with_other_keys_is_backfilled_too() {
    let database = Database::fresh("backfill");
    let mut session = database.connect();
    session.run(
        "CREATE TABLE chats (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), tenant bigint, thread uuid, topic int, at bigint, kind text)
             PARTITION BY HASH (id);
         CREATE TABLE chats_0 PARTITION OF chats FOR VALUES WITH (MODULUS 2, REMAINDER 0);
         CREATE TABLE chats_1 PARTITION OF chats FOR VALUES WITH (MODULUS 2, REMAINDER 1);
         CREATE INDEX ON chats (tenant, thread); CREATE INDEX ON chats (tenant, topic);
         INSERT INTO chats (tenant, thread, topic, at, kind)
         SELECT n % 3, CASE WHEN n % 2 = 0 THEN md5((n % 40)::text)::uuid END, n % 7, 1772360000 + n * 60, 'exchange'
         FROM generate_series(1, 300) AS n",
    );
    let mapping = r#"{"tenant": "tenant", "conversation": {"first_of": ["thread", "topic"]}, "message_id": "id",
        "occurred_at": {"column": "at", "epoch": "seconds"}, "kinds": [{"kind": ["customer_message", "ai_reply"]}]}"#;
    attach(&mut session, "chats", "agent_red", PLAN, mapping);
    session.run("CALL talkmeter.backfill('chats', '-infinity', 'infinity', batch => 7)");
    assert_eq!(session.line("SELECT sum(message_count) FROM talkmeter.parts"), "600");
    assert_eq!(session.lines("SELECT * FROM talkmeter.gaps('chats')"), NOTHING);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

// --- Interrupted, and others beside it ---

/// A table of so many conversations of a unit each, of one tenant, attached after they took place.
fn visited(conversations: usize) -> (Database, Session) {
    let database = Database::fresh("backfill");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', 'c' || lpad(n::text, 6, '0'), timestamptz '2026-03-01 10:00+00' + n * interval '1 min', 'visit'
         FROM generate_series(1, {conversations}) AS n"
    ));
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    (database, session)
}

/// Holds a conversation until its transaction ends.
fn hold(session: &mut Session, conversation: &str) {
    session.run(&format!(
        "BEGIN; SELECT talkmeter.mark('acme', '{conversation}', 'note', '2026-03-01'); SELECT talkmeter.flush()"
    ));
}

#[test]
fn an_interrupted_backfill_goes_on_where_it_was() {
    let rows = random_rows(&mut Random::new(3), 120);
    let (_live, mut expected) = live("lutingenie", &rows);
    let (database, mut session) = with_small_plan("backfill");
    insert(&mut session, &rows);
    attach_small(&mut session, "lutingenie");
    let mut other = database.connect();
    other.run("BEGIN; SELECT talkmeter.mark('bravo', 'c1', 'note'); SELECT talkmeter.flush()");
    session.run("SET lock_timeout = 200");
    let call = "CALL talkmeter.backfill('messages', '-infinity', '2026-07-01', batch => 1)";
    assert_eq!(session.refused(call), SqlState::LOCK_NOT_AVAILABLE);
    assert_eq!(
        session.line("SELECT stage, after_tenant, after_conversation, conversations FROM talkmeter.backfill_run"),
        "counting|bravo|c0|4"
    );
    assert_eq!(session.lines("SELECT * FROM talkmeter.charges"), NOTHING);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    assert_eq!(
        session.line("SELECT object, hint FROM talkmeter.health() WHERE problem = 'backfill_unfinished'"),
        "public.messages|CALL talkmeter.backfill('public.messages', '-infinity', '2026-07-01 00:00:00+00', charge => t);"
    );
    other.run("ROLLBACK");
    // It may be asked for otherwise, but not without charging.
    let without = "CALL talkmeter.backfill('messages', '-infinity', '2026-07-01', charge => false)";
    assert_eq!(session.refused(without), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    session.run(ALL);
    assert_same(&mut session, &mut expected);
    assert_eq!(session.lines("SELECT problem FROM talkmeter.health() WHERE problem LIKE 'backfill%'"), NOTHING);
}

#[test]
fn one_that_was_interrupted_while_it_charged_goes_on_with_the_next_unit() {
    let rows = random_rows(&mut Random::new(4), 120);
    let (_live, mut expected) = live("agent_red", &rows);
    let (database, mut session) = with_small_plan("backfill");
    insert(&mut session, &rows);
    attach_small(&mut session, "agent_red");
    let mut other = database.connect();
    // Who is told its balance under a lock.
    other.run("BEGIN; SELECT talkmeter.buy_pack('carl', 'small')");
    session.run("SET lock_timeout = 200");
    assert_eq!(session.refused(ALL), SqlState::LOCK_NOT_AVAILABLE);
    other.run("ROLLBACK");
    session.run(ALL);
    assert_same(&mut session, &mut expected);
}

#[test]
fn two_at_once_are_refused_and_after_it_ended_another_goes_on() {
    let (database, mut session) = visited(30);
    let mut other = database.connect();
    hold(&mut other, "c000010");
    let mut worker = database.connect();
    let pid = worker.pid();
    let work = thread::spawn(move || worker.run("CALL talkmeter.backfill('messages', '-infinity', now(), batch => 3)"));
    session.wait_until_blocked(pid);
    assert_eq!(session.refused(ALL), SqlState::OBJECT_IN_USE);
    assert_eq!(
        session.lines("SELECT problem FROM talkmeter.health() WHERE problem = 'backfill_unfinished'"),
        NOTHING,
        "somebody is at it"
    );
    other.run("COMMIT");
    work.join().expect("it goes on");
    assert_eq!(session.line("SELECT count(*), max(charge_id) FROM talkmeter.charges"), "30|30");
    session.run(ALL);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "30");
}

#[test]
fn it_waits_for_who_wrote_before_and_nobody_waits_for_it() {
    let (database, mut session) = visited(30);
    let mut earlier = database.connect();
    earlier.run("BEGIN; UPDATE messages SET conversation_id = 'moved' WHERE conversation_id = 'c000005'");
    let mut worker = database.connect();
    let work = thread::spawn(move || worker.run(ALL));
    while session.line("SELECT count(*) FROM talkmeter.backfill_run") == "0" {}
    tell(&mut session, "acme", "c000005", "2026-03-01 10:03 customer_message");
    session.run("UPDATE messages SET conversation_id = 'elsewhere' WHERE conversation_id = 'c000007'");
    assert!(!work.is_finished());
    earlier.run("COMMIT");
    work.join().expect("it is done");
    assert_eq!(
        session.lines(
            "SELECT conversation, message_count FROM talkmeter.parts
             WHERE conversation IN ('moved', 'elsewhere', 'c000005', 'c000007') ORDER BY 1"
        ),
        ["c000005|1", "elsewhere|2", "moved|2"]
    );
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges WHERE reverses IS NULL"), "30");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn clients_insert_change_and_delete_meanwhile() {
    const CONVERSATIONS: usize = 2_000;
    let (database, mut session) = visited(CONVERSATIONS);
    let client = |number: usize, mut session: Session| {
        thread::spawn(move || {
            let mut random = Random::new(number as u64);
            for step in 0..150 {
                let conversation = format!("c{:06}", 1 + 2 * random.below(CONVERSATIONS / 2) + number);
                let of_it = format!("conversation_id = '{conversation}'");
                session.run(&match random.below(5) {
                    0 => format!("UPDATE messages SET kind = 'exchange' WHERE {of_it}"),
                    1 => format!("UPDATE messages SET conversation_id = conversation_id || 'x' WHERE {of_it}"),
                    2 => format!("UPDATE messages SET created_at = created_at + interval '5 s' WHERE {of_it}"),
                    3 => format!(
                        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
                         SELECT 'acme', '{conversation}', timestamptz '2026-03-05' + {step} * interval '1 min', 'exchange'"
                    ),
                    _ => format!(
                        "INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', '{conversation}', 'visit')"
                    ),
                });
            }
            session
        })
    };
    let clients: Vec<_> = (0..2).map(|number| client(number, database.connect())).collect();
    session.run("CALL talkmeter.backfill('messages', '-infinity', now(), batch => 20)");
    clients.into_iter().for_each(|client| drop(client.join().expect("a client")));
    let after = "SELECT id, tenant_id, conversation_id, created_at, kind FROM messages ORDER BY created_at, id";
    let copied = session.lines(after);
    let other = Database::with_messages("live", "lutingenie", PLAN);
    let mut expected = other.connect();
    for rows in copied.chunks(100) {
        let values: Vec<String> =
            rows.iter().map(|row| format!("({})", row.split('|').map(quoted).collect::<Vec<_>>().join(", "))).collect();
        expected.run(&format!(
            "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind) VALUES {}",
            values.join(", ")
        ));
    }
    for session in [&mut session, &mut expected] {
        session.run("SELECT talkmeter.sweep()");
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
        assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine"), NOTHING);
    }
    let parts = "SELECT tenant, conversation, status, started_at, ended_at, end_reason, charged_at, message_count
        FROM talkmeter.parts ORDER BY tenant, conversation, started_at";
    assert_same_rows(&session.lines(parts), &expected.lines(parts));
    let standing = |session: &mut Session| {
        let mut charges = standing_charges(session, "tenant, conversation, period_start");
        charges.sort_unstable();
        charges
    };
    assert_same_rows(&standing(&mut session), &standing(&mut expected));
    assert_eq!(session.lines("SELECT * FROM talkmeter.gaps('messages')"), NOTHING);
    assert_eq!(session.lines("SELECT * FROM talkmeter.uncharged"), NOTHING);
}

#[test]
fn rows_deleted_meanwhile_keep_what_was_counted_of_them_and_stop_nothing() {
    let (database, mut session) = visited(30);
    let mut other = database.connect();
    hold(&mut other, "c000010");
    let mut worker = database.connect();
    let pid = worker.pid();
    let work = thread::spawn(move || worker.run("CALL talkmeter.backfill('messages', '-infinity', now(), batch => 3)"));
    session.wait_until_blocked(pid);
    session.run("DELETE FROM messages WHERE conversation_id IN ('c000002', 'c000020')");
    other.run("COMMIT");
    work.join().expect("it is done");
    let (counted, never) = ("conversation = 'c000002'", "conversation = 'c000020'");
    assert_eq!(session.line(&format!("SELECT count(*) FROM talkmeter.charges WHERE {counted}")), "1");
    assert_eq!(session.line(&format!("SELECT count(*) FROM talkmeter.charges WHERE {never}")), "0");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "29");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn others_see_how_far_it_has_come() {
    let (database, mut session) = visited(400);
    let mut worker = database.connect();
    let work = thread::spawn(move || worker.run("CALL talkmeter.backfill('messages', '-infinity', now(), batch => 5)"));
    let mut seen = Vec::new();
    while !work.is_finished() {
        seen.extend(session.lines("SELECT done, total, unit FROM talkmeter.progress WHERE work = 'backfill'"));
    }
    work.join().expect("it is done");
    let counted: Vec<usize> = seen
        .iter()
        .filter_map(|line| line.strip_suffix("|400|conversations"))
        .map(|done| done.parse().expect("a number"))
        .collect();
    assert!(counted.is_sorted() && counted.len() > 1 && counted.iter().all(|done| done % 5 == 0), "{seen:?}");
}

// --- What is charged, and who is told ---

#[test]
fn parts_are_counted_without_charging_and_charged_later_in_order() {
    let rows = random_rows(&mut Random::new(5), 120);
    let (_live, mut expected) = live("agent_red", &rows);
    let (_database, mut session) = with_small_plan("backfill");
    insert(&mut session, &rows);
    attach_small(&mut session, "agent_red");
    session.run("CALL talkmeter.backfill('messages', '-infinity', 'infinity', charge => false)");
    assert_same_parts(&mut session, &mut expected);
    assert_eq!(session.lines("SELECT * FROM talkmeter.charges"), NOTHING);
    assert_eq!(
        session.line("SELECT count(*) FROM talkmeter.uncharged"),
        expected.line("SELECT count(*) FROM talkmeter.parts WHERE billable")
    );
    assert_eq!(session.lines("SELECT DISTINCT source FROM talkmeter.uncharged"), ["messages"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
    // A late row of that time is not charged either, and what it merges or moves waits as it is now.
    tell(&mut session, "acme", "late", "2026-04-01 10:00 exchange");
    tell(&mut expected, "acme", "late", "2026-04-01 10:00 exchange");
    assert_eq!(session.lines("SELECT * FROM talkmeter.charges"), NOTHING);
    assert_eq!(session.lines("SELECT problem FROM talkmeter.verify()"), NOTHING);
    session.run("SELECT talkmeter.reconcile('2026-03-25')");
    assert_eq!(session.lines("SELECT * FROM talkmeter.reconciliations WHERE flagged"), NOTHING);
    // In two pieces, the earlier first.
    session.run("CALL talkmeter.backfill('messages', '-infinity', '2026-03-26 11:00+00')");
    session.run(ALL);
    assert_same_parts(&mut session, &mut expected);
    let units = "SELECT tenant, conversation, part, charged_at, tier FROM talkmeter.charges
        WHERE conversation <> 'late' ORDER BY tenant, charged_at, conversation";
    let without_acme =
        |lines: Vec<String>| -> Vec<String> { lines.into_iter().filter(|line| !line.starts_with("acme")).collect() };
    assert_same_rows(&without_acme(session.lines(units)), &without_acme(expected.lines(units)));
    assert_eq!(session.lines("SELECT * FROM talkmeter.uncharged"), NOTHING);
    assert_eq!(session.lines("SELECT * FROM talkmeter.uncharged_span"), NOTHING);
    assert_eq!(session.lines("SELECT problem FROM talkmeter.verify()"), NOTHING);
    tell(&mut session, "acme", "later", "2026-04-01 11:00 exchange");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges WHERE conversation = 'later'"), "1");
}

#[test]
fn nobody_is_told_of_what_was_long_ago_and_it_is_not_told_later() {
    let (_database, mut session) = with_small_plan("backfill");
    insert(&mut session, &random_rows(&mut Random::new(6), 120));
    attach_small(&mut session, "agent_red");
    session.run(ALL);
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.lines("SELECT DISTINCT muted, notified_at IS NULL FROM talkmeter.alerts"), ["t|t"]);
    // A crossing of now is told as ever.
    for number in 0..4 {
        tell(&mut session, "acme", &format!("now {number}"), "now exchange");
    }
    assert_eq!(
        session.lines("SELECT kind FROM talkmeter.alerts WHERE NOT muted AND kind LIKE 'allowance%' ORDER BY 1"),
        ["allowance_100", "allowance_80"]
    );
}

#[test]
fn units_of_a_finalized_period_are_listed_by_the_current_one() {
    let (_database, mut session) = visited(10);
    session.run(
        "SELECT talkmeter.subscribe('acme', 'agent_red/starter', '2026-02-01');
         SELECT talkmeter.finalize('acme', '2026-03-01')",
    );
    session.run(ALL);
    assert_eq!(
        session.lines(
            "SELECT DISTINCT period_start::date, posted_period_start > '2026-06-01', tier FROM talkmeter.charges"
        ),
        ["2026-03-01|t|included"]
    );
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn what_cannot_be_metered_waits_in_quarantine_and_what_waited_there_is_metered() {
    let (_database, mut session) = visited(3);
    // Dated before the start: the rule stays as long as nobody backfills.
    tell(&mut session, "acme", "c000002", "2026-03-01 10:05 customer_message, 2026-03-01 11:05 unheard_of");
    let reasons = "SELECT reason, count(*) FROM talkmeter.quarantine GROUP BY 1 ORDER BY 1";
    assert_eq!(session.lines(reasons), ["no_kind|1", "time_out_of_range|1"]);
    session.run("ALTER TABLE messages DISABLE TRIGGER USER");
    tell(&mut session, "acme", "c000003", "2026-03-01 12:05 unheard_of, 2026-03-01 12:07 exchange");
    session.run("ALTER TABLE messages ENABLE TRIGGER USER");
    session.run("CALL talkmeter.backfill('messages', '2026-03-01', '2026-03-02')");
    assert_eq!(session.lines(reasons), ["no_kind|2"]);
    assert_eq!(session.line("SELECT sum(message_count), count(*) FROM talkmeter.parts"), "9|5");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn a_row_whose_key_is_too_long_is_no_conversation_and_stops_nothing() {
    let (_database, mut session) = visited(3);
    session.run("ALTER TABLE messages DISABLE TRIGGER USER");
    tell(&mut session, "acme", &"long".repeat(150), "2026-03-01 10:00 exchange");
    session.run("ALTER TABLE messages ENABLE TRIGGER USER");
    session.run(ALL);
    assert_eq!(session.line("SELECT count(*), max(length(conversation)) FROM talkmeter.conversation"), "3|7");
}

// --- What it asks for ---

#[test]
fn only_the_owner_may_and_not_within_a_transaction() {
    let (database, mut session) = visited(3);
    let role = database.role("stranger");
    session.run(&format!(
        "GRANT USAGE ON SCHEMA talkmeter TO {role}; GRANT SELECT ON messages TO {role};
         GRANT EXECUTE ON ALL PROCEDURES IN SCHEMA talkmeter TO {role};
         GRANT EXECUTE ON FUNCTION talkmeter.gaps TO {role}"
    ));
    let mut stranger = database.connect_as(&role);
    assert_eq!(stranger.refused(ALL), SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(stranger.refused("SELECT * FROM talkmeter.gaps('messages')"), SqlState::INSUFFICIENT_PRIVILEGE);
    assert_eq!(session.refused(&format!("BEGIN; {ALL}")), SqlState::INVALID_TRANSACTION_TERMINATION);
    session.run("ROLLBACK");
    for (arguments, code) in [
        ("NULL, '-infinity', now()", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("'messages', NULL, now()", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("'messages', now(), NULL", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("'messages', '-infinity', now(), NULL", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("'messages', now(), '-infinity'", SqlState::INVALID_PARAMETER_VALUE),
        ("'messages', now() + interval '1 day', 'infinity'", SqlState::INVALID_PARAMETER_VALUE),
        ("'messages', '-infinity', now(), true, 0", SqlState::INVALID_PARAMETER_VALUE),
        ("'pg_class', '-infinity', now()", SqlState::WRONG_OBJECT_TYPE),
    ] {
        assert_eq!(session.refused(&format!("CALL talkmeter.backfill({arguments})")), code, "{arguments}");
    }
    session.run("CREATE TABLE other (LIKE messages INCLUDING ALL)");
    let other = "CALL talkmeter.backfill('other', '-infinity', now())";
    assert_eq!(session.refused(other), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    session.run("SET talkmeter.enabled = off");
    assert_eq!(session.refused(ALL), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
    assert_eq!(session.lines("SELECT * FROM talkmeter.parts"), NOTHING);
}

#[test]
fn the_journal_says_who_backfilled_what() {
    let (_database, mut session) = visited(3);
    session.run("CALL talkmeter.backfill('messages', '-infinity', '2026-04-01', charge => false)");
    assert_eq!(
        session.line(
            "SELECT arguments - 'to_time', arguments ->> 'to_time' LIKE '2026-04-01%' FROM talkmeter.journal WHERE call = 'backfill'"
        ),
        r#"{"charge": false, "source": "public.messages", "from_time": "-infinity"}|t"#
    );
}

// --- Gaps ---

#[test]
fn gaps_are_what_lies_before_the_start_or_came_detached_or_unseen() {
    let (_database, mut session) = visited(3);
    let gaps = "SELECT from_time, to_time, because, events FROM talkmeter.gaps('messages')";
    assert_eq!(session.lines(gaps), ["2026-03-01 10:01:00+00|2026-03-01 10:03:00.000001+00|before_start|9"]);
    session.run(ALL);
    assert_eq!(session.lines(gaps), NOTHING);
    tell(&mut session, "acme", "seen", "2026-03-10 10:00 exchange");
    session.run("SET session_replication_role = replica");
    tell(&mut session, "acme", "c000003", "2026-03-10 10:00 exchange");
    tell(&mut session, "acme", "seen", "2026-03-10 10:10 exchange");
    tell(
        &mut session,
        "acme",
        "new",
        "2026-03-12 10:00 customer_message, 2026-03-12 10:50 note, 2026-03-12 11:10 customer_message",
    );
    session.run("RESET session_replication_role");
    session.run("SELECT talkmeter.detach('messages')");
    tell(&mut session, "acme", "between", "now exchange");
    attach(&mut session, "messages", "lutingenie", PLAN, &messages_mapping());
    assert_eq!(
        session.lines(gaps)[..2],
        [
            "2026-03-10 10:00:00+00|2026-03-10 10:10:00.000001+00|not_seen|4",
            "2026-03-12 10:00:00+00|2026-03-12 11:10:00.000001+00|not_seen|2"
        ]
    );
    assert_eq!(
        session.lines(
            "SELECT because, events, from_time > now() - interval '1 hour' FROM talkmeter.gaps('messages') OFFSET 2"
        ),
        ["detached|2|t"]
    );
    // What each gap says is what closes it.
    for gap in session.lines("SELECT from_time, to_time FROM talkmeter.gaps('messages')") {
        let (from, to) = gap.split_once('|').expect("two times");
        session.run(&format!("CALL talkmeter.backfill('messages', '{from}', '{to}')"));
    }
    assert_eq!(session.lines(gaps), NOTHING);
    assert_eq!(session.line("SELECT sum(message_count) FROM talkmeter.parts"), "16");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn a_row_within_a_part_that_never_counted_it_is_a_gap_too() {
    let (_database, mut session) = talkmeter_tests::told("lutingenie", "10:00 customer_message, 10:20 ai_reply");
    session.run("SET session_replication_role = replica");
    tell(&mut session, "acme", "c", "10:10 customer_message");
    session.run("RESET session_replication_role");
    assert_eq!(
        session.lines("SELECT * FROM talkmeter.gaps('messages')"),
        ["2026-03-01 10:00:00+00|2026-03-01 10:20:00.000001+00|not_seen|1"]
    );
    session.run("CALL talkmeter.backfill('messages', '2026-03-01', '2026-03-02')");
    assert_eq!(session.lines("SELECT message_count FROM talkmeter.parts"), ["3"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.gaps('messages')"), NOTHING);
}

// --- Attached with a start in the past ---

#[test]
fn attach_with_since_keeps_a_gap_and_says_how_it_is_closed() {
    let database = Database::fresh("backfill");
    let (mut session, heard) = database.connect_heard();
    create_messages(&mut session);
    tell(&mut session, "acme", "old", "2026-02-01 10:00 exchange");
    tell(&mut session, "acme", "c", "2026-03-01 10:00 exchange");
    let attach = |since: &str| {
        format!(
            "SELECT talkmeter.attach('messages', 'lutingenie', {}, 'agent_red/starter', since => {since})",
            quoted(&messages_mapping())
        )
    };
    assert_eq!(session.refused(&attach("now() + interval '1 day'")), SqlState::DATETIME_FIELD_OVERFLOW);
    session.run(&attach("'2026-02-15'"));
    assert_eq!(session.line("SELECT starts_at FROM talkmeter.sources"), "2026-02-15 00:00:00+00");
    assert_eq!(
        session.lines("SELECT from_time, because FROM talkmeter.source_gaps"),
        ["2026-02-15 00:00:00+00|before_start"]
    );
    tell(&mut session, "acme", "live", "now exchange");
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.parts"), ["live"]);
    let heard = heard.lock().expect("what was heard").join("\n");
    assert!(heard.contains("NOTICE: rows that public.messages holds already are not metered yet"), "{heard}");
    let (from, to) = ("2026-02-15", session.line("SELECT until_time FROM talkmeter.source_gaps"));
    session.run(&format!("CALL talkmeter.backfill('messages', '{from}', '{to}')"));
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.parts ORDER BY 1"), ["c", "live"]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.source_gaps"), NOTHING);
    session.run(ALL);
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.parts ORDER BY 1"), ["c", "live", "old"]);
}

#[test]
fn attach_of_an_empty_table_with_since_has_nothing_to_close() {
    let database = Database::fresh("backfill");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(&format!(
        "SELECT talkmeter.attach('messages', 'lutingenie', {}, since => '-infinity')",
        quoted(&messages_mapping())
    ));
    assert_eq!(session.lines("SELECT * FROM talkmeter.source_gaps"), NOTHING);
    assert_eq!(session.line("SELECT starts_at FROM talkmeter.sources"), "-infinity");
}
