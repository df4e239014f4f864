//! What do the tests share? A database for each, a message table, the sample data, a comparison that shows differences.

pub mod inventory;
pub mod model;
pub mod pages;
pub mod paid;
pub mod private;
pub mod scenario;
pub mod standby;
pub mod stock;

use flate2::read::GzDecoder;
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls, SimpleQueryMessage, ToStatement};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, SystemTime};

const HOW_TO_RUN: &str = "These tests need a private server: make build && scripts/server-tests.sh";

/// A variable that with-cluster.sh sets. TALKMETER_DIR is asked for too: PGHOST alone may be anybody's server.
pub fn variable(name: &str) -> String {
    match (std::env::var("TALKMETER_DIR"), std::env::var(name)) {
        (Ok(_), Ok(value)) => value,
        _ => panic!("{HOW_TO_RUN}"),
    }
}

/// Whether tests with chance or size in them run at length: `make test LONG=1` asks for it.
pub fn at_length() -> bool {
    std::env::var("TALKMETER_LONG").is_ok_and(|long| long == "1")
}

/// A program of the private server, such as `psql`. PGHOST and so on tell it where to connect.
pub fn program(name: &str) -> Command {
    Command::new(PathBuf::from(variable("TALKMETER_BIN")).join(name))
}

/// The program that writes a merchant's page, on a database; psql is that of the private server. It is built beside the
/// tests (scripts/server-tests.sh).
pub fn report(database: &Database, arguments: &[&str]) -> Command {
    let tests = std::env::current_exe().expect("an executable in target/checks/deps");
    let mut command = Command::new(tests.with_file_name("../talkmeter-report"));
    let path = std::env::var("PATH").expect("a search path");
    command.env("PATH", format!("{}:{path}", variable("TALKMETER_BIN"))).env("PGDATABASE", database.name());
    command.args(arguments);
    command
}

// --- Databases ---

/// A database with the extension in it, of this test alone; dropped with its roles at the end.
pub struct Database {
    name: String,
    roles: Mutex<Vec<String>>,
}

const TEMPLATE: &str = "talkmeter_template";

/// The files are copied: without fsync that takes a third less time than to write it all to the log.
const FILES: &str = "file_copy";

impl Database {
    /// A new database; `name` is only for whoever reads the server's log.
    pub fn fresh(name: &str) -> Database {
        static MADE: Once = Once::new();
        let mut administrator = administration();
        MADE.call_once(make_template);
        Database::copy_of(TEMPLATE, name, FILES, &mut administrator)
    }

    /// A new database without the extension.
    pub fn empty(name: &str) -> Database {
        Database::copy_of("template0", name, FILES, &mut administration())
    }

    /// A copy of it, made by that strategy of the server's. Nobody may be connected to it.
    pub fn copy(&self, strategy: &str) -> Database {
        Database::copy_of(&self.name, "copy", strategy, &mut administration())
    }

