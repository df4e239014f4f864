//! How does a test get a server that never had talkmeter, as a managed database or a colleague's machine?

use crate::standby::{as_server, command_of};
use crate::{Session, variable};
use postgres::{Config, NoTls};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

/// A server from a copy of the private tree without talkmeter's files; stopped and removed at the end.
pub struct Stock {
    /// Of its tree, its socket, its log and its data.
    directory: String,
}

impl Stock {
    pub fn start() -> Stock {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let stock = Stock { directory: format!("{}/s{}_{number}", variable("TALKMETER_DIR"), std::process::id()) };
        let tree = format!("{}/tree", stock.directory);
        fs::create_dir(&stock.directory).expect("a new place");
        run("cp", &["-a", &format!("{}/tree", variable("TALKMETER_DIR")), &tree]);
        run("find", &[&tree, "-type", "f", "-name", "talkmeter*", "-delete"]);
        run("chown", &[&format!("--reference={}", variable("TALKMETER_DIR")), &stock.directory]);
        let (data, user) = (format!("{}/data", stock.directory), variable("PGUSER"));
        as_server("initdb", &["-D", &data, "--no-locale", "-E", "UTF8", "-A", "trust", "-U", &user, "--no-sync"]);
        let log = format!("{}/log", stock.directory);
        let options = format!(
            "-c unix_socket_directories={} -c listen_addresses= -c port=5432 -c shared_buffers=16MB -c fsync=off",
            stock.directory
        );
        stock.pg_ctl(&["start", "-D", &data, "-l", &log, "-s", "-w", "-t", "60", "-o", &options]);
        stock
    }

    /// Where its socket is.
    pub fn directory(&self) -> &str {
        &self.directory
    }

    /// A session in a new database.
    pub fn create(&self, database: &str) -> Session {
        let mut administrator = self.connect("postgres", &variable("PGUSER"));
        administrator.run(&format!("CREATE DATABASE {database} STRATEGY file_copy"));
        self.connect(database, &variable("PGUSER"))
    }

    pub fn connect(&self, database: &str, user: &str) -> Session {
        let mut config = Config::new();
        config.host(&self.directory).port(5432).dbname(database).user(user).options("-c TimeZone=UTC");
        Session { client: config.connect(NoTls).expect("a connection") }
    }

    /// Its own programs: they find what belongs to the server beside themselves.
    fn pg_ctl(&self, arguments: &[&str]) {
        let of_the_private = PathBuf::from(variable("TALKMETER_BIN")).join("pg_ctl");
        let below = of_the_private.strip_prefix(variable("TALKMETER_DIR")).expect("a program of the tree");
        let done = command_of(PathBuf::from(&self.directory).join(below).as_os_str(), arguments).status();
        assert!(done.expect("pg_ctl").success() || thread::panicking(), "pg_ctl {arguments:?}");
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        self.pg_ctl(&["stop", "-D", &format!("{}/data", self.directory), "-m", "immediate", "-s", "-w"]);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn run(program: &str, arguments: &[&str]) {
    let done = Command::new(program).args(arguments).status().expect("a program");
    assert!(done.success(), "{program} {arguments:?}: {done}");
}
