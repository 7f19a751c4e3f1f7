use proptest::prelude::*;

use super::*;

fn router(routes: &[&str]) -> Router<()> {
    Router::new(routes.iter().map(|r| (Pattern::parse(r).unwrap(), ()))).unwrap()
}

fn found<'a>(router: &'a Router<()>, path: &str) -> Option<&'a str> {
    router.find(path).map(|(pattern, ())| pattern.raw())
}

#[test]
fn exact_routes_and_longer_prefixes_take_precedence() {
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
fn literals_take_precedence_over_parameters_and_these_over_the_rest() {
    let router =
        router(&["/:one", "/:one/...", "/:one/b", "/a/:two/c", "/a/b/...", "/a/:two", "/x/y/z"]);
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
    assert_eq!(found(&router, "//b"), None, "a parameter does not match an empty segment");
}

/// Another implementation: whether a route matches, and its precedence.
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
    fn most_specific_matching_route_is_found(
        routes in proptest::collection::vec("(/(a|b|:p|:q)){0,4}(/\\.\\.\\.)?", 1..8),
        path in "(/(a|b|c)?){0,6}",
    ) {
        let mut seen: Vec<String> = Vec::new();
        for route in routes {
            // Routes that match the same paths are an error, which another test covers.
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
    fn arbitrary_routes_and_paths_do_not_panic(route in ".*", path in ".*") {
        if let Ok(pattern) = Pattern::parse(&route) {
            let _ = pattern.rest(&path);
            pattern.parameters(&path).for_each(drop);
            let router = Router::new([(pattern, ())]).unwrap();
            let _ = router.find(&path);
        }
    }
}

#[test]
fn equivalent_percent_encodings_match() {
    let router = router(&["/models/my_model/...", "/models/a%2Db", "/:one/x", "/caf\u{e9}/..."]);
    for (path, route) in [
        ("/models/my%5Fmodel/predict", Some("/models/my_model/...")),
        ("/models/my%5fmodel", Some("/models/my_model/...")),
        ("/%6Dodels/my_model/", Some("/models/my_model/...")),
        ("/models/a-b", Some("/models/a%2Db")),
        ("/models/a%2db", Some("/models/a%2Db")),
        ("/a%2Fb/x", Some("/:one/x")),
        ("/caf%c3%a9/au/lait", Some("/caf\u{e9}/...")),
        // Encoded reserved characters are no separators.
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
fn unmatched_path_has_no_route() {
    let router = router(&["/a/b", "/c/..."]);
    for path in ["/", "", "/a", "/a/b/c", "/cc", "*"] {
        assert!(router.find(path).is_none(), "{path}");
    }
}

#[test]
fn long_paths_are_matched() {
    let router = router(&["/a/...", "/a/b/...", "/:x/:y/z"]);
    let slashes = "/".repeat(60_000);
    assert_eq!(found(&router, &format!("/a/b{slashes}x")), Some("/a/b/..."));
    assert_eq!(found(&router, &format!("/a{slashes}x")), Some("/a/..."));
    assert!(router.find(&format!("/c{slashes}x")).is_none());
    assert!(router.find(&format!("/a\u{e9}{slashes}")).is_none());
}

#[test]
fn rest_and_parameters_are_extracted() {
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
fn duplicate_route_is_named() {
    for (routes, twice) in
        [(&["/a/...", "/a", "/a/"][..], "/a"), (&["/a/:x", "/a/:y"], "/a/:y"), (&["", "/"], "/")]
    {
        let routes = routes.iter().map(|r| (Pattern::parse(r).unwrap(), ()));
        assert_eq!(Router::new(routes).unwrap_err().to_string(), twice);
    }
}

#[test]
fn invalid_route_is_refused_with_the_reason() {
    for (route, part) in [
        ("/a...", "only allowed at the end"),
        ("/.../a", "only allowed at the end"),
        ("/:", "expected a parameter"),
        ("/:a.b", "expected a parameter"),
        ("/:a/:A", "`:a` occurs twice"),
        ("/a?b", "cannot contain '?'"),
        ("/a\nb", "cannot contain '\\n'"),
        (&"/a".repeat(101), "at most 100 segments"),
    ] {
        let error = Pattern::parse(route).unwrap_err();
        assert!(error.contains(part), "{route}: {error}");
    }
}

#[test]
fn pattern_is_displayed_as_in_spin() {
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
