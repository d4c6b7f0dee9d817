//! `[[exclude]]` and `[[maintenance]]`: what is left alone, always or at set times.

use std::time::SystemTime;

use jiff::civil::{Date, Time, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};

use super::policy::{Labels, listed};
use crate::keys::Keys;
use crate::model::{BuilderName, RepoName, Scope};

/// The longest reason, characters.
const REASON_MAX: usize = 500;
/// What names a day of the week.
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// What is left alone always.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exclusion {
    /// What; never everything.
    pub scope: Scope,
    /// Why.
    pub reason: String,
}

/// What is left alone at set times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// What.
    pub scope: Scope,
    /// Why.
    pub reason: String,
    window: Window,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Window {
    Once {
        from: Timestamp,
        to: Timestamp,
    },
    /// On each of these days, on which it begins; on the next day's `to` where that is not later.
    Weekly {
        days: Vec<Weekday>,
        from: Time,
        to: Time,
        zone: TimeZone,
    },
}

impl Maintenance {
    /// Until when it is under way, where it is at `wall`.
    pub fn until(&self, wall: SystemTime) -> Option<SystemTime> {
        let now = Timestamp::try_from(wall).ok()?;
        let end = match &self.window {
            Window::Once { from, to } => (*from <= now && now < *to).then_some(*to),
            Window::Weekly {
                days,
                from,
                to,
                zone,
            } => {
                let today = now.to_zoned(zone.clone()).date();
                let begun = [today.yesterday().ok(), Some(today)];
                begun.into_iter().flatten().find_map(|day| {
                    let (start, end) = occurrence(day, *from, *to, zone)?;
                    let under_way = days.contains(&day.weekday()) && start <= now && now < end;
                    under_way.then_some(end)
                })
            }
        }?;
        Some(end.into())
    }
}

/// The window that begins on a day. Where the clock is put forward over its beginning or its end,
/// that is as much later.
fn occurrence(day: Date, from: Time, to: Time, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
    let last = if to > from {
        day
    } else {
        day.checked_add(1.day()).ok()?
    };
    let at = |day: Date, time: Time| zone.to_timestamp(day.to_datetime(time)).ok();
    Some((at(day, from)?, at(last, to)?))
}

/// Reads every `[[exclude]]`; what could not be made of a table was told as a mistake.
pub(super) fn exclusions(root: &mut Keys<'_>, known: Option<&Labels>) -> Vec<Exclusion> {
    let mut exclusions = Vec::new();
    for mut keys in root.tables("exclude") {
        let scope = scope(&mut keys, known);
        let reason = reason(&mut keys);
        if scope == Some(Scope::default()) {
            keys.mistake(
                "",
                "excludes everything; name a repo, a pull of it, or a builder, or set mode = \"observe\"",
            );
            continue;
        }
        if let (Some(scope), Some(reason)) = (scope, reason) {
            exclusions.push(Exclusion { scope, reason });
        }
    }
    exclusions
}

/// Reads every `[[maintenance]]`; what could not be made of a table was told as a mistake.
pub(super) fn maintenance(root: &mut Keys<'_>, known: Option<&Labels>) -> Vec<Maintenance> {
    let mut all = Vec::new();
    for mut keys in root.tables("maintenance") {
        let scope = scope(&mut keys, known);
        let reason = reason(&mut keys);
        let window = window(&mut keys);
        if let (Some(scope), Some(reason), Some(window)) = (scope, reason, window) {
            all.push(Maintenance {
                scope,
                reason,
                window,
            });
        }
    }
    all
}

fn scope(keys: &mut Keys<'_>, known: Option<&Labels>) -> Option<Scope> {
    let repo = given(keys, "repo", |keys, key| keys.string(key))?.map(RepoName::new);
    let builder = given(keys, "builder", |keys, key| keys.string(key))?.map(BuilderName::new);
    let pull = given(keys, "pull", |keys, key| keys.integer(key, 1..=u64::MAX))?;
    if pull.is_some() && repo.is_none() {
        keys.mistake(
            "pull",
            "belongs to a repository; name it with repo = \"LABEL\"",
        );
        return None;
    }
    if let Some(known) = known {
        warn_of_unknown(keys, known, repo.as_ref(), builder.as_ref());
    }
    Some(Scope {
        repo,
        pull,
        builder,
    })
}

