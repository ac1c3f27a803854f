//! The configuration file: `[defaults]`, `[accounts.NAME]` and `[mounts.NAME]`, each with settings and, of accounts and
//! mounts, a few words of their own ([`MOUNT_KEYS`], [`ACCOUNT_KEYS`]). What it does not know is a mistake.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::choices::{Choices, Refusal, refuse};
use super::keys::{ACCOUNT_KEYS, KEYS, Key, MOUNT_KEYS, closest};
use super::options::parse_options;
use super::{ConfigError, Environment};

/// Words that mean drives, and therefore no mounts of the file.
const RESERVED: [&str; 2] = ["me", "all"];
/// What a mistake is about that makes a line no TOML.
const FORM: &str = "configuration";
/// The tables there are.
const TABLES: [&str; 3] = ["defaults", "accounts", "mounts"];

/// What a configuration file says.
#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    path: PathBuf,
    defaults: Section,
    accounts: BTreeMap<String, Section>,
    mounts: BTreeMap<String, Section>,
}

/// One table of the file.
#[derive(Clone, Debug, Default)]
pub struct Section {
    pub(super) choices: Choices,
    words: BTreeMap<&'static str, String>,
    lines: BTreeMap<&'static str, usize>,
}

impl Section {
    /// What it says besides settings, such as `drive` or `client-id`.
    pub fn word(&self, name: &str) -> Option<&str> {
        self.words.get(name).map(String::as_str)
    }

    /// The line that sets a key.
    pub fn line(&self, name: &str) -> Option<usize> {
        self.lines.get(name).copied()
    }

    /// Which drive; of mounts.
    pub fn drive(&self) -> Option<&str> {
        self.word("drive")
    }

    /// Where it is mounted; of mounts.
    pub fn mountpoint(&self) -> Option<&Path> {
        self.word("mountpoint").map(Path::new)
    }
}

impl ConfigFile {
    /// Reads the file of this environment; a missing one says nothing. The first mistake, if there are any.
    pub fn read(environment: &Environment) -> Result<Self, ConfigError> {
        let (file, mistakes) = Self::examine(environment)?;
        mistakes.into_iter().next().map_or(Ok(file), Err)
    }

    /// Reads the file, and tells all that is wrong in it. Fails where it cannot be read.
    pub fn examine(environment: &Environment) -> Result<(Self, Vec<ConfigError>), ConfigError> {
        let path = environment.config_file();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(missing) if missing.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(other) => {
                let what = "configuration".to_owned();
                let source_name = path.display().to_string();
                let remedy = "make it a text file that can be read".to_owned();
                return Err(ConfigError { source_name, what, why: other.to_string(), remedy });
            }
        };
        let home = environment.variable("HOME").map(PathBuf::from);
        let mut reading = Reading { path: &path, text: &text, home, mistakes: Vec::new() };
        let file = reading.file();
        let mut mistakes = reading.mistakes;
        mistakes.sort_by_key(|(line, _)| *line);
        // Where the form is wrong, what follows from that says nothing.
        mistakes.dedup_by(|later, former| later.0 == former.0 && former.1.what == FORM);
        Ok((file, mistakes.into_iter().map(|(_, mistake)| mistake).collect()))
    }

    /// Where it is, or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What holds for all mounts.
    pub fn defaults(&self) -> &Section {
        &self.defaults
    }

    /// What it says of an account.
    pub fn account(&self, name: &str) -> Option<&Section> {
        self.accounts.get(name)
    }

    /// How many accounts it speaks of.
    pub fn accounts(&self) -> usize {
        self.accounts.len()
    }

    /// The mount with this name.
    pub fn mount(&self, name: &str) -> Option<&Section> {
        self.mounts.get(name)
    }

    /// All mounts, by name.
    pub fn mounts(&self) -> impl Iterator<Item = (&str, &Section)> {
        self.mounts.iter().map(|(name, section)| (name.as_str(), section))
    }

    /// `PATH:LINE`, where a key of a section is set.
    pub fn place(&self, section: &Section, key: &str) -> String {
        match section.line(key) {
            Some(line) => format!("{}:{line}", self.path.display()),
            None => self.path.display().to_string(),
        }
    }

    /// The mount that was asked for by this name, or why there is none.
    pub fn named(&self, name: &str) -> Result<&Section, ConfigError> {
        self.mount(name).ok_or_else(|| ConfigError {
            source_name: self.path.display().to_string(),
            what: name.to_owned(),
            why: format!("there is no [mounts.{name}]"),
            remedy: match closest(name, self.mounts.keys().map(String::as_str)) {
                Some(near) => format!("did you mean '{near}'?"),
                None => "add it, or say where: onedrivefs mount DRIVE <MOUNTPOINT>".to_owned(),
            },
        })
    }
}

