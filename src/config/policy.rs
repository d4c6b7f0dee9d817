//! `mode`, `[loop]`, `[timeouts]`, `[safety]`, and what `[repo.X]` sets apart for single repositories and builders.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::decision::policy::{BuildSafety, Mode, OnSilence, Policy, Scoped, Timeouts, ZoneSafety};
use crate::keys::Keys;
use crate::model::{BuilderName, RepoName};

/// The keys of `[safety]` that no repository can set apart.
const ZONE_KEYS: [&str; 6] = [
    "settle",
    "storm_cooldown",
    "outage_deaths",
    "outage_window",
    "outage_share",
    "reruns_per_zone_hour",
];
/// The keys of `timeouts` that no single builder can set apart.
const QUEUE_KEYS: &[&str] = &["wedged"];
/// How many known names a warning lists.
const LISTED_MAX: usize = 20;

/// The labels of repositories in the bots, with the builders of each.
pub(super) type Labels = BTreeMap<RepoName, Vec<BuilderName>>;

/// Reads the policy and tells what does not fit together in it. `known` is `None` where a bot
/// could not be read, so that nobody knows its labels.
pub(super) fn read(root: &mut Keys<'_>, known: Option<&Labels>) -> Policy {
    let usual = Policy::default();
    let modes = [("observe", Mode::Observe), ("act", Mode::Act)];
    let mut policy = Policy {
        mode: root.choice("mode", &modes).unwrap_or(usual.mode),
        tick: tick(root, usual.tick),
        timeouts: Scoped::same(timeouts(root, &Timeouts::default(), &[])),
        builds: Scoped::default(),
        zones: ZoneSafety::default(),
    };
    if let Some(mut keys) = root.table("safety") {
        policy.builds.global = build_safety(&mut keys, &BuildSafety::default());
        policy.zones = zone_safety(&mut keys);
    }
    for (repo, mut keys) in root.named_tables("repo") {
        repo_scope(&mut policy, RepoName::new(repo), &mut keys, known);
    }
    tell(root, &policy);
    policy
}

/// A tick that could not be read becomes zero, against which nothing else is checked.
fn tick(root: &mut Keys<'_>, usual: Duration) -> Duration {
    let Some(mut keys) = root.table("loop") else {
        return usual;
    };
    if keys.has("tick") {
        keys.duration("tick").unwrap_or_default()
    } else {
        usual
    }
}

fn timeouts(outer: &mut Keys<'_>, around: &Timeouts, queue_keys: &[&str]) -> Timeouts {
    let Some(mut keys) = outer.table("timeouts") else {
        return around.clone();
    };
    for key in queue_keys {
        keys.refuse(
            key,
            "belongs to a queue, which the builders of a repository share; write it under [repo.LABEL.timeouts]",
        );
    }
    let mut time = |key, around| keys.duration(key).unwrap_or(around);
    Timeouts {
        start: time("start", around.start),
        report: time("report", around.report),
        heartbeat: time("heartbeat", around.heartbeat),
        worker_lost: time("worker_lost", around.worker_lost),
        queue: time("queue", around.queue),
        total: time("total", around.total),
        effect: time("effect", around.effect),
        outdated: time("outdated", around.outdated),
        wedged: time("wedged", around.wedged),
        orphaned: time("orphaned", around.orphaned),
        pinging: time("pinging", around.pinging),
    }
}

fn build_safety(keys: &mut Keys<'_>, around: &BuildSafety) -> BuildSafety {
    let choices = [("retry", OnSilence::Retry), ("alert", OnSilence::Alert)];
    BuildSafety {
        looks: count(keys, "looks", &Policy::LOOKS).unwrap_or(around.looks),
        source_good_for: keys
            .duration("source_good_for")
            .unwrap_or(around.source_good_for),
        cooldown: keys.duration("cooldown").unwrap_or(around.cooldown),
        reruns_per_pull: count(keys, "reruns_per_pull", &Policy::RERUNS_PER_PULL)
            .unwrap_or(around.reruns_per_pull),
        on_silence: keys
            .choice("on_silence", &choices)
            .unwrap_or(around.on_silence),
    }
}

