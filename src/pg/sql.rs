//! How does talkmeter run its own SQL? Plans are prepared once per session; every statement sees the newest snapshot.

use crate::pg::error::damaged;
use crate::pg::limit::heed_cancel;
use crate::pg::majors;
use crate::pg::memory;
use crate::pg::rights;
use crate::pg::varlena;
use pgrx::prelude::*;
use pgrx::{FromDatum, IntoDatum, Spi};
use rust_decimal::Decimal;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::marker::PhantomData;

thread_local! {
    /// By the address of the statement's text, which is constant.
    static PLANS: RefCell<HashMap<*const u8, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
    /// By the text itself, of statements that were put together: until what they were made of changes.
    static COMPOSED: RefCell<HashMap<String, pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
    static IS_OUTDATED: Cell<bool> = const { Cell::new(false) };
    /// How many of them are running: one may run code that runs another.
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// Statements that were put together may be needed no more: the session gives up their plans, when none of them runs.
pub fn composed_are_outdated() {
    IS_OUTDATED.set(true);
}

/// Counts a statement as running, until it is dropped, also when an error passes by.
struct Running;

impl Running {
    fn begin() -> Running {
        if RUNNING.get() == 0 && IS_OUTDATED.replace(false) {
            for (_, plan) in COMPOSED.take() {
                // SAFETY: it was kept by this session, is known to nobody else now, and does not run.
                unsafe { pg_sys::SPI_freeplan(plan) };
            }
        }
        RUNNING.set(RUNNING.get() + 1);
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.set(RUNNING.get() - 1);
    }
}

/// A parameter of a statement.
#[derive(Clone, Copy)]
pub struct Arg {
    oid: pg_sys::Oid,
    datum: Option<pg_sys::Datum>,
}

impl Arg {
    /// A parameter of a type, as the server holds it.
    pub fn of(oid: pg_sys::Oid, datum: Option<pg_sys::Datum>) -> Arg {
        Arg { oid, datum }
    }

    pub fn type_oid(&self) -> pg_sys::Oid {
        self.oid
    }

    /// As the server holds it; `None` is null.
    pub fn datum(&self) -> Option<pg_sys::Datum> {
        self.datum
    }

    /// The types, the values and what is null, as the server wants them.
    pub fn parts(args: &[Arg]) -> (Vec<pg_sys::Oid>, Vec<pg_sys::Datum>, Vec<u8>) {
        let types = args.iter().map(|arg| arg.oid).collect();
        let values = args.iter().map(|arg| arg.datum.unwrap_or(pg_sys::Datum::from(0usize))).collect();
        let nulls = args.iter().map(|arg| if arg.datum.is_some() { b' ' } else { b'n' }).collect();
        (types, values, nulls)
    }
}

/// A parameter from a value; a `Vec` becomes an array.
pub fn arg<T: IntoDatum>(value: T) -> Arg {
    Arg { oid: T::type_oid(), datum: value.into_datum() }
}

/// A parameter from a text, as [`arg`] makes one, and cheaper.
pub fn text_arg(text: &str) -> Arg {
    Arg::of(pg_sys::TEXTOID, Some(varlena::datum(text.as_bytes())))
}

/// A parameter from bytes, as [`arg`] makes one, and cheaper.
pub fn bytes_arg(bytes: &[u8]) -> Arg {
    Arg::of(pg_sys::BYTEAOID, Some(varlena::datum(bytes)))
}

/// A parameter from a list of integers, or null, as [`arg`] makes one, and cheaper.
pub fn int4s_arg(list: Option<&[i32]>) -> Arg {
    Arg::of(pg_sys::INT4ARRAYOID, list.map(varlena::of_int4s))
}

/// A parameter from a field of rows: the value of the only row, or an array of all. For [`Connection::run_over`].
pub fn column<'r, R, T>(rows: &'r [R], field: impl Fn(&'r R) -> T) -> Arg
where
    T: IntoDatum,
    Vec<T>: IntoDatum,
{
    let checked = |row| {
        heed_cancel();
        field(row)
    };
    match rows {
        [only] => arg(field(only)),
        _ => arg(rows.iter().map(checked).collect::<Vec<T>>()),
    }
}

/// A statement over rows that are given as parameters: see [`over_rows`].
pub struct OverRows {
    pub one: &'static str,
    pub many: &'static str,
}

/// A statement of a head, the rows `wanted` with these columns and their `ordinal` from 1 on, and a tail. A single row,
/// which is what an application mostly inserts, comes as it is and not as arrays: that halves what the statement costs.
macro_rules! over_rows {
    (
        $head:expr,
        [$n:literal $name:ident $type:ident $(, $more_n:literal $more_name:ident $more_type:ident)* $(,)?],
        $tail:expr
    ) => {
        $crate::pg::sql::OverRows {
            one: concat!(
                $head, " (SELECT $", $n, "::", stringify!($type), $(", $", $more_n, "::", stringify!($more_type),)*
                ", 1::int8) AS wanted (", stringify!($name), $(", ", stringify!($more_name),)* ", ordinal) ", $tail
            ),
            many: concat!(
                $head, " unnest($", $n, "::", stringify!($type), "[]",
                $(", $", $more_n, "::", stringify!($more_type), "[]",)*
                ") WITH ORDINALITY AS wanted (", stringify!($name), $(", ", stringify!($more_name),)* ", ordinal) ", $tail
            ),
        }
    };
}

/// An INSERT of rows with these columns into a table, with a tail.
macro_rules! insert_rows {
    (
        $table:literal,
        [$n:literal $name:ident $type:ident $(, $more_n:literal $more_name:ident $more_type:ident)* $(,)?],
        $tail:literal
    ) => {
        $crate::pg::sql::over_rows!(
            concat!(
                "INSERT INTO ", $table, " (", stringify!($name), $(", ", stringify!($more_name),)*
                ") SELECT ", stringify!($name), $(", ", stringify!($more_name),)* " FROM"
            ),
            [$n $name $type $(, $more_n $more_name $more_type)*],
            $tail
        )
    };
}

pub(crate) use {insert_rows, over_rows};

/// The connection to the server's SQL interface; parameters and results live as long as it.
pub struct Connection(PhantomData<*const ()>);

/// Does `work` on a connection of its own.
pub fn connected<R>(work: impl FnOnce(&Connection) -> R) -> R {
    memory::keep_reserve();
    memory::with_room_for_errors(|| Spi::connect(|_| work(&Connection(PhantomData))))
}

/// The rows that a statement returned.
pub struct Rows<'c> {
    table: *mut pg_sys::SPITupleTable,
    count: usize,
    connection: PhantomData<&'c Connection>,
}

impl Connection {
    /// Runs a statement of ours with the newest snapshot, also at REPEATABLE READ: what is read after a lock must be
    /// what the lock protects. That goes for locks of rows as well as for those of tables, which are taken first.
    pub fn run(&self, statement: &'static str, args: &[Arg]) -> Rows<'_> {
        self.execute(plan(statement, args), statement, args)
    }

    /// Runs, as [`Connection::run`] does, a statement that was put together (see [`crate::relation`], which quotes
    /// names).
    pub fn run_composed(&self, statement: &str, args: &[Arg]) -> Rows<'_> {
        let _running = Running::begin();
        let known = COMPOSED.with_borrow(|plans| plans.get(statement).copied());
        let plan = known.unwrap_or_else(|| {
            let plan = prepare(statement, args, pg_sys::CURSOR_OPT_GENERIC_PLAN);
            COMPOSED.with_borrow_mut(|plans| plans.insert(statement.to_owned(), plan));
            plan
        });
        self.execute(plan, statement, args)
    }

    fn execute(&self, plan: pg_sys::SPIPlanPtr, statement: &str, args: &[Arg]) -> Rows<'_> {
        let (_, mut values, nulls) = Arg::parts(args);
        rights::settle();
        // SAFETY: the plan was kept, values and nulls have one entry per parameter of the types it was prepared with,
        // and the server copies the snapshot.
        unsafe {
            lock_relations(plan);
            let result = pg_sys::SPI_execute_snapshot(
                plan,
                values.as_mut_ptr(),
                nulls.as_ptr().cast(),
                pg_sys::GetLatestSnapshot(),
                std::ptr::null_mut(),
                false,
                true,
                0,
            );
            check(result, statement);
            self.result()
        }
    }

    /// Runs, as [`Connection::run`] does, a statement that is planned for these values, and not for any.
    pub fn run_anew(&self, statement: &str, args: &[Arg]) -> Rows<'_> {
        let plan = prepare(statement, args, pg_sys::CURSOR_OPT_CUSTOM_PLAN);
        let rows = self.execute(plan, statement, args);
        // SAFETY: the plan is known to nobody else, and has run. After an error it stays as long as the session.
        unsafe { pg_sys::SPI_freeplan(plan) };
        rows
    }

    /// Runs a statement over `count` rows, whose parameters are made by [`column`].
    pub fn run_over(&self, statement: &OverRows, count: usize, args: &[Arg]) -> Rows<'_> {
        self.run(if count == 1 { statement.one } else { statement.many }, args)
    }

    /// Runs a statement that was put together for one occasion (see [`crate::relation`], which quotes names), with the
    /// caller's snapshot and, if `read_only`, without a transaction id.
    pub fn run_once(&self, statement: &str, read_only: bool) -> Rows<'_> {
        let text = CString::new(statement).expect("SQL without zero bytes");
        rights::settle();
        // SAFETY: the server copies the text.
        unsafe {
            check(pg_sys::SPI_execute(text.as_ptr(), read_only, 0), statement);
            self.result()
        }
    }

    /// Runs a query that was put together, with the newest snapshot, and gives `each` its rows as they are made, as
    /// long as it says to go on: there may be more of them than memory should hold. `each` runs no statement. False if
    /// it said to stop.
    pub fn run_through(&self, statement: &str, mut each: impl FnMut(&mut Row) -> bool) -> bool {
        let cursor = Cursor::open(self, statement, &[]);
        let mut goes_on = true;
        let mut look_at = |row: &mut Row| {
            goes_on = each(row);
            goes_on
        };
        let mut receiver = Receiver::new(&mut look_at);
        let forward = pg_sys::FetchDirection::FETCH_FORWARD;
        // SAFETY: the cursor is open, and the receiver stays where it is until its rows are at an end.
        unsafe { pg_sys::PortalRunFetch(cursor.portal, forward, std::ffi::c_long::MAX, receiver.as_server()) };
        goes_on
    }

    /// Begins a statement of ours, as [`Connection::run`] does, whose rows are fetched by this and by later connections
    /// of the transaction.
    pub fn begin(&self, statement: &'static str, args: &[Arg]) -> Begun {
        // SAFETY: the plan is a kept one of these values. The server's name of the cursor is copied.
        unsafe { Begun(CStr::from_ptr((*open(plan(statement, args), args)).name).to_owned()) }
    }

    /// The next rows of what was begun, at most so many. Without any it is closed.
    pub fn fetch(&self, begun: &Begun, most: i64) -> Rows<'_> {
        rights::settle();
        // SAFETY: a cursor of that name is open, until its rows are at an end or the transaction is.
        unsafe {
            let portal = pg_sys::SPI_cursor_find(begun.0.as_ptr());
            assert!(!portal.is_null(), "a statement that was begun in this transaction");
            pg_sys::SPI_cursor_fetch(portal, true, most);
            let rows = self.result();
            if rows.count == 0 {
                pg_sys::SPI_cursor_close(portal);
            }
            rows
        }
    }

    /// How many rows the server expects of a statement that was put together, with these values.
    pub fn expected(&self, statement: &str, args: &[Arg]) -> f64 {
        let cursor = Cursor::open(self, statement, args);
        // SAFETY: an open cursor of a query has a plan.
        unsafe { (*(*(*(*cursor.portal).queryDesc).plannedstmt).planTree).plan_rows }
    }

    /// SAFETY: a statement must just have run on this connection.
    unsafe fn result(&self) -> Rows<'_> {
        unsafe { Rows { table: pg_sys::SPI_tuptable, count: pg_sys::SPI_processed as usize, connection: PhantomData } }
    }
}

