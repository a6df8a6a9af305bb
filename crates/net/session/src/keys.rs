//! Sealing and opening with key epochs.
//!
//! A sender moves to the next epoch by a one-way ratchet; the receiver follows when a packet of it
//! opens, and keeps the previous key for packets that were under way.
//!
//! Invariants: the packet counter runs through all epochs of a direction and never repeats; one key
//! seals at most [`KEY_EPOCH_PACKETS`] packets; the replay window and the receiver's epoch move
//! only after a tag has verified.

use core::time::Duration;

use net_crypto::{
    DirectionKeys, DirectionSecret, OpenKey, ReplayError, ReplayWindow, SealKey, Suite,
};
use net_types::Instant;
use net_types::limits::{HEADER_BYTES, KEY_EPOCH_AGE, KEY_EPOCH_PACKETS, TAG_BYTES};
use net_wire::Header;

use crate::DropReason;

/// Seals what this side sends.
pub(crate) struct Sealer {
    suite: Suite,
    secret: DirectionSecret,
    key: SealKey,
    epoch: u64,
    next_counter: u64,
    epoch_first_counter: u64,
    epoch_since: Instant,
}

impl Sealer {
    pub(crate) fn new(now: Instant, suite: Suite, secret: DirectionSecret) -> Self {
        let key = SealKey::new(suite, &DirectionKeys::derive(&secret, suite));
        let (epoch, next_counter, epoch_first_counter) = (0, 0, 0);
        Self { suite, secret, key, epoch, next_counter, epoch_first_counter, epoch_since: now }
    }

    /// Seals the packet at `out[start..]`: room for the header, then plaintext. Fills in counter,
    /// epoch and payload length. Returns false when the direction has no counter left.
    #[must_use]
    pub(crate) fn seal(
        &mut self,
        now: Instant,
        header: &mut Header,
        out: &mut Vec<u8>,
        start: usize,
    ) -> bool {
        let packets = self.next_counter - self.epoch_first_counter;
        if packets >= KEY_EPOCH_PACKETS || now.since(self.epoch_since) >= KEY_EPOCH_AGE {
            self.ratchet(now);
        }
        header.counter = self.next_counter;
        header.key_epoch = self.epoch as u8;
        header.payload_len = (out.len() - start - HEADER_BYTES) as u16;
        let encoded = header.encode();
        out[start..start + HEADER_BYTES].copy_from_slice(&encoded);
        let plaintext = &mut out[start + HEADER_BYTES..];
        let Ok(tag) = self.key.seal_in_place(header.counter, &encoded, plaintext) else {
            return false;
        };
        self.next_counter += 1;
        out.extend_from_slice(&tag);
        true
    }

    /// Asserts that the key in use has sealed no more than it may.
    pub(crate) fn check_invariants(&self) {
        let packets = self.next_counter.checked_sub(self.epoch_first_counter);
        assert!(packets.is_some_and(|packets| packets <= KEY_EPOCH_PACKETS), "{packets:?}");
    }

    fn ratchet(&mut self, now: Instant) {
        self.secret = self.secret.ratchet();
        self.key = SealKey::new(self.suite, &DirectionKeys::derive(&self.secret, self.suite));
        self.epoch += 1;
        self.epoch_first_counter = self.next_counter;
        self.epoch_since = now;
    }
}

/// Opens what the peer sends and refuses what it has seen.
pub(crate) struct Opener {
    suite: Suite,
    secret: DirectionSecret,
    key: OpenKey,
    epoch: u64,
    previous: Option<(OpenKey, Instant)>,
    next: Option<(OpenKey, DirectionSecret)>,
    replay: ReplayWindow,
}

impl Opener {
    pub(crate) fn new(suite: Suite, secret: DirectionSecret) -> Self {
        let key = OpenKey::new(suite, &DirectionKeys::derive(&secret, suite));
        let replay = ReplayWindow::new();
        Self { suite, secret, key, epoch: 0, previous: None, next: None, replay }
    }

    /// Asserts that only a later epoch has a previous key, and the window's own invariants.
    pub(crate) fn check_invariants(&self) {
        assert!(self.previous.is_none() || self.epoch > 0);
        self.replay.check_invariants();
    }

