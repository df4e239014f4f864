//! Does each line of an explanation say what folding did, and why (rule 5)?

mod common;

use common::dice::Dice;
use common::{
    HOUR, MINUTE, agent_red, ai, ai_resolution, close, customer, error, event, flagged, lutingenie, opening, reopen,
    staff,
};
use std::sync::Arc;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::explain::{Did, Line, Story, as_metered, retell};
use talkmeter_engine::fold::{Conversation, Effect};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{MessageId, OrderKey, Position, Rank};
use talkmeter_engine::part::{Opener, Opening, Part, UnknownPolicy, Verdict};
use talkmeter_engine::policy::{ChargeOn, Policy};
use talkmeter_engine::refold::Placed;

const HALF_HOUR: i64 = 30 * MINUTE;
/// Long after all events.
const LATER: Instant = Instant(1_000 * HOUR);

/// The events as rows in this order.
fn log(events: impl IntoIterator<Item = Event>) -> Vec<Placed> {
    let placed = |(event, id): (Event, i64)| {
        let rank = Rank { sequence: None, message: &MessageId::Integer(id), first: event.kind };
        Placed::new(OrderKey::row(event.at, 1, &rank, Position::of_row(0)).as_bytes().to_vec(), event)
    };
    events.into_iter().zip(1..).map(placed).collect()
}

/// A conversation as it is told at an instant; events that are excluded are so because of a test.
fn story(id: &str, policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>, now: Instant) -> Story {
    let because = |placed: &Placed| placed.event.excluded.then(|| "a test".to_owned());
    retell(id, &log(events), because, |_, _| Ok(Some(opening(policy))), now)
}

/// A line: minute, index of the event, index of the part, what it did; `-` for what it has not. Then the rule.
fn shown(line: &Line) -> [String; 2] {
    let known = |number: Option<usize>| number.map_or("-".to_owned(), |number| number.to_string());
    let minute = line.at.map_or("-".to_owned(), |at| (at.0 / MINUTE).to_string());
    let did = line.did.words(line.part.map(|part| part as i32 + 1));
    [format!("{minute} {} {} {did}", known(line.event), known(line.part)), line.rule.clone()]
}

fn lines(policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>) -> Vec<[String; 2]> {
    story("c1", policy, events, LATER).lines.iter().map(shown).collect()
}

fn with(policy: &Arc<Policy>, change: impl FnOnce(&mut Policy)) -> Arc<Policy> {
    let mut policy = (**policy).clone();
    change(&mut policy);
    Arc::new(policy)
}

// --- Each kind of line ---

#[test]
fn a_part_is_opened_counts_completes_a_turn_is_billable_and_ends_idle() {
    assert_eq!(
        lines(&lutingenie(), [customer(0), customer(MINUTE), ai(2 * MINUTE)]),
        [
            ["0 0 0 opened part 1", "starts_on of lutingenie@1 holds customer_message"],
            ["1 1 0 counted in part 1", "customer_message is activity: the clocks start again"],
            ["2 2 0 counted in part 1", "ai_reply is activity, and completes turn 1"],
            ["2 2 0 part 1 is billable", "charge_on of lutingenie@1 is first_ai_reply, and nothing is against it"],
            ["32 - 0 part 1 ended: idle", "idle_timeout of lutingenie@1: 0:30:00 after the last activity"],
        ]
    );
}

#[test]
fn an_ai_reply_completes_a_turn_only_after_a_customer_message() {
    let told = lines(&lutingenie(), [customer(0), ai(0), ai(0), staff(0), customer(0), ai(0)]);
    let rules: Vec<&str> =
        told.iter().filter(|[did, _]| did.contains("counted")).map(|[_, rule]| rule.as_str()).collect();
    assert_eq!(
        rules,
        [
            "ai_reply is activity, and completes turn 1",
            "ai_reply is activity: the clocks start again",
            "staff_reply is activity: the clocks start again",
            "customer_message is activity: the clocks start again",
            "ai_reply is activity, and completes turn 2",
        ]
    );
}

