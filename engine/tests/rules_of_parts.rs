//! Which events make which parts, and which part is billable? One test for each rule of rules 3.1 to 3.3.

mod common;

use common::word;
use common::{
    Folding, HOUR, MINUTE, agent_red, ai, ai_resolution, close, customer, error, event, flagged, lutingenie, reopen,
    staff,
};
use std::convert::Infallible;
use std::sync::Arc;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::fold::{Conversation, Effect};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::part::{EndReason, Opening, Part, Reason, Verdict};
use talkmeter_engine::policy::{ChargeOn, Policy};

/// An id that no prefix of the published policies excludes.
const ID: &str = "c1";
const HALF_HOUR: i64 = 30 * MINUTE;
const NEVER: i64 = Instant::LATEST.0;

fn folded(policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>) -> Folding<'static> {
    Folding::of(ID, policy, &Vec::from_iter(events))
}

fn parts(policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>) -> Vec<Part> {
    folded(policy, events).parts()
}

/// The only part that the events make.
fn part(policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>) -> Part {
    let [part] = parts(policy, events).try_into().expect("one part");
    part
}

/// Part and instant of each charge.
fn charges(policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>) -> Vec<(i32, i64)> {
    folded(policy, events).charges().into_iter().map(|(part, at)| (part, at.0)).collect()
}

/// Why the only part that the events make is not billable; nothing if it is or if it is not judged yet.
fn against(policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>) -> Option<&'static str> {
    reason(&part(policy, events))
}

fn reason(part: &Part) -> Option<&'static str> {
    match part.verdict {
        Some(Verdict::NotBillable(reason)) => Some(reason.name()),
        _ => None,
    }
}

/// When and why each part ended.
fn ends(parts: &[Part]) -> Vec<Option<(i64, &'static str)>> {
    parts.iter().map(end).collect()
}

fn end(part: &Part) -> Option<(i64, &'static str)> {
    part.end.as_ref().map(|end| (end.at.0, word(&end.reason)))
}

fn starts(parts: &[Part]) -> Vec<i64> {
    parts.iter().map(|part| part.started_at.0).collect()
}

/// The end that a sweep at `now` gives the part that `events` leave open.
fn swept(policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>, now: i64) -> Option<(i64, &'static str)> {
    let mut folding = folded(policy, events);
    folding.pass_time(Instant(now));
    end(folding.parts().last().expect("a part"))
}

fn with(policy: &Arc<Policy>, change: impl FnOnce(&mut Policy)) -> Arc<Policy> {
    let mut policy = (**policy).clone();
    change(&mut policy);
    Arc::new(policy)
}

/// A policy under which both clocks run.
fn two_clocks(idle: i64, quiet_review: i64) -> Arc<Policy> {
    with(&ai_resolution(), |policy| {
        policy.idle_timeout = Some(idle);
        policy.quiet_review_after = Some(quiet_review);
    })
}

fn without_activity() -> impl Iterator<Item = Kind> {
    Kind::ALL.into_iter().filter(|kind| !kind.is_activity())
}

// Time (rule 3.1.1)

#[test]
fn a_gap_of_exactly_thirty_minutes_continues_and_one_microsecond_more_ends_it() {
    for policy in [lutingenie(), agent_red()] {
        assert_eq!(starts(&parts(&policy, [customer(0), customer(HALF_HOUR)])), [0]);
        assert_eq!(starts(&parts(&policy, [customer(0), customer(HALF_HOUR + 1)])), [0, HALF_HOUR + 1]);
    }
}

#[test]
fn idle_ends_at_the_last_activity_plus_the_timeout_however_late_it_is_noticed() {
    let noticed = parts(&lutingenie(), [customer(0), ai(MINUTE), customer(400 * HOUR)]);
    assert_eq!(ends(&noticed), [Some((MINUTE + HALF_HOUR, "idle")), None]);
}

#[test]
fn quiet_review_ends_at_exactly_three_hours_and_not_a_microsecond_before() {
    let policy = ai_resolution();
    assert_eq!(ends(&parts(&policy, [customer(0), customer(3 * HOUR - 1)])), [None]);
    assert_eq!(ends(&parts(&policy, [customer(0), customer(3 * HOUR)])), [Some((3 * HOUR, "quiet_review")), None]);
}

