use std::fs;
use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use rcgen::{CertificateParams, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;
use tokio::io::AsyncWrite as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

use super::*;

/// A folder with a certificate and its key, as a certificate manager keeps it.
struct Kept {
    folder: TempDir,
}

/// A self-signed certificate from that year to that year, and its key, in PEM.
fn made((from, to): (i32, i32)) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(from, 1, 1);
    params.not_after = rcgen::date_time_ymd(to, 1, 1);
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

const GOOD: (i32, i32) = (2020, 2100);

impl Kept {
    fn new() -> Self {
        let kept = Self { folder: tempfile::tempdir().unwrap() };
        kept.put(made(GOOD));
        kept
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, (certificate, key): (String, String)) {
        fs::write(self.path("tls.crt"), certificate).unwrap();
        fs::write(self.path("tls.key"), key).unwrap();
    }

    fn config(&self) -> TlsConfig {
        TlsConfig { certificate: self.path("tls.crt"), key: self.path("tls.key"), ..TlsConfig::default() }
    }

    /// Why it cannot be loaded.
    fn refused(&self) -> String {
        Tls::load(&self.config()).err().expect("it is no good").to_string()
    }
}

fn shown(tls: &Tls) -> Vec<u8> {
    tls.in_force.0.read().end_entity_cert().unwrap().to_vec()
}

/// Looks until nothing changes any more, as the loop does.
fn look_twice(tls: &Tls) {
    tls.look();
    tls.look();
}

#[test]
fn what_cannot_be_used_is_refused_by_key_and_file_and_says_nothing_of_the_key() {
    let kept = Kept::new();
    let (certificate, key) = (kept.path("tls.crt"), kept.path("tls.key"));
    let (good_certificate, good_key) = (fs::read_to_string(&certificate).unwrap(), fs::read_to_string(&key).unwrap());
    let (_, other_key) = made(GOOD);
    let encrypted = good_key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let cut = good_key.lines().take(2).collect::<Vec<_>>().join("\n");
    let rows: [(&Path, &str, &str, &str); 8] = [
        (&certificate, "", "gateway.tls.certificate", "holds no certificate"),
        (&certificate, &good_key, "gateway.tls.certificate", "holds no certificate"),
        (&certificate, &good_certificate.replace("MII", "AAA"), "gateway.tls.certificate", "its first certificate"),
        (&certificate, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----", "gateway.tls.certificate", "no good PEM"),
        (&key, &good_certificate, "gateway.tls.key", "holds no private key"),
        (&key, &encrypted, "gateway.tls.key", "not encrypted"),
        (&key, &cut, "gateway.tls.key", "no good PEM"),
        (&key, &other_key, "gateway.tls.key", "is not the key of the certificate"),
    ];
    for (file, text, name, why) in rows {
        kept.put((good_certificate.clone(), good_key.clone()));
        fs::write(file, text).unwrap();
        let refused = kept.refused();
        assert!(refused.starts_with(name) && refused.contains(file.to_str().unwrap()) && refused.contains(why), "{refused}");
        let secret = good_key.lines().nth(1).unwrap();
        assert!(!refused.contains(&secret[..16]), "{refused}");
    }
    fs::remove_file(&key).unwrap();
    assert!(kept.refused().contains("No such file"), "{}", kept.refused());
}

#[test]
fn a_change_is_read_when_it_stands_still() {
    let kept = Kept::new();
    let tls = Tls::load(&kept.config()).unwrap();
    let old = shown(&tls);
    look_twice(&tls);
    assert_eq!(shown(&tls), old);

    let (certificate, key) = made(GOOD);
    fs::write(kept.path("tls.crt"), &certificate).unwrap();
    tls.look();
    assert_eq!(shown(&tls), old, "the key is not there yet");
    fs::write(kept.path("tls.key"), &key).unwrap();
    tls.look();
    assert_eq!(shown(&tls), old, "it has changed since the last look");
    tls.look();
    assert_ne!(shown(&tls), old);
}

#[test]
fn a_link_that_points_elsewhere_is_a_change() {
    // tls.crt -> ..data/tls.crt, ..data -> a folder: the manager exchanges ..data in one step
    let kept = Kept::new();
    let put = |folder: &str| {
        let (certificate, key) = made(GOOD);
        fs::create_dir(kept.path(folder)).unwrap();
        fs::write(kept.path(folder).join("tls.crt"), certificate).unwrap();
        fs::write(kept.path(folder).join("tls.key"), key).unwrap();
        std::os::unix::fs::symlink(folder, kept.path("..new")).unwrap();
        fs::rename(kept.path("..new"), kept.path("..data")).unwrap();
    };
    put("first");
    for file in ["tls.crt", "tls.key"] {
        fs::remove_file(kept.path(file)).unwrap();
        std::os::unix::fs::symlink(Path::new("..data").join(file), kept.path(file)).unwrap();
    }
    let tls = Tls::load(&kept.config()).unwrap();
    let first = shown(&tls);
    put("second");
    look_twice(&tls);
    assert_ne!(shown(&tls), first);
}

#[test]
fn what_is_no_good_leaves_the_old_one_in_force_and_is_tried_once() {
    let kept = Kept::new();
    let tls = Tls::load(&kept.config()).unwrap();
    let old = shown(&tls);
    for bad in
        [made((2000, 2001)), made((2090, 2100)), ("nonsense".to_owned(), "nonsense".to_owned()), (made(GOOD).0, made(GOOD).1)]
    {
        kept.put(bad);
        look_twice(&tls);
        assert_eq!(shown(&tls), old);
        let read = tls.looked.lock().read;
        look_twice(&tls);
        assert_eq!(tls.looked.lock().read, read, "not read again until it changes");
    }
    kept.put(made(GOOD));
    tls.reload();
    assert_ne!(shown(&tls), old, "SIGHUP does not wait");
}

#[test]
fn the_time_of_its_end_is_the_certificates() {
    let kept = Kept::new();
    kept.put(made((2020, 2030)));
    let identity = Identity::read(&kept.config()).unwrap();
    assert_eq!(identity.valid_s, 1_577_836_800..=1_893_456_000);
}

#[test]
fn a_plain_stream_pays_nothing_for_the_choice() {
    assert_eq!(size_of::<Stream>(), size_of::<TcpStream>());
}

#[test]
fn the_answer_in_the_clear_is_as_long_as_it_says() {
    let (head, body) = std::str::from_utf8(SPEAKS_TLS).unwrap().split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
}

/// A client that trusts this certificate.
fn connector(certificate: &Path) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}

#[tokio::test]
async fn nothing_is_taken_on_top_of_what_the_kernel_does_not_take() {
    let kept = Kept::new();
    let tls = Tls::load(&kept.config()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = async {
        let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        connector(&kept.path("tls.crt")).connect("localhost".try_into().unwrap(), tcp).await.unwrap()
    };
    let server = async { tls.accept(listener.accept().await.unwrap().0).await.unwrap().expect("it is TLS") };
    let (_does_not_read, mut stream) = tokio::join!(client, server);
    let mut held_back = 0;
    for _ in 0..100_000 {
        let (flushed, taken) = poll_fn(|cx| {
            let flushed = Pin::new(&mut stream).poll_flush(cx);
            let taken = Pin::new(&mut stream).poll_write(cx, &[7; 1000]);
            Poll::Ready((flushed, taken))
        })
        .await;
        if flushed.is_pending() {
            assert!(taken.is_pending(), "taken where nobody sees that it does not leave");
            held_back += 1;
        }
        if held_back == 20 {
            return;
        }
    }
    panic!("the kernel takes whatever comes");
}
