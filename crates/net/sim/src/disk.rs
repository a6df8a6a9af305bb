//! A disk of named files that keeps, across a loss of power, what was synced and an arbitrary part
//! of what was not.
//!
//! The model: a sync of a file makes its contents durable, a sync of the folder makes names durable
//! (POSIX promises no more). At a crash each 512-byte sector of a file holds some version between
//! the synced and the newest one, independently of its neighbours, so writes are torn and
//! reordered; the file's length likewise. Names survive in the order in which they were changed, up
//! to some point, as in a journal; a rename is all or nothing.
//!
//! Invariants: what was synced survives, and what was never written does not appear; the seed
//! decides what else survives; every name has a file; a file's handle works until the next crash
//! and fails after it.

use core::fmt;
use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use crate::disk_faults::{DiskConfig, Fault, FaultKind, Faults, Operation};
use crate::rng::SimRng;
use net_types::lock;

const SECTOR_BYTES: u64 = 512;

/// Why a disk operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiskError {
    /// No file has this name.
    #[error("no file is named {0}")]
    NotFound(String),
    /// A file with this name exists.
    #[error("a file named {0} exists")]
    AlreadyExists(String),
    /// The disk is full, or a planned fault says so.
    #[error("no space is left on the disk")]
    NoSpace,
    /// A planned fault of the device.
    #[error("the device failed")]
    Io,
    /// The machine lost power since the handle was opened.
    #[error("the handle is from before the crash")]
    Crashed,
}

impl From<DiskError> for io::Error {
    fn from(error: DiskError) -> Self {
        let kind = match error {
            DiskError::NotFound(_) => io::ErrorKind::NotFound,
            DiskError::AlreadyExists(_) => io::ErrorKind::AlreadyExists,
            DiskError::NoSpace => io::ErrorKind::StorageFull,
            DiskError::Io | DiskError::Crashed => io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// One unsynced change of a file.
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

#[derive(Default)]
struct Contents {
    /// What a reader sees.
    live: Vec<u8>,
    /// What certainly survives a crash.
    durable: Vec<u8>,
    /// Changes since the last sync, oldest first.
    unsynced: Vec<Change>,
}

/// One unsynced change of the folder.
enum NameChange {
    Put { name: String, file: u64 },
    Remove { name: String },
    Rename { from: String, to: String },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Put { name, file } => {
                names.insert(name.clone(), *file);
            }
            Self::Remove { name } => {
                names.remove(name);
            }
            Self::Rename { from, to } => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
        }
    }
}

struct State {
    rng: SimRng,
    config: DiskConfig,
    faults: Faults,
    files: BTreeMap<u64, Contents>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    unsynced_names: Vec<NameChange>,
    incarnation: u64,
    operations: u64,
    spent: Duration,
}

/// A virtual disk; clones are handles of the same one.
#[derive(Clone)]
pub struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// An empty disk.
    pub fn new(seed: u64, config: DiskConfig) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: SimRng::new(seed, "disk"),
            config,
            faults: Faults::new(),
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced_names: Vec::new(),
            incarnation: 0,
            operations: 0,
            spent: Duration::ZERO,
        })))
    }

    fn handle(&self, state: &State, file: u64) -> DiskFile {
        DiskFile { disk: self.clone(), file, incarnation: state.incarnation }
    }

    /// Creates an empty file under a name that is free.
    pub fn create(&self, name: &str) -> Result<DiskFile, DiskError> {
        let mut state = lock(&self.0);
        state.begin(Operation::Write)?;
        if state.names.contains_key(name) {
            return Err(DiskError::AlreadyExists(name.to_owned()));
        }
        let file = state.next_file;
        state.next_file += 1;
        state.files.insert(file, Contents::default());
        state.change_names(NameChange::Put { name: name.to_owned(), file });
        Ok(self.handle(&state, file))
    }

    /// Opens an existing file.
    pub fn open(&self, name: &str) -> Result<DiskFile, DiskError> {
        let mut state = lock(&self.0);
        state.begin(Operation::Read)?;
        let file = state.file(name)?;
        Ok(self.handle(&state, file))
    }

    /// Opens a file, or creates it.
    pub fn open_or_create(&self, name: &str) -> Result<DiskFile, DiskError> {
        match self.open(name) {
            Err(DiskError::NotFound(_)) => self.create(name),
            other => other,
        }
    }

    /// Gives a file another name; a file that had it loses it.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = lock(&self.0);
        state.begin(Operation::Write)?;
        state.file(from)?;
        state.change_names(NameChange::Rename { from: from.to_owned(), to: to.to_owned() });
        Ok(())
    }

    /// Takes a file's name away. Open handles stay usable.
    pub fn remove(&self, name: &str) -> Result<(), DiskError> {
        let mut state = lock(&self.0);
        state.begin(Operation::Write)?;
        state.file(name)?;
        state.change_names(NameChange::Remove { name: name.to_owned() });
        Ok(())
    }

    /// Makes all names as they are now durable.
    pub fn sync_folder(&self) -> Result<(), DiskError> {
        let mut state = lock(&self.0);
        state.begin(Operation::Sync)?;
        state.durable_names = state.names.clone();
        state.unsynced_names.clear();
        Ok(())
    }

    /// The names of all files, sorted.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0).names.keys().cloned().collect()
    }

    /// Loses power: keeps what was synced and, by the seed, parts of what was not.
    pub fn crash(&self) {
        lock(&self.0).crash();
    }

    /// Plans an error.
    pub fn inject(&self, fault: Fault) {
        lock(&self.0).faults.plan(fault);
    }

    /// Forgets all planned errors.
    pub fn clear_faults(&self) {
        lock(&self.0).faults.clear();
    }

    /// Flips one bit of a file, in what is read and in what is durable; false if the file has no
    /// such bit.
    pub fn flip_bit(&self, name: &str, bit: u64) -> bool {
        let mut state = lock(&self.0);
        let Some(&file) = state.names.get(name) else { return false };
        let Some(contents) = state.files.get_mut(&file) else { return false };
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        let flip = |bytes: &mut Vec<u8>| bytes.get_mut(byte).map(|byte| *byte ^= mask).is_some();
        flip(&mut contents.durable) | flip(&mut contents.live)
    }

    /// Operations so far, failed ones included; the place for a fault or crash to come.
    pub fn operations(&self) -> u64 {
        lock(&self.0).operations
    }

    /// Time that the operations since the last call take; the host's timers are to wait for it.
    pub fn take_spent(&self) -> Duration {
        core::mem::take(&mut lock(&self.0).spent)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("names", &self.names()).finish_non_exhaustive()
    }
}

