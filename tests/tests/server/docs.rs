//! Does the documentation say what is? Its SQL runs as it stands, and each output that it shows is compared.
//!
//! Every block of ```sql of README.md and of docs/*.md is given to psql, page by page in order, each page in a
//! database of its own. A block of ```text right after it is what psql answers; a block that fails shows its ERROR
//! there. So it is with blocks of ```bash, ```js, ```python and ```ruby, which run in a directory of the page's; one
//! whose first line is a comment with nothing but a path is a file there. With TALKMETER_ACCEPT=1 the outputs are
//! written into the pages instead of being compared. What is not to be run is a block of ```sh, or of no language.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use talkmeter_engine::event::Kind;
use talkmeter_engine::mapping::check::KEYS;
use talkmeter_engine::part::{EndReason, Reason};
use talkmeter_tests::pages::{Piece, RUN, Workplace, output_of, pieces, put_together};
use talkmeter_tests::{Database, Session, assert_same_rows};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The README, then the pages by name.
fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).expect("the directory of the pages");
    let mut pages: Vec<PathBuf> = docs.map(|entry| entry.expect("a page").path()).collect();
    pages.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    pages.insert(0, root().join("README.md"));
    pages
}

// --- A page ---

/// The roles of the server but those of tests that run beside this one: a database of such a test is in their names.
fn roles(session: &mut Session) -> BTreeSet<String> {
    let of_tests = format!("_{}_", std::process::id());
    let roles = session.lines("SELECT quote_ident(rolname) FROM pg_roles");
    roles.into_iter().filter(|role| !role.contains(&of_tests)).collect()
}

/// Runs a page's blocks, puts what psql said into the page, and returns what is not as the page has it: if outputs are
/// accepted, only what fails and shows none.
fn run(path: &Path, pieces: &mut [Piece], administrator: &mut Session, accepts: bool) -> Vec<String> {
    let name = path.file_stem().expect("a page has a name").to_string_lossy().to_lowercase();
    let before = roles(administrator);
    let database = Database::empty(&name);
    let workplace = Workplace::new(&name, &database);
    let mut wrong = Vec::new();
    for index in 0..pieces.len() {
        let Some((found, failed)) = workplace.run(&pieces[index]) else { continue };
        let shown = output_of(pieces, index).map(|output| &mut pieces[output].text);
        let expected = shown.as_deref().map(|text| text.trim_matches('\n').to_owned());
        if let Some(shown) = shown {
            *shown = format!("{found}\n");
        }
        let is_right = expected.as_ref().map_or(!failed, |expected| accepts || *expected == found);
        if !is_right {
            let (line, expected) = (pieces[index].line, expected.unwrap_or_default());
            wrong.push(format!(
                "{}, block at line {line}:\n{}--- expected\n{expected}\n--- found\n{found}\n",
                path.display(),
                pieces[index].text
            ));
        }
    }
    // Roles are the cluster's: what a page made leaves with it, after what it was granted.
    drop((workplace, database));
    for role in roles(administrator).difference(&before) {
        administrator.run(&format!("DROP ROLE {role}"));
    }
    wrong
}

#[test]
fn every_statement_of_the_documentation_runs_and_answers_what_is_shown() {
    let administration = Database::empty("administration");
    let mut administrator = administration.connect();
    let accepts = std::env::var("TALKMETER_ACCEPT").is_ok_and(|value| value == "1");
    let mut wrong = Vec::new();
    for path in pages() {
        let page = std::fs::read_to_string(&path).expect("a page");
        let mut pieces = pieces(&page);
        assert_eq!(put_together(&pieces), page, "{}", path.display());
        wrong.extend(run(&path, &mut pieces, &mut administrator, accepts));
        if accepts {
            std::fs::write(&path, put_together(&pieces)).expect("a page that can be written");
        }
    }
    assert!(wrong.is_empty(), "{} blocks are wrong:\n\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn no_page_shows_an_output_without_the_statements_that_give_it() {
    for path in pages() {
        let pieces = pieces(&std::fs::read_to_string(&path).expect("a page"));
        let compared: BTreeSet<usize> = (0..pieces.len())
            .filter(|index| pieces[*index].language.as_deref().is_some_and(|language| RUN.contains(&language)))
            .filter_map(|index| output_of(&pieces, index))
            .collect();
        for (index, piece) in pieces.iter().enumerate() {
            let known = [&RUN[..], &["", "sh", "text", "json", "prisma", "ts", "yaml"]].concat();
            let is_known = piece.language.as_deref().is_none_or(|language| known.contains(&language));
            assert!(is_known, "{}, line {}: {:?}", path.display(), piece.line, piece.language);
            let is_output = piece.language.as_deref() == Some("text");
            assert!(!is_output || compared.contains(&index), "{}, line {}", path.display(), piece.line);
        }
    }
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    for path in pages() {
        let page = std::fs::read_to_string(&path).expect("a page");
        for target in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().expect("a part before any #");
            let is_outside = target.starts_with("http") || file.is_empty();
            let there = path.parent().expect("a directory").join(file);
            assert!(is_outside || there.exists(), "{}: {target}", path.display());
        }
    }
}

