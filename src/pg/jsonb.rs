//! What does a jsonb hold where conditions look? Found in place, by the server's own access.

use pgrx::FromDatum;
use pgrx::prelude::*;
use std::borrow::Cow;
use talkmeter_engine::mapping::{Asked, Value, exact_number, json};

/// What the document holds at each of the paths. No copy of it stays.
///
/// # Safety
/// The datum must be jsonb.
pub unsafe fn at_paths(datum: pg_sys::Datum, asked: &Asked) -> Vec<Value<'static>> {
    // SAFETY: as the caller promises; what the server unpacked is freed once it is read, and values are copies.
    unsafe {
        let document: *mut pg_sys::Jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast();
        let root = &raw mut (*document).root;
        let found = asked.paths.iter().map(|path| at_path(root, path, asked.longest)).collect();
        if document != datum.cast_mut_ptr() {
            pg_sys::pfree(document.cast());
        }
        found
    }
}

/// A path that leads nowhere and a json null both are `null`. A string on the way is read as json.
///
/// SAFETY: the container must be that of a jsonb.
unsafe fn at_path(root: *mut pg_sys::JsonbContainer, path: &[String], longest: usize) -> Value<'static> {
    let mut found = pg_sys::JsonbValue { type_: pg_sys::jbvType::jbvBinary, ..Default::default() };
    found.val.binary.data = root;
    // SAFETY: the server answers with a value in `found`, which points into the document, or with null.
    unsafe {
        // A scalar alone is stored as an array of one.
        if (*root).header & pg_sys::JB_FSCALAR != 0 {
            pg_sys::JsonbExtractScalar(root, &mut found);
        }
        for (index, step) in path.iter().enumerate() {
            match found.type_ {
                pg_sys::jbvType::jbvBinary => {
                    if !step_into(found.val.binary.data, step, &mut found) {
                        return Value::Null;
                    }
                }
                pg_sys::jbvType::jbvString => {
                    let text = std::str::from_utf8(string(&found)).unwrap_or_default();
                    return json::at_path_of_string(text, &path[index..], longest);
                }
                _ => return Value::Null,
            }
        }
        scalar(&found, longest)
    }
}

/// Finds what an object or an array holds under one step.
///
/// SAFETY: the container must be that of a jsonb.
unsafe fn step_into(container: *mut pg_sys::JsonbContainer, step: &str, found: &mut pg_sys::JsonbValue) -> bool {
    // SAFETY: as the caller promises; each access is used on the kind of container that it is for.
    unsafe {
        if (*container).header & pg_sys::JB_FOBJECT != 0 {
            let key = step.as_ptr().cast();
            return !pg_sys::getKeyJsonValueFromContainer(container, key, step.len() as i32, found).is_null();
        }
        let element = step.parse().map(|index: u32| pg_sys::getIthJsonbValueFromContainer(container, index));
        match element {
            Ok(element) if !element.is_null() => {
                *found = *element;
                pg_sys::pfree(element.cast());
                true
            }
            _ => false,
        }
    }
}

/// Objects, arrays, and texts longer than any that is asked for equal no scalar.
///
/// SAFETY: the value must be one that the server has found.
unsafe fn scalar(found: &pg_sys::JsonbValue, longest: usize) -> Value<'static> {
    // SAFETY: which member of the union is there, the type says.
    unsafe {
        match found.type_ {
            pg_sys::jbvType::jbvNull => Value::Null,
            pg_sys::jbvType::jbvBool => Value::Boolean(found.val.boolean),
            pg_sys::jbvType::jbvString if found.val.string.len as usize <= longest => {
                Value::Text(Cow::Owned(String::from_utf8_lossy(string(found)).into_owned()))
            }
            pg_sys::jbvType::jbvNumeric => {
                let number = AnyNumeric::from_datum(pg_sys::Datum::from(found.val.numeric), false).expect("not null");
                exact_number(&number.to_string()).map_or(Value::Present, Value::Number)
            }
            _ => Value::Present,
        }
    }
}

/// SAFETY: the value must be a string that the server has found, and its document must outlive the result.
unsafe fn string(found: &pg_sys::JsonbValue) -> &[u8] {
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(found.val.string.val.cast(), found.val.string.len as usize) }
}
