//! How does a batch of conversations get from its state in the tables to the next? Locked, read, folded, written.

use crate::cache;
use crate::clock::Timestamp;
use crate::entry::Key;
use crate::ledger::{Posting, Unit};
use crate::locks;
use crate::sql::{Connection, OverRows, Rows, arg, column};
use crate::{insert_rows, over_rows};
use std::collections::HashMap;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::fold::{Conversation, Effect, End, EndReason, Opening, Part};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{self, OrderKey};
use talkmeter_engine::verdict::{Reason, Verdict};

/// Conversations folded at once: enough to make the statements' own cost small, few enough to bound memory.
pub const BATCH: usize = 500;

/// A conversation on its way from one state to the next.
pub struct Folding<'a> {
    pub tenant: &'a str,
    pub id: &'a str,
    pub state: Conversation,
    /// The order key of the last event folded, or of the instant up to which time has ended its parts; empty before.
    pub last_event: Vec<u8>,
    pub last_mark: i64,
    /// Parts to be written besides the open one.
    pub written: Vec<Part>,
    /// Numbers that are used no more.
    pub retired: Vec<i32>,
    pub changed: bool,
}

/// No version of the policy was in force at the event's time, or it is a mark and no part was before it.
#[derive(Debug, PartialEq, Eq)]
pub struct UnknownPolicy;

/// The instant from which a subscription is in force, and the policy that it names.
type Pin = (Instant, Option<String>);

/// A batch of conversations that this transaction has locked.
pub struct Batch<'c, 'a> {
    pub connection: &'c Connection,
    pub conversations: Vec<Folding<'a>>,
    pub postings: Vec<Posting>,
    /// The policies that subscriptions name, read when the first part may open.
    subscribed: Option<HashMap<String, Vec<Pin>>>,
}

impl<'c, 'a> Batch<'c, 'a> {
    /// Locks the conversations, given in key order, each once, and then reads their state.
    pub fn lock(connection: &'c Connection, keys: &[Key<'a>]) -> Batch<'c, 'a> {
        locks::conversations(connection, keys);
        let rows = connection.run_over(&READ, keys.len(), &[column(keys, |key| key.0), column(keys, |key| key.1)]);
        assert_eq!(rows.count(), keys.len(), "every conversation has one state");
        let conversations = keys.iter().enumerate().map(|(row, key)| read(&rows, row, *key)).collect();
        Batch { connection, conversations, subscribed: None, postings: Vec::new() }
    }

    /// Conversations to be folded from their start and never written, so that nothing is locked.
    pub fn in_thought(connection: &'c Connection, keys: &[Key<'a>]) -> Batch<'c, 'a> {
        let conversation = |key: &Key<'a>| Folding {
            tenant: key.0,
            id: key.1,
            state: Conversation::default(),
            last_event: Vec::new(),
            last_mark: 0,
            written: Vec::new(),
            retired: Vec::new(),
            changed: false,
        };
        let conversations = keys.iter().map(conversation).collect();
        Batch { connection, conversations, postings: Vec::new(), subscribed: None }
    }

    /// Folds an event that comes after all that were folded into the conversation of that index. An event that no known
    /// policy can judge has no effect but to have been there.
    pub fn step(&mut self, index: usize, place: &[u8], event: &Event) -> Result<(), UnknownPolicy> {
        let opening = match needs_policy(&self.conversations[index].state, event) {
            true => {
                let previous = order::is_mark(place).then(|| self.previous(index)).flatten();
                self.opening(index, place, event.at, previous.as_ref())
            }
            false => None,
        };
        let folding = &mut self.conversations[index];
        let mut effects = Vec::new();
        let stepped = folding.state.step(folding.id, place, event, || opening.ok_or(UnknownPolicy), &mut effects);
        folding.last_event = place.to_vec();
        folding.changed = true;
        self.take(index, effects);
        stepped
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
        self.take(index, effects);
        true
    }

    fn take(&mut self, index: usize, effects: Vec<Effect>) {
        let folding = &mut self.conversations[index];
        for effect in effects {
            match effect {
                Effect::Charged { part, at, policy, source } => {
                    let opening = Opening { policy, source };
                    self.postings.push(Posting::Charge(unit(folding, part, at, &opening)));
                }
                Effect::Ended(part) => folding.written.push(part),
            }
        }
    }

    /// What a part opens under: the policy of the tenant's subscription if it names one, else that of the source of the
    /// opening row, and for a mark that of the part before (SPEC 3.3).
    pub fn opening(&mut self, index: usize, place: &[u8], at: Instant, previous: Option<&Opening>) -> Option<Opening> {
        if self.subscribed.is_none() {
            let tenants = self.conversations.iter().map(|folding| folding.tenant).collect::<Vec<_>>();
            self.subscribed = Some(subscribed_policies(self.connection, tenants));
        }
        let previous = previous.filter(|_| order::is_mark(place));
        let source = match order::is_mark(place) {
            true => previous.and_then(|previous| previous.source),
            false => Some(order::source_of(place)),
        };
        let of_source = source.and_then(cache::source).map(|source| source.policy.clone());
        let name = match previous {
            // The source may pin a version of the same policy.
            Some(previous) => of_source
                .filter(|name| name.split('@').next() == Some(&previous.policy.name))
                .or_else(|| Some(previous.policy.name.clone())),
            None => of_source,
        };
        let pins = self.subscribed.as_ref().and_then(|pins| pins.get(self.conversations[index].tenant));
        let subscribed = pins.and_then(|pins| pins.iter().rev().find(|(since, _)| *since <= at));
        let name = subscribed.and_then(|(_, policy)| policy.as_deref()).or(name.as_deref())?;
        Some(Opening { policy: cache::policies().in_force(name, at)?, source })
    }

    /// What the last part before opened under.
    fn previous(&self, index: usize) -> Option<Opening> {
        let folding = &self.conversations[index];
        let known = folding.state.open.as_ref().or(folding.written.last());
        match known {
            Some(part) => Some(Opening { policy: part.policy.clone(), source: part.source }),
            // What is folded in thought has no part but those that it has come to.
            None if folding.last_event.is_empty() => None,
            None => last_part(self.connection, folding.tenant, folding.id),
        }
    }

    /// Writes what has changed and hands over what is to be posted.
    pub fn write(self) -> Vec<Posting> {
        let changed: Vec<&Folding> = self.conversations.iter().filter(|folding| folding.changed).collect();
        if !changed.is_empty() {
            write(self.connection, &changed);
        }
        self.postings
    }
}

