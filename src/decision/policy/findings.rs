//! Which settings are refused or doubtful, and why: single values, and the relations between them.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{BuildSafety, Findings, Policy, Scoped, Timeouts, Unfit, ZoneSafety};

/// Below it the loop would do nothing but ask; above it no repair would be quick.
const TICK: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5 * 60);
/// No build, outage or pause is a matter of months; a longer time is a typing mistake.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Policy {
    /// What `looks` may be. One look is the least that finds a death; a hundred take so long that
    /// the repair would be none.
    pub const LOOKS: RangeInclusive<u32> = 1..=100;
    /// What `outage_deaths` may be. One dead build is no outage, and a threshold that no queue
    /// reaches would never stop a storm.
    pub const OUTAGE_DEATHS: RangeInclusive<u32> = 2..=100;
    /// What `reruns_per_pull` may be. None is a choice; what ten reruns of one head do not repair,
    /// an eleventh does not.
    pub const RERUNS_PER_PULL: RangeInclusive<u32> = 0..=10;
    /// What `reruns_per_zone_hour` may be. None would be `mode = "observe"` under another name,
    /// and more than one a minute is a storm.
    pub const RERUNS_PER_ZONE_HOUR: RangeInclusive<u32> = 1..=60;

    /// Checks every value and the relations between them.
    ///
    /// Refused, beside values out of their ranges:
    ///
    /// - Any time shorter than [`Policy::snapshot_life`], two ticks: it could pass on one snapshot,
    ///   without the fresh look that might have found a sign of life; an effect could be missed,
    ///   a pause be none, and one good answer make a source good.
    /// - `looks × tick` shorter than a snapshot's life: all looks could rest on one stale snapshot.
    /// - `total` not longer than `heartbeat`: a run would be older than any build may be before it
    ///   is even silent, and `on_silence = "alert"` would then rerun at once.
    /// - `cooldown` above [`Policy::COOLDOWN_MAX`], which bounds every pause.
    ///
    /// Doubtful: times so short that only tests want them; a heartbeat that ends before the
    /// provider's own; an outage window shorter than the time over which one outage's deaths come.
    ///
    /// `start`, `report`, `worker_lost` and the others have no order among themselves: each counts
    /// from another event. Nor has `settle` with `looks × tick`, since both must have passed; the
    /// latter alone outlasts every snapshot from before a suspend, which watched time does not see.
    ///
    /// A value that a repository or builder takes over from outside is told of once, outside.
    pub fn findings(&self) -> Findings {
        let mut check = Check {
            policy: self,
            life: TICK.contains(&self.tick).then(|| self.snapshot_life()),
            found: Findings::default(),
            outgrown: Vec::new(),
        };
        for scope in scopes(&self.timeouts) {
            check.timeouts(&scope);
        }
        for scope in scopes(&self.builds) {
            check.builds(&scope);
        }
        check.zones(&self.zones);
        check.tick();
        check.found
    }

    /// The policy with what is doubtful in it, if nothing in it is refused.
    ///
    /// # Errors
    ///
    /// All findings, where at least one of them refuses the policy.
    pub fn checked(self) -> Result<(Self, Vec<Unfit>), Findings> {
        let found = self.findings();
        if found.errors.is_empty() {
            Ok((self, found.warnings))
        } else {
            Err(found)
        }
    }
}

struct Check<'p> {
    policy: &'p Policy,
    /// How long a snapshot may be used; `None` where the tick itself is refused.
    life: Option<Duration>,
    found: Findings,
    /// Defaults that the tick is too long for: the tick is to blame, not they.
    outgrown: Vec<String>,
}

/// One scope's settings, with those that hold around it.
struct Scope<'p, T> {
    prefix: String,
    here: &'p T,
    around: Option<&'p T>,
}

/// A duration of the file.
struct Time {
    name: &'static str,
    here: Duration,
    usual: Duration,
    /// From here on it is fit for more than tests.
    fit: Duration,
}

