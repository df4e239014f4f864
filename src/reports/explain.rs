//! Why was a conversation billed, or not (rule 5)? Each of its events, what it did, and the rule that said so.

use crate::capture::entry::Key;
use crate::catalog::Catalog;
use crate::catalog::args::{required, tenant_key};
use crate::catalog::reading::Patience;
use crate::meter::batch::Batch;
use crate::meter::history::{self, Log, WantedEvents};
use crate::meter::part_table::{self, Metered};
use crate::pg::clock::{self, Timestamp};
use crate::pg::limit::heed_cancel;
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, Row, arg, connected};
use crate::reports::recount::opened_under;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;
use std::collections::HashMap;
use talkmeter_engine::explain::{Did, Line, Story, as_metered, retell};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::near;
use talkmeter_engine::order::OrderKey;
use talkmeter_engine::part::{Opening, Part};
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
    charge: Option<ChargeShown>,
}

#[derive(Clone)]
struct ChargeShown {
    id: i64,
    tier: String,
    amount: String,
    currency: String,
}

type ToldRow = (
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

/// What happened in a conversation: its events in order, what each did and why, then the charges that were taken
/// back, then rows that are in quarantine. Of a conversation of which nothing is metered one line says so, step 0, and
/// which one is meant, perhaps. Reads only.
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
    let told = as_owner(|| {
        connected(|connection| match told(connection, key) {
            told if told.is_empty() => vec![(0, unknown(connection, key))],
            told => (1..).zip(told).collect(),
        })
    });
    TableIterator::new(told.into_iter().map(line).collect::<Vec<_>>())
}

fn line((step, told): (i32, Told)) -> ToldRow {
    let amount = |charge: &ChargeShown| charge.amount.parse().expect("a number that the server wrote");
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

/// Conversations of the tenant among which one is looked for that was meant: first those whose ids hold what was asked
/// for, or that it holds.
const NEAR: &str = "
    SELECT c.conversation
    FROM talkmeter.conversation AS c
    WHERE c.tenant = $1
    ORDER BY strpos(c.conversation, $2) > 0 OR strpos($2, c.conversation) > 0 DESC, length(c.conversation),
        c.conversation
    LIMIT 10000";

/// What is told of a conversation of which nothing is metered.
fn unknown(connection: &Connection, key: Key) -> Told {
    let rows = connection.run(NEAR, &[arg(key.0), arg(key.1)]);
    let known: Vec<String> = rows.iter().map(|mut row| row.value()).collect();
    let holds = |id: &&String| !key.1.is_empty() && (id.contains(key.1) || key.1.contains(id.as_str()));
    let near = known.first().filter(holds).map(String::as_str);
    let near = near.or_else(|| near::nearest(key.1, known.iter().map(String::as_str)));
    Told {
        effect: "nothing of this conversation is metered".to_owned(),
        rule: near.map(|id| format!("perhaps \"{id}\" is meant")),
        ..Told::default()
    }
}

fn told(connection: &Connection, key: Key) -> Vec<Told> {
    let mut batch = Batch::dry(connection, &[key]);
    let since = Instant::EARLIEST;
    let Metered { parts: stored, sources, has_marks } = part_table::metered(&batch.catalog, &[key]).remove(0);
    let mut wanted =
        [WantedEvents { tenant: key.0, conversation: key.1, since, sources, has_marks, scanned: Vec::new() }];
    let log = history::read(connection, &batch.catalog, &mut wanted, Patience::OfCaller).remove(0);
    let log = log.unwrap_or_else(|unreadable| unreadable.raise());
    let story = story(&mut batch, key, &log, &stored);
    let charges = Charges::read(connection, key);
    let teller = Teller { catalog: &batch.catalog, story: &story, log: &log, stored: &stored, charges: &charges };
    let mut told: Vec<Told> = story.lines.iter().map(|line| teller.tell(line)).collect();
    let is_told_apart = |entry: &LedgerEntry| entry.taken_back.is_some() || entry.is_reversal;
    told.extend(charges.entries.into_iter().filter(is_told_apart).map(LedgerEntry::told));
    told.extend(quarantined(connection, key));
    told
}

/// The conversation as it is folded from its start, if that gives the parts that are stored; else as it was metered.
fn story(batch: &mut Batch, key: Key, log: &Log, stored: &[Part]) -> Story {
    // Asked for each event.
    let because = |placed: &Placed| {
        heed_cancel();
        log.because.get(&placed.place).cloned()
    };
    let now = clock::now();
    let opener = |placed: &Placed, previous: Option<&Opening>| match opened_under(stored, placed) {
        Some(opening) => Ok(Some(opening)),
        None => batch.opening(0, (&placed.place, &placed.event), previous, None),
    };
    let story = retell(key.1, &log.events, because, opener, now);
    fn extent(part: &Part) -> (&[u8], &[u8], i64) {
        (&part.first_event, &part.last_event, part.event_count)
    }
    match story.parts.iter().map(extent).eq(stored.iter().map(extent)) {
        true => story,
        false => as_metered(key.1, stored, &log.events, because, now),
    }
}

/// What is known of a conversation when its lines are told.
struct Teller<'a> {
    catalog: &'a Catalog,
    story: &'a Story,
    log: &'a Log,
    stored: &'a [Part],
    charges: &'a Charges,
}

