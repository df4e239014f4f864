//! Can each file be read: a first line that says what it answers, short functions, short lines, nothing left over?

use crate::{Source, assert_none, root, rust, sources};

/// Lines of a function, from its name to its closing brace.
const LONGEST_FUNCTION: usize = 60;

/// Functions that may be longer, and why.
const LONG_FOR_A_REASON: [(&str, &str); 10] = [
    ("values", "values of each type, one a line"),
    ("original", "one database with a row of everything that a dump must bring back"),
    ("no_function_looks_through_the_search_path_of_its_caller", "a call of every function"),
    ("shapes", "a list of ids, one a line"),
    ("damage_to_charges_is_named", "a list of damages"),
    ("damage_to_what_was_taken_back_is_named", "a list of damages"),
    ("damage_to_parts_is_named", "a list of damages"),
    ("damage_to_accounts_is_named", "a list of damages"),
    ("damage_to_packs_periods_and_days_is_named", "a list of damages"),
    ("damage_to_what_people_were_told_is_named", "a list of damages"),
];

/// Characters of a line of Rust, and of a line elsewhere or in the tests, which hold SQL and its data. A text that stands
/// alone on its line may be longer: it is shown as one.
const LONGEST_LINE: usize = 120;
const LONGEST_LINE_ELSEWHERE: usize = 150;

/// Words with which a first line asks.
const ASKING: [&str; 16] = [
    "What", "Which", "How", "When", "Where", "Who", "Whose", "Why", "Does", "Do", "Is", "Are", "Can", "May", "With",
    "To",
];

#[test]
fn every_file_says_first_which_question_it_answers() {
    let rust = rust();
    let scripts = sources(&["scripts", "bench"], ".sh");
    let sql = sources(&["sql", "pg_test/sql", "demo", "data", "bench", "dev"], ".sql");
    let silent = rust.iter().chain(&scripts).chain(&sql).filter(|file| !asks(file)).map(|file| file.path.clone());
    assert_none("files whose first line is no question", silent.collect());
}

fn asks(file: &Source) -> bool {
    let is_comment = |line: &&str| ["//!", "# ", "--"].iter().any(|mark| line.starts_with(mark));
    let is_preamble = |line: &&str| line.starts_with("#!") || line.starts_with("# shellcheck");
    let paragraph: Vec<&str> = file.text.lines().skip_while(is_preamble).take_while(is_comment).collect();
    let words = paragraph.join(" ");
    let first = words.split_whitespace().nth(1).unwrap_or_default();
    ASKING.contains(&first.trim_end_matches([',', ':'])) || words.contains('?')
}

#[test]
fn no_function_is_longer_than_a_screen() {
    let mut long = Vec::new();
    for file in rust() {
        for (name, lines) in functions(&file.text) {
            let is_allowed = LONG_FOR_A_REASON.iter().any(|(allowed, _)| *allowed == name);
            if lines > LONGEST_FUNCTION && !is_allowed {
                long.push(format!("{}: {name} has {lines} lines", file.path));
            }
        }
    }
    assert_none("long functions", long);
}

