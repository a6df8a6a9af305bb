//! Doors that speak TLS, and files that cannot be used for it.

use std::path::PathBuf;
use std::sync::Arc;

use aspen_door::{DoorLimits, Tls, TlsError};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::echo::{is_echoed, is_ended, open};

const LIMITS: DoorLimits = DoorLimits { connections: 3, handshakes: 1, idle: None };

/// A certificate for localhost and the files of it and its key.
struct Files {
    folder: TempDir,
    certificate: PathBuf,
    key: PathBuf,
    trusted: CertificateDer<'static>,
}

impl Files {
    fn new() -> Self {
        let names = vec!["localhost".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names).unwrap();
        let folder = TempDir::new().unwrap();
        let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, cert.pem()).unwrap();
        std::fs::write(&key, signing_key.serialize_pem()).unwrap();
        Self { folder, certificate, key, trusted: cert.der().clone() }
    }

    fn load(&self) -> Tls {
        Tls::load(&self.certificate, &self.key).unwrap()
    }

    /// A client that trusts the certificate.
    fn client(&self) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.trusted.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }
}

#[tokio::test]
async fn a_door_with_tls_serves_its_clients_and_counts_plain_ones() {
    let files = Files::new();
    let door = open(LIMITS, Some(files.load())).await;
    let mut plain = TcpStream::connect(door.addr).await.unwrap();
    assert!(!is_echoed(&mut plain).await);
    door.reaches("tls_failures_total", 1).await;
    let tcp = TcpStream::connect(door.addr).await.unwrap();
    let mut client = files.client().connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert!(is_echoed(&mut client).await);
    assert_eq!(door.metric("received_bytes_total"), 5, "the bytes of TLS do not count");
    drop((client, plain));
    door.reaches("connections", 0).await;
}

#[tokio::test]
async fn a_handshake_that_stands_still_does_not_hold_up_others() {
    let files = Files::new();
    let limits = DoorLimits { handshakes: 2, ..LIMITS };
    let door = open(limits, Some(files.load())).await;
    let _silent = TcpStream::connect(door.addr).await.unwrap();
    door.reaches("connections", 1).await;
    let tcp = TcpStream::connect(door.addr).await.unwrap();
    let mut client = files.client().connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert!(is_echoed(&mut client).await);
    let _silent_too = TcpStream::connect(door.addr).await.unwrap();
    door.reaches("connections", 3).await;
    let mut beyond = TcpStream::connect(door.addr).await.unwrap();
    assert!(is_ended(&mut beyond).await);
    assert_eq!(door.metric("refused_total"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_finished_in_time_is_ended() {
    let files = Files::new();
    let door = open(LIMITS, Some(files.load())).await;
    let mut silent = TcpStream::connect(door.addr).await.unwrap();
    assert!(is_ended(&mut silent).await);
    assert_eq!(door.metric("tls_failures_total"), 1);
    door.reaches("connections", 0).await;
}

#[test]
fn files_that_cannot_be_used_are_named_with_the_reason() {
    let files = Files::new();
    let absent = files.folder.path().join("absent.pem");
    let error = |certificate: &PathBuf, key: &PathBuf| Tls::load(certificate, key).err().unwrap();
    let unread = error(&absent, &files.key);
    assert!(matches!(unread, TlsError::Read { .. }), "{unread}");
    assert!(unread.to_string().contains("absent.pem: No such file"), "{unread}");
    let swapped = error(&files.key, &files.certificate);
    assert!(matches!(swapped, TlsError::NoCertificate { .. }), "{swapped}");
    let no_key = error(&files.certificate, &files.certificate);
    assert!(no_key.to_string().contains("cert.pem: "), "{no_key}");
    let other = files.folder.path().join("other.pem");
    std::fs::write(&other, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let foreign = error(&files.certificate, &other);
    assert!(matches!(foreign, TlsError::Pair { .. }), "{foreign}");
    assert!(foreign.to_string().contains("other.pem"), "{foreign}");
}
