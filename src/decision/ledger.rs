//! What is known now, folded from looks at bots and providers; lost on restart on purpose, but for
//! the first sights that the journal gives back.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::endings::{How, LeftBuilds, Witness};
use super::tracked::{Death, Past, Tracked, differs, lacking, rebuilt_unseen, since};
use crate::model::{
    ApprovedPull, BotName, BotSnapshot, BuildId, BuildKey, BuilderName, CiSystem, Ending,
    GithubState, History, Knock, Moment, PendingBuild, ProbeError, ProviderName, ProviderSnapshot,
    Question, RepoName, RunState, Sha, Sighting, SightingCause, SourceName, Verdict, WorkerName,
};

/// How many commits are remembered for each bot once nothing is pending on them; each could still
/// hold a start slot.
const REMEMBERED_MAX: usize = 64;
/// How many places in bots are remembered after their build left pending, for their generations.
const PAST_MAX: usize = 4096;

/// Which providers can serve what a bot waits for: every provider of a system's kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes(pub BTreeMap<CiSystem, Vec<ProviderName>>);

impl Routes {
    /// The providers of a system; none where none is configured.
    pub fn providers(&self, system: CiSystem) -> &[ProviderName] {
        self.0.get(&system).map_or(&[], Vec::as_slice)
    }
}

/// How a source has answered.
#[derive(Clone, Debug, Default)]
pub struct SourceHealth {
    /// The last good look.
    pub last_good: Option<Moment>,
    /// The last bad look.
    pub last_bad: Option<Moment>,
    /// The first bad look since the last good one.
    pub failing_since: Option<Moment>,
    /// The first of the latest looks in a row to which nothing at all came back.
    pub silent_since: Option<Moment>,
    /// What the last look failed with, where it was bad.
    pub error: Option<ProbeError>,
}

impl SourceHealth {
    /// For how long it has been good; `None`: it is bad now, or was not looked at.
    ///
    /// A source that was never seen bad is good without limit: the time since start is the
    /// business of the settle gate.
    pub fn good_for(&self, now: Moment) -> Option<Duration> {
        if self.error.is_some() || self.last_good.is_none() {
            return None;
        }
        Some(self.last_bad.map_or(Duration::MAX, |bad| now.since(bad)))
    }

    fn good(&mut self, now: Moment) {
        self.last_good = Some(now);
        self.failing_since = None;
        self.silent_since = None;
        self.error = None;
    }

    fn bad(&mut self, now: Moment, error: ProbeError) {
        self.last_bad = Some(now);
        self.failing_since.get_or_insert(now);
        self.silent_since = since(self.silent_since, error.failure.is_no_answer(), now);
        self.error = Some(error);
    }
}

/// A source's health and its last complete answer.
#[derive(Clone, Debug)]
pub struct Source<T> {
    /// How it has answered.
    pub health: SourceHealth,
    /// Its last complete answer, with the moment of the look.
    pub snapshot: Option<(Moment, T)>,
}

impl<T> Default for Source<T> {
    fn default() -> Self {
        Self {
            health: SourceHealth::default(),
            snapshot: None,
        }
    }
}

impl<T> Source<T> {
    /// The last answer, where it is not older than `life`.
    pub fn fresh(&self, now: Moment, life: Duration) -> Option<&T> {
        let (at, snapshot) = self.snapshot.as_ref()?;
        (now.since(*at) <= life).then_some(snapshot)
    }

    /// The moment of the last good look.
    pub fn seen_at(&self) -> Option<Moment> {
        self.snapshot.as_ref().map(|(at, _)| *at)
    }
}

/// What is known of a repository's queue.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Since when approved work waits and nothing is pending.
    pub idle_since: Option<Moment>,
    /// Since when GitHub and the bot differ about an approved pull request.
    pub outdated: BTreeMap<u64, Moment>,
}

/// A generation that a look opened; the caller names its cause and writes it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The sighting, with [`SightingCause::First`] or [`SightingCause::NewHead`] as its cause, or
    /// [`SightingCause::OthersRerun`] where the same head is built again, by whomever.
    pub sighting: Sighting,
}

