//! `ci-watchdog retry`, `reset` and `release-slot`: a repair by hand, and what became of it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::daemon::{self, Said, WayOut, list, text, texts};
use super::explain::PullName;
use super::person::{confirm, name};
use super::repos::RepoPlace;
use super::status::silent_bots;
use super::{
    FAILED, OK, ReleaseSlot, Repair, Reset, Retry, block_on, complain, load, say, say_json,
};
use crate::config::Config;

/// How often the watchdog is asked for the effect.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// How long it is waited for that something was found dead in enough looks.
const LOOKS_PATIENCE: Duration = Duration::from_secs(2 * 60);
/// How long an effect is waited for. The watchdog goes on to wait for it.
const EFFECT_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// One thing to repair: where to ask for it, and what it is called.
struct Errand {
    path: Vec<String>,
    name: String,
}

pub(super) fn retry(arguments: &Retry) -> u8 {
    one_or_all(&arguments.repair, |config| {
        let builds = builds(config)?;
        let build = find(config, &builds, &arguments.pull, arguments.is_try)?;
        Ok(vec![of_build(build, "retry")])
    })
}

pub(super) fn reset(arguments: &Reset) -> u8 {
    one_or_all(&arguments.repair, |config| {
        let builds = builds(config)?;
        let pending = match (&arguments.pull, &arguments.all_pending) {
            (Some(pull), _) => vec![find(config, &builds, pull, arguments.is_try)?],
            (None, Some(place)) => all_of(config, &builds, place)?,
            // The command line asks for the one or the other.
            (None, None) => Vec::new(),
        };
        let errands = pending.into_iter().map(|build| of_build(build, "reset"));
        Ok(errands.collect())
    })
}

pub(super) fn release_slot(arguments: &ReleaseSlot) -> u8 {
    one_or_all(&arguments.repair, |config| {
        let names: Vec<&str> = config.bots.iter().map(|bot| bot.name().as_str()).collect();
        let bot = match (&arguments.bot, names.as_slice()) {
            (Some(bot), _) => bot.clone(),
            (None, [only]) => (*only).to_owned(),
            (None, _) => {
                complain(&format!("name the bot: --bot {}", names.join(" or --bot ")));
                return Err(super::USAGE);
            }
        };
        Ok(vec![Errand {
            path: path(&["api", "v1", "bots", &bot, "release-slot"]),
            name: bot,
        }])
    })
}

fn path(segments: &[&str]) -> Vec<String> {
    segments.iter().map(|it| (*it).to_owned()).collect()
}

fn of_build(build: &Value, verb: &str) -> Errand {
    let kind = if build["try"] == true { " (try)" } else { "" };
    Errand {
        path: path(&["api", "v1", "builds", text(build, "id"), verb]),
        name: format!("{}#{}{kind}", text(build, "repo"), build["pull"]),
    }
}

fn builds(config: &Config) -> Result<Vec<Value>, u8> {
    let builds = block_on(daemon::get(config, &["api", "v1", "builds"]))??;
    Ok(builds.as_array().cloned().unwrap_or_default())
}

/// All pending builds of a repository, oldest first.
fn all_of<'a>(
    config: &Config,
    builds: &'a [Value],
    place: &RepoPlace,
) -> Result<Vec<&'a Value>, u8> {
    let mut pending: Vec<&Value> = builds.iter().filter(|build| place.has(build)).collect();
    pending.sort_by_key(|build| text(build, "first_seen"));
    if pending.is_empty() {
        complain(&format!(
            "nothing is pending in a repository called {:?}; `ci-watchdog status` lists what is{}",
            place.to_string(),
            unread(config)?
        ));
        return Err(FAILED);
    }
    let bots: BTreeSet<&str> = pending.iter().map(|build| text(build, "bot")).collect();
    if bots.len() > 1 {
        return Err(ambiguous(&place.repo, bots));
    }
    Ok(pending)
}

fn ambiguous<'a>(name: &str, bots: impl IntoIterator<Item = &'a str>) -> u8 {
    let bots: Vec<&str> = bots.into_iter().collect();
    complain(&format!(
        "several bots wait for it: name one as BOT/{name}, of {}",
        bots.join(", ")
    ));
    FAILED
}

/// Of which bots nothing can be said, as the end of a sentence.
fn unread(config: &Config) -> Result<String, u8> {
    let status = block_on(daemon::get(config, &["api", "v1", "status"]))??;
    let silent = silent_bots(&status);
    Ok(if silent.is_empty() {
        String::new()
    } else {
        format!(". What {} waits for is not known now", silent.join(", "))
    })
}

