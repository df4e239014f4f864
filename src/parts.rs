//! How does a batch of conversations get from its state in the tables to the next? Locked, read, folded, written.

use crate::cache::{self, Source};
use crate::clock::Timestamp;
use crate::ledger::Unit;
use crate::locks;
use crate::sql::{Connection, OverRows, Rows, column};
use crate::{insert_rows, over_rows};
use std::collections::HashMap;
use std::sync::Arc;
use talkmeter_engine::event::Event;
use talkmeter_engine::fold::{Conversation, Effect, End, Part};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::OrderKey;
use talkmeter_engine::policy::Policy;
use talkmeter_engine::verdict::{Reason, Verdict};

/// Conversations folded at once: enough to make the statements' own cost small, few enough to bound memory.
pub const BATCH: usize = 500;

/// The key of a conversation.
pub type Key<'a> = (&'a str, &'a str);

/// A conversation on its way from one state to the next.
struct Folding<'a> {
    tenant: &'a str,
    id: &'a str,
    state: Conversation,
    /// The order key of the last event folded; empty before the first.
    last_event: Vec<u8>,
    /// The source of the row that opened the open part.
    opened_by: Option<i32>,
    /// Parts that ended, with the source that opened each.
    ended: Vec<(Part, Option<i32>)>,
    changed: bool,
}

/// Why an event was not folded.
pub enum Refused {
    Late,
    UnknownPolicy,
}

/// The instant from which a subscription is in force, and the policy that it names.
type Pin = (Instant, Option<String>);

/// A batch of conversations that this transaction has locked.
pub struct Batch<'c, 'a> {
    connection: &'c Connection,
    conversations: Vec<Folding<'a>>,
    /// The policies that subscriptions name, read when the first part may open.
    subscribed: Option<HashMap<String, Vec<Pin>>>,
    units: Vec<Unit>,
}

impl<'c, 'a> Batch<'c, 'a> {
    /// Locks the conversations, given in key order, each once, and then reads their state.
    pub fn lock(connection: &'c Connection, keys: &[Key<'a>]) -> Batch<'c, 'a> {
        locks::conversations(connection, keys);
        let rows = connection.run_over(&READ, keys.len(), &[column(keys, |key| key.0), column(keys, |key| key.1)]);
        assert_eq!(rows.count(), keys.len(), "every conversation has one state");
        let conversations = keys.iter().enumerate().map(|(row, key)| read(&rows, row, *key)).collect();
        Batch { connection, conversations, subscribed: None, units: Vec::new() }
    }

    /// Folds an event into the conversation of that index. A refused event has changed nothing.
    pub fn step(&mut self, index: usize, order: &[u8], event: Event, source: &Source) -> Result<(), Refused> {
        if order <= self.conversations[index].last_event.as_slice() {
            return Err(Refused::Late);
        }
        if self.subscribed.is_none() && needs_policy(&self.conversations[index].state, &event) {
            let tenants = self.conversations.iter().map(|folding| folding.tenant).collect::<Vec<_>>();
            self.subscribed = Some(subscribed_policies(self.connection, tenants));
        }
        let folding = &mut self.conversations[index];
        let pins = self.subscribed.as_ref().and_then(|pins| pins.get(folding.tenant));
        let opener = || policy_at(pins, event.at, source).ok_or(Refused::UnknownPolicy);
        let mut effects = Vec::new();
        let highest = folding.state.highest;
        folding.state.step(folding.id, &event, opener, &mut effects)?;
        folding.last_event = order.to_vec();
        folding.changed = true;
        let opened = (folding.state.highest > highest).then_some(source);
        self.take(index, effects, opened);
        Ok(())
    }

    /// Ends the open part of the conversation of that index if time alone has ended it, and says whether it did.
    pub fn pass_time(&mut self, index: usize, now: Instant) -> bool {
        let folding = &mut self.conversations[index];
        let due = folding.state.open.as_ref().and_then(Part::timeout).map(|timeout| timeout.due);
        let mut effects = Vec::new();
        if !folding.state.pass_time(folding.id, now, &mut effects) {
            return false;
        }
        if let Some(due) = due {
            // An event of before this instant would have gone on with the part that now has ended.
            let floor = OrderKey::floor(due);
            if folding.last_event.as_slice() < floor.as_slice() {
                folding.last_event = floor.to_vec();
            }
        }
        folding.changed = true;
        self.take(index, effects, None);
        true
    }

    fn take(&mut self, index: usize, effects: Vec<Effect>, opened: Option<&Source>) {
        let folding = &mut self.conversations[index];
        let before = folding.opened_by;
        if let Some(source) = opened {
            folding.opened_by = Some(source.id);
        }
        // The newest part was opened by this event's source; one before it, by its own.
        let (newest, opened_by) = (folding.state.highest, folding.opened_by);
        let source_of = |part: i32| if part == newest { opened_by } else { before };
        for effect in effects {
            match effect {
                Effect::Charged { part, at, policy } => {
                    let source = source_of(part);
                    self.units.push(Unit {
                        tenant: folding.tenant.to_owned(),
                        conversation: folding.id.to_owned(),
                        part,
                        at,
                        policy: policy.name.clone(),
                        policy_version: policy.version,
                        default_plan: source.and_then(cache::source).and_then(|source| source.default_plan.clone()),
                    });
                }
                Effect::Ended(part) => {
                    let source = source_of(part.number);
                    folding.ended.push((part, source));
                }
            }
        }
    }

    /// Writes what has changed and hands over the billable units.
    pub fn write(self) -> Vec<Unit> {
        let changed: Vec<&Folding> = self.conversations.iter().filter(|folding| folding.changed).collect();
        if !changed.is_empty() {
            write(self.connection, &changed);
        }
        self.units
    }
}