fn zone_safety(keys: &mut Keys<'_>) -> ZoneSafety {
    let usual = ZoneSafety::default();
    ZoneSafety {
        settle: keys.duration("settle").unwrap_or(usual.settle),
        storm_cooldown: keys
            .duration("storm_cooldown")
            .unwrap_or(usual.storm_cooldown),
        outage_deaths: count(keys, "outage_deaths", &Policy::OUTAGE_DEATHS)
            .unwrap_or(usual.outage_deaths),
        outage_window: keys
            .duration("outage_window")
            .unwrap_or(usual.outage_window),
        outage_share: keys
            .number("outage_share", 0.0..=1.0)
            .unwrap_or(usual.outage_share),
        reruns_per_zone_hour: count(keys, "reruns_per_zone_hour", &Policy::RERUNS_PER_ZONE_HOUR)
            .unwrap_or(usual.reruns_per_zone_hour),
    }
}

fn count(keys: &mut Keys<'_>, key: &str, range: &std::ops::RangeInclusive<u32>) -> Option<u32> {
    let wide = u64::from(*range.start())..=u64::from(*range.end());
    keys.integer(key, wide)
        .and_then(|number| u32::try_from(number).ok())
}

/// What a table of one repository or builder sets apart.
fn scope(
    keys: &mut Keys<'_>,
    timeouts_around: &Timeouts,
    around: &BuildSafety,
    queue_keys: &[&str],
) -> (Timeouts, BuildSafety) {
    let timeouts = timeouts(keys, timeouts_around, queue_keys);
    let safety = match keys.table("safety") {
        Some(mut keys) => {
            for key in ZONE_KEYS {
                keys.refuse(
                    key,
                    "belongs to zones, which repositories and builders share; write it under [safety]",
                );
            }
            build_safety(&mut keys, around)
        }
        None => around.clone(),
    };
    (timeouts, safety)
}

fn repo_scope(policy: &mut Policy, repo: RepoName, keys: &mut Keys<'_>, known: Option<&Labels>) {
    let builders = known.and_then(|known| known.get(&repo));
    if let Some(known) = known.filter(|known| !known.contains_key(&repo)) {
        let names = listed(known.keys().map(RepoName::as_str));
        keys.warning(
            "",
            format!("no bot has a repository {repo:?}", repo = repo.as_str()) + &names,
        );
    }
    let (timeouts, safety) = scope(keys, &policy.timeouts.global, &policy.builds.global, &[]);
    for (builder, mut keys) in keys.named_tables("builder") {
        let builder = BuilderName::new(builder);
        if let Some(known) = builders.filter(|known| !known.contains(&builder)) {
            let names = listed(known.iter().map(BuilderName::as_str));
            let message = format!("{repo} has no builder {:?}", builder.as_str()) + &names;
            keys.warning("", message);
        }
        let (timeouts, safety) = scope(&mut keys, &timeouts, &safety, QUEUE_KEYS);
        let key = (repo.clone(), builder);
        policy.timeouts.builders.insert(key.clone(), timeouts);
        policy.builds.builders.insert(key, safety);
    }
    policy.timeouts.repos.insert(repo.clone(), timeouts);
    policy.builds.repos.insert(repo, safety);
}

/// What there is instead of an unknown name.
pub(crate) fn listed<'n>(names: impl Iterator<Item = &'n str>) -> String {
    let mut names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
    if names.is_empty() {
        return "; there is none".to_owned();
    }
    if names.len() > LISTED_MAX {
        let more = names.len() - LISTED_MAX;
        names.truncate(LISTED_MAX);
        names.push(format!("and {more} more"));
    }
    format!("; there is {}", names.join(", "))
}

/// Tells the policy's own findings, except about keys of which something else was told: there the
/// policy holds another value than the file.
fn tell(root: &mut Keys<'_>, policy: &Policy) {
    let found = policy.findings();
    for unfit in found.errors {
        if !root.told(&unfit.key) {
            root.mistake_at(&unfit.key, unfit.message);
        }
    }
    for unfit in found.warnings {
        if !root.told(&unfit.key) {
            root.warning_at(&unfit.key, unfit.message);
        }
    }
}
