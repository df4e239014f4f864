//! How is a row of a table of our own found and written without SQL? By the functions with which a subscriber applies
//! what a publisher sends: they keep indexes, constraints and the log as a statement does, and plan nothing.

use crate::pg::error::{damaged, failure};
use crate::pg::majors::{self, Entries};
use crate::pg::raw::{self, guarded};
use crate::pg::rights;
use crate::pg::sql::{Apart, Arg, Row};
use crate::pg::version;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_char};
use std::ops::ControlFlow;
use std::ptr::null_mut;

/// The types of the columns of our tables.
pub mod types {
    use pgrx::pg_sys::{self, Oid};

    pub const TEXT: Oid = pg_sys::TEXTOID;
    pub const NAME: Oid = pg_sys::NAMEOID;
    pub const BYTES: Oid = pg_sys::BYTEAOID;
    pub const BOOL: Oid = pg_sys::BOOLOID;
    pub const INT4: Oid = pg_sys::INT4OID;
    pub const INT8: Oid = pg_sys::INT8OID;
    pub const NUMERIC: Oid = pg_sys::NUMERICOID;
    pub const DATE: Oid = pg_sys::DATEOID;
    pub const TIME: Oid = pg_sys::TIMESTAMPTZOID;
    pub const INT4S: Oid = pg_sys::INT4ARRAYOID;
    pub const UUID: Oid = pg_sys::UUIDOID;
    pub const TEXTS: Oid = pg_sys::TEXTARRAYOID;
    pub const INTERVAL: Oid = pg_sys::INTERVALOID;
    pub const JSONB: Oid = pg_sys::JSONBOID;
    pub const REGCLASS: Oid = pg_sys::REGCLASSOID;
    pub const REGCLASSES: Oid = pg_sys::REGCLASSARRAYOID;
}

/// A table of ours as this library knows it.
pub struct Shape {
    /// As for [`oid`].
    pub name: &'static CStr,
    /// The types of its columns, in their order.
    pub types: &'static [pg_sys::Oid],
}

/// An index of such a table.
pub struct Index {
    pub name: &'static CStr,
    /// The numbers of its columns in the table.
    pub columns: &'static [i16],
}

/// What a column of an index is to be.
#[derive(Clone, Copy)]
pub enum Wanted {
    Same(Arg),
    AtLeast(Arg),
    AtMost(Arg),
}

impl Wanted {
    /// The value, how it is compared, and by which function of the server's.
    fn comparison(self) -> (pg_sys::Datum, u32, u32) {
        let (value, strategy) = match self {
            Wanted::Same(value) => (value, pg_sys::BTEqualStrategyNumber),
            Wanted::AtLeast(value) => (value, pg_sys::BTGreaterEqualStrategyNumber),
            Wanted::AtMost(value) => (value, pg_sys::BTLessEqualStrategyNumber),
        };
        let function = match (value.type_oid(), self) {
            (pg_sys::TEXTOID, Wanted::Same(_)) => pg_sys::F_TEXTEQ,
            (pg_sys::INT4OID, Wanted::Same(_)) => pg_sys::F_INT4EQ,
            (pg_sys::TIMESTAMPTZOID, Wanted::AtMost(_)) => pg_sys::F_TIMESTAMPTZ_LE,
            (pg_sys::DATEOID, Wanted::AtLeast(_)) => pg_sys::F_DATE_GE,
            (pg_sys::DATEOID, Wanted::AtMost(_)) => pg_sys::F_DATE_LE,
            (oid, _) => unreachable!("no index of ours compares type {oid:?} like that"),
        };
        (value.datum().expect("no index of ours looks for null"), strategy, function)
    }
}

/// No more is wanted at once.
const MOST_WANTED: usize = 4;

/// What a table is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Reading,
    /// The work has locked it for writing, as for the next; it knows only the first columns.
    Locking,
    /// The work has locked it for writing.
    Writing,
}

/// Where a row is. It stays there as long as nobody else changes it.
#[derive(Clone, Copy)]
pub struct Place(pg_sys::ItemPointerData);

/// All that is committed, and all that this transaction has written before.
pub struct Newest(pg_sys::Snapshot);

/// Does `work` with the newest snapshot, also at REPEATABLE READ: see [`crate::pg::sql::Connection::run`]. What it
/// writes is seen by what comes after it, and not by itself.
pub fn with_newest<R>(work: impl FnOnce(&Newest) -> R) -> R {
    // SAFETY: the server copies the snapshot when it becomes the active one, and forgets it with the subtransaction if
    // an error passes by.
    unsafe {
        let newest = guarded(|| {
            raw::PushActiveSnapshot(raw::GetLatestSnapshot());
            raw::GetActiveSnapshot()
        });
        let result = work(&Newest(newest));
        guarded(|| {
            raw::PopActiveSnapshot();
            raw::CommandCounterIncrement();
        });
        result
    }
}

