//! What does a vendor sell: which plans and packs (rule 4.1)?

use crate::definition::{DefinitionRow, Keys, Measure};
use crate::flaw::Flaw;
use crate::mapping::LONGEST_KEY;
use rust_decimal::Decimal;
use serde_json::{Map, Value as Json};
use std::collections::BTreeMap;

/// Amounts of money are below this, and have no more digits after the point than [`MOST_DIGITS`].
const TOO_DEAR: i64 = 1_000_000_000;
const MOST_DIGITS: u32 = 12;

/// Bytes of the name of an outcome.
const LONGEST_OUTCOME: usize = 256;

/// The most units that one pack holds: as many packs as anybody buys can be summed.
const LARGEST_PACK: i64 = 1_000_000_000_000;

/// A plan as a vendor defines it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanDefinition {
    pub name: String,
    /// Units per period before packs and overage.
    pub included: i64,
    /// Price of one overage unit, exact, in `currency`, if its outcome has none of its own.
    pub overage_rate: Decimal,
    /// Prices of overage units by their outcomes.
    pub rates: BTreeMap<String, Decimal>,
    /// Price per period; `None` if the meter is not to know it.
    pub price: Option<Decimal>,
    /// ISO 4217 code.
    pub currency: String,
}

impl PlanDefinition {
    /// Reads the definition of a plan. The row holds amounts as exact decimals in strings, and `rates` by numbers, or
    /// null if there are none.
    pub fn read(definition: &Json) -> Result<(PlanDefinition, DefinitionRow), Flaw> {
        let mut keys = Keys::of(definition, "plan")?;
        let name: String = keys.required("name");
        let included = keys.required("included");
        if included < 0 {
            keys.refuse(Flaw::invalid(format!("plan \"{name}\" includes a negative number of units")));
        }
        let overage_rate = amount(&mut keys, "overage_rate");
        let rates = rates(&mut keys);
        let price = optional_amount(&mut keys, "price");
        let currency = currency(&mut keys, "currency");
        let row = keys.finish()?;
        named(&name, "plan")?;
        Ok((PlanDefinition { name, included, overage_rate, rates, price, currency }, row))
    }
}

/// A pack as a vendor offers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackDefinition {
    pub name: String,
    /// Units in the pack.
    pub size: i64,
    /// Price of the pack, exact, in `currency`.
    pub price: Decimal,
    /// ISO 4217 code.
    pub currency: String,
    pub valid_for: Lifetime,
}

/// How long a pack pays, from its purchase on (rule 4.1.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// So many microseconds.
    Micros(i64),
    /// Until the end of the billing month that holds the purchase.
    Period,
    Never,
}

impl Lifetime {
    /// What one that is no span of time is called, in a definition and in the row.
    fn named(word: &str) -> Option<Lifetime> {
        match word {
            "period" => Some(Lifetime::Period),
            "never" => Some(Lifetime::Never),
            _ => None,
        }
    }
}

impl PackDefinition {
    /// Reads the definition of a pack. The row holds its price as an exact decimal in a string, and `valid_for` as it
    /// is written or, if that is a word, null and the word as `expiry`; `micros` measures a span of time and is asked
    /// only when nothing else is wrong but the name.
    pub fn read(definition: &Json, micros: &mut Measure) -> Result<(PackDefinition, DefinitionRow), Flaw> {
        let mut keys = Keys::of(definition, "pack")?;
        let name: String = keys.required("name");
        let size = keys.required("size");
        if size <= 0 {
            keys.refuse(Flaw::invalid(format!("pack \"{name}\" holds no units")));
        }
        if size > LARGEST_PACK {
            keys.refuse(
                Flaw::invalid(format!("pack \"{name}\" holds {size} units"))
                    .hint(format!("A pack holds at most {LARGEST_PACK} units.")),
            );
        }
        let price = amount(&mut keys, "price");
        let currency = currency(&mut keys, "currency");
        let valid_for = keys.interval("valid_for");
        let mut row = keys.finish()?;
        let word = Lifetime::named(valid_for.text());
        row.insert("expiry".into(), word.map_or(Json::Null, |_| valid_for.text().into()));
        let valid_for = match word {
            Some(lifetime) => {
                row.insert("valid_for".into(), Json::Null);
                lifetime
            }
            None => Lifetime::Micros(valid_for.micros(micros)),
        };
        if matches!(valid_for, Lifetime::Micros(micros) if micros <= 0) {
            return Err(Flaw::invalid(format!("pack \"{name}\" has no lifetime")));
        }
        named(&name, "pack")?;
        Ok((PackDefinition { name, size, price, currency, valid_for }, row))
    }
}

