//! Who may read what? Tenants their own rows only, and the roles that a server may want.

use crate::calls::journal;
use crate::catalog::args::{required, tenant_key};
use crate::pg::error::failure;
use crate::pg::relation::{quoted, statement};
use crate::pg::rights::as_owner;
use crate::pg::sql::{Connection, arg, connected};
use pgrx::iter::SetOfIterator;
use pgrx::prelude::*;
use serde_json::json;

/// What was noted of a role that is gone, or from which all was taken back.
const FORGET: &str = "
    DELETE FROM talkmeter.tenant_reader AS r
    WHERE (r.role = $1 OR r.role_name = $2) AND NOT talkmeter.is_reader(r.role, r.role_name)";

const GRANT: &str = "
    INSERT INTO talkmeter.tenant_reader (role, role_name, tenant) VALUES ($1, $2, $3)
    ON CONFLICT DO NOTHING";

/// Lets a role read the rows of a tenant, and of no other, through the views `my_…`. A role may have several tenants.
#[pg_extern(sql = false)]
fn grant_tenant(role: Option<&str>, tenant: Option<&str>) {
    let role = required(role, "role");
    let tenant = tenant_key(tenant);
    as_owner(|| {
        connected(|connection| {
            if role.starts_with("pg_") {
                failure(
                    PgSqlErrorCode::ERRCODE_RESERVED_NAME,
                    format!("role \"{role}\" is PostgreSQL's own, and all its members would read tenant \"{tenant}\""),
                )
                .hint("Grant the tenant to a role that you made for it.")
                .raise();
            }
            let oid = known_role(connection, role);
            connection.run(FORGET, &[arg(oid), arg(role)]);
            if connection.run(GRANT, &[arg(oid), arg(role), arg(tenant)]).count() > 0 {
                journal::note(connection, "grant_tenant", Some(tenant), json!({"role": role}), None);
            }
            grant(connection, role, TENANT);
        })
    });
}

const FORGET_ALL: &str = "DELETE FROM talkmeter.tenant_reader AS r WHERE NOT talkmeter.is_reader(r.role, r.role_name)";

/// Forgets what was granted to roles that are gone, or from which it was taken back: a dump would hold their bare
/// numbers, which are other roles' elsewhere.
pub fn forget_who_is_gone(connection: &Connection) {
    connection.run(FORGET_ALL, &[]);
}

const REVOKE: &str = "DELETE FROM talkmeter.tenant_reader AS r WHERE r.role = $1 AND r.tenant = $2";

/// Takes that back, and says whether there was anything to take back.
#[pg_extern(sql = false)]
fn revoke_tenant(role: Option<&str>, tenant: Option<&str>) -> bool {
    let role = required(role, "role");
    let tenant = tenant_key(tenant);
    as_owner(|| {
        connected(|connection| {
            let oid = known_role(connection, role);
            let had = connection.run(REVOKE, &[arg(oid), arg(tenant)]).count() > 0;
            if had {
                journal::note(connection, "revoke_tenant", Some(tenant), json!({"role": role}), None);
            }
            had
        })
    })
}

const ROLE: &str = "SELECT r.oid FROM pg_roles AS r WHERE r.rolname = $1";

fn known_role(connection: &Connection, role: &str) -> pg_sys::Oid {
    let rows = connection.run(ROLE, &[arg(role)]);
    let Some(mut row) = rows.first() else {
        failure(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("role \"{role}\" does not exist"))
            .hint("Give its name as pg_roles has it, without quotes; CREATE ROLE makes one.")
            .raise();
    };
    row.value()
}

/// What a role is granted: views and functions by the patterns of their names, and by those that are not meant.
#[derive(Clone, Copy)]
struct Rights {
    views: &'static str,
    no_views: &'static str,
    functions: &'static str,
    no_functions: &'static str,
}

/// Everything but what triggers and tenants' views call, and what asks for a superuser.
const ADMIN: Rights = Rights {
    views: ".",
    no_views: "^my_",
    functions: ".",
    no_functions: "^(on_|own_|my_|is_own|is_reader|show_progress|create_roles|reset_for_tests)",
};

/// What reads, of all tenants.
const ANALYST: Rights = Rights {
    functions: concat!(
        "^(balance|statement|evidence|explain|explain_json|simulate|simulate_parts|verify|health|period_at|periods_starting",
        "|local_day|period_name|currency_digits|months_of|known_period|periods_of_month|periods_named|month_meant|instant_meant|statement_of|statement_lines|statement_units",
        "|units_of_statement|bill_file|bill_file_of|audit_of|working|conversation_key)$"
    ),
    ..ADMIN
};

