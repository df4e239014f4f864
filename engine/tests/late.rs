//! What do parts and charges become when an event comes late, is changed or has gone (rule 3.5)?
//!
//! First one test for each rule, then conversations by the million against folding everything from the start.

mod common;
mod naive;
mod simulation;
mod store;

use common::word;
use common::{
    HOUR, MINUTE, ai, ai_resolution, at_length, close, customer, event, first_seed, flagged, lutingenie, place, reopen,
    staff,
};
use serde_json::json;
use simulation::Tally;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Outcome, Store, Terms, mark};
use talkmeter_engine::event::{Event, Kind};
use talkmeter_engine::instant::Instant;
use talkmeter_engine::order::{MessageId, OrderKey, Position, Rank};
use talkmeter_engine::part::{Opening, Part};
use talkmeter_engine::policy::{ChargeOn, FinalAfter, Policy};
use talkmeter_engine::refold::{Before, Changes, Placed, Restart, refold, restart};

const HALF_HOUR: i64 = 30 * MINUTE;

/// A conversation that nobody excludes, whose only source is under one policy.
fn talk(policy: &Arc<Policy>) -> Store {
    Store::new("c1", Terms(vec![(1, Instant::BEGINNING, Arc::clone(policy))]))
}

/// The same after one commit.
fn talked(policy: &Arc<Policy>, events: impl IntoIterator<Item = Event>) -> Store {
    let mut store = talk(policy);
    come(&mut store, events);
    store
}

/// One commit that adds rows.
fn come(store: &mut Store, events: impl IntoIterator<Item = Event>) -> Outcome {
    store.commit(&events.into_iter().map(added).collect::<Vec<_>>())
}

fn added(event: Event) -> Change {
    Change::Add(Placed::new(place(&event), event))
}

fn removed(event: Event) -> Change {
    Change::Remove(place(&event))
}

fn deleted(event: Event) -> Change {
    Change::Delete(place(&event))
}

fn touched(event: Event) -> Change {
    Change::Touch(place(&event))
}

/// One commit that changes a row.
fn change(store: &mut Store, from: Event, to: Event) -> Outcome {
    store.commit(&[removed(from), added(to)])
}

/// One commit that deletes rows.
fn delete(store: &mut Store, events: impl IntoIterator<Item = Event>) {
    let before = store.clone();
    store.commit(&events.into_iter().map(deleted).collect::<Vec<_>>());
    assert_eq!((&store.parts, &store.ledger), (&before.parts, &before.ledger), "a delete changes nothing");
}

fn marked(store: &mut Store, call: i64, kind: Kind, at: i64) -> Outcome {
    store.commit(&[Change::Add(mark(call, event(kind, at)))])
}

fn note(at: i64) -> Event {
    event(Kind::Note, at)
}

/// Number and start of each part, in the order of time.
fn named(store: &Store) -> Vec<(i32, i64)> {
    store.parts.iter().map(|part| (part.number, part.started_at.0)).collect()
}

/// When and why each part ended.
fn ends(store: &Store) -> Vec<Option<(i64, &'static str)>> {
    store.parts.iter().map(|part| part.end.as_ref().map(|end| (end.at.0, word(&end.reason)))).collect()
}

/// Number and charge instant of each billable part; the store sees to it that these are the standing charges.
fn charges(store: &Store) -> Vec<(i32, i64)> {
    store.parts.iter().filter_map(|part| Some((part.number, part.charge_instant()?.0))).collect()
}

/// How many charges were posted and how many reversed.
fn entries(store: &Store) -> (i64, i64) {
    (store.ledger.posted, store.ledger.reversed)
}

fn numbers(parts: &[Part]) -> Vec<i32> {
    parts.iter().map(|part| part.number).collect()
}

fn event_counts(store: &Store) -> Vec<i64> {
    store.parts.iter().map(|part| part.event_count).collect()
}

fn places(events: impl IntoIterator<Item = Event>) -> Vec<Vec<u8>> {
    events.into_iter().map(|event| place(&event)).collect()
}

fn with(policy: &Arc<Policy>, change: impl FnOnce(&mut Policy)) -> Arc<Policy> {
    let mut policy = (**policy).clone();
    change(&mut policy);
    Arc::new(policy)
}

/// The first policy with the charge at the end.
fn charged_at_the_end() -> Arc<Policy> {
    with(&lutingenie(), |policy| policy.charge_on = ChargeOn::Close)
}

// What a late event does

#[test]
fn a_late_bridge_merges_two_parts_and_the_left_over_number_is_retired_with_its_charge() {
    let mut store = talked(&lutingenie(), [customer(0), ai(MINUTE), customer(50 * MINUTE), ai(51 * MINUTE)]);
    assert_eq!(charges(&store), [(1, MINUTE), (2, 51 * MINUTE)]);
    let outcome = come(&mut store, [customer(25 * MINUTE)]);
    assert_eq!(outcome.retired, [2]);
    assert_eq!(named(&store), [(1, 0)]);
    assert_eq!((charges(&store), entries(&store)), (vec![(1, MINUTE)], (2, 1)));
}

#[test]
fn a_merged_part_keeps_the_number_with_the_oldest_standing_charge() {
    let mut store = talked(&lutingenie(), [customer(50 * MINUTE), ai(51 * MINUTE)]);
    come(&mut store, [customer(0), ai(MINUTE)]);
    assert_eq!(named(&store), [(2, 0), (1, 50 * MINUTE)]);
    come(&mut store, [customer(25 * MINUTE)]);
    assert_eq!(named(&store), [(1, 0)]);
}

