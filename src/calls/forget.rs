//! What if a conversation is not to be known any more (rule 4.7)? Its ids are replaced wherever the books hold them.

use crate::calls::journal;
use crate::catalog::Catalog;
use crate::catalog::args::{key, required, tenant_key};
use crate::catalog::away::must_be_here;
use crate::meter::{commit, history};
use crate::pg::error::failure;
use crate::pg::locks::{self, Conversations};
use crate::pg::rights::{as_owner, must_write};
use crate::pg::sql::{Connection, arg, connected};
use pgrx::iter::SetOfIterator;
use pgrx::prelude::*;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use talkmeter_engine::order;

/// Forgets one conversation, whose messages must be deleted by now, and returns what stands in the place of its id.
#[pg_extern(sql = false)]
fn forget_conversation(tenant: Option<&str>, conversation: Option<&str>) -> String {
    let (tenant, conversation) = (tenant_key(tenant), key(conversation, "conversation"));
    must_write("forget_conversation");
    commit::work();
    as_owner(|| {
        connected(|connection| {
            let forgotten = forget(connection, &[(tenant, conversation)]);
            forgotten.into_iter().next().unwrap_or_else(|| is_unknown(tenant, conversation))
        })
    })
}

/// Notes the conversations in which a customer is named, to be forgotten when the transaction commits, and returns
/// them: their messages are to be deleted in it.
#[pg_extern(sql = false)]
fn forget_customer(tenant: Option<&str>, customer: Option<&str>) -> SetOfIterator<'static, String> {
    let (tenant, customer) = (tenant_key(tenant), required(customer, "customer"));
    must_write("forget_customer");
    commit::work();
    let found = as_owner(|| {
        connected(|connection| {
            let mut found = BTreeSet::new();
            for source in Catalog::now().attached() {
                history::conversations_of_customer(source, tenant, customer, &mut found)
                    .unwrap_or_else(|unreadable| unreadable.raise());
            }
            found.retain(|conversation| is_known(connection, tenant, conversation));
            let conversations: Vec<&str> = found.iter().map(String::as_str).collect();
            connection.run(NOTE, &[arg(tenant), arg(conversations)]);
            found
        })
    });
    SetOfIterator::new(found)
}

const NOTE: &str = "
    INSERT INTO talkmeter.forgetting (tenant, conversation)
    SELECT $1, wanted.conversation FROM unnest($2::text[]) AS wanted (conversation)
    ON CONFLICT DO NOTHING";

/// Forgets what this transaction has noted. Its trigger calls it once per row; the first call does them all, so that
/// they are locked in the order of their keys.
#[pg_extern(sql = false)]
fn forget_noted() {
    commit::work();
    as_owner(|| {
        connected(|connection| {
            let rows = connection.run(TAKE, &[]);
            let mut noted: Vec<(String, String)> = rows.iter().map(|mut row| (row.value(), row.value())).collect();
            noted.sort_unstable();
            let keys: Vec<(&str, &str)> = noted.iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).collect();
            forget(connection, &keys);
        });
    });
}

const TAKE: &str = "DELETE FROM talkmeter.forgetting RETURNING tenant, conversation";

/// Who locks a conversation that is not there makes a row of it, of which nothing is known.
const IS_KNOWN: &str = "
    SELECT FROM talkmeter.conversation AS c
    WHERE c.tenant = $1 AND c.conversation = $2 AND (c.sources <> '{}' OR c.highest_part > 0 OR c.last_mark > 0)
    UNION ALL
    SELECT FROM talkmeter.marked AS m WHERE m.tenant = $1 AND m.conversation = $2
    UNION ALL
    SELECT FROM talkmeter.quarantined AS q WHERE q.tenant = $1 AND q.conversation = $2";

fn is_known(connection: &Connection, tenant: &str, conversation: &str) -> bool {
    connection.run(IS_KNOWN, &[arg(tenant), arg(conversation)]).count() > 0
}

fn is_unknown(tenant: &str, conversation: &str) -> ! {
    failure(
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("nothing is known of conversation \"{conversation}\" of tenant \"{tenant}\""),
    )
    .detail("The books hold no part, charge or mark of it.")
    .raise()
}

/// The row that locking made of a conversation of which nothing is known.
const UNDO_LOCK: &str = "DELETE FROM talkmeter.conversation AS c WHERE c.tenant = $1 AND c.conversation = $2";

