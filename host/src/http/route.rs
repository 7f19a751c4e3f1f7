//! Path -> component, by Spin's rules. Routes are compared segment by segment: a literal segment
//! beats a `:parameter`, which beats the rest of the path (`/...`). So an exact route beats all
//! others, and a longer prefix a shorter one. `/a/...` matches `/a` itself, and one trailing slash
//! of a path does not matter. Nor does how it is spelt: `/my%5Fmodel` is `/my_model` ([`percent`]).

use std::fmt;
use std::sync::LazyLock;

use http::HeaderName;

use crate::http::percent;

/// The rest of a path, at the end of a route. Spin takes `/*` for the same.
const REST: [&str; 2] = ["/...", "/*"];
/// Segments of a route.
const MAX_SEGMENTS: usize = 100;

/// A route as the manifest writes it: `/a/b`, `/a/:name/c` or `/a/...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// As written.
    raw: String,
    segments: Vec<Segment>,
    /// Whether the rest of the path follows.
    rest: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// Any segment that is not empty, and the header its value goes into.
    Parameter(HeaderName),
}

/// What every path matches: the route of a request that came without one.
pub static ANY: LazyLock<Pattern> =
    LazyLock::new(|| Pattern { raw: "/...".into(), segments: Vec::new(), rest: true });

impl Pattern {
    /// Parses a manifest's `route`. As in Spin, it need not start with a slash.
    pub fn parse(route: &str) -> Result<Self, String> {
        let path = route.strip_prefix('/').unwrap_or(route);
        let path = format!("/{path}");
        let (path, rest) = REST
            .iter()
            .find_map(|rest| Some((path.strip_suffix(rest)?, true)))
            .unwrap_or((trim(&path), false));
        if let Some(character) = path.chars().find(|c| "?# ".contains(*c) || c.is_control()) {
            return Err(format!("a route is a path and cannot hold {character:?}"));
        }
        let segments =
            path.split('/').skip(1).map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        if segments.len() > MAX_SEGMENTS {
            return Err(format!("a route has at most {MAX_SEGMENTS} segments"));
        }
        for (index, segment) in segments.iter().enumerate() {
            if let Segment::Parameter(name) = segment
                && segments[..index].contains(segment)
            {
                let name = &name.as_str()[PATH_MATCH.len()..];
                return Err(format!("the parameter `:{name}` stands twice; rename one"));
            }
        }
        Ok(Self { raw: route.to_owned(), segments, rest })
    }

    /// As written in the manifest.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Whether it matches the same paths as `other`: an application has only one of them.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Router::new([self, other].map(|pattern| (pattern.clone(), ()))).is_err()
    }

    /// Whether all it matches begins with `prefix`, such as `/a/`.
    #[must_use]
    pub fn is_under(&self, prefix: &str) -> bool {
        self.to_string().starts_with(prefix)
    }

    /// What of `path`, which it matches, `/...` stands for.
    #[must_use]
    pub fn rest<'p>(&self, path: &'p str) -> &'p str {
        if !self.rest {
            return "";
        }
        let end = path.match_indices('/').nth(self.segments.len()).map_or(path.len(), |(at, _)| at);
        &path[end..]
    }

    /// The parameters' headers, and their values in `path`, which it matches.
    pub fn parameters<'p>(&self, path: &'p str) -> impl Iterator<Item = (&HeaderName, &'p str)> {
        let values = path.split('/').skip(1);
        self.segments.iter().zip(values).filter_map(|(segment, value)| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter(name) => Some((name, value)),
        })
    }
}

/// How the header of a parameter begins.
pub const PATH_MATCH: &str = "spin-path-match-";

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("...") {
            return Err("`...` stands for the rest of a path and may only end a route".into());
        }
        let Some(name) = text.strip_prefix(':') else {
            return Ok(Self::Literal(percent::normalize(text).into_owned()));
        };
        let fits = !name.is_empty()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        let header = format!("{PATH_MATCH}{}", name.to_ascii_lowercase().replace('_', "-"));
        match HeaderName::try_from(header) {
            Ok(header) if fits => Ok(Self::Parameter(header)),
            _ => Err(format!(
                "`{text}`: a parameter's name has letters, digits, `_` and `-`: \":name\""
            )),
        }
    }
}

