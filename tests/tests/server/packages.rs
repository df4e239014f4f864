//! Do the packages install, serve and leave nothing, and does `make installcheck` tell a good installation from a bad one?
//!
//! Installed is for real, by apt and dpkg, into the private tree of a server that never had talkmeter: with a list of
//! installed packages of its own, without a source to load from, and without the machine's settings.

use crate::make::{done, root};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use talkmeter_tests::private::Server;
use talkmeter_tests::stock::Stock;
use talkmeter_tests::{program, variable};

/// What a command that must succeed printed.
fn said_by(command: &mut Command) -> String {
    let (is_done, said) = done(command);
    assert!(is_done, "{command:?}: {said}");
    said
}

/// A new directory beside the server's, which goes with it.
fn directory(name: &str) -> PathBuf {
    let path = PathBuf::from(variable("TALKMETER_DIR")).join(format!("packages_{name}_{}", std::process::id()));
    fs::create_dir(&path).expect("a new directory");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("one that all may read");
    path
}

fn version() -> String {
    let control = fs::read_to_string(root().join("talkmeter.control")).expect("the control file");
    let line = control.lines().find(|line| line.starts_with("default_version")).expect("a version");
    line.split('\'').nth(1).expect("quoted").to_owned()
}

fn major() -> String {
    let version = said_by(program("pg_config").arg("--version"));
    version.trim_start_matches("PostgreSQL ").split(['.', ' ', '\n']).next().expect("a number").to_owned()
}

fn architecture() -> String {
    said_by(Command::new("dpkg").arg("--print-architecture")).trim().to_owned()
}

/// Lets make build a target's file into a directory, from what is compiled.
fn make(target: &str, into: &Path) -> PathBuf {
    let mut make = Command::new("make");
    make.current_dir(root()).args(["-s", "-o", "build", target]).arg(format!("PACKAGES={}", into.display()));
    let said = said_by(make.env_remove("MAKEFLAGS"));
    PathBuf::from(said.lines().last().expect("the name of a file"))
}

fn deb() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make("deb", &directory("deb")))
}

fn archive() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| make("package", &directory("archive")))
}

// --- What is in it ---

/// The files of a directory of the repository with that ending, as they lie below `doc`.
fn documents(doc: &str, directory: &str, ending: &str) -> Vec<String> {
    let files = fs::read_dir(root().join(directory)).expect("a directory");
    let names = files.map(|file| file.expect("a file").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(ending)).map(|name| format!("{doc}/{directory}/{name}")).collect()
}

fn pages(doc: &str) -> Vec<String> {
    let alone = [format!("{doc}/README.md"), format!("{doc}/dev/talkmeter_stub.sql")].to_vec();
    let of_directories = [
        ("docs", ".md"),
        ("docs", ".png"),
        ("definitions", ".sql"),
        ("dashboards/grafana", ".json"),
        ("dashboards/prometheus", ".yml"),
    ];
    alone.into_iter().chain(of_directories.iter().flat_map(|(from, ending)| documents(doc, from, ending))).collect()
}