/// The pending build of a pull request: its auto build, or the only one that there is.
fn find<'a>(
    config: &Config,
    builds: &'a [Value],
    pull: &PullName,
    is_try: bool,
) -> Result<&'a Value, u8> {
    let of_pull: Vec<&Value> = builds.iter().filter(|build| pull.names(build)).collect();
    let wanted: Vec<&&Value> = of_pull
        .iter()
        .filter(|build| build["try"] == is_try)
        .collect();
    match (wanted.as_slice(), of_pull.as_slice()) {
        ([build], _) => Ok(build),
        ([], [build]) if !is_try => Ok(build),
        ([], _) => {
            let kind = if is_try { "try build" } else { "build" };
            complain(&format!(
                "no bot is known to wait for a {kind} of {pull}; `ci-watchdog explain '{pull}'` \
                 says what is known of it{}",
                unread(config)?
            ));
            Err(FAILED)
        }
        (_, _) => {
            let bots = wanted.iter().map(|build| text(build, "bot"));
            Err(ambiguous(&pull.to_string(), bots))
        }
    }
}

fn one_or_all(repair: &Repair, errands: impl FnOnce(&Config) -> Result<Vec<Errand>, u8>) -> u8 {
    match repaired(repair, errands) {
        Ok(code) | Err(code) => code,
    }
}

/// Asks what would be done, then whether it is meant, then for it, then what became of it.
fn repaired(
    repair: &Repair,
    errands: impl FnOnce(&Config) -> Result<Vec<Errand>, u8>,
) -> Result<u8, u8> {
    let config = load(repair.hand.common.config.as_deref())?;
    let by = name(&repair.hand)?;
    let errands = errands(&config)?;
    let ask = |errand: &Errand, dry_run: bool| {
        let body = json!({
            "by": by, "dry_run": dry_run, "even_if_alive": repair.even_if_alive,
        });
        let path: Vec<&str> = errand.path.iter().map(String::as_str).collect();
        block_on(answer(&config, &path, &body))?
    };
    let json = repair.hand.common.json;
    let mut planned = Vec::new();
    let mut refused = 0;
    for errand in &errands {
        match ask(errand, true)? {
            Said::Done(report) => {
                if !json {
                    say(&plan(errand, &report));
                }
                planned.push((errand, report));
            }
            Said::Refused { why, way_out } => {
                refused += 1;
                complain(&refusal(errand, &why, way_out));
            }
            Said::Unknown(why) => {
                refused += 1;
                complain(&format!("{}: {why}", errand.name));
            }
        }
    }
    if planned.is_empty() {
        return Err(FAILED);
    }
    if repair.hand.dry_run {
        let reports: Vec<&Value> = planned.iter().map(|(_, report)| report).collect();
        return Ok(if json { say_json(&reports) } else { OK }.max(code(refused)));
    }
    let bot = planned
        .first()
        .map_or("the bot", |(_, report)| text(report, "bot"));
    confirm(&repair.hand, &format!("Send this to {bot}?"))?;
    let mut done = Vec::new();
    for (errand, _) in planned {
        match ask(errand, false) {
            Ok(Said::Done(report)) => {
                if !json {
                    say(&sent(errand, &report));
                }
                done.push((errand, report));
            }
            Ok(Said::Refused { why, way_out }) => {
                refused += 1;
                complain(&refusal(errand, &why, way_out));
            }
            Ok(Said::Unknown(why)) => {
                refused += 1;
                complain(&unknown(errand, &why));
            }
            // What was sent before is told of all the same.
            Err(_) => {
                refused += 1;
                complain(&unknown(errand, "no answer"));
            }
        }
    }
    let mut ends = Vec::new();
    for (errand, report) in done {
        let whole = report["stopped"].is_null();
        let end = if repair.no_wait {
            report.clone()
        } else {
            // Where the watchdog cannot be asked any more, nothing is known of its end.
            block_on(effect(&config, &report))?.unwrap_or_default()
        };
        let good = if repair.no_wait {
            whole && accepted(&report)
        } else {
            whole && had_effect(&end)
        };
        refused += usize::from(!good);
        if !json && !repair.no_wait {
            say(&became(errand, &end));
        }
        ends.push(json!({ "report": report, "attempt": end }));
    }
    let told = if json { say_json(&ends) } else { OK };
    Ok(told.max(code(refused)))
}

