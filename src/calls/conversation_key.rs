//! Which text is the key of a conversation, or the message id, that several columns make (rule 2.5.8)?

use pgrx::VariadicArray;
use pgrx::prelude::*;
use talkmeter_engine::mapping::key::joined;

#[pg_extern(sql = false)]
fn conversation_key(parts: VariadicArray<&str>) -> Option<String> {
    let parts: Option<Vec<&str>> = parts.iter().collect();
    Some(joined(parts?.into_iter()))
}