/// Everything that is known now.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    bots: BTreeMap<BotName, Source<BotSnapshot>>,
    githubs: BTreeMap<BotName, SourceHealth>,
    /// When each bot was last knocked at, and what its GitHub said then.
    knocked: BTreeMap<BotName, (Moment, GithubState)>,
    providers: BTreeMap<ProviderName, Source<ProviderSnapshot>>,
    builds: BTreeMap<BuildKey, Tracked>,
    past: BTreeMap<BuildKey, Past>,
    /// First sights from the journal whose builds were not seen since the start.
    restored: BTreeMap<BuildKey, Sighting>,
    /// Those of them whose end is in the journal too.
    ended: BTreeSet<BuildKey>,
    /// Generations that are over, until their ends are written down.
    left: LeftBuilds,
    remembered: BTreeMap<BotName, Vec<Sha>>,
    queues: BTreeMap<(BotName, RepoName), Queue>,
    /// When a run was last seen to go on at each worker; at most one entry for each that is configured.
    signs: BTreeMap<(ProviderName, WorkerName), Moment>,
}

impl Ledger {
    /// Gives back a first sight from the journal; later ones of one place replace earlier ones.
    pub fn restore(&mut self, sighting: &Sighting) {
        if let Some(sha) = &sighting.merge_sha {
            self.remember(&sighting.build.key.bot, sha);
        }
        self.ended.remove(&sighting.build.key);
        self.restored
            .insert(sighting.build.key.clone(), sighting.clone());
    }

    /// Gives back an ending from the journal.
    pub fn restore_ending(&mut self, ending: &Ending) {
        let key = &ending.build.key;
        let restored = self.restored.get(key);
        if restored.is_some_and(|sighting| sighting.build == ending.build) {
            self.ended.insert(key.clone());
        }
    }

    /// The generations that are over, each until [`Ledger::ending_written`] says that the journal has it.
    pub(super) fn endings(&mut self, witness: Witness<'_>) -> Vec<Ending> {
        let mut left = std::mem::take(&mut self.left);
        let endings = left.name(self, witness);
        self.left = left;
        endings
    }

    /// Forgets an ending that the journal has.
    pub(super) fn ending_written(&mut self, build: &BuildId) {
        self.left.written(build);
    }

    /// Notes a build's verdict in a tick.
    pub(super) fn note_verdict(&mut self, key: &BuildKey, verdict: Verdict) {
        if let Some(tracked) = self.builds.get_mut(key) {
            tracked.judged = verdict;
        }
    }

    /// Forgets the bots and providers that are not configured any more, with their builds and queues.
    pub fn retain(&mut self, bots: &BTreeSet<&BotName>, providers: &BTreeSet<&ProviderName>) {
        self.bots.retain(|bot, _| bots.contains(bot));
        self.githubs.retain(|bot, _| bots.contains(bot));
        self.knocked.retain(|bot, _| bots.contains(bot));
        self.remembered.retain(|bot, _| bots.contains(bot));
        self.builds.retain(|key, _| bots.contains(&key.bot));
        self.past.retain(|key, _| bots.contains(&key.bot));
        self.restored.retain(|key, _| bots.contains(&key.bot));
        self.left.retain(|bot| bots.contains(bot));
        self.queues.retain(|(bot, _), _| bots.contains(bot));
        self.providers
            .retain(|provider, _| providers.contains(provider));
        self.signs
            .retain(|(provider, _), _| providers.contains(provider));
    }

