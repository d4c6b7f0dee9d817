//! Which request asks or changes what: the part of GitHub's REST API that the fake knows.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answers::Answers;
use super::repository::{Repository, Status};
use super::world::{Event, Refusal, World};

/// A request, taken apart.
pub struct Call<'a> {
    pub method: &'a str,
    /// The decoded segments of the path.
    pub segments: &'a [&'a str],
    pub query: &'a [(String, String)],
    pub body: &'a [u8],
    /// The login that the token belongs to.
    pub login: Option<&'a str>,
    /// The address of this fake, for links.
    pub url: &'a str,
}

/// What the fake has to say, before paging, ETags and limits.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content: Content,
    /// What GitHub announces because of this request, and of which repository.
    pub events: Option<(String, Vec<Event>)>,
}

/// The body of an answer.
#[derive(Debug)]
pub enum Content {
    Nothing,
    One(Value),
    /// A list that the client reads page by page.
    List(Vec<Value>),
}

#[derive(Deserialize)]
struct NewReference {
    r#ref: String,
    sha: String,
}

#[derive(Deserialize)]
struct ReferenceUpdate {
    sha: String,
    #[serde(default)]
    force: bool,
}

#[derive(Deserialize)]
struct NewMerge {
    base: String,
    head: String,
    commit_message: Option<String>,
}

#[derive(Deserialize)]
struct NewComment {
    body: String,
}

#[derive(Deserialize)]
struct NewStatus {
    state: String,
    target_url: Option<String>,
    description: Option<String>,
    context: Option<String>,
}

#[derive(Deserialize)]
struct PullUpdate {
    state: Option<String>,
}

/// Answers one request.
///
/// # Errors
///
/// [`Refusal`] as GitHub would refuse; an unknown path is [`Refusal::NotThere`].
pub fn answer(world: &mut World, call: &Call<'_>) -> Result<Answer, Refusal> {
    match call.segments {
        ["user"] if call.method == "GET" => {
            // The server answers 401 before this is reached without a login.
            let login = call.login.unwrap_or_default();
            Ok(one(Answers {
                world,
                url: call.url,
            }
            .user(login)))
        }
        ["users", login] if call.method == "GET" => {
            if !world.users.contains_key(*login) {
                return Err(Refusal::NotThere(format!("user {login}")));
            }
            Ok(one(Answers {
                world,
                url: call.url,
            }
            .user(login)))
        }
        ["meta"] if call.method == "GET" => Ok(one(
            json!({"verifiable_password_authentication": false, "hooks": []}),
        )),
        ["repos", owner, name, rest @ ..] => {
            let full_name = format!("{owner}/{name}");
            if call.method == "GET" {
                let answers = Answers {
                    world,
                    url: call.url,
                };
                read(&answers, world.repository(&full_name)?, rest, call)
            } else {
                change(world, &full_name, rest, call)
            }
        }
        segments => Err(unknown(call.method, segments)),
    }
}

