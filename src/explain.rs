//! Why was a conversation billed, or not (SPEC 5)? Each of its events, what it did, and the rule that said so.

use crate::account::tenant_key;
use crate::cache;
use crate::clock::{self, Timestamp};
use crate::entry::Key;
use crate::error::required;
use crate::history::{self, Log, Wanted};
use crate::parts::{Batch, From, parts_from};
use crate::rights::as_owner;
use crate::sql::{Connection, Rows, arg, connected};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use talkmeter_engine::explain::{Did, Story, as_metered, retell};
use talkmeter_engine::fold::{Opening, Part};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::OrderKey;
use talkmeter_engine::refold::Placed;

/// A line as it is returned.
#[derive(Default)]
struct Told {
    at: Option<Timestamp>,
    event: Option<String>,
    source: Option<pg_sys::Oid>,
    message: Option<String>,
    part: Option<i32>,
    effect: String,
    rule: Option<String>,
    charge: Option<Charge>,
}

#[derive(Clone)]
struct Charge {
    id: i64,
    tier: String,
    amount: String,
    currency: String,
}

type Line = (
    i32,
    Option<TimestampWithTimeZone>,
    Option<String>,
    Option<pg_sys::Oid>,
    Option<String>,
    Option<i32>,
    String,
    Option<String>,
    Option<i64>,
    Option<String>,
    Option<AnyNumeric>,
    Option<String>,
);

/// What happened in a conversation: its events in order, what each did and why, then the charges that were taken back, then
/// rows that are in quarantine. Reads only.
#[pg_extern(sql = false)]
#[allow(clippy::type_complexity)]
fn explain(
    tenant: Option<&str>,
    conversation: Option<&str>,
) -> TableIterator<
    'static,
    (
        name!(step, i32),
        name!(occurred_at, Option<TimestampWithTimeZone>),
        name!(event, Option<String>),
        name!(source, Option<pg_sys::Oid>),
        name!(message_id, Option<String>),
        name!(part, Option<i32>),
        name!(effect, String),
        name!(rule, Option<String>),
        name!(charge_id, Option<i64>),
        name!(tier, Option<String>),
        name!(amount, Option<AnyNumeric>),
        name!(currency, Option<String>),
    ),
> {
    let key = (tenant_key(tenant), required(conversation, "conversation"));
    let told = as_owner(|| connected(|connection| told(connection, key)));
    TableIterator::new((1..).zip(told).map(line).collect::<Vec<_>>())
}

fn line((step, told): (i32, Told)) -> Line {
    let amount = |charge: &Charge| charge.amount.parse().expect("a number that the server wrote");
    (
        step,
        told.at.map(Timestamp::shown),
        told.event,
        told.source,
        told.message,
        told.part,
        told.effect,
        told.rule,
        told.charge.as_ref().map(|charge| charge.id),
        told.charge.as_ref().map(|charge| charge.tier.clone()),
        told.charge.as_ref().map(amount),
        told.charge.map(|charge| charge.currency),
    )
}

fn told(connection: &Connection, key: Key) -> Vec<Told> {
    let since = Instant::EARLIEST;
    let wanted = [Wanted { tenant: key.0, conversation: key.1, since, has_marks: true }];
    let logs = history::read(connection, &wanted).unwrap_or_else(|unreadable| unreadable.raise());
    let Some(log) = logs.into_iter().next() else { return Vec::new() };
    let stored = parts_from(connection, &[From { key, place: &[] }]).pop().unwrap_or_default();
    let story = story(connection, key, &log, &stored);
    let charges = charges(connection, key);
    let mut told: Vec<Told> = story.lines.iter().map(|line| tell(&story, line, &log, &stored, &charges)).collect();
    told.extend(
        charges.into_iter().filter(|charge| charge.taken_back.is_some() || charge.is_reversal).map(Posted::told),
    );
    told.extend(quarantined(connection, key));
    told
}

/// The conversation as it is folded from its start, if that gives the parts that are stored; else as it was metered.
fn story(connection: &Connection, key: Key, log: &Log, stored: &[Part]) -> Story {
    let mut batch = Batch::in_thought(connection, &[key]);
    let because = |placed: &Placed| log.because.get(&placed.place).cloned();
    let now = clock::now();
    let opener = |placed: &Placed, previous: Option<&Opening>| {
        opened_under(stored, placed).or_else(|| batch.opening(0, &placed.place, placed.event.at, previous))
    };
    let story = retell(key.1, &log.events, because, opener, now);
    let extent = |part: &Part| (part.first_event.clone(), part.last_event.clone(), part.event_count);
    match story.parts.iter().map(extent).eq(stored.iter().map(extent)) {
        true => story,
        false => as_metered(key.1, stored, &log.events, because, now),
    }
}