impl Check<'_> {
    fn tick(&mut self) {
        let tick = self.policy.tick;
        if !TICK.contains(&tick) {
            self.refuse(
                "loop.tick",
                format!(
                    "{} does not fit; write a time from {} to {}",
                    time(tick),
                    time(*TICK.start()),
                    time(*TICK.end())
                ),
            );
        } else if tick < Duration::from_secs(1) {
            self.doubt_short("loop.tick", tick);
        }
        if !self.outgrown.is_empty() {
            let message = format!(
                "{} is too long for {}, where two looks must fit in; write a shorter tick, or at least {} there",
                time(tick),
                self.outgrown.join(", "),
                time(tick * 2)
            );
            self.refuse("loop.tick", message);
        }
    }

    fn timeouts(&mut self, scope: &Scope<'_, Timeouts>) {
        let prefix = format!("{}timeouts.", scope.prefix);
        self.times(&prefix, &deadlines(scope.here), scope.around.map(deadlines));
        self.heartbeat(&prefix, scope);
        self.total(&prefix, scope);
    }

    fn heartbeat(&mut self, prefix: &str, scope: &Scope<'_, Timeouts>) {
        let heartbeat = scope.here.heartbeat;
        let new = scope
            .around
            .is_none_or(|around| around.heartbeat != heartbeat);
        if new && !heartbeat.is_zero() && heartbeat < Policy::PROVIDER_SILENCE {
            self.doubt(
                format!("{prefix}heartbeat"),
                format!(
                    "{} is shorter than Buildbot's own {} for a step without output: a run may be called stalled that Buildbot would still end itself; {} leaves it the time",
                    time(heartbeat),
                    time(Policy::PROVIDER_SILENCE),
                    time(Timeouts::default().heartbeat)
                ),
            );
        }
    }

    fn total(&mut self, prefix: &str, scope: &Scope<'_, Timeouts>) {
        let Timeouts {
            heartbeat, total, ..
        } = *scope.here;
        let usual = Timeouts::default();
        let around = scope.around.unwrap_or(&usual);
        let inherited =
            scope.around.is_some() && (around.total, around.heartbeat) == (total, heartbeat);
        if inherited || total > heartbeat || total.is_zero() {
            return;
        }
        // The one that was changed here is the one to change again.
        if total == around.total {
            self.refuse(
                format!("{prefix}heartbeat"),
                format!(
                    "{} is not shorter than {prefix}total ({}), the longest that a build may take; write less, or a longer total",
                    time(heartbeat),
                    time(total)
                ),
            );
        } else {
            self.refuse(
                format!("{prefix}total"),
                format!(
                    "{} is not longer than {prefix}heartbeat ({}): a run would be too old before it is silent; write more, or a shorter heartbeat",
                    time(total),
                    time(heartbeat)
                ),
            );
        }
    }

    fn builds(&mut self, scope: &Scope<'_, BuildSafety>) {
        let prefix = format!("{}safety.", scope.prefix);
        let BuildSafety {
            looks,
            source_good_for: _,
            cooldown,
            reruns_per_pull,
            on_silence: _,
        } = *scope.here;
        self.times(
            &prefix,
            &build_times(scope.here),
            scope.around.map(build_times),
        );
        if scope.around.is_none_or(|around| around.looks != looks) {
            self.count(&prefix, "looks", looks, &Policy::LOOKS);
            self.confirmation(&prefix, looks);
        }
        let too_long = cooldown > Policy::COOLDOWN_MAX && cooldown <= LONGEST;
        if too_long
            && scope
                .around
                .is_none_or(|around| around.cooldown != cooldown)
        {
            self.refuse(
                format!("{prefix}cooldown"),
                format!(
                    "{} is longer than any pause between two reruns may be; write at most {}",
                    time(cooldown),
                    time(Policy::COOLDOWN_MAX)
                ),
            );
        }
        if scope
            .around
            .is_none_or(|around| around.reruns_per_pull != reruns_per_pull)
        {
            self.count(
                &prefix,
                "reruns_per_pull",
                reruns_per_pull,
                &Policy::RERUNS_PER_PULL,
            );
        }
    }

    fn confirmation(&mut self, prefix: &str, looks: u32) {
        let tick = self.policy.tick;
        let Some(life) = self.life.filter(|_| Policy::LOOKS.contains(&looks)) else {
            return;
        };
        let confirmation = tick * looks;
        if confirmation < life {
            let least = life.as_nanos().div_ceil(tick.as_nanos());
            self.refuse(
                format!("{prefix}looks"),
                format!(
                    "{looks} × loop.tick is {}: a death would be confirmed before a stale snapshot ages out ({}); write at least {least}",
                    time(confirmation),
                    time(life)
                ),
            );
        }
    }

    fn zones(&mut self, zones: &ZoneSafety) {
        let prefix = "safety.";
        let usual = ZoneSafety::default();
        let ZoneSafety {
            settle: _,
            storm_cooldown: _,
            outage_deaths,
            outage_window,
            outage_share,
            reruns_per_zone_hour,
        } = *zones;
        self.times(prefix, &zone_times(zones), None);
        self.count(
            prefix,
            "outage_deaths",
            outage_deaths,
            &Policy::OUTAGE_DEATHS,
        );
        self.count(
            prefix,
            "reruns_per_zone_hour",
            reruns_per_zone_hour,
            &Policy::RERUNS_PER_ZONE_HOUR,
        );
        if !(outage_share > 0.0 && outage_share <= 1.0) {
            self.refuse(
                "safety.outage_share",
                format!(
                    "{outage_share} does not fit; write a share of the workers above 0 and up to 1, usual is {}",
                    usual.outage_share
                ),
            );
        }
        let start = self.policy.timeouts.global.start;
        if outage_window < start && !outage_window.is_zero() {
            self.doubt(
                "safety.outage_window",
                format!(
                    "{} is shorter than timeouts.start ({}): the deaths of one outage come spread over that time, and would not be counted together",
                    time(outage_window),
                    time(start)
                ),
            );
        }
    }

    /// Checks the times that are not taken over from around.
    fn times<const N: usize>(&mut self, prefix: &str, here: &[Time; N], around: Option<[Time; N]>) {
        for (place, setting) in here.iter().enumerate() {
            let around = around.as_ref().and_then(|around| around.get(place));
            if around.is_none_or(|around| around.here != setting.here) {
                self.time(prefix, setting);
            }
        }
    }

    fn time(&mut self, prefix: &str, setting: &Time) {
        let Time {
            name,
            here,
            usual,
            fit,
        } = *setting;
        let key = format!("{prefix}{name}");
        if here.is_zero() {
            let message = format!("zero does not fit; write a time, usual is {}", time(usual));
            self.refuse(key, message);
        } else if here > LONGEST {
            let message = format!(
                "{} does not fit; write at most {}, usual is {}",
                time(here),
                time(LONGEST),
                time(usual)
            );
            self.refuse(key, message);
        } else if let Some(life) = self.life.filter(|life| here < *life) {
            if here == usual {
                self.outgrown.push(format!("{key} ({})", time(here)));
                return;
            }
            let message = format!(
                "{} is shorter than two ticks, for which a snapshot is used, and could pass without a fresh look; write at least {}",
                time(here),
                time(life)
            );
            self.refuse(key, message);
        } else if here < fit {
            self.doubt_short(key, here);
        }
    }

    fn count(&mut self, prefix: &str, name: &str, here: u32, range: &RangeInclusive<u32>) {
        if !range.contains(&here) {
            self.refuse(
                format!("{prefix}{name}"),
                format!(
                    "{here} does not fit; write a whole number from {} to {}",
                    range.start(),
                    range.end()
                ),
            );
        }
    }

    fn refuse(&mut self, key: impl Into<String>, message: String) {
        let key = key.into();
        self.found.errors.push(Unfit { key, message });
    }

    fn doubt(&mut self, key: impl Into<String>, message: String) {
        let key = key.into();
        self.found.warnings.push(Unfit { key, message });
    }

    fn doubt_short(&mut self, key: impl Into<String>, here: Duration) {
        self.doubt(key, format!("{} is short: meant for tests", time(here)));
    }
}

