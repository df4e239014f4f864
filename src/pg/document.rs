//! What does an argument of type jsonb hold? What cannot be read is the caller's error, not an internal one.

use crate::pg::error::failure;
use pgrx::AnyElement;
use pgrx::prelude::*;
use serde_json::Value;
use std::ffi::CStr;

/// The value of an argument that its function declares as jsonb.
pub fn value(argument: AnyElement, name: &str) -> Value {
    assert_eq!(argument.oid(), pg_sys::JSONBOID, "type of the argument {name}");
    // SAFETY: the datum is a jsonb, whose text lives until the call ends.
    let text = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(argument.datum())]) };
    let text = text.expect("a jsonb has a text").to_str().expect("text in the encoding of the database");
    serde_json::from_str(text).unwrap_or_else(|flaw| {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, format!("\"{name}\" cannot be read: {flaw}"))
            .hint("Values may lie at most 127 levels deep; numbers may be at most as large as a double.")
            .raise()
    })
}
