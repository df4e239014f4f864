//! Does a sweep see to every tenant that it can, whatever is wrong with another (rule 3.6.7)? And does a long one let
//! others through?

use postgres::error::SqlState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};
use talkmeter_tests::{Random, Session, messages_mapping, metered, quoted, tell};

const NOTHING: [&str; 0] = [];

/// Conversations of tenants, each with a part that is due, and is charged when it ends.
fn due(session: &mut Session, tenants: &[&str], conversations: usize) {
    for tenant in tenants {
        session.run(&format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             SELECT '{tenant}', to_char(n, 'FM0000'), '2026-03-01 10:00+00', 'exchange' FROM generate_series(1, {conversations}) AS n"
        ));
    }
}

/// How many parts of each tenant are open, and how many charges it has, of those that are due.
fn state(session: &mut Session) -> Vec<String> {
    session.lines(
        "SELECT tenant, count(*) FILTER (WHERE ended_at IS NULL),
            (SELECT count(*) FROM talkmeter.charge AS c WHERE c.tenant = p.tenant)
         FROM talkmeter.part AS p GROUP BY tenant ORDER BY 1",
    )
}

/// Makes the charge of one conversation an error.
fn break_conversation(session: &mut Session, tenant: &str, conversation: &str) {
    session.run(&format!(
        "ALTER TABLE talkmeter.charge ADD CONSTRAINT whole CHECK ((tenant, conversation) <> ('{tenant}', '{conversation}'))"
    ));
}

fn mend(session: &mut Session) {
    session.run("ALTER TABLE talkmeter.charge DROP CONSTRAINT whole");
}

const FAILED: &str = "SELECT object, detail FROM talkmeter.health() WHERE problem = 'sweep_failed'";

