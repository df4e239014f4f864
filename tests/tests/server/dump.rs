//! Does a dump bring back the same bill, and does nothing of it get metered a second time?

use postgres::error::SqlState;
use std::io::Write;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread;
use talkmeter_tests::{
    Database, Session, assert_same_rows, attach, create_messages, instant, messages_mapping, metered, program, tell,
    traces,
};

// --- A database to dump ---

/// A database whose tables hold something of everything that can be dumped. Its message tables lie in schemas that a
/// dump loads before and after `talkmeter`, their columns get other numbers when they are restored, and there are
/// messages of before they were attached.
fn original() -> Database {
    let database = Database::fresh("original");
    let mut session = database.connect();
    session.run(
        r#"CREATE SEQUENCE ids;
           CREATE TABLE messages (gone int, id bigint PRIMARY KEY, tenant_id text, also_gone text, conversation_id text,
               created_at timestamptz, kind text, excluded boolean);
           ALTER TABLE messages DROP gone, DROP also_gone;
           CREATE SCHEMA zebra;
           CREATE TABLE zebra.messages (gone int, id bigint, tenant_id text, conversation_id text,
               created_at timestamptz, kind text, excluded boolean, PRIMARY KEY (id, tenant_id))
               PARTITION BY LIST (tenant_id);
           CREATE TABLE zebra.small PARTITION OF zebra.messages FOR VALUES IN ('small');
           CREATE TABLE zebra.others (excluded boolean, kind text, created_at timestamptz, unused int,
               conversation_id text, tenant_id text NOT NULL, id bigint NOT NULL, gone int);
           ALTER TABLE zebra.others DROP unused;
           ALTER TABLE zebra.messages ATTACH PARTITION zebra.others DEFAULT;
           ALTER TABLE zebra.messages DROP gone;
           CREATE INDEX ON messages (conversation_id);
           CREATE INDEX ON zebra.messages (tenant_id, conversation_id);
           CREATE TABLE former (LIKE messages INCLUDING INDEXES);
           SELECT talkmeter.define_policy('{"name": "own", "starts_on": ["customer_message", "reopen"], "ends_on": ["close"],
               "charge_on": "close"}');
           SELECT talkmeter.define_policy('{"name": "agent_red", "label": "2.0.0", "starts_on": ["customer_message"],
               "ends_on": ["close"], "charge_on": "first_ai_reply", "effective_from": "2026-01-01T00:00:00Z"}');
           SELECT talkmeter.define_plan('{"name": "two", "included": 2, "overage_rate": 0.125, "currency": "EUR"}');
           SELECT talkmeter.define_pack(
               '{"name": "one", "size": 1, "price": 1, "currency": "EUR", "valid_for": "90 days"}');
           SELECT talkmeter.define_plan('{"name": "by outcome", "included": 0, "overage_rate": 0.99, "currency": "EUR",
               "rates": {"sale": 9.990}}');
           SELECT talkmeter.define_pack(
               '{"name": "lasting", "size": 1, "price": 1, "currency": "EUR", "valid_for": "never"}');
           SELECT talkmeter.subscribe('small', 'two', since => '2026-01-01', anchor_day => 15, policy => 'agent_red@1');
           SELECT talkmeter.buy_pack('small', 'one', 'order 1', now() - interval '1 day');
           SELECT talkmeter.buy_pack('small', 'lasting')"#,
    );
    for (table, policy) in [("messages", "lutingenie"), ("zebra.messages", "own"), ("former", "agent_red")] {
        say(&mut session, table, "small", "of before", "10:00 exchange");
        attach(&mut session, table, policy, None, &messages_mapping());
        for conversation in ["a", "b", "c", "d", "test_e"] {
            let conversation = format!("{conversation} of {table}");
            say(&mut session, table, "small", &conversation, "now exchange, now unheard_of, now close");
        }
        say(&mut session, table, "planless", table, "now visit");
        say(&mut session, table, "small", &format!("open in {table}"), "now exchange, now staff_reply");
        let taken_back = format!("taken back in {table}");
        say(&mut session, table, "small", &taken_back, "now customer_message");
        let between = clock(&mut session);
        say(&mut session, table, "small", &taken_back, "now ai_reply");
        say(&mut session, table, "small", &taken_back, &format!("{between} error"));
    }
    session.run(
        r#"CREATE TABLE tickets (gone int, id text PRIMARY KEY, tenant_id text, status text);
           ALTER TABLE tickets DROP gone;
           INSERT INTO tickets VALUES ('open in messages', 'small', 'open'), ('a of messages', 'small', 'open');
           SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}}');
           UPDATE tickets SET status = 'done' WHERE id = 'a of messages';
           SELECT talkmeter.mark('small', 'open in messages', 'note');
           SELECT talkmeter.mark('planless', 'of no message', 'reopen');
           SELECT talkmeter.detach('former');
           SELECT talkmeter.sweep();
           UPDATE talkmeter.unplanned_unit SET outcome = 'sale'"#,
    );
    attach_turns(&mut session);
    session.run(MOVE_ASIDE);
    let tiers = "SELECT string_agg(DISTINCT tier, ' ' ORDER BY tier) FROM talkmeter.charges";
    assert_eq!(session.line(tiers), "included overage pack");
    assert_eq!(
        session.lines("SELECT DISTINCT problem FROM talkmeter.health() WHERE problem <> 'posted_late'"),
        ["quarantine"]
    );
    for relation in [
        "unplanned WHERE outcome = 'sale'",
        "plans WHERE rates IS NOT NULL",
        "packs",
        "packs WHERE expires_at = 'infinity'",
        "parts WHERE status = 'open' AND charged_at IS NOT NULL",
        "quarantine WHERE source IS NULL",
        "quarantine WHERE source = 'messages'::regclass",
        "charges WHERE reverses IS NOT NULL",
        "marked WHERE kind = 'close'",
        "marked WHERE kind = 'note'",
        "mappings WHERE mapping::text ~ 'staff_reply'",
        "source_gaps",
        "parts WHERE conversation = '1/a%2Fb'",
    ] {
        assert!(!session.lines(&format!("SELECT 1 FROM talkmeter.{relation}")).is_empty(), "{relation}");
    }
    for table in ["ended_part", "charge", "marked"] {
        assert!(!session.lines(&format!("SELECT 1 FROM talkmeter_archive.{table}")).is_empty(), "{table}");
    }
    database
}

