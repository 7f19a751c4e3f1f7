//! The certificate of the listener: `spinfer up --tls-cert <pem> --tls-key <pem>`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// An acceptor of TLS connections that offers HTTP/2 and HTTP/1.1. `certificate` and `key` are PEM files:
/// the certificate chain, the certificate of the host first, and its private key.
///
/// # Errors
/// A file cannot be read, or the key does not belong to the certificate.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = chain(certificate)
        .with_context(|| format!("{}: cannot read the certificate", certificate.display()))?;
    let key = private_key(key)
        .with_context(|| format!("{}: cannot read the private key", key.display()))?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).with_context(
            || format!("{}: the certificate does not match the private key", certificate.display()),
        )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if chain.is_empty() {
        bail!("the file has no certificate; a PEM file starts with -----BEGIN CERTIFICATE-----");
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => anyhow::anyhow!(
            "the file has no private key; a PEM file starts with -----BEGIN PRIVATE KEY-----"
        ),
        error => error.into(),
    })
}