#[test]
fn a_debian_package_is_named_and_laid_out_as_pgdgs_and_holds_nothing_else() {
    let (major, version) = (major(), version());
    let name = format!("postgresql-{major}-talkmeter_{version}-1_{}.deb", architecture());
    assert_eq!(deb().file_name().expect("a name").to_string_lossy(), name);
    let doc = format!("./usr/share/doc/postgresql-{major}-talkmeter");
    let mut expected: BTreeSet<String> = pages(&doc).into_iter().collect();
    expected.extend([
        format!("./usr/lib/postgresql/{major}/lib/talkmeter.so"),
        format!("./usr/share/postgresql/{major}/extension/talkmeter.control"),
        format!("./usr/share/postgresql/{major}/extension/talkmeter--{version}.sql"),
        format!("{doc}/copyright"),
        format!("{doc}/changelog.Debian.gz"),
        format!("{doc}/changelog.gz"),
    ]);
    let upgrades = fs::read_dir(root().join("sql/upgrades")).expect("the upgrades").map(|file| {
        let name = file.expect("a file").file_name().to_string_lossy().into_owned();
        format!("./usr/share/postgresql/{major}/extension/{name}")
    });
    expected.extend(upgrades.filter(|path| path.contains("/talkmeter--")));
    let listed = said_by(Command::new("dpkg-deb").arg("-c").arg(deb()));
    let files = listed.lines().filter(|line| !line.ends_with('/'));
    let found: BTreeSet<String> = files.map(|line| line.rsplit(' ').next().expect("a path").to_owned()).collect();
    assert_eq!(found, expected);
    assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
    let depends = said_by(Command::new("dpkg-deb").arg("-f").arg(deb()).arg("Depends"));
    assert!(depends.starts_with(&format!("postgresql-{major}, ")) && depends.contains("libc6 (>= "), "{depends}");
}

#[test]
fn the_library_does_not_tell_where_it_was_made() {
    let library = fs::read(root().join(format!("target/pg{}/talkmeter.so", major()))).expect("the library");
    let tells = |path: &str| library.windows(path.len()).any(|bytes| bytes == path.as_bytes());
    assert!(tells("cargo/registry"), "a panic names the file it comes from");
    let root = root().display().to_string();
    let home = variable("HOME");
    for place in [root, format!("{home}/.cargo"), format!("{home}/.rustup")] {
        assert!(!tells(&place), "{place}");
    }
}

#[test]
fn lintian_finds_no_error_in_a_debian_package() {
    let (is_right, said) = done(Command::new("lintian").args(["--fail-on", "error", "--allow-root"]).arg(deb()));
    assert!(is_right && !said.contains("E: "), "{said}");
}

#[test]
fn the_same_build_gives_the_same_package_and_the_same_archive_again() {
    let again = directory("again");
    for (target, first) in [("deb", deb()), ("package", archive())] {
        let second = make(target, &again);
        assert!(fs::read(first).expect("a file") == fs::read(&second).expect("a file"), "{target} differs");
    }
}

// --- Installed ---

/// A server without talkmeter, and an apt that knows no other files than those of its private tree.
struct Bare {
    stock: Stock,
    apt: PathBuf,
    /// The files of the tree.
    before: BTreeSet<String>,
}