thread_local! {
    /// The oids of tables and indexes of ours by the address of their names, which are constant, until any relation or
    /// schema has another name or owner.
    static OIDS: RefCell<Vec<(*const c_char, pg_sys::Oid)>> = const { RefCell::new(Vec::new()) };
}

/// Asks the server to tell us when relations or schemas are made, renamed or dropped.
pub fn watch_names() {
    use pg_sys::SysCacheIdentifier::{NAMESPACEOID, RELNAMENSP};
    for cache in [RELNAMENSP, NAMESPACEOID] {
        let nothing = pg_sys::Datum::from(0usize);
        // SAFETY: registered once per session, while the library is loaded; the callback only forgets.
        unsafe { pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(on_name_changed), nothing) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_name_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    OIDS.with(|oids| oids.try_borrow_mut().map(|mut oids| oids.clear()).unwrap_or_default());
}

/// The schema of a table or an index of ours, and its name in it: a name without a schema is of `talkmeter`.
fn in_schema(name: &'static CStr) -> (&'static CStr, &'static CStr) {
    match name.to_bytes().iter().position(|byte| *byte == b'.') {
        Some(dot) => (c"talkmeter_archive", &name[dot + 1..]),
        None => (c"talkmeter", name),
    }
}

/// The oid of a table or an index of ours; that of nothing if there is none of that name. The name of one that is not
/// of schema `talkmeter` begins with `talkmeter_archive.`.
pub fn oid(name: &'static CStr) -> pg_sys::Oid {
    let known = OIDS.with_borrow(|oids| oids.iter().find(|(known, _)| *known == name.as_ptr()).map(|(_, oid)| *oid));
    if let Some(oid) = known {
        return oid;
    }
    let (schema, own) = in_schema(name);
    // SAFETY: look-ups in the server's cache of the catalog by names that live for ever.
    let oid = unsafe { pg_sys::get_relname_relid(own.as_ptr(), pg_sys::get_namespace_oid(schema.as_ptr(), false)) };
    if oid != pg_sys::InvalidOid {
        OIDS.with_borrow_mut(|oids| oids.push((name.as_ptr(), oid)));
    }
    oid
}

/// A table of ours that is open for a work. If an error passes by, the server closes it with the subtransaction.
pub struct OwnTable {
    shape: &'static Shape,
    relation: pg_sys::Relation,
    writer: Option<Writer>,
}

impl OwnTable {
    /// Opens a table. It is an error if its rows cannot be read or written in this way, because somebody has made
    /// another table of it.
    pub fn open(shape: &'static Shape, access: Access) -> OwnTable {
        let lock = match access {
            Access::Reading => pg_sys::AccessShareLock,
            Access::Locking | Access::Writing => pg_sys::RowExclusiveLock,
        };
        // SAFETY: the server raises an error if there is no such table, or if it must not be written now.
        let oid = oid(shape.name);
        let relation = unsafe {
            guarded(|| {
                if access != Access::Reading {
                    raw::PreventCommandIfReadOnly(c"INSERT".as_ptr());
                }
                raw::table_open(oid, lock as i32)
            })
        };
        // Whoever waited for the lock may have waited for an upgrade.
        version::must_be_readable();
        let table = OwnTable { shape, relation, writer: None };
        table.check(access);
        table
    }

    /// Opens a table for reading, unless there is nothing to be read. That is known before the server has gathered all
    /// that is to be known of a table, which takes longer than to read a small one.
    pub fn open_unless_empty(shape: &'static Shape) -> Option<OwnTable> {
        (!has_no_pages(oid(shape.name))).then(|| OwnTable::open(shape, Access::Reading))
    }

    fn check(&self, access: Access) {
        let known = self.shape.types.len();
        // SAFETY: an open relation has all of these, and its attributes are as many as its descriptor says.
        let (is_plain, has_rules, columns) = unsafe {
            let relation = &*self.relation;
            let class = &*relation.rd_rel;
            (
                class.relkind == pg_sys::RELKIND_RELATION as i8 && class.relam == pg_sys::HEAP_TABLE_AM_OID,
                !relation.rd_rules.is_null(),
                majors::columns(relation.rd_att),
            )
        };
        if !is_plain {
            self.refuse("it is no ordinary table any more");
        }
        if has_rules && access == Access::Writing {
            self.refuse("it has a rule");
        }
        let is_known = |(column, oid): (&pg_sys::FormData_pg_attribute, &pg_sys::Oid)| {
            column.atttypid == *oid && !column.attisdropped
        };
        let has_all = columns.len() >= known && columns.iter().zip(self.shape.types).all(is_known);
        // What was added and dropped again is there for ever, as null.
        let has_more = || columns[known..].iter().any(|column| !column.attisdropped);
        if !has_all || (access == Access::Writing && has_more()) {
            self.refuse("its columns are others");
        }
    }

    fn refuse(&self, because: &str) -> ! {
        let (schema, name) = in_schema(self.shape.name);
        let table = format!("{}.{}", schema.to_string_lossy(), name.to_string_lossy());
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table {table} is not as talkmeter made it: {because}"),
        )
        .hint("Take that back, and call talkmeter.retry_quarantine().")
        .raise()
    }

    /// The row with a key, and where it is.
    pub fn find<R>(
        &self,
        newest: &Newest,
        index: &Index,
        key: &[Arg],
        read: impl FnOnce(&mut Row) -> R,
    ) -> Option<(Place, R)> {
        let wanted: Vec<(usize, Wanted)> = key.iter().copied().map(Wanted::Same).enumerate().collect();
        let (mut read, mut found) = (Some(read), None);
        self.scan_down(newest, index, &wanted, false, &mut |place, row| {
            found = read.take().map(|read| (place, read(row)));
            ControlFlow::Break(())
        });
        found
    }

    /// As [`OwnTable::scan`] by a unique index, the greatest key first: of a row that has many versions, because
    /// somebody's snapshot keeps them, the first that is looked at is the last one as a rule, and the others are not.
    pub fn scan_newest(
        &self,
        newest: &Newest,
        index: &Index,
        wanted: &[(usize, Wanted)],
        mut each: impl FnMut(Place, &mut Row),
    ) {
        self.scan_down(newest, index, wanted, true, &mut |place, row| {
            each(place, row);
            ControlFlow::Continue(())
        });
    }

    /// Gives `each` the rows of which the first columns of an index are as each of many keys says, the greatest first,
    /// with the number of the key, until it breaks off: then come those of the next key. The index is opened once.
    pub fn look_up<const COLUMNS: usize>(
        &self,
        newest: &Newest,
        index: &Index,
        keys: impl Iterator<Item = [Arg; COLUMNS]>,
        mut each: impl FnMut(usize, &mut Row) -> ControlFlow<()>,
    ) {
        let mut begun: Option<Down> = None;
        // SAFETY: as of `scan_down`; the server copies the keys.
        unsafe {
            let columns = (*self.relation).rd_att;
            let mut cells = Apart::of(columns);
            let places = cells.places();
            for (number, key) in keys.enumerate() {
                let wanted: Vec<(usize, Wanted)> = key.into_iter().map(Wanted::Same).enumerate().collect();
                let (oid, mut keys) = self.keys(index, &wanted, |position| position as i16 + 1);
                let mut scan = guarded(|| {
                    let scan = begun.unwrap_or_else(|| self.begin_down(oid, newest, COLUMNS as i32));
                    raw::index_rescan(scan.scan, keys.as_mut_ptr(), COLUMNS as i32, null_mut(), 0);
                    scan.next(columns, places, &[])
                });
                while !scan.tuple.is_null() && each(number, &mut Row::taken_apart(&cells, columns)).is_continue() {
                    scan = guarded(|| scan.next(columns, places, &[]));
                }
                begun = Some(scan);
            }
            if let Some(scan) = begun {
                guarded(|| scan.end());
            }
        }
    }

    /// SAFETY: only under a guard, for an index of this open table; it must be ended.
    unsafe fn begin_down(&self, index: pg_sys::Oid, newest: &Newest, conditions: i32) -> Down {
        // SAFETY: the caller's promise.
        unsafe {
            let index = raw::index_open(index, pg_sys::AccessShareLock as i32);
            let slot = raw::table_slot_create(self.relation, null_mut());
            let scan = majors::index_beginscan(self.relation, index, newest.0, conditions);
            Down { index, slot, scan, tuple: null_mut() }
        }
    }

    /// Only if it tells keys does it go on after a row.
    fn scan_down(
        &self,
        newest: &Newest,
        index: &Index,
        wanted: &[(usize, Wanted)],
        tells_keys: bool,
        each: &mut dyn FnMut(Place, &mut Row) -> ControlFlow<()>,
    ) {
        let (oid, mut keys) = self.keys(index, wanted, |position| position as i16 + 1);
        let count = wanted.len() as i32;
        // SAFETY: as of a scan upwards; the slot is of this table.
        unsafe {
            let columns = (*self.relation).rd_att;
            let mut cells = Apart::of(columns);
            let places = cells.places();
            let mut scan = guarded(|| {
                let down = self.begin_down(oid, newest, count);
                (*down.scan).xs_want_itup = tells_keys;
                raw::index_rescan(down.scan, keys.as_mut_ptr(), count, null_mut(), 0);
                down.next(columns, places, &[])
            });
            let mut seen = Vec::new();
            while !scan.tuple.is_null() {
                let place = Place((*scan.tuple).t_self);
                if each(place, &mut Row::taken_apart(&cells, columns)).is_break() {
                    break;
                }
                seen.clear();
                seen.extend_from_slice(key_of((*scan.scan).xs_itup));
                let places = cells.places();
                scan = guarded(|| scan.next(columns, places, &seen));
            }
            guarded(|| scan.end());
        }
    }

    /// Gives `each` the rows of which columns of an index, by their positions in it and in their order, are as wanted,
    /// in the order of the index.
    pub fn scan(
        &self,
        newest: &Newest,
        index: &Index,
        wanted: &[(usize, Wanted)],
        mut each: impl FnMut(Place, &mut Row),
    ) {
        let (oid, mut keys) = self.keys(index, wanted, |position| index.columns[position]);
        // SAFETY: the index is one of this open table, the keys are as many as said and of its columns' types, and a
        // row is read before the next one is.
        unsafe {
            let count = wanted.len() as i32;
            let scan = pg_sys::systable_beginscan(self.relation, oid, true, newest.0, count, keys.as_mut_ptr());
            self.read(scan, &mut each);
            pg_sys::systable_endscan(scan);
        }
    }

    /// The oid of an index and what is wanted of its columns, whose number says `number_of` of their positions.
    fn keys(
        &self,
        index: &Index,
        wanted: &[(usize, Wanted)],
        number_of: impl Fn(usize) -> i16,
    ) -> (pg_sys::Oid, [pg_sys::ScanKeyData; MOST_WANTED]) {
        let oid = oid(index.name);
        // SAFETY: there is an index of that oid.
        if oid == pg_sys::InvalidOid || !unsafe { guarded(|| raw::get_index_isvalid(oid)) } {
            self.refuse("an index of it is missing or not valid");
        }
        assert!(wanted.len() <= MOST_WANTED, "{} columns of {:?}", wanted.len(), index.name);
        let mut keys = [pg_sys::ScanKeyData::default(); MOST_WANTED];
        for (key, (position, wanted)) in keys.iter_mut().zip(wanted) {
            let (value, strategy, function) = wanted.comparison();
            // SAFETY: fills in what it is given.
            unsafe { pg_sys::ScanKeyInit(key, number_of(*position), strategy as u16, function.into(), value) };
        }
        (oid, keys)
    }

    /// Gives `each` all rows, in no order.
    pub fn all(&self, newest: &Newest, mut each: impl FnMut(&mut Row)) {
        // SAFETY: as of a scan by an index.
        unsafe {
            let none = pg_sys::InvalidOid;
            let scan = pg_sys::systable_beginscan(self.relation, none, false, newest.0, 0, null_mut());
            self.read(scan, &mut |_, row| each(row));
            pg_sys::systable_endscan(scan);
        }
    }

    /// SAFETY: the scan must be of this table, and not have ended.
    unsafe fn read(&self, scan: pg_sys::SysScanDesc, each: &mut dyn FnMut(Place, &mut Row)) {
        // SAFETY: a tuple is there until the next one is asked for, and of the table's columns.
        unsafe {
            let columns = (*self.relation).rd_att;
            let mut cells = Apart::of(columns);
            loop {
                let (values, are_null) = cells.places();
                let tuple = guarded(|| {
                    let tuple = raw::systable_getnext(scan);
                    if !tuple.is_null() {
                        raw::heap_deform_tuple(tuple, columns, values, are_null);
                    }
                    tuple
                });
                if tuple.is_null() {
                    return;
                }
                each(Place((*tuple).t_self), &mut Row::taken_apart(&cells, columns));
            }
        }
    }

    /// Locks the row with a key, until the transaction ends, and says whether it is there. Waits for whoever holds it;
    /// what he made of it is what is locked.
    pub fn lock(&self, newest: &Newest, index: &Index, key: &[Arg]) -> bool {
        let found = self.find(newest, index, key, |_| ());
        found.is_some_and(|(Place(place), ())| self.lock_at(newest, place, pg_sys::TUPLE_LOCK_FLAG_FIND_LAST_VERSION))
    }

    /// Locks the row at a place; false if it is not there, or, without the flag to follow it, was changed.
    fn lock_at(&self, newest: &Newest, mut place: pg_sys::ItemPointerData, flags: u32) -> bool {
        let mut why_not = pg_sys::TM_FailureData::default();
        // SAFETY: the slot is of this table, and takes what is found; it is dropped when that is known.
        unsafe {
            let slot = pg_sys::table_slot_create(self.relation, null_mut());
            let result = pg_sys::table_tuple_lock(
                self.relation,
                &mut place,
                newest.0,
                slot,
                pg_sys::GetCurrentCommandId(false),
                pg_sys::LockTupleMode::LockTupleExclusive,
                pg_sys::LockWaitPolicy::LockWaitBlock,
                flags as u8,
                &mut why_not,
            );
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            result == pg_sys::TM_Result::TM_Ok
        }
    }

    /// Adds a row.
    pub fn insert(&mut self, newest: &Newest, values: &[Arg]) {
        let relation = self.relation;
        let writer = self.written(newest, values);
        // SAFETY: the writer is of this open table, and its row holds a value of each column's type.
        unsafe {
            settle_for_checks(relation);
            let Executor { state, target } = writer.open_indexes();
            writer.with_triggers(|| pg_sys::ExecSimpleRelationInsert(target, state, writer.row));
            writer.forget();
        }
    }

    /// Writes what the row at a place is now. Nobody else may write it meanwhile.
    pub fn update(&mut self, newest: &Newest, place: Place, values: &[Arg]) {
        if !self.update_unless_changed(newest, place, values) {
            damaged(format!(
                "a row of {} was changed by somebody who had no right to",
                self.shape.name.to_string_lossy()
            ));
        }
    }

    /// As [`OwnTable::update`], of a row that somebody else may write: false if he has done so since it was found, and
    /// then nothing is written. Waits for him.
    #[must_use]
    pub fn update_unless_changed(&mut self, newest: &Newest, Place(mut place): Place, values: &[Arg]) -> bool {
        let relation = self.relation;
        // SAFETY: an open relation has these.
        let has_triggers = unsafe { !(*relation).trigdesc.is_null() };
        if has_triggers {
            return self.update_with_triggers(newest, place, values);
        }
        let writer = self.written(newest, values);
        // SAFETY: as of an insert. It does what the server's `ExecSimpleRelationUpdate` does, which makes an error of
        // a row that was changed, and opens all indexes also if none gets an entry.
        unsafe {
            settle_for_checks(relation);
            writer.check();
            let (mut why_not, mut mode) = (pg_sys::TM_FailureData::default(), pg_sys::LockTupleMode::LockTupleKeyShare);
            let mut updated = Entries::UNKNOWN;
            let result = guarded(|| {
                raw::CheckCmdReplicaIdentity(relation, pg_sys::CmdType::CMD_UPDATE);
                majors::table_tuple_update(
                    relation,
                    &mut place,
                    writer.row,
                    raw::GetCurrentCommandId(true),
                    newest.0,
                    null_mut(),
                    true,
                    &mut why_not,
                    &mut mode,
                    &mut updated,
                )
            });
            let is_written = result == pg_sys::TM_Result::TM_Ok;
            if is_written {
                writer.add_to_indexes(Entries::of(updated));
            }
            writer.forget();
            is_written
        }
    }

    /// Triggers are called before the row is written: nobody may have changed it by then.
    fn update_with_triggers(&mut self, newest: &Newest, place: pg_sys::ItemPointerData, values: &[Arg]) -> bool {
        if !self.lock_at(newest, place, 0) {
            return false;
        }
        let writer = self.written(newest, values);
        // SAFETY: as of an insert; by the empty state a row would be looked for that somebody else has changed.
        unsafe {
            let Executor { state, target } = writer.open_indexes();
            let replaced = writer.place();
            (*replaced).tts_tid = place;
            let mut none = pg_sys::EPQState::default();
            writer.with_triggers(|| {
                pg_sys::ExecSimpleRelationUpdate(target, state, &mut none, replaced, writer.row);
            });
            writer.forget();
        }
        true
    }

    /// Writes some columns, by their numbers, of the row at a place, as [`OwnTable::update`] does; the others stay.
    pub fn change(&mut self, newest: &Newest, place: Place, columns: &[(i16, Arg)]) {
        let mut values = Vec::new();
        let relation = self.relation;
        // SAFETY: the slot is of this table; its values are there until it is dropped, after the row is written.
        unsafe {
            let old = pg_sys::table_slot_create(relation, null_mut());
            let mut at = place.0;
            if !pg_sys::table_tuple_fetch_row_version(relation, &mut at, newest.0, old) {
                damaged(format!("a row of {} is gone", self.shape.name.to_string_lossy()));
            }
            pg_sys::slot_getallattrs(old);
            for (index, oid) in self.shape.types.iter().enumerate() {
                let datum = (!*(*old).tts_isnull.add(index)).then(|| *(*old).tts_values.add(index));
                let changed = columns.iter().find(|(number, _)| *number as usize == index + 1).map(|(_, value)| *value);
                values.push(changed.unwrap_or_else(|| Arg::of(*oid, datum)));
            }
            self.update(newest, place, &values);
            pg_sys::ExecDropSingleTupleTableSlot(old);
        }
    }

    /// The writer, with the values of a row.
    fn written(&mut self, newest: &Newest, values: &[Arg]) -> &Writer {
        assert!(values.iter().map(Arg::type_oid).eq(self.shape.types.iter().copied()), "a value for each column");
        let relation = self.relation;
        let writer = self.writer.get_or_insert_with(|| Writer::of(relation));
        writer.hold(newest, values);
        writer
    }
}

