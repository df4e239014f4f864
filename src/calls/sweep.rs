//! What has time ended (rule 3.6)?

use crate::billing::alerts;
use crate::billing::post;
use crate::billing::posting::Postings;
use crate::calls::sweepers::{self, Sweeper};
use crate::calls::{access, attach, partitions, retry, sweep_failures};
use crate::catalog::args::{not_future_or_now, required};
use crate::catalog::away::Away;
use crate::catalog::reading;
use crate::catalog::sources;
use crate::meter::batch::{BATCH, Batch};
use crate::meter::commit;
use crate::pg::clock::Timestamp;
use crate::pg::error::failure;
use crate::pg::limit::heed_cancel;
use crate::pg::locks::{self, Conversations};
use crate::pg::procedure;
use crate::pg::progress::Progress;
use crate::pg::rights::{as_owner, as_owner_in_haste, must_write};
use crate::pg::sql::{Connection, arg, connected};
use crate::pg::subtransaction::{attempt, code, is_of_server, message, sqlstate};
use crate::pg::trigger;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use talkmeter_engine::instant::Instant;

/// Ends every part that time has ended by `as_of`, charges what thereby becomes billable, and returns how many ended.
#[pg_extern(sql = false)]
fn sweep(as_of: Option<TimestampWithTimeZone>) -> i64 {
    end_what_has_ended("sweep", not_future_or_now(as_of, "as_of"))
}

/// Ends every part that time has ended by an instant that is not in the future, and returns how many ended. A tenant
/// that cannot be swept, or is locked, is left as it is, and keeps no other waiting (rule 3.6.7).
pub fn end_what_has_ended(function: &'static str, as_of: Instant) -> i64 {
    must_write(function);
    let mut sweep = Sweep::begin(as_of, Extent::Tenants, Sweeper::Session);
    while sweep.advance(BATCH) {}
    sweep.end();
    sweep.ended
}

/// Ends every part of one tenant that time has ended, and fails if that cannot be.
pub fn end_of_tenant(tenant: &str, as_of: Instant) {
    prepare();
    retry::future(as_of, tenant);
    commit::work();
    as_owner(|| {
        let keys = connected(|connection| due(connection, as_of, &From::Tenant(tenant), BATCH));
        pass_time(keys, as_of, true, Locked::IsWaitedFor)
    });
}

/// As `sweep`, but commits as it goes: after so many conversations, and so at the latest after so many of one tenant.
///
/// # Safety
/// The server calls it, with the call information that it gives to a procedure.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn sweep_batches(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's; `sql/50-functions.sql` declares the arguments.
    let (as_of, batch) = unsafe { (pgrx::pg_getarg(call, 0), pgrx::pg_getarg(call, 1)) };
    let as_of = not_future_or_now(as_of, "as_of");
    let batch: i32 = required(batch, "batch");
    if batch < 1 {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "\"batch\" is less than 1").raise();
    }
    must_write("sweep_batches");
    let mut batches = Batches::new(as_of, batch as usize, Sweeper::Session);
    // SAFETY: the same; nothing that a piece of the work takes from the server outlives it.
    unsafe { procedure::in_pieces(call, "sweep_batches", || batches.advance()) };
    pg_sys::Datum::from(0usize)
}

trigger::version_1!(pg_finfo_sweep_batches);

/// A sweep in batches, each for a transaction of its own.
pub struct Batches {
    as_of: Instant,
    batch: usize,
    sweeper: Sweeper,
    under_way: Option<(Sweep, Progress)>,
}

impl Batches {
    pub fn new(as_of: Instant, batch: usize, sweeper: Sweeper) -> Batches {
        Batches { as_of, batch, sweeper, under_way: None }
    }

    /// Sweeps the next batch; false if nothing is left.
    pub fn advance(&mut self) -> bool {
        let (as_of, batch, sweeper) = (self.as_of, self.batch, self.sweeper);
        let (sweep, progress) = self.under_way.get_or_insert_with(|| {
            let total = as_owner(|| connected(|connection| count(connection, as_of)));
            let sweep = Sweep::begin(as_of, Extent::Conversations, sweeper);
            (sweep, Progress::begin("sweep_batches", "conversations", total))
        });
        progress.again();
        let before = sweep.visited;
        while sweep.advance(BATCH.min(before + batch - sweep.visited)) {
            if sweep.visited - before >= batch {
                progress.advance(sweep.visited - before);
                return true;
            }
        }
        sweep.end();
        false
    }
}

