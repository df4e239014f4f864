//! Does each definition of a vendor, as a file of `definitions`, bill what that vendor's words say (rules 3.8, 3.9)?
//!
//! Every example is told row by row, in one COPY, and in random orders and transactions: the parts must be the same.

use std::path::{Path, PathBuf};
use talkmeter_engine::instant::{DAY, Instant, SECOND};
use talkmeter_tests::{Database, Random, Session, attach};

/// Monday 2026-03-02 00:00 UTC, on which the examples begin.
const MONDAY: Instant = Instant(1_772_409_600 * SECOND);

/// How often each is told in another order.
const ORDERS: usize = 30;

const MAPPING: &str = r#"{"occurred_at": "at", "kinds": [
    {"when": {"kind": "customer_message"}, "kind": "customer_message", "tag": "tag"},
    {"when": {"kind": "ai_reply"}, "kind": "ai_reply", "tag": "tag"},
    {"when": {"kind": "staff_reply"}, "kind": "staff_reply", "tag": "tag"},
    {"when": {"kind": "note"}, "kind": "note", "tag": "tag"},
    {"when": {"kind": "system_message"}, "kind": "system_message", "tag": "tag"},
    {"when": {"kind": "error"}, "kind": "error"}, {"when": {"kind": "close"}, "kind": "close"},
    {"when": {"kind": "resolve"}, "kind": "resolve"}, {"when": {"kind": "escalate"}, "kind": "escalate"},
    {"when": {"kind": "reopen"}, "kind": "reopen"}, {"when": {"kind": "new_topic"}, "kind": "new_topic"}]}"#;

/// An example: the policy, what happens, until which day time passes (else to the last event), and the parts.
///
/// An event is a time, `d1 09:00` on the day after the first, and a letter with its tag: C customer, A AI, S staff, N note,
/// Y system message, X close, R resolve, E escalate, O reopen, T new topic, ! error. A part is its start and end, its end
/// reason, units, outcome, and its charge instant or why it has none.
type Example = (&'static str, &'static str, Option<i64>, &'static [&'static str]);

