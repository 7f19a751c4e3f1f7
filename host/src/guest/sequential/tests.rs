use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};

use super::*;
use crate::guest::engine::{ComponentForm, code_config};

/// A component that imports `import`, which has a stream, and exports a synchronous and an asynchronous
/// function.
fn component(import: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
              (type $concurrent (instance
                (type $bytes (stream u8))
                (export "read" (func (param "bytes" $bytes)))
                (export "request" (type (sub resource)))))
              (import "{import}" (instance $concurrent (type $concurrent)))
              (import "a:b/c" (instance $plain (export "seven" (func (result u32)))))
              (alias export $concurrent "request" (type $request))
              (type $bytes (stream u8))
              (core module $module
                (import "plain" "seven" (func $seven (result i32)))
                (import "concurrent" "read" (func $read (param i32)))
                (import "concurrent" "drop" (func $drop (param i32)))
                (import "concurrent" "new" (func $new (result i64)))
                (func (export "run") (result i32) (call $seven))
                (func (export "use") (result i32) (call $read (i32.const 0)) (i32.const 1)))
              (core func $seven (canon lower (func $plain "seven")))
              (core func $read (canon lower (func $concurrent "read")))
              (core func $drop (canon resource.drop $request))
              (core func $new (canon stream.new $bytes))
              (core instance $instance (instantiate $module
                (with "plain" (instance (export "seven" (func $seven))))
                (with "concurrent" (instance
                  (export "read" (func $read))
                  (export "drop" (func $drop))
                  (export "new" (func $new))))))
              (func $run (result u32) (canon lift (core func $instance "run")))
              (func $use (result u32) (canon lift (core func $instance "use")))
              (type $async (func async (result u32)))
              (func $wait (type $async) (canon lift (core func $instance "run")))
              (component $shim
                (type $async (func async (result u32)))
                (import "wait" (func $wait (type $async)))
                (export "wait" (func $wait)))
              (instance $waits (instantiate $shim (with "wait" (func $wait))))
              (export "x:y/waits" (instance $waits))
              (instance $runs (export "run" (func $run)))
              (export "x:y/runs" (instance $runs))
              (export "use" (func $use)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn synchronous_functions_run_without_concurrency_support() {
    let form = of(&component("wasi:http/types@0.3.0")).unwrap().unwrap();
    let engine = Engine::new(&code_config(ComponentForm::Sequential)).unwrap();
    let component = Component::new(&engine, &form).unwrap();
    let types = component.component_type();
    let imports: Vec<_> = types.imports(&engine).map(|(name, _)| name.to_owned()).collect();
    assert_eq!(imports, ["a:b/c"]);
    let exports: Vec<_> = types.exports(&engine).map(|(name, _)| name.to_owned()).collect();
    assert_eq!(exports, ["x:y/runs", "use"]);
    let mut linker = Linker::new(&engine);
    linker.instance("a:b/c").unwrap().func_wrap("seven", |_, ()| Ok((7_u32,))).unwrap();
    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(1);
    let instance = linker.instantiate(&mut store, &component).unwrap();
    let runs = instance.get_export_index(&mut store, None, "x:y/runs").unwrap();
    let run = instance.get_export_index(&mut store, Some(&runs), "run").unwrap();
    let run = instance.get_typed_func::<(), (u32,)>(&mut store, run).unwrap();
    assert_eq!(run.call(&mut store, ()).unwrap(), (7,));
    let uses = instance.get_typed_func::<(), (u32,)>(&mut store, "use").unwrap();
    let trap = uses.call(&mut store, ()).unwrap_err();
    assert_eq!(trap.downcast_ref(), Some(&wasmtime::Trap::UnreachableCodeReached));
}

#[test]
fn component_with_other_concurrent_imports_has_no_sequential_form() {
    assert_eq!(of(&component("wasi:cli/stdin@0.3.0")).unwrap(), None);
}

#[test]
fn component_without_concurrency_keeps_its_items() {
    let text = r#"(component
            (import "a:b/c" (instance $c (export "f" (func))))
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (export "f" (func $f)))"#;
    let form = of(&wat::parse_str(text).unwrap()).unwrap().unwrap();
    let engine = Engine::new(&code_config(ComponentForm::Sequential)).unwrap();
    let component = Component::new(&engine, &form).unwrap();
    assert!(component.get_export_index(None, "f").is_some());
}

#[test]
fn invalid_component_is_an_error() {
    let valid = component("wasi:http/types@0.3.0");
    for length in 0..valid.len() {
        let _ = of(&valid[..length]);
    }
    assert!(of(&valid[..valid.len() - 1]).is_err());
    assert!(of(b"\0asm\x01\0\0\0").is_err(), "a core module");
}
