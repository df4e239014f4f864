//! What holds of the parts of any conversation under any policy, and does a second, plainer implementation agree?

mod common;
mod naive;

use common::Folding;
use naive::Happening;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::collections::BTreeMap;
use std::sync::Arc;
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::fold::Effect;
use talkmeter_engine::instant::Instant;
use talkmeter_engine::outcome::Outcomes;
use talkmeter_engine::part::{Part, Verdict};
use talkmeter_engine::policy::{ChargeOn, FinalAfter, Policy};
use talkmeter_engine::selector::Selector;

/// Microseconds, and few of them: events that lie 0 to 9 apart often meet a timeout exactly, and often tie.
const TIMEOUTS: [i64; 3] = [3, 5, 8];
const LONGEST_GAP: i64 = 9;
const LONGEST_TALK: usize = 40;

/// A conversation, a policy that changes once on the way, and an instant after its last event.
#[derive(Clone, Debug)]
struct Case {
    id: &'static str,
    events: Vec<Happening>,
    now: Instant,
}

impl Case {
    /// Folds `events` on what `folding` already holds.
    fn fold_on(folding: &mut Folding, events: &[Happening]) {
        for (event, policy, _) in events {
            folding.step(event, policy);
        }
    }

    fn folded(&self) -> Folding<'static> {
        let mut folding = Folding::new(self.id);
        Self::fold_on(&mut folding, &self.events);
        folding.pass_time(self.now);
        folding
    }
}

/// What a kind does in a policy; one kind never both starts and ends a part.
fn roles() -> impl Strategy<Value = (Vec<Kind>, Vec<Kind>)> {
    let role = prop_oneof![3 => Just(' '), 1 => Just('s'), 1 => Just('e')];
    let with_role = |roles: &[char], wanted| {
        let kinds = Kind::ALL.into_iter().zip(roles).filter(|(_, role)| **role == wanted);
        kinds.map(|(kind, _)| kind).collect::<Vec<_>>()
    };
    vec(role, Kind::ALL.len()).prop_map(move |mut roles| {
        if !roles.contains(&'s') {
            roles[Kind::CustomerMessage as usize] = 's';
        }
        (with_role(&roles, 's'), with_role(&roles, 'e'))
    })
}

fn policy(version: i32) -> impl Strategy<Value = Arc<Policy>> {
    let charge_on = select(vec![ChargeOn::FirstAiReply, ChargeOn::Close]);
    let prefixes = subsequence(vec!["test_", "Test_", "c"], 0..=2);
    let timeout = || option::of(select(TIMEOUTS.to_vec()));
    let settings = (timeout(), timeout(), option::of(1..=4), charge_on, any::<(bool, bool)>(), prefixes);
    (roles(), settings).prop_map(move |((starts_on, ends_on), settings)| {
        let (idle_timeout, quiet_review_after, turn_limit, charge_on, waives, prefixes) = settings;
        let policy = Policy {
            name: "any".into(),
            version,
            starts_on: starts_on.into_iter().map(Selector::from).collect(),
            ends_on: ends_on.into_iter().map(Selector::from).collect(),
            idle_timeout,
            quiet_review_after,
            max_duration: None,
            turn_limit,
            charge_on,
            outcomes: Outcomes::default(),
            final_after: FinalAfter::End,
            once_per_conversation: false,
            staff_reply_blocks: waives.0,
            error_before_reply_waives: waives.1,
            exclude_prefixes: prefixes.into_iter().map(String::from).collect(),
        };
        assert_eq!(policy.flaw(), None);
        Arc::new(policy)
    })
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop_oneof![
        3 => Just(Kind::CustomerMessage),
        3 => Just(Kind::AiReply),
        1 => Just(Kind::StaffReply),
        3 => select(Kind::ALL.to_vec()),
    ];
    let gap = prop_oneof![Just(0), 0..=LONGEST_GAP];
    let event = (gap, kind, prop::bool::weighted(0.05));
    let id = select(vec!["c1", "test_1", "testX", "Test_1", "my_test_1"]);
    let policies = (policy(1), policy(2), 0..60usize);
    (id, vec(event, 0..=LONGEST_TALK), policies, 0..=LONGEST_GAP).prop_map(
        |(id, steps, (first, second, change), rest)| {
            let mut at = 0;
            let events = steps.into_iter().enumerate().map(|(i, (gap, kind, excluded))| {
                at += gap;
                let event = Event { excluded, ..Event::named(kind.into(), Instant(at)) };
                (event, Arc::clone(if i < change { &first } else { &second }), Arc::default())
            });
            let events: Vec<Happening> = events.collect();
            Case { id, events, now: Instant(at + rest) }
        },
    )
}

fn counts(part: &Part) -> [i64; 5] {
    [i64::from(part.turn_count), part.ai_replies, part.staff_replies, part.message_count, part.event_count]
}