/// A key that may be left out; `None` after having told a mistake.
fn given<T>(
    keys: &mut Keys<'_>,
    key: &str,
    read: impl FnOnce(&mut Keys<'_>, &str) -> Option<T>,
) -> Option<Option<T>> {
    if keys.has(key) {
        read(keys, key).map(Some)
    } else {
        Some(None)
    }
}

fn warn_of_unknown(
    keys: &mut Keys<'_>,
    known: &Labels,
    repo: Option<&RepoName>,
    builder: Option<&BuilderName>,
) {
    if let Some(repo) = repo.filter(|repo| !known.contains_key(*repo)) {
        let names = listed(known.keys().map(RepoName::as_str));
        let message = format!("no bot has a repository {:?}", repo.as_str()) + &names;
        keys.warning("repo", message);
        return;
    }
    let of_scope = known
        .iter()
        .filter(|(label, _)| repo.is_none_or(|repo| &repo == label));
    let mut builders: Vec<&BuilderName> = of_scope.flat_map(|(_, builders)| builders).collect();
    builders.sort();
    builders.dedup();
    if let Some(builder) = builder.filter(|builder| !builders.contains(builder)) {
        let names = listed(builders.into_iter().map(BuilderName::as_str));
        let message = format!("no repository there has a builder {:?}", builder.as_str()) + &names;
        keys.warning("builder", message);
    }
}

fn reason(keys: &mut Keys<'_>) -> Option<String> {
    let reason = keys.required_string("reason", "write why it is left alone; the page shows it")?;
    let length = reason.chars().count();
    if length == 0 || length > REASON_MAX || reason.chars().any(char::is_control) {
        keys.mistake(
            "reason",
            format!("does not fit; write 1 to {REASON_MAX} characters on one line"),
        );
        return None;
    }
    Some(reason)
}

fn window(keys: &mut Keys<'_>) -> Option<Window> {
    const HINT: &str = "write \"02:00\", or a whole time such as \"2026-12-01T20:00:00Z\"";
    let from = keys.required_string("from", HINT);
    let to = keys.required_string("to", HINT);
    let (from, to) = (from?, to?);
    if let (Ok(from), Ok(to)) = (from.parse::<Timestamp>(), to.parse::<Timestamp>()) {
        for key in ["days", "timezone"] {
            keys.refuse(
                key,
                "belongs to a window that comes again; this one has whole times, and comes once",
            );
        }
        if from < to {
            return Some(Window::Once { from, to });
        }
        keys.mistake("to", "is not later than `from`");
        return None;
    }
    let from = time(keys, "from", &from);
    let to = time(keys, "to", &to);
    let days = days(keys);
    let zone = zone(keys);
    Some(Window::Weekly {
        days: days?,
        from: from?,
        to: to?,
        zone: zone?,
    })
}

fn time(keys: &mut Keys<'_>, key: &str, text: &str) -> Option<Time> {
    // Seconds in such a time would look like one that is exact to them.
    let time = Time::strptime("%H:%M", text);
    if time.is_err() {
        let message = format!(
            "{} does not fit; write both `from` and `to` as times of the day (\"02:00\"), or both \
             as whole times (\"2026-12-01T20:00:00Z\")",
            crate::keys::quoted(text)
        );
        keys.mistake(key, message);
    }
    time.ok()
}

fn days(keys: &mut Keys<'_>) -> Option<Vec<Weekday>> {
    if !keys.has("days") {
        return Some(DAYS.map(|(_, day)| day).to_vec());
    }
    let words = keys.strings("days")?;
    let mut days = Vec::new();
    for word in &words {
        let Some((_, day)) = DAYS.iter().find(|(name, _)| name == word) else {
            let message = format!(
                "{} is no day; write some of {}",
                crate::keys::quoted(word),
                DAYS.map(|(name, _)| format!("\"{name}\"")).join(", ")
            );
            keys.mistake("days", message);
            return None;
        };
        days.push(*day);
    }
    if days.is_empty() {
        keys.mistake(
            "days",
            "names no day, so that it never comes; leave it out for every day",
        );
        return None;
    }
    Some(days)
}

fn zone(keys: &mut Keys<'_>) -> Option<TimeZone> {
    if !keys.has("timezone") {
        return Some(TimeZone::UTC);
    }
    let name = keys.string("timezone")?;
    match TimeZone::get(&name) {
        Ok(zone) => Some(zone),
        Err(_) => {
            let message = format!(
                "{} is no known time zone; write one such as \"Europe/Berlin\", or leave it out \
                 for UTC",
                crate::keys::quoted(&name)
            );
            keys.mistake("timezone", message);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weekly(days: &[Weekday], from: &str, to: &str, zone: &str) -> Maintenance {
        Maintenance {
            scope: Scope::default(),
            reason: "backup".to_owned(),
            window: Window::Weekly {
                days: days.to_vec(),
                from: from.parse().unwrap(),
                to: to.parse().unwrap(),
                zone: TimeZone::get(zone).unwrap(),
            },
        }
    }

    fn at(time: &str) -> SystemTime {
        time.parse::<Timestamp>().unwrap().into()
    }

    #[track_caller]
    fn check(maintenance: &Maintenance, times: &[(&str, Option<&str>)]) {
        for (time, until) in times {
            assert_eq!(maintenance.until(at(time)), until.map(at), "{time}");
        }
    }

    #[test]
    fn a_window_holds_from_its_beginning_to_before_its_end() {
        let nightly = weekly(&DAYS.map(|(_, day)| day), "02:00", "04:00", "UTC");
        let end = Some("2026-11-24T04:00:00Z");
        check(
            &nightly,
            &[
                ("2026-11-24T01:59:59Z", None),
                ("2026-11-24T02:00:00Z", end),
                ("2026-11-24T03:59:59Z", end),
                ("2026-11-24T04:00:00Z", None),
            ],
        );
    }

    #[test]
    fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
        // 2026-11-28 is a Saturday.
        let weekend = weekly(&[Weekday::Saturday], "22:00", "06:00", "UTC");
        let end = Some("2026-11-29T06:00:00Z");
        check(
            &weekend,
            &[
                ("2026-11-28T05:00:00Z", None),
                ("2026-11-28T23:00:00Z", end),
                ("2026-11-29T05:59:00Z", end),
                ("2026-11-29T23:00:00Z", None),
            ],
        );
        let whole_day = weekly(&[Weekday::Saturday], "00:00", "00:00", "UTC");
        check(
            &whole_day,
            &[
                ("2026-11-28T12:00:00Z", Some("2026-11-29T00:00:00Z")),
                ("2026-11-29T00:00:00Z", None),
            ],
        );
    }

    #[test]
    fn a_window_follows_its_time_zone_through_the_year() {
        let nightly = weekly(&DAYS.map(|(_, day)| day), "02:30", "04:00", "Europe/Berlin");
        check(
            &nightly,
            &[
                ("2026-01-10T02:00:00Z", Some("2026-01-10T03:00:00Z")),
                ("2026-07-10T01:00:00Z", Some("2026-07-10T02:00:00Z")),
                // The clock goes from 02:00 to 03:00: 02:30 is 03:30.
                ("2026-03-29T01:15:00Z", None),
                ("2026-03-29T01:45:00Z", Some("2026-03-29T02:00:00Z")),
            ],
        );
    }

    #[test]
    fn a_window_with_whole_times_comes_once() {
        let once = Maintenance {
            scope: Scope::default(),
            reason: "move".to_owned(),
            window: Window::Once {
                from: "2026-12-01T20:00:00Z".parse().unwrap(),
                to: "2026-12-01T23:00:00Z".parse().unwrap(),
            },
        };
        let end = Some("2026-12-01T23:00:00Z");
        check(
            &once,
            &[
                ("2026-12-01T19:59:59Z", None),
                ("2026-12-01T20:00:00Z", end),
                ("2026-12-01T23:00:00Z", None),
                ("2036-12-01T21:00:00Z", None),
            ],
        );
    }
}
