//! What happens to a conversation when an event of it is late, changed or gone? It is folded again, and the difference
//! written.

use crate::billing::posting::{Cause, Posting, Settle, Why};
use crate::capture::entry::{self, Entry, RowName};
use crate::catalog::reading::{Patience, Unreadable};
use crate::meter::archived;
use crate::meter::batch::{Batch, unit};
use crate::meter::folding::Folding;
use crate::meter::history::{self, Log, WantedEvents};
use crate::meter::part_table::{self, FromPlace};
use crate::pg::limit::heed_cancel;
use crate::pg::locks;
use crate::pg::sql::{Connection, arg};
use std::collections::{BTreeMap, HashMap, HashSet};
use talkmeter_engine::fold::Conversation;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, MessageId, OrderKey};
use talkmeter_engine::part::{Opening, Part, Reason, Verdict};
use talkmeter_engine::policy::Policy;
use talkmeter_engine::refold::{After, Before, Changes, Restart, opened_at, refold, restart};

/// A conversation of a batch that is to be folded again.
pub struct Late {
    /// Its index in the batch.
    pub conversation: usize,
    pub changes: Changes,
    /// The places of its events that are new, or to be looked at again.
    pub new: Vec<Vec<u8>>,
    /// The places of its events that were changed away.
    pub removed: Vec<Vec<u8>>,
    /// The places of its events that may never have been counted.
    pub backfilled: Vec<Vec<u8>>,
}

impl Late {
    /// What no part has counted was not there before, as far as the parts tell: within one it may have been.
    fn know_what_is_new(&mut self, stored: &[Part]) {
        for place in &self.backfilled {
            let begun = stored.partition_point(|part| part.first_event <= *place);
            if stored[..begun].last().is_none_or(|part| *place > part.last_event) {
                self.changes.add(place);
            }
        }
    }
}

/// What quarantine learns from folding again.
#[derive(Default)]
pub struct Findings {
    pub refused: Vec<Entry>,
    /// Rows that a policy can judge by now.
    pub released: Vec<RowName>,
}

/// Folds conversations again.
pub fn fold_again(batch: &mut Batch, late: Vec<Late>, findings: &mut Findings) {
    let mut late: Vec<Late> = late.into_iter().filter(|late| late.changes.earliest().is_some()).collect();
    let earliest: Vec<&[u8]> = late.iter().filter_map(|late| late.changes.earliest()).collect();
    // At that very instant parts may have been active that were over.
    let instants: Vec<[u8; 8]> = earliest.iter().map(|place| OrderKey::floor(order::time_of(place))).collect();
    let from: Vec<FromPlace> = late
        .iter()
        .zip(&instants)
        .map(|(late, instant)| {
            let folding = &batch.conversations[late.conversation];
            FromPlace { key: (folding.tenant, folding.id), place: instant }
        })
        .collect();
    if from.is_empty() {
        return;
    }
    // Which charges stand is read before tenants are locked.
    locks::ledger_and_archive_for_writing();
    archived::fetch_back(batch.connection, &from.iter().map(|from| from.key).collect::<Vec<_>>());
    let stored = stored_parts(batch, &late, &from);
    late.iter_mut().zip(&stored).for_each(|(late, stored)| late.know_what_is_new(stored));
    let earliest = late.iter().filter_map(|late| late.changes.earliest());
    let starts: Vec<Restart> = stored.iter().zip(earliest).map(|(parts, earliest)| restart(parts, earliest)).collect();
    let wanted = late.iter().zip(&starts).map(|(late, start)| {
        let folding = &batch.conversations[late.conversation];
        let (tenant, conversation, sources) = (folding.tenant, folding.id, folding.sources.clone());
        WantedEvents {
            tenant,
            conversation,
            since: start.since(),
            sources,
            has_marks: folding.last_mark > 0,
            scanned: Vec::new(),
        }
    });
    let logs = history::read(batch.connection, &batch.catalog, &mut wanted.collect::<Vec<_>>(), Patience::OfCommit);
    for (((late, start), stored), log) in late.iter().zip(&starts).zip(&stored).zip(logs) {
        match log {
            Ok(log) => fold_one(batch, late, start, stored, log, findings),
            // Whoever backfills can call again.
            Err(unreadable) if !late.backfilled.is_empty() => unreadable.raise(),
            Err(unreadable) => wait_for_table(&batch.conversations[late.conversation], late, unreadable, findings),
        }
    }
}