/// With a leading slash and without a trailing one, as Spin shows it; the root is `/`.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let raw = self.raw.strip_prefix('/').unwrap_or(&self.raw);
        write!(f, "/{}", trim(raw))
    }
}

/// The routes of an application, as a tree of segments. Looking up allocates nothing, unless the path
/// has percent-encoded characters, and visits each node of the tree once at the most, however long the
/// path is.
#[derive(Debug)]
pub struct Router<T>(Node<T>);

#[derive(Debug)]
struct Node<T> {
    /// In order.
    literals: Vec<(String, Self)>,
    parameter: Option<Box<Self>>,
    end: Option<(Pattern, T)>,
    rest: Option<(Pattern, T)>,
}

impl<T> Default for Node<T> {
    fn default() -> Self {
        Self { literals: Vec::new(), parameter: None, end: None, rest: None }
    }
}

impl<T> Router<T> {
    /// Fails with the first pattern that matches the same paths as one before.
    pub fn new(routes: impl IntoIterator<Item = (Pattern, T)>) -> Result<Self, Pattern> {
        let mut root = Node::default();
        for (pattern, target) in routes {
            let mut node = &mut root;
            for segment in &pattern.segments {
                node = node.child(segment);
            }
            let place = if pattern.rest { &mut node.rest } else { &mut node.end };
            if place.is_some() {
                return Err(pattern);
            }
            *place = Some((pattern, target));
        }
        Ok(Self(root))
    }

    /// What serves `path` (without its query), and its route.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&(Pattern, T)> {
        self.0.find(trim(&percent::normalize(path)))
    }
}

impl<T> Node<T> {
    fn child(&mut self, segment: &Segment) -> &mut Self {
        match segment {
            Segment::Parameter(_) => self.parameter.get_or_insert_default(),
            Segment::Literal(text) => {
                let found = self.literals.binary_search_by(|(literal, _)| literal.cmp(text));
                let at = found.unwrap_or_else(|at| {
                    self.literals.insert(at, (text.clone(), Self::default()));
                    at
                });
                &mut self.literals[at].1
            }
        }
    }

    fn find(&self, path: &str) -> Option<&(Pattern, T)> {
        let Some(path) = path.strip_prefix('/') else {
            let here = path.is_empty().then(|| self.end.as_ref().or(self.rest.as_ref()));
            return here.flatten();
        };
        let (segment, after) = path.split_at(path.find('/').unwrap_or(path.len()));
        let literal = self.literals.binary_search_by(|(literal, _)| literal.as_str().cmp(segment));
        literal
            .ok()
            .and_then(|at| self.literals[at].1.find(after))
            .or_else(|| self.parameter.as_ref().filter(|_| !segment.is_empty())?.find(after))
            .or(self.rest.as_ref())
    }
}

