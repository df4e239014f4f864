//! What has time ended (SPEC 3.6)?

use crate::alerts;
use crate::cache;
use crate::clock::{self, Timestamp};
use crate::commit;
use crate::error::failure;
use crate::ledger::{self, Postings};
use crate::parts::{BATCH, Batch};
use crate::retry;
use crate::rights::as_owner;
use crate::settings;
use crate::sql::{Connection, arg, connected};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use talkmeter_engine::instant::Instant;

/// Ends every part that time has ended by `as_of`, charges what thereby becomes billable, and returns how many ended.
#[pg_extern(sql = false)]
fn sweep(as_of: TimestampWithTimeZone) -> i64 {
    let as_of = match Timestamp::from(as_of).finite() {
        Some(as_of) if as_of <= clock::latest() => as_of,
        _ => failure(PgSqlErrorCode::ERRCODE_DATETIME_FIELD_OVERFLOW, "\"as_of\" is in the future")
            .detail(format!(
                "It may be at most {} seconds ahead of the clock (talkmeter.max_future).",
                settings::MAX_FUTURE.get()
            ))
            .raise(),
    };
    end_what_has_ended(as_of)
}

/// Ends every part that time has ended by an instant that is not in the future, and returns how many ended.
pub fn end_what_has_ended(as_of: Instant) -> i64 {
    // What this transaction inserted, and what has come due, counts before time does.
    retry::future(as_of);
    commit::work();
    as_owner(|| {
        connected(cache::record_columns_anew);
        let mut ended = 0;
        let mut postings = Postings::default();
        let mut after = None;
        while let Some(keys) = connected(|connection| due(connection, as_of, after.as_ref())) {
            connected(|connection| {
                let borrowed: Vec<_> = keys.iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).collect();
                let mut batch = Batch::lock(connection, &borrowed);
                ended += (0..keys.len()).filter(|index| batch.pass_time(*index, as_of)).count() as i64;
                batch.write().iter().for_each(|posting| postings.push(posting));
            });
            pgrx::check_for_interrupts!();
            after = keys.into_iter().last();
        }
        ledger::post(postings);
        alerts::send();
        ended
    })
}

type Owned = (String, String);

const FIRST_DUE: &str = "
    SELECT p.tenant, p.conversation
    FROM talkmeter.part AS p
    WHERE p.ended_at IS NULL AND p.timed AND p.due_at <= $1
    ORDER BY p.tenant, p.conversation
    LIMIT $2";

const NEXT_DUE: &str = "
    SELECT p.tenant, p.conversation
    FROM talkmeter.part AS p
    WHERE p.ended_at IS NULL AND p.timed AND p.due_at <= $1 AND (p.tenant, p.conversation) > ($3, $4)
    ORDER BY p.tenant, p.conversation
    LIMIT $2";

/// The next conversations, in key order, that hold a part which is due.
fn due(connection: &Connection, as_of: Instant, after: Option<&Owned>) -> Option<Vec<Owned>> {
    let mut args = vec![arg(Timestamp::from(as_of)), arg(BATCH as i64)];
    let statement = match after {
        None => FIRST_DUE,
        Some((tenant, conversation)) => {
            args.extend([arg(tenant.as_str()), arg(conversation.as_str())]);
            NEXT_DUE
        }
    };
    let rows = connection.run(statement, &args);
    let keys: Vec<Owned> = (0..rows.count()).map(|row| (rows.value(row, 1), rows.value(row, 2))).collect();
    (!keys.is_empty()).then_some(keys)
}
