//! The last rung: a bot that answers nothing for long is restarted, where the operator wants that.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::plan::{Attempt, Desk};
use crate::model::{BotName, Evidence, Fact, Remedy, SourceName, Step, Target, Verdict};

/// How a bot is restarted, when, and how often at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restart {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// How long nothing at all must have come back from the bot, in watched time.
    pub after: Duration,
    /// So many restarts in each [`Restart::per`], whatever came of them.
    pub times: u32,
    /// See [`Restart::times`].
    pub per: Duration,
}

impl Restart {
    /// How long a restarted bot may take to answer: homu answers only once it has read all pull
    /// requests from GitHub.
    pub const EFFECT_MIN: Duration = Duration::from_secs(5 * 60);
}

impl fmt::Display for Restart {
    /// The budget, as it is configured.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per = humantime::format_duration(self.per);
        write!(f, "{} per {per}", self.times)
    }
}

/// Whether a bot has been silent for so long that its GitHub must be asked, too: it must have been
/// good for a while when the restart is due.
pub(super) fn restart_is_near(desk: Desk<'_>, bot: &BotName) -> bool {
    let before = desk.policy.builds.global.source_good_for;
    let restart = desk.restarts.get(bot);
    restart
        .is_some_and(|it| silent_for(desk, bot).is_some_and(|silent| silent + before >= it.after))
}

/// The restarts that are due.
pub(super) fn restarts<'a>(desk: Desk<'a>) -> impl Iterator<Item = (Attempt, &'a Restart)> {
    desk.restarts.iter().filter_map(move |(bot, restart)| {
        let since = silent_for(desk, bot).filter(|silent| *silent >= restart.after)?;
        let error = desk.ledger.bot(bot)?.health.error.as_ref()?;
        let target = Target::Bot(bot.clone());
        let attempt = Attempt {
            id: desk.history.next_attempt(&target, Remedy::Restart),
            steps: vec![Step::Restart {
                command: restart.command.clone(),
            }],
            verdict: Verdict::Unknown,
            evidence: Evidence::of(Fact::SourceSilent {
                source: SourceName::new(bot.as_str()),
                detail: error.to_string(),
                since,
            }),
            merge_sha: None,
            head_sha: None,
            runs: BTreeSet::new(),
            zones: BTreeSet::new(),
            lost_workers: BTreeSet::new(),
            by: None,
        };
        Some((attempt, restart))
    })
}

fn silent_for(desk: Desk<'_>, bot: &BotName) -> Option<Duration> {
    let since = desk.ledger.bot(bot)?.health.silent_since?;
    Some(desk.now.since(since))
}
