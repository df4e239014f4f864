//! What do parts and charges become when an event comes late, is changed or has gone (SPEC 3.5)?

mod common;
mod naive;
mod simulation;
mod store;

use simulation::Tally;

#[test]
fn the_parts_are_those_of_folding_everything_whatever_comes_in_whatever_order() {
    let tally = simulation::tell_in_any_order(0, |tally: &Tally| tally.arrived >= std::env::var("N").map_or(500_000, |n| n.parse().unwrap()));
    println!("{} events in {} conversations: {:.0} a minute", tally.arrived, tally.conversations, tally.per_minute());
}

#[test]
fn deleted_rows_change_nothing_that_was_metered() {
    let tally = simulation::tell_with_losses(0, |tally: &Tally| tally.arrived >= std::env::var("N").map_or(200_000, |n| n.parse().unwrap()));
    println!("{} events in {} conversations: {:.0} a minute", tally.arrived, tally.conversations, tally.per_minute());
}
