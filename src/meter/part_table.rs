//! How are conversations and their parts read from the tables, and written?

use crate::capture::entry::Key;
use crate::catalog::Catalog;
use crate::meter::folding::{Folding, Stored};
use crate::pg::clock::Timestamp;
use crate::pg::error::damaged;
use crate::pg::limit::heed_cancel;
use crate::pg::memory;
use crate::pg::own_table::types::{BOOL, BYTES, INT4, INT4S, INT8, TEXT, TIME};
use crate::pg::own_table::{Access, Index, Newest, OwnTable, Shape, with_newest};
use crate::pg::sql::{
    Arg, Connection, OverRows, Row, Rows, arg, bytes_arg, column, insert_rows, int4s_arg, over_rows, text_arg,
};
use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;
use talkmeter_engine::event::{Name, Tag};
use talkmeter_engine::fold::Conversation;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::part::{End, EndReason, Judgment, Opening, Part, Reason, Verdict, because};
use talkmeter_engine::policy::Policy;

const CONVERSATION: Shape = Shape {
    name: c"conversation",
    types: &[
        TEXT, TEXT, INT4, INT8, INT4S, BOOL, INT4, INT4, TEXT, INT4, BYTES, TIME, TIME, BOOL, BOOL, INT8, TEXT, TIME,
        TEXT, INT4, TEXT, TIME, TEXT, INT8, BOOL, TEXT, TEXT, TEXT, TIME, TIME, BOOL, INT4, INT8, INT8, INT8, INT8,
        TIME, BYTES, BYTES,
    ],
};

const CONVERSATION_KEY: Index = Index { name: c"conversation_pkey", columns: &[1, 2] };

/// Columns of a current part in a conversation's row.
const OF_CURRENT_PART: usize = 32;

const ENDED_PART: Shape = Shape {
    name: c"ended_part",
    types: &[
        TEXT, TEXT, INT4, BOOL, INT4, TEXT, INT4, BYTES, TIME, TIME, BOOL, BOOL, INT8, TEXT, TIME, TEXT, INT4, TEXT,
        TIME, TEXT, TIME, INT8, BOOL, INT4, INT8, INT8, INT8, INT8, TIME, BYTES,
    ],
};

const ENDED_PART_KEY: Index = Index { name: c"ended_part_pkey", columns: &[1, 2, 3] };

const ARCHIVED_PART: Shape = Shape { name: c"talkmeter_archive.ended_part", ..ENDED_PART };

const ARCHIVED_PART_KEY: Index = Index { name: c"talkmeter_archive.ended_part_pkey", columns: &[1, 2, 3] };

/// The columns of a part from its number on, in the order of the table.
macro_rules! part_columns {
    () => {
        "p.part, p.charged_before, p.source_id, p.policy, p.policy_version, p.first_event, p.started_at,
        p.first_ai_reply_at, p.excluded, p.error_before_reply, p.seen, p.opening_tag, p.charged_at,
        p.not_billable_because, p.rule, p.outcome, p.ended_at, p.end_reason, p.final_at, p.held_count, p.customer_waits,
        p.turn_count, p.ai_replies, p.staff_replies, p.event_count, p.message_count, p.last_activity_at, p.last_event"
    };
}

/// The tables of conversations and parts, open for a work that writes what it has read.
pub struct Tables {
    conversations: OwnTable,
    /// Opened when the first part ends.
    ended: Option<OwnTable>,
}

impl Tables {
    pub fn open() -> Tables {
        Tables { conversations: OwnTable::open(&CONVERSATION, Access::Writing), ended: None }
    }