#[test]
fn a_number_with_a_charge_goes_before_an_earlier_one_without() {
    let mut store = talked(&lutingenie(), [customer(0), customer(50 * MINUTE), ai(51 * MINUTE)]);
    come(&mut store, [customer(25 * MINUTE)]);
    assert_eq!((named(&store), entries(&store)), (vec![(2, 0)], (1, 0)));
}

#[test]
fn a_merged_part_without_charges_keeps_the_number_of_the_earliest() {
    let mut store = talked(&lutingenie(), [customer(50 * MINUTE)]);
    come(&mut store, [customer(0)]);
    assert_eq!(named(&store), [(2, 0), (1, 50 * MINUTE)]);
    come(&mut store, [customer(25 * MINUTE)]);
    assert_eq!(named(&store), [(2, 0)]);
}

#[test]
fn a_retired_number_is_never_used_again() {
    let mut store = talked(&lutingenie(), [customer(0), customer(50 * MINUTE)]);
    come(&mut store, [customer(25 * MINUTE)]);
    store.commit(&[removed(customer(25 * MINUTE))]);
    assert_eq!(named(&store), [(1, 0), (3, 50 * MINUTE)]);
}

#[test]
fn a_late_first_message_makes_a_part_begin_earlier_and_keep_its_number() {
    let mut store = talked(&lutingenie(), [customer(10 * MINUTE), ai(11 * MINUTE)]);
    come(&mut store, [customer(0)]);
    assert_eq!((named(&store), entries(&store)), (vec![(1, 0)], (1, 0)));
}

#[test]
fn a_late_ai_reply_moves_the_charge_instant_and_posts_nothing() {
    let mut store = talked(&lutingenie(), [customer(0), ai(10 * MINUTE)]);
    come(&mut store, [ai(5 * MINUTE)]);
    assert_eq!((charges(&store), entries(&store)), (vec![(1, 5 * MINUTE)], (1, 0)));
}

#[test]
fn a_late_staff_reply_makes_a_resolution_unbillable() {
    let mut store = talked(&ai_resolution(), [customer(0), ai(MINUTE), close(10 * MINUTE)]);
    assert_eq!(charges(&store), [(1, 10 * MINUTE)]);
    come(&mut store, [staff(5 * MINUTE)]);
    assert_eq!((charges(&store), entries(&store)), (vec![], (1, 1)));
    assert_eq!((named(&store), ends(&store)), (vec![(1, 0)], vec![Some((10 * MINUTE, "close"))]));
}

#[test]
fn a_late_event_in_a_gap_starts_a_part_and_touches_no_other() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(10 * HOUR), ai(10 * HOUR + 1)]);
    let before = store.parts.clone();
    come(&mut store, [customer(5 * HOUR)]);
    assert_eq!(named(&store), [(1, 0), (3, 5 * HOUR), (2, 10 * HOUR)]);
    assert_eq!([&store.parts[0], &store.parts[2]], [&before[0], &before[1]]);
}

#[test]
fn a_late_event_in_a_gap_that_starts_nothing_changes_nothing() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(10 * HOUR)]);
    let before = store.clone();
    come(&mut store, [ai(5 * HOUR), note(6 * HOUR)]);
    assert_eq!((&store.parts, &store.ledger), (&before.parts, &before.ledger));
}

#[test]
fn a_late_event_at_exactly_the_idle_timeout_continues_and_one_a_microsecond_later_does_not() {
    for (late, starts) in
        [(HALF_HOUR, vec![(1, 0), (2, 5 * HOUR)]), (HALF_HOUR + 1, vec![(1, 0), (3, HALF_HOUR + 1), (2, 5 * HOUR)])]
    {
        let mut store = talked(&lutingenie(), [customer(0), customer(5 * HOUR)]);
        come(&mut store, [customer(late)]);
        assert_eq!(named(&store), starts);
    }
}

#[test]
fn a_late_close_splits_a_part_and_the_second_half_is_a_new_one() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(10), ai(11)]);
    come(&mut store, [close(5)]);
    assert_eq!((named(&store), charges(&store)), (vec![(1, 0), (2, 10)], vec![(1, 1), (2, 11)]));
}

#[test]
fn a_late_event_after_an_explicit_end_does_not_reopen_the_part() {
    let mut store = talked(&lutingenie(), [customer(0), close(5), customer(HOUR)]);
    come(&mut store, [customer(6)]);
    assert_eq!((named(&store), ends(&store)[0]), (vec![(1, 0), (3, 6), (2, HOUR)], Some((5, "close"))));
}

#[test]
fn parts_that_a_late_one_divides_share_no_number() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(20 * MINUTE), ai(21 * MINUTE)]);
    come(&mut store, [close(5), customer(10), close(15)]);
    assert_eq!(named(&store), [(1, 0), (2, 10), (3, 20 * MINUTE)]);
}

// What a changed row does

#[test]
fn a_removal_splits_a_part_the_first_half_keeps_the_number_and_the_second_gets_the_next() {
    let minutes = [0, 25, 50].map(|minute| minute * MINUTE);
    let mut store = talked(&lutingenie(), minutes.into_iter().flat_map(|at| [customer(at), ai(at + MINUTE)]));
    assert_eq!(named(&store), [(1, 0)]);
    store.commit(&[removed(customer(25 * MINUTE)), removed(ai(26 * MINUTE))]);
    assert_eq!(named(&store), [(1, 0), (2, 50 * MINUTE)]);
    assert_eq!((charges(&store), entries(&store)), (vec![(1, MINUTE), (2, 51 * MINUTE)], (2, 0)));
}

#[test]
fn a_part_moved_to_where_it_overlaps_nothing_gets_a_new_number() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1)]);
    let outcome =
        store.commit(&[removed(customer(0)), removed(ai(1)), added(customer(10 * HOUR)), added(ai(10 * HOUR + 1))]);
    assert_eq!((named(&store), outcome.retired), (vec![(2, 10 * HOUR)], vec![1]));
    assert_eq!((charges(&store), entries(&store)), (vec![(2, 10 * HOUR + 1)], (2, 1)));
}