fn read(
    answers: &Answers<'_>,
    repository: &Repository,
    path: &[&str],
    call: &Call<'_>,
) -> Result<Answer, Refusal> {
    match path {
        [] => Ok(one(answers.repository(repository))),
        ["pulls"] => {
            let wanted = call.query_value("state").unwrap_or("open");
            let mut pulls: Vec<Value> = repository
                .pulls
                .values()
                .filter(|pull| match wanted {
                    "all" => true,
                    "closed" => !pull.open,
                    _ => pull.open,
                })
                .map(|pull| answers.pull_in_list(repository, pull))
                .collect();
            if call.query_value("direction").unwrap_or("desc") == "desc" {
                pulls.reverse();
            }
            Ok(list(pulls))
        }
        ["pulls", number] => {
            let pull = repository.pull(parse(number)?)?;
            Ok(one(answers.pull(repository, pull)))
        }
        ["pulls", number, "comments"] => {
            repository.pull(parse(number)?)?;
            Ok(list(vec![]))
        }
        ["pulls", number, "merge"] => {
            let pull = repository.pull(parse(number)?)?;
            match &pull.merged_as {
                Some(_) => Ok(Answer {
                    status: 204,
                    content: Content::Nothing,
                    events: None,
                }),
                None => Err(Refusal::NotThere(format!("merge of pull request {number}"))),
            }
        }
        ["issues", number] => {
            let pull = repository.pull(parse(number)?)?;
            Ok(one(answers.issue(repository, pull)))
        }
        ["issues", number, "comments"] => {
            let number = parse(number)?;
            repository.pull(number)?;
            let comments = repository
                .comments
                .iter()
                .filter(|comment| comment.pull == number);
            Ok(list(
                comments
                    .map(|comment| answers.comment(repository, comment))
                    .collect(),
            ))
        }
        ["git", "ref" | "refs", reference @ ..] => {
            let reference = reference.join("/");
            let sha = repository.reference(&reference)?;
            Ok(one(answers.reference(repository, &reference, sha)))
        }
        ["git", "matching-refs", prefix @ ..] => {
            let prefix = prefix.join("/");
            let refs = repository
                .refs
                .iter()
                .filter(|(reference, _)| reference.starts_with(&prefix));
            Ok(list(
                refs.map(|(reference, sha)| answers.reference(repository, reference, sha))
                    .collect(),
            ))
        }
        ["git", "commits", sha] => match repository.commits.get(*sha) {
            Some(commit) => Ok(one(answers.git_commit(repository, commit))),
            None => Err(Refusal::NotThere(format!("commit {sha}"))),
        },
        // A branch in these paths may hold slashes, encoded or not.
        ["commits", name @ .., "statuses"] => {
            let sha = resolve(repository, name)?;
            Ok(list(statuses(answers, repository, sha)))
        }
        ["commits", name @ .., "status"] => {
            let sha = resolve(repository, name)?;
            Ok(one(answers.combined_status(repository, sha)))
        }
        ["commits", name @ .., "check-runs"] => {
            resolve(repository, name)?;
            Ok(one(json!({"total_count": 0, "check_runs": []})))
        }
        ["commits", name @ ..] if !name.is_empty() => {
            let sha = resolve(repository, name)?;
            match repository.commits.get(sha) {
                Some(commit) => Ok(one(answers.commit(repository, commit))),
                None => Err(Refusal::NotThere(format!("commit {sha}"))),
            }
        }
        // The older name of `commits/SHA/statuses`, which github3.py 0.9.6 uses.
        ["statuses", name @ ..] => {
            let sha = resolve(repository, name)?;
            Ok(list(statuses(answers, repository, sha)))
        }
        path => Err(unknown(call.method, path)),
    }
}

