//! Whose certificates this host takes for good where it connects to others: those of the system, or
//! of the file and the folders that OpenSSL's variables name instead, and the well-known ones, as in
//! Spin.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tracing::debug;

/// OpenSSL's name for a file of certificates.
const NAMED: &str = "SSL_CERT_FILE";

/// TLS as a client; what it speaks within is for who uses it.
pub fn client() -> Result<Arc<ClientConfig>> {
    if let Some(path) = std::env::var_os(NAMED).filter(|path| !path.is_empty()) {
        let path = Path::new(&path);
        // Whoever names a file means it.
        let named = load_certs_from_paths(Some(path), None);
        if let Some(error) = named.errors.first() {
            bail!("{NAMED}: {error}");
        }
        if named.certs.is_empty() {
            bail!(
                "{NAMED}: {}: no certificate in it; write the path of a PEM file",
                path.display()
            );
        }
    }
    let found = load_native_certs();
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    debug!(added, ignored, errors = found.errors.len(), "certificates of the system");
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