const EXAMPLES: [Example; 31] = [
    (
        "lutingenie",
        "09:00 C; 09:01 A; 09:31 C; 09:32 A; 10:02:00.000001 C; 10:03 A; 10:05 T; 10:06 C; 10:07 A; 10:08 X",
        None,
        &[
            "d0 09:00 - d0 10:02 idle: 1 - @ d0 09:01",
            "d0 10:02:00.000001 - d0 10:05 new_topic: 1 - @ d0 10:03",
            "d0 10:06 - d0 10:08 close: 1 - @ d0 10:07",
        ],
    ),
    (
        "agent_red",
        "09:00 C; 09:01 !; 09:02 A; 10:00 C; 10:01 A; 10:05 E; 10:06 C; 10:40 C",
        None,
        &[
            "d0 09:00 - d0 09:32 idle: 0 error_before_reply",
            "d0 10:00 - d0 10:05 escalate: 1 - @ d0 10:01",
            "d0 10:06 - d0 10:36 idle: 0 no_ai_reply",
            "d0 10:40 - open",
        ],
    ),
    (
        "ai_resolution",
        "09:00 C; 09:01 A; 09:30 X; 09:40 O; 09:41 C; 09:42 A; 09:43 S; 09:50 X; 10:00 O; 10:01 A",
        Some(1),
        &[
            "d0 09:00 - d0 09:30 close: 1 - @ d0 09:30",
            "d0 09:40 - d0 09:50 close: 0 staff_replied",
            "d0 10:00 - d0 13:01 quiet_review: 1 - @ d0 13:01",
        ],
    ),
    (
        "gorgias_ticket_chat",
        "09:00 C; 09:05 N; 10:00 S; 10:05 C; d3 10:05 C; d6 10:05:00.000001 C; d6 10:06 A; d20 08:00 Y:campaign",
        Some(20),
        &[
            "d0 09:00 - d6 10:05 idle: 1 ticket @ d0 10:00",
            "d6 10:05:00.000001 - d9 10:06 idle: 1 ticket @ d6 10:06",
            "d20 08:00 - open: 1 ticket @ d20 08:00",
        ],
    ),
    (
        "gorgias_ticket_email",
        "09:00 C; d9 09:00 N; d10 09:00 C; d20 09:00:00.000001 C; d21 00:00 S:outbound",
        Some(40),
        &["d0 09:00 - d20 09:00 idle: 0 not_reached", "d20 09:00:00.000001 - d31 00:00 idle: 1 ticket @ d21 00:00"],
    ),
    (
        "agentforce",
        "09:00 Y:welcome; 09:01 C; 09:02 A; d1 08:59:59.999999 C; d1 09:00 C; d1 09:01 A",
        Some(1),
        &["d0 09:00 - d1 09:00 max_duration: 1 conversation @ d0 09:00", "d1 09:00 - open: 1 conversation @ d1 09:00"],
    ),
    (
        "agentforce_guest",
        "09:00 C; 09:01 A; d3 09:00 C; d3 09:05 X; d3 09:06 C",
        Some(4),
        &["d0 09:00 - d3 09:05 close: 1 conversation @ d0 09:00", "d3 09:06 - open: 1 conversation @ d3 09:06"],
    ),
    (
        "freddy",
        "23:59 C:chat; 23:59 A:chat; d1 23:58 C:chat; d1 23:59 C:chat",
        Some(1),
        &["d0 23:59 - d1 23:59 max_duration: 1 session @ d0 23:59", "d1 23:59 - open: 1 session @ d1 23:59"],
    ),
    (
        "freddy",
        "09:00 C:email; 09:05 A:email; 11:00 C:email; 11:05 A:email",
        Some(1),
        &[
            "d0 09:05 - d0 09:05 ai_reply:email: 1 session @ d0 09:05",
            "d0 11:05 - d0 11:05 ai_reply:email: 1 session @ d0 11:05",
        ],
    ),
    (
        "copilot_sessions",
        "09:00 C:topic; 09:01 A; 09:20 C; 09:21 A; 09:50 C; 10:00 C; 10:00:00.000001 C:topic; 10:30:00.000001 A; \
         11:00:00.000002 A",
        Some(1),
        &[
            "d0 09:00 - d0 10:00:00.000001 max_duration: 1 session @ d0 09:00",
            "d0 10:00:00.000001 - d0 11:00:00.000001 idle: 1 session @ d0 10:00:00.000001",
        ],
    ),
    (
        "hubspot_customer_agent",
        "09:00 C; 09:01 A; 09:30 R; 10:00 C; 10:01 A; 10:02 E; 10:30 S; 10:40 R; 11:00 C; 11:01 A; 11:30 X",
        Some(1),
        &[
            "d0 09:00 - d0 09:30 resolve: 1 resolved @ d0 09:30",
            "d0 10:00 - d0 10:40 resolve: 0 handed_over",
            "d0 11:00 - d0 11:30 close: 0 not_resolved",
        ],
    ),
    (
        "tidio_live_chat",
        "09:00 C; 09:01 A; 09:05 S; 09:06 C; 09:07 S; 09:10 R; 10:00 C; 10:01 A; 10:10 R",
        Some(1),
        &["d0 09:00 - d0 09:10 resolve: 1 handled @ d0 09:10", "d0 10:00 - d0 10:10 resolve: 0 no_operator"],
    ),
    (
        "whatsapp_conversations",
        "00:00 Y:utility:BR; 06:00 Y:utility:BR; 23:59:59.999999 Y:utility:BR; d1 00:00 Y:utility:BR",
        Some(1),
        &["d0 00:00 - d1 00:00 max_duration: 1 utility:BR @ d0 00:00", "d1 00:00 - open: 1 utility:BR @ d1 00:00"],
    ),
    (
        "kore_ai",
        "09:00 C; 09:14:59.999999 C; 09:15 C",
        None,
        &["d0 09:00 - d0 09:15 max_duration: 1 session @ d0 09:00", "d0 09:15 - open: 1 session @ d0 09:15"],
    ),
    (
        "decagon_style",
        "09:00 C; 09:01 A; 09:02 N:saved; 09:03 R; 10:00 C; 10:01 A; 10:02 E; 10:03 N:saved; 10:04 R; d1 09:00 C; d1 09:01 A",
        Some(4),
        &[
            "d0 09:00 - d0 09:03 resolve: 1 saved_cancellation @ d0 09:03",
            "d0 10:00 - d0 10:04 resolve: 0 escalated",
            "d1 09:00 - d3 09:01 idle: 1 resolution @ d3 09:01",
        ],
    ),
    (
        "intercom_fin",
        "09:00 C; 09:01 A:answer; d35 10:00 C; d35 10:01 A:answer; d35 10:05 E",
        Some(40),
        &["d0 09:00 - d1 09:01 idle: 0 voided", "d35 10:00 - d36 10:01 idle: 0 help_requested"],
    ),
    (
        "intercom_fin",
        "09:00 C; 09:01 A:hi; 09:02 C; 09:03 A:answer; 09:05 N:confirmed",
        Some(2),
        &["d0 09:00 - d0 09:05 note:confirmed: 1 resolution @ d0 09:05"],
    ),
    ("intercom_fin", "09:00 C; 09:01 A:answer; 09:03 C", Some(3), &["d0 09:00 - d1 09:03 idle: 0 unanswered"]),
    (
        // A qualification is not taken back by a return, and what comes of that is the conversation's second outcome.
        "intercom_fin",
        "09:00 C; 09:01 A:answer; 09:02 N:qualified; d2 09:00 C; d2 09:01 A:answer",
        Some(5),
        &["d0 09:00 - d1 09:01 idle: 1 qualification @ d1 09:01", "d2 09:00 - d3 09:01 idle: 0 already_charged"],
    ),
    (
        "zendesk_messaging",
        "09:00 C; 09:01 A; d3 09:06 N:verified",
        Some(4),
        &["d0 09:00 - d3 09:01 idle: 1 verified_resolution @ d3 09:06"],
    ),
    (
        "zendesk_messaging",
        "09:00 C; 09:01 A; 09:05 E; 09:20 S; d4 12:00 N:verified",
        Some(5),
        &["d0 09:00 - d3 09:20 idle: 0 assisted_escalation"],
    ),
    (
        "zendesk_messaging",
        "09:00 C; 09:01 A; d3 09:01 C; d3 09:02 A",
        Some(20),
        &["d0 09:00 - d6 09:02 idle: 0 contained_resolution"],
    ),
    (
        // 7 days after the end it is too late, and a microsecond before it is not.
        "zendesk_messaging",
        "09:00 C; 09:01 A; d10 09:01 N:verified",
        Some(20),
        &["d0 09:00 - d3 09:01 idle: 0 contained_resolution"],
    ),
    (
        "zendesk_messaging",
        "09:00 C; 09:01 A; d10 09:00:59.999999 N:verified",
        Some(20),
        &["d0 09:00 - d3 09:01 idle: 1 verified_resolution @ d10 09:00:59.999999"],
    ),
    (
        // The customer has come back: a verdict about the part before is dated at its end, one of now is about the new part.
        "zendesk_messaging",
        "09:00 C; 09:01 A; d3 09:01 N:verified; d5 09:00 C; d5 09:01 A",
        Some(20),
        &[
            "d0 09:00 - d3 09:01 idle: 1 verified_resolution @ d3 09:01",
            "d5 09:00 - d8 09:01 idle: 0 contained_resolution",
        ],
    ),
    (
        "zendesk_email",
        "09:00 C; 09:10 A; d2 20:00 C; d2 20:05 A; d3 09:00 N:verified",
        Some(4),
        &["d0 09:00 - d3 09:00 max_duration: 1 verified_resolution @ d3 09:00"],
    ),
    (
        "gorgias_automation",
        "09:00 C; 09:01 A; 19:00 C; 19:01 A; d5 09:00 C; d5 09:01 A",
        Some(9),
        &["d0 09:00 - d3 19:01 idle: 1 automated @ d3 19:01", "d5 09:00 - d8 09:01 idle: 0 already_charged"],
    ),
    (
        "ada",
        "09:00 C; 09:01 A; d1 10:00 N:resolved",
        Some(3),
        &["d0 09:00 - d1 09:01 idle: 1 automated_resolution @ d1 10:00"],
    ),
    ("agentforce_help_agent", "09:00 C; 09:01 A; 09:02 C", Some(9), &["d0 09:00 - d1 09:02 idle: 0 abandoned"]),
    (
        "agentforce_help_agent",
        "09:00 C; 09:01 A; 09:05 X; d2 09:00 N:negative_feedback; d2 09:01 N:negative_feedback",
        Some(9),
        &["d0 09:00 - d0 09:05 close: 0 voided"],
    ),
    (
        "redo",
        "09:00 C; 09:01 A; 09:05 X; d1 09:00 N:csat_low; d2 09:00 C; d2 09:01 A; d2 09:02 X; d20 09:00 N:csat_low",
        Some(30),
        &["d0 09:00 - d0 09:05 close: 0 voided", "d2 09:00 - d2 09:02 close: 1 resolution @ d2 09:02"],
    ),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../definitions")
}

