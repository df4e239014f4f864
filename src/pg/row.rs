//! How does a row of the application's, as the server holds it, become values that a mapping understands?

use crate::pg::clock::Timestamp;
use crate::pg::jsonb;
use crate::pg::limit::heed_cancel;
use crate::pg::memory;
use crate::pg::raw::{self, guarded};
use crate::pg::trigger::is_by_row;
use crate::pg::varlena;
use pgrx::prelude::*;
use pgrx::{AnyNumeric, FromDatum, PgMemoryContexts};
use std::borrow::Cow;
use std::ffi::CStr;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::mapping::{Asked, LONGEST_KEY, Value, cut, json};

/// How to read one column.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The column's number in the table.
    pub number: i16,
    base_type: pg_sys::Oid,
    form: Form,
    /// The zone of a timestamp without one.
    timezone: Option<String>,
    asked: Asked,
}

/// How a type is read. What there is to decide is decided once, and not for each row.
#[derive(Clone, Copy, Debug)]
enum Form {
    Text,
    PaddedText,
    /// Text that may be json.
    JsonInText,
    Enum,
    Uuid,
    Int2,
    Int4,
    Int8,
    Boolean,
    Float4,
    Float8,
    Numeric,
    Json,
    Jsonb,
    Timestamptz,
    Timestamp,
    /// As the server's own output function of the type writes it.
    Output {
        function: pg_sys::Oid,
        is_varlena: bool,
    },
    /// Not at all.
    Other,
}

impl Form {
    fn of(base_type: pg_sys::Oid, asked: &Asked) -> Form {
        match base_type {
            pg_sys::TEXTOID | pg_sys::VARCHAROID | pg_sys::BPCHAROID if asked.as_json => Form::JsonInText,
            pg_sys::TEXTOID | pg_sys::VARCHAROID => Form::Text,
            pg_sys::BPCHAROID => Form::PaddedText,
            pg_sys::UUIDOID => Form::Uuid,
            pg_sys::INT2OID => Form::Int2,
            pg_sys::INT4OID => Form::Int4,
            pg_sys::INT8OID => Form::Int8,
            pg_sys::BOOLOID => Form::Boolean,
            pg_sys::FLOAT4OID => Form::Float4,
            pg_sys::FLOAT8OID => Form::Float8,
            pg_sys::NUMERICOID => Form::Numeric,
            pg_sys::JSONOID => Form::Json,
            pg_sys::JSONBOID => Form::Jsonb,
            pg_sys::TIMESTAMPTZOID => Form::Timestamptz,
            pg_sys::TIMESTAMPOID => Form::Timestamp,
            _ => Form::Other,
        }
    }
}

impl Reader {
    pub fn new(number: i16, base_type: pg_sys::Oid, is_enum: bool, timezone: Option<String>, asked: Asked) -> Reader {
        let form = if is_enum { Form::Enum } else { Form::of(base_type, &asked) };
        Reader { number, base_type, form, timezone, asked }
    }