#[test]
fn turns_of_a_part_are_counted_anew_after_one_that_time_ended() {
    let told = lines(&lutingenie(), [customer(0), ai(0), customer(HOUR), ai(HOUR)]);
    let turn = ["60 3 1 counted in part 2", "ai_reply is activity, and completes turn 1"];
    assert!(told.contains(&turn.map(String::from)), "{told:?}");
}

#[test]
fn what_is_no_activity_is_counted_and_the_clocks_run_on() {
    for kind in [Kind::Note, Kind::SystemMessage, Kind::Reopen, Kind::NewTopic, Kind::Resolve] {
        let told = lines(&agent_red(), [customer(0), event(kind, MINUTE)]);
        let rule = format!("{} is no activity: the clocks run on", kind.name());
        assert_eq!(told[1], ["1 1 0 counted in part 1".to_owned(), rule]);
    }
}

#[test]
fn an_error_before_the_first_ai_reply_is_told_as_that_and_one_after_it_is_not() {
    let told = lines(&lutingenie(), [customer(0), error(0), ai(0), error(0)]);
    assert_eq!(told[1], ["0 1 0 counted in part 1", "error before the first AI reply"]);
    assert_eq!(told[4], ["0 3 0 counted in part 1", "error is no activity: the clocks run on"]);
}

#[test]
fn what_starts_no_part_while_none_is_open_is_without_effect() {
    assert_eq!(
        lines(&lutingenie(), [ai(0), customer(0), close(0), staff(MINUTE)])[..1],
        [["0 0 - without effect", "no part is open, and starts_on of lutingenie@1 does not hold ai_reply"]]
    );
    assert_eq!(
        lines(&lutingenie(), [customer(0), close(0), staff(MINUTE)]).last().expect("lines"),
        &["1 2 - without effect", "no part is open, and starts_on of lutingenie@1 does not hold staff_reply"]
    );
}

#[test]
fn what_no_policy_can_judge_waits() {
    let known = |placed: &Placed| placed.event.at > Instant(0);
    let opener = |placed: &Placed, _: Option<&Opening>| match known(placed) {
        true => Ok(Some(opening(&lutingenie()))),
        false => Err(UnknownPolicy),
    };
    let story = retell("c1", &log([customer(0), ai(0), customer(MINUTE)]), |_| None, opener, Instant(MINUTE));
    let told: Vec<_> = story.lines.iter().map(shown).collect();
    let rule = "no version of its policy was in force at its time";
    assert_eq!(told[..2], [["0 0 - waits for a policy", rule], ["0 1 - waits for a policy", rule]]);
    assert_eq!(told[2], ["1 2 0 opened part 1", "starts_on of lutingenie@1 holds customer_message"]);
}

#[test]
fn an_end_that_the_next_event_found_says_how_long_it_was_quiet() {
    let told = lines(&lutingenie(), [customer(0), customer(HALF_HOUR + 1)]);
    assert_eq!(
        told[1..4],
        [
            [
                "30 - 0 part 1 ended: idle",
                "idle_timeout of lutingenie@1: 0:30:00 after the last activity; the next event came \
                 0:30:00.000001 after it"
            ],
            ["30 - 0 part 1 is not billable: no_ai_reply", "the AI never replied in it"],
            ["30 1 1 opened part 2", "starts_on of lutingenie@1 holds customer_message"],
        ]
    );
}

#[test]
fn quiet_review_ends_a_part_without_staff_and_then_it_is_judged() {
    let rule = "quiet_review_after of ai_resolution@1: 3:00:00 after the last activity without a staff reply";
    assert_eq!(
        lines(&ai_resolution(), [customer(0), ai(MINUTE)])[2..],
        [
            ["181 - 0 part 1 ended: quiet_review", rule],
            ["181 - 0 part 1 is billable", "charge_on of ai_resolution@1 is close, and nothing is against it"],
        ]
    );
    let found = lines(&ai_resolution(), [customer(0), close(4 * HOUR)]);
    assert_eq!(
        found[1],
        ["180 - 0 part 1 ended: quiet_review".to_owned(), format!("{rule}; the next event came 4:00:00 after it")]
    );
    assert_eq!(found[3][0], "240 1 - without effect");
}