    /// The state of conversations, in their order. If they are locked, the catalog must be as it is after that.
    pub fn read<'a>(&self, catalog: &Catalog, keys: &[Key<'a>]) -> Vec<Folding<'a>> {
        let folding = |newest: &Newest, key: &Key<'a>| {
            heed_cancel();
            read_folding(&self.conversations, newest, catalog, *key)
        };
        with_newest(|newest| memory::collected(keys.iter().map(|key| folding(newest, key))))
    }

    /// Writes the state of conversations, and their parts that have changed. False if somebody else has changed one
    /// since it was read, which can only be if it was not locked: then what was written must be taken back.
    #[must_use]
    pub fn write(&mut self, connection: &Connection, changed: &[&Folding]) -> bool {
        let is_written = |newest: &Newest| changed.iter().all(|folding| self.write_conversation(newest, folding));
        if !with_newest(is_written) {
            return false;
        }
        retire(connection, changed);
        if changed.iter().any(|folding| folding.written.iter().any(Part::is_final)) {
            with_newest(|newest| {
                for folding in changed {
                    heed_cancel();
                    let finals = folding.written.iter().filter(|part| part.is_final());
                    finals.for_each(|part| self.write_ended(newest, folding, part));
                }
            });
        }
        true
    }

    fn write_conversation(&mut self, newest: &Newest, folding: &Folding) -> bool {
        let values = conversation_values(folding);
        match folding.stored.place {
            Some(place) => self.conversations.update_unless_changed(newest, place, &values),
            None => {
                self.conversations.insert(newest, &values);
                true
            }
        }
    }

    fn write_ended(&mut self, newest: &Newest, folding: &Folding, part: &Part) {
        let values = ended_values(folding, part);
        let ended = self.ended.get_or_insert_with(|| OwnTable::open(&ENDED_PART, Access::Writing));
        let stored = &folding.stored;
        // No part of a number above the highest is there, and what was current is final for the first time.
        let is_new = part.number > stored.highest || stored.current == Some(part.number);
        let known = if is_new { None } else { ended.find(newest, &ENDED_PART_KEY, &values[..3], |_| ()) };
        match known {
            Some((place, ())) => ended.update(newest, place, &values),
            None => ended.insert(newest, &values),
        }
    }
}

fn read_folding<'a>(table: &OwnTable, newest: &Newest, catalog: &Catalog, key: Key<'a>) -> Folding<'a> {
    let wanted = [text_arg(key.0), text_arg(key.1)];
    let state = table.find(newest, &CONVERSATION_KEY, &wanted, |row| folding(catalog, key, row));
    let Some((place, read)) = state else { return Folding::new(key) };
    let current = read.state.current.as_ref().map(|part| part.number);
    let stored = Stored { place: Some(place), current, highest: read.state.highest };
    Folding { stored, ..read }
}

/// What the row of a conversation says.
fn folding<'a>(catalog: &Catalog, key: Key<'a>, row: &mut Row) -> Folding<'a> {
    row.skip(2);
    let (highest, last_mark, several) = (row.value(), row.tally(), row.int4s());
    let charged_before = row.nullable().unwrap_or_default();
    let (current, last_event) = read_current(catalog, charged_before, row);
    let sources = several.unwrap_or_else(|| source_of(current.as_ref()));
    let state = Conversation { highest, charged_before, current };
    Folding { last_mark, sources, last_event, state, ..Folding::new(key) }
}

/// The current part of a conversation, of which the next column is its number, and the last event of the conversation.
fn read_current(catalog: &Catalog, charged_before: bool, row: &mut Row) -> (Option<Part>, Vec<u8>) {
    let Some(number) = row.nullable() else {
        row.skip(OF_CURRENT_PART as i32 - 1);
        return (None, row.value());
    };
    let opened = Opened::read(catalog, charged_before, row);
    let ended = Ended { end: end(row), final_at: None, held_count: row.nullable().unwrap_or_default() };
    const TIMED_AND_DUE: i32 = 6;
    row.skip(TIMED_AND_DUE);
    let counted = Counted::read(row);
    let of_part: Option<Vec<u8>> = row.nullable();
    let last_event: Vec<u8> = row.value();
    let part = opened.part(number, ended, counted, of_part.unwrap_or_else(|| last_event.clone()));
    (Some(part), last_event)
}

/// A part, of which the next column is the first of `part_columns`.
fn read_part(catalog: &Catalog, row: &mut Row) -> Part {
    let (number, charged_before) = (row.value(), row.nullable().unwrap_or_default());
    let opened = Opened::read(catalog, charged_before, row);
    let ended = Ended { end: end(row), final_at: time(row), held_count: row.nullable().unwrap_or_default() };
    let counted = Counted::read(row);
    let last_event = row.value();
    opened.part(number, ended, counted, last_event)
}

fn end(row: &mut Row) -> Option<End> {
    let at = time(row);
    at.zip(row.nullable::<String>()).map(|(at, reason)| End { at, reason: end_reason(&reason) })
}

