//! Does a backfill of much survive kill -9 beside clients that write, in bounded memory and as fast as metering is?

use crate::bulk::timed;
use crate::crash::{connect_when_up, is_crash};
use crate::{alone, crash};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use std::thread;
use std::time::Duration;
use talkmeter_tests::{
    Database, Random, Session, assert_same_rows, at_length, attach, create_messages, messages_mapping,
};

/// A database with a plan of few units, and an empty table.
fn with_small_plan() -> (Database, Session) {
    let database = Database::fresh("backfill");
    let mut session = database.connect();
    create_messages(&mut session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "some", "included": 100, "overage_rate": 0.125, "currency": "EUR"}')"#,
    );
    (database, session)
}

fn attach_some(session: &mut Session) {
    attach(session, "messages", "lutingenie", Some("some"), &messages_mapping());
}

/// Messages in the order of time, 20 in each conversation, over 200 tenants.
fn insert(rows: u64) -> String {
    format!(
        "INSERT INTO messages (id, tenant_id, conversation_id, created_at, kind)
         SELECT i, 'tenant ' || i % 200, 'c' || i / 20000 * 1000 + i % 1000,
             timestamptz '2026-01-10' + i * interval '2 s',
             CASE WHEN i / 1000 % 2 = 0 THEN 'customer_message' ELSE 'ai_reply' END
         FROM generate_series(0, {rows} - 1) AS i"
    )
}

/// All parts and charges as one line.
fn digest(session: &mut Session) -> Vec<String> {
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
    session.lines(
        "SELECT count(*), md5(string_agg(p::text, '|' ORDER BY tenant, conversation, part)) FROM talkmeter.parts AS p
         UNION ALL
         SELECT count(*), md5(string_agg(ROW (tenant, charge_id, conversation, part, charged_at, period_start, tier, amount)::text,
             '|' ORDER BY tenant, charge_id)) FROM talkmeter.charges",
    )
}

#[test]
fn a_large_backfill_takes_bounded_memory_and_about_as_long_as_metering_live() {
    /// Private memory in kB that it may take, however many rows there are.
    const BOUND: u64 = 100 * 1024;
    let _alone = alone();
    let rows = if at_length() { 2_000_000 } else { 200_000 };
    let (_live, mut expected) = with_small_plan();
    attach_some(&mut expected);
    let (live, _) = timed(&mut expected, &insert(rows));
    let (_database, mut session) = with_small_plan();
    let (bare, _) = timed(&mut session, &insert(rows));
    session.run("ANALYZE messages");
    attach_some(&mut session);
    let (time, memory) = timed(&mut session, "CALL talkmeter.backfill('messages', '-infinity', now())");
    println!("{rows} rows: not metered {bare:.1} s, live {live:.1} s, backfill {time:.1} s, {memory} kB");
    assert_same_rows(&digest(&mut session), &digest(&mut expected));
    assert!(memory < BOUND, "{memory} kB");
    // Half the speed of the insert of rows that nobody meters, and a little for a machine that does other work.
    assert!(time < 2.5 * bare + 2.0, "{time} s beside {bare} s");
}

