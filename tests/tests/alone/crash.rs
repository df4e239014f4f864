//! Do crashes lose, invent or meter twice any message while clients write?

use crate::alone;
use postgres::error::SqlState;
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use talkmeter_tests::{Database, Random, Session, at_length, attach, create_messages, messages_mapping, variable};

#[test]
fn a_killed_backend_loses_and_doubles_nothing() {
    survive(if at_length() { 40 } else { 8 }, kill_a_backend);
}

#[test]
fn a_killed_server_loses_and_doubles_nothing() {
    survive(if at_length() { 15 } else { 4 }, kill_the_server);
}

// --- Crashes ---

fn survive(cycles: usize, crash: impl Fn(&mut Session, &mut Random)) {
    let _alone = alone();
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    let database = metered();
    let mut history = History::default();
    let mut session = database.connect();
    for cycle in 0..cycles {
        // In one cycle a prepared transaction outlives the crash.
        let prepared = cycle == 1;
        if prepared {
            session.run(
                "BEGIN;
                 INSERT INTO messages VALUES (0, 'prepared', 'c', '2026-03-01 10:00+00', 'customer_message'),
                     (-1, 'prepared', 'c', '2026-03-01 10:01+00', 'ai_reply');
                 PREPARE TRANSACTION 'outlives'",
            );
        }
        history.extend(write_until_crash(&database, cycle, &mut random, |random| crash(&mut session, random)));
        session = connect_when_up(&database);
        if prepared {
            assert_eq!(session.line("SELECT count(*) FROM messages WHERE tenant_id = 'prepared'"), "0");
            session.run("COMMIT PREPARED 'outlives'");
            history.acknowledged.extend([0, -1]);
        }
        history.check_that_what_was_acknowledged_is_there(&mut session);
        check_that_messages_and_charges_agree(&mut session);
        check_that_health_tells_the_truth(&mut session);
    }
    let tiers = session.line("SELECT string_agg(DISTINCT tier, ' ' ORDER BY tier) FROM talkmeter.charges");
    assert_eq!(tiers, "included overage pack", "what the writers used up");
    assert_eq!(session.line("SELECT count(*) > 0 FROM talkmeter.packs WHERE remaining = 0"), "t");
    println!(
        "{cycles} crashes, {} messages; {} commits unanswered, of which {} had happened",
        history.acknowledged.len(),
        history.unanswered,
        history.happened
    );
}

/// Lets clients write, crashes the server under them, and returns what they remember.
fn write_until_crash(
    database: &Database,
    cycle: usize,
    random: &mut Random,
    crash: impl FnOnce(&mut Random),
) -> Vec<History> {
    const WRITERS: usize = 4;
    let committed = AtomicUsize::new(0);
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|number| Writer::new(database.connect(), format!("{cycle}-{number}"), random.below(usize::MAX)))
        .collect();
    thread::scope(|scope| {
        for writer in &mut writers {
            scope.spawn(|| writer.write_until_crash(&committed));
        }
        wait_until("the clients write", || committed.load(Ordering::Relaxed) >= 25 * WRITERS);
        thread::sleep(Duration::from_millis(random.below(50) as u64));
        crash(random);
    });
    writers.into_iter().map(|writer| writer.history).collect()
}

/// The server answers the death of one of its processes by a recovery.
fn kill_a_backend(session: &mut Session, random: &mut Random) {
    let clients = session.lines(
        "SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    );
    let victim = &clients[random.below(clients.len())];
    let postmaster = postmaster();
    let own = fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).expect("the server runs");
    assert!(own.split_whitespace().any(|child| child == victim), "{victim} is not a process of the private server");
    kill(victim);
}

/// All processes of the server end, and it is started again.
fn kill_the_server(_session: &mut Session, _random: &mut Random) {
    kill(&postmaster());
    // The server refuses to start as long as a process of the old one is there.
    wait_until("the server starts", start_server);
}

/// The process number of the private server, and of no other.
fn postmaster() -> String {
    let directory = PathBuf::from(variable("TALKMETER_DIR"));
    let file = fs::read_to_string(directory.join("data/postmaster.pid")).expect("the server runs");
    let pid = file.lines().next().expect("a process number").to_owned();
    let runs = fs::read_link(format!("/proc/{pid}/exe")).expect("the server runs");
    assert_eq!(runs, PathBuf::from(variable("TALKMETER_BIN")).join("postgres"));
    pid
}

pub fn kill(pid: &str) {
    assert!(try_kill(pid), "cannot kill {pid}");
}

/// Says whether the process was there.
pub fn try_kill(pid: &str) -> bool {
    Command::new("sh").args(["-c", "kill -KILL \"$1\"", "sh", pid]).status().expect("a shell").success()
}

