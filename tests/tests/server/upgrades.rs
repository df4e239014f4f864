//! Is an upgraded database what a new one is, and what does a library do that meets tables of another version?

use postgres::error::SqlState;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use talkmeter_tests::inventory::{differences, inventory};
use talkmeter_tests::{Database, Session, assert_same_rows, assert_sound, program, tell};

const CURRENT: &str = env!("CARGO_PKG_VERSION");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a script up to its first error.
fn psql(database: &Database, script: &str) {
    let mut command = program("psql");
    command.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-d", database.name()]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("psql");
    child.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("psql reads on");
    let output = child.wait_with_output().expect("psql ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn dump(database: &Database) -> String {
    let output = program("pg_dump").args(["--no-owner", "-d", database.name()]).output().expect("pg_dump");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

// --- Releases ---

/// What a release left behind.
struct Release {
    version: String,
    /// Its install script.
    script: String,
    /// What was done in a database of it, and the dump of that.
    story: String,
    dump: String,
}

fn releases() -> Vec<Release> {
    let entries = fs::read_dir(root().join("sql/released")).expect("the releases");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names
        .filter_map(|name| Some(name.strip_prefix("talkmeter--")?.strip_suffix(".sql")?.to_owned()))
        .map(|version| Release {
            script: read(&format!("sql/released/talkmeter--{version}.sql")),
            story: read(&format!("tests/released/{version}.story.sql")),
            dump: read(&format!("tests/released/{version}.dump.sql")),
            version,
        })
        .collect()
}

/// Where the private server looks for a script of the extension.
fn installed(name: &str) -> PathBuf {
    let output = program("pg_config").arg("--sharedir").output().expect("pg_config");
    let shared = String::from_utf8(output.stdout).expect("text");
    Path::new(shared.trim()).join("extension").join(format!("talkmeter--{name}.sql"))
}

/// Puts a script where CREATE and ALTER EXTENSION find it. At once: tests that look for scripts run beside this one.
fn install(name: &str, script: &str) {
    let unfinished = installed(&format!("{name}.unfinished")).with_extension("new");
    fs::write(&unfinished, script).expect("a script");
    fs::rename(&unfinished, installed(name)).expect("its name");
}

/// The script of the present version.
fn present() -> String {
    fs::read_to_string(installed(CURRENT)).expect("the install script")
}

/// A release that never was: what the present one is but for a column, two comments, a right, a default, an index and an
/// option of a view. The texts are those of `sql/`, and change with them.
fn made_up() -> Release {
    const VERSION: &str = "0.1.9";
    let mut script = present();
    for (now, then) in [
        (",\n    started_by name NOT NULL DEFAULT SESSION_USER\n", "\n"),
        ("COMMENT ON COLUMN talkmeter.backfill_run.started_by IS 'Who began it';", ""),
        ("COMMENT ON COLUMN talkmeter.uncharged_span.until_time IS 'First instant after it';", ""),
        ("REVOKE ALL ON talkmeter.uncharged_span FROM PUBLIC;", "GRANT SELECT ON talkmeter.uncharged_span TO PUBLIC;"),
        ("conversations bigint NOT NULL DEFAULT 0", "conversations bigint NOT NULL"),
        ("CREATE INDEX uncharged_unit_due ON talkmeter.uncharged_unit (source_id, tenant, charged_at);", ""),
        ("CREATE VIEW talkmeter.waiting_unit AS", "CREATE VIEW talkmeter.waiting_unit WITH (security_barrier) AS"),
    ] {
        assert_eq!(script.matches(now).count(), 1, "{now}");
        script = script.replace(now, then);
    }
    install(VERSION, &script);
    let step = "ALTER TABLE talkmeter.backfill_run ADD COLUMN started_by name NOT NULL DEFAULT SESSION_USER;
         COMMENT ON COLUMN talkmeter.backfill_run.started_by IS 'Who began it';
         COMMENT ON COLUMN talkmeter.uncharged_span.until_time IS 'First instant after it';
         REVOKE ALL ON talkmeter.uncharged_span FROM PUBLIC;
         ALTER TABLE talkmeter.backfill_run ALTER COLUMN conversations SET DEFAULT 0;
         CREATE INDEX uncharged_unit_due ON talkmeter.uncharged_unit (source_id, tenant, charged_at);
         ALTER VIEW talkmeter.waiting_unit RESET (security_barrier);";
    let whole = [read("sql/upgrades/begin.sql"), step.to_owned(), read("sql/upgrades/end.sql")].concat();
    install(&format!("{VERSION}--{CURRENT}"), &whole);

    let story = read("tests/released/story.sql");
    let teller = Database::fresh("teller");
    psql(&teller, &story);
    // Nobody began a backfill in it.
    let of_the_table = |line: &str| line.starts_with("COPY talkmeter.backfill_run ");
    let dump = dump(&teller);
    let mut lines: Vec<&str> = dump.lines().collect();
    let begin = lines.iter().position(|line| of_the_table(line)).expect("a table that is dumped");
    assert_eq!(lines[begin + 1], "\\.");
    lines.drain(begin..=begin + 1);
    Release { version: VERSION.to_owned(), script, story, dump: lines.join("\n") }
}

/// A database of a release, with its data.
fn old(release: &Release) -> Database {
    if release.version != CURRENT {
        install(&release.version, &release.script);
    }
    let database = Database::empty("old");
    database.connect().run(&format!("CREATE EXTENSION talkmeter VERSION '{}'", release.version));
    psql(&database, &release.dump);
    database
}

/// A database of the present version in which the same was done.
fn told_anew(release: &Release) -> Database {
    let database = Database::fresh("told");
    psql(&database, &release.story);
    database
}

/// What was metered and billed, but for when that was.
fn books(session: &mut Session) -> Vec<String> {
    [
        "charges: SELECT tenant, charge_id, conversation, part, charged_at, period_start, tier, pack_id, amount, currency, plan,
             policy, policy_version, reverses, reason, note, cause_source, cause_message_id, outcome FROM talkmeter.charges",
        "parts: SELECT tenant, conversation, part, policy, policy_version, status, started_at, ended_at, end_reason, billable,
             not_billable_because, charged_at, message_count, turn_count, ai_replies, staff_replies, outcome FROM talkmeter.parts",
        "bills: SELECT tenant, period, status, base, packs, overage, credits, total, currency FROM talkmeter.bills
             WHERE finalized_at IS NOT NULL",
        "lines: SELECT line, kind, description, quantity, unit_price, amount
             FROM talkmeter.statement('small', timestamptz '2026-01-14 23:00+00')",
        "waiting: SELECT source, message_id, tenant, conversation, occurred_at, reason FROM talkmeter.quarantine",
        "packs: SELECT tenant, pack_id, pack, remaining, purchased_at, expires_at, purchase_key FROM talkmeter.packs",
        "disputes: SELECT tenant, dispute_id, charge_id, reason, state, note FROM talkmeter.disputes",
        "days: SELECT tenant, day, used FROM talkmeter.usage_daily",
        "unplanned: SELECT tenant, conversation, part, charged_at FROM talkmeter.unplanned",
        "sources: SELECT source, policy, mapping FROM talkmeter.sources",
    ]
    .iter()
    .flat_map(|asked| {
        let (what, sql) = asked.split_once(": ").expect("a name");
        let mut rows = session.lines(sql);
        rows.sort();
        assert!(!rows.is_empty(), "no {what}");
        rows.into_iter().map(move |row| format!("{what}: {row}")).collect::<Vec<_>>()
    })
    .collect()
}

/// A row that comes between the installation of the files and the upgrade.
const BETWEEN: &str = "INSERT INTO messages VALUES (200, 'small', 'open', '2026-03-05 10:03+00', 'question', 'c1'),
        (201, 'small', 'between', '2026-03-06 10:03+00', 'visit', 'c1')";

/// Rows come in order, late, changed, with marks, to a partition, to a tenant without a plan; one that had none gets one.
const GOES_ON: &str = "
    INSERT INTO messages VALUES (202, 'small', 'open', '2026-03-05 10:04+00', 'answer', 'c1');
    INSERT INTO messages VALUES (203, 'small', 'm30', '2026-02-19 08:59+00', 'staff', 'c1'),
        (204, 'small', 'new', '2026-03-07 10:00+00', 'visit', 'c2'), (205, 'third', 'new', '2026-03-07 10:00+00', 'visit', 'c2');
    UPDATE messages SET kind = 'note' WHERE id = 31;
    INSERT INTO turns VALUES (501, 'small', 't50', '2026-03-07 11:00+00', 'question'), (502, 'small', 't50', '2026-03-07 11:01+00', 'answer'),
        (503, 'small', 't50', '2026-03-07 11:02+00', 'end');
    SELECT talkmeter.mark('small', 'new', 'reopen', '2026-03-07 10:05+00');
    SELECT talkmeter.subscribe('other', 'two', since => '2026-02-01');
    SELECT talkmeter.buy_pack('small', 'single', 'order 3', '2026-03-10');
    SELECT talkmeter.sweep();
    SELECT talkmeter.finalize('small', '2026-02-14 23:00+00');";

/// The release, upgraded, is object by object what a new database is, has its books, and goes on as one that was of the
/// present version all the time.
fn assert_upgraded_is_new(release: &Release) {
    let (upgraded, new) = (old(release), told_anew(release));
    upgraded.connect().run(BETWEEN);
    new.connect().run(BETWEEN);
    if release.version != CURRENT {
        upgraded.connect().run("ALTER EXTENSION talkmeter UPDATE");
    }
    let (mut upgraded, mut new) = (upgraded.connect(), new.connect());
    let found = differences(&inventory(&mut upgraded), &inventory(&mut new));
    assert!(found.is_empty(), "{} upgraded is not what is new:\n{}", release.version, found.join("\n"));
    upgraded.run("CALL talkmeter.backfill('messages', '2026-03-01', '2026-04-01')");
    assert_same_rows(&books(&mut upgraded), &books(&mut new));
    for session in [&mut upgraded, &mut new] {
        session.run(GOES_ON);
        assert_sound(session);
    }
    assert_same_rows(&books(&mut upgraded), &books(&mut new));
}

#[test]
fn every_release_upgraded_is_what_is_new_and_goes_on_metering() {
    for release in releases() {
        assert_upgraded_is_new(&release);
    }
}

#[test]
fn a_made_up_release_upgraded_is_what_is_new_and_goes_on_metering() {
    assert_upgraded_is_new(&made_up());
}

// --- What the comparison notices ---

#[test]
fn the_comparison_notices_each_thing_that_an_upgrade_may_forget() {
    let (database, other) = (Database::fresh("inventory"), Database::fresh("inventory"));
    let mut session = database.connect();
    let whole = inventory(&mut session);
    assert_eq!(differences(&whole, &inventory(&mut other.connect())), [""; 0]);
    for spoiling in SPOILED {
        session.run(&format!("BEGIN; {spoiling}"));
        let found = differences(&whole, &inventory(&mut session));
        session.run("ROLLBACK");
        assert!(!found.is_empty(), "not noticed: {spoiling}");
    }
    assert_eq!(differences(&whole, &inventory(&mut session)), [""; 0]);
}

const SPOILED: [&str; 43] = [
    "COMMENT ON COLUMN talkmeter.source.role IS NULL",
    "COMMENT ON FUNCTION talkmeter.sweep(timestamptz) IS NULL",
    "COMMENT ON VIEW talkmeter.clock IS 'another'",
    "COMMENT ON TABLE talkmeter.source_gap IS NULL",
    "COMMENT ON SCHEMA talkmeter IS NULL",
    "GRANT SELECT ON talkmeter.source TO PUBLIC",
    "GRANT SELECT (role) ON talkmeter.source TO PUBLIC",
    "GRANT EXECUTE ON FUNCTION talkmeter.sweep(timestamptz) TO PUBLIC",
    "REVOKE EXECUTE ON FUNCTION talkmeter.sweep(timestamptz) FROM CURRENT_USER",
    "REVOKE SELECT ON talkmeter.clock FROM CURRENT_USER",
    "GRANT USAGE ON SCHEMA talkmeter TO PUBLIC",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA talkmeter GRANT SELECT ON TABLES TO PUBLIC",
    "DELETE FROM pg_init_privs WHERE objoid = 'talkmeter.source'::regclass",
    "ALTER TABLE talkmeter.source ALTER COLUMN row_mode DROP DEFAULT",
    "ALTER TABLE talkmeter.source ALTER COLUMN mapped_since SET DEFAULT 'infinity'",
    "ALTER TABLE talkmeter.source ALTER COLUMN strict DROP NOT NULL",
    "ALTER TABLE talkmeter.backfill_run ALTER COLUMN after_tenant TYPE text COLLATE \"default\"",
    "ALTER TABLE talkmeter.backfill_run ALTER COLUMN conversations TYPE integer",
    "ALTER TABLE talkmeter.source ALTER COLUMN mapping SET (n_distinct = 5)",
    "ALTER TABLE talkmeter.source ALTER COLUMN mapping SET STORAGE external",
    "ALTER TABLE talkmeter.source ALTER COLUMN mapping SET STATISTICS 1000",
    "ALTER TABLE talkmeter.source ADD COLUMN more integer",
    "ALTER TABLE talkmeter.uncharged_span DROP COLUMN until_time, ADD COLUMN until_time timestamptz NOT NULL;
        COMMENT ON COLUMN talkmeter.uncharged_span.until_time IS 'First instant after it'",
    "ALTER TABLE talkmeter.source SET (fillfactor = 50)",
    "ALTER TABLE talkmeter.source SET (toast.autovacuum_enabled = off)",
    "ALTER TABLE talkmeter.source ENABLE ROW LEVEL SECURITY",
    "CREATE POLICY all_rows ON talkmeter.source USING (true)",
    "ALTER TABLE talkmeter.source DROP CONSTRAINT source_relation_role_key",
    "ALTER TABLE talkmeter.source ADD CHECK (source_id > 0) NOT VALID",
    "DROP INDEX talkmeter.quarantined_future",
    "CREATE INDEX ON talkmeter.source (role)",
    "ALTER TABLE talkmeter.source DISABLE TRIGGER refuse_restore_with_triggers",
    "DROP TRIGGER refuse_restore_with_triggers ON talkmeter.source",
    "CREATE RULE none AS ON DELETE TO talkmeter.source DO INSTEAD NOTHING",
    "CREATE STATISTICS talkmeter.of_source ON role, strict FROM talkmeter.source",
    "ALTER VIEW talkmeter.waiting_unit SET (security_barrier)",
    "CREATE OR REPLACE VIEW talkmeter.clock AS SELECT now() AS now, interval '0' AS clock_offset",
    "ALTER FUNCTION talkmeter.origin_of(regclass) VOLATILE",
    "ALTER FUNCTION talkmeter.is_source(regclass, text, text) RESET search_path",
    "ALTER FUNCTION talkmeter.sweep(timestamptz) COST 7",
    "UPDATE pg_extension SET extcondition[1] = 'WHERE false' WHERE extname = 'talkmeter'",
    "ALTER EXTENSION talkmeter DROP VIEW talkmeter.clock",
    "DO $$ BEGIN EXECUTE (SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger LIMIT 1); END $$",
];

// --- Symbols of the library ---

/// The signatures with which the functions of a catalog call each symbol of the library.
fn symbols(session: &mut Session) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    for line in session.lines(
        "SELECT p.prosrc, format('(%s) returns %s%s%s, strict %s', array_to_string(p.proargtypes::regtype[], ', '),
             CASE WHEN p.proretset THEN 'SETOF ' END, p.prorettype::regtype,
             (SELECT string_agg(' ' || t.type::regtype, ',' ORDER BY t.number)
                 FROM unnest(p.proallargtypes, p.proargmodes) WITH ORDINALITY AS t (type, mode, number) WHERE t.mode IN ('o', 't')),
             p.proisstrict)
         FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
         WHERE p.pronamespace = 'talkmeter'::regnamespace AND l.lanname = 'c'",
    ) {
        let (symbol, signature) = line.split_once('|').expect("two columns");
        found.entry(symbol.to_owned()).or_default().insert(signature.to_owned());
    }
    assert!(found.len() > 40, "{found:?}");
    found
}

