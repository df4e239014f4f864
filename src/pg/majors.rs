//! What do the server's majors say in different ways? Here alone: all else is one source for each of them.

use pgrx::prelude::*;
use std::ptr::null_mut;

/// Which indexes get an entry of a row that was written anew, in the server's words.
#[cfg(feature = "pg15")]
pub type Updated = bool;
#[cfg(not(feature = "pg15"))]
pub type Updated = pg_sys::TU_UpdateIndexes::Type;

/// Which indexes get an entry of a row that was written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entries {
    InNone,
    InAll,
    /// In those that only tell which pages may hold a value.
    #[cfg(not(feature = "pg15"))]
    InSummaries,
}

#[cfg(feature = "pg15")]
impl Entries {
    pub const UNKNOWN: Updated = false;

    pub fn of(updated: Updated) -> Entries {
        if updated { Entries::InAll } else { Entries::InNone }
    }
}

#[cfg(not(feature = "pg15"))]
impl Entries {
    pub const UNKNOWN: Updated = pg_sys::TU_UpdateIndexes::TU_None;

    pub fn of(updated: Updated) -> Entries {
        match updated {
            pg_sys::TU_UpdateIndexes::TU_None => Entries::InNone,
            pg_sys::TU_UpdateIndexes::TU_Summarizing => Entries::InSummaries,
            _ => Entries::InAll,
        }
    }
}

/// Gives a row that was written anew its entries in the open indexes of a table.
///
/// SAFETY: as of the server's function of that name.
pub unsafe fn insert_index_tuples(
    target: *mut pg_sys::ResultRelInfo,
    row: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
    entries: Entries,
) {
    // SAFETY: passed on.
    unsafe {
        #[cfg(feature = "pg15")]
        if entries != Entries::InNone {
            pg_sys::ExecInsertIndexTuples(target, row, state, true, false, null_mut(), null_mut());
        }
        #[cfg(not(feature = "pg15"))]
        {
            let only_summaries = entries == Entries::InSummaries;
            pg_sys::ExecInsertIndexTuples(target, row, state, true, false, null_mut(), null_mut(), only_summaries);
        }
    }
}

/// All settings of this session.
///
/// SAFETY: none may be added while they are looked at.
pub unsafe fn settings<'a>() -> &'a [*mut pg_sys::config_generic] {
    // SAFETY: the server's list is as long as it says.
    unsafe {
        #[cfg(feature = "pg15")]
        let (all, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (all, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&mut count), count)
        };
        std::slice::from_raw_parts(all, count as usize)
    }
}

/// Whether a role owns a relation, or may do what its owner may.
pub fn owns(role: pg_sys::Oid, relation: pg_sys::Oid) -> bool {
    // SAFETY: look-ups in the server's cache of the catalog.
    unsafe {
        #[cfg(feature = "pg15")]
        return pg_sys::pg_class_ownercheck(relation, role);
        #[cfg(not(feature = "pg15"))]
        return pg_sys::object_ownercheck(pg_sys::RelationRelationId, relation, role);
    }
}

/// How many pages a table's file has, in a table space of this database.
///
/// SAFETY: the file must be there, and kept by a lock.
pub unsafe fn pages(space: pg_sys::Oid, file: pg_sys::Oid) -> pg_sys::BlockNumber {
    // SAFETY: the file is closed at the end of the transaction.
    unsafe {
        #[cfg(feature = "pg15")]
        let open = pg_sys::smgropen(
            pg_sys::RelFileNode { spcNode: space, dbNode: pg_sys::MyDatabaseId, relNode: file },
            pg_sys::InvalidBackendId,
        );
        #[cfg(feature = "pg16")]
        let nobodys = pg_sys::InvalidBackendId;
        #[cfg(not(any(feature = "pg15", feature = "pg16")))]
        let nobodys = pg_sys::INVALID_PROC_NUMBER;
        #[cfg(not(feature = "pg15"))]
        let open = pg_sys::smgropen(
            pg_sys::RelFileLocator { spcOid: space, dbOid: pg_sys::MyDatabaseId, relNumber: file },
            nobodys,
        );
        pg_sys::smgrnblocks(open, pg_sys::ForkNumber::MAIN_FORKNUM)
    }
}

/// The columns of a row, in their order.
///
/// SAFETY: the descriptor must live as long as the columns are looked at.
pub unsafe fn columns<'a>(of: pg_sys::TupleDesc) -> &'a [pg_sys::FormData_pg_attribute] {
    // SAFETY: there are as many as the descriptor says. From 18 on they lie behind as many short ones.
    unsafe {
        let count = (*of).natts as usize;
        #[cfg(not(feature = "pg18"))]
        return (*of).attrs.as_slice(count);
        #[cfg(feature = "pg18")]
        return std::slice::from_raw_parts((*of).compact_attrs.as_ptr().add(count).cast(), count);
    }
}

/// What differs of what is called under one guard with others: see [`crate::pg::raw`].
mod own {
    use super::Updated;
    use crate::pg::raw::functions;
    use pgrx::pg_sys;

    unsafe extern "C-unwind" {
        /// The server has it in a header only; the bindings bring a function for it.
        #[link_name = "table_tuple_update__pgrx_cshim"]
        pub fn table_tuple_update(
            table: pg_sys::Relation,
            place: pg_sys::ItemPointer,
            row: *mut pg_sys::TupleTableSlot,
            command: pg_sys::CommandId,
            snapshot: pg_sys::Snapshot,
            crosscheck: pg_sys::Snapshot,
            waits: bool,
            why_not: *mut pg_sys::TM_FailureData,
            mode: *mut pg_sys::LockTupleMode::Type,
            updated: *mut Updated,
        ) -> pg_sys::TM_Result::Type;
    }

    #[cfg(not(feature = "pg18"))]
    functions! {
        fn index_beginscan(
            table: pg_sys::Relation,
            index: pg_sys::Relation,
            snapshot: pg_sys::Snapshot,
            key_count: i32,
            order_by_count: i32,
        ) -> pg_sys::IndexScanDesc;
    }

    #[cfg(feature = "pg18")]
    functions! {
        fn index_beginscan(
            table: pg_sys::Relation,
            index: pg_sys::Relation,
            snapshot: pg_sys::Snapshot,
            instrument: *mut pg_sys::IndexScanInstrumentation,
            key_count: i32,
            order_by_count: i32,
        ) -> pg_sys::IndexScanDesc;
    }
}
pub use own::table_tuple_update;

/// Begins a scan by an index, of so many conditions.
///
/// SAFETY: as of the server's function of that name; only under a guard ([`crate::pg::raw`]).
pub unsafe fn index_beginscan(
    table: pg_sys::Relation,
    index: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    conditions: i32,
) -> pg_sys::IndexScanDesc {
    // SAFETY: passed on.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        return own::index_beginscan(table, index, snapshot, conditions, 0);
        #[cfg(feature = "pg18")]
        return own::index_beginscan(table, index, snapshot, null_mut(), conditions, 0);
    }
}

/// Has a request to end this process handled.
///
/// SAFETY: the handler must be fit to be called at any time.
pub unsafe fn handle_request_to_end(handler: unsafe extern "C-unwind" fn(i32)) {
    // SAFETY: passed on.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(pg_sys::SIGTERM as i32, Some(handler));
    }
}
