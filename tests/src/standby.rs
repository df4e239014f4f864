//! How does a test get a hot standby of the private server?

use crate::{Database, Session, config, program, variable};
use postgres::{Config, NoTls};
use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A server that replays what the private one writes; stopped and removed at the end.
pub struct Standby {
    directory: String,
    /// The slot by which its primary keeps what it has not replayed yet: other tests write much meanwhile.
    slot: String,
}

impl Standby {
    /// One that holds by now what the private one does.
    pub fn of_now() -> Standby {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let slot = format!("standby_{}_{number}", std::process::id());
        let directory = format!("{}/{slot}", variable("TALKMETER_DIR"));
        let standby = Standby { directory: directory.clone(), slot: slot.clone() };
        let (server, user) = (variable("PGHOST"), variable("PGUSER"));
        let backup =
            ["-h", &server, "-U", &user, "-D", &directory, "-R", "-c", "fast", "-X", "stream", "-C", "-S", &slot];
        as_server("pg_basebackup", &backup);
        let options = format!("-c unix_socket_directories={directory} -c listen_addresses= -c shared_buffers=16MB");
        as_server(
            "pg_ctl",
            &["start", "-D", &directory, "-l", &format!("{directory}/log"), "-s", "-w", "-o", &options],
        );
        standby
    }

    /// A session of the superuser's, in UTC.
    pub fn connect(&self, database: &Database) -> Session {
        let mut config = Config::new();
        config.host(&self.directory).port(variable("PGPORT").parse().expect("a port"));
        config.dbname(database.name()).user(&variable("PGUSER")).options("-c TimeZone=UTC");
        Session { client: config.connect(NoTls).expect("a connection to the standby") }
    }

    /// Waits until the standby has replayed what was written on the primary.
    pub fn wait_for(primary: &mut Session, standby: &mut Session) {
        let written = primary.line("SELECT pg_current_wal_lsn()");
        let started = Instant::now();
        while standby.line(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) != "t" {
            assert!(started.elapsed() < Duration::from_secs(120), "the standby does not come to {written}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        as_server("pg_ctl", &["stop", "-D", &self.directory, "-m", "immediate", "-s", "-w"]);
        let _ = fs::remove_dir_all(&self.directory);
        // Its primary finds out a moment later that nobody reads from the slot any more.
        let drop = format!("SELECT pg_drop_replication_slot('{}')", self.slot);
        let Ok(mut primary) = config(&variable("PGDATABASE"), &variable("PGUSER")).connect(NoTls) else { return };
        for _ in 0..500 {
            if primary.simple_query(&drop).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Runs a program of the server's as the user that the server runs as.
pub(crate) fn as_server(name: &str, arguments: &[&str]) {
    // A panic while another one is on its way would hide it.
    let done = command_as_server(name, arguments).status().expect("a program");
    assert!(done.success() || thread::panicking(), "{name}: {done}");
}

/// The same, where it may fail, and then says nothing.
pub(crate) fn succeeds_as_server(name: &str, arguments: &[&str]) -> bool {
    command_as_server(name, arguments).stderr(Stdio::null()).status().expect("a program").success()
}

fn command_as_server(name: &str, arguments: &[&str]) -> Command {
    command_of(program(name).get_program(), arguments)
}

/// The same of any program.
pub(crate) fn command_of(program: &OsStr, arguments: &[&str]) -> Command {
    let user = variable("TALKMETER_RUN_AS");
    let mut command = Command::new(if user.is_empty() { "env" } else { "runuser" });
    if !user.is_empty() {
        command.args(["-u", &user, "--", "env"]);
    }
    command.arg(program).args(arguments).current_dir(variable("TALKMETER_DIR"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