/// The files, in the order of their names.
fn files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder()).expect("the folder").map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    files
}

/// A database in which all of them are defined.
fn with_definitions(name: &str) -> (Database, Session) {
    let database = Database::fresh(name);
    let mut session = database.connect();
    for file in files() {
        session.run(&std::fs::read_to_string(file).expect("a definition"));
    }
    (database, session)
}

/// The instant of `09:00`, `d1 09:00` or with seconds and a fraction.
fn at(time: &str) -> Instant {
    let (day, clock) = match time.strip_prefix('d').and_then(|rest| rest.split_once(' ')) {
        Some((day, clock)) => (day.parse().expect("a day"), clock),
        None => (0, time),
    };
    let mut parts = clock.split(':');
    let mut next = || parts.next().unwrap_or("0");
    let (hours, minutes, seconds) = (next(), next(), next());
    let whole = |number: &str| number.parse::<i64>().expect("a number");
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, "0"));
    MONDAY.plus(day * DAY + ((whole(hours) * 60 + whole(minutes)) * 60 + whole(seconds)) * SECOND + whole(fraction))
}

/// The time of an instant, as [`at`] reads it.
fn time(micros: &str) -> String {
    let since = micros.parse::<i64>().expect("microseconds") - MONDAY.0;
    let (day, rest) = (since.div_euclid(DAY), since.rem_euclid(DAY));
    let (minute, rest) = (rest / (60 * SECOND), rest % (60 * SECOND));
    let seconds = match (rest / SECOND, rest % SECOND) {
        (0, 0) => String::new(),
        (seconds, fraction) => format!(":{seconds:02}.{fraction:06}"),
    };
    format!("d{day} {:02}:{:02}{seconds}", minute / 60, minute % 60)
}