/// Forgets conversations, given in the order of their keys, and returns what stands in the place of each id. One of
/// which nothing is known any more is passed over: its rows may have been all that was known.
fn forget(connection: &Connection, keys: &[(&str, &str)]) -> Vec<String> {
    if keys.is_empty() {
        return Vec::new();
    }
    let mut conversations = Conversations::begin();
    locks::for_writing(&[c"backfill_run"]);
    conversations.lock(connection, keys);
    let (keys, unknown): (Vec<_>, Vec<_>) =
        keys.iter().partition(|(tenant, conversation)| is_known(connection, tenant, conversation));
    for (tenant, conversation) in unknown {
        connection.run(UNDO_LOCK, &[arg(tenant), arg(conversation)]);
    }
    let catalog = Catalog::now();
    for (tenant, conversation) in &keys {
        must_be_over(connection, tenant, conversation);
        must_be_deleted(connection, &catalog, tenant, conversation);
    }
    let mut tenants: Vec<&str> = keys.iter().map(|(tenant, _)| *tenant).collect();
    tenants.dedup();
    conversations.then_tenants().lock(connection, &tenants);
    tenants.iter().for_each(|tenant| must_be_here(tenant));
    locks::ledger_and_archive_for_writing();
    keys.iter().map(|(tenant, conversation)| replace(connection, tenant, conversation)).collect()
}

const OPEN_PART: &str = "
    SELECT c.current_part FROM talkmeter.conversation AS c
    WHERE c.tenant = $1 AND c.conversation = $2 AND c.current_part IS NOT NULL AND c.ended_at IS NULL";

fn must_be_over(connection: &Connection, tenant: &str, conversation: &str) {
    let rows = connection.run(OPEN_PART, &[arg(tenant), arg(conversation)]);
    if let Some(mut row) = rows.first() {
        failure(
            PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("conversation \"{conversation}\" of tenant \"{tenant}\" is not over"),
        )
        .detail(format!("Its part {} is open.", row.value::<i32>()))
        .hint(
            "Call it after talkmeter.sweep() has ended the part; talkmeter.mark(tenant, conversation, 'close') ends it now.",
        )
        .raise();
    }
}

const QUARANTINED: &str = "
    SELECT q.message_id FROM talkmeter.quarantined AS q
    WHERE q.tenant = $1 AND q.conversation = $2 AND q.source_id = $3 AND q.message_id IS NOT NULL";

/// A message that is there would have the conversation counted anew, under its id.
fn must_be_deleted(connection: &Connection, catalog: &Catalog, tenant: &str, conversation: &str) {
    for source in catalog.attached() {
        let rows = connection.run(QUARANTINED, &[arg(tenant), arg(conversation), arg(source.id)]);
        let quarantined: Vec<String> = rows.iter().map(|mut row| row.value()).collect();
        let (table, count) = history::count_rows(source, tenant, conversation, &quarantined)
            .unwrap_or_else(|unreadable| unreadable.raise());
        if count > 0 {
            failure(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("conversation \"{conversation}\" of tenant \"{tenant}\" still has messages"),
            )
            .detail(format!("Table {table} holds {count} of its rows."))
            .hint("Delete them first, in the same transaction or before it.")
            .raise();
        }
    }
}

const TOMBSTONE: &str = "SELECT 'forgotten:' || gen_random_uuid()::text";

/// So that the digests of frozen statements stay what they are.
const KEEP_DIGESTS: &str = "
    INSERT INTO talkmeter.forgotten_subject (tenant, charge_id, digest)
    SELECT c.tenant, c.charge_id, sha256(convert_to(talkmeter.subject_of(c.conversation, c.cause_message_id), 'UTF8'))
    FROM talkmeter.charge AS c
    JOIN talkmeter.period AS p ON p.tenant = c.tenant AND p.period_start = c.posted_period_start
        AND p.period_end = c.posted_period_end AND p.finalization IS NOT NULL
    WHERE c.tenant = $1 AND c.conversation = $2
    ON CONFLICT DO NOTHING";

macro_rules! renamed {
    ($table:literal, $also:literal) => {
        concat!(
            "UPDATE talkmeter.",
            $table,
            " AS own SET conversation = $3",
            $also,
            " WHERE own.tenant = $1 AND own.conversation = $2"
        )
    };
}

/// What holds the id, and what is done there. The charges come first, which is what is counted.
const REPLACE: [&str; 5] = [
    renamed!("charge", ", cause_message_id = NULL"),
    renamed!("conversation", ""),
    renamed!("marked", ""),
    renamed!("unplanned_unit", ""),
    renamed!("uncharged_unit", ""),
];

