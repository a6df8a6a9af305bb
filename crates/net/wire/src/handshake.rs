//! The packets of a handshake, taken apart.
//!
//! Init: `header, Noise message (96 + hello), mac1 16, mac2 16`. Response: `header, Noise message
//! (48 + hello), mac1 16`. The header's session id is the initiator's random handshake id; its
//! payload length is that of the Noise message, which has to fill the packet exactly.

use net_types::limits::HEADER_BYTES;

use crate::header::PAYLOAD_LEN_AT;
use crate::hello::MAC_BYTES;
use crate::{DecodeError, Reader};

/// The Noise message between a packet's header, which says its length, and its authenticators.
fn take_noise<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], DecodeError> {
    let header = r.take(HEADER_BYTES)?;
    let len = u16::from_le_bytes([header[PAYLOAD_LEN_AT], header[PAYLOAD_LEN_AT + 1]]);
    r.take(len.into())
}

/// An Init packet taken apart.
#[derive(Clone, Copy, Debug)]
pub struct InitPacket<'a> {
    /// What mac1 covers: header and Noise message.
    pub mac1_input: &'a [u8],
    /// What mac2 covers: `mac1_input` and mac1.
    pub mac2_input: &'a [u8],
    /// The Noise message.
    pub noise: &'a [u8],
    /// First authenticator.
    pub mac1: [u8; MAC_BYTES],
    /// Second authenticator, zero without a cookie.
    pub mac2: [u8; MAC_BYTES],
}

impl<'a> InitPacket<'a> {
    /// Splits a whole packet.
    pub fn split(packet: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(packet);
        let noise = take_noise(&mut r)?;
        let mac1_input = &packet[..r.position()];
        let mac1 = r.array()?;
        let mac2_input = &packet[..r.position()];
        let mac2 = r.array()?;
        r.finish()?;
        Ok(Self { mac1_input, mac2_input, noise, mac1, mac2 })
    }
}

/// A Response packet taken apart.
#[derive(Clone, Copy, Debug)]
pub struct ResponsePacket<'a> {
    /// What mac1 covers: header and Noise message.
    pub mac1_input: &'a [u8],
    /// The Noise message.
    pub noise: &'a [u8],
    /// The authenticator.
    pub mac1: [u8; MAC_BYTES],
}

impl<'a> ResponsePacket<'a> {
    /// Splits a whole packet.
    pub fn split(packet: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(packet);
        let noise = take_noise(&mut r)?;
        let mac1_input = &packet[..r.position()];
        let mac1 = r.array()?;
        r.finish()?;
        Ok(Self { mac1_input, noise, mac1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_split_at_their_authenticators() {
        let mut packet = vec![0u8; HEADER_BYTES];
        packet[PAYLOAD_LEN_AT] = 10;
        packet.extend_from_slice(&[1; 10]);
        packet.extend_from_slice(&[2; 16]);
        packet.extend_from_slice(&[3; 16]);
        let init = InitPacket::split(&packet).unwrap();
        assert_eq!((init.noise, init.mac1, init.mac2), (&[1u8; 10][..], [2; 16], [3; 16]));
        assert_eq!(init.mac1_input.len(), 74);
        assert_eq!(init.mac2_input.len(), 90);
        let response = ResponsePacket::split(&packet[..90]).unwrap();
        assert_eq!((response.noise, response.mac1), (&[1u8; 10][..], [2; 16]));
        let longer = [&packet[..], &[0]].concat();
        for bad in [&packet[..105], &packet[..63], &longer] {
            assert!(InitPacket::split(bad).is_err());
            assert!(ResponsePacket::split(bad).is_err());
        }
    }
}