/// The columns of a part that tell of its end and after.
struct Ended {
    end: Option<End>,
    final_at: Option<Instant>,
    held_count: i64,
}

/// The columns of a part from its source to its verdict.
struct Opened {
    charged_before: bool,
    source: Option<i32>,
    policy: Arc<Policy>,
    first_event: Vec<u8>,
    started_at: Instant,
    first_ai_reply_at: Option<Instant>,
    excluded: bool,
    error_before_reply: bool,
    seen: u64,
    opening_tag: Option<Tag>,
    judgment: Option<Judgment>,
}

impl Opened {
    fn read(catalog: &Catalog, charged_before: bool, row: &mut Row) -> Opened {
        let source = row.nullable();
        let (policy, version): (String, i32) = (row.value(), row.value());
        let known = catalog.policies().version(&policy, version);
        let missing = || damaged(format!("a part is of policy {policy}@{version}, which is not there"));
        Opened {
            charged_before,
            source,
            policy: known.unwrap_or_else(missing),
            first_event: row.value(),
            started_at: row.value::<Timestamp>().bound(),
            first_ai_reply_at: time(row),
            excluded: row.value(),
            error_before_reply: row.value(),
            seen: row.nullable::<i64>().unwrap_or_default() as u64,
            opening_tag: row.nullable::<String>().map(Tag::from),
            judgment: judgment(row),
        }
    }

    fn part(self, number: i32, ended: Ended, counted: Counted, last_event: Vec<u8>) -> Part {
        let Opened { source, policy, first_event, started_at, first_ai_reply_at, seen, opening_tag, .. } = self;
        let Ended { end, final_at, held_count } = ended;
        let judged = self.judgment.map(|judgment| (judgment.verdict, judgment.rule, judgment.outcome));
        let (verdict, rule, outcome) =
            judged.map_or((None, None, None), |(verdict, rule, outcome)| (Some(verdict), rule, outcome));
        let Counted { customer_waits, turn_count, ai_replies, staff_replies, .. } = counted;
        Part {
            number,
            source,
            policy,
            first_event,
            started_at,
            first_ai_reply_at,
            excluded: self.excluded,
            error_before_reply: self.error_before_reply,
            charged_before: self.charged_before,
            seen,
            opening_tag,
            verdict,
            rule,
            outcome,
            end,
            final_at,
            held_count,
            customer_waits,
            turn_count,
            ai_replies,
            staff_replies,
            event_count: counted.event_count,
            message_count: counted.message_count,
            last_activity_at: counted.last_activity_at,
            last_event,
        }
    }
}

/// The columns of a part that change with each message.
struct Counted {
    customer_waits: bool,
    turn_count: i32,
    ai_replies: i64,
    staff_replies: i64,
    event_count: i64,
    message_count: i64,
    last_activity_at: Instant,
}

impl Counted {
    fn read(row: &mut Row) -> Counted {
        Counted {
            customer_waits: row.value(),
            turn_count: row.value(),
            ai_replies: row.tally(),
            staff_replies: row.tally(),
            event_count: row.tally(),
            message_count: row.tally(),
            last_activity_at: row.value::<Timestamp>().bound(),
        }
    }
}

fn end_reason(name: &str) -> EndReason {
    EndReason::named(name).unwrap_or_else(|| damaged(format!("a part has ended because {name}")))
}

fn time(row: &mut Row) -> Option<Instant> {
    row.nullable::<Timestamp>().map(Timestamp::bound)
}

fn judgment(row: &mut Row) -> Option<Judgment> {
    let charged_at = time(row);
    let because = row.nullable::<String>();
    let rule = row.nullable();
    let outcome = row.nullable::<String>().map(Arc::from);
    // A part that was judged stays judged: a reason that this library does not know is an error, not nothing.
    let reason = |name: String| match outcome {
        Some(_) => Reason::Outcome,
        None => Reason::named(&name).unwrap_or_else(|| damaged(format!("a part is not billable because {name}"))),
    };
    let verdict = charged_at.map(Verdict::Billable).or(because.map(reason).map(Verdict::NotBillable));
    verdict.map(|verdict| Judgment { verdict, rule, outcome })
}

