//! Does four times the work take about four times as long, does a cancel end it at once, and do tables stay small?
//!
//! What took the square of its size would take sixteen times as long. Other work on the machine may spoil a measure, so
//! it is repeated before it fails.

use crate::alone;
use std::thread;
use std::time::{Duration, Instant};
use talkmeter_tests::{Database, Session, at_length, metered};

const MEASURES: usize = 3;
const RATIO: f64 = 8.0;

fn timed(session: &mut Session, sql: &str) -> f64 {
    let started = Instant::now();
    session.run(sql);
    started.elapsed().as_secs_f64()
}

/// Measures some work of a size, whose name no other has, and of four times that.
fn grows_with_its_size(size: usize, mut work: impl FnMut(&str, usize) -> f64) {
    let mut times = (0.0, 0.0);
    for measure in 0..MEASURES {
        times = (work(&format!("small {measure}"), size), work(&format!("large {measure}"), 4 * size));
        if times.1 < RATIO * times.0 {
            return;
        }
    }
    panic!("{} took {:.3} s, {} took {:.3} s", size, times.0, 4 * size, times.1);
}

/// A conversation of so many parts, each a minute after the other.
fn visit(session: &mut Session, conversation: &str, parts: usize) {
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 'acme', '{conversation}', '2026-01-01 00:00+00'::timestamptz + n * interval '1 minute', 'visit'
         FROM generate_series(1, {parts}) AS n"
    ));
}

fn before_all(conversation: &str, kind: &str) -> String {
    format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', '{conversation}', '2025-12-31 00:00+00', '{kind}')"
    )
}

#[test]
fn a_late_row_before_many_parts() {
    let _alone = alone();
    let (_database, mut session) = metered("lutingenie");
    grows_with_its_size(4_000, |name, parts| {
        visit(&mut session, name, parts);
        timed(&mut session, &before_all(name, "visit"))
    });
}

#[test]
fn the_story_of_a_conversation() {
    let _alone = alone();
    let (_database, mut session) = metered("lutingenie");
    grows_with_its_size(3_000, |name, parts| {
        visit(&mut session, name, parts);
        timed(&mut session, &format!("SELECT count(*) FROM talkmeter.explain('acme', '{name}')"))
    });
}

#[test]
fn a_delete_of_rows_without_an_id_that_wait_in_quarantine() {
    let _alone = alone();
    let database = Database::fresh("nameless");
    let mut session = database.connect();
    session.run(
        r#"CREATE TABLE messages (id text UNIQUE, tenant_id text, conversation_id text, created_at timestamptz);
           SELECT talkmeter.attach('messages', 'lutingenie', '{"message_id": "id", "kinds": [{"kind": "note"}]}')"#,
    );
    grows_with_its_size(3_000, |name, rows| {
        session.run(&format!(
            "INSERT INTO messages SELECT NULL, 'acme', '{name}', '2026-01-01 00:00+00'::timestamptz + n * interval '1 s'
             FROM generate_series(1, {rows}) AS n"
        ));
        timed(&mut session, &format!("DELETE FROM messages WHERE conversation_id = '{name}'"))
    });
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
}

/// Each is listed once, in time and space that grow as their number, and `health` says how many there are.
#[test]
fn a_flood_of_rows_of_no_kind() {
    let _alone = alone();
    let (_database, mut session) = metered("lutingenie");
    let many = if at_length() { 25_000 } else { 2_500 };
    let size = "SELECT pg_total_relation_size('talkmeter.quarantined')";
    let mut spaces = Vec::new();
    let mut all = 0;
    grows_with_its_size(many, |name, rows| {
        all += rows;
        let before: i64 = session.line(size).parse().expect("a number");
        let taken = timed(
            &mut session,
            &format!(
                "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
                 SELECT 'acme', '{name}' || n % 100, '2026-01-01 00:00+00'::timestamptz + n * interval '1 s', 'unheard_of'
                 FROM generate_series(1, {rows}) AS n"
            ),
        );
        spaces.push((session.line(size).parse::<i64>().expect("a number") - before) as f64 / rows as f64);
        taken + timed(&mut session, "SELECT talkmeter.retry_quarantine()")
    });
    let (first, last) = (spaces[0], spaces[spaces.len() - 1]);
    assert!(last < 3.0 * first && last < 2_000.0, "{spaces:?} bytes for each row");
    let told = session.line("SELECT detail FROM talkmeter.health() WHERE problem = 'quarantine'");
    assert!(told.starts_with(&format!("{all} rows could not be metered: no_kind.")), "{told}");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.parts"), "0");
}