fn trim(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn router(routes: &[&str]) -> Router<()> {
        Router::new(routes.iter().map(|r| (Pattern::parse(r).unwrap(), ()))).unwrap()
    }

    fn found<'a>(router: &'a Router<()>, path: &str) -> Option<&'a str> {
        router.find(path).map(|(pattern, ())| pattern.raw())
    }

    #[test]
    fn exact_beats_prefix_and_long_beats_short() {
        let router = router(&["/...", "/a/...", "/a/b/...", "/a/b", "/c"]);
        for (path, route) in [
            ("/", "/..."),
            ("", "/..."),
            ("/x", "/..."),
            ("/a", "/a/..."),
            ("/a/", "/a/..."),
            ("/a/x/y", "/a/..."),
            ("/ab", "/..."),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("/a/b/c", "/a/b/..."),
            ("/a/b//", "/a/b/..."),
            ("/a/bc", "/a/..."),
            ("/c", "/c"),
            ("/c/d", "/..."),
        ] {
            assert_eq!(found(&router, path), Some(route), "{path}");
        }
    }

    #[test]
    fn a_literal_beats_a_parameter_beats_the_rest() {
        let router = router(&[
            "/:one",
            "/:one/...",
            "/:one/b",
            "/a/:two/c",
            "/a/b/...",
            "/a/:two",
            "/x/y/z",
        ]);
        for (path, route) in [
            ("/a", "/:one"),
            ("/q/r", "/:one/..."),
            ("/q/b", "/:one/b"),
            ("/a/b", "/a/b/..."),
            ("/a/c", "/a/:two"),
            ("/a/b/c", "/a/b/..."),
            ("/a/q/c", "/a/:two/c"),
            ("/a/q/d", "/:one/..."),
            ("/a//c", "/:one/..."),
            ("/x/y", "/:one/..."),
            ("/x/y/z", "/x/y/z"),
        ] {
            assert_eq!(found(&router, path), Some(route), "{path}");
        }
        assert_eq!(found(&router, "/"), None);
        assert_eq!(found(&router, "//b"), None, "no parameter is empty");
    }

    /// What a route is, and how specific, told another way.
    fn naive(route: &str, path: &str) -> Option<Vec<u8>> {
        let rest = route.strip_suffix("/...");
        let wanted: Vec<_> = trim(rest.unwrap_or(route)).split('/').skip(1).collect();
        let given: Vec<_> = trim(path).split('/').skip(1).collect();
        if given.len() < wanted.len() || rest.is_none() && given.len() > wanted.len() {
            return None;
        }
        let mut key = Vec::new();
        for (wanted, given) in wanted.iter().zip(&given) {
            match wanted.starts_with(':') {
                true if given.is_empty() => return None,
                true => key.push(1),
                false if wanted == given => key.push(0),
                false => return None,
            }
        }
        key.push(if rest.is_some() { 2 } else { 0 });
        Some(key)
    }

    proptest! {
        #[test]
        fn the_most_specific_of_all_that_match_is_found(
            routes in proptest::collection::vec("(/(a|b|:p|:q)){0,4}(/\\.\\.\\.)?", 1..8),
            path in "(/(a|b|c)?){0,6}",
        ) {
            let mut seen: Vec<String> = Vec::new();
            for route in routes {
                // Two that match the same are a mistake, tested elsewhere.
                let shape = route.replace(":q", ":p");
                let twice = shape.matches(":p").count() > 1;
                if !twice && !seen.contains(&shape) {
                    seen.push(shape);
                }
            }
            let refs: Vec<_> = seen.iter().map(String::as_str).collect();
            let router = router(&refs);
            let best = refs.iter().filter_map(|route| Some((naive(route, &path)?, *route))).min();
            prop_assert_eq!(found(&router, &path), best.map(|(_, route)| route));
        }

        #[test]
        fn any_route_is_taken_or_refused_and_any_path_looked_up(route in ".*", path in ".*") {
            if let Ok(pattern) = Pattern::parse(&route) {
                let _ = pattern.rest(&path);
                pattern.parameters(&path).for_each(drop);
                let router = Router::new([(pattern, ())]).unwrap();
                let _ = router.find(&path);
            }
        }
    }

    #[test]
    fn a_path_matches_however_it_is_spelt() {
        let router =
            router(&["/models/my_model/...", "/models/a%2Db", "/:one/x", "/caf\u{e9}/..."]);
        for (path, route) in [
            ("/models/my%5Fmodel/predict", Some("/models/my_model/...")),
            ("/models/my%5fmodel", Some("/models/my_model/...")),
            ("/%6Dodels/my_model/", Some("/models/my_model/...")),
            ("/models/a-b", Some("/models/a%2Db")),
            ("/models/a%2db", Some("/models/a%2Db")),
            ("/a%2Fb/x", Some("/:one/x")),
            ("/caf%c3%a9/au/lait", Some("/caf\u{e9}/...")),
            // What is reserved separates nothing, and means nothing.
            ("/models%2Fmy_model/predict", None),
            ("/models/my_model%2Fpredict", None),
            ("/models/%2E%2E/models/my_model/predict", None),
        ] {
            assert_eq!(found(&router, path), route, "{path}");
        }
        let routes = ["/my_model", "/my%5Fmodel"].map(|r| (Pattern::parse(r).unwrap(), ()));
        assert_eq!(Router::new(routes).unwrap_err().raw(), "/my%5Fmodel");
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
        let router = router(&["/a/...", "/a/b/...", "/:x/:y/z"]);
        let slashes = "/".repeat(60_000);
        assert_eq!(found(&router, &format!("/a/b{slashes}x")), Some("/a/b/..."));
        assert_eq!(found(&router, &format!("/a{slashes}x")), Some("/a/..."));
        assert!(router.find(&format!("/c{slashes}x")).is_none());
        assert!(router.find(&format!("/a\u{e9}{slashes}")).is_none());
    }

    #[test]
    fn what_a_route_takes_of_a_path() {
        for (route, path, rest, parameters) in [
            ("/...", "/", "/", &[][..]),
            ("/...", "/1/2/3", "/1/2/3", &[]),
            ("/...", "", "", &[]),
            ("/test/...", "/test", "", &[]),
            ("/test/...", "/test/", "/", &[]),
            ("/test/...", "/test/hello", "/hello", &[]),
            ("/test/...", "/test/hello/", "/hello/", &[]),
            ("/test/*", "/test/hello", "/hello", &[]),
            ("/test", "/test/", "", &[]),
            ("/1/:two/3", "/1/2/3", "", &[("spin-path-match-two", "2")]),
            ("/:User_Id/...", "/%20/x", "/x", &[("spin-path-match-user-id", "%20")]),
        ] {
            let pattern = Pattern::parse(route).unwrap();
            let router = Router::new([(pattern.clone(), ())]).unwrap();
            assert!(router.find(path).is_some(), "{route} {path}");
            assert_eq!(pattern.rest(path), rest, "{route} {path}");
            let found: Vec<_> = pattern.parameters(path).map(|(n, v)| (n.as_str(), v)).collect();
            assert_eq!(found, parameters, "{route} {path}");
        }
    }

    #[test]
    fn a_route_given_twice_is_named() {
        for (routes, twice) in [
            (&["/a/...", "/a", "/a/"][..], "/a"),
            (&["/a/:x", "/a/:y"], "/a/:y"),
            (&["", "/"], "/"),
        ] {
            let routes = routes.iter().map(|r| (Pattern::parse(r).unwrap(), ()));
            assert_eq!(Router::new(routes).unwrap_err().to_string(), twice);
        }
    }

    #[test]
    fn a_bad_route_is_refused_with_the_reason() {
        for (route, part) in [
            ("/a...", "may only end"),
            ("/.../a", "may only end"),
            ("/:", "a parameter's name"),
            ("/:a.b", "a parameter's name"),
            ("/:a/:A", "`:a` stands twice"),
            ("/a?b", "cannot hold '?'"),
            ("/a\nb", "cannot hold '\\n'"),
            (&"/a".repeat(101), "at most 100 segments"),
        ] {
            let error = Pattern::parse(route).unwrap_err();
            assert!(error.contains(part), "{route}: {error}");
        }
    }

    #[test]
    fn a_pattern_is_shown_as_spin_shows_it() {
        for (route, shown) in [
            ("/", "/"),
            ("", "/"),
            ("/...", "/..."),
            ("a", "/a"),
            ("/a/", "/a"),
            ("/a/b/...", "/a/b/..."),
            ("/:x/b", "/:x/b"),
        ] {
            let pattern = Pattern::parse(route).unwrap();
            assert_eq!((pattern.to_string().as_str(), pattern.raw()), (shown, route));
        }
    }
}