/// A file of a [`Disk`]; reads see every write at once.
#[derive(Clone)]
pub struct DiskFile {
    disk: Disk,
    file: u64,
    incarnation: u64,
}

impl DiskFile {
    fn with<T>(
        &self,
        operation: Operation,
        act: impl FnOnce(&mut State, u64) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let mut state = lock(&self.disk.0);
        if state.incarnation != self.incarnation {
            return Err(DiskError::Crashed);
        }
        if let Err(error) = state.begin(operation) {
            if operation == Operation::Sync {
                state.fail_sync(self.file);
            }
            return Err(error);
        }
        act(&mut state, self.file)
    }

    /// Bytes of the file.
    pub fn len_bytes(&self) -> Result<u64, DiskError> {
        self.with(Operation::Read, |state, file| Ok(state.contents(file).live.len() as u64))
    }

    /// Reads at `offset` into `out`; the bytes read, fewer only at the end of the file.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<usize, DiskError> {
        self.with(Operation::Read, |state, file| {
            let live = &state.contents(file).live;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(live.len());
            let count = out.len().min(live.len() - start);
            out[..count].copy_from_slice(&live[start..start + count]);
            Ok(count)
        })
    }

    /// Writes at `offset`; a gap behind the end is filled with zeros.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.with(Operation::Write, |state, file| {
            state.change(file, Change::Write { offset, bytes: bytes.to_vec() })
        })
    }

    /// Writes at the end; where it was.
    pub fn append(&self, bytes: &[u8]) -> Result<u64, DiskError> {
        self.with(Operation::Write, |state, file| {
            let offset = state.contents(file).live.len() as u64;
            state.change(file, Change::Write { offset, bytes: bytes.to_vec() })?;
            Ok(offset)
        })
    }

    /// Cuts the file, or extends it with zeros.
    pub fn set_len(&self, bytes: u64) -> Result<(), DiskError> {
        self.with(Operation::Write, |state, file| state.change(file, Change::SetLen(bytes)))
    }

    /// Makes the contents durable. The file's name is durable only after [`Disk::sync_folder`].
    pub fn sync(&self) -> Result<(), DiskError> {
        self.with(Operation::Sync, |state, file| {
            let contents = state.contents(file);
            for change in contents.unsynced.drain(..) {
                change.apply(&mut contents.durable);
            }
            Ok(())
        })
    }
}

impl fmt::Debug for DiskFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DiskFile({})", self.file)
    }
}

impl Change {
    fn end(&self) -> u64 {
        match self {
            Self::Write { offset, bytes } => offset.saturating_add(bytes.len() as u64),
            Self::SetLen(len) => *len,
        }
    }

    /// Length of a file of `len` bytes after this change.
    fn len_after(&self, len: u64) -> u64 {
        match self {
            Self::Write { .. } => len.max(self.end()),
            Self::SetLen(new) => *new,
        }
    }

