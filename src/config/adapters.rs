//! `[[bot]]` and `[[provider]]`: their names and kinds; but for a bot's `restart`, the rest of each
//! table is its adapter's.

use std::collections::BTreeMap;

use crate::bots::{Bot, KnownCi};
use crate::keys::Keys;
use crate::model::{BotName, ProviderName};
use crate::providers::{Advice, Advised, Provider};

use super::Kinds;

/// The longest name, characters; names are labels of metrics.
const NAME_MAX: usize = 64;

/// Everything that is probed or acted on.
pub(super) struct Adapters<'a> {
    pub bots: Vec<Box<dyn Bot>>,
    pub providers: Vec<Box<dyn Provider>>,
    /// The tables `restart` of bots, which are read once the policy is known.
    pub restarts: Vec<(BotName, Keys<'a>)>,
    /// Whether every `[[bot]]` of the file is in `bots`.
    pub complete: bool,
}

/// Reads all bots and providers; what could not be made of a table was told as a mistake.
pub(super) fn read<'a>(root: &mut Keys<'a>, kinds: Kinds<'_>) -> Adapters<'a> {
    let mut names = Names::default();
    let mut restarts = Vec::new();
    let (bots, complete) = bots(root, kinds, &mut names, &mut restarts);
    let providers = providers(root, kinds, &mut names, &Known::of(&bots, complete));
    Adapters {
        bots,
        providers,
        restarts,
        complete,
    }
}

fn bots<'a>(
    root: &mut Keys<'a>,
    kinds: Kinds<'_>,
    names: &mut Names,
    restarts: &mut Vec<(BotName, Keys<'a>)>,
) -> (Vec<Box<dyn Bot>>, bool) {
    let choices: Vec<_> = kinds.bots.iter().map(|kind| (kind.name, kind)).collect();
    let tables = root.tables("bot");
    if tables.is_empty() && !root.told("bot") {
        let message = format!(
            "there is none, so that there is nothing to watch; write a table [[bot]] with name and kind = {}",
            words(&choices)
        );
        root.mistake("bot", message);
    }
    let all = tables.len();
    let mut bots = Vec::new();
    for mut keys in tables {
        let name = BotName::new(names.read(&mut keys));
        // Whatever the kind of bot, its process can be restarted.
        let restart = keys.table("restart");
        restarts.extend(restart.map(|restart| (name.clone(), restart)));
        let Some(kind) = kind(&mut keys, &choices) else {
            continue;
        };
        let Some(bot) = (kind.connect)(name, &mut keys) else {
            continue;
        };
        // The GitHub behind a bot is a source of its own.
        names.take(bot.github().as_str());
        bots.push(bot);
    }
    let complete = bots.len() == all;
    (bots, complete)
}

fn providers(
    root: &mut Keys<'_>,
    kinds: Kinds<'_>,
    names: &mut Names,
    known: &Known,
) -> Vec<Box<dyn Provider>> {
    let choices: Vec<_> = kinds
        .providers
        .iter()
        .map(|kind| (kind.name, kind))
        .collect();
    let tables = root.tables("provider");
    if tables.is_empty() && !root.told("provider") {
        let message = format!(
            "there is none, so that every build stays unknown and nothing is repaired; write a table [[provider]] with name and kind = {}",
            words(&choices)
        );
        root.warning("provider", message);
    }
    let mut providers = Vec::new();
    for mut keys in tables {
        let name = names.read(&mut keys);
        let Some(kind) = kind(&mut keys, &choices) else {
            continue;
        };
        let advice = known.advice(kind.name);
        providers.extend((kind.connect)(ProviderName::new(name), &mut keys, &advice));
    }
    providers
}

fn kind<T: Copy>(keys: &mut Keys<'_>, choices: &[(&str, T)]) -> Option<T> {
    let kind = if keys.has("kind") {
        keys.choice("kind", choices)
    } else {
        keys.mistake("kind", format!("is missing; write {}", words(choices)));
        None
    };
    if kind.is_none() {
        // Which keys belong to the table, only its kind knows.
        keys.give_up();
    }
    kind
}

fn words<T>(choices: &[(&str, T)]) -> String {
    let words: Vec<String> = choices
        .iter()
        .map(|(word, _)| format!("\"{word}\""))
        .collect();
    words.join(" or ")
}

/// What the bots' own configurations tell of CI systems.
struct Known {
    systems: Vec<KnownCi>,
    /// Whether every bot of the file is asked.
    complete: bool,
}

impl Known {
    fn of(bots: &[Box<dyn Bot>], complete: bool) -> Self {
        Self {
            systems: bots.iter().flat_map(|bot| bot.known_ci()).collect(),
            complete,
        }
    }

    /// What is known of systems of one kind, which has the same name as a provider's.
    fn advice(&self, kind: &str) -> Advice {
        let mut advice = Advice {
            incomplete: !self.complete,
            ..Advice::default()
        };
        for known in self.systems.iter().filter(|it| it.system.as_str() == kind) {
            let place = known.place.clone();
            let Some(url) = &known.url else {
                advice.without.push(place);
                continue;
            };
            match advice.systems.iter_mut().find(|it| it.is_at(url)) {
                Some(same) => {
                    same.places.push(place);
                    same.login = same.login.take().or_else(|| known.login.clone());
                }
                None => advice.systems.push(Advised {
                    url: url.clone(),
                    login: known.login.clone(),
                    places: vec![place],
                }),
            }
        }
        advice
    }
}

/// The names that are taken, over bots, the GitHub behind each, and providers alike: all are
/// sources, and one name must not stand for two.
#[derive(Default)]
struct Names {
    taken: BTreeMap<String, usize>,
}

impl Names {
    /// Reads the name of a table. A wrong one is told, and read on with, so that the mistakes of
    /// the rest of the table are found at once.
    fn read(&mut self, keys: &mut Keys<'_>) -> String {
        const RIGHT: &str = "write 1 to 64 letters, digits, `.`, `_` or `-`";
        let Some(name) = keys.required_string("name", RIGHT) else {
            return "unnamed".to_owned();
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.len() > NAME_MAX || !name.chars().all(fits) {
            keys.mistake("name", format!("does not fit; {RIGHT}"));
        } else if self.taken.contains_key(&name) {
            keys.mistake("name", format!("\"{name}\" is taken already; write another, names are unique over all bots and providers"));
        }
        self.take(&name);
        name
    }

    fn take(&mut self, name: &str) {
        *self.taken.entry(name.to_owned()).or_default() += 1;
    }
}