    fn copy_of(template: &str, name: &str, strategy: &str, administrator: &mut Session) -> Database {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{name}_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        administrator.run(&format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY {strategy}"));
        Database { name, roles: Mutex::default() }
    }

    /// A new database with the table `messages` attached.
    pub fn with_messages(name: &str, policy: &str, default_plan: Option<&str>) -> Database {
        let database = Database::fresh(name);
        let mut session = database.connect();
        create_messages(&mut session);
        attach(&mut session, "messages", policy, default_plan, &messages_mapping());
        database
    }

    /// Its name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A session of the superuser's, or why there can be none now.
    pub fn try_connect(&self) -> Result<Session, postgres::Error> {
        Ok(Session { client: config(&self.name, &variable("PGUSER")).connect(NoTls)? })
    }

    /// A session of the superuser's, in UTC.
    pub fn connect(&self) -> Session {
        Session::open(&self.name, &variable("PGUSER"))
    }

    /// A session of the superuser's, and the warnings and notices that it was sent.
    pub fn connect_heard(&self) -> (Session, Arc<Mutex<Vec<String>>>) {
        let heard = Arc::<Mutex<Vec<String>>>::default();
        let hearing = Arc::clone(&heard);
        let mut config = config(&self.name, &variable("PGUSER"));
        config.notice_callback(move |notice| {
            hearing.lock().expect("no other thread").push(format!("{}: {}", notice.severity(), notice.message()));
        });
        (Session { client: config.connect(NoTls).expect("a connection") }, heard)
    }

    /// A session of a role that [`Database::role`] made.
    pub fn connect_as(&self, role: &str) -> Session {
        Session::open(&self.name, role)
    }

    /// A new role without any right, and its name. Roles are the cluster's, so the name holds the database's.
    pub fn role(&self, name: &str) -> String {
        let role = format!("{name}_{}", self.name);
        administration().run(&format!("CREATE ROLE {role} LOGIN"));
        self.roles.lock().expect("no other test").push(role.clone());
        role
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // A panic here would hide that of the test; with-cluster.sh removes what is left.
        let Ok(mut client) = config(&variable("PGDATABASE"), &variable("PGUSER")).connect(NoTls) else { return };
        let _ = client.batch_execute(&format!("DROP DATABASE {} WITH (FORCE)", self.name));
        for role in self.roles.lock().expect("no other test").iter() {
            let _ = client.batch_execute(&format!("DROP ROLE {role}"));
        }
    }
}

/// Makes the database of which all others are copies. Test executables may run at once, so only one of them makes it,
/// and it gets its name when it is complete.
fn make_template() {
    let mut session = administration();
    session.run("SELECT pg_advisory_lock(hashtext('talkmeter_template'))");
    if session.lines(&format!("SELECT datname FROM pg_database WHERE datname = '{TEMPLATE}'")).is_empty() {
        session.run("DROP DATABASE IF EXISTS talkmeter_template_new");
        session.run("CREATE DATABASE talkmeter_template_new TEMPLATE template0");
        Session::open("talkmeter_template_new", &variable("PGUSER")).run("CREATE EXTENSION talkmeter");
        session.run(&format!("ALTER DATABASE talkmeter_template_new RENAME TO {TEMPLATE}"));
    }
}

/// The setting that makes the server read in parallel where it may, by the name that its major has for it.
pub fn parallel_mode() -> &'static str {
    let version: u32 = administration().line("SHOW server_version_num").parse().expect("a number");
    if version < 160_000 { "force_parallel_mode" } else { "debug_parallel_query" }
}

fn administration() -> Session {
    Session::open(&variable("PGDATABASE"), &variable("PGUSER"))
}

fn config(database: &str, user: &str) -> Config {
    let mut config = Config::new();
    config.host(&variable("PGHOST")).port(variable("PGPORT").parse().expect("PGPORT is a number"));
    config.dbname(database).user(user).options("-c TimeZone=UTC");
    config
}

// --- Sessions ---

/// A connection whose errors stop the test with the statement that caused them.
pub struct Session {
    pub client: Client,
}

impl Session {
    fn open(database: &str, user: &str) -> Session {
        let client = config(database, user).connect(NoTls);
        Session { client: client.unwrap_or_else(|error| panic!("connect to {database} as {user}: {error}")) }
    }

