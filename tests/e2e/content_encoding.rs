//! Content codings: request bodies are decoded for every component, response bodies are compressed if the
//! client accepts it.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use spinfer_tests::{Launch, Manifest, Response, STANDARD_DOOR, Spinfer, wait_until};

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn raw_deflate(data: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn probe(settings: &str) -> Spinfer {
    Launch::new(&Manifest::default().with("/...", "probe", "probe", settings)).up()
}

fn posted(spinfer: &Spinfer, path: &str, coding: &str, body: &[u8]) -> Response {
    spinfer.send("POST", path, &[("content-encoding", coding)], body)
}

/// A text of `length` bytes.
fn text(length: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| format!("{n},").into_bytes()).take(length).collect()
}

#[test]
fn encoded_request_body_is_decoded_at_both_doors() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(&format!(
            "{door}tool.spinfer.limits = {{ buffered_body = \"64KiB\", request_body = \"1MiB\" }}"
        ));
        for length in [0, 10, 5000, 500_000] {
            let body = text(length);
            for (coding, coded) in [
                ("gzip", gzip(&body)),
                ("X-Gzip", gzip(&body)),
                ("deflate", zlib(&body)),
                ("deflate", raw_deflate(&body)),
                ("identity", body.clone()),
            ] {
                let response = posted(&spinfer, "/echo", coding, &coded);
                assert!(
                    response.status == 200 && response.body == body,
                    "{length} {coding}: {response:?}"
                );
            }
        }
    }
}

#[test]
fn undecodable_body_is_refused_with_the_supported_encodings() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        let coded = gzip(&text(5000));
        for (coding, body) in [
            ("gzip", &coded[..coded.len() - 1]),
            ("gzip", &[&coded[..], b"garbage"].concat()),
            ("gzip", &text(5000)),
            ("deflate", &coded),
            ("gzip", &zlib(b"text")),
        ] {
            let response = posted(&spinfer, "/echo", coding, body);
            assert_eq!(response.status, 400, "{coding}: {}", response.text());
            assert!(response.error().contains("Content-Encoding"), "{}", response.error());
        }
        for coding in ["br", "zstd", "gzip, gzip", "gzip, br", "compress"] {
            let response = posted(&spinfer, "/echo", coding, &coded);
            assert_eq!(response.status, 415, "{coding}");
            assert_eq!(response.header("accept-encoding"), Some("gzip, deflate"));
            assert!(response.error().contains(coding), "{}", response.error());
        }
    }
}

#[test]
fn decompression_bomb_is_413_and_takes_no_memory() {
    const SIZE: usize = 1 << 30;
    // Zeros, which gzip reduces to a thousandth.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let piece = vec![0; 1 << 20];
    for _ in 0..SIZE / piece.len() {
        encoder.write_all(&piece).unwrap();
    }
    let bomb = encoder.finish().unwrap();
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        assert_eq!(posted(&spinfer, "/echo", "gzip", &gzip(b"warm")).status, 200);
        let before = resident(&spinfer);
        for _ in 0..3 {
            let response = posted(&spinfer, "/echo", "gzip", &bomb);
            assert_eq!(response.status, 413, "{}", response.text());
        }
        let grown = resident(&spinfer).saturating_sub(before);
        assert!(grown < SIZE / 16, "{grown} bytes");
        assert_eq!(posted(&spinfer, "/echo", "gzip", &gzip(b"still")).body, b"still");
    }
}

/// Peak resident memory of the process, in bytes.
fn resident(spinfer: &Spinfer) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", spinfer.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

#[test]
fn cache_lookup_ignores_the_request_encoding() {
    for door in ["", STANDARD_DOOR] {
        let spinfer = probe(door);
        let path = "/cache/a?max-age=60";
        // The standard door streams bodies until the component has returned a cacheable response.
        assert_eq!(spinfer.get("/cache/first?max-age=60").status, 200);
        let first = posted(&spinfer, path, "gzip", &gzip(b"one"));
        for again in [
            spinfer.post(path, "one"),
            posted(&spinfer, path, "deflate", &zlib(b"one")),
            posted(&spinfer, path, "gzip", &gzip(b"one")),
        ] {
            assert!(again.header("cache-status").unwrap().contains("; hit"), "{again:?}");
            assert_eq!(again.body, first.body);
        }
        let other = posted(&spinfer, path, "gzip", &gzip(b"two"));
        assert!(!other.header("cache-status").unwrap().contains("; hit"), "{other:?}");
    }
}