proptest! {
    // The strongest property, so the one that is given most of the time.
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_parts_equal_those_of_the_naive_implementation(case in case()) {
        let parts: Vec<_> = case.folded().parts().iter().map(naive::plainly).collect();
        prop_assert_eq!(parts, naive::parts(case.id, &case.events, case.now));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn folding_a_prefix_and_later_the_rest_is_folding_the_whole(case in case(), cut in 0.0..=1.0) {
        let whole = case.folded();
        let (prefix, rest) = case.events.split_at((cut * case.events.len() as f64) as usize);
        let mut before = Folding::new(case.id);
        Case::fold_on(&mut before, prefix);
        // Between two transactions only the state remains.
        let mut after = Folding { state: before.state.clone(), ..Folding::new(case.id) };
        Case::fold_on(&mut after, rest);
        after.pass_time(case.now);
        prop_assert_eq!(&after.state, &whole.state);
        prop_assert_eq!([before.effects, after.effects].concat(), whole.effects);
    }

    #[test]
    fn sweeping_between_events_never_changes_the_result(
        case in case(), sweeps in vec(option::of(0..=LONGEST_GAP), LONGEST_TALK)
    ) {
        let mut swept = Folding::new(case.id);
        for (i, happening) in case.events.iter().enumerate() {
            Case::fold_on(&mut swept, std::slice::from_ref(happening));
            let next = case.events.get(i + 1).map_or(case.now, |(event, ..)| event.at);
            if let Some(later) = sweeps[i] {
                swept.pass_time(happening.0.at.plus(later).min(next));
            }
        }
        swept.pass_time(case.now);
        let whole = case.folded();
        prop_assert_eq!(&swept.state, &whole.state);
        prop_assert_eq!(swept.effects, whole.effects);
    }

    #[test]
    fn a_sweep_ends_the_open_part_as_foretold_when_it_is_due_and_not_a_microsecond_before(case in case()) {
        let mut folding = Folding::new(case.id);
        Case::fold_on(&mut folding, &case.events);
        let open = folding.state.current.clone();
        let Some((open, timeout)) = open.and_then(|part| part.timeout().map(|timeout| (part, timeout))) else {
            prop_assert!(!folding.pass_time(Instant::LATEST));
            return Ok(());
        };
        prop_assert!(!folding.pass_time(timeout.due.plus(-1)));
        prop_assert!(folding.pass_time(timeout.due));
        // What a report shows of a part that no sweep has ended yet.
        let verdict = Some(open.judgment_if_ended(case.id, timeout.end.at).verdict);
        prop_assert_eq!(folding.parts().pop(), Some(Part { end: Some(timeout.end), verdict, ..open }));
    }

    #[test]
    fn a_step_asks_for_an_opener_when_a_part_may_open_and_at_no_other_time(case in case()) {
        let mut folding = Folding::new(case.id);
        for (event, policy, _) in &case.events {
            let may_open = folding.state.may_open_at(event.at);
            prop_assert_eq!(folding.step(event, policy), may_open, "{:?} at {:?}", folding.state, event);
        }
    }

    #[test]
    fn parts_never_overlap_and_are_numbered_from_1_without_gaps(case in case()) {
        let folding = case.folded();
        let parts = folding.parts();
        let numbers: Vec<i32> = parts.iter().map(|part| part.number).collect();
        prop_assert_eq!(numbers, (1..=folding.state.highest).collect::<Vec<_>>());
        for pair in parts.windows(2) {
            prop_assert!(pair[0].end.as_ref().is_some_and(|end| end.at <= pair[1].started_at), "{pair:?}");
        }
    }

    #[test]
    fn the_instants_of_a_part_lie_between_its_start_and_its_end(case in case()) {
        for part in case.folded().parts() {
            let end = part.end.as_ref().map_or(case.now, |end| end.at);
            let charged_at = match part.verdict {
                Some(Verdict::Billable(at)) => Some(at),
                _ => None,
            };
            let instants = [Some(part.last_activity_at), part.first_ai_reply_at, charged_at, Some(end)];
            for at in instants.iter().flatten() {
                prop_assert!((part.started_at..=end).contains(at), "{part:?}");
            }
        }
    }

    #[test]
    fn the_counts_of_a_part_are_consistent(case in case()) {
        for part in case.folded().parts() {
            let [turns, ai_replies, staff_replies, messages, events] = counts(&part);
            prop_assert!(turns <= ai_replies, "{part:?}");
            prop_assert!(ai_replies + staff_replies <= messages, "{part:?}");
            prop_assert!(messages <= events && events > 0, "{part:?}");
            prop_assert_eq!(ai_replies > 0, part.first_ai_reply_at.is_some(), "{:?}", part);
        }
    }

    #[test]
    fn the_events_counted_are_no_more_than_those_that_happened(case in case()) {
        let counted: i64 = case.folded().parts().iter().map(|part| part.event_count).sum();
        prop_assert!(usize::try_from(counted).is_ok_and(|counted| counted <= case.events.len()));
    }

    #[test]
    fn each_billable_part_is_charged_once_at_its_charge_instant_and_no_other_is(case in case()) {
        let folding = case.folded();
        let charges = folding.charges();
        let billable: BTreeMap<i32, Instant> = folding.parts().iter().filter_map(|part| match part.verdict {
            Some(Verdict::Billable(at)) => Some((part.number, at)),
            _ => None,
        }).collect();
        prop_assert_eq!(charges.len(), billable.len());
        prop_assert_eq!(charges.into_iter().collect::<BTreeMap<_, _>>(), billable);
    }

    #[test]
    fn a_part_is_judged_when_it_ends_and_ended_parts_are_never_seen_again(case in case()) {
        let folding = case.folded();
        let ended: Vec<&Part> = folding.effects.iter().filter_map(Effect::as_final).collect();
        prop_assert!(ended.iter().all(|part| part.end.is_some() && part.verdict.is_some()), "{ended:?}");
        prop_assert!(ended.windows(2).all(|pair| pair[0].number < pair[1].number), "{ended:?}");
        let highest = folding.state.highest;
        prop_assert!(folding.state.current.is_none_or(|part| part.end.is_none() && part.number == highest));
    }
}
