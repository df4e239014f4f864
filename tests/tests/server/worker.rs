//! Does the worker sweep and reconcile wherever the extension is, whatever happens to server and database (rule 3.6.8)?

use postgres::error::SqlState;
use std::thread;
use std::time::{Duration, Instant};
use talkmeter_tests::private::Server;
use talkmeter_tests::{PLAN, Session, attach, create_messages, messages_mapping};

const PRELOADED: [&str; 2] = ["shared_preload_libraries = 'talkmeter'", "talkmeter.sweep_interval = '1s'"];

/// A session in a new database whose `messages` are metered.
fn metered(server: &Server, database: &str) -> Session {
    let mut session = server.create(database);
    create_messages(&mut session);
    attach(&mut session, "messages", "agent_red", PLAN, &messages_mapping());
    session
}

/// Inserts an exchange of two hours ago, which time ended half an hour later.
fn insert_due(session: &mut Session, conversation: &str) {
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
         VALUES ('acme', '{conversation}', date_trunc('second', now()) - interval '2 hours', 'exchange')"
    ));
}

/// What is written down of a conversation's end.
fn end(conversation: &str) -> String {
    format!(
        "SELECT p.end_reason, p.ended_at - p.last_activity_at FROM talkmeter.part AS p
         WHERE p.conversation = '{conversation}' AND p.ended_at IS NOT NULL"
    )
}

const ENDED: &str = "idle|00:30:00";

/// Says that databases were made: otherwise they are looked for once a minute.
fn look(session: &mut Session) {
    session.run("SELECT pg_reload_conf()");
}

fn wait_until_served(session: &mut Session) {
    session.wait_for("SELECT count(*) FROM talkmeter.sweepers WHERE pid IS NOT NULL", "1");
}

#[test]
fn a_preloaded_worker_ends_what_time_has_ended_in_ten_databases_at_once() {
    let server = Server::with(&PRELOADED);
    let mut sessions: Vec<Session> = (0..10).map(|number| metered(&server, &format!("d{number}"))).collect();
    look(&mut sessions[0]);
    sessions.iter_mut().for_each(wait_until_served);
    let started = Instant::now();
    sessions.iter_mut().for_each(|session| insert_due(session, "c"));
    sessions.iter_mut().for_each(|session| session.wait_for(&end("c"), ENDED));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    for session in &mut sessions {
        assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
        assert_eq!(
            session.lines("SELECT problem FROM talkmeter.health() UNION SELECT problem FROM talkmeter.verify()").len(),
            0
        );
        // The day before, once a day.
        session
            .wait_for("SELECT s.reconciled = (now() AT TIME ZONE 'UTC')::date - 1 FROM talkmeter.sweepers AS s", "t");
        assert_eq!(
            session.line(
                "SELECT tenant, day = (now() AT TIME ZONE 'UTC')::date - 1, flagged FROM talkmeter.reconciliations"
            ),
            "acme|t|f"
        );
    }
    println!("ten databases: {took:?}");
}

#[test]
fn a_database_that_is_served_can_be_dropped_copied_and_renamed_and_the_extension_dropped() {
    let server = Server::with(&PRELOADED);
    let mut served = metered(&server, "served");
    look(&mut served);
    wait_until_served(&mut served);
    drop(served);
    let mut administrator = server.connect("postgres");
    for statement in
        ["CREATE DATABASE copied TEMPLATE served", "ALTER DATABASE served RENAME TO renamed", "DROP DATABASE renamed"]
    {
        let started = Instant::now();
        administrator.run(statement);
        assert!(started.elapsed() < Duration::from_secs(4), "{statement}: {:?}", started.elapsed());
    }
    look(&mut administrator);
    let mut copied = server.connect("copied");
    insert_due(&mut copied, "c");
    copied.wait_for(&end("c"), ENDED);
    for statement in ["DROP TABLE messages", "SELECT talkmeter.sweep()", "DROP EXTENSION talkmeter"] {
        copied.run(statement);
    }
    thread::sleep(Duration::from_secs(3));
    assert_eq!(
        copied.line("SELECT count(*) FROM pg_locks WHERE objsubid = 77"),
        "0",
        "nobody serves what is not there"
    );
    copied.run("CREATE EXTENSION talkmeter");
    look(&mut copied);
    wait_until_served(&mut copied);
    let log = server.log();
    assert!(!log.contains("ERROR") && !log.contains("WARNING") && !log.contains("does not exist"), "{log}");
}

