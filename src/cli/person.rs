//! Who asks for something by hand, and whether they mean it.

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use super::{ByHand, USAGE, complain};

/// The name of who asks, for the journal.
///
/// # Errors
///
/// Nobody knows it.
pub(super) fn name(hand: &ByHand) -> Result<String, u8> {
    // Under sudo it is the person that counts, not the user whose token is read.
    let named = ["SUDO_USER", "USER", "LOGNAME"].map(|variable| std::env::var(variable).ok());
    let named = named.into_iter().flatten();
    let mut names = hand.by.iter().cloned().chain(named);
    names.find(|name| !name.trim().is_empty()).ok_or_else(|| {
        complain("who asks? The journal keeps it: name yourself with --as NAME");
        USAGE
    })
}

/// Asks on the terminal whether to go on; without one, `--yes` says so.
///
/// # Errors
///
/// They do not mean it, or nobody can be asked.
pub(super) fn confirm(hand: &ByHand, question: &str) -> Result<(), u8> {
    if hand.yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        complain("nothing was done: there is no terminal to ask on; confirm with --yes");
        return Err(USAGE);
    }
    let mut out = std::io::stderr().lock();
    // A terminal that takes no question gives no answer either.
    let _ = write!(out, "{question} [y/N] ");
    let _ = out.flush();
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    let meant = read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes");
    if meant {
        Ok(())
    } else {
        complain("nothing was done");
        Err(super::FAILED)
    }
}