#[test]
fn quiet_review_ends_at_the_last_activity_plus_three_hours_however_late_it_is_noticed() {
    let noticed = parts(&ai_resolution(), [customer(0), ai(MINUTE), customer(400 * HOUR)]);
    assert_eq!(ends(&noticed), [Some((MINUTE + 3 * HOUR, "quiet_review")), None]);
}

#[test]
fn a_staffed_part_is_not_in_triage_so_no_quiet_review_ends_it() {
    let staffed = parts(&ai_resolution(), [customer(0), staff(1), customer(400 * HOUR)]);
    assert_eq!(ends(&staffed), [None]);
}

#[test]
fn a_staffed_part_of_ai_resolution_that_nobody_closes_stays_open() {
    let staffed = [customer(0), ai(1), staff(2)];
    assert_eq!(part(&ai_resolution(), staffed.clone()).timeout(), None);
    assert_eq!(swept(&ai_resolution(), staffed, NEVER), None);
}

#[test]
fn idle_ends_also_a_staffed_part() {
    assert_eq!(swept(&two_clocks(4 * HOUR, 3 * HOUR), [staff(0)], NEVER), Some((4 * HOUR, "idle")));
}

#[test]
fn idle_and_quiet_review_both_apply_the_earlier_end_wins_and_a_tie_is_idle() {
    let ended = |policy| ends(&parts(&policy, [customer(0), customer(100 * HOUR)]))[0];
    assert_eq!(ended(two_clocks(2 * HOUR, 3 * HOUR)), Some((2 * HOUR, "idle")));
    assert_eq!(ended(two_clocks(3 * HOUR, 2 * HOUR)), Some((2 * HOUR, "quiet_review")));
    assert_eq!(ended(two_clocks(3 * HOUR, 3 * HOUR)), Some((3 * HOUR, "idle")));
}

#[test]
fn an_event_at_exactly_the_time_of_both_clocks_finds_only_quiet_review_due() {
    let noticed = parts(&two_clocks(3 * HOUR, 3 * HOUR), [customer(0), customer(3 * HOUR)]);
    assert_eq!(ends(&noticed), [Some((3 * HOUR, "quiet_review")), None]);
}

#[test]
fn time_ends_the_part_whatever_the_kind_of_the_event_that_notices() {
    for kind in Kind::ALL {
        let noticed = parts(&agent_red(), [customer(0), event(kind, HOUR)]);
        assert_eq!(end(&noticed[0]), Some((HALF_HOUR, "idle")), "{}", kind.name());
    }
}

#[test]
fn every_activity_moves_the_clock() {
    for kind in Kind::ALL.into_iter().filter(|kind| kind.is_activity()) {
        let moved = part(&agent_red(), [customer(0), event(kind, 20 * MINUTE), customer(50 * MINUTE)]);
        assert_eq!(moved.last_activity_at, Instant(50 * MINUTE), "{}", kind.name());
    }
}

#[test]
fn notes_system_messages_errors_and_marks_do_not_move_the_clock() {
    let policy = with(&agent_red(), |policy| policy.ends_on.clear());
    for kind in without_activity() {
        let events = [customer(0), event(kind, 20 * MINUTE), customer(50 * MINUTE)];
        assert_eq!(ends(&parts(&policy, events)), [Some((HALF_HOUR, "idle")), None], "{}", kind.name());
    }
}

#[test]
fn notes_system_messages_errors_and_marks_are_no_messages() {
    let policy = with(&agent_red(), |policy| policy.ends_on.clear());
    for kind in without_activity() {
        let counted = part(&policy, [customer(0), event(kind, 1), ai(2)]);
        assert_eq!((counted.event_count, counted.message_count), (3, 2), "{}", kind.name());
    }
}

#[test]
fn a_sweep_ends_idle_one_microsecond_after_thirty_minutes_with_the_same_end_as_an_event() {
    assert_eq!(swept(&lutingenie(), [customer(0)], HALF_HOUR), None);
    assert_eq!(swept(&lutingenie(), [customer(0)], HALF_HOUR + 1), Some((HALF_HOUR, "idle")));
    assert_eq!(swept(&lutingenie(), [customer(0)], NEVER), Some((HALF_HOUR, "idle")));
}