/// What `archive` does, as if the periods of these conversations were finalized.
const MOVE_ASIDE: &str = "
    WITH moved AS (DELETE FROM ONLY talkmeter.ended_part WHERE conversation ~ '^[ab] of' RETURNING *)
    INSERT INTO talkmeter_archive.ended_part SELECT * FROM moved;
    WITH moved AS (DELETE FROM ONLY talkmeter.charge WHERE conversation ~ '^[ab] of' RETURNING *)
    INSERT INTO talkmeter_archive.charge SELECT * FROM moved;
    WITH moved AS (DELETE FROM ONLY talkmeter.marked WHERE conversation ~ '^a of' RETURNING *)
    INSERT INTO talkmeter_archive.marked SELECT * FROM moved";

/// A table whose conversations and messages have two columns each as their keys, whose answers have times of their own,
/// and that was detached for a while and mapped anew.
fn attach_turns(session: &mut Session) {
    let mapping = r#"{"tenant": "shop", "conversation": ["room", "topic"], "message_id": ["room", "n"],
        "occurred_at": "asked_at", "kinds": [{"kind": ["customer_message", {"ai_reply": {"occurred_at": "heard_at"}}]}]}"#;
    session.run(
        "CREATE TABLE turns (room int, n int, shop text DEFAULT 'small', topic text, asked_at timestamptz DEFAULT now(),
             heard_at timestamptz, PRIMARY KEY (room, n));
         CREATE INDEX ON turns (room, topic)",
    );
    attach(session, "turns", "lutingenie", None, mapping);
    session
        .run("INSERT INTO turns VALUES (1, 1, DEFAULT, 'a/b', DEFAULT, now()), (1, 2, DEFAULT, 'a/b', DEFAULT, NULL)");
    session.run("SELECT talkmeter.detach('turns'); INSERT INTO turns VALUES (2, 1)");
    attach(session, "turns", "lutingenie", None, mapping);
    let named = mapping.replace("\"ai_reply\"", "\"staff_reply\"");
    session.run(&format!("SELECT talkmeter.remap('turns', '{named}', since => now()), pg_sleep(0.001)"));
    session.run("INSERT INTO turns VALUES (1, 3, DEFAULT, 'a/b', DEFAULT, now())");
}

