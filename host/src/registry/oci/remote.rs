//! `source` of a component where it is no file: what it says, checked.

use std::fmt;

use reqwest::Url;

use super::digest::Digest;
use super::reference::{Host, Package};
use crate::config::manifest::RemoteSource;

/// Where a component is that has to be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A file that has to have this digest.
    Url { url: Url, digest: Digest },
    /// A package in one version.
    Package { registry: Host, package: Package },
}

impl Remote {
    /// What `source` says; what to write instead if it is not valid.
    pub fn parse(source: &RemoteSource) -> Result<Self, String> {
        let RemoteSource { url, digest, registry, package, version } = source;
        match (url, package) {
            (Some(url), None) if registry.is_none() && version.is_none() => {
                let parsed = Url::parse(url).ok().filter(Url::has_host);
                let known = parsed.filter(|url| matches!(url.scheme(), "https" | "http"));
                let valid = known.ok_or_else(|| format!("url: \"{url}\" is not a URL"))?;
                if !valid.username().is_empty() || valid.password().is_some() {
                    return Err("url: a manifest has no passwords; leave it out".into());
                }
                let digest = digest.as_deref().unwrap_or_default().parse();
                let digest = digest.map_err(|problem| format!("digest: {problem}"))?;
                Ok(Self::Url { url: valid, digest })
            }
            (None, Some(package)) if digest.is_none() => {
                let version = version.as_deref().unwrap_or_default();
                let package = Package::parse(package, version)?;
                let registry = registry.as_deref().ok_or(
                    "registry: name it, \"registry.example.com\"; none is the default for a namespace",
                )?;
                let registry =
                    registry.parse().map_err(|problem| format!("registry: {problem}"))?;
                Ok(Self::Package { registry, package })
            }
            _ => Err(
                "give the path of a .wasm file, { url, digest } or { registry, package, version }"
                    .into(),
            ),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url { url, .. } => write!(f, "{url}"),
            Self::Package { registry, package } => write!(f, "{package} of {registry}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(source: &str) -> Result<Remote, String> {
        Remote::parse(&toml::from_str(source).unwrap())
    }

    #[test]
    fn a_source_is_a_url_or_a_package() {
        let digest = Digest::of(b"");
        let source = format!("url = 'https://x.org/a.wasm'\ndigest = '{digest}'");
        let url = Url::parse("https://x.org/a.wasm").unwrap();
        assert_eq!(parse(&source), Ok(Remote::Url { url, digest }));
        let source = "registry = 'localhost:5000'\npackage = 'a:b'\nversion = '1.0.0'";
        assert_eq!(parse(source).unwrap().to_string(), "a:b@1.0.0 of localhost:5000");
    }

    #[test]
    fn what_is_wrong_with_a_source_is_said() {
        let digest = Digest::of(b"");
        for (source, part) in [
            ("url = 'https://x.org/a.wasm'".into(), "digest: write \"sha256:\""),
            ("url = 'https://x.org/a.wasm'\ndigest = 'sha256:00'".into(), "digest: write"),
            (format!("url = 'nowhere'\ndigest = '{digest}'"), "is not a URL"),
            (format!("url = 'https://u:p@x.org/a'\ndigest = '{digest}'"), "no passwords"),
            (format!("url = 'file:///a'\ndigest = '{digest}'"), "is not a URL"),
            ("package = 'a:b'\nversion = '1.0.0'".into(), "registry: name it"),
            ("package = 'a:b'\nregistry = 'r.org'".into(), "version: write the one"),
            ("package = 'ab'\nversion = '1.0.0'\nregistry = 'r.org'".into(), "is not a package"),
            ("package = 'a:b'\nversion = '1.0.0'\nregistry = 'a b'".into(), "is not the host"),
            ("url = 'https://x.org'\npackage = 'a:b'".into(), "give the path of a .wasm file"),
            (String::new(), "give the path of a .wasm file"),
        ] {
            let problem = parse(&source).unwrap_err();
            assert!(problem.contains(part), "{source}: {problem}");
        }
    }
}
