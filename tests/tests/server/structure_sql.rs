//! Does the schema of an attached table, as Rails dumps it, load where talkmeter is not, and is it metered where it is?

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use talkmeter_tests::pages::{Workplace, pieces};
use talkmeter_tests::stock::Stock;
use talkmeter_tests::{Database, PLAN, Session, program};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(path).expect("a file of the repository")
}

/// A Rails application whose files are those that docs/clients.md shows.
fn rails(database: &Database) -> Workplace {
    let workplace = Workplace::new("clients", database);
    let page = file("docs/clients.md");
    let chapter = page.split("\n## ").find(|chapter| chapter.starts_with("Rails\n")).expect("the chapter");
    for block in pieces(chapter).iter().filter(|block| block.language.as_deref() == Some("ruby")) {
        workplace.put(block);
    }
    workplace
}

fn rake(rails: &Workplace, commands: &str) {
    let (said, failed) = rails.answer("bash", commands);
    assert!(!failed, "{commands}\n{said}");
}

fn answer(chats: &mut Session) {
    chats.run(
        "INSERT INTO chats (account_id, conversation_id, sender, created_at, updated_at)
         VALUES (1, 1, 'customer', now() AT TIME ZONE 'UTC', now()), (1, 1, 'ai', now() AT TIME ZONE 'UTC', now())",
    );
}

/// A schema as Rails dumped it, but for what pg_dump draws anew each time.
fn schema(rails: &Workplace, dumped: &str) -> String {
    let text = fs::read_to_string(rails.directory().join(dumped)).expect("a schema");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('\\')).collect();
    lines.join("\n")
}

/// The application's schema in that format of Rails', dumped where its table is attached.
fn what_rails_dumps_loads_everywhere(format: &str, dumped: &str) {
    let developed = Database::empty("developed");
    let application = rails(&developed);
    let format = format!("export SCHEMA_FORMAT={format}");
    // The first time the table is attached after the dump.
    rake(&application, &format!("{format}; rake db:migrate; rake db:schema:dump"));
    let mut session = developed.connect();
    assert_eq!(session.lines("SELECT source FROM talkmeter.sources"), ["chats"]);
    let first = schema(&application, dumped);
    assert!(first.contains("chats") && !first.contains("talkmeter"), "{first}");

    let stock = Stock::start();
    let mut elsewhere = stock.create("app");
    let there = format!("{format} PGHOST={} PGPORT=5432 PGDATABASE=app", stock.directory());
    rake(&application, &format!("{there}; rake db:create db:schema:load"));
    answer(&mut elsewhere);
    // Nor does the stub get into a dump.
    elsewhere.run(&file("dev/talkmeter_stub.sql"));
    rake(&application, &format!("{there}; rake db:schema:dump"));
    assert_eq!(schema(&application, dumped), first);

    let made = Database::empty("made");
    rake(&application, &format!("{format} PGDATABASE={}; rake db:create db:schema:load", made.name()));
    let mut session = made.connect();
    answer(&mut session);
    assert_eq!(session.lines("SELECT tenant, conversation, tier FROM talkmeter.charges"), ["1|1|included"]);
    assert_eq!(session.lines("SELECT problem FROM talkmeter.health()"), [""; 0]);
    drop_database_of_tests(&made);
}

/// Whoever develops has one beside his own.
fn drop_database_of_tests(developed: &Database) {
    developed.connect().run(&format!("DROP DATABASE {}_test WITH (FORCE)", developed.name()));
}

#[test]
fn the_database_of_rails_tests_is_attached_too() {
    let developed = Database::empty("developed");
    let application = rails(&developed);
    rake(&application, "rake db:migrate; rake db:test:prepare; RAILS_ENV=test rake talkmeter:attach talkmeter:attach");
    let of_tests = format!("{}_test", developed.name());
    let asked = "SELECT source FROM talkmeter.sources";
    let said = program("psql").args(["-X", "-At", "-d", &of_tests, "-c", asked]).output().expect("psql");
    assert_eq!(String::from_utf8_lossy(&said.stdout), "chats\n", "{said:?}");
    drop_database_of_tests(&developed);
}

#[test]
fn structure_sql_loads_where_talkmeter_is_not_and_is_metered_where_it_is() {
    what_rails_dumps_loads_everywhere("sql", "db/structure.sql");
}

#[test]
fn schema_rb_loads_where_talkmeter_is_not_and_is_metered_where_it_is() {
    what_rails_dumps_loads_everywhere("ruby", "db/schema.rb");
}

fn dump(database: &Database, arguments: &[&str]) -> Vec<u8> {
    let done = program("pg_dump").arg("--schema-only").args(arguments).arg(database.name()).output().expect("pg_dump");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

fn load(stock: &Stock, database: &str, sql: &[u8]) -> Output {
    let file = format!("{}/{database}.sql", stock.directory());
    fs::write(&file, sql).expect("a file");
    let mut psql: Command = program("psql");
    psql.args([
        "-X",
        "-q",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        stock.directory(),
        "-p",
        "5432",
        "-d",
        database,
        "-f",
        &file,
    ]);
    psql.stdout(Stdio::null()).output().expect("psql")
}

#[test]
fn a_dump_with_the_triggers_loads_beside_the_stub_and_not_with_the_extension() {
    let database = Database::with_messages("dumped", "lutingenie", PLAN);
    let mut session = database.connect();
    session.run(
        r#"CREATE TABLE conversations (id text PRIMARY KEY, tenant_id text, status text);
           SELECT talkmeter.attach_status('conversations', '{"status": {"done": "resolve"}}')"#,
    );
    let stock = Stock::start();
    stock.create("whole");
    let said = load(&stock, "whole", &dump(&database, &[]));
    assert!(String::from_utf8_lossy(&said.stderr).contains("extension \"talkmeter\" is not available"), "{said:?}");

    let mut session = stock.create("stubbed");
    session.run(&file("dev/talkmeter_stub.sql"));
    let said = load(&stock, "stubbed", &dump(&database, &["--extension=plpgsql"]));
    assert!(said.status.success(), "{said:?}");
    let triggers = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'talkmeter%'";
    assert_eq!(session.line(triggers), "6");
    session.run(
        "INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ('acme', 'c', 'exchange');
         UPDATE messages SET kind = 'note'; DELETE FROM messages; TRUNCATE messages;
         INSERT INTO conversations VALUES ('c', 'acme', 'open'); UPDATE conversations SET status = 'done'",
    );
    assert_eq!(session.line("SELECT status FROM conversations"), "done");
    // What changes over takes the triggers along.
    session.run("DROP SCHEMA talkmeter CASCADE");
    assert_eq!(session.line(triggers), "0");
}
