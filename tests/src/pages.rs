//! How is a page of the documentation taken apart, and each of its blocks run?

use crate::{Database, program, variable};
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The languages whose blocks are run.
pub const RUN: [&str; 5] = ["bash", "js", "python", "ruby", "sql"];

/// Seconds that a block may take, since one that waits for a notification might wait for ever.
const LONGEST: &str = "120";

/// A stretch of a page between two fences, or outside of any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The number of its first line.
    pub line: usize,
    /// What follows the opening fence; `None` outside of blocks.
    pub language: Option<String>,
    pub text: String,
}

/// A page taken apart.
pub fn pieces(page: &str) -> Vec<Piece> {
    let mut pieces = vec![Piece { line: 1, language: None, text: String::new() }];
    for (number, line) in (1..).zip(page.lines()) {
        let last = pieces.last_mut().expect("there is one from the start");
        let next = match (line.strip_prefix("```"), last.language.is_some()) {
            (Some(language), false) => Some(Some(language.to_owned())),
            (Some(""), true) => Some(None),
            _ => None,
        };
        match next {
            Some(language) => pieces.push(Piece { line: number + 1, language, text: String::new() }),
            None => last.text += &format!("{line}\n"),
        }
    }
    assert!(pieces.last().is_some_and(|last| last.language.is_none()), "a block is not closed");
    pieces
}

/// The page that the pieces are.
pub fn put_together(pieces: &[Piece]) -> String {
    let part = |piece: &Piece| match &piece.language {
        Some(language) => format!("```{language}\n{}```\n", piece.text),
        None => piece.text.clone(),
    };
    pieces.iter().map(part).collect()
}

/// Where the output is that a page shows for the block at `index`: with nothing between the two.
pub fn output_of(pieces: &[Piece], index: usize) -> Option<usize> {
    pieces.get(index + 1).filter(|between| between.text.trim().is_empty())?;
    pieces.get(index + 2).filter(|output| output.language.as_deref() == Some("text")).map(|_| index + 2)
}

/// Where the blocks of a page run: a directory, whose files are those of `tests/pages/` for that page and those that
/// the page itself shows; and a database.
pub struct Workplace {
    directory: PathBuf,
    database: String,
}

impl Workplace {
    pub fn new(page: &str, database: &Database) -> Workplace {
        let directory = PathBuf::from(variable("TALKMETER_DIR")).join(format!("page_{}", database.name()));
        let there = root().join("tests/pages").join(page);
        if there.exists() {
            let copied = Command::new("cp").arg("-r").args([&there, &directory]).status().expect("cp");
            assert!(copied.success());
        } else {
            fs::create_dir(&directory).expect("a directory");
        }
        // As from the folder of the project.
        symlink(root().join("definitions"), directory.join("definitions")).expect("a link");
        Workplace { directory, database: database.name().to_owned() }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What a block answers, and whether it failed: its output, then its errors and warnings, without blanks at the
    /// ends of lines. `None` if it is not to be run; if it is a file, it is there from now on.
    pub fn run(&self, block: &Piece) -> Option<(String, bool)> {
        let language = block.language.as_deref()?;
        let is_run = !self.put(block) && RUN.contains(&language);
        is_run.then(|| self.answer(language, &block.text))
    }

    /// Writes the file that a block is, if it is one.
    pub fn put(&self, block: &Piece) -> bool {
        let Some(file) = file_of(block) else { return false };
        let path = self.directory.join(file);
        fs::create_dir_all(path.parent().expect("a directory")).expect("its directory");
        fs::write(path, &block.text).expect("a file");
        true
    }

    /// What a program of that language answers here, and whether it failed.
    pub fn answer(&self, language: &str, text: &str) -> (String, bool) {
        let (mut command, arguments): (Command, &[&str]) = match language {
            "sql" => (program("psql"), &["-X", "-q"]),
            _ => (Command::new("timeout"), &[LONGEST]),
        };
        command.args(arguments).args(match language {
            "sql" => &[][..],
            "bash" => &["bash", "-euo", "pipefail"],
            // Not another one that is earlier on PATH: Debian's packages of clients are known to Debian's alone.
            "python" => &["/usr/bin/python3", "-"],
            "js" => &["node", "-"],
            _ => &["ruby", "-"],
        });
        command.current_dir(&self.directory);
        let path = format!("{}:/usr/bin:{}", variable("TALKMETER_BIN"), variable("PATH"));
        command.env("PATH", path).env("NODE_PATH", root().join("target/clients/node_modules"));
        command.env("PGDATABASE", &self.database).env("PGOPTIONS", "-c TimeZone=UTC").env("PGCLIENTENCODING", "UTF8");
        let locale = if language == "sql" { "C" } else { "C.UTF-8" };
        command.env("LC_ALL", locale).env("PYTHONDONTWRITEBYTECODE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{language}: {error}; make setup installs it"));
        child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads on");
        let output = child.wait_with_output().expect("it ends");
        let all = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        let mut lines: Vec<String> = all.lines().map(|line| line.trim_end().to_owned()).collect();
        if !output.status.success() {
            lines.push(format!("({})", output.status));
        }
        let failed = !output.status.success() || lines.iter().any(|line| line.starts_with("ERROR"));
        (lines.join("\n").trim_matches('\n').to_owned(), failed)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The path that is all that a block's first line says, in a comment.
fn file_of(block: &Piece) -> Option<&str> {
    if block.language.as_deref() == Some("sql") {
        return None;
    }
    let line = block.text.lines().next()?;
    let path = line.strip_prefix("# ").or_else(|| line.strip_prefix("// "))?;
    let is_path = path.contains('.') && !path.contains(' ') && !path.ends_with('.') && !path.contains("..");
    is_path.then_some(path)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the repository")
}
