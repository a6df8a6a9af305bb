//! Faults of a disk that a test asks for, other than a loss of power.
//!
//! Invariants: a fault counts only the operations that it can hit, and hits the one after those it
//! lets pass; one that is not permanent hits once.

use core::time::Duration;

/// Size and speed of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// Bytes of all named files together; a write beyond fails with "no space".
    pub capacity_bytes: u64,
    /// Time that a sync takes.
    pub sync_latency: Duration,
    /// Time that any other operation takes.
    pub latency: Duration,
    /// Probability, in parts per million, that an operation stalls.
    pub stall_ppm: u32,
    /// Time that a stalled operation takes longer.
    pub stall: Duration,
}

impl Default for DiskConfig {
    /// 256 MiB that answer at once.
    fn default() -> Self {
        Self {
            capacity_bytes: 256 << 20,
            sync_latency: Duration::ZERO,
            latency: Duration::ZERO,
            stall_ppm: 0,
            stall: Duration::ZERO,
        }
    }
}

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No space (ENOSPC): nothing was changed. Reads and syncs are unaffected.
    NoSpace,
    /// The device failed (EIO). A failed sync leaves each unsynced sector written or not and, as on
    /// Linux, a later sync does not try again.
    Io,
}

/// An error to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// How the operation fails.
    pub kind: FaultKind,
    /// Operations that still succeed from now on, of those that the fault can hit.
    pub after_operations: u64,
    /// Whether every later operation fails too, or just the first one.
    pub is_permanent: bool,
}

/// What an operation does, as far as faults care.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Read,
    Write,
    Sync,
}

/// The errors to come.
pub(crate) struct Faults {
    planned: Vec<Fault>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self { planned: Vec::new() }
    }

    pub(crate) fn plan(&mut self, fault: Fault) {
        self.planned.push(fault);
    }

    pub(crate) fn clear(&mut self) {
        self.planned.clear();
    }

    /// Counts one operation; how it fails, if it does.
    pub(crate) fn hit(&mut self, operation: Operation) -> Option<FaultKind> {
        let mut hit = None;
        self.planned.retain_mut(|fault| {
            if fault.kind == FaultKind::NoSpace && operation != Operation::Write {
                return true;
            }
            if fault.after_operations > 0 {
                fault.after_operations -= 1;
                return true;
            }
            hit = hit.or(Some(fault.kind));
            fault.is_permanent
        });
        hit
    }
}