    /// Folds in a look at a bot; `life` is how long a snapshot may be used.
    pub fn record_bot(
        &mut self,
        now: Moment,
        life: Duration,
        bot: &BotName,
        look: Result<BotSnapshot, ProbeError>,
    ) -> Vec<Opened> {
        let source = self.bots.entry(bot.clone()).or_default();
        let snapshot = match look {
            Ok(snapshot) => snapshot,
            Err(error) => {
                source.health.bad(now, error);
                return Vec::new();
            }
        };
        let gap = gap(source, now, life);
        source.health.good(now);
        self.record_github(now, bot, &snapshot.github);
        if let Some(gap) = gap {
            for tracked in self.builds.values_mut().filter(|t| &t.id.key.bot == bot) {
                tracked.shift(now, gap);
            }
        }
        let mut opened = Vec::new();
        let mut seen = BTreeSet::new();
        for (repo, state) in &snapshot.repos {
            for pending in &state.pending {
                let key = BuildKey {
                    bot: bot.clone(),
                    repo: repo.clone(),
                    pull: pending.pull,
                    kind: pending.kind,
                };
                seen.insert(key.clone());
                opened.extend(self.see(now, key, pending));
            }
            self.see_queue(now, bot, repo, &state.approved);
        }
        let gone: Vec<BuildKey> = self
            .builds
            .keys()
            .filter(|key| &key.bot == bot && !seen.contains(*key))
            .cloned()
            .collect();
        for key in gone {
            let how = How::left(&key, snapshot.repos.get(&key.repo));
            self.leave(now, &key, how);
        }
        self.forget_restored(now, bot);
        if let Some(source) = self.bots.get_mut(bot) {
            source.snapshot = Some((now, snapshot));
        }
        opened
    }

    /// Folds in what a silent bot and its GitHub say to one request each.
    pub fn record_knock(&mut self, now: Moment, bot: &BotName, knock: Knock) {
        if knock.is_answered()
            && let Some(source) = self.bots.get_mut(bot)
        {
            source.health.silent_since = None;
        }
        self.record_github(now, bot, &knock.github);
        self.knocked.insert(bot.clone(), (now, knock.github));
    }

    fn record_github(&mut self, now: Moment, bot: &BotName, state: &GithubState) {
        let github = self.githubs.entry(bot.clone()).or_default();
        match state {
            GithubState::NotConfigured => {}
            GithubState::Good(_) => github.good(now),
            GithubState::Failed(error) => github.bad(now, error.clone()),
        }
    }

    /// A restart of a bot had its effect. What of its state lived in its memory only is made anew, and
    /// who could not deliver to it meanwhile tries again: all ages of its builds and queues restart.
    pub fn bot_restarted(&mut self, now: Moment, bot: &BotName) {
        for tracked in self.builds.values_mut().filter(|t| &t.id.key.bot == bot) {
            tracked.restart(now);
            tracked.start_from = now;
        }
        for ((of, _), queue) in &mut self.queues {
            if of == bot {
                queue.idle_since = queue.idle_since.map(|_| now);
                queue.outdated.values_mut().for_each(|since| *since = now);
            }
        }
    }

    /// Folds in a look at a provider.
    pub fn record_provider(
        &mut self,
        now: Moment,
        life: Duration,
        provider: &ProviderName,
        routes: &Routes,
        look: Result<ProviderSnapshot, ProbeError>,
    ) {
        let source = self.providers.entry(provider.clone()).or_default();
        let snapshot = match look {
            Ok(snapshot) => snapshot,
            // A failed probe leaves the last snapshot to age out.
            Err(error) => {
                source.health.bad(now, error);
                return;
            }
        };
        let gap = gap(source, now, life);
        source.health.good(now);
        let pools = &snapshot.pools;
        self.signs.retain(|(of, worker), _| {
            let configured = || pools.values().any(|pool| pool.workers.contains_key(worker));
            of != provider || configured()
        });
        if let Some(gap) = gap {
            let signs = self.signs.iter_mut().filter(|((of, _), _)| of == provider);
            signs.for_each(|(_, sign)| *sign = (*sign + gap).min(now));
        }
        for tracked in self.builds.values_mut().chain(self.left.asked_mut()) {
            let served = tracked
                .pending
                .expectations
                .iter()
                .any(|e| routes.providers(e.system).contains(provider));
            if !served {
                continue;
            }
            if let Some(gap) = gap {
                tracked.shift(now, gap);
            }
            let Some(sha) = tracked.merge_sha.clone() else {
                continue;
            };
            for run in snapshot.runs.iter().filter(|run| run.sha == sha) {
                let gone = run.worker.as_ref().is_some_and(|worker| {
                    snapshot
                        .pools
                        .get(&run.builder)
                        .and_then(|pool| pool.workers.get(worker))
                        .is_none_or(|worker| !worker.connected)
                });
                let goes_on = tracked.see_run(now, run, gone);
                if let (true, Some(worker)) = (goes_on, &run.worker) {
                    let place = (provider.clone(), worker.clone());
                    self.signs.insert(place, now);
                }
            }
            if snapshot.history.get(&sha) == Some(&History::Complete)
                && std::mem::take(&mut tracked.before_unknown)
            {
                tracked.before = tracked.over_at_first_sight();
            }
        }
        if let Some(source) = self.providers.get_mut(provider) {
            source.snapshot = Some((now, snapshot));
        }
    }