/// What comes before any part is ended: what this transaction inserted counts before time does.
fn prepare() {
    // Read by every work, and written by this one.
    locks::for_writing(&[c"source"]);
    commit::work();
    reading::begin();
}

/// What one attempt at a sweep covers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Extent {
    /// Whole tenants: all that is due of one is ended, or nothing is.
    Tenants,
    /// Some conversations, so that their tenants are not held for long.
    Conversations,
}

/// Milliseconds for which a sweep waits for a tenant. Commits that charge it hold it for about a flush of the disk.
const PATIENCE: i32 = 100;

/// Tenants that were waited for in vain before a sweep waits for no other.
const PATIENT_WITH: usize = 20;

/// A sweep under way, which takes the tenants in the order of their keys.
///
/// It does not deadlock with commits, which lock all their conversations first, and then tenants. Unlike them it locks
/// conversations while it holds tenants, those that it has swept; but it never waits for a conversation: one that is
/// locked is left for the next sweep. What it waits for are tenants, each after all that it holds, and not for long:
/// whoever has flushed within a transaction may hold one as long as he likes.
struct Sweep {
    as_of: Instant,
    extent: Extent,
    sweeper: Sweeper,
    after: Place,
    /// Tenants that have rows whose time has come, or whose books have.
    future: BTreeSet<String>,
    /// Conversations that were looked at.
    visited: usize,
    ended: i64,
    locked: BTreeSet<String>,
    /// SQLSTATE and message by tenant.
    failed: BTreeMap<String, (String, String)>,
}

/// Where a sweep has come to.
enum Place {
    Start,
    Conversation(Owned),
    Tenant(String),
}

/// Tenant and conversation.
type Owned = (String, String);

impl Sweep {
    fn begin(as_of: Instant, extent: Extent, sweeper: Sweeper) -> Sweep {
        prepare();
        chore("tables that are gone", |connection| {
            sources::forget_dropped_members(connection);
            attach::forget_dropped(connection, None);
        });
        chore("the names of tables and columns", sources::record_names_anew);
        chore("roles that are gone", access::forget_who_is_gone);
        let sweep = Sweep {
            as_of,
            extent,
            sweeper,
            after: Place::Start,
            future: &retry::tenants_of_future(as_of) | &retry::tenants_that_came(),
            visited: 0,
            ended: 0,
            locked: BTreeSet::new(),
            failed: BTreeMap::new(),
        };
        // What reads the application's tables again comes before anything is locked for which others may wait.
        retry::what_failed(|work| drop(sweep.attempt(work)));
        sweep
    }

    /// Sweeps the next tenants, or conversations, at most so many of these at once; false if nothing is left.
    fn advance(&mut self, most: usize) -> bool {
        heed_cancel();
        let mut keys = as_owner(|| connected(|connection| due(connection, self.as_of, &self.after.from(), most)));
        // Rows whose time has come count before time does, and are alone: they lock their tenant.
        match self.future.first() {
            Some(tenant) if keys.first().is_none_or(|key| *tenant <= key.0) => {
                let tenant = self.future.pop_first().unwrap_or_default();
                self.meter_future(&tenant);
                return true;
            }
            Some(tenant) => keys.retain(|key| key.0 < *tenant),
            None => {}
        }
        let Some((last, _)) = keys.last().cloned() else { return false };
        let goes_on = keys.len() == most && self.extent == Extent::Tenants;
        if goes_on && keys[0].0 != last {
            // Left for the next time, when all of it comes together.
            keys.retain(|key| key.0 != last);
        }
        self.after = self.extent.after(&keys);
        self.sweep(keys, goes_on);
        true
    }

    fn meter_future(&mut self, tenant: &str) {
        let as_of = self.as_of;
        let metered = self.attempt(|| {
            retry::future(as_of, tenant);
            retry::of_tenant_that_came(tenant);
            commit::work_or_fail();
        });
        if let Err(error) = metered {
            self.leave(tenant, &error);
        }
    }

