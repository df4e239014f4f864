//! Which table of which installation is a number, and what does a type mean to a mapping? For statements of ours.

use crate::pg::relation;
use crate::pg::types;
use pgrx::prelude::*;

#[pg_extern(sql = false)]
fn origin_of(relation: pg_sys::Oid) -> String {
    relation::origin_of(relation)
}

#[pg_extern(sql = false)]
fn class_of(of_type: pg_sys::Oid) -> Option<String> {
    types::base(of_type).map(types::recorded_class)
}