/// One reading of a file; what is wrong is collected with its line.
struct Reading<'a> {
    path: &'a Path,
    text: &'a str,
    home: Option<PathBuf>,
    mistakes: Vec<(usize, ConfigError)>,
}

type Table<'a> = DeTable<'a>;

impl Reading<'_> {
    fn file(&mut self) -> ConfigFile {
        let mut file = ConfigFile { path: self.path.to_owned(), ..ConfigFile::default() };
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in errors {
            let at = error.span().map_or(0, |span| span.start);
            self.wrong(
                at,
                "configuration",
                (error.message().replace('\n', " "), "write it as TOML has it".into()),
            );
        }
        for (name, value) in table.get_ref() {
            let at = name.span().start;
            match (name.get_ref().as_ref(), value.get_ref()) {
                ("defaults", DeValue::Table(table)) => file.defaults = self.section(table, &[]),
                ("accounts", DeValue::Table(table)) => file.accounts = self.sections(table, "accounts"),
                ("mounts", DeValue::Table(table)) => file.mounts = self.sections(table, "mounts"),
                (other, _) => self.wrong(at, other, no_table(other)),
            }
        }
        self.compare(&file);
        file
    }

    /// Mounts need a drive, and a place of their own.
    fn compare(&mut self, file: &ConfigFile) {
        let mut places: BTreeMap<&Path, &str> = BTreeMap::new();
        for (name, mount) in file.mounts() {
            let Some(place) = mount.mountpoint() else { continue };
            if let Some(other) = places.insert(place, name) {
                let why = format!("mount '{other}' is there already");
                let line = mount.line("mountpoint").unwrap_or(1);
                self.wrong_on(line, "mountpoint", (why, "give each a directory of its own".into()));
            }
        }
    }

    fn sections(&mut self, table: &Table<'_>, kind: &str) -> BTreeMap<String, Section> {
        let mut sections = BTreeMap::new();
        for (name, value) in table {
            let at = name.span().start;
            let DeValue::Table(inner) = value.get_ref() else {
                let refusal =
                    (format!("'{}' is no table", name.get_ref()), format!("write it below [{kind}.NAME]"));
                self.wrong(at, kind, refusal);
                continue;
            };
            let title = format!("{kind}.{}", name.get_ref());
            if let Err(refusal) = check_name(name.get_ref(), kind) {
                self.wrong(at, &title, refusal);
            }
            let own = if kind == "mounts" { MOUNT_KEYS } else { ACCOUNT_KEYS };
            let section = self.section(inner, own);
            if kind == "mounts" && !inner.keys().any(|key| key.get_ref() == "drive") {
                let remedy = "add drive = \"me\", or what 'onedrivefs drives' lists";
                self.wrong(at, &title, ("it does not say which drive".into(), remedy.into()));
            }
            if kind == "accounts"
                && let Some(line) = section.line("account")
            {
                let why = "an account cannot be another one".to_owned();
                self.wrong_on(line, "account", (why, "write it in [defaults] or [mounts.NAME]".into()));
            }
            sections.insert(name.get_ref().clone().into_owned(), section);
        }
        sections
    }

    /// Settings, and the words `own` besides them.
    fn section(&mut self, table: &Table<'_>, own: &'static [Key]) -> Section {
        let mut section = Section::default();
        for (name, value) in table {
            let at = name.span().start;
            let said = name.get_ref().replace('_', "-");
            let Some(key) = KEYS.iter().chain(own).find(|key| key.name == said) else {
                self.wrong(at, name.get_ref(), unknown(&said, own));
                continue;
            };
            let is_own = own.iter().any(|own| own.name == key.name);
            let set =
                single(value).and_then(|text| self.expanded(key.name, text)).and_then(|text| match is_own {
                    true => take_word(&mut section, key.name, text),
                    false => section.choices.set(key.name, &text),
                });
            match set {
                Ok(()) => drop(section.lines.insert(key.name, self.line(at))),
                Err(refusal) => self.wrong(at, key.name, refusal),
            }
        }
        section
    }

    /// A directory is absolute, or below the home directory: the file is read from anywhere.
    fn expanded(&self, key: &str, text: String) -> Result<String, Refusal> {
        if !["mountpoint", "cache-dir", "state-dir"].contains(&key) || text.starts_with('/') {
            return Ok(text);
        }
        match (text.strip_prefix("~/"), &self.home) {
            (Some(below), Some(home)) => match home.join(below).into_os_string().into_string() {
                Ok(path) => Ok(path),
                Err(_) => refuse("the home directory's path is no text".into(), "write an absolute path"),
            },
            (Some(_), None) => refuse("there is no home directory here".into(), "write an absolute path"),
            (None, _) => refuse(format!("'{text}' is not absolute"), "begin it with / or with ~/"),
        }
    }

    fn line(&self, at: usize) -> usize {
        self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
    }

    fn wrong(&mut self, at: usize, what: &str, refusal: Refusal) {
        self.wrong_on(self.line(at), what, refusal);
    }

    fn wrong_on(&mut self, line: usize, what: &str, (why, remedy): Refusal) {
        let source_name = format!("{}:{line}", self.path.display());
        self.mistakes.push((line, ConfigError { source_name, what: what.to_owned(), why, remedy }));
    }
}