#[test]
fn a_sweep_ends_a_quiet_part_at_exactly_three_hours_with_the_same_end_as_an_event() {
    assert_eq!(swept(&ai_resolution(), [customer(0)], 3 * HOUR - 1), None);
    assert_eq!(swept(&ai_resolution(), [customer(0)], 3 * HOUR), Some((3 * HOUR, "quiet_review")));
    assert_eq!(swept(&ai_resolution(), [customer(0)], NEVER), Some((3 * HOUR, "quiet_review")));
}

#[test]
fn a_sweep_waits_until_equal_clocks_both_have_run_out() {
    let policy = two_clocks(3 * HOUR, 3 * HOUR);
    assert_eq!(swept(&policy, [customer(0)], 3 * HOUR), None);
    assert_eq!(swept(&policy, [customer(0)], 3 * HOUR + 1), Some((3 * HOUR, "idle")));
}

#[test]
fn a_sweep_says_whether_it_ended_a_part_and_only_the_first_does() {
    let mut folding = folded(&lutingenie(), [customer(0)]);
    let said = [HALF_HOUR, HOUR, HOUR].map(|now| folding.pass_time(Instant(now)));
    assert_eq!(said, [false, true, false]);
}

// Opening (rule 3.1.2)

#[test]
fn each_kind_in_starts_on_opens_a_part_at_its_time_and_no_other_kind_does_anything() {
    for policy in common::all() {
        for kind in Kind::ALL {
            let folding = folded(&policy, [event(kind, 5)]);
            let expected = if policy.starts_on.contains(&kind.into()) { vec![5] } else { vec![] };
            assert_eq!(starts(&folding.parts()), expected, "{} {}", policy.name, kind.name());
            assert_eq!(folding.state == Conversation::default(), expected.is_empty(), "{}", kind.name());
        }
    }
}

#[test]
fn an_ai_greeting_before_the_first_customer_message_starts_nothing_and_is_not_counted() {
    for policy in [lutingenie(), agent_red()] {
        let greeted = part(&policy, [ai(0), customer(1), ai(2)]);
        assert_eq!((greeted.started_at, greeted.first_ai_reply_at), (Instant(1), Some(Instant(2))));
        assert_eq!((greeted.ai_replies, greeted.message_count), (1, 2));
    }
}

#[test]
fn a_reply_after_the_end_belongs_to_no_part() {
    for policy in common::all() {
        let ended = folded(&policy, [customer(0), close(1)]);
        let replied = folded(&policy, [customer(0), close(1), ai(2)]);
        assert_eq!((&ended.state, &ended.effects), (&replied.state, &replied.effects), "{}", policy.name);
    }
}

#[test]
fn a_close_of_a_conversation_that_is_closed_or_unknown_does_nothing() {
    for policy in common::all() {
        assert_eq!(ends(&parts(&policy, [close(0), customer(1), close(2), close(3)])), [Some((2, "close"))]);
    }
}

#[test]
fn a_customer_message_after_a_close_opens_the_next_part_however_soon() {
    for policy in common::all() {
        assert_eq!(starts(&parts(&policy, [customer(0), close(1), customer(1)])), [0, 1], "{}", policy.name);
    }
}

#[test]
fn a_customer_message_before_the_close_of_the_same_instant_belongs_to_the_part_that_closes() {
    for policy in common::all() {
        assert_eq!(part(&policy, [customer(0), customer(1), close(1)]).message_count, 2, "{}", policy.name);
    }
}

#[test]
fn part_numbers_count_on_from_the_highest_ever_used() {
    let mut folding = Folding::new(ID);
    folding.state.highest = 7;
    for event in [customer(0), close(1), customer(2), close(3), customer(4)] {
        folding.step(&event, &agent_red());
    }
    assert_eq!(folding.parts().iter().map(|part| part.number).collect::<Vec<_>>(), [8, 9, 10]);
}

#[test]
fn a_new_part_begins_with_nothing_of_the_part_before() {
    let burdened = [flagged(customer(0)), error(1), staff(2), ai(3), customer(4), close(5), customer(6)];
    for policy in common::all() {
        let parts = parts(&policy, burdened.clone());
        let fresh = Part { number: 2, ..part(&policy, [customer(6)]) };
        assert_eq!(parts[1], fresh, "{}", policy.name);
    }
}

