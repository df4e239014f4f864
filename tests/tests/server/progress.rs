//! Can somebody else see how far long work has come (rule 5)?

use postgres::error::SqlState;
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};
use talkmeter_tests::{Database, Session};

const NOTHING: [&str; 0] = [];
const CONVERSATIONS: u32 = 20_000;
const SIMULATE: &str = "SELECT * FROM talkmeter.simulate('agent_red', NULL, '2026-03-01', '2026-03-02')";
const RECONCILE: &str = "SELECT talkmeter.reconcile('2026-03-01')";

/// A database in which this many conversations took place on one day.
fn busy_day() -> (Database, Session) {
    let database = Database::with_messages("progress", "lutingenie", Some("agent_red/starter"));
    let mut session = database.connect();
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', n::text, '2026-03-01 10:00+00', 'visit' FROM generate_series(1, {CONVERSATIONS}) AS n"
    ));
    session.run("ANALYZE");
    (database, session)
}

const PROGRESS: &str = "SELECT pid, work, done, total, unit, database = current_database(), usename = current_user,
    started_at <= clock_timestamp() FROM talkmeter.progress";

/// What is seen of a statement of another session from its begin until it has ended.
fn watched(database: &Database, statement: &'static str) -> (i32, Vec<String>) {
    let (mut worker, mut watcher) = (database.connect(), database.connect());
    let pid = worker.pid();
    let work = thread::spawn(move || worker.run(statement));
    let mut seen = Vec::new();
    while !work.is_finished() {
        seen.extend(watcher.lines(PROGRESS));
        thread::sleep(Duration::from_millis(1));
    }
    work.join().expect("the work is done");
    assert_eq!(watcher.lines(PROGRESS), NOTHING);
    (pid, seen)
}

fn shows_its_progress(work: &str, statement: &'static str) {
    let (database, _session) = busy_day();
    let (pid, seen) = watched(&database, statement);
    let mut done = Vec::new();
    for row in &seen {
        let columns: Vec<&str> = row.split('|').collect();
        let [of, is, so_many, total, unit, ours, by_us, since] = columns[..] else { panic!("{row}") };
        assert_eq!((of, is), (pid.to_string().as_str(), work));
        assert_eq!((total, unit), (CONVERSATIONS.to_string().as_str(), "conversations"));
        assert_eq!([ours, by_us, since], ["t"; 3]);
        done.push(so_many.parse::<u32>().expect("a number"));
    }
    assert!(done.is_sorted() && done.iter().all(|done| *done <= CONVERSATIONS), "{done:?}");
    let different: BTreeSet<u32> = done.into_iter().collect();
    assert!(different.len() > 1, "{different:?}");
}

#[test]
fn a_simulation_shows_how_many_conversations_it_has_folded_and_nothing_afterwards() {
    shows_its_progress("simulate", SIMULATE);
}

#[test]
fn reconciling_shows_how_many_conversations_it_has_recounted_and_nothing_afterwards() {
    shows_its_progress("reconcile", RECONCILE);
}

#[test]
fn while_it_works_the_statement_itself_can_still_be_read() {
    let (database, mut session) = busy_day();
    let mut worker = database.connect();
    let pid = worker.pid();
    let work = thread::spawn(move || {
        worker.run(SIMULATE);
        worker
    });
    let query = format!("SELECT query FROM pg_stat_activity WHERE pid = {pid}");
    let started = Instant::now();
    let mut with_progress = String::new();
    while !work.is_finished() && !with_progress.starts_with("/*") {
        with_progress = session.line(&query);
        assert!(started.elapsed() < Duration::from_secs(60));
    }
    // The session lives on, or its row would be gone.
    let _worker = work.join().expect("the work is done");
    assert!(with_progress.ends_with(SIMULATE), "{with_progress}");
    assert_eq!(session.line(&query), SIMULATE);
}

#[test]
fn work_that_was_cancelled_shows_no_progress() {
    let (_database, mut session) = busy_day();
    session.run("SET statement_timeout = 50");
    assert_eq!(session.refused(SIMULATE), SqlState::QUERY_CANCELED);
    session.run("SET statement_timeout = 0");
    assert_eq!(session.lines(PROGRESS), NOTHING);
}

#[test]
fn work_in_another_database_is_not_shown() {
    let (database, _session) = busy_day();
    let other = Database::fresh("progress");
    let mut elsewhere = other.connect();
    let mut worker = database.connect();
    let work = thread::spawn(move || worker.run(SIMULATE));
    while !work.is_finished() {
        assert_eq!(elsewhere.lines(PROGRESS), NOTHING);
    }
    work.join().expect("the work is done");
}

/// Anybody may begin a statement as talkmeter does.
#[test]
fn what_others_write_in_their_statements_does_not_break_the_view() {
    let database = Database::fresh("progress");
    let mut session = database.connect();
    let mut stranger = database.connect();
    let pid = stranger.pid();
    let forged = "/* talkmeter.simulate: 99999999999999999999 of 1 conversations */ SELECT pg_sleep(2)";
    let work = thread::spawn(move || stranger.run(forged));
    while session.line(&format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}")) != "active" {}
    session.run("SELECT * FROM talkmeter.progress");
    work.join().expect("the work is done");
}

#[test]
fn a_comment_in_a_statement_of_somebodys_is_no_progress() {
    let database = Database::fresh("progress");
    let role = database.role("forger");
    let (mut forger, mut watcher) = (database.connect_as(&role), database.connect());
    let pid = forger.pid();
    let work = thread::spawn(move || forger.run("/* talkmeter.verify: 1 of 1000000 checks */ SELECT pg_sleep(0.5)"));
    let running = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND query LIKE '/* talk%' AND state = 'active'"
    );
    while watcher.line(&running) != "1" {}
    assert_eq!(watcher.lines(PROGRESS), NOTHING);
    work.join().expect("it slept");
}