    /// For a column that is to be read as text; only of a type of the server's own, which runs no code of a user's.
    pub fn of_text(number: i16, base_type: pg_sys::Oid) -> Reader {
        let (mut function, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: looks the type up in the server's cache of the catalog, and writes to both places.
        unsafe { pg_sys::getTypeOutputInfo(base_type, &mut function, &mut is_varlena) };
        let form = Form::Output { function, is_varlena };
        Reader { number, base_type, form, timezone: None, asked: Asked::default() }
    }

    /// Whether this reads columns of that type, which is under all domains.
    pub fn reads(&self, base_type: pg_sys::Oid) -> bool {
        self.base_type == base_type
    }

    /// The value of a datum of this column, as far as it is asked for: of what is long no copy is made, or none stays.
    ///
    /// # Safety
    /// The datum must come from a row of the table that this reader was made for, and text is borrowed from it: neither
    /// the row nor the current memory context may go away while the value is used.
    pub unsafe fn read<'r>(&self, datum: pg_sys::Datum, is_null: bool) -> Value<'r> {
        if is_null {
            return Value::Null;
        }
        // SAFETY: the column is of the type that is read; a table whose column changed its type is mapped anew.
        unsafe {
            match self.form {
                Form::Text => text(datum, self.asked.longest),
                Form::PaddedText => with_text(datum, |text| short(text.trim_end_matches(' '), self.asked.longest)),
                Form::JsonInText if pg_sys::toast_raw_datum_size(datum) > json::LONGEST_TEXT + pg_sys::VARHDRSZ => {
                    Value::Json(vec![Value::Null; self.asked.paths.len()])
                }
                Form::JsonInText => Value::Json(with_text(datum, |text| json::at_paths_of_any(text, &self.asked))),
                Form::Enum => Value::Text(Cow::Owned(output(pg_sys::F_ENUM_OUT, datum))),
                Form::Uuid => Value::Text(Cow::Owned(output(pg_sys::F_UUID_OUT, datum))),
                Form::Int2 => Value::Integer(i64::from(datum.value() as i16)),
                Form::Int4 => Value::Integer(i64::from(datum.value() as i32)),
                Form::Int8 => Value::Integer(datum.value() as i64),
                Form::Boolean => Value::Boolean(datum.value() as u8 != 0),
                Form::Float4 => Value::Float(f64::from(f32::from_bits(datum.value() as u32))),
                Form::Float8 => Value::Float(f64::from_bits(datum.value() as u64)),
                Form::Numeric => number(datum),
                Form::Json => Value::Json(with_text(datum, |text| json::at_paths(text, &self.asked))),
                Form::Jsonb => Value::Json(jsonb::at_paths(datum, &self.asked)),
                Form::Timestamptz => Value::Time(Timestamp::from(datum.value() as i64).finite()),
                Form::Timestamp => Value::Time(self.instant(datum)),
                Form::Output { is_varlena: true, .. } if pg_sys::toast_raw_datum_size(datum) > LONGEST_KEY => {
                    Value::Present
                }
                Form::Output { function, .. } => Value::Text(Cow::Owned(output(function.to_u32(), datum))),
                Form::Other => Value::Present,
            }
        }
    }

    /// The instant of a local time, or `None` where the server's own conversion would fail the application's insert.
    fn instant(&self, datum: pg_sys::Datum) -> Option<Instant> {
        let local = Timestamp::from(datum.value() as i64).finite()?;
        if !local.in_range() {
            return None;
        }
        let timezone = self.timezone.as_deref()?;
        // SAFETY: both arguments are of the types that the function takes; attach has checked the zone.
        let instant: Option<i64> = unsafe {
            pgrx::direct_function_call(pg_sys::timestamp_zone, &[pgrx::IntoDatum::into_datum(timezone), Some(datum)])
        };
        Timestamp::from(instant?).finite()
    }
}

/// A text, or how it begins if it is longer than asked for: then only that is fetched.
///
/// SAFETY: the datum must be of a type that is stored as text is, and live as long as the result is used.
unsafe fn text<'r>(datum: pg_sys::Datum, longest: usize) -> Value<'r> {
    // SAFETY: as the caller promises; the slice is a copy of the server's, freed once it is copied again.
    unsafe {
        if let Some(plain) = varlena::plain(datum).filter(|plain| plain.len() <= longest) {
            return Value::Text(Cow::Borrowed(str::from_utf8(plain).expect("the database is encoded in UTF8")));
        }
        let bytes = pg_sys::toast_raw_datum_size(datum) - pg_sys::VARHDRSZ;
        if bytes <= longest {
            let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            return Value::Text(Cow::Borrowed(pgrx::text_to_rust_str(text).expect("the database is encoded in UTF8")));
        }
        let slice = pg_sys::pg_detoast_datum_slice(datum.cast_mut_ptr(), 0, LONGEST_KEY as i32);
        let start = pgrx::varlena_to_byte_slice(slice);
        // Up to where a character was cut.
        let whole = start.utf8_chunks().next().map_or("", |chunk| chunk.valid()).to_owned();
        pg_sys::pfree(slice.cast());
        Value::Long { start: Cow::Owned(whole), bytes }
    }
}

/// A text of which a copy is kept, or how it begins if it is longer than asked for.
fn short(text: &str, longest: usize) -> Value<'static> {
    match text.len() {
        bytes if bytes > longest => Value::Long { start: Cow::Owned(cut(text, LONGEST_KEY).to_owned()), bytes },
        _ => Value::Text(Cow::Owned(text.to_owned())),
    }
}

