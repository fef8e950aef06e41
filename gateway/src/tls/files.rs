//! A certificate and its key, from files: read, checked against each other, and told apart from what they were.

use std::fs::Metadata;
use std::ops::RangeInclusive;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

use crate::config::TlsConfig;
use crate::error::GatewayError;

/// A certificate chain with the key of its first certificate.
pub(super) struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    /// When that certificate is valid, seconds since 1970.
    pub(super) valid_s: RangeInclusive<u64>,
}

impl Identity {
    /// Reads both files. Nothing of the key is ever in an error.
    pub(super) fn read(config: &TlsConfig) -> Result<Self, GatewayError> {
        let of_certificate = |why: String| wrong("gateway.tls.certificate", &config.certificate, why);
        let of_key = |why: &str| wrong("gateway.tls.key", &config.key, why.to_owned());

        let text = std::fs::read(&config.certificate).map_err(|why| of_certificate(why.to_string()))?;
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.map_err(|_| of_certificate("is no good PEM".into()))?;
        let first = chain.first().ok_or_else(|| of_certificate("holds no certificate (PEM, the server's own first)".into()))?;
        let parsed = Certificate::from_der(first).map_err(|why| of_certificate(format!("its first certificate: {why}")))?;
        let validity = parsed.tbs_certificate().validity();
        let valid_s = validity.not_before.to_unix_duration().as_secs()..=validity.not_after.to_unix_duration().as_secs();

        let text = std::fs::read(&config.key).map_err(|why| of_key(&why.to_string()))?;
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|why| {
            of_key(match why {
                pem::Error::NoItemsFound => "holds no private key that is not encrypted (PEM: PKCS#8, PKCS#1 or SEC1)",
                _ => "is no good PEM",
            })
        })?;
        let certified = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider());
        let certified = certified.map_err(|why| match why {
            rustls::Error::InconsistentKeys(_) => {
                of_key(&format!("is not the key of the certificate in {}", config.certificate.display()))
            }
            _ => of_key("is of a kind that cannot be used: ECDSA P-256 or P-384, Ed25519, or RSA of 2048 to 4096 bits"),
        })?;
        Ok(Self { certified: Arc::new(certified), valid_s })
    }

    /// Itself, if it is valid at this time.
    pub(super) fn valid_now(self, config: &TlsConfig, now_s: u64) -> Result<Self, GatewayError> {
        if self.valid_s.contains(&now_s) {
            return Ok(self);
        }
        let why = if now_s < *self.valid_s.start() { "is not valid yet" } else { "has expired" };
        Err(wrong("gateway.tls.certificate", &config.certificate, why.into()))
    }
}

fn wrong(key: &'static str, file: &Path, why: String) -> GatewayError {
    GatewayError::Tls { key, file: file.to_owned(), why }
}

/// Whether anybody on this machine can read it.
pub(super) fn is_readable_by_all(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// What tells one content of the two files from another without reading them: links are followed, so a link that points elsewhere is a
/// change. A file that is not there has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks([Option<[i64; 5]>; 2]);

impl Marks {
    pub(super) fn of(config: &TlsConfig) -> Self {
        Self([&config.certificate, &config.key].map(|file| std::fs::metadata(file).ok().map(|metadata| mark(&metadata))))
    }
}

#[expect(clippy::cast_possible_wrap, reason = "only compared with itself")]
fn mark(metadata: &Metadata) -> [i64; 5] {
    // the time of any change, not only of the content's: it cannot be set back
    [metadata.dev() as i64, metadata.ino() as i64, metadata.size() as i64, metadata.ctime(), metadata.ctime_nsec()]
}
