//! What is a table of the application's like: its columns, its name as SQL, who may attach it?

use crate::pg::own_table::{Access, OwnTable, Shape, types as own_types, with_newest};
use crate::pg::row::Reader;
use crate::pg::sql::{Connection, Row, arg};
use crate::pg::system::{self, Attribute};
use crate::pg::types;
use pgrx::prelude::*;
use std::ffi::CStr;
use talkmeter_engine::mapping::{Asked, Class, Column};

/// A column as the catalog knows it.
#[derive(Clone, Debug)]
pub struct TableColumn {
    pub number: i16,
    /// The type's name without length or precision, which may change without changing the type.
    pub plain_type: String,
    /// A change to another type of the same class changes nothing for a mapping.
    pub class: String,
    /// The type under all domains.
    pub base_type: pg_sys::Oid,
    /// The column as a mapping sees it.
    pub seen: Column,
}

impl TableColumn {
    /// How to read what is asked of this column; `timezone` is that of local times.
    pub fn reader(&self, timezone: Option<String>, asked: Asked) -> Reader {
        Reader::new(self.number, self.base_type, matches!(self.seen.class, Class::Enum(_)), timezone, asked)
    }

    /// The column as a key, and how it is read as one, whatever its type is; `None` if only code of a user's could.
    pub fn as_text(&self) -> Option<(Column, Reader)> {
        let reader = match self.seen.class {
            Class::Text | Class::PaddedText | Class::Uuid | Class::Integer { .. } | Class::Enum(_) => {
                self.reader(None, Asked::default())
            }
            _ if self.base_type.to_u32() < pg_sys::FirstGenbkiObjectId => Reader::of_text(self.number, self.base_type),
            _ => return None,
        };
        Some((Column { class: Class::Text, ..self.seen.clone() }, reader))
    }
}

/// The facts that decide whether a relation can be attached.
pub struct Relation {
    /// Schema and name, quoted.
    pub name: String,
    /// `pg_class.relkind`.
    pub kind: char,
    pub temporary: bool,
    /// It, or a partition of it, is emptied by a crash.
    pub unlogged: bool,
    /// Of the system or of this extension.
    pub reserved: bool,
    pub owner: pg_sys::Oid,
    /// The caller owns it or is a member of its owner.
    pub owned: bool,
    /// Itself and, if it is partitioned, every partition, each quoted, and whether it is a foreign table.
    pub members: Vec<(String, bool)>,
    /// The same by their oids.
    pub member_oids: Vec<pg_sys::Oid>,
    /// Names of the columns of its partition key, and of those of its partitions.
    pub partition_key: Vec<String>,
}

const RELATION: &str = "
    SELECT format('%I.%I', CASE WHEN c.relpersistence = 't' THEN 'pg_temp' ELSE n.nspname END, c.relname),
        c.relkind::text, c.relpersistence = 't',
        EXISTS (SELECT FROM pg_class AS m WHERE m.relpersistence = 'u'
                AND m.oid IN (SELECT c.oid UNION ALL SELECT t.relid FROM pg_partition_tree(c.oid) AS t)),
        n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast', 'talkmeter', 'talkmeter_archive'),
        pg_has_role($2, c.relowner, 'USAGE'),
        (SELECT array_agg(format('%I.%I', mn.nspname, m.relname) ORDER BY t.level, m.oid)
         FROM pg_partition_tree(c.oid) AS t
         JOIN pg_class AS m ON m.oid = t.relid
         JOIN pg_namespace AS mn ON mn.oid = m.relnamespace),
        (SELECT array_agg(m.relkind = 'f' ORDER BY t.level, m.oid)
         FROM pg_partition_tree(c.oid) AS t
         JOIN pg_class AS m ON m.oid = t.relid),
        (SELECT array_agg(k.name ORDER BY k.level, k.name)
         FROM (SELECT a.attname::text AS name, min(t.level) AS level
               FROM pg_partition_tree(c.oid) AS t
               JOIN pg_partitioned_table AS p ON p.partrelid = t.relid
               JOIN pg_attribute AS a ON a.attrelid = p.partrelid AND a.attnum = ANY (p.partattrs::int2[])
               GROUP BY 1) AS k),
        c.relowner, (SELECT array_agg(t.relid::oid) FROM pg_partition_tree(c.oid) AS t)
    FROM pg_class AS c
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    WHERE c.oid = $1";

/// The facts of a relation as they concern `caller`, or `None` if there is none of that oid.
pub fn facts(connection: &Connection, oid: pg_sys::Oid, caller: pg_sys::Oid) -> Option<Relation> {
    let rows = connection.run(RELATION, &[arg(oid), arg(caller)]);
    let mut row = rows.first()?;
    let name: String = row.value();
    Some(Relation {
        kind: row.value::<String>().chars().next().expect("a kind of relation"),
        temporary: row.value(),
        unlogged: row.value(),
        reserved: row.value(),
        owned: row.value(),
        members: members(&mut row).unwrap_or_else(|| vec![(name.clone(), false)]),
        partition_key: row.nullable().unwrap_or_default(),
        owner: row.value(),
        member_oids: row.nullable().unwrap_or_else(|| vec![oid]),
        name,
    })
}

fn members(row: &mut Row) -> Option<Vec<(String, bool)>> {
    let (names, are_foreign): (Option<Vec<String>>, Option<Vec<bool>>) = (row.nullable(), row.nullable());
    Some(names?.into_iter().zip(are_foreign?).collect())
}