fn change(
    world: &mut World,
    full_name: &str,
    path: &[&str],
    call: &Call<'_>,
) -> Result<Answer, Refusal> {
    // The server answers 401 before this is reached without a login.
    let login = call.login.unwrap_or_default();
    match (call.method, path) {
        ("POST", ["issues", number, "comments"]) => {
            let NewComment { body } = call.parse_body()?;
            let number = parse(number)?;
            let (id, events) = world.comment(full_name, number, login, &body)?;
            let repository = world.repository(full_name)?;
            let comment = repository
                .comments
                .iter()
                .rev()
                .find(|comment| comment.id == id);
            let comment = comment.map(|it| {
                Answers {
                    world,
                    url: call.url,
                }
                .comment(repository, it)
            });
            Ok(created(comment.unwrap_or(Value::Null), full_name, events))
        }
        ("POST", ["statuses", sha]) => {
            let new: NewStatus = call.parse_body()?;
            let status = Status {
                id: 0,
                sha: (*sha).to_owned(),
                state: new.state,
                context: new.context.unwrap_or_else(|| "default".to_owned()),
                description: new.description,
                target_url: new.target_url,
                creator: login.to_owned(),
                at: jiff::Timestamp::now(),
            };
            let (id, events) = world.add_status(full_name, status)?;
            let repository = world.repository(full_name)?;
            let status = repository
                .statuses
                .iter()
                .rev()
                .find(|status| status.id == id);
            let status = status.map(|it| {
                Answers {
                    world,
                    url: call.url,
                }
                .status(repository, it)
            });
            Ok(created(status.unwrap_or(Value::Null), full_name, events))
        }
        ("POST", ["git", "refs"]) => {
            let NewReference { r#ref, sha } = call.parse_body()?;
            let Some(reference) = r#ref.strip_prefix("refs/").filter(|it| it.contains('/')) else {
                return Err(Refusal::Invalid(format!(
                    "{} is not a valid ref name",
                    r#ref
                )));
            };
            let events = world.create_reference(full_name, reference, &sha, login)?;
            let repository = world.repository(full_name)?;
            let answer = Answers {
                world,
                url: call.url,
            }
            .reference(repository, reference, &sha);
            Ok(created(answer, full_name, events))
        }
        ("PATCH", ["git", "refs", reference @ ..]) => {
            let ReferenceUpdate { sha, force } = call.parse_body()?;
            let reference = reference.join("/");
            let events = world.update_reference(full_name, &reference, &sha, force, login)?;
            let repository = world.repository(full_name)?;
            let answer = Answers {
                world,
                url: call.url,
            }
            .reference(repository, &reference, &sha);
            Ok(Answer {
                events: Some((full_name.to_owned(), events)),
                ..one(answer)
            })
        }
        ("DELETE", ["git", "refs", reference @ ..]) => {
            let events = world.delete_reference(full_name, &reference.join("/"), login)?;
            let events = Some((full_name.to_owned(), events));
            Ok(Answer {
                status: 204,
                content: Content::Nothing,
                events,
            })
        }
        ("POST", ["merges"]) => {
            let NewMerge {
                base,
                head,
                commit_message,
            } = call.parse_body()?;
            let message = commit_message.as_deref();
            let (sha, events) = world.merge(full_name, &base, &head, message, login)?;
            let Some(sha) = sha else {
                return Ok(Answer {
                    status: 204,
                    content: Content::Nothing,
                    events: None,
                });
            };
            let repository = world.repository(full_name)?;
            let commit = repository.commits.get(&sha);
            let commit = commit.map(|it| {
                Answers {
                    world,
                    url: call.url,
                }
                .commit(repository, it)
            });
            Ok(created(commit.unwrap_or(Value::Null), full_name, events))
        }
        ("PATCH", ["pulls" | "issues", number]) => {
            let PullUpdate { state } = call.parse_body()?;
            let number = parse(number)?;
            let events = match state.as_deref() {
                Some(state) => world.set_open(full_name, number, state == "open", login)?,
                None => vec![],
            };
            let repository = world.repository(full_name)?;
            let pull = repository.pull(number)?;
            let answer = Answers {
                world,
                url: call.url,
            }
            .pull(repository, pull);
            Ok(Answer {
                events: Some((full_name.to_owned(), events)),
                ..one(answer)
            })
        }
        (method, path) => Err(unknown(method, path)),
    }
}

impl Call<'_> {
    /// A value of the query by its key.
    pub fn query_value(&self, key: &str) -> Option<&str> {
        self.query
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    fn parse_body<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        serde_json::from_slice(self.body)
            .map_err(|error| Refusal::Invalid(format!("Validation Failed: {error}")))
    }
}

fn statuses(answers: &Answers<'_>, repository: &Repository, sha: &str) -> Vec<Value> {
    let newest_first = repository
        .statuses
        .iter()
        .rev()
        .filter(|status| status.sha == sha);
    newest_first
        .map(|status| answers.status(repository, status))
        .collect()
}

fn resolve<'a>(repository: &'a Repository, name: &[&str]) -> Result<&'a str, Refusal> {
    let name = name.join("/");
    repository
        .resolve(&name)
        .ok_or_else(|| Refusal::NotThere(format!("commit {name}")))
}

fn parse(number: &str) -> Result<u64, Refusal> {
    number
        .parse()
        .map_err(|_| Refusal::NotThere(format!("pull request {number:?}")))
}

fn unknown(method: &str, segments: &[&str]) -> Refusal {
    Refusal::NotThere(format!("{method} {}", segments.join("/")))
}

fn one(value: Value) -> Answer {
    Answer {
        status: 200,
        content: Content::One(value),
        events: None,
    }
}

fn list(values: Vec<Value>) -> Answer {
    Answer {
        status: 200,
        content: Content::List(values),
        events: None,
    }
}

fn created(value: Value, full_name: &str, events: Vec<Event>) -> Answer {
    let events = Some((full_name.to_owned(), events));
    Answer {
        status: 201,
        content: Content::One(value),
        events,
    }
}
