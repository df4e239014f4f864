//! What does a tenant see? Its own rows, and nothing in the name of somebody else.
//!
//! A function, an index expression or a trigger of one role's may run in the session of another. So a tenant is shown
//! only if both may read it: the role that called the function, and the one that is set in the session. Where the
//! server itself runs what others wrote (ANALYZE, REFRESH MATERIALIZED VIEW, CREATE INDEX), none is shown.

use crate::pg::answer::{Answer, argument, name_of_function};
use crate::pg::relation::quoted;
use crate::pg::rights::{self, Readers, as_owner, as_owner_reading};
use crate::pg::sql::{Arg, arg, connected};
use crate::pg::trigger;
use pgrx::iter::SetOfIterator;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;

macro_rules! tenants_of_both {
    ($condition:literal) => {
        concat!(
            "SELECT r.tenant
            FROM (
                SELECT of.tenant, pg_has_role($1, of.role, 'USAGE') AS of_caller,
                    pg_has_role($2, of.role, 'USAGE') AS of_session
                FROM talkmeter.tenant_reader AS of
                WHERE ",
            $condition,
            " AND talkmeter.is_reader(of.role, of.role_name)
            ) AS r
            GROUP BY r.tenant
            HAVING bool_or(r.of_caller) AND bool_or(r.of_session)
            ORDER BY r.tenant"
        )
    };
}

const OWN: &str = tenants_of_both!("true");
const IS_OWN: &str = tenants_of_both!("of.tenant = $3");

/// The tenants that the caller reads.
#[pg_extern(sql = false)]
fn own_tenants() -> SetOfIterator<'static, String> {
    SetOfIterator::new(tenants())
}

fn tenants() -> Vec<String> {
    let Some(Readers { caller, session }) = rights::readers() else { return Vec::new() };
    as_owner(|| {
        connected(|connection| {
            let rows = connection.run(OWN, &[arg(caller), arg(session)]);
            rows.iter().map(|mut row| row.value()).collect()
        })
    })
}

/// What was answered in the statement that began then, by readers and tenant.
type Answers = (i64, HashMap<(Readers, String), bool>);

thread_local! {
    static ANSWERS: RefCell<Answers> = RefCell::default();
}

/// Whether the caller reads a tenant. Asked of each row when it is fetched: a cursor may outlive a change of role.
#[pg_extern(sql = false)]
fn is_own(tenant: &str) -> bool {
    let Some(readers) = rights::readers() else { return false };
    // SAFETY: reads a variable of this session's.
    let statement = unsafe { pg_sys::GetCurrentStatementStartTimestamp() };
    let key = (readers, tenant.to_owned());
    let known = ANSWERS.with_borrow_mut(|(of, answers)| {
        if *of != statement {
            (*of, *answers) = (statement, HashMap::new());
        }
        answers.get(&key).copied()
    });
    known.unwrap_or_else(|| {
        let args = [arg(readers.caller), arg(readers.session), arg(tenant)];
        let own = as_owner(|| connected(|connection| connection.run(IS_OWN, &args).count() > 0));
        ANSWERS.with_borrow_mut(|(_, answers)| answers.insert(key, own));
        own
    })
}

/// The rows of the view after which the function is named.
///
/// # Safety
/// The server calls it, with the call information that it gives to every function.
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn own_rows(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    let name = unsafe { name_of_function(call) };
    let view = match name.strip_prefix("own_") {
        // With the name of the tenant as it is.
        Some("audit_trail") => "audited",
        Some(view) => view,
        None => panic!("{name} is named after no view"),
    };
    let view = quoted(view);
    // SAFETY: the same; it was declared to return a set of the view's rows, which is looked at again.
    unsafe { answer(call, &format!("SELECT v.* FROM talkmeter.{view} AS v WHERE v.tenant = $1"), None) }
}

/// # Safety
/// As of [`own_rows`].
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn my_balance(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's.
    unsafe { answer(call, "SELECT $1, talkmeter.balance($1)", None) }
}

/// # Safety
/// As of [`own_rows`].
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn my_statement(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's; `sql/70-tenants.sql` declares the argument.
    unsafe {
        let period_start = argument(call, 0, pg_sys::TIMESTAMPTZOID);
        answer(call, "SELECT $1, s.* FROM talkmeter.statement_of($1, $2) AS s", Some(period_start))
    }
}

/// # Safety
/// As of [`own_rows`].
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn my_evidence(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's; `sql/70-tenants.sql` declares the argument.
    unsafe {
        let period_start = argument(call, 0, pg_sys::TIMESTAMPTZOID);
        answer(call, "SELECT $1, e.* FROM talkmeter.evidence($1, $2) AS e", Some(period_start))
    }
}

/// # Safety
/// As of [`own_rows`].
#[pg_guard]
#[unsafe(no_mangle)]
pub unsafe extern "C-unwind" fn my_explain(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the call information is the server's; `sql/70-tenants.sql` declares the argument.
    unsafe {
        let conversation = argument(call, 0, pg_sys::TEXTOID);
        answer(call, "SELECT $1, e.* FROM talkmeter.explain($1, $2) AS e", Some(conversation))
    }
}

trigger::version_1!(
    pg_finfo_own_rows,
    pg_finfo_my_balance,
    pg_finfo_my_statement,
    pg_finfo_my_evidence,
    pg_finfo_my_explain
);

/// Answers with what a query, whose first parameter is the tenant, gives for each tenant that the caller reads.
///
/// SAFETY: the call information must be the server's.
unsafe fn answer(call: pg_sys::FunctionCallInfo, query: &str, second: Option<Arg>) -> pg_sys::Datum {
    // SAFETY: the same.
    let answer = unsafe { Answer::begin(call) };
    for tenant in tenants() {
        as_owner_reading(|| {
            let args: Vec<Arg> = [Some(arg(tenant.as_str())), second].into_iter().flatten().collect();
            connected(|connection| answer.add(connection, query, &args));
        });
    }
    pg_sys::Datum::from(0usize)
}
