//! How is a row of a table of our own found and written without SQL? By the functions with which a subscriber applies
//! what a publisher sends: they keep indexes, constraints and the log as a statement does, and plan nothing.

use crate::pg::error::failure;
use crate::pg::locks;
use crate::pg::sql::{Arg, Row};
use pgrx::prelude::*;
use std::ffi::CStr;
use std::ptr::null_mut;

/// A table of ours as this library knows it.
pub struct Shape {
    pub name: &'static CStr,
    /// The types of its columns, in their order.
    pub types: &'static [pg_sys::Oid],
}

/// An index of such a table, of which all columns are compared.
pub struct Index {
    pub name: &'static CStr,
    /// The numbers of its columns, each with the function that says whether two values are the same.
    pub columns: &'static [(i16, u32)],
}

/// Where a row is. It stays there while the row is locked, by whatever that is agreed to mean, and its table too.
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
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let result = work(&Newest(pg_sys::GetActiveSnapshot()));
        pg_sys::PopActiveSnapshot();
        pg_sys::CommandCounterIncrement();
        result
    }
}

/// A table of ours that is open for a work. If an error passes by, the server closes it with the subtransaction.
pub struct OwnTable {
    shape: &'static Shape,
    relation: pg_sys::Relation,
    writer: Option<Writer>,
}

impl OwnTable {
    /// Opens a table that the work has locked for writing. It is an error if rows of it cannot be written in this way,
    /// because somebody has made another table of it.
    pub fn open(shape: &'static Shape) -> OwnTable {
        // SAFETY: the server raises an error if there is no such table.
        let relation = unsafe { pg_sys::table_open(locks::table(shape.name), pg_sys::RowExclusiveLock as i32) };
        let table = OwnTable { shape, relation, writer: None };
        table.check();
        table
    }

    fn check(&self) {
        let known = self.shape.types.len();
        // SAFETY: an open relation has all of these, and its attributes are as many as its descriptor says.
        let (is_plain, has_rules, columns) = unsafe {
            let relation = &*self.relation;
            let class = &*relation.rd_rel;
            (
                class.relkind == pg_sys::RELKIND_RELATION as i8 && class.relam == pg_sys::HEAP_TABLE_AM_OID,
                !relation.rd_rules.is_null(),
                (*relation.rd_att).attrs.as_slice((*relation.rd_att).natts as usize),
            )
        };
        if !is_plain {
            self.refuse("It is no ordinary table any more.");
        }
        if has_rules {
            self.refuse("It has a rule.");
        }
        let is_known = |(column, oid): (&pg_sys::FormData_pg_attribute, &pg_sys::Oid)| {
            column.atttypid == *oid && !column.attisdropped
        };
        let has_all = columns.len() >= known && columns.iter().zip(self.shape.types).all(is_known);
        // What was added and dropped again is there for ever, as null.
        if !has_all || columns[known..].iter().any(|column| !column.attisdropped) {
            self.refuse("Its columns are others.");
        }
    }

    fn refuse(&self, because: &str) -> ! {
        let name = self.shape.name.to_string_lossy();
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("table talkmeter.{name} is not as talkmeter made it"),
        )
        .detail(because)
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
        assert_eq!(key.len(), index.columns.len(), "a value for each column of the index");
        let oid = locks::table(index.name);
        // SAFETY: any oid may be asked for.
        if !unsafe { pg_sys::get_index_isvalid(oid) } {
            self.refuse("An index of it is missing or not valid.");
        }
        let mut keys = [pg_sys::ScanKeyData::default(); 4];
        for ((scan_key, (column, same)), value) in keys.iter_mut().zip(index.columns).zip(key) {
            let value = value.datum().expect("a key is not null");
            let equal = pg_sys::BTEqualStrategyNumber as u16;
            // SAFETY: fills in what it is given.
            unsafe { pg_sys::ScanKeyInit(scan_key, *column, equal, (*same).into(), value) };
        }
        // SAFETY: the index is one of this open table, the keys are as many as said and of its columns' types, and the
        // row is read before the scan ends.
        unsafe {
            let count = index.columns.len() as i32;
            let scan = pg_sys::systable_beginscan(self.relation, oid, true, newest.0, count, keys.as_mut_ptr());
            let tuple = pg_sys::systable_getnext(scan);
            let found = (!tuple.is_null())
                .then(|| (Place((*tuple).t_self), read(&mut Row::of(tuple, (*self.relation).rd_att))));
            pg_sys::systable_endscan(scan);
            found
        }
    }

    /// Adds a row.
    pub fn insert(&mut self, newest: &Newest, values: &[Arg]) {
        let writer = self.written(newest, values);
        // SAFETY: the writer is of this open table, and its row holds a value of each column's type.
        unsafe {
            writer.with_triggers(|| pg_sys::ExecSimpleRelationInsert(writer.target, writer.state, writer.row));
            writer.forget();
        }
    }

    /// Writes what the row at a place is now. Nobody else may write it meanwhile.
    pub fn update(&mut self, newest: &Newest, Place(place): Place, values: &[Arg]) {
        let writer = self.written(newest, values);
        // SAFETY: as of an insert; by the empty state a row would be looked for that somebody else has changed.
        unsafe {
            (*writer.place).tts_tid = place;
            let mut none = pg_sys::EPQState::default();
            writer.with_triggers(|| {
                pg_sys::ExecSimpleRelationUpdate(writer.target, writer.state, &mut none, writer.place, writer.row);
            });
            writer.forget();
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

impl Drop for OwnTable {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(writer) = self.writer.take() {
            writer.close();
        }
        // SAFETY: it is open; its lock is kept until the transaction ends.
        unsafe { pg_sys::table_close(self.relation, pg_sys::NoLock as i32) };
    }
}

/// What the server's executor wants of whoever writes a table.
struct Writer {
    state: *mut pg_sys::EState,
    target: *mut pg_sys::ResultRelInfo,
    /// The row to be written.
    row: *mut pg_sys::TupleTableSlot,
    /// Holds the place of the row that it replaces.
    place: *mut pg_sys::TupleTableSlot,
}

impl Writer {
    fn of(relation: pg_sys::Relation) -> Writer {
        // SAFETY: all that is made here lives until it is closed, or as long as the subtransaction's memory.
        unsafe {
            let state = pg_sys::CreateExecutorState();
            let target = pg_sys::MemoryContextAllocZero((*state).es_query_cxt, size_of::<pg_sys::ResultRelInfo>())
                .cast::<pg_sys::ResultRelInfo>();
            pg_sys::InitResultRelInfo(target, relation, 0, null_mut(), 0);
            pg_sys::ExecOpenIndices(target, false);
            let slot = || pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsVirtual);
            Writer { state, target, row: slot(), place: slot() }
        }
    }

    /// Takes the values of a row.
    fn hold(&self, newest: &Newest, values: &[Arg]) {
        // SAFETY: the slot has room for as many values as its table has columns.
        unsafe {
            (*self.state).es_snapshot = newest.0;
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
            if (*(*self.target).ri_RelationDesc).trigdesc.is_null() {
                return write();
            }
            pg_sys::AfterTriggerBeginQuery();
            write();
            pg_sys::AfterTriggerEndQuery(self.state);
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
            let context = (*self.state).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }

    fn close(self) {
        // SAFETY: it was made by `of`, and is closed once.
        unsafe {
            pg_sys::ExecCloseIndices(self.target);
            pg_sys::ExecDropSingleTupleTableSlot(self.row);
            pg_sys::ExecDropSingleTupleTableSlot(self.place);
            pg_sys::FreeExecutorState(self.state);
        }
    }
}