/// Opens a cursor of a plan with the newest snapshot.
///
/// SAFETY: the plan must be a kept one of the types of these values, and there must be a connection.
unsafe fn open(plan: pg_sys::SPIPlanPtr, args: &[Arg]) -> pg_sys::Portal {
    let (_, mut values, nulls) = Arg::parts(args);
    // SAFETY: as of [`Connection::execute`]; the cursor keeps the snapshot that is active when it is opened, a
    // reference to the plan, and a copy of the values.
    unsafe {
        lock_relations(plan);
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let portal = pg_sys::SPI_cursor_open(std::ptr::null(), plan, values.as_mut_ptr(), nulls.as_ptr().cast(), true);
        pg_sys::PopActiveSnapshot();
        portal
    }
}

/// A statement that has begun: see [`Connection::begin`].
pub struct Begun(CString);

/// A statement whose rows are fetched; if an error passes by, the server closes it.
struct Cursor<'c> {
    portal: pg_sys::Portal,
    plan: pg_sys::SPIPlanPtr,
    connection: PhantomData<&'c Connection>,
}

impl<'c> Cursor<'c> {
    /// Planned for these values, and not for any: it is run once.
    fn open(_: &'c Connection, statement: &str, args: &[Arg]) -> Cursor<'c> {
        let plan = prepare(statement, args, pg_sys::CURSOR_OPT_CUSTOM_PLAN);
        // SAFETY: the plan is a kept one of these values.
        let portal = unsafe { open(plan, args) };
        Cursor { portal, plan, connection: PhantomData }
    }
}

impl Drop for Cursor<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by this value, and closed once. The plan is known to nobody else, and does not run.
            unsafe {
                pg_sys::SPI_cursor_close(self.portal);
                pg_sys::SPI_freeplan(self.plan);
            }
        }
    }
}

