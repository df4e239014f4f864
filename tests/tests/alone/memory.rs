//! Does the server go on where a session gets no more memory?
//!
//! Its address space is limited to what it has and some megabytes more, as the system does when memory has run out.

use crate::alone;
use postgres::error::SqlState;
use talkmeter_tests::{Database, Session, at_length};

/// Kilobytes of address space that a process has.
fn address_space(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("its size");
    line.trim().trim_end_matches(" kB").parse().expect("kilobytes")
}

/// Limits the address space of a session's process to so many bytes, or lifts the limit. The user of the server may do
/// that, and so another session does it.
fn limit(other: &mut Session, pid: i32, bytes: &str) {
    // What COPY writes is read, or a program that ends first breaks its pipe.
    other.run(&format!("COPY (SELECT) TO PROGRAM 'cat && prlimit --pid={pid} --as={bytes}:'"));
}

/// What became of a statement of a session that has so many more megabytes.
fn with_megabytes(other: &mut Session, session: &mut Session, more: u64, sql: &str) -> Result<(), SqlState> {
    let pid = session.pid();
    limit(other, pid, &((address_space(pid) << 10) + (more << 20)).to_string());
    let done = session.client.batch_execute(sql);
    limit(other, pid, "unlimited");
    done.map_err(|error| error.code().unwrap_or_else(|| panic!("{more} MB: the session ended: {error}")).clone())
}

#[test]
fn a_late_row_of_a_long_conversation_is_metered_or_waits_and_no_session_ends_whatever_memory_is_left() {
    let _alone = alone();
    let rows = if at_length() { 1_000_000 } else { 200_000 };
    let limits: &[u64] =
        if at_length() { &[0, 2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 32, 48, 96] } else { &[0, 10, 12, 96] };
    let database = Database::with_messages("memory", "agent_red", Some("agent_red/starter"));
    let mut session = database.connect();
    let insert = |from: usize, minute: &str, count: usize| {
        format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             SELECT 'acme', 'c', timestamptz '2026-03-01 {minute}+00' + n * interval '1 s', 'customer_message'
             FROM generate_series({from}, {from} + {count} - 1) AS n"
        )
    };
    session.run(&insert(0, "10:00", rows));
    let mut other = database.connect();
    let started = other.line("SELECT pg_postmaster_start_time()");
    let (mut inserted, mut failed) = (0, 0);
    for &more in limits {
        let mut session = database.connect();
        // It has done the same before, with all the memory that it wanted.
        session.run(&insert(0, "09:59", 1));
        inserted += 1;
        for (from, minute, count) in [(0, "09:58", 1), (rows, "10:01", 20_000)] {
            match with_megabytes(&mut other, &mut session, more, &insert(from, minute, count)) {
                Ok(()) => inserted += count,
                Err(code) => {
                    assert_eq!(code, SqlState::OUT_OF_MEMORY, "{more} MB");
                    failed += 1;
                }
            }
        }
        assert_eq!(other.line("SELECT pg_postmaster_start_time()"), started, "{more} MB: the server began anew");
    }
    let kept = session.line("SELECT count(*) FROM talkmeter.quarantine");
    println!("too little memory: {failed} statements failed, {kept} rows are kept in quarantine");
    assert!(failed > 0 || kept != "0", "no limit was too low");
    assert_eq!(session.line("SELECT count(*) FROM messages"), (rows + inserted).to_string());
    session.run("SELECT talkmeter.retry_quarantine()");
    assert_eq!(session.lines("SELECT reason, count(*) FROM talkmeter.quarantine GROUP BY 1"), [""; 0]);
    assert_eq!(session.line("SELECT sum(message_count) FROM talkmeter.parts"), (rows + inserted).to_string());
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}
