//! `ci-watchdog check-config`.

use serde_json::json;

use super::{CONFIG, Common, OK, complain, say, say_json};
use crate::config;

/// Reads the configuration and says what it found.
pub(super) fn main(arguments: &Common) -> u8 {
    let path = match config::find(arguments.config.as_deref()) {
        Ok(path) => path,
        Err(missing) => {
            complain(&missing.to_string());
            return CONFIG;
        }
    };
    match config::load(&path) {
        Ok(config) => {
            if arguments.json {
                return say_json(&json!({ "good": true, "warnings": config.warnings }));
            }
            for warning in &config.warnings {
                complain(&format!("warning: {warning}"));
            }
            let repos: usize = config.bots.iter().map(|bot| bot.repos().len()).sum();
            say(&format!(
                "{}: good; {} with {}, {}, {}",
                path.display(),
                count(config.bots.len(), "bot", "bots"),
                count(repos, "repository", "repositories"),
                count(config.providers.len(), "provider", "providers"),
                count(config.warnings.len(), "warning", "warnings")
            ));
            OK
        }
        Err(mistakes) => {
            if arguments.json {
                let mistakes: Vec<String> =
                    mistakes.to_string().lines().map(str::to_owned).collect();
                say_json(&json!({ "good": false, "mistakes": mistakes }));
            } else {
                complain(&mistakes.to_string());
            }
            CONFIG
        }
    }
}

fn count(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}
