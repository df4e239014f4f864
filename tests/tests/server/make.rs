//! Do `make install`, `make uninstall` and `make setup` refuse what would do harm or cannot work, in words that help?

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use talkmeter_tests::private::Server;
use talkmeter_tests::{attach, create_messages, messages_mapping, variable};

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}

/// A directory that the server's user may read, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = PathBuf::from(variable("TALKMETER_DIR")).join(format!("{name}_{}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("one that all may read");
        Directory(path)
    }

    /// Makes a program in it, and says where.
    fn program(&self, name: &str, script: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("one that all may run");
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Whether the command succeeded, and all that it printed.
pub fn done(command: &mut Command) -> (bool, String) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

fn in_use(host: &Path) -> (bool, String) {
    let mut command = Command::new(root().join("scripts/in-use.sh"));
    done(command.env("PG_CONFIG", format!("{}/pg_config", variable("TALKMETER_BIN"))).env("PGHOST", host))
}

#[test]
fn whoever_would_miss_the_files_is_named_with_the_three_steps_until_they_are_done() {
    let server = Server::with(&[]);
    let host = Path::new(server.directory());
    assert!(in_use(host).0, "nothing is there yet");

    let mut session = server.create("shop");
    create_messages(&mut session);
    attach(&mut session, "messages", "agent_red", None, &messages_mapping());
    let (is_free, said) = in_use(host);
    assert!(!is_free && said.contains("database shop: attached: messages"), "{said}");
    let steps = ["SELECT talkmeter.detach(source) FROM talkmeter.sources;", "DROP EXTENSION talkmeter;"];
    for step in steps.iter().chain(&["make uninstall"]) {
        assert!(said.contains(step), "{said}");
    }

    session.run(steps[0]);
    let (is_free, said) = in_use(host);
    assert!(!is_free && said.contains("database shop: the extension"), "{said}");
    session.run(steps[1]);
    let (is_free, said) = in_use(host);
    assert!(is_free, "{said}");
}

#[test]
fn a_server_that_preloads_the_library_would_miss_it() {
    let server = Server::with(&["shared_preload_libraries = 'talkmeter'"]);
    let (is_free, said) = in_use(Path::new(server.directory()));
    assert!(!is_free && said.contains("shared_preload_libraries has it"), "{said}");
}

#[test]
fn nobody_waits_for_a_server_that_wants_a_password_does_not_answer_or_is_not_there() {
    let nobody = Directory::new("nobody");
    let silent = UnixListener::bind(nobody.0.join(".s.PGSQL.5432")).expect("a socket");
    fs::set_permissions(nobody.0.join(".s.PGSQL.5432"), fs::Permissions::from_mode(0o777)).expect("for all");
    let server = Server::with(&[]);
    fs::write(format!("{}/pg_hba.conf", server.data()), "local all all scram-sha-256\n").expect("the file");
    server.connect("postgres");
    server.stop("fast");
    server.start();
    for host in [nobody.0.as_path(), Path::new(server.directory()), Path::new("/nowhere")] {
        let started = Instant::now();
        let (is_free, said) = in_use(host);
        assert!(is_free && said.contains("nobody knows what the server that PGHOST"), "{}: {said}", host.display());
        assert!(started.elapsed() < Duration::from_secs(60), "{} waited for", host.display());
    }
    drop(silent);
}

#[test]
fn uninstall_removes_nothing_while_a_server_uses_it_unless_it_is_forced() {
    let directory = Directory::new("uninstall");
    let place = directory.0.display();
    // A server that has the extension in one database, told by a psql that knows the questions.
    directory.program(
        "psql",
        &format!(
            "case $* in
             *pg_database*) echo shop ;;
             *PKGLIBDIR*) echo {place}/lib ;;
             *pg_extension*) echo talkmeter ;;
             *talkmeter.sources*) echo attached: messages ;;
             esac"
        ),
    );
    let pg_config = directory.program(
        "pg_config",
        &format!(
            "case $1 in
             --version) echo PostgreSQL 15.0 ;;
             --bindir) echo {place} ;;
             --pkglibdir) echo {place}/lib ;;
             --sharedir) echo {place}/share ;;
             esac"
        ),
    );
    let scripts = ["talkmeter--9.8.7.sql", "talkmeter--0.0.1--9.8.7.sql"].map(|name| format!("share/extension/{name}"));
    let files = ["lib/talkmeter.so", "share/extension/talkmeter.control", &scripts[0], &scripts[1]];
    for file in files {
        let file = directory.0.join(file);
        fs::create_dir_all(file.parent().expect("a directory")).expect("made");
        fs::write(file, "").expect("a file");
    }
    let there = || files.map(|file| directory.0.join(file).exists());
    let uninstall = |more: &[&str]| {
        let mut make = Command::new("make");
        make.current_dir(root()).arg("uninstall").args(more).env("PG_CONFIG", &pg_config);
        done(make.env("PGHOST", &directory.0).env_remove("MAKEFLAGS"))
    };

    let (is_done, said) = uninstall(&[]);
    assert!(!is_done && said.contains("database shop: attached: messages"), "{said}");
    assert_eq!(there(), [true; 4]);
    let (is_done, said) = uninstall(&["FORCE=1"]);
    assert!(is_done, "{said}");
    assert_eq!(there(), [false; 4]);
}

