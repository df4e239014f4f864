//! How does a function answer with the rows of a query, however many they are?

use crate::pg::limit::heed_cancel;
use crate::pg::sql::{Arg, Connection};
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

/// Rows fetched at a time.
const FETCHED: i64 = 1_000;

/// What a function that returns a set has answered so far.
pub struct Answer {
    rows: *mut pg_sys::Tuplestorestate,
    types: pg_sys::TupleDesc,
}

impl Answer {
    /// An answer without a row yet.
    ///
    /// # Safety
    /// The call information must be what the server gave to a function that returns a set of rows, and outlive the
    /// result.
    pub unsafe fn begin(call: pg_sys::FunctionCallInfo) -> Answer {
        // SAFETY: the server raises an error if the caller wants no set; else it fills the result, which is one.
        unsafe {
            pg_sys::InitMaterializedSRF(call, 0);
            let result = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            Answer { rows: (*result).setResult, types: (*result).setDesc }
        }
    }

    /// Adds the rows of a query, as the statement that called sees them.
    pub fn add(&self, _connection: &Connection, query: &str, args: &[Arg]) {
        let text = CString::new(query).expect("SQL without zero bytes");
        let (mut types, mut values, nulls) = Arg::parts(args);
        // SAFETY: there is a connection; types, values and nulls have one entry per parameter. The portal is closed
        // once it is read, or by the server on an error.
        unsafe {
            let portal = pg_sys::SPI_cursor_open_with_args(
                std::ptr::null(),
                text.as_ptr(),
                args.len() as i32,
                types.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_ptr().cast(),
                true,
                pg_sys::CURSOR_OPT_NO_SCROLL as i32,
            );
            loop {
                pg_sys::SPI_cursor_fetch(portal, true, FETCHED);
                if pg_sys::SPI_processed == 0 {
                    break;
                }
                self.keep(pg_sys::SPI_tuptable, pg_sys::SPI_processed as usize);
                pg_sys::SPI_freetuptable(pg_sys::SPI_tuptable);
                heed_cancel();
            }
            pg_sys::SPI_cursor_close(portal);
        }
    }

    /// SAFETY: the table must hold so many rows.
    unsafe fn keep(&self, table: *mut pg_sys::SPITupleTable, count: usize) {
        // SAFETY: both descriptions live as long as the call; the rows are copied, and are what the function was
        // declared to return.
        unsafe {
            assert_eq!(types((*table).tupdesc), types(self.types), "types of the rows of a function");
            (0..count).for_each(|index| pg_sys::tuplestore_puttuple(self.rows, *(*table).vals.add(index)));
        }
    }
}

/// SAFETY: the description must be one of the server's.
unsafe fn types(description: pg_sys::TupleDesc) -> Vec<pg_sys::Oid> {
    // SAFETY: columns are counted from 1 to the last.
    unsafe { (1..=(*description).natts).map(|column| pg_sys::SPI_gettypeid(description, column)).collect() }
}

/// An argument of a call, of the type with which the function was declared.
///
/// # Safety
/// The call information must be what the server gave to a function that has such an argument of that type, and the
/// result must not outlive it.
pub unsafe fn argument(call: pg_sys::FunctionCallInfo, index: usize, oid: pg_sys::Oid) -> Arg {
    // SAFETY: the server gives as many arguments as the function was declared with.
    let value = unsafe { (*call).args.as_slice((*call).nargs as usize)[index] };
    Arg::of(oid, (!value.isnull).then_some(value.value))
}

/// The name of the function that is called.
///
/// # Safety
/// The call information must be what the server gave.
pub unsafe fn name_of_function(call: pg_sys::FunctionCallInfo) -> String {
    // SAFETY: the server looks the name up and copies it; a function that runs is there, or the name is null.
    unsafe {
        let name = pg_sys::get_func_name((*(*call).flinfo).fn_oid);
        assert!(!name.is_null(), "a function that is called has a name");
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}
