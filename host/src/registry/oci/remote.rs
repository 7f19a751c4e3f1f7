//! Parses the `source` of a remote component.

use std::fmt;

use reqwest::Url;

use super::digest::Digest;
use super::reference::{Package, RegistryHost};
use super::transport::without_query;
use crate::config::manifest::RemoteSource;

/// The location of a remote component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RemoteComponent {
    /// A file with this digest.
    Url { url: Url, digest: Digest },
    /// A version of a package.
    Package { registry: RegistryHost, package: Package },
}

impl RemoteComponent {
    /// Parses `source`.
    ///
    /// # Errors
    /// What to write instead.
    pub fn parse(source: &RemoteSource) -> Result<Self, String> {
        let RemoteSource { url, digest, registry, package, version } = source;
        match (url, package) {
            (Some(url), None) if registry.is_none() && version.is_none() => {
                let parsed = Url::parse(url).ok().filter(Url::has_host);
                let known = parsed.filter(|url| matches!(url.scheme(), "https" | "http"));
                let valid = known.ok_or_else(|| format!("url: \"{url}\" is not a URL"))?;
                if !valid.username().is_empty() || valid.password().is_some() {
                    return Err("url: a manifest must not contain passwords; remove it".into());
                }
                let digest = digest.as_deref().unwrap_or_default().parse();
                let digest = digest.map_err(|problem| format!("digest: {problem}"))?;
                Ok(Self::Url { url: valid, digest })
            }
            (None, Some(package)) if digest.is_none() => {
                let version = version.as_deref().unwrap_or_default();
                let package = Package::parse(package, version)?;
                let registry = registry
                    .as_deref()
                    .ok_or("registry: is missing; write its host, \"registry.example.com\"")?;
                let registry =
                    registry.parse().map_err(|problem| format!("registry: {problem}"))?;
                Ok(Self::Package { registry, package })
            }
            _ => Err(
                "write the path of a .wasm file, { url, digest } or { registry, package, version }"
                    .into(),
            ),
        }
    }
}

impl fmt::Display for RemoteComponent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, .. } => f.write_str(&without_query(url)),
            Self::Package { registry, package } => write!(f, "{package} of {registry}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<RemoteComponent, String> {
        RemoteComponent::parse(&toml::from_str(source).unwrap())
    }

    #[test]
    fn query_of_a_url_is_not_shown() {
        let digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let source = format!("url = 'https://x.org/a.wasm?token=hush'\ndigest = '{digest}'");
        assert_eq!(parse(&source).unwrap().to_string(), "https://x.org/a.wasm");
    }

    #[test]
    fn source_is_a_url_or_a_package() {
        let digest = Digest::of(b"");
        let source = format!("url = 'https://x.org/a.wasm'\ndigest = '{digest}'");
        let url = Url::parse("https://x.org/a.wasm").unwrap();
        assert_eq!(parse(&source), Ok(RemoteComponent::Url { url, digest }));
        let source = "registry = 'localhost:5000'\npackage = 'a:b'\nversion = '1.0.0'";
        assert_eq!(parse(source).unwrap().to_string(), "a:b@1.0.0 of localhost:5000");
    }

    #[test]
    fn invalid_sources_are_refused_with_the_fix() {
        let digest = Digest::of(b"");
        for (source, part) in [
            ("url = 'https://x.org/a.wasm'".into(), "digest: write \"sha256:\""),
            ("url = 'https://x.org/a.wasm'\ndigest = 'sha256:00'".into(), "digest: write"),
            (format!("url = 'nowhere'\ndigest = '{digest}'"), "is not a URL"),
            (
                format!("url = 'https://u:p@x.org/a'\ndigest = '{digest}'"),
                "must not contain passwords",
            ),
            (format!("url = 'file:///a'\ndigest = '{digest}'"), "is not a URL"),
            ("package = 'a:b'\nversion = '1.0.0'".into(), "registry: is missing"),
            ("package = 'a:b'\nregistry = 'r.org'".into(), "version: write a semantic version"),
            ("package = 'ab'\nversion = '1.0.0'\nregistry = 'r.org'".into(), "is not a package"),
            ("package = 'a:b'\nversion = '1.0.0'\nregistry = 'a b'".into(), "is not the host"),
            ("url = 'https://x.org'\npackage = 'a:b'".into(), "write the path of a .wasm file"),
            (String::new(), "write the path of a .wasm file"),
        ] {
            let problem = parse(&source).unwrap_err();
            assert!(problem.contains(part), "{source}: {problem}");
        }
    }
}
