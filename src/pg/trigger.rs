//! Was a function called as the trigger that it is, and on which table?
//!
//! Triggers are written out rather than with pgrx's macro, which would turn every misuse into an internal error.

use crate::pg::error::{Failure, failure};
use crate::pg::majors;
use pgrx::prelude::*;
use pgrx::trigger_support::called_as_trigger;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ffi::CStr;

thread_local! {
    /// Tables of which this session was told why their rows are not metered.
    static WARNED: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
}

/// One of our triggers: what it may be fired by.
pub struct Trigger {
    name: &'static str,
    event: u32,
    verb: &'static str,
    old_table: bool,
    new_table: bool,
    attached_by: &'static str,
}

const fn trigger(name: &'static str, event: u32, verb: &'static str, tables: (bool, bool)) -> Trigger {
    Trigger { name, event, verb, old_table: tables.0, new_table: tables.1, attached_by: "attach" }
}

pub const INSERT: Trigger = trigger("on_insert", pg_sys::TRIGGER_EVENT_INSERT, "INSERT", (false, true));
pub const UPDATE: Trigger = trigger("on_update", pg_sys::TRIGGER_EVENT_UPDATE, "UPDATE", (true, true));
pub const DELETE: Trigger = trigger("on_delete", pg_sys::TRIGGER_EVENT_DELETE, "DELETE", (true, false));
pub const TRUNCATE: Trigger = trigger("on_truncate", pg_sys::TRIGGER_EVENT_TRUNCATE, "TRUNCATE", (false, false));
pub const STATUS_INSERT: Trigger = Trigger { name: "on_status_insert", attached_by: "attach_status", ..INSERT };
pub const STATUS_UPDATE: Trigger = Trigger { name: "on_status_update", attached_by: "attach_status", ..UPDATE };

impl Trigger {
    fn misfired(&self, wants_row: bool) -> ! {
        let how = match (wants_row, self.old_table, self.new_table) {
            (true, ..) => "for each row",
            (_, false, false) => "for each statement",
            (_, false, true) => "for each statement, with a new transition table",
            (_, true, false) => "for each statement, with an old transition table",
            (_, true, true) => "for each statement, with an old and a new transition table",
        };
        failure(
            PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
            format!("talkmeter.{} must be fired after {} {how}", self.name, self.verb),
        )
        .hint(format!("Let talkmeter.{} create the trigger.", self.attached_by))
        .raise()
    }
}

/// A call of a trigger.
pub struct Call<'a> {
    pub data: &'a pg_sys::TriggerData,
    pub relation: &'a pg_sys::RelationData,
    trigger: &'a Trigger,
}