    /// Opens a new generation of a build that was seen to be built again although its commit
    /// stayed. Runs that are over do not count in it, unless they are green.
    pub fn open_generation(
        &mut self,
        now: Moment,
        key: &BuildKey,
        cause: SightingCause,
    ) -> Option<Sighting> {
        let tracked = self.builds.get_mut(key)?;
        let over = tracked.clone();
        self.left
            .put(now, over.id.clone(), How::Again(cause), Some(over));
        tracked.id.generation += 1;
        tracked.first_seen = now;
        tracked.start_from = now;
        tracked.before = tracked.over();
        tracked.restart(now);
        Some(Sighting {
            build: tracked.id.clone(),
            merge_sha: tracked.merge_sha.clone(),
            head_sha: tracked.head_sha.clone(),
            at: now,
            cause,
            before: tracked.before.clone(),
        })
    }

    /// Restarts the ages of heartbeats, of silences, and the count of looks, of all builds: we did not
    /// look well.
    pub fn restart_heartbeats(&mut self, now: Moment) {
        for source in self.bots.values_mut() {
            source.health.silent_since = source.health.silent_since.map(|_| now);
        }
        for tracked in self.builds.values_mut() {
            tracked.deaths.clear();
            for run in tracked.runs.values_mut() {
                run.heartbeat = now;
                if run.state == RunState::Preparing {
                    run.state_since = now;
                }
            }
        }
    }

    /// Moves every age of the builds that a zone serves by the time of its outage: in that time
    /// nothing could be expected of it.
    pub fn shift_zone(
        &mut self,
        now: Moment,
        routes: &Routes,
        zone: &(ProviderName, BuilderName),
        gap: Duration,
    ) {
        for tracked in self.builds.values_mut() {
            let served = tracked
                .pending
                .expectations
                .iter()
                .any(|e| e.builder == zone.1 && routes.providers(e.system).contains(&zone.0));
            if served {
                tracked.shift(now, gap);
            }
        }
        let snapshot = self
            .providers
            .get(&zone.0)
            .and_then(|it| it.snapshot.as_ref());
        let pool = snapshot.and_then(|(_, snapshot)| snapshot.pools.get(&zone.1));
        for ((provider, worker), sign) in &mut self.signs {
            if provider == &zone.0 && pool.is_some_and(|pool| pool.workers.contains_key(worker)) {
                *sign = (*sign + gap).min(now);
            }
        }
    }

    /// What a provider must be asked: the commits that are pending and the builders that they lack.
    pub fn questions(&self, provider: &ProviderName, routes: &Routes) -> Vec<Question> {
        let mut questions: BTreeMap<Sha, BTreeSet<BuilderName>> = BTreeMap::new();
        for tracked in self.builds.values().chain(self.left.asked()) {
            let Some(sha) = &tracked.merge_sha else {
                continue;
            };
            for expectation in &tracked.pending.expectations {
                if routes.providers(expectation.system).contains(provider)
                    && lacking(&expectation.told)
                {
                    questions
                        .entry(sha.clone())
                        .or_default()
                        .insert(expectation.builder.clone());
                }
            }
        }
        questions
            .into_iter()
            .map(|(sha, builders)| Question { sha, builders })
            .collect()
    }

    /// Every pending build, in the order of their places.
    pub fn builds(&self) -> impl Iterator<Item = &Tracked> {
        self.builds.values()
    }

    /// The pending build in a place.
    pub fn build(&self, key: &BuildKey) -> Option<&Tracked> {
        self.builds.get(key)
    }

