//! Which known name did the user probably mean? The HINT of an error about an unknown one.

/// Bytes that a name may have: a longer one is not compared, which takes time by its length.
const LONGEST: usize = 512;

/// The known name nearest to `wrong`, if one is near enough to be a slip of the keyboard.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if wrong.len() > LONGEST {
        return None;
    }
    known
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&wrong.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// A HINT for an unknown name: the nearest one if there is one, and all that are known.
pub fn hint<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str> + Clone) -> String {
    let all = known.clone().into_iter().collect::<Vec<_>>().join(", ");
    match nearest(wrong, known) {
        Some(name) => format!("Perhaps you meant \"{name}\". Known here: {all}."),
        None => format!("Known here: {all}."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_keyboard_is_recognised_and_nonsense_is_not() {
        let known = ["customer_message", "ai_reply", "staff_reply"];
        assert_eq!(nearest("ai_repyl", known), Some("ai_reply"));
        assert_eq!(nearest("zzz", known), None);
        assert_eq!(nearest(&"ai_reply".repeat(65), known), None, "too long to be compared");
    }
}