    /// Opens a whole packet in place and returns its plaintext. `keep_previous` is how long packets
    /// of the last epoch are still accepted after a ratchet. A counter that jumps too far is
    /// reported as such only if the packet is authentic, and changes nothing.
    pub(crate) fn open<'a>(
        &mut self,
        now: Instant,
        keep_previous: Duration,
        header: &Header,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        let is_jump = match self.replay.check(header.counter) {
            Ok(()) => false,
            Err(ReplayError::Jump) => true,
            Err(_) => return Err(DropReason::Replay),
        };
        let expected = HEADER_BYTES + usize::from(header.payload_len) + TAG_BYTES;
        if packet.len() != expected {
            return Err(DropReason::Malformed);
        }
        let (aad, sealed) = packet.split_at_mut(HEADER_BYTES);
        let ahead = header.key_epoch.wrapping_sub(self.epoch as u8);
        let plaintext = match ahead {
            0 => self.key.open_in_place(header.counter, aad, sealed),
            1 => {
                let until = (!is_jump).then(|| now + keep_previous);
                self.open_next(until, header.counter, aad, sealed)
            }
            u8::MAX => {
                let key = self.previous.as_ref().filter(|(_, until)| now < *until);
                let (key, _) = key.ok_or(DropReason::Authentication)?;
                key.open_in_place(header.counter, aad, sealed)
            }
            _ => return Err(DropReason::Authentication),
        };
        let plaintext = plaintext.map_err(|_| DropReason::Authentication)?;
        if is_jump {
            return Err(DropReason::CounterJump);
        }
        self.replay.commit(header.counter);
        Ok(plaintext)
    }

    /// When the previous epoch's key, if there is one, has had its time.
    pub(crate) fn previous_expires(&self) -> Option<Instant> {
        self.previous.as_ref().map(|(_, until)| *until)
    }

    /// Forgets the previous epoch's key, so that what was sealed with it stays secret.
    pub(crate) fn forget_previous(&mut self) {
        self.previous = None;
    }

    /// Opens with the next epoch's key and, unless `until` is `None`, moves to that epoch; the
    /// previous key works until then.
    fn open_next<'a>(
        &mut self,
        until: Option<Instant>,
        counter: u64,
        aad: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], net_crypto::OpenError> {
        // Derived once and kept, so that forged packets of a next epoch cost no more than a tag.
        let (suite, current) = (self.suite, &self.secret);
        let (key, _) = self.next.get_or_insert_with(|| {
            let secret = current.ratchet();
            (OpenKey::new(suite, &DirectionKeys::derive(&secret, suite)), secret)
        });
        let plaintext = key.open_in_place(counter, aad, sealed)?;
        if let Some(until) = until
            && let Some((key, secret)) = self.next.take()
        {
            self.secret = secret;
            self.epoch += 1;
            let old = core::mem::replace(&mut self.key, key);
            self.previous = Some((old, until));
        }
        Ok(plaintext)
    }
}

#[cfg(test)]
mod tests {
    use net_crypto::{EntityKeypair, Initiator, MeshSecret, Responder};
    use net_types::SessionId;
    use net_types::limits::MAX_COUNTER_JUMP;
    use net_wire::Kind;

    use super::*;

    const KEEP: Duration = Duration::from_secs(1);
    const SUITE: Suite = Suite::ChaCha20Poly1305;

    fn pair() -> (Sealer, Opener) {
        let (a, b) = (EntityKeypair::from_seed([1; 32]), EntityKeypair::from_seed([2; 32]));
        let secret = MeshSecret::new([3; 32]);
        let (_, init) = Initiator::start(&a, &b.entity_id(), &secret, [4; 32], b"").unwrap();
        let (responder, _) = Responder::read_init(&b, &secret, [5; 32], &init).unwrap();
        let (established, _) = responder.finish(b"").unwrap();
        let sealer = Sealer::new(Instant::ZERO, SUITE, established.send.clone());
        (sealer, Opener::new(SUITE, established.send))
    }

