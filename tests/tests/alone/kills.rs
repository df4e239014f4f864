//! Is everything metered once, or not there, wherever kill -9 meets a COPY, a COMMIT, a backfill, a finalization or an archive?
//!
//! Each cycle has an operation, a process to kill and an instant. 15 cycles; at length, 1,000.

use crate::alone;
use crate::crash::{
    History, Writer, check_that_charges_came_with_messages, check_that_messages_and_charges_agree, is_crash, kill,
    meter_messages, try_kill, wait_until,
};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use talkmeter_tests::private::Server;
use talkmeter_tests::{Random, Session, at_length};

/// Rows of one operation, half of them replies of the AI's.
const ROWS: usize = 2_000;
/// Cycles in one database: what is checked after each of them grows with it.
const CYCLES_OF_A_DATABASE: usize = 15;

/// How long it takes at most until clients learn of a crash.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is killed, in SQL. `ROWS_OF_IT` are the rows of this cycle, and `CYCLE` is its number.
struct Operation {
    name: &'static str,
    /// Committed before.
    before: &'static str,
    /// What is killed somewhere.
    work: &'static str,
    /// What an operator does once the server is up again.
    after: &'static str,
}

const NOT_SEEN: &str = "SET session_replication_role = replica; INSERT INTO messages ROWS_OF_IT";
const INSERT: &str = "INSERT INTO messages ROWS_OF_IT";
const FINALIZE: &str = "SELECT talkmeter.finalize('op CYCLE', '2026-03-01')";
const FINALIZE_UNLESS_DONE: &str = "SELECT talkmeter.finalize('op CYCLE', '2026-03-01') WHERE NOT EXISTS (
    SELECT FROM talkmeter.usage_history WHERE tenant = 'op CYCLE' AND finalized_at IS NOT NULL)";
const COPY: &str = "COPY messages FROM PROGRAM 'cat PLACE/CYCLE.csv' (FORMAT csv)";
const WRITE_DOWN: &str = "COPY (ROWS_OF_IT) TO 'PLACE/CYCLE.csv' (FORMAT csv)";
const COMMIT: &str = "BEGIN; INSERT INTO messages ROWS_OF_IT; COMMIT";
const BACKFILL: &str = "CALL talkmeter.backfill('messages', '2026-03-01', '2026-03-02', batch => 100)";
const CLOSE: &str = "INSERT INTO messages ROWS_OF_IT; SELECT talkmeter.finalize('op CYCLE', '2026-03-01')";
const ARCHIVE: &str = "CALL talkmeter.archive(now(), batch => 50)";

/// A line for each.
const OPERATIONS: [Operation; 5] = [
    Operation { name: "COPY", before: WRITE_DOWN, work: COPY, after: "" },
    Operation { name: "COMMIT", before: "", work: COMMIT, after: "" },
    Operation { name: "backfill", before: NOT_SEEN, work: BACKFILL, after: BACKFILL },
    Operation { name: "finalize", before: INSERT, work: FINALIZE, after: FINALIZE_UNLESS_DONE },
    Operation { name: "archive", before: CLOSE, work: ARCHIVE, after: ARCHIVE },
];

#[derive(Clone, Copy, Debug)]
enum Victim {
    Backend,
    Worker,
    Postmaster,
}

/// The numbers of the rows of a cycle; other clients have positive ones.
fn ids(cycle: usize) -> Vec<i64> {
    (0..ROWS).map(|row| -((cycle * ROWS + row + 10) as i64)).collect()
}

fn filled_in(sql: &str, server: &Server, cycle: usize) -> String {
    let rows = format!(
        "SELECT -(n + {}), 'op {cycle}', 'op {cycle} ' || n / 2,
             '2026-03-01 10:00+00'::timestamptz + n % 2 * interval '1 min' + n / 2 * interval '1 s',
             CASE n % 2 WHEN 0 THEN 'customer_message' ELSE 'ai_reply' END, false
         FROM generate_series(0, {ROWS} - 1) AS n",
        cycle * ROWS + 10
    );
    sql.replace("ROWS_OF_IT", &rows).replace("CYCLE", &cycle.to_string()).replace("PLACE", server.directory())
}

/// A server that stays, and a database of some cycles.
struct Scene<'s> {
    server: &'s Server,
    database: String,
    history: History,
    /// The tenants whose charges were written after their messages: by a backfill, or when they were moved.
    written_later: Vec<String>,
}

/// What came of the cycles of an operation.
#[derive(Default, Debug)]
struct Ends {
    within: usize,
    over: usize,
}

