//! The listener's certificate: `spinfer up --tls-cert <pem> --tls-key <pem>`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// What accepts TLS connections with the certificate chain in `certificate`, the host's own first,
/// and the private key in `key`: PEM files. Offers HTTP/2 and HTTP/1.1.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = chain(certificate)
        .with_context(|| format!("{}: cannot read the certificate", certificate.display()))?;
    let key = private_key(key)
        .with_context(|| format!("{}: cannot read the private key", key.display()))?;
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).with_context(
            || format!("{}: it does not go with the private key", certificate.display()),
        )?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    if chain.is_empty() {
        bail!("no certificate in it; a PEM file begins with -----BEGIN CERTIFICATE-----");
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| match error {
        pem::Error::NoItemsFound => anyhow::anyhow!(
            "no private key in it; a PEM file begins with -----BEGIN PRIVATE KEY-----"
        ),
        error => error.into(),
    })
}
