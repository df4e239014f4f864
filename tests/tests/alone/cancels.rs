//! Is each row metered, or not there, wherever a COMMIT is cancelled or its session ended?
//!
//! 40 commits; at length, 1,000.

use crate::alone;
use postgres::error::SqlState;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use talkmeter_tests::{Database, Random, Session, assert_same_rows, at_length};

/// One transaction: rows of several conversations, in order or late, a few of which cannot be metered. One in so many
/// is so large that its records go to a file.
fn written(random: &mut Random, round: usize) -> String {
    let (rows, padding) = if random.below(10) == 0 { (60_000, 200) } else { (1 + random.below(3_000), 1) };
    let (conversations, minute) = (1 + random.below(rows.min(500)), random.below(1_440));
    let mut sql = format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 't' || n % 7, n % {conversations} || repeat('x', {padding}),
             '2026-03-01'::timestamptz + n % 9 * interval '1 min' + interval '{minute} min',
             CASE WHEN n % 97 = 0 THEN 'unheard_of' ELSE 'exchange' END
         FROM generate_series({round}, {round} + {rows} - 1) AS n;"
    );
    if random.below(3) == 0 {
        sql += "UPDATE messages SET kind = 'note' WHERE id % 100 = 1 AND kind = 'unheard_of';";
    }
    if random.below(4) == 0 {
        sql += "SELECT talkmeter.mark('t1', '1x', 'close', '2026-03-01 12:00+00');";
    }
    sql
}

/// What became of one COMMIT.
#[derive(Default, Debug)]
struct Ends {
    committed: usize,
    cancelled: usize,
    terminated: usize,
}

/// Commits, and is disturbed after some of the time that a commit may take; says what became of it.
fn disturbed(database: &Database, operator: &mut Session, random: &mut Random, round: usize, ends: &mut Ends) {
    let mut session = database.connect();
    let pid = session.pid();
    let (terminates, part) = (random.below(2) == 0, random.below(100) as u32);
    session.run(&format!("BEGIN; {}", written(random, round)));
    let rows: u32 =
        session.line("SELECT count(*) FROM messages WHERE xmin::text = txid_current()::text").parse().expect("rows");
    let (begins, begun) = channel();
    let committing = thread::spawn(move || {
        begins.send(Instant::now()).expect("somebody waits");
        session.client.batch_execute("COMMIT")
    });
    begun.recv().expect("a beginning");
    // From nothing to more than what it takes: some 100 microseconds a row.
    thread::sleep(Duration::from_micros(u64::from(rows) * 15 * u64::from(part) / 12 + u64::from(part) * 20));
    let call = if terminates { "pg_terminate_backend" } else { "pg_cancel_backend" };
    operator.run(&format!("SELECT {call}({pid})"));
    match committing.join().expect("a commit that ends") {
        Ok(()) => ends.committed += 1,
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => ends.cancelled += 1,
        Err(error) if error.is_closed() || error.code() == Some(&SqlState::ADMIN_SHUTDOWN) => ends.terminated += 1,
        Err(error) => panic!("a commit ended in {error:?}"),
    }
    wait_until_gone(operator, pid);
}

fn wait_until_gone(operator: &mut Session, pid: i32) {
    let started = Instant::now();
    while operator.line(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}")) != "0" {
        assert!(started.elapsed() < Duration::from_secs(60), "session {pid} does not end");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn wherever_a_commit_is_cancelled_or_its_session_ended_each_row_is_metered_or_not_there() {
    let _alone = alone();
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    let database = Database::with_messages("cancels", "lutingenie", Some("agent_red/starter"));
    let mut operator = database.connect();
    let (rounds, mut ends) = (if at_length() { 1_000 } else { 40 }, Ends::default());
    for round in 0..rounds {
        disturbed(&database, &mut operator, &mut random, round, &mut ends);
        if round % 40 == 39 {
            assert_eq!(operator.lines("SELECT * FROM talkmeter.verify()"), [""; 0], "TALKMETER_SEED={seed}");
        }
    }
    println!("{rounds} commits: {ends:?}");
    assert!(ends.committed > 0 && ends.cancelled > 0 && ends.terminated > 0, "{ends:?}");
    assert_eq!(operator.lines("SELECT name FROM pg_ls_tmpdir()"), [""; 0]);
    operator.run("SELECT talkmeter.sweep()");
    let counted = operator
        .lines("SELECT tenant, conversation, sum(message_count) FROM talkmeter.part GROUP BY 1, 2 ORDER BY 1, 2");
    let there = operator.lines(
        "SELECT tenant_id, conversation_id, 2 * count(*) FROM messages WHERE kind = 'exchange'
         GROUP BY 1, 2 ORDER BY 1, 2",
    );
    assert_same_rows(&counted, &there);
    let listed = operator.lines("SELECT message_id FROM talkmeter.quarantine ORDER BY message_id::bigint");
    assert_same_rows(&listed, &operator.lines("SELECT id FROM messages WHERE kind = 'unheard_of' ORDER BY id"));
    assert_eq!(operator.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}
