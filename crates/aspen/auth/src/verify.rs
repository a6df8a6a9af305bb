//! Whether a token holds: signatures, times, audience, and a chain that only narrows, up to a root.

use bytes::Bytes;
use net_types::EntityId;
use net_types::limits::{MAX_DELEGATION_DEPTH, TOKEN_CLOCK_SKEW};
use thiserror::Error;

use crate::{Audience, Capability, Grant, Token, TokenError, TokenId};

/// Why a token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Rejection {
    /// It, or one that it rests on, is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It begins later than now.
    #[error("the token is not valid yet")]
    TooEarly,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It is for another identity than the session's.
    #[error("the token belongs to another identity")]
    ForAnother,
    /// Its issuer is not trusted here.
    #[error("the token's issuer is not trusted here")]
    Untrusted,
    /// The chain is too long, or its tokens do not belong to each other.
    #[error("the token was not handed on properly: {0}")]
    Chain(&'static str),
    /// It, or one that it rests on, was taken back.
    #[error("the token was revoked")]
    Revoked,
}

/// A token that holds for one session, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// What it allows.
    pub grant: Grant,
    /// It and those that it rests on, each of which can be taken back.
    pub chain: Vec<TokenId>,
    /// First and last Unix second at which it holds, clock skew included.
    pub valid: (u64, u64),
    /// The trusted issuer at the end of the chain.
    pub root: EntityId,
}

/// Whom to trust, and when and by whom a token is used.
#[derive(Clone, Copy, Debug)]
pub struct Verifier<'a> {
    /// Issuers of tokens that rest on no other.
    pub roots: &'a [EntityId],
    /// The identity of the session that the token came through.
    pub caller: Option<EntityId>,
    /// Unix seconds.
    pub now: u64,
}

impl Verifier<'_> {
    /// Checks the record of a token and all that it rests on. Whether one of them was revoked is the
    /// caller's to look up, by [`Verified::chain`].
    ///
    /// Signatures come last, the root's first: who has no token of a root has one of them checked at
    /// most, however long the chain.
    pub fn verify(&self, record: Bytes) -> Result<Verified, Rejection> {
        let mut chain = vec![Token::unchecked(record)?];
        if let Audience::Key { key } = &chain[0].claims().audience
            && Some(*key) != self.caller
        {
            return Err(Rejection::ForAnother);
        }
        let mut valid = self.in_time(&chain[0], (0, u64::MAX))?;
        while let Some(child) = chain.last()
            && let Some(proof) = child.claims().proof.clone()
        {
            if chain.len() > usize::from(MAX_DELEGATION_DEPTH) {
                return Err(Rejection::Chain("it went through too many hands"));
            }
            let parent = Token::unchecked(proof)?;
            is_narrower(child, &parent)?;
            valid = self.in_time(&parent, valid)?;
            chain.push(parent);
        }
        let root = chain[chain.len() - 1].claims();
        if root.delegation_depth != 0 {
            return Err(Rejection::Chain("its depth is not that of its chain"));
        }
        if !self.roots.contains(&root.issuer) {
            return Err(Rejection::Untrusted);
        }
        chain.iter().rev().try_for_each(Token::check_signature)?;
        Ok(Verified {
            grant: Grant::new(chain[0].claims().capabilities.clone()),
            chain: chain.iter().map(Token::id).collect(),
            valid,
            root: root.issuer,
        })
    }

    /// The first and last second of `valid` at which a token holds too, if it does now.
    fn in_time(&self, token: &Token, valid: (u64, u64)) -> Result<(u64, u64), Rejection> {
        let skew = TOKEN_CLOCK_SKEW.as_secs();
        let from = token.claims().issued_at.saturating_sub(skew);
        let until = token.claims().expires_at.saturating_add(skew);
        if self.now < from {
            return Err(Rejection::TooEarly);
        }
        if self.now >= until {
            return Err(Rejection::Expired);
        }
        Ok((valid.0.max(from), valid.1.min(until - 1)))
    }
}

impl Token {
    /// Whether `parent` let its holder hand this on.
    pub fn narrows(&self, parent: &Token) -> Result<(), Rejection> {
        is_narrower(self, parent)
    }
}