#[test]
fn a_part_moved_a_little_keeps_its_number() {
    let mut store = talked(&lutingenie(), [customer(0), ai(MINUTE)]);
    store.commit(&[removed(customer(0)), removed(ai(MINUTE)), added(customer(MINUTE)), added(ai(2 * MINUTE))]);
    assert_eq!((named(&store), entries(&store)), (vec![(1, MINUTE)], (1, 0)));
}

#[test]
fn a_part_that_begins_when_the_old_one_would_have_ended_is_another() {
    for (start, number) in [(HALF_HOUR - 1, 1), (HALF_HOUR, 2)] {
        let mut store = talked(&lutingenie(), [customer(0)]);
        change(&mut store, customer(0), customer(start));
        assert_eq!(named(&store), [(number, start)]);
    }
}

#[test]
fn a_change_of_kind_is_folded_in_its_place() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(2)]);
    // The same row, so the same place.
    let place = place(&ai(1));
    store.commit(&[Change::Remove(place.clone()), Change::Add(Placed::new(place, staff(1)))]);
    assert_eq!((named(&store), entries(&store)), (vec![(1, 0)], (1, 1)));
    assert_eq!(event_counts(&store), [3]);
}

#[test]
fn a_row_changed_and_changed_back_in_one_commit_changes_nothing() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(HOUR), ai(HOUR + 1)]);
    let before = store.clone();
    let there_and_back = [removed(ai(1)), added(ai(5)), removed(ai(5)), added(ai(1))];
    let outcome = store.commit(&there_and_back);
    assert_eq!((outcome.sealed, outcome.retired), (vec![], vec![]));
    assert_eq!((&store.parts, &store.ledger, store.highest), (&before.parts, &before.ledger, before.highest));
}

#[test]
fn a_row_removed_for_good_takes_its_part_with_it() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1)]);
    let outcome = store.commit(&[removed(customer(0))]);
    assert_eq!((named(&store), outcome.retired, entries(&store)), (vec![], vec![1], (1, 1)));
}

#[test]
fn an_event_changed_away_is_no_lost_row() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(5), customer(HOUR)]);
    change(&mut store, customer(5), customer(9 * HOUR));
    assert_eq!(event_counts(&store), [2, 1, 1]);
    let outcome = come(&mut store, [customer(1)]);
    assert_eq!((outcome.sealed, event_counts(&store)), (vec![], vec![3, 1, 1]));
}

#[test]
fn the_end_of_a_part_is_that_which_time_gives_it_when_the_event_that_showed_it_has_been_changed_away() {
    let equal = with(&ai_resolution(), |policy| policy.idle_timeout = Some(3 * HOUR));
    // One that starts nothing, and one that opens the next part.
    for showed in [ai(3 * HOUR), customer(3 * HOUR)] {
        let mut store = talked(&equal, [customer(0), showed.clone()]);
        assert_eq!(ends(&store)[0], Some((3 * HOUR, "quiet_review")));
        store.commit(&[removed(showed)]);
        store.sweep(Instant(9 * HOUR));
        assert_eq!(ends(&store), [Some((3 * HOUR, "idle"))]);
    }
}

// What a deleted row does

/// An hour's talk that has lost a reply, and one that follows much later.
fn talk_with_a_loss() -> Store {
    let mut store = talked(&lutingenie(), [customer(0), ai(MINUTE), customer(10 * MINUTE), customer(9 * HOUR)]);
    delete(&mut store, [ai(MINUTE)]);
    store
}

#[test]
fn a_late_event_not_after_the_last_activity_of_a_part_that_lost_rows_is_refused() {
    for late in [customer(5 * MINUTE), note(1), customer(-HOUR), staff(10 * MINUTE)] {
        let mut store = talk_with_a_loss();
        let before = store.clone();
        let outcome = come(&mut store, [late.clone()]);
        assert_eq!(outcome.sealed, places([late]));
        assert_eq!((&store.parts, &store.ledger), (&before.parts, &before.ledger));
    }
}

#[test]
fn a_late_event_after_the_last_activity_of_a_part_that_lost_rows_continues_it() {
    let mut store = talk_with_a_loss();
    let outcome = come(&mut store, [customer(10 * MINUTE + 1)]);
    assert_eq!((outcome.sealed, event_counts(&store)), (vec![], vec![4, 1]));
    assert_eq!((charges(&store), entries(&store)), (vec![(1, MINUTE)], (1, 0)));
    assert_eq!(ends(&store), [Some((40 * MINUTE + 1, "idle")), None]);
}

#[test]
fn a_late_event_after_a_part_that_lost_rows_opens_the_next() {
    let mut store = talk_with_a_loss();
    let before = store.clone();
    let outcome = come(&mut store, [customer(40 * MINUTE + 1)]);
    assert_eq!((outcome.sealed, named(&store)), (vec![], vec![(1, 0), (3, 40 * MINUTE + 1), (2, 9 * HOUR)]));
    assert_eq!([&store.parts[0], &store.parts[2]], [&before.parts[0], &before.parts[1]]);
}

#[test]
fn what_continues_a_part_that_lost_rows_can_not_be_barred_by_what_is_refused_with_it() {
    let mut store = talk_with_a_loss();
    let outcome = come(&mut store, [ai(5 * MINUTE), customer(11 * MINUTE)]);
    assert_eq!((outcome.sealed, event_counts(&store)), (places([ai(5 * MINUTE)]), vec![4, 1]));
}

