//! The command line: arguments, subcommands and exit codes.

mod check_config;
mod daemon;
mod demo;
mod explain;
mod history;
mod order;
mod person;
mod repair;
mod report;
mod repos;
mod run;
mod status;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::{self, Config};

/// It worked.
pub const OK: u8 = 0;
/// It did not; the reason is on standard error.
pub const FAILED: u8 = 1;
/// The arguments are not understood (clap's own code).
pub const USAGE: u8 = 2;
/// The configuration is refused (`EX_CONFIG` of sysexits.h).
pub const CONFIG: u8 = 78;

/// Finds the pending builds of a merge bot that no builder is working on any more, and repairs
/// exactly what was lost.
#[derive(Debug, Parser)]
#[command(
    name = "ci-watchdog",
    version,
    after_help = "Exit codes: 0 it worked, 1 it did not, 2 the arguments are not understood, \
                  78 the configuration is refused."
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch the bots of the configuration, and repair what is stuck (in mode = "act").
    Run(Run),
    /// Read the configuration and report every mistake at once.
    CheckConfig(Common),
    /// What the running watchdog sees: sources, pending builds, holds.
    Status(Common),
    /// What the bot waits for in a pull request, on what evidence, what is held and why, and what
    /// was done.
    Explain(Explain),
    /// What was seen and done, from the journal.
    History(History),
    /// What would have been done against what people did and what became of the builds, from the
    /// journal: to read before mode = "act".
    Report(Report),
    /// Make the bot build a pending pull request again: free its start slot, then retry.
    Retry(Retry),
    /// Put a pending pull request back to approved, with nothing of its build kept; the bot's queue
    /// decides when it is built again.
    Reset(Reset),
    /// Free the bot's start slot of a build that never told of its start.
    ReleaseSlot(ReleaseSlot),
    /// Send nothing by itself for a while; what is asked for by hand is done all the same.
    Pause(Pause),
    /// End a pause, or all of them.
    Resume(Go),
    /// Leave a repository, a pull request or a builder alone until further notice.
    Exclude(Exclude),
    /// End an exclusion, or all of them.
    Include(Go),
    /// A fake bot, CI and GitHub on loopback, broken one after the other, with the real watchdog.
    Demo(Demo),
}

#[derive(Debug, Args)]
struct Common {
    /// The configuration [default: ci-watchdog.toml here, then in /etc/ci-watchdog].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON for programs.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Run {
    /// The configuration [default: ci-watchdog.toml here, then in /etc/ci-watchdog].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How to write the log, on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// What to log, as in RUST_LOG, which this overrides: "debug", "info,ci_watchdog::app=debug".
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    /// For people.
    Text,
    /// One object in each line.
    Json,
}

#[derive(Debug, Args)]
struct Explain {
    /// The pull request: REPO#NUMBER with the repository's label in the bot, or BOT/REPO#NUMBER.
    #[arg(value_name = "REPO#PR")]
    pull: explain::PullName,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct History {
    /// Only this repository, by its label in the bot.
    #[arg(long)]
    repo: Option<String>,
    /// Only this pull request.
    #[arg(long, value_name = "NUMBER")]
    pull: Option<u64>,
    /// Only what is not older, such as 90m, 12h or 7d.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<std::time::Duration>,
    /// At most so many records, the newest.
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
struct Report {
    /// How far back, such as 12h or 7d.
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = humantime::parse_duration)]
    since: std::time::Duration,
    /// Only this repository, by its label in the bot.
    #[arg(long)]
    repo: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What everything that is done by hand has in common.
#[derive(Debug, Args)]
struct ByHand {
    /// Only tell what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Do it without asking, for scripts.
    #[arg(long)]
    yes: bool,
    /// Who asks, for the journal [default: $SUDO_USER, else $USER].
    #[arg(long = "as", value_name = "NAME")]
    by: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// What repairs by hand have in common.
#[derive(Debug, Args)]
struct Repair {
    /// Do it although something of the build may be alive: its work is lost.
    #[arg(long)]
    even_if_alive: bool,
    /// Do not wait for the effect.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    hand: ByHand,
}

#[derive(Debug, Args)]
struct Retry {
    /// The pull request: REPO#NUMBER with the repository's label in the bot, or BOT/REPO#NUMBER.
    #[arg(value_name = "REPO#PR")]
    pull: explain::PullName,
    /// Its try build, where an auto build is pending too.
    #[arg(long = "try")]
    is_try: bool,
    #[command(flatten)]
    repair: Repair,
}

#[derive(Debug, Args)]
struct Reset {
    /// The pull request: REPO#NUMBER with the repository's label in the bot, or BOT/REPO#NUMBER.
    #[arg(
        value_name = "REPO#PR",
        required_unless_present = "all_pending",
        conflicts_with = "all_pending"
    )]
    pull: Option<explain::PullName>,
    /// Every pending build of a repository, by its label in the bot, or BOT/REPO; oldest first, one at
    /// a time.
    #[arg(long, value_name = "REPO")]
    all_pending: Option<repos::RepoPlace>,
    /// Its try build, where an auto build is pending too.
    #[arg(long = "try", conflicts_with = "all_pending")]
    is_try: bool,
    #[command(flatten)]
    repair: Repair,
}