/// What the executor gives its rows to, as it makes them: the server's part of it first, as the server demands. Where
/// there are very many, to copy each for the SQL interface takes longer than to read it.
#[repr(C)]
struct Receiver<'e> {
    server: pg_sys::DestReceiver,
    each: &'e mut dyn FnMut(&mut Row) -> bool,
    /// Made for the first row.
    cells: Option<Apart>,
}

impl<'e> Receiver<'e> {
    /// Gives `each` the rows, as long as it says to go on.
    fn new(each: &'e mut dyn FnMut(&mut Row) -> bool) -> Receiver<'e> {
        let server = pg_sys::DestReceiver {
            receiveSlot: Some(receive),
            rStartup: Some(begin),
            rShutdown: Some(end),
            rDestroy: Some(end),
            mydest: pg_sys::CommandDest::DestNone,
        };
        Receiver { server, each, cells: None }
    }

    /// The receiver as the server knows it, for as long as it is not moved.
    fn as_server(&mut self) -> *mut pg_sys::DestReceiver {
        (&raw mut *self).cast()
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn receive(slot: *mut pg_sys::TupleTableSlot, receiver: *mut pg_sys::DestReceiver) -> bool {
    // SAFETY: the server gives back what `as_server` gave it, and a slot with a row, whose values and descriptor are
    // there until the next one.
    unsafe {
        let own = &mut *receiver.cast::<Receiver>();
        let columns = (*slot).tts_tupleDescriptor;
        if i32::from((*slot).tts_nvalid) < (*columns).natts {
            pg_sys::slot_getallattrs(slot);
        }
        let cells = own.cells.get_or_insert_with(|| Apart::of(columns));
        cells.copy((*slot).tts_values, (*slot).tts_isnull);
        (own.each)(&mut Row::taken_apart(cells, columns))
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn begin(_receiver: *mut pg_sys::DestReceiver, _operation: i32, _columns: pg_sys::TupleDesc) {}

#[pg_guard]
unsafe extern "C-unwind" fn end(_receiver: *mut pg_sys::DestReceiver) {}

/// Locks what a plan reads and writes, until the transaction ends, so that the snapshot that is taken next is younger
/// than the locks. The server itself would lock after it: if a table was rewritten while we waited, its rows would be
/// newer than the snapshot, and so not there.
///
/// SAFETY: the plan must be a kept one, and there must be a connection.
unsafe fn lock_relations(plan: pg_sys::SPIPlanPtr) {
    // SAFETY: a kept plan is referenced by the current resource owner while it is looked at, and so it is released.
    unsafe {
        let cached = pg_sys::SPI_plan_get_cached_plan(plan);
        if !cached.is_null() {
            pg_sys::ReleaseCachedPlan(cached, pg_sys::CurrentResourceOwner);
        }
    }
}

fn check(result: i32, statement: &str) {
    if result < 0 {
        panic!("SPI answered {result} to: {statement}");
    }
}

fn plan(statement: &'static str, args: &[Arg]) -> pg_sys::SPIPlanPtr {
    let known = PLANS.with_borrow(|plans| plans.get(&statement.as_ptr()).copied());
    known.unwrap_or_else(|| {
        let plan = prepare(statement, args, pg_sys::CURSOR_OPT_GENERIC_PLAN);
        PLANS.with_borrow_mut(|plans| plans.insert(statement.as_ptr(), plan));
        plan
    })
}

/// A plan that is kept.
fn prepare(statement: &str, args: &[Arg], options: u32) -> pg_sys::SPIPlanPtr {
    let text = CString::new(statement).expect("SQL without zero bytes");
    rights::settle();
    let mut oids: Vec<pg_sys::Oid> = args.iter().map(|arg| arg.oid).collect();
    // SAFETY: the server copies text and types; a kept plan lives as long as the session, as the map that holds it
    // does.
    unsafe {
        let plan = pg_sys::SPI_prepare_cursor(text.as_ptr(), oids.len() as i32, oids.as_mut_ptr(), options as i32);
        assert!(!plan.is_null(), "SPI could not prepare: {statement}");
        pg_sys::SPI_keepplan(plan);
        plan
    }
}

impl Rows<'_> {
    /// Rows returned, or changed if the statement returns none.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The rows in the order in which they were returned.
    pub fn iter(&self) -> impl Iterator<Item = Row<'_>> {
        let returned = if self.table.is_null() { 0 } else { self.count };
        // SAFETY: the table lives as long as the connection, and has that many rows.
        (0..returned).map(|index| unsafe { Row::of(*(*self.table).vals.add(index), (*self.table).tupdesc) })
    }

    /// Gives `each` the rows in their order, each taken apart at once: that is cheaper where many columns are read.
    pub fn for_each(&self, mut each: impl FnMut(&mut Row)) {
        if self.table.is_null() {
            return;
        }
        // SAFETY: the table lives as long as the connection, and has that many rows of these columns.
        unsafe {
            let columns = (*self.table).tupdesc;
            let mut cells = Apart::of(columns);
            let (values, are_null) = cells.places();
            for index in 0..self.count {
                pg_sys::heap_deform_tuple(*(*self.table).vals.add(index), columns, values, are_null);
                each(&mut Row::taken_apart(&cells, columns));
            }
        }
    }

    /// The first row, if there is any.
    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }

    /// The row of a statement that always returns one.
    pub fn only(&self) -> Row<'_> {
        assert_eq!(self.count, 1, "a statement that returns one row");
        self.first().expect("a row was returned")
    }
}

/// A row that is read column by column, in their order.
#[derive(Clone)]
pub struct Row<'r> {
    source: Cells<'r>,
    columns: pg_sys::TupleDesc,
    /// How many columns were read.
    column: i32,
}

