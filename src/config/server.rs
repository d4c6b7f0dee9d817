//! `[server]`: where to listen, and the token that changing endpoints ask for.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::digest::{SHA256, digest};

use crate::keys::{Keys, quoted};
use crate::secret::Secret;

/// Fewer characters could be guessed.
const TOKEN_MIN: usize = 16;
/// More would not fit a request header.
const TOKEN_MAX: usize = 1024;
/// How to make a token file.
const MAKE: &str =
    "make one with: (umask 077; head -c 32 /dev/urandom | base64 > ci-watchdog.token)";

/// The HTTP server's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where to listen; a loopback address. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// What changing endpoints ask for; without it they are off.
    pub token: Option<Token>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 9923)),
            token: None,
        }
    }
}

/// The credential of changing endpoints; `Debug` shows nothing of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(Secret);

impl Token {
    /// Whether this is the token. How long it takes tells nothing about where the two differ.
    pub fn matches(&self, presented: &str) -> bool {
        let ours = digest(&SHA256, self.0.expose().as_bytes());
        let theirs = digest(&SHA256, presented.as_bytes());
        let pairs = ours.as_ref().iter().zip(theirs.as_ref());
        pairs.fold(0, |differs, (ours, theirs)| differs | (ours ^ theirs)) == 0
    }

    /// The token itself, for a command line that sends it to its own daemon.
    pub fn secret(&self) -> &Secret {
        &self.0
    }
}

/// Reads `[server]`; without it the defaults hold. `None` after having told a mistake.
pub(super) fn read(root: &mut Keys<'_>) -> Option<Server> {
    let usual = Server::default();
    let Some(mut keys) = root.table("server") else {
        return Some(usual);
    };
    let listen = if keys.has("listen") {
        listen(&mut keys)
    } else {
        Some(usual.listen)
    };
    let token = if keys.has("token_file") {
        token(&mut keys).map(Some)
    } else {
        Some(None)
    };
    Some(Server {
        listen: listen?,
        token: token?,
    })
}

fn listen(keys: &mut Keys<'_>) -> Option<SocketAddr> {
    let text = keys.string("listen")?;
    let Ok(address) = text.parse::<SocketAddr>() else {
        let message = format!(
            "{} is no address and port; write for example \"{}\"",
            quoted(&text),
            Server::default().listen
        );
        keys.mistake("listen", message);
        return None;
    };
    if !address.ip().to_canonical().is_loopback() {
        let message = format!(
            "{address} can be reached from other machines, and there is no TLS yet, so that tokens \
             would be read on the way; write \"127.0.0.1:{}\", and reach it through ssh or a \
             reverse proxy that speaks TLS",
            address.port()
        );
        keys.mistake("listen", message);
        return None;
    }
    Some(address)
}

fn token(keys: &mut Keys<'_>) -> Option<Token> {
    let path = keys.path("token_file")?;
    match read_token(&path) {
        Ok(token) => Some(token),
        Err(message) => {
            keys.mistake("token_file", format!("{message}; {MAKE}"));
            None
        }
    }
}

fn read_token(path: &Path) -> Result<Token, String> {
    let shown = path.display();
    let (secret, metadata) = Secret::from_file_with_metadata(path)?;
    let mode = metadata.mode() & 0o7777;
    if !matches!(mode, 0o600 | 0o400) {
        return Err(format!(
            "{shown} has mode {mode:04o}, but only its owner may read it (0600)"
        ));
    }
    let us = rustix::process::geteuid().as_raw();
    if metadata.uid() != us {
        return Err(format!(
            "{shown} belongs to user {}, but the daemon runs as user {us}",
            metadata.uid()
        ));
    }
    let token = secret.expose();
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{shown} holds more than one line of visible ASCII characters"
        ));
    }
    if !(TOKEN_MIN..=TOKEN_MAX).contains(&token.len()) {
        return Err(format!(
            "{shown} holds {} characters, not {TOKEN_MIN} to {TOKEN_MAX}",
            token.len()
        ));
    }
    Ok(Token(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_matches() {
        let token = Token(Secret::new("0123456789abcdef"));
        assert!(token.matches("0123456789abcdef"));
        for other in [
            "",
            "0123456789abcde",
            "0123456789abcdeF",
            "0123456789abcdef0",
        ] {
            assert!(!token.matches(other), "{other}");
        }
    }

    #[test]
    fn debug_shows_nothing_of_a_token() {
        let server = Server {
            token: Some(Token(Secret::new("0123456789abcdef"))),
            ..Server::default()
        };
        assert!(!format!("{server:?}").contains("0123"));
    }
}
