//! The writer, which alone touches the files of an open log.
//!
//! It takes everything queued as one batch, writes it, syncs once and calls the completions, until
//! nothing is queued.
//!
//! Invariants: batches never overlap, whichever executor runs them; a segment has its name only
//! once its header is durable; a purge is durable before the segments that it empties are removed.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::disk::{Disk, DiskFile};
use crate::error::LogError;
use crate::executor::{Assignment, Executor, WriterDrive};
use crate::segment::{FRESH_NAME, SPARE_NAME, Segment, file_name};
use crate::shared::Shared;
use crate::state::{Failure, Op};

/// Called once when everything appended before it is durable, or cannot become durable.
pub trait Completion: Send + 'static {
    /// Runs on the writer's thread; must not block.
    fn complete(self, result: io::Result<()>);
}

/// Stops the writer when dropped, after it has written what is queued.
pub(crate) struct WriterHandle<D: Completion> {
    shared: Arc<Shared<D>>,
    thread: Option<JoinHandle<()>>,
}

#[cfg(test)]
impl<D: Completion> WriterHandle<D> {
    /// A writer that moves only by [`write_batch`].
    pub(crate) fn manual(shared: Arc<Shared<D>>) -> Self {
        Self { shared, thread: None }
    }
}

impl<D: Completion> Drop for WriterHandle<D> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closing = true;
        state.idle = false;
        if self.thread.is_some() {
            // The task may never be polled again.
            state.assignment = Assignment::thread();
        }
        drop(state);
        self.shared.wake.wake(Executor::Task);
        self.shared.wake.wake(Executor::Thread);
        if let Some(thread) = self.thread.take() {
            // The thread ends after its current batch; a panic in it has been reported already.
            let _ = thread.join();
        }
    }
}

/// Cleans up after an interrupted start and opens the new segment that recovery queued.
pub(crate) fn start_writing<D: Completion>(shared: &Shared<D>) -> Result<(), LogError> {
    match shared.disk.remove(FRESH_NAME) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    write_batch(shared);
    match &shared.lock().failure {
        Some(failure) => Err(LogError::Io(failure.to_io())),
        None => Ok(()),
    }
}

/// Starts the executors of `drive`.
pub(crate) fn start<D: Completion>(
    shared: Arc<Shared<D>>,
    drive: WriterDrive,
) -> Result<WriterHandle<D>, LogError> {
    let thread = match &drive {
        WriterDrive::Task(_) => None,
        WriterDrive::Thread | WriterDrive::Adaptive => {
            let shared = shared.clone();
            let run = move || {
                shared.wake.set_thread();
                run_thread(&shared);
            };
            Some(std::thread::Builder::new().name("log".into()).spawn(run)?)
        }
    };
    match drive {
        WriterDrive::Thread => {}
        WriterDrive::Adaptive => drop(tokio::spawn(run_task(shared.clone(), None))),
        WriterDrive::Task(delay) => drop(tokio::spawn(run_task(shared.clone(), Some(delay)))),
    }
    Ok(WriterHandle { shared, thread })
}

/// What an executor does next.
enum Next {
    Write,
    Wait,
    End,
}

impl<D> Shared<D> {
    /// What `executor` does next.
    ///
    /// The idle flag is set under the lock under which work is queued, so that work which is queued
    /// later wakes the assigned executor.
    fn next(&self, executor: Executor) -> Next {
        let mut state = self.lock();
        let assigned = state.assignment.executor();
        if state.is_writing() {
            // The other executor looks for more work when its batch ends, and wakes this one if
            // it is assigned by then.
            return Next::Wait;
        }
        if !state.has_work() {
            if state.closing {
                return Next::End;
            }
            state.idle = true;
            return Next::Wait;
        }
        if assigned == executor {
            return Next::Write;
        }
        drop(state);
        self.wake.wake(assigned);
        Next::Wait
    }
}

async fn run_task<D: Completion>(
    shared: Arc<Shared<D>>,
    delay: Option<Arc<dyn Fn() -> Duration + Send + Sync>>,
) {
    loop {
        match shared.next(Executor::Task) {
            Next::End => return,
            Next::Wait => shared.wake.woken().await,
            Next::Write => {
                match &delay {
                    Some(delay) => tokio::time::sleep(delay()).await,
                    // Appends are sent to the followers before the sync blocks this thread, so
                    // that all members sync at the same time.
                    None => tokio::task::yield_now().await,
                }
                write_batch(&shared);
            }
        }
    }
}

fn run_thread<D: Completion>(shared: &Shared<D>) {
    loop {
        match shared.next(Executor::Thread) {
            Next::End => return,
            Next::Wait => std::thread::park(),
            Next::Write => write_batch(shared),
        }
    }
}

/// Writes and syncs everything queued and calls the completions. Does nothing if nothing is queued
/// or a batch is being written.
pub(crate) fn write_batch<D: Completion>(shared: &Shared<D>) {
    let Some(batch) = shared.lock().begin_batch() else { return };
    let started = Instant::now();
    let mut files = Files { shared, dirty: None, syncs: 0, sync_us: 0 };
    let failed = shared.lock().failure.clone();
    let result = match failed {
        Some(failure) => Err(failure.to_io()),
        None => files.perform(batch.ops),
    };
    let (syncs, sync_us) = (files.syncs, files.sync_us);
    let failure = {
        let mut state = shared.lock();
        state.counters.syncs += syncs;
        state.counters.sync_us += sync_us;
        state.assignment.observe(started.elapsed());
        state.end_batch(result.map(|()| batch.end).map_err(|error| Failure::new(&error)));
        state.failure.clone()
    };
    for done in batch.completions {
        done.complete(failure.as_ref().map_or(Ok(()), |failure| Err(failure.to_io())));
    }
}

/// The files during one batch.
struct Files<'a, D> {
    shared: &'a Shared<D>,
    /// The file that was written since its last sync.
    dirty: Option<Arc<dyn DiskFile>>,
    syncs: u64,
    sync_us: u64,
}

impl<D> Files<'_, D> {
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
        // Only once the purge is durable; otherwise a crash would lose entries that the log still
        // has.
        removed.iter().for_each(|segment| self.retire(segment));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(file) = self.dirty.take() else { return Ok(()) };
        let started = Instant::now();
        file.sync_data()?;
        self.syncs += 1;
        self.sync_us += u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Makes the file of a segment. It gets its name once its header is durable, so a segment's
    /// file without a header is damage and never an interrupted start.
    fn open(&mut self, segment: &Segment, header: &[u8]) -> io::Result<()> {
        let disk = &*self.shared.disk;
        let is_nominal = segment.capacity == self.shared.options.segment_bytes;
        let spare = if is_nominal { take_spare(disk)? } else { None };
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
        let is_reused = segment.capacity == self.shared.options.segment_bytes
            && disk.open(SPARE_NAME).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let result = if is_reused { disk.rename(&name, SPARE_NAME) } else { disk.remove(&name) };
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
