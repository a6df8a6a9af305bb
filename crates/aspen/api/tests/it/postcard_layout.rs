//! Structs have postcard's layout, so that other tools can read them.

use aspen_api::Revision;
use aspen_api::codec::Wire;
use aspen_api::kv::{Item, ReadResult};
use serde::Serialize;

#[derive(Serialize)]
struct ForeignItem {
    value: Vec<u8>,
    version: u64,
    create_revision: u64,
    mod_revision: u64,
    expires_at_ms: Option<u64>,
    lease_id: Option<u64>,
}

#[derive(Serialize)]
struct ForeignReadResult {
    item: Option<ForeignItem>,
    revision: u64,
}

#[test]
fn a_record_is_what_postcard_makes_of_the_same_struct() {
    for value in [vec![], vec![7; 300]] {
        let item = Item {
            value: value.clone().into(),
            version: 1,
            create_revision: Revision(128),
            mod_revision: Revision(u64::MAX),
            expires_at_ms: Some(1 << 40),
            lease_id: None,
        };
        let ours = ReadResult { item: Some(item), revision: Revision(300) };
        let theirs = ForeignReadResult {
            item: Some(ForeignItem {
                value,
                version: 1,
                create_revision: 128,
                mod_revision: u64::MAX,
                expires_at_ms: Some(1 << 40),
                lease_id: None,
            }),
            revision: 300,
        };
        assert_eq!(ours.to_bytes(), postcard::to_stdvec(&theirs).unwrap());
    }
}