    /// Sweeps conversations together; if that fails, each tenant by itself.
    fn sweep(&mut self, keys: Vec<Owned>, goes_on: bool) {
        let as_of = self.as_of;
        self.visited += keys.len();
        let several = keys.first().map(|key| &key.0) != keys.last().map(|key| &key.0);
        let together = keys.clone();
        let goes_on = goes_on && !several;
        match self.attempt(|| pass_time(together, as_of, goes_on, Locked::IsLeft)) {
            Ok(ended) => self.ended += ended,
            Err(error) if !several => {
                let tenant = &keys[0].0;
                self.leave(tenant, &error);
                // Another batch of it would fare no better.
                self.after = Place::Tenant(tenant.clone());
            }
            Err(_) => {
                let end = self.extent.after(&keys);
                for of_tenant in keys.chunk_by(|a, b| a.0 == b.0) {
                    self.sweep(of_tenant.to_vec(), false);
                    self.visited -= of_tenant.len();
                }
                let is_left = keys.last().is_some_and(|(tenant, _)| self.is_left(tenant));
                self.after = if is_left { Place::Tenant(keys[keys.len() - 1].0.clone()) } else { end };
            }
        }
    }

    /// Does a tenant's work, or none of it. A cancel or a shutdown ends the sweep.
    fn attempt<R>(&self, work: impl FnOnce() -> R) -> Result<R, Box<CaughtError>> {
        let patience = if self.locked.len() < PATIENT_WITH { PATIENCE } else { 1 };
        match attempt(|| reading::in_haste(|| as_owner_in_haste(patience, work))) {
            Err(error) if is_of_server(&error) => error.rethrow(),
            result => result,
        }
    }

    fn is_left(&self, tenant: &str) -> bool {
        self.locked.contains(tenant) || self.failed.contains_key(tenant)
    }

    fn leave(&mut self, tenant: &str, error: &CaughtError) {
        let tenant = tenant.to_owned();
        if is_conflict(error) {
            self.locked.insert(tenant);
        } else {
            self.failed.insert(tenant, (sqlstate(code(error)), message(error).to_owned()));
        }
    }

    fn end(&self) {
        self.see_to_rest();
        // Last, because this holds off who inserts into them.
        let mut added = Vec::new();
        chore("partitions that were added", |connection| added = partitions::added(connection, None));
        for partition in &added {
            chore("a partition that was added", |connection| partitions::adopt(connection, partition));
        }
    }

    fn see_to_rest(&self) {
        chore("what could not be swept", |connection| sweep_failures::record(connection, &self.failed, &self.locked));
        chore("alerts", |_| {
            locks::ledger_for_writing();
            alerts::send();
        });
        chore("who sweeps", |connection| sweepers::swept(connection, self.sweeper));
        if let Some((tenant, (_, message))) = self.failed.first_key_value() {
            failure(
                PgSqlErrorCode::ERRCODE_WARNING,
                format!("{} tenants could not be swept; \"{tenant}\": {message}", self.failed.len()),
            )
            .hint("See talkmeter.health().")
            .warn();
        }
    }
}

/// Whether nothing is wrong but that somebody else is at it.
fn is_conflict(error: &CaughtError) -> bool {
    matches!(
        code(error),
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
    )
}

/// Does what is not of one tenant. If it fails, the next sweep will do it.
fn chore(what: &str, work: impl FnOnce(&Connection)) {
    match attempt(|| as_owner_in_haste(PATIENCE, || connected(work))) {
        Ok(()) => {}
        Err(error) if is_of_server(&error) => error.rethrow(),
        Err(error) if is_conflict(&error) => {}
        Err(error) => failure(code(&error), format!("the sweep could not see to {what}: {}", message(&error))).warn(),
    }
}

impl Extent {
    /// Where a sweep has come to with these conversations.
    fn after(self, keys: &[Owned]) -> Place {
        match (keys.last().cloned(), self) {
            (None, _) => Place::Start,
            (Some((tenant, _)), Extent::Tenants) => Place::Tenant(tenant),
            (Some(key), Extent::Conversations) => Place::Conversation(key),
        }
    }
}

