//! The operating-system user that a private server runs as: ourselves, or an ordinary one when we are root.

use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use nix::unistd::{User, geteuid};

/// Who runs the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// `None`: ourselves.
    other: Option<(u32, u32)>,
    name: String,
}

impl Runner {
    /// Ourselves; under root the user `postgres`, or `nobody` where there is none.
    ///
    /// # Errors
    /// When we are root and neither user exists.
    pub fn current() -> Result<Self> {
        let own = geteuid();
        if !own.is_root() {
            let name = User::from_uid(own).ok().flatten().map_or_else(|| own.to_string(), |user| user.name);
            return Ok(Runner { other: None, name });
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name).context("cannot look up a user")? {
                let other = Some((user.uid.as_raw(), user.gid.as_raw()));
                return Ok(Runner { other, name: user.name });
            }
        }
        anyhow::bail!("Postgres refuses to run as root, and there is no user postgres or nobody to run it as")
    }

    /// The user's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs as this user, from a directory that every user can enter.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        // A server that inherits this puts backtraces into the DETAIL of every error.
        command.current_dir("/").stdin(Stdio::null()).env_remove("RUST_BACKTRACE");
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Whether this user can reach a directory: every parent must let it through.
    pub fn reaches(&self, directory: &Path) -> bool {
        self.command("test")
            .arg("-x")
            .arg(directory)
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    }

    /// Makes a directory that belongs to this user and that nobody else can enter.
    ///
    /// # Errors
    /// When it exists already or cannot be made.
    pub fn make_directory(&self, directory: &Path) -> Result<()> {
        std::fs::create_dir(directory)
            .and_then(|()| std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700)))
            .and_then(|()| match self.other {
                Some((uid, gid)) => chown(directory, Some(uid), Some(gid)),
                None => Ok(()),
            })
            .with_context(|| format!("cannot make the directory {}", directory.display()))
    }
}