/// Whether the step may ask for the policy of a new part.
fn needs_policy(state: &Conversation, event: &Event) -> bool {
    match &state.open {
        None => true,
        Some(part) => part.timeout().is_some_and(|timeout| timeout.end.at <= event.at),
    }
}

const SUBSCRIBED_POLICIES: OverRows = over_rows!(
    "SELECT s.tenant, s.since, s.policy FROM",
    [1 tenant text],
    "CROSS JOIN LATERAL (SELECT * FROM talkmeter.subscription AS own WHERE own.tenant = wanted.tenant OFFSET 0) AS s
    ORDER BY s.tenant, s.subscription_id"
);

fn subscribed_policies(connection: &Connection, mut tenants: Vec<&str>) -> HashMap<String, Vec<Pin>> {
    tenants.dedup();
    let rows = connection.run_over(&SUBSCRIBED_POLICIES, tenants.len(), &[column(&tenants, |tenant| *tenant)]);
    let mut pins: HashMap<String, Vec<Pin>> = HashMap::new();
    for row in 0..rows.count() {
        let since = rows.value::<Timestamp>(row, 2).bound();
        pins.entry(rows.value(row, 1)).or_default().push((since, rows.get(row, 3)));
    }
    pins
}

/// The policy under which a part opens: that of the tenant's subscription if it names one, else the source's (SPEC 3.3).
fn policy_at(pins: Option<&Vec<Pin>>, at: Instant, source: &Source) -> Option<Arc<Policy>> {
    let subscribed = pins.and_then(|pins| pins.iter().rev().find(|(since, _)| *since <= at));
    let name = subscribed.and_then(|(_, policy)| policy.as_deref()).unwrap_or(&source.policy);
    cache::policies().in_force(name, at)
}

