//! Values as they are typed and shown.

use std::net::SocketAddr;

use aspen_api::Key;
use bytes::Bytes;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use net_types::limits::MAX_PEER_ADDRS;
use net_types::{EntityId, PeerAddr};
use serde::Deserialize;
use serde_json::{Value, json};

/// A value in JSON: text if it is UTF-8, else `{"base64": ..}`.
pub(crate) fn json_value(value: &[u8]) -> Value {
    match std::str::from_utf8(value) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": BASE64.encode(value) }),
    }
}

/// A value in a line of text: as it is if it is printable UTF-8, else with escapes or in base64.
pub(crate) fn shown_value(value: &[u8]) -> String {
    match std::str::from_utf8(value) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        Ok(text) => text.escape_debug().to_string(),
        Err(_) => format!("base64:{}", BASE64.encode(value)),
    }
}

/// A continuation token as text.
pub(crate) fn token_text(token: &[u8]) -> String {
    BASE64URL_NOPAD.encode(token)
}

pub(crate) fn parse_token(text: &str) -> Result<Bytes, String> {
    let decoded = BASE64URL_NOPAD.decode(text.as_bytes());
    decoded.map(Bytes::from).map_err(|_| "this is not a token that a scan printed".to_owned())
}

pub(crate) fn parse_assignment(text: &str) -> Result<(Key, Bytes), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    let key = key.parse().map_err(|error| format!("{error}"))?;
    Ok((key, Bytes::copy_from_slice(value.as_bytes())))
}

/// The JSON form of a peer: `{"id":"<64 hex>","addrs":[{"Ip":"host:port"}]}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonPeer {
    id: String,
    addrs: Vec<JsonAddr>,
}

#[derive(Deserialize)]
enum JsonAddr {
    Ip(SocketAddr),
}

/// A peer as JSON or as `<64 hex>@host:port[,host:port]`. One without an address is refused: an
/// unreachable node can never catch up.
pub(crate) fn parse_addr(text: &str) -> Result<PeerAddr, String> {
    let (id, addrs) = if text.trim_start().starts_with('{') {
        let peer: JsonPeer = serde_json::from_str(text).map_err(|error| {
            format!(
                "{error}; expected {{\"id\":\"<64 hex>\",\"addrs\":[{{\"Ip\":\"host:port\"}}]}}"
            )
        })?;
        let addrs = peer.addrs.into_iter().map(|JsonAddr::Ip(addr)| addr).collect();
        (peer.id, addrs)
    } else {
        let (id, addrs) = text.split_once('@').ok_or(
            "a node's id alone is not enough: say where it is, as <64 hex>@host:port or as JSON",
        )?;
        let addrs = addrs
            .split(',')
            .map(|addr| addr.parse().map_err(|_| format!("{addr:?} is not an address and a port")))
            .collect::<Result<Vec<SocketAddr>, String>>()?;
        (id.to_owned(), addrs)
    };
    let entity_id: EntityId = id.parse().map_err(|error| format!("the id: {error}"))?;
    if addrs.is_empty() {
        return Err("a node without an address cannot be reached; give at least one".to_owned());
    }
    if addrs.len() > MAX_PEER_ADDRS {
        return Err(format!("a node has at most {MAX_PEER_ADDRS} addresses"));
    }
    Ok(PeerAddr { entity_id, addrs, relays: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_text_only_if_they_are_text() {
        assert_eq!(json_value("ключ".as_bytes()), json!("ключ"));
        assert_eq!(json_value(b""), json!(""));
        assert_eq!(json_value(&[0xff, 0]), json!({ "base64": "/wA=" }));
        assert_eq!(shown_value(b"plain"), "plain");
        assert_eq!(shown_value(b"two\nlines"), "two\\nlines");
        assert_eq!(shown_value(&[0xff]), "base64:/w==");
    }

    #[test]
    fn tokens_survive_being_text() {
        let token = [1, 0, 255, 62, 63];
        assert_eq!(parse_token(&token_text(&token)).unwrap(), &token[..]);
    }

    #[test]
    fn peers_need_an_identity_and_an_address() {
        let id = "ab".repeat(32);
        let expected = PeerAddr::direct(EntityId([0xab; 32]), "10.0.0.2:7000".parse().unwrap());
        let json = format!(r#"{{"id":"{id}","addrs":[{{"Ip":"10.0.0.2:7000"}}]}}"#);
        assert_eq!(parse_addr(&json), Ok(expected.clone()));
        assert_eq!(parse_addr(&format!("{id}@10.0.0.2:7000")), Ok(expected));
        let two = parse_addr(&format!("{id}@10.0.0.2:7000,[::1]:7000")).unwrap();
        assert_eq!(two.addrs.len(), 2);
        for bad in [
            id.clone(),
            format!("{id}@"),
            format!("{id}@nowhere"),
            format!(r#"{{"id":"{id}","addrs":[]}}"#),
            format!(r#"{{"id":"{id}"}}"#),
            r#"{"id":"ab","addrs":[{"Ip":"10.0.0.2:7000"}]}"#.to_owned(),
            format!("{id}@{}", ["10.0.0.2:7000"; 9].join(",")),
        ] {
            assert!(parse_addr(&bad).is_err(), "{bad}");
        }
    }
}