// With the part that a change may concern, those after it, and one before. Each look-up is a subquery that the planner
// must run per conversation: left to itself it would, while the tables are empty, choose to read them whole, and the
// plan is kept.
const READ_FROM: OverRows = over_rows!(
    concat!("SELECT wanted.ordinal, ", part_columns!(), " FROM"),
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
    ORDER BY wanted.ordinal, p.first_event"
);

/// What there is of a conversation.
#[derive(Default)]
pub struct Metered {
    /// All parts, in the order of time.
    pub parts: Vec<Part>,
    /// The attached tables that have had events in it.
    pub sources: Vec<i32>,
    /// Whether any mark was made in it.
    pub has_marks: bool,
}

/// What there is of conversations, in their order, with what was moved to the archive. A report asks this of all
/// conversations that there are: to run statements for each would take longer than to fold it anew.
pub fn metered(catalog: &Catalog, keys: &[Key]) -> Vec<Metered> {
    let conversations = OwnTable::open(&CONVERSATION, Access::Reading);
    let ended = [(&ENDED_PART, &ENDED_PART_KEY), (&ARCHIVED_PART, &ARCHIVED_PART_KEY)]
        .map(|(shape, index)| (OwnTable::open_unless_empty(shape), index));
    let wanted = || keys.iter().map(|key| [text_arg(key.0), text_arg(key.1)]);
    let mut all: Vec<Metered> = keys.iter().map(|_| Metered::default()).collect();
    with_newest(|newest| {
        conversations.look_up(newest, &CONVERSATION_KEY, wanted(), |number, row| {
            heed_cancel();
            let Folding { state, sources, last_mark, .. } = folding(catalog, keys[number], row);
            all[number] = Metered { parts: state.current.into_iter().collect(), sources, has_marks: last_mark > 0 };
            ControlFlow::Break(())
        });
        for (table, index) in &ended {
            let Some(table) = table else { continue };
            table.look_up(newest, index, wanted(), |number, row| {
                heed_cancel();
                row.skip(2);
                all[number].parts.push(read_part(catalog, row));
                ControlFlow::Continue(())
            });
        }
    });
    all.iter_mut().for_each(|own| own.parts.sort_unstable_by(|a, b| a.first_event.cmp(&b.first_event)));
    all
}

/// The attached tables that have had events in a conversation.
pub fn sources(catalog: &Catalog, key: Key) -> Vec<i32> {
    let conversations = OwnTable::open(&CONVERSATION, Access::Reading);
    with_newest(|newest| read_folding(&conversations, newest, catalog, key).sources)
}

/// A conversation, and the place from which on its parts are wanted.
#[derive(Clone, Copy)]
pub struct FromPlace<'a> {
    pub key: Key<'a>,
    pub place: &'a [u8],
}

/// The parts of conversations from two before each place on, in the order of time.
pub fn parts_from(connection: &Connection, catalog: &Catalog, from: &[FromPlace]) -> Vec<Vec<Part>> {
    let rows = connection.run_over(
        &READ_FROM,
        from.len(),
        &[column(from, |from| from.key.0), column(from, |from| from.key.1), column(from, |from| from.place)],
    );
    read_parts(catalog, from.len(), &rows)
}

fn read_parts(catalog: &Catalog, count: usize, rows: &Rows) -> Vec<Vec<Part>> {
    let mut parts: Vec<Vec<Part>> = (0..count).map(|_| Vec::new()).collect();
    rows.for_each(|row| {
        heed_cancel();
        let of_conversation = &mut parts[row.ordinal()];
        of_conversation.push(read_part(catalog, row));
    });
    parts
}

const LAST_PART: &str = "
    SELECT p.policy, p.policy_version, p.source_id
    FROM talkmeter.part AS p
    WHERE p.tenant = $1 AND p.conversation = $2
    ORDER BY p.first_event DESC
    LIMIT 1";

/// What the last part of a conversation opened under.
pub fn last_opening(connection: &Connection, catalog: &Catalog, (tenant, conversation): Key) -> Option<Opening> {
    let rows = connection.run(LAST_PART, &[arg(tenant), arg(conversation)]);
    let mut row = rows.first()?;
    let policy = catalog.policies().version(&row.value::<String>(), row.value())?;
    Some(Opening { policy, source: row.nullable() })
}