// Each look-up is a subquery with a limit, which the planner must run per conversation: left to itself it would, while the
// tables are empty, choose to read them whole, and the plan is kept.
const READ: OverRows = over_rows!(
    "SELECT c.highest_part, c.last_event, p.part, p.source_id, p.policy, p.policy_version, p.started_at,
        p.first_ai_reply_at, p.last_activity_at, p.event_count, p.message_count, p.turn_count, p.ai_replies,
        p.staff_replies, p.customer_waits, p.excluded, p.error_before_reply, p.charged_at, p.not_billable_because
    FROM",
    [1 tenant text, 2 conversation text],
    "LEFT JOIN LATERAL (
        SELECT * FROM talkmeter.conversation AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation LIMIT 1
    ) AS c ON true
    LEFT JOIN LATERAL (
        SELECT * FROM talkmeter.part AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation AND own.ended_at IS NULL LIMIT 1
    ) AS p ON true
    ORDER BY wanted.place"
);

fn read<'a>(rows: &Rows, row: usize, (tenant, id): Key<'a>) -> Folding<'a> {
    let open = rows.get::<i32>(row, 3).map(|number| read_part(rows, row, number));
    Folding {
        tenant,
        id,
        state: Conversation { highest: rows.get(row, 1).unwrap_or(0), open },
        last_event: rows.get(row, 2).unwrap_or_default(),
        opened_by: rows.get(row, 4),
        ended: Vec::new(),
        changed: false,
    }
}

fn read_part(rows: &Rows, row: usize, number: i32) -> Part {
    let time = |column| rows.get::<Timestamp>(row, column).map(Timestamp::bound);
    let policy: String = rows.value(row, 5);
    let version = rows.value(row, 6);
    let reason = rows.get::<String>(row, 19).and_then(|name| Reason::named(&name)).map(Verdict::NotBillable);
    Part {
        number,
        policy: cache::policies()
            .version(&policy, version)
            .unwrap_or_else(|| panic!("part of unknown policy {policy}@{version}")),
        started_at: time(7).expect("a part has started"),
        first_ai_reply_at: time(8),
        last_activity_at: time(9).expect("a part has a clock"),
        end: None,
        event_count: rows.value(row, 10),
        message_count: rows.value(row, 11),
        turn_count: rows.value(row, 12),
        ai_replies: rows.value(row, 13),
        staff_replies: rows.value(row, 14),
        customer_waits: rows.value(row, 15),
        excluded: rows.value(row, 16),
        error_before_reply: rows.value(row, 17),
        verdict: time(18).map(Verdict::Billable).or(reason),
    }
}

const WRITE_CONVERSATIONS: OverRows = insert_rows!(
    "talkmeter.conversation",
    [1 tenant text, 2 conversation text, 3 highest_part int4, 4 last_event bytea],
    "ON CONFLICT (tenant, conversation) DO UPDATE
    SET highest_part = excluded.highest_part, last_event = excluded.last_event"
);

const WRITE_PARTS: OverRows = insert_rows!(
    "talkmeter.part",
    [
        1 tenant text, 2 conversation text, 3 part int4, 4 source_id int4, 5 policy text, 6 policy_version int4,
        7 started_at timestamptz, 8 first_ai_reply_at timestamptz, 9 last_activity_at timestamptz,
        10 ended_at timestamptz, 11 end_reason text, 12 event_count int8, 13 message_count int8, 14 turn_count int4,
        15 ai_replies int8, 16 staff_replies int8, 17 customer_waits bool, 18 excluded bool,
        19 error_before_reply bool, 20 charged_at timestamptz, 21 not_billable_because text, 22 timed bool,
        23 due_at timestamptz, 24 due_end timestamptz, 25 due_reason text, 26 due_because text
    ],
    "ON CONFLICT (tenant, conversation, part) DO UPDATE
    SET first_ai_reply_at = excluded.first_ai_reply_at, last_activity_at = excluded.last_activity_at,
        ended_at = excluded.ended_at, end_reason = excluded.end_reason, event_count = excluded.event_count,
        message_count = excluded.message_count, turn_count = excluded.turn_count, ai_replies = excluded.ai_replies,
        staff_replies = excluded.staff_replies, customer_waits = excluded.customer_waits,
        excluded = excluded.excluded, error_before_reply = excluded.error_before_reply,
        charged_at = excluded.charged_at, not_billable_because = excluded.not_billable_because,
        timed = excluded.timed, due_at = excluded.due_at, due_end = excluded.due_end,
        due_reason = excluded.due_reason, due_because = excluded.due_because"
);

