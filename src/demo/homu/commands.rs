//! The commands in comments that the fake homu understands (`parse_commands` in homu's `main.py`).

use super::fake::Retried;
use super::pull::Status;
use super::queue::{Failure, Homu, short};
use std::time::Instant;

/// How many retries are remembered; the oldest go first.
const RETRIED_MAX: usize = 1_000;

impl Homu {
    /// Obeys the commands of a comment, and says whether there was any.
    ///
    /// `realtime` is false for comments that are read again later; `sha` is the head that a review
    /// comment was made on.
    pub async fn obey(
        &mut self,
        label: &str,
        number: u64,
        body: &str,
        author: &str,
        realtime: bool,
        sha: &str,
    ) -> Result<bool, Failure> {
        let repo = self.repo(label)?;
        let full_name = repo.full_name();
        if !repo.reviewers.iter().any(|login| login == author) && author != self.login {
            return Ok(false);
        }
        let mention = format!("@{}", self.login);
        let mut words: Vec<&str> = body
            .lines()
            .filter(|line| line.contains(&mention))
            .flat_map(str::split_whitespace)
            .collect();
        let mut obeyed = false;
        // Backwards, and what was understood is no argument of the word before it.
        for index in (0..words.len()).rev() {
            let word = words[index];
            let argument = words.get(index + 1).copied();
            let found = if word == "r+" || word.starts_with("r=") {
                let approver = word.strip_prefix("r=").unwrap_or(author);
                let sha = match argument {
                    Some(argument) if sha.is_empty() => sha_or_nothing(argument),
                    _ => sha,
                };
                self.approve(label, &full_name, number, author, approver, sha, realtime)
                    .await?;
                true
            } else if word == "r-" {
                self.pull(label, number)?.approved_by.clear();
                true
            } else if let Some(priority) = word.strip_prefix("p=") {
                // Without a number it changes nothing, and counts as a command all the same.
                if let Ok(priority) = priority.parse() {
                    self.pull(label, number)?.priority = priority;
                }
                true
            } else if word == "retry" && realtime {
                self.remember_retry(label, number)?;
                self.set_status(label, number, Status::Idle)?;
                true
            } else if (word == "try" || word == "try-") && realtime {
                let pull = self.pull(label, number)?;
                pull.is_try = word == "try";
                pull.merge_sha.clear();
                self.expect(label, number, &[])?;
                true
            } else if word == "rollup" || word == "rollup-" {
                self.pull(label, number)?.rollup = word == "rollup";
                true
            } else if word == "clean" && realtime {
                self.pull(label, number)?.merge_sha.clear();
                self.expect(label, number, &[])?;
                true
            } else {
                false
            };
            if found {
                obeyed = true;
                words[index] = "";
            }
        }
        Ok(obeyed)
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "they are the locals of homu's one function"
    )]
    async fn approve(
        &mut self,
        label: &str,
        full_name: &str,
        number: u64,
        author: &str,
        approver: &str,
        sha: &str,
        realtime: bool,
    ) -> Result<(), Failure> {
        let own = author == self.login;
        let head = self.pull(label, number)?.head_sha.clone();
        if sha.len() >= 4 && head.starts_with(sha) {
            approver.clone_into(&mut self.pull(label, number)?.approved_by);
            return Ok(());
        }
        if !realtime || own {
            return Ok(());
        }
        // An approval of the head as it is goes through a comment of the bot's own, which comes
        // back as a webhook and names the head.
        let comment = if sha.is_empty() {
            format!(
                ":pushpin: Commit {} has been approved by `{approver}`\n\n\
                 <!-- @{} r={approver} {head} -->",
                short(&head),
                self.login
            )
        } else {
            format!(
                ":scream_cat: `{sha}` is not a valid commit SHA. Please try again with `{}`.",
                short(&head)
            )
        };
        Ok(self.github.comment(full_name, number, &comment).await?)
    }

    fn remember_retry(&mut self, label: &str, number: u64) -> Result<(), Failure> {
        let merge_sha = self.pull(label, number)?.merge_sha.clone();
        if self.retried.len() == RETRIED_MAX {
            self.retried.pop_front();
        }
        let at = Instant::now();
        self.retried.push_back(Retried {
            at,
            label: label.to_owned(),
            pull: number,
            merge_sha,
        });
        Ok(())
    }
}

fn sha_or_nothing(word: &str) -> &str {
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if word.bytes().all(hexadecimal) {
        word
    } else {
        ""
    }
}
