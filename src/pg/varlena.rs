//! How are values of varying length, texts, bytes and lists of integers, read and written by the server's own layout?
//! Each message does both, and the server's functions for any array cost more than the rest of the row.

use crate::pg::memory;
use crate::pg::raw;
use pgrx::pg_sys;
use pgrx::varlena::{set_varsize_4b, varatt_is_1b, varatt_is_1b_e, varatt_is_4b_u, vardata_any, varsize_any_exhdr};

/// The bytes of a value, where the row itself holds them as they are: neither compressed nor elsewhere. Most are.
///
/// SAFETY: the datum must be of varying length, not null, and live as long as the result is used.
pub unsafe fn plain<'r>(datum: pg_sys::Datum) -> Option<&'r [u8]> {
    let value: *const pg_sys::varlena = datum.cast_mut_ptr();
    // SAFETY: as the caller promises: what is plain has as many bytes behind its header as that says.
    unsafe {
        let is_plain = varatt_is_4b_u(value) || varatt_is_1b(value) && !varatt_is_1b_e(value);
        is_plain.then(|| std::slice::from_raw_parts(vardata_any(value).cast::<u8>(), varsize_any_exhdr(value)))
    }
}

/// A value of these bytes, in the current memory context.
pub fn datum(bytes: &[u8]) -> pg_sys::Datum {
    const MOST: usize = (1 << 30) - 1;
    let size = pg_sys::VARHDRSZ + bytes.len();
    if size > MOST {
        memory::out_of_memory();
    }
    // SAFETY: as many bytes are allocated as are written; with the flag no error is raised where there are none.
    unsafe {
        let at = raw::palloc_extended(size, pg_sys::MCXT_ALLOC_NO_OOM as i32).cast::<pg_sys::varlena>();
        if at.is_null() {
            memory::out_of_memory();
        }
        set_varsize_4b(at, size as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), at.cast::<u8>().add(pg_sys::VARHDRSZ), bytes.len());
        pg_sys::Datum::from(at)
    }
}

/// The header of an array holds its length. Words follow: dimensions, where its data begin (0: it has no nulls), type;
/// and if it has a dimension, how many elements, the index of the first, and the elements.
const HEADER: usize = size_of::<i32>();

/// An array of integers; `None` if that is not what it is, or if it has several dimensions or nulls.
///
/// SAFETY: it must be an array, and not null.
pub unsafe fn int4s(array: pg_sys::Datum) -> Option<Vec<i32>> {
    // SAFETY: an array is of varying length. If it is not plain here the server makes it so.
    let bytes = unsafe { plain(array).or_else(|| plain(pg_sys::pg_detoast_datum(array.cast_mut_ptr()).into()))? };
    let mut words = bytes.chunks_exact(HEADER).map(|word| i32::from_ne_bytes(word.try_into().expect("four bytes")));
    let (dimensions, data_begin, of_type) = (words.next()?, words.next()?, words.next()?);
    match (dimensions, data_begin, of_type as u32) {
        (0, _, _) => Some(Vec::new()),
        (1, 0, of_type) if of_type == pg_sys::INT4OID.to_u32() => {
            let count = words.next()?;
            Some(words.skip(1).take(count as usize).collect())
        }
        _ => None,
    }
}

/// The array of a list.
pub fn of_int4s(list: &[i32]) -> pg_sys::Datum {
    let dimensions = i32::from(!list.is_empty());
    let of_type = pg_sys::INT4OID.to_u32() as i32;
    let mut words = vec![dimensions, 0, of_type];
    if dimensions > 0 {
        words.extend_from_slice(&[list.len() as i32, 1]);
        words.extend_from_slice(list);
    }
    // SAFETY: the bytes of integers, which are there as long as the list.
    datum(unsafe { std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), size_of_val(words.as_slice())) })
}
