//! Is a tenant known that is asked for? If not, which one was meant?

use crate::pg::error::{Failure, failure};
use crate::pg::sql::{Connection, arg};
use pgrx::prelude::*;
use talkmeter_engine::near;

const IS_KNOWN: &str = "
    SELECT FROM talkmeter.account AS a WHERE a.tenant = $1
    UNION ALL
    SELECT FROM talkmeter.conversation AS c WHERE c.tenant = $1
    LIMIT 1";

/// An error if nothing was metered, bought or subscribed for a tenant.
pub fn must_be(connection: &Connection, tenant: &str) {
    if connection.run(IS_KNOWN, &[arg(tenant)]).count() == 0 {
        let unknown = format!("nothing is known of tenant \"{tenant}\"");
        with_nearest(connection, tenant, failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, unknown)).raise();
    }
}

/// Tenants among which a name is looked for that is near.
const KNOWN: &str = "SELECT a.tenant FROM talkmeter.account AS a ORDER BY a.tenant LIMIT 10000";

/// Adds to a failure about an unknown tenant which one was meant, perhaps.
pub fn with_nearest(connection: &Connection, tenant: &str, failure: Failure) -> Failure {
    let known: Vec<String> = connection.run(KNOWN, &[]).iter().map(|mut row| row.value()).collect();
    match near::nearest(tenant, known.iter().map(String::as_str)) {
        Some(name) => {
            failure.hint(format!("Perhaps you meant \"{name}\". SELECT tenant FROM talkmeter.usage lists all."))
        }
        None => failure.hint("SELECT tenant FROM talkmeter.usage lists those that are on a plan."),
    }
}
