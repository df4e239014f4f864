//! How is a table read that is not ours? In this room, and nowhere else.
//!
//! It is opened by its oid under a lock, then it must have the name and the owner that the statement was made for, then
//! it is read with its owner's rights, and what comes must be rows of that table, of the types that are read. What
//! differs, or fails, makes this table unreadable, and nothing else: its owner's locks, code and rights are not those
//! of the transaction that asks.

use crate::catalog::source_query::SourceQuery;
use crate::catalog::sources::{Layout, Queries, Source};
use crate::pg::clock::Timestamp;
use crate::pg::error::failure;
use crate::pg::limit::{self, heed_cancel};
use crate::pg::relation;
use crate::pg::rights::as_table_owner;
use crate::pg::row::Reader;
use crate::pg::settings;
use crate::pg::sql::{Arg, Connection, Row, Rows, arg, connected};
use crate::pg::subtransaction::{attempt, code, is_of_server, message, sqlstate};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::thread::LocalKey;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::Value;

thread_local! {
    /// Tables that could not be read during this work: it does not wait for them again.
    static GIVEN_UP: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
    static IN_HASTE: Cell<bool> = const { Cell::new(false) };
    static IN_COMMIT: Cell<bool> = const { Cell::new(false) };
}

/// An attached table whose rows cannot be read. It names the table, and repeats nothing that code of its owner's said.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// The reason of quarantine of what needs its rows.
    pub reason: &'static str,
    pub because: String,
}

impl Unreadable {
    fn table(query: &SourceQuery, because: &str) -> Unreadable {
        Unreadable { reason: "source_unreadable", because: format!("Table {} {because}.", query.name) }
    }

    fn changed(query: &SourceQuery) -> Unreadable {
        Unreadable::table(query, "was changed while it was waited for")
    }

    /// For who wants to know, and not only to meter.
    pub fn raise(self) -> ! {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the rows of an attached table cannot be read",
        )
        .detail(self.because)
        .hint("See talkmeter.health().")
        .raise()
    }

    /// For who goes on without the rows.
    pub fn warn(self) {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "the rows of an attached table cannot be read, and are left out",
        )
        .detail(self.because)
        .hint("See talkmeter.health().")
        .warn();
    }
}

/// How long a table is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as the caller's own settings say: nobody waits for the caller.
    OfCaller,
    /// As a commit may: others wait for it.
    OfCommit,
}

/// A work begins: it gives every table a chance.
pub fn begin() {
    GIVEN_UP.with_borrow_mut(HashSet::clear);
}

/// How long a work in haste waits for the rows of a table, in milliseconds: others wait for what it has locked.
const HASTE: i32 = 1_000;

