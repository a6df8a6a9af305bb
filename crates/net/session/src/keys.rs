//! Sealing and opening with key epochs.
//!
//! The packet counter runs through all epochs of a direction and never repeats. A sender moves to
//! the next epoch by a one-way ratchet; the receiver follows when a packet of it opens, and keeps
//! the previous key for packets that were under way.

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

    /// Opens a whole packet in place and returns its plaintext. `keep_previous` is how long packets
    /// of the last epoch are still accepted after a ratchet.
    pub(crate) fn open<'a>(
        &mut self,
        now: Instant,
        keep_previous: Duration,
        header: &Header,
        packet: &'a mut [u8],
    ) -> Result<&'a mut [u8], DropReason> {
        self.replay.check(header.counter).map_err(|e| match e {
            ReplayError::Jump => DropReason::CounterJump,
            _ => DropReason::Replay,
        })?;
        let expected = HEADER_BYTES + usize::from(header.payload_len) + TAG_BYTES;
        if packet.len() != expected {
            return Err(DropReason::Malformed);
        }
        let (aad, sealed) = packet.split_at_mut(HEADER_BYTES);
        let ahead = header.key_epoch.wrapping_sub(self.epoch as u8);
        let plaintext = match ahead {
            0 => self.key.open_in_place(header.counter, aad, sealed),
            1 => self.open_next(now, keep_previous, header.counter, aad, sealed),
            u8::MAX => {
                let key = self.previous.as_ref().filter(|(_, until)| now < *until);
                let (key, _) = key.ok_or(DropReason::Authentication)?;
                key.open_in_place(header.counter, aad, sealed)
            }
            _ => return Err(DropReason::Authentication),
        };
        let plaintext = plaintext.map_err(|_| DropReason::Authentication)?;
        self.replay.commit(header.counter);
        Ok(plaintext)
    }

    fn open_next<'a>(
        &mut self,
        now: Instant,
        keep_previous: Duration,
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
        if let Some((key, secret)) = self.next.take() {
            self.secret = secret;
            self.epoch += 1;
            let old = core::mem::replace(&mut self.key, key);
            self.previous = Some((old, now + keep_previous));
        }
        Ok(plaintext)
    }
}