/// The time now, as a story may name it.
fn clock(session: &mut Session) -> String {
    session.line("SELECT clock_timestamp()").replace("+00", "")
}

/// Inserts rows into a table as [`tell`] does, ids counted on.
fn say(session: &mut Session, table: &str, tenant: &str, conversation: &str, story: &str) {
    let rows: Vec<String> = story
        .split(", ")
        .map(|event| {
            let (time, kind) = event.rsplit_once(' ').expect("a time and a kind");
            format!("(nextval('ids'), '{tenant}', '{conversation}', {}, '{kind}')", instant(time))
        })
        .collect();
    session.run(&format!(
        "INSERT INTO {table} (id, tenant_id, conversation_id, created_at, kind) VALUES {}",
        rows.join(", ")
    ));
}

// --- Dump and restore ---

/// Runs a program of the server's with some input and returns its output, or its complaint if it fails.
fn run(name: &str, arguments: &[&str], options: &str, input: &[u8]) -> Result<Vec<u8>, String> {
    let mut command = program(name);
    command.args(arguments).env("PGOPTIONS", options);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = thread::scope(|scope| {
        // A program that stops reads no further.
        scope.spawn(move || stdin.write_all(input).is_ok());
        child.wait_with_output().expect("the program ends")
    });
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn dump(database: &Database, arguments: &[&str]) -> Vec<u8> {
    run("pg_dump", &[&["-d", database.name()], arguments].concat(), "", b"").expect("a dump")
}

/// Runs a script up to its first error.
fn psql(database: &Database, options: &str, script: &[u8]) -> Result<(), String> {
    run("psql", &["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", database.name()], options, script).map(drop)
}

fn pg_restore(database: &Database, arguments: &[&str], dump: &[u8]) -> Result<(), String> {
    run("pg_restore", &[&["-d", database.name()], arguments].concat(), "", dump).map(drop)
}

/// Every row of every table and view of talkmeter's, and all that it has to tell of its health.
fn contents(session: &mut Session) -> Vec<String> {
    let relations = session.lines(
        "SELECT oid::regclass FROM pg_class
         WHERE relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace) AND relkind IN ('r', 'v')
             AND relname NOT IN ('clock', 'installation')",
    );
    assert!(relations.len() > 20);
    let all = relations.iter().map(|relation| format!("SELECT '{relation}', t::text FROM {relation} AS t"));
    let health = "SELECT 'health()', t::text FROM talkmeter.health() AS t WHERE problem <> 'posted_late'".to_owned();
    session.lines(&format!("{} ORDER BY 1, 2", all.chain([health]).collect::<Vec<_>>().join(" UNION ALL ")))
}

/// The restored database says what the original says, and goes on from there.
fn assert_brought_back(original: &Database, restored: &Database) {
    let mut session = restored.connect();
    assert_same_rows(&contents(&mut session), &contents(&mut original.connect()));
    assert_goes_on(&mut session, "messages", "open in messages");
    assert_goes_on(&mut session, "zebra.messages", "open in zebra.messages");
    assert_goes_on(&mut session, "zebra.small", "open in zebra.messages");
    session.run("UPDATE tickets SET status = 'done' WHERE id = 'open in messages'");
    let end = "SELECT end_reason FROM talkmeter.parts WHERE conversation = 'open in messages'";
    assert_eq!(session.lines(end), ["close"]);
    let turns = "SELECT concat_ws(' ', message_count, ai_replies, staff_replies) FROM talkmeter.parts
         WHERE conversation = '1/a%2Fb'";
    assert_eq!(session.lines(turns), ["5 1 1"]);
    session.run("INSERT INTO turns VALUES (1, 4, DEFAULT, 'a/b', DEFAULT, now())");
    session.run("UPDATE turns SET heard_at = asked_at WHERE n = 2");
    assert_eq!(session.lines(turns), ["8 2 2"]);
    // What was detached stays so.
    let before = traces(&mut session);
    say(&mut session, "former", "small", "after", "now exchange");
    assert_eq!(traces(&mut session), before);
}

