//! Which events do the rows of a source give within a span of time, conversation by conversation?

use crate::capture::entry::Entry;
use crate::capture::ingest::{self, Told};
use crate::capture::quarantine::{self, Held};
use crate::capture::queue::Operation;
use crate::catalog::reading::{self, Patience, Unreadable};
use crate::catalog::sources::{Layout, Source};
use crate::meter::history::{self, WantedEvents};
use crate::pg::clock::{self, Timestamp};
use crate::pg::sql::{Arg, Connection, arg};
use std::collections::{BTreeSet, HashSet};
use talkmeter_engine::mapping::{LONGEST_KEY, Reading};
use talkmeter_engine::period::Period;

/// Tenant and conversation.
pub type Owned = (String, String);

/// Rows of a source within a span of time.
pub struct Span<'a> {
    pub source: &'a Source,
    pub period: Period,
    /// Whether an index finds the rows of one conversation.
    pub is_indexed: bool,
}

impl Span<'_> {
    /// The next conversations that have such rows, or rows near them, at most so many, in the order of their bytes; and
    /// whether there may be more.
    pub fn next_conversations(&self, after: Option<&Owned>, most: usize) -> Result<(Vec<Owned>, bool), Unreadable> {
        let mut found = BTreeSet::new();
        // Where the first statement stopped that found as many as it may: beyond that others may have left some out.
        let mut end: Option<Owned> = None;
        for query in &reading::queries(self.source)?.all {
            let args: Vec<Arg> = self.args(after).into_iter().chain([arg(most as i64)]).collect();
            let (mut last, mut rows) = (None, 0);
            reading::for_each_row(query, &query.next_conversations, &args, &[], Patience::OfCaller, |_, _, row| {
                rows += 1;
                let key: Option<Owned> = row.nullable().zip(row.nullable());
                // One that is longer is the key of no conversation (rule 2.5.6).
                found.extend(key.clone().filter(|key| key.0.len().max(key.1.len()) <= LONGEST_KEY));
                last = key.or(last.take());
            })?;
            if rows == most {
                end = last.into_iter().chain(end).min();
            }
        }
        let goes_on = end.is_some();
        let found = found.into_iter().filter(|key| end.as_ref().is_none_or(|end| key <= end));
        Ok((found.take(most).collect(), goes_on))
    }

    /// About how many conversations there are after one.
    pub fn count_conversations(&self, after: Option<&Owned>) -> Result<usize, Unreadable> {
        let mut count = 0;
        for query in &reading::queries(self.source)?.all {
            let args = self.args(after);
            reading::for_each_row(query, &query.count_conversations, &args, &[], Patience::OfCaller, |_, _, row| {
                count += row.value::<i64>() as usize;
            })?;
        }
        Ok(count)
    }

    fn args(&self, after: Option<&Owned>) -> [Arg; 4] {
        [
            arg(Timestamp::from(self.period.start)),
            arg(Timestamp::from(self.period.end)),
            arg(after.map(|after| after.0.as_str())),
            arg(after.map(|after| after.1.as_str())),
        ]
    }

    /// Notes the events of the rows of conversations, which must be locked; what waits in quarantine is left there.
    pub fn note(&self, connection: &Connection, keys: &[Owned]) -> Result<(), Unreadable> {
        let may_be_held = !quarantine::occupied(connection, vec![self.source.id]).is_empty();
        let (mut told, mut refused) = (Vec::new(), Vec::new());
        self.for_each_reading(keys, |_, reading| match ingest::entry(self.source, reading) {
            Some(entry) => refused.push(entry),
            None if may_be_held => told.extend(ingest::told(self.source, reading)),
            None => ingest::push(self.source, reading, Operation::Backfill),
        })?;
        note_unheld(connection, &told);
        refused.into_iter().for_each(|entry: Entry| ingest::refuse(self.source, entry));
        Ok(())
    }

    /// Gives `each` what the rows of conversations are, or those of their events that have times of their own, each
    /// with the index of its conversation.
    pub fn for_each_reading(&self, keys: &[Owned], mut each: impl FnMut(usize, &Reading)) -> Result<(), Unreadable> {
        let queries = reading::queries(self.source)?;
        let Layout::Whole { mapping, readers, .. } = &self.source.layout else { return Ok(()) };
        let latest = clock::latest();
        for (index, query) in queries.all.iter().enumerate() {
            let can_hold = |(_, key): &(usize, &Owned)| query.can_hold(&key.0, &key.1);
            let wanted = keys.iter().enumerate().filter(can_hold).map(|(index, key)| (index, self.wanted(key)));
            let wanted: Vec<(usize, WantedEvents)> = wanted.collect();
            if wanted.is_empty() {
                continue;
            }
            let possible: Vec<(usize, &WantedEvents)> = wanted.iter().map(|(index, wanted)| (*index, wanted)).collect();
            let statement = if self.is_indexed { &query.by_conversation } else { &query.of_many };
            let args = history::args(query, &possible);
            reading::for_each_row(query, statement, &args, readers, Patience::OfCaller, |ordinal, values, _| {
                let (conversation, wanted) = possible[ordinal as usize - 1];
                let (version, readings) = mapping.pick_all(values, latest);
                // The server may compare more loosely than we do.
                let same = readings.row.tenant.as_deref() == Some(wanted.tenant)
                    && readings.row.conversation.as_deref() == Some(wanted.conversation);
                if same && queries.gives(index, version) {
                    let within = readings.iter().filter(|own| own.at.is_some_and(|at| self.period.holds(at)));
                    within.for_each(|reading| each(conversation, reading));
                }
            })?;
        }
        Ok(())
    }

    fn wanted<'k>(&self, key: &'k Owned) -> WantedEvents<'k> {
        let (since, sources) = (self.period.start, vec![self.source.id]);
        WantedEvents { tenant: &key.0, conversation: &key.1, since, sources, has_marks: false, scanned: Vec::new() }
    }
}

/// Notes events but those whose rows are in quarantine.
fn note_unheld<'t>(connection: &Connection, told: &'t [Told]) {
    let name = |told: &'t Told| ((told.tenant.as_str(), told.conversation.as_str()), &told.place);
    let events: Vec<_> = told.iter().map(name).collect();
    let held = quarantine::held(connection, &events);
    let back: HashSet<usize> = held.iter().filter(|(_, held)| *held == Held::Back).map(|(index, _)| *index).collect();
    let others = told.iter().enumerate().filter(|(index, _)| !back.contains(index));
    others.for_each(|(_, told)| told.push(Operation::Backfill));
}