/// A billable part as it is posted.
pub fn unit(folding: &Folding, part: i32, at: Instant, opening: &Opening) -> Unit {
    Unit {
        tenant: folding.tenant.to_owned(),
        conversation: folding.id.to_owned(),
        part,
        at,
        policy: opening.policy.name.clone(),
        policy_version: opening.policy.version,
        default_plan: opening.source.and_then(cache::source).and_then(|source| source.default_plan.clone()),
        unless_standing: false,
    }
}

/// Whether the step may ask for the policy of a new part.
fn needs_policy(state: &Conversation, event: &Event) -> bool {
    match &state.open {
        None => true,
        Some(part) => part.timeout().is_some_and(|timeout| timeout.end.at <= event.at),
    }
}

const LAST_PART: &str = "
    SELECT p.policy, p.policy_version, p.source_id
    FROM talkmeter.part AS p
    WHERE p.tenant = $1 AND p.conversation = $2
    ORDER BY p.first_event DESC
    LIMIT 1";

fn last_part(connection: &Connection, tenant: &str, conversation: &str) -> Option<Opening> {
    let rows = connection.run(LAST_PART, &[arg(tenant), arg(conversation)]);
    let policy = (rows.count() > 0).then(|| cache::policies().version(&rows.value::<String>(0, 1), rows.value(0, 2)));
    Some(Opening { policy: policy.flatten()?, source: rows.get(0, 3) })
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

// Each look-up is a subquery with a limit, which the planner must run per conversation: left to itself it would, while the
// tables are empty, choose to read them whole, and the plan is kept.
macro_rules! part_columns {
    () => {
        "p.part, p.source_id, p.policy, p.policy_version, p.started_at, p.first_ai_reply_at, p.last_activity_at,
        p.event_count, p.message_count, p.turn_count, p.ai_replies, p.staff_replies, p.customer_waits, p.excluded,
        p.error_before_reply, p.charged_at, p.not_billable_because, p.first_event, p.last_event, p.ended_at, p.end_reason"
    };
}

const READ: OverRows = over_rows!(
    concat!("SELECT c.highest_part, c.last_event, c.last_mark, ", part_columns!(), " FROM"),
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
    let open = rows.get::<i32>(row, 4).map(|number| read_part(rows, row, 4, number));
    Folding {
        tenant,
        id,
        state: Conversation { highest: rows.get(row, 1).unwrap_or(0), open },
        last_event: rows.get(row, 2).unwrap_or_default(),
        last_mark: rows.get(row, 3).unwrap_or(0),
        written: Vec::new(),
        retired: Vec::new(),
        changed: false,
    }
}

/// A part whose columns, as `part_columns` names them, begin at that column of the row.
fn read_part(rows: &Rows, row: usize, first: usize, number: i32) -> Part {
    let column = |place: usize| first + place;
    let time = |place| rows.get::<Timestamp>(row, column(place)).map(Timestamp::bound);
    let policy: String = rows.value(row, column(2));
    let version = rows.value(row, column(3));
    let reason = rows.get::<String>(row, column(16)).and_then(|name| Reason::named(&name)).map(Verdict::NotBillable);
    let ended = time(19).zip(rows.get::<String>(row, column(20)));
    Part {
        number,
        source: rows.get(row, column(1)),
        first_event: rows.value(row, column(17)),
        last_event: rows.value(row, column(18)),
        policy: cache::policies()
            .version(&policy, version)
            .unwrap_or_else(|| panic!("part of unknown policy {policy}@{version}")),
        started_at: time(4).expect("a part has started"),
        first_ai_reply_at: time(5),
        last_activity_at: time(6).expect("a part has a clock"),
        end: ended.map(|(at, reason)| End { at, reason: EndReason::named(&reason).expect("a reason was written") }),
        event_count: rows.value(row, column(7)),
        message_count: rows.value(row, column(8)),
        turn_count: rows.value(row, column(9)),
        ai_replies: rows.value(row, column(10)),
        staff_replies: rows.value(row, column(11)),
        customer_waits: rows.value(row, column(12)),
        excluded: rows.value(row, column(13)),
        error_before_reply: rows.value(row, column(14)),
        verdict: time(15).map(Verdict::Billable).or(reason),
    }
}

// With the part that a change may concern, those after it, and one before.
const READ_FROM: OverRows = over_rows!(
    concat!("SELECT wanted.place, ", part_columns!(), " FROM"),
    [1 tenant text, 2 conversation text, 3 earliest bytea],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.part AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation AND own.first_event >= COALESCE((
                SELECT before.first_event FROM talkmeter.part AS before
                WHERE before.tenant = wanted.tenant AND before.conversation = wanted.conversation
                    AND before.first_event < wanted.earliest
                ORDER BY before.first_event DESC
                OFFSET 1 LIMIT 1
            ), ''::bytea)
        OFFSET 0
    ) AS p
    ORDER BY wanted.place, p.first_event"
);

