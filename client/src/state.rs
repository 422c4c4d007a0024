//! What the agent remembers between runs: one JSON file, written whole. All of it may be lost without
//! harm; a run then looks again.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt;
use plimsoll_core::direction::Direction;
use plimsoll_core::store::Outcome;
use plimsoll_core::sync::TableMemory;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::failure::{Advise, passing, run as no_run};
use crate::fault::fault_point;
use crate::target::Root;

/// What is in the file.
#[derive(Debug, Serialize, Deserialize)]
struct Memory {
    /// Identifies this agent to the server, so that it may take up its own lease again.
    agent_id: Uuid,
    /// The database the memories belong to.
    database_id: Option<Uuid>,
    /// What is remembered of each managed table.
    #[serde(default)]
    tables: BTreeMap<String, TableMemory>,
    /// What is remembered of each two-way table, beside what the local database itself keeps.
    #[serde(default)]
    two_way: BTreeMap<String, TwoWayMemory>,
    /// Numbers of the columns of each managed table that were sent.
    #[serde(default)]
    sent: BTreeMap<String, Vec<u32>>,
    /// Which way each managed table went last.
    #[serde(default)]
    directions: BTreeMap<String, String>,
    /// What the local tables were known to hold that are written to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    roots: BTreeMap<String, Root>,
    /// When a pulled table without a key was last level: a mark that does not come again.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    level_marks: BTreeMap<String, i64>,
}

/// What is remembered of a two-way table: without it all is compared again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TwoWayMemory {
    /// How local rows became rows of the managed table, as [`TablePlan::stamp`](crate::source::plan::TablePlan::stamp).
    pub plan: i64,
    /// What both sides said of themselves when they were found level.
    #[serde(flatten)]
    pub memory: plimsoll_core::two_way::Memory,
    /// When a comparison of all rows that found them equal began, in microseconds since the Unix epoch.
    pub proved_at: Option<i64>,
}

/// The agent's memory, locked against other processes.
#[derive(Debug)]
pub struct State {
    path: PathBuf,
    memory: Memory,
    /// Held while this lives.
    _lock: File,
}

impl State {
    /// Opens the memory of the agent for a database; begins a new one where there is none to be read.
    ///
    /// # Errors
    /// A `Run` failure where another process holds it or it cannot be written.
    pub fn open(path: &Path, database_id: Uuid) -> Outcome<State> {
        let lock = lock(path)?;
        let memory = read(path).unwrap_or_else(|reason| {
            if let Some(reason) = reason {
                tracing::warn!(
                    "{} cannot be used ({reason}): what was remembered is lost, and all is compared anew",
                    path.display()
                );
            }
            Memory {
                agent_id: Uuid::new_v4(),
                database_id: None,
                tables: BTreeMap::new(),
                two_way: BTreeMap::new(),
                sent: BTreeMap::new(),
                directions: BTreeMap::new(),
                roots: BTreeMap::new(),
                level_marks: BTreeMap::new(),
            }
        });
        let mut state = State { path: path.to_owned(), memory, _lock: lock };
        if state.memory.database_id != Some(database_id) {
            state.memory.database_id = Some(database_id);
            state.memory.tables.clear();
            state.memory.two_way.clear();
            state.memory.sent.clear();
            state.memory.directions.clear();
            state.memory.roots.clear();
            state.memory.level_marks.clear();
        }
        state.save()?;
        Ok(state)
    }

    /// The agent's identity.
    pub fn agent_id(&self) -> String {
        self.memory.agent_id.to_string()
    }

    /// What is remembered of a managed table.
    pub fn table(&self, relation: &str) -> TableMemory {
        self.memory.tables.get(relation).cloned().unwrap_or_default()
    }

    /// What is remembered of a two-way table, as long as its rows become rows of the managed one as they did.
    pub fn two_way(&self, relation: &str, plan: i64) -> TwoWayMemory {
        let known = self.memory.two_way.get(relation).filter(|known| known.plan == plan);
        known.cloned().unwrap_or_else(|| TwoWayMemory { plan, ..TwoWayMemory::default() })
    }

