//! What may be locked that is no table: who serves a database, where a tenant is metered, and the database itself?

use pgrx::prelude::*;

/// What tells our locks from those that SQL can take: `pg_advisory_lock` ends its tags with 1 or 2.
const OURS: u16 = 77;

/// The middle of the tags of our locks: who serves a database, who notes that a sweep was made, and who says where a
/// tenant is metered.
const SERVED: u32 = 1;
const NOTED: u32 = 2;
const AWAY: u32 = 3;

fn tag(fields: [u32; 3], last: u16, kind: u32, method: u32) -> pg_sys::LOCKTAG {
    pg_sys::LOCKTAG {
        locktag_field1: fields[0],
        locktag_field2: fields[1],
        locktag_field3: fields[2],
        locktag_field4: last,
        locktag_type: kind as u8,
        locktag_lockmethodid: method as u8,
    }
}

fn of_ours(database: pg_sys::Oid, what: u32, kind: u32) -> pg_sys::LOCKTAG {
    tag([database.to_u32(), what, kind], OURS, pg_sys::LockTagType::LOCKTAG_ADVISORY, pg_sys::USER_LOCKMETHOD)
}

fn of_object(database: pg_sys::Oid, class: pg_sys::Oid, object: pg_sys::Oid) -> pg_sys::LOCKTAG {
    let fields = [database.to_u32(), class.to_u32(), object.to_u32()];
    tag(fields, 0, pg_sys::LockTagType::LOCKTAG_OBJECT, pg_sys::DEFAULT_LOCKMETHOD)
}

/// Locks without waiting, for the session or for the transaction, and says whether it could.
fn lock(tag: &pg_sys::LOCKTAG, mode: u32, for_session: bool) -> bool {
    // SAFETY: a tag is plain data, and any may be locked; a lock of the session needs no transaction.
    let got = unsafe { pg_sys::LockAcquire(tag, mode as pg_sys::LOCKMODE, for_session, true) };
    got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

fn unlock(tag: &pg_sys::LOCKTAG, mode: u32) {
    // SAFETY: a lock of the session's, which was taken by `lock`.
    unsafe { pg_sys::LockRelease(tag, mode as pg_sys::LOCKMODE, true) };
}

/// From now on this process serves a database, unless another one does: false. `talkmeter.sweepers` sees the lock.
pub fn serve(database: pg_sys::Oid) -> bool {
    lock(&of_ours(database, SERVED, 0), pg_sys::ExclusiveLock, true)
}

/// Serves it no more.
pub fn leave(database: pg_sys::Oid) {
    unlock(&of_ours(database, SERVED, 0), pg_sys::ExclusiveLock);
}

/// Whether nobody else of the same kind notes just now that this database was swept: then nobody does until the
/// transaction ends.
pub fn may_note(kind: u32) -> bool {
    // SAFETY: reads a variable of this session's.
    lock(&of_ours(unsafe { pg_sys::MyDatabaseId }, NOTED, kind), pg_sys::ExclusiveLock, false)
}

/// Until the transaction ends, a tenant that is away does not [come](come) here. Waits for one that is about to.
pub fn stay_away(tenant: &str) {
    // SAFETY: as of `lock`; an error that passes by, as at a cancel, leaves nothing locked.
    unsafe { pg_sys::LockAcquire(&of_tenant(tenant), pg_sys::ShareLock as pg_sys::LOCKMODE, false, false) };
}

/// Until the transaction ends, nobody relies on it that a tenant is away: see [`stay_away`]. Nobody is waited for;
/// false if somebody does rely on it now.
pub fn may_come(tenant: &str) -> bool {
    lock(&of_tenant(tenant), pg_sys::ExclusiveLock, false)
}

/// Tenants whose tags are the same wait for each other, and no more than that. They are few, so that however many
/// tenants are away, a transaction finds room for its locks.
fn of_tenant(tenant: &str) -> pg_sys::LOCKTAG {
    let hash = tenant.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    const TAGS: u32 = 64;
    // SAFETY: reads a variable of this session's.
    of_ours(unsafe { pg_sys::MyDatabaseId }, AWAY, hash % TAGS)
}

/// Whether somebody wants a database without any session in it: to drop, rename, move or copy it.
pub fn is_wanted_alone(database: pg_sys::Oid) -> bool {
    let tag = of_object(pg_sys::InvalidOid, pg_sys::DatabaseRelationId, database);
    // What each session takes that connects.
    let is_free = lock(&tag, pg_sys::RowExclusiveLock, true);
    if is_free {
        unlock(&tag, pg_sys::RowExclusiveLock);
    }
    !is_free
}

/// Whether the extension is there; if it is, it stays until the transaction ends: who drops it waits for that, before
/// he locks any table of ours. False too while somebody drops it.
pub fn hold_extension() -> bool {
    // SAFETY: look-ups by a constant name; reads a variable of this session's.
    let (found, database) =
        unsafe { (|| pg_sys::get_extension_oid(c"talkmeter".as_ptr(), true), pg_sys::MyDatabaseId) };
    let extension = found();
    let tag = of_object(database, pg_sys::ExtensionRelationId, extension);
    extension != pg_sys::InvalidOid && lock(&tag, pg_sys::AccessShareLock, false) && found() == extension
}