/// The next message of an open part is counted in it, so is a late one, and one that is changed is not any more; a new
/// part is charged once, under the next number.
fn assert_goes_on(session: &mut Session, table: &str, open: &str) {
    let count = |session: &mut Session| -> i64 {
        let count = format!("SELECT message_count FROM talkmeter.parts WHERE conversation = '{open}'");
        session.line(&count).parse().expect("a number")
    };
    let last_charge = |session: &mut Session| -> i64 {
        let last = "SELECT max(charge_id) FROM talkmeter.charges WHERE tenant = 'small'";
        session.line(last).parse().expect("a number")
    };
    let (counted, charged) = (count(session), last_charge(session));
    let before = clock(session);
    say(session, table, "small", open, "now ai_reply");
    assert_eq!(count(session), counted + 1, "{table}");
    say(session, table, "small", open, &format!("{before} customer_message"));
    assert_eq!(count(session), counted + 2, "{table}");
    session
        .run(&format!("UPDATE {table} SET kind = 'note' WHERE conversation_id = '{open}' AND created_at = '{before}'"));
    assert_eq!(count(session), counted + 1, "{table}");
    assert_eq!(last_charge(session), charged, "{table}");
    let new = format!("new in {table}");
    say(session, table, "small", &new, "now exchange");
    let charges = session.lines(&format!("SELECT charge_id FROM talkmeter.charges WHERE conversation = '{new}'"));
    assert_eq!(charges, [(charged + 1).to_string()], "{table}");
}

// --- In one pass ---

#[test]
fn a_plain_dump_brings_everything_back() {
    let original = original();
    let restored = Database::empty("restored");
    psql(&restored, "", &dump(&original, &[])).expect("a restore without error");
    assert_brought_back(&original, &restored);
}

#[test]
fn a_custom_dump_brings_everything_back() {
    let original = original();
    let restored = Database::empty("restored");
    pg_restore(&restored, &[], &dump(&original, &["-Fc"])).expect("a restore without error");
    // The dump of a restored database is as good.
    let again = Database::empty("again");
    pg_restore(&again, &[], &dump(&restored, &["-Fc"])).expect("a restore without error");
    assert_brought_back(&original, &restored);
    assert_brought_back(&original, &again);
}

#[test]
fn what_is_shipped_is_not_dumped() {
    let database = Database::fresh("untouched");
    let dumped = String::from_utf8(dump(&database, &["--data-only"])).expect("text");
    let rows: Vec<_> = dumped.lines().filter(|line| line.contains("agent_red")).collect();
    assert_eq!(rows, [""; 0]);
}

#[test]
fn every_table_is_dumped_but_the_one_that_tells_a_restored_database_from_a_copy() {
    let database = Database::fresh("extconfig");
    let mut session = database.connect();
    let left_out = session.lines(
        "SELECT c.oid::regclass FROM pg_class AS c
         WHERE c.relnamespace IN ('talkmeter'::regnamespace, 'talkmeter_archive'::regnamespace)
             AND c.relkind IN ('r', 'p', 'S') AND NOT EXISTS (
             SELECT FROM pg_extension AS e WHERE e.extname = 'talkmeter' AND c.oid = ANY (e.extconfig))",
    );
    assert_eq!(left_out, ["talkmeter.installation"]);
}

/// A database whose table was attached, then changed, and then swept, restored from a dump.
fn restored_after(change: &str) -> (Database, Session) {
    let original = Database::with_messages("original", "lutingenie", Some("agent_red/starter"));
    original.connect().run(change);
    original.connect().run("SELECT talkmeter.sweep()");
    let restored = Database::empty("restored");
    psql(&restored, "", &dump(&original, &[])).expect("a restore without error");
    let session = restored.connect();
    (restored, session)
}

#[test]
fn a_renamed_column_is_followed_into_the_restored_database() {
    let (_database, mut session) = restored_after("ALTER TABLE messages RENAME kind TO event");
    session.run("INSERT INTO messages (tenant_id, conversation_id, event) VALUES ('acme', 'c', 'exchange')");
    assert_eq!(session.lines("SELECT reason, detail FROM talkmeter.quarantine"), [""; 0]);
    assert_eq!(session.lines("SELECT conversation, message_count FROM talkmeter.parts"), ["c|2"]);
}

#[test]
fn a_new_column_does_not_stand_in_for_a_renamed_one_in_the_restored_database() {
    let (_database, mut session) =
        restored_after("ALTER TABLE messages RENAME kind TO event; ALTER TABLE messages ADD kind text");
    session
        .run("INSERT INTO messages (tenant_id, conversation_id, event, kind) VALUES ('acme', 'c', 'note', 'exchange')");
    assert_eq!(session.lines("SELECT conversation, message_count FROM talkmeter.parts"), [""; 0]);
}