/// What a row holds, in the server's form, or taken apart.
#[derive(Clone, Copy)]
enum Cells<'r> {
    Tuple(pg_sys::HeapTuple),
    Apart(&'r Apart),
}

/// A row that was taken apart: the value of each column, and whether it is null.
pub struct Apart {
    values: Vec<pg_sys::Datum>,
    are_null: Vec<bool>,
}

impl Apart {
    /// Room for a row, which is null so far.
    ///
    /// SAFETY: there must be such columns.
    pub unsafe fn of(columns: pg_sys::TupleDesc) -> Apart {
        // SAFETY: the caller's promise.
        let count = unsafe { (*columns).natts } as usize;
        Apart { values: vec![pg_sys::Datum::from(0usize); count], are_null: vec![true; count] }
    }

    /// SAFETY: there must be as many values as columns.
    pub unsafe fn copy(&mut self, values: *const pg_sys::Datum, are_null: *const bool) {
        let count = self.values.len();
        // SAFETY: the caller's promise.
        unsafe {
            self.values.copy_from_slice(std::slice::from_raw_parts(values, count));
            self.are_null.copy_from_slice(std::slice::from_raw_parts(are_null, count));
        }
    }

    /// Where the server is to put the values, and what is null.
    pub fn places(&mut self) -> (*mut pg_sys::Datum, *mut bool) {
        (self.values.as_mut_ptr(), self.are_null.as_mut_ptr())
    }
}