/// A scan downwards by an index, and the row to which it has come; none at its end.
#[derive(Clone, Copy)]
struct Down {
    index: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    scan: pg_sys::IndexScanDesc,
    tuple: pg_sys::HeapTuple,
}

impl Down {
    /// Goes on to the next row of which the key is another than the one that was seen, and puts its columns in their
    /// places.
    ///
    /// SAFETY: only under a guard. The places must be of the table's columns; if something was seen, the scan must tell
    /// keys.
    unsafe fn next(mut self, columns: pg_sys::TupleDesc, places: (*mut pg_sys::Datum, *mut bool), seen: &[u8]) -> Down {
        // SAFETY: a tuple of the index is there until the next one is asked for, and begins with its header; so is that
        // of the table, in the slot.
        unsafe {
            self.tuple = null_mut();
            while !raw::index_getnext_tid(self.scan, pg_sys::ScanDirection::BackwardScanDirection).is_null() {
                let is_seen = !seen.is_empty() && key_of((*self.scan).xs_itup) == seen;
                if is_seen || !raw::index_fetch_heap(self.scan, self.slot) {
                    continue;
                }
                self.tuple = raw::ExecFetchSlotHeapTuple(self.slot, false, null_mut());
                raw::heap_deform_tuple(self.tuple, columns, places.0, places.1);
                break;
            }
        }
        self
    }