// --- Tables that were dropped ---

/// Two attached tables, of which one holds the first part of a conversation, and one the second.
fn in_two_tables() -> (Database, Session) {
    let (database, mut session) = metered("lutingenie");
    session.run("CREATE TABLE old_messages (LIKE messages INCLUDING ALL)");
    attach(&mut session, "old_messages", "lutingenie", Some("agent_red/starter"), &messages_mapping());
    session.run(
        "INSERT INTO old_messages (tenant_id, conversation_id, created_at, kind) VALUES
             ('acme', 'c', '2026-03-01 08:00+00', 'visit'), ('acme', 'c', '2026-03-01 08:00+00', 'unheard_of')",
    );
    tell(&mut session, "acme", "c", "12:00 exchange");
    (database, session)
}

const DROPPED: &str = "SELECT object FROM talkmeter.health() WHERE problem = 'table_dropped'";
const WAITING: &str = "SELECT reason FROM talkmeter.quarantine";

#[test]
fn a_table_that_was_dropped_is_detached_by_the_next_sweep_and_its_number_is_in_no_dump() {
    let (database, mut session) = in_two_tables();
    session.run(
        "CREATE TABLE parted (LIKE messages INCLUDING DEFAULTS) PARTITION BY LIST (tenant_id);
         CREATE TABLE part_1 PARTITION OF parted FOR VALUES IN ('p'); CREATE UNIQUE INDEX ON parted (id, tenant_id)",
    );
    attach(&mut session, "parted", "lutingenie", None, &messages_mapping());
    session.run("DROP TABLE old_messages; DROP TABLE part_1");
    assert_eq!(session.lines(DROPPED), ["public.old_messages"]);
    assert_eq!(session.lines(WAITING), ["no_kind"]);
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.lines(DROPPED), [""; 0]);
    assert_eq!(session.lines(WAITING), [""; 0], "a row that is gone leaves");
    let noted = "SELECT arguments ->> 'source' FROM talkmeter.journal WHERE call = 'detach'";
    assert_eq!(session.lines(noted), ["public.old_messages"]);
    let numbers = "SELECT relation, members FROM talkmeter.source ORDER BY source_id";
    assert_eq!(session.lines(numbers), ["messages|{messages}", "|{}", "parted|{parted}"]);
    let restored = Database::empty("restored");
    psql(&restored, "", &dump(&database, &[])).expect("a restore without error");
    assert_eq!(restored.connect().lines(DROPPED), [""; 0]);
    tell(&mut session, "acme", "c", "12:01 exchange, 11:59 exchange");
    assert_eq!(session.lines(WAITING), [""; 0]);
}

#[test]
fn a_table_with_the_number_of_one_that_was_dropped_before_the_dump_is_neither_read_nor_taken_for_it() {
    let (_database, mut session) = in_two_tables();
    session.run("DROP TABLE old_messages; CREATE TABLE other (LIKE messages INCLUDING ALL)");
    // As in a restored database: the number that was dumped is another table's there.
    session.run(
        "UPDATE talkmeter.source SET relation = 'other'::regclass, relation_origin = 'elsewhere',
             members = ARRAY['other'::regclass] WHERE relation_name = 'public.old_messages'",
    );
    tell(&mut session, "acme", "c", "12:01 exchange, 11:59 exchange");
    assert_eq!(session.lines(WAITING), ["no_kind"]);
    assert_eq!(session.line("SELECT message_count FROM talkmeter.parts WHERE part = 2"), "6");
    session.run("SELECT talkmeter.sweep()");
    let problems = "SELECT problem, object FROM talkmeter.health() WHERE problem NOT IN ('quarantine', 'posted_late')";
    assert_eq!(session.lines(problems), ["table_dropped|public.old_messages"]);
    // It can be attached, as a table of its own.
    attach(&mut session, "other", "lutingenie", None, &messages_mapping());
    assert_eq!(session.lines(problems), [""; 0]);
    assert_eq!(
        session.lines("SELECT source_id, relation FROM talkmeter.source ORDER BY 1"),
        ["1|messages", "2|", "3|other"]
    );
    session.run("INSERT INTO other (tenant_id, conversation_id, kind) VALUES ('acme', 'd', 'exchange')");
    tell(&mut session, "acme", "d", "now exchange");
    assert_eq!(session.line("SELECT sources FROM talkmeter.conversation WHERE conversation = 'd'"), "{3,1}");
}

