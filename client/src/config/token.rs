//! The token: from the environment, or from a file that nobody else can read.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use plimsoll_core::store::Outcome;
use plimsoll_core::token::Token;

use crate::failure::{Advise, run as unusable};

/// The environment variable that holds a token.
pub const TOKEN_VARIABLE: &str = "PLIMSOLL_TOKEN";

/// The token of a configuration: `PLIMSOLL_TOKEN`, else the file; `None` where neither is given.
///
/// # Errors
/// A `Run` failure where the file is missing, others can read it, or it holds no token.
pub fn find(file: Option<&Path>) -> Outcome<Option<Token>> {
    if let Some(text) = std::env::var_os(TOKEN_VARIABLE) {
        return parse(&text.to_string_lossy(), TOKEN_VARIABLE).map(Some);
    }
    file.map(read).transpose()
}

fn parse(text: &str, place: &str) -> Outcome<Token> {
    Token::parse(text).ok_or_else(|| {
        unusable(format!("{place} holds no token"))
            .advise("a token is \"plimsoll_\" and 64 hexadecimal digits, as register_database showed it")
    })
}

/// Reads a token file.
///
/// # Errors
/// As [`find`].
pub fn read(path: &Path) -> Outcome<Token> {
    parse(&read_secret(path, "token")?, &path.display().to_string())
}

/// Reads a file that holds a secret of this kind, which nobody else can read: its text without white space around it.
///
/// # Errors
/// A `Run` failure where it is missing, or others can read it.
pub fn read_secret(path: &Path, kind: &str) -> Outcome<String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            let missing = unusable(format!("there is no {kind} file {}", path.display()));
            match kind {
                "token" => {
                    missing.advise(format!("write it with \"plimsoll init\", or set {TOKEN_VARIABLE}"))
                }
                _ => missing.advise("write it, or take its setting out"),
            }
        }
        _ => unusable(format!("the {kind} file {} cannot be read: {error}", path.display())),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            let message =
                format!("others can read the {kind} file {} (mode {:03o})", path.display(), mode & 0o777);
            return Err(unusable(message).advise(format!("chmod 600 {}", path.display())));
        }
    }
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(failed)
}

/// Writes a token file that only this user can read.
///
/// # Errors
/// A `Run` failure where it cannot be written.
pub fn write(path: &Path, token: &Token) -> Outcome<()> {
    let written = || {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path)?;
        // The file may have been there with another mode.
        #[cfg(unix)]
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        writeln!(file, "{}", token.reveal())?;
        file.sync_all()
    };
    written()
        .map_err(|error| unusable(format!("the token file {} cannot be written: {error}", path.display())))
}