    /// SAFETY: only under a guard, and once.
    unsafe fn end(self) {
        // SAFETY: what was begun is ended.
        unsafe {
            raw::index_endscan(self.scan);
            raw::ExecDropSingleTupleTableSlot(self.slot);
            raw::index_close(self.index, pg_sys::AccessShareLock as i32);
        }
    }
}

/// The key of a tuple of an index, as bytes: where they are the same, the keys are.
///
/// SAFETY: the tuple must be whole, and stay as long as the result.
unsafe fn key_of<'a>(tuple: pg_sys::IndexTuple) -> &'a [u8] {
    let header = size_of::<pg_sys::IndexTupleData>();
    // SAFETY: the header says how long the tuple is, itself included.
    unsafe {
        let length = (*tuple).t_info as usize & pg_sys::INDEX_SIZE_MASK as usize;
        std::slice::from_raw_parts(tuple.cast::<u8>().add(header), length - header)
    }
}

impl Drop for OwnTable {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let (relation, writer) = (self.relation, self.writer.take());
        // SAFETY: it is open, and closed once, after its writer; its lock is kept until the transaction ends.
        unsafe {
            guarded(|| {
                if let Some(writer) = &writer {
                    writer.close();
                }
                raw::table_close(relation, pg_sys::NoLock as i32);
            });
        }
    }
}

