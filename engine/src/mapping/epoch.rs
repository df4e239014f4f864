//! Which instant is a number that counts from 1970 (rule 2.6.1)?

use super::Value;
use crate::instant::{Instant, SECOND};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

/// What is counted since 1970-01-01 00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epoch {
    Seconds,
    Milliseconds,
    Microseconds,
}

impl Epoch {
    pub const ALL: [Epoch; 3] = [Epoch::Seconds, Epoch::Milliseconds, Epoch::Microseconds];

    /// The name in a mapping.
    pub fn name(self) -> &'static str {
        match self {
            Epoch::Seconds => "seconds",
            Epoch::Milliseconds => "milliseconds",
            Epoch::Microseconds => "microseconds",
        }
    }

    /// How many of them make a second.
    pub fn per_second(self) -> i64 {
        match self {
            Epoch::Seconds => 1,
            Epoch::Milliseconds => 1_000,
            Epoch::Microseconds => SECOND,
        }
    }

    /// The instant, rounded to the nearest microsecond; `None` for what is no number, NaN, infinity and what no instant
    /// holds.
    pub fn instant(self, number: &Value) -> Option<Instant> {
        let micros = SECOND / self.per_second();
        match number {
            Value::Integer(number) => number.checked_mul(micros).map(Instant),
            Value::Number(number) => number.checked_mul(Decimal::from(micros))?.round().to_i64().map(Instant),
            Value::Float(number) => {
                let rounded = (number * micros as f64).round_ties_even();
                // Every instant that can be metered is far within what both types hold exactly enough.
                let fits = rounded.abs() < i64::MAX as f64;
                fits.then_some(Instant(rounded as i64))
            }
            _ => None,
        }
    }
}
