//! What do the server's own tables say of a relation, a type or the extension, read without SQL?

use pgrx::prelude::*;
use std::ffi::CStr;
use std::ptr::null_mut;

// Of the server's partition.h, which has no bindings.
unsafe extern "C-unwind" {
    fn get_partition_ancestors(relation: pg_sys::Oid) -> *mut pg_sys::List;
}

/// A column as `pg_attribute` has it.
pub struct Attribute {
    pub number: i16,
    pub name: String,
    pub type_oid: pg_sys::Oid,
    pub type_modifier: i32,
}

/// The columns of a relation in the order of their numbers, without those of the server's own and those dropped. The
/// relation is not locked for it: who waited for that lock could be waited for by who holds it.
pub fn attributes_of(relation: pg_sys::Oid) -> Vec<Attribute> {
    let mut found = Vec::new();
    // SAFETY: the index is of that table and begins with that column; a name ends with a zero byte.
    unsafe {
        each_row(
            (pg_sys::AttributeRelationId, pg_sys::AttributeRelidNumIndexId, pg_sys::Anum_pg_attribute_attrelid),
            relation,
            |row: &pg_sys::FormData_pg_attribute| {
                if row.attnum > 0 && !row.attisdropped {
                    let (number, name) = (row.attnum, text(&row.attname));
                    found.push(Attribute { number, name, type_oid: row.atttypid, type_modifier: row.atttypmod });
                }
            },
        );
    }
    // Without its indexes, as the server may be told, it reads its tables in no order.
    found.sort_by_key(|attribute| attribute.number);
    found
}

/// The labels of an enum, each with the number by which they are ordered.
pub fn labels_of(type_oid: pg_sys::Oid) -> Vec<(f32, String)> {
    let mut found = Vec::new();
    // SAFETY: as of columns.
    unsafe {
        each_row(
            (pg_sys::EnumRelationId, pg_sys::EnumTypIdLabelIndexId, pg_sys::Anum_pg_enum_enumtypid),
            type_oid,
            |row: &pg_sys::FormData_pg_enum| found.push((row.enumsortorder, text(&row.enumlabel))),
        );
    }
    found
}

/// The tables of which a table is a partition, the nearest first.
pub fn ancestors_of(relation: pg_sys::Oid) -> Vec<pg_sys::Oid> {
    // SAFETY: look-ups in the server's catalog by any oid; the answer is a list of oids, or null for an empty one.
    unsafe {
        if !pg_sys::get_rel_relispartition(relation) {
            return Vec::new();
        }
        let list = pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(relation));
        if list.is_null() {
            return Vec::new();
        }
        let cells = std::slice::from_raw_parts((*list).elements, (*list).length as usize);
        cells.iter().map(|cell| cell.oid_value).collect()
    }
}

/// A table in schema `talkmeter`; that of nothing if there is none.
pub fn relation_of_ours(name: &CStr) -> pg_sys::Oid {
    // SAFETY: look-ups in the server's cache of the catalog, by texts that outlive them.
    unsafe { pg_sys::get_relname_relid(name.as_ptr(), pg_sys::get_namespace_oid(c"talkmeter".as_ptr(), true)) }
}

/// The version of the extension that is installed in this database, if it is.
pub fn version_of_ours() -> Option<String> {
    // SAFETY: as of `each_row`; the name outlives the scan, and the version is the server's copy.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        let (column, equal) = (pg_sys::Anum_pg_extension_extname as i16, pg_sys::BTEqualStrategyNumber as u16);
        let name = pg_sys::Datum::from(c"talkmeter".as_ptr());
        pg_sys::ScanKeyInit(&mut key, column, equal, pg_sys::F_NAMEEQ.into(), name);
        let index = pg_sys::ExtensionNameIndexId.into();
        let scan = pg_sys::systable_beginscan(catalog, index, true, null_mut(), 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        let version = (!tuple.is_null()).then(|| {
            let column = pg_sys::Anum_pg_extension_extversion as i32;
            CStr::from_ptr(pg_sys::SPI_getvalue(tuple, (*catalog).rd_att, column)).to_string_lossy().into_owned()
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        version
    }
}

/// Gives `each` the rows of a table of the server's of which the first column of an index is that oid. They are as the
/// server itself sees them.
///
/// SAFETY: the index must be of that table and begin with the column of that number, and rows of the table begin with
/// what `R` is.
unsafe fn each_row<R>((table, index, column): (pg_sys::Oid, u32, u32), wanted: pg_sys::Oid, mut each: impl FnMut(&R)) {
    // SAFETY: as the caller promises; what is opened is closed in reverse order, by the server itself on an error, and
    // a row is there until the next one is asked for.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        let equal = pg_sys::BTEqualStrategyNumber as u16;
        pg_sys::ScanKeyInit(&mut key, column as i16, equal, pg_sys::F_OIDEQ.into(), wanted.into());
        let scan = pg_sys::systable_beginscan(relation, index.into(), true, null_mut(), 1, &mut key);
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            each(&*pg_sys::GETSTRUCT(tuple).cast::<R>());
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
}

/// A name as the server holds it.
fn text(name: &pg_sys::NameData) -> String {
    // SAFETY: such a name ends with a zero byte.
    unsafe { CStr::from_ptr(name.data.as_ptr()) }.to_string_lossy().into_owned()
}