#[test]
fn a_reopen_opens_a_part_without_a_message_and_its_opening_starts_the_clock() {
    let reopened = part(&ai_resolution(), [reopen(5)]);
    assert_eq!((reopened.message_count, reopened.event_count), (0, 1));
    assert_eq!((reopened.started_at, reopened.last_activity_at), (Instant(5), Instant(5)));
    assert_eq!(swept(&ai_resolution(), [reopen(5)], NEVER), Some((5 + 3 * HOUR, "quiet_review")));
}

#[test]
fn a_reopen_of_an_open_part_changes_nothing_that_is_billed() {
    for policy in common::all() {
        let without = folded(&policy, [customer(0), ai(2), close(3)]);
        let with = folded(&policy, [customer(0), reopen(1), ai(2), close(3)]);
        let uncounted = |part: &Part| Part { event_count: 0, ..part.clone() };
        let [without_part, with_part] = [&without, &with].map(|folding| uncounted(&folding.parts()[0]));
        assert_eq!(without_part, with_part, "{}", policy.name);
        assert_eq!(without.charges(), with.charges(), "{}", policy.name);
    }
}

// Turns (rule 3.1.3)

/// `n` questions, each with its answer, a microsecond apart from `from` on.
fn exchanges(from: i64, n: i64) -> impl Iterator<Item = Event> {
    (0..n).flat_map(move |i| [customer(from + 2 * i), ai(from + 2 * i + 1)])
}

#[test]
fn the_fiftieth_reply_ends_the_part_and_the_next_customer_message_opens_another() {
    let talk = parts(&agent_red(), exchanges(0, 50).chain([customer(100)]));
    assert_eq!(ends(&talk), [Some((99, "turn_limit")), None]);
    assert_eq!((starts(&talk), talk[0].turn_count), (vec![0, 100], 50));
}

#[test]
fn the_fiftieth_customer_message_without_its_reply_ends_nothing() {
    assert_eq!(ends(&parts(&agent_red(), exchanges(0, 49).chain([customer(98)]))), [None]);
}

#[test]
fn bubbles_that_trail_the_fiftieth_reply_belong_to_no_part() {
    let talk = parts(&agent_red(), exchanges(0, 50).chain([ai(100), ai(101), customer(102)]));
    assert_eq!((talk[0].ai_replies, talk[1].ai_replies, talk.len()), (50, 0, 2));
}

#[test]
fn only_agent_red_limits_turns() {
    for policy in [lutingenie(), ai_resolution()] {
        assert_eq!(part(&policy, exchanges(0, 60)).turn_count, 60, "{}", policy.name);
    }
}

#[test]
fn three_bubbles_are_one_turn() {
    assert_eq!(part(&agent_red(), [customer(0), ai(1), ai(2), ai(3)]).turn_count, 1);
}

#[test]
fn several_customer_messages_before_a_reply_are_one_turn() {
    assert_eq!(part(&agent_red(), [customer(0), customer(1), ai(2)]).turn_count, 1);
}

#[test]
fn a_customer_message_without_a_reply_is_no_turn() {
    assert_eq!(part(&agent_red(), [customer(0), ai(1), customer(2)]).turn_count, 1);
}

#[test]
fn staff_replies_make_no_turn_and_take_none_away() {
    assert_eq!(part(&agent_red(), [customer(0), staff(1)]).turn_count, 0);
    assert_eq!(part(&agent_red(), [customer(0), staff(1), ai(2)]).turn_count, 1);
}

#[test]
fn an_ai_reply_that_answers_no_customer_message_is_no_turn() {
    assert_eq!(part(&ai_resolution(), [reopen(0), ai(1)]).turn_count, 0);
}

#[test]
fn the_turn_limit_comes_before_an_end_on_the_reply_itself() {
    let policy = with(&agent_red(), |policy| {
        policy.turn_limit = Some(1);
        policy.ends_on.push(Kind::AiReply.into());
    });
    assert_eq!(end(&part(&policy, [customer(0), ai(1)])), Some((1, "turn_limit")));
}

// Explicit ends (rule 3.1.4)

