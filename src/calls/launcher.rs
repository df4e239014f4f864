//! When is which database swept and reconciled by the worker, and who starts it (rule 3.6.8)?
//!
//! A launcher, which is connected to no database, starts a pass in each in turn. It is there from the start of the
//! server if the library is preloaded, and then serves all databases that `talkmeter.databases` names; or
//! `start_worker` starts one, which serves one.

use crate::calls::worker::{Errand, Outcome, Trouble, WORKER};
use crate::pg::databases;
use crate::pg::error::failure;
use crate::pg::limit::heed_cancel;
use crate::pg::process::{self, Board, Kind, Place};
use crate::pg::rights::{as_owner, must_write};
use crate::pg::settings;
use crate::pg::sql::connected;
use crate::pg::tags;
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant as Moment};

const LAUNCHER: Kind = Kind { name: "talkmeter launcher", function: "talkmeter_launcher", comes_back: true };

/// Passes at once: each takes one of `max_worker_processes`, and a long one keeps no other database waiting.
const AT_ONCE: usize = 3;

/// How often databases are looked for, the extension in them, and days to reconcile.
const LOOK: Duration = Duration::from_secs(60);

/// How often is looked whether somebody wants a database for himself in which a pass is going on.
const WATCH: Duration = Duration::from_millis(500);

/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// If the library is preloaded, a launcher starts with the server.
pub fn register() {
    if process::is_preloading() {
        LAUNCHER.register("");
    }
}

/// # Safety
/// The server calls it, in a process that [`LAUNCHER`] describes.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn talkmeter_launcher(_argument: pg_sys::Datum) {
    let only = process::told().parse().ok();
    process::begin_to_wait();
    let mut launcher = Launcher::new(only);
    while launcher.turn() && process::wait(launcher.pause()) {}
    launcher.places.iter_mut().for_each(|place| place.place.end());
    if only.is_none() {
        // Whoever ends it wants it to begin anew: what is preloaded is there as long as the server.
        process::end_for_now();
    }
}

/// A database that is served, or would be if the extension was there.
#[derive(Default)]
struct Served {
    name: String,
    /// Whether we hold the lock that says so.
    is_ours: bool,
    /// Whether the extension was there at the last pass.
    is_installed: bool,
    /// When the last pass began, and the last that looked for days.
    swept: Option<Moment>,
    looked: Option<Moment>,
    /// How often in a row the sweep has failed, and a day.
    failures: u32,
    failures_of_days: u32,
    /// What was told since all was well.
    told: BTreeSet<Trouble>,
}

/// Whether so much time has passed since then.
fn is_past(since: Option<Moment>, pause: Duration) -> bool {
    since.is_none_or(|since| since.elapsed() >= pause)
}

/// A pause that doubles with each failure.
fn growing(pause: Duration, failures: u32) -> Duration {
    pause.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE.max(pause))
}

impl Served {
    /// How long it is from one pass to the next.
    fn interval(&self) -> Duration {
        match self.is_installed {
            true => growing(settings::sweep_interval(), self.failures),
            // The next time that databases are looked for.
            false => Duration::MAX,
        }
    }

    fn looks(&self) -> bool {
        is_past(self.looked, growing(LOOK, self.failures_of_days))
    }

    fn is_due(&self) -> bool {
        is_past(self.swept, self.interval())
    }