/// Inserts and changes messages until it is told to stop, whatever happens to the server.
fn write(database: &Database, number: u64, stop: &AtomicBool, written: &AtomicU64) {
    let mut random = Random::new(number);
    let mut session = connect_when_up(database);
    let mut step = 0;
    while !stop.load(Ordering::Relaxed) {
        let conversation = 2 * random.below(4_000) as u64 + number;
        let of_it = format!("conversation_id = 'c{conversation}' AND tenant_id = 'tenant {}'", conversation % 200);
        step += 1;
        let id = 10_000_000 * (number + 1) + step;
        let change = match random.below(4) {
            0 => format!("UPDATE messages SET kind = 'exchange' WHERE {of_it} AND id % 20000 < 1000"),
            1 => format!(
                "UPDATE messages SET created_at = created_at + interval '7 min' WHERE {of_it} AND id % 40000 > 19000"
            ),
            2 => format!(
                "INSERT INTO messages (id, tenant_id, conversation_id, kind)
                 VALUES ({id}, 'tenant {}', 'c{conversation}', 'visit')",
                conversation % 200
            ),
            _ => format!(
                "INSERT INTO messages (id, tenant_id, conversation_id, kind, created_at)
                 SELECT {id}, 'tenant {}', 'new {number}', 'exchange', timestamptz '2026-01-10' + {} * interval '1 s'",
                conversation % 200,
                random.below(400_000)
            ),
        };
        match session.client.batch_execute(&change) {
            Ok(()) => drop(written.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                assert!(is_crash(&error), "{error:?}");
                session = connect_when_up(database);
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Tells the clients to stop, also when the test fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Kills a server process, and says whether it was there.
fn kill(pid: &str) -> bool {
    Command::new("sh").args(["-c", "kill -KILL \"$1\"", "sh", pid]).status().expect("a shell").success()
}

/// How far the backfill had come, once the server has recovered.
fn stage(database: &Database) -> Vec<String> {
    let mut found = None;
    crash::wait_until("the server has recovered", || {
        let mut session = connect_when_up(database);
        let query = "SELECT stage || ' ' || conversations FROM talkmeter.backfill_run";
        found = session.client.query(query, &[]).ok();
        found.is_some()
    });
    found.expect("an answer").iter().map(|row| row.get(0)).collect()
}

#[test]
fn killed_again_and_again_beside_clients_it_ends_with_what_live_metering_gives() {
    let _alone = alone();
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    let rows = if at_length() { 1_000_000 } else { 100_000 };
    let (database, mut session) = with_small_plan();
    session.run(&insert(rows));
    attach_some(&mut session);
    const CALL: &str = "CALL talkmeter.backfill('messages', '-infinity', '2026-10-01', batch => 100)";
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let (mut stages, mut hits) = (Vec::new(), 0);
    thread::scope(|scope| {
        let _stop = Stop(&stop);
        for number in 0..2 {
            let (database, stop, written) = (&database, &stop, &written);
            scope.spawn(move || write(database, number, stop, written));
        }
        for round in 0..5 {
            let (mut worker, mut watcher) = (connect_when_up(&database), connect_when_up(&database));
            let pid = worker.pid().to_string();
            let work = scope.spawn(move || worker.client.batch_execute(CALL));
            let conversations = rows as usize / 20;
            let goal = round * conversations / 5 + random.below(conversations / 5);
            let counted = format!("SELECT count(*) FROM talkmeter.backfill_run WHERE conversations >= {goal}");
            crash::wait_until("it has come so far", || work.is_finished() || watcher.line(&counted) == "1");
            hits += usize::from(kill(&pid));
            if work.join().expect("a thread").is_err() {
                // Until it knows of the death, the server takes sessions that it then ends.
                crash::wait_until("the server has ended all sessions", || watcher.client.simple_query("").is_err());
            }
            stages.extend(stage(&database));
        }
        connect_when_up(&database).run(CALL);
    });
    assert!(hits > 1, "it was over each time");
    println!("killed at {stages:?}, {} changes beside it", written.load(Ordering::Relaxed));
    crash::wait_until("it is up", || database.try_connect().is_ok());
    let mut session = database.connect();
    session.run(CALL);
    assert_eq!(session.lines("SELECT * FROM talkmeter.gaps('messages')"), [""; 0]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.quarantine"), [""; 0]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.uncharged"), [""; 0]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.backfill_run"), [""; 0]);
    assert_eq!(
        session.lines("SELECT * FROM talkmeter.alerts WHERE NOT muted AND period_start < '2026-10-01'"),
        [""; 0]
    );
    assert_as_live(&mut session);
}

/// Parts and charges are those of the same rows, as they are by now, metered as they come.
fn assert_as_live(session: &mut Session) {
    session.run(
        "CREATE TABLE metered AS SELECT tenant, conversation, status, started_at, ended_at, charged_at, message_count FROM talkmeter.parts;
         CREATE TABLE billed AS SELECT tenant, period_start, tier, sum(sign) AS units, sum(amount) AS amount
             FROM talkmeter.charges, LATERAL (SELECT CASE WHEN reverses IS NULL THEN 1 ELSE -1 END AS sign) AS s
             GROUP BY 1, 2, 3 HAVING sum(sign) > 0;
         SELECT talkmeter.detach('messages');
         CREATE TABLE live (LIKE messages INCLUDING ALL)",
    );
    // The same rows under another name of their tenants.
    session.run(&format!(
        "SELECT talkmeter.attach('live', 'lutingenie', '{}', default_plan => 'some')",
        messages_mapping()
    ));
    session.run("INSERT INTO live SELECT id, 'live ' || tenant_id, conversation_id, created_at, kind FROM messages");
    session.run("SELECT talkmeter.sweep()");
    let differ = session.lines(
        "(TABLE metered EXCEPT ALL SELECT substr(tenant, 6), conversation, status, started_at, ended_at, charged_at, message_count
             FROM talkmeter.parts WHERE tenant LIKE 'live %')
         UNION ALL
         (SELECT substr(tenant, 6), conversation, status, started_at, ended_at, charged_at, message_count
             FROM talkmeter.parts WHERE tenant LIKE 'live %' EXCEPT ALL TABLE metered)",
    );
    assert_same_rows(&differ, &[]);
    let differ = session.lines(
        "(TABLE billed EXCEPT SELECT substr(tenant, 6), period_start, tier, count(*), sum(amount) FROM talkmeter.charges
             WHERE tenant LIKE 'live %' GROUP BY 1, 2, 3)
         UNION ALL
         (SELECT substr(tenant, 6), period_start, tier, count(*), sum(amount) FROM talkmeter.charges
             WHERE tenant LIKE 'live %' GROUP BY 1, 2, 3 EXCEPT TABLE billed)",
    );
    assert_same_rows(&differ, &[]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}