#[test]
fn feedback_and_model_index_accept_encoded_bodies() {
    let spinfer = Launch::new(&Manifest::default().with_iris("iris", 1, "/...", "")).up();
    let feedback = br#"{"prediction_id": "0198c0de-0000-7000-8000-000000000000", "value": 1}"#;
    let plain = spinfer.post("/v2/feedback", feedback);
    let coded = posted(&spinfer, "/v2/feedback", "gzip", &gzip(feedback));
    let unchanged = plain.text().replace("\"unchanged\":0", "\"unchanged\":1");
    assert_eq!((coded.status, coded.text()), (plain.status, unchanged));
    assert_eq!(posted(&spinfer, "/v2/feedback", "br", feedback).status, 415);
    assert_eq!(posted(&spinfer, "/v2/feedback", "gzip", feedback).status, 400);
    let index = posted(&spinfer, "/v2/repository/index", "deflate", &zlib(b"{}"));
    assert_eq!(index.status, 200, "{}", index.text());
}

fn decoded(response: &Response) -> Vec<u8> {
    let mut body = Vec::new();
    match response.header("content-encoding") {
        Some("gzip") => drop(GzDecoder::new(&*response.body).read_to_end(&mut body).unwrap()),
        Some("deflate") => drop(ZlibDecoder::new(&*response.body).read_to_end(&mut body).unwrap()),
        _ => body.clone_from(&response.body),
    }
    body
}

/// The predictions for `rows` rows.
fn predictions(spinfer: &Spinfer, rows: usize, headers: &[(&str, &str)]) -> Response {
    let row = "[5.1, 3.5, 1.4, 0.2]";
    let body = format!("{{\"instances\": [{}]}}", vec![row; rows].join(", "));
    let response =
        spinfer.send("POST", "/v2/models/iris-classifier/predict", headers, body.as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
    response
}

/// The `vary` header of the component, and with compression.
const OWN: Option<&str> = Some("inference-header-content-length");
const VARY: &str = "inference-header-content-length, accept-encoding";

#[test]
fn response_is_compressed_only_if_accepted() {
    let spinfer = Launch::new(&Manifest::default().with_iris("iris", 1, "/...", "")).up();
    let plain = predictions(&spinfer, 1000, &[]);
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some(VARY)));
    for coding in ["gzip", "deflate"] {
        // The cached response is not compressed.
        let response = predictions(&spinfer, 1000, &[("accept-encoding", coding)]);
        assert_eq!(response.header("content-encoding"), Some(coding));
        assert_eq!(response.header("vary"), Some(VARY));
        assert!(response.header("cache-status").unwrap().contains("; hit"), "{response:?}");
        assert!(response.body.len() * 10 < plain.body.len(), "{}", response.body.len());
        assert!(decoded(&response) == plain.body);
    }
    for accept in ["identity", "br", "gzip;q=0", "*;q=0"] {
        let response = predictions(&spinfer, 1000, &[("accept-encoding", accept)]);
        assert_eq!(response.header("content-encoding"), None, "{accept}");
        assert!(response.body == plain.body);
    }
    // A few hundred bytes fit into one packet uncompressed.
    let short = predictions(&spinfer, 1, &[("accept-encoding", "gzip")]);
    assert_eq!((short.header("content-encoding"), short.header("vary")), (None, OWN));
    let forced = predictions(&spinfer, 1, &[("accept-encoding", "gzip, identity;q=0")]);
    assert_eq!(forced.header("content-encoding"), Some("gzip"));
    assert_eq!(decoded(&forced), short.body);
}

#[test]
fn disabled_compression_passes_bodies_through() {
    let settings = "[application.tool.spinfer.compression]\nrequests = false\nresponses = false";
    let manifest = Manifest::default().with("/...", "probe", "probe", "");
    let spinfer = Launch::new(&manifest.and(settings)).up();
    let body = text(5000);
    let echoed = posted(&spinfer, "/echo", "br", &body);
    assert!(echoed.status == 200 && echoed.body == body);
    let unknown =
        spinfer.send("GET", &format!("/{}", "x".repeat(2000)), &[("accept-encoding", "gzip")], b"");
    assert_eq!((unknown.header("content-encoding"), unknown.header("vary")), (None, None));
}

#[test]
fn decoding_a_long_body_does_not_block_other_requests() {
    // The others are served while the long body is decoded.
    let limits = "tool.spinfer.limits = { buffered_body = \"64MiB\", request_body = \"64MiB\" }";
    let spinfer = probe(limits);
    let long = gzip(&vec![7; 60 << 20]);
    std::thread::scope(|scope| {
        let spinfer = &spinfer;
        for _ in 0..2 {
            let long = &long;
            scope.spawn(move || {
                let response = posted(spinfer, "/count", "gzip", long);
                assert!([200, 503].contains(&response.status), "{}", response.text());
            });
        }
        for _ in 0..20 {
            assert_eq!(posted(spinfer, "/echo", "gzip", &gzip(b"short")).body, b"short");
        }
    });
    wait_until("it serves", || spinfer.get("/v2/health/ready").status == 200);
}
