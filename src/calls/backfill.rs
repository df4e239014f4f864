//! How does what was never counted come to be metered (rule 2.13)?

use crate::billing::{post, uncharged};
use crate::calls::backfill_run::{self, Run, Stage};
use crate::calls::sweep::{self, Locked};
use crate::calls::{attach, retry};
use crate::catalog::args::required;
use crate::catalog::away::Away;
use crate::catalog::reading::{self, Unreadable};
use crate::catalog::sources::{self, Layout, Source};
use crate::meter::commit;
use crate::meter::span::{Owned, Span};
use crate::pg::clock::{self, Timestamp};
use crate::pg::error::{damaged, failure};
use crate::pg::locks::Conversations;
use crate::pg::own_table;
use crate::pg::procedure;
use crate::pg::progress::Progress;
use crate::pg::relation::{self, Relation};
use crate::pg::rights::{as_owner, must_write};
use crate::pg::sql::{Connection, connected};
use crate::pg::trigger;
use crate::pg::turn::Turn;
use crate::pg::writers;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::prelude::*;
use std::collections::VecDeque;
use std::rc::Rc;
use talkmeter_engine::period::Period;

/// Meters the rows of a span of time that were never counted, and commits as it goes.
///
/// # Safety
/// The server calls it, with the call information that it gives to a procedure.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn backfill(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's; `sql/66-backfill.sql` declares the arguments.
    let (source, from, to, charges, batch) = unsafe {
        (
            pgrx::pg_getarg(call, 0),
            pgrx::pg_getarg::<TimestampWithTimeZone>(call, 1),
            pgrx::pg_getarg::<TimestampWithTimeZone>(call, 2),
            pgrx::pg_getarg(call, 3),
            pgrx::pg_getarg::<i32>(call, 4),
        )
    };
    let source: pg_sys::Oid = required(source, "source");
    let asked = span(required(from, "from_time"), required(to, "to_time"));
    let (charges, batch) = (required(charges, "charge"), required(batch, "batch"));
    if batch < 1 {
        failure(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "\"batch\" is less than 1")
            .hint("Give the number of conversations after which it commits.")
            .raise();
    }
    must_write("backfill");
    attach::metering_is_on();
    let relation = attach::owned_table(source);
    let relation = (source, relation);
    let mut backfill: Option<Backfill> = None;
    let piece = || {
        let begin = |connection: &Connection| {
            let begun = Backfill::begin(connection, &relation, asked, charges, batch as usize);
            // Who begins to move a tenant asks for backfills first.
            Away::by_now().nobody_moves();
            begun
        };
        backfill.get_or_insert_with(|| as_owner(|| connected(begin))).go_on()
    };
    // SAFETY: the same; nothing that a piece of the work takes from the server outlives it.
    unsafe { procedure::in_pieces(call, "backfill", piece) };
    if let Some(Backfill { turn, .. }) = backfill {
        turn.end();
    }
    pg_sys::Datum::from(0usize)
}

trigger::version_1!(pg_finfo_backfill);

/// The span that the arguments ask for, as far as it has passed.
fn span(from: TimestampWithTimeZone, to: TimestampWithTimeZone) -> Period {
    let (start, end) = (Timestamp::from(from).bound(), Timestamp::from(to).bound().min(clock::now()));
    if start >= end {
        failure(
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            "from \"from_time\" to \"to_time\" is no span of time that has passed",
        )
        .hint("Give an earlier from_time, for example '-infinity', and a later to_time.")
        .raise();
    }
    Period { start, end }
}

/// What is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Begin,
    /// Whoever has written by what was known before the begin.
    WaitForWriters,
    Retry,
    Count,
    Post,
    /// Whoever has worked by what was known before the closing.
    WaitForWorks,
    PostRest,
    End,
}

/// A backfill on its way.
struct Backfill {
    turn: Turn,
    table: String,
    members: Vec<pg_sys::Oid>,
    /// What is still to be done after the present run.
    asked: Vec<Period>,
    charges: bool,
    batch: usize,
    is_indexed: bool,
    run: Run,
    next: Next,
    listed: VecDeque<Owned>,
    /// There may be more than are listed.
    lists_on: bool,
    /// The tenant whose units were charged last.
    tenant: Option<String>,
    progress: Option<Progress>,
}