#[test]
fn each_kind_in_ends_on_ends_the_part_at_its_time_with_its_name_as_reason_and_no_other_kind_does() {
    for policy in common::all() {
        for kind in Kind::ALL {
            let ended = part(&policy, [customer(0), event(kind, 5)]);
            let expected = policy.ends_on.contains(&kind.into()).then(|| (5, kind.name()));
            assert_eq!(end(&ended), expected, "{} {}", policy.name, kind.name());
        }
    }
}

#[test]
fn the_event_that_ends_a_part_is_counted_in_it() {
    assert_eq!(part(&agent_red(), [customer(0), close(1)]).event_count, 2);
}

// When a part is judged (rule 3.2)

#[test]
fn lutingenie_and_agent_red_charge_at_the_first_ai_reply() {
    for policy in [lutingenie(), agent_red()] {
        let events = [customer(0), ai(5), ai(6), close(9)];
        assert_eq!(charges(&policy, events), [(1, 5)], "{}", policy.name);
    }
}

#[test]
fn ai_resolution_charges_at_the_end() {
    assert_eq!(charges(&ai_resolution(), [customer(0), ai(5)]), []);
    assert_eq!(charges(&ai_resolution(), [customer(0), ai(5), close(9)]), [(1, 9)]);
}

#[test]
fn the_charge_at_an_end_by_time_carries_the_logical_time_of_the_end() {
    let mut folding = folded(&ai_resolution(), [customer(0), ai(5)]);
    folding.pass_time(Instant(NEVER));
    assert_eq!(folding.charges(), [(1, Instant(5 + 3 * HOUR))]);
}

#[test]
fn a_part_is_not_judged_before_its_charge_instant() {
    assert_eq!(part(&agent_red(), [flagged(customer(0)), error(1)]).verdict, None);
    assert_eq!(part(&ai_resolution(), [customer(0), ai(1), staff(2)]).verdict, None);
}

#[test]
fn a_part_that_never_reaches_its_charge_instant_is_judged_on_all_its_events() {
    assert_eq!(against(&agent_red(), [customer(0), flagged(customer(1)), close(2)]), Some("excluded"));
    assert_eq!(against(&agent_red(), [customer(0), error(1), close(2)]), Some("error_before_reply"));
}

#[test]
fn a_part_is_judged_once() {
    let waived = [customer(0), error(1), ai(2)];
    assert_eq!(charges(&agent_red(), waived.into_iter().chain([ai(3), ai(4), close(5)])), []);
    let billed = [customer(0), ai(1)];
    let later = [flagged(customer(2)), error(3), staff(4), close(5)];
    assert_eq!(charges(&agent_red(), billed.clone().into_iter().chain(later.clone())), [(1, 1)]);
    assert_eq!(part(&agent_red(), billed.into_iter().chain(later)).verdict, Some(Verdict::Billable(Instant(1))));
}

#[test]
fn a_part_is_judged_by_the_policy_version_in_force_when_it_opened() {
    let first = agent_red();
    let second = with(&first, |policy| {
        policy.version = 2;
        policy.error_before_reply_waives = false;
        policy.ends_on = vec![Kind::Resolve.into()];
    });
    let mut folding = Folding::new(ID);
    folding.step(&customer(0), &first);
    // The second version comes into force, and the open part stays with the first until it ends.
    for event in [error(1), event(Kind::Resolve, 2), ai(3), close(4), customer(5), error(6), ai(7)] {
        folding.step(&event, &second);
    }
    let versions: Vec<i32> = folding.parts().iter().map(|part| part.policy.version).collect();
    assert_eq!((versions, folding.charges()), (vec![1, 2], vec![(2, Instant(7))]));
    assert_eq!(reason(&folding.parts()[0]), Some("error_before_reply"));
}

#[test]
fn a_charge_names_the_policy_of_its_part() {
    let charged = folded(&lutingenie(), [customer(0), ai(1)]).effects;
    assert_eq!(
        charged,
        [Effect::Charged { part: 1, at: Instant(1), outcome: None, policy: lutingenie(), source: None }]
    );
}

