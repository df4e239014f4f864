//! Who called what, and with which arguments? Kept for whoever must prove a bill; nothing takes it away again.

use crate::pg::sql::{Connection, arg};
use pgrx::JsonB;
use serde_json::Value;
use talkmeter_engine::instant::Instant;

const NOTE: &str = "INSERT INTO talkmeter.journaled (call, tenant, arguments, note) VALUES ($1, $2, $3, $4)";

/// Writes down a call that has changed something, in its own transaction. `said` is the caller's note.
pub fn note(connection: &Connection, call: &str, tenant: Option<&str>, arguments: Value, said: Option<&str>) {
    connection.run(NOTE, &[arg(call), arg(tenant), arg(JsonB(arguments)), arg(said)]);
}

/// An instant as an argument, or `-infinity`.
pub fn bound(at: Instant) -> Value {
    at.calendar().map_or_else(|| "-infinity".into(), |time| time.to_rfc3339().into())
}

/// An instant as an argument.
pub fn time(at: Instant) -> Value {
    at.calendar().map_or(Value::Null, |time| time.to_rfc3339().into())
}
