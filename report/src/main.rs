//! How does a merchant see what was metered and billed? Writes one page per tenant and billing month.

mod chart;
mod figures;
mod page;
mod psql;
mod watch;

use clap::Parser;
use figures::Figures;
use psql::{Failure, Server};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Write what talkmeter has metered and billed for a tenant as one HTML page that needs no network.
///
/// Connects as psql does (PGHOST, PGSERVICE, .pgpass and so on), and with psql, which must be installed. A tenant's role gets pages of
/// its own tenants; an analyst's of all. Only the public views are read, in one snapshot per page.
#[derive(Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Whose page it is
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    tenant: Option<String>,

    /// A page for each tenant that may be read, with progress
    #[arg(long)]
    all: bool,

    /// Billing month, by the year and month of its first day, as 2026-03 [default: the newest]
    #[arg(short, long, default_value = "", hide_default_value = true)]
    period: String,

    /// Database, URI or connection string, as psql -d
    #[arg(short, long, value_name = "CONNECTION")]
    dbname: Option<String>,

    /// File to write, with --all the directory; - is the standard output [default: TENANT-PERIOD.html here]
    #[arg(short, long)]
    output: Option<PathBuf>,

    /// How many of the newest conversations to explain
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(0..=500))]
    newest: u16,

    /// Serve the page on loopback, read anew at each visit and every SECONDS seconds
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30", conflicts_with_all = ["all", "output"],
        value_parser = clap::value_parser!(u32).range(1..))]
    watch: Option<u32>,

    /// Port of --watch on 127.0.0.1; 0: any that is free
    #[arg(long, default_value_t = 0, requires = "watch")]
    port: u16,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("talkmeter-report: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let server = Server::new(arguments.dbname.clone());
    let Some(tenant) = &arguments.tenant else { return write_all(arguments, &server) };
    let read = || Figures::read(&server, tenant, &arguments.period, arguments.newest);
    match (arguments.watch, arguments.output.as_deref()) {
        (Some(seconds), _) => watch::serve(arguments.port, seconds, read),
        (None, Some(path)) if path == Path::new("-") => {
            print!("{}", page::render(&read()?, None)?);
            Ok(())
        }
        (None, path) => {
            let figures = read()?;
            let path = path.map_or_else(|| PathBuf::from(page::file_name(&figures)), Path::to_owned);
            write(&path, &figures)?;
            println!("{}", path.display());
            Ok(())
        }
    }
}

/// A page for each tenant. Who has no such month, as one that came later, gets none; that is told, and no failure.
fn write_all(arguments: &Arguments, server: &Server) -> Result<(), Failure> {
    let directory = arguments.output.as_deref().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| Failure::file(directory, &error))?;
    let tenants = figures::tenants(server)?;
    for (index, tenant) in tenants.iter().enumerate() {
        let progress = format!("{} of {}", index + 1, tenants.len());
        match Figures::read(server, tenant, &arguments.period, arguments.newest) {
            Ok(figures) => {
                let path = directory.join(page::file_name(&figures));
                write(&path, &figures)?;
                eprintln!("{progress}: {}", path.display());
            }
            Err(failure) if failure.is_of_no_such_period() => eprintln!("{progress}: {failure}"),
            Err(failure) => return Err(failure),
        }
    }
    Ok(())
}

/// Writes a page, whole or not at all: who looks at the one before sees that.
fn write(path: &Path, figures: &Figures) -> Result<(), Failure> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".part");
    let beside = PathBuf::from(beside);
    let done = fs::write(&beside, page::render(figures, None)?).and_then(|()| fs::rename(&beside, path));
    done.map_err(|error| Failure::file(path, &error))
}