/// Locks a table for reading, until the transaction ends, and says whether it is one with an empty file: as long as
/// nobody writes to it and after a VACUUM.
fn has_no_pages(table: pg_sys::Oid) -> bool {
    // SAFETY: takes a lock of the server's on any oid, and learns what others have changed; then a look-up in its cache
    // of the catalog, whose tuple is read before it is released. The lock keeps the file, which is closed at the end of
    // the transaction.
    unsafe {
        pg_sys::LockRelationOid(table, pg_sys::AccessShareLock as i32);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, table.into());
        if tuple.is_null() {
            return false;
        }
        let class = *pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>();
        pg_sys::ReleaseSysCache(tuple);
        let is_plain = class.relkind == pg_sys::RELKIND_RELATION as i8
            && class.relam == pg_sys::HEAP_TABLE_AM_OID
            && class.relpersistence == pg_sys::RELPERSISTENCE_PERMANENT as i8
            && class.relfilenode != pg_sys::InvalidOid;
        let space = match class.reltablespace {
            pg_sys::InvalidOid => pg_sys::MyDatabaseTableSpace,
            other => other,
        };
        is_plain && majors::pages(space, class.relfilenode) == 0
    }
}

/// Somebody's own CHECK may call any function.
///
/// SAFETY: the relation must be open.
unsafe fn settle_for_checks(relation: pg_sys::Relation) {
    // SAFETY: an open relation has a descriptor.
    let constraints = unsafe { (*(*relation).rd_att).constr };
    // SAFETY: it is as long there as the descriptor.
    if !constraints.is_null() && unsafe { (*constraints).num_check } > 0 {
        rights::settle();
    }
}