// --- The reference ---

fn reference() -> String {
    std::fs::read_to_string(root().join("docs/reference.md")).expect("the reference")
}

/// The text under a heading, up to the next of its level or above.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let start = page.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading}"));
    let text = &page[start + heading.len() + 2..];
    let level = heading.find(' ').expect("its mark");
    let end = (1..=level).filter_map(|level| text.find(&format!("\n{} ", "#".repeat(level)))).min();
    end.map_or(text, |end| &text[..end])
}

/// What stands between back-quotes.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The cells of a table's rows, without its heading.
fn rows(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect()
}

/// What stands between back-quotes in the first cells.
fn first_cells(text: &str) -> Vec<String> {
    rows(text).iter().flat_map(|row| quoted(row[0])).collect()
}

#[track_caller]
fn assert_same(documented: Vec<String>, there: Vec<String>) {
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_same_rows(&sorted(documented), &sorted(there));
}

const IN_ONE_LINE: &str =
    "(prorettype IN ('trigger'::regtype, 'event_trigger'::regtype) OR proname ~ '^(own_|is_own)')";

#[test]
fn the_reference_has_every_function_with_its_arguments_and_no_other() {
    let database = Database::fresh("reference_functions");
    let mut session = database.connect();
    let signatures = session.lines(&format!(
        "SELECT proname || '(' || regexp_replace(
             replace(pg_get_function_arguments(oid), 'timestamp with time zone', 'timestamptz'),
             '(^|(?<= ))IN |::(text|integer|bigint|interval|timestamptz)', '', 'g') || ')'
         FROM pg_proc WHERE pronamespace = 'talkmeter'::regnamespace AND NOT {IN_ONE_LINE}",
    ));
    let reference = reference();
    assert_same(first_cells(section(&reference, "## Functions")), signatures);
    let inner = session.lines(&format!(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'talkmeter'::regnamespace AND {IN_ONE_LINE}"
    ));
    assert_same(quoted(section(&reference, "### Inner functions")), inner);
}

/// What other views and functions are made of.
pub const INNER_VIEWS: &str = "('billed_line', 'part', 'part_now', 'part_or_none', 'posting', 'standing_charge',
    'waiting_unit')";

/// The views that have a heading of their own, each with its columns and what the reference says of them.
fn documented_views(views: &str) -> BTreeMap<String, Vec<(String, String)>> {
    let view = |text: &str| {
        let (name, text) = text.split_once('`').expect("a name between back-quotes");
        let rows = rows(text.split("\n### ").next().expect("its text"));
        (name.to_owned(), rows.iter().map(|row| (quoted(row[0]).remove(0), plain(row[1]))).collect())
    };
    views.split("\n### `").skip(1).map(view).collect()
}

/// The views that have the columns of another one, and that one.
fn siblings(views: &str) -> Vec<(String, String)> {
    let rows = rows(section(views, "### With the columns of another view"));
    rows.iter().map(|row| (quoted(row[0]).remove(0), quoted(row[1]).remove(0))).collect()
}

/// A sentence of a page as a comment has it: of a link the words, and no back-quotes.
fn plain(sentence: &str) -> String {
    let mut links = sentence.split("](");
    let mut plain = links.next().expect("a part before any link").to_owned();
    for rest in links {
        let words = plain.rfind('[').expect("where a link begins");
        plain.remove(words);
        plain += rest.split_once(')').expect("where a link ends").1;
    }
    plain.replace('`', "")
}