const RETIRE: OverRows = over_rows!(
    "DELETE FROM ONLY talkmeter.ended_part AS p USING",
    [1 tenant text, 2 conversation text, 3 part int4],
    "WHERE p.tenant = wanted.tenant AND p.conversation = wanted.conversation AND p.part = wanted.part"
);

/// Deletes the rows of parts that are no more, and of those that are not final any more.
fn retire(connection: &Connection, changed: &[&Folding]) {
    let mut retired: Vec<(&Folding, i32)> = Vec::new();
    for folding in changed {
        let reopened = folding.written.iter().filter(|part| !part.is_final() && part.number <= folding.stored.highest);
        let numbers = folding.retired.iter().copied().chain(reopened.map(|part| part.number));
        retired.extend(numbers.filter(|part| folding.stored.current != Some(*part)).map(|part| (*folding, part)));
    }
    if retired.is_empty() {
        return;
    }
    let args = [
        column(&retired, |(folding, _)| folding.tenant),
        column(&retired, |(folding, _)| folding.id),
        column(&retired, |(_, part)| *part),
    ];
    connection.run_over(&RETIRE, retired.len(), &args);
}

fn time_arg(time: Option<Instant>) -> Arg {
    arg(time.map(Timestamp::from))
}

/// The row of a conversation.
fn conversation_values(folding: &Folding) -> Vec<Arg> {
    let mut values = Vec::with_capacity(CONVERSATION.types.len());
    values.extend_from_slice(&[
        text_arg(folding.tenant),
        text_arg(folding.id),
        arg(folding.state.highest),
        arg(folding.last_mark),
        sources_arg(folding),
        unless_false(folding.state.charged_before),
    ]);
    match &folding.state.current {
        Some(part) => {
            let of_part = (part.last_event != folding.last_event).then_some(part.last_event.as_slice());
            values.push(arg(part.number));
            values.extend_from_slice(&opened_values(part));
            values.extend_from_slice(&end_values(part));
            values.push(unless_zero(part.held_count));
            values.extend_from_slice(&due_values(folding.id, part));
            values.extend_from_slice(&counted_values(part));
            values.push(arg(of_part));
        }
        None => {
            let of_part = &CONVERSATION.types[values.len()..][..OF_CURRENT_PART];
            values.extend(of_part.iter().map(|oid| Arg::of(*oid, None)));
            values[TIMED] = arg(false);
        }
    }
    values.push(bytes_arg(folding.last_event.as_slice()));
    values
}

/// The list of sources; null where it is no other than that of the current part, as in nearly all conversations.
fn sources_arg(folding: &Folding) -> Arg {
    let is_of_part = folding.sources == source_of(folding.state.current.as_ref());
    int4s_arg((!is_of_part).then_some(folding.sources.as_slice()))
}

fn source_of(current: Option<&Part>) -> Vec<i32> {
    current.and_then(|part| part.source).into_iter().collect()
}

/// The index, among the columns of a conversation, of the one that says whether time alone changes its current part.
const TIMED: usize = 24;

/// Whether time alone will change a part that is not final, how it would end, and when.
fn due_values(conversation: &str, part: &Part) -> [Arg; 6] {
    let timeout = part.timeout();
    let judgment = timeout.as_ref().map(|timeout| part.judgment_if_ended(conversation, timeout.end.at));
    let outcome = judgment.as_ref().and_then(|judgment| judgment.outcome.as_deref());
    let because = judgment.as_ref().and_then(|judgment| because(judgment.verdict, outcome));
    let reason = timeout.as_ref().map(|timeout| timeout.end.reason.name());
    let due = timeout.as_ref().map(|timeout| timeout.due).or_else(|| part.final_due());
    [
        arg(due.is_some()),
        arg(reason.as_deref()),
        arg(because),
        arg(outcome),
        time_arg(due),
        time_arg(timeout.as_ref().map(|timeout| timeout.end.at)),
    ]
}