/// Whether `parent` let its holder hand on `child`.
fn is_narrower(child: &Token, parent: &Token) -> Result<(), Rejection> {
    let (child, parent) = (child.claims(), parent.claims());
    // A bearer's token is never handed on: it travels in the proof, so a holder of the narrower
    // one would hold it too.
    match parent.audience {
        Audience::Key { key } if key == child.issuer => {}
        _ => return Err(Rejection::Chain("its issuer is not the holder of what it rests on")),
    }
    if child.delegation_depth.checked_sub(1) != Some(parent.delegation_depth) {
        return Err(Rejection::Chain("its depth is not that of its chain"));
    }
    if !parent.capabilities.contains(&Capability::Delegate {}) {
        return Err(Rejection::Chain("what it rests on may not be handed on"));
    }
    if child.expires_at > parent.expires_at {
        return Err(Rejection::Chain("it lives longer than what it rests on"));
    }
    let is_held = |wanted: &Capability| parent.capabilities.iter().any(|own| own.contains(wanted));
    match child.capabilities.iter().all(is_held) {
        true => Ok(()),
        false => Err(Rejection::Chain("it allows more than what it rests on")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use net_crypto::EntityKeypair;
    use proptest::prelude::*;

    use super::*;
    use crate::Claims;

    const NOW: u64 = 1_000_000;

    fn key(n: u8) -> EntityKeypair {
        EntityKeypair::from_seed([n; 32])
    }

    fn entity(n: u8) -> EntityId {
        key(n).entity_id()
    }

    fn claims(audience: Audience, capabilities: &[&str]) -> Claims {
        let capabilities = capabilities.iter().map(|text| text.parse().unwrap()).collect();
        Claims::root(entity(0), audience, capabilities, NOW - 10, NOW + 100)
    }

    fn held_by(n: u8, capabilities: &[&str]) -> Claims {
        claims(Audience::Key { key: entity(n) }, capabilities)
    }

    fn verify(token: &Token, caller: u8, now: u64) -> Result<Verified, Rejection> {
        Verifier { roots: &[entity(1)], caller: Some(entity(caller)), now }
            .verify(token.record().clone())
    }

    #[test]
    fn a_roots_token_holds_for_its_audience_in_its_time() {
        let token = Token::sign(&key(1), held_by(2, &["read:"])).unwrap();
        let verified = verify(&token, 2, NOW).unwrap();
        assert_eq!(verified.chain, [token.id()]);
        assert_eq!(verified.valid, (NOW - 70, NOW + 159), "a minute of skew on both ends");
        assert_eq!(verify(&token, 3, NOW), Err(Rejection::ForAnother));
        assert!(verify(&token, 2, NOW - 70).is_ok() && verify(&token, 2, NOW + 159).is_ok());
        assert_eq!(verify(&token, 2, NOW - 71), Err(Rejection::TooEarly));
        assert_eq!(verify(&token, 2, NOW + 160), Err(Rejection::Expired));
        let other = Token::sign(&key(9), held_by(2, &["read:"])).unwrap();
        assert_eq!(verify(&other, 2, NOW), Err(Rejection::Untrusted));
        let bearer = Token::sign(&key(1), claims(Audience::Bearer {}, &["read:"])).unwrap();
        assert!(verify(&bearer, 77, NOW).is_ok());
    }

    #[test]
    fn a_chain_only_narrows() {
        let root = Token::sign(&key(1), held_by(2, &["full:app/", "delegate"])).unwrap();
        let narrower = root.delegate(&key(2), held_by(3, &["read:app/x"])).unwrap();
        let verified = verify(&narrower, 3, NOW).unwrap();
        assert_eq!(verified.chain, [narrower.id(), root.id()]);
        assert_eq!(verified.grant, Grant::new(narrower.claims().capabilities.clone()));

        let chain =
            |token: Result<Token, TokenError>, caller| match verify(&token.unwrap(), caller, NOW) {
                Err(Rejection::Chain(why)) => why,
                other => panic!("{other:?}"),
            };
        let wider = root.delegate(&key(2), held_by(3, &["read:other/"]));
        assert_eq!(chain(wider, 3), "it allows more than what it rests on");
        let stolen = root.delegate(&key(4), held_by(4, &["read:app/"]));
        assert_eq!(chain(stolen, 4), "its issuer is not the holder of what it rests on");
        let longer = Claims { expires_at: NOW + 101, ..held_by(3, &["read:app/"]) };
        assert_eq!(
            chain(root.delegate(&key(2), longer), 3),
            "it lives longer than what it rests on"
        );
        let again = narrower.delegate(&key(3), held_by(4, &["read:app/x"]));
        assert_eq!(chain(again, 4), "what it rests on may not be handed on");
        let depth = Claims { delegation_depth: 1, ..held_by(2, &["read:"]) };
        assert_eq!(chain(Token::sign(&key(1), depth), 2), "its depth is not that of its chain");
        let borne =
            Token::sign(&key(1), claims(Audience::Bearer {}, &["read:", "delegate"])).unwrap();
        let handed = borne.delegate(&key(2), held_by(3, &["read:"]));
        assert_eq!(chain(handed, 3), "its issuer is not the holder of what it rests on");
    }

    #[test]
    fn a_chain_is_as_long_as_allowed_and_as_valid_as_its_parts() {
        let all = ["read:", "delegate"];
        let mut token = Token::sign(&key(1), held_by(10, &all)).unwrap();
        for n in 10..10 + MAX_DELEGATION_DEPTH {
            token = token.delegate(&key(n), held_by(n + 1, &all)).unwrap();
        }
        let last = 10 + MAX_DELEGATION_DEPTH;
        let verified = verify(&token, last, NOW).unwrap();
        assert_eq!(verified.chain.len(), usize::from(MAX_DELEGATION_DEPTH) + 1);
        let longer = token.delegate(&key(last), held_by(last + 1, &all)).unwrap();
        assert_eq!(
            verify(&longer, last + 1, NOW),
            Err(Rejection::Chain("it went through too many hands"))
        );
        let short = Claims { expires_at: NOW - 61, ..held_by(2, &all) };
        let expired = Token::sign(&key(1), short).unwrap();
        let child = Claims { expires_at: NOW - 61, ..held_by(3, &all) };
        let child = expired.delegate(&key(2), child).unwrap();
        assert_eq!(verify(&child, 3, NOW), Err(Rejection::Expired));
    }

    #[test]
    fn forged_tokens_are_refused_and_cost_little() {
        let forged = |token: &Token| {
            let mut record = token.record().to_vec();
            *record.last_mut().unwrap() ^= 1;
            Bytes::from(record)
        };
        let verifier = Verifier { roots: &[entity(1)], caller: Some(entity(3)), now: NOW };
        let refusal = |record| verifier.verify(record).unwrap_err();
        let stranger = Token::sign(&key(9), held_by(3, &["read:"])).unwrap();
        assert_eq!(refusal(forged(&stranger)), Rejection::Untrusted, "no signature was looked at");
        let damaged = Rejection::Token(TokenError::Damaged);
        let root = Token::sign(&key(1), held_by(2, &["full:", "delegate"])).unwrap();
        let child = root.delegate(&key(2), held_by(3, &["read:"])).unwrap();
        assert_eq!(refusal(forged(&child)), damaged);
        let proof = Some(forged(&root));
        let claims = Claims { proof, delegation_depth: 1, ..held_by(3, &["read:"]) };
        let on_a_forged_one = Token::sign(&key(2), claims).unwrap();
        assert_eq!(refusal(on_a_forged_one.record().clone()), damaged);
    }

    #[test]
    fn the_record_and_its_text_are_pinned() {
        let claims = Claims {
            nonce: Some(Bytes::from_static(&[7; 16])),
            ..claims(Audience::Bearer {}, &["read:a", "admin"])
        };
        let token = Token::sign(&key(1), claims).unwrap();
        let record = token.record();
        let head = [&[1][..], entity(1).as_bytes(), &[2, 2, 1, 1, b'a', 6]].concat();
        assert_eq!(record[..head.len()], head);
        assert_eq!(record.len(), head.len() + 3 + 3 + 18 + 1 + 1 + 1 + 64);
        let text = token.to_text();
        assert!(text.expose().starts_with("aspentoken"));
        assert_eq!(text.expose().parse(), Ok(token));
    }

    proptest! {
        #[test]
        fn damage_is_noticed(at in 0usize..200, bit in 0u8..8) {
            let token = Token::sign(&key(1), held_by(2, &["full:a", "delegate"])).unwrap();
            let mut record = token.record().to_vec();
            let at = at % record.len();
            record[at] ^= 1 << bit;
            prop_assert!(Token::decode(record.into()).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_no_token(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Token::decode(bytes.into()).is_err());
        }
    }
}