/// A conversation and a place in it.
pub struct From<'a> {
    pub key: Key<'a>,
    pub place: &'a [u8],
}

/// The parts of conversations from two before each place on, in the order of time.
pub fn parts_from(connection: &Connection, from: &[From]) -> Vec<Vec<Part>> {
    let rows = connection.run_over(
        &READ_FROM,
        from.len(),
        &[column(from, |from| from.key.0), column(from, |from| from.key.1), column(from, |from| from.place)],
    );
    let mut parts: Vec<Vec<Part>> = from.iter().map(|_| Vec::new()).collect();
    for row in 0..rows.count() {
        parts[rows.value::<i64>(row, 1) as usize - 1].push(read_part(&rows, row, 2, rows.value(row, 2)));
    }
    parts
}

const WRITE_CONVERSATIONS: OverRows = insert_rows!(
    "talkmeter.conversation",
    [1 tenant text, 2 conversation text, 3 highest_part int4, 4 last_event bytea, 5 last_mark int8],
    "ON CONFLICT (tenant, conversation) DO UPDATE
    SET highest_part = excluded.highest_part, last_event = excluded.last_event, last_mark = excluded.last_mark"
);

const RETIRE: OverRows = over_rows!(
    "DELETE FROM talkmeter.part AS p USING",
    [1 tenant text, 2 conversation text, 3 part int4],
    "WHERE p.tenant = wanted.tenant AND p.conversation = wanted.conversation AND p.part = wanted.part"
);

const WRITE_PARTS: OverRows = insert_rows!(
    "talkmeter.part",
    [
        1 tenant text, 2 conversation text, 3 part int4, 4 source_id int4, 5 policy text, 6 policy_version int4,
        7 started_at timestamptz, 8 first_ai_reply_at timestamptz, 9 last_activity_at timestamptz,
        10 ended_at timestamptz, 11 end_reason text, 12 event_count int8, 13 message_count int8, 14 turn_count int4,
        15 ai_replies int8, 16 staff_replies int8, 17 customer_waits bool, 18 excluded bool,
        19 error_before_reply bool, 20 charged_at timestamptz, 21 not_billable_because text, 22 timed bool,
        23 due_at timestamptz, 24 due_end timestamptz, 25 due_reason text, 26 due_because text, 27 first_event bytea,
        28 last_event bytea
    ],
    "ON CONFLICT (tenant, conversation, part) DO UPDATE
    SET source_id = excluded.source_id, policy = excluded.policy, policy_version = excluded.policy_version,
        started_at = excluded.started_at, first_event = excluded.first_event, last_event = excluded.last_event,
        first_ai_reply_at = excluded.first_ai_reply_at, last_activity_at = excluded.last_activity_at,
        ended_at = excluded.ended_at, end_reason = excluded.end_reason, event_count = excluded.event_count,
        message_count = excluded.message_count, turn_count = excluded.turn_count, ai_replies = excluded.ai_replies,
        staff_replies = excluded.staff_replies, customer_waits = excluded.customer_waits,
        excluded = excluded.excluded, error_before_reply = excluded.error_before_reply,
        charged_at = excluded.charged_at, not_billable_because = excluded.not_billable_because,
        timed = excluded.timed, due_at = excluded.due_at, due_end = excluded.due_end,
        due_reason = excluded.due_reason, due_because = excluded.due_because"
);