#[test]
fn nobody_is_asked_for_a_policy_while_a_part_is_open() {
    let Folding { mut state, mut effects, .. } = folded(&agent_red(), [customer(0)]);
    for event in [customer(1), ai(2), reopen(3), event(Kind::Note, 4), close(5)] {
        let opener = || -> Result<Option<Opening>, Infallible> { unreachable!("a part is open") };
        state.step(ID, &common::place(&event), &event, opener, &mut effects).expect("no error");
    }
    assert_eq!(state.current, None);
}

#[test]
fn a_part_may_open_while_none_is_open_and_from_the_instant_at_which_time_has_ended_the_open_one() {
    let may_open = |folding: &Folding, instants: [i64; 3]| instants.map(|at| folding.state.may_open_at(Instant(at)));
    let none_open = folded(&lutingenie(), [customer(0), close(1)]);
    assert_eq!(may_open(&none_open, [1, 2, 3]), [true, true, true]);
    let open = folded(&lutingenie(), [customer(0)]);
    assert_eq!(may_open(&open, [0, HALF_HOUR, HALF_HOUR + 1]), [false, false, true]);
    let in_triage = folded(&ai_resolution(), [customer(0)]);
    assert_eq!(may_open(&in_triage, [0, 3 * HOUR - 1, 3 * HOUR]), [false, false, true]);
    let equal_clocks = folded(&two_clocks(3 * HOUR, 3 * HOUR), [customer(0)]);
    assert_eq!(may_open(&equal_clocks, [0, 3 * HOUR - 1, 3 * HOUR]), [false, false, true]);
}

#[test]
fn an_opener_that_fails_leaves_the_state_unchanged() {
    let nothing_open = folded(&agent_red(), [customer(0), close(1)]);
    let ended_by_time = folded(&agent_red(), [customer(0)]);
    for Folding { mut state, mut effects, .. } in [nothing_open, ended_by_time] {
        let before = (state.clone(), effects.clone());
        let answer =
            state.step(ID, &common::place(&customer(HOUR)), &customer(HOUR), || Err("no policy"), &mut effects);
        assert_eq!(answer, Err("no policy"));
        assert_eq!((state, effects), before);
    }
}

// Reasons against (rule 3.2)

#[test]
fn each_prefix_of_agent_red_excludes_the_conversations_that_start_with_it() {
    for id in ["test_", "test_1", "admin_1", "health_1", "system_1"] {
        let folding = Folding::of(id, &agent_red(), &[customer(0), ai(1)]);
        assert_eq!((folding.charges(), reason(&folding.parts()[0])), (vec![], Some("excluded_prefix")), "{id}");
    }
}

#[test]
fn a_prefix_is_literal_so_an_underscore_is_no_wildcard_and_case_counts() {
    for id in
        ["testX", "test-1", "test", "Test_1", "TEST_1", "adminX1", "healthX1", "systemX1", "my_test_1", " test_1", ""]
    {
        let folding = Folding::of(id, &agent_red(), &[customer(0), ai(1)]);
        assert_eq!(folding.charges(), [(1, Instant(1))], "{id}");
    }
}

#[test]
fn only_agent_red_excludes_by_prefix() {
    for policy in [lutingenie(), ai_resolution()] {
        let folding = Folding::of("test_1", &policy, &[customer(0), ai(1), close(2)]);
        assert_eq!(folding.charges().len(), 1, "{}", policy.name);
    }
}

#[test]
fn an_excluded_part_is_recorded_like_any_other_and_never_charged() {
    let excluded = Folding::of("test_1", &agent_red(), &[customer(0), ai(1), ai(2), close(3)]);
    let recorded = Part { verdict: Some(Verdict::Billable(Instant(1))), ..excluded.parts()[0].clone() };
    assert_eq!(recorded, part(&agent_red(), [customer(0), ai(1), ai(2), close(3)]));
    assert_eq!(excluded.charges(), []);
}

#[test]
fn a_flagged_event_up_to_the_charge_instant_excludes_the_part() {
    assert_eq!(against(&lutingenie(), [flagged(customer(0)), ai(1)]), Some("excluded"));
    assert_eq!(against(&lutingenie(), [customer(0), flagged(event(Kind::Note, 1)), ai(2)]), Some("excluded"));
    assert_eq!(against(&lutingenie(), [customer(0), flagged(ai(1))]), Some("excluded"));
    assert_eq!(against(&ai_resolution(), [customer(0), ai(1), flagged(close(2))]), Some("excluded"));
}

