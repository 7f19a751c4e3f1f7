//! Where a dataset is written to: a folder, or a prefix of an object store. An object appears under
//! its name when it is complete.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use object_store::buffered::BufWriter as ObjectWriter;
use object_store::path::Path as ObjectPath;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt};
use reqwest::Url;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Runtime;

use super::cloud;

/// Size of a part of a multipart upload, in bytes: at most 10,000 parts make 80 GiB.
const PART: usize = 8 << 20;
/// Maximum number of parts in flight.
const PARTS: usize = 4;
/// Size of the write buffer of a file, in bytes.
const BUFFER: usize = 1 << 18;
/// Prefix of files that are not complete. Readers of datasets skip hidden files.
const INCOMPLETE: &str = ".spinfer-export-";

/// The root of a dataset.
#[derive(Debug)]
pub struct Destination {
    /// Identifies the destination, and contains no credentials.
    name: String,
    place: DatasetRoot,
}

#[derive(Debug)]
enum DatasetRoot {
    Folder(PathBuf),
    Store { store: Arc<dyn ObjectStore>, prefix: ObjectPath, runtime: Runtime },
}

impl Destination {
    /// The destination at `text`: a path, or a URL with the scheme file, s3, gs, az or abfss.
    ///
    /// # Errors
    /// Fails if `text` is no such URL, or the environment has no valid settings for the store.
    pub fn parse(text: &str) -> Result<Self> {
        ensure!(!text.is_empty(), "--to: write a folder, or s3://bucket/prefix");
        let Some((scheme, _)) = text.split_once("://") else {
            return Self::folder(Path::new(text));
        };
        let url: Url = text.parse().map_err(|error| anyhow::anyhow!("--to: not a URL: {error}"))?;
        if scheme == "file" {
            let path = url.to_file_path().ok();
            return Self::folder(&path.context("--to: not a path; write file:///folder")?);
        }
        ensure!(
            url.password().is_none() && url.query().is_none() && url.fragment().is_none(),
            "--to: write the URL without credentials and parameters; they are read from the \
             environment"
        );
        let prefix = ObjectPath::from_url_path(url.path()).context("--to")?;
        let (store, endpoint) = cloud::open(&url)?;
        let root = text.trim_end_matches('/');
        let name = match endpoint {
            Some(endpoint) => format!("{root} at {endpoint}"),
            None => root.to_owned(),
        };
        // Parts are sent while the next ones are encoded.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { name, place: DatasetRoot::Store { store, prefix, runtime } })
    }

    fn folder(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path).with_context(|| format!("--to: {}", path.display()))?;
        let path = path.canonicalize().with_context(|| format!("--to: {}", path.display()))?;
        Ok(Self { name: path.display().to_string(), place: DatasetRoot::Folder(path) })
    }

    /// Identifies the destination, and contains no credentials.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether there is an object at `path`.
    pub(super) fn exists(&self, path: &str) -> Result<bool> {
        match &self.place {
            DatasetRoot::Folder(folder) => Ok(folder.join(path).try_exists()?),
            DatasetRoot::Store { store, prefix, runtime } => {
                match runtime.block_on(store.head(&object(prefix, path)?)) {
                    Ok(_) => Ok(true),
                    Err(StoreError::NotFound { .. }) => Ok(false),
                    Err(error) => bail!(cloud::shown(&error)),
                }
            }
        }
    }

    /// Starts to write the object at `path`.
    pub(super) fn create(&self, path: &str) -> Result<DatasetObject<'_>> {
        match &self.place {
            DatasetRoot::Folder(folder) => {
                let path = folder.join(path);
                let parent = path.parent().unwrap_or(folder);
                std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
                let file = tempfile::Builder::new()
                    .prefix(INCOMPLETE)
                    .permissions(Permissions::from_mode(0o666))
                    .tempfile_in(parent)
                    .with_context(|| format!("{}: cannot write here", parent.display()))?;
                Ok(DatasetObject::File(BufWriter::with_capacity(BUFFER, file), path))
            }
            DatasetRoot::Store { store, prefix, runtime } => {
                let path = object(prefix, path)?;
                let writer = ObjectWriter::with_capacity(Arc::clone(store), path, PART);
                let writer = writer.with_max_concurrency(PARTS);
                Ok(DatasetObject::Upload { writer: Box::new(writer), runtime })
            }
        }
    }
}