impl<'r> Row<'r> {
    /// SAFETY: the tuple must be of these columns, and both live as long as the row.
    unsafe fn of(tuple: pg_sys::HeapTuple, columns: pg_sys::TupleDesc) -> Row<'r> {
        Row { source: Cells::Tuple(tuple), columns, column: 0 }
    }

    /// SAFETY: what was taken apart must be of these columns, and both live as long as the row.
    pub unsafe fn taken_apart(cells: &'r Apart, columns: pg_sys::TupleDesc) -> Row<'r> {
        Row { source: Cells::Apart(cells), columns, column: 0 }
    }

    /// Passes over columns.
    pub fn skip(&mut self, count: i32) {
        self.column += count;
    }

    /// The next column; `None` if it is null. Panics if the column is of another type: a datum read as what it is not
    /// may be any memory of the process.
    pub fn nullable<T: FromDatum + IntoDatum>(&mut self) -> Option<T> {
        let (datum, is_null) = self.datum();
        let returned = self.type_of_last();
        assert_eq!(returned, T::type_oid(), "type of column {}", self.column);
        // SAFETY: the column is of that type.
        unsafe { T::from_datum(datum, is_null) }
    }

    /// The next column, which is never null.
    pub fn value<T: FromDatum + IntoDatum>(&mut self) -> T {
        self.nullable().unwrap_or_else(|| damaged(format!("column {} of what was read is null", self.column)))
    }

    /// The next column, a number that is counted on with, and so is far from the ends of its type.
    pub fn tally(&mut self) -> i64 {
        const MOST: i64 = 1 << 60;
        let number: i64 = self.value();
        if number.saturating_abs() > MOST {
            damaged(format!("column {} of what was read is {number}", self.column));
        }
        number
    }

    /// The next column, a list of integers; `None` if it is null. None of them is ever null.
    pub fn int4s(&mut self) -> Option<Vec<i32>> {
        let (datum, is_null) = self.datum();
        assert_eq!(self.type_of_last(), pg_sys::INT4ARRAYOID, "type of column {}", self.column);
        if is_null {
            return None;
        }
        // SAFETY: it is an array, and not null.
        let list = unsafe { varlena::int4s(datum) };
        let damage = || damaged(format!("column {} of what was read is no list without nulls", self.column));
        Some(list.unwrap_or_else(damage))
    }

    /// The types under all domains of the columns from one on, counted from 1.
    pub fn base_types(&self, first: i32, count: usize) -> Vec<pg_sys::Oid> {
        // SAFETY: the columns live as long as the row; one beyond the last has no type, which is no domain.
        let base_type = |column| unsafe { pg_sys::getBaseType(pg_sys::SPI_gettypeid(self.columns, column)) };
        (first..).take(count).map(base_type).collect()
    }

    /// The next column, a `regclass`; `None` if it is null.
    pub fn relation(&mut self) -> Option<pg_sys::Oid> {
        let (datum, is_null) = self.datum();
        assert_eq!(self.type_of_last(), pg_sys::REGCLASSOID, "type of column {}", self.column);
        (!is_null).then(|| pg_sys::Oid::from(datum.value() as u32))
    }

    /// Name and type of the next column, if there is one; one that was dropped has no type.
    pub fn next(&self) -> Option<(&'r str, pg_sys::Oid)> {
        self.attribute(self.column).map(|next| (pgrx::name_data_to_str(&next.attname), next.atttypid))
    }

    /// The next column, the ordinal of a row that was given as parameters ([`over_rows`]), counted from 0.
    pub fn ordinal(&mut self) -> usize {
        self.value::<i64>() as usize - 1
    }

    /// The next column as the server holds it, with whether it is null.
    pub fn datum(&mut self) -> (pg_sys::Datum, bool) {
        self.column += 1;
        let tuple = match self.source {
            Cells::Tuple(tuple) => tuple,
            Cells::Apart(cells) => {
                let index = self.column as usize - 1;
                return (cells.values[index], cells.are_null[index]);
            }
        };
        let mut is_null = false;
        // SAFETY: tuple and columns live as long as the row; a column beyond the last is null.
        let datum = unsafe { pg_sys::SPI_getbinval(tuple, self.columns, self.column, &mut is_null) };
        (datum, is_null)
    }

    /// The type of the column that was read last; one beyond the last has none.
    fn type_of_last(&self) -> pg_sys::Oid {
        self.attribute(self.column - 1).map_or(pg_sys::InvalidOid, |last| last.atttypid)
    }

    /// A column by its index.
    fn attribute(&self, index: i32) -> Option<&'r pg_sys::FormData_pg_attribute> {
        // SAFETY: the columns live as long as the row, and are as many as they say.
        unsafe { majors::columns(self.columns) }.get(index as usize)
    }
}

/// A number that our own tables hold, which only our own code writes: the engine can hold it. `text` is as SQL writes
/// it.
pub fn decimal(text: &str) -> Decimal {
    text.parse().unwrap_or_else(|error| damaged(format!("amount {text}: {error}")))
}

/// An amount of the engine's as the server holds it.
pub fn numeric(amount: Decimal) -> AnyNumeric {
    AnyNumeric::try_from(amount.to_string().as_str()).expect("the engine's amounts are numbers")
}
