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
    /// A task of the current tokio runtime while syncs are fast, which then cost no wake-up of
    /// another thread and back; a thread while they are slow, so that they hold up nothing else.
    /// One slow sync is waited for before the thread takes over.
    Adaptive,
    /// A task of the current tokio runtime. The duration of each sync is asked for and slept
    /// before the sync happens, so a simulated disk has a speed and can stall.
    Task(Arc<dyn Fn() -> Duration + Send + Sync>),
}

/// A sync slower than this makes the thread take over.
const SLOW_SYNC: Duration = Duration::from_millis(3);
/// Syncs faster than this in a row give the work back to the task: this many.
const FAST_SYNC: Duration = Duration::from_micros(500);
const FAST_SYNCS: u32 = 64;

/// One of the two that may run the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// The thread.
    Thread,
    /// The task.
    Task,
}

/// Who runs the writer now, and what speaks for a change.
#[derive(Debug)]
pub(crate) struct Duty {
    runner: Runner,
    is_adaptive: bool,
    fast_syncs: u32,
}

impl Duty {
    pub(super) fn new(drive: Option<&WriterDrive>) -> Self {
        let runner = match drive {
            Some(WriterDrive::Thread) | None => Runner::Thread,
            Some(WriterDrive::Adaptive | WriterDrive::Task(_)) => Runner::Task,
        };
        let is_adaptive = matches!(drive, Some(WriterDrive::Adaptive));
        Self { runner, is_adaptive, fast_syncs: 0 }
    }

    pub(super) fn runner(&self) -> Runner {
        self.runner
    }

    /// Lets the other one work, for tests.
    #[cfg(test)]
    pub(super) fn change(&mut self) {
        self.runner = match self.runner {
            Runner::Thread => Runner::Task,
            Runner::Task => Runner::Thread,
        };
    }

    /// Takes in how long a turn's syncs took.
    pub(super) fn observe(&mut self, took: Duration) {
        if !self.is_adaptive {
            return;
        }
        self.fast_syncs = if took < FAST_SYNC { self.fast_syncs + 1 } else { 0 };
        match self.runner {
            Runner::Task if took > SLOW_SYNC => self.runner = Runner::Thread,
            Runner::Thread if self.fast_syncs >= FAST_SYNCS => self.runner = Runner::Task,
            Runner::Task | Runner::Thread => {}
        }
    }
}

/// Wakes the writer.
#[derive(Default)]
pub(crate) struct Wake {
    thread: OnceLock<Thread>,
    notify: tokio::sync::Notify,
}

impl Wake {
    pub(super) fn wake(&self, runner: Runner) {
        match runner {
            Runner::Thread => {
                if let Some(thread) = self.thread.get() {
                    thread.unpark();
                }
            }
            Runner::Task => self.notify.notify_one(),
        }
    }
}

/// Ends the writer when dropped, after it has written what was queued.
pub(crate) struct WriterHandle<D: Completion> {
    shared: Arc<Shared<D>>,
    thread: Option<JoinHandle<()>>,
}

#[cfg(test)]
impl<D: Completion> WriterHandle<D> {
    /// A writer that moves only by [`turn`].
    pub(super) fn manual(shared: Arc<Shared<D>>) -> Self {
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
            state.duty = Duty::new(None);
        }
        drop(state);
        self.shared.wake.wake(Runner::Task);
        self.shared.wake.wake(Runner::Thread);
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
    let thread = match &drive {
        WriterDrive::Task(_) => None,
        WriterDrive::Thread | WriterDrive::Adaptive => {
            let shared = shared.clone();
            let run = move || {
                let _ = shared.wake.thread.set(std::thread::current());
                run_thread(&shared);
            };
            Some(std::thread::Builder::new().name("raft-log".into()).spawn(run)?)
        }
    };
    match drive {
        WriterDrive::Thread => {}
        WriterDrive::Adaptive => drop(tokio::spawn(run_task(shared.clone(), None))),
        WriterDrive::Task(delay) => drop(tokio::spawn(run_task(shared.clone(), Some(delay)))),
    }
    Ok(WriterHandle { shared, thread })
}

/// What a runner does next.
enum Next {
    Work,
    Wait,
    End,
}

impl<D> Shared<D> {
    /// What `runner` does next. Whoever queues while nobody works sees the flag that this sets,
    /// under the same lock, and wakes the one on duty.
    fn next(&self, runner: Runner) -> Next {
        let mut state = self.lock();
        let on_duty = state.duty.runner();
        if state.is_working() {
            // The other one goes on, or wakes who is on duty, once its turn is over.
            return Next::Wait;
        }
        if !state.has_work() {
            if state.closing {
                return Next::End;
            }
            state.idle = true;
            return Next::Wait;
        }
        if on_duty == runner {
            return Next::Work;
        }
        drop(state);
        self.wake.wake(on_duty);
        Next::Wait
    }
}

async fn run_task<D: Completion>(
    shared: Arc<Shared<D>>,
    delay: Option<Arc<dyn Fn() -> Duration + Send + Sync>>,
) {
    loop {
        match shared.next(Runner::Task) {
            Next::End => return,
            Next::Wait => shared.wake.notify.notified().await,
            Next::Work => {
                match &delay {
                    Some(delay) => tokio::time::sleep(delay()).await,
                    // What was appended leaves for the followers before the sync holds up the
                    // thread, so that all members sync at the same time.
                    None => tokio::task::yield_now().await,
                }
                turn(&shared);
            }
        }
    }
}

fn run_thread<D: Completion>(shared: &Shared<D>) {
    loop {
        match shared.next(Runner::Thread) {
            Next::End => return,
            Next::Wait => std::thread::park(),
            Next::Work => drop(turn(shared)),
        }
    }
}

/// Writes and syncs everything queued and tells the waiters. `false` if nothing was queued.
pub(super) fn turn<D: Completion>(shared: &Shared<D>) -> bool {
    let Some((ops, waiting, mark)) = shared.lock().begin_turn() else { return false };
    let start = Instant::now();
    let mut work = Work { shared, dirty: None, syncs: 0, sync_us: 0 };
    let failed = shared.lock().failure.clone();
    let result = match failed {
        Some(failure) => Err(failure.to_io()),
        None => work.perform(ops),
    };
    let (syncs, sync_us) = (work.syncs, work.sync_us);
    let failure = {
        let mut state = shared.lock();
        state.counters.syncs += syncs;
        state.counters.sync_us += sync_us;
        state.duty.observe(start.elapsed());
        match result {
            Ok(()) => state.end_turn(Some(mark)),
            Err(error) => {
                state.end_turn(None);
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