/// The symbols that one catalog calls otherwise than another: what it would get is not what it expects.
fn called_otherwise(
    then: &BTreeMap<String, BTreeSet<String>>,
    now: &BTreeMap<String, BTreeSet<String>>,
) -> Vec<String> {
    let differs = |(symbol, signatures): &(&String, &BTreeSet<String>)| {
        now.get(*symbol).is_some_and(|now| !signatures.is_subset(now))
    };
    then.iter().filter(differs).map(|(symbol, signatures)| format!("{symbol}: {signatures:?}")).collect()
}

/// The symbols that a version's catalog calls. The server makes no function whose symbol the library has not.
fn symbols_of(version: &str, script: &str) -> BTreeMap<String, BTreeSet<String>> {
    install(version, script);
    let database = Database::empty("symbols");
    database.connect().run(&format!("CREATE EXTENSION talkmeter VERSION '{version}'"));
    symbols(&mut database.connect())
}

#[test]
fn a_symbol_that_a_release_calls_is_there_and_has_the_signature_that_it_had() {
    let now = symbols(&mut Database::fresh("symbols").connect());
    for release in releases().iter().filter(|release| release.version != CURRENT) {
        let then = symbols_of(&release.version, &release.script);
        assert_eq!(called_otherwise(&then, &now), [""; 0], "release {}", release.version);
    }
}

