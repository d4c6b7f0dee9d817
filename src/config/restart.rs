//! `restart` of a `[[bot]]`: the command that restarts it, when, and how often at most.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use crate::decision::policy::Policy;
use crate::decision::restart::Restart;
use crate::keys::{Keys, quoted};
use crate::model::BotName;

/// How long a bot must be silent, unless the configuration says otherwise.
const AFTER: Duration = Duration::from_secs(15 * 60);
/// The least of that: a homu that is restarted or updated by hand answers nothing for a while. A tick
/// of less than a second is for tests, and lets them be as short.
const AFTER_MIN: Duration = Duration::from_secs(60);
const TEST_TICK: Duration = Duration::from_secs(1);
/// How often at most, unless the configuration says otherwise.
const AT_MOST: (u32, Duration) = (1, Duration::from_secs(6 * 60 * 60));
/// More restarts than this in one window are not what brings a bot back.
const TIMES_MAX: u32 = 10;
/// The longest command: the journal keeps it with every restart.
const WORDS_MAX: usize = 64;
const BYTES_MAX: usize = 4096;

/// Reads every bot's `restart`; a wrong one is told. `tick` is the time between two looks.
pub(super) fn read(tables: Vec<(BotName, Keys<'_>)>, tick: Duration) -> BTreeMap<BotName, Restart> {
    let read = |(bot, mut keys)| Some((bot, restart(&mut keys, tick)?));
    tables.into_iter().filter_map(read).collect()
}

fn restart(keys: &mut Keys<'_>, tick: Duration) -> Option<Restart> {
    let command = command(keys);
    let after = after(keys, tick);
    let at_most = at_most(keys);
    let (after, (times, per)) = (after?, at_most?);
    if per < after {
        let message = format!(
            "{} is shorter than restart.after ({}): it would limit nothing; write more",
            time(per),
            time(after)
        );
        keys.mistake("at_most", message);
    }
    Some(Restart {
        command: command?,
        after,
        times,
        per,
    })
}

fn command(keys: &mut Keys<'_>) -> Option<Vec<String>> {
    if !keys.has("command") {
        keys.mistake(
            "command",
            "is missing; write the program and its arguments: [\"systemctl\", \"restart\", \"homu\"]",
        );
        return None;
    }
    let command = keys.strings("command")?;
    let bytes: usize = command.iter().map(String::len).sum();
    let wrong = match command.first() {
        None => Some("is empty; write the program and its arguments".to_owned()),
        Some(_) if command.iter().any(|word| word.contains('\0')) => {
            Some("holds a zero byte, which no argument can".to_owned())
        }
        Some(_) if command.len() > WORDS_MAX || bytes > BYTES_MAX => Some(format!(
            "is longer than {WORDS_MAX} words or {BYTES_MAX} bytes; put it into a script"
        )),
        Some(program) => unfit(program),
    };
    match wrong {
        None => Some(command),
        Some(message) => {
            keys.mistake("command", message);
            None
        }
    }
}

/// Why a program cannot be run, as far as can be seen without running it. A relative path would be
/// relative to wherever the daemon was started.
fn unfit(program: &str) -> Option<String> {
    if program.starts_with('/') {
        return match Path::new(program).metadata() {
            Err(error) => Some(format!("{} cannot be run: {error}", quoted(program))),
            Ok(_) if is_program(Path::new(program)) => None,
            Ok(_) => Some(format!(
                "{} cannot be run: it is no executable file",
                quoted(program)
            )),
        };
    }
    if program.is_empty() || program.contains('/') {
        return Some(format!(
            "{} is no program; write its whole path, or the name of one in PATH",
            quoted(program)
        ));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| is_program(&folder.join(program)));
    (!found).then(|| {
        format!(
            "there is no program {} in the daemon's PATH; write its whole path",
            quoted(program)
        )
    })
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

fn after(keys: &mut Keys<'_>, tick: Duration) -> Option<Duration> {
    let after = if keys.has("after") {
        keys.duration("after")?
    } else {
        AFTER.max(least(tick))
    };
    if after < least(tick) {
        let message = format!(
            "{} does not fit; write at least {}: a bot that somebody restarts is silent for a while, and two looks must find it so",
            time(after),
            time(least(tick))
        );
        keys.mistake("after", message);
        return None;
    }
    if after < AFTER_MIN {
        keys.warning(
            "after",
            format!("{} is short: meant for tests", time(after)),
        );
    }
    Some(after)
}

fn least(tick: Duration) -> Duration {
    let looks = tick.saturating_mul(2);
    if tick < TEST_TICK {
        looks
    } else {
        looks.max(AFTER_MIN)
    }
}

fn at_most(keys: &mut Keys<'_>) -> Option<(u32, Duration)> {
    if !keys.has("at_most") {
        return Some(AT_MOST);
    }
    let text = keys.string("at_most")?;
    let budget = budget(&text);
    if budget.is_none() {
        let message = format!(
            "{} does not fit; write \"N per TIME\", N from 1 to {TIMES_MAX} and TIME at most {}: \"1 per 6h\"",
            quoted(&text),
            time(Policy::PULL_WINDOW)
        );
        keys.mistake("at_most", message);
    }
    budget
}

/// `N per TIME`. Beyond a day the journal need not remember.
fn budget(text: &str) -> Option<(u32, Duration)> {
    let (times, per) = text.split_once(" per ")?;
    let times = times.parse().ok()?;
    let per = humantime::parse_duration(per).ok()?;
    let fits = (1..=TIMES_MAX).contains(&times) && per <= Policy::PULL_WINDOW && !per.is_zero();
    fits.then_some((times, per))
}

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_count_and_a_time() {
        let hours = |hours: u64| Duration::from_secs(hours * 60 * 60);
        assert_eq!(budget("1 per 6h"), Some((1, hours(6))));
        assert_eq!(budget("10 per 1day"), Some((10, hours(24))));
        for wrong in [
            "",
            "1",
            "1 per",
            "1 per ",
            "0 per 6h",
            "11 per 6h",
            "-1 per 6h",
            "1 per 25h",
            "1 per 0s",
            "1 in 6h",
            "6h",
            "1 per 6",
            "one per 6h",
            "1  per 6h per 6h",
        ] {
            assert_eq!(budget(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn silence_lasts_a_minute_at_least_but_in_tests() {
        let seconds = Duration::from_secs;
        assert_eq!(least(seconds(1)), seconds(60));
        assert_eq!(least(seconds(10)), seconds(60));
        assert_eq!(least(seconds(300)), seconds(600));
        assert_eq!(
            least(Duration::from_millis(200)),
            Duration::from_millis(400)
        );
    }
}
