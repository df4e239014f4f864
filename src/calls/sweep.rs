//! What has time ended (rule 3.6)?

use crate::billing::alerts;
use crate::billing::post;
use crate::billing::posting::Postings;
use crate::calls::{access, retry};
use crate::catalog::args::not_future;
use crate::catalog::sources;
use crate::meter::batch::{BATCH, Batch};
use crate::meter::commit;
use crate::pg::clock::Timestamp;
use crate::pg::locks::{self, Conversations};
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, arg, connected};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use talkmeter_engine::instant::Instant;

/// Ends every part that time has ended by `as_of`, charges what thereby becomes billable, and returns how many ended.
#[pg_extern(sql = false)]
fn sweep(as_of: TimestampWithTimeZone) -> i64 {
    end_what_has_ended(not_future(as_of, "as_of"))
}

/// Ends every part that time has ended by an instant that is not in the future, and returns how many ended.
pub fn end_what_has_ended(as_of: Instant) -> i64 {
    // Read by every work, and written by this one.
    locks::for_writing(&[c"source"]);
    // What this transaction inserted, and what has come due, counts before time does.
    retry::future(as_of);
    commit::work();
    as_owner(|| {
        connected(sources::record_columns_anew);
        connected(access::forget_who_is_gone);
        let mut ended = 0;
        let mut postings = Postings::default();
        let mut conversations = Conversations::begin();
        let mut after = None;
        while let Some(keys) = connected(|connection| due(connection, as_of, after.as_ref())) {
            connected(|connection| {
                let borrowed: Vec<_> = keys.iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).collect();
                let mut batch = Batch::lock(connection, &mut conversations, &borrowed);
                ended += (0..keys.len()).filter(|index| batch.pass_time(*index, as_of)).count() as i64;
                batch.write().iter().for_each(|posting| postings.push(posting));
            });
            pgrx::check_for_interrupts!();
            after = keys.into_iter().last();
        }
        post::post(postings, conversations.then_tenants());
        locks::ledger_for_writing();
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
    let keys: Vec<Owned> = rows.iter().map(|mut row| (row.value(), row.value())).collect();
    (!keys.is_empty()).then_some(keys)
}