/// Locks a relation for reading until the transaction ends, and says whether it has that owner and that schema and
/// name, quoted: not if it was given away, renamed or dropped before the lock was given. To be asked under settings
/// of ours, which say how names are quoted.
pub fn lock_known(oid: pg_sys::Oid, owner: pg_sys::Oid, name: &str) -> bool {
    // SAFETY: takes a lock of the server's on any oid, and learns what others have changed.
    unsafe { pg_sys::LockRelationOid(oid, pg_sys::AccessShareLock as i32) };
    owner_of(oid) == Some(owner) && name_of(oid).is_some_and(|found| found == name)
}

/// Who owns a relation; `None` if there is none.
fn owner_of(oid: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: a look-up in the server's cache of the catalog; the tuple is read before it is released.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::RELOID as i32, oid.into());
        if tuple.is_null() {
            return None;
        }
        let owner = (*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_class>()).relowner;
        pg_sys::ReleaseSysCache(tuple);
        Some(owner)
    }
}

/// Schema and name of a relation, quoted as the settings say; `None` if there is none.
pub fn name_of(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: look-ups in the server's cache of the catalog, which return copies or null.
    unsafe {
        let name = pg_sys::get_rel_name(oid);
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid));
        if name.is_null() || schema.is_null() {
            return None;
        }
        let quoted = |text| CStr::from_ptr(text).to_str().ok().map(pgrx::spi::quote_identifier);
        Some(format!("{}.{}", quoted(schema)?, quoted(name)?))
    }
}

/// The columns of a relation in the order of their numbers.
pub fn columns(oid: pg_sys::Oid) -> Vec<TableColumn> {
    system::attributes_of(oid).into_iter().filter_map(column).collect()
}

/// `None` if the type is gone, and with it the column.
fn column(attribute: Attribute) -> Option<TableColumn> {
    let Attribute { number, name, type_oid, type_modifier } = attribute;
    let base = types::base(type_oid)?;
    let seen = Column { name, class: types::class(base), type_name: types::name(type_oid, Some(type_modifier)) };
    Some(TableColumn {
        number,
        plain_type: types::name(type_oid, None),
        class: types::recorded_class(base),
        base_type: base.oid,
        seen,
    })
}

const INSTALLATION: Shape = Shape { name: c"installation", types: &[own_types::UUID] };

/// Which table of which installation a number is: it differs after a restore, where the numbers of columns mean nothing
/// any more, and not in a copy of the database's files.
pub fn origin_of(oid: pg_sys::Oid) -> String {
    let installation = with_newest(|newest| {
        let mut all = Vec::new();
        OwnTable::open(&INSTALLATION, Access::Reading).all(newest, |row| all.push(row.value::<pgrx::Uuid>()));
        all.into_iter().min_by_key(|installation| *installation.as_bytes())
    });
    let installation = installation.map(|installation| installation.to_string()).unwrap_or_default();
    format!("{installation}/{}", oid.to_u32())
}

const UNIQUE: &str = "SELECT talkmeter.is_unique($1::oid::regclass, $2::text[]::name[])";

/// Whether a unique index holds nothing but these columns, or some of them, and columns of the partition keys.
pub fn is_unique(connection: &Connection, oid: pg_sys::Oid, columns: &[&str]) -> bool {
    connection.run(UNIQUE, &[arg(oid), arg(columns.to_vec())]).only().value()
}

const PARTIAL: &str = "
    SELECT i.indexrelid::regclass::text
    FROM pg_index AS i
    WHERE i.indrelid = $1 AND i.indisunique AND i.indpred IS NOT NULL AND i.indexprs IS NULL AND (
        SELECT bool_and(a.attname::text = ANY ($2)) FROM pg_attribute AS a
        WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey))
    LIMIT 1";

/// A unique index of nothing but these columns that covers some rows only, if there is one.
pub fn partial_unique(connection: &Connection, oid: pg_sys::Oid, columns: &[&str]) -> Option<String> {
    connection.run(PARTIAL, &[arg(oid), arg(columns.to_vec())]).first().map(|mut row| row.value())
}

const INDEXED: &str = "SELECT talkmeter.is_indexed($1::oid::regclass, $2::text[]::name[], $3::name)";

/// Whether an index finds the rows of one conversation, which these columns hold: they are its first, in any order, the
/// tenant among them or not.
pub fn is_indexed(connection: &Connection, oid: pg_sys::Oid, conversation: Vec<&str>, tenant: Option<&str>) -> bool {
    connection.run(INDEXED, &[arg(oid), arg(conversation), arg(tenant)]).only().value()
}

const STORED: &str = "
    SELECT c.oid FROM pg_class AS c
    WHERE c.oid IN (SELECT $1 UNION ALL SELECT t.relid FROM pg_partition_tree($1) AS t) AND c.relkind = 'r'";

/// Whether a table and its partitions hold no row. They are scanned without a query: planning one would run functions
/// of the table's owner, those of index predicates and statistics, with our rights; and a query of the caller's could
/// be blinded by row security.
pub fn is_empty(connection: &Connection, oid: pg_sys::Oid) -> bool {
    let rows = connection.run(STORED, &[arg(oid)]);
    rows.iter().all(|mut row| holds_no_row(row.value()))
}

fn holds_no_row(table: pg_sys::Oid) -> bool {
    // SAFETY: the table is an ordinary one, is locked by the caller, and what is opened is closed in reverse order;
    // on an error the server does that.
    unsafe {
        let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let slot = pg_sys::table_slot_create(relation, std::ptr::null_mut());
        let scan = pg_sys::table_beginscan(relation, snapshot, 0, std::ptr::null_mut());
        let found = pg_sys::table_scan_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot);
        pg_sys::table_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::UnregisterSnapshot(snapshot);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        !found
    }
}

/// A column's name as SQL.
pub fn quoted(column: &str) -> String {
    pgrx::spi::quote_identifier(column)
}

/// A statement that cannot take parameters, put together of constant text and quoted names.
pub fn statement(parts: &[&str]) -> String {
    parts.concat()
}