const fn code(refused: usize) -> u8 {
    if refused == 0 { OK } else { FAILED }
}

fn plan(errand: &Errand, report: &Value) -> String {
    let mut lines = vec![format!(
        "{}: {}; {} sends {}",
        errand.name,
        text(report, "verdict"),
        text(report, "remedy"),
        texts(report, "plan").join(", then ")
    )];
    lines.extend(
        texts(report, "evidence")
            .iter()
            .map(|fact| format!("  {fact}")),
    );
    if let Some(warning) = report["warning"].as_str() {
        lines.push(format!("  WARNING: {warning}"));
    }
    lines.join("\n")
}

fn refusal(errand: &Errand, why: &str, way_out: WayOut) -> String {
    let way_out = match way_out {
        WayOut::Nothing => "",
        WayOut::MeanIt | WayOut::Wait => "; if you mean it all the same, say --even-if-alive",
    };
    format!("{}: refused: {why}{way_out}", errand.name)
}

fn unknown(errand: &Errand, why: &str) -> String {
    format!(
        "{}: not known whether it was begun: {why}; `ci-watchdog history` says what was sent",
        errand.name
    )
}

fn sent(errand: &Errand, report: &Value) -> String {
    let sent: Vec<String> = list(report, "sent")
        .iter()
        .map(|sent| {
            let (step, outcome) = (text(sent, "step"), text(sent, "outcome"));
            match (outcome, text(sent, "detail")) {
                ("accepted", _) => format!("{step} accepted"),
                (_, detail) => format!("{step} {outcome} ({detail})"),
            }
        })
        .collect();
    let stopped = match text(report, "stopped") {
        "" => String::new(),
        why => format!("; the rest was not sent: {why}"),
    };
    format!("{}: {}{stopped}", errand.name, sent.join(", "))
}

/// Asks, and where only some looks are lacking waits for them and asks again.
async fn answer(config: &Config, path: &[&str], body: &Value) -> Result<Said, u8> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let said = daemon::post(config, path, body).await?;
        match &said {
            Said::Refused {
                why,
                way_out: WayOut::Wait,
            } if begun.elapsed() < LOOKS_PATIENCE => {
                if !std::mem::replace(&mut told, true) {
                    complain(&format!("waiting for the next looks: {why}"));
                }
                tokio::time::sleep(ASK_EVERY).await;
            }
            Said::Refused { .. } | Said::Done(_) | Said::Unknown(_) => return Ok(said),
        }
    }
}

/// The attempt once it has ended; as it was last seen where that takes too long.
async fn effect(config: &Config, report: &Value) -> Result<Value, u8> {
    let begun = Instant::now();
    let id = text(report, "attempt");
    loop {
        let attempts = daemon::get(config, &["api", "v1", "attempts"]).await?;
        let attempts = attempts.as_array().map_or(&[][..], Vec::as_slice);
        let attempt = attempts.iter().find(|attempt| text(attempt, "id") == id);
        let over = attempt.is_some_and(|attempt| {
            list(attempt, "steps")
                .iter()
                .all(|step| !step["closing"].is_null())
        });
        if over || begun.elapsed() > EFFECT_PATIENCE {
            return Ok(attempt.cloned().unwrap_or_default());
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Whether its last request was taken.
fn accepted(report: &Value) -> bool {
    let last = list(report, "sent").last();
    last.is_some_and(|sent| text(sent, "outcome") == "accepted")
}

fn had_effect(attempt: &Value) -> bool {
    let last = list(attempt, "steps").last();
    last.is_some_and(|step| matches!(text(step, "closing"), "effect" | "done"))
}

fn became(errand: &Errand, attempt: &Value) -> String {
    let last = list(attempt, "steps").last();
    let word = match last.map(|step| (text(step, "closing"), text(step, "step"))) {
        Some(("effect", _)) => "its effect was seen".to_owned(),
        Some(("done", step)) => format!("done; {step} shows no effect of its own"),
        Some(("no_effect", _)) => "no effect was seen in time".to_owned(),
        Some(("not_sent", _)) => "it was not sent".to_owned(),
        Some(("refused", _)) => "the bot refused it".to_owned(),
        Some((_, _)) => "its effect is still awaited".to_owned(),
        None => "the watchdog does not tell of it any more".to_owned(),
    };
    format!("{}: {word}", errand.name)
}