/// The functions of a file that `cargo fmt` has laid out, with their lengths: one ends where a brace closes at the
/// indent of its first line.
fn functions(text: &str) -> Vec<(&str, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indent));
        if line.ends_with('}') || line.ends_with(';') {
            continue;
        }
        if let Some(length) = lines[start..].iter().position(|line| *line == closing) {
            found.push((name, length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.trim_start().split_once("fn ")?;
    let is_head = before.split_whitespace().all(|word| {
        ["pub", "pub(crate)", "const", "unsafe", "async", "extern", "\"C\"", "\"C-unwind\""].contains(&word)
    });
    let name = &after[..after.find(['(', '<'])?];
    is_head.then_some(name)
}

#[test]
fn no_line_is_longer_than_can_be_read() {
    let sql = sources(&["sql", "demo", "data", "bench", "dev"], ".sql");
    let files = [rust(), sql, sources(&["scripts", "bench"], ".sh")].concat();
    let mut long = Vec::new();
    for file in files {
        let is_ours = file.path.starts_with("src") || file.path.starts_with("engine");
        let longest = if is_ours { LONGEST_LINE } else { LONGEST_LINE_ELSEWHERE };
        for (number, line) in (1..).zip(file.text.lines()) {
            if line.chars().count() > longest && !is_a_text(line.trim()) {
                long.push(format!("{}:{number}", file.path));
            }
        }
    }
    assert_none("long lines", long);
}

fn is_a_text(line: &str) -> bool {
    ["\"", "'", "r#\"", "c\""].iter().any(|quote| line.starts_with(quote))
        || line.starts_with("COMMENT ON")
        || line.starts_with("\\echo")
        || line.starts_with("WHEN ")
}

#[test]
fn nothing_is_left_over() {
    // Put together, so that this file does not find itself.
    let leftovers = ["todo!", "unimplemented!", "dbg!"].map(|name| format!("{name}("));
    let marks = [["FIX", "ME"], ["X", "XX"], ["TO", "DO"]].map(|halves| halves.concat());
    let files = [rust(), sources(&["sql"], ".sql"), sources(&["scripts", "bench"], ".sh")].concat();
    let mut found = Vec::new();
    for file in files {
        for (number, line) in (1..).zip(file.text.lines()) {
            let mut words = line.split(|letter: char| !letter.is_alphanumeric());
            let is_left = leftovers.iter().any(|left| line.contains(left.as_str()))
                || words.any(|word| marks.iter().any(|mark| mark == word));
            if is_left || is_code_in_a_comment(line) {
                found.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    assert_none("leftovers", found);
}

fn is_code_in_a_comment(line: &str) -> bool {
    let Some(comment) = line.trim_start().strip_prefix("// ") else { return false };
    let is_statement = ["let ", "use ", "fn ", "pub ", "if ", "for ", "return", "match "]
        .iter()
        .any(|word| comment.starts_with(word) && (comment.ends_with(';') || comment.ends_with('{')));
    is_statement || comment.ends_with("();")
}

#[test]
fn nothing_speaks_of_where_it_was_made() {
    let home = std::env::var("HOME").unwrap_or_default();
    let places = [home.as_str(), &root().to_string_lossy()].map(str::to_owned);
    let pages = sources(&["docs", "tests", "data"], ".md");
    let files = [rust(), pages, sources(&["sql"], ".sql"), sources(&["scripts", "bench"], ".sh")].concat();
    let speaks = |file: &Source| places.iter().any(|place| place.len() > 1 && file.text.contains(&format!("{place}/")));
    assert_none(
        "paths of this machine",
        files.iter().filter(|file| speaks(file)).map(|file| file.path.clone()).collect(),
    );
}

#[test]
fn a_long_function_and_what_is_left_over_are_noticed() {
    let body = "    f();\n".repeat(LONGEST_FUNCTION);
    let text = format!("impl A {{\n    pub fn long<T>(a: T) {{\n{body}    }}\n    fn short() {{\n    }}\n}}\n");
    assert_eq!(functions(&text), [("long", LONGEST_FUNCTION + 2), ("short", 2)]);
    assert!(is_code_in_a_comment("    // let a = 1;") && !is_code_in_a_comment("    // Let it be; it is prose."));
}

/// What reads a table that is not ours, or makes reading it possible, and the only files that may say it. A look-up is
/// part of the application's own INSERT, and compares and returns texts.
const OF_FOREIGN_TABLES: [(&str, &[&str]); 4] = [
    ("as_table_owner(", &["src/catalog/reading.rs", "src/capture/look_up.rs"]),
    (".run_composed(", &["src/catalog/reading.rs", "src/capture/look_up.rs"]),
    ("lock_known(", &["src/catalog/source_query.rs"]),
    ("reader.read(", &["src/catalog/reading.rs", "src/pg/row.rs"]),
];

#[test]
fn a_table_that_is_not_ours_is_read_in_one_room() {
    let mut outside = Vec::new();
    for file in sources(&["src"], ".rs") {
        for (words, rooms) in OF_FOREIGN_TABLES {
            let says = file.text.lines().any(|line| line.contains(words) && !line.contains("pub fn"));
            if says && !rooms.contains(&file.path.as_str()) {
                outside.push(format!("{}: {words}", file.path));
            }
        }
        // What is put together at run time and run once is DDL.
        let runs_once = file.text.contains(".run_once(") && !file.path.starts_with("src/calls/");
        if runs_once || file.text.contains("pg_sys::SPI_exec") && file.path != "src/pg/sql.rs" {
            outside.push(format!("{}: statements of its own", file.path));
        }
    }
    assert_none("foreign tables read outside of src/catalog/reading.rs", outside);
}

/// What turns a datum into a value. Read as another type than it has, it may be any memory of the process.
const OF_DATUMS: [&str; 5] =
    ["from_datum(", "from_polymorphic_datum(", "SPI_getbinval(", "cast_mut_ptr(", "tts_values"];

#[test]
fn a_datum_is_read_where_its_type_is_known() {
    let rooms =
        ["row", "jsonb", "varlena", "sql", "own_table", "spool", "clock"].map(|room| format!("src/pg/{room}.rs"));
    let reads = |text: &str| OF_DATUMS.iter().any(|word| text.contains(word));
    let elsewhere = sources(&["src"], ".rs").into_iter().filter(|file| !rooms.contains(&file.path));
    assert_none("datums read elsewhere", elsewhere.filter(|file| reads(&file.text)).map(|file| file.path).collect());
}