/// The parts of conversations, in the order of time, as `parts_from` reads them. Nearly all conversations have one part
/// only, which is current: then it is known from their row, and nothing is read.
fn stored_parts(batch: &Batch, late: &[Late], from: &[FromPlace]) -> Vec<Vec<Part>> {
    let known = |late: &Late| {
        let state = &batch.conversations[late.conversation].state;
        let is_all = state.highest == i32::from(state.current.is_some());
        is_all.then(|| state.current.iter().cloned().collect())
    };
    let mut stored: Vec<Option<Vec<Part>>> = late.iter().map(known).collect();
    let unknown: Vec<FromPlace> =
        from.iter().zip(&stored).filter(|(_, known)| known.is_none()).map(|(from, _)| *from).collect();
    if !unknown.is_empty() {
        let read = part_table::parts_from(batch.connection, &batch.catalog, &unknown);
        stored.iter_mut().filter(|known| known.is_none()).zip(read).for_each(|(known, read)| *known = Some(read));
    }
    stored.into_iter().flatten().collect()
}

/// What was folded before stays, and what is new waits in quarantine.
fn wait_for_table(folding: &Folding, late: &Late, unreadable: Unreadable, findings: &mut Findings) {
    let detail = format!("The conversation cannot be read again: {}", unreadable.because);
    let entry =
        |place: &Vec<u8>| Entry::of(folding.tenant, folding.id, &order::key(place), unreadable.reason, detail.clone());
    late.new.iter().for_each(|place| entry::add(&mut findings.refused, entry(place)));
    let removal = |place: &Vec<u8>| Entry { removal: Some(place.clone()), ..entry(place) };
    findings.refused.extend(late.removed.iter().map(removal));
}

fn fold_one(batch: &mut Batch, late: &Late, start: &Restart, stored: &[Part], mut log: Log, findings: &mut Findings) {
    log.events.retain(|placed| placed.place >= start.place);
    let last = log.events.last().map(|placed| placed.place.clone());
    let folding = &batch.conversations[late.conversation];
    let (connection, tenant, id, last_event) =
        (batch.connection, folding.tenant, folding.id, folding.last_event.clone());
    let before = Before {
        id,
        previous: start.part.checked_sub(1).map(|index| &stored[index]),
        parts: &stored[start.part..],
        highest: folding.state.highest,
        last_event: &last_event,
    };
    let after = refold(
        &before,
        log.events,
        &late.changes,
        |placed, previous| {
            let stored = opened_at(before.parts, &placed.place);
            batch.opening(late.conversation, (&placed.place, &placed.event), previous, stored)
        },
        || standing(connection, tenant, id),
        heed_cancel,
    );
    // The events that have the time of their row leave quarantine together, when none of them waits any more.
    let still: HashSet<EventId> = after.unjudged.iter().map(|place| event(place)).collect();
    let mut waited: Vec<&Vec<u8>> =
        log.unjudged.iter().filter(|place| **place >= start.place && !still.contains(&event(place))).collect();
    waited.sort_unstable();
    let (judged, waiting): (Vec<_>, Vec<_>) =
        waited.into_iter().partition(|place| Some(order::time_of(place)) > after.sealed_until);
    // The events of a row come one behind the other, so that it is listed once.
    let mut sealed: Vec<&Vec<u8>> = after.sealed.iter().chain(waiting).collect();
    sealed.sort_unstable();
    let is_sealed: HashSet<EventId> = sealed.iter().map(|place| event(place)).collect();
    for place in sealed {
        let detail = "It comes before the last activity of a part that has lost rows.";
        entry::add(&mut findings.refused, Entry::of(tenant, id, &order::key(place), "sealed", detail.to_owned()));
    }
    let waits_since = |place: &Vec<u8>| log.unjudged.contains(place) || is_sealed.contains(&event(place));
    for place in after.unjudged.iter().filter(|place| !waits_since(place)) {
        entry::add(&mut findings.refused, unjudged(tenant, id, place));
    }
    for place in judged {
        findings.released.push(RowName::at_place(tenant, id, &order::key(place)));
    }
    apply(batch, late, &before, after, last);
}

