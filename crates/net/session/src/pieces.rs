//! Packets that arrive in pieces, because they were built for a larger path than there is now.
//!
//! Invariants: a stream holds at most [`MAX_PACKETS`] packets of [`MAX_PIECES`] pieces, and
//! [`Pieces::bytes`] is what they cost; when there is no room, the newest packet gives way; a
//! payload is given out when no byte of it is missing.

use std::collections::BTreeMap;

use net_wire::Piece;

/// Packets of one stream that may be incomplete at a time; pieces of further ones are refused and
/// come again.
const MAX_PACKETS: usize = 64;
/// Pieces of one packet; the largest packet has eight at the smallest path size.
const MAX_PIECES: usize = 32;
/// What one piece costs in addition to its bytes.
const PIECE_OVERHEAD_BYTES: usize = 96;

#[derive(Debug, Default)]
struct Partial {
    total: u16,
    pieces: BTreeMap<u16, Vec<u8>>,
}

impl Partial {
    fn cost(&self) -> usize {
        self.pieces.values().map(|p| p.len() + PIECE_OVERHEAD_BYTES).sum()
    }

    /// The payload, if no byte of it is missing.
    fn whole(&self) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        for (offset, piece) in &self.pieces {
            // Pieces of two transmissions may overlap.
            let known = payload.len().checked_sub(usize::from(*offset))?;
            payload.extend_from_slice(piece.get(known..).unwrap_or_default());
        }
        (payload.len() == usize::from(self.total)).then_some(payload)
    }
}

/// The incomplete packets of one stream, by sequence.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    packets: BTreeMap<u64, Partial>,
    bytes: usize,
}

impl Pieces {
    /// Asserts that the sum is that of what is held, and that what is held is within its bounds.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.bytes, self.packets.values().map(Partial::cost).sum::<usize>());
        assert!(self.packets.len() <= MAX_PACKETS);
        assert!(self.packets.values().all(|packet| packet.pieces.len() <= MAX_PIECES));
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a piece of packet `sequence`; returns the packet's payload when it is whole.
    pub(crate) fn add(&mut self, sequence: u64, piece: &Piece<'_>) -> Option<Vec<u8>> {
        if !self.packets.contains_key(&sequence) && self.packets.len() >= MAX_PACKETS {
            // The oldest packets are the ones that everything waits for.
            let (&newest, _) = self.packets.last_key_value()?;
            if newest < sequence {
                return None;
            }
            self.remove(newest);
        }
        let partial = self.packets.entry(sequence).or_default();
        self.bytes -= partial.cost();
        if partial.total != piece.total || partial.pieces.len() >= MAX_PIECES {
            partial.pieces.clear();
            partial.total = piece.total;
        }
        partial.pieces.insert(piece.offset, piece.bytes.to_vec());
        self.bytes += partial.cost();
        let whole = partial.whole();
        if whole.is_some() {
            self.remove(sequence);
        }
        whole
    }

    /// Forgets a packet, which arrived in another way.
    pub(crate) fn remove(&mut self, sequence: u64) {
        if let Some(partial) = self.packets.remove(&sequence) {
            self.bytes -= partial.cost();
        }
    }

    /// Forgets packets below `floor`.
    pub(crate) fn remove_below(&mut self, floor: u64) {
        while let Some((&first, _)) = self.packets.first_key_value()
            && first < floor
        {
            self.remove(first);
        }
    }
}

#[cfg(test)]
mod tests {
    use net_wire::Subprotocol;

    use super::*;

    fn piece(offset: u16, bytes: &[u8]) -> Piece<'_> {
        Piece { subprotocol: Subprotocol::EVENTS, total: 10, offset, bytes }
    }

    #[test]
    fn pieces_in_any_order_and_overlapping_give_the_payload() {
        let mut pieces = Pieces::default();
        assert_eq!(pieces.add(5, &piece(7, &[7, 8, 9])), None);
        assert_eq!(pieces.add(5, &piece(0, &[0, 1, 2, 3])), None);
        assert_eq!(pieces.add(5, &piece(0, &[0, 1, 2, 3])), None);
        let whole = pieces.add(5, &piece(3, &[3, 4, 5, 6, 7]));
        assert_eq!(whole, Some((0..10).collect()));
        assert_eq!(pieces.bytes(), 0);
    }

    #[test]
    fn packets_are_bounded_and_the_oldest_are_kept() {
        let mut pieces = Pieces::default();
        for sequence in (0..1_000).rev() {
            pieces.add(sequence, &piece(0, &[0; 5]));
        }
        assert_eq!(pieces.packets.len(), MAX_PACKETS);
        assert_eq!(pieces.packets.last_key_value().map(|(s, _)| *s), Some(63));
        for offset in 0..1_000u16 {
            pieces.add(0, &piece(offset % 5, &[0; 1]));
            pieces.add(0, &piece(offset + 20, &[0; 1]));
        }
        assert!(pieces.packets[&0].pieces.len() <= MAX_PIECES);
        pieces.remove_below(64);
        assert_eq!((pieces.bytes(), pieces.packets.len()), (0, 0));
    }
}
