//! Why a remedy is held: one value for the log, the metric label, the API and the page.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The gates, in the order in which they are asked; the first that fails is the hold's reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gate {
    /// An operator paused the watchdog.
    Paused,
    /// The repository or builder is excluded.
    Excluded,
    /// A silence in Alertmanager matches.
    Silenced,
    /// We have not looked long enough since start, resume or a late tick; or all our probes fail.
    NotSettled,
    /// The bot does not answer.
    BotSilent,
    /// An earlier intent on this target has not been settled yet.
    InDoubt,
    /// The journal cannot be written.
    Journal,
    /// Not seen in enough looks in a row yet.
    Confirming,
    /// This message was sent often enough, or a moment ago; or the bot refused it.
    MessageSent,
    /// The pull request is closed or its head moved.
    Outdated,
    /// Something of the build may be alive.
    LawOfReruns,
    /// The run is only silent, and the operator wants to be told, not to have it rerun.
    OnSilence,
    /// The provider has not been good for long enough.
    ProviderNotGood,
    /// GitHub has not been good for long enough.
    GithubNotGood,
    /// The zone is in outage.
    ZoneOutage,
    /// The zone's outage ended a moment ago, or others of it go first.
    StormCooldown,
    /// The last rerun of this pull request is too recent.
    Cooldown,
    /// The pull request used up its reruns.
    PullBudget,
    /// Different workers were lost on one head: it may be the build that kills them.
    WorkerKiller,
    /// Another rerun of this bot is in flight.
    RerunInFlight,
    /// The zone used up its reruns.
    ZoneBudget,
    /// The bot used up its restarts.
    RestartBudget,
    /// The API's rate limit is nearly spent.
    QuotaLow,
    /// The tree is closed.
    TreeClosed,
    /// `mode = "observe"`.
    Observe,
}

impl Gate {
    /// Every gate in order; metrics start each at zero.
    pub const ALL: [Self; 25] = [
        Self::Paused,
        Self::Excluded,
        Self::Silenced,
        Self::NotSettled,
        Self::BotSilent,
        Self::InDoubt,
        Self::Journal,
        Self::Confirming,
        Self::MessageSent,
        Self::Outdated,
        Self::LawOfReruns,
        Self::OnSilence,
        Self::ProviderNotGood,
        Self::GithubNotGood,
        Self::ZoneOutage,
        Self::StormCooldown,
        Self::Cooldown,
        Self::PullBudget,
        Self::WorkerKiller,
        Self::RerunInFlight,
        Self::ZoneBudget,
        Self::RestartBudget,
        Self::QuotaLow,
        Self::TreeClosed,
        Self::Observe,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Paused => "paused",
            Self::Excluded => "excluded",
            Self::Silenced => "silenced",
            Self::NotSettled => "not_settled",
            Self::BotSilent => "bot_silent",
            Self::InDoubt => "in_doubt",
            Self::Journal => "journal",
            Self::Confirming => "confirming",
            Self::MessageSent => "message_sent",
            Self::Outdated => "outdated",
            Self::LawOfReruns => "law_of_reruns",
            Self::OnSilence => "on_silence",
            Self::ProviderNotGood => "provider_not_good",
            Self::GithubNotGood => "github_not_good",
            Self::ZoneOutage => "zone_outage",
            Self::StormCooldown => "storm_cooldown",
            Self::Cooldown => "cooldown",
            Self::PullBudget => "pull_budget",
            Self::WorkerKiller => "worker_killer",
            Self::RerunInFlight => "rerun_in_flight",
            Self::ZoneBudget => "zone_budget",
            Self::RestartBudget => "restart_budget",
            Self::QuotaLow => "quota_low",
            Self::TreeClosed => "tree_closed",
            Self::Observe => "observe",
        }
    }
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
