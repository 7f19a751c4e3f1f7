//! Path -> component, by Spin's rules: an exact route beats a prefix, a longer prefix beats a
//! shorter one, and `/a/...` matches `/a` itself. A trailing slash does not matter.

use std::collections::HashMap;
use std::fmt;

/// A route as the manifest writes it: `/a/b` or `/a/...`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// Without a trailing slash: `/a/b`; the root is empty.
    path: String,
    prefix: bool,
}

impl Pattern {
    /// Parses a manifest's `route`.
    pub fn parse(route: &str) -> Result<Self, String> {
        if !route.starts_with('/') {
            return Err(format!("a route starts with a slash: \"/{route}\""));
        }
        let (path, prefix) = match route.strip_suffix("/...") {
            Some(path) => (path, true),
            None => (trim(route), false),
        };
        for segment in path.split('/').skip(1) {
            if segment.contains("...") {
                return Err("`...` stands for the rest of a path and may only end a route".into());
            }
            if segment.starts_with(':') {
                return Err(format!(
                    "`{segment}`: path parameters are not supported yet; use \"/...\""
                ));
            }
        }
        if let Some(character) = path.chars().find(|c| "?# ".contains(*c)) {
            return Err(format!("a route is a path and cannot hold {character:?}"));
        }
        Ok(Self { path: path.to_owned(), prefix })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.prefix, self.path.as_str()) {
            (false, "") => f.write_str("/"),
            (false, path) => f.write_str(path),
            (true, path) => write!(f, "{path}/..."),
        }
    }
}

/// The routes of an application. Looking up costs one hash per segment of the longest prefix at the
/// most, however many routes there are and however long the path is.
#[derive(Debug)]
pub struct Router<T> {
    exact: HashMap<String, T>,
    prefix: HashMap<String, T>,
    /// Bytes of the longest prefix.
    longest: usize,
}

impl<T> Router<T> {
    /// Fails with the first pattern that was given twice.
    pub fn new(routes: impl IntoIterator<Item = (Pattern, T)>) -> Result<Self, Pattern> {
        let mut router = Self { exact: HashMap::new(), prefix: HashMap::new(), longest: 0 };
        for (pattern, target) in routes {
            let map = if pattern.prefix { &mut router.prefix } else { &mut router.exact };
            if map.contains_key(&pattern.path) {
                return Err(pattern);
            }
            if pattern.prefix {
                router.longest = router.longest.max(pattern.path.len());
            }
            map.insert(pattern.path, target);
        }
        Ok(router)
    }

    /// What serves `path` (without its query).
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&T> {
        let path = trim(path);
        self.exact.get(path).or_else(|| {
            let mut end = path.len();
            loop {
                if end <= self.longest
                    && let Some(target) = self.prefix.get(&path[..end])
                {
                    return Some(target);
                }
                let before = &path.as_bytes()[..end.min(self.longest + 1)];
                end = before.iter().rposition(|&byte| byte == b'/')?;
            }
        })
    }
}

fn trim(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[&str]) -> Router<String> {
        let routes = routes.iter().map(|r| (Pattern::parse(r).unwrap(), (*r).to_owned()));
        Router::new(routes).unwrap()
    }

    #[test]
    fn exact_beats_prefix_and_long_beats_short() {
        let router = router(&["/...", "/a/...", "/a/b/...", "/a/b", "/c"]);
        for (path, route) in [
            ("/", "/..."),
            ("/x", "/..."),
            ("/a", "/a/..."),
            ("/a/", "/a/..."),
            ("/a/x/y", "/a/..."),
            ("/ab", "/..."),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("/a/b/c", "/a/b/..."),
            ("/a/bc", "/a/..."),
            ("/c", "/c"),
            ("/c/d", "/..."),
        ] {
            assert_eq!(router.find(path).unwrap(), route, "{path}");
        }
    }

    #[test]
    fn without_a_match_there_is_none() {
        let router = router(&["/a/b", "/c/..."]);
        for path in ["/", "", "/a", "/a/b/c", "/cc", "*"] {
            assert!(router.find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_long_path_is_matched_like_a_short_one() {
        let router = router(&["/a/...", "/a/b/..."]);
        let slashes = "/".repeat(60_000);
        assert_eq!(router.find(&format!("/a/b{slashes}x")).unwrap(), "/a/b/...");
        assert_eq!(router.find(&format!("/a{slashes}x")).unwrap(), "/a/...");
        assert!(router.find(&format!("/c{slashes}x")).is_none());
        assert!(router.find(&format!("/a\u{e9}{slashes}")).is_none());
    }

    #[test]
    fn a_route_given_twice_is_named() {
        let twice = ["/a/...", "/a", "/a/"].map(|r| (Pattern::parse(r).unwrap(), ()));
        assert_eq!(Router::new(twice).unwrap_err().to_string(), "/a");
    }

    #[test]
    fn a_bad_route_is_refused_with_the_reason() {
        for (route, part) in [
            ("a", "starts with a slash"),
            ("/a...", "may only end"),
            ("/.../a", "may only end"),
            ("/:id", "not supported yet"),
            ("/a?b", "cannot hold '?'"),
        ] {
            let error = Pattern::parse(route).unwrap_err();
            assert!(error.contains(part), "{route}: {error}");
        }
    }

    #[test]
    fn a_pattern_prints_as_written() {
        for route in ["/", "/...", "/a", "/a/b/..."] {
            assert_eq!(Pattern::parse(route).unwrap().to_string(), route);
        }
    }
}