/// A slot for a row of a table.
///
/// SAFETY: only under a guard; the relation must be open as long as the slot is there.
unsafe fn slot_of(relation: pg_sys::Relation) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: an open relation has a descriptor.
    unsafe { raw::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsVirtual) }
}

/// Writes rows of a table, one at a time.
struct Writer {
    relation: pg_sys::Relation,
    /// The row to be written.
    row: *mut pg_sys::TupleTableSlot,
    snapshot: Cell<pg_sys::Snapshot>,
    /// A row that gets no new entry in any index, and of which there is nothing to check, needs none.
    executor: Cell<Option<Executor>>,
    /// Holds the place of the row that it replaces, if triggers are to know it.
    place: Cell<*mut pg_sys::TupleTableSlot>,
    has_indexes: Cell<bool>,
}

/// What the server's executor wants of whoever writes a table.
#[derive(Clone, Copy)]
struct Executor {
    state: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
}

impl Writer {
    fn of(relation: pg_sys::Relation) -> Writer {
        Writer {
            relation,
            // SAFETY: the table is open as long as its writer is there.
            row: unsafe { guarded(|| slot_of(relation)) },
            snapshot: Cell::new(null_mut()),
            executor: Cell::new(None),
            place: Cell::new(null_mut()),
            has_indexes: Cell::new(false),
        }
    }

