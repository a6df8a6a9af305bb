//! A world in one thread: a virtual clock, a network that misbehaves on purpose, a disk that loses
//! what was not synced, and the loop that runs protocol state machines on them.
//!
//! One seed decides everything, so a run is repeated exactly by its seed: [`World`] keeps a
//! [`Trace`] that is byte for byte the same, and [`seeds!`] prints the command that replays a
//! failing one.
//!
//! Invariants: nothing here reads a real clock, opens a socket or touches a real file; no shipped
//! crate depends on this one.

mod clock;
mod disk;
mod disk_faults;
mod link;
mod network;
mod rng;
mod seeds;
mod trace;
mod world;

pub use clock::HostClock;
pub use disk::{Disk, DiskError, DiskFile};
pub use disk_faults::{DiskConfig, Fault, FaultKind};
pub use link::{LinkConfig, PPM};
pub use network::{Delivery, Network, NetworkCounters, SendOutcome};
pub use rng::SimRng;
pub use seeds::{COUNT_VARIABLE, Origin, SEED_VARIABLE, run_seeds};
pub use trace::Trace;
pub use world::{Host, HostId, Stop, Transmit, World};