/// What `read` makes of a text, of which no copy stays.
///
/// SAFETY: the datum must be of a type that is stored as text is.
unsafe fn with_text<R>(datum: pg_sys::Datum, read: impl FnOnce(&str) -> R) -> R {
    // SAFETY: as the caller promises; a copy that the server made is freed once it is read.
    unsafe {
        let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        let answer = read(pgrx::text_to_rust_str(text).expect("the database is encoded in UTF8"));
        if text != datum.cast_mut_ptr() {
            pg_sys::pfree(text.cast());
        }
        answer
    }
}

/// What one of the server's own output functions writes; the function must belong to the datum's type.
fn output(function: u32, datum: pg_sys::Datum) -> String {
    // SAFETY: the function is one of the server's, for the type of the datum, and returns a string that it allocated.
    unsafe {
        let text = pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(function), datum);
        let copy = CStr::from_ptr(text).to_string_lossy().into_owned();
        pg_sys::pfree(text.cast());
        copy
    }
}

/// SAFETY: the datum must be numeric.
unsafe fn number(datum: pg_sys::Datum) -> Value<'static> {
    let text = unsafe { AnyNumeric::from_datum(datum, false) }.expect("not null").to_string();
    // A number beyond the engine's 28 digits, or none at all, equals no value of a rule.
    text.parse().map_or(Value::Text(Cow::Owned(text)), Value::Number)
}

/// Reads the rows that a statement left new, in the order of their insertion, and gives `each` the values of `readers`.
/// A value is good until the next row.
pub fn for_each_new_row(trigger: &pg_sys::TriggerData, readers: &[Reader], mut each: impl FnMut(&[Value])) {
    if is_by_row(trigger) {
        // SAFETY: the slot is the trigger's.
        let row = unsafe { taken_apart(new_slot(trigger), readers) };
        return each(&row);
    }
    // SAFETY: the store is that of the trigger call.
    let mut rows = unsafe { TransitionRows::of(trigger, trigger.tg_newtable, readers) };
    while rows.with_next(|row| each(row)).is_some() {}
}

/// Reads the rows that a statement deleted, as [`for_each_new_row`] does.
pub fn for_each_old_row(trigger: &pg_sys::TriggerData, readers: &[Reader], mut each: impl FnMut(&[Value])) {
    if is_by_row(trigger) {
        // SAFETY: the slot is the trigger's.
        let row = unsafe { taken_apart(trigger.tg_trigslot, readers) };
        return each(&row);
    }
    // SAFETY: the store is that of the trigger call.
    let mut rows = unsafe { TransitionRows::of(trigger, trigger.tg_oldtable, readers) };
    while rows.with_next(|row| each(row)).is_some() {}
}

/// Whether each row that a statement updated has both its versions: one that moved to another partition may have been
/// kept from it.
pub fn is_paired(trigger: &pg_sys::TriggerData) -> bool {
    // SAFETY: both stores are those of the trigger call.
    is_by_row(trigger)
        || unsafe {
            pg_sys::tuplestore_tuple_count(trigger.tg_oldtable) == pg_sys::tuplestore_tuple_count(trigger.tg_newtable)
        }
}

/// Reads the rows that a statement updated, each as it was and as it is. Call it only if they are paired.
pub fn for_each_changed_row(
    trigger: &pg_sys::TriggerData,
    readers: &[Reader],
    mut each: impl FnMut(&[Value], &[Value]),
) {
    if is_by_row(trigger) {
        // SAFETY: the slots are the trigger's.
        let (old, new) =
            unsafe { (taken_apart(trigger.tg_trigslot, readers), taken_apart(new_slot(trigger), readers)) };
        return each(&old, &new);
    }
    // SAFETY: both stores are those of the trigger call; the server puts each row's two versions into them together.
    let (mut before, mut after) = unsafe {
        (
            TransitionRows::of(trigger, trigger.tg_oldtable, readers),
            TransitionRows::of(trigger, trigger.tg_newtable, readers),
        )
    };
    while before.with_next(|old| after.with_next(|new| each(old, new))).flatten().is_some() {}
}

/// Where a trigger that is fired for each row finds what the row is now: an INSERT knows no other.
fn new_slot(trigger: &pg_sys::TriggerData) -> *mut pg_sys::TupleTableSlot {
    let is_update = trigger.tg_event & pg_sys::TRIGGER_EVENT_OPMASK == pg_sys::TRIGGER_EVENT_UPDATE;
    if is_update { trigger.tg_newslot } else { trigger.tg_trigslot }
}

/// The last column that is read, by its number; 0 if none is.
fn last_of(readers: &[Reader]) -> i32 {
    readers.iter().map(|reader| i32::from(reader.number)).max().unwrap_or(0)
}

