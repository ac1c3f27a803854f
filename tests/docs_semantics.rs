//! Each sentence of `docs/semantics.md` is quoted by a test, or admits that it is not (†).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Sentence numbers, and whether each admits that no test quotes it.
fn sentences(document: &str) -> BTreeMap<u32, bool> {
    let mut found = BTreeMap::new();
    for line in document.lines() {
        let Some((number, rest)) = line.strip_prefix("- **S").and_then(|line| line.split_once("** ")) else {
            continue;
        };
        let number = number.parse().unwrap_or_else(|_| panic!("S{number} is no number"));
        assert!(found.insert(number, rest.starts_with('†')).is_none(), "two sentences are S{number}");
    }
    found
}

/// Numbers that a source quotes: `S17` as a word of a comment.
fn quoted(source: &str) -> Vec<u32> {
    source
        .lines()
        .filter_map(|line| line.split_once("//").map(|(_, comment)| comment))
        .flat_map(|comment| comment.split(|symbol: char| !symbol.is_ascii_alphanumeric()))
        .filter_map(|word| word.strip_prefix('S')?.parse().ok())
        .collect()
}

fn read_all(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_all(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !path.ends_with("docs_semantics.rs")
        {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_sentence_is_held_by_a_test_or_admits_that_it_is_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sentences = sentences(&fs::read_to_string(root.join("docs/semantics.md")).unwrap());
    let mut sources = String::new();
    read_all(&root.join("src"), &mut sources);
    read_all(&root.join("tests"), &mut sources);
    let quoted = quoted(&sources);
    let wrong: Vec<String> = sentences
        .iter()
        .filter_map(|(number, admits)| match (quoted.contains(number), admits) {
            (true, true) => Some(format!("S{number} is quoted by a test: take its † away")),
            (false, false) => Some(format!("S{number} is quoted by no test: write one, or mark it †")),
            _ => None,
        })
        .chain(
            quoted
                .iter()
                .filter(|number| !sentences.contains_key(number))
                .map(|number| format!("a test quotes S{number}, which does not exist")),
        )
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_quotation_is_a_word_in_a_comment() {
    assert_eq!(quoted("// S17, S18: x\nlet S3 = 1; // no\n/// (S4) and xS5 S\n"), [17, 18, 4]);
}