    /// Remembers of a two-way table, durably.
    ///
    /// # Errors
    /// `Passing` where the file cannot be written.
    pub fn remember_two_way(&mut self, relation: &str, memory: &TwoWayMemory) -> Outcome<()> {
        if self.memory.two_way.get(relation) == Some(memory) {
            return Ok(());
        }
        self.memory.two_way.insert(relation.to_owned(), memory.clone());
        self.save()
    }

    /// Numbers of the columns of a managed table that were sent in earlier runs.
    pub fn sent(&self, relation: &str) -> Vec<u32> {
        self.memory.sent.get(relation).cloned().unwrap_or_default()
    }

    /// Remembers which columns are sent, durably.
    ///
    /// # Errors
    /// `Passing` where the file cannot be written.
    pub fn remember_sent<'r>(&mut self, tables: impl Iterator<Item = (&'r String, Vec<u32>)>) -> Outcome<()> {
        let mut changed = false;
        for (relation, numbers) in tables {
            changed |= self.memory.sent.get(relation) != Some(&numbers);
            self.memory.sent.insert(relation.clone(), numbers);
        }
        if changed { self.save() } else { Ok(()) }
    }

    /// Notices which way a managed table goes from now on. Where it went another way, what was remembered of it is
    /// dropped, and that way is answered; `dry_run`: not durably.
    ///
    /// # Errors
    /// `Passing` where the file cannot be written.
    pub fn turn(&mut self, relation: &str, direction: Direction, dry_run: bool) -> Outcome<Option<String>> {
        let name = direction.name().to_owned();
        let before = self.memory.directions.insert(relation.to_owned(), name);
        if before.as_deref() == Some(direction.name()) {
            return Ok(None);
        }
        // Of a release that knew no directions: what was remembered was pushed.
        let remembered = self.memory.tables.contains_key(relation);
        let before = before.or_else(|| remembered.then(|| Direction::Push.name().to_owned()));
        let before = before.filter(|before| before != direction.name());
        if before.is_some() {
            self.memory.tables.remove(relation);
            self.memory.two_way.remove(relation);
            self.memory.sent.remove(relation);
            self.memory.roots.remove(relation);
            self.memory.level_marks.remove(relation);
        }
        if !dry_run {
            self.save()?;
        }
        Ok(before)
    }

    /// The mark of when a pulled table without a key was last level.
    pub fn level_mark(&self, relation: &str) -> Option<i64> {
        self.memory.level_marks.get(relation).copied()
    }

    /// Remembers that tables are level now (microseconds), durably.
    ///
    /// # Errors
    /// `Passing` where the file cannot be written.
    pub fn remember_level<'r>(
        &mut self,
        now: i64,
        relations: impl Iterator<Item = &'r String>,
    ) -> Outcome<()> {
        let mut changed = false;
        for relation in relations {
            let mark = self.memory.level_marks.entry(relation.clone()).or_default();
            *mark = now.max(mark.saturating_add(1));
            changed = true;
        }
        if changed { self.save() } else { Ok(()) }
    }

    /// What the local table of a managed one was known to hold.
    pub fn root(&self, relation: &str) -> Option<Root> {
        self.memory.roots.get(relation).cloned()
    }

    /// Remembers what local tables are known to hold, or that it is not known, durably.
    ///
    /// # Errors
    /// `Passing` where the file cannot be written.
    pub fn remember_roots<'r>(
        &mut self,
        roots: impl Iterator<Item = (&'r String, Option<Root>)>,
    ) -> Outcome<()> {
        let mut changed = false;
        for (relation, root) in roots {
            changed |= self.memory.roots.get(relation) != root.as_ref();
            match root {
                Some(root) => drop(self.memory.roots.insert(relation.clone(), root)),
                None => drop(self.memory.roots.remove(relation)),
            }
        }
        if changed { self.save() } else { Ok(()) }
    }

    /// Remembers, durably.
    ///
    /// # Errors
    /// `Passing` where the file cannot be written.
    pub fn remember(&mut self, relation: &str, memory: &TableMemory) -> Outcome<()> {
        if self.memory.tables.get(relation) == Some(memory) {
            return Ok(());
        }
        self.memory.tables.insert(relation.to_owned(), memory.clone());
        self.save()
    }

    fn save(&self) -> Outcome<()> {
        let write = || -> std::io::Result<()> {
            let temporary = beside(&self.path, ".new");
            let mut file = File::create(&temporary)?;
            let mut text = serde_json::to_vec_pretty(&self.memory)?;
            text.push(b'\n');
            file.write_all(&text)?;
            file.sync_all()?;
            fault_point("memory-written-not-renamed");
            fs::rename(&temporary, &self.path)?;
            // The new name must survive a crash too; not every platform opens folders.
            if let Ok(folder) = File::open(folder_of(&self.path)) {
                folder.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|error| {
            passing(format!("the state file {} cannot be written: {error}", self.path.display()))
        })
    }
}