    /// A bot and its last answer.
    pub fn bot(&self, bot: &BotName) -> Option<&Source<BotSnapshot>> {
        self.bots.get(bot)
    }

    /// Every bot.
    pub fn bots(&self) -> impl Iterator<Item = (&BotName, &Source<BotSnapshot>)> {
        self.bots.iter()
    }

    /// The GitHub behind a bot; `None` before the first look at the bot.
    pub fn github(&self, bot: &BotName) -> Option<&SourceHealth> {
        self.githubs.get(bot)
    }

    /// When a bot was last knocked at, and what its GitHub said then.
    pub fn knocked(&self, bot: &BotName) -> Option<&(Moment, GithubState)> {
        self.knocked.get(bot)
    }

    /// A provider and its last answer.
    pub fn provider(&self, provider: &ProviderName) -> Option<&Source<ProviderSnapshot>> {
        self.providers.get(provider)
    }

    /// Every provider.
    pub fn providers(&self) -> impl Iterator<Item = (&ProviderName, &Source<ProviderSnapshot>)> {
        self.providers.iter()
    }

    /// A repository's queue.
    pub fn queue(&self, bot: &BotName, repo: &RepoName) -> Option<&Queue> {
        self.queues.get(&(bot.clone(), repo.clone()))
    }

    /// The commit that was last known for each place of a bot, for adapters whose bot forgets it.
    pub fn remembered(&self, bot: &BotName) -> BTreeMap<BuildKey, Sha> {
        let mut shas = BTreeMap::new();
        for (key, sighting) in &self.restored {
            if let (true, Some(sha)) = (&key.bot == bot, &sighting.merge_sha) {
                shas.insert(key.clone(), sha.clone());
            }
        }
        for (key, tracked) in &self.builds {
            if let (true, Some(sha)) = (&key.bot == bot, &tracked.merge_sha) {
                shas.insert(key.clone(), sha.clone());
            }
        }
        shas
    }

    /// When a run was last seen to go on at a worker, where one was.
    pub fn worker_sign(&self, provider: &ProviderName, worker: &WorkerName) -> Option<Moment> {
        let place = (provider.clone(), worker.clone());
        self.signs.get(&place).copied()
    }

    /// Commits that could hold a start slot of the bot, newest first: those remembered, then those
    /// that the bot's snapshot suspects.
    pub fn slot_suspects(&self, bot: &BotName) -> Vec<Sha> {
        let mut suspects: Vec<Sha> = self.remembered.get(bot).cloned().unwrap_or_default();
        suspects.reverse();
        if let Some((_, snapshot)) = self.bots.get(bot).and_then(|s| s.snapshot.as_ref()) {
            for sha in snapshot.repos.values().flat_map(|repo| &repo.slot_suspects) {
                if !suspects.contains(sha) {
                    suspects.push(sha.clone());
                }
            }
        }
        suspects
    }

    /// Counts a look that found something dead, and gives back the death; `None` where the build
    /// is not pending.
    pub fn count_death(
        &mut self,
        now: Moment,
        key: &BuildKey,
        builder: Option<&BuilderName>,
    ) -> Option<Death> {
        let tracked = self.builds.get_mut(key)?;
        let death = tracked.deaths.entry(builder.cloned()).or_insert(Death {
            looks: 0,
            since: now,
            announced: false,
        });
        death.looks = death.looks.saturating_add(1);
        Some(*death)
    }

    /// Marks a death as told; `true` the first time.
    pub fn announce_death(&mut self, key: &BuildKey, builder: Option<&BuilderName>) -> bool {
        self.builds
            .get_mut(key)
            .and_then(|tracked| tracked.deaths.get_mut(&builder.cloned()))
            .is_some_and(|death| !std::mem::replace(&mut death.announced, true))
    }

    /// Forgets the deaths of something that was seen otherwise; gives back the death where it had
    /// been told already: a false alarm, if what was seen is life.
    pub fn clear_death(&mut self, key: &BuildKey, builder: Option<&BuilderName>) -> Option<Death> {
        let death = self.builds.get_mut(key)?.deaths.remove(&builder.cloned())?;
        death.announced.then_some(death)
    }