#[test]
fn an_event_at_the_last_instant_of_a_part_that_lost_rows_is_refused_whatever_else_came_late() {
    let one_turn = with(&lutingenie(), |policy| policy.turn_limit = Some(1));
    for others in [vec![], vec![note(-1)]] {
        let mut store = talked(&one_turn, [customer(0), ai(1), customer(HOUR)]);
        delete(&mut store, [customer(0)]);
        let outcome = come(&mut store, others.into_iter().chain([staff(1)]));
        assert!(outcome.sealed.contains(&place(&staff(1))), "{outcome:?}");
    }
}

#[test]
fn an_event_that_is_not_late_is_never_refused_whatever_came_late_with_it() {
    let one_turn = with(&lutingenie(), |policy| policy.turn_limit = Some(1));
    for (others, refused) in [(vec![], vec![]), (vec![note(-1)], places([note(-1)]))] {
        let mut store = talked(&one_turn, [customer(0), ai(1)]);
        delete(&mut store, [customer(0)]);
        let outcome = come(&mut store, others.into_iter().chain([staff(1), customer(2)]));
        assert_eq!((outcome.sealed, named(&store)), (refused, vec![(1, 0), (2, 2)]));
    }
}

#[test]
fn a_part_bridged_with_one_that_lost_rows_gives_up_its_number() {
    let mut store = talked(&lutingenie(), [customer(0), ai(MINUTE), customer(50 * MINUTE), ai(51 * MINUTE)]);
    delete(&mut store, [customer(0)]);
    let outcome = come(&mut store, [customer(25 * MINUTE)]);
    assert_eq!((named(&store), outcome.retired), (vec![(1, 0)], vec![2]));
    assert_eq!((event_counts(&store), entries(&store)), (vec![5], (2, 1)));
}

#[test]
fn a_part_that_lost_all_its_rows_stays() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(9 * HOUR)]);
    delete(&mut store, [customer(0), ai(1)]);
    let before = store.parts[0].clone();
    let outcome = come(&mut store, [customer(-5), customer(8 * HOUR)]);
    assert_eq!((outcome.sealed, named(&store)), (places([customer(-5)]), vec![(1, 0), (3, 8 * HOUR), (2, 9 * HOUR)]));
    assert_eq!(store.parts[0], before);
}

#[test]
fn a_deleted_close_still_closes_the_part() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), close(10), customer(12)]);
    delete(&mut store, [close(10)]);
    let outcome = come(&mut store, [note(5)]);
    assert_eq!((outcome.sealed, named(&store)), (vec![], vec![(1, 0), (2, 12)]));
    assert_eq!((ends(&store), event_counts(&store)), (vec![Some((10, "close")), None], vec![4, 1]));
}

#[test]
fn a_part_closed_at_its_last_activity_takes_nothing_more_when_its_rows_are_lost() {
    let mut store = talked(&lutingenie(), [customer(0), ai(10), close(10), customer(12)]);
    delete(&mut store, [customer(0), close(10)]);
    let before = store.parts.clone();
    let outcome = come(&mut store, [staff(10), note(11)]);
    assert_eq!((outcome.sealed, &store.parts), (places([staff(10)]), &before));
}

/// Gives every row another id, as a rewrite of the table does that nobody notes.
fn rewrite(store: &mut Store, id: fn(Kind) -> MessageId) {
    for placed in &mut store.log {
        let rank = Rank { sequence: None, message: &id(placed.event.kind), first: placed.event.kind };
        placed.place = OrderKey::row(placed.event.at, 1, &rank, Position::of_row(0)).as_bytes().to_vec();
    }
    store.log.sort_by(|a, b| a.place.cmp(&b.place));
}

#[test]
fn rows_that_have_other_ids_now_are_no_second_part() {
    let ids: [fn(Kind) -> MessageId; 3] = [
        |kind| MessageId::Text(format!("row {}", kind as i64)),
        |kind| MessageId::Integer(kind as i64 - 100),
        |kind| MessageId::Integer(kind as i64 + 100),
    ];
    for (id, ends_at) in ids.iter().flat_map(|id| [(id, 0), (id, MINUTE)]) {
        let mut store = talked(&lutingenie(), [customer(0), ai(0), close(ends_at), customer(9 * HOUR), ai(9 * HOUR)]);
        let before = store.clone();
        rewrite(&mut store, *id);
        let touched: Vec<Change> = store.log.iter().map(|placed| Change::Touch(placed.place.clone())).collect();
        store.commit(&touched);
        assert_eq!((&store.parts, &store.ledger), (&before.parts, &before.ledger), "closed at {ends_at}");
        let outcome = come(&mut store, [note(-1)]);
        assert_eq!((outcome.sealed, &store.parts), (places([note(-1)]), &before.parts), "closed at {ends_at}");
    }
}

#[test]
fn parts_before_the_last_that_lost_rows_stay_even_if_they_are_whole() {
    let mut store = talked(&lutingenie(), [customer(0), customer(2 * HOUR), ai(2 * HOUR + 1), customer(9 * HOUR)]);
    delete(&mut store, [ai(2 * HOUR + 1)]);
    let before = store.parts.clone();
    let outcome = come(&mut store, [ai(1), customer(HOUR)]);
    assert_eq!((outcome.sealed, &store.parts), (places([ai(1), customer(HOUR)]), &before));
}

#[test]
fn a_change_of_a_row_of_a_part_that_lost_others_is_without_effect_on_it() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(5), customer(9 * HOUR)]);
    delete(&mut store, [customer(0)]);
    let before = store.parts[0].clone();
    let outcome = change(&mut store, ai(1), ai(9 * HOUR + 1));
    assert_eq!((outcome.sealed, &store.parts[0]), (vec![], &before));
    assert_eq!(charges(&store), [(1, 1), (2, 9 * HOUR + 1)]);
}

