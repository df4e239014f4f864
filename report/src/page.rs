//! How is a page put together from figures? By a template, which escapes whatever comes from data.

use crate::chart;
use crate::figures::{Bill, Conversation, Figures, Part};
use crate::psql::Failure;
use askama::Template;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use std::hash::{DefaultHasher, Hash, Hasher};

#[derive(Template)]
#[template(path = "page.html")]
struct Page<'a> {
    figures: &'a Figures,
    days_chart: String,
    months_chart: String,
    not_billed: i64,
    /// The browser reads the page again after so many seconds.
    refresh: Option<u32>,
}

/// The page of figures, as HTML that refers to nothing else.
pub fn render(figures: &Figures, refresh: Option<u32>) -> Result<String, Failure> {
    let page = Page {
        figures,
        days_chart: chart::days(&figures.days, figures.included)?,
        months_chart: chart::months(&figures.history)?,
        not_billed: figures.not_billed.iter().map(|reason| reason.parts).sum(),
        refresh,
    };
    page.render().map_err(|error| Failure::new(format!("the page could not be put together: {error}")))
}

/// A name that any tenant's file may have in any directory; no two tenants have the same, and no two months of one.
pub fn file_name(figures: &Figures) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    /// Of the bytes that file systems allow, 255, these are left to the tenant.
    const LONGEST: usize = 200;
    let mut name = utf8_percent_encode(&figures.tenant, KEPT).to_string();
    if name.is_empty() {
        name = "%".to_owned();
    } else if name.starts_with('-') {
        // It would be an option of whatever is called with it.
        name.replace_range(..1, "%2D");
    }
    if name.len() > LONGEST {
        let mut hasher = DefaultHasher::new();
        figures.tenant.hash(&mut hasher);
        name.truncate(LONGEST);
        name += &format!("~{:016x}", hasher.finish());
    }
    format!("{name}-{}.html", figures.own_name)
}

impl Page<'_> {
    /// How much of what is included is used.
    fn percent_used(&self) -> Option<i64> {
        let included = self.figures.included.filter(|included| *included > 0)?;
        Some(self.figures.month.included_used * 100 / included)
    }

    fn status(&self) -> &str {
        self.figures.totals.first().map_or("running", |bill| bill.status.as_str())
    }

    fn verdict(&self, part: &Part) -> String {
        verdict(part)
    }

    fn verdicts(&self, conversation: &Conversation) -> String {
        let mut counted: Vec<(String, usize)> = Vec::new();
        for verdict in conversation.parts.rows.iter().map(verdict) {
            match counted.iter_mut().find(|(known, _)| *known == verdict) {
                Some((_, count)) => *count += 1,
                None => counted.push((verdict, 1)),
            }
        }
        let told = counted.iter().map(|(verdict, count)| match count {
            1 => verdict.clone(),
            _ => format!("{verdict} ({count} times)"),
        });
        told.collect::<Vec<_>>().join(", ")
    }

    fn amounts(&self, bills: &[Bill]) -> String {
        if bills.is_empty() {
            return "–".to_owned();
        }
        bills.iter().map(|bill| format!("{} {}", bill.total, bill.currency)).collect::<Vec<_>>().join(", ")
    }
}

/// What came of a part, in a few words.
fn verdict(part: &Part) -> String {
    match (&part.not_billable_because, part.billable) {
        (_, true) => "billed".to_owned(),
        (Some(reason), _) => format!("not billed: {}", reason.replace('_', " ")),
        (None, _) => "open".to_owned(),
    }
}

mod filters {
    use askama::{Values, filter_fn};

    /// 1234567 as 1,234,567.
    #[filter_fn]
    pub fn grouped(number: &i64, _: &dyn Values) -> askama::Result<String> {
        let digits = number.unsigned_abs().to_string();
        let mut grouped = String::from(if *number < 0 { "-" } else { "" });
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        Ok(grouped)
    }

    /// 2026-03-06T08:01:00.25+01:00 as 2026-03-06 08:01:00: the page says in which zone.
    #[filter_fn]
    pub fn instant(text: &str, _: &dyn Values) -> askama::Result<String> {
        Ok(text.chars().take(19).map(|c| if c == 'T' { ' ' } else { c }).collect())
    }

    /// not_on_plan as not on plan.
    #[filter_fn]
    pub fn words(text: &str, _: &dyn Values) -> askama::Result<String> {
        Ok(text.replace('_', " "))
    }
}