/// What the stored part that begins at this event opened under: it stays with that, whatever is in force by now.
pub fn opened_under(stored: &[Part], placed: &Placed) -> Option<Opening> {
    let part = stored.iter().find(|part| part.first_event == placed.place)?;
    Some(Opening { policy: part.policy.clone(), source: part.source })
}

fn tell(story: &Story, line: &talkmeter_engine::explain::Line, log: &Log, stored: &[Part], charges: &[Posted]) -> Told {
    // The parts of the story are the stored ones, whose numbers are those that charges know.
    let part = line.part.map(|part| stored[part].number);
    let placed = line.event.map(|event| &log.events[event]);
    let place = placed.and_then(|placed| OrderKey::from_bytes(&placed.place));
    let standing = |charge: &&Posted| Some(charge.part) == part && !charge.is_reversal && charge.taken_back.is_none();
    let charge = charges.iter().find(standing).filter(|_| line.did == Did::Billable);
    let waits = line.did == Did::Billable && charge.is_none() && story.parts.len() == stored.len();
    let rule = match waits && charges.iter().all(|charge| Some(charge.part) != part) {
        true => format!("{}; not charged yet: no plan was in force, or it is still to be swept", line.rule),
        false => line.rule.clone(),
    };
    Told {
        at: line.at.map(Timestamp::from),
        event: placed.map(|placed| placed.event.kind.name().to_owned()),
        source: place.as_ref().and_then(|place| cache::source(place.source())).map(|source| source.relation),
        message: place.and_then(|place| place.message()).map(|message| message.text()),
        part,
        effect: line.did.words(part),
        rule: Some(rule),
        charge: charge.map(|posted| posted.charge.clone()),
    }
}

const CHARGES: &str = "
    SELECT c.charge_id, c.part, c.charged_at, c.tier, c.amount::text, c.currency, c.reverses, c.reason, c.note, r.charge_id,
        c.posted_at
    FROM talkmeter.charge AS c
    LEFT JOIN talkmeter.charge AS r ON r.tenant = c.tenant AND r.reverses = c.charge_id
    WHERE c.tenant = $1 AND c.conversation = $2
    ORDER BY c.charge_id";

/// An entry of the ledger.
struct Posted {
    part: i32,
    charged_at: Timestamp,
    charge: Charge,
    is_reversal: bool,
    taken_back: Option<i64>,
    reverses: Option<i64>,
    why: Option<String>,
}

impl Posted {
    fn read(rows: &Rows, row: usize) -> Posted {
        let note: Option<String> = rows.get(row, 9);
        let reason: Option<String> = rows.get(row, 8);
        Posted {
            part: rows.value(row, 2),
            charged_at: rows.value(row, 3),
            charge: Charge {
                id: rows.value(row, 1),
                tier: rows.value(row, 4),
                amount: rows.value(row, 5),
                currency: rows.value(row, 6),
            },
            reverses: rows.get(row, 7),
            is_reversal: rows.get::<i64>(row, 7).is_some(),
            taken_back: rows.get(row, 10),
            why: reason.map(|reason| note.map_or(reason.clone(), |note| format!("{reason}: {note}"))),
        }
    }

    /// As a line of its own.
    fn told(self) -> Told {
        let effect = match (self.reverses, self.taken_back) {
            (Some(reverses), _) => format!("charge {} took back charge {reverses}", self.charge.id),
            (None, Some(by)) => format!("charge {} was taken back by charge {by}", self.charge.id),
            (None, None) => format!("charge {}", self.charge.id),
        };
        Told {
            at: Some(self.charged_at),
            part: Some(self.part),
            effect,
            rule: self.why,
            charge: Some(self.charge),
            ..Told::default()
        }
    }
}

fn charges(connection: &Connection, key: Key) -> Vec<Posted> {
    let rows = connection.run(CHARGES, &[arg(key.0), arg(key.1)]);
    (0..rows.count()).map(|row| Posted::read(&rows, row)).collect()
}

const QUARANTINED: &str = "
    SELECT q.occurred_at, q.mark_kind, q.source::oid, q.message_id, q.reason, COALESCE(q.detail || ' ', '') || q.hint
    FROM talkmeter.quarantine AS q
    WHERE q.tenant = $1 AND q.conversation = $2
    ORDER BY q.occurred_at, q.source, q.message_id";

fn quarantined(connection: &Connection, key: Key) -> Vec<Told> {
    let rows = connection.run(QUARANTINED, &[arg(key.0), arg(key.1)]);
    let told = |row| Told {
        at: rows.get(row, 1),
        event: rows.get(row, 2),
        source: rows.get(row, 3),
        message: rows.get(row, 4),
        effect: format!("in quarantine: {}", rows.value::<String>(row, 5)),
        rule: rows.get(row, 6),
        ..Told::default()
    };
    (0..rows.count()).map(told).collect()
}
