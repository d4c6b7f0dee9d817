//! `[journal]`: where the durable record lies, and how long it is kept.

use std::path::PathBuf;
use std::time::Duration;

use crate::decision::policy::Policy;
use crate::keys::Keys;

/// What would be right.
const RIGHT: &str = "write \"sqlite:PATH\", for example \"sqlite:journal.db\"";
/// More than a decade, as humantime counts years, is a typing mistake.
const RETENTION_MAX: Duration = Duration::from_secs(10 * 31_557_600);

/// The journal's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalSettings {
    /// The SQLite database; its folder is there.
    pub path: PathBuf,
    /// How long records are kept; at least [`Policy::PULL_WINDOW`], over which reruns are counted.
    pub retention: Duration,
}

impl JournalSettings {
    /// How long records are kept by default.
    pub const RETENTION: Duration = Duration::from_secs(90 * 24 * 60 * 60);
    /// The database's name by default, beside the configuration file.
    pub const NAME: &'static str = "journal.db";
}

/// Reads `[journal]`; without it the defaults hold. `None` after having told a mistake.
pub(super) fn read(root: &mut Keys<'_>) -> Option<JournalSettings> {
    let usual = JournalSettings {
        path: root.folder().join(JournalSettings::NAME),
        retention: JournalSettings::RETENTION,
    };
    let Some(mut keys) = root.table("journal") else {
        return Some(usual);
    };
    let path = if keys.has("url") {
        path(&mut keys)
    } else {
        Some(usual.path)
    };
    let retention = if keys.has("retention") {
        retention(&mut keys)
    } else {
        Some(usual.retention)
    };
    Some(JournalSettings {
        path: path?,
        retention: retention?,
    })
}

/// The URL is not quoted in any mistake: another kind of journal's may hold a password.
fn path(keys: &mut Keys<'_>) -> Option<PathBuf> {
    let url = keys.string("url")?;
    match sqlite_path(&url).map(|path| keys.folder().join(path)) {
        Ok(path) => {
            let folder = path.parent().filter(|folder| !folder.is_dir());
            if let Some(folder) = folder {
                let message = format!(
                    "the folder {} is not there; make it, or name a file in another",
                    folder.display()
                );
                keys.mistake("url", message);
                return None;
            }
            Some(path)
        }
        Err(message) => {
            keys.mistake("url", message);
            None
        }
    }
}

fn sqlite_path(url: &str) -> Result<&str, String> {
    let Some((scheme, path)) = url.split_once(':') else {
        return Err(format!("does not say what kind of journal it is; {RIGHT}"));
    };
    match scheme {
        "sqlite" => {}
        "postgres" | "postgresql" => {
            return Err(format!(
                "PostgreSQL is not supported by this version; {RIGHT}"
            ));
        }
        _ => return Err(format!("is no kind of journal that there is; {RIGHT}")),
    }
    let absolute = path.starts_with("///");
    if path.starts_with("//") && !absolute {
        return Err("has two slashes, as before a host; write sqlite:PATH without them".to_owned());
    }
    if path.is_empty() || path.ends_with('/') {
        return Err(format!("names no file; {RIGHT}"));
    }
    if path.starts_with(':') {
        return Err(format!(
            "is not kept on disk, and what was done would be forgotten; {RIGHT}"
        ));
    }
    if path.contains(['?', '\0']) {
        return Err(format!("takes no options; {RIGHT}"));
    }
    Ok(if absolute {
        path.trim_start_matches("//")
    } else {
        path
    })
}

fn retention(keys: &mut Keys<'_>) -> Option<Duration> {
    let retention = keys.duration("retention")?;
    if (Policy::PULL_WINDOW..=RETENTION_MAX).contains(&retention) {
        return Some(retention);
    }
    let message = format!(
        "{} does not fit; write at least {}, over which reruns are counted, and at most {}; usual is \"90d\"",
        humantime::format_duration(retention),
        humantime::format_duration(Policy::PULL_WINDOW),
        humantime::format_duration(RETENTION_MAX),
    );
    keys.mistake("retention", message);
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_a_file_of_sqlite() {
        assert_eq!(sqlite_path("sqlite:journal.db"), Ok("journal.db"));
        assert_eq!(sqlite_path("sqlite:/var/lib/j.db"), Ok("/var/lib/j.db"));
        assert_eq!(sqlite_path("sqlite:///var/lib/j.db"), Ok("/var/lib/j.db"));
    }

    #[test]
    fn what_is_no_file_of_sqlite_is_refused_without_being_quoted() {
        let refused = [
            "",
            "journal.db",
            "sqlite:",
            "sqlite::memory:",
            "sqlite:folder/",
            "sqlite://host/j.db",
            "sqlite:j.db?mode=ro",
            "postgres://user:hunter2@host/db",
            "mysql://user:hunter2@host/db",
        ];
        for url in refused {
            let message = sqlite_path(url).unwrap_err();
            assert!(!message.contains("hunter2"), "{message}");
            assert!(message.contains("sqlite:"), "{message}");
        }
    }
}