/// The row of a part that is final.
fn ended_values(folding: &Folding, part: &Part) -> Vec<Arg> {
    let mut values = Vec::with_capacity(ENDED_PART.types.len());
    let key = [text_arg(folding.tenant), text_arg(folding.id), arg(part.number), unless_false(part.charged_before)];
    values.extend_from_slice(&key);
    values.extend_from_slice(&opened_values(part));
    values.extend_from_slice(&end_values(part));
    values.extend_from_slice(&[time_arg(part.final_at), unless_zero(part.held_count)]);
    values.extend_from_slice(&counted_values(part));
    values.push(bytes_arg(part.last_event.as_slice()));
    values
}

/// What is false of most takes no room.
fn unless_false(is_so: bool) -> Arg {
    arg(Some(true).filter(|_| is_so))
}

fn unless_zero(count: i64) -> Arg {
    arg(Some(count).filter(|count| *count != 0))
}

fn end_values(part: &Part) -> [Arg; 2] {
    let reason = part.end.as_ref().map(|end| end.reason.name());
    [time_arg(part.end.as_ref().map(|end| end.at)), arg(reason.as_deref())]
}

/// From the source of a part to its verdict.
fn opened_values(part: &Part) -> [Arg; 14] {
    [
        arg(part.source),
        text_arg(part.policy.name.as_str()),
        arg(part.policy.version),
        bytes_arg(part.first_event.as_slice()),
        time_arg(Some(part.started_at)),
        time_arg(part.first_ai_reply_at),
        arg(part.excluded),
        arg(part.error_before_reply),
        arg(Some(part.seen as i64).filter(|seen| *seen != 0)),
        arg(part.opening_tag.as_deref()),
        time_arg(part.charge_instant()),
        arg(part.not_billable_because()),
        arg(part.rule),
        arg(part.outcome.as_deref()),
    ]
}

fn counted_values(part: &Part) -> [Arg; 7] {
    [
        arg(part.customer_waits),
        arg(part.turn_count),
        arg(part.ai_replies),
        arg(part.staff_replies),
        arg(part.event_count),
        arg(part.message_count),
        time_arg(Some(part.last_activity_at)),
    ]
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
    pub name: Name,
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
            column(marks, |mark| mark.name.to_string()),
            column(marks, |mark| Timestamp::from(mark.at)),
        ],
    );
}

const PARTS_AS_THEY_ARE: OverRows = over_rows!(
    "SELECT wanted.ordinal, p.part, pg_catalog.md5(p.*::text) FROM",
    [1 tenant text, 2 conversation text],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.part AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation
        OFFSET 0
    ) AS p"
);

const ENTRIES: OverRows = over_rows!(
    "SELECT count(*) FROM",
    [1 tenant text, 2 conversation text],
    "CROSS JOIN LATERAL (
        SELECT FROM talkmeter.charge AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation
        OFFSET 0
    ) AS c"
);

/// What there is of some conversations, to see later what has changed.
#[derive(Default)]
pub struct Footprint {
    /// By conversation and number.
    parts: HashMap<(usize, i32), String>,
    /// Entries of the ledger.
    entries: i64,
}

impl Footprint {
    pub fn of(connection: &Connection, keys: &BTreeSet<(String, String)>) -> Footprint {
        /// Conversations looked up together.
        const TOGETHER: usize = 1_000;
        let mut footprint = Footprint::default();
        let keys: Vec<&(String, String)> = keys.iter().collect();
        for (batch, keys) in keys.chunks(TOGETHER).enumerate() {
            heed_cancel();
            let args = || [column(keys, |key| key.0.as_str()), column(keys, |key| key.1.as_str())];
            for mut row in connection.run_over(&PARTS_AS_THEY_ARE, keys.len(), &args()).iter() {
                let conversation = batch * TOGETHER + row.ordinal();
                footprint.parts.insert((conversation, row.value()), row.value());
            }
            footprint.entries += connection.run_over(&ENTRIES, keys.len(), &args()).only().value::<i64>();
        }
        footprint
    }

    /// How many parts are new, gone or changed in the later one, and how many entries the ledger has more.
    pub fn differs(&self, later: &Footprint) -> [i64; 2] {
        let is_same = |(part, was): (&(usize, i32), &String)| later.parts.get(part) == Some(was);
        let same = self.parts.iter().filter(|part| is_same(*part)).count();
        let parts = self.parts.len() + later.parts.keys().filter(|part| !self.parts.contains_key(part)).count() - same;
        [parts as i64, later.entries - self.entries]
    }
}