impl<'a> Call<'a> {
    /// The call, if it is one of that trigger.
    ///
    /// # Safety
    /// The call information must be what the server gave, and outlive the result.
    pub unsafe fn of(call: pg_sys::FunctionCallInfo, trigger: &'a Trigger) -> Call<'a> {
        // SAFETY: the context is trigger data if its tag says so, and trigger data holds a relation that is open
        // while the trigger runs.
        let (data, relation) = unsafe {
            if !called_as_trigger(call) {
                failure(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("talkmeter.{} can only be called as a trigger", trigger.name),
                )
                .hint(format!("Let talkmeter.{} create the trigger.", trigger.attached_by))
                .raise();
            }
            let data = &*(*call).context.cast::<pg_sys::TriggerData>();
            (data, &*data.tg_relation)
        };
        let by_row = is_by_row(data);
        let after = data.tg_event & pg_sys::TRIGGER_EVENT_TIMINGMASK == 0;
        let by_event = data.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == trigger.event;
        // A row brings what it was and what it is; that a table was truncated no row tells.
        let is_told = match by_row {
            true => trigger.event != pg_sys::TRIGGER_EVENT_TRUNCATE && trigger.attached_by == "attach",
            false => {
                let lacks = |wanted: bool, table: *mut pg_sys::Tuplestorestate| wanted && table.is_null();
                !lacks(trigger.old_table, data.tg_oldtable) && !lacks(trigger.new_table, data.tg_newtable)
            }
        };
        if !after || !by_event || !is_told {
            trigger.misfired(false);
        }
        Call { data, relation, trigger }
    }

    /// Whether it was fired for a single row.
    pub fn is_by_row(&self) -> bool {
        is_by_row(self.data)
    }

    /// Refuses a trigger that fires otherwise than those of its table do: beside them it would note all twice.
    pub fn must_be_by_row(&self, by_row: bool) {
        if self.trigger.event != pg_sys::TRIGGER_EVENT_TRUNCATE && self.is_by_row() != by_row {
            self.trigger.misfired(by_row);
        }
    }

    /// Whether the UPDATE may have changed one of these columns. A trigger of the application's before ours may
    /// change any.
    pub fn may_have_changed(&self, columns: Option<Vec<i16>>) -> bool {
        let Some(columns) = columns else { return true };
        // SAFETY: the relation is open, and the set of columns lives as long as the trigger call.
        unsafe {
            let triggers = self.relation.trigdesc;
            let is_partitioned = (*self.relation.rd_rel).relkind == pg_sys::RELKIND_PARTITIONED_TABLE as i8;
            if is_partitioned || triggers.is_null() || (*triggers).trig_update_before_row {
                return true;
            }
            let named = |number: &i16| {
                let member = i32::from(*number) - pg_sys::FirstLowInvalidHeapAttributeNumber;
                pg_sys::bms_is_member(member, self.data.tg_updatedcols)
            };
            columns.iter().any(named)
        }
    }

    /// Whether a dump is being restored, and says so once per session and table. Its rows were metered where they were
    /// dumped. Only who may disable the triggers can say so by settings.
    pub fn restores(&self) -> bool {
        // SAFETY: reads variables of this session's, and a look-up in the server's cache of the catalog.
        let restores = unsafe {
            !pg_sys::check_function_bodies
                && matches!(CStr::from_ptr(pg_sys::namespace_search_path).to_bytes(), b"" | b"\"\"")
                && majors::owns(pg_sys::GetUserId(), self.relation.rd_id)
        };
        if restores {
            self.warn(|name| {
                failure(PgSqlErrorCode::ERRCODE_WARNING, format!("rows of \"{name}\" are restored and not metered"))
                    .detail(
                        "search_path is empty and check_function_bodies is off, as pg_dump and pg_restore set them.",
                    )
                    .hint("If they are to be metered, insert them with other settings.")
            });
        }
        restores
    }

    /// Whether a statement on the table may change rows of tables that inherit from it and are no partitions: they come
    /// with its own, and nothing tells them apart.
    pub fn may_have_children(&self) -> bool {
        // SAFETY: an open relation has its row of the catalog.
        let relation = unsafe { &*self.relation.rd_rel };
        relation.relhassubclass && relation.relkind == pg_sys::RELKIND_RELATION as i8
    }

    /// Says, once per session and table, that a trigger is on a table that is not attached: the schema was restored
    /// without talkmeter's own rows, or somebody put it there. The application's statement goes on.
    pub fn warn_not_attached(&self) {
        self.warn(|name| {
            failure(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("table \"{name}\" is not attached to talkmeter"),
            )
            .detail("A trigger of talkmeter's is on it all the same; its rows are not metered.")
            .hint(format!("Attach the table with talkmeter.{}, or drop the trigger.", self.trigger.attached_by))
        });
    }

    fn warn(&self, why: impl FnOnce(&str) -> Failure) {
        if WARNED.with_borrow_mut(|warned| warned.insert(self.relation.rd_id)) {
            // SAFETY: an open relation has its row of the catalog.
            why(pgrx::name_data_to_str(unsafe { &(*self.relation.rd_rel).relname })).warn();
        }
    }
}

/// Whether a trigger was fired for a single row, and not for a statement.
pub fn is_by_row(data: &pg_sys::TriggerData) -> bool {
    data.tg_event & pg_sys::TRIGGER_EVENT_ROW != 0
}

/// Tells the server that triggers follow version 1 of its calling convention.
macro_rules! version_1 {
    ($($name:ident),+) => {$(
        #[unsafe(no_mangle)]
        pub extern "C" fn $name() -> &'static pg_sys::Pg_finfo_record {
            &pg_sys::Pg_finfo_record { api_version: 1 }
        }
    )+};
}
pub(crate) use version_1;