    /// Runs statements, several in one transaction unless they say otherwise.
    pub fn run(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|error| panic!("{}\n{}", said(&error), shortened(sql)));
    }

    /// Runs statements of which one must fail, and returns its SQLSTATE.
    pub fn refused(&mut self, sql: &str) -> SqlState {
        match self.client.batch_execute(sql) {
            Ok(()) => panic!("this should have failed:\n{}", shortened(sql)),
            Err(error) => error.code().unwrap_or_else(|| panic!("{error}")).clone(),
        }
    }

    /// The rows of a query as `psql -At` shows them: columns set apart by `|`, null as nothing.
    pub fn lines(&mut self, sql: &str) -> Vec<String> {
        self.shown(sql, false)
    }

    /// The same after a line of the columns' names, also where there is no row.
    pub fn table(&mut self, sql: &str) -> Vec<String> {
        self.shown(sql, true)
    }

    fn shown(&mut self, sql: &str, with_heading: bool) -> Vec<String> {
        let messages =
            self.client.simple_query(sql).unwrap_or_else(|error| panic!("{}\n{}", said(&error), shortened(sql)));
        let line = |message: &SimpleQueryMessage| -> Option<String> {
            let fields: Vec<&str> = match message {
                SimpleQueryMessage::RowDescription(columns) if with_heading => {
                    columns.iter().map(|c| c.name()).collect()
                }
                SimpleQueryMessage::Row(row) => (0..row.len()).map(|n| row.get(n).unwrap_or_default()).collect(),
                _ => return None,
            };
            Some(fields.join("|"))
        };
        messages.iter().filter_map(line).collect()
    }

    /// The only row of a query.
    pub fn line(&mut self, sql: &str) -> String {
        let mut lines = self.lines(sql);
        assert_eq!(lines.len(), 1, "rows of:\n{}", shortened(sql));
        lines.remove(0)
    }

    /// Gives a COPY FROM STDIN its data.
    pub fn copy_in(&mut self, copy: &(impl ToStatement + ?Sized), data: &[u8]) {
        let copied = self.client.copy_in(copy).and_then(|mut writer| {
            writer.write_all(data).expect("the server reads on");
            writer.finish()
        });
        copied.unwrap_or_else(|error| panic!("COPY: {}", said(&error)));
    }

    /// The server process of this session.
    pub fn pid(&mut self) -> i32 {
        self.line("SELECT pg_backend_pid()").parse().expect("a number")
    }

    /// Waits until that server process waits for a lock that somebody else holds.
    pub fn wait_until_blocked(&mut self, pid: i32) {
        let started = SystemTime::now();
        while self.line(&format!("SELECT cardinality(pg_blocking_pids({pid})) > 0")) != "t" {
            assert!(started.elapsed().is_ok_and(|waited| waited < Duration::from_secs(60)), "nobody blocks {pid}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Ends what time has ended by `as_of`, and says how many parts that were.
    pub fn sweep(&mut self, as_of: &str) -> u64 {
        self.line(&format!("SELECT talkmeter.sweep('{as_of}')")).parse().expect("a count")
    }
}

fn said(error: &postgres::Error) -> String {
    match error.as_db_error() {
        Some(error) => format!("{} {error}", error.code().code()),
        None => error.to_string(),
    }
}

fn shortened(sql: &str) -> String {
    sql.chars().take(1_000).collect()
}

/// A text as a literal of SQL.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

// --- Message tables ---

/// Creates the table `messages`, whose column `kind` holds the kind of event itself.
pub fn create_messages(session: &mut Session) {
    session.run(
        "CREATE TABLE messages (
             id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY,
             tenant_id text,
             conversation_id text,
             created_at timestamptz DEFAULT clock_timestamp(),
             kind text,
             excluded boolean NOT NULL DEFAULT false
         );
         CREATE INDEX ON messages (tenant_id, conversation_id, created_at)",
    );
}

/// The mapping of `messages`. A row of kind `exchange` is a customer message and the AI's reply; one of kind `visit` is
/// these two and a close.
pub fn messages_mapping() -> String {
    let own: Vec<String> = [
        "customer_message",
        "ai_reply",
        "staff_reply",
        "note",
        "system_message",
        "error",
        "close",
        "resolve",
        "escalate",
        "new_topic",
        "reopen",
    ]
    .iter()
    .map(|kind| format!(r#"{{"when": {{"kind": "{kind}"}}, "kind": "{kind}"}}"#))
    .collect();
    format!(
        r#"{{"kinds": [{},
             {{"when": {{"kind": "exchange"}}, "kind": ["customer_message", "ai_reply"]}},
             {{"when": {{"kind": "visit"}}, "kind": ["customer_message", "ai_reply", "close"]}}],
           "excluded": [{{"when": {{"excluded": true}}, "because": "test"}}]}}"#,
        own.join(", ")
    )
}

