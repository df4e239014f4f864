//! What does a tenant see? Its own rows, and nothing in the name of somebody else.
//!
//! A function, an index expression or a trigger of one role's may run in the session of another. So a tenant is shown
//! only if both may read it: the role that called the function, and the one that is set in the session. Where the
//! server itself runs what others wrote (ANALYZE, REFRESH MATERIALIZED VIEW, CREATE INDEX), none is shown.

use crate::pg::answer::{Answer, argument, name_of_function};
use crate::pg::error::failure;
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
        Some("policy") => "applied_policies",
        Some(view) => view,
        None => panic!("{name} is named after no view"),
    };
    let rows = format!("SELECT v.* FROM talkmeter.{} AS v WHERE v.tenant = $1", quoted(view));
    // SAFETY: the same; it was declared to return a set of the view's rows, which is looked at again.
    unsafe { answer(call, &Question { rows: &rows, argument: None, needs: None }) }
}

/// What a function asks for each tenant that the caller reads.
struct Question<'q> {
    /// Its first parameter is the tenant, its second the argument of the function, if it has one.
    rows: &'q str,
    /// The type of that argument.
    argument: Option<pg_sys::Oid>,
    /// What there must be for one of the tenants at least.
    needs: Option<&'static Needed>,
}

/// What a question is about, so that it is an error if no tenant has it.
struct Needed {
    /// Finds a row if a tenant has it, by the same parameters.
    found: &'static str,
    /// Says of its two parameters, a null tenant and the argument, that there is none.
    message: &'static str,
}

/// Whether a month `m` is the one that a text means.
macro_rules! is_named {
    () => {
        "CASE WHEN $2 IS NULL THEN m.period_end > (SELECT clock.now FROM talkmeter.clock)
            WHEN talkmeter.month_meant($1, $2) IS NOT NULL THEN m.period = talkmeter.month_meant($1, $2)
            ELSE m.period_start = (SELECT talkmeter.instant_meant($2)) END"
    };
}

/// Whether it is that of a day.
macro_rules! is_with {
    () => {
        "m.period = to_char($2, 'YYYY-MM')"
    };
}

/// Asks a function of the months that are meant.
macro_rules! of_months {
    ($function:literal, $is_meant:expr) => {
        concat!(
            "SELECT $1, s.* FROM (SELECT DISTINCT m.period_start FROM talkmeter.months_of($1) AS m WHERE ",
            $is_meant,
            ") AS m CROSS JOIN LATERAL talkmeter.",
            $function,
            "($1, m.period_start) AS s"
        )
    };
}

const MONTH_FROM: &Needed = &Needed {
    found: "SELECT FROM talkmeter.periods_starting($1, $2)",
    message: "SELECT concat('no billing month of yours starts at ', COALESCE($2::text, 'null'), $1::text)",
};
const MONTH_WITH: &Needed = &Needed {
    found: concat!("SELECT FROM talkmeter.months_of($1) AS m WHERE ", is_with!()),
    message: "SELECT concat('no billing month of yours starts in ',
        COALESCE(to_char($2, 'YYYY-MM'), $2::text, 'null'), $1::text)",
};
const MONTH_NAMED: &Needed = &Needed {
    found: concat!("SELECT FROM talkmeter.months_of($1) AS m WHERE ", is_named!()),
    message: "SELECT concat('no billing month of yours is ', COALESCE($2, 'current'), $1::text)",
};
const INSTANT: Option<pg_sys::Oid> = Some(pg_sys::TIMESTAMPTZOID);
const DAY: Option<pg_sys::Oid> = Some(pg_sys::DATEOID);
const NAME: Option<pg_sys::Oid> = Some(pg_sys::TEXTOID);

/// Declares functions of the server's that answer for the own tenants.
macro_rules! answers {
    ($($name:ident $info:ident $rows:expr, $argument:expr, $needs:expr;)+) => {
        $(
            /// # Safety
            /// As of [`own_rows`].
            #[pg_guard]
            #[unsafe(no_mangle)]
            pub unsafe extern "C-unwind" fn $name(call: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
                // SAFETY: the call information is the server's; `sql/70-tenants.sql` declares the argument.
                unsafe { answer(call, &Question { rows: $rows, argument: $argument, needs: $needs }) }
            }
        )+
        trigger::version_1!(pg_finfo_own_rows, $($info),+);
    };
}

