//! What a node proves itself with: the CA it trusts, its own certificate and the key to it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use x509_parser::extensions::GeneralName;

use crate::expiry::Validity;

/// What is wrong with an identity; it names the file, or the part when there is no file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read {path:?}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The text is not PEM.
    #[error("{origin}: not PEM: {detail}")]
    Pem {
        /// The file or the part.
        origin: String,
        /// What the parser said.
        detail: String,
    },
    /// There is no certificate in it.
    #[error("{origin}: holds no certificate")]
    NoCertificate {
        /// The file or the part.
        origin: String,
    },
    /// A certificate cannot be parsed, or cannot serve as what it is there for.
    #[error("{origin}: unusable certificate: {detail}")]
    Certificate {
        /// The file or the part.
        origin: String,
        /// What the parser said.
        detail: String,
    },
    /// There is no private key in it, or one that cannot be used.
    #[error("{origin}: no usable private key: {detail}")]
    Key {
        /// The file or the part.
        origin: String,
        /// What the parser said.
        detail: String,
    },
    /// The node's certificate is expired or was not issued by the CA.
    #[error("{origin}: not a valid certificate of the CA: {detail}")]
    NotIssued {
        /// The file or the part.
        origin: String,
        /// What the verification said.
        detail: String,
    },
}

/// The CA a node trusts, the certificate chain it shows and the private key to it.
///
/// All of it is checked when it is made: the chain leads to the CA and is valid today, the key fits.
pub struct Identity {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    names: Vec<String>,
    validity: Validity,
}

impl Identity {
    /// Reads an identity from PEM texts: the CA's certificate, the node's (with intermediates, if any), its key.
    ///
    /// # Errors
    /// When a part is missing, cannot be parsed, or does not fit the others.
    pub fn from_pem(ca: &str, cert: &str, key: &str) -> Result<Identity, IdentityError> {
        Identity::parse(
            ("CA certificate", ca.as_bytes()),
            ("node certificate", cert.as_bytes()),
            ("node key", key.as_bytes()),
        )
    }

    /// Reads an identity from three PEM files: the CA's certificate, the node's, and the node's key.
    ///
    /// # Errors
    /// When a file cannot be read, a part is missing or cannot be parsed, or they do not fit; the file is named.
    pub fn from_files(
        ca: impl AsRef<Path>,
        cert: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Identity, IdentityError> {
        let (ca, cert, key) = (ca.as_ref(), cert.as_ref(), key.as_ref());
        let texts = (read_file(ca)?, read_file(cert)?, read_file(key)?);
        Identity::parse(
            (&ca.display().to_string(), &texts.0),
            (&cert.display().to_string(), &texts.1),
            (&key.display().to_string(), &texts.2),
        )
    }

    fn parse(ca: (&str, &[u8]), cert: (&str, &[u8]), key: (&str, &[u8])) -> Result<Identity, IdentityError> {
        let mut roots = RootCertStore::empty();
        for certificate in read_certificates(ca.0, ca.1)? {
            certificate_names(&certificate).map_err(|detail| unusable(ca.0, detail))?;
            roots.add(certificate).map_err(|error| unusable(ca.0, error.to_string()))?;
        }
        let chain = read_certificates(cert.0, cert.1)?;
        let names = certificate_names(&chain[0]).map_err(|detail| unusable(cert.0, detail))?;
        let key_der = PrivateKeyDer::from_pem_slice(key.1)
            .map_err(|error| IdentityError::Key { origin: key.0.to_owned(), detail: error.to_string() })?;
        let validity = chain_validity(&chain).map_err(|detail| unusable(cert.0, detail))?;
        let identity = Identity { roots: Arc::new(roots), chain, key: key_der, names, validity };
        identity.check(cert.0, key.0)?;
        Ok(identity)
    }

    /// The chain must lead to the CA and the key must be the certificate's: peers would only say "refused".
    fn check(&self, cert_origin: &str, key_origin: &str) -> Result<(), IdentityError> {
        let provider = rustls::crypto::ring::default_provider();
        let key_error = |detail: String| IdentityError::Key { origin: key_origin.to_owned(), detail };
        rustls::sign::CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &provider)
            .map_err(|error| key_error(error.to_string()))?;
        let not_issued = |error: rustls::Error| IdentityError::NotIssued {
            origin: cert_origin.to_owned(),
            detail: error.to_string(),
        };
        let end_entity = ParsedCertificate::try_from(&self.chain[0]).map_err(not_issued)?;
        verify_server_cert_signed_by_trust_anchor(
            &end_entity,
            &self.roots,
            &self.chain[1..],
            UnixTime::now(),
            provider.signature_verification_algorithms.all,
        )
        .map_err(not_issued)
    }

    /// The DNS names in the node's certificate: one of them must be the node's name.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// When the node's certificate, or the first of its intermediates, expires.
    pub fn expires_at(&self) -> SystemTime {
        self.validity.until
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(crate) fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }
}

impl Clone for Identity {
    fn clone(&self) -> Identity {
        Identity {
            roots: self.roots.clone(),
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            names: self.names.clone(),
            validity: self.validity,
        }
    }
}

/// The key is never shown.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The DNS names a certificate is for (its subject alternative names).
pub(crate) fn certificate_names(certificate: &CertificateDer<'_>) -> Result<Vec<String>, String> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate.as_ref()).map_err(|error| error.to_string())?;
    let alternatives = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let names = alternatives.iter().flat_map(|extension| &extension.value.general_names);
    Ok(names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect())
}

/// The time in which every certificate of a chain is valid.
fn chain_validity(chain: &[CertificateDer<'_>]) -> Result<Validity, String> {
    let mut validity: Option<Validity> = None;
    for certificate in chain {
        let (_, parsed) =
            x509_parser::parse_x509_certificate(certificate.as_ref()).map_err(|error| error.to_string())?;
        let time = |time: x509_parser::time::ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let (from, until) = (time(parsed.validity().not_before), time(parsed.validity().not_after));
        let so_far = validity.unwrap_or(Validity { from, until });
        validity = Some(Validity { from: so_far.from.max(from), until: so_far.until.min(until) });
    }
    validity.ok_or_else(|| "an empty chain".to_owned())
}

fn unusable(origin: &str, detail: String) -> IdentityError {
    IdentityError::Certificate { origin: origin.to_owned(), detail }
}

pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Read { path: path.to_owned(), source })
}

fn read_certificates(origin: &str, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| IdentityError::Pem { origin: origin.to_owned(), detail: error.to_string() })?;
    if certificates.is_empty() {
        return Err(IdentityError::NoCertificate { origin: origin.to_owned() });
    }
    Ok(certificates)
}
