//! Which databases does the server have, seen by a process that is in none of them?

use crate::pg::process;
use pgrx::prelude::*;

/// A database that can be connected to.
pub struct Database {
    pub oid: pg_sys::Oid,
    pub name: String,
    /// Made to be copied: a session in it would keep it from that.
    pub is_template: bool,
}

/// The databases that can be connected to.
pub fn all() -> Vec<Database> {
    process::transaction(scan).unwrap_or_else(|error| error.rethrow())
}

fn scan() -> Vec<Database> {
    let mut found = Vec::new();
    // SAFETY: the catalog is shared, so it can be read without a database, by a scan and no index, as the server's own
    // launchers do; a row is read before the next is asked for.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(catalog, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if row.datallowconn {
                let name = pgrx::name_data_to_str(&row.datname).to_owned();
                found.push(Database { oid: row.oid, name, is_template: row.datistemplate });
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    found
}