/// A row as COPY takes it: id, time, kind, tag.
struct Told {
    id: usize,
    at: Instant,
    kind: &'static str,
    tag: Option<String>,
}

fn events(story: &str) -> Vec<Told> {
    let told = |(index, event): (usize, &str)| {
        let (time, name) = event.rsplit_once(' ').expect("a time and a letter");
        let (letter, tag) = name.split_once(':').map_or((name, None), |(letter, tag)| (letter, Some(tag.to_owned())));
        let kind = match letter {
            "C" => "customer_message",
            "A" => "ai_reply",
            "S" => "staff_reply",
            "N" => "note",
            "Y" => "system_message",
            "X" => "close",
            "R" => "resolve",
            "E" => "escalate",
            "O" => "reopen",
            "T" => "new_topic",
            "!" => "error",
            _ => panic!("{event}"),
        };
        Told { id: index + 1, at: at(time), kind, tag }
    };
    story.split("; ").enumerate().map(told).collect()
}

/// The parts of a conversation as the examples write them.
fn parts(session: &mut Session, conversation: &str) -> Vec<String> {
    let micros = |column: &str| format!("(extract(epoch FROM {column}) * 1000000)::int8");
    let rows = session.lines(&format!(
        "SELECT {}, {}, end_reason, {}, COALESCE(outcome, '-'), not_billable_because
         FROM talkmeter.part WHERE conversation = '{conversation}' ORDER BY first_event",
        micros("started_at"),
        micros("ended_at"),
        micros("charged_at"),
    ));
    rows.iter().map(|row| shown(&row.split('|').collect::<Vec<_>>())).collect()
}

fn shown(row: &[&str]) -> String {
    let [started, ended, reason, charged, outcome, because] = row[..] else { panic!("{row:?}") };
    let end = if ended.is_empty() { "open".to_owned() } else { format!("{} {reason}", time(ended)) };
    let verdict = match (charged, because) {
        ("", "") => String::new(),
        ("", because) => format!(": 0 {because}"),
        (charged, _) => format!(": 1 {outcome} @ {}", time(charged)),
    };
    format!("{} - {end}{verdict}", time(started))
}

const TABLE: &str =
    "CREATE TABLE m (tenant_id text DEFAULT 'acme', conversation_id text, id int, at timestamptz, kind text, tag text,
    PRIMARY KEY (conversation_id, id));
    CREATE INDEX ON m (tenant_id, conversation_id, at)";

