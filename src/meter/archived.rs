//! What if a conversation is folded again of which `archive` has moved something aside? It is fetched back first: what
//! is written anew, or reversed, is where it is looked for.

use crate::capture::entry::Key;
use crate::pg::limit::heed_cancel;
use crate::pg::own_table::types::{INT4, INT8, TEXT};
use crate::pg::own_table::{Index, OwnTable, Shape, with_newest};
use crate::pg::sql::{Connection, OverRows, arg, column, over_rows};

const PARTS: Shape = Shape { name: c"talkmeter_archive.ended_part", types: &[TEXT, TEXT, INT4] };
const PARTS_KEY: Index = Index { name: c"talkmeter_archive.ended_part_pkey", columns: &[1, 2, 3] };
const CHARGES: Shape = Shape { name: c"talkmeter_archive.charge", types: &[TEXT, INT8, TEXT, INT4] };
const CHARGES_OF_PART: Index = Index { name: c"talkmeter_archive.charge_part", columns: &[1, 3, 4] };

const FETCH_PARTS: OverRows = over_rows!(
    "WITH fetched AS (DELETE FROM talkmeter_archive.ended_part AS own USING",
    [1 tenant text, 2 conversation text],
    "WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation RETURNING own.*)
    INSERT INTO talkmeter.ended_part SELECT * FROM fetched"
);

const FETCH_CHARGES: OverRows = over_rows!(
    "WITH fetched AS (DELETE FROM talkmeter_archive.charge AS own USING",
    [1 tenant text, 2 conversation text],
    "WHERE own.tenant = wanted.tenant AND own.conversation = wanted.conversation RETURNING own.*)
    INSERT INTO talkmeter.charge SELECT * FROM fetched"
);

/// Fetches back the parts and charges of conversations, which must be locked. Marks stay where they are: nothing
/// changes them.
pub fn fetch_back(connection: &Connection, keys: &[Key]) {
    fetch(connection, keys, &PARTS, &PARTS_KEY, &FETCH_PARTS);
    fetch(connection, keys, &CHARGES, &CHARGES_OF_PART, &FETCH_CHARGES);
}

/// A late message is one of lately as a rule, of which nothing was moved: no statement is run for it.
fn fetch(connection: &Connection, keys: &[Key], shape: &'static Shape, index: &Index, statement: &OverRows) {
    let Some(table) = OwnTable::open_unless_empty(shape) else { return };
    let is_there = |newest: &_, key: &Key| {
        heed_cancel();
        table.find(newest, index, &[arg(key.0), arg(key.1)], |_| ()).is_some()
    };
    let moved: Vec<Key> = with_newest(|newest| keys.iter().copied().filter(|key| is_there(newest, key)).collect());
    if !moved.is_empty() {
        connection.run_over(statement, moved.len(), &[column(&moved, |key| key.0), column(&moved, |key| key.1)]);
    }
}