impl Scene<'_> {
    fn connect(&self) -> Session {
        self.server.connect_after_crash(&self.database)
    }

    fn prepare(&mut self, session: &mut Session, operation: &Operation, cycle: usize) {
        session.run(&filled_in(operation.before, self.server, cycle));
        session.run("RESET session_replication_role");
        if ["backfill", "finalize", "archive"].contains(&operation.name) {
            self.written_later.push(format!("op {cycle}"));
        }
    }

    /// How long an operation takes if nobody disturbs it; also done before the first kill.
    fn undisturbed(&mut self, operation: &Operation, cycle: usize) -> Duration {
        let mut session = self.connect();
        self.prepare(&mut session, operation, cycle);
        let started = Instant::now();
        session.run(&filled_in(operation.work, self.server, cycle));
        self.history.acknowledged.extend(ids(cycle));
        started.elapsed()
    }

    /// Runs an operation beside two clients, kills, and checks.
    fn cycle(&mut self, operation: &Operation, victim: Victim, cycle: usize, delay: Duration, seed: usize) -> bool {
        let mut session = self.connect();
        self.prepare(&mut session, operation, cycle);
        let writes = ["COPY", "COMMIT"].contains(&operation.name);
        let pid = process(&mut session, self.server, victim);
        let committed = AtomicUsize::new(0);
        let mut writers: Vec<Writer> =
            (0..2).map(|n| Writer::new(self.connect(), format!("{cycle}-{n}"), seed + n)).collect();
        let work = filled_in(operation.work, self.server, cycle);
        let done = thread::scope(|scope| {
            let writing: Vec<_> =
                writers.iter_mut().map(|writer| scope.spawn(|| writer.write_until_crash(&committed))).collect();
            wait_until("the clients write", || committed.load(Ordering::Relaxed) >= 4);
            // The session goes on after its work: it is there to be killed.
            let working = scope.spawn(move || {
                let done = session.client.batch_execute(&work);
                (session, done)
            });
            thread::sleep(delay);
            let killed = Instant::now();
            let is_crash = || writing.iter().all(|client| client.is_finished());
            if try_kill(&pid) {
                while !is_crash() && killed.elapsed() < PATIENCE {
                    thread::sleep(Duration::from_millis(10));
                }
            }
            // A worker may have ended by itself since; the clients write until there is a crash.
            if !is_crash() {
                println!("{victim:?} {pid} had ended: cycle {cycle}");
                kill(&self.server.postmaster());
            }
            working.join().expect("a thread").1
        });
        if let Err(error) = &done {
            assert!(is_crash(error), "{}: {error:?}", operation.name);
        }
        self.history.extend(writers.into_iter().map(|writer| writer.history).collect());
        match (writes, &done) {
            (true, Err(_)) => self.history.in_doubt.push(ids(cycle)),
            _ => self.history.acknowledged.extend(ids(cycle)),
        }
        done.is_err()
    }

    fn check(&mut self, operation: &Operation, cycle: usize) {
        let mut session = self.connect();
        if !operation.after.is_empty() {
            session.run(&filled_in(operation.after, self.server, cycle));
        }
        if operation.name == "finalize" {
            let finalized = format!(
                "SELECT count(*) FROM talkmeter.usage_history
                 WHERE tenant = 'op {cycle}' AND finalized_at IS NOT NULL"
            );
            assert_eq!(session.line(&finalized), "1", "once finalized");
        }
        if operation.name == "archive" {
            let left = format!("SELECT count(*) FROM ONLY talkmeter.charge WHERE tenant = 'op {cycle}'");
            assert_eq!(session.line(&left), "0", "all moved");
        }
        self.history.check_that_what_was_acknowledged_is_there(&mut session);
        check_that_messages_and_charges_agree(&mut session);
        check_that_charges_came_with_messages(&mut session, &self.written_later);
    }
}

fn process(session: &mut Session, server: &Server, victim: Victim) -> String {
    match victim {
        Victim::Backend => session.pid().to_string(),
        Victim::Worker => {
            session.wait_for("SELECT count(*) FROM talkmeter.sweepers WHERE pid IS NOT NULL", "1");
            session.line("SELECT pid FROM talkmeter.sweepers WHERE pid IS NOT NULL")
        }
        Victim::Postmaster => server.postmaster(),
    }
}

#[test]
fn kill_9_of_a_backend_the_worker_or_the_server_loses_doubles_and_invents_nothing() {
    let _alone = alone();
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    let cycles = if at_length() { 1_000 } else { 15 };
    let server = Server::with(&[
        "shared_preload_libraries = 'talkmeter'",
        "talkmeter.sweep_interval = '1s'",
        "track_commit_timestamp = on",
    ]);
    let mut ends: Vec<Ends> = OPERATIONS.iter().map(|_| Ends::default()).collect();
    for first in (0..cycles).step_by(CYCLES_OF_A_DATABASE) {
        let database = format!("kills_{first}");
        let mut made = server.create(&database);
        meter_messages(&mut made);
        made.run("SELECT pg_reload_conf()");
        drop(made);
        let mut scene = Scene { server: &server, database, history: History::default(), written_later: vec![] };
        let durations: Vec<Duration> = (0..OPERATIONS.len())
            .map(|number| scene.undisturbed(&OPERATIONS[number], 1_000_000 + first + number))
            .collect();
        for cycle in first..cycles.min(first + CYCLES_OF_A_DATABASE) {
            let number = cycle % OPERATIONS.len();
            let victim = [Victim::Backend, Victim::Worker, Victim::Postmaster][cycle / OPERATIONS.len() % 3];
            let delay = durations[number].mul_f64(random.below(1_200) as f64 / 1_000.0);
            let within = scene.cycle(&OPERATIONS[number], victim, cycle, delay, random.below(1 << 40));
            scene.check(&OPERATIONS[number], cycle);
            ends[number].within += usize::from(within);
            ends[number].over += usize::from(!within);
        }
        let mut administrator = server.connect_after_crash("postgres");
        administrator.run(&format!("DROP DATABASE {} WITH (FORCE)", scene.database));
    }
    for (operation, ends) in OPERATIONS.iter().zip(&ends) {
        println!("{}: {ends:?}", operation.name);
        assert!(ends.within > 0, "{} was over each time: TALKMETER_SEED={seed}", operation.name);
    }
}
