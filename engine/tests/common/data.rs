//! What is in the sample data, and how are its times written?

use chrono::{DateTime, Utc};
use flate2::read::GzDecoder;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::instant::Instant;

/// The events of each conversation in order, by tenant and conversation.
pub type Conversations = BTreeMap<(String, String), Vec<Event>>;

pub fn rows(name: &str) -> Vec<csv::StringRecord> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../data").join(name);
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    csv::Reader::from_reader(GzDecoder::new(file)).records().map(|row| row.expect("a row")).collect()
}

/// The instant that a time as the database prints it means.
pub fn time(text: &str) -> Instant {
    let text = text.replace(' ', "T");
    let text = text.strip_suffix("+00").map(|text| format!("{text}Z")).unwrap_or(text);
    text.parse::<DateTime<Utc>>().expect("a time").into()
}

/// An instant as the database prints it, and nothing as an empty field.
pub fn shown(instant: Option<Instant>) -> String {
    let Some(instant) = instant else { return String::new() };
    let text = instant.calendar().expect("in range").format("%F %T%.6f").to_string();
    format!("{}+00", text.strip_suffix(".000000").unwrap_or(&text))
}

/// 218,120 real rows of support channels.
pub fn irc_support() -> Conversations {
    conversations("irc_support.csv.gz", |row| {
        let kind = match (&row[5], &row[4]) {
            ("close", _) => Kind::Close,
            ("join" | "notice", _) => Kind::SystemMessage,
            (_, "customer") => Kind::CustomerMessage,
            (_, "ai") => Kind::AiReply,
            (_, sender) => {
                assert_eq!(sender, "staff");
                Kind::StaffReply
            }
        };
        Event::named(kind.into(), time(&row[3]))
    })
}

/// 600 conversations of made-up events that touch every rule.
pub fn rules() -> Conversations {
    conversations("rules.csv.gz", |row| Event {
        at: time(&row[3]),
        kind: Kind::named(&row[4]).expect("a kind"),
        tag: None,
        excluded: &row[5] == "t",
    })
}

fn conversations(name: &str, event: impl Fn(&csv::StringRecord) -> Event) -> Conversations {
    let mut all = Conversations::new();
    for row in &rows(name) {
        all.entry((row[1].to_owned(), row[2].to_owned())).or_default().push(event(row));
    }
    all
}