#[test]
fn an_event_flagged_only_after_the_charge_instant_leaves_the_part_billed() {
    assert_eq!(charges(&lutingenie(), [customer(0), ai(1), flagged(ai(2)), flagged(close(3))]), [(1, 1)]);
}

#[test]
fn what_follows_the_first_reply_at_the_same_instant_comes_after_the_charge() {
    let policy = with(&agent_red(), |policy| policy.staff_reply_blocks = true);
    assert_eq!(charges(&policy, [customer(0), ai(0), flagged(customer(0)), error(0), staff(0)]), [(1, 0)]);
}

#[test]
fn a_flagged_event_outside_the_part_does_not_exclude_it() {
    assert_eq!(charges(&lutingenie(), [flagged(ai(0)), customer(1), ai(2)]), [(1, 2)]);
}

#[test]
fn a_visible_staff_reply_before_or_after_the_ai_blocks_ai_resolution() {
    assert_eq!(against(&ai_resolution(), [customer(0), staff(1), ai(2), close(3)]), Some("staff_replied"));
    assert_eq!(against(&ai_resolution(), [customer(0), ai(1), staff(2), close(3)]), Some("staff_replied"));
}

#[test]
fn a_staff_reply_at_the_instant_of_the_close_and_before_it_blocks() {
    assert_eq!(against(&ai_resolution(), [customer(0), ai(1), staff(2), close(2)]), Some("staff_replied"));
}

#[test]
fn notes_of_staff_do_not_block() {
    assert_eq!(charges(&ai_resolution(), [customer(0), ai(1), event(Kind::Note, 2), close(3)]), [(1, 3)]);
}

#[test]
fn a_staff_reply_blocks_neither_lutingenie_nor_agent_red() {
    for policy in [lutingenie(), agent_red()] {
        assert_eq!(charges(&policy, [customer(0), staff(1), ai(2)]), [(1, 2)], "{}", policy.name);
    }
}

#[test]
fn staff_in_one_part_does_not_block_the_next() {
    let talk = [customer(0), ai(1), staff(2), close(3), customer(4), ai(5), close(6)];
    assert_eq!(charges(&ai_resolution(), talk), [(2, 6)]);
}

#[test]
fn a_staff_reply_after_the_close_opens_a_part_that_is_not_billable_and_leaves_the_first_billed() {
    let talk = [customer(0), ai(1), close(2), staff(3), ai(4), close(5)];
    assert_eq!(charges(&ai_resolution(), talk.clone()), [(1, 2)]);
    assert_eq!(reason(&parts(&ai_resolution(), talk)[1]), Some("staff_replied"));
}

#[test]
fn an_error_before_the_first_reply_waives_for_agent_red() {
    assert_eq!(against(&agent_red(), [customer(0), error(1), ai(2)]), Some("error_before_reply"));
}

#[test]
fn an_error_before_the_first_reply_is_billed_at_the_later_reply_by_lutingenie() {
    assert_eq!(charges(&lutingenie(), [customer(0), error(1), ai(2)]), [(1, 2)]);
}

#[test]
fn an_error_before_the_first_reply_does_not_keep_ai_resolution_from_billing() {
    assert_eq!(charges(&ai_resolution(), [customer(0), error(1), ai(2), close(3)]), [(1, 3)]);
}

#[test]
fn an_error_after_the_first_reply_is_billed() {
    assert_eq!(charges(&agent_red(), [customer(0), ai(1), error(2), close(3)]), [(1, 1)]);
    let judged_at_the_end = with(&agent_red(), |policy| policy.charge_on = ChargeOn::Close);
    assert_eq!(charges(&judged_at_the_end, [customer(0), ai(1), error(2), close(3)]), [(1, 3)]);
}

#[test]
fn an_error_before_the_part_opened_does_not_waive_it() {
    assert_eq!(charges(&agent_red(), [error(0), customer(1), ai(2)]), [(1, 2)]);
}

#[test]
fn a_part_that_the_ai_never_answered_is_not_billable() {
    for policy in common::all() {
        let unanswered = [customer(0), customer(1), close(2)];
        assert_eq!(against(&policy, unanswered), Some("no_ai_reply"), "{}", policy.name);
    }
}