#[test]
fn the_reply_that_completes_the_last_turn_ends_the_part() {
    let policy = with(&agent_red(), |policy| policy.turn_limit = Some(2));
    let told = lines(&policy, [customer(0), ai(0), customer(MINUTE), ai(MINUTE), customer(MINUTE)]);
    assert_eq!(
        told[4..],
        [
            ["1 3 0 counted in part 1", "ai_reply is activity, and completes turn 2"],
            ["1 3 0 part 1 ended: turn_limit", "turn_limit of agent_red@1 is 2"],
            ["1 4 1 opened part 2", "starts_on of agent_red@1 holds customer_message"],
            ["31 - 1 part 2 ended: idle", "idle_timeout of agent_red@1: 0:30:00 after the last activity"],
            ["31 - 1 part 2 is not billable: no_ai_reply", "the AI never replied in it"],
        ]
    );
}

#[test]
fn a_first_reply_that_ends_the_part_makes_it_billable_before_it_ends() {
    let policy = with(&agent_red(), |policy| policy.turn_limit = Some(1));
    let told = lines(&policy, [customer(0), ai(0)]);
    let done: Vec<&str> = told[1..].iter().map(|[did, _]| did.as_str()).collect();
    assert_eq!(done, ["0 1 0 counted in part 1", "0 1 0 part 1 is billable", "0 1 0 part 1 ended: turn_limit"]);
}

#[test]
fn an_event_that_ends_a_part_is_counted_in_it() {
    for (policy, kind) in [
        (lutingenie(), Kind::NewTopic),
        (lutingenie(), Kind::Resolve),
        (agent_red(), Kind::Escalate),
        (ai_resolution(), Kind::Close),
    ] {
        let told = lines(&policy, [customer(0), event(kind, MINUTE)]);
        let (name, title) = (kind.name(), &policy.name);
        assert_eq!(told[1][0], "1 1 0 counted in part 1");
        assert_eq!(told[2], [format!("1 1 0 part 1 ended: {name}"), format!("ends_on of {title}@1 holds {name}")]);
        assert_eq!(told[3][0], "1 1 0 part 1 is not billable: no_ai_reply");
        assert_eq!(told.len(), 4);
    }
}

#[test]
fn each_reason_against_a_part_has_its_rule() {
    let close_charged = with(&agent_red(), |policy| policy.charge_on = ChargeOn::Close);
    let blocked = "an excluded rule of the mapping matched one of its events up to";
    for (id, policy, events, words, rule) in [
        (
            "test_1",
            &agent_red(),
            vec![customer(0), ai(0)],
            "excluded_prefix",
            "exclude_prefixes holds \"test_\"".to_owned(),
        ),
        ("c1", &agent_red(), vec![flagged(customer(0)), ai(0)], "excluded", format!("{blocked} its first AI reply")),
        ("c1", &close_charged, vec![customer(0), ai(0), flagged(close(0))], "excluded", format!("{blocked} its end")),
        (
            "c1",
            &ai_resolution(),
            vec![customer(0), ai(0), staff(0), staff(0), close(0)],
            "staff_replied",
            "staff_reply_blocks, and it holds 2 replies by staff".to_owned(),
        ),
        (
            "c1",
            &agent_red(),
            vec![customer(0), error(0), ai(0)],
            "error_before_reply",
            "error_before_reply_waives, and an error came before the first AI reply".to_owned(),
        ),
        ("c1", &agent_red(), vec![customer(0), close(0)], "no_ai_reply", "the AI never replied in it".to_owned()),
    ] {
        let told: Vec<_> = story(id, policy, events, LATER).lines.iter().map(shown).collect();
        let verdicts: Vec<_> = told.iter().filter(|[did, _]| did.contains("billable")).collect();
        let [[did, found]] = verdicts[..] else { panic!("{told:?}") };
        assert!(did.ends_with(&format!("part 1 is not billable: {words}")), "{did}");
        assert_eq!(*found, rule);
    }
}

