use std::fs::File;

use spinfer_tests::{GUESTS, Launch};

use super::super::harms;
use super::{HEAD, MalformedFile, leb128, malformed};

fn text(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn number(value: usize) -> Vec<u8> {
    leb128(value as u64)
}

fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], number(content.len()).as_slice(), content].concat()
}

/// A component around a core module with these sections.
fn around(sections: &[Vec<u8>]) -> Vec<u8> {
    let module = [b"\0asm\x01\0\0\0", sections.concat().as_slice()].concat();
    [b"\0asm\x0d\0\x01\0", section(1, &module).as_slice()].concat()
}

/// Functions without parameters and with these bodies.
fn functions(bodies: &[Vec<u8>]) -> Vec<u8> {
    let bodies: Vec<_> = bodies.iter().map(|b| [number(b.len()), b.clone()].concat()).collect();
    let types = section(1, &[1, 0x60, 0, 0]);
    let declared = [number(bodies.len()), vec![0; bodies.len()]].concat();
    let code = [number(bodies.len()), bodies.concat()].concat();
    around(&[types, section(3, &declared), section(10, &code)])
}

fn malformed_files() -> Vec<MalformedFile> {
    let real = std::fs::read(format!("{GUESTS}/hello_p2.wasm")).unwrap();
    let mut damaged = real.clone();
    damaged[20] = 0xff;
    let not = "is not a WebAssembly component";
    let module = |items: &str| text(&harms::component(items, "", ""));
    let instances =
        "(core module $m) ".to_owned() + &"(core instance (instantiate $m)) ".repeat(101);
    let memories =
        "(core module $m (memory 1)) ".to_owned() + &"(core instance (instantiate $m)) ".repeat(50);
    let nested = (0..2000).fold(Vec::new(), |inner: Vec<u8>, _| {
        let inner = if inner.is_empty() { inner } else { section(4, &inner) };
        [b"\0asm\x0d\0\x01\0", inner.as_slice()].concat()
    });
    let blocks = |count| [vec![0], [0x02, 0x40].repeat(count), [0x0b].repeat(count + 1)].concat();
    vec![
        malformed("empty", Vec::new(), "it is empty"),
        malformed("truncated", real[..real.len() / 2].to_vec(), not),
        malformed("damaged", damaged, not),
        malformed("module", text("(module)"), "it is a core module, not a component"),
        malformed("section", [&real[..8], &[1, 0xff, 0xff, 0xff, 0xff, 0x0f]].concat(), not),
        malformed(
            "memory-64",
            module("(memory i64 0x1000000000000)"),
            "memory index 0 is unsupported",
        ),
        malformed("table", module("(table 100000000 funcref)"), "table index 0"),
        malformed("instances", text(&format!("(component {instances})")), "core module instances"),
        malformed("memories", text(&format!("(component {memories})")), "memories"),
        // Deep, but valid, and found to have no handler.
        malformed("nested", nested, "it exports no HTTP handler"),
        malformed("functions", functions(&vec![vec![0, 0x0b]; 1_000_001]), not),
        // Four billion locals of one type, in a few bytes.
        malformed(
            "locals",
            functions(&[[vec![1], number(0xffff_ffff), vec![0x7f, 0x0b]].concat()]),
            not,
        ),
        malformed(
            "long-function",
            functions(&[[vec![0], vec![0x01; 8 << 20], vec![0x0b]].concat()]),
            not,
        ),
        // Deep, but valid: compiled, and found to have no handler.
        malformed("blocks", functions(&[blocks(50_000)]), "it exports no HTTP handler"),
    ]
}

#[test]
fn malformed_components_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = HEAD.to_owned();
    let mut add = |id: &str, source: &str| {
        manifest += &format!(
            "[[trigger.http]]\nroute = '/{id}'\ncomponent = '{id}'\n[component.{id}]\n\
             source = '{source}'\ntool.spinfer.limits.instance_memory = '16MiB'\n"
        );
    };
    let mut malformed_files = malformed_files();
    for MalformedFile { name, bytes, .. } in &malformed_files {
        std::fs::write(dir.path().join(format!("{name}.wasm")), bytes).unwrap();
        add(name, &format!("{name}.wasm"));
    }
    // A sparse file of 1 TiB.
    File::create(dir.path().join("enormous.wasm")).unwrap().set_len(1 << 40).unwrap();
    add("enormous", "enormous.wasm");
    malformed_files.push(malformed("enormous", Vec::new(), "is larger than 268435456 bytes"));
    let path = dir.path().join("spin.toml");
    std::fs::write(&path, &manifest).unwrap();
    let (status, printed) = Launch::from_file(&path).check();
    assert_eq!(status.code(), Some(1), "{printed}");
    for MalformedFile { name, expected, .. } in malformed_files {
        let about = printed.split("component `").find(|part| part.starts_with(&format!("{name}`")));
        let about = about.unwrap_or_else(|| panic!("{name} was not refused:\n{printed}"));
        assert!(about.contains(expected), "{name}: {expected:?} is not in {about}");
    }
    assert!(!printed.contains("panicked"), "{printed}");

    // Two components share a file, which exceeds the limit of one of them.
    let text = text(&harms::component("(memory 300)", "", ""));
    std::fs::write(dir.path().join("memory.wasm"), text).unwrap();
    let mut manifest = HEAD.to_owned();
    for (id, memory) in [("small", "16MiB"), ("large", "32MiB")] {
        manifest += &format!(
            "[[trigger.http]]\nroute = '/{id}'\ncomponent = '{id}'\n[component.{id}]\n\
             source = 'memory.wasm'\ntool.spinfer.limits.instance_memory = '{memory}'\n"
        );
    }
    std::fs::write(&path, manifest).unwrap();
    let (status, printed) = Launch::from_file(&path).check();
    let expected = "component `small`: its initial memory is 19660800 bytes";
    assert!(status.code() == Some(1) && printed.contains(expected), "{printed}");
}
