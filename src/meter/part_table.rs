//! How are conversations and their parts read from the tables, and written?

use crate::capture::entry::Key;
use crate::catalog::Catalog;
use crate::meter::folding::Folding;
use crate::pg::clock::Timestamp;
use crate::pg::error::damaged;
use crate::pg::limit::heed_cancel;
use crate::pg::sql::{Connection, OverRows, Row, arg, column, insert_rows, over_rows};
use std::collections::{BTreeSet, HashMap};
use talkmeter_engine::event::Kind;
use talkmeter_engine::fold::Conversation;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::part::{End, EndReason, Opening, Part, Reason, Verdict};

// Each look-up is a subquery with a limit, which the planner must run per conversation: left to itself it would,
// while the tables are empty, choose to read them whole, and the plan is kept.
macro_rules! part_columns {
    () => {
        "p.part, p.source_id, p.policy, p.policy_version, p.started_at, p.first_ai_reply_at, p.last_activity_at,
        p.event_count, p.message_count, p.turn_count, p.ai_replies, p.staff_replies, p.customer_waits, p.excluded,
        p.error_before_reply, p.charged_at, p.not_billable_because, p.first_event, p.last_event, p.ended_at,
        p.end_reason"
    };
}

const READ: OverRows = over_rows!(
    concat!("SELECT c.highest_part, c.last_event, COALESCE(c.last_mark, 0), c.sources, ", part_columns!(), " FROM"),
    [1 tenant text, 2 conversation text],
    "LEFT JOIN LATERAL (
        SELECT * FROM talkmeter.conversation AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation LIMIT 1
    ) AS c ON true
    LEFT JOIN LATERAL (
        SELECT * FROM talkmeter.part AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation AND own.ended_at IS NULL LIMIT 1
    ) AS p ON true
    ORDER BY wanted.ordinal"
);

/// The state of conversations, which must be locked, in their order; with the catalog as it is after the lock.
pub fn read<'a>(connection: &Connection, keys: &[Key<'a>]) -> (Catalog, Vec<Folding<'a>>) {
    let rows = connection.run_over(&READ, keys.len(), &[column(keys, |key| key.0), column(keys, |key| key.1)]);
    assert_eq!(rows.count(), keys.len(), "every conversation has one state");
    let catalog = Catalog::now();
    let folding = |(mut row, key): (Row, &Key<'a>)| {
        let highest = row.nullable().unwrap_or(0);
        let last_event = row.nullable().unwrap_or_default();
        let last_mark = row.tally();
        let sources = row.list();
        let open = row.nullable().map(|number| read_part(&catalog, &mut row, number));
        Folding { state: Conversation { highest, open }, last_event, last_mark, sources, ..Folding::new(*key) }
    };
    let conversations = rows.iter().zip(keys).map(folding).collect();
    (catalog, conversations)
}

/// A part whose number was read, the first of `part_columns`; the others follow.
fn read_part(catalog: &Catalog, row: &mut Row, number: i32) -> Part {
    let source = row.nullable();
    let (policy, version): (String, i32) = (row.value(), row.value());
    let known = catalog.policies().version(&policy, version);
    let part = Part {
        number,
        source,
        policy: known.unwrap_or_else(|| damaged(format!("a part is of policy {policy}@{version}, which is not there"))),
        started_at: row.value::<Timestamp>().bound(),
        first_ai_reply_at: time(row),
        last_activity_at: row.value::<Timestamp>().bound(),
        event_count: row.tally(),
        message_count: row.tally(),
        turn_count: row.value(),
        ai_replies: row.tally(),
        staff_replies: row.tally(),
        customer_waits: row.value(),
        excluded: row.value(),
        error_before_reply: row.value(),
        verdict: verdict(row),
        first_event: row.value(),
        last_event: row.value(),
        end: None,
    };
    let end = time(row).zip(row.nullable::<String>());
    let end = end.map(|(at, reason)| End { at, reason: end_reason(&reason) });
    Part { end, ..part }
}

fn end_reason(name: &str) -> EndReason {
    EndReason::named(name).unwrap_or_else(|| damaged(format!("a part has ended because {name}")))
}

fn time(row: &mut Row) -> Option<Instant> {
    row.nullable::<Timestamp>().map(Timestamp::bound)
}

fn verdict(row: &mut Row) -> Option<Verdict> {
    let charged_at = time(row);
    let because = row.nullable::<String>();
    // A part that was judged stays judged: a reason that this library does not know is an error, not nothing.
    let reason = because
        .map(|name| Reason::named(&name).unwrap_or_else(|| damaged(format!("a part is not billable because {name}"))));
    charged_at.map(Verdict::Billable).or(reason.map(Verdict::NotBillable))
}

// With the part that a change may concern, those after it, and one before.
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

/// A conversation, and the place from which on its parts are wanted.
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
    let mut parts: Vec<Vec<Part>> = from.iter().map(|_| Vec::new()).collect();
    for mut row in rows.iter() {
        heed_cancel();
        let of_conversation = &mut parts[row.ordinal()];
        let number = row.value();
        of_conversation.push(read_part(catalog, &mut row, number));
    }
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