    /// The slot for the place of the row that is replaced, which is made when it is first wanted.
    fn place(&self) -> *mut pg_sys::TupleTableSlot {
        if self.place.get().is_null() {
            // SAFETY: as of the slot of the row.
            self.place.set(unsafe { guarded(|| slot_of(self.relation)) });
        }
        self.place.get()
    }

    /// The executor, which is made when it is first wanted.
    fn executor(&self) -> Executor {
        let made = self.executor.get().unwrap_or_else(|| {
            // SAFETY: all that is made here lives until it is closed, or as long as the subtransaction's memory.
            unsafe {
                guarded(|| {
                    let state = raw::CreateExecutorState();
                    let target = raw::MemoryContextAllocZero((*state).es_query_cxt, size_of::<pg_sys::ResultRelInfo>())
                        .cast::<pg_sys::ResultRelInfo>();
                    raw::InitResultRelInfo(target, self.relation, 0, null_mut(), 0);
                    Executor { state, target }
                })
            }
        });
        self.executor.set(Some(made));
        // SAFETY: it is there until the writer is closed.
        unsafe { (*made.state).es_snapshot = self.snapshot.get() };
        made
    }

    fn open_indexes(&self) -> Executor {
        let executor = self.executor();
        if !self.has_indexes.replace(true) {
            // SAFETY: the target is of an open table, and each index is opened once.
            unsafe { pg_sys::ExecOpenIndices(executor.target, false) };
        }
        executor
    }

    /// Raises the server's error if the row is not as the table wants it.
    fn check(&self) {
        // SAFETY: an open relation has a descriptor, and the slot a value for each of its columns.
        let may_fail = unsafe {
            let descriptor = (*self.relation).rd_att;
            let constraints = (*descriptor).constr;
            let is_null = |index: usize| *(*self.row).tts_isnull.add(index);
            let mut columns = majors::columns(descriptor).iter().enumerate();
            !constraints.is_null()
                && ((*constraints).num_check > 0 || columns.any(|(index, column)| column.attnotnull && is_null(index)))
        };
        if may_fail {
            let Executor { state, target } = self.executor();
            // SAFETY: all of it is there until the writer is closed.
            unsafe { pg_sys::ExecConstraints(target, self.row, state) };
        }
    }