fn write(connection: &Connection, changed: &[&Folding]) {
    connection.run_over(
        &WRITE_CONVERSATIONS,
        changed.len(),
        &[
            column(changed, |folding| folding.tenant),
            column(changed, |folding| folding.id),
            column(changed, |folding| folding.state.highest),
            column(changed, |folding| folding.last_event.as_slice()),
        ],
    );
    // What has ended comes before what is open: a conversation has one open part at a time, by a unique index.
    let lines: Vec<Line> = changed
        .iter()
        .flat_map(|folding| {
            let ended = folding.ended.iter().map(|(part, source)| (part, *source));
            let open = folding.state.open.iter().map(|part| (part, folding.opened_by));
            ended.chain(open).map(|(part, source)| Line::new(folding, part, source))
        })
        .collect();
    if !lines.is_empty() {
        write_parts(connection, &lines);
    }
}

/// A part as its row holds it, with what the row does not get from the part alone.
struct Line<'a> {
    folding: &'a Folding<'a>,
    part: &'a Part,
    source: Option<i32>,
    due: Option<Due>,
}

struct Due {
    at: Instant,
    end: End,
    because: Option<Reason>,
}

impl<'a> Line<'a> {
    fn new(folding: &'a Folding<'a>, part: &'a Part, source: Option<i32>) -> Line<'a> {
        let due = part.timeout().map(|timeout| Due {
            at: timeout.due,
            end: timeout.end,
            because: against(part.verdict_if_ended(folding.id, timeout.end.at)),
        });
        Line { folding, part, source, due }
    }
}

fn against(verdict: Verdict) -> Option<Reason> {
    match verdict {
        Verdict::NotBillable(reason) => Some(reason),
        Verdict::Billable(_) => None,
    }
}

fn write_parts(connection: &Connection, lines: &[Line]) {
    let charged_at = |part: &Part| match part.verdict {
        Some(Verdict::Billable(at)) => Some(Timestamp::from(at)),
        _ => None,
    };
    let time = |time: Option<Instant>| time.map(Timestamp::from);
    connection.run_over(
        &WRITE_PARTS,
        lines.len(),
        &[
            column(lines, |line| line.folding.tenant),
            column(lines, |line| line.folding.id),
            column(lines, |line| line.part.number),
            column(lines, |line| line.source),
            column(lines, |line| line.part.policy.name.as_str()),
            column(lines, |line| line.part.policy.version),
            column(lines, |line| Timestamp::from(line.part.started_at)),
            column(lines, |line| time(line.part.first_ai_reply_at)),
            column(lines, |line| Timestamp::from(line.part.last_activity_at)),
            column(lines, |line| time(line.part.end.map(|end| end.at))),
            column(lines, |line| line.part.end.map(|end| end.reason.name())),
            column(lines, |line| line.part.event_count),
            column(lines, |line| line.part.message_count),
            column(lines, |line| line.part.turn_count),
            column(lines, |line| line.part.ai_replies),
            column(lines, |line| line.part.staff_replies),
            column(lines, |line| line.part.customer_waits),
            column(lines, |line| line.part.excluded),
            column(lines, |line| line.part.error_before_reply),
            column(lines, |line| charged_at(line.part)),
            column(lines, |line| line.part.verdict.and_then(against).map(Reason::name)),
            column(lines, |line| line.due.is_some()),
            column(lines, |line| time(line.due.as_ref().map(|due| due.at))),
            column(lines, |line| time(line.due.as_ref().map(|due| due.end.at))),
            column(lines, |line| line.due.as_ref().map(|due| due.end.reason.name())),
            column(lines, |line| line.due.as_ref().and_then(|due| due.because).map(Reason::name)),
        ],
    );
}
