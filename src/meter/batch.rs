//! How does a batch of conversations get from its state in the tables to the next? Locked, read, folded, written.

use crate::billing::posting::{Awaits, Cause, Posting, Settle, Unit, Why};
use crate::billing::subscription_rows::{Pin, pins};
use crate::capture::entry::Key;
use crate::catalog::Catalog;
use crate::meter::folding::Folding;
use crate::meter::part_table::{self, Tables};
use crate::pg::locks::{self, Conversations};
use crate::pg::sql::Connection;
use std::collections::HashMap;
use talkmeter_engine::event::Event;
use talkmeter_engine::fold::Effect;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, OrderKey};
use talkmeter_engine::part::{Opener, Opening, Part, UnknownPolicy};

/// Conversations folded at once: enough to make the statements' own cost small, few enough to bound memory.
pub const BATCH: usize = 500;

/// A batch of conversations on their way from one state to the next.
pub struct Batch<'c, 'a> {
    pub connection: &'c Connection,
    pub catalog: Catalog,
    pub conversations: Vec<Folding<'a>>,
    pub postings: Vec<Posting>,
    /// Of a batch that may be written.
    tables: Option<Tables>,
    is_locked: bool,
    /// The policies that subscriptions name, read when the first part may open.
    subscribed: Option<HashMap<String, Vec<Pin>>>,
}

