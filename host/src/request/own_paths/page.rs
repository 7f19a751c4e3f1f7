//! The page that lists the models, for browsers. Self-contained: it loads nothing, and its policy allows
//! no script but its own.

use std::fmt::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use html_escape::{encode_quoted_attribute, encode_text};
use http::HeaderValue;
use sha2::{Digest, Sha256};

use super::listing::{Example, ListedVersion, Listing};

pub(super) const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// About the number of characters in a row of a text area.
const COLUMNS: usize = 80;

/// The policy of the page: its style, its script, and requests to this host.
pub(super) static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(Sha256::digest(text));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{}'; script-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(STYLE),
        hash(SCRIPT)
    );
    HeaderValue::try_from(policy).expect("base64 is ASCII")
});

/// The page of the application `name`.
pub(super) fn render(name: &str, listing: &Listing<'_>) -> String {
    let name = encode_text(name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name}</title>\n<style>{STYLE}</style>\n<h1>{name}</h1>\n"
    );
    if listing.versions.is_empty() {
        page += "<p>This application has no models.</p>\n";
    }
    for version in &listing.versions {
        section(version, &mut page);
    }
    // Last: it looks for the forms.
    let _ = writeln!(page, "<script>{SCRIPT}</script>\n</html>");
    page
}

fn section(listed: &ListedVersion<'_>, page: &mut String) {
    let ListedVersion { name, version, ready, reason, routes, example } = listed;
    let version =
        version.map(|version| format!(" <small>version {}</small>", encode_text(version)));
    let (class, state) = if *ready { ("ready", "ready") } else { ("unready", "not ready") };
    // Writing to a string cannot fail.
    let _ = writeln!(
        page,
        "<section>\n<h2>{}{} <span class=\"{class}\">{state}</span></h2>",
        encode_text(name),
        version.unwrap_or_default()
    );
    if !reason.is_empty() {
        let _ = writeln!(page, "<p class=\"reason\">{}</p>", encode_text(reason));
    }
    *page += "<ul>\n";
    for route in routes {
        let _ = writeln!(page, "<li><code>{}</code>", encode_text(route));
    }
    *page += "</ul>\n";
    if *ready && let Some(Example { path, body }) = example {
        let action = encode_quoted_attribute(path);
        let lines = body.lines().map(|line| 1 + line.len() / COLUMNS).sum::<usize>().min(20);
        let _ = writeln!(
            page,
            "<details><summary>Try it</summary>\n<form action=\"{action}\">\n\
             <label><code>POST {}</code>\n<textarea name=\"body\" rows=\"{lines}\" spellcheck=\"false\">\n{}\
             </textarea></label>\n<button>Send</button>\n<pre><output></output></pre>\n</form>\n</details>",
            encode_text(path),
            encode_text(body)
        );
    }
    *page += "</section>\n";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped() {
        let evil = "</textarea></style><script>alert(1)</script>\"'&";
        let version = ListedVersion {
            name: evil,
            version: Some(evil),
            ready: true,
            reason: evil.to_owned(),
            routes: vec![evil],
            example: Some(Example { path: evil.to_owned(), body: evil.to_owned() }),
        };
        let mut section_of_evil = String::new();
        section(&version, &mut section_of_evil);
        assert!(!section_of_evil.contains("<script>alert"), "{section_of_evil}");
        assert!(!section_of_evil.contains("</style>"), "{section_of_evil}");
        assert_eq!(section_of_evil.matches("</textarea>").count(), 1, "{section_of_evil}");
        let action = section_of_evil.split("action=\"").nth(1).unwrap();
        let action = &action[..action.find('"').unwrap()];
        assert!(action.ends_with("&quot;&#x27;&amp;"), "{action}");
    }

    #[test]
    fn only_a_ready_version_has_a_form() {
        for ready in [true, false] {
            let body = format!("{{\"inputs\": [\n  {}\n]}}", "0.5,".repeat(784));
            let version = ListedVersion {
                name: "m",
                version: None,
                ready,
                reason: String::new(),
                routes: vec!["/..."],
                example: Some(Example { path: "/v2/models/m/infer".to_owned(), body }),
            };
            let mut text = String::new();
            section(&version, &mut text);
            assert_eq!(text.contains("<form"), ready, "{text}");
            assert_eq!(text.contains("rows=\"20\""), ready, "a long line is wrapped: {text}");
        }
    }

    #[test]
    fn policy_allows_the_page_and_nothing_else() {
        let policy = POLICY.to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    }
}
