//! What is a type of the server's: what lies under its domains, what is it called, what does it mean to a mapping?

use crate::pg::rights;
use crate::pg::system;
use pgrx::prelude::*;
use std::ffi::CStr;
use talkmeter_engine::mapping::Class;

/// The type under all domains.
#[derive(Clone, Copy)]
pub struct Base {
    pub oid: pg_sys::Oid,
    pub is_enum: bool,
}

/// What lies under a type, which may be that type itself; `None` if there is none of that oid.
pub fn base(mut oid: pg_sys::Oid) -> Option<Base> {
    loop {
        // SAFETY: a look-up in the server's cache of the catalog; the tuple is read before it is released.
        let (kind, inner) = unsafe {
            let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::TYPEOID as i32, oid.into());
            if tuple.is_null() {
                return None;
            }
            let found = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_type>();
            let read = (found.typtype as u8, found.typbasetype);
            pg_sys::ReleaseSysCache(tuple);
            read
        };
        if kind != pg_sys::TYPTYPE_DOMAIN {
            return Some(Base { oid, is_enum: kind == pg_sys::TYPTYPE_ENUM });
        }
        oid = inner;
    }
}

/// The name as SQL's `format_type` has it; without the length or the precision if none is given.
pub fn name(oid: pg_sys::Oid, modifier: Option<i32>) -> String {
    // Which types are named without their schema, and how a name is quoted, settings say.
    rights::settle();
    let given = if modifier.is_some() { pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN } else { 0 };
    let flags = (given | pg_sys::FORMAT_TYPE_ALLOW_INVALID) as u16;
    // SAFETY: the server answers with a text of its own for any oid; it is copied.
    unsafe {
        let name = pg_sys::format_type_extended(oid, modifier.unwrap_or(-1), flags);
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// What a type means to a mapping, as it is recorded: a column whose new type is of the same class is read as before.
pub fn recorded_class(base: Base) -> String {
    let known = match base.oid {
        _ if base.is_enum => "text",
        pg_sys::TEXTOID | pg_sys::VARCHAROID => "text",
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID => "integer",
        pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => "float",
        pg_sys::JSONOID | pg_sys::JSONBOID => "json",
        other => return name(other, None),
    };
    known.to_owned()
}

/// What a type means to a mapping. Types of users, but for enums, are `Other`: nothing of theirs is ever run.
pub fn class(base: Base) -> Class {
    match base.oid {
        _ if base.is_enum => enum_class(base.oid),
        pg_sys::TEXTOID | pg_sys::VARCHAROID => Class::Text,
        pg_sys::BPCHAROID => Class::PaddedText,
        pg_sys::UUIDOID => Class::Uuid,
        pg_sys::INT2OID => Class::Integer { smallest: i16::MIN.into(), largest: i16::MAX.into() },
        pg_sys::INT4OID => Class::Integer { smallest: i32::MIN.into(), largest: i32::MAX.into() },
        pg_sys::INT8OID => Class::Integer { smallest: i64::MIN, largest: i64::MAX },
        pg_sys::BOOLOID => Class::Boolean,
        pg_sys::NUMERICOID => Class::Numeric,
        pg_sys::FLOAT4OID | pg_sys::FLOAT8OID => Class::Float,
        pg_sys::JSONOID | pg_sys::JSONBOID => Class::Json,
        pg_sys::TIMESTAMPTZOID => Class::Timestamptz,
        pg_sys::TIMESTAMPOID => Class::Timestamp,
        _ => Class::Other,
    }
}

/// An enum with its labels in their order; one that has none holds nothing.
fn enum_class(oid: pg_sys::Oid) -> Class {
    let mut labels = system::labels_of(oid);
    labels.sort_by(|(one, _), (other, _)| one.total_cmp(other));
    match labels.is_empty() {
        true => Class::Other,
        false => Class::Enum(labels.into_iter().map(|(_, label)| label).collect()),
    }
}
