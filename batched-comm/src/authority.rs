//! The cluster's own certificate authority: makes the certificates that nodes prove themselves with.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::identity::{Identity, IdentityError, read_file};

/// Days a CA made by [`CertificateAuthority::new`] is valid for.
const AUTHORITY_VALIDITY_DAYS: u32 = 3650;
/// Days a node certificate made by [`CertificateAuthority::identity`] is valid for.
const IDENTITY_VALIDITY_DAYS: u32 = 30;
/// A certificate is valid from a little before it was made: clocks differ.
const CLOCK_DIFFERENCE_MAX: Duration = Duration::from_secs(3600);

/// Why a certificate could not be made, saved or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// A node name that cannot stand in a certificate.
    #[error(
        "node name {name:?} cannot stand in a certificate: 1 to 255 printable ASCII characters are needed"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// A node name that cannot be the name of a file.
    #[error("node name {name:?} cannot be the name of a file")]
    FileName {
        /// The name.
        name: String,
    },
    /// A certificate that would expire before it starts, or after the year 9999.
    #[error("a validity of {days} days is outside 1 to 36500")]
    Validity {
        /// The days asked for.
        days: u32,
    },
    /// The CA's certificate or key is unusable.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The certificate generator objected.
    #[error("certificate of {name:?}: {detail}")]
    Generate {
        /// Whose certificate.
        name: String,
        /// What the generator said.
        detail: String,
    },
    /// A file is there already: keys and certificates are never overwritten.
    #[error("{path:?} exists already and is not overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one in the CA's certificate.
    #[error("{origin}: is not the key of the CA's certificate")]
    OtherKey {
        /// The file or the part.
        origin: String,
    },
    /// A file cannot be written.
    #[error("cannot write {path:?}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A node's certificate and the private key to it, as PEM texts.
#[derive(Clone)]
pub struct NodeCertificate {
    /// The certificate, signed by the CA.
    pub cert_pem: String,
    /// The private key (PKCS #8). Keep it secret.
    pub key_pem: String,
}

impl NodeCertificate {
    /// Writes `NAME.pem` and `NAME.key` into `dir`, which is made if need be, the key readable by its owner only. Both are
    /// new files, or none is.
    ///
    /// # Errors
    /// When one of the files exists or cannot be written, or the name is none for a file; it is named.
    pub fn save(&self, dir: impl AsRef<Path>, name: &str) -> Result<(), AuthorityError> {
        save_pair(dir.as_ref(), name, &self.cert_pem, &self.key_pem)
    }
}

/// The key is never shown.
impl fmt::Debug for NodeCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeCertificate").field("cert_pem", &self.cert_pem).finish_non_exhaustive()
    }
}

