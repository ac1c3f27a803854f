//! What `--seed` means, for `demo` and `emulator`.

use std::path::PathBuf;

use crate::daemon::SeedTree;
use crate::model::units;

/// Reads `empty`, `sample`, `files=N[,per-folder=N][,size=S]`, or a directory.
pub fn parse(text: &str) -> Result<SeedTree, String> {
    match text {
        "empty" => Ok(SeedTree::Empty),
        "sample" => Ok(SeedTree::Sample),
        _ if text.starts_with("files=") => parse_synthetic(text),
        _ => {
            let path = PathBuf::from(text);
            let path = path.canonicalize().map_err(|error| format!("{text}: {error}"))?;
            if path.is_dir() { Ok(SeedTree::Directory(path)) } else { Err(format!("{text} is no directory")) }
        }
    }
}

fn parse_synthetic(text: &str) -> Result<SeedTree, String> {
    let (mut files, mut per_folder, mut size) = (0, 1000, 4096);
    for part in text.split(',') {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        let number = || value.parse::<u32>().map_err(|_| format!("'{value}' is no count"));
        match name {
            "files" => files = number()?,
            "per-folder" => per_folder = number()?.max(1),
            "size" => size = units::parse_size(value).map_err(|error| error.to_string())?,
            _ => return Err(format!("'{name}' is unknown; write files=N,per-folder=N,size=S")),
        }
    }
    Ok(SeedTree::Synthetic { files, per_folder, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_word_a_number_of_files_or_a_directory() {
        assert_eq!(parse("empty"), Ok(SeedTree::Empty));
        assert_eq!(parse("sample"), Ok(SeedTree::Sample));
        let many = SeedTree::Synthetic { files: 10, per_folder: 5, size: 1 << 20 };
        assert_eq!(parse("files=10,per-folder=5,size=1MiB"), Ok(many));
        assert_eq!(parse("/"), Ok(SeedTree::Directory("/".into())));
        assert!(parse("files=x").is_err() && parse("files=1,depth=2").is_err());
        assert!(parse("/nowhere").is_err() && parse("/proc/self/stat").is_err());
    }
}