/// Makes each pass of the worker last for a minute, or until it is ended.
fn slow_down(session: &mut Session) {
    session.run(
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(60); RETURN NEW; END $$;
         CREATE TRIGGER slowly BEFORE INSERT OR UPDATE ON talkmeter.sweeper FOR EACH ROW
             WHEN (NEW.sweeper = 'worker') EXECUTE FUNCTION slowly()",
    );
    insert_due(session, "slow");
}

const AT_WORK: &str =
    "SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'talkmeter worker' AND wait_event = 'PgSleep'";

#[test]
fn a_pass_that_lasts_gives_way_to_whoever_wants_the_database_for_himself() {
    let server = Server::with(&PRELOADED);
    let mut served = metered(&server, "served");
    let mut administrator = server.connect("postgres");
    slow_down(&mut served);
    look(&mut served);
    drop(served);
    administrator.wait_for(AT_WORK, "t");
    let started = Instant::now();
    administrator.run("CREATE DATABASE copied TEMPLATE served");
    administrator.wait_for(AT_WORK, "t");
    administrator.run("DROP DATABASE served");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

fn kill(pid: &str) {
    let killed = std::process::Command::new("kill").args(["-9", pid]).status().expect("kill");
    assert!(killed.success());
}

#[test]
fn a_launcher_or_a_worker_that_is_killed_and_a_restart_cost_no_more_than_an_interval() {
    let server = Server::with(&PRELOADED);
    let mut session = metered(&server, "served");
    look(&mut session);
    wait_until_served(&mut session);
    let launcher = session.line("SELECT pid FROM talkmeter.sweepers WHERE pid IS NOT NULL");
    kill(&launcher);
    // As with any process that shares the server's memory, all sessions end.
    let mut session = server.connect("served");
    while session.client.simple_query("SELECT").is_err() || session.lines("SELECT 1") != ["1"] {
        session = server.connect("served");
    }
    wait_until_served(&mut session);
    assert_ne!(session.line("SELECT pid FROM talkmeter.sweepers WHERE pid IS NOT NULL"), launcher);
    insert_due(&mut session, "after launcher");
    session.wait_for(&end("after launcher"), ENDED);
    slow_down(&mut session);
    session.run("UPDATE talkmeter.sweeper SET swept_at = '-infinity' WHERE sweeper = 'session'");
    session.run("DELETE FROM talkmeter.sweeper WHERE sweeper = 'worker'");
    session.wait_for(AT_WORK, "t");
    kill(
        &session.line(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'talkmeter worker' AND wait_event = 'PgSleep'",
        ),
    );
    thread::sleep(Duration::from_millis(500));
    let mut session = server.connect("served");
    session.run("DROP TRIGGER slowly ON talkmeter.sweeper");
    session.wait_for(&end("slow"), ENDED);
    drop(session);
    server.stop("fast");
    server.start();
    let mut session = server.connect("served");
    insert_due(&mut session, "after restart");
    session.wait_for(&end("after restart"), ENDED);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()").len(), 0);
}

#[test]
fn whoever_ends_the_launcher_gets_a_new_one() {
    let server = Server::with(&PRELOADED);
    let mut session = server.create("served");
    look(&mut session);
    wait_until_served(&mut session);
    let pid = session.line("SELECT pid FROM talkmeter.sweepers");
    session.run(&format!("SELECT pg_terminate_backend({pid})"));
    session.wait_for(&format!("SELECT count(*) FROM talkmeter.sweepers WHERE pid <> {pid}"), "1");
}

#[test]
fn an_error_in_one_database_is_said_once_stops_no_other_and_is_got_over() {
    let server = Server::with(&PRELOADED);
    let (mut broken, mut whole) = (metered(&server, "broken"), metered(&server, "whole"));
    broken.run("ALTER TABLE talkmeter.quarantined RENAME COLUMN occurred_at TO hidden");
    look(&mut broken);
    broken.wait_for("SELECT problem FROM talkmeter.health() WHERE problem = 'worker_failed'", "worker_failed");
    let error = broken.line("SELECT error_code, error FROM talkmeter.sweepers");
    assert_eq!(error, "42703|column q.occurred_at does not exist");
    insert_due(&mut whole, "c");
    whole.wait_for(&end("c"), ENDED);
    thread::sleep(Duration::from_secs(4));
    let told = server.log().matches("talkmeter's worker in database \"broken\": column q.occurred_at").count();
    assert_eq!(told, 1, "{}", server.log());
    broken.run("ALTER TABLE talkmeter.quarantined RENAME COLUMN hidden TO occurred_at");
    insert_due(&mut broken, "c");
    broken.wait_for(&end("c"), ENDED);
    assert_eq!(broken.line("SELECT failed_since, error FROM talkmeter.sweepers"), "|");
    // Said when the pass has ended.
    thread::sleep(Duration::from_secs(2));
    assert!(server.log().contains("talkmeter's worker goes on in database \"broken\""), "{}", server.log());
}

#[test]
fn the_worker_serves_the_databases_that_are_named() {
    let server = Server::with(&PRELOADED);
    server.set(&["talkmeter.databases = 'two, \"three\"'"]);
    let mut one = metered(&server, "one");
    let mut others = ["two", "three"].map(|name| metered(&server, name));
    look(&mut one);
    others.iter_mut().for_each(wait_until_served);
    server.set(&["talkmeter.databases = 'one'"]);
    look(&mut one);
    wait_until_served(&mut one);
    for other in &mut others {
        other.wait_for("SELECT count(*) FROM talkmeter.sweepers WHERE pid IS NOT NULL", "0");
    }
}

#[test]
fn a_standby_is_idle_and_sweeps_once_it_is_promoted() {
    let server = Server::with(&[PRELOADED[0], PRELOADED[1], "talkmeter.databases = ''"]);
    let mut session = metered(&server, "served");
    insert_due(&mut session, "c");
    let standby = server.standby(&["talkmeter.databases = '*'"]);
    let mut reader = standby.connect("served");
    thread::sleep(Duration::from_secs(3));
    assert_eq!(reader.lines(&end("c")).len(), 0);
    assert_eq!(reader.lines("SELECT backend_type FROM pg_stat_activity WHERE backend_type ~ 'talkmeter'").len(), 0);
    assert_eq!(reader.refused("SELECT talkmeter.start_worker()"), SqlState::READ_ONLY_SQL_TRANSACTION);
    standby.promote();
    let mut promoted = standby.connect("served");
    promoted.wait_for(&end("c"), ENDED);
    assert_eq!(session.lines(&end("c")).len(), 0, "nobody serves the old one");
}

#[test]
fn without_preload_start_worker_starts_one_until_the_server_restarts() {
    let server = Server::with(&["talkmeter.sweep_interval = '1s'", "max_worker_processes = 5"]);
    let mut session = metered(&server, "served");
    insert_due(&mut session, "c");
    let started = session.line("SELECT * FROM talkmeter.start_worker()");
    let pid = started.strip_prefix("t|").expect("it was started").to_owned();
    assert_eq!(session.line("SELECT * FROM talkmeter.start_worker()"), format!("f|{pid}"), "one is enough");
    session.wait_for(&end("c"), ENDED);
    assert_eq!(session.line("SELECT sweeper, pid FROM talkmeter.sweepers"), format!("worker|{pid}"));
    // Another database has one of its own.
    let mut other = server.create("other");
    let other_pid = other.line("SELECT pid FROM talkmeter.start_worker()");
    assert_ne!(other_pid, pid);
    // It can be ended, and goes when its database goes.
    session.run(&format!("SELECT pg_terminate_backend({pid})"));
    session.wait_for("SELECT count(*) FROM talkmeter.sweepers WHERE pid IS NOT NULL", "0");
    drop(other);
    session.run("DROP DATABASE other");
    look(&mut session);
    session.wait_for(&format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {other_pid}"), "0");
    assert_eq!(session.line("SELECT started FROM talkmeter.start_worker()"), "t");
    drop(session);
    server.stop("fast");
    server.start();
    assert_eq!(server.connect("served").lines("SELECT pid FROM talkmeter.sweepers WHERE pid IS NOT NULL").len(), 0);
}

#[test]
fn that_the_server_has_no_free_process_is_said() {
    // One is taken by the server's own launcher of logical replication.
    let server = Server::with(&["max_worker_processes = 2"]);
    let mut session = metered(&server, "served");
    assert_eq!(session.line("SELECT started FROM talkmeter.start_worker()"), "t");
    let mut other = server.create("other");
    assert_eq!(other.refused("SELECT talkmeter.start_worker()"), SqlState::CONFIGURATION_LIMIT_EXCEEDED);
    thread::sleep(Duration::from_secs(2));
    assert_eq!(
        server.log().matches("the server has no free process for talkmeter's worker").count(),
        2,
        "{}",
        server.log()
    );
}

#[test]
fn whoever_sweeps_beside_the_worker_does_no_harm() {
    let server = Server::with(&PRELOADED);
    let mut session = metered(&server, "served");
    look(&mut session);
    wait_until_served(&mut session);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut cron = server.connect("served");
                (0..60).for_each(|_| cron.run("SELECT talkmeter.sweep()"));
                cron.run("SELECT talkmeter.reconcile(current_date - 1)");
            });
        }
        for number in 0..200 {
            insert_due(&mut session, &format!("c{number}"));
        }
    });
    session.wait_for("SELECT count(*) FROM talkmeter.part WHERE ended_at IS NULL", "0");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "200");
    assert_eq!(
        session.lines("SELECT problem FROM talkmeter.verify() UNION SELECT problem FROM talkmeter.health()").len(),
        0
    );
    let sweepers = session
        .lines("SELECT sweeper, role, swept_at > now() - interval '1 minute' FROM talkmeter.sweepers ORDER BY 1");
    assert_eq!(sweepers[0], "session|postgres|t");
    let log = server.log();
    assert!(!log.contains("ERROR") && !log.contains("WARNING"), "{log}");
}

