//! How are the views asked? By psql: so who connects with it connects here, by the same settings.

use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// What went wrong, and what helps.
#[derive(Debug)]
pub struct Failure {
    pub what: String,
    pub hint: Option<&'static str>,
    no_such_period: bool,
}

impl Failure {
    pub fn new(what: impl Into<String>) -> Failure {
        Failure { what: what.into(), hint: None, no_such_period: false }
    }

    pub fn file(path: &Path, error: &io::Error) -> Failure {
        Failure::new(format!("cannot write {}: {error}", path.display()))
    }

    fn hint(self, hint: &'static str) -> Failure {
        Failure { hint: Some(hint), ..self }
    }

    pub fn is_of_no_such_period(&self) -> bool {
        self.no_such_period
    }

    /// The failure that the scripts name.
    pub fn refused(why: &str, tenant: &str, period: &str, detail: &str) -> Failure {
        match why {
            "not_installed" => Failure::new("talkmeter is not in this database")
                .hint("Name the database with --dbname, or run CREATE EXTENSION talkmeter in it."),
            "no_rights" => Failure::new("this role may read no view of talkmeter").hint(
                "A tenant's role gets its own by talkmeter.grant_tenant(role, tenant); an analyst's all, as a member of talkmeter_analyst.",
            ),
            "no_such_period" => Failure {
                no_such_period: true,
                ..Failure::new(format!("tenant {tenant:?} has no billing month {period:?}"))
                    .hint("Months are named by their first day, as 2026-03: see talkmeter.usage_monthly or my_usage_monthly.")
            },
            "ambiguous" => Failure::new(format!("tenant {tenant:?} has several billing months {period:?}: they begin on {detail}"))
                .hint("Name one by its first day: --period 2026-03-01."),
            _ => Failure::new(format!("nothing is billed to a tenant {tenant:?} that this role may read"))
                .hint("See talkmeter.usage_monthly or my_usage_monthly for those who are."),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut Formatter) -> fmt::Result {
        f.write_str(&self.what)?;
        self.hint.map_or(Ok(()), |hint| write!(f, "\nHINT:  {hint}"))
    }
}

/// A database, as psql finds it.
pub struct Server {
    database: Option<String>,
}

impl Server {
    pub fn new(database: Option<String>) -> Server {
        Server { database }
    }

    /// What scripts print, one after the other in a session. Variables are theirs, and quoted by psql.
    pub fn ask(&self, scripts: &[&str], variables: &[(&str, &str)]) -> Result<String, Failure> {
        let mut psql = Command::new("psql");
        psql.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", "--file=-"]);
        psql.args(variables.iter().map(|(name, value)| format!("--set={name}={value}")));
        psql.args(self.database.iter().map(|database| format!("--dbname={database}")));
        psql.env("PGCLIENTENCODING", "UTF8");
        psql.env("PGAPPNAME", "talkmeter-report");
        let mut psql =
            psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(|error| {
                Failure::new(format!("cannot run psql: {error}"))
                    .hint("It is in Debian's package postgresql-client, and must be on PATH.")
            })?;
        // It reads all before it prints what does not fit a pipe; if it has ended, what it said tells why.
        let mut script = psql.stdin.take().expect("piped");
        let _ = script.write_all(scripts.concat().as_bytes());
        drop(script);
        let output = psql.wait_with_output().map_err(|error| Failure::new(format!("psql did not end: {error}")))?;
        if output.status.success() {
            return String::from_utf8(output.stdout).map_err(|_| Failure::new("psql printed what is no UTF-8"));
        }
        Err(Failure::new(said(&String::from_utf8_lossy(&output.stderr))))
    }
}

/// What psql complained of, without its place in the script.
fn said(complaint: &str) -> String {
    let lines = complaint.trim().lines().map(|line| match line.split_once("ERROR:  ") {
        Some((place, error)) if place.starts_with("psql:") => error,
        _ => line,
    });
    // What comes from data would be obeyed by a terminal.
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    lines.collect::<Vec<_>>().join("\n").chars().map(shown).collect()
}