#[test]
fn a_symbol_of_another_signature_and_one_that_is_gone_are_noticed() {
    let now = symbols(&mut Database::fresh("symbols").connect());
    let script = present();
    let function = "talkmeter.adopt_partitions(source regclass) RETURNS void";
    for (otherwise, is_noticed) in [
        ("talkmeter.adopt_partitions(source regclass) RETURNS void", false),
        ("talkmeter.adopt_partitions(source regclass) RETURNS boolean", true),
        ("talkmeter.adopt_partitions(source regclass) RETURNS SETOF void", true),
    ] {
        assert_eq!(script.matches(function).count(), 1);
        let then = symbols_of("0.1.7", &script.replace(function, otherwise));
        assert_eq!(called_otherwise(&then, &now).len(), usize::from(is_noticed), "{otherwise}");
    }
    let with_text = script.replace("adopt_partitions(source regclass)", "adopt_partitions(source text)");
    let with_text = with_text.replace("adopt_partitions(regclass)", "adopt_partitions(text)");
    assert_eq!(called_otherwise(&symbols_of("0.1.7", &with_text), &now).len(), 1);

    install("0.1.8", &script.replace("'adopt_partitions_wrapper'", "'gone_wrapper'"));
    let database = Database::empty("symbols");
    let refused = database.connect().refused("CREATE EXTENSION talkmeter VERSION '0.1.8'");
    assert_eq!(refused, SqlState::UNDEFINED_FUNCTION);
}

