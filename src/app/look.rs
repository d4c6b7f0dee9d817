//! Looks at every source, each with a deadline, and takes what they saw to the core.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::{App, PROBE_DEADLINE};
use crate::decision::health::Tick;
use crate::model::{
    BotName, BotSnapshot, GithubState, Knock, Moment, ProbeError, ProbeFailure, ProviderName,
    ProviderSnapshot,
};
use crate::report::{Event, SourceRole};

/// One look at one source.
pub(super) struct Looked<N, T> {
    name: N,
    kind: &'static str,
    github: String,
    took: Duration,
    look: Result<T, ProbeError>,
}

pub(super) type LookedAtBot = Looked<BotName, BotSnapshot>;
pub(super) type LookedAtProvider = Looked<ProviderName, ProviderSnapshot>;

impl App {
    /// Looks at all bots at once, or at one.
    pub(super) async fn look_at_bots(
        &mut self,
        only: Option<&BotName>,
    ) -> (Vec<LookedAtBot>, Option<Duration>) {
        let looks = self
            .bots
            .iter()
            .filter(|bot| only.is_none_or(|only| only == bot.name()))
            .map(|bot| async {
                let remembered = self.core.remembered(bot.name());
                let begun = Instant::now();
                let look = within(bot.observe(&remembered)).await;
                Looked {
                    name: bot.name().clone(),
                    kind: bot.kind(),
                    github: bot.github().to_string(),
                    took: begun.elapsed(),
                    look,
                }
            });
        let looked = join_all(looks).await;
        let slack = self.policy().lateness_max();
        (looked, self.advance(PROBE_DEADLINE, slack))
    }

    /// Knocks at the bots whose restart is near, or at one of them.
    pub(super) async fn knock(&mut self, now: Moment, only: Option<&BotName>) -> Option<Duration> {
        let near = self.bots.iter().filter(|bot| {
            only.is_none_or(|only| only == bot.name()) && self.core.restart_is_near(bot.name(), now)
        });
        let knocks: Vec<_> = near
            .map(|bot| async {
                let begun = Instant::now();
                let knock = tokio::time::timeout(PROBE_DEADLINE, bot.knock()).await;
                let knock = knock.unwrap_or_else(|_| {
                    let error = too_slow();
                    Knock {
                        bot: Err(error.clone()),
                        github: GithubState::Failed(error),
                    }
                });
                let github = bot.github().to_string();
                (bot.name().clone(), github, begun.elapsed(), knock)
            })
            .collect();
        if knocks.is_empty() {
            return None;
        }
        self.shared.go_on();
        let knocks = join_all(knocks).await;
        self.shared.go_on();
        for (bot, github, took, knock) in knocks {
            if knock.is_answered() {
                tracing::warn!(%bot, "it does not answer as it should, and does answer: it is not restarted");
            }
            self.note_github(&github, &knock.github, took);
            self.core.record_knock(now, &bot, knock);
        }
        let slack = self.policy().lateness_max();
        self.advance(PROBE_DEADLINE, slack)
    }

    /// Looks at all providers at once.
    pub(super) async fn look_at_providers(&mut self) -> (Vec<LookedAtProvider>, Option<Duration>) {
        let looks = self.providers.iter().map(|provider| async {
            let questions = self.core.questions(provider.name());
            let begun = Instant::now();
            let look = within(provider.observe(&questions)).await;
            Looked {
                name: provider.name().clone(),
                kind: provider.kind(),
                github: String::new(),
                took: begun.elapsed(),
                look,
            }
        });
        let looked = join_all(looks).await;
        let slack = self.policy().lateness_max();
        (looked, self.advance(PROBE_DEADLINE, slack))
    }

    /// Takes looks at bots to the core, and writes down what they saw for the first time.
    pub(super) fn take_bots(&mut self, now: Moment, looked: Vec<LookedAtBot>, tick: &mut Tick) {
        for look in looked {
            self.count(
                tick,
                &look.name.to_string(),
                SourceRole::Bot,
                look.kind,
                look.took,
                look.look.as_ref().err(),
            );
            if let Ok(snapshot) = &look.look {
                self.note_github(&look.github, &snapshot.github, look.took);
            }
            let sightings = self.core.record_bot(now, &look.name, look.look);
            for sighting in sightings {
                self.sight(sighting);
            }
        }
    }

    /// Takes looks at providers to the core.
    pub(super) fn take_providers(
        &mut self,
        now: Moment,
        looked: Vec<LookedAtProvider>,
        tick: &mut Tick,
    ) {
        for look in looked {
            self.count(
                tick,
                &look.name.to_string(),
                SourceRole::Provider,
                look.kind,
                look.took,
                look.look.as_ref().err(),
            );
            self.core.record_provider(now, &look.name, look.look);
        }
    }

    fn count(
        &mut self,
        tick: &mut Tick,
        source: &str,
        role: SourceRole,
        kind: &'static str,
        took: Duration,
        error: Option<&ProbeError>,
    ) {
        match error {
            None => tick.good += 1,
            Some(_) => tick.bad += 1,
        }
        self.note_source(source, role, kind, took, error);
    }

    fn note_github(&mut self, source: &str, state: &GithubState, took: Duration) {
        let error = match state {
            GithubState::NotConfigured => return,
            GithubState::Good(_) => None,
            GithubState::Failed(error) => Some(error),
        };
        self.note_source(source, SourceRole::Github, "github", took, error);
    }

    fn note_source(
        &mut self,
        source: &str,
        role: SourceRole,
        kind: &'static str,
        took: Duration,
        error: Option<&ProbeError>,
    ) {
        let good = error.is_none();
        if self.told.sources.insert(source.to_owned(), good) != Some(good) {
            match error {
                None => tracing::info!(kind, "{source} answers"),
                Some(error) => {
                    tracing::warn!(kind, failure = %error.failure, "{source} does not answer: {}", error.detail);
                }
            }
        }
        if good {
            self.successes.insert(source.to_owned(), self.clock.wall());
        }
        self.events.push(Event::Probed {
            source: source.to_owned(),
            role,
            kind,
            took,
            failure: error.map(|error| error.failure),
        });
    }
}

/// A look within the deadline of a whole look.
async fn within<T>(look: impl Future<Output = Result<T, ProbeError>>) -> Result<T, ProbeError> {
    match tokio::time::timeout(PROBE_DEADLINE, look).await {
        Ok(look) => look,
        Err(_) => Err(too_slow()),
    }
}

fn too_slow() -> ProbeError {
    ProbeError::new(
        ProbeFailure::Timeout,
        format!(
            "the whole look took longer than {} s",
            PROBE_DEADLINE.as_secs()
        ),
    )
}
