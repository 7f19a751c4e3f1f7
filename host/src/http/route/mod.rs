//! Routes, by Spin's rules. They are compared segment by segment: a literal segment takes precedence
//! over a `:parameter`, and that over the rest of the path (`/...`). So an exact route takes precedence
//! over all others, and a longer prefix over a shorter one. `/a/...` matches `/a`, one trailing slash is
//! ignored, and equivalent percent-encodings match: `/my%5Fmodel` is `/my_model` ([`percent`]).

mod nearest;

use std::fmt;
use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};

use crate::http::percent;

/// Suffixes of a route that match the rest of a path. Spin treats both alike.
const REST: [&str; 2] = ["/...", "/*"];
/// Maximum number of segments of a route.
const MAX_SEGMENTS: usize = 100;

/// A route as written in the manifest: `/a/b`, `/a/:name/c` or `/a/...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// The route as written in the manifest.
    raw: String,
    segments: Vec<Segment>,
    /// Whether it matches the rest of a path.
    rest: bool,
    headers: RouteHeaders,
}

/// The values of Spin's headers that describe a route. `None` for one that no header can have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteHeaders {
    /// Without the slash of the root, as in Spin.
    pub matched: Option<HeaderValue>,
    /// Without `/...`.
    pub component: Option<HeaderValue>,
    pub raw: Option<HeaderValue>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// Matches any segment that is not empty. The component receives its value in this header.
    Parameter(HeaderName),
}

/// Matches every path: the route of a request without one.
pub static ANY: LazyLock<Pattern> = LazyLock::new(|| Pattern::new("/...".into(), Vec::new(), true));

impl Pattern {
    /// Parses a manifest's `route`. As in Spin, the leading slash is optional.
    ///
    /// # Errors
    /// Why the route is invalid.
    pub fn parse(route: &str) -> Result<Self, String> {
        let path = route.strip_prefix('/').unwrap_or(route);
        let path = format!("/{path}");
        let (path, rest) = REST
            .iter()
            .find_map(|rest| Some((path.strip_suffix(rest)?, true)))
            .unwrap_or((trim(&path), false));
        if let Some(character) = path.chars().find(|c| "?# ".contains(*c) || c.is_control()) {
            return Err(format!("a route is a path and cannot contain {character:?}"));
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
                return Err(format!("the parameter `:{name}` occurs twice; rename one"));
            }
        }
        Ok(Self::new(route.to_owned(), segments, rest))
    }

    fn new(raw: String, segments: Vec<Segment>, rest: bool) -> Self {
        let value = |text: &str| HeaderValue::from_bytes(text.as_bytes()).ok();
        let matched = format!("/{}", shown(&raw));
        let headers = RouteHeaders {
            matched: value(if matched == "/" { "" } else { &matched }),
            component: value(raw.strip_suffix("/...").unwrap_or(&raw)),
            raw: value(&raw),
        };
        Self { raw, segments, rest, headers }
    }

    /// The values of Spin's headers that describe the route.
    #[must_use]
    pub fn headers(&self) -> &RouteHeaders {
        &self.headers
    }

    /// The route as written in the manifest.
    #[must_use]
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// Whether it matches the same paths as `other`. An application can have only one of them.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Router::new([self, other].map(|pattern| (pattern.clone(), ()))).is_err()
    }

    /// Whether every path it matches starts with `prefix`, such as `/a/`.
    #[must_use]
    pub fn is_under(&self, prefix: &str) -> bool {
        self.to_string().starts_with(prefix)
    }

    /// The part of `path` that `/...` matches. The pattern has to match `path`.
    #[must_use]
    pub fn rest<'p>(&self, path: &'p str) -> &'p str {
        if !self.rest {
            return "";
        }
        let end = path.match_indices('/').nth(self.segments.len()).map_or(path.len(), |(at, _)| at);
        &path[end..]
    }

    /// The headers of the parameters with their values in `path`. The pattern has to match `path`.
    pub fn parameters<'p>(&self, path: &'p str) -> impl Iterator<Item = (&HeaderName, &'p str)> {
        let values = path.split('/').skip(1);
        self.segments.iter().zip(values).filter_map(|(segment, value)| match segment {
            Segment::Literal(_) => None,
            Segment::Parameter(name) => Some((name, value)),
        })
    }
}

/// Prefix of the headers of parameters.
pub const PATH_MATCH: &str = "spin-path-match-";

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("...") {
            return Err(
                "`...` matches the rest of a path and is only allowed at the end of a route".into(),
            );
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
                "`{text}`: expected a parameter such as `:name`, of letters, digits, `_` and `-`"
            )),
        }
    }
}

/// A route as Spin prints it, without the leading slash.
fn shown(raw: &str) -> &str {
    trim(raw.strip_prefix('/').unwrap_or(raw))
}

/// As Spin prints it: with a leading slash and without a trailing one; the root is `/`.
impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", shown(&self.raw))
    }
}

/// The routes of an application, as a tree of segments. A lookup visits each node at most once, however
/// long the path is, and allocates only if the path has percent-encoded characters.
#[derive(Debug)]
pub struct Router<T>(RouteNode<T>);

#[derive(Debug)]
struct RouteNode<T> {
    /// The children for literal segments, sorted by segment.
    literals: Vec<(String, Self)>,
    parameter: Option<Box<Self>>,
    end: Option<(Pattern, T)>,
    rest: Option<(Pattern, T)>,
}

impl<T> Default for RouteNode<T> {
    fn default() -> Self {
        Self { literals: Vec::new(), parameter: None, end: None, rest: None }
    }
}

impl<T> Router<T> {
    /// Builds the tree.
    ///
    /// # Errors
    /// The first pattern that matches the same paths as an earlier one.
    pub fn new(routes: impl IntoIterator<Item = (Pattern, T)>) -> Result<Self, Box<Pattern>> {
        let mut root = RouteNode::default();
        for (pattern, target) in routes {
            let mut node = &mut root;
            for segment in &pattern.segments {
                node = node.child(segment);
            }
            let target_here = if pattern.rest { &mut node.rest } else { &mut node.end };
            if target_here.is_some() {
                return Err(Box::new(pattern));
            }
            *target_here = Some((pattern, target));
        }
        Ok(Self(root))
    }

    /// The most specific route that matches `path`, which has no query, and its target.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&(Pattern, T)> {
        self.0.find(trim(&percent::normalize(path)))
    }
}

impl<T> RouteNode<T> {
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
mod tests;
