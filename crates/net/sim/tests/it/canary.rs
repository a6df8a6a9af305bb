//! A planted fault must be noticed: an end that acknowledges packets which the network dropped.

use core::net::SocketAddr;
use core::time::Duration;
use std::collections::BTreeSet;

use net_sim::{Host, HostId, Transmit, World, seeds};
use net_types::Instant;

use crate::courier::{Acks, Courier, couriers};

/// What [`couriers`]' receiver really saw on the wire, kept by the test and not by the protocol.
struct Witness {
    inner: Courier,
    seen: BTreeSet<u32>,
}

impl Host for Witness {
    fn handle_datagram(&mut self, now: Instant, from: SocketAddr, datagram: &mut [u8]) {
        self.seen.insert(u32::from_le_bytes(datagram.as_ref().try_into().unwrap()));
        self.inner.handle_datagram(now, from, datagram);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.inner.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        self.inner.poll_transmit(now)
    }

    fn next_timeout(&self) -> Option<Instant> {
        self.inner.next_timeout()
    }
}

/// Runs a transfer and checks, after every turn, that what is acknowledged arrived.
fn transfer(seed: u64, acks: Acks) -> Result<(), String> {
    let mut world: World<Witness> = World::new(seed, crate::courier::rough_link());
    let of = |inner| Witness { inner, seen: BTreeSet::new() };
    let (to, from) = (crate::network::addr(2), crate::network::addr(1));
    let sender: HostId = world.add_host(from, of(Courier::sender(to, 100)));
    let receiver = world.add_host(to, of(Courier::receiver(acks)));
    let mut phantom = None;
    world
        .run_until(Duration::from_secs(60), |world| {
            let acked = world.host(sender).inner.acked();
            phantom = acked.difference(&world.host(receiver).seen).next().copied();
            phantom.is_some() || acked.len() == 100
        })
        .map_err(|stop| stop.to_string())?;
    match phantom {
        Some(item) => Err(format!("item {item} was acknowledged and never arrived")),
        None => Ok(()),
    }
}

#[test]
fn an_honest_receiver_passes() {
    seeds!(50, |seed| assert_eq!(transfer(seed, Acks::Honest), Ok(())));
}

#[test]
fn a_receiver_that_acknowledges_dropped_packets_is_caught_under_every_seed() {
    seeds!(50, |seed| {
        let verdict = transfer(seed, Acks::AssumesNoLoss);
        assert!(verdict.is_err_and(|text| text.contains("never arrived")));
    });
}

#[test]
fn the_protocol_of_these_tests_delivers_everything() {
    seeds!(20, |seed| {
        let (mut world, sender, receiver) = couriers(seed, 200, Acks::Honest);
        world
            .run_until(Duration::from_secs(60), |world| world.host(sender).acked().len() == 200)
            .unwrap();
        assert_eq!(world.host(receiver).delivered(), (0..200).collect());
    });
}