#[test]
fn a_tenant_that_cannot_be_swept_keeps_no_other_waiting_and_is_named_until_it_can() {
    let (database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme", "broken", "zebra"], 3);
    break_conversation(&mut session, "broken", "0002");
    let (mut sweeper, heard) = database.connect_heard();
    assert_eq!(sweeper.sweep("now"), 6);
    assert_eq!(state(&mut session), ["acme|0|3", "broken|3|0", "zebra|0|3"]);
    let named = session.line(FAILED);
    assert!(named.starts_with("broken|") && named.contains("\"whole\" (SQLSTATE 23514)"), "{named}");
    let heard = heard.lock().expect("a list").clone();
    assert_eq!(heard.len(), 1, "{heard:?}");
    assert!(heard[0].starts_with("WARNING: 1 tenants could not be swept; \"broken\": "), "{heard:?}");
    // It has failed since then, however often.
    let since = session.line("SELECT failed_since FROM talkmeter.sweep_failure");
    sweeper.sweep("now");
    assert_eq!(session.line("SELECT failed_since FROM talkmeter.sweep_failure"), since);
    mend(&mut session);
    assert_eq!(sweeper.sweep("now"), 3);
    assert_eq!(session.lines(FAILED), NOTHING);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn of_a_tenant_with_more_conversations_than_are_folded_at_once_all_end_or_none() {
    let (_database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme", "broken", "zebra"], 1_200);
    break_conversation(&mut session, "broken", "1100");
    assert_eq!(session.sweep("now"), 2_400);
    assert_eq!(state(&mut session), ["acme|0|1200", "broken|1200|0", "zebra|0|1200"]);
    mend(&mut session);
    assert_eq!(session.sweep("now"), 1_200);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn a_conversation_that_a_prepared_transaction_holds_keeps_no_other_waiting() {
    let (_database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme", "bolt"], 3);
    session.run("BEGIN");
    tell(&mut session, "acme", "0002", "10:05 note");
    session.run("PREPARE TRANSACTION 'holds'; SET statement_timeout = '30s'");
    assert_eq!(session.sweep("now"), 5);
    assert_eq!(session.sweep("now"), 0);
    assert_eq!(session.lines(FAILED), NOTHING, "it is only locked");
    session.run("COMMIT PREPARED 'holds'");
    assert_eq!(session.sweep("now"), 1);
    assert_eq!(state(&mut session), ["acme|0|3", "bolt|0|3"]);
}

#[test]
fn a_tenant_that_a_flush_holds_keeps_no_other_waiting_although_nobody_charged_it_before() {
    let (database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme", "bolt", "zebra"], 3);
    let mut holder = database.connect();
    holder.run("BEGIN");
    tell(&mut holder, "bolt", "other", "10:00 visit");
    holder.run("SELECT talkmeter.flush()");
    session.run("SET statement_timeout = '30s'");
    assert_eq!(session.sweep("now"), 6);
    assert_eq!(state(&mut session), ["acme|0|3", "bolt|3|0", "zebra|0|3"]);
    holder.run("ROLLBACK");
    assert_eq!(session.sweep("now"), 3);
    // Now it has a row to be locked by.
    tell(&mut session, "bolt", "new", "10:00 exchange");
    holder.run("BEGIN");
    tell(&mut holder, "bolt", "other", "10:00 visit");
    holder.run("SELECT talkmeter.flush()");
    assert_eq!(session.sweep("now"), 0);
    holder.run("COMMIT");
    assert_eq!(session.sweep("now"), 1);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn rows_whose_time_has_come_wait_for_nobody_either() {
    let (database, mut session) = metered("lutingenie");
    tell(&mut session, "held", "c", "09:00 note");
    session.run("SET talkmeter.max_future = 0");
    for (tenant, conversation) in [("acme", "c"), ("broken", "c"), ("held", "c"), ("held", "free"), ("zebra", "c")] {
        session.run(&format!(
            "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
             VALUES ('{tenant}', '{conversation}', now() + interval '1 second', 'exchange')"
        ));
    }
    thread::sleep(Duration::from_millis(1_100));
    break_conversation(&mut session, "broken", "c");
    let mut holder = database.connect();
    holder.run("BEGIN");
    tell(&mut holder, "held", "c", "10:00 note");
    holder.run("SELECT talkmeter.flush()");
    session.run("SET statement_timeout = '30s'");
    session.sweep("now");
    let future = "SELECT tenant, conversation FROM talkmeter.quarantine WHERE reason = 'future' ORDER BY 1, 2";
    assert_eq!(session.lines(future), ["broken|c", "held|c"]);
    assert!(session.line(FAILED).starts_with("broken|"));
    holder.run("COMMIT");
    mend(&mut session);
    session.sweep("now");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(session.lines(FAILED), NOTHING);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charge"), "5");
}

#[test]
fn a_month_is_closed_although_another_tenant_cannot_be_swept() {
    let (_database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme", "broken"], 2);
    break_conversation(&mut session, "broken", "0001");
    session.run("SELECT talkmeter.finalize('acme', '2026-03-01')");
    assert_eq!(state(&mut session), ["acme|0|2", "broken|2|0"]);
    assert_eq!(session.refused("SELECT talkmeter.finalize('broken', '2026-03-01')"), SqlState::CHECK_VIOLATION);
    session.run("SELECT talkmeter.reconcile('2026-03-01')");
}

#[test]
fn two_sweeps_at_once_remember_what_fails_and_do_not_wait_for_each_other() {
    let (database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme", "broken"], 2);
    break_conversation(&mut session, "broken", "0001");
    let mut second = database.connect();
    second.run("SET statement_timeout = '30s'");
    session.run("BEGIN");
    session.sweep("now");
    assert_eq!(second.sweep("now"), 0);
    session.run("COMMIT");
    assert!(session.line(FAILED).starts_with("broken|"));
    assert_eq!(second.sweep("now"), 0);
    mend(&mut session);
    assert_eq!(second.sweep("now"), 2);
    assert_eq!(session.lines(FAILED), NOTHING);
}

#[test]
fn an_attach_that_is_not_committed_delays_no_sweep_no_reconcile_and_no_finalize() {
    let (database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme", "bolt"], 2);
    let table = |name: &str| format!("CREATE TABLE {name} (LIKE messages INCLUDING ALL)");
    let attach = |name: &str| {
        let mapping = quoted(&messages_mapping());
        format!("SELECT talkmeter.attach('{name}', 'lutingenie', {mapping}, 'agent_red/starter')")
    };
    session.run(&["detached", "new", "other"].map(table).join(";"));
    session.run(&attach("detached"));
    session.run("SELECT talkmeter.detach('detached'); ALTER TABLE detached RENAME kind TO sort");
    session.run("ALTER TABLE detached RENAME sort TO kind; ALTER TABLE messages RENAME kind TO sort");
    for open in [attach("new"), attach("detached"), "SELECT talkmeter.detach('messages')".to_owned()] {
        let mut clerk = database.connect();
        clerk.run(&format!("BEGIN; {open}"));
        let mut waiter = database.connect();
        waiter.run("SET statement_timeout = '20s'");
        waiter.run("SELECT talkmeter.sweep()");
        waiter.run("BEGIN; SELECT talkmeter.finalize('acme', '2026-03-01'); ROLLBACK");
        // Who drops a trigger holds off who reads the table.
        if !open.contains("detach(") {
            waiter.run("SELECT talkmeter.reconcile('2026-03-01'); SET lock_timeout = '100ms'");
            assert_eq!(waiter.refused(&attach("other")), SqlState::LOCK_NOT_AVAILABLE, "each gets a number of its own");
        }
        clerk.run("ROLLBACK");
    }
    assert_eq!(state(&mut session), ["acme|0|2", "bolt|0|2"]);
    let recorded =
        "SELECT columns @> '[{\"name\": \"sort\", \"mapped\": \"kind\"}]' FROM talkmeter.source WHERE source_id = 1";
    session.sweep("now");
    assert_eq!(session.line(recorded), "t");
}

#[test]
fn a_sweep_can_be_cancelled() {
    let (database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme"], 2);
    let mut holder = database.connect();
    holder.run("BEGIN; LOCK TABLE talkmeter.part IN ACCESS EXCLUSIVE MODE");
    session.run("SET statement_timeout = '200ms'");
    assert_eq!(session.refused("SELECT talkmeter.sweep()"), SqlState::QUERY_CANCELED);
    holder.run("ROLLBACK");
    session.run("RESET statement_timeout");
    assert_eq!(session.sweep("now"), 2);
}

#[test]
fn no_commit_deadlocks_with_a_sweep() {
    let (database, mut session) = metered("ai_resolution");
    let done = Arc::new(AtomicBool::new(false));
    let sweepers: Vec<_> = (0..2)
        .map(|_| {
            let (mut own, done) = (database.connect(), Arc::clone(&done));
            thread::spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    own.sweep("now");
                }
            })
        })
        .collect();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let mut own = database.connect();
            thread::spawn(move || {
                let mut random = Random::new(writer);
                for round in 0..60 {
                    own.run("BEGIN");
                    for _ in 0..6 {
                        let tenant = format!("t{}", random.below(8));
                        let conversation = format!("c{}", random.below(20));
                        let kind = if random.below(3) == 0 { "visit" } else { "exchange" };
                        tell(&mut own, &tenant, &conversation, &format!("{:02}:{:02} {kind}", round / 6, round % 60));
                    }
                    own.run("COMMIT");
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().expect("commits"));
    done.store(true, Ordering::Relaxed);
    sweepers.into_iter().for_each(|sweeper| sweeper.join().expect("sweeps"));
    session.sweep("now");
    assert_eq!(session.lines("SELECT reason FROM talkmeter.quarantine"), NOTHING);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.part WHERE ended_at IS NULL"), "0");
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

// --- In batches ---

#[test]
fn sweep_batches_ends_what_sweep_would_and_lets_others_through_meanwhile() {
    let (database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme", "broken", "huge"], 250);
    due(&mut session, &["huge"], 2_000);
    break_conversation(&mut session, "broken", "0100");
    // It waits for the application at the commit of its first batch at the earliest, and others see what is done.
    let mut sweeper = database.connect();
    let sweeping = thread::spawn(move || sweeper.run("CALL talkmeter.sweep_batches(batch => 100)"));
    let mut seen = false;
    let started = SystemTime::now();
    while !sweeping.is_finished() {
        seen |= session.line("SELECT count(*) BETWEEN 1 AND 2249 FROM talkmeter.charge") == "t";
        assert!(started.elapsed().is_ok_and(|time| time < Duration::from_secs(60)), "it does not end");
    }
    sweeping.join().expect("the sweep");
    assert!(seen, "nothing was seen before all was done");
    let open = session.line("SELECT count(*) FROM talkmeter.part WHERE tenant = 'broken' AND ended_at IS NULL");
    assert_eq!(open, "200", "of the tenant that fails, the batch before is done: 50 beside the last of another's");
    assert!(session.line(FAILED).starts_with("broken|"));
    mend(&mut session);
    session.run("CALL talkmeter.sweep_batches()");
    assert_eq!(session.sweep("now"), 0);
    assert_eq!(state(&mut session), ["acme|0|250", "broken|0|250", "huge|0|2000"]);
    assert_eq!(session.lines(FAILED), NOTHING);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), NOTHING);
}

#[test]
fn sweep_batches_that_ends_early_has_done_what_it_committed() {
    let (database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme"], 5_000);
    let mut sweeper = database.connect();
    let pid = sweeper.pid();
    let sweeping = thread::spawn(move || sweeper.refused("CALL talkmeter.sweep_batches(batch => 50)"));
    while session.line("SELECT count(*) > 0 FROM talkmeter.charge") != "t" && !sweeping.is_finished() {}
    let shown = session.line("SELECT work, done > 0, total, unit FROM talkmeter.progress");
    session.run(&format!("SELECT pg_cancel_backend({pid})"));
    assert_eq!(sweeping.join().expect("the sweep"), SqlState::QUERY_CANCELED);
    assert_eq!(shown, "sweep_batches|t|5000|conversations");
    let done: u64 = session.line("SELECT count(*) FROM talkmeter.charge").parse().expect("a count");
    assert!(done > 0 && done.is_multiple_of(50), "{done}");
    assert_eq!(session.sweep("now"), 5_000 - done);
}

#[test]
fn sweep_batches_is_refused_where_it_could_not_commit() {
    let (_database, mut session) = metered("ai_resolution");
    due(&mut session, &["acme"], 2);
    let refused = |session: &mut Session, sql: &str| session.refused(sql);
    assert_eq!(
        refused(&mut session, "BEGIN; CALL talkmeter.sweep_batches()"),
        SqlState::INVALID_TRANSACTION_TERMINATION
    );
    session.run("ROLLBACK");
    for (wrong, code) in [
        ("CALL talkmeter.sweep_batches(batch => 0)", SqlState::INVALID_PARAMETER_VALUE),
        ("CALL talkmeter.sweep_batches(batch => NULL)", SqlState::NULL_VALUE_NOT_ALLOWED),
        ("CALL talkmeter.sweep_batches('infinity')", SqlState::DATETIME_FIELD_OVERFLOW),
    ] {
        assert_eq!(refused(&mut session, wrong), code, "{wrong}");
    }
    assert_eq!(state(&mut session), ["acme|2|0"]);
}
