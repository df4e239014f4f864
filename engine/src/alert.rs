//! When is a tenant to be told of its usage (rule 4.5)?

/// Whether `used` units are at least `percent` of what is included; never if nothing is.
pub fn is_reached(used: i64, included: i64, percent: i64) -> bool {
    included > 0 && i128::from(used) * 100 >= i128::from(percent) * i128::from(included)
}

/// Whether less than a tenth is left in the packs.
pub fn is_low(left: i64, size: i64) -> bool {
    i128::from(left) * 10 < i128::from(size)
}

/// Whether a day's units are more than twice the mean of the seven days before, which together had `week`. A mean of 0
/// is no measure.
pub fn is_spike(day: i64, week: i64) -> bool {
    week > 0 && i128::from(day) * 7 > 2 * i128::from(week)
}

/// Whether two counts of the same are further apart than 5 % of the larger one (rule 4.6).
pub fn is_off(a: i64, b: i64) -> bool {
    (i128::from(a) - i128::from(b)).abs() * 100 > 5 * i128::from(a.max(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eighty_percent_of_three_is_reached_by_the_third_unit() {
        assert_eq!([1, 2, 3].map(|used| is_reached(used, 3, 80)), [false, false, true]);
        assert_eq!([79, 80].map(|used| is_reached(used, 100, 80)), [false, true]);
    }

    #[test]
    fn nothing_included_is_never_reached() {
        assert!(!is_reached(1_000, 0, 80) && !is_reached(0, 0, 100));
    }

    #[test]
    fn a_pack_is_low_below_a_tenth_and_not_at_it() {
        assert!(!is_low(100, 1_000) && is_low(99, 1_000) && is_low(0, 1));
    }

    #[test]
    fn counts_are_off_beyond_five_percent_and_not_at_it() {
        assert!(!is_off(95, 100) && !is_off(100, 95) && is_off(94, 100) && is_off(0, 1) && !is_off(0, 0));
    }

    #[test]
    fn a_spike_is_more_than_twice_the_mean_of_seven_days_and_a_mean_of_nothing_is_no_measure() {
        assert!(!is_spike(20, 70) && is_spike(21, 70));
        assert!(!is_spike(1_000, 0) && is_spike(1, 3) && !is_spike(1, 4));
    }
}
