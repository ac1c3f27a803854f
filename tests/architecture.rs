//! The layers, held by reading `src/`: who may name whom, which foreign crate may be named where, where
//! `unsafe` may stand, and how long a file may be. A change of a table here is a change of the design.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the crate's root, and those it may name besides itself.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("lib", &[]),
    ("cli", &["daemon", "config", "model", "clock", "disk"]),
    (
        "daemon",
        &[
            "config", "fuse", "vfs", "engine", "content", "store", "graph", "auth", "emulator", "model",
            "clock", "disk",
        ],
    ),
    ("config", &["model"]),
    ("fuse", &["vfs", "model", "clock", "disk"]),
    // graph: only to turn its errors into what a caller can tell apart.
    ("vfs", &["engine", "content", "store", "graph", "model", "clock", "disk"]),
    ("engine", &["content", "store", "graph", "auth", "model", "clock", "disk"]),
    ("content", &["model", "clock", "disk"]),
    ("store", &["model", "clock", "disk"]),
    ("graph", &["auth", "model", "clock", "disk"]),
    ("auth", &["model", "clock", "disk"]),
    // Shares no types with the client, so that both cannot share a mistake.
    ("emulator", &["clock"]),
    ("model", &[]),
    ("disk", &["clock"]),
    ("clock", &[]),
];

/// Foreign crates that belong to one place: files below these paths may name them.
const CRATES: &[(&str, &[&str])] = &[
    ("fuser", &["src/fuse"]),
    ("reqwest", &["src/graph/transport.rs"]),
    ("tokio_tungstenite", &["src/graph/push"]),
    ("rusqlite", &["src/store"]),
    ("hyper", &["src/emulator", "src/daemon/signin"]),
    ("hyper_util", &["src/emulator", "src/daemon/signin"]),
    ("tokio_rustls", &["src/emulator"]),
    ("rustls", &["src/emulator", "src/graph/transport.rs"]),
    ("clap", &["src/cli"]),
    ("clap_complete", &["src/cli"]),
    ("clap_mangen", &["src/cli"]),
    ("indicatif", &["src/cli"]),
    ("tracing_subscriber", &["src/cli"]),
    ("toml", &["src/config"]),
    ("jiff", &["src/model", "src/daemon", "src/emulator"]),
    ("getrandom", &["src/clock.rs"]),
];

/// Where `unsafe` may stand.
const UNSAFE: &[&str] = &["src/fuse", "src/disk", "src/disk.rs", "src/daemon"];

/// Lines before the tests of a file.
const LINES_MAX: usize = 700;
/// Longer files, and why they are one file.
const LONG_FILES: &[(&str, &str)] =
    &[("src/store/tx.rs", "every write of the store is a method of the one transaction type")];

/// A file of the crate.
struct Source {
    path: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut directories = vec![root.join("src")];
    let mut found = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).expect("the sources are there") {
            let path = entry.expect("the sources can be listed").path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("sources are text");
                let relative: PathBuf = path.strip_prefix(root).expect("it is below the root").into();
                found.push(Source { path: relative.display().to_string(), text });
            }
        }
    }
    found
}

/// Everything that breaks a rule, one line each.
fn violations(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        let tokens = tokens(&source.text);
        let layer = layer_of(&source.path);
        match LAYERS.iter().find(|(name, _)| *name == layer) {
            None => found.push(format!("{}: '{layer}' is in no layer", source.path)),
            Some((_, allowed)) => {
                for named in named_layers(&source.path, &tokens) {
                    if named != layer && !allowed.contains(&named.as_str()) {
                        found.push(format!("{}: names crate::{named}", source.path));
                    }
                }
            }
        }
        for (name, places) in CRATES {
            if names_crate(&tokens, name) && !places.iter().any(|place| is_below(&source.path, place)) {
                found.push(format!("{}: names the crate {name}", source.path));
            }
        }
        let is_unsafe = tokens.iter().any(|token| token == "unsafe");
        if is_unsafe && !UNSAFE.iter().any(|place| is_below(&source.path, place)) {
            found.push(format!("{}: has unsafe code", source.path));
        }
        let long = lines_of_code(&source.text) > LINES_MAX;
        if long != LONG_FILES.iter().any(|(path, _)| *path == source.path) {
            found.push(format!("{}: {} lines", source.path, lines_of_code(&source.text)));
        }
    }
    found
}

