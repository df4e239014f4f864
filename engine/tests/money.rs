//! Is every unit paid once, by whom it should be, and billed to the last digit, whatever happens (rule 4)?
//!
//! First the boundaries one by one, then merchants by the thousand against a plain list of all entries.

mod common;
mod dealings;
mod paper;

use common::data::time;
use common::price::{decimal, plan};
use common::{at_length, first_seed};
use dealings::Tally;
use rust_decimal::Decimal;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant as Clock};
use talkmeter_engine::alert::{is_low, is_off, is_reached};
use talkmeter_engine::draw_down::{Account, Pack, Plan, Subscription, Tier, Usage};
use talkmeter_engine::instant::{DAY, Instant};
use talkmeter_engine::money::rounded;
use talkmeter_engine::period::{Calendar, Period, zone_named};

const FEBRUARY: &str = "2026-02-10 00:00:00+00";
const MARCH: &str = "2026-03-10 00:00:00+00";
const LATER_IN_MARCH: &str = "2026-03-20 00:00:00+00";
const APRIL: &str = "2026-04-10 00:00:00+00";

fn pack(id: i64, size: i64, purchased_at: Instant) -> Pack {
    Pack { id, size, remaining: size, purchased_at, expires_at: purchased_at.plus(90 * DAY) }
}

/// One plan since ever, and packs in the order in which they are drawn.
fn account(plan: Plan, packs: impl IntoIterator<Item = Pack>) -> Account {
    let subscription = Subscription { since: Instant::BEGINNING, plan: Some(plan), calendar: Calendar::utc(1) };
    Account { subscriptions: vec![subscription], packs: Vec::from_iter(packs), used: BTreeMap::new() }
}

fn month(at: &str) -> Period {
    Calendar::utc(1).period_of(time(at)).expect("in range")
}

fn tier(account: &mut Account, at: Instant) -> Tier {
    account.draw(at, None).expect("a plan is in force").tier
}

fn tiers<const N: usize>(account: &mut Account, at: [Instant; N]) -> [Tier; N] {
    at.map(|at| tier(account, at))
}

fn counts(used: &Usage) -> [i64; 3] {
    [used.included_used, used.pack_used, used.overage_units]
}

// Allowance

#[test]
fn the_allowance_pays_for_its_last_unit_and_not_for_one_more() {
    for included in [0, 1, 3, 100] {
        let mut account = account(plan(included, "0.04"), []);
        let drawn: Vec<Tier> = (0..=included).map(|_| tier(&mut account, time(MARCH))).collect();
        let (last, all) = drawn.split_last().expect("one unit at least");
        assert!(all.iter().all(|tier| *tier == Tier::Included), "{included} included");
        assert_eq!(*last, Tier::Overage, "{included} included");
        assert_eq!(counts(&account.used[&month(MARCH)]), [included, 0, 1]);
    }
}

#[test]
fn a_late_unit_takes_the_allowance_of_its_own_period_and_not_that_of_the_open_one() {
    let mut account = account(plan(1, "1"), []);
    let drawn = tiers(&mut account, [APRIL, APRIL, MARCH, MARCH].map(time));
    assert_eq!(drawn, [Tier::Included, Tier::Overage, Tier::Included, Tier::Overage]);
}

#[test]
fn an_upgrade_leaves_what_was_used_used_and_what_was_billed_billed() {
    let mut account = account(plan(1, "0.04"), []);
    tiers(&mut account, [MARCH; 2].map(time));
    let since = time(LATER_IN_MARCH);
    account.subscriptions.push(Subscription { since, plan: Some(plan(3, "0.025")), calendar: Calendar::utc(1) });
    // New allowance 3, less one included unit: two are left.
    let drawn = tiers(&mut account, [since; 3]);
    assert_eq!(drawn, [Tier::Included, Tier::Included, Tier::Overage]);
    assert_eq!(account.used[&month(MARCH)].overage_amount, decimal("0.065"));
}

#[test]
fn an_upgrade_is_more_units_or_as_many_at_a_lower_rate_in_one_currency() {
    let upgraded = |to: Plan| plan(10, "0.04").is_upgraded_by(&to);
    assert!(upgraded(plan(11, "0.04")) && upgraded(plan(11, "9")) && upgraded(plan(10, "0.039")));
    assert!(!upgraded(plan(10, "0.04")) && !upgraded(plan(10, "0.041")) && !upgraded(plan(9, "0.01")));
    assert!(!upgraded(Plan { currency: "EUR".into(), ..plan(11, "0.04") }));
}