/// Reads what is remembered without locking it, for reports.
pub fn peek(path: &Path) -> BTreeMap<String, TableMemory> {
    read(path).map(|memory| memory.tables).unwrap_or_default()
}

/// The memory, or why there is none; nothing where it was never written.
fn read(path: &Path) -> Result<Memory, Option<String>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(None),
        Err(error) => return Err(Some(error.to_string())),
    };
    serde_json::from_slice(&text).map_err(|error| Some(error.to_string()))
}

fn lock(path: &Path) -> Outcome<File> {
    let lock_path = beside(path, ".lock");
    let unusable = |error: std::io::Error| {
        no_run(format!("the lock file {} cannot be used: {error}", lock_path.display()))
            .advise("the folder of the state file must be writable; state = \"..\" moves it")
    };
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path).map_err(unusable)?;
    match FileExt::try_lock_exclusive(&file) {
        Ok(true) => Ok(file),
        Ok(false) => Err(no_run("another plimsoll process is at work with this configuration")
            .advise("wait for it to end, or stop it")),
        Err(error) => Err(unusable(error)),
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_comes_back_and_garbage_starts_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.json");
        let database = Uuid::new_v4();
        let memory = TableMemory { window_from: Some(7), ..TableMemory::default() };
        let mut state = State::open(&path, database).expect("opened");
        let agent = state.agent_id();
        state.remember("public.t", &memory).expect("saved");
        drop(state);
        let state = State::open(&path, database).expect("opened");
        assert_eq!((state.agent_id(), state.table("public.t")), (agent.clone(), memory));
        drop(state);
        let other = State::open(&path, Uuid::new_v4()).expect("opened");
        assert_eq!(other.agent_id(), agent);
        assert_eq!(other.table("public.t"), TableMemory::default());
        drop(other);
        fs::write(&path, "{ garbage").expect("written");
        let state = State::open(&path, database).expect("opened");
        assert_ne!(state.agent_id(), agent);
        assert_eq!(state.table("public.t"), TableMemory::default());
    }

    #[test]
    fn what_was_remembered_one_way_is_dropped_when_a_table_goes_another() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.json");
        let database = Uuid::new_v4();
        let memory = TableMemory { window_from: Some(7), ..TableMemory::default() };
        let mut state = State::open(&path, database).expect("opened");
        state.remember("public.t", &memory).expect("saved");
        // It was pushed by a release that did not say so.
        assert_eq!(state.turn("public.t", Direction::Push, false), Ok(None));
        assert_eq!(state.table("public.t"), memory);
        drop(state);
        // A dry run sees what a run would, and leaves all as it is.
        let mut state = State::open(&path, database).expect("opened");
        assert_eq!(state.turn("public.t", Direction::Pull, true), Ok(Some("push".to_owned())));
        assert_eq!(state.table("public.t"), TableMemory::default());
        drop(state);
        let mut state = State::open(&path, database).expect("opened");
        assert_eq!(state.table("public.t"), memory);
        assert_eq!(state.turn("public.t", Direction::Pull, false), Ok(Some("push".to_owned())));
        drop(state);
        let mut state = State::open(&path, database).expect("opened");
        assert_eq!(state.table("public.t"), TableMemory::default());
        assert_eq!(state.turn("public.t", Direction::Pull, false), Ok(None));
        assert_eq!(state.turn("public.new", Direction::TwoWay, false), Ok(None));
    }

    #[test]
    fn a_second_process_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("s.json");
        let held = State::open(&path, Uuid::new_v4()).expect("opened");
        let failure = State::open(&path, Uuid::new_v4()).expect_err("locked");
        assert!(failure.message.contains("another plimsoll process"), "{failure}");
        drop(held);
        State::open(&path, Uuid::new_v4()).expect("free again");
    }
}
