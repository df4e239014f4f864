//! Which row is about to be inserted, and with which values does it go on? The call of a BEFORE INSERT trigger.

use crate::pg::error::failure;
use crate::pg::majors;
use pgrx::prelude::*;
use pgrx::trigger_support::called_as_trigger;
use std::ffi::{CStr, CString};

/// A column of the row's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowColumn {
    /// Counted from 1.
    number: i32,
    data_type: pg_sys::Oid,
    modifier: i32,
}

fn hint(name: &str) -> String {
    format!("CREATE TRIGGER ... BEFORE INSERT ON ... FOR EACH ROW EXECUTE FUNCTION talkmeter.{name}(...).")
}

/// A call of a trigger that fires before a row is inserted.
pub struct RowCall<'a> {
    data: &'a pg_sys::TriggerData,
    pub relation: &'a pg_sys::RelationData,
}

impl<'a> RowCall<'a> {
    /// The call, if the function was called so.
    ///
    /// # Safety
    /// The call information must be what the server gave, and outlive the result.
    pub unsafe fn of(call: pg_sys::FunctionCallInfo, name: &str) -> RowCall<'a> {
        // SAFETY: the context is trigger data if its tag says so, and trigger data holds a relation that is open
        // while the trigger runs.
        unsafe {
            if !called_as_trigger(call) {
                failure(
                    PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    format!("talkmeter.{name} can only be called as a trigger"),
                )
                .hint(hint(name))
                .raise();
            }
            let data = (*call).context.cast::<pg_sys::TriggerData>();
            let event = (*data).tg_event;
            let is_before_insert = event & pg_sys::TRIGGER_EVENT_ROW != 0
                && event & pg_sys::TRIGGER_EVENT_TIMINGMASK == pg_sys::TRIGGER_EVENT_BEFORE
                && event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_INSERT;
            if !is_before_insert {
                failure(
                    PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED,
                    format!("talkmeter.{name} must be fired before INSERT for each row"),
                )
                .hint(hint(name))
                .raise();
            }
            RowCall { data: &*data, relation: &*(*data).tg_relation }
        }
    }

    /// The oid of the trigger, which names its arguments.
    pub fn trigger(&self) -> pg_sys::Oid {
        // SAFETY: the trigger lives as long as the call.
        unsafe { (*self.data.tg_trigger).tgoid }
    }

    /// The trigger's name and its table's, for messages.
    pub fn names(&self) -> (String, String) {
        // SAFETY: the trigger and the open relation's row of the catalog live as long as the call.
        unsafe {
            let trigger = CStr::from_ptr((*self.data.tg_trigger).tgname).to_string_lossy().into_owned();
            (trigger, pgrx::name_data_to_str(&(*self.relation.rd_rel).relname).to_owned())
        }
    }

    /// The arguments with which the trigger was created.
    pub fn arguments(&self) -> Vec<String> {
        // SAFETY: a trigger has as many arguments, ended by zeros, as it says, and lives as long as the call.
        unsafe {
            let trigger = &*self.data.tg_trigger;
            let argument = |index| CStr::from_ptr(*trigger.tgargs.add(index)).to_string_lossy().into_owned();
            (0..trigger.tgnargs.max(0) as usize).map(argument).collect()
        }
    }

    /// Who owns the table.
    pub fn owner(&self) -> pg_sys::Oid {
        // SAFETY: an open relation has its row of the catalog.
        unsafe { (*self.relation.rd_rel).relowner }
    }

    /// The column of that name, if there is one.
    pub fn column(&self, name: &str) -> Option<RowColumn> {
        let name = CString::new(name).ok()?;
        // SAFETY: the descriptor belongs to the open relation; the number is within it if it is positive.
        unsafe {
            let number = pg_sys::SPI_fnumber(self.relation.rd_att, name.as_ptr());
            let is_own = number > 0;
            is_own.then(|| {
                let attribute = &majors::columns(self.relation.rd_att)[number as usize - 1];
                RowColumn { number, data_type: attribute.atttypid, modifier: attribute.atttypmod }
            })
        }
    }

    /// What the row holds in a column, as text; `None` if it is null.
    pub fn text(&self, column: RowColumn) -> Option<String> {
        // SAFETY: the column is one of the row's; the text is the server's copy.
        unsafe {
            let text = pg_sys::SPI_getvalue(self.data.tg_trigtuple, self.relation.rd_att, column.number);
            (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
        }
    }

    /// The row as it came.
    pub fn as_it_is(&self) -> pg_sys::Datum {
        pg_sys::Datum::from(self.data.tg_trigtuple)
    }

    /// A text as a value of a column's type. An error of the type's, or of its domain's, is raised.
    pub fn value(&self, column: RowColumn, text: &str) -> pg_sys::Datum {
        let text = CString::new(text).expect("a text of the server's");
        // SAFETY: the function is that of the column's type.
        unsafe {
            let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
            pg_sys::getTypeInputInfo(column.data_type, &mut input, &mut parameter);
            pg_sys::OidInputFunctionCall(input, text.as_ptr().cast_mut(), parameter, column.modifier)
        }
    }

    /// The row with another value in a column; null if there is none.
    pub fn with(&self, column: RowColumn, value: Option<pg_sys::Datum>) -> pg_sys::Datum {
        let (mut number, mut is_null) = (column.number, value.is_none());
        let mut value = value.unwrap_or(pg_sys::Datum::from(0usize));
        // SAFETY: the row and its descriptor are those of the call; the value is of the column's type.
        let changed = unsafe {
            pg_sys::heap_modify_tuple_by_cols(
                self.data.tg_trigtuple,
                self.relation.rd_att,
                1,
                &mut number,
                &mut value,
                &mut is_null,
            )
        };
        pg_sys::Datum::from(changed)
    }
}