// --- A library that does not know the tables ---

/// Makes the catalog one of another version, and tells the sessions as an upgrade script does.
fn is_now(session: &mut Session, version: &str) {
    session.run(&format!("UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'talkmeter'"));
    session.run(&read("sql/upgrades/end.sql"));
}

const TOLD: &str = "WARNING: talkmeter's library does not know the tables of this database's version of the extension";

fn parts(session: &mut Session) -> Vec<String> {
    session.lines("SELECT conversation, message_count, billable FROM talkmeter.parts ORDER BY 1")
}

#[test]
fn inserts_of_a_version_that_the_library_does_not_know_succeed_and_are_counted_after_the_update() {
    let database = Database::with_messages("unknown", "lutingenie", None);
    let mut administrator = database.connect();
    tell(&mut administrator, "acme", "a", "10:00 exchange");
    is_now(&mut administrator, "0.0.1");
    {
        let (mut session, heard) = database.connect_heard();
        tell(&mut session, "acme", "a", "10:05 exchange");
        tell(&mut session, "acme", "b", "11:00 visit");
        session.run("UPDATE messages SET excluded = false; DELETE FROM messages WHERE conversation_id = 'none'; BEGIN");
        tell(&mut session, "acme", "c", "12:00 exchange");
        session.run("COMMIT");
        assert_eq!(*heard.lock().expect("no other thread"), [TOLD]);
    }
    assert_eq!(administrator.line("SELECT count(*) FROM messages"), "4");
    is_now(&mut administrator, CURRENT);
    assert_eq!(parts(&mut administrator), ["a|2|t"]);
    assert_eq!(administrator.lines("SELECT because, events FROM talkmeter.gaps('messages')"), ["not_seen|7"]);
    administrator.run("CALL talkmeter.backfill('messages', '2026-01-01', '2026-04-01')");
    assert_eq!(administrator.lines("SELECT * FROM talkmeter.gaps('messages')"), [""; 0]);
    assert_sound(&mut administrator);

    let always = Database::with_messages("known", "lutingenie", None);
    let mut always = always.connect();
    for (conversation, story) in
        [("a", "10:00 exchange"), ("a", "10:05 exchange"), ("b", "11:00 visit"), ("c", "12:00 exchange")]
    {
        tell(&mut always, "acme", conversation, story);
    }
    assert_eq!(parts(&mut administrator), parts(&mut always));
    let charged = "SELECT conversation, charged_at, reverses FROM talkmeter.charges ORDER BY 1";
    assert_eq!(administrator.lines(charged), always.lines(charged));
}