/// The books of the whole database agree.
#[track_caller]
pub fn assert_sound(session: &mut Session) {
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}

/// Attaches a table.
pub fn attach(session: &mut Session, table: &str, policy: &str, default_plan: Option<&str>, mapping: &str) {
    let default_plan = default_plan.map_or("NULL".to_owned(), quoted);
    let mapping = quoted(mapping);
    session.run(&format!(
        "SELECT talkmeter.attach('{table}', policy => '{policy}', default_plan => {default_plan}, mapping => {mapping})"
    ));
}

/// Inserts rows into `messages` by one statement. The story is of times with kinds, on 2026-03-01 unless they name
/// a day: `"10:00 customer_message, 10:01 ai_reply"`. The time may be `now`.
pub fn tell(session: &mut Session, tenant: &str, conversation: &str, story: &str) {
    let row = |event: &str| {
        let (time, kind) = event.trim().rsplit_once(' ').expect("a time and a kind");
        format!("({}, {}, {}, '{kind}')", quoted(tenant), quoted(conversation), instant(time))
    };
    let rows: Vec<String> = story.split(',').map(row).collect();
    session.run(&format!(
        "INSERT INTO messages (tenant_id, conversation_id, created_at, kind) VALUES {}",
        rows.join(", ")
    ));
}

/// The plan of tenants whose first unit subscribes them.
pub const PLAN: Option<&str> = Some("agent_red/starter");

/// A new database in which `messages` is metered under a policy, and a session there.
pub fn metered(policy: &str) -> (Database, Session) {
    let database = Database::with_messages("metered", policy, PLAN);
    let session = database.connect();
    (database, session)
}

/// A metered database in which the conversation `c` of `acme` has had these events; their ids count from 1.
pub fn told(policy: &str, story: &str) -> (Database, Session) {
    let (database, mut session) = metered(policy);
    tell(&mut session, "acme", "c", story);
    (database, session)
}

/// A time of a story as SQL.
pub fn instant(time: &str) -> String {
    match time {
        "now" => "clock_timestamp()".to_owned(),
        time if time.contains('-') => format!("'{time}+00'"),
        time => format!("'2026-03-01 {time}+00'"),
    }
}

/// A column of instants as [`talkmeter_engine::instant::Instant`] has them, in SQL: microseconds since 1970.
pub fn micros(column: &str) -> String {
    format!("(extract(epoch FROM {column}) * 1000000)::bigint")
}

/// The charges that were not taken back.
pub fn standing_charges(session: &mut Session, columns: &str) -> Vec<String> {
    session.lines(&format!(
        "SELECT {columns} FROM talkmeter.charges AS c
         WHERE reverses IS NULL
             AND NOT EXISTS (SELECT FROM talkmeter.charges AS r WHERE r.tenant = c.tenant AND r.reverses = c.charge_id)
         ORDER BY tenant, conversation, part"
    ))
}

/// What metering has left in any table of talkmeter's: each that is not empty, with its number of rows.
pub fn traces(session: &mut Session) -> Vec<String> {
    let tables = session.lines(
        "SELECT relname FROM pg_class
         WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'r'
             AND relname NOT IN ('policy', 'plan', 'pack_offer', 'source', 'threshold', 'journaled', 'sweeper',
                 'installation')",
    );
    let count = |table| format!("SELECT '{table}', count(*) FROM talkmeter.{table} HAVING count(*) > 0");
    let counts: Vec<String> = tables.iter().map(count).collect();
    session.lines(&format!("{} ORDER BY 1", counts.join(" UNION ALL ")))
}

// --- Sample data ---

/// The text of a file of data/, heading included.
pub fn text(file: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data").join(file);
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| GzDecoder::new(file).read_to_string(&mut text));
    read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text
}

/// The rows of a file of data/.
pub fn records(file: &str) -> Vec<csv::StringRecord> {
    csv::Reader::from_reader(text(file).as_bytes()).records().map(|row| row.expect("a row")).collect()
}