/// `src/graph/wire.rs` and `src/graph.rs` belong to `graph`.
fn layer_of(path: &str) -> String {
    let inside = path.strip_prefix("src/").unwrap_or(path);
    inside.split(['/', '.']).next().unwrap_or_default().to_owned()
}

fn is_below(path: &str, place: &str) -> bool {
    path == place || path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))
}

fn lines_of_code(text: &str) -> usize {
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count()
}

/// Identifiers and punctuation, `::` as one; without comments, strings and characters.
fn tokens(text: &str) -> Vec<String> {
    let symbols: Vec<char> = text.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < symbols.len() {
        let rest = &symbols[at..];
        at += match rest {
            ['/', '/', ..] => rest.iter().take_while(|symbol| **symbol != '\n').count(),
            ['/', '*', ..] => length_of_comment(rest),
            ['r', '"' | '#', ..] if is_raw_string(rest) => length_of_raw_string(rest),
            ['"', ..] => length_of_string(rest),
            ['\'', '\\', ..] => 3 + rest[3..].iter().take_while(|symbol| **symbol != '\'').count() + 1,
            ['\'', _, '\'', ..] => 3,
            [':', ':', ..] => {
                tokens.push("::".to_owned());
                2
            }
            [first, ..] if first.is_alphanumeric() || *first == '_' => {
                let word: String =
                    rest.iter().take_while(|symbol| symbol.is_alphanumeric() || **symbol == '_').collect();
                let length = word.chars().count();
                tokens.push(word);
                length
            }
            [first, ..] => {
                if !first.is_whitespace() {
                    tokens.push(first.to_string());
                }
                1
            }
            [] => 1,
        };
    }
    tokens
}