/// Conversations that are listed at once: the table is read once for so many.
const LISTED: usize = 50_000;

/// Units that are charged before it commits.
const POSTED: usize = 5_000;

impl Backfill {
    fn begin(
        connection: &Connection,
        (relation, facts): &(pg_sys::Oid, Relation),
        asked: Period,
        charges: bool,
        batch: usize,
    ) -> Backfill {
        let source = attach::attached_source(connection, *relation, facts);
        let turn = Turn::take(c"backfill_run", source.id).unwrap_or_else(|| {
            failure(
                PgSqlErrorCode::ERRCODE_OBJECT_IN_USE,
                format!("table {} is being backfilled by another session", facts.name),
            )
            .hint("See talkmeter.progress. When it has ended, what is left can be backfilled.")
            .raise()
        });
        let run = backfill_run::under_way(connection, source.id);
        if let Some(run) = run.as_ref().filter(|run| run.charges && !charges) {
            interrupted(&facts.name, run);
        }
        let none =
            Run { source: source.id, span: asked, charges, stage: Stage::Counting, after: None, conversations: 0 };
        Backfill {
            turn,
            table: facts.name.clone(),
            members: facts.member_oids.clone(),
            asked: vec![asked],
            charges,
            batch,
            is_indexed: is_indexed(connection, &source),
            next: if run.is_some() { Next::WaitForWriters } else { Next::Begin },
            run: run.unwrap_or(none),
            listed: VecDeque::new(),
            lists_on: true,
            tenant: None,
            progress: None,
        }
    }

    /// Does the next piece, and says whether there is another.
    fn go_on(&mut self) -> bool {
        if let Some(progress) = &self.progress {
            progress.again();
        }
        self.next = match self.next {
            Next::Begin => as_owner(|| connected(|connection| self.begin_run(connection))),
            Next::WaitForWriters => {
                as_owner(|| writers::wait_for(&self.members));
                self.after_wait()
            }
            Next::Retry => self.retry(),
            Next::Count => as_owner(|| connected(|connection| self.count(connection))),
            Next::Post | Next::PostRest => as_owner(|| connected(|connection| self.post(connection))),
            Next::WaitForWorks => {
                as_owner(|| writers::wait_for(&[own_table::oid(c"conversation")]));
                if self.run.charges { Next::PostRest } else { Next::End }
            }
            Next::End => {
                as_owner(|| connected(|connection| backfill_run::end(connection, &self.run)));
                self.asked = self.rest();
                Next::Begin
            }
        };
        self.next != Next::Begin || !self.asked.is_empty()
    }

    fn begin_run(&mut self, connection: &Connection) -> Next {
        let (source, span, charges) = (self.run.source, self.asked[0], self.charges);
        self.run = Run { source, span, charges, stage: Stage::Counting, after: None, conversations: 0 };
        (self.lists_on, self.tenant, self.progress) = (true, None, None);
        backfill_run::begin(connection, &self.table, &self.run);
        Next::WaitForWriters
    }

    /// What was asked for, and is not within the run that has ended.
    fn rest(&self) -> Vec<Period> {
        let Run { span, charges, .. } = self.run;
        if charges != self.charges {
            return self.asked.clone();
        }
        let sides = |asked: &Period| {
            [
                Period { start: asked.start, end: asked.end.min(span.start) },
                Period { start: asked.start.max(span.end), end: asked.end },
            ]
        };
        self.asked.iter().flat_map(sides).filter(|side| side.start < side.end).collect()
    }

    fn after_wait(&self) -> Next {
        match self.run.stage {
            Stage::Counting => Next::Retry,
            Stage::Posting => Next::Post,
            Stage::Closing => Next::WaitForWorks,
        }
    }

    /// What waits in quarantine of the table comes first: nothing that is counted may wait there too.
    fn retry(&self) -> Next {
        uncharged::counting(self.run.source, self.run.span, || {
            retry::of_source(self.run.source);
            commit::work_or_fail();
        });
        Next::Count
    }

