//! What the fuzz targets share: cutting an input into choices, and a finished handshake.

use net_crypto::{EntityKeypair, Established, Initiator, MeshSecret, Responder};

/// An input read from its front; at its end every choice is 0.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Choices from the whole input.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.bytes(1).first().copied().unwrap_or(0)
    }

    /// The next two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// A number that is mostly small: one byte, or eight after 0xff.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            0xff => (0..8).fold(0, |number, _| number << 8 | u64::from(self.byte())),
            small => u64::from(small),
        }
    }

    /// The next `count` bytes, or what is left.
    pub fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        front
    }

    /// Bytes behind a length of two bytes.
    pub fn block(&mut self) -> &'a [u8] {
        let count = usize::from(self.u16() % 9_000);
        self.bytes(count)
    }
}

/// The two ends of a handshake between fixed keys.
pub fn established() -> (Established, Established) {
    let (client, server) = (EntityKeypair::from_seed([1; 32]), EntityKeypair::from_seed([2; 32]));
    let secret = MeshSecret::new([3; 32]);
    let (mut initiator, init) =
        Initiator::start(&client, &server.entity_id(), &secret, [4; 32], b"").expect("usable keys");
    let (responder, _) =
        Responder::read_init(&server, &secret, [5; 32], &init).expect("a genuine Init");
    let (answered, response) = responder.finish(b"").expect("a short payload");
    let (dialled, _) = initiator.finish(&response).expect("a genuine Response");
    (dialled, answered)
}
