//! What is the sample data when every tier pays? On a plan and packs so small that many units are beyond them.

use crate::{
    Database, Random, Session, attach, attach_irc_support, copy_batches, create_messages, messages_mapping, quoted,
    text,
};
use std::collections::BTreeMap;

/// The policies that ship with the extension.
pub const POLICIES: [&str; 3] = ["lutingenie", "agent_red", "ai_resolution"];
/// The tenants of `irc_support` whose rows are loaded, about a tenth of them all.
pub const SOME_TENANTS: [&str; 5] = ["mediawiki", "ubuntu-2004", "ubuntu-2009", "ubuntu-2014", "ubuntu-2018"];

/// How the units came to their charges.
#[derive(Clone, Copy, PartialEq)]
pub enum Charged {
    /// Each in the transaction of its rows, which came by so many in the order of time.
    InBatchesOf(usize),
    /// They waited for a plan, and then were drawn in the order of their charge instants, as `simulate` draws them.
    AllAtOnce,
    /// Many late, and some taken back and posted again: their rows came by a few hundred in the disorder of a seed.
    InDisorder(u64),
}

/// A file of data/ with its table, and how far its time is over.
struct File {
    name: &'static str,
    table: &'static str,
    swept_to: &'static str,
    attach: fn(&mut Session, policy: &str, plan: Option<&str>),
    /// Units included per month, and in each of two packs of a tenant.
    included: usize,
    pack: usize,
}

const RULES: File = File {
    name: "rules.csv.gz",
    table: "messages",
    swept_to: "2026-08-01",
    attach: |session, policy, plan| {
        create_messages(session);
        attach(session, "messages", policy, plan, &messages_mapping());
    },
    included: 10,
    pack: 12,
};

const IRC_SUPPORT: File = File {
    name: "irc_support.csv.gz",
    table: "irc_support",
    swept_to: "2026-01-01",
    attach: attach_irc_support,
    included: 8,
    pack: 15,
};

/// All rows of `rules.csv.gz`.
pub fn rules(policy: &str, charged: Charged) -> (Database, Session) {
    RULES.load(policy, charged, |_| true)
}

/// The rows of [`SOME_TENANTS`] of `irc_support.csv.gz`.
pub fn irc_support(policy: &str, charged: Charged) -> (Database, Session) {
    IRC_SUPPORT.load(policy, charged, |tenant| SOME_TENANTS.contains(&tenant))
}

impl File {
    fn load(&self, policy: &str, charged: Charged, wanted: impl Fn(&str) -> bool) -> (Database, Session) {
        let database = Database::fresh("paid");
        let mut session = database.connect();
        let (included, size) = (self.included, self.pack);
        session.run(&format!(
            r#"SELECT talkmeter.define_plan('{{"name": "small", "included": {included}, "overage_rate": 0.04, "currency": "USD"}}');
               SELECT talkmeter.define_pack('{{"name": "small", "size": {size}, "price": 1, "currency": "USD", "valid_for": "90 days"}}')"#
        ));
        (self.attach)(&mut session, policy, Some("small").filter(|_| charged != Charged::AllAtOnce));
        let text = chosen(&text(self.name), wanted);
        for (tenant, first) in &first_times(&text) {
            buy(&mut session, tenant, first);
        }
        match charged {
            Charged::InBatchesOf(rows) => copy_batches(&mut session, self.table, &text, rows),
            Charged::AllAtOnce => copy_batches(&mut session, self.table, &text, usize::MAX),
            Charged::InDisorder(seed) => copy_batches(&mut session, self.table, &shuffled(&text, seed), 300),
        }
        session.sweep(self.swept_to);
        if charged == Charged::AllAtOnce {
            for tenant in first_times(&text).keys() {
                let tenant = quoted(tenant);
                session.run(&format!("SELECT talkmeter.subscribe({tenant}, 'small', '2000-01-01', anchor_day => 1)"));
            }
        }
        session.run("ANALYZE");
        (database, session)
    }
}

/// The heading and the rows of the tenants that are wanted, in the order of time.
fn chosen(text: &str, wanted: impl Fn(&str) -> bool) -> String {
    let (heading, rows) = text.split_once('\n').expect("a heading");
    let mut rows: Vec<&str> = rows.lines().filter(|row| wanted(column(row, 1))).collect();
    rows.sort_by_key(|row| column(row, 3));
    let mut chosen = format!("{heading}\n");
    for row in rows {
        chosen += row;
        chosen.push('\n');
    }
    chosen
}

/// The same rows in another order.
fn shuffled(text: &str, seed: u64) -> String {
    let mut random = Random::new(seed);
    let mut rows: Vec<&str> = text.lines().collect();
    for last in (2..rows.len()).rev() {
        rows.swap(last, 1 + random.below(last));
    }
    rows.join("\n")
}

/// Neither file has a field in quotes.
fn column(row: &str, place: usize) -> &str {
    row.split(',').nth(place).expect("a column")
}

/// When each tenant wrote first.
fn first_times(text: &str) -> BTreeMap<String, String> {
    let mut first = BTreeMap::new();
    for row in text.lines().skip(1) {
        first.entry(column(row, 1).to_owned()).or_insert_with(|| column(row, 3).to_owned());
    }
    first
}

/// Two packs, of which neither is there from the start.
fn buy(session: &mut Session, tenant: &str, first: &str) {
    let tenant = quoted(tenant);
    session.run(&format!(
        "SELECT talkmeter.buy_pack({tenant}, 'small', purchased_at => '{first}'::timestamptz + days * interval '24 hours')
         FROM unnest(ARRAY[3, 20]) AS days"
    ));
}