/// Tells the events of a conversation, so many together.
fn tell(session: &mut Session, conversation: &str, events: &[&Told], together: impl Fn() -> usize) {
    let mut rest = events;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(together().clamp(1, rest.len()));
        rest = later;
        let line = |told: &&Told| {
            let tag = told.tag.as_deref().unwrap_or("\\N");
            let at = told.at.calendar().expect("an instant").format("%Y-%m-%d %H:%M:%S%.6f+00");
            format!("{conversation}\t{}\t{at}\t{}\t{tag}\n", told.id, told.kind)
        };
        let lines: String = now.iter().map(line).collect();
        session.copy_in("COPY m (conversation_id, id, at, kind, tag) FROM STDIN", lines.as_bytes());
    }
}

#[test]
fn each_example_gives_the_parts_that_the_vendors_words_say_in_whatever_order_it_is_told() {
    let (mut random, seed) = Random::seeded();
    for (number, (policy, story, until, wanted)) in EXAMPLES.iter().enumerate() {
        let (_database, mut session) = with_definitions(&format!("vendor_{number}"));
        session.run(TABLE);
        let mapping =
            MAPPING.replacen("{\"occurred_at\"", "{\"message_id\": [\"conversation_id\", \"id\"], \"occurred_at\"", 1);
        attach(&mut session, "m", policy, Some("ai_resolution/usage"), &mapping);
        let all = events(story);
        let in_order: Vec<&Told> = all.iter().collect();
        tell(&mut session, "in order", &in_order, || 1);
        tell(&mut session, "at once", &in_order, || usize::MAX);
        let mut names = vec!["in order".to_owned(), "at once".to_owned()];
        for order in 0..ORDERS {
            let mut shuffled = in_order.clone();
            (1..shuffled.len()).for_each(|place| shuffled.swap(place, random.below(place + 1)));
            let together = 1 + random.below(4);
            let name = format!("order {order}");
            tell(&mut session, &name, &shuffled, || together);
            names.push(name);
        }
        let last = all.iter().map(|told| told.at).max().expect("an event");
        let until = until.map_or(last, |day| MONDAY.plus((day + 1) * DAY - 60 * SECOND));
        let until = until.calendar().expect("an instant").format("%Y-%m-%d %H:%M:%S%.6f+00").to_string();
        session.sweep(&until);
        for name in names {
            assert_eq!(parts(&mut session, &name), *wanted, "{policy}, {name}, TALKMETER_SEED={seed}");
        }
        assert_eq!(session.lines("SELECT * FROM talkmeter.verify()"), [""; 0], "{policy}");
    }
}

#[test]
fn each_file_defines_a_policy_that_has_an_example() {
    let database = Database::fresh("vendor_files");
    let mut session = database.connect();
    for file in files() {
        let before = session.lines("SELECT name FROM talkmeter.policies");
        session.run(&std::fs::read_to_string(&file).expect("a definition"));
        let defined =
            session.lines("SELECT name FROM talkmeter.policies WHERE effective_from = '-infinity' ORDER BY 1");
        let own: Vec<&String> = defined.iter().filter(|name| !before.contains(name)).collect();
        assert!(!own.is_empty(), "{file:?} defines nothing");
        let has_example = |name: &str| EXAMPLES.iter().any(|(policy, ..)| *policy == name);
        assert!(own.iter().any(|name| has_example(name)), "{own:?} have no example");
    }
}

#[test]
fn each_file_says_its_source_what_the_mapping_supplies_and_what_is_our_choice() {
    for file in files() {
        let text = std::fs::read_to_string(&file).expect("a definition");
        for word in ["\n-- Source: ", "\n-- The mapping supplies: ", "\n-- Our choice: "] {
            assert!(text.contains(word), "{file:?} does not say {word:?}");
        }
    }
}

#[test]
fn the_page_of_policies_lists_each_file() {
    let page = std::fs::read_to_string(folder().join("../docs/policies.md")).expect("the page");
    let listed =
        page.lines().filter_map(|line| line.split("| `").nth(1)?.split_once(".sql`").map(|(name, _)| name.to_owned()));
    let there =
        files().iter().map(|file| file.file_stem().expect("a name").to_string_lossy().into_owned()).collect::<Vec<_>>();
    let mut listed: Vec<String> = listed.collect();
    listed.sort();
    assert_eq!(listed, there);
}