#[test]
fn marks_in_one_conversation() {
    let _alone = alone();
    let (_database, mut session) = metered("lutingenie");
    grows_with_its_size(4_000, |name, marks| {
        session.run(&before_all(name, "customer_message"));
        let mark = format!("talkmeter.mark('acme', '{name}', 'close')");
        timed(&mut session, &format!("SELECT count({mark}) FROM generate_series(1, {marks})"))
    });
}

// --- A snapshot that is held ---

const CHARGES: usize = 300;

/// Pages that a charge looks at: of so many, one a commit, of one tenant and each of a conversation of its own.
fn pages_for_each_charge(session: &mut Session, name: &str, charges: usize) -> i64 {
    let hits = "SELECT pg_stat_clear_snapshot(), blks_hit FROM pg_stat_database WHERE datname = current_database()";
    let hits = |session: &mut Session| -> i64 {
        session.run("SELECT pg_stat_force_next_flush()");
        session.line(hits).split_once('|').expect("two columns").1.parse().expect("a number")
    };
    let before = hits(session);
    session.run(&format!(
        "DO $$ BEGIN FOR n IN 1..{charges} LOOP
             INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', '{name} ' || n, 'visit');
             COMMIT;
         END LOOP; END $$"
    ));
    (hits(session) - before) / charges as i64
}

/// The snapshot keeps every version of the tenant's rows, as a dump or a report does.
#[test]
fn a_charge_under_a_snapshot_that_is_held_reads_no_more_for_those_before_it() {
    let _alone = alone();
    let (database, mut session) = metered("lutingenie");
    pages_for_each_charge(&mut session, "before", CHARGES);
    let mut report = database.connect();
    report.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM talkmeter.charges");
    let first = pages_for_each_charge(&mut session, "first", CHARGES);
    pages_for_each_charge(&mut session, "between", if at_length() { 200_000 } else { 4_000 });
    let last = pages_for_each_charge(&mut session, "last", CHARGES);
    assert!(last < first + first / 3, "{first} pages at first, {last} at last");
    report.run("COMMIT");
}

// --- Rows that are updated ---

/// A minute in which a tenth of the conversations go on, of which each tenant has twenty, by one commit. One message in ten
/// is a unit. One more tenant has twenty units, each by a commit of its own.
fn a_minute(session: &mut Session, conversations: usize, now: &str) {
    let tenants = conversations / 20;
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         SELECT 't' || 1 + n % {tenants}, 'c' || n, {now}, CASE WHEN random() < 0.1 THEN 'visit' ELSE 'exchange' END
         FROM generate_series(1, {conversations}) AS n WHERE random() < 0.1"
    ));
    session.run(&format!(
        "DO $$ BEGIN FOR n IN 1..20 LOOP
             INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES ('busy', 'c' || n, {now}, 'visit');
             COMMIT;
         END LOOP; END $$"
    ));
}

fn number(session: &mut Session, sql: &str) -> u64 {
    session.line(sql).parse().expect("a number")
}

/// How often rows of talkmeter's were updated.
fn updates(session: &mut Session) -> u64 {
    session.run("SELECT pg_stat_force_next_flush()");
    number(session, "SELECT sum(n_tup_upd) FROM pg_stat_user_tables WHERE schemaname = 'talkmeter'")
}

/// Freezes all tables of talkmeter's, and says how old the oldest was, and is.
fn ages_about_freezing(session: &mut Session) -> (u64, u64) {
    let of_all = "FROM pg_class WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'r'";
    let oldest = format!("SELECT max(age(relfrozenxid)) {of_all}");
    let before = number(session, &oldest);
    for table in session.lines(&format!("SELECT oid::regclass {of_all}")) {
        session.run(&format!("VACUUM (FREEZE) {table}"));
    }
    (before, number(session, &oldest))
}

