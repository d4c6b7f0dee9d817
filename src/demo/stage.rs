//! Where the story plays: it waits for what is to come, and tells what happens meanwhile.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::sent::{self, Sent};
use super::town::{BOT, Town, full_name};
use super::watchdog::Watchdog;

/// How often the stage looks around.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long anything in the story may take.
const PATIENCE: Duration = Duration::from_secs(40);
/// How long after an act a message that does not belong to it would come.
const AFTER: Duration = Duration::from_millis(1_500);
/// The longest line, characters; evidence goes on in the next.
const LINE_MAX: usize = 96;
/// Pull requests whose comments are told; the oldest go first.
const CAST_MAX: usize = 8;
/// Messages remembered of an act; the oldest go first.
const HEARD_MAX: usize = 1_000;

/// Takes the lines of the story.
pub type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// What was waited for and did not come; the story cannot go on from here.
#[derive(Debug)]
pub struct DidNotCome(pub String);

impl fmt::Display for DidNotCome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} did not come within {} s", self.0, PATIENCE.as_secs())
    }
}

/// A message of the watchdog, and when homu received it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// When.
    pub at: Instant,
    /// What.
    pub sent: Sent,
}

/// The fakes, the watchdog, and what was told of them.
pub struct Stage {
    /// The fakes.
    pub town: Town,
    watchdog: Watchdog,
    tell: Tell,
    reading_time: Duration,
    begun: Instant,
    /// The pull requests of this act.
    cast: VecDeque<(&'static str, u64)>,
    /// The messages of this act.
    heard: VecDeque<Heard>,
    heard_until: u64,
    verdicts: BTreeMap<String, String>,
    comments: BTreeMap<(&'static str, u64), usize>,
}

impl Stage {
    /// A stage whose clock begins now.
    pub fn new(town: Town, watchdog: Watchdog, tell: Tell, reading_time: Duration) -> Self {
        Self {
            town,
            watchdog,
            tell,
            reading_time,
            begun: Instant::now(),
            cast: VecDeque::new(),
            heard: VecDeque::new(),
            heard_until: 0,
            verdicts: BTreeMap::new(),
            comments: BTreeMap::new(),
        }
    }

    /// The watchdog.
    pub fn watchdog(&self) -> &Watchdog {
        &self.watchdog
    }

    /// Ends the play and hands back the watchdog.
    pub fn into_watchdog(self) -> Watchdog {
        self.watchdog
    }

    /// How long it has played.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Tells a line, with the time on the clock.
    pub fn say(&self, who: &str, line: &str) {
        let seconds = self.begun.elapsed().as_secs_f64();
        (self.tell)(&format!("{seconds:6.1}s  {who:<8}  {line}"));
    }

    /// Tells a line without a clock.
    pub fn title(&self, line: &str) {
        (self.tell)(line);
    }

    /// Begins an act, and leaves time to read its title. What was sent before belongs to the act
    /// before.
    pub async fn begin(&mut self, title: &str) {
        self.title("");
        self.title(title);
        self.cast.clear();
        self.heard.clear();
        self.pass(self.reading_time).await;
    }

    /// Opens a pull request and waits until homu knows it.
    ///
    /// # Errors
    ///
    /// [`DidNotCome`].
    pub async fn open(&mut self, label: &'static str, title: &str) -> Result<u64, DidNotCome> {
        let opened = self.town.open(label, title);
        let pull = opened.map_err(|error| DidNotCome(format!("{label}: {error}")))?;
        if self.cast.len() == CAST_MAX {
            self.cast.pop_front();
        }
        self.cast.push_back((label, pull));
        let homu = self.town.homu.clone();
        self.until(&format!("{label}#{pull} in homu's queue"), async || {
            homu.pull(label, pull).await.is_some()
        })
        .await?;
        Ok(pull)
    }

    /// Approves a pull request, waits until its build is pending, and returns its merge SHA.
    ///
    /// # Errors
    ///
    /// [`DidNotCome`].
    pub async fn approve(&mut self, label: &'static str, pull: u64) -> Result<String, DidNotCome> {
        self.ask(label, pull)?;
        self.pending(label, pull, "").await
    }

    /// Approves a pull request, whatever comes of it.
    ///
    /// # Errors
    ///
    /// [`DidNotCome`] if there is no such pull request.
    pub fn ask(&mut self, label: &str, pull: u64) -> Result<(), DidNotCome> {
        let said = self.town.approve(label, pull);
        said.map_err(|error| DidNotCome(format!("{label}#{pull}: {error}")))?;
        self.say("people", &format!("approve {label}#{pull}"));
        Ok(())
    }

    /// Waits until a build is pending on another commit than `before`.
    ///
    /// # Errors
    ///
    /// [`DidNotCome`].
    pub async fn pending(
        &mut self,
        label: &'static str,
        pull: u64,
        before: &str,
    ) -> Result<String, DidNotCome> {
        let homu = self.town.homu.clone();
        let mut found = String::new();
        self.until(&format!("a new build of {label}#{pull}"), async || {
            let Some(state) = homu.pull(label, pull).await else {
                return false;
            };
            let there = state.shown_status() == "pending" && state.merge_sha != before;
            if there {
                found = state.merge_sha;
            }
            there
        })
        .await?;
        Ok(found)
    }

    /// Waits until a pull request is merged.
    ///
    /// # Errors
    ///
    /// [`DidNotCome`].
    pub async fn merged(&mut self, label: &'static str, pull: u64) -> Result<(), DidNotCome> {
        let town = self.town.clone();
        self.until(&format!("the merge of {label}#{pull}"), async || {
            // Until homu has heard of it too, its comments are not all there.
            town.is_merged(label, pull) && town.homu.pull(label, pull).await.is_none()
        })
        .await?;
        self.say("github", &format!("{label}#{pull} is merged"));
        Ok(())
    }

    /// Waits until homu heard a message of this kind, and returns when it did.
    ///
    /// # Errors
    ///
    /// [`DidNotCome`].
    pub async fn hears(&mut self, word: &str) -> Result<Instant, DidNotCome> {
        let begun = Instant::now();
        loop {
            if let Some(heard) = self.heard.iter().find(|heard| heard.sent.word() == word) {
                return Ok(heard.at);
            }
            self.wait(begun, &format!("the watchdog's {word}")).await?;
        }
    }

    /// Waits until the watchdog judges a pull request's build so.
    ///
    /// # Errors
    ///
    /// [`DidNotCome`].
    pub async fn judged(
        &mut self,
        label: &str,
        pull: u64,
        verdict: &str,
    ) -> Result<(), DidNotCome> {
        let begun = Instant::now();
        let name = format!("{label}#{pull}");
        while self
            .verdicts
            .get(&name)
            .is_none_or(|known| known != verdict)
        {
            self.wait(begun, &format!("the verdict {verdict} on {name}"))
                .await?;
        }
        Ok(())
    }

    /// Waits until something holds, and tells what happens meanwhile.
    ///
    /// # Errors
    ///
    /// [`DidNotCome`].
    pub async fn until(
        &mut self,
        what: &str,
        mut holds: impl AsyncFnMut() -> bool,
    ) -> Result<(), DidNotCome> {
        let begun = Instant::now();
        while !holds().await {
            self.wait(begun, what).await?;
        }
        self.look().await;
        Ok(())
    }

    /// Lets time pass, and tells what happens meanwhile.
    pub async fn pass(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time {
            tokio::time::sleep(LOOK_EVERY.min(time)).await;
            self.look().await;
        }
    }

    /// Ends an act: waits for stragglers, and returns the messages that homu heard in it.
    pub async fn end(&mut self) -> Vec<Heard> {
        self.pass(AFTER).await;
        self.heard.iter().cloned().collect()
    }

    async fn wait(&mut self, begun: Instant, what: &str) -> Result<(), DidNotCome> {
        if begun.elapsed() > PATIENCE {
            return Err(DidNotCome(what.to_owned()));
        }
        tokio::time::sleep(LOOK_EVERY).await;
        self.look().await;
        Ok(())
    }

    /// Tells what is new: homu's comments, the watchdog's verdicts, its messages.
    async fn look(&mut self) {
        self.look_at_verdicts().await;
        for received in self.town.homu.requests_since(self.heard_until) {
            self.heard_until = received.number + 1;
            if let Some(sent) = sent::read(&received) {
                self.say("watchdog", &format!("-> homu: {sent}"));
                if self.heard.len() == HEARD_MAX {
                    self.heard.pop_front();
                }
                self.heard.push_back(Heard {
                    at: received.at,
                    sent,
                });
            }
        }
        for (label, pull) in self.cast.clone() {
            let comments = self.town.github.comments(&full_name(label), pull);
            let told = self.comments.entry((label, pull)).or_default();
            let new = comments
                .iter()
                .skip(std::mem::replace(told, comments.len()));
            let words: Vec<String> = new
                .filter(|comment| comment.author == BOT)
                .filter_map(|comment| spoken(&comment.body))
                .collect();
            for words in words {
                self.say("homu", &format!("{label}#{pull}: {words}"));
            }
        }
    }

    async fn look_at_verdicts(&mut self) {
        // A watchdog that does not answer is no story of its own: what was waited for will not come.
        let Ok(Value::Array(builds)) = self.watchdog.read("api/v1/builds").await else {
            return;
        };
        for build in &builds {
            let (Some(repo), Some(pull), Some(verdict)) = (
                build["repo"].as_str(),
                build["pull"].as_u64(),
                build["verdict"].as_str(),
            ) else {
                continue;
            };
            let name = format!("{repo}#{pull}");
            let known = self.verdicts.insert(name.clone(), verdict.to_owned());
            if known.as_deref() == Some(verdict) {
                continue;
            }
            self.say("watchdog", &format!("{name} is {verdict}"));
            if let Some(reason) = because(build, verdict) {
                for line in lines(&reason) {
                    self.title(&format!("{:19}  {line}", ""));
                }
            }
        }
    }
}

/// The evidence for a build's verdict, where somebody would ask for it.
fn because(build: &Value, verdict: &str) -> Option<String> {
    if ["alive", "starting", "reported"].contains(&verdict) {
        return None;
    }
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let clauses = |value: &Value| -> Vec<String> {
        let texts = list(&value["evidence"]);
        texts
            .iter()
            .filter_map(|text| Some(without_links(text.as_str()?)))
            .collect()
    };
    let of_one = list(&build["expectations"])
        .into_iter()
        .find(|expectation| expectation["verdict"] == verdict);
    let (who, clauses) = match &of_one {
        Some(expectation) => (expectation["builder"].as_str(), clauses(expectation)),
        None => (None, clauses(build)),
    };
    let who = who
        .map(|builder| format!("{builder}: "))
        .unwrap_or_default();
    (!clauses.is_empty()).then(|| format!("{who}{}", clauses.join(", ")))
}

/// The text without links in parentheses.
fn without_links(text: &str) -> String {
    let mut short = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once(" (http") {
        short.push_str(before);
        rest = link.split_once(')').map_or("", |(_, after)| after);
    }
    short + rest
}

/// What a comment says to people: its first line without the picture before it and without links.
fn spoken(comment: &str) -> Option<String> {
    let line = comment.lines().next()?;
    let line = match line.split_once(": ") {
        Some((picture, rest)) if picture.starts_with(':') => rest,
        Some(_) | None => line,
    };
    let words = line.split(" - [").next().unwrap_or(line);
    Some(cut(words))
}

/// The text in lines of whole words.
fn lines(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
                continue;
            }
            if line.chars().count() + 1 + word.chars().count() <= LINE_MAX - 20 {
                line.push(' ');
                line.push_str(word);
                continue;
            }
        }
        lines.push(word.to_owned());
    }
    lines
}

fn cut(line: &str) -> String {
    if line.chars().count() <= LINE_MAX {
        return line.to_owned();
    }
    let head: String = line.chars().take(LINE_MAX - 3).collect();
    format!("{head}...")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comment_is_told_without_its_picture_and_its_links() {
        let comment = ":sunny: Test successful - [linux](http://127.0.0.1/1), [mac](http://x/2)";
        assert_eq!(spoken(comment).unwrap(), "Test successful");
        assert_eq!(spoken("@homu r+").unwrap(), "@homu r+");
    }

    #[test]
    fn lines_end_between_words() {
        let text = "word ".repeat(40);
        let lines = lines(text.trim());
        assert_eq!(lines.join(" "), text.trim());
        assert!(lines.len() > 1 && lines.iter().all(|line| line.len() <= LINE_MAX));
    }

    #[test]
    fn evidence_is_told_without_its_links() {
        assert_eq!(
            without_links("told (http://x/1) of it (http://y)"),
            "told of it"
        );
        assert_eq!(without_links("told (it)"), "told (it)");
    }
}