/// What becomes of a conversation that somebody else has locked.
#[derive(Clone, Copy)]
pub enum Locked {
    IsWaitedFor,
    IsLeft,
}

/// Ends what is due in conversations, given in key order, posts it, and returns how many parts ended. With `goes_on`
/// they are one tenant's, and whatever else is due of it follows.
pub fn pass_time(mut keys: Vec<Owned>, as_of: Instant, goes_on: bool, locked: Locked) -> i64 {
    let mut ended = 0;
    let mut postings = Postings::default();
    let mut conversations = Conversations::begin();
    // Asked again, now that nobody who exports a tenant overlooks this work.
    let away = Away::by_now();
    keys.retain(|(tenant, _)| !away.has(tenant));
    while let Some((tenant, _)) = keys.last().cloned() {
        connected(|connection| {
            let borrowed: Vec<_> = keys.iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).collect();
            let mut batch = match locked {
                Locked::IsWaitedFor => Batch::lock(connection, &mut conversations, &borrowed),
                Locked::IsLeft => Batch::lock_free(connection, &mut conversations, &borrowed),
            };
            ended += (0..batch.conversations.len()).filter(|index| batch.pass_time(*index, as_of)).count() as i64;
            batch.write().iter().for_each(|posting| postings.push(posting));
        });
        heed_cancel();
        let place = Place::Conversation(keys.pop().unwrap_or_default());
        keys.clear();
        if goes_on {
            keys = connected(|connection| due(connection, as_of, &place.from(), BATCH));
            keys.retain(|key| key.0 == tenant);
        }
    }
    post::post(postings, conversations.then_tenants());
    ended
}

/// From where on conversations are looked for.
enum From<'a> {
    Start,
    /// After a conversation, or after all of a tenant.
    After(&'a str, Option<&'a str>),
    /// Those of one tenant.
    Tenant(&'a str),
}

impl Place {
    fn from(&self) -> From<'_> {
        match self {
            Place::Start => From::Start,
            Place::Conversation((tenant, conversation)) => From::After(tenant, Some(conversation)),
            Place::Tenant(tenant) => From::After(tenant, None),
        }
    }
}

macro_rules! select_due {
    ($condition:literal) => {
        concat!(
            "SELECT c.tenant, c.conversation
            FROM talkmeter.conversation AS c
            WHERE c.timed AND c.due_at <= $1 AND NOT c.tenant = ANY ($3) ",
            $condition,
            " ORDER BY c.tenant, c.conversation
            LIMIT $2"
        )
    };
}

const FIRST_DUE: &str = select_due!("");
// Without a conversation, what is greater is of a later tenant.
const NEXT_DUE: &str = select_due!("AND (c.tenant, c.conversation) > ($4, $5)");
const DUE_OF_TENANT: &str = select_due!("AND c.tenant = $4");

/// The next conversations, in key order, that hold a part which is due. Of a tenant whose books are elsewhere, time is
/// told there.
fn due(connection: &Connection, as_of: Instant, from: &From, most: usize) -> Vec<Owned> {
    let mut args = vec![arg(Timestamp::from(as_of)), arg(most as i64), arg(Away::by_now().names())];
    let statement = match from {
        From::Start => FIRST_DUE,
        From::After(tenant, conversation) => {
            args.extend([arg(*tenant), arg(*conversation)]);
            NEXT_DUE
        }
        From::Tenant(tenant) => {
            args.push(arg(*tenant));
            DUE_OF_TENANT
        }
    };
    connection.run(statement, &args).iter().map(|mut row| (row.value(), row.value())).collect()
}

const COUNT: &str = "
    SELECT count(*) FROM talkmeter.conversation AS c
    WHERE c.timed AND c.due_at <= $1 AND NOT c.tenant = ANY ($2)";

fn count(connection: &Connection, as_of: Instant) -> usize {
    let args = [arg(Timestamp::from(as_of)), arg(Away::by_now().names())];
    connection.run(COUNT, &args).only().value::<i64>() as usize
}