    /// Takes note of what came of a pass, and says once what went wrong.
    fn learn(&mut self, outcome: Outcome, days: bool) {
        let Outcome { found, sweep, day, warnings } = outcome;
        self.is_installed = found;
        self.failures = if sweep.is_some() { self.failures + 1 } else { 0 };
        if days && sweep.is_none() {
            self.failures_of_days = if day.is_some() { self.failures_of_days + 1 } else { 0 };
        }
        let troubles: Vec<Trouble> = sweep.into_iter().chain(day).chain(warnings).collect();
        if troubles.is_empty() && self.failures_of_days == 0 && !self.told.is_empty() {
            self.told.clear();
            failure(
                PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION,
                format!("talkmeter's worker goes on in database \"{}\"", self.name),
            )
            .log();
        }
        for trouble in troubles {
            let Trouble { code, message } = &trouble;
            if !self.told.contains(&trouble) {
                failure(
                    PgSqlErrorCode::ERRCODE_WARNING,
                    format!("talkmeter's worker in database \"{}\": {message}", self.name),
                )
                .detail(format!("SQLSTATE {code}. It tries again; this is said once."))
                .warn();
                self.told.insert(trouble);
            }
        }
    }
}

/// A place for a pass, and the one that is going on there.
struct Seat {
    place: Place,
    pass: Option<Pass>,
}

struct Pass {
    database: u32,
    days: bool,
    began: Moment,
}

struct Launcher {
    /// The database that it serves, if it serves but one.
    only: Option<u32>,
    board: Board,
    databases: BTreeMap<u32, Served>,
    listed: Option<Moment>,
    places: Vec<Seat>,
    /// Whether it was said that the server has no room for a pass.
    said_full: bool,
    /// Whether there was none the last time.
    is_full: bool,
}

impl Launcher {
    fn new(only: Option<u32>) -> Launcher {
        Launcher {
            only,
            board: Board::new(AT_ONCE),
            databases: BTreeMap::new(),
            listed: None,
            places: (0..AT_ONCE).map(|_| Seat { place: Place::new(), pass: None }).collect(),
            said_full: false,
            is_full: false,
        }
    }

    /// Does what is to be done now; false if there is nothing more to serve.
    fn turn(&mut self) -> bool {
        if process::have_settings_changed() || is_past(self.listed, LOOK) {
            self.listed = Some(Moment::now());
            let without = self.databases.values_mut().filter(|served| !served.is_installed);
            without.for_each(|served| served.swept = None);
            self.list();
        } else if self.databases.values().any(Served::is_due) {
            // One that is gone cannot be connected to.
            self.list();
        }
        self.see_who_is_done();
        self.give_way();
        self.start_what_is_due();
        self.only.is_none() || !self.databases.is_empty()
    }

    /// Brings the list of databases up to date.
    fn list(&mut self) {
        let wanted = |database: &databases::Database| match self.only {
            Some(only) => database.oid.to_u32() == only,
            None => settings::is_served(&database.name, database.is_template),
        };
        let found: BTreeMap<u32, String> = databases::all()
            .into_iter()
            .filter(wanted)
            .map(|database| (database.oid.to_u32(), database.name))
            .collect();
        self.databases.retain(|oid, served| {
            let stays = found.contains_key(oid);
            if !stays && served.is_ours {
                tags::leave((*oid).into());
            }
            stays
        });
        for (oid, name) in found {
            self.databases.entry(oid).or_default().name = name;
        }
    }

    fn see_who_is_done(&mut self) {
        for (page, seat) in self.places.iter_mut().enumerate().filter(|(_, seat)| seat.place.is_done()) {
            let Some(pass) = seat.pass.take() else { continue };
            let Some(served) = self.databases.get_mut(&pass.database) else { continue };
            let Some(outcome) = Outcome::read(&self.board.read(page)) else {
                // It was ended, and comes again after an interval.
                served.is_installed = true;
                continue;
            };
            served.learn(outcome, pass.days);
            if !served.is_installed && self.only.is_none() && std::mem::take(&mut served.is_ours) {
                tags::leave(pass.database.into());
            }
        }
    }

    /// Ends a pass if somebody wants its database for himself: to drop it, say. He would wait, and then give up.
    fn give_way(&mut self) {
        for seat in &mut self.places {
            if seat
                .pass
                .as_ref()
                .is_some_and(|pass| pass.began.elapsed() >= WATCH && tags::is_wanted_alone(pass.database.into()))
            {
                seat.place.end();
            }
        }
    }