#[test]
fn calls_on_tables_that_the_library_does_not_know_say_what_to_run() {
    let database = Database::with_messages("unknown", "lutingenie", None);
    let mut session = database.connect();
    for (version, hint) in [("0.0.1", "Run: ALTER EXTENSION talkmeter UPDATE"), ("999.1", "Begin a new session")] {
        is_now(&mut session, version);
        for call in [
            "SELECT talkmeter.mark('acme', 'a', 'close')",
            "SELECT talkmeter.flush()",
            "SELECT talkmeter.sweep()",
            "SELECT talkmeter.credit('acme', 1, '')",
            "SELECT talkmeter.detach('messages')",
            "SELECT * FROM talkmeter.gaps('messages')",
            "SELECT talkmeter.retry_quarantine()",
            "SELECT * FROM talkmeter.explain('acme', 'a')",
            "SELECT talkmeter.buy_pack('acme', 'agent_red/pack')",
            "CALL talkmeter.archive('2026-01-01')",
        ] {
            let error = session.client.batch_execute(call).expect_err(call);
            let error = error.as_db_error().expect("of the server").clone();
            assert_eq!(*error.code(), SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "{call}");
            assert!(error.hint().expect("a hint").starts_with(hint), "{call}: {error:?}");
            let versions = format!("The library is of version {CURRENT}, the extension of version {version}.");
            assert!(error.detail().expect("a detail").starts_with(&versions), "{call}: {error:?}");
        }
    }
    is_now(&mut session, CURRENT);
    session.run("SELECT talkmeter.sweep()");
}