/// Starts the private server as scripts/cluster.sh does.
fn start_server() -> bool {
    let directory = variable("TALKMETER_DIR");
    let user = variable("TALKMETER_RUN_AS");
    let mut command = Command::new(if user.is_empty() { "env" } else { "runuser" });
    if !user.is_empty() {
        command.args(["-u", &user, "--", "env"]);
    }
    let path = std::env::var("PATH").expect("a PATH");
    command.args(["-i", &format!("PATH={path}"), &format!("HOME={directory}"), "LC_ALL=C"]);
    command.arg(format!("{}/pg_ctl", variable("TALKMETER_BIN")));
    command.args([
        "start",
        "-D",
        &format!("{directory}/data"),
        "-l",
        &format!("{directory}/log"),
        "-s",
        "-w",
        "-t",
        "60",
    ]);
    command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("pg_ctl").success()
}

pub fn connect_when_up(database: &Database) -> Session {
    let mut session = None;
    wait_until("the server accepts connections", || {
        session = database.try_connect().ok();
        session.is_some()
    });
    session.expect("a session")
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

// --- Clients ---

/// A database whose tenants have an allowance of 5 units a month and buy packs of 10.
fn metered() -> Database {
    let database = Database::fresh("crash");
    meter_messages(&mut database.connect());
    database
}

/// Meters a new table of messages, with that allowance and that pack.
pub fn meter_messages(session: &mut Session) {
    create_messages(session);
    session.run(
        r#"SELECT talkmeter.define_plan('{"name": "five", "included": 5, "overage_rate": 0.125, "currency": "EUR"}');
           SELECT talkmeter.define_pack(
               '{"name": "ten", "size": 10, "price": 1, "currency": "EUR", "valid_for": "90 days"}')"#,
    );
    attach(session, "messages", "lutingenie", Some("five"), &messages_mapping());
}

/// What clients know of their messages: ids and whether the server said that they are committed.
#[derive(Default)]
pub struct History {
    pub acknowledged: BTreeSet<i64>,
    /// Messages of one transaction each, whose commit the crash left unanswered.
    pub in_doubt: Vec<Vec<i64>>,
    /// The acknowledged transactions that wrote messages.
    pub commits: Vec<Commit>,
    /// How many transactions were in doubt, and how many of these turned out to be committed.
    unanswered: usize,
    happened: usize,
    purchases: Vec<String>,
}

/// Messages of one transaction, and between which instants it was committed.
pub struct Commit {
    pub ids: Vec<i64>,
    pub asked: SystemTime,
    pub answered: SystemTime,
}

/// A client with conversations that nobody else writes to.
pub struct Writer {
    session: Session,
    random: Random,
    name: String,
    conversations: Vec<Conversation>,
    pub history: History,
}

#[derive(Clone)]
struct Conversation {
    tenant: usize,
    id: String,
    /// Seconds from the first of March on to its next message.
    at: usize,
    /// The next message opens a part.
    opens: bool,
}

impl Writer {
    pub fn new(session: Session, name: String, seed: usize) -> Writer {
        let mut random = Random::new(seed as u64);
        let conversation = |number| Conversation {
            tenant: random.below(6),
            id: format!("{name}-{number}"),
            // A charge of the first day may wait for a backfill of that day.
            at: 86_400 + random.below(59 * 86_400),
            opens: true,
        };
        let conversations = (0..5).map(conversation).collect();
        Writer { session, random, name, conversations, history: History::default() }
    }

    pub fn write_until_crash(&mut self, committed: &AtomicUsize) {
        loop {
            let done = if self.random.below(15) == 0 { self.buy() } else { self.write() };
            match done {
                Ok(()) => committed.fetch_add(1, Ordering::Relaxed),
                Err(error) => return assert!(is_crash(&error), "{}: {error:?}", self.name),
            };
        }
    }

    /// A transaction of some statements, and savepoints that are rolled back.
    pub fn write(&mut self) -> Result<(), postgres::Error> {
        let mut conversations = self.conversations.clone();
        let mut ids = Vec::new();
        self.session.client.batch_execute("BEGIN")?;
        for _ in 0..1 + self.random.below(3) {
            let insert = self.insert(&mut conversations, &mut ids);
            self.session.client.batch_execute(&insert)?;
            if self.random.below(3) == 0 {
                let undone = self.insert(&mut conversations.clone(), &mut Vec::new());
                let savepoint = format!("SAVEPOINT s; {undone}; ROLLBACK TO SAVEPOINT s");
                self.session.client.batch_execute(&savepoint)?;
            }
        }
        let asked = SystemTime::now();
        match self.session.client.batch_execute("COMMIT") {
            Ok(()) => {
                self.history.acknowledged.extend(&ids);
                self.history.commits.push(Commit { ids, asked, answered: SystemTime::now() });
                self.conversations = conversations;
                Ok(())
            }
            Err(error) => {
                self.history.in_doubt.push(ids);
                Err(error)
            }
        }
    }

    /// A statement that inserts some messages of some conversations, one in forty of a kind that quarantine gets.
    fn insert(&mut self, conversations: &mut [Conversation], ids: &mut Vec<i64>) -> String {
        static ID: AtomicI64 = AtomicI64::new(1);
        let mut rows = Vec::new();
        for _ in 0..1 + self.random.below(4) {
            let conversation = &mut conversations[self.random.below(5)];
            let id = ID.fetch_add(1, Ordering::Relaxed);
            ids.push(id);
            let kind = match self.random.below(40) {
                0 => "unheard_of",
                _ if conversation.opens => "customer_message",
                1..20 => "customer_message",
                _ => "ai_reply",
            };
            rows.push(format!(
                "({id}, 'tenant {}', '{}', '2026-03-01 00:00+00'::timestamptz + interval '{} s', '{kind}')",
                conversation.tenant, conversation.id, conversation.at
            ));
            if kind != "unheard_of" {
                // One gap in five is longer than the idle timeout, so that the next message opens the next part.
                conversation.opens = self.random.below(5) == 0;
                conversation.at += if conversation.opens { 3_600 } else { 1 + self.random.below(60) };
            }
        }
        format!("INSERT INTO messages VALUES {}", rows.join(", "))
    }

    fn buy(&mut self) -> Result<(), postgres::Error> {
        let key = format!("{} {}", self.name, self.history.purchases.len());
        let tenant = self.random.below(6);
        self.session.client.batch_execute(&format!(
            "SELECT talkmeter.buy_pack('tenant {tenant}', 'ten', purchase_key => '{key}', purchased_at => '2026-03-01')"
        ))?;
        self.history.purchases.push(key);
        Ok(())
    }
}

/// Whether the error says that the server is gone, and nothing else.
pub fn is_crash(error: &postgres::Error) -> bool {
    let gone = [SqlState::CRASH_SHUTDOWN, SqlState::ADMIN_SHUTDOWN];
    error.code().map_or(error.is_closed() || error.to_string().contains("communicating"), |code| gone.contains(code))
}

// --- What must hold after a crash ---

impl History {
    pub fn extend(&mut self, others: Vec<History>) {
        for other in others {
            self.acknowledged.extend(other.acknowledged);
            self.in_doubt.extend(other.in_doubt);
            self.commits.extend(other.commits);
            self.purchases.extend(other.purchases);
        }
    }

    /// Every acknowledged transaction is there, one in doubt is there whole or not at all, and nothing else is.
    pub fn check_that_what_was_acknowledged_is_there(&mut self, session: &mut Session) {
        let lines = session.lines("SELECT id FROM messages");
        let present: BTreeSet<i64> = lines.iter().map(|id| id.parse().expect("a number")).collect();
        for ids in self.in_doubt.drain(..) {
            let there = ids.iter().filter(|id| present.contains(id)).count();
            assert!(there == 0 || there == ids.len(), "{there} messages are there of one transaction: {ids:?}");
            self.unanswered += 1;
            if there > 0 {
                self.happened += 1;
                self.acknowledged.extend(ids);
            }
        }
        let lost: Vec<_> = self.acknowledged.difference(&present).collect();
        assert!(lost.is_empty(), "acknowledged messages are lost: {lost:?}");
        let ghosts: Vec<_> = present.difference(&self.acknowledged).collect();
        assert!(ghosts.is_empty(), "messages that were not committed are there: {ghosts:?}");
        let bought = session.lines("SELECT purchase_key FROM talkmeter.packs");
        let lost: Vec<_> = self.purchases.iter().filter(|key| !bought.contains(key)).collect();
        assert!(lost.is_empty(), "acknowledged purchases are lost: {lost:?}");
    }
}

/// Each query finds what breaks the rule that its name says.
const RULES: [(&str, &str); 8] = [
    (
        "each message of a conversation is counted once in its parts",
        "SELECT * FROM (SELECT tenant_id AS tenant, conversation_id AS conversation, count(*) AS messages FROM messages
                 WHERE kind <> 'unheard_of' GROUP BY 1, 2) AS m
             FULL JOIN (SELECT tenant, conversation, sum(message_count) AS messages FROM talkmeter.part
                 GROUP BY 1, 2) AS p USING (tenant, conversation)
         WHERE m.messages IS DISTINCT FROM p.messages",
    ),
    (
        "quarantine holds each message of an unknown kind once, and no other",
        "SELECT * FROM (SELECT id::text AS id, 'no_kind' AS reason FROM messages WHERE kind = 'unheard_of') AS m
             FULL JOIN (SELECT message_id AS id, reason, count(*) FROM talkmeter.quarantine GROUP BY 1, 2) AS q
                 USING (id, reason)
         WHERE m.id IS NULL OR count IS DISTINCT FROM 1",
    ),
    (
        "each part that the AI replied to is charged once, at its first reply, and no other part is",
        "SELECT * FROM (SELECT tenant, conversation, part, first_ai_reply_at AS charged_at FROM talkmeter.parts
                 WHERE ai_replies > 0) AS p
             FULL JOIN (SELECT tenant, conversation, part, charged_at, count(*) FROM talkmeter.charges
                 GROUP BY 1, 2, 3, 4) AS c USING (tenant, conversation, part, charged_at)
         WHERE p.part IS NULL OR count IS DISTINCT FROM 1",
    ),
    (
        "charge ids count from 1 without a gap",
        "SELECT tenant, charge_id FROM (
             SELECT tenant, charge_id, row_number() OVER (PARTITION BY tenant ORDER BY charge_id) AS place
             FROM talkmeter.charges
         ) AS c
         WHERE charge_id <> place",
    ),
    (
        "pack ids count from 1 without a gap",
        "SELECT tenant, pack_id FROM (
             SELECT tenant, pack_id, row_number() OVER (PARTITION BY tenant ORDER BY pack_id) AS place
             FROM talkmeter.packs
         ) AS p
         WHERE pack_id <> place",
    ),
    (
        "a period's counters are the counts of its charges",
        "SELECT * FROM (SELECT tenant, period_start, included_used, pack_used, overage_units, overage_amount
                 FROM talkmeter.period) AS p
             FULL JOIN (SELECT tenant, period_start, count(*) FILTER (WHERE tier = 'included') AS included_used,
                     count(*) FILTER (WHERE tier = 'pack') AS pack_used,
                     count(*) FILTER (WHERE tier = 'overage') AS overage_units, sum(amount) AS overage_amount
                 FROM talkmeter.charges GROUP BY 1, 2) AS c
                 USING (tenant, period_start, included_used, pack_used, overage_units, overage_amount)
         WHERE p IS NULL OR c IS NULL",
    ),
    (
        "what is left of a pack is its size less its charges",
        "SELECT tenant, pack_id, size, remaining FROM talkmeter.packs AS p
         WHERE remaining <> size - (SELECT count(*) FROM talkmeter.charges AS c
             WHERE c.tenant = p.tenant AND c.pack_id = p.pack_id)",
    ),
    (
        "packs and overage pay only after the allowance",
        "SELECT * FROM talkmeter.period WHERE pack_used + overage_units > 0 AND included_used <> 5",
    ),
];

