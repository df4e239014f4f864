//! What does a column of a new row hold that another table knows? Looked up once, when the row comes (rule 2.10).

use crate::catalog::cache::{self, Remembered};
use crate::pg::error::failure;
use crate::pg::relation::quoted;
use crate::pg::rights::{as_owner, as_table_owner};
use crate::pg::row_trigger::{RowCall, RowColumn};
use crate::pg::sql::{arg, connected};
use crate::pg::subtransaction::{attempt, is_of_server, message};
use crate::pg::trigger;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

thread_local! {
    static REMEMBERED: Remembered<HashMap<pg_sys::Oid, Plan>> = Remembered::default();
    /// Triggers of which this session was told what is wrong with them.
    static WARNED: RefCell<HashSet<pg_sys::Oid>> = RefCell::default();
}

/// How the value is found, or why it cannot be.
type Plan = Rc<Result<LookUp, String>>;

struct LookUp {
    target: RowColumn,
    key: RowColumn,
    /// Takes the key as text and returns at most two values.
    statement: String,
}

/// # Safety
/// The server calls it, with the call information that it gives to every function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn look_up(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let call = unsafe { RowCall::of(call, "look_up") };
    let plan = plan(&call);
    let look_up = match &*plan {
        Ok(look_up) => look_up,
        Err(because) => {
            warn(&call, because);
            return call.as_it_is();
        }
    };
    match attempt(|| call.text(look_up.key).and_then(|key| find(&call, look_up, &key))) {
        Ok(value) => call.with(look_up.target, value),
        Err(error) if is_of_server(&error) => error.rethrow(),
        Err(error) => {
            warn(&call, message(&error));
            call.with(look_up.target, None)
        }
    }
}

trigger::version_1!(pg_finfo_look_up);

/// The value that the row's key leads to; none if it leads nowhere or to several.
fn find(call: &RowCall, look_up: &LookUp, key: &str) -> Option<pg_sys::Datum> {
    let found: Vec<String> = as_table_owner(call.owner(), None, || {
        connected(|connection| {
            let rows = connection.run_composed(&look_up.statement, &[arg(key)]);
            rows.iter().filter_map(|mut row| row.nullable()).collect()
        })
    });
    match found.as_slice() {
        [only] => Some(call.value(look_up.target, only)),
        _ => None,
    }
}

fn plan(call: &RowCall) -> Plan {
    let trigger = call.trigger();
    let read = || {
        cache::watch(call.relation.rd_id);
        Rc::new(read_plan(call))
    };
    REMEMBERED.with(|remembered| {
        remembered.get(|kept| kept.get(&trigger).cloned(), read, |kept, plan| drop(kept.insert(trigger, plan)))
    })
}

fn read_plan(call: &RowCall) -> Result<LookUp, String> {
    let arguments = call.arguments();
    let [target, key, joins @ ..] = arguments.as_slice() else {
        return Err("it has no arguments".to_owned());
    };
    if joins.is_empty() || joins.len() % 3 != 0 {
        return Err(
            "after the two columns of its table it does not have three arguments for each other table".to_owned()
        );
    }
    let own = |name: &String| call.column(name).ok_or_else(|| format!("its table has no column \"{name}\""));
    let (target, key) = (own(target)?, own(key)?);
    let mut from = String::new();
    let mut known = "$1".to_owned();
    for (index, join) in joins.chunks(3).enumerate() {
        let [table, column, value] = join else { unreachable!("chunks of three") };
        let other = other_table(call, table, column, value)?;
        let name = format!("t{index}");
        let compared = format!("{name}.{} OPERATOR(pg_catalog.=) CAST({known} AS {})", quoted(column), other.key_type);
        match index {
            0 => from = format!("{} AS {name} WHERE {compared}", other.name),
            _ => from = format!("{} AS {name}, {from} AND {compared}", other.name),
        }
        known = format!("{name}.{}", quoted(value));
    }
    let statement = format!("SELECT DISTINCT CAST({known} AS pg_catalog.text) FROM {from} LIMIT 2");
    Ok(LookUp { target, key, statement })
}

/// A table that is read, quoted, and the type of its key.
struct Other {
    name: String,
    key_type: String,
}

// A name without a schema means the schema of the trigger's table: nobody's search path decides what is read.
const OTHER: &str = "
    SELECT c.oid, format('%I.%I', n.nspname, c.relname), format_type(k.atttypid, NULL), v.attname IS NOT NULL
    FROM pg_class AS own
    JOIN pg_class AS c ON c.relname IN ($2, substr($2, strpos($2, '.') + 1)) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
    JOIN pg_namespace AS n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute AS k ON k.attrelid = c.oid AND k.attname = $3 AND k.attnum > 0 AND NOT k.attisdropped
    LEFT JOIN pg_attribute AS v ON v.attrelid = c.oid AND v.attname = $4 AND v.attnum > 0 AND NOT v.attisdropped
    WHERE own.oid = $1
        AND ((c.relname = $2 AND n.oid = own.relnamespace) OR n.nspname || '.' || c.relname = $2)
    ORDER BY c.relname = $2 DESC
    LIMIT 1";

fn other_table(call: &RowCall, table: &str, column: &str, value: &str) -> Result<Other, String> {
    as_owner(|| {
        connected(|connection| {
            let rows = connection.run(OTHER, &[arg(call.relation.rd_id), arg(table), arg(column), arg(value)]);
            let mut row =
                rows.first().ok_or_else(|| format!("there is no table \"{table}\" in the schema of its own"))?;
            cache::watch(row.value());
            let name: String = row.value();
            let key_type: Option<String> = row.nullable();
            let key_type = key_type.ok_or_else(|| format!("table {name} has no column \"{column}\""))?;
            match row.value() {
                true => Ok(Other { name, key_type }),
                false => Err(format!("table {name} has no column \"{value}\"")),
            }
        })
    })
}

/// Says, once per session and trigger, why it finds nothing. The row goes on without the value.
fn warn(call: &RowCall, because: &str) {
    if !WARNED.with_borrow_mut(|warned| warned.insert(call.trigger())) {
        return;
    }
    let (trigger, table) = call.names();
    failure(
        PgSqlErrorCode::ERRCODE_WARNING,
        format!("trigger \"{trigger}\" of table \"{table}\" could not look anything up: {because}"),
    )
    .detail("The row is inserted without the value.")
    .hint(
        "Create the trigger with talkmeter.look_up(column to fill, own column, other table, its key, its value), \
         with three more arguments for each further table.",
    )
    .warn();
}