// Packs

#[test]
fn a_pack_pays_at_its_first_instant_and_not_at_its_last() {
    let bought = time(MARCH);
    let ends = bought.plus(90 * DAY);
    let mut account = account(plan(0, "1"), [pack(1, 9, bought)]);
    let drawn = tiers(&mut account, [bought.plus(-1), bought, ends.plus(-1), ends, ends.plus(1)]);
    assert_eq!(drawn, [Tier::Overage, Tier::Pack(1), Tier::Pack(1), Tier::Overage, Tier::Overage]);
}

#[test]
fn a_pack_of_one_microsecond_pays_at_that_one() {
    let bought = time(MARCH);
    let short = Pack { expires_at: bought.plus(1), ..pack(1, 9, bought) };
    let mut account = account(plan(0, "1"), [short]);
    let drawn = tiers(&mut account, [bought.plus(-1), bought, bought.plus(1)]);
    assert_eq!(drawn, [Tier::Overage, Tier::Pack(1), Tier::Overage]);
}

#[test]
fn a_pack_is_never_negative_however_many_units_come() {
    let mut account = account(plan(0, "1"), [pack(1, 2, time(FEBRUARY)), pack(2, 0, time(FEBRUARY))]);
    for units in 1..=5 {
        tier(&mut account, time(MARCH));
        let left: Vec<i64> = account.packs.iter().map(|pack| pack.remaining).collect();
        assert_eq!(left, [(2 - units).max(0), 0]);
    }
}

#[test]
fn a_back_dated_pack_pays_first_from_then_on_and_does_not_reach_back() {
    let mut account = account(plan(0, "1"), [pack(1, 2, time(MARCH))]);
    assert_eq!(tier(&mut account, time(LATER_IN_MARCH)), Tier::Pack(1));
    // Its purchase is back-dated, so it is the older one.
    account.packs.insert(0, pack(2, 1, time(FEBRUARY)));
    assert_eq!(account.packs.iter().map(|pack| pack.remaining).collect::<Vec<_>>(), [1, 1]);
    let drawn = tiers(&mut account, [LATER_IN_MARCH; 3].map(time));
    assert_eq!(drawn, [Tier::Pack(2), Tier::Pack(1), Tier::Overage]);
}

#[test]
fn packs_are_low_by_those_that_were_valid_and_had_units_before() {
    let other = Pack { remaining: 0, ..pack(2, 50, time(FEBRUARY)) };
    let expired = Pack { expires_at: time(MARCH), ..pack(3, 1000, time(FEBRUARY)) };
    let mut account = account(plan(0, "1"), [pack(1, 10, time(FEBRUARY)), other, expired]);
    for left in (0..10).rev() {
        tier(&mut account, time(MARCH));
        let packs = account.packs_left(time(MARCH), 1);
        // That it is empty now does not take it out; the last unit of ten is a tenth, and no unit is less.
        assert_eq!((packs, is_low(packs.0, packs.1)), ((left, 10), left == 0));
    }
}

// Reversals

#[test]
fn a_unit_that_is_taken_back_leaves_the_account_as_it_was() {
    let full = Pack { remaining: 1, ..pack(1, 2, time(FEBRUARY)) };
    let mut account = account(plan(1, "0.01245"), [full]);
    account.used.insert(month(MARCH), Usage::unused(month(MARCH)));
    for expected in [Tier::Included, Tier::Pack(1), Tier::Overage] {
        let before = account.clone();
        let drawn = account.draw(time(MARCH), None).expect("a plan is in force");
        let (period, tier, amount) = (drawn.period, drawn.tier, drawn.amount);
        assert_eq!(tier, expected);
        account.give_back(period, tier, amount);
        assert_eq!(account, before, "{expected:?}");
        account.draw(time(MARCH), None);
    }
}

