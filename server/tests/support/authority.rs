//! A certificate authority of the tests, and what it signs for a server on this machine.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// The files of an authority and of the certificate it has signed, in one folder.
pub(crate) struct Authority {
    folder: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new authority, whose first certificate is in place.
    pub(crate) fn new(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).expect("a folder");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("an authority");
        let authority = Self { folder: folder.to_owned(), issuer };
        std::fs::write(authority.ca(), authority.issuer.pem()).expect("the authority's file");
        authority.issue(&["localhost", "127.0.0.1"]);
        authority
    }

    /// A new key and certificate for these names in the files.
    pub(crate) fn issue(&self, names: &[&str]) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.certificate(), certificate.pem()).expect("the certificate's file");
        std::fs::write(self.key(), key.serialize_pem()).expect("the key's file");
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.join("tls.crt")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.folder.join("tls.key")
    }
}