    /// Starts the clock of an idle queue, or stops it.
    pub fn mark_idle(&mut self, now: Moment, bot: &BotName, repo: &RepoName, idle: bool) {
        let queue = self.queues.entry((bot.clone(), repo.clone())).or_default();
        if idle {
            queue.idle_since.get_or_insert(now);
        } else {
            queue.idle_since = None;
        }
    }

    fn see(&mut self, now: Moment, key: BuildKey, pending: &PendingBuild) -> Option<Opened> {
        let sha = pending.merge_sha.known().cloned();
        // What was written down as over has left. Where it is pending again, also with the same
        // commit, it began anew.
        let ended = self.ended.contains(&key);
        let opened = match self.builds.get(&key) {
            Some(tracked) if tracked.failed_unseen(pending) => {
                let over = tracked.clone();
                self.left.put(now, over.id.clone(), How::Failed, Some(over));
                let sighting = self.open_generation(now, &key, SightingCause::OthersRerun);
                sighting.map(|sighting| Opened { sighting })
            }
            Some(tracked) => match (&tracked.merge_sha, &sha) {
                (Some(old), Some(new)) if old != new => {
                    let past = tracked.past(now);
                    Some(self.open(now, &key, pending, Some(&past)))
                }
                (None, Some(_)) => {
                    let tracked = self.builds.get_mut(&key)?;
                    Some(tracked.name_commit(now, pending))
                }
                (Some(_) | None, None) | (Some(_), Some(_)) => None,
            },
            None => match self.restored.remove(&key) {
                Some(restored) if !ended && (restored.merge_sha == sha || sha.is_none()) => {
                    self.track(&key, pending, &restored);
                    if let Some(tracked) = self.builds.get_mut(&key)
                        && rebuilt_unseen(pending)
                    {
                        tracked.start_from = now;
                    }
                    None
                }
                Some(restored) if !ended && restored.merge_sha.is_none() => {
                    self.track(&key, pending, &restored);
                    let tracked = self.builds.get_mut(&key)?;
                    Some(tracked.name_commit(now, pending))
                }
                Some(restored) => {
                    self.end_unseen(now, &restored);
                    let past = Past::of_sighting(now, restored);
                    Some(self.open(now, &key, pending, Some(&past)))
                }
                None => {
                    let past = self.past.remove(&key);
                    Some(self.open(now, &key, pending, past.as_ref()))
                }
            },
        };
        if let Some(sha) = &sha {
            self.remember(&key.bot, sha);
        }
        if let Some(tracked) = self.builds.get_mut(&key) {
            tracked.update(now, pending);
        }
        opened
    }

    fn open(
        &mut self,
        now: Moment,
        key: &BuildKey,
        pending: &PendingBuild,
        past: Option<&Past>,
    ) -> Opened {
        let merge_sha = pending.merge_sha.known().cloned();
        let cause = match past {
            None => SightingCause::First,
            Some(past) => match (&past.head_sha, &pending.head_sha) {
                (Some(old), Some(new)) if old != new => SightingCause::NewHead,
                // Where no source tells the head, the careful reading is that it stayed.
                (Some(_) | None, Some(_) | None) => SightingCause::OthersRerun,
            },
        };
        let same_commit = past.is_some_and(|past| past.merge_sha == merge_sha);
        let sighting = Sighting {
            build: BuildId {
                key: key.clone(),
                generation: past.map_or(1, |past| past.generation.saturating_add(1)),
            },
            merge_sha,
            head_sha: pending.head_sha.clone(),
            at: now,
            cause,
            before: match past {
                Some(past) if same_commit => past.runs.clone().unwrap_or_default(),
                Some(_) | None => BTreeSet::new(),
            },
        };
        let over = self.track(key, pending, &sighting);
        if let Some(over) = over {
            self.left
                .put(now, over.id.clone(), How::Again(cause), Some(over));
        }
        let forgotten = past.is_some_and(|past| same_commit && past.runs.is_none());
        if let (true, Some(tracked)) = (forgotten, self.builds.get_mut(key)) {
            tracked.before_unknown = true;
        }
        Opened { sighting }
    }

