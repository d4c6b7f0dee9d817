//! Imports point one way, the core is pure, and every file says what it owns.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a test fails it"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Each module may use those before it, and itself. Those that share a place never use each other.
const ORDER: [&[&str]; 13] = [
    &["model"],
    &["decision"],
    &["report"],
    &["journal"],
    &["review"],
    &["secret"],
    &["keys"],
    &["http"],
    &["bots", "providers"],
    &["config", "clock"],
    &["app"],
    &["metrics"],
    &["web"],
];
/// Uses everything; used by nothing but the command line.
const EDGES: [&str; 2] = ["cli", "demo"];

/// What would make `model` and `decision` impure.
const IMPURE: [&str; 13] = [
    "std::time::Instant",
    "std::time::SystemTime",
    "SystemTime::now",
    "Instant::now",
    "tokio",
    "async ",
    "HashMap",
    "HashSet",
    "rand::",
    "std::fs",
    "std::net",
    "std::env",
    "std::thread",
];

fn place(module: &str) -> Option<usize> {
    ORDER.iter().position(|level| level.contains(&module))
}

/// Why `module` may not use `used`, where it may not.
fn refused(module: &str, used: &str) -> Option<String> {
    if module == used || module == "main" || module == "lib" || EDGES.contains(&module) {
        return None;
    }
    if EDGES.contains(&used) {
        return Some(format!("{module} uses {used}, which only the edges may"));
    }
    let (Some(ours), Some(theirs)) = (place(module), place(used)) else {
        return Some(format!("{module} uses {used}: not in the order of modules"));
    };
    (theirs >= ours).then(|| format!("{module} uses {used}, which does not stand before it"))
}

/// The modules of this crate that a source names by `crate::`, alone or in a group.
fn uses(source: &str) -> Vec<String> {
    let code: Vec<&str> = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    code.join("\n")
        .split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => members(group),
            None => vec![name(rest)],
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// The first names in a group of imports, up to its closing brace.
fn members(group: &str) -> Vec<String> {
    let mut depth = 1_u32;
    let mut members = vec![name(group.trim_start())];
    for (place, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => members.push(name(group[place + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    members
}

fn name(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect()
}

fn impurities(source: &str) -> Vec<&'static str> {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    IMPURE
        .into_iter()
        .filter(|word| code.contains(word))
        .collect()
}

fn sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let module = path
                    .strip_prefix(&root)
                    .unwrap()
                    .components()
                    .next()
                    .unwrap()
                    .as_os_str()
                    .to_string_lossy()
                    .trim_end_matches(".rs")
                    .to_owned();
                let text = fs::read_to_string(&path).unwrap();
                found.push((module, path, text));
            }
        }
    }
    found.sort();
    assert!(found.len() > 50, "the source is not where it is looked for");
    found
}

#[test]
fn imports_point_one_way() {
    let wrong: Vec<String> = sources()
        .iter()
        .flat_map(|(module, path, text)| {
            uses(text)
                .into_iter()
                .filter_map(|used| refused(module, &used))
                .map(|why| format!("{}: {why}", path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_core_is_pure() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|(module, _, _)| module == "model" || module == "decision")
        .flat_map(|(_, path, text)| {
            impurities(text)
                .into_iter()
                .map(|word| format!("{}: {word}", path.display()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_owns_and_none_is_called_a_drawer() {
    for (_, path, text) in sources() {
        assert!(text.starts_with("//! "), "{}", path.display());
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        for drawer in [
            "util", "utils", "helper", "helpers", "manager", "common", "misc",
        ] {
            assert_ne!(name, drawer, "{}", path.display());
        }
    }
}

#[test]
fn the_checks_can_fail() {
    let adapter = "use crate::model::Sha;\n// crate::app is only named here\nuse crate::app::App;";
    assert_eq!(uses(adapter), ["model", "app"]);
    let grouped = "use crate::{\n    app::{App, Shared},\n    model::Sha,\n};\nuse other::web;";
    assert_eq!(uses(grouped), ["app", "model"]);
    assert_eq!(refused("bots", "model"), None);
    assert!(refused("bots", "app").is_some());
    assert!(refused("bots", "providers").is_some());
    assert!(refused("model", "decision").is_some());
    assert!(refused("app", "demo").is_some());
    assert_eq!(refused("cli", "web"), None);
    assert_eq!(
        impurities("// HashMap\nlet now = std::time::Instant::now();"),
        ["std::time::Instant", "Instant::now"]
    );
}