#[test]
fn an_event_that_an_excluded_rule_matched_says_because_of_what() {
    let told = lines(&lutingenie(), [flagged(customer(0)), flagged(ai(0))]);
    assert_eq!(told[0][1], "starts_on of lutingenie@1 holds customer_message; an excluded rule matched: a test");
    assert_eq!(told[1][1], "ai_reply is activity, and completes turn 1; an excluded rule matched: a test");
    let unreasoned =
        retell("c1", &log([flagged(customer(0))]), |_| None, |_, _| Ok(Some(opening(&lutingenie()))), LATER);
    assert!(unreasoned.lines[0].rule.ends_with("; an excluded rule matched: no reason given"));
}

#[test]
fn a_row_that_is_flagged_after_the_charge_leaves_the_part_billable() {
    let told = lines(&lutingenie(), [customer(0), ai(0), flagged(customer(0))]);
    let done: Vec<&str> = told.iter().map(|[did, _]| did.as_str()).collect();
    let ends = "30 - 0 part 1 ended: idle";
    assert_eq!(done[1..], ["0 1 0 counted in part 1", "0 1 0 part 1 is billable", "0 2 0 counted in part 1", ends]);
}

#[test]
fn an_open_part_says_last_what_will_end_it() {
    let no_ends = with(&lutingenie(), |policy| policy.ends_on.clear());
    for (policy, events, rule) in [
        (
            lutingenie(),
            vec![customer(0)],
            "close or resolve or new_topic ends it, or idle at 1970-01-01 00:30:00 UTC if no activity comes before",
        ),
        (
            ai_resolution(),
            vec![customer(0)],
            "close or resolve ends it, or quiet_review at 1970-01-01 03:00:00 UTC if no activity comes before",
        ),
        (ai_resolution(), vec![customer(0), staff(0)], "close or resolve ends it; time alone does not"),
        (
            ai_resolution(),
            vec![reopen(0)],
            "close or resolve ends it, or quiet_review at 1970-01-01 03:00:00 UTC if no activity comes before",
        ),
        (
            no_ends,
            vec![customer(0)],
            "no event ends it, or idle at 1970-01-01 00:30:00 UTC if no activity comes before",
        ),
    ] {
        let policy = with(&policy, |_| ());
        let offset = |event: Event| Event { at: epoch(event.at), ..event };
        let told = story("c1", &policy, events.into_iter().map(offset), epoch(Instant(1)));
        let last = told.lines.last().expect("lines");
        assert_eq!((&last.did, last.at, last.event, last.part), (&Did::Open, None, None, Some(0)));
        assert_eq!(last.rule, rule);
    }
}

/// An instant so long after the beginning of 1970.
fn epoch(since: Instant) -> Instant {
    let zero: Instant = chrono::DateTime::UNIX_EPOCH.into();
    zero.plus(since.0)
}

#[test]
fn nothing_is_told_of_no_events() {
    assert_eq!(story("c1", &lutingenie(), [], LATER), Story::default());
    assert_eq!(as_metered("c1", &[], &[], |_| None, LATER), Story::default());
}

// --- A conversation that lost rows ---

/// The story of these events after some of them, by index, are gone.
fn after_loss(policy: &Arc<Policy>, events: &[Event], gone: &[usize]) -> Vec<[String; 2]> {
    let whole = log(events.iter().cloned());
    let stored = story("c1", policy, events.iter().cloned(), LATER).parts;
    let left = whole.into_iter().enumerate().filter(|(index, _)| !gone.contains(index)).map(|(_, placed)| placed);
    let told = as_metered("c1", &stored, &left.collect::<Vec<_>>(), |_| None, LATER);
    assert_eq!(told.parts, stored);
    told.lines.iter().map(shown).collect()
}

#[test]
fn a_part_whose_opening_is_gone_is_opened_all_the_same() {
    let told = after_loss(&lutingenie(), &[customer(0), ai(MINUTE), close(2 * MINUTE)], &[0]);
    assert_eq!(
        told,
        [
            ["0 - 0 opened part 1", "1 of its 3 events are gone; what was metered stays"],
            ["1 0 0 counted in part 1", "as it was metered"],
            ["2 1 0 counted in part 1", "as it was metered"],
            ["1 - 0 part 1 is billable", "charge_on of lutingenie@1 is first_ai_reply, and nothing is against it"],
            ["2 - 0 part 1 ended: close", "ends_on of lutingenie@1 holds close"],
        ]
    );
}

