//! Finds what building and testing need, and installs what is missing: nothing twice, and not without saying
//! what and why. On a system without `apt-get` it says what to install.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use plimsoll_cluster::Installation;

use crate::command;

/// Something that must be there, and the Debian packages that bring it.
struct Need {
    packages: Vec<String>,
    reason: &'static str,
}

/// A program that a command needs besides what building and testing do: its name, how it is called to see
/// whether it is there, its package, and what it is for.
pub(crate) type Program = (&'static str, &'static [&'static str], &'static str, &'static str);

/// What asks whether Python can make an environment with `pip` in it: Debian has the module `venv` without it.
const PYTHON: &[&str] = &["-c", "import ensurepip, venv"];

/// What the benchmarks need.
pub(crate) const BENCH: &[Program] = &[
    ("sqlite3", &["-version"], "sqlite3", "the first sync is measured against `sqlite3 -csv | psql`"),
    MARIADB,
    (
        "mariadb",
        &["--version"],
        "mariadb-client-core",
        "the first sync is measured against `mariadb --batch | psql`",
    ),
];

const MARIADB: Program = (
    "mariadbd",
    &["--version"],
    "mariadb-server-core",
    "private MariaDB servers, for what is tested and measured with that kind of source",
);

/// What the tests need.
pub(crate) const TEST: &[Program] = &[
    ("python3", PYTHON, "python3-venv", "pgspot, which checks the SQL scripts, is a Python program"),
    (
        "pgbouncer",
        &["--version"],
        "pgbouncer",
        "a pooler between clients and a private server; the service that Debian starts with it is not used",
    ),
    MARIADB,
];

/// The tools that the benchmarks compare with, where they are asked to.
pub(crate) const PEERS: &[Program] = &[
    ("pg_comparator", &["--version"], "postgresql-comparator", "another tool that compares tables"),
    ("python3", PYTHON, "python3-venv", "reladiff, another tool, is a Python program"),
];

/// Looks for everything and for the programs, installs what is missing, and answers the Postgres installation to use.
pub(crate) fn run_with(programs: &[Program]) -> Result<Installation> {
    let missing = missing(programs)?;
    if !missing.is_empty() {
        install(&missing, programs)?;
        if let Some(need) = self::missing(programs)?.first() {
            bail!("{} is still missing ({})", need.packages.join(", "), need.reason);
        }
    }
    Installation::find()
}

fn missing(programs: &[Program]) -> Result<Vec<Need>> {
    let mut needs = Vec::new();
    if let Err(error) = Installation::find() {
        if std::env::var_os("PGRX_PG_CONFIG_PATH").is_some() {
            return Err(error.context("PGRX_PG_CONFIG_PATH names no usable Postgres"));
        }
        needs.push(Need {
            packages: postgres_packages(),
            reason: "the Postgres server that private clusters run, and the headers of the same version to \
                     compile the extension with; the machine's own clusters are not touched",
        });
    }
    if !runs("clang", &["--version"]) || !has_libclang() {
        needs.push(Need {
            packages: vec!["clang".into(), "libclang-dev".into()],
            reason: "libclang reads Postgres' headers when the extension is compiled",
        });
    }
    if !runs("cc", &["--version"]) || !Path::new("/usr/include/stdlib.h").exists() {
        needs.push(Need {
            packages: vec!["build-essential".into()],
            reason: "a C compiler, for the SQLite that the client brings along",
        });
    }
    if !runs("pkg-config", &["--version"]) || !runs("pkg-config", &["--exists", "openssl"]) {
        needs.push(Need {
            packages: vec!["pkg-config".into(), "libssl-dev".into()],
            reason: "OpenSSL, for the client's TLS",
        });
    }
    if !runs("kill", &["-l"]) {
        needs.push(Need {
            packages: vec!["procps".into()],
            reason: "the tests end clients and servers with `kill`",
        });
    }
    for (program, arguments, package, reason) in programs {
        if !runs(program, arguments) {
            needs.push(Need { packages: vec![(*package).to_owned()], reason });
        }
    }
    Ok(needs)
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    // Debian keeps servers where only root looks for programs.
    let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
    Command::new(program)
        .args(arguments)
        .env("PATH", path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether bindgen will find libclang: where it is told to look, or where systems keep it.
fn has_libclang() -> bool {
    let holds = |directory: &Path| {
        std::fs::read_dir(directory).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                name.starts_with("libclang") && !name.starts_with("libclang-cpp") && name.contains(".so")
            })
        })
    };
    if let Some(path) = std::env::var_os("LIBCLANG_PATH") {
        return Path::new(&path).is_file() || holds(Path::new(&path));
    }
    let llvm = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let llvm = llvm.filter(|entry| entry.file_name().to_string_lossy().starts_with("llvm"));
    llvm.map(|entry| entry.path().join("lib"))
        .chain(
            ["/usr/lib64", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"]
                .map(Into::into),
        )
        .any(|directory| holds(&directory))
}

/// The server and header packages of the major that is installed already, else of the distribution's own.
fn postgres_packages() -> Vec<String> {
    let major = Installation::SUPPORTED
        .rev()
        .map(|major: u32| major.to_string())
        .find(|major| Path::new(&format!("/usr/lib/postgresql/{major}/bin/postgres")).exists())
        .or_else(default_major)
        .unwrap_or_else(|| "15".to_owned());
    vec![format!("postgresql-{major}"), format!("postgresql-server-dev-{major}")]
}

/// The major that the distribution's `postgresql` package stands for.
fn default_major() -> Option<String> {
    let output = Command::new("apt-cache").args(["depends", "postgresql"]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names = text.split_whitespace().filter_map(|word| word.strip_prefix("postgresql-"));
    names.filter(|rest| rest.parse::<u32>().is_ok()).map(str::to_owned).next()
}

fn install(needs: &[Need], programs: &[Program]) -> Result<()> {
    let root = geteuid().is_root();
    if !runs("apt-get", &["--version"]) {
        let list: String =
            needs.iter().map(|need| format!("\n  {}: {}", need.packages.join(", "), need.reason)).collect();
        bail!("something is missing, and this system has no apt-get; install what corresponds to:{list}");
    }
    let sudo = runs("sudo", &["--version"]);
    let apt = |arguments: &[&str]| -> Result<()> {
        let mut command = if root { Command::new("apt-get") } else { Command::new("sudo") };
        if !root {
            // sudo keeps no environment, so the setting goes along as an argument.
            command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        }
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-y", "-q"]).args(arguments);
        command::run(&mut command)
    };
    for need in needs {
        println!("Missing: {} ({})", need.packages.join(", "), need.reason);
    }
    if !root && !sudo {
        bail!("run as root: apt-get install {}", names(needs).join(" "));
    }
    println!("Installing with apt-get{}", if root { "" } else { " through sudo" });
    apt(&["update"]).context("the package lists cannot be refreshed")?;
    // The default of the `postgresql` package is known only with fresh lists.
    let packages = names(&missing(programs)?);
    let mut arguments = vec!["install", "--no-install-recommends"];
    arguments.extend(packages.iter().map(String::as_str));
    apt(&arguments)
}

fn names(needs: &[Need]) -> Vec<String> {
    needs.iter().flat_map(|need| need.packages.iter().cloned()).collect()
}
