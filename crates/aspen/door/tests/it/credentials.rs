//! HTTP's credentials and the tokens that they stand for.

use aspen_auth::{Audience, Capability, Claims, Token, TokenError};
use aspen_door::{Credentials, CredentialsError};
use bytes::Bytes;
use net_crypto::EntityKeypair;

fn bearer(headers: &[&str]) -> Result<Option<Bytes>, CredentialsError> {
    let shown = Credentials::bearer(headers.iter().map(|header| header.as_bytes()))?;
    Ok(shown.token().cloned())
}

#[test]
fn a_bearer_is_mapped_to_its_token_and_anything_else_is_refused() {
    let issuer = EntityKeypair::from_seed([7; 32]);
    let admin = vec![Capability::ClusterAdmin {}];
    let claims = Claims::root(issuer.entity_id(), Audience::Bearer {}, admin, 0, 1);
    let token = Token::sign(&issuer, claims).unwrap();
    let text = token.to_text();
    let text = text.expose();
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let header = format!("{scheme} {text}");
        assert_eq!(bearer(&[&header]).unwrap().as_ref(), Some(token.record()));
    }
    assert_eq!(bearer(&[]).unwrap(), None, "no credentials are no error");
    let whole = format!("Bearer {text}");
    assert_eq!(bearer(&[&whole, &whole]), Err(CredentialsError::Several));
    for header in ["", "Bearer", "Bearer ", "Basic YTpi", text, "\u{e9}"] {
        assert_eq!(bearer(&[header]), Err(CredentialsError::Scheme), "{header:?}");
    }
    let latin = Credentials::bearer([&b"Bearer \xe9"[..]]).err();
    assert_eq!(latin, Some(CredentialsError::Scheme));
    let foreign = CredentialsError::Token(TokenError::Foreign);
    assert_eq!(bearer(&["Bearer nonsense"]), Err(foreign));
    let cut = bearer(&[&whole[..whole.len() - 8]]).unwrap_err();
    assert!(matches!(cut, CredentialsError::Token(_)), "{cut}");
}