#[test]
fn a_unit_goes_back_to_its_own_pack_even_if_that_has_expired() {
    let old = Pack { expires_at: time(LATER_IN_MARCH), ..pack(1, 1, time(FEBRUARY)) };
    let mut account = account(plan(0, "1"), [old, pack(2, 2, time(MARCH))]);
    assert_eq!(tiers(&mut account, [MARCH, LATER_IN_MARCH].map(time)), [Tier::Pack(1), Tier::Pack(2)]);
    account.give_back(month(MARCH), Tier::Pack(1), Decimal::ZERO);
    assert_eq!(account.packs.iter().map(|pack| pack.remaining).collect::<Vec<_>>(), [1, 1]);
    // It pays again for a unit of a time at which it was valid, and only for such a one.
    assert_eq!(tiers(&mut account, [LATER_IN_MARCH, MARCH].map(time)), [Tier::Pack(2), Tier::Pack(1)]);
}

#[test]
fn a_unit_goes_back_to_its_own_period_and_not_to_the_open_one() {
    let mut account = account(plan(1, "1"), []);
    tiers(&mut account, [MARCH, APRIL].map(time));
    account.give_back(month(MARCH), Tier::Included, Decimal::ZERO);
    assert_eq!(tiers(&mut account, [APRIL, MARCH].map(time)), [Tier::Overage, Tier::Included]);
}

#[test]
fn overage_goes_back_at_the_rate_that_it_had() {
    let mut account = account(plan(0, "0.01245"), []);
    let paid = account.draw(time(MARCH), None).expect("a plan is in force").amount;
    account.subscriptions[0].plan = Some(plan(0, "0.00001"));
    tier(&mut account, time(MARCH));
    account.give_back(month(MARCH), Tier::Overage, paid);
    let used = &account.used[&month(MARCH)];
    assert_eq!((counts(used), used.overage_amount), ([0, 0, 1], decimal("0.00001")));
}

#[test]
fn of_a_finalized_period_the_allowance_still_pays_and_the_open_one_lists_it() {
    let mut account = account(plan(1, "1"), []);
    account.used.insert(month(MARCH), Usage { is_finalized: true, ..Usage::unused(month(MARCH)) });
    assert_eq!(tiers(&mut account, [MARCH; 2].map(time)), [Tier::Included, Tier::Overage]);
    assert_eq!(account.posted_in(month(FEBRUARY), time(APRIL)), month(FEBRUARY));
    assert_eq!(account.posted_in(month(MARCH), time(APRIL)), month(APRIL));
    assert!(account.used.contains_key(&month(APRIL)), "what has postings is opened (rule 4.3)");
}

#[test]
fn a_clock_that_stepped_back_into_a_finalized_period_adds_nothing_to_it() {
    let mut account = account(plan(1, "1"), []);
    for start in [FEBRUARY, MARCH] {
        account.used.insert(month(start), Usage { is_finalized: true, ..Usage::unused(month(start)) });
    }
    assert_eq!(account.posted_in(month(FEBRUARY), time(MARCH)), month(APRIL));
}

// Periods

#[test]
fn a_period_holds_its_first_microsecond_and_not_its_end_also_where_midnight_is_skipped_or_occurs_twice() {
    // Beirut skips the midnight of 2024-03-31, Havana has that of 2026-11-01 twice, Apia skips all of 2011-12-30.
    let places = [
        ("UTC", 31, "2026-02-28 00:00:00+00"),
        ("UTC", 29, "2028-02-29 00:00:00+00"),
        ("Europe/Berlin", 30, "2026-03-29 22:00:00+00"),
        ("Asia/Beirut", 31, "2024-03-30 22:00:00+00"),
        ("America/Havana", 1, "2026-11-01 04:00:00+00"),
        ("Pacific/Apia", 30, "2011-12-30 10:00:00+00"),
    ];
    for (zone, anchor_day, start) in places {
        let mut account = account(plan(1, "1"), []);
        account.subscriptions[0].calendar = Calendar { zone: zone_named(zone).expect("a zone"), anchor_day };
        let start = time(start);
        let drawn = tiers(&mut account, [start.plus(-1), start.plus(-1), start, start]);
        assert_eq!(drawn, [Tier::Included, Tier::Overage, Tier::Included, Tier::Overage], "{zone}");
        let (before, after) = (account.period_at(start.plus(-1)), account.period_at(start));
        assert_eq!((before.map(|own| own.end), after.map(|own| own.start)), (Some(start), Some(start)), "{zone}");
    }
}

// Alerts

