//! How does a test get a server of its own, with settings that need a start, a crash or a second server?

use crate::standby::{as_server, succeeds_as_server};
use crate::{Session, variable};
use postgres::{Config, NoTls};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// With it both of an upgrade: from release 18 on it is the default, before it is not.
const CHECKSUMS: &str = "--data-checksums";

/// A server of one test alone; stopped and removed at the end.
pub struct Server {
    /// Of its socket, its log and its data.
    directory: String,
    /// Where its programs are.
    programs: String,
}

impl Server {
    pub fn data(&self) -> String {
        format!("{}/data", self.directory)
    }

    fn at_new_place() -> Server {
        Server::of(variable("TALKMETER_BIN"))
    }

    /// One with these programs.
    fn of(programs: String) -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Short: a socket's path must stay under 100 characters.
        let directory = format!("{}/p{}_{number}", variable("TALKMETER_DIR"), std::process::id());
        Server { directory, programs }
    }

    /// One with these settings, such as `wal_level = logical`, that runs.
    pub fn with(settings: &[&str]) -> Server {
        let server = Server::empty(settings);
        server.start();
        server
    }

    fn empty(settings: &[&str]) -> Server {
        Server::at_new_place().made(&[], settings)
    }

    fn made(self, options: &[&str], settings: &[&str]) -> Server {
        let user = variable("PGUSER");
        let data = self.data();
        let usual = ["-D", &data, "--no-locale", "-E", "UTF8", "-A", "trust", "-U", &user, "--no-sync"];
        self.run("initdb", &[&usual, options].concat());
        self.set(&["fsync = off", "shared_buffers = 32MB", "listen_addresses = ''", "max_connections = 40"]);
        self.set(&["autovacuum_naptime = 1d", "max_prepared_transactions = 5"]);
        self.set(&[&format!("unix_socket_directories = '{}'", self.directory)]);
        self.set(settings);
        self
    }

    /// One of the release of which TALKMETER_OLD_BIN has the programs, if it is set, that runs and can be upgraded.
    pub fn of_old(settings: &[&str]) -> Server {
        let programs = std::env::var("TALKMETER_OLD_BIN").unwrap_or_else(|_| variable("TALKMETER_BIN"));
        let server = Server::of(programs).made(&[CHECKSUMS], settings);
        server.start();
        server
    }

    /// What `pg_upgrade --link` makes of it, which it stops: a server of the present release, that runs.
    pub fn upgraded(&self) -> Server {
        let new = Server::at_new_place().made(&[CHECKSUMS], &[]);
        self.stop("fast");
        let (old, user) = (self.data(), variable("PGUSER"));
        new.run(
            "pg_upgrade",
            &["-b", &self.programs, "-B", &new.programs, "-d", &old, "-D", &new.data(), "-U", &user, "--link"],
        );
        new.start();
        new
    }

    /// Runs a program of its release.
    fn run(&self, name: &str, arguments: &[&str]) {
        as_server(&format!("{}/{name}", self.programs), arguments);
    }

    /// A standby of it, with further settings, that runs.
    pub fn standby(&self, settings: &[&str]) -> Server {
        let standby = Server::at_new_place();
        let (source, user) = (&self.directory, variable("PGUSER"));
        as_server(
            "pg_basebackup",
            &["-h", source, "-U", &user, "-D", &standby.data(), "-R", "-c", "fast", "-X", "stream"],
        );
        standby.set(&[&format!("unix_socket_directories = '{}'", standby.directory)]);
        standby.set(settings);
        standby.start();
        standby
    }

    /// Where its socket is.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// Adds settings, which a start or a reload makes count.
    pub fn set(&self, settings: &[&str]) {
        let file = format!("{}/postgresql.conf", self.data());
        let mut file = OpenOptions::new().append(true).open(file).expect("the settings");
        settings.iter().for_each(|setting| writeln!(file, "{setting}").expect("a line more"));
    }

    pub fn start(&self) {
        let log = format!("{}/log", self.directory);
        self.run("pg_ctl", &["start", "-D", &self.data(), "-l", &log, "-s", "-w", "-t", "60"]);
    }

    /// Its first process, and no other server's.
    pub fn postmaster(&self) -> String {
        let file = fs::read_to_string(format!("{}/postmaster.pid", self.data())).expect("the server runs");
        let pid = file.lines().next().expect("a process number").to_owned();
        let runs = fs::read_link(format!("/proc/{pid}/exe")).expect("the server runs");
        assert_eq!(runs, PathBuf::from(&self.programs).join("postgres"));
        pid
    }

    /// Whether it is there: a test may have killed it.
    fn runs(&self) -> bool {
        let file = fs::read_to_string(format!("{}/postmaster.pid", self.data())).unwrap_or_default();
        let pid = file.lines().next().unwrap_or_default();
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|runs| runs.ends_with("postgres"))
    }

    /// A session that answers, after a crash. Starts the server if it has ended, once no process of the old one is left.
    pub fn connect_after_crash(&self, database: &str) -> Session {
        let log = format!("{}/log", self.directory);
        let started = Instant::now();
        loop {
            if !self.runs() {
                succeeds_as_server("pg_ctl", &["start", "-D", &self.data(), "-l", &log, "-s", "-w", "-t", "60"]);
            }
            // Right after the crash the server may still take a session, and end it.
            if let Ok(mut client) = self.config(database).connect(NoTls)
                && client.simple_query("SELECT").is_ok()
            {
                return Session { client };
            }
            assert!(started.elapsed() < Duration::from_secs(60), "the server does not answer");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// A backup that [`Server::restored`] begins with, in a directory beside its data.
    pub fn back_up(&self) {
        let (user, into) = (variable("PGUSER"), format!("{}/backup", self.directory));
        as_server("pg_basebackup", &["-h", &self.directory, "-U", &user, "-D", &into, "-c", "fast", "-X", "none"]);
    }

    /// The server as it was at an instant, from that backup and its archive.
    pub fn restored(&self, archive: &str, instant: &str) -> Server {
        let restored = Server::at_new_place();
        fs::create_dir(&restored.directory).expect("a new place");
        run("chown", &[&format!("--reference={}", self.directory), &restored.directory]);
        run("cp", &["-a", &format!("{}/backup", self.directory), &restored.data()]);
        restored.set(&["archive_mode = off", &format!("unix_socket_directories = '{}'", restored.directory)]);
        restored.set(&[&format!("restore_command = 'cp {archive}/%f %p'"), "recovery_target_action = promote"]);
        restored.set(&[&format!("recovery_target_time = '{instant}'")]);
        fs::write(format!("{}/recovery.signal", restored.data()), "").expect("a signal");
        restored.start();
        restored
    }

    pub fn stop(&self, mode: &str) {
        self.run("pg_ctl", &["stop", "-D", &self.data(), "-m", mode, "-s", "-w", "-t", "60"]);
    }

    pub fn promote(&self) {
        as_server("pg_ctl", &["promote", "-D", &self.data(), "-s", "-w", "-t", "60"]);
    }

    /// What it has written into its log.
    pub fn log(&self) -> String {
        let bytes = fs::read(format!("{}/log", self.directory)).expect("the log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host(&self.directory).port(5432).dbname(database).user(&variable("PGUSER"));
        config.options("-c TimeZone=UTC");
        config
    }

    /// A session of the superuser's, in UTC, as soon as the server takes one.
    pub fn connect(&self, database: &str) -> Session {
        let config = self.config(database);
        let started = Instant::now();
        loop {
            match config.connect(NoTls) {
                Ok(client) => return Session { client },
                Err(error) if started.elapsed() > Duration::from_secs(60) => panic!("connect to {database}: {error}"),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// A session in a new database that has the extension.
    pub fn create(&self, database: &str) -> Session {
        self.connect("postgres").run(&format!("CREATE DATABASE {database} STRATEGY file_copy"));
        let mut session = self.connect(database);
        session.run("CREATE EXTENSION talkmeter");
        session
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = fs::read(format!("{}/log", self.directory)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        if self.runs() {
            self.run("pg_ctl", &["stop", "-D", &self.data(), "-m", "immediate", "-s", "-w"]);
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).status().expect("a program");
    assert!(done.success(), "{program} {arguments:?}: {done}");
}

impl Session {
    /// Waits until a query answers with that one line.
    pub fn wait_for(&mut self, sql: &str, line: &str) {
        let started = Instant::now();
        loop {
            let found = self.lines(sql);
            if found == [line] {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{sql}\n  is {found:?} and not {line}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}
