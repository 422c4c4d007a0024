//! The configuration file. What can be read from the local schema need not be written.

mod direction;
mod table;
pub mod token;

use std::path::{Path, PathBuf};
use std::time::Duration;

use plimsoll_core::row::MAX_BATCH_ROWS;
use plimsoll_core::store::{Failure, Outcome};
use plimsoll_core::sync::Settings;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::{Advise, run as unusable};
use crate::source::{Password, Place, password_of_environment};

pub use direction::Direction;
pub use table::{Constant, TableConfig};

/// The whole file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the agent's memory is kept; beside the configuration where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PathBuf>,
    /// The remote side.
    pub server: ServerConfig,
    /// The local side.
    pub source: SourceConfig,
    /// How a run goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sync: SyncConfig,
    /// The tables to keep level.
    #[serde(default, rename = "table", skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableConfig>,
    /// Where the file stands; relative paths start there.
    #[serde(skip)]
    pub folder: PathBuf,
    /// The file's own path.
    #[serde(skip)]
    pub path: PathBuf,
}

/// `[server]`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// A libpq URL or key=value list.
    pub url: String,
    /// The database as the server registered it.
    pub database_id: Uuid,
    /// A file with the token; none where the login role itself was granted the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

/// `[source]`: one of its kinds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// A SQLite database file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sqlite: Option<PathBuf>,
    /// A Postgres database: a libpq URL or key=value list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<String>,
    /// A MySQL or MariaDB database: `mysql://user@host:port/database`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<String>,
    /// A file with the password, where the url and `PLIMSOLL_SOURCE_PASSWORD` do not give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// Whether manifests that a Postgres database keeps of its own tables are used: yes, where not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_manifests: Option<bool>,
}

impl SourceConfig {
    /// The settings for a place. Its password is not among them.
    pub fn of(place: Place) -> Self {
        match place {
            Place::Sqlite(path) => SourceConfig { sqlite: Some(path), ..Self::default() },
            Place::Postgres { url, .. } => SourceConfig { postgres: Some(url), ..Self::default() },
            Place::Mysql { url, .. } => SourceConfig { mysql: Some(url), ..Self::default() },
        }
    }

    fn check(&self) -> Outcome<()> {
        let kinds = [self.sqlite.is_some(), self.postgres.is_some(), self.mysql.is_some()];
        let wrong = match kinds.iter().filter(|is_given| **is_given).count() {
            0 => "[source] names no database",
            1 if self.sqlite.is_some() && self.password_file.is_some() => {
                "password_file under [source] is for postgres and mysql; a SQLite file has none"
            }
            1 => return Ok(()),
            _ => "[source] names several databases",
        };
        Err(unusable(wrong).advise("give one of sqlite = \"file\", postgres = \"url\", mysql = \"url\""))
    }
}

/// `[sync]`: what differs from the defaults.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncConfig {
    /// How long one batch should take.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub target_batch: Option<Duration>,
    /// How long a run may take.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub run_budget: Option<Duration>,
    /// How soon every row must have been compared by content.
    #[serde(with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub sweep_interval: Option<Duration>,
    /// Rows in the first window of a table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window_rows: Option<u64>,
    /// The most rows in a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_window_rows: Option<u64>,
    /// Rows of the tail that each run compares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail_rows: Option<u64>,
    /// The most rows in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_rows: Option<usize>,
    /// The most bytes in a batch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_batch_bytes: Option<usize>,
}