impl Bare {
    fn new(name: &str) -> Bare {
        let stock = Stock::start();
        let bare = Bare { apt: directory(name), before: BTreeSet::new(), stock };
        bare.lay_out_as_debian();
        let state = bare.tree().join("var/lib/dpkg");
        for part in ["info", "updates", "triggers"] {
            fs::create_dir_all(state.join(part)).expect("a directory");
        }
        for part in ["lists/partial", "archives/partial", "log"] {
            fs::create_dir_all(bare.apt.join(part)).expect("a directory");
        }
        fs::write(state.join("available"), "").expect("a file");
        let has = "Package: ${Package}\nStatus: install ok installed\nMaintainer: Debian <debian@example.org>\n\
                   Architecture: ${Architecture}\nVersion: ${Version}\nDescription: ${Package}\n\n";
        let system = said_by(Command::new("dpkg-query").args(["-W", "-f", has, "libc6", "libgcc-s1"]));
        fs::write(state.join("status"), system).expect("a file");
        let (apt, tree) = (bare.apt.display(), bare.tree());
        let settings = format!(
            "Dir::Etc {{ main \"/dev/null\"; parts \"/dev/null\"; sourcelist \"/dev/null\"; sourceparts \"/dev/null\";
                 preferences \"/dev/null\"; preferencesparts \"/dev/null\"; }};
             Dir::State \"{apt}\"; Dir::State::status \"{tree}/var/lib/dpkg/status\"; Dir::Cache \"{apt}\";
             Dir::Log \"{apt}/log\"; APT::Sandbox::User \"root\"; Debug::NoLocking \"true\";
             DPkg::Options {{ \"--root={tree}\"; \"--log=/dev/null\"; \"--force-not-root\";
                 \"--force-script-chrootless\"; }};",
            tree = tree.display()
        );
        fs::write(bare.apt.join("apt.conf"), settings).expect("a file");
        Bare { before: bare.files(), ..bare }
    }

    fn tree(&self) -> PathBuf {
        Path::new(self.stock.directory()).join("tree")
    }

    /// What the server itself says of its places.
    fn place(&self, option: &str) -> PathBuf {
        let below = PathBuf::from(variable("TALKMETER_BIN"));
        let below = below.strip_prefix(variable("TALKMETER_DIR")).expect("a directory of the tree");
        let own = Path::new(self.stock.directory()).join(below).join("pg_config");
        PathBuf::from(said_by(Command::new(own).arg(option)).trim())
    }

    /// Servers that are not Debian's have their files elsewhere: then links lead there.
    fn lay_out_as_debian(&self) {
        let major = major();
        let places = [
            (format!("usr/lib/postgresql/{major}/lib"), self.place("--pkglibdir")),
            (format!("usr/share/postgresql/{major}"), self.place("--sharedir")),
        ];
        for (debian, own) in places {
            let debian = self.tree().join(debian);
            if !debian.exists() {
                fs::create_dir_all(debian.parent().expect("a directory")).expect("made");
                std::os::unix::fs::symlink(own, debian).expect("a link");
            }
        }
    }

    /// All that is in the tree, but for dpkg's own notes.
    fn files(&self) -> BTreeSet<String> {
        let mut find = Command::new("find");
        find.arg(self.tree()).args(["-path", "*/var/lib/dpkg", "-prune", "-o", "-printf", "%P %l %s\n"]);
        said_by(&mut find).lines().map(str::to_owned).collect()
    }

    /// Makes apt take the server for one that a package has brought.
    fn has_its_server(&self) {
        let status = self.tree().join("var/lib/dpkg/status");
        let (major, architecture) = (major(), architecture());
        let known = fs::read_to_string(&status).expect("a file");
        let server = format!(
            "Package: postgresql-{major}\nStatus: install ok installed\nMaintainer: Debian <debian@example.org>\n\
             Architecture: {architecture}\nVersion: {major}.1\nDescription: the server\n\n"
        );
        fs::write(status, known + &server).expect("a file");
        // Whose directories they are: else they would leave with the last package that has files in them.
        let own = [format!("/usr/lib/postgresql/{major}/lib"), format!("/usr/share/postgresql/{major}/extension")];
        let list: BTreeSet<String> = own
            .iter()
            .flat_map(|place| Path::new(place).ancestors())
            .map(|place| format!("{}\n", place.display()))
            .collect();
        let list: String = list.into_iter().filter(|line| line != "/\n").collect();
        fs::write(self.tree().join(format!("var/lib/dpkg/info/postgresql-{major}.list")), list).expect("a file");
    }

    fn apt(&self, arguments: &[&str]) -> (bool, String) {
        let mut apt = Command::new("apt-get");
        apt.env("APT_CONFIG", self.apt.join("apt.conf")).env("LC_ALL", "C");
        done(apt.args(["-y", "-q"]).args(arguments))
    }

    /// `make installcheck` of it.
    fn checked(&self) -> (bool, String) {
        installcheck(self.stock.directory(), &[])
    }

    fn put_in_by_apt(name: &str) -> Bare {
        let bare = Bare::new(name);
        bare.has_its_server();
        let (is_in, said) = bare.apt(&["install", &deb().to_string_lossy()]);
        assert!(is_in, "{said}");
        bare
    }
}

fn installcheck(host: &str, more: &[(&str, &str)]) -> (bool, String) {
    let mut make = Command::new("make");
    make.current_dir(root()).args(["-s", "installcheck"]).env_remove("MAKEFLAGS");
    done(make.env("PGHOST", host).env("PGPORT", "5432").envs(more.iter().copied()))
}

#[test]
fn without_its_server_apt_refuses_the_package() {
    let bare = Bare::new("refused");
    let (is_in, said) = bare.apt(&["install", &deb().to_string_lossy()]);
    assert!(!is_in && said.contains(&format!("Depends: postgresql-{}", major())), "{said}");
    assert_eq!(bare.files(), bare.before);
}

#[test]
fn apt_installs_it_a_database_gets_the_extension_and_removal_leaves_nothing() {
    let bare = Bare::put_in_by_apt("apt");
    let (package, admin) = (format!("postgresql-{}-talkmeter", major()), format!("--root={}", bare.tree().display()));
    assert_eq!(said_by(Command::new("dpkg").args([&admin, "--verify", &package])), "");

    let mut session = bare.stock.create("shop");
    session.run("CREATE EXTENSION talkmeter");
    assert_eq!(session.lines("SELECT extversion FROM pg_extension WHERE extname = 'talkmeter'"), [version()]);
    assert_eq!(session.line("SELECT talkmeter.currency_digits('USD')"), "2");
    // Its next version comes in the same way.
    let (is_in, said) = bare.apt(&["install", "--reinstall", &deb().to_string_lossy()]);
    assert!(is_in && said.contains(&format!("Unpacking {package}")), "{said}");
    assert_eq!(session.line("SELECT talkmeter.currency_digits('JPY')"), "0", "a session that was there before");
    session.run("DROP EXTENSION talkmeter");

    let (is_out, said) = bare.apt(&["remove", &package]);
    assert!(is_out, "{said}");
    assert_eq!(bare.files(), bare.before);
    let status = Command::new("dpkg-query").args([&admin, "-W"]).output().expect("dpkg-query");
    assert!(!String::from_utf8_lossy(&status.stdout).contains("talkmeter"), "something is left to purge");
}

#[test]
fn the_archive_installs_and_leaves_by_the_commands_that_it_brings() {
    let bare = Bare::new("by_hand");
    let unpacked = directory("unpacked");
    said_by(Command::new("tar").args(["-xzf"]).arg(archive()).arg("-C").arg(&unpacked));
    let name = archive().file_name().expect("a name").to_string_lossy().replace(".tar.gz", "");
    let unpacked = unpacked.join(name);
    let text = fs::read_to_string(unpacked.join("INSTALL")).expect("the instructions");
    let follow = |first: &str| {
        let commands: Vec<&str> = text.lines().filter(|line| line.starts_with(&format!("    {first} "))).collect();
        assert!(!commands.is_empty(), "{text}");
        let (own, others) = (bare.place("--bindir"), std::env::var("PATH").expect("a path"));
        let mut bash = Command::new("bash");
        bash.env("PATH", format!("{}:{others}", own.display())).current_dir(&unpacked);
        said_by(bash.args(["-euc", &commands.join("\n")]));
    };
    follow("install");
    let mut session = bare.stock.create("shop");
    session.run("CREATE EXTENSION talkmeter");
    assert_eq!(session.line("SELECT talkmeter.currency_digits('USD')"), "2");
    session.run("DROP EXTENSION talkmeter");
    follow("rm");
    assert_eq!(bare.files(), bare.before);
    assert!(unpacked.join("LICENSE").exists() && unpacked.join("doc/docs/operations.md").exists());
}

/// `dpkg-query`, asked who owns a file, is told of by a program that answers.
#[test]
fn make_neither_overwrites_nor_removes_what_a_package_owns() {
    let directory = directory("owned");
    let owner = directory.join("dpkg-query");
    fs::write(&owner, "#!/bin/sh\necho \"postgresql-15-talkmeter: $2\"\n").expect("a file");
    fs::set_permissions(&owner, fs::Permissions::from_mode(0o755)).expect("one that all may run");
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").expect("a path"));
    let pg_config = format!("{}/pg_config", variable("TALKMETER_BIN"));
    let library = PathBuf::from(said_by(Command::new(&pg_config).arg("--pkglibdir")).trim()).join("talkmeter.so");
    let before = fs::metadata(&library).expect("the library").modified().expect("its time");
    for target in ["install", "uninstall"] {
        let mut make = Command::new("make");
        make.current_dir(root()).arg(target).env("PATH", &path).env("PG_CONFIG", &pg_config).env_remove("MAKEFLAGS");
        let (is_done, said) = done(&mut make);
        assert!(!is_done && said.contains("apt-get remove postgresql-15-talkmeter"), "{target}: {said}");
    }
    assert_eq!(fs::metadata(&library).expect("still there").modified().expect("its time"), before);
}

// --- make installcheck ---

#[test]
fn installcheck_passes_where_the_package_is_and_fails_where_the_public_may_read_the_charges() {
    let bare = Bare::put_in_by_apt("checked");
    let (is_right, said) = bare.checked();
    assert!(is_right && said.ends_with("installcheck: 5 passed, 0 failed\n"), "{said}");

    let script = bare.place("--sharedir").join(format!("extension/talkmeter--{}.sql", version()));
    let text = fs::read_to_string(&script).expect("the script");
    fs::write(&script, text + "GRANT SELECT ON talkmeter.charges TO PUBLIC;\n").expect("a script that grants more");
    let (is_right, said) = bare.checked();
    assert!(!is_right && said.contains("not ok  00_install") && said.contains("+ talkmeter.charges"), "{said}");
}

#[test]
fn installcheck_leaves_a_server_as_it_was_and_refuses_to_drop_what_is_not_its_own() {
    let server = Server::with(&[]);
    let mut session = server.connect("postgres");
    let there = "SELECT datname::text FROM pg_database UNION ALL SELECT rolname::text FROM pg_roles ORDER BY 1";
    let before = session.lines(there);
    let (is_right, said) = installcheck(server.directory(), &[]);
    assert!(is_right, "{said}");
    assert_eq!(session.lines(there), before);

    session.run("CREATE ROLE regress_clerk LOGIN");
    let (is_right, said) = installcheck(server.directory(), &[]);
    assert!(!is_right && said.contains("has a role regress_clerk"), "{said}");
    let (is_right, said) = installcheck(server.directory(), &[("PGUSER", "regress_clerk")]);
    assert!(!is_right && said.contains("regress_clerk is no superuser there"), "{said}");
    assert_eq!(session.lines("SELECT rolname FROM pg_roles WHERE rolname = 'regress_clerk'"), ["regress_clerk"]);
}

#[test]
fn installcheck_says_where_it_reaches_nobody_and_where_nothing_is_installed() {
    let (is_right, said) = installcheck("/nowhere", &[]);
    assert!(!is_right && said.contains("cannot ask the server:") && said.contains("Set PGHOST"), "{said}");
    let (is_right, said) = installcheck(Stock::start().directory(), &[]);
    assert!(!is_right && said.contains("talkmeter is not installed on that server"), "{said}");
}

// --- The source, as PGXN takes it ---

#[test]
fn the_source_unpacks_into_a_directory_where_all_builds_and_installcheck_is_there() {
    let directory = directory("source");
    let zip = make("dist", &directory);
    assert_eq!(zip.file_name().expect("a name").to_string_lossy(), format!("talkmeter-{}.zip", version()));
    said_by(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&zip).arg(&directory));
    let source = directory.join(format!("talkmeter-{}", version()));
    let committed = said_by(Command::new("git").current_dir(root()).args(["show", "HEAD:META.json"]));
    assert_eq!(fs::read_to_string(source.join("META.json")).expect("the description"), committed);
    let planned = |target: &str| {
        let mut make = Command::new("make");
        said_by(make.current_dir(&source).args(["-n", target]).env_remove("MAKEFLAGS"))
    };
    assert!(planned("all").contains("cargo build --profile release --locked -p talkmeter"));
    assert!(planned("installcheck").contains("scripts/installcheck.sh"));
}