#[test]
fn a_staff_reply_is_no_answer_of_the_ai() {
    for policy in [lutingenie(), agent_red()] {
        assert_eq!(against(&policy, [customer(0), staff(1), close(2)]), Some("no_ai_reply"), "{}", policy.name);
    }
}

#[test]
fn an_escalation_before_any_ai_reply_is_not_billable() {
    assert_eq!(against(&agent_red(), [customer(0), event(Kind::Escalate, 1)]), Some("no_ai_reply"));
}

#[test]
fn a_reopened_part_needs_an_ai_reply_of_its_own_to_be_billed_again() {
    let first = [customer(0), ai(1), close(2), reopen(3)];
    assert_eq!(charges(&ai_resolution(), first.clone().into_iter().chain([close(4)])), [(1, 2)]);
    assert_eq!(charges(&ai_resolution(), first.into_iter().chain([ai(4), close(5)])), [(1, 2), (2, 5)]);
}

#[test]
fn of_several_reasons_the_first_in_the_order_of_the_rules_is_given() {
    let policy = with(&ai_resolution(), |policy| {
        policy.error_before_reply_waives = true;
        policy.exclude_prefixes = vec!["test_".into()];
    });
    let all = [customer(0), flagged(event(Kind::Note, 1)), staff(2), error(3), close(4)];
    let reason_in = |id, skipped: usize| {
        let events =
            all.clone().into_iter().enumerate().filter(|(i, _)| *i == 0 || *i > skipped).map(|(_, event)| event);
        reason(&Folding::of(id, &policy, &Vec::from_iter(events)).parts()[0])
    };
    assert_eq!(reason_in("test_1", 0), Some("excluded_prefix"));
    let without_prefix = [0, 1, 2, 3].map(|skipped| reason_in(ID, skipped).expect("a reason"));
    assert_eq!(without_prefix, ["excluded", "staff_replied", "error_before_reply", "no_ai_reply"]);
}

#[test]
fn reasons_and_ends_have_the_names_that_reports_show() {
    let reasons = [
        "excluded_prefix",
        "excluded",
        "already_charged",
        "staff_replied",
        "error_before_reply",
        "no_ai_reply",
        "not_reached",
        "voided",
    ];
    assert_eq!(Reason::NAMED.map(Reason::name), reasons);
    assert_eq!(Reason::NAMED.map(|reason| Reason::named(reason.name())), Reason::NAMED.map(Some));
    for name in ["idle", "quiet_review", "max_duration", "turn_limit", "close", "note:confirmed"] {
        assert_eq!(EndReason::named(name).expect("a reason").name(), name);
    }
}

// Definitions that make no sense

#[test]
fn the_published_policies_have_no_flaw() {
    assert_eq!(common::all().map(|policy| policy.flaw()), [None, None, None]);
}

#[test]
fn a_policy_that_could_not_work_says_why() {
    type Change = fn(&mut Policy);
    let cases: [(Change, &str); 7] = [
        (|policy| policy.starts_on.clear(), "\"starts_on\" is empty, so no part would ever open"),
        (|policy| policy.idle_timeout = Some(0), "\"idle_timeout\" is not positive"),
        (|policy| policy.quiet_review_after = Some(-1), "\"quiet_review_after\" is not positive"),
        (|policy| policy.max_duration = Some(0), "\"max_duration\" is not positive"),
        (|policy| policy.turn_limit = Some(0), "\"turn_limit\" is not positive"),
        (|policy| policy.turn_limit = Some(-1), "\"turn_limit\" is not positive"),
        (
            |policy| policy.exclude_prefixes.push(String::new()),
            "\"exclude_prefixes\" holds an empty prefix, which every conversation starts with",
        ),
    ];
    for (change, message) in cases {
        assert_eq!(with(&agent_red(), change).flaw().as_deref(), Some(message));
    }
}

#[test]
fn a_timeout_beyond_the_end_of_time_never_comes() {
    let policy = with(&lutingenie(), |policy| policy.idle_timeout = Some(i64::MAX));
    assert_eq!(part(&policy, [customer(0), customer(NEVER)]).end, None);
}
