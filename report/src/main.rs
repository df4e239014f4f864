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
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
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

    /// Billing month, by the year and month of its first day, as 2026-03, or by that day [default: the newest]
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
    #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "30", conflicts_with_all = ["all", "output"])]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
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
        (None, Some(path)) if path == Path::new("-") => print(&page::render(&read()?, None)?),
        (None, path) => {
            let figures = read()?;
            let path = path.map_or_else(|| PathBuf::from(page::file_name(&figures)), Path::to_owned);
            write(&path, &figures)?;
            print(&format!("{}\n", path.display()))
        }
    }
}

/// A page for each tenant. Who has no such month, as one that came later, gets none; who fails is told of, and the others
/// get theirs.
fn write_all(arguments: &Arguments, server: &Server) -> Result<(), Failure> {
    let directory = arguments.output.as_deref().unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|error| Failure::file(directory, &error))?;
    let tenants = figures::tenants(server)?;
    let (mut written, mut failed) = (0, 0);
    for (index, tenant) in tenants.iter().enumerate() {
        let page = Figures::read(server, tenant, &arguments.period, arguments.newest).and_then(|figures| {
            let path = directory.join(page::file_name(&figures));
            write(&path, &figures)?;
            Ok(path)
        });
        let said = match page {
            Ok(path) => {
                written += 1;
                path.display().to_string()
            }
            Err(failure) if failure.is_of_no_such_period() => failure.what,
            Err(failure) => {
                failed += 1;
                format!("tenant {tenant:?}: {failure}")
            }
        };
        eprintln!("{} of {}: {said}", index + 1, tenants.len());
    }
    match (written, failed) {
        (_, 1..) => Err(Failure::new(format!("{failed} of {} tenants have no page", tenants.len()))),
        (0, 0) => Err(Failure::new("there is no page to write: no tenant that this role may read has such a month")),
        _ => Ok(()),
    }
}

/// Writes a page, whole or not at all: who looks at the one before sees that. What is no file, as a pipe, is written to.
fn write(path: &Path, figures: &Figures) -> Result<(), Failure> {
    let page = page::render(figures, None)?;
    put(path, page.as_bytes()).map_err(|error| Failure::file(path, &error))
}

fn put(path: &Path, page: &[u8]) -> io::Result<()> {
    if path.metadata().is_ok_and(|known| !known.is_file()) {
        return fs::OpenOptions::new().write(true).open(path)?.write_all(page);
    }
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As any new file's: the user's mask takes from it.
    let anybody = fs::Permissions::from_mode(0o666);
    let mut beside = tempfile::Builder::new().permissions(anybody).tempfile_in(directory)?;
    beside.write_all(page)?;
    beside.persist(&path)?;
    Ok(())
}

/// To the standard output. Who has closed that wants no more of it.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::file(Path::new("-"), &error)),
        _ => Ok(()),
    }
}
