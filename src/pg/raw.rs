//! Which of the server's functions are called several in a row, under one guard?
//!
//! `pgrx::pg_sys` guards each call by itself, so that an error of the server's does not jump over what Rust has to
//! drop. A guard costs about ninety instructions, and a message in order would pay it a hundred times. So what the hot
//! path calls in a row is declared here as the server has it, and one guard is around all of it.

use pgrx::pg_sys;

/// Does calls of functions of this file. An error that one of them raises ends the closure where it is and is raised by
/// this function.
///
/// # Safety
/// As of each call. No value in the closure may have anything to drop.
pub unsafe fn guarded<R: Copy>(calls: impl FnOnce() -> R) -> R {
    // SAFETY: the caller's promise.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(calls) }
}

/// Declares functions, which must be called by [`guarded`] alone, and has the compiler compare their types with those
/// of the bindings.
macro_rules! functions {
    ($(fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)?;)+) => {
        unsafe extern "C-unwind" {
            $(pub fn $name($($argument: $type),*) $(-> $result)?;)+
        }
        $(const _: unsafe fn($($type),*) $(-> $result)? = pg_sys::$name;)+
    };
}
pub(crate) use functions;

functions! {
    fn GetLatestSnapshot() -> pg_sys::Snapshot;
    fn PushActiveSnapshot(snapshot: pg_sys::Snapshot);
    fn GetActiveSnapshot() -> pg_sys::Snapshot;
    fn PopActiveSnapshot();
    fn CommandCounterIncrement();
    fn PreventCommandIfReadOnly(name: *const std::ffi::c_char);
    fn table_open(table: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn table_close(table: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn table_slot_create(table: pg_sys::Relation, list: *mut *mut pg_sys::List) -> *mut pg_sys::TupleTableSlot;
    fn MakeSingleTupleTableSlot(
        columns: pg_sys::TupleDesc,
        kind: *const pg_sys::TupleTableSlotOps,
    ) -> *mut pg_sys::TupleTableSlot;
    fn ExecFetchSlotHeapTuple(
        slot: *mut pg_sys::TupleTableSlot,
        materialize: bool,
        is_copy: *mut bool,
    ) -> pg_sys::HeapTuple;
    fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
    fn heap_deform_tuple(
        tuple: pg_sys::HeapTuple,
        columns: pg_sys::TupleDesc,
        values: *mut pg_sys::Datum,
        are_null: *mut bool,
    );
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, last: i32);
    fn tuplestore_tuple_count(store: *mut pg_sys::Tuplestorestate) -> i64;
    fn tuplestore_alloc_read_pointer(store: *mut pg_sys::Tuplestorestate, flags: i32) -> i32;
    fn tuplestore_select_read_pointer(store: *mut pg_sys::Tuplestorestate, pointer: i32);
    fn tuplestore_rescan(store: *mut pg_sys::Tuplestorestate);
    fn tuplestore_gettupleslot(
        store: *mut pg_sys::Tuplestorestate,
        forward: bool,
        is_copy: bool,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool;
    fn get_index_isvalid(index: pg_sys::Oid) -> bool;
    fn index_open(index: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> pg_sys::Relation;
    fn index_close(index: pg_sys::Relation, lock: pg_sys::LOCKMODE);
    fn index_rescan(
        scan: pg_sys::IndexScanDesc,
        keys: pg_sys::ScanKey,
        key_count: i32,
        order_by: pg_sys::ScanKey,
        order_by_count: i32,
    );
    fn index_getnext_tid(scan: pg_sys::IndexScanDesc, direction: pg_sys::ScanDirection::Type) -> pg_sys::ItemPointer;
    fn index_fetch_heap(scan: pg_sys::IndexScanDesc, slot: *mut pg_sys::TupleTableSlot) -> bool;
    fn index_endscan(scan: pg_sys::IndexScanDesc);
    fn systable_getnext(scan: pg_sys::SysScanDesc) -> pg_sys::HeapTuple;
    fn CreateExecutorState() -> *mut pg_sys::EState;
    fn FreeExecutorState(state: *mut pg_sys::EState);
    fn MemoryContextAllocZero(context: pg_sys::MemoryContext, size: pg_sys::Size) -> *mut std::ffi::c_void;
    fn InitResultRelInfo(
        target: *mut pg_sys::ResultRelInfo,
        table: pg_sys::Relation,
        index: pg_sys::Index,
        root: *mut pg_sys::ResultRelInfo,
        options: i32,
    );
    fn ExecCloseIndices(target: *mut pg_sys::ResultRelInfo);
    fn CheckCmdReplicaIdentity(table: pg_sys::Relation, command: pg_sys::CmdType::Type);
    fn GetCurrentCommandId(is_used: bool) -> pg_sys::CommandId;
    fn ExecCloseResultRelations(state: *mut pg_sys::EState);
    fn ExecResetTupleTable(slots: *mut pg_sys::List, are_freed: bool);
}

// These raise no error, and need no guard: they read and set variables of the session's; the last one answers null
// where there is no memory left.
functions! {
    fn GetUserIdAndSecContext(user: *mut pg_sys::Oid, context: *mut i32);
    fn SetUserIdAndSecContext(user: pg_sys::Oid, context: i32);
    fn NewGUCNestLevel() -> i32;
    fn palloc_extended(size: pg_sys::Size, flags: i32) -> *mut std::ffi::c_void;
}