/// Under autovacuum as a server has it from the start; a short run may have ended before it comes.
#[test]
fn tables_that_are_updated_stay_within_twice_their_size_and_can_be_frozen() {
    /// What a small table may take besides.
    const SOME: u64 = 1 << 20;
    let _alone = alone();
    let (_database, mut session) = metered("lutingenie");
    let (conversations, wanted) = if at_length() { (100_000, 10_000_000) } else { (5_000, 300_000) };
    // A plan that includes nothing: each unit is paid by a pack.
    session.run(&format!(
        "SELECT setseed(0.5);
         SELECT talkmeter.subscribe(tenant, 'ai_resolution/usage', '2026-01-01 00:00+00'),
             talkmeter.buy_pack(tenant, 'agent_red/20000', purchased_at => '2026-01-01 00:00+00')
         FROM (SELECT 'busy' UNION ALL SELECT 't' || n FROM generate_series(1, {conversations} / 20) AS n) AS each (tenant)"
    ));
    let (mut minutes, mut done) = (0, 0);
    while done < wanted {
        minutes += 1;
        let now = format!("'2026-01-01 00:00+00'::timestamptz + {minutes} * interval '1 minute'");
        a_minute(&mut session, conversations, &now);
        if minutes % 60 == 0 {
            session.run("TRUNCATE messages");
            session.run(&format!("SELECT talkmeter.sweep({now})"));
        }
        done = updates(&mut session);
    }
    let tables = session.lines(
        "SELECT relname, pg_total_relation_size(relid), n_tup_upd, n_tup_hot_upd, autovacuum_count FROM pg_stat_user_tables
         WHERE schemaname = 'talkmeter' AND n_tup_upd > 0 ORDER BY n_tup_upd DESC",
    );
    let (before, after) = ages_about_freezing(&mut session);
    println!(
        "{minutes} minutes, {done} updates; the oldest table is {before} transactions old, and {after} once frozen"
    );
    assert!(after < before / 10, "{before} transactions old, and {after} once frozen");
    for line in tables {
        let (table, found) = line.split_once('|').expect("columns");
        session.run(&format!("VACUUM FULL talkmeter.{table}"));
        let anew = number(&mut session, &format!("SELECT pg_total_relation_size('talkmeter.{table}')"));
        println!("{line}|{anew}");
        let size: u64 = found.split('|').next().and_then(|size| size.parse().ok()).expect("a size");
        assert!(size <= 2 * anew + SOME, "{table} takes {size} bytes, written anew {anew}");
    }
}

// --- Cancels ---

/// How long after a cancel the statement ends which by then has run for so long; `None` if it had ended.
fn cancelled_after(session: &mut Session, other: &mut Session, sql: &str, after: Duration) -> Option<Duration> {
    let pid = session.pid();
    thread::scope(|scope| {
        let ended = scope.spawn(|| session.client.batch_execute(sql).is_err().then(Instant::now));
        thread::sleep(after);
        let asked = Instant::now();
        other.run(&format!("SELECT pg_cancel_backend({pid})"));
        ended.join().expect("an answer").map(|ended| ended.saturating_duration_since(asked))
    })
}

#[test]
fn a_cancel_ends_a_commit_and_a_story_at_once_wherever_they_are() {
    let _alone = alone();
    let (database, mut session) = metered("lutingenie");
    visit(&mut session, "c", 20_000);
    let mut other = database.connect();
    for sql in [before_all("c", "visit"), "SELECT count(*) FROM talkmeter.explain('acme', 'c')".to_owned()] {
        let mut ended = 0;
        for millis in (20..200).step_by(20) {
            let mut waits =
                (0..MEASURES).map(|_| cancelled_after(&mut session, &mut other, &sql, Duration::from_millis(millis)));
            let at_once = waits.find(|wait| wait.is_none_or(|wait| wait < Duration::from_millis(100)));
            let Some(wait) = at_once else { panic!("it went on for 100 ms after {millis} ms: {sql}") };
            ended += usize::from(wait.is_some());
        }
        assert!(ended > 0, "never cancelled: {sql}");
    }
}