pub fn check_that_messages_and_charges_agree(session: &mut Session) {
    session.run("SELECT talkmeter.sweep()");
    for (rule, breaks) in RULES {
        assert_eq!(session.lines(breaks), [""; 0], "{rule}");
    }
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

/// Each charge was committed together with a reply of its conversation; those of some tenants came later. A charge is
/// written in a subtransaction, so it is not the transaction's number that the two share, but the instant of its commit
/// (`track_commit_timestamp`).
pub fn check_that_charges_came_with_messages(session: &mut Session, but_not_of: &[String]) {
    const COMMITTED: &str = "SELECT count(*), count(pg_xact_commit_timestamp(xmin)) FROM talkmeter.charge";
    let committed = session.line(COMMITTED);
    let (charges, dated) = committed.split_once('|').expect("two numbers");
    assert!(charges != "0" && charges == dated, "charges, and those with an instant of their commit: {committed}");
    let apart = session.lines(&format!(
        "SELECT c.tenant, c.conversation, c.charge_id FROM talkmeter.charge AS c
         WHERE NOT EXISTS (SELECT FROM messages AS m
                 WHERE m.tenant_id = c.tenant AND m.conversation_id = c.conversation AND m.kind = 'ai_reply'
                     AND pg_xact_commit_timestamp(m.xmin) = pg_xact_commit_timestamp(c.xmin))
             AND c.tenant <> ALL (string_to_array('{}', '|'))",
        but_not_of.join("|")
    ));
    assert_eq!(apart, [""; 0], "charges that came without a message");
}

/// The rows in quarantine are all that it has to tell.
fn check_that_health_tells_the_truth(session: &mut Session) {
    let health = session.lines(
        r"SELECT problem, object, substring(detail FROM '^\d+') FROM talkmeter.health() WHERE problem <> 'posted_late'",
    );
    let expected = session.lines(
        "SELECT 'quarantine', 'public.messages', count(*) FROM messages WHERE kind = 'unheard_of' HAVING count(*) > 0",
    );
    assert_eq!(health, expected);
}