    fn apply(&self, file: &mut Vec<u8>) {
        file.resize(self.len_after(file.len() as u64) as usize, 0);
        if let Self::Write { offset, bytes } = self {
            file[*offset as usize..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Applies to one sector what of this change lies in it.
    fn apply_to_sector(&self, number: u64, sector: &mut [u8; SECTOR_BYTES as usize]) {
        let start = number * SECTOR_BYTES;
        match self {
            Self::Write { offset, bytes } => {
                let from = start.max(*offset);
                let to = (start + SECTOR_BYTES).min(self.end());
                if from < to {
                    sector[(from - start) as usize..(to - start) as usize]
                        .copy_from_slice(&bytes[(from - offset) as usize..(to - offset) as usize]);
                }
            }
            Self::SetLen(len) => {
                let from = len.saturating_sub(start).min(SECTOR_BYTES) as usize;
                sector[from..].fill(0);
            }
        }
    }
}

impl Contents {
    /// What is on the device after a loss of power, or a failed sync, at this moment.
    fn torn(&self, rng: &mut SimRng) -> Vec<u8> {
        let changes = self.unsynced.len() as u64;
        // All or nothing is common in reality and rare in independent choices: force both.
        let fixed = match rng.below(4) {
            0 => Some(0),
            1 => Some(changes),
            _ => None,
        };
        let mut version = || fixed.unwrap_or_else(|| rng.below(changes + 1)) as usize;
        let durable_len = self.durable.len() as u64;
        let len = self.unsynced[..version()].iter().fold(durable_len, |len, c| c.len_after(len));
        let longest = self.unsynced.iter().map(Change::end).max().unwrap_or(0).max(durable_len);

        let mut image = self.durable.clone();
        image.resize(longest.next_multiple_of(SECTOR_BYTES) as usize, 0);
        for (number, sector) in (0u64..).zip(image.as_chunks_mut().0) {
            let touched = self.unsynced.iter().any(|change| change.touches(number));
            if touched {
                for change in &self.unsynced[..version()] {
                    change.apply_to_sector(number, sector);
                }
            }
        }
        image.resize(len as usize, 0);
        image
    }
}

impl Change {
    fn touches(&self, sector: u64) -> bool {
        let end = (sector + 1) * SECTOR_BYTES;
        match self {
            Self::Write { offset, .. } => *offset < end && self.end() > sector * SECTOR_BYTES,
            Self::SetLen(len) => *len < end,
        }
    }
}

impl State {
    /// Counts and times an operation; fails as planned.
    fn begin(&mut self, operation: Operation) -> Result<(), DiskError> {
        self.operations += 1;
        self.spent += match operation {
            Operation::Sync => self.config.sync_latency,
            Operation::Read | Operation::Write => self.config.latency,
        };
        if self.rng.chance(self.config.stall_ppm) {
            self.spent += self.config.stall;
        }
        match self.faults.hit(operation) {
            None => Ok(()),
            Some(FaultKind::NoSpace) => Err(DiskError::NoSpace),
            Some(FaultKind::Io) => Err(DiskError::Io),
        }
    }

    fn file(&self, name: &str) -> Result<u64, DiskError> {
        self.names.get(name).copied().ok_or_else(|| DiskError::NotFound(name.to_owned()))
    }

    fn contents(&mut self, file: u64) -> &mut Contents {
        self.files.get_mut(&file).expect("files live until the crash that ends their handles")
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }

    /// Asserts that the changes that are not durable lead from the durable names to those of now, and
    /// that every name has a file.
    fn check_invariants(&self) {
        let mut names = self.durable_names.clone();
        self.unsynced_names.iter().for_each(|change| change.apply(&mut names));
        assert_eq!(names, self.names);
        let mut files = self.names.values().chain(self.durable_names.values());
        assert!(files.all(|file| self.files.contains_key(file)), "a name without a file");
    }

    fn change(&mut self, file: u64, change: Change) -> Result<(), DiskError> {
        let others: u64 = self
            .names
            .values()
            .filter(|other| **other != file)
            .map(|other| self.files[other].live.len() as u64)
            .sum();
        let capacity = self.config.capacity_bytes;
        let contents = self.contents(file);
        let len = contents.live.len() as u64;
        if others.saturating_add(change.len_after(len)) > capacity {
            return Err(DiskError::NoSpace);
        }
        change.apply(&mut contents.live);
        contents.unsynced.push(change);
        Ok(())
    }

    /// The device took some of the unsynced sectors, and the system forgets that others are owed.
    fn fail_sync(&mut self, file: u64) {
        if let Some(contents) = self.files.get_mut(&file) {
            contents.durable = contents.torn(&mut self.rng);
            contents.unsynced.clear();
        }
    }

    fn crash(&mut self) {
        let kept = self.rng.below(self.unsynced_names.len() as u64 + 1) as usize;
        for change in &self.unsynced_names[..kept] {
            change.apply(&mut self.durable_names);
        }
        self.unsynced_names.clear();
        self.names = self.durable_names.clone();
        let named = &self.names;
        self.files.retain(|file, _| named.values().any(|kept| kept == file));
        for contents in self.files.values_mut() {
            if !contents.unsynced.is_empty() {
                contents.durable = contents.torn(&mut self.rng);
                contents.unsynced.clear();
            }
            contents.live = contents.durable.clone();
        }
        self.incarnation += 1;
        if cfg!(debug_assertions) {
            self.check_invariants();
        }
    }
}