#[test]
fn a_part_after_the_last_that_lost_rows_is_folded_again_as_ever() {
    let mut store = talk_with_a_loss();
    come(&mut store, [customer(9 * HOUR - 1), ai(9 * HOUR + 1)]);
    assert_eq!(
        (named(&store), charges(&store)),
        (vec![(1, 0), (2, 9 * HOUR - 1)], vec![(1, MINUTE), (2, 9 * HOUR + 1)])
    );
}

#[test]
fn a_lost_note_after_the_last_activity_is_counted_for_ever() {
    let mut store = talked(&lutingenie(), [customer(0), note(5), note(7), customer(9 * HOUR)]);
    delete(&mut store, [note(5)]);
    come(&mut store, [note(6)]);
    assert_eq!(event_counts(&store), [4, 1]);
    come(&mut store, [note(8)]);
    assert_eq!(event_counts(&store), [5, 1]);
}

#[test]
fn an_exclusion_or_an_error_outlives_its_row() {
    let waives = with(&charged_at_the_end(), |policy| policy.error_before_reply_waives = true);
    for lost in [flagged(note(1)), event(Kind::Error, 1)] {
        let mut store = talked(&waives, [customer(0), lost.clone(), customer(2), customer(9 * HOUR)]);
        delete(&mut store, [lost]);
        come(&mut store, [ai(3)]);
        assert_eq!((charges(&store), event_counts(&store)), (vec![], vec![4, 1]));
    }
}

#[test]
fn a_row_that_no_part_counted_is_no_loss() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), note(5 * HOUR), customer(9 * HOUR)]);
    delete(&mut store, [note(5 * HOUR)]);
    let outcome = come(&mut store, [customer(1)]);
    assert_eq!((outcome.sealed, event_counts(&store)), (vec![], vec![3, 1]));
}

#[test]
fn an_event_added_and_deleted_in_one_commit_never_was() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(9 * HOUR)]);
    let before = store.clone();
    for late in [customer(5), customer(5 * HOUR), customer(99 * HOUR)] {
        let outcome = store.commit(&[added(late.clone()), deleted(late)]);
        assert_eq!((outcome.sealed, outcome.retired), (vec![], vec![]));
        assert_eq!((&store.parts, &store.ledger, store.highest), (&before.parts, &before.ledger, before.highest));
    }
    assert_eq!(come(&mut store, [customer(1)]).sealed, places([]));
}

#[test]
fn a_row_that_was_deleted_and_inserted_again_is_no_loss() {
    let mut store = talked(&lutingenie(), [customer(0), ai(1), customer(9 * HOUR)]);
    let before = store.parts.clone();
    store.commit(&[deleted(ai(1)), added(ai(1))]);
    assert_eq!(store.parts, before);
    assert_eq!(come(&mut store, [customer(1)]).sealed, places([]));
}

#[test]
fn a_part_that_time_has_ended_stays_as_it_is_when_the_event_that_showed_it_has_been_deleted() {
    let mut store = talked(&charged_at_the_end(), [customer(0), ai(MINUTE), note(2 * HOUR)]);
    assert_eq!(charges(&store), [(1, MINUTE + HALF_HOUR)]);
    delete(&mut store, [customer(0), note(2 * HOUR)]);
    let before = store.clone();
    assert_eq!(come(&mut store, [customer(1)]).sealed, places([customer(1)]));
    assert_eq!((&store.parts, &store.ledger), (&before.parts, &before.ledger));
}

#[test]
fn a_part_that_time_has_ended_stays_ended_when_nothing_but_a_deleted_row_showed_it() {
    let mut store = talked(&charged_at_the_end(), [customer(0), ai(MINUTE), note(2 * HOUR)]);
    delete(&mut store, [note(2 * HOUR)]);
    let before = store.clone();
    store.commit(&[touched(ai(MINUTE))]);
    assert_eq!((&store.parts, &store.ledger), (&before.parts, &before.ledger));
}

// What a mark does

/// Two versions of a policy, the second in force after an hour.
fn two_versions() -> Store {
    let [first, second] = [1, 2].map(|version| with(&ai_resolution(), |policy| policy.version = version));
    Store::new("c1", Terms(vec![(1, Instant::BEGINNING, first), (1, Instant(HOUR), second)]))
}

fn versions(store: &Store) -> Vec<(i32, Option<i32>)> {
    store.parts.iter().map(|part| (part.policy.version, part.source)).collect()
}

#[test]
fn a_part_that_a_mark_opens_is_under_the_policy_and_of_the_source_of_the_part_before() {
    let mut store = two_versions();
    come(&mut store, [customer(0), close(1)]);
    marked(&mut store, 1, Kind::Reopen, 2 * HOUR);
    assert_eq!(versions(&store), [(1, Some(1)), (1, Some(1))]);
    // Likewise when all of it is folded again.
    come(&mut store, [ai(0)]);
    assert_eq!((named(&store), versions(&store)), (vec![(1, 0), (2, 2 * HOUR)], vec![(1, Some(1)), (1, Some(1))]));
}

#[test]
fn a_mark_that_opens_a_part_follows_the_part_that_a_late_event_puts_before_it() {
    let mut store = two_versions();
    come(&mut store, [customer(0), close(1)]);
    marked(&mut store, 1, Kind::Reopen, 9 * HOUR);
    come(&mut store, [customer(2 * HOUR), close(2 * HOUR + 1)]);
    assert_eq!(versions(&store), [(1, Some(1)), (2, Some(1)), (2, Some(1))]);
}

