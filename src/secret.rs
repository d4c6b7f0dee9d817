//! A secret that no `Debug`, log or error can show.

use std::fmt;
use std::fs::{Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The largest file that is read as a secret, bytes; a chain of certificates stays below it.
const FILE_MAX: u64 = 64 << 10;

/// A token, password or key. It has no `Display` and no `Serialize`; its `Debug` is `Secret(…)`.
///
/// ```compile_fail
/// println!("{}", ci_watchdog::secret::Secret::new("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret as it was read.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The secret itself, for the request that needs it and for nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file; a newline at its end is dropped.
    ///
    /// # Errors
    ///
    /// What is wrong with the file and what would be right, without any of its contents.
    pub fn from_file(path: &Path) -> Result<Self, String> {
        Self::from_file_with_metadata(path).map(|(secret, _)| secret)
    }

    /// Like [`Secret::from_file`], with the metadata of the very file that was read.
    ///
    /// # Errors
    ///
    /// As [`Secret::from_file`].
    pub fn from_file_with_metadata(path: &Path) -> Result<(Self, Metadata), String> {
        let shown = path.display();
        let cannot = |error: std::io::Error| format!("{shown} cannot be read: {error}");
        // Opening a pipe must not wait for its writer.
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nonblocking)
            .open(path)
            .map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(format!(
                "{shown} is not a regular file; name one that holds the secret"
            ));
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(cannot)?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(format!(
                "{shown} is larger than {FILE_MAX} bytes; name a file that holds only the secret"
            ));
        }
        let text = String::from_utf8(bytes).map_err(|_| {
            format!("{shown} is not UTF-8; name a file that holds the secret as text")
        })?;
        Self::trimmed(&text)
            .map(|secret| (secret, metadata))
            .ok_or_else(|| format!("{shown} is empty; write the secret into it"))
    }

    /// Reads a secret from an environment variable; a newline at its end is dropped.
    ///
    /// # Errors
    ///
    /// What is wrong with the variable, without its value, and without its name: that may be the
    /// secret itself, written in the wrong place.
    pub fn from_variable(name: &str) -> Result<Self, String> {
        match std::env::var(name) {
            Ok(value) => Self::trimmed(&value).ok_or_else(|| {
                "the environment variable is empty; set it to the secret".to_owned()
            }),
            Err(std::env::VarError::NotPresent) => Err(
                "the environment variable is not set; set it for the daemon, or write { file = \"…\" }"
                    .to_owned(),
            ),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err("the environment variable is not UTF-8; set it to text".to_owned())
            }
        }
    }

    fn trimmed(text: &str) -> Option<Self> {
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        (!text.trim().is_empty()).then(|| Self::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_a_secret() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?}"), "Secret(…)");
        assert_eq!(format!("{:#?}", Some(&secret)), "Some(\n    Secret(…),\n)");
        assert_eq!(secret.expose(), "hunter2");
    }
}