fn named(name: &str, what: &str) -> Result<(), Flaw> {
    match name.len() {
        0 => Err(Flaw::invalid(format!("a {what} needs a name"))),
        length if length > LONGEST_KEY => Err(Flaw::invalid(format!("the name of a {what} has {length} bytes"))
            .hint(format!("A name has at most {LONGEST_KEY} bytes."))),
        _ => Ok(()),
    }
}

/// An exact amount of money, from a json number or a string that holds one.
fn amount(keys: &mut Keys, key: &str) -> Decimal {
    let written = keys.required(key);
    exact(keys, key, &written)
}

fn optional_amount(keys: &mut Keys, key: &str) -> Option<Decimal> {
    let written = keys.optional(key)?;
    Some(exact(keys, key, &written))
}

fn exact(keys: &mut Keys, key: &str, written: &Json) -> Decimal {
    let Some(amount) = amount_of(written) else {
        keys.refuse(no_amount(&format!("\"{key}\""), written));
        return Decimal::ZERO;
    };
    keys.store(key, Json::String(amount.to_string()));
    amount
}

/// What an overage unit costs, by its outcome; none if the key is left out.
fn rates(keys: &mut Keys) -> BTreeMap<String, Decimal> {
    let written: BTreeMap<String, Json> = keys.optional("rates").unwrap_or_default();
    let mut rates = BTreeMap::new();
    for (outcome, written) in written {
        if outcome.is_empty() || outcome.len() > LONGEST_OUTCOME {
            keys.refuse(
                Flaw::invalid(format!("an outcome in \"rates\" has a name of {} bytes", outcome.len()))
                    .hint(format!("The name of an outcome has 1 to {LONGEST_OUTCOME} bytes.")),
            );
        }
        match amount_of(&written) {
            Some(amount) => _ = rates.insert(outcome, amount),
            None => keys.refuse(no_amount(&format!("the rate of \"{outcome}\" in \"rates\""), &written)),
        }
    }
    let numbers: Option<Map<String, Json>> = rates
        .iter()
        .map(|(outcome, rate)| Some((outcome.clone(), Json::Number(rate.to_string().parse().ok()?))))
        .collect();
    keys.store("rates", numbers.filter(|numbers| !numbers.is_empty()).map_or(Json::Null, Json::Object));
    rates
}

/// The rates of outcomes, as the row of a plan holds them.
pub fn stored_rates(rates: &Json) -> BTreeMap<String, Decimal> {
    let rate = |(outcome, rate): (&String, &Json)| Some((outcome.clone(), amount_of(rate)?));
    rates.as_object().into_iter().flatten().filter_map(rate).collect()
}

fn no_amount(what: &str, written: &Json) -> Flaw {
    Flaw::invalid(format!("{what} is no amount of money: {written}")).hint(format!(
        "Write a number from 0 to below {TOO_DEAR} with at most {MOST_DIGITS} digits after the point, such as 0.04."
    ))
}

fn amount_of(written: &Json) -> Option<Decimal> {
    let text = match written {
        Json::Number(number) => number.as_str(),
        Json::String(text) => text.as_str(),
        _ => "",
    };
    let amount = text.parse::<Decimal>().ok().or_else(|| Decimal::from_scientific(text).ok());
    let fits = |amount: &Decimal| {
        (!amount.is_sign_negative() || amount.is_zero())
            && *amount < Decimal::from(TOO_DEAR)
            && amount.scale() <= MOST_DIGITS
    };
    amount.filter(fits)
}

fn currency(keys: &mut Keys, key: &str) -> String {
    let code: String = keys.required(key);
    if code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()) {
        keys.refuse(Flaw::invalid(format!("\"{code}\" is no currency")).hint("Write its ISO 4217 code, such as USD."));
    }
    code
}
