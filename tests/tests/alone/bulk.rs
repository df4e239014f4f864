//! Does one large COPY cost bounded memory, and what does it cost in time?
//!
//! A million rows; at length, ten million after them.

use crate::alone;
use std::fs::{File, read_to_string};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use talkmeter_tests::{Database, Session, at_length};

/// Private memory that metering may take above the bare COPY, in kB, however many rows there are.
const BOUND: u64 = 80 * 1024;

const TABLE: &str =
    "(id bigint PRIMARY KEY, tenant_id text, conversation_id text, created_at timestamptz, sender text, body text)";
const MAPPING: &str = r#"{"kinds": [{"when": {"sender": "user"}, "kind": "customer_message"},
    {"when": {"sender": "bot"}, "kind": "ai_reply"}]}"#;

/// A stream of messages in time order: 1,000 conversations at a time, 20 messages each, over 200 tenants.
fn write_rows(path: &Path, rows: u64) {
    let mut file = BufWriter::new(File::create(path).expect("a file beside the server"));
    for i in 0..rows {
        let (round, slot) = (i / 20_000, i % 1_000);
        let (conversation, sender) = (round * 1_000 + slot, if i / 1_000 % 2 == 0 { "user" } else { "bot" });
        let time = format!(
            "2026-01-{:02} {:02}:{:02}:{:02}+00",
            1 + i / 8_640_000,
            i / 360_000 % 24,
            i / 6_000 % 60,
            i / 100 % 60
        );
        writeln!(file, "{i},tenant-{},conversation-{conversation},{time},{sender},what was written", slot % 200)
            .expect("written");
    }
    file.flush().expect("written");
}

/// Seconds that a statement takes, and the largest private memory in kB of the process that runs it.
pub fn timed(session: &mut Session, statement: &str) -> (f64, u64) {
    let status = format!("/proc/{}/status", session.pid());
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let text = read_to_string(&status).unwrap_or_default();
                let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
                let now = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kb| kb.parse().ok());
                peak.fetch_max(now.unwrap_or(0), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let start = Instant::now();
        session.run(statement);
        done.store(true, Ordering::Relaxed);
        (start.elapsed().as_secs_f64(), peak.load(Ordering::Relaxed))
    })
}

fn copy_of(rows: u64) {
    let directory = std::env::var("TALKMETER_DIR").expect("scripts/with-cluster.sh sets it");
    let path = PathBuf::from(directory).join(format!("bulk-{rows}.csv"));
    write_rows(&path, rows);
    let database = Database::fresh("bulk");
    let mut session = database.connect();
    session.run(&format!("CREATE TABLE bare {TABLE}; CREATE TABLE metered {TABLE}"));
    session.run(&format!("SELECT talkmeter.attach('metered', 'agent_red', '{MAPPING}', 'agent_red/starter')"));
    let copy = |table: &str| format!("COPY {table} FROM '{}' WITH (FORMAT csv)", path.display());
    let (bare, low) = timed(&mut database.connect(), &copy("bare"));
    let (metered, high) = timed(&mut database.connect(), &copy("metered"));
    println!(
        "COPY of {rows} rows: bare {bare:.1} s, metered {metered:.1} s, ratio {:.2}; {} MB of private memory above the bare one",
        metered / bare,
        high.saturating_sub(low) / 1024,
    );
    assert_eq!(session.line("SELECT sum(message_count) FROM talkmeter.part"), rows.to_string());
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantined"), "0");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charge"), (rows / 20).to_string());
    std::fs::remove_file(&path).expect("removed");
    assert!(high <= low + BOUND, "{high} kB, {low} kB without metering");
}

#[test]
fn a_copy_of_many_rows_takes_bounded_memory_and_meters_every_row() {
    let _alone = alone();
    copy_of(1_000_000);
    if at_length() {
        copy_of(10_000_000);
    }
}

#[test]
fn a_transaction_that_flushes_often_gives_the_memory_of_each_flush_back() {
    let _alone = alone();
    let database = Database::with_messages("bulk", "agent_red", None);
    let loops = |flush: &str| {
        format!(
            "DO $$ BEGIN FOR i IN 1..20 LOOP
                 INSERT INTO messages (tenant_id, conversation_id, kind)
                 SELECT 'acme', i || repeat('x', 400) || j, 'note' FROM generate_series(1, 8000) AS j;
                 {flush}
             END LOOP; END $$"
        )
    };
    let (_, once) = timed(&mut database.connect(), &loops(""));
    let (_, often) = timed(&mut database.connect(), &loops("PERFORM talkmeter.flush();"));
    assert!(often <= once + BOUND, "{often} kB with flushes, {once} kB without");
}