    /// Gives a row that was written anew, at another place and with the key that it had, its entries in the indexes.
    /// That of the primary key is added without a look whether the key is there already: it is, and looking would read
    /// every version that somebody's snapshot keeps.
    ///
    /// SAFETY: the row was written.
    unsafe fn add_to_indexes(&self, entries: Entries) {
        if entries == Entries::InNone {
            return;
        }
        let Executor { state, target } = self.open_indexes();
        // SAFETY: the target has as many indexes as it says; one that is left out for a moment is put back, or given up
        // with the subtransaction.
        unsafe {
            let count = (*target).ri_NumIndices as usize;
            let indexes = (0..count).map(|number| (*target).ri_IndexRelationDescs.add(number));
            let mut indexes = indexes.enumerate().filter(|_| entries == Entries::InAll);
            let primary = indexes.find(|(_, index)| (*(***index).rd_index).indisprimary);
            let left_out = primary.map(|(number, index)| {
                self.add_unchecked(*index, *(*target).ri_IndexRelationInfo.add(number), state);
                (index, index.replace(null_mut()))
            });
            majors::insert_index_tuples(target, self.row, state, entries);
            if let Some((place, index)) = left_out {
                *place = index;
            }
        }
    }

    /// SAFETY: the index must be an open one of the table, on columns alone, and the row written.
    unsafe fn add_unchecked(&self, index: pg_sys::Relation, info: *mut pg_sys::IndexInfo, state: *mut pg_sys::EState) {
        let mut values = [pg_sys::Datum::from(0usize); pg_sys::INDEX_MAX_KEYS as usize];
        let mut are_null = [false; pg_sys::INDEX_MAX_KEYS as usize];
        // SAFETY: there is room for as many columns as an index can have; the slot knows where its row was written.
        unsafe {
            pg_sys::FormIndexDatum(info, self.row, state, values.as_mut_ptr(), are_null.as_mut_ptr());
            pg_sys::index_insert(
                index,
                values.as_mut_ptr(),
                are_null.as_mut_ptr(),
                &mut (*self.row).tts_tid,
                self.relation,
                pg_sys::IndexUniqueCheck::UNIQUE_CHECK_NO,
                true,
                info,
            );
        }
    }

    /// Takes the values of a row.
    fn hold(&self, newest: &Newest, values: &[Arg]) {
        // SAFETY: the slot has room for as many values as its table has columns.
        unsafe {
            self.snapshot.set(newest.0);
            let slot = &mut *self.row;
            for index in 0..(*slot.tts_tupleDescriptor).natts as usize {
                let datum = values.get(index).and_then(Arg::datum);
                *slot.tts_values.add(index) = datum.unwrap_or(pg_sys::Datum::from(0usize));
                *slot.tts_isnull.add(index) = datum.is_none();
            }
            pg_sys::ExecStoreVirtualTuple(slot);
        }
    }

    /// Writes, and has the table's triggers called: whoever rewrites tables without locking them follows them by one.
    ///
    /// SAFETY: `write` must write by this writer.
    unsafe fn with_triggers(&self, write: impl FnOnce()) {
        // SAFETY: the target has its relation as long as it is open; what is begun is ended, or given up with the
        // subtransaction.
        unsafe {
            if (*self.relation).trigdesc.is_null() {
                return write();
            }
            rights::settle();
            pg_sys::AfterTriggerBeginQuery();
            write();
            pg_sys::AfterTriggerEndQuery(self.executor().state);
        }
    }

    /// Lets go of the row, and of what writing it took.
    ///
    /// SAFETY: the row was written.
    unsafe fn forget(&self) {
        // SAFETY: slots may be cleared at any time, and nothing of the last row is needed any more.
        unsafe {
            let clear = (*(*self.row).tts_ops).clear.expect("every slot can be cleared");
            clear(self.row);
            let Some(Executor { state, .. }) = self.executor.get() else { return };
            let context = (*state).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }

    /// SAFETY: only under a guard, and once.
    unsafe fn close(&self) {
        // SAFETY: it was made by this writer.
        unsafe {
            raw::ExecDropSingleTupleTableSlot(self.row);
            if !self.place.get().is_null() {
                raw::ExecDropSingleTupleTableSlot(self.place.get());
            }
            let Some(Executor { state, target }) = self.executor.get() else { return };
            if self.has_indexes.get() {
                raw::ExecCloseIndices(target);
            }
            if !(*self.relation).trigdesc.is_null() {
                // What triggers were given.
                raw::ExecCloseResultRelations(state);
                raw::ExecResetTupleTable((*state).es_tupleTable, false);
            }
            raw::FreeExecutorState(state);
        }
    }
}
