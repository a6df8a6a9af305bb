//! The writer: the only one that touches the files of a running log.
//!
//! It takes everything queued, writes it, syncs once, tells the waiters, and looks again. It runs
//! on a thread of its own, since a sync may take long, or as a task when a simulator owns time.

use std::io;
use std::sync::{Arc, OnceLock};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use super::segment::{FRESH_NAME, SPARE_NAME, Segment, file_name};
use super::state::{Failure, Op};
use super::{Completion, LogError, Shared};
use crate::disk::{Disk, DiskFile};

/// Who runs the writer.
#[derive(Clone)]
pub enum WriterDrive {
    /// A thread.
    Thread,
    /// A task of the current tokio runtime. The duration of each sync is asked for and slept
    /// before the sync happens, so a simulated disk has a speed and can stall.
    Task(Arc<dyn Fn() -> Duration + Send + Sync>),
}

/// Wakes the writer.
#[derive(Default)]
pub(crate) struct Wake {
    thread: OnceLock<Thread>,
    notify: tokio::sync::Notify,
}

impl Wake {
    pub(super) fn wake(&self) {
        match self.thread.get() {
            Some(thread) => thread.unpark(),
            None => self.notify.notify_one(),
        }
    }
}

#[cfg(test)]
impl<D: Completion> WriterHandle<D> {
    /// A writer that moves only by [`turn`].
    pub(super) fn manual(shared: Arc<Shared<D>>) -> Self {
        Self { shared, thread: None }
    }
}

/// Ends the writer when dropped, after it has written what was queued.
pub(crate) struct WriterHandle<D: Completion> {
    shared: Arc<Shared<D>>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Completion> Drop for WriterHandle<D> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.idle = false;
        drop(state);
        self.shared.wake.wake();
        if let Some(thread) = self.thread.take() {
            // The thread ends after its current batch; a panic in it has been reported already.
            let _ = thread.join();
        }
    }
}

/// Starts the writer.
pub(super) fn spawn<D: Completion>(
    shared: Arc<Shared<D>>,
    drive: WriterDrive,
) -> Result<WriterHandle<D>, LogError> {
    let thread = match drive {
        WriterDrive::Thread => {
            let shared = shared.clone();
            let run = move || {
                let _ = shared.wake.thread.set(std::thread::current());
                while run_turns(&shared) {
                    std::thread::park();
                }
            };
            Some(std::thread::Builder::new().name("raft-log".into()).spawn(run)?)
        }
        WriterDrive::Task(delay) => {
            tokio::spawn(run_task(shared.clone(), delay));
            None
        }
    };
    Ok(WriterHandle { shared, thread })
}

async fn run_task<D: Completion>(
    shared: Arc<Shared<D>>,
    delay: Arc<dyn Fn() -> Duration + Send + Sync>,
) {
    loop {
        {
            let mut state = shared.lock();
            if state.queue.is_empty() && state.waiting.is_empty() {
                if state.closing {
                    return;
                }
                state.idle = true;
            }
        }
        if shared.lock().idle {
            shared.wake.notify.notified().await;
            continue;
        }
        tokio::time::sleep(delay()).await;
        turn(&shared);
    }
}

/// Works until nothing is queued; `false` once the log is closing.
fn run_turns<D: Completion>(shared: &Shared<D>) -> bool {
    loop {
        if turn(shared) {
            continue;
        }
        let mut state = shared.lock();
        if state.queue.is_empty() && state.waiting.is_empty() {
            if state.closing {
                return false;
            }
            // Whoever queues from here on sees the flag under the same lock and wakes.
            state.idle = true;
            return true;
        }
    }
}

/// Writes and syncs everything queued and tells the waiters. `false` if nothing was queued.
pub(super) fn turn<D: Completion>(shared: &Shared<D>) -> bool {
    let Some((ops, waiting, mark)) = shared.lock().begin_turn() else { return false };
    let mut work = Work { shared, dirty: None, syncs: 0, sync_us: 0 };
    let result = match shared.lock().failure.clone() {
        Some(failure) => Err(failure.to_io()),
        None => work.perform(ops),
    };
    let (syncs, sync_us) = (work.syncs, work.sync_us);
    let failure = {
        let mut state = shared.lock();
        state.counters.syncs += syncs;
        state.counters.sync_us += sync_us;
        match result {
            Ok(()) => state.finish_turn(mark),
            Err(error) => {
                let text = error.to_string();
                state.failure.get_or_insert(Failure { kind: error.kind(), text });
            }
        }
        state.failure.clone()
    };
    for done in waiting {
        done.complete(failure.as_ref().map_or(Ok(()), |failure| Err(failure.to_io())));
    }
    true
}

struct Work<'a, D> {
    shared: &'a Shared<D>,
    dirty: Option<Arc<dyn DiskFile>>,
    syncs: u64,
    sync_us: u64,
}

impl<D> Work<'_, D> {
    fn perform(&mut self, ops: Vec<Op>) -> io::Result<()> {
        let mut removed = Vec::new();
        for op in ops {
            match op {
                Op::Write(segment, offset, bytes) => {
                    let file =
                        segment.file().ok_or_else(|| io::Error::other("segment not open"))?;
                    file.write_at(&bytes, offset)?;
                    self.dirty = Some(file.clone());
                }
                Op::Open(segment, header) => {
                    // All earlier records are durable before a later segment exists, so that only
                    // the newest segment can have a torn end.
                    self.sync()?;
                    self.open(&segment, &header)?;
                }
                Op::Remove(segments) => removed.extend(segments),
            }
        }
        self.sync()?;
        // Only once the purge is durable, so that no state is skipped.
        removed.iter().for_each(|segment| self.retire(segment));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(file) = self.dirty.take() else { return Ok(()) };
        let start = Instant::now();
        file.sync_data()?;
        self.syncs += 1;
        self.sync_us += u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// A segment appears under its name only with a durable header, so a name without one is
    /// damage and never an interrupted start.
    fn open(&mut self, segment: &Segment, header: &[u8]) -> io::Result<()> {
        let disk = &*self.shared.disk;
        let nominal = segment.capacity == self.shared.options.segment_bytes;
        let spare = if nominal { take_spare(disk)? } else { None };
        let file = match spare {
            Some(file) => file,
            None => disk.create(FRESH_NAME, segment.capacity)?,
        };
        file.write_at(header, 0)?;
        file.sync_data()?;
        disk.rename(FRESH_NAME, &file_name(segment.sequence))?;
        disk.sync_dir()?;
        segment.set_file(file);
        Ok(())
    }

    /// Removes a segment, or keeps its file as the spare. Failing to free space is not fatal.
    fn retire(&self, segment: &Segment) {
        let disk = &*self.shared.disk;
        let name = file_name(segment.sequence);
        let reuse = segment.capacity == self.shared.options.segment_bytes
            && disk.open(SPARE_NAME).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let result = if reuse { disk.rename(&name, SPARE_NAME) } else { disk.remove(&name) };
        // Durable one by one, oldest first: a crash must not leave a hole in the sequence.
        let result = result.and_then(|()| disk.sync_dir());
        if let Err(error) = result {
            tracing::warn!(segment = segment.sequence, %error, "cannot remove a purged segment");
        }
    }
}

fn take_spare(disk: &dyn Disk) -> io::Result<Option<Arc<dyn DiskFile>>> {
    match disk.rename(SPARE_NAME, FRESH_NAME) {
        Ok(()) => disk.open(FRESH_NAME).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the file of a segment whose opening was interrupted.
pub(super) fn sweep(disk: &dyn Disk) -> io::Result<()> {
    match disk.remove(FRESH_NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