fn length_of_comment(rest: &[char]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at + 1 < rest.len() {
        match (rest[at], rest[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn is_raw_string(rest: &[char]) -> bool {
    rest[1..].iter().find(|symbol| **symbol != '#') == Some(&'"')
}

fn length_of_raw_string(rest: &[char]) -> usize {
    let hashes = rest[1..].iter().take_while(|symbol| **symbol == '#').count();
    let closing: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let body = hashes + 2;
    let inside = rest[body..].windows(closing.len()).position(|window| window == closing);
    inside.map_or(rest.len(), |length| body + length + closing.len())
}

fn length_of_string(rest: &[char]) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != '"' {
        at += if rest[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// The modules of the crate's root that a file names, through `crate::` or a chain of `super::`.
fn named_layers(path: &str, tokens: &[String]) -> BTreeSet<String> {
    let depth = depth_of(path);
    let mut named = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let follows_path = at > 0 && tokens[at - 1] == "::";
        let start = match token.as_str() {
            // `onedrivefs` is how the program names the library.
            "crate" | "onedrivefs" if !follows_path => Some(at + 1),
            "super" if !follows_path => {
                let supers = tokens[at..].chunks(2).take_while(|pair| pair[0] == "super").count();
                (supers >= depth).then_some(at + 2 * supers - 1)
            }
            _ => None,
        };
        if let Some(start) = start {
            first_words(&tokens[start..], &mut named);
        }
    }
    let layers: BTreeSet<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    named.retain(|name| layers.contains(name.as_str()));
    named
}

/// How many `super` lead from a file's module to the crate's root.
fn depth_of(path: &str) -> usize {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if matches!(inside, "lib" | "main") { 0 } else { inside.split('/').count() }
}

/// The first words after `::`: one, or all those of a group in braces.
fn first_words(tokens: &[String], words: &mut BTreeSet<String>) {
    if tokens.first().is_none_or(|token| token != "::") {
        return;
    }
    match tokens.get(1).map(String::as_str) {
        Some("{") => {
            let mut depth = 0;
            for pair in tokens[1..].windows(2) {
                match pair[0].as_str() {
                    "{" => depth += 1,
                    "}" => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
                if depth == 1 && matches!(pair[0].as_str(), "{" | ",") {
                    words.insert(pair[1].clone());
                }
            }
        }
        Some(word) => {
            words.insert(word.to_owned());
        }
        None => {}
    }
}

/// Whether a path begins with the crate's name.
fn names_crate(tokens: &[String], name: &str) -> bool {
    tokens.iter().enumerate().any(|(at, token)| {
        let is_start = at == 0 || !matches!(tokens[at - 1].as_str(), "::" | ".");
        let is_absolute = at > 1 && tokens[at - 1] == "::" && !is_word(&tokens[at - 2]);
        let is_path = tokens.get(at + 1).is_some_and(|next| next == "::");
        let is_whole_use = at > 0 && tokens[at - 1] == "use";
        token == name && (is_start || is_absolute) && (is_path || is_whole_use)
    })
}

fn is_word(token: &str) -> bool {
    token.chars().all(|symbol| symbol.is_alphanumeric() || symbol == '_') && token != "use"
}

#[test]
fn each_layer_names_only_those_below_it() {
    let found = violations(&sources());
    assert!(found.is_empty(), "see the tables in tests/architecture.rs:\n{}", found.join("\n"));
}

#[test]
fn every_layer_and_every_exception_exists() {
    let sources = sources();
    for (layer, allowed) in LAYERS {
        for name in allowed.iter().chain([layer]) {
            assert!(LAYERS.iter().any(|(known, _)| known == name), "{name} is no layer");
        }
    }
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).unwrap();
    for (name, _) in CRATES {
        assert!(manifest.replace('-', "_").contains(&format!("\n{name} = ")), "{name} is no dependency");
    }
    for (path, reason) in LONG_FILES {
        assert!(sources.iter().any(|source| source.path == *path), "{path} is gone");
        assert!(reason.len() > 20, "{path} needs a reason");
    }
}

#[test]
fn a_violation_is_caught() {
    let cases = [
        ("src/model/ids.rs", "use crate::store::Store;", "names crate::store"),
        ("src/content/a.rs", "use crate::{model::Ino, graph::Graph};", "names crate::graph"),
        ("src/content/a.rs", "use crate::{\n    model::{self, Ino},\n    store,\n};", "names crate::store"),
        ("src/store/a/b.rs", "fn f(x: super::super::super::graph::Graph) {}", "names crate::graph"),
        ("src/emulator/mod.rs", "type A = crate::model::Ino;", "names crate::model"),
        ("src/main.rs", "fn main() { onedrivefs::daemon::run() }", "names crate::daemon"),
        ("src/engine/a.rs", "use fuser::INodeNo;", "names the crate fuser"),
        ("src/graph/call.rs", "fn f() -> ::reqwest::Client { todo!() }", "names the crate reqwest"),
        ("src/vfs/a.rs", "use rusqlite as sql;", "names the crate rusqlite"),
        ("src/vfs/a.rs", "fn f() { unsafe { g() } }", "has unsafe code"),
        ("src/extra/mod.rs", "", "is in no layer"),
    ];
    for (path, text, expected) in cases {
        let found = violations(&[Source { path: path.into(), text: text.into() }]);
        assert_eq!(found.len(), 1, "{path}: {text}: {found:?}");
        assert!(found[0].contains(expected), "{found:?}");
    }
    let long = Source { path: "src/vfs/a.rs".into(), text: "\n".repeat(LINES_MAX + 1) };
    assert!(violations(&[long])[0].ends_with("701 lines"));
}

#[test]
fn what_only_looks_like_a_violation_is_not_one() {
    let cases = [
        ("src/model/ids.rs", "// see crate::store\n/* crate::graph /* nested */ fuser::X */ //! unsafe"),
        ("src/model/ids.rs", "const A: &str = \"crate::store unsafe \\\" fuser::X\"; const C: char = '\"';"),
        ("src/model/ids.rs", "const A: &str = r#\"crate::store \" unsafe\"#; const B: char = '\\'';"),
        ("src/store/a.rs", "use super::graph::X; mod graph {} fn f<'a>(x: &'a super::fuser::Y) {}"),
        ("src/vfs/a.rs", "use crate::engine::Engine; fn f(x: self::rusqlite::Y) {}"),
        ("src/fuse/a.rs", "fn f() { unsafe { g() } } use fuser::X; use crate::vfs::{store, graph};"),
    ];
    for (path, text) in cases {
        let found = violations(&[Source { path: path.into(), text: text.into() }]);
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}
