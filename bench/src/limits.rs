//! The least that the kernel and the cipher charge for the same work.

mod udp;

pub(crate) use udp::{batched_echo, ping_pong, ping_pong_two_processes, run_peer, start_peer};