#[test]
fn a_cron_beside_the_worker_does_no_harm_and_both_are_named() {
    let server = Server::with(&[
        "shared_preload_libraries = 'talkmeter, pg_cron'",
        "talkmeter.sweep_interval = '1s'",
        "cron.use_background_workers = on",
        "max_worker_processes = 20",
    ]);
    let mut session = metered(&server, "d");
    look(&mut session);
    wait_until_served(&mut session);
    insert_due(&mut session, "before");
    let mut cron = server.connect("postgres");
    cron.run(
        "CREATE EXTENSION pg_cron;
         SELECT cron.schedule_in_database('sweep', '* * * * *', 'SELECT talkmeter.sweep()', 'd')",
    );
    // pg_cron begins with the next minute.
    let started = Instant::now();
    let mut inserted = 0;
    while cron.line("SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'") == "0" {
        assert!(started.elapsed() < Duration::from_secs(90), "{:?}", cron.lines("TABLE cron.job_run_details"));
        insert_due(&mut session, &format!("c{inserted}"));
        inserted += 1;
        thread::sleep(Duration::from_millis(200));
    }
    let ended = "SELECT count(*), count(DISTINCT p.conversation), count(*) FILTER (
            WHERE p.end_reason = 'idle' AND p.ended_at - p.last_activity_at = '30 minutes')
        FROM talkmeter.part AS p WHERE p.ended_at IS NOT NULL";
    session.wait_for(ended, &[inserted + 1; 3].map(|count| count.to_string()).join("|"));
    assert_eq!(session.lines("SELECT sweeper FROM talkmeter.sweepers ORDER BY 1"), ["session", "worker"]);
    assert_eq!(
        session.lines("SELECT problem FROM talkmeter.health() UNION SELECT problem FROM talkmeter.verify()").len(),
        0
    );
}