/// Each timeout. The heartbeat has a warning of its own, so none of being short.
fn deadlines(timeouts: &Timeouts) -> [Time; 11] {
    let Timeouts {
        start,
        report,
        heartbeat,
        worker_lost,
        queue,
        total,
        effect,
        outdated,
        wedged,
        orphaned,
        pinging,
    } = *timeouts;
    let usual = Timeouts::default();
    [
        Time::new("start", start, usual.start, 60),
        Time::new("report", report, usual.report, 30),
        Time::new("heartbeat", heartbeat, usual.heartbeat, 0),
        Time::new("worker_lost", worker_lost, usual.worker_lost, 60),
        Time::new("queue", queue, usual.queue, 60),
        Time::new("total", total, usual.total, 600),
        Time::new("effect", effect, usual.effect, 30),
        Time::new("outdated", outdated, usual.outdated, 30),
        Time::new("wedged", wedged, usual.wedged, 60),
        Time::new("orphaned", orphaned, usual.orphaned, 60),
        Time::new("pinging", pinging, usual.pinging, 30),
    ]
}

fn build_times(safety: &BuildSafety) -> [Time; 2] {
    let usual = BuildSafety::default();
    let good = safety.source_good_for;
    [
        Time::new("source_good_for", good, usual.source_good_for, 60),
        Time::new("cooldown", safety.cooldown, usual.cooldown, 60),
    ]
}

fn zone_times(safety: &ZoneSafety) -> [Time; 3] {
    let usual = ZoneSafety::default();
    let (settle, storm, window) = (safety.settle, safety.storm_cooldown, safety.outage_window);
    [
        Time::new("settle", settle, usual.settle, 10),
        Time::new("storm_cooldown", storm, usual.storm_cooldown, 60),
        Time::new("outage_window", window, usual.outage_window, 60),
    ]
}

impl Time {
    fn new(name: &'static str, here: Duration, usual: Duration, fit_seconds: u64) -> Self {
        Self {
            name,
            here,
            usual,
            fit: Duration::from_secs(fit_seconds),
        }
    }
}

fn scopes<T>(scoped: &Scoped<T>) -> Vec<Scope<'_, T>> {
    let repos = scoped.repos.iter().map(|(repo, here)| Scope {
        prefix: format!("repo.{repo}."),
        here,
        around: Some(&scoped.global),
    });
    let builders = scoped.builders.iter().map(|((repo, builder), here)| Scope {
        prefix: format!("repo.{repo}.builder.{builder}."),
        here,
        around: Some(scoped.repo(repo)),
    });
    std::iter::once(Scope {
        prefix: String::new(),
        here: &scoped.global,
        around: None,
    })
    .chain(repos)
    .chain(builders)
    .collect()
}

fn time(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
