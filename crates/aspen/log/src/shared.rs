//! What the log's handles, its readers and its writer share: the state under one lock.
//!
//! Invariant: no disk is touched and no completion is called under the lock.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::disk::Disk;
use crate::error::LogError;
use crate::executor::{Assignment, Wake};
use crate::index::Position;
use crate::recover::recover;
use crate::segment::Segment;
use crate::state::{LogOptions, State};
use net_types::lock;

/// The log, for all of its users. `D` are the completions of those who wait for the disk.
pub(crate) struct Shared<D> {
    pub disk: Arc<dyn Disk>,
    pub options: LogOptions,
    pub wake: Wake,
    state: Mutex<State<D>>,
}

impl<D> Shared<D> {
    /// Reads the log `log_id` from `disk` and queues the opening of a new segment.
    pub(crate) fn recover(
        disk: Arc<dyn Disk>,
        log_id: [u8; 16],
        options: LogOptions,
        assignment: Assignment,
    ) -> Result<Self, LogError> {
        let recovered = recover(&*disk, &log_id)?;
        if let Some(last) = recovered.as_ref().and_then(|log| log.segments.last())
            && let Some(file) = last.file()
        {
            // A process may have died with written but unsynced records that were read just now.
            file.sync_data()?;
        }
        let state = Mutex::new(State::new(log_id, options, assignment, recovered));
        Ok(Self { disk, options, wake: Wake::default(), state })
    }

    /// The state, locked.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State<D>> {
        // The state's methods do not panic between two changes that belong together.
        lock(&self.state)
    }

    /// Where the entry `index` is, or `None` if the log has no such entry.
    pub(crate) fn position(
        &self,
        index: u64,
    ) -> Result<Option<(Arc<Segment>, Position)>, LogError> {
        let state = self.lock();
        match state.index.position(index) {
            Some(position) => Ok(Some((state.segment(position)?, position))),
            None => Ok(None),
        }
    }

    /// Wakes the writer if it waits for work.
    pub(crate) fn wake_writer(&self) {
        let executor = self.lock().take_idle();
        if let Some(executor) = executor {
            self.wake.wake(executor);
        }
    }
}
