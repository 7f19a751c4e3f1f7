//! Object stores by URL. Credentials and endpoints are read from the environment variables that the
//! stores' own tools use, and appear in no message.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::{HttpClient, HttpConnector};
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::{ClientOptions, Error as StoreError, ObjectStore, RetryConfig};
use reqwest::Url;

use crate::http::client_tls;

/// Timeout to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeout for the next part of a response.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for which a request is retried.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum number of retries of a request.
const RETRIES: usize = 5;

/// Connects with the certificates that the rest of the program trusts.
#[derive(Debug)]
struct TlsConnector(reqwest::Client);

impl TlsConnector {
    fn new() -> Result<Self> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured((*client_tls::client()?).clone())
            .user_agent(concat!("spinfer/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .build()?;
        Ok(Self(client))
    }
}

impl HttpConnector for TlsConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.0.clone()))
    }
}

/// The store of `url`, and the endpoint if the environment names one.
pub(super) fn open(url: &Url) -> Result<(Arc<dyn ObjectStore>, Option<String>)> {
    let retry =
        RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..Default::default() };
    let root = without_path(url);
    let connector = TlsConnector::new()?;
    let failed = |error: StoreError| anyhow!("--to: {}", shown(&error));
    match url.scheme() {
        "s3" | "s3a" => {
            let builder = AmazonS3Builder::from_env().with_url(root).with_retry(retry);
            let endpoint = [AmazonS3ConfigKey::S3Endpoint, AmazonS3ConfigKey::Endpoint];
            let endpoint = endpoint.iter().find_map(|key| builder.get_config_value(key));
            let store = builder.with_http_connector(connector).build().map_err(failed)?;
            Ok((Arc::new(store), endpoint.as_deref().map(origin)))
        }
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(root).with_retry(retry);
            let store = builder.with_http_connector(connector).build().map_err(failed)?;
            Ok((Arc::new(store), None))
        }
        "az" | "abfs" | "abfss" => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(root).with_retry(retry);
            let endpoint = builder.get_config_value(&AzureConfigKey::Endpoint);
            let store = builder.with_http_connector(connector).build().map_err(failed)?;
            Ok((Arc::new(store), endpoint.as_deref().map(origin)))
        }
        scheme => bail!(
            "--to: the scheme {scheme} is not supported; write a path, or a URL with the scheme \
             file, s3, gs, az or abfss"
        ),
    }
}

/// The URL of the bucket or container.
fn without_path(url: &Url) -> String {
    let mut root = url.clone();
    root.set_path("");
    root.into()
}

/// Scheme, host and port of an endpoint.
fn origin(endpoint: &str) -> String {
    let url = endpoint.parse::<Url>().ok();
    url.map_or_else(|| "another endpoint".into(), |url| url.origin().ascii_serialization())
}

/// An error with its causes, without secrets.
pub(super) fn shown(error: &StoreError) -> String {
    without_secrets(&error.to_string())
}

/// `text` without the queries of URLs, which may be signatures.
pub(super) fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let ends = |character: char| character.is_whitespace() || "\"'<>)".contains(character);
        let (url, after) = after.split_at(after.find(ends).unwrap_or(after.len()));
        shown.push_str(url.split('?').next().unwrap_or_default());
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_in_urls_are_not_shown() {
        for (text, expected) in [
            ("no URL, but a question?", "no URL, but a question?"),
            (
                "PUT https://a.blob.core.windows.net/c/x?sig=hush&se=1 failed (http://b/?hush)",
                "PUT https://a.blob.core.windows.net/c/x failed (http://b/)",
            ),
            ("\"s3://bucket/key?hush\": denied", "\"s3://bucket/key\": denied"),
        ] {
            assert_eq!(without_secrets(text), expected);
        }
    }

    #[test]
    fn endpoint_is_named_without_its_path_and_user() {
        assert_eq!(origin("http://user:hush@127.0.0.1:9000/x"), "http://127.0.0.1:9000");
        assert_eq!(origin("hush"), "another endpoint");
    }
}