// --- Schema first, data later ---

/// A database that has the tables and triggers of the original's, and no rows.
fn with_schema_of(original: &Database) -> Database {
    let restored = Database::empty("restored");
    psql(&restored, "", &dump(original, &["--schema-only"])).expect("a schema without error");
    restored
}

#[test]
fn data_loaded_with_triggers_disabled_is_not_metered_again() {
    let original = original();
    let restored = with_schema_of(&original);
    psql(&restored, "", &dump(&original, &["--data-only", "--disable-triggers"])).expect("data without error");
    assert_brought_back(&original, &restored);
    let restored = with_schema_of(&original);
    let custom = dump(&original, &["-Fc"]);
    pg_restore(&restored, &["--data-only", "--disable-triggers"], &custom).expect("data without error");
    assert_brought_back(&original, &restored);
}

#[test]
fn data_loaded_in_replica_role_is_not_metered_again() {
    let original = original();
    let restored = with_schema_of(&original);
    psql(&restored, "-c session_replication_role=replica", &dump(&original, &["--data-only"]))
        .expect("data without error");
    assert_brought_back(&original, &restored);
}

/// Data of message tables in a schema, loaded while their triggers are on.
fn data_loaded_with_triggers_on(schema: &str) {
    let original = Database::fresh("original");
    let mut session = original.connect();
    session.run(&format!("CREATE SCHEMA IF NOT EXISTS {schema}; SET search_path = {schema}"));
    create_messages(&mut session);
    tell(&mut session, "acme", "of before", "10:00 exchange");
    attach(&mut session, "messages", "lutingenie", Some("agent_red/starter"), &messages_mapping());
    tell(&mut session, "acme", "c", "now exchange");

    let restored = with_schema_of(&original);
    psql(&restored, "", &dump(&original, &["--data-only"])).expect("data without error");
    assert_same_rows(&contents(&mut restored.connect()), &contents(&mut original.connect()));
    let restored = with_schema_of(&original);
    pg_restore(&restored, &["--data-only"], &dump(&original, &["-Fc"])).expect("data without error");
    assert_same_rows(&contents(&mut restored.connect()), &contents(&mut original.connect()));
    let mut restored = restored.connect();
    restored.run(&format!("SET search_path = {schema}"));
    tell(&mut restored, "acme", "new", "now exchange");
    assert_eq!(restored.lines("SELECT conversation FROM talkmeter.charges ORDER BY 1"), ["c", "new"]);
}

#[test]
fn data_loaded_before_that_of_talkmeter_is_not_metered_again() {
    data_loaded_with_triggers_on("public");
}

#[test]
fn data_loaded_after_that_of_talkmeter_is_not_metered_again() {
    data_loaded_with_triggers_on("zebra");
}

#[test]
fn books_that_are_loaded_beside_triggers_by_what_is_no_restore_are_refused() {
    let original = original();
    let restored = with_schema_of(&original);
    let script = String::from_utf8(dump(&original, &["--data-only"])).expect("a plain dump");
    let by_hand = script.replace("SET check_function_bodies = false;", "");
    let complaint = psql(&restored, "", by_hand.as_bytes()).expect_err("books beside triggers");
    assert!(complaint.contains("has a trigger of talkmeter's already"), "{complaint}");
}

/// Who writes messages and does not own the table cannot keep them from being metered by the settings of a restore.
#[test]
fn an_application_cannot_pass_for_a_restore() {
    let (database, mut session) = metered("lutingenie");
    let application = database.role("application");
    session.run(&format!(
        "GRANT INSERT ON messages TO {application}; GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {application}"
    ));
    let write = "SET search_path = ''; SET check_function_bodies = off;
        INSERT INTO public.messages (tenant_id, conversation_id, kind) VALUES ('acme', current_user, 'exchange')";
    database.connect_as(&application).run(write);
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.charges"), [application]);
    // The owner, who may disable the triggers, is warned.
    let (mut owner, heard) = database.connect_heard();
    owner.run(write);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.charges"), "1");
    assert!(heard.lock().expect("a lock").iter().any(|line| line.contains("restored and not metered")));
}