    /// Counts the next conversations.
    fn count(&mut self, connection: &Connection) -> Next {
        reading::begin();
        let source = self.source();
        let span = Span { source: &source, period: self.run.span, is_indexed: self.is_indexed };
        if self.listed.is_empty() && self.lists_on {
            self.list(&span).unwrap_or_else(|unreadable| unreadable.raise());
        }
        let keys: Vec<Owned> = self.listed.drain(..self.batch.min(self.listed.len())).collect();
        if keys.is_empty() {
            return self.counted(connection);
        }
        // Those of a tenant that has left are counted where it is now.
        let here = Away::by_now().without(&keys);
        let borrowed: Vec<_> = here.iter().map(|(tenant, id)| (tenant.as_str(), id.as_str())).collect();
        // Before their rows are read: whoever changes one has told by then, or tells after it was counted.
        Conversations::begin().lock(connection, &borrowed);
        span.note(connection, &here).unwrap_or_else(|unreadable| unreadable.raise());
        uncharged::counting(self.run.source, self.run.span, || {
            commit::work_or_fail();
            sweep::pass_time(here.clone(), clock::now(), false, Locked::IsWaitedFor);
        });
        self.run.conversations += keys.len();
        self.run.after = keys.last().cloned();
        backfill_run::counted(connection, &self.run);
        self.advance(keys.len());
        Next::Count
    }

    fn list(&mut self, span: &Span) -> Result<(), Unreadable> {
        let (listed, lists_on) = span.next_conversations(self.run.after.as_ref(), LISTED)?;
        if self.progress.is_none() {
            let left = if lists_on { span.count_conversations(self.run.after.as_ref())? } else { listed.len() };
            self.progress = Some(Progress::begin("backfill", "conversations", self.run.conversations + left));
            self.advance(self.run.conversations);
        }
        (self.listed, self.lists_on) = (listed.into(), lists_on);
        Ok(())
    }

    fn counted(&mut self, connection: &Connection) -> Next {
        self.progress = None;
        self.run.stage = if self.run.charges { Stage::Posting } else { Stage::Closing };
        backfill_run::go_on(connection, &self.run);
        self.after_wait()
    }

    /// Charges the next units, tenant by tenant, each in the order of its instants.
    fn post(&mut self, connection: &Connection) -> Next {
        let Run { source, span, .. } = self.run;
        if self.progress.is_none() {
            let waiting = uncharged::count(connection, source, span);
            self.progress = Some(Progress::begin("backfill", "units", waiting));
        }
        let mut posted = 0;
        while posted < POSTED {
            let tenant = match &self.tenant {
                Some(tenant) if uncharged::is_awaited(connection, source, span, tenant) => Some(tenant.clone()),
                after => uncharged::next_tenant(connection, source, span, after.as_deref()),
            };
            self.tenant = tenant;
            let Some(tenant) = &self.tenant else { return self.posted(connection) };
            posted += post::post_uncharged(connection, source, span, tenant);
        }
        self.advance(posted);
        self.next
    }

    fn posted(&mut self, connection: &Connection) -> Next {
        (self.tenant, self.progress) = (None, None);
        if self.next == Next::PostRest {
            return Next::End;
        }
        self.run.stage = Stage::Closing;
        backfill_run::go_on(connection, &self.run);
        Next::WaitForWorks
    }

    fn advance(&mut self, by: usize) {
        self.progress.iter_mut().for_each(|progress| progress.advance(by));
    }

    fn source(&self) -> Rc<Source> {
        sources::source(self.run.source).unwrap_or_else(|| damaged(format!("source {} is gone", self.run.source)))
    }
}

fn interrupted(table: &str, run: &Run) -> ! {
    failure(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("a backfill of table {table} that charges was interrupted"),
    )
    .detail("Some of its units may be charged already.")
    .hint(format!("Finish it first: {}", backfill_run::call(table, run.span, true)))
    .raise()
}

/// A span of a source, with how its rows are found.
pub fn span_of<'s>(connection: &Connection, source: &'s Source, period: Period) -> Span<'s> {
    Span { source, period, is_indexed: is_indexed(connection, source) }
}

fn is_indexed(connection: &Connection, source: &Source) -> bool {
    let Layout::Whole { mapping, .. } = &source.layout else { return false };
    let columns = relation::columns(source.relation);
    attach::is_indexed(connection, source.relation, mapping.newest(), &columns)
}
