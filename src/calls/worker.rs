//! What does the worker do in a database (rule 3.6.8)? It connects for a pass: sweeps, reconciles what is over, goes.
//!
//! Between two passes nobody is connected, so that the database can be dropped, renamed and copied.

use crate::calls::reconcile;
use crate::calls::sweep::Batches;
use crate::calls::sweepers::{self, Sweeper};
use crate::pg::clock;
use crate::pg::error::heard;
use crate::pg::process::{self, Board, Kind};
use crate::pg::rights::{as_owner, must_write};
use crate::pg::sql::connected;
use crate::pg::subtransaction::{code, message, sqlstate};
use crate::pg::tags;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use serde::{Deserialize, Serialize};
use talkmeter_engine::mapping::cut;

/// The process that makes a pass.
pub const WORKER: Kind = Kind { name: "talkmeter worker", function: "talkmeter_worker", comes_back: false };

/// What a pass is told.
#[derive(Serialize, Deserialize)]
pub struct Errand {
    pub database: u32,
    pub board: u32,
    pub page: usize,
    /// Whether it is to look for a day to reconcile too.
    pub days: bool,
}

impl Errand {
    /// Short enough for what a process can be told.
    pub fn in_words(&self) -> String {
        serde_json::to_string(self).expect("plain data")
    }

    fn told() -> Option<Errand> {
        serde_json::from_str(process::told()).ok()
    }
}

/// What came of a pass.
#[derive(Serialize, Deserialize, Default)]
pub struct Outcome {
    /// Whether the extension was there.
    pub found: bool,
    /// Why the sweep failed, if it did.
    pub sweep: Option<Trouble>,
    /// Why a day could not be reconciled.
    pub day: Option<Trouble>,
    /// What a sweep that succeeded warned of.
    pub warnings: Vec<Trouble>,
}

/// Something that the server's log should say.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trouble {
    pub code: String,
    pub message: String,
}

/// Bytes of a message, and the number of warnings, that are told.
const LONGEST: usize = 500;
const MOST: usize = 5;

impl Trouble {
    fn of(error: &CaughtError) -> Trouble {
        Trouble { code: sqlstate(code(error)), message: cut(message(error), LONGEST).to_owned() }
    }
}

impl Outcome {
    pub fn read(text: &str) -> Option<Outcome> {
        serde_json::from_str(text).ok()
    }
}

/// # Safety
/// The server calls it, in a process that [`WORKER`] describes.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn talkmeter_worker(_argument: pg_sys::Datum) {
    let Some(errand) = Errand::told() else { return };
    let Some(mut board) = Board::of(errand.board) else { return };
    process::begin_to_work(errand.database.into());
    let outcome = pass(errand.days);
    board.write(errand.page, &serde_json::to_string(&outcome).expect("plain data"));
}

/// Conversations in a transaction.
const BATCH: usize = 1_000;

fn pass(days: bool) -> Outcome {
    process::show(c"talkmeter: sweeping");
    let mut outcome = Outcome::default();
    let (swept, warnings) = heard(sweep);
    outcome.found = matches!(swept, Ok(true) | Err(_));
    if let Err(error) = swept {
        let trouble = Trouble::of(&error);
        // Where the error is that nothing can be written, this cannot be either.
        let _ = as_installed(|| as_owner(|| connected(|own| sweepers::failed(own, &trouble.code, &trouble.message))));
        // It may have failed because somebody dropped the extension meanwhile.
        outcome.found = !matches!(as_installed(|| ()), Ok(None));
        outcome.sweep = Some(trouble).filter(|_| outcome.found);
        return outcome;
    }
    let told = warnings.into_iter().take(MOST);
    outcome.warnings =
        told.map(|warning| Trouble { code: "01000".into(), message: cut(&warning, LONGEST).to_owned() }).collect();
    if days && outcome.found {
        process::show(c"talkmeter: reconciling");
        outcome.day = heard(reconcile_what_is_over).0.err().map(|error| Trouble::of(&error));
    }
    outcome
}

/// Does `work` in a transaction of its own, in which the extension stays; `None` if it is not there.
fn as_installed<R>(work: impl FnOnce() -> R) -> Result<Option<R>, Box<CaughtError>> {
    process::transaction(|| tags::hold_extension().then(work))
}

/// Sweeps, each batch in a transaction of its own; false if the extension is not there.
fn sweep() -> Result<bool, Box<CaughtError>> {
    let mut batches = Batches::new(clock::now(), BATCH, Sweeper::Worker);
    loop {
        let advanced = as_installed(|| {
            must_write("sweep");
            batches.advance()
        })?;
        match advanced {
            Some(true) => {}
            Some(false) => return Ok(true),
            None => return Ok(false),
        }
    }
}

/// Reconciles the days that are over and were not, each in a transaction of its own.
fn reconcile_what_is_over() -> Result<(), Box<CaughtError>> {
    let next = || as_owner(|| connected(reconcile::next_of_worker));
    while let Some(day) = as_installed(next)?.flatten() {
        as_installed(|| as_owner(|| connected(|connection| reconcile::by_worker(connection, day))))?;
    }
    Ok(())
}