/// Takes a flag down, also when an error passes by.
struct Ended(&'static LocalKey<Cell<bool>>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Does `work`, and waits for the rows of no table longer than a second.
pub fn in_haste<R>(work: impl FnOnce() -> R) -> R {
    IN_HASTE.set(true);
    let _ended = Ended(&IN_HASTE);
    work()
}

/// Does `work`, which belongs to a commit, and reads no foreign table: its wrapper may have ended the transaction over
/// there already, and would find one that begins anew when it is too late for an error.
pub fn in_commit<R>(work: impl FnOnce() -> R) -> R {
    IN_COMMIT.set(true);
    let _ended = Ended(&IN_COMMIT);
    work()
}

/// Runs a statement of the query's and gives `each` its rows: the ordinal, the values of the readers, and the row, of
/// which what the statement selects after them is left.
pub fn for_each_row(
    query: &SourceQuery,
    statement: &str,
    args: &[Arg],
    readers: &[Reader],
    patience: Patience,
    mut each: impl FnMut(i64, &[Value], &mut Row),
) -> Result<(), Unreadable> {
    connected(|connection| {
        let rows = rows(connection, query, statement, args, patience)?;
        match give(query, &rows, readers, &mut each) {
            true => Ok(()),
            false => Err(Unreadable::changed(query)),
        }
    })
}

/// Gives `each` all rows of the query's table, as values of the readers, as they are read: there may be more of them
/// than memory should hold. Meanwhile the rights are those of the table's owner: `each` runs no statement. What was
/// given before an error is worth nothing.
pub fn for_each_of_all(
    query: &SourceQuery,
    readers: &[Reader],
    mut each: impl FnMut(&[Value]),
) -> Result<(), Unreadable> {
    let mut is_of = IsOf { query, readers, last: None };
    let mut room: Vec<Value> = Vec::new();
    let give = |row: &mut Row| {
        heed_cancel();
        let is_of = is_of.of(row);
        if is_of {
            let mut values = emptied(std::mem::take(&mut room));
            values.extend(readers.iter().map(|reader| value(row, reader)));
            each(&values);
            room = emptied(values);
        }
        is_of
    };
    connected(|connection| {
        let read = || query.open() && connection.run_through(&query.all_rows, give);
        match as_owner_of(query, read)? {
            true => Ok(()),
            false => Err(Unreadable::changed(query)),
        }
    })
}

/// The room that values took, for those of another row.
fn emptied<'b>(mut values: Vec<Value>) -> Vec<Value<'b>> {
    values.clear();
    values.into_iter().map(|_| unreachable!("nothing is left")).collect()
}

/// Which share of the rows of the query's table the server expects within a span of time.
pub fn expected_share(query: &SourceQuery, from: Instant, to: Instant) -> Result<f64, Unreadable> {
    let span = [arg(Timestamp::from(from)), arg(Timestamp::from(to))];
    connected(|connection| {
        let expected = || {
            query.open().then(|| connection.expected(&query.within, &span) / connection.expected(&query.all_rows, &[]))
        };
        as_owner_of(query, expected)?.ok_or_else(|| Unreadable::changed(query))
    })
}

/// Does work that reads the table, for who waits as long as the caller's settings say, with the rights of its owner.
fn as_owner_of<R>(query: &SourceQuery, work: impl FnOnce() -> R) -> Result<R, Unreadable> {
    match attempt(|| as_table_owner(query.owner, None, work)) {
        Ok(result) => Ok(result),
        Err(error) if is_of_server(&error) => error.rethrow(),
        Err(error) => Err(failed(query, &error)),
    }
}

/// Gives `each` the rows; false, and none, if they are not of that table, in the types that the readers read.
fn give(query: &SourceQuery, rows: &Rows, readers: &[Reader], each: &mut dyn FnMut(i64, &[Value], &mut Row)) -> bool {
    let is_of = is_of(query, rows, readers);
    if is_of {
        rows.for_each(|row| {
            heed_cancel();
            let ordinal = row.value();
            row.skip(1);
            let values: Vec<Value> = readers.iter().map(|reader| value(row, reader)).collect();
            each(ordinal, &values, row);
        });
    }
    is_of
}

/// How a source is read, or why it cannot be.
pub fn queries(source: &Source) -> Result<&Queries, Unreadable> {
    source.query().map_err(|because| {
        let reason = match source.layout {
            Layout::Broken { .. } => "mapping_broken",
            Layout::Whole { .. } => "source_unreadable",
        };
        let named = relation::name_of(source.relation).map(|table| format!("Table {table}: {because}"));
        Unreadable { reason, because: named.unwrap_or_else(|| because.clone()) }
    })
}

/// Why a conversation cannot be read that has a row of that time: the version of the mapping that is in force then
/// names columns that the table has not any more.
pub fn broken_version(source: &Source, at: Instant) -> Unreadable {
    let shown = at.calendar().map(|at| at.to_rfc3339()).unwrap_or_default();
    let because =
        format!("The mapping by which rows of {shown} are read names a column that was dropped or has another type.");
    let because = match source.query() {
        Ok(queries) => format!("Table {}: {because}", queries.all[0].name),
        Err(_) => because,
    };
    Unreadable { reason: "mapping_broken", because }
}

/// Gives `each` the rows of a source that have one of these message ids, as values of the mapping's slots, each with
/// the index of its id.
pub fn for_each_message(
    source: &Source,
    messages: &[&str],
    mut each: impl FnMut(usize, &[Value]),
) -> Result<(), Unreadable> {
    let queries = queries(source)?;
    let Layout::Whole { mapping, readers, .. } = &source.layout else { return Ok(()) };
    for (index, query) in queries.all.iter().enumerate() {
        let can_hold = |id: &usize| query.can_hold_message(messages[*id]);
        let possible: Vec<usize> = (0..messages.len()).filter(can_hold).collect();
        let ids = query.of_messages(possible.iter().map(|id| messages[*id]));
        for_each_row(query, &query.by_message, &ids, readers, Patience::OfCommit, |ordinal, values, _| {
            if queries.gives(index, mapping.pick(values, Instant::LATEST).0) {
                each(possible[ordinal as usize - 1], values);
            }
        })?;
    }
    Ok(())
}

/// Tells whether rows are of a query's table, in the types that the readers read: a datum that is read as what it is
/// not may be any memory of the process.
struct IsOf<'q> {
    query: &'q SourceQuery,
    readers: &'q [Reader],
    /// The table of the row before, or the partition.
    last: Option<pg_sys::Oid>,
}

