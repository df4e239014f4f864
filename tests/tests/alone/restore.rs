//! Does a server that was restored to an instant, promoted under load, or made by pg_upgrade meter what it holds and
//! nothing else?
//!
//! Two instants and one promotion; at length, 100 and 20.

use crate::alone;
use crate::crash::{
    Commit, History, Writer, check_that_charges_came_with_messages, check_that_messages_and_charges_agree, is_crash,
    kill, meter_messages, wait_until,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use talkmeter_tests::private::Server;
use talkmeter_tests::{Random, Session, at_length};

const WRITERS: usize = 4;

fn writers(server: &Server, name: &str, random: &mut Random) -> Vec<Writer> {
    (0..WRITERS)
        .map(|number| Writer::new(server.connect("d"), format!("{name}-{number}"), random.below(usize::MAX)))
        .collect()
}

/// Lets clients write so many transactions each.
fn write(server: &Server, name: &str, transactions: usize, random: &mut Random) -> History {
    let mut writers = writers(server, name, random);
    thread::scope(|scope| {
        for writer in &mut writers {
            scope.spawn(move || (0..transactions).for_each(|_| writer.write().expect("a commit")));
        }
    });
    let mut history = History::default();
    history.extend(writers.into_iter().map(|writer| writer.history).collect());
    history
}

fn micros(instant: SystemTime) -> u128 {
    instant.duration_since(UNIX_EPOCH).expect("after 1970").as_micros()
}

fn present(session: &mut Session) -> BTreeSet<i64> {
    session.lines("SELECT id FROM messages").iter().map(|id| id.parse().expect("a number")).collect()
}

/// What was answered before the instant is there, what was asked for after it is not, and the rest is whole or absent.
fn check_as_of(session: &mut Session, commits: &[Commit], instant: u128) -> usize {
    let present = present(session);
    let mut known = 0;
    for commit in commits {
        let there = commit.ids.iter().filter(|id| present.contains(id)).count();
        known += there;
        assert!(there == 0 || there == commit.ids.len(), "{there} of {:?}", commit.ids);
        assert!(there > 0 || micros(commit.answered) >= instant, "lost: {:?}", commit.ids);
        assert!(there == 0 || micros(commit.asked) <= instant, "of later: {:?}", commit.ids);
    }
    assert_eq!(known, present.len(), "messages that nobody committed");
    known
}

#[test]
fn recovery_to_any_instant_gives_the_books_of_that_instant_and_metering_goes_on() {
    let _alone = alone();
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    let server = Server::with(&[
        "wal_level = replica",
        "track_commit_timestamp = on",
        "archive_mode = on",
        "archive_command = '/bin/true'",
    ]);
    let archive = format!("{}/data/archived", server.directory());
    server.set(&[&format!("archive_command = 'mkdir -p {archive} && cp %p {archive}/%f'")]);
    let mut session = server.create("d");
    meter_messages(&mut session);
    session.run("SELECT pg_reload_conf()");
    session.wait_for("SELECT current_setting('archive_command') LIKE 'mkdir%'", "t");
    server.back_up();
    let history = write(&server, "before", if at_length() { 500 } else { 100 }, &mut random);
    // The last record is later than each of the instants.
    thread::sleep(Duration::from_millis(10));
    session.run("CREATE TABLE later ()");
    let last = session.line("SELECT pg_walfile_name(pg_switch_wal())");
    session.wait_for(&format!("SELECT last_archived_wal >= '{last}' FROM pg_stat_archiver"), "t");
    let times: Vec<u128> = history.commits.iter().map(|commit| micros(commit.answered)).collect();
    let (from, to) = (*times.iter().min().expect("a commit"), *times.iter().max().expect("a commit"));
    for round in 0..if at_length() { 100 } else { 2 } {
        let instant = from + random.below((to - from) as usize) as u128;
        let shown = session.line(&format!("SELECT 'epoch'::timestamptz + {instant} * interval '1 microsecond'"));
        let restored = server.restored(&archive, &shown);
        let mut books = restored.connect("d");
        books.wait_for("SELECT pg_is_in_recovery()", "f");
        let there = check_as_of(&mut books, &history.commits, instant);
        assert!(there > 0, "{shown}: nothing is there");
        check_that_messages_and_charges_agree(&mut books);
        check_that_charges_came_with_messages(&mut books, &[]);
        write(&restored, &format!("after {round}"), 5, &mut random);
        check_that_messages_and_charges_agree(&mut books);
        check_that_charges_came_with_messages(&mut books, &[]);
        println!("{shown}: {there} messages");
    }
}

#[test]
fn a_standby_that_is_promoted_under_load_has_metered_all_that_was_acknowledged() {
    let _alone = alone();
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    for _ in 0..if at_length() { 20 } else { 1 } {
        let primary = Server::with(&["wal_level = replica", "track_commit_timestamp = on"]);
        meter_messages(&mut primary.create("d"));
        let standby = primary.standby(&["synchronous_standby_names = ''"]);
        primary.set(&["synchronous_standby_names = '*'"]);
        let mut session = primary.connect("d");
        session.run("SELECT pg_reload_conf()");
        session.wait_for("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'", "1");
        let (mut writers, committed) = (writers(&primary, "primary", &mut random), AtomicUsize::new(0));
        thread::scope(|scope| {
            writers.iter_mut().for_each(|writer| drop(scope.spawn(|| writer.write_until_crash(&committed))));
            wait_until("the clients write", || committed.load(Ordering::Relaxed) >= 25 * WRITERS);
            thread::sleep(Duration::from_millis(random.below(200) as u64));
            kill(&primary.postmaster());
        });
        assert!(session.client.simple_query("SELECT 1").is_err_and(|error| is_crash(&error)));
        standby.promote();
        let mut history = History::default();
        history.extend(writers.into_iter().map(|writer| writer.history).collect());
        let mut promoted = standby.connect("d");
        history.check_that_what_was_acknowledged_is_there(&mut promoted);
        check_that_messages_and_charges_agree(&mut promoted);
        check_that_charges_came_with_messages(&mut promoted, &[]);
        history.extend(vec![write(&standby, "promoted", 20, &mut random)]);
        history.check_that_what_was_acknowledged_is_there(&mut promoted);
        check_that_messages_and_charges_agree(&mut promoted);
        check_that_charges_came_with_messages(&mut promoted, &[]);
        println!("{} messages", history.acknowledged.len());
    }
}

#[test]
fn a_server_that_pg_upgrade_made_has_the_books_and_metering_goes_on() {
    let _alone = alone();
    let (mut random, seed) = Random::seeded();
    println!("TALKMETER_SEED={seed}");
    let old = Server::of_old(&["track_commit_timestamp = on"]);
    let mut session = old.create("d");
    meter_messages(&mut session);
    let mut history = write(&old, "old", 20, &mut random);
    let books = "SELECT count(*), sum(amount) FROM talkmeter.charges";
    let before = session.line(books);
    drop(session);
    let new = old.upgraded();
    let mut session = new.connect("d");
    assert_eq!(session.line(books), before);
    history.check_that_what_was_acknowledged_is_there(&mut session);
    check_that_messages_and_charges_agree(&mut session);
    history.extend(vec![write(&new, "new", 20, &mut random)]);
    history.check_that_what_was_acknowledged_is_there(&mut session);
    check_that_messages_and_charges_agree(&mut session);
    assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0]);
}