impl<'c, 'a> Batch<'c, 'a> {
    /// Locks the conversations, given in key order, each once, and then reads their state.
    pub fn lock(connection: &'c Connection, locks: &mut Conversations, keys: &[Key<'a>]) -> Batch<'c, 'a> {
        locks.lock(connection, keys);
        Batch { is_locked: true, ..Batch::unlocked(connection, keys) }
    }

    /// As [`Batch::lock`], of those of the conversations that nobody else has locked; all must have parts.
    pub fn lock_free(connection: &'c Connection, locks: &mut Conversations, keys: &[Key<'a>]) -> Batch<'c, 'a> {
        let free: Vec<Key<'a>> = locks.lock_free(connection, keys).into_iter().map(|index| keys[index]).collect();
        Batch { is_locked: true, ..Batch::unlocked(connection, &free) }
    }

    /// The conversations, given in key order, each once, as they are; whether nobody has changed them is known when
    /// they are written. They may only go on: what is folded again must be locked.
    pub fn unlocked(connection: &'c Connection, keys: &[Key<'a>]) -> Batch<'c, 'a> {
        let catalog = Catalog::now();
        let tables = Tables::open();
        let conversations = tables.read(&catalog, keys);
        let (postings, tables) = (Vec::new(), Some(tables));
        Batch { connection, catalog, conversations, postings, tables, is_locked: false, subscribed: None }
    }

    /// Conversations to be folded from their start and never written, so that nothing is locked.
    pub fn dry(connection: &'c Connection, keys: &[Key<'a>]) -> Batch<'c, 'a> {
        let conversations = keys.iter().map(|key| Folding::new(*key)).collect();
        let catalog = Catalog::now();
        let (postings, tables) = (Vec::new(), None);
        Batch { connection, catalog, conversations, postings, tables, is_locked: false, subscribed: None }
    }

    /// Folds an event that comes after all that were folded into the conversation of that index. An event that no known
    /// policy can judge has no effect but to have been there.
    pub fn step(&mut self, index: usize, place: &[u8], event: &Event) -> Result<(), UnknownPolicy> {
        let previous = order::is_mark(place).then(|| self.previous(index)).flatten();
        let id = self.conversations[index].id;
        // Taken out, so that the batch can be asked for an opening meanwhile.
        let mut state = std::mem::take(&mut self.conversations[index].state);
        let mut effects = Vec::new();
        let opener = || self.opening(index, (place, event), previous.as_ref(), None);
        let stepped = state.step(id, place, event, opener, &mut effects);
        let folding = &mut self.conversations[index];
        folding.state = state;
        folding.last_event.clear();
        folding.last_event.extend_from_slice(place);
        folding.changed = true;
        folding.saw(place);
        self.take(index, effects);
        stepped
    }

    /// Lets time pass in the conversation of that index until `now`, and says whether it ended a part.
    pub fn pass_time(&mut self, index: usize, now: Instant) -> bool {
        let folding = &mut self.conversations[index];
        let had_ended = folding.state.current.as_ref().is_none_or(|part| part.end.is_some());
        let mut effects = Vec::new();
        let Some(due) = folding.state.pass_time(folding.id, now, &mut effects) else { return false };
        // An event before this instant would have continued the part that has now ended, or counted in the one that is
        // final.
        let floor = OrderKey::floor(due);
        if folding.last_event.as_slice() < floor.as_slice() {
            folding.last_event = floor.to_vec();
        }
        folding.changed = true;
        self.take(index, effects);
        !had_ended
    }

    /// Takes over what an event, or time, has done.
    fn take(&mut self, index: usize, effects: Vec<Effect>) {
        let folding = &mut self.conversations[index];
        for effect in effects {
            match effect {
                Effect::Charged { part, at, outcome, policy, source } => {
                    let opening = Opening { policy, source };
                    let unit = unit(&self.catalog, folding, (part, outcome.as_deref()), at, &opening);
                    self.postings.push(Posting::Charge(unit));
                }
                Effect::Voided { part, by } => {
                    let key = (folding.tenant, folding.id, part);
                    self.postings.extend(Settle::of(key, None, Why::Voided, Some(Cause::at_place(&by))));
                }
                Effect::Final(part) => folding.written.push(*part),
            }
        }
    }

    /// What a part opens under: the policy of the tenant's subscription if it names one, else that of the source of the
    /// opening row, and for a mark that of the part before (rule 3.3.7). A mark of which none of these speaks opens
    /// nothing, unless a source's policy says that its kind opens parts (rule 2.8.6).
    pub fn opening(
        &mut self,
        index: usize,
        (place, event): (&[u8], &Event),
        previous: Option<&Opening>,
        stored: Option<&Part>,
    ) -> Opener {
        if self.subscribed.is_none() {
            let mut tenants = self.conversations.iter().map(|folding| folding.tenant).collect::<Vec<_>>();
            tenants.dedup();
            if self.tables.is_some() {
                // The ledger may write it later.
                locks::for_writing(&[c"subscription"]);
            }
            self.subscribed = Some(pins(&tenants));
        }
        let previous = previous.filter(|_| order::is_mark(place));
        let source = match order::is_mark(place) {
            true => previous.and_then(|previous| previous.source),
            false => Some(order::source_of(place)),
        };
        let of_source =
            source.and_then(|id| self.catalog.source(id)).map(|source| source.policy_at(event.at).to_owned());
        let name = match previous {
            // The source may pin a version of the same policy.
            Some(previous) => of_source
                .filter(|name| name.split('@').next() == Some(&previous.policy.name))
                .or_else(|| Some(previous.policy.name.clone())),
            None => of_source,
        };
        let pins = self.subscribed.as_ref().and_then(|pins| pins.get(self.conversations[index].tenant));
        let subscribed = pins.and_then(|pins| pins.iter().rev().find(|(since, _)| *since <= event.at));
        let Some(name) = subscribed.and_then(|(_, policy)| policy.as_deref()).or(name.as_deref()) else {
            return if self.some_source_opens_on(event) { Err(UnknownPolicy) } else { Ok(None) };
        };
        let policies = self.catalog.policies();
        // Under another source its policy may have been pinned, or another.
        let stored = stored.filter(|part| part.source == source);
        let kept = stored.and_then(|part| policies.kept(name, event.at, &part.policy));
        let policy = kept.or_else(|| policies.in_force(name, event.at)).ok_or(UnknownPolicy)?;
        Ok(Some(Opening { policy, source }))
    }

    fn some_source_opens_on(&self, event: &Event) -> bool {
        let policies = self.catalog.policies();
        self.catalog.attached().iter().any(|source| policies.opens_on(source.policy(), event))
    }

    /// What the last part before opened under.
    fn previous(&self, index: usize) -> Option<Opening> {
        let folding = &self.conversations[index];
        let known = folding.state.current.as_ref().or(folding.written.last());
        match known {
            Some(part) => Some(Opening { policy: part.policy.clone(), source: part.source }),
            // Nothing was folded before: the parts that this fold has made are all that there are.
            None if folding.last_event.is_empty() => None,
            None => part_table::last_opening(self.connection, &self.catalog, (folding.tenant, folding.id)),
        }
    }

    /// Writes what has changed and hands over what is to be posted. Gives up if somebody else has changed a
    /// conversation that was not locked, or the catalog, since they were read.
    pub fn write(mut self) -> Vec<Posting> {
        let changed: Vec<&Folding> = self.conversations.iter().filter(|folding| folding.changed).collect();
        if let Some(tables) = self.tables.as_mut().filter(|_| !changed.is_empty()) {
            let is_written = tables.write(self.connection, &changed);
            if !is_written || !self.is_locked && !self.catalog.is_current() {
                locks::lost_race();
            }
        }
        self.postings
    }
}

/// A billable part of that number and outcome, as it is posted.
pub fn unit(
    catalog: &Catalog,
    folding: &Folding,
    (part, outcome): (i32, Option<&str>),
    at: Instant,
    opening: &Opening,
) -> Unit {
    let source = opening.source.and_then(|id| catalog.source(id));
    Unit {
        tenant: folding.tenant.to_owned(),
        conversation: folding.id.to_owned(),
        part,
        at,
        policy: opening.policy.name.clone(),
        policy_version: opening.policy.version,
        outcome: outcome.map(str::to_owned),
        awaits: source.as_ref().filter(|source| source.holds_back(at)).map(|source| Awaits { source: source.id, at }),
        default_plan: source.and_then(|source| source.default_plan.clone()),
        unless_standing: false,
    }
}