answers! {
    my_balance pg_finfo_my_balance "SELECT $1, talkmeter.balance($1)", None, None;
    my_statement pg_finfo_my_statement
        "SELECT $1, s.* FROM talkmeter.statement_of($1, $2) AS s", INSTANT, Some(MONTH_FROM);
    my_statement_of_month pg_finfo_my_statement_of_month
        of_months!("statement_of", is_with!()), DAY, Some(MONTH_WITH);
    my_statement_named pg_finfo_my_statement_named
        of_months!("statement_of", is_named!()), NAME, Some(MONTH_NAMED);
    my_statement_units pg_finfo_my_statement_units
        "SELECT $1, u.* FROM talkmeter.units_of_statement($1, $2) AS u", INSTANT, Some(MONTH_FROM);
    my_statement_units_of_month pg_finfo_my_statement_units_of_month
        of_months!("units_of_statement", is_with!()), DAY, Some(MONTH_WITH);
    my_statement_units_named pg_finfo_my_statement_units_named
        of_months!("units_of_statement", is_named!()), NAME, Some(MONTH_NAMED);
    my_bill_file pg_finfo_my_bill_file
        "SELECT $1, f.* FROM talkmeter.bill_file_of($1, $2) AS f", INSTANT, Some(MONTH_FROM);
    my_bill_file_of_month pg_finfo_my_bill_file_of_month
        of_months!("bill_file_of", is_with!()), DAY, Some(MONTH_WITH);
    my_bill_file_named pg_finfo_my_bill_file_named
        of_months!("bill_file_of", is_named!()), NAME, Some(MONTH_NAMED);
    my_evidence pg_finfo_my_evidence
        "SELECT $1, e.* FROM talkmeter.evidence($1, $2) AS e", INSTANT, Some(MONTH_FROM);
    my_explain pg_finfo_my_explain
        "SELECT $1, e.* FROM talkmeter.explain($1, $2) AS e", NAME, None;
}

/// Answers a question for each tenant that the caller reads.
///
/// SAFETY: the call information must be the server's, and the function declared with the question's argument.
unsafe fn answer(call: pg_sys::FunctionCallInfo, question: &Question) -> pg_sys::Datum {
    // SAFETY: the same.
    let (answer, second) = unsafe { (Answer::begin(call), question.argument.map(|oid| argument(call, 0, oid))) };
    let own = tenants();
    let args_of = |tenant: Option<&str>| [Some(arg(tenant)), second].into_iter().flatten().collect::<Vec<Arg>>();
    let mut is_there = own.is_empty();
    for tenant in &own {
        let args = args_of(Some(tenant));
        as_owner_reading(|| {
            connected(|connection| {
                let found = |needed: &Needed| connection.run(needed.found, &args).count() > 0;
                is_there |= question.needs.is_none_or(found);
                answer.add(connection, question.rows, &args);
            });
        });
    }
    if let Some(needed) = question.needs.filter(|_| !is_there) {
        let message: String = connected(|connection| connection.run(needed.message, &args_of(None)).only().value());
        failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, message)
            .hint("SELECT tenant, period, period_start FROM talkmeter.my_usage_monthly lists those that there are.")
            .raise();
    }
    pg_sys::Datum::from(0usize)
}

const ONLY_ONE: &str =
    "A role that reads several tenants says whose charge it is: my_dispute(charge_id, reason, tenant).";

/// The tenant in whose name the caller acts: the one that it names, or its only one.
pub fn acting_for(named: Option<&str>) -> String {
    let own = tenants();
    match named {
        None => match <[String; 1]>::try_from(own) {
            Ok([only]) => only,
            Err(own) if own.is_empty() => not_a_reader(None),
            Err(_) => {
                failure(PgSqlErrorCode::ERRCODE_AMBIGUOUS_PARAMETER, "you read several tenants").hint(ONLY_ONE).raise()
            }
        },
        Some(named) if own.iter().any(|tenant| tenant == named) => named.to_owned(),
        Some(named) => not_a_reader(Some(named)),
    }
}

fn not_a_reader(named: Option<&str>) -> ! {
    let whom = named.map_or("any tenant".to_owned(), |tenant| format!("tenant \"{tenant}\""));
    failure(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("you do not read {whom}"))
        .hint("The vendor lets a role read a tenant: talkmeter.grant_tenant(role, tenant).")
        .raise()
}