fn object(prefix: &ObjectPath, path: &str) -> Result<ObjectPath> {
    let path = match prefix.as_ref() {
        "" => path.to_owned(),
        prefix => format!("{prefix}/{path}"),
    };
    Ok(ObjectPath::parse(path)?)
}

/// An object that is being written.
pub(super) enum DatasetObject<'a> {
    File(BufWriter<NamedTempFile>, PathBuf),
    Upload { writer: Box<ObjectWriter>, runtime: &'a Runtime },
}

impl Write for DatasetObject<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file, _) => file.write(bytes),
            Self::Upload { writer, runtime } => {
                let sent = runtime.block_on(writer.put(Bytes::copy_from_slice(bytes)));
                sent.map_err(|error| io::Error::other(cloud::shown(&error)))?;
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file, _) => file.flush(),
            // Parts have a fixed size.
            Self::Upload { .. } => Ok(()),
        }
    }
}

impl DatasetObject<'_> {
    /// Completes the object under its name.
    pub(super) fn finish(self) -> Result<()> {
        match self {
            Self::File(file, path) => {
                let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.as_file().sync_all()?;
                file.persist(&path).with_context(|| path.display().to_string())?;
                // The position is stored next, and must not survive a power failure alone.
                let folder = path.parent().unwrap_or(Path::new("."));
                Ok(File::open(folder)?.sync_all()?)
            }
            Self::Upload { mut writer, runtime } => runtime
                .block_on(writer.shutdown())
                .map_err(|error| anyhow::anyhow!(cloud::without_secrets(&error.to_string()))),
        }
    }

    /// Discards the object.
    pub(super) fn abort(self) {
        match self {
            // It is removed on drop.
            Self::File(..) => {}
            Self::Upload { mut writer, runtime } => {
                // The failure that led here is reported; parts that remain expire by the lifecycle
                // rule of the bucket.
                let _ = runtime.block_on(writer.abort());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_has_complete_objects_only() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("new/folder");
        let destination = Destination::parse(root.to_str().unwrap()).unwrap();
        let url = format!("file://{}/", root.display());
        assert_eq!(Destination::parse(&url).unwrap().name(), destination.name());
        for finish in [false, true] {
            let mut object = destination.create("model=a%2Fb/x.parquet").unwrap();
            object.write_all(b"content").unwrap();
            let visible = || {
                let entries = std::fs::read_dir(root.join("model=a%2Fb")).unwrap();
                let names = entries.map(|entry| entry.unwrap().file_name());
                names.filter(|name| !name.to_string_lossy().starts_with('.')).count()
            };
            assert_eq!(visible(), 0);
            if finish {
                object.finish().unwrap();
            } else {
                object.abort();
            }
            assert_eq!(visible(), usize::from(finish));
            assert_eq!(destination.exists("model=a%2Fb/x.parquet").unwrap(), finish);
        }
        let files = std::fs::read_dir(root.join("model=a%2Fb")).unwrap();
        assert_eq!(files.count(), 1, "no temporary file is left");
    }

    #[test]
    fn invalid_destination_is_an_error_without_its_credentials() {
        for (text, part) in [
            ("", "--to: write a folder"),
            ("ftp://host/x", "--to: the scheme ftp is not supported; write a path, or a URL with"),
            ("s3://key:hush@bucket/x", "--to: write the URL without credentials"),
            ("az://container/x?sig=hush", "--to: write the URL without credentials"),
            ("s3:///x", "--to: "),
        ] {
            let error = format!("{:#}", Destination::parse(text).unwrap_err());
            assert!(error.starts_with(part) && !error.contains("hush"), "{text}: {error}");
        }
    }

    #[test]
    fn store_has_complete_objects_only() {
        let store: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let prefix = ObjectPath::from("logs");
        let place = DatasetRoot::Store { store: Arc::clone(&store), prefix, runtime };
        let destination = Destination { name: "s3://bucket/logs".into(), place };
        for finish in [false, true] {
            let mut object = destination.create("model=a%2Fb/x.parquet").unwrap();
            // More than one part.
            object.write_all(&vec![7; PART + 1]).unwrap();
            assert!(!destination.exists("model=a%2Fb/x.parquet").unwrap());
            if finish {
                object.finish().unwrap();
            } else {
                object.abort();
            }
            assert_eq!(destination.exists("model=a%2Fb/x.parquet").unwrap(), finish);
        }
        let path = ObjectPath::parse("logs/model=a%2Fb/x.parquet").unwrap();
        let head = futures::executor::block_on(store.head(&path)).unwrap();
        assert_eq!(head.size, PART as u64 + 1);
    }
}