    /// Begins to track a generation, in place of the one that is given back.
    fn track(
        &mut self,
        key: &BuildKey,
        pending: &PendingBuild,
        sighting: &Sighting,
    ) -> Option<Tracked> {
        self.builds.insert(
            key.clone(),
            Tracked {
                id: sighting.build.clone(),
                merge_sha: sighting.merge_sha.clone(),
                head_sha: sighting.head_sha.clone(),
                first_seen: sighting.at,
                start_from: sighting.at,
                before: sighting.before.clone(),
                before_unknown: false,
                pending: pending.clone(),
                runs: BTreeMap::new(),
                outdated_since: None,
                orphaned_since: None,
                deaths: BTreeMap::new(),
                judged: Verdict::Unknown,
            },
        )
    }

    /// After the first good look at a bot a first sight from the journal is of the past: what was
    /// not pending then has left, and begins anew when it comes back.
    fn forget_restored(&mut self, now: Moment, bot: &BotName) {
        let left: Vec<BuildKey> = self
            .restored
            .keys()
            .filter(|key| &key.bot == bot)
            .cloned()
            .collect();
        for key in left {
            if let Some(sighting) = self.restored.remove(&key) {
                self.end_unseen(now, &sighting);
                self.put_past(key, Past::of_sighting(now, sighting));
            }
        }
        self.ended.retain(|key| &key.bot != bot);
    }

    fn leave(&mut self, now: Moment, key: &BuildKey, how: How) {
        if let Some(tracked) = self.builds.remove(key) {
            self.put_past(key.clone(), tracked.past(now));
            self.left.put(now, tracked.id.clone(), how, Some(tracked));
        }
    }

    /// A generation from the journal ended while nobody looked, if not before.
    fn end_unseen(&mut self, now: Moment, sighting: &Sighting) {
        if !self.ended.remove(&sighting.build.key) {
            self.left
                .put(now, sighting.build.clone(), How::Unseen, None);
        }
    }

    fn put_past(&mut self, key: BuildKey, past: Past) {
        self.past.insert(key, past);
        while self.past.len() > PAST_MAX {
            let oldest = self
                .past
                .iter()
                .min_by_key(|(_, past)| past.at)
                .map(|(key, _)| key.clone());
            match oldest {
                Some(oldest) => self.past.remove(&oldest),
                None => break,
            };
        }
    }

    fn see_queue(
        &mut self,
        now: Moment,
        bot: &BotName,
        repo: &RepoName,
        approved: &[ApprovedPull],
    ) {
        let queue = self.queues.entry((bot.clone(), repo.clone())).or_default();
        let mut outdated = BTreeMap::new();
        for pull in approved {
            if differs(pull.head_sha.as_ref(), &pull.github) {
                let since = queue.outdated.get(&pull.pull).copied().unwrap_or(now);
                outdated.insert(pull.pull, since);
            }
        }
        queue.outdated = outdated;
    }

    fn remember(&mut self, bot: &BotName, sha: &Sha) {
        let shas = self.remembered.entry(bot.clone()).or_default();
        if shas.last() == Some(sha) {
            return;
        }
        shas.retain(|known| known != sha);
        shas.push(sha.clone());
        if shas.len() > REMEMBERED_MAX {
            shas.remove(0);
        }
    }
}

/// The name of a bot as a source.
pub fn bot_source(bot: &BotName) -> SourceName {
    SourceName::new(bot.as_str())
}

/// The name of a provider as a source.
pub fn provider_source(provider: &ProviderName) -> SourceName {
    SourceName::new(provider.as_str())
}

/// The time in which a source did not answer, where a look at it failed since the last good one and
/// that is longer ago than a snapshot may be used. Slow looks alone are no gap.
fn gap<T>(source: &Source<T>, now: Moment, life: Duration) -> Option<Duration> {
    let failing_since = source.health.failing_since?;
    let gap = now.since(source.seen_at().unwrap_or(failing_since));
    (gap > life).then_some(gap)
}

#[cfg(test)]
mod tests;
