//! The JSON that the fake GitHub answers with, in the shapes of GitHub's REST schemas.
//!
//! Field names and nesting follow the published REST description (version
//! 2022-11-28). Links point back to the fake itself, because clients follow them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::repository::{Comment, Commit, Pull, Repository, Status};
use super::world::World;

/// Makes answers whose links start with the address of this fake.
pub struct Answers<'a> {
    pub world: &'a World,
    pub url: &'a str,
}

impl Answers<'_> {
    /// `simple-user`.
    pub fn user(&self, login: &str) -> Value {
        let id = self.world.users.get(login).map_or(0, |user| user.id);
        let api = format!("{}/users/{login}", self.url);
        json!({
            "login": login,
            "id": id,
            "node_id": node_id("User", id),
            "avatar_url": format!("{}/avatars/{id}", self.url),
            "gravatar_id": "",
            "url": api,
            "html_url": format!("{}/{login}", self.url),
            "followers_url": format!("{api}/followers"),
            "following_url": format!("{api}/following{{/other_user}}"),
            "gists_url": format!("{api}/gists{{/gist_id}}"),
            "starred_url": format!("{api}/starred{{/owner}}{{/repo}}"),
            "subscriptions_url": format!("{api}/subscriptions"),
            "organizations_url": format!("{api}/orgs"),
            "repos_url": format!("{api}/repos"),
            "events_url": format!("{api}/events{{/privacy}}"),
            "received_events_url": format!("{api}/received_events"),
            "type": "User",
            "site_admin": false,
        })
    }

    /// `minimal-repository`, the required fields and those that clients follow.
    pub fn repository(&self, repository: &Repository) -> Value {
        let full_name = repository.full_name();
        let api = self.api(repository);
        let html = format!("{}/{full_name}", self.url);
        let open = repository.pulls.values().filter(|pull| pull.open).count();
        json!({
            "id": repository.id,
            "node_id": node_id("Repository", repository.id),
            "name": repository.name,
            "full_name": full_name,
            "owner": self.user(&repository.owner),
            "private": false,
            "html_url": html,
            "description": null,
            "fork": false,
            "url": api,
            "branches_url": format!("{api}/branches{{/branch}}"),
            "comments_url": format!("{api}/comments{{/number}}"),
            "commits_url": format!("{api}/commits{{/sha}}"),
            "git_commits_url": format!("{api}/git/commits{{/sha}}"),
            "git_refs_url": format!("{api}/git/refs{{/sha}}"),
            "hooks_url": format!("{api}/hooks"),
            "issue_comment_url": format!("{api}/issues/comments{{/number}}"),
            "issues_url": format!("{api}/issues{{/number}}"),
            "merges_url": format!("{api}/merges"),
            "pulls_url": format!("{api}/pulls{{/number}}"),
            "statuses_url": format!("{api}/statuses/{{sha}}"),
            "clone_url": format!("{html}.git"),
            "forks_count": 0,
            "stargazers_count": 0,
            "watchers_count": 0,
            "size": repository.commits.len(),
            "default_branch": repository.default_branch,
            "open_issues_count": open,
            "has_issues": true,
            "archived": false,
            "disabled": false,
            "visibility": "public",
            "pushed_at": time(repository.created_at),
            "created_at": time(repository.created_at),
            "updated_at": time(repository.created_at),
            "permissions": {"admin": false, "maintain": false, "push": true, "triage": true, "pull": true},
        })
    }

    /// `pull-request`: the answer for one, which alone says whether it can be merged.
    pub fn pull(&self, repository: &Repository, pull: &Pull) -> Value {
        let mut answer = self.pull_in_list(repository, pull);
        let comments = repository
            .comments
            .iter()
            .filter(|comment| comment.pull == pull.number);
        let mergeable = pull.open.then_some(!pull.conflicts);
        let state = match mergeable {
            Some(true) => "clean",
            Some(false) => "dirty",
            None => "unknown",
        };
        answer["merged"] = json!(pull.merged_as.is_some());
        answer["mergeable"] = json!(mergeable);
        answer["rebaseable"] = json!(mergeable);
        answer["mergeable_state"] = json!(state);
        answer["merged_by"] = json!(pull.merged_by.as_ref().map(|login| self.user(login)));
        answer["comments"] = json!(comments.count());
        answer["review_comments"] = json!(0);
        answer["maintainer_can_modify"] = json!(false);
        answer["commits"] = json!(1);
        answer["additions"] = json!(1);
        answer["deletions"] = json!(0);
        answer["changed_files"] = json!(1);
        answer
    }

    /// `pull-request-simple`, the shape in lists.
    pub fn pull_in_list(&self, repository: &Repository, pull: &Pull) -> Value {
        let number = pull.number;
        let api = self.api(repository);
        let html = self.pull_page(repository, number);
        let base_sha = repository
            .reference(&format!("heads/{}", pull.base_branch))
            .ok();
        let fork = {
            let mut fork = self.repository(repository);
            fork["owner"] = self.user(&pull.author);
            fork["full_name"] = json!(format!("{}/{}", pull.author, repository.name));
            fork["fork"] = json!(true);
            fork
        };
        let links = json!({
            "self": {"href": format!("{api}/pulls/{number}")},
            "html": {"href": html},
            "issue": {"href": format!("{api}/issues/{number}")},
            "comments": {"href": format!("{api}/issues/{number}/comments")},
            "review_comments": {"href": format!("{api}/pulls/{number}/comments")},
            "review_comment": {"href": format!("{api}/pulls/comments{{/number}}")},
            "commits": {"href": format!("{api}/pulls/{number}/commits")},
            "statuses": {"href": format!("{api}/statuses/{}", pull.head_sha)},
        });
        json!({
            "url": format!("{api}/pulls/{number}"),
            "id": pull.id,
            "node_id": node_id("PullRequest", pull.id),
            "html_url": html,
            "diff_url": format!("{html}.diff"),
            "patch_url": format!("{html}.patch"),
            "issue_url": format!("{api}/issues/{number}"),
            "commits_url": format!("{api}/pulls/{number}/commits"),
            "review_comments_url": format!("{api}/pulls/{number}/comments"),
            "review_comment_url": format!("{api}/pulls/comments{{/number}}"),
            "comments_url": format!("{api}/issues/{number}/comments"),
            "statuses_url": format!("{api}/statuses/{}", pull.head_sha),
            "number": number,
            "state": if pull.open { "open" } else { "closed" },
            "locked": false,
            "title": pull.title,
            "user": self.user(&pull.author),
            "body": pull.body,
            "labels": [],
            "milestone": null,
            "active_lock_reason": null,
            "created_at": time(pull.created_at),
            "updated_at": time(pull.updated_at),
            "closed_at": pull.closed_at.map(time),
            "merged_at": pull.merged_as.as_ref().and(pull.closed_at).map(time),
            "merge_commit_sha": pull.merged_as,
            "assignee": null,
            "assignees": [],
            "requested_reviewers": [],
            "requested_teams": [],
            "head": {
                "label": format!("{}:{}", pull.author, pull.head_branch),
                "ref": pull.head_branch,
                "sha": pull.head_sha,
                "user": self.user(&pull.author),
                "repo": fork,
            },
            "base": {
                "label": format!("{}:{}", repository.owner, pull.base_branch),
                "ref": pull.base_branch,
                "sha": base_sha,
                "user": self.user(&repository.owner),
                "repo": self.repository(repository),
            },
            "_links": links,
            "author_association": "CONTRIBUTOR",
            "auto_merge": null,
            "draft": false,
        })
    }

    /// `issue`: the other face of a pull request.
    pub fn issue(&self, repository: &Repository, pull: &Pull) -> Value {
        let number = pull.number;
        let api = self.api(repository);
        let html = self.pull_page(repository, number);
        let comments = repository
            .comments
            .iter()
            .filter(|comment| comment.pull == number);
        json!({
            "url": format!("{api}/issues/{number}"),
            "repository_url": api,
            "labels_url": format!("{api}/issues/{number}/labels{{/name}}"),
            "comments_url": format!("{api}/issues/{number}/comments"),
            "events_url": format!("{api}/issues/{number}/events"),
            "html_url": html,
            "id": pull.id,
            "node_id": node_id("PullRequest", pull.id),
            "number": number,
            "title": pull.title,
            "user": self.user(&pull.author),
            "labels": [],
            "state": if pull.open { "open" } else { "closed" },
            "state_reason": null,
            "locked": false,
            "assignee": null,
            "assignees": [],
            "milestone": null,
            "comments": comments.count(),
            "created_at": time(pull.created_at),
            "updated_at": time(pull.updated_at),
            "closed_at": pull.closed_at.map(time),
            "author_association": "CONTRIBUTOR",
            "active_lock_reason": null,
            "draft": false,
            "pull_request": {
                "url": format!("{api}/pulls/{number}"),
                "html_url": html,
                "diff_url": format!("{html}.diff"),
                "patch_url": format!("{html}.patch"),
                "merged_at": pull.merged_as.as_ref().and(pull.closed_at).map(time),
            },
            "body": pull.body,
            "closed_by": null,
        })
    }

    /// `issue-comment`.
    pub fn comment(&self, repository: &Repository, comment: &Comment) -> Value {
        let api = self.api(repository);
        let html = self.pull_page(repository, comment.pull);
        json!({
            "url": format!("{api}/issues/comments/{}", comment.id),
            "html_url": format!("{html}#issuecomment-{}", comment.id),
            "issue_url": format!("{api}/issues/{}", comment.pull),
            "id": comment.id,
            "node_id": node_id("IssueComment", comment.id),
            "user": self.user(&comment.author),
            "created_at": time(comment.at),
            "updated_at": time(comment.at),
            "author_association": "COLLABORATOR",
            "body": comment.body,
            "performed_via_github_app": null,
        })
    }

    /// `status`.
    pub fn status(&self, repository: &Repository, status: &Status) -> Value {
        json!({
            "url": format!("{}/statuses/{}", self.api(repository), status.sha),
            "avatar_url": null,
            "id": status.id,
            "node_id": node_id("StatusContext", status.id),
            "state": status.state,
            "description": status.description,
            "target_url": status.target_url,
            "context": status.context,
            "created_at": time(status.at),
            "updated_at": time(status.at),
            "creator": self.user(&status.creator),
        })
    }

    /// `combined-commit-status`: the newest status of each context.
    pub fn combined_status(&self, repository: &Repository, sha: &str) -> Value {
        let mut newest: Vec<&Status> = vec![];
        for status in repository
            .statuses
            .iter()
            .rev()
            .filter(|status| status.sha == sha)
        {
            if newest.iter().all(|seen| seen.context != status.context) {
                newest.push(status);
            }
        }
        let any = |state: &str| newest.iter().any(|status| status.state == state);
        let state = if any("failure") || any("error") {
            "failure"
        } else if newest.is_empty() || any("pending") {
            "pending"
        } else {
            "success"
        };
        let api = self.api(repository);
        json!({
            "state": state,
            "statuses": newest
                .iter()
                .map(|status| self.status(repository, status))
                .collect::<Vec<_>>(),
            "sha": sha,
            "total_count": newest.len(),
            "repository": self.repository(repository),
            "commit_url": format!("{api}/commits/{sha}"),
            "url": format!("{api}/commits/{sha}/status"),
        })
    }

    /// `git-ref`.
    pub fn reference(&self, repository: &Repository, reference: &str, sha: &str) -> Value {
        let api = self.api(repository);
        json!({
            "ref": format!("refs/{reference}"),
            "node_id": node_id("Ref", repository.id),
            "url": format!("{api}/git/refs/{reference}"),
            "object": {
                "type": "commit",
                "sha": sha,
                "url": format!("{api}/git/commits/{sha}"),
            },
        })
    }

    /// `commit`: the view of a repository, with users.
    pub fn commit(&self, repository: &Repository, commit: &Commit) -> Value {
        let api = self.api(repository);
        let sha = &commit.sha;
        let mut git = self.git_commit(repository, commit);
        git["comment_count"] = json!(0);
        json!({
            "url": format!("{api}/commits/{sha}"),
            "sha": sha,
            "node_id": node_id("Commit", repository.id),
            "html_url": self.commit_page(repository, sha),
            "comments_url": format!("{api}/commits/{sha}/comments"),
            "commit": git,
            "author": self.user(&commit.author),
            "committer": self.user(&commit.author),
            "parents": self.parents(repository, commit, "commits"),
            "stats": {"additions": 1, "deletions": 0, "total": 1},
            "files": [],
        })
    }

    /// `git-commit`: the view of the git database, with names and addresses.
    pub fn git_commit(&self, repository: &Repository, commit: &Commit) -> Value {
        let api = self.api(repository);
        let sha = &commit.sha;
        let person = json!({
            "name": commit.author,
            "email": format!("{}@example.com", commit.author),
            "date": time(commit.at),
        });
        json!({
            "sha": sha,
            "node_id": node_id("Commit", repository.id),
            "url": format!("{api}/git/commits/{sha}"),
            "html_url": self.commit_page(repository, sha),
            "author": person,
            "committer": person,
            "tree": {"sha": sha, "url": format!("{api}/git/trees/{sha}")},
            "message": commit.message,
            "parents": self.parents(repository, commit, "git/commits"),
            "verification": {
                "verified": false,
                "reason": "unsigned",
                "signature": null,
                "payload": null,
                "verified_at": null,
            },
        })
    }

    fn parents(&self, repository: &Repository, commit: &Commit, path: &str) -> Value {
        let api = self.api(repository);
        let parents = commit.parents.iter().map(|sha| {
            json!({
                "sha": sha,
                "url": format!("{api}/{path}/{sha}"),
                "html_url": self.commit_page(repository, sha),
            })
        });
        parents.collect()
    }

    fn api(&self, repository: &Repository) -> String {
        format!("{}/repos/{}", self.url, repository.full_name())
    }

    fn pull_page(&self, repository: &Repository, number: u64) -> String {
        format!("{}/{}/pull/{number}", self.url, repository.full_name())
    }

    fn commit_page(&self, repository: &Repository, sha: &str) -> String {
        format!("{}/{}/commit/{sha}", self.url, repository.full_name())
    }
}

/// GitHub's form of a time: UTC, whole seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// GitHub's ids of nodes are opaque; these name what they stand for.
fn node_id(kind: &str, id: u64) -> String {
    format!("{kind}_{id}")
}