fn take_word(section: &mut Section, name: &'static str, text: String) -> Result<(), Refusal> {
    if text.is_empty() {
        return refuse("it is empty".into(), "give it a value, or leave it out");
    }
    if name == "options" {
        let options = parse_options(&text).map_err(|message| match message.split_once("; ") {
            Some((why, remedy)) => (why.to_owned(), remedy.to_owned()),
            None => (message, "see 'onedrivefs mount --help'".to_owned()),
        })?;
        let kernel_options = options.kernel_options.clone();
        if options != (Choices { kernel_options: kernel_options.clone(), ..Choices::default() }) {
            return refuse(
                "it holds a setting".into(),
                "write that as a key of its own, such as read-only = true",
            );
        }
        section.choices.kernel_options = kernel_options;
    }
    section.words.insert(name, text);
    Ok(())
}

/// A value as it would be written on a command line.
fn single(value: &Spanned<DeValue<'_>>) -> Result<String, Refusal> {
    match value.get_ref() {
        DeValue::String(text) => Ok(text.clone().into_owned()),
        DeValue::Integer(number) if number.radix() == 10 => Ok(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Ok(flag.to_string()),
        DeValue::Integer(_) | DeValue::Float(_) => refuse(
            "it is no plain whole number".into(),
            "write it with digits only, or between quotation marks",
        ),
        DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            refuse("it is no single value".into(), "write a string, a whole number or true/false")
        }
    }
}

fn check_name(name: &str, kind: &str) -> Result<(), Refusal> {
    if kind == "accounts" {
        return Choices::default().set("account", name);
    }
    if RESERVED.contains(&name) {
        return refuse(format!("'{name}' is the name of a drive"), "give the mount another name");
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.starts_with('-') || !name.bytes().all(allowed) {
        return refuse(format!("'{name}' is no name of a mount"), "use letters, digits and - _ .");
    }
    Ok(())
}

fn unknown(name: &str, own: &'static [Key]) -> Refusal {
    let remedy = match closest(name, KEYS.iter().chain(own).map(|key| key.name)) {
        Some(near) => format!("did you mean '{near}'?"),
        None => "see 'onedrivefs config --help' for where they are listed".to_owned(),
    };
    (format!("there is no setting '{name}'"), remedy)
}

fn no_table(name: &str) -> Refusal {
    if TABLES.contains(&name) {
        return (format!("'{name}' is a table"), format!("write [{name}]"));
    }
    let remedy = match closest(name, TABLES.into_iter()) {
        Some(near) => format!("did you mean [{near}]?"),
        None => "settings stand below [defaults], [accounts.NAME] or [mounts.NAME]".to_owned(),
    };
    (format!("there is no table '{name}'"), remedy)
}