#[test]
fn a_late_mark_in_a_gap_follows_the_part_before_the_gap() {
    let mut store = two_versions();
    come(&mut store, [customer(0), close(1), customer(9 * HOUR)]);
    marked(&mut store, 1, Kind::Reopen, 2 * HOUR);
    assert_eq!(named(&store), [(1, 0), (3, 2 * HOUR), (2, 9 * HOUR)]);
    assert_eq!(versions(&store), [(1, Some(1)), (1, Some(1)), (2, Some(1))]);
}

#[test]
fn a_late_mark_follows_a_part_that_lost_rows() {
    let mut store = two_versions();
    come(&mut store, [customer(0), staff(1), close(1), customer(9 * HOUR)]);
    delete(&mut store, [customer(0)]);
    store.commit(&[Change::Add(mark(1, event(Kind::Reopen, 2 * HOUR))), added(note(0))]);
    assert_eq!(versions(&store), [(1, Some(1)), (1, Some(1)), (2, Some(1))]);
}

#[test]
fn a_mark_before_every_part_waits_and_is_judged_when_a_late_part_comes_before_it() {
    let mut store = two_versions();
    marked(&mut store, 1, Kind::Reopen, 2 * HOUR);
    assert_eq!((named(&store), store.unjudged.len()), (vec![], 1));
    come(&mut store, [customer(9 * HOUR)]);
    assert_eq!((named(&store), store.unjudged.len()), (vec![(1, 9 * HOUR)], 1));
    come(&mut store, [customer(0), close(1)]);
    assert_eq!(named(&store), [(2, 0), (3, 2 * HOUR), (1, 9 * HOUR)]);
    assert_eq!(store.unjudged.len(), 0);
}

#[test]
fn a_part_that_a_mark_opened_is_gone_when_the_part_before_it_is() {
    let mut store = two_versions();
    come(&mut store, [customer(0), close(1)]);
    marked(&mut store, 1, Kind::Reopen, 2 * HOUR);
    store.commit(&[removed(customer(0)), removed(close(1))]);
    assert_eq!((named(&store), store.unjudged.len()), (vec![], 1));
    assert_eq!(store.retired, [1, 2].into());
}

#[test]
fn a_row_without_a_known_policy_waits_until_a_part_is_open_around_it() {
    let mut store = talk(&lutingenie());
    let stranger = store::row(2, 1, 0, ai(5));
    store.commit(&[Change::Add(stranger.clone())]);
    assert_eq!((named(&store), &store.unjudged), (vec![], &[stranger.place].into()));
    come(&mut store, [customer(0)]);
    assert_eq!((charges(&store), store.unjudged.len()), (vec![(1, 5)], 0));
}

#[test]
fn a_close_mark_at_the_instant_of_a_staff_reply_comes_after_it_however_late_the_reply_is() {
    let mut store = talked(&ai_resolution(), [customer(0), ai(1)]);
    marked(&mut store, 1, Kind::Close, 10);
    assert_eq!(charges(&store), [(1, 10)]);
    come(&mut store, [staff(10)]);
    assert_eq!((charges(&store), ends(&store)), (vec![], vec![Some((10, "close"))]));
    assert_eq!(event_counts(&store), [4]);
}

#[test]
fn a_new_topic_mark_at_the_instant_of_a_message_comes_before_it_however_late_the_mark_is() {
    let mut store = talked(&lutingenie(), [customer(0), customer(10), ai(11)]);
    marked(&mut store, 1, Kind::NewTopic, 10);
    assert_eq!((named(&store), charges(&store)), (vec![(1, 0), (2, 10)], vec![(2, 11)]));
}

#[test]
fn what_waits_for_a_policy_waits_on_when_the_part_after_it_has_lost_rows() {
    let mut store = two_versions();
    marked(&mut store, 1, Kind::Reopen, 5);
    come(&mut store, [customer(10), ai(11)]);
    delete(&mut store, [ai(11)]);
    assert_eq!(come(&mut store, [customer(0)]).sealed, places([customer(0)]));
    assert_eq!((named(&store), store.unjudged.len()), (vec![(1, 10)], 1));
}

#[test]
fn what_ended_a_part_and_is_deleted_is_no_event_any_more_once_the_part_ends_before_it() {
    let stranger = store::row(2, 1, 0, close(20));
    let mut store = talked(&ai_resolution(), [customer(0), ai(1)]);
    store.commit(&[Change::Add(stranger.clone())]);
    store.commit(&[Change::Delete(stranger.place.clone())]);
    assert_eq!(ends(&store), [Some((20, "close"))]);
    marked(&mut store, 1, Kind::Close, 10);
    assert_eq!((ends(&store), event_counts(&store)), (vec![Some((10, "close"))], vec![3]));
    assert_eq!(store.unjudged.len(), 0);
}

// What a sweep does

#[test]
fn a_late_message_prolongs_a_part_that_a_sweep_has_ended() {
    let mut store = talked(&charged_at_the_end(), [customer(0), ai(MINUTE)]);
    assert!(store.sweep(Instant(2 * HOUR)));
    assert_eq!(charges(&store), [(1, 31 * MINUTE)]);
    come(&mut store, [customer(20 * MINUTE)]);
    assert_eq!((ends(&store), entries(&store)), (vec![None], (1, 1)));
    assert!(store.sweep(Instant(2 * HOUR)));
    assert_eq!((charges(&store), entries(&store)), (vec![(1, 50 * MINUTE)], (2, 1)));
}

#[test]
fn a_late_event_that_prolongs_nothing_leaves_ended_what_a_sweep_has_ended() {
    let mut store = talked(&charged_at_the_end(), [customer(0), ai(MINUTE)]);
    store.sweep(Instant(2 * HOUR));
    come(&mut store, [note(2 * MINUTE)]);
    assert_eq!((ends(&store), entries(&store)), (vec![Some((31 * MINUTE, "idle"))], (1, 0)));
}