    fn start_what_is_due(&mut self) {
        self.is_full = false;
        let busy: BTreeSet<u32> = self.places.iter().filter_map(|seat| Some(seat.pass.as_ref()?.database)).collect();
        let is_due = |(oid, served): &(&u32, &Served)| served.is_due() && !busy.contains(oid);
        let mut due: Vec<u32> = self.databases.iter().filter(is_due).map(|(oid, _)| *oid).collect();
        // Whoever has waited longest comes first.
        due.sort_by_key(|oid| self.databases[oid].swept);
        for oid in due {
            let Some(page) = self.places.iter().position(|seat| seat.pass.is_none()) else { break };
            if !self.start(oid, page) {
                break;
            }
        }
    }

    /// Starts a pass; false if the server has no room for it.
    fn start(&mut self, oid: u32, page: usize) -> bool {
        let served = self.databases.get_mut(&oid).expect("a database of the list");
        let now = Some(Moment::now());
        served.is_ours = served.is_ours || tags::serve(oid.into());
        if !served.is_ours || tags::is_wanted_alone(oid.into()) {
            // Another launcher serves it, or nobody may be in it.
            served.swept = now;
            return true;
        }
        let days = served.looks() && served.failures == 0;
        let errand = Errand { database: oid, board: self.board.handle(), page, days };
        self.board.write(page, "");
        if !self.places[page].place.start(&WORKER, &errand.in_words()) {
            self.is_full = true;
            if !std::mem::replace(&mut self.said_full, true) {
                failure(
                    PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
                    "the server has no free process for talkmeter's worker",
                )
                .hint("Raise max_worker_processes.")
                .warn();
            }
            return false;
        }
        self.said_full = false;
        self.places[page].pass = Some(Pass { database: oid, days, began: Moment::now() });
        served.swept = now;
        if days {
            served.looked = now;
        }
        true
    }

    /// How long there is nothing to do.
    fn pause(&self) -> Duration {
        if self.is_full || self.places.iter().any(|seat| seat.pass.is_some()) {
            return WATCH;
        }
        let left = |since: Option<Moment>, pause: Duration| {
            since.map_or(Duration::ZERO, |since| pause.saturating_sub(since.elapsed()))
        };
        let next = self.databases.values().map(|served| left(served.swept, served.interval())).min();
        next.unwrap_or(LOOK).min(left(self.listed, LOOK)).max(Duration::from_millis(10))
    }
}

const SERVED: &str = "SELECT s.pid FROM talkmeter.sweepers AS s WHERE s.pid IS NOT NULL";

fn who_serves() -> Option<i32> {
    as_owner(|| connected(|connection| connection.run(SERVED, &[]).first().map(|mut row| row.value())))
}

/// Tries, a hundredth of a second apart, until a launcher that was started serves.
const TRIES: usize = 1_000;

/// Starts a launcher for this database unless one serves it, and says which process that is.
#[pg_extern(sql = false)]
fn start_worker() -> TableIterator<'static, (name!(started, bool), name!(pid, i32))> {
    must_write("start_worker");
    if let Some(pid) = who_serves() {
        return TableIterator::once((false, pid));
    }
    // SAFETY: reads a variable of this session's.
    let database = unsafe { pg_sys::MyDatabaseId };
    if LAUNCHER.started(&database.to_u32().to_string()).is_none() {
        failure(
            PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
            "the server has no free process for talkmeter's worker",
        )
        .hint("Raise max_worker_processes, or preload talkmeter.")
        .raise();
    }
    for _ in 0..TRIES {
        if let Some(pid) = who_serves() {
            return TableIterator::once((true, pid));
        }
        std::thread::sleep(Duration::from_millis(10));
        heed_cancel();
    }
    failure(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "talkmeter's worker was started and does not serve this database")
        .hint("The log of the server says why.")
        .raise()
}