/// As root, who may have no Rust.
#[test]
fn what_is_built_is_installed_without_a_compiler() {
    let directory = Directory::new("installed");
    fs::create_dir(directory.0.join("bin")).expect("a new directory");
    directory.program("bin/cargo", "echo this cargo cannot compile; exit 1");
    let mut make = Command::new("make");
    make.current_dir(root()).arg("install").arg(format!("DESTDIR={}", directory.0.display()));
    let (is_done, said) = done(make.env("CARGO_HOME", &directory.0).env_remove("MAKEFLAGS"));
    assert!(is_done && !said.contains("cannot compile"), "{said}");
    let (_, found) =
        done(Command::new("find").arg(&directory.0).args(["-type", "f", "-name", "talkmeter*", "-printf", "%f\n"]));
    let mut files: Vec<&str> = found.lines().collect();
    files.sort();
    assert_eq!(files, ["talkmeter--0.2.0--0.3.0.sql", "talkmeter--0.3.0.sql", "talkmeter.control", "talkmeter.so"]);
}

#[test]
fn what_is_no_pg_config_is_refused_by_what_it_says() {
    for (program, answer) in [("/usr/bin/true", "is no pg_config"), ("/nonsense", "does not run")] {
        let (is_done, said) = done(Command::new(root().join("scripts/setup.sh")).env("PG_CONFIG", program));
        assert!(!is_done && said.contains(&format!("PG_CONFIG={program} {answer}")), "{said}");
        assert!(said.contains("/bin/pg_config."), "{said}");
    }
}

/// The set-up for a purpose with nothing on PATH but these programs of the directory, and what it calls before it looks further.
fn set_up(directory: &Directory, purpose: &str) -> Command {
    for name in ["dirname", "basename", "sed", "id", "cut", "sort", "head", "grep"] {
        let program = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
        let program = program.iter().find(|program| program.exists()).expect("a program of every system");
        let link = directory.0.join(name);
        if !link.exists() {
            symlink(program, link).expect("a link");
        }
    }
    let mut command = Command::new("/bin/bash");
    command.env_clear().env("PATH", &directory.0).env("HOME", &directory.0);
    command.arg(root().join("scripts/setup.sh")).arg(purpose);
    command
}

#[test]
fn who_has_no_rust_learns_how_to_get_it_and_that_sudo_has_another_home() {
    let directory = Directory::new("no_rust");
    let mut command = set_up(&directory, "build");
    let (is_done, said) = done(&mut command);
    assert!(!is_done && said.contains("Rust is missing; talkmeter needs") && said.contains("rustup"), "{said}");
    let (is_done, said) = done(command.env("SUDO_USER", "ann"));
    assert!(!is_done && said.contains("Run this without sudo, as the user who has Rust"), "{said}");
}

#[test]
fn who_has_rust_without_rustfmt_learns_how_to_add_it_and_without_clippy_only_before_the_tests() {
    let directory = Directory::new("no_rustfmt");
    directory.program("rustc", "echo rustc 1.999.0");
    directory.program("cargo", "exit 1");
    let (is_done, said) = done(&mut set_up(&directory, "demo"));
    assert!(!is_done && said.contains("without 'cargo fmt'"), "{said}");
    assert!(said.ends_with("rustup component add rustfmt\n"), "{said}");
    directory.program("cargo", "[ $1 = fmt ]");
    let (is_done, said) = done(&mut set_up(&directory, "test"));
    assert!(!is_done && said.contains("without 'cargo clippy'"), "{said}");
    assert!(said.ends_with("rustup component add rustfmt clippy\n"), "{said}");
    let (_, said) = done(&mut set_up(&directory, "demo"));
    assert!(!said.contains("cargo"), "{said}");
}

#[test]
fn a_target_asks_for_no_package_that_only_another_needs() {
    let directory = Directory::new("packages");
    directory.program("rustc", "echo rustc 1.999.0");
    directory.program("cargo", "exit 0");
    // Of the server itself, not of the private copy, which has no headers.
    let (_, pg_config) = done(
        Command::new("bash")
            .current_dir(root())
            .args(["-c", ". scripts/cluster.sh; echo $($(find_pg_config) --bindir)/pg_config"]),
    );
    let pg_config = pg_config.trim();
    let missing = |purpose: &str| {
        let mut command = set_up(&directory, purpose);
        let (is_done, said) = done(command.env("PG_CONFIG", pg_config));
        let (_, packages) = said.split_once("names): ").unwrap_or_else(|| panic!("{purpose}: {said}"));
        assert!(!is_done && said.contains("This system has no apt-get"), "{purpose}: {said}");
        packages.lines().next().expect("a line").split(' ').map(str::to_owned).collect::<Vec<_>>()
    };
    let [build, demo, test] = ["build", "demo", "test"].map(missing);
    assert_eq!(build, ["gcc", "make"]);
    assert_eq!(demo[..3], ["gcc", "make", "gzip"]);
    assert!(demo.len() <= 4, "{demo:?}");
    assert!(demo.iter().all(|package| test.contains(package)), "{test:?}");
    for package in ["npm", "ruby-pg", "python3-venv", "valgrind", "shellcheck"] {
        assert!(test.contains(&package.to_owned()), "{package} of {test:?}");
    }
}