// --- In parallel ---

/// A directory of a test's own.
struct Scratch(PathBuf);

impl Scratch {
    fn of(database: &Database) -> Scratch {
        let directory = std::env::temp_dir().join(format!("talkmeter-{}", database.name()));
        std::fs::create_dir(&directory).expect("a new directory");
        Scratch(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path of ours").to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_dump_that_several_jobs_restore_brings_everything_back() {
    let original = original();
    let scratch = Scratch::of(&original);
    let (file, directory) = (scratch.path("dump"), scratch.path("dump.d"));
    run("pg_dump", &["-Fc", "-f", &file, original.name()], "", &[]).expect("a dump");
    run("pg_dump", &["-Fd", "-j", "3", "-f", &directory, original.name()], "", &[]).expect("a dump");
    for (jobs, from) in [("2", &file), ("3", &file), ("4", &directory), ("8", &directory)] {
        let restored = Database::empty("restored");
        pg_restore(&restored, &["-j", jobs, from], &[]).expect("a restore without error");
        assert_brought_back(&original, &restored);
    }
}

// --- In pieces ---

/// The problems that are told of tables, and not of what waits.
const OF_TABLES: &str =
    "SELECT problem, object FROM talkmeter.health() WHERE problem NOT IN ('posted_late', 'quarantine') ORDER BY 1, 2";

#[test]
fn a_table_or_a_schema_alone_lets_the_application_go_on_and_health_says_what_is_missing() {
    let original = original();
    let messages = ("messages", vec!["not_attached|public.messages"]);
    let zebra = ("zebra.messages", vec!["not_attached|zebra.messages"]);
    for (part, (table, problems)) in [(["-t", "messages"], messages), (["-n", "zebra"], zebra)] {
        let restored = Database::fresh("restored");
        let mut session = restored.connect();
        session.run("CREATE SEQUENCE ids START 1000000");
        psql(&restored, "", &dump(&original, &part)).expect("a restore without error");
        say(&mut session, table, "small", "c", "now exchange");
        session.run(&format!("UPDATE {table} SET kind = 'note'; DELETE FROM {table}"));
        let told = session.lines(OF_TABLES);
        problems.iter().for_each(|problem| assert!(told.iter().any(|told| told == problem), "{told:?}"));
        assert_eq!(traces(&mut session), [""; 0]);
        // It is attached by the same call as ever, and then is in order.
        attach(&mut session, table, "lutingenie", None, &messages_mapping());
        assert_eq!(session.lines(OF_TABLES), [""; 0]);
        say(&mut session, table, "small", "c", "now exchange");
        assert_eq!(session.lines("SELECT message_count FROM talkmeter.parts"), ["2"]);
    }
}

#[test]
fn a_schema_without_data_lets_the_application_go_on_and_health_says_what_is_missing() {
    let original = original();
    let restored = with_schema_of(&original);
    let mut session = restored.connect();
    for table in ["messages", "zebra.messages", "former"] {
        say(&mut session, table, "small", "c", "now exchange");
        session.run(&format!("UPDATE {table} SET kind = 'note'; DELETE FROM {table}"));
    }
    session.run("INSERT INTO turns (room, n) VALUES (1, 1); INSERT INTO tickets (id, status) VALUES ('c', 'done')");
    let told = session.lines(OF_TABLES);
    for table in ["public.messages", "public.tickets", "public.turns", "zebra.messages"] {
        assert!(told.contains(&format!("not_attached|{table}")), "{table}: {told:?}");
    }
    assert!(!told.iter().any(|told| told.contains("former")), "{told:?}");
    assert_eq!(traces(&mut session), [""; 0]);
}

#[test]
fn a_server_that_has_none_of_the_roles_brings_back_the_same_bill() {
    let original = original();
    let mut session = original.connect();
    let (owner, tenant) = (original.role("owner"), original.role("tenant"));
    session.run(&format!(
        "GRANT ALL ON SCHEMA public TO {owner}; ALTER TABLE messages OWNER TO {owner};
         SELECT talkmeter.grant_tenant('{tenant}', 'small')"
    ));
    let all = dump(&original, &["-Fc"]);
    let bill = "SELECT tenant, charge_id, conversation, part, amount FROM talkmeter.charges ORDER BY 1, 2";
    let wanted = session.lines(bill);
    drop((session, original));
    let restored = Database::empty("restored");
    let mut session = restored.connect();
    assert_eq!(session.lines(&format!("SELECT FROM pg_roles WHERE rolname IN ('{owner}', '{tenant}')")), [""; 0]);
    pg_restore(&restored, &["--no-owner", "--no-privileges"], &all).expect("a restore without error");
    assert_same_rows(&session.lines(bill), &wanted);
    assert_goes_on(&mut session, "messages", "open in messages");
    // Who has no role here has no right here, and the sweep forgets it.
    session.run("SELECT talkmeter.sweep()");
    assert_eq!(session.lines(OF_TABLES), [""; 0]);
    assert_eq!(session.lines("SELECT * FROM talkmeter.tenant_reader"), [""; 0]);
}

// --- DROP EXTENSION ---

#[test]
fn the_extension_is_not_dropped_while_a_table_is_attached() {
    let database = Database::with_messages("attached", "lutingenie", None);
    let mut session = database.connect();
    assert_eq!(session.refused("DROP EXTENSION talkmeter"), SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
    tell(&mut session, "acme", "c", "10:00 exchange");
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.parts"), ["c"]);
}

#[test]
fn the_extension_is_dropped_without_a_trace_and_can_be_created_again() {
    let database = Database::fresh("dropped");
    let mut session = database.connect();
    let catalogs =
        "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_type),
        (SELECT count(*) FROM pg_namespace), (SELECT count(*) FROM pg_trigger), (SELECT count(*) FROM pg_depend)";
    session.run("DROP EXTENSION talkmeter");
    create_messages(&mut session);
    let before = session.line(catalogs);
    session.run("CREATE EXTENSION talkmeter");
    // A session that meters before and after, as an application's does.
    let mut application = database.connect();
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    tell(&mut application, "acme", "first", "10:00 exchange");
    session.run("SELECT talkmeter.detach('messages'); DROP EXTENSION talkmeter");
    assert_eq!(session.line(catalogs), before);
    tell(&mut application, "acme", "between", "10:00 exchange");
    assert_eq!(session.lines("SELECT conversation_id FROM messages ORDER BY id"), ["first", "between"]);
    session.run("CREATE EXTENSION talkmeter");
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    tell(&mut application, "acme", "second", "now exchange");
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.parts"), ["second"]);
}

#[test]
fn dropped_together_with_the_triggers_it_leaves_the_tables_as_they_are_and_metering_starts_anew() {
    let database = Database::with_messages("cascade", "lutingenie", None);
    let mut session = database.connect();
    session.run(
        r#"CREATE TABLE tickets (id text PRIMARY KEY, tenant_id text, status text);
           SELECT talkmeter.attach_status('tickets', '{"status": {"done": "close"}}')"#,
    );
    let (mut application, heard) = database.connect_heard();
    tell(&mut application, "acme", "before", "10:00 exchange");
    session.run("DROP EXTENSION talkmeter CASCADE");
    tell(&mut application, "acme", "between", "10:00 exchange");
    application.run("INSERT INTO tickets VALUES ('before', 'acme', 'open'); UPDATE tickets SET status = 'done'");
    let left = "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal
         UNION ALL SELECT evtname FROM pg_event_trigger
         UNION ALL SELECT nspname FROM pg_namespace WHERE nspname ~ 'talkmeter'";
    assert_eq!(session.lines(left), [""; 0]);

    session.run("CREATE EXTENSION talkmeter");
    assert_eq!(traces(&mut session), [""; 0]);
    tell(&mut application, "acme", "not attached", "10:00 exchange");
    attach(&mut session, "messages", "lutingenie", None, &messages_mapping());
    tell(&mut application, "acme", "after", "now exchange");
    assert_eq!(session.lines("SELECT conversation FROM talkmeter.parts"), ["after"]);
    // What is left of before are the messages: they can be counted anew.
    session.run("CALL talkmeter.backfill('messages', '2026-03-01', '2026-04-01')");
    let counted = session.lines("SELECT conversation FROM talkmeter.parts ORDER BY 1");
    assert_eq!(counted, ["after", "before", "between", "not attached"]);
    assert_eq!(*heard.lock().expect("no other thread"), [""; 0]);
}