#[test]
fn what_lies_between_parts_that_stay_is_without_effect() {
    let talk = [ai(0), customer(MINUTE), close(MINUTE), staff(2 * MINUTE), customer(3 * MINUTE)];
    let told = after_loss(&lutingenie(), &talk, &[1]);
    let rule = "no part counted it; rows of the conversation are gone, so it is not folded again";
    let without_effect: Vec<_> = told.iter().filter(|[did, _]| did.contains("without effect")).collect();
    assert_eq!(without_effect, [&["0 0 - without effect", rule], &["2 2 - without effect", rule]]);
}

#[test]
fn a_part_that_lost_nothing_says_nothing_of_loss() {
    let told = after_loss(&lutingenie(), &[customer(0), close(0), customer(MINUTE), close(MINUTE)], &[0]);
    let of_loss: Vec<&str> =
        told.iter().filter(|[_, rule]| rule.contains("gone")).map(|[did, _]| did.as_str()).collect();
    assert_eq!(of_loss, ["0 - 0 opened part 1"]);
    assert!(told.contains(&["1 1 1 opened part 2".to_owned(), "as it was metered".to_owned()]), "{told:?}");
}

// --- Any conversation ---

fn any_policy(dice: &mut Dice, version: i32) -> Arc<Policy> {
    let base = dice.index(3);
    let mut policy = (*common::all()[base]).clone();
    policy.version = version;
    if dice.percent(30) {
        // Such a part may be billable as soon as it is opened.
        policy.starts_on.push(Kind::AiReply.into());
    }
    let mut timeout = || dice.percent(60).then(|| dice.one_of(&[3, 5, 8]));
    (policy.idle_timeout, policy.quiet_review_after) = (timeout(), timeout());
    policy.turn_limit = dice.percent(40).then(|| 1 + dice.below(3) as i32);
    policy.charge_on = if dice.below(2) == 0 { ChargeOn::FirstAiReply } else { ChargeOn::Close };
    policy.staff_reply_blocks = dice.percent(50);
    policy.error_before_reply_waives = dice.percent(50);
    Arc::new(policy)
}

/// Few microseconds lie between events, so that they often meet a timeout exactly.
fn any_log(dice: &mut Dice) -> Vec<Placed> {
    let mut at = 0;
    let mut any_event = || {
        at += if dice.percent(50) { 0 } else { dice.below(10) as i64 };
        let kind = match dice.below(10) {
            0..3 => Kind::CustomerMessage,
            3..6 => Kind::AiReply,
            6 => Kind::StaffReply,
            _ => dice.one_of(&Kind::ALL),
        };
        Event { excluded: dice.percent(5), ..event(kind, at) }
    };
    let events: Vec<Event> = (0..30).map(|_| any_event()).collect();
    let length = dice.index(events.len() + 1);
    log(events.into_iter().take(length))
}

/// A conversation, and under which policy each of its events would open a part.
struct Case {
    id: &'static str,
    log: Vec<Placed>,
    policies: [Arc<Policy>; 2],
    change: Instant,
    /// At events of these times nobody knows a policy.
    unknown: Option<Instant>,
    now: Instant,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut dice = Dice::new(seed);
        let log = any_log(&mut dice);
        let end = log.last().map_or(0, |placed| placed.event.at.0);
        Case {
            id: dice.one_of(&["c1", "test_1", "Test_1"]),
            policies: [1, 2].map(|version| any_policy(&mut dice, version)),
            change: Instant(dice.below(end as u64 + 1) as i64),
            unknown: dice.percent(20).then(|| Instant(dice.below(end as u64 + 1) as i64)),
            now: Instant(end + dice.below(10) as i64),
            log,
        }
    }

    fn opening(&self, placed: &Placed) -> Opener {
        let at = placed.event.at;
        match self.unknown == Some(at) {
            true => Err(UnknownPolicy),
            false => Ok(Some(opening(&self.policies[usize::from(at >= self.change)]))),
        }
    }

    fn parts(&self) -> Vec<Part> {
        let (mut state, mut effects) = (Conversation::default(), Vec::new());
        for placed in &self.log {
            // An event that nobody can judge changes nothing.
            let _ = state.step(self.id, &placed.place, &placed.event, || self.opening(placed), &mut effects);
        }
        state.pass_time(self.id, self.now, &mut effects);
        effects.into_iter().filter_map(Effect::into_final).chain(state.current).collect()
    }

    fn told(&self) -> Story {
        retell(self.id, &self.log, |_| None, |placed, _| self.opening(placed), self.now)
    }
}

