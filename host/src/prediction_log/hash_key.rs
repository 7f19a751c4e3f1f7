//! The key of the hashes that replace values in the log: without a secret key, the hash of a name
//! or a number could be found by hashing all names and numbers.

use std::fmt;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use anyhow::{Context, Result, bail};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rustls::crypto::ring;
use sha2::Sha256;

/// Name of the key's file in the application's state folder.
pub(super) const FILE: &str = "prediction_log.key";
/// Length of the key, in bytes: that of the hash.
const KEY_BYTES: usize = 32;
/// Number of bytes of the HMAC in a token; each is two hexadecimal digits.
const TOKEN_BYTES: usize = 8;

/// A secret key, ready to hash with.
#[derive(Clone)]
pub struct HashKey(Hmac<Sha256>);

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashKey").finish_non_exhaustive()
    }
}

impl HashKey {
    /// Reads the key of the application whose state is in `folder`. Creates it, readable by its
    /// owner only, if there is none.
    ///
    /// # Errors
    /// Names the file.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        let read = || std::fs::read(&path);
        let bytes = match read() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create(folder, &path).and_then(|()| Ok(read()?))
            }
            read => read.map_err(anyhow::Error::from),
        };
        let bytes = bytes.with_context(|| {
            format!("{}: cannot read the key of hashes in the prediction log", path.display())
        })?;
        if bytes.len() != KEY_BYTES {
            bail!(
                "{}: expected {KEY_BYTES} bytes, got {}; remove the file to create a new key",
                path.display(),
                bytes.len()
            );
        }
        Self::new(&bytes)
    }

    fn new(key: &[u8]) -> Result<Self> {
        Ok(Self(Hmac::new_from_slice(key).context("HMAC accepts keys of any length")?))
    }

    /// The token that replaces `text` in the log: 16 hexadecimal digits.
    #[must_use]
    pub fn token(&self, text: impl AsRef<[u8]>) -> String {
        let code = self.0.clone().chain_update(text).finalize().into_bytes();
        crate::inference::hex(&code[..TOKEN_BYTES])
    }
}

/// Creates the key atomically, so that another process of the same application never reads a part
/// of it.
fn create(folder: &Path, path: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut key = [0; KEY_BYTES];
    let random = ring::default_provider().secure_random;
    random.fill(&mut key).map_err(|_| anyhow::anyhow!("the system has no random bytes"))?;
    // Temporary files are readable by their owner only.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&key)?;
    file.as_file().sync_all()?;
    match file.persist_noclobber(path) {
        // Another process created the key first.
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        persisted => Ok(persisted.map(drop)?),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn key_is_created_once_and_reused() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(".spin");
        let token = HashKey::open(&folder).unwrap().token("ada@example.com");
        assert_eq!(token.len(), 16);
        assert_eq!(HashKey::open(&folder).unwrap().token("ada@example.com"), token);
        assert_ne!(HashKey::open(&folder).unwrap().token("Ada@example.com"), token);
        let mode = std::fs::metadata(folder.join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(HashKey::open(other.path()).unwrap().token("ada@example.com"), token);
    }

    #[test]
    fn damaged_key_is_rejected() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "short").unwrap();
        let error = format!("{:#}", HashKey::open(dir.path()).unwrap_err());
        assert!(error.contains("expected 32 bytes, got 5"), "{error}");
    }

    /// RFC 4231, test case 2, the first 8 bytes.
    #[test]
    fn token_is_hmac_sha_256() {
        let key = HashKey::new(b"Jefe").unwrap();
        assert_eq!(key.token("what do ya want for nothing?"), "5bdcc146bf60754e");
    }
}
