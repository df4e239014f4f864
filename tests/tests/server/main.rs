//! Does the extension do in a server what its documentation says? The tests that may run beside each other.
//!
//! One executable, a module for each question: linking many would take longer than running them. A test has a
//! database of its own, and its roles have that database's name in theirs. What would disturb others is in
//! `tests/alone`.

mod alerts;
mod any_order;
mod audit;
mod changes;
mod clients;
mod demo;
mod disputes;
mod docs;
mod draw_down;
mod dry_run;
mod dump;
mod evidence;
mod explain;
mod hand_edits;
mod health;
mod hostile;
mod ids;
mod journal;
mod limits;
mod look_up;
mod marks;
mod migrations;
mod month;
mod nested;
mod orders;
mod own_tables;
mod own_times;
mod owners;
mod periods;
mod products;
mod progress;
mod protocol;
mod random_calls;
mod reattach;
mod reconcile;
mod remap;
mod rewrites;
mod rights;
mod rules;
mod same_instant;
mod sample;
mod simulate;
mod standby;
mod statement;
mod swaps;
mod sweeps;
mod tenants;
mod transactions;
mod usage;
mod verify;
mod ways_in;
mod worker;