fn write<'a>(connection: &Connection, changed: &[&'a Folding<'a>]) {
    connection.run_over(
        &WRITE_CONVERSATIONS,
        changed.len(),
        &[
            column(changed, |folding| folding.tenant),
            column(changed, |folding| folding.id),
            column(changed, |folding| folding.state.highest),
            column(changed, |folding| folding.last_event.as_slice()),
            column(changed, |folding| folding.last_mark),
        ],
    );
    let retired = |folding: &&'a Folding<'a>| {
        let folding = *folding;
        folding.retired.iter().map(move |part| (folding, *part))
    };
    let retired: Vec<(&Folding, i32)> = changed.iter().flat_map(retired).collect();
    if !retired.is_empty() {
        let args = [
            column(&retired, |(folding, _)| folding.tenant),
            column(&retired, |(folding, _)| folding.id),
            column(&retired, |(_, part)| *part),
        ];
        connection.run_over(&RETIRE, retired.len(), &args);
    }
    // What has ended comes before what is open: a conversation has one open part at a time, by a unique index.
    let lines: Vec<Line> = changed
        .iter()
        .flat_map(|folding| folding.written.iter().chain(&folding.state.open).map(|part| Line::new(folding, part)))
        .collect();
    if !lines.is_empty() {
        write_parts(connection, &lines);
    }
}

/// A part as its row holds it, with what the row does not get from the part alone.
struct Line<'a> {
    folding: &'a Folding<'a>,
    part: &'a Part,
    due: Option<Due>,
}

struct Due {
    at: Instant,
    end: End,
    because: Option<Reason>,
}

impl<'a> Line<'a> {
    fn new(folding: &'a Folding<'a>, part: &'a Part) -> Line<'a> {
        let due = part.timeout().map(|timeout| Due {
            at: timeout.due,
            end: timeout.end,
            because: against(part.verdict_if_ended(folding.id, timeout.end.at)),
        });
        Line { folding, part, due }
    }
}

fn against(verdict: Verdict) -> Option<Reason> {
    match verdict {
        Verdict::NotBillable(reason) => Some(reason),
        Verdict::Billable(_) => None,
    }
}

fn write_parts(connection: &Connection, lines: &[Line]) {
    let time = |time: Option<Instant>| time.map(Timestamp::from);
    connection.run_over(
        &WRITE_PARTS,
        lines.len(),
        &[
            column(lines, |line| line.folding.tenant),
            column(lines, |line| line.folding.id),
            column(lines, |line| line.part.number),
            column(lines, |line| line.part.source),
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
            column(lines, |line| time(line.part.charge_instant())),
            column(lines, |line| line.part.verdict.and_then(against).map(Reason::name)),
            column(lines, |line| line.due.is_some()),
            column(lines, |line| time(line.due.as_ref().map(|due| due.at))),
            column(lines, |line| time(line.due.as_ref().map(|due| due.end.at))),
            column(lines, |line| line.due.as_ref().map(|due| due.end.reason.name())),
            column(lines, |line| line.due.as_ref().and_then(|due| due.because).map(Reason::name)),
            column(lines, |line| line.part.first_event.as_slice()),
            column(lines, |line| line.part.last_event.as_slice()),
        ],
    );
}

const WRITE_MARKS: OverRows = insert_rows!(
    "talkmeter.marked",
    [1 tenant text, 2 conversation text, 3 mark int8, 4 kind text, 5 occurred_at timestamptz],
    ""
);

/// A mark that has got its number.
pub struct Mark<'a> {
    pub key: Key<'a>,
    pub number: i64,
    pub kind: Kind,
    pub at: Instant,
}

/// Records marks.
pub fn write_marks(connection: &Connection, marks: &[Mark]) {
    connection.run_over(
        &WRITE_MARKS,
        marks.len(),
        &[
            column(marks, |mark| mark.key.0),
            column(marks, |mark| mark.key.1),
            column(marks, |mark| mark.number),
            column(marks, |mark| mark.kind.name()),
            column(marks, |mark| Timestamp::from(mark.at)),
        ],
    );
}