/// They name rows that are gone.
const LEAVE_QUARANTINE: &str = "DELETE FROM talkmeter.quarantined AS q WHERE q.tenant = $1 AND q.conversation = $2";

/// A backfill goes on after the last conversation that it counted. From the one before, it counts none twice: what is
/// counted is known.
const STEP_BACK: &str = "
    UPDATE talkmeter.backfill_run AS r
    SET after_conversation = COALESCE((
        SELECT max(c.conversation) FROM talkmeter.conversation AS c
        WHERE c.tenant = $1 AND c.conversation < $2), '')
    WHERE r.after_tenant = $1 AND r.after_conversation = $2";

fn replace(connection: &Connection, tenant: &str, conversation: &str) -> String {
    let tombstone: String = connection.run(TOMBSTONE, &[]).only().value();
    connection.run(KEEP_DIGESTS, &[arg(tenant), arg(conversation)]);
    let parts = replace_places(connection, tenant, conversation, &tombstone);
    let ids = [arg(tenant), arg(conversation), arg(tombstone.as_str())];
    let changed: Vec<usize> = REPLACE.iter().map(|statement| connection.run(statement, &ids).count()).collect();
    connection.run(LEAVE_QUARANTINE, &ids[..2]);
    connection.run(STEP_BACK, &ids[..2]);
    let arguments = json!({"tombstone": tombstone, "parts": parts, "entries": changed[0]});
    journal::note(connection, "forget_conversation", Some(tenant), arguments, None);
    tombstone
}

const PLACES: &str = "
    SELECT e.part, e.first_event, e.last_event FROM talkmeter.ended_part AS e
    WHERE e.tenant = $1 AND e.conversation = $2";

// Those of a part that is held are there too.
const LAST_PLACES: &str = "
    SELECT c.last_event, c.first_event, c.part_last_event FROM talkmeter.conversation AS c
    WHERE c.tenant = $1 AND c.conversation = $2";

const REPLACE_PLACES: &str = "
    UPDATE talkmeter.ended_part AS own
    SET conversation = $3, first_event = wanted.first_event, last_event = wanted.last_event
    FROM unnest($4::int4[], $5::bytea[], $6::bytea[]) AS wanted (part, first_event, last_event)
    WHERE own.tenant = $1 AND own.conversation = $2 AND own.part = wanted.part";

const REPLACE_LAST_PLACES: &str = "
    UPDATE talkmeter.conversation AS c SET last_event = $3, first_event = $4, part_last_event = $5
    WHERE c.tenant = $1 AND c.conversation = $2";

/// The place of an event names its message. Returns how many parts there are.
fn replace_places(connection: &Connection, tenant: &str, conversation: &str, tombstone: &str) -> usize {
    let of = [arg(tenant), arg(conversation)];
    let rows = connection.run(PLACES, &of);
    let parts: Vec<(i32, Vec<u8>, Vec<u8>)> =
        rows.iter().map(|mut row| (row.value(), row.value(), row.value())).collect();
    let rows = connection.run(LAST_PLACES, &of);
    let last: Vec<[Option<Vec<u8>>; 3]> =
        rows.iter().map(|mut row| [row.nullable(), row.nullable(), row.nullable()]).collect();
    let of_parts = parts.iter().flat_map(|(_, first, last)| [first.as_slice(), last.as_slice()]);
    let all: BTreeSet<&[u8]> = of_parts.chain(last.iter().flatten().filter_map(Option::as_deref)).collect();
    let bare: BTreeMap<&[u8], Vec<u8>> =
        (1..).zip(all).map(|(number, place)| (place, order::without_message(place, number))).collect();
    let numbers: Vec<i32> = parts.iter().map(|(part, ..)| *part).collect();
    let firsts: Vec<&[u8]> = parts.iter().map(|(_, first, _)| bare[first.as_slice()].as_slice()).collect();
    let lasts: Vec<&[u8]> = parts.iter().map(|(.., last)| bare[last.as_slice()].as_slice()).collect();
    let places = [arg(tombstone), arg(numbers), arg(firsts), arg(lasts)];
    connection.run(REPLACE_PLACES, &[of.as_slice(), &places].concat());
    for places in &last {
        let bare = places.each_ref().map(|place| arg(place.as_deref().map(|place| bare[place].as_slice())));
        connection.run(REPLACE_LAST_PLACES, &[of.as_slice(), &bare].concat());
    }
    parts.len() + last.iter().filter(|[_, first, _]| first.is_some()).count()
}
