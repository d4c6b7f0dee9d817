//! A bot and a provider that are read from a configuration and do nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use ci_watchdog::bots::{self, Bot};
use ci_watchdog::config::Kinds;
use ci_watchdog::journal::Permit;
use ci_watchdog::keys::Keys;
use ci_watchdog::model::{
    BotName, BotSnapshot, BuildKey, BuilderName, Outcome, ProbeError, ProbeFailure, ProviderName,
    ProviderSnapshot, Question, RemedyRow, RepoName, Sha, SourceName,
};
use ci_watchdog::providers::{self, Advice, Provider};

/// `kind = "fake"` for both. The fake bot has the repository `servo` with builders `linux` and `mac`.
pub const FAKE: Kinds<'static> = Kinds {
    bots: &[bots::Kind {
        name: "fake",
        connect: fake_bot,
    }],
    providers: &[providers::Kind {
        name: "fake",
        connect: fake_provider,
    }],
};

struct FakeBot(BotName);

struct FakeProvider {
    name: ProviderName,
    url: String,
}

fn fake_bot(name: BotName, _: &mut Keys<'_>) -> Option<Box<dyn Bot>> {
    Some(Box::new(FakeBot(name)))
}

fn fake_provider(name: ProviderName, keys: &mut Keys<'_>, _: &Advice) -> Option<Box<dyn Provider>> {
    if !keys.has("url") {
        keys.mistake("url", "is missing; write the address");
    }
    let url = keys.url("url");
    keys.string("username");
    keys.secret("password");
    keys.path("ca");
    Some(Box::new(FakeProvider {
        name,
        url: url?.to_string(),
    }))
}

impl Bot for FakeBot {
    fn name(&self) -> &BotName {
        &self.0
    }

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn github(&self) -> SourceName {
        SourceName::new(format!("{}.github", self.0))
    }

    fn repos(&self) -> BTreeMap<RepoName, Vec<BuilderName>> {
        let builders = ["linux", "mac"].map(BuilderName::new);
        BTreeMap::from([(RepoName::new("servo"), builders.to_vec())])
    }

    fn own_timeout(&self, _: &RepoName) -> Option<Duration> {
        None
    }

    fn observe<'a>(
        &'a self,
        _: &'a BTreeMap<BuildKey, Sha>,
    ) -> bots::BoxFuture<'a, Result<BotSnapshot, ProbeError>> {
        Box::pin(async { Err(silent()) })
    }

    fn rows(&self) -> &[RemedyRow] {
        &[]
    }

    fn send<'a>(&'a self, _: Permit) -> bots::BoxFuture<'a, Outcome> {
        Box::pin(async { Outcome::NotSent("a fake sends nothing".to_owned()) })
    }
}

impl Provider for FakeProvider {
    fn name(&self) -> &ProviderName {
        &self.name
    }

    fn kind(&self) -> &'static str {
        "fake"
    }

    fn url(&self) -> &str {
        &self.url
    }

    fn observe<'a>(
        &'a self,
        _: &'a [Question],
    ) -> providers::BoxFuture<'a, Result<ProviderSnapshot, ProbeError>> {
        Box::pin(async { Err(silent()) })
    }
}

fn silent() -> ProbeError {
    ProbeError::new(
        ProbeFailure::Partial,
        "a fake has nothing to say".to_owned(),
    )
}