fn is_default(sync: &SyncConfig) -> bool {
    *sync == SyncConfig::default()
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// A `Run` failure that says which setting is wrong, and where in the file.
    pub fn load(path: &Path) -> Outcome<Config> {
        let text = std::fs::read_to_string(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => unusable(format!("there is no configuration {}", path.display()))
                .advise("write one with \"plimsoll init\", or name it with --config"),
            _ => unusable(format!("the configuration {} cannot be read: {error}", path.display())),
        })?;
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let mut config = Self::parse(&text).map_err(|mut failure| {
            failure.message = format!("the configuration {}: {}", path.display(), failure.message);
            failure
        })?;
        config.folder = folder;
        config.path = path.to_owned();
        Ok(config)
    }

    /// Reads the file's text.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn parse(text: &str) -> Outcome<Config> {
        // The parser's message names line, column and setting over several lines.
        let config: Config = toml::from_str(text).map_err(|error| {
            let place = error.span().map(|span| {
                let line = text.get(..span.start).map_or(0, |before| before.matches('\n').count()) + 1;
                format!("line {line}: ")
            });
            let message = error.message().replace('\n', "; ");
            unusable(format!("{}{message}", place.unwrap_or_default()))
                .advise("docs/client.md lists every setting")
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Outcome<()> {
        self.source.check()?;
        let wrong = |what: String| -> Outcome<()> { Err(unusable(what)) };
        for (i, table) in self.tables.iter().enumerate() {
            let earlier = &self.tables[..i];
            if earlier.iter().any(|other| other.name.eq_ignore_ascii_case(&table.name)) {
                return wrong(format!("table \"{}\" is configured twice", table.name));
            }
            if let Some(remote) = table
                .relation()
                .filter(|relation| earlier.iter().any(|other| other.relation().as_ref() == Some(relation)))
            {
                let remote = remote.text();
                return wrong(format!("two tables are configured for \"{remote}\""));
            }
            table.check()?;
        }
        let sync = &self.sync;
        for (name, duration) in [("target_batch", sync.target_batch), ("run_budget", sync.run_budget)] {
            if duration.is_some_and(|duration| duration < Duration::from_millis(10)) {
                return wrong(format!("{name} must be 10ms or more"));
            }
        }
        for (name, number) in [
            ("window_rows", sync.window_rows),
            ("max_window_rows", sync.max_window_rows),
            ("tail_rows", sync.tail_rows),
            ("max_batch_rows", sync.max_batch_rows.map(|rows| rows as u64)),
            ("max_batch_bytes", sync.max_batch_bytes.map(|bytes| bytes as u64)),
        ] {
            if number == Some(0) {
                return wrong(format!("{name} must be 1 or more"));
            }
        }
        if sync.max_batch_rows.is_some_and(|rows| rows > MAX_BATCH_ROWS as usize) {
            return wrong(format!("max_batch_rows must be {MAX_BATCH_ROWS} or less"));
        }
        Ok(())
    }

    /// The file as text.
    ///
    /// # Errors
    /// Where a value has no form in TOML, such as a path that is not UTF-8.
    pub fn to_toml(&self) -> Outcome<String> {
        toml::to_string_pretty(self).map_err(|error| unusable(format!("the configuration: {error}")))
    }

    /// The local database.
    ///
    /// # Errors
    /// A `Run` failure where the password's file cannot be read, or others can read it.
    pub fn source_place(&self) -> Outcome<Place> {
        let SourceConfig { sqlite, postgres, mysql, password_file, .. } = &self.source;
        let password = || match (password_of_environment(), password_file) {
            (None, Some(path)) => {
                token::read_secret(&self.folder.join(path), "password").map(Password).map(Some)
            }
            (password, _) => Ok(password),
        };
        match (sqlite, postgres, mysql) {
            (Some(path), ..) => Ok(Place::Sqlite(self.folder.join(path))),
            (_, Some(url), _) => Ok(Place::Postgres { url: url.clone(), password: password()? }),
            (_, _, Some(url)) => Ok(Place::Mysql { url: url.clone(), password: password()? }),
            _ => self.source.check().and(Err(unusable("[source] names no database"))),
        }
    }

    /// The path of the agent's memory.
    pub fn state_path(&self) -> PathBuf {
        match &self.state {
            Some(path) => self.folder.join(path),
            None => self.path.with_extension("state.json"),
        }
    }

    /// The token file's path, where there is one.
    pub fn token_path(&self) -> Option<PathBuf> {
        self.server.token_file.as_ref().map(|path| self.folder.join(path))
    }

    /// The core's settings.
    pub fn settings(&self, run_interval: Option<Duration>, dry_run: bool) -> Settings {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut settings = Settings { dry_run, ..Settings::default() };
        let sync = &self.sync;
        let set = |to: &mut u64, from: Option<Duration>| {
            if let Some(duration) = from {
                *to = micros(duration);
            }
        };
        set(&mut settings.target_batch, sync.target_batch);
        set(&mut settings.run_budget, sync.run_budget);
        set(&mut settings.sweep_interval, sync.sweep_interval);
        set(&mut settings.run_interval, run_interval);
        settings.window_rows = sync.window_rows.unwrap_or(settings.window_rows);
        settings.max_window_rows = sync.max_window_rows.unwrap_or(settings.max_window_rows);
        settings.tail_rows = sync.tail_rows.unwrap_or(settings.tail_rows);
        settings.max_batch_rows = sync.max_batch_rows.unwrap_or(settings.max_batch_rows);
        settings.max_batch_bytes = sync.max_batch_bytes.unwrap_or(MAX_BATCH_BYTES);
        settings
    }
}

/// The most bytes in a batch, with what keeping each row takes: a batch exists a few times over while it is sent, and the client's memory goes
/// with it (docs/performance.md).
const MAX_BATCH_BYTES: usize = 6 << 20;

/// A failure for a wrong setting outside the file.
pub fn wrong_setting(message: impl Into<String>) -> Failure {
    unusable(message)
}

#[cfg(test)]
mod tests;