#[test]
fn the_reference_has_every_view_with_its_columns_in_their_order_and_no_other() {
    let database = Database::fresh("reference_views");
    let mut session = database.connect();
    let columns = session.lines(&format!(
        "SELECT c.relname || ': ' || string_agg(a.attname, ' ' ORDER BY a.attnum)
         FROM pg_class AS c
         JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
         WHERE c.relnamespace = 'talkmeter'::regnamespace AND c.relkind = 'v' AND c.relname NOT IN {INNER_VIEWS}
         GROUP BY c.oid",
    ));
    let there: BTreeMap<&str, &str> = columns.iter().filter_map(|line| line.split_once(": ")).collect();
    let reference = reference();
    let views = section(&reference, "## Views");
    let mut documented: BTreeMap<String, String> = documented_views(views)
        .into_iter()
        .map(|(view, columns)| (view, columns.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ")))
        .collect();
    for (own, of) in siblings(views) {
        documented.insert(own, there.get(of.as_str()).unwrap_or(&"no such view").to_string());
    }
    let documented = documented.into_iter().map(|(name, columns)| format!("{name}: {columns}")).collect();
    assert_same(documented, columns.clone());
    let inner = session.lines(&format!(
        "SELECT relname FROM pg_class WHERE relnamespace = 'talkmeter'::regnamespace AND relname IN {INNER_VIEWS}"
    ));
    assert_same(first_cells(section(views, "### Inner views")), inner);
}

/// What `\d+` and other clients show.
#[test]
fn every_column_of_a_view_has_the_comment_that_the_reference_gives_it() {
    let database = Database::fresh("reference_comments");
    let mut session = database.connect();
    let there = session.lines(&format!(
        "SELECT c.relname || '.' || a.attname || ': ' || COALESCE(col_description(c.oid, a.attnum), 'no comment')
         FROM pg_class AS c
         JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0
         WHERE c.relnamespace = 'talkmeter'::regnamespace AND c.relkind = 'v' AND c.relname NOT IN {INNER_VIEWS}",
    ));
    let reference = reference();
    let views = section(&reference, "## Views");
    let mut documented = documented_views(views);
    for (own, of) in siblings(views) {
        documented.insert(own, documented[&of].clone());
    }
    // The one column of a sibling that is another one.
    let tenant = &mut documented.get_mut("audited").expect("the view")[0];
    *tenant = ("tenant".to_owned(), "The merchant who is billed; no apostrophe before it".to_owned());
    let line = |view: &str, (column, meaning): (String, String)| format!("{view}.{column}: {meaning}");
    let lines = documented.into_iter().flat_map(|(view, columns)| columns.into_iter().map(move |own| line(&view, own)));
    assert_same(lines.collect(), there);
}

#[test]
fn the_reference_has_every_key_of_a_mapping_and_no_other() {
    let keys = first_cells(section(&reference(), "## The mapping"));
    let of_rows: Vec<String> = keys.into_iter().filter(|key| Kind::named(key).is_none() && key != "ignore").collect();
    assert_same(of_rows, KEYS.map(str::to_owned).to_vec());
}

#[test]
fn the_reference_has_every_kind_of_event_and_no_other() {
    let keys = first_cells(section(&reference(), "## The mapping"));
    let kinds: Vec<String> = keys.into_iter().filter(|key| !KEYS.contains(&key.as_str())).collect();
    let there = Kind::ALL.map(Kind::name).into_iter().chain(["ignore"]).map(str::to_owned);
    assert_same(kinds, there.collect());
}

/// Rule 3.2.4: the first that holds is the reason, so the order is part of what is said.
#[test]
fn reference_and_rules_have_every_reason_against_in_its_order_and_no_other() {
    let there = Reason::NAMED.map(Reason::name).map(str::to_owned);
    assert_eq!(first_cells(section(&reference(), "## Reasons against")), there);
    let rules = std::fs::read_to_string(root().join("docs/rules.md")).expect("the rules");
    let verdict = section(&rules, "### 3.2 Verdict");
    let table: Vec<&str> = verdict.lines().filter(|line| line.starts_with("| ") && line.contains("| `")).collect();
    let reasons: Vec<String> = table.iter().map(|line| quoted(line).remove(0)).collect();
    assert_eq!(reasons, there);
}

#[test]
fn the_reference_has_every_end_reason_that_is_no_event() {
    let documented = first_cells(section(&reference(), "## End reasons"));
    let by_rule = [EndReason::Idle, EndReason::QuietReview, EndReason::MaxDuration, EndReason::TurnLimit];
    assert_eq!(documented[..4], by_rule.map(|reason| reason.name()));
    assert!(documented[4..].iter().all(|name| name == "ends_on" || Kind::named(name).is_some()), "{documented:?}");
}

/// The table of keys in policies.md.
#[test]
fn the_page_of_policies_has_every_key_and_no_other() {
    let database = Database::fresh("policy_keys");
    let mut session = database.connect();
    let there = session.lines(
        "SELECT attname FROM pg_attribute
         WHERE attrelid = 'talkmeter.policies'::regclass AND attnum > 0
             AND attname NOT IN ('policy_version', 'charge_events', 'defined_at', 'defined_by')",
    );
    let page = std::fs::read_to_string(root().join("docs/policies.md")).expect("the page");
    let keys: Vec<String> = rows(&page).iter().filter(|row| row.len() == 3).flat_map(|row| quoted(row[0])).collect();
    assert_same(keys, there);
}

#[test]
fn the_reference_has_every_table_setting_and_reason_of_quarantine_and_no_other() {
    let database = Database::fresh("reference_rest");
    let mut session = database.connect();
    let reference = reference();
    // The library brings its settings when it is loaded.
    session.lines("SELECT talkmeter.currency_digits('USD')");
    let settings = session.lines("SELECT name FROM pg_settings WHERE name LIKE 'talkmeter.%'");
    assert_same(first_cells(section(&reference, "## Settings")), settings);
    let tables =
        session.lines("SELECT relname FROM pg_class WHERE relnamespace = 'talkmeter'::regnamespace AND relkind = 'r'");
    assert_same(quoted(section(&reference, "### Tables")), tables);
    let reasons = session.lines(
        "SELECT found[1] FROM pg_constraint,
             regexp_matches(pg_get_constraintdef(oid), '''([a-z_]+)''::text', 'g') AS found
         WHERE conrelid = 'talkmeter.quarantined'::regclass AND contype = 'c'",
    );
    assert_same(first_cells(section(&reference, "## Reasons of quarantine")), reasons);
}