    fn seal(sealer: &mut Sealer, now: Instant) -> Vec<u8> {
        let mut out = vec![0; HEADER_BYTES];
        out.extend_from_slice(b"hello");
        let mut header = Header::new(Kind::Data, SessionId(1), 0);
        assert!(sealer.seal(now, &mut header, &mut out, 0));
        sealer.check_invariants();
        out
    }

    fn open(opener: &mut Opener, now: Instant, packet: &[u8]) -> Result<Vec<u8>, DropReason> {
        let header = Header::decode(packet).unwrap();
        let opened = opener.open(now, KEEP, &header, &mut packet.to_vec()).map(|p| p.to_vec());
        opener.check_invariants();
        opened
    }

    fn at(time: Duration) -> Instant {
        Instant::ZERO + time
    }

    #[test]
    fn an_old_key_is_replaced_and_the_last_one_works_a_little_longer() {
        let (mut sealer, mut opener) = pair();
        let late = [seal(&mut sealer, Instant::ZERO), seal(&mut sealer, Instant::ZERO)];
        let hour = at(KEY_EPOCH_AGE);
        let first_of_next = seal(&mut sealer, hour);
        assert_eq!(Header::decode(&first_of_next).unwrap().key_epoch, 1);
        assert_eq!(open(&mut opener, hour, &first_of_next), Ok(b"hello".to_vec()));
        let soon = hour + KEEP / 2;
        assert_eq!(open(&mut opener, soon, &late[0]), Ok(b"hello".to_vec()));
        assert_eq!(open(&mut opener, hour + KEEP, &late[1]), Err(DropReason::Authentication));
        assert_eq!(opener.previous_expires(), Some(hour + KEEP));
        opener.forget_previous();
        assert_eq!(open(&mut opener, soon, &late[1]), Err(DropReason::Authentication));
    }

    #[test]
    fn a_key_is_replaced_after_its_packets() {
        let (mut sealer, mut opener) = pair();
        sealer.next_counter = KEY_EPOCH_PACKETS - 1;
        opener.replay.commit(KEY_EPOCH_PACKETS - 2);
        let packets = [seal(&mut sealer, Instant::ZERO), seal(&mut sealer, Instant::ZERO)];
        let epochs = packets.clone().map(|p| Header::decode(&p).unwrap().key_epoch);
        assert_eq!(epochs, [0, 1]);
        for packet in &packets {
            assert!(open(&mut opener, Instant::ZERO, packet).is_ok());
        }
        // Only the direction that is full moves on; later packets stay in the epoch.
        assert_eq!(Header::decode(&seal(&mut sealer, Instant::ZERO)).unwrap().key_epoch, 1);
    }

    #[test]
    fn a_forged_epoch_changes_nothing() {
        let (mut sealer, mut opener) = pair();
        let genuine = seal(&mut sealer, Instant::ZERO);
        for epoch in [1, 2, 255] {
            let mut forged = genuine.clone();
            forged[59] = epoch;
            let result = open(&mut opener, Instant::ZERO, &forged);
            assert_eq!(result, Err(DropReason::Authentication));
        }
        assert!(open(&mut opener, Instant::ZERO, &genuine).is_ok());
    }

    #[test]
    fn only_authentic_packets_can_jump_and_even_those_change_nothing() {
        let (mut sealer, mut opener) = pair();
        let first = seal(&mut sealer, Instant::ZERO);
        sealer.next_counter += MAX_COUNTER_JUMP;
        let far = seal(&mut sealer, Instant::ZERO);
        let later = seal(&mut sealer, at(KEY_EPOCH_AGE));
        let mut forged = far.clone();
        forged[70] ^= 1;
        assert_eq!(open(&mut opener, Instant::ZERO, &forged), Err(DropReason::Authentication));
        assert_eq!(open(&mut opener, Instant::ZERO, &far), Err(DropReason::CounterJump));
        assert_eq!(open(&mut opener, Instant::ZERO, &later), Err(DropReason::CounterJump));
        assert_eq!((opener.epoch, opener.replay.newest()), (0, None));
        assert!(open(&mut opener, Instant::ZERO, &first).is_ok());
    }
}