/// The units after which a threshold is first reached.
fn first_reached(included: i64, percent: i64) -> Option<i64> {
    let mut account = account(plan(included, "1"), []);
    let mut used = (0..2 * included + 2).map(|_| account.draw(time(MARCH), None).expect("a plan is in force").used);
    used.find(|used| is_reached(*used, included, percent))
}

#[test]
fn eighty_percent_of_three_is_the_third_unit() {
    assert_eq!([first_reached(3, 80), first_reached(3, 100), first_reached(0, 80)], [Some(3), Some(3), None]);
    assert_eq!([first_reached(5, 80), first_reached(10, 80), first_reached(10, 100)], [Some(4), Some(8), Some(10)]);
}

#[test]
fn from_seventy_to_a_hundred_and_five_percent_in_one_commit_both_thresholds_are_passed() {
    let mut account = account(plan(20, "1"), []);
    tiers(&mut account, [time(MARCH); 14]);
    let used = [(); 7].map(|()| account.draw(time(MARCH), None).expect("a plan is in force").used);
    let first = |percent| used.iter().find(|used| is_reached(**used, 20, percent));
    assert_eq!((used[0], used[6], first(80), first(100)), (15, 21, Some(&16), Some(&20)));
    assert!(!is_reached(14, 20, 80), "70 %");
}

#[test]
fn exactly_five_percent_of_the_larger_count_is_not_flagged() {
    let flagged = [(95, 100), (100, 95), (19, 20), (0, 0), (94, 100), (100, 94), (18, 20), (0, 1)];
    let expected = [false, false, false, false, true, true, true, true];
    assert_eq!(flagged.map(|(a, b)| is_off(a, b)), expected);
}

// Statements

#[test]
fn a_line_is_rounded_once_and_not_unit_by_unit() {
    let mut account = account(plan(0, "0.005"), []);
    tiers(&mut account, [time(MARCH); 3]);
    let exact = account.used[&month(MARCH)].overage_amount;
    // 0.015 is 0.02; three times 0.005, each rounded, would be 0.03.
    assert_eq!((exact, rounded(exact, "USD")), (decimal("0.015"), decimal("0.02")));
}

#[test]
fn a_line_has_as_many_digits_as_its_currency_and_a_credit_mirrors_its_charge() {
    let cases = [("2.5", "JPY", "3"), ("2.4999", "JPY", "2"), ("0.005", "USD", "0.01"), ("0.0049999", "USD", "0")];
    let more = [("0.0005", "KWD", "0.001"), ("0.00049", "KWD", "0"), ("999999999.999999999999", "USD", "1000000000")];
    for (amount, currency, expected) in cases.into_iter().chain(more) {
        assert_eq!(rounded(decimal(amount), currency), decimal(expected), "{amount} {currency}");
        assert_eq!(rounded(-decimal(amount), currency), -decimal(expected), "-{amount} {currency}");
    }
}

// Everything at once

/// One merchant after the other from a seed on.
fn merchants(first: u64) -> (u64, Tally) {
    let (started, mut tally) = (Clock::now(), Tally::default());
    let enough = |met: u64| match at_length() {
        true => started.elapsed() >= Duration::from_secs(60),
        false => met >= if cfg!(debug_assertions) { 200 } else { 2_500 },
    };
    for seed in first.. {
        if enough(seed - first) {
            return (seed - first, tally);
        }
        tally += merchant(seed);
    }
    unreachable!("seeds do not end")
}

fn merchant(seed: u64) -> Tally {
    catch_unwind(AssertUnwindSafe(|| dealings::of_a_merchant(seed))).unwrap_or_else(|panic| {
        eprintln!("to see it again: TALKMETER_SEED={seed}");
        resume_unwind(panic)
    })
}

#[test]
fn an_account_is_what_the_list_of_its_entries_says_whatever_happens() {
    if let Ok(seed) = std::env::var("TALKMETER_SEED") {
        return println!("{}", merchant(seed.parse().expect("TALKMETER_SEED is a number")));
    }
    let first = first_seed();
    let (met, tally) = merchants(first);
    println!("{met} merchants from TALKMETER_SEED={first} on; {tally}");
    // What never happened was not tested.
    for what in dealings::KINDS {
        assert!(tally.of(what) > 0, "{what} never happened: {tally}");
    }
}
