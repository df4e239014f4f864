//! Is each acknowledged row metered, and no other, when a disk is full: of the tables, of the log, of temporary files?
//!
//! The disks are small file systems in memory. Only root may mount them; elsewhere these tests say that they are skipped.

use crate::alone;
use crate::crash::{check_that_messages_and_charges_agree, is_crash, meter_messages};
use postgres::error::SqlState;
use std::fs;
use std::process::{Command, Stdio};
use talkmeter_tests::private::Server;
use talkmeter_tests::{Session, at_length, variable};

/// A disk of its own; unmounted at the end.
struct Disk {
    directory: String,
}

impl Disk {
    /// `None`, and a line that says so, if this user may not mount one.
    fn of(name: &str, megabytes: usize) -> Option<Disk> {
        let directory = format!("{}/disk_{name}_{}", variable("TALKMETER_DIR"), std::process::id());
        fs::create_dir_all(&directory).expect("a directory");
        let size = format!("size={megabytes}m,mode=0755");
        let options = ["-t", "tmpfs", "-o", &size, "tmpfs", &directory];
        let mounted = Command::new("mount").args(options).stderr(Stdio::null()).status();
        if !mounted.is_ok_and(|done| done.success()) {
            println!("SKIPPED: a full disk of {name}: this user may not mount a file system (root may)");
            let _ = fs::remove_dir(&directory);
            return None;
        }
        Some(Disk { directory })
    }

    /// A directory on it that belongs to the server's user.
    fn place(&self) -> String {
        let place = format!("{}/place", self.directory);
        fs::create_dir(&place).expect("a directory");
        give(&place);
        place
    }

    /// Takes all of its room but so many kilobytes.
    fn fill(&self, left: u64) {
        let free = Command::new("df").args(["-k", "--output=avail", &self.directory]).output().expect("df");
        let free = String::from_utf8_lossy(&free.stdout);
        let free: u64 = free.lines().last().expect("a number").trim().parse().expect("a number");
        let taken = vec![0; (free.saturating_sub(left) * 1024) as usize];
        fs::write(format!("{}/ballast", self.directory), taken).expect("the room that is taken");
    }

    fn empty(&self) {
        fs::remove_file(format!("{}/ballast", self.directory)).expect("what took the room");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l", &self.directory]).status();
        let _ = fs::remove_dir(&self.directory);
    }
}

fn give(place: &str) {
    let owner = variable("TALKMETER_RUN_AS");
    if !owner.is_empty() {
        let done = Command::new("chown").args(["-hR", &owner, place]).status().expect("chown");
        assert!(done.success());
    }
}

/// Commits of an exchange in each of some conversations, and what became of them.
#[derive(Default, Debug)]
struct Writes {
    next: usize,
    acknowledged: usize,
    refused: usize,
    crashed: usize,
}

impl Writes {
    /// Says whether the commit was acknowledged.
    fn commit(&mut self, session: &mut Session, conversations: usize) -> bool {
        let (from, rows) = (self.next, 2 * conversations);
        self.next += rows;
        let done = session.client.batch_execute(&format!(
            "INSERT INTO messages SELECT {from} + n, 'tenant ' || n / 2 % 50, 'c' || ({from} + n) / 2,
                 '2026-03-01 10:00+00'::timestamptz + n % 2 * interval '1 min',
                 CASE n % 2 WHEN 0 THEN 'customer_message' ELSE 'ai_reply' END
             FROM generate_series(0, {rows} - 1) AS n"
        ));
        match &done {
            Ok(()) => self.acknowledged += rows,
            Err(error) if is_crash(error) => self.crashed += 1,
            Err(error) => {
                assert_eq!(error.code(), Some(&SqlState::DISK_FULL), "{error:?}");
                self.refused += 1;
            }
        }
        done.is_ok()
    }

