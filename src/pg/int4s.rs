//! How are lists of integers read and written by the server's own layout? Each message does both, and the server's
//! functions for any array cost more than the rest of the row.

use pgrx::prelude::*;
use pgrx::varlena::{set_varsize_4b, varatt_is_1b, varatt_is_1b_e, varatt_is_4b_u, vardata_any, varsize_any_exhdr};

/// The header of an array holds its length. Words follow: dimensions, where its data begin (0: it has no nulls), type;
/// and if it has a dimension, how many elements, the index of the first, and the elements.
const HEADER: usize = size_of::<i32>();

/// An array of integers; `None` if that is not what it is, or if it has several dimensions or nulls.
///
/// SAFETY: the datum must be an array, and not null.
pub unsafe fn read(datum: pg_sys::Datum) -> Option<Vec<i32>> {
    let mut array: *mut pg_sys::varlena = datum.cast_mut_ptr();
    // SAFETY: an array is a varlena. If it is not plain here it is made so; then as many bytes as it says follow its
    // header.
    let bytes = unsafe {
        let is_plain = varatt_is_4b_u(array) || varatt_is_1b(array) && !varatt_is_1b_e(array);
        if !is_plain {
            array = pg_sys::pg_detoast_datum(array);
        }
        std::slice::from_raw_parts(vardata_any(array).cast::<u8>(), varsize_any_exhdr(array))
    };
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
pub fn datum(list: &[i32]) -> pg_sys::Datum {
    let dimensions = i32::from(!list.is_empty());
    let of_type = pg_sys::INT4OID.to_u32() as i32;
    let mut words = vec![dimensions, 0, of_type];
    if dimensions > 0 {
        words.extend_from_slice(&[list.len() as i32, 1]);
        words.extend_from_slice(list);
    }
    let size = HEADER + size_of_val(words.as_slice());
    // SAFETY: as many bytes are allocated as are written, in the present memory context, as any datum's are.
    unsafe {
        let array = pg_sys::palloc(size).cast::<pg_sys::varlena>();
        set_varsize_4b(array, size as i32);
        std::ptr::copy_nonoverlapping(words.as_ptr(), array.cast::<i32>().add(1), words.len());
        pg_sys::Datum::from(array)
    }
}
