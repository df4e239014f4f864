//! How many digits does a currency have, and how is a line rounded (rule 4.6)?

use rust_decimal::{Decimal, RoundingStrategy};

/// The digits after the point of an ISO 4217 currency code; 2 for a code that the list does not name.
pub fn digits(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI" | "VND"
        | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        "CLF" | "UYW" => 4,
        _ => 2,
    }
}

/// An amount rounded to its currency's digits, half away from zero. Done once per statement line, never per unit.
pub fn rounded(amount: Decimal, currency: &str) -> Decimal {
    amount.round_dp_with_strategy(digits(currency), RoundingStrategy::MidpointAwayFromZero)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_digit_is_rounded_away_from_zero() {
        let cases =
            [("0.125", "USD", "0.13"), ("-0.125", "USD", "-0.13"), ("2.5", "JPY", "3"), ("0.0005", "KWD", "0.001")];
        for (amount, currency, expected) in cases {
            assert_eq!(rounded(amount.parse().unwrap(), currency), expected.parse().unwrap(), "{amount} {currency}");
        }
    }
}