impl IsOf<'_> {
    /// Passes over the ordinal and the table.
    fn of(&mut self, row: &mut Row) -> bool {
        let reads = |(base_type, reader): (pg_sys::Oid, &Reader)| reader.reads(base_type);
        let is_first = self.last.is_none();
        row.skip(1);
        let table: pg_sys::Oid = row.value();
        let same = self.last.replace(table) == Some(table);
        (same || self.query.holds(table))
            && (!is_first || row.base_types(3, self.readers.len()).into_iter().zip(self.readers).all(reads))
    }
}

fn is_of(query: &SourceQuery, rows: &Rows, readers: &[Reader]) -> bool {
    let mut is_of = IsOf { query, readers, last: None };
    rows.iter().all(|mut row| is_of.of(&mut row))
}

fn value<'r>(row: &mut Row<'r>, reader: &Reader) -> Value<'r> {
    let (datum, is_null) = row.datum();
    // SAFETY: the column has the type that the reader reads, and what the row holds lives as long as it.
    unsafe { reader.read(datum, is_null) }
}

fn rows<'c>(
    connection: &'c Connection,
    query: &SourceQuery,
    statement: &str,
    args: &[Arg],
    patience: Patience,
) -> Result<Rows<'c>, Unreadable> {
    if patience == Patience::OfCommit && GIVEN_UP.with_borrow(|tables| tables.contains(&query.table)) {
        return Err(Unreadable::table(query, "could not be read a moment ago"));
    }
    if query.is_far && IN_COMMIT.get() {
        return Err(Unreadable::table(query, "has a foreign partition, which no commit reads; the next sweep does"));
    }
    let (lock_limit, limit) = match patience {
        Patience::OfCaller => (None, 0),
        Patience::OfCommit => {
            let most = if IN_HASTE.get() { HASTE } else { 0 };
            (Some(settings::source_lock_limit()), settings::source_limit(most))
        }
    };
    let opened = || as_table_owner(query.owner, lock_limit, || read(connection, query, statement, args));
    match attempt(|| limit::within(limit, opened)) {
        Ok(rows) => rows.ok_or_else(|| Unreadable::changed(query)),
        Err(error) if is_of_server(&error) && !limit::was_up() => error.rethrow(),
        Err(error) => {
            GIVEN_UP.with_borrow_mut(|tables| tables.insert(query.table));
            Err(failed(query, &error))
        }
    }
}

/// What an error makes of the table. The error's own words are for the log of the server.
fn failed(query: &SourceQuery, error: &CaughtError) -> Unreadable {
    let code = code(error);
    failure(code, format!("talkmeter could not read table {}: {}", query.name, message(error)))
        .detail(format!("SQLSTATE {}.", sqlstate(code)))
        .log();
    match code {
        _ if limit::was_up() => Unreadable::table(query, "was not read in time"),
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED => {
            Unreadable::table(query, "was locked")
        }
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE => Unreadable::table(query, "may not be read by its owner"),
        _ => Unreadable::table(query, "could not be read: the log of the server says why"),
    }
}

/// Runs a statement of the query's with the rights of the table's owner, if it still means that table.
fn read<'c>(connection: &'c Connection, query: &SourceQuery, statement: &str, args: &[Arg]) -> Option<Rows<'c>> {
    query.open().then(|| connection.run_composed(statement, args))
}

/// Gives `each` the newest rows of a table that is not attached yet; false if the table is not what it was when the
/// query was made. Errors are the caller's to see, who owns the table.
pub fn newest_rows(query: &SourceQuery, readers: &[Reader], mut each: impl FnMut(&[Value])) -> bool {
    connected(|connection| {
        let found = as_table_owner(query.owner, None, || read(connection, query, &query.newest, &[]));
        found.is_some_and(|rows| give(query, &rows, readers, &mut |_, values, _| each(values)))
    })
}