const SOURCES: OverRows = over_rows!(
    "SELECT wanted.ordinal, c.sources FROM",
    [1 tenant text, 2 conversation text],
    "CROSS JOIN LATERAL (
        SELECT * FROM talkmeter.conversation AS own
        WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation LIMIT 1
    ) AS c"
);

/// The attached tables that have had events in conversations.
pub fn sources(connection: &Connection, keys: &[Key]) -> Vec<Vec<i32>> {
    let mut sources = vec![Vec::new(); keys.len()];
    let args = [column(keys, |key| key.0), column(keys, |key| key.1)];
    for mut row in connection.run_over(&SOURCES, keys.len(), &args).iter() {
        let ordinal = row.ordinal();
        sources[ordinal] = row.list();
    }
    sources
}

// The sources come as a text, because an array of arrays is none.
const WRITE_CONVERSATIONS: OverRows = over_rows!(
    "INSERT INTO talkmeter.conversation (tenant, conversation, highest_part, last_event, last_mark, sources)
    SELECT tenant, conversation, highest_part, last_event, last_mark, sources::int4[] FROM",
    [1 tenant text, 2 conversation text, 3 highest_part int4, 4 last_event bytea, 5 last_mark int8, 6 sources text],
    "ON CONFLICT (tenant, conversation) DO UPDATE
    SET highest_part = excluded.highest_part, last_event = excluded.last_event, last_mark = excluded.last_mark,
        sources = excluded.sources"
);

fn as_array(sources: &[i32]) -> String {
    let numbers: Vec<String> = sources.iter().map(i32::to_string).collect();
    format!("{{{}}}", numbers.join(","))
}

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

/// Writes the state of conversations, and their parts that have changed.
pub fn write<'a>(connection: &Connection, changed: &[&'a Folding<'a>]) {
    connection.run_over(
        &WRITE_CONVERSATIONS,
        changed.len(),
        &[
            column(changed, |folding| folding.tenant),
            column(changed, |folding| folding.id),
            column(changed, |folding| folding.state.highest),
            column(changed, |folding| folding.last_event.as_slice()),
            column(changed, |folding| folding.last_mark),
            column(changed, |folding| as_array(&folding.sources)),
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
    let rows: Vec<PartRow> = changed
        .iter()
        .flat_map(|folding| folding.written.iter().chain(&folding.state.open).map(|part| PartRow::new(folding, part)))
        .collect();
    if !rows.is_empty() {
        write_parts(connection, &rows);
    }
}

/// A part as its row holds it, with what the row does not get from the part alone.
struct PartRow<'a> {
    folding: &'a Folding<'a>,
    part: &'a Part,
    due: Option<Due>,
}

struct Due {
    at: Instant,
    end: End,
    because: Option<Reason>,
}

impl<'a> PartRow<'a> {
    fn new(folding: &'a Folding<'a>, part: &'a Part) -> PartRow<'a> {
        let due = part.timeout().map(|timeout| Due {
            at: timeout.due,
            end: timeout.end,
            because: against(part.verdict_if_ended(folding.id, timeout.end.at)),
        });
        PartRow { folding, part, due }
    }
}

fn against(verdict: Verdict) -> Option<Reason> {
    match verdict {
        Verdict::NotBillable(reason) => Some(reason),
        Verdict::Billable(_) => None,
    }
}

fn write_parts(connection: &Connection, rows: &[PartRow]) {
    let time = |time: Option<Instant>| time.map(Timestamp::from);
    connection.run_over(
        &WRITE_PARTS,
        rows.len(),
        &[
            column(rows, |row| row.folding.tenant),
            column(rows, |row| row.folding.id),
            column(rows, |row| row.part.number),
            column(rows, |row| row.part.source),
            column(rows, |row| row.part.policy.name.as_str()),
            column(rows, |row| row.part.policy.version),
            column(rows, |row| Timestamp::from(row.part.started_at)),
            column(rows, |row| time(row.part.first_ai_reply_at)),
            column(rows, |row| Timestamp::from(row.part.last_activity_at)),
            column(rows, |row| time(row.part.end.map(|end| end.at))),
            column(rows, |row| row.part.end.map(|end| end.reason.name())),
            column(rows, |row| row.part.event_count),
            column(rows, |row| row.part.message_count),
            column(rows, |row| row.part.turn_count),
            column(rows, |row| row.part.ai_replies),
            column(rows, |row| row.part.staff_replies),
            column(rows, |row| row.part.customer_waits),
            column(rows, |row| row.part.excluded),
            column(rows, |row| row.part.error_before_reply),
            column(rows, |row| time(row.part.charge_instant())),
            column(rows, |row| row.part.verdict.and_then(against).map(Reason::name)),
            column(rows, |row| row.due.is_some()),
            column(rows, |row| time(row.due.as_ref().map(|due| due.at))),
            column(rows, |row| time(row.due.as_ref().map(|due| due.end.at))),
            column(rows, |row| row.due.as_ref().map(|due| due.end.reason.name())),
            column(rows, |row| row.due.as_ref().and_then(|due| due.because).map(Reason::name)),
            column(rows, |row| row.part.first_event.as_slice()),
            column(rows, |row| row.part.last_event.as_slice()),
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
