//! `plimsoll init`: finds the local tables and writes a configuration.

use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use plimsoll_core::store::Outcome;
use plimsoll_core::token::Token;

use crate::cli::InitArgs;
use crate::config::token::{self, TOKEN_VARIABLE};
use crate::config::{Config, ServerConfig, SourceConfig, SyncConfig, TableConfig, wrong_setting};
use crate::discover::discover;
use crate::failure::{Advise, run as no_run};
use crate::names::Relation;
use crate::server::address::Address;
use crate::source::local::{LocalDatabase, same_name};
use crate::source::{self, Place};

/// Writes the configuration, and the token's file where a token is given.
///
/// # Errors
/// A `Run` failure where something cannot be read or written, or is there already.
pub fn init(path: &Path, arguments: &InitArgs) -> Outcome<()> {
    if path.exists() && !arguments.force {
        return Err(no_run(format!("{} is there already", path.display()))
            .advise("--force writes over it, --config names another"));
    }
    let address = Address::parse(&arguments.server)?;
    if address.is_exposed() {
        errln!("warning: {}", address.exposure());
    }
    if has_password(&arguments.server) {
        errln!("warning: the url holds a password, and the configuration will: PGPASSWORD keeps it out");
    }
    let place = Place::parse(&arguments.source)?;
    let mut local = source::open(&place)?;
    let Found { tables, unversioned, keyless, indexes } = find_tables(local.as_mut(), arguments)?;
    let token_file = match arguments.no_token {
        true => None,
        false => Some(store_token(path, arguments)?),
    };
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let count = tables.len();
    let config = Config {
        state: None,
        server: ServerConfig {
            url: arguments.server.clone(),
            database_id: arguments.database_id,
            token_file,
        },
        source: SourceConfig::of(place.seen_from(|path| seen_from(&folder, path))),
        sync: SyncConfig::default(),
        tables,
        folder,
        path: path.to_owned(),
    };
    write_config(path, &config.to_toml()?)?;
    outln!("{} tables are in {}", count, path.display());
    if !unversioned.is_empty() {
        outln!(
            "\nNo version column by a usual name (--version-column names another): each run compares all rows of"
        );
        outln!("  {}", unversioned.join(", "));
    }
    if !keyless.is_empty() {
        outln!("\nNo primary key, and no unique index over NOT NULL columns: equal rows are counted in");
        outln!("  {}", keyless.join(", "));
    }
    if !indexes.is_empty() {
        outln!("\nThese indexes on the local database let it be read without sorting:");
        indexes.iter().for_each(|statement| outln!("  {statement};"));
    }
    outln!("\nNext: plimsoll schema | psql ... (the managed tables), then plimsoll sync");
    Ok(())
}

/// What was found in a local database.
#[derive(Default)]
struct Found {
    tables: Vec<TableConfig>,
    /// Tables without a version column.
    unversioned: Vec<String>,
    /// Tables without a key.
    keyless: Vec<String>,
    /// Statements that would make reading cheaper.
    indexes: Vec<String>,
}

fn find_tables(local: &mut dyn LocalDatabase, arguments: &InitArgs) -> Outcome<Found> {
    let mut all = Found::default();
    for name in local.table_names()? {
        let table = local.table(&name)?;
        let found = discover(&table, arguments.version_column.as_deref());
        match found.version {
            Some(version) if !table.is_indexed_by(version) => {
                let key = found.key.iter().copied();
                all.indexes.push(index_statement(local, &table.relation, &name, version, key));
            }
            Some(_) => {}
            None => all.unversioned.push(name.clone()),
        }
        let primary: Vec<&str> = table.primary_key().iter().map(|column| column.name.as_str()).collect();
        let key = (found.key != primary).then(|| found.key.iter().map(|name| (*name).to_owned()).collect());
        if found.key.is_empty() {
            all.keyless.push(name.clone());
        }
        let own = local.managed_name(&name);
        let managed = Relation { schema: own.schema.or(Some(arguments.schema.clone())), ..own };
        all.tables.push(TableConfig {
            name,
            remote: Some(managed.text()),
            key,
            version: found.version.map(str::to_owned),
            modified: found.modified.map(str::to_owned),
            ..TableConfig::default()
        });
    }
    Ok(all)
}

/// The index that lets a table be read in the order of its versions.
pub fn index_statement<'n>(
    local: &dyn LocalDatabase,
    relation: &str,
    table: &str,
    version: &str,
    key: impl Iterator<Item = &'n str>,
) -> String {
    let mut columns = vec![local.quoted(version)];
    columns.extend(key.filter(|name| !same_name(name, version)).map(|name| local.quoted(name)));
    let name = local.quoted(&format!("{table}_{version}"));
    format!("CREATE INDEX {name} ON {relation} ({})", columns.join(", "))
}

fn has_password(url: &str) -> bool {
    Address::parse(url).is_ok_and(|address| address.config.get_password().is_some())
        && std::env::var_os("PGPASSWORD").is_none()
}

/// Asks for the token, or takes it from the environment, and puts it into its file. Answers the file's path
/// as the configuration names it.
fn store_token(config: &Path, arguments: &InitArgs) -> Outcome<PathBuf> {
    let folder = config.parent().map(Path::to_owned).unwrap_or_default();
    let chosen = match &arguments.token_file {
        Some(path) => path.clone(),
        None => config.with_extension("token"),
    };
    let named = seen_from(&folder, &chosen);
    let given = match std::env::var(TOKEN_VARIABLE) {
        Ok(text) => Some(text),
        // A file that is there already and sound is kept.
        Err(_) if chosen.exists() => {
            token::read(&chosen)?;
            None
        }
        Err(_) => Some(ask()?),
    };
    if let Some(text) = given {
        let token = Token::parse(&text).ok_or_else(|| {
            wrong_setting("that is no token")
                .advise("a token is \"plimsoll_\" and 64 hexadecimal digits, as register_database showed it")
        })?;
        token::write(&chosen, &token)?;
    }
    Ok(named)
}

fn ask() -> Outcome<String> {
    let unreadable = |error: std::io::Error| no_run(format!("the token cannot be read: {error}"));
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password("Token (not shown): ").map_err(unreadable);
    }
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(unreadable)?;
    if line.trim().is_empty() {
        return Err(no_run("no token was given")
            .advise(format!("set {TOKEN_VARIABLE}, pipe it in, or say --no-token")));
    }
    Ok(line)
}

/// A path as seen from the configuration's folder, where relative paths of the file start.
fn seen_from(folder: &Path, path: &Path) -> PathBuf {
    if path.is_absolute() || folder.as_os_str().is_empty() {
        return path.to_owned();
    }
    match path.strip_prefix(folder) {
        Ok(inside) => inside.to_owned(),
        Err(_) => std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
    }
}

/// The url may hold a password: nobody else needs to read it.
fn write_config(path: &Path, text: &str) -> Outcome<()> {
    let write = || {
        use std::io::Write;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        options.open(path)?.write_all(text.as_bytes())
    };
    write().map_err(|error: std::io::Error| no_run(format!("{} cannot be written: {error}", path.display())))
}
