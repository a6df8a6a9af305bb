//! One encrypted session between two nodes, without I/O.
//!
//! A [`Session`] is a state machine. Its inputs are [`Session::handle_packet`] with a received
//! packet, [`Session::handle_timeout`] when [`Session::next_timeout`] has come, and the
//! application's `send`, `open_stream`, `consume` and `close` calls. Its outputs are sealed packets
//! from [`Session::poll_packet`] and [`Event`]s in the queue of the [`Context`] that every input
//! takes. Time must not go backwards between calls. After any input, poll until `None`.
//!
//! A session opens and seals packets and keeps the path, the keys, the congestion window and the
//! timers. What happens to streams is decided in one table of streams, which counts everything that
//! is queued, held or in flight and tells the session what to do about it. Every deadline is in one
//! table of timers with its reason; [`Session::next_timer`] says why a session wakes up next.
//!
//! Invariants: a packet counter is never used twice; replay state moves only after a tag verified;
//! a provisional session sends nothing; a reliable packet is kept until it is acknowledged; every
//! queue has a bound from `net_types::limits` and overload is refused or counted.

mod acks;
mod congestion;
mod control;
mod counters;
mod event;
mod keys;
mod mtu;
mod pieces;
mod ranges;
mod reassembly;
mod recv;
mod rtt;
mod send;
mod session;
mod stream;
mod streams;
mod timer;

pub use counters::{Counters, DropReason};
pub use event::{CloseCause, Context, Event, StreamEvent};
pub use session::{Outgoing, Path, Phase, SendError, Session, SessionParams, Stats};
pub use stream::{OpenError, StreamConfig};
pub use timer::Timer;

pub use net_wire::{Class, CloseReason, ResetReason, StreamMode, Subprotocol};