    /// All that was acknowledged is there and metered, and nothing else; a commit that a crash left unanswered is whole
    /// or absent.
    fn check(&self, session: &mut Session) {
        session.run("SELECT talkmeter.retry_quarantine()");
        let there: usize = session.line("SELECT count(*) FROM messages").parse().expect("a number");
        assert!(there >= self.acknowledged, "{there} of {self:?}");
        assert!(self.crashed > 0 || there == self.acknowledged, "{there} of {self:?}");
        assert_eq!(session.line("SELECT count(*) FROM talkmeter.quarantine"), "0");
        check_that_messages_and_charges_agree(session);
        assert_eq!(session.lines("SELECT name FROM pg_ls_tmpdir()"), [""; 0]);
        println!("{self:?}, {there} there");
    }
}

fn rounds() -> u64 {
    if at_length() { 10 } else { 2 }
}

#[test]
fn a_full_table_space_refuses_commits_and_loses_and_invents_nothing() {
    let _alone = alone();
    let Some(disk) = Disk::of("tables", 160) else { return };
    let server = Server::with(&[]);
    let mut administrator = server.connect("postgres");
    administrator.run(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.place()));
    administrator.run("CREATE DATABASE d STRATEGY file_copy TABLESPACE small");
    let mut session = server.connect("d");
    session.run("CREATE EXTENSION talkmeter");
    meter_messages(&mut session);
    let mut writes = Writes::default();
    for round in 0..rounds() {
        disk.fill(2_000 + 1_000 * round);
        let refused = writes.refused;
        while writes.refused < refused + 5 {
            writes.commit(&mut session, 200);
        }
        disk.empty();
        assert!(writes.commit(&mut session, 200), "the session goes on");
        writes.check(&mut session);
    }
}

#[test]
fn a_full_disk_of_the_log_may_end_the_server_and_loses_and_invents_nothing() {
    let _alone = alone();
    let Some(disk) = Disk::of("wal", 160) else { return };
    let server = Server::with(&["min_wal_size = 32MB", "max_wal_size = 64MB", "wal_recycle = off"]);
    meter_messages(&mut server.create("d"));
    server.stop("fast");
    let (wal, place) = (format!("{}/pg_wal", server.data()), disk.place());
    let moved = Command::new("cp").args(["-a", &format!("{wal}/."), &place]).status().expect("cp");
    assert!(moved.success());
    fs::remove_dir_all(&wal).expect("an old log");
    std::os::unix::fs::symlink(&place, &wal).expect("a link");
    give(&wal);
    server.start();
    let mut writes = Writes::default();
    for round in 0..rounds() {
        let mut session = server.connect("d");
        disk.fill(1_000 + 4_000 * round);
        let before = writes.crashed + writes.refused;
        while writes.crashed + writes.refused == before {
            writes.commit(&mut session, 500);
        }
        disk.empty();
        let mut session = server.connect_after_crash("d");
        assert!(writes.commit(&mut session, 200), "the server goes on");
        writes.check(&mut session);
    }
}

#[test]
fn a_full_disk_of_temporary_files_refuses_statements_or_leaves_rows_in_quarantine() {
    let _alone = alone();
    let Some(disk) = Disk::of("temporary", 64) else { return };
    let server = Server::with(&[]);
    let mut session = server.create("d");
    session.run(&format!("CREATE TABLESPACE temporary LOCATION '{}'", disk.place()));
    meter_messages(&mut session);
    session.run("SET temp_tablespaces = temporary; SET work_mem = '64kB'");
    let mut writes = Writes::default();
    for round in 0..rounds() {
        disk.fill(200 + 2_000 * round);
        for _ in 0..3 {
            writes.commit(&mut session, 20_000);
        }
        disk.empty();
        assert!(writes.commit(&mut session, 200), "the session goes on");
        assert_eq!(
            session.lines("SELECT name FROM pg_ls_tmpdir((SELECT oid FROM pg_tablespace WHERE spcname = 'temporary'))"),
            [""; 0]
        );
        // Its look at all messages would find the disk too small.
        writes.check(&mut server.connect("d"));
    }
    assert!(writes.refused > 0, "there was room for all: {writes:?}");
}
