//! The machine's Postgres, as `pg_config` describes it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Paths and version of one Postgres installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    /// The `pg_config` that was asked.
    pub pg_config: PathBuf,
    /// Its version line, such as `PostgreSQL 15.4 (Debian 15.4-1)`.
    pub version: String,
    /// The major version, 14 to 18.
    pub major: u32,
    /// Where `postgres`, `initdb` and `psql` lie.
    pub bin_dir: PathBuf,
    /// Where loadable modules lie.
    pub module_dir: PathBuf,
    /// Where `extension/` lies.
    pub share_dir: PathBuf,
    /// Where `libpq` lies.
    pub library_dir: PathBuf,
    /// Where `postgres.h` lies.
    pub header_dir: PathBuf,
}

impl Installation {
    /// The majors that the extension is compiled for.
    pub const SUPPORTED: std::ops::RangeInclusive<u32> = 14..=18;

    /// Asks one `pg_config`.
    ///
    /// # Errors
    /// When it cannot be run or names no supported major.
    pub fn from_pg_config(pg_config: &Path) -> Result<Self> {
        let ask = |option: &str| -> Result<String> {
            let output = Command::new(pg_config)
                .arg(option)
                .output()
                .with_context(|| format!("cannot run {}", pg_config.display()))?;
            if !output.status.success() {
                bail!("{} {option} failed", pg_config.display());
            }
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        let version = ask("--version")?;
        let major = major_of(&version)
            .with_context(|| format!("{} tells no version: {version:?}", pg_config.display()))?;
        if !Self::SUPPORTED.contains(&major) {
            let (first, last) = Self::SUPPORTED.into_inner();
            bail!("{version} is not supported: majors {first} to {last} are");
        }
        Ok(Installation {
            pg_config: pg_config.to_owned(),
            version,
            major,
            bin_dir: ask("--bindir")?.into(),
            module_dir: ask("--pkglibdir")?.into(),
            share_dir: ask("--sharedir")?.into(),
            library_dir: ask("--libdir")?.into(),
            header_dir: ask("--includedir-server")?.into(),
        })
    }

    /// Finds the installation to use: `PGRX_PG_CONFIG_PATH` where it is set, else the newest supported major
    /// under Debian's directory, else the `pg_config` on the path.
    ///
    /// # Errors
    /// When there is none; the message says what is missing.
    pub fn find() -> Result<Self> {
        if let Some(path) = std::env::var_os("PGRX_PG_CONFIG_PATH") {
            return Self::from_pg_config(Path::new(&path));
        }
        let debian = Self::SUPPORTED.rev().map(debian_pg_config);
        let mut last = None;
        for candidate in debian.filter(|path| path.exists()).chain(["pg_config".into()]) {
            match Self::from_pg_config(&candidate).and_then(Self::require_server) {
                Ok(found) => return Ok(found),
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or_else(|| anyhow::anyhow!("no pg_config"), |error| error.context("no usable Postgres")))
    }

    /// The installation of one major under Debian's directory, where it is complete.
    pub fn of_debian(major: u32) -> Option<Self> {
        Self::from_pg_config(&debian_pg_config(major)).and_then(Self::require_server).ok()
    }

    /// The cargo feature that compiles the extension for this server.
    pub fn feature(&self) -> String {
        format!("pg{}", self.major)
    }

    /// The path of a program of this installation.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    /// Checks that the server and its headers are there and of one version.
    ///
    /// # Errors
    /// When they are not, or when the server does not run; the message says what is missing.
    pub fn require_server(self) -> Result<Self> {
        for path in [self.program("postgres"), self.program("initdb"), self.header_dir.join("postgres.h")] {
            if !path.exists() {
                bail!("{} is missing", path.display());
            }
        }
        let output = Command::new(self.program("postgres")).arg("--version").output()?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            bail!("{} does not run: {}", self.program("postgres").display(), words.trim());
        }
        let server = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let number =
            |line: &str| line.split_whitespace().find(|word| starts_with_digit(word)).map(str::to_owned);
        if number(&server) != number(&self.version) {
            bail!(
                "the server is \"{server}\" but its headers are \"{}\": upgrade both together",
                self.version
            );
        }
        Ok(self)
    }
}

/// Where Debian keeps the `pg_config` of a major.
fn debian_pg_config(major: u32) -> PathBuf {
    format!("/usr/lib/postgresql/{major}/bin/pg_config").into()
}

fn starts_with_digit(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_digit())
}

/// The major version in a line such as `PostgreSQL 15.4 (Debian 15.4-1)` or `PostgreSQL 18devel`.
fn major_of(line: &str) -> Option<u32> {
    let number = line.split_whitespace().find(|word| starts_with_digit(word))?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major_of;

    #[test]
    fn the_major_is_read_from_every_form_of_version_line() {
        assert_eq!(major_of("PostgreSQL 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major_of("PostgreSQL 18devel"), Some(18));
        assert_eq!(major_of("PostgreSQL 17beta2"), Some(17));
        assert_eq!(major_of("something else"), None);
    }
}
