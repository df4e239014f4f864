//! Is each client's work metered as its own, when two hundred of them share eight connections of pgbouncer's?

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use talkmeter_tests::pages::Workplace;
use talkmeter_tests::{Database, Session, assert_same_rows, metered, program, variable};

const CLIENTS: usize = 200;
const CONNECTIONS: usize = 8;
/// Transactions of each client.
const TRANSACTIONS: usize = 15;

/// A pgbouncer in transaction mode before one database, on a socket of its own; stopped and removed at the end.
struct Pooler {
    process: Child,
    directory: String,
}

impl Pooler {
    fn before(database: &Database) -> Pooler {
        let directory = format!("{}/b_{}", variable("TALKMETER_DIR"), database.name());
        fs::create_dir_all(&directory).expect("a directory");
        let (host, port, user) = (variable("PGHOST"), variable("PGPORT"), variable("PGUSER"));
        let settings = format!(
            "[databases]\n{name} = host={host} port={port} user={user}\n\
             [pgbouncer]\nlisten_addr =\nlisten_port = 6432\nunix_socket_dir = {directory}\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {CONNECTIONS}\nmax_client_conn = 300\n",
            name = database.name()
        );
        let file = format!("{directory}/settings");
        fs::write(&file, settings).expect("the settings");
        let owner = variable("TALKMETER_RUN_AS");
        let mut command = Command::new(if owner.is_empty() { "env" } else { "runuser" });
        if !owner.is_empty() {
            let done = Command::new("chown").args(["-R", &owner, &directory]).status().expect("chown");
            assert!(done.success());
            command.args(["-u", &owner, "--"]);
        }
        command.args(["pgbouncer", "-q", &file]).stdout(Stdio::null()).stderr(Stdio::null());
        // Debian has it where only root looks.
        command.env("PATH", format!("{}:/usr/sbin", variable("PATH")));
        let pooler = Pooler { process: command.spawn().expect("pgbouncer"), directory };
        let started = Instant::now();
        while !fs::exists(format!("{}/.s.PGSQL.6432", pooler.directory)).expect("a directory") {
            assert!(started.elapsed() < Duration::from_secs(20), "pgbouncer does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        pooler
    }

    /// All clients at once run transactions of these scripts, as often one as another.
    fn run(&self, database: &Database, scripts: &[&str]) {
        let files: Vec<String> = (0..scripts.len()).map(|index| format!("{}/{index}.sql", self.directory)).collect();
        files.iter().zip(scripts).for_each(|(file, script)| fs::write(file, script).expect("a script"));
        let mut command = program("pgbench");
        command.args(["-n", "-M", "extended", "-h", &self.directory, "-p", "6432", "-j", "2"]);
        command.args(["-c", &CLIENTS.to_string(), "-t", &TRANSACTIONS.to_string()]);
        for file in &files {
            command.args(["-f", file]);
        }
        let done = command.arg(database.name()).output().expect("pgbench");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // runuser passes it on, and so may not be killed outright.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn numbers(session: &mut Session, sql: &str) -> Vec<i64> {
    session.line(sql).split('|').map(|number| number.parse().expect("a number")).collect()
}

const INSERT: &str = "INSERT INTO messages (tenant_id, conversation_id, created_at, kind)
    VALUES ('tenant ' || :client_id % 7, :name || ' ' || :client_id, clock_timestamp(), 'exchange');\n";

fn insert(name: &str) -> String {
    INSERT.replace('\n', " ").replace(":name", &format!("'{name}'"))
}

#[test]
fn two_hundred_clients_on_eight_connections_are_each_metered_by_what_they_commit() {
    let (database, mut session) = metered("lutingenie");
    session.run("CREATE ROLE pooled_writer; GRANT INSERT ON messages TO pooled_writer");
    let pooler = Pooler::before(&database);
    pooler.run(
        &database,
        &[
            &format!("{}\n", insert("single")),
            &format!("BEGIN;\n{}\n{}\nCOMMIT;\nDISCARD ALL;\n", insert("both"), insert("both")),
            // What one client leaves behind on a connection is not the next one's.
            &format!("BEGIN;\n{}\nSELECT talkmeter.flush();\n{}\nROLLBACK;\n", insert("ghost"), insert("ghost")),
            &format!("BEGIN;\nSAVEPOINT s;\n{}\nROLLBACK TO s;\n{}\nCOMMIT;\n", insert("ghost"), insert("kept")),
            &format!("BEGIN;\nSET LOCAL ROLE pooled_writer;\n{}\nCOMMIT;\n", insert("of a role")),
            &format!(
                "BEGIN;\nPREPARE told (text) AS INSERT INTO messages (tenant_id, conversation_id, created_at, kind) \
                 VALUES ('tenant', $1, clock_timestamp(), 'exchange');\nEXECUTE told('prepared');\n\
                 DEALLOCATE told;\n{}\nCOMMIT;\n",
                insert("beside")
            ),
        ],
    );
    let connections = numbers(
        &mut session,
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )[0];
    assert!((1..=CONNECTIONS as i64).contains(&connections), "{connections} connections");
    drop(pooler);
    // An exchange is two messages to the meter.
    let written = session.lines("SELECT conversation_id, 2 * count(*) FROM messages GROUP BY 1 ORDER BY 1");
    assert!(written.len() > 500, "{} conversations", written.len());
    let counted = "SELECT conversation, sum(message_count) FROM talkmeter.parts GROUP BY 1 ORDER BY 1";
    assert_same_rows(&session.lines(counted), &written);
    assert_eq!(session.line("SELECT count(*) FROM messages WHERE conversation_id LIKE 'ghost%'"), "0");
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
    assert_eq!(session.lines("SELECT problem FROM talkmeter.verify()"), [""; 0]);
    session.run("DROP OWNED BY pooled_writer; DROP ROLE pooled_writer");
}

/// Each client opens more connections than the pooler has.
#[test]
fn psycopg_and_node_postgres_are_metered_behind_it_if_nothing_is_prepared_by_name() {
    let (database, mut session) = metered("lutingenie");
    let pooler = Pooler::before(&database);
    let clients = Workplace::new("drivers", &database);
    // pgbouncer takes no options.
    let python = format!(
        r#"
import os, psycopg
del os.environ["PGOPTIONS"]
conns = [psycopg.connect(host="{}", port=6432, prepare_threshold=None) for _ in range(12)]
for turn in range(12):
    for number, conn in enumerate(conns):
        with conn.transaction():
            conn.execute("INSERT INTO messages (tenant_id, conversation_id, kind) VALUES (%s, %s, 'exchange')", ["python", str(number)])
        with conn.transaction():
            conn.execute("SELECT talkmeter.balance(%s)", ["python"])
"#,
        pooler.directory
    );
    let node = format!(
        r#"
delete process.env.PGOPTIONS;
const pool = new (require('pg').Pool)({{ host: '{}', port: 6432, max: 12 }});
const insert = (number) => pool.query(
  "INSERT INTO messages (tenant_id, conversation_id, kind) VALUES ($1, $2, 'exchange')", ['node', String(number % 12)]);
Promise.all(Array.from({{ length: 144 }}, (_, number) => insert(number))).then(() => pool.end());
"#,
        pooler.directory
    );
    for (language, program) in [("python", python), ("js", node)] {
        let (said, failed) = clients.answer(language, &program);
        assert!(!failed, "{language}: {said}");
    }
    drop(pooler);
    let counted = "SELECT tenant, count(*), sum(message_count) FROM talkmeter.parts GROUP BY 1 ORDER BY 1";
    assert_eq!(session.lines(counted), ["node|12|288", "python|12|288"]);
    assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
}