/// The rows of a file of data/expected/, as [`Session::lines`] gives rows.
pub fn expected(file: &str) -> Vec<String> {
    let shown = |record: &csv::StringRecord| record.iter().collect::<Vec<_>>().join("|");
    records(&format!("expected/{file}")).iter().map(shown).collect()
}

/// Creates the table `irc_support` of the file of that name, with its index, and attaches it.
pub fn attach_irc_support(session: &mut Session, policy: &str, default_plan: Option<&str>) {
    session.run(include_str!("../../data/irc_support.sql"));
    let mapping = include_str!("../../data/irc_support.mapping.json");
    attach(session, "irc_support", policy, default_plan, mapping);
}

/// Copies rows of a file of data/ into a table, so many per transaction.
pub fn copy_batches(session: &mut Session, table: &str, text: &str, rows_per_transaction: usize) {
    let heading = text.lines().next().expect("a heading");
    let copy = session.client.prepare(&format!("COPY {table} ({heading}) FROM STDIN (FORMAT csv)")).expect("a COPY");
    let rows: Vec<&str> = text.lines().skip(1).collect();
    for batch in rows.chunks(rows_per_transaction) {
        let mut data = batch.join("\n");
        data.push('\n');
        session.copy_in(&copy, data.as_bytes());
    }
}

/// A time as the expected files show it: UTC, microseconds in six digits or not at all.
fn shown_time(column: &str) -> String {
    format!("replace(to_char({column}, 'YYYY-MM-DD HH24:MI:SS.US') || '+00', '.000000+00', '+00') AS {column}")
}

/// The parts of some conversations in the columns and the order of the expected files.
pub fn parts(session: &mut Session, condition: &str) -> Vec<String> {
    session.lines(&format!(
        r#"SELECT tenant, conversation, part, {}, {}, {}, {}, end_reason, message_count, turn_count, ai_replies,
               staff_replies, billable, not_billable_because, {}
           FROM talkmeter.parts AS p
           WHERE {condition}
           ORDER BY p.tenant COLLATE "C", p.conversation COLLATE "C", p.part"#,
        shown_time("started_at"),
        shown_time("first_ai_reply_at"),
        shown_time("last_activity_at"),
        shown_time("ended_at"),
        shown_time("charged_at"),
    ))
}

/// Fails unless both hold the same rows in the same order, and shows the first that differ.
pub fn assert_same_rows(found: &[String], expected: &[String]) {
    const SHOWN: usize = 5;
    if found == expected {
        return;
    }
    let (here, there) = (found.iter().collect::<BTreeSet<_>>(), expected.iter().collect::<BTreeSet<_>>());
    let mut message = format!("{} rows found, {} expected", found.len(), expected.len());
    for (what, one, other) in [("expected", &there, &here), ("found", &here, &there)] {
        let only: Vec<_> = one.difference(other).collect();
        message += &format!("\n{} rows only {what}, the first of them:", only.len());
        for row in only.iter().take(SHOWN) {
            message += &format!("\n  {row}");
        }
    }
    if let Some(place) = found.iter().zip(expected).position(|(found, expected)| found != expected) {
        message += &format!(
            "\nfirst different at row {}:\n  found    {}\n  expected {}",
            place + 1,
            found[place],
            expected[place]
        );
    }
    panic!("{message}");
}

// --- Randomness ---

/// A source of numbers that a seed repeats.
pub struct Random(u64);

impl Random {
    /// From TALKMETER_SEED; else from the clock at length, and always the same otherwise: what a change breaks fails at
    /// once, and nothing else does. Also the seed, to be shown when a test fails.
    pub fn seeded() -> (Random, u64) {
        const SHORT: u64 = 1;
        let clock = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_micros() as u64;
        let chosen = || if at_length() { clock() } else { SHORT };
        let seed = std::env::var("TALKMETER_SEED").map_or_else(|_| chosen(), |seed| seed.parse().expect("a number"));
        (Random::new(seed), seed)
    }

    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number below `bound` (splitmix64).
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}