#[test]
fn an_event_when_a_sweep_has_ended_the_part_is_not_late_and_one_at_the_timeout_is() {
    let mut store = talked(&lutingenie(), [customer(0)]);
    store.sweep(Instant(2 * HOUR));
    assert!(!come(&mut store.clone(), [customer(HALF_HOUR + 1)]).refolded);
    assert!(come(&mut store, [customer(HALF_HOUR)]).refolded);
    assert_eq!((named(&store), ends(&store)), (vec![(1, 0)], vec![None]));
}

#[test]
fn a_sweep_that_ends_nothing_makes_nothing_late() {
    let mut store = talked(&lutingenie(), [customer(0)]);
    assert!(!store.sweep(Instant(MINUTE)));
    assert!(!come(&mut store, [customer(1)]).refolded);
}

// Where to begin again

#[test]
fn folding_again_begins_where_nothing_before_can_have_changed() {
    let store = talked(&lutingenie(), [customer(0), close(5), customer(HOUR), customer(9 * HOUR)]);
    let part = |part: usize| Restart { part, place: store.parts[part].first_event.clone() };
    let gap = |part: usize, event: Event| Restart { part, place: place(&event) };
    let began = |event: Event| restart(&store.parts, &place(&event));
    assert_eq!(began(customer(-1)), gap(0, customer(-1)));
    assert_eq!(began(customer(0)), gap(0, customer(0)), "the first event itself");
    assert_eq!(began(ai(0)), part(0));
    assert_eq!(began(customer(5)), part(0), "before the close");
    assert_eq!(began(close(5)), part(0), "the close itself");
    assert_eq!(began(reopen(5)), gap(1, reopen(5)), "after the close");
    assert_eq!(began(note(HOUR - 1)), gap(1, note(HOUR - 1)));
    assert_eq!(began(note(HOUR + HALF_HOUR)), part(1), "at the timeout");
    assert_eq!(began(note(HOUR + HALF_HOUR + 1)), gap(2, note(HOUR + HALF_HOUR + 1)), "after the timeout");
    assert_eq!(began(customer(9 * HOUR)), gap(2, customer(9 * HOUR)), "the first event of an open part");
    assert_eq!(began(note(99 * HOUR)), part(2), "an open part");
}

#[test]
fn folding_again_begins_at_the_change_if_there_are_no_parts() {
    assert_eq!(restart(&[], &place(&note(7))), Restart { part: 0, place: place(&note(7)) });
}

#[test]
fn a_restart_needs_no_events_before_its_instant() {
    let begin = Restart { part: 0, place: place(&note(7)) };
    assert_eq!(begin.since(), Instant(7));
    assert!(OrderKey::floor(begin.since()).as_slice() <= begin.place.as_slice());
}

#[test]
fn older_parts_may_be_left_out_when_it_is_asked_where_to_begin() {
    let store = talked(&lutingenie(), [customer(0), customer(HOUR), customer(2 * HOUR), customer(9 * HOUR)]);
    for late in [note(2 * HOUR + 1), note(5 * HOUR), note(9 * HOUR + 1)] {
        let whole = restart(&store.parts, &place(&late));
        let short = restart(&store.parts[2..], &place(&late));
        assert_eq!((short.part + 2, short.place), (whole.part, whole.place));
    }
}

#[test]
fn a_part_ended_by_its_turns_is_over_after_the_last_of_them() {
    let one_turn = with(&lutingenie(), |policy| policy.turn_limit = Some(1));
    let store = talked(&one_turn, [customer(0), ai(1)]);
    assert_eq!(restart(&store.parts, &place(&staff(2))), Restart { part: 1, place: place(&staff(2)) });
    for at_its_instant in [staff(1), customer(1)] {
        assert_eq!(restart(&store.parts, &place(&at_its_instant)).part, 0);
    }
}

#[test]
fn the_earliest_of_all_changes_counts_even_if_it_came_to_nothing() {
    let mut changes = Changes::default();
    assert_eq!(changes.earliest(), None);
    changes.delete(&place(&note(1)));
    assert_eq!(changes.earliest(), None, "a delete changes nothing");
    for at in [9, 5, 7] {
        changes.touch(&place(&note(at)));
    }
    changes.add(&place(&note(4)));
    changes.remove(&place(&note(4)));
    assert_eq!(changes.earliest(), Some(place(&note(4)).as_slice()));
}

#[test]
fn nobody_asks_for_charges_while_the_parts_begin_where_they_began() {
    let store = talked(&lutingenie(), [customer(0), ai(1), customer(HOUR)]);
    let before = Before { id: "c1", previous: None, parts: &store.parts, highest: 2, last_event: &[] };
    let last = Placed::new(place(&customer(9 * HOUR)), customer(9 * HOUR));
    let mut changes = Changes::default();
    changes.touch(&place(&ai(1)));
    changes.add(&last.place);
    let log = [store.log.clone(), vec![last]].concat();
    let opener = |_: &Placed, _: Option<&Opening>| Ok(Some(common::opening(&lutingenie())));
    let asked = || -> BTreeMap<i32, i64> { panic!("the numbers are not in question") };
    let after = refold(&before, log, &changes, opener, asked, || ());
    assert_eq!((numbers(&after.parts), after.retired, after.highest), (vec![1, 2, 3], vec![], 3));
}

// What is held (rule 3.9)