/// What an application may want to call; its inserts need nothing.
const APPLICATION: Rights = Rights { views: "^$", functions: "^(balance|mark|flush|conversation_key)$", ..ADMIN };

/// What reads, of the own tenants.
const TENANT: Rights = Rights { views: "^my_", no_views: "^$", functions: "^(own_|my_|is_own)", no_functions: "^$" };

/// Creates the roles `<prefix>_admin`, `_analyst`, `_application` and `_tenant`, as far as they are missing, with
/// what each may do, and returns their names. None can log in: grant them to roles that can.
#[pg_extern(sql = false)]
fn create_roles(prefix: Option<&str>, adopt: Option<bool>) -> SetOfIterator<'static, String> {
    let prefix = required(prefix, "prefix");
    let adopt = required(adopt, "adopt");
    let kinds = [("admin", ADMIN), ("analyst", ANALYST), ("application", APPLICATION), ("tenant", TENANT)];
    let names = as_owner(|| {
        connected(|connection| {
            journal::note(connection, "create_roles", None, json!({"prefix": prefix}), None);
            kinds.map(|(kind, rights)| {
                let name = format!("{prefix}_{kind}");
                if !adopt && connection.run(OF_OTHERS, &[arg(name.as_str())]).count() > 0 {
                    refuse_to_adopt(&name);
                }
                if connection.run(ROLE, &[arg(name.as_str())]).count() == 0 {
                    connection.run_once(&statement(&["CREATE ROLE ", &quoted(&name), " NOLOGIN"]), false);
                }
                grant(connection, &name, rights);
                if kind == "admin" {
                    connection.run_once(&statement(&[FILLED_BY_HAND, &quoted(&name)]), false);
                }
                name
            })
        })
    });
    SetOfIterator::new(names)
}

/// A role that somebody can be already, and to which nothing was granted in this database.
const OF_OTHERS: &str = "
    SELECT FROM pg_roles AS r
    WHERE r.rolname = $1
        AND (r.rolcanlogin OR r.rolsuper OR EXISTS (SELECT FROM pg_auth_members AS m WHERE m.roleid = r.oid))
        AND NOT EXISTS (
            SELECT FROM pg_namespace AS n CROSS JOIN LATERAL aclexplode(n.nspacl) AS granted
            WHERE n.nspname = 'talkmeter' AND granted.grantee = r.oid)";

fn refuse_to_adopt(name: &str) -> ! {
    failure(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, format!("role \"{name}\" exists, and somebody can be it already"))
        .detail("It can log in, is a superuser, or has members: they would get its rights in this database.")
        .hint("Call create_roles with another prefix, or with adopt => true if this is meant.")
        .raise()
}

/// The tables that are a vendor's to fill.
const FILLED_BY_HAND: &str = "GRANT SELECT, INSERT, UPDATE, DELETE ON talkmeter.holidays, talkmeter.threshold TO ";

const VIEWS: &str = "
    SELECT c.oid::regclass::text
    FROM pg_class AS c
    WHERE c.relnamespace = 'talkmeter'::regnamespace AND c.relkind = 'v' AND c.relname ~ $1 AND c.relname !~ $2
    ORDER BY c.relname";

const FUNCTIONS: &str = "
    SELECT p.oid::regprocedure::text
    FROM pg_proc AS p
    WHERE p.pronamespace = 'talkmeter'::regnamespace AND p.proname ~ $1 AND p.proname !~ $2
        -- Whoever may execute a trigger's function may put it on a table of his own.
        AND p.prorettype <> 'pg_catalog.trigger'::regtype
    ORDER BY p.proname";

fn grant(connection: &Connection, role: &str, rights: Rights) {
    let role = quoted(role);
    connection.run_once(&statement(&["GRANT USAGE ON SCHEMA talkmeter TO ", &role]), false);
    let views = names(connection, VIEWS, rights.views, rights.no_views);
    if !views.is_empty() {
        connection.run_once(&statement(&["GRANT SELECT ON ", &views, " TO ", &role]), false);
    }
    let functions = names(connection, FUNCTIONS, rights.functions, rights.no_functions);
    if !functions.is_empty() {
        connection.run_once(&statement(&["GRANT EXECUTE ON ROUTINE ", &functions, " TO ", &role]), false);
    }
}

fn names(connection: &Connection, query: &'static str, pattern: &str, but: &str) -> String {
    let rows = connection.run(query, &[arg(pattern), arg(but)]);
    rows.iter().map(|mut row| row.value::<String>()).collect::<Vec<_>>().join(", ")
}