fn tells_an_event(line: &&Line) -> bool {
    matches!(line.did, Did::Opened | Did::Counted | Did::Nothing | Did::Waits)
}

/// Each event is told once, in order, and what else an event did follows it at once.
fn each_event_is_told(story: &Story, events: usize) {
    let told: Vec<usize> = story.lines.iter().filter(tells_an_event).filter_map(|line| line.event).collect();
    assert_eq!(told, (0..events).collect::<Vec<_>>());
    assert!(story.lines.iter().filter_map(|line| line.event).is_sorted());
    assert!(story.lines.iter().filter_map(|line| line.part).is_sorted());
}

fn each_part_is_told(story: &Story) {
    for (index, part) in story.parts.iter().enumerate() {
        let of = |did: fn(&Did) -> bool| {
            let lines = story.lines.iter().filter(move |line| line.part == Some(index) && did(&line.did));
            lines.map(|line| (line.did.clone(), line.at)).collect::<Vec<_>>()
        };
        assert_eq!(of(|did| *did == Did::Opened), [(Did::Opened, Some(part.started_at))]);
        let end = part.end.clone().map_or((Did::Open, None), |end| (Did::Ended(end.reason), Some(end.at)));
        assert_eq!(of(|did| matches!(did, Did::Ended(_) | Did::Open)), [end]);
        let verdict: Vec<Did> = part.verdict.iter().map(|_| did(part)).collect();
        let told = of(|did| matches!(did, Did::Billable(_) | Did::NotBillable(_)));
        assert_eq!(told.iter().map(|(did, _)| did.clone()).collect::<Vec<_>>(), verdict);
        if let Some(Verdict::Billable(at)) = part.verdict {
            assert_eq!(told[0].1, Some(at));
        }
    }
}

fn did(part: &Part) -> Did {
    match part.not_billable_because() {
        None => Did::Billable(part.outcome.as_deref().map(str::to_owned)),
        Some(because) => Did::NotBillable(because.to_owned()),
    }
}

/// Runs a check of many conversations; the seed of one that fails is in the message.
fn for_any_conversation(check: impl Fn(&Case, &mut Dice) + std::panic::RefUnwindSafe) {
    for seed in 0..20_000 {
        let outcome = std::panic::catch_unwind(|| check(&Case::new(seed), &mut Dice::new(!seed)));
        outcome.unwrap_or_else(|_| panic!("seed {seed}"));
    }
}

#[test]
fn the_parts_that_are_told_are_those_of_folding_and_every_event_is_told_in_order() {
    for_any_conversation(|case, _| {
        let story = case.told();
        assert_eq!(story.parts, case.parts());
        each_event_is_told(&story, case.log.len());
        each_part_is_told(&story);
        for (index, part) in story.parts.iter().enumerate() {
            let counted = |line: &&Line| line.part == Some(index) && matches!(line.did, Did::Opened | Did::Counted);
            assert_eq!(story.lines.iter().filter(counted).count() as i64, part.event_count);
        }
    });
}

#[test]
fn parts_that_lost_any_events_are_told_as_they_are_stored_and_every_event_that_is_left_in_order() {
    for_any_conversation(|case, dice| {
        let stored = case.parts();
        let left: Vec<Placed> = case.log.iter().filter(|_| dice.percent(60)).cloned().collect();
        let story = as_metered(case.id, &stored, &left, |_| None, Instant::EARLIEST);
        assert_eq!(story.parts, stored);
        each_event_is_told(&story, left.len());
        each_part_is_told(&story);
    });
}
