//! Does each rule that a comment cites exist, and each place to which `docs/design.md` points?

use crate::{Source, assert_none, root, rust, sources};
use std::collections::BTreeSet;

fn page(name: &str) -> String {
    std::fs::read_to_string(root().join("docs").join(name)).expect("a page")
}

/// The numbers of all rules and of the sections that hold them.
fn rules() -> BTreeSet<String> {
    let mut numbers = BTreeSet::new();
    for line in page("rules.md").lines() {
        let heading = line.trim_start_matches('#').trim_start();
        let number = match line.strip_prefix("- **") {
            Some(rule) => rule.split("**").next().unwrap_or_default(),
            None if line.starts_with('#') => heading.split(' ').next().unwrap_or_default(),
            None => continue,
        };
        if is_number(number) {
            assert!(numbers.insert(number.to_owned()), "rule {number} is there twice");
        }
    }
    assert!(numbers.len() > 100, "the rules are not read: {}", numbers.len());
    numbers
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The numbers that a text cites: "rule 3.1.2", "rules 3.1 to 3.3", "rules 2, 3.7 and 4.1".
fn cited(text: &str) -> Vec<String> {
    let mut cited = Vec::new();
    let words: Vec<&str> = text.split_whitespace().collect();
    for (place, word) in words.iter().enumerate() {
        if !matches!(word.trim_start_matches(['(', '"']), "rule" | "rules") {
            continue;
        }
        for next in &words[place + 1..] {
            let number = next.trim_matches(|letter: char| !letter.is_ascii_digit());
            match *next {
                "to" | "and" => continue,
                _ if is_number(number) && next.starts_with(|first: char| first.is_ascii_digit()) => {
                    cited.push(number.to_owned());
                }
                _ => break,
            }
            if !next.ends_with(',') && !next.ends_with(number) {
                break;
            }
        }
    }
    cited
}

#[test]
fn every_rule_that_is_cited_exists() {
    let rules = rules();
    let all = [
        rust(),
        sources(&["sql", "pg_test/sql"], ".sql"),
        sources(&["pg_test/specs"], ".spec"),
        sources(&["scripts", "bench"], ".sh"),
        sources(&["docs"], ".md"),
    ]
    .concat();
    let mut missing = Vec::new();
    let mut count = 0;
    for file in all {
        // This file speaks of rules that are none.
        for number in cited(&file.text).into_iter().filter(|_| !file.path.ends_with("references.rs")) {
            count += 1;
            if !rules.contains(&number) {
                missing.push(format!("{}: rule {number}", file.path));
            }
        }
    }
    assert!(count > 100, "citations are not read: {count}");
    assert_none("rules that docs/rules.md does not have", missing);
}

#[test]
fn nothing_cites_a_document_that_is_not_here() {
    let word = ["SP", "EC"].concat();
    let speaks = |file: &&Source| file.text.split(|letter: char| !letter.is_alphanumeric()).any(|other| other == word);
    let files = [rust(), sources(&["sql"], ".sql"), sources(&["docs"], ".md")].concat();
    assert_none("files that cite it", files.iter().filter(speaks).map(|file| file.path.clone()).collect());
}

#[test]
fn citations_are_read_in_all_their_forms() {
    let text = "It ends (rule 3.1.2). As rules 2, 3.7 and 4.1 say; rules 3.1 to 3.3, too. A rule of 5, no rule.";
    assert_eq!(cited(text), ["3.1.2", "2", "3.7", "4.1", "3.1", "3.3"]);
}

/// The rows of the table under "Where is ...?": rule, where it is, test that fails.
fn whereabouts(design: &str) -> Vec<Vec<String>> {
    let section = design.split("\n## ").find(|section| section.starts_with("Where is")).expect("the section");
    let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// What stands between back-quotes, as a file and the names that are to be found in it.
fn pointed_at(cell: &str) -> Vec<(&str, &str)> {
    cell.split('`').skip(1).step_by(2).filter_map(|quoted| quoted.split_once(": ")).collect()
}

#[test]
fn everything_that_the_design_points_at_is_there() {
    let design = page("design.md");
    let rows = whereabouts(&design);
    assert!(rows.len() >= 10, "{} rows", rows.len());
    let mut missing = Vec::new();
    for row in &rows {
        assert_eq!(row.len(), 3, "{row:?}");
        for (file, name) in row[1..].iter().flat_map(|cell| pointed_at(cell)) {
            let text = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            if !["fn ", "const ", "struct ", "enum "].iter().any(|what| text.contains(&format!("{what}{name}"))) {
                missing.push(format!("{file}: {name} ({})", row[0]));
            }
        }
        assert!(row[1..].iter().all(|cell| !pointed_at(cell).is_empty()), "no file and name in {row:?}");
    }
    assert_none("what docs/design.md points at and is not there", missing);
}