/// The authority whose certificates admit a node to the cluster.
///
/// Whoever holds its key can add nodes; nodes themselves need only [`ca_pem`](CertificateAuthority::ca_pem).
pub struct CertificateAuthority {
    ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl CertificateAuthority {
    /// Makes a new authority with a fresh key, valid for ten years; `name` is for people who read the certificate.
    ///
    /// # Panics
    /// When the system has no random numbers to make a key from.
    pub fn new(name: &str) -> CertificateAuthority {
        CertificateAuthority::new_for(name, AUTHORITY_VALIDITY_DAYS).expect("ten years are in range")
    }

    /// Makes a new authority that is valid for `validity_days` from now.
    ///
    /// # Errors
    /// When the validity is out of range.
    ///
    /// # Panics
    /// When the system has no random numbers to make a key from.
    pub fn new_for(name: &str, validity_days: u32) -> Result<CertificateAuthority, AuthorityError> {
        check_validity(validity_days)?;
        let key = KeyPair::generate().expect("the system provides random numbers");
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        set_validity(&mut params, validity_days);
        let certificate =
            params.self_signed(&key).expect("parameters made here can be signed with a fresh key");
        Ok(CertificateAuthority { ca_pem: certificate.pem(), issuer: Issuer::new(params, key) })
    }

    /// Takes up an authority from the PEM texts of its certificate and its key.
    ///
    /// # Errors
    /// When one of them cannot be parsed, or they do not belong together.
    pub fn from_pem(ca: &str, key: &str) -> Result<CertificateAuthority, AuthorityError> {
        CertificateAuthority::parse("CA certificate", ca.to_owned(), "CA key", key)
    }

    /// Takes up an authority from the files of its certificate and its key.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or the two do not belong together; the file is named.
    pub fn from_files(
        ca: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<CertificateAuthority, AuthorityError> {
        let (ca, key) = (ca.as_ref(), key.as_ref());
        let ca_pem = String::from_utf8_lossy(&read_file(ca)?).into_owned();
        let key_pem = String::from_utf8_lossy(&read_file(key)?).into_owned();
        CertificateAuthority::parse(&ca.display().to_string(), ca_pem, &key.display().to_string(), &key_pem)
    }

    fn parse(
        ca_origin: &str,
        ca_pem: String,
        key_origin: &str,
        key_pem: &str,
    ) -> Result<CertificateAuthority, AuthorityError> {
        let key = KeyPair::from_pem(key_pem).map_err(|error| IdentityError::Key {
            origin: key_origin.to_owned(),
            detail: error.to_string(),
        })?;
        let unusable = |detail: String| IdentityError::Certificate { origin: ca_origin.to_owned(), detail };
        let certified = certified_key(&ca_pem).map_err(unusable)?;
        if certified != key.subject_public_key_info() {
            return Err(AuthorityError::OtherKey { origin: key_origin.to_owned() });
        }
        let issuer = Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|error| unusable(error.to_string()))?;
        Ok(CertificateAuthority { ca_pem, issuer })
    }

    /// The authority's certificate as PEM: what every node needs to tell its peers from strangers.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Issues a certificate for the node called `node_name`, valid for `validity_days` from now.
    ///
    /// `addresses` are further names for people and tools (IP addresses or DNS names); connections are checked
    /// against the CA and the node name only, so that a node may move.
    ///
    /// # Errors
    /// When the name cannot stand in a certificate or the validity is out of range.
    pub fn issue(
        &self,
        node_name: &str,
        validity_days: u32,
        addresses: &[&str],
    ) -> Result<NodeCertificate, AuthorityError> {
        if !is_node_name(node_name) {
            return Err(AuthorityError::Name { name: node_name.to_owned() });
        }
        check_validity(validity_days)?;
        let generate = |error: rcgen::Error| AuthorityError::Generate {
            name: node_name.to_owned(),
            detail: error.to_string(),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(node_name);
        for name in std::iter::once(&node_name).chain(addresses) {
            params.subject_alt_names.push(match name.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().map_err(generate)?),
            });
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, validity_days);
        let key = KeyPair::generate().map_err(generate)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(generate)?;
        Ok(NodeCertificate { cert_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// A fresh identity for `node_name`, valid for 30 days, without a file: for tests and demonstrations.
    ///
    /// # Panics
    /// When the name cannot stand in a certificate, see [`issue`](CertificateAuthority::issue).
    pub fn identity(&self, node_name: &str) -> Identity {
        let node =
            self.issue(node_name, IDENTITY_VALIDITY_DAYS, &[]).expect("the name can stand in a certificate");
        Identity::from_pem(&self.ca_pem, &node.cert_pem, &node.key_pem)
            .expect("what was just issued is valid")
    }

    /// Writes `ca.pem` and `ca.key` into `dir`, which is made if need be, the key readable by its owner only. Both are new
    /// files, or none is.
    ///
    /// # Errors
    /// When one of the files exists or cannot be written; it is named.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), AuthorityError> {
        save_pair(dir.as_ref(), "ca", &self.ca_pem, &self.issuer.key().serialize_pem())
    }
}

/// The key is never shown.
impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("ca_pem", &self.ca_pem).finish_non_exhaustive()
    }
}

/// Whether a node can have this name: it is a DNS name in a certificate and a part of the handshake.
pub(crate) fn is_node_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic())
        && name.parse::<IpAddr>().is_err()
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name
}

fn set_validity(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - CLOCK_DIFFERENCE_MAX).into();
    params.not_after = (now + Duration::from_secs(u64::from(days) * 86_400)).into();
}

fn check_validity(days: u32) -> Result<(), AuthorityError> {
    if (1..=36_500).contains(&days) { Ok(()) } else { Err(AuthorityError::Validity { days }) }
}

/// The public key that a certificate is for, as DER.
fn certified_key(pem: &str) -> Result<Vec<u8>, String> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate.as_ref()).map_err(|error| error.to_string())?;
    Ok(parsed.public_key().raw.to_vec())
}

/// Writes a certificate and its key as two new files. What was written is removed again if the other one cannot be.
fn save_pair(dir: &Path, name: &str, cert_pem: &str, key_pem: &str) -> Result<(), AuthorityError> {
    // A name may hold what leads out of the folder.
    if name.contains(['/', '\\']) || Path::new(name).file_name() != Some(name.as_ref()) {
        return Err(AuthorityError::FileName { name: name.to_owned() });
    }
    make_folder(dir).map_err(|source| AuthorityError::Write { path: dir.to_owned(), source })?;
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    write_new_file(&key, key_pem, true)?;
    write_new_file(&cert, cert_pem, false).inspect_err(|_| drop(std::fs::remove_file(&key)))
}

/// Makes a folder for keys, if there is none: nobody else needs to look into it.
fn make_folder(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

fn write_new_file(path: &Path, text: &str, secret: bool) -> Result<(), AuthorityError> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    if secret {
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    }
    #[cfg(not(unix))]
    let _ = secret;
    let path = path.to_owned();
    let mut file = match options.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(AuthorityError::Exists { path });
        }
        Err(source) => return Err(AuthorityError::Write { path, source }),
    };
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|source| {
        // Half a file would be in the way of the next try.
        drop(std::fs::remove_file(&path));
        AuthorityError::Write { path, source }
    })
}
