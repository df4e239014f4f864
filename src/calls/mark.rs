//! What happened in a conversation that no row tells (rule 2.8)?

use crate::capture::queue;
use crate::catalog::args::{key, not_future, not_too_old, required, tenant_key};
use crate::pg::clock;
use crate::pg::error::Failure;
use crate::pg::rights;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use talkmeter_engine::status;

/// Records an event of any kind but activity; it counts when the transaction commits. Without `at` it is of the moment
/// of the call (rule 2.8.2).
#[pg_extern(sql = false)]
fn mark(tenant: Option<&str>, conversation: Option<&str>, kind: Option<&str>, at: Option<TimestampWithTimeZone>) {
    let tenant = tenant_key(tenant);
    let conversation = key(conversation, "conversation");
    let name = status::name_of_mark(required(kind, "kind")).unwrap_or_else(|flaw| Failure::from(flaw).raise());
    rights::must_write("mark");
    match at {
        Some(at) => queue::mark(tenant, conversation, &name, not_too_old(not_future(at, "at"), "at")),
        None => queue::mark_of_moment(tenant, conversation, &name, clock::now()),
    }
}