/// The entry of an event that no known policy can judge.
pub fn unjudged(tenant: &str, conversation: &str, place: &[u8]) -> Entry {
    let detail = match order::is_mark(place) {
        true => "No part was before it, whose policy it would take, or no version of that was in force at its time.",
        false => "No version of the policy was in force at its time.",
    };
    Entry::of(tenant, conversation, &order::key(place), "unknown_policy", detail.to_owned())
}

/// The source and the id of a row, or of a mark, and which event of it.
type EventId = (i32, Option<MessageId>, u16);

fn event(place: &[u8]) -> EventId {
    let place = order::key(place);
    (place.source(), place.message(), place.event())
}

fn apply(batch: &mut Batch, late: &Late, before: &Before, after: After, last_event: Option<Vec<u8>>) {
    let Batch { catalog, conversations, .. } = batch;
    let folding = &mut conversations[late.conversation];
    let cause = |part: &Part| late.changes.cause(part).map(Cause::at_place);
    let mut postings = Vec::new();
    let by_number: HashMap<i32, &Part> = before.parts.iter().map(|part| (part.number, part)).collect();
    for part in &after.parts {
        heed_cancel();
        let known = by_number.get(&part.number).copied();
        if known == Some(part) {
            continue;
        }
        let opening = Opening { policy: part.policy.clone(), source: part.source };
        let named = (part.number, part.outcome.as_deref());
        let wanted = part.charge_instant().map(|at| unit(catalog, folding, named, at, &opening));
        match (known, wanted) {
            (None, None) => {}
            (None, Some(unit)) => postings.push(Posting::Charge(unit)),
            (Some(known), wanted) => {
                if terms(known) != terms(part) {
                    let key = (folding.tenant, folding.id, part.number);
                    let voided_by = after.voided_by.get(&part.first_event).map(|place| Cause::at_place(place));
                    postings.extend(Settle::of(key, wanted, why(part), voided_by.or_else(|| cause(known))));
                }
            }
        }
        folding.written.push(part.clone());
    }
    for part in &after.retired {
        folding.retired.push(part.number);
        if part.charge_instant().is_some() {
            postings.extend(Settle::of((folding.tenant, folding.id, part.number), None, Why::Refold, cause(part)));
        }
    }
    let last_event = last_event.filter(|last| *last > folding.last_event);
    folding.changed |= !folding.written.is_empty()
        || !folding.retired.is_empty()
        || last_event.is_some()
        || after.highest > folding.state.highest;
    // Whatever was folded again is there, up to the current part.
    folding.state = Conversation::after(after.highest, after.parts.last().or(before.previous));
    if let Some(last) = last_event {
        folding.last_event = last;
    }
    batch.postings.extend(postings);
}

/// Why a part is not charged any more.
fn why(part: &Part) -> Why {
    match part.verdict {
        Some(Verdict::NotBillable(Reason::Voided)) => Why::Voided,
        _ => Why::Refold,
    }
}

/// What a charge of a part depends on.
fn terms(part: &Part) -> (Option<Instant>, &Policy, Option<&str>) {
    (part.charge_instant(), &part.policy, part.outcome.as_deref())
}

const STANDING: &str = "
    SELECT c.part, min(c.charge_id)
    FROM talkmeter.standing_charge AS c
    WHERE c.tenant = $1 AND c.conversation = $2
    GROUP BY c.part";

/// The standing charge of each part that has one.
fn standing(connection: &Connection, tenant: &str, conversation: &str) -> BTreeMap<i32, i64> {
    let rows = connection.run(STANDING, &[arg(tenant), arg(conversation)]);
    rows.iter().map(|mut row| (row.value(), row.value())).collect()
}
