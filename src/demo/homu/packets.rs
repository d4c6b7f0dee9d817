//! Buildbot 0.8's packets as the fake homu hears them (`buildbot` in homu's `server.py`).

use serde_json::Value;

use super::events::text;
use super::queue::{Failure, Homu};

impl Homu {
    /// Hears the packets of one form.
    pub async fn hear_packets(&mut self, form: &[u8]) -> Result<(), Failure> {
        let mut packets = Value::Null;
        let mut secret = String::new();
        for (name, value) in url::form_urlencoded::parse(form) {
            match name.as_ref() {
                "packets" => {
                    packets = serde_json::from_str(&value)
                        .map_err(|error| Failure::Exception(format!("packets: {error}")))?;
                }
                "secret" => secret = value.into_owned(),
                _ => {}
            }
        }
        let Value::Array(packets) = packets else {
            return Err(Failure::Exception("packets: not a list".to_owned()));
        };
        for packet in &packets {
            let build = &packet["payload"]["build"];
            match text(packet, "/event")? {
                "buildFinished" => self.hear_finish(build, &secret).await?,
                "buildStarted" => self.hear_start(build, &secret).await?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn hear_finish(&mut self, build: &Value, secret: &str) -> Result<(), Failure> {
        let words = |word: &str| {
            build["text"]
                .as_array()
                .is_some_and(|words| words.iter().any(|it| it == word))
        };
        if words("retry") {
            return Ok(());
        }
        let Some(revision) = property(build, "revision").and_then(Value::as_str) else {
            return Ok(());
        };
        let Some((label, number)) = self.find(revision).filter(|_| !revision.is_empty()) else {
            return Ok(());
        };
        let builder = text(build, "/builderName")?;
        let Some(url) = self.page_of_known(&label, number, builder, build, secret)? else {
            return Ok(());
        };
        let green = words("successful") || build["results"] == 0;
        self.report(&label, number, builder, green, &url).await
    }

    async fn hear_start(&mut self, build: &Value, secret: &str) -> Result<(), Failure> {
        let Some(revision) = property(build, "revision").and_then(Value::as_str) else {
            return Ok(());
        };
        if revision.is_empty() {
            return Ok(());
        }
        if let Some((label, number)) = self.find(revision) {
            let builder = text(build, "/builderName")?;
            if let Some(url) = self.page_of_known(&label, number, builder, build, secret)? {
                self.set_result(&label, number, builder, None, &url)?;
            }
        }
        // Outside of the check of builder and secret, as in homu.
        if self.slot == revision {
            self.slot.clear();
            self.process_queue().await?;
        }
        Ok(())
    }

    /// The page of a run whose builder the pull request waits for. Only for such a builder the
    /// secret is checked.
    fn page_of_known(
        &mut self,
        label: &str,
        number: u64,
        builder: &str,
        build: &Value,
        secret: &str,
    ) -> Result<Option<String>, Failure> {
        if !self.pull(label, number)?.results.contains_key(builder) {
            return Ok(None);
        }
        let repo = self.repo(label)?;
        if secret != repo.buildbot_secret {
            return Err(Failure::Refused("Invalid secret"));
        }
        let number = property(build, "buildnumber")
            .ok_or_else(|| Failure::Exception("KeyError: buildnumber".to_owned()))?;
        Ok(Some(format!(
            "{}/builders/{builder}/builds/{number}",
            repo.buildbot_url
        )))
    }
}

/// A property of a build: `[name, value, source]`.
fn property<'a>(build: &'a Value, name: &str) -> Option<&'a Value> {
    build["properties"]
        .as_array()?
        .iter()
        .find(|property| property[0] == name)?
        .get(1)
}