/// A part is charged at its end, held for three hours, and its unit taken back by a customer who comes back.
fn held_for_three_hours() -> Arc<Policy> {
    let definition = json!({"name": "held", "starts_on": ["customer_message"], "ends_on": ["close"],
        "idle_timeout": "1", "charge_on": "close", "final_after": "3", "outcomes": [
            {"when": "staff_reply", "outcome": "handed_over", "units": 0},
            {"outcome": "resolved", "voided_by": "customer_message"}]});
    let mut hours = |hours: &str, _: &str| hours.parse::<i64>().expect("hours") * HOUR;
    Arc::new(Policy::read(&definition, &mut hours).expect("a policy").0)
}

/// When each part was final, if it was.
fn finals(store: &Store) -> Vec<Option<i64>> {
    store.parts.iter().map(|part| part.final_at.map(|at| at.0)).collect()
}

#[test]
fn a_part_is_held_again_when_the_event_that_made_it_final_has_gone() {
    let mut store = talked(&held_for_three_hours(), [customer(0), close(1), customer(HOUR), close(HOUR + 1)]);
    assert_eq!((charges(&store), finals(&store)), (vec![(2, HOUR + 1)], vec![Some(HOUR), None]));
    // The second part only opens later: until then the first is held, although it was final at the hour.
    change(&mut store, customer(HOUR), staff(2 * HOUR));
    assert_eq!((charges(&store), finals(&store)), (vec![(1, 1)], vec![None]));
    change(&mut store, staff(2 * HOUR), customer(2 * HOUR));
    assert_eq!((charges(&store), finals(&store)), (vec![], vec![Some(2 * HOUR), None]));
}

#[test]
fn an_event_that_comes_late_for_a_part_that_was_final_by_itself_leaves_it() {
    let mut store = talked(&held_for_three_hours(), [customer(0), close(1), customer(9 * HOUR), close(9 * HOUR + 1)]);
    assert_eq!(restart(&store.parts, &place(&customer(3 * HOUR + 1))).part, 1, "it was over");
    assert_eq!(restart(&store.parts, &place(&customer(3 * HOUR))).part, 0, "it was held until then");
    come(&mut store, [customer(3 * HOUR + 1)]);
    assert_eq!(charges(&store).len(), 3);
    come(&mut store, [customer(3 * HOUR)]);
    assert_eq!(charges(&store).len(), 2, "the first part's unit is taken back");
}

#[test]
fn a_part_whose_time_has_passed_without_a_sweep_is_made_final_when_it_is_folded_again() {
    let mut store = talked(&held_for_three_hours(), [customer(0), close(1)]);
    store.commit(&[added(customer(5 * HOUR)), touched(customer(5 * HOUR))]);
    assert_eq!((charges(&store), finals(&store)), (vec![(1, 1)], vec![Some(3 * HOUR + 1), None]));
}

#[test]
fn time_passes_as_far_as_it_had_passed_when_a_conversation_is_folded_again() {
    let mut store = talked(&held_for_three_hours(), [customer(0), staff(1)]);
    // It ended after an hour, which was noticed long after.
    store.sweep(Instant(2 * HOUR));
    assert_eq!((ends(&store), finals(&store)), (vec![Some((HOUR + 1, "idle"))], vec![None]));
    come(&mut store, [note(1)]);
    assert_eq!(finals(&store), [None], "that the sweep came later is nothing to it");
    come(&mut store, [note(90 * MINUTE)]);
    assert_eq!(event_counts(&store), [4], "what comes between the end and the sweep is not late");
}

#[test]
fn the_unit_that_an_earlier_part_had_is_the_next_ones_when_that_is_taken_back() {
    let once = with(&held_for_three_hours(), |policy| policy.once_per_conversation = true);
    let mut store = talked(&once, [customer(0), close(1), customer(9 * HOUR), close(9 * HOUR + 1)]);
    assert_eq!(charges(&store), [(1, 1)]);
    come(&mut store, [staff(0)]);
    assert_eq!(charges(&store), [(2, 9 * HOUR + 1)]);
}

#[test]
fn a_part_that_has_lost_rows_is_sealed_up_to_the_last_event_that_it_counted_after_its_end() {
    let verified = with(&held_for_three_hours(), |policy| policy.final_after = FinalAfter::Never);
    let mut store = talked(&verified, [customer(0), close(1), note(HOUR), note(2 * HOUR)]);
    delete(&mut store, [note(HOUR)]);
    let outcome = come(&mut store, [note(90 * MINUTE), note(3 * HOUR)]);
    assert_eq!(outcome.sealed, places([note(90 * MINUTE)]));
    assert_eq!((event_counts(&store), charges(&store)), (vec![5], vec![(1, 1)]));
    come(&mut store, [customer(4 * HOUR)]);
    assert_eq!(charges(&store), [], "what comes after it is metered");
}

// Everything at once

fn enough(events: u64) -> impl Fn(&Tally) -> bool {
    let events = if cfg!(debug_assertions) { events / 10 } else { events };
    move |tally| match at_length() {
        true => tally.took >= Duration::from_secs(60),
        false => tally.arrived >= events,
    }
}

#[test]
fn the_parts_are_those_of_folding_everything_whatever_comes_in_whatever_order() {
    let tally = simulation::in_any_order(first_seed(), enough(500_000));
    println!("{tally}");
    assert!(!at_length() || tally.per_minute() >= 10e6, "{tally}");
}

#[test]
fn deleted_rows_change_nothing_that_was_metered() {
    println!("{}", simulation::with_losses(first_seed(), enough(250_000)));
}

#[test]
fn the_parts_of_any_definition_are_those_of_folding_everything_whatever_comes_in_whatever_order() {
    println!("{}", simulation::of_any_definition(first_seed(), enough(500_000)));
}

#[test]
fn deleted_rows_change_nothing_that_any_definition_metered() {
    println!("{}", simulation::of_any_definition_with_losses(first_seed(), enough(400_000)));
}