#[derive(Debug, Args)]
struct ReleaseSlot {
    /// The bot, where there are several.
    #[arg(long, value_name = "NAME")]
    bot: Option<String>,
    #[command(flatten)]
    repair: Repair,
}

#[derive(Debug, Args)]
struct Pause {
    /// For how long, such as 30m or 2h; without it until `resume`.
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<std::time::Duration>,
    /// Only this repository, by its label in the bot, or REPO#NUMBER for one pull request of it.
    #[arg(long, value_name = "REPO")]
    repo: Option<order::Place>,
    /// Only this builder.
    #[arg(long)]
    builder: Option<String>,
    /// Why, for the page and the journal.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    hand: ByHand,
}

#[derive(Debug, Args)]
struct Exclude {
    /// The repository, by its label in the bot, or REPO#NUMBER for one pull request of it.
    #[arg(value_name = "REPO", required_unless_present = "builder")]
    repo: Option<order::Place>,
    /// Only this builder.
    #[arg(long)]
    builder: Option<String>,
    /// Why, for the page and the journal.
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    hand: ByHand,
}

#[derive(Debug, Args)]
struct Go {
    /// Only that of exactly this repository, or of REPO#NUMBER; without it, and without a builder, all.
    #[arg(long, value_name = "REPO")]
    repo: Option<order::Place>,
    /// Only that of this builder.
    #[arg(long)]
    builder: Option<String>,
    #[command(flatten)]
    hand: ByHand,
}

#[derive(Debug, Args)]
struct Demo {
    /// Go on after the story until it is interrupted, for a look at the page.
    #[arg(long)]
    keep_running: bool,
    /// How long to wait after the title of each act.
    #[arg(long, value_name = "TIME", default_value = "7s", value_parser = humantime::parse_duration)]
    reading_time: std::time::Duration,
}

/// Parses the arguments and runs the subcommand.
pub fn main() -> ExitCode {
    let Arguments { command } = Arguments::parse();
    let code = match command {
        Command::Run(arguments) => run::main(arguments),
        Command::CheckConfig(arguments) => check_config::main(&arguments),
        Command::Status(arguments) => status::main(&arguments),
        Command::Explain(arguments) => explain::main(&arguments),
        Command::History(arguments) => history::main(&arguments),
        Command::Report(arguments) => report::main(&arguments),
        Command::Retry(arguments) => repair::retry(&arguments),
        Command::Reset(arguments) => repair::reset(&arguments),
        Command::ReleaseSlot(arguments) => repair::release_slot(&arguments),
        Command::Pause(arguments) => order::pause(&arguments),
        Command::Resume(arguments) => order::resume(&arguments),
        Command::Exclude(arguments) => order::exclude(&arguments),
        Command::Include(arguments) => order::include(&arguments),
        Command::Demo(arguments) => demo::main(&arguments),
    };
    ExitCode::from(code)
}

/// Reads the configuration, or says what is wrong with it.
fn load(explicit: Option<&std::path::Path>) -> Result<Config, u8> {
    let path = config::find(explicit).map_err(|missing| {
        complain(&missing.to_string());
        CONFIG
    })?;
    config::load(&path).map_err(|mistakes| {
        complain(&mistakes.to_string());
        CONFIG
    })
}

/// A complaint on standard error.
fn complain(text: &str) {
    use std::io::Write as _;
    // Where standard error cannot be written, the exit code still tells.
    let _ = writeln!(std::io::stderr(), "{}", printable(text));
}

/// A line, or several, on standard output.
fn say(text: &str) {
    write(&printable(text));
}

/// What a terminal does not take for a command: titles, builders and answers come from outside.
fn printable(text: &str) -> String {
    let shown = |c: char| {
        if c.is_control() && c != '\n' {
            char::REPLACEMENT_CHARACTER
        } else {
            c
        }
    };
    text.chars().map(shown).collect()
}

/// Writes to standard output. A reader that went away (`| head`) ends nothing badly.
fn write(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    // Nobody is there to be told that nobody is there.
    let _ = writeln!(out, "{text}");
}

/// Prints a value as JSON.
fn say_json(value: &impl serde::Serialize) -> u8 {
    match serde_json::to_string_pretty(value) {
        Ok(text) => {
            write(&text);
            OK
        }
        Err(error) => {
            complain(&format!("it could not be written as JSON: {error}"));
            FAILED
        }
    }
}

/// Runs a future to its end.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, u8> {
    match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => Ok(runtime.block_on(future)),
        Err(error) => {
            complain(&format!("the runtime could not be started: {error}"));
            Err(FAILED)
        }
    }
}