#[test]
fn a_session_that_has_metered_learns_of_another_version_at_its_next_statement_and_its_commit() {
    let database = Database::with_messages("learns", "lutingenie", None);
    let (mut statement, mut commit, mut administrator) = (database.connect(), database.connect(), database.connect());
    tell(&mut statement, "acme", "a", "10:00 exchange");
    commit.run("BEGIN");
    tell(&mut commit, "acme", "b", "10:00 exchange");
    is_now(&mut administrator, "999.1");
    tell(&mut statement, "acme", "a", "10:01 exchange");
    commit.run("COMMIT");
    is_now(&mut administrator, CURRENT);
    assert_eq!(parts(&mut administrator), ["a|2|t"]);
    // And that it is known again.
    tell(&mut statement, "acme", "a", "10:02 exchange");
    tell(&mut commit, "acme", "c", "10:00 exchange");
    assert_eq!(parts(&mut administrator), ["a|4|t", "c|2|t"]);
    assert_eq!(administrator.lines("SELECT because, events FROM talkmeter.gaps('messages')"), ["not_seen|4"]);
}

#[test]
fn a_commit_that_waits_for_an_upgrade_writes_nothing_after_it() {
    let database = Database::with_messages("waits", "lutingenie", None);
    let mut administrator = database.connect();
    let table = "talkmeter.conversation";
    administrator.run(&format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"));
    let (mut session, heard) = database.connect_heard();
    let pid = session.pid();
    let waiting = std::thread::spawn(move || tell(&mut session, "acme", "a", "10:00 exchange"));
    database.connect().wait_until_blocked(pid);
    is_now(&mut administrator, "999.1");
    administrator.run("COMMIT");
    waiting.join().expect("the insert succeeds");
    assert_eq!(*heard.lock().expect("no other thread"), [TOLD]);
    is_now(&mut administrator, CURRENT);
    assert_eq!(administrator.lines(&format!("SELECT * FROM {table}")), [""; 0]);
    assert_eq!(administrator.lines("SELECT reason FROM talkmeter.quarantine"), [""; 0]);
}
