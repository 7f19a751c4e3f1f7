//! The routes that resemble a path that none matches.

use super::{Pattern, RouteNode, Router, trim};
use crate::http::percent;
use crate::process::text::shortened;

/// Maximum number of routes that are suggested.
const MAX_SUGGESTED: usize = 3;
/// Maximum number of routes that a path is compared with: an application can have thousands.
const MAX_COMPARED: usize = 64;
/// Similarity from which a route is suggested.
const SIMILAR: f64 = 0.8;
/// Maximum difference of its similarity from that of the nearest.
const MAX_DIFFERENCE: f64 = 0.1;

impl<T> Router<T> {
    /// The routes, and those of the `own` paths of the host, that resemble `path` most, the nearest first.
    #[must_use]
    pub fn nearest(&self, path: &str, own: &[&str]) -> Vec<String> {
        let path = percent::normalize(shortened(path));
        let path = trim(&path);
        let mut found = Vec::new();
        self.0.collect_near(path, &mut found);
        let shown = found.into_iter().map(Pattern::to_string);
        let candidates = shown.chain(own.iter().map(|&path| path.to_owned()));
        let mut scored: Vec<_> = candidates
            .map(|route| (similarity(path, &route), route))
            .filter(|(score, _)| *score >= SIMILAR)
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let best = scored.first().map_or(0.0, |(score, _)| *score);
        scored.retain(|(score, _)| best - score <= MAX_DIFFERENCE);
        scored.truncate(MAX_SUGGESTED);
        scored.into_iter().map(|(_, route)| route).collect()
    }
}

impl<T> RouteNode<T> {
    /// Collects routes, first those that share the most segments with `path`, at most [`MAX_COMPARED`].
    fn collect_near<'a>(&'a self, path: &str, found: &mut Vec<&'a Pattern>) {
        let rest = path.strip_prefix('/').unwrap_or_default();
        let (segment, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let same =
            self.literals.binary_search_by(|(literal, _)| literal.as_str().cmp(segment)).ok();
        if let Some(at) = same {
            self.literals[at].1.collect_near(after, found);
        }
        let here = [&self.end, &self.rest].into_iter().flatten();
        for (pattern, _) in here {
            if found.len() >= MAX_COMPARED {
                return;
            }
            found.push(pattern);
        }
        let others = self.literals.iter().enumerate().filter(|(at, _)| Some(*at) != same);
        let others = others.map(|(_, (_, node))| node).chain(self.parameter.as_deref());
        for node in others {
            if found.len() >= MAX_COMPARED {
                return;
            }
            node.collect_near("", found);
        }
    }
}

/// How similar a path is to a route, from 0 to 1. The rest of a path (`/...`) can be anything.
fn similarity(path: &str, route: &str) -> f64 {
    let route = shortened(route);
    match super::REST.iter().find_map(|rest| route.strip_suffix(rest)) {
        Some(fixed) => {
            let segments = fixed.matches('/').count();
            let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
            strsim::normalized_damerau_levenshtein(&path[..end], fixed)
        }
        None => strsim::normalized_damerau_levenshtein(path, route),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router(routes: &[&str]) -> Router<()> {
        Router::new(routes.iter().map(|route| (Pattern::parse(route).unwrap(), ()))).unwrap()
    }

    #[test]
    fn similar_routes_are_suggested_nearest_first() {
        let router = router(&[
            "/v2/models/iris-classifier/...",
            "/v2/models/iris-classifier/versions/1/...",
            "/v2/models/digits-classifier/...",
            "/iris/...",
            "/about",
            "/users/:name/orders",
        ]);
        for (path, expected) in [
            ("/v2/models/iris-clasifier/infer", &["/v2/models/iris-classifier/..."][..]),
            ("/v2/model/iris-classifier/infer", &["/v2/models/iris-classifier/..."]),
            ("/abuot", &["/about"]),
            ("/irsi/predict", &["/iris/..."]),
            ("/v2/health/redy", &["/v2/health/ready"]),
            ("/elsewhere", &[]),
            ("/", &[]),
            ("*", &[]),
            ("", &[]),
            ("/%61bout/", &["/about"]),
            ("/%ff%00é", &[]),
        ] {
            assert_eq!(router.nearest(path, &["/v2/health/ready"]), expected, "{path}");
        }
    }

    #[test]
    fn work_and_suggestions_are_bounded() {
        let routes: Vec<_> = (0..5000).map(|n| format!("/a{}/b{}/c{n}", n % 7, n % 50)).collect();
        let router = router(&routes.iter().map(String::as_str).collect::<Vec<_>>());
        let mut found = Vec::new();
        router.0.collect_near("/a3/b3/c3x", &mut found);
        assert_eq!(found.len(), MAX_COMPARED);
        assert!(found[0].to_string().starts_with("/a3/b3/"), "{}", found[0]);
        assert!((1..=MAX_SUGGESTED).contains(&router.nearest("/a3/b3/c3x", &[]).len()));
        let _ = router.nearest(&"/é".repeat(100_000), &[]);
    }

    proptest::proptest! {
        #[test]
        fn no_path_panics(path in ".*", other in "(/|%|[0-9a-zé]|\\.){0,20}") {
            let router = router(&["/...", "/a/:b/c", "/é/..."]);
            let _ = (router.nearest(&path, &["/v2"]), router.nearest(&other, &[]));
        }
    }
}
