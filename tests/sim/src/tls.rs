//! A certificate authority of the test's own, and a certificate for this machine.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_native_tls::TlsAcceptor;
use native_tls::{Identity, Protocol};
use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::x509::extension::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAlternativeName, SubjectKeyIdentifier,
};
use openssl::x509::{X509, X509Builder, X509NameBuilder};

/// A certificate authority that nobody trusts yet, and one certificate of it for `localhost`, 127.0.0.1 and ::1.
#[derive(Clone)]
pub struct Ca(Arc<Parts>);

struct Parts {
    pem: String,
    acceptor: TlsAcceptor,
}

impl Ca {
    /// Makes a new one.
    ///
    /// # Errors
    /// If the TLS library fails.
    pub fn new() -> io::Result<Self> {
        let (ca_key, key) = (new_key()?, new_key()?);
        let ca = certificate("postkeep-sim CA", &ca_key, None)?;
        let leaf = certificate("localhost", &key, Some((&ca, &ca_key)))?;
        let identity = Identity::from_pkcs8(&leaf.to_pem()?, &key.private_key_to_pem_pkcs8()?);
        let acceptor = identity.and_then(|identity| {
            native_tls::TlsAcceptor::builder(identity).min_protocol_version(Some(Protocol::Tlsv12)).build()
        });
        let acceptor = acceptor.map_err(io::Error::other)?.into();
        let pem = String::from_utf8(ca.to_pem()?).map_err(io::Error::other)?;
        Ok(Self(Arc::new(Parts { pem, acceptor })))
    }

    /// Returns the certificate of the authority, which a client is to trust, as PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.0.pem
    }

    /// Writes [`Ca::pem`] to `ca.pem` in a directory and returns its path.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write_to(&self, dir: &Path) -> io::Result<PathBuf> {
        let path = dir.join("ca.pem");
        std::fs::write(&path, self.pem()).map(|()| path)
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.0.acceptor
    }
}

fn new_key() -> Result<PKey<Private>, ErrorStack> {
    PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::X9_62_PRIME256V1)?)?)
}

/// Makes a certificate: signed by `issuer`, or else by itself and that of an authority.
fn certificate(name: &str, key: &PKey<Private>, issuer: Option<(&X509, &PKey<Private>)>) -> Result<X509, ErrorStack> {
    let mut subject = X509NameBuilder::new()?;
    subject.append_entry_by_nid(Nid::COMMONNAME, name)?;
    let subject = subject.build();
    let mut serial = BigNum::new()?;
    serial.rand(127, MsbOption::MAYBE_ZERO, false)?;
    let mut builder: X509Builder = X509::builder()?;
    builder.set_version(2)?;
    builder.set_serial_number(&*serial.to_asn1_integer()?)?;
    builder.set_subject_name(&subject)?;
    builder.set_issuer_name(issuer.map_or(&subject, |(ca, _)| ca.subject_name()))?;
    builder.set_pubkey(key)?;
    builder.set_not_before(&*Asn1Time::from_unix(0)?)?;
    builder.set_not_after(&*Asn1Time::days_from_now(3650)?)?;
    let own = SubjectKeyIdentifier::new().build(&builder.x509v3_context(issuer.map(|(ca, _)| &**ca), None))?;
    builder.append_extension(own)?;
    match issuer {
        None => {
            builder.append_extension(BasicConstraints::new().critical().ca().build()?)?;
            builder.append_extension(KeyUsage::new().critical().key_cert_sign().crl_sign().build()?)?;
        }
        Some((ca, _)) => {
            let mut names = SubjectAlternativeName::new();
            names.dns("localhost").ip("127.0.0.1").ip("::1");
            let names = names.build(&builder.x509v3_context(Some(ca), None))?;
            builder.append_extension(names)?;
            let authority = AuthorityKeyIdentifier::new().keyid(true).build(&builder.x509v3_context(Some(ca), None))?;
            builder.append_extension(authority)?;
            builder.append_extension(BasicConstraints::new().critical().build()?)?;
            builder.append_extension(ExtendedKeyUsage::new().server_auth().build()?)?;
        }
    }
    builder.sign(issuer.map_or(key, |(_, key)| key), MessageDigest::sha256())?;
    Ok(builder.build())
}
