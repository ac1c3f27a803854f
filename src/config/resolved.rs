//! Settings of one mount, put together from all who may say something, and who said what.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::choices::Choices;
use super::file::{ConfigFile, Section};
use super::keys::KEYS;
use super::{ConfigError, Environment, MountSettings};
use crate::model::units;

/// Who said a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A variable of the environment.
    Variable(String),
    /// A line of the configuration file, `PATH:LINE`.
    Line(String),
    /// Nobody.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) | Self::Line(name) => formatter.write_str(name),
            Self::Default => formatter.write_str("default"),
        }
    }
}

/// One value as `config show` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The key.
    pub name: &'static str,
    /// As one writes it; none where that depends.
    pub value: Option<Value>,
    /// Who said it.
    pub origin: Origin,
}

impl Shown {
    /// What holds where there is no value, in words.
    pub fn otherwise(&self) -> &'static str {
        KEYS.iter().find(|key| key.name == self.name).map_or("", |key| key.default)
    }
}

/// A value by its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A switch.
    Bool(bool),
    /// A count or an id.
    Number(u64),
    /// Everything else.
    Text(String),
}

impl fmt::Display for Value {
    /// As TOML has it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(formatter),
            Self::Number(value) => value.fmt(formatter),
            Self::Text(value) => toml::Value::String(value.clone()).fmt(formatter),
        }
    }
}

impl ConfigFile {
    /// Settings of a mount of `drive`; `section` is that of the mount where it has one. What `flags` say comes first,
    /// then the environment, the mount, its account, and the defaults.
    pub fn settings(
        &self,
        section: Option<&Section>,
        drive: &str,
        mountpoint: &Path,
        flags: Choices,
        environment: &Environment,
    ) -> Result<MountSettings, ConfigError> {
        let own = section.map(|section| section.choices.clone()).unwrap_or_default();
        let said = flags.over(Choices::from_environment(environment)?).over(own);
        let defaults = self.defaults().choices.clone();
        let account = said.account.clone().or(defaults.account.clone());
        let account = self.account(account.as_deref().unwrap_or("default"));
        let account = account.map(|section| section.choices.clone()).unwrap_or_default();
        MountSettings::with(drive, mountpoint, said.over(account).over(defaults), environment)
    }

    /// Who says each setting, but for flags.
    fn origins(
        &self,
        section: Option<&Section>,
        account: &str,
        environment: &Environment,
    ) -> BTreeMap<&'static str, Origin> {
        let sections: Vec<&Section> =
            section.into_iter().chain(self.account(account)).chain([self.defaults()]).collect();
        let origin = |name: &str, variable: String| {
            if environment.variable(&variable).is_some_and(|value| !value.is_empty()) {
                return Origin::Variable(variable);
            }
            match sections.iter().find(|section| section.line(name).is_some()) {
                Some(section) => Origin::Line(self.place(section, name)),
                None => Origin::Default,
            }
        };
        KEYS.iter().map(|key| (key.name, origin(key.name, key.variable()))).collect()
    }

    /// All settings of a mount of the file, or of one that it does not name, with where each comes from.
    pub fn shown(
        &self,
        section: Option<&Section>,
        environment: &Environment,
    ) -> Result<Vec<Shown>, ConfigError> {
        let settings = self.settings(section, "me", Path::new("/"), Choices::default(), environment)?;
        let origins = self.origins(section, &settings.account, environment);
        let words = ["drive", "mountpoint", "options"].into_iter().filter_map(|name| {
            let section = section?;
            let value = Some(Value::Text(section.word(name)?.to_owned()));
            Some(Shown { name, value, origin: Origin::Line(self.place(section, name)) })
        });
        let origin = |name: &str| origins.get(name).cloned().unwrap_or(Origin::Default);
        let values = settings.values().into_iter();
        Ok(words.chain(values.map(|(name, value)| Shown { name, value, origin: origin(name) })).collect())
    }
}

impl MountSettings {
    /// Every setting as one writes it, in the order of [`KEYS`].
    fn values(&self) -> Vec<(&'static str, Option<Value>)> {
        let text = |text: String| Some(Value::Text(text));
        let path = |path: &Path| text(path.display().to_string());
        let switch = |value: bool| Some(Value::Bool(value));
        let number = |value: u64| Some(Value::Number(value));
        let value = |name: &str| match name {
            "read-only" => switch(self.read_only),
            "sync" => switch(self.sync),
            "sync-timeout" => text(units::duration(self.sync_timeout)),
            "case-insensitive" => switch(self.case_insensitive),
            "allow-other" => self.allow_other.map(Value::Bool),
            "uid" => number(self.uid.into()),
            "gid" => number(self.gid.into()),
            "file-mode" => text(format!("{:o}", self.file_mode)),
            "dir-mode" => text(format!("{:o}", self.dir_mode)),
            "cache-dir" => path(&self.cache_dir),
            "state-dir" => path(&self.state_dir),
            "graph-url" => text(self.graph_url.to_string()),
            "login-url" => text(self.login_url.to_string()),
            "account" => text(self.account.clone()),
            "cache-size" => self.cache_size.and_then(|bytes| text(units::size(bytes))),
            "metadata-memory" => text(units::size(self.metadata_memory)),
            "min-free" => text(units::size(self.min_free)),
            "settle" => text(units::duration(self.settle)),
            "poll-interval" => text(units::duration(self.poll_interval)),
            "push" => switch(self.push),
            "deny-readers" => text(self.deny_readers.join(":")),
            "passthrough" => switch(self.passthrough),
            "drain-timeout" => text(units::duration(self.drain_timeout)),
            "confirm-above" => number(self.confirm_above),
            "request-rate" => number(self.request_rate.into()),
            "request-burst" => number(self.request_burst.into()),
            "log" => text(self.log.clone()),
            _ => None,
        };
        KEYS.iter().map(|key| (key.name, value(key.name))).collect()
    }
}
