//! TLS of outbound connections. Trusted roots are those of the system, or of the file and the folders
//! that OpenSSL's variables name instead, and those of Mozilla, as in Spin.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail};
use rustls_native_certs::{load_certs_from_paths, load_native_certs};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tracing::debug;

/// OpenSSL's variable for a file of root certificates.
const CERT_FILE: &str = "SSL_CERT_FILE";

/// The client configuration. It offers no application protocols (ALPN); callers add theirs.
///
/// # Errors
/// The file that `SSL_CERT_FILE` names cannot be read, or contains no certificate.
pub fn client() -> Result<Arc<ClientConfig>> {
    if let Some(path) = std::env::var_os(CERT_FILE).filter(|path| !path.is_empty()) {
        let path = Path::new(&path);
        // A file that is named explicitly has to be valid.
        let named = load_certs_from_paths(Some(path), None);
        if let Some(error) = named.errors.first() {
            bail!("{CERT_FILE}: {error}");
        }
        if named.certs.is_empty() {
            bail!(
                "{CERT_FILE}: {} contains no certificate; set it to the path of a PEM file",
                path.display()
            );
        }
    }
    let found = load_native_certs();
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    debug!(added, ignored, errors = found.errors.len(), "root certificates of the system loaded");
    Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
}