/// What the ledger holds of a conversation.
struct Charges {
    entries: Vec<LedgerEntry>,
    /// By the number of each part that has any, its first charge that stands, by its index, if one does.
    standing: HashMap<i32, Option<usize>>,
}

impl Charges {
    fn read(connection: &Connection, key: Key) -> Charges {
        let rows = connection.run(CHARGES, &[arg(key.0), arg(key.1)]);
        let entries: Vec<LedgerEntry> = rows.iter().map(LedgerEntry::read).collect();
        let mut standing = HashMap::new();
        for (index, entry) in entries.iter().enumerate() {
            let first: &mut Option<usize> = standing.entry(entry.part).or_default();
            if !entry.is_reversal && entry.taken_back.is_none() {
                first.get_or_insert(index);
            }
        }
        Charges { entries, standing }
    }
}

impl Teller<'_> {
    fn tell(&self, line: &Line) -> Told {
        heed_cancel();
        // The parts of the story are the stored ones, whose numbers are those that charges know.
        let part = line.part.map(|part| self.stored[part].number);
        let placed = line.event.map(|event| &self.log.events[event]);
        let place = placed.and_then(|placed| OrderKey::from_bytes(&placed.place));
        let charge = self.standing_charge(part).filter(|_| matches!(line.did, Did::Billable(_)));
        let source = place.as_ref().and_then(|place| self.catalog.source(place.source()));
        Told {
            at: line.at.map(Timestamp::from),
            event: placed.map(|placed| placed.event.name().to_string()),
            source: source.map(|source| source.relation),
            message: place.and_then(|place| place.message()).map(|message| message.text()),
            part,
            effect: line.did.words(part),
            rule: Some(match matches!(line.did, Did::Billable(_)) && self.waits(line) {
                true => format!("{}; not charged yet: no plan was in force, or it is still to be swept", line.rule),
                false => line.rule.clone(),
            }),
            charge: charge.map(|entry| entry.charge.clone()),
        }
    }

    fn standing_charge(&self, part: Option<i32>) -> Option<&LedgerEntry> {
        let index = (*self.charges.standing.get(&part?)?)?;
        Some(&self.charges.entries[index])
    }

    /// Whether the part of a line is billable still, and was never charged.
    fn waits(&self, line: &Line) -> bool {
        let is_billable = line.part.is_some_and(|part| self.story.parts[part].charge_instant().is_some());
        let number = line.part.map(|part| self.stored[part].number);
        let is_charged = number.is_some_and(|number| self.charges.standing.contains_key(&number));
        self.story.parts.len() == self.stored.len() && is_billable && !is_charged
    }
}

const CHARGES: &str = "
    SELECT c.charge_id, c.part, c.charged_at, c.tier, c.amount::text, c.currency, c.reverses, c.reason, c.note,
        r.charge_id
    FROM talkmeter.charge AS c
    LEFT JOIN talkmeter.charge AS r ON r.tenant = c.tenant AND r.reverses = c.charge_id
    WHERE c.tenant = $1 AND c.conversation = $2
    ORDER BY c.charge_id";

/// An entry of the ledger.
struct LedgerEntry {
    part: i32,
    charged_at: Timestamp,
    charge: ChargeShown,
    is_reversal: bool,
    taken_back: Option<i64>,
    reverses: Option<i64>,
    why: Option<String>,
}

impl LedgerEntry {
    fn read(mut row: Row) -> LedgerEntry {
        let id = row.value();
        let part = row.value();
        let charged_at = row.value();
        let charge = ChargeShown { id, tier: row.value(), amount: row.value(), currency: row.value() };
        let reverses: Option<i64> = row.nullable();
        let (reason, note): (Option<String>, Option<String>) = (row.nullable(), row.nullable());
        let why = reason.map(|reason| note.map_or(reason.clone(), |note| format!("{reason}: {note}")));
        let is_reversal = reverses.is_some();
        LedgerEntry { part, charged_at, charge, is_reversal, taken_back: row.nullable(), reverses, why }
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

const QUARANTINED: &str = "
    SELECT q.occurred_at, q.mark_kind, q.source::oid, q.message_id, q.reason, COALESCE(q.detail || ' ', '') || q.hint
    FROM talkmeter.quarantine AS q
    WHERE q.tenant = $1 AND q.conversation = $2
    ORDER BY q.occurred_at, q.source, q.message_id";

fn quarantined(connection: &Connection, key: Key) -> Vec<Told> {
    let told = |mut row: Row| Told {
        at: row.nullable(),
        event: row.nullable(),
        source: row.nullable(),
        message: row.nullable(),
        effect: format!("in quarantine: {}", row.value::<String>()),
        rule: row.nullable(),
        ..Told::default()
    };
    connection.run(QUARANTINED, &[arg(key.0), arg(key.1)]).iter().map(told).collect()
}