/// The values of a row.
///
/// SAFETY: the slot must hold a row of the table for which the readers were made, and not be filled anew while the
/// values are used, nor the current memory context be reset.
unsafe fn taken_apart<'r>(slot: *mut pg_sys::TupleTableSlot, readers: &[Reader]) -> Vec<Value<'r>> {
    let last = last_of(readers);
    // SAFETY: as the caller promises; columns up to the last that is read are taken apart first.
    unsafe {
        if last > 0 {
            pg_sys::slot_getsomeattrs(slot, last);
        }
        values(slot, readers)
    }
}

/// The values of a row that is taken apart.
///
/// SAFETY: as of [`taken_apart`], for a slot in which all that is read is taken apart.
unsafe fn values<'r>(slot: *mut pg_sys::TupleTableSlot, readers: &[Reader]) -> Vec<Value<'r>> {
    let read = |reader: &Reader| {
        let index = reader.number as usize - 1;
        // SAFETY: as the caller promises.
        unsafe { reader.read(*(*slot).tts_values.add(index), *(*slot).tts_isnull.add(index)) }
    };
    readers.iter().map(read).collect()
}

/// The rows of a transition table.
struct TransitionRows<'a> {
    store: *mut pg_sys::Tuplestorestate,
    /// Its read pointer, or `None` if there is no row.
    pointer: Option<i32>,
    slot: *mut pg_sys::TupleTableSlot,
    readers: &'a [Reader],
    last: i32,
    /// Holds what reading a row took until the next is read; a single one needs none.
    memory: Option<PgMemoryContexts>,
}

impl<'a> TransitionRows<'a> {
    /// SAFETY: the store must be one of the trigger's, and the trigger call must outlive the result.
    unsafe fn of(
        trigger: &pg_sys::TriggerData,
        store: *mut pg_sys::Tuplestorestate,
        readers: &'a [Reader],
    ) -> TransitionRows<'a> {
        memory::keep_reserve();
        // SAFETY: we read through a read pointer of our own, which may not be where another trigger left pointer 0.
        let (count, pointer, slot) = unsafe {
            guarded(|| {
                let count = raw::tuplestore_tuple_count(store);
                if count == 0 {
                    return (count, None, std::ptr::null_mut());
                }
                let pointer = raw::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as i32);
                raw::tuplestore_select_read_pointer(store, pointer);
                raw::tuplestore_rescan(store);
                let columns = (*trigger.tg_relation).rd_att;
                let slot = raw::MakeSingleTupleTableSlot(columns, &raw const pg_sys::TTSOpsMinimalTuple);
                (count, Some(pointer), slot)
            })
        };
        let memory = (count > 1).then(|| PgMemoryContexts::new("talkmeter row"));
        TransitionRows { store, pointer, slot, readers, last: last_of(readers), memory }
    }

    /// Gives `work` the values of the next row; `None` if there is none.
    fn with_next<R>(&mut self, work: impl FnOnce(&[Value]) -> R) -> Option<R> {
        let pointer = self.pointer?;
        heed_cancel();
        // SAFETY: the store holds rows of the table's type, the pointer and the slot are our own, and a datum is used
        // before the next fetch from this store.
        unsafe {
            let (store, slot, readers, last) = (self.store, self.slot, self.readers, self.last);
            let is_there = guarded(|| {
                raw::tuplestore_select_read_pointer(store, pointer);
                let is_there = raw::tuplestore_gettupleslot(store, true, false, slot);
                if is_there && last > i32::from((*slot).tts_nvalid) {
                    raw::slot_getsomeattrs_int(slot, last);
                }
                is_there
            });
            if !is_there {
                return None;
            }
            let Some(memory) = &mut self.memory else { return Some(work(&values(slot, readers))) };
            let answer = memory.switch_to(|_| work(&values(slot, readers)));
            memory.reset();
            Some(answer)
        }
    }
}

impl Drop for TransitionRows<'_> {
    fn drop(&mut self) {
        // On an error the server frees what the trigger call holds.
        if self.pointer.is_some() && !std::thread::panicking() {
            // SAFETY: the slot is ours and dropped once; pointer 0 always exists.
            unsafe {
                guarded(|| {
                    raw::ExecDropSingleTupleTableSlot(self.slot);
                    raw::tuplestore_select_read_pointer(self.store, 0);
                });
            }
        }
    }
}
